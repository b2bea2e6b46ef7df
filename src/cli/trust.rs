//! `nasmount trust SERVER`: what ssh-keygen -R is to a host that was installed anew.

use super::client::{Client, block_on};
use super::report::{self, Exit};
use crate::share::Verdict;

/// Version of the form of `--json`.
const SCHEMA: u32 = 1;

/// Which server.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Server, by its name in the configuration
    server: String,
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
}

/// 0: it is trusted, or nobody else answers in its place; 4: no such server.
pub fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    let server = &arguments.server;
    let verdict = block_on(async { Client::connect().await?.trust(server).await })?;
    let Some(verdict) = verdict else {
        let hint = "`nasmount status --json` lists them under `servers`";
        return Ok(super::configured::no_such("server", server, &[], hint));
    };
    let text = match (arguments.json, verdict) {
        (true, _) => format!("{}\n", document(server, verdict)),
        (false, Verdict::Accepted) => format!("{server}: the machine that answers now is trusted\n"),
        (false, Verdict::AlreadySo) => format!("{server}: nobody else answers in its place\n"),
    };
    Ok(report::print(Exit::Done, &text))
}

fn document(server: &str, verdict: Verdict) -> serde_json::Value {
    serde_json::json!({ "schema": SCHEMA, "server": server, "outcome": verdict })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_has_its_form() {
        for verdict in [Verdict::Accepted, Verdict::AlreadySo] {
            crate::cli::validate::conforms("trust", &document("tower", verdict));
        }
    }
}
