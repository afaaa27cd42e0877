//! Everything that a seed decides: who takes part, what they do and when, and what is done to them.
//!
//! A plan is made before anything starts and does not depend on what happens. What the scheduler, the kernel and the
//! network do with it is not in anybody's hands: the same seed gives the same plan, not the same history.
//!
//! ```text
//! ... ------- storm ------->|<-------- calm -------->|<------- storm ------->| heal
//!  operations ...............  silence   ..........................................
//!  faults, each place in its own lane      one kill                           all have ended
//! ```

mod lanes;

use std::fmt;

use crate::rng::Rng;

/// A process that there may be one after the other of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Place {
    Worker(usize),
    Master(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Worker(number) => write!(f, "w{number}"),
            Self::Master(number) => write!(f, "m{number}"),
        }
    }
}

/// A job that somebody does something with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Job {
    /// By an id that is used again and again.
    Given(u64),
    /// One of those that this operation has added under fresh ids.
    Of { op: String, index: usize },
}

/// What a master is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Add(Vec<Job>),
    Fresh(usize),
    Update(Job),
    Delete(Vec<Job>),
    Wait(Job),
    /// An order to the worker in that place: drain, resume or evict.
    Order(&'static str, usize),
    /// The master goes, and another one comes, in the same process.
    Renew,
}

/// What is done to a process's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Net {
    Cut,
    CloseOnce,
    BlackHole,
    /// Every other connection, the even or the odd ones, is dead without a word: the subscription, or the commands.
    BlackHoleSome(bool),
    /// What is asked is done, and the answer is lost.
    SwallowAnswers,
    /// The same, and what is published comes all the same.
    SwallowAnswersToCommands,
    /// One in so many messages is lost, and no connection. That is allowed to cost a heartbeat, and excuses nobody.
    LoseMessages(usize),
    Delay(u64),
    /// Every other connection, the even or the odd ones, is late by so many ms.
    Uneven(u64, bool),
}

/// What is done to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    Pause,
    Resume,
    Kill,
    /// What it has on disk now is what it has after `StartOlder`.
    Snapshot,
    /// As after a failover to a replica that lags: the last writes are lost.
    StartOlder,
    Start {
        keep: bool,
    },
    KillSubscriptions,
    FlushScripts,
    /// The keys of all locks are deleted; or it is only said that they have expired, as anybody may say.
    Locks {
        forged: bool,
    },
    FillMemory,
    FreeMemory,
    Mute,
    Unmute,
    /// Keys of somebody else, with a TTL: from this number on, so many.
    ForeignKeys(u64, u64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Call {
        master: usize,
        op: String,
        call: Call,
    },
    /// A line for the process with the worker.
    Tell {
        worker: usize,
        line: String,
    },
    Start(Place),
    Kill(Place),
    Stop(Place),
    Continue(Place),
    Net(Place, Net),
    NetEnd(Place),
    Server(Server),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Milliseconds after the beginning.
    pub(crate) at: u64,
    pub(crate) act: Act,
}

/// How a worker in a place takes part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setup {
    /// Whether its runtime has several threads.
    pub(crate) threads: bool,
    pub(crate) lenient: bool,
    /// For how long its jobs are kept for its name, if it has one.
    pub(crate) grace: Option<u64>,
    pub(crate) weight: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) workers: Vec<Setup>,
    pub(crate) masters: usize,
    pub(crate) steps: Vec<Step>,
}

/// Jobs of workers in these places are never refused for want of room: somebody can take what is to be taken over.
pub(crate) const ROOMY: usize = 2;

impl Plan {
    pub(crate) fn new(seed: u64, seconds: u64) -> Self {
        let mut rng = Rng::new(seed);
        let end = seconds * 1_000;
        let workers: Vec<Setup> =
            (0..rng.range(4, 7) as usize).map(|place| Setup::new(&mut rng, place)).collect();
        let masters = 2;
        let mut plan = Self { workers, masters, steps: Vec::new() };
        plan.operations(&mut rng.fork(), end);
        plan.wishes(&mut rng.fork(), end);
        plan.server(&mut rng.fork(), end);
        let places = (0..plan.workers.len()).map(Place::Worker).chain((0..masters).map(Place::Master));
        for place in places {
            plan.process(&mut rng.fork(), end, place);
        }
        plan.deaths(&mut rng.fork(), end);
        plan.steps.sort_by_key(|step| step.at);
        plan
    }

    fn push(&mut self, at: u64, act: Act) {
        self.steps.push(Step { at, act });
    }
}

impl Setup {
    fn new(rng: &mut Rng, place: usize) -> Self {
        Self {
            threads: rng.chance(40),
            lenient: place >= ROOMY && rng.chance(25),
            grace: (place >= ROOMY && rng.chance(40)).then(|| rng.range(0, 1_500)),
            weight: if rng.chance(30) { rng.range(2, 5) } else { 1 },
        }
    }
}
