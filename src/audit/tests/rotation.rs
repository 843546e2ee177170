//! Files that are renamed, removed or emptied under way.

use super::*;

#[tokio::test]
async fn a_rotated_file_goes_on_from_the_one_before() {
    let place = place();
    let old = place.path.with_extension("1");
    let audit = start(&place.path);
    audit.record(event()).await.unwrap();
    fs::rename(&place.path, &old).unwrap();
    audit.reopen();
    until(|| place.path.exists() && check(&place.path).is_ok_and(|verified| verified.records > 0)).await;
    audit.record(event()).await.unwrap();
    audit.stop("test", SOON).await;
    let (before, after) = (check(&old).unwrap(), check(&place.path).unwrap());
    assert_eq!(before.continues, hex::encode(NO_HASH));
    assert_eq!(after.continues, before.head);
    assert_eq!(kinds(&lines(&place.path)), ["rotated", "control_refused", "stop"]);
    let both = [fs::read(&old).unwrap(), fs::read(&place.path).unwrap()].concat();
    assert_eq!(verify(both.as_slice(), Some(&before.head)).unwrap().records, 5);
}

#[tokio::test]
async fn reopening_the_same_file_changes_nothing() {
    let place = place();
    let audit = start(&place.path);
    audit.reopen();
    audit.record(event()).await.unwrap();
    audit.reopen();
    audit.record(event()).await.unwrap();
    audit.stop("test", SOON).await;
    assert_eq!(kinds(&lines(&place.path)), ["start", "control_refused", "control_refused", "stop"]);
}

#[tokio::test]
async fn a_removed_file_is_made_anew() {
    let place = place();
    let audit = start(&place.path);
    fs::remove_file(&place.path).unwrap();
    audit.record(event()).await.unwrap();
    assert_eq!(kinds(&lines(&place.path)), ["rotated", "control_refused"]);
    check(&place.path).unwrap();
}

#[tokio::test]
async fn a_file_that_cannot_be_made_anew_refuses_until_it_can() {
    let place = place();
    let directory = place.path.parent().unwrap().join("sub");
    fs::create_dir(&directory).unwrap();
    let path = directory.join("audit.log");
    let audit = start(&path);
    fs::remove_dir_all(&directory).unwrap();
    assert_eq!(audit.record(event()).await, Err(Unavailable));
    assert!(!audit.state().is_healthy);
    fs::create_dir(&directory).unwrap();
    until(|| audit.state().is_healthy).await;
    audit.record(event()).await.unwrap();
    assert_eq!(kinds(&lines(&path)), ["rotated", "outage", "control_refused"]);
}

#[tokio::test]
async fn a_file_emptied_in_place_goes_on() {
    let place = place();
    let audit = start(&place.path);
    OpenOptions::new().write(true).truncate(true).open(&place.path).unwrap();
    audit.record(event()).await.unwrap();
    assert_eq!(kinds(&lines(&place.path)), ["rotated", "control_refused"]);
    check(&place.path).unwrap();
}

#[tokio::test]
async fn a_reopened_path_with_another_chain_is_not_written() {
    let place = place();
    let (old, other) = (place.path.with_extension("1"), place.path.with_extension("2"));
    start(&other).stop("test", SOON).await;
    let foreign = fs::read(&other).unwrap();
    let audit = start(&place.path);
    fs::rename(&place.path, &old).unwrap();
    fs::rename(&other, &place.path).unwrap();
    audit.reopen();
    until(|| !audit.state().is_healthy).await;
    audit.record(event()).await.unwrap();
    assert_eq!(fs::read(&place.path).unwrap(), foreign);
    assert_eq!(kinds(&lines(&old)), ["start", "control_refused"], "the old file is used until the new one can be");
    fs::remove_file(&place.path).unwrap();
    until(|| audit.state().is_healthy).await;
    check(&place.path).unwrap();
}
