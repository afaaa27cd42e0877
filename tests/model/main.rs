//! A model of the whole protocol, checked exhaustively within bounds.
#[allow(unused, unreachable_pub, reason = "the program's own files, of which the model needs a part")]
#[path = "../../src/change.rs"]
mod change;
#[allow(unused, unreachable_pub, reason = "the program's own files, of which the model needs a part")]
#[path = "../../src/core"]
mod core {
    pub(crate) mod lease;
    pub(crate) mod queue;
    pub(crate) mod trail;
    pub(crate) mod view;
}
#[allow(unused, unreachable_pub, reason = "the program's own files, of which the model needs a part")]
#[path = "../../src/error.rs"]
mod error;
#[allow(unused, unreachable_pub, reason = "the program's own files, of which the model needs a part")]
#[path = "../../src/id.rs"]
mod id;
#[allow(unused, unreachable_pub, reason = "the program's own files, of which the model needs a part")]
#[path = "../../src/message.rs"]
mod message;

mod calm;
mod check;
mod identity;
mod process;
mod scope;
mod server;
mod time;
mod world;

use std::time::Instant;

use stateright::{Checker, Model};

use crate::calm::Calm;
use crate::check::Check;
use crate::scope::{Asked, May, Scope};

fn main() {
    let scope = Scope {
        workers: 2,
        jobs: 1,
        any_worker: true,
        fused: true,
        asked: Asked { adds: 1, deletes: 1, moves: 1, ..Asked::default() },
        faults: 1,
        may: May { lose: true, pause: true, crash: true, ..May::default() },
        ..Scope::default()
    };
    let start = Instant::now();
    let checker = Check::new(scope, &[Calm::Arrives, Calm::Unheard]).checker().spawn_bfs().join();
    println!(
        "{} states ({} with repeats), depth {}, {:?}",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        start.elapsed()
    );
    for (name, path) in checker.discoveries() {
        println!("{name}: {:?}", path.into_actions());
    }
}
