//! An outage of 40 s within the patience, four kinds at the same time on a NAS each: nobody notices but those who ask.

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
/// Longer than 30 s, when the kernel writes back what is unwritten; Samba closes the connection of a bystander after a minute.
const LENGTH: Duration = Duration::from_secs(40);
/// Each probe of each of four servers costs the emulated machine a third of a second.
const PROBE: &str = "probe = { interval = \"3s\", timeout = \"3s\", dead_after = 2, alive_after = 2 }";
/// What the kernel has news of is not found out by these probes: alone they find a server that was killed within 15 s, and one
/// without a link 3 s later. That is less than `BY_NEWS` once in three outages at most, and in both once in nine.
const RARE: &str = "probe = { interval = \"15s\", timeout = \"3s\", dead_after = 2, alive_after = 2 }";
/// A veiled FIN, or a link that is gone, and then one or two probes at once: 0.8 s were the most that was measured under TCG.
const BY_NEWS: f64 = 5.0;
/// Two probes until it is dead, and connections that are kept for 5, 10 and 20 s; at a probe every three seconds it would be twice as many.
const QUEUED: u32 = 6;
const AT_WORK: Duration = Duration::from_secs(90);

pub fn run(guest: &Guest) -> Result<String> {
    let servers = nas::up(guest, [1, 2, 3, 4])?;
    let loads: Vec<Load<'_>> = FAULTS.iter().map(|(name, _)| Load::new(guest, name, &Kind::ALL).unhurried()).collect();
    let shares: Vec<ShareOf<'_>> = FAULTS
        .iter()
        .zip(servers)
        .zip(&loads)
        .map(|(((name, fault), nas), load)| ShareOf {
            name,
            nas,
            source: "media",
            more: "profile = \"transcode\"\npatience = \"2m\"",
            probe: if is_news(*fault) { RARE } else { PROBE },
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
    wait_for_operations(&loads.iter().collect::<Vec<_>>(), 20, AT_WORK)?;
    let bystander = bystander(guest, servers[3])?;
    let mut facts = vec![outage(guest, &nasmount, servers)?];
    let met = bystander.wait(DEADLINE)?.stdout;
    ensure!(met.contains(r#""result": "ok""#), "a program's own connection to the server that hung met {met}");
    for (((name, _), load), nas) in FAULTS.iter().zip(&loads).zip(servers) {
        let account = unharmed(load, nas).with_context(|| format!("an outage by {name}"))?;
        facts.push(format!("{name}: {account}"));
    }
    nasmount.remove()?;
    Ok(facts.join("; "))
}

/// A program with a connection of its own to the server.
fn bystander<'guest>(guest: &'guest Guest, nas: Nas<'_>) -> Result<Job<'guest>> {
    let job = guest.spawn(&format!("/host/guest/probe.py {} --limit 90 --go {GO}", nas.address()))?;
    guest.wait_for("a program's own connection", DEADLINE, &format!("[ -e {GO}.ready ]"))?;
    Ok(job)
}

/// Whether the kernel tells of it by itself: rtnetlink of the link, NFLOG of what a dying server says.
fn is_news(fault: Fault) -> bool {
    matches!(fault, Fault::Link | Fault::Kill)
}

/// It is this host's own trouble, and is said to be.
fn has_no_link(nasmount: &Nasmount<'_>, share: &str) -> Result<()> {
    let reason = nasmount.share(share)?["reason"].clone();
    ensure!(reason["kind"] == "server_dead" && reason["verdict"] == "no_link", "{share} is held because of {reason}");
    let trouble = nasmount.server_of(share)?["local_trouble"].clone();
    ensure!(
        trouble.as_str().is_some_and(|trouble| trouble.ends_with("has no link")),
        "and this host's trouble is {trouble}"
    );
    Ok(())
}

fn outage(guest: &Guest, nasmount: &Nasmount<'_>, servers: [Nas<'_>; 4]) -> Result<String> {
    let outages = nas::cut_all(servers.into_iter().zip(FAULTS.map(|(_, fault)| fault)))?;
    let (mut held, mut back, mut slowest) = (Vec::new(), Vec::new(), 0.0_f64);
    for ((name, fault), outage) in FAULTS.iter().zip(&outages) {
        let holding = nasmount.wait_for_state(name, "holding")?;
        let after = (holding - outage.began).max(0.0); // a kill is seen before it is complete
        ensure!(
            !is_news(*fault) || after < BY_NEWS,
            "{name}: the kernel had news of it, and it was held after {after:.1} s"
        );
        held.push(format!("{name} {after:.1} s"));
    }
    has_no_link(nasmount, FAULTS[0].0)?;
    for (name, _) in FAULTS {
        slowest = slowest.max(barred(guest, &mount_point(name), "ls,stat,statfs,open,create")?);
    }
    let seen = servers[1].probe(Duration::from_secs(5))?;
    ensure!(seen["why"] == "ECONNREFUSED", "a program that asks the server that was killed met {seen}");
    // he speaks now, and the server answers when it goes on
    guest.ok(&format!("touch {GO}"))?;
    for outage in &outages {
        outage.last(LENGTH)?;
    }
    // for whoever comes first when it goes on, it has to see to all of these
    let queue: u32 = guest.ok("ip netns exec nas4 ss -H4ltn 'sport = 445' | awk '{ print $2 }'")?.parse()?;
    ensure!(
        queue <= QUEUED,
        "{queue} connections wait for the server that hangs: who else wants one will find its queue full"
    );
    for ((name, _), healed) in FAULTS.iter().zip(nas::heal_all(outages)?) {
        back.push(format!("{name} {:.1} s", nasmount.wait_for_state(name, "online")? - healed));
        let loss = nasmount.share(name)?["loss"].clone();
        ensure!(loss.is_null(), "{name}: nothing was lost, and nasmount says {loss}");
    }
    let (held, back) = (held.join(", "), back.join(", "));
    Ok(format!("held after {held}, a stranger's call {slowest:.0} ms at most, back after {back}"))
}
