//! Consumers that are containers of Podman's or Docker's, by name, project and label: paused and continued without their engine, stopped
//! and started by it.

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
/// No consumer: left with a mount that was given up, and started again for it.
const BYSTANDER: &str = "nm-bystander";
/// With that label as well, and started while the share is away.
const LATECOMER: &str = "nm-latecomer";
/// No consumer, and started while the share is away without a way to hear of it: it has the barrier for ever, and is started again.
const RECLUSE: &str = "nm-recluse";
const PROJECT: &str = "--label com.docker.compose.project=nmstack";
const LABEL: &str = "--label nasmount.scans=yes";
/// Ends as it likes to when it is asked to, which one that is paused cannot; the first process of a container ignores SIGTERM otherwise.
const WAITS: &str = "/bin/bash -c 'trap \"exit 7\" TERM; while :; do sleep 1 & wait; done'";
/// What a container needs of the host to run Python: no image has to be fetched.
const VOLUMES: &str = "--volume /usr:/usr:ro --volume /run/load:/run/load";
const ROOT: &str = "/run/nm-root";

/// Whose containers they are.
#[derive(Clone, Copy)]
struct Engine<'guest> {
    guest: &'guest Guest,
    /// Its command, and the name under which nasmount shows its containers.
    name: &'static str,
    /// What it takes as the root of a container: no image has to be fetched.
    root: &'static str,
    begin: &'static str,
    end: &'static str,
    /// From a container's id to its processes.
    scope: fn(&str) -> String,
}

impl<'guest> Engine<'guest> {
    fn podman(guest: &'guest Guest) -> Self {
        Self {
            guest,
            name: "podman",
            root: "--rootfs /run/nm-root",
            begin: "systemctl start podman.socket",
            end: "systemctl stop podman.socket",
            scope: |id| format!("machine.slice/libpod-{id}.scope"),
        }
    }

    /// With its own rules in the host's netfilter.
    fn docker(guest: &'guest Guest) -> Self {
        Self {
            guest,
            name: "docker",
            root: "nm-root",
            begin: "systemctl unmask --quiet containerd docker.socket docker && systemctl start docker && \
                tar -C /run/nm-root -c . | docker import - nm-root",
            end: "systemctl stop docker.socket docker containerd",
            scope: |id| format!("system.slice/docker-{id}.scope"),
        }
    }

    fn start(self, name: &str, labels: &str, volume: &str, command: &str) -> Result<()> {
        let Self { name: engine, root, .. } = self;
        let create = format!(
            "{engine} create --name {name} --network none --log-driver none {labels} {VOLUMES} --volume {volume} {root} {command}"
        );
        let started = format!("{engine} start {name} && {engine} inspect --format {{{{.Id}}}} {name} >/run/{name}.id");
        self.guest.ok(&format!("{create} && {started}")).map(drop)
    }

    /// Where a container's processes are.
    fn scope(self, name: &str) -> String {
        format!("/sys/fs/cgroup/{}", (self.scope)(&format!("$(cat /run/{name}.id)")))
    }

    /// Seen from inside: a mount that was given up would refuse to open a file.
    fn has_pattern(self, name: &str) -> String {
        let processes = processes(&self.scope(name));
        format!("nsenter --mount --target $({processes} | head -n 1) head -c 1 /mnt/nm-engine/pattern")
    }
}

pub fn podman(guest: &Guest) -> Result<String> {
    run(Engine::podman(guest))
}

pub fn docker(guest: &Guest) -> Result<String> {
    run(Engine::docker(guest))
}

fn run(engine: Engine<'_>) -> Result<String> {
    let guest = engine.guest;
    let [nas] = nas::up(guest, [8])?;
    let load = Load::new(guest, "engine", &Kind::ALL).unhurried();
    let more = "profile = \"transcode\"\npatience = \"2m\"\nstale_copies = \"restart\"\n\
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
    guest.ok(engine.begin).context("start the engine")?;
    // as most people write it, which gets no other mount while it runs; and as the README has it
    let (bound, told) = ("/mnt/nm-engine:/mnt/nm-engine", "/mnt:/mnt:rslave");
    engine.start(TRANSCODER, "", bound, &format!("/bin/bash {}", load.script_path()))?;
    engine.start(PLAYER, PROJECT, told, WAITS)?;
    engine.start(SCANNER, LABEL, bound, WAITS)?;
    engine.start(BYSTANDER, "", bound, WAITS)?;
    load.wait_for_operations(5, DEADLINE)?;
    for (of, name) in [("label:nasmount.scans=yes", SCANNER), ("compose:nmstack", PLAYER)] {
        let said = format!("nasmount consumers engine | grep '^{of} .*stands for {}:{name}$'", engine.name);
        guest.wait_for("it to stand for its container", DEADLINE, &said)?;
    }
    let listed = guest.ok("nasmount consumers engine")?;
    ensure!(!listed.contains("is the name right"), "an engine's containers are not found: {listed}");

    let outage = nas.cut(Fault::Link)?;
    nasmount.wait_for_state("engine", "holding")?;
    let seen = guest.wait_for("the container to be paused", DEADLINE, &paused(&engine.scope(TRANSCODER)))?;
    guest.wait_for("the scanner to be stopped", DEADLINE, &format!("! {}", runs(&engine.scope(SCANNER))))?;
    let after = seen - outage.began;
    engine.start(LATECOMER, LABEL, told, WAITS)?;
    engine.start(RECLUSE, "", "/mnt:/mnt", WAITS)?;
    guest.ok(&format!("! {}", engine.has_pattern(RECLUSE))).context("there is no share to be seen")?;
    guest.wait_for("the latecomer to be stopped", DEADLINE, &format!("! {}", runs(&engine.scope(LATECOMER))))?;
    outage.heal()?;
    nasmount.wait_for_state("engine", "online")?;
    for name in [SCANNER, LATECOMER] {
        guest.wait_for("who was stopped to be started", DEADLINE, &runs(&engine.scope(name)))?;
    }
    guest.wait_for("the share in who had the barrier", DEADLINE, &engine.has_pattern(RECLUSE))?;
    let account = unharmed(&load, nas)?;

    given_up(engine, &nasmount, nas)?;
    guest.ok(&format!(
        "{} rm --force {TRANSCODER} {PLAYER} {SCANNER} {LATECOMER} {BYSTANDER} {RECLUSE} && {}",
        engine.name, engine.end
    ))?;
    nasmount.remove()?;
    Ok(format!("paused {after:.1} s after the cut; {account}"))
}

/// Out of the pause, as after the hold; and started with what is mounted then.
fn given_up(engine: Engine<'_>, nasmount: &Nasmount<'_>, nas: Nas<'_>) -> Result<()> {
    let guest = engine.guest;
    let outage = nas.cut(Fault::Link)?;
    nasmount.wait_for_state("engine", "holding")?;
    guest.wait_for("the player to be paused", DEADLINE, &paused(&engine.scope(PLAYER)))?;
    // a new daemon knows of whom it has paused, and not yet for whom its consumers stand
    guest.ok("systemctl restart nasmount")?;
    nasmount.wait_for_state("engine", "holding")?;
    guest.ok(&paused(&engine.scope(PLAYER))).context("who is paused stays so over a restart")?;
    guest.ok("nasmount unmount engine")?;
    guest.wait_for("the player to be stopped", DEADLINE, &format!("! {}", runs(&engine.scope(PLAYER))))?;
    let code = guest.ok(&format!("{} inspect --format {{{{.State.ExitCode}}}} {PLAYER}", engine.name))?;
    ensure!(code == "7", "the player did not end by itself, but with code {code}: was it paused when it was asked to?");
    outage.heal()?;
    guest.ok("nasmount mount engine")?;
    for name in [PLAYER, SCANNER, BYSTANDER] {
        guest.wait_for(
            "it to be started with the fresh mount",
            DEADLINE,
            &format!("{} && {}", runs(&engine.scope(name)), engine.has_pattern(name)),
        )?;
    }
    guest.ok(&format!("! {}", runs(&engine.scope(TRANSCODER)))).context("who ended by himself is not started")?;
    Ok(())
}

fn runs(cgroup: &str) -> String {
    format!("grep -q 'populated 1' {cgroup}/cgroup.events")
}

/// All processes in it, as the kernel knows them and an engine does not.
fn paused(cgroup: &str) -> String {
    format!(
        "( for pid in $({}); do \
         grep -q '^State:.[TD]' /proc/$pid/status || exit 1; done; [ -n \"$pid\" ] )",
        processes(cgroup)
    )
}

/// Podman has its container's in a group below its own.
fn processes(cgroup: &str) -> String {
    format!("cat {cgroup}/cgroup.procs {cgroup}/*/cgroup.procs 2>/dev/null")
}
