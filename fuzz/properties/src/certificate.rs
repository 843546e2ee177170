//! Names in clients' certificates and SPIFFE IDs.

use valetkey::identity::{certificate_identity, is_certificate_name, spiffe_id};
use valetkey::model::Identity;

/// Whatever is read out of a certificate stands in it, letter for letter, and is a name of the kind that it is called; and
/// a SPIFFE ID has one spelling.
///
/// # Panics
/// Where that does not hold.
pub fn certificate(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Some(identity) = spiffe_id(text)
    {
        assert_eq!(identity.to_string(), text, "a SPIFFE ID has one spelling");
        let path = text.splitn(4, '/').nth(3).unwrap_or_default();
        let plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"%?#@\\".contains(&byte));
        assert!(plain && !path.split('/').any(|part| matches!(part, "" | "." | "..")), "{text:?}");
    }
    let Some(identity) = certificate_identity(data) else { return };
    let name = match &identity {
        Identity::Mtls(name) => {
            assert!(is_certificate_name(name), "{name:?} is no name");
            name.to_string()
        }
        Identity::Spiffe(id) => {
            assert_eq!(spiffe_id(id).as_ref(), Some(&identity), "{id:?} is no SPIFFE ID");
            id.to_string()
        }
        other => panic!("a certificate proves no {other}"),
    };
    assert!(data.windows(name.len()).any(|part| part == name.as_bytes()), "{name:?} does not stand in it");
}
