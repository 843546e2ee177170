//! The OpenAPI document, made from the calls and types themselves: by a test, so that a sidecar carries its text alone.

/// The document.
pub(super) const DOCUMENT: &str = include_str!("../../docs/openapi.json");

#[cfg(test)]
use super::{calls, delegate, events, explaining, leaks, mint, renew, revoking, risk};

#[cfg(test)]
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "valetkey control API",
        description = "JSON over HTTP/1.1 on a Unix socket. The caller is known by the uid of its process. \
                       Agents have no access. Errors are `application/problem+json` (RFC 9457)."
    ),
    servers((url = "http://localhost", description = "Over the control socket")),
    paths(
        mint::mint,
        calls::list,
        calls::read,
        calls::revoke,
        renew::renew,
        delegate::delegate,
        revoking::revocations,
        revoking::complete,
        leaks::leaks,
        explaining::explain,
        risk::risk,
        calls::introspect,
        calls::services,
        calls::whoami,
        calls::ready,
        events::events,
        calls::ca_pem,
        calls::openapi_json,
    ),
    tags(
        (name = "nonces", description = "Minting, reading and ending nonces"),
        (name = "operations", description = "What there is"),
    )
)]
struct Document;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use utoipa::OpenApi as _;

    use super::*;

    fn document() -> String {
        let mut text = Document::openapi().to_pretty_json().unwrap_or_default();
        text.push('\n');
        text
    }

    /// Written anew with `VALETKEY_BLESS=1 cargo test --lib openapi`.
    #[test]
    fn the_committed_document_is_the_present_one() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
        if std::env::var_os("VALETKEY_BLESS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, document()).unwrap();
        }
        // Not `DOCUMENT`: what has just been blessed is compiled in with the next build.
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == document(), "docs/openapi.json is stale; run VALETKEY_BLESS=1 cargo test --lib openapi");
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document: serde_json::Value = serde_json::from_str(&document()).unwrap();
        let text = document.to_string();
        let mut count = 0;
        for reference in text.split("\"$ref\":\"#").skip(1) {
            let pointer = reference.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
            count += 1;
        }
        assert!(count > 10);
    }
}
