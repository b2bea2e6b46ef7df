//! What shares a host with nasmount and has its own mind about the network: firewalld and Docker load rules again and again, and
//! NetworkManager takes a connection down.

use anyhow::{Context as _, Result, ensure};

use crate::guest::Guest;
use crate::load::{Kind, Load};
use crate::nas::{self, Fault, Nas};
use crate::nasmount::{DEADLINE, Nasmount, ShareOf, UNHURRIED, barred, mount_point, paused, unharmed};

const SHARE: &str = "beset";
const NEIGHBOURS: &str = "firewalld NetworkManager docker.socket docker containerd";
/// What administrators do without a thought of a share.
const CHANGES: [&str; 4] = [
    "firewall-cmd --reload",
    "systemctl restart docker",
    "systemctl restart firewalld",
    "systemctl restart NetworkManager",
];
/// The NAS's network, as somebody has it in NetworkManager who gives his host a fixed address.
const CONNECTION: &str = "nas";

pub fn run(guest: &Guest) -> Result<String> {
    let [nas] = nas::up(guest, [7])?;
    let load = Load::new(guest, SHARE, &Kind::ALL);
    let more = "patience = \"2m\"";
    let units = vec![load.unit()];
    let share = ShareOf { name: SHARE, nas, source: "media", more, probe: UNHURRIED, credentials: None, units };
    guest.ok(&format!("systemctl unmask --quiet {NEIGHBOURS} && systemctl start firewalld NetworkManager docker"))?;
    connect(guest)?;
    let nasmount = Nasmount::start(guest, &[share])?;
    nasmount.wait_for_state(SHARE, "online").context("with all neighbours at work")?;
    let load = load.start(&mount_point(SHARE))?;
    load.wait_for_operations(5, DEADLINE)?;

    rules_come_and_go(guest, &nasmount, nas, &load.unit())?;
    load.wait_for_operations(5, DEADLINE).context("after the outage")?;
    let taken_down = connection_is_taken_down(guest, &nasmount, &load.unit())?;
    for change in CHANGES {
        guest.ok(change)?;
    }
    let account = unharmed(&load, nas)?;
    nasmount.remove()?;
    guest.ok(&format!("nmcli connection delete {CONNECTION}; systemctl stop {NEIGHBOURS}"))?;
    Ok(format!("{taken_down}; {account}"))
}

/// The interface is there already: from now on it is NetworkManager's.
fn connect(guest: &Guest) -> Result<()> {
    guest.ok(&format!(
        "nmcli device set nas7 managed yes && nmcli connection add type ethernet con-name {CONNECTION} ifname nas7 autoconnect yes \
         ipv4.method manual ipv4.addresses 10.99.7.1/24 ipv6.method link-local && nmcli connection up {CONNECTION}"
    ))
    .map(drop)
}

/// In an outage, while the veil lies on the server: it stays, or is laid again.
fn rules_come_and_go(guest: &Guest, nasmount: &Nasmount<'_>, nas: Nas<'_>, unit: &str) -> Result<()> {
    let outage = nas.cut(Fault::Drop)?;
    nasmount.wait_for_state(SHARE, "holding")?;
    guest.wait_for("the consumers to be paused", DEADLINE, &paused(unit))?;
    for change in CHANGES {
        guest.ok(change)?;
        let veil = format!("nft list table inet nasmount | grep -q {}", nas.address());
        guest.wait_for(&format!("the veil after `{change}`"), DEADLINE, &veil)?;
        barred(guest, &mount_point(SHARE), "ls,statfs").context(change)?;
    }
    outage.heal()?;
    nasmount.wait_for_state(SHARE, "online").map(drop)
}

/// Trouble of this host's own, and said to be that.
fn connection_is_taken_down(guest: &Guest, nasmount: &Nasmount<'_>, unit: &str) -> Result<String> {
    let began = guest.uptime()?;
    guest.ok(&format!("nmcli connection down {CONNECTION}"))?;
    let held = nasmount.wait_for_state(SHARE, "holding")? - began;
    guest.wait_for("the consumers to be paused", DEADLINE, &paused(unit))?;
    let reason = nasmount.share(SHARE)?["reason"].clone();
    let of_this_host = ["no_link", "no_route", "no_address"].contains(&reason["verdict"].as_str().unwrap_or_default());
    ensure!(of_this_host, "without its connection it is held because {reason}");
    let up = guest.uptime()?;
    guest.ok(&format!("nmcli connection up {CONNECTION}"))?;
    let back = nasmount.wait_for_state(SHARE, "online")? - up;
    Ok(format!("held {held:.1} s after its connection was taken down, back {back:.1} s after it was to come up"))
}
