//! What was measured, for people.

use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};

use super::server::RedisServer;

/// Times in microseconds, kept to three digits.
#[derive(Debug)]
pub(crate) struct Times(Histogram<u64>);

impl Times {
    pub(crate) fn new() -> Self {
        Self(Histogram::new(3).expect("three digits"))
    }

    pub(crate) fn record(&mut self, us: i64) {
        self.0.record(u64::try_from(us).unwrap_or(0)).expect("it grows");
    }

    /// p50, p99 and max in milliseconds. Of fewer than 100 times, p99 is the largest.
    fn cells(&self) -> [String; 3] {
        [self.0.value_at_quantile(0.5), self.0.value_at_quantile(0.99), self.0.max()]
            .map(|us| format!("{:.2}", us as f64 / 1_000.0))
    }
}

/// A table of times, with columns of text on the left.
pub(crate) struct Report(Table);

impl Report {
    pub(crate) fn new(labels: &[&str], times: &[&str]) -> Self {
        let mut table = Table::new();
        table.load_style(UTF8_BORDERS_ONLY);
        let labelled = labels.iter().map(|label| (*label).to_owned());
        let timed =
            times.iter().flat_map(|what| [format!("{what}\np50"), "\np99".to_owned(), "\nmax".to_owned()]);
        table.set_header(labelled.chain(timed));
        for column in table.column_iter_mut().skip(labels.len()) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        Self(table)
    }

    pub(crate) fn row(&mut self, labels: &[&str], times: &[&Times]) {
        let labels = labels.iter().map(|label| (*label).to_owned());
        self.0.add_row(labels.chain(times.iter().flat_map(|times| times.cells())));
    }

    pub(crate) fn print(&self) {
        println!("{}", self.0);
    }
}

/// On what it was measured.
pub(crate) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Vec<&str> = load.split(' ').take(3).collect();
    format!("{cores} cores, load {}", if load.is_empty() { "unknown".to_owned() } else { load.join(" ") })
}

/// Which server it is.
pub(crate) fn product(server: &RedisServer) -> String {
    let info = server.command(&["INFO", "server"]).text();
    let field =
        |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    match field("valkey_version") {
        Some(version) => format!("Valkey {version}"),
        None => format!("Redis {}", field("redis_version").unwrap_or("of no version")),
    }
}

pub(crate) fn progress(rounds: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len}  {msg}  {eta} left").expect("a template");
    ProgressBar::new(rounds).with_style(style)
}
