//! The clone: nasmount's own copy of the mount, in a mount namespace of its own that a file pins.
//!
//! It outlives the daemon without a process that could be killed, and without a descriptor in PID 1's store, which would make
//! PID 1 touch the share. The namespace holds nothing but a tmpfs root and the share on it, so it pins no other file
//! system of the host, and nothing propagates into or out of it.

use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;

use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, statx};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_bind, mount_change,
    move_mount, open_tree,
};

use tracing::warn;

use super::{Answer, Attempt as _, Failed, KernelOption, Reply, Stage, holders};
use crate::sys::barrier_socket::{Barred, Refused};
use crate::sys::{barrier_socket, mountinfo, paths};

/// CIFS_IOC_SHUTDOWN, `_IOR('X', 125, __u32)`, since 5.13.
const CIFS_IOC_SHUTDOWN: libc::c_ulong = 0x8004_587D;
/// "No log flush": flag 0 gives EINVAL, 1 and 2 do the same (measured on 6.1 and 6.12).
const CIFS_GOING_FLAGS_NOLOGFLUSH: u32 = 2;

const OWN_NAMESPACE: &str = "/proc/self/ns/mnt";

fn open_namespace(path: &Path) -> Result<OwnedFd, Failed> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .attempt(|| format!("cannot open the mount namespace {}", path.display()))
}

fn enter(namespace: &OwnedFd) -> Result<(), Failed> {
    setns(namespace.as_fd(), CloneFlags::CLONE_NEWNS).attempt(|| "cannot enter a mount namespace".into())
}

/// Runs `inside` in the clone's namespace and comes back to the host's.
pub(super) fn inside<T>(share: &str, inside: impl FnOnce() -> Result<T, Failed>) -> Result<T, Failed> {
    let host = open_namespace(Path::new(OWN_NAMESPACE))?;
    enter(&open_namespace(&paths::clone_pin(share))?)?;
    let result = inside();
    enter(&host)?;
    result
}

/// Pins a detached mount as the share's clone, and with it how it was mounted.
pub(super) fn pin(share: &str, mount: &OwnedFd, options: &[KernelOption]) -> Result<(), Failed> {
    let host = open_namespace(Path::new(OWN_NAMESPACE))?;
    unshare(CloneFlags::CLONE_NEWNS).attempt(|| "cannot make a mount namespace".into())?;
    build_namespace(mount, options)?;
    let namespace = open_namespace(Path::new(OWN_NAMESPACE))?; // before /proc is out of sight
    leave_old_root()?;
    enter(&host)?;
    let pin = paths::clone_pin(share);
    fs::File::create(&pin).attempt(|| format!("cannot create {}", pin.display()))?;
    mount_bind(format!("/proc/self/fd/{}", namespace.as_raw_fd()), &pin)
        .attempt(|| format!("cannot pin the clone on {}", pin.display()))
}

fn build_namespace(mount: &OwnedFd, options: &[KernelOption]) -> Result<(), Failed> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).attempt(|| "cannot make the namespace private".into())?;
    let root = Path::new(paths::RUNTIME_DIRECTORY);
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("nasmount", root, "tmpfs", flags, c"mode=0700,size=64k")
        .attempt(|| "cannot mount the namespace's root".into())?;
    let record = root.join(paths::OPTIONS_IN_NAMESPACE.trim_start_matches('/'));
    let written = serde_json::to_vec(options).map_err(std::io::Error::from).and_then(|text| fs::write(record, text));
    written.attempt(|| "cannot write down how the share is mounted".into())?;
    let share = root.join(paths::SHARE_IN_NAMESPACE.trim_start_matches('/'));
    fs::create_dir(&share).attempt(|| "cannot create a directory in the namespace".into())?;
    move_mount(mount, "", CWD, &share, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .attempt(|| "cannot move the mount into the namespace".into())
}

/// With which options a share's clone was mounted; those of the configuration may be others by now.
pub(super) fn mounted_options(share: &str) -> Result<Vec<KernelOption>, Failed> {
    let what = || format!("cannot read with which options share {share} was mounted");
    let text = inside(share, || fs::read(paths::OPTIONS_IN_NAMESPACE).attempt(what))?;
    serde_json::from_slice(&text).map_err(std::io::Error::from).attempt(what)
}

/// pivot_root(".", ".") stacks the old root on the new one, where it can be let go of (pivot_root(2)).
fn leave_old_root() -> Result<(), Failed> {
    let what = || "cannot leave the host's root in the namespace".to_owned();
    rustix::process::chdir(paths::RUNTIME_DIRECTORY).attempt(what)?;
    rustix::process::pivot_root(".", ".").attempt(what)?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).attempt(what)
}

/// Asks the server: statfs is never served from a cache (measured on 6.1 and 6.12).
pub(super) fn verify(share: &str, marker: Option<&str>) -> Reply {
    inside(share, || {
        rustix::fs::statfs(paths::SHARE_IN_NAMESPACE).attempt(|| format!("share {share} did not answer statfs"))?;
        match marker {
            Some(marker) => find_marker(&open_root(share)?, marker),
            None => Ok(()),
        }
    })?;
    Ok(Answer::Done)
}

/// A volume that the NAS has not mounted yet is an empty directory, and a share all the same. The marker tells them apart;
/// `FORCE_SYNC` because a cache would still know it (`cifs_getattr`, fs/smb/client/inode.c).
pub(super) fn find_marker(root: &OwnedFd, marker: &str) -> Result<(), Failed> {
    let flags = AtFlags::STATX_FORCE_SYNC | AtFlags::SYMLINK_NOFOLLOW;
    let found = statx(root, marker, flags, StatxFlags::TYPE).map(drop);
    found.attempt(|| format!("cannot find the marker {marker}")).map_err(|failed| failed.at(Stage::Contents))
}

/// Writes back what is unwritten, and hands on the error if some of it was lost.
pub(super) fn flush(share: &str) -> Reply {
    inside(share, || {
        let root = open_root(share)?;
        rustix::fs::syncfs(&root).attempt(|| format!("cannot write back what is unwritten on share {share}"))
    })?;
    Ok(Answer::Done)
}

/// An error that nobody has been told of is told to whoever opens the file system next and calls syncfs, once
/// (`errseq_sample`, lib/errseq.c; `s_wb_err` since 5.8). What can still be written is written back first.
pub(super) fn ask_for_loss(share: &str) -> Reply {
    let error = inside(share, || Ok(rustix::fs::syncfs(open_root(share)?).err()))?;
    Ok(Answer::Lost(error.map(|error| std::io::Error::from(error).to_string())))
}

/// The root of the barrier on a mount point, from its owner.
pub(super) fn barrier(barred: &Barred) -> Result<OwnedFd, Failed> {
    let attempt = || format!("cannot have the barrier laid on {}", barred.mount_point.display());
    barrier_socket::lay(barred).map_err(|refusal| refused(attempt(), refusal))
}

/// Has accesses to the barrier meet something else.
pub(super) fn set_access(barred: &Barred) -> Reply {
    let attempt = || format!("cannot tell the barrier on {} of on_access", barred.mount_point.display());
    barrier_socket::heed(barred).map(|()| Answer::Done).map_err(|refusal| refused(attempt(), refusal))
}

/// Has a barrier not laid again.
pub(super) fn forget_barrier(barred: &Barred) -> Reply {
    let attempt = || format!("cannot have the barrier on {} forgotten", barred.mount_point.display());
    barrier_socket::forget(barred).map(|()| Answer::Done).map_err(|refusal| refused(attempt(), refusal))
}

fn refused(attempt: String, Refused { why, errno, needs_a_person }: Refused) -> Failed {
    Failed { attempt, cause: why, errno, stage: if needs_a_person { Stage::Configuration } else { Stage::Other } }
}

/// Puts the clone on the path, above the barrier: needs no lock of the share.
pub(super) fn attach(barred: &Barred) -> Reply {
    let Barred { share, mount_point, .. } = barred;
    let copy = inside(share, || {
        open_tree(CWD, paths::SHARE_IN_NAMESPACE, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
            .attempt(|| format!("cannot copy the clone of share {share}"))
    })?;
    if let Some(top) = mountinfo::on(&mounts()?, mount_point).last().filter(|top| top.fstype != "autofs") {
        let attempt = format!("cannot attach share {share} to {}", mount_point.display());
        return Err(super::host::in_the_way(&attempt, top));
    }
    let barrier = barrier(barred)?;
    let by_descriptors = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&copy, "", &barrier, "", by_descriptors)
        .attempt(|| format!("cannot attach share {share} to {}", mount_point.display()))?;
    Ok(Answer::Done)
}

/// Shuts the file system down.
pub(super) fn give_up(share: &str) -> Reply {
    inside(share, || shut_down(share))?;
    Ok(Answer::Done)
}

/// Shuts the file system down and drops the clone; the last to let go of a mount tears it down, which is why this is a worker.
pub(super) fn release(share: &str, kill: &[i32]) -> Reply {
    if is_pinned(share, &mounts()?) {
        let caught = holders::catch(share, kill).unwrap_or_else(|error| {
            warn!(%error, "cannot kill who has the share open");
            Vec::new()
        });
        inside(share, || shut_down(share))?;
        holders::kill(&caught);
    }
    forget(share)
}

/// Whether a share has a clone, by the mounts of the host.
pub(super) fn is_pinned(share: &str, mounts: &[mountinfo::Entry]) -> bool {
    let pin = paths::clone_pin(share);
    mounts.iter().any(|entry| entry.mount_point == pin)
}

fn mounts() -> Result<Vec<mountinfo::Entry>, Failed> {
    mountinfo::read().attempt(|| "cannot read the mounts".into())
}

/// Drops the clone.
pub(super) fn forget(share: &str) -> Reply {
    let pin = paths::clone_pin(share);
    if is_pinned(share, &mounts()?) {
        rustix::mount::unmount(&pin, UnmountFlags::DETACH)
            .attempt(|| format!("cannot drop the clone of share {share}"))?;
    }
    match fs::remove_file(&pin) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).attempt(|| format!("cannot remove {}", pin.display()))
        }
        _ => Ok(Answer::Done),
    }
}

/// Opening the root directory does not ask the server (`cifs_dir_ops` has no open).
pub(super) fn open_root(share: &str) -> Result<OwnedFd, Failed> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(paths::SHARE_IN_NAMESPACE, flags, Mode::empty())
        .attempt(|| format!("cannot open the root of share {share}"))
}

fn shut_down(share: &str) -> Result<(), Failed> {
    let root = open_root(share)?;
    let how = CIFS_GOING_FLAGS_NOLOGFLUSH;
    // SAFETY: the ioctl reads one u32 through the pointer, which outlives the call.
    #[expect(unsafe_code, reason = "no crate wraps CIFS_IOC_SHUTDOWN")]
    let result = unsafe { libc::ioctl(root.as_raw_fd(), CIFS_IOC_SHUTDOWN, &raw const how) };
    if result < 0 {
        return Err(std::io::Error::last_os_error()).attempt(|| format!("cannot shut share {share} down"));
    }
    Ok(())
}
