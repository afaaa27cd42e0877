use super::{Change, Close, Ending, Handover, Queue};
use crate::core::trail::Trail;

impl Queue {
    pub(crate) fn walk(&self, trail: &mut Trail) {
        let Self { changes, order, next_number: _, problems, problem_popped, close } = self;
        trail.count(changes.len());
        for (job, number) in order {
            if let Some((current, change)) = changes.get(job)
                && current == number
            {
                trail.job(job);
                change.walk(trail);
            }
        }
        problems.walk(trail);
        trail.value(*problem_popped);
        trail.value(match close {
            Close::Open => 0,
            Close::Pending(reason) => 2 + *reason as u64,
            Close::Polled => 1,
        });
    }
}

impl Change {
    fn walk(&self, trail: &mut Trail) {
        let (kind, ending, handover) = match self {
            Self::Add(handover) => (1_u64, None, Some(handover)),
            Self::Update(handover) => (2, None, Some(handover)),
            Self::Delete(ending) => (3, Some(ending), None),
            Self::Replace(ending, handover) => (4, Some(ending), Some(handover)),
        };
        trail.value(kind);
        if let Some(Ending { grant, epoch, reason }) = ending {
            trail.revision(*grant);
            trail.epoch(*epoch);
            trail.value(*reason as u64);
        }
        if let Some(Handover { grant, epoch, born, payload }) = handover {
            trail.revision(*grant);
            trail.epoch(*epoch);
            trail.revision(*born);
            trail.bytes(payload);
        }
    }
}
