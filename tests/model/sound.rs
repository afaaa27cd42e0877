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
        name: "s1 move, delete; lose, pause, crash",
        long: false,
        scope: Scope {
            asked: Asked { deletes: 1, moves: 1, ..PLAIN.asked },
            faults: 1,
            may: May { lose: true, pause: true, crash: true, ..NOTHING },
            ..PLAIN
        },
        calms: ALL,
    },
    Sound {
        name: "s2 frames",
        long: false,
        scope: Scope {
            asked: Asked { deletes: 1, moves: 1, ..PLAIN.asked },
            faults: 2,
            may: May { lose: true, overtake: true, repeat: true, ..NOTHING },
            ..PLAIN
        },
        calms: ALL,
    },
    Sound {
        name: "s3 failover and joins",
        long: false,
        scope: Scope {
            ticks: 3,
            workers: 0,
            spare: 2,
            asked: Asked { starts: 2, ..PLAIN.asked },
            faults: 1,
            may: May { failover: true, ..NOTHING },
            ..PLAIN
        },
        calms: ALL,
    },
    Sound {
        name: "s4 failover",
        long: false,
        scope: Scope {
            ticks: 3,
            asked: Asked { moves: 1, ..PLAIN.asked },
            faults: 1,
            may: May { failover: true, ..NOTHING },
            ..PLAIN
        },
        calms: ALL,
    },
    Sound {
        name: "s5 connections",
        long: false,
        scope: Scope {
            asked: Asked { moves: 1, deletes: 1, ..PLAIN.asked },
            faults: 2,
            may: May { disconnect: true, fail: true, linger: true, ..NOTHING },
            ..PLAIN
        },
        calms: ALL,
    },
    Sound {
        name: "s6 two jobs, paged, rejoin",
        long: false,
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
        name: "s7 terminate",
        long: false,
        scope: Scope {
            asked: Asked { terminations: 1, deletes: 1, moves: 1, ..PLAIN.asked },
            faults: 1,
            may: May { lose: true, fail: true, linger: true, ..NOTHING },
            ..PLAIN
        },
        calms: ALL,
    },
    Sound {
        name: "s8 unfused",
        long: false,
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
        name: "s9 lenient",
        long: false,
        scope: Scope {
            lenient: true,
            asked: Asked { moves: 1, ..PLAIN.asked },
            faults: 1,
            may: May { pause: true, lose: true, fail: true, ..NOTHING },
            ..PLAIN
        },
        calms: ALL,
    },
];
