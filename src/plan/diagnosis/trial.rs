//! The steps of a share, which a worker tries: where it failed, and why.

use core::net::IpAddr;
use std::time::Duration;

use super::{
    Diagnosis, Ending, NUMBERS, Number, Part, Passed, Step, Trial, TrialFailure, Trouble, WORDS, option, trouble,
};
use crate::config::settings::{CredentialSource, ShareSettings};

/// The share that is tried.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'share> {
    /// As it is configured.
    pub share: &'share ShareSettings,
    /// Its login.
    pub credentials: &'share CredentialSource,
    /// The address that it is tried at.
    pub address: IpAddr,
}

impl Subject<'_> {
    fn directory(&self) -> Option<&str> {
        self.share.source.split_once('/').map(|(_, directory)| directory)
    }

    fn is_guest(&self) -> bool {
        *self.credentials == CredentialSource::Guest && option(self.share, "sec").is_none()
    }
}

/// Whether a file is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Writing {
    /// One of this name.
    Tried {
        /// In the root of what is mounted.
        file: String,
    },
    /// Nobody asked for it.
    NotAsked,
    /// The share is configured to be read only.
    ReadOnly,
}

impl Writing {
    /// `file` is the name of one, if it was asked for.
    pub fn of(share: &ShareSettings, file: Option<String>) -> Self {
        match file {
            _ if share.options.contains_key("ro") => Self::ReadOnly,
            Some(file) => Self::Tried { file },
            None => Self::NotAsked,
        }
    }
}

/// The part behind those that went well.
pub fn next_part(passed: &[Passed], subject: &Subject<'_>) -> Part {
    match passed.last().map(|passed| passed.part) {
        None => Part::Options,
        Some(Part::Options | Part::ShareAlone) => Part::Create,
        Some(Part::Create) => Part::Mount,
        Some(Part::Mount) => Part::Read,
        Some(Part::Read) if subject.share.marker.is_some() => Part::Marker,
        Some(Part::Read | Part::Marker | Part::Write) => Part::Write,
    }
}

/// Adds what trying the share showed.
pub fn add_trial(diagnosis: &mut Diagnosis, trial: &Trial, subject: &Subject<'_>, writing: &Writing) {
    for Passed { part, seconds, said } in &trial.passed {
        let step = match part {
            Part::Options => Step::Options,
            Part::ShareAlone => continue,
            Part::Create => {
                add_connection(diagnosis, Step::Mount, subject);
                continue;
            }
            Part::Mount => Step::Mount,
            Part::Read => Step::Read,
            Part::Marker => Step::Marker,
            Part::Write => Step::Write,
        };
        diagnosis.judge(step, Ok(said.clone()), Duration::try_from_secs_f64(*seconds).ok());
        if step == Step::Read && subject.share.marker.is_none() {
            diagnosis.skip(Step::Marker, "none is configured");
        }
    }
    let Some(failure) = &trial.failed else {
        return match writing {
            Writing::Tried { .. } => {}
            Writing::NotAsked => diagnosis.skip(Step::Write, "not tried; with --write a file is written and deleted"),
            Writing::ReadOnly => diagnosis.skip(Step::Write, "not tried; the share is configured to be read-only"),
        };
    };
    let lines: Vec<String> =
        trial.log.iter().flatten().filter(|line| concerns(line, subject.address)).cloned().collect();
    let mut trouble = blame(failure, trial, &lines, subject);
    if let (Ending::Hangs, Step::Write, Writing::Tried { file }) = (failure.ending, trouble.step, writing) {
        trouble.fix = format!("{}; {file} may be left in the share", trouble.fix);
    }
    if failure.part == Part::Create {
        if trouble.step == Step::Mount {
            let connection = [Step::Login, Step::Share, Step::Path];
            connection.into_iter().for_each(|step| diagnosis.skip(step, "the kernel does not say how far it came"));
        } else {
            add_connection(diagnosis, trouble.step, subject);
        }
    }
    diagnosis.judge(trouble.step, Err(trouble), None);
    diagnosis.kernel = lines;
}

/// Login, share and directory, as far as `before`.
fn add_connection(diagnosis: &mut Diagnosis, before: Step, subject: &Subject<'_>) {
    let name = subject.share.source.split('/').next().unwrap_or_default();
    if before > Step::Login {
        let how = if subject.is_guest() { "as a guest" } else { "the server takes it" };
        diagnosis.judge(Step::Login, Ok(how.to_owned()), None);
    }
    if before > Step::Share {
        diagnosis.judge(Step::Share, Ok(format!("the server has {name}")), None);
    }
    if before > Step::Path {
        match subject.directory() {
            Some(directory) => _ = diagnosis.judge(Step::Path, Ok(format!("{directory} is there")), None),
            None => diagnosis.skip(Step::Path, "no directory is configured"),
        }
    }
}

/// Other servers' lines carry their names.
fn concerns(line: &str, address: IpAddr) -> bool {
    let names_a_server = line.contains("\\\\") || line.contains("//");
    let address = address.to_string();
    !names_a_server || line.split(['\\', '/', ' ']).any(|word| word == address)
}

/// A step, why it failed, and what to do.
type Blame = (Step, &'static str, &'static str);

/// The step that a failure is about, why, and what to do.
fn blame(failure: &TrialFailure, trial: &Trial, lines: &[String], subject: &Subject<'_>) -> Trouble {
    let told = |step, cause: &str, fix: &str| trouble(step, failure.message.clone(), cause, fix);
    if failure.ending == Ending::Hangs {
        let (step, cause, fix) = hanging(failure.part);
        return told(step, cause, fix);
    }
    if failure.part == Part::Marker {
        return told(
            Step::Marker,
            "the share does not have its `marker`",
            "is the volume of this share mounted on the NAS? If it is, create the `marker` in it, or correct the key",
        );
    }
    let errno = failure.errno.as_ref().map(|(errno, _)| *errno);
    if failure.part == Part::Create {
        if trial.passed.iter().any(|passed| passed.part == Part::ShareAlone) {
            let directory = subject.directory().unwrap_or_default();
            let cause = format!("the share is there, and {directory} is not in it");
            let fix = "correct `source`, or create the directory; is its volume mounted on the server?";
            return told(Step::Path, &cause, fix);
        }
        let word = WORDS.iter().find(|word| lines.iter().any(|line| line.contains(word.word)));
        let number = numbered(Part::Create, errno);
        let about = word.map(|word| (word.step, word.cause, word.fix));
        let about = about.or_else(|| denied(errno, trial, lines, subject));
        let about = about.or_else(|| number.map(|number| (number.step, number.cause, number.fix)));
        if let Some((step, cause, fix)) = about {
            let (cause, fix) = for_guest(step, errno, subject).unwrap_or((cause, fix));
            return told(step, cause, fix);
        }
    }
    if let Some(Number { step, cause, fix, .. }) = numbered(failure.part, errno) {
        return told(*step, cause, fix);
    }
    let cause = match &failure.errno {
        Some((_, name)) => format!("the kernel says {name}, which nasmount has no explanation for"),
        None => "nasmount has no explanation for it".to_owned(),
    };
    told(step_of(failure.part), &cause, "the kernel's log (`journalctl -k -g CIFS`) and the server's say more")
}

/// EACCES of a login is logged, that of a share or of a directory is not.
fn denied(errno: Option<i32>, trial: &Trial, lines: &[String], subject: &Subject<'_>) -> Option<Blame> {
    let row = numbered(Part::Create, errno).filter(|row| row.name == "EACCES")?;
    if trial.log.is_none() || lines.is_empty() || lines.iter().any(|line| line.contains("SessSetup")) {
        return Some((row.step, row.cause, row.fix));
    }
    if matches!(option(subject.share, "vers"), Some("2.0" | "2.1")) {
        let cause = "the login is right, and this user may not use the share; or the server demands encryption, which SMB 2 has not";
        let fix = "write vers = \"3.1.1\" in `options`, or leave `vers` out; else give the user access to the share on the server";
        return Some((Step::Share, cause, fix));
    }
    let cause = match subject.directory() {
        Some(_) => "the login is right, and this user may not use the share, or the directory in it",
        None => "the login is right, and this user may not use the share",
    };
    let fix =
        "give the user access on the server: to the share (its list of users, or `valid users`), and to the directory";
    Some((Step::Share, cause, fix))
}

/// Without a login the server's refusal means something else.
fn for_guest(step: Step, errno: Option<i32>, subject: &Subject<'_>) -> Option<(&'static str, &'static str)> {
    let refused =
        numbered(Part::Create, errno).is_some_and(|row| ["EACCES", "EPERM", "EKEYREVOKED"].contains(&row.name));
    let fix = "name a `credentials` file for the server, or allow guests there";
    let cause = if step == Step::Login { "the server takes no guests" } else { "a guest may not use the share" };
    (refused && subject.is_guest()).then_some((cause, fix))
}

fn numbered(part: Part, errno: Option<i32>) -> Option<&'static Number> {
    let part = if part == Part::Mount { Part::Read } else { part };
    NUMBERS.iter().find(|row| row.part == part && Some(row.errno) == errno)
}

fn step_of(part: Part) -> Step {
    match part {
        Part::Options => Step::Options,
        Part::ShareAlone | Part::Create | Part::Mount => Step::Mount,
        Part::Read => Step::Read,
        Part::Marker => Step::Marker,
        Part::Write => Step::Write,
    }
}

fn hanging(part: Part) -> Blame {
    match part {
        Part::Options => (
            Step::Options,
            "the kernel does not come back from loading CIFS, or the credentials file cannot be read",
            "look into the kernel's log, and where the credentials file lies",
        ),
        Part::ShareAlone | Part::Create => (
            Step::Login,
            "the server answers the first question and then nothing more, or another mount hangs in the kernel and holds this one up",
            "restart the server's SMB service; `nasmount status` says whether a share is stuck",
        ),
        Part::Mount | Part::Read | Part::Marker => (
            if part == Part::Marker { Step::Marker } else { Step::Read },
            "the server does not answer what asks its disks",
            "a disk that does not spin up, or a volume that is being checked or rebuilt: look at the server",
        ),
        Part::Write => (
            Step::Write,
            "the server does not answer a write: its disks are overloaded or broken",
            "look at the state of its disks",
        ),
    }
}
