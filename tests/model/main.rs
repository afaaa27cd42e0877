//! A model of the whole protocol, checked exhaustively within bounds.
//!
//! ```text
//!  masters ---> server.rs (the scripts) <--- commands --- process.rs (the shell) ---> the program's View and Lease
//!                  |                                         ^      |
//!                  +----------- frames: lost, late, twice ---+      +---> a consumer that is checked
//! ```
//!
//! `make model` runs all of it, `cargo test --test model` a part. `cargo test --release --test model -- NAME` runs the
//! checks whose name has this in it, `--full` those that take long too, `--trace` shows each step of what was found.
//!
//! **What is the program's.** A worker's decisions: `src/core` as it stands (view, queue, lease) is compiled in, and nothing
//! of it is changed. What a script does to a record is written again in `server.rs`, what `worker/driver.rs` and
//! `worker/desk.rs` do in `process.rs`, each by the same names; that these two are the same as the program is for a reader to
//! see, and for the tests of the scripts and the soak to try.
//!
//! **What is tried.** Within a scope (`scope.rs`: who takes part, what is asked, what may go wrong and how often) every
//! order of every step (`world.rs`: `Action`), breadth first. Two states are one if nothing that can follow tells them
//! apart (`identity.rs`: revisions count by their order, instants by how far they are), so time has no end where `ticks`
//! is 0. They are told apart by a hash of 64 bits: of a million states, two that differ are taken for one with a
//! probability of less than 1 in 10^7.
//!
//! **What must hold** (`check.rs`), in each state: at most one worker holds a job; a worker has stopped when its lock ends;
//! epochs only grow, and no two owners have the same one; `Add`, `Update`, `Delete`, `Close` are in turn; no job vanishes unless
//! deleted; none is taken from its owner without cause; what its caller gave up on is not done later. A job that
//! a failover has forgotten is not held by the old owner: there the epoch decides, as PROTOCOL.md says.
//!
//! **What must come** (`calm.rs`): `eventually` of the checker is not sound where states join or come again, so it is not used. Instead
//! each state is continued: no more faults and no more wishes, everybody does what is due, time goes on. Within 12
//! heartbeats each job must be held by a living worker as the server says, with its payload and epoch, or wait because nobody has
//! room, and nothing else may be held or waited for. Three such schedules are tried from every state: frames arrive; every frame
//! is lost from now on; no consumer polls. That is one fair schedule of each kind from every state, and not all.
//!
//! **What is left out.**
//!
//! - More than 2 workers, 2 jobs, or the faults that a scope counts.
//! - Time in less than a third of a lock's life, and clocks that run at different speeds.
//! - Names and their grace, weights, rates, orders, quarantine, the limits, the journal and its watchers, `order` and `requeue`. Whom
//!   a job is given to is anybody with room, whatever their load, so that no rule of placement is relied on; which jobs
//!   `rebalance` picks is any.
//! - `core/standby.rs`: whoever may reap does so at any time from when the deadline has passed, or never. The server's lock key: the
//!   deadline decides.
//! - A lenient worker that leaves and gets no answer: it ends by itself, once it holds nothing.
//! - More than one failover; a wiped server (`ClusterReset`); two servers' clocks that differ by more than the failover takes.
//! - The bytes: frames that are cut or forged, which the tests of `wire` have.
//!
//! **Which rules of PROTOCOL.md are not broken here.** Those parts that are inside the core, which the model takes as it is: of
//! rule 2, that a waiting frame is judged by its own page; of rule 7, that a delete and an add that both wait are two
//! changes; of rule 10, that what was let go of is handed back. Their tests are in `src/core/view/rules_test` and
//! `src/core/queue.rs`. Three were left out on trial, and nothing was found: of rule 6, that the first batch of a reap kills (the
//! audit finds out later who was passed over), of rule 9, that a release answered "not yours" is a gap (with a failover, and with two
//! frames or commands lost: heartbeats heal the same, later), and of rule 10, that the workers' numbers jump (with one failover
//! while two processes join: their tokens are enough). Rule 11 says what is accepted, and cannot be broken.

#[allow(unused, unreachable_pub, reason = "the program's own file, of which the model needs a part")]
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
#[allow(unused, unreachable_pub, reason = "the program's own file, of which the model needs a part")]
#[path = "../../src/error.rs"]
mod error;
#[allow(unused, unreachable_pub, reason = "the program's own file, of which the model needs a part")]
#[path = "../../src/id.rs"]
mod id;
#[allow(unused, unreachable_pub, reason = "the program's own file, of which the model needs a part")]
#[path = "../../src/message.rs"]
mod message;

mod broken;
mod calm;
mod check;
mod identity;
mod process;
mod run;
mod scope;
mod server;
mod sound;
mod time;
mod world;

fn main() {
    run::main();
}
