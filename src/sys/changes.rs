//! Several files are changed, or none.
//!
//! Each change is on the disk before the next one begins. What was done is undone when one of them fails, or when the caller finds out
//! that the whole is no good. A crash in between leaves the first of them done, so they are to be in an order in which that does no harm.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::attributes;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};

use super::mountinfo;

/// One of them.
#[derive(Clone, Debug)]
pub enum Change {
    /// A new file, whole or not there; that there is one already is an error, unless it has the same text.
    Create {
        /// Which.
        path: PathBuf,
        /// What is in it.
        text: SecretString,
        /// Its permission bits.
        mode: u32,
    },
    /// Another text for a file, which keeps its owner, group, mode and extended attributes.
    Replace {
        /// Which.
        path: PathBuf,
        /// What must be in it; bytes, as an fstab need not be UTF-8.
        before: SecretSlice<u8>,
        /// What is to be in it.
        text: SecretSlice<u8>,
    },
    /// No file any more.
    Remove {
        /// Which.
        path: PathBuf,
        /// What must be in it.
        before: SecretString,
    },
    /// A new symbolic link; that there is one already is an error, unless it leads there.
    Link {
        /// Which.
        path: PathBuf,
        /// What is in it.
        target: PathBuf,
    },
    /// No link any more.
    Unlink {
        /// Which.
        path: PathBuf,
        /// What must be in it.
        target: PathBuf,
    },
    /// Another name.
    Rename {
        /// Which file.
        path: PathBuf,
        /// Its new name, in the same directory; nothing may be there.
        to: PathBuf,
    },
}

/// Why one could not be made; those before it are undone.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt}")]
pub struct ChangeError {
    attempt: String,
    #[source]
    source: io::Error,
    hint: Option<&'static str>,
    is_about_a_link: bool,
}

impl ChangeError {
    fn new(change: &Change, source: io::Error) -> Self {
        let is_about_a_link = matches!(change, Change::Replace { path, .. } if path.is_symlink());
        Self { attempt: change.attempt(), hint: hint(change, &source), source, is_about_a_link }
    }

    /// Whether a file was to be replaced, and is a link: what can be done by hand instead depends on what was to be in it.
    pub fn is_about_a_link(&self) -> bool {
        self.is_about_a_link
    }

    /// What to do about it, if that is known.
    pub fn hint(&self) -> Option<&'static str> {
        self.hint
    }
}

fn hint(change: &Change, source: &io::Error) -> Option<&'static str> {
    const TAKEN: &str = "it is of an earlier import, which `nasmount export-fstab` undoes, or somebody else's: move it away, and try again";
    const LINK: &str = "nasmount would put a file in the link's place: replace it by a file first";
    const IMMUTABLE_DIRECTORY: &str =
        "its directory has the immutable or append-only flag (`lsattr -d`): `chattr -ia` takes it away; then try again";
    const IMMUTABLE: &str =
        "it has the immutable or append-only flag (`lsattr`): `chattr -ia` takes it away; then try again";
    const MOUNT: &str =
        "a file that is mounted there cannot be replaced: `umount` it, or change it by hand where it is kept";
    const NAMES: &str = "the other names would keep the old text: `find / -xdev -samefile` with its path lists them; \
                         take them away, or make symbolic links of them, and try again";
    const READ_ONLY: &str = "its file system is read-only: mount it writable, and try again";
    match (change, source.kind()) {
        (Change::Replace { path, .. }, _) if path.is_symlink() => Some(LINK),
        (Change::Replace { .. }, io::ErrorKind::ResourceBusy) => Some(MOUNT),
        (Change::Replace { .. }, io::ErrorKind::TooManyLinks) => Some(NAMES),
        (_, io::ErrorKind::AlreadyExists) => Some(TAKEN),
        (_, io::ErrorKind::ReadOnlyFilesystem) => Some(READ_ONLY),
        (_, io::ErrorKind::PermissionDenied) if is_immutable(change.path()) => Some(IMMUTABLE),
        (_, io::ErrorKind::PermissionDenied) if is_in_immutable(change.path()) => Some(IMMUTABLE_DIRECTORY),
        _ => None,
    }
}

/// Whether all of them could be made, as far as that can be seen without making one.
pub fn are_possible(changes: &[Change]) -> Result<(), ChangeError> {
    let mounts = mountinfo::read().unwrap_or_default();
    for change in changes {
        let obstacle = match change {
            Change::Create { path, text, .. } => match has_text(path, text) {
                Ok(true) => continue, // nothing is to be made
                Ok(false) => Some(is_taken()),
                Err(_) if path.is_symlink() => Some(is_taken()),
                Err(_) => None, // there is none, or this user cannot see it
            },
            Change::Replace { path, .. } if path.is_symlink() => Some(is_link()),
            Change::Replace { path, .. } if has_other_names(path) => Some(other_names()),
            Change::Replace { path, .. } if !mountinfo::on(&mounts, path).is_empty() => {
                Some(io::ErrorKind::ResourceBusy.into())
            }
            Change::Replace { .. }
            | Change::Remove { .. }
            | Change::Link { .. }
            | Change::Unlink { .. }
            | Change::Rename { .. } => None,
        };
        if let Some(source) = obstacle.or_else(|| is_kept(change.path())) {
            return Err(ChangeError::new(change, source));
        }
    }
    Ok(())
}

/// What keeps everybody from changing a file, or from making it.
fn is_kept(path: &Path) -> Option<io::Error> {
    use rustix::fs::{StatVfsMountFlags, statvfs};
    let there = path.ancestors().skip(1).find_map(|directory| statvfs(directory).ok());
    if there.is_some_and(|there| there.f_flag.contains(StatVfsMountFlags::RDONLY)) {
        return Some(io::ErrorKind::ReadOnlyFilesystem.into());
    }
    (is_immutable(path) || is_in_immutable(path)).then(|| io::ErrorKind::PermissionDenied.into())
}

/// Whether the directory in which a name is to come or go, or else the nearest one that is there, keeps its names as they are.
fn is_in_immutable(path: &Path) -> bool {
    path.ancestors().skip(1).find(|directory| directory.is_dir()).is_some_and(is_immutable)
}

fn is_immutable(path: &Path) -> bool {
    let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    let flags = file.ok().and_then(|file| rustix::fs::ioctl_getflags(file).ok());
    flags.is_some_and(|flags| flags.intersects(rustix::fs::IFlags::IMMUTABLE | rustix::fs::IFlags::APPEND))
}

fn has_other_names(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.nlink() > 1)
}

fn other_names() -> io::Error {
    io::Error::new(io::ErrorKind::TooManyLinks, "it has other names (hard links)")
}

/// What the kernel says when it is made.
fn is_taken() -> io::Error {
    io::Error::from_raw_os_error(libc::EEXIST)
}

fn is_link() -> io::Error {
    io::Error::other("it is a link: something else keeps it")
}

/// Keeps others who ask for it, too, from changing what is in a directory, as long as it is held.
#[derive(Debug)]
pub struct Alone(#[expect(dead_code, reason = "it is held, not used")] fs::File);

/// `None` if somebody else holds it.
///
/// # Errors
///
/// The directory cannot be opened, or has no locks.
pub fn alone(directory: &Path) -> io::Result<Option<Alone>> {
    let file = fs::File::open(directory)?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(Alone(file))),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Changes that were made.
#[must_use]
#[derive(Debug)]
pub struct Done {
    undo: Vec<Change>,
    created: Vec<PathBuf>,
}

/// Makes all of them.
pub fn make(changes: &[Change]) -> Result<Done, ChangeError> {
    let mut done = Done { undo: Vec::new(), created: Vec::new() };
    for change in changes {
        if let Err(source) = done.make(change) {
            let error = ChangeError::new(change, source);
            // what cannot be undone now could not be undone later either: the first failure is the one to tell
            let _ = done.undo();
            return Err(error);
        }
    }
    Ok(done)
}

impl Change {
    /// Which file or link.
    pub fn path(&self) -> &Path {
        match self {
            Self::Create { path, .. }
            | Self::Replace { path, .. }
            | Self::Remove { path, .. }
            | Self::Link { path, .. }
            | Self::Unlink { path, .. }
            | Self::Rename { path, .. } => path,
        }
    }

    /// Is there still what it takes away? What is something else by now is not that.
    pub fn is_due(&self) -> bool {
        match self {
            Self::Remove { path, before } => has_text(path, before).unwrap_or(false),
            Self::Unlink { path, target } => fs::read_link(path).is_ok_and(|there| there == *target),
            Self::Create { .. } | Self::Replace { .. } | Self::Link { .. } | Self::Rename { .. } => true,
        }
    }

    fn attempt(&self) -> String {
        match self {
            Self::Create { path, .. } | Self::Replace { path, .. } => format!("write {}", path.display()),
            Self::Link { path, .. } => format!("make the link {}", path.display()),
            Self::Remove { path, .. } | Self::Unlink { path, .. } => format!("remove {}", path.display()),
            Self::Rename { path, to } => format!("rename {} to {}", path.display(), to.display()),
        }
    }
}

impl Done {
    fn make(&mut self, change: &Change) -> io::Result<()> {
        match change {
            Change::Create { path, text, mode } => {
                if has_text(path, text).unwrap_or(false) {
                    return Ok(());
                }
                self.create_directory(directory(path)?)?;
                create(path, text, *mode)?;
                self.created.push(path.clone());
                sync(directory(path)?)
            }
            Change::Replace { path, before, text } => {
                replace(path, before, text)?;
                self.undo.push(Change::Replace { path: path.clone(), before: text.clone(), text: before.clone() });
                Ok(())
            }
            Change::Remove { path, before } => {
                let mode = fs::metadata(path)?.mode() & 0o7777;
                if !has_text(path, before)? {
                    return Err(changed_meanwhile());
                }
                fs::remove_file(path)?;
                self.undo.push(Change::Create { path: path.clone(), text: before.clone(), mode });
                sync(directory(path)?)
            }
            Change::Link { path, target } => {
                if fs::read_link(path).is_ok_and(|there| there == *target) {
                    return Ok(());
                }
                self.create_directory(directory(path)?)?;
                std::os::unix::fs::symlink(target, path)?;
                self.created.push(path.clone());
                sync(directory(path)?)
            }
            Change::Unlink { path, target } => {
                if fs::read_link(path)? != *target {
                    return Err(changed_meanwhile());
                }
                fs::remove_file(path)?;
                self.undo.push(Change::Link { path: path.clone(), target: target.clone() });
                sync(directory(path)?)
            }
            Change::Rename { path, to } => {
                rustix::fs::renameat_with(
                    rustix::fs::CWD,
                    path,
                    rustix::fs::CWD,
                    to,
                    rustix::fs::RenameFlags::NOREPLACE,
                )?;
                self.undo.push(Change::Rename { path: to.clone(), to: path.clone() });
                sync(directory(path)?)
            }
        }
    }

    fn create_directory(&mut self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.create_directory(parent)?;
        }
        fs::DirBuilder::new().create(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?; // whatever the umask
        self.created.push(path.to_owned());
        Ok(())
    }

    /// Makes everything as it was, as far as nobody else has changed it since; the first failure, if there was one.
    pub fn undo(self) -> Result<(), ChangeError> {
        let mut again = Self { undo: Vec::new(), created: Vec::new() };
        let mut failed = Ok(());
        for change in self.undo.iter().rev() {
            let made = again.make(change);
            failed = failed.and(made.map_err(|source| ChangeError::new(change, source)));
        }
        for path in self.created.iter().rev() {
            let removed =
                if path.is_dir() && !path.is_symlink() { fs::remove_dir(path) } else { fs::remove_file(path) };
            let attempt = || format!("remove {}", path.display());
            failed = failed.and(removed.map_err(|source| ChangeError {
                attempt: attempt(),
                source,
                hint: None,
                is_about_a_link: false,
            }));
        }
        failed
    }
}

/// A file that is there belongs to whoever runs this, and nobody else can read it.
pub fn make_private(path: &Path) -> io::Result<()> {
    const OTHERS: u32 = 0o077;
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    if (metadata.uid(), metadata.gid()) != (user.as_raw(), group.as_raw()) {
        rustix::fs::fchown(&file, Some(user), Some(group))?;
    }
    if metadata.mode() & OTHERS != 0 {
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
    }
    file.sync_all()
}

fn directory(path: &Path) -> io::Result<&Path> {
    path.parent().ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

fn sync(directory: &Path) -> io::Result<()> {
    fs::File::open(directory)?.sync_all()
}

fn changed_meanwhile() -> io::Error {
    io::Error::other("somebody else has changed it in this moment: try again")
}

fn has_text(path: &Path, text: &SecretString) -> io::Result<bool> {
    has_bytes(path, text.expose_secret().as_bytes())
}

fn has_bytes(path: &Path, bytes: &[u8]) -> io::Result<bool> {
    Ok(**Zeroizing::new(fs::read(path)?) == *bytes)
}

/// A new file is whole as soon as it has its name; link(2), as not every file system can rename without replacing.
fn create(path: &Path, text: &SecretString, mode: u32) -> io::Result<()> {
    let beside = beside(path)?;
    write_new(&beside, text.expose_secret().as_bytes(), mode)?;
    let linked = fs::hard_link(&beside, path);
    let removed = fs::remove_file(&beside);
    linked.and(removed)
}

/// Name of the temporary file from which a file is made: none that systemd or the configuration reads.
fn beside(path: &Path) -> io::Result<PathBuf> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().ok_or(io::ErrorKind::InvalidInput)?);
    name.push(".nasmount");
    Ok(path.with_file_name(name))
}

/// A temporary file, in the place of one that was left behind by a crash.
fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    let written = file.write_all(bytes);
    let whole =
        written.and_then(|()| file.set_permissions(fs::Permissions::from_mode(mode))).and_then(|()| file.sync_all());
    if whole.is_err() {
        let _ = fs::remove_file(path);
    }
    whole
}

/// By a file beside it that takes its name: at any moment it is the old one or the new one. A link to it would be lost.
fn replace(path: &Path, before: &SecretSlice<u8>, text: &SecretSlice<u8>) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_file() {
        return Err(is_link());
    }
    if has_other_names(path) {
        return Err(other_names());
    }
    let beside = beside(path)?;
    write_new(&beside, text.expose_secret(), metadata.mode() & 0o7777)?;
    let replaced = like(path, &beside).and_then(|()| match has_bytes(path, before.expose_secret())? {
        true => fs::rename(&beside, path),
        false => Err(changed_meanwhile()),
    });
    if replaced.is_err() {
        let _ = fs::remove_file(&beside);
    }
    replaced.and_then(|()| sync(directory(path)?))
}

/// Gives a new file what another is besides its content: owner, group, mode, ACL, SELinux's label and all that.
fn like(path: &Path, new: &Path) -> io::Result<()> {
    let new = fs::File::open(new)?;
    let lost = attributes::keep(fs::File::open(path)?, &new)?;
    if lost.is_empty() { new.sync_all() } else { Err(io::Error::other(format!("it would lose {}", lost.join(", ")))) }
}

#[cfg(test)]
#[path = "changes_tests.rs"]
mod tests;
