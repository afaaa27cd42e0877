//! Questions that change nothing: survey, roster, list, find.

use std::time::Duration;

use bytes::Bytes;

use super::{BATCH_JOBS, Due, Store, arg, num};
use crate::error::Result;
use crate::id::{Epoch, JobId, Revision, WorkerId};
use crate::redis::script;

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JobState {
    /// It waits for a worker.
    Pending,
    /// A worker holds it.
    Assigned {
        /// Which one.
        worker: WorkerId,
        /// By which epoch.
        epoch: Epoch,
    },
    /// It was deleted, or deleted and added again; the worker that holds it is to let go.
    Releasing {
        /// Which worker.
        worker: WorkerId,
        /// By which epoch it still holds the job.
        epoch: Epoch,
    },
}

/// A job's record, as the server keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) state: JobState,
    pub(crate) grant: Revision,
    /// The revision of its add; zero if it was deleted and only its owner is left.
    pub(crate) born: Revision,
}

impl Record {
    /// `<state> <worker> <grant> <born>`; `None` if it is anything else.
    fn parse(text: &str, lifted: Revision) -> Option<Self> {
        let mut fields = text.split(' ');
        let state = fields.next()?;
        let mut number = || fields.next()?.parse::<u64>().ok();
        let (worker, grant, born) = (WorkerId(number()?), Revision(number()?), Revision(number()?));
        let epoch = Epoch(grant.max(lifted).get());
        let state = match state {
            "p" => JobState::Pending,
            "a" => JobState::Assigned { worker, epoch },
            "r" => JobState::Releasing { worker, epoch },
            _ => return None,
        };
        // The scripts leave a record of another form alone: it is none here either.
        fields.next().is_none().then_some(Self { state, grant, born })
    }
}

#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) record: Record,
    pub(crate) payload: Bytes,
}

/// The cluster in numbers.
#[derive(Debug)]
pub(crate) struct Survey {
    pub(crate) revision: Revision,
    pub(crate) jobs: u64,
    pub(crate) pending: u64,
    pub(crate) workers: u64,
    pub(crate) due: Option<Due>,
    /// Jobs that wait although a worker has room.
    pub(crate) waiting: u64,
}

#[derive(Debug)]
pub(crate) struct RosterRow {
    pub(crate) worker: WorkerId,
    /// When it reserved its number, by the server's clock, since the Unix epoch.
    pub(crate) since: Duration,
    /// Until its lock ends; zero if it has ended.
    pub(crate) remaining: Duration,
    pub(crate) jobs: u64,
    /// Whether it is given new jobs.
    pub(crate) takes: bool,
    /// What it says of itself: MessagePack.
    pub(crate) info: Bytes,
}

/// A page of rows, and where the next one begins.
pub(crate) type Rows<T> = (Vec<T>, Option<String>);

impl Store {
    pub(crate) async fn survey(&self) -> Result<Survey> {
        let k = &self.keys;
        let keys = [&*k.meta, &k.rev, &k.owner, &k.pending, &k.workers, &k.deadlines, &k.load];
        let mut reply = self.run("looking at the cluster", &script::SURVEY, &keys, Vec::new()).await?;
        reply.int()?;
        let revision = reply.revision()?;
        let _lifted = reply.revision()?;
        let (jobs, pending, workers) = (reply.int()?, reply.int()?, reply.int()?);
        Ok(Survey { revision, jobs, pending, workers, due: reply.due()?, waiting: reply.int()? })
    }

    pub(crate) async fn roster(&self, cursor: &str) -> Result<Rows<RosterRow>> {
        let k = &self.keys;
        let keys = [&*k.workers, &k.deadlines, &k.load, &k.assigned];
        let args = vec![arg(cursor), num(BATCH_JOBS as u64)];
        let mut reply = self.run("listing workers", &script::ROSTER, &keys, args).await?;
        reply.int()?;
        let next = reply.text()?;
        let mut rows = Vec::with_capacity(reply.len() / 6);
        while !reply.is_empty() {
            rows.push(RosterRow {
                worker: reply.worker()?,
                since: Duration::from_millis(reply.int()?),
                remaining: Duration::from_millis(reply.int()?),
                jobs: reply.int()?,
                takes: reply.int()? == 1,
                info: reply.bytes()?,
            });
        }
        Ok((rows, Some(next).filter(|next| next != "0")))
    }

    pub(crate) async fn list(&self, cursor: &str) -> Result<Rows<(JobId, Record)>> {
        let k = &self.keys;
        let args = vec![arg(cursor), num(BATCH_JOBS as u64)];
        let mut reply = self.run("listing jobs", &script::LIST, &[&k.meta, &k.owner], args).await?;
        let lifted = reply.revision()?;
        let next = reply.text()?;
        let mut rows = Vec::with_capacity(reply.len() / 2);
        while !reply.is_empty() {
            let (job, text) = (reply.job()?, reply.text()?);
            rows.push((job, Record::parse(&text, lifted).ok_or_else(|| reply.unexpected())?));
        }
        Ok((rows, Some(next).filter(|next| next != "0")))
    }

    pub(crate) async fn find(&self, job: &JobId) -> Result<Option<Found>> {
        let k = &self.keys;
        let keys = [&*k.meta, &k.jobs, &k.owner];
        let mut reply = self.run("looking for a job", &script::FIND, &keys, vec![arg(job.as_str())]).await?;
        let lifted = reply.revision()?;
        if reply.is_empty() {
            return Ok(None);
        }
        let text = reply.text()?;
        let record = Record::parse(&text, lifted).ok_or_else(|| reply.unexpected())?;
        Ok(Some(Found { record, payload: Bytes::copy_from_slice(&reply.bytes()?) }))
    }
}
