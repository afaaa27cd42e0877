//! The floors: what bare sockets take on the same server, with nothing of the crate and no client library in between.

use std::net::Shutdown;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use super::clock::monotonic_us;
use super::raw::Raw;
use super::server::{RedisServer, encode};

/// What the floors carry: as long as [`PAYLOAD`] is in MessagePack.
pub(crate) const MESSAGE: [u8; 100] = [b'x'; 100];

/// What the benchmarks add.
pub(crate) const PAYLOAD: &str =
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";

/// The least that an add does: a write and a push in one.
pub(crate) const WRITE_AND_PUSH: &str =
    "redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) redis.call('PUBLISH', ARGV[3], ARGV[2]) return 1";

/// What an add of most such systems does: looks, writes, indexes twice, counts, and pushes.
pub(crate) const BARE_ADD: &str = "if redis.call('EXISTS', KEYS[5] .. ARGV[1]) == 1 then return 0 end \
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1]) \
    redis.call('SADD', KEYS[3], ARGV[1]) redis.call('INCR', KEYS[4]) redis.call('PUBLISH', ARGV[4], ARGV[2]) return 1";

/// A `PUBLISH` of the message.
pub(crate) fn publish(channel: &str) -> Vec<u8> {
    encode(&[b"PUBLISH", channel.as_bytes(), &MESSAGE])
}

/// A call of [`WRITE_AND_PUSH`].
pub(crate) fn write_and_push(sha: &str, field: &str, channel: &str) -> Vec<u8> {
    let words = ["EVALSHA", sha, "1", "floor", field].map(str::as_bytes);
    encode(&[&words[..], &[&MESSAGE, channel.as_bytes()]].concat())
}

/// Loads a script.
pub(crate) fn load(server: &RedisServer, text: &str) -> String {
    server.command(&["SCRIPT", "LOAD", text]).text()
}

/// A job id as the crate makes them: 36 characters.
pub(crate) fn id(number: usize) -> String {
    format!("0199a7b2-7c1d-7e3f-9b3c-{number:012}")
}

/// From the writing of the first `PUBLISH` to the reading of the first and of the last message, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passage {
    pub(crate) first: i64,
    pub(crate) last: i64,
}

/// A subscriber, and a publisher that sends to it.
pub(crate) struct Floor {
    pub(crate) publisher: Raw,
    orders: Option<Sender<usize>>,
    arrivals: Receiver<(i64, i64)>,
    subscriber: Option<JoinHandle<()>>,
}

impl Floor {
    /// Subscribed to `floor`.
    pub(crate) fn new(server: &RedisServer) -> Self {
        let mut subscription = Raw::connect(server);
        subscription.run(&encode(&[b"SUBSCRIBE", b"floor"]));
        let (orders, ordered) = channel::<usize>();
        let (arrived, arrivals) = channel();
        let subscriber = std::thread::spawn(move || {
            for count in ordered {
                let times = (0..count).map(|_| {
                    subscription.skip();
                    monotonic_us()
                });
                let (first, last) = times.fold((i64::MAX, 0), |(first, _), at| (first.min(at), at));
                if arrived.send((first, last)).is_err() {
                    return;
                }
            }
        });
        Self { publisher: Raw::connect(server), orders: Some(orders), arrivals, subscriber: Some(subscriber) }
    }

    /// Sends this so often in one go, each of which publishes one message, without waiting for an answer in between.
    pub(crate) fn measure(&mut self, command: &[u8], count: usize) -> Passage {
        self.orders.as_ref().expect("open").send(count).expect("the subscriber is there");
        let all = command.repeat(count);
        let sent = monotonic_us();
        self.publisher.send(&all);
        let (first, last) = self.arrivals.recv().expect("all arrive");
        (0..count).for_each(|_| self.publisher.skip());
        Passage { first: first - sent, last: last - sent }
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        self.orders.take();
        let _ = self.subscriber.take().map(JoinHandle::join);
    }
}

/// A subscriber that throws away what comes, so that a `PUBLISH` costs the server what it does with one.
pub(crate) struct Sink {
    stream: std::net::TcpStream,
    thread: Option<JoinHandle<()>>,
}

impl Sink {
    /// `command` is `SUBSCRIBE` or `SSUBSCRIBE`.
    pub(crate) fn new(server: &RedisServer, command: &str, channels: &[String]) -> Self {
        let mut raw = Raw::connect(server);
        for channel in channels {
            raw.run(&encode(&[command.as_bytes(), channel.as_bytes()]));
        }
        let stream = raw.into_stream();
        let mut input = stream.try_clone().expect("a socket");
        input.set_read_timeout(None).expect("a socket");
        let thread = std::thread::spawn(move || {
            let _ = std::io::copy(&mut input, &mut std::io::sink());
        });
        Self { stream, thread: Some(thread) }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
