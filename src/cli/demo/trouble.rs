//! What goes wrong while the demo is played, as a sentence for whoever plays it.

use std::error::Error;

/// Anything that ends a step.
pub(super) type Trouble = Box<dyn Error + Send + Sync>;

/// Says what was being done.
pub(super) trait Context<T> {
    /// Puts `doing` before what went wrong.
    fn context(self, doing: &str) -> Result<T, Trouble>;
}

impl<T, E: Into<Trouble>> Context<T> for Result<T, E> {
    fn context(self, doing: &str) -> Result<T, Trouble> {
        self.map_err(|error| format!("{doing}: {}", told(&*error.into())).into())
    }
}

impl<T> Context<T> for Option<T> {
    fn context(self, doing: &str) -> Result<T, Trouble> {
        self.ok_or_else(|| doing.into())
    }
}

/// The error and what caused it, each once.
pub(super) fn told(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text += &format!(": {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn the_whole_chain_is_told() {
        let cause = io::Error::new(io::ErrorKind::ConnectionReset, "reset by peer");
        let error = Err::<(), _>(io::Error::other(cause)).context("reading an answer").unwrap_err();
        assert_eq!(told(&*error), "reading an answer: reset by peer");
        let nothing: Option<u8> = None;
        assert_eq!(nothing.context("a path").unwrap_err().to_string(), "a path");
    }
}
