//! What is left to be done when the daemon cannot come back: nothing that it paused may stay paused, and nothing fenced.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{info, warn};

use super::units::Units;
use crate::share::consumers::UnitStep;
use crate::sys::nft;
use crate::sys::state_file::{StateFiles, UnitList};
use crate::sys::systemd::Systemd;

/// The daemon's unit.
const DAEMON: &str = "nasmount.service";

/// As long as a machine under load needs for an answer, and well below what systemd gives the unit.
const WITHIN: Duration = Duration::from_secs(15);

/// Continues everything that the daemon paused and takes its rules off the host, unless systemd is about to start it again: then it goes
/// on from there itself.
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
        let continued = continue_paused().await;
        // nobody would lift the fence of a server that is back; as the last thing, because it may wait for another firewall
        if let Err(error) = nft::remove() {
            warn!(%error, "veil and fence stay as they are");
        }
        continued
    })
}

async fn continue_paused() -> anyhow::Result<()> {
    let paused = StateFiles::of_host().read_units(UnitList::Paused).context("cannot read what is paused")?;
    let units = Arc::new(Units::default());
    let mut tasks = JoinSet::new(); // an engine that does not answer keeps no other waiting
    for consumer in paused.into_keys() {
        let units = Arc::clone(&units);
        tasks.spawn(async move {
            match timeout(WITHIN, units.perform(&consumer, UnitStep::Continue)).await {
                Ok(Ok(_)) => info!(consumer, "continued"),
                Ok(Err(error)) => warn!(consumer, %error, "cannot be continued"),
                Err(_) => warn!(consumer, "cannot be continued: no answer within {WITHIN:?}"),
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    Ok(())
}
