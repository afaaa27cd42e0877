//! What is going on, and what it takes.

use std::time::Duration;

use super::child::Child;
use super::server::RedisServer;

/// Looks once a second.
pub(crate) struct Meter {
    seconds: u64,
    next: Duration,
    looks: Vec<Look>,
}

#[derive(Clone, Copy)]
struct Look {
    /// Of all processes of workers that live, in MiB.
    workers: u64,
    /// What the server has allocated, and what it has of the machine's memory.
    used: u64,
    resident: u64,
}

impl Meter {
    pub(crate) fn new(seconds: u64) -> Self {
        Self { seconds, next: Duration::from_secs(1), looks: Vec::new() }
    }

    pub(crate) fn show(
        &mut self,
        passed: Duration,
        server: &RedisServer,
        children: &[Child],
        slowest: &mut Duration,
    ) {
        if passed < self.next {
            return;
        }
        self.next += Duration::from_secs(1);
        let info = server.command(&["INFO", "memory"]).text();
        let field = |name: &str| {
            let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.and_then(|value| value.trim().parse::<u64>().ok()).unwrap_or(0) >> 20
        };
        let living = children.iter().filter(|child| child.killed.is_none());
        let workers = living.map(Child::memory).sum::<u64>() >> 20;
        let look = Look { workers, used: field("used_memory"), resident: field("used_memory_rss") };
        self.looks.push(look);
        if passed.as_secs().is_multiple_of(5) || self.seconds < 10 {
            println!(
                "load: {} of {} s, {} jobs held, workers {} MiB, server {} MiB ({} resident), slowest call {:.0} ms",
                passed.as_secs(),
                self.seconds,
                children.iter().map(Child::held).sum::<usize>(),
                look.workers,
                look.used,
                look.resident,
                slowest.as_secs_f64() * 1e3,
            );
            *slowest = Duration::ZERO;
        }
    }

    /// The first look of each quarter, and the last.
    pub(crate) fn memory(&self) -> String {
        let quarter = (self.looks.len() / 4).max(1);
        let mut looks: Vec<&Look> = self.looks.iter().step_by(quarter).take(4).collect();
        looks.extend(self.looks.last());
        let line = |of: fn(&Look) -> u64| {
            looks.iter().map(|look| of(look).to_string()).collect::<Vec<_>>().join(", ")
        };
        format!(
            "memory in MiB, by quarters: workers {}; server {}, of that resident {}",
            line(|look| look.workers),
            line(|look| look.used),
            line(|look| look.resident)
        )
    }
}
