//! What a worker does to the host outside of a clone.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::net::{IpAddr, ToSocketAddrs as _};
use std::path::Path;

use rustix::mount::{FsOpenFlags, MountPropagationFlags, UnmountFlags, fsopen, mount_bind, mount_change};

use super::{Answer, Attempt as _, CloneFound, Failed, Reply, clone, holders};
use crate::config::settings::OnAccess;
use crate::share::event::Attachment;
use crate::sys::barrier_memory::{Barriers, LaidBarrier};
use crate::sys::barrier_socket::{self, Barred};
use crate::sys::probe::SMB_PORT;
use crate::sys::state_file::StateFiles;
use crate::sys::{kernel, mount_point, mountinfo, paths};

/// Loads the CIFS module (fsopen does).
pub(super) fn look_at_kernel() -> Reply {
    fsopen("cifs", FsOpenFlags::FSOPEN_CLOEXEC).attempt(|| "cannot use CIFS through the kernel's mount API".into())?;
    Ok(Answer::Kernel { mount_params: kernel::mount_params(), dirty_limits: kernel::can_limit_unwritten_data() })
}

/// The same, and makes the directory of the clones a private mount.
pub(super) fn prepare() -> Reply {
    let kernel = look_at_kernel()?;
    let directory = Path::new(paths::CLONE_DIRECTORY);
    fs::create_dir_all(directory).attempt(|| format!("cannot create {}", directory.display()))?;
    let entries = mountinfo::read().attempt(|| "cannot read the mounts".into())?;
    if mountinfo::on(&entries, directory).is_empty() {
        let what = || format!("cannot make {} a private mount", directory.display());
        mount_bind(directory, directory).attempt(what)?;
        mount_change(directory, MountPropagationFlags::PRIVATE).attempt(what)?;
    }
    Ok(kernel)
}

/// What is in place for a share; asks nobody but the kernel's mount tables.
pub(super) fn survey(share: &str, mount_point: &Path) -> Reply {
    let entries = mountinfo::read().attempt(|| "cannot read the mounts".into())?;
    let clone = if clone::is_pinned(share, &entries) { Some(entry_of_clone(share)?) } else { None };
    let ours = clone.as_ref().map(|entry| entry.device);
    let laid = crate::sys::autofs::laid(&entries);
    let barrier = laid.iter().any(|(owner, on)| owner == share && *on == mount_point);
    let attached = match mountinfo::on(&entries, mount_point).last() {
        Some(entry) if entry.fstype == "autofs" => Attachment::Nothing,
        Some(entry) if Some(entry.device) == ours => Attachment::Share,
        Some(entry) => Attachment::Foreign(entry.source.clone()),
        None => Attachment::Nothing,
    };
    let clone = clone.map(|entry| CloneFound { source: entry.source, options: entry.options });
    Ok(Answer::Found { clone, barrier, attached })
}

/// The device number of a share's file system, if it has a clone.
pub(super) fn device_of_clone(share: &str) -> Result<Option<(u32, u32)>, Failed> {
    let entries = mountinfo::read().attempt(|| "cannot read the mounts".into())?;
    if clone::is_pinned(share, &entries) { Ok(Some(entry_of_clone(share)?.device)) } else { Ok(None) }
}

/// Read through a descriptor of the host's /proc: the namespace has none, and a stat of the share could ask the server.
pub(super) fn entry_of_clone(share: &str) -> Result<mountinfo::Entry, Failed> {
    use rustix::fs::{Mode, OFlags, open, openat};
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let own =
        open("/proc/self", flags | OFlags::DIRECTORY, Mode::empty()).attempt(|| "cannot open /proc/self".into())?;
    let text = clone::inside(share, || {
        let file = openat(&own, "mountinfo", flags, Mode::empty())
            .attempt(|| format!("cannot read the mounts of the clone of share {share}"))?;
        let mut bytes = Vec::new();
        fs::File::from(file).read_to_end(&mut bytes).attempt(|| "cannot read a mountinfo".into())?;
        Ok(bytes)
    })?;
    let mut entries = mountinfo::parse(&text).into_iter();
    entries.find(|entry| entry.mount_point == Path::new(paths::SHARE_IN_NAMESPACE)).ok_or_else(|| Failed {
        attempt: format!("cannot find share {share} in its clone"),
        cause: "the namespace is empty".into(),
        errno: None,
        stage: super::Stage::Other,
    })
}

/// Takes the share off the path, if it lies on top there, and then looks who has it open; what somebody else laid over it is in
/// the way (EBUSY).
pub(super) fn detach(share: &str, mount_point: &Path) -> Reply {
    let entries = mountinfo::read().attempt(|| "cannot read the mounts".into())?;
    let ours = device_of_clone(share)?;
    let layers = mountinfo::on(&entries, mount_point);
    let is_ours = |entry: &mountinfo::Entry| match ours {
        Some(device) => entry.device == device,
        None => matches!(entry.fstype.as_str(), "cifs" | "smb3"), // a daemon that died while it was giving it up
    };
    match layers.last() {
        Some(top) if is_ours(top) => rustix::mount::unmount(mount_point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
            .attempt(|| format!("cannot detach {}", mount_point.display()))?,
        Some(top) if layers.iter().any(|entry| is_ours(entry)) => {
            return Err(in_the_way(&format!("cannot detach {}", mount_point.display()), top));
        }
        _ => {}
    }
    Ok(Answer::Done)
}

/// Something lies on a mount point where only the barrier may.
pub(super) fn in_the_way(attempt: &str, top: &mountinfo::Entry) -> Failed {
    Failed {
        attempt: attempt.to_owned(),
        cause: format!("{} ({}) was mounted there by somebody else", top.source, top.fstype),
        errno: Some(libc::EBUSY),
        stage: super::Stage::Other,
    }
}

/// Asks the resolver, whose order is kept (RFC 6724); in a worker because it may take a minute and cannot be interrupted.
pub(super) fn resolve(host: &str) -> Reply {
    let found = (host, SMB_PORT).to_socket_addrs().attempt(|| format!("cannot resolve {host}"))?;
    // to the kernel, an IPv4 address in IPv6 form is another one
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in found.map(|address| address.ip().to_canonical()) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(Answer::Addresses(addresses))
}

/// Takes a share that is no longer configured off the host: path, clone, barrier. Open files live on, as after umount -l.
pub(super) fn retire(share: &str, mount_point: &Path) -> Reply {
    detach(share, mount_point)?;
    clone::forget(share)?;
    // who waits there for the share would keep the unmounting waiting; without an owner nobody is answered at all. Forgotten first: an
    // owner that starts in between must not lay it again
    let barred = Barred { share: share.to_owned(), mount_point: mount_point.to_owned(), on_access: OnAccess::Fail };
    let _ = barrier_socket::forget(&barred);
    let attempt = || format!("cannot take the barrier off {}", mount_point.display());
    let entries = mountinfo::read().attempt(|| "cannot read the mounts".into())?;
    let barrier = format!("{}{share}", crate::sys::autofs::SOURCE_PREFIX);
    let layers = mountinfo::on(&entries, mount_point);
    match layers.last() {
        Some(top) if top.source == barrier => {
            rustix::mount::unmount(mount_point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).attempt(attempt)?;
            mount_point::unprotect(mount_point)
                .attempt(|| format!("cannot make {} a usual directory again", mount_point.display()))?;
        }
        Some(top) if layers.iter().any(|entry| entry.source == barrier) => return Err(in_the_way(&attempt(), top)),
        _ => {} // done already, as far as it goes
    }
    Ok(Answer::Done)
}

/// A CIFS mount that lies on a path, of fstab for instance, is unmounted; or it stays, and who has it open is named. What is unwritten
/// reaches the server before that returns (umount(2)).
pub(super) fn unmount_other(mount_point: &Path) -> Reply {
    let entries = mountinfo::read().attempt(|| "cannot read the mounts".into())?;
    let Some(top) = mountinfo::on(&entries, mount_point).pop().filter(|top| top.fstype == "cifs") else {
        return Ok(Answer::Done);
    };
    match rustix::mount::unmount(mount_point, UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(Answer::Done),
        Err(rustix::io::Errno::BUSY) => holders::of_device(top.device).map(Answer::Holders),
        Err(error) => Err(error).attempt(|| format!("cannot unmount {}", mount_point.display())),
    }
}

/// Takes veil, fence, shares, barriers and clones off the host.
pub(super) fn clear() -> Result<(), Failed> {
    let entries = mountinfo::read().attempt(|| "cannot read the mounts".into())?;
    for (share, mount_point) in crate::sys::autofs::laid(&entries) {
        retire(&share, mount_point)?;
    }
    forget_barriers().attempt(|| "cannot forget the barriers".into())?;
    StateFiles::of_host()
        .write_generated(&BTreeMap::new())
        .attempt(|| "cannot forget what depends on shares".into())?;
    crate::sys::nft::remove().attempt(|| "cannot remove veil and fence".into())?;
    if !mountinfo::on(&entries, Path::new(paths::CLONE_DIRECTORY)).is_empty() {
        rustix::mount::unmount(paths::CLONE_DIRECTORY, UnmountFlags::DETACH)
            .attempt(|| format!("cannot unmount {}", paths::CLONE_DIRECTORY))?;
    }
    Ok(())
}

/// Those that do not lie, too, and also if their owner does not run.
fn forget_barriers() -> io::Result<()> {
    let files = StateFiles::of_host();
    for (mount_point, LaidBarrier { share, .. }) in files.read_barriers()? {
        let _ = barrier_socket::forget(&Barred { share, mount_point, on_access: OnAccess::Fail });
    }
    files.write_barriers(&Barriers::new())
}
