//! For the fuzz targets alone (`fuzz/properties`): the way in to what they judge, of which nothing else is public. Nothing
//! in the program calls it, so that none of it is in the binary.

use std::sync::OnceLock;

use http::Request;

use super::connect::{AskedFor, Form, Session, Spoken};
use super::extract::{Presented, extract};
use super::flow::Inbound;
use super::{Limits, accept};
use crate::model::{Denial, Destination, Scheme};
use crate::policy::Policy;

/// What the proxy makes of a request without a body that came in a tunnel to `destination`.
///
/// # Errors
/// As [`extract`].
pub fn present(
    destination: &Destination,
    policy: &Policy,
    limits: &Limits,
    request: Request<()>,
) -> Result<Presented, Denial> {
    static CONNECTION: OnceLock<std::sync::Arc<accept::Connection>> = OnceLock::new();
    let session = Session {
        connection: CONNECTION.get_or_init(accept::Connection::of_nobody).clone(),
        destination: destination.clone(),
        scheme: Scheme::Https,
        form: Form::Tunnel,
        voucher: None,
        proof: None,
        spoken: Spoken::default(),
        authority: AskedFor::default(),
    };
    extract(&session, policy, limits, request.map(|()| Inbound::none()))
}
