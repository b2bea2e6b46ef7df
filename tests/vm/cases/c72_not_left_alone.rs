//! What an administrator and systemd do to consumers while they are held: a unit dies and is to be restarted, one that is stopped is
//! stopped once more, one is started in a slice that is paused; and a configuration that is not valid when systemd reads units anew.

use anyhow::{Result, ensure};

use crate::guest::Guest;
use crate::nas::{self, Fault};
use crate::nasmount::{DEADLINE, Nasmount, ShareOf, UNHURRIED, mount_point};

const SHARE: &str = "held";
/// Name, and more lines of its service; all but the last two run when the outage begins.
const UNITS: [(&str, &str); 5] = [
    ("dies", "Restart=always\nRestartSec=100ms"),
    ("twice", ""),
    ("member", "Slice=club.slice"),
    ("late", "Slice=club.slice"),
    ("idle", ""),
];
const RUNNING: &str = "dies twice member";
const FRAGMENT: &str = "/etc/nasmount/conf.d/slip.toml";

pub fn run(guest: &Guest) -> Result<String> {
    let [nas] = nas::up(guest, [7])?;
    for (name, more) in UNITS {
        let open = if name == "late" { "true".to_owned() } else { format!("exec 3<{}/pattern", mount_point(SHARE)) };
        let service = format!("[Service]\nExecStart=/bin/sh -c '{open}; exec sleep infinity'\n{more}\n");
        guest.write_file(&format!("/etc/systemd/system/{name}.service"), &service)?;
    }
    let stopped = format!("[[share.{SHARE}.consumer]]\nunit = \"twice.service\"\non_outage = \"stop\"\n");
    guest.write_file("/etc/nasmount/conf.d/stopped.toml", &stopped)?;
    let units = ["dies.service", "club.slice", "idle.service"].map(str::to_owned).to_vec();
    let share = ShareOf { name: SHARE, nas, source: "media", more: "", probe: UNHURRIED, credentials: None, units };
    let nasmount = Nasmount::start(guest, &[share])?;
    nasmount.wait_for_state(SHARE, "online")?;
    guest.ok(&format!("systemctl start {RUNNING}"))?;
    guest.wait_for(
        "who runs to have the share open",
        DEADLINE,
        "nasmount consumers | grep -q 'member.service.* 1 '",
    )?;
    let listed = guest.ok("nasmount consumers")?;
    let lines: Vec<String> = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for line in ["held idle.service yes yes 0 -", "held member.service no no 1 -"] {
        ensure!(lines.iter().any(|listed| listed == line), "{line} is not among\n{listed}");
    }
    ensure!(!listed.contains("nothing is done"), "what is in the slice is paused with it:\n{listed}");
    slip(guest)?;

    let outage = nas.cut(Fault::Link)?;
    nasmount.wait_for_state(SHARE, "holding")?;
    guest.wait_for("a consumer to be stopped", DEADLINE, "! systemctl is-active --quiet twice")?;
    guest.wait_for("a slice to be paused", DEADLINE, &paused("member"))?;
    guest.ok("systemctl start late")?;
    guest.wait_for("who is started in the slice to be paused", DEADLINE, &paused("late"))?;
    guest.ok("systemctl kill --signal=KILL dies")?;
    // nasmount-wait@ waits for 40 s, and by then what systemd says of `twice` cannot be nasmount's own stop
    guest.wait_for("its restart to be given up", DEADLINE, &logged("gave up starting it.*dies.service"))?;
    guest.ok("systemctl stop twice")?;
    guest.wait_for("that to be understood", DEADLINE, &logged("stopped by somebody else, too.*twice.service"))?;
    outage.heal()?;
    let online = nasmount.wait_for_state(SHARE, "online")?;
    let back = guest.wait_for("who died to run", DEADLINE, "[ \"$(systemctl show -P SubState dies)\" = running ]")?;
    for unit in ["member", "late"] {
        guest.wait_for("the slice to go on", DEADLINE, &format!("systemctl is-active {unit} && ! {}", paused(unit)))?;
    }
    ensure!(guest.run("systemctl is-active twice")?.code != 0, "what was stopped by the administrator was started");

    guest.ok(&format!("systemctl stop late {RUNNING} && rm /etc/nasmount/conf.d/stopped.toml"))?;
    for (name, _) in UNITS {
        guest.ok(&format!("rm /etc/systemd/system/{name}.service"))?;
    }
    nasmount.remove()?;
    Ok(format!("who had died ran {:.1} s after the share was back", back - online))
}

/// What depends on the share depends on it while the configuration is not valid, too.
fn slip(guest: &Guest) -> Result<()> {
    let waits = "systemctl cat dies | grep -q '^# /run/systemd/generator/dies.service.d/'";
    guest.ok(waits)?;
    guest.write_file(FRAGMENT, "[share.held]\nsource = 7\n")?;
    ensure!(guest.run("nasmount reload")?.code == 2, "a configuration that is not valid was taken over");
    guest.ok("systemctl daemon-reload")?;
    guest.ok(waits)?;
    guest.ok(&format!("rm {FRAGMENT} && systemctl daemon-reload")).map(drop)
}

fn paused(unit: &str) -> String {
    format!(
        "( for pid in $(cat /sys/fs/cgroup/club.slice/{unit}.service/cgroup.procs || echo none); do \
         grep -q '^State:.[TD]' /proc/$pid/status || exit 1; done )"
    )
}

fn logged(what: &str) -> String {
    format!("journalctl -b -u nasmount | grep -q '{what}'")
}
