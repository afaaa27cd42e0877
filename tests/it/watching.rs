//! The watch stream and the mirror: every change once, in order, whatever is lost underneath.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use assemblage::{
    AddOptions, Change, ChangeKind, Cluster, JobId, Master, Mirror, Revision, Watch, WatchOptions, WorkerId,
    WorkerOptions,
};
use futures::{FutureExt, StreamExt};

use crate::support::{Ledger, PATIENCE, Process, RedisServer, TTL, add_jobs, builder, cluster, until};

/// The next change, which must come.
async fn change(watch: &mut Watch) -> Change {
    tokio::time::timeout(PATIENCE, watch.next()).await.expect("a change comes").expect("it goes on")
}

/// Reads to the end of what there is; returns it and as of when it is.
async fn picture(watch: &mut Watch) -> (Vec<Change>, Revision) {
    assert_eq!(change(watch).await, Change::Reset);
    let mut changes = Vec::new();
    loop {
        match change(watch).await {
            Change::Synced { revision } => return (changes, revision),
            change => changes.push(change),
        }
    }
}

/// Reads until a change of this kind, with it.
async fn up_to(watch: &mut Watch, kind: ChangeKind) -> Vec<Change> {
    let mut changes = Vec::new();
    loop {
        changes.push(change(watch).await);
        if changes.last().map(Change::kind) == Some(kind) {
            return changes;
        }
    }
}

fn kinds(changes: &[Change]) -> Vec<ChangeKind> {
    changes.iter().map(Change::kind).collect()
}

fn assert_in_order(changes: &[Change]) {
    let revisions: Vec<_> = changes.iter().filter_map(Change::revision).collect();
    assert!(revisions.windows(2).all(|pair| pair[0] < pair[1]), "in order, each once: {revisions:?}");
}

async fn add(master: &Master, id: &str) -> JobId {
    let id = JobId::new(id).unwrap();
    let added = master.add_with(&"payload", AddOptions::default().id(id.clone())).await.unwrap();
    assert!(added.is_new());
    id
}

/// What the master says of each job, and of each worker; must be the mirror's picture.
async fn agrees(master: &Master, mirror: &Mirror) -> bool {
    let jobs: HashMap<_, _> =
        master.jobs().map(|job| job.unwrap()).map(|job| (job.id, job.state)).collect().await;
    let workers: BTreeMap<_, _> =
        master.workers().await.unwrap().into_iter().map(|worker| (worker.id, worker.accepts_jobs)).collect();
    mirror.read(|snapshot| {
        snapshot.jobs().map(|(id, state)| (id.clone(), state)).collect::<HashMap<_, _>>() == jobs
            && snapshot.workers().collect::<BTreeMap<_, _>>() == workers
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_tells_of_everything_that_happens_to_a_job_and_to_workers() {
    use ChangeKind::*;
    let server = RedisServer::start();
    let cluster = builder().rebalance(None).connect_url(server.url()).await.unwrap();
    let master = cluster.master().await.unwrap();
    let mut watch = cluster.watch().await.unwrap();
    assert_eq!(picture(&mut watch).await.0, [], "there is nothing");

    let job = add(&master, "job").await;
    let ledger = Ledger::default();
    let first = ledger.consume(cluster.worker().await.unwrap());
    let mut all = up_to(&mut watch, JobAssigned).await;
    master.update(&job, &"other").await.unwrap();
    let second = ledger.consume(cluster.worker().await.unwrap());
    all.extend(up_to(&mut watch, WorkerJoined).await);
    first.handle.drain().await;
    all.extend(up_to(&mut watch, JobAssigned).await);
    first.handle.resume();
    all.extend(up_to(&mut watch, WorkerResumed).await);
    first.handle.terminate().await;
    all.extend(up_to(&mut watch, WorkerLeft).await);
    master.delete_and_wait(&job).await.unwrap();
    all.extend(up_to(&mut watch, JobReleased).await);
    assert_eq!(
        kinds(&all),
        [
            JobAdded,
            WorkerJoined,
            JobAssigned,
            JobUpdated,
            WorkerJoined,
            WorkerDraining,
            JobReleased,
            JobAssigned,
            WorkerResumed,
            WorkerDraining,
            WorkerLeft,
            JobDeleted,
            JobReleased,
        ]
    );
    assert_in_order(&all);
    let Change::JobAssigned { worker, epoch, .. } = &all[7] else { panic!("assigned") };
    assert_eq!(*worker, second.id());
    assert!(epoch.get() > 0 && all.iter().all(|change| change.job().is_none_or(|id| *id == job)));

    // And a watcher that comes later is told what there is.
    let job = add(&master, "another").await;
    let (there, revision) = picture(&mut cluster.watch().await.unwrap()).await;
    assert_eq!(kinds(&there), [WorkerJoined, JobAdded, JobAssigned]);
    assert!(there[1].job() == Some(&job) && there.iter().all(|change| change.revision() <= Some(revision)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_tells_of_deaths_and_quarantine() {
    use ChangeKind::*;
    let server = RedisServer::start();
    let cluster = builder().max_crashes(1).connect_url(server.url()).await.unwrap();
    let master = cluster.master().await.unwrap();
    let options = WatchOptions::default().kinds([WorkerExpired, JobQuarantined, JobRequeued]);
    let mut watch = cluster.watch_with(options).await.unwrap();
    picture(&mut watch).await;
    let _worker = Process::worker(&server, TTL);
    let poison = master.add(&"abort").await.unwrap();
    let first = [change(&mut watch).await, change(&mut watch).await];
    assert_eq!(kinds(&first), [WorkerExpired, JobQuarantined]);
    assert_eq!(first[1].job(), Some(&poison));
    master.requeue(&poison).await.unwrap();
    assert_eq!(change(&mut watch).await.kind(), JobRequeued);
}

// Promise: notifications are hints. The journal has what a lost connection missed.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_out_or_told_twice_however_often_the_subscription_is_killed() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let master = cluster.master().await.unwrap();
    let mut watch = cluster.watch().await.unwrap();
    picture(&mut watch).await;
    let mut wanted = Vec::new();
    for round in 0..20 {
        server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        for number in 0..10 {
            wanted.push(add(&master, &format!("{round}/{number}")).await);
        }
    }
    let mut seen = Vec::new();
    while seen.len() < 200 {
        seen.push(change(&mut watch).await);
    }
    assert!(seen.iter().all(|change| change.kind() == ChangeKind::JobAdded), "and no reset");
    assert_in_order(&seen);
    assert_eq!(seen.iter().filter_map(|change| change.job().cloned()).collect::<Vec<_>>(), wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_journal_is_kept_a_gap_costs_a_reset_and_the_mirror_is_right_after_it() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let master = cluster.master().await.unwrap();
    let mut watch = cluster.watch_with(WatchOptions::default().journal(0)).await.unwrap();
    picture(&mut watch).await;
    add(&master, "seen").await;
    assert_eq!(change(&mut watch).await.kind(), ChangeKind::JobAdded);
    server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    for number in 0..10 {
        add(&master, &number.to_string()).await;
    }
    // What comes after the subscription is back is told one way or the other.
    let mut jobs = std::collections::BTreeSet::from(["seen".to_owned()]);
    while jobs.len() < 11 {
        match change(&mut watch).await {
            Change::Reset => jobs.clear(),
            Change::JobAdded { job, .. } => assert!(jobs.insert(job.to_string()), "twice"),
            Change::Synced { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(server.command(&["EXISTS", "{assemblage:test}:changes"]).int(), 0, "nothing is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_consumer_is_told_everything_from_the_journal_and_its_buffer_stays_small() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let master = cluster.master().await.unwrap();
    let mut slow = cluster.watch_with(WatchOptions::default().buffer(100)).await.unwrap();
    let mut quick = cluster.watch().await.unwrap();
    picture(&mut slow).await;
    picture(&mut quick).await;
    let ids = add_jobs(&master, 5_000).await;
    // The quick one is not held up by the slow one, which takes nothing meanwhile.
    for id in &ids {
        assert_eq!(change(&mut quick).await.job(), Some(id));
    }
    let mut seen = Vec::new();
    for id in &ids {
        seen.push(change(&mut slow).await);
        assert_eq!(seen.last().unwrap().job(), Some(id), "and no reset");
    }
    assert_in_order(&seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_consumer_gets_a_reset_where_the_journal_is_too_short_for_it() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let master = cluster.master().await.unwrap();
    let mut slow = cluster.watch_with(WatchOptions::default().buffer(10).journal(5)).await.unwrap();
    picture(&mut slow).await;
    for number in 0..500 {
        add(&master, &number.to_string()).await;
    }
    let mut jobs = std::collections::BTreeSet::new();
    let mut resets = 0;
    while jobs.len() < 500 {
        match change(&mut slow).await {
            Change::Reset => {
                resets += 1;
                jobs.clear();
            }
            Change::JobAdded { job, .. } => drop(jobs.insert(job.to_string())),
            _ => {}
        }
    }
    assert!(resets > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_from_a_revision() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let master = cluster.master().await.unwrap();
    let mut watch = cluster.watch().await.unwrap();
    let (_, synced) = picture(&mut watch).await;
    let ids = add_jobs(&master, 300).await;
    let mut seen = Vec::new();
    for _ in 0..150 {
        seen.push(change(&mut watch).await); // in the middle of a batch
    }
    let at = seen.last().and_then(Change::revision).unwrap();
    drop(watch);
    add(&master, "while nobody listens").await;
    let mut again = cluster.watch_with(WatchOptions::default().since(at)).await.unwrap();
    for _ in 0..151 {
        seen.push(change(&mut again).await);
    }
    assert_in_order(&seen);
    assert_eq!(
        seen.iter().filter_map(Change::job).take(300).collect::<Vec<_>>(),
        ids.iter().collect::<Vec<_>>()
    );
    // From further back than there is anything: a reset.
    let before = cluster.watch_with(WatchOptions::default().since(synced)).await.unwrap().next().await;
    assert_eq!(before.map(|change| change.kind()), Some(ChangeKind::JobAdded));
    server.command(&["DEL", "{assemblage:test}:changes"]);
    let gone = cluster.watch_with(WatchOptions::default().since(synced)).await.unwrap().next().await;
    assert_eq!(gone, Some(Change::Reset));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_by_kind_and_by_prefix_leaves_the_rest_out() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let master = cluster.master().await.unwrap();
    add(&master, "eu/before").await;
    add(&master, "us/before").await;
    let options = WatchOptions::default().job_prefix("eu/").kinds([ChangeKind::JobAdded]);
    let mut watch = cluster.watch_with(options).await.unwrap();
    let (there, _) = picture(&mut watch).await;
    assert_eq!(there.iter().filter_map(Change::job).map(JobId::as_str).collect::<Vec<_>>(), ["eu/before"]);
    for id in ["us/1", "eu/1", "us/2", "eu/2"] {
        let id = add(&master, id).await;
        master.delete(&id).await.unwrap();
    }
    for wanted in ["eu/1", "eu/2"] {
        let told = change(&mut watch).await;
        assert_eq!((told.kind(), told.job().map(JobId::as_str)), (ChangeKind::JobAdded, Some(wanted)));
    }
    assert!(watch.next().now_or_never().is_none());
    let refused = cluster.watch_with(WatchOptions::default().buffer(0)).await.unwrap_err();
    assert_eq!(refused.kind(), assemblage::ErrorKind::InvalidSetting);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_watcher_nothing_is_published_or_kept() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let master = cluster.master().await.unwrap();
    let mut ear = server.connect();
    ear.command(&["SSUBSCRIBE", "{assemblage:test}:changes"]);
    let ledger = Ledger::default();
    let _worker = ledger.consume(cluster.worker().await.unwrap());
    let ids = add_jobs(&master, 50).await;
    until("all are held", || async { ledger.held().len() == 50 }).await;
    master.delete_many(&ids).await.unwrap();
    until("all are gone", || async { master.stats().await.unwrap().jobs == 0 }).await;
    assert_eq!(server.command(&["EXISTS", "{assemblage:test}:changes", "{assemblage:test}:watch"]).int(), 0);
    ear.send(&[b"PING"]);
    assert_eq!(ear.read().list()[0].text(), "pong", "nothing was published before it");
}

/// Adds, deletes, updates, joins, deaths and drains, for a while.
async fn churn(cluster: &Cluster, master: &Master, rounds: usize, mut trouble: impl FnMut(usize)) {
    let ledger = Ledger::default();
    let mut workers = Vec::new();
    for round in 0..rounds {
        trouble(round);
        let options = WorkerOptions::default().capacity(200);
        if let Ok(worker) = cluster.worker_with(options).await {
            workers.push(ledger.consume(worker));
        }
        let payloads: Vec<String> = (0..40).map(|number| format!("{round}/{number}")).collect();
        let Ok(ids) = master.add_many(&payloads).await else { continue };
        let _ = master.delete_many(&ids[..15]).await;
        for id in &ids[10..20] {
            let _ = master.update(id, &"newer").await;
            let _ = master.add_with(&"again", AddOptions::default().id(id.clone())).await;
        }
        match round % 3 {
            0 if !workers.is_empty() => drop(workers[0].handle.drain()),
            1 if workers.len() > 1 => drop(workers.remove(0).handle.terminate()),
            _ => {}
        }
    }
    if let Some(first) = workers.first() {
        first.handle.resume();
    }
    // They live on as tasks; the ledger has them.
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_is_right_after_a_churn_with_killed_subscriptions() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let master = cluster.master().await.unwrap();
    let mirror = cluster.mirror().await.unwrap();
    churn(&cluster, &master, 12, |_| {
        server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    })
    .await;
    until("the mirror agrees", || agrees(&master, &mirror)).await;
    let stats = master.stats().await.unwrap();
    assert!(stats.jobs > 100, "{stats:?}");
    // It answers from memory.
    let (id, owner): (JobId, WorkerId) = mirror.read(|snapshot| {
        let (id, _) = snapshot.jobs().find(|(id, _)| snapshot.owner_of(id).is_some()).expect("one is held");
        (id.clone(), snapshot.owner_of(id).unwrap())
    });
    assert_eq!(mirror.owner_of(&id), Some(owner));
    // And it says when it has heard of something.
    let added = master.add(&"late").await.unwrap();
    let revision = master.stats().await.unwrap().revision;
    tokio::time::timeout(PATIENCE, mirror.reaches(revision)).await.expect("it gets there");
    assert!(mirror.job(&added).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_is_right_after_the_server_was_restarted_with_and_without_its_data() {
    let mut server = RedisServer::durable();
    let cluster = builder().lock_ttl(Duration::from_secs(15)).connect_url(server.url()).await.unwrap();
    let master = cluster.master().await.unwrap();
    let mirror = cluster.mirror().await.unwrap();
    for keep in [true, false, true] {
        churn(&cluster, &master, 4, |_| {}).await;
        until("the mirror agrees", || agrees(&master, &mirror)).await;
        server.restart(keep);
        until("the server is there", || async { master.stats().await.is_ok() }).await;
        until("the mirror agrees again", || agrees(&master, &mirror)).await;
    }
}
