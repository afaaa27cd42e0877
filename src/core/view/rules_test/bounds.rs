//! Bounded memory, and nothing that comes from outside breaks anything.

use proptest::prelude::*;

use super::*;
use crate::core::view::snapshot::{MOST_WAITING, MOST_WAITING_BYTES};

// Guards: bounded memory. However long a sync takes, the frames that wait for it are bounded in number and in bytes; what is
// dropped is asked for again, once.
#[test]
fn frames_that_wait_are_bounded_and_what_is_dropped_is_asked_for() {
    let large = Bytes::from(vec![0; MOST_WAITING_BYTES / 4]);
    for (payload, adds) in [(Bytes::new(), true), (large.clone(), true), (large, false)] {
        let mut bench = Bench::new();
        bench.view.handle_gap();
        let (request, ..) = bench.sync().expect("a sync");
        for n in 0..2 * MOST_WAITING as u64 {
            let (job, most) = (id("a"), if payload.is_empty() { MOST_WAITING } else { 4 });
            let payload = payload.clone();
            let body = if adds {
                Body::Add { job, born: Revision(1), payload }
            } else {
                Body::Update { job, grant: Revision(1), payload }
            };
            bench.frame(Frame { revision: Revision(11 + n), previous: Revision(10 + n), body });
            assert!(bench.view.waiting.len() <= most);
        }
        bench.take(request, page(10, 10, NO_ROWS));
        bench.answer(page(90_000, 90_000, [active("a", 90_000)]));
        assert_eq!(bench.poll(), ["+a 90000"]);
        assert_eq!(bench.sync(), None, "once");
    }
}

// Guards: bounded memory. Jobs come and go, released in time, behind a consumer that does not poll (but for the Adds).
#[test]
fn what_jobs_that_are_gone_leave_behind_does_not_pile_up() {
    let mut bench = Bench::new();
    let mut last = 10;
    for n in 0..5_000 {
        let (job, grant) = (format!("job{n}"), last + 1);
        bench.frame(add(last, grant, &job));
        if n % 2 == 0 {
            assert_eq!(bench.poll(), [format!("+{job} {grant}")]);
        }
        bench.frame(delete(grant, grant + 1, &job, grant));
        if n % 2 == 0 {
            bench.poll();
            bench.drop_handle(&job, grant);
        }
        assert_eq!(bench.releases(), [format!("{job} {grant}")]);
        bench.view.handle_released(&id(&job), Revision(grant), true);
        last += 2;
        assert!(bench.view.slots.is_empty());
        assert!(bench.view.deadlines.len() <= 66, "{} deadlines", bench.view.deadlines.len());
        assert!(!bench.view.has_delivery());
    }
}

// Guards: bounded memory. A deadline whose handles are gone is forgotten although the job is here again.
#[test]
fn deadlines_of_a_job_that_comes_and_goes_do_not_pile_up() {
    let mut bench = Bench::new();
    let mut last = 10;
    for _ in 0..1_000 {
        bench.frame(add(last, last + 1, "a"));
        bench.poll();
        bench.frame(delete(last + 1, last + 2, "a", last + 1));
        bench.poll();
        bench.drop_handle("a", last + 1);
        last += 2;
    }
    assert!(bench.view.deadlines.len() <= 67, "{} deadlines", bench.view.deadlines.len());
    assert_eq!(bench.view.slots.len(), 1, "its release is under way");
}

// Guards: bounded memory. One job goes back and forth while nobody polls: at most one pending change.
#[test]
fn however_often_a_job_changes_one_change_waits() {
    let mut bench = Bench::holding();
    bench.frame(delete(11, 12, "a", 11));
    bench.pass(RELEASE_TIMEOUT);
    let mut last = 12;
    for _ in 0..1_000 {
        bench.frame(add(last, last + 1, "a"));
        bench.frame(delete(last + 1, last + 2, "a", last + 1));
        last += 2;
    }
    bench.frame(add(last, last + 1, "a"));
    for n in 1..1_000 {
        bench.frame(update(last + n, last + n + 1, "a", last + 1, "new"));
    }
    assert_eq!(bench.view.waiting_changes(), 1);
    assert_eq!(bench.poll(), ["ReleaseTimeout a".into(), "-a 11".into(), format!("+a {}", last + 1)]);
}

#[derive(Clone, Debug)]
enum Hostile {
    Frame(Frame),
    Page(u64, Page),
    Audit(u64, u64),
    Dropped(u64),
    Released(u64, bool),
    Failed(u64),
    Poll,
    Pass,
    Drain,
    Resume,
}

fn hostile() -> impl Strategy<Value = Hostile> {
    let number = prop::sample::select(vec![0, 1, 2, 3, 4, u64::MAX - 1, u64::MAX]);
    let numbers = [(); 6].map(|()| number.clone());
    (0..9_u8, numbers, any::<bool>(), any::<bool>()).prop_map(|(kind, [a, b, c, d, e, request], yes, too)| {
        let (job, payload) = (id(if yes { "a" } else { "b" }), Bytes::from_static(b"x"));
        match kind {
            0 => Hostile::Frame(Frame {
                revision: Revision(a),
                previous: Revision(b),
                body: match (too, d) {
                    (true, 0..2) => Body::Update { job, grant: Revision(c), payload },
                    (true, _) => Body::Add { job, born: Revision(c), payload },
                    (false, 0) => Body::Attend,
                    (false, _) => Body::Delete { job, grant: Revision(c), reason: DeleteReason::Removed },
                },
            }),
            1 | 2 => {
                let state = match e {
                    0 => RowState::Releasing,
                    1 => RowState::Moving,
                    2 => RowState::Active(None),
                    _ => RowState::Active(Some(payload)),
                };
                let row = Row { job, grant: Revision(c), born: Revision(d), changed: Revision(a), state };
                let rows = if too { vec![row] } else { vec![] };
                let next = (kind == 2).then_some(Cursor(d));
                let page =
                    Page { revision: Revision(a), inbox: Revision(b), lifted: Revision(e), next, rows };
                Hostile::Page(request, page)
            }
            3 => Hostile::Audit(a, b),
            4 => Hostile::Dropped(a),
            5 => Hostile::Released(a, yes),
            6 => Hostile::Failed(request),
            7 if a == 0 && b == 0 => Hostile::Drain,
            7 if a == 0 => Hostile::Resume,
            7 => Hostile::Pass,
            _ => Hostile::Poll,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    // Guards: honest failure. No frame, page or answer, however hostile, panics, and the stream stays a proper one.
    #[test]
    fn nothing_that_comes_from_outside_panics_or_breaks_the_turn_of_adds_and_deletes(
        inputs in prop::collection::vec(hostile(), 1..80),
    ) {
        let mut bench = Bench { view: View::new(RELEASE_TIMEOUT, AUDIT_GRACE), now: Instant::now() };
        bench.view.handle_gap();
        bench.sync();
        let (mut newest, mut held) = (0, std::collections::HashMap::new());
        for input in inputs.into_iter().map(Some).chain([None]) {
            let (a, now, mut poll) = (id("a"), bench.now, false);
            match input {
                Some(Hostile::Frame(frame)) => bench.frame(frame),
                // Mostly the request that counts.
                Some(Hostile::Page(request, page)) => bench.take(if request > 1 { newest } else { request }, page),
                Some(Hostile::Audit(inbox, lifted)) => bench.view.handle_audit(now, Revision(inbox), Revision(lifted)),
                Some(Hostile::Dropped(grant)) => bench.view.handle_dropped(now, &a, Revision(grant)),
                Some(Hostile::Released(grant, mine)) => bench.view.handle_released(&a, Revision(grant), mine),
                Some(Hostile::Failed(request)) => bench.view.handle_sync_failed(request),
                Some(Hostile::Pass) => bench.pass(RELEASE_TIMEOUT / 2),
                Some(Hostile::Drain) => bench.view.handle_drain(now, DeleteReason::Terminated),
                Some(Hostile::Resume) => bench.view.handle_resume(),
                Some(Hostile::Poll) => poll = true,
                None => bench.view.handle_close(CloseReason::Terminated),
            }
            if let Some((request, ..)) = bench.sync() {
                newest = request;
            }
            if poll || bench.view.is_closed() {
                while let Some(delivery) = bench.view.poll_delivery() {
                    match delivery {
                        Delivery::Add { job, grant, .. } => prop_assert_eq!(held.insert(job, grant), None),
                        Delivery::Update { job, grant, .. } => prop_assert_eq!(held.get(&job), Some(&grant)),
                        Delivery::Delete { job, grant, .. } => prop_assert_eq!(held.remove(&job), Some(grant)),
                        Delivery::Problem(_) | Delivery::Close(_) => {}
                    }
                }
            }
        }
        prop_assert!(held.is_empty() && bench.view.is_finished());
    }
}
