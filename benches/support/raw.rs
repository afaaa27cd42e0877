//! A plain socket that speaks RESP2, and as little of it as the floors need: nothing is kept of what is read.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::server::RedisServer;

/// How long an answer may take before the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Raw {
    input: BufReader<TcpStream>,
    line: Vec<u8>,
}

impl Raw {
    pub(crate) fn connect(server: &RedisServer) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", server.port())).expect("the server takes connections");
        stream.set_nodelay(true).expect("a TCP socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a TCP socket");
        Self { input: BufReader::with_capacity(1 << 16, stream), line: Vec::new() }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.input.get_mut().write_all(bytes).expect("sent");
    }

    /// Reads past one reply or message, which must not be an error.
    pub(crate) fn skip(&mut self) {
        self.line.clear();
        self.input.read_until(b'\n', &mut self.line).expect("a reply");
        let text = std::str::from_utf8(&self.line).unwrap_or_default().trim_end();
        let number = || text.get(1..).and_then(|text| text.parse::<i64>().ok()).unwrap_or(-1);
        match text.bytes().next() {
            Some(b'$') if number() >= 0 => {
                let mut left = number().unsigned_abs() + 2;
                while left > 0 {
                    let there = self.input.fill_buf().expect("a reply").len();
                    let taken = there.min(usize::try_from(left).unwrap_or(usize::MAX));
                    assert!(taken > 0, "the connection ended");
                    self.input.consume(taken);
                    left -= taken as u64;
                }
            }
            Some(b'*' | b'>') => (0..number()).for_each(|_| self.skip()),
            Some(b'+' | b':' | b'$') => {}
            _ => panic!("not a reply that was expected: {text}"),
        }
    }

    /// One command, and its reply.
    pub(crate) fn run(&mut self, command: &[u8]) {
        self.send(command);
        self.skip();
    }

    /// Sends all commands, so many at most without an answer to the first of them, and reads all answers, which must be
    /// numbers.
    pub(crate) fn pump(&mut self, commands: &[Vec<u8>], window: usize) {
        let (mut sent, mut answered) = (0, 0);
        let (mut out, mut chunk) = (Vec::new(), vec![0; 1 << 16]);
        let stream = self.input.get_mut();
        while answered < commands.len() {
            let until = commands.len().min(answered + window);
            if sent < until {
                out.clear();
                commands[sent..until].iter().for_each(|command| out.extend_from_slice(command));
                stream.write_all(&out).expect("sent");
                sent = until;
            }
            let length = stream.read(&mut chunk).expect("replies");
            assert!(length > 0 && !chunk[..length].contains(&b'-'), "all succeed");
            answered += chunk[..length].iter().filter(|byte| **byte == b'\n').count();
        }
    }

    pub(crate) fn into_stream(self) -> TcpStream {
        self.input.into_inner()
    }
}
