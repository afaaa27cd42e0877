//! What the tests stand on.

pub(crate) mod cluster;
pub(crate) mod ledger;
pub(crate) mod machine;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod server;

use std::time::Duration;

use assemblage::{Cluster, ClusterBuilder, Event, Worker};
use futures::StreamExt;
pub(crate) use ledger::Ledger;
pub(crate) use machine::monotonic_us;
pub(crate) use process::{Process, Report, add_jobs};
pub(crate) use server::RedisServer;

/// How long anything may take before a test calls it lost. Far more than it ever takes: machines are shared.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A lock's time to live in tests: short enough to wait for, long enough for a machine that stalls.
pub(crate) const TTL: Duration = Duration::from_millis(2_000);

pub(crate) fn builder() -> ClusterBuilder {
    Cluster::builder("test").lock_ttl(TTL).release_timeout(Duration::from_secs(20))
}

pub(crate) async fn cluster(server: &RedisServer) -> Cluster {
    builder().connect_url(server.url()).await.expect("connects")
}

/// The next event, which must come.
pub(crate) async fn next(worker: &mut Worker) -> Event {
    tokio::time::timeout(PATIENCE, worker.next()).await.expect("an event comes").expect("the stream goes on")
}

/// Waits until a condition holds.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let start = std::time::Instant::now();
    while !condition().await {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
