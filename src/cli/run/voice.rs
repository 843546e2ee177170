//! What the run says beside its command, on standard error.

use std::fmt::Display;

use owo_colors::{OwoColorize, Style};

use crate::cli::print;

/// Speaks, or does not (`--quiet`). What ends the run is said in any case, and not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Voice {
    Speaks,
    Quiet,
}

impl Voice {
    pub(super) fn note(self, text: impl Display) {
        self.say("", Style::new(), text);
    }

    pub(super) fn warn(self, text: impl Display) {
        self.say("warning: ", Style::new().yellow().bold(), text);
    }

    pub(super) fn refused(self, text: impl Display) {
        self.say("refused ", Style::new().red().bold(), text);
    }

    /// A line of the sidecar's log.
    pub(super) fn sidecar(self, line: &str) {
        self.say("sidecar: ", Style::new().dimmed(), print::visible(line));
    }

    fn say(self, word: &str, style: Style, text: impl Display) {
        match self {
            Self::Speaks => print::note(format_args!("valetkey: {}{text}", word.style(style))),
            Self::Quiet => {}
        }
    }
}
