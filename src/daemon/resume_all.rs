//! What is left to be done when the daemon cannot come back: nothing that it paused may stay paused.

use anyhow::Context as _;
use tracing::{info, warn};

use crate::config::consumer::Consumer;
use crate::sys::engine;
use crate::sys::state_file::{StateFiles, UnitList};
use crate::sys::systemd::{Signal, Systemd};
use crate::sys::user_systemd;

/// The daemon's unit.
const DAEMON: &str = "nasmount.service";

/// Continues everything that the daemon paused, unless systemd is about to start it again: then it goes on from there itself.
///
/// systemd before 254 runs `OnFailure=` at every crash, not only at the last one, so this has to look.
pub fn run() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(async {
        let systemd = Systemd::connect().await.context("cannot reach systemd")?;
        let state = systemd.active_state(DAEMON).await.context("cannot ask for the daemon's state")?;
        if state != "failed" && state != "inactive" {
            info!(state, "the daemon is coming back; nothing is continued");
            return Ok(());
        }
        let paused = StateFiles::of_host().read_units(UnitList::Paused).context("cannot read what is paused")?;
        for unit in paused.into_keys() {
            match proceed(&systemd, &unit).await {
                Ok(()) => info!(unit, "continued"),
                Err(error) => warn!(unit, "cannot continue: {error:#}"),
            }
        }
        Ok(())
    })
}

async fn proceed(systemd: &Systemd, consumer: &str) -> anyhow::Result<()> {
    match Consumer::of(consumer) {
        Consumer::Unit(unit) => systemd.signal(unit, Signal::Continue).await?,
        Consumer::UserUnit { user, unit } => {
            if let Some(connection) = user_systemd::connect(user).await? {
                Systemd::on(connection).await?.signal(unit, Signal::Continue).await?;
            }
        }
        Consumer::Container(name) => {
            if let Some(container) = engine::find(name).await?.filter(|container| container.running) {
                systemd.signal(&container.scope()?, Signal::Continue).await?;
            }
        }
    }
    Ok(())
}
