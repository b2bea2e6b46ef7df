//! What was seen: handed in by `sys`, judged in the module above.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One look at the port of SMB.
#[derive(Clone, Debug, PartialEq)]
pub enum Look {
    /// Nobody took the connection.
    NoConnection(NoConnection),
    /// It was taken, and no NEGOTIATE was answered.
    NoGreeting {
        /// How long the connection took.
        connect: Duration,
        /// What came instead.
        why: NoGreeting,
    },
    /// The server speaks SMB 2 or 3.
    Greeted {
        /// How long the connection took.
        connect: Duration,
        /// How long the answer took.
        answer: Duration,
        /// What it says.
        greeting: Greeting,
        /// By how many seconds its clock is ahead of ours; `None` if it does not tell the time.
        ahead: Option<f64>,
    },
}

/// Why there was no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoConnection {
    /// The machine is there, and nobody listens.
    Refused,
    /// Nothing came back in time.
    Silent,
    /// Somebody on the way said that it cannot be reached, or nobody knows its hardware address.
    Unreachable,
    /// This host's own error.
    Other(String),
}

/// What came instead of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoGreeting {
    /// SMB 1 is spoken, and nothing newer.
    Smb1,
    /// TLS.
    Tls,
    /// HTTP.
    Http,
    /// Something else.
    Garbled,
    /// The end of the connection.
    Closed,
    /// Nothing in time.
    Silent,
    /// The beginning of an answer, and not the rest of it.
    Incomplete {
        /// How many bytes came.
        bytes: usize,
        /// How many the answer has, if so many came that this is known.
        of: Option<usize>,
        /// Why there are no more.
        ending: Unfinished,
    },
    /// An NT status ([`super::STATUSES`]).
    Status(u32),
}

/// Why an answer has no end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfinished {
    /// The server ended the connection.
    Closed,
    /// Time was over.
    Late,
}

/// What a NEGOTIATE response says ([MS-SMB2] 2.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// The version that it chose.
    pub dialect: u16,
    /// Whether it demands that everything is signed.
    pub signing: Signing,
    /// Whether it can encrypt.
    pub encryption: Encryption,
    /// Its time, in units of 100 ns since 1601; 0 if it does not tell.
    pub system_time: u64,
}

/// What a server demands of signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signing {
    /// Everything is signed.
    Required,
    /// What the client signs is signed.
    Possible,
}

/// What a server can do about encryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// It can.
    Possible,
    /// It cannot, or was not asked for what it can.
    None,
}

/// A part of trying a share in a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The kernel has CIFS and takes the login and every option.
    Options,
    /// The share can be mounted without the directory in it, which could not.
    ShareAlone,
    /// The server has let the kernel in.
    Create,
    /// The mount, which no path leads to.
    Mount,
    /// The root was read.
    Read,
    /// The marker is there.
    Marker,
    /// A file was written, read back and deleted.
    Write,
}

/// A part that went well.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Passed {
    /// Which.
    pub part: Part,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// What there is to say; may be empty.
    pub said: String,
}

/// How trying a share ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// What went well, in order.
    pub passed: Vec<Passed>,
    /// What did not, if there is something.
    pub failed: Option<TrialFailure>,
    /// What the kernel logged about CIFS meanwhile; `None` if that could not be read.
    pub log: Option<Vec<String>>,
}

/// Why a part failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrialFailure {
    /// Which.
    pub part: Part,
    /// What was attempted on what, and the cause.
    pub message: String,
    /// The error's number and name, where there is one.
    pub errno: Option<(i32, String)>,
    /// Whether it failed, or did not return in time.
    pub ending: Ending,
}

/// How a part ended that did not go well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With an error.
    Error,
    /// Not in time.
    Hangs,
}
