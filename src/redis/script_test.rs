//! Every script keeps the contract that its header states, and PROTOCOL.md tells of all of them.

use std::collections::{BTreeMap, BTreeSet};

use super::script::{ALL, Script};
use crate::wire::frame;
use crate::wire::keys::Keys;

const PROTOCOL: &str = include_str!("../../PROTOCOL.md");

/// The commands that write. A script that says "no-writes" has none of them.
const WRITES: &[&str] =
    &["SET", "DEL", "PEXPIRE", "HSET", "HDEL", "HINCRBY", "ZADD", "ZREM", "ZINCRBY", "SPUBLISH"];

/// A script's header, read.
#[derive(Debug, Default)]
struct Header {
    keys: Vec<String>,
    args: Vec<String>,
    /// From which argument on they repeat.
    repeats: Option<usize>,
    returns: String,
    errors: String,
    publishes: String,
}

impl Header {
    fn parse(text: &str) -> Result<Self, String> {
        let mut header = Self::default();
        let mut section: Option<&'static str> = None;
        for line in text.lines().map_while(|line| line.strip_prefix("--")) {
            let line = line.trim();
            let indexed = |name| line.strip_prefix(name).and_then(|rest: &str| rest.split_once(']'));
            if let Some((index, name)) = indexed("KEYS[") {
                entry(&mut header.keys, "KEYS", index, name)?;
            } else if let Some((index, name)) = indexed("ARGV[") {
                if header.repeats.is_some() {
                    return Err(format!("ARGV[{index}] follows a repeated argument"));
                }
                let first = index.strip_suffix("...");
                entry(&mut header.args, "ARGV", first.unwrap_or(index), name)?;
                header.repeats = first.map(|_| header.args.len());
            } else {
                let starts = |word| line.strip_prefix(word).filter(|rest: &&str| rest.starts_with(' '));
                let mut rest = line;
                for word in ["Returns", "Errors", "Publishes"] {
                    if let Some(text) = starts(word) {
                        (section, rest) = (Some(word), text);
                    }
                }
                let part = match section {
                    Some("Returns") => &mut header.returns,
                    Some("Errors") => &mut header.errors,
                    Some("Publishes") => &mut header.publishes,
                    _ => continue,
                };
                part.push_str(rest.trim());
                part.push(' ');
            }
        }
        for (name, part) in
            [("Returns", &header.returns), ("Errors", &header.errors), ("Publishes", &header.publishes)]
        {
            if part.trim().is_empty() {
                return Err(format!("the header does not say what it {name}"));
            }
        }
        Ok(header)
    }
}

/// `name   what it is`: the name ends at three spaces.
fn entry(list: &mut Vec<String>, kind: &str, index: &str, rest: &str) -> Result<(), String> {
    if index.parse() != Ok(list.len() + 1) {
        return Err(format!("{kind}[{index}] is out of turn"));
    }
    let name = rest.trim_start().split("   ").next().unwrap_or_default();
    if name.is_empty() {
        return Err(format!("{kind}[{index}] has no name"));
    }
    list.push(name.to_owned());
    Ok(())
}

/// Everything in the code without comments.
fn without_comments(text: &str) -> String {
    let code = text.lines().map(|line| line.split("--").next().unwrap_or_default());
    code.collect::<Vec<_>>().join("\n")
}

/// The identifiers of a text, `K.name` as one.
fn words(code: &str) -> Vec<&str> {
    let split = code.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.'));
    split.filter(|word| !word.is_empty()).collect()
}

/// What of the library the script reaches, and the script: the bodies of functions that nobody calls are left out.
fn reached(lib: &str, body: &str) -> String {
    let (mut functions, mut top, mut name) = (BTreeMap::<&str, String>::new(), String::new(), None);
    for line in lib.lines() {
        if let Some(rest) = line.strip_prefix("local function ") {
            name = rest.split('(').next();
        }
        let into = name.map_or(&mut top, |name| functions.entry(name).or_default());
        into.push_str(line);
        into.push('\n');
        if line == "end" {
            name = None;
        }
    }
    let mut code = top + body;
    loop {
        let called =
            words(&code).iter().find_map(|word| functions.get_key_value(word).map(|(name, _)| *name));
        let Some(name) = called else { return code };
        code.push_str(&functions.remove(name).unwrap_or_default().replacen("local function", "", 1));
    }
}

/// Statements of the form `a, b = x, y` that take from `KEYS` or `ARGV`: (left side, right side).
fn inputs(body: &str) -> Vec<(String, String)> {
    let joined = body.replace("=\n", "= ");
    let lines = joined.lines().filter(|line| !line.trim_start().starts_with("for "));
    lines
        .filter_map(|line| line.split_once(" = "))
        .filter(|(_, right)| right.contains("KEYS[") || right.contains("ARGV["))
        .map(|(left, right)| (left.trim().to_owned(), right.to_owned()))
        .collect()
}

/// What is wrong with a script; nothing if it keeps its contract. `text` is the whole of it, `file` its own part.
fn faults(name: &str, keys: usize, text: &str, file: &str) -> Vec<String> {
    let header = match Header::parse(file) {
        Ok(header) => header,
        Err(fault) => return vec![format!("{name}: {fault}")],
    };
    let body = without_comments(file);
    let lib = without_comments(text.strip_suffix(file).unwrap_or_default());
    let code = reached(&lib, &body);
    let mut faults = Vec::new();
    let mut fault = |text: String| faults.push(format!("{name}: {text}"));

    if header.keys.len() != keys {
        fault(format!("the header has {} keys, the table {keys}", header.keys.len()));
    }
    // Each KEYS[i] is K.<its name>.
    let mut named = BTreeMap::new();
    for (left, right) in inputs(&body) {
        for (left, right) in left.split(',').zip(right.split(',')) {
            if let (Some(key), Some(index)) =
                (left.trim().strip_prefix("K."), right.trim().strip_prefix("KEYS["))
            {
                named.insert(index.trim_end_matches(']').to_owned(), key.to_owned());
            }
        }
    }
    for (at, key) in header.keys.iter().enumerate() {
        if named.get(&(at + 1).to_string()) != Some(key) {
            fault(format!("KEYS[{}] is not taken as K.{key}", at + 1));
        }
    }
    for index in
        named.keys().filter(|index| index.parse().is_ok_and(|index: usize| index > header.keys.len()))
    {
        fault(format!("KEYS[{index}] is not in the header"));
    }
    // K.x is used if it is there more often than where it is named.
    let count = |word: &str| words(&code).iter().filter(|other| **other == word).count();
    let lefts: Vec<String> = inputs(&body).into_iter().map(|(left, _)| left).collect();
    let given: BTreeSet<&str> = lefts.iter().flat_map(|left| left.split(',').map(str::trim)).collect();
    for input in &given {
        if count(input.trim_start_matches("local ")) < 2 {
            fault(format!("{input} is taken and not used"));
        }
    }
    for used in words(&code).into_iter().filter(|word| word.starts_with("K.")) {
        if !given.contains(used) {
            fault(format!("{used} is used and not passed"));
        }
    }

    for (at, arg) in header.args.iter().enumerate() {
        let at = at + 1;
        let taken = if header.repeats == Some(at) {
            body.contains(&format!("for i = {at}, #ARGV"))
        } else {
            body.contains(&format!("ARGV[{at}]"))
        };
        if !taken {
            fault(format!("ARGV[{at}] {arg} is in the header and not used"));
        }
        for name in arg.split(", ") {
            if !words(&body).contains(&&*name.replace(' ', "_"))
                && !body.contains(&format!("K.{}", name.replace(' ', "_")))
            {
                fault(format!("ARGV[{at}] is called {name} in the header only"));
            }
        }
    }
    for index in body.split("ARGV[").skip(1).filter_map(|rest| rest.split(']').next()?.parse::<usize>().ok())
    {
        if index > header.args.len() || header.repeats == Some(index) {
            fault(format!("ARGV[{index}] is not in the header"));
        }
    }
    if body.contains("#ARGV") != header.repeats.is_some() {
        fault("repeated arguments are not as the header says".into());
    }

    if body.contains("error_reply") != (header.errors.trim() != "none") {
        fault("errors are not as the header says".into());
    }
    if code.contains("SPUBLISH") != (header.publishes.trim() != "nothing") {
        fault("what it publishes is not as the header says".into());
    }
    let writes = commands(&code).iter().any(|command| WRITES.contains(&&**command));
    if writes == text.starts_with("#!lua flags=no-writes\n") {
        fault("its flags do not fit what it does".into());
    }
    faults
}

/// The server's commands that a code calls.
fn commands(code: &str) -> BTreeSet<String> {
    let calls = code.split("redis.call('").skip(1);
    calls.filter_map(|rest| rest.split('\'').next()).map(str::to_owned).collect()
}

fn file_of(script: &Script) -> &'static str {
    // Nothing marks where the libraries end, but a script begins with its name.
    let start = format!("-- {}: ", script.name);
    let at =
        script.text.rfind(&start).unwrap_or_else(|| panic!("{} does not begin with its name", script.name));
    &script.text[at..]
}

#[test]
fn every_script_keeps_the_contract_of_its_header() {
    let faults: Vec<_> = ALL
        .iter()
        .flat_map(|script| faults(script.name, script.keys, script.text, file_of(script)))
        .collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

// A check that accepts everything would guard nothing: each change below breaks a contract, and is seen.
#[test]
fn a_broken_contract_is_seen() {
    let broken = |name: &str, from: &str, to: &str| {
        let script = ALL.iter().find(|script| script.name == name).expect("a script");
        let file = file_of(script).replacen(from, to, 1);
        let text = script.text.strip_suffix(file_of(script)).unwrap_or_default().to_owned() + &file;
        assert_ne!(file, file_of(script), "{from:?} is not in {name}");
        faults(name, script.keys, &text, &file)
    };
    for (name, from, to) in [
        ("add", "-- KEYS[7] inbox\n", ""),
        ("add", "-- KEYS[6] load\n", "-- KEYS[6] loads\n"),
        ("add", "-- ARGV[2] not_after", "-- ARGV[3] not_after"),
        ("add", "-- ARGV[3...] job, payload", "-- ARGV[3] job, payload"),
        ("add", "-- Errors LATE", "-- LATE"),
        (
            "add",
            "-- Errors LATE <now_us>: the server's clock is past not_after; nothing was done",
            "-- Errors none",
        ),
        ("add", "if now_us > not_after then", "if false then"),
        ("add", "K.inbox_channel = ARGV[1]", ""),
        ("beat", "tonumber(ARGV[3])", "1000"),
        ("beat", "-- ARGV[4] draining   1: no new job, from now on\n", ""),
        ("beat", "redis.call('ZCARD', K.pending)", "0"),
        ("beat", "redis.call('ZCARD', K.pending)", "redis.call('ZCARD', K.waiting)"),
        ("beat", "-- Publishes nothing", "-- Publishes a frame"),
        ("release", "-- KEYS[5] pending\n-- KEYS[6] load", "-- KEYS[5] load\n-- KEYS[6] pending"),
        ("sync", "-- ARGV[6] max_bytes\n", ""),
        ("find", "redis.call('HGET', K.owner, job)", "redis.call('HDEL', K.owner, job)"),
        ("roster", "-- Publishes nothing\n", ""),
    ] {
        assert!(!broken(name, from, to).is_empty(), "{name} without {from:?} passes");
    }
}

// Numbers go out through int(), never through tostring() or `..` of a number that may be large.
#[test]
fn no_script_prints_a_number_in_a_way_that_loses_digits() {
    for script in ALL {
        let code = without_comments(script.text);
        assert!(!code.contains("tostring("), "{}", script.name);
        assert!(!code.contains("cjson"), "{}", script.name);
        assert!(
            !words(&code).contains(&"unpack"),
            "{}: a list that is too long for it may come",
            script.name
        );
    }
}

// A worker in another language is written from PROTOCOL.md alone.
#[test]
fn protocol_md_tells_of_every_script_key_and_command() {
    for script in ALL {
        assert!(PROTOCOL.contains(&format!("\n### {}\n", script.name)), "no section on {}", script.name);
        let header = Header::parse(file_of(script)).expect("a header");
        let section = PROTOCOL.split(&format!("\n### {}\n", script.name)).nth(1).unwrap_or_default();
        let section =
            section.split("\n### ").next().unwrap_or_default().split("\n## ").next().unwrap_or_default();
        for (kind, names) in [("KEYS", &header.keys), ("ARGV", &header.args)] {
            let line = names.join(", ");
            assert!(section.contains(&line), "{}: no {kind} line `{line}`", script.name);
        }
    }
    let keys = format!("{:?}", Keys::new("p", "c"));
    let names: Vec<_> = keys.split("{p:c}:").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(names.len() >= 14, "{names:?}");
    for name in names {
        assert!(PROTOCOL.contains(&format!("{{p}}:{name}")), "nothing on the key or channel {name}");
    }
    let acl =
        PROTOCOL.split("ACL SETUSER").nth(1).and_then(|rest| rest.split("```").next()).unwrap_or_default();
    let granted: BTreeSet<_> = acl.split_whitespace().filter_map(|word| word.strip_prefix('+')).collect();
    for script in ALL {
        let code = without_comments(script.text);
        for command in commands(&code) {
            assert!(
                granted.contains(&*command.to_lowercase()),
                "{command} of {} is not in the ACL",
                script.name
            );
        }
    }
}

// What PROTOCOL.md shows byte by byte is what the crate reads.
#[test]
fn the_examples_of_protocol_md_decode_as_it_says() {
    let mut seen = BTreeSet::new();
    for block in PROTOCOL.split("```frame\n").skip(1) {
        let block = block.split("```").next().unwrap_or_default();
        let (title, rest) = block.split_once('\n').expect("a title");
        let bytes: Vec<u8> = rest
            .lines()
            .filter_map(|line| line.split_once("  "))
            .flat_map(|(hex, _)| hex.split(' ').map(|byte| u8::from_str_radix(byte, 16).expect("hex")))
            .collect();
        let read = match title.split(' ').next() {
            Some("inbox") => format!("{:?}", frame::frame(&bytes).expect(title)),
            Some("control") => format!("{:?}", frame::control(&bytes).expect(title)),
            Some("released") => format!("{:?}", frame::released(&bytes).expect(title)),
            _ => panic!("{title}"),
        };
        for line in rest.lines().filter_map(|line| line.split_once("  ")).map(|(_, says)| says.trim()) {
            let number = line
                .rsplit(' ')
                .next()
                .filter(|word| word.len() > 9 && word.bytes().all(|b| b.is_ascii_digit()));
            assert!(number.is_none_or(|number| read.contains(number)), "{title}: {line} is not in {read}");
        }
        seen.insert(title.to_owned());
    }
    assert!(seen.len() >= 5, "{seen:?}");
}
