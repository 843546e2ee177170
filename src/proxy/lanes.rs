//! Threads that serve agents, each on a runtime of its own.
//!
//! A connection stays on the thread that accepted it. A runtime for one thread needs no locks and steals no work, which
//! a proxy has no use for: a request is a few short steps between waits. All lanes listen on the same sockets, and
//! whoever has time accepts. Upstream connections are shared between lanes.
//!
//! What else the process does (control API, health, sweeping) is not done here, and goes on while a lane waits for a disk.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::Proxy;
use super::accept::{self, Entrance};

/// The sockets of one lane.
type Listeners = Vec<(TcpListener, Entrance)>;

/// What all lanes share.
#[derive(Clone)]
struct Shared {
    proxy: Arc<Proxy>,
    /// One for each client connection.
    places: Arc<Semaphore>,
    shutdown: CancellationToken,
    /// The drain is over.
    drained: CancellationToken,
}

/// Accepts on all lanes until `shutdown`, then drains.
pub(super) async fn run(proxy: Arc<Proxy>, listeners: Listeners, shutdown: CancellationToken) -> io::Result<()> {
    let watching = {
        let watch = proxy.watch.clone();
        tokio::spawn(async move { watch.run().await })
    };
    let places = Arc::new(Semaphore::new(proxy.limits.connections_max));
    let shared = Shared { proxy: proxy.clone(), places, shutdown: shutdown.clone(), drained: CancellationToken::new() };
    let lanes = spawn_all(&shared, listeners);
    if lanes.is_ok() {
        shutdown.cancelled().await;
    }
    shutdown.cancel();
    proxy.drain().await;
    shared.drained.cancel();
    watching.abort();
    for lane in lanes? {
        // A lane that panicked has said so.
        let _ = tokio::task::spawn_blocking(move || lane.join()).await;
    }
    Ok(())
}

/// Starts every lane, or none that stays.
fn spawn_all(shared: &Shared, listeners: Listeners) -> io::Result<Vec<thread::JoinHandle<()>>> {
    let mut lanes = Vec::new();
    for number in 1..shared.proxy.limits.threads.max(1) {
        let copies = listeners.iter().map(|(listener, entrance)| Ok((listener.try_clone()?, entrance.clone())));
        lanes.push(spawn(shared.clone(), number, copies.collect::<io::Result<_>>()?)?);
    }
    lanes.push(spawn(shared.clone(), 0, listeners)?);
    Ok(lanes)
}

fn spawn(shared: Shared, number: usize, listeners: Listeners) -> io::Result<thread::JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listeners = {
        let _entered = runtime.enter();
        let adopted = listeners.into_iter().map(|(socket, entrance)| Ok((adopt(socket)?, entrance)));
        adopted.collect::<io::Result<Vec<_>>>()?
    };
    thread::Builder::new().name(format!("lane-{number}")).spawn(move || {
        let Shared { proxy, places, shutdown, drained } = shared;
        runtime.block_on(async {
            accept::run(&proxy, listeners, places, shutdown).await;
            drained.cancelled().await;
        });
        // Look-ups and the like that still run are nobody's any more.
        runtime.shutdown_background();
    })
}

fn adopt(socket: TcpListener) -> io::Result<tokio::net::TcpListener> {
    socket.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(socket)
}
