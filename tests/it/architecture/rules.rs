//! The rules, each from sources to the breaches that it finds.

use super::source::Source;

/// What one module may name of the others, and which crates it must not know.
pub struct Row {
    pub module: &'static str,
    pub may_use: &'static [&'static str],
    pub must_not_know: &'static [&'static str],
}

/// The modules that a file names by `crate::`, as a path or in a group.
pub fn named_modules(code: &str) -> Vec<String> {
    let mut named = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        // `pub(crate)` has no colons; `$crate::` is a macro's own.
        let rest = code[at + "crate::".len()..].trim_start();
        match rest.strip_prefix('{') {
            None => named.push(word(rest)),
            Some(group) => named.extend(first_words(group)),
        }
    }
    named
}

fn word(text: &str) -> String {
    text.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect()
}

/// The first word of each member of a group, whose opening brace is gone.
fn first_words(group: &str) -> Vec<String> {
    let (mut depth, mut members) = (1, vec![String::new()]);
    for character in group.chars() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => members.push(String::new()),
            _ => {}
        }
        if depth == 0 {
            break;
        }
        members.last_mut().expect("one").push(character);
    }
    members
        .iter()
        .map(|member| word(member.trim_start_matches([',', ' ', '\n'])))
        .filter(|name| !name.is_empty())
        .collect()
}

/// Modules that the table does not have, and rows without a module.
pub fn rows_match_modules(table: &[Row], root: &Source) -> Vec<String> {
    let declared: Vec<String> =
        root.code.match_indices("mod ").map(|(at, found)| word(&root.code[at + found.len()..])).collect();
    let missing = declared.iter().filter(|name| table.iter().all(|row| row.module != *name));
    let superfluous = table.iter().filter(|row| declared.iter().all(|name| name != row.module));
    missing
        .map(|name| format!("{name} is not in the table"))
        .chain(superfluous.map(|row| format!("{} is in the table and not in src/lib.rs", row.module)))
        .collect()
}

/// Paths that the table does not allow.
pub fn imports(table: &[Row], sources: &[Source]) -> Vec<String> {
    let mut breaches = Vec::new();
    for source in sources.iter().filter(|source| !["lib.rs", "main.rs"].contains(&source.path.as_str())) {
        let Some(row) = table.iter().find(|row| row.module == source.module()) else {
            breaches.push(format!("{}: its module is not in the table", source.path));
            continue;
        };
        for named in named_modules(&source.code) {
            if named != row.module && !row.may_use.contains(&named.as_str()) {
                breaches.push(format!("{}: {} may not use {named}", source.path, row.module));
            }
        }
        for known in row.must_not_know {
            if names(&source.code, known) {
                breaches.push(format!("{}: {} must not know {known}", source.path, row.module));
            }
        }
    }
    breaches
}

/// True if the code has this path or word; `hyper` stands for `hyper_util` too, `Minter` not for `MinterName`.
fn names(code: &str, path: &str) -> bool {
    code.match_indices(path).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + path.len()..].chars().next();
        !before.is_some_and(|before| before.is_alphanumeric() || before == '_')
            && !after.is_some_and(char::is_alphanumeric)
    })
}

/// Files that hold any of these texts, but for the ones that may.
pub fn nowhere(sources: &[Source], texts: &[&str], but_in: impl Fn(&str) -> bool) -> Vec<String> {
    let mut breaches = Vec::new();
    for source in sources.iter().filter(|source| !but_in(&source.path)) {
        for text in texts.iter().filter(|text| source.code.contains(**text)) {
            breaches.push(format!("{}: `{text}`", source.path));
        }
    }
    breaches
}

/// `super::super`, also in tests; and `super::` at the top, where it is another spelling of `crate::`.
pub fn paths_beyond_the_parent(sources: &[Source]) -> Vec<String> {
    let is_beyond = |source: &&Source| {
        source.code_and_tests.contains("super::super")
            || !source.path.contains('/') && source.code.lines().any(|line| line.contains("super::"))
    };
    sources.iter().filter(is_beyond).map(|source| source.path.clone()).collect()
}

/// Files longer than this, tests not counted.
pub fn longer_than(sources: &[Source], lines_max: usize) -> Vec<String> {
    let long = sources.iter().filter(|source| source.lines > lines_max);
    long.map(|source| format!("{}: {} lines", source.path, source.lines)).collect()
}

/// Files that make or accept TCP connections and do not say `TCP_NODELAY`.
pub fn sockets_with_nagle(sources: &[Source]) -> Vec<String> {
    let makes = |source: &&Source| {
        let is_listener = source.code.contains("TcpListener")
            && [".accept()", ".poll_accept("].iter().any(|call| source.code.contains(call));
        source.code.contains("TcpStream::connect") || is_listener
    };
    let delays = |source: &&Source| !source.code.contains("set_nodelay(true)");
    sources.iter().filter(makes).filter(delays).map(|source| source.path.clone()).collect()
}
