//! One consumer that needs two shares on two servers: it goes on when both are back, and only then. Strangers wait for a share that
//! is configured so, and go on without an error. And what the daemon recorded of it all replays to the same states.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::guest::{Guest, Job};
use crate::load::{Kind, Load};
use crate::nas::{self, Fault};
use crate::nasmount::{DEADLINE, Nasmount, ShareOf, UNHURRIED, barred, mount_point, paused, strangers, unharmed};

const UNIT: &str = "load-both.service";
const MORE: &str = "profile = \"transcode\"\npatience = \"2m\"";
/// The first share comes back later than this, the second one sooner.
const WAITS: [&str; 2] = ["\non_access = \"wait 1s\"", "\non_access = \"wait 2m\""];
const CALLS: &str = "ls,stat,create";

pub fn run(guest: &Guest) -> Result<String> {
    let [first, second] = nas::up(guest, [3, 4])?;
    let load = Load::new(guest, "both", &Kind::ALL);
    let more = WAITS.map(|wait| format!("{MORE}{wait}"));
    let share = |name, nas, more| ShareOf {
        name,
        nas,
        source: "media",
        more,
        probe: UNHURRIED,
        credentials: None,
        units: vec![load.unit()],
    };
    let nasmount = Nasmount::start(guest, &[share("first", first, &more[0]), share("second", second, &more[1])])?;
    nasmount.wait_for_state("first", "online")?;
    nasmount.wait_for_state("second", "online")?;
    let load = load.start(&mount_point("first"))?;
    load.wait_for_operations(10, DEADLINE)?;

    let away = first.cut(Fault::Link)?;
    nasmount.wait_for_state("first", "holding")?;
    guest.wait_for("the consumer to be paused", DEADLINE, &paused(UNIT))?;
    let away_too = second.cut(Fault::Kill)?;
    nasmount.wait_for_state("second", "holding")?;
    pid_1_never_waits(guest, &mount_point("second"))?;
    let patient = guest.spawn(&format!("/host/guest/stranger.py {} {CALLS} --limit 120", mount_point("second")))?;
    // PID 1 does not look at the path for it before the share is there, which would let the strangers go
    let start = guest.spawn("systemctl start 'mnt-nm\\x2dsecond.mount'")?;
    guest.wait_for(
        "its start to wait",
        DEADLINE,
        "systemctl list-jobs | grep 'mnt-nm.*second.mount *start *waiting'",
    )?;
    for report in strangers(guest, &mount_point("first"), "ls")? {
        let waited = report["ms"].as_f64().is_some_and(|ms| ms >= 1000.0);
        ensure!(report["result"] == "EHOSTDOWN" && waited, "a stranger on the first share met {report}");
    }
    away.heal()?;
    nasmount.wait_for_state("first", "online")?;
    guest.ok(&paused(UNIT)).context("only one of its shares is back")?;
    let healed = away_too.heal()?;
    nasmount.wait_for_state("second", "online")?;
    let waited = patience_paid(patient)?;
    let started = start.wait(DEADLINE)?;
    ensure!(started.code == 0, "the start of its unit met {started:?}");
    let goes_on = guest.wait_for("the consumer to go on", DEADLINE, &format!("! {}", paused(UNIT)))?;
    let account = unharmed(&load, first)?;

    guest.ok("nasmount unmount second")?;
    barred(guest, &mount_point("second"), CALLS).context("nobody waits for what an operator unmounted")?;

    let compared = replays_to_the_same_states(guest, "first")? + replays_to_the_same_states(guest, "second")?;
    nasmount.remove()?;
    Ok(format!(
        "went on {:.1} s after the second came back; strangers waited for it {waited:.0} s at most, without an error; \
         {account}; {compared} transitions replayed",
        goes_on - healed
    ))
}

/// PID 1 looks at a path for a unit's condition: it is not kept waiting, neither alone nor by others who wait already.
fn pid_1_never_waits(guest: &Guest, path: &str) -> Result<()> {
    let looks = format!("[Unit]\nConditionPathExists={path}/pattern\n[Service]\nExecStart=true\nType=oneshot\n");
    guest.write_file("/run/systemd/system/looks.service", &looks)?;
    // PID 1 that waits would answer after two minutes, longer than a command may take
    guest.ok("systemctl daemon-reload && systemctl start looks").context("alone")?;
    let waiting = guest.spawn(&format!("/host/guest/stranger.py {path} ls --limit 120"))?;
    guest.wait_for("a stranger to wait", DEADLINE, "grep -qs autofs_wait /proc/[0-9]*/wchan")?;
    guest.ok("systemctl start looks").context("while a stranger waits")?;
    let met: Value = serde_json::from_str(&waiting.wait(DEADLINE)?.stdout)?;
    ensure!(met["result"] == "EHOSTDOWN", "who waited while PID 1 looked met {met}");
    guest.ok("rm /run/systemd/system/looks.service && systemctl daemon-reload").map(drop)
}

/// Those who waited succeed; returns the longest wait in seconds.
fn patience_paid(job: Job<'_>) -> Result<f64> {
    let output = job.wait(DEADLINE)?;
    let mut longest = 0.0_f64;
    for line in output.stdout.lines() {
        let report: Value = serde_json::from_str(line)?;
        let ms = report["ms"].as_f64().unwrap_or_default();
        ensure!(report["result"] == "ok" && ms > 1000.0, "a stranger on the second share met {report}");
        longest = longest.max(ms / 1000.0);
    }
    ensure!(longest > 0.0, "no stranger reported: {output:?}");
    Ok(longest)
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
