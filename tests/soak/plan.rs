//! Everything that a seed decides: who takes part, what they do and when, and what is done to them.
//!
//! A plan is made before anything starts and does not depend on what happens. What the scheduler, the kernel and the
//! network do with it is not in anybody's hands: the same seed gives the same plan, not the same history.
//!
//! ```text
//! |<------- storm ------->|<-------- calm -------->|<------- storm ...        | heal
//!  operations ..................................................................
//!  faults, each place in its own lane      one kill                            all have ended
//! ```

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
    Start {
        keep: bool,
    },
    KillSubscriptions,
    FlushScripts,
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

/// Ids that are used again and again.
const GIVEN: u64 = 40;
/// About so many jobs under fresh ids.
const FRESH: usize = 120;
const FOREIGN_KEYS: u64 = 200_000;
const FOREIGN_BATCH: u64 = 2_000;
/// Jobs of workers in these places are never refused for want of room: somebody can take what is to be taken over.
pub(crate) const ROOMY: usize = 2;

/// A storm and the calm after it.
const STORM: u64 = 12_000;
const CALM: u64 = 9_000;
/// When somebody dies in the calm, and comes back: what disturbed before is over, and a takeover has its time.
const DEATH: u64 = 4_500;
const REBIRTH: u64 = 8_500;

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

    fn operations(&mut self, rng: &mut Rng, end: u64) {
        // Fresh jobs that were asked for and not deleted: the operation, and which of its jobs.
        let mut fresh: Vec<(String, usize)> = Vec::new();
        let (mut at, mut number) = (0, 0);
        // A few to begin with.
        for count in [50, 30] {
            fresh.extend((0..count).map(|index| (format!("o{number}"), index)));
            self.push(200, Act::Call { master: 0, op: format!("o{number}"), call: Call::Fresh(count) });
            number += 1;
        }
        while at < end {
            at += rng.wait(25);
            let op = format!("o{number}");
            number += 1;
            let any = |rng: &mut Rng, fresh: &[(String, usize)]| {
                if fresh.is_empty() || rng.chance(60) {
                    Job::Given(rng.range(0, GIVEN))
                } else {
                    let (op, index) = fresh[rng.index(fresh.len())].clone();
                    Job::Of { op, index }
                }
            };
            let crowded = fresh.len() > FRESH;
            let call = match rng.pick(&[
                (30, "add"),
                (3, "add-many"),
                (if crowded { 1 } else { 8 }, "fresh"),
                (if crowded { 1 } else { 4 }, "fresh-many"),
                (14, "update"),
                (18, "delete"),
                (if crowded { 12 } else { 5 }, "delete-many"),
                (8, "wait"),
                (2, "order"),
                (1, "renew"),
            ]) {
                "add" => Call::Add(vec![Job::Given(rng.range(0, GIVEN))]),
                "add-many" => {
                    let first = rng.range(0, GIVEN);
                    Call::Add((0..rng.range(2, 10)).map(|next| Job::Given((first + next) % GIVEN)).collect())
                }
                "fresh" => {
                    fresh.push((op.clone(), 0));
                    Call::Fresh(1)
                }
                "fresh-many" => {
                    let count = rng.range(2, 30) as usize;
                    fresh.extend((0..count).map(|index| (op.clone(), index)));
                    Call::Fresh(count)
                }
                "update" => Call::Update(any(rng, &fresh)),
                "delete" => Call::Delete(vec![any(rng, &fresh)]),
                "delete-many" => {
                    let count = rng.range(2, 20).min(fresh.len() as u64);
                    let jobs = (0..count).map(|_| fresh.swap_remove(rng.index(fresh.len())));
                    Call::Delete(jobs.map(|(op, index)| Job::Of { op, index }).collect())
                }
                "wait" => Call::Wait(any(rng, &fresh)),
                "order" => {
                    let worker = rng.range(ROOMY as u64, self.workers.len() as u64) as usize;
                    if rng.chance(20) {
                        Call::Order("evict", worker)
                    } else {
                        let op = format!("{op}r");
                        let call = Call::Order("resume", worker);
                        let later = at + rng.range(500, 3_000);
                        self.push(later.min(end), Act::Call { master: rng.index(self.masters), op, call });
                        Call::Order("drain", worker)
                    }
                }
                _ => Call::Renew,
            };
            self.push(at.min(end), Act::Call { master: rng.index(self.masters), op, call });
        }
    }

    /// What the applications around the workers do.
    fn wishes(&mut self, rng: &mut Rng, end: u64) {
        let (mut at, mut number) = (1_000, 0);
        loop {
            at += rng.wait(600);
            if at >= end {
                return;
            }
            let worker = rng.index(self.workers.len());
            let roomy = worker < ROOMY;
            number += 1;
            let (line, undo) = match rng.pick(&[
                (2, "terminate"),
                (2, "drop"),
                (if roomy { 0 } else { 2 }, "drain"),
                (if roomy { 0 } else { 2 }, "capacity"),
                (1, "weight"),
                (3, "busy"),
                (3, "hold"),
                (1, "block"),
                (4, "delete"),
            ]) {
                "drain" => ("drain".to_owned(), Some("resume".to_owned())),
                "capacity" => (format!("capacity {}", rng.range(1, 40)), Some("capacity 0".to_owned())),
                "weight" => (format!("weight {}", rng.range(1, 5)), None),
                "busy" => (format!("busy {}", rng.range(100, 3_500)), None),
                "hold" => (format!("hold {} {}", rng.range(200, 1_500), rng.range(100, 3_200)), None),
                "block" => (format!("block {}", rng.range(50, 2_500)), None),
                "delete" => (format!("delete x{number} {}", rng.range(0, 1_000)), None),
                word => (word.to_owned(), None),
            };
            self.push(at, Act::Tell { worker, line });
            if let Some(line) = undo {
                self.push((at + rng.range(500, 4_000)).min(end), Act::Tell { worker, line });
            }
        }
    }

    /// One thing after the other.
    fn server(&mut self, rng: &mut Rng, end: u64) {
        let mut foreign = false;
        let mut at = 500;
        loop {
            if !foreign {
                at += 300;
                foreign = true;
                for first in (0..FOREIGN_KEYS).step_by(FOREIGN_BATCH as usize) {
                    self.push(at, Act::Server(Server::ForeignKeys(first, FOREIGN_BATCH)));
                    at += 8;
                }
            }
            at += rng.wait(2_500);
            let acts = match rng.pick(&[
                (2, "pause"),
                (2, "restart"),
                (1, "wipe"),
                (3, "subscriptions"),
                (2, "scripts"),
                (1, "memory"),
                (2, "mute"),
            ]) {
                "pause" => Some((Server::Pause, Server::Resume, rng.range(50, 3_500))),
                "restart" => Some((Server::Kill, Server::Start { keep: true }, rng.range(20, 2_000))),
                "wipe" => Some((Server::Kill, Server::Start { keep: false }, rng.range(20, 1_500))),
                "memory" => Some((Server::FillMemory, Server::FreeMemory, rng.range(300, 3_000))),
                "mute" => Some((Server::Mute, Server::Unmute, rng.range(500, 5_000))),
                "subscriptions" => {
                    let times = rng.range(1, 6);
                    for _ in 0..times {
                        if is_storm(at, end) {
                            self.push(at, Act::Server(Server::KillSubscriptions));
                        }
                        at += rng.range(10, 200);
                    }
                    None
                }
                _ => {
                    if is_storm(at, end) {
                        self.push(at, Act::Server(Server::FlushScripts));
                    }
                    None
                }
            };
            if at >= end {
                return;
            }
            if let Some((begin, finish, duration)) = acts
                && is_storm(at, end)
                && is_storm(at + duration, end)
            {
                self.push(at, Act::Server(begin));
                at += duration;
                self.push(at, Act::Server(finish));
                foreign &= finish != Server::Start { keep: false };
            }
        }
    }

    /// One thing after the other.
    fn process(&mut self, rng: &mut Rng, end: u64, place: Place) {
        let mut at = rng.range(500, 4_000);
        loop {
            at += rng.wait(5_000);
            if at >= end {
                return;
            }
            let duration = rng.range(30, 3_500);
            let (begin, finish) = match rng.pick(&[
                (4, "kill"),
                (4, "stop"),
                (2, "cut"),
                (2, "close"),
                (3, "hole"),
                (2, "delay"),
                (3, "uneven"),
            ]) {
                "kill" => (Act::Kill(place), Act::Start(place)),
                "stop" => (Act::Stop(place), Act::Continue(place)),
                "cut" => (Act::Net(place, Net::Cut), Act::NetEnd(place)),
                "close" => (Act::Net(place, Net::CloseOnce), Act::NetEnd(place)),
                "hole" => (Act::Net(place, Net::BlackHole), Act::NetEnd(place)),
                "delay" => (Act::Net(place, Net::Delay(rng.range(5, 150))), Act::NetEnd(place)),
                _ => (Act::Net(place, Net::Uneven(rng.range(20, 400), rng.chance(50))), Act::NetEnd(place)),
            };
            let duration = if matches!(begin, Act::Net(_, Net::CloseOnce)) { 1 } else { duration };
            if is_storm(at, end) && is_storm(at + duration, end) {
                self.push(at, begin);
                at += duration;
                self.push(at, finish);
            }
        }
    }

    /// In each calm one worker dies, and nothing else happens to anybody.
    fn deaths(&mut self, rng: &mut Rng, end: u64) {
        let (storm, calm) = cycle(end);
        let mut begin = storm;
        while begin + calm <= end {
            let place = Place::Worker(rng.index(self.workers.len()));
            self.push(begin + DEATH * calm / CALM, Act::Kill(place));
            self.push(begin + REBIRTH * calm / CALM, Act::Start(place));
            begin += storm + calm;
        }
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

/// How long a storm and a calm are, in a run of this length.
fn cycle(end: u64) -> (u64, u64) {
    if end < STORM + CALM {
        (end * STORM / (STORM + CALM), end * CALM / (STORM + CALM))
    } else {
        (STORM, CALM)
    }
}

/// Whether faults may begin and end at this time.
fn is_storm(at: u64, end: u64) -> bool {
    let (storm, calm) = cycle(end);
    at < end && at % (storm + calm) < storm
}
