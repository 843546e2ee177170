//! How many tests passed, failed and were skipped, as the runners print it.

use std::fmt;
use std::ops::AddAssign;

/// Numbers of tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Ended well.
    pub passed: u64,
    /// Did not.
    pub failed: u64,
    /// Were not run.
    pub skipped: u64,
}

impl Counts {
    /// The counts in a line of libtest, or in a line that is `N passed, N failed, N skipped` alone.
    pub fn parse(line: &str) -> Option<Self> {
        Self::parse_libtest(line).or_else(|| Self::parse_summary(line))
    }

    /// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s`.
    fn parse_libtest(line: &str) -> Option<Self> {
        let (_, numbers) = line.trim().strip_prefix("test result: ")?.split_once(". ")?;
        let mut numbers = numbers.split("; ");
        let passed = number(numbers.next()?, "passed")?;
        let failed = number(numbers.next()?, "failed")?;
        let skipped = number(numbers.next()?, "ignored")?;
        Some(Self { passed, failed, skipped })
    }

    fn parse_summary(line: &str) -> Option<Self> {
        let mut numbers = line.trim().split(", ");
        let passed = number(numbers.next()?, "passed")?;
        let failed = number(numbers.next()?, "failed")?;
        let skipped = number(numbers.next()?, "skipped")?;
        numbers.next().is_none().then_some(Self { passed, failed, skipped })
    }
}

fn number(text: &str, word: &str) -> Option<u64> {
    text.strip_suffix(word)?.trim_end().parse().ok()
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let counts = Counts { passed: 12, failed: 1, skipped: 2 };
        let libtest =
            "test result: FAILED. 12 passed; 1 failed; 2 ignored; 0 measured; 3 filtered out; finished in 0.01s";
        assert_eq!(Counts::parse(libtest), Some(counts));
        assert_eq!(Counts::parse("12 passed, 1 failed, 2 skipped"), Some(counts));
        assert_eq!(Counts::parse(&counts.to_string()), Some(counts));
    }

    #[test]
    fn prose_is_not_a_count() {
        for line in ["", "12 passed", "we had 12 passed, 1 failed, 2 skipped", "1 passed, 2 failed, 3 skipped, 4 lost"]
        {
            assert_eq!(Counts::parse(line), None, "{line}");
        }
    }
}
