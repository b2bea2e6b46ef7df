//! What a file is besides its content.

use std::ffi::CStr;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::{
    Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags, fchmod, fchown, fgetxattr, flistxattr, fsetxattr, fstat,
    futimens,
};
use rustix::io::Errno;

/// What the kernel itself measures of a file, and anew of another.
const MEASURED: [&CStr; 2] = [c"security.ima", c"security.evm"];

/// What each file system gives its files by itself.
const LABEL: &CStr = c"security.selinux";

/// The kernel's limit for a list and for a value (xattr(7)).
const XATTR_BYTES_MAX: usize = 64 << 10;

/// Gives `copy` owner, group, mode and extended attributes of `file`, ACLs among them. Those attributes that it does not take.
///
/// # Errors
///
/// It does not take the others, or an ACL, without which the mode means something else.
pub fn keep(file: impl AsFd, copy: impl AsFd) -> io::Result<Vec<String>> {
    let stat = fstat(&file)?;
    let named = |what: &'static str| move |error: Errno| cannot(what, error);
    let (owner, group) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    fchown(&copy, Some(owner), Some(group)).map_err(named("its owner and group"))?;
    let lost = keep_extended(&file, &copy)?;
    if lost.iter().any(|name| name.starts_with("system.posix_acl")) {
        return Err(cannot("its access control list", Errno::NOTSUP));
    }
    // an ACL changes it, a new owner takes set-id bits away
    fchmod(&copy, Mode::from_raw_mode(stat.st_mode)).map_err(named("its mode"))?;
    Ok(lost)
}

/// What one is that the other is not, of owner, group and mode; `None` if both are alike.
///
/// # Errors
///
/// One of them cannot be looked at.
pub fn difference(file: impl AsFd, other: impl AsFd) -> io::Result<Option<String>> {
    let (file, other) = (fstat(file)?, fstat(other)?);
    let of = |stat: &Stat| (stat.st_uid, stat.st_gid, stat.st_mode & 0o7777);
    let said = |(owner, group, mode): (u32, u32, u32)| format!("{owner}:{group} {mode:04o}");
    let (file, other) = (of(&file), of(&other));
    Ok((file != other).then(|| format!("{}, not {}", said(other), said(file))))
}

fn cannot(what: &str, error: Errno) -> io::Error {
    let error = io::Error::from(error);
    io::Error::new(error.kind(), format!("{what} cannot be kept: {error}"))
}

/// Gives it the extended attributes alone. Those that it does not take.
///
/// # Errors
///
/// They cannot be read, or what the copy is on does not answer.
pub fn keep_extended(file: impl AsFd, copy: impl AsFd) -> io::Result<Vec<String>> {
    let mut list = vec![0; XATTR_BYTES_MAX];
    let length = match flistxattr(&file, &mut list[..]) {
        Err(Errno::NOTSUP) => 0,
        length => length?,
    };
    let (mut value, mut lost) = (vec![0; XATTR_BYTES_MAX], Vec::new());
    for name in list[..length].split_inclusive(|byte| *byte == 0) {
        let name = CStr::from_bytes_with_nul(name).map_err(io::Error::other)?;
        if MEASURED.contains(&name) {
            continue;
        }
        let length = fgetxattr(&file, name, &mut value[..])?;
        match fsetxattr(&copy, name, &value[..length], XattrFlags::empty()) {
            Ok(()) => {}
            Err(error) if !is_refusal(error) => return Err(error.into()),
            Err(_) if name == LABEL => {}
            Err(_) => lost.push(name.to_string_lossy().into_owned()),
        }
    }
    Ok(lost)
}

/// Is it this attribute that is not taken? ENOSPC is its place in the inode.
fn is_refusal(error: Errno) -> bool {
    let refusals = [
        Errno::NOTSUP,
        Errno::PERM,
        Errno::ACCESS,
        Errno::INVAL,
        Errno::NOSYS,
        Errno::NOSPC,
        Errno::TOOBIG,
        Errno::RANGE,
    ];
    refusals.contains(&error)
}

/// When it was last read and written.
///
/// # Errors
///
/// It does not take them.
pub fn keep_times(file: impl AsFd, copy: impl AsFd) -> io::Result<()> {
    let stat = fstat(&file)?;
    let time =
        |seconds: i64, nanoseconds: u64| Timespec { tv_sec: seconds, tv_nsec: i64::try_from(nanoseconds).unwrap_or(0) };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    Ok(futimens(&copy, &times)?)
}
