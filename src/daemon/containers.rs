//! What is done to consumers that are containers: paused and continued through systemd, as the scopes that they are; stopped and started
//! by their engine.
//!
//! The engine's own pause is not used: runc gives it up while a task is in D ("unable to freeze", moby issue 48205), which is what tasks
//! on a dead share are.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::sleep;
use tracing::{info, warn};

use crate::share::consumers::{UnitDone, UnitStep};
use crate::sys::engine::{self, Container, EngineError};
use crate::sys::systemd::{Activity, Signal, Systemd};

/// Pause between two looks whether a container has stopped.
const POLL: Duration = Duration::from_millis(100);

/// Seconds between SIGTERM and SIGKILL of who is to be killed.
const NO_GRACE: u32 = 0;

/// As far as it has one.
type Scope = Result<Option<String>, EngineError>;

/// Why nothing came of an operation.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// The engine's part.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// systemd's part.
    #[error(transparent)]
    Systemd(#[from] zbus::Error),
}

/// The scopes of containers, as seen while their engines answered: an outage does not depend on an engine. A container that is made anew
/// has another one.
#[derive(Debug, Default)]
pub struct Containers(Mutex<BTreeMap<String, String>>);

impl Containers {
    /// Carries out one step; ends when it has been done, and not before. `None`: no engine has a container of that name.
    pub async fn perform(
        &self,
        systemd: &Systemd,
        name: &str,
        step: UnitStep,
    ) -> Result<Option<UnitDone>, ContainerError> {
        if step == UnitStep::Inspect {
            return self.inspect(systemd, name).await;
        }
        let known = self.running_scope(systemd, name).await?;
        if matches!(step, UnitStep::Pause | UnitStep::Continue) {
            let scope = match known {
                Some(scope) => Some(scope),
                None => match self.look_up(name).await? {
                    Some((_, scope)) => scope?,
                    None => None,
                },
            };
            match (scope, step) {
                (Some(scope), UnitStep::Pause) => systemd.pause(&scope).await?,
                (Some(scope), _) => systemd.signal(&scope, Signal::Continue).await?,
                (None, _) => {} // it has ended
            }
            return Ok(Some(UnitDone::Plainly));
        }
        let Some((container, scope)) = self.look_up(name).await? else { return Ok(None) };
        // whoever is in no scope is not paused
        if matches!(step, UnitStep::Stop | UnitStep::ContinueAndStart)
            && let Ok(Some(scope)) = scope
        {
            systemd.signal(&scope, Signal::Continue).await?; // else it cannot end before it is killed
        }
        match step {
            UnitStep::Stop => stop(name, &container, None).await.map(Some),
            UnitStep::Kill => stop(name, &container, Some(NO_GRACE)).await.map(Some),
            UnitStep::Start | UnitStep::ContinueAndStart => start(systemd, name, &container).await.map(Some),
            UnitStep::Inspect | UnitStep::Pause | UnitStep::Continue => Ok(Some(UnitDone::Plainly)),
        }
    }

    async fn inspect(&self, systemd: &Systemd, name: &str) -> Result<Option<UnitDone>, ContainerError> {
        if self.running_scope(systemd, name).await?.is_some() {
            return Ok(Some(UnitDone::Found { running: true, run: None }));
        }
        let Some((found, scope)) = self.look_up(name).await? else { return Ok(None) };
        let running = found.running && scope?.is_some();
        Ok(Some(UnitDone::Found { running, run: Some(found.run()) }))
    }

    /// The scope in which it was last seen, if that is still there.
    async fn running_scope(&self, systemd: &Systemd, name: &str) -> Result<Option<String>, ContainerError> {
        let Some(scope) = self.scopes().get(name).cloned() else { return Ok(None) };
        let is_running = systemd.is_loaded(&scope).await? && systemd.activity(&scope).await? == Activity::Running;
        Ok(is_running.then_some(scope))
    }

    /// The container of a name, and its scope.
    async fn look_up(&self, name: &str) -> Result<Option<(Container, Scope)>, ContainerError> {
        let Some(container) = engine::find(name).await? else { return Ok(None) };
        let scope = container.scope();
        if let Ok(Some(scope)) = &scope {
            self.learn(name, scope.clone());
        }
        Ok(Some((container, scope)))
    }

    /// Where a container was seen to run.
    pub fn learn(&self, name: &str, scope: String) {
        self.scopes().insert(name.to_owned(), scope);
    }

    fn scopes(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn stop(name: &str, container: &Container, grace: Option<u32>) -> Result<UnitDone, ContainerError> {
    container.stop(grace).await?;
    loop {
        let Some(found) = engine::find(name).await? else {
            return Ok(UnitDone::Found { running: false, run: None }); // made to be removed when it ends
        };
        if !found.running {
            return Ok(UnitDone::Found { running: false, run: Some(found.run()) });
        }
        sleep(POLL).await;
    }
}

/// A container that does not start is its own affair, or its administrator's, unless the host is going down.
async fn start(systemd: &Systemd, name: &str, container: &Container) -> Result<UnitDone, ContainerError> {
    match container.start().await {
        Err(error @ EngineError::Refused { .. }) => {
            if systemd.is_going_down().await? {
                return Err(error.into());
            }
            warn!(name, %error, "the container cannot be started");
        }
        result => {
            result?;
            info!(name, "started by {}", container.engine);
        }
    }
    Ok(UnitDone::Plainly)
}
