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
    ticks: 0,
    asked: Asked { adds: 1, ..NONE },
    faults: 0,
    may: NOTHING,
    broken: None,
};

pub(crate) const SOUND: &[Sound] = &[
    Sound {
        name: "1 worker: add, delete, add; a late add or delete",
        long: false,
        scope: Scope {
            workers: 1,
            asked: Asked { adds: 2, deletes: 1, ..PLAIN.asked },
            faults: 1,
            may: May { linger: true, ..NOTHING },
            ..PLAIN
        },
        calms: ALL,
    },
    Sound {
        name: "1 worker: add, update, delete; 2 of lost, overtaken, repeated",
        long: false,
        scope: Scope {
            workers: 1,
            asked: Asked { updates: 1, deletes: 1, ..PLAIN.asked },
            faults: 2,
            may: May { lose: true, overtake: true, repeat: true, ..NOTHING },
            ..PLAIN
        },
        calms: ALL,
    },
    Sound {
        name: "1 worker, 2 jobs, pages of 1: a delete; 1 connection lost",
        long: false,
        scope: Scope {
            workers: 1,
            jobs: 2,
            batch: 1,
            asked: Asked { adds: 2, deletes: 1, ..PLAIN.asked },
            faults: 1,
            may: May { disconnect: true, ..NOTHING },
            ..PLAIN
        },
        calms: ALL,
    },
    Sound {
        name: "1 worker, 2 jobs, pages of 1: a delete; 2 connections lost",
        long: true,
        scope: Scope {
            workers: 1,
            jobs: 2,
            batch: 1,
            asked: Asked { adds: 2, deletes: 1, ..PLAIN.asked },
            faults: 2,
            may: May { disconnect: true, ..NOTHING },
            ..PLAIN
        },
        calms: ALL,
    },
    Sound {
        name: "2 workers: add; 1 of crash, pause, lost, overtaken, repeated",
        long: false,
        scope: Scope {
            faults: 1,
            may: May { lose: true, overtake: true, repeat: true, pause: true, crash: true, ..NOTHING },
            ..PLAIN
        },
        calms: ALL,
    },
    Sound {
        name: "2 workers: add; failover to an older replica",
        long: false,
        scope: Scope { ticks: 1, faults: 1, may: May { failover: true, ..NOTHING }, ..PLAIN },
        calms: ALL,
    },
    Sound {
        name: "2 workers, 2 jobs: one moves",
        long: false,
        scope: Scope { jobs: 2, asked: Asked { adds: 2, moves: 1, ..PLAIN.asked }, ..PLAIN },
        calms: ALL,
    },
    Sound {
        name: "2 workers, 2 jobs: both move",
        long: true,
        scope: Scope { jobs: 2, asked: Asked { adds: 2, moves: 2, ..PLAIN.asked }, ..PLAIN },
        calms: ALL,
    },
    Sound {
        name: "2 workers, 2 jobs, room for 1 each: one leaves, 1 crash",
        long: false,
        scope: Scope {
            jobs: 2,
            capacity: 1,
            asked: Asked { adds: 2, terminations: 1, ..PLAIN.asked },
            faults: 1,
            may: May { crash: true, ..NOTHING },
            ..PLAIN
        },
        calms: ALL,
    },
    Sound {
        name: "2 workers, 2 jobs: a move, a delete",
        long: true,
        scope: Scope { jobs: 2, asked: Asked { adds: 2, moves: 1, deletes: 1, ..PLAIN.asked }, ..PLAIN },
        calms: ALL,
    },
    Sound {
        name: "2 workers: move, delete; 1 of crash, pause, lost",
        long: true,
        scope: Scope {
            asked: Asked { deletes: 1, moves: 1, ..PLAIN.asked },
            faults: 1,
            may: May { lose: true, pause: true, crash: true, ..NOTHING },
            ..PLAIN
        },
        calms: ALL,
    },
    Sound {
        name: "2 workers: move, delete; 2 of lost, overtaken, repeated",
        long: true,
        scope: Scope {
            asked: Asked { deletes: 1, moves: 1, ..PLAIN.asked },
            faults: 2,
            may: May { lose: true, overtake: true, repeat: true, ..NOTHING },
            ..PLAIN
        },
        calms: ALL,
    },
    Sound {
        name: "2 workers: a move; 1 connection or command lost, or late",
        long: true,
        scope: Scope {
            asked: Asked { moves: 1, ..PLAIN.asked },
            faults: 1,
            may: May { disconnect: true, fail: true, linger: true, ..NOTHING },
            ..PLAIN
        },
        calms: ALL,
    },
    Sound {
        name: "2 workers: move, delete; 1 connection or command lost, or late",
        long: true,
        scope: Scope {
            asked: Asked { moves: 1, deletes: 1, ..PLAIN.asked },
            faults: 1,
            may: May { disconnect: true, fail: true, linger: true, ..NOTHING },
            ..PLAIN
        },
        calms: ALL,
    },
    Sound {
        name: "2 workers: a move; nothing at once, 1 of pause, lost, slow",
        long: true,
        scope: Scope {
            fused: false,
            asked: Asked { moves: 1, ..PLAIN.asked },
            faults: 1,
            may: May { pause: true, fail: true, slow: true, ..NOTHING },
            ..PLAIN
        },
        calms: ALL,
    },
    Sound {
        name: "2 workers: one leaves; 1 of frame or command lost, or late",
        long: true,
        scope: Scope {
            asked: Asked { terminations: 1, ..PLAIN.asked },
            faults: 1,
            may: May { lose: true, fail: true, linger: true, ..NOTHING },
            ..PLAIN
        },
        calms: ALL,
    },
    Sound {
        name: "2 lenient workers: a move; 1 of pause, lost",
        long: true,
        scope: Scope {
            lenient: true,
            asked: Asked { moves: 1, ..PLAIN.asked },
            faults: 1,
            may: May { pause: true, lose: true, fail: true, ..NOTHING },
            ..PLAIN
        },
        calms: ALL,
    },
    Sound {
        name: "1 worker, 1 that joins: a move; 1 of crash, pause, slow",
        long: true,
        scope: Scope {
            workers: 1,
            spare: 1,
            asked: Asked { starts: 1, moves: 1, ..PLAIN.asked },
            faults: 1,
            may: May { crash: true, pause: true, slow: true, ..NOTHING },
            ..PLAIN
        },
        calms: ALL,
    },
    Sound {
        name: "2 workers, 2 jobs, batches of 1: a delete; 1 crash, connection",
        long: true,
        scope: Scope {
            jobs: 2,
            batch: 1,
            asked: Asked { adds: 2, deletes: 1, ..PLAIN.asked },
            faults: 1,
            may: May { disconnect: true, crash: true, ..NOTHING },
            ..PLAIN
        },
        calms: ALL,
    },
    Sound {
        name: "2 workers: a move; failover to an older replica",
        long: true,
        scope: Scope {
            ticks: 1,
            asked: Asked { moves: 1, ..PLAIN.asked },
            faults: 1,
            may: May { failover: true, ..NOTHING },
            ..PLAIN
        },
        calms: ALL,
    },
    Sound {
        name: "1 worker, 1 that joins: add; failover to an older replica",
        long: true,
        scope: Scope {
            ticks: 1,
            workers: 1,
            spare: 1,
            asked: Asked { starts: 1, ..PLAIN.asked },
            faults: 1,
            may: May { failover: true, ..NOTHING },
            ..PLAIN
        },
        calms: ALL,
    },
];
