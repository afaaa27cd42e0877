//! PROTOCOL.md gives the rights that a user needs: with them alone everything works, and none of them is for nothing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;

use super::bench::{BEATEN, JOINED, RESERVED, TRUST, entry, id, kind, lock};
use crate::id::{Revision, WorkerId};
use crate::message::Order;
use crate::redis::connect::Connection;
use crate::redis::server::preflight;
use crate::redis::store::Store;
use crate::redis::subscriber::{Listener, Subscriber};
use crate::test_server::RedisServer;
use crate::wire::keys::Keys;
use crate::{Cluster, ErrorKind, Event};

const TIMEOUT: Duration = Duration::from_secs(10);

fn store(connection: &Connection, cluster: &str) -> Store {
    Store::new(connection.commands.clone(), Arc::new(Keys::new("assemblage", cluster)), TIMEOUT)
}

/// The whole life of two workers and some jobs, every script at least once on every road that it has.
async fn everything(store: &Store) -> crate::error::Result<()> {
    let incarnation = store.open("run-1").await?.incarnation;
    let begin = store.watch(TIMEOUT, 100).await?;
    let mut members = Vec::new();
    for name in ["one", "two", "one"] {
        let member = store.reserve(&incarnation, RESERVED, Vec::new(), 9).await?.expect("a number");
        let mut entry = entry(JOINED);
        (entry.name, entry.usurp) = (Some((name.into(), JOINED)), true);
        store.join(&member, &entry).await?.expect("it joins");
        store.beat(&member, &lock(BEATEN, false)).await?.expect("it beats");
        members.push(member);
    }
    let jobs = ["a", "b", "c", "d"].map(|job| (id(job), Bytes::from_static(b"x")));
    let grants = store.add(&jobs, 9).await?;
    store.update(&jobs[..1]).await?;
    store.order(members[1].worker, Order::Drain).await?;
    store.order(members[1].worker, Order::Resume).await?;
    store.beat(&members[1], &lock(BEATEN, false)).await?.expect("it beats");
    store.rebalance(1.0, 0.0, Duration::ZERO).await?;
    for member in &members {
        store.sync(member, Revision(0), None).await?.expect("its jobs");
        let held: Vec<_> =
            jobs.iter().zip(&grants).map(|((job, _), (_, grant))| (job.clone(), *grant)).collect();
        store.release(member.worker, &held).await?;
    }
    store.delete(&[(id("a"), None), (id("b"), Some(grants[1].1))]).await?;
    store.find(&id("c")).await?;
    store.list("0").await?;
    store.roster("0").await?;
    store.survey().await?;
    store.place().await?;
    store.requeue(&[id("c")]).await?;
    store.leave(&members[0]).await?;
    // One that dies, with a job that is blamed for it.
    // (By a join: a heartbeat waits for its answer no longer than a third of the time to live.)
    let brief = Duration::from_millis(30);
    store.join(&members[1], &entry(brief)).await?.expect("it is a member");
    let suspicion = crate::redis::store::Suspicion { crashes: 1, ..TRUST };
    while !matches!(
        store.reap(members[1].worker, TIMEOUT, suspicion).await?.0,
        crate::redis::store::Reap::Kept { .. }
    ) {}
    store.requeue(&[id("c")]).await?;
    assert!(store.history(begin).await?.reaches);
    Ok(())
}

/// The line of PROTOCOL.md, for the cluster `other`.
fn documented() -> Vec<String> {
    let protocol = include_str!("../../../PROTOCOL.md");
    let line =
        protocol.split("ACL SETUSER").nth(1).and_then(|rest| rest.split("```").next()).expect("an ACL");
    let line = line.replace("{p}", "{assemblage:other}").replace("PASSWORD", "secret");
    let words = line.split_whitespace().filter(|word| *word != "\\").map(str::to_owned);
    ["ACL".to_owned(), "SETUSER".to_owned()].into_iter().chain(words).collect()
}

fn set_user(server: &RedisServer, words: &[String]) -> String {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    assert_eq!(server.command(&words).text_or_error(), "OK", "{words:?}");
    server.url().replace("redis://", &format!("redis://{}:secret@", words[2]))
}

/// What was denied since the log was last reset.
fn denied(server: &RedisServer) -> Vec<String> {
    server.command(&["ACL", "LOG"]).list().iter().map(|entry| entry.list()[7].text()).collect()
}

#[tokio::test]
async fn the_acl_of_protocol_md_is_enough_for_everything_and_not_for_more() {
    let server = RedisServer::start();
    let words = documented();
    let url = set_user(&server, &words);
    let connection = Connection::connect_url(&url, None, None, TIMEOUT).await.expect("it connects");
    everything(&store(&connection, "other")).await.unwrap();
    let keys = Arc::new(Keys::new("assemblage", "other"));
    let far_behind =
        Subscriber::start(&connection, keys, Listener::Worker(WorkerId(1)), TIMEOUT).await.unwrap();
    far_behind.attach().await.unwrap();
    far_behind.listen(false).await.unwrap();

    // And a whole life through the public interface, subscriptions and the preflight with it.
    server.command(&["FLUSHALL"]);
    let cluster = Cluster::builder("other").connect_url(url).await.unwrap();
    let (master, mut worker) = (cluster.master().await.unwrap(), cluster.worker().await.unwrap());
    let mirror = cluster.mirror().await.unwrap();
    master.add(&"payload").await.unwrap();
    let Some(Event::Add(job)) = worker.next().await else { panic!("its job") };
    mirror.reaches(Revision(job.epoch().get())).await;
    assert_eq!(mirror.owner_of(job.id()), Some(worker.id()));
    drop(job);
    let done = worker.terminate();
    while worker.next().await.is_some() {}
    done.await;

    // Nothing was denied but what it says is optional, and nothing is granted that was not used.
    assert_eq!(denied(&server), ["config|get"]);
    let used = server.command(&["INFO", "commandstats"]).text();
    let granted = words.iter().filter_map(|word| word.strip_prefix('+'));
    let granted = granted.filter(|command| *command != "select"); // for another database
    let idle: Vec<_> = granted.filter(|command| !used.contains(&format!("cmdstat_{command}:"))).collect();
    assert_eq!(idle, [""; 0]);

    let another = store(&connection, "bench").survey().await;
    assert_eq!(kind(another), Some(ErrorKind::Denied), "another cluster's keys");
}

/// Connects, looks at the server, subscribes, does everything. Whatever fails ends it.
async fn live(url: &str) -> crate::error::Result<()> {
    let connection = Connection::connect_url(url, None, None, TIMEOUT).await?;
    let keys = Arc::new(Keys::new("assemblage", "other"));
    preflight(&connection, &keys, true, TIMEOUT).await?;
    let subscriber = Subscriber::start(&connection, keys, Listener::Master, TIMEOUT).await?;
    subscriber.attach().await?;
    subscriber.listen(false).await?;
    everything(&store(&connection, "other")).await
}

/// Each right is asked for, and without it something fails or is told as an error, or (keyspace events) is done without.
#[tokio::test]
async fn without_any_one_right_of_protocol_md_something_is_denied() {
    let server = RedisServer::start();
    let words = documented();
    let mut idle = Vec::new();
    for (at, taken) in words.iter().enumerate().filter(|(_, word)| word.starts_with(['+', '~', '&'])) {
        for command in [&["FLUSHALL"][..], &["SCRIPT", "FLUSH"], &["ACL", "LOG", "RESET"]] {
            server.command(command);
        }
        let mut less = words.clone();
        less.remove(at);
        let mut url = set_user(&server, &less);
        if taken == "+select" {
            url.push_str("/1");
        }
        match live(&url).await {
            Err(error) => assert_eq!(error.kind(), ErrorKind::Denied, "{taken}: {error:?}"),
            Ok(()) if denied(&server).iter().any(|command| command != "config|get") => {}
            Ok(()) => idle.push(taken.clone()),
        }
    }
    assert_eq!(idle, [""; 0]);
}
