//! The supervisor's channel: a socket pair that this process was given as its standard output.
//!
//! Not the standard input, which brings the secrets over when the program starts itself over
//! ([`super::take_environment`]): standard output goes through that untouched.

use std::fs::OpenOptions;
use std::os::unix::net::UnixStream;

use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;

use super::io_kind;

/// Why there is no channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// Standard output is a terminal, a file, a pipe, or another kind of socket.
    #[error(
        "standard output is no socket pair: --supervised is for a program that starts this one with one end of a Unix socket pair as its standard output"
    )]
    NotAPair,
    /// It could be reached by a path.
    #[error(
        "the socket on standard output has a path or name, so that others could have connected to it: --supervised wants one end of a socket pair"
    )]
    Named,
    /// The system refused.
    #[error("the socket on standard output cannot be taken: {0}")]
    System(std::io::ErrorKind),
}

/// Takes the socket away from standard output and leaves `/dev/null` there. No child inherits it.
///
/// # Errors
/// [`ChannelError`]; then standard output is as it was.
pub fn take_channel() -> Result<UnixStream, ChannelError> {
    let system = |error: std::io::Error| ChannelError::System(error.kind());
    // A copy that is closed when a child is started.
    let descriptor = rustix::stdio::stdout().try_clone_to_owned().map_err(system)?;
    if !socket_type(&descriptor).is_ok_and(|kind| kind == SocketType::STREAM) {
        return Err(ChannelError::NotAPair);
    }
    let channel = UnixStream::from(descriptor);
    // Asking for a Unix socket's address of another kind of socket is an error.
    let (Ok(own), Ok(peer)) = (channel.local_addr(), channel.peer_addr()) else { return Err(ChannelError::NotAPair) };
    if !own.is_unnamed() || !peer.is_unnamed() {
        return Err(ChannelError::Named);
    }
    let nothing = OpenOptions::new().write(true).open("/dev/null").map_err(system)?;
    rustix::stdio::dup2_stdout(&nothing).map_err(|error| ChannelError::System(io_kind(error)))?;
    Ok(channel)
}
