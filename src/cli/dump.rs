//! `nasmount dump`: what happened to a share, for `replay` and for bug reports.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;

use super::client::{Client, block_on};
use super::configured;
use super::report::{self, Exit};
use crate::sys::recordings;

/// `dump SHARE [--output FILE]`
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Share, or its mount point
    share: String,
    /// Write to this file, readable by root only, instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Prints the recording. 0, or 4 if there is no such share.
pub fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    let text = block_on(async {
        let client = Client::connect().await?;
        Ok(match configured::share(&client.status().await?.shares, &arguments.share) {
            Ok(share) => client.dump(&share.name).await?.ok_or(Exit::NoSuchShare), // else it has gone in between
            Err(exit) => Err(exit),
        })
    })?;
    let text = match text {
        Ok(text) => text,
        Err(exit) => return Ok(exit),
    };
    match &arguments.output {
        Some(path) => {
            recordings::write_to(path, &text).with_context(|| format!("cannot write {}", path.display()))?;
            Ok(Exit::Done)
        }
        None => Ok(report::finish(Exit::Done, std::io::stdout().write_all(text.as_bytes()))),
    }
}
