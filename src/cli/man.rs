//! `nasmount man`: the manual pages, from the same definitions as `--help`.

use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;

use super::report::{self, Exit};
use crate::sys::pages::write_page;

/// The page of the program on stdout; or that of each command, `nasmount-COMMAND.1`, in a directory that exists.
pub fn run(program: clap::Command, directory: Option<&Path>) -> anyhow::Result<Exit> {
    if let Some(directory) = directory {
        let mut program = program.disable_help_subcommand(true);
        program.build();
        for (name, page) in pages(program)? {
            write_page(directory, &name, &page)
                .with_context(|| format!("cannot write manual pages into {}", directory.display()))?;
        }
        return Ok(Exit::Done);
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(program).render(&mut page)?;
    Ok(report::finish(Exit::Done, std::io::stdout().write_all(&page)))
}

/// Name and text of the page of a command, and of those below it.
fn pages(command: clap::Command) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let mut all = Vec::new();
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        all.extend(pages(below.clone())?);
    }
    let page = clap_mangen::Man::new(command);
    let mut text = Vec::new();
    page.render(&mut text)?;
    all.push((page.get_filename(), text));
    Ok(all)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    #![expect(clippy::disallowed_methods, reason = "tests read files")]
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn each_command_that_people_type_has_a_page_with_its_options() {
        let directory = tempfile::tempdir().unwrap();
        run(Cli::command(), Some(directory.path())).unwrap();
        let page = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
        assert!(page("nasmount.1").contains(r".TH nasmount 1"));
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            assert!(page(&format!("nasmount-{}.1", command.get_name())).contains("SYNOPSIS"), "{}", command.get_name());
        }
        assert!(page("nasmount-status.1").contains(r"\-\-json"));
        assert!(!directory.path().join("nasmount-worker.1").exists());
    }

    #[test]
    fn a_link_in_the_place_of_a_page_is_replaced_and_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let victim = directory.path().join("victim");
        std::fs::write(&victim, "theirs").unwrap();
        let page = directory.path().join("nasmount-status.1");
        std::os::unix::fs::symlink(&victim, &page).unwrap();
        run(Cli::command(), Some(directory.path())).unwrap();
        assert_eq!(std::fs::read_to_string(victim).unwrap(), "theirs");
        assert!(std::fs::symlink_metadata(&page).unwrap().is_file());
        let names = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let odd: Vec<_> =
            names.filter(|name| !name.to_string_lossy().starts_with("nasmount") && name != "victim").collect();
        assert!(odd.is_empty(), "left behind: {odd:?}");
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let error = run(Cli::command(), Some(Path::new("/nowhere"))).unwrap_err();
        assert_eq!(error.to_string(), "cannot write manual pages into /nowhere");
    }
}
