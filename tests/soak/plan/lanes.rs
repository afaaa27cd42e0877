//! Who does what when: each lane goes on by itself, with random numbers of its own.

use super::{Act, Call, Job, Net, Place, Plan, ROOMY, Server};
use crate::rng::Rng;

/// Ids that are used again and again.
const GIVEN: u64 = 40;
/// How many of them are deleted and added again, one after the other.
const CHURNED: u64 = 8;
/// About so many jobs under fresh ids.
const FRESH: usize = 120;
const FOREIGN_KEYS: u64 = 200_000;
const FOREIGN_BATCH: u64 = 2_000;
/// A storm and the calm after it.
const STORM: u64 = 12_000;
const CALM: u64 = 9_000;
/// When somebody dies in the calm, and comes back: what disturbed before is over, and a takeover has its time.
const DEATH: u64 = 4_500;
const REBIRTH: u64 = 8_500;
/// When one is not answered in the calm, soon after the dead one's jobs have been taken over.
const UNANSWERED: u64 = 7_000;
/// How long a consumer has not looked when its process is stopped.
const BUSY: u64 = 1_100;
/// By then a worker has said that it takes more, and has it.
const FAVOURED: u64 = 900;
/// When messages are lost, others are to follow before a heartbeat: something is asked for at least this often.
const TALK: u64 = 20;
/// How long nobody asks for anything.
const SILENCE: u64 = 3_800;
/// Of a storm's last so many ms, workers lose messages in some while much is said. The silence after it covers nothing up:
/// no other fault makes them connect again, and no other message is lost that an audit would find.
const LOSSES: u64 = 1_000;

impl Plan {
    pub(super) fn operations(&mut self, rng: &mut Rng, end: u64) {
        // Fresh jobs that were asked for and not deleted: the operation, and which of its jobs.
        let mut fresh: Vec<(String, usize)> = Vec::new();
        let (mut at, mut number) = (0, 0);
        // A few to begin with.
        for count in [50, 30] {
            fresh.extend((0..count).map(|index| (format!("o{number}"), index)));
            self.push(200, Act::Call { master: 0, op: format!("o{number}"), call: Call::Fresh(count) });
            number += 1;
        }
        let (mut pace, mut until) = (25, 0);
        while at < end {
            // Now many, now few: where a message comes soon after, the loss of the one before it is found out by that.
            if at >= until {
                pace = rng.pick(&[(3, 8), (5, 25), (3, 100), (1, 400)]);
                until = at + rng.range(1_500, 4_000);
            }
            let wait = rng.wait(pace);
            at += if loses(at, end) { wait.min(TALK) } else { wait };
            // In the beginning of a calm nothing is said, so that what was lost before has to be found out otherwise.
            if is_silent(at, end) {
                continue;
            }
            let op = format!("o{number}");
            number += 1;
            let any = |rng: &mut Rng, fresh: &[(String, usize)]| {
                if fresh.is_empty() || rng.chance(60) {
                    Job::Given(rng.range(0, GIVEN))
                } else {
                    let (op, index) = fresh[rng.index(fresh.len())].clone();
                    Job::Of { op, index }
                }
            };
            let crowded = fresh.len() > FRESH;
            let call = match rng.pick(&[
                (30, "add"),
                (3, "add-many"),
                (if crowded { 1 } else { 8 }, "fresh"),
                (if crowded { 1 } else { 4 }, "fresh-many"),
                (40, "update"),
                (18, "delete"),
                (if crowded { 12 } else { 5 }, "delete-many"),
                (8, "wait"),
                (2, "order"),
                (1, "renew"),
            ]) {
                "add" => Call::Add(vec![Job::Given(rng.range(0, GIVEN))]),
                "add-many" => {
                    let first = rng.range(0, GIVEN);
                    Call::Add((0..rng.range(2, 10)).map(|next| Job::Given((first + next) % GIVEN)).collect())
                }
                "fresh" => {
                    fresh.push((op.clone(), 0));
                    Call::Fresh(1)
                }
                "fresh-many" => {
                    let count = rng.range(2, 30) as usize;
                    fresh.extend((0..count).map(|index| (op.clone(), index)));
                    Call::Fresh(count)
                }
                "update" => Call::Update(any(rng, &fresh)),
                "delete" => Call::Delete(vec![any(rng, &fresh)]),
                "delete-many" => {
                    let count = rng.range(2, 20).min(fresh.len() as u64);
                    let jobs = (0..count).map(|_| fresh.swap_remove(rng.index(fresh.len())));
                    Call::Delete(jobs.map(|(op, index)| Job::Of { op, index }).collect())
                }
                "wait" => Call::Wait(any(rng, &fresh)),
                "order" => {
                    let worker = rng.range(ROOMY as u64, self.workers.len() as u64) as usize;
                    if rng.chance(20) {
                        Call::Order("evict", worker)
                    } else {
                        let op = format!("{op}r");
                        let call = Call::Order("resume", worker);
                        let later = at + rng.range(500, 3_000);
                        self.push(later.min(end), Act::Call { master: rng.index(self.masters), op, call });
                        Call::Order("drain", worker)
                    }
                }
                _ => Call::Renew,
            };
            self.push(at.min(end), Act::Call { master: rng.index(self.masters), op, call });
        }
    }

    /// What the applications around the workers do.
    pub(super) fn wishes(&mut self, rng: &mut Rng, end: u64) {
        let (mut at, mut number) = (1_000, 0);
        loop {
            at += rng.wait(800);
            if at >= end {
                return;
            }
            if !is_storm(at, end) {
                continue;
            }
            let worker = rng.index(self.workers.len());
            let roomy = worker < ROOMY;
            number += 1;
            let (line, undo) = match rng.pick(&[
                (1, "terminate"),
                (1, "drop"),
                (if roomy { 0 } else { 2 }, "drain"),
                (if roomy { 0 } else { 2 }, "capacity"),
                (1, "weight"),
                (3, "busy"),
                (3, "hold"),
                (1, "block"),
                (4, "delete"),
            ]) {
                "drain" => ("drain".to_owned(), Some("resume".to_owned())),
                "capacity" => (format!("capacity {}", rng.range(1, 40)), Some("capacity 0".to_owned())),
                "weight" => (format!("weight {}", rng.range(1, 5)), None),
                "busy" => (format!("busy {}", rng.range(100, 3_500)), None),
                "hold" => (format!("hold {} {}", rng.range(200, 1_500), rng.range(100, 3_200)), None),
                "block" => (format!("block {}", rng.range(50, 2_500)), None),
                "delete" => (format!("delete x{number} {}", rng.range(0, 1_000)), None),
                word => (word.to_owned(), None),
            };
            self.push(at, Act::Tell { worker, line });
            if let Some(line) = undo {
                self.push((at + rng.range(500, 4_000)).min(end), Act::Tell { worker, line });
            }
        }
    }

    /// One thing after the other.
    pub(super) fn server(&mut self, rng: &mut Rng, end: u64) {
        let mut foreign = false;
        let mut at = 500;
        loop {
            if !foreign {
                at += 300;
                foreign = true;
                for first in (0..FOREIGN_KEYS).step_by(FOREIGN_BATCH as usize) {
                    self.push(at, Act::Server(Server::ForeignKeys(first, FOREIGN_BATCH)));
                    at += 8;
                }
            }
            at += rng.wait(1_500);
            let acts = match rng.pick(&[
                (2, "pause"),
                (5, "restart"),
                (1, "wipe"),
                (2, "older"),
                (4, "subscriptions"),
                (1, "scripts"),
                (2, "locks"),
                (1, "memory"),
                (2, "mute"),
            ]) {
                "pause" => Some((Server::Pause, Server::Resume, rng.range(50, 3_500))),
                // Often there again before any lock ends: then all goes on, by new epochs.
                "restart" => {
                    let down = if rng.chance(60) { 20 } else { rng.range(20, 2_000) };
                    Some((Server::Kill, Server::Start { keep: true }, down))
                }
                "wipe" => Some((Server::Kill, Server::Start { keep: false }, rng.range(20, 1_500))),
                "older" => {
                    let (before, down) = (rng.range(20, 800), rng.range(20, 1_000));
                    if is_storm(at, end) && is_storm(at + before + down, end) {
                        self.push(at, Act::Server(Server::Snapshot));
                        at += before;
                        self.push(at, Act::Server(Server::Kill));
                        at += down;
                        self.push(at, Act::Server(Server::StartOlder));
                        foreign = false;
                    }
                    None
                }
                "memory" => Some((Server::FillMemory, Server::FreeMemory, rng.range(300, 3_000))),
                "mute" => Some((Server::Mute, Server::Unmute, rng.range(500, 5_000))),
                "subscriptions" => {
                    let times = rng.range(1, 6);
                    for _ in 0..times {
                        if is_storm(at, end) {
                            self.push(at, Act::Server(Server::KillSubscriptions));
                        }
                        at += rng.range(10, 200);
                    }
                    None
                }
                once => {
                    if is_storm(at, end) {
                        let locks = Server::Locks { forged: rng.chance(50) };
                        let act = if once == "locks" { locks } else { Server::FlushScripts };
                        self.push(at, Act::Server(act));
                    }
                    None
                }
            };
            if at >= end {
                return;
            }
            if let Some((begin, finish, duration)) = acts
                && is_storm(at, end)
                && is_storm(at + duration, end)
            {
                self.push(at, Act::Server(begin));
                at += duration;
                self.push(at, Act::Server(finish));
                foreign &= !matches!(finish, Server::Start { .. });
            }
        }
    }

    /// One thing after the other.
    pub(super) fn process(&mut self, rng: &mut Rng, end: u64, place: Place) {
        let is_worker = matches!(place, Place::Worker(_));
        let spared = if is_worker { LOSSES } else { 0 };
        if is_worker {
            self.losses(rng, end, place);
        }
        let mut at = rng.range(500, 4_000);
        loop {
            at += rng.wait(3_000);
            if at >= end {
                return;
            }
            // Half of them too short for a lock to end.
            let mut duration = if rng.chance(50) { rng.range(20, 400) } else { rng.range(400, 3_500) };
            let slow = rng.range(200, 450);
            let kind = rng.pick(&[
                (2, "kill"),
                (3, "stop"),
                (3, "busy-stop"),
                (3, "cut"),
                (3, "close"),
                (2, "hole"),
                (4, "hole-some"),
                (4, "deaf"),
                (if is_worker { 10 } else { 1 }, "unanswered"),
                (if is_worker { 8 } else { 1 }, "lossy"),
                (if is_worker { 0 } else { 8 }, "late"),
                (2, "delay"),
                (3, "uneven"),
                (2, "slow-hole"),
            ]);
            // When it ends, and what comes before that.
            let (finish, begin) = match kind {
                "kill" => (Act::Start(place), vec![(0, Act::Kill(place))]),
                "stop" => (Act::Continue(place), vec![(0, Act::Stop(place))]),
                // What came while the consumer did not look waits for it when the process wakes.
                "busy-stop" => {
                    let mut acts = vec![(0, Act::Stop(place))];
                    if let Place::Worker(worker) = place {
                        duration = rng.range(1_600, 3_000);
                        let line = format!("busy {}", BUSY + duration / 2);
                        acts = vec![(0, Act::Tell { worker, line }), (BUSY, Act::Stop(place))];
                    }
                    (Act::Continue(place), acts)
                }
                "cut" => (Act::NetEnd(place), vec![(0, Act::Net(place, Net::Cut))]),
                "close" => (Act::NetEnd(place), vec![(0, Act::Net(place, Net::CloseOnce))]),
                "hole" => (Act::NetEnd(place), vec![(0, Act::Net(place, Net::BlackHole))]),
                "hole-some" => {
                    (Act::NetEnd(place), vec![(0, Act::Net(place, Net::BlackHoleSome(rng.chance(50))))])
                }
                "deaf" => (Act::NetEnd(place), vec![(0, Act::Net(place, Net::SwallowAnswers))]),
                "delay" => (Act::NetEnd(place), vec![(0, Act::Net(place, Net::Delay(rng.range(5, 150))))]),
                // Too short for its lock to end: it asks again for what was done, when it may have the job again.
                "unanswered" => {
                    duration = rng.range(300, 900);
                    (Act::NetEnd(place), vec![(FAVOURED, Act::Net(place, Net::SwallowAnswersToCommands))])
                }
                "lossy" => {
                    duration = rng.range(1_000, 4_000);
                    (
                        Act::NetEnd(place),
                        vec![(0, Act::Net(place, Net::LoseMessages(rng.range(3, 7) as usize)))],
                    )
                }
                // What it asks for comes when it has given up on it.
                "late" => {
                    (Act::NetEnd(place), vec![(0, Act::Net(place, Net::Delay(rng.range(1_100, 1_800))))])
                }
                // Its last heartbeat is answered late, and the next ones are not.
                "slow-hole" => {
                    let acts = vec![
                        (0, Act::Net(place, Net::Delay(slow))),
                        (1_200, Act::Net(place, Net::BlackHole)),
                    ];
                    (Act::NetEnd(place), acts)
                }
                _ => {
                    let net = Net::Uneven(rng.range(20, 450), rng.chance(50));
                    (Act::NetEnd(place), vec![(0, Act::Net(place, net))])
                }
            };
            let last = begin.last().map_or(0, |(after, _)| *after);
            let duration = last + if kind == "close" { 1 } else { duration };
            if is_storm(at, end) && is_storm(at + duration + spared, end) {
                for (after, act) in begin {
                    self.push(at + after, act);
                }
                if kind == "unanswered" {
                    self.favour(rng, place, at, at + duration);
                }
                at += duration;
                self.push(at, finish);
            }
        }
    }

    /// Jobs come and go at one worker, before its answers are lost and while they are.
    fn favour(&mut self, rng: &mut Rng, place: Place, from: u64, to: u64) {
        self.churn(rng, place, from, from + FAVOURED, to);
        if let Place::Worker(worker) = place {
            self.push(from, Act::Tell { worker, line: "weight 50".to_owned() });
            self.push(to, Act::Tell { worker, line: format!("weight {}", rng.range(1, 5)) });
        }
    }

    /// Jobs that are deleted and added again, one after the other: while one worker is by far the least loaded for its
    /// weight, each comes to the one that has just let go of it. From `once` on each is but once, so that it is held when
    /// that worker asks again.
    fn churn(&mut self, rng: &mut Rng, place: Place, from: u64, once: u64, to: u64) {
        const PACE: u64 = 35;
        let first = rng.range(0, GIVEN);
        let before = (from..once).step_by(PACE as usize);
        let then = (once..to).step_by(PACE as usize).take(CHURNED as usize);
        for (at, next) in before.zip((0..CHURNED).cycle()).chain(then.zip(0..CHURNED)) {
            let jobs = vec![Job::Given((first + next) % GIVEN)];
            for (at, call) in [(at, Call::Delete(jobs.clone())), (at + PACE - 5, Call::Add(jobs))] {
                let (master, op) = (rng.index(self.masters), format!("c{place}-{at}"));
                self.push(at, Act::Call { master, op, call });
            }
        }
    }

    /// At the end of each storm.
    fn losses(&mut self, rng: &mut Rng, end: u64, place: Place) {
        for over in storms(end).filter(|over| *over >= LOSSES) {
            let from = over - LOSSES;
            self.push(from, Act::Net(place, Net::LoseMessages(rng.range(2, 6) as usize)));
            self.push(rng.range(from + 200, over), Act::NetEnd(place));
        }
    }

    /// In each calm one worker dies, and later another one is not answered; nothing else happens to anybody.
    pub(super) fn deaths(&mut self, rng: &mut Rng, end: u64) {
        let (_, calm) = cycle(end);
        // After the last storm there is none.
        for begin in storms(end).skip(1) {
            let dies = rng.index(self.workers.len());
            self.push(begin + DEATH * calm / CALM, Act::Kill(Place::Worker(dies)));
            self.push(begin + REBIRTH * calm / CALM, Act::Start(Place::Worker(dies)));
            let (place, from) = (Place::Worker((dies + 1) % ROOMY), begin + UNANSWERED * calm / CALM);
            let to = from + FAVOURED + rng.range(300, 500);
            self.push(from + FAVOURED, Act::Net(place, Net::SwallowAnswersToCommands));
            self.push(to, Act::NetEnd(place));
            self.favour(rng, place, from, to);
        }
    }
}

/// How long a storm and a calm are, in a run of this length.
fn cycle(end: u64) -> (u64, u64) {
    if end < STORM + CALM {
        (end * STORM / (STORM + CALM), end * CALM / (STORM + CALM))
    } else {
        (STORM, CALM)
    }
}

/// When the storms are over, the last one first.
fn storms(end: u64) -> impl Iterator<Item = u64> {
    let (storm, calm) = cycle(end);
    std::iter::successors(Some(end), move |over| over.checked_sub(storm + calm))
}

/// Whether faults may begin and end at this time. The last thing is a storm: what it has left behind nobody covers up.
fn is_storm(at: u64, end: u64) -> bool {
    let (storm, calm) = cycle(end);
    at < end && (end - at) % (storm + calm) < storm
}

/// Whether it is the end of a storm.
fn loses(at: u64, end: u64) -> bool {
    is_storm(at, end) && !is_storm(at + LOSSES, end)
}

/// Whether it is the beginning of a calm.
fn is_silent(at: u64, end: u64) -> bool {
    let (storm, calm) = cycle(end);
    at < end && (end - at) % (storm + calm) > storm + calm - SILENCE * calm / CALM
}
