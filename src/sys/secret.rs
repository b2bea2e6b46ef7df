//! Passwords in this process: no core dump has them, and a worker gets them without an argument, a variable or a file on a disk.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};

/// No core dump of this process from now on, also none through a pipe, which RLIMIT_CORE would not prevent; and only root may look
/// into it.
pub fn keep_out_of_core_dumps() -> io::Result<()> {
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// A login that workers can read like a credentials file: it lies in memory, has no name, and is wiped when this is dropped.
#[derive(Debug)]
pub struct Handover {
    file: File,
    length: usize,
}

impl Handover {
    /// Of the text of a credentials file. Workers that are started from now on inherit it.
    pub fn new(text: &SecretString) -> io::Result<Self> {
        // without CLOEXEC: it is inherited under the same number
        let mut file = File::from(memfd_create("login", MemfdFlags::empty())?);
        let text = text.expose_secret();
        file.write_all(text.as_bytes())?;
        Ok(Self { file, length: text.len() })
    }

    /// What a worker, and no other process, has to open.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        let _ = rustix::io::pwrite(&self.file, &vec![0; self.length], 0); // its memory is freed in any case
    }
}

/// The only line of standard input, without its line feed; `None` if there is nothing. Not through the buffer of `std`, which
/// keeps what it has read. A second line is an error: of two lines nobody knows which is the password.
pub fn line_of_stdin() -> io::Result<Option<SecretString>> {
    let stdin = io::stdin();
    // it may have been opened not to block
    let ready = || match poll(&mut [PollFd::new(&stdin, PollFlags::IN)], None) {
        Err(rustix::io::Errno::INTR) | Ok(_) => Ok(()),
        Err(error) => Err(error.into()),
    };
    let line = read_line(&stdin, ready)?;
    // at a terminal the end of a line is the end of it, and no end of the text ever comes
    if !stdin.is_terminal() && read_line(&stdin, ready)?.is_some() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "there is more than one line"));
    }
    Ok(line)
}

/// More is no line that anybody types, and no password.
const LONGEST_LINE: usize = 4096;

/// Byte by byte, so that nothing behind the line is taken; `ready` waits for each of them, or ends it. What was there and is gone is waited
/// for again.
pub(super) fn read_line(
    from: impl std::os::fd::AsFd,
    mut ready: impl FnMut() -> io::Result<()>,
) -> io::Result<Option<SecretString>> {
    let mut line = Zeroizing::new(Vec::with_capacity(LONGEST_LINE)); // never grows: that would leave a copy behind
    let mut byte = Zeroizing::new([0_u8]);
    loop {
        ready()?;
        match rustix::io::read(&from, &mut *byte) {
            Ok(0) if line.is_empty() => return Ok(None),
            Ok(0) => break,
            Ok(_) if byte[0] == b'\n' => break,
            Ok(_) if line.len() == LONGEST_LINE => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("more than {LONGEST_LINE} bytes")));
            }
            Ok(_) => line.push(byte[0]),
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let text = std::str::from_utf8(&line);
    text.map(|text| Some(text.into())).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use rustix::io::{FdFlags, fcntl_getfd};

    use super::*;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0)).unwrap();
        file
    }

    fn line(bytes: &[u8]) -> io::Result<Option<String>> {
        Ok(read_line(file(bytes), || Ok(()))?.map(|line| line.expose_secret().to_owned()))
    }

    #[test]
    fn a_line_ends_with_its_line_feed_and_keeps_all_else() {
        assert_eq!(line(b" a,b\t\nnot this\n").unwrap().unwrap(), " a,b\t");
        assert_eq!(line(b"without its end").unwrap().unwrap(), "without its end");
        assert_eq!(line(b"windows\r\n").unwrap().unwrap(), "windows\r");
        assert_eq!(line(b"\n").unwrap().unwrap(), "");
        assert!(line(b"").unwrap().is_none());
        assert!(line(&[b'x'; LONGEST_LINE]).is_ok());
        assert!(line(&[b'x'; LONGEST_LINE + 1]).unwrap_err().to_string().contains("4096"));
        assert!(line(&[0xff, b'\n']).unwrap_err().to_string().contains("UTF-8"));
    }

    #[test]
    fn a_login_is_handed_over_and_wiped() {
        let handover = Handover::new(&"username=bob\npassword=hunter2\n".into()).unwrap();
        assert!(!fcntl_getfd(&handover.file).unwrap().contains(FdFlags::CLOEXEC), "a worker inherits it");
        assert_eq!(std::fs::read_to_string(handover.path()).unwrap(), "username=bob\npassword=hunter2\n");
        assert!(!format!("{handover:?}").contains("hunter"));
        let other = File::open(handover.path()).unwrap();
        drop(handover);
        let left = io::read_to_string(other).unwrap();
        assert!(left.len() == 30 && left.bytes().all(|byte| byte == 0), "{left:?}");
    }
}
