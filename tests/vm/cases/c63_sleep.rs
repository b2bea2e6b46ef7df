//! The host sleeps: twice the kernel freezes all tasks for three seconds and thaws them again (the test mode `freezer` of
//! Documentation/power/basic-pm-debugging.rst), so that an outage can be older than the sleep; once it is suspended to memory, with clocks
//! that stop, until its RTC wakes it up.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::guest::{Guest, number};
use crate::load::{Kind, Load};
use crate::nas::{self, Fault, Nas};
use crate::nasmount::{DEADLINE, Nasmount, ShareOf, UNHURRIED, mount_point, paused, unharmed};

const SHARE: &str = "asleep";
/// systemd-sleep(8) runs it when all inhibitors are gone, just before the kernel is asked, and again afterwards.
const HOOK: &str = "/usr/lib/systemd/system-sleep/witness";
const SEEN: &str = "/run/witness";
const TEST_MODE: &str = "echo freezer >/sys/power/pm_test && \
     { [ ! -e /sys/module/suspend/parameters/pm_test_delay ] || echo 3 >/sys/module/suspend/parameters/pm_test_delay; }";
/// Goes to sleep without the directory that is shared with the driver: its device forgets everything when the machine wakes up, and its
/// kernel driver cannot tell it anything again.
const REALLY: &str = "while pgrep --parent $(systemctl show -P MainPID vm-agent); do sleep 0.1; done
driver=/sys/bus/virtio/drivers/9pnet_virtio
device=$(basename $driver/virtio*)
systemctl stop vm-agent && umount /host && echo $device >$driver/unbind || exit
systemctl suspend
until [ -s /run/witness.post ]; do sleep 0.1; done
echo $device >$driver/bind
systemctl start vm-agent
";
/// Seconds from just before the sleep until the RTC wakes the machine, by this host's clock as the RTC's is.
const ALARM: u32 = 45;
/// Of these the clocks have to stop for so many.
const STOPPED: f64 = 10.0;
/// What is in flight ends 12 s after it was given up, and a kernel that cannot freeze a task says so after 20 s.
const ASLEEP_WITHIN: Duration = Duration::from_secs(45);

pub fn run(guest: &Guest) -> Result<String> {
    let [nas] = nas::up(guest, [2])?;
    guest.ok(TEST_MODE).context("this kernel has no test mode for suspend (CONFIG_PM_DEBUG)")?;
    let load = Load::new(guest, SHARE, &Kind::ALL);
    let share = ShareOf {
        name: SHARE,
        nas,
        source: "media",
        more: "profile = \"transcode\"\npatience = \"2m\"",
        probe: UNHURRIED,
        credentials: None,
        units: vec![load.unit()],
    };
    let nasmount = Nasmount::start(guest, &[share])?;
    nasmount.wait_for_state(SHARE, "online")?;
    guest.wait_for("the inhibitor", DEADLINE, INHIBITED)?;
    install_witness(guest, &load.unit())?;
    let load = load.start(&mount_point(SHARE))?;
    load.wait_for_operations(10, DEADLINE)?;

    let suspend = || guest.ok("systemctl suspend").map(drop);
    let well = sleep(guest, 1, suspend)?;
    let back = nasmount.wait_for_state(SHARE, "online")?;
    guest.wait_for("the inhibitor again", DEADLINE, INHIBITED)?;
    let account = unharmed(&load, nas).context("a sleep")?;
    guest.ok("journalctl -b -u nasmount | grep -q 'to=holding.*about to sleep'").context("it was not held before")?;

    let load = load.start(&mount_point(SHARE))?;
    load.wait_for_operations(5, DEADLINE)?;
    let outage = nas.cut(Fault::Drop)?;
    nasmount.wait_for_state(SHARE, "holding")?;
    let away = sleep(guest, 2, suspend).context("a sleep during an outage")?;
    let share = nasmount.share(SHARE)?;
    ensure!(share["state"] == "holding" && share["given_up"] == true, "after the sleep it is {share}");
    guest.ok(&paused(&load.unit())).context("after the sleep the consumers are not paused")?;
    outage.heal()?;
    nasmount.wait_for_state(SHARE, "online")?;
    load.wait_for_operations(5, DEADLINE).context("the consumers do not go on")?;
    drop(load.finish(nas, DEADLINE)?);
    let really = really(guest, &nasmount, nas)?;

    guest.ok(&format!("rm {HOOK}"))?;
    nasmount.remove()?;
    Ok(format!(
        "asleep after {:.1} s and back {:.1} s after waking, {account}; in an outage asleep after {:.1} s; {really}",
        well.asleep,
        back - well.awake_at,
        away.asleep
    ))
}

/// All that is told in times of before the sleep is older than it seems.
fn really(guest: &Guest, nasmount: &Nasmount<'_>, nas: Nas<'_>) -> Result<String> {
    guest.ok("echo none >/sys/power/pm_test")?;
    guest.write_file("/run/sleeper", REALLY)?;
    let load = Load::new(guest, SHARE, &Kind::ALL).start(&mount_point(SHARE))?;
    load.wait_for_operations(5, DEADLINE)?;
    let suspend = || guest.lose_agent("systemd-run --quiet --unit=sleeper bash /run/sleeper");
    let slept = sleep(guest, 3, suspend).context("suspended to memory")?;
    ensure!(slept.stopped > STOPPED, "the clocks stopped for {:.1} s: this is no suspend", slept.stopped);
    let back = nasmount.wait_for_state(SHARE, "online")? - slept.awake_at;
    let account = unharmed(&load, nas).context("suspended to memory")?;
    Ok(format!("suspended for {:.1} s, back {back:.1} s after waking, {account}", slept.stopped))
}

const INHIBITED: &str = "systemd-inhibit --list --no-legend | grep nasmount | grep sleep | grep -q delay";

/// Says what it sees of the consumers and of the path; `stat` of a path that is barred fails.
fn install_witness(guest: &Guest, unit: &str) -> Result<()> {
    let (path, paused) = (mount_point(SHARE), paused(unit));
    let clocks = "import time; print(time.clock_gettime(time.CLOCK_BOOTTIME), time.monotonic())";
    let script = format!(
        "#!/bin/bash\n[ \"$1\" = pre ] && {{ {paused} && echo paused; stat {path}/pattern >/dev/null 2>&1 || echo barred; }} >{SEEN}\n\
         grep -q '\\[none' /sys/power/pm_test && [ \"$1\" = pre ] && rtcwake --mode no --seconds {ALARM}\n\
         python3 -c '{clocks}' >{SEEN}.clocks && mv {SEEN}.clocks {SEEN}.$1\n"
    );
    guest.write_file(HOOK, &script)?;
    guest.ok(&format!("chmod 755 {HOOK}")).map(drop)
}

struct Slept {
    /// How long it took from the command until the kernel was asked.
    asleep: f64,
    awake_at: f64,
    /// For how long the clock stood still that does not count what is slept.
    stopped: f64,
}

/// Has the host sleep, for the so manieth time.
fn sleep(guest: &Guest, time: u32, suspend: impl FnOnce() -> Result<()>) -> Result<Slept> {
    guest.ok(&format!("rm -f {SEEN} {SEEN}.pre {SEEN}.post"))?;
    let asked_at = guest.uptime()?;
    suspend()?;
    guest.wait_for("the end of the sleep", ASLEEP_WITHIN, &format!("[ -s {SEEN}.post ]"))?;
    let seen = guest.ok(&format!("cat {SEEN}"))?;
    ensure!(seen.lines().eq(["paused", "barred"]), "before the sleep the witness saw {seen:?}");
    let successes = guest.ok("cat /sys/power/suspend_stats/success")?;
    let journal = || guest.journal("-k --grep 'PM:|[Ff]reez'").unwrap_or_default();
    ensure!(successes == time.to_string(), "the kernel has slept {successes} times, not {time}: {}", journal());
    let clocks = |what: &str| -> Result<(f64, f64)> {
        let said = guest.ok(&format!("cat {SEEN}.{what}"))?;
        let (boottime, monotonic) = said.split_once(' ').context("two clocks")?;
        Ok((number(boottime)?, number(monotonic)?))
    };
    let ((asleep_at, before), (awake_at, after)) = (clocks("pre")?, clocks("post")?);
    Ok(Slept { asleep: asleep_at - asked_at, awake_at, stopped: (awake_at - asleep_at) - (after - before) })
}
