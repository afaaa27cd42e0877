//! Trouble: no memory, no scripts, keys that something else wrote to, and a user with few rights.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;

use super::bench::{BEATEN, Bench, JOINED, RESERVED, id};
use crate::error::{ErrorKind, Result};
use crate::id::Revision;
use crate::redis::connect::Connection;
use crate::redis::store::{Member, Reap, Store};
use crate::wire::keys::Keys;

// Promise: honest failure. What cannot be kept is refused as a whole, and what frees memory or keeps jobs moving works.
#[tokio::test(flavor = "multi_thread")]
async fn without_memory_an_add_is_refused_whole_and_everything_held_still_moves() {
    let (mut bench, members) = Bench::with_workers(2).await;
    let mut grants = Vec::new();
    for job in ["a", "b", "c", "d"] {
        grants.push(bench.add(job, "x").await.1);
    }
    let waiting = bench.reserve().await;
    bench.end_lock(&members[1]);
    bench.command(&["CONFIG", "SET", "maxmemory", "1"]);

    let jobs = [(id("new"), bytes::Bytes::from("x"))];
    assert_eq!(bench.store.add(&jobs).await.unwrap_err().kind(), ErrorKind::OutOfMemory);
    let reserved = bench.store.reserve(&bench.incarnation, RESERVED, Vec::new()).await;
    assert_eq!(reserved.unwrap_err().kind(), ErrorKind::OutOfMemory);
    assert_eq!(bench.store.join(&waiting, JOINED).await.unwrap_err().kind(), ErrorKind::OutOfMemory);
    assert_eq!(bench.news(), [""; 0], "nothing was written");

    bench.store.beat(&members[0], BEATEN, false).await.unwrap().unwrap();
    assert_eq!(bench.news(), ["deadlines: 1=20s 2=past 3=60s", "lock:1: I 20s"]);
    bench.command(&["DEL", &bench.key("lock:1")]);
    bench.store.beat(&members[0], BEATEN, false).await.unwrap().unwrap();
    assert_eq!(bench.command(&["EXISTS", &bench.key("lock:1")]).int(), 1, "set again without memory");
    bench.delete("a", Some(grants[0])).await;
    assert!(bench.release(&members[0], "a", grants[0]).await);
    assert_eq!(bench.store.reap(members[1].worker).await.unwrap().0, Reap::Reaped { moved: 2, left: 0 });
    assert_eq!(bench.store.sync(&members[0], Revision(0), None).await.unwrap().unwrap().rows.len(), 3);
    bench.store.leave(&members[0]).await.unwrap().unwrap();
    bench.store.place().await.unwrap();
    assert_eq!(bench.store.survey().await.unwrap().pending, 3);
    // Who comes to delete jobs, and so to free memory, must get in.
    bench.store.open("RUN").await.unwrap();

    bench.command(&["CONFIG", "SET", "maxmemory", "0"]);
    bench.store.add(&jobs).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_that_the_server_forgot_are_sent_again() {
    let (bench, members) = Bench::with_workers(1).await;
    for _ in 0..2 {
        bench.command(&["SCRIPT", "FLUSH"]);
        let (_, grant) = bench.add("a", "one").await;
        bench.store.beat(&members[0], BEATEN, false).await.unwrap().unwrap();
        bench.delete("a", None).await;
        assert!(bench.release(&members[0], "a", grant).await);
    }
}

/// Every script, once, with whatever comes of it.
async fn run_all(store: &Store, member: &Member) -> Vec<(&'static str, Result<()>)> {
    let jobs = [(id("a"), bytes::Bytes::from("x")), (id("b"), bytes::Bytes::from("y"))];
    let (worker, incarnation) = (member.worker, &member.incarnation);
    vec![
        ("open", store.open("RUN").await.map(drop)),
        ("reserve", store.reserve(incarnation, RESERVED, Vec::new()).await.map(drop)),
        ("join", store.join(member, JOINED).await.map(drop)),
        ("beat", store.beat(member, BEATEN, false).await.map(drop)),
        ("sync", store.sync(member, Revision(0), None).await.map(drop)),
        ("add", store.add(&jobs).await.map(drop)),
        ("find", store.find(&id("a")).await.map(drop)),
        ("list", store.list("0").await.map(drop)),
        ("roster", store.roster("0").await.map(drop)),
        ("survey", store.survey().await.map(drop)),
        ("place", store.place().await.map(drop)),
        ("delete", store.delete(&[(id("a"), None), (id("b"), Some(Revision(5)))]).await.map(drop)),
        ("release", store.release(worker, &[(id("a"), Revision(5)), (id("b"), Revision(5))]).await.map(drop)),
        ("reap", store.reap(worker).await.map(drop)),
        ("leave", store.leave(member).await.map(drop)),
    ]
}

const NAMES: [&str; 10] =
    ["meta", "rev", "jobs", "owner", "assigned", "pending", "load", "deadlines", "workers", "inbox"];

// Promise: no input, however hostile, panics; each refusal is typed. Here: any key of any other type.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_the_wrong_type_is_an_error_and_never_a_panic() {
    let (bench, members) = Bench::with_workers(1).await;
    let kinds: [&[&str]; 3] = [&["SET", "KEY", "text"], &["LPUSH", "KEY", "x"], &["HSET", "KEY", "a", "b"]];
    for name in NAMES {
        for kind in kinds {
            let dump: Vec<_> = NAMES.iter().map(|name| bench.key(name)).collect();
            for key in &dump {
                bench.command(&["COPY", key, &format!("kept{key}"), "REPLACE"]);
            }
            let key = bench.key(name);
            bench.command(&["DEL", &key]);
            let words: Vec<&str> =
                kind.iter().map(|word| if *word == "KEY" { &*key } else { word }).collect();
            bench.command(&words);
            for (script, result) in run_all(&bench.store, &members[0]).await {
                if let Err(error) = result {
                    let expected = [ErrorKind::Protocol, ErrorKind::Server, ErrorKind::Incompatible];
                    assert!(expected.contains(&error.kind()), "{name} as {kind:?}: {script}: {error:?}");
                }
            }
            for key in &dump {
                bench.command(&["DEL", key]);
                bench.command(&["COPY", &format!("kept{key}"), key]);
            }
        }
    }
    bench.store.beat(&members[0], BEATEN, false).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_in_a_record_is_an_error_for_who_asks_and_hurts_no_other_job() {
    let bench = Bench::new().await;
    for garbage in
        ["", "nonsense", "a", "a 1 2", "x 1 2 3", "a -1 2 3", "a 1 2 3 4", "a 99999999999999999999 1 1", "\0"]
    {
        let member = bench.reserve().await;
        bench.store.join(&member, JOINED).await.unwrap().unwrap();
        bench.delete("good", None).await;
        bench.add("good", "x").await;
        bench.command(&["HSET", &bench.key("owner"), "a", garbage]);
        bench.command(&["ZADD", &bench.key("assigned"), &(member.worker.get() << 26).to_string(), "a"]);
        bench.command(&["ZADD", &bench.key("pending"), "1", "a"]);
        assert_eq!(bench.store.list("0").await.unwrap_err().kind(), ErrorKind::Protocol, "{garbage:?}");
        assert_eq!(bench.store.find(&id("a")).await.unwrap_err().kind(), ErrorKind::Protocol, "{garbage:?}");
        let rows = bench.store.sync(&member, Revision(0), None).await.unwrap().unwrap().rows;
        assert!(rows.iter().any(|row| row.job == id("good")), "{garbage:?}");
        bench.store.place().await.unwrap();
        for (script, result) in run_all(&bench.store, &member).await {
            match result {
                Err(error) if ["add", "delete", "find", "list"].contains(&script) => {
                    assert_eq!(error.kind(), ErrorKind::Protocol, "{garbage:?}: {script}");
                }
                result => result.unwrap_or_else(|error| panic!("{garbage:?}: {script}: {error:?}")),
            }
        }
        bench.command(&["HDEL", &bench.key("owner"), "a"]);
    }
}

// One bad entry must not hide the good ones, nor cost a living worker its lock.
#[tokio::test(flavor = "multi_thread")]
async fn garbage_among_the_members_hides_no_other() {
    let (bench, members) = Bench::with_workers(1).await;
    bench.command(&["HSET", &bench.key("workers"), "7", "garbage"]);
    bench.command(&["ZADD", &bench.key("deadlines"), "1", "garbage"]);
    bench.command(&["HDEL", &bench.key("meta"), "lifted"]);
    assert_eq!(bench.store.roster("0").await.unwrap().0.len(), 1);
    bench.store.beat(&members[0], BEATEN, false).await.unwrap().unwrap();
    bench.store.sync(&members[0], Revision(0), None).await.unwrap().unwrap();
    bench.store.join(&members[0], JOINED).await.unwrap().unwrap();
    assert_eq!(bench.store.survey().await.unwrap().due.unwrap().worker, members[0].worker);
    bench.store.open("RUN").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_are_none_are_errors() {
    let hostile: [(&[&str], &str); 5] = [
        (&["SET", "rev", "banana"], "add"),
        (&["HSET", "meta", "lifted", "-5"], "survey"),
        (&["HSET", "inbox", "1", "banana"], "beat"),
        (&["HSET", "meta", "protocol", "banana"], "open"),
        (&["HSET", "meta", "last_worker", "banana"], "reserve"),
    ];
    for (words, script) in hostile {
        let (bench, members) = Bench::with_workers(1).await;
        let key = bench.key(words[1]);
        let words: Vec<&str> =
            words.iter().enumerate().map(|(at, word)| if at == 1 { &*key } else { word }).collect();
        bench.command(&words);
        let results = run_all(&bench.store, &members[0]).await;
        let (_, result) = results.into_iter().find(|(name, _)| *name == script).expect("a script");
        let kind = result.map(|()| script).expect_err("an error").kind();
        assert!([ErrorKind::Protocol, ErrorKind::Server].contains(&kind), "{words:?}: {kind:?}");
    }
}

// PROTOCOL.md gives the rights that a user needs: with them alone, every script runs.
#[tokio::test(flavor = "multi_thread")]
async fn the_acl_of_protocol_md_is_enough_for_every_script_and_not_for_more() {
    let bench = Bench::new().await;
    let protocol = include_str!("../../../../PROTOCOL.md");
    let line =
        protocol.split("ACL SETUSER").nth(1).and_then(|rest| rest.split("```").next()).expect("an ACL");
    let line = line.replace("{p}", "{assemblage:other}").replace("PASSWORD", "secret");
    let words: Vec<&str> =
        ["ACL", "SETUSER"].into_iter().chain(line.split_whitespace().filter(|w| *w != "\\")).collect();
    let answer = bench.command(&words);
    assert_eq!(format!("{answer:?}"), "+OK", "{words:?}");

    let url = bench.server.url().replace("redis://", &format!("redis://{}:secret@", words[2]));
    let timeout = Duration::from_secs(10);
    let connection = Connection::connect_url(&url, None, timeout).await.expect("connects");
    let keys = Arc::new(Keys::new("assemblage", "other"));
    let store = Store::new(connection.commands.clone(), keys, timeout);
    let incarnation = store.open("RUN").await.unwrap().incarnation;
    let worker = store.reserve(&incarnation, RESERVED, Vec::new()).await.unwrap().unwrap();
    let member = Member { worker, incarnation };
    for (script, result) in run_all(&store, &member).await {
        result.unwrap_or_else(|error| panic!("{script}: {error:?}"));
    }

    // And for a whole life through the public interface, subscriptions and the preflight with it.
    let cluster = crate::Cluster::builder("other").connect_url(url).await.unwrap();
    let (master, mut worker) = (cluster.master().await.unwrap(), cluster.worker().await.unwrap());
    master.add(&"payload").await.unwrap();
    let Some(crate::Event::Add(job)) = worker.next().await else { panic!("its job") };
    drop(job);
    let done = worker.terminate();
    while worker.next().await.is_some() {}
    done.await;
    // Nothing was denied but what it says is optional, and nothing is granted that was not used.
    let log = bench.command(&["ACL", "LOG"]);
    let denied: Vec<_> = log.list().iter().map(|entry| entry.list()[7].text()).collect();
    assert_eq!(denied, ["config|get"]);
    let used = bench.command(&["INFO", "commandstats"]).text();
    // HELLO or AUTH by the version of RESP; SELECT for another database.
    let granted = words.iter().filter_map(|word| word.strip_prefix('+'));
    let granted = granted.filter(|command| !["hello", "auth", "select"].contains(command));
    let idle: Vec<_> = granted.filter(|command| !used.contains(&format!("cmdstat_{command}:"))).collect();
    assert_eq!(idle, [""; 0]);

    let strangers =
        Store::new(connection.commands.clone(), Arc::new(Keys::new("assemblage", "bench")), timeout);
    assert_eq!(strangers.survey().await.unwrap_err().kind(), ErrorKind::Denied, "another cluster's keys");
}
