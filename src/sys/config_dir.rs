//! Finds and reads the files of the configuration.
//!
//! Masking works as with systemd: a symbolic link to `/dev/null` in `conf.d` or in a directory of profiles stands for no
//! file at all.

#![expect(clippy::disallowed_methods, reason = "this is the one place that reads the files of the configuration")]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::{fs, io};

use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;

use super::mountinfo;
use crate::config::{SourceText, shipped_profiles, shown};
use crate::plan::bytes;

/// Largest file that is read: a configuration of a thousand shares has less than a tenth of it.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// Most files that are read from one directory.
pub const FILES_MAX: usize = 256;

const WRITABLE_BY_GROUP: u32 = 0o020;

/// Environment variable that names one more directory of profiles.
pub const PROFILES_VARIABLE: &str = "NASMOUNT_PROFILES";

/// Where the files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigRoots {
    /// The main file; it must exist.
    pub main: PathBuf,
    /// Directory of drop-ins, read in the order of their names; may be absent.
    pub drop_ins: PathBuf,
    /// Directories of profiles, the later one wins; each may be absent.
    pub profiles: Vec<PathBuf>,
    /// Uid whose files are taken besides root's: that of whoever runs the program, which is root's for the daemon.
    pub user: u32,
}

/// All texts of a configuration, in the order in which they override each other. Feed them to [`crate::config::load`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigTexts {
    /// The main file, then the drop-ins.
    pub fragments: Vec<SourceText>,
    /// The built-in profiles, then those found.
    pub profiles: Vec<SourceText>,
}

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no main file.
    #[error("there is no configuration at {path}", path = shown(.path))]
    NoConfiguration {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A file or directory could not be read.
    #[error("cannot read {path}", path = shown(.path))]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something else than a file: reading a pipe or a device could take for ever.
    #[error("cannot read {path}: it is not a regular file", path = shown(.path))]
    NotAFile {
        /// Which.
        path: PathBuf,
    },
    /// Whoever writes it commands root's service.
    #[error("{path} has mode {mode:04o}: anybody may change it", path = shown(.path))]
    OpenToAll {
        /// Which file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The same.
    #[error("{path} belongs to user {owner}, not to root, whose service obeys it", path = shown(.path))]
    NotOwnedByRoot {
        /// Which file or directory.
        path: PathBuf,
        /// Its owner's uid.
        owner: u32,
    },
    /// The same.
    #[error("{path} has mode {mode:04o}: the group {group} may change it", path = shown(.path))]
    OpenToGroup {
        /// Which file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Its group's gid.
        group: u32,
    },
    /// More than [`FILE_BYTES_MAX`].
    #[error("cannot read {path}: it is larger than {FILE_BYTES_MAX} bytes", path = shown(.path))]
    TooLarge {
        /// Which.
        path: PathBuf,
    },
    /// Not UTF-8.
    #[error("cannot read {path}: line {line} is not UTF-8 text", path = shown(.path))]
    NotText {
        /// Which.
        path: PathBuf,
        /// The first line that is none, from 1.
        line: usize,
        /// And where in it, in characters from 1.
        column: usize,
    },
    /// More than [`FILES_MAX`].
    #[error("cannot read {path}: it has more than {FILES_MAX} files", path = shown(.path))]
    TooMany {
        /// Which directory.
        path: PathBuf,
    },
}

impl ReadError {
    /// Which file or directory.
    pub fn path(&self) -> &Path {
        match self {
            Self::NoConfiguration { path }
            | Self::Read { path, .. }
            | Self::NotAFile { path }
            | Self::OpenToAll { path, .. }
            | Self::NotOwnedByRoot { path, .. }
            | Self::OpenToGroup { path, .. }
            | Self::TooLarge { path }
            | Self::NotText { path, .. }
            | Self::TooMany { path } => path,
        }
    }

    /// Line and column, if it is a place in the file.
    pub fn place(&self) -> Option<(usize, usize)> {
        if let Self::NotText { line, column, .. } = self { Some((*line, *column)) } else { None }
    }

    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::NoConfiguration { .. } => "write it (README.md has examples); --config names another file",
            Self::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => "run it as root",
            Self::Read { .. } => "see that it is there and can be read; a link to /dev/null stands for no file",
            Self::NotAFile { .. } => "replace it by a file; a link to /dev/null stands for no file",
            // to others at once: a foreign group would be the next to be refused
            Self::OpenToAll { path, mode } if mode & WRITABLE_BY_GROUP != 0 => {
                return format!("run `chmod go-w {}`", shown(path));
            }
            Self::OpenToAll { path, .. } => return format!("run `chmod o-w {}`", shown(path)),
            Self::NotOwnedByRoot { path, .. } => return format!("run `chown root {}`", shown(path)),
            Self::OpenToGroup { path, .. } => return format!("run `chmod g-w {}`", shown(path)),
            Self::TooLarge { .. } => "see what is in it: a file of this kind has less than a tenth of that",
            Self::NotText { .. } => "save it as UTF-8: an editor that shows its letters rightly can convert it",
            Self::TooMany { .. } => "put several tables into one file",
        }
        .to_owned()
    }
}

impl ConfigRoots {
    /// The roots of an installed nasmount. `config` replaces the main file and takes the `conf.d` beside it.
    pub fn system(config: Option<&Path>) -> Self {
        let extra = std::env::var_os(PROFILES_VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
        Self::under(Path::new("/"), config, extra)
    }

    /// The same wherever this was called from: what is named in a configuration has an absolute path.
    pub fn absolute(self) -> Self {
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        Self { main: absolute(self.main), drop_ins: absolute(self.drop_ins), ..self }
    }

    /// The same below another root directory, for tests. `extra` is one more directory of profiles.
    pub fn under(root: &Path, config: Option<&Path>, extra: Option<PathBuf>) -> Self {
        let etc = root.join("etc/nasmount");
        let main = config.map_or_else(|| etc.join("nasmount.toml"), Path::to_owned);
        let shipped = ["usr/share/nasmount/profiles", "usr/local/share/nasmount/profiles"];
        let mut profiles: Vec<PathBuf> = shipped.iter().map(|path| root.join(path)).collect();
        profiles.extend(extra);
        // What the administrator wrote for this machine has the last word.
        profiles.push(etc.join("profiles"));
        let user = rustix::process::geteuid().as_raw();
        Self { drop_ins: main.with_file_name("conf.d"), main, profiles, user }
    }
}

/// Reads everything.
pub fn read_config(roots: &ConfigRoots) -> Result<ConfigTexts, ReadError> {
    let refuse = |path: &Path, metadata: &fs::Metadata| refuse_others(path, metadata, roots.user);
    let main = match read_bytes(&roots.main, refuse).and_then(|bytes| as_text(&roots.main, bytes)) {
        Err(ReadError::Read { source, path }) if source.kind() == io::ErrorKind::NotFound => {
            return Err(ReadError::NoConfiguration { path });
        }
        main => SourceText::new(&roots.main, main?),
    };
    refuse_directory(&roots.main, roots.user)?;
    let mut fragments = vec![main];
    fragments.extend(read_directory(&roots.drop_ins, roots.user)?);
    let profiles = read_profiles(roots)?;
    Ok(ConfigTexts { fragments, profiles })
}

/// The same; none at all if there is no main file yet.
pub fn read_config_or_none(roots: &ConfigRoots) -> Result<ConfigTexts, ReadError> {
    match read_config(roots) {
        Err(ReadError::NoConfiguration { .. }) => {
            Ok(ConfigTexts { fragments: Vec::new(), profiles: read_profiles(roots)? })
        }
        texts => texts,
    }
}

/// All `*.toml` of a directory in the order of their names, without hidden and masked ones. No directory, no files.
fn read_directory(directory: &Path, user: u32) -> Result<Vec<SourceText>, ReadError> {
    read_each(directory, user)?.into_iter().collect()
}

/// The same, each for itself.
fn read_each(directory: &Path, user: u32) -> Result<Vec<Result<SourceText, ReadError>>, ReadError> {
    let failed = |source| ReadError::Read { path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    refuse_others(directory, &fs::metadata(directory).map_err(failed)?, user)?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension() == Some(OsStr::new("toml")) && !is_masked(&path) {
            paths.push(path);
        }
        if paths.len() > FILES_MAX {
            return Err(ReadError::TooMany { path: directory.to_owned() });
        }
    }
    paths.sort();
    let refuse = |path: &Path, metadata: &fs::Metadata| refuse_others(path, metadata, user);
    let read = |path: PathBuf| Ok(SourceText::new(&path, as_text(&path, read_bytes(&path, refuse)?)?));
    Ok(paths.into_iter().map(read).collect())
}

fn is_masked(path: &Path) -> bool {
    fs::read_link(path).is_ok_and(|target| target == Path::new("/dev/null"))
}

fn refuse_open_to_all(path: &Path, metadata: &fs::Metadata) -> Result<(), ReadError> {
    const WRITABLE_BY_ALL: u32 = 0o002;
    let mode = metadata.mode() & 0o7777;
    if mode & WRITABLE_BY_ALL == 0 { Ok(()) } else { Err(ReadError::OpenToAll { path: path.to_owned(), mode }) }
}

/// Root's service obeys what it says, so nobody else may change it. What belongs to whoever runs this, who is not root, is theirs to try.
fn refuse_others(path: &Path, metadata: &fs::Metadata, user: u32) -> Result<(), ReadError> {
    refuse_open_to_all(path, metadata)?;
    let (owner, group, mode) = (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777);
    match owner {
        0 if mode & WRITABLE_BY_GROUP != 0 && group != 0 => {
            Err(ReadError::OpenToGroup { path: path.to_owned(), mode, group })
        }
        owner if owner == 0 || owner == user => Ok(()),
        owner => Err(ReadError::NotOwnedByRoot { path: path.to_owned(), owner }),
    }
}

/// The same for the directory of the main file: who can write it puts another file there. In one like `/tmp` they cannot.
fn refuse_directory(main: &Path, user: u32) -> Result<(), ReadError> {
    const STICKY: u32 = 0o1000;
    let directory = main.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let metadata = fs::metadata(directory).map_err(|source| ReadError::Read { path: directory.to_owned(), source })?;
    if metadata.mode() & STICKY != 0 && metadata.uid() == 0 {
        Ok(())
    } else {
        refuse_others(directory, &metadata, user)
    }
}

/// Reads a text of limited size without ever waiting for it.
pub(super) fn read_text(path: &Path) -> Result<String, ReadError> {
    as_text(path, read_bytes(path, refuse_open_to_all)?)
}

fn as_text(path: &Path, mut bytes: Zeroizing<Vec<u8>>) -> Result<String, ReadError> {
    String::from_utf8(std::mem::take(&mut *bytes)).map_err(|error| {
        let bytes = Zeroizing::new(error.into_bytes()); // they may have a password
        not_text(path, &bytes)
    })
}

/// The place is that of the first byte which is no text.
fn not_text(path: &Path, bytes: &[u8]) -> ReadError {
    let before = bytes.utf8_chunks().next().map(|chunk| chunk.valid()).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    ReadError::NotText { path: path.to_owned(), line, column }
}

fn read_bytes(
    path: &Path,
    refuse: impl FnOnce(&Path, &fs::Metadata) -> Result<(), ReadError>,
) -> Result<Zeroizing<Vec<u8>>, ReadError> {
    let path = path.to_owned();
    let failed = |source| ReadError::Read { path: path.clone(), source };
    // Opening a FIFO would wait for a writer.
    let flags = nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(&path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(ReadError::NotAFile { path });
    }
    refuse(&path, &metadata)?;
    if metadata.len() > FILE_BYTES_MAX {
        return Err(ReadError::TooLarge { path });
    }
    let bytes = read_at_most(file, metadata.len(), FILE_BYTES_MAX + 1).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(ReadError::TooLarge { path });
    }
    Ok(bytes)
}

/// In a buffer that does not grow unless the file does: that would leave copies of a password behind.
fn read_at_most(file: fs::File, expected: u64, most: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    const MORE: u64 = 64; // what `read_to_end` asks for to see the end
    let mut bytes = Zeroizing::new(Vec::with_capacity((expected.min(most) + MORE) as usize));
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn as_secret(bytes: &[u8]) -> Option<SecretString> {
    std::str::from_utf8(bytes).ok().map(SecretString::from)
}

/// What is where a share is to be mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountPoint {
    /// A directory, or nothing yet, or a mount; or it cannot be seen by this user.
    Usable,
    /// This is something else than a directory.
    NotADirectory(PathBuf),
    /// A symbolic link is in its way; it leads there.
    Elsewhere(PathBuf),
}

/// Looks at a mount point, and at nothing that is mounted from elsewhere, which might not answer.
pub fn mount_point_on_host(mount_point: &Path) -> MountPoint {
    let mounts = mountinfo::read().unwrap_or_default();
    for part in mount_point.ancestors().collect::<Vec<_>>().into_iter().rev() {
        match mountinfo::on(&mounts, part).last() {
            Some(_) if part == mount_point => return MountPoint::Usable,
            Some(mount) if is_from_elsewhere(&mount.fstype) => return MountPoint::Usable,
            Some(_) => continue,
            None => {}
        }
        let Ok(metadata) = fs::symlink_metadata(part) else { return MountPoint::Usable };
        if metadata.is_symlink() {
            let Ok(target) = fs::canonicalize(part) else { return MountPoint::NotADirectory(part.to_owned()) };
            let rest = mount_point.strip_prefix(part).unwrap_or(Path::new(""));
            return MountPoint::Elsewhere(target.join(rest).components().collect());
        }
        if !metadata.is_dir() {
            return MountPoint::NotADirectory(part.to_owned());
        }
    }
    MountPoint::Usable
}

/// Whether a file system of this type may not answer, or mounts something when it is walked into.
pub(super) fn is_from_elsewhere(fstype: &str) -> bool {
    const FROM_ELSEWHERE: &[&str] = &["9p", "afs", "autofs", "ceph", "cifs", "nfs", "nfs4", "smb3"];
    FROM_ELSEWHERE.contains(&fstype) || fstype.starts_with("fuse")
}

/// Text of a credentials file: some lines.
pub fn read_credentials(path: &Path) -> io::Result<SecretString> {
    const MOST: u64 = 64 * 1024;
    let bytes = read_at_most(fs::File::open(path)?, MOST, MOST)?;
    as_secret(&bytes).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text"))
}

/// The built-in profiles, then those found.
pub fn read_profiles(roots: &ConfigRoots) -> Result<Vec<SourceText>, ReadError> {
    let mut profiles = shipped_profiles();
    for directory in &roots.profiles {
        profiles.extend(read_directory(directory, roots.user)?);
    }
    Ok(profiles)
}

/// The same as far as they can be read, and why the others cannot.
pub fn read_profiles_in_part(roots: &ConfigRoots) -> (Vec<SourceText>, Vec<ReadError>) {
    let (mut profiles, mut errors) = (shipped_profiles(), Vec::new());
    let mut sort = |read: Result<SourceText, ReadError>| match read {
        Ok(profile) => profiles.push(profile),
        Err(error) => errors.push(error),
    };
    for directory in &roots.profiles {
        match read_each(directory, roots.user) {
            Ok(read) => read.into_iter().for_each(&mut sort),
            Err(error) => sort(Err(error)),
        }
    }
    (profiles, errors)
}

/// The files of a directory, by their paths; none if there is no directory.
pub fn files_of(directory: &Path) -> io::Result<BTreeSet<PathBuf>> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) => Err(error),
    }
}

/// A text that has passwords.
pub fn read_private(path: &Path) -> Result<SecretString, ReadError> {
    let bytes = read_bytes(path, refuse_open_to_all)?;
    as_secret(&bytes).ok_or_else(|| not_text(path, &bytes))
}

/// The permission bits of a file that somebody besides its owner may read or change; `None` if nobody may.
pub fn mode_for_others(path: &Path) -> Option<u32> {
    const OTHERS: u32 = 0o077;
    let mode = fs::symlink_metadata(path).ok()?.mode() & 0o7777;
    (mode & OTHERS != 0).then_some(mode)
}

/// The text of an fstab, in which comments may be in any encoding ([`bytes`]).
pub fn read_fstab(path: &Path) -> Result<String, ReadError> {
    Ok(bytes::text_of(&read_bytes(path, refuse_open_to_all)?))
}

/// Why a credentials file is not used: others could read it or change it.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsFileError {
    /// It is not there, or cannot be looked at.
    #[error("cannot use the credentials file {path}", path = .path.display())]
    Unreachable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A directory, a device, a symbolic link.
    #[error("the credentials file {path} is not a regular file", path = .path.display())]
    NotAFile {
        /// Which.
        path: PathBuf,
    },
    /// Somebody else could change it.
    #[error("the credentials file {path} belongs to user {owner}, not to root", path = .path.display())]
    NotOwnedByRoot {
        /// Which.
        path: PathBuf,
        /// Its owner's uid.
        owner: u32,
    },
    /// Somebody else can read or write it.
    #[error("the credentials file {path} has mode {mode:04o}: others may read or change it", path = .path.display())]
    OpenToOthers {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

impl CredentialsFileError {
    /// What to do about it.
    pub fn help(&self) -> String {
        match self {
            Self::Unreachable { path, source } if source.kind() == io::ErrorKind::NotFound => {
                let path = path.display();
                let by_hand = "or create it with the lines `username=NAME` and `password=…`, then";
                format!("`nasmount login SERVER` writes it; {by_hand} `chmod 600 {path}`")
            }
            Self::Unreachable { .. } => "run the check as root".to_owned(),
            Self::NotAFile { .. } => "write the path of the file itself, not of a directory or a link".to_owned(),
            Self::NotOwnedByRoot { path, .. } => format!("run `chown root:root {}`", path.display()),
            Self::OpenToOthers { path, .. } => format!("run `chmod 600 {}`", path.display()),
        }
    }
}

/// Whether a file may hold a password: a regular file of root's, closed to group and others. Its content is not read.
pub fn check_credentials_file(path: &Path) -> Result<(), CredentialsFileError> {
    check_credentials_of(path, 0)
}

fn check_credentials_of(path: &Path, expected_owner: u32) -> Result<(), CredentialsFileError> {
    let path = path.to_owned();
    let metadata = match fs::symlink_metadata(&path) {
        Ok(metadata) => metadata,
        Err(source) => return Err(CredentialsFileError::Unreachable { path, source }),
    };
    let mode = metadata.mode() & 0o7777;
    if !metadata.is_file() {
        return Err(CredentialsFileError::NotAFile { path });
    }
    if metadata.uid() != expected_owner {
        return Err(CredentialsFileError::NotOwnedByRoot { path, owner: metadata.uid() });
    }
    if mode & 0o077 != 0 {
        return Err(CredentialsFileError::OpenToOthers { path, mode });
    }
    Ok(())
}

#[cfg(test)]
#[path = "config_dir_tests.rs"]
mod tests;
