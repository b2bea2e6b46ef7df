//! What is done to consumers that are units of a user's own service manager.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing::warn;

use super::units::{nothing_runs, perform_on_unit};
use crate::share::consumers::{UnitDone, UnitStep};
use crate::sys::systemd::Systemd;
use crate::sys::user_manager::{self, UserError};

/// Connections to managers by user, made when needed and dropped when they fail.
#[derive(Debug, Default)]
pub struct Users(Mutex<BTreeMap<String, Systemd>>);

impl Users {
    /// Carries out one step; ends when it has been done, and not before. `None`: the user's manager does not know the unit.
    pub async fn perform(&self, user: &str, unit: &str, step: UnitStep) -> Result<Option<UnitDone>, UserError> {
        let starts = matches!(step, UnitStep::Start | UnitStep::ContinueAndStart);
        let systemd = match self.manager(user).await {
            // a lingering user's manager is on its way, as at boot: the start is tried again
            Err(error @ UserError::Absent { lingers: true, .. }) if starts => return Err(error),
            Err(error @ UserError::Absent { .. }) => {
                if starts {
                    warn!(user, unit, %error, "the consumer is not started");
                }
                return Ok(Some(nothing_runs(step)));
            }
            systemd => systemd?,
        };
        let result = perform_on_unit(&systemd, unit, step).await;
        if matches!(&result, Err(error) if !matches!(error, zbus::Error::MethodError(..))) {
            self.known().remove(user);
        }
        Ok(result?)
    }

    async fn manager(&self, user: &str) -> Result<Systemd, UserError> {
        if let Some(systemd) = self.known().get(user) {
            return Ok(systemd.clone());
        }
        // nobody waits for another user's, which may take its time
        let systemd = user_manager::manager(user).await?;
        Ok(self.known().entry(user.to_owned()).or_insert(systemd).clone())
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Systemd>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
