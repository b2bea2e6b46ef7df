//! What networks do: IPv6, a NAS without power, slow, at another address, another machine in its place, rulesets of others.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::guest::Guest;
use crate::load::{Kind, Load};
use crate::nas::{self, At, Fault, Nas};
use crate::nasmount::{DEADLINE, Nasmount, ShareOf, UNHURRIED, barred, mount_point, unharmed};

/// Long enough that the kernel has sent again and again what nobody acknowledges.
const OUTAGE: Duration = Duration::from_secs(30);
/// A name that only this guest knows.
const NAME: &str = "moving.lab";
/// What a firewall's own service does: it throws away what others have loaded, and lets nothing in that was not asked for.
const FIREWALL: &str = "nft -f - <<<'flush ruleset
table inet firewall {
  chain input { type filter hook input priority filter; policy drop;
    ct state established,related accept
    iif lo accept
    meta l4proto { icmp, ipv6-icmp } accept
  }
}'";
/// Somebody with a mount namespace of his own who is told of what happens in the host's, as a container with `rslave` is.
const CONTAINER: &str = "systemd-run --quiet --unit=container unshare --mount --propagation slave sleep infinity";

pub fn run(guest: &Guest) -> Result<String> {
    let [sixth, dark, moving, other] = nas::up(guest, [3, 4, 5, 6])?;
    let (sixth, named) = (sixth.at(At::Ipv6), moving.at(At::Name(NAME)));
    guest.ok(&format!("cp /etc/hosts /run/hosts && {}", resolves_to(&moving.address())))?;
    let loads = [Load::new(guest, "sixth", &Kind::ALL), Load::new(guest, "dark", &Kind::ALL)];
    let share = |name, nas, units| ShareOf {
        name,
        nas,
        source: "media",
        more: "profile = \"transcode\"\npatience = \"2m\"",
        probe: UNHURRIED,
        credentials: None,
        units,
    };
    let shares = [
        share("sixth", sixth, vec![loads[0].unit()]),
        share("dark", dark, vec![loads[1].unit()]),
        share("moving", named, Vec::new()),
    ];
    let nasmount = Nasmount::start(guest, &shares)?;
    for share in &shares {
        nasmount.wait_for_state(share.name, "online")?;
    }
    let [first, second] = loads;
    let loads = [first.start(&mount_point("sixth"))?, second.start(&mount_point("dark"))?];
    crate::load::wait_for_operations(&[&loads[0], &loads[1]], 10, DEADLINE)?;
    let outages = outages(guest, &nasmount, sixth, dark)?;
    let mut accounts = Vec::new();
    for ((name, nas), load) in [("IPv6", sixth), ("without power", dark)].into_iter().zip(&loads) {
        accounts.push(format!("{name}: {}", unharmed(load, nas).with_context(|| name.to_owned())?));
    }
    let slow = slow_is_not_dead(guest, &nasmount, dark)?;
    let moved = another_address(guest, &nasmount, moving)?;
    let trusted = another_machine(guest, &nasmount, moving, other)?;
    nasmount.remove()?;
    guest.ok("systemctl stop container && cp /run/hosts /etc/hosts && nft delete table inet firewall")?;
    Ok(format!("{outages}; {}; {slow}; {moved}; {trusted}", accounts.join("; ")))
}

/// Of two NASes at once, while a firewall starts, in sight of a container.
fn outages(guest: &Guest, nasmount: &Nasmount<'_>, sixth: Nas<'_>, dark: Nas<'_>) -> Result<String> {
    guest.ok(CONTAINER)?;
    let names = ["sixth", "dark"];
    let outages = nas::cut_all([(sixth, Fault::Kill), (dark, Fault::Power)])?;
    for name in names {
        nasmount.wait_for_state(name, "holding")?;
    }
    guest.ok(FIREWALL)?;
    let ours = "nft list table inet nasmount";
    guest.wait_for("veil and fence to be laid again", DEADLINE, ours)?;
    let mut longest = 0.0_f64;
    for name in names {
        longest = longest.max(barred(guest, &mount_point(name), "ls,statfs,open")?);
        let met = guest.run(&in_container(&format!("ls {}", mount_point(name))))?;
        ensure!(met.stderr.contains("Host is down"), "in the container: {met:?}");
    }
    outages[0].last(OUTAGE)?;
    let mut back = Vec::new();
    for (name, healed) in names.into_iter().zip(nas::heal_all(outages)?) {
        back.push(format!("{name} {:.1} s", nasmount.wait_for_state(name, "online")? - healed));
        guest.ok(&in_container(&format!("[ $(ls {} | grep -c film) = 60 ]", mount_point(name))))?;
    }
    Ok(format!("a stranger's call {longest:.0} ms at most, back after {}", back.join(", ")))
}

fn in_container(command: &str) -> String {
    format!("nsenter --mount --target $(systemctl show -P MainPID container) bash -c '{command}'")
}

fn resolves_to(address: &str) -> String {
    format!("{{ cat /run/hosts; echo {address} {NAME}; }} >/etc/hosts")
}

/// Every answer is late: that is said, and nothing else is done.
fn slow_is_not_dead(guest: &Guest, nasmount: &Nasmount<'_>, nas: Nas<'_>) -> Result<String> {
    let latency = |slow: bool| format!("nasmount status dark --json | grep -q '\"slow\": {slow}'");
    let held = "journalctl -b -u nasmount | grep -c 'share{name=dark}.*to=holding'";
    guest.wait_for("the server not to be slow", DEADLINE, &latency(false))?;
    let before = guest.ok(held).context("it was held when it was without power")?;
    let late = nas.cut(Fault::Slow)?;
    guest.wait_for("the server to be slow", DEADLINE, &latency(true))?;
    let last = nasmount.server_of("dark")?["latency"]["last_ms"].clone();
    nasmount.wait_for_state("dark", "online").context("its server is slow")?;
    guest.ok(&format!("ls {}", mount_point("dark"))).context("its server is slow")?;
    late.heal()?;
    guest.wait_for("the server to be as quick as it used to", DEADLINE, &latency(false))?;
    nasmount.wait_for_state("dark", "online").context("its server was slow")?;
    let after = guest.ok(held)?;
    ensure!(after == before, "it was held {before} times before its server was slow, and {after} times after");
    Ok(format!("slow, not dead, with answers after {last} ms"))
}

/// The same machine answers elsewhere: the share is mounted there, by itself.
fn another_address(guest: &Guest, nasmount: &Nasmount<'_>, nas: Nas<'_>) -> Result<String> {
    nas.change("readdress")?;
    nasmount.wait_for_state("moving", "holding")?;
    let moved = nas.at(At::OtherAddress);
    guest.ok(&resolves_to(&moved.address()))?;
    let mounted =
        format!("grep -q ' {} .* cifs .*addr={},' /proc/self/mountinfo", mount_point("moving"), moved.address());
    guest.wait_for("the share at the other address", DEADLINE, &mounted)?;
    nasmount.wait_for_state("moving", "online")?;
    let sees = guest.ok(&format!("ls {} | grep -c film", mount_point("moving")))?;
    ensure!(sees == "60", "the share has {sees} films");
    Ok("at another address by itself".into())
}

/// Another machine in its place is not believed until somebody says so.
fn another_machine(guest: &Guest, nasmount: &Nasmount<'_>, before: Nas<'_>, now: Nas<'_>) -> Result<String> {
    let outage = before.cut(Fault::Link)?;
    nasmount.wait_for_state("moving", "holding")?;
    guest.ok(&resolves_to(&now.address()))?;
    let stranger = "nasmount status --json | grep -q '\"stranger\": \"'";
    guest.wait_for("the stranger to be seen", DEADLINE, stranger)?;
    let reason = "nasmount status moving --json | grep -q '\"kind\": \"server_changed\"'";
    guest.wait_for("the stranger to be the reason", DEADLINE, reason)?;
    let share = nasmount.share("moving")?;
    let hint = share["hint"].as_str().unwrap_or_default();
    ensure!(
        share["state"] == "holding" && share["reason"]["kind"] == "server_changed",
        "with a stranger it is {share}"
    );
    ensure!(hint.contains("`nasmount trust SERVER`"), "with a stranger a person is told {hint:?}");
    barred(guest, &mount_point("moving"), "ls,open").context("with a stranger at its address")?;
    let trusted = guest.ok("nasmount trust moving")?;
    nasmount.wait_for_state("moving", "online")?;
    let sees = guest.ok(&format!("ls {} | grep -c film", mount_point("moving")))?;
    ensure!(sees == "60", "the share has {sees} films");
    outage.heal()?;
    Ok(trusted)
}
