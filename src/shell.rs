//! What masters and workers both run beside their own work: a subscription that is kept up, and the takeover
//! of dead workers' jobs.

pub(crate) mod alarm;
pub(crate) mod backoff;
mod hearing;
pub(crate) mod link;
#[cfg(test)]
mod link_test;
pub(crate) mod retry;
pub(crate) mod takeover;
