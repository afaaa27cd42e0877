//! What is decided, without a network, a task or a clock: inputs go in by `handle_*`, what is to be done comes
//! out by `poll_*`. Nothing here imports fred, tokio, `redis` or `wire`; `now` is an argument.

pub(crate) mod feed;
pub(crate) mod lease;
pub(crate) mod queue;
pub(crate) mod standby;
#[cfg(test)]
pub(crate) mod trail;
pub(crate) mod view;
