//! Consumers that are containers of Podman's, by name, project and label: paused and continued without their engine, stopped and
//! started by it.

use anyhow::{Context as _, Result, ensure};

use crate::guest::Guest;
use crate::load::{Kind, Load};
use crate::nas::{self, Fault, Nas};
use crate::nasmount::{DEADLINE, Nasmount, ShareOf, UNHURRIED, mount_point, unharmed};

/// At work on the share; paused.
const TRANSCODER: &str = "nm-transcoder";
/// Paused, and stopped when the share is given up; of a project of compose's.
const PLAYER: &str = "nm-player";
/// Stopped at once, as everything with its label.
const SCANNER: &str = "nm-scanner";
/// With that label as well, and started while the share is away.
const LATECOMER: &str = "nm-latecomer";
const PROJECT: &str = "--label com.docker.compose.project=nmstack";
const LABEL: &str = "--label nasmount.scans=yes";
/// Ends as it likes to when it is asked to, which one that is paused cannot; the first process of a container ignores SIGTERM otherwise.
const WAITS: &str = "/bin/bash -c 'trap \"exit 7\" TERM; while :; do sleep 1 & wait; done'";
/// What a container needs of the host to run Python: no image has to be fetched.
const VOLUMES: &str = "--volume /usr:/usr:ro --volume /etc:/etc:ro --volume /run/load:/run/load";
const ROOT: &str = "/run/nm-root";

pub fn run(guest: &Guest) -> Result<String> {
    let [nas] = nas::up(guest, [8])?;
    let load = Load::new(guest, "engine", &Kind::ALL).unhurried();
    let more = "profile = \"transcode\"\npatience = \"2m\"\n\
        [[share.engine.consumer]]\nlabel = \"nasmount.scans=yes\"\non_outage = \"stop\"\n\
        [[share.engine.consumer]]\ncompose = \"nmstack\"";
    let share = ShareOf {
        name: "engine",
        nas,
        source: "media",
        more,
        probe: UNHURRIED,
        credentials: None,
        units: vec![format!("container:{TRANSCODER}")],
    };
    let nasmount = Nasmount::start(guest, &[share])?;
    nasmount.wait_for_state("engine", "online")?;
    load.install(&mount_point("engine"))?;
    guest.ok(&format!(
        "cd / && mkdir -p {ROOT} && cd {ROOT} && mkdir -p dev proc sys run tmp && ln -sf usr/bin usr/lib usr/lib64 ."
    ))?;
    guest.ok("systemctl start podman.socket")?;
    // as most people write it, which gets no other mount while it runs; and as the README has it
    let (bound, told) = ("/mnt/nm-engine:/mnt/nm-engine", "/mnt:/mnt:rslave");
    start(guest, TRANSCODER, "", bound, &format!("/bin/bash {}", load.script_path()))?;
    start(guest, PLAYER, PROJECT, told, WAITS)?;
    start(guest, SCANNER, LABEL, bound, WAITS)?;
    load.wait_for_operations(5, DEADLINE)?;
    for (of, name) in [("label:nasmount.scans=yes", SCANNER), ("compose:nmstack", PLAYER)] {
        let said = format!("nasmount consumers engine | grep '^{of} .*stands for podman:{name}$'");
        guest.wait_for("it to stand for its container", DEADLINE, &said)?;
    }
    let listed = guest.ok("nasmount consumers engine")?;
    ensure!(!listed.contains("is the name right"), "an engine's containers are not found: {listed}");

    let outage = nas.cut(Fault::Link)?;
    nasmount.wait_for_state("engine", "holding")?;
    let seen = guest.wait_for("the container to be paused", DEADLINE, &paused(&scope(TRANSCODER)))?;
    guest.wait_for("the scanner to be stopped", DEADLINE, &format!("! {}", runs(&scope(SCANNER))))?;
    let after = seen - outage.began;
    start(guest, LATECOMER, LABEL, told, WAITS)?;
    guest.wait_for("the latecomer to be stopped", DEADLINE, &format!("! {}", runs(&scope(LATECOMER))))?;
    outage.heal()?;
    nasmount.wait_for_state("engine", "online")?;
    for name in [SCANNER, LATECOMER] {
        guest.wait_for("who was stopped to be started", DEADLINE, &runs(&scope(name)))?;
    }
    let account = unharmed(&load, nas)?;

    given_up(guest, &nasmount, nas)?;
    guest.ok(&format!(
        "podman rm --force --time 1 {TRANSCODER} {PLAYER} {SCANNER} {LATECOMER} && systemctl stop podman.socket"
    ))?;
    nasmount.remove()?;
    Ok(format!("paused {after:.1} s after the cut; {account}"))
}

/// Out of the pause, as after the hold; and started with what is mounted then.
fn given_up(guest: &Guest, nasmount: &Nasmount<'_>, nas: Nas<'_>) -> Result<()> {
    let outage = nas.cut(Fault::Link)?;
    nasmount.wait_for_state("engine", "holding")?;
    guest.wait_for("the player to be paused", DEADLINE, &paused(&scope(PLAYER)))?;
    // a new daemon knows of whom it has paused, and not yet for whom its consumers stand
    guest.ok("systemctl restart nasmount")?;
    nasmount.wait_for_state("engine", "holding")?;
    guest.ok(&paused(&scope(PLAYER))).context("who is paused stays so over a restart")?;
    guest.ok("nasmount unmount engine")?;
    guest.wait_for("the player to be stopped", DEADLINE, &format!("! {}", runs(&scope(PLAYER))))?;
    let code = guest.ok(&format!("podman inspect --format {{{{.State.ExitCode}}}} {PLAYER}"))?;
    ensure!(code == "7", "the player did not end by itself, but with code {code}: was it paused when it was asked to?");
    outage.heal()?;
    guest.ok("nasmount mount engine")?;
    for name in [PLAYER, SCANNER] {
        guest.wait_for(
            "it to be started with the fresh mount",
            DEADLINE,
            &format!("{} && {}", runs(&scope(name)), has_pattern(name)),
        )?;
    }
    guest.ok(&format!("! {}", runs(&scope(TRANSCODER)))).context("who ended by himself is not started")?;
    Ok(())
}

fn start(guest: &Guest, name: &str, labels: &str, volume: &str, command: &str) -> Result<()> {
    let create = format!(
        "podman create --quiet --name {name} --network none --log-driver none {labels} {VOLUMES} \
         --volume {volume} --rootfs {ROOT} {command}"
    );
    guest.ok(&format!(
        "{create} && podman start {name} && podman inspect --format {{{{.Id}}}} {name} >/run/{name}.id"
    ))?;
    Ok(())
}

/// Where a container's processes are.
fn scope(name: &str) -> String {
    format!("/sys/fs/cgroup/machine.slice/libpod-$(cat /run/{name}.id).scope")
}

fn runs(cgroup: &str) -> String {
    format!("grep -q 'populated 1' {cgroup}/cgroup.events")
}

/// All processes in it, as the kernel knows them and an engine does not.
fn paused(cgroup: &str) -> String {
    format!(
        "( for pid in $(cat {cgroup}/cgroup.procs {cgroup}/*/cgroup.procs); do \
         grep -q '^State:.[TD]' /proc/$pid/status || exit 1; done; [ -n \"$pid\" ] )"
    )
}

/// Seen from inside: a mount that was given up would refuse to open a file.
fn has_pattern(name: &str) -> String {
    format!(
        "nsenter --mount --target $(cat {}/*/cgroup.procs | head -n 1) head -c 1 /mnt/nm-engine/pattern",
        scope(name)
    )
}
