//! Recordings on disk: /var/lib/nasmount/recordings, for root only.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::listen::private_directory;

/// Where they are.
pub const DIRECTORY: &str = "/var/lib/nasmount/recordings";

const SUFFIX: &str = ".jsonl";

/// Writes `NAME-TIME.jsonl` and returns its path. `time` sorts as text does.
pub fn write(directory: &Path, share: &str, time: &str, text: &str) -> io::Result<PathBuf> {
    private_directory(directory)?;
    let path = directory.join(format!("{share}-{time}{SUFFIX}"));
    let temporary = path.with_extension("new");
    write_to(&temporary, text)?;
    fs::rename(&temporary, &path)?;
    Ok(path)
}

/// Writes to a file of any name.
pub fn write_to(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

/// Largest recording that is read: a hundred times what the daemon writes.
const BYTES_MAX: u64 = 16 << 20;

/// Reads one; `-` is standard input.
pub fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let count = if path == Path::new("-") {
        io::stdin().take(BYTES_MAX + 1).read_to_string(&mut text)?
    } else {
        fs::File::open(path)?.take(BYTES_MAX + 1).read_to_string(&mut text)?
    };
    if count as u64 > BYTES_MAX {
        return Err(io::Error::other(format!("it is larger than {BYTES_MAX} bytes, so it is no recording")));
    }
    Ok(text)
}

/// Removes the oldest until `keep` are left.
pub fn prune(directory: &Path, keep: usize) -> io::Result<()> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let Some(stem) = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)) else { continue };
        if let Some((share, time)) = stem.rsplit_once('-') {
            found.push((time.to_owned(), share.to_owned(), name));
        }
    }
    found.sort();
    for (_, _, name) in found.iter().rev().skip(keep) {
        fs::remove_file(directory.join(name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_newest_are_kept_whatever_the_shares_are_called() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().join("recordings");
        for hour in 0..6 {
            for share in ["b-c", "a"] {
                write(&directory, share, &format!("20260101T{hour:02}0000Z"), "x\n").unwrap();
            }
        }
        fs::write(directory.join("notes.txt"), "somebody else's").unwrap();
        prune(&directory, 3).unwrap();
        let mut left: Vec<String> =
            fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(
            left,
            ["a-20260101T050000Z.jsonl", "b-c-20260101T040000Z.jsonl", "b-c-20260101T050000Z.jsonl", "notes.txt"]
        );
    }

    #[test]
    fn only_root_may_read_one() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = write(directory.path(), "media", "20260101T000000Z", "x\n").unwrap();
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
