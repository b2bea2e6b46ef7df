//! `nasmount import-fstab`: what the CIFS lines of fstab and mount units are in nasmount's configuration, and, with `--apply`, their
//! move there.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::check::{Output, look_at_credentials, say_notices};
use super::report::{Exit, Talk, finish, write_error};
use super::takeover::{self, Places};
use crate::config::settings::{CredentialSource, ServerSettings};
use crate::config::{self, Colour, Invalid, Loaded, Settings};
use crate::plan::fstab::TAKEN;
use crate::plan::import::{Import, Remark, Sources, import};
use crate::sys::config_dir::ConfigTexts;
use crate::sys::unit_files;

/// Version of the form of `--json`; since 2 a problem is an object.
const SCHEMA: u32 = 2;

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
            let _ = write_error(&mut io::stderr().lock(), &error, Some(&error.hint()));
            return Ok(Exit::Usage);
        }
    };
    let shown = arguments.fstab.to_string_lossy();
    let sources = Sources { fstab: &text, units: &units };
    let host = Host { sources, fstab: &shown, directory: places.directory(), trouble_of_credentials };
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
    /// What is wrong with a credentials file, and what to do.
    pub trouble_of_credentials: fn(&Path) -> Option<(String, String)>,
}

/// As `check` sees it.
fn trouble_of_credentials(path: &Path) -> Option<(String, String)> {
    look_at_credentials(path).err()
}

/// A reason why the result would not be used. `line` and `column` count from 1 in the configuration that is printed; 0 where it is about
/// a file that it names.
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
        let (line, column) = (notice.place.line, notice.place.column);
        Self { line, column, key: notice.key.clone(), what: notice.message.clone(), hint: notice.help.clone() }
    }
}

/// Of the credentials files that are there already, or should be.
fn unusable_credentials(loaded: &Loaded, imported: &Import, host: &Host<'_>) -> Vec<Problem> {
    let is_made = |path: &Path| imported.logins.iter().any(|login| login.path == path);
    let trouble = |server: &ServerSettings| {
        let CredentialSource::File(path) = &server.credentials else { return None };
        let (what, hint) =
            Some(path).filter(|path| !is_made(path)).and_then(|path| (host.trouble_of_credentials)(path))?;
        Some(Problem { line: 0, column: 0, key: format!("server.{}.credentials", server.id), what, hint })
    };
    loaded.settings.servers.values().filter_map(trouble).collect()
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
    let loaded = takeover::with(texts, &imported.toml);
    let (invalid, warnings, unusable) = match config::load(&loaded.fragments, &loaded.profiles) {
        _ if imported.shares.is_empty() => (Vec::new(), Vec::new(), Vec::new()),
        Ok(loaded) => {
            let unusable = unusable_credentials(&loaded, &imported, host);
            (Vec::new(), loaded.warnings, unusable)
        }
        Err(invalid) => (invalid, Vec::new(), Vec::new()),
    };
    let exit = if invalid.is_empty() && unusable.is_empty() { Exit::Done } else { Exit::Usage };
    let written = match output {
        Output::Json => {
            let problems: Vec<Problem> = invalid.iter().map(Problem::new).chain(unusable).collect();
            let all = serde_json::json!({ "schema": SCHEMA, "import": imported, "problems": problems });
            writeln!(stdout, "{all:#}")
        }
        Output::Text => stdout
            .write_all(imported.toml.as_bytes())
            .and_then(|()| say_remarks(&imported, host.fstab, stderr))
            .and_then(|()| say_notices(stderr, &invalid, &warnings, colour))
            .and_then(|()| unusable.iter().try_for_each(|problem| say_unusable(problem, stderr)))
            .and_then(|()| say_what_next(&imported, host, exit, stderr)),
    };
    (exit, written)
}

fn say_unusable(Problem { key, what, hint, .. }: &Problem, stderr: &mut impl Write) -> io::Result<()> {
    writeln!(stderr, "error: {key}: {what}\n  help: {hint}")
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
