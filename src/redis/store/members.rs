//! Membership: open, reserve, join, beat, sync, leave, reap, order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use uuid::Uuid;

use super::{BATCH_BYTES, BATCH_MOVES, Late, PAGE_ROWS, PROTOCOL, Store, arg, millis, num};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{JobId, Revision, WorkerId};
use crate::message::{Cursor, Order, Page, Row, RowState, Terms};
use crate::redis::reply::Reply;
use crate::redis::script;

/// A worker as the server knows it: its number, and the cluster in which it has that number.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) worker: WorkerId,
    pub(crate) incarnation: Arc<str>,
    /// What it shows beside its number, which a server that has lost writes may give out again.
    pub(crate) token: Arc<str>,
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

/// What a worker joins with.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) ttl: Duration,
    pub(crate) terms: Terms,
    /// Its name, and for how long its jobs are kept for one of the same name once its lock has ended.
    pub(crate) name: Option<(String, Duration)>,
    /// Whether a living worker of the same name is told to go.
    pub(crate) usurp: bool,
}

/// What a heartbeat says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lock {
    pub(crate) ttl: Duration,
    pub(crate) terms: Terms,
    /// No new jobs.
    pub(crate) draining: bool,
    /// The lock is revived if it has ended and nobody has reaped the worker.
    pub(crate) lenient: bool,
}

/// Why a worker may not take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The number is over, or the cluster is another one.
    Ended(Ended),
    /// There are as many workers as the newcomer allows.
    Full,
    /// A living worker has the name; its lock ends in so long.
    NameTaken(Duration),
}

/// When a job is held to have killed its workers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Suspicion {
    /// After so many crashes it is set aside; 0: never.
    pub(crate) crashes: u32,
    /// How long before the end of its worker's lock it was assigned, at most.
    pub(crate) window: Duration,
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
    pub(crate) order: Order,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reap {
    /// There is no such worker any more.
    Nothing,
    /// So many jobs moved on, these were set aside; call again while some are left.
    Reaped { moved: u64, left: u64, quarantined: Vec<JobId> },
    /// It is dead, and its jobs are kept so long for one of the same name.
    Kept { remaining: Duration },
    /// Its lock has not ended; it may in so long.
    Alive { remaining: Duration },
}

/// As the scripts take them: `<weight> <capacity> <rate>`, 0 for any.
fn terms(terms: &Terms) -> Bytes {
    let Terms { weight, capacity, takeover_rate } = terms;
    arg(format!("{weight} {} {}", capacity.unwrap_or(0), takeover_rate.unwrap_or(0)))
}

impl Reply {
    pub(super) fn order(&mut self) -> Result<Order> {
        Ok(match self.int()? {
            0 => Order::Resume,
            1 => Order::Drain,
            2 => Order::Evict,
            _ => return Err(self.unexpected()),
        })
    }

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
        let keys = [&*k.meta, &k.rev, &k.deadlines, &k.terms, &k.workers];
        let args = vec![num(PROTOCOL), arg(candidate), arg(run_id)];
        let mut reply = self.run("opening the cluster", &script::OPEN, &keys, args).await?;
        let heard = Instant::now();
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
        self.note_time(reply.int()?, heard);
        Ok(Opened { incarnation: reply.text()?.into() })
    }

    /// Reserves a worker's number. `most`: how many workers the cluster may have.
    pub(crate) async fn reserve(
        &self,
        incarnation: &Arc<str>,
        ttl: Duration,
        info: Vec<u8>,
        most: u64,
    ) -> Result<Result<Member, Refusal>> {
        let k = &self.keys;
        let token = Uuid::now_v7().simple().to_string();
        let args = vec![arg(&**incarnation), millis(ttl), Bytes::from(info), num(most), arg(&token)];
        let keys = [&*k.meta, &k.workers, &k.deadlines];
        let mut reply = self.run("reserving a worker's number", &script::RESERVE, &keys, args).await?;
        if reply.int()? == 1 {
            let (worker, incarnation, token) = (reply.worker()?, incarnation.clone(), token.into());
            return Ok(Ok(Member { worker, incarnation, token }));
        }
        Ok(Err(match reply.int()? {
            3 => Refusal::Ended(Ended::Reset),
            4 => Refusal::Full,
            _ => return Err(reply.unexpected()),
        }))
    }

    pub(crate) async fn join(&self, member: &Member, entry: &Entry) -> Result<Result<Joined, Refusal>> {
        let k = &self.keys;
        let lock = k.lock(member.worker);
        let keys = [
            &*k.meta,
            &k.rev,
            &k.workers,
            &k.deadlines,
            &k.load,
            &k.inbox,
            &k.pending,
            &lock,
            &k.terms,
            &k.assigned,
            &k.watch,
            &k.changes,
        ];
        let (name, grace) = entry.name.as_ref().map_or(("", Duration::ZERO), |(name, grace)| (name, *grace));
        let args = vec![
            arg(&*member.incarnation),
            num(member.worker.get()),
            millis(entry.ttl),
            terms(&entry.terms),
            arg(&k.inbox_channel),
            arg(name),
            num(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX)),
            num(u64::from(entry.usurp)),
            arg(&*member.token),
        ];
        let mut reply = self.run("joining the cluster", &script::JOIN, &keys, args).await?;
        if reply.int()? != 1 {
            return Ok(Err(match reply.int()? {
                1 => Refusal::Ended(Ended::Dead),
                3 => Refusal::Ended(Ended::Reset),
                5 => Refusal::NameTaken(Duration::from_millis(reply.int()?)),
                _ => return Err(reply.unexpected()),
            }));
        }
        let pending = reply.int()?;
        let mut due = Vec::new();
        while !reply.is_empty() {
            due.push(reply.worker()?);
        }
        Ok(Ok(Joined { pending, due }))
    }

    /// Waits no longer than until the next heartbeat is due.
    pub(crate) async fn beat(&self, member: &Member, lock: &Lock) -> Result<Result<Beat, Ended>> {
        let k = &self.keys;
        let key = k.lock(member.worker);
        let keys = [
            &*k.meta,
            &k.workers,
            &k.deadlines,
            &k.load,
            &k.inbox,
            &k.pending,
            &key,
            &k.terms,
            &k.assigned,
            &k.rev,
            &k.watch,
            &k.changes,
        ];
        let args = vec![
            arg(&*member.incarnation),
            num(member.worker.get()),
            millis(lock.ttl),
            num(u64::from(lock.draining)),
            terms(&lock.terms),
            num(u64::from(lock.lenient)),
            arg(&*member.token),
        ];
        let timeout = self.timeout.min(lock.ttl / 3);
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
            order: reply.order()?,
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
            num(PAGE_ROWS as u64),
            num(BATCH_BYTES as u64),
            arg(&*member.token),
        ];
        let mut reply = self.run("asking what the worker holds", &script::SYNC, &keys, args).await?;
        if let Err(ended) = reply.accepted()? {
            return Ok(Err(ended));
        }
        let (revision, inbox, lifted) = (reply.revision()?, reply.revision()?, reply.revision()?);
        let next = reply.int_or_none()?.map(Cursor);
        let mut rows = Vec::with_capacity(reply.len() / 6);
        while !reply.is_empty() {
            let (job, grant, born) = (reply.job()?, reply.revision()?, reply.revision()?);
            let changed = reply.revision()?;
            let (state, payload) = (reply.int()?, reply.bytes()?);
            let state = match state {
                0 => RowState::Releasing,
                1 => RowState::Active(None),
                2 => RowState::Active(Some(Bytes::copy_from_slice(&payload))),
                3 => RowState::Moving,
                _ => return Err(reply.unexpected()),
            };
            rows.push(Row { job, grant, born, changed, state });
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
            num(BATCH_MOVES as u64),
            arg(&*member.incarnation),
            arg(&*member.token),
        ];
        let mut reply = self.run("leaving the cluster", &script::LEAVE, &keys, args).await?;
        let (code, moved, left) = (reply.int()?, reply.int()?, reply.int()?);
        Ok((code == 1).then_some((moved, left)))
    }

    /// Reaps one batch, and tells whose lock ends next. `within`: it is not done any later than that.
    pub(crate) async fn reap(
        &self,
        worker: WorkerId,
        within: Duration,
        suspicion: Suspicion,
    ) -> Result<(Reap, Option<Due>)> {
        let k = &self.keys;
        let lock = k.lock(worker);
        let keys = [&self.moving_keys()[..], &[&*k.deadlines, &k.workers, &lock, &k.quarantine]].concat();
        let args = |not_after| {
            vec![
                arg(&k.inbox_channel),
                arg(&k.released),
                arg(&k.control),
                num(worker.get()),
                num(BATCH_MOVES as u64),
                num(not_after),
                num(suspicion.crashes),
                millis(suspicion.window),
            ]
        };
        // Once: what comes late may find a worker that has been silent only because the server was.
        let reply = self.run_by(Instant::now(), within, "reaping a worker", &script::REAP, &keys, args).await;
        let mut reply = reply.map_err(Late::into_error)?;
        let (code, moved, left, due) = (reply.int()?, reply.int()?, reply.int()?, reply.due()?);
        let reap = match code {
            0 => Reap::Nothing,
            1 => {
                let mut quarantined = Vec::new();
                while !reply.is_empty() {
                    quarantined.push(reply.job()?);
                }
                Reap::Reaped { moved, left, quarantined }
            }
            2 => Reap::Alive { remaining: Duration::from_millis(left) },
            3 => Reap::Kept { remaining: Duration::from_millis(left) },
            _ => return Err(reply.unexpected()),
        };
        Ok((reap, due))
    }

    /// Gives a worker an order. `false`: there is no such worker.
    pub(crate) async fn order(&self, worker: WorkerId, order: Order) -> Result<bool> {
        let k = &self.keys;
        let keys = [&*k.rev, &k.workers, &k.load, &k.inbox, &k.terms, &k.watch, &k.changes];
        let word = match order {
            Order::Resume => "resume",
            Order::Drain => "drain",
            Order::Evict => "evict",
        };
        let args = vec![arg(&k.inbox_channel), num(worker.get()), arg(word)];
        let mut reply = self.run("giving a worker an order", &script::ORDER, &keys, args).await?;
        Ok(reply.int()? == 1)
    }
}
