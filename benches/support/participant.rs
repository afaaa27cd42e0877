//! A participant in another language, as it were: it calls the crate's scripts over a plain connection, by their headers
//! and PROTOCOL.md. With it there can be ten thousand workers in one process, and one script can be measured alone.

use std::collections::HashMap;
use std::path::Path;

use super::server::{Connection, RedisServer, Reply};

/// What its workers show beside their numbers.
const TOKEN: &str = "token";

struct Script {
    sha: String,
    /// From its header.
    keys: Vec<String>,
}

pub(crate) struct Participant {
    connection: Connection,
    scripts: HashMap<String, Script>,
    prefix: String,
    incarnation: String,
}

/// `{p}` of a cluster.
pub(crate) fn prefix(cluster: &str) -> String {
    format!("{{assemblage:{cluster}}}")
}

/// The crate's scripts, by name: their texts. Read from the crate's own list of them.
fn texts() -> Vec<(String, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/redis");
    let read = |name: &str| std::fs::read_to_string(directory.join(name)).expect("a source of the crate");
    let list = read("script.rs");
    let entries =
        list.lines().filter(|line| line.starts_with("    ") && line.contains(" = \"") && line.ends_with(';'));
    entries
        .map(|line| {
            // NAME = "name", keys, " flags", "lib", ...;
            let words: Vec<&str> = line.split('"').skip(1).step_by(2).collect();
            let mut text = format!("#!lua{}\n{}", words[1], read("lua/lib/base.lua"));
            words[2..].iter().for_each(|lib| text += &read(&format!("lua/lib/{lib}.lua")));
            (words[0].to_owned(), text + &read(&format!("lua/{}.lua", words[0])))
        })
        .collect()
}

/// Which script a SHA is.
pub(crate) fn names(server: &RedisServer) -> HashMap<String, String> {
    texts().into_iter().map(|(name, text)| (super::floor::load(server, &text), name)).collect()
}

impl Participant {
    /// In a cluster that somebody has opened.
    pub(crate) fn new(server: &RedisServer, cluster: &str) -> Self {
        let scripts = texts().into_iter().map(|(name, text)| {
            let keys = text.lines().filter_map(|line| line.strip_prefix("-- KEYS["));
            let keys = keys.filter_map(|line| line.split(' ').nth(1).map(str::to_owned)).collect();
            (name, Script { sha: super::floor::load(server, &text), keys })
        });
        let (scripts, prefix) = (scripts.collect(), prefix(cluster));
        let incarnation = server.command(&["HGET", &format!("{prefix}:meta"), "incarnation"]).text();
        assert!(!incarnation.is_empty(), "nobody has opened the cluster");
        Self { connection: server.connect(), scripts, prefix, incarnation }
    }

    pub(crate) fn key(&self, name: &str) -> String {
        format!("{}:{name}", self.prefix)
    }

    pub(crate) fn command(&mut self, words: &[&str]) -> Reply {
        self.connection.command(words)
    }

    fn run(&mut self, script: &str, worker: u64, args: &[&str]) -> Vec<Reply> {
        let Script { sha, keys } = &self.scripts[script];
        let name = |key: &String| match key.as_str() {
            "lock" => format!("{}:lock:{worker}", self.prefix),
            key => format!("{}:{key}", self.prefix),
        };
        let keys: Vec<String> = keys.iter().map(name).collect();
        let count = keys.len().to_string();
        let words = ["EVALSHA", sha, &count].into_iter().chain(keys.iter().map(String::as_str));
        let words: Vec<&str> = words.chain(args.iter().copied()).collect();
        match self.connection.command(&words) {
            Reply::Array(items) => items,
            other => panic!("{script}: {other:?}"),
        }
    }

    /// A worker that has joined for so long; its number.
    pub(crate) fn join(&mut self, ttl_ms: u64) -> u64 {
        let (incarnation, ttl) = (self.incarnation.clone(), ttl_ms.to_string());
        let reserved = self.run("reserve", 0, &[&incarnation, "60000", "\u{0}", "1000000", TOKEN]);
        let worker = reserved[1].int().unsigned_abs();
        let (number, inbox) = (worker.to_string(), self.key("inbox:"));
        let joined =
            self.run("join", worker, &[&incarnation, &number, &ttl, "1 0 0", &inbox, "", "0", "0", TOKEN]);
        assert_eq!(joined[0].int(), 1, "it joins: {joined:?}");
        worker
    }

    pub(crate) fn beat(&mut self, worker: u64, ttl_ms: u64) {
        let (incarnation, number, ttl) = (self.incarnation.clone(), worker.to_string(), ttl_ms.to_string());
        let beat = self.run("beat", worker, &[&incarnation, &number, &ttl, "0", "1 0 0", "0", TOKEN]);
        assert_eq!(beat[0].int(), 1, "it is accepted: {beat:?}");
    }

    /// Releases a job that was deleted, by its record.
    pub(crate) fn release(&mut self, job: &str) {
        let record = self.command(&["HGET", &self.key("owner"), job]).text();
        let record: Vec<&str> = record.split(' ').collect();
        let worker = record[1].parse().expect("a number");
        let (inbox, released) = (self.key("inbox:"), self.key("released"));
        let done = self.run("release", worker, &[&inbox, &released, record[1], job, record[2]]);
        assert_eq!(done[1].int(), 1, "it was held: {record:?}");
    }

    /// A worker's lock is over, by the server's record of it.
    pub(crate) fn end_lock(&mut self, worker: u64) {
        let deadlines = self.key("deadlines");
        self.command(&["ZADD", &deadlines, "1", &worker.to_string()]);
    }

    /// Reaps one batch of at most so many jobs: how many moved, how many are left.
    pub(crate) fn reap(&mut self, worker: u64, limit: u64) -> (u64, u64) {
        let (number, limit) = (worker.to_string(), limit.to_string());
        let (inbox, released, control) = (self.key("inbox:"), self.key("released"), self.key("control"));
        let not_after = (1_u64 << 52).to_string();
        let reaped = self.run(
            "reap",
            worker,
            &[&inbox, &released, &control, &number, &limit, &not_after, "3", "60000"],
        );
        assert_eq!(reaped[0].int(), 1, "its lock has ended: {reaped:?}");
        (reaped[1].int().unsigned_abs(), reaped[2].int().unsigned_abs())
    }
}

/// What the server has spent on a command so far, by its own count.
pub(crate) fn spent_us(connection: &mut Connection, command: &str) -> (u64, u64) {
    let info = connection.command(&["INFO", "commandstats"]).text();
    let line =
        info.lines().find_map(|line| line.strip_prefix("cmdstat_")?.strip_prefix(command)?.strip_prefix(':'));
    let field = |name: &str| {
        let (_, rest) = line?.split_once(name)?;
        rest.split(',').next()?.parse::<u64>().ok()
    };
    (field("calls=").unwrap_or(0), field("usec=").unwrap_or(0))
}
