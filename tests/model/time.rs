//! Time, in ticks: one is the time between two heartbeats.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

pub(crate) const TICK: Duration = Duration::from_secs(1);
pub(crate) const TTL_TICKS: u8 = 3;
pub(crate) const TTL: Duration = Duration::from_secs(3);
/// In this time handlers stop after the fence.
pub(crate) const MARGIN: Duration = Duration::from_secs(1);
pub(crate) const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);
pub(crate) const AUDIT_GRACE: Duration = Duration::from_secs(1);
/// Ticks for which a number waits for its join.
pub(crate) const RESERVATION: u8 = 3;
/// Ticks after which a master gives up on a command.
pub(crate) const PATIENCE: u8 = 1;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// When every check begins.
pub(crate) fn start() -> Instant {
    *START
}
