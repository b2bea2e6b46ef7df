//! The loop of all consumers: write down what must not be forgotten, start what that covers, publish, wait, feed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{Instrument as _, info, info_span, warn};

use super::journal::{Covered, Journal};
use super::share_actor::wait_until;
use super::sleep::{News, Sleep};
use super::units::{InFlight, Outcome, Units};
use crate::config::consumer::Consumer;
use crate::plan::units::{Members, expanded, named, presumed, replace};
use crate::share::consumers::{Demand, Held, Progress, UnitEffect, UnitEvent, UnitSpec, UnitStep};
use crate::share::failure::Failure;
use crate::share::{BootInstant, Consumers, OpId};
use crate::sys::clock;
use crate::sys::engine::{ENGINES, EngineError};
use crate::sys::engine_watch;
use crate::sys::state_file::StateFiles;
use crate::sys::unit_watch::{self, Watched};
use crate::sys::user_manager::UserError;

/// Messages that may wait: a demand of every share, and more shares than anybody has.
const MAX_QUEUED: usize = 256;

/// Pause before an engine is looked for again that there is not, or not now.
const ABSENT_DELAY: Duration = Duration::from_secs(5);

/// Pause before systemd is looked for again.
const RECONNECT_DELAY: Duration = Duration::from_secs(1);

/// What is sent to the consumers.
#[derive(Debug)]
pub enum ToConsumers {
    /// A share demands something.
    Demanded {
        /// Its name.
        share: String,
        /// What.
        demand: Demand,
        /// How many demands this share has sent, this one included.
        count: u64,
    },
    /// The configuration was read anew: units by name.
    ConfigurationLoaded(BTreeMap<String, UnitSpec>),
}

/// What a share is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// How many of its demands have been heard: an answer to fewer than it has sent is out of date.
    pub heard: u64,
    /// What it demands.
    pub demand: Demand,
    /// How far that has got.
    pub progress: Progress,
}

/// What is published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsumersView {
    /// By share.
    pub told: BTreeMap<String, Told>,
    /// What nasmount did to units and has not undone.
    pub held: BTreeMap<String, Held>,
    /// What is being done to units.
    pub operations: BTreeMap<String, UnitStep>,
    /// For which units consumers stand that are no unit themselves.
    pub members: Members,
    /// Why what must be remembered cannot be written, if so.
    pub trouble: Option<String>,
}

/// How to reach the loop, and what it publishes.
#[derive(Clone, Debug)]
pub struct ConsumersHandle {
    /// To it.
    pub to: mpsc::Sender<ToConsumers>,
    /// From it.
    pub view: watch::Receiver<ConsumersView>,
}

/// Starts the loop; it ends with the runtime and leaves every unit as it is.
pub fn spawn(units: BTreeMap<String, UnitSpec>, files: StateFiles, sleep: Sleep) -> ConsumersHandle {
    let now = clock::now();
    let journal = Journal::open(files, u64::try_from(now.since_boot().as_nanos()).unwrap_or(0));
    let held = journal.held();
    if !held.is_empty() {
        info!(?held, "an earlier daemon held these");
    }
    let members = presumed(&units, held.keys());
    let watched_units: BTreeSet<String> = units.keys().chain(held.keys()).cloned().collect();
    let mut heard = BTreeMap::new();
    note_shares(&mut heard, &units);
    let span = info_span!("consumers");
    let machine = span.in_scope(|| Consumers::new(expanded(&units, &members), held, now));
    let (to, inbox) = mpsc::channel(MAX_QUEUED);
    let (completed, completions) = mpsc::channel(MAX_QUEUED);
    let (publish, view) = watch::channel(ConsumersView::default());
    let (watch_units, watched_units) = watch::channel(watched_units);
    let (report, reports) = mpsc::channel(MAX_QUEUED);
    let performer = Arc::<Units>::default();
    for engine in ENGINES {
        let (mut consumers, units) = (watched_units.clone(), Arc::clone(&performer));
        let watching = keep_watching(ABSENT_DELAY, report.clone(), async move |report| {
            let learn = |name: &str, scope| units.containers.learn(name, scope);
            match engine_watch::watch(engine, &mut consumers, report, learn).await {
                // most hosts have one engine, or none
                Err(EngineError::Absent) => {
                    tokio::time::sleep(ABSENT_DELAY).await;
                    Ok(())
                }
                watched => watched,
            }
        });
        tokio::spawn(watching.instrument(span.clone()));
    }
    let (mut consumers, users_report) = (watched_units.clone(), report.clone());
    tokio::spawn(async move { while watch_users(&mut consumers, &users_report).await {} }.instrument(span.clone()));
    let mut consumers = watched_units;
    let watching =
        keep_watching(RECONNECT_DELAY, report, async move |report| unit_watch::watch(&mut consumers, report).await);
    tokio::spawn(watching.instrument(span.clone()));
    let actor = ConsumersActor {
        machine,
        journal,
        units: performer,
        in_flight: InFlight::default(),
        waiting: VecDeque::new(),
        configured: units,
        members,
        heard,
        inbox,
        completed,
        completions,
        reports,
        watch_units,
        sleep,
        publish,
    };
    tokio::spawn(actor.run().instrument(span));
    ConsumersHandle { to, view }
}

/// Every share that has consumers is told, also before it has demanded anything.
fn note_shares(heard: &mut BTreeMap<String, u64>, units: &BTreeMap<String, UnitSpec>) {
    for share in units.values().flat_map(|unit| unit.needs.keys()) {
        heard.entry(share.clone()).or_default();
    }
}

struct ConsumersActor {
    machine: Consumers,
    journal: Journal,
    units: Arc<Units>,
    in_flight: InFlight,
    /// Operations whose memory is being written.
    waiting: VecDeque<(OpId, String, UnitStep)>,
    configured: BTreeMap<String, UnitSpec>,
    members: Members,
    heard: BTreeMap<String, u64>,
    inbox: mpsc::Receiver<ToConsumers>,
    completed: mpsc::Sender<(OpId, Outcome)>,
    completions: mpsc::Receiver<(OpId, Outcome)>,
    reports: mpsc::Receiver<Watched>,
    watch_units: watch::Sender<BTreeSet<String>>,
    sleep: Sleep,
    publish: watch::Sender<ConsumersView>,
}

/// What woke the loop.
enum Woken {
    Message(ToConsumers),
    Completed(OpId, Outcome),
    Watched(Watched),
    Written(std::io::Result<()>),
    Timeout,
}

impl ConsumersActor {
    async fn run(mut self) {
        loop {
            self.perform(clock::now());
            let deadline = [self.machine.poll_timeout(), self.journal.retry_at()].into_iter().flatten().min();
            let woken = tokio::select! {
                message = self.inbox.recv() => match message {
                    Some(message) => Woken::Message(message),
                    None => return,
                },
                Some((op, outcome)) = self.completions.recv() => Woken::Completed(op, outcome),
                Some(watched) = self.reports.recv() => Woken::Watched(watched),
                written = self.journal.written() => Woken::Written(written),
                () = self.sleep.woken() => Woken::Timeout,
                () = wait_until(deadline) => Woken::Timeout,
            };
            let now = clock::now();
            while let Some(news) = self.sleep.news() {
                match news {
                    News::Began => {} // the shares say what that means
                    News::Ended { asleep } => self.feed(now, UnitEvent::Resumed { asleep }),
                }
            }
            self.take_in(now, woken);
            // what shares demand in the same instant is judged together: a unit that one lets go may be held by the next
            while let Ok(message) = self.inbox.try_recv() {
                self.take_in(now, Woken::Message(message));
            }
        }
    }

    fn feed(&mut self, now: BootInstant, event: UnitEvent) {
        self.machine.handle_event(now, event);
    }

    fn feed_units(&mut self, now: BootInstant) {
        self.feed(now, UnitEvent::ConfigurationLoaded { units: expanded(&self.configured, &self.members) });
    }

    fn take_in(&mut self, now: BootInstant, woken: Woken) {
        match woken {
            Woken::Message(ToConsumers::Demanded { share, demand, count }) => {
                self.heard.insert(share.clone(), count);
                self.feed(now, UnitEvent::Demanded { share, demand });
            }
            Woken::Message(ToConsumers::ConfigurationLoaded(units)) => {
                note_shares(&mut self.heard, &units);
                self.members.retain(|consumer, _| units.contains_key(consumer));
                for (consumer, held) in presumed(&units, self.machine.memory().keys()) {
                    self.members.entry(consumer).or_insert(held);
                }
                self.configured = units;
                self.feed_units(now);
            }
            Woken::Completed(op, result) => {
                self.in_flight.ended(op);
                self.feed(now, UnitEvent::Completed { op, result });
            }
            Woken::Watched(Watched::Reachable) => self.feed(now, UnitEvent::BusBack),
            Woken::Watched(Watched::Unit { unit, running, run }) => {
                self.feed(now, UnitEvent::UnitChanged { unit, running, run });
            }
            Woken::Watched(Watched::Members { consumer, engine, containers }) => {
                // what is no longer configured may still be spoken of
                if self.configured.contains_key(&consumer) && replace(&mut self.members, &consumer, engine, containers)
                {
                    info!(consumer, containers = ?self.members.get(&consumer), "stands for these");
                    self.feed_units(now);
                }
            }
            Woken::Watched(Watched::StartMissed { unit }) => {
                info!(unit, "systemd gave up starting it, because something that it requires could not be started");
                self.feed(now, UnitEvent::StartMissed { unit });
            }
            Woken::Watched(Watched::JobQueued { unit, job }) => self.feed(now, UnitEvent::JobQueued { unit, job }),
            Woken::Watched(Watched::JobDone { unit, job }) => self.feed(now, UnitEvent::JobDone { unit, job }),
            Woken::Written(written) => self.journal.handle_written(now, written),
            Woken::Timeout => self.machine.handle_timeout(now),
        }
    }

    /// What must be known after a crash is on disk before the effects it belongs to are started.
    fn perform(&mut self, now: BootInstant) {
        let memory = self.machine.memory();
        self.journal.write(now, &memory);
        while let Some(effect) = self.machine.poll_effect() {
            match effect {
                UnitEffect::Start { op, unit, step } => self.waiting.push_back((op, unit, step)),
                UnitEffect::Abandon { op } => {
                    self.waiting.retain(|(waiting, _, _)| *waiting != op);
                    self.in_flight.abandon(op);
                }
            }
        }
        for (op, unit, step) in std::mem::take(&mut self.waiting) {
            match self.journal.covers(&unit, step) {
                Covered::Yes => self.start(op, unit, step),
                Covered::Soon => self.waiting.push_back((op, unit, step)),
                Covered::No(why) => self.report(op, Err(Failure::transient(format!("{unit} is left as it is: {why}")))),
            }
        }
        let members = named(&self.configured, &self.members);
        let consumers = self.configured.keys().chain(members.values().flatten());
        let watched: BTreeSet<String> = consumers.chain(memory.keys()).cloned().collect();
        self.watch_units.send_if_modified(|units| {
            let changed = *units != watched;
            *units = watched;
            changed
        });
        self.publish(memory.into_iter().map(|(unit, memory)| (unit, memory.held)).collect(), members);
    }

    fn start(&mut self, op: OpId, unit: String, step: UnitStep) {
        let (units, completed) = (Arc::clone(&self.units), self.completed.clone());
        let task = async move {
            let outcome = units.perform(&unit, step).await;
            let _ = completed.send((op, outcome)).await;
        };
        self.in_flight.insert(op, tokio::spawn(task.in_current_span()).abort_handle());
    }

    /// Not from here into the machine: what it asks for in answer is for the next turn.
    fn report(&self, op: OpId, outcome: Outcome) {
        let completed = self.completed.clone();
        tokio::spawn(async move { completed.send((op, outcome)).await });
    }

    fn publish(&self, held: BTreeMap<String, Held>, members: Members) {
        let told = |(share, heard): (&String, &u64)| {
            let (demand, progress) = (self.machine.demand(share), self.machine.progress(share));
            (share.clone(), Told { heard: *heard, demand, progress })
        };
        let operation = |unit: &String| Some((unit.clone(), self.machine.operation(unit)?.1));
        let units = self.configured.keys().chain(held.keys()).chain(members.values().flatten());
        let view = ConsumersView {
            told: self.heard.iter().map(told).collect(),
            operations: units.filter_map(operation).collect(),
            held,
            members,
            trouble: self.journal.trouble(),
        };
        self.publish.send_if_modified(|published| {
            let changed = *published != view;
            *published = view;
            changed
        });
    }
}

/// Has units of users watched, by the manager of each, until the set of consumers changes. Does anybody listen any more?
async fn watch_users(consumers: &mut watch::Receiver<BTreeSet<String>>, report: &mpsc::Sender<Watched>) -> bool {
    let mut by_user: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for name in consumers.borrow_and_update().iter() {
        if let Consumer::UserUnit { user, unit } = Consumer::of(name) {
            by_user.entry(user.to_owned()).or_default().insert(unit.to_owned());
        }
    }
    let mut watching = JoinSet::new();
    for (user, units) in by_user {
        let watch_one = keep_watching(ABSENT_DELAY, report.clone(), async move |report| {
            match unit_watch::watch_user(&user, &units, report).await {
                // most users' ends with their last session
                Err(UserError::Absent { .. }) => {
                    tokio::time::sleep(ABSENT_DELAY).await;
                    Ok(())
                }
                watched => watched,
            }
        });
        watching.spawn(watch_one.in_current_span());
    }
    tokio::select! {
        changed = consumers.changed() => changed.is_ok(),
        () = report.closed() => false,
    }
}

/// Has the consumers watched by `watch` for as long as somebody listens; who cannot be asked is asked again after `retry`.
async fn keep_watching<E: Display>(
    retry: Duration,
    report: mpsc::Sender<Watched>,
    mut watch: impl AsyncFnMut(&mpsc::Sender<Watched>) -> Result<(), E>,
) {
    let mut reachable = true;
    while !report.is_closed() {
        match watch(&report).await {
            Ok(()) => reachable = true,
            Err(error) => {
                if std::mem::replace(&mut reachable, false) {
                    warn!(%error, "cannot watch the consumers; trying again");
                }
                tokio::time::sleep(retry).await;
            }
        }
    }
}
