//! `nasmount reload`: has the daemon take over a changed configuration.

use super::client::{Client, block_on};
use super::report::{self, Exit};
use crate::daemon::reload::Outcome;

/// Version of what `--json` prints. Additions do not change it.
pub const JSON_SCHEMA: u32 = 1;

/// `reload [--dry-run] [--json]`
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Only say what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// 0; 2 if the configuration is not valid, and then nothing has changed; 1 if something of it could not be done.
pub fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    let outcome = block_on(async { Client::connect().await?.reload(arguments.dry_run).await })?;
    let exit = match &outcome {
        Outcome::Invalid { .. } => Exit::Usage,
        Outcome::Planned { failed, .. } if failed.is_empty() => Exit::Done,
        Outcome::Planned { .. } => Exit::Failed,
    };
    if arguments.json {
        let text = serde_json::to_string_pretty(&document(&outcome)?)? + "\n";
        return Ok(report::print(exit, &text));
    }
    let (out, err) = told(&outcome, arguments.dry_run);
    report::say(&err);
    Ok(report::print(exit, &out))
}

fn document(outcome: &Outcome) -> serde_json::Result<serde_json::Value> {
    let mut document = serde_json::to_value(outcome)?;
    document["schema"] = JSON_SCHEMA.into();
    Ok(document)
}

/// What goes to stdout, the plan of a dry run, and what to stderr, all else.
fn told(outcome: &Outcome, dry_run: bool) -> (String, String) {
    let lines =
        |prefix: &str, texts: &[String]| -> String { texts.iter().map(|text| format!("{prefix}{text}\n")).collect() };
    match outcome {
        Outcome::Invalid { problems } => {
            (String::new(), format!("{problems}\n\nerror: the configuration is not valid; the one in force stays\n"))
        }
        Outcome::Planned { steps, .. } if steps.is_empty() => (String::new(), "nothing has changed\n".to_owned()),
        Outcome::Planned { steps, notes, failed } => {
            let notes = lines("note: ", notes) + &lines("error: ", failed);
            if dry_run { (lines("", steps), notes) } else { (String::new(), lines("", steps) + &notes) }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn each_outcome_has_its_form() {
        let (steps, notes, failed) = (vec!["share a: mount it".to_owned()], Vec::new(), Vec::new());
        for outcome in [Outcome::Invalid { problems: "why".into() }, Outcome::Planned { steps, notes, failed }] {
            crate::cli::validate::conforms("reload", &document(&outcome).unwrap());
        }
    }

    #[test]
    fn a_plan_goes_to_stdout_and_what_was_done_to_stderr() {
        let outcome = Outcome::Planned {
            steps: vec!["share a: mount it".into()],
            notes: vec!["share b: remount it".into()],
            failed: vec!["share c: it is stuck".into()],
        };
        let talk = "note: share b: remount it\nerror: share c: it is stuck\n";
        assert_eq!(told(&outcome, true), ("share a: mount it\n".into(), talk.into()));
        assert_eq!(told(&outcome, false), (String::new(), format!("share a: mount it\n{talk}")));
    }
}
