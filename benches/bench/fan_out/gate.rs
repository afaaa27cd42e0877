//! Counts arrivals, and says when the last one was.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::support::clock::monotonic_us;

/// How long anything may take before the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(crate) struct Gate {
    left: AtomicUsize,
    last: AtomicI64,
    all: Notify,
}

impl Gate {
    /// From now on so many are to come.
    pub(crate) fn expect(&self, count: usize) {
        assert_eq!(self.left.swap(count, Ordering::SeqCst), 0, "some of the last ones are missing");
    }

    /// So many have come.
    pub(crate) fn pass(&self, count: usize) {
        self.last.fetch_max(monotonic_us(), Ordering::SeqCst);
        let before = self.left.fetch_sub(count, Ordering::SeqCst);
        assert!(before >= count, "more than was sent");
        if before == count {
            self.all.notify_one();
        }
    }

    /// When the last one came.
    pub(crate) async fn last(&self) -> i64 {
        tokio::time::timeout(PATIENCE, self.all.notified()).await.expect("all arrive");
        self.last.load(Ordering::SeqCst)
    }
}
