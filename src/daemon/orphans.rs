//! What is left on the host of shares that are not, or are no longer, configured: nothing of theirs may stay barred or mounted.
//! Their consumers are let go by the consumers themselves, who know what is held and what is configured.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::{info, warn};

use crate::config::settings::{OnAccess, Settings};
use crate::sys::barrier_memory::{Barriers, LaidBarrier};
use crate::sys::barrier_socket::Barred;
use crate::sys::state_file::StateFiles;
use crate::sys::worker::{self, Request};
use crate::sys::{autofs, mountinfo};

/// How long one of them may keep the daemon from starting; a worker that hangs longer is abandoned.
const WITHIN: Duration = Duration::from_secs(5);

/// Takes their mounts and barriers off the host, before any share is looked at: a share that was renamed has the same mount
/// point, and one that was moved has left its barrier behind.
pub async fn retire(settings: &Settings, files: &StateFiles) {
    let configured: BTreeMap<String, PathBuf> =
        settings.shares.values().map(|share| (share.id.to_string(), share.mount_point.clone())).collect();
    if let Err(error) = files.retain_shares(&configured.keys().cloned().collect()) {
        warn!(%error, "cannot forget shares that are no longer configured");
    }
    let entries = mountinfo::read().unwrap_or_default();
    for (share, mount_point) in autofs::laid(&entries) {
        if configured.get(&share).is_some_and(|configured| configured == mount_point) {
            continue;
        }
        match take_off(&share, mount_point).await {
            Ok(()) => info!(share, mount_point = %mount_point.display(), "no longer configured: taken off the host"),
            Err(error) => warn!(share, %error, "no longer configured, and cannot be taken off the host"),
        }
    }
    forget_barriers(&configured, files).await;
}

/// Those that could not be laid at boot: they would be at the next, or at one in a year.
async fn forget_barriers(configured: &BTreeMap<String, PathBuf>, files: &StateFiles) {
    let remembered = files.read_barriers().unwrap_or_else(|error| {
        warn!(%error, "cannot read which barriers were laid");
        Barriers::default()
    });
    for (mount_point, LaidBarrier { share, .. }) in remembered {
        if configured.get(&share) == Some(&mount_point) {
            continue;
        }
        let barred = Barred { share: share.clone(), mount_point, on_access: OnAccess::Fail };
        if let Err(error) = worker::ask(&Request::ForgetBarrier(barred), WITHIN).await {
            warn!(share, %error, "no longer configured, and its barrier cannot be forgotten");
        }
    }
}

/// Takes path, clone and barrier of one share off the host. Nothing may be in flight for it.
pub async fn take_off(share: &str, mount_point: &Path) -> Result<(), worker::Failed> {
    let request = Request::Retire { share: share.to_owned(), mount_point: mount_point.to_owned() };
    worker::ask(&request, WITHIN).await.map(drop)
}
