//! The loop of one share: write down what must not be forgotten, start what is wished, publish, wait, feed.
//!
//! If a share's memory cannot be written, what bars the path, cuts off or asks goes on: the next daemon finds it by
//! its survey, and nobody must hang because a file system is full. What opens the path or gives the mount away waits (it fails, and the
//! share tries again), because a daemon that started from an older memory would undo it: fence a healthy server, give up an outage
//! that has ended, mount what the operator unmounted. Writing is tried again with a growing delay; `status` says so.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tracing::{Instrument as _, info, info_span, warn};

use super::consumers::{ConsumersHandle, ToConsumers, Told};
use super::executor::Executor;
use super::recorder::Tape;
use super::server_actor::ServerView;
use super::sleep::{News, Sleep};
use crate::config::settings::{CredentialSource, HoldFor, ShareSettings};
use crate::share::backoff::Backoff;
use crate::share::consumers::Demand;
use crate::share::detector::Trust;
use crate::share::event::{Input, Memory};
use crate::share::failure::Failure;
use crate::share::ladder::{Ladder, Rung};
use crate::share::{BootInstant, Command, Effect, Event, OpId, Refusal, Share, ShareSpec, Step, Verdict};
use crate::sys::clock;
use crate::sys::state_file::StateFiles;

/// Completions that may wait: the operation in flight, and abandoned ones that end late.
const MAX_QUEUED_EVENTS: usize = 16;

/// Commands that may wait; more operators than this at one time are a script gone wrong, and wait outside.
const MAX_QUEUED_COMMANDS: usize = 8;

/// The answer to a command.
pub type CommandAnswer = Result<Verdict, Refusal>;

/// A command with where its answer goes.
pub type Asked = (Command, oneshot::Sender<CommandAnswer>);

/// What is published of a share; instants, so that what is said of it is right whenever it is read.
#[derive(Clone, Debug)]
pub struct ShareView {
    /// Its configuration.
    pub settings: Arc<ShareSettings>,
    /// The machine, as it was after its last turn.
    pub share: Share,
    /// The operation in flight: its name, and since when.
    pub operation: Option<(&'static str, BootInstant)>,
    /// How many demands have been sent to the consumers.
    pub demands_sent: u64,
    /// Why its memory cannot be written, if so.
    pub trouble: Option<String>,
    /// How it was given up the last time.
    pub ladder: Ladder,
}

/// How to reach a share, and what it publishes.
#[derive(Clone, Debug)]
pub struct ShareHandle {
    /// Commands to it.
    pub commands: mpsc::Sender<Asked>,
    /// Events to it, as `MountTableChanged` and `ConfigurationLoaded`.
    pub events: mpsc::Sender<Event>,
    /// What it publishes.
    pub view: watch::Receiver<ShareView>,
    /// Its configuration. The loop ends when this is dropped, and leaves everything as it is.
    pub configured: watch::Sender<Configured>,
}

/// What is configured of a share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configured {
    /// The share itself.
    pub share: ShareSettings,
    /// How its server lets it in.
    pub credentials: CredentialSource,
}

/// What a share's loop is connected to.
#[derive(Debug)]
pub struct Surroundings {
    /// Its server.
    pub server: watch::Receiver<ServerView>,
    /// The consumers of the host.
    pub consumers: ConsumersHandle,
    /// Where its memory lies.
    pub files: StateFiles,
    /// Wakes it after a sleep.
    pub sleep: Sleep,
    /// What happens to it is recorded here.
    pub tape: Tape,
}

/// Starts the loop; it ends with what is returned, or with the runtime, and leaves everything as it is.
pub fn spawn(
    configured: Configured,
    around: Surroundings,
    executor: impl FnOnce(Configured, mpsc::Sender<Event>) -> Arc<Executor>,
) -> ShareHandle {
    let settings = configured.share.clone();
    let (events, receiver) = mpsc::channel(MAX_QUEUED_EVENTS);
    let (commands, asked) = mpsc::channel(MAX_QUEUED_COMMANDS);
    let span = info_span!("share", name = %settings.id);
    let executor = executor(configured.clone(), events.clone());
    let (configured, reconfigured) = watch::channel(configured);
    let share = span.in_scope(|| Share::new(spec(&settings), seed(&settings), clock::now()));
    // what cannot be read is the survey's to say
    let release = around.files.read_release(&settings.id.to_string()).unwrap_or_default();
    let settings = Arc::new(settings);
    let view = ShareView {
        settings: Arc::clone(&settings),
        share: share.clone(),
        operation: None,
        demands_sent: 0,
        trouble: None,
        ladder: release.clone(),
    };
    let (publish, view) = watch::channel(view);
    let actor = ShareActor {
        name: settings.id.to_string(),
        backoff: Backoff::of_server(seed(&settings)),
        settings,
        share,
        executor,
        around,
        events: receiver,
        commands: asked,
        reconfigured,
        written: None,
        retry_at: None,
        trouble: None,
        demanded: None,
        demands_sent: 0,
        told: None,
        operation: None,
        ladder: release.clone(),
        written_ladder: release,
        publish,
    };
    tokio::spawn(actor.run().instrument(span));
    ShareHandle { commands, events, view, configured }
}

/// What the machine has to know of the configuration.
pub fn spec(settings: &ShareSettings) -> ShareSpec {
    ShareSpec {
        patience: settings.patience,
        hold_for: match settings.hold_for {
            HoldFor::For(duration) => Some(duration),
            HoldFor::Forever => None,
        },
        probe_interval: settings.probe_interval,
        on_sleep: settings.on_sleep,
    }
}

/// Only spreads retries: differs between shares and between runs.
fn seed(settings: &ShareSettings) -> u64 {
    let name = settings.id.to_string().bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    name ^ u64::try_from(clock::now().since_boot().as_nanos()).unwrap_or(0)
}

struct ShareActor {
    name: String,
    settings: Arc<ShareSettings>,
    share: Share,
    executor: Arc<Executor>,
    around: Surroundings,
    events: mpsc::Receiver<Event>,
    commands: mpsc::Receiver<Asked>,
    reconfigured: watch::Receiver<Configured>,
    written: Option<Memory>,
    backoff: Backoff,
    retry_at: Option<BootInstant>,
    trouble: Option<String>,
    /// As last sent; a share that begins says so even if it demands nothing, for one of its name may have been before it.
    demanded: Option<Demand>,
    demands_sent: u64,
    told: Option<Told>,
    operation: Option<(OpId, BootInstant)>,
    ladder: Ladder,
    written_ladder: Ladder,
    publish: watch::Sender<ShareView>,
}

/// What woke the loop.
enum Woken {
    Event(Event),
    Asked(Asked),
    Server,
    Consumers,
    Reconfigured,
    Timeout,
}

impl ShareActor {
    async fn run(mut self) {
        // level-triggered: the present first, then changes
        let ServerView { mut address, mut trust, mut closed, .. } = *self.around.server.borrow_and_update();
        self.feed(clock::now(), Input::Event(Event::ServerTrustChanged { trust }));
        self.hear_of_consumers(clock::now());
        loop {
            self.perform().await;
            let deadline = self.share.poll_timeout().map(|(at, _)| at);
            let deadline = [deadline, self.retry_at].into_iter().flatten().min();
            let woken = tokio::select! {
                event = self.events.recv() => event.map(Woken::Event),
                Some(asked) = self.commands.recv() => Some(Woken::Asked(asked)),
                changed = self.around.server.changed() => changed.ok().map(|()| Woken::Server),
                changed = self.around.consumers.view.changed() => changed.ok().map(|()| Woken::Consumers),
                changed = self.reconfigured.changed() => changed.ok().map(|()| Woken::Reconfigured),
                () = self.around.sleep.woken() => Some(Woken::Timeout),
                () = wait_until(deadline) => Some(Woken::Timeout),
            };
            let Some(woken) = woken else { return };
            let now = clock::now();
            while let Some(news) = self.around.sleep.news() {
                let event = match news {
                    News::Began => Event::SleepBegan,
                    News::Ended { asleep } => {
                        trust = Trust::Unknown; // to the share, until its server says more
                        Event::Resumed { asleep }
                    }
                };
                self.feed(now, Input::Event(event));
            }
            match woken {
                Woken::Event(event) => drop(self.feed(now, Input::Event(event))),
                Woken::Asked((command, answer)) => self.command(now, command, answer).await,
                Woken::Server => {
                    let ServerView { address: now_at, trust: now_believed, closed: now_closed, .. } =
                        *self.around.server.borrow_and_update();
                    if now_at.is_some() && std::mem::replace(&mut address, now_at) != now_at {
                        self.feed(now, Input::Event(Event::ServerMoved));
                    }
                    if std::mem::replace(&mut trust, now_believed) != now_believed || matches!(trust, Trust::Unknown) {
                        self.feed(now, Input::Event(Event::ServerTrustChanged { trust }));
                    }
                    if std::mem::replace(&mut closed, now_closed) != now_closed {
                        self.feed(now, Input::Event(Event::ConnectionClosed));
                    }
                }
                Woken::Consumers => self.hear_of_consumers(now),
                Woken::Reconfigured => self.reconfigure(now),
                Woken::Timeout => drop(self.feed(now, Input::Timeout)),
            }
        }
    }

    /// The only way into the machine.
    fn feed(&mut self, now: BootInstant, input: Input) -> Option<CommandAnswer> {
        self.around.tape.record(&self.share, now, &input);
        if let Input::Event(Event::Completed { op, result }) = &input {
            let result = result.as_ref().map(drop).map_err(|failure| failure.message.as_str());
            log_rung(self.ladder.ended(now, *op, result));
        }
        let answer = self.share.handle(now, input);
        while self.share.poll_transition().is_some() {} // they are in the log
        answer
    }

    fn reconfigure(&mut self, now: BootInstant) {
        let configured = self.reconfigured.borrow_and_update().clone();
        self.executor.configure(configured.clone());
        self.settings = Arc::new(configured.share);
        let spec = spec(&self.settings);
        self.feed(now, Input::Event(Event::ConfigurationLoaded { spec }));
    }

    /// What the operator is told is true: his wish is on disk, if that is possible at all, and what it needs has been started.
    async fn command(&mut self, now: BootInstant, command: Command, answer: oneshot::Sender<CommandAnswer>) {
        let result = self.feed(now, Input::Command(command));
        match &result {
            Some(Ok(verdict)) => info!(command = command.name(), ?verdict, "command"),
            Some(Err(refusal)) => info!(command = command.name(), %refusal, "command refused"),
            None => {}
        }
        self.perform().await;
        if let Some(result) = result {
            let _ = answer.send(result); // who asked may have gone away
        }
    }

    fn hear_of_consumers(&mut self, now: BootInstant) {
        let told = self.around.consumers.view.borrow_and_update().told.get(&self.name).copied();
        if let Some(told) = told.filter(|told| told.heard == self.demands_sent)
            && self.told.replace(told) != Some(told)
        {
            let event = Event::ConsumersChanged { demand: told.demand, progress: told.progress };
            self.feed(now, Input::Event(event));
        }
    }

    /// What must be known after a crash is on disk before the effects it belongs to are started.
    async fn perform(&mut self) {
        let now = clock::now();
        self.remember(now);
        self.ladder.is_in(self.share.state());
        while let Some(effect) = self.share.poll_effect() {
            match &effect {
                Effect::Start { op, step } => self.ladder.began(now, *op, step, self.share.state()),
                Effect::Abandon { op } => log_rung(self.ladder.abandoned(now, *op)),
            }
            match effect {
                Effect::Start { op, step } => match &self.trouble {
                    Some(trouble) if waits_for_memory(&step) => {
                        let result = Err(Failure::transient(format!("'{}' has to wait: {trouble}", step.name())));
                        self.executor.report(op, result);
                    }
                    _ => self.executor.start(op, step),
                },
                Effect::Abandon { op } => self.executor.abandon(op),
            }
        }
        self.remember_ladder();
        // nor does a host sleep while somebody waits
        self.executor.set_hopeless(self.share.needs_a_person() || self.share.sleeps());
        let demand = self.share.demand();
        if self.demanded != Some(demand) {
            (self.demanded, self.told) = (Some(demand), None);
            self.demands_sent += 1;
            let message = ToConsumers::Demanded { share: self.name.clone(), demand, count: self.demands_sent };
            let _ = self.around.consumers.to.send(message).await;
        }
        let operation = self.share.operation();
        if operation.map(|(op, _)| op) != self.operation.map(|(op, _)| op) {
            self.operation = operation.map(|(op, _)| (op, now));
        }
        let _ = self.publish.send_replace(ShareView {
            settings: Arc::clone(&self.settings),
            share: self.share.clone(),
            operation: operation.zip(self.operation).map(|((_, name), (_, since))| (name, since)),
            demands_sent: self.demands_sent,
            trouble: self.trouble.clone(),
            ladder: self.ladder.clone(),
        });
    }

    /// Only for people to see: nothing waits for it, and it is not tried again before there is more of it.
    fn remember_ladder(&mut self) {
        let Some(memory) = self.written.as_ref().filter(|_| self.written_ladder != self.ladder) else { return };
        self.written_ladder = self.ladder.clone();
        if let Err(error) = self.around.files.write_share(&self.name, memory, &self.ladder) {
            warn!(%error, "cannot write down how the share is given up");
        }
    }

    fn remember(&mut self, now: BootInstant) {
        // until the survey has read what an earlier daemon remembered, there is nothing of ours to write over it
        let Some(memory) = self.share.memory() else { return };
        if self.written.as_ref() == Some(&memory) {
            (self.trouble, self.retry_at) = (None, None);
            return;
        }
        match self.around.files.write_share(&self.name, &memory, &self.ladder) {
            Ok(()) => {
                self.written = Some(memory);
                self.written_ladder = self.ladder.clone();
                self.retry_at = None;
                self.backoff.reset();
                if self.trouble.take().is_some() {
                    info!("what must not be forgotten could be written down");
                }
            }
            Err(error) => {
                let trouble = format!("cannot write down what must not be forgotten: {error}");
                if self.trouble.as_ref() != Some(&trouble) {
                    warn!(%error, "cannot write down what must not be forgotten");
                }
                self.trouble = Some(trouble);
                if self.retry_at.is_none_or(|at| at <= now) {
                    self.retry_at = Some(now + self.backoff.next_delay());
                }
            }
        }
    }
}

/// A rung of giving up has ended.
fn log_rung(rung: Option<&Rung>) {
    if let Some(Rung { operation, took: Some(took), budget, outcome, .. }) = rung {
        info!(%operation, ?took, ?budget, ?outcome, "giving up");
    }
}

/// What opens the path or gives the mount away, see above.
fn waits_for_memory(step: &Step) -> bool {
    match step {
        Step::Mount | Step::Attach | Step::Release | Step::DropClone => true,
        Step::Survey
        | Step::LayBarrier
        | Step::Verify
        | Step::TryLogin
        | Step::Detach
        | Step::RaiseFence
        | Step::RaiseSinkhole
        | Step::LiftFence
        | Step::DestroySockets { .. }
        | Step::Flush
        | Step::ShutDown
        | Step::AskForLoss => false,
    }
}

/// Waits for a deadline; for ever if there is none.
pub async fn wait_until(deadline: Option<BootInstant>) {
    match deadline {
        Some(at) => clock::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
