//! Who waits for a deleted job to be let go of.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::id::{JobId, Revision};
use crate::message::Released;

type Key = (JobId, Revision);

#[derive(Default)]
pub(super) struct Waiters(Mutex<HashMap<Key, Arc<Notify>>>);

/// One who waits; leaves the list when dropped.
pub(super) struct Waiter {
    list: Arc<Waiters>,
    key: Key,
    notify: Arc<Notify>,
}

impl Waiters {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Arc<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn register(self: &Arc<Self>, job: &JobId, grant: Revision) -> Waiter {
        let key = (job.clone(), grant);
        let notify = self.lock().entry(key.clone()).or_default().clone();
        Waiter { list: self.clone(), key, notify }
    }

    pub(super) fn handle_released(&self, Released { job, grant }: Released) {
        if let Some(notify) = self.lock().get(&(job, grant)) {
            notify.notify_waiters();
        }
    }

    /// Notifications may have been lost: everybody looks.
    pub(super) fn handle_gap(&self) {
        self.lock().values().for_each(|notify| notify.notify_waiters());
    }
}

impl Waiter {
    /// Resolves when it is worth a look.
    pub(super) fn told(&self) -> Notified<'_> {
        self.notify.notified()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut list = self.list.lock();
        // The list's and this one: nobody else waits for the same.
        if Arc::strong_count(&self.notify) == 2 {
            list.remove(&self.key);
        }
    }
}
