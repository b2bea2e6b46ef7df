//! Files that lie beside a share: in the bare directory under its mount point, where the share hides them.
//!
//! A service wrote them while nothing was mounted there, before nasmount was in charge. Nobody sees them, and they fill the host's disk.

use serde::{Deserialize, Serialize};

/// What lies there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Everything but directories.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// How long the files are together, in bytes.
    pub bytes: u64,
    /// When the newest was last written, in seconds since the epoch; absent without a file.
    pub newest: Option<i64>,
    /// The first of them, as paths below the mount point.
    pub names: Vec<String>,
    /// Whether there are more than were counted.
    pub more: bool,
}

impl Found {
    /// Is there anything?
    pub fn is_empty(&self) -> bool {
        self.files + self.directories == 0
    }
}

/// Whether files are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Doing {
    /// They are.
    Move,
    /// It is only looked what would become of them.
    Look,
}

/// What became of one of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// Nothing yet: a large file is being copied.
    GoingOn,
    /// It was moved; a whole directory at once, if that was possible.
    Moved {
        /// Everything but directories.
        files: u64,
        /// How long they are together.
        bytes: u64,
    },
    /// It was there already, the same in content; the one beside the share is deleted.
    Same,
    /// It is moved, but not with all that it was: extended attributes, other names, owner and mode of what was there already.
    Without(Left),
    /// It was left where it is.
    Left(Left),
}

/// What was left where it is, or lost something on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Path below the mount point.
    pub path: String,
    /// Why.
    pub why: String,
}

/// What became of all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Files that were moved.
    pub moved: u64,
    /// How long they are together, in bytes.
    pub bytes: u64,
    /// Files that were there already.
    pub same: u64,
    /// What was moved, but not with all that it was.
    pub without: Vec<Left>,
    /// What was left.
    pub left: Vec<Left>,
}

impl Tally {
    /// Counts one more.
    pub fn add(&mut self, said: Said) {
        match said {
            Said::GoingOn => {}
            Said::Moved { files, bytes } => {
                self.moved += files;
                self.bytes += bytes;
            }
            Said::Same => self.same += 1,
            Said::Without(what) => self.without.push(what),
            Said::Left(left) => self.left.push(left),
        }
    }
}

/// Why a server may refuse a name that is good on Linux ([MS-FSCC] 2.1.5); `None` if none should.
pub fn unfit(name: &[u8]) -> Option<&'static str> {
    const DEVICES: [&str; 22] = [
        "con", "prn", "aux", "nul", "com1", "com2", "com3", "com4", "com5", "com6", "com7", "com8", "com9", "lpt1",
        "lpt2", "lpt3", "lpt4", "lpt5", "lpt6", "lpt7", "lpt8", "lpt9",
    ];
    let Ok(text) = core::str::from_utf8(name) else { return Some("its name is not UTF-8") };
    let stem = text.split('.').next().unwrap_or_default().to_lowercase();
    if text.contains(|letter: char| letter.is_control() || "\"*:<>?\\|".contains(letter)) {
        Some("its name has a character that SMB does not allow, one of \" * : < > ? \\ | or a control character")
    } else if text.ends_with(['.', ' ']) {
        Some("its name ends with a dot or a space, which SMB does not allow")
    } else if DEVICES.contains(&stem.as_str()) {
        Some("its name is one of Windows' devices")
    } else if text.encode_utf16().count() > 255 {
        Some("its name is longer than 255 characters")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_smb_does_not_allow_are_known() {
        for name in ["a:b", "a?", "x\\y", "tab\there", "end.", "end ", "NUL", "com1.txt"] {
            assert!(unfit(name.as_bytes()).is_some(), "{name}");
        }
        assert!(unfit(b"lat\xffin").is_some() && unfit("ä".repeat(256).as_bytes()).is_some());
        for name in ["film.mkv", ".hidden", "a b", "console", "ä.txt", "com10"] {
            assert_eq!(unfit(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn each_is_counted_once() {
        let mut tally = Tally::default();
        let left = Left { path: "a".to_owned(), why: "it is".to_owned() };
        [
            Said::Moved { files: 3, bytes: 10 },
            Said::GoingOn,
            Said::Same,
            Said::Left(left.clone()),
            Said::Without(left.clone()),
            Said::Moved { files: 1, bytes: 0 },
        ]
        .into_iter()
        .for_each(|said| tally.add(said));
        assert_eq!(tally, Tally { moved: 4, bytes: 10, same: 1, without: vec![left.clone()], left: vec![left] });
    }
}
