//! What waits for the consumer: at most one pending change a job, however slow the consumer is.
//!
//! ```text
//! nothing -- add --> Add -- delete --> nothing (both vanish; the view releases)
//! nothing -- update -> Update -- delete --> Delete
//! nothing -- delete -> Delete -- add --> Replace (Delete, then Add) -- delete --> Delete
//! ```

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use crate::error::{Error, ErrorKind};
use crate::id::{Epoch, JobId, Revision};
use crate::message::{CloseReason, DeleteReason};

/// How many problems wait at most; what comes on top is counted.
const MOST_PROBLEMS: usize = 64;

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
#[derive(Debug)]
enum Change {
    Add(Handover),
    Update(Handover),
    Delete(Ending),
    /// The end of one assignment, and then the next.
    Replace(Ending, Handover),
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    changes: HashMap<JobId, (u64, Change)>,
    /// Jobs by when they first had a change, each with its change's number; one whose number is another's is stale.
    order: VecDeque<(JobId, u64)>,
    next_number: u64,
    problems: VecDeque<Error>,
    problems_left_out: u64,
    /// A problem was the last to be popped: then it is a change's turn, or a flood of them would hold up all else.
    problem_popped: bool,
    close: Close,
}

#[derive(Debug, Default)]
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
            Some(_) => {} // it ends, or was not seen yet: see `set_epoch`
            None => self.push(job, Change::Update(handover)),
        }
    }

    /// An assignment that the consumer has not seen yet has another epoch.
    pub(crate) fn set_epoch(&mut self, job: &JobId, epoch: Epoch) {
        if let Some((_, Change::Add(handover) | Change::Replace(_, handover))) = self.changes.get_mut(job) {
            handover.epoch = epoch;
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
        if self.problems.len() < MOST_PROBLEMS {
            self.problems.push_back(error);
        } else {
            self.problems_left_out += 1;
        }
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

    /// How many jobs have a change that waits.
    pub(crate) fn len(&self) -> usize {
        self.changes.len()
    }

    pub(crate) fn pop(&mut self) -> Option<Delivery> {
        if self.is_finished() {
            return None;
        }
        let change_first = std::mem::take(&mut self.problem_popped) && !self.changes.is_empty();
        if !change_first && let Some(problem) = self.pop_problem() {
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

    fn pop_problem(&mut self) -> Option<Error> {
        let problem = self.problems.pop_front();
        if problem.is_none() && self.problems_left_out > 0 {
            let count = std::mem::take(&mut self.problems_left_out);
            let text = format!(
                "{count} more errors were not kept: poll the stream more often; the log has them all"
            );
            return Some(Error::new(ErrorKind::Server, text));
        }
        problem
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
    use super::*;

    fn job(id: &str) -> JobId {
        JobId::new(id).expect("a plain id")
    }

    fn handover(grant: u64) -> Handover {
        let payload = Bytes::from_static(b"p");
        Handover { grant: Revision(grant), epoch: Epoch(grant), born: Revision(grant), payload }
    }

    fn ending(grant: u64) -> Ending {
        Ending { grant: Revision(grant), epoch: Epoch(grant), reason: DeleteReason::Removed }
    }

    fn problem(queue: &mut Queue, text: &str) {
        queue.problem(Error::new(ErrorKind::Protocol, text));
    }

    fn pop(queue: &mut Queue) -> Option<String> {
        Some(match queue.pop()? {
            Delivery::Add { job, epoch, .. } => format!("add {job} {epoch}"),
            Delivery::Update { job, epoch, .. } => format!("update {job} {epoch}"),
            Delivery::Delete { job, grant, .. } => format!("delete {job} {grant}"),
            Delivery::Problem(error) => format!("problem {error}"),
            Delivery::Close(_) => "close".into(),
        })
    }

    fn all(queue: &mut Queue) -> Vec<String> {
        std::iter::from_fn(|| pop(queue)).collect()
    }

    // "Bounded memory": an add and a delete that both wait cancel out.
    #[test]
    fn an_add_that_is_taken_back_is_never_heard_of() {
        let mut queue = Queue::default();
        queue.add(&job("a"), handover(1));
        queue.cancel_add(&job("a"));
        assert!(!queue.is_ready());
        assert_eq!(all(&mut queue), [""; 0]);
    }

    // Rule 7: a replace is two events, not one slot overwritten.
    #[test]
    fn an_end_and_the_next_beginning_are_both_told_in_that_order() {
        let mut queue = Queue::default();
        queue.delete(&job("a"), ending(1));
        queue.add(&job("b"), handover(2));
        queue.add(&job("a"), handover(3));
        assert_eq!(queue.len(), 2, "one change a job");
        assert_eq!(all(&mut queue), ["delete a 1", "add a 3", "add b 2"]);
    }

    #[test]
    fn of_a_replace_whose_beginning_is_taken_back_the_end_is_left() {
        let mut queue = Queue::default();
        queue.delete(&job("a"), ending(1));
        queue.add(&job("a"), handover(2));
        queue.cancel_add(&job("a"));
        assert_eq!(all(&mut queue), ["delete a 1"]);
    }

    #[test]
    fn the_newest_update_takes_the_place_of_the_one_before_and_an_end_that_of_both() {
        let mut queue = Queue::default();
        queue.update(&job("a"), handover(1));
        queue.add(&job("b"), handover(2));
        queue.update(&job("a"), handover(3));
        assert_eq!(pop(&mut queue).as_deref(), Some("update a 3"));
        queue.update(&job("a"), handover(4));
        queue.delete(&job("a"), ending(4));
        queue.update(&job("a"), handover(5));
        assert_eq!(all(&mut queue), ["add b 2", "delete a 4"]);
    }

    #[test]
    fn an_add_that_waits_takes_a_new_epoch_in_its_place() {
        let mut queue = Queue::default();
        queue.add(&job("a"), handover(1));
        queue.set_epoch(&job("a"), Epoch(9));
        queue.delete(&job("b"), ending(1));
        queue.add(&job("b"), handover(2));
        queue.set_epoch(&job("b"), Epoch(9));
        assert_eq!(all(&mut queue), ["add a 9", "delete b 1", "add b 9"]);
    }

    // A job that came and went counts from when it came again.
    #[test]
    fn jobs_come_in_the_order_in_which_they_first_had_a_change() {
        let mut queue = Queue::default();
        queue.add(&job("a"), handover(1));
        queue.add(&job("b"), handover(2));
        queue.cancel_add(&job("a"));
        queue.add(&job("a"), handover(3));
        assert_eq!(all(&mut queue), ["add b 2", "add a 3"]);
    }

    // "Bounded memory", "honest failure": what is left out is counted, and said.
    #[test]
    fn problems_are_bounded_and_what_is_left_out_is_said() {
        let mut queue = Queue::default();
        for _ in 0..MOST_PROBLEMS + 3 {
            problem(&mut queue, "x");
        }
        let all = all(&mut queue);
        assert_eq!(all.len(), MOST_PROBLEMS + 1);
        assert!(all[MOST_PROBLEMS].starts_with("problem 3 more errors"));
    }

    // "Nothing lost": whoever can make problems faster than they are polled must not hold up a Delete.
    #[test]
    fn a_flood_of_problems_does_not_hold_up_the_changes() {
        let mut queue = Queue::default();
        problem(&mut queue, "x");
        queue.delete(&job("a"), ending(1));
        assert_eq!(pop(&mut queue).as_deref(), Some("problem x"));
        problem(&mut queue, "y");
        assert_eq!(all(&mut queue), ["delete a 1", "problem y"]);
    }

    // "The stream": the last event is Close, exactly one.
    #[test]
    fn close_comes_after_all_that_waits_and_nothing_after_it() {
        let mut queue = Queue::default();
        queue.delete(&job("a"), ending(1));
        queue.close(CloseReason::Terminated);
        queue.close(CloseReason::LockExpired);
        problem(&mut queue, "x");
        assert_eq!(all(&mut queue), ["problem x", "delete a 1", "close"]);
        problem(&mut queue, "y");
        queue.add(&job("b"), handover(2));
        assert!(queue.is_finished() && !queue.is_ready());
        assert_eq!(all(&mut queue), [""; 0]);
    }

    // "Bounded memory": behind a consumer that does not poll, too.
    #[test]
    fn jobs_that_come_and_go_leave_nothing_behind() {
        let mut queue = Queue::default();
        queue.add(&job("b"), handover(1));
        for grant in 2..10_000 {
            queue.add(&job("a"), handover(grant));
            queue.cancel_add(&job("a"));
        }
        assert!(queue.order.len() < 100);
        assert_eq!(all(&mut queue), ["add b 1"]);
    }
}
