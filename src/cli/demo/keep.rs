//! `--keep`: what to set and what to try, while everything goes on running.

use super::sidecar::CA;
use super::stage::{Nonce, Stage};
use super::trouble::Trouble;
use super::upstream::STRIPE;

/// How long the nonce to play with lives: the ceiling of its scope.
pub(super) const TTL_SECONDS: u32 = 3600;

/// The notice, with a fresh nonce.
pub(super) async fn notice(stage: &mut Stage) -> Result<String, Trouble> {
    let nonce = stage.mint("stripe", "read:customers", TTL_SECONDS).await?;
    Ok(text(&Variables {
        proxy: format!("http://{}", stage.sidecar.proxy),
        admin: stage.sidecar.admin.to_string(),
        ca: stage.place.file(CA).display().to_string(),
        control: stage.place.socket().display().to_string(),
        nonce,
    }))
}

struct Variables {
    proxy: String,
    admin: String,
    ca: String,
    control: String,
    nonce: Nonce,
}

fn text(variables: &Variables) -> String {
    let Variables { proxy, admin, ca, control, nonce } = variables;
    let [proxy, ca, control] = [proxy, ca, control].map(|value| quoted(value));
    let (placeholder, id) = (&nonce.placeholder, &nonce.id);
    format!(
        "
Still running. In another terminal (the nonce lives for an hour):

  export HTTPS_PROXY={proxy} https_proxy={proxy} NO_PROXY= no_proxy=
  export CURL_CA_BUNDLE={ca}
  export VALETKEY_CONTROL={control}
  export NONCE={placeholder}

  curl -i -H \"Authorization: Bearer $NONCE\" https://{STRIPE}/v1/customers
  curl -i -H \"Authorization: Bearer $NONCE\" https://{STRIPE}/v1/refunds -d charge=ch_demo1  # refused
  curl -X DELETE --unix-socket \"$VALETKEY_CONTROL\" http://localhost/v1/nonces/{id}  # ends it
  curl http://{admin}/metrics

Ctrl-C ends it; then the audit is verified.
"
    )
}

/// As a shell reads it.
fn quoted(text: &str) -> String {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "/:._-".contains(character);
    if text.chars().all(is_plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_a_shell() {
        assert_eq!(quoted("http://127.0.0.1:8080"), "http://127.0.0.1:8080");
        assert_eq!(quoted("/tmp/it's here/ca.pem"), r"'/tmp/it'\''s here/ca.pem'");
    }
}
