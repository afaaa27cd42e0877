//! Each script keeps the contract in its header: keys, arguments, errors, messages, and what its flags allow.
//!
//! Scripts are read as text. That is enough because they are written in one way: `K.name = KEYS[i]` first, and after
//! that every key by `K`.

use std::collections::{BTreeMap, BTreeSet};

use crate::redis::script::{ALL, Script};

/// In the order in which a script has them.
const LIBRARIES: [&str; 10] = [
    include_str!("../lua/lib/base.lua"),
    include_str!("../lua/lib/changes.lua"),
    include_str!("../lua/lib/push.lua"),
    include_str!("../lua/lib/terms.lua"),
    include_str!("../lua/lib/member.lua"),
    include_str!("../lua/lib/look.lua"),
    include_str!("../lua/lib/give.lua"),
    include_str!("../lua/lib/suspicion.lua"),
    include_str!("../lua/lib/placement.lua"),
    include_str!("../lua/lib/shares.lua"),
];

/// Commands that only read; any other needs a script that may write.
const READS: [&str; 16] = [
    "EXISTS", "GET", "HEXISTS", "HGET", "HLEN", "HMGET", "HSCAN", "TIME", "TYPE", "XRANGE", "ZCARD",
    "ZCOUNT", "ZRANGE", "ZRANK", "ZSCORE", "PTTL",
];

#[derive(Default)]
pub(super) struct Header {
    /// `KEYS[i] name`, in order.
    pub(super) keys: Vec<String>,
    /// `ARGV[i] name`, in order; the last may be several.
    pub(super) args: Vec<String>,
    /// The last argument is `ARGV[i...]`.
    repeated: bool,
    /// What follows `Returns`, `Errors`, `Publishes`.
    says: BTreeMap<&'static str, String>,
}

/// The keys that a script's header names.
pub(super) fn keys(script: &Script) -> Vec<String> {
    header(own_part(script.text)).expect("a header").keys
}

pub(super) fn header(own: &str) -> Result<Header, String> {
    let mut header = Header::default();
    for line in own.lines().map_while(|line| line.strip_prefix("--")).map(str::trim) {
        if let Some(rest) = line.strip_prefix("KEYS[") {
            let number = header.keys.len() + 1;
            let name =
                rest.strip_prefix(&format!("{number}] ")).ok_or(format!("not KEYS[{number}]: {line}"))?;
            header.keys.push(first_words(name)?);
        } else if let Some(rest) = line.strip_prefix("ARGV[") {
            let number = header.args.len() + 1;
            let rest = rest.strip_prefix(&number.to_string()).ok_or(format!("not ARGV[{number}]: {line}"))?;
            if header.repeated {
                return Err(format!("follows a repeated argument: {line}"));
            }
            header.repeated = rest.starts_with("...");
            let name =
                rest.trim_start_matches('.').strip_prefix("] ").ok_or(format!("not understood: {line}"))?;
            header.args.push(first_words(name)?);
        }
        for word in ["Returns", "Errors", "Publishes"] {
            if let Some(rest) = line.strip_prefix(word).and_then(|rest| rest.strip_prefix(' ')) {
                header.says.insert(word, rest.to_owned());
            }
        }
    }
    if header.says.len() == 3 { Ok(header) } else { Err(format!("says only {:?}", header.says.keys())) }
}

/// A name ends at three spaces.
fn first_words(text: &str) -> Result<String, String> {
    let name = text.split("   ").next().unwrap_or_default().trim();
    if name.is_empty() { Err(format!("no name: {text}")) } else { Ok(name.to_owned()) }
}

/// A script's own part: what is left when the libraries before it are taken away.
pub(super) fn own_part(text: &str) -> &str {
    let mut own = text.split_once('\n').map_or("", |(_flags, rest)| rest);
    for library in LIBRARIES {
        own = own.strip_prefix(library).unwrap_or(own);
    }
    own
}

pub(super) fn without_comments(code: &str) -> String {
    code.lines().map(|line| line.split("--").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The words of a code; `K.name` is one word.
fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '.').filter(|word| !word.is_empty())
}

/// The script's own code, and the functions of the libraries that it comes to by any road.
fn reached(text: &str) -> String {
    let own = own_part(text);
    let library = without_comments(text.strip_suffix(own).unwrap_or_default());
    let mut functions: BTreeMap<&str, &str> = BTreeMap::new();
    let (mut code, mut rest) = (without_comments(own), library.as_str());
    while let Some(start) = rest.find("local function ") {
        code.push_str(&rest[..start]);
        let end = rest[start..].find("\nend").map_or(rest.len(), |end| start + end + 4);
        let (name, body) = rest[start..end]["local function ".len()..].split_once('(').unwrap_or_default();
        functions.insert(name, body);
        rest = &rest[end..];
    }
    code.push_str(rest);
    loop {
        let called = words(&code).find_map(|word| functions.get_key_value(word).map(|(name, _)| *name));
        let Some(body) = called.and_then(|name| functions.remove(name)) else { return code };
        code.push_str(body);
    }
}

/// Which K.name each `KEYS[i]` or `ARGV[i]` becomes, and which local each `ARGV[i]`: `(name, "KEYS[1]")`.
fn assigned(own: &str) -> Vec<(String, String)> {
    let code = without_comments(own).replace("=\n", "=");
    let pairs =
        code.lines().filter_map(|line| line.split_once('=')).filter(|(left, _)| !left.contains("for "));
    pairs
        .flat_map(|(left, right)| {
            let left = left.trim().trim_start_matches("local ").split(',').map(str::trim);
            let right: Vec<_> = right.split(',').map(input).collect();
            left.map(str::to_owned).zip(right).collect::<Vec<_>>()
        })
        .filter_map(|(name, input)| Some((name, input?)))
        .collect()
}

/// The `KEYS[1]` or `ARGV[1]` in an expression.
fn input(text: &str) -> Option<String> {
    let start = text.find("KEYS[").or_else(|| text.find("ARGV["))?;
    let end = text[start..].find(']')?;
    Some(text[start..=start + end].to_owned())
}

/// The commands of a code with their first argument.
pub(super) fn calls(code: &str) -> Vec<(&str, &str)> {
    let calls = code.split("redis.call('").skip(1);
    calls
        .filter_map(|call| call.split_once('\'').map(|(name, rest)| (name, rest.trim_start_matches(", "))))
        .collect()
}

/// Everything in which a script breaks its contract.
fn faults(text: &str, key_count: usize) -> Vec<String> {
    let own = own_part(text);
    let header = match header(own) {
        Ok(header) => header,
        Err(fault) => return vec![fault],
    };
    let code = reached(text);
    let body = without_comments(own);
    let inputs = assigned(own);
    let count = |word: &str| words(&code).filter(|other| *other == word).count();
    let mut faults = Vec::new();
    let mut expect = |holds: bool, fault: String| {
        if !holds {
            faults.push(fault);
        }
    };

    expect(header.keys.len() == key_count, format!("{} keys, but {key_count} are passed", header.keys.len()));
    let mut known = BTreeSet::new();
    for (index, name) in header.keys.iter().enumerate() {
        let (input, name) = (format!("KEYS[{}]", index + 1), format!("K.{name}"));
        expect(inputs.contains(&(name.clone(), input.clone())), format!("{name} is not set to {input}"));
        expect(count(&name) > 1, format!("{name} is unused"));
        known.insert(name);
    }
    for (index, name) in header.args.iter().enumerate() {
        let last = header.repeated && index + 1 == header.args.len();
        let input = format!("ARGV[{}]", index + 1);
        if last {
            let start = format!("{}, #ARGV", index + 1);
            let mut loops = body.split("for i = ").skip(1).filter(|rest| rest.contains(", #ARGV")).peekable();
            expect(loops.peek().is_some(), format!("{input} is not repeated"));
            expect(loops.all(|rest| rest.starts_with(&start)), format!("not all begin at {input}"));
            for name in name.split(", ") {
                expect(words(&body).any(|word| word == name), format!("{name} is in the header only"));
            }
            continue;
        }
        let takers: Vec<_> = inputs.iter().filter(|(_, other)| *other == input).collect();
        expect(takers.len() == 1, format!("{input} ({name}) is taken {} times", takers.len()));
        for (taker, _) in takers {
            expect(count(taker) > 1, format!("{input} ({taker}) is unused"));
            let same = taker.trim_start_matches("K.") == name.replace(' ', "_");
            expect(same, format!("{input} is called {name} in the header and {taker} in the code"));
            if taker.starts_with("K.") {
                known.insert(taker.clone());
            }
        }
    }
    // Nothing that the header lacks.
    for (kind, known) in [("KEYS[", header.keys.len()), ("ARGV[", header.args.len())] {
        for part in body.split(kind).skip(1) {
            let index = part.split(']').next().unwrap_or_default();
            let fixed = index.parse().is_ok_and(|index: usize| (1..=known).contains(&index));
            let repeated = kind == "ARGV[" && header.repeated && index.starts_with('i');
            expect(fixed || repeated, format!("{kind}{index}] is not in the header"));
        }
    }
    expect(header.repeated == body.contains("#ARGV"), "repeated arguments differ from the header".into());
    for word in words(&code).filter(|word| word.starts_with("K.")) {
        expect(known.contains(word), format!("{word} is not in the header"));
    }

    let says = |word: &str, nothing: &str| header.says.get(word).is_some_and(|text| text != nothing);
    expect(
        says("Errors", "none") == code.contains("error_reply"),
        "its errors differ from the header".into(),
    );
    expect(
        says("Publishes", "nothing") == code.contains("SPUBLISH"),
        "its messages differ from the header".into(),
    );

    // Every key that is touched is one that was passed: by its name in K, and nothing else.
    for (command, first) in calls(&code) {
        expect(
            command == "TIME" || first.starts_with("K."),
            format!("{command} of something else: {first:.20}"),
        );
    }
    let writes = calls(&code).iter().any(|(command, _)| !READS.contains(command));
    expect(
        writes != text.starts_with("#!lua flags=no-writes\n"),
        "its flags differ from what it does".into(),
    );
    // Numbers: tostring and cjson lose digits; unpack fails at a list that is too long.
    for word in ["tostring", "cjson.encode", "cjson.decode", "unpack"] {
        expect(count(word) == 0, format!("{word} is not exact, or fails at large input"));
    }
    expect(!code.contains("redis.pcall"), "an error is not to be passed over".into());
    faults
}

#[test]
fn every_script_does_what_its_header_says() {
    for script in ALL {
        assert_eq!(faults(script.text, script.keys), [""; 0], "{}", script.name);
    }
}

#[test]
fn no_library_takes_an_input_by_itself() {
    for library in LIBRARIES {
        let code = without_comments(library);
        assert!(!code.contains("KEYS") && !code.contains("ARGV"));
    }
}

#[test]
fn every_file_is_in_the_table_and_no_longer_than_one_looks_over() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/redis/lua");
    let mut files = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            files.insert(path.file_stem().unwrap().to_str().unwrap().to_owned());
        }
    }
    assert_eq!(files, ALL.iter().map(|script| script.name.to_owned()).collect());
    for script in ALL {
        let lines =
            without_comments(own_part(script.text)).lines().filter(|line| !line.trim().is_empty()).count();
        assert!(lines <= 60, "{}: {lines} lines of code", script.name);
    }
}

// A check that passes everything guards nothing: each of these changes breaks a contract.
#[test]
fn a_broken_contract_is_found() {
    let changes = [
        ("add", "-- KEYS[7] inbox\n", ""),
        ("add", "-- KEYS[2] jobs\n-- KEYS[3] owner\n", "-- KEYS[2] owner\n-- KEYS[3] jobs\n"),
        ("add", "-- KEYS[10] changes\n", "-- KEYS[10] changes\n-- KEYS[11] meta\n"),
        ("add", "-- KEYS[7] inbox", "-- KEYS[6] inbox"),
        ("add", "-- ARGV[2] not_after", "-- ARGV[1] not_after"),
        ("add", "-- ARGV[2] not_after", "-- ARGV[2] deadline"),
        ("add", "-- ARGV[4...] job", "-- ARGV[4] job"),
        ("add", "now_us > not_after", "false"),
        ("add", "-- Errors LATE", "-- Errors none\n-- LATE"),
        ("add", "-- Publishes an `add` frame for each assigned job", "-- Publishes nothing"),
        ("add", "-- Returns", "-- returns"),
        ("add", "K.jobs, job, payload", "'jobs', job, payload"),
        ("add", "K.jobs, job, payload", "K.payloads, job, payload"),
        ("add", "tonumber(ARGV[2])", "tonumber(ARGV[9])"),
        ("add", "for i = 4, #ARGV", "for i = 3, #ARGV"),
        ("beat", "redis.call('ZCARD', K.pending)", "0"),
        ("beat", "-- ARGV[4] draining   1: no new job\n", ""),
        ("beat", "redis.call('ZRANK'", "redis.pcall('ZRANK'"),
        ("find", "redis.call('HGET', K.owner, job)", "redis.call('HDEL', K.owner, job)"),
        ("find", "local job = ARGV[1]", "local job = KEYS[4]"),
        ("leave", "evict(worker, limit)", "evict(worker, limit, judge_of(worker, 1, 1, {}))"),
        ("reserve", "int(", "tostring("),
    ];
    for (name, from, to) in changes {
        let script = ALL.iter().find(|script| script.name == name).unwrap();
        let own = own_part(script.text);
        let broken = own.replacen(from, to, 1);
        assert_ne!(broken, own, "{from:?} is not in {name}");
        let text = format!("{}{broken}", script.text.strip_suffix(own).unwrap());
        assert_ne!(faults(&text, script.keys), [""; 0], "{name}: {from:?} for {to:?} is not found");
    }
}
