//! What each step from a server's name to a share's data showed, and what that means: the judgement of `nasmount diagnose`.
//!
//! A step can only be tried when those before it went well, so the first that fails is the cause. Login, share and directory are one call
//! of the kernel, which answers with one number: the words in its log and a second try without the directory tell them apart. Where
//! they cannot, nothing is claimed of the steps before the one that is blamed.

mod address;
mod facts;
mod server;
mod status;
mod table;
mod trial;

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::config::settings::{OptionValue, ShareSettings};

pub use address::{Named, named, zoned};
pub use facts::{
    Encryption, Ending, Greeting, Look, NoConnection, NoGreeting, Part, Passed, Signing, Trial, TrialFailure,
    Unfinished,
};
pub use server::{
    add_way, dialect_name, dialects_of, of_clock, of_dialect, of_latency, of_name, of_network, of_port, of_signing,
    of_zone,
};
pub use status::{STATUSES, Status};
pub use table::{NUMBERS, Number, WORDS, Word};
pub use trial::{Subject, Writing, add_trial, next_part};

/// A step, in the order in which they are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// This host is on a network on which the server may be asked.
    Network,
    /// The server's name has an address.
    Name,
    /// This host has a route to it, and an address to come from.
    Route,
    /// The interface has a link.
    Link,
    /// The port takes connections.
    Port,
    /// SMB is spoken, in a version that was asked for.
    Dialect,
    /// What server and share demand of signatures and encryption fits.
    Signing,
    /// How long answers take.
    Latency,
    /// How far the clocks are apart.
    Clock,
    /// The credentials file can be used.
    Credentials,
    /// The kernel has CIFS and takes every option.
    Options,
    /// The server takes the login.
    Login,
    /// It has the share, and this user may use it.
    Share,
    /// The directory in it.
    Path,
    /// A mount that no path leads to.
    Mount,
    /// The root can be read.
    Read,
    /// The marker is there.
    Marker,
    /// A file can be written and read back.
    Write,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Network => "network",
            Self::Name => "name",
            Self::Route => "route",
            Self::Link => "link",
            Self::Port => "port",
            Self::Dialect => "dialect",
            Self::Signing => "signing",
            Self::Latency => "latency",
            Self::Clock => "clock",
            Self::Credentials => "credentials",
            Self::Options => "options",
            Self::Login => "login",
            Self::Share => "share",
            Self::Path => "path",
            Self::Mount => "mount",
            Self::Read => "read",
            Self::Marker => "marker",
            Self::Write => "write",
        })
    }
}

impl Step {
    /// All of a server.
    pub const OF_SERVER: [Self; 9] = [
        Self::Network,
        Self::Name,
        Self::Route,
        Self::Link,
        Self::Port,
        Self::Dialect,
        Self::Signing,
        Self::Latency,
        Self::Clock,
    ];
    /// All of a share on it.
    pub const OF_SHARE: [Self; 9] = [
        Self::Credentials,
        Self::Options,
        Self::Login,
        Self::Share,
        Self::Path,
        Self::Mount,
        Self::Read,
        Self::Marker,
        Self::Write,
    ];
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// Not; nothing after it was tried.
    Failed,
    /// Not tried, or nothing is known of it.
    Skipped,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        })
    }
}

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// Which.
    pub step: Step,
    /// How it ended.
    pub outcome: Outcome,
    /// What there is to say; may be empty.
    pub message: String,
    /// How long it took, where that was measured.
    pub seconds: Option<f64>,
}

/// A step that failed, why, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Which.
    pub step: Step,
    /// What was seen.
    pub message: String,
    /// Why: a sentence without a full stop.
    pub cause: String,
    /// What to do: the same.
    pub fix: String,
}

/// What there is to say of a step that went well, or what is wrong.
pub type Judged = Result<String, Trouble>;

/// All steps, as far as they came.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Diagnosis {
    /// In order.
    pub steps: Vec<Finding>,
    /// Of the step that failed.
    pub cause: Option<String>,
    /// What to do about it.
    pub fix: Option<String>,
    /// What the kernel logged about it.
    pub kernel: Vec<String>,
}

impl Diagnosis {
    /// Adds a step; returns whether it went well.
    pub fn judge(&mut self, step: Step, judged: Judged, took: Option<Duration>) -> bool {
        let seconds = took.map(|took| took.as_secs_f64());
        match judged {
            Ok(message) => self.steps.push(Finding { step, outcome: Outcome::Ok, message, seconds }),
            Err(Trouble { step, message, cause, fix }) => {
                self.steps.push(Finding { step, outcome: Outcome::Failed, message, seconds });
                (self.cause, self.fix) = (Some(cause), Some(fix));
            }
        }
        self.cause.is_none()
    }

    /// Adds a step that was not tried.
    pub fn skip(&mut self, step: Step, message: impl Into<String>) {
        self.steps.push(Finding { step, outcome: Outcome::Skipped, message: message.into(), seconds: None });
    }

    /// Adds those of `steps` that are missing at the end as not tried.
    pub fn skip_rest(&mut self, steps: &[Step]) {
        let last = self.steps.last().map(|finding| finding.step);
        for step in steps.iter().filter(|step| last.is_none_or(|last| **step > last)) {
            self.skip(*step, "");
        }
    }
}

fn trouble(step: Step, message: impl Into<String>, cause: impl Into<String>, fix: impl Into<String>) -> Trouble {
    Trouble { step, message: message.into(), cause: cause.into(), fix: fix.into() }
}

fn option<'share>(share: &'share ShareSettings, name: &str) -> Option<&'share str> {
    match share.options.get(name)? {
        OptionValue::Value(value) => Some(value),
        OptionValue::Flag => Some(""),
    }
}

#[cfg(test)]
mod tests;
