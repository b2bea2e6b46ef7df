//! Keeps the units with which others depend on shares what the configuration in force makes of them.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use tracing::{info, warn};

use crate::config::settings::Settings;
use crate::plan::dependency;
use crate::sys::generator;
use crate::sys::systemd::Systemd;

/// How long systemd may need for a reload after the call has timed out.
const STILL_AT_IT: Duration = Duration::from_secs(20);

/// Has systemd run the generators, unless they have seen this configuration. It has at boot, and after `systemctl daemon-reload`.
pub fn keep(settings: &Settings) {
    let wanted = dependency::files(settings);
    tokio::spawn(async move {
        if is_written(&wanted) {
            return;
        }
        let reloaded = reload().await;
        if reloaded.is_err() {
            tokio::time::sleep(STILL_AT_IT).await; // a busy PID 1 does it all the same
        }
        match reloaded {
            _ if is_written(&wanted) => info!("systemd knows what can depend on a share"),
            Ok(()) => warn!(
                "what systemd knows of dependencies on shares comes from another configuration: is nasmount-generator installed, \
                 and does the daemon run without --config?"
            ),
            Err(error) => warn!(%error, "systemd does not know what can depend on a share: `systemctl daemon-reload`"),
        }
    });
}

fn is_written(wanted: &BTreeMap<String, String>) -> bool {
    let written = match generator::written(Path::new(generator::DIRECTORY)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        written => written,
    };
    written.is_ok_and(|written| written == *wanted)
}

async fn reload() -> zbus::Result<()> {
    Systemd::connect().await?.reload().await
}
