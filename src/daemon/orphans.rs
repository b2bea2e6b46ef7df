//! What is left on the host of shares that are not, or are no longer, configured: nothing of theirs may stay barred or mounted.
//! Their consumers are let go by the consumers themselves, who know what is held and what is configured.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::{info, warn};

use crate::config::settings::Settings;
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
}

/// Takes path, clone and barrier of one share off the host. Nothing may be in flight for it.
pub async fn take_off(share: &str, mount_point: &Path) -> Result<(), worker::Failed> {
    let request = Request::Retire { share: share.to_owned(), mount_point: mount_point.to_owned() };
    worker::ask(&request, WITHIN).await.map(drop)
}
