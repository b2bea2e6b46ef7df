//! The barrier's owner, `nasmount barrier`: a service of its own, so that the path stays barred while the daemon is dead, being
//! restarted or upgraded. It does two things: lay barriers, and fail every access to them, at once or after a wait for the share.
//! After a restart of this service accesses fail at once until the daemon speaks of the share again.
//!
//! It lays them when it is asked, and at its start those that were laid before (`barrier_memory`): at boot before any ordinary service
//! can look, whatever the daemon thinks of its configuration. One that is no longer configured is taken off by the daemon's start.
//!
//! If this process dies, systemd keeps the barriers' pipes open (its fd store), so that accesses wait instead of finding an empty
//! directory, and the next one takes the barriers over. It also keeps their roots: to those who wait the path is closed for the next
//! owner, too. A pipe is kept before the kernel asks on it, and the one before it until then.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use sd_notify::NotifyState;
use tracing::{info, warn};

use super::barrier_keeper::Keeper;
use crate::config::settings::OnAccess;
use crate::sys::autofs::{Access, Barrier, Pipe};
use crate::sys::barrier_memory::Barriers;
use crate::sys::barrier_socket::{Barred, What, Wish};
use crate::sys::config_dir::read_fstab;
use crate::sys::state_file::StateFiles;
use crate::sys::{autofs, barrier_socket, clock, fd_store, listen, mountinfo, paths};

/// How long one asker may keep the others waiting.
const TALK_WITHIN: Duration = Duration::from_secs(2);

/// The mount points that this process answers for.
type Owned = Arc<Mutex<BTreeMap<PathBuf, Mine>>>;

/// A barrier that this process answers for.
#[derive(Debug)]
struct Mine {
    root: OwnedFd,
    access: Arc<Access>,
    /// Under which its pipe and root are kept.
    name: String,
}

/// What an earlier owner had kept, by name.
type Kept = Vec<(String, OwnedFd)>;

/// A name that none has had since the boot, of this share's (which has no dot in it).
fn name_of(share: &str) -> String {
    format!("{share}.{}", clock::now().since_boot().as_micros())
}

fn is_name_of(share: &str, name: &str) -> bool {
    name.split('.').next() == Some(share)
}

/// Runs the service; returns only on an error that keeps it from working at all.
pub fn run() -> anyhow::Result<()> {
    let lock = Path::new(paths::RUNTIME_DIRECTORY).join("barrier.lock");
    let Some(_alone) = listen::lock(&lock).with_context(|| format!("cannot lock {}", lock.display()))? else {
        anyhow::bail!("the barrier service runs already");
    };
    let owned = Owned::default();
    let kept = fd_store::take().unwrap_or_else(|error| {
        warn!(%error, "cannot see what systemd has kept");
        Kept::new()
    });
    let files = StateFiles::of_host();
    let remembered = files.read_barriers().unwrap_or_else(|error| {
        warn!(%error, "cannot read which barriers were laid: none is laid before it is asked for");
        Barriers::default()
    });
    let keeper = Keeper::start(files, remembered.clone()).context("cannot start a thread")?;
    take_over(&owned, &keeper, &kept).context("cannot read the mounts")?;
    lay_again(&owned, &keeper, remembered);
    let listener = listen::listen(Path::new(paths::BARRIER_SOCKET))
        .with_context(|| format!("cannot listen on {}", paths::BARRIER_SOCKET))?;
    sd_notify::notify(&[NotifyState::Ready]).context("cannot tell systemd that the service is ready")?;
    serve(&listener, &owned, &keeper);
    Ok(())
}

/// The barriers that an earlier owner left on the host. What was kept of one that could not be taken over stays kept: who waits there
/// would find it empty.
fn take_over(owned: &Owned, keeper: &Keeper, kept: &Kept) -> io::Result<()> {
    let entries = mountinfo::read()?;
    let mut left: BTreeSet<&str> = kept.iter().map(|(name, _)| name.as_str()).collect();
    for (share, mount_point) in autofs::laid(&entries) {
        let barred = Barred { share, mount_point: mount_point.to_owned(), on_access: OnAccess::default() };
        let share = &barred.share;
        let of_share = kept.iter().filter(|(name, _)| is_name_of(share, name));
        match lay(owned, keeper, &barred, &of_share.map(|(_, fd)| fd).collect::<Vec<_>>()) {
            Ok(_) => info!(share, mount_point = %mount_point.display(), "barrier taken over"),
            Err(error) => {
                warn!(share, %error, "cannot take the barrier over");
                left.retain(|name| !is_name_of(share, name));
            }
        }
    }
    left.into_iter().for_each(forget);
    Ok(())
}

/// systemd need not keep this any longer.
fn forget(name: &str) {
    if let Err(error) = fd_store::forget(name) {
        warn!(name, %error, "systemd keeps a pipe that nobody needs");
    }
}

/// The barriers that an earlier boot had. One that cannot be laid keeps no other from being laid; the daemon will ask for it.
fn lay_again(owned: &Owned, keeper: &Keeper, remembered: Barriers) {
    let fstab = read_fstab(Path::new("/etc/fstab")).unwrap_or_default();
    for (mount_point, barrier) in remembered {
        let lay_it = || {
            let entries = mountinfo::read()?;
            if autofs::laid(&entries).iter().any(|(owner, on)| *owner == barrier.share && *on == mount_point) {
                return Ok(()); // taken over
            }
            if let Some(hindrance) = barrier.hindrance(&mount_point, &entries, &fstab) {
                return Err(io::Error::other(hindrance));
            }
            let (share, mount_point) = (barrier.share.clone(), mount_point.clone());
            lay(owned, keeper, &Barred { share, mount_point, on_access: OnAccess::Fail }, &[]).map(drop)
        };
        if let Err(error) = lay_it() {
            let (share, mount_point) = (&barrier.share, mount_point.display());
            warn!(share, %mount_point, %error, "its barrier is not laid before the daemon asks for it");
        }
    }
}

fn serve(listener: &UnixListener, owned: &Owned, keeper: &Keeper) {
    for stream in listener.incoming() {
        match stream.and_then(|stream| answer(&stream, owned, keeper)) {
            Ok(()) => {}
            Err(error) => warn!(%error, "request not served"),
        }
    }
}

fn answer(stream: &UnixStream, owned: &Owned, keeper: &Keeper) -> io::Result<()> {
    stream.set_read_timeout(Some(TALK_WITHIN))?;
    stream.set_write_timeout(Some(TALK_WITHIN))?;
    let Wish { barred, what } = barrier_socket::receive_wish(stream)?;
    match what {
        What::Lay => barrier_socket::answer(stream, lay(owned, keeper, &barred, &[]).map(Some)),
        What::Heed => {
            heed(owned, &barred);
            barrier_socket::answer(stream, Ok(None))
        }
        What::Forget => {
            heed(owned, &Barred { on_access: OnAccess::Fail, ..barred.clone() });
            keeper.forget(barred.share, barred.mount_point, TALK_WITHIN);
            barrier_socket::answer(stream, Ok(None))
        }
    }
}

fn heed(owned: &Owned, barred: &Barred) {
    if let Some(mine) = owned.lock().unwrap_or_else(PoisonError::into_inner).get(&barred.mount_point) {
        mine.access.set_wait(wait(barred.on_access));
    }
}

/// Lays a barrier unless it is there, and has it remembered.
fn lay(owned: &Owned, keeper: &Keeper, barred: &Barred, kept: &[&OwnedFd]) -> io::Result<OwnedFd> {
    let root = own(owned, barred, kept)?;
    keeper.laid(&barred.share, barred.mount_point.clone());
    Ok(root)
}

fn wait(on_access: OnAccess) -> Duration {
    match on_access {
        OnAccess::Fail => Duration::ZERO,
        OnAccess::Wait(wait) => wait,
    }
}

/// Lays a barrier unless it is there, hands its pipe and its root to systemd, and answers for it from now on. Returns the barrier's root.
fn own(owned: &Owned, Barred { share, mount_point, on_access }: &Barred, kept: &[&OwnedFd]) -> io::Result<OwnedFd> {
    let mut mine = owned.lock().unwrap_or_else(PoisonError::into_inner);
    let entries = mountinfo::read()?;
    let is_laid = autofs::laid(&entries).iter().any(|(owner, on)| owner == share && on == mount_point);
    if let Some(Mine { root, access, .. }) = mine.get(mount_point) {
        if is_laid {
            access.set_wait(wait(*on_access));
            return root.try_clone();
        }
        access.end(); // somebody unmounted it: the root that is kept here outlives that
    }
    let (name, pipe) = (name_of(share), Pipe::new()?);
    keep(&name, pipe.requests());
    let barrier = Barrier::lay(share, mount_point, pipe, kept, |fd| keep(&name, fd)).inspect_err(|_| forget(&name))?;
    keep(&name, barrier.root());
    let root = barrier.root().try_clone()?;
    let access = Arc::new(Access::new(wait(*on_access))?);
    let kept = Mine { root: barrier.root().try_clone()?, access: Arc::clone(&access), name };
    let (others, place) = (Arc::clone(owned), (share.clone(), mount_point.clone()));
    let serves = move || answer_for(&barrier, &access, &others, &place);
    if let Err(error) = std::thread::Builder::new().name(format!("barrier {share}")).spawn(serves) {
        warn!(%error, "nobody can answer for a barrier that is laid: starting anew");
        std::process::exit(1);
    }
    if let Some(before) = mine.insert(mount_point.clone(), kept) {
        forget(&before.name);
    }
    info!(share, mount_point = %mount_point.display(), "barrier laid");
    Ok(root)
}

/// A barrier that is not kept is better than none.
fn keep(name: &str, fd: &OwnedFd) {
    if let Err(error) = fd_store::keep(name, fd.as_fd()) {
        warn!(name, %error, "systemd does not keep a barrier: it is seen empty if this process dies");
    }
}

/// Answers for a barrier until it is gone. One that is there and can no longer be answered for ends the whole process: the next
/// takes all of them over.
fn answer_for(barrier: &Barrier, access: &Arc<Access>, owned: &Owned, (share, mount_point): &(String, PathBuf)) {
    let end = barrier.serve(access);
    let mut mine = owned.lock().unwrap_or_else(PoisonError::into_inner);
    let is_mine = mine.get(mount_point).is_some_and(|mine| Arc::ptr_eq(&mine.access, access));
    if !is_mine {
        return info!(mount_point = %mount_point.display(), "barrier gone, laid anew since");
    }
    let still_laid = mountinfo::read()
        .is_ok_and(|entries| autofs::laid(&entries).iter().any(|(owner, on)| owner == share && on == mount_point));
    if still_laid {
        warn!(mount_point = %mount_point.display(), reason = %end, "cannot answer for a barrier: starting anew");
        std::process::exit(1);
    }
    if let Some(gone) = mine.remove(mount_point) {
        forget(&gone.name);
    }
    info!(mount_point = %mount_point.display(), reason = %end, "barrier gone");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_known_by_its_share() {
        for (share, other) in [("media", "media-2"), ("media-2", "media"), ("a_b", "a")] {
            let name = name_of(share);
            assert!(is_name_of(share, &name) && !is_name_of(other, &name), "{name}");
            assert!(name.len() <= 255 && !name.contains(':'), "{name} is none that systemd takes");
        }
        assert!(is_name_of("media", "media"), "as an earlier version named it");
    }
}
