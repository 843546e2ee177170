//! Other users of this machine, played by threads of this process: on Linux a thread can have a uid of its own.

use std::future::Future;

use rustix::thread::{Gid, Uid, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::skip;

/// A uid that is nobody's in these tests but a stranger's.
pub const STRANGER: u32 = 65_534;

/// True where threads can become others. What needs it says so and passes where it is not.
pub fn can_be_others() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        skip("only root can act as another user");
    }
    is_root
}

/// Runs `act` as another user, with a runtime of its own.
pub async fn acting<F, T>(uid: u32, gid: u32, act: impl FnOnce() -> F + Send + 'static) -> T
where
    F: Future<Output = T>,
    T: Send + 'static,
{
    let thread = move || {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        set_thread_groups(&[gid]).expect("root");
        set_thread_res_gid(gid, gid, gid).expect("root");
        set_thread_res_uid(uid, uid, uid).expect("root");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(act())
    };
    tokio::task::spawn_blocking(move || std::thread::spawn(thread).join()).await.expect("a task").expect("no panic")
}
