//! How a command ends: its exit code, what it prints, and errors on stderr; with `--json` also on stdout, unless a document is there.
//!
//! ```text
//! error: cannot read /etc/nasmount/nasmount.toml
//!   caused by: Permission denied (os error 13)
//!
//! hint: run it as root
//! ```
//!
//! All that is printed for people goes through here: names come from servers, from other programs and from the command line, and may have
//! characters that a terminal obeys. A line break in an error is none of ours, either.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::config::{escaped, escaped_lines};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// Done, or already so.
    Done = 0,
    /// Failed.
    Failed = 1,
    /// Wrong usage or an invalid configuration.
    Usage = 2,
    /// The share is not healthy, or the command was refused in this state.
    Refused = 3,
    /// There is no such share.
    NoSuchShare = 4,
}

/// How much a command says besides its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Talk {
    /// What there is to know.
    Usual,
    /// Only what went wrong.
    Quiet,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Version of the form of a failure with `--json`.
const SCHEMA: u32 = 1;

/// What went wrong, for programs.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
}

/// What a run that was asked for JSON has printed of it.
#[derive(Debug)]
enum Document {
    NotAskedFor,
    Awaited(Option<Failure>),
    Printed,
}

static DOCUMENT: Mutex<Document> = Mutex::new(Document::NotAskedFor);

fn with_document<T>(doing: impl FnOnce(&mut Document) -> T) -> T {
    doing(&mut DOCUMENT.lock().unwrap_or_else(PoisonError::into_inner))
}

/// `--json` was typed: whatever happens, there is going to be a document on stdout.
pub fn expect_json() {
    with_document(|document| *document = Document::Awaited(None));
}

/// The end of a run: one that failed before it had its document prints what went wrong instead.
pub fn conclude(exit: Exit) -> Exit {
    let failure = with_document(|document| match std::mem::replace(document, Document::Printed) {
        Document::Awaited(failure) if exit != Exit::Done => Some(failure.unwrap_or_else(|| Failure {
            message: "it failed".to_owned(),
            causes: Vec::new(),
            hint: Some("what is on standard error says why".to_owned()),
        })),
        Document::Awaited(_) | Document::NotAskedFor | Document::Printed => None,
    });
    match failure {
        Some(failure) => finish(exit, write_out(&format!("{:#}\n", document_of(&failure)))),
        None => exit,
    }
}

fn document_of(failure: &Failure) -> serde_json::Value {
    serde_json::json!({ "schema": SCHEMA, "error": failure })
}

/// An error and its causes. One that repeats what is said before it is left out: some errors of D-Bus and of the system name their cause
/// themselves.
pub fn chain(error: &dyn Error) -> Vec<String> {
    let mut said = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if said.last().is_none_or(|before| !before.ends_with(&text)) {
            said.push(text);
        }
        cause = error.source();
    }
    said
}

/// The same in one line.
pub fn in_one_line(error: &dyn Error) -> String {
    chain(error).join(": ")
}

/// Writes an error with all its causes, and what to do if there is something.
pub fn write_error(out: &mut impl Write, error: &dyn Error, hint: Option<&str>) -> io::Result<()> {
    for (number, text) in chain(error).iter().enumerate() {
        let label = if number == 0 { "error" } else { "  caused by" };
        writeln!(out, "{label}: {}", escaped(text))?;
    }
    match hint {
        Some(hint) => writeln!(out, "\nhint: {}", escaped_lines(hint)),
        None => Ok(()),
    }
}

/// Writes an error to stderr, and keeps it for stdout if that is waiting for JSON. That stderr is gone is no reason to fail in another way.
pub fn report(error: &dyn Error, hint: Option<&str>) {
    let _ = write_error(&mut io::stderr().lock(), error, hint);
    let mut causes = chain(error);
    let message = causes.remove(0);
    keep_failure(Failure { message, causes, hint: hint.map(str::to_owned) });
}

/// Keeps what was said on stderr already.
pub fn keep(message: &str, hint: &str) {
    keep_failure(Failure { message: message.to_owned(), causes: Vec::new(), hint: Some(hint.to_owned()) });
}

/// The first counts: what follows is its consequence.
fn keep_failure(failure: Failure) {
    with_document(|document| {
        if let Document::Awaited(first @ None) = document {
            *first = Some(failure);
        }
    });
}

/// Says something on stderr. Nobody reads it: no reason to fail.
pub fn say(text: &str) {
    let _ = io::stderr().lock().write_all(escaped_lines(text).as_bytes());
}

/// Prints what a command found, and ends as it would.
pub fn print(exit: Exit, text: &str) -> Exit {
    finish(exit, write_out(text))
}

fn write_out(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(escaped_lines(text).as_bytes()).and_then(|()| out.flush())
}

/// The exit code of a command once what it says was written: a reader that has gone away (`| head`) changes nothing.
pub fn finish(exit: Exit, written: io::Result<()>) -> Exit {
    with_document(|document| {
        if let Document::Awaited(_) = document {
            *document = Document::Printed;
        }
    });
    match written {
        Ok(()) => exit,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => exit,
        Err(error) => {
            report(&error, None);
            Exit::Failed
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read /x")]
    struct Outer(#[source] io::Error);

    #[test]
    fn the_chain_is_printed_whole() {
        let mut out = Vec::new();
        let error = Outer(io::Error::other("the disk is on fire"));
        write_error(&mut out, &error, Some("call somebody")).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "error: cannot read /x\n  caused by: the disk is on fire\n\nhint: call somebody\n");
    }

    #[test]
    fn a_cause_that_was_said_is_not_said_again() {
        let error = anyhow::Error::msg("no route to host")
            .context("org.freedesktop.DBus.Error.X: no route to host")
            .context("cannot reach systemd");
        assert_eq!(in_one_line(error.as_ref()), "cannot reach systemd: org.freedesktop.DBus.Error.X: no route to host");
    }

    #[test]
    fn no_error_writes_lines_or_commands_of_its_own() {
        let mut out = Vec::new();
        write_error(&mut out, &Outer(io::Error::other("x\n\u{1b}[2Jerror: y\u{202e}")), Some("a\u{9b}b\nc")).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "error: cannot read /x\n  caused by: x\\n\\u001b[2Jerror: y\\u202e\n\nhint: a\\u009bb\nc\n");
    }

    #[test]
    fn a_failure_has_its_form() {
        let failure = Failure { message: "m".to_owned(), causes: vec!["c".to_owned()], hint: None };
        crate::cli::validate::conforms("error", &document_of(&failure));
    }

    #[test]
    fn a_reader_that_left_changes_nothing() {
        let gone = || Err(io::ErrorKind::BrokenPipe.into());
        assert_eq!(finish(Exit::Done, gone()), Exit::Done);
        assert_eq!(finish(Exit::Usage, gone()), Exit::Usage);
        assert_eq!(finish(Exit::Usage, Ok(())), Exit::Usage);
        assert_eq!(finish(Exit::Done, Err(io::ErrorKind::StorageFull.into())), Exit::Failed);
    }
}
