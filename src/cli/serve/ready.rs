//! The ready file: there whole, or not at all.

use std::io::{self, Write};
use std::path::Path;

use super::Arguments;

/// What an earlier start wrote names addresses that are not ours. What cannot be removed is told of later.
pub(super) fn remove_stale(arguments: &Arguments) {
    if let Some(stale) = &arguments.ready_file {
        let _ = std::fs::remove_file(stale);
    }
}

/// Puts a file in place whole, by a draft beside it that is nobody else's.
pub(super) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".draft-{}", std::process::id()));
    // In a container the process id is always the same: a start that was killed can have left one behind.
    let _ = std::fs::remove_file(&draft);
    std::fs::File::create_new(&draft)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| std::fs::rename(&draft, path))
        .inspect_err(|_| {
            // The first mistake is the one to tell of.
            let _ = std::fs::remove_file(&draft);
        })
}
