//! One consumer that needs two shares on two servers: it goes on when both are back, and only then. And what the daemon recorded
//! of it replays to the same states.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::guest::Guest;
use crate::load::{Kind, Load};
use crate::nas::{self, Fault};
use crate::nasmount::{Nasmount, ShareOf, UNHURRIED, mount_point, paused, unharmed};

const DEADLINE: Duration = Duration::from_secs(60);
const UNIT: &str = "load-both.service";
const MORE: &str = "profile = \"transcode\"\npatience = \"2m\"";

pub fn run(guest: &Guest) -> Result<String> {
    let [first, second] = nas::up(guest, [3, 4])?;
    let load = Load::new(guest, "both", &Kind::ALL);
    let share = |name, nas| ShareOf {
        name,
        nas,
        source: "media",
        more: MORE,
        probe: UNHURRIED,
        credentials: None,
        units: vec![load.unit()],
    };
    let nasmount = Nasmount::start(guest, &[share("first", first), share("second", second)])?;
    nasmount.wait_for_state("first", "online")?;
    nasmount.wait_for_state("second", "online")?;
    let load = load.start(&mount_point("first"))?;
    load.wait_for_operations(10, DEADLINE)?;

    let away = first.cut(Fault::Link)?;
    nasmount.wait_for_state("first", "holding")?;
    guest.wait_for("the consumer to be paused", DEADLINE, &paused(UNIT))?;
    let away_too = second.cut(Fault::Kill)?;
    nasmount.wait_for_state("second", "holding")?;
    away.heal()?;
    nasmount.wait_for_state("first", "online")?;
    guest.ok(&paused(UNIT)).context("only one of its shares is back")?;
    let healed = away_too.heal()?;
    nasmount.wait_for_state("second", "online")?;
    let goes_on = guest.wait_for("the consumer to go on", DEADLINE, &format!("! {}", paused(UNIT)))?;
    let account = unharmed(&load, first)?;

    let compared = replays_to_the_same_states(guest, "first")? + replays_to_the_same_states(guest, "second")?;
    nasmount.remove()?;
    Ok(format!(
        "went on {:.1} s after the second came back; {account}; {compared} transitions replayed",
        goes_on - healed
    ))
}

/// What `nasmount replay` makes of the daemon's recording is what the daemon did, as its log has it.
pub fn replays_to_the_same_states(guest: &Guest, share: &str) -> Result<usize> {
    let file = format!("/run/{share}.jsonl");
    guest.ok(&format!("nasmount dump {share} --output {file}"))?;
    let replayed: Value = guest.json(&format!("nasmount replay {file} --json"))?;
    let moments = replayed["moments"].as_array().context("the moments of the replay")?;
    let changes = moments.iter().filter_map(|moment| moment["transitions"].as_array()).flatten();
    let states = changes.map(|change| (change["from"].as_str().unwrap_or(""), change["to"].as_str().unwrap_or("")));
    let replayed: Vec<String> =
        states.filter(|(from, to)| from != to).map(|(from, to)| format!("{from} {to}")).collect();
    let daemon = guest.ok("systemctl show -P MainPID nasmount")?;
    let journal = guest.journal(&format!("_PID={daemon}"))?;
    let word = |line: &str, key: &str| {
        line.split_whitespace().find_map(|word| word.strip_prefix(key)).unwrap_or_default().to_owned()
    };
    let logged: Vec<String> = journal
        .lines()
        .filter(|line| line.contains(&format!("share{{name={share}}}")) && line.contains("state changed"))
        .map(|line| format!("{} {}", word(line, "from="), word(line, "to=")))
        .collect();
    ensure!(logged.len() >= 3, "the log has lost its transitions: {journal}");
    ensure!(replayed == logged, "replayed {replayed:?}, and the log has {logged:?}");
    Ok(logged.len())
}
