//! Quarantine: a job that takes down one worker after the other is found and set aside.

use std::time::Duration;

use super::bench::{Bench, JOINED, id};
use crate::JobState;
use crate::id::WorkerId;
use crate::redis::store::{AddCode, BATCH_MOVES, DeleteCode, Reap, Suspicion, UpdateCode};

const NOTHING: [&str; 0] = [];
const WINDOW: Duration = Duration::from_secs(60);

/// As a worker crashes: its last heartbeat was a moment ago, after all that it was given. Returns the jobs that are
/// quarantined now.
async fn crash(bench: &mut Bench, worker: u64, crashes: u32, window: Duration) -> Vec<String> {
    bench.crashed(WorkerId(worker)).await;
    let suspicion = Suspicion { crashes, window };
    match bench.store.reap(WorkerId(worker), JOINED, suspicion).await.unwrap().0 {
        Reap::Reaped { left: 0, quarantined, .. } => quarantined.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

fn suspected(bench: &mut Bench, job: &str) -> String {
    bench.command(&["HGET", "@crashes", job]).text().split(' ').next().unwrap_or_default().to_owned()
}

// The only job of three workers, each of which it takes down.
#[tokio::test]
async fn a_job_that_is_the_only_suspect_is_set_aside_at_the_third_crash() {
    let (mut bench, _) = Bench::with_workers(1).await;
    bench.add("mad", "x").await;
    for worker in 1..=2 {
        bench.joined().await;
        bench.look();
        assert_eq!(crash(&mut bench, worker, 3, WINDOW).await, [""; 0]);
        assert_eq!(suspected(&mut bench, "mad"), worker.to_string());
    }
    bench.joined().await;
    bench.look();
    assert_eq!(crash(&mut bench, 3, 3, WINDOW).await, ["mad"]);
    assert_eq!(
        bench.look(),
        [
            "assigned mad: -",
            "crashes mad: 3 1@T 2@T 3@T",
            "deadlines 3: -",
            "inbox 3: -",
            "load 3: -",
            "lock:3: -",
            "owner mad: q 0 0 r2",
            "quarantine mad: T",
            "rev: r10",
            "terms 3: -",
            "terms 3:blame: -",
            "terms 3:ttl: -",
            "terms changed: T",
            "workers 3: -",
            "inbox:3 <- r10 after r8: fenced",
            "control <- Reaped(WorkerId(3))",
        ]
    );
    // It is given to nobody, and is there all the same.
    assert_eq!(bench.store.place().await.unwrap().placed, 0);
    assert_eq!(bench.add("mad", "y").await.0, AddCode::Existing);
    let survey = bench.store.survey().await.unwrap();
    assert_eq!((survey.jobs, survey.pending, survey.quarantined), (1, 0, 1));
    let found = bench.store.find(&id("mad")).await.unwrap().unwrap();
    assert_eq!((found.record.state, found.crashes.0), (JobState::Quarantined, 3));
    let workers: Vec<_> = found.crashes.1.iter().map(|crash| crash.worker.get()).collect();
    assert_eq!(workers, [1, 2, 3]);
    assert_eq!(bench.look(), NOTHING);
}

// Which of many it was nobody knows: those that crash again are suspected more, and are kept apart from each other.
#[tokio::test]
async fn crashes_narrow_down_who_it_was_and_spare_the_innocent() {
    let mut bench = Bench::new().await;
    bench.joined().await;
    let jobs: Vec<String> = (0..8).map(|job| format!("job-{job}")).collect();
    for job in jobs.clone() {
        bench.add(job.leak(), "").await;
    }
    for _ in 0..4 {
        bench.joined().await;
    }
    let mut quarantined = Vec::new();
    for _ in 0..10 {
        let holder = bench.holder("job-5");
        let worker = holder.strip_prefix("a ").expect("somebody has it").parse().unwrap();
        quarantined.extend(crash(&mut bench, worker, 3, WINDOW).await);
        bench.joined().await;
        bench.store.place().await.unwrap();
        if !quarantined.is_empty() {
            break;
        }
    }
    assert_eq!(quarantined, ["job-5"]);
    for job in &jobs {
        assert_eq!(bench.holder(job).starts_with("a "), *job != "job-5", "{job}");
    }
    assert!(bench.command(&["ZCARD", "@quarantine"]).int() == 1);
}

#[tokio::test]
async fn two_suspects_go_to_different_workers_although_one_holds_less() {
    let mut bench = Bench::new().await;
    bench.joined().await;
    for job in ["a", "b"] {
        bench.add(job, "").await;
    }
    bench.joined().await;
    bench.joined().await;
    // The third holds much, but nothing suspect.
    bench.command(&["ZADD", "@load", "9", "3"]);
    assert_eq!(crash(&mut bench, 1, 3, WINDOW).await, [""; 0]);
    let mut holders = [bench.holder("a"), bench.holder("b")];
    holders.sort();
    assert_eq!(holders, ["a 2", "a 3"]);
    assert_eq!(bench.command(&["HGET", "@terms", "2:blame"]).text().split(' ').next(), Some("1"));
    // Where all have one as suspect, the least loaded is good enough.
    assert_eq!(crash(&mut bench, 2, 3, WINDOW).await, [""; 0]);
    assert!(["a", "b"].iter().all(|job| bench.holder(job) == "a 3"));
}

// Its other jobs are not suspected when it holds one that was suspected before.
#[tokio::test]
async fn only_the_most_suspect_jobs_of_a_worker_are_suspected_again() {
    let (mut bench, _) = Bench::with_workers(1).await;
    bench.add("mad", "").await;
    bench.joined().await;
    crash(&mut bench, 1, 3, WINDOW).await;
    for job in ["b", "c"] {
        bench.add(job, "").await;
    }
    bench.joined().await;
    crash(&mut bench, 2, 3, WINDOW).await;
    let counts = ["mad", "b", "c"].map(|job| suspected(&mut bench, job));
    assert_eq!(counts, ["2", "", ""]);
    assert_eq!(crash(&mut bench, 3, 3, WINDOW).await, ["mad"]);
}

// A crash much later is none of its doing.
#[tokio::test]
async fn a_job_that_was_held_for_longer_than_the_window_is_cleared() {
    let (mut bench, _) = Bench::with_workers(1).await;
    bench.add("a", "").await;
    bench.joined().await;
    crash(&mut bench, 1, 3, WINDOW).await;
    assert_eq!(suspected(&mut bench, "a"), "1");
    bench.joined().await;
    let start = std::time::Instant::now();
    super::bench::until("the window is over", || start.elapsed() > Duration::from_millis(40)).await;
    assert_eq!(crash(&mut bench, 2, 1, Duration::from_millis(5)).await, [""; 0]);
    assert_eq!(suspected(&mut bench, "a"), "", "it survived the window");
}

// What it was given after its last heartbeat could have been, it was given when it was dead.
#[tokio::test]
async fn what_a_dead_worker_was_given_is_not_suspected() {
    let (mut bench, members) = Bench::with_workers(1).await;
    bench.crashed(members[0].worker).await;
    bench.add("late", "").await;
    bench.reap_suspecting(members[0].worker, 1).await;
    assert_eq!(suspected(&mut bench, "late"), "");
}

// Batches do not change whom a crash is blamed on: the last one may have a single job, which is not the only one.
#[tokio::test]
async fn a_job_that_is_alone_in_its_batch_is_not_the_only_suspect() {
    let (mut bench, _) = Bench::with_workers(1).await;
    let jobs: Vec<_> = (0..=BATCH_MOVES).map(|job| (id(&format!("{job:03}")), bytes::Bytes::new())).collect();
    bench.add_all(&jobs).await.unwrap();
    bench.crashed(WorkerId(1)).await;
    for (moved, left) in [(BATCH_MOVES as u64, 1), (1, 0)] {
        assert_eq!(bench.reap_suspecting(WorkerId(1), 1).await, super::bench::reaped(moved, left));
    }
    assert_eq!(bench.command(&["ZCARD", "@quarantine"]).int(), 0);
    assert_eq!(bench.command(&["HLEN", "@crashes"]).int(), jobs.len() as i64);
}

#[tokio::test]
async fn a_worker_that_was_leaving_by_itself_did_not_crash() {
    let (mut bench, members) = Bench::with_workers(1).await;
    for job in ["a", "b"] {
        bench.add(job, "").await;
    }
    bench.leave_batch(&members[0], 1).await;
    bench.crashed(members[0].worker).await;
    assert_eq!(bench.reap_suspecting(members[0].worker, 1).await, super::bench::reaped(1, 0));
    assert_eq!(bench.command(&["EXISTS", "@crashes", "@quarantine"]).int(), 0);
}

#[tokio::test]
async fn nobody_is_suspected_where_no_crash_is_too_many() {
    let (mut bench, _) = Bench::with_workers(1).await;
    bench.add("a", "").await;
    for worker in 1..=4 {
        bench.joined().await;
        assert_eq!(crash(&mut bench, worker, 0, WINDOW).await, [""; 0]);
    }
    assert_eq!(bench.command(&["EXISTS", "@crashes"]).int(), 0);
}

#[tokio::test]
async fn the_last_eight_crashes_of_a_job_are_remembered() {
    let (mut bench, _) = Bench::with_workers(1).await;
    bench.add("a", "").await;
    for worker in 1..=11 {
        bench.joined().await;
        crash(&mut bench, worker, 100, WINDOW).await;
    }
    let found = bench.store.find(&id("a")).await.unwrap().unwrap();
    let workers: Vec<_> = found.crashes.1.iter().map(|crash| crash.worker.get()).collect();
    assert_eq!((found.crashes.0, workers), (11, (4..=11).collect()));
}

#[tokio::test]
async fn a_deletion_ends_every_suspicion() {
    let (mut bench, _) = Bench::with_workers(1).await;
    for job in ["held", "mad"] {
        bench.add(job, "x").await;
    }
    bench.joined().await;
    bench.joined().await;
    crash(&mut bench, 1, 3, WINDOW).await;
    assert_eq!(suspected(&mut bench, "held"), "1");
    bench.delete("held", None).await;
    assert_eq!(suspected(&mut bench, "held"), "");
    bench.release_now("held").await;
    let holder: u64 = bench.holder("mad")[2..].parse().unwrap();
    assert_eq!(crash(&mut bench, holder, 2, WINDOW).await, ["mad"]);
    bench.look();
    assert_eq!(bench.delete("mad", None).await, DeleteCode::Gone);
    assert_eq!(bench.look(), ["crashes mad: -", "jobs mad: -", "owner mad: -", "quarantine mad: -"]);
    assert_eq!(bench.delete("mad", None).await, DeleteCode::Unknown);
    assert_eq!(bench.add("mad", "y").await.0, AddCode::Assigned);
    assert_eq!(suspected(&mut bench, "mad"), "");
}

#[tokio::test]
async fn a_job_that_is_requeued_is_given_out_and_suspected_of_nothing() {
    let (mut bench, _) = Bench::with_workers(1).await;
    bench.add("mad", "x").await;
    assert_eq!(crash(&mut bench, 1, 1, WINDOW).await, ["mad"]);
    assert_eq!(bench.update("mad", "y").await, UpdateCode::Stored);
    bench.look();
    // There is nobody: it waits as any other.
    assert_eq!(bench.store.requeue(&["mad", "none"].map(id)).await.unwrap(), [true, false]);
    assert_eq!(
        bench.look(),
        ["crashes mad: -", "owner mad: p 0 0 r2 r4", "pending mad: r2", "quarantine mad: -"]
    );
    assert_eq!(bench.store.requeue(&[id("mad")]).await.unwrap(), [false]);
    assert_eq!(bench.look(), NOTHING);
    bench.joined().await;
    bench.store.place().await.unwrap();
    assert_eq!(crash(&mut bench, 2, 1, WINDOW).await, ["mad"]);
    bench.joined().await;
    bench.look();
    assert_eq!(bench.store.requeue(&[id("mad")]).await.unwrap(), [true]);
    assert_eq!(
        bench.look(),
        [
            "assigned mad: 3/r9",
            "crashes mad: -",
            "inbox 3: r9",
            "load 3: 1",
            "owner mad: a 3 r9 r2 r4",
            "quarantine mad: -",
            "rev: r9",
            "inbox:3 <- r9 after r8: add mad r2 \"y\"",
        ]
    );
}

// What may have killed its worker twice goes where others of that name do not have it.
#[tokio::test]
async fn a_suspect_does_not_follow_its_name() {
    let mut bench = Bench::new().await;
    bench.joined_as("mail", Duration::ZERO, false).await;
    bench.add("mad", "").await;
    bench.joined().await;
    bench.joined_as("mail", Duration::ZERO, true).await;
    crash(&mut bench, 1, 9, WINDOW).await;
    assert_eq!(bench.holder("mad"), "a 3", "one crash is no habit");
    bench.joined_as("mail", Duration::ZERO, true).await;
    crash(&mut bench, 3, 9, WINDOW).await;
    assert_eq!(bench.holder("mad"), "a 2");
}
