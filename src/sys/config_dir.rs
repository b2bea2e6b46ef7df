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
use crate::config::{SourceText, shipped_profiles};

/// Largest file that is read: a configuration of a thousand shares has less than a tenth of it.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// Most files that are read from one directory.
pub const FILES_MAX: usize = 256;

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
    #[error("there is no configuration at {path}", path = .path.display())]
    NoConfiguration {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A file or directory could not be read.
    #[error("cannot read {path}", path = .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something else than a file: reading a pipe or a device could take for ever.
    #[error("cannot read {path}: it is not a regular file", path = .path.display())]
    NotAFile {
        /// Which.
        path: PathBuf,
    },
    /// Whoever writes it commands root's service.
    #[error("{path} has mode {mode:04o}: anybody may change it", path = .path.display())]
    OpenToAll {
        /// Which file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// More than [`FILE_BYTES_MAX`].
    #[error("cannot read {path}: it is larger than {FILE_BYTES_MAX} bytes", path = .path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
    },
    /// Not UTF-8.
    #[error("cannot read {path}: it is not UTF-8 text", path = .path.display())]
    NotText {
        /// Which.
        path: PathBuf,
    },
    /// More than [`FILES_MAX`].
    #[error("cannot read {path}: it has more than {FILES_MAX} files", path = .path.display())]
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
            | Self::TooLarge { path }
            | Self::NotText { path }
            | Self::TooMany { path } => path,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::NoConfiguration { .. } => "write it (README.md has examples); --config names another file",
            Self::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => "run it as root",
            Self::Read { .. } => "see that it is there and can be read; a link to /dev/null stands for no file",
            Self::NotAFile { .. } => "replace it by a file; a link to /dev/null stands for no file",
            Self::OpenToAll { path, .. } => return format!("run `chmod o-w {}`", path.display()),
            Self::TooLarge { .. } => "this is no configuration of nasmount: move it away",
            Self::NotText { .. } => "save it as UTF-8",
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

    /// The same below another root directory, for tests. `extra` is one more directory of profiles.
    pub fn under(root: &Path, config: Option<&Path>, extra: Option<PathBuf>) -> Self {
        let etc = root.join("etc/nasmount");
        let main = config.map_or_else(|| etc.join("nasmount.toml"), Path::to_owned);
        let shipped = ["usr/share/nasmount/profiles", "usr/local/share/nasmount/profiles"];
        let mut profiles: Vec<PathBuf> = shipped.iter().map(|path| root.join(path)).collect();
        profiles.extend(extra);
        // What the administrator wrote for this machine has the last word.
        profiles.push(etc.join("profiles"));
        Self { drop_ins: main.with_file_name("conf.d"), main, profiles }
    }
}

/// Reads everything.
pub fn read_config(roots: &ConfigRoots) -> Result<ConfigTexts, ReadError> {
    let main = match read_text(&roots.main) {
        Err(ReadError::Read { source, path }) if source.kind() == io::ErrorKind::NotFound => {
            return Err(ReadError::NoConfiguration { path });
        }
        main => SourceText::new(&roots.main, main?),
    };
    let mut fragments = vec![main];
    fragments.extend(read_directory(&roots.drop_ins)?);
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
fn read_directory(directory: &Path) -> Result<Vec<SourceText>, ReadError> {
    let failed = |source| ReadError::Read { path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    refuse_open_to_all(directory, &fs::metadata(directory).map_err(failed)?)?;
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
    paths.into_iter().map(|path| Ok(SourceText::new(&path, read_text(&path)?))).collect()
}

fn is_masked(path: &Path) -> bool {
    fs::read_link(path).is_ok_and(|target| target == Path::new("/dev/null"))
}

fn refuse_open_to_all(path: &Path, metadata: &fs::Metadata) -> Result<(), ReadError> {
    const WRITABLE_BY_ALL: u32 = 0o002;
    let mode = metadata.mode() & 0o7777;
    if mode & WRITABLE_BY_ALL == 0 { Ok(()) } else { Err(ReadError::OpenToAll { path: path.to_owned(), mode }) }
}

/// Reads a text of limited size without ever waiting for it.
pub(super) fn read_text(path: &Path) -> Result<String, ReadError> {
    let mut bytes = read_bytes(path)?;
    String::from_utf8(std::mem::take(&mut *bytes)).map_err(|_| ReadError::NotText { path: path.to_owned() })
}

fn read_bytes(path: &Path) -> Result<Zeroizing<Vec<u8>>, ReadError> {
    let path = path.to_owned();
    let failed = |source| ReadError::Read { path: path.clone(), source };
    // Opening a FIFO would wait for a writer.
    let flags = nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(&path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(ReadError::NotAFile { path });
    }
    refuse_open_to_all(&path, &metadata)?;
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
        profiles.extend(read_directory(directory)?);
    }
    Ok(profiles)
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
    as_secret(&read_bytes(path)?).ok_or_else(|| ReadError::NotText { path: path.to_owned() })
}

/// The text of an fstab.
pub fn read_fstab(path: &Path) -> Result<String, ReadError> {
    read_text(path)
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
                format!("create it with the lines `username=NAME` and `password=…`, then `chmod 600 {path}`")
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
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn write(root: &Path, path: &str, text: &str) -> PathBuf {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn names(texts: &[SourceText]) -> Vec<String> {
        texts.iter().map(|text| text.path.file_name().unwrap().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn files_are_found_in_their_order() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        write(root, "etc/nasmount/nasmount.toml", "main");
        write(root, "etc/nasmount/conf.d/20-b.toml", "b");
        write(root, "etc/nasmount/conf.d/10-a.toml", "a");
        write(root, "etc/nasmount/conf.d/.30-hidden.toml", "");
        write(root, "etc/nasmount/conf.d/readme.txt", "");
        symlink("/dev/null", root.join("etc/nasmount/conf.d/15-masked.toml")).unwrap();
        write(root, "etc/nasmount/profiles/media.toml", "mine");
        write(root, "usr/share/nasmount/profiles/media.toml", "theirs");
        write(root, "extra/media.toml", "extra");
        let roots = ConfigRoots::under(root, None, Some(root.join("extra")));
        let texts = read_config(&roots).unwrap();
        assert_eq!(names(&texts.fragments), ["nasmount.toml", "10-a.toml", "20-b.toml"]);
        let found: Vec<_> = texts.profiles[4..].iter().map(|profile| profile.text.as_str()).collect();
        assert_eq!(found, ["theirs", "extra", "mine"]);
    }

    #[test]
    fn another_main_file_brings_its_own_drop_ins() {
        let root = tempfile::tempdir().unwrap();
        let main = write(root.path(), "here/my.toml", "");
        write(root.path(), "here/conf.d/1.toml", "");
        write(root.path(), "etc/nasmount/conf.d/2.toml", "");
        let texts = read_config(&ConfigRoots::under(root.path(), Some(&main), None)).unwrap();
        assert_eq!(names(&texts.fragments), ["my.toml", "1.toml"]);
    }

    #[test]
    fn what_anybody_may_change_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let roots = ConfigRoots::under(root.path(), None, None);
        write(root.path(), "etc/nasmount/nasmount.toml", "");
        let drop_in = write(root.path(), "etc/nasmount/conf.d/1.toml", "");
        for open in [&roots.main, &drop_in, &roots.drop_ins] {
            let mode = |mode| fs::set_permissions(open, fs::Permissions::from_mode(mode)).unwrap();
            mode(0o777);
            let error = read_config(&roots).unwrap_err();
            assert!(matches!(&error, ReadError::OpenToAll { path, .. } if path == open), "{error}");
            assert_eq!(error.hint(), format!("run `chmod o-w {}`", open.display()));
            mode(0o775);
            assert!(read_config(&roots).is_ok());
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let root = tempfile::tempdir().unwrap();
        let roots = ConfigRoots::under(root.path(), None, None);
        let error = read_config(&roots).unwrap_err();
        assert!(matches!(error, ReadError::NoConfiguration { .. }));
        assert!(error.hint().contains("--config"));
        fs::create_dir_all(&roots.main).unwrap();
        assert!(matches!(read_config(&roots).unwrap_err(), ReadError::NotAFile { .. }));
        fs::remove_dir(&roots.main).unwrap();
        fs::write(&roots.main, [0xff, 0xfe]).unwrap();
        assert!(matches!(read_config(&roots).unwrap_err(), ReadError::NotText { .. }));
        fs::write(&roots.main, vec![b'#'; 2 << 20]).unwrap();
        assert!(matches!(read_config(&roots).unwrap_err(), ReadError::TooLarge { .. }));
        fs::remove_file(&roots.main).unwrap();
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU);
        rustix::fs::mknodat(rustix::fs::CWD, &roots.main, kind, mode, 0).unwrap();
        assert!(matches!(read_config(&roots).unwrap_err(), ReadError::NotAFile { .. }));
    }

    #[test]
    fn credentials_are_for_root_only() {
        let root = tempfile::tempdir().unwrap();
        let path = write(root.path(), "tower.cred", "username=bob\npassword=hunter2\n");
        let owner = fs::metadata(&path).unwrap().uid();
        let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        mode(0o600);
        check_credentials_of(&path, owner).unwrap();
        mode(0o400);
        check_credentials_of(&path, owner).unwrap();
        for open in [0o640, 0o604, 0o620, 0o601] {
            mode(open);
            let error = check_credentials_of(&path, owner).unwrap_err();
            assert!(error.to_string().contains(&format!("{open:04o}")), "{error}");
            assert!(error.help().contains("chmod 600"));
        }
        mode(0o600);
        assert!(check_credentials_of(&path, owner + 1).unwrap_err().help().contains("chown root:root"));
        let link = root.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(matches!(check_credentials_of(&link, owner), Err(CredentialsFileError::NotAFile { .. })));
        assert!(matches!(check_credentials_of(root.path(), owner), Err(CredentialsFileError::NotAFile { .. })));
        let missing = check_credentials_of(&root.path().join("none"), owner).unwrap_err();
        assert!(missing.help().contains("chmod 600"));
    }
}
