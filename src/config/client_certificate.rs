//! `client_certificate` of a service: a credential that is a certificate with its key.

use super::credentials::ReadCredential;
use super::mistake::Code;
use super::section::{Node, Section};
use super::service::read_credential;
use crate::model::CredentialName;

/// `Some(None)` where the service has none, `None` where it is wrong.
pub(super) fn read(section: &Section<'_>, credentials: &[ReadCredential]) -> Option<Option<CredentialName>> {
    let Some(node) = section.get("client_certificate") else { return Some(None) };
    let name = read_credential(&node, credentials)?;
    if !is_certificate(&name, credentials) {
        let message = format!("credential `{name}` is a text, and no certificate with its key");
        let hint = format!("source = \"file\" and certificate = \"/FILE\" in [credentials.{name}]");
        node.visible_fault(Code::BadValue, message, hint);
        return None;
    }
    Some(Some(name))
}

/// What the service's certificate does not go together with.
pub(super) fn check(section: &Section<'_>) {
    if section.get("client_certificate").is_some()
        && let Some(node) = section.get("cleartext").filter(|node| node.value().as_bool() == Some(true))
    {
        let message = "does not go together with client_certificate".to_owned();
        node.fault(Code::BadValue, message, "nothing is shown in clear text: two services, or TLS alone");
    }
}

/// A certificate stands for a credential only in the connections that show it.
pub(super) fn check_credential(
    node: &Node<'_>,
    name: &CredentialName,
    shown: Option<&CredentialName>,
    credentials: &[ReadCredential],
) {
    if is_certificate(name, credentials) && shown != Some(name) {
        let message = format!("credential `{name}` is a certificate with its key, and no text for a slot");
        node.visible_fault(Code::BadValue, message, format!("client_certificate = \"{name}\" on the service"));
    }
}

fn is_certificate(name: &CredentialName, credentials: &[ReadCredential]) -> bool {
    credentials.iter().any(|credential| credential.name == name.as_str() && credential.is_certificate)
}
