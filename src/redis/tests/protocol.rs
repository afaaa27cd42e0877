//! PROTOCOL.md tells of every script, key and command, and its examples are what the crate reads.

use std::collections::BTreeSet;

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
        for (command, _) in calls(&code) {
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
