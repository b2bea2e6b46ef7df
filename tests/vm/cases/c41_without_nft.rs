//! A host without nftables, and one on which it stops working: no veil and no fence, and the rest of the promises all the same.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::guest::Guest;
use crate::nas::{self, Fault, Outage};
use crate::nasmount::{DEADLINE, Nasmount, ShareOf, UNHURRIED, barred, mount_point};

const AWAY: &str = "mv /usr/sbin/nft /usr/sbin/nft.away";
const BACK: &str = "mv /usr/sbin/nft.away /usr/sbin/nft";
/// The patience, 12 s until what was in flight has ended, and time to see it.
const BEYOND: Duration = Duration::from_secs(23);

pub fn run(guest: &Guest) -> Result<String> {
    let [nas] = nas::up(guest, [8])?;
    let share = ShareOf {
        name: "bare",
        nas,
        source: "media",
        more: "patience = \"8s\"\nhold_for = \"forever\"",
        probe: UNHURRIED,
        credentials: None,
        units: Vec::new(),
    };
    guest.ok(AWAY)?;
    let nasmount = Nasmount::start(guest, &[share])?;
    nasmount.wait_for_state("bare", "online")?;
    guest.ok("journalctl -b -u nasmount | grep 'no veil and no fence: is the package nftables installed?'")?;
    guest.ok("nasmount doctor --json >/run/doctor; [ $? = 3 ] && grep -q nft-missing /run/doctor").context("doctor")?;
    let absent = outage(guest, &nasmount, nas.cut(Fault::Kill)?, Duration::ZERO).context("without nft")?;

    guest.ok(BACK)?;
    guest.wait_for("the veil", DEADLINE, "nft list table inet nasmount | grep -q 'tcp sport 445'")?;
    guest.ok(&format!(
        "{AWAY} && printf '#!/bin/sh\\necho broken >&2\\nexit 1\\n' >/usr/sbin/nft && chmod 755 /usr/sbin/nft"
    ))?;
    let broken = outage(guest, &nasmount, nas.cut(Fault::Link)?, BEYOND).context("with an nft that fails")?;
    guest.ok("journalctl -b -u nasmount | grep 'goes on without a fence.*broken'")?;
    guest.ok(BACK)?;
    let table = "nft list table inet nasmount >/run/table && grep -q 'sport 445' /run/table && ! grep -q 'dport 445' /run/table";
    guest.wait_for("the veil without the fence", DEADLINE, table)?;
    nasmount.remove()?;
    Ok(format!("back after {absent:.1} s without nft, after {broken:.1} s with one that fails"))
}

/// The path fails at once, and the share comes back. Returns how long after the server.
fn outage(guest: &Guest, nasmount: &Nasmount<'_>, outage: Outage<'_>, length: Duration) -> Result<f64> {
    nasmount.wait_for_state("bare", "holding")?;
    outage.last(length)?;
    barred(guest, &mount_point("bare"), "ls,statfs,open")?;
    let healed = outage.heal()?;
    let back = nasmount.wait_for_state("bare", "online")? - healed;
    guest.ok(&format!("[ $(ls {} | grep -c film) = 60 ]", mount_point("bare")))?;
    Ok(back)
}
