//! The positive control: plain CIFS mounts, no nasmount, and the harm that an outage does.
//!
//! A later case that sees no stall, no loss and no hanging stranger means something only because they are seen
//! here, with the same consumers, the same strangers and the same faults.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::guest::Guest;
use crate::load::{Account, Kind, Load};
use crate::nas::{self, Fault, Nas};

/// Soft mounts on which the kernel gives up after 3..4 times the interval plus 10..20 s, within the outage.
/// Both see the same outage: which of them loses more depends on when writeback runs.
const MOUNTS: [(&str, &str); 2] = [("e1", "soft,echo_interval=1"), ("e5", "soft,echo_interval=5")];
/// Long enough that writeback (pages are 30 s old at most) fails on the shorter interval.
const OUTAGE: Duration = Duration::from_secs(45);
/// A stranger on the cut share is watched for so long; 5 s of it are harm.
const STRANGER_LIMIT: u64 = 8;
const STRANGER_HARM_MS: f64 = 5000.0;
/// A stranger on the hung share must still be blocked after so long.
const HUNG_LIMIT: u64 = 20;
const HAMMER_STOP: &str = "/run/control.stop";
/// A reader that waits longer than this was stalled by the outage and not by TCG.
const STALL: f64 = 10.0;
/// After the heal: 10 s of reconnecting, and the last fsyncs.
const RECOVERY: Duration = Duration::from_secs(60);

pub fn run(guest: &Guest) -> Result<String> {
    let [cut, hung] = nas::up(guest, [1, 2])?;
    mount_all(guest, cut, hung)?;
    let loads = MOUNTS
        .iter()
        .map(|(id, _)| Load::new(guest, id, &Kind::ALL).start(&mount_point(id)))
        .collect::<Result<Vec<_>>>()?;
    for load in &loads {
        load.wait_for_operations(10, RECOVERY)?;
    }

    let hammer =
        guest.spawn(&format!("/host/guest/stranger.py {} hammer --stop {HAMMER_STOP}", mount_point("hung")))?;
    let hang = hung.cut(Fault::Hang)?;
    let link = cut.cut(Fault::Link)?;
    let strange =
        |path: &str, limit| guest.spawn(&format!("/host/guest/stranger.py {path} ls,stat,statfs --limit {limit}"));
    let on_cut = strange(&mount_point("e5"), STRANGER_LIMIT)?;
    let on_hung = strange(&mount_point("hung"), HUNG_LIMIT)?;
    let on_cut = reports(&on_cut.wait(OUTAGE)?.stdout)?;
    let on_hung = reports(&on_hung.wait(OUTAGE)?.stdout)?;
    guest.ok(&format!("touch {HAMMER_STOP}"))?;
    let hammer = hammer.wait(RECOVERY)?.stdout;
    let hammer: Value = serde_json::from_str(&hammer).with_context(|| format!("report of the hammer: {hammer:?}"))?;
    link.last(OUTAGE)?;
    link.heal()?;
    hang.heal()?;

    let mut accounts = Vec::new();
    for load in &loads {
        load.wait_for_operations(5, RECOVERY)?;
        accounts.push(load.finish(cut, RECOVERY)?);
    }
    guest.ok("umount --lazy --types cifs --all")?;

    let of = |kind: Kind| accounts.iter().filter_map(move |account| account.get(&kind));
    let facts =
        facts(&of(Kind::Reader).collect::<Vec<_>>(), &of(Kind::Buffered).collect::<Vec<_>>(), &on_cut, &on_hung);
    ensure!(
        of(Kind::Reader).any(|reader| reader.longest > STALL || reader.failures() > 0),
        "no reader noticed the outage: {facts}"
    );
    ensure!(of(Kind::Reader).all(|reader| reader.wrong == 0), "a reader got wrong data: {facts}");
    ensure!(of(Kind::Buffered).any(|writer| writer.lost > 0), "no buffered writer lost a block: {facts}");
    ensure!(on_cut.iter().any(|report| ms(report) > STRANGER_HARM_MS), "no stranger hung on the cut share: {facts}");
    ensure!(on_hung.iter().any(blocked), "no stranger hung on the hung share: {facts}");
    // A call that failed in the end, or one that had not returned.
    let hammered = ["longest_ms", "in_flight_ms"].map(|key| hammer[key].as_f64().unwrap_or_default());
    let hammered = hammered[0].max(hammered[1]);
    ensure!(hammered > STRANGER_HARM_MS, "listing the hung share again and again never hung: {hammer}");
    Ok(format!("{facts}; hammer hung for {:.1} s", hammered / 1000.0))
}

fn mount_point(id: &str) -> String {
    format!("/mnt/control-{id}")
}

fn mount_all(guest: &Guest, cut: Nas<'_>, hung: Nas<'_>) -> Result<()> {
    let mount = |id: &str, nas: Nas<'_>, options: &str| {
        let (point, source) = (mount_point(id), nas.source("media"));
        format!("mkdir -p {point} && mount -t cifs {source} {point} -o guest,vers=3.1.1,nosharesock,{options}")
    };
    let mut commands: Vec<String> = MOUNTS.iter().map(|(id, options)| mount(id, cut, options)).collect();
    // a cached directory is listed for 30 s without the server (dir_cache_timeout), which is longer than the server hangs
    commands.push(mount("hung", hung, "soft,echo_interval=1,nohandlecache"));
    guest.ok(&commands.join(" && ")).map(drop)
}

/// The lines of `stranger.py`, one per kind of call.
fn reports(text: &str) -> Result<Vec<Value>> {
    let reports: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("report of a stranger: {line:?}")))
        .collect::<Result<_>>()?;
    ensure!(reports.len() == 3, "strangers reported {text:?}");
    Ok(reports)
}

fn ms(report: &Value) -> f64 {
    report["ms"].as_f64().unwrap_or_default()
}

fn blocked(report: &Value) -> bool {
    report["result"] == "blocked"
}

fn facts(readers: &[&Account], writers: &[&Account], on_cut: &[Value], on_hung: &[Value]) -> String {
    let readers: Vec<String> =
        readers.iter().map(|reader| format!("{:.1} s, {} errors", reader.longest, reader.failures())).collect();
    let writers: Vec<String> = writers.iter().map(|writer| format!("{} of {}", writer.lost, writer.acked)).collect();
    let strangers = |reports: &[Value]| {
        let each: Vec<String> = reports
            .iter()
            .map(|report| format!("{} {} {:.1} s", text(report, "kind"), text(report, "result"), ms(report) / 1000.0))
            .collect();
        each.join(", ")
    };
    format!(
        "readers stalled {}; buffered writers lost {}; strangers, cut: {}; hung: {}",
        readers.join(" / "),
        writers.join(" / "),
        strangers(on_cut),
        strangers(on_hung)
    )
}

fn text<'report>(report: &'report Value, key: &str) -> &'report str {
    report[key].as_str().unwrap_or("?")
}
