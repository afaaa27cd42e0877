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

    pub(crate) fn pop(&mut self) -> Option<Delivery> {
        if self.is_finished() {
            return None;
        }
        if let Some(problem) = self.pop_problem() {
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
