//! `nasmount profiles [NAME]`: what a share can name as its profile, and what one says.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use anyhow::bail;

use super::Hinted;
use super::report::{Exit, finish, print, report};
use super::table::Rows;
use crate::config::{Invalid, Listed, SourceText, list_profiles, load};
use crate::sys::config_dir::{ConfigRoots, read_profiles_in_part};

/// Version of the form of `--json`.
const SCHEMA: u32 = 1;

/// `profiles [NAME]`
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Print this one, with the reason for each of its options
    name: Option<String>,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// Prints it.
pub fn run(config: Option<&Path>, arguments: &Arguments) -> anyhow::Result<Exit> {
    let (texts, mut unread) = read_profiles_in_part(&ConfigRoots::system(config));
    let mut profiles = list_profiles(&texts);
    if let Some(name) = &arguments.name {
        // a directory that cannot be listed may have it
        unread.retain(|error| error.path().extension().is_none() || error.path().file_stem() == Some(OsStr::new(name)));
        profiles.retain(|profile| profile.name == *name);
        if profiles.is_empty() && unread.is_empty() {
            bail!(Hinted::new(format!("there is no profile {name}"), "`nasmount profiles` lists what there is"));
        }
    }
    let problems = problems(&texts, &profiles);
    for problem in &problems {
        report(problem, Some(&problem.0.help));
    }
    for error in &unread {
        report(error, Some(&error.hint()));
    }
    let exit = if problems.is_empty() && unread.is_empty() { Exit::Done } else { Exit::Usage };
    let text = match (arguments.json, &arguments.name) {
        (true, _) => format!("{:#}\n", serde_json::json!({ "schema": SCHEMA, "profiles": profiles })),
        (false, None) => render(&profiles, &problems),
        (false, Some(_)) => profiles.into_iter().map(|profile| profile.text).collect(),
    };
    // a copy is the file, byte for byte
    if arguments.name.is_some() && !arguments.json && !std::io::stdout().is_terminal() {
        return Ok(finish(exit, std::io::stdout().write_all(text.as_bytes())));
    }
    Ok(print(exit, &text))
}

/// Why these cannot be used, whether a share names them or not.
fn problems(texts: &[SourceText], profiles: &[Listed]) -> Vec<Invalid> {
    let mut problems = load(&[SourceText::new("", "")], texts).err().unwrap_or_default();
    problems.retain(|Invalid(notice)| profiles.iter().any(|profile| notice.place.file == Path::new(&profile.file)));
    problems
}

fn render(profiles: &[Listed], problems: &[Invalid]) -> String {
    let broken: BTreeSet<&Path> = problems.iter().map(|Invalid(notice)| notice.place.file.as_path()).collect();
    let mut table = Rows::new(["PROFILE", "FOR", "FILE"]).with_wrapped(1);
    for Listed { name, description, file, .. } in profiles {
        let purpose = match description {
            _ if broken.contains(Path::new(file)) => "nothing: it cannot be used".to_owned(),
            Some(description) => description.clone(),
            None => "-".to_owned(),
        };
        table.add([name, &purpose, file]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{SourceText, shipped_profiles};

    #[test]
    fn ones_own_profile_takes_the_place_of_a_shipped_one() {
        let mut texts = shipped_profiles();
        texts.push(SourceText::new("/etc/nasmount/profiles/media.toml", "description = \"mine\"\n"));
        let text = render(&list_profiles(&texts), &problems(&texts, &list_profiles(&texts)));
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines.len(), 5, "{text}");
        assert!(lines.contains(&vec!["media", "mine", "/etc/nasmount/profiles/media.toml"]), "{text}");
        assert!(text.contains("built-in:backup.toml"), "{text}");
    }

    #[test]
    fn one_that_cannot_be_used_is_no_good_row_whatever_is_wrong_with_it() {
        for (text, key, row) in [
            ("description = \"mine\"\npatiense = \"1m\"\n", "patiense", "own nothing: it cannot be used /p/own.toml"),
            ("description = 5\n", "description", "own nothing: it cannot be used /p/own.toml"),
            ("description = \"mine\"\npatience = 60\n", "patience", "own nothing: it cannot be used /p/own.toml"),
            (
                "description = \"mine\"\n[options]\nactimeoo = 5\n",
                "options.actimeoo",
                "own nothing: it cannot be used /p/own.toml",
            ),
            ("description = \"mine\n", "", "own nothing: it cannot be used /p/own.toml"),
            ("description = \"mine\"\npatience = \"1m\"\n", "none", "own mine /p/own.toml"),
        ] {
            let mut texts = shipped_profiles();
            texts.push(SourceText::new("/p/own.toml", text));
            let listed = list_profiles(&texts);
            let problems = problems(&texts, &listed);
            let keys: Vec<&str> = problems.iter().map(|Invalid(notice)| notice.key.as_str()).collect();
            assert_eq!(keys, if key == "none" { Vec::new() } else { vec![key] }, "{text}");
            let table = render(&listed, &problems);
            let mut rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
            assert!(rows.any(|line| line == row), "{table}");
        }
    }
}
