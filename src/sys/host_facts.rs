//! What `nasmount doctor` wants to know of a host: files of the system, and what lies in a mount point on which nothing is mounted.
//! Nothing is changed, and nothing is looked at that could lie on a share.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, IFlags, Mode, OFlags, Stat, fstat, ioctl_getflags, open, openat, statat};
use rustix::io::Errno;

use super::config_dir::{MountPoint, is_from_elsewhere, mount_point_on_host};
use super::mountinfo::{self, Entry};
use super::unit_files;
use crate::plan::doctor::facts::{Contents, HostFacts, KernelFacts, TextFile, Underneath, Unfinished};

/// Largest file that is read whole; the list of a kernel's modules takes 1 MiB.
const TEXT_BYTES_MAX: u64 = 16 << 20;

/// Most entries of a mount point that are counted: enough to say that there are many.
const ENTRIES_MAX: u64 = 10_000;

/// Deepest directory that is counted; each on the way is an open file.
const DEPTH_MAX: usize = 64;

/// The permission bits of a mode.
const PERMISSIONS: u32 = 0o7777;

/// Where a service looks for programs: systemd's default for it (DEFAULT_PATH).
const PROGRAM_DIRECTORIES: [&str; 6] = ["usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin"];

/// Where node_exporter's arguments are written, by its packages and by its own documentation.
const NODE_EXPORTER_FILES: [&str; 8] = [
    "etc/default/prometheus-node-exporter",
    "etc/default/node_exporter",
    "etc/sysconfig/node_exporter",
    "etc/conf.d/prometheus-node-exporter",
    "etc/systemd/system/node_exporter.service",
    "etc/systemd/system/prometheus-node-exporter.service",
    "usr/lib/systemd/system/node_exporter.service",
    "usr/lib/systemd/system/prometheus-node-exporter.service",
];

/// Gathers them, from the files below `root` and from these mount points of this host.
pub fn gather<'a>(root: &Path, mount_points: impl Iterator<Item = &'a Path>) -> HostFacts {
    let mounts = mountinfo::read().unwrap_or_default();
    let mut programs = PROGRAM_DIRECTORIES.iter().map(|directory| root.join(directory).join("nft"));
    let node_exporter = NODE_EXPORTER_FILES.iter().map(|file| root.join(file));
    HostFacts {
        kernel: kernel(root),
        fstab: text(&root.join("etc/fstab")).unwrap_or_default(),
        unfinished: Unfinished::default(), // the command's to know
        units: unit_files::read(&root.join("etc/systemd/system")).unwrap_or_default(),
        unified_cgroups: root.join("sys/fs/cgroup/cgroup.controllers").is_file(),
        nft: programs.find(|path| path.is_file()),
        interfaces: interfaces(root),
        mount_points: mount_points.map(|path| (path.to_owned(), underneath(path, &mounts))).collect(),
        updatedb: text(&root.join("etc/updatedb.conf")),
        node_exporter: node_exporter.filter_map(|path| Some(TextFile { text: text(&path)?, path })).collect(),
    }
}

/// As the kernel lists them, without a question to it that could wait for a lock.
fn interfaces(root: &Path) -> Option<BTreeSet<String>> {
    let entries = fs::read_dir(root.join("sys/class/net")).ok()?;
    Some(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

/// A file's text; `None` if it is not there, cannot be read, or is no file: a pipe could take for ever.
fn text(path: &Path) -> Option<String> {
    let flags = libc::O_NONBLOCK | libc::O_CLOEXEC;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(TEXT_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// What the kernel says of itself in the files below `root`.
pub fn kernel(root: &Path) -> KernelFacts {
    let proc = |name: &str| text(&root.join("proc").join(name));
    let release = proc("sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
    let modules = root.join("lib/modules").join(&release);
    let configs = [root.join(format!("boot/config-{release}")), modules.join("config")];
    let lists: Vec<String> =
        ["modules.dep", "modules.builtin"].iter().filter_map(|name| text(&modules.join(name))).collect();
    KernelFacts {
        version: proc("sys/kernel/version").unwrap_or_default().trim().to_owned(),
        signature: proc("version_signature"),
        config: configs.iter().find_map(|path| text(path)),
        has_config_gz: root.join("proc/config.gz").is_file(),
        filesystems: proc("filesystems").unwrap_or_default(),
        modules: (!lists.is_empty()).then(|| lists.concat()),
        taint: proc("sys/kernel/tainted").and_then(|number| number.trim().parse().ok()).unwrap_or(0),
        release,
    }
}

/// What a mount point is, if nothing is mounted on it according to these mounts.
fn underneath(mount_point: &Path, mounts: &[Entry]) -> Underneath {
    let around = || mounts.iter().filter(|mount| mount_point.starts_with(&mount.mount_point));
    let is_below = |mount: &Entry| mount.mount_point.starts_with(mount_point);
    if mounts.iter().any(is_below) || around().any(|mount| is_from_elsewhere(&mount.fstype)) {
        return Underneath::Covered;
    }
    if mount_point_on_host(mount_point) != MountPoint::Usable {
        return Underneath::NoDirectory; // `check` says so
    }
    let Some(host) = around().max_by_key(|mount| mount.mount_point.as_os_str().len()) else {
        return Underneath::Covered;
    };
    look(mount_point, host.id).unwrap_or_else(|error| match error {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => Underneath::NoDirectory,
        error => Underneath::Unseen(std::io::Error::from(error).to_string()),
    })
}

/// Something may have been mounted since the mounts were read. Opening with O_PATH asks no file system for anything, and says on which
/// mount the path is; "." of what was opened stays below whatever is mounted later.
fn look(mount_point: &Path, host: u64) -> Result<Underneath, Errno> {
    let place = open(mount_point, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if mount_of(&place) != Some(host) {
        return Ok(Underneath::Covered);
    }
    let directory = open_directory(&place, c".")?;
    if ioctl_getflags(&directory).is_ok_and(|flags| flags.contains(IFlags::IMMUTABLE)) {
        return Ok(Underneath::Protected);
    }
    let mut contents = Contents::default();
    count(&directory, 0, &mut contents)?;
    let is_closed = fstat(&directory)?.st_mode & PERMISSIONS == 0;
    Ok(match contents {
        Contents { entries: 0, .. } if is_closed => Underneath::Protected,
        Contents { entries: 0, .. } => Underneath::Open,
        contents => Underneath::Holds(contents),
    })
}

/// Identity of the mount on which an open file is, as in mountinfo.
pub(super) fn mount_of(file: &OwnedFd) -> Option<u64> {
    let info = text(Path::new(&format!("/proc/self/fdinfo/{}", file.as_raw_fd())))?;
    info.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
}

fn open_directory(at: impl AsFd, name: &std::ffi::CStr) -> Result<OwnedFd, Errno> {
    openat(at, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Nothing is mounted below. A directory that cannot be read counts as one entry.
fn count(directory: &OwnedFd, depth: usize, contents: &mut Contents) -> Result<(), Errno> {
    const BLOCK: u64 = 512; // stat(2), whatever the file system's own is
    for entry in Dir::read_from(directory)?.flatten() {
        let name = entry.file_name();
        if [c".", c".."].contains(&name) {
            continue;
        }
        if contents.entries == ENTRIES_MAX {
            contents.more = true;
            return Ok(());
        }
        contents.entries += 1;
        let Ok(Stat { st_mode, st_blocks, .. }) = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        contents.bytes += u64::try_from(st_blocks).unwrap_or(0) * BLOCK;
        if FileType::from_raw_mode(st_mode) != FileType::Directory {
            continue;
        }
        if depth == DEPTH_MAX {
            contents.more = true;
        } else if let Ok(below) = open_directory(directory, name) {
            let _ = count(&below, depth + 1, contents);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::symlink;

    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn a_host_without_anything_has_no_facts() {
        let root = tempfile::tempdir().unwrap();
        let facts = gather(root.path(), std::iter::empty());
        assert!(facts == HostFacts::default());
    }

    #[test]
    fn the_files_of_a_host_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        write(root, "proc/sys/kernel/osrelease", "6.1.0-44-amd64\n");
        write(root, "proc/sys/kernel/version", "#1 SMP Debian 6.1.162-1\n");
        write(root, "proc/sys/kernel/tainted", "4096\n");
        write(root, "proc/filesystems", "nodev\tautofs\n");
        write(root, "boot/config-6.1.0-44-amd64", "CONFIG_CIFS=m\n");
        write(root, "proc/config.gz", "");
        write(root, "lib/modules/6.1.0-44-amd64/modules.dep", "kernel/fs/smb/client/cifs.ko: x.ko\n");
        write(root, "lib/modules/6.1.0-44-amd64/modules.builtin", "kernel/fs/autofs/autofs4.ko\n");
        write(root, "etc/fstab", "//10.0.0.1/a /mnt/a cifs guest 0 0\n");
        write(root, "etc/systemd/system/mnt-b.mount", "[Mount]\n");
        write(root, "etc/systemd/system/other.service", "[Service]\n");
        write(root, "sys/fs/cgroup/cgroup.controllers", "cpu memory\n");
        write(root, "usr/sbin/nft", "");
        write(root, "etc/updatedb.conf", "PRUNEFS=\"nfs\"\n");
        write(root, "etc/default/prometheus-node-exporter", "ARGS=\"\"\n");
        let facts = gather(root, std::iter::empty());
        let kernel = KernelFacts {
            release: "6.1.0-44-amd64".into(),
            version: "#1 SMP Debian 6.1.162-1".into(),
            signature: None,
            config: Some("CONFIG_CIFS=m\n".into()),
            has_config_gz: true,
            filesystems: "nodev\tautofs\n".into(),
            modules: Some("kernel/fs/smb/client/cifs.ko: x.ko\nkernel/fs/autofs/autofs4.ko\n".into()),
            taint: 4096,
        };
        assert_eq!(facts.kernel, kernel);
        assert_eq!(facts.fstab, "//10.0.0.1/a /mnt/a cifs guest 0 0\n");
        assert_eq!(facts.units.iter().map(|unit| unit.name.as_str()).collect::<Vec<_>>(), ["mnt-b.mount"]);
        assert!(facts.unified_cgroups);
        assert_eq!(facts.nft, Some(root.join("usr/sbin/nft")));
        assert_eq!(facts.updatedb.as_deref(), Some("PRUNEFS=\"nfs\"\n"));
        assert_eq!(facts.node_exporter.len(), 1);
    }

    /// The mounts of this host; what it has below its temporary files counts as its own.
    fn mounts() -> Vec<Entry> {
        let mut mounts = mountinfo::read().unwrap();
        mounts.iter_mut().for_each(|mount| mount.fstype = "ext4".to_owned());
        mounts
    }

    #[test]
    fn what_lies_in_a_mount_point_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap().join("media");
        assert_eq!(underneath(&path, &mounts()), Underneath::NoDirectory);
        fs::create_dir(&path).unwrap();
        assert_eq!(underneath(&path, &mounts()), Underneath::Open);
        fs::create_dir(path.join("a")).unwrap();
        fs::write(path.join("a/film"), vec![1; 10_000]).unwrap();
        symlink("/", path.join("everything")).unwrap();
        let Underneath::Holds(contents) = underneath(&path, &mounts()) else { panic!("it holds files") };
        assert_eq!((contents.entries, contents.more), (3, false));
        assert!(contents.bytes >= 10_000, "{contents:?}");
        fs::write(path.join("file"), "x").unwrap();
        assert_eq!(underneath(&path.join("file"), &mounts()), Underneath::NoDirectory);
    }

    #[test]
    fn more_than_can_be_counted_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap();
        (0..=ENTRIES_MAX).for_each(|number| drop(symlink("x", path.join(number.to_string()))));
        let Underneath::Holds(contents) = underneath(&path, &mounts()) else { panic!("it holds files") };
        assert_eq!((contents.entries, contents.more), (ENTRIES_MAX, true));
    }

    #[test]
    fn what_nasmount_protects_is_seen_to_be() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap();
        let before = fs::metadata(&path).unwrap().permissions();
        let whole = super::super::mount_point::protect(&path).unwrap();
        let seen = underneath(&path, &mounts());
        super::super::mount_point::unprotect(&path).unwrap();
        fs::set_permissions(&path, before).unwrap();
        let may_look = rustix::process::geteuid().is_root();
        assert_eq!(seen == Underneath::Protected, may_look, "{whole:?}: {seen:?}");
    }

    /// A mount that is not in the list, as if it had been made since that was read.
    #[test]
    fn what_is_mounted_is_not_looked_at() {
        let mut mounts = mounts();
        let proc = Path::new("/proc");
        assert_eq!(underneath(proc, &mounts), Underneath::Covered, "it is mounted");
        mounts.retain(|mount| !mount.mount_point.starts_with(proc));
        assert_eq!(underneath(proc, &mounts), Underneath::Covered, "it is another mount's");
        mounts.iter_mut().for_each(|mount| mount.fstype = "nfs4".to_owned());
        assert_eq!(underneath(Path::new("/nowhere"), &mounts), Underneath::Covered, "the way leads over a network");
    }
}
