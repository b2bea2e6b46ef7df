//! Keeps the units with which others depend on shares what the configuration in force makes of them.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::share_actor::ShareView;
use crate::config::limits::Limit;
use crate::config::settings::Settings;
use crate::plan::dependency;
use crate::share::State;
use crate::sys::generator;
use crate::sys::state_file::StateFiles;
use crate::sys::systemd::Systemd;

/// Has systemd run the generators, unless they have seen this configuration. It has at boot, and after `systemctl daemon-reload`. What
/// they have made of it is what they make of one that is not valid, too.
pub fn keep(settings: &Settings) {
    let wanted = dependency::files(settings);
    warn_of_limits(settings);
    tokio::spawn(async move {
        if is_written(&wanted) {
            return remember(wanted).await;
        }
        match Systemd::reload().await {
            _ if is_written(&wanted) => {
                info!("systemd knows what can depend on a share");
                remember(wanted).await;
            }
            Ok(()) => warn!(
                "what systemd knows of dependencies on shares comes from another configuration: is nasmount-generator installed, \
                 and does the daemon run without --config?"
            ),
            Err(error) => warn!(%error, "systemd does not know what can depend on a share: `systemctl daemon-reload`"),
        }
    });
}

async fn remember(files: BTreeMap<String, String>) {
    let written = tokio::task::spawn_blocking(move || StateFiles::of_host().write_generated(&files)).await;
    if let Err(error) = written.unwrap_or_else(|error| Err(error.into())) {
        warn!(%error, "nothing depends on shares any more when the configuration is not valid at a daemon-reload");
    }
}

/// Whenever a share is online, a wait for it that was given up is no failure of the host any more. Ends with the share's loop.
pub fn forgive_waits(mut view: watch::Receiver<ShareView>) {
    let unit = dependency::wait_unit(&view.borrow().settings.id.0);
    tokio::spawn(async move {
        while view.wait_for(|view| view.share.state() == State::Online).await.is_ok() {
            if let Err(error) = reset_failed(&unit).await {
                debug!(unit, %error, "a wait that was given up still counts as failed");
            }
            if view.wait_for(|view| view.share.state() != State::Online).await.is_err() {
                return;
            }
        }
    });
}

async fn reset_failed(unit: &str) -> zbus::Result<()> {
    Systemd::connect().await?.reset_failed(unit).await
}

/// What the kernel does not enforce, systemd leaves out without a word.
fn warn_of_limits(settings: &Settings) {
    let Ok(controllers) = generator::controllers() else {
        return; // without the unified hierarchy there is systemd's own way for most of them
    };
    for consumer in settings.shares.values().flat_map(|share| &share.consumers) {
        let missing = |limit: &&Limit| !controllers.contains(limit.controller());
        for limit in consumer.limits.keys().filter(missing) {
            let (unit, key, controller) = (&consumer.unit, limit.key(), limit.controller());
            warn!(unit, "{key} has no effect: this kernel runs without the cgroup controller {controller}");
        }
    }
}

fn is_written(wanted: &BTreeMap<String, String>) -> bool {
    let written = match generator::written(Path::new(generator::DIRECTORY)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        written => written,
    };
    written.is_ok_and(|written| written == *wanted)
}
