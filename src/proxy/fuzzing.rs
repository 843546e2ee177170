//! For the fuzz targets alone (`fuzz/properties`): the way in to what they judge, of which nothing else is public. Nothing
//! in the program calls it, so that none of it is in the binary.

use std::sync::OnceLock;
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use jiff::Timestamp;

use super::connect::{AskedFor, Form, Session, Spoken};
use super::extract::body::Hold;
use super::extract::{Presented, extract};
use super::flow::{Inbound, UploadFault};
use super::sigv4::{Again, Chunks, Line, Parameters, Placed, Signed};
use super::{Limits, accept};
use crate::lease::StandIn;
use crate::model::denial::SignatureFault;
use crate::model::key_pair::KeyPair;
use crate::model::{AgentName, Denial, Destination, Scheme};
use crate::policy::{Policy, Target};

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

/// Who has signed, who signs again, and when that is.
pub type Keys<'a> = (&'a StandIn, &'a KeyPair<'a>, SystemTime);

fn moment(now: SystemTime) -> Result<Timestamp, Denial> {
    Timestamp::try_from(now).map_err(|_| Denial::Internal)
}

/// What goes on of a `GET` with a presigned URL and no body; `None` where nothing in the URL is a signature's.
///
/// # Errors
/// [`Denial`].
pub fn presigned_again(
    host: &str,
    target: &str,
    headers: &HeaderMap,
    (theirs, ours, now): Keys<'_>,
) -> Result<Option<String>, Denial> {
    let target = Target::parse(target).map_err(Denial::RequestAmbiguous)?;
    let Some(parameters) = Parameters::find(&target)? else { return Ok(None) };
    parameters.token().ok_or(Denial::SignatureRefused(SignatureFault::NotSigned))?; // where the nonce would be
    let line = Line { method: &Method::GET, host, target: target.as_str() };
    let mut signed = Signed::read_query(headers, line, &parameters)?;
    signed.verify(theirs, None, (Scheme::Https, moment(now)?))?;
    match signed.sign_again(ours, headers, line)?.placed {
        Placed::Target(text) => Ok(Some(text.to_string())),
        Placed::Field(_) => Err(Denial::Internal),
    }
}

/// A body that is signed chunk by chunk, on its way.
pub struct SignedUpload(Box<Chunks>);

impl SignedUpload {
    /// Of a `PUT` with this head; also what `Authorization` says on the way out.
    ///
    /// # Errors
    /// [`Denial`].
    pub fn of(
        line: (&str, &str),
        headers: &HeaderMap,
        (theirs, ours, now): Keys<'_>,
    ) -> Result<(Self, String), Denial> {
        let line = Line { method: &Method::PUT, host: line.0, target: line.1 };
        let mut signed = Signed::read(headers, line)?;
        signed.verify(theirs, None, (Scheme::Https, moment(now)?))?;
        let Again { placed: Placed::Field(field), chunks: Some(mut chunks), .. } =
            signed.sign_again(ours, headers, line)?
        else {
            return Err(Denial::Internal);
        };
        chunks.hold_in(Hold::default(), AgentName::parse("worker").map_err(|_| Denial::Internal)?);
        Ok((Self(chunks), field))
    }

    /// Takes the next of it, and gives what goes on.
    ///
    /// # Errors
    /// [`UploadFault`], and what went on before it.
    pub fn push(&mut self, data: Bytes) -> Result<Vec<u8>, (Vec<u8>, UploadFault)> {
        self.0.push(data);
        let mut out = Vec::new();
        loop {
            match self.0.next() {
                Ok(Some(data)) => out.extend_from_slice(&data),
                Ok(None) => return Ok(out),
                Err(fault) => return Err((out, fault.into())),
            }
        }
    }

    /// What goes on where nothing more has come.
    ///
    /// # Errors
    /// [`UploadFault`].
    pub fn more(&mut self) -> Result<Option<Bytes>, UploadFault> {
        self.0.next().map_err(UploadFault::from)
    }

    /// True once all of it has gone on.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.is_over()
    }
}
