//! Rights that are taken away while everything runs: each is told of by an error that says what to do, the stream keeps
//! its contract, and when the rights are back, so is everything.

use std::time::Duration;

use assemblage::{CloseReason, Cluster, ErrorKind, Master};
use futures::future::join_all;

use crate::support::ledger::Consumer;
use crate::support::{Ledger, RedisServer, add_jobs, until};

/// Short: most of these workers are to lose their lock.
const TTL: Duration = Duration::from_millis(1_500);
const PASSWORD: &str = "hunter2";
/// What a denied command's error says.
const ACL: &str = "grant the user the commands, keys and channels";

/// The user of PROTOCOL.md, as it is written there.
fn grant(server: &RedisServer) {
    let protocol = include_str!("../../PROTOCOL.md");
    let line =
        protocol.split("ACL SETUSER").nth(1).and_then(|rest| rest.split("```").next()).expect("an ACL");
    let line = line.replace("{p}", "{assemblage:test}").replace("PASSWORD", PASSWORD);
    let words: Vec<&str> =
        ["ACL", "SETUSER"].into_iter().chain(line.split_whitespace().filter(|word| *word != "\\")).collect();
    assert_eq!(server.command(&words).text_or_error(), "OK");
}

/// Fails with this kind and a text that says what to do, at once or after the answers to what was on its way.
async fn denied(master: &Master, says: &str) -> bool {
    match master.add(&"a secret text").await {
        Ok(_) => false,
        Err(error) => {
            let all = format!("{error} {error:?}");
            assert!(!all.contains(PASSWORD) && !all.contains("secret"), "{all}");
            error.kind() == ErrorKind::Denied && error.to_string().contains(says)
        }
    }
}

struct Case {
    /// What is done to the user, after `ACL`.
    taken: &'static str,
    /// Its connections are cut as well: a password counts when connecting.
    cut: bool,
    /// What the errors say, of masters and workers alike.
    says: &'static str,
}

struct Bench {
    server: RedisServer,
    cluster: Cluster,
    master: Master,
    ledger: Ledger,
    consumer: Consumer,
}

/// A worker that holds ten jobs, by the rights of PROTOCOL.md.
async fn bench() -> Bench {
    let server = RedisServer::start();
    grant(&server);
    let url = format!("redis://assemblage:{PASSWORD}@127.0.0.1:{}", server.port());
    let builder = Cluster::builder("test").lock_ttl(TTL).command_timeout(Duration::from_secs(2));
    let cluster = builder.connect_url(&url).await.unwrap();
    let (master, ledger) = (cluster.master().await.unwrap(), Ledger::default());
    let consumer = ledger.consume(cluster.worker().await.unwrap());
    add_jobs(&master, 10).await;
    until("all are held", || async { ledger.held().len() == 10 }).await;
    Bench { server, cluster, master, ledger, consumer }
}

async fn play(case: &Case) {
    let Bench { server, cluster, master, ledger, consumer } = bench().await;
    let words: Vec<&str> = ["ACL"].into_iter().chain(case.taken.split(' ')).collect();
    assert!(["OK", "1"].contains(&&*server.command(&words).text_or_error()), "{}", case.taken);
    if case.cut {
        server.command(&["CLIENT", "KILL", "USER", "assemblage"]);
    }
    until("a master is told", || denied(&master, case.says)).await;
    assert_eq!(consumer.closed().await, CloseReason::LockExpired);
    assert!(ledger.held().is_empty(), "a Delete for each");
    assert!(ledger.errors().iter().any(|error| error.contains(case.says)), "{:?}", ledger.errors());
    let refused = cluster.worker().await.expect_err("nobody joins");
    assert!(refused.to_string().contains(case.says), "{refused}");

    grant(&server);
    until("a master works again", || async { master.add(&"more").await.is_ok() }).await;
    let next = ledger.consume(cluster.worker().await.unwrap());
    until("all are held", || async { ledger.held().len() == master.stats().await.unwrap().jobs as usize })
        .await;
    assert!(ledger.held_by(next.id()) >= 11);
    ledger.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_away_while_it_runs_ends_the_worker_with_a_clear_error_until_it_is_given_back() {
    let login = "another user or password";
    let cases = [
        ("DELUSER assemblage", true, login),
        ("SETUSER assemblage resetpass >other", true, login),
        ("SETUSER assemblage off", true, login),
        ("SETUSER assemblage -evalsha -eval", false, ACL),
        ("SETUSER assemblage resetkeys", false, ACL),
        ("SETUSER assemblage -hget", false, ACL),
    ];
    let cases = cases.map(|(taken, cut, says)| Case { taken, cut, says });
    join_all(cases.iter().map(play)).await;
}

// A script that may not push has written by then what it was to push.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_push_a_master_is_told_and_what_it_added_is_not_lost() {
    for taken in ["-spublish", "resetchannels"] {
        let Bench { server, master, ledger, consumer, .. } = bench().await;
        server.command(&["ACL", "SETUSER", "assemblage", taken]);
        until("a master is told", || denied(&master, ACL)).await;
        assert!(!consumer.is_closed());
        grant(&server);
        until("a master works again", || async { master.add(&"more").await.is_ok() }).await;
        until("all are held", || async {
            ledger.held().len() == master.stats().await.unwrap().jobs as usize
        })
        .await;
        assert!(ledger.held().len() > 10);
        ledger.assert_clean();
    }
}
