//! Profiles: options and time-outs for one way of using a share, each with its reason beside it.
//!
//! A profile is one file, named after it: `media.toml`. Of two files with the same name the later one counts *whole*;
//! profiles neither inherit nor merge, so that one file says all there is to know.

use std::collections::BTreeMap;
use std::time::Duration;

use super::invalid::Problems;
use super::options::{OptionEntry, read_options};
use super::reader::{Fields, NoneWord, parse};
use super::source::{SourceText, Sourced};
use super::validate::{DIRTY_LIMITS, READ_AHEADS};
use super::value::is_name;

const PROFILE_KEYS: &[&str] = &["description", "patience", "dirty_limit", "read_ahead", "options"];

/// Patience where neither share nor profile says anything: what a player's buffer bridges.
pub(crate) const DEFAULT_PATIENCE: Duration = Duration::from_secs(30);

/// The profile of a share that names none: the commonest use of a NAS at home.
pub(crate) const DEFAULT_PROFILE: &str = "media";

/// One profile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Profile {
    pub(crate) description: Option<String>,
    pub(crate) patience: Option<Sourced<Duration>>,
    pub(crate) dirty_limit: Option<Sourced<Option<u64>>>,
    pub(crate) read_ahead: Option<Sourced<Option<u64>>>,
    pub(crate) options: BTreeMap<String, OptionEntry>,
}

/// The profiles that are part of the program: it works without any installed file.
pub fn shipped_profiles() -> Vec<SourceText> {
    [
        ("media.toml", include_str!("../../profiles/media.toml")),
        ("transcode.toml", include_str!("../../profiles/transcode.toml")),
        ("documents.toml", include_str!("../../profiles/documents.toml")),
        ("backup.toml", include_str!("../../profiles/backup.toml")),
    ]
    .into_iter()
    .map(|(name, text)| SourceText::new(format!("built-in:{name}"), text))
    .collect()
}

/// Name of the profile that a file holds: its name without `.toml`, and without what `built-in:` puts before it.
pub(crate) fn profile_name(source: &SourceText) -> Option<&str> {
    let file = source.path.file_name()?.to_str()?;
    let name = file.strip_suffix(".toml")?;
    Some(name.strip_prefix("built-in:").unwrap_or(name)).filter(|name| is_name(name))
}

/// A profile as a person wants to see it in a list.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// What it is for, if it says so.
    pub description: Option<String>,
    /// Its file.
    pub file: String,
    /// The whole text, with the reasons.
    pub text: String,
}

/// The profiles that shares can name, by name; of the same name the last counts. None is checked.
pub fn list_profiles(profiles: &[SourceText]) -> Vec<Listed> {
    let named = profiles.iter().filter_map(|source| Some((profile_name(source)?, source)));
    let last: BTreeMap<&str, &SourceText> = named.collect();
    let listed = last.into_iter().map(|(name, source)| Listed {
        name: name.to_owned(),
        description: source
            .text
            .parse::<toml::Table>()
            .ok()
            .and_then(|table| Some(table.get("description")?.as_str()?.to_owned())),
        file: source.path.to_string_lossy().into_owned(),
        text: source.text.clone(),
    });
    listed.collect()
}

/// Reads the profiles, given as `(index among all files, name)`. Of the same name only the last is read: what the others
/// say does not count.
pub(crate) fn read_profiles(files: &[(usize, String)], problems: &mut Problems<'_>) -> BTreeMap<String, Profile> {
    let last: BTreeMap<&str, usize> = files.iter().map(|(file, name)| (name.as_str(), *file)).collect();
    // A profile that could not be read still has a name: that no share may use it would be a second, wrong complaint.
    let read = |(name, file): (&str, usize)| (name.to_owned(), read_profile(file, problems).unwrap_or_default());
    last.into_iter().map(read).collect()
}

fn read_profile(file: usize, problems: &mut Problems<'_>) -> Option<Profile> {
    let text = problems.files.text(file);
    let document = parse(&text.text, file, problems)?;
    let mut fields = Fields::new(document.get_ref(), String::new(), file, PROFILE_KEYS, problems);
    Some(Profile {
        description: fields.string("description", problems).map(|text| text.value),
        patience: fields.duration("patience", problems),
        dirty_limit: fields.size("dirty_limit", NoneWord::Refused, DIRTY_LIMITS, problems),
        read_ahead: fields.size("read_ahead", NoneWord::Refused, READ_AHEADS, problems),
        options: read_options(&mut fields, problems),
    })
}
