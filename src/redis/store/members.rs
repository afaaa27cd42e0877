//! Membership: open, reserve, join, beat, sync, leave, reap.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use uuid::Uuid;

use super::{BATCH_BYTES, BATCH_JOBS, PROTOCOL, Store, arg, millis, num};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{Revision, WorkerId};
use crate::message::{Cursor, Page, Row, RowState};
use crate::redis::reply::Reply;
use crate::redis::script;

/// A worker as the server knows it: its number, and the cluster in which it has that number.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) worker: WorkerId,
    pub(crate) incarnation: Arc<str>,
}

#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) incarnation: Arc<str>,
}

/// Why the server no longer counts a worker as a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was reaped, or has left.
    Dead,
    /// Its deadline has passed.
    Expired,
    /// The cluster is another one now.
    Reset,
}

/// The worker whose lock ends first, and in how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) worker: WorkerId,
    pub(crate) after: Duration,
}

#[derive(Debug)]
pub(crate) struct Joined {
    /// Jobs that wait for a worker.
    pub(crate) pending: u64,
    /// Workers whose lock has ended: to be reaped.
    pub(crate) due: Vec<WorkerId>,
}

#[derive(Debug)]
pub(crate) struct Beat {
    /// The revision of the last frame that was sent to the worker.
    pub(crate) inbox: Revision,
    pub(crate) lifted: Revision,
    /// How many workers act before this one.
    pub(crate) rank: u64,
    pub(crate) due: Option<Due>,
    /// Jobs that wait although a worker has room.
    pub(crate) waiting: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reap {
    /// There is no such worker any more.
    Nothing,
    /// So many jobs moved on; call again while some are left.
    Reaped { moved: u64, left: u64 },
    /// Its lock has not ended; it may in so long.
    Alive { remaining: Duration },
}

impl Reply {
    /// `other, other_ms`; `0, 0` is none.
    pub(super) fn due(&mut self) -> Result<Option<Due>> {
        let (worker, ms) = (self.worker()?, self.int()?);
        Ok((worker.get() != 0).then_some(Due { worker, after: Duration::from_millis(ms) }))
    }

    /// The first item of a reply that may be a refusal.
    fn accepted(&mut self) -> Result<Result<(), Ended>> {
        if self.int()? == 1 {
            return Ok(Ok(()));
        }
        Ok(Err(match self.int()? {
            1 => Ended::Dead,
            2 => Ended::Expired,
            3 => Ended::Reset,
            _ => return Err(self.unexpected()),
        }))
    }
}

impl Store {
    /// Opens the cluster on the server that bears this run id, and learns its clock.
    pub(crate) async fn open(&self, run_id: &str) -> Result<Opened> {
        let k = &self.keys;
        let candidate = Uuid::now_v7().simple().to_string();
        let args = vec![num(PROTOCOL), arg(candidate), arg(run_id)];
        let sent = Instant::now();
        let mut reply = self.run("opening the cluster", &script::OPEN, &[&k.meta, &k.rev], args).await?;
        reply.int()?;
        let protocol = reply.int()?;
        if protocol != PROTOCOL {
            return Err(Error::new(
                ErrorKind::Incompatible,
                format!(
                    "the cluster speaks version {protocol} of the protocol and this crate version {PROTOCOL}; use a release of \
                     the crate that speaks it, or another cluster id"
                ),
            ));
        }
        let _lifted = reply.revision()?;
        self.note_time(reply.int()?, sent);
        Ok(Opened { incarnation: reply.text()?.into() })
    }

    /// Reserves a worker's number; `None` if the cluster is another one now.
    pub(crate) async fn reserve(
        &self,
        incarnation: &str,
        ttl: Duration,
        info: Vec<u8>,
    ) -> Result<Option<WorkerId>> {
        let k = &self.keys;
        let args = vec![arg(incarnation), millis(ttl), Bytes::from(info)];
        let keys = [&*k.meta, &k.workers, &k.deadlines];
        let mut reply = self.run("reserving a worker's number", &script::RESERVE, &keys, args).await?;
        if reply.int()? == 1 { reply.worker().map(Some) } else { Ok(None) }
    }

    pub(crate) async fn join(&self, member: &Member, ttl: Duration) -> Result<Result<Joined, Ended>> {
        let k = &self.keys;
        let lock = k.lock(member.worker);
        let keys = [&*k.meta, &k.rev, &k.workers, &k.deadlines, &k.load, &k.inbox, &k.pending, &lock];
        let args = vec![arg(&*member.incarnation), num(member.worker.get()), millis(ttl)];
        let mut reply = self.run("joining the cluster", &script::JOIN, &keys, args).await?;
        if let Err(ended) = reply.accepted()? {
            return Ok(Err(ended));
        }
        let pending = reply.int()?;
        let mut due = Vec::new();
        while !reply.is_empty() {
            due.push(reply.worker()?);
        }
        Ok(Ok(Joined { pending, due }))
    }

    /// Waits no longer than until the next heartbeat is due.
    pub(crate) async fn beat(
        &self,
        member: &Member,
        ttl: Duration,
        draining: bool,
    ) -> Result<Result<Beat, Ended>> {
        let k = &self.keys;
        let lock = k.lock(member.worker);
        let keys = [&*k.meta, &k.workers, &k.deadlines, &k.load, &k.inbox, &k.pending, &lock];
        let args =
            vec![arg(&*member.incarnation), num(member.worker.get()), millis(ttl), num(u64::from(draining))];
        let timeout = self.timeout.min(ttl / 3);
        let mut reply = self.run_within(timeout, "sending a heartbeat", &script::BEAT, &keys, args).await?;
        if let Err(ended) = reply.accepted()? {
            return Ok(Err(ended));
        }
        Ok(Ok(Beat {
            inbox: reply.revision()?,
            lifted: reply.revision()?,
            rank: reply.int()?,
            due: reply.due()?,
            waiting: reply.int()?,
        }))
    }

    pub(crate) async fn sync(
        &self,
        member: &Member,
        since: Revision,
        cursor: Option<Cursor>,
    ) -> Result<Result<Page, Ended>> {
        let k = &self.keys;
        let keys = [&*k.meta, &k.rev, &k.jobs, &k.owner, &k.assigned, &k.workers, &k.inbox];
        let cursor = cursor.map_or_else(|| arg("-1"), |cursor| num(cursor.0));
        let args = vec![
            arg(&*member.incarnation),
            num(member.worker.get()),
            num(since.get()),
            cursor,
            num(BATCH_JOBS as u64),
            num(BATCH_BYTES as u64),
        ];
        let mut reply = self.run("asking what the worker holds", &script::SYNC, &keys, args).await?;
        if let Err(ended) = reply.accepted()? {
            return Ok(Err(ended));
        }
        let (revision, inbox, lifted) = (reply.revision()?, reply.revision()?, reply.revision()?);
        let next = reply.int_or_none()?.map(Cursor);
        let mut rows = Vec::with_capacity(reply.len() / 5);
        while !reply.is_empty() {
            let (job, grant, born) = (reply.job()?, reply.revision()?, reply.revision()?);
            let (state, payload) = (reply.int()?, reply.bytes()?);
            let state = match state {
                0 => RowState::Releasing,
                1 => RowState::Active(None),
                2 => RowState::Active(Some(Bytes::copy_from_slice(&payload))),
                _ => return Err(reply.unexpected()),
            };
            rows.push(Row { job, grant, born, state });
        }
        Ok(Ok(Page { revision, inbox, lifted, next, rows }))
    }

    /// How many jobs moved on and how many are left (then call again); `None` if it was no member any more.
    pub(crate) async fn leave(&self, member: &Member) -> Result<Option<(u64, u64)>> {
        let k = &self.keys;
        let lock = k.lock(member.worker);
        let keys = [&self.moving_keys()[..], &[&*k.deadlines, &k.workers, &lock, &k.meta]].concat();
        let args = vec![
            arg(&k.inbox_channel),
            arg(&k.released),
            arg(&k.control),
            num(member.worker.get()),
            num(BATCH_JOBS as u64),
            arg(&*member.incarnation),
        ];
        let mut reply = self.run("leaving the cluster", &script::LEAVE, &keys, args).await?;
        let (code, moved, left) = (reply.int()?, reply.int()?, reply.int()?);
        Ok((code == 1).then_some((moved, left)))
    }

    /// Reaps one batch, and tells whose lock ends next.
    pub(crate) async fn reap(&self, worker: WorkerId) -> Result<(Reap, Option<Due>)> {
        let k = &self.keys;
        let lock = k.lock(worker);
        let keys = [&self.moving_keys()[..], &[&*k.deadlines, &k.workers, &lock]].concat();
        let args = vec![
            arg(&k.inbox_channel),
            arg(&k.released),
            arg(&k.control),
            num(worker.get()),
            num(BATCH_JOBS as u64),
        ];
        let mut reply = self.run("reaping a worker", &script::REAP, &keys, args).await?;
        let (code, moved, left) = (reply.int()?, reply.int()?, reply.int()?);
        let reap = match code {
            0 => Reap::Nothing,
            1 => Reap::Reaped { moved, left },
            2 => Reap::Alive { remaining: Duration::from_millis(left) },
            _ => return Err(reply.unexpected()),
        };
        Ok((reap, reply.due()?))
    }
}
