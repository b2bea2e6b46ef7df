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
use secrecy::{ExposeSecret as _, SecretString};

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
        /// What must be in it.
        before: SecretString,
        /// What is to be in it.
        text: SecretString,
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
}

impl ChangeError {
    fn new(change: &Change, source: io::Error) -> Self {
        Self { attempt: change.attempt(), hint: hint(change, &source), source }
    }

    /// What to do about it, if that is known.
    pub fn hint(&self) -> Option<&'static str> {
        self.hint
    }
}

fn hint(change: &Change, source: &io::Error) -> Option<&'static str> {
    const TAKEN: &str = "it is of an earlier import, or somebody else's: move it away, and try again";
    const LINK: &str = "nasmount would put a file in its place: replace the link by a file first; or change it by hand where it is kept: \
                        `nasmount import-fstab` prints what belongs into conf.d, `nasmount export-fstab --dry-run` which lines come back";
    const IMMUTABLE: &str = "it has the immutable flag (`lsattr`): `chattr -i` takes it away; then try again";
    const MOUNT: &str =
        "a file that is mounted there cannot be replaced: `umount` it, or change it by hand where it is kept";
    const READ_ONLY: &str = "its file system is read-only: mount it writable, and try again";
    match (change, source.kind()) {
        (Change::Replace { path, .. }, _) if path.is_symlink() => Some(LINK),
        (Change::Replace { .. }, io::ErrorKind::ResourceBusy) => Some(MOUNT),
        (_, io::ErrorKind::AlreadyExists) => Some(TAKEN),
        (_, io::ErrorKind::ReadOnlyFilesystem) => Some(READ_ONLY),
        (_, io::ErrorKind::PermissionDenied) if is_immutable(change.path()) => Some(IMMUTABLE),
        _ => None,
    }
}

/// Whether all of them could be made, as far as that can be seen without making one.
pub fn are_possible(changes: &[Change]) -> Result<(), ChangeError> {
    let mounts = mountinfo::read().unwrap_or_default();
    for change in changes {
        let obstacle = match change {
            Change::Create { path, text, .. } => match has_text(path, text) {
                Ok(true) => None,
                Ok(false) => Some(io::ErrorKind::AlreadyExists.into()),
                Err(_) if path.is_symlink() => Some(io::ErrorKind::AlreadyExists.into()),
                Err(_) => None, // there is none, or this user cannot see it
            },
            Change::Replace { path, .. } if path.is_symlink() => Some(is_link()),
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
    is_immutable(path).then(|| io::ErrorKind::PermissionDenied.into())
}

fn is_immutable(path: &Path) -> bool {
    let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    let flags = file.ok().and_then(|file| rustix::fs::ioctl_getflags(file).ok());
    flags.is_some_and(|flags| flags.intersects(rustix::fs::IFlags::IMMUTABLE | rustix::fs::IFlags::APPEND))
}

fn is_link() -> io::Error {
    io::Error::other("it is a link: something else keeps it")
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
            failed = failed.and(removed.map_err(|source| ChangeError { attempt: attempt(), source, hint: None }));
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
    Ok(*Zeroizing::new(fs::read(path)?) == *text.expose_secret().as_bytes())
}

/// A new file is whole as soon as it has its name; link(2), as not every file system can rename without replacing.
fn create(path: &Path, text: &SecretString, mode: u32) -> io::Result<()> {
    let beside = beside(path)?;
    write_new(&beside, text, mode)?;
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
fn write_new(path: &Path, text: &SecretString, mode: u32) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    let written = file.write_all(text.expose_secret().as_bytes());
    let whole =
        written.and_then(|()| file.set_permissions(fs::Permissions::from_mode(mode))).and_then(|()| file.sync_all());
    if whole.is_err() {
        let _ = fs::remove_file(path);
    }
    whole
}

/// By a file beside it that takes its name: at any moment it is the old one or the new one. A link to it would be lost.
fn replace(path: &Path, before: &SecretString, text: &SecretString) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_file() {
        return Err(is_link());
    }
    let beside = beside(path)?;
    write_new(&beside, text, metadata.mode() & 0o7777)?;
    let replaced = like(path, &beside).and_then(|()| match has_text(path, before)? {
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
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn text(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    fn listed(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn create(path: PathBuf, text: &str) -> Change {
        Change::Create { path, text: text.into(), mode: 0o600 }
    }

    #[test]
    fn all_are_made_and_undone() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        fs::write(root.join("fstab"), "old").unwrap();
        fs::set_permissions(root.join("fstab"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::write(root.join("a"), "a").unwrap();
        fs::write(root.join("c"), "c").unwrap();
        std::os::unix::fs::symlink("../c", root.join("d")).unwrap();
        let done = make(&[
            Change::Unlink { path: root.join("d"), target: "../c".into() },
            Change::Link { path: root.join("new/e"), target: "/nowhere".into() },
            create(root.join("new/conf.d/x"), "x"),
            Change::Rename { path: root.join("a"), to: root.join("b") },
            Change::Remove { path: root.join("c"), before: "c".into() },
            Change::Replace { path: root.join("fstab"), before: "old".into(), text: "new".into() },
        ])
        .unwrap();
        assert_eq!((text(&root.join("fstab")), mode(&root.join("fstab"))), ("new".into(), 0o640));
        assert_eq!((text(&root.join("new/conf.d/x")), mode(&root.join("new/conf.d/x"))), ("x".into(), 0o600));
        assert_eq!(mode(&root.join("new/conf.d")), 0o755);
        assert_eq!(listed(root), ["b", "fstab", "new"]);
        assert_eq!(fs::read_link(root.join("new/e")).unwrap(), Path::new("/nowhere"));
        done.undo().unwrap();
        assert_eq!((text(&root.join("fstab")), mode(&root.join("fstab"))), ("old".into(), 0o640));
        assert_eq!(listed(root), ["a", "c", "d", "fstab"]);
        assert_eq!(fs::read_link(root.join("d")).unwrap(), Path::new("../c"));
        assert_eq!(text(&root.join("c")), "c");
    }

    #[test]
    fn what_is_replaced_keeps_what_it_is_besides_its_text() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("fstab");
        fs::write(&path, "old").unwrap();
        let file = fs::File::open(&path).unwrap();
        let set = rustix::fs::fsetxattr(&file, "user.origin", b"me", rustix::fs::XattrFlags::empty());
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(1), Some(4711)).unwrap();
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
        let is = |path: &Path| {
            let metadata = fs::metadata(path).unwrap();
            (metadata.uid(), metadata.gid(), metadata.mode())
        };
        let before = is(&path);
        let done = make(&[Change::Replace { path: path.clone(), before: "old".into(), text: "new".into() }]).unwrap();
        let attribute = |path: &Path| {
            let mut value = [0; 2];
            rustix::fs::getxattr(path, "user.origin", &mut value[..]).map(|_| value)
        };
        assert_eq!((text(&path), is(&path)), ("new".into(), before));
        assert_eq!(attribute(&path).is_ok_and(|value| value == *b"me"), set.is_ok());
        done.undo().unwrap();
        assert_eq!((text(&path), is(&path)), ("old".into(), before));
        assert_eq!(attribute(&path).is_ok_and(|value| value == *b"me"), set.is_ok());
    }

    #[test]
    fn nothing_is_left_of_what_fails() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        for name in ["fstab", "taken", "there"] {
            fs::write(root.join(name), "other").unwrap();
        }
        std::os::unix::fs::symlink("fstab", root.join("link")).unwrap();
        let replace = |name: &str, before: &str| Change::Replace {
            path: root.join(name),
            before: before.into(),
            text: "new".into(),
        };
        for (change, why) in [
            (replace("fstab", "old"), "changed it in this moment"),
            (replace("link", "other"), "it is a link"),
            (replace("none", "old"), "No such file"),
            (create(root.join("there"), "mine"), "File exists"),
            (Change::Rename { path: root.join("fstab"), to: root.join("taken") }, "File exists"),
            (Change::Remove { path: root.join("fstab"), before: "old".into() }, "changed it in this moment"),
            (Change::Unlink { path: root.join("link"), target: "taken".into() }, "changed it in this moment"),
            (Change::Link { path: root.join("link"), target: "taken".into() }, "File exists"),
        ] {
            let error = make(&[create(root.join("first/x"), "x"), change]).unwrap_err();
            assert!(error.source.to_string().contains(why), "{error}: {}", error.source);
            assert_eq!(listed(root), ["fstab", "link", "taken", "there"]);
            assert_eq!(text(&root.join("fstab")), "other");
        }
    }

    #[test]
    fn what_a_killed_run_left_behind_is_replaced_and_a_new_file_is_never_a_part_of_itself() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        fs::write(root.join(".x.cred.nasmount"), "").unwrap();
        fs::write(root.join(".fstab.nasmount"), "half").unwrap();
        fs::write(root.join("fstab"), "old").unwrap();
        let fstab = Change::Replace { path: root.join("fstab"), before: "old".into(), text: "new".into() };
        let _ = make(&[create(root.join("x.cred"), "whole"), fstab]).unwrap();
        assert_eq!(listed(root), ["fstab", "x.cred"]);
        assert_eq!((text(&root.join("x.cred")), mode(&root.join("x.cred"))), ("whole".into(), 0o600));
        assert_eq!(fs::metadata(root.join("x.cred")).unwrap().nlink(), 1);
        // a name that is written to would go through the link; one that is given to a whole file does not
        std::os::unix::fs::symlink(root.join("nowhere"), root.join("dangling")).unwrap();
        let dangling = [create(root.join("dangling"), "x")];
        for refused in [are_possible(&dangling).unwrap_err(), make(&dangling).unwrap_err()] {
            assert_eq!(refused.source.kind(), io::ErrorKind::AlreadyExists);
            assert!(refused.hint().is_some_and(|hint| hint.contains("move it away")));
        }
        assert_eq!(listed(root), ["dangling", "fstab", "x.cred"], "no temporary is left by what fails");
    }

    #[test]
    fn what_could_not_be_made_is_seen_before_anything_is() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        fs::write(root.join("fstab"), "old").unwrap();
        std::os::unix::fs::symlink("fstab", root.join("link")).unwrap();
        let replace = |path: PathBuf| Change::Replace { path, before: "old".into(), text: "new".into() };
        assert!(are_possible(&[create(root.join("new"), "x"), create(root.join("fstab"), "old")]).is_ok());
        for (change, why, hint) in [
            (replace(root.join("link")), "it is a link", "replace the link by a file"),
            (create(root.join("fstab"), "x"), "entity already exists", "move it away"),
            (replace("/proc".into()), "resource busy", "`umount` it"), // what is mounted there is no file, but mounted
        ] {
            let refused = are_possible(&[change]).unwrap_err();
            assert!(refused.source.to_string().contains(why), "{}", refused.source);
            assert!(refused.hint().is_some_and(|it| it.contains(hint)), "{:?}", refused.hint());
        }
        assert_eq!(listed(root), ["fstab", "link"]);
    }

    #[test]
    fn a_file_becomes_private_and_a_link_does_not() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("tower.cred");
        fs::write(&path, "username=bob\n").unwrap();
        for (before, after) in [(0o644, 0o600), (0o777, 0o600), (0o600, 0o600), (0o400, 0o400)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(before)).unwrap();
            make_private(&path).unwrap();
            assert_eq!(mode(&path), after, "{before:o}");
        }
        let link = root.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(make_private(&link).is_err());
    }

    #[test]
    fn what_is_there_already_is_created_and_not_undone() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("tower.cred");
        fs::write(&path, "username=bob\n").unwrap();
        make(&[create(path.clone(), "username=bob\n")]).unwrap().undo().unwrap();
        assert_eq!(text(&path), "username=bob\n");
    }
}
