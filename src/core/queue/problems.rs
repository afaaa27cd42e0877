//! What went wrong and waits for the consumer: bounded, however slow it is.

use std::collections::VecDeque;
use std::time::Duration;

#[cfg(test)]
use crate::core::trail::Trail;
use crate::error::{Error, ErrorKind};
use crate::id::JobId;

/// How many wait at most, beside release timeouts; what comes on top is counted.
pub(super) const MOST: usize = 64;

#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Problems {
    /// Jobs whose release timed out after so long. None is left out: each tells of an overlap that nothing else tells of. They
    /// are bounded all the same, by the jobs that the consumer had when it began to lag. Each is of an `Add` that it polled,
    /// and as long as any waits, every other thing that it polls is one of them.
    overdue: VecDeque<(JobId, Duration)>,
    others: VecDeque<Error>,
    left_out: u64,
}

impl Problems {
    pub(super) fn push_overdue(&mut self, job: JobId, timeout: Duration) {
        self.overdue.push_back((job, timeout));
    }

    pub(super) fn push(&mut self, error: Error) {
        if self.others.len() < MOST {
            self.others.push_back(error);
        } else {
            self.left_out += 1;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.overdue.is_empty() && self.others.is_empty() && self.left_out == 0
    }

    pub(super) fn pop(&mut self) -> Option<Error> {
        if let Some((job, timeout)) = self.overdue.pop_front() {
            return Some(overdue(job, timeout));
        }
        let problem = self.others.pop_front();
        if problem.is_none() && self.left_out > 0 {
            let text = format!("{} more errors were left out; poll the stream more often", self.left_out);
            self.left_out = 0;
            return Some(Error::new(ErrorKind::Lagged, text));
        }
        problem
    }

    /// How many wait, and not which: they are told to the consumer and change nothing else.
    #[cfg(test)]
    pub(super) fn walk(&self, trail: &mut Trail) {
        let Self { overdue, others, left_out } = self;
        trail.count(overdue.len());
        trail.count(others.len());
        trail.value(*left_out);
    }
}

fn overdue(job: JobId, timeout: Duration) -> Error {
    let text = format!(
        "the job is released as it was not let go of within {timeout:?} of being asked for: its Delete was not polled, or a handle \
         is still out, and then its handler may overlap the next owner. Poll the stream without waiting for anything else, \
         make the handler stop sooner, or raise release_timeout"
    );
    Error::new(ErrorKind::ReleaseTimeout, text).with_job(job)
}
