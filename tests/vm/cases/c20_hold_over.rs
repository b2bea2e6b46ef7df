//! The hold is over: the consumer is stopped, the path stays barred, and on return the share is mounted afresh.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::guest::Guest;
use crate::load::{Kind, Load};
use crate::nas::{self, Fault};
use crate::nasmount::{DEADLINE, Nasmount, ShareOf, UNHURRIED, barred, mount_point, unharmed};

/// A login was.
pub const REFUSED: &str = "STATUS_LOGON_FAILURE";
const STOP: &str = "/run/hold-over.stop";

/// Nobody told nasmount of it.
const HOLDER: &str = "leftover.service";

/// How the share is mounted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mounted {
    Soft,
    Hard,
}

pub fn run(guest: &Guest) -> Result<String> {
    given_up(guest, Mounted::Soft)
}

/// What the kernel would never give up by itself is given up as well.
pub fn hard(guest: &Guest) -> Result<String> {
    given_up(guest, Mounted::Hard)
}

fn given_up(guest: &Guest, mounted: Mounted) -> Result<String> {
    let [nas] = nas::up(guest, [1])?;
    let load = Load::new(guest, "held", &Kind::ALL);
    let path = mount_point("held");
    let unit = "held.service";
    let options = if mounted == Mounted::Hard { "options = { hard = true }" } else { "" };
    let more = format!("patience = \"8s\"\nhold_for = \"20s\"\nkill_holders = true\n{options}");
    let share = ShareOf {
        name: "held",
        nas,
        source: "media",
        more: &more,
        probe: UNHURRIED,
        credentials: None,
        units: vec![unit.to_owned()],
    };
    let nasmount = Nasmount::start(guest, &[share])?;
    nasmount.wait_for_state("held", "online")?;
    let mounts = so_far(guest, "Attempting to mount")?;
    let refused = so_far(guest, REFUSED)?;
    load.install(&path)?;
    let text = format!("[Service]\nExecStart=/bin/bash {}\nTimeoutStopSec=15\n", load.script_path());
    guest.write_file(&format!("/run/systemd/system/{unit}"), &text)?;
    guest.ok(&format!("systemctl daemon-reload && systemctl start {unit}"))?;
    load.wait_for_operations(10, DEADLINE)?;

    guest.ok(&format!("systemd-run --quiet --unit={HOLDER} sh -c 'exec 3<{path}/pattern; exec sleep infinity'"))?;
    guest.wait_for(
        "the holder to be listed",
        DEADLINE,
        &format!("nasmount status held -v | grep '{HOLDER}): 1 files'"),
    )?;
    let hammer = guest.spawn(&format!("/host/guest/stranger.py {path} hammer --stop {STOP}"))?;
    let outage = nas.cut(Fault::Link)?;
    nasmount.wait_for_state("held", "holding")?;
    tools_end_at_once(guest, &path)?;
    let offline = nasmount.wait_for_state("held", "offline")?;
    let state = guest.run(&format!("systemctl is-active {unit}"))?.stdout;
    ensure!(["inactive", "failed"].contains(&state.trim()), "the consumer is {state}");
    let stopped = nasmount.share("held")?["consumers"][0]["held"].clone();
    ensure!(stopped == "stopped", "nasmount says of the consumer: {stopped}");
    guest.wait_for("the holder's end", DEADLINE, &format!("! systemctl is-active --quiet {HOLDER}"))?;
    guest.ok(&format!("journalctl -b -u nasmount | grep 'given up while in use.*{HOLDER}: sleep'"))?;
    guest.ok(&format!("systemctl reset-failed {HOLDER}"))?;
    barred(guest, &path, "ls,stat,statfs,open,create")?;
    guest.ok(&format!("! touch {path}/underneath && ! mkdir {path}/underneath"))?;
    bare_directory_takes_nothing(guest)?;
    let released = offline - outage.began;
    let is_soft = mounted == Mounted::Soft;
    ensure!(had_a_sinkhole(&nasmount)? == is_soft, "a soft mount ends by a sinkhole, a hard one has none");
    // by the sinkhole, as nobody else answers, of those who still wait: on a slow machine nobody may. Case 21 has somebody who calls later.
    let refused = so_far(guest, REFUSED)? - refused;
    ensure!(is_soft || refused == 0, "{refused} logins were refused, which no hard mount ends by");

    outage.heal()?;
    nasmount.wait_for_state("held", "online")?;
    guest.wait_for("the consumer's start", DEADLINE, &format!("systemctl is-active --quiet {unit}"))?;
    load.wait_for_operations(10, DEADLINE).context("the consumer started anew does not work")?;
    ensure!(so_far(guest, "Attempting to mount")? == mounts + 1, "the share was not mounted afresh, once");
    guest.ok(&format!("touch {STOP}"))?;
    let hammer = never_empty(&hammer.wait(DEADLINE)?.stdout)?;
    let account = unharmed(&load, nas)?;
    guest.ok(&format!("systemctl stop {unit}; rm /run/systemd/system/{unit}; systemctl daemon-reload"))?;
    nasmount.remove()?;
    guest.ok(&format!("[ -d {path} ] && [ -z \"$(ls -A {path})\" ]")).context("something was written underneath")?;
    guest.ok(&format!("touch {path}/usual && rm {path}/usual")).context("the directory was not given back")?;
    Ok(format!(
        "released {released:.1} s after the cut, {refused} logins refused; {hammer}; after the fresh mount: {account}"
    ))
}

/// As `status` tells of how it was given up.
fn had_a_sinkhole(nasmount: &Nasmount<'_>) -> Result<bool> {
    let release = nasmount.share("held")?["release"].clone();
    let raised = release.as_array().into_iter().flatten().find(|rung| rung["operation"] == "raise sinkhole");
    Ok(raised.with_context(|| format!("it is not a rung of {release}"))?["outcome"] == "done")
}

/// Past the barrier, as if nobody had laid one yet: the mount point is not of the parent's file system there.
fn bare_directory_takes_nothing(guest: &Guest) -> Result<()> {
    let bare = "mkdir -p /run/bare && mount --bind /mnt /run/bare && cd /run/bare/nm-held && ! touch underneath";
    let bare = guest.run(&format!("{bare}; code=$?; cd / && umount /run/bare; exit $code"))?;
    ensure!(bare.code == 0 && bare.stderr.contains("not permitted"), "the bare directory can be written to: {bare:?}");
    Ok(())
}

/// What looks at paths and mounts says that the host is down, or has nothing to ask there.
fn tools_end_at_once(guest: &Guest, path: &str) -> Result<()> {
    let reading = [format!("find {path}"), format!("tar -cf /dev/null {path}"), format!("cp -r {path} /run/copied")];
    let looking = [format!("df {path}"), format!("mountpoint {path}"), "df".into(), "findmnt".into()];
    for (tool, must_say) in reading.iter().map(|tool| (tool, true)).chain(looking.iter().map(|tool| (tool, false))) {
        let output = guest.run(&format!("timeout --signal=KILL 5 {tool}"))?;
        let said = output.code != 0 && output.stderr.contains("Host is down");
        ensure!(output.code != 137 && (said || !must_say), "{tool} met {output:?}");
    }
    Ok(())
}

/// How often the kernel has said this.
pub fn so_far(guest: &Guest, what: &str) -> Result<u32> {
    Ok(guest.ok(&format!("journalctl -b -k | grep -c '{what}' || true"))?.parse()?)
}

/// Listing the path again and again found the library or "Host is down", never an empty directory. A listing in flight at
/// the cut ends with the kernel's own error when it is given up.
pub fn never_empty(report: &str) -> Result<String> {
    let report: Value = serde_json::from_str(report).with_context(|| format!("report of the hammer: {report:?}"))?;
    let outcomes = report["outcomes"].as_object().context("the hammer's outcomes")?;
    for outcome in outcomes.keys() {
        let files: Option<u64> = outcome.strip_prefix("ok:").and_then(|count| count.parse().ok());
        let fine = files.is_some_and(|count| count >= 60) || ["EHOSTDOWN", "EAGAIN"].contains(&outcome.as_str());
        ensure!(fine, "the path was seen as {outcome}: {report}");
    }
    ensure!(outcomes.contains_key("EHOSTDOWN"), "the path was never barred: {report}");
    Ok(format!("{} listings, longest {:.1} s", report["calls"], report["longest_ms"].as_f64().unwrap_or(0.0) / 1000.0))
}
