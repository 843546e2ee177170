//! What is printed: an account for people, or one JSON object for programs.

use std::io::Write;

use owo_colors::{OwoColorize, Style};
use serde_json::{Value, json};

use super::scene::{Check, Scene};
use super::stage::Stage;

/// Width of the column that says who does something.
const WHO_WIDTH: usize = 15;
/// Width of what is said beside it; longer texts are wrapped between words.
const WHAT_WIDTH: usize = 100;

/// How it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Account {
    /// Line by line, while it happens; in colours on a terminal, unless `NO_COLOR` is set.
    People(Letters),
    /// All at once, at the end.
    Program,
}

/// What the terminal can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Letters {
    Utf8,
    Ascii,
}

impl Letters {
    /// As the locale says (POSIX, 8.2: the first of the three that is not empty).
    pub(super) fn of_locale(variable: impl Fn(&str) -> Option<String>) -> Self {
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(variable).find(|value| !value.is_empty());
        let name = locale.unwrap_or_default().to_ascii_lowercase();
        if name.contains("utf-8") || name.contains("utf8") { Self::Utf8 } else { Self::Ascii }
    }

    fn spell(self, text: &str) -> String {
        match self {
            Self::Utf8 => text.to_owned(),
            Self::Ascii => text.replace('✓', "ok").replace('✗', "FAILED").replace('…', "..."),
        }
    }
}

impl Account {
    /// What was started.
    pub(super) fn opening(self, stage: &Stage) {
        let [stripe, github, internal] = stage.canaries.all().map(super::canary::short);
        let mut text =
            format!("{}\n\n", "valetkey demo: a sidecar, an agent and three APIs, on this machine alone".bold());
        for (who, what) in [
            ("sidecar", format!("{} (process {}, `valetkey serve`)", stage.sidecar.proxy, stage.sidecar.pid)),
            (
                "upstream",
                format!("{} plays api.stripe.com, api.github.com and echo.internal.test", stage.upstream.address),
            ),
            ("credentials", format!("{stripe} {github} {internal}  (made up just now)")),
            ("note", "all of it runs as one user here; in earnest the agent runs as a user of its own".to_owned()),
        ] {
            text += &line(who, &what);
        }
        self.say(&text);
    }

    /// One scene, with its number from 1.
    pub(super) fn scene(self, number: usize, scene: &Scene) {
        let mut text = format!("\n{}\n", format!("{number}  {}", scene.promise).bold());
        for told in &scene.story {
            text += &line(told.who, &told.what);
        }
        for check in &scene.checks {
            text += &verdict(check);
        }
        self.say(&text);
    }

    /// What `--keep` says before it waits.
    pub(super) fn notice(self, text: &str) {
        self.say(text);
    }

    /// The end of it.
    pub(super) fn closing(self, scenes: &[Scene], seconds: f64) {
        let (held, all) = (held_count(scenes), scenes.len());
        let style = if held == all { Style::new().green().bold() } else { Style::new().red().bold() };
        let summary = format!("{held} of {all} promises held");
        self.say(&format!("\n{} in {seconds:.1} s\n", summary.style(style)));
        if self == Self::Program {
            print(&format!("{:#}\n", as_json(scenes, seconds)));
        }
    }

    fn say(self, text: &str) {
        match self {
            Self::People(letters) => print(&letters.spell(text)),
            Self::Program => {}
        }
    }
}

/// How many of the promises held.
pub(super) fn held_count(scenes: &[Scene]) -> usize {
    scenes.iter().filter(|scene| scene.held()).count()
}

fn line(who: &str, what: &str) -> String {
    let what = visible(what);
    let mut text = format!("   {}", format!("{who:<WHO_WIDTH$}").dimmed());
    let mut column = 0;
    for word in what.split(' ') {
        let width = word.chars().count();
        if column > 0 && column + width > WHAT_WIDTH {
            text += &format!("\n   {:WHO_WIDTH$}", "");
            column = 0;
        }
        text.extend([" ", word]);
        column += width + 1;
    }
    text.push('\n');
    text
}

fn verdict(check: &Check) -> String {
    if check.held {
        return format!("   {} {}\n", "✓".green(), check.claim);
    }
    let (expected, seen) = (visible(&check.expected), visible(&check.seen));
    format!("   {} {}\n       expected  {expected}\n       seen      {seen}\n", "✗".red().bold(), check.claim)
}

/// An upstream's text is not let loose on the terminal.
fn visible(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

fn as_json(scenes: &[Scene], seconds: f64) -> Value {
    let scenes_told: Vec<_> = scenes
        .iter()
        .map(|scene| {
            json!({ "promise": scene.promise, "held": scene.held(), "story": scene.story, "checks": scene.checks })
        })
        .collect();
    json!({
        "ok": held_count(scenes) == scenes.len(),
        "promises": scenes.len(),
        "promises_held": held_count(scenes),
        "duration_seconds": seconds,
        "scenes": scenes_told,
    })
}

/// A reader that has gone away, such as `head`, is no failure of a promise.
fn print(text: &str) {
    let mut output = anstream::stdout().lock();
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scene(held: bool) -> Scene {
        Scene { checks: vec![Check::same("status", held, true)], ..Scene::new("a promise") }
    }

    #[test]
    fn a_broken_promise_shows_in_every_form() {
        let scenes = [scene(true), scene(false)];
        let told = as_json(&scenes, 1.0);
        assert_eq!((&told["ok"], &told["promises"], &told["promises_held"]), (&json!(false), &json!(2), &json!(1)));
        assert_eq!(told["scenes"][1]["checks"][0]["seen"], "true");
        assert_eq!(as_json(&scenes[..1], 1.0)["ok"], true);
        let told = verdict(&scenes[1].checks[0]);
        assert!(told.contains('✗') && told.contains("false") && told.contains("true"), "{told}");
    }

    #[test]
    fn the_locale_says_which_letters() {
        let locale = |values: &'static [(&str, &str)]| {
            Letters::of_locale(|name| values.iter().find(|(of, _)| *of == name).map(|(_, value)| (*value).to_owned()))
        };
        assert_eq!(locale(&[("LANG", "de_DE.UTF-8")]), Letters::Utf8);
        assert_eq!(locale(&[("LC_ALL", ""), ("LC_CTYPE", "C.utf8")]), Letters::Utf8);
        assert_eq!(locale(&[("LC_ALL", "C"), ("LANG", "de_DE.UTF-8")]), Letters::Ascii);
        assert_eq!(locale(&[]), Letters::Ascii);
        assert_eq!(Letters::Ascii.spell("✓ ✗ a…"), "ok FAILED a...");
    }

    #[test]
    fn long_texts_are_wrapped_between_words() {
        let text = line("an LLM reads", &"word ".repeat(30));
        assert_eq!(text.lines().count(), 2);
        assert_eq!(text.matches("word").count(), 30);
        let whole = "x".repeat(3 * WHAT_WIDTH);
        assert!(line("a", &whole).contains(&whole), "what has no gaps is left whole");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(line("a", "x\u{1b}[2Jy\n").matches('\n').count(), 1);
        assert!(!visible("x\u{1b}[2Jy").contains('\u{1b}'));
    }
}
