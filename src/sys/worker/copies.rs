//! Where else a share can be seen: in other mount namespaces, those of containers above all, and where somebody has bound it on this
//! host; read from /proc, without a look at the share.
//!
//! A mount namespace gets what is mounted and unmounted in the host's only if the mount that lies *below* propagates there: below
//! a share that is the barrier. So a bind of the mount point alone never follows, whatever its propagation is; a bind of the directory
//! above it with `rslave` does (Documentation/filesystems/sharedsubtree.rst).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::{Answer, Attempt as _, Failed, Reply, holders, host};
use crate::status::{CopyContent, NamespaceCopy};
use crate::sys::mountinfo::Entry;
use crate::sys::{autofs, mountinfo, paths};

pub(super) fn list(share: &str, source: &str, mount_point: &Path) -> Reply {
    let mounts = mountinfo::read().attempt(|| "cannot read the mounts".into())?;
    let current = host::device_of_clone(share)?;
    let here = Here { barrier: format!("{}{share}", autofs::SOURCE_PREFIX), source, current, mounts: &mounts };
    let bound = here.copies_among(&mounts, &BTreeSet::from([mount_point.to_owned()]));
    let mut copies: Vec<NamespaceCopy> = bound.into_iter().map(of_this_host).collect();
    // who has a copy of the host's mounts has those of its binds: said once
    let said: BTreeSet<PathBuf> = copies.iter().map(|copy| PathBuf::from(&copy.path)).collect();
    for (pid, process) in one_of_each_namespace()? {
        // it may end meanwhile
        let Ok(text) = fs::read(process.join("mountinfo")) else { continue };
        let command = fs::read_to_string(process.join("comm")).unwrap_or_default().trim_end().to_owned();
        if holders::is_ours(&process) {
            continue; // a worker in the middle of making a clone
        }
        let cgroup = fs::read_to_string(process.join("cgroup")).unwrap_or_default();
        let (unit, system_unit) = (holders::unit(&cgroup), holders::system_unit(&cgroup));
        let mounts = mountinfo::parse(&text);
        let bare = here.bare_among(&mounts).into_iter().map(|path| (path, CopyContent::Missing, false));
        let found = here.copies_among(&mounts, &said).into_iter().chain(bare).map(|(path, content, follows)| {
            let (command, unit, system_unit) = (command.clone(), unit.clone(), system_unit.clone());
            NamespaceCopy { pid, command, unit, system_unit, path: path.display().to_string(), content, follows }
        });
        copies.extend(found);
    }
    Ok(Answer::Copies(copies))
}

fn of_this_host((path, content, follows): (PathBuf, CopyContent, bool)) -> NamespaceCopy {
    let (command, path) = ("a mount of this host".to_owned(), path.display().to_string());
    NamespaceCopy { pid: 1, command, unit: None, system_unit: None, path, content, follows }
}

/// The process with the lowest id in each mount namespace but this one.
fn one_of_each_namespace() -> Result<BTreeMap<i32, PathBuf>, Failed> {
    let processes = fs::read_dir("/proc").attempt(|| "cannot list the processes".into())?;
    let by_id = processes.flatten().filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())));
    let namespace_of = |process: &Path| fs::read_link(process.join("ns/mnt")).ok();
    let mut seen = BTreeSet::from_iter(namespace_of(Path::new("/proc/self")));
    let by_id: BTreeMap<i32, PathBuf> = by_id.collect();
    let first = by_id.into_iter().filter(|(_, process)| namespace_of(process).is_some_and(|id| seen.insert(id)));
    Ok(first.collect())
}

/// The share in the host's own namespace.
struct Here<'a> {
    /// Source of its barrier.
    barrier: String,
    /// Source of its mount.
    source: &'a str,
    /// Device of its mount, if there is one.
    current: Option<(u32, u32)>,
    mounts: &'a [Entry],
}

impl Here<'_> {
    /// Paths of the share among these mounts, but those: what lies on top there, and whether it follows.
    fn copies_among(&self, mounts: &[Entry], but: &BTreeSet<PathBuf>) -> Vec<(PathBuf, CopyContent, bool)> {
        let mut copies = Vec::<(PathBuf, CopyContent, bool)>::new();
        for entry in mounts.iter().filter(|entry| !but.contains(&entry.mount_point)) {
            let Some(content) = self.content(entry) else { continue };
            let below = match content {
                CopyContent::Barrier => Some(entry),
                CopyContent::Current | CopyContent::Stale | CopyContent::Missing => {
                    mounts.iter().find(|below| below.id == entry.parent)
                }
            };
            let follows = below.is_some_and(|below| below.source == self.barrier && self.gets_mounts(below));
            // later entries of a path lie on top of earlier ones
            copies.retain(|(path, ..)| *path != entry.mount_point);
            copies.push((entry.mount_point.clone(), content, follows));
        }
        copies
    }

    /// Where the directory under the barrier can be seen with nothing on it, as by who was given it before the barrier was laid.
    fn bare_among(&self, mounts: &[Entry]) -> Vec<PathBuf> {
        let barrier = self.mounts.iter().find(|mount| mount.source == self.barrier);
        let under = barrier.and_then(|barrier| self.mounts.iter().find(|mount| mount.id == barrier.parent));
        let (Some(barrier), Some(under)) = (barrier, under) else { return Vec::new() };
        let Ok(inside) = barrier.mount_point.strip_prefix(&under.mount_point) else { return Vec::new() };
        let place = under.root.join(inside);
        let bare = mounts.iter().filter(|mount| mount.device == under.device).filter_map(|mount| {
            let inside = place.strip_prefix(&mount.root).ok()?;
            let path: PathBuf = mount.mount_point.components().chain(inside.components()).collect();
            let is_on_top = mountinfo::way_to(mounts, &path).last().is_some_and(|top| top.id == mount.id);
            is_on_top.then_some(path)
        });
        bare.collect()
    }

    fn content(&self, entry: &Entry) -> Option<CopyContent> {
        let is_cifs = matches!(entry.fstype.as_str(), "cifs" | "smb3");
        if entry.fstype == "autofs" && entry.source == self.barrier {
            return Some(CopyContent::Barrier);
        }
        if is_cifs && Some(entry.device) == self.current {
            return (entry.mount_point != Path::new(paths::SHARE_IN_NAMESPACE)).then_some(CopyContent::Current);
        }
        let is_of_this_source = is_cifs && entry.source == self.source && self.may_be_ours(entry);
        (is_of_this_source && !self.is_of_another_share(entry)).then_some(CopyContent::Stale)
    }

    /// Somebody may have mounted the same by hand: told apart where the kernel says of a mount that it has a connection of its own, which
    /// 6.12 does and 6.1 does not (seen).
    fn may_be_ours(&self, entry: &Entry) -> bool {
        is_unshared(entry) || !self.mounts.iter().any(is_unshared)
    }

    /// Another share of the configuration may have the same source: what lies on its barrier is no copy of this one.
    fn is_of_another_share(&self, entry: &Entry) -> bool {
        let is_barrier =
            |mount: &&Entry| mount.source.starts_with(autofs::SOURCE_PREFIX) && mount.source != self.barrier;
        let others: Vec<&Path> =
            self.mounts.iter().filter(is_barrier).map(|mount| mount.mount_point.as_path()).collect();
        let same_device = |mount: &&Entry| mount.device == entry.device;
        self.mounts.iter().filter(same_device).any(|mount| others.contains(&mount.mount_point.as_path()))
    }

    /// A mount of the barrier gets what is mounted on the host's if it is a slave or in the same peer group.
    fn gets_mounts(&self, barrier: &Entry) -> bool {
        let is_peer = |mount: &Entry| mount.source == self.barrier && mount.shared == barrier.shared;
        barrier.master.is_some() || (barrier.shared.is_some() && self.mounts.iter().any(is_peer))
    }
}

/// Has a connection of its own, as every mount of nasmount's has.
fn is_unshared(entry: &Entry) -> bool {
    entry.options.split(',').any(|option| option == "nosharesock")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "40 1 0:50 / /mnt/media rw shared:7 - autofs nasmount:media rw\n\
                        41 40 0:60 / /mnt/media rw shared:8 - cifs //10.0.0.1/media rw,nosharesock\n";

    fn found(current: Option<(u32, u32)>, mounts: &str) -> Vec<(String, CopyContent, bool)> {
        let host = mountinfo::parse(HOST.as_bytes());
        let here = Here { barrier: "nasmount:media".into(), source: "//10.0.0.1/media", current, mounts: &host };
        let copies = here.copies_among(&mountinfo::parse(mounts.as_bytes()), &BTreeSet::new());
        copies.into_iter().map(|(path, content, follows)| (path.display().to_string(), content, follows)).collect()
    }

    #[test]
    fn a_copy_follows_if_the_barrier_below_it_does() {
        let slave = "90 80 0:50 / /mnt/media rw master:7 - autofs nasmount:media rw\n\
                     91 90 0:60 / /mnt/media rw master:8 - cifs //10.0.0.1/media rw,nosharesock\n";
        let share = |follows| vec![("/mnt/media".to_owned(), CopyContent::Current, follows)];
        assert_eq!(found(Some((0, 60)), slave), share(true));
        assert_eq!(found(Some((0, 60)), &slave.replace("master:", "shared:")), share(true), "a peer of the host's");
        assert_eq!(found(Some((0, 60)), &slave.replace("master:7", "shared:99")), share(false), "others' peer");
        assert_eq!(found(Some((0, 60)), &slave.replace("master:7 ", "")), share(false), "private");
        let bound = "91 80 0:60 / /films rw master:8 - cifs //10.0.0.1/media rw,nosharesock\n";
        let copies = found(Some((0, 60)), bound);
        assert_eq!(
            copies,
            [("/films".into(), CopyContent::Current, false)],
            "a slave of the share, not of the barrier"
        );
    }

    #[test]
    fn what_the_host_has_bound_elsewhere_does_not_follow() {
        let mounts = format!("{HOST}50 1 0:60 / /srv/b rw shared:9 - cifs //10.0.0.1/media rw,nosharesock\n");
        let mounts = mountinfo::parse(mounts.as_bytes());
        let here =
            |current| Here { barrier: "nasmount:media".into(), source: "//10.0.0.1/media", current, mounts: &mounts };
        let its_own = BTreeSet::from([PathBuf::from("/mnt/media")]);
        let bound = |content| [(PathBuf::from("/srv/b"), content, false)];
        assert_eq!(here(Some((0, 60))).copies_among(&mounts, &its_own), bound(CopyContent::Current));
        let given_up = "50 1 0:55 / /srv/b rw shared:9 - cifs //10.0.0.1/media rw,nosharesock\n";
        let mounts = mountinfo::parse(format!("{HOST}{given_up}").as_bytes());
        let here = Here {
            barrier: "nasmount:media".into(),
            source: "//10.0.0.1/media",
            current: Some((0, 60)),
            mounts: &mounts,
        };
        assert_eq!(here.copies_among(&mounts, &its_own), bound(CopyContent::Stale));
    }

    #[test]
    fn what_another_share_or_somebody_else_has_mounted_of_the_same_source_is_no_copy() {
        let mounts = format!(
            "{HOST}50 1 0:70 / /mnt/long rw - autofs nasmount:long rw\n\
             51 50 0:71 / /mnt/long rw - cifs //10.0.0.1/media rw,nosharesock\n\
             60 1 0:72 / /mnt/hand rw - cifs //10.0.0.1/media rw,soft\n"
        );
        let mounts = mountinfo::parse(mounts.as_bytes());
        let here = Here {
            barrier: "nasmount:media".into(),
            source: "//10.0.0.1/media",
            current: Some((0, 60)),
            mounts: &mounts,
        };
        assert!(here.copies_among(&mounts, &BTreeSet::from([PathBuf::from("/mnt/media")])).is_empty());
        let private = mountinfo::parse(b"91 80 0:71 / /films rw - cifs //10.0.0.1/media rw,nosharesock\n");
        assert!(here.copies_among(&private, &BTreeSet::new()).is_empty(), "of the other share, in a container");
        let silent = mountinfo::parse(HOST.replace(",nosharesock", "").as_bytes());
        let stale = mountinfo::parse(b"91 80 0:55 / /films rw - cifs //10.0.0.1/media rw\n");
        let here = Here { mounts: &silent, ..here };
        assert_eq!(here.copies_among(&stale, &BTreeSet::new()).len(), 1, "a kernel that does not say it");
    }

    #[test]
    fn who_has_the_bare_directory_has_nothing_of_the_share() {
        let host = format!("1 0 8:1 /@ / rw - ext4 /dev/sda1 rw\n{HOST}");
        let host = mountinfo::parse(host.as_bytes());
        let here = Here { barrier: "nasmount:media".into(), source: "//10.0.0.1/media", current: None, mounts: &host };
        let bare = |mounts: &str| {
            here.bare_among(&mountinfo::parse(format!("70 60 0:99 / / rw - overlay o rw\n{mounts}").as_bytes()))
        };
        assert_eq!(bare("80 70 8:1 /@/mnt/media /films rw - ext4 /dev/sda1 rw\n"), [PathBuf::from("/films")]);
        let above = "80 70 8:1 /@/mnt /nas rw - ext4 /dev/sda1 rw\n";
        assert_eq!(bare(above), [PathBuf::from("/nas/media")]);
        let told = format!("{above}90 80 0:50 / /nas/media rw master:7 - autofs nasmount:media rw\n");
        assert!(bare(&told).is_empty(), "the barrier lies on it");
        assert!(bare("80 70 8:1 /@/mnt/other /films rw - ext4 /dev/sda1 rw\n").is_empty(), "another directory");
        assert!(bare("80 70 8:2 /@/mnt /films rw - ext4 /dev/sdb1 rw\n").is_empty(), "another file system");
        assert!(here.bare_among(&host).is_empty(), "the host itself");
    }

    #[test]
    fn what_was_given_up_and_what_is_barred_is_told_apart() {
        let old = "91 80 0:55 / /films rw - cifs //10.0.0.1/media rw,nosharesock\n92 80 0:56 / /b rw - cifs //10.0.0.1/books rw,nosharesock\n";
        assert_eq!(found(Some((0, 60)), old), [("/films".into(), CopyContent::Stale, false)]);
        assert_eq!(found(None, old), [("/films".into(), CopyContent::Stale, false)]);
        let barred = "90 80 0:50 / /mnt/media rw - autofs nasmount:media rw\n";
        assert_eq!(found(None, barred), [("/mnt/media".into(), CopyContent::Barrier, false)]);
        assert_eq!(
            found(Some((0, 60)), "91 1 0:60 / /share rw - cifs //10.0.0.1/media rw,nosharesock\n"),
            [],
            "the clone"
        );
    }
}
