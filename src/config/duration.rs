//! Times as the policy spells them: `90s`, `5m`, `1h30m`, `1d`.

use std::time::Duration;

/// Longest time that the policy takes.
pub const DURATION_MAX: Duration = Duration::from_secs(366 * DAY_SECONDS);

const DAY_SECONDS: u64 = 24 * 60 * 60;
const UNITS: [(char, u64); 4] = [('d', DAY_SECONDS), ('h', 60 * 60), ('m', 60), ('s', 1)];

/// Why a text is not a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotATime {
    #[error("is not a time")]
    Syntax,
    #[error("is no time at all")]
    Zero,
    #[error("is longer than 366 days")]
    TooLong,
}

/// Whole numbers with `d`, `h`, `m` or `s`, each at most once, the greater before the lesser.
pub(super) fn parse(text: &str) -> Result<Duration, NotATime> {
    let mut rest = text;
    let mut seconds: u64 = 0;
    for (unit, unit_seconds) in UNITS {
        let Some((number, behind)) = rest.split_once(unit) else { continue };
        let plain = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        if !plain {
            return Err(NotATime::Syntax);
        }
        let number: u64 = number.parse().map_err(|_| NotATime::TooLong)?;
        let part = number.checked_mul(unit_seconds).ok_or(NotATime::TooLong)?;
        seconds = seconds.checked_add(part).ok_or(NotATime::TooLong)?;
        rest = behind;
    }
    match seconds {
        _ if !rest.is_empty() || text.is_empty() => Err(NotATime::Syntax),
        0 => Err(NotATime::Zero),
        n if n > DURATION_MAX.as_secs() => Err(NotATime::TooLong),
        n => Ok(Duration::from_secs(n)),
    }
}

/// The shortest spelling that [`parse`] reads back.
pub(super) fn spell(time: Duration) -> String {
    let mut rest = time.as_secs();
    let mut text = String::new();
    // Days stay hours: `24h` is what the ceilings say.
    for (unit, unit_seconds) in &UNITS[1..] {
        if rest >= *unit_seconds {
            text.push_str(&format!("{}{unit}", rest / unit_seconds));
            rest %= unit_seconds;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_spelled() {
        for (text, seconds, spelled) in [
            ("5m", 300, "5m"),
            ("24h", 86_400, "24h"),
            ("1d", 86_400, "24h"),
            ("1h30m", 5400, "1h30m"),
            ("90s", 90, "1m30s"),
        ] {
            let time = Duration::from_secs(seconds);
            assert_eq!(parse(text), Ok(time));
            assert_eq!(spell(time), spelled);
            assert_eq!(parse(spelled), Ok(time));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in ["", "5", "m", "5 m", "5M", "-5m", "+5m", "5m1h", "5m5m", "1.5h", "5ms", "5m ", "\u{665}m"] {
            assert_eq!(parse(bad), Err(NotATime::Syntax), "{bad:?}");
        }
        assert_eq!(parse("0s"), Err(NotATime::Zero));
        assert_eq!(parse("367d"), Err(NotATime::TooLong));
        assert_eq!(parse("99999999999999999999d"), Err(NotATime::TooLong));
        assert_eq!(parse("18446744073709551615d"), Err(NotATime::TooLong));
    }
}
