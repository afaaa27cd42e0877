//! The house rules that a program can check. What they are for is told in CONTRIBUTING.md.
//!
//! Sources are read as text, line by line: good enough for code that rustfmt has formatted, and no parser is needed.

use std::collections::HashSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// A line of a source file that is neither a comment nor part of a test.
struct Line {
    /// The file's path from the crate's root, with `/`.
    file: String,
    number: usize,
    code: String,
}

#[test]
fn the_core_knows_no_network_no_runtime_and_no_clock() {
    let others = ["fred", "tokio", "tokio_util", "futures"].map(|name| format!("{name}::"));
    let clocks = ["Instant::now", "SystemTime", ".elapsed()", "thread::", "std::net", ".await", "async "];
    let rule = "src/core decides by what it is given: values, and `now` as an argument";
    let lines = code_under("src", &["rs"]);
    let core = || lines.iter().filter(|line| is_in(line, "src/core"));
    assert!(core().count() > 100, "the core is where this test looks for it");
    check(rule, core(), |line| {
        let names = |name: &&str| line.code.contains(*name);
        let foreign = paths_from_crate(&line.code)
            .any(|name| !["core", "change", "id", "message", "error"].contains(&name));
        foreign
            || others.iter().map(String::as_str).any(|name| names_path(&line.code, name))
            || clocks.iter().any(names)
    });
}

#[test]
fn only_one_file_makes_names_of_keys_and_channels() {
    let own = "src/wire/keys.rs";
    let lines = code_under("src", &["rs", "lua"]);
    let names: HashSet<&str> = lines
        .iter()
        .filter(|line| line.file == own)
        .flat_map(|line| literals(&line.code))
        .filter(|name| name.trim_end_matches(':').chars().all(|c| c.is_ascii_lowercase()))
        .map(|name| name.trim_end_matches(':'))
        .filter(|name| !name.is_empty())
        .collect();
    assert!(names.contains("jobs") && names.contains("lock"), "the names are found: {names:?}");
    let rule = "names of keys and channels are made in src/wire/keys.rs; scripts get them by KEYS and ARGV";
    check(rule, lines.iter().filter(|line| line.file != own), |line| {
        literals(&line.code).any(|text| {
            text.contains("__key")
                || text.split(':').skip(1).any(|part| {
                    let end = part.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(part.len());
                    names.contains(&part[..end])
                })
        })
    });
}

#[test]
fn fred_is_named_only_where_redis_is_talked_to() {
    let rule = "fred is named in src/redis, in src/cluster.rs (embedding) and where lib.rs exports it";
    let lines = code_under("src", &["rs"]);
    let others = lines.iter().filter(|line| !is_in(line, "src/redis") && line.file != "src/cluster.rs");
    check(rule, others, |line| {
        let export = line.file == "src/lib.rs" && line.code.trim() == "pub use fred;";
        !export && (names_path(&line.code, "fred::") || line.code.contains("use fred;"))
    });
}

#[test]
fn nothing_that_can_panic_is_asked_of_a_value() {
    let rule = "no `unwrap` or `expect` outside tests: say what is wrong by an error, or show by a pattern that it is right";
    let lines = code_under("src", &["rs"]);
    let calls =
        [".unwrap()", ".expect(", ".unwrap_err()", "panic!(", "unreachable!(", "todo!(", "unimplemented!("];
    check(rule, lines.iter(), |line| calls.iter().any(|call| line.code.contains(call)));
}

#[test]
fn a_lint_is_switched_off_with_a_reason() {
    let mut bad = String::new();
    for file in ["src", "tests", "examples", "benches"].iter().flat_map(|folder| files_under(folder, &["rs"]))
    {
        let text = read(&file);
        for (start, _) in text.match_indices("#[allow(").chain(text.match_indices("#![allow(")) {
            let end = text[start..].find(")]").map_or(text.len(), |length| start + length);
            let in_literal = text[..start].ends_with('"');
            if !in_literal && !text[start..end].contains("reason = \"") {
                let _ = writeln!(bad, "  {}:{}", file, text[..start].matches('\n').count() + 1);
            }
        }
    }
    assert!(bad.is_empty(), "an #[allow] says why, by `reason = \"...\"`:\n{bad}");
}

#[test]
fn an_example_in_the_documentation_is_compiled() {
    let mut bad = String::new();
    for file in files_under("src", &["rs"]) {
        for (number, line) in read(&file).lines().enumerate() {
            let fence = line.trim_start().trim_start_matches('/').trim_start_matches('!').trim_start();
            if fence.starts_with("```") && fence.contains("ignore") {
                let _ = writeln!(bad, "  {file}:{}", number + 1);
            }
        }
    }
    assert!(bad.is_empty(), "an example runs, or is `no_run`, and never `ignore`:\n{bad}");
}

/// What a caller must know of every public future: how it fails, and what is left if it is dropped.
#[test]
fn a_public_async_fn_says_how_it_fails_and_what_dropping_it_does() {
    let mut bad = String::new();
    for file in files_under("src", &["rs"]) {
        let text = read(&file);
        let mut doc = String::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim_start();
            if let Some(words) = line.strip_prefix("///") {
                doc.push_str(words);
                doc.push('\n');
            } else if !line.starts_with("#[") {
                if line.starts_with("pub async fn") {
                    let fails = text
                        .lines()
                        .skip(number)
                        .take_while(|line| !line.is_empty())
                        .any(|line| line.contains("-> Result"));
                    if !doc.contains("# Cancel safety") || (fails && !doc.contains("# Errors")) {
                        let _ = writeln!(bad, "  {file}:{}: {line}", number + 1);
                    }
                }
                doc.clear();
            }
        }
    }
    assert!(bad.is_empty(), "`# Errors` and `# Cancel safety` are missing:\n{bad}");
}

/// Fails with all lines that are bad.
fn check<'a>(rule: &str, lines: impl Iterator<Item = &'a Line>, is_bad: impl Fn(&Line) -> bool) {
    let bad = lines.filter(|line| is_bad(line)).fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "  {}:{}: {}", line.file, line.number, line.code.trim());
        text
    });
    assert!(bad.is_empty(), "{rule}:\n{bad}");
}

/// Whether a line is of a module: its file, or one in its folder.
fn is_in(line: &Line, module: &str) -> bool {
    line.file.strip_prefix(module).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

/// Whether the code has a path that begins with this, such as `fred::`, and not `pub_fred::`.
fn names_path(code: &str, start: &str) -> bool {
    code.match_indices(start)
        .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'))
}

/// What follows each `crate::`; nothing for a group, which no file may have then.
fn paths_from_crate(code: &str) -> impl Iterator<Item = &str> {
    code.split("crate::").skip(1).map(|rest| {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        &rest[..end]
    })
}

/// The string literals of a line, without their quotes.
fn literals(code: &str) -> impl Iterator<Item = &str> {
    let mut rest = code;
    std::iter::from_fn(move || {
        let start = rest.find(['"', '\''])?;
        let quote = char::from(rest.as_bytes()[start]);
        let body = &rest[start + 1..];
        let mut escaped = false;
        let end = body.find(|c| {
            let ends = c == quote && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        // A lifetime has no second quote: it is not skipped over.
        let literal = &body[..end.unwrap_or(0)];
        rest = &body[end.map_or(0, |end| end + 1)..];
        Some(literal)
    })
}

/// The code of all files under a folder, without comments and tests.
fn code_under(folder: &str, extensions: &[&str]) -> Vec<Line> {
    let files = files_under(folder, extensions);
    let texts: Vec<(String, String)> = files.into_iter().map(|file| (read(&file), file)).collect();
    let tests: Vec<String> = texts.iter().flat_map(|(text, file)| test_modules(text, file)).collect();
    let is_test = |file: &str| {
        tests.iter().any(|module| {
            file.strip_prefix(module.as_str()).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        })
    };
    texts.iter().filter(|(_, file)| !is_test(file)).flat_map(|(text, file)| code_of(text, file)).collect()
}

/// The modules in files of their own that a file declares for tests only: their paths without `.rs`.
fn test_modules(text: &str, file: &str) -> Vec<String> {
    let folder = match file.strip_suffix("/lib.rs") {
        Some(folder) => folder,
        None => file.trim_end_matches(".rs"),
    };
    let mut lines = text.lines().map(str::trim);
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        if line == "#[cfg(test)]"
            && let Some(next) = lines.next()
            && let Some(name) = next.strip_suffix(';').and_then(|next| next.split("mod ").nth(1))
        {
            found.push(format!("{folder}/{name}"));
        }
    }
    found
}

fn code_of(text: &str, file: &str) -> Vec<Line> {
    let (comment, is_rust) = if file.ends_with(".rs") { ("//", true) } else { ("--", false) };
    let mut lines = text.lines().enumerate();
    let mut code = Vec::new();
    while let Some((number, line)) = lines.next() {
        if is_rust && line.trim() == "#[cfg(test)]" {
            // The item that follows: to its closing brace, which rustfmt puts under its beginning, or to its end.
            let indent = &line[..line.len() - line.trim_start().len()];
            let mut braces = false;
            for (_, line) in lines.by_ref() {
                braces |= line.ends_with('{');
                let closes = line.strip_prefix(indent).is_some_and(|rest| rest.starts_with('}'));
                if if braces {
                    closes
                } else {
                    line.ends_with(';') || line.ends_with('}') || line.ends_with(',')
                } {
                    break;
                }
            }
            continue;
        }
        let words = if line.trim_start().starts_with(comment) { "" } else { line };
        let words = words.split(&format!(" {comment} ")).next().unwrap_or_default();
        if !words.trim().is_empty() {
            code.push(Line { file: file.to_owned(), number: number + 1, code: words.to_owned() });
        }
    }
    code
}

/// The files of a folder of the crate and below, in order; none if there is no such folder.
fn files_under(folder: &str, extensions: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(root().join(folder)) else { return found };
    for entry in entries {
        let path = entry.expect("the folder can be read").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a plain name");
        let file = format!("{folder}/{name}");
        if path.is_dir() {
            found.extend(files_under(&file, extensions));
        } else if path.extension().is_some_and(|found| extensions.iter().any(|wanted| found == *wanted)) {
            found.push(file);
        }
    }
    found.sort();
    found
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// A check that finds nothing is worth nothing: each must find what it is for.
mod the_checks_themselves {
    use super::*;

    #[test]
    fn tests_and_comments_are_left_out_and_code_is_not() {
        let text = "//! fred::a\nuse b; // c\n#[cfg(test)]\nmod tests;\nfn d() {\n    #[cfg(test)]\n    e();\n    f();\n}\n\
                    #[cfg(test)]\nmod tests {\n    fn g() {\n    }\n}\nfn h() {}\n";
        let code: Vec<String> = code_of(text, "src/x.rs").into_iter().map(|line| line.code).collect();
        assert_eq!(code, ["use b;", "fn d() {", "    f();", "}", "fn h() {}"]);
        assert_eq!(test_modules(text, "src/x.rs"), ["src/x/tests"]);
        assert_eq!(test_modules(text, "src/lib.rs"), ["src/tests"]);
    }

    #[test]
    fn names_are_found_and_their_likes_are_not() {
        assert!(names_path("use fred::clients::Client;", "fred::") && names_path("(fred::x)", "fred::"));
        assert!(!names_path("alfred::x()", "fred::") && !names_path("crate::fred::x", "fred::"));
        assert_eq!(
            paths_from_crate("use crate::wire::keys; crate::id::X").collect::<Vec<_>>(),
            ["wire", "id"]
        );
        assert_eq!(paths_from_crate("use crate::{wire}").collect::<Vec<_>>(), [""]);
        assert_eq!(literals(r#"f("a:jobs", 'b', "\"c")"#).collect::<Vec<_>>(), ["a:jobs", "b", "\\\"c"]);
        assert!(literals(r#"fn f<'a>(x: &'a str) { "{}:lock:" }"#).any(|text| text == "{}:lock:"));
    }
}
