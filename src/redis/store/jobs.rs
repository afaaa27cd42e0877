//! Jobs: add, update, delete, release, place, rebalance, requeue.

use std::time::Duration;

use bytes::Bytes;

use super::{BATCH_JOBS, BATCH_MOVES, Store, arg, num};
use crate::error::Result;
use crate::id::{JobId, Revision, WorkerId};
use crate::redis::script;

/// What became of an added job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AddCode {
    Existing,
    Assigned,
    Pending,
    /// Its id was deleted, and the last owner still lets go.
    AfterRelease,
}

/// What became of a deleted job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeleteCode {
    Unknown,
    Gone,
    /// The worker that holds it by this grant is to let go.
    Releasing {
        worker: WorkerId,
        grant: Revision,
    },
}

/// What became of a new payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UpdateCode {
    Unknown,
    /// Its owner is told.
    Told,
    /// It is there for the next owner.
    Stored,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) placed: u64,
    /// How many still wait although a worker has room.
    pub(crate) waiting: u64,
    /// After how long those with room take more.
    pub(crate) pause: Duration,
}

/// A latest time for what may run at any time.
const NEVER_LATE: u64 = 1 << 52;

impl Store {
    /// Adds one batch. Each job's answer has the revision of its add, or of the one that was there before. `most`: how
    /// many jobs the cluster may have.
    pub(crate) async fn add(&self, jobs: &[(JobId, Bytes)], most: u64) -> Result<Vec<(AddCode, Revision)>> {
        let k = &self.keys;
        let all = self.moving_keys();
        let keys = [&all[..8], &all[9..]].concat(); // no crashes: a new job is not suspect
        let args = |not_after| {
            let mut args = vec![arg(&k.inbox_channel), num(not_after), num(most)];
            for (job, payload) in jobs {
                args.extend([arg(job.as_str()), payload.clone()]);
            }
            args
        };
        let mut reply = self.run_in_time("adding jobs", &script::ADD, &keys, args).await?;
        reply.int()?;
        let mut codes = Vec::with_capacity(jobs.len());
        for _ in jobs {
            let code = match reply.int()? {
                0 => AddCode::Existing,
                1 => AddCode::Assigned,
                2 => AddCode::Pending,
                3 => AddCode::AfterRelease,
                // 4: its record cannot be read. The rest of the batch was done.
                _ => return Err(reply.unexpected()),
            };
            codes.push((code, reply.revision()?));
        }
        Ok(codes)
    }

    /// Gives one batch of jobs new payloads.
    pub(crate) async fn update(&self, jobs: &[(JobId, Bytes)]) -> Result<Vec<UpdateCode>> {
        let k = &self.keys;
        let keys = [&*k.rev, &k.jobs, &k.owner, &k.inbox, &k.watch, &k.changes];
        let args = |not_after| {
            let mut args = vec![arg(&k.inbox_channel), num(not_after)];
            for (job, payload) in jobs {
                args.extend([arg(job.as_str()), payload.clone()]);
            }
            args
        };
        let mut reply = self.run_in_time("updating jobs", &script::UPDATE, &keys, args).await?;
        reply.int()?;
        let mut codes = Vec::with_capacity(jobs.len());
        for _ in jobs {
            codes.push(match reply.int()? {
                0 => UpdateCode::Unknown,
                1 => UpdateCode::Told,
                2 => UpdateCode::Stored,
                // 3: its record cannot be read. The rest of the batch was done.
                _ => return Err(reply.unexpected()),
            });
        }
        Ok(codes)
    }

    /// Deletes one batch, each by the revision of the add that is meant; `None` means what is there now.
    pub(crate) async fn delete(&self, jobs: &[(JobId, Option<Revision>)]) -> Result<Vec<DeleteCode>> {
        let k = &self.keys;
        let keys = [
            &*k.rev,
            &k.jobs,
            &k.owner,
            &k.pending,
            &k.inbox,
            &k.terms,
            &k.crashes,
            &k.quarantine,
            &k.watch,
            &k.changes,
        ];
        let named = jobs.iter().all(|(_, born)| born.is_some());
        let args = |not_after| {
            let mut args = vec![arg(&k.inbox_channel), num(if named { NEVER_LATE } else { not_after })];
            for (job, born) in jobs {
                args.extend([arg(job.as_str()), num(born.unwrap_or_default().get())]);
            }
            args
        };
        let mut reply = self.run_in_time("deleting jobs", &script::DELETE, &keys, args).await?;
        reply.int()?;
        let mut codes = Vec::with_capacity(jobs.len());
        for _ in jobs {
            let (code, worker, grant) = (reply.int()?, reply.worker()?, reply.revision()?);
            codes.push(match code {
                0 => DeleteCode::Unknown,
                1 => DeleteCode::Gone,
                2 => DeleteCode::Releasing { worker, grant },
                // 3: its record cannot be read. The rest of the batch was done.
                _ => return Err(reply.unexpected()),
            });
        }
        Ok(codes)
    }

    /// Releases one batch, each by its grant. `false`: it is not this worker's by that grant.
    pub(crate) async fn release(&self, worker: WorkerId, jobs: &[(JobId, Revision)]) -> Result<Vec<bool>> {
        let k = &self.keys;
        let keys = self.moving_keys();
        let mut args = vec![arg(&k.inbox_channel), arg(&k.released), num(worker.get())];
        for (job, grant) in jobs {
            args.extend([arg(job.as_str()), num(grant.get())]);
        }
        let mut reply = self.run("releasing jobs", &script::RELEASE, &keys, args).await?;
        reply.int()?;
        jobs.iter().map(|_| reply.int().map(|code| code == 1)).collect()
    }

    /// Gives one batch of waiting jobs to workers with room.
    pub(crate) async fn place(&self) -> Result<Placed> {
        let k = &self.keys;
        let keys = self.moving_keys();
        let args = vec![arg(&k.inbox_channel), num(BATCH_MOVES as u64)];
        let mut reply = self.run("giving out waiting jobs", &script::PLACE, &keys, args).await?;
        let (placed, waiting) = (reply.int()?, reply.int()?);
        Ok(Placed { placed, waiting, pause: Duration::from_millis(reply.int()?) })
    }

    /// One step of rebalancing. Returns how many jobs are to move: if that is a full batch, there may be more to this step.
    pub(crate) async fn rebalance(&self, share: f64, hysteresis: f64, delay: Duration) -> Result<usize> {
        let k = &self.keys;
        let keys = [&*k.rev, &k.owner, &k.assigned, &k.load, &k.inbox, &k.terms, &k.watch, &k.changes];
        let thousandths = |part: f64| num((part * 1000.0).round() as u64);
        let args = vec![
            arg(&k.inbox_channel),
            thousandths(share),
            thousandths(hysteresis),
            num(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)),
            num(BATCH_JOBS as u64),
        ];
        let mut reply = self.run("rebalancing", &script::REBALANCE, &keys, args).await?;
        reply.int().map(|marked| marked as usize)
    }

    /// Gives one batch of quarantined jobs another chance. `false`: it was not in quarantine.
    pub(crate) async fn requeue(&self, jobs: &[JobId]) -> Result<Vec<bool>> {
        let k = &self.keys;
        let keys = [&self.moving_keys()[..], &[&*k.quarantine]].concat();
        let mut args = vec![arg(&k.inbox_channel)];
        args.extend(jobs.iter().map(|job| arg(job.as_str())));
        let mut reply = self.run("requeueing jobs", &script::REQUEUE, &keys, args).await?;
        reply.int()?;
        jobs.iter().map(|_| reply.int().map(|code| code == 1)).collect()
    }
}
