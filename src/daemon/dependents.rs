//! Keeps the units with which others depend on shares what the configuration in force makes of them.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use tracing::{info, warn};

use crate::config::settings::Settings;
use crate::plan::dependency;
use crate::sys::generator;
use crate::sys::systemd::Systemd;

/// Has systemd run the generators, unless they have seen this configuration. It has at boot, and after `systemctl daemon-reload`.
pub fn keep(settings: &Settings) {
    let wanted = dependency::files(settings);
    tokio::spawn(async move {
        if is_written(&wanted) {
            return;
        }
        match reload().await {
            Ok(()) if is_written(&wanted) => info!("systemd knows what can depend on a share"),
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
