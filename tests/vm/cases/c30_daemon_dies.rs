//! The daemon dies while it holds a share: the path stays barred, and the next one goes on from there.

use anyhow::{Context as _, Result, ensure};

use super::c20_hold_over::never_empty;
use crate::guest::Guest;
use crate::load::{Kind, Load};
use crate::nas::{self, Fault};
use crate::nasmount::{DEADLINE, Nasmount, ShareOf, UNHURRIED, barred, mount_point, paused, unharmed};

const UNIT: &str = "load-kept.service";
const STOP: &str = "/run/daemon-dies.stop";
/// Keeps the killed daemon away long enough to look at the host without it.
const SLOW_RESTART: &str = "/run/systemd/system/nasmount.service.d/slow.conf";

/// But how the connection was given up, which is for people to see.
const REMEMBERS_NOTHING: &str = "python3 -c '
import glob, json
kept = [json.load(open(path)) for path in glob.glob(\"/run/nasmount/share/*\")]
left = [value for file in kept for key, value in file.items() if value and key not in (\"release\", \"slept\", \"wanted\")]
assert not left, kept
'";

pub fn killed_while_holding(guest: &Guest) -> Result<String> {
    let [nas] = nas::up(guest, [2])?;
    let load = Load::new(guest, "kept", &Kind::ALL);
    let path = mount_point("kept");
    guest.write_file(SLOW_RESTART, "[Service]\nRestartSec=10\n")?;
    let more = "profile = \"transcode\"\npatience = \"2m\"";
    let share = ShareOf {
        name: "kept",
        nas,
        source: "media",
        more,
        probe: UNHURRIED,
        credentials: None,
        units: vec![load.unit()],
    };
    let nasmount = Nasmount::start(guest, &[share])?;
    nasmount.wait_for_state("kept", "online")?;
    let load = load.start(&path)?;
    load.wait_for_operations(10, DEADLINE)?;

    // a restart while all is well changes nothing
    let mounts = "grep -E 'nm-kept|nasmount' /proc/self/mountinfo";
    let before = guest.ok(mounts)?;
    guest.ok("systemctl restart nasmount")?;
    nasmount.wait_for_state("kept", "online")?;
    ensure!(guest.ok(mounts)? == before, "a restart changed the mounts");

    let outage = nas.cut(Fault::Link)?;
    nasmount.wait_for_state("kept", "holding")?;
    guest.wait_for("the consumers to be paused", DEADLINE, &paused(UNIT))?;
    // a barrier that somebody takes is laid again
    guest.ok(&format!("umount -l {path}"))?;
    guest.wait_for("the barrier", DEADLINE, &format!("grep -q ' {path} .* autofs ' /proc/self/mountinfo"))?;
    barred(guest, &path, "ls").context("behind the second barrier")?;
    owner_dies_again_and_again(guest, &path)?;
    let hammer = guest.spawn(&format!("/host/guest/stranger.py {path} hammer --stop {STOP}"))?;
    let daemon = guest.ok("systemctl show -P MainPID nasmount")?;
    guest.ok(&format!("kill -9 {daemon}"))?;
    guest.wait_for("systemd to see it", DEADLINE, "[ $(systemctl show -P SubState nasmount) = auto-restart ]")?;
    barred(guest, &path, "ls,stat,statfs,open,create").context("without the daemon")?;
    guest.ok(&paused(UNIT)).context("the consumers without the daemon")?;
    let restarted = format!("pid=$(systemctl show -P MainPID nasmount); [ $pid != 0 ] && [ $pid != {daemon} ]");
    guest.wait_for("the next daemon", DEADLINE, &restarted)?;
    nasmount.wait_for_state("kept", "holding")?;
    guest.ok(&paused(UNIT)).context("the consumers with the next daemon")?;

    let healed = outage.heal()?;
    let back = nasmount.wait_for_state("kept", "online")? - healed;
    let account = unharmed(&load, nas)?;
    guest.ok(&format!("touch {STOP}"))?;
    let hammer = never_empty(&hammer.wait(DEADLINE)?.stdout)?;
    guest
        .ok("[ -z \"$(nft list chain inet nasmount fence | grep reject)\" ] && ! ls /run/nasmount/paused.json /var/lib/nasmount/stopped.json 2>/dev/null")
        .context("the outage left something")?;
    guest.ok(REMEMBERS_NOTHING).context("the outage left more than its story")?;
    guest.ok(&format!("rm {SLOW_RESTART} && systemctl daemon-reload"))?;
    nasmount.remove()?;
    Ok(format!("back after {back:.1} s; {hammer}; {account}"))
}

/// The barrier's owner dies again and again: the next one takes the barrier over, and nobody sees it empty. Who waits when it is silenced
/// gets ENOENT from the kernel.
fn owner_dies_again_and_again(guest: &Guest, path: &str) -> Result<()> {
    const KILLS: usize = 5;
    const OVER: &str = "/run/barrier-dies.stop";
    let hammer = guest.spawn(&format!("/host/guest/stranger.py {path} hammer --stop {OVER}"))?;
    let mut killed = String::from("0");
    for _ in 0..KILLS {
        let next = format!(
            "( pid=$(systemctl show -P MainPID nasmount-barrier); [ $pid != 0 ] && [ $pid != {killed} ] && \
             systemctl is-active --quiet nasmount-barrier )"
        );
        guest.wait_for("the barrier's next owner", DEADLINE, &next)?;
        killed = guest.ok("systemctl show -P MainPID nasmount-barrier")?;
        guest.ok(&format!("kill -9 {killed}"))?;
    }
    guest.wait_for("the barrier's last owner", DEADLINE, "systemctl is-active --quiet nasmount-barrier")?;
    barred(guest, path, "ls,stat,statfs,open,create").context("behind a barrier that was taken over")?;
    let one = format!("[ $(grep -c ' {path} .* autofs ' /proc/self/mountinfo) = 1 ]");
    guest.ok(&one).context("covers of the barrier are left")?;
    guest.ok(&format!("touch {OVER}"))?;
    let report: serde_json::Value = serde_json::from_str(&hammer.wait(DEADLINE)?.stdout)?;
    let outcomes = report["outcomes"].as_object().context("the hammer's outcomes")?;
    let met = |outcome: &String| ["EHOSTDOWN", "ENOENT"].contains(&outcome.as_str());
    ensure!(outcomes.keys().all(met), "without an owner the path was seen as {report}");
    Ok(())
}

/// A daemon that cannot come back must not leave anything paused.
pub fn cannot_come_back(guest: &Guest) -> Result<String> {
    let [nas] = nas::up(guest, [3])?;
    let load = Load::new(guest, "kept", &[Kind::Reader]);
    let path = mount_point("kept");
    let more = "profile = \"transcode\"\npatience = \"2m\"";
    let share = ShareOf {
        name: "kept",
        nas,
        source: "media",
        more,
        probe: UNHURRIED,
        credentials: None,
        units: vec![load.unit()],
    };
    let nasmount = Nasmount::start(guest, &[share])?;
    nasmount.wait_for_state("kept", "online")?;
    let load = load.start(&path)?;
    load.wait_for_operations(10, DEADLINE)?;
    let outage = nas.cut(Fault::Link)?;
    nasmount.wait_for_state("kept", "holding")?;
    guest.wait_for("the consumers to be paused", DEADLINE, &paused(UNIT))?;
    guest.ok("mv /etc/nasmount/nasmount.toml /run/ && echo 'nonsense' >/etc/nasmount/nasmount.toml")?;
    guest.ok("systemctl kill --signal=KILL nasmount")?;
    guest.wait_for("the consumers to go on", DEADLINE, &format!("! {}", paused(UNIT)))?;
    guest.ok("journalctl -b -u nasmount-resume-all | grep -q continued").context("somebody else continued them")?;
    barred(guest, &path, "ls").context("without a daemon that could come back")?;

    outage.heal()?;
    guest.ok("mv /run/nasmount.toml /etc/nasmount/ && systemctl reset-failed nasmount && systemctl start nasmount")?;
    nasmount.wait_for_state("kept", "online")?;
    let account = unharmed(&load, nas)?;
    nasmount.remove()?;
    Ok(account)
}
