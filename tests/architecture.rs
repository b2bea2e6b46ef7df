//! The directions of the program: what the pure rooms may not name, where `unsafe` may be, and how long things may get.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test that reads the source")]

use std::path::{Path, PathBuf};

/// No clock, no I/O, no host in what decides.
const PURE: [&str; 4] = ["src/config", "src/plan", "src/share", "src/status.rs"];
const IMPURE: [&str; 18] = [
    "tokio",
    "zbus",
    "nix",
    "sys_mount",
    "rustix",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "std::os",
    "Instant::now",
    "SystemTime",
    "HashMap",
    "HashSet",
    "crate::sys",
    "crate::daemon",
    "crate::dbus",
    "crate::cli",
];

const MOST_LINES: usize = 600;
const MOST_LINES_OF_A_FUNCTION: usize = 70;

fn sources(under: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(under);
    if root.is_file() {
        return vec![root];
    }
    let mut found = Vec::new();
    let mut left = vec![root];
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The lines of code of a file, numbered; comments and what a string literal says do not count.
fn code(path: &Path) -> Vec<(usize, String)> {
    let text = std::fs::read_to_string(path).unwrap();
    let mut in_block = false;
    let without = |line: &str| {
        let mut kept = String::new();
        let mut in_text = false;
        let mut previous = ' ';
        for character in line.chars() {
            if character == '"' && previous != '\\' && previous != '\'' {
                in_text = !in_text;
            } else if !in_text && character == '/' && previous == '/' {
                break;
            } else if !(in_text || previous == '\'' && matches!(character, '{' | '}')) {
                kept.push(character);
            }
            previous = if previous == '\\' && character == '\\' { ' ' } else { character };
        }
        kept
    };
    text.lines()
        .enumerate()
        .filter(|(_, line)| {
            in_block |= line.trim_start().starts_with("/*");
            let skipped = in_block;
            in_block &= !line.contains("*/");
            !skipped
        })
        .map(|(number, line)| (number + 1, without(line)))
        .collect()
}

/// Does `line` name `word` as a path of its own, not as part of another name?
fn names(line: &str, word: &str) -> bool {
    let part = |character: char| character.is_alphanumeric() || character == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].chars().next_back().is_some_and(part) && !line[at + word.len()..].chars().next().is_some_and(part)
    })
}

fn report(found: &[String]) {
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn what_decides_touches_nothing() {
    let found: Vec<String> = PURE
        .iter()
        .flat_map(|room| sources(room))
        .flat_map(|path| {
            code(&path).into_iter().filter_map(move |(number, line)| {
                let word = IMPURE.iter().find(|word| names(&line, word))?;
                Some(format!("{}:{number}: {word}", path.display()))
            })
        })
        .collect();
    report(&found);
    assert!(sources("src/share").len() > 5, "the rooms have moved");
}

#[test]
fn unsafe_is_in_sys_only() {
    let outside = sources("src").into_iter().filter(|path| !path.components().any(|part| part.as_os_str() == "sys"));
    let found: Vec<String> = outside
        .chain(sources("tests").into_iter().filter(|path| !path.ends_with("architecture.rs")))
        .flat_map(|path| {
            code(&path)
                .into_iter()
                .filter(|(_, line)| names(line, "unsafe"))
                .map(move |(number, _)| format!("{}:{number}: unsafe", path.display()))
        })
        .collect();
    report(&found);
}

#[test]
fn files_and_functions_can_be_held_in_the_head() {
    let mut found = Vec::new();
    for path in sources("src").into_iter().chain(sources("tests")) {
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        if lines >= MOST_LINES {
            found.push(format!("{}: {lines} lines", path.display()));
        }
        found.extend(long_functions(&path));
    }
    report(&found);
}

/// From the line with `fn` to the line that closes its brace.
fn long_functions(path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut depth: usize = 0;
    let mut open: Vec<(usize, usize)> = Vec::new();
    let mut waiting = None;
    for (number, line) in code(path) {
        if names(&line, "fn") && line.contains('(') && waiting.is_none() && !names(&line, "type") {
            waiting = Some(number);
        }
        for character in line.chars() {
            match character {
                '{' => {
                    if let Some(start) = waiting.take() {
                        open.push((depth, start));
                    }
                    depth += 1;
                }
                '}' => {
                    depth = depth.saturating_sub(1);
                    if let Some((_, start)) = open.pop_if(|(at, _)| *at == depth)
                        && number - start >= MOST_LINES_OF_A_FUNCTION
                    {
                        found.push(format!("{}:{start}: {} lines", path.display(), number + 1 - start));
                    }
                }
                ';' if depth == open.last().map_or(0, |(at, _)| at + 1) => waiting = None,
                _ => {}
            }
        }
    }
    found
}

/// The tests above find what they look for.
#[test]
fn the_counters_count() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("long.rs");
    let body = "    call(\"fn } {\", '{'); // fn {\n".repeat(70);
    std::fs::write(&path, format!("fn short() {{\n}}\nfn long(a: u8)\n{{\n{body}}}\n")).unwrap();
    let found = long_functions(&path);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains(":3: 73 lines"), "{found:?}");
    assert!(names("use std::fs::read;", "std::fs") && !names("my_tokio::x", "tokio") && !names("use unixy", "nix"));
}
