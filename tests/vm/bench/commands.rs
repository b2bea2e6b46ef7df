//! Commands in the guest, timed there: a process start of the driver costs more than most of what is measured.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::report::Took;
use crate::guest::Guest;

/// For what the guest needs around a command.
const MARGIN: Duration = Duration::from_secs(60);

/// One run of a command.
#[derive(Clone, Debug, Deserialize)]
pub struct Run {
    #[serde(rename = "s")]
    pub seconds: f64,
    /// Its exit code, or "blocked".
    pub result: String,
    /// The end of what it wrote to standard error.
    pub said: String,
}

impl Run {
    pub fn took(&self) -> Took {
        Took { seconds: self.seconds, ended: self.result != "blocked" }
    }
}

/// Runs named commands at the same time, each so many times in sequence and no longer than the limit.
pub fn run(
    guest: &Guest,
    limit: Duration,
    times: u32,
    commands: &[(&str, &str)],
) -> Result<BTreeMap<String, Vec<Run>>> {
    let words: Vec<String> = commands.iter().map(|(name, command)| format!("'{name}' '{command}'")).collect();
    let command =
        format!("/host/guest/bench.py commands --limit {} --times {times} {}", limit.as_secs(), words.join(" "));
    let output = guest.run_within(limit * times + MARGIN, &command)?;
    serde_json::from_str(&output.stdout).with_context(|| format!("`{command}` said {output:?}"))
}
