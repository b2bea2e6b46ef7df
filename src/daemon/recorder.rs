//! The recordings of all shares: kept in memory, given out on demand, and written down by themselves when an ERROR is logged,
//! which always means a bug of ours: what led to it is then on disk before the ring forgets it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tracing::{Event, Level, Subscriber, info, warn};
use tracing_subscriber::layer::{Context, Layer};

use crate::share::recording::Recorder;
use crate::share::{BootInstant, Input, Share};
use crate::sys::{clock, recordings};

/// Files that are kept; more if there are more shares, because one dump writes all of them.
const FILES_MAX: usize = 10;

/// Pause between two dumps: a bug that repeats itself must not fill the disk.
const DUMP_INTERVAL: Duration = Duration::from_secs(60);

/// An ERROR was logged. One for the process, as the log is.
static ERROR_LOGGED: Notify = Notify::const_new();

/// Notices every ERROR event; [`Recorders::keep`] acts on it.
#[derive(Debug)]
pub struct ErrorWatch;

impl<S: Subscriber> Layer<S> for ErrorWatch {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() == Level::ERROR {
            ERROR_LOGGED.notify_one();
        }
    }
}

/// What one actor records to.
#[derive(Clone, Debug)]
pub struct Tape(Arc<Mutex<Recorder>>);

impl Tape {
    /// Records what is about to be put into `share`.
    pub fn record(&self, share: &Share, now: BootInstant, input: &Input) {
        self.lock().record(share, now, input);
    }

    fn lock(&self) -> MutexGuard<'_, Recorder> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tapes of all shares.
#[derive(Clone, Debug, Default)]
pub struct Recorders(Arc<Mutex<BTreeMap<String, Tape>>>);

impl Recorders {
    /// An empty tape for a share that begins.
    pub fn begin(&self, share: &str) -> Tape {
        let tape = Tape(Arc::new(Mutex::new(Recorder::new(share))));
        self.lock().insert(share.to_owned(), tape.clone());
        tape
    }

    /// Forgets a share that ended.
    pub fn end(&self, share: &str) {
        self.lock().remove(share);
    }

    /// The recording of a share as JSON lines; `None` if there is no such share or nothing happened to it yet.
    pub fn dump(&self, share: &str) -> Option<String> {
        let tape = self.lock().get(share).cloned()?;
        tape.lock().dump(Some(clock::wall_clock(BootInstant::from_boot(Duration::ZERO))))
    }

    /// Writes down every share's recording after an ERROR. Runs as long as the daemon.
    pub async fn keep(self) {
        loop {
            ERROR_LOGGED.notified().await;
            // a disk that hangs must not hang the daemon, nor its end
            let recorders = self.clone();
            let writing = move || recorders.write(Path::new(recordings::DIRECTORY));
            if let Err(error) = std::thread::Builder::new().name("recordings".into()).spawn(writing) {
                warn!(%error, "cannot write the recordings");
            }
            tokio::time::sleep(DUMP_INTERVAL).await; // an error meanwhile is remembered
        }
    }

    /// Nothing here may log an ERROR, which would be its own cause.
    fn write(&self, directory: &Path) {
        let shares: Vec<String> = self.lock().keys().cloned().collect();
        let time = time_of_day();
        for share in &shares {
            let Some(text) = self.dump(share) else { continue };
            match recordings::write(directory, share, &time, &text) {
                Ok(path) => info!(share, path = %path.display(), "an error was logged: recording written"),
                Err(error) => warn!(share, %error, "cannot write the recording"),
            }
        }
        if let Err(error) = recordings::prune(directory, FILES_MAX.max(shares.len())) {
            warn!(%error, directory = %directory.display(), "cannot remove old recordings");
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Tape>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `20260131T235959Z`
fn time_of_day() -> String {
    #[expect(clippy::cast_possible_truncation, reason = "seconds since the epoch")]
    let seconds = clock::wall_clock(clock::now()) as i64;
    let time = jiff::Timestamp::from_second(seconds).unwrap_or_default();
    time.strftime("%Y%m%dT%H%M%SZ").to_string()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::share::recording::Recording;
    use crate::share::{OnSleep, ShareSpec};

    fn recorders() -> Recorders {
        let recorders = Recorders::default();
        let spec = ShareSpec {
            patience: Duration::from_secs(1),
            hold_for: None,
            probe_interval: Duration::from_secs(10),
            on_sleep: OnSleep::Hold,
        };
        for name in ["films", "music"] {
            let share = Share::new(spec.clone(), 1, clock::now());
            recorders.begin(name).record(&share, clock::now(), &Input::Timeout);
        }
        recorders
    }

    #[test]
    fn every_share_is_written_and_can_be_read() {
        let directory = tempfile::tempdir().unwrap();
        recorders().write(directory.path());
        let mut names = Vec::new();
        for entry in std::fs::read_dir(directory.path()).unwrap() {
            let path = entry.unwrap().path();
            let recording = Recording::read(&std::fs::read_to_string(&path).unwrap()).unwrap();
            assert_eq!(recording.entries.len(), 1);
            assert!(recording.header.boot_at.unwrap() > 1e9);
            names.push(recording.header.share);
        }
        names.sort();
        assert_eq!(names, ["films", "music"]);
    }

    #[test]
    fn a_share_that_ended_has_no_recording() {
        let recorders = recorders();
        recorders.end("films");
        assert!(recorders.dump("films").is_none() && recorders.dump("music").is_some());
    }

    #[test]
    fn an_error_is_noticed_and_a_warning_is_not() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let noticed = || {
            // what was logged before is noticed at once, so this is only the wait for nothing
            let waiting = async { tokio::time::timeout(Duration::from_millis(20), ERROR_LOGGED.notified()).await };
            runtime.block_on(waiting).is_ok()
        };
        let subscriber = tracing_subscriber::registry().with(ErrorWatch);
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!("not this");
            assert!(!noticed());
            tracing::error!("but this");
            assert!(noticed());
            assert!(!noticed(), "one error is one dump");
        });
    }
}
