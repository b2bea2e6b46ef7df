//! `nasmount mount|unmount|remount|hold|release|maintenance|wait`: put a wish, wait until it has come true, say so.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context as _;

use super::client::{Answer, Client, Wish, block_on};
use super::configured::{self, no_such};
use super::report::{self, Exit};
use crate::share::command::{HoldReason, Wanted};
use crate::share::consumers::Progress;
use crate::share::{State, Verdict};
use crate::status::{ShareStatus, StatusReport};
use crate::sys::clock;

/// Version of the form of `--json`.
const SCHEMA: u32 = 1;
/// How often it is looked whether a wish has come true.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// State changes nearer to each other than this are the same one, read twice from two clocks.
const SAME_MOMENT: f64 = 0.01;

/// Which shares.
#[derive(Debug, clap::Args)]
struct Which {
    /// Shares, by their names or mount points
    #[arg(required_unless_present = "all", value_name = "SHARE")]
    shares: Vec<String>,
    /// All shares
    #[arg(long, conflicts_with = "shares")]
    all: bool,
}

impl Which {
    /// Their names; that there is none of one of them has been said.
    fn among(&self, report: &StatusReport) -> Result<BTreeSet<String>, Exit> {
        if self.all {
            return Ok(report.shares.iter().map(|share| share.name.clone()).collect());
        }
        let name = |typed: &String| configured::share(&report.shares, typed).map(|share| share.name.clone());
        self.shares.iter().map(name).collect()
    }
}

/// Which shares, and how long to wait.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    which: Which,
    /// Return as soon as it is accepted
    #[arg(long)]
    no_wait: bool,
    /// How long to wait for it at most
    #[arg(long, default_value = "2min", value_name = "TIME", value_parser = humantime::parse_duration, conflicts_with = "no_wait")]
    timeout: Duration,
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
}

/// `maintenance on|off`
#[derive(Debug, clap::Subcommand)]
pub enum Maintenance {
    /// Hands off: nasmount watches and changes nothing
    #[command(after_help = "Example:\n  sudo nasmount maintenance on films --for 1h")]
    On {
        /// Which shares
        #[command(flatten)]
        arguments: Arguments,
        /// End it by itself after this long
        #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
        lasting: Option<Duration>,
    },
    /// Hands on again
    #[command(after_help = "Example:\n  sudo nasmount maintenance off films")]
    Off {
        /// Which shares
        #[command(flatten)]
        arguments: Arguments,
    },
}

/// `wait SHARE`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example, before a backup:\n  nasmount wait films --timeout 5m && sudo systemctl start backup")]
pub struct WaitArguments {
    #[command(flatten)]
    which: Which,
    /// How long to wait at most
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
}

/// How a wish is getting on.
#[derive(Clone, Debug, PartialEq)]
enum Getting {
    Waiting,
    There,
    /// It will not come true by itself: why.
    Failed(String),
}

/// What became of a wish.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
enum Outcome {
    /// Done.
    Done,
    AlreadySo,
    /// Accepted, and not waited for.
    Accepted,
    Refused(crate::share::Refusal),
    NotReached,
    Failed {
        message: String,
    },
}

impl Outcome {
    fn exit(&self) -> Exit {
        match self {
            Self::Done | Self::AlreadySo | Self::Accepted => Exit::Done,
            Self::Refused(_) | Self::NotReached => Exit::Refused,
            Self::Failed { .. } => Exit::Failed,
        }
    }
}

/// `maintenance on|off`
pub fn maintenance(what: &Maintenance) -> anyhow::Result<Exit> {
    match what {
        Maintenance::On { arguments, lasting } => {
            let seconds = lasting.map_or(0, |lasting| lasting.as_secs().max(1));
            run(arguments, Wish::StartMaintenance(seconds))
        }
        Maintenance::Off { arguments } => run(arguments, Wish::EndMaintenance),
    }
}

/// Puts a wish to all the shares, then waits for all of them. 0: it is so; 1: it failed; 3: refused, or not so in time; 4: no such
/// share, and nothing was done.
pub fn run(arguments: &Arguments, wish: Wish) -> anyhow::Result<Exit> {
    block_on(async {
        let client = Client::connect().await?;
        let before = client.status().await?;
        let shares = match arguments.which.among(&before) {
            Ok(shares) => shares,
            Err(exit) => return Ok(exit),
        };
        let mut outcomes = BTreeMap::new();
        for share in &shares {
            let outcome = match client.wish(share, wish).await? {
                Answer::Verdict(Verdict::Accepted) if arguments.no_wait => Some(Outcome::Accepted),
                Answer::Verdict(Verdict::AlreadySo) if arguments.no_wait => Some(Outcome::AlreadySo),
                Answer::Verdict(_) => None,
                Answer::Refused(refusal) => Some(Outcome::Refused(refusal)),
                Answer::NoSuchShare => return Ok(no_such("share", share, &[], "it has just been taken out")),
            };
            outcomes.insert(share.clone(), outcome);
        }
        let getting = |now: &ShareStatus| getting_on(wish, find(&before, &now.name), now);
        let (outcomes, after) = wait(&client, Latch::Each, outcomes, arguments.timeout, &getting).await?;
        say(name(wish), &outcomes, &after, arguments.json)
    })
}

/// `wait SHARE`: until all of them are online.
pub fn wait_for(arguments: &WaitArguments) -> anyhow::Result<Exit> {
    block_on(async {
        let client = Client::connect().await?;
        let outcomes = match arguments.which.among(&client.status().await?) {
            Ok(shares) => shares.into_iter().map(|share| (share, None)).collect(),
            Err(exit) => return Ok(exit),
        };
        let getting = |now: &ShareStatus| if now.state == State::Online { Getting::There } else { Getting::Waiting };
        let (outcomes, after) = wait(&client, Latch::Together, outcomes, arguments.timeout, &getting).await?;
        say("wait", &outcomes, &after, arguments.json)
    })
}

/// The same for shares by name.
pub fn wait_until_online(shares: Vec<String>, timeout: Duration) -> anyhow::Result<Exit> {
    wait_for(&WaitArguments { which: Which { shares, all: false }, timeout, json: false })
}

/// `mount` of one share.
pub fn mount_again(share: String, timeout: Duration) -> anyhow::Result<Exit> {
    let which = Which { shares: vec![share], all: false };
    run(&Arguments { which, no_wait: false, timeout, json: false }, Wish::Mount)
}

/// When it counts that something has come true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Latch {
    /// As soon as it was seen once.
    Each,
    /// When it is so of all at the same time.
    Together,
}

/// Looks until every outcome is known or the time is over.
async fn wait(
    client: &Client,
    latch: Latch,
    mut outcomes: BTreeMap<String, Option<Outcome>>,
    timeout: Duration,
    getting: &impl Fn(&ShareStatus) -> Getting,
) -> anyhow::Result<(BTreeMap<String, Outcome>, StatusReport)> {
    let deadline = clock::now() + timeout;
    let mut looks = tokio::time::interval(LOOK_EVERY);
    loop {
        looks.tick().await;
        let status = client.status().await?;
        for (share, outcome) in outcomes.iter_mut() {
            let settled = matches!(outcome, Some(outcome) if *outcome != Outcome::Done);
            if settled || latch == Latch::Each && outcome.is_some() {
                continue;
            }
            *outcome = match find(&status, share).map(getting) {
                Some(Getting::Waiting) => None,
                Some(Getting::There) => Some(Outcome::Done),
                Some(Getting::Failed(message)) => Some(Outcome::Failed { message }),
                None => Some(Outcome::Failed { message: "it was taken out of the configuration".to_owned() }),
            };
        }
        let known = outcomes.values().all(Option::is_some);
        if known || clock::now() >= deadline {
            let outcome = |outcome: Option<Outcome>| outcome.unwrap_or(Outcome::NotReached);
            return Ok((outcomes.into_iter().map(|(share, known)| (share, outcome(known))).collect(), status));
        }
    }
}

/// Has the wish come true? `before` is how the share was before it was put.
fn getting_on(wish: Wish, before: Option<&ShareStatus>, now: &ShareStatus) -> Getting {
    let there = |there: bool| if there { Getting::There } else { Getting::Waiting };
    let consumers = now.consumers_progress == Progress::Settled;
    let held_by_operator = now.hold_reasons.contains(&HoldReason::Operator);
    match wish {
        Wish::Mount | Wish::Remount if now.state == State::Blocked => Getting::Failed(now.reason_text.clone()),
        Wish::Mount => there(now.state == State::Online),
        Wish::Remount => {
            let has_been_away =
                before.is_none_or(|before| !before.state.is_open() || now.since - before.since > SAME_MOMENT);
            there(now.state == State::Online && has_been_away)
        }
        Wish::Unmount => there(now.state == State::Offline && now.wanted == Wanted::Unmounted),
        Wish::StartMaintenance(_) => there(now.state == State::Maintenance),
        Wish::EndMaintenance => there(now.maintenance.is_none() && now.state != State::Maintenance),
        Wish::Hold => there(held_by_operator && consumers),
        Wish::Release => there(!held_by_operator && (consumers || !now.hold_reasons.is_empty())),
    }
}

fn find<'r>(report: &'r StatusReport, name: &str) -> Option<&'r ShareStatus> {
    report.shares.iter().find(|share| share.name == name)
}

fn name(wish: Wish) -> &'static str {
    match wish {
        Wish::Mount => "mount",
        Wish::Unmount => "unmount",
        Wish::Remount => "remount",
        Wish::StartMaintenance(_) => "maintenance on",
        Wish::EndMaintenance => "maintenance off",
        Wish::Hold => "hold",
        Wish::Release => "release",
    }
}

/// One line for each share on standard error, JSON on standard output. A failure counts more than a refusal.
fn say(command: &str, outcomes: &BTreeMap<String, Outcome>, after: &StatusReport, json: bool) -> anyhow::Result<Exit> {
    let exits: Vec<Exit> = outcomes.values().map(Outcome::exit).collect();
    let exit = [Exit::Failed, Exit::Refused].into_iter().find(|exit| exits.contains(exit)).unwrap_or(Exit::Done);
    let mut lines = String::new();
    for (share, outcome) in outcomes {
        lines.push_str(&line(share, outcome, find(after, share)));
    }
    report::say(&lines);
    if !json {
        return Ok(exit);
    }
    let text = serde_json::to_string_pretty(&document(command, outcomes, after)?)?;
    Ok(report::print(exit, &(text + "\n")))
}

fn document(
    command: &str,
    outcomes: &BTreeMap<String, Outcome>,
    after: &StatusReport,
) -> anyhow::Result<serde_json::Value> {
    let share = |(share, outcome): (&String, &Outcome)| -> anyhow::Result<serde_json::Value> {
        let mut value = serde_json::to_value(outcome).context("cannot write JSON")?;
        value["name"] = share.as_str().into();
        value["state"] = serde_json::to_value(find(after, share).map(|share| share.state))?;
        Ok(value)
    };
    let shares = outcomes.iter().map(share).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(serde_json::json!({ "schema": SCHEMA, "command": command, "shares": shares }))
}

fn line(share: &str, outcome: &Outcome, now: Option<&ShareStatus>) -> String {
    let state = now.map_or_else(|| "gone".to_owned(), |now| now.state.to_string());
    let why =
        now.filter(|now| now.state != State::Online).map_or_else(String::new, |now| format!(" ({})", now.reason_text));
    let hint = now.and_then(|now| now.hint.as_ref()).map_or_else(String::new, |hint| format!("\n  hint: {hint}"));
    match outcome {
        Outcome::Done => format!("{share}: {state}\n"),
        Outcome::AlreadySo => format!("{share}: already so, {state}\n"),
        Outcome::Accepted => format!("{share}: accepted, {state}\n"),
        Outcome::Refused(refusal) => {
            format!("{share}: refused: {refusal}\n  hint: {}\n", refusal.hint().replace("SHARE", share))
        }
        Outcome::NotReached => format!("{share}: not in time; {state}{why}{hint}\n"),
        Outcome::Failed { message } => format!("{share}: failed: {message}{hint}\n"),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn share(state: &str, since: f64, more: serde_json::Value) -> ShareStatus {
        let mut share = serde_json::json!({
            "name": "media", "state": state, "since": since, "reason": {"kind": "answers"}, "reason_text": "x",
            "server": "tower", "source": "media", "mount_point": "/mnt/media", "hold_reasons": [], "wanted": "mounted",
            "consumers_progress": "settled", "given_up": false, "consumers": [],
        });
        share.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(share).unwrap()
    }

    fn getting(wish: Wish, now: &ShareStatus) -> Getting {
        getting_on(wish, Some(&share("online", 100.0, serde_json::json!({}))), now)
    }

    #[test]
    fn a_remount_is_there_when_it_is_online_again_having_been_away() {
        let nothing = || serde_json::json!({});
        assert_eq!(getting(Wish::Remount, &share("online", 100.000_01, nothing())), Getting::Waiting);
        assert_eq!(getting(Wish::Remount, &share("mounting", 105.0, nothing())), Getting::Waiting);
        assert_eq!(getting(Wish::Remount, &share("online", 106.0, nothing())), Getting::There);
        assert!(matches!(getting(Wish::Mount, &share("blocked", 106.0, nothing())), Getting::Failed(_)));
    }

    #[test]
    fn an_unmount_is_there_when_it_is_offline_because_it_was_asked_for() {
        assert_eq!(getting(Wish::Unmount, &share("offline", 1.0, serde_json::json!({}))), Getting::Waiting);
        let asked = serde_json::json!({"wanted": "unmounted"});
        assert_eq!(getting(Wish::Unmount, &share("offline", 1.0, asked)), Getting::There);
    }

    #[test]
    fn a_hold_is_there_when_the_consumers_are_held() {
        let held = |progress: &str| serde_json::json!({"hold_reasons": ["operator"], "consumers_progress": progress});
        assert_eq!(getting(Wish::Hold, &share("online", 1.0, held("busy"))), Getting::Waiting);
        assert_eq!(getting(Wish::Hold, &share("online", 1.0, held("settled"))), Getting::There);
        assert_eq!(getting(Wish::Release, &share("online", 1.0, held("settled"))), Getting::Waiting);
        assert_eq!(getting(Wish::Release, &share("online", 1.0, serde_json::json!({}))), Getting::There);
        let outage = serde_json::json!({"hold_reasons": ["outage"], "consumers_progress": "busy"});
        assert_eq!(getting(Wish::Release, &share("holding", 1.0, outage)), Getting::There);
    }

    #[test]
    fn a_refusal_says_what_to_do_instead_and_names_the_share() {
        let refused = Outcome::Refused(crate::share::Refusal::InMaintenance);
        let text = line("media", &refused, None);
        assert_eq!(
            text,
            "media: refused: the share is in maintenance\n  hint: `nasmount maintenance off media` first\n"
        );
        assert_eq!(refused.exit(), Exit::Refused);
    }

    #[test]
    fn each_outcome_of_each_command_has_its_form() {
        use crate::share::Refusal;
        let (operation, state) = ("mount".to_owned(), State::Holding);
        let outcomes = [
            Outcome::Done,
            Outcome::AlreadySo,
            Outcome::Accepted,
            Outcome::NotReached,
            Outcome::Failed { message: "why".into() },
            Outcome::Refused(Refusal::NotSurveyed),
            Outcome::Refused(Refusal::Shutdown),
            Outcome::Refused(Refusal::InMaintenance),
            Outcome::Refused(Refusal::Stuck { operation }),
            Outcome::Refused(Refusal::ServerAway { state }),
            Outcome::Refused(Refusal::HeldByOutage { state }),
        ];
        let mut outcomes: BTreeMap<String, Outcome> = (1..).map(|n: u32| n.to_string()).zip(outcomes).collect();
        outcomes.insert("media".into(), Outcome::Done);
        let shares = vec![share("online", 1.0, serde_json::json!({}))];
        let after =
            StatusReport { schema: 1, version: "0".into(), servers: Vec::new(), shares, hanging_workers: Vec::new() };
        let wishes = [Wish::Mount, Wish::Unmount, Wish::Remount, Wish::Hold, Wish::Release];
        let more = [Wish::StartMaintenance(0), Wish::EndMaintenance];
        for command in wishes.into_iter().chain(more).map(name).chain(["wait"]) {
            crate::cli::validate::conforms("outcome", &document(command, &outcomes, &after).unwrap());
        }
    }
}
