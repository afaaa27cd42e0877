use super::{Bound, Coverage, First, Sync, WaitingRoom};
use crate::core::trail::Trail;
use crate::id::Revision;
use crate::message::{Cursor, Row, RowState};

impl Sync {
    /// The request's number only tells it from others: who keeps requests that are under way has to say which of them
    /// is the newest.
    pub(in crate::core::view) fn walk(&self, trail: &mut Trail) {
        let Self { request: _, since, pages, rows, first, released } = self;
        trail.revision(*since);
        walk_bounds(pages, trail);
        let mut rows: Vec<&Row> = rows.values().collect();
        rows.sort_unstable_by(|one, other| one.job.cmp(&other.job));
        trail.count(rows.len());
        for row in rows {
            row.walk(trail);
        }
        if let Some(First { revision, inbox, lifted }) = first {
            for revision in [revision, inbox, lifted] {
                trail.revision(*revision);
            }
        }
        let mut released: Vec<_> = released.iter().collect();
        released.sort_unstable();
        trail.count(released.len());
        for (job, grant) in released {
            trail.job(job);
            trail.revision(*grant);
        }
    }
}

impl Coverage {
    pub(in crate::core::view) fn walk(&self, trail: &mut Trail) {
        let Self(bounds) = self;
        walk_bounds(bounds, trail);
    }
}

fn walk_bounds(bounds: &[Bound], trail: &mut Trail) {
    trail.count(bounds.len());
    for Bound { upto, revision } in bounds {
        trail.cursor(*upto);
        trail.revision(*revision);
    }
}

impl WaitingRoom {
    pub(in crate::core::view) fn walk(&self, trail: &mut Trail) {
        let Self { frames, bytes: _, overflown } = self;
        trail.count(frames.len());
        for frame in frames {
            trail.frame(frame);
        }
        trail.value(*overflown);
    }
}

impl Row {
    pub(crate) fn walk(&self, trail: &mut Trail) {
        let Self { job, grant, born, changed, state } = self;
        trail.job(job);
        for revision in [grant, born, changed] {
            trail.revision(*revision);
        }
        match state {
            RowState::Releasing => trail.value(0_u64),
            RowState::Moving => trail.value(1_u64),
            RowState::Active(None) => trail.value(2_u64),
            RowState::Active(Some(payload)) => {
                trail.value(3_u64);
                trail.bytes(payload);
            }
        }
    }
}

impl Trail {
    /// A page ends at a residue of grants. In a model they are so small that a residue is the grant itself.
    pub(crate) fn cursor(&mut self, cursor: Option<Cursor>) {
        self.value(cursor.is_some());
        self.revision(Revision(cursor.map_or(0, |cursor| cursor.0)));
    }
}
