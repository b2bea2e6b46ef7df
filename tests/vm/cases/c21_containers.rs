//! What containers see of an outage depends on the mount that they were given; those that see nothing of it are named.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::c20_hold_over::{REFUSED, so_far};
use crate::guest::{Guest, Job};
use crate::nas::{self, Fault, Nas};
use crate::nasmount::{DEADLINE, Nasmount, ShareOf, UNHURRIED};

/// A mount namespace of its own, as a container has one.
struct Container {
    name: &'static str,
    /// Where it has the share.
    path: &'static str,
    /// What makes it.
    command: &'static str,
}

/// What is mounted in the host's does not reach it: a private copy of everything, and a bind of the mount point itself.
const DEAF: [Container; 2] = [
    Container {
        name: "private",
        path: "/mnt/nm-contained",
        command: "unshare --mount --propagation private sleep infinity",
    },
    Container {
        name: "bound",
        path: "/run/films",
        command: "unshare --mount --propagation slave bash -c \
            'mkdir -p /run/films && mount --bind /mnt/nm-contained /run/films && exec sleep infinity'",
    },
];
/// The directory above the mount point, as `-v /mnt:/run/nas:rslave` gives it.
const TOLD: Container = Container {
    name: "told",
    path: "/run/nas/nm-contained",
    command: "unshare --mount --propagation slave bash -c \
        'mkdir -p /run/nas && mount --rbind /mnt /run/nas && mount --make-rslave /run/nas && exec sleep infinity'",
};
const HANGS: &str = "does not follow the host: in an outage its calls hang";
const GIVEN_UP: &str = "has a mount that was given up, and gets no other: start it again";

/// When who has had a file open all the time is to read from it.
const CALL: &str = "/run/contained.call";
/// Without the sinkhole the kernel waits 10 s for the server, and as a rule twice.
const BY_THE_SINKHOLE: f64 = 5000.0;

pub fn run(guest: &Guest) -> Result<String> {
    let [nas] = nas::up(guest, [7])?;
    let more = "patience = \"8s\"\nhold_for = \"10s\"";
    let share = ShareOf {
        name: "contained",
        nas,
        source: "media",
        more,
        probe: UNHURRIED,
        credentials: None,
        units: Vec::new(),
    };
    let nasmount = Nasmount::start(guest, &[share])?;
    nasmount.wait_for_state("contained", "online")?;
    for container in DEAF.iter().chain([&TOLD]) {
        guest.ok(&format!("systemd-run --quiet --unit={} {}", container.name, container.command))?;
        guest.wait_for("the container", DEADLINE, &in_it(container, &format!("test -e {}/pattern", container.path)))?;
    }
    guest.ok("mkdir /run/bound && mount --bind /mnt/nm-contained /run/bound")?;
    let bound = format!("nasmount status contained -v | grep 'a mount of this host (1, no unit), /run/bound: {HANGS}'");
    guest.ok(&bound).context("a bind on the host itself")?;
    guest.ok("umount /run/bound && rmdir /run/bound")?;
    status_says(guest, HANGS)?;

    let left_open = guest.spawn(&format!("/host/guest/stranger.py /mnt/nm-contained read --go {CALL} --limit 60"))?;
    guest.wait_for("an open file", DEADLINE, &format!("[ -e {CALL}.ready ]"))?;
    let refused = so_far(guest, REFUSED)?;
    let outage = nas.cut(Fault::Link)?;
    nasmount.wait_for_state("contained", "holding")?;
    let hanging = DEAF.iter().map(|container| guest.spawn(&call(container, "statfs"))).collect::<Result<Vec<_>>>()?;
    let met: Value = serde_json::from_str(&guest.ok(&call(&TOLD, "statfs"))?)?;
    ensure!(met["result"] == "EHOSTDOWN" && met["ms"].as_f64() < Some(1000.0), "with rslave a call met {met}");
    nasmount.wait_for_state("contained", "offline")?;
    let sunk = ends_by_the_sinkhole(guest, left_open, refused)?;
    let mut hung = Vec::new();
    for (container, hangs) in DEAF.iter().zip(hanging) {
        let met: Value = serde_json::from_str(&hangs.wait(DEADLINE)?.stdout)?;
        let ms = met["ms"].as_f64().context("how long it took")?;
        ensure!(ms > 1000.0, "the barrier reaches container {}: {met}", container.name);
        guest.ok(&format!("journalctl -b -u nasmount | grep '{HANGS}.*{}.service'", container.name))?;
        hung.push(format!("{} {:.1} s", container.name, ms / 1000.0));
    }

    outage.heal()?;
    nasmount.wait_for_state("contained", "online")?;
    status_says(guest, GIVEN_UP)?;
    for container in &DEAF {
        // statfs is answered again: the kernel refuses what needs a file (cifs_forced_shutdown in fs/smb/client)
        let met: Value = serde_json::from_str(&guest.ok(&call(container, "open"))?)?;
        ensure!(met["result"] == "EIO", "opening a file of a mount that was given up met {met} in {}", container.name);
        guest.wait_for(
            "the warning",
            DEADLINE,
            &format!("journalctl -b -u nasmount | grep '{GIVEN_UP}.*{}.service'", container.name),
        )?;
    }
    guest.ok(&in_it(&TOLD, &format!("test -e {}/pattern", TOLD.path))).context("the fresh mount, with rslave")?;
    restarted(guest, &nasmount, nas)?;
    guest.ok("systemctl stop private bound told")?;
    guest.ok("! nasmount status -v | grep 'seen elsewhere'").context("containers that have ended")?;
    nasmount.remove()?;
    let hung = hung.join(", ");
    Ok(format!("a call hung in {hung}; with rslave it failed at once, and the fresh mount was there; {sunk}"))
}

/// A call on a file that was left open, made when the share has been given up.
fn ends_by_the_sinkhole(guest: &Guest, left_open: Job<'_>, refused_before: u32) -> Result<String> {
    guest.ok(&format!("touch {CALL}"))?;
    let met: Value = serde_json::from_str(&left_open.wait(DEADLINE)?.stdout)?;
    let ms = met["ms"].as_f64().context("how long it took")?;
    ensure!(met["result"] == "EHOSTDOWN" && ms < BY_THE_SINKHOLE, "a read from a file that was left open met {met}");
    let refused = so_far(guest, REFUSED)? - refused_before;
    ensure!(refused > 0, "nobody refused a login: it is not the sinkhole that ends it");
    Ok(format!("a read from a file left open ended after {ms:.0} ms, {refused} logins refused"))
}

/// As configured: whoever has nothing but a mount that was given up, and nobody else.
fn restarted(guest: &Guest, nasmount: &Nasmount<'_>, nas: Nas<'_>) -> Result<()> {
    let run = |name: &str| guest.ok(&format!("systemctl show -P InvocationID {name}"));
    let told = run(TOLD.name)?;
    guest.ok(
        "sed -i 's/^hold_for = .*/&\\nstale_copies = \"restart\"/' /etc/nasmount/nasmount.toml && nasmount reload",
    )?;
    let outage = nas.cut(Fault::Link)?;
    nasmount.wait_for_state("contained", "offline")?;
    outage.heal()?;
    nasmount.wait_for_state("contained", "online")?;
    for container in &DEAF {
        let fresh = in_it(container, &format!("head -c 1 {}/pattern", container.path));
        guest.wait_for(&format!("container {} to have the share", container.name), DEADLINE, &fresh)?;
    }
    ensure!(run(TOLD.name)? == told, "with rslave it was started again");
    Ok(())
}

/// `status -v` says so of each that is deaf, and nothing of the other.
fn status_says(guest: &Guest, trouble: &str) -> Result<()> {
    for Container { name, path, .. } in &DEAF {
        let listed = format!("nasmount status contained -v | grep '{name}.service), {path}: {trouble}'");
        guest.wait_for(&format!("container {name} to be reported"), DEADLINE, &listed)?;
    }
    guest.ok(&format!("! nasmount status contained -v | grep '{}.service), '", TOLD.name)).map(drop)
}

fn call(container: &Container, kind: &str) -> String {
    in_it(container, &format!("/host/guest/stranger.py {} {kind} --limit 60", container.path))
}

fn in_it(container: &Container, command: &str) -> String {
    format!("nsenter --mount --target $(systemctl show -P MainPID {}) {command}", container.name)
}
