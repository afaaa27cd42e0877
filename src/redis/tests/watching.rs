//! watch, history, and what each script tells those who watch.

use std::time::Duration;

use bytes::Bytes;

use super::bench::{Bench, JOINED, TERMS, TRUST, id, kind, reaped, until};
use crate::ErrorKind;
use crate::change::Change;
use crate::id::{Revision, WorkerId};
use crate::message::{Order, Terms};
use crate::redis::store::{AddCode, DeleteCode, Member, Reap, Suspicion, UpdateCode};
use crate::test_server::{Connection, RedisServer, Reply};
use crate::wire::frame;

const NOTHING: [&str; 0] = [];
const KEEP: Duration = Duration::from_secs(600);
const NAME_GRACE: Duration = Duration::from_secs(60);
const SMALL: Terms = Terms { weight: 1, capacity: Some(1), takeover_rate: None };

/// A bench that is watched.
struct Watched {
    bench: Bench,
    ear: Connection,
    /// The last batch.
    last: Revision,
}

impl Watched {
    async fn new(workers: usize) -> (Self, Vec<Member>) {
        let (bench, members) = Bench::with_workers(workers).await;
        (Self::on(bench).await, members)
    }

    async fn on(bench: Bench) -> Self {
        let mut ear = bench.server.connect();
        ear.command(&["SSUBSCRIBE", &bench.keys.changes]);
        let last = bench.store.watch(KEEP, 1_000).await.expect("an answer");
        Self { bench, ear, last }
    }

    fn hear(&mut self) -> Vec<Vec<u8>> {
        self.ear.send(&[b"PING"]);
        let mut heard = Vec::new();
        loop {
            let message = self.ear.read();
            let [_, _, Reply::Bulk(payload)] = message.list() else { return heard };
            heard.push(payload.clone());
        }
    }

    /// What is in the journal after a revision.
    fn kept(&mut self, after: Revision) -> Vec<Vec<u8>> {
        let rows = self.bench.command(&["XRANGE", "@changes", &format!("({after}-0"), "+"]);
        let payload = |row: &Reply| match &row.list()[1].list()[1] {
            Reply::Bulk(payload) => payload.clone(),
            other => panic!("{other:?}"),
        };
        rows.list().iter().map(payload).collect()
    }

    /// What was told since the last call, a batch a line.
    ///
    /// Promise: each batch names the one before it, all changes have revisions that grow, and the journal has them too.
    fn told(&mut self) -> Vec<String> {
        let heard = self.hear();
        assert_eq!(heard, self.kept(self.last), "the journal has what was published");
        let mut lines = Vec::new();
        for payload in heard {
            let batch = frame::batch(&payload).expect("a batch");
            assert_eq!(batch.previous, self.last, "{batch:?}");
            for change in &batch.changes {
                let revision = change.revision().expect("its own");
                assert!(revision > self.last, "{change:?} after {}", self.last);
                self.last = revision;
            }
            assert_eq!(batch.last, self.last, "{batch:?}");
            lines.push(batch.changes.iter().map(text).collect::<Vec<_>>().join(", "));
        }
        let revision: u64 = self.bench.command(&["GET", "@rev"]).text().parse().expect("a revision");
        assert!(revision >= self.last.0, "no later change will have a revision that was told");
        assert_eq!(self.bench.command(&["HGET", "@watch", "last"]).text(), self.last.to_string());
        lines
    }
}

fn text(change: &Change) -> String {
    match change {
        Change::JobAdded { job, .. } => format!("added {job}"),
        Change::JobAssigned { revision, job, worker, epoch } => {
            assert_eq!(revision.0, epoch.get(), "the revision is the grant");
            format!("assigned {job} {worker}")
        }
        Change::JobUpdated { job, .. } => format!("updated {job}"),
        Change::JobMoving { job, .. } => format!("moving {job}"),
        Change::JobReleased { job, worker, .. } => format!("released {job} {worker}"),
        Change::JobDeleted { job, .. } => format!("deleted {job}"),
        Change::JobQuarantined { job, .. } => format!("quarantined {job}"),
        Change::JobRequeued { job, .. } => format!("requeued {job}"),
        Change::WorkerJoined { worker, .. } => format!("joined {worker}"),
        Change::WorkerDraining { worker, .. } => format!("draining {worker}"),
        Change::WorkerResumed { worker, .. } => format!("resumed {worker}"),
        Change::WorkerLeft { worker, .. } => format!("left {worker}"),
        Change::WorkerExpired { worker, .. } => format!("expired {worker}"),
        Change::Reset | Change::Synced { .. } => panic!("no script says so: {change:?}"),
    }
}

fn jobs(ids: &[&str]) -> Vec<(crate::JobId, Bytes)> {
    ids.iter().map(|job| (id(job), Bytes::new())).collect()
}

#[tokio::test]
async fn add_tells_of_the_job_and_of_who_gets_it() {
    let (mut w, _) = Watched::new(0).await;
    w.bench.add("a", "x").await;
    assert_eq!(w.told(), ["added a"]);
    for _ in 0..2 {
        w.bench.joined().await;
    }
    assert_eq!(w.told(), ["joined 1", "joined 2"]);
    w.bench.add_all(&jobs(&["b", "a", "c"])).await.unwrap();
    assert_eq!(w.told(), ["added b, assigned b 1, added c, assigned c 2"]);
    assert_eq!(w.bench.add("b", "x").await.0, AddCode::Existing);
    assert_eq!(w.told(), NOTHING);
    // The grant that the worker hears of is the one that is told.
    let record = w.bench.command(&["HGET", "@owner", "c"]).text();
    assert!(record.starts_with(&format!("a 2 {} ", w.last)), "{record}");
}

#[tokio::test]
async fn what_is_added_again_while_it_is_let_go_of_is_told_as_added_and_later_as_assigned() {
    let (mut w, members) = Watched::new(1).await;
    w.bench.add("a", "x").await;
    w.told();
    let grant = w.last;
    w.bench.delete("a", None).await;
    assert_eq!(w.bench.add("a", "y").await.0, AddCode::AfterRelease);
    assert_eq!(w.told(), ["deleted a", "added a"]);
    assert!(w.bench.release(members[0].worker, "a", grant).await);
    assert_eq!(w.told(), ["released a 1, assigned a 1"]);
}

#[tokio::test]
async fn update_tells_of_each_job_that_has_another_payload() {
    let (mut w, _) = Watched::new(1).await;
    w.bench.add("held", "x").await;
    w.bench.order(WorkerId(1), Order::Drain).await;
    w.bench.add("waits", "x").await;
    w.told();
    let updates = jobs(&["held", "unknown", "waits"]);
    let codes = w.bench.store.update(&updates).await.unwrap();
    assert_eq!(codes, [UpdateCode::Told, UpdateCode::Unknown, UpdateCode::Stored]);
    assert_eq!(w.told(), ["updated held, updated waits"]);
    w.bench.delete("held", None).await;
    assert_eq!(w.bench.update("held", "y").await, UpdateCode::Unknown);
    assert_eq!(w.told(), ["deleted held"]);
}

#[tokio::test]
async fn delete_tells_once_of_each_job_wherever_it_is() {
    let (mut w, members) = Watched::new(1).await;
    w.bench.add_all(&jobs(&["held", "moving"])).await.unwrap();
    w.bench.command(&["HSET", "@owner", "mad", "q 0 0 5"]);
    w.bench.joined().await;
    assert_eq!(w.bench.rebalance().await, 1);
    w.bench.order(members[0].worker, Order::Drain).await;
    w.bench.order(WorkerId(2), Order::Drain).await;
    w.bench.add("waits", "x").await;
    let told = w.told();
    assert_eq!(told[2..], ["moving held", "draining 1", "draining 2", "added waits"], "{told:?}");
    for job in ["held", "moving", "mad", "waits"] {
        assert_ne!(w.bench.delete(job, None).await, DeleteCode::Unknown);
        assert_eq!(w.told(), [format!("deleted {job}")]);
        w.bench.delete(job, None).await;
        assert_eq!(w.told(), NOTHING, "once");
    }
    w.bench.delete("unknown", None).await;
    assert_eq!(w.told(), NOTHING);
}

#[tokio::test]
async fn release_tells_of_what_is_let_go_of_and_of_what_is_given_out_for_it() {
    let (mut w, _) = Watched::new(0).await;
    w.bench.joined_on(SMALL).await;
    w.bench.add_all(&jobs(&["a", "b"])).await.unwrap();
    w.bench.delete("a", None).await;
    w.told();
    w.bench.release_now("a").await;
    assert_eq!(w.told(), ["released a 1, assigned b 1"]);
    assert!(!w.bench.release(WorkerId(1), "a", Revision(5)).await);
    assert_eq!(w.told(), NOTHING);
    w.bench.release_now("b").await;
    assert_eq!(w.told(), ["released b 1, assigned b 1"], "it is the only one");
}

#[tokio::test]
async fn place_rebalance_and_requeue_tell_what_they_do() {
    let (mut w, _) = Watched::new(0).await;
    w.bench.add_all(&jobs(&["a", "b"])).await.unwrap();
    w.bench.joined().await;
    w.told();
    w.bench.store.place().await.unwrap();
    assert_eq!(w.told(), ["assigned a 1, assigned b 1"]);
    w.bench.store.place().await.unwrap();
    assert_eq!(w.told(), NOTHING);
    w.bench.joined().await;
    w.bench.rebalance().await;
    assert_eq!(w.told(), ["joined 2", "moving a"]);
    w.bench.rebalance().await;
    assert_eq!(w.told(), NOTHING);
    w.bench.release_now("a").await;
    assert_eq!(w.told(), ["released a 1, assigned a 2"]);
    w.bench.command(&["HSET", "@owner", "mad", "q 0 0 5"]);
    w.bench.store.requeue(&[id("mad"), id("a"), id("unknown")]).await.unwrap();
    let told = w.told();
    assert!(told == ["requeued mad, assigned mad 1"] || told == ["requeued mad, assigned mad 2"], "{told:?}");
}

#[tokio::test]
async fn order_and_beat_tell_when_a_worker_is_given_nothing_more_and_when_it_is_again() {
    let (mut w, members) = Watched::new(1).await;
    let member = &members[0];
    for order in [Order::Drain, Order::Evict] {
        w.bench.order(member.worker, order).await;
        w.bench.beat(member, JOINED, order == Order::Evict).await.unwrap().unwrap();
    }
    assert_eq!(w.told(), ["draining 1"], "once");
    w.bench.order(member.worker, Order::Resume).await;
    assert_eq!(w.told(), NOTHING, "not before its beat");
    for draining in [false, false, true, true, false] {
        w.bench.beat(member, JOINED, draining).await.unwrap().unwrap();
    }
    assert_eq!(w.told(), ["resumed 1", "draining 1", "resumed 1"]);
    w.bench.beat_on(member, Terms { weight: 3, ..TERMS }).await;
    assert_eq!(w.told(), NOTHING, "other terms are nobody else's concern");
    w.bench.order(WorkerId(99), Order::Drain).await;
    assert_eq!(w.told(), NOTHING);
}

#[tokio::test]
async fn join_tells_of_the_newcomer_and_of_the_one_that_it_takes_over_from() {
    let (mut w, _) = Watched::new(0).await;
    let first = w.bench.joined_as("name", Duration::ZERO, false).await;
    w.bench.join(&first, JOINED).await.unwrap().unwrap(); // run twice
    assert_eq!(w.told(), ["joined 1"]);
    w.bench.joined_as("name", Duration::ZERO, true).await;
    assert_eq!(w.told(), ["joined 2, draining 1"]);
    w.bench.order(WorkerId(2), Order::Drain).await;
    w.bench.joined_as("name", Duration::ZERO, true).await;
    assert_eq!(w.told(), ["draining 2", "joined 3"], "that it drains was told before");
}

#[tokio::test]
async fn leave_tells_of_the_worker_once_and_of_each_of_its_jobs() {
    let (mut w, members) = Watched::new(1).await;
    w.bench.add_all(&jobs(&["a", "b", "c"])).await.unwrap();
    w.bench.delete("b", None).await;
    w.bench.joined().await;
    w.told();
    w.bench.leave_batch(&members[0], 2).await;
    assert_eq!(w.told(), ["left 1, released a 1, assigned a 2, released b 1"]);
    w.bench.leave_batch(&members[0], 2).await;
    w.bench.leave_batch(&members[0], 2).await;
    assert_eq!(w.told(), ["released c 1, assigned c 2"]);
}

#[tokio::test]
async fn reap_tells_of_the_dead_once_and_of_each_of_its_jobs() {
    let (mut w, members) = Watched::new(1).await;
    w.bench.add_all(&jobs(&["a", "b", "c"])).await.unwrap();
    w.told();
    w.bench.reap(members[0].worker).await.unwrap();
    assert_eq!(w.told(), NOTHING, "it is alive");
    w.bench.end_lock(members[0].worker);
    w.bench.reap_batch(members[0].worker, 2, 0).await;
    assert_eq!(w.told(), ["expired 1, released a 1, released b 1"]);
    w.bench.joined().await;
    assert_eq!(w.bench.reap(members[0].worker).await.unwrap().0, reaped(1, 0));
    w.bench.reap(members[0].worker).await.unwrap();
    assert_eq!(w.told(), ["joined 2", "released c 1, assigned c 2"]);
}

#[tokio::test]
async fn what_is_kept_for_a_name_is_told_of_when_it_moves() {
    let (mut w, _) = Watched::new(0).await;
    w.bench.joined_as("name", NAME_GRACE, false).await;
    w.bench.add("a", "x").await;
    w.told();
    w.bench.end_lock(WorkerId(1));
    assert!(matches!(w.bench.reap(WorkerId(1)).await.unwrap().0, Reap::Kept { .. }));
    assert_eq!(w.told(), ["expired 1"]);
    w.bench.joined_as("name", NAME_GRACE, false).await;
    w.bench.reap(WorkerId(1)).await.unwrap();
    assert_eq!(w.told(), ["joined 2", "released a 1, assigned a 2"]);
}

#[tokio::test]
async fn a_quarantine_is_told_in_the_place_of_the_release() {
    let (mut w, members) = Watched::new(1).await;
    w.bench.add("mad", "x").await;
    w.told();
    w.bench.crashed(members[0].worker).await;
    let suspicion = Suspicion { crashes: 1, ..TRUST };
    w.bench.store.reap(members[0].worker, JOINED, suspicion).await.unwrap();
    assert_eq!(w.told(), ["expired 1, quarantined mad"]);
}

// What the roster never had is not told to be gone.
#[tokio::test]
async fn a_number_that_was_only_reserved_is_no_worker_to_anybody_who_watches() {
    let (mut w, _) = Watched::new(0).await;
    let (leaves, lapses) = (w.bench.reserved().await, w.bench.reserved().await);
    assert_eq!(w.bench.store.roster("0").await.unwrap().0.len(), 0);
    w.bench.store.leave(&leaves).await.unwrap();
    w.bench.end_lock(lapses.worker);
    assert_eq!(w.bench.reap(lapses.worker).await.unwrap().0, reaped(0, 0));
    assert_eq!(w.told(), NOTHING);
}

#[tokio::test]
async fn who_only_asks_tells_nothing() {
    let (mut w, members) = Watched::new(1).await;
    let (_, born) = w.bench.add("a", "x").await;
    w.told();
    w.bench.look();
    w.bench.reserved().await;
    w.bench.store.open("run-2").await.unwrap();
    w.bench.store.sync(&members[0], Revision(0), None).await.unwrap().unwrap();
    w.bench.store.survey().await.unwrap();
    w.bench.store.roster("0").await.unwrap();
    w.bench.store.list("0").await.unwrap();
    w.bench.store.find(&id("a")).await.unwrap();
    w.bench.store.history(born).await.unwrap();
    w.bench.store.watch(KEEP, 1_000).await.unwrap();
    assert_eq!(w.told(), NOTHING);
}

// Promise: who does not watch pays nothing.
#[tokio::test]
async fn without_a_watcher_and_after_its_time_nothing_is_told_or_kept() {
    let (mut bench, _) = Bench::with_workers(1).await;
    bench.add("a", "x").await;
    assert_eq!(bench.command(&["EXISTS", "@watch", "@changes"]).int(), 0);
    let mut w = Watched::on(bench).await;
    w.bench.add("b", "x").await;
    assert_eq!(w.told(), ["added b, assigned b 1"]);
    w.bench.command(&["HSET", "@watch", "until", "5"]);
    w.bench.look();
    w.bench.add("c", "x").await;
    assert_eq!(w.hear().len(), 0);
    assert!(w.bench.look().iter().all(|line| !line.starts_with("watch") && !line.starts_with("changes")));
}

#[tokio::test]
async fn watch_keeps_the_longest_time_and_the_greatest_length_and_begins_anew_after_that_time() {
    let mut bench = Bench::new().await;
    let begin = bench.store.watch(KEEP, 7).await.unwrap();
    let lines = bench.look();
    assert_eq!(lines, ["rev: r1", "watch from: r1", "watch last: r1", "watch length: 7", "watch until: T"]);
    let before = bench.command(&["HGET", "@watch", "until"]).text();
    assert_eq!(bench.store.watch(Duration::from_secs(1), 3).await.unwrap(), begin);
    assert_eq!(bench.look(), NOTHING, "a shorter time and a smaller length are those of another watcher");
    assert_eq!(bench.command(&["HGET", "@watch", "until"]).text(), before);
    bench.store.watch(KEEP * 2, 9).await.unwrap();
    assert_eq!(bench.look(), ["watch length: 9", "watch until: T"]);

    bench.add("a", "x").await;
    let lines = bench.look();
    assert!(
        lines.contains(&"changes r2-0: a batch".into()) && lines.contains(&"watch last: r2".into()),
        "{lines:?}"
    );
    bench.command(&["HSET", "@watch", "until", "5"]);
    bench.add("unseen", "x").await;
    bench.look();
    let anew = bench.store.watch(KEEP, 3).await.unwrap();
    assert!(anew > begin);
    assert_eq!(
        bench.look(),
        [
            "changes r2-0: -",
            "rev: r4",
            "watch from: r4",
            "watch last: r4",
            "watch length: 3",
            "watch until: T",
        ]
    );
    for at in [begin, Revision(begin.0 + 1)] {
        assert!(!bench.store.history(at).await.unwrap().reaches, "nobody watched meanwhile");
    }
    assert!(bench.store.history(anew).await.unwrap().reaches);
}

// A journal that nobody reads any more is not kept for ever.
#[tokio::test]
async fn nothing_is_left_of_watching_when_its_time_has_passed() {
    let mut bench = Bench::new().await;
    bench.store.watch(Duration::from_millis(200), 10).await.unwrap();
    bench.add("a", "x").await;
    for key in ["@watch", "@changes"] {
        let left = bench.command(&["PTTL", key]).int();
        assert!((-2..=200).contains(&left) && left != -1, "{key}: {left}");
    }
    bench.store.watch(KEEP, 10).await.unwrap();
    bench.add("b", "x").await;
    for key in ["@watch", "@changes"] {
        assert!((500_000..=600_000).contains(&bench.command(&["PTTL", key]).int()), "{key}");
    }
    bench.command(&["HSET", "@watch", "until", "5"]);
    bench.store.watch(Duration::from_millis(5), 10).await.unwrap();
    until("it is gone", || bench.command(&["EXISTS", "@watch", "@changes"]).int() == 0).await;
}

#[tokio::test]
async fn history_gives_what_is_after_a_revision_a_page_at_a_time() {
    let (mut w, _) = Watched::new(1).await;
    let begin = w.last;
    for job in 0..50 {
        w.bench.add_all(&jobs(&[&format!("{job}/1"), &format!("{job}/2")])).await.unwrap();
    }
    w.told();
    let (mut at, mut batches) = (begin, Vec::new());
    loop {
        let history = w.bench.store.history(at).await.unwrap();
        assert!(history.reaches && history.target == w.last && history.batches.len() <= 32);
        batches.extend(history.batches);
        at = batches.last().map_or(at, |batch| batch.last);
        if !history.more {
            break;
        }
    }
    assert_eq!((batches.len(), batches[0].previous, at), (50, begin, w.last));
    assert!(batches.windows(2).all(|pair| pair[0].last == pair[1].previous));
    // From the middle of a batch comes the whole batch; at the end nothing is missing.
    let middle = batches[7].changes[1].revision().unwrap();
    assert_eq!(w.bench.store.history(middle).await.unwrap().batches[0], batches[7]);
    let end = w.bench.store.history(w.last).await.unwrap();
    assert!(end.reaches && end.batches.is_empty());
    // A frame's revision is later than the last change.
    w.bench.delete("0/1", None).await;
    let revision = w.bench.store.survey().await.unwrap().revision;
    let end = w.bench.store.history(revision).await.unwrap();
    assert!(end.reaches && end.batches.is_empty() && end.target < revision);
    // What the cluster never had says nothing of what is missing.
    for beyond in [revision.0 + 1, revision.0 + 1_000_000, 1 << 53, u64::MAX] {
        assert!(!w.bench.store.history(Revision(beyond)).await.unwrap().reaches, "{beyond}");
    }
    w.bench.command(&["HSET", "@watch", "until", "5"]);
    let lapsed = w.bench.store.history(w.last).await.unwrap();
    assert!(!lapsed.reaches && lapsed.target == Revision(0), "nobody watches");
}

#[tokio::test]
async fn the_journal_has_at_least_its_length_and_not_much_more() {
    let (mut w, _) = Watched::new(0).await;
    w.bench.command(&["HSET", "@watch", "length", "20"]);
    let begin = w.last;
    for job in 0..400 {
        w.bench.add_all(&jobs(&[&job.to_string()])).await.unwrap();
    }
    let length = w.bench.command(&["XLEN", "@changes"]).int();
    assert!((20..=220).contains(&length), "{length}");
    let cut = w.bench.store.history(begin).await.unwrap();
    assert!(cut.batches[0].previous > begin, "so that it shows that it was cut");
    let all = w.kept(begin);
    let from = frame::batch(&all[all.len() - 21]).unwrap().last;
    let last = w.bench.store.history(from).await.unwrap();
    assert_eq!((last.reaches, last.batches.len(), last.batches[0].previous), (true, 20, from));
}

#[tokio::test]
async fn a_journal_of_length_0_is_off_until_somebody_wants_one() {
    let (mut w, _) = Watched::new(0).await;
    w.bench.command(&["HSET", "@watch", "length", "0"]);
    let begin = w.last;
    w.bench.add("a", "x").await;
    assert_eq!(w.hear().len(), 1, "it is published all the same");
    assert_eq!(w.bench.command(&["EXISTS", "@changes"]).int(), 0);
    let history = w.bench.store.history(begin).await.unwrap();
    assert!(!history.reaches && history.target > begin);
    assert!(w.bench.store.history(history.target).await.unwrap().reaches);
    w.bench.store.watch(KEEP, 5).await.unwrap();
    w.bench.add("b", "x").await;
    let history = w.bench.store.history(begin).await.unwrap();
    assert_eq!(history.batches.len(), 1);
    assert!(history.batches[0].previous > begin, "what was not kept shows");
}

// A message of a later release, or of nobody: it cannot be told, and so is missing.
#[tokio::test]
async fn a_journal_that_is_not_understood_does_not_reach() {
    for message in ["message", "", "\u{92}"] {
        let (mut w, _) = Watched::new(0).await;
        let begin = w.last;
        w.bench.command(&["XADD", "@changes", &format!("{}-0", begin.0 + 1), "b", message]);
        w.bench.add("a", "x").await;
        assert!(!w.bench.store.history(begin).await.unwrap().reaches);
        assert!(w.bench.store.history(Revision(begin.0 + 1)).await.unwrap().reaches);
    }
}

// Whoever may write the keys may make a watcher's life hard; the jobs must not suffer from it.
#[tokio::test]
async fn whatever_is_in_the_keys_of_the_watchers_no_script_ends_half_way() {
    let numbers =
        ["", "x", "-1", "1.5", "1e308", "-1e308", "9e15", "99999999999999999999", "nan", "inf", "0x10"];
    // Each of some commands.
    let mut spoils: Vec<Vec<Vec<&str>>> = Vec::new();
    for field in ["until", "last", "from", "length"] {
        spoils.extend(numbers.map(|number| vec![vec!["HSET", "@watch", field, number]]));
        spoils.push(vec![vec!["HDEL", "@watch", field]]);
    }
    for key in ["@watch", "@changes"] {
        let gone = || vec!["DEL", key];
        spoils.push(vec![gone()]);
        spoils.extend(["SET", "RPUSH", "SADD"].map(|command| vec![gone(), vec![command, key, "message"]]));
        spoils.extend(["HSET", "ZADD"].map(|command| vec![gone(), vec![command, key, "5", "message"]]));
        spoils.push(vec![gone(), vec!["XADD", key, "*", "b", "message"]]);
    }
    spoils.push(vec![vec!["XADD", "@changes", "9000000000000000-7", "b", "message"]]);
    spoils.push(vec![vec!["SET", "@rev", "7"]]); // so that revisions may go back, behind the last batch

    for spoil in spoils {
        let (mut w, members) = Watched::new(1).await;
        w.bench.add_all(&jobs(&["a", "b", "c"])).await.unwrap();
        for words in &spoil {
            w.bench.command(words);
        }
        let first = &members[0];

        let spoiled = format!("{spoil:?}");
        let second = w.bench.joined().await;
        assert_eq!(w.bench.add("d", "x").await.0, AddCode::Assigned, "{spoiled}");
        assert_eq!(w.bench.update("d", "y").await, UpdateCode::Told, "{spoiled}");
        assert!(matches!(w.bench.delete("d", None).await, DeleteCode::Releasing { .. }), "{spoiled}");
        w.bench.release_now("d").await;
        w.bench.rebalance().await;
        w.bench.beat(&second, JOINED, true).await.expect("an answer").expect("it beats");
        w.bench.beat(&second, JOINED, false).await.expect("an answer").expect("it beats");
        w.bench.command(&["ZADD", "@deadlines", "1000", "1"]);
        assert_eq!(w.bench.reap(first.worker).await.unwrap().0, reaped(3, 0), "{spoiled}");
        for job in ["a", "b", "c"] {
            assert_eq!(w.bench.holder(job), "a 2", "{spoiled}");
        }
        assert_eq!(w.bench.store.leave(&second).await.unwrap(), Some((3, 0)), "{spoiled}");
        assert_eq!(w.bench.store.survey().await.unwrap().pending, 3, "{spoiled}");
        // Those who watch are told so, or find their way back; they do not make it worse.
        let _ = w.bench.store.watch(KEEP, 10).await;
        let _ = w.bench.store.history(Revision(5)).await;
    }
}

#[tokio::test]
async fn a_journal_with_an_entry_from_the_future_is_begun_anew() {
    let (mut w, _) = Watched::new(1).await;
    w.bench.command(&["XADD", "@changes", "9000000000000000-7", "b", "message"]);
    w.bench.add("a", "x").await;
    assert_eq!(w.told(), ["added a, assigned a 1"], "and nothing else is in it");
}

#[tokio::test]
async fn a_key_of_another_type_is_an_error_for_those_who_watch() {
    let mut bench = Bench::new().await;
    bench.command(&["SET", "@watch", "message"]);
    assert!(kind(bench.store.watch(KEEP, 10).await).is_some());
    assert!(kind(bench.store.history(Revision(5)).await).is_some());
    bench.command(&["DEL", "@watch"]);
    let begin = bench.store.watch(KEEP, 10).await.unwrap();
    bench.command(&["SET", "@changes", "message"]);
    assert!(kind(bench.store.history(begin).await).is_some());
    bench.add("a", "x").await;
    assert_eq!(bench.store.history(begin).await.unwrap().batches.len(), 1, "the next change puts it right");
}

// Promise: what frees memory, and keeps the cluster's word, goes on, and is told; nothing new is, and nothing by half.
#[tokio::test]
async fn when_memory_is_full_what_goes_on_is_told_and_what_is_refused_is_not() {
    let bench = Bench::on(RedisServer::with(&["--maxmemory-policy", "noeviction"])).await;
    let (first, second) = (bench.joined().await, bench.joined().await);
    let mut w = Watched::on(bench).await;
    w.bench.add_all(&jobs(&["a", "b"])).await.unwrap();
    w.told();
    w.bench.command(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(kind(w.bench.add_all(&jobs(&["c"])).await), Some(ErrorKind::OutOfMemory));
    assert_eq!(kind(w.bench.store.update(&jobs(&["a"])).await), Some(ErrorKind::OutOfMemory));
    assert_eq!(w.told(), NOTHING);
    w.bench.store.watch(KEEP, 1_000).await.expect("a watcher's heartbeat is heard");
    w.bench.beat(&second, JOINED, true).await.unwrap().unwrap();
    w.bench.delete("a", None).await;
    w.bench.release_now("a").await;
    w.bench.store.leave(&second).await.unwrap();
    assert_eq!(w.told(), ["draining 2", "deleted a", "released a 1", "left 2, released b 2, assigned b 1"]);
    w.bench.command(&["CONFIG", "SET", "maxmemory", "0"]);
    w.bench.end_lock(first.worker);
    w.bench.command(&["CONFIG", "SET", "maxmemory", "1"]);
    w.bench.reap(first.worker).await.unwrap();
    assert_eq!(w.told(), ["expired 1, released b 1"]);
}

// Time itself, not a number that a test has written.
#[tokio::test]
async fn a_short_time_of_watching_passes() {
    let mut bench = Bench::new().await;
    bench.store.watch(Duration::from_millis(30), 10).await.unwrap();
    let mut number = 0;
    loop {
        number += 1;
        bench.add_all(&jobs(&[&number.to_string()])).await.unwrap();
        let kept = bench.command(&["XLEN", "@changes"]).int();
        // Each key's time is over within a millisecond of the other's.
        if kept < number && bench.command(&["EXISTS", "@watch"]).int() == 0 {
            break;
        }
    }
    let history = bench.store.history(Revision(5)).await.unwrap();
    assert!(!history.reaches && history.target == Revision(0), "nobody watches");
}
