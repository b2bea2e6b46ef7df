//! A configuration that changes while the daemon runs: the whole of it is checked as at the start, and an invalid one changes
//! nothing. Then the plan of `plan::diff` is carried out step by step.
//!
//! A step that fails is said, what needs it is not done, and the rest goes on: each step leaves things as some configuration would
//! have them. What was done is in force and what was not is not, so that the next reload tries it again.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use super::board::{Board, ServerHandle};
use super::consumers::ToConsumers;
use super::copies;
use super::dependents;
use super::executor::{Executor, Host};
use super::host_watch::{self, HostChanges};
use super::orphans;
use super::server_actor::{self, ProbedServer, ServerSurroundings};
use super::share_actor::{self, Configured, ShareHandle, ShareView, Surroundings};
use super::sleep::{self, Sleep};
use crate::config;
use crate::config::settings::{ServerId, ServerSettings, Settings, ShareId, ShareSettings};
use crate::plan;
use crate::plan::diff::{PlanStep, diff};
use crate::share::event::Memory;
use crate::share::ladder::Ladder;
use crate::share::{BootInstant, Command, State};
use crate::sys::clock;
use crate::sys::config_dir::{ConfigRoots, read_config};
use crate::sys::worker;

/// How long all shares that are to go may take together to be unmounted: their consumers' stop and what is unwritten. One that
/// takes longer is taken off the host as it is, as `umount -l` would. systemd gives a reload 45 s (`TimeoutStartSec=`).
const UNMOUNT_WITHIN: Duration = Duration::from_secs(25);

/// How long the loop of a share may take to notice that it is over: what it does in one turn.
const END_WITHIN: Duration = Duration::from_secs(2);

/// Whether a reload is only asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Do it.
    Apply,
    /// Say what would be done.
    DryRun,
}

/// A reload with where its outcome goes.
pub type ReloadAsked = (How, oneshot::Sender<Outcome>);

/// What came of a reload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    /// The configuration is not valid; nothing has been changed.
    Invalid {
        /// What is wrong with it, as `nasmount check` says it.
        problems: String,
    },
    /// What was done, or would be.
    Planned {
        /// In this order; empty if nothing that matters has changed.
        steps: Vec<String>,
        /// What the operator still has to do or to know.
        notes: Vec<String>,
        /// What could not be done.
        failed: Vec<String>,
    },
}

/// Starts and ends actors, and knows which configuration they run with.
#[derive(Debug)]
pub struct Reloader {
    host: Arc<Host>,
    board: Arc<Board>,
    sleep: sleep::Publisher,
    /// `--config`
    file: Option<PathBuf>,
    in_force: Settings,
    changes: HostChanges,
    servers: BTreeMap<ServerId, ProbedServer>,
    /// Hears of shares that are back.
    returned: mpsc::Sender<String>,
}

impl Reloader {
    /// Nothing runs yet.
    pub fn new(host: Arc<Host>, board: Arc<Board>, sleep: sleep::Publisher, file: Option<PathBuf>) -> Self {
        let in_force = Settings { servers: BTreeMap::new(), shares: BTreeMap::new() };
        let changes = host_watch::spawn(Arc::clone(&host.network));
        let returned = copies::spawn(Arc::clone(&board));
        Self { host, board, sleep, file, in_force, changes, servers: BTreeMap::new(), returned }
    }

    /// Starts everything at the start of the daemon. The consumers have their configuration already.
    pub fn start(&mut self, settings: Settings) {
        for server in settings.servers.values() {
            self.add_server(server);
        }
        for share in settings.shares.values() {
            self.add_share(share, &settings);
        }
        self.in_force = settings;
        dependents::keep(&self.in_force);
    }

    /// Reloads when asked, one after the other, as long as the daemon runs.
    pub async fn serve(mut self, mut asked: mpsc::Receiver<ReloadAsked>) {
        while let Some((how, answer)) = asked.recv().await {
            let outcome = self.reload(how).await;
            let _ = answer.send(outcome); // who asked may have gone away
        }
    }

    async fn reload(&mut self, how: How) -> Outcome {
        let settings = match self.read().await {
            Ok(settings) => settings,
            Err(problems) => {
                warn!("the new configuration is not valid; the one in force stays:\n{problems}");
                return Outcome::Invalid { problems };
            }
        };
        let plan = diff(&self.in_force, &settings);
        let steps = plan.iter().map(ToString::to_string).collect();
        let notes = plan.iter().filter_map(PlanStep::note).collect();
        let failed = if how == How::Apply { self.apply(&plan, &settings).await } else { Vec::new() };
        Outcome::Planned { steps, notes, failed }
    }

    /// Whole and valid, or not at all. The check is the one of the start, in a process of its own: a credentials file may lie on
    /// what hangs.
    async fn read(&self) -> Result<Settings, String> {
        worker::check_configuration(self.file.as_deref()).await?;
        let texts = read_config(&ConfigRoots::system(self.file.as_deref())).map_err(|error| error.to_string())?;
        config::load(&texts.fragments, &texts.profiles)
            .map(|loaded| loaded.settings)
            .map_err(|_| "the configuration changed while it was being read; try again".to_owned())
    }

    async fn apply(&mut self, plan: &[PlanStep], settings: &Settings) -> Vec<String> {
        let unmounted_by = clock::now() + UNMOUNT_WITHIN;
        let mut failed = Vec::new();
        for step in plan {
            info!(%step, "reload");
            let done = match step.hindrance(&self.in_force) {
                Some(hindrance) => Err(hindrance),
                None => self.carry_out(step, settings, unmounted_by).await,
            };
            match done {
                Ok(()) => step.put_in_force(&mut self.in_force),
                Err(why) => {
                    warn!(%step, why, "reload: a step failed");
                    failed.push(format!("{step}: {why}"));
                }
            }
        }
        self.tell_all();
        dependents::keep(&self.in_force);
        failed
    }

    async fn carry_out(
        &mut self,
        step: &PlanStep,
        settings: &Settings,
        unmounted_by: BootInstant,
    ) -> Result<(), String> {
        match step {
            PlanStep::LoadConsumers => {
                let message = ToConsumers::ConfigurationLoaded(plan::units::units(settings));
                self.board.consumers.to.send(message).await.map_err(|_| "the daemon is ending".to_owned())
            }
            PlanStep::RetireShare { share, .. } => self.retire(share, unmounted_by).await,
            PlanStep::RemoveServer { server } => {
                self.servers.remove(server);
                self.board.actors().servers.remove(&server.to_string());
                self.host.network.unveil(&server.to_string()).await;
                Ok(())
            }
            PlanStep::AddServer { server } => {
                if let Some(address) = self.add_server(server) {
                    self.host.network.veil(&server.id.to_string(), address).await;
                }
                Ok(())
            }
            PlanStep::ChangeServer { server, .. } => {
                let probed = self.servers.get(&server.id).ok_or("it is not probed")?;
                probed.settings.send(server.clone()).map_err(|_| "its probes have ended".to_owned())
            }
            PlanStep::ChangeShare { .. } => Ok(()), // all are told at the end
            PlanStep::AddShare { share, .. } => {
                self.add_share(share, settings);
                Ok(())
            }
        }
    }

    /// Has a server probed; returns its address, if that is known already.
    fn add_server(&mut self, server: &ServerSettings) -> Option<IpAddr> {
        let sleep = Sleep::new(&self.sleep);
        let around = ServerSurroundings {
            network: Arc::clone(&self.host.network),
            changes: self.changes.clone(),
            files: self.host.files.clone(),
        };
        let probed = server_actor::spawn(server.clone(), around, sleep);
        let handle = ServerHandle {
            host: server.host.clone(),
            view: probed.view.clone(),
            trust_stranger: probed.trust_stranger.clone(),
        };
        self.board.actors().servers.insert(server.id.to_string(), handle);
        let address = probed.view.borrow().address;
        self.servers.insert(server.id.clone(), probed);
        address
    }

    fn add_share(&mut self, share: &ShareSettings, settings: &Settings) {
        let (Some(probed), Some(configured)) = (self.servers.get(&share.server), configured(share, settings)) else {
            return;
        };
        let name = share.id.to_string();
        let view = probed.view.clone();
        let around = Surroundings {
            server: view.clone(),
            consumers: self.board.consumers.clone(),
            files: self.host.files.clone(),
            sleep: Sleep::new(&self.sleep),
            tape: self.board.recorders.begin(&name),
        };
        let host = Arc::clone(&self.host);
        let executor = move |configured, events| Executor::new(configured, view, host, events);
        let handle = share_actor::spawn(configured, around, executor);
        dependents::forgive_waits(handle.view.clone());
        copies::watch(handle.view.clone(), self.returned.clone());
        self.board.actors().shares.insert(name, handle);
    }

    /// Unmounts a share in order if that is possible, ends its actor, and takes what is left off the host.
    async fn retire(&mut self, share: &ShareId, unmounted_by: BootInstant) -> Result<(), String> {
        let name = share.to_string();
        let Some(mount_point) = self.in_force.shares.get(share).map(|share| share.mount_point.clone()) else {
            return Ok(());
        };
        let handle = self.board.actors().shares.get(&name).cloned();
        if let Some(handle) = handle {
            self.end(&name, handle, unmounted_by).await?;
        } // else an earlier reload ended it and could not do the rest
        orphans::take_off(&name, &mount_point).await.map_err(|failed| failed.to_string())?;
        self.host.network.lift_fence(&name).await.map_err(|error| format!("cannot lift its fence: {error}"))?;
        let forgotten = self.host.files.write_share(&name, &Memory::default(), &Ladder::default());
        forgotten.map_err(|error| format!("cannot forget what was remembered of it: {error}"))
    }

    /// Has a share unmounted, as far as it lets itself be, and ends its actor; not while an operation is in flight, which could
    /// still mount it.
    async fn end(&self, name: &str, handle: ShareHandle, unmounted_by: BootInstant) -> Result<(), String> {
        let mut view = handle.view.clone();
        let wanted = view.borrow().share.wanted();
        match self.board.command(name, Command::Retire).await {
            Ok(Ok(_)) => {}
            Ok(Err(refusal)) => return Err(format!("{refusal}; {}", refusal.hint())),
            Err(_) => return Err("the daemon is ending".to_owned()),
        }
        let is_off = |view: &ShareView| view.share.state() == State::Offline && view.operation.is_none();
        let left = unmounted_by.since(clock::now());
        let _ = tokio::time::timeout(left, view.wait_for(is_off)).await; // else as it is
        let in_flight = view.borrow().operation;
        if let Some((operation, _)) = in_flight {
            if wanted.is_mounted() {
                let _ = self.board.command(name, Command::Mount).await; // it was not an operator's wish
            }
            return Err(format!("the operation '{operation}' has not ended"));
        }
        self.board.actors().shares.remove(name);
        self.board.recorders.end(name);
        drop(handle); // ends the actor, which may be in the middle of a turn
        let ended = async { while view.changed().await.is_ok() {} };
        tokio::time::timeout(END_WITHIN, ended).await.map_err(|_| "its loop has not ended".to_owned())?;
        let begun = view.borrow().operation;
        if let Some((operation, _)) = begun {
            // nobody is there any more who would lift it
            let lifted = self.host.network.lift_fence(name).await;
            lifted.map_err(|error| format!("cannot lift its fence: {error}"))?;
            return Err(format!("it had just begun to {operation}; `nasmount reload` tries again"));
        }
        Ok(())
    }

    /// Also those of which nothing changed: what blocked one may have been mended in a file that it only names.
    fn tell_all(&self) {
        for share in self.in_force.shares.values() {
            let Some(configured) = configured(share, &self.in_force) else { continue };
            if let Some(handle) = self.board.actors().shares.get(&share.id.to_string()) {
                let _ = handle.configured.send(configured);
            }
        }
    }
}

fn configured(share: &ShareSettings, settings: &Settings) -> Option<Configured> {
    let credentials = settings.servers.get(&share.server)?.credentials.clone();
    Some(Configured { share: share.clone(), credentials })
}
