//! What a file is besides its content.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{
    Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, fchmod, fchown, fgetxattr, flistxattr, fsetxattr, fstat, futimens,
};
use rustix::io::Errno;

/// Gives `copy` owner, mode, times and extended attributes of `file`, ACLs among them.
pub(super) fn keep(file: &OwnedFd, copy: &OwnedFd) -> io::Result<()> {
    let stat = fstat(file)?;
    fchown(copy, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    let mut list = vec![0; XATTR_BYTES_MAX];
    let length = match flistxattr(file, &mut list[..]) {
        Err(Errno::NOTSUP) => 0,
        length => length?,
    };
    let mut value = vec![0; XATTR_BYTES_MAX];
    for name in list[..length].split_inclusive(|byte| *byte == 0) {
        let name = CStr::from_bytes_with_nul(name).map_err(io::Error::other)?;
        let length = fgetxattr(file, name, &mut value[..])?;
        fsetxattr(copy, name, &value[..length], XattrFlags::empty())?;
    }
    fchmod(copy, Mode::from_raw_mode(stat.st_mode))?; // an ACL changes it, a new owner takes set-id bits away
    keep_times(file, copy)
}

/// The kernel's limit for a list and for a value (xattr(7)).
const XATTR_BYTES_MAX: usize = 64 << 10;

/// When it was last read and written.
pub(super) fn keep_times(file: &OwnedFd, copy: &OwnedFd) -> io::Result<()> {
    let stat = fstat(file)?;
    let time =
        |seconds: i64, nanoseconds: u64| Timespec { tv_sec: seconds, tv_nsec: i64::try_from(nanoseconds).unwrap_or(0) };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    Ok(futimens(copy, &times)?)
}
