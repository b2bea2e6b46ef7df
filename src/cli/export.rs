//! `nasmount export-fstab`: the lines that `import-fstab --apply` took over are fstab's again, and the units systemd's.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::Hinted;
use super::check::say_notices;
use super::records::{RecordFile, is_another_now, records};
use super::report::{self, Exit, Talk, in_one_line};
use super::succession::{self, Way};
use super::takeover::{FSTAB, Places, Told, alone, made, nothing_changed, refused, replaced, told};
use crate::config::settings::CredentialSource;
use crate::config::{self, Colour, Invalid};
use crate::plan::fstab::{self, Given, Stuck};
use crate::plan::import::Share;
use crate::sys::changes::{self, Change};
use crate::sys::config_dir::{ConfigTexts, ReadError, files_of, mode_for_others, read_config_or_none};
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
    /// Only say what would be changed; as root, where only root can read what was taken over
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Another fstab
    #[arg(long, value_name = "FILE", default_value = FSTAB, requires = "dry_run")]
    fstab: PathBuf,
    /// Print it as JSON
    #[arg(long, requires = "dry_run")]
    json: bool,
}

/// Version of the form of `--json`.
const SCHEMA: u32 = 1;

/// Gives them back.
pub fn run(config: Option<&Path>, arguments: &Arguments, colour: Colour, talk: Talk) -> anyhow::Result<Exit> {
    let is_usual = arguments.fstab == Path::new(FSTAB);
    let units = if is_usual { PathBuf::from(unit_files::DIRECTORY) } else { PathBuf::new() };
    let places = Places::of_host(config, &arguments.fstab, units);
    if !arguments.dry_run {
        return export(&places, colour, talk);
    }
    let is_of_host = config.is_none() && is_usual;
    if arguments.json {
        let (exit, document) = as_json(&places, is_of_host);
        return Ok(report::finish(exit, writeln!(io::stdout(), "{document:#}")));
    }
    let Some(export) = planned(&places, Told::WouldBeExported, colour, talk)? else { return Ok(Exit::Usage) };
    if export.changes.is_empty() {
        return Ok(Exit::Done);
    }
    if is_of_host {
        // what the real run would be refused for
        changes::are_possible(&export.changes).map_err(|error| nothing_changed(error, EXPORTED_BY_HAND))?;
    }
    let told = told(&export.changes, &export.lines, Told::WouldBeExported);
    let told = format!("Nothing has been changed. Without --dry-run:\n{told}");
    Ok(report::finish(Exit::Done, io::stdout().write_all(told.as_bytes())))
}

/// What an export does to it.
const EXPORTED_BY_HAND: &str = "do it by hand where the fstab is kept: take `#nasmount: ` off each line, write its password from \
                                imported/*.json for `***nasmount-...`, and take the shares out of conf.d";

/// What to do without the lines of fstab, or with them again.
struct Export {
    fstab: String,
    lines: Vec<usize>,
    /// Units that are started at boot again.
    units: BTreeSet<String>,
    changes: Vec<Change>,
    /// Shares that are no longer nasmount's.
    shares: Vec<Share>,
    /// Is nothing left?
    empty: bool,
    /// Has it to do with mounts, or only with what an import has left that had not begun with them?
    mounts: bool,
}

/// What comes of looking at the files.
enum Planned {
    Export(Export),
    Unreadable(ReadError),
    /// The configuration, or what would be left of it, is not valid.
    Invalid(&'static str, Vec<Invalid>),
}

/// What is not valid, and why.
type NotValid = (&'static str, Vec<Invalid>);

/// Gives the lines back.
fn export(places: &Places, colour: Colour, talk: Talk) -> anyhow::Result<Exit> {
    places.may_be_changed()?;
    let _alone = alone(places)?;
    let Some(export) = planned(places, Told::Exported, colour, talk)? else { return Ok(Exit::Usage) };
    if export.changes.is_empty() {
        return Ok(Exit::Done);
    }
    let told = told(&export.changes, &export.lines, Told::Exported);
    if !export.mounts {
        let _ = made(&export.changes, EXPORTED_BY_HAND)?;
        let told = if talk == Talk::Usual { told } else { String::new() };
        return Ok(report::finish(Exit::Done, io::stderr().write_all(told.as_bytes())));
    }
    let way = succession::may_be_exported(&export.shares)?;
    let done = made(&export.changes, EXPORTED_BY_HAND)?;
    let told = if talk == Talk::Usual { told } else { String::new() };
    if let Way::AtBoot(why) = way {
        let told = told + &succession::at_boot(&why, export.empty);
        return Ok(report::finish(Exit::Done, io::stderr().write_all(told.as_bytes())));
    }
    let lines = export.fstab.lines().enumerate().filter(|(index, _)| export.lines.contains(&(index + 1)));
    let entries: Vec<_> = lines.filter_map(|(_, line)| fstab::entry(line)).collect();
    succession::export(&entries, &export.units, export.empty, done, &told)
}

/// The part of it that concerns files, for tests.
pub fn export_files(places: &Places, err: &mut impl io::Write) -> anyhow::Result<bool> {
    let planned = plan_export(places, Told::Exported, err)?;
    let Some(export) = said(planned, Colour::Never, err)? else { return Ok(false) };
    let _ = made(&export.changes, EXPORTED_BY_HAND)?;
    Ok(true)
}

/// With what there is to say; `None` if something is wrong.
fn planned(places: &Places, kind: Told, colour: Colour, talk: Talk) -> anyhow::Result<Option<Export>> {
    let mut err = io::stderr().lock();
    let planned = plan_export(places, kind, &mut err)?;
    let export = said(planned, colour, &mut err)?;
    if export.as_ref().is_some_and(|export| export.changes.is_empty()) && talk == Talk::Usual {
        writeln!(err, "nasmount has taken over no line of {}, and no unit", places.fstab_shown())?;
    }
    Ok(export)
}

fn said(planned: Planned, colour: Colour, err: &mut impl io::Write) -> anyhow::Result<Option<Export>> {
    match planned {
        Planned::Export(export) => Ok(Some(export)),
        Planned::Unreadable(error) => refused(err, &error),
        Planned::Invalid(what, problems) => {
            writeln!(err, "nothing was changed: {what}\n")?;
            say_notices(err, &problems, &[], colour)?;
            Ok(None)
        }
    }
}

/// The same for programs.
fn as_json(places: &Places, is_of_host: bool) -> (Exit, serde_json::Value) {
    let mut notes = Vec::new();
    let (exit, export, problems) = match plan_export(places, Told::WouldBeExported, &mut notes) {
        Ok(Planned::Export(export)) => {
            let possible = if is_of_host { changes::are_possible(&export.changes) } else { Ok(()) };
            match possible.map_err(|error| nothing_changed(error, EXPORTED_BY_HAND)) {
                Ok(()) => (Exit::Done, Some(export), Vec::new()),
                Err(error) => (Exit::Failed, Some(export), vec![problem(&error)]),
            }
        }
        Ok(Planned::Unreadable(error)) => (Exit::Usage, None, vec![(in_one_line(&error), error.hint())]),
        Ok(Planned::Invalid(what, problems)) => {
            let of = |Invalid(notice): &Invalid| (format!("{what}: {notice}"), notice.help.clone());
            (Exit::Usage, None, problems.iter().map(of).collect())
        }
        Err(error) => (Exit::Failed, None, vec![problem(&error)]),
    };
    let export = export.as_ref();
    let changes: Vec<_> = export.iter().flat_map(|export| &export.changes).map(change_as_json).collect();
    let shares = export.iter().flat_map(|export| &export.shares);
    let shares: Vec<_> =
        shares.map(|share| serde_json::json!({ "name": share.name, "mount_point": share.mount_point })).collect();
    let problems: Vec<_> =
        problems.iter().map(|(what, hint)| serde_json::json!({ "what": what, "hint": hint })).collect();
    let document = serde_json::json!({
        "schema": SCHEMA,
        "lines": export.map(|export| export.lines.as_slice()).unwrap_or_default(),
        "units": export.iter().flat_map(|export| &export.units).collect::<Vec<_>>(),
        "shares": shares,
        "changes": changes,
        "notes": String::from_utf8_lossy(&notes).lines().collect::<Vec<_>>(),
        "problems": problems,
    });
    (exit, document)
}

fn problem(error: &anyhow::Error) -> (String, String) {
    (format!("{error:#}"), error.downcast_ref::<Hinted>().map(|error| error.hint().to_owned()).unwrap_or_default())
}

fn change_as_json(change: &Change) -> serde_json::Value {
    let (becomes, to) = match change {
        Change::Create { .. } => ("created", None),
        Change::Replace { .. } => ("replaced", None),
        Change::Remove { .. } | Change::Unlink { .. } => ("removed", None),
        Change::Link { target, .. } => ("linked", Some(target)),
        Change::Rename { to, .. } => ("renamed", Some(to)),
    };
    serde_json::json!({ "path": change.path(), "becomes": becomes, "to": to })
}

fn plan_export(places: &Places, kind: Told, err: &mut impl io::Write) -> anyhow::Result<Planned> {
    let read = places.fstab_text().and_then(|text| Ok((text, read_config_or_none(&places.roots)?)));
    let (before, texts) = match read {
        Ok(read) => read,
        Err(error) => return Ok(Planned::Unreadable(error)),
    };
    let (unbegun, records) = records_of(places, &before)?;
    let Given { text, lines, whole, strangers, lost, doubled } = given_back(places, &before, &records)?;
    let fstab = places.fstab_shown();
    for (line, other) in doubled {
        writeln!(err, "{fstab}:{line}: not given back, but taken out: line {other} mounts the same there")?;
    }
    for line in strangers {
        writeln!(
            err,
            "{fstab}:{line}: stays a comment: it is none of the lines that `nasmount import-fstab` took over"
        )?;
    }
    let (shares, empty) = match without(&texts, &records) {
        Ok(gone) => gone,
        Err((what, problems)) => return Ok(Planned::Invalid(what, problems)),
    };
    nowhere(places, &shares, &lost)?;
    for login in records.iter().flat_map(|(_, _, record)| &record.logins).filter(|login| is_another_now(login)) {
        let path = login.path.display();
        writeln!(
            err,
            "{path} has another login now than at the import: what comes back has the old one, and may have to be corrected"
        )?;
    }
    let mounts = text != before || !records.is_empty();
    let mut changes = take_back(unbegun, &before, &texts, &fstab, err)?;
    if text != before {
        // the first of all: until then the records alone have the passwords
        changes.push(replaced(places, &before, &text));
    }
    let units = records.iter().flat_map(|(_, _, record)| record.units.started()).collect();
    changes.extend(records.iter().flat_map(|(_, _, record)| record.units.given_back()));
    for (path, text, record) in records {
        if texts.fragments.iter().any(|fragment| fragment.path == record.configuration) {
            let to = free_name(&record.configuration, &files_of(&places.roots.drop_ins)?);
            changes.push(Change::Rename { path: record.configuration, to });
        } else {
            writeln!(
                err,
                "{} is gone: if its shares are in another file, take them out there",
                record.configuration.display()
            )?;
        }
        let change = if whole {
            Change::Remove { path: path.clone(), before: text }
        } else {
            let to = free_name(&path, &files_of(&places.records())?);
            Change::Rename { path: path.clone(), to } // of a line that is gone: the password may be nowhere else
        };
        if let Some(mode) = mode_for_others(&path) {
            err.write_all(seen_by_others(&change, mode, kind).as_bytes())?;
        }
        changes.push(change);
    }
    Ok(Planned::Export(Export { fstab: text, lines, units, changes, shares, empty, mounts }))
}

/// Those of imports that were ended before they had taken anything over, and the others.
fn records_of(places: &Places, fstab: &str) -> anyhow::Result<(Vec<RecordFile>, Vec<RecordFile>)> {
    let files = files_of(&places.roots.drop_ins)?;
    Ok(records(places)?.into_iter().partition(|(_, _, record)| record.is_not_begun(fstab, &files)))
}

fn take_back(
    unbegun: Vec<RecordFile>,
    fstab: &str,
    texts: &ConfigTexts,
    shown: &str,
    err: &mut impl io::Write,
) -> anyhow::Result<Vec<Change>> {
    let loaded = config::load(&texts.fragments, &texts.profiles).ok();
    let is_named = |path: &Path| {
        let mut servers = loaded.iter().flat_map(|loaded| loaded.settings.servers.values());
        servers.any(|server| server.credentials == CredentialSource::File(path.to_owned()))
            || loaded.is_none() && !texts.fragments.is_empty()
            || fstab.contains(&*path.to_string_lossy())
    };
    let mut changes = Vec::new();
    for (path, text, record) in unbegun {
        let record_is = path.display();
        writeln!(
            err,
            "{record_is}: its import was ended before it wrote a configuration: nothing of {shown} was taken over, and there is nothing to \
             give back"
        )?;
        changes.extend(record.taken_back((path, text), is_named));
    }
    Ok(changes)
}

/// A record that others can read, which may have passwords.
fn seen_by_others(change: &Change, mode: u32, kind: Told) -> String {
    let path = change.path().display();
    let close = |path: &Path| format!("`chmod 600 {}` closes it", path.display());
    let now = match (kind, change) {
        (Told::Exported, Change::Rename { to, .. }) => format!("this export makes it {}: {}", to.display(), close(to)),
        (Told::Exported, _) => "this export removes it".to_owned(),
        (Told::Imported | Told::WouldBeExported, _) => close(change.path()),
    };
    format!(
        "{path} has mode {mode:04o}: others can read it, and the passwords that may be in it; {now}; who has read them knows them\n"
    )
}

fn given_back(places: &Places, fstab: &str, records: &[RecordFile]) -> anyhow::Result<Given> {
    let remembered: Vec<_> = records.iter().map(|(_, _, record)| record.remembered()).collect();
    let shown = places.fstab_shown();
    fstab::give_back(fstab, &remembered).map_err(|stuck| {
        match stuck {
            Stuck::Password(line) => Hinted::new(
                format!("line {line} of {shown} was taken over, and its password is not known"),
                "write the password in instead of what stands there between asterisks, and try again",
            ),
            Stuck::Mark(line) => Hinted::new(
                format!("line {line} of {shown} was taken over, and does not begin with `{}` any more", fstab::TAKEN),
                "let it begin with that again, exactly, and it becomes a line; or take it out; then try again",
            ),
        }
        .into()
    })
}

/// A share whose line is gone would be mounted by nobody.
fn nowhere(places: &Places, shares: &[Share], lost: &[String]) -> anyhow::Result<()> {
    for line in lost {
        let Some(entry) = fstab::entry(line) else { continue };
        let at =
            |share: &&Share| Path::new(&share.mount_point).components().eq(Path::new(&entry.mount_point).components());
        if let Some(Share { name, .. }) = shares.iter().find(at) {
            let message =
                format!("nobody would mount share {name}: its line is not in {} any more", places.fstab_shown());
            let hint = format!(
                "write it in again, `{}{}`; or take share {name} out of the configuration; then try again",
                fstab::TAKEN,
                fstab::shown(line, 4).trim_end_matches(fstab::HIDDEN).trim_end()
            );
            return Err(Hinted::new(message, hint).into());
        }
    }
    Ok(())
}

/// The shares that go with these imports, and whether none is left; or why the rest is no valid configuration.
fn without(texts: &ConfigTexts, records: &[RecordFile]) -> Result<(Vec<Share>, bool), NotValid> {
    if records.is_empty() {
        return Ok((Vec::new(), false)); // lines without an import: somebody else's, or a copied fstab
    }
    if texts.fragments.is_empty() {
        return Ok((Vec::new(), true)); // somebody took the configuration away
    }
    let imported: BTreeSet<&Path> = records.iter().map(|(_, _, record)| record.configuration.as_path()).collect();
    let mut left = texts.clone();
    left.fragments.retain(|fragment| !imported.contains(fragment.path.as_path()));
    let load = |texts: &ConfigTexts| config::load(&texts.fragments, &texts.profiles).map(|loaded| loaded.settings);
    let now = load(texts).map_err(|invalid| ("the configuration is not valid as it is", invalid))?;
    let later =
        load(&left).map_err(|invalid| ("without what came from fstab the configuration is not valid", invalid))?;
    let gone = now.shares.iter().filter(|(id, _)| !later.shares.contains_key(*id));
    let shares = gone.map(|(id, share)| Share {
        name: id.to_string(),
        mount_point: share.mount_point.to_string_lossy().into_owned(),
    });
    Ok((shares.collect(), later.shares.is_empty()))
}

/// A name under which it is kept, and not read as configuration.
fn free_name(path: &Path, taken: &BTreeSet<PathBuf>) -> PathBuf {
    let plain = PathBuf::from(format!("{}.exported", path.display()));
    let numbered = (2..).map(|number: u32| PathBuf::from(format!("{}.exported-{number}", path.display())));
    std::iter::once(plain.clone()).chain(numbered).find(|name| !taken.contains(name)).unwrap_or(plain)
}
