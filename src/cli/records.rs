//! What is remembered of an import, in files that only root can read; and what one that was interrupted has left undone.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use super::Hinted;
use super::report::in_one_line;
use super::takeover::Places;
use crate::config;
use crate::config::units::mount_unit;
use crate::plan::fstab::{self, Masked, Remembered};
use crate::plan::import::Share;
use crate::plan::mount_unit::{Content, UnitFile, UnitText};
use crate::sys::changes::Change;
use crate::sys::config_dir::{ConfigTexts, ReadError, files_of, read_private};
use crate::sys::unit_files;

/// What is remembered of an import.
#[derive(Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) configuration: PathBuf,
    pub(super) masked: Masked,
    /// The lines, without passwords; older records do not have them.
    #[serde(default)]
    pub(super) lines: Option<Vec<String>>,
    /// Credentials files as they were written.
    #[serde(default)]
    pub(super) logins: Vec<KeptFile>,
    #[serde(default)]
    pub(super) units: Kept,
}

/// What was there of units.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Kept {
    files: Vec<KeptFile>,
    links: Vec<KeptLink>,
}

/// A file of a unit or a login, which may have a password.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct KeptFile {
    pub(super) path: PathBuf,
    pub(super) mode: u32,
    #[serde(with = "crate::plan::fstab::exposed_text")]
    pub(super) text: SecretString,
}

/// A link by which another unit had a unit started.
#[derive(Clone, Serialize, Deserialize)]
struct KeptLink {
    path: PathBuf,
    target: PathBuf,
}

/// What was to be taken away for shares that are in the configuration already, and was not: an import was killed before it came to that,
/// or an export after it had given it back.
#[derive(Debug, Default)]
pub struct Unfinished {
    /// The fstab as it is to be.
    pub(super) fstab: String,
    /// Its lines that become comments, from 1.
    pub(super) lines: Vec<usize>,
    /// Files and links of units that go.
    pub(super) changes: Vec<Change>,
    /// All shares of such an import, whose mounts were not taken over either.
    pub(super) shares: Vec<Share>,
}

/// One, with its path and its text.
pub(super) type RecordFile = (PathBuf, SecretString, Record);

impl Record {
    pub(super) fn remembered(&self) -> Remembered<'_> {
        Remembered { masked: &self.masked, lines: self.lines.as_deref() }
    }
}

impl Record {
    /// Whether an import was ended before it wrote its configuration: then it has taken nothing over yet. `files` are those of conf.d.
    pub(super) fn is_not_begun(&self, fstab: &str, files: &BTreeSet<PathBuf>) -> bool {
        !files.contains(&self.configuration)
            && fstab::is_untouched(fstab, self.remembered())
            && self.units.taken().all(|change| change.is_due())
    }

    /// Takes such a record away, and the credentials files that were made for it, if they are as they were and nobody names them.
    pub(super) fn taken_back(
        self,
        (path, text): (PathBuf, SecretString),
        is_named: impl Fn(&Path) -> bool,
    ) -> impl Iterator<Item = Change> {
        let logins = self.logins.into_iter().filter(move |login| !is_named(&login.path));
        let logins = logins.map(|login| Change::Remove { path: login.path, before: login.text }).filter(Change::is_due);
        logins.chain([Change::Remove { path, before: text }])
    }
}

impl Kept {
    pub(super) fn of(units: &[UnitFile], taken: &[String], directory: &Path) -> anyhow::Result<Self> {
        let texts = units.iter().filter(|unit| taken.contains(&unit.name)).flat_map(|unit| match &unit.content {
            Content::Texts(texts) => texts.as_slice(),
            Content::Masked | Content::Link(_) | Content::Unreadable(_) | Content::DropIns(_) => &[],
        });
        let file =
            |text: &UnitText| KeptFile { path: (&text.path).into(), mode: text.mode, text: text.text.as_str().into() };
        let links = match taken {
            [] => Vec::new(),
            taken => {
                unit_files::links(directory, taken).with_context(|| format!("cannot read {}", directory.display()))?
            }
        };
        let links = links.into_iter().map(|unit_files::Link { path, target }| KeptLink { path, target });
        Ok(Self { files: texts.map(file).collect(), links: links.collect() })
    }

    pub(super) fn taken(&self) -> impl Iterator<Item = Change> {
        let link = |KeptLink { path, target }: &KeptLink| Change::Unlink { path: path.clone(), target: target.clone() };
        let file = |kept: &KeptFile| Change::Remove { path: kept.path.clone(), before: kept.text.clone() };
        self.links.iter().map(link).chain(self.files.iter().map(file))
    }

    pub(super) fn given_back(&self) -> impl Iterator<Item = Change> {
        let file = |KeptFile { path, mode, text }: &KeptFile| Change::Create {
            path: path.clone(),
            text: text.clone(),
            mode: *mode,
        };
        let link = |KeptLink { path, target }: &KeptLink| Change::Link { path: path.clone(), target: target.clone() };
        self.files.iter().map(file).chain(self.links.iter().map(link))
    }

    /// What is started at boot: what a target wants.
    pub(super) fn started(&self) -> impl Iterator<Item = String> {
        self.links.iter().filter_map(|link| {
            let (wanting, unit) = (link.path.parent()?.file_stem()?.to_str()?, link.path.file_name()?.to_str()?);
            wanting.ends_with(".target").then(|| unit.to_owned())
        })
    }
}

impl Unfinished {
    /// What is left to be done of the imports whose records can be read.
    ///
    /// # Errors
    ///
    /// A record that cannot be read.
    pub(super) fn of(places: &Places, fstab: &str, texts: &ConfigTexts) -> anyhow::Result<Self> {
        let Ok(loaded) = config::load(&texts.fragments, &texts.profiles) else { return Ok(Self::none(fstab)) };
        let shares = loaded.settings.shares.values().map(|share| {
            let mount_point = share.mount_point.to_string_lossy().into_owned();
            (mount_unit(&mount_point), Share { name: share.id.to_string(), mount_point })
        });
        let shares: Vec<(String, Share)> = shares.collect();
        let is_share = |unit: &str| shares.iter().any(|(name, _)| name == unit);
        let mut left = Self::none(fstab);
        for (_, _, record) in records(places)? {
            if !texts.fragments.iter().any(|fragment| fragment.path == record.configuration) {
                continue; // nothing was written yet that would be written twice
            }
            let (text, lines) =
                fstab::take_remembered(&left.fstab, record.remembered(), |line| is_share(&unit_of(line)));
            let changes =
                record.units.taken().filter(|change| unit_of_file(change.path()).is_some_and(|unit| is_share(&unit)));
            let changes: Vec<Change> = changes.filter(Change::is_due).collect();
            if lines.is_empty() && changes.is_empty() {
                continue;
            }
            let lines_of = record.lines.iter().flatten().filter_map(|line| fstab::entry(line));
            let units = record.units.files.iter().filter_map(|file| unit_of_file(&file.path));
            let of: BTreeSet<String> = lines_of.map(|entry| unit_of(&entry)).chain(units).collect();
            left.shares.extend(shares.iter().filter(|(unit, _)| of.contains(unit)).map(|(_, share)| share.clone()));
            left.lines.extend(lines);
            left.changes.extend(changes);
            left.fstab = text;
        }
        left.lines.sort_unstable();
        Ok(left)
    }

    /// Nothing is left to be done.
    pub fn none(fstab: &str) -> Self {
        Self { fstab: fstab.to_owned(), ..Self::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.changes.is_empty()
    }

    /// Files and links of units that go.
    pub(super) fn files(&self) -> Vec<String> {
        self.changes.iter().map(|change| change.path().to_string_lossy().into_owned()).collect()
    }

    /// The units but for those that it is about.
    pub(super) fn others(&self, mut units: Vec<UnitFile>) -> Vec<UnitFile> {
        units.retain(|unit| !self.changes.iter().any(|change| change.path() == Path::new(&unit.path)));
        units
    }
}

/// The unit that systemd has for a line.
fn unit_of(line: &fstab::Entry) -> String {
    let mount_point: PathBuf = Path::new(&line.mount_point).components().collect();
    mount_unit(&mount_point.to_string_lossy())
}

/// The mount unit to which a file belongs: itself, its automount unit, a drop-in of theirs, or a link to one.
fn unit_of_file(path: &Path) -> Option<String> {
    let of = if path.extension().is_some_and(|extension| extension == "conf") { path.parent()? } else { path };
    let name = of.file_name()?.to_str()?;
    Some(name.trim_end_matches(".d").replace(".automount", ".mount"))
}

/// Whether somebody has changed a login since the import.
pub(super) fn is_another_now(login: &KeptFile) -> bool {
    fn said(text: &SecretString) -> BTreeSet<&str> {
        text.expose_secret().lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
    }
    read_private(&login.path).is_ok_and(|now| said(&now) != said(&login.text))
}

/// Those that are there, with their paths and texts.
pub(super) fn records(places: &Places) -> anyhow::Result<Vec<RecordFile>> {
    let mut records = Vec::new();
    let files = files_of(&places.records())?;
    for path in files.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "json")) {
        let text = read_private(&path).map_err(|error| is_unreadable(&error))?;
        let record = serde_json::from_str(text.expose_secret()).map_err(|error| is_no_record(&path, &error))?;
        records.push((path, text, record));
    }
    Ok(records)
}

fn is_unreadable(error: &ReadError) -> anyhow::Error {
    Hinted::new(in_one_line(error), error.hint()).into()
}

/// Says nothing of what is in it.
fn is_no_record(path: &Path, error: &serde_json::Error) -> anyhow::Error {
    let (path, line, column) = (path.display(), error.line(), error.column());
    let message = format!("cannot read {path}: it is no record of an import: line {line}, column {column}");
    let hint = "restore it from a backup: it has the passwords and units that were taken over; without one, rename it (not to *.json), \
                and write passwords into the lines of fstab by hand";
    Hinted::new(message, hint).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_target_wants_is_started_at_boot() {
        let link = |path: &str| KeptLink { path: path.into(), target: "../x".into() };
        let links = ["/u/multi-user.target.wants/mnt-a.automount", "/u/player.service.requires/mnt-a.mount"];
        let kept = Kept { files: Vec::new(), links: links.map(link).into() };
        assert_eq!(kept.started().collect::<Vec<_>>(), ["mnt-a.automount"]);
    }

    #[test]
    fn a_file_belongs_to_the_unit_of_its_name() {
        for path in ["mnt-a.mount", "mnt-a.automount", "mnt-a.mount.d/x.conf", "x.target.wants/mnt-a.automount"] {
            assert_eq!(unit_of_file(&Path::new("/u").join(path)).as_deref(), Some("mnt-a.mount"), "{path}");
        }
    }
}
