//! Moving what lies beside a share: aside, or onto the share. Nothing is overwritten, and what is copied is not deleted before the copy was
//! read back from where it went and is the same. It can be ended at any time, and run again.
//!
//! A copy is made under a name of nasmount's own, written back, read back, and linked to its name: the server refuses that when the
//! name is taken (`ReplaceIfExists = 0`), whoever took it. Where there are no hard links it is renamed, which the kernel refuses when
//! it sees that the name is taken.

mod content;

use std::ffi::{CStr, CString};
use std::fs;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, FlockOperation, IFlags, Mode, OFlags, RenameFlags, Stat, flock, fstat, fsync,
    ioctl_getflags, ioctl_setflags, linkat, mkdirat, openat, readlinkat, renameat_with, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::beside::{DEPTH_MAX, Tree, as_path, count, names, open_directory};
use super::{Answer, Attempt as _, Destination, Failed, Reply, RescueRequest, Stage, clone};
use crate::plan::beside::{Doing, Found, Left, Said, unfit};
use crate::sys::config_dir::is_from_elsewhere;
use crate::sys::mountinfo::{self, Entry};
use crate::sys::{attributes, autofs, mount_point};

pub(super) fn run(request: &RescueRequest) -> Reply {
    let mounts = mountinfo::read().attempt(|| "cannot read the mounts".into())?;
    let tree = Tree::under(&request.mount_point, &mounts)?;
    let Some(bare) = tree.open(&request.mount_point)? else { return Ok(Answer::Done) };
    let what = || format!("cannot rescue what lies under {}", request.mount_point.display());
    flock(&bare, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
        Errno::WOULDBLOCK => said(what(), "another `nasmount rescue` is at work there", Some(error)),
        error => said(what(), &io::Error::from(error).to_string(), Some(error)),
    })?;
    let (to, way) = match &request.to {
        Destination::Share => (Some(clone::inside(&request.share, || clone::open_root(&request.share))?), Way::Merge),
        Destination::Aside(directory) => aside(directory, request, &tree, &mounts)?,
    };
    if let Some(to) = &to {
        refuse_inside(&bare, to).attempt(what)?;
    }
    let mut say = |said| {
        let bytes = serde_json::to_vec(&Reply::Ok(Answer::Rescued(said))).map_err(io::Error::other);
        let written = bytes.and_then(|bytes| io::stdout().write_all(&bytes)).and_then(|()| io::stdout().flush());
        written.attempt(|| "cannot say what was moved".into())
    };
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let mut mover = Mover { way, doing: request.doing, temporary: temporary(&host), at: PathBuf::new(), say: &mut say };
    let unlocked = (request.doing == Doing::Move).then(|| Unlocked::new(&bare)).transpose().attempt(what)?;
    let moved = mover.directory(&bare, to.as_ref(), 0);
    drop(unlocked);
    if request.doing == Doing::Move && autofs::laid(&mounts).iter().any(|(_, on)| *on == request.mount_point) {
        // as the barrier does with one that is empty
        let _ = mount_point::protect_open(&bare);
    }
    moved.map(|()| Answer::Done)
}

fn said(attempt: String, cause: &str, errno: Option<Errno>) -> Failed {
    Failed { attempt, cause: cause.to_owned(), errno: errno.map(Errno::raw_os_error), stage: Stage::Other }
}

/// A name that no other host uses on the same share.
fn temporary(host: &str) -> CString {
    let host: String = host.trim().chars().filter(|letter| letter.is_ascii_alphanumeric() || *letter == '-').collect();
    CString::new(format!(".nasmount-rescue-{host}.part")).unwrap_or_default()
}

/// The directory of the share's name in `directory`, which has to be on this host, and how things get there.
fn aside(
    directory: &Path,
    request: &RescueRequest,
    tree: &Tree,
    mounts: &[Entry],
) -> Result<(Option<OwnedFd>, Way), Failed> {
    let what = || format!("cannot move anything into {}", directory.display());
    let real = fs::canonicalize(directory).attempt(what)?;
    let way = mountinfo::way_to(mounts, &real);
    if real.starts_with(&request.mount_point) {
        return Err(said(what(), "it lies in the share itself, by another path", None));
    }
    if way.iter().any(|entry| is_from_elsewhere(&entry.fstype)) {
        return Err(said(what(), "it is not a directory of this host's own", None));
    }
    // two mounts of one file system do not rename from one to the other, so the same copy of the mount serves for both
    let shared = if way.last().is_some_and(|entry| entry.id == tree.of.id) { tree.open(&real)? } else { None };
    let (parent, way) = match shared {
        Some(parent) => (parent, Way::Rename),
        None => (
            openat(CWD, &real, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).attempt(what)?,
            Way::Copy,
        ),
    };
    let share = CString::new(request.share.as_str()).map_err(io::Error::other).attempt(what)?;
    if request.doing == Doing::Move {
        match mkdirat(&parent, &share, Mode::RWXU) {
            Err(error) if error != Errno::EXIST => return Err(error).attempt(what),
            _ => {}
        }
    }
    match open_directory(&parent, &share) {
        Ok(to) => Ok((Some(to), way)),
        Err(Errno::NOENT) if request.doing == Doing::Look => Ok((None, way)),
        Err(error) if is_link(&parent, &share) => {
            let cause = format!("{} in it is a symbolic link, which is not followed", request.share);
            Err(said(what(), &cause, Some(error)))
        }
        Err(error) => Err(error).attempt(what),
    }
}

fn is_link(parent: &OwnedFd, name: &CStr) -> bool {
    let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
    stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}

/// What goes into the directory that it comes from, by whatever other path, would be compared with itself and deleted.
fn refuse_inside(bare: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    let id = |directory: &OwnedFd| fstat(directory).map(|stat| (stat.st_dev, stat.st_ino));
    let bare = id(bare)?;
    let mut above = to.try_clone()?;
    for _ in 0..=DEPTH_MAX {
        let here = id(&above)?;
        if here == bare {
            return Err(io::Error::other(
                "the directory to move to is that which lies under the share, by another path",
            ));
        }
        above = openat(&above, "..", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        if id(&above)? == here {
            return Ok(()); // the root
        }
    }
    Err(io::Error::other("the directory to move to lies too deep"))
}

/// A directory from which names can be taken, until this is dropped.
struct Unlocked<'fd> {
    directory: &'fd OwnedFd,
    flags: Option<IFlags>,
}

impl<'fd> Unlocked<'fd> {
    fn new(directory: &'fd OwnedFd) -> io::Result<Self> {
        let locked = |flags: &IFlags| flags.intersects(IFlags::IMMUTABLE | IFlags::APPEND);
        let flags = ioctl_getflags(directory).ok().filter(locked);
        if let Some(flags) = flags {
            ioctl_setflags(directory, flags - IFlags::IMMUTABLE - IFlags::APPEND)?;
        }
        Ok(Self { directory, flags })
    }
}

impl Drop for Unlocked<'_> {
    fn drop(&mut self) {
        if let Some(flags) = self.flags {
            let _ = ioctl_setflags(self.directory, flags);
        }
    }
}

/// How files get where they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// By another name on the same file system.
    Rename,
    /// Copied with owner, mode and all other attributes.
    Copy,
    /// Copied onto a share, which has its own.
    Merge,
}

/// Why something was not moved.
enum Trouble {
    /// The others can be.
    Leave(String),
    /// Nothing can be.
    Stop(Failed),
}

impl From<Failed> for Trouble {
    fn from(failed: Failed) -> Self {
        Self::Stop(failed)
    }
}

struct Mover<'a> {
    way: Way,
    doing: Doing,
    /// What a copy is called until it is whole.
    temporary: CString,
    /// Where it is, below the mount point.
    at: PathBuf,
    say: &'a mut dyn FnMut(Said) -> Result<(), Failed>,
}

impl Mover<'_> {
    /// All that is in a directory; `to` is where it goes, if that is there already.
    fn directory(&mut self, from: &OwnedFd, to: Option<&OwnedFd>, depth: usize) -> Result<(), Failed> {
        let names = match names(from) {
            Ok(names) => names,
            // the others can be moved
            Err(error) if depth > 0 => {
                let path = self.at.to_string_lossy().into_owned();
                return (self.say)(Said::Left(Left { path, why: format!("it cannot be read: {error}") }));
            }
            Err(error) => return Err(error).attempt(|| "cannot read what lies under the share".into()),
        };
        for name in names {
            self.at.push(as_path(&name));
            let moved = self.entry(from, to, &name, depth);
            let path = self.at.to_string_lossy().into_owned();
            self.at.pop();
            match moved {
                Ok(None) => {}
                Ok(Some(said)) => (self.say)(said)?,
                Err(Trouble::Leave(why)) => (self.say)(Said::Left(Left { path, why }))?,
                Err(Trouble::Stop(failed)) => return Err(failed),
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        from: &OwnedFd,
        to: Option<&OwnedFd>,
        name: &CStr,
        depth: usize,
    ) -> Result<Option<Said>, Trouble> {
        if name == self.temporary.as_c_str() {
            return Err(Trouble::Leave("nasmount uses that name itself".to_owned()));
        }
        let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|error| self.because(name, error))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if self.way == Way::Rename
            && let Some(said) = self.rename(from, to, name, &stat)?
        {
            return Ok(Some(said));
        }
        match kind {
            FileType::Directory => self.subdirectory(from, to, name, depth),
            FileType::RegularFile => self.file(from, to, name).map(Some),
            FileType::Symlink => self.link(from, to, name).map(Some),
            FileType::Fifo => Err(special("pipe")),
            FileType::Socket => Err(special("socket")),
            FileType::CharacterDevice | FileType::BlockDevice => Err(special("device")),
            FileType::Unknown => Err(special("special file")),
        }
    }

    /// `None` if it has to be done piece by piece.
    fn rename(&self, from: &OwnedFd, to: Option<&OwnedFd>, name: &CStr, stat: &Stat) -> Result<Option<Said>, Trouble> {
        let mut found = Found { files: 1, bytes: u64::try_from(stat.st_size).unwrap_or(0), ..Found::default() };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            found = Found::default();
            let below = open_directory(from, name).map_err(|error| self.because(name, error))?;
            let _ = count(&below, &mut PathBuf::new(), 0, &mut found);
        }
        let renamed = match (self.doing, to) {
            (Doing::Look, None) => Ok(()),
            (Doing::Look, Some(to)) => match statat(to, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => Ok(()),
                there => there.and(Err(Errno::EXIST)),
            },
            (Doing::Move, None) => Err(Errno::NOENT),
            (Doing::Move, Some(to)) => renameat_with(from, name, to, name, RenameFlags::NOREPLACE),
        };
        match renamed {
            Ok(()) => Ok(Some(Said::Moved { files: found.files, bytes: found.bytes })),
            // part of it is there already; another project's or volume's
            Err(Errno::EXIST | Errno::NOTEMPTY | Errno::XDEV) => Ok(None),
            Err(error) => Err(self.because(name, error)),
        }
    }

    fn subdirectory(
        &mut self,
        from: &OwnedFd,
        to: Option<&OwnedFd>,
        name: &CStr,
        depth: usize,
    ) -> Result<Option<Said>, Trouble> {
        if depth == DEPTH_MAX {
            return Err(Trouble::Leave(format!("it lies more than {DEPTH_MAX} directories deep")));
        }
        let below = open_directory(from, name).map_err(|error| self.because(name, error))?;
        let mut is_new = false;
        let target = match to {
            None => None,
            Some(to) => {
                if self.doing == Doing::Move {
                    match mkdirat(
                        to,
                        name,
                        if self.way == Way::Merge { Mode::from_raw_mode(0o755) } else { Mode::RWXU },
                    ) {
                        Ok(()) => is_new = true,
                        Err(Errno::EXIST) => {}
                        Err(error) => return Err(self.because(name, error)),
                    }
                }
                match open_directory(to, name) {
                    Ok(target) => Some(target),
                    Err(Errno::NOENT) if self.doing == Doing::Look => None,
                    Err(Errno::NOTDIR | Errno::LOOP) => return Err(taken()),
                    Err(error) => return Err(self.because(name, error)),
                }
            }
        };
        if let (false, Some(target)) = (is_new, &target) {
            self.say_different(&below, target)?;
        }
        self.directory(&below, target.as_ref(), depth + 1)?;
        if self.doing == Doing::Look {
            return Ok(None);
        }
        if let (true, Way::Rename | Way::Copy, Some(target)) = (is_new, self.way, &target) {
            let lost = attributes::keep(&below, target).map_err(|error| self.unkept(name, &error))?;
            let _ = attributes::keep_times(&below, target);
            self.say_lost(&lost)?;
        }
        match unlinkat(from, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOTEMPTY) => Ok(None), // what is left in it was said
            Err(error) => Err(self.because(name, error)),
        }
    }

    fn file(&mut self, from: &OwnedFd, to: Option<&OwnedFd>, name: &CStr) -> Result<Said, Trouble> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let open = |at: &OwnedFd| openat(at, name, flags, Mode::empty());
        let source = open(from).map_err(|error| self.because(name, error))?;
        let before = fstat(&source).map_err(|error| self.because(name, error))?;
        let bytes = u64::try_from(before.st_size).unwrap_or(0);
        still(&source, None)?;
        let there = to.map(|to| statat(to, name, AtFlags::SYMLINK_NOFOLLOW));
        let said = match (there, to) {
            (Some(Ok(there)), Some(to)) => {
                let is_file = FileType::from_raw_mode(there.st_mode) == FileType::RegularFile;
                if !is_file || there.st_size != before.st_size {
                    return Err(taken());
                }
                let target = open(to).map_err(|error| self.because(name, error))?;
                if !self.same(&source, &target, name)? {
                    return Err(taken());
                }
                self.say_different(&source, &target)?;
                Said::Same
            }
            (Some(Err(error)), _) if error != Errno::NOENT => return Err(self.because(name, error)),
            (Some(Err(_)), Some(to)) if self.doing == Doing::Move => {
                let lost = self.copy(&source, &before, to, name)?;
                self.say_lost(&lost)?;
                Said::Moved { files: 1, bytes }
            }
            _ => Said::Moved { files: 1, bytes },
        };
        if said != Said::Same && before.st_nlink > 1 {
            self.say_without("it has other names (hard links), and is a file of its own there".to_owned())?;
        }
        if self.doing == Doing::Move {
            still(&source, Some(&before))?;
            self.remove(from, name, &before)?;
        }
        Ok(said)
    }

    /// Leaves nothing behind when it fails, as long as the share answers.
    fn copy(&mut self, source: &OwnedFd, before: &Stat, to: &OwnedFd, name: &CStr) -> Result<Vec<String>, Trouble> {
        let temporary = self.temporary.clone();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create = || openat(to, &temporary, flags, Mode::RUSR | Mode::WUSR);
        let created = match create() {
            // of a run that was ended
            Err(Errno::EXIST) => unlinkat(to, &temporary, AtFlags::empty()).and_then(|()| create()),
            created => created,
        };
        let copy = created.map_err(|error| self.because(name, error))?;
        let length = u64::try_from(before.st_size).unwrap_or(0);
        let filled = self.fill(source, &copy, length, name);
        let filled = filled.and_then(|lost| still(source, Some(before)).map(|()| lost));
        let placed = filled.and_then(|lost| self.place(to, name).map(|()| lost));
        drop(copy);
        match unlinkat(to, &temporary, AtFlags::empty()) {
            Err(error) if error != Errno::NOENT && placed.is_ok() => Err(self.because(name, error)),
            _ => placed,
        }
    }

    /// Gives a copy its name, if nothing else has it.
    fn place(&self, to: &OwnedFd, name: &CStr) -> Result<(), Trouble> {
        let placed = match linkat(to, &self.temporary, to, name, AtFlags::empty()) {
            Err(error) if error != Errno::EXIST => renameat_with(to, &self.temporary, to, name, RenameFlags::NOREPLACE),
            linked => linked,
        };
        match placed {
            Ok(()) => {
                let _ = fsync(to); // CIFS has none for directories
                Ok(())
            }
            Err(Errno::EXIST) => Err(taken()),
            Err(error) => Err(self.because(name, error)),
        }
    }

    fn link(&self, from: &OwnedFd, to: Option<&OwnedFd>, name: &CStr) -> Result<Said, Trouble> {
        let target = readlinkat(from, name, Vec::new()).map_err(|error| self.because(name, error))?;
        let moved = Said::Moved { files: 1, bytes: target.count_bytes() as u64 };
        let Some(to) = to else { return Ok(moved) };
        let said = match readlinkat(to, name, Vec::new()) {
            Ok(there) if there == target => Said::Same,
            Ok(_) | Err(Errno::INVAL) => return Err(taken()),
            Err(Errno::NOENT) if self.doing == Doing::Look => return Ok(moved),
            Err(Errno::NOENT) => {
                let made = symlinkat(&target, to, name).and_then(|()| readlinkat(to, name, Vec::new()));
                match made {
                    Ok(made) if made == target => moved,
                    Ok(_) => return Err(Trouble::Leave("the symbolic link that was made leads elsewhere".to_owned())),
                    Err(error) => {
                        let why =
                            "it is a symbolic link, which was not taken there (a share needs the option mfsymlinks): ";
                        return Err(match self.because(name, error) {
                            Trouble::Leave(cause) => Trouble::Leave(format!("{why}{cause}")),
                            stop @ Trouble::Stop(_) => stop,
                        });
                    }
                }
            }
            Err(error) => return Err(self.because(name, error)),
        };
        if self.doing == Doing::Move {
            unlinkat(from, name, AtFlags::empty()).map_err(|error| self.because(name, error))?;
        }
        Ok(said)
    }

    /// If it still is what was copied.
    fn remove(&self, from: &OwnedFd, name: &CStr, copied: &Stat) -> Result<(), Trouble> {
        let now = statat(from, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|error| self.because(name, error))?;
        if now.st_ino != copied.st_ino {
            return Err(changed());
        }
        unlinkat(from, name, AtFlags::empty()).map_err(|error| self.because(name, error))
    }

    /// It is moved, but for these extended attributes.
    fn say_lost(&mut self, lost: &[String]) -> Result<(), Failed> {
        if lost.is_empty() { Ok(()) } else { self.say_without(format!("{} not taken there", lost.join(", "))) }
    }

    /// What was there already stays as it is; on a share, whose owners and modes are its own, that is said once of all.
    fn say_different(&mut self, from: &OwnedFd, there: &OwnedFd) -> Result<(), Failed> {
        match attributes::difference(from, there) {
            Ok(Some(different)) if self.way != Way::Merge => {
                self.say_without(format!("it was there already, and keeps owner, group and mode: {different}"))
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn say_without(&mut self, why: String) -> Result<(), Failed> {
        let path = self.at.to_string_lossy().into_owned();
        (self.say)(Said::Without(Left { path, why }))
    }

    fn unkept(&self, name: &CStr, error: &io::Error) -> Trouble {
        match Errno::from_io_error(error) {
            Some(errno) => self.because(name, errno),
            None => Trouble::Leave(error.to_string()),
        }
    }

    /// What an error means for what is at hand, and for all the rest.
    fn because(&self, name: &CStr, error: Errno) -> Trouble {
        const OF_ALL: [Errno; 14] = [
            Errno::NOSPC,
            Errno::DQUOT,
            Errno::ROFS,
            Errno::IO,
            Errno::HOSTDOWN,
            Errno::HOSTUNREACH,
            Errno::TIMEDOUT,
            Errno::NOTCONN,
            Errno::CONNRESET,
            Errno::CONNABORTED,
            Errno::SHUTDOWN,
            Errno::STALE,
            Errno::NODEV,
            Errno::INTR,
        ];
        let cause = io::Error::from(error).to_string();
        if OF_ALL.contains(&error) {
            return Trouble::Stop(said(format!("cannot go on at {}", self.at.display()), &cause, Some(error)));
        }
        let unfit = if self.way == Way::Merge { unfit(name.to_bytes()) } else { None };
        Trouble::Leave(unfit.map_or(cause.clone(), |unfit| format!("{unfit} ({cause})")))
    }
}

fn taken() -> Trouble {
    Trouble::Leave("something else has that name there".to_owned())
}

/// Of the disk of this host: the next file may lie on a better part of it.
fn unreadable(error: Errno) -> Trouble {
    Trouble::Leave(format!("it cannot be read: {}", io::Error::from(error)))
}

fn changed() -> Trouble {
    Trouble::Leave("it was changed meanwhile".to_owned())
}

fn special(what: &str) -> Trouble {
    Trouble::Leave(format!("it is a {what}, which is not copied"))
}

/// Nobody writes to it, and it is as it was. A lease for reading is refused while a file is open for writing (fcntl(2)).
fn still(file: &OwnedFd, before: Option<&Stat>) -> Result<(), Trouble> {
    let lease = |kind: libc::c_int| {
        // SAFETY: fcntl with F_SETLEASE takes an integer and touches no memory of ours.
        #[expect(unsafe_code, reason = "no crate wraps F_SETLEASE")]
        let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    match lease(libc::F_RDLCK) {
        Ok(()) => drop(lease(libc::F_UNLCK)),
        Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {
            return Err(Trouble::Leave("a process has it open for writing; stop that first".to_owned()));
        }
        Err(_) => {} // this file system has none
    }
    let Some(before) = before else { return Ok(()) };
    let times = |stat: &Stat| (stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
    match fstat(file) {
        Ok(now) if times(&now) == times(before) => Ok(()),
        _ => Err(changed()),
    }
}

#[cfg(test)]
#[path = "rescue_tests.rs"]
mod tests;
