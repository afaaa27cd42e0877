//! What is going on: a bar on a terminal, a line every few seconds elsewhere.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    seconds: u64,
    next: Duration,
    what: &'static str,
}

const EVERY: Duration = Duration::from_secs(5);

impl Progress {
    pub(crate) fn new(seconds: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(seconds);
            bar.set_style(
                ProgressStyle::with_template("{wide_bar} {pos}/{len} s {msg}").expect("a template"),
            );
            bar
        });
        Self { bar, seconds, next: EVERY, what: "soak" }
    }

    pub(crate) fn healing(seconds: u64) -> Self {
        Self { bar: None, seconds, next: EVERY, what: "healing" }
    }

    pub(crate) fn show(&mut self, passed: Duration, operations: usize, faults: usize) {
        let message = format!("{operations} operations, {faults} faults");
        if let Some(bar) = &self.bar {
            bar.set_position(passed.as_secs().min(self.seconds));
            bar.set_message(message);
        } else if passed >= self.next {
            self.next += EVERY;
            println!("{}: {} of {} s, {message}", self.what, passed.as_secs(), self.seconds);
        }
    }

    pub(crate) fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
