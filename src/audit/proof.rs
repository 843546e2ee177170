//! Who it was, and how that was proven, as records say it.

use super::fields::{Fields, Key, key};
use crate::model::Identity;

/// The two members of an identity: who, and how that was proven.
pub(super) type IdentityKeys = (Key, Key);

pub(super) const PRESENTED_BY: IdentityKeys = (key!("presented_by.identity"), key!("presented_by.proof"));
pub(super) const MINTED_BY: IdentityKeys = (key!("minted_by.identity"), key!("minted_by.proof"));
pub(super) const RENEWED_BY: IdentityKeys = (key!("renewed_by.identity"), key!("renewed_by.proof"));
pub(super) const CALLER: IdentityKeys = (key!("caller.identity"), key!("caller.proof"));

/// Who it was, and how that was proven.
pub(super) fn write_identity(fields: &mut Fields<'_>, (who, how): IdentityKeys, identity: Option<&Identity>) {
    fields.show_some(who, identity);
    let proof = match identity {
        // The kernel says who owns the other end of the socket.
        Some(Identity::Uid(_)) => "kernel",
        // It came over the one socket that was handed to us at the start.
        Some(Identity::Supervisor) => "channel",
        // It was proven over TLS: by a secret that both know, or by somebody's signature.
        Some(Identity::Bearer(_)) => "bearer",
        Some(Identity::Kubernetes(_) | Identity::Oidc(_)) => "token",
        Some(Identity::Spiffe(_)) => "svid",
        Some(Identity::Mtls(_)) => "certificate",
        Some(Identity::Scanner(_)) => "signature",
        Some(Identity::Anybody) | None => "none",
    };
    fields.text(how, proof);
}
