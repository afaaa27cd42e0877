use bytes::Bytes;

use super::slot::{Slot, Stage, Successor, Then};
use super::{Command, Phase, View};
use crate::core::trail::Trail;
use crate::id::{JobId, Revision};
use crate::message::{Body, Frame};

impl View {
    /// Commands are left out where they have been polled: then there are none.
    pub(crate) fn walk(&self, trail: &mut Trail) {
        let Self {
            release_timeout: _,
            audit_grace: _,
            phase,
            slots,
            queue,
            commands,
            wanted,
            deadlines,
            revision,
            horizon,
            last,
            lifted,
            coverage,
            sync,
            waiting,
            next_request: _,
            audit,
            ahead,
        } = self;
        trail.value(match phase {
            Phase::Serving => 0_u64,
            Phase::Draining => 1,
            Phase::Closed => 2,
        });
        let mut sorted: Vec<(&JobId, &Slot)> = slots.iter().collect();
        sorted.sort_unstable_by_key(|(job, _)| *job);
        trail.count(sorted.len());
        for (job, slot) in sorted {
            trail.job(job);
            slot.walk(trail);
        }
        queue.walk(trail);
        for command in commands.iter().chain(wanted) {
            trail.command(command);
        }
        for (at, job, grant) in deadlines {
            if slots
                .get(job)
                .is_some_and(|slot| slot.grant == *grant && matches!(slot.stage, Stage::Deleting(_)))
            {
                trail.job(job);
                trail.due(*at);
            }
        }
        for revision in [revision, horizon, last, lifted] {
            trail.revision(*revision);
        }
        trail.value(sync.is_some());
        if let Some(sync) = sync {
            sync.walk(trail);
            waiting.walk(trail);
        }
        trail.value(coverage.is_some());
        if let Some(coverage) = coverage {
            coverage.walk(trail);
        }
        for told in [audit, ahead] {
            trail.value(told.is_some());
            if let Some((frame, at)) = told {
                trail.revision(*frame);
                trail.due(*at);
            }
        }
    }
}

impl Slot {
    fn walk(&self, trail: &mut Trail) {
        let Self { grant, epoch, born, payload_at, stage } = self;
        trail.revision(*grant);
        trail.epoch(*epoch);
        for revision in [born, payload_at] {
            trail.revision(*revision);
        }
        match stage {
            Stage::Waiting => trail.value(0_u64),
            Stage::Active => trail.value(1_u64),
            Stage::Returning => trail.value(2_u64),
            Stage::Deleting(Then::Release) => trail.value(3_u64),
            Stage::Deleting(Then::Begin(next)) => {
                let Successor { grant, born, payload, payload_at } = &**next;
                trail.value(4_u64);
                for revision in [grant, born, payload_at] {
                    trail.revision(*revision);
                }
                trail.bytes(payload);
            }
            Stage::Deleting(Then::HandBack(grant)) => {
                trail.value(5_u64);
                trail.revision(*grant);
            }
        }
    }
}

impl Trail {
    fn command(&mut self, command: &Command) {
        let (kind, job, grant) = match command {
            Command::Sync { request: _, since, cursor } => {
                self.cursor(*cursor);
                (1_u64, None, *since)
            }
            Command::Resubscribe => (2, None, Revision::default()),
            Command::Cancel { job, grant } => (3, Some(job), *grant),
            Command::Release { job, grant } => (4, Some(job), *grant),
            Command::Attend => (5, None, Revision::default()),
        };
        self.value(kind);
        self.revision(grant);
        if let Some(job) = job {
            self.job(job);
        }
    }

    pub(crate) fn frame(&mut self, frame: &Frame) {
        let Frame { revision, previous, body } = frame;
        self.revision(*revision);
        self.revision(*previous);
        let none = Bytes::new();
        let (kind, job, number, payload) = match body {
            Body::Add { job, born, payload } => (1_u64, Some(job), *born, payload),
            Body::Update { job, grant, payload } => (2, Some(job), *grant, payload),
            Body::Delete { job, grant, reason } => (10 + *reason as u64, Some(job), *grant, &none),
            Body::Attend => (3, None, Revision::default(), &none),
            Body::Fenced => (4, None, Revision::default(), &none),
        };
        self.value(kind);
        if let Some(job) = job {
            self.job(job);
        }
        self.revision(number);
        self.bytes(payload);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::message::{CloseReason, Page, RowState};

    fn trail(view: &View) -> Trail {
        let mut trail = Trail::default();
        view.walk(&mut trail);
        trail
    }

    // Guards: the model check. A state that is taken for another one is a state that was not looked at.
    #[test]
    fn whatever_a_view_takes_in_shows_in_its_trail() {
        let now = Instant::now();
        let mut view = View::new(Duration::from_secs(1), Duration::from_secs(1));
        let job = JobId::new("a").expect("a plain id");
        let row = crate::message::Row {
            job: job.clone(),
            grant: Revision(2),
            born: Revision(2),
            changed: Revision(0),
            state: RowState::Active(Some(Bytes::new())),
        };
        let page = Page {
            revision: Revision(3),
            inbox: Revision(2),
            lifted: Revision(0),
            next: None,
            rows: vec![row],
        };
        let delete = Body::Delete {
            job: job.clone(),
            grant: Revision(2),
            reason: crate::message::DeleteReason::Removed,
        };
        let frame = Frame { revision: Revision(4), previous: Revision(2), body: delete };
        let steps: [&dyn Fn(&mut View); 7] = [
            &|view| view.handle_gap(),
            &|view| drop(view.poll_command()),
            &|view| view.handle_page(now, 0, page.clone()),
            &|view| drop(view.poll_delivery()),
            &|view| view.handle_frame(now, frame.clone()),
            &|view| drop(view.poll_delivery()),
            &|view| view.handle_close(CloseReason::Terminated),
        ];
        let mut seen = vec![trail(&view)];
        for step in steps {
            step(&mut view);
            assert_eq!(trail(&view), trail(&view.clone()));
            seen.push(trail(&view));
            assert!(!seen[..seen.len() - 1].contains(&seen[seen.len() - 1]), "step {}", seen.len() - 1);
        }
    }
}
