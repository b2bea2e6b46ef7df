//! What was put into a share, kept so that it can be put into one again: a share is a function of its inputs, so a
//! recording is all that a bug needs.
//!
//! Memory is bounded, so a recording forgets its beginning; but inputs without what the share was before them say nothing.
//! So it is made of *segments*, each of which begins with a snapshot of the share, taken before the segment's first input.
//! Two are kept: when the younger is full, the older goes, and what is left still has a beginning.
//!
//! A dump is JSON lines: a [`Header`] with the oldest snapshot, then one [`Entry`] an input. Nothing secret can be in it,
//! because a share is told nothing secret: the login is read by the worker that mounts.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use tracing::error;

use super::command::{Refusal, Verdict};
use super::effect::Effect;
use super::event::Input;
use super::time::BootInstant;
use super::{Command, Share, Transition};

/// Version of the form of a dump. A share that holds other things, or an input that is another one, raises it.
pub const SCHEMA: u32 = 5;

/// Most inputs in a segment. An open share has two in ten seconds, so that two segments are some hours.
const SEGMENT_INPUTS_MAX: usize = 1_000;

/// Most bytes in a segment: an input has about 60, and one that carries a long message must not cost the daemon its limit
/// of memory. Ten shares then need 1.3 MiB at most.
const SEGMENT_BYTES_MAX: usize = 64 * 1024;

/// First line of a dump.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header<Snapshot = Share> {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Version of the nasmount that recorded it.
    pub nasmount: String,
    /// Name of the share.
    pub share: String,
    /// Seconds since the epoch at which the host was booted, which makes wall-clock times of the instants.
    pub boot_at: Option<f64>,
    /// The share before the first input.
    pub snapshot: Snapshot,
}

/// Any other line of a dump.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When.
    pub at: BootInstant,
    /// What was put in.
    pub input: Input,
}

#[derive(Debug)]
struct Segment {
    snapshot: String,
    /// Serialised entries, one a line: half of what the values themselves would need.
    lines: String,
    inputs: usize,
}

/// Records one share.
#[derive(Debug)]
pub struct Recorder {
    share: String,
    segments: VecDeque<Segment>,
}

impl Recorder {
    /// An empty recording of the share of this name.
    pub fn new(share: impl Into<String>) -> Self {
        Self { share: share.into(), segments: VecDeque::new() }
    }

    /// Records what is about to be put into `share`.
    pub fn record(&mut self, share: &Share, now: BootInstant, input: &Input) {
        if let Err(error) = self.try_record(share, now, input) {
            self.segments.clear(); // a recording with a gap would replay to something else
            error!(share = self.share, %error, "cannot record an input");
        }
    }

    fn try_record(&mut self, share: &Share, now: BootInstant, input: &Input) -> serde_json::Result<()> {
        /// As [`Entry`], borrowed.
        #[derive(Serialize)]
        struct Borrowed<'a> {
            at: BootInstant,
            input: &'a Input,
        }
        let line = serde_json::to_string(&Borrowed { at: now, input })?;
        let has_room = |segment: &Segment| {
            segment.inputs < SEGMENT_INPUTS_MAX && segment.lines.len() + line.len() < SEGMENT_BYTES_MAX
        };
        if !self.segments.back().is_some_and(has_room) {
            let snapshot = serde_json::to_string(share)?;
            if self.segments.len() == 2 {
                self.segments.pop_front();
            }
            self.segments.push_back(Segment { snapshot, lines: String::new(), inputs: 0 });
        }
        if let Some(segment) = self.segments.back_mut() {
            segment.lines.push_str(&line);
            segment.lines.push('\n');
            segment.inputs += 1;
        }
        Ok(())
    }

    /// The recording as JSON lines; `None` if nothing has been recorded yet. `boot_at` as in [`Header`].
    pub fn dump(&self, boot_at: Option<f64>) -> Option<String> {
        let first = self.segments.front()?;
        let snapshot: serde_json::Value = serde_json::from_str(&first.snapshot).ok()?;
        let nasmount = env!("CARGO_PKG_VERSION").to_owned();
        let header = Header { schema: SCHEMA, nasmount, share: self.share.clone(), boot_at, snapshot };
        let mut text = serde_json::to_string(&header).ok()? + "\n";
        text.extend(self.segments.iter().map(|segment| segment.lines.as_str()));
        Some(text)
    }
}

/// A recording that was read.
#[derive(Clone, Debug)]
pub struct Recording {
    /// Whose, and how it began.
    pub header: Header,
    /// What was put in, in order.
    pub entries: Vec<Entry>,
}

/// Why a recording cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Unreadable {
    /// Which line, counted from 1.
    pub line: usize,
    /// What is wrong there.
    pub message: String,
    /// What to do.
    pub hint: String,
}

impl Recording {
    /// Reads a dump.
    pub fn read(text: &str) -> Result<Self, Unreadable> {
        let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let Some((number, first)) = lines.next() else {
            let hint = "`nasmount dump SHARE` writes a recording".to_owned();
            return Err(Unreadable { line: 1, message: "the recording is empty".to_owned(), hint });
        };
        let header = read_header(number + 1, first)?;
        let mut entries: Vec<Entry> = Vec::new();
        for (number, line) in lines {
            let entry: Entry = serde_json::from_str(line).map_err(|error| unreadable_entry(number + 1, &error))?;
            if entries.last().is_some_and(|before| before.at > entry.at) {
                let message = "this input is earlier than the one before it".to_owned();
                let hint = "inputs stand in the order in which they happened: put the line where it belongs".to_owned();
                return Err(Unreadable { line: number + 1, message, hint });
            }
            entries.push(entry);
        }
        Ok(Self { header, entries })
    }

    /// Puts everything in again: what the share was at the beginning, what followed from each input, and what it was at the end.
    pub fn replay(self) -> Replay {
        let mut share = self.header.snapshot;
        // they belong to what was before
        while share.poll_effect().is_some() {}
        while share.poll_transition().is_some() {}
        Replay { share, entries: self.entries.into() }
    }
}

fn read_header(line: usize, text: &str) -> Result<Header, Unreadable> {
    /// All that is believed of a header whose schema is not known.
    #[derive(Deserialize)]
    struct Version {
        schema: u32,
        #[serde(default)]
        nasmount: String,
    }
    let version: Version = serde_json::from_str(text).map_err(|error| Unreadable {
        line,
        message: format!("this is not the header of a recording: {}", bare(&error)),
        hint: "the first line of a recording begins with {\"schema\":…; `nasmount dump SHARE` writes one".to_owned(),
    })?;
    if version.schema != SCHEMA {
        let by = if version.nasmount.is_empty() { String::new() } else { format!(" {}", version.nasmount) };
        return Err(Unreadable {
            line,
            message: format!("the recording has schema {}, this nasmount reads schema {SCHEMA}", version.schema),
            hint: format!("replay it with the nasmount{by} that recorded it"),
        });
    }
    serde_json::from_str(text).map_err(|error| Unreadable {
        line,
        message: format!("the header cannot be read: {}", bare(&error)),
        hint: "dump the recording again; a header that was edited has to stay one line".to_owned(),
    })
}

fn unreadable_entry(line: usize, error: &serde_json::Error) -> Unreadable {
    let hint = if error.is_eof() {
        "the line was cut off: delete it, and what is before it can be replayed"
    } else {
        "each line is {\"at\":MICROSECONDS,\"input\":…}: correct it, or delete it and what follows"
    };
    Unreadable { line, message: format!("the input cannot be read: {}", bare(error)), hint: hint.to_owned() }
}

/// Without serde_json's own line number, which is that of the line within itself.
fn bare(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(at) => format!("{} (column {})", &text[..at], error.column()),
        None => text,
    }
}

/// A recording on its way through a share: an iterator over what followed from each input.
#[derive(Clone, Debug)]
pub struct Replay {
    share: Share,
    entries: VecDeque<Entry>,
}

/// What followed from one input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// When.
    pub at: BootInstant,
    /// What was put in.
    pub input: Input,
    /// The changes of state, or of the reason for it; one input may lead through several.
    pub transitions: Vec<Transition>,
    /// What was answered, if it was a command.
    pub answer: Option<(Command, Result<Verdict, Refusal>)>,
    /// What was asked for.
    pub effects: Vec<Effect>,
}

impl Replay {
    /// The share as it is now.
    pub fn share(&self) -> &Share {
        &self.share
    }
}

impl Iterator for Replay {
    type Item = Moment;

    fn next(&mut self) -> Option<Moment> {
        let Entry { at, input } = self.entries.pop_front()?;
        let answer = self.share.handle(at, input.clone());
        let effects = std::iter::from_fn(|| self.share.poll_effect()).collect();
        let transitions = std::iter::from_fn(|| self.share.poll_transition()).collect();
        let command = match input {
            Input::Command(command) => Some(command),
            Input::Event(_) | Input::Timeout => None,
        };
        Some(Moment { at, input, transitions, answer: command.zip(answer), effects })
    }
}

#[cfg(test)]
#[path = "recording_tests.rs"]
mod tests;
