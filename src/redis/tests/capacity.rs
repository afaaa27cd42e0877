//! Terms: weight, capacity, the rate of a takeover; and the limits of a cluster.

use std::time::Duration;

use bytes::Bytes;

use super::bench::{Bench, JOINED, RESERVED, TERMS, entry, id, kind, lock, reaped};
use crate::ErrorKind;
use crate::id::WorkerId;
use crate::message::{Order, Terms};
use crate::redis::store::{AddCode, BATCH_MOVES, Ended, Entry, Lock, Refusal};

const NOTHING: [&str; 0] = [];

fn capacity(jobs: u32) -> Terms {
    Terms { capacity: Some(jobs), ..TERMS }
}

async fn add_many(bench: &Bench, prefix: &str, count: usize) -> Vec<AddCode> {
    let jobs: Vec<_> = (0..count).map(|at| (id(&format!("{prefix}{at:03}")), Bytes::new())).collect();
    bench.add_all(&jobs).await.unwrap().into_iter().map(|(code, _)| code).collect()
}

// A worker never holds more than it can.
#[tokio::test]
async fn a_full_worker_gets_nothing_and_counts_as_one_without_room() {
    let mut bench = Bench::new().await;
    let member = bench.joined_on(capacity(2)).await;
    bench.look();
    assert_eq!(add_many(&bench, "a", 3).await, [AddCode::Assigned, AddCode::Assigned, AddCode::Pending]);
    let told = bench.look();
    assert!(told.contains(&"load 1: full 2".into()), "{told:?}");
    let placed = bench.store.place().await.unwrap();
    assert_eq!((placed.placed, placed.waiting), (0, 0), "nobody has room, so nothing waits for a call");
    assert_eq!(bench.store.survey().await.unwrap().waiting, 0);
    assert_eq!(bench.beat_on(&member, capacity(2)).await.waiting, 0);
    assert_eq!(bench.look(), NOTHING);
}

// Promise: room is never left beside a waiting job. Whatever makes room gives it to the oldest that waits, at once.
#[tokio::test]
async fn room_goes_to_the_job_that_has_waited_longest() {
    let mut bench = Bench::new().await;
    let one = bench.joined_on(capacity(1)).await;
    bench.joined_on(capacity(2)).await;
    bench.add("a", "").await;
    for job in ["b", "c", "w1", "w2", "w3", "w4"] {
        bench.add(job, "").await;
    }
    // By a release of a deleted job.
    bench.delete("a", None).await;
    bench.look();
    bench.release_now("a").await;
    assert_eq!(
        bench.look(),
        [
            "assigned a: -",
            "assigned w1: 1/r11",
            "inbox 1: r11",
            "owner a: -",
            "owner w1: a 1 r11 r6",
            "pending w1: -",
            "rev: r11",
            "released <- a r3",
            "inbox:1 <- r11 after r10: add w1 r6 \"\"",
        ]
    );
    // By a capacity that grows: the beat says that something waits, and its worker has it placed.
    assert_eq!(bench.beat_on(&one, capacity(2)).await.waiting, 3);
    let placed = bench.store.place().await.unwrap();
    assert_eq!((placed.placed, placed.waiting, bench.holder("w2")), (1, 0, "a 1".into()));
    // By one that comes.
    bench.joined_on(capacity(1)).await;
    bench.store.place().await.unwrap();
    assert_eq!((bench.holder("w3"), bench.holder("w4")), ("a 3".into(), "p 0".into()));
    // One that leaves takes its room with it: what it had waits, in its turn.
    bench.store.leave(&one).await.unwrap().unwrap();
    assert_eq!((bench.holder("w1"), bench.holder("w4")), ("p 0".into(), "p 0".into()));
    bench.delete("b", None).await;
    bench.release_now("b").await;
    assert_eq!((bench.holder("w1"), bench.holder("w4")), ("a 2".into(), "p 0".into()));
}

#[tokio::test]
async fn a_capacity_that_shrinks_takes_nothing_away_and_lets_nothing_in() {
    let mut bench = Bench::new().await;
    let member = bench.joined_on(capacity(5)).await;
    add_many(&bench, "a", 4).await;
    bench.look();
    bench.beat_on(&member, capacity(2)).await;
    assert_eq!(bench.look(), ["load 1: full 4", "terms 1: 1 2 0", "terms changed: T"]);
    assert_eq!(bench.add("b", "").await.0, AddCode::Pending);
    for job in ["a000", "a001"] {
        bench.delete(job, None).await;
        bench.release_now(job).await;
        assert_eq!(bench.holder("b"), "p 0", "it is full still");
    }
    bench.delete("a002", None).await;
    bench.release_now("a002").await;
    assert_eq!(bench.holder("b"), "a 1");
    bench.look();
    bench.beat_on(&member, TERMS).await;
    assert_eq!(bench.look(), ["load 1: 2", "terms 1: 1 0 0", "terms changed: T"]);
}

#[tokio::test]
async fn jobs_are_shared_by_weight() {
    let mut bench = Bench::new().await;
    for weight in [1, 3] {
        bench.joined_on(Terms { weight, ..TERMS }).await;
    }
    add_many(&bench, "a", 40).await;
    bench.look();
    let load = ["1", "2"].map(|worker| bench.command(&["ZSCORE", "@load", worker]).text());
    assert_eq!(load, ["10", "10"]);
    let held = |bench: &mut Bench, worker: u64| {
        let (low, high) = (worker << 26, (worker + 1) << 26);
        bench.command(&["ZCOUNT", "@assigned", &low.to_string(), &format!("({high}")]).int()
    };
    assert_eq!((held(&mut bench, 1), held(&mut bench, 2)), (10, 30));
    // Thirds do not add up to an error.
    for job in 0..40 {
        let job = format!("a{job:03}");
        bench.delete(&job, None).await;
        bench.release_now(&job).await;
    }
    let load = ["1", "2"].map(|worker| bench.command(&["ZSCORE", "@load", worker]).text());
    assert_eq!(load, ["0", "0"]);
}

// The largest weight that the options allow, a capacity as well: the number of jobs is found again from the load.
#[tokio::test]
async fn a_load_of_a_heavy_worker_without_room_is_exact() {
    let mut bench = Bench::new().await;
    let terms = Terms { weight: 1_000, capacity: Some(7), takeover_rate: None };
    bench.joined_on(terms).await;
    add_many(&bench, "a", 7).await;
    for job in 0..7 {
        let job = format!("a{job:03}");
        bench.delete(&job, None).await;
        bench.release_now(&job).await;
        let load: f64 = bench.command(&["ZSCORE", "@load", "1"]).text().parse().unwrap();
        assert_eq!(load, f64::from(6 - job[1..].parse::<i32>().unwrap()) / 1_000.0);
    }
}

// A takeover by the thousand does not run a worker over: it is handed jobs at its rate. A new job is not held back.
#[tokio::test]
async fn what_moves_is_handed_out_at_the_workers_rate_and_an_add_is_not_held_back() {
    let (mut bench, members) = Bench::with_workers(1).await;
    const BATCH: u64 = BATCH_MOVES as u64;
    let jobs = 2 * BATCH as i64;
    add_many(&bench, "a", 2 * BATCH_MOVES).await;
    bench.joined_on(Terms { takeover_rate: Some(50), ..TERMS }).await;
    bench.end_lock(members[0].worker);
    let reaped_at = std::time::Instant::now();
    for left in [BATCH, 0] {
        assert_eq!(bench.reap(members[0].worker).await.unwrap().0, reaped(BATCH, left));
    }
    // A tenth of a second's worth at once, and one that is under way: of all batches, not of each.
    let held = |bench: &mut Bench| bench.command(&["ZSCORE", "@load", "2"]).int();
    let at_once = held(&mut bench);
    let most = 7.0 + reaped_at.elapsed().as_secs_f64() * 50.0;
    assert!(at_once >= 6 && at_once as f64 <= most, "{at_once}, at most {most}");
    assert_eq!(bench.command(&["ZCARD", "@pending"]).int(), jobs - at_once);
    let placed = bench.store.place().await.unwrap();
    let most = 2.0 + reaped_at.elapsed().as_secs_f64() * 50.0;
    assert!(placed.placed as f64 <= most, "{placed:?}, at most {most}");
    assert!(placed.waiting > 0 && placed.pause > Duration::ZERO, "{placed:?}");
    assert!(placed.pause <= Duration::from_millis(20), "one job takes 20 ms: {placed:?}");
    assert_eq!(bench.add("new", "").await.0, AddCode::Assigned);
    // At its pace all of it is placed in the end, and never faster.
    let start = std::time::Instant::now();
    let before = held(&mut bench);
    loop {
        let placed = bench.store.place().await.unwrap();
        if placed.waiting == 0 {
            break;
        }
        tokio::time::sleep(placed.pause).await;
    }
    let per_second = (held(&mut bench) - before) as f64 / start.elapsed().as_secs_f64();
    assert_eq!(held(&mut bench), jobs + 1);
    assert!(per_second < 75.0, "{per_second} a second");
}

// Who takes more goes on meanwhile.
#[tokio::test]
async fn what_one_is_not_handed_for_its_rate_another_gets() {
    let (mut bench, members) = Bench::with_workers(1).await;
    add_many(&bench, "a", BATCH_MOVES).await;
    bench.joined_on(Terms { takeover_rate: Some(1), ..TERMS }).await;
    bench.joined().await;
    bench.end_lock(members[0].worker);
    assert_eq!(bench.reap(members[0].worker).await.unwrap().0, reaped(BATCH_MOVES as u64, 0));
    let load = ["2", "3"].map(|worker| bench.command(&["ZSCORE", "@load", worker]).int());
    assert_eq!(load, [1, BATCH_MOVES as i64 - 1]);
    let placed = bench.store.place().await.unwrap();
    assert_eq!((placed.waiting, placed.pause), (0, Duration::ZERO));
}

// A limit refuses a batch as a whole, and only what is new: what is there already exists at the limit too.
#[tokio::test]
async fn the_limit_of_jobs_refuses_a_batch_as_a_whole() {
    let (mut bench, _) = Bench::with_workers(1).await;
    for job in ["a", "b"] {
        bench.add(job, "x").await;
    }
    bench.look();
    let jobs = |names: &[&str]| names.iter().map(|job| (id(job), Bytes::new())).collect::<Vec<_>>();
    let refused = kind(bench.store.add(&jobs(&["a", "c", "d"]), 3).await);
    assert_eq!(refused, Some(ErrorKind::LimitReached));
    assert_eq!(kind(bench.store.add(&jobs(&["c"]), 2).await), Some(ErrorKind::LimitReached));
    assert_eq!(bench.look(), NOTHING);
    let codes = bench.store.add(&jobs(&["a", "b"]), 2).await.unwrap();
    assert_eq!([codes[0].0, codes[1].0], [AddCode::Existing; 2]);
    let codes = bench.store.add(&jobs(&["a", "b"]), 0).await.unwrap();
    assert_eq!(codes[0].0, AddCode::Existing);
    assert_eq!(bench.look(), NOTHING);
    let codes = bench.store.add(&jobs(&["a", "c", "b"]), 3).await.unwrap();
    assert_eq!(codes.map_codes(), [AddCode::Existing, AddCode::Assigned, AddCode::Existing]);
    // Deleted and held still, it counts; added again, it is no more than before.
    bench.delete("a", None).await;
    assert_eq!(kind(bench.store.add(&jobs(&["d"]), 3).await), Some(ErrorKind::LimitReached));
    assert_eq!(bench.store.add(&jobs(&["a"]), 3).await.unwrap()[0].0, AddCode::AfterRelease);
}

trait Codes {
    fn map_codes(self) -> Vec<AddCode>;
}

impl Codes for Vec<(AddCode, crate::id::Revision)> {
    fn map_codes(self) -> Vec<AddCode> {
        self.into_iter().map(|(code, _)| code).collect()
    }
}

// Of workers the living count: whoever comes in place of the dead must get in to reap them.
#[tokio::test]
async fn the_limit_of_workers_counts_the_living() {
    let (mut bench, members) = Bench::with_workers(1).await;
    let named = bench.joined_as("mail", JOINED, false).await;
    bench.look();
    let reserve = async |bench: &Bench, most| {
        bench.store.reserve(&bench.incarnation, RESERVED, Vec::new(), most).await.unwrap()
    };
    assert_eq!(reserve(&bench, 2).await.unwrap_err(), Refusal::Full);
    assert_eq!(bench.look(), NOTHING);
    assert!(reserve(&bench, 3).await.is_ok(), "a reservation is one of them");
    assert_eq!(reserve(&bench, 3).await.unwrap_err(), Refusal::Full);
    // Its lock has ended, and nobody is there to reap it.
    bench.end_lock(members[0].worker);
    assert!(reserve(&bench, 3).await.is_ok());
    // It is dead, and its jobs are kept.
    bench.end_lock(named.worker);
    bench.reap(named.worker).await.unwrap();
    assert_eq!(bench.command(&["ZCARD", "@deadlines"]).int(), 4);
    assert!(reserve(&bench, 3).await.is_ok());
    assert_eq!(reserve(&bench, 3).await.unwrap_err(), Refusal::Full);
}

// `Fence::Lenient`: as long as nobody took its jobs, a worker goes on after its deadline.
#[tokio::test]
async fn a_lenient_beat_revives_a_lock_until_it_is_reaped() {
    let (mut bench, members) = Bench::with_workers(1).await;
    bench.add("a", "one").await;
    bench.end_lock(members[0].worker);
    let lenient = Lock { lenient: true, ..lock(JOINED, false) };
    assert_eq!(bench.beat(&members[0], JOINED, false).await.unwrap().unwrap_err(), Ended::Expired);
    assert_eq!(bench.look(), NOTHING);
    bench.store.beat(&members[0], &lenient).await.unwrap().unwrap();
    assert_eq!(bench.look(), ["deadlines 1: 50s", "lock:1: ME 50s"]);
    assert!(matches!(
        bench.reap(members[0].worker).await.unwrap().0,
        crate::redis::store::Reap::Alive { .. }
    ));
    bench.end_lock(members[0].worker);
    bench.reap(members[0].worker).await.unwrap();
    bench.look();
    assert_eq!(bench.store.beat(&members[0], &lenient).await.unwrap().unwrap_err(), Ended::Dead);
    assert_eq!(bench.look(), NOTHING);
}

// Promise: no input, however hostile, does harm. What is in the terms may be anything; nothing is done by half.
#[tokio::test]
async fn terms_that_are_none_break_nothing_half_way() {
    let garbage = [
        "",
        "x",
        "0 0 0",
        "1 0",
        "1 -1 0",
        "1 0 0 0",
        "nan",
        "1e400 1 1",
        "9999999999999999999999 1 1",
        "\0",
    ];
    let fields = [
        "1",
        "1:order",
        "1:ttl",
        "1:moving",
        "1:handed",
        "1:blame",
        "1:ended",
        "1:name",
        "name:mail",
        "changed",
    ];
    for text in garbage {
        let mut bench = Bench::new().await;
        let rated = Terms { takeover_rate: Some(1_000), ..TERMS };
        let entry = Entry { name: Some(("mail".into(), Duration::ZERO)), terms: rated, ..entry(JOINED) };
        let member = bench.reserved().await;
        bench.store.join(&member, &entry).await.unwrap().unwrap();
        for job in ["a", "b", "c", "d"] {
            bench.add(job, "x").await;
        }
        for field in fields {
            bench.command(&["HSET", "@terms", field, text]);
        }
        bench.command(&["HSET", "@crashes", "a", text, "b", text]);
        let healthy = bench.joined_on(rated).await;
        bench.rebalance().await;
        bench.release_now("a").await;
        bench.update("b", "y").await;
        bench.delete("b", None).await;
        bench.release_now("b").await;
        bench.store.place().await.unwrap();
        bench.store.roster("0").await.unwrap();
        bench.store.survey().await.unwrap();
        bench.store.beat(&member, &lock(JOINED, false)).await.unwrap().unwrap();
        assert!(bench.order(member.worker, Order::Drain).await);
        assert!(bench.order(member.worker, Order::Resume).await);
        bench.rebalance().await;
        let heir = bench.reserved().await;
        bench.store.join(&heir, &Entry { usurp: true, ..entry }).await.unwrap().unwrap();
        for field in fields {
            bench.command(&["HSET", "@terms", field, text]);
        }
        bench.end_lock(member.worker);
        let suspicion = crate::redis::store::Suspicion { crashes: 1, ..super::bench::TRUST };
        let (reap, _) = bench.store.reap(member.worker, JOINED, suspicion).await.unwrap();
        assert!(matches!(reap, crate::redis::store::Reap::Reaped { left: 0, .. }), "{text:?}: {reap:?}");
        bench.store.requeue(&["a", "c", "d"].map(id)).await.unwrap();
        bench.store.leave(&heir).await.unwrap().unwrap();
        let held = bench.store.sync(&healthy, crate::id::Revision(0), None).await.unwrap().unwrap().rows;
        assert_eq!(held.len(), 3, "{text:?}");
        assert_eq!(bench.command(&["ZSCORE", "@load", &healthy.worker.to_string()]).int(), 3, "{text:?}");
    }
}

// A script counts what it gives out by itself, and reads the loads only now and then: that is to make no difference.
#[tokio::test]
async fn a_batch_goes_where_its_jobs_would_go_one_by_one() {
    let (mut at_once, mut one_by_one) = (Bench::new().await, Bench::new().await);
    let jobs: Vec<_> = (0..120).map(|at| (id(&format!("{at:03}")), Bytes::new())).collect();
    for bench in [&at_once, &one_by_one] {
        // More than are looked at in one go, and some that become full or are loaded before the batch.
        for at in 0..40 {
            bench
                .joined_on(Terms { weight: at % 3 + 1, capacity: (at % 5 == 0).then_some(2), ..TERMS })
                .await;
        }
        bench.add_all(&jobs[..20]).await.unwrap();
    }
    let holders =
        |bench: &mut Bench| jobs.iter().map(|(job, _)| bench.holder(job.as_str())).collect::<Vec<_>>();

    at_once.add_all(&jobs[20..]).await.unwrap();
    for job in &jobs[20..] {
        one_by_one.add_all(std::slice::from_ref(job)).await.unwrap();
    }
    assert_eq!(holders(&mut at_once), holders(&mut one_by_one));

    for worker in (1..=30).map(WorkerId) {
        at_once.end_lock(worker);
        one_by_one.end_lock(worker);
        at_once.reap_batch(worker, 50, 0).await;
        while one_by_one.command(&["ZSCORE", "@deadlines", &worker.to_string()]).text() != "" {
            one_by_one.reap_batch(worker, 1, 0).await;
        }
        assert_eq!(holders(&mut at_once), holders(&mut one_by_one), "after the end of worker {worker}");
    }
    let loads = |bench: &mut Bench| bench.command(&["ZRANGE", "@load", "0", "-1", "WITHSCORES"]);
    assert_eq!(loads(&mut at_once), loads(&mut one_by_one));
}
