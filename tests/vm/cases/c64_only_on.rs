//! A server that is bound to a network: elsewhere nothing is sent to its address, whoever has it there.

use anyhow::{Context as _, Result, ensure};

use crate::guest::{Guest, number};
use crate::load::{Kind, Load};
use crate::nas::{self, Nas};
use crate::nasmount::{DEADLINE, Nasmount, ShareOf, UNHURRIED, mount_point, paused, unharmed};

const SHARE: &str = "attic";
/// The host's address in the server's network, which the NAS itself is not in: it can be reached all the time.
const HOME: &str = "10.98.0.5/24";
const LINK: &str = "ip link add home type veth peer name router && ip link set home up && ip link set router up";
/// How `status`, `diagnose` and the journal call it.
const ELSEWHERE: &str = "not on its network";

pub fn run(guest: &Guest) -> Result<String> {
    let [nas] = nas::up(guest, [8])?;
    guest.ok(LINK)?;
    count_packets(guest, nas)?;
    let load = Load::new(guest, SHARE, &Kind::ALL);
    let probe = format!("{UNHURRIED}\nonly_on = \"10.98.0.0/24\"");
    let share = ShareOf {
        name: SHARE,
        nas,
        source: "media",
        more: "patience = \"2m\"",
        probe: &probe,
        credentials: None,
        units: vec![load.unit()],
    };
    let nasmount = Nasmount::start(guest, &[share])?;
    elsewhere(guest, &nasmount)?;

    let home = number(&guest.ok(&format!("ip address add {HOME} dev home && cut -d' ' -f1 /proc/uptime"))?)?;
    let online = nasmount.wait_for_state(SHARE, "online")?;
    ensure!(packets(guest, ASKED)? > 0.0, "nothing was seen of the mount: the counter counts nothing");

    let load = load.start(&mount_point(SHARE))?;
    let stranger = Load::new(guest, "stranger", &[Kind::Reader]).start(&mount_point(SHARE))?;
    crate::load::wait_for_operations(&[&load, &stranger], 10, DEADLINE)?;
    guest.ok("ip link set router down")?;
    nasmount.wait_for_state(SHARE, "holding")?;
    let reason = nasmount.share(SHARE)?["reason"].clone();
    ensure!(reason["verdict"] == "off_network", "it is held because {reason}");
    guest.wait_for("the consumers to be paused", DEADLINE, &paused(&load.unit()))?;
    held_elsewhere(guest, nas)?;
    let there = number(&guest.ok("ip link set router up && cut -d' ' -f1 /proc/uptime")?)?;
    let back = nasmount.wait_for_state(SHARE, "online")?;
    let account = unharmed(&load, nas)?;
    guest.ok(&format!("systemctl stop {}", stranger.unit()))?;

    nasmount.remove()?;
    guest.ok("ip link delete home && nft delete table inet witness")?;
    Ok(format!("online {:.1} s after the address, back {:.1} s after the link, {account}", online - home, back - there))
}

/// What goes to the NAS. That it is counted is seen before anything depends on it.
fn count_packets(guest: &Guest, nas: Nas<'_>) -> Result<()> {
    let address = nas.address();
    let chain = |name: &str, hook: &str, counter: &str| {
        format!("chain {name} {{ type filter hook {hook}; ip daddr {address} counter name {counter}; }};")
    };
    let (asked, sent) = (chain("o", "output priority -300", ASKED), chain("p", "postrouting priority 300", SENT));
    let table = format!("counter {ASKED} {{}}; counter {SENT} {{}}; {asked} {sent}");
    guest.ok(&format!("nft 'table inet witness {{ {table} }}'"))?;
    guest.ok(&format!("exec 3<>/dev/tcp/{address}/445")).context("the control: a connection to the NAS")?;
    guest.wait_for("the connection to end", DEADLINE, &format!("! ss -Htan dst {address} | grep -q ."))?;
    for counter in [ASKED, SENT] {
        ensure!(packets(guest, counter)? > 0.0, "the control: a connection to the NAS was not {counter}");
    }
    guest.ok("nft reset counters table inet witness").map(drop)
}

/// What anybody on this host wants to send to the NAS, and what leaves it.
const ASKED: &str = "asked";
const SENT: &str = "sent";

fn packets(guest: &Guest, counter: &str) -> Result<f64> {
    let listed = format!("nft list counter inet witness {counter} | awk '$1 == \"packets\" {{ print $2 }}'");
    number(&guest.ok(&listed)?)
}

/// The kernel has a connection, and somebody who is not paused goes on asking on it.
fn held_elsewhere(guest: &Guest, nas: Nas<'_>) -> Result<()> {
    let rule = format!("nft list chain inet nasmount fence | grep -q 'ip daddr {} .*drop'", nas.address());
    guest.wait_for("the kernel to be kept from sending", DEADLINE, &rule)?;
    guest.ok("nft reset counters table inet witness")?;
    let asked = format!("nft list counter inet witness {ASKED} | grep -q 'packets [1-9]'");
    guest.wait_for("the kernel to try", DEADLINE, &asked)?;
    let sent = packets(guest, SENT)?;
    ensure!(sent == 0.0, "{sent} packets went to the address of a share that is held elsewhere");
    Ok(())
}

/// Neither by itself nor when it is asked to.
fn elsewhere(guest: &Guest, nasmount: &Nasmount<'_>) -> Result<()> {
    let said = format!("nasmount status {SHARE} --json | grep -q '{ELSEWHERE}'");
    guest.wait_for("status to say where it is not", DEADLINE, &said)?;
    let state = nasmount.share(SHARE)?["state"].clone();
    ensure!(state == "offline", "elsewhere it is {state}");
    let point = mount_point(SHARE);
    let barred = format!("grep -q ' {point} .* autofs ' /proc/self/mountinfo");
    guest.wait_for("its path to be barred", DEADLINE, &barred)?;
    let met = guest.run(&format!("stat {point}/pattern"))?;
    ensure!(met.code != 0 && !met.stderr.contains("No such file"), "its path shows {met:?}");
    guest.run(&format!("nasmount mount {SHARE}"))?;
    let found = guest.run(&format!("nasmount diagnose {SHARE}"))?;
    ensure!(found.code != 0 && found.stdout.contains(ELSEWHERE), "diagnose says {found:?}");
    let sent = packets(guest, ASKED)?;
    ensure!(sent == 0.0, "{sent} packets went to an address in a network that is not the server's");
    Ok(())
}
