//! How long a stream lasts that was opened with a proof that has no end of its own.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{libfaketime, set_wall, walled};
use crate::control::tcp::{policy, scene};
use crate::support::remote::write;

#[tokio::test]
async fn a_stream_that_a_files_token_opened_ends_after_a_quarter_of_an_hour() {
    let Some(library) = libfaketime() else { return };
    let token = "a".repeat(40);
    let policy =
        policy("[\"any\"]", "[\"bearer:file:{dir}/mint-token\"]").replace("\"revoke\"]", "\"revoke\", \"events\"]");
    let lay = |directory: &std::path::Path| write(&directory.join("mint-token"), &token, 0o600);
    let scene = scene(&policy, lay, |builder| walled(builder, &library)).await;
    let (caller, bearer) = (scene.parties.caller(&scene.sidecar), format!("Bearer {token}"));
    let mut stream = tokio::spawn(async move { caller.get("/v1/events", Some(&bearer)).await });
    // Its token is withdrawn, which the stream does not notice.
    sleep(Duration::from_secs(1)).await;
    write(&scene.sidecar.path("mint-token"), &"b".repeat(40), 0o600);
    let set = |minutes: i64| set_wall(&scene.sidecar.path("wall"), 60 * minutes);
    set(13);
    assert!(timeout(Duration::from_secs(2), &mut stream).await.is_err(), "not yet");
    set(16);
    // The clock is looked at with each heartbeat.
    let ended = timeout(Duration::from_secs(40), stream).await.expect("its end").expect("no panic");
    assert_eq!(ended.status, 200);
}
