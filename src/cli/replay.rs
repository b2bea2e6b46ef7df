//! `nasmount replay`: a recording through the state machine, and what it decided.
//!
//! The debugger of nasmount: the same machine as in the daemon, without a host. What it prints is what this version decides,
//! which need not be what the recording one did; nothing is compared.

use std::io::{self, Write};
use std::path::PathBuf;

use serde::Serialize;

use super::report::{self, Exit};
use crate::share::effect::Effect;
use crate::share::recording::{Header, Moment, Recording, Unreadable};
use crate::share::state::{Reason, State};
use crate::share::{BootInstant, Command, Refusal, Transition, Verdict};
use crate::sys::recordings;

/// Version of what `--json` prints. Additions do not change it.
pub const JSON_SCHEMA: u32 = 1;

/// `replay FILE [--json]`
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// What `nasmount dump` wrote, or a file of /var/lib/nasmount/recordings; - for standard input
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Why there is nothing to be replayed.
#[derive(Debug, thiserror::Error)]
enum CannotReplay {
    #[error("cannot read {file}", file = .file.display())]
    File {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{file}:{line}: {unreadable}", file = .file.display(), line = .unreadable.line)]
    Content { file: PathBuf, unreadable: Unreadable },
}

impl CannotReplay {
    fn hint(&self) -> Option<&str> {
        match self {
            Self::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("recordings are root's: run it as root, or copy the file")
            }
            Self::File { .. } => Some("`nasmount dump SHARE --output FILE` writes a recording"),
            Self::Content { unreadable, .. } => Some(&unreadable.hint),
        }
    }
}

/// What is said of each input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Transitions and commands.
    Usual,
    /// Operations as well (`-v`).
    Operations,
}

/// Runs the command. 0, or 2 if the recording cannot be read.
pub fn run(arguments: &Arguments, detail: Detail) -> Exit {
    let recording = match read(arguments) {
        Ok(recording) => recording,
        Err(error) => {
            report::report(&error, error.hint());
            return Exit::Usage;
        }
    };
    let by = &recording.header.nasmount;
    if by != env!("CARGO_PKG_VERSION") {
        tracing::warn!("recorded by nasmount {by}, replayed by {}: it may decide otherwise", env!("CARGO_PKG_VERSION"));
    }
    let mut out = Vec::new();
    let written =
        if arguments.json { write_json(&mut out, recording) } else { write_text(&mut out, recording, detail) };
    match written {
        Ok(()) => report::print(Exit::Done, &String::from_utf8_lossy(&out)),
        Err(error) => report::finish(Exit::Done, Err(error)),
    }
}

fn read(arguments: &Arguments) -> Result<Recording, CannotReplay> {
    let file = arguments.file.clone();
    let text = recordings::read(&file).map_err(|source| CannotReplay::File { file: file.clone(), source })?;
    Recording::read(&text).map_err(|unreadable| CannotReplay::Content { file, unreadable })
}

/// Instants of a recording as people read them.
struct Times {
    began: BootInstant,
    boot_at: Option<f64>,
}

impl Times {
    fn new(recording: &Recording) -> Self {
        let snapshot = &recording.header.snapshot;
        let began = recording.entries.first().map_or(snapshot.since(), |entry| entry.at);
        Self { began, boot_at: recording.header.boot_at }
    }

    /// Seconds since the first input; negative before it.
    fn relative(&self, at: BootInstant) -> f64 {
        at.since_boot().as_secs_f64() - self.began.since_boot().as_secs_f64()
    }

    /// Seconds since the epoch.
    fn epoch(&self, at: BootInstant) -> Option<f64> {
        Some(self.boot_at? + at.since_boot().as_secs_f64())
    }

    /// `+12.345 s`, with the local time where the recording says when the host was booted.
    fn show(&self, at: BootInstant) -> String {
        let relative = format!("{:+12.3} s", self.relative(at));
        #[expect(clippy::cast_possible_truncation, reason = "milliseconds since the epoch are far from the limits")]
        let wall = self.epoch(at).and_then(|epoch| jiff::Timestamp::from_millisecond((epoch * 1e3) as i64).ok());
        match wall {
            Some(wall) => {
                let local = wall.to_zoned_datetime(jiff::tz::TimeZone::system());
                format!("{relative}  {}", local.strftime("%Y-%m-%d %H:%M:%S%.3f"))
            }
            None => relative,
        }
    }
}

fn write_text(out: &mut impl Write, recording: Recording, detail: Detail) -> io::Result<()> {
    const INDENT: &str = "               ";
    let times = Times::new(&recording);
    let Header { share, nasmount, snapshot, .. } = &recording.header;
    writeln!(out, "share {share}, recorded by nasmount {nasmount}: {} inputs", recording.entries.len())?;
    let (state, reason) = (snapshot.state(), snapshot.reason().clone());
    writeln!(out, "{}  {state}: {reason}", times.show(snapshot.since()))?;
    writeln!(out, "{INDENT}{}", state.promise())?;
    let mut replay = recording.replay();
    for moment in replay.by_ref() {
        let at = times.show(moment.at);
        if let Some((command, answer)) = &moment.answer {
            writeln!(out, "{at}  command {}: {}", command.name(), said(answer))?;
        }
        for Transition { from, to, reason, .. } in &moment.transitions {
            if from == to {
                writeln!(out, "{at}  still {to}: {reason}")?;
            } else {
                writeln!(out, "{at}  {from} -> {to}: {reason}")?;
                writeln!(out, "{INDENT}{}", to.promise())?;
            }
        }
        if detail == Detail::Operations {
            for effect in &moment.effects {
                writeln!(out, "{at}    {}", shown(effect))?;
            }
        }
    }
    let share = replay.share();
    writeln!(out, "at the end: {} since {}: {}", share.state(), times.show(share.since()).trim_start(), share.reason())
}

fn said(answer: &Result<Verdict, Refusal>) -> String {
    match answer {
        Ok(Verdict::Accepted) => "accepted".to_owned(),
        Ok(Verdict::AlreadySo) => "already so".to_owned(),
        Err(refusal) => format!("refused: {refusal}"),
    }
}

fn shown(effect: &Effect) -> String {
    match effect {
        Effect::Start { op, step } => format!("operation {}: {}", op.0, step.name()),
        Effect::Abandon { op } => format!("operation {}: abandoned", op.0),
    }
}

#[derive(Serialize)]
struct Document {
    schema: u32,
    share: String,
    nasmount: String,
    boot_at: Option<f64>,
    inputs: usize,
    began: Stand,
    moments: Vec<Step>,
    ended: Stand,
}

/// How a share stood. `at` is in seconds since the first input, `time` since the epoch.
#[derive(Serialize)]
struct Stand {
    at: f64,
    time: Option<f64>,
    state: State,
    reason: Reason,
    reason_text: String,
    promise: &'static str,
}

/// A change of state, or of the reason for it.
#[derive(Serialize)]
struct Change {
    from: State,
    to: State,
    reason: Reason,
    reason_text: String,
    promise: &'static str,
}

impl From<Transition> for Change {
    fn from(Transition { from, to, reason, .. }: Transition) -> Self {
        Self { from, to, reason_text: reason.to_string(), reason, promise: to.promise() }
    }
}

/// What followed from an input. Inputs from which nothing followed are left out.
#[derive(Serialize)]
struct Step {
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<Command>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<Result<Verdict, Refusal>>,
    effects: Vec<Effect>,
    /// One input may lead through several states.
    transitions: Vec<Change>,
    at: f64,
    time: Option<f64>,
}

fn write_json(out: &mut impl Write, recording: Recording) -> io::Result<()> {
    let times = Times::new(&recording);
    let stand = |at, state: State, reason: Reason| Stand {
        at: times.relative(at),
        time: times.epoch(at),
        state,
        reason_text: reason.to_string(),
        reason,
        promise: state.promise(),
    };
    let Header { share, nasmount, boot_at, snapshot, .. } = recording.header.clone();
    let inputs = recording.entries.len();
    let began = stand(snapshot.since(), snapshot.state(), snapshot.reason().clone());
    let mut replay = recording.replay();
    let happened =
        |moment: &Moment| !moment.transitions.is_empty() || moment.answer.is_some() || !moment.effects.is_empty();
    let moments = replay.by_ref().filter(happened).map(|moment| {
        let (command, answer) = moment.answer.unzip();
        Step {
            command,
            answer,
            effects: moment.effects,
            transitions: moment.transitions.into_iter().map(Change::from).collect(),
            at: times.relative(moment.at),
            time: times.epoch(moment.at),
        }
    });
    let moments = moments.collect();
    let end = replay.share();
    let ended = stand(end.since(), end.state(), end.reason().clone());
    let document = Document { schema: JSON_SCHEMA, share, nasmount, boot_at, inputs, began, moments, ended };
    serde_json::to_writer_pretty(&mut *out, &document).map_err(io::Error::from)?;
    writeln!(out)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::time::Duration;

    use super::*;
    use crate::share::event::{Event, Input};
    use crate::share::recording::Recorder;
    use crate::share::{OnSleep, Share, ShareSpec};

    fn recording() -> Recording {
        let at = |seconds| BootInstant::from_boot(Duration::from_secs(seconds));
        let spec = ShareSpec {
            patience: Duration::from_secs(60),
            hold_for: None,
            probe_interval: Duration::from_secs(10),
            on_sleep: OnSleep::Hold,
        };
        let mut share = Share::new(spec, 1, at(100));
        let mut recorder = Recorder::new("media");
        let inputs = [
            (101, Input::Event(Event::MountTableChanged)),
            (103, Input::Timeout),
            (104, Input::Command(Command::Hold)),
        ];
        for (seconds, input) in inputs {
            recorder.record(&share, at(seconds), &input);
            let _ = share.handle(at(seconds), input);
            while share.poll_effect().is_some() {}
        }
        Recording::read(&recorder.dump(Some(1_700_000_000.0)).unwrap()).unwrap()
    }

    #[test]
    fn text_says_the_beginning_the_commands_and_the_end() {
        let mut out = Vec::new();
        write_text(&mut out, recording(), Detail::Operations).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("share media, recorded by nasmount "), "{text}");
        assert!(text.contains("      -1.000 s  20"), "{text}");
        assert!(text.contains("suspect: nasmount started\n"), "{text}");
        assert!(text.contains(State::Suspect.promise()), "{text}");
        assert!(text.contains("command hold: "), "{text}");
        assert!(text.contains("\nat the end: suspect since "), "{text}");
    }

    #[test]
    fn json_is_one_document_with_a_schema() {
        let mut out = Vec::new();
        write_json(&mut out, recording()).unwrap();
        let document: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!((&document["schema"], &document["inputs"]), (&1.into(), &3.into()));
        assert_eq!(document["began"]["time"], 1_700_000_100.0);
        assert_eq!(document["ended"]["state"], "suspect");
        assert!(document["moments"].as_array().unwrap().iter().any(|moment| moment["command"] == "hold"));
    }
}
