//! A panic in a call, as no call can bring it about: what tells of the credentials has a defect here.

use super::*;
use crate::control::{Control, bind, serve};
use crate::telemetry::tests::is_alone;
use crate::telemetry::{guard_panics, panics_count};

#[test]
fn a_panic_in_a_call_ends_its_connection_is_counted_and_the_rest_is_served() {
    if !is_alone() {
        return;
    }
    guard_panics();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let told = async {
        let plane = Plane::new();
        let path = plane.home.path().join("run/control.sock");
        let listener = bind(&path, None).unwrap();
        let Ok(control) = Arc::try_unwrap(plane.control) else { panic!("somebody else holds it") };
        let parts = crate::control::Parts { credentials: Arc::new(|| panic!("a defect")), ..control.parts };
        let shutdown = CancellationToken::new();
        let control = Control::new(parts, crate::identity::socket_peer, shutdown.clone());
        // Fewer than connect below: a place that a panic kept would be missed.
        let limits = Limits { connections_max: 2, ..front::LIMITS };
        let serving = tokio::spawn(serve::run(listener, Arc::new(control), limits, shutdown.clone()));
        for count in 1..=4 {
            let broken = Client::new(&path).services().await;
            assert!(broken.is_err() && !matches!(broken, Err(ClientError::Refused(_))), "{broken:?}");
            assert_eq!(panics_count(), count);
            Client::new(&path).whoami().await.unwrap();
        }
        shutdown.cancel();
        serving.await.unwrap();
    };
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), told).await.unwrap() });
}
