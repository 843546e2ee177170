//! From the policy's webhooks to ones that can be sent to.

use std::sync::Arc;

use crate::control::webhooks::{Endpoint, Secret, Webhook};
use crate::net::tls::ClientTls;

/// Most bytes of a secret's file.
const SECRET_FILE_BYTES_MAX: u64 = 4096;

/// Reads secrets and roots; a sentence about the first that cannot be had.
pub(super) fn endpoints(webhooks: Vec<Webhook>, tls: &ClientTls) -> Result<Vec<Arc<Endpoint>>, String> {
    webhooks.into_iter().map(|webhook| endpoint(webhook, tls).map(Arc::new)).collect()
}

fn endpoint(webhook: Webhook, tls: &ClientTls) -> Result<Endpoint, String> {
    let fail = |path: &std::path::Path, error: &dyn std::fmt::Display| {
        format!("webhook {}: {}: {error}", webhook.name, path.display())
    };
    let metadata = std::fs::metadata(&webhook.secret).map_err(|error| fail(&webhook.secret, &error))?;
    if !metadata.is_file() || metadata.len() > SECRET_FILE_BYTES_MAX {
        return Err(fail(&webhook.secret, &"is not a small regular file"));
    }
    let text = std::fs::read(&webhook.secret).map_err(|error| fail(&webhook.secret, &error))?;
    let text = zeroize::Zeroizing::new(text);
    let secret = std::str::from_utf8(&text).map_or("", |text| text);
    let secret = Secret::parse(secret).map_err(|error| fail(&webhook.secret, &error))?;
    let roots = match &webhook.ca {
        Some(path) => Some(std::fs::read(path).map_err(|error| fail(path, &error))?),
        None => None,
    };
    let at_fault = webhook.ca.as_deref().unwrap_or(&webhook.secret);
    let config = tls.config(roots.as_deref(), &[b"http/1.1"]).map_err(|error| fail(at_fault, &error))?;
    Ok(Endpoint { secret, tls: Arc::new(config), webhook })
}
