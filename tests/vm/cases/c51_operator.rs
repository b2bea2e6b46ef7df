//! What an operator asks for, what others do to the mount point, and a configuration that changes meanwhile.

use anyhow::{Context as _, Result, ensure};

use crate::guest::Guest;
use crate::load::{Kind, Load};
use crate::nas::{self, Fault, Nas};
use crate::nasmount::{DEADLINE, Nasmount, ShareOf, UNHURRIED, barred, mount_point, paused, unharmed};

use super::c50_two_shares::replays_to_the_same_states;

/// Takes its time to stop.
const SLOW: &str = "slow.service";
const UNIT: &str = "load-asked.service";
const MOUNT: &str = r"'mnt-nm\x2dasked.mount'";
const CONFIGURATION: &str = "/etc/nasmount/nasmount.toml";

pub fn run(guest: &Guest) -> Result<String> {
    let [nas] = nas::up(guest, [1])?;
    let load = Load::new(guest, "asked", &Kind::ALL);
    let share = ShareOf {
        name: "asked",
        nas,
        source: "media",
        more: "profile = \"transcode\"\npatience = \"2m\"",
        probe: UNHURRIED,
        credentials: None,
        units: vec![load.unit()],
    };
    let nasmount = Nasmount::start(guest, &[share])?;
    nasmount.wait_for_state("asked", "online")?;
    let load = load.start(&mount_point("asked"))?;
    load.wait_for_operations(10, DEADLINE)?;

    examined(guest, nas)?;
    without_the_bus(guest)?;
    held_by_operator(guest, &nasmount, &load, nas)?;
    hands_off(guest, &nasmount, nas)?;
    meddled_with(guest, &nasmount)?;
    let back = disconnected(guest, &nasmount, nas)?;
    let account = unharmed(&load, nas)?;
    guest
        .ok("nasmount explain asked | grep -E '^ *wsize +65536 +65536 +built-in:transcode.toml:'")
        .context("explain")?;
    as_with_fstab(guest, &nasmount)?;
    unmounted(guest, &nasmount)?;
    reloaded(guest, &nasmount)?;
    let compared = replays_to_the_same_states(guest, "asked")?;
    nasmount.remove()?;
    Ok(format!(
        "a connection that the server closed was made anew within {back:.1} s; {account}; {compared} transitions replayed"
    ))
}

fn exits(guest: &Guest, command: &str, code: i32) -> Result<()> {
    let output = guest.run(command)?;
    ensure!(output.code == code, "`{command}` ended with {}, not {code}: {}", output.code, output.stderr);
    Ok(())
}

/// The bus hangs: who is root asks the daemon itself.
fn without_the_bus(guest: &Guest) -> Result<()> {
    const OVER_THE_BUS: &str = "timeout 3 setpriv --reuid=nasuser --clear-groups nasmount status asked >/dev/null 2>&1";
    guest.ok(OVER_THE_BUS).context("anybody may ask")?;
    let asked = format!("{OVER_THE_BUS} && exit 9; nasmount status asked && nasmount maintenance off asked");
    let hung = format!(
        "systemctl kill --signal=STOP dbus; ( {asked} ); code=$?; systemctl kill --signal=CONT dbus; exit $code"
    );
    guest.ok(&hung).map(drop)
}

/// A consumer that an operator holds stays held when an outage is over, and goes on when he releases it.
fn held_by_operator(guest: &Guest, nasmount: &Nasmount<'_>, load: &Load<'_>, nas: Nas<'_>) -> Result<()> {
    exits(guest, "nasmount release asked", 0).context("nothing is held")?;
    exits(guest, "nasmount hold asked", 0)?;
    guest.wait_for("the consumer to be paused", DEADLINE, &paused(UNIT))?;
    let outage = nas.cut(Fault::Link)?;
    nasmount.wait_for_state("asked", "holding")?;
    outage.heal()?;
    nasmount.wait_for_state("asked", "online")?;
    guest.ok(&paused(UNIT)).context("the operator holds it still")?;
    let reasons = nasmount.share("asked")?["hold_reasons"].clone();
    ensure!(reasons == serde_json::json!(["operator"]), "held because of {reasons}");
    exits(guest, "nasmount release asked", 0)?;
    load.wait_for_operations(5, DEADLINE).context("it was released")?;
    exits(guest, "nasmount hold nobody", 4)
}

/// In maintenance nothing is done, whatever happens.
fn hands_off(guest: &Guest, nasmount: &Nasmount<'_>, nas: Nas<'_>) -> Result<()> {
    exits(guest, "nasmount maintenance on asked --for 10min", 0)?;
    nasmount.wait_for_state("asked", "maintenance")?;
    exits(guest, "nasmount unmount asked", 3)?;
    let outage = nas.cut(Fault::Drop)?;
    let dead = "nasmount status asked --json | grep -q '\"trust\": \"dead\"'";
    guest.wait_for("the server to be dead", DEADLINE, dead)?;
    ensure!(nasmount.share("asked")?["state"] == "maintenance", "hands were not kept off");
    exits(guest, &paused(UNIT), 1).context("nobody was to be paused")?;
    outage.heal()?;
    exits(guest, "nasmount maintenance off asked", 0)?;
    nasmount.wait_for_state("asked", "online").map(drop)
}

/// Something else is laid on its path.
fn meddled_with(guest: &Guest, nasmount: &Nasmount<'_>) -> Result<()> {
    let path = mount_point("asked");
    guest.ok(&format!("mount -t tmpfs foreign {path}"))?;
    nasmount.wait_for_state("asked", "blocked")?;
    let reason = nasmount.share("asked")?["reason"].clone();
    ensure!(reason["kind"] == "foreign_mount" && reason["source"] == "foreign", "blocked because of {reason}");
    guest.ok(&format!("umount {path}"))?;
    nasmount.wait_for_state("asked", "online").map(drop)
}

/// The server ends the share's connection, which the veil hides from the kernel, and answers every probe.
fn disconnected(guest: &Guest, nasmount: &Nasmount<'_>, nas: Nas<'_>) -> Result<f64> {
    let silent = "journalctl -b -u nasmount | grep -c 'to=holding.*the share does not'";
    let before = guest.run(silent)?.stdout;
    let closed = guest.uptime()?;
    nas.change("disconnect")?;
    guest.wait_for("nasmount to find out", DEADLINE, &format!("[ $({silent}) -gt {} ]", before.trim()))?;
    Ok(nasmount.wait_for_state("asked", "online")? - closed)
}

/// A host on which all is well, and a line of fstab beside nasmount.
fn examined(guest: &Guest, nas: Nas<'_>) -> Result<()> {
    let well = guest.run("nasmount doctor --nagios")?;
    ensure!(well.code == 0 && well.stdout.starts_with("OK - "), "doctor said {well:?}");
    guest.write_file("/etc/fstab", &format!("{} /mnt/beside cifs noauto,guest 0 0\n", nas.source("media")))?;
    let beside = guest.run("nasmount doctor")?;
    guest.ok(": >/etc/fstab")?;
    ensure!(
        beside.code == 3 && beside.stdout.contains("line 1 of /etc/fstab mounts /mnt/beside"),
        "doctor said {beside:?}"
    );
    Ok(())
}

/// What puts a line of fstab off and on does so with a share.
fn as_with_fstab(guest: &Guest, nasmount: &Nasmount<'_>) -> Result<()> {
    let path = mount_point("asked");
    let attached = format!("mountpoint -q {path} && [ $(stat -f -c %T {path}) != autofs ] && ls {path} >/dev/null");
    // in one go, so that the start comes before nasmount can have noticed
    for unmount in [format!("umount {path}"), format!("systemctl stop {MOUNT}")] {
        guest.ok(&format!("{unmount} && systemctl start {MOUNT}")).with_context(|| unmount.clone())?;
        guest.ok(&attached).with_context(|| format!("mounted again after {unmount}"))?;
        guest.ok(&unmount)?;
        nasmount.wait_for_state("asked", "offline")?;
        let report = nasmount.share("asked")?;
        ensure!(report["wanted"] == "taken_off" && report["reason"]["kind"] == "taken_off", "it is {report}");
        barred(guest, &path, "ls,create")?;
        exits(guest, "nasmount mount asked", 0)?;
        nasmount.wait_for_state("asked", "online")?;
    }
    Ok(())
}

/// An unmount loses nothing and lasts; a mount brings share and consumer back.
fn unmounted(guest: &Guest, nasmount: &Nasmount<'_>) -> Result<()> {
    let path = mount_point("asked");
    guest.ok(&format!(
        "dd if=/dev/urandom of={path}/unwritten bs=64k count=40 status=none && cp {path}/unwritten /run/"
    ))?;
    exits(guest, "nasmount unmount asked", 0)?;
    nasmount.wait_for_state("asked", "offline")?;
    barred(guest, &path, "ls,open,create")?;
    guest.ok("cmp /run/unwritten /srv/nas1/media/unwritten && rm /srv/nas1/media/unwritten")?;
    exits(guest, "nasmount unmount asked", 0).context("it is so already")?;
    guest.ok("systemctl restart nasmount")?;
    nasmount.wait_for_state("asked", "offline").context("an operator's wish lasts over a restart")?;
    exits(guest, "nasmount wait asked --timeout 2s", 3)?;
    exits(guest, "nasmount mount asked", 0)?;
    nasmount.wait_for_state("asked", "online")?;
    exits(guest, "nasmount remount asked", 0)?;
    nasmount.wait_for_state("asked", "online").map(drop)
}

/// systemd refuses to start what it is stopping; that is no reason to forget it.
fn released_while_it_stops(guest: &Guest) -> Result<()> {
    let run = format!("systemctl show -P InvocationID {SLOW}");
    let before = guest.ok(&run)?;
    guest.ok("nasmount hold more --no-wait")?;
    let stopping = format!("[ $(systemctl is-active {SLOW}) = deactivating ]");
    guest.wait_for("the consumer to be stopping", DEADLINE, &stopping)?;
    guest.ok("nasmount release more --no-wait")?;
    let started = format!("systemctl is-active --quiet {SLOW} && [ $({run}) != {before} ]");
    guest.wait_for("the consumer to be started again", DEADLINE, &started)?;
    Ok(())
}

/// A share more, a share less, and a file that is not valid.
fn reloaded(guest: &Guest, nasmount: &Nasmount<'_>) -> Result<()> {
    guest.ok(&format!("cp {CONFIGURATION} /run/before.toml"))?;
    let more = format!(
        "\n[share.more]\nserver = \"asked\"\nsource = \"media\"\nmount_point = \"/mnt/nm-more\"\n\
         [[share.more.consumer]]\nunit = \"{SLOW}\"\non_outage = \"stop\"\n"
    );
    guest.write_file(
        &format!("/run/systemd/system/{SLOW}"),
        "[Service]\nExecStart=sleep infinity\nExecStop=sleep 5\n",
    )?;
    guest.ok(&format!("systemctl daemon-reload && systemctl start {SLOW}"))?;
    guest.ok(&format!("printf '%s' '{more}' >>{CONFIGURATION}"))?;
    exits(guest, "nasmount reload", 0)?;
    nasmount.wait_for_state("more", "online")?;
    released_while_it_stops(guest)?;
    guest.ok(&format!("echo nonsense >>{CONFIGURATION}"))?;
    exits(guest, "nasmount reload", 2)?;
    ensure!(nasmount.share("more")?["state"] == "online", "an invalid configuration was half applied");
    guest.ok(&format!("cp /run/before.toml {CONFIGURATION}"))?;
    exits(guest, "nasmount reload", 0)?;
    guest.wait_for("the share to be gone", DEADLINE, "! grep -q nm-more /proc/self/mountinfo")?;
    guest.ok(&format!("systemctl stop {SLOW}; rm /run/systemd/system/{SLOW}; systemctl daemon-reload"))?;
    exits(guest, "nasmount status more", 4)?;
    nasmount.wait_for_state("asked", "online").map(drop)
}
