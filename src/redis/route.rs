//! How a command gets to the node that has the cluster's keys, and how long it may take.

use std::time::Duration;

use fred::types::ClusterHash;
use fred::types::config::Options;

use crate::wire::keys::Keys;

/// The hash slot of every key and channel of a cluster: they share a tag.
pub(crate) fn slot(keys: &Keys) -> u16 {
    fred::util::redis_keyslot(keys.meta.as_bytes())
}

/// Options for a command to the node with this slot. fred sends it again by itself up to so many `attempts`: more than
/// one is only for what may be run twice.
pub(crate) fn options(slot: u16, timeout: Duration, attempts: u32) -> Options {
    Options {
        timeout: Some(timeout),
        max_attempts: Some(attempts),
        max_redirections: Some(5),
        cluster_hash: Some(ClusterHash::Custom(slot)),
        ..Options::default()
    }
}
