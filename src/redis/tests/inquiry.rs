//! survey, roster, list, find: they read, and change nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use super::bench::{BEATEN, Bench, JOINED, id};
use crate::JobState;
use crate::id::{Epoch, Revision};

const NOTHING: [&str; 0] = [];

#[tokio::test]
async fn survey_counts() {
    let (mut bench, members) = Bench::with_workers(2).await;
    let (_, revision) = bench.add("a", "one").await;
    bench.beat(&members[0], BEATEN, false).await.unwrap().unwrap();
    bench.look();
    let survey = bench.store.survey().await.unwrap();
    assert_eq!((survey.revision, survey.jobs, survey.pending), (revision, 1, 0));
    assert_eq!((survey.workers, survey.waiting), (2, 0));
    let due = survey.due.unwrap();
    assert_eq!(due.worker, members[1].worker);
    assert!(due.after <= JOINED && due.after > JOINED / 2, "{due:?}");
    assert_eq!(bench.look(), NOTHING);
}

#[tokio::test]
async fn an_empty_cluster_has_numbers_too() {
    let mut bench = Bench::new().await;
    let survey = bench.store.survey().await.unwrap();
    assert_eq!((survey.revision, survey.jobs, survey.workers), (Revision(0), 0, 0));
    assert!(survey.due.is_none());
    assert!(bench.store.find(&id("a")).await.unwrap().is_none());
    let (jobs, next) = bench.store.list("0").await.unwrap();
    assert!(jobs.is_empty() && next.is_none());
    let (workers, next) = bench.store.roster("0").await.unwrap();
    assert!(workers.is_empty() && next.is_none());
    assert_eq!(bench.look(), NOTHING);
}

// Waiting is what could be placed: without a worker with room nothing could.
#[tokio::test]
async fn jobs_that_nobody_can_take_are_pending_and_not_waiting() {
    let bench = Bench::new().await;
    bench.add("a", "one").await;
    let survey = bench.store.survey().await.unwrap();
    assert_eq!((survey.pending, survey.waiting), (1, 0));
    let member = bench.joined().await;
    let survey = bench.store.survey().await.unwrap();
    assert_eq!((survey.pending, survey.waiting), (1, 1));
    bench.beat(&member, BEATEN, true).await.unwrap().unwrap();
    assert_eq!(bench.store.survey().await.unwrap().waiting, 0);
}

#[tokio::test]
async fn roster_shows_each_worker_as_it_is() {
    let (mut bench, members) = Bench::with_workers(2).await;
    bench.add("a", "one").await;
    bench.beat(&members[1], BEATEN, true).await.unwrap().unwrap();
    bench.end_lock(members[0].worker);
    let (mut rows, next) = bench.store.roster("0").await.unwrap();
    rows.sort_by_key(|row| row.worker);
    assert_eq!((rows.len(), next), (2, None));
    assert_eq!((rows[0].worker, rows[0].jobs, rows[0].takes), (members[0].worker, 1, true));
    assert_eq!(rows[0].remaining, Duration::ZERO);
    assert_eq!((rows[1].worker, rows[1].jobs, rows[1].takes), (members[1].worker, 0, false));
    assert!(rows[1].remaining > JOINED, "{:?}", rows[1]);
    assert_eq!(rows[1].info, Bytes::from_static(b"\x80 info"));
    assert!(rows[1].since > Duration::from_secs(1_700_000_000));
    assert_eq!(bench.look(), NOTHING);
}

#[tokio::test]
async fn find_and_list_tell_the_state_and_the_epoch() {
    let (mut bench, members) = Bench::with_workers(1).await;
    let worker = members[0].worker;
    let (_, born) = bench.add("a", "one").await;
    let found = bench.store.find(&id("a")).await.unwrap().unwrap();
    assert_eq!(found.record.state, JobState::Assigned { worker, epoch: Epoch(born.0) });
    assert_eq!((found.record.born, &*found.payload), (born, &b"one"[..]));

    bench.delete("a", None).await;
    bench.look();
    bench.store.open("run-2").await.unwrap();
    let lifted = bench.command(&["HGET", "@meta", "lifted"]).int() as u64;
    let found = bench.store.find(&id("a")).await.unwrap().unwrap();
    assert_eq!(
        found.record.state,
        JobState::Releasing { worker, epoch: Epoch(lifted) },
        "granted anew by the lift"
    );
    assert_eq!((found.record.grant, found.record.born, found.payload.len()), (born, Revision(0), 0));
    let (rows, _) = bench.store.list("0").await.unwrap();
    assert_eq!((rows.len(), rows[0].0.as_str(), rows[0].1.state), (1, "a", found.record.state));
}

// Jobs that are there throughout are listed at least once, however many pages there are.
#[tokio::test]
async fn list_pages_through_everything() {
    let bench = Bench::new().await;
    let jobs: Vec<_> = (0..3_000).map(|job| (id(&format!("job-{job}")), Bytes::new())).collect();
    for batch in jobs.chunks(200) {
        bench.add_all(batch).await.unwrap();
    }
    let (mut cursor, mut seen, mut pages) = ("0".to_owned(), BTreeSet::new(), 0);
    loop {
        let (rows, next) = bench.store.list(&cursor).await.unwrap();
        seen.extend(rows.into_iter().map(|(job, _)| job));
        pages += 1;
        match next {
            Some(next) => cursor = next,
            None => break,
        }
    }
    assert_eq!(seen.len(), jobs.len());
    assert!(pages > 5, "{pages}");
}
