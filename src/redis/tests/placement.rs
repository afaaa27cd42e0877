//! Placement, whatever happens in whatever order: the real scripts on a real server, and workers that a test plays.
//!
//! Each case is a list of steps. After every step the keyspace must be of one piece, and what the workers were pushed
//! must be what the server says that they hold. In the end all heals: then every job has an owner as long as somebody has
//! room, the shares are as even as whole jobs allow, and it stands still.
//!
//! More cases: `ASSEMBLAGE_CASES=2000 cargo test --lib placement`. A case that fails is shrunk, printed, and tried first
//! the next time, by `proptest-regressions`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use super::bench::{Bench, JOINED, TRUST, entry, id, lock};
use crate::id::{Revision, WorkerId};
use crate::message::{Body, Order, SPAN, Terms};
use crate::redis::script;
use crate::redis::store::{AddCode, BATCH_MOVES, DeleteCode, Entry, Lock, Member, Reap, Suspicion};
use crate::test_server::{Connection, Reply};
use crate::wire::frame;

/// In CI: some seconds.
const CASES: u32 = 60;
/// So many workers take part at a time, and so many numbers may be given out in a case.
const WORKERS: usize = 6;
const NUMBERS: u64 = 90;
const JOBS: u8 = 24;
const FULL: f64 = 4_294_967_296.0;

#[derive(Clone, Debug)]
enum Step {
    Join {
        terms: Terms,
        name: Option<u8>,
        grace: bool,
    },
    /// A late copy of a join.
    JoinAgain(u8),
    Leave(u8),
    /// Its lock ends; it stops by its own clock. A crash comes right after a heartbeat, which makes suspects.
    Die {
        worker: u8,
        crash: bool,
    },
    /// A batch of the reap of whoever is dead.
    Reap {
        which: u8,
        limit: u8,
    },
    Add {
        first: u8,
        count: u8,
    },
    Update(u8),
    Delete {
        job: u8,
        by_birth: bool,
    },
    Requeue(u8),
    /// Lets go of so many of those that it is to let go of; `more`: also of one that nobody asked for.
    Release {
        worker: u8,
        count: u8,
        more: bool,
    },
    Beat {
        worker: u8,
        terms: Option<Terms>,
        draining: bool,
    },
    Order {
        worker: u8,
        order: Order,
    },
    Rebalance {
        share: u16,
        limit: u8,
    },
    Place {
        limit: u8,
    },
}

fn terms() -> impl Strategy<Value = Terms> {
    let weight = prop_oneof![5 => Just(1u32), 3 => 2u32..5, 1 => Just(7u32), 1 => Just(1_000u32)];
    let capacity = prop_oneof![2 => Just(None), 3 => (1u32..9).prop_map(Some)];
    let rate = prop_oneof![5 => Just(None), 1 => Just(Some(1u32)), 1 => Just(Some(40u32))];
    (weight, capacity, rate).prop_map(|(weight, capacity, takeover_rate)| Terms {
        weight,
        capacity,
        takeover_rate,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let any_u8 = any::<u8>;
    prop_oneof![
        5 => (terms(), proptest::option::weighted(0.3, 0u8..2), any::<bool>())
            .prop_map(|(terms, name, grace)| Step::Join { terms, name, grace }),
        1 => any_u8().prop_map(Step::JoinAgain),
        1 => any_u8().prop_map(Step::Leave),
        3 => (any_u8(), proptest::bool::weighted(0.7)).prop_map(|(worker, crash)| Step::Die { worker, crash }),
        5 => (any_u8(), 1u8..6).prop_map(|(which, limit)| Step::Reap { which, limit }),
        9 => (0..JOBS, 1u8..7).prop_map(|(first, count)| Step::Add { first, count }),
        2 => (0..JOBS).prop_map(Step::Update),
        5 => (0..JOBS, any::<bool>()).prop_map(|(job, by_birth)| Step::Delete { job, by_birth }),
        1 => (0..JOBS).prop_map(Step::Requeue),
        9 => (any_u8(), 1u8..6, proptest::bool::weighted(0.1))
            .prop_map(|(worker, count, more)| Step::Release { worker, count, more }),
        4 => (any_u8(), proptest::option::weighted(0.5, terms()), proptest::bool::weighted(0.1))
            .prop_map(|(worker, terms, draining)| Step::Beat { worker, terms, draining }),
        2 => (any_u8(), prop_oneof![Just(Order::Drain), Just(Order::Evict), Just(Order::Resume), Just(Order::Resume)])
            .prop_map(|(worker, order)| Step::Order { worker, order }),
        5 => (prop_oneof![Just(1000u16), Just(300), Just(100)], 1u8..30)
            .prop_map(|(share, limit)| Step::Rebalance { share, limit }),
        3 => (1u8..9).prop_map(|limit| Step::Place { limit }),
    ]
}

/// A worker as the test plays it.
struct Player {
    member: Member,
    terms: Terms,
    name: Option<(String, Duration)>,
    draining: bool,
    /// It is given jobs: it neither drains nor is under orders, as far as the server knows.
    takes: bool,
    /// The last frame that it was sent: the chain.
    last: u64,
    /// What it was pushed and has not let go of: by which grant, and whether it is to let go.
    held: BTreeMap<String, (u64, bool)>,
}

struct Game<'a> {
    bench: &'a mut Bench,
    ears: &'a mut Connection,
    players: Vec<Player>,
    /// Their locks have ended; their reap is not finished.
    dead: Vec<WorkerId>,
    /// Job -> the revision of its add, and the payload that it is to have.
    jobs: BTreeMap<String, (Revision, String)>,
    /// Worker -> how many jobs the server counted as its own after the last step.
    before: BTreeMap<u64, usize>,
    /// A job waited although somebody had room, after the last step.
    idle: bool,
    /// What came to pass.
    seen: Seen,
    crashes: u32,
}

type Outcome<T = ()> = Result<T, TestCaseError>;

macro_rules! must {
    ($condition:expr, $($why:tt)*) => {{
        let holds: bool = $condition;
        if !holds { return Err(TestCaseError::fail(format!($($why)*))); }
    }};
}

/// What came to pass in all cases, and how often.
type Seen = BTreeMap<&'static str, usize>;

/// The records: job -> state, worker, grant, born.
type Records = BTreeMap<String, (char, u64, u64, u64)>;

impl Game<'_> {
    fn player(&self, at: u8) -> Option<usize> {
        (!self.players.is_empty()).then(|| at as usize % self.players.len())
    }

    async fn play(&mut self, step: &Step) -> Outcome {
        match step.clone() {
            Step::Join { terms, name, grace } if self.players.len() < WORKERS => {
                let member = self.bench.reserved().await;
                must!(member.worker.0 <= NUMBERS, "too many numbers");
                let grace = if grace { JOINED } else { Duration::ZERO };
                let name = name.map(|name| (format!("name-{name}"), grace));
                let entry = Entry { terms, name: name.clone(), usurp: true, ..entry(JOINED) };
                self.bench.store.join(&member, &entry).await.unwrap().expect("it may join");
                for player in self
                    .players
                    .iter_mut()
                    .filter(|player| name.is_some() && named(&player.name) == named(&name))
                {
                    player.takes = false;
                }
                let last = self.bench.command(&["HGET", "@inbox", &member.worker.to_string()]).int() as u64;
                let held = BTreeMap::new();
                self.players.push(Player { member, terms, name, draining: false, takes: true, last, held });
            }
            Step::JoinAgain(at) => {
                let Some(at) = self.player(at) else { return Ok(()) };
                let Player { member, terms, name, .. } = &self.players[at];
                let entry = Entry { terms: *terms, name: name.clone(), usurp: true, ..entry(JOINED) };
                self.bench.store.join(member, &entry).await.unwrap().expect("it is a member");
            }
            Step::Leave(at) => {
                let Some(at) = self.player(at) else { return Ok(()) };
                let player = self.players.remove(at);
                self.bench.store.leave(&player.member).await.unwrap().expect("it was a member");
            }
            Step::Die { worker, crash } => {
                let Some(at) = self.player(worker) else { return Ok(()) };
                let player = self.players.remove(at);
                self.end(player.member.worker, crash);
                self.dead.push(player.member.worker);
            }
            Step::Reap { which, limit } if !self.dead.is_empty() => {
                let worker = self.dead[which as usize % self.dead.len()];
                self.reap(worker, limit.into()).await?;
            }
            Step::Add { first, count } => {
                let names: Vec<_> = (0..count).map(|at| format!("j{}", (first + at) % JOBS)).collect();
                let batch: Vec<_> =
                    names.iter().map(|job| (id(job), Bytes::from(format!("new {job}")))).collect();
                let codes = self.bench.add_all(&batch).await.unwrap();
                for (job, (code, born)) in names.into_iter().zip(codes) {
                    match code {
                        AddCode::Existing => {
                            must!(
                                self.jobs.get(&job).is_some_and(|(known, _)| *known == born),
                                "{job} is not there"
                            );
                        }
                        _ => {
                            let payload = format!("new {job}");
                            must!(
                                self.jobs.insert(job.clone(), (born, payload)).is_none(),
                                "{job} was there already"
                            );
                        }
                    }
                }
            }
            Step::Update(job) => {
                let job = format!("j{job}");
                let payload = format!("update of {job} at {}", self.jobs.len());
                let update = [(id(&job), Bytes::from(payload.clone()))];
                let code = self.bench.store.update(&update).await.unwrap()[0];
                let known = self.jobs.get_mut(&job);
                must!(
                    known.is_some() == (code != crate::redis::store::UpdateCode::Unknown),
                    "{job}: {code:?}"
                );
                if let Some((_, text)) = known {
                    *text = payload;
                }
            }
            Step::Delete { job, by_birth } => {
                let job = format!("j{job}");
                let born = self.jobs.get(&job).map(|(born, _)| *born).filter(|_| by_birth);
                let code = self.bench.delete(&job, born).await;
                let was = self.jobs.remove(&job).is_some();
                must!(!was || code != DeleteCode::Unknown, "{job}: {code:?}");
            }
            Step::Requeue(job) => drop(self.bench.store.requeue(&[id(&format!("j{job}"))]).await.unwrap()),
            Step::Release { worker, count, more } => {
                let Some(at) = self.player(worker) else { return Ok(()) };
                let player = &mut self.players[at];
                let asked = player.held.iter().filter(|(_, (_, asked))| *asked || more || player.draining);
                let batch: Vec<_> =
                    asked.take(count.into()).map(|(job, (grant, _))| (id(job), Revision(*grant))).collect();
                for (job, _) in &batch {
                    player.held.remove(job.as_str()); // before it tells the server, as a worker does
                }
                let codes = self.bench.store.release(player.member.worker, &batch).await.unwrap();
                must!(codes.iter().all(|released| *released), "not this worker's: {batch:?} {codes:?}");
            }
            Step::Beat { worker, terms, draining } => {
                let Some(at) = self.player(worker) else { return Ok(()) };
                let player = &mut self.players[at];
                player.terms = terms.unwrap_or(player.terms);
                player.draining = draining;
                let lock = Lock { terms: player.terms, ..lock(JOINED, draining) };
                let beat =
                    self.bench.store.beat(&player.member, &lock).await.unwrap().expect("it is a member");
                player.draining |= beat.order != Order::Resume;
                player.takes = !player.draining;
            }
            Step::Order { worker, order } => {
                let Some(at) = self.player(worker) else { return Ok(()) };
                must!(self.bench.order(self.players[at].member.worker, order).await, "it is a member");
                self.players[at].takes &= order == Order::Resume;
            }
            Step::Rebalance { share, limit } => {
                let marked = self.rebalance(share, limit.into()).await;
                *self.seen.entry("marked").or_default() += marked as usize;
                if marked < limit.into() {
                    must!(self.rebalance(share, limit.into()).await == 0, "a step twice is more than a step");
                }
            }
            Step::Place { limit } => {
                let (inbox, limit) = (self.bench.keys.inbox_channel.clone(), limit.to_string());
                let args = [inbox.as_bytes(), limit.as_bytes()];
                self.bench.run(&script::PLACE, WorkerId(0), &args).await.unwrap();
            }
            Step::Join { .. } | Step::Reap { .. } => {}
        }
        Ok(())
    }

    async fn rebalance(&mut self, share: u16, limit: usize) -> i64 {
        let (inbox, share, limit) =
            (self.bench.keys.inbox_channel.clone(), share.to_string(), limit.to_string());
        let args = [inbox.as_bytes(), share.as_bytes(), b"0", b"0", limit.as_bytes()];
        let reply = self.bench.run(&script::REBALANCE, WorkerId(0), &args).await.unwrap();
        let fred::types::Value::Array(items) = reply else { panic!("an array") };
        items[0].as_i64().expect("a number")
    }

    fn end(&mut self, worker: WorkerId, crash: bool) {
        let ended = if crash {
            self.bench.command(&["HSET", "@terms", &format!("{worker}:ttl"), "0"]);
            let time = self.bench.command(&["TIME"]);
            (time.list()[0].int() * 1_000 + time.list()[1].int() / 1_000).to_string()
        } else {
            "1000".into()
        };
        self.bench.command(&["DEL", &format!("@lock:{worker}")]);
        self.bench.command(&["ZADD", "@deadlines", &ended, &worker.to_string()]);
    }

    /// A batch. Its end, if that was the last one.
    async fn reap(&mut self, worker: WorkerId, limit: usize) -> Outcome {
        let suspicion = Suspicion { crashes: self.crashes, ..TRUST };
        if limit < 5 {
            self.bench.reap_batch(worker, limit, self.crashes).await;
            *self.seen.entry("reaps by batches").or_default() += 1;
            return Ok(());
        }
        match self.bench.store.reap(worker, JOINED, suspicion).await.unwrap().0 {
            Reap::Reaped { left: 0, .. } => {
                *self.seen.entry("reaped").or_default() += 1;
                self.dead.retain(|dead| *dead != worker);
            }
            Reap::Nothing => self.dead.retain(|dead| *dead != worker),
            Reap::Reaped { moved, left, .. } => {
                must!(moved == BATCH_MOVES as u64, "{left} are left, and only {moved} were moved");
            }
            Reap::Kept { .. } => *self.seen.entry("kept").or_default() += 1,
            Reap::Alive { .. } => {}
        }
        Ok(())
    }

    /// What was pushed since the last time. Promise: one owner; a worker is not overfilled.
    fn hear(&mut self) -> Outcome {
        self.ears.send(&[b"PING"]);
        loop {
            let message = self.ears.read();
            let [_, channel, Reply::Bulk(bytes)] = message.list() else { return Ok(()) };
            let channel = channel.text();
            let worker: u64 =
                channel.rsplit(':').next().and_then(|number| number.parse().ok()).expect("a number");
            let frame = frame::frame(bytes).expect("a frame");
            let Some(at) = self.players.iter().position(|player| player.member.worker.0 == worker) else {
                continue;
            };
            must!(frame.previous.0 == self.players[at].last, "a gap at {worker}: {frame:?}");
            self.players[at].last = frame.revision.0;
            match frame.body {
                Body::Add { job, .. } => {
                    must!(self.players[at].takes, "{worker} is given {job}, and is to be given nothing");
                    for player in &self.players {
                        let other = player.member.worker;
                        must!(
                            !player.held.contains_key(job.as_str()),
                            "{job} goes to {worker} and is {other}'s"
                        );
                    }
                    self.players[at].held.insert(job.to_string(), (frame.revision.0, false));
                }
                Body::Delete { job, grant, .. } => {
                    // It may have let go of it in the same moment.
                    if let Some(held) =
                        self.players[at].held.get_mut(job.as_str()).filter(|held| held.0 == grant.0)
                    {
                        held.1 = true;
                    }
                }
                Body::Update { job, grant, .. } => {
                    let held = self.players[at].held.get(job.as_str());
                    let has = held.is_some_and(|held| held.0 == grant.0 && !held.1);
                    must!(has, "{job} is updated for {worker}, which has it not, or not for long");
                    *self.seen.entry("updated").or_default() += 1;
                }
                Body::Attend => {}
                Body::Fenced => must!(false, "{worker} lives and was reaped"),
            }
        }
    }

    fn pairs(&mut self, words: &[&str]) -> BTreeMap<String, String> {
        let reply = self.bench.command(words);
        reply.list().chunks(2).map(|pair| (pair[0].text(), pair[1].text())).collect()
    }

    fn records(&mut self) -> Outcome<Records> {
        let mut records = Records::new();
        for (job, record) in self.pairs(&["HGETALL", "@owner"]) {
            let fields: Vec<&str> = record.split(' ').collect();
            must!(fields.len() == 4 || fields.len() == 5, "{job}: {record}");
            let number = |at: usize| fields[at].parse::<u64>().expect("a number");
            records.insert(job, (record.chars().next().expect("a state"), number(1), number(2), number(3)));
        }
        Ok(records)
    }

    /// What must be true after every step.
    fn check(&mut self, step: &Step) -> Outcome {
        let may_idle = matches!(step, Step::Join { .. } | Step::Beat { .. });
        self.hear()?;
        let records = self.records()?;
        let payloads = self.pairs(&["HGETALL", "@jobs"]);
        let assigned = self.pairs(&["ZRANGE", "@assigned", "0", "-1", "WITHSCORES"]);
        let pending = self.pairs(&["ZRANGE", "@pending", "0", "-1", "WITHSCORES"]);
        let quarantine = self.pairs(&["ZRANGE", "@quarantine", "0", "-1", "WITHSCORES"]);
        let load = self.pairs(&["ZRANGE", "@load", "0", "-1", "WITHSCORES"]);
        let deadlines = self.pairs(&["ZRANGE", "@deadlines", "0", "-1", "WITHSCORES"]);
        let (workers, inbox, terms) = (
            self.pairs(&["HGETALL", "@workers"]),
            self.pairs(&["HGETALL", "@inbox"]),
            self.pairs(&["HGETALL", "@terms"]),
        );

        // Promise: nothing lost. What was added and not deleted is there, with its payload, and nothing else.
        let living: BTreeMap<_, _> = records
            .iter()
            .filter(|(_, record)| record.3 > 0)
            .map(|(job, record)| (job.clone(), record.3))
            .collect();
        let added: BTreeMap<_, _> = self.jobs.iter().map(|(job, (born, _))| (job.clone(), born.0)).collect();
        must!(living == added, "there are {living:?}, added were {added:?}");
        let expected: BTreeMap<_, _> =
            self.jobs.iter().map(|(job, (_, payload))| (job.clone(), payload.clone())).collect();
        must!(payloads == expected, "payloads {payloads:?}, not {expected:?}");

        // The indexes say what the records say.
        let of = |states: &str, score: fn(&(char, u64, u64, u64)) -> String| -> BTreeMap<String, String> {
            let wanted = records.iter().filter(|(_, record)| states.contains(record.0));
            wanted.map(|(job, record)| (job.clone(), score(record))).collect()
        };
        let score = |record: &(char, u64, u64, u64)| (record.1 * SPAN + record.2 % SPAN).to_string();
        must!(assigned == of("amr", score), "assigned {assigned:?} {records:?}");
        must!(pending == of("p", |record| record.3.to_string()), "pending {pending:?} {records:?}");
        let aside: BTreeSet<_> = of("q", |_| String::new()).into_keys().collect();
        must!(
            quarantine.keys().cloned().collect::<BTreeSet<_>>() == aside,
            "quarantine {quarantine:?} {records:?}"
        );

        *self.seen.entry("quarantined").or_default() += aside.len();

        // The server counts as a worker's what that worker was pushed and has not let go of.
        let held_by = |worker: u64| -> BTreeMap<String, (u64, bool)> {
            let held = records.iter().filter(|(_, record)| record.1 == worker && "amr".contains(record.0));
            held.map(|(job, record)| (job.clone(), (record.2, record.0 != 'a'))).collect()
        };
        for player in &self.players {
            let (worker, held) = (player.member.worker, held_by(player.member.worker.0));
            must!(player.held == held, "{worker} was pushed {:?}, the server has {held:?}", player.held);
        }

        // The loads, and who is given jobs: on which terms each takes part.
        for (worker, score) in &load {
            let number: u64 = worker.parse().expect("a number");
            let player = self.players.iter().find(|player| player.member.worker.0 == number);
            let dead = self.dead.iter().any(|dead| dead.0 == number);
            must!(player.is_some() || dead, "{worker} is given jobs and is not there");
            let held = held_by(number).len();
            let fields: Vec<f64> =
                terms[worker].split(' ').map(|field| field.parse().expect("a number")).collect();
            let (weight, capacity) = (fields[0], fields[1]);
            let full = capacity > 0.0 && held as f64 >= capacity;
            let expected = held as f64 / weight + if full { FULL } else { 0.0 };
            let score: f64 = score.parse().expect("a score");
            must!((score - expected).abs() < 1e-5, "the load of {worker} is {score}, not {expected}");
            // A full worker gets nothing, and nobody is filled beyond its capacity.
            let before = self.before.get(&number).copied().unwrap_or(0);
            must!(
                capacity == 0.0 || held <= before.max(capacity as usize),
                "{worker} has {held}, more than {capacity}"
            );
        }
        for player in self.players.iter().filter(|player| player.takes) {
            must!(
                load.contains_key(&player.member.worker.to_string()),
                "{} is given no jobs",
                player.member.worker
            );
        }
        // Promise: room is never left beside a waiting job, but by a step after which its caller has it placed.
        let is_free = |player: &Player| {
            let room = player.terms.capacity.is_none_or(|capacity| player.held.len() < capacity as usize);
            player.takes && room && player.terms.takeover_rate.is_none()
        };
        let beside = !pending.is_empty() && self.players.iter().any(is_free);
        must!(!beside || self.idle || may_idle, "a job waits beside room: {records:?}");
        // The room of one that is dead and not reaped counts as well: it is had for asking, as far as the server knows.
        let room = load.values().any(|score| score.parse::<f64>().is_ok_and(|score| score < FULL));
        self.idle = !pending.is_empty() && room;
        let given: BTreeSet<_> = terms.keys().filter(|field| field.parse::<u64>().is_ok()).collect();
        must!(given == load.keys().collect(), "terms of {given:?}, load {load:?}");
        for (field, value) in &terms {
            let (about, kind) = field.split_once(':').unwrap_or((field, ""));
            let worker = if about == "name" { value } else { about };
            must!(
                field == "changed" || deadlines.contains_key(worker),
                "{field} = {value} has outlived its worker"
            );
            if kind == "moving" {
                let moving =
                    records.values().filter(|record| record.0 == 'm' && record.1.to_string() == about);
                must!(moving.count().to_string() == *value, "{field} = {value}: {records:?}");
            }
        }
        let on_their_way: BTreeSet<_> =
            records.values().filter(|record| record.0 == 'm').map(|record| record.1).collect();
        for worker in on_their_way {
            must!(terms.contains_key(&format!("{worker}:moving")), "what {worker} is to move is not counted");
        }

        // Members: who can beat can be reaped.
        let rev: u64 = self.bench.command(&["GET", "@rev"]).text().parse().unwrap_or(0);
        for (worker, revision) in &inbox {
            must!(deadlines.contains_key(worker), "{worker} is gone and has an inbox");
            must!(
                revision.parse::<u64>().is_ok_and(|revision| revision <= rev),
                "the inbox of {worker} is ahead"
            );
        }
        must!(workers.keys().all(|worker| deadlines.contains_key(worker)), "a member that cannot be reaped");
        must!(records.values().all(|record| record.2.max(record.3) <= rev), "a record is ahead of {rev}");
        let mut before = BTreeMap::new();
        for record in records.values().filter(|record| "amr".contains(record.0)) {
            *before.entry(record.1).or_default() += 1;
        }
        self.before = before;
        Ok(())
    }

    /// All heals: the dead are reaped, orders are lifted, workers let go of what they are to let go of, as often as needed.
    async fn heal(&mut self) -> Outcome {
        let mut step = Step::Place { limit: 0 };
        self.crashes = 0;
        while let Some(worker) = self.dead.first().copied() {
            self.end(worker, false); // of the grace as well
            self.reap(worker, 200).await?;
            self.check(&step)?;
        }
        for at in 0..self.players.len() {
            let worker = self.players[at].member.worker;
            self.bench.order(worker, Order::Resume).await;
            step = Step::Beat { worker: at as u8, terms: None, draining: false };
            self.play(&step).await?;
            self.check(&step)?;
        }
        let quarantined: Vec<_> = self.records()?.into_iter().filter(|(_, record)| record.0 == 'q').collect();
        for (job, _) in quarantined {
            must!(self.bench.store.requeue(&[id(&job)]).await.unwrap()[0], "{job} is in quarantine");
            self.check(&step)?;
        }
        for _ in 0..400 {
            let mut busy = 0;
            for at in 0..self.players.len() {
                busy += self.players[at].held.values().filter(|(_, asked)| *asked).count();
                self.play(&Step::Release { worker: at as u8, count: 200, more: false }).await?;
                self.check(&step)?;
                // Time passes: it has worked off what it was handed.
                let worker = self.players[at].member.worker;
                self.bench.command(&["HDEL", "@terms", &format!("{worker}:handed")]);
            }
            let placed = self.bench.store.place().await.unwrap();
            self.check(&step)?;
            busy += placed.placed as usize + self.rebalance(1_000, 200).await as usize;
            self.check(&step)?;
            if busy == 0 && placed.waiting == 0 {
                return self.at_rest().await;
            }
        }
        Err(TestCaseError::fail("it does not come to rest"))
    }

    /// Nothing waits beside room, the shares are as even as whole jobs allow, and it stands still.
    async fn at_rest(&mut self) -> Outcome {
        let (records, load) = (self.records()?, self.pairs(&["ZRANGE", "@load", "0", "-1", "WITHSCORES"]));
        let waiting = records.values().filter(|record| record.0 == 'p').count();
        must!(records.values().all(|record| "pa".contains(record.0)), "nothing is on its way: {records:?}");
        must!(load.len() == self.players.len(), "everybody takes part again: {load:?}");
        let mut stands = Vec::new();
        for player in &self.players {
            let (held, weight) = (player.held.len() as f64, f64::from(player.terms.weight));
            let capacity = player.terms.capacity.map_or(f64::INFINITY, f64::from);
            stands.push((held, weight, capacity));
        }
        for (held, _, capacity) in &stands {
            must!(waiting == 0 || held >= capacity, "{waiting} wait and there is room: {stands:?}");
        }
        for giver in &stands {
            for taker in stands.iter().filter(|taker| taker.0 < taker.2) {
                must!(giver.0 <= giver.2, "one has more than it can, and another has room: {stands:?}");
                let difference = giver.0 / giver.1 - taker.0 / taker.1;
                must!(difference < 1.0 / giver.1 + 1.0 / taker.1 + 1e-5, "uneven: {stands:?}");
            }
        }
        for _ in 0..10 {
            must!(self.rebalance(1_000, 200).await == 0, "it does not stand still: {stands:?}");
        }
        must!(records == self.records()?, "it does not stand still");
        self.check(&Step::Place { limit: 0 })
    }
}

fn named(name: &Option<(String, Duration)>) -> Option<&str> {
    name.as_ref().map(|(name, _)| name.as_str())
}

async fn case(
    bench: &mut Bench,
    ears: &mut Connection,
    seen: &mut Seen,
    (crashes, watched): (u32, bool),
    steps: &[Step],
) -> Outcome {
    bench.command(&["FLUSHALL"]);
    bench.incarnation = bench.store.open("run-1").await.unwrap().incarnation;
    if watched {
        bench.store.watch(JOINED, 100).await.unwrap(); // each change then has a revision of its own
    }
    let (players, dead, jobs, before) = (Vec::new(), Vec::new(), BTreeMap::new(), BTreeMap::new());
    let mut game = Game { bench, ears, players, dead, jobs, before, idle: false, seen: Seen::new(), crashes };
    game.hear()?; // of the case before, if that failed
    for (at, step) in steps.iter().enumerate() {
        let at_step = |error: TestCaseError| match error {
            TestCaseError::Fail(why) => TestCaseError::fail(format!("step {at}, {step:?}: {why}")),
            other @ TestCaseError::Reject(_) => other,
        };
        game.play(step).await.map_err(at_step)?;
        game.check(step).map_err(at_step)?;
    }
    game.heal().await?;
    for (what, count) in game.seen {
        *seen.entry(what).or_default() += count;
    }
    Ok(())
}

#[test]
fn whatever_happens_the_keyspace_is_of_one_piece_and_all_heals() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let bench = std::cell::RefCell::new(runtime.block_on(Bench::new()));
    let ears = std::cell::RefCell::new(bench.borrow().server.connect());
    let channels: Vec<_> =
        (1..=NUMBERS).map(|worker| bench.borrow().keys.inbox_of(WorkerId(worker))).collect();
    for channel in &channels {
        ears.borrow_mut().command(&["SSUBSCRIBE", channel]);
    }
    let cases = std::env::var("ASSEMBLAGE_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    let mut runner =
        TestRunner::new(Config { cases, max_shrink_iters: 3_000, ..Config::with_source_file(file!()) });
    let strategy = ((0u32..3, any::<bool>()), proptest::collection::vec(step(), 1..70));
    let seen = std::cell::RefCell::new(Seen::new());
    let result = runner.run(&strategy, |(settings, steps)| {
        runtime.block_on(case(
            &mut bench.borrow_mut(),
            &mut ears.borrow_mut(),
            &mut seen.borrow_mut(),
            settings,
            &steps,
        ))
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
    println!("{seen:?}");
    // Few cases may miss what is rare.
    let expected = if cases < 300 {
        &["marked", "reaped", "updated"][..]
    } else {
        &["marked", "reaped", "updated", "quarantined", "kept", "reaps by batches"][..]
    };
    for what in expected {
        assert!(seen.borrow().contains_key(what), "these cases never come to {what}: {seen:?}");
    }
}
