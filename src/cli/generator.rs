//! `nasmount-generator`: systemd runs it at boot and at each `daemon-reload`, before anything else is up (systemd.generator(7)).

use std::ffi::OsString;
use std::path::Path;

use anyhow::Context as _;

use super::Hinted;
use super::report::Exit;
use crate::config;
use crate::plan::dependency;
use crate::sys::config_dir::{ConfigRoots, ReadError, read_config};
use crate::sys::generator;

/// Writes the units of the usual configuration into the first of systemd's three directories. One that is not valid, or not there,
/// makes none.
pub fn run(arguments: &[OsString]) -> anyhow::Result<Exit> {
    let directory = Path::new(arguments.first().map_or(generator::DIRECTORY.as_ref(), OsString::as_os_str));
    let texts = match read_config(&ConfigRoots::system(None)) {
        Err(ReadError::NoConfiguration { .. }) => return Ok(Exit::Done), // installed, and not used yet
        texts => texts.context("no share has a unit that others can require")?,
    };
    let Ok(loaded) = config::load(&texts.fragments, &texts.profiles) else {
        let hint = "`nasmount check` says what is wrong; then `systemctl daemon-reload`";
        return Err(
            Hinted::new("the configuration is not valid: no share has a unit that others can require", hint).into()
        );
    };
    generator::write(directory, &dependency::files(&loaded.settings))
        .with_context(|| format!("cannot write units into {}", directory.display()))?;
    Ok(Exit::Done)
}
