//! Lines of fstab and mount units change hands: `import-fstab --apply`, and `export-fstab`, the way back.
//!
//! What an import writes, all of it or nothing, in this order:
//!
//! ```text
//! /etc/nasmount/SERVER.cred          logins that stood on lines, for root only
//! /etc/nasmount/imported/fstab.json  the passwords that are not in fstab any more, and units, for root only
//! /etc/nasmount/nasmount.toml        if there is none yet: a comment
//! /etc/nasmount/conf.d/fstab.toml    servers and shares; fstab-2.toml for those of a second import
//! /etc/fstab                         the lines become comments
//! /etc/systemd/system                units, their drop-ins, and the links that have them started, go
//! ```
//!
//! nasmount makes a unit of the same name for each share, and one of the administrator's would stand before it; its drop-ins would change
//! it.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use secrecy::SecretString;

use super::check::{load_and_check, look_if_in_sight, say_notices};
use super::import::{examined, imported, nested, say_examined, say_remarks};
use super::records::{Kept, KeptFile, Record, Unfinished};
use super::report::{Exit, Talk, in_one_line, write_error};
use super::succession;
use super::{Hinted, is_root};
use crate::config::{Colour, SourceText};
use crate::plan::bytes::bytes_of;
use crate::plan::doctor::lacks_cifs;
use crate::plan::fstab::{self, Taken};
use crate::plan::import::{Import, Login, Share, Sources};
use crate::plan::mount_unit::UnitFile;
use crate::sys::accounts;
use crate::sys::changes::{self, Alone, Change, ChangeError, Done};
use crate::sys::config_dir::{
    ConfigRoots, ConfigTexts, ReadError, mount_point_on_host, read_config, read_config_or_none, read_fstab,
};
use crate::sys::{host_facts, unit_files};

/// Where fstab is.
pub const FSTAB: &str = "/etc/fstab";

/// Name of the file of servers and shares, and of the one of passwords, without their endings.
const NAME: &str = "fstab";

/// What the configuration is called that would be written, while it is no file yet.
pub(super) const IMPORTED: &str = "fstab.toml";

const MAIN_TEXT: &str =
    "# Servers and shares of nasmount. Those that were lines of /etc/fstab are in conf.d, and can be changed there.\n";

/// What an import does to an fstab that is kept elsewhere.
const IMPORTED_BY_HAND: &str = "do it by hand where the fstab is kept: put what `nasmount import-fstab` prints into conf.d, make comments \
                                of its lines, and `systemctl enable --now nasmount`";

const NOTHING_CHANGED: &str = "nothing was changed; `nasmount import-fstab` prints the configuration that is meant, with its line of fstab \
                               or its unit above each share: mend that, or take it out";

/// Which files are meant.
#[derive(Clone, Debug)]
pub struct Places {
    /// The configuration.
    pub roots: ConfigRoots,
    /// The fstab.
    pub fstab: PathBuf,
    /// Directory of the administrator's units; empty for none.
    pub units: PathBuf,
    /// Is the configuration the one that the service reads?
    pub usual: bool,
}

impl Places {
    /// Those of this host.
    pub fn of_host(config: Option<&Path>, fstab: &Path, units: PathBuf) -> Self {
        Self { roots: ConfigRoots::system(config).absolute(), fstab: fstab.to_owned(), units, usual: config.is_none() }
    }

    /// Text of the fstab, units, and configuration.
    ///
    /// # Errors
    ///
    /// One of them cannot be read.
    pub(super) fn read(&self) -> Result<(String, Vec<UnitFile>, ConfigTexts), ReadError> {
        let failed = |source| ReadError::Read { path: self.units.clone(), source };
        let units = if self.has_units() { unit_files::read(&self.units).map_err(failed)? } else { Vec::new() };
        Ok((self.fstab_text()?, units, read_config_or_none(&self.roots)?))
    }

    fn has_units(&self) -> bool {
        !self.units.as_os_str().is_empty()
    }

    /// A host whose shares are units may have no fstab at all.
    pub(super) fn fstab_text(&self) -> Result<String, ReadError> {
        match read_fstab(&self.fstab) {
            Err(ReadError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound && self.has_units() => {
                Ok(String::new())
            }
            read => read,
        }
    }

    /// Where the configuration, and what belongs to it, is.
    pub(super) fn directory(&self) -> &Path {
        self.roots.main.parent().unwrap_or(Path::new("/"))
    }

    pub(super) fn records(&self) -> PathBuf {
        self.directory().join("imported")
    }

    pub(super) fn fstab_shown(&self) -> std::borrow::Cow<'_, str> {
        self.fstab.to_string_lossy()
    }

    /// The pair of files of an import: names that no other import has.
    fn free(&self, texts: &ConfigTexts) -> (PathBuf, PathBuf) {
        let taken = |path: &Path| texts.fragments.iter().any(|fragment| fragment.path == path);
        let numbered = (2..).map(|number: u32| format!("{NAME}-{number}"));
        let pairs = std::iter::once(NAME.to_owned()).chain(numbered).map(|name| {
            (self.roots.drop_ins.join(format!("{name}.toml")), self.records().join(format!("{name}.json")))
        });
        pairs.into_iter().find(|(configuration, _)| !taken(configuration)).unwrap_or_default()
    }

    /// Only root may write these files, and only the usual ones are read by the service.
    pub(super) fn may_be_changed(&self) -> anyhow::Result<()> {
        if !self.usual {
            let hint = "leave out --config, and NASMOUNT_CONFIG";
            return Err(Hinted::new("this changes the configuration that the service reads, and no other", hint).into());
        }
        if !is_root() {
            return Err(Hinted::new("only root may do that", "run it with sudo").into());
        }
        Ok(())
    }
}

/// A configuration with one more file.
pub(super) fn with(texts: &ConfigTexts, toml: &str) -> ConfigTexts {
    let mut texts = texts.clone();
    texts.fragments.push(SourceText::new(IMPORTED, toml));
    texts
}

/// Takes the CIFS lines of fstab over.
pub fn import(places: &Places, colour: Colour, talk: Talk) -> anyhow::Result<Exit> {
    places.may_be_changed()?;
    succession::may_be_imported()?;
    kernel_has_cifs()?;
    let _alone = alone(places)?;
    let mut said = Vec::new();
    let imported = import_files(places, colour, &mut said);
    if talk == Talk::Usual || !matches!(imported, Ok(Some(_))) {
        io::stderr().lock().write_all(&said)?;
    }
    let Some(shares) = imported? else { return Ok(Exit::Usage) };
    if shares.is_empty() {
        return Ok(Exit::Done);
    }
    let undo = "`systemctl enable --now nasmount` goes on from there; `nasmount export-fstab` undoes what was written";
    succession::import(&shares).map_err(|error| Hinted::new(format!("{error:#}"), undo).into())
}

/// The part of it that concerns files; the shares that were taken over, or `None` if something was wrong, and then nothing is changed.
pub fn import_files(places: &Places, colour: Colour, err: &mut impl io::Write) -> anyhow::Result<Option<Vec<Share>>> {
    let (text, units, texts) = match places.read() {
        Ok(read) => read,
        Err(error) => return refused(err, &error),
    };
    let left = Unfinished::of(places, &text, &texts)?;
    let units = left.others(units);
    let shown = places.fstab_shown();
    let sources = Sources { fstab: &left.fstab, name: &shown, units: &units };
    let found = imported(sources, &texts, places.directory(), look_if_in_sight);
    say_remarks(&found, &left, &places.fstab_shown(), err)?;
    if found.shares.is_empty() && left.is_empty() {
        return Ok(Some(Vec::new()));
    }
    let (invalid, _) = examined(&found, &texts, look_if_in_sight, mount_point_on_host, accounts::is_missing);
    if !invalid.is_empty() {
        say_examined((&invalid, &[]), &found, &places.fstab_shown(), colour, err)?;
        writeln!(err, "{NOTHING_CHANGED}")?;
        return Ok(None);
    }
    let changes = changes_of_import(places, &text, sources, &texts, &found, &left)?;
    let done = made(&changes, IMPORTED_BY_HAND)?;
    let (invalid, warnings) = match read_config(&places.roots) {
        Ok(texts) => load_and_check(&texts),
        Err(error) => {
            done.undo()?;
            return refused(err, &error);
        }
    };
    let warnings: Vec<_> = warnings.into_iter().chain(nested(&found, &shown)).collect();
    say_notices(err, &invalid, &warnings, colour)?;
    if !invalid.is_empty() {
        done.undo()?;
        writeln!(err, "{NOTHING_CHANGED}")?;
        return Ok(None);
    }
    let mut lines = [left.lines, found.lines].concat();
    lines.sort_unstable();
    err.write_all(told(&changes, &lines, Told::Imported).as_bytes())?;
    Ok(Some([left.shares, found.shares].concat()))
}

/// Why an import would be refused while it writes, and what to do.
pub(super) fn refusal(
    places: &Places,
    before: &str,
    sources: Sources<'_>,
    texts: &ConfigTexts,
    found: &Import,
    left: &Unfinished,
) -> Option<(String, String)> {
    if let Some((what, remedy)) = lacks_cifs(&host_facts::kernel(Path::new("/"))) {
        return Some((what, remedy.to_owned()));
    }
    let changes = changes_of_import(places, before, sources, texts, found, left);
    match changes.map(|changes| changes::are_possible(&changes)) {
        Ok(Ok(())) => None,
        Ok(Err(error)) => {
            let hint = hint(&error, IMPORTED_BY_HAND).unwrap_or_else(|| "mend that, and try again".to_owned());
            Some((in_one_line(&error), hint))
        }
        Err(error) => Some((format!("{error:#}"), "mend that, and try again".to_owned())),
    }
}

pub(super) fn made(changes: &[Change], by_hand: &str) -> anyhow::Result<Done> {
    let made = changes::are_possible(changes).and_then(|()| changes::make(changes));
    made.map_err(|error| nothing_changed(error, by_hand))
}

/// No other import or export is at work, as long as this is held.
pub(super) fn alone(places: &Places) -> anyhow::Result<Alone> {
    let directory = places.fstab.parent().unwrap_or(Path::new("/"));
    let held = changes::alone(directory).with_context(|| format!("cannot lock {}", directory.display()))?;
    held.ok_or_else(|| {
        let message =
            "another `nasmount import-fstab --apply` or `nasmount export-fstab` is at work; nothing was changed";
        Hinted::new(message, "try again when it has ended").into()
    })
}

/// Without CIFS in the kernel nothing that is taken over could be mounted.
fn kernel_has_cifs() -> anyhow::Result<()> {
    match lacks_cifs(&host_facts::kernel(Path::new("/"))) {
        Some((what, remedy)) => Err(Hinted::new(format!("nothing was changed: {what}"), remedy).into()),
        None => Ok(()),
    }
}

pub(super) fn nothing_changed(error: ChangeError, by_hand: &str) -> anyhow::Error {
    match hint(&error, by_hand) {
        Some(hint) => Hinted::new(format!("nothing was changed: {}", in_one_line(&error)), hint).into(),
        None => anyhow::Error::from(error).context("nothing was changed"),
    }
}

/// What to do about it; of an fstab that is a link, which something else keeps, also what can be done by hand.
fn hint(error: &ChangeError, by_hand: &str) -> Option<String> {
    let hint = error.hint()?;
    Some(if error.is_about_a_link() { format!("{hint}; or {by_hand}") } else { hint.to_owned() })
}

pub(super) fn refused<T>(err: &mut impl io::Write, error: &ReadError) -> anyhow::Result<Option<T>> {
    write_error(err, error, Some(&error.hint()))?;
    Ok(None)
}

/// All of them, in their order; `before` is the fstab as it is.
fn changes_of_import(
    places: &Places,
    before: &str,
    sources: Sources<'_>,
    texts: &ConfigTexts,
    found: &Import,
    left: &Unfinished,
) -> anyhow::Result<Vec<Change>> {
    let taken = fstab::take(sources.fstab, &found.lines);
    let units = Kept::of(sources.units, &found.units, &places.units)?;
    let fstab = taken.text.clone();
    let mut changes =
        if found.shares.is_empty() { Vec::new() } else { new_files(places, texts, found, taken, units.clone())? };
    if fstab != before {
        changes.push(replaced(places, before, &fstab));
    }
    changes.extend(left.changes.iter().cloned().chain(units.taken()));
    Ok(changes)
}

/// The fstab with another text, and every byte that is not UTF-8 as it was.
pub(super) fn replaced(places: &Places, before: &str, text: &str) -> Change {
    let bytes = |text| bytes_of(text).into();
    Change::Replace { path: places.fstab.clone(), before: bytes(before), text: bytes(text) }
}

/// The files that an import writes.
fn new_files(
    places: &Places,
    texts: &ConfigTexts,
    found: &Import,
    Taken { masked, lines, .. }: Taken,
    units: Kept,
) -> anyhow::Result<Vec<Change>> {
    const PUBLIC: u32 = 0o644;
    const PRIVATE: u32 = 0o600;
    let create = |path: &Path, text: SecretString, mode| Change::Create { path: path.to_owned(), text, mode };
    let (configuration, record) = places.free(texts);
    let mut changes: Vec<Change> =
        found.logins.iter().map(|login| create(&login.path, login.text.clone(), PRIVATE)).collect();
    let login = |login: &Login| KeptFile { path: login.path.clone(), mode: PRIVATE, text: login.text.clone() };
    let logins = found.logins.iter().map(login).collect();
    let kept = Record { configuration: configuration.clone(), masked, lines: Some(lines), logins, units };
    changes.push(create(&record, serde_json::to_string_pretty(&kept)?.into(), PRIVATE));
    if texts.fragments.is_empty() {
        changes.push(create(&places.roots.main, MAIN_TEXT.into(), PUBLIC));
    }
    let toml = format!(
        "# These were {}. `nasmount export-fstab` gives them back.\n\n{}",
        match (found.lines.as_slice(), found.units.as_slice()) {
            (_, []) => format!("lines of {}", places.fstab_shown()),
            ([], _) => format!("units in {}", places.units.display()),
            _ => format!("lines of {} and units in {}", places.fstab_shown(), places.units.display()),
        },
        found.toml
    );
    changes.push(create(&configuration, toml.into(), PUBLIC));
    Ok(changes)
}

/// Of which changes is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Imported,
    Exported,
    WouldBeExported,
}

/// What was changed, or would be, a line each.
pub(super) fn told(changes: &[Change], lines: &[usize], told: Told) -> String {
    let (was, back) = match told {
        Told::Imported | Told::Exported => ("", "are back"),
        Told::WouldBeExported => ("would be ", "would be back"),
    };
    let becomes = match (told, lines.len()) {
        (Told::Imported, 1) => "is a comment now",
        (Told::Imported, _) => "are comments now",
        (Told::Exported, 1) => "mounts again",
        (Told::Exported, _) => "mount again",
        (Told::WouldBeExported, _) => "would mount again",
    };
    let line = |change: &Change| match change {
        Change::Create { path, .. } => format!("{}: {was}written\n", path.display()),
        Change::Rename { path, to } => format!("{}: {was}renamed to {}\n", path.display(), to.display()),
        Change::Remove { path, .. }
            if path.extension().is_some_and(|extension| extension == "json" || extension == "cred") =>
        {
            format!("{}: {was}removed\n", path.display())
        }
        Change::Remove { path, .. } | Change::Unlink { path, .. } => {
            format!("{}: {was}removed; `nasmount export-fstab` gives it back\n", path.display())
        }
        Change::Link { path, .. } => format!("{}: {was}linked again\n", path.display()),
        Change::Replace { path, .. } if lines.is_empty() => format!("{}: passwords {back}\n", path.display()),
        Change::Replace { path, .. } => format!("{}: {} {becomes}\n", path.display(), numbered(lines)),
    };
    changes.iter().map(line).collect()
}

/// `line 2`, or `lines 2, 3`.
pub(super) fn numbered(lines: &[usize]) -> String {
    let numbers: Vec<String> = lines.iter().map(ToString::to_string).collect();
    format!("line{} {}", if lines.len() == 1 { "" } else { "s" }, numbers.join(", "))
}
