//! A unit of a user's own service manager as a consumer: paused, stopped and started through that manager.

use anyhow::{Context as _, Result, ensure};

use crate::guest::Guest;
use crate::nas::{self, Fault};
use crate::nasmount::{DEADLINE, Nasmount, ShareOf, UNHURRIED, mount_point, paused};

const UNIT: &str = "tune.service";
const USER: &str = "nasuser";
const BUS: &str = "/run/user/3000/bus";
/// Below `/sys/fs/cgroup/system.slice`, as all that a case looks at.
const CGROUP: &str = "../user.slice/user-3000.slice/user@3000.service/app.slice/tune.service";
/// Writes through to the server, and ends at the first call that fails.
const PLAYER: &str = "import os, time
file = os.open('/mnt/nm-tune/tune', os.O_WRONLY | os.O_CREAT | os.O_APPEND)
while True:
    os.write(file, b'.')
    os.fsync(file)
    time.sleep(0.2)
";

pub fn run(guest: &Guest) -> Result<String> {
    let [nas] = nas::up(guest, [9])?;
    guest.write_file("/run/tune.py", PLAYER)?;
    guest.write_file(
        "/etc/systemd/user/tune.service",
        "[Service]\nExecStart=/usr/bin/python3 /run/tune.py\nStandardOutput=null\nStandardError=null\n",
    )?;
    guest.ok(&format!("loginctl enable-linger {USER}"))?;
    guest.wait_for("the user's manager", DEADLINE, &format!("[ -S {BUS} ] && {}", of_user("list-jobs >/dev/null")))?;
    let more = "profile = \"transcode\"\npatience = \"2m\"\noptions = { uid = 3000 }\n\
        [[share.tune.consumer]]\nunit = \"tune.service\"\nuser = \"nasuser\"";
    let share =
        ShareOf { name: "tune", nas, source: "media", more, probe: UNHURRIED, credentials: None, units: vec![] };
    let nasmount = Nasmount::start(guest, &[share])?;
    nasmount.wait_for_state("tune", "online")?;
    guest.ok(&of_user(&format!("start {UNIT}")))?;
    let export = nas.export("media");
    wait_until_it_writes(guest, &export, "the user's unit to write")?;
    let listed = guest.ok("nasmount consumers tune")?;
    let line = listed.lines().find(|line| line.contains("user:nasuser/tune.service")).unwrap_or_default();
    ensure!(!line.contains("is the name right") && !listed.contains(" tune.service"), "{listed}");

    let process = of_user(&format!("show --property=MainPID --value {UNIT}"));
    let before = guest.ok(&process)?;
    let outage = nas.cut(Fault::Link)?;
    nasmount.wait_for_state("tune", "holding")?;
    let seen = guest.wait_for("the user's unit to be paused", DEADLINE, &paused(CGROUP))?;
    let after = seen - outage.began;
    guest.ok("systemctl restart nasmount").context("a new daemon goes on from there")?;
    outage.heal()?;
    nasmount.wait_for_state("tune", "online")?;
    wait_until_it_writes(guest, &export, "the user's unit to go on")?;
    ensure!(guest.ok(&process)? == before, "the user's unit is another process");

    guest.ok("nasmount unmount tune")?;
    let state = guest.run(&of_user(&format!("is-active {UNIT}")))?.stdout;
    ensure!(state.trim() == "inactive", "before a share is unmounted its consumers are stopped: {state}");
    guest.ok("nasmount mount tune")?;
    wait_until_it_writes(guest, &export, "the user's unit to be started")?;

    guest.ok(&format!("loginctl disable-linger {USER} && systemctl stop user@3000")).context("the user leaves")?;
    let gone = "nasmount doctor | grep -q 'the service manager of nasuser does not run'";
    guest.wait_for("doctor to tell", DEADLINE, gone)?;
    let outage = nas.cut(Fault::Link)?;
    nasmount.wait_for_state("tune", "holding")?;
    outage.heal()?;
    nasmount.wait_for_state("tune", "online").context("nobody waits for who has left")?;
    guest.ok(&format!("rm /etc/systemd/user/tune.service {}/tune", mount_point("tune")))?;
    nasmount.remove()?;
    Ok(format!("paused {after:.1} s after the cut"))
}

fn of_user(command: &str) -> String {
    format!("setpriv --reuid={USER} --clear-groups env XDG_RUNTIME_DIR=/run/user/3000 systemctl --user {command}")
}

/// Two more bytes: one may have been in flight when the unit was paused, and arrives by itself.
fn wait_until_it_writes(guest: &Guest, export: &str, what: &str) -> Result<()> {
    let size = format!("stat --format %s {export}/tune");
    let before = guest.run(&size)?.stdout;
    let enough = before.trim().parse().unwrap_or(0_u64) + 1;
    guest.wait_for(what, DEADLINE, &format!("[ $({size}) -gt {enough} ]")).map(drop)
}
