//! A model server drives a feed through a channel that loses, repeats, reorders and forges, and a consumer that is
//! checked.
//!
//! ```text
//!  server.rs --- batches, pages, answers: late, lost, repeated ---> Feed --- changes ---> consumer.rs
//!      ^                                                             |
//!      +------------------- asks, heartbeats ------------------------+
//! ```
//!
//! First whatever may go wrong goes wrong; then all faults end, and everything must heal: the consumer knows what the
//! server knows, and is told by push what comes then. To run more: `PROPTEST_CASES=100000 cargo test --lib model_test`.

mod consumer;
mod server;

use std::collections::BTreeSet;

use proptest::prelude::*;

use self::consumer::Consumer;
use self::server::{JOBS, Server};
use super::{Ask, Feed, Phase, Picture, Telling};
use crate::change::{ChangeKind, Filter};
use crate::id::Revision;
use crate::message::{Batch, History};

/// The most that one script changes here, and that one page tells.
const MOST: usize = 6;
const LIMIT: usize = 3;

/// What happens next. An index picks one of what is there (modulo how many there are).
#[derive(Clone, Debug)]
enum Op {
    /// A script changes so many things.
    Change(usize, usize),
    /// The batch that was sent first is delivered.
    Deliver,
    /// Any batch is delivered, and perhaps again later.
    DeliverAny(usize, bool),
    Lose(usize),
    /// Somebody publishes what no script did.
    Forge(usize),
    Gap,
    /// The server answers an ask. The answer is under way.
    Answer(usize),
    TakeAnswer(usize),
    /// No answer comes, whether it is told or not.
    Fail(usize),
    Retry,
    Beat,
    TakeBeat(usize),
    Trim(usize),
    LoseEntry(usize),
    /// Nobody's heartbeat came for too long, or somebody deleted `{p}:watch`.
    Lapse,
    Copy,
    /// A replica takes over that knows all but what came after the last `Copy`. It is seen at once, or later.
    Failover(bool),
    /// The other server is seen.
    Break,
    Poll(usize),
}

/// Each kind of op is as likely as its weight.
fn ops(kinds: std::ops::Range<u8>) -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec((kinds, any::<u8>()).prop_map(|(kind, n)| op(kind, n)), 1..160)
}

/// From here on they are such as to make a `Reset` needed.
const GRAVE: u8 = 90;

fn op(kind: u8, n: u8) -> Op {
    let which = usize::from(n / 2);
    match kind {
        0..18 => Op::Change(1 + which % MOST, which),
        18..32 => Op::Deliver,
        32..44 => Op::Answer(which),
        44..56 => Op::TakeAnswer(which),
        56..70 => Op::Poll(which % 8),
        70..74 => Op::Lose(which),
        74..78 => Op::DeliverAny(which, n % 2 == 1),
        78..80 => Op::Gap,
        80..82 => Op::Fail(which),
        82..85 => Op::Retry,
        85..87 => Op::Beat,
        87..90 => Op::TakeBeat(which),
        90 => Op::Forge(which),
        91 => Op::Trim(which % 4),
        92 => Op::LoseEntry(which),
        93 => Op::Lapse,
        94..96 => Op::Copy,
        96 => Op::Failover(n < 128),
        _ => Op::Break,
    }
}

fn pick<T>(from: &mut Vec<T>, which: usize) -> Option<T> {
    (!from.is_empty()).then(|| from.remove(which % from.len()))
}

#[derive(Debug)]
enum Answer {
    History(u64, History),
    Page(u64, Option<Revision>, Picture),
}

struct World {
    server: Server,
    /// What a replica has.
    copy: Server,
    /// A replica has taken over at this revision, and nobody has seen it yet.
    unseen: Option<Revision>,
    feed: Feed,
    consumer: Consumer,
    capacity: usize,
    channel: Vec<Batch>,
    asks: Vec<Ask>,
    asked: usize,
    answers: Vec<Answer>,
    beats: Vec<(Option<Revision>, Revision)>,
}

/// How a world begins.
#[derive(Clone, Debug)]
struct Start {
    /// Of the consumer's buffer.
    capacity: usize,
    /// Of the journal; 0: off.
    length: usize,
    page_rows: usize,
    filter: usize,
    /// Begins at this one of the changes before, or with a snapshot (0), or beyond all that there is (1).
    since: usize,
}

fn start(length: impl Strategy<Value = usize>) -> impl Strategy<Value = Start> {
    (1..20_usize, length, 1..=JOBS / 2, 0..4_usize, 0..16_usize).prop_map(
        |(capacity, length, page_rows, filter, since)| Start { capacity, length, page_rows, filter, since },
    )
}

fn filter(which: usize) -> Filter {
    let kinds = BTreeSet::from([ChangeKind::JobAdded, ChangeKind::WorkerLeft]);
    match which {
        1 => Filter { kinds: None, prefix: "us/".into() },
        2 => Filter { kinds: Some(kinds), prefix: String::new() },
        _ => Filter::default(),
    }
}

impl World {
    fn new(start: &Start) -> Self {
        let mut server = Server::new(start.length, start.page_rows);
        for number in 0..10 {
            server.change(1 + number % 3, 3 * number);
        }
        let since = match start.since {
            0 => None,
            1 => Some(Revision(server.revision + 1_000)),
            2 => Some(Revision(server.revision)),
            index => server.log[index].revision(),
        };
        let filter = filter(start.filter);
        let mut world = Self {
            copy: server.clone(),
            unseen: None,
            feed: Feed::new(start.capacity, filter.clone(), since),
            consumer: Consumer::new(filter, since, &server),
            server,
            capacity: start.capacity,
            channel: Vec::new(),
            asks: Vec::new(),
            asked: 0,
            answers: Vec::new(),
            beats: Vec::new(),
        };
        world.carry_out();
        world
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Change(count, which) => self.channel.extend(self.server.change(count, which)),
            Op::Deliver => self.deliver(0),
            Op::DeliverAny(which, again) => {
                let copy = (again && !self.channel.is_empty())
                    .then(|| self.channel[which % self.channel.len()].clone());
                self.deliver(which);
                self.channel.extend(copy);
            }
            Op::Lose(which) => drop(pick(&mut self.channel, which)),
            Op::Forge(which) => {
                // Of one that goes on where the server is, what it tells is believed, until the next heartbeat.
                let far = self.server.revision + 1_000_000;
                let is_live = matches!((&self.feed.phase, &self.feed.telling), (Phase::Live, Telling::Whole));
                let previous = if is_live && which % 2 == 0 { self.feed.last } else { Revision(far) };
                self.feed.handle_batch(Batch { last: Revision(far + 1), previous, changes: Vec::new() });
            }
            Op::Gap => self.feed.handle_gap(),
            Op::Answer(which) => {
                if let Some(ask) = pick(&mut self.asks, which) {
                    self.answer(ask);
                }
            }
            Op::TakeAnswer(which) => match pick(&mut self.answers, which) {
                Some(Answer::History(request, history)) => self.feed.handle_history(request, history),
                Some(Answer::Page(request, read_at, picture)) => {
                    self.feed.handle_page(request, read_at, picture);
                }
                None => {}
            },
            Op::Fail(which) => {
                let request = pick(&mut self.asks, which).map(|ask| match ask {
                    Ask::History { request, .. } | Ask::Page { request, .. } => request,
                });
                if let Some(request) = request {
                    self.feed.handle_failed(request);
                }
            }
            Op::Retry => self.feed.retry(),
            Op::Beat => self.beats.push((self.feed.known(), self.server.watch())),
            Op::TakeBeat(which) => {
                if let Some((known, last)) = pick(&mut self.beats, which) {
                    self.feed.handle_audit(known, last);
                }
            }
            Op::Trim(length) => self.server.trim(length),
            Op::LoseEntry(which) => self.server.lose_entry(which),
            Op::Lapse => self.server.lapse(),
            Op::Copy => self.copy = self.server.clone(),
            Op::Failover(seen) => {
                self.server.fail_over_to(&self.copy);
                self.unseen = Some(Revision(self.server.revision));
                self.consumer.doubt();
                if seen {
                    self.run(Op::Break);
                }
            }
            Op::Break => {
                let Some(since) = self.unseen.take() else { return };
                // What the lost server has said is gone with the connections to it.
                self.channel.retain(|batch| batch.last > since);
                self.answers.clear();
                self.beats.clear();
                self.feed.handle_break();
                self.consumer.handle_break();
            }
            Op::Poll(count) => {
                for _ in 0..count {
                    let Some(change) = self.feed.poll_change() else { break };
                    self.consumer.take(&change, &self.server);
                    self.carry_out();
                }
            }
        }
        self.carry_out();
    }

    fn deliver(&mut self, which: usize) {
        if let Some(batch) = pick(&mut self.channel, which) {
            self.feed.handle_batch(batch);
        }
    }

    fn answer(&mut self, ask: Ask) {
        self.answers.push(match ask {
            Ask::History { request, after } => Answer::History(request, self.server.history(after, LIMIT)),
            Ask::Page { request, cursor } => {
                let (read_at, picture) = self.server.page(cursor.as_deref());
                Answer::Page(request, read_at, picture)
            }
        });
    }

    /// What the driver does after each input, and what must hold then.
    fn carry_out(&mut self) {
        while let Some(ask) = self.feed.poll_command() {
            self.asks.push(ask);
            self.asked += 1;
        }
        let feed = &self.feed;
        // A batch or a page on top of what there was room for, and `Synced`.
        assert!(
            feed.queue.len() <= self.capacity + MOST,
            "{} changes for {}",
            feed.queue.len(),
            self.capacity
        );
        let waiting: usize = feed.waiting.iter().map(super::Heard::weight).sum();
        assert_eq!(waiting, feed.waiting_weight);
        assert!(waiting <= self.capacity.max(MOST), "{waiting} wait for {}", self.capacity);
        assert!(feed.waiting.is_empty() || !matches!(feed.phase, Phase::Live), "nothing waits for nothing");
    }

    /// No fault any more: what is under way comes, and what is asked for is answered.
    fn settle(&mut self) {
        self.run(Op::Break);
        // The first heartbeat may begin the journal anew, and the second find out a forged batch.
        for _ in 0..3 {
            self.server.watch();
            self.run(Op::Beat);
            let before = self.asked;
            loop {
                while !self.channel.is_empty() {
                    self.run(Op::Deliver);
                }
                self.run(Op::Retry);
                while let Some(ask) = pick(&mut self.asks, 0) {
                    self.answer(ask);
                }
                if self.answers.is_empty() && !self.feed.has_change() {
                    break;
                }
                while !self.answers.is_empty() {
                    self.run(Op::TakeAnswer(0));
                }
                self.run(Op::Poll(usize::MAX));
                assert!(self.asked - before < 100, "it asks and asks: {:?}", self.feed);
            }
            while !self.beats.is_empty() {
                self.run(Op::TakeBeat(0));
            }
        }
    }

    fn assert_live(&mut self) {
        self.consumer.assert_up_to_date(&self.server);
        let asked = self.asked;
        for number in 0..5 {
            self.run(Op::Change(1 + number, 3 * number));
            self.run(Op::Deliver);
            self.run(Op::Poll(usize::MAX));
        }
        self.consumer.assert_up_to_date(&self.server);
        assert_eq!(self.asked, asked, "what is pushed needs no asking");
    }
}

proptest! {
    // Promise: in order, each once, none left out; right after every Synced; bounded; and live in the end.
    #[test]
    fn whatever_goes_wrong_the_consumer_is_told_the_truth_in_order(
        start in start(prop_oneof![Just(0), 1..8_usize, Just(1_000)]), ops in ops(0..100),
    ) {
        let mut world = World::new(&start);
        for op in ops {
            world.run(op);
        }
        world.settle();
        world.assert_live();
    }

    // Promise: where the journal has everything, whatever the channel does costs no Reset.
    #[test]
    fn while_the_journal_reaches_back_nothing_is_told_anew(start in start(Just(100_000)), ops in ops(0..GRAVE)) {
        let mut world = World::new(&start);
        for op in ops {
            world.run(op);
        }
        world.settle();
        world.assert_live();
        prop_assert_eq!(world.consumer.resets, usize::from(start.since < 2));
    }

    // Without a journal a consumer that keeps up is told anew only what the channel lost.
    #[test]
    fn without_a_journal_but_with_all_of_the_channel_nothing_is_told_anew(
        capacity in 1..20_usize, changes in prop::collection::vec((1..=MOST, any::<u8>(), any::<bool>()), 1..60),
    ) {
        let start = Start { capacity, length: 0, page_rows: 2, filter: 0, since: 0 };
        let mut world = World::new(&start);
        world.settle();
        for (count, which, polls) in changes {
            world.run(Op::Change(count, usize::from(which)));
            world.run(Op::Deliver);
            if polls || world.feed.queue.len() + MOST > capacity {
                world.run(Op::Poll(usize::MAX));
            }
        }
        world.settle();
        world.assert_live();
        prop_assert_eq!(world.consumer.resets, 1);
    }
}
