//! What is shown: a line while it runs, and a histogram at the end.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;

use crate::measure::{Board, Load, Outcome};

const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];
const BARS: u64 = 40;

/// The line, drawn anew a few times a second until it is stopped.
pub(crate) struct Live {
    bar: ProgressBar,
    task: JoinHandle<()>,
}

impl Live {
    pub(crate) fn start(board: &Arc<Board>, load: &Load) -> Self {
        let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}").expect("a template");
        let bar = ProgressBar::new_spinner().with_style(style);
        let (line, board, watchers) = (bar.clone(), board.clone(), load.watchers);
        let task = tokio::spawn(async move {
            let (mut before, mut at) = (0, Instant::now());
            loop {
                tokio::time::sleep(Duration::from_millis(250)).await;
                let heard = board.heard.load(Ordering::Relaxed);
                let rate = (heard - before) as f64 / at.elapsed().as_secs_f64();
                (before, at) = (heard, Instant::now());
                let times = board.times.lock().unwrap_or_else(PoisonError::into_inner);
                let quantiles = quantiles(&times);
                drop(times);
                line.set_message(format!(
                    "{watchers} watchers are told {rate:.0} changes a second; {quantiles}"
                ));
                line.tick();
            }
        });
        Self { bar, task }
    }

    pub(crate) fn stop(self) {
        self.task.abort();
        self.bar.finish_and_clear();
    }
}

fn ms(us: u64) -> String {
    format!("{:.2} ms", us as f64 / 1_000.0)
}

fn quantiles(times: &Histogram<u64>) -> String {
    let shown = QUANTILES.map(|(name, quantile)| format!("{name} {}", ms(times.value_at_quantile(quantile))));
    shown.join(", ")
}

pub(crate) fn print(load: &Load, outcome: &Outcome) {
    let Outcome { times, changes, took, missing, resets } = outcome;
    let rate = *changes as f64 / took.as_secs_f64();
    let Load { watchers, payload, .. } = load;
    println!(
        "{changes} changes with {payload} bytes of payload, {rate:.0} a second, to {watchers} watchers:"
    );
    println!("{} times from the call to the watcher, {missing} missing, {resets} resets\n", times.len());
    let rows: Vec<_> = buckets(times).collect();
    let most = rows.iter().map(|(_, count)| *count).max().unwrap_or(1).max(1);
    for (to, count) in rows {
        let bar = "#".repeat(usize::try_from((count * BARS).div_ceil(most)).unwrap_or(0));
        println!("{:>12}  {bar:<40}  {count}", format!("< {}", ms(to)));
    }
    println!("\n{}", quantiles(times));
}

/// How many times there are below each power of two, in microseconds.
fn buckets(times: &Histogram<u64>) -> impl Iterator<Item = (u64, u64)> {
    let (low, high) = (times.min().max(1).ilog2(), times.max().max(1).ilog2());
    (low..=high).map(|power| (1 << (power + 1), times.count_between(1 << power, (1 << (power + 1)) - 1)))
}
