//! The times of the cluster under test, short so that much happens in a minute; the bounds follow from them.

use std::time::Duration;

use assemblage::{Cluster, ClusterBuilder, Rebalance};

pub(crate) const TTL: Duration = Duration::from_millis(1_500);
/// The default: a fifth of the time to live.
pub(crate) const MARGIN: Duration = Duration::from_millis(300);
pub(crate) const RELEASE: Duration = Duration::from_millis(2_000);
pub(crate) const COMMAND: Duration = Duration::from_millis(1_000);

/// Everything is as it has to be so long after the last fault has ended: dead workers' locks and the grace of their
/// names end (3 s), who was cut off finds out and connects again (3.5 s), the slowest handler is passed over (2 s),
/// and time for the machine.
pub(crate) const HEAL: Duration = Duration::from_secs(12);

/// Where the cluster's keys begin.
pub(crate) const CLUSTER: &str = "{assemblage:soak}";

/// The cluster as every process sees it. No job is ever quarantined: the processes die so often that each is suspect.
pub(crate) fn builder() -> ClusterBuilder {
    let rebalance = Rebalance::default().share(0.3).delay(Duration::from_millis(500));
    Cluster::builder("soak")
        .lock_ttl(TTL)
        .fence_margin(MARGIN)
        .release_timeout(RELEASE)
        .command_timeout(COMMAND)
        .rebalance(rebalance)
        .max_crashes(0)
}
