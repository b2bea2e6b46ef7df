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
    let page = text(&clap_mangen::Man::new(program))?;
    Ok(report::finish(Exit::Done, std::io::stdout().write_all(&page)))
}

/// Name and text of the page of a command, and of those below it.
fn pages(command: clap::Command) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let mut all = Vec::new();
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        all.extend(pages(below.clone())?);
    }
    let page = clap_mangen::Man::new(command);
    all.push((page.get_filename(), text(&page)?));
    Ok(all)
}

/// With the sections that man-pages(7) asks for and clap does not know.
fn text(page: &clap_mangen::Man) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    page.render(&mut text)?;
    let text = String::from_utf8(text)?;
    let end = [EXTRA, ".SH VERSION\n"].iter().filter_map(|heading| text.find(heading)).min().unwrap_or(text.len());
    let (before, after) = text.split_at(end);
    Ok(format!("{before}{SECTIONS}{}", after.replacen(EXTRA, ".SH NOTES\n", 1)).into_bytes())
}

/// What clap calls the text after the options.
const EXTRA: &str = ".SH EXTRA\n";

/// The codes of [`Exit`], and the files that people write.
const SECTIONS: &str = r".SH EXIT STATUS
.TP
0
Done, or already so.
.TP
1
Failed.
.TP
2
Wrong usage, or the configuration is missing or not valid.
.TP
3
A share is not healthy, something was found, or the command was refused in this state or did not reach it in time.
.TP
4
There is no such share or server.
.SH FILES
.TP
/etc/nasmount/nasmount.toml
The configuration; \-\-config names another.
.TP
/etc/nasmount/conf.d/*.toml
Drop\-ins, read after it in the order of their names; those beside the file that \-\-config names.
.TP
/etc/nasmount/profiles/*.toml
Profiles that shares can name, before those in /usr/local/share/nasmount/profiles and /usr/share/nasmount/profiles.
";

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
        for page in ["nasmount.1", "nasmount-status.1", "nasmount-login.1"].map(page) {
            let headings: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix(".SH ")).collect();
            let at = |heading: &str| headings.iter().position(|found| found.trim_matches('"') == heading);
            assert!(at("OPTIONS") < at("EXIT STATUS") && at("EXIT STATUS") < at("FILES"), "{headings:?}");
            assert!(at("FILES").is_some() && at("EXTRA").is_none(), "{headings:?}");
            assert!(at("NOTES").is_none_or(|notes| Some(notes) > at("FILES")), "{headings:?}");
            for code in [Exit::Done, Exit::Failed, Exit::Usage, Exit::Refused, Exit::NoSuchShare] {
                assert!(page.contains(&format!(".TP\n{}\n", code as u8)), "{code:?}");
            }
        }
        assert!(page("nasmount-login.1").contains(".SH NOTES\n"));
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
