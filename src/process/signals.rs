//! What people and orchestrators ask of us by signals.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// The first SIGTERM or SIGINT: take nothing new, finish what is under way.
    Drain,
    /// Another one: end at once.
    End,
    /// SIGHUP: open the audit file again, and read the policy again.
    Reopen,
}

/// The signals of this process, from the moment of [`Signals::listen`] on.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// SIGXFSZ: somebody limits the size of files. Heard so that it does not kill; the write itself fails, and is told.
    _file_too_large: Signal,
    draining: bool,
}

impl Signals {
    /// Takes the signals over; from here on none of them ends the process by itself.
    ///
    /// # Errors
    /// The system's, when a handler cannot be installed.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            _file_too_large: signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?,
            draining: false,
        })
    }

    /// Waits for the next signal. Loses nothing when it is dropped while it waits.
    pub async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => self.end(),
            _ = self.interrupt.recv() => self.end(),
            _ = self.hangup.recv() => Asked::Reopen,
        }
    }

    fn end(&mut self) -> Asked {
        if std::mem::replace(&mut self.draining, true) { Asked::End } else { Asked::Drain }
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    #[tokio::test]
    async fn the_second_signal_ends_at_once() {
        let mut signals = Signals::listen().unwrap();
        let mut after = async |signal| {
            kill_process(getpid(), signal).unwrap();
            signals.next().await
        };
        assert_eq!(after(Signal::HUP).await, Asked::Reopen);
        assert_eq!(after(Signal::TERM).await, Asked::Drain);
        assert_eq!(after(Signal::HUP).await, Asked::Reopen, "also while draining");
        assert_eq!(after(Signal::INT).await, Asked::End);
    }
}
