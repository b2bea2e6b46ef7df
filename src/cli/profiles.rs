//! `nasmount profiles [NAME]`: what a share can name as its profile, and what one says.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use comfy_table::{ContentArrangement, Table, presets};

use super::Hinted;
use super::report::{Exit, finish, report};
use crate::config::{Listed, list_profiles};
use crate::sys::config_dir::{ConfigRoots, read_profiles};

/// Version of the form of `--json`.
const SCHEMA: u32 = 1;

const CHECK: &str = "`nasmount check` says where and why";

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
    let texts = read_profiles(&ConfigRoots::system(config)).context("cannot list the profiles")?;
    let mut profiles = list_profiles(&texts);
    if let Some(name) = &arguments.name {
        profiles.retain(|profile| profile.name == *name);
        if profiles.is_empty() {
            bail!(Hinted::new(format!("there is no profile {name}"), "`nasmount profiles` lists what there is"));
        }
    }
    let broken = profiles.iter().filter(|profile| profile.text.parse::<toml::Table>().is_err());
    let broken = broken.map(|profile| Hinted::new(format!("{} cannot be read as TOML", profile.file), CHECK));
    let broken: Vec<Hinted> = broken.collect();
    broken.iter().for_each(|error| report(error, Some(CHECK)));
    let exit = if broken.is_empty() { Exit::Done } else { Exit::Usage };
    let text = match (arguments.json, &arguments.name) {
        (true, _) => format!("{:#}\n", serde_json::json!({ "schema": SCHEMA, "profiles": profiles })),
        (false, None) => render(&profiles),
        (false, Some(_)) => profiles.into_iter().map(|profile| profile.text).collect(),
    };
    Ok(finish(exit, std::io::stdout().write_all(text.as_bytes())))
}

fn render(profiles: &[Listed]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["PROFILE", "FOR", "FILE"]);
    for Listed { name, description, file, .. } in profiles {
        table.add_row([name, &description.as_deref().map_or_else(|| "-".to_owned(), escaped), file]);
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// Whatever a profile says, a terminal does nothing but show it.
fn escaped(text: &str) -> String {
    let letter = |letter: char| if letter.is_control() { letter.escape_default().to_string() } else { letter.into() };
    text.chars().map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{SourceText, shipped_profiles};

    #[test]
    fn ones_own_profile_takes_the_place_of_a_shipped_one() {
        let mut texts = shipped_profiles();
        texts.push(SourceText::new("/etc/nasmount/profiles/media.toml", "description = \"mine\"\n"));
        let text = render(&list_profiles(&texts));
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines.len(), 5, "{text}");
        assert!(lines.contains(&vec!["media", "mine", "/etc/nasmount/profiles/media.toml"]), "{text}");
        assert!(text.contains("built-in:backup.toml"), "{text}");
        assert_eq!(escaped("a\u{1b}[31mb\n"), "a\\u{1b}[31mb\\n");
    }
}
