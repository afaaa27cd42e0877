//! When two states are the same: when nothing that can happen next tells them apart.
//!
//! Revisions only matter by which is larger, so each is replaced by its rank among all that there are; instants only by how
//! far they are from now. So histories of different length lead to the same state, and time may go on for ever.

use std::time::Instant;

use crate::core::trail::{Mark, Trail};
use crate::id::Revision;
use crate::process::{Ask, Handle, Link, Process, Reply, Request, Worker};
use crate::server::Server;
use crate::time::{TICK, TTL_TICKS, start};
use crate::world::World;

/// A hash of what is in it, as it is: equal ones can take each other's place.
pub(crate) fn content(walk: impl FnOnce(&mut Trail)) -> u64 {
    let mut trail = Trail::default();
    walk(&mut trail);
    let mut hash = Hash(0x51_7cc1_b727_220a);
    for mark in &trail.0 {
        hash.take(match mark {
            Mark::Value(value) | Mark::Revision(value) => *value,
            Mark::Due(at) | Mark::Since(at) => at.saturating_duration_since(start()).as_millis() as u64,
        });
    }
    hash.0
}

/// A hash of what matters of a state.
pub(crate) fn identity(world: &World) -> u64 {
    let mut trail = Trail::default();
    trail.world(world);
    let mut revisions: Vec<u64> = vec![0];
    revisions.extend(trail.0.iter().filter_map(|mark| match mark {
        Mark::Revision(revision) => Some(*revision),
        _ => None,
    }));
    revisions.sort_unstable();
    revisions.dedup();
    let mut hash = Hash(0x9e37_79b9_7f4a_7c15);
    for mark in &trail.0 {
        match mark {
            Mark::Value(value) => hash.take(*value),
            Mark::Revision(revision) => {
                hash.take(revisions.binary_search(revision).unwrap_or(0) as u64);
            }
            Mark::Due(at) => hash.take(ticks_until(world.now, *at)),
            Mark::Since(at) => hash.take(ticks_since(world.now, *at)),
        }
    }
    hash.0
}

/// In how many ticks it is looked at: time goes on by whole ticks.
fn ticks_until(now: Instant, at: Instant) -> u64 {
    at.saturating_duration_since(now).as_millis().div_ceil(TICK.as_millis()) as u64
}

/// What is longer ago than a lock lives does not matter any more.
fn ticks_since(now: Instant, at: Instant) -> u64 {
    let ticks = now.saturating_duration_since(at).as_millis() / TICK.as_millis();
    (ticks as u64).min(u64::from(TTL_TICKS))
}

struct Hash(u64);

impl Hash {
    fn take(&mut self, value: u64) {
        // Both halves of a product of 128 bits: each bit of the one depends on all bits of the other.
        let product = u128::from(self.0 ^ value.wrapping_add(0xa076_1d64_78bd_642f)) * 0xe703_7ed1_a0b4_28db;
        self.0 = (product as u64) ^ ((product >> 64) as u64).rotate_left(23);
    }
}

impl Trail {
    fn number(&mut self, revision: u64) {
        self.revision(Revision(revision));
    }

    fn world(&mut self, world: &World) {
        let World {
            now: _,
            server,
            replica,
            processes,
            commands,
            lingering,
            asked,
            faults,
            ticks,
            kept,
            epochs,
            tokens,
            forgot,
            confirmed,
            fault,
        } = world;
        self.server(server);
        self.value(replica.is_some());
        if let Some(replica) = replica {
            self.server(replica);
        }
        for process in processes {
            self.process(process);
        }
        self.count(commands.len());
        for command in commands {
            self.value(command.job);
            self.number(command.born);
            self.value(command.patience);
        }
        self.count(lingering.len());
        for (number, token, ask) in lingering {
            self.value(*number);
            self.value(*token);
            self.ask(ask, None);
        }
        for count in [
            asked.adds,
            asked.updates,
            asked.deletes,
            asked.moves,
            asked.terminations,
            asked.starts,
            *faults,
            *ticks,
        ] {
            self.value(count);
        }
        for kept in kept {
            self.number(kept.unwrap_or(0));
        }
        for epoch in epochs {
            self.number(*epoch);
        }
        self.value(*tokens);
        self.number(*forgot);
        self.count(confirmed.len());
        for (job, number, grant) in confirmed {
            self.job(job);
            self.value(*number);
            self.number(*grant);
        }
        self.value(fault.map_or(0, |fault| 1 + fault as u64));
    }

    pub(crate) fn server(&mut self, server: &Server) {
        let Server { rev, clock, lifted, run, known_run, last_worker, jobs, members, .. } = server;
        for revision in [rev, clock, lifted] {
            self.number(*revision);
        }
        self.value(*run);
        self.value(*known_run);
        self.value(*last_worker);
        self.count(jobs.len());
        for (job, record) in jobs {
            self.job(job);
            self.value(record.state as u64);
            self.value(record.worker);
            for revision in [record.grant, record.born, record.changed] {
                self.number(revision);
            }
            self.value(record.payload);
        }
        self.count(members.len());
        for (number, member) in members {
            self.value(*number);
            self.value(member.ends);
            self.value(member.token);
            self.value(member.listed);
            self.value(member.open);
            self.number(member.inbox.unwrap_or(0));
        }
    }

    pub(crate) fn process(&mut self, process: &Process) {
        let Process { life, pace, number, token, run, heard_run, link, frames, requests, worker } = process;
        self.value(*life as u64);
        self.value(*pace as u64);
        self.value(*token);
        self.value(*number);
        self.value(*run);
        self.value(*heard_run);
        self.value(match link {
            Link::Down => 0_u64,
            Link::Deaf => 1,
            Link::Attaching => 2,
            Link::Attached => 3,
        });
        self.count(frames.len());
        for frame in frames {
            self.frame(frame);
        }
        let newest = worker.as_ref().and_then(|worker| worker.newest);
        self.count(requests.len());
        for Request { ask, sent, reply } in requests {
            self.ask(ask, newest);
            self.since(*sent);
            self.reply(reply.as_ref());
        }
        self.value(worker.is_some());
        if let Some(worker) = worker {
            self.worker(worker);
        }
    }

    fn worker(&mut self, worker: &Worker) {
        let Worker { view, lease, phase, terminated, release_queue, newest, retry, handles, pages } = worker;
        view.walk(self);
        if !view.is_closed() {
            lease.walk(self);
        }
        self.value(match phase {
            crate::process::Phase::Serving => 0_u64,
            crate::process::Phase::Draining { marked: false } => 1,
            crate::process::Phase::Draining { marked: true } => 2,
            crate::process::Phase::Leaving => 3,
        });
        self.value(*terminated);
        self.pairs(release_queue);
        self.value(*retry);
        self.count(handles.len());
        for Handle { job, grant, epoch, payload, cancelled, deleted } in handles {
            self.job(job);
            self.number(*grant);
            self.number(*epoch);
            self.value(*payload);
            self.value(*deleted);
            self.value(cancelled.is_some());
            if let Some(cancelled) = cancelled {
                self.due(cancelled.until);
                self.value(cancelled.late);
            }
        }
        for (request, page) in pages {
            self.value(*newest == Some(*request));
            self.page(page);
        }
    }

    fn pairs(&mut self, jobs: &[(crate::id::JobId, Revision)]) {
        self.count(jobs.len());
        for (job, grant) in jobs {
            self.job(job);
            self.revision(*grant);
        }
    }

    /// Of a sync's request only matters whether it is the newest.
    fn ask(&mut self, ask: &Ask, newest: Option<u64>) {
        match ask {
            Ask::Reserve => self.value(1_u64),
            Ask::Join => self.value(2_u64),
            Ask::Beat { draining } => self.value(3 + u64::from(*draining)),
            Ask::Sync { request, since, cursor } => {
                self.value(5 + u64::from(newest == Some(*request)));
                self.number(*since);
                self.cursor(*cursor);
            }
            Ask::Release(jobs) => {
                self.value(7_u64);
                self.pairs(jobs);
            }
            Ask::Leave => self.value(8_u64),
            Ask::RunId => self.value(9_u64),
            Ask::Open { run } => {
                self.value(10_u64);
                self.value(*run);
            }
        }
    }

    fn reply(&mut self, reply: Option<&Reply>) {
        match reply {
            None => self.value(0_u64),
            Some(Reply::RunId(run)) => {
                self.value(9_u64);
                self.value(*run);
            }
            Some(Reply::Opened) => self.value(10_u64),
            Some(Reply::Reserved(number)) => {
                self.value(1_u64);
                self.value(*number);
            }
            Some(Reply::Joined(Err(_))) => self.value(2_u64),
            Some(Reply::Joined(Ok(run))) => {
                self.value(3_u64);
                self.value(*run);
            }
            Some(Reply::Beat(Ok(beat))) => {
                self.value(4_u64);
                self.number(beat.inbox);
                self.number(beat.lifted);
                self.value(beat.run);
            }
            Some(Reply::Beat(Err(_)) | Reply::Synced(Err(_))) => self.value(5_u64),
            Some(Reply::Synced(Ok(page))) => {
                self.value(6_u64);
                self.page(page);
            }
            Some(Reply::Released(answers)) => {
                self.value(7_u64);
                for mine in answers {
                    self.value(*mine);
                }
            }
            Some(Reply::Left(left)) => {
                self.value(8_u64);
                self.count(*left);
            }
        }
    }

    fn page(&mut self, page: &crate::message::Page) {
        let crate::message::Page { revision, inbox, lifted, next, rows } = page;
        for revision in [revision, inbox, lifted] {
            self.revision(*revision);
        }
        self.cursor(*next);
        self.count(rows.len());
        for row in rows {
            row.walk(self);
        }
    }
}
