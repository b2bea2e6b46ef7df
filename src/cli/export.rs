//! `nasmount export-fstab`: the lines that `import-fstab --apply` took over are fstab's again, and the units systemd's.

use std::path::Path;

use super::report::{Exit, Talk};
use super::takeover::{self, FSTAB, Places};
use crate::config::Colour;
use crate::sys::unit_files;

/// `export-fstab`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The lines of /etc/fstab and the mount units are as they were, byte for byte. nasmount unmounts their shares, consumers and all, \
                        and systemd mounts them as they say. The imported file of the configuration is kept under another name, \
                        credentials files stay.\n\n\
                        Examples:\n  sudo nasmount export-fstab --dry-run\n  sudo nasmount export-fstab"
)]
pub struct Arguments {
    /// Only say what would be changed
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Gives them back.
pub fn run(config: Option<&Path>, arguments: &Arguments, colour: Colour, talk: Talk) -> anyhow::Result<Exit> {
    let places = Places::of_host(config, Path::new(FSTAB), unit_files::DIRECTORY.into());
    takeover::export(&places, arguments.dry_run, colour, talk)
}
