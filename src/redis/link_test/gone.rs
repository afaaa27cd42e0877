//! What is told of a server, or a connection, that is gone.

use super::*;

/// Promise: of a server that is gone, what is told is that it is gone, and not only that it does not answer.
#[tokio::test]
async fn what_a_server_that_is_gone_does_not_answer_says_that_the_connection_is_refused() {
    let mut server = RedisServer::start();
    let connection = connect(&server.url()).await;
    let store = Store::new(connection.commands.clone(), keys(), SHORT);
    server.pause();
    let error = store.survey().await.map(drop).expect_err("nobody answers");
    assert!(error.kind() == ErrorKind::Timeout && !error.to_string().contains("down"), "{error}");
    server.kill();
    let start = Instant::now();
    loop {
        let error = store.survey().await.map(drop).expect_err("nobody is there");
        assert_eq!(error.kind(), ErrorKind::Timeout, "it is not known what was sent: {error}");
        let text = error.to_string();
        if text.contains("in time: the connection is down (Connection refused); it may") {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{text}");
    }
    server.start_again();
    while let Err(error) = store.survey().await {
        assert!(start.elapsed() < PATIENCE, "it does not come back: {error}");
    }
    server.pause();
    let error = store.survey().await.map(drop).expect_err("nobody answers");
    server.resume();
    assert!(!error.to_string().contains("down"), "that is over: {error}");
}

/// Promise: what was on its way when the runtime of its connection ended may have been done, and that is said. It is no answer of the server's.
#[test]
fn what_was_asked_for_when_the_runtime_of_the_connection_ended_may_have_been_done() {
    let server = RedisServer::start();
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let (first, second) = (runtime().expect("a runtime"), runtime().expect("a runtime"));
    let connection = first.block_on(connect(&server.url()));
    server.command(&["CLIENT", "PAUSE", "60000", "WRITE"]); // scripts are among it
    let asked = second.spawn(async move { store_error(&connection).await });
    let is_waiting = || clients(&server).iter().any(|line| line.contains("cmd=eval"));
    second.block_on(until("the server has it", is_waiting));
    first.shutdown_timeout(PATIENCE);
    let error = second.block_on(asked).expect("an answer");
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    assert!(error.to_string().contains("may have been done"), "{error}");
}
