//! `enforce = "observe"` and `until`: rules that are watched before they are enforced.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

use super::mistake::Code;
use super::section::{Node, Section};

/// What `enforce` may say; true for watching.
const WORDS: [(&str, bool); 2] = [("rules", false), ("observe", true)];

const HINT: &str = "until = 2026-12-31, or a moment like \"2026-12-31T12:00:00Z\": from then on the rules are enforced";

/// Until when a service is observed; `Some(None)` where it is not, `None` where the keys are wrong.
pub(super) fn read(section: &Section<'_>) -> Option<Option<Timestamp>> {
    let enforce = section.get("enforce");
    let is_observed = enforce.as_ref().map_or(Some(false), |node| node.word(&WORDS))?;
    match (is_observed, section.get("until")) {
        (false, None) => Some(None),
        (false, Some(until)) => {
            until.fault(Code::BadValue, "means nothing without `enforce = \"observe\"`".to_owned(), "take it out");
            None
        }
        (true, None) => {
            section.fault(Code::Missing, "`until` is missing".to_owned(), HINT);
            None
        }
        (true, Some(until)) => {
            let end = moment(&until)?;
            let sentence = if end > Timestamp::now() {
                format!("path rules are recorded and not enforced until {end}")
            } else {
                format!("is over since {end}: the path rules are enforced")
            };
            enforce.inspect(|node| node.warn(&sentence));
            Some(Some(end))
        }
    }
}

/// A date is the whole day, by UTC.
fn moment(node: &Node<'_>) -> Option<Timestamp> {
    let text = match node.value().as_datetime() {
        Some(datetime) => datetime.to_string(),
        None => node.string()?.to_owned(),
    };
    let day = || text.parse::<Date>().ok().filter(|_| text.len() == "2026-12-31".len()).and_then(end_of);
    let found = text.parse::<Timestamp>().ok().or_else(day);
    if found.is_none() {
        node.fault(Code::BadValue, "is neither a date nor a moment with its offset".to_owned(), HINT);
    }
    found
}

fn end_of(day: Date) -> Option<Timestamp> {
    let next = day.checked_add(Span::new().days(1)).ok()?;
    next.to_zoned(TimeZone::UTC).ok().map(|start| start.timestamp())
}
