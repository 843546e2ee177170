//! What this machine cannot test: why is said, and written down for whoever counts. The unit tests have this file, too.

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Write;

/// Says why the test on this thread is not run, or only in part.
///
/// Where `VALETKEY_TEST_SKIPS` names a file, a line is put at its end as well: the test's name, a tab, and why.
pub fn skip(why: impl Display) {
    eprintln!("skipped: {why}");
    let Some(path) = std::env::var_os("VALETKEY_TEST_SKIPS") else { return };
    let thread = std::thread::current();
    let test = thread.name().filter(|name| name.contains("::")).expect("a test's own thread, which has its name");
    let line = format!("{test}\t{}\n", why.to_string().replace('\n', " "));
    let mut file = OpenOptions::new().create(true).append(true).open(path).expect("the file of what is skipped");
    file.write_all(line.as_bytes()).expect("the file of what is skipped");
}
