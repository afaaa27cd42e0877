//! One cluster on a server of its own, and what became different in it since the last look.
//!
//! ```text
//! owner a: a 1 r2 r2                     this field of this key is new, or has another value
//! pending a: -                           it is gone
//! inbox:1 <- r2 after r1: add a r2 "x"   this was published
//! ```
//!
//! Every field of every key is compared, so a line that a test does not name is a write that it did not expect. What
//! differs from run to run is replaced: revisions by `r1`, `r2`, .. in the order in which they came to be; a time that
//! is left by the next full ten seconds; any other time by `T`; the incarnation by `ME`. A load of 2^32 and more is
//! `full` and the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use fred::clients::Client;
use fred::error::Error as FredError;
use fred::interfaces::ClientLike;
use fred::types::config::Config;
use fred::types::{Builder, Value};

use crate::error::Result;
use crate::id::{JobId, Revision, WorkerId};
use crate::message::{Body, Frame, Order, SPAN, Terms};
use crate::redis::connect::Commands;
use crate::redis::script::{self, Script};
use crate::redis::store::{
    AddCode, Beat, DeleteCode, Due, Ended, Entry, Joined, Lock, Member, Reap, Refusal, Store, Suspicion,
    UpdateCode,
};
use crate::test_server::{Connection, RedisServer, Reply};
use crate::wire::frame;
use crate::wire::keys::Keys;

/// One time to live for each kind of command, so that what is left tells which one set it.
pub(super) const RESERVED: Duration = Duration::from_secs(25);
pub(super) const JOINED: Duration = Duration::from_secs(45);
pub(super) const BEATEN: Duration = Duration::from_secs(65);

/// What a worker without room has on top of its load.
const FULL: f64 = 4_294_967_296.0;

const PATIENCE: Duration = Duration::from_secs(20);
const TIMEOUT: Duration = Duration::from_secs(10);

/// The inboxes that are listened to.
const INBOXES: std::ops::RangeInclusive<u64> = 1..=4;

pub(super) struct Bench {
    pub(super) server: RedisServer,
    pub(super) store: Store,
    pub(super) keys: Arc<Keys>,
    pub(super) incarnation: Arc<str>,
    client: Client,
    raw: Connection,
    ears: Connection,
    /// Key and field -> the value that is compared, and as it is shown.
    seen: BTreeMap<String, (Vec<u8>, String)>,
    revisions: BTreeMap<u64, String>,
    /// Inbox -> its last frame.
    chains: BTreeMap<String, Revision>,
}

/// Of a worker that has no wishes.
pub(super) const TERMS: Terms = Terms { weight: 1, capacity: None, takeover_rate: None };

/// Limits that no test comes near to but those that are about them.
const MOST_JOBS: u64 = 1_000_000;
const MOST_WORKERS: u64 = 1_000;

/// Nobody is suspected of anything.
pub(super) const TRUST: Suspicion = Suspicion { crashes: 0, window: Duration::from_secs(60) };

/// As a worker joins that has no wishes.
pub(super) fn entry(ttl: Duration) -> Entry {
    Entry { ttl, terms: TERMS, name: None, usurp: false }
}

/// As such a worker's heartbeat.
pub(super) fn lock(ttl: Duration, draining: bool) -> Lock {
    Lock { ttl, terms: TERMS, draining, lenient: false }
}

/// The number is over.
pub(super) const DEAD: Refusal = Refusal::Ended(Ended::Dead);
/// The cluster is another one.
pub(super) const RESET: Refusal = Refusal::Ended(Ended::Reset);

/// So many jobs were moved on, so many are left, and none was set aside.
pub(super) fn reaped(moved: u64, left: u64) -> Reap {
    Reap::Reaped { moved, left, quarantined: Vec::new() }
}

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

impl Bench {
    pub(super) async fn new() -> Self {
        Self::on(RedisServer::start()).await
    }

    pub(super) async fn on(server: RedisServer) -> Self {
        let keys = Arc::new(Keys::new("assemblage", "bench"));
        let client = connect(&server).await;
        let store = Store::new(Commands::Client(client.clone()), keys.clone(), TIMEOUT);
        let incarnation = store.open("run-1").await.expect("it opens").incarnation;
        let (raw, mut ears) = (server.connect(), server.connect());
        let inboxes = INBOXES.map(|worker| keys.inbox_of(WorkerId(worker)));
        for channel in inboxes.chain([keys.control.clone(), keys.released.clone()]) {
            ears.command(&["SSUBSCRIBE", &channel]);
        }
        let (seen, revisions) = (BTreeMap::new(), BTreeMap::new());
        let chains = BTreeMap::new();
        let mut bench = Self { server, store, keys, incarnation, client, raw, ears, seen, revisions, chains };
        bench.look();
        bench
    }

    /// Another store, with what a new process knows. The plain connections stay as they are.
    pub(super) fn store(&self, timeout: Duration) -> Store {
        Store::new(Commands::Client(self.client.clone()), self.keys.clone(), timeout)
    }

    /// After a restart of the server.
    pub(super) async fn reconnect(&mut self) {
        self.client = connect(&self.server).await;
        self.store = self.store(TIMEOUT);
    }

    /// With workers 1, 2, .. that have joined.
    pub(super) async fn with_workers(count: usize) -> (Self, Vec<Member>) {
        let mut bench = Self::new().await;
        let mut members = Vec::new();
        for _ in 0..count {
            members.push(bench.joined().await);
        }
        bench.look();
        (bench, members)
    }

    pub(super) async fn reserved(&self) -> Member {
        let member = self.reserve(&self.incarnation, RESERVED, b"\x80 info".to_vec()).await;
        member.expect("an answer").expect("there is room")
    }

    pub(super) async fn joined(&self) -> Member {
        let member = self.reserved().await;
        self.join(&member, JOINED).await.expect("an answer").expect("it may join");
        member
    }

    // The store's calls as most tests make them: an argument that comes to them later is given here.

    pub(super) async fn reserve(
        &self,
        incarnation: &Arc<str>,
        ttl: Duration,
        info: Vec<u8>,
    ) -> Result<std::result::Result<Member, Refusal>> {
        self.store.reserve(incarnation, ttl, info, MOST_WORKERS).await
    }

    pub(super) async fn join(
        &self,
        member: &Member,
        ttl: Duration,
    ) -> Result<std::result::Result<Joined, Refusal>> {
        self.store.join(member, &entry(ttl)).await
    }

    pub(super) async fn beat(
        &self,
        member: &Member,
        ttl: Duration,
        draining: bool,
    ) -> Result<std::result::Result<Beat, Ended>> {
        self.store.beat(member, &lock(ttl, draining)).await
    }

    pub(super) async fn reap(&self, worker: WorkerId) -> Result<(Reap, Option<Due>)> {
        self.reap_by(&self.store, worker).await
    }

    pub(super) async fn reap_by(&self, store: &Store, worker: WorkerId) -> Result<(Reap, Option<Due>)> {
        store.reap(worker, TIMEOUT, TRUST).await
    }

    pub(super) async fn add_all(&self, jobs: &[(JobId, Bytes)]) -> Result<Vec<(AddCode, Revision)>> {
        self.store.add(jobs, MOST_JOBS).await
    }

    pub(super) async fn add(&self, job: &str, payload: &'static str) -> (AddCode, Revision) {
        self.add_all(&[(id(job), Bytes::from(payload))]).await.expect("an answer")[0]
    }

    /// A worker on such terms.
    pub(super) async fn joined_on(&self, terms: Terms) -> Member {
        let member = self.reserved().await;
        let entry = Entry { terms, ..entry(JOINED) };
        self.store.join(&member, &entry).await.expect("an answer").expect("it may join");
        member
    }

    /// A worker of that name, whose jobs are kept for `grace`; it takes the name if it may.
    pub(super) async fn joined_as(&self, name: &str, grace: Duration, usurp: bool) -> Member {
        let member = self.reserved().await;
        let entry = Entry { name: Some((name.into(), grace)), usurp, ..entry(JOINED) };
        self.store.join(&member, &entry).await.expect("an answer").expect("it may join");
        member
    }

    pub(super) async fn beat_on(&self, member: &Member, terms: Terms) -> Beat {
        let lock = Lock { terms, ..lock(JOINED, false) };
        self.store.beat(member, &lock).await.expect("an answer").expect("it is a member")
    }

    pub(super) async fn order(&self, worker: WorkerId, order: Order) -> bool {
        self.store.order(worker, order).await.expect("an answer")
    }

    pub(super) async fn update(&self, job: &str, payload: &'static str) -> UpdateCode {
        self.store.update(&[(id(job), Bytes::from(payload))]).await.expect("an answer")[0]
    }

    /// A whole step of rebalancing without hysteresis, at once.
    pub(super) async fn rebalance(&self) -> usize {
        self.store.rebalance(1.0, 0.0, Duration::ZERO).await.expect("an answer")
    }

    /// Releases what its worker was given last.
    pub(super) async fn release_now(&mut self, job: &str) {
        let record = self.command(&["HGET", "@owner", job]).text();
        let fields: Vec<u64> = record.split(' ').filter_map(|field| field.parse().ok()).collect();
        assert!(self.release(WorkerId(fields[0]), job, Revision(fields[1])).await, "{job}: {record}");
    }

    /// Who holds the job: the first two fields of its record.
    pub(super) fn holder(&mut self, job: &str) -> String {
        let record = self.command(&["HGET", "@owner", job]).text();
        record.split(' ').take(2).collect::<Vec<_>>().join(" ")
    }

    pub(super) async fn delete(&self, job: &str, born: Option<Revision>) -> DeleteCode {
        self.store.delete(&[(id(job), born)]).await.expect("an answer")[0]
    }

    pub(super) async fn release(&self, worker: WorkerId, job: &str, grant: Revision) -> bool {
        self.store.release(worker, &[(id(job), grant)]).await.expect("an answer")[0]
    }

    /// Runs a script by itself, with the keys that its header names.
    pub(super) async fn run(
        &self,
        script: &'static Script,
        lock: WorkerId,
        args: &[&[u8]],
    ) -> std::result::Result<Value, FredError> {
        let named = super::headers::keys(script).into_iter();
        let keys: Vec<_> =
            named.map(|key| if key == "lock" { self.keys.lock(lock) } else { self.key(&key) }).collect();
        let keys: Vec<_> = keys.iter().map(String::as_str).collect();
        let args: Vec<_> = args.iter().map(|arg| Bytes::copy_from_slice(arg)).collect();
        let slot = fred::util::redis_keyslot(self.keys.meta.as_bytes());
        script.run(&self.client, slot, TIMEOUT, &keys, || args.clone()).await
    }

    /// A batch of a reap, of so many jobs, as whoever would stop after it.
    pub(super) async fn reap_batch(&self, worker: WorkerId, limit: usize, crashes: u32) -> Value {
        let (number, limit, crashes) = (worker.to_string(), limit.to_string(), crashes.to_string());
        let channels = self.channels();
        let [inbox, released, control] = channels.each_ref().map(|name| name.as_bytes());
        let args = [
            inbox,
            released,
            control,
            number.as_bytes(),
            limit.as_bytes(),
            b"9000000000000000",
            crashes.as_bytes(),
            b"60000",
        ];
        self.run(&script::REAP, worker, &args).await.expect("an answer")
    }

    /// A batch of a leave, of so many jobs.
    pub(super) async fn leave_batch(&self, member: &Member, limit: usize) -> Value {
        let (number, limit) = (member.worker.to_string(), limit.to_string());
        let channels = self.channels();
        let [inbox, released, control] = channels.each_ref().map(|name| name.as_bytes());
        let (incarnation, token) = (member.incarnation.as_bytes(), member.token.as_bytes());
        let args = [inbox, released, control, number.as_bytes(), limit.as_bytes(), incarnation, token];
        self.run(&script::LEAVE, member.worker, &args).await.expect("an answer")
    }

    fn channels(&self) -> [String; 3] {
        [self.keys.inbox_channel.clone(), self.keys.released.clone(), self.keys.control.clone()]
    }

    /// The full name of a key.
    pub(super) fn key(&self, name: &str) -> String {
        self.keys.meta.replace("meta", name)
    }

    /// A command of the server; the word after `@` is the name of a key of the cluster.
    pub(super) fn command(&mut self, words: &[&str]) -> Reply {
        let full =
            |word: &&str| word.strip_prefix('@').map_or_else(|| (*word).to_owned(), |name| self.key(name));
        let words: Vec<String> = words.iter().map(full).collect();
        let reply = self.raw.command(&words.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(!matches!(reply, Reply::Error(_)), "{words:?}: {reply:?}");
        reply
    }

    /// Ends a lock as time would: its deadline is past and its key is gone.
    pub(super) fn end_lock(&mut self, worker: WorkerId) {
        self.command(&["DEL", &format!("@lock:{worker}")]);
        self.command(&["ZADD", "@deadlines", "1000", &worker.to_string()]);
        self.look();
    }

    /// A worker is dead since a moment ago: its lock has ended, and its last heartbeat came after all that it was given.
    pub(super) async fn crashed(&mut self, worker: WorkerId) {
        self.command(&["HSET", "@terms", &format!("{worker}:ttl"), "2"]);
        self.look(); // a millisecond
        let ended = now_ms() + 2;
        self.command(&["ZADD", "@deadlines", &ended.to_string(), &worker.to_string()]);
        until("it is over", || now_ms() > ended).await;
    }

    pub(super) async fn reap_suspecting(&self, worker: WorkerId, crashes: u32) -> Reap {
        self.store.reap(worker, TIMEOUT, Suspicion { crashes, ..TRUST }).await.expect("an answer").0
    }

    /// The name of a revision in what [`look`](Self::look) shows.
    pub(super) fn name(&self, revision: Revision) -> String {
        self.revisions.get(&revision.get()).cloned().unwrap_or_else(|| revision.to_string())
    }

    /// What is different since the last look: fields of keys, then messages in the order in which they were sent.
    pub(super) fn look(&mut self) -> Vec<String> {
        let heard = self.hear();
        let dump = self.dump();
        // None of what is known of a worker is a revision, although its random token may look like one.
        let texts = dump.iter().filter(|(key, _)| key != "workers").flat_map(|(_, fields)| fields);
        let texts = texts.map(|(_, value)| &**value);
        let texts = texts.chain(heard.iter().map(|text| text.as_bytes()));
        let new: BTreeSet<u64> = texts.flat_map(numbers).filter(|number| is_revision(*number)).collect();
        for revision in new {
            let name = format!("r{}", self.revisions.len() + 1);
            self.revisions.entry(revision).or_insert(name);
        }

        let mut now = BTreeMap::new();
        for (key, fields) in &dump {
            for (field, value) in fields {
                let place = self.plain(&format!("{key} {}", field.escape_ascii()));
                let shown = self.shown(key, value);
                // What is left of a time is another in each millisecond.
                let left = key == "deadlines" || key.starts_with("lock:");
                let compared = if left { shown.clone().into_bytes() } else { value.clone() };
                now.insert(place.trim_end().to_owned(), (compared, shown));
            }
        }
        let places: BTreeSet<&String> = self.seen.keys().chain(now.keys()).collect();
        let value = |map: &BTreeMap<String, (Vec<u8>, String)>, place: &str| {
            map.get(place).map(|(compared, _)| compared.clone())
        };
        let different = places.into_iter().filter(|place| value(&self.seen, place) != value(&now, place));
        let mut lines: Vec<_> = different
            .map(|place| format!("{place}: {}", now.get(place).map_or("-", |(_, shown)| shown)))
            .collect();
        lines.extend(heard.iter().map(|text| self.plain(text)));
        self.seen = now;
        // A time that is written from now on is another one than those that were seen.
        let start = now_ms();
        while now_ms() == start {
            std::hint::spin_loop();
        }
        lines
    }

    /// Every key of the server.
    fn dump(&mut self) -> Vec<(String, Fields)> {
        let names = self.command(&["KEYS", "*"]);
        let mut dump = Vec::new();
        for name in names.list().iter().map(Reply::text) {
            let read = match &*self.command(&["TYPE", &name]).text() {
                "hash" => self.command(&["HGETALL", &name]),
                "zset" => self.command(&["ZRANGE", &name, "0", "-1", "WITHSCORES"]),
                "string" => Reply::Array(vec![Reply::Bulk(Vec::new()), self.command(&["GET", &name])]),
                // What is in it is compared where it is about that: watching.rs.
                "stream" => {
                    let entries = self.command(&["XRANGE", &name, "-", "+"]);
                    let ids = entries.list().iter().map(|entry| entry.list()[0].clone());
                    Reply::Array(ids.flat_map(|id| [id, Reply::Bulk(b"a batch".to_vec())]).collect())
                }
                other => panic!("nobody writes a {other} ({name})"),
            };
            let mut fields: Fields =
                read.list().chunks(2).map(|pair| (bytes(&pair[0]), bytes(&pair[1]))).collect();
            // At once: a random text may look like a revision.
            for (_, value) in &mut fields {
                if *value == *self.incarnation.as_bytes() {
                    *value = b"ME".to_vec();
                }
            }
            dump.push((name.strip_prefix(&self.key("")).unwrap_or(&name).to_owned(), fields));
        }
        for (key, fields) in &mut dump {
            if let Some(left) =
                key.strip_prefix("lock:").map(|_| self.command(&["PTTL", &format!("@{key}")]).int())
            {
                fields[0].1.extend_from_slice(format!(" {}", rounded(left)).as_bytes());
            }
        }
        dump
    }

    /// A value of a key as it is shown.
    fn shown(&self, key: &str, value: &[u8]) -> String {
        let text = value.escape_ascii().to_string();
        let number = || text.parse::<f64>().expect("a score") as u64;
        match key {
            "deadlines" => rounded(number() as i64 - now_ms()),
            "load" if number() >= FULL as u64 => {
                format!("full {}", text.parse::<f64>().expect("a score") - FULL)
            }
            "assigned" => format!("{}/{}", number() / SPAN, self.of_residue(number() % SPAN)),
            "workers" => {
                let (since, rest) = text.split_once(' ').expect("since, token and info");
                let (token, info) = rest.split_once(' ').expect("since, token and info");
                assert_eq!(token.len(), 32, "{text}");
                let since: i64 = since.parse().expect("a time");
                assert!((now_ms() - since).abs() < 20_000, "{text}");
                info.to_owned()
            }
            "terms" | "crashes" | "quarantine" | "watch" => {
                let times = numbers(value).into_iter().filter(|number| is_time(*number));
                let text = times.fold(text.clone(), |text, time| text.replace(&time.to_string(), "T"));
                self.plain(&text)
            }
            _ => self.plain(&text),
        }
    }

    /// The revision that has this residue.
    fn of_residue(&self, residue: u64) -> String {
        let found = self.revisions.iter().find(|(revision, _)| *revision % SPAN == residue);
        found.map_or_else(|| format!("{residue}"), |(_, name)| name.clone())
    }

    fn plain(&self, text: &str) -> String {
        let mut plain = text.to_owned();
        for number in numbers(text.as_bytes()) {
            if let Some(name) = self.revisions.get(&number) {
                plain = plain.replace(&number.to_string(), name);
            }
        }
        plain
    }

    /// What was published: all of it comes before the answer to a ping.
    fn hear(&mut self) -> Vec<String> {
        self.ears.send(&[b"PING"]);
        let mut heard = Vec::new();
        loop {
            let message = self.ears.read();
            let [kind, channel, payload] = message.list() else { return heard };
            assert_eq!(kind.text(), "smessage");
            let channel =
                channel.text().strip_prefix(&self.key("")).expect("a channel of the cluster").to_owned();
            let payload = bytes(payload);
            let text = match &*channel {
                "control" => format!("{:?}", frame::control(&payload).expect("a control message")),
                "released" => {
                    let released = frame::released(&payload).expect("a released message");
                    format!("{} {}", released.job, released.grant)
                }
                _ => {
                    let frame = frame::frame(&payload).expect("a frame");
                    self.check_chain(&channel, &frame);
                    let body = match frame.body {
                        Body::Add { job, born, payload } => {
                            format!("add {job} {born} \"{}\"", payload.escape_ascii())
                        }
                        Body::Delete { job, grant, reason } => format!("delete {job} {grant} {reason:?}"),
                        Body::Update { job, grant, payload } => {
                            format!("update {job} {grant} \"{}\"", payload.escape_ascii())
                        }
                        Body::Fenced => "fenced".into(),
                        Body::Attend => "attend".into(),
                    };
                    format!("{} after {}: {body}", frame.revision, frame.previous)
                }
            };
            heard.push(format!("{channel} <- {text}"));
        }
    }

    /// Promise: a lost frame shows. Each names the one before it on its inbox, and no two have one revision.
    fn check_chain(&mut self, inbox: &str, frame: &Frame) {
        let Frame { revision, previous, .. } = frame;
        assert!(previous < revision, "{inbox}: {frame:?}");
        assert!(self.chains.values().all(|last| last != revision), "two of one revision: {frame:?}");
        // The inbox of the dead is gone, and a frame to it begins anew.
        if let Some(last) = self.chains.insert(inbox.to_owned(), *revision).filter(|_| previous.0 != 0) {
            assert_eq!(*previous, last, "{inbox}: {frame:?}");
        }
    }
}

async fn connect(server: &RedisServer) -> Client {
    let config = Config::from_url(&server.unix_url()).expect("a URL");
    let client = Builder::from_config(config).build().expect("a client");
    client.init().await.expect("it connects");
    client
}

/// Polls until it holds.
pub(super) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

pub(super) fn id(job: &str) -> JobId {
    JobId::new(job).expect("an id")
}

pub(super) fn kind<T>(result: Result<T>) -> Option<crate::ErrorKind> {
    result.err().map(|error| error.kind())
}

fn bytes(reply: &Reply) -> Vec<u8> {
    match reply {
        Reply::Bulk(bytes) => bytes.clone(),
        other => other.text().into_bytes(),
    }
}

/// The numbers in a text.
fn numbers(text: &[u8]) -> Vec<u64> {
    let digits = text.split(|byte| !byte.is_ascii_digit());
    digits.filter_map(|digits| std::str::from_utf8(digits).ok()?.parse().ok()).collect()
}

/// Revisions are microseconds since 1970, more or less: sixteen digits until 2286.
fn is_revision(number: u64) -> bool {
    (1_000_000_000_000_000..10_000_000_000_000_000).contains(&number)
}

/// Milliseconds since 1970: thirteen digits until 2286.
fn is_time(number: u64) -> bool {
    (1_000_000_000_000..10_000_000_000_000).contains(&number)
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(now.as_millis()).expect("not that late")
}

fn rounded(left_ms: i64) -> String {
    if left_ms <= 0 { "past".into() } else { format!("{}s", (left_ms + 9_999) / 10_000 * 10) }
}
