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

use crate::config::consumer::Consumer;
use crate::share::consumers::{UnitDone, UnitStep};
use crate::sys::engine::{self, Container, EngineError};
use crate::sys::systemd::{Activity, Signal, Systemd};

/// Pause between two looks whether a container has stopped.
const POLL: Duration = Duration::from_millis(100);

/// Seconds between SIGTERM and SIGKILL of who is to be killed.
const NO_GRACE: u32 = 0;

/// Which container.
#[derive(Clone, Copy, Debug)]
pub struct Named<'name> {
    /// Whose it is, if that is said.
    pub engine: Option<&'name str>,
    /// As its engine calls it.
    pub name: &'name str,
}

impl Named<'_> {
    fn consumer(self) -> String {
        Consumer::Container { engine: self.engine, name: self.name }.name()
    }
}

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

/// The scopes of containers by consumer, as seen while their engines answered: an outage does not depend on an engine. A container that
/// is made anew has another one.
#[derive(Debug, Default)]
pub struct Containers(Mutex<BTreeMap<String, String>>);

impl Containers {
    /// Carries out one step; ends when it has been done, and not before. `None`: no engine has that container.
    pub async fn perform(
        &self,
        systemd: &Systemd,
        who: Named<'_>,
        step: UnitStep,
    ) -> Result<Option<UnitDone>, ContainerError> {
        match step {
            UnitStep::Inspect => return self.inspect(systemd, who).await,
            UnitStep::Pause => {
                if let Some(scope) = self.scope(systemd, who).await? {
                    systemd.pause(&scope).await?;
                }
            }
            UnitStep::Continue => {
                if let Some(scope) = self.scope(systemd, who).await? {
                    systemd.signal(&scope, Signal::Continue).await?;
                }
            }
            UnitStep::Stop | UnitStep::Kill => {
                let Some((container, scope)) = self.look_up(who).await? else { return Ok(None) };
                let mut grace = Some(NO_GRACE);
                if step == UnitStep::Stop {
                    go_on(systemd, scope).await?; // else it cannot end before it is killed
                    grace = None;
                }
                return stop(who, &container, grace).await.map(Some);
            }
            UnitStep::Start | UnitStep::ContinueAndStart => {
                let Some((container, scope)) = self.look_up(who).await? else { return Ok(None) };
                if step == UnitStep::ContinueAndStart {
                    go_on(systemd, scope).await?;
                }
                start(systemd, who, &container).await?;
            }
        }
        Ok(Some(UnitDone::Plainly))
    }

    async fn inspect(&self, systemd: &Systemd, who: Named<'_>) -> Result<Option<UnitDone>, ContainerError> {
        if self.running_scope(systemd, who).await?.is_some() {
            return Ok(Some(UnitDone::Found { running: true, run: None }));
        }
        let Some((found, scope)) = self.look_up(who).await? else { return Ok(None) };
        let running = found.running && scope?.is_some();
        Ok(Some(UnitDone::Found { running, run: Some(found.run()) }))
    }

    /// Its scope; `None` if it has ended.
    async fn scope(&self, systemd: &Systemd, who: Named<'_>) -> Result<Option<String>, ContainerError> {
        if let Some(scope) = self.running_scope(systemd, who).await? {
            return Ok(Some(scope));
        }
        Ok(self.look_up(who).await?.map_or(Ok(None), |(_, scope)| scope)?)
    }

    /// The scope in which it was last seen, if that is still there.
    async fn running_scope(&self, systemd: &Systemd, who: Named<'_>) -> Result<Option<String>, ContainerError> {
        let Some(scope) = self.scopes().get(&who.consumer()).cloned() else { return Ok(None) };
        let is_running = systemd.is_loaded(&scope).await? && systemd.activity(&scope).await? == Activity::Running;
        Ok(is_running.then_some(scope))
    }

    /// The container of a name, and its scope.
    async fn look_up(&self, who: Named<'_>) -> Result<Option<(Container, Scope)>, ContainerError> {
        let Some(container) = engine::find(who.engine, who.name).await? else { return Ok(None) };
        let scope = container.scope();
        if let Ok(Some(scope)) = &scope {
            self.learn(&who.consumer(), scope.clone());
        }
        Ok(Some((container, scope)))
    }

    /// Where a consumer was seen to run.
    pub fn learn(&self, consumer: &str, scope: String) {
        self.scopes().insert(consumer.to_owned(), scope);
    }

    fn scopes(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever is in no scope is not paused.
async fn go_on(systemd: &Systemd, scope: Scope) -> zbus::Result<()> {
    match scope {
        Ok(Some(scope)) => systemd.signal(&scope, Signal::Continue).await,
        Ok(None) | Err(_) => Ok(()),
    }
}

async fn stop(who: Named<'_>, container: &Container, grace: Option<u32>) -> Result<UnitDone, ContainerError> {
    container.stop(grace).await?;
    loop {
        let Some(found) = engine::find(who.engine, who.name).await? else {
            return Ok(UnitDone::Found { running: false, run: None }); // made to be removed when it ends
        };
        if !found.running {
            return Ok(UnitDone::Found { running: false, run: Some(found.run()) });
        }
        sleep(POLL).await;
    }
}

/// A container that does not start is its own affair, or its administrator's, unless the host is going down.
async fn start(systemd: &Systemd, who: Named<'_>, container: &Container) -> Result<(), ContainerError> {
    let consumer = who.consumer();
    match container.start().await {
        Err(error @ EngineError::Refused { .. }) => {
            if systemd.is_going_down().await? {
                return Err(error.into());
            }
            warn!(consumer, %error, "the container cannot be started");
        }
        result => {
            result?;
            info!(consumer, "started by {}", container.engine);
        }
    }
    Ok(())
}
