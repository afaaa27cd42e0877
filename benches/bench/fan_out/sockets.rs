//! Plain sockets with a subscription: they count the bytes that come, and so the messages.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::gate::Gate;
use crate::support::server::{RedisServer, Reply, encode};

pub(crate) struct Sockets;

impl Sockets {
    /// So many, each with a task of its own, subscribed to a channel on which every message is `length` bytes long.
    pub(crate) async fn start(
        server: &RedisServer,
        count: usize,
        channel: &str,
        length: usize,
        gate: &Arc<Gate>,
    ) {
        let on_the_wire = push(channel, length).len();
        for _ in 0..count {
            let mut socket = connect(server).await;
            socket.write_all(&encode(&[b"SSUBSCRIBE", channel.as_bytes()])).await.expect("sent");
            let confirmation =
                format!("*3\r\n$10\r\nssubscribe\r\n${}\r\n{channel}\r\n:1\r\n", channel.len());
            let mut answer = vec![0; confirmation.len()];
            socket.read_exact(&mut answer).await.expect("an answer");
            assert_eq!(answer, confirmation.as_bytes());
            let gate = gate.clone();
            tokio::spawn(async move {
                let (mut buffer, mut came) = (vec![0; 16 * 1024], 0);
                while let Ok(bytes @ 1..) = socket.read(&mut buffer).await {
                    came += bytes;
                    if came >= on_the_wire {
                        gate.pass(came / on_the_wire);
                        came %= on_the_wire;
                    }
                }
            });
        }
    }
}

/// What publishes, over a socket of its own.
pub(crate) struct Publisher {
    socket: TcpStream,
    message: Vec<u8>,
}

impl Publisher {
    pub(crate) async fn new(server: &RedisServer, channel: &str, length: usize) -> Self {
        Self {
            socket: connect(server).await,
            message: encode(&[b"SPUBLISH", channel.as_bytes(), &vec![b'x'; length]]),
        }
    }

    /// So many in one go; returns when the server has answered.
    pub(crate) async fn publish(&mut self, count: usize) {
        let (mut read, mut write) = self.socket.split();
        let send = async { write.write_all(&self.message.repeat(count)).await.expect("sent") };
        let answers = async {
            let (mut left, mut buffer) = (count, vec![0; 16 * 1024]);
            while left > 0 {
                let bytes = read.read(&mut buffer).await.expect("answers");
                assert!(bytes > 0, "the server is gone");
                left -= buffer[..bytes].iter().filter(|byte| **byte == b'\n').count();
            }
        };
        tokio::join!(send, answers);
    }
}

/// How long a published message is.
pub(crate) fn length_of(message: &Reply) -> usize {
    match &message.list()[2] {
        Reply::Bulk(payload) => payload.len(),
        other => panic!("no message: {other:?}"),
    }
}

async fn connect(server: &RedisServer) -> TcpStream {
    let socket = TcpStream::connect(("127.0.0.1", server.port())).await.expect("connects");
    socket.set_nodelay(true).expect("a TCP socket");
    socket
}

/// As a message comes.
fn push(channel: &str, length: usize) -> Vec<u8> {
    encode(&[b"smessage", channel.as_bytes(), &vec![b'x'; length]])
}
