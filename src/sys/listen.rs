//! Sockets in nasmount's runtime directory, which only root can enter.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::Path;

/// Only root may enter the directory and connect.
const PRIVATE_DIRECTORY: u32 = 0o700;
const PRIVATE_SOCKET: u32 = 0o600;

/// Creates a directory for root only, if it is not there.
pub fn private_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(PRIVATE_DIRECTORY).create(path)
}

/// Listens on a Unix socket, in place of what an earlier process left there.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        private_directory(directory)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(PRIVATE_SOCKET))?;
    Ok(listener)
}

/// Takes the lock that says that a process of this kind runs; `None` if another one has it. Held until the file is dropped.
pub fn lock(path: &Path) -> io::Result<Option<fs::File>> {
    if let Some(directory) = path.parent() {
        private_directory(directory)?;
    }
    let file = fs::File::create(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}
