//! Mounts follow their lines: from fstab to nasmount, and back.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};

use super::Hinted;
use super::client::{Client, block_on};
use super::control::wait_until_online;
use super::report::Exit;
use crate::config::units::mount_unit;
use crate::daemon::reload::Outcome;
use crate::plan::fstab::Entry;
use crate::plan::import::Share;
use crate::sys::changes::Done;
use crate::sys::systemd::{Activity, Start, Systemd, is_chroot};
use crate::sys::worker::{self, Answer, Request, holders};
use crate::sys::{autofs, mountinfo};

const SERVICE: &str = "nasmount.service";
const BARRIER_SERVICE: &str = "nasmount-barrier.service";

/// Unmounting writes back what is unwritten: the kernel alone gives a dead server up after 90 s (`echo_interval` of 30 s and a bit).
const UNMOUNTED_WITHIN: Duration = Duration::from_secs(100);

/// A first mount takes a second; one that the NAS has not answered by then is told, and goes on.
const ONLINE_WITHIN: Duration = Duration::from_secs(60);

/// Taking a name takes milliseconds; a second on an emulated machine.
const ON_THE_BUS_WITHIN: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Source of the mount of an automount unit.
const AUTOMOUNT: &str = "systemd-1";

/// How an export goes on after its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// systemd runs, and mounts the lines at once.
    Now,
    /// It is not to be reached, for this reason, as in a chroot or a rescue shell: it mounts them at the next boot.
    AtBoot(String),
}

/// systemd, which mounts and starts what is to be.
async fn connect() -> anyhow::Result<Systemd> {
    if is_chroot() {
        bail!("this is a chroot, in which no systemd runs");
    }
    let answering = async {
        let systemd = Systemd::connect().await?;
        systemd.is_going_down().await?; // a bus there may be without systemd
        Ok(systemd)
    };
    answering.await.map_err(|error: zbus::Error| anyhow!("cannot reach systemd: {error}")) // zbus says its causes itself
}

/// Lines can only be taken over where systemd starts nasmount, which mounts them.
pub fn may_be_imported() -> anyhow::Result<()> {
    let hint = "nothing was changed; do it when the host has booted";
    block_on(connect()).map(drop).map_err(|error| Hinted::new(format!("{error:#}"), hint).into())
}

/// Unmounts what fstab mounted, as far as nobody uses it, and starts nasmount or has it read its configuration.
pub fn import(shares: &[Share]) -> anyhow::Result<Exit> {
    let free = block_on(take_over(shares))?;
    let exit = if free.is_empty() { Exit::Done } else { wait_until_online(free.clone(), ONLINE_WITHIN)? };
    Ok(if free.len() < shares.len() { exit.max(Exit::Refused) } else { exit })
}

async fn take_over(shares: &[Share]) -> anyhow::Result<Vec<String>> {
    let systemd = connect().await?;
    let mut free = Vec::new();
    for Share { name, mount_point } in shares {
        let request = Request::UnmountOther { mount_point: mount_point.into() };
        let why = match worker::ask(&request, UNMOUNTED_WITHIN).await {
            Ok(Answer::Holders(holders)) if holders.is_empty() => "in use".to_owned(),
            Ok(Answer::Holders(holders)) => format!("in use by {}", holders::in_words(&holders)),
            Ok(_) => {
                free.push(name.clone());
                end_automount(&systemd, Path::new(mount_point)).await?;
                continue;
            }
            Err(failed) => failed.to_string(),
        };
        let free = match automount_on(Path::new(mount_point))? {
            Some(unit) => format!("after `systemctl stop '{unit}'`"),
            None => "as soon as it is unmounted".to_owned(),
        };
        say(&format!("{mount_point}: {why}; nasmount takes it over {free}\n"));
    }
    systemd.enable(SERVICE).await.context("cannot enable nasmount")?;
    Systemd::reload().await.context("systemd cannot read its units anew")?;
    if systemd.activity(SERVICE).await? == Activity::Running {
        reload_daemon().await?;
    } else if let Start::Failed(state) = systemd.start_and_wait(SERVICE).await.context("cannot start nasmount")? {
        bail!("nasmount does not start: it is {state}; `journalctl -u nasmount` says why");
    } else {
        on_the_bus().await?;
    }
    Ok(free)
}

async fn end_automount(systemd: &Systemd, mount_point: &Path) -> anyhow::Result<()> {
    match automount_on(mount_point)? {
        Some(unit) => systemd.stop(&unit).await.with_context(|| format!("cannot stop {unit}")),
        None => Ok(()),
    }
}

/// The unit of an automount that lies there, below a mount or alone: nasmount's own barrier is another of its kind.
fn automount_on(mount_point: &Path) -> anyhow::Result<Option<String>> {
    let mounts = mountinfo::read().context("cannot read the mounts")?;
    let is_there = mountinfo::on(&mounts, mount_point).iter().any(|mount| mount.source == AUTOMOUNT);
    Ok(is_there.then(|| automount_unit(mount_point)))
}

fn automount_unit(mount_point: &Path) -> String {
    let unit = mount_unit(&mount_point.to_string_lossy());
    format!("{}.automount", unit.strip_suffix(".mount").unwrap_or(&unit))
}

async fn reload_daemon() -> anyhow::Result<()> {
    match Client::connect().await?.reload(false).await? {
        Outcome::Invalid { problems } => bail!("nasmount does not take the configuration over: {problems}"),
        Outcome::Planned { failed, .. } if failed.is_empty() => Ok(()),
        Outcome::Planned { failed, .. } => bail!("{}", failed.join("; ")),
    }
}

/// The daemon is up before it is on the bus, which it does not need for its work.
async fn on_the_bus() -> anyhow::Result<()> {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    let answered = async {
        loop {
            looks.tick().await;
            if let Ok(client) = Client::connect().await
                && client.status().await.is_ok()
            {
                return;
            }
        }
    };
    let answered = tokio::time::timeout(ON_THE_BUS_WITHIN, answered).await;
    answered.context("nasmount has started, and is not to be reached over D-Bus; `journalctl -u nasmount`")
}

/// Shares can only be unmounted by a daemon that runs.
pub fn may_be_exported(shares: &[Share]) -> anyhow::Result<Way> {
    let mounts = mountinfo::read().context("cannot read the mounts")?;
    let laid = autofs::laid(&mounts);
    let barred = shares.iter().find(|share| laid.iter().any(|(owner, _)| *owner == share.name));
    let runs = block_on(async {
        let systemd = match connect().await {
            Ok(systemd) => systemd,
            Err(unreachable) => return Ok(Err(format!("{unreachable:#}"))),
        };
        Ok(Ok(systemd.activity(SERVICE).await.context("cannot ask for the daemon's state")? == Activity::Running))
    })?;
    way(runs, barred)
}

/// Does the daemon run, or why is systemd not to be reached; and a share that is mounted, or barred, by nasmount.
fn way(runs: Result<bool, String>, barred: Option<&Share>) -> anyhow::Result<Way> {
    let (why, hint, Share { mount_point, .. }) = match (runs, barred) {
        (Ok(true), _) | (Ok(false), None) => return Ok(Way::Now),
        (Err(unreachable), None) => return Ok(Way::AtBoot(unreachable)),
        (Ok(false), Some(share)) => ("nasmount does not run".to_owned(), "`systemctl start nasmount` first", share),
        (Err(unreachable), Some(share)) => (unreachable, "`systemctl start dbus` first", share),
    };
    let message = format!("{why}, and {mount_point} is nasmount's own");
    Err(Hinted::new(message, format!("{hint}; nothing was changed")).into())
}

/// What to do where only the files were given back.
pub fn at_boot(why: &str, empty: bool) -> String {
    let nasmount = match empty {
        true => "; `systemctl disable nasmount` keeps nasmount from being started then, and can be done here as well",
        false => "",
    };
    format!("{why}: the files alone were changed, and systemd mounts what they say at the next boot{nasmount}\n")
}

/// Has nasmount let go of what is not in its configuration any more, and systemd mount these lines and start these units. `done` is
/// undone if nasmount refuses; else `told` is said.
pub fn export(
    entries: &[Entry],
    units: &BTreeSet<String>,
    empty: bool,
    done: Done,
    told: &str,
) -> anyhow::Result<Exit> {
    block_on(async {
        let systemd = match let_go().await {
            Ok(systemd) => systemd,
            Err(error) => {
                done.undo()?;
                let _ = Systemd::reload().await; // it may have read what is undone
                return Err(error.context("what was changed is undone; nasmount cannot let go of the shares"));
            }
        };
        say(told);
        if empty {
            systemd.disable(SERVICE).await.context("cannot disable nasmount")?;
            // before the stops: the daemon asks PID 1 when it ends, and was killed after 5 s of a reload (seen on a busy host)
            Systemd::reload().await.context("systemd cannot read its units anew")?;
            systemd.stop(SERVICE).await.context("cannot stop nasmount")?;
            systemd.stop(BARRIER_SERVICE).await.context("cannot stop the barrier service")?;
        }
        let mut exit = Exit::Done;
        for unit in entries.iter().filter_map(unit_of).chain(units.iter().cloned()) {
            match systemd.start_and_wait(&unit).await {
                Ok(Start::Failed(state)) => {
                    say(&format!("{unit}: {state}; `systemctl status '{unit}'` says why\n"));
                    exit = Exit::Failed;
                }
                Ok(Start::Done | Start::UnderWay) => say(&format!("{unit}: started\n")),
                Err(error) => {
                    say(&format!("cannot start {unit}: {error}\n"));
                    exit = Exit::Failed;
                }
            }
        }
        Ok(exit)
    })
}

/// Has systemd and the daemon, if it runs, take over what has been changed.
async fn let_go() -> anyhow::Result<Systemd> {
    let systemd = connect().await?;
    Systemd::reload().await.context("systemd cannot read its units anew")?;
    if systemd.activity(SERVICE).await.context("cannot ask for the daemon's state")? == Activity::Running {
        reload_daemon().await?;
    }
    Ok(systemd)
}

/// What mounts a line at boot: nothing with `noauto`.
fn unit_of(entry: &Entry) -> Option<String> {
    let has = |name: &str| entry.options.iter().any(|option| option == name);
    let mount_point: PathBuf = Path::new(&entry.mount_point).components().collect();
    if has("x-systemd.automount") || has("comment=systemd.automount") {
        Some(automount_unit(&mount_point))
    } else if has("noauto") {
        None
    } else {
        Some(mount_unit(&mount_point.to_string_lossy()))
    }
}

/// Nobody reads it: no reason to stop half-way.
fn say(line: &str) {
    let _ = std::io::Write::write_all(&mut std::io::stderr().lock(), line.as_bytes());
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::plan::fstab::entry;

    #[test]
    fn without_systemd_only_files_are_given_back_and_only_if_nothing_is_mounted() {
        let share = Share { name: "a".into(), mount_point: "/mnt/a".into() };
        let unreachable = || Err("cannot reach systemd: x".to_owned());
        assert_eq!(way(Ok(true), Some(&share)).ok(), Some(Way::Now));
        assert_eq!(way(Ok(false), None).ok(), Some(Way::Now));
        assert_eq!(way(unreachable(), None).ok(), Some(Way::AtBoot("cannot reach systemd: x".into())));
        for (runs, why) in [(Ok(false), "nasmount does not run"), (unreachable(), "cannot reach systemd: x")] {
            let refused = way(runs, Some(&share)).unwrap_err();
            assert_eq!(refused.to_string(), format!("{why}, and /mnt/a is nasmount's own"));
            assert!(refused.downcast_ref::<Hinted>().is_some_and(|it| it.hint().ends_with("nothing was changed")));
        }
        assert!(at_boot("cannot reach systemd: x", true).contains("at the next boot; `systemctl disable nasmount`"));
        assert!(at_boot("cannot reach systemd: x", false).ends_with("at the next boot\n"));
    }

    #[test]
    fn a_line_is_mounted_as_at_boot() {
        let unit = |line: &str| entry(line).as_ref().and_then(unit_of);
        assert_eq!(unit("//nas/a /mnt/a\\040b/ cifs guest 0 0").as_deref(), Some("mnt-a\\x20b.mount"));
        assert_eq!(unit("//nas/a /mnt/a cifs guest,noauto 0 0"), None);
        let automount = "//nas/a /mnt/a cifs guest,noauto,x-systemd.automount 0 0";
        assert_eq!(unit(automount).as_deref(), Some("mnt-a.automount"));
        assert_eq!(automount_unit(Path::new("/srv/a.mounts")), "srv-a.mounts.automount");
    }
}
