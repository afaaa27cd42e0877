//! The link against a real server.

use std::time::{Duration, Instant};

use super::link::{Link, LinkEvent};
use crate::cluster::Cluster;
use crate::id::WorkerId;
use crate::redis::subscriber::Listener;
use crate::test_server::RedisServer;

/// How long anything may take before a test calls it lost.
const PATIENCE: Duration = Duration::from_secs(20);
/// For what is to fail by its timeout.
const SHORT: Duration = Duration::from_millis(300);

/// Runs the link until something holds of the server; nothing else happens meanwhile.
async fn run_until(link: &mut Link, what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        let event = tokio::time::timeout(Duration::from_millis(20), link.next()).await;
        assert!(!matches!(event, Ok(LinkEvent::Attached(_))), "{what}: by another subscription");
    }
}

/// Promise: takeovers are fast. A worker that is to hear of the others' ends, and whose server was too slow to subscribe it, hears of
/// them as soon as the server is well, over the same connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_not_be_subscribed_is_asked_for_again() {
    let server = RedisServer::start();
    // With such a lock, no ping comes in between.
    let builder = Cluster::builder("test").lock_ttl(Duration::from_secs(600)).command_timeout(SHORT);
    let shared = builder.connect_url(server.url()).await.expect("it connects").shared();
    let run_id = shared.reopen().await.expect("it opens");
    let mut link = Link::start(&shared, run_id, Listener::Worker(WorkerId(7))).await.expect("it attaches");
    let patterns = || server.command(&["PUBSUB", "NUMPAT"]).int();
    link.listen(false);
    run_until(&mut link, "it ceases to hear of them", || patterns() == 0).await;
    // What comes before an answer is carried out late; the pattern is asked for behind one.
    server.command(&["CLIENT", "PAUSE", "1000", "ALL"]);
    let paused = Instant::now();
    link.listen(true);
    run_until(&mut link, "the first try fails", || paused.elapsed() > 2 * SHORT).await;
    run_until(&mut link, "it hears of them again", || patterns() == 1).await;
    link.close().await;
}
