//! Clocks that are set, and a machine that slept, under the built binary.
//!
//! The wall clock is libfaketime's, which `cargo xtask` fetches; where it cannot be had the tests are skipped. It cannot
//! move the boot-time clock apart from the monotonic one, and the sidecar asks the kernel for it: `clocks/boot_clock.c`
//! does that.

mod crowded;
mod stopped;
mod streams;
mod wall;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::support::agent::{Reply, get};
use crate::support::orchestrator::Minted;
use crate::support::{Builder, FakeUpstream, Stage, skip};

/// A sidecar whose clocks are set by hand: a wall clock in a file, and a boot-time clock in another.
struct Faked(Stage);

impl Faked {
    /// With a wall clock to set; none where there is no libfaketime.
    async fn wall() -> Option<Self> {
        let library = libfaketime()?;
        Some(Self::of(|builder| walled(builder, &library)).await)
    }

    /// With a boot-time clock to set, while all others go on as they do.
    async fn boot() -> Self {
        Self::of(|builder| {
            builder
                .file("boot", "\0\0\0\0\0\0\0\0")
                .environment("LD_PRELOAD", built("boot_clock").to_str().expect("a path"))
                .environment("FAKE_BOOT_CLOCK", "{dir}/boot")
        })
        .await
    }

    async fn of(edit: impl FnOnce(Builder) -> Builder) -> Self {
        Self(Stage::with(FakeUpstream::start(&["api.test"]).await, edit).await)
    }

    /// Sets the wall clock so many seconds ahead of the true one, or behind.
    fn set_wall(&self, seconds: i64) {
        set_wall(&self.0.sidecar.path("wall"), seconds);
    }

    /// The machine slept for so long: nothing but the boot-time clock noticed. (A wall clock that was set back by as much
    /// in the meantime, or that did not go on either, is the worst case.)
    fn sleep(&self, seconds: i64) {
        // Written in place, since it is mapped: eight bytes at once.
        std::fs::write(self.0.sidecar.path("boot"), seconds.to_ne_bytes()).expect("a file");
    }

    async fn mint(&self, ttl: &str) -> Minted {
        let wanted = json!({"agent": "worker", "task": "t", "service": "api", "scope": "read", "ttl": ttl});
        self.0.sidecar.orchestrator().mint_with(wanted).await
    }

    /// How far the sidecar's wall clock is from the true one, as a nonce of ten minutes shows it; to the minute.
    async fn strayed(&self) -> i64 {
        let minted = self.mint("10m").await;
        let expires: Timestamp =
            minted.answer["expires_at"].as_str().and_then(|text| text.parse().ok()).expect("a time");
        let strayed = expires.duration_since(Timestamp::now()) - SignedDuration::from_mins(10);
        (strayed.as_secs() + 30).div_euclid(60)
    }
}

/// With a wall clock to set, by the file `wall`.
fn walled(builder: Builder, library: &Path) -> Builder {
    builder
        .file("wall", "+0")
        .environment("LD_PRELOAD", library.to_str().expect("a path"))
        .environment("FAKETIME_TIMESTAMP_FILE", "{dir}/wall")
        .environment("FAKETIME_NO_CACHE", "1")
        .environment("FAKETIME_DISABLE_SHM", "1")
        .environment("NO_FAKE_STAT", "1")
        .environment("DONT_FAKE_MONOTONIC", "1")
        .environment("FAKETIME_DONT_FAKE_MONOTONIC", "1")
}

fn set_wall(file: &Path, seconds: i64) {
    // Renamed into place: it is read at every look at the clock.
    std::fs::write(file.with_extension("next"), format!("{seconds:+}")).expect("a file");
    std::fs::rename(file.with_extension("next"), file).expect("a file");
}

fn outcome(reply: &Reply) -> (u16, Option<&str>) {
    (reply.status.as_u16(), reply.refusal())
}

/// What `VALETKEY_FAKETIME` names, or what the system has.
fn libfaketime() -> Option<PathBuf> {
    let given = std::env::var_os("VALETKEY_FAKETIME").map(PathBuf::from);
    let library = given.or_else(|| {
        let directories = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
        let inside = |directory: PathBuf| directory.join("faketime/libfaketimeMT.so.1");
        directories.chain([PathBuf::from("/usr/lib")]).map(inside).find(|path| path.exists())
    });
    if library.is_none() {
        skip("libfaketime (Debian: libfaketime) is not installed, and VALETKEY_FAKETIME names none");
    }
    library
}

/// What the C file of this name here was built to: the compiler that links this test is there.
fn built(name: &'static str) -> &'static Path {
    static BUILT: Mutex<BTreeMap<&str, &Path>> = Mutex::new(BTreeMap::new());
    let mut built = BUILT.lock().expect("not poisoned");
    built.entry(name).or_insert_with(|| {
        let source = format!("{}/tests/it/clocks/{name}.c", env!("CARGO_MANIFEST_DIR"));
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let (library, own) = (directory.join(format!("{name}.so")), format!("{name}.{}", std::process::id()));
        let mut compile = Command::new("cc");
        compile.args(["-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-o"]).arg(directory.join(&own));
        assert!(compile.arg(&source).status().expect("cc").success(), "{source} does not compile");
        std::fs::rename(directory.join(own), &library).expect("a file");
        Box::leak(library.into_boxed_path())
    })
}

#[tokio::test]
async fn a_machine_that_slept_past_the_expiry_wakes_with_dead_nonces() {
    let faked = Faked::boot().await;
    let (minted, other) = (faked.mint("10m").await, faked.mint("10m").await);
    let mut tunnel = faked.0.sidecar.agent().tunnel("api.test").await;
    faked.sleep(9 * 60);
    assert_eq!(outcome(&tunnel.send(get("api.test", "/x", &minted.nonce)).await), (200, None), "a short sleep");
    faked.sleep(11 * 60);
    let reply = tunnel.send(get("api.test", "/x", &minted.nonce)).await;
    assert_eq!(outcome(&reply), (401, Some("nonce_expired")));
    let renewal = format!("/v1/nonces/{}/renew", other.id);
    let (status, answer) = faked.0.sidecar.orchestrator().call("POST", &renewal, Some(json!({"ttl": "10m"}))).await;
    assert!(status.is_client_error(), "a dead nonce is not renewed: {status} {answer:#}");
    let fresh = faked.mint("10m").await;
    assert_eq!(outcome(&tunnel.send(get("api.test", "/x", &fresh.nonce)).await), (200, None), "and new ones live");
    assert_eq!(faked.0.upstream.seen().len(), 2);
}
