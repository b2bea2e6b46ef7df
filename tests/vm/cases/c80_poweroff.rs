//! Switching the host off: a matter of seconds, whatever the NAS does and whoever uses its share, and without a loss if it is well.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::guest::Guest;
use crate::load::{Kind, Load};
use crate::nas::{self, Fault, Nas};
use crate::nasmount::{DEADLINE, Nasmount, ShareOf, mount_point, paused};

const SHARE: &str = "films";
/// The control is still on after this, by which every other host is off. It was on after 32 s, 37 s, 40 s and 120 s, as what was in
/// flight had it; a guest without any share takes 3 s.
pub const LIMIT: Duration = Duration::from_secs(25);
/// While the host goes down: once the clone is gone, what has arrived at the server. Ordered as a service of the early boot, so that
/// the shutdown waits for its stop.
const JUDGE: &str = "systemd-run --quiet --unit=judge -p DefaultDependencies=no -p Conflicts=shutdown.target \
    -p Before=shutdown.target -p RemainAfterExit=yes -p ExecStop='/bin/bash /run/judge' true";
const VERDICT: &str = "verdict";
const LAST: &str = "last";
/// Somebody who goes on writing for a while after he was told to end, and keeps the share from being unmounted for so long.
const SLOW: &str = "exec 3>$1/slow
trap 'for n in 1 2 3 4 5 6 7 8; do echo $n >&3; sleep 0.5; done; echo the end >&3; exit' TERM
while true; do echo at work >&3; sleep 0.1; done
";

/// How a host is switched off.
#[derive(Clone, Copy)]
enum While {
    /// All is well.
    Healthy,
    /// The NAS hangs: a share is held, its consumers are paused in the middle of what they did.
    Held,
    /// The NAS goes away at the same moment.
    Dying,
}

/// In this guest, and those that follow it; the last of them is off.
pub fn run(guest: &Guest) -> Result<String> {
    control(guest)?;
    let mut facts = Vec::new();
    for (name, how) in [("healthy", While::Healthy), ("held", While::Held), ("dying", While::Dying)] {
        guest.boot_again()?;
        facts.push(format!("{name}: {}", nasmount(guest, how).with_context(|| name.to_owned())?));
    }
    Ok(facts.join("; "))
}

/// The worst of them, where the other suite's systemd and kernel might differ.
pub fn hung(guest: &Guest) -> Result<String> {
    nasmount(guest, While::Held)
}

/// A line of fstab.
fn control(guest: &Guest) -> Result<()> {
    let [nas] = nas::up(guest, [1])?;
    let point = mount_point(SHARE);
    let mount = format!("mkdir -p {point} && mount -t cifs {} {point} -o guest,vers=3.1.1", nas.source("media"));
    guest.ok(&mount)?;
    start(guest, &Load::new(guest, "work", &Kind::ALL))?;
    let outage = nas.cut(Fault::Link)?;
    let off = guest.power_off(LIMIT, "systemctl poweroff")?;
    outage.forget();
    ensure!(off.is_none(), "the control was off after {off:?}: nothing that follows means anything");
    Ok(())
}

/// Consumers with systemd's patience, which is 90 s until SIGKILL.
fn start(guest: &Guest, load: &Load<'_>) -> Result<()> {
    load.install(&mount_point(SHARE))?;
    guest.ok(&format!("systemd-run --quiet --unit={} bash {}", load.unit(), load.script_path()))?;
    load.wait_for_operations(10, DEADLINE).map(drop)
}

fn nasmount(guest: &Guest, how: While) -> Result<String> {
    let [nas] = nas::up(guest, [1])?;
    let load = Load::new(guest, "work", &Kind::ALL);
    let units = vec![load.unit()];
    let share = ShareOf { name: SHARE, nas, source: "media", more: "", probe: "", credentials: None, units };
    let nasmount = Nasmount::start(guest, &[share])?;
    nasmount.wait_for_state(SHARE, "online")?;
    start(guest, &load)?;
    let off = match how {
        While::Healthy => {
            let verdict = judge(guest, nas)?;
            guest.write_file("/run/slow", SLOW)?;
            let point = mount_point(SHARE);
            guest.ok(&format!("systemd-run --quiet --unit=slow bash /run/slow {point}"))?;
            guest.wait_for("the slow writer", DEADLINE, &format!("[ -s {point}/slow ]"))?;
            let off = guest.power_off(LIMIT, "systemctl poweroff")?;
            let verdict: Value = serde_json::from_str(&guest.shared(&verdict)?).context("the judge's verdict")?;
            let last = guest.shared(&format!("/host/files/{LAST}"))?;
            ensure!(last.trim() == "the end", "the last that came of the slow writer is {last:?}");
            for kind in ["fsync", "buffered"] {
                let (acked, lost) = (&verdict[kind]["acked"], &verdict[kind]["lost"]);
                ensure!(acked.as_u64() > Some(0) && lost == 0, "{kind}: {lost} of {acked} blocks lost");
            }
            off
        }
        While::Held => {
            let outage = nas.cut(Fault::Hang)?;
            guest.wait_for("the consumers to be paused", DEADLINE, &paused(&load.unit()))?;
            nasmount.wait_for_state(SHARE, "holding")?;
            let off = guest.power_off(LIMIT, "systemctl poweroff")?;
            outage.forget();
            off
        }
        While::Dying => guest.power_off(LIMIT, "systemctl poweroff & /host/guest/nas.sh cut 1 link; wait")?,
    };
    match off {
        Some(off) => Ok(format!("off after {:.1} s", off.as_secs_f64())),
        None => bail!("still on after {LIMIT:?}"),
    }
}

/// Has the accounts compared in the last moments of the guest; returns where the verdict will be.
fn judge(guest: &Guest, nas: Nas<'_>) -> Result<String> {
    let (verdict, last, export) = (guest.to_be_shared(VERDICT)?, guest.to_be_shared(LAST)?, nas.export("media"));
    // from inside the export, or systemd unmounts the NAS's own file system before it has been looked at
    let script = format!(
        "cd {export}\nuntil [ ! -e /run/nasmount/clone/{SHARE} ]; do sleep 0.1; done\n\
         /host/guest/verify.py /run/load work fsync,buffered {export} >{verdict}\n\
         tail -n 1 {export}/slow >{last}\n",
    );
    guest.write_file("/run/judge", &script)?;
    guest.ok(JUDGE)?;
    Ok(verdict)
}
