//! The rows: what was measured, against what, and what was wanted. For people a table, for machines
//! `target/bench/summary.json`.

use std::path::PathBuf;

use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::Scale;
use super::samples::{Samples, Worse, short};
use super::server::RedisServer;

/// A figure.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    name: &'static str,
    case: String,
    unit: &'static str,
    worse: Worse,
    samples: Samples,
    checks: Vec<Check>,
}

/// What a figure is held against.
#[derive(Clone, Debug)]
struct Check {
    what: String,
    floor: Option<Samples>,
    value: f64,
    goal: Option<Goal>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

impl Goal {
    fn is_reached(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }
}

impl std::fmt::Display for Goal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "<= {}", short(*most)),
            Self::AtLeast(least) => write!(f, ">= {}", short(*least)),
        }
    }
}

impl Row {
    /// Of which less is better: microseconds, bytes.
    pub(crate) fn cost(
        name: &'static str,
        case: impl Into<String>,
        unit: &'static str,
        samples: &Samples,
    ) -> Self {
        Self {
            name,
            case: case.into(),
            unit,
            worse: Worse::Larger,
            samples: samples.clone(),
            checks: Vec::new(),
        }
    }

    /// Of which more is better: so many a second.
    pub(crate) fn rate(name: &'static str, case: impl Into<String>, samples: &Samples) -> Self {
        let row = Self::cost(name, case, "a second", samples);
        Self { worse: Worse::Smaller, ..row }
    }

    /// The ratio of the medians.
    pub(crate) fn against(
        mut self,
        what: impl Into<String>,
        floor: &Samples,
        goal: impl Into<Option<Goal>>,
    ) -> Self {
        let value = self.samples.p50() / floor.p50();
        let what = format!("x {}", what.into());
        self.checks.push(Check { what, floor: Some(floor.clone()), value, goal: goal.into() });
        self
    }

    /// A value that is wanted as it is.
    pub(crate) fn wanted(
        mut self,
        what: impl Into<String>,
        value: f64,
        goal: impl Into<Option<Goal>>,
    ) -> Self {
        self.checks.push(Check { what: what.into(), floor: None, value, goal: goal.into() });
        self
    }

    fn json(&self) -> Value {
        let [p50, p99, max] = self.samples.summary(self.worse);
        let checks: Vec<Value> = self.checks.iter().map(|check| check.json(self.worse)).collect();
        json!({
            "name": self.name, "case": self.case, "unit": self.unit, "samples": self.samples.len(),
            "p50": p50, "p99": p99, "max": max, "checks": checks,
        })
    }
}

impl Check {
    fn json(&self, worse: Worse) -> Value {
        let mut check = json!({ "what": self.what, "value": self.value });
        if let Some(floor) = &self.floor {
            let [p50, p99, max] = floor.summary(worse);
            check["floor"] = json!({ "p50": p50, "p99": p99, "max": max });
        }
        if let Some(goal) = self.goal {
            check["goal"] = json!(goal.to_string());
            check["reached"] = json!(goal.is_reached(self.value));
        }
        check
    }
}

/// All rows of a run, and how far it is.
pub(crate) struct Report {
    pub(crate) scale: Scale,
    rows: Vec<Row>,
    bar: ProgressBar,
    before: String,
    server: String,
}

impl Report {
    /// `steps`: how often [`step`](Self::step) will be called.
    pub(crate) fn new(scale: Scale, steps: usize) -> Self {
        let style =
            ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed}  {msg}").expect("a template");
        let bar = ProgressBar::new(steps as u64).with_style(style);
        bar.enable_steady_tick(std::time::Duration::from_millis(500));
        Self { scale, rows: Vec::new(), bar, before: machine(), server: String::new() }
    }

    /// The next part begins.
    pub(crate) fn step(&self, name: &str) {
        self.bar.inc(1);
        self.say(name);
    }

    /// What is being done.
    pub(crate) fn say(&self, text: &str) {
        self.bar.set_message(text.to_owned());
        if self.bar.is_hidden() {
            let (at, of) = (self.bar.position(), self.bar.length().unwrap_or(0));
            eprintln!("{at}/{of} {:>4} s  {text}", self.bar.elapsed().as_secs());
        }
    }

    /// Which server it was, said once.
    pub(crate) fn note_server(&mut self, server: &RedisServer) {
        self.server = product(server);
    }

    pub(crate) fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Prints the table, and writes the rows in the place of older ones of the same names.
    pub(crate) fn finish(self) {
        self.bar.finish_and_clear();
        println!("{}, TCP on the same machine, {} (then: {})", self.server, self.before, machine());
        println!(
            "{:?}; of fewer than 100 samples p99 is the worst, and max is the worst always; ratios are of medians, \
             to what was measured in turn with it",
            self.scale
        );
        println!("{}", self.table());
        if self.scale == Scale::Smoke {
            return;
        }
        let path = directory().join("summary.json");
        let mut summary: Value = std::fs::read_to_string(&path)
            .ok()
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_else(|| json!({ "rows": [] }));
        let mut rows: Vec<Value> = summary["rows"].as_array().cloned().unwrap_or_default();
        rows.retain(|row| self.rows.iter().all(|new| row["name"] != new.name));
        rows.extend(self.rows.iter().map(Row::json));
        summary["rows"] = json!(rows);
        summary["server"] = json!(self.server);
        summary["machine"] = json!({ "before": self.before, "after": machine() });
        summary["scale"] = json!(format!("{:?}", self.scale).to_lowercase());
        std::fs::create_dir_all(directory()).expect("a directory for the summary");
        std::fs::write(&path, format!("{summary:#}\n")).expect("the summary can be written");
        println!("{}", path.display());
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(UTF8_BORDERS_ONLY);
        table.set_header(["", "", "p50", "p99", "max", "", "ratio", "goal", ""]);
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        for row in &self.rows {
            let [p50, p99, max] = row.samples.summary(row.worse).map(|value| short(value).to_string());
            table.add_row([row.name, &row.case, &p50, &p99, &max, row.unit, "", "", ""]);
            for check in &row.checks {
                let floor = check.floor.as_ref().map(|floor| floor.summary(row.worse));
                let [p50, p99, max] =
                    floor.map_or_else(Default::default, |floor| floor.map(|value| short(value).to_string()));
                let (goal, reached) = check.goal.map_or_else(Default::default, |goal| {
                    (goal.to_string(), if goal.is_reached(check.value) { "yes" } else { "NO" })
                });
                let (what, value) = (format!("  {}", check.what), short(check.value).to_string());
                table.add_row(["", &what, &p50, &p99, &max, "", &value, &goal, reached]);
            }
        }
        table
    }
}

/// `target/bench`, wherever cargo has its target directory.
fn directory() -> PathBuf {
    let program = std::env::current_exe().expect("this program");
    program.ancestors().nth(3).expect("in target/release/deps").join("bench")
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
