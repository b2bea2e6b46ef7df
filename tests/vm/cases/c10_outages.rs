//! Outages of 20 s and 60 s within the patience, four kinds at the same time on a NAS each: nobody notices but those who ask.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::guest::{Guest, Job};
use crate::load::{Kind, Load, wait_for_operations};
use crate::nas::{self, Fault, Nas};
use crate::nasmount::{DEADLINE, Nasmount, ShareOf, barred, mount_point, unharmed};

/// A share and its NAS's fault.
const FAULTS: [(&str, Fault); 4] =
    [("link", Fault::Link), ("kill", Fault::Kill), ("drop", Fault::Drop), ("hang", Fault::Hang)];
const GO: &str = "/run/bystander";
const SHORT: Duration = Duration::from_secs(20);
const LONG: Duration = Duration::from_secs(60);
/// Each probe of each of four servers costs the emulated machine a third of a second.
const PROBE: &str = "probe = { interval = \"3s\", timeout = \"3s\", dead_after = 2, alive_after = 2 }";
const AT_WORK: Duration = Duration::from_secs(90);

pub fn run(guest: &Guest) -> Result<String> {
    outages(guest, &[SHORT, LONG])
}

/// Where only kernel and systemd differ.
pub fn long(guest: &Guest) -> Result<String> {
    outages(guest, &[LONG])
}

fn outages(guest: &Guest, lengths: &[Duration]) -> Result<String> {
    let servers = nas::up(guest, [1, 2, 3, 4])?;
    let loads: Vec<Load<'_>> = FAULTS.iter().map(|(name, _)| Load::new(guest, name, &Kind::ALL).unhurried()).collect();
    let shares: Vec<ShareOf<'_>> = FAULTS
        .iter()
        .zip(servers)
        .zip(&loads)
        .map(|(((name, _), nas), load)| ShareOf {
            name,
            nas,
            source: "media",
            more: "profile = \"transcode\"\npatience = \"2m\"",
            probe: PROBE,
            credentials: None,
            units: vec![load.unit()],
        })
        .collect();
    let nasmount = Nasmount::start(guest, &shares)?;
    for (name, _) in FAULTS {
        nasmount.wait_for_state(name, "online")?;
    }
    let loads = loads
        .into_iter()
        .zip(FAULTS)
        .map(|(load, (name, _))| load.start(&mount_point(name)))
        .collect::<Result<Vec<_>>>()?;
    let mut facts = Vec::new();
    for &length in lengths {
        wait_for_operations(&loads.iter().collect::<Vec<_>>(), 20, AT_WORK)?;
        // Samba closes the connection of somebody who says nothing for a minute: he speaks while his server still hangs
        let bystander = if length == SHORT { Some(bystander(guest, servers[3])?) } else { None };
        facts.push(outage(guest, &nasmount, servers, length).with_context(|| format!("outage of {length:?}"))?);
        if let Some(bystander) = bystander {
            let met = bystander.wait(DEADLINE)?.stdout;
            ensure!(met.contains(r#""result": "ok""#), "a program's own connection to the server that hung met {met}");
        }
    }
    for (((name, _), load), nas) in FAULTS.iter().zip(&loads).zip(servers) {
        let account = unharmed(load, nas).with_context(|| format!("outages by {name}"))?;
        facts.push(format!("{name}: {account}"));
    }
    nasmount.remove()?;
    Ok(facts.join("; "))
}

/// A program with a connection of its own to the server.
fn bystander<'guest>(guest: &'guest Guest, nas: Nas<'_>) -> Result<Job<'guest>> {
    let job = guest.spawn(&format!("/host/guest/probe.py {} --limit 20 --go {GO}", nas.address()))?;
    guest.wait_for("a program's own connection", DEADLINE, &format!("[ -e {GO}.ready ]"))?;
    Ok(job)
}

fn outage(guest: &Guest, nasmount: &Nasmount<'_>, servers: [Nas<'_>; 4], length: Duration) -> Result<String> {
    let outages = nas::cut_all(servers.into_iter().zip(FAULTS.map(|(_, fault)| fault)))?;
    let (mut held, mut back, mut slowest) = (Vec::new(), Vec::new(), 0.0_f64);
    for ((name, _), outage) in FAULTS.iter().zip(&outages) {
        let holding = nasmount.wait_for_state(name, "holding")?;
        held.push(format!("{name} {:.1} s", (holding - outage.began).max(0.0))); // a kill is seen before it is complete
    }
    for (name, _) in FAULTS {
        slowest = slowest.max(barred(guest, &mount_point(name), "ls,stat,statfs,open,create")?);
    }
    let seen = servers[1].probe(Duration::from_secs(5))?;
    ensure!(seen["why"] == "ECONNREFUSED", "a program that asks the server that was killed met {seen}");
    for outage in &outages {
        outage.last(length)?;
    }
    guest.ok(&format!("touch {GO}"))?;
    for ((name, _), healed) in FAULTS.iter().zip(nas::heal_all(outages)?) {
        back.push(format!("{name} {:.1} s", nasmount.wait_for_state(name, "online")? - healed));
        let loss = nasmount.share(name)?["loss"].clone();
        ensure!(loss.is_null(), "{name}: nothing was lost, and nasmount says {loss}");
    }
    let (held, back) = (held.join(", "), back.join(", "));
    Ok(format!(
        "{} s: held after {held}, a stranger's call {slowest:.0} ms at most, back after {back}",
        length.as_secs()
    ))
}
