//! The proxy of the tests does what it is told.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::RedisServer;
use crate::support::proxy::Proxy;

fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.url().trim_start_matches("redis://")).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_millis(300))).expect("can be set");
    stream
}

/// Whether a PING was answered; an error if it was not within the stream's patience, or never will be.
fn ping(mut stream: &TcpStream) -> std::io::Result<()> {
    stream.write_all(b"PING\r\n")?;
    let mut answer = [0; 7];
    stream.read_exact(&mut answer)?;
    assert_eq!(&answer, b"+PONG\r\n");
    Ok(())
}

#[test]
fn the_proxy_does_what_it_is_told() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port());
    let first = connect(&proxy);
    ping(&first).expect("passed on");

    proxy.delay(Duration::from_millis(50));
    let start = Instant::now();
    ping(&first).expect("passed on, later");
    assert!(start.elapsed() >= Duration::from_millis(100), "delayed both ways");

    proxy.pass();
    ping(&first).expect("a delayed connection has lost nothing");
    proxy.black_hole();
    assert!(matches!(ping(&first).unwrap_err().kind(), std::io::ErrorKind::WouldBlock), "no answer");
    let second = connect(&proxy);
    assert!(matches!(ping(&second).unwrap_err().kind(), std::io::ErrorKind::WouldBlock), "no answer");
    proxy.pass();
    assert!(ping(&first).is_err(), "what has lost bytes is over");
    let third = connect(&proxy);
    ping(&third).expect("a new one is good");

    proxy.close_connections();
    assert!(ping(&third).is_err());
    let fourth = connect(&proxy);
    ping(&fourth).expect("a new one is good");

    proxy.cut();
    assert!(ping(&fourth).is_err());
    assert!(ping(&connect(&proxy)).is_err(), "a new one is closed");
    proxy.pass();
    ping(&connect(&proxy)).expect("all is well again");
}

#[test]
fn every_other_connection_can_be_treated_apart() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port());
    let (even, odd) = (connect(&proxy), connect(&proxy));
    ping(&even).expect("passed on");
    ping(&odd).expect("passed on");

    proxy.delay_every_other(Duration::from_millis(50), true);
    let start = Instant::now();
    ping(&odd).expect("passed on, later");
    assert!(start.elapsed() >= Duration::from_millis(100), "delayed both ways");

    proxy.black_hole_every_other(false);
    assert!(matches!(ping(&even).unwrap_err().kind(), std::io::ErrorKind::WouldBlock), "no answer");
    ping(&odd).expect("passed on");
    proxy.pass();
    assert!(ping(&even).is_err(), "what has lost bytes is over");
    ping(&odd).expect("this one has lost nothing");
}

#[test]
fn answers_alone_can_be_lost() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port());
    let mut connection = connect(&proxy);
    proxy.swallow_answers();
    connection.write_all(b"SET done 1\r\n").expect("taken");
    assert!(matches!(ping(&connection).unwrap_err().kind(), std::io::ErrorKind::WouldBlock), "no answer");
    assert_eq!(server.command(&["GET", "done"]).text(), "1", "it was done all the same");
    proxy.pass();
    assert!(ping(&connection).is_err(), "what has lost bytes is over");
}
