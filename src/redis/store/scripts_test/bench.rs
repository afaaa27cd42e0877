//! A cluster on a server of its own, and what changed in it since one last looked.
//!
//! ```text
//! owner: a=a 1 r2 r2            a key that changed, in full; "gone" if it is no more
//! > inbox:1 r2 after r1: add    what was published since
//! ```
//!
//! What differs from run to run is put in its place: a revision is `r<n>`, by when it was first seen; a deadline is the
//! time that is left, rounded up to ten seconds; the incarnation is `I`, the server's run id `RUN`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::id::{JobId, Revision, WorkerId};
use crate::message::{Body, Frame, SPAN};
use crate::redis::connect::Connection;
use crate::redis::script::Script;
use crate::redis::store::{AddCode, DeleteCode, Member, Store};
use crate::test_server::{self, RedisServer, Reply};
use crate::wire::frame;
use crate::wire::keys::Keys;

/// Each script's own time to live, so that a deadline tells who set it.
pub(super) const RESERVED: Duration = Duration::from_secs(60);
pub(super) const JOINED: Duration = Duration::from_secs(40);
pub(super) const BEATEN: Duration = Duration::from_secs(20);

/// How many inboxes are listened to.
const INBOXES: u64 = 5;

pub(super) struct Bench {
    pub(super) server: RedisServer,
    pub(super) store: Store,
    pub(super) incarnation: Arc<str>,
    keys: Arc<Keys>,
    /// Its client ends with it.
    _connection: Connection,
    ear: test_server::Connection,
    before: BTreeMap<String, String>,
    names: BTreeMap<u64, String>,
    /// The last frame of each inbox: the chain.
    last: BTreeMap<String, Revision>,
}

impl Bench {
    pub(super) async fn new() -> Self {
        let server = RedisServer::start();
        let keys = Arc::new(Keys::new("assemblage", "bench"));
        let timeout = Duration::from_secs(10);
        let connection = Connection::connect_url(&server.url(), None, timeout).await.expect("connects");
        let store = Store::new(connection.commands.clone(), keys.clone(), timeout);
        let incarnation = store.open("RUN").await.expect("opens").incarnation;
        let mut ear = server.connect();
        let inboxes = (0..=INBOXES).map(|worker| keys.inbox_of(WorkerId(worker)));
        for channel in inboxes.chain([keys.control.clone(), keys.released.clone()]) {
            ear.command(&["SSUBSCRIBE", &channel]);
        }
        let (before, names, last) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut bench =
            Self { server, store, incarnation, keys, _connection: connection, ear, before, names, last };
        bench.forget();
        bench
    }

    /// A bench with so many workers, numbered from 1.
    pub(super) async fn with_workers(count: usize) -> (Self, Vec<Member>) {
        let mut bench = Self::new().await;
        let mut members = Vec::new();
        for _ in 0..count {
            let member = bench.reserve().await;
            bench.store.join(&member, JOINED).await.expect("answers").expect("joins");
            members.push(member);
        }
        bench.forget();
        (bench, members)
    }

    pub(super) async fn reserve(&self) -> Member {
        let reserved = self.store.reserve(&self.incarnation, RESERVED, b"info".to_vec()).await;
        let worker = reserved.expect("answers").expect("the cluster is the same");
        Member { worker, incarnation: self.incarnation.clone() }
    }

    pub(super) async fn add(&self, job: &str, payload: &str) -> (AddCode, Revision) {
        let jobs = [(id(job), Bytes::copy_from_slice(payload.as_bytes()))];
        self.store.add(&jobs).await.expect("answers")[0]
    }

    pub(super) async fn delete(&self, job: &str, born: Option<Revision>) -> DeleteCode {
        self.store.delete(&[(id(job), born)]).await.expect("answers")[0]
    }

    pub(super) async fn release(&self, worker: &Member, job: &str, grant: Revision) -> bool {
        self.store.release(worker.worker, &[(id(job), grant)]).await.expect("answers")[0]
    }

    /// The deadline passes and the lock's key is gone, as when its time is up.
    pub(super) fn end_lock(&mut self, member: &Member) {
        let (deadlines, number) = (self.keys.deadlines.clone(), member.worker.to_string());
        self.command(&["ZADD", &deadlines, "1", &number]);
        let lock = self.keys.lock(member.worker);
        self.command(&["DEL", &lock]);
        self.forget();
    }

    pub(super) fn command(&self, words: &[&str]) -> Reply {
        self.server.command(words)
    }

    /// A key's full name.
    pub(super) fn key(&self, name: &str) -> String {
        self.keys.meta.replace("meta", name)
    }

    /// Runs a script by itself: the keys are those of its header, the lock that of `worker`.
    pub(super) fn run(&self, script: &Script, worker: u64, args: &[&[u8]]) -> Reply {
        let header = script.text.lines().filter_map(|line| line.strip_prefix("-- KEYS[")?.split_once("] "));
        let keys: Vec<String> = header
            .map(|(_, name)| name.split(' ').next().unwrap_or_default())
            .map(|name| if name == "lock" { self.keys.lock(WorkerId(worker)) } else { self.key(name) })
            .collect();
        let count = keys.len().to_string();
        let mut words: Vec<&[u8]> = vec![b"EVAL", script.text.as_bytes(), count.as_bytes()];
        words.extend(keys.iter().map(|key| key.as_bytes()));
        words.extend(args);
        let mut connection = self.server.connect();
        connection.send(&words);
        connection.read()
    }

    /// Looks, and says nothing.
    pub(super) fn forget(&mut self) {
        self.news();
    }

    /// What changed, and what was published, since one last looked.
    pub(super) fn news(&mut self) -> Vec<String> {
        let (dump, heard) = (self.dump(), self.hear());
        self.learn(dump.values().flatten().chain(heard.iter().map(|(_, text)| text)));
        let now: BTreeMap<String, String> =
            dump.into_iter().map(|(key, parts)| (key, self.plain(&parts.join(" ")))).collect();
        let keys: BTreeSet<&String> = self.before.keys().chain(now.keys()).collect();
        let mut news: Vec<String> = keys
            .into_iter()
            .filter(|key| self.before.get(*key) != now.get(*key))
            .map(|key| format!("{key}: {}", now.get(key).map_or("gone", |text| text)))
            .collect();
        news.extend(heard.iter().map(|(channel, text)| format!("> {channel} {}", self.plain(text))));
        self.before = now;
        news
    }

    /// Every key of the server, its parts in order, in words.
    fn dump(&self) -> BTreeMap<String, Vec<String>> {
        let mut connection = self.server.connect();
        let names = connection.command(&["KEYS", "*"]);
        let mut dump = BTreeMap::new();
        for name in names.list().iter().map(Reply::text) {
            let kind = connection.command(&["TYPE", &name]).text();
            let mut ask = |words: &[&str]| {
                let reply = connection.command(words);
                let pairs = reply.list().chunks(2);
                let mut pairs: Vec<_> = pairs.map(|pair| (text(&pair[0]), text(&pair[1]))).collect();
                pairs.sort();
                pairs
            };
            let short = name.strip_prefix(&self.key("")).unwrap_or(&name).to_owned();
            let parts = match &*kind {
                "hash" => {
                    let pairs = ask(&["HGETALL", &name]).into_iter();
                    pairs.map(|(field, value)| format!("{field}={}", value_of(&short, &value))).collect()
                }
                "zset" => {
                    let pairs = ask(&["ZRANGE", &name, "0", "-1", "WITHSCORES"]).into_iter();
                    pairs.map(|(member, score)| format!("{member}={}", score_of(&short, &score))).collect()
                }
                _ => {
                    let left = connection.command(&["PTTL", &name]).int();
                    let value = text(&connection.command(&["GET", &name]));
                    if left < 0 { vec![value] } else { vec![value, rounded(left)] }
                }
            };
            dump.insert(short, parts);
        }
        dump
    }

    /// All that was published: what was sent before a ping is heard before its answer.
    fn hear(&mut self) -> Vec<(String, String)> {
        self.ear.send(&[b"PING"]);
        let mut heard = Vec::new();
        loop {
            let message = self.ear.read();
            let [kind, channel, Reply::Bulk(bytes)] = message.list() else {
                assert_eq!(message.list().len(), 2, "{message:?}");
                return heard;
            };
            assert_eq!(kind.text(), "smessage");
            let channel =
                channel.text().strip_prefix(&self.key("")).expect("a channel of the cluster").to_owned();
            let said = match channel.split(':').next() {
                Some("inbox") => {
                    let frame = frame::frame(bytes).expect("a frame");
                    self.check_chain(&channel, &frame);
                    say(&frame)
                }
                Some("control") => format!("{:?}", frame::control(bytes).expect("a message")),
                _ => {
                    let released = frame::released(bytes).expect("a message");
                    format!("{} {}", released.job, released.grant)
                }
            };
            heard.push((channel, said));
        }
    }

    /// Promise: a lost frame shows. Each frame names the one before it on its inbox, and its revision is its own.
    fn check_chain(&mut self, channel: &str, frame: &Frame) {
        if let Some(last) = self.last.insert(channel.to_owned(), frame.revision) {
            assert_eq!(frame.previous, last, "{channel}: {frame:?}");
        }
        assert!(frame.previous < frame.revision);
        let twice = self.last.iter().filter(|(_, revision)| **revision == frame.revision).count();
        assert_eq!(twice, 1, "two frames have one revision: {frame:?}");
    }

    /// Names the revisions that are new, in their order.
    fn learn<'a>(&mut self, texts: impl Iterator<Item = &'a String>) {
        let found: BTreeSet<u64> =
            texts.flat_map(|text| numbers(text)).filter_map(|(_, n)| revision(n)).collect();
        for revision in found {
            let name = format!("r{}", self.names.len() + 1);
            self.names.entry(revision).or_insert(name);
        }
    }

    /// A revision's name.
    pub(super) fn name(&self, revision: Revision) -> &str {
        self.names.get(&revision.get()).map_or("unknown", |name| name)
    }

    fn plain(&self, text: &str) -> String {
        let mut plain = String::new();
        let mut rest = text;
        for (at, number) in numbers(text) {
            let (before, after) = rest.split_at(at - (text.len() - rest.len()));
            plain.push_str(before);
            rest = &after[number.len()..];
            match number.parse().ok().and_then(|revision| self.names.get(&revision)) {
                Some(name) => plain.push_str(name),
                None if plain.ends_with('/') => plain.push_str(&self.by_residue(number)),
                None => plain.push_str(number),
            }
        }
        plain.push_str(rest);
        plain.replace(&*self.incarnation, "I")
    }

    fn by_residue(&self, residue: &str) -> String {
        let found = self.names.iter().find(|(revision, _)| (*revision % SPAN).to_string() == residue);
        found.map_or_else(|| format!("?{residue}"), |(_, name)| name.clone())
    }
}

pub(super) fn id(job: &str) -> JobId {
    JobId::new(job).expect("an id")
}

fn text(reply: &Reply) -> String {
    match reply {
        Reply::Bulk(bytes) => bytes.escape_ascii().to_string(),
        other => other.text(),
    }
}

fn say(frame: &Frame) -> String {
    let Frame { revision, previous, body } = frame;
    let body = match body {
        Body::Add { job, born, payload } => {
            format!("add {job} born {born} {:?}", payload.escape_ascii().to_string())
        }
        Body::Delete { job, grant, reason } => format!("delete {job} {grant} {reason:?}"),
        Body::Fenced => "fenced".into(),
    };
    format!("{revision} after {previous}: {body}")
}

/// The numbers in a text, and where they are.
fn numbers(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = text[at..].find(|c: char| c.is_ascii_digit()).map(|start| at + start) {
        let length = text[start..].find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len() - start);
        found.push((start, &text[start..start + length]));
        at = start + length;
    }
    found
}

/// Microseconds since 1970 have sixteen digits until the year 2286.
fn revision(number: &str) -> Option<u64> {
    if number.len() == 16 { number.parse().ok() } else { None }
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    i64::try_from(now.as_millis()).expect("before the year 292278994")
}

/// What is left of a time, rounded up to ten seconds.
fn rounded(left_ms: i64) -> String {
    if left_ms <= 0 { "past".into() } else { format!("{}s", (left_ms + 9_999) / 10_000 * 10) }
}

fn value_of(key: &str, value: &str) -> String {
    match (key, value.split_once(' ')) {
        ("workers", Some((since, info))) => {
            let since: i64 = since.parse().expect("a time");
            assert!((now_ms() - since).abs() < 60_000, "{value}");
            info.to_owned()
        }
        _ => value.to_owned(),
    }
}

fn score_of(key: &str, score: &str) -> String {
    match (key, score.parse::<f64>().expect("a score")) {
        ("deadlines", at) => rounded(at as i64 - now_ms()),
        ("assigned", at) => format!("{}/{}", at as u64 / SPAN, at as u64 % SPAN),
        (_, at) => format!("{at:.0}"),
    }
}
