//! How a command ends: its exit code, and errors on stderr.
//!
//! ```text
//! error: cannot read /etc/nasmount/nasmount.toml
//!   caused by: Permission denied (os error 13)
//!
//! hint: run it as root
//! ```

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

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

/// Writes an error with all its causes, and what to do if there is something.
pub fn write_error(out: &mut impl Write, error: &dyn Error, hint: Option<&str>) -> io::Result<()> {
    writeln!(out, "error: {error}")?;
    let mut cause = error.source();
    while let Some(error) = cause {
        writeln!(out, "  caused by: {error}")?;
        cause = error.source();
    }
    match hint {
        Some(hint) => writeln!(out, "\nhint: {hint}"),
        None => Ok(()),
    }
}

/// Writes an error to stderr. That stderr is gone is no reason to fail in another way.
pub fn report(error: &dyn Error, hint: Option<&str>) {
    let _ = write_error(&mut io::stderr().lock(), error, hint);
}

/// The exit code of a command once what it says was written: a reader that has gone away (`| head`) changes nothing.
pub fn finish(exit: Exit, written: io::Result<()>) -> Exit {
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
    fn a_reader_that_left_changes_nothing() {
        let gone = || Err(io::ErrorKind::BrokenPipe.into());
        assert_eq!(finish(Exit::Done, gone()), Exit::Done);
        assert_eq!(finish(Exit::Usage, gone()), Exit::Usage);
        assert_eq!(finish(Exit::Usage, Ok(())), Exit::Usage);
        assert_eq!(finish(Exit::Done, Err(io::ErrorKind::StorageFull.into())), Exit::Failed);
    }
}
