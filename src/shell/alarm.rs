//! A timer that is kept: to set one up for each message costs more than the message.

use std::pin::Pin;
use std::time::Instant;

use tokio::time::{Sleep, sleep_until};

pub(crate) struct Alarm(Pin<Box<Sleep>>);

impl Alarm {
    pub(crate) fn new() -> Self {
        Self(Box::pin(sleep_until(Instant::now().into())))
    }

    /// Waits until then. Nothing is lost if the future is dropped.
    pub(crate) async fn wait_until(&mut self, at: Instant) {
        if self.0.deadline() != at.into() {
            self.0.as_mut().reset(at.into());
        }
        self.0.as_mut().await;
    }
}
