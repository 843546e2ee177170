//! How each test of Rust ended.

use std::collections::BTreeMap;

use anyhow::{Context, bail};

/// How tests ended, by their names.
pub type Verdicts = BTreeMap<String, Verdict>;

/// How a test ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Passed,
    Failed,
    /// It passed without having shown all that it is there for; with each reason that it gave.
    Skipped(String),
}

impl Verdict {
    /// The line of a test that libtest ran: `test attacks::framing::each_of_many ... ok`.
    pub fn parse(line: &str) -> Option<(&str, Self)> {
        let (name, result) = line.trim().strip_prefix("test ")?.split_once(" ... ")?;
        match result {
            "ok" => Some((name, Self::Passed)),
            "FAILED" => Some((name, Self::Failed)),
            _ => None,
        }
    }

    /// Why it was skipped, if it was.
    pub fn skipped(&self) -> Option<&str> {
        if let Self::Skipped(why) = self { Some(why) } else { None }
    }
}

/// A name that several programs have passes only if it does in each.
pub fn add(verdicts: &mut Verdicts, name: &str, verdict: Verdict) {
    let so_far = verdicts.entry(name.to_owned()).or_insert_with(|| verdict.clone());
    if verdict == Verdict::Failed {
        *so_far = verdict;
    }
}

/// Takes what tests/it/support/skips.rs wrote. That a test was skipped whose end nobody has seen is an error.
pub fn skip(verdicts: &mut Verdicts, lines: &str) -> anyhow::Result<()> {
    for line in lines.lines() {
        let (name, why) = line.split_once('\t').with_context(|| format!("not a skipped test: {line}"))?;
        match verdicts.get_mut(name) {
            Some(verdict @ Verdict::Passed) => *verdict = Verdict::Skipped(why.to_owned()),
            Some(Verdict::Skipped(so_far)) if !so_far.split("; ").any(|reason| reason == why) => {
                *so_far = format!("{so_far}; {why}");
            }
            Some(Verdict::Skipped(_) | Verdict::Failed) => {}
            None => bail!("{name} was skipped, but nothing says that it has run"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_libtest_are_read() {
        assert_eq!(Verdict::parse("test a::b ... ok\n"), Some(("a::b", Verdict::Passed)));
        assert_eq!(Verdict::parse("test a::b ... FAILED"), Some(("a::b", Verdict::Failed)));
        assert_eq!(Verdict::parse("test a::b ... ignored"), None);
        assert_eq!(Verdict::parse("test result: ok. 1 passed; 0 failed"), None);
    }

    #[test]
    fn a_name_passes_if_it_does_everywhere() {
        for order in [[Verdict::Passed, Verdict::Failed], [Verdict::Failed, Verdict::Passed]] {
            let mut verdicts = Verdicts::new();
            order.into_iter().for_each(|verdict| add(&mut verdicts, "a", verdict));
            assert_eq!(verdicts["a"], Verdict::Failed);
        }
    }

    #[test]
    fn what_was_skipped_has_not_passed() {
        let mut verdicts: Verdicts = [("a", Verdict::Passed), ("b", Verdict::Failed), ("c", Verdict::Passed)]
            .map(|(name, verdict)| (name.to_owned(), verdict))
            .into();
        skip(&mut verdicts, "a\tno x\nb\tno x\na\tno y\na\tno x\n").expect("names that are there");
        let all: Vec<&Verdict> = verdicts.values().collect();
        assert_eq!(all, [&Verdict::Skipped("no x; no y".to_owned()), &Verdict::Failed, &Verdict::Passed]);
        assert!(skip(&mut verdicts, "main\tno x\n").is_err());
        assert!(skip(&mut verdicts, "a no x\n").is_err());
    }
}
