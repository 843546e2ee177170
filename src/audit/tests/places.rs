//! What is refused at the start.

use super::*;

#[tokio::test]
async fn the_file_is_private() {
    let place = place();
    let _audit = start(&place.path);
    assert_eq!(fs::metadata(&place.path).unwrap().permissions().mode() & 0o7777, 0o600);
}

#[test]
fn links_and_other_things_are_refused() {
    let place = place();
    let link = place.path.with_extension("link");
    symlink(&place.path, &link).unwrap();
    assert!(matches!(try_start(&config(&link)), Err(StartError::Link { .. })));
    assert!(!place.path.exists(), "not even a dangling link is followed");
    let directory = place.path.parent().unwrap();
    assert!(matches!(try_start(&config(directory)), Err(StartError::NotAFile { .. })));
    assert!(matches!(try_start(&config(&directory.join("no/such"))), Err(StartError::Open { .. })));
}

#[test]
fn a_file_that_others_may_write_or_run_is_refused() {
    let place = place();
    write_private(&place.path, b"");
    for mode in [0o620, 0o602] {
        fs::set_permissions(&place.path, Permissions::from_mode(mode)).unwrap();
        assert!(matches!(try_start(&config(&place.path)), Err(StartError::WritableByOthers { .. })));
    }
    for mode in [0o700, 0o610, 0o601] {
        fs::set_permissions(&place.path, Permissions::from_mode(mode)).unwrap();
        assert!(matches!(try_start(&config(&place.path)), Err(StartError::Executable { .. })));
    }
    fs::set_permissions(&place.path, Permissions::from_mode(0o640)).unwrap();
    assert!(try_start(&config(&place.path)).is_ok());
}

#[test]
fn a_file_that_is_no_audit_is_refused_and_left_alone() {
    let long = [b"x".repeat(3 * 1024 * 1024), b"\n".to_vec()].concat();
    for content in [&b"notes\n"[..], b"notes", b"{}\n{\"v\":1", b"\n", long.as_slice()] {
        let place = place();
        write_private(&place.path, content);
        assert!(matches!(try_start(&config(&place.path)), Err(StartError::NotAnAudit { .. })));
        assert_eq!(fs::read(&place.path).unwrap(), content);
    }
}

#[tokio::test]
async fn an_audit_whose_last_record_was_edited_is_refused() {
    let place = place();
    start(&place.path).stop("test", SOON).await;
    let edited = fs::read_to_string(&place.path).unwrap().replace("\"reason\":\"test\"", "\"reason\":\"tent\"");
    write_private(&place.path, edited.as_bytes());
    assert!(matches!(try_start(&config(&place.path)), Err(StartError::NotAnAudit { .. })));
}

#[test]
fn two_sidecars_cannot_share_a_file() {
    let place = place();
    let _first = start(&place.path);
    assert!(matches!(try_start(&config(&place.path)), Err(StartError::Locked { .. })));
}
