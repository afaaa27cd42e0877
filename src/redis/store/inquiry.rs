//! Questions that change nothing: survey, roster, list, find.

use std::time::Duration;

use bytes::Bytes;

use super::{Due, PAGE_ROWS, Store, arg, num};
use crate::error::Result;
use crate::id::{Epoch, JobId, Revision, WorkerId};
use crate::message::Order;
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
    /// It is to go to another worker, to balance their loads; the one that holds it is to let go.
    Moving {
        /// Which worker.
        worker: WorkerId,
        /// By which epoch it still holds the job.
        epoch: Epoch,
    },
    /// Its owners crashed soon after they were given it, again and again: it is given to nobody until it is
    /// [requeued](crate::Master::requeue).
    Quarantined,
}

/// A worker crashed soon after it was given the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Crash {
    pub(crate) worker: WorkerId,
    /// When its lock ended, by the server's clock, since the Unix epoch.
    pub(crate) at: Duration,
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
    /// `<state> <worker> <grant> <born>`, and ` <changed>` if it was updated; `None` if it is anything else.
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
            "m" => JobState::Moving { worker, epoch },
            "q" => JobState::Quarantined,
            _ => return None,
        };
        if let Some(changed) = fields.next() {
            changed.parse::<u64>().ok()?;
        }
        // The scripts leave a record of another form alone: it is none here either.
        fields.next().is_none().then_some(Self { state, grant, born })
    }
}

#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) record: Record,
    pub(crate) payload: Bytes,
    /// How many crashes it is suspected of, and the last of them.
    pub(crate) crashes: (u32, Vec<Crash>),
}

/// `<count> <worker>@<ms> ...`; what is not understood is passed over.
fn crashes(text: &str) -> (u32, Vec<Crash>) {
    let mut words = text.split(' ');
    let count = words.next().and_then(|count| count.parse().ok()).unwrap_or(0);
    let crash = |word: &str| {
        let (worker, ms) = word.split_once('@')?;
        Some(Crash { worker: WorkerId(worker.parse().ok()?), at: Duration::from_millis(ms.parse().ok()?) })
    };
    (count, words.filter_map(crash).collect())
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
    pub(crate) quarantined: u64,
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
    /// Zero if it is given no jobs.
    pub(crate) weight: u64,
    /// Zero for any number.
    pub(crate) capacity: u64,
    pub(crate) order: Order,
    /// What it says of itself: MessagePack.
    pub(crate) info: Bytes,
}

/// A page of rows, and where the next one begins.
pub(crate) type Rows<T> = (Vec<T>, Option<String>);

impl Store {
    pub(crate) async fn survey(&self) -> Result<Survey> {
        let k = &self.keys;
        let keys = [&*k.meta, &k.rev, &k.owner, &k.pending, &k.workers, &k.deadlines, &k.load, &k.quarantine];
        let mut reply = self.run("looking at the cluster", &script::SURVEY, &keys, Vec::new()).await?;
        reply.int()?;
        let revision = reply.revision()?;
        let _lifted = reply.revision()?;
        let (jobs, pending, workers) = (reply.int()?, reply.int()?, reply.int()?);
        let (due, waiting, quarantined) = (reply.due()?, reply.int()?, reply.int()?);
        Ok(Survey { revision, jobs, pending, workers, due, waiting, quarantined })
    }

    pub(crate) async fn roster(&self, cursor: &str) -> Result<Rows<RosterRow>> {
        let k = &self.keys;
        let keys = [&*k.workers, &k.deadlines, &k.load, &k.assigned, &k.terms];
        let args = vec![arg(cursor), num(PAGE_ROWS as u64)];
        let mut reply = self.run("listing workers", &script::ROSTER, &keys, args).await?;
        reply.int()?;
        let next = reply.text()?;
        let mut rows = Vec::with_capacity(reply.len() / 9);
        while !reply.is_empty() {
            rows.push(RosterRow {
                worker: reply.worker()?,
                since: Duration::from_millis(reply.int()?),
                remaining: Duration::from_millis(reply.int()?),
                jobs: reply.int()?,
                takes: reply.int()? == 1,
                weight: reply.int()?,
                capacity: reply.int()?,
                order: reply.order()?,
                info: reply.bytes()?,
            });
        }
        Ok((rows, Some(next).filter(|next| next != "0")))
    }

    pub(crate) async fn list(&self, cursor: &str) -> Result<Rows<(JobId, Record)>> {
        let k = &self.keys;
        let args = vec![arg(cursor), num(PAGE_ROWS as u64)];
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
        let keys = [&*k.meta, &k.jobs, &k.owner, &k.crashes];
        let mut reply = self.run("looking for a job", &script::FIND, &keys, vec![arg(job.as_str())]).await?;
        let lifted = reply.revision()?;
        if reply.is_empty() {
            return Ok(None);
        }
        let text = reply.text()?;
        let record = Record::parse(&text, lifted).ok_or_else(|| reply.unexpected())?;
        let payload = Bytes::copy_from_slice(&reply.bytes()?);
        Ok(Some(Found { record, payload, crashes: crashes(&reply.text()?) }))
    }
}
