//! /proc/self/mountinfo: reading it takes no lock of any file system and never blocks on a dead share.

use std::ffi::OsString;
use std::io;
use std::net::IpAddr;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Identity of the mount; used again only after it is gone.
    pub id: u64,
    /// The mount on which this one lies.
    pub parent: u64,
    /// `st_dev` of the file system, as `major:minor`.
    pub device: (u32, u32),
    /// What of the file system is mounted: a directory of it, if not all.
    pub root: PathBuf,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// Its peer group, if it is shared: what is mounted on one of them appears on all.
    pub shared: Option<u64>,
    /// The peer group whose mounts appear on it as well, if it is a slave of one.
    pub master: Option<u64>,
    /// Type, without subtype handling.
    pub fstype: String,
    /// Source, unescaped.
    pub source: String,
    /// Options of the file system.
    pub options: String,
}

/// The server's address in the options of a CIFS mount: `addr=10.0.0.1`, as the kernel says it of every one.
pub fn cifs_address(options: &str) -> Option<IpAddr> {
    options.split(',').find_map(|option| option.strip_prefix("addr="))?.parse().ok()
}

/// Reads the mounts of this process's namespace.
pub fn read() -> io::Result<Vec<Entry>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// Parses mountinfo; a line that makes no sense is skipped. Anybody may mount something under a name that is not UTF-8.
pub fn parse(bytes: &[u8]) -> Vec<Entry> {
    // one character per byte, so that no byte is lost before unescaping
    let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
    text.lines().filter_map(parse_line).collect()
}

/// `36 35 98:0 /root /mount/point rw shared:1 - cifs //server/share rw,soft`: the number of optional fields before `-` varies.
fn parse_line(line: &str) -> Option<Entry> {
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ');
    let (id, parent) = (before.next()?.parse().ok()?, before.next()?.parse().ok()?);
    let (major, minor) = before.next()?.split_once(':')?;
    let (root, mount_point) = (before.next()?, before.next()?);
    let optional: Vec<&str> = before.skip(1).collect();
    let group = |name: &str| optional.iter().find_map(|field| field.strip_prefix(name)?.parse().ok());
    let mut after = after.split(' ');
    let (fstype, source, options) = (after.next()?, after.next()?, after.next().unwrap_or(""));
    Some(Entry {
        id,
        parent,
        device: (major.parse().ok()?, minor.parse().ok()?),
        root: path(root),
        mount_point: path(mount_point),
        shared: group("shared:"),
        master: group("master:"),
        fstype: fstype.to_owned(),
        source: String::from_utf8_lossy(&unescape(source)).into_owned(),
        options: options.to_owned(),
    })
}

/// A path as mountinfo writes it.
fn path(field: &str) -> PathBuf {
    PathBuf::from(OsString::from_vec(unescape(field)))
}

/// Space, tab, newline and backslash are written as three octal digits.
fn unescape(field: &str) -> Vec<u8> {
    let bytes: Vec<u8> = field.chars().filter_map(|character| u8::try_from(character).ok()).collect();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let octal = bytes.get(at + 1..at + 4).filter(|digits| digits.iter().all(|digit| (b'0'..=b'7').contains(digit)));
        if let (b'\\', Some(digits)) = (byte, octal) {
            out.push(digits.iter().fold(0_u8, |value, digit| value.wrapping_mul(8).wrapping_add(digit - b'0')));
            at += 4;
        } else {
            out.push(byte);
            at += 1;
        }
    }
    out
}

/// The mounts on a mount point, lowest first.
pub fn on<'a>(entries: &'a [Entry], mount_point: &Path) -> Vec<&'a Entry> {
    entries.iter().filter(|entry| entry.mount_point == mount_point).collect()
}

/// The mounts over which a walk to a path leads, lowest first. One that is hidden by another is none of them.
pub fn way_to<'a>(entries: &'a [Entry], path: &Path) -> Vec<&'a Entry> {
    let is_root = |entry: &&Entry| {
        let has_parent = entries.iter().any(|other| other.id == entry.parent && other.id != entry.id);
        entry.mount_point == Path::new("/") && !has_parent
    };
    let mut way: Vec<&Entry> = entries.iter().find(is_root).into_iter().collect();
    for part in path.ancestors().collect::<Vec<_>>().into_iter().rev() {
        let on = |below: &Entry| {
            entries.iter().find(|entry| entry.parent == below.id && entry.id != below.id && entry.mount_point == part)
        };
        // a table that changed while it was read may lead in a circle
        while way.len() < entries.len()
            && let Some(next) = way.last().and_then(|below| on(below))
        {
            way.push(next);
        }
    }
    way
}

/// The CIFS mount on a mount point of this process's namespace, read from the mount table without a look at the path.
pub fn cifs_on(mount_point: &Path) -> io::Result<Option<Entry>> {
    let mut entries = read()?;
    entries.retain(|entry| entry.mount_point == mount_point && entry.fstype == "cifs");
    Ok(entries.pop())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_not_utf8_hides_no_other_mount() {
        let entries =
            parse(b"36 35 0:52 / /mnt/lat\xffin rw - tmpfs t rw\n37 35 0:53 / /mnt/\xc3\xa9 rw - cifs //a/b rw\n");
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[1].mount_point, Path::new("/mnt/\u{e9}"));
    }

    #[test]
    fn a_walk_leads_over_what_is_not_hidden() {
        let text = "22 1 8:1 / / rw - ext4 root rw\n30 22 8:2 / /a/b rw - ext4 hidden rw\n31 22 8:3 / /a rw - ext4 below rw\n\
                    32 31 8:4 / /a rw - ext4 above rw\n33 22 8:5 / /ab rw - ext4 other rw\n";
        let entries = parse(text.as_bytes());
        let way = |path: &str| way_to(&entries, Path::new(path)).iter().map(|entry| entry.id).collect::<Vec<_>>();
        assert_eq!(way("/a/b/c"), [22, 31, 32]);
        assert_eq!(way("/ab"), [22, 33]);
        assert_eq!(way("/x"), [22]);
        assert!(way_to(&[], Path::new("/x")).is_empty());
    }

    #[test]
    fn parses_optional_fields_and_escapes() {
        let text = "36 35 0:52 /a\\040b /mnt/my\\040films rw,relatime shared:3 master:1 - cifs //10.0.0.1/my\\134x rw,soft\n\
                    37 35 0:53 / /mnt/b rw - autofs nasmount:b rw,fd=7\nnonsense\n";
        let entries = parse(text.as_bytes());
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].mount_point, Path::new("/mnt/my films"));
        assert_eq!(entries[0].root, Path::new("/a b"));
        assert_eq!(entries[0].source, "//10.0.0.1/my\\x");
        assert_eq!((entries[0].id, entries[0].parent, entries[0].device), (36, 35, (0, 52)));
        assert_eq!((entries[0].shared, entries[0].master), (Some(3), Some(1)));
        assert_eq!((entries[1].shared, entries[1].master), (None, None));
        assert_eq!((entries[1].fstype.as_str(), entries[1].source.as_str()), ("autofs", "nasmount:b"));
    }
}
