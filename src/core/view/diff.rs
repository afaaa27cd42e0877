//! The end of a sync: the slots are made what the snapshot says, and what follows from the difference.

use std::time::Instant;

use bytes::Bytes;

use super::slot::{Stage, Then};
use super::{FAR_AHEAD, View};
use crate::core::queue::Handover;
use crate::id::{Epoch, JobId, Revision};
use crate::message::{Body, DeleteReason, Frame, Row, RowState};

impl View {
    /// The whole snapshot is there: make the slots what it says, then take in the frames that waited.
    pub(super) fn finish_sync(&mut self, now: Instant) {
        let Some(sync) = self.sync.take() else { return };
        let Some((first, mut rows, coverage)) = sync.finish(self.lifted) else { return };
        let lifted = first.lifted > self.lifted;
        self.lifted = first.lifted;
        // Granted later than this: new. A server that has lost writes may name again what a later page told of, and what was
        // let go of since.
        let known = if lifted { self.revision.max(self.horizon) } else { self.revision };

        let mut slots: Vec<(Revision, JobId)> =
            self.slots.iter().map(|(job, slot)| (slot.newest(), job.clone())).collect();
        slots.sort_unstable();
        for (grant, job) in slots {
            match rows.remove(&job) {
                Some(row) if row.grant == grant => self.keep(now, row, lifted),
                // Another assignment of it is ours now, or says so what the server forgot in a failover.
                Some(row) => {
                    self.end(now, &job, DeleteReason::Removed);
                    self.take_row(now, row, known);
                }
                None => self.lose(now, &job),
            }
        }
        // In the order in which they were assigned, as the frames would have come.
        let mut new: Vec<Row> = rows.into_values().collect();
        new.sort_unstable_by_key(|row| row.grant);
        for row in new {
            self.take_row(now, row, known);
        }

        self.last = first.inbox;
        let truth = first.revision.max(self.horizon);
        let is_forged = self.revision.get() > truth.get().saturating_add(FAR_AHEAD);
        self.revision = if is_forged { truth } else { self.revision.max(first.revision) };
        self.horizon = self.horizon.max(coverage.newest());
        self.coverage = Some(coverage);
        while let Some(frame) = self.waiting.pop() {
            if frame.revision <= self.revision {
                continue; // in the snapshot, or a duplicate, or forgotten by the server in a failover
            }
            if frame.previous != self.last {
                return self.handle_gap();
            }
            self.take_in(now, frame);
        }
        if self.waiting.has_overflown() {
            self.handle_gap();
        }
    }

    /// The next frame of the chain. It counts unless the page that is about its grant has it already (rule 2).
    pub(super) fn take_in(&mut self, now: Instant, frame: Frame) {
        self.advance(frame.revision);
        let grant = match &frame.body {
            Body::Delete { grant, .. } | Body::Update { grant, .. } => *grant,
            Body::Add { .. } | Body::Fenced | Body::Attend => frame.revision,
        };
        if self.coverage.as_ref().is_none_or(|pages| frame.revision > pages.read_at(grant)) {
            self.apply(now, frame);
        }
        if self.revision >= self.horizon {
            self.coverage = None; // all that is to come is later than every page
        }
    }

    /// A row about an assignment that has a slot.
    fn keep(&mut self, now: Instant, row: Row, lifted: bool) {
        let Row { job, grant, changed, state, .. } = row;
        match state {
            // Rule 3: the frame that said so was lost.
            RowState::Releasing => self.give_up(now, &job, DeleteReason::Removed),
            RowState::Moving => self.give_up(now, &job, DeleteReason::Rebalanced),
            RowState::Active(payload) => {
                let renewed = lifted && self.renew(&job);
                if let Some(payload) = payload {
                    self.refresh(&job, grant, changed, payload, renewed);
                }
            }
        }
    }

    /// Rule 10: an assignment that goes on has a new epoch. Whether it has.
    fn renew(&mut self, job: &JobId) -> bool {
        let Some(slot) = self.slots.get_mut(job) else { return false };
        let epoch = Epoch(slot.grant.max(self.lifted).get());
        if std::mem::replace(&mut slot.epoch, epoch) == epoch {
            return false; // granted after the lift
        }
        if let Stage::Waiting = slot.stage {
            self.queue.set_epoch(job, epoch);
        }
        true
    }

    /// The assignment's payload as of `at`; the consumer gets it by an `Update` if it is newer than what is known, or
    /// if it `must`.
    pub(super) fn refresh(&mut self, job: &JobId, grant: Revision, at: Revision, payload: Bytes, must: bool) {
        let Some(slot) = self.slots.get_mut(job) else { return };
        if slot.grant != grant {
            if let Stage::Deleting(Then::Begin(next)) = &mut slot.stage
                && next.grant == grant
                && (must || next.payload_at < at)
            {
                (next.payload, next.payload_at) = (payload, at.max(grant));
            }
            return;
        }
        if !must && slot.payload_at >= at {
            return;
        }
        // After a failover the server's word counts, even where it has forgotten an update.
        slot.payload_at = at.max(grant);
        match slot.stage {
            Stage::Waiting => self.queue.refresh(job, payload),
            Stage::Active => {
                let handover = Handover { grant, epoch: slot.epoch, born: slot.born, payload };
                self.queue.update(job, handover);
            }
            Stage::Deleting(_) | Stage::Returning => {}
        }
    }

    /// A row about an assignment that has no slot; of those up to `known` the view has heard, or may have.
    fn take_row(&mut self, now: Instant, row: Row, known: Revision) {
        let Row { job, grant, born, changed, state } = row;
        match state {
            // New: granted after all that is known here.
            RowState::Active(Some(payload)) if grant > known => {
                self.grant(now, job, grant, born, payload, changed.max(grant));
            }
            // Known and not held: it was let go of, and the server does not know (rule 10), or waits for it (rule 3).
            RowState::Active(_) | RowState::Releasing | RowState::Moving => self.hand_back(job, grant),
        }
    }

    /// A slot that no row is about: the server does not count the job as ours.
    fn lose(&mut self, now: Instant, job: &JobId) {
        match self.slots.get_mut(job).map(|slot| &mut slot.stage) {
            Some(Stage::Waiting) => {
                self.queue.cancel_add(job);
                self.slots.remove(job);
            }
            Some(Stage::Active) => self.end(now, job, DeleteReason::Removed),
            Some(Stage::Deleting(then)) => *then = Then::Release,
            Some(Stage::Returning) | None => {}
        }
    }
}
