//! PROTOCOL.md tells of every script, key and command, and its examples are what the crate reads.

use std::collections::{BTreeMap, BTreeSet};

use super::headers::{calls, header, own_part, without_comments};
use crate::redis::script::ALL;
use crate::wire::frame;
use crate::wire::keys::Keys;

const PROTOCOL: &str = include_str!("../../../PROTOCOL.md");

// A worker in another language is written from PROTOCOL.md alone.
#[test]
fn protocol_md_tells_of_every_script_key_and_command() {
    for script in ALL {
        assert!(PROTOCOL.contains(&format!("\n### {}\n", script.name)), "no section on {}", script.name);
        let header = header(own_part(script.text)).expect("a header");
        let section = section(script.name);
        assert_eq!(listed(section, "KEYS"), header.keys.join(", "), "{}", script.name);
        let args = header.args.join(", ");
        assert_eq!(listed(section, "ARGV"), if args.is_empty() { "none" } else { &args }, "{}", script.name);
        assert_eq!(header.keys.len(), script.keys, "{}", script.name);
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
        for (command, _) in calls(&code) {
            assert!(
                granted.contains(&*command.to_lowercase()),
                "{command} of {} is not in the ACL",
                script.name
            );
        }
    }
}

// Who sends a script from another language puts it together as PROTOCOL.md says.
#[test]
fn protocol_md_says_of_what_each_script_is_made() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/redis/lua");
    let read = |name: &str| std::fs::read_to_string(format!("{folder}/{name}.lua")).expect(name);
    let table = PROTOCOL.split("| scripts | libraries |").nth(1).expect("a table");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let mut made = BTreeMap::new();
    for row in rows {
        let cells: Vec<_> = row.trim_matches(['|', ' ']).split(" | ").collect();
        let libraries: String =
            cells[1].split(", ").map(|name| read(&format!("lib/{}", name.trim()))).collect();
        for script in cells[0].split(", ") {
            made.insert(script, libraries.clone() + &read(script));
        }
    }
    for script in ALL {
        let (flags, text) = script.text.split_once('\n').expect("a first line");
        assert_eq!(made.get(script.name).map(String::as_str), Some(text), "{}", script.name);
        let section = section(script.name);
        let says = [("ro", "no-writes"), ("oom", "allow-oom")]
            .map(|(short, long)| (section.contains(&format!("Flags: {short}")), flags.contains(long)));
        assert!(says.iter().all(|(said, is)| said == is), "the flags of {}", script.name);
    }
    assert_eq!(made.len(), ALL.len());
}

/// What a section lists of a kind: all of its line, but for what is said of it in brackets.
fn listed(section: &'static str, kind: &str) -> &'static str {
    let mut lines = section.lines().filter_map(|line| line.strip_prefix(&format!("- {kind}: ")));
    let line = lines.next().unwrap_or_default();
    assert_eq!(lines.next(), None, "one {kind} line");
    line.split(" (").next().unwrap_or_default()
}

/// What PROTOCOL.md has on a script.
fn section(script: &str) -> &'static str {
    let rest = PROTOCOL.split(&format!("\n### {script}\n")).nth(1).unwrap_or_default();
    rest.split("\n### ").next().unwrap_or_default().split("\n## ").next().unwrap_or_default()
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
            Some("changes") => format!("{:?}", frame::batch(&bytes).expect(title)),
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
    assert!(seen.len() >= 8, "{seen:?}");
}
