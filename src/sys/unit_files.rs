//! The administrator's mount units: their files, drop-ins, and the links by which others want them.
//!
//! What systemd's generators make of fstab is in another directory, and is not read here.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::config_dir::{FILES_MAX, files_of, is_from_elsewhere, read_text};
use super::mountinfo;
use crate::plan::mount_unit::{Content, UnitFile, UnitText};

/// Where an administrator's units are.
pub const DIRECTORY: &str = "/etc/systemd/system";

/// Directories in which a unit is named by another one that wants it.
const WANTING: [&str; 3] = ["wants", "requires", "upholds"];

/// A link by which another unit, such as `multi-user.target`, has one started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Where it is.
    pub path: PathBuf,
    /// What it holds.
    pub target: PathBuf,
}

/// All `.mount` and `.automount` units of a directory, by name; also those of which it has drop-ins alone.
pub fn read(directory: &Path) -> io::Result<Vec<UnitFile>> {
    let paths = files_of(directory)?;
    let units = paths.iter().filter_map(|path| {
        let name = path.file_name()?.to_str()?;
        let unit = name.strip_suffix(".d").unwrap_or(name);
        let is_one = unit.ends_with(".mount") || unit.ends_with(".automount");
        let content = match unit == name {
            _ if !is_one || unit != name && paths.contains(&directory.join(unit)) => return None,
            true => content(path),
            false => {
                Content::DropIns(drop_ins(path).ok()?.iter().map(|path| path.to_string_lossy().into_owned()).collect())
            }
        };
        Some(UnitFile { name: unit.to_owned(), path: path.to_string_lossy().into_owned(), content })
    });
    Ok(units.collect())
}

/// The files of a directory of drop-ins that systemd reads.
fn drop_ins(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let is_one = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "conf");
    Ok(files_of(directory)?.into_iter().filter(is_one).collect())
}

fn content(path: &Path) -> Content {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Content::Unreadable("it cannot be looked at".to_owned());
    };
    if metadata.is_symlink() {
        return match fs::read_link(path) {
            Ok(target) if target == Path::new("/dev/null") => Content::Masked,
            _ => Content::Link(linked(path).unwrap_or_default()),
        };
    }
    if metadata.is_file() && metadata.len() == 0 {
        return Content::Masked;
    }
    texts(path).map_or_else(Content::Unreadable, Content::Texts)
}

/// The text behind a link, unless its way could lead over what does not answer.
fn linked(path: &Path) -> Option<String> {
    let target = path.parent()?.join(fs::read_link(path).ok()?);
    let mounts = mountinfo::read().ok()?;
    let may_hang = mountinfo::way_to(&mounts, &target).iter().any(|entry| is_from_elsewhere(&entry.fstype));
    let is_plain = fs::symlink_metadata(&target).is_ok_and(|metadata| metadata.is_file());
    (!may_hang && is_plain).then(|| read_text(&target).ok()).flatten()
}

fn texts(path: &Path) -> Result<Vec<UnitText>, String> {
    let mut directory = path.as_os_str().to_owned();
    directory.push(".d");
    let directory = Path::new(&directory);
    let shown = |path: &Path, why: String| format!("{}: {why}", path.display());
    let paths = drop_ins(directory).map_err(|error| shown(directory, error.to_string()))?;
    let paths: Vec<PathBuf> = std::iter::once(path.to_owned()).chain(paths).collect();
    if paths.len() > FILES_MAX {
        return Err(format!("it has more than {FILES_MAX} drop-ins"));
    }
    let text = |path: PathBuf| {
        let metadata = fs::symlink_metadata(&path).map_err(|error| shown(&path, error.to_string()))?;
        if metadata.is_symlink() {
            return Err(format!("its drop-in {} is a link", path.display()));
        }
        let text = read_text(&path).map_err(|error| error.to_string())?;
        Ok(UnitText { path: path.to_string_lossy().into_owned(), text, mode: metadata.mode() & 0o7777 })
    };
    paths.into_iter().map(text).collect()
}

/// The links to these units, by which others have them started.
pub fn links(directory: &Path, units: &[String]) -> io::Result<Vec<Link>> {
    let mut links = Vec::new();
    for wanting in files_of(directory)? {
        if !wanting.extension().is_some_and(|extension| WANTING.iter().any(|kind| extension == *kind)) {
            continue;
        }
        for path in units.iter().map(|unit| wanting.join(unit)) {
            if let Ok(target) = fs::read_link(&path) {
                links.push(Link { path, target });
            }
        }
    }
    Ok(links)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn units_are_found_with_their_drop_ins_and_links() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        for directory in
            ["mnt-a.mount.d", "mnt-fstab.mount.d", "multi-user.target.wants", "x.service.requires", "other.d"]
        {
            fs::create_dir(at(directory)).unwrap();
        }
        for (path, text) in [
            ("mnt-a.mount", "a"),
            ("mnt-a.mount.d/20.conf", "c"),
            ("mnt-a.mount.d/10.conf", "b"),
            ("mnt-a.mount.d/notes", "d"),
            ("mnt-fstab.mount.d/10.conf", "e"),
            ("mnt-empty.mount", ""),
            ("x.service", "x"),
        ] {
            fs::write(at(path), text).unwrap();
        }
        fs::write(at("mnt-bytes.mount"), [0xff]).unwrap();
        symlink("/dev/null", at("mnt-masked.automount")).unwrap();
        symlink("mnt-a.mount", at("mnt-link.mount")).unwrap();
        symlink("../mnt-a.mount", at("multi-user.target.wants/mnt-a.mount")).unwrap();
        symlink("/elsewhere/mnt-a.mount", at("x.service.requires/mnt-a.mount")).unwrap();

        let units = read(root.path()).unwrap();
        let kinds = units.iter().map(|unit| match &unit.content {
            Content::Texts(texts) => {
                format!("{} {}", unit.name, texts.iter().map(|file| file.text.as_str()).collect::<String>())
            }
            Content::Masked => format!("{} masked", unit.name),
            Content::Link(text) => format!("{} to {text}", unit.name),
            Content::Unreadable(_) => format!("{} unreadable", unit.name),
            Content::DropIns(paths) => format!("{} changed by {}", unit.name, paths.len()),
        });
        let expected = [
            "mnt-a.mount abc",
            "mnt-bytes.mount unreadable",
            "mnt-empty.mount masked",
            "mnt-fstab.mount changed by 1",
            "mnt-link.mount to a",
            "mnt-masked.automount masked",
        ];
        assert_eq!(kinds.collect::<Vec<_>>(), expected);
        let links = links(root.path(), &["mnt-a.mount".to_owned()]).unwrap();
        let targets: Vec<_> = links.iter().map(|link| link.target.to_str().unwrap()).collect();
        assert_eq!(targets, ["../mnt-a.mount", "/elsewhere/mnt-a.mount"]);
        assert!(read(&at("none")).unwrap().is_empty());
    }

    #[test]
    fn a_drop_in_that_is_a_link_cannot_be_given_back_as_a_file() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("mnt-a.mount.d")).unwrap();
        fs::write(root.path().join("mnt-a.mount"), "a").unwrap();
        symlink("/elsewhere", root.path().join("mnt-a.mount.d/x.conf")).unwrap();
        let unit = read(root.path()).unwrap().remove(0);
        assert!(matches!(unit.content, Content::Unreadable(why) if why.ends_with("x.conf is a link")));
    }
}
