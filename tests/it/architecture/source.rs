//! The product's source as the rules look at it: without comments, without the content of strings, without tests.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// One file of `src`.
#[derive(Debug, Clone)]
pub struct Source {
    /// Below `src`: `proxy/accept.rs`.
    pub path: String,
    /// The code: comments are gone, strings are empty, what stands under `#[cfg(test)]` is gone.
    pub code: String,
    /// The same with its tests.
    pub code_and_tests: String,
    /// Lines, without those of tests in it; comments count.
    pub lines: usize,
}

impl Source {
    /// From a text, as if it stood there.
    pub fn of(path: &str, text: &str) -> Self {
        let code_and_tests = strip(text);
        let code = without_tests(&code_and_tests);
        // Stripping keeps every line break, so that lines count as they were written.
        let lines = without_tests_in(text, &code_and_tests).lines().count();
        Self { path: path.to_owned(), code, code_and_tests, lines }
    }

    /// The top-level module: `proxy`.
    pub fn module(&self) -> &str {
        let end = self.path.find(['/', '.']).unwrap_or(self.path.len());
        &self.path[..end]
    }
}

/// All of `src`.
pub fn with_tests() -> Vec<Source> {
    below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
}

/// All of `src`, but for files that are tests.
pub fn all() -> Vec<Source> {
    let sources = with_tests();
    let mut tests = BTreeSet::new();
    for source in &sources {
        let folder = source.path.trim_end_matches(".rs");
        tests.extend(test_modules(&source.code_and_tests).into_iter().map(|name| format!("{folder}/{name}")));
    }
    let is_test = |source: &Source| {
        let module = source.path.trim_end_matches(".rs");
        tests.iter().any(|test| module == test || module.starts_with(&format!("{test}/")))
    };
    sources.into_iter().filter(|source| !is_test(source)).collect()
}

/// Every Rust file below a folder.
pub fn below(root: &Path) -> Vec<Source> {
    let mut files = Vec::new();
    collect(root, &mut files);
    let source = |file: &PathBuf| {
        let path = file.strip_prefix(root).expect("below it").to_str().expect("a path");
        Source::of(path, &std::fs::read_to_string(file).expect("a file"))
    };
    files.iter().map(source).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    entries.sort();
    for entry in entries {
        if entry.is_dir() {
            collect(&entry, files);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            files.push(entry);
        }
    }
}

/// Blanks comments and the content of strings and characters; every byte keeps its place.
pub fn strip(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match &bytes[at..] {
            [b'/', b'/', ..] => at + until(&bytes[at..], b"\n"),
            [b'/', b'*', ..] => block_comment(bytes, at),
            [b'r' | b'b' | b'c', ..] if !is_word(bytes, at) && raw_string(bytes, at).is_some() => {
                raw_string(bytes, at).expect("just seen")
            }
            [b'"', ..] => quoted(bytes, at, b'"'),
            [b'\'', b'\\', ..] => quoted(bytes, at, b'\''),
            [b'\'', _, ..] => character(text, at),
            _ => {
                at += 1;
                continue;
            }
        };
        if end == at + 1 {
            // A lifetime.
            at = end;
            continue;
        }
        out[at..end].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        at = end;
    }
    String::from_utf8(out).expect("blanks")
}

fn until(bytes: &[u8], end: &[u8]) -> usize {
    memchr::memmem::find(bytes, end).unwrap_or(bytes.len())
}

/// True if the byte before belongs to the same word.
fn is_word(bytes: &[u8], at: usize) -> bool {
    at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_')
}

fn block_comment(bytes: &[u8], start: usize) -> usize {
    let (mut depth, mut at) = (0, start);
    while at < bytes.len() {
        match &bytes[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// The end of `r"…"`, `br#"…"#` and the like.
fn raw_string(bytes: &[u8], start: usize) -> Option<usize> {
    let prefix = if bytes[start] == b'r' { 1 } else { 2 };
    if prefix == 2 && bytes.get(start + 1) != Some(&b'r') {
        return None;
    }
    let hashes = bytes[start + prefix..].iter().take_while(|byte| **byte == b'#').count();
    if bytes.get(start + prefix + hashes) != Some(&b'"') {
        return None;
    }
    let body = start + prefix + hashes + 1;
    let end = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
    Some((body + until(&bytes[body..], &end) + end.len()).min(bytes.len()))
}

fn quoted(bytes: &[u8], start: usize, quote: u8) -> usize {
    let mut at = start + 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// A character literal; a lifetime ends where it begins.
fn character(text: &str, start: usize) -> usize {
    let mut characters = text[start + 1..].char_indices();
    let first = characters.next();
    match (first, characters.next()) {
        (Some(_), Some((offset, '\''))) => start + 1 + offset + 1,
        _ => start + 1,
    }
}

/// The names in `#[cfg(test)] mod NAME;`.
fn test_modules(code: &str) -> Vec<String> {
    test_items(code)
        .filter_map(|(start, end)| {
            let (_, name) = code[start..end].rsplit_once("mod ")?;
            name.trim().strip_suffix(';').map(|name| name.trim().to_owned())
        })
        .collect()
}

fn without_tests(code: &str) -> String {
    without_tests_in(code, code)
}

/// Takes out of `text` what are tests in `code`, which is as long.
fn without_tests_in(text: &str, code: &str) -> String {
    let (mut out, mut from) = (String::new(), 0);
    for (start, end) in test_items(code) {
        out.push_str(&text[from..start]);
        from = end;
    }
    out + &text[from..]
}

/// Where items under `#[cfg(test)]` begin and end.
fn test_items(code: &str) -> impl Iterator<Item = (usize, usize)> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let start = from + code[from..].find("#[cfg(test)]")?;
        from = item_end(code, start);
        Some((start, from))
    })
}

/// The end of an item: its `;`, or the brace that closes its first one.
fn item_end(code: &str, start: usize) -> usize {
    let mut depth = 0;
    for (offset, character) in code[start..].char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 && matches!(character, ';' | '}') {
            return start + offset + 1;
        }
    }
    code.len()
}

#[test]
fn what_is_no_code_is_not_looked_at() {
    let text = "// crate::a\nlet b: &'static str = \"crate::c \\\" crate::d\"; /* /* crate::e */ crate::f */ g('\"'); \
                let h = r#\"crate::i \" \"#; crate::j; b\"crate::k\"; let l = 'm'; n::<'o>('\\''); crate::p";
    let code = strip(text);
    assert_eq!(code.matches("crate::").count(), 2, "{code}");
    assert!(code.contains("crate::j") && code.contains("crate::p") && code.contains("n::<'o>"), "{code}");
    assert_eq!(code.len(), text.len());
}

#[test]
fn tests_are_not_looked_at() {
    let text = "fn a() {}\n#[cfg(test)]\nmod tests;\n#[cfg(test)]\n#[cfg(unix)]\nmod more {\n fn b() { if c {} }\n}\nfn d() {}\n";
    let source = Source::of("x.rs", text);
    assert!(source.code.contains("fn a") && source.code.contains("fn d"));
    assert!(!source.code.contains("fn b") && !source.code.contains("mod tests"));
    assert_eq!(test_modules(&source.code_and_tests), ["tests"]);
    assert_eq!(source.lines, 4);
}
