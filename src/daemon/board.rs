//! What the daemon publishes, and where commands go in.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::consumers::{ConsumersHandle, ConsumersView};
use super::executor;
use super::recorder::Recorders;
use super::reload::{How, Outcome, ReloadAsked};
use super::server_actor::ServerView;
use super::share_actor::{CommandAnswer, ShareHandle, ShareView};
use crate::config::consumer::is_group;
use crate::plan::options;
use crate::share::consumers::Progress;
use crate::share::ladder::Rung;
use crate::share::{BootInstant, Command, Event, State};
use crate::status::{
    self, ConsumerStatus, FlappingStatus, Holder, LatencyStatus, LossStatus, MaintenanceStatus, NamespaceCopy,
    RungStatus, ServerStatus, ShareStatus, StatusReport,
};
use crate::sys::clock;
use crate::sys::worker::{self, Answer, Request};

/// Some thousand processes with some thousand files each; a second password takes milliseconds, or as long as a login that hangs.
const WORKER_WITHIN: Duration = Duration::from_secs(4);

/// Everything that others may see and ask; assembled on demand: reading it waits for nobody. A reload changes it.
#[derive(Debug)]
pub struct Board {
    actors: Mutex<Actors>,
    /// The consumers of the host.
    pub consumers: ConsumersHandle,
    /// What happened to each share.
    pub recorders: Recorders,
    /// Asks for a reload.
    pub reloads: mpsc::Sender<ReloadAsked>,
}

/// What runs.
#[derive(Debug, Default)]
pub struct Actors {
    /// Servers by name.
    pub servers: BTreeMap<String, ServerHandle>,
    /// Shares by name.
    pub shares: BTreeMap<String, ShareHandle>,
}

/// How to reach a server, and what it publishes.
#[derive(Clone, Debug)]
pub struct ServerHandle {
    /// As configured.
    pub host: String,
    /// What is known of it.
    pub view: watch::Receiver<ServerView>,
    /// An operator trusts whoever answers now.
    pub trust_stranger: mpsc::Sender<()>,
}

/// Why there is no answer to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// There is no share of that name.
    NoSuchShare,
    /// There is no server of that name.
    NoSuchServer,
    /// The daemon is ending.
    Ending,
}

impl Board {
    /// A board on which nothing runs yet.
    pub fn new(consumers: ConsumersHandle, recorders: Recorders, reloads: mpsc::Sender<ReloadAsked>) -> Self {
        Self { actors: Mutex::default(), consumers, recorders, reloads }
    }

    /// What runs. Never kept over an await.
    pub fn actors(&self) -> MutexGuard<'_, Actors> {
        self.actors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Trusts whoever answers at a server's address now; `false` if nobody else than the server does.
    pub async fn trust_stranger(&self, server: &str) -> Result<bool, NoAnswer> {
        let handle = self.actors().servers.get(server).cloned().ok_or(NoAnswer::NoSuchServer)?;
        if handle.view.borrow().stranger.is_none() {
            return Ok(false);
        }
        handle.trust_stranger.send(()).await.map_err(|_| NoAnswer::Ending)?;
        Ok(true)
    }

    /// Everything, now.
    pub fn report(&self) -> StatusReport {
        let (now, consumers, actors) = (clock::now(), self.consumers.view.borrow(), self.actors());
        StatusReport {
            schema: status::SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            servers: actors
                .servers
                .iter()
                .map(|(name, handle)| server(name, &handle.host, &handle.view.borrow()))
                .collect(),
            shares: actors.shares.values().map(|handle| share(&handle.view.borrow(), &consumers, now)).collect(),
            hanging_workers: worker::hanging(now),
        }
    }

    /// Where shares appear.
    pub fn mount_points(&self) -> Vec<PathBuf> {
        self.actors().shares.values().map(|handle| handle.view.borrow().settings.mount_point.clone()).collect()
    }

    /// Tells the share of a mount point that something changed there. Never lost: a share whose queue is full hears of it later.
    pub fn mount_table_changed(&self, mount_point: &Path) {
        let actors = self.actors();
        let is_there = |handle: &&ShareHandle| handle.view.borrow().settings.mount_point == mount_point;
        for handle in actors.shares.values().filter(is_there) {
            let events = handle.events.clone();
            tokio::spawn(async move { events.send(Event::MountTableChanged).await });
        }
    }

    /// Who has a share open, as a worker finds it; an error in words if that takes too long.
    pub async fn holders(&self, share: &str) -> Result<Result<Vec<Holder>, String>, NoAnswer> {
        if !self.actors().shares.contains_key(share) {
            return Err(NoAnswer::NoSuchShare);
        }
        Ok(match worker::ask(&Request::ListHolders { share: share.to_owned() }, WORKER_WITHIN).await {
            Ok(Answer::Holders(holders)) => Ok(holders),
            Ok(answer) => Err(format!("a worker answered something else: {answer:?}")),
            Err(failed) => Err(failed.to_string()),
        })
    }

    /// What other mount namespaces have of a share, likewise.
    pub async fn copies(&self, share: &str) -> Result<Result<Vec<NamespaceCopy>, String>, NoAnswer> {
        let request = {
            let actors = self.actors();
            let handle = actors.shares.get(share).ok_or(NoAnswer::NoSuchShare)?;
            let settings = &handle.view.borrow().settings;
            let server = actors.servers.get(&settings.server.to_string());
            // a mount that was given up is known by its source; none has been made from an address that is not known
            let address = server.and_then(|server| server.view.borrow().address);
            let source = address.map_or_else(String::new, |address| options::source(settings, address));
            Request::ListCopies { share: share.to_owned(), source, mount_point: settings.mount_point.clone() }
        };
        Ok(match worker::ask(&request, WORKER_WITHIN).await {
            Ok(Answer::Copies(copies)) => Ok(copies),
            Ok(answer) => Err(format!("a worker answered something else: {answer:?}")),
            Err(failed) => Err(failed.to_string()),
        })
    }

    /// Gives the session of a share the password of its credentials file as its second one; an error in words if that cannot be.
    pub async fn add_password(&self, share: &str) -> Result<Result<(), String>, NoAnswer> {
        let request = {
            let actors = self.actors();
            let handle = actors.shares.get(share).ok_or(NoAnswer::NoSuchShare)?;
            let state = handle.view.borrow().share.state();
            if !handle.view.borrow().share.may_be_reconfigured() {
                return Ok(Err(format!("the share is {state}, and something is being done about it")));
            }
            match executor::login(&handle.configured.borrow().credentials) {
                Ok(login) => Request::AddPassword { share: share.to_owned(), login },
                Err(failure) => return Ok(Err(failure.message)),
            }
        };
        Ok(worker::ask(&request, WORKER_WITHIN).await.map(drop).map_err(|failed| failed.to_string()))
    }

    /// Asks for a reload and waits for what came of it.
    pub async fn reload(&self, how: How) -> Result<Outcome, NoAnswer> {
        let (answer, answered) = oneshot::channel();
        self.reloads.send((how, answer)).await.map_err(|_| NoAnswer::Ending)?;
        answered.await.map_err(|_| NoAnswer::Ending)
    }

    /// Puts a command to a share and waits for what it says to it, which takes as long as writing it down.
    pub async fn command(&self, share: &str, command: Command) -> Result<CommandAnswer, NoAnswer> {
        let commands = self.actors().shares.get(share).map(|handle| handle.commands.clone());
        let commands = commands.ok_or(NoAnswer::NoSuchShare)?;
        let (answer, answered) = oneshot::channel();
        commands.send((command, answer)).await.map_err(|_| NoAnswer::Ending)?;
        answered.await.map_err(|_| NoAnswer::Ending)
    }

    /// One line for `systemctl status`.
    pub fn summary(&self) -> String {
        let actors = self.actors();
        let states = actors.shares.iter().map(|(name, handle)| (name, handle.view.borrow().share.state()));
        let away: Vec<String> = states
            .filter(|(_, state)| *state != State::Online)
            .map(|(name, state)| format!("{name} {state}"))
            .collect();
        let all = actors.shares.len();
        match away.as_slice() {
            [] => format!("{all} shares online"),
            away => format!("{} of {all} shares online; {}", all - away.len(), away.join(", ")),
        }
    }
}

fn server(name: &str, host: &str, view: &ServerView) -> ServerStatus {
    let milliseconds = |latency: Duration| (latency.as_secs_f64() * 1e6).round() / 1e3;
    ServerStatus {
        name: name.to_owned(),
        host: host.to_owned(),
        address: view.address,
        trust: view.trust,
        latency: view.latency.map(|latency| LatencyStatus {
            last_ms: milliseconds(latency.last),
            median_ms: milliseconds(latency.median),
            p95_ms: milliseconds(latency.p95),
            slowest_ms: milliseconds(latency.slowest),
            slow: latency.slow,
        }),
        local_trouble: view.local_trouble.clone(),
        stranger: view.stranger.map(|identity| identity.to_string()),
        flapping: view.flapping.map(|flapping| FlappingStatus {
            outages: flapping.outages,
            must_answer_for: flapping.must_answer_for.as_secs_f64(),
        }),
    }
}

fn rung(rung: &Rung) -> RungStatus {
    RungStatus {
        operation: rung.operation.to_string(),
        at: clock::wall_clock(rung.began),
        budget: rung.budget.as_secs_f64(),
        took: rung.took.map(|took| took.as_secs_f64()),
        outcome: rung.outcome.clone(),
    }
}

fn share(view: &ShareView, consumers: &ConsumersView, now: BootInstant) -> ShareStatus {
    let (settings, share) = (&view.settings, &view.share);
    let name = settings.id.to_string();
    let reason = share.reason().clone();
    let left = |at: BootInstant| at.since(now).as_secs_f64();
    let told = consumers.told.get(&name).filter(|told| told.heard == view.demands_sent);
    let progress = match told {
        Some(told) => told.progress,
        None if settings.consumers.is_empty() => Progress::Settled,
        None => Progress::Busy,
    };
    let consumer = |unit: &String| ConsumerStatus {
        unit: unit.clone(),
        containers: is_group(unit).then(|| consumers.members.get(unit).into_iter().flatten().cloned().collect()),
        held: consumers.held.get(unit).copied(),
        operation: consumers.operations.get(unit).copied(),
    };
    let mut units: Vec<&String> = settings.consumers.iter().map(|settings| &settings.unit).collect();
    let members: BTreeSet<&String> = units.iter().filter_map(|unit| consumers.members.get(*unit)).flatten().collect();
    units.extend(members.into_iter().filter(|member| settings.consumers.iter().all(|of| of.unit != **member)));
    ShareStatus {
        state: share.state(),
        since: clock::wall_clock(share.since()),
        reason_text: reason.to_string(),
        hint: reason.hint().map(str::to_owned),
        reason,
        server: settings.server.to_string(),
        source: settings.source.clone(),
        mount_point: settings.mount_point.display().to_string(),
        operation: view.operation.map(|(operation, _)| operation.to_owned()),
        operation_for: view.operation.map(|(_, since)| now.since(since).as_secs_f64()),
        hold_reasons: share.hold_reasons().into_iter().collect(),
        wanted: share.wanted(),
        maintenance: share.maintenance().map(|maintenance| MaintenanceStatus { ends_in: maintenance.until.map(left) }),
        consumers_progress: progress,
        memory_trouble: view.trouble.clone().or_else(|| consumers.trouble.clone()),
        hold_ends_in: share.hold_ends_at().map(left),
        given_up: share.memory().is_some_and(|memory| memory.given_up),
        release: view.ladder.rungs().iter().map(rung).collect(),
        loss: share.loss().map(|loss| LossStatus { at: clock::wall_clock(loss.at), what: loss.what.clone() }),
        consumers: units.into_iter().map(consumer).collect(),
        name,
    }
}
