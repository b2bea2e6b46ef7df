//! Who has a share open: files, working directories and roots, found in /proc without asking the share.
//!
//! Not by `statx`, also not with `AT_STATX_DONT_SYNC`: `cifs_getattr` then asks the server all the same for a file of which it knows
//! no attributes, such as one that is being written (`CIFS_I(inode)->time == 0`, fs/smb/client/inode.c; seen on 6.12: the worker hung
//! until the server was back). The mount of an open file stands in its fdinfo. What is on a mount that is on no path any more is told by an
//! inotify watch, which names the device; CIFS is not asked for that, but FUSE and NFS might be, so only where nothing else helps.
//!
//! A mapped file whose descriptor was closed is not found: /proc/PID/maps waits for a lock that a process hanging in a page
//! fault of the share holds.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tracing::warn;

use super::{Answer, Attempt as _, Failed, Reply, host};
use crate::status::Holder;
use crate::sys::mountinfo;

/// So many open files of a process are named; the others are counted.
const MOST_PATHS: usize = 4;

/// So many of those who write are named in a sentence.
const MOST_WRITERS: usize = 8;

/// Those who have the share's file system open, wherever it is or was mounted.
pub(super) fn holders(share: &str) -> Result<Vec<Holder>, Failed> {
    let device = host::device_of_clone(share)?;
    device.map_or_else(|| Ok(Vec::new()), of_device)
}

pub(super) fn list(share: &str) -> Reply {
    holders(share).map(Answer::Holders)
}

/// Takes hold of those of some processes who hold the share, so that nobody else can have their ids when they are killed.
pub(super) fn catch(share: &str, pids: &[i32]) -> Result<Vec<OwnedFd>, Failed> {
    let Some(device) = host::device_of_clone(share)?.filter(|_| !pids.is_empty()) else { return Ok(Vec::new()) };
    let mut search = Search::of(device)?;
    let mut caught = Vec::new();
    for pid in pids {
        let Some(process) = Pid::from_raw(*pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else {
            continue;
        };
        if search.holder(*pid, &Path::new("/proc").join(pid.to_string())).is_some() {
            caught.push(process); // it was not another one by then
        }
    }
    Ok(caught)
}

/// SIGKILL; who is gone already is as good as killed.
pub(super) fn kill(caught: &[OwnedFd]) {
    for process in caught {
        match pidfd_send_signal(process, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => warn!(%error, "cannot kill who has the share open"),
        }
    }
}

/// A process of this program's, such as a worker that looks at the share: nobody who has anything open there for its own sake.
pub(super) fn is_ours(process: &Path) -> bool {
    let program = |process: &Path| {
        let link = fs::read_link(process.join("exe")).ok()?.into_os_string().into_string().ok()?;
        // an older version
        Some(link.trim_end_matches(" (deleted)").to_owned())
    };
    program(process).is_some_and(|its| Some(its) == program(Path::new("/proc/self")))
}

/// Those who have a file system open, by its device number.
pub(super) fn of_device(device: (u32, u32)) -> Result<Vec<Holder>, Failed> {
    let processes = fs::read_dir("/proc").attempt(|| "cannot list the processes".into())?;
    let (mut search, mut found) = (Search::of(device)?, Vec::new());
    for entry in processes.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if !is_ours(&entry.path()) {
            found.extend(search.holder(pid, &entry.path())); // it may end meanwhile
        }
    }
    if let Some((files, error)) = search.hidden {
        warn!(files, %error, "cannot see all of what processes have open");
    }
    found.sort_by_key(|holder: &Holder| holder.pid);
    Ok(found)
}

/// A search for what is open on one device.
struct Search {
    device: (u32, u32),
    watches: OwnedFd,
    /// What could not be seen: how much, and the last reason.
    hidden: Option<(usize, Errno)>,
}

impl Search {
    fn of(device: (u32, u32)) -> Result<Self, Failed> {
        let watches = inotify::init(CreateFlags::CLOEXEC).attempt(|| "cannot watch files".into())?;
        Ok(Self { device, watches, hidden: None })
    }

    fn holder(&mut self, pid: i32, process: &Path) -> Option<Holder> {
        let mounts = mountinfo::parse(&fs::read(process.join("mountinfo")).ok()?);
        let mut holder = Holder {
            pid,
            command: String::new(),
            unit: None,
            files: 0,
            writable: 0,
            writable_paths: Vec::new(),
            directories: 0,
        };
        for name in ["cwd", "root"] {
            holder.directories += usize::from(self.has_directory(&process.join(name), &mounts));
        }
        for entry in fs::read_dir(process.join("fd")).into_iter().flatten().flatten() {
            let info = fs::read_to_string(process.join("fdinfo").join(entry.file_name())).unwrap_or_default();
            if !self.has_file(&entry.path(), &info, &mounts) {
                continue;
            }
            holder.files += 1;
            if is_writable(&info) {
                holder.writable += 1;
                if holder.writable <= MOST_PATHS {
                    // what the link says is made from the dentries, without a question to the file system
                    holder.writable_paths.extend(fs::read_link(entry.path()).map(|path| path.display().to_string()));
                }
            }
        }
        if holder.files + holder.directories == 0 {
            return None;
        }
        holder.command = fs::read_to_string(process.join("comm")).unwrap_or_default().trim_end().to_owned();
        holder.unit = fs::read_to_string(process.join("cgroup")).ok().and_then(|text| unit(&text));
        Some(holder)
    }

    fn has_file(&mut self, link: &Path, info: &str, mounts: &[mountinfo::Entry]) -> bool {
        let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse::<u64>().ok());
        match mounts.iter().find(|entry| Some(entry.id) == mount) {
            Some(entry) => entry.device == self.device,
            None => self.is_on(link),
        }
    }

    /// A path that leads to no mount but the root is one of that, or one from the root of a mount that is on no path (d_path).
    fn has_directory(&mut self, link: &Path, mounts: &[mountinfo::Entry]) -> bool {
        let path = fs::read_link(link).unwrap_or_default();
        let above = mounts.iter().filter(|entry| path.starts_with(&entry.mount_point));
        match above.max_by_key(|entry| entry.mount_point.components().count()) {
            Some(entry) if entry.mount_point != Path::new("/") => entry.device == self.device,
            Some(_) | None => self.is_on(link),
        }
    }

    fn is_on(&mut self, link: &Path) -> bool {
        match self.device_of(link) {
            Ok(device) => device == Some(self.device),
            Err(Errno::NOENT | Errno::SRCH) => false, // closed meanwhile
            Err(error) => {
                self.hidden = Some((self.hidden.map_or(1, |(files, _)| files + 1), error));
                false
            }
        }
    }

    /// The device that what a link of /proc leads to is on; none for a socket or a pipe.
    fn device_of(&self, link: &Path) -> rustix::io::Result<Option<(u32, u32)>> {
        let target = rustix::fs::readlink(link, Vec::new())?;
        if !target.as_bytes().starts_with(b"/") {
            return Ok(None);
        }
        let watch = inotify::add_watch(&self.watches, link, WatchFlags::DELETE_SELF)?;
        let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", self.watches.as_raw_fd()));
        inotify::remove_watch(&self.watches, watch)?;
        Ok(device_of_watch(&text.unwrap_or_default(), watch))
    }
}

/// A watch in the fdinfo of inotify: `inotify wd:1 ino:9e7e sdev:800013 ...`, numbers in hexadecimal, the device with 20 bits for its
/// minor number (Documentation/filesystems/proc.rst, include/linux/kdev_t.h).
fn device_of_watch(fdinfo: &str, watch: i32) -> Option<(u32, u32)> {
    const MINOR_BITS: u32 = 20;
    let mut watches = fdinfo.lines().filter_map(|line| line.strip_prefix("inotify wd:"));
    let line = watches.find(|line| line.split(' ').next() == Some(&format!("{watch:x}")))?;
    let device = line.split(' ').find_map(|field| field.strip_prefix("sdev:"))?;
    let device = u32::from_str_radix(device, 16).ok()?;
    Some((device >> MINOR_BITS, device & ((1 << MINOR_BITS) - 1)))
}

/// The line `flags:` of fdinfo is octal; the two lowest bits are the access mode.
fn is_writable(fdinfo: &str) -> bool {
    let flags = fdinfo.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & libc::O_ACCMODE != libc::O_RDONLY)
}

/// The innermost service or scope of the unified hierarchy; a container is a scope of its engine.
pub(super) fn unit(cgroup: &str) -> Option<String> {
    cgroup_path(cgroup)?.split('/').rfind(is_unit).map(str::to_owned)
}

/// The outermost one: what is further in is for the manager of a user, or for a systemd in a container, to start.
pub(super) fn system_unit(cgroup: &str) -> Option<String> {
    let mut parts = cgroup_path(cgroup)?.split('/').skip(1);
    parts.find(|part| !part.ends_with(".slice")).filter(is_unit).map(str::to_owned)
}

fn cgroup_path(cgroup: &str) -> Option<&str> {
    cgroup.lines().find_map(|line| line.strip_prefix("0::"))
}

fn is_unit(part: &&str) -> bool {
    part.ends_with(".service") || part.ends_with(".scope")
}

/// Those of the holders in words, by unit.
pub fn in_words(holders: &[Holder]) -> String {
    let mut groups = BTreeMap::<&str, Vec<String>>::new();
    for holder in holders {
        let who = format!("{} ({})", holder.command, holder.pid);
        groups.entry(holder.unit.as_deref().unwrap_or("no unit")).or_default().push(who);
    }
    let groups: Vec<_> = groups.into_iter().map(|(unit, who)| format!("{unit}: {}", who.join(", "))).collect();
    groups.join("; ")
}

/// Those of them who have files open for writing, by unit, with the files; empty if there is none.
pub fn writers_in_words(holders: &[Holder]) -> String {
    let writers: Vec<&Holder> = holders.iter().filter(|holder| holder.writable > 0).collect();
    let others = writers.len().saturating_sub(MOST_WRITERS);
    let named = writers.iter().take(MOST_WRITERS).map(|holder| {
        let (unit, paths) = (holder.unit.as_deref().unwrap_or("no unit"), holder.writable_paths.join(", "));
        let more = holder.writable.saturating_sub(holder.writable_paths.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{unit}: {} ({}): {paths}{more}", holder.command, holder.pid)
    });
    let others = (others > 0).then(|| format!("{others} more processes"));
    named.chain(others).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn an_open_file_is_found_and_counted() {
        use std::os::unix::fs::MetadataExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let device = fs::metadata(directory.path()).unwrap().dev();
        let device = (nix::libc::major(device), nix::libc::minor(device));
        let mine = || {
            let pid = i32::try_from(std::process::id()).unwrap();
            let found = Search::of(device).unwrap().holder(pid, Path::new("/proc/self"));
            found.map_or((0, 0), |holder| (holder.files, holder.writable))
        };
        let before = mine();
        let _written = fs::File::create(&path).unwrap();
        let _read = fs::File::open(&path).unwrap();
        let after = mine();
        // other tests open and close files at the same time
        assert!(after.0 >= 2 && after.1 >= 1, "{before:?} {after:?}");
    }

    #[test]
    fn the_device_of_a_watch_is_read() {
        let text = "pos:\t0\nflags:\t02000000\ninotify wd:3 ino:9e7e sdev:800013 mask:400 ignored_mask:0 fhandle-bytes:8\n\
                    inotify wd:1f ino:2 sdev:2b mask:400 ignored_mask:0\n";
        assert_eq!(device_of_watch(text, 3), Some((8, 0x13)));
        assert_eq!(device_of_watch(text, 0x1f), Some((0, 0x2b)));
        assert_eq!(device_of_watch(text, 1), None);
    }

    #[test]
    fn the_access_mode_is_that_of_the_descriptor() {
        assert!(!is_writable("pos:\t0\nflags:\t0100000\nmnt_id:\t29\n"));
        assert!(is_writable("pos:\t0\nflags:\t0100001\nmnt_id:\t29\n"));
        assert!(is_writable("flags:\t02100002\n"));
        assert!(!is_writable(""));
    }

    /// Both ways of finding out say the same: by the mount, and where no mount is known by the file.
    #[test]
    fn a_file_on_a_mount_that_is_on_no_path_is_found() {
        use std::os::unix::fs::MetadataExt as _;
        let file = tempfile::tempfile().unwrap();
        let device = file.metadata().unwrap().dev();
        let device = (nix::libc::major(device), nix::libc::minor(device));
        let (link, info) =
            (format!("/proc/self/fd/{}", file.as_raw_fd()), format!("/proc/self/fdinfo/{}", file.as_raw_fd()));
        let info = fs::read_to_string(info).unwrap();
        let mounts = mountinfo::read().unwrap();
        for (device, is_there) in [(device, true), ((0, 1 << 19), false)] {
            let mut search = Search::of(device).unwrap();
            assert_eq!(search.has_file(Path::new(&link), &info, &mounts), is_there);
            assert_eq!(search.has_file(Path::new(&link), &info, &[]), is_there);
            assert_eq!(search.hidden, None);
        }
    }

    #[test]
    fn the_innermost_unit_counts() {
        assert_eq!(unit("0::/system.slice/jellyfin.service\n").unwrap(), "jellyfin.service");
        assert_eq!(unit("1:name=x:/\n0::/system.slice/docker-12ab.scope/x\n").unwrap(), "docker-12ab.scope");
        assert_eq!(unit("0::/user.slice/user-0.slice/user@0.service/app.slice/a.scope").unwrap(), "a.scope");
        assert_eq!(unit("0::/\n"), None);
        for (cgroup, found) in [
            ("0::/system.slice/system-a.slice/a@1.service/payload\n", Some("a@1.service")),
            ("0::/system.slice/docker-12ab.scope/system.slice/inside.service\n", Some("docker-12ab.scope")),
            ("0::/user.slice/user-0.slice/user@0.service/app.slice/libpod-1a.scope\n", Some("user@0.service")),
            ("0::/lxc.payload.x/system.slice/inside.service\n", None),
            ("0::/\n", None),
        ] {
            assert_eq!(system_unit(cgroup).as_deref(), found, "{cgroup}");
        }
    }

    #[test]
    fn who_writes_is_named_with_the_files() {
        let writer = |pid, writable| Holder {
            pid,
            command: "dd".into(),
            unit: Some("a.service".into()),
            files: 6,
            writable,
            writable_paths: vec!["/film".into(); writable.min(1)],
            directories: 0,
        };
        assert_eq!(writers_in_words(&[writer(3, 0)]), "");
        let text = writers_in_words(&[writer(3, 1), writer(4, 0), writer(5, 3)]);
        assert_eq!(text, "a.service: dd (3): /film; a.service: dd (5): /film and 2 more");
        let many: Vec<Holder> = (0..10).map(|pid| writer(pid, 1)).collect();
        assert!(writers_in_words(&many).ends_with("dd (7): /film; 2 more processes"));
    }

    #[test]
    fn holders_are_named_by_unit() {
        let holder = |pid, unit: Option<&str>| Holder {
            pid,
            command: "cat".into(),
            unit: unit.map(str::to_owned),
            files: 1,
            writable: 0,
            writable_paths: Vec::new(),
            directories: 0,
        };
        let text = in_words(&[holder(3, Some("a.service")), holder(4, None), holder(5, Some("a.service"))]);
        assert_eq!(text, "a.service: cat (3), cat (5); no unit: cat (4)");
    }
}
