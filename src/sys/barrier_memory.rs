//! Which barriers were laid, so that they are laid again after a reboot before anybody looks: without the daemon, which may come late
//! or refuse its configuration.
//!
//! What is remembered is laid only where it lay: on the same mount, with nothing on it, and on a way that cannot hang. Elsewhere it would
//! hide what somebody else has mounted, or be hidden itself by a disk that is mounted later, and yet be taken for a barrier. What is not
//! laid is left to the daemon.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::config_dir::is_from_elsewhere;
use super::mountinfo::{self, Entry};
use crate::plan::fstab;

/// The barriers that were laid, by mount point.
pub type Barriers = BTreeMap<PathBuf, LaidBarrier>;

/// A barrier that was laid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaidBarrier {
    /// Name of its share.
    pub share: String,
    /// Where the file system is mounted on which it lay.
    pub on: PathBuf,
}

/// Why a barrier is not laid again.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Hindrance {
    /// Something is there already.
    #[error("{0} is mounted there")]
    Occupied(String),
    /// It will be mounted there.
    #[error("/etc/fstab has a line for it")]
    InFstab,
    /// A walk to it could hang.
    #[error("the way to it leads over {path}, which is {fstype}", path = .path.display())]
    FromElsewhere {
        /// Where that is mounted.
        path: PathBuf,
        /// What it is.
        fstype: String,
    },
    /// The file system that holds it is another now, or not mounted yet.
    #[error("it lay on what is mounted on {was}, and would lie on {now}", was = .was.display(), now = .now.display())]
    AnotherMount {
        /// Where the one was mounted that held it.
        was: PathBuf,
        /// Where the one is that would.
        now: PathBuf,
    },
    /// What it leads to may be anywhere.
    #[error("{path} is a symbolic link", path = .0.display())]
    Link(PathBuf),
}

impl LaidBarrier {
    /// What is to be remembered of a barrier; nothing if the mounts do not say where it lies.
    pub fn of(share: &str, mount_point: &Path, entries: &[Entry]) -> Option<Self> {
        let way = mountinfo::way_to(entries, mount_point);
        let on = way.iter().rfind(|entry| entry.mount_point != mount_point)?.mount_point.clone();
        Some(Self { share: share.to_owned(), on })
    }

    /// What keeps it from being laid again. Looks at nothing that may hang.
    pub fn hindrance(&self, mount_point: &Path, entries: &[Entry], fstab: &str) -> Option<Hindrance> {
        self.hindrance_in(mount_point, entries, fstab).or_else(|| link_on_the_way(mount_point).map(Hindrance::Link))
    }

    fn hindrance_in(&self, mount_point: &Path, entries: &[Entry], fstab: &str) -> Option<Hindrance> {
        let way = mountinfo::way_to(entries, mount_point);
        let now = way.last().map_or(Path::new(""), |top| &top.mount_point);
        if let Some(top) = way.last().filter(|top| top.mount_point == mount_point) {
            return Some(Hindrance::Occupied(top.source.clone()));
        }
        // a host whose root does not answer has other worries
        let other = way.iter().find(|entry| entry.mount_point != Path::new("/") && is_from_elsewhere(&entry.fstype));
        if let Some(Entry { mount_point, fstype, .. }) = other {
            return Some(Hindrance::FromElsewhere { path: mount_point.clone(), fstype: fstype.clone() });
        }
        if now != self.on {
            return Some(Hindrance::AnotherMount { was: self.on.clone(), now: now.to_owned() });
        }
        is_in_fstab(mount_point, fstab).then_some(Hindrance::InFstab)
    }
}

/// Each part before the next: nothing is looked at through a link.
fn link_on_the_way(mount_point: &Path) -> Option<PathBuf> {
    let parts = mount_point.ancestors().collect::<Vec<_>>().into_iter().rev();
    let mut links = parts.map_while(|part| fs::symlink_metadata(part).ok().map(|metadata| (part, metadata)));
    links.find(|(_, metadata)| metadata.is_symlink()).map(|(part, _)| part.to_owned())
}

/// mount(8) could not mount it over a barrier: its helper for CIFS enters the directory first.
fn is_in_fstab(mount_point: &Path, text: &str) -> bool {
    let mut entries = text.lines().filter_map(fstab::entry);
    entries.any(|entry| Path::new(&entry.mount_point).components().eq(mount_point.components()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::symlink;

    use super::*;

    const MOUNTS: &str = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
                          30 22 8:2 / /srv/data rw - ext4 /dev/sdb1 rw\n\
                          31 22 0:40 / /pool rw - fuse.mergerfs a:b rw\n\
                          32 22 0:41 / /mnt/nfs rw - nfs4 nas:/x rw\n\
                          33 22 0:42 / /auto rw - autofs systemd-1 rw\n\
                          34 22 0:43 / /mnt/taken rw - cifs //other/films rw\n\
                          35 22 0:44 / /mnt/barred rw - autofs nasmount:barred rw\n";

    fn hindrance(on: &str, mount_point: &str) -> Option<Hindrance> {
        let barrier = LaidBarrier { share: "media".to_owned(), on: on.into() };
        let fstab = "# //nas/a /mnt/commented cifs\nn:/f\t/mnt/my\\040films\u{e0}/ nfs _netdev 0 0\n";
        barrier.hindrance_in(Path::new(mount_point), &mountinfo::parse(MOUNTS.as_bytes()), fstab)
    }

    #[test]
    fn it_is_laid_again_where_it_lay_and_nowhere_else() {
        let another = |was: &str, now: &str| Some(Hindrance::AnotherMount { was: was.into(), now: now.into() });
        let elsewhere =
            |path: &str, fstype: &str| Some(Hindrance::FromElsewhere { path: path.into(), fstype: fstype.into() });
        for (on, mount_point, expected) in [
            ("/", "/mnt/media", None),
            ("/", "/mnt/commented", None),
            ("/srv/data", "/srv/data/deep/media", None),
            ("/srv/more", "/srv/more/media", another("/srv/more", "/")),
            ("/", "/srv/data/media", another("/", "/srv/data")),
            ("/pool", "/pool/media", elsewhere("/pool", "fuse.mergerfs")),
            ("/mnt/nfs", "/mnt/nfs/media", elsewhere("/mnt/nfs", "nfs4")),
            ("/auto", "/auto/media", elsewhere("/auto", "autofs")),
            ("/", "/mnt/taken", Some(Hindrance::Occupied("//other/films".to_owned()))),
            ("/", "/auto", Some(Hindrance::Occupied("systemd-1".to_owned()))),
            ("/", "/mnt/my films\u{e0}", Some(Hindrance::InFstab)),
        ] {
            assert_eq!(hindrance(on, mount_point), expected, "{mount_point} on {on}");
        }
        let nothing_known = LaidBarrier { share: "media".to_owned(), on: "/".into() };
        assert!(nothing_known.hindrance_in(Path::new("/mnt/media"), &[], "").is_some());
    }

    #[test]
    fn it_is_remembered_where_it_lies() {
        let entries = mountinfo::parse(MOUNTS.as_bytes());
        let on = |mount_point| LaidBarrier::of("a", Path::new(mount_point), &entries).map(|barrier| barrier.on);
        assert_eq!(on("/mnt/barred"), Some("/".into()), "not on itself");
        assert_eq!(on("/srv/data/media"), Some("/srv/data".into()));
        assert_eq!(LaidBarrier::of("a", Path::new("/mnt/barred"), &[]), None);
    }

    #[test]
    fn a_link_on_the_way_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        fs::create_dir(root.join("plain")).unwrap();
        symlink("plain", root.join("link")).unwrap();
        symlink("nowhere", root.join("dangling")).unwrap();
        assert_eq!(link_on_the_way(&root.join("plain/media")), None);
        for link in ["link", "dangling"] {
            assert_eq!(link_on_the_way(&root.join(link).join("media")), Some(root.join(link)));
            assert_eq!(link_on_the_way(&root.join(link)), Some(root.join(link)));
        }
    }
}
