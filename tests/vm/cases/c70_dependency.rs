//! Units that need a share: they start when it can be used, at boot and by hand, and outlive an outage and a daemon that dies.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::c80_poweroff as power_off;
use crate::guest::Guest;
use crate::nas::{self, Fault};
use crate::nasmount::{DEADLINE, Nasmount, ShareOf, UNHURRIED, mount_point};

const SHARE: &str = "needed";
/// As `systemd-escape --path --suffix=mount` names it.
const MOUNT: &str = r"'mnt-nm\x2dneeded.mount'";
/// A start job is given up after 40 s, and the boot before it takes its time.
const GIVEN_UP: Duration = Duration::from_secs(180);

/// Units that run only if they find the library when they are started: the consumer, which says nothing of a share itself; one that
/// is not configured, and says that it needs the share; one that says so by the share's name; and one that neither is nor does.
const UNITS: [(&str, &str); 4] = [
    ("needs", ""),
    ("asks", "RequiresMountsFor=/mnt/nm-needed/films"),
    ("names", "Requires=nasmount-wait@needed.service\nAfter=nasmount-wait@needed.service"),
    ("hurries", ""),
];

/// Looks at boot as early as an ordinary service can, docker.service for one, and knows nothing of nasmount: before the network, and so
/// before the daemon.
const LOOKS: &str = "/etc/systemd/system/looks.service";
/// What it met; as long as the boot.
const SEEN: &str = "/run/looks.seen";

pub fn run(guest: &Guest) -> Result<String> {
    let (nasmount, waited) = by_hand(guest)?;
    let look = format!("{{ ls -A {}; echo \"exit $?\"; }} >{SEEN} 2>&1", mount_point(SHARE));
    let service = format!("Type=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sh -c '{}'", look.replace('$', "$$"));
    let text = format!("[Unit]\nBefore=network.target\n[Service]\n{service}\n[Install]\nWantedBy=multi-user.target\n");
    guest.write_file(LOOKS, &text)?;
    guest.ok("systemctl daemon-reload && systemctl enable --quiet looks")?;
    let down = goes_down_without_the_nas(guest, &nasmount)?;
    let started = booted_without_the_nas(guest)?;
    guest.ok(&format!("systemctl disable --quiet looks && rm {LOOKS} && systemctl daemon-reload"))?;
    clean_up(guest, nasmount)?;
    Ok(format!(
        "a start waited {waited:.0} s for the share; down {down:.1} s after Ctrl-Alt-Del while it was held; a start that the boot gave up \
         came {started:.1} s after the share"
    ))
}

/// Without the boot.
pub fn without_boot(guest: &Guest) -> Result<String> {
    let (nasmount, waited) = by_hand(guest)?;
    clean_up(guest, nasmount)?;
    Ok(format!("a start waited {waited:.0} s for the share"))
}

fn by_hand(guest: &Guest) -> Result<(Nasmount<'_>, f64)> {
    let [nas] = nas::up(guest, [9])?;
    for (name, unit) in UNITS {
        let start = format!("/bin/sh -c 'test -e {}/pattern && exec sleep infinity'", mount_point(SHARE));
        let text = format!("[Unit]\n{unit}\n[Service]\nExecStart={start}\n[Install]\nWantedBy=multi-user.target\n");
        guest.write_file(&format!("/etc/systemd/system/{name}.service"), &text)?;
    }
    let units = vec!["needs.service".to_owned()];
    let share = ShareOf { name: SHARE, nas, source: "media", more: "", probe: UNHURRIED, credentials: None, units };
    let nasmount = Nasmount::start(guest, &[share])?;
    nasmount.wait_for_state(SHARE, "online")?;
    let generated = format!("systemctl show -P FragmentPath {MOUNT} | grep '^/run/systemd/generator/'");
    guest.wait_for("the unit of the share", DEADLINE, &generated)?;
    limited(guest)?;
    guest.ok(
        "systemctl daemon-reload && systemctl enable --quiet nasmount needs hurries && systemctl start needs asks names",
    )?;

    lists(guest)?;
    let waited = started_in_an_outage(guest, &nasmount)?;
    killed(guest, &nasmount)?;
    refuses(guest)?;
    Ok((nasmount, waited))
}

/// What it may use of the host stands in its configuration, and nowhere else.
fn limited(guest: &Guest) -> Result<()> {
    const ASK: &str = "for limit in MemoryMax CPUWeight; do systemctl show -P $limit needs; done";
    const FRAGMENT: &str = "/etc/nasmount/conf.d/limits.toml";
    let before = guest.ok(ASK)?;
    let unit = format!("[[share.{SHARE}.consumer]]\nunit = \"needs.service\"\n");
    guest.ok("mkdir -p /etc/nasmount/conf.d")?;
    guest.write_file(FRAGMENT, &format!("{unit}memory_max = \"256MiB\"\ncpu_weight = 30\n"))?;
    guest.ok("nasmount reload")?;
    guest.wait_for("the limits", DEADLINE, &format!("[ \"$({ASK} | xargs)\" = '268435456 30' ]"))?;
    guest.ok(&format!("rm {FRAGMENT} && nasmount reload"))?;
    let gone = format!("[ \"$({ASK} | xargs)\" = '{}' ]", before.split_whitespace().collect::<Vec<_>>().join(" "));
    guest.wait_for("the limits to be gone", DEADLINE, &gone).map(drop)
}

fn clean_up(guest: &Guest, nasmount: Nasmount<'_>) -> Result<()> {
    guest.ok("systemctl disable --quiet --now nasmount needs hurries && systemctl stop asks names")?;
    for (name, _) in UNITS {
        guest.ok(&format!("rm /etc/systemd/system/{name}.service"))?;
    }
    nasmount.remove()
}

/// Who depends on it, from all sides: the consumer, who requires it, and who merely has it open.
fn lists(guest: &Guest) -> Result<()> {
    let open = format!("exec 3<{}/pattern; exec sleep infinity", mount_point(SHARE));
    guest.ok(&format!("systemd-run --quiet --unit=opens bash -c '{open}'"))?;
    guest.wait_for("who merely has it open", DEADLINE, "nasmount consumers | grep -q opens.service")?;
    let listed = guest.ok("nasmount consumers")?;
    let lines: Vec<String> = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for line in [
        "needed needs.service yes yes 0 -",
        "needed asks.service no yes 0 -",
        "needed names.service no yes 0 -",
        "needed opens.service no no 1 -",
        "opens.service (needed): nothing is done to it in an outage: add [[share.needed.consumer]]",
    ] {
        ensure!(lines.iter().any(|listed| listed == line), "{line} is not among\n{listed}");
    }
    guest.ok("systemctl stop opens").map(drop)
}

/// Who is started while the share is away waits for it, and nobody who runs is stopped.
fn started_in_an_outage(guest: &Guest, nasmount: &Nasmount<'_>) -> Result<f64> {
    let [nas] = nas::up(guest, [9])?;
    let run = guest.ok("systemctl show -P InvocationID needs")?;
    let outage = nas.cut(Fault::Link)?;
    nasmount.wait_for_state(SHARE, "holding")?;
    let inactive = format!("[ $(systemctl is-active {MOUNT}) = inactive ]");
    guest.wait_for("systemd to see that the share is away", DEADLINE, &inactive)?;
    guest.ok("systemctl is-active needs asks names")?;
    ensure!(guest.run("systemctl restart hurries")?.code == 0, "it is started, and fails at once");
    guest.wait_for("who does not wait to fail", DEADLINE, "systemctl is-failed --quiet hurries")?;
    guest.ok("systemctl stop asks names")?;
    let begun = guest.uptime()?;
    let start = guest.spawn("systemctl start asks names")?;
    guest.wait_for(
        "the start to wait",
        DEADLINE,
        "( for unit in asks names; do systemctl list-jobs | grep \"$unit.service *start *waiting\" || exit 1; done )",
    )?;
    outage.heal()?;
    let started = start.wait(DEADLINE)?;
    ensure!(started.code == 0, "the start ended with {started:?}");
    let waited = guest.uptime()? - begun;
    guest.ok("systemctl is-active asks names needs")?;
    ensure!(guest.ok("systemctl show -P InvocationID needs")? == run, "the consumer was started again");
    Ok(waited)
}

fn killed(guest: &Guest, nasmount: &Nasmount<'_>) -> Result<()> {
    let runs = "systemctl show -P InvocationID needs asks";
    let before = guest.ok(runs)?;
    let daemon = guest.ok("systemctl show -P MainPID nasmount")?;
    guest.ok("systemctl kill --signal=KILL nasmount")?;
    let another =
        format!("systemctl is-active --quiet nasmount && [ $(systemctl show -P MainPID nasmount) != {daemon} ]");
    guest.wait_for("the next daemon", DEADLINE, &another)?;
    nasmount.wait_for_state(SHARE, "online")?;
    guest.ok(&format!("systemctl is-active {MOUNT} needs asks"))?;
    ensure!(guest.ok(runs)? == before, "somebody was started again");
    Ok(())
}

/// What can never come true is said at once.
fn refuses(guest: &Guest) -> Result<()> {
    let met = guest.run("mount -t nasmount nasmount:nobody /mnt")?;
    ensure!(met.code == 32 && met.stderr.contains("nasmount has no share nobody on /mnt"), "mount met {met:?}");
    let mount = format!("mount -t nasmount nasmount:{SHARE} {}", mount_point(SHARE));
    guest.ok(&mount).context("it is online")?;
    guest.ok(&format!("nasmount unmount {SHARE}"))?;
    let met = guest.run(&mount)?;
    ensure!(met.code == 32 && met.stderr.contains("unmounted by an operator"), "mount met {met:?}");
    ensure!(guest.run("systemctl start asks")?.code != 0, "a unit was started without its share");
    guest.ok(&format!("nasmount mount {SHARE} && systemctl is-active needs")).map(drop)
}

/// Ctrl-Alt-Del, which reaches systemd as SIGINT, while the share is held. That a plain mount is not down by then is shown by case 80.
fn goes_down_without_the_nas(guest: &Guest, nasmount: &Nasmount<'_>) -> Result<f64> {
    let [nas] = nas::up(guest, [9])?;
    let outage = nas.cut(Fault::Hang)?;
    nasmount.wait_for_state(SHARE, "holding")?;
    let down = guest.reboot("kill -INT 1")?;
    outage.forget();
    ensure!(down < power_off::LIMIT, "down only after {down:?}");
    Ok(down.as_secs_f64())
}

/// Nothing but the consumer waits, its start is given up, and it is started when the NAS is there at last.
fn booted_without_the_nas(guest: &Guest) -> Result<f64> {
    guest.wait_for("the boot", DEADLINE, "systemctl is-active basic.target remote-fs.target nasmount")?;
    guest.wait_for("who looks early", DEADLINE, "systemctl is-active looks")?;
    let seen = guest.ok(&format!("cat {SEEN}"))?;
    ensure!(seen.contains("Host is down") && seen.ends_with("exit 2"), "who looked early met {seen:?}");
    let failed = "journalctl -b | grep 'Dependency failed for needs.service'";
    guest.wait_for("the start to be given up", GIVEN_UP, failed)?;
    guest.ok("systemctl is-active multi-user.target")?;
    guest.ok("systemctl is-failed hurries").context("who does not wait fails")?;
    guest.ok("[ $(systemctl is-active needs) = inactive ]")?;
    let said = "journalctl -b -u nasmount-wait@needed | grep 'share needed is not there after'";
    guest.ok(said).context("why it was given up")?;
    guest.ok("systemctl is-failed nasmount-wait@needed")?;
    let [_] = nas::up(guest, [9])?;
    let online = guest.wait_for("the share", DEADLINE, &format!("nasmount wait {SHARE} --timeout 1s"))?;
    let consumer = guest.wait_for("the consumer", DEADLINE, "systemctl is-active --quiet needs")?;
    guest.wait_for("nothing to count as failed", DEADLINE, "! systemctl is-failed --quiet nasmount-wait@needed")?;
    Ok(consumer - online)
}
