//! What a cluster is set to, each setting with its default, and what is refused.

use std::time::Duration;

use crate::core::lease::Lease;
use crate::error::{Error, ErrorKind, Result};
use crate::redis::tls::Tls;

/// The settings of one process's part in a cluster, checked.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) id: String,
    pub(crate) prefix: String,
    pub(crate) database: Option<u8>,
    pub(crate) lock_ttl: Duration,
    pub(crate) fence_margin: Option<Duration>,
    pub(crate) release_timeout: Duration,
    pub(crate) command_timeout: Duration,
    pub(crate) max_payload: usize,
    pub(crate) configure_server: bool,
    pub(crate) rebalance: Option<Rebalance>,
    pub(crate) max_crashes: u32,
    pub(crate) max_jobs: u64,
    pub(crate) max_workers: u64,
    pub(crate) durability: Durability,
    pub(crate) tls: Option<Tls>,
}

/// What a master's add, update and delete wait for before they return.
///
/// Replication is asynchronous: what only the primary has is undone if a replica takes its place. Waiting narrows that
/// window; it does not close it (the replica that is promoted may be another one), and nothing is undone if the wait is in vain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// For the primary alone. The default.
    #[default]
    Primary,
    /// For so many replicas too (`WAIT`), for a third of [`lock_ttl`](crate::ClusterBuilder::lock_ttl) or the command timeout at most;
    /// otherwise the call fails with [`ErrorKind::Unreplicated`], and what it did stays done. While it waits, other
    /// commands of the same connection wait too: heartbeats of workers that share it come later by so long.
    Replicas(u32),
}

/// How jobs move from workers that hold more than their share to those that hold less.
///
/// It is done a step at a time, at a heartbeat: the most loaded workers are asked to give up a part of what they have
/// above their fair share. Their consumers get [`Delete`](crate::Event::Delete) with
/// [`Rebalanced`](crate::DeleteReason::Rebalanced), and each job goes on when its handles are dropped. No more than that
/// part is on its way at once.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Rebalance {
    /// Which part of the difference moves in one step, from 0.001 to 1. Default 0.1: a newcomer is not flooded.
    pub share: f64,
    /// Which part of a fair share a difference must be to be worth a move, from 0 to 1; it is never less than what one
    /// job makes. Default 0.05.
    pub hysteresis: f64,
    /// How long it must have been quiet (nobody joined, left or was drained) before anything moves. Default 10 s: in a
    /// rolling restart each worker is replaced before its part is given away. At most a day.
    pub delay: Duration,
}

impl Default for Rebalance {
    fn default() -> Self {
        Self { share: 0.1, hysteresis: 0.05, delay: Duration::from_secs(10) }
    }
}

impl Rebalance {
    /// Which part of the difference moves in one step.
    #[must_use]
    pub fn share(mut self, share: f64) -> Self {
        self.share = share;
        self
    }

    /// Which part of a fair share a difference must be to be worth a move.
    #[must_use]
    pub fn hysteresis(mut self, hysteresis: f64) -> Self {
        self.hysteresis = hysteresis;
        self
    }

    /// How long it must have been quiet before anything moves.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    fn check(&self) -> Result<()> {
        let refuse = |text: String| Err(Error::new(ErrorKind::InvalidSetting, text));
        if !(0.001..=1.0).contains(&self.share) {
            return refuse(format!("rebalance.share is {}; it must be between 0.001 and 1", self.share));
        }
        if !(0.0..=1.0).contains(&self.hysteresis) {
            return refuse(format!(
                "rebalance.hysteresis is {}; it must be between 0 and 1",
                self.hysteresis
            ));
        }
        if self.delay > Duration::from_secs(86_400) {
            return refuse(format!("rebalance.delay is {:?}; at most a day is allowed", self.delay));
        }
        Ok(())
    }
}

/// As many as the numbers of workers that fit into an index of the server.
const MOST_WORKERS: u64 = 1 << 20;

const SHORTEST_TTL: Duration = Duration::from_millis(200);
const LONGEST_TTL: Duration = Duration::from_secs(3600);
const LONGEST_NAME: usize = 128;
/// The server's own limit of a string; also what keeps a frame far from the output buffers' limits.
const LARGEST_PAYLOAD: usize = 64 << 20;

/// A duration for people, who do not write `0ns`.
fn plain(duration: Duration) -> String {
    if duration.is_zero() { "0".to_owned() } else { format!("{duration:?}") }
}

impl Settings {
    pub(super) fn new(id: String) -> Self {
        Self {
            id,
            prefix: "assemblage".into(),
            database: None,
            lock_ttl: Duration::from_secs(5),
            fence_margin: None,
            release_timeout: Duration::from_secs(30),
            command_timeout: Duration::from_secs(5),
            max_payload: 1 << 20,
            configure_server: true,
            rebalance: Some(Rebalance::default()),
            max_crashes: 3,
            max_jobs: 10_000_000,
            max_workers: 10_000,
            durability: Durability::Primary,
            tls: None,
        }
    }

    /// How far apart a worker's heartbeats are, and how often whatever hints may have been lost of is looked at.
    pub(crate) fn heartbeat(&self) -> Duration {
        Lease::interval(self.lock_ttl)
    }

    /// How long before the lock can end the worker gives up: a fifth of the time to live unless set.
    pub(crate) fn fence_margin(&self) -> Duration {
        self.fence_margin.unwrap_or(self.lock_ttl / 5)
    }

    pub(super) fn check(&self) -> Result<()> {
        let refuse = |text: String| Err(Error::new(ErrorKind::InvalidSetting, text));
        for (what, name) in [("cluster id", &self.id), ("prefix", &self.prefix)] {
            let fault = if name.is_empty() {
                "is empty".to_owned()
            } else if name.len() > LONGEST_NAME {
                format!("is {} bytes long; at most {LONGEST_NAME} are allowed", name.len())
            } else if let Some(bad) = name.chars().find(|c| "{}*?[]\\".contains(*c)) {
                format!("has {bad:?}: braces and glob characters have a meaning in Redis; leave them out")
            } else if let Some(bad) = name.chars().find(|c| c.is_control() || c.is_whitespace()) {
                format!("has {bad:?}: leave out control characters and white space")
            } else {
                continue;
            };
            return refuse(format!("the {what} {fault}"));
        }
        if self.prefix.contains(':') {
            return refuse(
                "the prefix has ':', which ends it: two clusters could share their keys; leave it out".into(),
            );
        }
        if self.lock_ttl < SHORTEST_TTL || self.lock_ttl > LONGEST_TTL {
            return refuse(format!(
                "lock_ttl is {}; it must be between {SHORTEST_TTL:?} and {LONGEST_TTL:?}: below, a heartbeat (a third of \
                 it) has no time to be answered",
                plain(self.lock_ttl)
            ));
        }
        let margin = self.fence_margin();
        if margin < Duration::from_millis(10) || margin > self.lock_ttl / 2 {
            return refuse(format!(
                "fence_margin is {}; it must be between 10ms and half of lock_ttl ({:?}): above, one late \
                 heartbeat would close the worker",
                plain(margin),
                self.lock_ttl / 2
            ));
        }
        for (what, value) in
            [("release_timeout", self.release_timeout), ("command_timeout", self.command_timeout)]
        {
            if value < Duration::from_millis(10) || value > Duration::from_secs(86_400) {
                return refuse(format!("{what} is {}; it must be between 10ms and a day", plain(value)));
            }
        }
        if self.max_payload == 0 || self.max_payload > LARGEST_PAYLOAD {
            return refuse(format!(
                "max_payload is {} bytes; it must be between 1 and {LARGEST_PAYLOAD}",
                self.max_payload
            ));
        }
        if self.max_workers == 0 || self.max_workers > MOST_WORKERS {
            return refuse(format!(
                "max_workers is {}; it must be between 1 and {MOST_WORKERS}",
                self.max_workers
            ));
        }
        if let Durability::Replicas(count) = self.durability
            && !(1..=100).contains(&count)
        {
            return refuse(format!("durability is Replicas({count}); it must be between 1 and 100"));
        }
        if self.max_jobs == 0 || self.max_jobs > 1 << 40 {
            return refuse(format!("max_jobs is {}; it must be between 1 and 2^40", self.max_jobs));
        }
        self.rebalance.as_ref().map_or(Ok(()), Rebalance::check)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Cluster, ClusterBuilder};

    fn refusal(settings: impl FnOnce(ClusterBuilder) -> ClusterBuilder, id: &str) -> String {
        let error = settings(Cluster::builder(id)).settings.check().expect_err("must be refused");
        assert_eq!(error.kind(), ErrorKind::InvalidSetting);
        error.to_string()
    }

    #[test]
    fn an_id_that_redis_would_misread_is_refused_and_the_text_says_why() {
        assert!(refusal(|b| b, "").contains("is empty"));
        assert!(refusal(|b| b, &"x".repeat(129)).contains("129 bytes"));
        for id in ["a{b", "a}b", "a*", "a?", "[a", "a]", "a\\b"] {
            assert!(refusal(|b| b, id).contains("glob"), "{id}");
        }
        for id in ["a b", "a\nb", "a\0b"] {
            assert!(refusal(|b| b, id).contains("control"), "{id:?}");
        }
        assert!(refusal(|b| b.prefix("a:b"), "id").contains("':'"));
        assert!(refusal(|b| b.prefix(""), "id").contains("prefix is empty"));
        Cluster::builder("mail:eu-1.größe").settings.check().expect("a plain id is taken");
    }

    #[test]
    fn times_and_sizes_that_cannot_work_are_refused() {
        let ms = Duration::from_millis;
        assert!(refusal(|b| b.lock_ttl(ms(199)), "id").contains("heartbeat"));
        assert!(refusal(|b| b.lock_ttl(ms(0)), "id").contains("lock_ttl is 0; it must"));
        assert!(refusal(|b| b.lock_ttl(ms(3_600_001)), "id").contains("lock_ttl"));
        assert!(refusal(|b| b.fence_margin(ms(2_501)), "id").contains("fence_margin"));
        assert!(refusal(|b| b.fence_margin(ms(9)), "id").contains("fence_margin"));
        assert!(refusal(|b| b.release_timeout(ms(0)), "id").contains("release_timeout"));
        assert!(refusal(|b| b.command_timeout(ms(1)), "id").contains("command_timeout"));
        assert!(refusal(|b| b.max_payload(0), "id").contains("max_payload"));
        Cluster::builder("id").lock_ttl(ms(200)).settings.check().expect("200 ms is the shortest");
    }
}
