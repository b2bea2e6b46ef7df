//! Lines of fstab that stay, and whose mounts lie in or around the mount of a share that is imported, or are made of what lies on it.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use super::super::fstab::{self, Entry};
use super::super::over::lies_on;
use super::Share;

/// What a line of a disk begins with.
const DISKS: [&str; 5] = ["/dev/", "UUID=", "LABEL=", "PARTUUID=", "PARTLABEL="];
/// Options with which it is not mounted before all that lies in it.
const NOT_FIRST: [&str; 3] = ["noauto", "nofail", "x-systemd.automount"];

/// Such a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nested {
    /// From 1.
    pub line: usize,
    /// The share.
    pub share: String,
    /// What is the matter.
    pub message: String,
    /// What to do about it.
    pub help: String,
}

/// All of them, in the order of the lines; `imported` are those that do not stay.
pub(super) fn nested(fstab: &str, imported: &[usize], shares: &[Share]) -> Vec<Nested> {
    let imported: BTreeSet<usize> = imported.iter().copied().collect();
    let stays = |(number, line): (usize, &str)| {
        let entry = fstab::entry(line).filter(|_| !imported.contains(&number) && !fstab::is_broken(line))?;
        Some((number, entry))
    };
    let lines = (1..).zip(fstab.lines()).filter_map(stays);
    let found = |line, entry: &Entry, share| of(line, entry, share).or_else(|| over(line, entry, share));
    lines.flat_map(|(line, entry)| shares.iter().filter_map(move |share| found(line, &entry, share))).collect()
}

/// What both have to do with each other; a disk that every boot mounts first may be around anything, and `none` is nowhere.
fn of(line: usize, entry: &Entry, Share { name, mount_point }: &Share) -> Option<Nested> {
    let (path, own) = (&entry.mount_point, Path::new(mount_point));
    let other = Path::new(path);
    if other.components().any(|part| part == Component::ParentDir) {
        return None; // where that leads only the host can tell
    }
    let is_first = DISKS.iter().any(|disk| entry.source.starts_with(disk))
        && !entry.options.iter().any(|option| NOT_FIRST.contains(&option.as_str()));
    let is_around = own.starts_with(other) && (other == own || !is_first) && other != Path::new("/");
    let (what, help) = match (other.starts_with(own), is_around) {
        (true, true) => (
            format!("mounts {path}, too"),
            "take this line out as well: the share is blocked as long as something else is mounted there",
        ),
        (true, false) => (
            format!("mounts {path}, inside the share"),
            "mount it elsewhere: there it waits for the share's server, and the share cannot be unmounted as long as it is there",
        ),
        (false, true) => (
            format!("mounts {path}, and the share lies in it, on {mount_point}"),
            "put them side by side: the share cannot be reached while what is around it is away, and is hidden by what is mounted there later",
        ),
        (false, false) => return None,
    };
    Some(Nested {
        line,
        share: name.clone(),
        message: format!("line {line} stays in fstab and {what}"),
        help: help.to_owned(),
    })
}

/// What it mounts, or swaps to, lies on the share.
fn over(line: usize, entry: &Entry, Share { name, mount_point }: &Share) -> Option<Nested> {
    let Entry { source, mount_point: place, kind, options } = entry;
    if !lies_on(source, options, Path::new(mount_point)) {
        return None;
    }
    let (what, help) = if kind == "swap" {
        let help = "put it on a disk of this host: while the share's server is away, nothing comes back that was swapped out, and the host hangs";
        (format!("swaps to {source}, a file on the share"), help.to_owned())
    } else {
        let path = mount_point.replace('\\', "\\134").replace(' ', "\\040");
        let help = format!(
            "it is a mount of its own, which keeps what the share was when it was made, dead after the next outage: make {place} a link, or a \
             share of its own; or have it come after the share, with `_netdev,nofail,x-systemd.requires-mounts-for={path}` (a unit: \
             `RequiresMountsFor=`)"
        );
        (format!("mounts on {place} what lies on the share"), help)
    };
    Some(Nested { line, share: name.clone(), message: format!("line {line} stays in fstab and {what}"), help })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_of_what_lies_on_a_share_is_found() {
        let fstab = "/mnt/my\\040films/a /home/a none bind 0 0\n/mnt/my\\040films/swap none swap sw 0 0\n\
                     overlay /merged overlay lowerdir=/data:/mnt/my\\040films/b,upperdir=/u,workdir=/w\n/mnt/my\\040films2 /c none bind\n\
                     /mnt/my\\040films/cd.iso /cd iso9660 loop\n";
        let found = nested(fstab, &[], &[Share { name: "films".into(), mount_point: "/mnt/my films".into() }]);
        let said: Vec<&str> = found.iter().map(|nested| nested.message.as_str()).collect();
        assert_eq!(
            said,
            [
                "line 1 stays in fstab and mounts on /home/a what lies on the share",
                "line 2 stays in fstab and swaps to /mnt/my films/swap, a file on the share",
                "line 3 stays in fstab and mounts on /merged what lies on the share",
                "line 5 stays in fstab and mounts on /cd what lies on the share",
            ]
        );
        assert!(found[0].help.contains("x-systemd.requires-mounts-for=/mnt/my\\040films`"), "{}", found[0].help);
    }

    #[test]
    fn what_lies_in_or_around_a_share_is_found_and_its_neighbours_are_not() {
        let fstab = "UUID=1 / ext4\nUUID=2 /srv ext4 defaults\n# n:/x /mnt/films/x nfs\n//nas/films /mnt/films cifs guest\n\
                     UUID=3 /mnt/ ext4 noauto 0 2\nn:/f /mnt/films/../x nfs\nn:/f /mnt/films2 nfs\nn:/f /mnt/films/new\\040ones/ nfs\n\
                     //nas/a /mnt/films cifs port=139\n//nas/b /mnt/films/b cifs user=a, pass=x\n";
        let shares = ["/mnt/films", "/srv/music"].map(|path| Share { name: "s".into(), mount_point: path.into() });
        let found = nested(fstab, &[4], &shares);
        let said: Vec<&str> = found.iter().map(|nested| nested.message.as_str()).collect();
        assert_eq!(
            said,
            [
                "line 5 stays in fstab and mounts /mnt/, and the share lies in it, on /mnt/films",
                "line 8 stays in fstab and mounts /mnt/films/new ones/, inside the share",
                "line 9 stays in fstab and mounts /mnt/films, too",
            ]
        );
    }
}
