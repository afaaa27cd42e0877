//! The server: what the scripts in `src/redis/lua` do, one function a script and by its name, on one record a job.
//!
//! What is not here: names and their grace, weights and rates (a job goes to any worker with room where the scope says
//! so), quarantine, orders, the journal, `lock` keys (the deadline decides), indexes (`assigned`, `pending` and `load` are
//! found from the records).

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::id::{JobId, Revision};
use crate::message::{Body, Cursor, DeleteReason, Frame, Page, Row, RowState};
use crate::scope::{Break, Scope};
use crate::time::{RESERVATION, TTL_TICKS};

/// A worker's number; 0 is none.
pub(crate) type Number = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Pending,
    Assigned,
    /// It is to go to another worker.
    Moving,
    /// It was deleted.
    Releasing,
}

/// `{p}:owner` and `{p}:jobs`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    pub(crate) state: State,
    pub(crate) worker: Number,
    pub(crate) grant: u64,
    pub(crate) born: u64,
    pub(crate) changed: u64,
    pub(crate) payload: u8,
}

/// An entry of `{p}:deadlines`, and what else there is of that worker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    /// What its worker shows beside its number.
    pub(crate) token: u8,
    /// Ticks until its lock ends.
    pub(crate) ends: u8,
    /// Whether it is in `{p}:workers`: if not, it is dead.
    pub(crate) listed: bool,
    /// Whether it is in `{p}:load`: it is given jobs.
    pub(crate) open: bool,
    /// `{p}:inbox`
    pub(crate) inbox: Option<u64>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Server {
    pub(crate) rev: u64,
    /// No revision is below it: the server's own clock.
    pub(crate) clock: u64,
    pub(crate) lifted: u64,
    /// Which run of a server this is, and which one `{p}:meta` knows of.
    pub(crate) run: u8,
    pub(crate) known_run: u8,
    pub(crate) last_worker: Number,
    pub(crate) jobs: BTreeMap<JobId, Record>,
    pub(crate) members: BTreeMap<Number, Member>,
    /// What was published and is to be handed to who listens.
    pub(crate) out: Vec<(Number, Frame)>,
    /// Where `SharedRevision` breaks the rule: the revision that this script's frames have.
    pub(crate) shared: Option<u64>,
}

/// Why the server no longer counts a worker as a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Dead,
    Expired,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct BeatReply {
    pub(crate) inbox: u64,
    pub(crate) lifted: u64,
    /// Not in the script's answer: which run of the server it was.
    pub(crate) run: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reap {
    Nothing,
    Alive,
    Reaped,
}

/// How a script is run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct How<'a> {
    pub(crate) scope: &'a Scope,
    /// Who is given a job, if it has room; 0: the least loaded.
    pub(crate) to: Number,
}

pub(crate) fn payload(version: u8) -> Bytes {
    const VERSIONS: [&[u8]; 4] = [b"0", b"1", b"2", b"3"];
    Bytes::from_static(VERSIONS[usize::from(version)])
}

impl How<'_> {
    fn breaks(&self, broken: Break) -> bool {
        self.scope.broken == Some(broken)
    }

    fn batch(&self) -> usize {
        if self.scope.batch == 0 { usize::MAX } else { self.scope.batch }
    }
}

/// `lib/`
impl Server {
    fn tick(&mut self) -> u64 {
        self.rev = (self.rev + 1).max(self.clock);
        self.rev
    }

    fn send(&mut self, worker: Number, revision: u64, body: Body) {
        let mut previous = 0;
        if let Some(member) = self.members.get_mut(&worker) {
            previous = member.inbox.replace(revision).unwrap_or(0);
        }
        let frame = Frame { revision: Revision(revision), previous: Revision(previous), body };
        self.out.push((worker, frame));
    }

    pub(crate) fn held(&self, worker: Number) -> usize {
        self.jobs.values().filter(|record| record.worker == worker).count()
    }

    /// Who has room, the least loaded first.
    pub(crate) fn with_room(&self, scope: &Scope) -> Vec<Number> {
        let mut open: Vec<(usize, Number)> = self
            .members
            .iter()
            .filter(|(_, member)| member.open)
            .map(|(number, _)| (self.held(*number), *number))
            .filter(|(held, _)| scope.capacity == 0 || *held < scope.capacity)
            .collect();
        open.sort_unstable();
        open.into_iter().map(|(_, number)| number).collect()
    }

    fn choose(&self, how: How<'_>) -> Option<Number> {
        let open = self.with_room(how.scope);
        open.iter().find(|number| **number == how.to).or(open.first()).copied()
    }

    fn hand(&mut self, job: &JobId, grant: u64, worker: Number) {
        let Some(record) = self.jobs.get_mut(job) else { return };
        (record.state, record.worker, record.grant) = (State::Assigned, worker, grant);
        let (born, payload) = (Revision(record.born), payload(record.payload));
        self.send(worker, grant, Body::Add { job: job.clone(), born, payload });
    }

    fn wait(&mut self, job: &JobId) {
        if let Some(record) = self.jobs.get_mut(job) {
            (record.state, record.worker, record.grant) = (State::Pending, 0, 0);
        }
    }

    fn pass_on(&mut self, how: How<'_>, job: &JobId) -> bool {
        // Until then it counts as held by the worker that lets go of it.
        let next = self.choose(how);
        self.wait(job);
        let Some(worker) = next else { return false };
        let grant = match self.shared {
            Some(shared) if how.breaks(Break::SharedRevision) => shared,
            _ => self.tick(),
        };
        self.shared = Some(grant);
        self.hand(job, grant, worker);
        true
    }

    fn let_go(&mut self, how: How<'_>, job: &JobId) {
        if self.jobs.get(job).is_some_and(|record| record.born == 0) {
            self.jobs.remove(job);
        } else {
            self.pass_on(how, job);
        }
    }

    pub(crate) fn pending(&self) -> Vec<JobId> {
        let mut waiting: Vec<(u64, &JobId)> = self
            .jobs
            .iter()
            .filter(|(_, record)| record.state == State::Pending)
            .map(|(job, record)| (record.born, job))
            .collect();
        waiting.sort_unstable();
        waiting.into_iter().map(|(_, job)| job.clone()).collect()
    }

    fn fill(&mut self, how: How<'_>, limit: usize) {
        for job in self.pending().into_iter().take(limit) {
            if !self.pass_on(how, &job) {
                break;
            }
        }
    }

    fn assigned(&self, worker: Number) -> Vec<(u64, JobId)> {
        let mut rows: Vec<_> = self
            .jobs
            .iter()
            .filter(|(_, record)| record.worker == worker)
            .map(|(job, record)| (record.grant, job.clone()))
            .collect();
        rows.sort_unstable();
        rows
    }

    /// How many are left.
    fn evict(&mut self, how: How<'_>, worker: Number) -> usize {
        for (_, job) in self.assigned(worker).into_iter().take(how.batch()) {
            self.let_go(how, &job);
        }
        self.held(worker)
    }

    fn begin(&mut self) {
        self.shared = None;
    }
}

/// Membership.
impl Server {
    /// `run`: the server's, as the caller has found it.
    pub(crate) fn open(&mut self, how: How<'_>, run: u8) {
        if self.known_run != run {
            self.known_run = run;
            if how.breaks(Break::NoLift) {
                return;
            }
            self.lifted = self.tick();
            self.last_worker += 10;
            if !how.breaks(Break::LiftExtendsNothing) {
                for member in
                    self.members.values_mut().filter(|member| member.listed && member.inbox.is_some())
                {
                    member.ends = TTL_TICKS;
                }
            }
        }
    }

    pub(crate) fn reserve(&mut self, token: u8) -> Number {
        loop {
            self.last_worker += 1;
            if !self.members.contains_key(&self.last_worker) {
                break;
            }
        }
        let member = Member { token, ends: RESERVATION, listed: true, open: false, inbox: None };
        self.members.insert(self.last_worker, member);
        self.last_worker
    }

    /// `lib/base.lua`: whether that number is the caller's.
    fn is_member(&self, how: How<'_>, worker: Number, token: u8) -> bool {
        let any = how.breaks(Break::NoToken);
        self.members.get(&worker).is_some_and(|member| member.listed && (member.token == token || any))
    }

    /// Also, which run of the server it was: not in the script's answer.
    pub(crate) fn join(&mut self, how: How<'_>, worker: Number, token: u8) -> Result<u8, Ended> {
        let is_member = self.is_member(how, worker, token);
        let Some(member) = self.members.get(&worker).filter(|member| is_member && member.ends > 0) else {
            return Err(Ended::Dead);
        };
        let first = member.inbox.is_none();
        let chain = if first { Some(self.tick()) } else { None };
        if let Some(member) = self.members.get_mut(&worker) {
            member.ends = TTL_TICKS;
            if first {
                (member.inbox, member.open) = (chain, true);
            }
        }
        Ok(self.run)
    }

    pub(crate) fn beat(
        &mut self,
        how: How<'_>,
        worker: Number,
        token: u8,
        draining: bool,
    ) -> Result<BeatReply, Ended> {
        let is_member = self.is_member(how, worker, token);
        let (lifted, run) = (self.lifted, self.run);
        let Some(member) = self.members.get_mut(&worker).filter(|_| is_member) else {
            return Err(Ended::Dead);
        };
        if member.ends == 0 && !how.scope.lenient {
            return Err(Ended::Expired);
        }
        (member.ends, member.open) = (TTL_TICKS, !draining);
        Ok(BeatReply { inbox: member.inbox.unwrap_or(0), lifted, run })
    }

    pub(crate) fn sync(
        &self,
        how: How<'_>,
        worker: Number,
        token: u8,
        since: u64,
        cursor: Option<Cursor>,
    ) -> Result<Page, Ended> {
        let Some(member) = self.members.get(&worker).filter(|_| self.is_member(how, worker, token)) else {
            return Err(Ended::Dead);
        };
        let mut rows = self.assigned(worker);
        rows.retain(|(grant, _)| cursor.is_none_or(|cursor| *grant > cursor.0));
        let next = rows.get(how.batch().saturating_sub(1)).filter(|_| rows.len() > how.batch());
        let next = next.map(|(grant, _)| Cursor(*grant));
        rows.truncate(how.batch());
        let row = |(_, job): (u64, JobId)| {
            let record = self.jobs.get(&job)?;
            let state = match record.state {
                State::Releasing | State::Moving if how.breaks(Break::SnapshotHidesReleasing) => {
                    RowState::Active(None)
                }
                State::Releasing => RowState::Releasing,
                State::Moving => RowState::Moving,
                State::Assigned | State::Pending => RowState::Active(
                    (record.grant.max(record.changed) > since).then(|| payload(record.payload)),
                ),
            };
            let (grant, born) = (Revision(record.grant), Revision(record.born));
            Some(Row { job, grant, born, changed: Revision(record.changed), state })
        };
        Ok(Page {
            revision: Revision(self.rev),
            inbox: Revision(member.inbox.unwrap_or(0)),
            lifted: Revision(self.lifted),
            next,
            rows: rows.into_iter().filter_map(row).collect(),
        })
    }

    /// How many jobs are left.
    pub(crate) fn leave(&mut self, how: How<'_>, worker: Number, token: u8) -> usize {
        self.begin();
        let is_member = self.is_member(how, worker, token);
        let Some(member) = self.members.get_mut(&worker).filter(|member| is_member || !member.listed) else {
            return 0;
        };
        (member.listed, member.inbox, member.open) = (false, None, false);
        let left = self.evict(how, worker);
        if left == 0 {
            self.members.remove(&worker);
        }
        left
    }

    pub(crate) fn reap(&mut self, how: How<'_>, worker: Number) -> Reap {
        self.begin();
        let Some(member) = self.members.get(&worker).copied() else { return Reap::Nothing };
        if member.ends > 0 && !how.breaks(Break::ReapOfTheLiving) {
            return Reap::Alive;
        }
        if member.listed {
            if let Some(member) = self.members.get_mut(&worker) {
                (member.listed, member.open) = (false, false);
            }
            let revision = self.tick();
            self.send(worker, revision, Body::Fenced);
        }
        if let Some(member) = self.members.get_mut(&worker) {
            member.inbox = None;
        }
        let left = self.evict(how, worker);
        if left == 0 || how.breaks(Break::ReapForgetsDeadline) {
            self.members.remove(&worker);
        }
        Reap::Reaped
    }
}

/// Jobs.
impl Server {
    /// The birth of what is there then.
    pub(crate) fn add(&mut self, how: How<'_>, job: &JobId) -> u64 {
        self.begin();
        let Some(record) = self.jobs.get(job).copied() else {
            let born = self.tick();
            let (state, payload) = (State::Pending, 0);
            let record = Record { state, worker: 0, grant: 0, born, changed: 0, payload };
            self.jobs.insert(job.clone(), record);
            if let Some(worker) = self.choose(how) {
                self.hand(job, born, worker);
            }
            return born;
        };
        if record.state == State::Releasing && record.born == 0 {
            let born = self.tick();
            self.jobs.insert(job.clone(), Record { born, changed: 0, payload: 0, ..record });
            return born;
        }
        record.born
    }

    pub(crate) fn update(&mut self, job: &JobId) {
        let Some(mut record) = self.jobs.get(job).copied().filter(|record| record.born > 0) else { return };
        record.changed = self.tick();
        record.payload += 1;
        self.jobs.insert(job.clone(), record);
        if record.state == State::Assigned {
            let (grant, payload) = (Revision(record.grant), payload(record.payload));
            self.send(record.worker, record.changed, Body::Update { job: job.clone(), grant, payload });
        }
    }

    /// `meant`: which life; 0: whatever is there.
    pub(crate) fn delete(&mut self, job: &JobId, meant: u64) {
        let Some(mut record) = self.jobs.get(job).copied() else { return };
        if record.born == 0 || (meant != 0 && meant != record.born) {
            return;
        }
        if record.state == State::Pending {
            self.jobs.remove(job);
            return;
        }
        let told = record.state != State::Assigned;
        (record.state, record.born, record.changed) = (State::Releasing, 0, 0);
        self.jobs.insert(job.clone(), record);
        if !told {
            let revision = self.tick();
            let (grant, reason) = (Revision(record.grant), DeleteReason::Removed);
            self.send(record.worker, revision, Body::Delete { job: job.clone(), grant, reason });
        }
    }

    /// Whether each was this worker's by that grant.
    pub(crate) fn release(&mut self, how: How<'_>, worker: Number, jobs: &[(JobId, Revision)]) -> Vec<bool> {
        self.begin();
        let mut answers = Vec::new();
        for (job, grant) in jobs {
            let record = self.jobs.get(job);
            let mine = record.is_some_and(|record| {
                let any = how.breaks(Break::ReleaseOfAnyGrant);
                record.worker == worker && (record.grant == grant.0 || any)
            });
            if mine {
                self.let_go(how, job);
            }
            answers.push(mine);
        }
        self.fill(how, jobs.len());
        answers
    }

    pub(crate) fn place(&mut self, how: How<'_>) {
        self.begin();
        self.fill(how, how.batch());
    }

    /// One job of those that `rebalance` may choose.
    pub(crate) fn rebalance(&mut self, how: How<'_>, job: &JobId) {
        let Some(record) = self.jobs.get_mut(job).filter(|record| record.state == State::Assigned) else {
            return;
        };
        record.state = State::Moving;
        let (worker, grant, reason) = (record.worker, Revision(record.grant), DeleteReason::Rebalanced);
        let revision = self.tick();
        self.send(worker, revision, Body::Delete { job: job.clone(), grant, reason });
        if how.breaks(Break::AddBeforeRelease) {
            self.begin();
            self.let_go(how, job);
        }
    }
}
