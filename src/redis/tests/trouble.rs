//! Memory that is full, scripts that were flushed, keys that others wrote to, a server that restarts.

use std::time::Duration;

use bytes::Bytes;

use super::bench::{BEATEN, Bench, JOINED, RESERVED, id, kind, reaped, until};
use crate::ErrorKind;
use crate::id::{Revision, WorkerId};
use crate::message::Order;
use crate::redis::store::{AddCode, DeleteCode, Ended, Reap};
use crate::test_server::RedisServer;

const NOTHING: [&str; 0] = [];

// Promise: honest failure. When memory is full nothing new is taken, and nothing is half done; what frees memory, and
// what keeps the cluster's word to its workers, goes on.
#[tokio::test]
async fn a_full_memory_refuses_what_is_new_and_nothing_else() {
    let mut bench = Bench::on(RedisServer::with(&["--maxmemory-policy", "noeviction"])).await;
    let members = [bench.joined().await, bench.joined().await];
    let (_, a) = bench.add("a", "one").await;
    bench.add("b", "two").await;
    let reserved = bench.reserved().await;
    bench.look();
    bench.command(&["CONFIG", "SET", "maxmemory", "1"]);
    bench.command(&["DEL", "@lock:2"]); // the worst case for a beat: it has to set the key again
    bench.look();

    let payload = Bytes::from(vec![b'x'; 10_000]);
    let error = bench.add_all(&[(id("c"), payload.clone()), (id("d"), payload)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
    assert!(error.is_retryable());
    assert_eq!(kind(bench.reserve(&bench.incarnation, RESERVED, vec![]).await), Some(ErrorKind::OutOfMemory));
    assert_eq!(kind(bench.join(&reserved, JOINED).await), Some(ErrorKind::OutOfMemory));
    assert_eq!(bench.look(), NOTHING);

    for member in &members {
        assert!(bench.beat(member, BEATEN, false).await.unwrap().is_ok());
    }
    assert_eq!(bench.look(), ["deadlines 1: 70s", "deadlines 2: 70s", "lock:1: ME 70s", "lock:2: ME 70s"]);
    assert_eq!(bench.store.sync(&members[0], Revision(0), None).await.unwrap().unwrap().rows.len(), 1);
    assert!(matches!(bench.delete("a", None).await, DeleteCode::Releasing { .. }));
    assert!(bench.release(members[0].worker, "a", a).await);
    bench.command(&["CONFIG", "SET", "maxmemory", "0"]); // for the test's own command
    bench.end_lock(members[1].worker);
    bench.command(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(bench.reap(members[1].worker).await.unwrap().0, reaped(1, 0));
    assert_eq!(bench.store.place().await.unwrap().waiting, 0);
    assert_eq!(bench.store.survey().await.unwrap().workers, 2);
    assert_eq!(bench.store.leave(&members[0]).await.unwrap(), Some((1, 0)));
    bench.look();
    bench.command(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(bench.add("c", "three").await.0, AddCode::Pending);
}

// Who comes to delete jobs, and so to free memory, must get in; and a restart of the server must be noted.
#[tokio::test]
async fn a_cluster_is_opened_although_memory_is_full() {
    let mut bench = Bench::new().await;
    bench.add("a", "one").await;
    bench.look();
    bench.command(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(bench.store.open("run-1").await.unwrap().incarnation, bench.incarnation);
    assert_eq!(bench.look(), NOTHING);
    bench.store.open("run-2").await.unwrap();
    assert_eq!(bench.look(), ["meta last_worker: 1024", "meta lifted: r2", "meta run_id: run-2", "rev: r2"]);
    assert_eq!(bench.delete("a", None).await, DeleteCode::Gone);
}

#[tokio::test]
async fn scripts_that_were_flushed_are_sent_again() {
    let (mut bench, members) = Bench::with_workers(1).await;
    bench.add("a", "one").await;
    for _ in 0..2 {
        bench.command(&["SCRIPT", "FLUSH"]);
        assert!(bench.beat(&members[0], BEATEN, false).await.unwrap().is_ok());
        bench.command(&["SCRIPT", "FLUSH"]);
        assert_eq!(bench.add("a", "two").await.0, AddCode::Existing);
        bench.command(&["SCRIPT", "FLUSH"]);
        assert_eq!(bench.store.sync(&members[0], Revision(0), None).await.unwrap().unwrap().rows.len(), 1);
        assert_eq!(bench.store.sync(&members[0], Revision(0), None).await.unwrap().unwrap().rows.len(), 1);
    }
}

// In a Redis Cluster the server checks that every key and channel that a script touches is of one slot, and its own.
#[tokio::test]
async fn scripts_run_on_a_node_of_a_cluster() {
    let server = RedisServer::with(&["--cluster-enabled", "yes"]);
    server.command(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    until("the cluster is up", || server.command(&["CLUSTER", "INFO"]).text().contains("cluster_state:ok"))
        .await;
    let mut bench = Bench::on(server).await;
    let (first, second) = (bench.joined().await, bench.joined().await);
    let (_, a) = bench.add("a", "one").await;
    bench.add("b", "two").await;
    bench.look();
    assert!(bench.beat(&first, BEATEN, false).await.unwrap().is_ok());
    assert!(matches!(bench.delete("a", None).await, DeleteCode::Releasing { .. }));
    assert!(bench.release(first.worker, "a", a).await);
    bench.end_lock(second.worker);
    assert_eq!(bench.reap(second.worker).await.unwrap().0, reaped(1, 0));
    assert_eq!(bench.look().last().unwrap(), "control <- Reaped(WorkerId(2))");
    assert_eq!(bench.store.sync(&first, Revision(0), None).await.unwrap().unwrap().rows.len(), 1);
    assert_eq!(bench.store.list("0").await.unwrap().0.len(), 1);
    assert_eq!(bench.store.roster("0").await.unwrap().0.len(), 1);
    assert_eq!(bench.store.survey().await.unwrap().jobs, 1);
    assert!(bench.store.find(&id("b")).await.unwrap().is_some());
    assert_eq!(bench.store.leave(&first).await.unwrap(), Some((1, 0)));
    bench.joined().await;
    assert_eq!(bench.store.place().await.unwrap().placed, 1);
}

// Every script against every key of another type: an error that says so, and never a panic or a hang.
#[tokio::test]
async fn a_key_of_another_type_is_an_error() {
    let keys = [
        "meta",
        "rev",
        "jobs",
        "owner",
        "assigned",
        "pending",
        "load",
        "deadlines",
        "workers",
        "inbox",
        "terms",
        "crashes",
        "quarantine",
        "lock:1",
    ];
    let kinds: [&[&str]; 3] = [&["RPUSH", "message"], &["SET", "message"], &["HSET", "message", "x"]];
    let (mut bench, members) = Bench::with_workers(1).await;
    bench.add("held", "x").await;
    let (_, grant) = bench.add("other", "x").await;
    bench.add("mad", "x").await;
    bench.command(&["HSET", "@owner", "mad", "q 0 0 5"]);
    bench.command(&["ZADD", "@quarantine", "5", "mad"]);
    bench.command(&["HSET", "@crashes", "mad", "1 1@5", "held", "1 1@5"]);
    for (key, kind_of) in keys.into_iter().flat_map(|key| kinds.map(|kind| (key, kind))) {
        for name in keys {
            bench.command(&["COPY", &format!("@{name}"), &format!("@kept:{name}"), "REPLACE"]);
        }
        bench.command(&["DEL", &format!("@{key}")]);
        let place = format!("@{key}");
        bench.command(&[&kind_of[..1], &[&place], &kind_of[1..]].concat());
        let (store, member) = (&bench.store, &members[0]);
        let found = [
            kind(store.open("run-2").await),
            kind(bench.reserve(&bench.incarnation, RESERVED, vec![]).await),
            kind(bench.join(member, JOINED).await),
            kind(bench.beat(member, BEATEN, false).await),
            kind(store.sync(member, Revision(0), None).await),
            kind(bench.add_all(&[(id("new"), Bytes::new())]).await),
            kind(store.update(&[(id("held"), Bytes::new())]).await),
            kind(store.rebalance(1.0, 0.0, Duration::ZERO).await),
            kind(store.order(member.worker, Order::Drain).await),
            kind(store.order(member.worker, Order::Resume).await),
            kind(store.delete(&[(id("held"), None)]).await),
            kind(store.release(member.worker, &[(id("other"), grant)]).await),
            kind(store.requeue(&[id("mad")]).await),
            kind(store.place().await),
            kind(store.survey().await),
            kind(store.roster("0").await),
            kind(store.list("0").await),
            kind(store.find(&id("held")).await),
            kind(bench.reap(member.worker).await),
            kind(store.leave(member).await),
        ];
        let typed = [ErrorKind::Protocol, ErrorKind::Incompatible];
        let wrong = |kind: &&ErrorKind| !typed.contains(kind);
        assert_eq!(found.iter().flatten().filter(wrong).count(), 0, "{key}: {found:?}");
        // The lock's own type is of no matter: that it is there is what counts. A hash of other fields is an empty one,
        // and a revision that is no number is made anew, from the clock.
        let noticed = found.iter().flatten().count() > 0;
        let unseen = key == "lock:1" || kind_of[0] == "HSET" || (key, kind_of[0]) == ("rev", "SET");
        assert!(noticed || unseen, "{key}: nobody noticed");
        for name in keys {
            bench.command(&["DEL", &format!("@{name}")]);
            bench.command(&["COPY", &format!("@kept:{name}"), &format!("@{name}")]);
        }
    }
    bench.beat(&members[0], BEATEN, false).await.unwrap().unwrap();
}

// A record that cannot be read says nothing of who holds the job: no second owner is made of it.
#[tokio::test]
async fn a_job_whose_record_cannot_be_read_is_left_alone() {
    let records = [
        "",
        "a",
        "a 1 2",
        "a 1 2 3 4 5",
        "a 1 2 3 x",
        "a 1 2 3 ",
        "a x 2 3",
        "message",
        "a 1 2 -3",
        "ab 1 2 3",
        "a  1 2 3",
        "\0",
    ];
    for record in records {
        let (mut bench, members) = Bench::with_workers(1).await;
        let (_, grant) = bench.add("a", "one").await;
        bench.command(&["HSET", "@owner", "a", record]);
        bench.look();
        assert_eq!(
            kind(bench.add_all(&[(id("a"), Bytes::new())]).await),
            Some(ErrorKind::Protocol),
            "{record}"
        );
        for born in [None, Some(grant), Some(Revision(0))] {
            assert_eq!(
                kind(bench.store.delete(&[(id("a"), born)]).await),
                Some(ErrorKind::Protocol),
                "{record}"
            );
        }
        assert!(!bench.release(members[0].worker, "a", grant).await);
        assert!(!bench.release(WorkerId(0), "a", Revision(0)).await);
        assert_eq!(bench.store.sync(&members[0], Revision(0), None).await.unwrap().unwrap().rows, []);
        assert_eq!(kind(bench.store.find(&id("a")).await), Some(ErrorKind::Protocol), "{record}");
        assert_eq!(kind(bench.store.list("0").await), Some(ErrorKind::Protocol), "{record}");
        assert_eq!(bench.look(), NOTHING, "{record}");
        bench.command(&["ZADD", "@pending", "1", "a"]);
        assert_eq!(bench.store.place().await.unwrap().placed, 0);
        assert_eq!(bench.store.requeue(&[id("a")]).await.unwrap(), [false]);
        assert_eq!(kind(bench.store.update(&[(id("a"), "x".into())]).await), Some(ErrorKind::Protocol));
        assert_eq!(bench.look(), NOTHING, "{record}");
        // It keeps nobody from what is in order.
        assert_eq!(bench.add("b", "two").await.0, AddCode::Assigned);
        bench.end_lock(members[0].worker);
        assert_eq!(bench.reap(members[0].worker).await.unwrap().0, reaped(2, 0));
        assert_eq!(bench.command(&["HGET", "@owner", "a"]).text(), record);
    }
}

// Numbers that are too large, negative or none: an error, or the next best number; never a panic.
#[tokio::test]
async fn numbers_that_are_none_do_no_harm() {
    let hostile = ["", "x", "-1", "1e308", "99999999999999999999999999", "nan", "inf", "0x10", "message"];
    for number in hostile {
        let (mut bench, members) = Bench::with_workers(1).await;
        bench.add("a", "one").await;
        for (key, field) in
            [("meta", "lifted"), ("meta", "protocol"), ("meta", "last_worker"), ("inbox", "1")]
        {
            bench.command(&["HSET", &format!("@{key}"), field, number]);
        }
        bench.command(&["HSET", "@workers", number, "nothing"]);
        bench.command(&["ZADD", "@deadlines", "5", number]);
        bench.command(&["ZADD", "@assigned", "67108870", number]);
        bench.command(&["SET", "@rev", number]);
        let (store, member) = (&bench.store, &members[0]);
        // What they answer is of no matter here; that they do is.
        let _ = store.open("run-1").await;
        let _ = store.open("run-2").await;
        let _ = bench.reserve(&bench.incarnation, RESERVED, vec![]).await;
        let _ = bench.join(member, JOINED).await;
        let _ = bench.beat(member, BEATEN, false).await;
        let _ = store.sync(member, Revision(0), None).await;
        let _ = bench.add_all(&[(id("b"), Bytes::new())]).await;
        let _ = store.delete(&[(id("a"), None)]).await;
        let _ = store.place().await;
        let _ = store.survey().await;
        let _ = store.roster("0").await;
        let _ = store.list("0").await;
        let _ = store.find(&id("a")).await;
        let _ = bench.reap(WorkerId(u64::MAX)).await;
        let _ = bench.reap(member.worker).await;
        let _ = store.leave(member).await;
        assert!(bench.command(&["PING"]).text() == "PONG");
    }
}

// One bad entry must not hide the good ones, nor cost a living worker its lock.
#[tokio::test]
async fn garbage_among_the_members_hides_no_other() {
    let (mut bench, members) = Bench::with_workers(1).await;
    bench.command(&["HSET", "@workers", "7", "garbage"]);
    bench.command(&["ZADD", "@deadlines", "1", "garbage"]);
    bench.command(&["HDEL", "@meta", "lifted"]);
    assert_eq!(bench.store.roster("0").await.unwrap().0.len(), 1);
    bench.beat(&members[0], BEATEN, false).await.unwrap().unwrap();
    bench.store.sync(&members[0], Revision(0), None).await.unwrap().unwrap();
    bench.join(&members[0], JOINED).await.unwrap().unwrap();
    assert_eq!(bench.store.survey().await.unwrap().due.unwrap().worker, members[0].worker);
    bench.store.open("run-1").await.unwrap();
}

// A number that is none is an error of its own kind for who needs it.
#[tokio::test]
async fn who_needs_a_number_that_is_none_is_told_so() {
    let (mut bench, members) = Bench::with_workers(1).await;
    bench.command(&["SET", "@rev", "banana"]);
    let (_, born) = bench.add("a", "x").await;
    assert!(born.0 > 1_700_000_000_000_000, "made anew from the clock: {born}");
    bench.command(&["HSET", "@inbox", "1", "banana"]);
    assert_eq!(kind(bench.beat(&members[0], BEATEN, false).await), Some(ErrorKind::Protocol));
    bench.command(&["HSET", "@meta", "lifted", "-5"]);
    assert_eq!(kind(bench.store.survey().await), Some(ErrorKind::Protocol));
    bench.command(&["HSET", "@meta", "last_worker", "banana"]);
    let error = kind(bench.reserve(&bench.incarnation, RESERVED, Vec::new()).await);
    assert!([Some(ErrorKind::Protocol), Some(ErrorKind::Server)].contains(&error), "{error:?}");
    bench.command(&["HSET", "@meta", "protocol", "banana"]);
    assert_eq!(kind(bench.store.open("run-1").await), Some(ErrorKind::Protocol));
}

// A cursor comes back from the caller: it may be anything.
#[tokio::test]
async fn a_cursor_that_is_none_is_refused() {
    let bench = Bench::new().await;
    for cursor in ["x", "1 2", "message"] {
        assert_eq!(kind(bench.store.list(cursor).await), Some(ErrorKind::Server), "{cursor}");
        assert_eq!(kind(bench.store.roster(cursor).await), Some(ErrorKind::Server), "{cursor}");
    }
}

// Promise: nothing lost. A server that keeps its data is the same cluster after a restart; one that does not is none.
#[tokio::test]
async fn a_restart_keeps_the_cluster_or_ends_it() {
    let mut bench = Bench::on(RedisServer::durable()).await;
    let member = bench.joined().await;
    let (_, born) = bench.add("a", "one").await;
    bench.server.restart(true);
    bench.reconnect().await;
    assert_eq!(bench.store.open("run-2").await.unwrap().incarnation, bench.incarnation);
    assert_eq!(bench.add("a", "two").await, (AddCode::Existing, born));
    assert!(bench.beat(&member, BEATEN, false).await.unwrap().is_ok());
    bench.server.restart(false);
    bench.reconnect().await;
    assert_eq!(bench.beat(&member, BEATEN, false).await.unwrap().unwrap_err(), Ended::Reset);
}

// The sum of it: whatever order calls come in, the index, the loads and the records say the same.
#[tokio::test]
async fn any_order_of_calls_keeps_the_keyspace_in_one_piece() {
    let seed = std::env::var("ASSEMBLAGE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1_u64);
    println!("ASSEMBLAGE_SEED={seed}");
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut below = move |bound: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % bound
    };
    let (mut bench, mut members) = Bench::with_workers(2).await;
    for step in 0..1_500 {
        let job = format!("j{}", below(9));
        let member = members[below(members.len() as u64) as usize].clone();
        match below(14) {
            0..4 => drop(bench.add(&job, "x").await),
            4..7 => drop(bench.delete(&job, None).await),
            7..10 => {
                if let Some(found) = bench.store.find(&id(&job)).await.unwrap() {
                    bench.release(WorkerId(1 + below(6)), &job, found.record.grant).await;
                    bench.release(member.worker, &job, found.record.grant).await;
                }
            }
            10 => {
                let _ = bench.beat(&member, BEATEN, below(4) == 0).await.unwrap();
            }
            11 => drop(bench.store.place().await.unwrap()),
            12 if below(3) == 0 => {
                bench.end_lock(member.worker);
                // In batches of one, and not always to the end.
                for _ in 0..below(4) {
                    bench.reap_batch(member.worker, 1, 0).await;
                }
                if below(2) == 0 {
                    while matches!(bench.reap(member.worker).await.unwrap().0, Reap::Reaped { left: 1.., .. })
                    {
                    }
                }
            }
            13 if below(8) == 0 => drop(bench.store.leave(&member).await.unwrap()),
            _ if members.len() < 12 => members.push(bench.joined().await),
            _ => {
                let at = below(members.len() as u64) as usize;
                let member = members.remove(at);
                bench.end_lock(member.worker);
                bench.reap(member.worker).await.unwrap();
            }
        }
        if let Err(fault) = whole(&mut bench) {
            panic!("ASSEMBLAGE_SEED={seed}, step {step}: {fault}");
        }
    }
}

/// What must be true of the keyspace after any call.
fn whole(bench: &mut Bench) -> Result<(), String> {
    let mut pairs = |words: &[&str]| -> Vec<(String, String)> {
        let reply = bench.command(words);
        reply.list().chunks(2).map(|pair| (pair[0].text(), pair[1].text())).collect()
    };
    let owner = pairs(&["HGETALL", "@owner"]);
    let jobs = pairs(&["HGETALL", "@jobs"]);
    let assigned = pairs(&["ZRANGE", "@assigned", "0", "-1", "WITHSCORES"]);
    let pending = pairs(&["ZRANGE", "@pending", "0", "-1", "WITHSCORES"]);
    let load = pairs(&["ZRANGE", "@load", "0", "-1", "WITHSCORES"]);
    let workers = pairs(&["HGETALL", "@workers"]);
    let inbox = pairs(&["HGETALL", "@inbox"]);
    let deadlines = pairs(&["ZRANGE", "@deadlines", "0", "-1", "WITHSCORES"]);
    let rev: u64 = bench.command(&["GET", "@rev"]).text().parse().map_err(|_| "no revision")?;

    let (mut held, mut waits, mut with_payload) = (Vec::new(), Vec::new(), Vec::new());
    for (job, record) in &owner {
        let fields: Vec<&str> = record.split(' ').collect();
        let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
        let (Some(worker), Some(grant), Some(born)) = (number(1), number(2), number(3)) else {
            return Err(format!("{job}: {record}"));
        };
        if grant.max(born) > rev {
            return Err(format!("{job}: {record} is after {rev}"));
        }
        match fields[0] {
            "p" => waits.push((job.clone(), born.to_string())),
            _ => held.push((
                job.clone(),
                (worker * crate::message::SPAN + grant % crate::message::SPAN).to_string(),
            )),
        }
        if born > 0 {
            with_payload.push(job.clone());
        }
    }
    let sorted = |mut list: Vec<(String, String)>| {
        list.sort();
        list
    };
    let same = |what: &str, one: Vec<(String, String)>, two: Vec<(String, String)>| {
        let (one, two) = (sorted(one), sorted(two));
        if one == two { Ok(()) } else { Err(format!("{what}: {one:?} and {two:?}")) }
    };
    same("assigned and the records", assigned.clone(), held)?;
    same("pending and the records", pending, waits)?;
    let names =
        |list: &[(String, String)]| list.iter().map(|(name, _)| (name.clone(), String::new())).collect();
    same(
        "payloads and the records",
        names(&jobs),
        with_payload.into_iter().map(|job| (job, String::new())).collect(),
    )?;
    for (worker, count) in &load {
        let mine = assigned.iter().filter(|(_, score)| {
            score.parse::<u64>().is_ok_and(|score| (score / crate::message::SPAN).to_string() == *worker)
        });
        if mine.count().to_string() != *count {
            return Err(format!("the load of {worker} is {count}: {assigned:?}"));
        }
        if !workers.iter().any(|(other, _)| other == worker) {
            return Err(format!("{worker} is dead and has room"));
        }
    }
    for (worker, revision) in &inbox {
        if !deadlines.iter().any(|(other, _)| other == worker) {
            return Err(format!("{worker} is gone and has an inbox"));
        }
        if revision.parse::<u64>().is_ok_and(|revision| revision > rev) {
            return Err(format!("the inbox of {worker} is at {revision}, after {rev}"));
        }
    }
    for (worker, _) in &workers {
        if !deadlines.iter().any(|(other, _)| other == worker) {
            return Err(format!("{worker} is a member and cannot be reaped"));
        }
    }
    Ok(())
}
