//! What waits for the consumer: at most one pending change a job, however slow the consumer is.
//!
//! ```text
//! nothing -- add --> Add -- delete --> nothing (both vanish; the view releases)
//! nothing -- update -> Update -- delete --> Delete
//! nothing -- delete -> Delete -- add --> Replace (Delete, then Add) -- delete --> Delete
//! Add, Replace -- update --> the same, and the Add has the new payload or epoch
//! ```

mod problems;
#[cfg(test)]
mod walk;

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use self::problems::Problems;
use crate::error::Error;
use crate::id::{Epoch, JobId, Revision};
use crate::message::{CloseReason, DeleteReason};

/// What the consumer gets next.
#[derive(Debug)]
pub(crate) enum Delivery {
    Add { job: JobId, grant: Revision, epoch: Epoch, born: Revision, payload: Bytes },
    Update { job: JobId, grant: Revision, epoch: Epoch, born: Revision, payload: Bytes },
    Delete { job: JobId, grant: Revision, epoch: Epoch, reason: DeleteReason },
    Problem(Error),
    Close(CloseReason),
}

/// An assignment as it is handed to the consumer.
#[derive(Clone, Debug)]
pub(crate) struct Handover {
    pub(crate) grant: Revision,
    pub(crate) epoch: Epoch,
    pub(crate) born: Revision,
    pub(crate) payload: Bytes,
}

/// The end of an assignment that the consumer has seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ending {
    pub(crate) grant: Revision,
    pub(crate) epoch: Epoch,
    pub(crate) reason: DeleteReason,
}

/// One job's pending change.
#[derive(Clone, Debug)]
enum Change {
    Add(Handover),
    Update(Handover),
    Delete(Ending),
    /// The end of one assignment, and then the next.
    Replace(Ending, Handover),
}

#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Queue {
    changes: HashMap<JobId, (u64, Change)>,
    /// Jobs by when they first had a change, each with its change's number; one whose number is another's is stale.
    order: VecDeque<(JobId, u64)>,
    next_number: u64,
    problems: Problems,
    /// A problem was the last to be popped: then it is a change's turn, or a flood of them would hold up all else.
    problem_popped: bool,
    close: Close,
}

#[derive(Clone, Debug, Default)]
enum Close {
    #[default]
    Open,
    /// Comes after all else.
    Pending(CloseReason),
    Polled,
}

impl Queue {
    /// A job that the consumer does not hold, or whose end waits, is assigned.
    pub(crate) fn add(&mut self, job: &JobId, handover: Handover) {
        match self.changes.remove(job) {
            Some((number, Change::Delete(ending) | Change::Replace(ending, _))) => {
                self.changes.insert(job.clone(), (number, Change::Replace(ending, handover)));
            }
            _ => self.push(job, Change::Add(handover)),
        }
    }

    /// An assignment that the consumer has seen changed.
    pub(crate) fn update(&mut self, job: &JobId, handover: Handover) {
        match self.changes.get_mut(job) {
            Some((_, change @ Change::Update(_))) => *change = Change::Update(handover),
            Some(_) => {} // it ends, or was not seen yet: see `set_epoch` and `refresh`
            None => self.push(job, Change::Update(handover)),
        }
    }

    /// An assignment that the consumer has not seen yet has another epoch.
    pub(crate) fn set_epoch(&mut self, job: &JobId, epoch: Epoch) {
        if let Some((_, Change::Add(handover) | Change::Replace(_, handover))) = self.changes.get_mut(job) {
            handover.epoch = epoch;
        }
    }

    /// An assignment that the consumer has not seen yet has another payload.
    pub(crate) fn refresh(&mut self, job: &JobId, payload: Bytes) {
        if let Some((_, Change::Add(handover) | Change::Replace(_, handover))) = self.changes.get_mut(job) {
            handover.payload = payload;
        }
    }

    /// An assignment that the consumer has seen ends.
    pub(crate) fn delete(&mut self, job: &JobId, ending: Ending) {
        match self.changes.get_mut(job) {
            Some((_, change @ Change::Update(_))) => *change = Change::Delete(ending),
            Some(_) => {} // it ends already
            None => self.push(job, Change::Delete(ending)),
        }
    }

    /// Takes back an add that was not polled: the consumer never hears of it.
    pub(crate) fn cancel_add(&mut self, job: &JobId) {
        match self.changes.remove(job) {
            Some((number, Change::Replace(ending, _))) => {
                self.changes.insert(job.clone(), (number, Change::Delete(ending)));
            }
            Some((_, Change::Add(_))) | None => {}
            Some(change) => {
                self.changes.insert(job.clone(), change);
            }
        }
    }

    pub(crate) fn problem(&mut self, error: Error) {
        self.problems.push(error);
    }

    /// A handle was out for longer than this after its job's `Delete`.
    pub(crate) fn release_timed_out(&mut self, job: &JobId, timeout: Duration) {
        self.problems.push_overdue(job.clone(), timeout);
    }

    /// Nothing but what waits already comes before the end.
    pub(crate) fn close(&mut self, reason: CloseReason) {
        if matches!(self.close, Close::Open) {
            self.close = Close::Pending(reason);
        }
    }

    pub(crate) fn is_finished(&self) -> bool {
        matches!(self.close, Close::Polled)
    }

    /// Whether `pop` has something.
    pub(crate) fn is_ready(&self) -> bool {
        match self.close {
            Close::Open => !self.changes.is_empty() || !self.problems.is_empty(),
            Close::Pending(_) => true,
            Close::Polled => false,
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.changes.len()
    }

    pub(crate) fn pop(&mut self) -> Option<Delivery> {
        if self.is_finished() {
            return None;
        }
        let change_first = std::mem::take(&mut self.problem_popped) && !self.changes.is_empty();
        if !change_first && let Some(problem) = self.problems.pop() {
            self.problem_popped = true;
            return Some(Delivery::Problem(problem));
        }
        while let Some((job, number)) = self.order.pop_front() {
            if self.changes.get(&job).is_some_and(|(current, _)| *current == number)
                && let Some((number, change)) = self.changes.remove(&job)
            {
                return Some(self.deliver(job, number, change));
            }
        }
        if let Close::Pending(reason) = self.close {
            self.close = Close::Polled;
            return Some(Delivery::Close(reason));
        }
        None
    }

    fn deliver(&mut self, job: JobId, number: u64, change: Change) -> Delivery {
        let delete = |job, Ending { grant, epoch, reason }| Delivery::Delete { job, grant, epoch, reason };
        match change {
            Change::Add(Handover { grant, epoch, born, payload }) => {
                Delivery::Add { job, grant, epoch, born, payload }
            }
            Change::Update(Handover { grant, epoch, born, payload }) => {
                Delivery::Update { job, grant, epoch, born, payload }
            }
            Change::Delete(ending) => delete(job, ending),
            Change::Replace(ending, handover) => {
                self.order.push_front((job.clone(), number));
                self.changes.insert(job.clone(), (number, Change::Add(handover)));
                delete(job, ending)
            }
        }
    }

    fn push(&mut self, job: &JobId, change: Change) {
        let number = self.next_number;
        self.next_number += 1;
        self.changes.insert(job.clone(), (number, change));
        self.order.push_back((job.clone(), number));
        // Jobs that came and went leave stale entries; they must not pile up behind a consumer that does not poll.
        if self.order.len() > 2 * self.changes.len() + 64 {
            let changes = &self.changes;
            self.order.retain(|(job, number)| changes.get(job).is_some_and(|(current, _)| current == number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::problems::MOST;
    use super::*;
    use crate::error::ErrorKind;

    fn id(job: &str) -> JobId {
        JobId::new(job).expect("a plain id")
    }

    fn handover(grant: u64, epoch: u64) -> Handover {
        Handover { grant: Revision(grant), epoch: Epoch(epoch), born: Revision(1), payload: Bytes::new() }
    }

    fn ending(grant: u64) -> Ending {
        Ending { grant: Revision(grant), epoch: Epoch(grant), reason: DeleteReason::Removed }
    }

    /// All that waits: `+` an Add, `~` an Update, `-` a Delete, with grant and epoch.
    fn drain(queue: &mut Queue) -> Vec<String> {
        let text = |delivery| match delivery {
            Delivery::Add { job, grant, epoch, .. } => format!("+{job} {grant} {epoch}"),
            Delivery::Update { job, grant, epoch, .. } => format!("~{job} {grant} {epoch}"),
            Delivery::Delete { job, grant, epoch, .. } => format!("-{job} {grant} {epoch}"),
            Delivery::Problem(error) => format!("{:?} {error}", error.kind()),
            Delivery::Close(reason) => format!("{reason:?}"),
        };
        std::iter::from_fn(|| queue.pop()).map(text).collect()
    }

    // Guards: bounded memory. An add and a delete that both wait cancel out.
    #[test]
    fn an_add_that_is_taken_back_leaves_nothing() {
        let mut queue = Queue::default();
        queue.add(&id("a"), handover(1, 1));
        queue.cancel_add(&id("a"));
        assert!(!queue.is_ready() && drain(&mut queue).is_empty());
    }

    // Guards: the stream. The consumer must see the end of the one before the next begins.
    #[test]
    fn a_delete_and_an_add_are_a_replace_and_the_add_can_be_taken_back() {
        let mut queue = Queue::default();
        queue.delete(&id("a"), ending(1));
        queue.add(&id("b"), handover(2, 2));
        queue.add(&id("a"), handover(3, 3));
        queue.add(&id("a"), handover(4, 4));
        assert_eq!(drain(&mut queue), ["-a 1 1", "+a 4 4", "+b 2 2"]);

        queue.delete(&id("a"), ending(4));
        queue.add(&id("a"), handover(5, 5));
        queue.cancel_add(&id("a"));
        queue.cancel_add(&id("a"));
        assert_eq!(drain(&mut queue), ["-a 4 4"]);
    }

    // Guards: the stream. Half of a replace is polled; the other half may still be taken back.
    #[test]
    fn the_add_of_a_replace_can_be_taken_back_after_its_delete_was_polled() {
        let mut queue = Queue::default();
        queue.delete(&id("a"), ending(1));
        queue.add(&id("a"), handover(2, 2));
        assert!(matches!(queue.pop(), Some(Delivery::Delete { .. })));
        assert!(queue.is_ready());
        queue.cancel_add(&id("a"));
        assert!(!queue.is_ready() && drain(&mut queue).is_empty());
    }

    // Guards: bounded memory, the stream. Of several updates the last counts, and none after the job has ended.
    #[test]
    fn updates_become_one_and_a_delete_swallows_them() {
        let mut queue = Queue::default();
        queue.update(&id("a"), handover(1, 5));
        queue.update(&id("a"), handover(1, 6));
        queue.update(&id("b"), handover(2, 5));
        queue.delete(&id("b"), ending(2));
        queue.update(&id("b"), handover(2, 6));
        queue.delete(&id("b"), Ending { reason: DeleteReason::LockExpired, ..ending(9) });
        assert_eq!(drain(&mut queue), ["~a 1 6", "-b 2 2"]);
    }

    // Guards: rule 10. An assignment that waits for the consumer is handed over with its newest epoch.
    #[test]
    fn a_new_epoch_reaches_what_was_not_polled() {
        let mut queue = Queue::default();
        queue.add(&id("a"), handover(1, 1));
        queue.delete(&id("b"), ending(2));
        queue.add(&id("b"), handover(3, 3));
        queue.set_epoch(&id("a"), Epoch(9));
        queue.set_epoch(&id("b"), Epoch(9));
        queue.set_epoch(&id("c"), Epoch(9));
        assert_eq!(drain(&mut queue), ["+a 1 9", "-b 2 2", "+b 3 9"]);
    }

    // Guards: bounded memory, the stream. What waits for the consumer is handed over with its newest payload, in its place.
    #[test]
    fn a_new_payload_reaches_what_was_not_polled_and_nothing_else() {
        let mut queue = Queue::default();
        queue.add(&id("a"), handover(1, 1));
        queue.delete(&id("b"), ending(2));
        queue.add(&id("b"), handover(3, 3));
        queue.delete(&id("c"), ending(4));
        queue.update(&id("d"), handover(5, 5));
        for job in ["e", "d", "c", "b", "a"] {
            queue.refresh(&id(job), Bytes::from_static(b"new"));
        }
        let payloads = std::iter::from_fn(|| queue.pop()).map(|delivery| match delivery {
            Delivery::Add { job, payload, .. } => format!("+{job} {payload:?}"),
            Delivery::Update { job, payload, .. } => format!("~{job} {payload:?}"),
            Delivery::Delete { job, .. } => format!("-{job}"),
            other => panic!("not expected: {other:?}"),
        });
        let payloads: Vec<String> = payloads.collect();
        assert_eq!(payloads, ["+a b\"new\"", "-b", "+b b\"new\"", "-c", "~d b\"\""]);
    }

    // Guards: no job starves. A job keeps the place that its first change got.
    #[test]
    fn jobs_come_in_the_order_in_which_they_first_had_a_change() {
        let mut queue = Queue::default();
        queue.update(&id("a"), handover(1, 1));
        queue.add(&id("b"), handover(2, 2));
        queue.delete(&id("c"), ending(3));
        queue.delete(&id("a"), ending(1));
        queue.add(&id("c"), handover(4, 4));
        queue.cancel_add(&id("b"));
        queue.add(&id("b"), handover(5, 5));
        assert_eq!(drain(&mut queue), ["-a 1 1", "-c 3 3", "+c 4 4", "+b 5 5"]);
    }

    // Guards: bounded memory. Jobs come and go behind a consumer that does not poll.
    #[test]
    fn places_of_jobs_that_are_gone_do_not_pile_up() {
        let mut queue = Queue::default();
        queue.add(&id("kept"), handover(1, 1));
        for n in 0..10_000 {
            let job = id(&format!("job{}", n % 100));
            queue.add(&job, handover(n, n));
            queue.cancel_add(&job);
            assert!(queue.order.len() <= 70, "{} places", queue.order.len());
        }
        assert_eq!(queue.changes.len(), 1);
        assert_eq!(drain(&mut queue), ["+kept 1 1"]);
    }

    // Guards: honest failure, bounded memory. What is not kept is counted, and said once.
    #[test]
    fn problems_are_kept_up_to_a_bound_and_the_rest_is_counted() {
        let mut queue = Queue::default();
        queue.add(&id("a"), handover(1, 1));
        for _ in 0..MOST + 5 {
            queue.problem(Error::new(ErrorKind::Server, "no"));
        }
        let all = drain(&mut queue);
        assert_eq!(all.len(), MOST + 2);
        assert!(all[MOST + 1].starts_with("Lagged 5 more"), "{all:?}");
        assert_eq!(all[1], "+a 1 1", "a flood of problems does not hold up the changes");
    }

    // Guards: honest failure, bounded memory. Nothing else tells of an overlap, so none of these is left out; and they wait for
    // the consumer no longer than the jobs do that it had when it began to lag.
    #[test]
    fn release_timeouts_are_told_one_and_all_and_are_as_many_as_the_jobs_that_were_held() {
        let mut queue = Queue::default();
        let (held, timeout) = (10 * MOST, Duration::from_secs(30));
        for n in 0..held {
            queue.release_timed_out(&id(&format!("held{n}")), timeout);
        }
        // From here on it polls, slower than jobs come, and holds each one for too long. Other errors come in floods.
        let (mut told, mut added) = (0, 0);
        for n in 0..10_000 {
            queue.add(&id(&format!("new{n}")), handover(1, 1));
            queue.problem(Error::new(ErrorKind::Protocol, "no"));
            match queue.pop() {
                Some(Delivery::Add { job, .. }) => {
                    queue.release_timed_out(&job, timeout);
                    added += 1;
                }
                Some(Delivery::Problem(error)) if error.kind() == ErrorKind::ReleaseTimeout => told += 1,
                other => panic!("not expected: {other:?}"),
            }
            assert!(held + added - told <= held + 1, "{n}: {added} came, {told} were told");
        }
        let rest = drain(&mut queue);
        assert_eq!(
            rest.iter().filter(|text| text.starts_with("ReleaseTimeout")).count(),
            held + added - told
        );
        assert!(rest.iter().any(|text| text.starts_with(&format!("Lagged {} more", 10_000 - MOST))));
    }

    // Guards: honest failure. A consumer that waits is woken for the count, too.
    #[test]
    fn whatever_pop_has_makes_the_queue_ready() {
        let mut queue = Queue::default();
        assert!(!queue.is_ready());
        for _ in 0..=MOST {
            queue.problem(Error::new(ErrorKind::Server, "no"));
        }
        for _ in 0..=MOST {
            assert!(queue.is_ready());
            assert!(queue.pop().is_some());
        }
        assert!(!queue.is_ready() && queue.pop().is_none());
    }

    // Guards: the stream. Close is the last, comes once and with the first reason.
    #[test]
    fn close_comes_after_all_else_and_nothing_after_it() {
        let mut queue = Queue::default();
        queue.delete(&id("a"), ending(1));
        queue.close(CloseReason::LockExpired);
        queue.close(CloseReason::Terminated);
        assert!(queue.is_ready() && !queue.is_finished());
        assert_eq!(drain(&mut queue), ["-a 1 1", "LockExpired"]);
        queue.add(&id("b"), handover(2, 2));
        queue.problem(Error::new(ErrorKind::Server, "late"));
        queue.close(CloseReason::Terminated);
        assert!(queue.is_finished() && !queue.is_ready() && drain(&mut queue).is_empty());
    }
}
