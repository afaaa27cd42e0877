//! What is said of a server that is away: each thing once, when it begins to fail and when it is over.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use assemblage::{Event, Fence, WorkerOptions};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::support::{RedisServer, builder, next, until};

const TTL: Duration = Duration::from_millis(600);

/// What the crate says at INFO and above, and how often.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<HashMap<String, usize>>>);

impl Said {
    /// What is said on this thread until the guard is dropped.
    fn listen() -> (Self, impl Sized) {
        let said = Self::default();
        // Where there is one alone, `tracing` asks that of whichever thread comes by first, for good: another test's, that has
        // none.
        let second = tracing::Dispatch::new(tracing_subscriber::registry());
        let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(said.clone()));
        (said, (guard, second))
    }

    fn times(&self, line: &str) -> usize {
        self.0.lock().unwrap().get(line).copied().unwrap_or_default()
    }

    fn warnings(&self) -> BTreeMap<String, usize> {
        let said = self.0.lock().unwrap();
        let warnings = said.iter().filter(|(line, _)| line.starts_with("WARN"));
        warnings.map(|(line, times)| (line.clone(), *times)).collect()
    }

    /// Each of these was warned of, and nothing twice.
    fn assert_warned_once(&self, of: &[&str]) {
        let warnings = self.warnings();
        assert!(of.iter().all(|line| warnings.contains_key(&format!("WARN {line}"))), "{warnings:#?}");
        assert!(warnings.values().all(|times| *times == 1), "{warnings:#?}");
    }
}

/// A server that hangs, then is gone, and then is there again; each for so long that whatever is asked of it fails again and
/// again.
async fn be_away(server: &mut RedisServer) {
    server.pause();
    tokio::time::sleep(5 * TTL).await;
    server.kill();
    tokio::time::sleep(5 * TTL).await;
    server.start_again();
}

impl<S: tracing::Subscriber> Layer<S> for Said {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        struct Text(String);
        impl tracing::field::Visit for Text {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" {
                    self.0 = format!("{value:?}");
                }
            }
        }
        let metadata = event.metadata();
        if *metadata.level() <= tracing::Level::INFO && metadata.target().starts_with("assemblage") {
            let mut text = Text(String::new());
            event.record(&mut text);
            *self.0.lock().unwrap().entry(format!("{} {}", metadata.level(), text.0)).or_default() += 1;
        }
    }
}

// An outage is told of once when it begins and once when it is over: who is woken by warnings is woken once.
#[tokio::test]
async fn a_lenient_worker_that_is_cut_off_warns_once_of_each_thing_that_fails() {
    let (said, _guard) = Said::listen();
    let server = RedisServer::start();
    let cluster = builder().lock_ttl(TTL).connect_url(server.url()).await.unwrap();
    let mut worker = cluster.worker_with(WorkerOptions::default().fence(Fence::Lenient)).await.unwrap();
    server.pause();
    tokio::time::sleep(10 * TTL).await;
    server.resume();
    until("it is over", || async { said.times("INFO heartbeats are answered again") > 0 }).await;
    said.assert_warned_once(&["a heartbeat was not answered; more are sent"]);
    let Event::Error(error) = next(&mut worker).await else { panic!("it is told of the outage") };
    let text = error.to_string();
    assert!(text.ends_with("the worker tries again by itself") && !text.contains("ry again"), "{text}");
}

/// A server is away and comes back; what fails meanwhile is warned of once, and so the subscription.
async fn is_told_once(said: &Said, server: &mut RedisServer, failing: &str, over: &str) {
    be_away(server).await;
    let over = [over, "subscribed again; what may have been missed is asked for"];
    until("it is over", || async { over.iter().all(|line| said.times(&format!("INFO {line}")) > 0) }).await;
    said.assert_warned_once(&[failing, "the subscription is down; it is being brought back"]);
}

// The same, of a master.
#[tokio::test]
async fn a_master_that_is_cut_off_warns_once_of_each_thing_that_fails() {
    let (said, _guard) = Said::listen();
    let mut server = RedisServer::start();
    let cluster = builder().lock_ttl(TTL).command_timeout(TTL).connect_url(server.url()).await.unwrap();
    let _master = cluster.master().await.unwrap();
    let failing = "the cluster could not be looked at; tried again";
    is_told_once(&said, &mut server, failing, "the cluster can be looked at again").await;
}

// The same, of a watcher.
#[tokio::test]
async fn a_watcher_that_is_cut_off_warns_once_of_each_thing_that_fails() {
    let (said, _guard) = Said::listen();
    let mut server = RedisServer::start();
    let cluster = builder().lock_ttl(TTL).command_timeout(TTL).connect_url(server.url()).await.unwrap();
    let _watch = cluster.watch().await.unwrap();
    let failing = "a watcher's heartbeat was not answered; more are sent";
    is_told_once(&said, &mut server, failing, "a watcher's heartbeats are answered again").await;
}
