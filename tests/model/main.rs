//! A model of the whole protocol, checked exhaustively within bounds: see README.md beside this file.
//!
//! ```text
//!  masters ---> server.rs (the scripts) <--- commands --- process.rs (the shell) ---> the program's View and Lease
//!                  |                                         ^      |
//!                  +----------- frames: lost, late, twice ---+      +---> a consumer that is checked
//! ```
//!
//! `make model` runs all of it, `cargo test --test model` a part, in less than a minute. `cargo test --release --test
//! model -- NAME` runs the checks whose name has this in it, `--full` those that take long too, `--trace` shows each step of
//! what was found.

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
