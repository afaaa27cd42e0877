use super::{Fence, Lease, Phase};
use crate::core::trail::Trail;

impl Lease {
    /// The settings do not change, and are left out.
    pub(crate) fn walk(&self, trail: &mut Trail) {
        let Self { lifetime: _, interval: _, fence, accepted, sent, phase } = self;
        if let Fence::Strict = fence {
            trail.since(*accepted);
            trail.since(*sent);
        }
        match phase {
            Phase::Held(next) => trail.due(*next),
            Phase::Fenced => trail.value(0_u64),
        }
    }
}
