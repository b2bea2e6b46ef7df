//! `make demo`: one outage before your eyes, with nasmount and, at the same time, as a plain mount.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::guest::Guest;
use crate::load::{Account, Kind, Load};
use crate::nas::{self, Fault, Nas, Outage};
use crate::nasmount::{DEADLINE, Nasmount, ShareOf, mount_point};

/// The NAS is away for so long.
const LENGTH: Duration = Duration::from_secs(60);
/// A stranger's `ls` is watched for so long.
const LS_LIMIT: u32 = 3;

/// Plain mounts beside nasmount: what fstab lines say today.
const PLAIN: [(&str, &str); 2] =
    [("plain", "guest,_netdev,vers=3.1.1"), ("tuned", "guest,_netdev,vers=3.1.1,soft,echo_interval=5")];

pub fn run(guest: &Guest) -> Result<()> {
    // plain mounts on a NAS of their own: veil, fence and socket destruction concern every mount of a server
    let [nas, other] = nas::up(guest, [1, 2])?;
    say("two NASes are up: Samba servers, each behind its own network cable; one for nasmount, one for plain mounts");
    let held = Load::new(guest, "films", &Kind::ALL);
    let share = ShareOf {
        name: "films",
        nas,
        source: "media",
        more: "profile = \"transcode\"",
        probe: "",
        credentials: None,
        units: vec![held.unit()],
    };
    let nasmount = Nasmount::start(guest, &[share])?;
    nasmount.wait_for_state("films", "online")?;
    for (name, options) in PLAIN {
        let (point, source) = (plain_point(name), other.source("media"));
        guest.ok(&format!("mkdir -p {point} && mount -t cifs {source} {point} -o nosharesock,{options}"))?;
    }
    show(guest, "grep -v '^#' /etc/nasmount/nasmount.toml; echo; nasmount status")?;

    let mut loads = vec![("nasmount", held.start(&mount_point("films"))?)];
    for (name, _) in PLAIN {
        loads.push((name, Load::new(guest, name, &Kind::ALL).start(&plain_point(name))?));
    }
    for (_, load) in &loads {
        load.wait_for_operations(10, DEADLINE)?;
    }
    say(
        "on each mount a unit is at work: a reader, a writer with fsync and a buffered writer, ten blocks a second each",
    );
    let outage = nas.cut(Fault::Link)?;
    let other_outage = other.cut(Fault::Link)?;
    say(&format!("both cables are pulled, for {} s", LENGTH.as_secs()));
    watch(guest, &outage)?;
    other_outage.heal()?;
    let healed = outage.heal()?;
    say("both cables are back");
    let back = nasmount.wait_for_state("films", "online")? - healed;
    timeline(guest)?;
    show(guest, "nasmount status")?;
    let accounts = finish(&loads, [nas, other, other])?;
    guest.ok("umount --lazy /mnt/plain /mnt/tuned")?;
    nasmount.remove()?;
    verdict(&accounts, back);
    Ok(())
}

fn plain_point(name: &str) -> String {
    format!("/mnt/{name}")
}

fn say(text: &str) {
    println!("\n== {text}");
}

/// A command's output, indented, as it would stand in a terminal.
fn show(guest: &Guest, command: &str) -> Result<()> {
    for line in guest.run(command)?.stdout.lines() {
        println!("   {line}");
    }
    Ok(())
}

/// What nasmount has logged since the last time.
fn timeline(guest: &Guest) -> Result<()> {
    show(guest, "journalctl -u nasmount -o short-monotonic --no-hostname --no-pager -q --cursor-file=/run/demo.cursor")
}

/// Until the outage is over: the timeline as it happens, the status, and what a stranger meets.
fn watch(guest: &Guest, outage: &Outage<'_>) -> Result<()> {
    for age in [8, 30] {
        outage.last(Duration::from_secs(age))?;
        timeline(guest)?;
        show(guest, "nasmount status")?;
        for path in [mount_point("films"), plain_point("plain"), plain_point("tuned")] {
            let text = guest.ok(&format!("/host/guest/stranger.py {path} ls --limit {LS_LIMIT}"))?;
            let report: Value = serde_json::from_str(&text).with_context(|| format!("report {text:?}"))?;
            println!("   {age} s after the cut, `ls {path}`: {}", met(&report));
        }
    }
    outage.last(LENGTH)
}

fn met(report: &Value) -> String {
    let ms = report["ms"].as_f64().unwrap_or(0.0);
    match report["result"].as_str().unwrap_or("?") {
        "EHOSTDOWN" => format!("\"Host is down\" after {ms:.0} ms"),
        "blocked" => format!("still hangs after {LS_LIMIT} s"),
        "ok" => format!("answered from the cache after {ms:.0} ms"),
        other => format!("{other} after {ms:.0} ms"),
    }
}

type Accounts = Vec<(&'static str, BTreeMap<Kind, Account>)>;

fn finish(loads: &[(&'static str, Load<'_>)], servers: [Nas<'_>; 3]) -> Result<Accounts> {
    let mut accounts = Accounts::new();
    for ((name, load), nas) in loads.iter().zip(servers) {
        load.wait_for_operations(5, DEADLINE)?;
        accounts.push((name, load.finish(nas, DEADLINE)?));
    }
    Ok(accounts)
}

fn verdict(accounts: &Accounts, back: f64) {
    say("the verdict: what each unit was told, and what the server really has, block by block");
    println!(
        "   {:<10} {:<10} {:>14} {:>8} {:>16} {:>12}",
        "mount", "unit", "longest call", "errors", "blocks", "lost"
    );
    for (name, account) in accounts {
        for (kind, figures) in account {
            let (longest, errors) = (format!("{:.1} s", figures.longest), figures.failures());
            println!(
                "   {name:<10} {:<10} {longest:>14} {errors:>8} {:>16} {:>12}",
                kind.name(),
                figures.acked,
                figures.lost
            );
        }
    }
    println!("\n   nasmount: consumers were paused, not failed; at work again {back:.1} s after the cable was back.");
    println!("   plain: {}; tuned: {}", PLAIN[0].1, PLAIN[1].1);
    println!("   times are those of an emulated machine where there is no KVM.");
}
