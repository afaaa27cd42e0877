//! Placement at size: 50,000 jobs on ten workers; two more join, three are killed, one is drained. Who holds what is
//! shown while it runs; at the end, how often jobs moved, how long it took to be even again, and what it cost the server.
//!
//! `cargo bench --bench placement -- [JOBS] [--ttl MS] [--share PART] [--delay MS]`
//!
//! Each worker is a process. What is counted is what their consumers reported. Exit code 1 if a job was lost, held
//! twice, or moved while nothing had changed.

mod book;
mod children;
mod cores;
#[path = "../support/mod.rs"]
mod support;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use assemblage::{Cluster, JobId, Master, Rebalance, WorkerId};

use book::Book;
use children::Child;
use cores::Cores;
use support::participant::spent_us;
use support::report::{machine, product};
use support::server::{Connection, RedisServer};

/// How long a step may take before the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(400);

#[derive(Clone, Copy, Debug)]
struct Setting {
    jobs: usize,
    workers: usize,
    ttl: Duration,
    rebalance: Rebalance,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [role, url, ttl, share, delay] = args.iter().map(String::as_str).collect::<Vec<_>>()[..]
        && role == "worker"
    {
        children::run(url, &setting(ttl, share, delay));
        return ExitCode::SUCCESS;
    }
    let setting = if support::is_bench() {
        from_command_line(&args)
    } else {
        Setting { jobs: 300, workers: 5, ..setting("1500", "0.5", "0") }
    };
    let cores = Cores::divide();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    if runtime.block_on(run(&setting, cores.as_ref())) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn setting(ttl: &str, share: &str, delay: &str) -> Setting {
    let ms = |text: &str| Duration::from_millis(text.parse().expect("milliseconds"));
    let rebalance = Rebalance::default().share(share.parse().expect("a part")).delay(ms(delay));
    Setting { jobs: 50_000, workers: 10, ttl: ms(ttl), rebalance }
}

fn from_command_line(args: &[String]) -> Setting {
    let standard = Rebalance::default();
    let (mut jobs, mut ttl, mut share, mut delay) =
        (50_000, "5000".to_owned(), standard.share.to_string(), standard.delay.as_millis().to_string());
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().expect("a value follows").clone();
        match arg.as_str() {
            "--bench" => {}
            "--ttl" => ttl = value(),
            "--share" => share = value(),
            "--delay" => delay = value(),
            count => jobs = count.parse().expect("[JOBS] --ttl MS --share PART --delay MS"),
        }
    }
    Setting { jobs, ..setting(&ttl, &share, &delay) }
}

async fn run(setting: &Setting, cores: Option<&Cores>) -> bool {
    let server = RedisServer::with(&["--slowlog-log-slower-than", "1000", "--slowlog-max-len", "100000"]);
    if let Some(cores) = cores {
        cores.give(server.pid());
    }
    let url = server.unix_url();
    let mut cost = Cost::new(&server);
    let Setting { jobs, ttl, rebalance, workers: count } = *setting;
    println!(
        "{}, unix socket, {}; the server has {}; lock_ttl {ttl:?}, {:.0} % of the difference a step, after {:?} of quiet\n",
        product(&server),
        machine(),
        if cores.is_some() {
            "a core to itself"
        } else {
            "no core to itself, so that others' turns are timed too"
        },
        rebalance.share * 100.0,
        rebalance.delay,
    );
    let cluster = Cluster::builder("bench").lock_ttl(ttl).rebalance(rebalance);
    let master = cluster.connect_url(&url).await.expect("connects").master().await.expect("a master");
    let mut book = Book::new(jobs);
    let mut workers: Vec<Child> = (0..count).map(|_| Child::worker(&url, setting, &mut book)).collect();

    let mut step = Step::new(&book);
    let mailboxes: Vec<(JobId, String)> = (0..jobs)
        .map(|n| (JobId::new(n.to_string()).expect("an id"), format!("user{n}@example.com/INBOX")))
        .collect();
    let _ = master.add_many_with(&mailboxes).await.expect("added");
    step.until(&mut book, "all are held", |book| book.held() == jobs);
    step.print(&mut book, &mut cost, &format!("{jobs} jobs are added to {count} workers"));

    workers.extend((0..2).map(|_| Child::worker(&url, setting, &mut book)));
    step.until(&mut book, "the shares are even", |book| book.is_even(rebalance.hysteresis));
    step.print(&mut book, &mut cost, "2 more join, until the shares are even");

    for mut victim in workers.drain(..3) {
        victim.kill(&mut book);
    }
    step.until(&mut book, "all are held again", |book| book.held() == jobs);
    step.print(&mut book, &mut cost, "3 are killed, until the others hold all");
    step.until(&mut book, "the shares are even", |book| book.is_even(rebalance.hysteresis));
    step.print(&mut book, &mut cost, "  and until the shares are even");

    let drained = workers[0].number();
    drain(&master, drained).await;
    step.until(&mut book, "it is empty", |book| book.held_by(drained) == 0 && book.held() == jobs);
    step.print(&mut book, &mut cost, "1 is drained, until the others hold all");
    let rest = |book: &Book| book.without(drained).is_even(rebalance.hysteresis);
    step.until(&mut book, "the shares are even", rest);
    step.print(&mut book, &mut cost, "  and until the shares are even");

    let quiet = (2 * ttl).max(Duration::from_secs(2));
    step.pass(&mut book, quiet);
    let restless = book.moves() - step.moves;
    step.print(&mut book, &mut cost, &format!("nothing happens for {quiet:?}"));
    book.finish();

    println!("\nmoves of one job: {}", book.moves_per_job());
    println!("{}", cost.total());
    println!("{}", cost.longest());
    println!(
        "\njobs lost            {:>5}\njobs held twice      {:>5}\nmoves while at rest  {restless:>5}",
        jobs - book.held(),
        book.held_twice(),
    );
    jobs == book.held() && book.held_twice() == 0 && restless == 0
}

async fn drain(master: &Master, worker: u64) {
    let workers = master.workers().await.expect("an answer");
    let worker: Vec<WorkerId> = workers.iter().map(|info| info.id).filter(|id| id.get() == worker).collect();
    assert!(master.drain(worker[0]).await.expect("an answer"), "it is there");
}

/// One thing that happens, and what comes of it.
struct Step {
    begin: Instant,
    moves: usize,
}

impl Step {
    fn new(book: &Book) -> Self {
        Self { begin: Instant::now(), moves: book.moves() }
    }

    fn until(&self, book: &mut Book, what: &str, done: impl Fn(&Book) -> bool) {
        let begin = Instant::now();
        while !done(book) {
            assert!(begin.elapsed() < PATIENCE, "never: {what}");
            book.read(Duration::from_millis(100));
        }
    }

    fn pass(&self, book: &mut Book, time: Duration) {
        let begin = Instant::now();
        while begin.elapsed() < time {
            book.read(Duration::from_millis(100));
        }
    }

    fn print(&mut self, book: &mut Book, cost: &mut Cost, what: &str) {
        let (moves, took) = (book.moves() - self.moves, self.begin.elapsed());
        book.say(&format!(
            "{what:<44} {:>7.2} s  {moves:>6} moves  {}  {}",
            took.as_secs_f64(),
            book.shares(),
            cost.since_last(),
        ));
        *self = Self::new(book);
    }
}

/// What the scripts cost the server, by its own count.
struct Cost {
    connection: Connection,
    seen: (u64, u64),
}

impl Cost {
    fn new(server: &RedisServer) -> Self {
        let mut cost = Self { connection: server.connect(), seen: (0, 0) };
        cost.seen = cost.scripts();
        cost
    }

    /// How many script calls there were, and how many microseconds they took.
    fn scripts(&mut self) -> (u64, u64) {
        let spent = ["eval", "evalsha"].map(|command| spent_us(&mut self.connection, command));
        (spent[0].0 + spent[1].0, spent[0].1 + spent[1].1)
    }

    fn since_last(&mut self) -> String {
        let (calls, us) = self.scripts();
        let text = format!("{} scripts, {:.0} ms", calls - self.seen.0, (us - self.seen.1) as f64 / 1_000.0);
        self.seen = (calls, us);
        text
    }

    fn total(&mut self) -> String {
        let (calls, us) = self.scripts();
        format!("server: {calls} script calls, {:.2} s in all", us as f64 / 1e6)
    }

    /// From the slow log, which has what took a millisecond and more by the clock.
    fn longest(&mut self) -> String {
        let log = self.connection.command(&["SLOWLOG", "GET", "-1"]);
        let mut times: Vec<i64> = log.list().iter().map(|entry| entry.list()[2].int()).collect();
        times.sort_unstable();
        let above = times.iter().filter(|us| **us > 2_000).count();
        format!(
            "script calls above 1 ms: {}, above 2 ms: {above}; the longest: {:.2} ms",
            times.len(),
            times.last().copied().unwrap_or(0) as f64 / 1_000.0
        )
    }
}
