//! Says of a history which promises were broken. Plain data in, violations out; it knows nothing of the crate but
//! what the crate promises.
//!
//! ```text
//! lines --> Book: processes, lives of workers, holds, what masters asked for, when what was disturbed
//!             |--> turns     per worker: Add, Update, Delete, Close in turn; nothing after the lock is lost
//!             |--> owners    per job: two holders, epochs, what a deletion that was waited for promises
//!             |--> late      what must come by some time: takeover, delete, the end of a wiped cluster
//!             +--> ending    what must be so when all faults have ended
//! ```
//!
//! What the promises allow is no violation, and no more than that:
//!
//! | allowed | for how long |
//! |---|---|
//! | a process that was stopped, or did not run, holds on | from the fence margin after it stopped (it had not fenced, so its lock was good for that long at least) until it is told after it wakes |
//! | a handler holds on after its worker lost the lock | from the fence margin after it was told |
//! | a handler holds on after another `Delete` | from the release timeout after it was told; its stream has to say so |
//! | a handler that was told to stop, whose consumer was then gone or dead before a `Close` could be seen | from the fence margin after trouble began that may have cost the lock |
//! | a lenient worker that was cut off holds on | from half a lock's life after that began until it can hear, and then `RECOVER` |
//! | the server has lost what was written last, and may not know of a hold | from when it was away until it is back and the holder can hear, and then `recover`; if it is told then, to the end |
//! | who held jobs of a cluster that was wiped | from the wipe until a lock's life after it, and then `RECOVER` |
//!
//! What holds something up sets the clock of what has to come back to its end; a short pause only by its own length, since on
//! a busy machine there is always one. It is over with whom it was about: the dead hold nothing up. That single messages are
//! lost, or notifications, excuses nobody.
//!
//! Whatever happens, of two holders the later one has the larger epoch.

mod book;
mod claims;
mod ending;
mod history;
mod late;
mod operations;
mod owners;
mod turns;

use std::fmt;

use self::book::Book;
pub(crate) use self::history::{Entry, Us, What};

/// The promise that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Two held a job at once, and the first had not even been told to stop.
    TwoHolders,
    /// Two held a job at once: the first had been told, but was within the time that its handlers have.
    TwoHoldersWithinMargin,
    /// A handler was passed over after the release timeout, and the stream did not say so.
    OverlapNotSaid,
    /// A later holder has no larger epoch, or an epoch fell within an assignment.
    EpochBack,
    /// An assignment that goes on with another server process has no larger epoch after the bound.
    EpochNotLifted,
    /// An event that does not follow from the ones before it.
    OutOfTurn,
    /// An `Add` or `Update` of a worker whose lock was over when its process woke.
    SpokeAfterLock,
    /// A job had no owner for longer than its bound.
    LateTakeover,
    /// A holder was not told of a deletion within its bound.
    DeleteNotDelivered,
    /// A deletion that was waited for was answered while the job was still held.
    HeldAfterWait,
    /// A job that was gone was given to somebody.
    Revived,
    /// A job of a cluster that was wiped was still held after the bound.
    HeldAfterWipe,
    /// In the end: a job that must be there is not, or nobody holds it.
    JobLost,
    /// In the end: a job that was deleted is still there, or still held.
    JobNotGone,
    /// The holder has another payload than the last, after the bound or in the end.
    StalePayload,
    /// In the end: jobs wait although there is room.
    Waiting,
    /// A process ended by itself.
    Died,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TwoHolders => "two holders at once",
            Self::TwoHoldersWithinMargin => "two holders at once, the first within its margin",
            Self::OverlapNotSaid => "a handler was passed over, and the stream did not say so",
            Self::EpochBack => "an epoch that went back",
            Self::EpochNotLifted => "no new epoch from another server process",
            Self::OutOfTurn => "an event out of turn",
            Self::SpokeAfterLock => "an Add or Update after the lock was over",
            Self::LateTakeover => "a takeover later than its bound",
            Self::DeleteNotDelivered => "a delete never delivered",
            Self::HeldAfterWait => "a deletion that was waited for, and not over",
            Self::Revived => "an Add of a job that is gone",
            Self::HeldAfterWipe => "held although its cluster is gone",
            Self::JobLost => "a job lost",
            Self::JobNotGone => "a deleted job that is not gone",
            Self::StalePayload => "an update lost",
            Self::Waiting => "jobs wait although there is room",
            Self::Died => "a process ended by itself",
        })
    }
}

/// A broken promise, with the lines that show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) kind: Kind,
    /// What exactly is wrong.
    pub(crate) text: String,
    /// Indices of the lines that show it, and no others, in the order of the history.
    pub(crate) lines: Vec<usize>,
}

impl Violation {
    /// `None`s are lines that there are not.
    fn new(kind: Kind, text: String, lines: impl IntoIterator<Item = Option<usize>>) -> Self {
        let mut lines: Vec<usize> = lines.into_iter().flatten().collect();
        lines.sort_unstable();
        lines.dedup();
        Self { kind, text, lines }
    }

    /// The excerpt that shows it, with times in milliseconds since the history began.
    pub(crate) fn excerpt(&self, entries: &[Entry]) -> String {
        use fmt::Write;
        let start = entries.first().map_or(0, |entry| entry.at);
        let mut text = format!("{}: {}\n", self.kind, self.text);
        for entry in self.lines.iter().filter_map(|line| entries.get(*line)) {
            let _ = writeln!(text, "  {:>12.3} ms  {:<6} {}", since(start, entry.at), entry.who, entry.what);
        }
        text
    }
}

fn since(start: Us, at: Us) -> f64 {
    (at as f64 - start as f64) / 1000.0
}

/// What the history as a whole breaks. The entries are in the order of their times.
pub(crate) fn check(entries: &[Entry]) -> Vec<Violation> {
    let book = Book::new(entries);
    let mut found = Vec::new();
    found.extend(turns::check(&book));
    found.extend(owners::check(&book));
    found.extend(late::check(&book));
    if let Some(end) = book.final_at {
        found.extend(ending::check(&book, end));
    }
    found
}

/// What is not yet as it has to be in the end.
pub(crate) fn unsettled(entries: &[Entry]) -> Vec<Violation> {
    let book = Book::new(entries);
    ending::check(&book, entries.last().map_or(0, |entry| entry.at + 1))
}

/// How many times a job came to another owner.
pub(crate) fn handovers(entries: &[Entry]) -> usize {
    let mut seen = std::collections::HashSet::new();
    let adds = entries.iter().filter(|entry| match &entry.what {
        What::Add { job, .. } => !seen.insert(job),
        _ => false,
    });
    adds.count()
}
