//! `nasmount import-fstab`: what the CIFS lines of fstab and mount units are in nasmount's configuration, and, with `--apply`, their
//! move there.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::check::{Output, check_texts, look_if_in_sight, parsed, say_notices};
use super::report::{Exit, Talk, finish, write_error};
use super::takeover::{self, Places};
use crate::config::credentials::Credentials;
use crate::config::{self, Colour, Invalid, InvalidKind, Notice, Place, Settings, Warning};
use crate::plan::fstab::{TAKEN, difference};
use crate::plan::import::{Import, Remark, Sources, import};
use crate::sys::config_dir::{ConfigTexts, MountPoint, mount_point_on_host};
use crate::sys::unit_files;

/// Version of the form of `--json`; since 2 a problem is an object.
const SCHEMA: u32 = 2;

/// `import-fstab`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Without --apply nothing is changed. With it, the configuration goes into a file of its own in conf.d, passwords \
                        into credentials files that only root can read, each line of fstab behind `#nasmount: `, and mount units \
                        into a record of it; mounts that nobody uses are taken over, and nasmount is enabled and started. \
                        `nasmount export-fstab` is the way back."
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
            let _ = write_error(&mut io::stderr().lock(), &error, Some(&error.hint()));
            return Ok(Exit::Usage);
        }
    };
    let shown = arguments.fstab.to_string_lossy();
    let sources = Sources { fstab: &text, units: &units };
    let is_of_host = usual && config.is_none();
    let refusal = |found: &Import| if is_of_host { takeover::refusal(&places, sources, &texts, found) } else { None };
    let host = Host {
        sources,
        fstab: &shown,
        directory: places.directory(),
        look_at_credentials: look_if_in_sight,
        mount_point: mount_point_on_host,
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
pub(super) fn imported(sources: Sources<'_>, texts: &ConfigTexts, directory: &Path) -> Import {
    let existing: Option<Settings> = config::load(&texts.fragments, &texts.profiles).ok().map(|loaded| loaded.settings);
    import(sources, existing.as_ref(), directory)
}

/// What mounts shares on a host, and where it is.
#[derive(Clone, Copy)]
pub struct Host<'a> {
    /// The texts.
    pub sources: Sources<'a>,
    /// What the fstab is called.
    pub fstab: &'a str,
    /// Where the configuration is, and credentials files are to be.
    pub directory: &'a Path,
    /// What a credentials file says, or what is wrong with it, and what to do.
    pub look_at_credentials: LookAtCredentials,
    /// What is where a share is to be mounted.
    pub mount_point: fn(&Path) -> MountPoint,
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
) -> (Vec<Invalid>, Vec<Warning>) {
    let look = |path: &Path| match imported.logins.iter().find(|login| login.path == path) {
        Some(login) => parsed(path, &login.text).map(Some),
        None => look(path),
    };
    check_texts(&takeover::with(texts, &imported.toml), look, mount_point)
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

/// The same with its surroundings as arguments.
pub fn translate(
    host: &Host<'_>,
    texts: &ConfigTexts,
    output: Output,
    colour: Colour,
    stdout: &mut impl Write,
    stderr: &mut impl Write,
) -> (Exit, io::Result<()>) {
    let imported = imported(host.sources, texts, host.directory);
    let (invalid, warnings) = match imported.shares.as_slice() {
        [] => (Vec::new(), Vec::new()),
        _ => examined(&imported, texts, host.look_at_credentials, host.mount_point),
    };
    let refusal = if invalid.is_empty() && !imported.shares.is_empty() { (host.refusal)(&imported) } else { None };
    let exit = if invalid.is_empty() && refusal.is_none() { Exit::Done } else { Exit::Usage };
    let written = match output {
        Output::Json => {
            let refusal = refusal.map(|(what, hint)| Problem { line: 0, column: 0, key: String::new(), what, hint });
            let problems: Vec<Problem> = invalid.iter().map(Problem::new).chain(refusal).collect();
            let all = serde_json::json!({ "schema": SCHEMA, "import": imported, "problems": problems });
            writeln!(stdout, "{all:#}")
        }
        Output::Text => stdout
            .write_all(imported.toml.as_bytes())
            .and_then(|()| say_remarks(&imported, host.fstab, stderr))
            .and_then(|()| say_examined((&invalid, &warnings), &imported, host.fstab, colour, stderr))
            .and_then(|()| refusal.map_or(Ok(()), |(what, hint)| writeln!(stderr, "error: {what}\n  help: {hint}")))
            .and_then(|()| say_what_next(&imported, host, exit, stderr)),
    };
    (exit, written)
}

/// What becomes of each option that is not simply kept.
pub(super) fn say_remarks(imported: &Import, fstab: &str, stderr: &mut impl Write) -> io::Result<()> {
    for Remark { file, line, option, message } in &imported.remarks {
        let file = file.as_deref().unwrap_or(fstab);
        match option.as_str() {
            "" => writeln!(stderr, "{file}:{line}: {message}")?,
            option => writeln!(stderr, "{file}:{line}: {option}: {message}")?,
        }
    }
    match imported.shares.as_slice() {
        [] => {
            writeln!(stderr, "{fstab} has no line of type cifs that can be taken over, and there is no such mount unit")
        }
        _ => Ok(()),
    }
}

fn say_what_next(imported: &Import, host: &Host<'_>, exit: Exit, stderr: &mut impl Write) -> io::Result<()> {
    let Host { fstab, directory, .. } = host;
    if exit != Exit::Done || imported.shares.is_empty() {
        return Ok(());
    }
    let difference = difference(fstab, host.sources.fstab, &imported.lines);
    if !difference.is_empty() {
        write!(stderr, "\n{difference}")?;
    }
    let lines: Vec<String> = imported.lines.iter().map(ToString::to_string).collect();
    let lines = match lines.as_slice() {
        [] => String::new(),
        [line] => format!(" line {line} of {fstab} becomes a comment (`{TAKEN}...`),"),
        lines => format!(" lines {} of {fstab} become comments (`{TAKEN}...`),", lines.join(", ")),
    };
    let units = match imported.units.as_slice() {
        [] => String::new(),
        units => format!(
            " {} {} into {}/imported,",
            units.join(", "),
            if units.len() == 1 { "goes" } else { "go" },
            directory.display()
        ),
    };
    let directory = directory.display();
    writeln!(
        stderr,
        "\nNothing has been changed. With --apply the above goes into {directory}/conf.d,{lines}{units} and nasmount is enabled and started."
    )
}
