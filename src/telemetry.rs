//! Structured logs by `tracing`, on stderr: readable on a terminal, JSON elsewhere.
//!
//! Two things hold whatever level is asked for: libraries never speak below INFO, since hyper, h2 and rustls
//! would print header fields and keys there; and a panic never prints its message, which may hold anything.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::{Level, Metadata};
use tracing_subscriber::filter::{FilterExt, LevelFilter, Targets, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt;

/// The only crate that may speak below INFO.
const OWN_TARGET: &str = env!("CARGO_PKG_NAME");

static PANICS_COUNT: AtomicU64 = AtomicU64::new(0);

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// One readable line each; in colours on a terminal, unless `NO_COLOR` is set or `TERM` is `dumb`.
    Text,
    /// One JSON object each: `timestamp` (RFC 3339, UTC), `level`, `target`, and the event's fields by their dotted names.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TelemetryError {
    /// The level cannot be read.
    #[error(
        "the log level is none of `error`, `warn`, `info`, `debug`, `trace`, `off`, nor a list like `info,valetkey::proxy=debug`"
    )]
    Level,
    /// It was set up before.
    #[error("logging is already set up")]
    Again,
}

/// Sets logging up for the whole process, and [`guard_panics`] with it.
///
/// `level` is one level, or a list of levels and `target=level` with commas between them; empty means `info`.
///
/// # Errors
/// [`TelemetryError`].
pub fn init(format: Format, level: &str) -> Result<(), TelemetryError> {
    let terminal = std::io::stderr().is_terminal();
    let layer = match resolve(format, terminal) {
        Format::Json => json(level, std::io::stderr)?,
        Format::Text | Format::Auto => text(level, std::io::stderr, ansi(terminal))?,
    };
    guard_panics();
    tracing_subscriber::registry().with(layer).try_init().map_err(|_| TelemetryError::Again)
}

/// From here on a panic prints its thread and place, and never its message; to be called before anything that could panic.
pub fn guard_panics() {
    std::panic::set_hook(Box::new(|panic| {
        PANICS_COUNT.fetch_add(1, Ordering::Relaxed);
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed");
        let (file, line) = panic.location().map_or(("unknown", 0), |place| (place.file(), place.line()));
        if tracing::dispatcher::has_been_set() {
            tracing::error!(
                thread.name = name,
                panic.file = file,
                panic.line = line,
                "a bug: this task ended by a panic"
            );
        } else {
            // Where stderr is gone, there is nobody to tell.
            let _ = writeln!(std::io::stderr(), "a bug: thread {name} ended by a panic at {file}:{line}");
        }
    }));
}

/// How many panics there were since [`guard_panics`].
#[must_use]
pub fn panics_count() -> u64 {
    PANICS_COUNT.load(Ordering::Relaxed)
}

fn resolve(format: Format, terminal: bool) -> Format {
    match (format, terminal) {
        (Format::Auto, true) | (Format::Text, _) => Format::Text,
        (Format::Auto, false) | (Format::Json, _) => Format::Json,
    }
}

/// Whether colours are wanted: <https://no-color.org>.
fn ansi(terminal: bool) -> Ansi {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
    if terminal && !refused && !dumb { Ansi::Colours } else { Ansi::Plain }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ansi {
    Colours,
    Plain,
}

type Lines = Box<dyn Layer<Registry> + Send + Sync>;

fn json<W>(level: &str, writer: W) -> Result<Lines, TelemetryError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).log_internal_errors(false);
    let lines = lines.json().flatten_event(true).with_current_span(false).with_span_list(false);
    Ok(lines.with_filter(levels(level)?.and(filter_fn(may_speak))).boxed())
}

fn text<W>(level: &str, writer: W, ansi: Ansi) -> Result<Lines, TelemetryError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).log_internal_errors(false);
    let lines = lines.with_ansi(ansi == Ansi::Colours);
    Ok(lines.with_filter(levels(level)?.and(filter_fn(may_speak))).boxed())
}

fn levels(level: &str) -> Result<Targets, TelemetryError> {
    let words: Vec<&str> = level.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
    if words.is_empty() {
        return Ok(Targets::new().with_default(LevelFilter::INFO));
    }
    // A misspelled level is a valid name of a target, of which nothing is ever heard; nor is anything of the rest then.
    let is_level_or_own = |word: &str| word.parse::<LevelFilter>().is_ok() || is_own(word);
    if !words.iter().all(|word| word.contains('=') || is_level_or_own(word)) {
        return Err(TelemetryError::Level);
    }
    words.join(",").parse().map_err(|_| TelemetryError::Level)
}

/// What a level cannot switch on.
fn may_speak(metadata: &Metadata<'_>) -> bool {
    is_own(metadata.target()) || *metadata.level() <= Level::INFO
}

fn is_own(target: &str) -> bool {
    target.split("::").next() == Some(OWN_TARGET)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io;
    use std::process::{Command, Stdio};
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    const SECRET: &str = "sk_live_canary_1234567890";

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(layer: impl FnOnce(Sink) -> Lines, act: impl FnOnce()) -> String {
        let sink = Sink::default();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer(sink.clone())), act);
        let bytes = std::mem::take(&mut *sink.0.lock());
        String::from_utf8(bytes).unwrap()
    }

    fn as_json(level: &str, act: impl FnOnce()) -> String {
        written(|sink| json(level, move || sink.clone()).unwrap(), act)
    }

    fn as_text(ansi: Ansi, act: impl FnOnce()) -> String {
        written(|sink| text("info", move || sink.clone(), ansi).unwrap(), act)
    }

    #[test]
    fn json_is_flat_with_dotted_names_and_a_time() {
        let line = as_json("info", || tracing::info!(agent.id = "billing", duration_ms = 7, "granted"));
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&value["agent.id"], &value["duration_ms"]), (&"billing".into(), &7.into()));
        assert_eq!((&value["message"], &value["level"]), (&"granted".into(), &"INFO".into()));
        value["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    }

    #[test]
    fn libraries_never_speak_below_info() {
        for level in ["trace", "hyper=trace,h2=trace,rustls=trace", "hyper::proto::h1=trace"] {
            let text = as_json(level, || {
                tracing::trace!(target: "hyper::proto::h1::io", "authorization: {SECRET}");
                tracing::debug!(target: "h2::codec::framed_write", "authorization: {SECRET}");
                tracing::debug!(target: "rustls", "{SECRET}");
                tracing::trace!(target: "tokio_rustls::server", "{SECRET}");
                tracing::debug!(target: "valetkeys", "{SECRET}");
            });
            assert_eq!(text, "", "{level}");
        }
        let text = as_json("trace", || {
            tracing::warn!(target: "hyper", "heard");
            tracing::trace!(target: "valetkey::proxy", "heard");
        });
        assert_eq!(text.matches("heard").count(), 2);
    }

    #[test]
    fn the_level_decides_over_our_own() {
        let act = || {
            tracing::debug!(target: "valetkey::proxy", "fine");
            tracing::info!(target: "valetkey::proxy", "coarse");
        };
        assert_eq!(as_json("info", act).lines().count(), 1);
        assert_eq!(as_json("", act).lines().count(), 1);
        assert_eq!(as_json("debug", act).lines().count(), 2);
        for level in ["warn,valetkey::proxy=debug", " warn , valetkey::proxy=debug,", "valetkey=DEBUG"] {
            assert_eq!(as_json(level, act).lines().count(), 2, "{level}");
        }
        assert_eq!(as_json("debug,valetkey=off", act).lines().count(), 0);
        assert_eq!(as_json("off", act).lines().count(), 0);
        for level in ["valetkey", "valetkey::proxy", "INFO", "warn,valetkey::proxy=debug", "2"] {
            assert!(levels(level).is_ok(), "{level}");
        }
        for level in ["valetkey=loud", "loud", "inof", "info,verbose", "[span]"] {
            assert_eq!(levels(level).err(), Some(TelemetryError::Level), "{level}");
        }
    }

    #[test]
    fn text_has_colours_only_where_they_are_wanted_and_no_control_characters() {
        let act = || tracing::info!(host = "a\u{1b}[31mb\nc", "{}", "x\u{1b}[2Jy");
        let plain = as_text(Ansi::Plain, act);
        assert!(!plain.contains('\u{1b}') && plain.lines().count() == 1, "{plain:?}");
        assert!(as_text(Ansi::Colours, act).contains('\u{1b}'));
    }

    #[test]
    fn the_format_follows_the_terminal_unless_it_is_chosen() {
        assert_eq!((resolve(Format::Auto, true), resolve(Format::Auto, false)), (Format::Text, Format::Json));
        assert_eq!((resolve(Format::Text, false), resolve(Format::Json, true)), (Format::Text, Format::Json));
    }

    /// For what is of a whole process, as panics are: true in one in which the present test is alone. Elsewhere it starts
    /// that process, and the test has to pass there.
    pub(crate) fn is_alone() -> bool {
        if std::env::var_os("VALETKEY_TEST_ALONE").is_some() {
            return true;
        }
        let thread = std::thread::current();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "--nocapture", thread.name().unwrap()]).env("VALETKEY_TEST_ALONE", "1");
        let output = command.stdin(Stdio::null()).output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && out.contains("test result: ok. 1 passed"), "{out}{err}");
        false
    }

    /// Does nothing in an ordinary run of the tests; started by the next one, it panics.
    #[test]
    fn helper() {
        let Ok(role) = std::env::var("VALETKEY_TEST_PANIC") else { return };
        if role == "logging" {
            init(Format::Auto, "trace").unwrap();
            assert_eq!(init(Format::Auto, "trace"), Err(TelemetryError::Again));
        } else {
            guard_panics();
        }
        let panicking = std::thread::Builder::new().name("relay".to_owned()).spawn(|| panic!("{SECRET}"));
        assert!(panicking.unwrap().join().is_err());
        assert_eq!(panics_count(), 1);
    }

    #[test]
    fn a_panic_tells_its_place_and_never_its_message() {
        for (role, line) in
            [("logging", "\"thread.name\":\"relay\""), ("early", "thread relay ended by a panic at src")]
        {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", "--nocapture", "telemetry::tests::helper"]).env("VALETKEY_TEST_PANIC", role);
            let output = command.env("RUST_BACKTRACE", "full").stdin(Stdio::null()).output().unwrap();
            let text = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.success(), "{text}");
            assert!(text.contains(line) && text.contains("telemetry.rs"), "{text}");
            assert!(!text.contains(SECRET));
        }
    }
}
