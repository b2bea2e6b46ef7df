//! `nasmount-generator`: systemd runs it at boot and at each `daemon-reload`, before anything else is up (systemd.generator(7)).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use anyhow::Context as _;

use super::Hinted;
use super::report::Exit;
use crate::config;
use crate::plan::dependency;
use crate::sys::config_dir::{ConfigRoots, ReadError, read_config};
use crate::sys::generator;
use crate::sys::state_file::StateFiles;

/// Writes the units of the usual configuration into the first of systemd's three directories. One that is not there makes none; of one
/// that is not valid, those of the last that was in force: the daemon that runs follows that one, too, and no consumer is to start at boot
/// without its shares because of a slip.
pub fn run(arguments: &[OsString]) -> anyhow::Result<Exit> {
    let directory = Path::new(arguments.first().map_or(generator::DIRECTORY.as_ref(), OsString::as_os_str));
    let (files, invalid) = match configured() {
        Ok(files) => (files, None),
        Err(why) => (StateFiles::of_host().read_generated().unwrap_or_default(), Some(why)),
    };
    generator::write(directory, &files).with_context(|| format!("cannot write units into {}", directory.display()))?;
    match invalid {
        None => Ok(Exit::Done),
        Some(why) if files.is_empty() => Err(why.context("no share has a unit that others can require")),
        Some(why) => Err(why.context("the units of shares are those of the last configuration that was in force")),
    }
}

fn configured() -> anyhow::Result<BTreeMap<String, String>> {
    let texts = match read_config(&ConfigRoots::system(None)) {
        Err(ReadError::NoConfiguration { .. }) => return Ok(BTreeMap::new()), // installed, and not used yet
        texts => texts?,
    };
    let Ok(loaded) = config::load(&texts.fragments, &texts.profiles) else {
        let hint = "`nasmount check` says what is wrong; then `systemctl daemon-reload`";
        return Err(Hinted::new("the configuration is not valid", hint).into());
    };
    Ok(dependency::files(&loaded.settings))
}
