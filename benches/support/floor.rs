//! The floor: what a bare `PUBLISH` takes to a bare `SUBSCRIBE` on the same server, over plain sockets, with nothing of
//! the crate in between. No push through this server can be faster.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use super::clock::monotonic_us;
use super::server::{Connection, RedisServer};

/// As long as an `add` frame with a small payload.
const MESSAGE: [u8; 100] = [b'x'; 100];

/// From the writing of the first `PUBLISH` to the reading of the first and of the last message, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passage {
    pub(crate) first: i64,
    pub(crate) last: i64,
}

pub(crate) struct Floor {
    publisher: Connection,
    orders: Option<Sender<usize>>,
    arrivals: Receiver<(i64, i64)>,
    subscriber: Option<JoinHandle<()>>,
}

impl Floor {
    pub(crate) fn new(server: &RedisServer) -> Self {
        let mut subscription = server.connect();
        subscription.command(&["SUBSCRIBE", "floor"]);
        let (orders, ordered) = channel::<usize>();
        let (arrived, arrivals) = channel();
        let subscriber = std::thread::spawn(move || {
            for count in ordered {
                let times = (0..count).map(|_| {
                    let message = subscription.read();
                    assert_eq!(message.list().len(), 3, "a message: {message:?}");
                    monotonic_us()
                });
                let (first, last) = times.fold((i64::MAX, 0), |(first, _), at| (first.min(at), at));
                if arrived.send((first, last)).is_err() {
                    return;
                }
            }
        });
        Self { publisher: server.connect(), orders: Some(orders), arrivals, subscriber: Some(subscriber) }
    }

    /// Publishes so many messages in one go, without waiting for an answer in between.
    pub(crate) fn measure(&mut self, count: usize) -> Passage {
        self.orders.as_ref().expect("open").send(count).expect("the subscriber is there");
        let sent = monotonic_us();
        for _ in 0..count {
            self.publisher.send(&[b"PUBLISH", b"floor", &MESSAGE]);
        }
        let (first, last) = self.arrivals.recv().expect("all arrive");
        for _ in 0..count {
            self.publisher.read();
        }
        Passage { first: first - sent, last: last - sent }
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        self.orders.take();
        let _ = self.subscriber.take().map(JoinHandle::join);
    }
}
