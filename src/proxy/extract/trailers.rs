//! The fields after a body: no way around what was judged in the head.

use http::HeaderMap;

use super::{fields, strays};
use crate::proxy::flow::UploadFault;

/// Judges an agent's trailers: a credential or a nonce ends the upload; what a trailer may not say (RFC 9110, 6.5.1)
/// is taken out.
///
/// # Errors
/// [`UploadFault`]: the request must not come to its end.
pub fn check_trailers(trailers: &HeaderMap) -> Result<HeaderMap, UploadFault> {
    if trailers.keys().any(|name| fields::is_credential(name.as_str())) {
        return Err(UploadFault::ForeignCredential);
    }
    if !strays::find_in_fields(trailers, None).is_empty() {
        return Err(UploadFault::NonceMisplaced);
    }
    let kept = trailers.iter().filter(|(name, _)| fields::may_trail(name.as_str()));
    Ok(kept.map(|(name, value)| (name.clone(), value.clone())).collect())
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn judge(fields: &[(&'static str, &'static str)]) -> Result<Vec<String>, UploadFault> {
        let fields = fields.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)));
        let kept = check_trailers(&fields.collect())?;
        Ok(kept.keys().map(|name| name.as_str().to_owned()).collect())
    }

    #[test]
    fn what_is_said_of_the_body_passes() {
        assert_eq!(judge(&[("x-checksum", "1"), ("grpc-status", "0")]).unwrap(), ["x-checksum", "grpc-status"]);
    }

    #[test]
    fn what_belongs_to_a_head_is_taken_out() {
        for name in ["host", "content-length", "transfer-encoding", "te", "x-forwarded-host", "x_http_method", "range"]
        {
            assert!(judge(&[(name, "1")]).unwrap().is_empty(), "{name}");
        }
    }

    #[test]
    fn credentials_and_nonces_end_the_upload() {
        for name in ["authorization", "cookie", "x-api-key", "x_api_key"] {
            assert_eq!(judge(&[(name, "1")]), Err(UploadFault::ForeignCredential), "{name}");
        }
        let nonce = "an_00000000000000000000000000000000000000000000";
        assert_eq!(judge(&[("x-a", nonce)]), Err(UploadFault::NonceMisplaced));
    }
}
