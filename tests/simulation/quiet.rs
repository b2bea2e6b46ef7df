//! What a simulation needs of the real world: who listens to `tracing`, files, and how long it took.
#![expect(clippy::disallowed_methods, reason = "the figure printed at the end is wall time; the corpus is files")]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Listens for ERROR events, each of which says that nasmount has a bug: how many, and what the last of them said.
#[derive(Clone, Default)]
pub struct Listener(Arc<Mutex<(u64, String)>>);

struct Said<'a>(&'a mut String);

impl Visit for Said<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push_str(&format!("{}={value:?} ", field.name()));
    }
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }
    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::ERROR)
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut heard = self.0.lock().unwrap();
        heard.0 += 1;
        heard.1.clear();
        event.record(&mut Said(&mut heard.1));
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

impl Listener {
    /// Does something and listens meanwhile.
    pub fn during<T>(&self, what: impl FnOnce() -> T) -> T {
        tracing::subscriber::with_default(self.clone(), what)
    }

    /// How many errors were heard so far.
    pub fn errors(&self) -> u64 {
        self.0.lock().unwrap().0
    }

    /// What the last of them said.
    pub fn last_error(&self) -> String {
        self.0.lock().unwrap().1.clone()
    }
}

/// Runs `what` and counts its ERROR events.
pub fn counting_errors<T>(what: impl FnOnce() -> T) -> (T, u64) {
    let listener = Listener::default();
    let done = listener.during(what);
    (done, listener.errors())
}

/// Starts a stopwatch.
pub fn stopwatch() -> impl Fn() -> Duration {
    let started = Instant::now();
    move || started.elapsed()
}

/// Name and text of every schedule of the corpus, in order.
pub fn corpus() -> BTreeMap<String, String> {
    schedules(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/simulation/corpus"))
}

/// The same of what has failed in this checkout; it stays until somebody deletes it, or moves it to the corpus.
pub fn failed() -> BTreeMap<String, String> {
    schedules(&failures())
}

/// Stores a schedule that has failed; returns where.
pub fn keep_failed(seed: u64, json: &str) -> PathBuf {
    std::fs::create_dir_all(failures()).unwrap();
    let path = failures().join(format!("seed-{seed}.json"));
    std::fs::write(&path, json).unwrap();
    path
}

fn failures() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("failed-schedules")
}

fn schedules(directory: &Path) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().map(|entry| entry.unwrap().path());
    let schedules = entries.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    schedules.map(|path| (path.display().to_string(), std::fs::read_to_string(path).unwrap())).collect()
}
