//! `[egress]`: how requests leave.

use super::client_certificate;
use super::credentials::ReadCredential;
use super::hosts;
use super::mistake::Code;
use super::section::{Keys, Node, Section};
use super::service::read_credential;
use crate::model::{CredentialName, Destination};
use crate::policy::{HostPattern, ParentProxy, ProxyAuth, Unlisted};

const EGRESS: Keys = Keys {
    known: &["unlisted", "private_networks", "proxy_auth", "upstream_proxy", "upstream_proxy_credential"],
    later: &[],
};

/// `[egress]` as it was read.
pub(super) struct Egress {
    pub(super) unlisted: Unlisted,
    pub(super) proxy_auth: ProxyAuth,
    pub(super) parent_proxy: Option<ParentProxy>,
}

/// Reads `[egress]`.
pub(super) fn read(root: &Section<'_>, credentials: &[ReadCredential]) -> Option<Egress> {
    let Some(node) = root.get("egress") else {
        return Some(Egress { unlisted: Unlisted::Deny, proxy_auth: ProxyAuth::None, parent_proxy: None });
    };
    let section = node.section()?;
    section.check_keys(&EGRESS);
    if let Some(node) = section.get("private_networks") {
        read_private_networks(&node);
    }
    let unlisted = section.get("unlisted").map_or(Some(Unlisted::Deny), |node| read_unlisted(&node));
    let words = [("none", ProxyAuth::None), ("required", ProxyAuth::Required)];
    let proxy_auth = section.get("proxy_auth").map_or(Some(ProxyAuth::None), |node| node.word(&words));
    let parent_proxy = read_parent_proxy(&section, credentials);
    Some(Egress { unlisted: unlisted?, proxy_auth: proxy_auth?, parent_proxy: parent_proxy? })
}

fn read_unlisted(node: &Node<'_>) -> Option<Unlisted> {
    let unlisted = node.word(&[("deny", Unlisted::Deny), ("tunnel", Unlisted::Tunnel)])?;
    if unlisted == Unlisted::Tunnel {
        node.warn("hosts that no service lists are relayed unread");
    }
    Some(unlisted)
}

fn read_private_networks(node: &Node<'_>) {
    if node.string().is_some_and(|text| text != "deny") {
        let hint = "private = true on a service lets that service alone use private addresses";
        node.fault(Code::BadValue, "can only be \"deny\"".to_owned(), hint);
    }
}

/// `Some(None)` where there is none, `None` where it is wrong.
fn read_parent_proxy(section: &Section<'_>, credentials: &[ReadCredential]) -> Option<Option<ParentProxy>> {
    let proxy = section.get("upstream_proxy").map(|node| read_proxy(&node));
    let credential = section.get("upstream_proxy_credential").map(|node| (read_credential(&node, credentials), node));
    let Some(proxy) = proxy else {
        if let Some((_, node)) = credential {
            let hint = "upstream_proxy = \"http://HOST:PORT\", or take this key out";
            node.fault(Code::Missing, "is for an upstream proxy, and none is named".to_owned(), hint);
            return None;
        }
        return Some(None);
    };
    let proxy = proxy?;
    let Some((name, node)) = credential else { return Some(Some(ParentProxy { proxy, credential: None })) };
    let name = name?;
    client_certificate::check_credential(&node, &name, None, credentials);
    may_go_there(&node, &name, &proxy, credentials).then_some(Some(ParentProxy { proxy, credential: Some(name) }))
}

/// `http://HOST:PORT`. A secret never stands in the policy, so there is no place for a user before the host.
fn read_proxy(node: &Node<'_>) -> Option<Destination> {
    let text = node.string()?;
    let hint = "upstream_proxy = \"http://HOST:PORT\"; its user and password come from upstream_proxy_credential";
    if text.starts_with("https://") {
        let message = "is reached over TLS; a parent proxy is spoken to over http:// alone".to_owned();
        node.fault(Code::BadValue, message, hint);
        return None;
    }
    let authority = text.strip_prefix("http://").map(|rest| rest.strip_suffix('/').unwrap_or(rest));
    let proxy = authority.and_then(|authority| Destination::parse(authority, None).ok());
    if proxy.is_none() {
        // Not shown: people write passwords here.
        node.fault(Code::BadValue, "is not the address of a proxy".to_owned(), hint);
    }
    proxy
}

fn may_go_there(node: &Node<'_>, name: &CredentialName, proxy: &Destination, credentials: &[ReadCredential]) -> bool {
    let credential = credentials.iter().find(|credential| credential.name == name.as_str());
    // What is wrong with the credential itself has been said.
    let Some(allowed) = credential.and_then(|credential| credential.hosts.as_ref()) else { return false };
    let wanted = HostPattern { wildcard: false, host: proxy.host.clone(), port: proxy.port };
    let covered = hosts::within(&wanted, allowed);
    if !covered {
        let message = format!("credential `{name}` may not go to {wanted}");
        let hint = format!("add \"{wanted}\" to hosts of [credentials.{name}]");
        node.visible_fault(Code::HostNotCovered, message, hint);
    }
    covered
}
