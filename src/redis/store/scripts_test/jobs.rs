//! Jobs: add, delete, release, place.

use std::time::Instant;

use bytes::Bytes;

use super::bench::{BEATEN, Bench, id};
use crate::error::ErrorKind;
use crate::redis::script;
use crate::redis::store::{AddCode, DeleteCode};

// Promise: nothing lost. What was added is in the server, and is pushed to its owner whole.
#[tokio::test(flavor = "multi_thread")]
async fn an_added_job_is_pushed_once_and_adding_it_again_changes_nothing() {
    let (mut bench, _) = Bench::with_workers(1).await;
    let (code, born) = bench.add("a", "one").await;
    assert_eq!(
        (code, bench.news()),
        (
            AddCode::Assigned,
            vec![
                "assigned: a=1/r2".into(),
                "inbox: 1=r2".into(),
                "jobs: a=one".into(),
                "load: 1=1".into(),
                "owner: a=a 1 r2 r2".into(),
                "rev: r2".into(),
                "> inbox:1 r2 after r1: add a born r2 \"one\"".into(),
            ]
        )
    );
    assert_eq!(bench.name(born), "r2");
    assert_eq!(bench.add("a", "two").await, (AddCode::Existing, born));
    assert_eq!(bench.news(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_worker_a_job_waits_and_place_gives_it_out_by_age() {
    let mut bench = Bench::new().await;
    assert_eq!(bench.add("z", "old").await.0, AddCode::Pending);
    assert_eq!(bench.add("a", "new").await.0, AddCode::Pending);
    assert_eq!(
        bench.news(),
        [
            "jobs: a=new z=old",
            "owner: a=p 0 0 r2 z=p 0 0 r1",
            &format!("pending: {}", pending(&bench, &["a", "z"])),
            "rev: r2",
        ]
    );
    // Nobody has room: nothing to do.
    let placed = bench.store.place().await.unwrap();
    assert_eq!((placed.placed, placed.waiting, bench.news().len()), (0, 0, 0));

    let member = bench.reserve().await;
    let joined = bench.store.join(&member, BEATEN).await.unwrap().unwrap();
    assert_eq!(joined.pending, 2);
    bench.forget();
    // One at a time, to see which is first.
    let channel = bench.key("inbox:");
    assert_eq!(format!("{:?}", bench.run(&script::PLACE, 0, &[channel.as_bytes(), b"1"])), "[1, 1]");
    assert_eq!(bench.news().last().unwrap(), "> inbox:1 r4 after r3: add z born r1 \"old\"");
    let placed = bench.store.place().await.unwrap();
    assert_eq!((placed.placed, placed.waiting), (1, 0));
    assert_eq!(
        bench.news(),
        [
            "assigned: a=1/r5 z=1/r4",
            "inbox: 1=r5",
            "load: 1=2",
            "owner: a=a 1 r5 r2 z=a 1 r4 r1",
            "pending: gone",
            "rev: r5",
            "> inbox:1 r5 after r4: add a born r2 \"new\"",
        ]
    );
    bench.store.place().await.unwrap();
    assert_eq!(bench.news(), [""; 0]);
}

/// The scores of `pending` are revisions, and are shown as such.
fn pending(bench: &Bench, jobs: &[&str]) -> String {
    let show = |job: &&str| {
        let score = bench.command(&["ZSCORE", &bench.key("pending"), job]).text();
        format!("{job}={}", bench.name(crate::id::Revision(score.parse().unwrap())))
    };
    jobs.iter().map(show).collect::<Vec<_>>().join(" ")
}

// Promise: the payload is opaque. Whatever bytes it has go through, and the id may be any text.
#[tokio::test(flavor = "multi_thread")]
async fn a_payload_of_any_bytes_and_an_id_of_any_letters_go_through_unchanged() {
    let (mut bench, members) = Bench::with_workers(1).await;
    let payloads: Vec<Bytes> = vec![
        Bytes::new(),
        (0..=255).collect::<Vec<u8>>().into(),
        vec![0xc1; 70_000].into(),
        "\r\n$3\r\n%s%d\0".into(),
    ];
    for (at, payload) in payloads.iter().enumerate() {
        let job = id(&format!("j-{at} ü/%d\u{1f980}"));
        bench.store.add(&[(job.clone(), payload.clone())]).await.unwrap();
        let shown = format!("{:?}", payload.escape_ascii().to_string());
        assert!(bench.news().last().unwrap().ends_with(&shown), "frame {at}");
        assert_eq!(bench.store.find(&job).await.unwrap().unwrap().payload, payload);
    }
    let page = bench.store.sync(&members[0], Default::default(), None).await.unwrap().unwrap();
    assert_eq!(page.rows.len(), payloads.len());
    for row in page.rows {
        let at: usize = row.job.as_str()[2..3].parse().unwrap();
        assert_eq!(row.state, crate::message::RowState::Active(Some(payloads[at].clone())));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_goes_to_the_least_loaded_and_a_job_twice_in_it_is_one_job() {
    let (mut bench, _) = Bench::with_workers(2).await;
    let batch: Vec<_> = ["a", "b", "c", "a"].map(|job| (id(job), Bytes::from(job))).to_vec();
    let codes = bench.store.add(&batch).await.unwrap();
    let [first, _, _, again] = codes[..] else { panic!("{codes:?}") };
    assert_eq!((first.0, again), (AddCode::Assigned, (AddCode::Existing, first.1)));
    // r1 and r2 are the starts of the two chains.
    assert_eq!(
        bench.news(),
        [
            "assigned: a=1/r3 b=2/r4 c=1/r5",
            "inbox: 1=r5 2=r4",
            "jobs: a=a b=b c=c",
            "load: 1=2 2=1",
            "owner: a=a 1 r3 r3 b=a 2 r4 r4 c=a 1 r5 r5",
            "rev: r5",
            "> inbox:1 r3 after r1: add a born r3 \"a\"",
            "> inbox:2 r4 after r2: add b born r4 \"b\"",
            "> inbox:1 r5 after r3: add c born r5 \"c\"",
        ]
    );
}

// Promise: what a caller gave up on is never carried out later (rule 8).
#[tokio::test(flavor = "multi_thread")]
async fn a_late_add_or_delete_does_nothing_and_one_that_only_seemed_late_is_sent_again() {
    let (mut bench, _) = Bench::with_workers(1).await;
    let channel = bench.key("inbox:");
    for script in [&script::ADD, &script::DELETE] {
        let reply = format!("{:?}", bench.run(script, 0, &[channel.as_bytes(), b"1000", b"a", b"0"]));
        let now = reply.strip_prefix("-LATE ").expect(&reply);
        assert!(now.parse::<u64>().unwrap() > 1_700_000_000_000_000, "{reply}");
        assert_eq!(bench.news(), [""; 0]);
    }
    // The store thinks that it is 1970: it is told better, and tries again.
    bench.store.note_time(0, Instant::now());
    assert_eq!(bench.add("a", "one").await.0, AddCode::Assigned);
    bench.store.note_time(0, Instant::now());
    assert!(matches!(bench.delete("a", None).await, DeleteCode::Releasing { .. }));
    // One that names its birth may run at any time.
    bench.store.note_time(0, Instant::now());
    assert!(matches!(bench.delete("a", Some(crate::id::Revision(1))).await, DeleteCode::Releasing { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_job_is_deleted_at_once() {
    let mut bench = Bench::new().await;
    bench.forget();
    let (_, born) = bench.add("a", "one").await;
    bench.forget();
    assert_eq!(bench.delete("a", Some(born)).await, DeleteCode::Gone);
    assert_eq!(bench.news(), ["jobs: gone", "owner: gone", "pending: gone"]);
    assert_eq!(bench.delete("a", Some(born)).await, DeleteCode::Unknown);
    assert_eq!(bench.news(), [""; 0]);
}

// Promise: one owner. A deleted job is gone when its owner lets go, and who waits for that hears of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_held_job_is_marked_then_released_and_each_step_twice_is_the_same_as_once() {
    let (mut bench, members) = Bench::with_workers(1).await;
    let (_, born) = bench.add("a", "one").await;
    bench.forget();
    let releasing = DeleteCode::Releasing { worker: members[0].worker, grant: born };
    assert_eq!(bench.delete("a", Some(born)).await, releasing);
    assert_eq!(
        bench.news(),
        [
            "inbox: 1=r3",
            "jobs: gone",
            "owner: a=r 1 r2 0",
            "rev: r3",
            "> inbox:1 r3 after r2: delete a r2 Removed",
        ]
    );
    assert_eq!(bench.delete("a", Some(born)).await, releasing);
    assert_eq!(bench.news(), [""; 0]);

    assert!(bench.release(&members[0], "a", born).await);
    assert_eq!(bench.news(), ["assigned: gone", "load: 1=0", "owner: gone", "> released a r2"]);
    assert!(!bench.release(&members[0], "a", born).await);
    assert_eq!(bench.news(), [""; 0]);
}

// Promise (rule 8): a late delete does not end a job that was added again.
#[tokio::test(flavor = "multi_thread")]
async fn a_delete_by_birth_spares_a_later_life() {
    let (mut bench, members) = Bench::with_workers(1).await;
    let (_, first) = bench.add("a", "one").await;
    bench.delete("a", Some(first)).await;
    bench.release(&members[0], "a", first).await;
    let (_, second) = bench.add("a", "two").await;
    bench.forget();
    assert_eq!(bench.delete("a", Some(first)).await, DeleteCode::Unknown);
    assert_eq!(bench.news(), [""; 0]);
    assert!(matches!(bench.delete("a", Some(second)).await, DeleteCode::Releasing { .. }));
}

// Promise: one owner. What is added while the last owner lets go waits for that, and has an epoch of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_added_again_while_it_is_let_go_of_waits_for_its_old_owner() {
    let (mut bench, members) = Bench::with_workers(2).await;
    let (_, first) = bench.add("a", "one").await;
    bench.delete("a", None).await;
    bench.forget(); // r3 is the add, r4 the delete
    let (code, second) = bench.add("a", "two").await;
    assert_eq!(code, AddCode::AfterRelease);
    assert_eq!(bench.news(), ["jobs: a=two", "owner: a=r 1 r3 r5", "rev: r5"]);
    assert_eq!(bench.add("a", "three").await, (AddCode::Existing, second));
    // The old life is over already, so this delete is about none.
    assert_eq!(bench.delete("a", Some(first)).await, DeleteCode::Unknown);
    assert_eq!(bench.news(), [""; 0]);

    assert!(bench.release(&members[0], "a", first).await);
    assert_eq!(
        bench.news(),
        [
            "assigned: a=1/r6",
            "inbox: 1=r6",
            "owner: a=a 1 r6 r5",
            "rev: r6",
            "> released a r3",
            "> inbox:1 r6 after r4: add a born r5 \"two\"",
        ]
    );
    assert!(!bench.release(&members[0], "a", first).await);
    assert_eq!(bench.news(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_added_again_and_deleted_again_before_its_owner_lets_go_is_gone_then() {
    let (mut bench, members) = Bench::with_workers(1).await;
    let (_, first) = bench.add("a", "one").await;
    bench.delete("a", None).await;
    let (_, second) = bench.add("a", "two").await;
    bench.forget();
    let releasing = DeleteCode::Releasing { worker: members[0].worker, grant: first };
    assert_eq!(bench.delete("a", Some(second)).await, releasing);
    assert_eq!(bench.news(), ["jobs: gone", "owner: a=r 1 r2 0"], "its owner was told already");
    assert!(bench.release(&members[0], "a", first).await);
    assert_eq!(bench.news(), ["assigned: gone", "load: 1=0", "owner: gone", "> released a r2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_by_another_worker_or_another_grant_is_refused() {
    let (mut bench, members) = Bench::with_workers(2).await;
    let (_, grant) = bench.add("a", "one").await;
    bench.forget();
    assert!(!bench.release(&members[1], "a", grant).await);
    assert!(!bench.release(&members[0], "a", crate::id::Revision(grant.get() + 1)).await);
    assert!(!bench.release(&members[0], "b", grant).await);
    assert_eq!(bench.news(), [""; 0]);
    // Handed back although nobody deleted it: it goes on, here to the same worker, by a new grant.
    assert!(bench.release(&members[0], "a", grant).await);
    assert_eq!(
        bench.news(),
        [
            "assigned: a=1/r4",
            "inbox: 1=r4",
            "owner: a=a 1 r4 r3",
            "rev: r4",
            "> inbox:1 r4 after r3: add a born r3 \"one\"",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn list_and_find_show_the_records() {
    let (bench, members) = Bench::with_workers(1).await;
    let (_, born) = bench.add("a", "one").await;
    let (rows, next) = bench.store.list("0").await.unwrap();
    assert_eq!((rows.len(), next), (1, None));
    assert_eq!((rows[0].0.as_str(), rows[0].1.grant, rows[0].1.born), ("a", born, born));
    bench.delete("a", None).await;
    let found = bench.store.find(&id("a")).await.unwrap().unwrap();
    let epoch = crate::id::Epoch(born.get());
    assert_eq!(found.record.state, crate::JobState::Releasing { worker: members[0].worker, epoch });
    assert_eq!((found.record.born.get(), &*found.payload), (0, &b""[..]));
    assert!(bench.store.find(&id("b")).await.unwrap().is_none());
    assert_eq!(bench.store.list("nonsense").await.unwrap_err().kind(), ErrorKind::Server);
}
