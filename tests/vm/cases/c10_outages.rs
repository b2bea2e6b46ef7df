//! Outages of 20 s and 60 s within the patience, two kinds at the same time on a NAS each: nobody notices but those who ask.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::guest::Guest;
use crate::load::{Kind, Load};
use crate::nas::{self, Fault, Nas};
use crate::nasmount::{Nasmount, ShareOf, UNHURRIED, barred, mount_point, unharmed};

/// A share, its NAS's fault, and its name in both.
type Pair = [(&'static str, Fault); 2];
const LENGTHS: [Duration; 2] = [Duration::from_secs(20), Duration::from_secs(60)];
const AT_WORK: Duration = Duration::from_secs(90);

pub fn link_and_kill(guest: &Guest) -> Result<String> {
    run(guest, [3, 4], [("link", Fault::Link), ("kill", Fault::Kill)])
}

pub fn drop_and_hang(guest: &Guest) -> Result<String> {
    run(guest, [1, 2], [("drop", Fault::Drop), ("hang", Fault::Hang)])
}

fn run(guest: &Guest, numbers: [u8; 2], pair: Pair) -> Result<String> {
    let servers = nas::up(guest, numbers)?;
    let loads: Vec<Load<'_>> = pair.iter().map(|(name, _)| Load::new(guest, name, &Kind::ALL)).collect();
    let shares: Vec<ShareOf<'_>> = pair
        .iter()
        .zip(servers)
        .zip(&loads)
        .map(|(((name, _), nas), load)| ShareOf {
            name,
            nas,
            source: "media",
            more: "profile = \"transcode\"\npatience = \"2m\"",
            probe: UNHURRIED,
            credentials: None,
            units: vec![load.unit()],
        })
        .collect();
    let nasmount = Nasmount::start(guest, &shares)?;
    for (name, _) in pair {
        nasmount.wait_for_state(name, "online")?;
    }
    let loads = loads
        .into_iter()
        .zip(pair)
        .map(|(load, (name, _))| load.start(&mount_point(name)))
        .collect::<Result<Vec<_>>>()?;
    let mut facts = Vec::new();
    for length in LENGTHS {
        for load in &loads {
            load.wait_for_operations(20, AT_WORK)?;
        }
        facts.push(outage(guest, &nasmount, pair, servers, length).with_context(|| format!("outage of {length:?}"))?);
    }
    for (((name, _), load), nas) in pair.iter().zip(&loads).zip(servers) {
        let account = unharmed(load, nas).with_context(|| format!("outages by {name}"))?;
        facts.push(format!("{name}: {account}"));
    }
    nasmount.remove()?;
    Ok(facts.join("; "))
}

fn outage(
    guest: &Guest,
    nasmount: &Nasmount<'_>,
    pair: Pair,
    servers: [Nas<'_>; 2],
    length: Duration,
) -> Result<String> {
    let outages = pair.iter().zip(servers).map(|((_, fault), nas)| nas.cut(*fault)).collect::<Result<Vec<_>>>()?;
    let (mut held, mut back, mut slowest) = (Vec::new(), Vec::new(), 0.0_f64);
    for ((name, _), outage) in pair.iter().zip(&outages) {
        let holding = nasmount.wait_for_state(name, "holding")?;
        held.push(format!("{name} {:.1} s", holding - outage.began));
    }
    for (name, _) in pair {
        slowest = slowest.max(barred(guest, &mount_point(name), "ls")?);
        barred(guest, &mount_point(name), "stat,statfs,open,create")?;
    }
    for outage in &outages {
        outage.last(length)?;
    }
    for ((name, _), outage) in pair.iter().zip(outages) {
        let healed = outage.heal()?;
        back.push(format!("{name} {:.1} s", nasmount.wait_for_state(name, "online")? - healed));
    }
    let (held, back) = (held.join(", "), back.join(", "));
    Ok(format!("{} s: held after {held}, ls of a stranger {slowest:.0} ms, back after {back}", length.as_secs()))
}
