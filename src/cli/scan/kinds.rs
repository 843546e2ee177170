//! What a nonce looks like, and the keys of well-known services.

use memchr::memmem;
use zeroize::Zeroizing;

use crate::model::nonce;

/// Different characters that a key has at least: `xxxxxxxx` in a manual is none.
const DIFFERENT_MIN: usize = 6;

/// What a key consists of after its beginning.
#[derive(Debug, Clone, Copy)]
enum Alphabet {
    /// Letters and digits.
    Letters,
    /// Those, `_` and `-`.
    Words,
    /// Those and `.`.
    Dotted,
    /// Capital letters and digits.
    Capitals,
    /// Hexadecimal digits in lower case.
    Hex,
}

/// A kind of key.
#[derive(Debug)]
pub struct Kind {
    /// What it is called.
    pub name: &'static str,
    /// How each of its kind begins.
    prefix: &'static str,
    /// What is shown of it.
    pub shown: &'static str,
    alphabet: Alphabet,
    /// How many characters follow, from and to.
    length: (usize, usize),
}

const fn kind(name: &'static str, prefix: &'static str, alphabet: Alphabet, length: (usize, usize)) -> Kind {
    Kind { name, prefix, shown: prefix, alphabet, length }
}

/// Longest key that is looked for.
const LONG: usize = 512;

/// The table. A private key has a line of its own below.
const KINDS: &[Kind] = &[
    kind("stripe-secret-key", "sk_live_", Alphabet::Letters, (16, LONG)),
    kind("stripe-restricted-key", "rk_live_", Alphabet::Letters, (16, LONG)),
    kind("anthropic-key", "sk-ant-", Alphabet::Words, (20, LONG)),
    kind("openai-key", "sk-proj-", Alphabet::Words, (20, LONG)),
    kind("github-token", "ghp_", Alphabet::Letters, (36, LONG)),
    kind("github-token", "gho_", Alphabet::Letters, (36, LONG)),
    kind("github-token", "ghu_", Alphabet::Letters, (36, LONG)),
    kind("github-token", "ghs_", Alphabet::Letters, (36, LONG)),
    kind("github-token", "ghr_", Alphabet::Letters, (36, LONG)),
    kind("github-token", "github_pat_", Alphabet::Words, (22, LONG)),
    kind("gitlab-token", "glpat-", Alphabet::Dotted, (20, LONG)),
    kind("aws-access-key", "AKIA", Alphabet::Capitals, (16, 16)),
    kind("slack-token", "xoxa-", Alphabet::Words, (10, LONG)),
    kind("slack-token", "xoxb-", Alphabet::Words, (10, LONG)),
    kind("slack-token", "xoxp-", Alphabet::Words, (10, LONG)),
    kind("slack-token", "xoxr-", Alphabet::Words, (10, LONG)),
    kind("slack-token", "xoxs-", Alphabet::Words, (10, LONG)),
    kind("google-key", "AIza", Alphabet::Words, (35, 35)),
    kind("sendgrid-key", "SG.", Alphabet::Dotted, (60, 80)),
    kind("npm-token", "npm_", Alphabet::Letters, (36, 36)),
    kind("pypi-token", "pypi-", Alphabet::Words, (50, LONG)),
    kind("huggingface-token", "hf_", Alphabet::Letters, (30, LONG)),
    kind("digitalocean-token", "dop_v1_", Alphabet::Hex, (64, 64)),
];

const PRIVATE_KEY: Kind = kind("private-key", "-----", Alphabet::Capitals, (0, 0));
/// Longest label of a private key before its last words: `RSA`, `ENCRYPTED`, `OPENSSH`.
const LABEL_BYTES_MAX: usize = 16;

/// What was found.
pub enum What {
    /// A nonce, to be asked about.
    Nonce(Zeroizing<String>),
    /// A key of this kind.
    Secret(&'static Kind),
}

/// A find.
pub struct Find {
    /// In which line, from 1.
    pub line: usize,
    /// What.
    pub what: What,
}

/// Finds all of a text, in its order.
pub fn find(text: &[u8], and_secrets: bool, found: &mut impl FnMut(Find)) {
    let mut places: Vec<(usize, What)> = Vec::new();
    let start = text.as_ptr() as usize;
    for candidate in nonce::find_all(text).filter(|candidate| nonce::has_checksum(candidate)) {
        let plain = Zeroizing::new(String::from_utf8_lossy(candidate).into_owned());
        places.push((candidate.as_ptr() as usize - start, What::Nonce(plain)));
    }
    if and_secrets {
        for kind in KINDS {
            let at = memmem::find_iter(text, kind.prefix).filter(|at| kind.is_at(text, *at));
            places.extend(at.map(|at| (at, What::Secret(kind))));
        }
        // Put together here, so that no file of ours looks like one.
        let begin = ["-----", "BEGIN "].concat();
        let at = memmem::find_iter(text, &begin).filter(|at| is_private(&text[at + begin.len()..]));
        places.extend(at.map(|at| (at, What::Secret(&PRIVATE_KEY))));
    }
    places.sort_by_key(|(at, _)| *at);
    let (mut line, mut from) = (1, 0);
    for (at, what) in places {
        line += memchr::memchr_iter(b'\n', &text[from..at]).count();
        from = at;
        found(Find { line, what });
    }
}

impl Kind {
    /// Whether a text of this kind stands there, and not in the middle of something else.
    fn is_at(&self, text: &[u8], at: usize) -> bool {
        let before = at.checked_sub(1).map(|before| text[before]);
        let rest = &text[at + self.prefix.len()..];
        let rest = &rest[..rest.len().min(LONG + 1)];
        let length = rest.iter().take_while(|byte| self.alphabet.has(**byte)).count();
        let (least, most) = self.length;
        !before.is_some_and(|before| before.is_ascii_alphanumeric())
            && (least..=most).contains(&length)
            && different(&rest[..length]) >= DIFFERENT_MIN
    }
}

impl Alphabet {
    fn has(self, byte: u8) -> bool {
        match self {
            Self::Letters => byte.is_ascii_alphanumeric(),
            Self::Words => byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'),
            Self::Dotted => byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'),
            Self::Capitals => byte.is_ascii_uppercase() || byte.is_ascii_digit(),
            Self::Hex => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        }
    }
}

fn different(text: &[u8]) -> usize {
    let mut seen = [false; 256];
    text.iter().filter(|byte| !std::mem::replace(&mut seen[usize::from(**byte)], true)).count()
}

/// `RSA PRIVATE KEY-----` and its like.
fn is_private(label: &[u8]) -> bool {
    let last = b"PRIVATE KEY";
    let label = &label[..label.len().min(LABEL_BYTES_MAX + last.len())];
    memmem::find(label, last).is_some_and(|at| label[..at].iter().all(|b| b.is_ascii_uppercase() || *b == b' '))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Nonce;

    const BODY: &str = "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1dE3fG5";

    fn found(text: &str) -> Vec<(usize, &'static str)> {
        let mut all = Vec::new();
        find(text.as_bytes(), true, &mut |find| {
            all.push((
                find.line,
                match find.what {
                    What::Nonce(_) => "nonce",
                    What::Secret(kind) => kind.name,
                },
            ));
        });
        all
    }

    #[test]
    fn each_kind_is_found_by_its_shape() {
        for kind in KINDS {
            let body = match kind.alphabet {
                Alphabet::Capitals => BODY.to_uppercase(),
                Alphabet::Hex => "0123456789abcdef".repeat(4),
                Alphabet::Letters | Alphabet::Words | Alphabet::Dotted => BODY.repeat(2),
            };
            let body = &body[..kind.length.0];
            assert_eq!(found(&format!("a\nKEY=\"{}{body}\"", kind.prefix)), [(2, kind.name)], "{}", kind.prefix);
            assert_eq!(found(&format!("{}{}", kind.prefix, &body[1..])), [], "too short: {}", kind.prefix);
            assert_eq!(found(&format!("x{}{body}", kind.prefix)), [], "in a word: {}", kind.prefix);
            assert_eq!(found(&format!("{}{}", kind.prefix, "x".repeat(body.len()))), [], "made up: {}", kind.prefix);
        }
        assert_eq!(found(&format!("AKIA{}", &BODY.to_uppercase()[..17])), [], "too long");
    }

    #[test]
    fn private_keys_are_found_and_certificates_are_not() {
        let begin = |label: &str| ["-----", "BEGIN ", label, "-----\nMII"].concat();
        for label in
            ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "OPENSSH PRIVATE KEY", "ENCRYPTED PRIVATE KEY"]
        {
            assert_eq!(found(&begin(label)), [(1, "private-key")], "{label}");
        }
        for label in ["CERTIFICATE", "PUBLIC KEY", "CERTIFICATE REQUEST"] {
            assert_eq!(found(&begin(label)), [], "{label}");
        }
    }

    #[test]
    fn a_nonce_is_known_by_its_checksum() {
        let nonce = Nonce::from_entropy(&[7; 32]);
        let text = format!("one\n\nsk_test_{0}\n{0}", nonce.as_str());
        assert_eq!(found(&text), [(3, "nonce"), (4, "nonce")]);
        assert_eq!(found(&format!("an_{}", "0".repeat(33))), []);
    }
}
