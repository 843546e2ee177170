//! Headers, trailers and the reason phrase.

use http::{Extensions, HeaderMap, HeaderName, HeaderValue};
use hyper::ext::ReasonPhrase;

use super::Needles;

/// Masks every value, and drops every field whose name holds what is searched for.
pub(super) fn mask_headers(headers: &mut HeaderMap, needles: &Needles) {
    let mut names_to_drop = Vec::new();
    for (name, value) in headers.iter_mut() {
        if needles.mask(name.as_str().as_bytes()).is_some() {
            names_to_drop.push(name.clone());
        } else if let Some(masked) = needles.mask(value.as_bytes()) {
            // `*` may stand wherever another byte of a value stood; were that ever untrue, an empty value is safe.
            let mut clean = HeaderValue::from_bytes(&masked).unwrap_or(const { HeaderValue::from_static("") });
            clean.set_sensitive(value.is_sensitive());
            *value = clean;
        }
    }
    remove_all(headers, &names_to_drop);
}

/// Removes fields without changing the order of the others, as `HeaderMap::remove` would.
pub(super) fn remove_all(headers: &mut HeaderMap, names: &[HeaderName]) {
    if !names.iter().any(|name| headers.contains_key(name)) {
        return;
    }
    let mut kept = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers.iter().filter(|(name, _)| !names.contains(name)) {
        kept.append(name.clone(), value.clone());
    }
    *headers = kept;
}

/// Masks the reason phrase that an HTTP/1.1 upstream sent; without one, the canonical phrase is used.
pub(super) fn mask_reason(extensions: &mut Extensions, needles: &Needles) {
    let Some(reason) = extensions.get::<ReasonPhrase>() else { return };
    let Some(masked) = needles.mask(reason.as_bytes()) else { return };
    extensions.remove::<ReasonPhrase>();
    if let Ok(clean) = ReasonPhrase::try_from(masked) {
        extensions.insert(clean);
    }
}
