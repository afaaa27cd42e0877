//! How a worker takes part: how much it can hold, how strong it is, what it is called.

use std::time::Duration;

use crate::core::lease::Fence;
use crate::error::{Error, ErrorKind, Result};
use crate::message::Terms;

const LONGEST_NAME: usize = 128;
const LARGEST_WEIGHT: u32 = 1_000;
const LONGEST_GRACE: Duration = Duration::from_secs(24 * 3600);

/// How a worker takes part. `WorkerOptions::default()` is a worker without a name, as strong as any other, that holds
/// any number of jobs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WorkerOptions {
    /// How many jobs it holds at most; `None`, the default: any number.
    pub capacity: Option<u32>,
    /// How strong it is: its share of the jobs is by this. Default 1.
    pub weight: u32,
    /// How many jobs that come from other workers, or have waited, it is handed in a second at most; `None`, the
    /// default: any number.
    pub takeover_rate: Option<u32>,
    /// Its name. `None`, the default: whoever comes after it begins with nothing.
    pub name: Option<String>,
    /// For how long its jobs are kept for one of the same name, once its lock has ended. Default zero.
    pub grace: Duration,
    /// What happens if a living worker has the name already.
    pub name_conflict: NameConflict,
    /// What it does when it cannot be sure of its lock any more.
    pub fence: Fence,
}

/// What happens if a worker is to have the name of one that lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameConflict {
    /// The newcomer takes over: the other one is told to go, at once by push, and the newcomer gets its jobs as their
    /// handles are dropped, or when its lock ends, if it is dead. The default: mostly the other one *is* dead, and the
    /// server does not know yet.
    #[default]
    TakeOver,
    /// The newcomer is refused, with [`ErrorKind::NameTaken`].
    Refuse,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self {
            capacity: None,
            weight: 1,
            takeover_rate: None,
            name: None,
            grace: Duration::ZERO,
            name_conflict: NameConflict::default(),
            fence: Fence::default(),
        }
    }
}

impl WorkerOptions {
    /// It holds so many jobs at most. A full worker is given nothing; jobs that find no room wait in order. At least 1:
    /// a worker that is to be given nothing is [drained](crate::Worker::drain).
    ///
    /// Jobs that are on their way out count until they are let go of.
    #[must_use]
    pub fn capacity(mut self, jobs: u32) -> Self {
        self.capacity = Some(jobs);
        self
    }

    /// How strong it is, from 1 to 1,000. A worker's load is the number of its jobs divided by this, and a job goes
    /// to the least loaded: one with weight 4 gets four times as many as one with weight 1.
    #[must_use]
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// It is handed so many jobs in a second at most, of those that come from other workers or have waited; what is
    /// above it waits, or goes to others. For the thousands of jobs of a dead worker that would all connect to the
    /// same thing at once. A tenth of a second's may come at once. Jobs that a master adds are not held back.
    #[must_use]
    pub fn takeover_rate(mut self, jobs_per_second: u32) -> Self {
        self.takeover_rate = Some(jobs_per_second);
        self
    }

    /// It has a name, and is the heir of the last worker of that name (static membership): it gets that one's jobs, at new
    /// epochs. At most 128 bytes, without control characters.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Once its lock has ended, its jobs are kept so long for one of the same name, before they go to others: a worker
    /// that is restarted within it sets off no reshuffle. Nobody holds them meanwhile, though they
    /// are told of as the dead one's; one that is deleted goes when the grace is over. At most a day. Only with a name.
    ///
    /// A worker that [terminates](crate::Worker::terminate) gives its jobs to others at once, grace or not.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// What happens if a living worker has the name already.
    #[must_use]
    pub fn name_conflict(mut self, conflict: NameConflict) -> Self {
        self.name_conflict = conflict;
        self
    }

    /// What it does when it cannot be sure of its lock any more.
    #[must_use]
    pub fn fence(mut self, fence: Fence) -> Self {
        self.fence = fence;
        self
    }

    pub(crate) fn terms(&self) -> Terms {
        Terms { weight: self.weight, capacity: self.capacity, takeover_rate: self.takeover_rate }
    }

    pub(crate) fn check(&self) -> Result<()> {
        check_terms(&self.terms())?;
        let refuse = |text: String| Err(Error::new(ErrorKind::InvalidSetting, text));
        if let Some(name) = &self.name {
            let fault = if name.is_empty() {
                "is empty".to_owned()
            } else if name.len() > LONGEST_NAME {
                format!("is {} bytes long; at most {LONGEST_NAME} are allowed", name.len())
            } else if name.chars().any(char::is_control) {
                "has a control character; leave it out".to_owned()
            } else {
                return self.check_grace();
            };
            return refuse(format!("the worker's name {fault}"));
        }
        if self.grace > Duration::ZERO {
            return refuse(format!(
                "grace is {:?}, but the worker has no name for which its jobs could be kept; give it one",
                self.grace
            ));
        }
        Ok(())
    }

    fn check_grace(&self) -> Result<()> {
        if self.grace > LONGEST_GRACE {
            return Err(Error::new(
                ErrorKind::InvalidSetting,
                format!(
                    "grace is {:?}; at most a day is allowed: nobody holds the jobs meanwhile",
                    self.grace
                ),
            ));
        }
        Ok(())
    }
}

/// Refuses what the scripts would not understand.
pub(super) fn check_terms(terms: &Terms) -> Result<()> {
    let Terms { weight, capacity, takeover_rate } = *terms;
    let text = if weight == 0 || weight > LARGEST_WEIGHT {
        format!("weight is {weight}; it must be between 1 and {LARGEST_WEIGHT}")
    } else if capacity == Some(0) {
        "capacity is 0; it must be at least 1. To give the worker nothing, drain it".to_owned()
    } else if takeover_rate == Some(0) {
        "takeover_rate is 0; it must be at least 1. To give the worker nothing, drain it".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::InvalidSetting, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_refused_with_what_to_do() {
        let options = WorkerOptions::default;
        for (bad, says) in [
            (options().weight(0), "weight is 0"),
            (options().weight(1_001), "between 1 and 1000"),
            (options().capacity(0), "drain it"),
            (options().takeover_rate(0), "drain it"),
            (options().name(""), "is empty"),
            (options().name("x".repeat(129)), "129 bytes"),
            (options().name("a\nb"), "control character"),
            (options().grace(Duration::from_secs(1)), "give it one"),
            (options().name("a").grace(Duration::from_secs(90_000)), "at most a day"),
        ] {
            let error = bad.check().expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::InvalidSetting);
            assert!(error.to_string().contains(says), "{error}");
        }
        let good = options().capacity(1).weight(1_000).takeover_rate(1).name("gw-1 (Zürich)");
        good.grace(Duration::from_secs(30)).check().expect("fine");
    }
}
