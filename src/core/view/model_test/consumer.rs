//! The consumer: what it knows, and what it must never see.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use bytes::Bytes;

use super::RELEASE_TIMEOUT;
use crate::core::queue::Delivery;
use crate::error::ErrorKind;
use crate::id::{Epoch, JobId, Revision};

#[derive(Debug, Default)]
pub(super) struct Consumer {
    /// What was added and not deleted since.
    pub(super) held: BTreeMap<JobId, Held>,
    /// Assignments with a handle out.
    pub(super) handles: BTreeMap<(JobId, u64), Handle>,
    /// The grant and the epoch that were seen last.
    newest: HashMap<JobId, (u64, u64)>,
    /// What was ever commanded to be released.
    released: BTreeSet<(JobId, u64)>,
    pub(super) closed: bool,
}

/// A job as the consumer saw it last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) grant: u64,
    pub(super) epoch: u64,
    pub(super) payload: Bytes,
}

#[derive(Debug, Default)]
pub(super) struct Handle {
    /// Its `Delete` was polled: it may be dropped.
    pub(super) deleted: bool,
    /// Since when its `Delete` is queued.
    cancelled: Option<Instant>,
}

impl Handle {
    fn counts(&self, now: Instant) -> bool {
        self.cancelled.is_none_or(|at| now < at + RELEASE_TIMEOUT)
    }
}

/// As of when a model server's payload is.
fn as_of(payload: &Bytes, job: &JobId) -> u64 {
    let text = std::str::from_utf8(payload).expect("a model server's payload");
    let (of, at) = text.split_once(" as of ").expect("a model server's payload");
    assert_eq!(of, job.as_str(), "another job's payload");
    at.parse().expect("a model server's payload")
}

impl Consumer {
    /// Handles to the job that count.
    pub(super) fn holds(&self, job: &JobId, now: Instant) -> bool {
        self.handles.iter().any(|((other, _), handle)| other == job && handle.counts(now))
    }

    pub(super) fn cancel(&mut self, now: Instant, job: JobId, grant: Revision) {
        match self.handles.get_mut(&(job.clone(), grant.get())) {
            None => panic!("cancels {job} by {grant}, which is not out"),
            Some(handle) => {
                assert_eq!(handle.cancelled, None, "{job} is cancelled twice");
                handle.cancelled = Some(now);
            }
        }
    }

    /// The server is about to be told that the job is no longer held.
    pub(super) fn release(&mut self, now: Instant, job: &JobId, grant: Revision) {
        // An older handle's too: what is given back goes to another worker.
        // (A late repetition of an older grant's release does nothing.)
        for ((other, by), handle) in &self.handles {
            let out = other == job && *by <= grant.get() && handle.counts(now);
            assert!(!out, "{job} is released by {grant} while a handle by {by} is out: two owners");
        }
        self.released.insert((job.clone(), grant.get()));
    }

    /// `ending`: the worker is drained or leaves.
    pub(super) fn take(&mut self, now: Instant, delivery: &Delivery, ending: bool) {
        assert!(!self.closed, "after Close: {delivery:?}");
        match delivery {
            Delivery::Add { job, grant, epoch, born, payload } => {
                assert!(!ending, "{job} begins in a worker that gives up its jobs");
                assert!(born.get() > 0 && born <= grant && as_of(payload, job) >= born.get());
                self.add(now, job, *grant, *epoch, payload);
            }
            Delivery::Update { job, grant, epoch, born, payload } => {
                assert!(born.get() > 0 && born <= grant && as_of(payload, job) >= born.get());
                self.update(job, *grant, *epoch, payload);
            }
            Delivery::Delete { job, grant, epoch, .. } => self.delete(job, *grant, *epoch),
            Delivery::Problem(error) => {
                assert_eq!(error.kind(), ErrorKind::ReleaseTimeout);
                assert!(error.job().is_some());
            }
            Delivery::Close(_) => {
                assert!(self.held.is_empty(), "Close before a Delete of {:?}", self.held);
                self.closed = true;
            }
        }
    }

    fn add(&mut self, now: Instant, job: &JobId, grant: Revision, epoch: Epoch, payload: &Bytes) {
        let (grant, epoch) = (grant.get(), epoch.get());
        assert!(!self.held.contains_key(job), "two Adds in a row of {job}");
        let given_back = self.released.contains(&(job.clone(), grant));
        assert!(!given_back, "{job} by {grant} was given back: two owners");
        assert!(!self.holds(job, now), "{job} is added while a handle of it is out");
        let newest = self.newest.insert(job.clone(), (grant, epoch));
        let grows = newest.is_none_or(|(old, older)| old < grant && older < epoch);
        assert!(grows && epoch >= grant, "{job}: {grant}, {epoch} after {newest:?}");
        self.held.insert(job.clone(), Held { grant, epoch, payload: payload.clone() });
        self.handles.insert((job.clone(), grant), Handle::default());
    }

    fn update(&mut self, job: &JobId, grant: Revision, epoch: Epoch, payload: &Bytes) {
        let held = self.held.get_mut(job).unwrap_or_else(|| panic!("Update of {job}, which is not held"));
        assert_eq!(held.grant, grant.get(), "Update of another assignment");
        // A payload only goes back where the server has forgotten the newer one, and then the epoch has grown.
        let newer = as_of(&held.payload, job) < as_of(payload, job);
        let (old, epoch) = (held.epoch, epoch.get());
        assert!(
            old < epoch || (old == epoch && newer),
            "an Update that says nothing new: {held:?}, {payload:?}"
        );
        (held.epoch, held.payload) = (epoch, payload.clone());
        self.newest.insert(job.clone(), (held.grant, epoch));
    }

    fn delete(&mut self, job: &JobId, grant: Revision, epoch: Epoch) {
        let held = self.held.remove(job).unwrap_or_else(|| panic!("Delete of {job}, which is not held"));
        assert_eq!(held.grant, grant.get(), "Delete of another assignment");
        assert!(held.epoch <= epoch.get(), "the epoch went back");
        if let Some(handle) = self.handles.get_mut(&(job.clone(), held.grant)) {
            handle.deleted = true;
            assert!(handle.cancelled.is_some(), "{job} is deleted and its handlers were not told");
        }
    }

    /// Drops a handle that may be dropped: the stream has one of its own until the `Delete`.
    pub(super) fn drop_handle(&mut self, which: usize) -> Option<(JobId, u64)> {
        let deleted = self.handles.iter().filter(|(_, handle)| handle.deleted);
        let mut may_go: Vec<_> = deleted.map(|(assignment, _)| assignment.clone()).collect();
        let assignment = super::pick(&mut may_go, which)?;
        self.handles.remove(&assignment);
        Some(assignment)
    }
}
