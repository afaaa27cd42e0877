//! What there is, page by page, told as if it had just happened: first the workers, then the jobs.

use std::time::Duration;

use crate::change::Change;
use crate::core::feed::Picture;
use crate::error::Result;
use crate::id::{JobId, Revision};
use crate::message::Order;
use crate::redis::store::{JobState, Record, RosterRow, Store};

/// A page; of the first, also the last batch of changes before it.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) read_at: Option<Revision>,
    pub(super) picture: Picture,
}

const JOBS: char = 'j';

/// `cursor`: `w` or `j`, then the server's own.
pub(super) async fn read(store: &Store, cursor: Option<String>, keep: Duration, length: u64) -> Result<Page> {
    // From here on, what happens is kept, so that nothing is between the pages and the changes.
    let read_at = match cursor {
        None => Some(store.watch(keep, length).await?),
        Some(_) => None,
    };
    let cursor = cursor.unwrap_or_else(|| "w0".into());
    let picture = match cursor.strip_prefix(JOBS) {
        None => {
            let (rows, next) = store.roster(cursor.trim_start_matches('w')).await?;
            let next = next.map_or_else(|| format!("{JOBS}0"), |next| format!("w{next}"));
            Picture { changes: rows.iter().flat_map(worker).collect(), next: Some(next) }
        }
        Some(at) => {
            let (rows, next) = store.list(at).await?;
            let next = next.map(|next| format!("{JOBS}{next}"));
            Picture { changes: rows.into_iter().flat_map(|(id, record)| job(id, record)).collect(), next }
        }
    };
    Ok(Page { read_at, picture })
}

pub(super) fn worker(row: &RosterRow) -> Vec<Change> {
    let (worker, revision) = (row.worker, Revision(u64::try_from(row.since.as_micros()).unwrap_or(0)));
    let mut changes = vec![Change::WorkerJoined { revision, worker }];
    if !row.takes || row.order != Order::Resume {
        changes.push(Change::WorkerDraining { revision, worker });
    }
    changes
}

pub(super) fn job(job: JobId, record: Record) -> Vec<Change> {
    let Record { state, grant, born } = record;
    let added = Change::JobAdded { revision: born, job: job.clone() };
    let assigned = |worker, epoch| Change::JobAssigned { revision: grant, job: job.clone(), worker, epoch };
    match state {
        JobState::Pending => vec![added],
        JobState::Assigned { worker, epoch } => vec![added, assigned(worker, epoch)],
        JobState::Moving { worker, epoch } => {
            vec![added, assigned(worker, epoch), Change::JobMoving { revision: grant, job: job.clone() }]
        }
        JobState::Releasing { worker, epoch } => {
            let deleted = Change::JobDeleted { revision: grant, job: job.clone() };
            let mut changes = vec![added.clone(), assigned(worker, epoch), deleted];
            changes.extend((born > Revision::default()).then_some(added)); // added again meanwhile
            changes
        }
        JobState::Quarantined => {
            vec![added, Change::JobQuarantined { revision: born, job: job.clone() }]
        }
    }
}
