//! The bare directory under a mount point, reached without touching what is mounted on it.
//!
//! A copy of the mount on which the mount point lies, without the mounts below it (`OPEN_TREE_CLONE`, not recursive), has the bare
//! directory in the share's place. The copy is on no path, and is gone with its descriptor.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, openat, openat2, statat};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::{Answer, Attempt as _, Failed, Reply, Stage};
use crate::plan::beside::Found;
use crate::sys::config_dir::is_from_elsewhere;
use crate::sys::mountinfo::{self, Entry};

/// Most entries that are counted.
const ENTRIES_MAX: u64 = 100_000;
/// Deepest directory that is looked into; each on the way is an open file.
pub(super) const DEPTH_MAX: usize = 200;
/// How many are named.
const NAMES_MAX: usize = 5;

/// A copy of the mount on which something lies.
pub(super) struct Tree {
    /// Its root.
    root: OwnedFd,
    /// The mount that it is a copy of.
    pub(super) of: Entry,
}

impl Tree {
    /// Of the mount on which a path lies, if nothing were mounted on the path itself. Refused where the way leads over what may not
    /// answer.
    pub(super) fn under(path: &Path, mounts: &[Entry]) -> Result<Self, Failed> {
        let what = || format!("cannot look under {}", path.display());
        let mut way = mountinfo::way_to(mounts, path);
        way.retain(|entry| entry.mount_point != path);
        if let Some(entry) = way.iter().find(|entry| is_from_elsewhere(&entry.fstype)) {
            let cause = format!("the way leads over {}, a mount of type {}", entry.mount_point.display(), entry.fstype);
            return Err(Failed { attempt: what(), cause, errno: None, stage: Stage::Other });
        }
        let of = way.pop().ok_or(Errno::NOENT).attempt(what)?;
        // something may have been mounted since the mounts were read: O_PATH asks no file system, and says which mount this is
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let place = openat(CWD, &of.mount_point, flags, Mode::empty()).attempt(what)?;
        if crate::sys::host_facts::mount_of(&place) != Some(of.id) {
            return Err(Errno::AGAIN).attempt(what);
        }
        let alone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        let root = open_tree(&place, "", alone).attempt(what)?;
        Ok(Self { root, of: of.clone() })
    }

    /// A directory in it; `None` if there is none. A path of the host's.
    pub(super) fn open(&self, path: &Path) -> Result<Option<OwnedFd>, Failed> {
        let below = path.strip_prefix(&self.of.mount_point).unwrap_or(path);
        let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match openat2(&self.root, below, flags, Mode::empty(), resolve) {
            Ok(directory) => Ok(Some(directory)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(error).attempt(|| format!("cannot open what lies under {}", path.display())),
        }
    }
}

/// What lies under a mount point.
pub(super) fn list(mount_point: &Path) -> Reply {
    let mounts = mountinfo::read().attempt(|| "cannot read the mounts".into())?;
    let mut found = Found::default();
    if let Some(directory) = Tree::under(mount_point, &mounts)?.open(mount_point)? {
        count(&directory, &mut PathBuf::new(), 0, &mut found)
            .attempt(|| format!("cannot read what lies under {}", mount_point.display()))?;
    }
    Ok(Answer::Beside(found))
}

/// Its names, in order.
pub(super) fn names(directory: &OwnedFd) -> io::Result<Vec<CString>> {
    let entries = Dir::read_from(directory)?.map(|entry| Ok(entry?.file_name().to_owned()));
    let mut names = entries.collect::<Result<Vec<CString>, Errno>>()?;
    names.retain(|name| ![c".", c".."].contains(&name.as_c_str()));
    names.sort();
    Ok(names)
}

/// A name as part of a path.
pub(super) fn as_path(name: &CStr) -> &Path {
    Path::new(OsStr::from_bytes(name.to_bytes()))
}

/// A directory in another; never through a link.
pub(super) fn open_directory(at: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    openat(at, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// A directory below that cannot be read counts as one.
pub(super) fn count(directory: &OwnedFd, at: &mut PathBuf, depth: usize, found: &mut Found) -> io::Result<()> {
    for name in names(directory)? {
        if found.files + found.directories >= ENTRIES_MAX {
            found.more = true;
            return Ok(());
        }
        let Ok(stat) = statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        at.push(as_path(&name));
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            found.directories += 1;
            match open_directory(directory, &name) {
                Ok(below) if depth < DEPTH_MAX => drop(count(&below, at, depth + 1, found)),
                Ok(_) => found.more = true,
                Err(_) => {}
            }
        } else {
            count_file(&stat, found);
            if found.names.len() < NAMES_MAX {
                found.names.push(at.to_string_lossy().into_owned());
            }
        }
        at.pop();
    }
    Ok(())
}

fn count_file(stat: &Stat, found: &mut Found) {
    found.files += 1;
    found.bytes += u64::try_from(stat.st_size).unwrap_or(0);
    found.newest = found.newest.max(Some(stat.st_mtime));
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::fs;
    use std::os::unix::fs::symlink;

    use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

    use super::*;

    #[test]
    fn what_lies_there_is_counted_and_the_first_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        fs::create_dir_all(path.join("b/c")).unwrap();
        for (name, length) in [("z", 3), ("b/c/film", 5000), ("b/x", 0)] {
            fs::write(path.join(name), vec![1; length]).unwrap();
        }
        symlink("/etc", path.join("b/etc")).unwrap();
        let mut found = Found::default();
        count(&fs::File::open(path).unwrap().into(), &mut PathBuf::new(), 0, &mut found).unwrap();
        assert_eq!((found.files, found.directories, found.bytes, found.more), (4, 2, 5007, false));
        assert_eq!(found.names, ["b/c/film", "b/etc", "b/x", "z"]);
        assert!(found.newest.is_some() && !found.is_empty());
    }

    /// The real thing, in a mount namespace that ends with this thread; only root may make one.
    #[test]
    fn the_bare_directory_is_reached_under_what_is_mounted_on_it() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap().join("media");
        fs::create_dir_all(path.join("old")).unwrap();
        fs::write(path.join("old/film"), "beside").unwrap();
        let (found, empty) = std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            let private = rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
            rustix::mount::mount_change("/", private).unwrap();
            mount("share", &path, "tmpfs", MountFlags::empty(), None).unwrap();
            fs::write(path.join("on the share"), "").unwrap();
            // of this thread's namespace, not of the process's
            let mounts = mountinfo::parse(&fs::read("/proc/thread-self/mountinfo").unwrap());
            let tree = Tree::under(&path, &mounts).unwrap();
            let mut found = Found::default();
            count(&tree.open(&path).unwrap().unwrap(), &mut PathBuf::new(), 0, &mut found).unwrap();
            let nowhere = tree.open(&path.with_file_name("nowhere")).unwrap();
            unmount(&path, UnmountFlags::empty()).unwrap();
            (found, nowhere.is_none())
        })
        .join()
        .unwrap();
        assert_eq!((found.files, found.names), (1, vec!["old/film".to_owned()]));
        assert!(empty);
    }

    #[test]
    fn nothing_is_looked_at_over_a_network() {
        let text = b"22 1 8:1 / / rw - ext4 root rw\n30 22 0:9 / /srv rw - nfs4 h:/x rw\n31 30 0:8 / /srv/m rw - cifs //h/m rw\n";
        let failed = Tree::under(Path::new("/srv/m"), &mountinfo::parse(text)).err().unwrap();
        assert!(failed.cause.contains("/srv, a mount of type nfs4"), "{failed}");
    }
}
