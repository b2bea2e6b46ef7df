//! `nasmount export-fstab`: the lines that `import-fstab --apply` took over are fstab's again, and the units systemd's.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::Hinted;
use super::check::say_notices;
use super::records::{Record, is_another_now, records};
use super::report::{self, Exit, Talk};
use super::succession::{self, Way};
use super::takeover::{FSTAB, Places, Told, made, nothing_changed, refused, replaced, told};
use crate::config::{self, Colour};
use crate::plan::fstab::{self, Given, Stuck};
use crate::plan::import::Share;
use crate::sys::changes::{self, Change};
use crate::sys::config_dir::{ConfigTexts, files_of, mode_for_others, read_config_or_none};
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
    export(&places, arguments.dry_run, colour, talk)
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
}

/// Gives the lines back.
pub fn export(places: &Places, dry_run: bool, colour: Colour, talk: Talk) -> anyhow::Result<Exit> {
    places.may_be_changed()?;
    let kind = if dry_run { Told::WouldBeExported } else { Told::Exported };
    let Some(export) = plan_export(places, kind, colour, &mut io::stderr().lock())? else { return Ok(Exit::Usage) };
    if export.changes.is_empty() {
        if talk == Talk::Usual {
            writeln!(io::stderr(), "nasmount has taken over no line of {}, and no unit", places.fstab_shown())?;
        }
        return Ok(Exit::Done);
    }
    let told = told(&export.changes, &export.lines, kind);
    if dry_run {
        // what the real run would be refused for
        changes::are_possible(&export.changes).map_err(|error| nothing_changed(error, EXPORTED_BY_HAND))?;
        let told = format!("Nothing has been changed. Without --dry-run:\n{told}");
        return Ok(report::finish(Exit::Done, io::stdout().write_all(told.as_bytes())));
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
    let Some(export) = plan_export(places, Told::Exported, Colour::Never, err)? else { return Ok(false) };
    let _ = made(&export.changes, EXPORTED_BY_HAND)?;
    Ok(true)
}

/// `None` if something is wrong.
fn plan_export(
    places: &Places,
    kind: Told,
    colour: Colour,
    err: &mut impl io::Write,
) -> anyhow::Result<Option<Export>> {
    let read = places.fstab_text().and_then(|text| Ok((text, read_config_or_none(&places.roots)?)));
    let (before, texts) = match read {
        Ok(read) => read,
        Err(error) => return refused(err, &error),
    };
    let records = records(places)?;
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
    let Some((shares, empty)) = without(&texts, &records, colour, err)? else { return Ok(None) };
    nowhere(places, &shares, &lost)?;
    for login in records.iter().flat_map(|(_, _, record)| &record.logins).filter(|login| is_another_now(login)) {
        let path = login.path.display();
        writeln!(
            err,
            "{path} has another login now than at the import: what comes back has the old one, and may have to be corrected"
        )?;
    }
    let mut changes = Vec::new();
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
    Ok(Some(Export { fstab: text, lines, units, changes, shares, empty }))
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

fn given_back(places: &Places, fstab: &str, records: &[(PathBuf, SecretString, Record)]) -> anyhow::Result<Given> {
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
                "write it in again, `{}{line}`; or take share {name} out of the configuration; then try again",
                fstab::TAKEN
            );
            return Err(Hinted::new(message, hint).into());
        }
    }
    Ok(())
}

/// The shares that go with these imports, and whether none is left; `None` if the rest is no valid configuration.
fn without(
    texts: &ConfigTexts,
    records: &[(PathBuf, SecretString, Record)],
    colour: Colour,
    err: &mut impl io::Write,
) -> anyhow::Result<Option<(Vec<Share>, bool)>> {
    if records.is_empty() {
        return Ok(Some((Vec::new(), false))); // lines without an import: somebody else's, or a copied fstab
    }
    let imported: BTreeSet<&Path> = records.iter().map(|(_, _, record)| record.configuration.as_path()).collect();
    let mut left = texts.clone();
    left.fragments.retain(|fragment| !imported.contains(fragment.path.as_path()));
    let load = |texts: &ConfigTexts| config::load(&texts.fragments, &texts.profiles);
    let (now, later) = match load(texts).and_then(|now| Ok((now.settings, load(&left)?.settings))) {
        Ok(both) => both,
        Err(invalid) => {
            writeln!(err, "nothing was changed: without what came from fstab the configuration is not valid\n")?;
            say_notices(err, &invalid, &[], colour)?;
            return Ok(None);
        }
    };
    let gone = now.shares.iter().filter(|(id, _)| !later.shares.contains_key(*id));
    let shares = gone.map(|(id, share)| Share {
        name: id.to_string(),
        mount_point: share.mount_point.to_string_lossy().into_owned(),
    });
    Ok(Some((shares.collect(), later.shares.is_empty())))
}

/// A name under which it is kept, and not read as configuration.
fn free_name(path: &Path, taken: &BTreeSet<PathBuf>) -> PathBuf {
    let plain = PathBuf::from(format!("{}.exported", path.display()));
    let numbered = (2..).map(|number: u32| PathBuf::from(format!("{}.exported-{number}", path.display())));
    std::iter::once(plain.clone()).chain(numbered).find(|name| !taken.contains(name)).unwrap_or(plain)
}
