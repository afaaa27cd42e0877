//! The protocol as it is: within these bounds nothing is found.

use crate::calm::Calm;
use crate::scope::{Asked, May, Scope};

/// A check that must find nothing.
pub(crate) struct Sound {
    pub(crate) name: &'static str,
    /// Only run by `make model`.
    pub(crate) long: bool,
    pub(crate) scope: Scope,
    pub(crate) calms: &'static [Calm],
}

const ALL: &[Calm] = &[Calm::Arrives, Calm::Unheard, Calm::Unpolled];

const NONE: Asked = Asked { adds: 0, updates: 0, deletes: 0, moves: 0, terminations: 0, starts: 0 };

const NOTHING: May = May {
    lose: false,
    overtake: false,
    repeat: false,
    disconnect: false,
    fail: false,
    linger: false,
    slow: false,
    pause: false,
    crash: false,
    failover: false,
};

pub(crate) const PLAIN: Scope = Scope {
    workers: 2,
    spare: 0,
    jobs: 1,
    capacity: 0,
    any_worker: true,
    batch: 0,
    lenient: false,
    fused: true,
    asked: Asked { adds: 1, ..NONE },
    faults: 0,
    may: NOTHING,
    broken: None,
};

pub(crate) const SOUND: &[Sound] = &[Sound {
    name: "a job is added, moved and deleted; a frame is lost, a worker paused or dead",
    long: false,
    scope: Scope {
        asked: Asked { deletes: 1, moves: 1, ..PLAIN.asked },
        faults: 1,
        may: May { lose: true, pause: true, crash: true, ..NOTHING },
        ..PLAIN
    },
    calms: ALL,
}];
