//! What a history is made of: one line for each thing that somebody saw or did.
//!
//! `<microseconds of the machine's monotonic clock> <process> <what> <its fields>`, words with one space between. A
//! list is joined by commas, `-` is none.

use std::fmt;

/// A point on the machine's monotonic clock, the same in all processes, in microseconds; or a time of that length.
pub(crate) type Us = u64;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) at: Us,
    /// The process: `w3.2` is the third one in place `w3`. `server` and `soak` are what their names say.
    pub(crate) who: String,
    pub(crate) what: What,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.at, self.who, self.what)
    }
}

impl Entry {
    /// A line of a history; `None` if it is anything else.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (at, rest) = line.split_once(' ')?;
        let (who, what) = rest.split_once(' ')?;
        Some(Self { at: at.parse().ok()?, who: who.to_owned(), what: What::parse(what)? })
    }
}

/// A field of a line.
trait Word: Sized {
    fn read(word: &str) -> Option<Self>;
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

impl Word for u64 {
    fn read(word: &str) -> Option<Self> {
        word.parse().ok()
    }

    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Word for bool {
    fn read(word: &str) -> Option<Self> {
        word.parse().ok()
    }

    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Word for String {
    fn read(word: &str) -> Option<Self> {
        Some(word.to_owned())
    }

    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() { f.write_str("?") } else { f.write_str(&self.replace([' ', '\n'], "_")) }
    }
}

impl<T: Word> Word for Option<T> {
    fn read(word: &str) -> Option<Self> {
        if word == "-" { Some(None) } else { T::read(word).map(Some) }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Some(value) => value.write(f),
            None => f.write_str("-"),
        }
    }
}

impl<T: Word> Word for Vec<T> {
    fn read(word: &str) -> Option<Self> {
        if word == "-" { Some(Self::new()) } else { word.split(',').map(T::read).collect() }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("-");
        }
        for (number, value) in self.iter().enumerate() {
            if number > 0 {
                f.write_str(",")?;
            }
            value.write(f)?;
        }
        Ok(())
    }
}

/// Makes the enum with what writes and reads a line of each kind, field by field in the order given.
macro_rules! lines {
    ($($(#[$doc:meta])* $word:literal => $kind:ident { $($field:ident: $type:ty),* };)*) => {
        /// What was seen or done.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub(crate) enum What {
            $($(#[$doc])* $kind { $($field: $type),* },)*
        }

        impl fmt::Display for What {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$kind { $($field),* } => {
                        f.write_str($word)?;
                        $(
                            f.write_str(" ")?;
                            $field.write(f)?;
                        )*
                        Ok(())
                    })*
                }
            }
        }

        impl What {
            /// The part of a line after its process.
            pub(crate) fn parse(text: &str) -> Option<Self> {
                let mut words = text.split(' ');
                match words.next()? {
                    $($word => Some(Self::$kind { $($field: Word::read(words.next()?)?),* }),)*
                    _ => None,
                }
            }
        }
    };
}

lines! {
    // By a process with a worker: what its consumer saw.

    /// It joined, with these times of its cluster; its jobs are kept so long for its name.
    "joined" => Joined { worker: u64, ttl: Us, margin: Us, release: Us, grace: Us, lenient: bool };
    "add" => Add { worker: u64, job: String, epoch: u64, payload: String };
    "update" => Update { worker: u64, job: String, epoch: u64, payload: String };
    /// The job's own token was cancelled, whether or not the consumer polls. The epoch, here and in `drop`, is that
    /// of the `add`.
    "told" => Told { worker: u64, job: String, epoch: u64 };
    "delete" => Delete { worker: u64, job: String, epoch: u64, reason: String };
    /// The last handle is dropped next.
    "drop" => Drop { worker: u64, job: String, epoch: u64 };
    "error" => Error { worker: u64, kind: String, job: Option<String> };
    "close" => Close { worker: u64, reason: String };
    /// The stream said that nothing follows.
    "end" => End { worker: u64 };
    /// The consumer drops the worker, and sees nothing more of it.
    "gone" => Gone { worker: u64 };
    /// The consumer does not poll from now on.
    "busy" => Busy { worker: u64 };
    /// It polls again.
    "free" => Free { worker: u64 };
    /// The worker is given what it has room for from now on, or with `false` maybe not: it drains, or is near its capacity.
    "takes" => Takes { worker: u64, all: bool };
    /// The process did not run between `since` and now.
    "stalled" => Stalled { since: Us };

    // By a process with a master or a worker: what it did.

    /// It asks for `add`, `update`, `delete`, `wait` (a deletion and its end) or `delete-own`.
    "ask" => Ask { op: String, call: String, jobs: Vec<String>, payload: Option<String> };
    /// It was answered, for each job.
    "done" => Done { op: String, jobs: Vec<String>, codes: Vec<String> };
    /// It failed, and nothing was done.
    "refused" => Refused { op: String, kind: String };
    /// It failed, and may have been done.
    "unclear" => Unclear { op: String, kind: String };
    /// The cluster has this job.
    "has" => Has { job: String, state: String };
    /// It has no others than those said since the last such line, and so many of them wait.
    "cluster" => Cluster { jobs: u64, pending: u64, quarantined: u64 };

    // By the soak: what was done to whom.

    "started" => Started {};
    "killed" => Killed {};
    /// It ended although nobody had ended it.
    "died" => Died { status: String };
    /// It stands still. `since` is before that was asked for, the line's time is after.
    "stopped" => Stopped { since: Us };
    "continued" => Continued { since: Us };
    /// Its connections are disturbed.
    "net" => Net { how: String };
    "net-end" => NetEnd {};
    /// The server cannot be reached by anybody, or not for long.
    "away" => Away { why: String };
    /// It is back, with its data or without.
    "back" => Back { kept: bool };
    /// It is back without what was written since then, or with a part of it.
    "back-older" => BackOlder { since: Us };
    /// Something that gives nobody an excuse.
    "fault" => Fault { name: String };
    "fault-end" => FaultEnd { name: String };
    /// Every fault and every operation has ended.
    "heal" => Heal {};
    /// The history ends.
    "final" => Final {};
}
