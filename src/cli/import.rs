//! `nasmount import-fstab`: what the CIFS lines of fstab and mount units are in nasmount's configuration, and, with `--apply`, their
//! move there.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::check::{Output, check_texts, look_if_in_sight, parsed, say_notices};
use super::records::Unfinished;
use super::report::{Exit, Talk, finish, report};
use super::takeover::{self, Places, numbered};
use crate::config::credentials::Credentials;
use crate::config::{self, Colour, Invalid, InvalidKind, Notice, Place, Settings, Warning};
use crate::plan::catalogue::Account;
use crate::plan::fstab::{TAKEN, difference};
use crate::plan::import::{Conflict, Import, Nested, Remark, Sources, import};
use crate::sys::accounts;
use crate::sys::config_dir::{ConfigTexts, MountPoint, mount_point_on_host};
use crate::sys::unit_files;

/// Version of the form of `--json`; since 2 a problem is an object.
const SCHEMA: u32 = 2;

/// Of lines and files that an import has remembered.
const UNFINISHED: &str = "would mount what is a share of the configuration already: an import (or export) was interrupted; --apply \
                          finishes the import, `nasmount export-fstab` undoes it";

/// `import-fstab`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Without --apply nothing is changed. With it, the configuration goes into a file of its own in conf.d, passwords \
                        into credentials files that only root can read, each line of fstab behind `#nasmount: `, and mount units \
                        into a record of it; mounts that nobody uses are taken over, and nasmount is enabled and started. \
                        `nasmount export-fstab` is the way back.\n\n\
                        Examples:\n  sudo nasmount import-fstab\n  sudo nasmount import-fstab --apply"
)]
pub struct Arguments {
    /// Another fstab
    #[arg(long, value_name = "FILE", default_value = takeover::FSTAB)]
    fstab: PathBuf,
    /// Another directory of mount units; /etc/systemd/system, unless there is another fstab
    #[arg(long, value_name = "DIRECTORY")]
    units: Option<PathBuf>,
    /// Print configuration, remarks and problems as JSON
    #[arg(long)]
    json: bool,
    /// Do it
    #[arg(long, conflicts_with_all = ["json", "fstab", "units"])]
    apply: bool,
}

/// Prints the configuration on stdout, and what there is to know about it on stderr; or has it done.
pub fn run(config: Option<&Path>, arguments: &Arguments, colour: Colour, talk: Talk) -> anyhow::Result<Exit> {
    let usual = arguments.fstab == Path::new(takeover::FSTAB);
    let units = arguments.units.clone().or_else(|| usual.then(|| PathBuf::from(unit_files::DIRECTORY)));
    let places = Places::of_host(config, &arguments.fstab, units.unwrap_or_default());
    if arguments.apply {
        return takeover::import(&places, colour, talk);
    }
    let (text, units, texts) = match places.read() {
        Ok(read) => read,
        Err(error) => {
            report(&error, Some(&error.hint()));
            return Ok(Exit::Usage);
        }
    };
    let shown = arguments.fstab.to_string_lossy();
    // records that only root can read are not known to others
    let unfinished = Unfinished::of(&places, &text, &texts).unwrap_or_else(|_| Unfinished::none(&text));
    let units = unfinished.others(units);
    let sources = Sources { fstab: &unfinished.fstab, name: &shown, units: &units };
    let is_of_host = usual && config.is_none();
    let refusal = |found: &Import| match is_of_host {
        true => takeover::refusal(&places, &text, sources, &texts, found, &unfinished),
        false => None,
    };
    let host = Host {
        sources,
        unfinished: &unfinished,
        fstab: &shown,
        directory: places.directory(),
        look_at_credentials: look_if_in_sight,
        mount_point: mount_point_on_host,
        is_missing: accounts::is_missing,
        refusal: &refusal,
    };
    let output = if arguments.json { Output::Json } else { Output::Text };
    let mut stdout = io::BufWriter::new(io::stdout().lock());
    let mut said = Vec::new();
    let (exit, written) = translate(&host, &texts, output, colour, &mut stdout, &mut said);
    let written = written.and_then(|()| stdout.flush());
    if talk == Talk::Usual || exit != Exit::Done {
        io::stderr().lock().write_all(&said)?;
    }
    Ok(finish(exit, written))
}

/// What they are, besides the configuration that there is already.
pub(super) fn imported(sources: Sources<'_>, texts: &ConfigTexts, directory: &Path, look: LookAtCredentials) -> Import {
    let existing: Option<Settings> = config::load(&texts.fragments, &texts.profiles).ok().map(|loaded| loaded.settings);
    import(sources, existing.as_ref(), directory, &|path| look(path).ok().flatten())
}

/// What mounts shares on a host, and where it is.
#[derive(Clone, Copy)]
pub struct Host<'a> {
    /// The texts, without what is unfinished.
    pub sources: Sources<'a>,
    /// What an import that was interrupted has left to be done.
    pub unfinished: &'a Unfinished,
    /// What the fstab is called.
    pub fstab: &'a str,
    /// Where the configuration is, and credentials files are to be.
    pub directory: &'a Path,
    /// What a credentials file says, or what is wrong with it, and what to do.
    pub look_at_credentials: LookAtCredentials,
    /// What is where a share is to be mounted.
    pub mount_point: fn(&Path) -> MountPoint,
    /// Whether it has no such user or group.
    pub is_missing: fn(Account, &str) -> bool,
    /// Why the files could not be changed, and what to do.
    pub refusal: &'a dyn Fn(&Import) -> Option<(String, String)>,
}

/// How a credentials file is looked at.
pub type LookAtCredentials = fn(&Path) -> Result<Option<Credentials>, (String, String)>;

/// What `check` would say of the result if it was written.
pub(super) fn examined(
    imported: &Import,
    texts: &ConfigTexts,
    look: LookAtCredentials,
    mount_point: fn(&Path) -> MountPoint,
    is_missing: fn(Account, &str) -> bool,
) -> (Vec<Invalid>, Vec<Warning>) {
    let look = |path: &Path| match imported.logins.iter().find(|login| login.path == path) {
        Some(login) => parsed(path, &login.text).map(Some),
        None => look(path).map_err(|(message, help)| (message, without_login(path, help))),
    };
    let checked = check_texts(&takeover::with(texts, &imported.toml), look, mount_point, is_missing);
    let (mut invalid, mut warnings) = (checked.invalid, checked.warnings);
    for notice in checked.accounts {
        match notice.place.file == Path::new(takeover::IMPORTED) {
            // the line may be mounted now, and would not be any more
            true => invalid.push(Invalid(Notice { kind: InvalidKind::UnknownReference, ..notice })),
            false => warnings.push(Warning(notice)),
        }
    }
    invalid.extend(imported.conflicts().map(|(line, Conflict { option, message, help, .. })| {
        let place = Place { file: takeover::IMPORTED.into(), line, column: 1, span: 0..0, excerpt: None };
        let (key, message, help) = (option.clone(), message.clone(), help.clone());
        Invalid(Notice { kind: InvalidKind::Conflict, place, key, message, help, related: None })
    }));
    (invalid, warnings)
}

/// `nasmount login` needs a server of the configuration, and what is imported is none yet.
fn without_login(path: &Path, help: String) -> String {
    if !help.contains("nasmount login") {
        return help;
    }
    format!(
        "create it with the lines `username=NAME` and `password=…`, then `chmod 600 {}`; or take `credentials` out of the options, if the \
         share is to be a guest's",
        path.display()
    )
}

/// What mounts of other lines have to do with its shares.
pub(super) fn nested(imported: &Import, fstab: &str) -> impl Iterator<Item = Warning> {
    imported.nested.iter().map(|Nested { line, share, message, help }| {
        let place = Place { file: fstab.into(), line: *line, column: 1, span: 0..0, excerpt: None };
        let (key, message, help) = (format!("share.{share}.mount_point"), message.clone(), help.clone());
        Warning(Notice { kind: InvalidKind::Doubtful, place, key, message, help, related: None })
    })
}

/// What is said of the result, pointing at the line of fstab, or of a unit, which is what there is to be mended.
fn at_its_origin(mut notice: Notice, imported: &Import, fstab: &str) -> Notice {
    let from = |place: &mut Place| {
        if place.file != Path::new(takeover::IMPORTED) {
            return;
        }
        if let Some((file, line)) = imported.origin(place.line) {
            *place = Place { file: file.unwrap_or(fstab).into(), line, column: 1, span: 0..0, excerpt: None };
        }
    };
    from(&mut notice.place);
    if let Some((place, _)) = &mut notice.related {
        from(place);
    }
    notice
}

/// What is wrong with it, for people.
pub(super) fn say_examined(
    (invalid, warnings): (&[Invalid], &[Warning]),
    imported: &Import,
    fstab: &str,
    colour: Colour,
    stderr: &mut impl Write,
) -> io::Result<()> {
    let at = |notice: &Notice| at_its_origin(notice.clone(), imported, fstab);
    let invalid: Vec<_> = invalid.iter().map(|Invalid(notice)| Invalid(at(notice))).collect();
    let warnings: Vec<_> = warnings.iter().map(|Warning(notice)| Warning(at(notice))).collect();
    say_notices(stderr, &invalid, &warnings, colour)
}

/// A reason why the result would not be used. `line` and `column` count from 1 in the configuration that is printed; 0 where it is about
/// a file that it names, or that cannot be changed.
#[derive(Debug, serde::Serialize)]
struct Problem {
    line: usize,
    column: usize,
    key: String,
    what: String,
    hint: String,
}

impl Problem {
    fn new(Invalid(notice): &Invalid) -> Self {
        let is_within = notice.kind != InvalidKind::Credentials && notice.place.file == Path::new(takeover::IMPORTED);
        let (line, column) = if is_within { (notice.place.line, notice.place.column) } else { (0, 0) };
        Self { line, column, key: notice.key.clone(), what: notice.message.clone(), hint: notice.help.clone() }
    }
}

/// Something that is probably not meant. `file` and `line` are what there is to be mended: the fstab, a unit, or a file of the
/// configuration.
#[derive(Debug, serde::Serialize)]
struct JsonWarning {
    file: String,
    line: usize,
    key: String,
    what: String,
    hint: String,
}

impl JsonWarning {
    fn new(Warning(notice): &Warning, imported: &Import, fstab: &str) -> Self {
        let Notice { place, key, message, help, .. } = at_its_origin(notice.clone(), imported, fstab);
        Self { file: place.file.to_string_lossy().into_owned(), line: place.line, key, what: message, hint: help }
    }
}

/// The same with its surroundings as arguments.
pub fn translate(
    host: &Host<'_>,
    texts: &ConfigTexts,
    output: Output,
    colour: Colour,
    stdout: &mut impl Write,
    stderr: &mut impl Write,
) -> (Exit, io::Result<()>) {
    let imported = imported(host.sources, texts, host.directory, host.look_at_credentials);
    let (invalid, warnings) = match imported.shares.as_slice() {
        [] => (Vec::new(), Vec::new()),
        _ => examined(&imported, texts, host.look_at_credentials, host.mount_point, host.is_missing),
    };
    let warnings: Vec<Warning> = warnings.into_iter().chain(nested(&imported, host.fstab)).collect();
    let wrong = wrong_lines(&invalid, &imported, host.fstab);
    let refusal = if invalid.is_empty() && !imported.shares.is_empty() { (host.refusal)(&imported) } else { None };
    let exit = if invalid.is_empty() && refusal.is_none() { Exit::Done } else { Exit::Usage };
    let written = match output {
        Output::Json => {
            let refusal = refusal.map(|(what, hint)| Problem { line: 0, column: 0, key: String::new(), what, hint });
            let problems: Vec<Problem> = invalid.iter().map(Problem::new).chain(refusal).collect();
            let warnings: Vec<JsonWarning> =
                warnings.iter().map(|it| JsonWarning::new(it, &imported, host.fstab)).collect();
            let unfinished = serde_json::json!({ "lines": host.unfinished.lines, "files": host.unfinished.files() });
            let all = serde_json::json!({
                "schema": SCHEMA, "import": imported, "unfinished": unfinished, "problems": problems, "warnings": warnings
            });
            writeln!(stdout, "{all:#}")
        }
        Output::Text => stdout
            .write_all(imported.toml.as_bytes())
            .and_then(|()| say_remarks(&imported, host.unfinished, host.fstab, stderr))
            .and_then(|()| say_examined((&invalid, &warnings), &imported, host.fstab, colour, stderr))
            .and_then(|()| refusal.map_or(Ok(()), |(what, hint)| writeln!(stderr, "error: {what}\n  help: {hint}")))
            .and_then(|()| say_what_next(&imported, host, (exit, &wrong), stderr)),
    };
    (exit, written)
}

/// What becomes of each option that is not simply kept, and of what is the configuration's already.
pub(super) fn say_remarks(
    imported: &Import,
    unfinished: &Unfinished,
    fstab: &str,
    stderr: &mut impl Write,
) -> io::Result<()> {
    if !unfinished.lines.is_empty() {
        writeln!(stderr, "{fstab}: {} {UNFINISHED}", numbered(&unfinished.lines))?;
    }
    unfinished.files().iter().try_for_each(|path| writeln!(stderr, "{path} {UNFINISHED}"))?;
    for Remark { file, line, option, message } in &imported.remarks {
        let file = file.as_deref().unwrap_or(fstab);
        match option.as_str() {
            "" => writeln!(stderr, "{file}:{line}: {message}")?,
            option => writeln!(stderr, "{file}:{line}: {option}: {message}")?,
        }
    }
    if imported.shares.is_empty() && unfinished.is_empty() {
        writeln!(
            stderr,
            "nothing to import: {fstab} has no line of type cifs that can be taken over, and there is no such mount unit"
        )?;
    }
    Ok(())
}

/// Lines of fstab at which errors point.
fn wrong_lines(invalid: &[Invalid], imported: &Import, fstab: &str) -> BTreeSet<usize> {
    let places = invalid.iter().map(|Invalid(notice)| at_its_origin(notice.clone(), imported, fstab).place);
    places.filter(|place| place.file == Path::new(fstab)).map(|place| place.line).collect()
}

fn say_what_next(
    imported: &Import,
    host: &Host<'_>,
    (exit, wrong): (Exit, &BTreeSet<usize>),
    stderr: &mut impl Write,
) -> io::Result<()> {
    let Host { fstab, directory, unfinished, .. } = host;
    if imported.shares.is_empty() && unfinished.is_empty() {
        return Ok(());
    }
    let right: Vec<usize> = imported.lines.iter().copied().filter(|line| !wrong.contains(line)).collect();
    let difference = difference(fstab, host.sources.fstab, &right);
    if !difference.is_empty() {
        let others = if wrong.is_empty() { "" } else { "Of the other lines:\n" };
        write!(stderr, "\n{others}{difference}")?;
    }
    if exit != Exit::Done {
        return writeln!(
            stderr,
            "\nNothing has been changed, and with --apply nothing will be, until the errors above are gone."
        );
    }
    let mut steps = Vec::new();
    if !imported.shares.is_empty() {
        steps.push(format!("write the above into {}/conf.d", directory.display()));
    }
    let mut lines = [unfinished.lines.as_slice(), &imported.lines].concat();
    lines.sort_unstable();
    if !lines.is_empty() {
        let becomes = if lines.len() == 1 { "a comment" } else { "comments" };
        steps.push(format!("make {} of {fstab} {becomes} (`{TAKEN}...`)", numbered(&lines)));
    }
    if !imported.units.is_empty() {
        steps.push(format!("move {} into {}/imported", imported.units.join(", "), directory.display()));
    }
    if !unfinished.files().is_empty() {
        steps.push(format!("remove {}", unfinished.files().join(", ")));
    }
    writeln!(
        stderr,
        "\nNothing has been changed. With --apply it will {}, and enable and start nasmount.",
        steps.join(", ")
    )
}
