//! The two lists of what nasmount did to units, and what may be started in view of them.
//!
//! An operation that takes something from a unit is started when that is on disk, and not before: a pause when the unit is in
//! the list of the paused, a stop when it is in the list of the stopped. One that only asks or undoes needs nothing.
//!
//! The list of the paused is a file in memory and written at once. The list of the stopped is on a disk, which may be slow, full
//! or dead: it is written by a thread of its own, so that neither a pause nor a return waits for it. Nothing is taken off one
//! list before what is added is on the other.

use std::collections::BTreeMap;
use std::io;

use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::share::BootInstant;
use crate::share::backoff::Backoff;
use crate::share::consumers::{HeldUnit, UnitStep};
use crate::sys::state_file::{self, StateFiles, UnitList, Units};

/// May an operation be started?
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Covered {
    /// What it needs is on disk.
    Yes,
    /// It is being written.
    Soon,
    /// It could not be written: why.
    No(String),
}

/// One list.
#[derive(Debug)]
struct List {
    on_disk: Units,
    failed: Option<String>,
}

/// Both lists.
#[derive(Debug)]
pub struct Journal {
    files: StateFiles,
    paused: List,
    stopped: List,
    wanted: (Units, Units),
    writing: Option<(Units, JoinHandle<io::Result<()>>)>,
    backoff: Backoff,
    retry_at: Option<BootInstant>,
}

impl Journal {
    /// Reads what an earlier daemon left. A list that cannot be read counts as empty, with a warning.
    pub fn open(files: StateFiles, seed: u64) -> Self {
        let read = |list| {
            let units = files.read_units(list).unwrap_or_else(|error| {
                warn!(%error, ?list, "cannot read which units an earlier daemon held");
                Units::new()
            });
            List { on_disk: units, failed: None }
        };
        let (paused, stopped) = (read(UnitList::Paused), read(UnitList::Stopped));
        let wanted = (paused.on_disk.clone(), stopped.on_disk.clone());
        Self { files, paused, stopped, wanted, writing: None, backoff: Backoff::of_server(seed), retry_at: None }
    }

    /// What is on disk.
    pub fn held(&self) -> BTreeMap<String, HeldUnit> {
        state_file::held(&self.paused.on_disk, &self.stopped.on_disk)
    }

    /// Why what must be remembered cannot be written, if so.
    pub fn trouble(&self) -> Option<String> {
        let lists = [&self.paused, &self.stopped];
        lists.into_iter().find_map(|list| list.failed.clone())
    }

    /// When writing is tried again.
    pub fn retry_at(&self) -> Option<BootInstant> {
        self.retry_at
    }

    /// Has `memory` written. A list that could not be written is tried again when something changes, and at `retry_at`.
    pub fn write(&mut self, now: BootInstant, memory: &BTreeMap<String, HeldUnit>) {
        let wanted = state_file::lists(memory);
        let changed = self.wanted != wanted;
        self.wanted = wanted;
        if changed || self.retry_at.is_some_and(|at| at <= now) || self.trouble().is_none() {
            self.advance(now);
        }
    }

    /// Writes what may be written now.
    fn advance(&mut self, now: BootInstant) {
        self.retry_at = None;
        let (paused, stopped) = self.wanted.clone();
        let stopped_on_disk = has_all(&self.stopped.on_disk, &stopped);
        let paused = if stopped_on_disk { paused } else { with(paused, &self.paused.on_disk) };
        if paused != self.paused.on_disk {
            let written = self.files.write_units(UnitList::Paused, &paused);
            self.noted(UnitList::Paused, paused, written);
        }
        let paused_on_disk = has_all(&self.paused.on_disk, &self.wanted.0);
        let stopped = if paused_on_disk { stopped } else { with(stopped, &self.stopped.on_disk) };
        if self.writing.is_none() && stopped != self.stopped.on_disk {
            let (files, units) = (self.files.clone(), stopped.clone());
            let write = move || files.write_units(UnitList::Stopped, &units);
            self.writing = Some((stopped, tokio::task::spawn_blocking(write)));
        }
        if let Some(delay) = self.trouble().map(|_| self.backoff.next_delay()) {
            self.retry_at = Some(now + delay);
        } else if self.writing.is_none() {
            self.backoff.reset();
        }
    }

    fn noted(&mut self, which: UnitList, units: Units, written: io::Result<()>) {
        let list = match which {
            UnitList::Paused => &mut self.paused,
            UnitList::Stopped => &mut self.stopped,
        };
        match written {
            Ok(()) => {
                list.on_disk = units;
                if list.failed.take().is_some() {
                    info!(list = ?which, "what is held could be written down");
                }
            }
            Err(error) => {
                warn!(%error, list = ?which, "cannot write down what is held: nobody is held who is not in it");
                list.failed = Some(format!("cannot write down which units are {}: {error}", name(which)));
            }
        }
    }

    /// Waits for the write in flight; for ever if there is none.
    pub async fn written(&mut self) -> io::Result<()> {
        match &mut self.writing {
            Some((_, task)) => task.await.unwrap_or_else(|error| Err(io::Error::other(error))),
            None => std::future::pending().await,
        }
    }

    /// Takes in how that write ended, and goes on.
    pub fn handle_written(&mut self, now: BootInstant, written: io::Result<()>) {
        let Some((units, _)) = self.writing.take() else { return };
        let failed = written.is_err();
        self.noted(UnitList::Stopped, units, written);
        if failed {
            self.retry_at = Some(now + self.backoff.next_delay());
        } else {
            self.advance(now);
        }
    }

    /// Is what the step does to the unit on disk?
    pub fn covers(&self, unit: &str, step: UnitStep) -> Covered {
        let (list, is_being_written) = match step {
            UnitStep::Pause => (&self.paused, false),
            UnitStep::Stop | UnitStep::Kill => {
                let is_being_written = self.writing.as_ref().is_some_and(|(units, _)| units.contains_key(unit));
                (&self.stopped, is_being_written || (self.writing.is_some() && self.stopped.failed.is_none()))
            }
            UnitStep::Inspect | UnitStep::Continue | UnitStep::Start | UnitStep::ContinueAndStart => {
                return Covered::Yes;
            }
        };
        if list.on_disk.contains_key(unit) {
            return Covered::Yes;
        }
        if is_being_written {
            return Covered::Soon;
        }
        Covered::No(list.failed.clone().unwrap_or_else(|| "what it does is not written down".to_owned()))
    }
}

/// Are all of these on disk as they should be?
fn has_all(on_disk: &Units, units: &Units) -> bool {
    units.iter().all(|(unit, run)| on_disk.get(unit) == Some(run))
}

/// What is wanted, and what is still on disk besides.
fn with(wanted: Units, on_disk: &Units) -> Units {
    on_disk.clone().into_iter().chain(wanted).collect()
}

fn name(list: UnitList) -> &'static str {
    match list {
        UnitList::Paused => "paused",
        UnitList::Stopped => "stopped",
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    #![expect(clippy::disallowed_methods, reason = "tests put files in the way")]
    use std::time::Duration;

    use super::*;
    use crate::share::consumers::Held;

    fn at(seconds: u64) -> BootInstant {
        BootInstant::from_boot(Duration::from_secs(seconds))
    }

    fn held(units: &[(&str, Held)]) -> BTreeMap<String, HeldUnit> {
        let unit = |held: &Held| HeldUnit { held: *held, run: None };
        units.iter().map(|(name, held)| ((*name).to_owned(), unit(held))).collect()
    }

    fn journal() -> (tempfile::TempDir, Journal) {
        let directory = tempfile::tempdir().unwrap();
        let files = StateFiles::new(directory.path().join("run"), directory.path().join("lib"));
        (directory, Journal::open(files, 7))
    }

    async fn settle(journal: &mut Journal) {
        while journal.writing.is_some() {
            let written = journal.written().await;
            journal.handle_written(at(1), written);
        }
    }

    #[tokio::test]
    async fn a_pause_waits_for_no_disk_and_a_stop_does() {
        let (_directory, mut journal) = journal();
        journal.write(at(1), &held(&[("a.service", Held::Paused), ("b.service", Held::Stopped)]));
        assert_eq!(journal.covers("a.service", UnitStep::Pause), Covered::Yes);
        assert_eq!(journal.covers("b.service", UnitStep::Stop), Covered::Soon);
        assert_eq!(journal.covers("b.service", UnitStep::Inspect), Covered::Yes);
        settle(&mut journal).await;
        assert_eq!(journal.covers("b.service", UnitStep::Stop), Covered::Yes);
        assert_eq!(journal.trouble(), None);
    }

    #[tokio::test]
    async fn a_unit_that_moves_from_one_list_to_the_other_is_always_on_one() {
        let (directory, mut journal) = journal();
        journal.write(at(1), &held(&[("a.service", Held::Paused)]));
        journal.write(at(2), &held(&[("a.service", Held::Stopped)]));
        assert_eq!(journal.held()["a.service"].held, Held::Paused, "not taken off before the other list is on disk");
        settle(&mut journal).await;
        assert_eq!(journal.held(), held(&[("a.service", Held::Stopped)]));
        let files = StateFiles::new(directory.path().join("run"), directory.path().join("lib"));
        assert_eq!(Journal::open(files, 7).held(), held(&[("a.service", Held::Stopped)]));
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_not_started_is_said_and_is_tried_again() {
        let (directory, mut journal) = journal();
        std::fs::write(directory.path().join("lib"), "a file in the way").unwrap();
        let memory = held(&[("a.service", Held::Paused), ("b.service", Held::Stopped)]);
        journal.write(at(1), &memory);
        settle(&mut journal).await;
        assert!(matches!(journal.covers("b.service", UnitStep::Kill), Covered::No(_)));
        assert_eq!(journal.covers("a.service", UnitStep::Pause), Covered::Yes);
        assert!(journal.trouble().unwrap().starts_with("cannot write down which units are stopped"));
        let retry_at = journal.retry_at().unwrap();
        assert!(retry_at > at(1) && retry_at <= at(40));
        std::fs::remove_file(directory.path().join("lib")).unwrap();
        journal.write(retry_at, &memory);
        settle(&mut journal).await;
        assert_eq!(journal.trouble(), None);
        assert_eq!(journal.covers("b.service", UnitStep::Kill), Covered::Yes);
        assert_eq!(journal.retry_at(), None);
    }
}
