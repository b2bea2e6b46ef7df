//! What the kernel logs about CIFS from a moment on. Nothing else has it: the messages of a mount's own context are those of its options.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;

/// The longest record (`PRINTKRB_RECORD_MAX` and its escapes): one that does not fit into the buffer is lost.
const RECORD: usize = 8 * 1024;

/// Lines that are kept; a kernel that says more says the same.
const MOST: usize = 40;

/// The log from where it was opened.
#[derive(Debug)]
pub struct KernelLog(File);

impl KernelLog {
    /// Begins behind the last record. Needs CAP_SYSLOG where `kernel.dmesg_restrict` is 1.
    pub fn from_now() -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg")?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self(file))
    }

    /// What has come since then.
    pub fn lines_of_cifs(mut self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut record = vec![0; RECORD];
        while lines.len() < MOST {
            match self.0.read(&mut record) {
                Ok(0) => break,
                Ok(length) => lines.extend(line_of_cifs(&String::from_utf8_lossy(&record[..length]))),
                // records were overwritten before they were read
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
                Err(_) => break, // EAGAIN: that was all
            }
        }
        lines
    }
}

/// `6,339,5140900,-;CIFS: VFS: text`, then lines of a dictionary that begin with a blank (Documentation/ABI/testing/dev-kmsg).
fn line_of_cifs(record: &str) -> Option<String> {
    let (_, text) = record.split_once(';')?;
    let line = text.lines().next()?;
    line.starts_with("CIFS: ").then(|| line.replace("\\x5c", "\\"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_cifs_are_those_that_say_so() {
        let line = |record| line_of_cifs(record);
        assert_eq!(
            line("3,1,2,-;CIFS: VFS: \\x5c\\x5c10.0.0.1 Send error in SessSetup = -13\n SUBSYSTEM=x\n"),
            Some("CIFS: VFS: \\\\10.0.0.1 Send error in SessSetup = -13".to_owned())
        );
        assert_eq!(
            line("5,1,2,-;CIFS: Status code returned 0xc000006d STATUS_LOGON_FAILURE\n"),
            Some("CIFS: Status code returned 0xc000006d STATUS_LOGON_FAILURE".to_owned())
        );
        assert_eq!(line("6,1,2,-;usb 1-1: new device; CIFS: no\n"), None);
        assert_eq!(line("garbage"), None);
    }
}
