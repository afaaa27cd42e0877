//! Promise "notifications are hints", and the stream's contract, while the server and the connections fail.

use std::collections::HashSet;
use std::time::Duration;

use assemblage::{CloseReason, ErrorKind, JobId};

use crate::support::proxy::Proxy;
use crate::support::{Ledger, RedisServer, add_jobs, builder, cluster, until};

/// A TTL that outlives a restart of the server.
const LONG: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_restarts_with_its_data_costs_an_update_and_moves_nothing() {
    let mut server = RedisServer::durable();
    let cluster = builder().lock_ttl(LONG).connect_url(server.url()).await.unwrap();
    let master = cluster.master().await.unwrap();
    let ledger = Ledger::default();
    let _first = ledger.consume(cluster.worker().await.unwrap());
    let _second = ledger.consume(cluster.worker().await.unwrap());
    let ids = add_jobs(&master, 50).await;
    until("all are held", || async { ledger.held().len() == 50 }).await;
    server.restart(true);
    until("notifications are on again", || async {
        let flags = server.command(&["CONFIG", "GET", "notify-keyspace-events"]);
        flags.list()[1].text().contains('K')
    })
    .await;
    // Another run of the server: older epochs may have been overtaken by what it lost, so each is renewed.
    until("each has its new epoch", || async { ledger.updates() == 50 }).await;
    assert!(ids.iter().all(|id| ledger.moves(id) == 1), "no job moved");
    until("the master works again", || async { master.add(&"one more").await.is_ok() }).await;
    until("it is pushed", || async { ledger.held().len() >= 51 }).await;
    ledger.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_restarts_empty_closes_the_workers_of_the_cluster_that_is_gone() {
    let mut server = RedisServer::start();
    let cluster = builder().lock_ttl(LONG).connect_url(server.url()).await.unwrap();
    let master = cluster.master().await.unwrap();
    let ledger = Ledger::default();
    let consumer = ledger.consume(cluster.worker().await.unwrap());
    add_jobs(&master, 10).await;
    until("all are held", || async { ledger.held().len() == 10 }).await;
    server.restart(false);
    assert_eq!(consumer.closed().await, CloseReason::ClusterReset);
    assert!(ledger.held().is_empty(), "a Delete for each");
    // The same cluster and master go on with what is added anew.
    until("the master works again", || async { master.add(&"anew").await.is_ok() }).await;
    let _next = ledger.consume(cluster.worker().await.unwrap());
    until("it is held", || async { !ledger.held().is_empty() }).await;
    ledger.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_database_closes_the_workers_by_their_next_heartbeat() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let ledger = Ledger::default();
    let consumer = ledger.consume(cluster.worker().await.unwrap());
    server.command(&["FLUSHALL"]);
    assert_eq!(consumer.closed().await, CloseReason::ClusterReset);
}

// The stream stays right while its subscription is cut again and again.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_added_and_deleted_while_subscriptions_are_killed_in_a_loop() {
    let server = RedisServer::start();
    let cluster = builder().lock_ttl(Duration::from_secs(5)).connect_url(server.url()).await.unwrap();
    let master = cluster.master().await.unwrap();
    let ledger = Ledger::default();
    let mut consumers = Vec::new();
    for _ in 0..3 {
        consumers.push(ledger.consume(cluster.worker().await.unwrap()));
    }
    let mut kept: HashSet<JobId> = HashSet::new();
    let mut killed = 0;
    for _ in 0..40 {
        let ids = add_jobs(&master, 25).await;
        killed += server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).int();
        let (gone, stay) = ids.split_at(10);
        master.delete_many(gone).await.unwrap();
        kept.extend(stay.iter().cloned());
        tokio::time::sleep(Duration::from_millis(20)).await; // the pace of the cuts
    }
    assert!(killed > 10, "only {killed} subscriptions were cut");
    until("exactly what was kept is held", || async { ledger.held() == kept }).await;
    until("deleted ones are gone", || async { master.stats().await.unwrap().jobs as usize == kept.len() })
        .await;
    ledger.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn flushed_scripts_are_loaded_again() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let master = cluster.master().await.unwrap();
    let ledger = Ledger::default();
    let _worker = ledger.consume(cluster.worker().await.unwrap());
    for round in 1..=5 {
        server.command(&["SCRIPT", "FLUSH"]);
        add_jobs(&master, 10).await;
        until("they are held", || async { ledger.held().len() == 10 * round }).await;
    }
    ledger.assert_clean();
}

// A server that hangs for longer than a command's timeout: what was given up on does not happen later (rule 8).
#[tokio::test(flavor = "multi_thread")]
async fn an_add_that_timed_out_is_not_carried_out_later() {
    let server = RedisServer::start();
    let quick = Duration::from_millis(300);
    let cluster = builder().lock_ttl(LONG).command_timeout(quick).connect_url(server.url()).await.unwrap();
    let master = cluster.master().await.unwrap();
    server.pause();
    let error = master.add(&"late").await.unwrap_err();
    assert_eq!(error.kind(), assemblage::ErrorKind::Timeout, "{error}");
    tokio::time::sleep(2 * quick).await; // the pause must outlast the latest time of the add
    server.resume();
    until("the server answers", || async { master.stats().await.is_ok() }).await;
    // A later add on the same connection comes after whatever was left of the first.
    until("the next is taken", || async { master.add(&"next").await.is_ok() }).await;
    let payloads = master.stats().await.unwrap();
    assert_eq!(payloads.jobs, 1, "the late one is not there");
}

// The server's clock is learned from answers, and an answer may have been long on its way: the latest time of a later add
// must not be later for that.
#[tokio::test(flavor = "multi_thread")]
async fn an_add_that_timed_out_is_not_carried_out_later_although_connecting_was_slow() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port());
    let timeout = Duration::from_millis(1_200);
    let slow = Duration::from_millis(150);
    proxy.delay(slow);
    let cluster = builder().lock_ttl(LONG).command_timeout(timeout).connect_url(proxy.url()).await.unwrap();
    let master = cluster.master().await.unwrap();
    proxy.pass();
    master.add(&"first").await.unwrap(); // from here on the server has the script
    server.pause();
    let error = master.add(&"late").await.unwrap_err();
    assert_eq!(error.kind(), assemblage::ErrorKind::Timeout, "{error}");
    tokio::time::sleep(slow / 4).await; // what comes now was given up on, by less than the connection was slow
    server.resume();
    until("the next is taken", || async { master.add(&"next").await.is_ok() }).await;
    assert_eq!(master.stats().await.unwrap().jobs, 2, "the late one is not there");
}

// "It may have been done, and will not be done later": also where the connection is lost before the time is over, while
// the server, which has the call already, is slow. Found by the soak.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_was_given_up_on_is_not_carried_out_afterwards() {
    const TIMEOUT: Duration = Duration::from_secs(2);
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port());
    let cluster = builder().command_timeout(TIMEOUT).connect_url(proxy.url()).await.unwrap();
    let master = cluster.master().await.unwrap();
    let id = master.add(&"zero").await.unwrap();
    master.update(&id, &"one").await.unwrap(); // from now on the server knows the script
    // Much longer than all else that is said meanwhile, and read by the server in one piece.
    let long = "x".repeat(8_000);
    server.pause();
    let sent = proxy.carried();
    let call = tokio::spawn({
        let (master, id) = (master.clone(), id.clone());
        async move { master.update(&id, &long).await }
    });
    until("the server has it", || async { proxy.carried() > sent + 8_000 }).await;
    proxy.close_connections();
    assert_eq!(call.await.unwrap().unwrap_err().kind(), ErrorKind::Timeout);
    server.resume();
    until("the master works again", || async { master.add(&"more").await.is_ok() }).await;
    let job = master.job(&id).await.unwrap().expect("it is there");
    assert_eq!(job.payload::<String>().unwrap(), "one");
}

/// The number of the newest connection that is subscribed to anything.
fn newest_subscription(server: &RedisServer) -> Option<u64> {
    let list = server.command(&["CLIENT", "LIST", "TYPE", "pubsub"]).text();
    list.lines().filter_map(|line| line.strip_prefix("id=")?.split(' ').next()?.parse().ok()).max()
}

// Promise "notifications are hints": a heartbeat tells of what a dead subscription has lost, and the subscription is made
// anew then. Its own ping would come long after that.
#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_is_dead_without_a_word_is_found_out_by_the_first_frame_that_it_loses() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port());
    let ttl = Duration::from_secs(6);
    let quick = Duration::from_millis(300);
    let far = builder().lock_ttl(ttl).command_timeout(quick).connect_url(proxy.url()).await.unwrap();
    let ledger = Ledger::default();
    let _worker = ledger.consume(far.worker().await.unwrap());
    let master = cluster(&server).await.master().await.unwrap();
    let before = newest_subscription(&server);
    proxy.black_hole_every_other(true);
    let begin = std::time::Instant::now();
    add_jobs(&master, 1).await;
    until("it is held all the same", || async { ledger.held().len() == 1 }).await;
    until("the subscription is another one", || async { newest_subscription(&server) > before }).await;
    assert!(begin.elapsed() < ttl, "a heartbeat, a grace and a timeout later, not {:?}", begin.elapsed());
    ledger.assert_clean();
}

// As above, where nothing is sent to it: the ping finds it.
#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_is_dead_and_has_lost_nothing_is_found_out_by_its_ping() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port());
    let (ttl, quick) = (Duration::from_secs(1), Duration::from_millis(300));
    let far = builder().lock_ttl(ttl).command_timeout(quick).connect_url(proxy.url()).await.unwrap();
    let ledger = Ledger::default();
    let _worker = ledger.consume(far.worker().await.unwrap());
    let before = newest_subscription(&server);
    proxy.black_hole_every_other(true);
    until("the subscription is another one", || async { newest_subscription(&server) > before }).await;
    ledger.assert_clean();
}
