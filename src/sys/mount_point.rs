//! The directory under a barrier. Nobody may write into it, also when no barrier lies on it: at boot before nasmount runs, or
//! when somebody has unmounted it. What is written there disappears under the share and fills the host's disk.
//!
//! Mode 0000 stops everybody but root, the immutable flag (chattr(1)) root as well, where the file system has it.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use rustix::fs::{Dir, IFlags, Mode, OFlags, fchmod, fstat, ioctl_getflags, ioctl_setflags, open};
use rustix::io::Errno;

/// Anybody may enter; what is in it is the share's matter.
const USUAL: Mode = Mode::from_raw_mode(0o755);

/// How well a directory is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Nobody can write into it.
    Whole,
    /// Only root can: its file system has no immutable flag.
    ModeOnly,
    /// It is not empty, and left as it is.
    HoldsFiles,
}

/// Creates it, with parents that anybody may enter. A path through a symbolic link is refused: the kernel reports mounts under the
/// path it leads to, and nothing here would recognise its own.
pub fn create(mount_point: &Path) -> io::Result<()> {
    // the mode is asked for in spite of the service's umask
    let umask = rustix::process::umask(Mode::from_raw_mode(0o022));
    let created = fs::DirBuilder::new().recursive(true).mode(USUAL.as_raw_mode()).create(mount_point);
    rustix::process::umask(umask);
    created?;
    let real = mount_point.canonicalize()?;
    if real != mount_point {
        let hint = format!("it leads to {}: use that path", real.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, hint));
    }
    Ok(())
}

/// Protects it, if it is empty. Nothing may be mounted on it.
pub fn protect(mount_point: &Path) -> io::Result<Protection> {
    protect_open(&open_directory(mount_point)?)
}

/// The same for one that is open, whatever is mounted on it.
pub fn protect_open(directory: &OwnedFd) -> io::Result<Protection> {
    let flags = ioctl_getflags(directory);
    if flags.is_ok_and(|flags| flags.contains(IFlags::IMMUTABLE)) {
        return Ok(Protection::Whole);
    }
    let is_entry = |name: &[u8]| name != b"." && name != b"..";
    if Dir::read_from(directory)?.flatten().any(|entry| is_entry(entry.file_name().to_bytes())) {
        return Ok(Protection::HoldsFiles);
    }
    fchmod(directory, Mode::empty())?;
    let set = flags.and_then(|flags| ioctl_setflags(directory, flags | IFlags::IMMUTABLE));
    match set {
        Ok(()) => Ok(Protection::Whole),
        // no flags at all, not this one, or none for a container's root
        Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::PERM) => Ok(Protection::ModeOnly),
        Err(error) => Err(error.into()),
    }
}

/// Undoes that; a directory that an administrator made immutable himself has another mode.
pub fn unprotect(mount_point: &Path) -> io::Result<()> {
    let directory = match open_directory(mount_point) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        directory => directory?,
    };
    if Mode::from_raw_mode(fstat(&directory)?.st_mode).intersects(Mode::RWXU | Mode::RWXG | Mode::RWXO) {
        return Ok(());
    }
    if let Ok(flags) = ioctl_getflags(&directory)
        && flags.contains(IFlags::IMMUTABLE)
    {
        ioctl_setflags(&directory, flags - IFlags::IMMUTABLE)?;
    }
    Ok(fchmod(&directory, USUAL)?)
}

fn open_directory(mount_point: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(open(mount_point, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn an_empty_directory_is_protected_and_given_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap().join("a/b");
        create(&path).unwrap();
        let protection = protect(&path).unwrap();
        assert_ne!(protection, Protection::HoldsFiles);
        assert_eq!(mode(&path), 0);
        assert_eq!(fs::write(path.join("file"), "x").is_err(), protection == Protection::Whole, "{protection:?}");
        let _ = fs::remove_file(path.join("file"));
        assert_eq!(protect(&path).unwrap(), protection, "again");
        unprotect(&path).unwrap();
        assert_eq!(mode(&path), 0o755);
        fs::write(path.join("file"), "x").unwrap();
    }

    #[test]
    fn a_directory_with_files_is_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let before = mode(directory.path());
        fs::write(directory.path().join("file"), "x").unwrap();
        assert_eq!(protect(directory.path()).unwrap(), Protection::HoldsFiles);
        assert_eq!(mode(directory.path()), before);
        unprotect(directory.path()).unwrap();
        assert_eq!(mode(directory.path()), before);
        unprotect(&directory.path().join("gone")).unwrap();
    }
}
