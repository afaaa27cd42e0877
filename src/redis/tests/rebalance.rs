//! rebalance: who is asked for what, and when.

use std::time::Duration;

use bytes::Bytes;

use super::bench::{Bench, TERMS, id};
use crate::id::WorkerId;
use crate::message::{Order, Terms};
use crate::redis::store::{BATCH_JOBS, DeleteCode};

const NOTHING: [&str; 0] = [];

async fn add_many(bench: &Bench, count: usize) {
    let jobs: Vec<_> = (0..count).map(|at| (id(&format!("{at:03}")), Bytes::new())).collect();
    for batch in jobs.chunks(200) {
        bench.add_all(batch).await.unwrap();
    }
}

async fn step(bench: &Bench, share: f64, hysteresis: f64, delay: Duration) -> usize {
    bench.store.rebalance(share, hysteresis, delay).await.unwrap()
}

/// All that is to move is let go of. Returns how many.
async fn let_go(bench: &mut Bench) -> usize {
    let records = bench.command(&["HGETALL", "@owner"]);
    let mut count = 0;
    for pair in records.list().chunks(2) {
        if pair[1].text().starts_with("m ") {
            bench.release_now(&pair[0].text()).await;
            count += 1;
        }
    }
    count
}

/// How many each holds.
fn held(bench: &mut Bench, workers: u64) -> Vec<i64> {
    let count = |worker: u64| {
        let (low, high) = (worker << 26, (worker + 1) << 26);
        bench.command(&["ZCOUNT", "@assigned", &low.to_string(), &format!("({high}")]).int()
    };
    (1..=workers).map(count).collect()
}

// Promise: one owner. What is to move stays with its owner until that has let go, and then goes to the least loaded.
#[tokio::test]
async fn what_is_to_move_is_marked_told_and_let_go_of_first() {
    let (mut bench, members) = Bench::with_workers(1).await;
    add_many(&bench, 2).await;
    bench.joined().await;
    bench.look();
    assert_eq!(bench.rebalance().await, 1);
    assert_eq!(
        bench.look(),
        [
            "inbox 1: r5",
            "owner 000: m 1 r2 r2",
            "rev: r5",
            "terms 1:moving: 1",
            "inbox:1 <- r5 after r3: delete 000 r2 Rebalanced",
        ]
    );
    assert_eq!(bench.rebalance().await, 0, "its share is on its way");
    assert_eq!(bench.look(), NOTHING);
    let page = bench.store.sync(&members[0], crate::id::Revision(0), None).await.unwrap().unwrap();
    assert_eq!(page.rows[0].state, crate::message::RowState::Moving);

    bench.release_now("000").await;
    assert_eq!(
        bench.look(),
        [
            "assigned 000: 2/r6",
            "inbox 2: r6",
            "load 1: 1",
            "load 2: 1",
            "owner 000: a 2 r6 r2",
            "rev: r6",
            "terms 1:moving: -",
            "inbox:2 <- r6 after r4: add 000 r2 \"\"",
        ]
    );
    assert_eq!(bench.rebalance().await, 0);
    assert_eq!(bench.look(), NOTHING);
}

#[tokio::test]
async fn a_step_takes_its_share_of_the_difference() {
    let (mut bench, _) = Bench::with_workers(1).await;
    add_many(&bench, 100).await;
    bench.joined().await;
    for (share, marked) in [(0.1, 5), (0.5, 23), (1.0, 22)] {
        assert_eq!(step(&bench, share, 0.0, Duration::ZERO).await, marked);
        assert_eq!(step(&bench, share, 0.0, Duration::ZERO).await, 0);
        assert_eq!(let_go(&mut bench).await, marked);
    }
    assert_eq!(held(&mut bench, 2), [50, 50]);
}

#[tokio::test]
async fn a_difference_within_the_hysteresis_or_of_one_job_is_let_be() {
    let (mut bench, _) = Bench::with_workers(1).await;
    add_many(&bench, 109).await;
    bench.joined().await;
    bench.command(&["ZADD", "@load", "90", "2"]); // as if it had as many
    assert_eq!(step(&bench, 1.0, 0.2, Duration::ZERO).await, 0, "19 of 99.5 is less than a fifth");
    assert_eq!(step(&bench, 1.0, 0.15, Duration::ZERO).await, 10);
    assert_eq!(let_go(&mut bench).await, 10);
    bench.command(&["ZADD", "@load", "98", "2"]);
    assert_eq!(held(&mut bench, 2), [99, 10]);
    assert_eq!(step(&bench, 1.0, 0.0, Duration::ZERO).await, 0, "one more cannot be shared");
}

// A worker that is replaced is to be back before its part is given away.
#[tokio::test]
async fn nothing_moves_until_it_has_been_quiet_for_the_delay() {
    let (mut bench, members) = Bench::with_workers(2).await;
    add_many(&bench, 10).await;
    bench.joined().await;
    let hour = Duration::from_secs(3_600);
    assert_eq!(step(&bench, 1.0, 0.0, hour).await, 0);
    for member in &members {
        bench.beat(member, super::bench::BEATEN, false).await.unwrap().unwrap();
    }
    let long_ago = "1000";
    bench.command(&["HSET", "@terms", "changed", long_ago]);
    // Beats, and members that were given nothing anyway, are no change.
    let reserved = bench.reserved().await;
    bench.end_lock(reserved.worker);
    bench.reap(reserved.worker).await.unwrap();
    assert_eq!(bench.command(&["HGET", "@terms", "changed"]).text(), long_ago);
    assert!(step(&bench, 1.0, 0.0, hour).await > 0);
    let_go(&mut bench).await;
    // Whoever leaves, drains, or comes with other terms is one.
    bench.beat_on(&members[0], Terms { weight: 2, ..TERMS }).await;
    assert_ne!(bench.command(&["HGET", "@terms", "changed"]).text(), long_ago);
    for (at, change) in ["drain", "leave"].into_iter().enumerate() {
        bench.command(&["HSET", "@terms", "changed", long_ago]);
        match change {
            "drain" => assert!(bench.order(members[at].worker, Order::Drain).await),
            _ => drop(bench.store.leave(&members[at]).await.unwrap()),
        }
        assert_ne!(bench.command(&["HGET", "@terms", "changed"]).text(), long_ago, "{change}");
    }
}

// Who holds more than it can is relieved at once, as soon as somebody has room.
#[tokio::test]
async fn what_is_above_a_capacity_moves_without_delay_and_only_into_room() {
    let mut bench = Bench::new().await;
    let member = bench.joined_on(Terms { capacity: Some(10), ..TERMS }).await;
    add_many(&bench, 10).await;
    bench.beat_on(&member, Terms { capacity: Some(4), ..TERMS }).await;
    let hour = Duration::from_secs(3_600);
    assert_eq!(step(&bench, 0.1, 0.0, hour).await, 0, "there is nobody else");
    for _ in 0..2 {
        bench.joined_on(Terms { capacity: Some(2), ..TERMS }).await;
    }
    assert_eq!(step(&bench, 0.1, 0.0, hour).await, 4, "as many as there is room for");
    assert_eq!(let_go(&mut bench).await, 4);
    assert_eq!((step(&bench, 0.1, 0.0, hour).await, held(&mut bench, 3)), (0, vec![6, 2, 2]));
    bench.joined().await;
    assert_eq!(step(&bench, 0.1, 0.0, hour).await, 2);
    assert_eq!(let_go(&mut bench).await, 2);
    assert_eq!(held(&mut bench, 4), [4, 2, 2, 2]);
}

#[tokio::test]
async fn a_taker_that_is_full_is_none() {
    let (mut bench, _) = Bench::with_workers(1).await;
    add_many(&bench, 10).await;
    bench.joined_on(Terms { capacity: Some(3), ..TERMS }).await;
    assert_eq!(bench.rebalance().await, 3);
    assert_eq!(let_go(&mut bench).await, 3);
    assert_eq!((bench.rebalance().await, held(&mut bench, 2)), (0, vec![7, 3]));
}

#[tokio::test]
async fn shares_are_by_weight_and_a_difference_that_one_job_makes_is_let_be() {
    let (mut bench, _) = Bench::with_workers(1).await;
    add_many(&bench, 41).await;
    bench.joined_on(Terms { weight: 3, ..TERMS }).await;
    while bench.rebalance().await > 0 {
        let_go(&mut bench).await;
    }
    assert!([vec![10, 31], vec![11, 30]].contains(&held(&mut bench, 2)), "{:?}", held(&mut bench, 2));
}

// Who holds less than its share gives nothing, also if another holds still less.
#[tokio::test]
async fn only_who_is_above_its_share_gives() {
    let (mut bench, _) = Bench::with_workers(1).await;
    add_many(&bench, 100).await;
    bench.joined().await;
    bench.command(&["ZADD", "@load", "20", "2"]);
    bench.joined().await;
    bench.look();
    assert_eq!(step(&bench, 0.1, 0.0, Duration::ZERO).await, 6);
    let told = bench.look();
    assert!(told.iter().all(|line| !line.starts_with("inbox:2")), "{told:?}");
}

// The least loaded may be one that nobody can give to: the next one has its share all the same.
#[tokio::test]
async fn a_taker_that_one_job_would_overload_does_not_keep_the_next_from_its_share() {
    let mut bench = Bench::new().await;
    bench.joined_on(Terms { weight: 10, ..TERMS }).await;
    add_many(&bench, 10).await;
    bench.joined_on(Terms { weight: 10, ..TERMS }).await;
    bench.joined_on(Terms { weight: 1, ..TERMS }).await;
    // Loads 1, 0, 0: one of weight 1 would be at 1 with its first job.
    while bench.rebalance().await > 0 {
        let_go(&mut bench).await;
    }
    let held = held(&mut bench, 3);
    assert!(held[1] >= 4 && held[0] <= 5, "{held:?}");
}

// Who is above the share may be too light to give a whole job: then the one that can gives, although it is not above it.
#[tokio::test]
async fn light_workers_with_a_job_each_do_not_hide_that_two_heavy_ones_are_uneven() {
    let mut bench = Bench::new().await;
    bench.joined_on(Terms { weight: 10, ..TERMS }).await;
    add_many(&bench, 2).await;
    for worker in 2..=6 {
        bench.joined().await;
        bench.command(&["ZADD", "@load", "1", &worker.to_string()]);
    }
    bench.joined_on(Terms { weight: 10, ..TERMS }).await;
    assert_eq!(bench.rebalance().await, 1);
    assert_eq!(let_go(&mut bench).await, 1);
    assert_eq!(held(&mut bench, 7), [1, 0, 0, 0, 0, 0, 1]);
    assert_eq!(bench.rebalance().await, 0);
}

#[tokio::test]
async fn a_step_is_a_batch_at_a_time() {
    let (mut bench, _) = Bench::with_workers(2).await;
    add_many(&bench, 1_000).await;
    for _ in 0..2 {
        bench.joined().await;
    }
    let mut marked = Vec::new();
    loop {
        marked.push(bench.rebalance().await);
        if marked.last() != Some(&BATCH_JOBS) {
            break;
        }
    }
    // As many as bring the first of the two that came to a third of what three hold, however many calls that takes.
    assert_eq!(marked.iter().sum::<usize>(), 334);
    assert_eq!(marked.len(), 334 / BATCH_JOBS + 1);
    assert_eq!(let_go(&mut bench).await, 334);
}

// Whatever becomes of a job that was to move, the count of those on their way is right.
#[tokio::test]
async fn a_job_on_its_way_can_be_deleted_and_added_again_and_lose_its_owner() {
    let (mut bench, members) = Bench::with_workers(1).await;
    add_many(&bench, 8).await;
    bench.joined().await;
    bench.look();
    assert_eq!(bench.rebalance().await, 4);
    bench.look();
    let DeleteCode::Releasing { worker, .. } = bench.delete("000", None).await else { panic!("it is held") };
    assert_eq!(worker, WorkerId(1));
    assert_eq!(
        bench.look(),
        ["jobs 000: -", "owner 000: r 1 r2 0", "terms 1:moving: 3"],
        "its owner is to let go already"
    );
    bench.add("000", "again").await;
    bench.release_now("000").await;
    assert_eq!(bench.command(&["HGET", "@terms", "1:moving"]).text(), "3");
    bench.end_lock(members[0].worker);
    bench.reap(members[0].worker).await.unwrap();
    assert_eq!(bench.command(&["HGET", "@terms", "1:moving"]).text(), "");
    assert_eq!(held(&mut bench, 2), [0, 8]);
}
