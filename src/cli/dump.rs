//! `nasmount dump`: what happened to a share, for `replay` and for bug reports.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;

use super::Hinted;
use super::client::{Client, block_on};
use super::report::{self, Exit};
use crate::sys::recordings;

/// `dump SHARE [--output FILE]`
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Share
    share: String,
    /// Write to this file, readable by root only, instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Prints the recording. 0, or 4 if there is no such share.
pub fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    let text = block_on(async { Client::connect().await?.dump(&arguments.share).await })?;
    let Some(text) = text else {
        let error = Hinted::new(format!("there is no share {}", arguments.share), "`nasmount status` lists them");
        report::report(&error, Some(&error.hint));
        return Ok(Exit::NoSuchShare);
    };
    match &arguments.output {
        Some(path) => {
            recordings::write_to(path, &text).with_context(|| format!("cannot write {}", path.display()))?;
            Ok(Exit::Done)
        }
        None => Ok(report::finish(Exit::Done, std::io::stdout().write_all(text.as_bytes()))),
    }
}
