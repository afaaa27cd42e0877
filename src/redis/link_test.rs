//! The connections against real servers: what they refuse, what they hear, and that they end.

mod gone;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fred::clients::Client;
use fred::interfaces::ClientLike;
use fred::types::config::{Config, ReconnectPolicy};
use fred::types::{Builder, RespVersion};

use super::connect::{Commands, Connection};
use super::server::{Notifications, preflight, run_id};
use super::store::Store;
use super::subscriber::{Listener, Signal, Subscriber};
use crate::error::{Error, ErrorKind};
use crate::id::WorkerId;
use crate::test_server::RedisServer;
use crate::wire::keys::Keys;

/// What a command may take. Machines are shared, so only what is meant to run into it has a shorter one.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long anything may take before a test calls it lost.
const PATIENCE: Duration = Duration::from_secs(20);
/// For what is to fail by its timeout.
const SHORT: Duration = Duration::from_millis(300);

const ME: WorkerId = WorkerId(7);
const WORKER: Listener = Listener::Worker(ME);
const ADMIN: &str = "+@all";

fn keys() -> Arc<Keys> {
    Arc::new(Keys::new("assemblage", "test"))
}

async fn connect(url: &str) -> Connection {
    Connection::connect_url(url, None, None, TIMEOUT).await.expect("it connects")
}

async fn refused(url: &str, database: Option<u8>) -> Error {
    Connection::connect_url(url, database, None, SHORT).await.expect_err("it is refused")
}

async fn attached(connection: &Connection) -> Subscriber {
    attached_within(connection, TIMEOUT).await
}

async fn attached_within(connection: &Connection, timeout: Duration) -> Subscriber {
    let subscriber = Subscriber::start(connection, keys(), WORKER, timeout).await.expect("it starts");
    subscriber.attach().await.expect("it attaches");
    subscriber
}

async fn next(subscriber: &mut Subscriber) -> Signal {
    tokio::time::timeout(PATIENCE, subscriber.next()).await.expect("something comes in")
}

/// Passes over everything else, such as a second reconnection.
async fn wait_for<T>(subscriber: &mut Subscriber, mut want: impl FnMut(Signal) -> Option<T>) -> T {
    let search = async {
        loop {
            if let Some(found) = want(subscriber.next().await) {
                return found;
            }
        }
    };
    tokio::time::timeout(PATIENCE, search).await.expect("it comes in")
}

async fn hears(subscriber: &mut Subscriber, server: &RedisServer, text: &str) {
    let channel = keys().control.clone();
    server.command(&["SPUBLISH", &channel, text]);
    wait_for(subscriber, |signal| match signal {
        Signal::Control(bytes) if bytes == text.as_bytes() => Some(()),
        _ => None,
    })
    .await;
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Lets a lock of ours end, which is announced when the server looks at it.
async fn end_lock(mut command: impl FnMut(&[&str])) {
    let key = keys().lock(ME);
    command(&["SET", &key, "x", "PX", "1"]);
    tokio::time::sleep(Duration::from_millis(5)).await;
    command(&["EXISTS", &key]);
}

/// The connections that the server has, but for the one that asks.
fn clients(server: &RedisServer) -> Vec<String> {
    let list = server.command(&["CLIENT", "LIST"]).text();
    list.lines().filter(|line| !line.contains("cmd=client|list")).map(str::to_owned).collect()
}

/// A user of the server, with rights as ACL SETUSER takes them. Returns the URL.
fn user(server: &RedisServer, rights: &[&str]) -> String {
    let mut words = vec!["ACL", "SETUSER", "app", "reset", "on", ">secret"];
    words.extend(rights);
    assert_eq!(server.command(&words).text(), "OK");
    format!("redis://app:secret@127.0.0.1:{}", server.port())
}

/// Promise: an address that cannot work is an error that says what to write, and nothing is sent.
#[tokio::test]
async fn a_url_that_cannot_work_is_refused() {
    for url in [
        "",
        "127.0.0.1:6379",
        "http://127.0.0.1",
        "redis",
        "redis://",
        "redis://h/notanumber",
        "rediss+unix:///x",
    ] {
        let error = refused(url, None).await;
        assert_eq!(error.kind(), ErrorKind::InvalidSetting, "{url}: {error}");
        assert!(error.to_string().contains("redis://"), "{url}: {error}");
    }
    let error = refused("redis://user:hunter2@host:banana/", None).await;
    assert_eq!(error.kind(), ErrorKind::InvalidSetting);
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    let error = refused("redis-cluster://127.0.0.1:1", Some(1)).await;
    assert!(error.kind() == ErrorKind::InvalidSetting && error.to_string().contains("database 0"), "{error}");
}

/// Promise: what was meant to be encrypted is never sent in clear. fred alone would connect without TLS.
#[cfg(not(any(feature = "tls-rustls", feature = "tls-rustls-ring", feature = "tls-native")))]
#[tokio::test]
async fn a_tls_url_without_tls_compiled_in_is_refused() {
    let server = RedisServer::start();
    let error = refused(&format!("rediss://:secret@127.0.0.1:{}", server.port()), None).await;
    assert_eq!(error.kind(), ErrorKind::InvalidSetting);
    assert!(error.to_string().contains("tls-rustls"), "{error}");
}

/// Promise: an unreachable server is told of at once, by its address.
#[tokio::test]
async fn where_nobody_listens_the_error_names_the_address() {
    let address = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("its address")
    };
    let start = Instant::now();
    let error = Connection::connect_url(&format!("redis://{address}"), None, None, TIMEOUT)
        .await
        .expect_err("no server");
    assert_eq!(error.kind(), ErrorKind::Connection, "{error}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert!(start.elapsed() < TIMEOUT, "a refusal is known at once");
}

/// Promise: a server that takes connections and does not answer is given up, and so is the connection to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nothing_is_answered_it_gives_up_in_time_and_leaves_no_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let ended = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut bytes = [0; 512];
        while stream.read(&mut bytes).expect("the end, in time") > 0 {}
    });
    let start = Instant::now();
    let error = refused(&format!("redis://{address}"), None).await;
    assert_eq!(error.kind(), ErrorKind::Connection, "{error}");
    assert!(start.elapsed() < PATIENCE);
    until("the connection is closed", || ended.is_finished()).await;
    ended.join().expect("it was closed");
}

/// Promise: a wrong password is an error at once, and no text has it.
#[tokio::test]
async fn a_wrong_password_is_denied_and_never_shown() {
    let server = RedisServer::start();
    server.command(&["CONFIG", "SET", "requirepass", "hunter2"]);
    let at = format!("127.0.0.1:{}", server.port());
    for url in [
        format!("redis://:swordfish@{at}"),
        format!("redis://nobody:swordfish@{at}"),
        format!("redis://{at}"),
    ] {
        let start = Instant::now();
        let error = Connection::connect_url(&url, None, None, TIMEOUT).await.expect_err("denied");
        assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
        assert!(start.elapsed() < TIMEOUT);
        assert!(!format!("{error} {error:?}").contains("swordfish"), "{error:?}");
        assert!(error.to_string().contains(&at), "{error}");
    }
    let connection = connect(&format!("redis://:hunter2@{at}")).await;
    assert!(!format!("{connection:?}").contains("hunter2"));
    attached(&connection).await.close().await;
}

/// Promise: as above, where the server quotes what it was sent: it does so for commands that it does not know.
#[tokio::test]
async fn a_password_that_the_server_quotes_is_not_shown() {
    let server = RedisServer::with(&["--rename-command", "HELLO", ""]);
    let error = refused(&format!("redis://:hunter2@127.0.0.1:{}", server.port()), None).await;
    let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    assert!(error.to_string().contains("unknown command"), "the server's own words: {error}");
    assert!(!format!("{error} {error:?} {source}").contains("hunter2"), "{error:?}");
}

/// Promise: `database` goes before the URL's, for commands and events.
#[tokio::test]
async fn the_database_that_is_asked_for_is_used() {
    let server = RedisServer::start();
    let url = format!("{}/1", server.url());
    assert_eq!(connect(&url).await.database(), 1);
    let connection = Connection::connect_url(&url, Some(3), None, TIMEOUT).await.expect("it connects");
    assert_eq!(connection.database(), 3);
    assert!(clients(&server).iter().any(|line| line.contains(" db=3 ")));
    let error = Connection::connect_url(&url, Some(200), None, TIMEOUT).await.expect_err("there are 16");
    assert_eq!(error.kind(), ErrorKind::InvalidSetting, "{error}");

    preflight(&connection, &keys(), true, TIMEOUT).await.expect("a good server");
    let mut subscriber = attached(&connection).await;
    let mut plain = server.connect();
    plain.command(&["SELECT", "3"]);
    end_lock(|words| drop(plain.command(words))).await;
    assert!(matches!(next(&mut subscriber).await, Signal::LockEnded(ME)));
}

/// Promise: a unix socket's URL is taken in both spellings.
#[cfg(feature = "unix-sockets")]
#[tokio::test]
async fn a_unix_socket_is_reached() {
    let server = RedisServer::start();
    connect(&server.unix_url()).await;
    let connection = connect(&format!("unix://{}", server.socket().display())).await;
    let mut subscriber = attached(&connection).await;
    hears(&mut subscriber, &server, "hello").await;
}

/// Promise: nothing is left on the server when the last handle is dropped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_closed_or_dropped_leaves_no_connection() {
    let server = RedisServer::start();
    let connection = connect(&server.url()).await;
    let subscriber = attached_within(&connection, Duration::from_secs(1)).await;
    assert_eq!(clients(&server).len(), 2);
    subscriber.close().await;
    until("one is left", || clients(&server).len() == 1).await;
    let subscriber = attached_within(&connection, Duration::from_secs(1)).await;
    let late = subscriber.attach();
    drop(subscriber);
    until("one is left", || clients(&server).len() == 1).await;
    late.await.expect_err("it has ended");
    drop(Subscriber::start(&connection, keys(), WORKER, TIMEOUT)); // never polled
    drop(connection);
    until("none is left", || clients(&server).is_empty()).await;
}

/// Promise: as above, where the server is away meanwhile: fred's own `quit` would wait for it and go on trying.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_dropped_while_the_server_is_away_does_not_come_back() {
    let mut server = RedisServer::start();
    let connection = connect(&server.url()).await;
    let subscriber = attached_within(&connection, Duration::from_secs(1)).await;
    let stays = attached_within(&connection, Duration::from_secs(1)).await;
    server.kill();
    stays.ping().await.expect_err("nobody answers");
    let start = Instant::now();
    subscriber.close().await;
    assert!(start.elapsed() < PATIENCE);
    server.start_again();
    // The one that stays is back, so another would be as well.
    until("the one that stays is back", || clients(&server).len() >= 2).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(clients(&server).len(), 2, "{:?}", clients(&server));
    drop((stays, connection));
    until("none is left", || clients(&server).is_empty()).await;
}

/// A client as an application has it: in RESP2, without a reconnect policy.
fn application(server: &RedisServer) -> Client {
    let config = Config::from_url(&server.url()).expect("a URL");
    assert_eq!(config.version, RespVersion::RESP2);
    Builder::from_config(config).build().expect("a client")
}

/// Promise: a client that is not connected is an error with advice, not a hang.
#[tokio::test]
async fn an_application_client_that_is_not_connected_is_told_of() {
    let server = RedisServer::start();
    let fresh = application(&server);
    let ended = application(&server);
    ended.init().await.expect("it connects");
    ended.quit().await.expect("it quits");
    for client in [fresh, ended] {
        let connection = Connection::embedded(Commands::Client(client));
        let error = preflight(&connection, &keys(), true, SHORT).await.expect_err("nobody answers");
        assert_eq!(error.kind(), ErrorKind::Connection, "{error}");
        assert!(error.to_string().contains("init()"), "{error}");
    }
}

/// Promise: the application's client is only ever given commands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_client_goes_on_as_it_was() {
    let server = RedisServer::start();
    let client = application(&server);
    let pool = Builder::from_config(client.client_config()).build_pool(2).expect("a pool");
    client.init().await.expect("it connects");
    pool.init().await.expect("it connects");
    let before = clients(&server).len();
    for commands in [Commands::Client(client.clone()), Commands::Pool(pool.clone())] {
        let connection = Connection::embedded(commands);
        let report = preflight(&connection, &keys(), true, TIMEOUT).await.expect("a good server");
        assert_eq!(run_id(connection.commands.client(), &keys(), TIMEOUT).await.expect("one"), report.run_id);
        let mut subscriber = attached(&connection).await;
        hears(&mut subscriber, &server, "hello").await;
        server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        assert!(matches!(next(&mut subscriber).await, Signal::Reconnected));
        subscriber.attach().await.expect("it attaches, whatever the application's policy is");
        hears(&mut subscriber, &server, "again").await;
    }
    until("only the application's are left", || clients(&server).len() == before).await;
    client.ping::<()>(None).await.expect("it goes on");
    pool.next().ping::<()>(None).await.expect("it goes on");
    assert_eq!(client.protocol_version(), RespVersion::RESP2);
}

/// Promise: what is published after `attach` is heard, by whom it is for.
#[tokio::test]
async fn what_is_published_after_attach_is_heard_by_those_whom_it_concerns() {
    let server = RedisServer::start();
    let connection = connect(&server.url()).await;
    let mut worker = attached(&connection).await;
    let mut others = Vec::new();
    for listener in [Listener::Master, Listener::Watcher] {
        let other = Subscriber::start(&connection, keys(), listener, TIMEOUT).await.expect("it starts");
        other.attach().await.expect("it attaches");
        others.push(other);
    }
    let [mut watcher, mut master] = [others.pop(), others.pop()].map(|other| other.expect("two"));
    let keys = keys();
    let mut plain = server.connect();
    for (channel, bytes) in [
        (keys.inbox_of(WorkerId(8)), &b"for another"[..]),
        (keys.inbox_of(ME), b"\xff\x00 not UTF-8"),
        (keys.inbox_of(ME), b"UTF-8"),
        (keys.control.clone(), b"control"),
        (keys.released.clone(), b"released"),
        (keys.changes.clone(), b"changes"),
    ] {
        plain.send(&[b"SPUBLISH", channel.as_bytes(), bytes]);
        plain.read();
    }
    let heard = [next(&mut worker).await, next(&mut worker).await, next(&mut worker).await];
    assert!(matches!(&heard[0], Signal::Inbox(bytes) if &**bytes == b"\xff\x00 not UTF-8"), "{heard:?}");
    assert!(matches!(&heard[1], Signal::Inbox(bytes) if &**bytes == b"UTF-8"), "{heard:?}");
    assert!(matches!(&heard[2], Signal::Control(bytes) if &**bytes == b"control"), "{heard:?}");
    let heard = [next(&mut master).await, next(&mut master).await];
    assert!(matches!(&heard[0], Signal::Control(bytes) if &**bytes == b"control"), "{heard:?}");
    assert!(matches!(&heard[1], Signal::Released(bytes) if &**bytes == b"released"), "{heard:?}");
    let heard = next(&mut watcher).await;
    assert!(matches!(&heard, Signal::Changes(bytes) if &**bytes == b"changes"), "{heard:?}");
    // Twice is as good as once.
    worker.attach().await.expect("it attaches again");
    hears(&mut worker, &server, "once").await;
    server.command(&["SPUBLISH", &keys.control, "end"]);
    assert!(matches!(next(&mut worker).await, Signal::Control(_)), "each message comes once");
}

/// Promise: a worker that does not listen to the others' ends hears its inbox alone, over new connections too, and all of it again when
/// it listens again. Where ending a subscription is denied, answers stay in step.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_ceases_to_listen_hears_its_inbox_alone() {
    let server = RedisServer::start();
    let keys = keys();
    let mut connection = connect(&server.url()).await;
    let mut subscriber = attached(&connection).await;
    let listeners = || server.command(&["PUBSUB", "SHARDNUMSUB", &keys.control]).list()[1].int();
    let patterns = || server.command(&["PUBSUB", "NUMPAT"]).int();
    for round in 0..3 {
        assert_eq!((listeners(), patterns()), (1, 1));
        subscriber.listen(false).await.expect("it ceases to listen");
        for _ in 0..2 {
            assert_eq!((listeners(), patterns()), (0, 0));
            subscriber.ping().await.expect("answers are in step");
            server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
            assert!(matches!(next(&mut subscriber).await, Signal::Reconnected));
            subscriber.attach().await.expect("it attaches again");
        }
        server.command(&["SPUBLISH", &keys.inbox_of(ME), "to it"]);
        assert!(matches!(next(&mut subscriber).await, Signal::Inbox(_)));
        subscriber.listen(true).await.expect("it listens again");
        hears(&mut subscriber, &server, &format!("round {round}")).await;
    }
    for right in ["-punsubscribe", "-sunsubscribe"] {
        connection = connect(&user(&server, &["~*", ADMIN, "allchannels", right])).await;
        subscriber = attached(&connection).await;
        for _ in 0..2 {
            // fred drops a refusal that comes before it has noted that a PING was sent.
            if let Err(error) = subscriber.listen(false).await {
                assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
            }
            subscriber.ping().await.expect("answers are in step");
        }
        subscriber.listen(true).await.expect("it listens");
        hears(&mut subscriber, &server, "afterwards").await;
    }
}

/// Promise: a lost connection is told of, and after `attach` messages come again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_connection_is_told_of_and_heals() {
    let server = RedisServer::start();
    let connection = connect(&server.url()).await;
    let mut subscriber = attached(&connection).await;
    for round in 0..5 {
        server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        assert!(matches!(next(&mut subscriber).await, Signal::Reconnected));
        subscriber.attach().await.expect("it attaches again");
        hears(&mut subscriber, &server, &format!("round {round}")).await;
    }
    subscriber.reconnect().await.expect("a new connection");
    assert!(matches!(next(&mut subscriber).await, Signal::Reconnected));
    subscriber.attach().await.expect("it attaches again");
    hears(&mut subscriber, &server, "at last").await;
}

/// Promise: messages that were dropped here are told of, and the newest are still heard.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_is_told_that_it_lagged() {
    let server = RedisServer::start();
    let connection = connect(&server.url()).await;
    let mut subscriber = attached(&connection).await;
    let flood = "for i = 1, 9000 do redis.call('SPUBLISH', KEYS[1], i) end";
    server.command(&["EVAL", flood, "1", &keys().inbox_of(ME)]);
    subscriber.ping().await.expect("it answers: all that went before is in");
    assert!(matches!(next(&mut subscriber).await, Signal::Lagged));
    wait_for(&mut subscriber, |signal| {
        matches!(signal, Signal::Inbox(bytes) if &*bytes == b"9000").then_some(())
    })
    .await;
    hears(&mut subscriber, &server, "afterwards").await;
}

/// Promise: the end of a lock is heard, however it came; nothing else is taken for it.
#[tokio::test]
async fn the_end_of_a_lock_is_heard_and_nothing_else_is() {
    let server = RedisServer::start();
    let connection = connect(&server.url()).await;
    preflight(&connection, &keys(), true, TIMEOUT).await.expect("a good server");
    let mut subscriber = attached(&connection).await;
    // More than we ask for, by somebody else.
    server.command(&["CONFIG", "SET", "notify-keyspace-events", "Kgxe"]);
    let keys = keys();
    let lock = |number| keys.lock(WorkerId(number));

    // Not the end of a lock of ours, or no lock.
    server.command(&["SET", &lock(1), "x", "PX", "60000"]);
    server.command(&["PEXPIRE", &lock(1), "70000"]);
    server.command(&["PUBLISH", &format!("__keyspace@0__:{}abc", keys.lock_prefix), "expired"]);
    server.command(&["PUBLISH", &format!("__keyspace@0__:{}-1", keys.lock_prefix), "expired"]);
    server.command(&[
        "PUBLISH",
        &format!("__keyspace@0__:{}99999999999999999999", keys.lock_prefix),
        "expired",
    ]);
    server.command(&["PUBLISH", "__keyspace@0__:{assemblage:other}:lock:1", "expired"]);
    server.command(&["PUBLISH", &format!("__keyspace@0__:{}", lock(1)), "no such event"]);
    server.command(&["SET", "{assemblage:test}:locket:1", "x", "PX", "1"]);

    server.command(&["SET", &lock(2), "x", "PX", "1"]);
    tokio::time::sleep(Duration::from_millis(5)).await;
    server.command(&["EXISTS", &lock(2)]);
    assert!(matches!(next(&mut subscriber).await, Signal::LockEnded(WorkerId(2))), "expired");
    server.command(&["DEL", &lock(1)]);
    assert!(matches!(next(&mut subscriber).await, Signal::LockEnded(WorkerId(1))), "del");
    server.command(&["SET", &lock(3), "x"]);
    server.command(&["RENAME", &lock(3), "{assemblage:test}:elsewhere"]);
    assert!(matches!(next(&mut subscriber).await, Signal::LockEnded(WorkerId(3))), "rename");
    server.command(&["SET", &lock(4), "x"]);
    server.command(&["MOVE", &lock(4), "1"]);
    assert!(matches!(next(&mut subscriber).await, Signal::LockEnded(WorkerId(4))), "move");
    server.command(&["CONFIG", "SET", "maxmemory-policy", "volatile-lru"]);
    server.command(&["SET", &lock(5), "x", "PX", "60000"]);
    server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    server.command(&["SET", "any", "x"]);
    assert!(matches!(next(&mut subscriber).await, Signal::LockEnded(WorkerId(5))), "evicted");
}

/// Promise: without the right to keyspace events everything else works, in step, also behind a reconnection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn denied_keyspace_events_are_done_without() {
    let server = RedisServer::start();
    let url = user(&server, &["~*", ADMIN, "resetchannels", "&{assemblage:test}:*"]);
    let connection = connect(&url).await;
    let mut subscriber = attached(&connection).await;
    for round in 0..3 {
        hears(&mut subscriber, &server, &format!("round {round}")).await;
        subscriber.ping().await.expect("answers are in step");
        subscriber.attach().await.expect("it attaches again");
        server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        assert!(matches!(next(&mut subscriber).await, Signal::Reconnected));
        subscriber.attach().await.expect("it attaches again");
    }
    // The channels themselves are not done without.
    let url = user(&server, &["~*", ADMIN, "resetchannels", "&__keyspace@*"]);
    let connection = connect(&url).await;
    let subscriber = Subscriber::start(&connection, keys(), WORKER, TIMEOUT).await.expect("it starts");
    let error = subscriber.attach().await.expect_err("denied");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(!format!("{error:?}").contains("secret"));
}

/// Promise: a connection that is dead without a word is found out by `ping`, and replaced by `reconnect`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_server_is_found_out_by_ping() {
    let server = RedisServer::start();
    let connection = connect(&server.url()).await;
    let mut subscriber = Subscriber::start(&connection, keys(), WORKER, SHORT).await.expect("it starts");
    subscriber.attach().await.expect("it attaches");
    server.pause();
    let start = Instant::now();
    let error = subscriber.ping().await.expect_err("nobody answers");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    subscriber.attach().await.expect_err("nobody answers");
    let reconnect = subscriber.reconnect();
    reconnect.await.ok();
    server.resume();
    wait_for(&mut subscriber, |signal| matches!(signal, Signal::Reconnected).then_some(())).await;
    // A second reconnection may be under way.
    while subscriber.attach().await.is_err() {}
    hears(&mut subscriber, &server, "back").await;
    subscriber.ping().await.expect("it answers");
}

/// Promise: what the server announces already goes on, and what is needed is added.
#[tokio::test]
async fn notifications_are_turned_on_beside_what_is_set() {
    let server = RedisServer::start();
    let connection = connect(&server.url()).await;
    let flags = || server.command(&["CONFIG", "GET", "notify-keyspace-events"]).list()[1].text();
    for set in ["KEA", "", "Ex", "Elg$", "Kgxe", "Kxe", "A", "AE"] {
        server.command(&["CONFIG", "SET", "notify-keyspace-events", set]);
        let before = flags();
        let off = preflight(&connection, &keys(), false, TIMEOUT).await.expect("a good server");
        assert_eq!(flags(), before, "nothing is set where that is not allowed");
        let report = preflight(&connection, &keys(), true, TIMEOUT).await.expect("a good server");
        let after = flags();
        let has = |flag| after.contains(flag) || (after.contains('A') && flag != 'K');
        assert!("Kxe".chars().all(has), "{set:?} -> {after:?}");
        for flag in before.chars() {
            assert!(
                after.contains(flag) || (after.contains('A') && flag != 'E'),
                "{set:?} -> {after:?} lost {flag}"
            );
        }
        if before == after {
            assert!(matches!(report.notifications, Notifications::On { .. }), "{report}");
            assert!(off.warnings.is_empty(), "{off}");
        } else {
            assert!(matches!(report.notifications, Notifications::TurnedOn { .. }), "{report}");
            assert!(
                matches!(&off.notifications, Notifications::Off { reason } if reason.contains("set it to")),
                "{off}"
            );
            assert_eq!(off.warnings.len(), 1, "{off}");
        }
        assert!(report.warnings.is_empty(), "{report}");
    }
}

/// Promise: where CONFIG is not there (as managed servers have it), a trial tells whether events come.
#[tokio::test]
async fn without_config_a_trial_tells_whether_events_come() {
    for (flags, proven) in [("Kgxe", true), ("Kx", true), ("", false), ("Ex", false)] {
        let server = RedisServer::with(&[
            "--notify-keyspace-events",
            flags,
            "--rename-command",
            "CONFIG",
            "",
            "--maxmemory-policy",
            "volatile-lru",
        ]);
        let connection = connect(&server.url()).await;
        let report = preflight(&connection, &keys(), true, TIMEOUT).await.expect("a good server");
        assert_eq!(report.notifications == Notifications::Proven, proven, "{flags:?}: {report}");
        assert_eq!(report.eviction_policy.as_deref(), Some("volatile-lru"), "INFO tells it");
        assert_eq!(report.warnings.len(), if proven { 1 } else { 2 }, "{report}");
        assert!(report.to_string().contains("volatile-lru"), "{report}");
    }
    let server = RedisServer::with(&["--notify-keyspace-events", "Kgxe"]);
    for (rights, proven) in
        [(&["~*", "&*", ADMIN, "-config"][..], true), (&["~*", ADMIN, "-config", "resetchannels"], false)]
    {
        let connection = connect(&user(&server, rights)).await;
        let report = preflight(&connection, &keys(), true, TIMEOUT).await;
        match report {
            Ok(report) => assert_eq!(report.notifications == Notifications::Proven, proven, "{report}"),
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// Promise: a server that may evict locks is told of on connecting.
#[tokio::test]
async fn an_eviction_policy_that_takes_locks_is_warned_of() {
    let server = RedisServer::start();
    let connection = connect(&server.url()).await;
    for (policy, warned) in
        [("noeviction", None), ("volatile-ttl", Some("locks")), ("allkeys-lru", Some("jobs"))]
    {
        server.command(&["CONFIG", "SET", "maxmemory-policy", policy]);
        let report = preflight(&connection, &keys(), true, TIMEOUT).await.expect("a good server");
        assert_eq!(report.eviction_policy.as_deref(), Some(policy));
        match warned {
            Some(word) => assert!(report.warnings.iter().any(|text| text.contains(word)), "{report}"),
            None => assert!(report.warnings.is_empty(), "{report}"),
        }
        assert_eq!(report.run_id.len(), 40);
        assert!(!report.cluster_mode);
    }
}

/// Two nodes of a cluster, each with half of the slots.
async fn two_nodes() -> [RedisServer; 2] {
    let nodes = [(); 2].map(|()| RedisServer::with(&["--cluster-enabled", "yes"]));
    for (node, slots) in nodes.iter().zip([["0", "8191"], ["8192", "16383"]]) {
        assert_eq!(node.command(&["CLUSTER", "ADDSLOTSRANGE", slots[0], slots[1]]).text(), "OK");
    }
    nodes[0].command(&["CLUSTER", "SET-CONFIG-EPOCH", "1"]);
    nodes[1].command(&["CLUSTER", "SET-CONFIG-EPOCH", "2"]);
    nodes[0].command(&["CLUSTER", "MEET", "127.0.0.1", &nodes[1].port().to_string()]);
    until("the nodes know each other", || {
        nodes.iter().all(|node| {
            let info = node.command(&["CLUSTER", "INFO"]).text();
            info.contains("cluster_state:ok")
                && info.contains("cluster_known_nodes:2")
                && info.contains("cluster_slots_ok:16384")
        })
    })
    .await;
    nodes
}

/// Promise: in a cluster everything goes to the node that has the keys, and follows them to another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_the_subscription_is_where_the_keys_are_and_follows_them() {
    let nodes = two_nodes().await;
    let slot = fred::util::redis_keyslot(keys().control.as_bytes());
    let (owner, other) = if slot < 8192 { (&nodes[0], &nodes[1]) } else { (&nodes[1], &nodes[0]) };
    let connection = connect(&format!("redis-cluster://127.0.0.1:{}", other.port())).await;
    let report = preflight(&connection, &keys(), true, TIMEOUT).await.expect("a good server");
    assert!(report.cluster_mode && report.warnings.is_empty(), "{report}");
    let run = |node: &RedisServer| {
        let info = node.command(&["INFO", "server"]).text();
        info.lines().find_map(|line| line.strip_prefix("run_id:")).expect("a run id").trim().to_owned()
    };
    for _ in 0..8 {
        assert_eq!(run_id(connection.commands.client(), &keys(), TIMEOUT).await.expect("one"), run(owner));
    }
    for node in &nodes {
        let flags = node.command(&["CONFIG", "GET", "notify-keyspace-events"]).list()[1].text();
        assert!("Kxe".chars().all(|flag| flags.contains(flag)), "each node announces: {flags:?}");
    }
    let mut subscriber = attached(&connection).await;
    hears(&mut subscriber, owner, "here").await;
    end_lock(|words| drop(owner.command(words))).await;
    assert!(matches!(next(&mut subscriber).await, Signal::LockEnded(ME)));

    // The slot, which is empty, goes to the other node. No event tells of it.
    let id = other.command(&["CLUSTER", "MYID"]).text();
    for node in [other, owner] {
        assert_eq!(node.command(&["CLUSTER", "SETSLOT", &slot.to_string(), "NODE", &id]).text(), "OK");
    }
    subscriber.attach().await.expect("it attaches again");
    hears(&mut subscriber, other, "there").await;
    end_lock(|words| drop(other.command(words))).await;
    wait_for(&mut subscriber, |signal| matches!(signal, Signal::LockEnded(ME)).then_some(())).await;

    // A client of one node alone works while that node has the keys, and is warned.
    let alone = connect(&other.url()).await;
    let report = preflight(&alone, &keys(), true, TIMEOUT).await.expect("a good server");
    assert!(report.warnings.iter().any(|text| text.contains("redis-cluster://")), "{report}");
    drop((subscriber, connection, alone));
    until("none is left", || nodes.iter().all(|node| clients(node).is_empty())).await;
}

/// A policy of the application's that gives up must not end our subscription.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_gives_up_soon_does_not_end_the_subscription() {
    let mut server = RedisServer::start();
    let client = application(&server);
    let mut builder = Builder::from_config(client.client_config());
    builder.set_policy(ReconnectPolicy::new_constant(1, 1));
    let client = builder.build().expect("a client");
    client.init().await.expect("it connects");
    let connection = Connection::embedded(Commands::Client(client));
    let mut subscriber = attached(&connection).await;
    server.kill();
    tokio::time::sleep(Duration::from_millis(300)).await; // many of its attempts
    server.start_again();
    wait_for(&mut subscriber, |signal| matches!(signal, Signal::Reconnected).then_some(())).await;
    subscriber.attach().await.expect("it attaches again");
    hears(&mut subscriber, &server, "back").await;
}

/// What a script fails with.
async fn store_error(connection: &Connection) -> Error {
    let store = Store::new(connection.commands.clone(), keys(), TIMEOUT);
    store.survey().await.map(drop).expect_err("nobody answers")
}

/// Promise: an application that has quit its client is told so at once, not by a timeout; one that started it again goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_its_application_has_quit_is_told_of_at_once() {
    let server = RedisServer::start();
    let client = application(&server);
    client.init().await.expect("it connects");
    let connection = Connection::embedded(Commands::Client(client.clone()));
    let report = preflight(&connection, &keys(), true, TIMEOUT).await.expect("a good server");
    let store = Store::new(connection.commands.clone(), keys(), TIMEOUT);
    store.open(&report.run_id).await.expect("it opens");
    client.quit().await.expect("it quits");
    let start = Instant::now();
    let error = store.survey().await.map(drop).expect_err("nobody answers");
    assert!(start.elapsed() < TIMEOUT, "{:?}", start.elapsed());
    assert_eq!(error.kind(), ErrorKind::Connection, "{error}");
    assert!(error.to_string().contains("was quit; nothing was sent"), "{error}");
    client.init().await.expect("it connects again");
    store.survey().await.map(drop).expect("it goes on");
}

/// Promise: what is asked for when the runtime of the connection is gone fails as what it is, and at once.
#[test]
fn a_connection_whose_runtime_has_ended_is_closed() {
    let server = RedisServer::start();
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let first = runtime().expect("a runtime");
    let connection = first.block_on(connect(&server.url()));
    first.shutdown_timeout(PATIENCE);
    let second = runtime().expect("a runtime");
    let start = Instant::now();
    let error = second.block_on(store_error(&connection));
    assert!(start.elapsed() < TIMEOUT, "{:?}", start.elapsed());
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    assert!(error.to_string().contains("nothing was sent"), "{error}");
    drop(second);
}

/// Promise: the form of the URL, or the address, is told of where another one is meant.
#[tokio::test]
async fn a_url_of_another_kind_of_server_is_told_of() {
    let server = RedisServer::start();
    let url = format!("redis-cluster://127.0.0.1:{}", server.port());
    let error = Connection::connect_url(&url, None, None, TIMEOUT).await.expect_err("it is no cluster");
    assert_eq!(error.kind(), ErrorKind::InvalidSetting, "{error}");
    assert!(error.to_string().contains("use redis://"), "{error}");

    let url = format!("redis-sentinel://127.0.0.1:{}?sentinelServiceName=mymaster", server.port());
    let error = Connection::connect_url(&url, None, None, TIMEOUT).await.expect_err("it is no sentinel");
    assert!(error.to_string().contains("sentinel"), "{error}");

    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten().take(1) {
            let mut stream = stream;
            let _ = stream.read(&mut [0; 512]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
        }
    });
    let error = Connection::connect_url(&format!("redis://{address}"), None, None, TIMEOUT)
        .await
        .expect_err("it is no Redis");
    assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
    assert!(error.to_string().contains("check the address"), "{error}");
}

/// Promise: errors of the system are told in words.
#[tokio::test]
async fn a_host_that_does_not_exist_is_told_of_in_words() {
    let error = Connection::connect_url("redis://no-such-host.invalid", None, None, TIMEOUT)
        .await
        .expect_err("there is no such host");
    assert_eq!(error.kind(), ErrorKind::Connection, "{error}");
    let text = error.to_string();
    assert!(!["{", "\"", "Custom", ".;"].iter().any(|word| text.contains(word)), "{text}");
}

/// Promise: where a right is missing, the warning names it, and blames no setting of the server.
#[tokio::test]
async fn a_denied_pattern_or_channel_is_told_of_by_its_name() {
    let server = RedisServer::start();
    for (rights, named) in [
        (
            &["~*", "+@all", "-config", "resetchannels", "&{assemblage:test}:*"][..],
            "__keyspace@0__:{assemblage:test}",
        ),
        (
            &["~*", "+@all", "-config", "-ssubscribe", "allchannels"],
            "subscribing to {assemblage:test}:released",
        ),
    ] {
        let connection = connect(&user(&server, rights)).await;
        let report = preflight(&connection, &keys(), true, TIMEOUT).await.expect("it goes on");
        let text = report.to_string();
        assert!(text.contains(named) && text.contains("NOPERM"), "{text}");
        assert!(!text.contains("notify-keyspace-events"), "{text}");
        assert_eq!(text.matches("NOPERM").count(), 1, "the reason is said once: {text}");
    }
}
