use super::{Fence, Lease, Phase};
use crate::core::trail::Trail;

impl Lease {
    /// The settings do not change, and are left out.
    pub(crate) fn walk(&self, trail: &mut Trail) {
        let Self { lifetime: _, interval: _, fence, accepted, sent, phase } = self;
        match fence {
            Fence::Strict => {
                trail.since(*accepted);
                trail.since(*sent);
            }
            // It counts once everything is let go of.
            Fence::Lenient => trail.due(self.fence_at()),
        }
        match phase {
            Phase::Held(next) => trail.due(*next),
            Phase::Fenced => trail.value(0_u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::core::lease::LeaseAction;

    fn trail(lease: &Lease) -> Trail {
        let mut trail = Trail::default();
        lease.walk(&mut trail);
        trail
    }

    #[test]
    fn that_a_lenient_lease_has_let_go_shows_in_its_trail() {
        let (second, start) = (Duration::from_secs(1), Instant::now());
        let mut lease = Lease::new(3 * second, second, Fence::Lenient, start);
        let before = trail(&lease);
        lease.handle_let_go();
        assert_ne!(before, trail(&lease));
    }

    // Guards: the model check. A state that is taken for another one is a state that was not looked at.
    #[test]
    fn whatever_a_lease_takes_in_shows_in_its_trail() {
        let (second, start) = (Duration::from_secs(1), Instant::now());
        let mut lease = Lease::new(3 * second, second, Fence::Strict, start);
        let steps: [&dyn Fn(&mut Lease); 4] = [
            &|lease| assert_eq!(lease.poll(start + second), LeaseAction::Beat),
            &|lease| lease.handle_accepted(start + second),
            &|lease| lease.handle_failed(start + second),
            &|lease| assert_eq!(lease.poll(start + 9 * second), LeaseAction::Fenced),
        ];
        let mut seen = vec![trail(&lease)];
        for step in steps {
            step(&mut lease);
            assert!(!seen.contains(&trail(&lease)), "step {}", seen.len());
            seen.push(trail(&lease));
        }
    }
}
