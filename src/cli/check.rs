//! `nasmount check`: is the configuration right? Silent when it is.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::report::{Exit, finish, write_error};
use crate::config::credentials::parse_credentials;
use crate::config::settings::CredentialSource;
use crate::config::{self, Colour, Invalid, InvalidKind, Loaded, Notice, Warning};
use crate::sys::config_dir::{ConfigRoots, ConfigTexts, check_credentials_file, read_config, read_credentials};

/// Version of what `--json` prints. Additions do not change it.
pub const JSON_SCHEMA: u32 = 1;

/// What was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckArgs {
    /// `--config`: instead of `/etc/nasmount/nasmount.toml`.
    pub config: Option<PathBuf>,
    /// `--json`.
    pub output: Output,
    /// Whether stderr takes colours.
    pub colour: Colour,
}

/// How the result is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// For people, on stderr.
    Text,
    /// For programs, on stdout.
    Json,
}

/// Runs the command against the files of this host.
pub fn run(args: &CheckArgs) -> Exit {
    let roots = ConfigRoots::system(args.config.as_deref());
    // Buffered: a reader of JSON gets all of it or nothing.
    let mut stdout = io::BufWriter::new(io::stdout().lock());
    let exit = check(&roots, args, &mut stdout, &mut io::stderr().lock());
    finish(exit.and_then(|exit| stdout.flush().map(|()| exit)))
}

/// The same with its surroundings as arguments.
pub fn check(
    roots: &ConfigRoots,
    args: &CheckArgs,
    stdout: &mut impl Write,
    stderr: &mut impl Write,
) -> io::Result<Exit> {
    let texts = match read_config(roots) {
        Ok(texts) => texts,
        Err(error) => {
            let hint = error.hint();
            if args.output == Output::Json {
                let file = roots.main.to_string_lossy().into_owned();
                let message = chain(&error);
                let help = hint.clone().unwrap_or_default();
                let finding = Finding { severity: Severity::Error, file, message, help, ..Finding::default() };
                write_json(stdout, vec![finding])?;
            } else {
                write_error(stderr, &error, hint.as_deref())?;
            }
            return Ok(Exit::Usage);
        }
    };
    let (invalid, warnings) = load_and_check(&texts);
    match args.output {
        Output::Json => {
            let errors = invalid.iter().map(|Invalid(notice)| Finding::new(Severity::Error, notice));
            let warnings = warnings.iter().map(|Warning(notice)| Finding::new(Severity::Warning, notice));
            write_json(stdout, errors.chain(warnings).collect())?;
        }
        Output::Text => {
            for warning in &warnings {
                writeln!(stderr, "{}\n", warning.render(args.colour))?;
            }
            for problem in &invalid {
                writeln!(stderr, "{}\n", problem.render(args.colour))?;
            }
            if !invalid.is_empty() {
                let (count, noun) = (invalid.len(), if invalid.len() == 1 { "problem" } else { "problems" });
                writeln!(stderr, "error: {count} {noun} in the configuration; nothing of it is used")?;
            }
        }
    }
    Ok(if invalid.is_empty() { Exit::Done } else { Exit::Usage })
}

/// Everything wrong with the texts and with the credentials files that they name.
pub fn load_and_check(texts: &ConfigTexts) -> (Vec<Invalid>, Vec<Warning>) {
    match config::load(&texts.fragments, &texts.profiles) {
        Err(invalid) => (invalid, Vec::new()),
        Ok(loaded) => (check_credentials(&loaded), loaded.warnings),
    }
}

fn check_credentials(loaded: &Loaded) -> Vec<Invalid> {
    let mut invalid = Vec::new();
    for (id, server) in &loaded.settings.servers {
        let CredentialSource::File(path) = &server.credentials else { continue };
        if let Err(error) = check_credentials_file(path) {
            invalid.extend(loaded.invalid_credentials(id, chain(&error), error.help()));
        } else if let Err(error) = login_in(path) {
            let help = "it needs the lines `username=NAME` and `password=…`".to_owned();
            invalid.extend(loaded.invalid_credentials(id, format!("cannot use {}: {error}", path.display()), help));
        }
    }
    invalid
}

/// Whether the file holds a login; one that this user cannot read is for root to check.
fn login_in(path: &Path) -> Result<(), String> {
    match read_credentials(path) {
        Ok(text) => parse_credentials(&text).map(drop).map_err(|error| error.to_string()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "lowercase")]
enum Severity {
    #[default]
    Error,
    Warning,
}

/// One entry of the JSON list. `line` and `column` count from 1; 0 where a whole file is meant.
#[derive(Debug, Default, Serialize)]
struct Finding {
    severity: Severity,
    kind: Option<InvalidKind>,
    file: String,
    line: usize,
    column: usize,
    key: String,
    message: String,
    help: String,
}

impl Finding {
    fn new(severity: Severity, notice: &Notice) -> Self {
        Self {
            severity,
            kind: Some(notice.kind),
            file: notice.place.file.to_string_lossy().into_owned(),
            line: notice.place.line,
            column: notice.place.column,
            key: notice.key.clone(),
            message: notice.message.clone(),
            help: notice.help.clone(),
        }
    }
}

#[derive(Serialize)]
struct Document {
    schema: u32,
    problems: Vec<Finding>,
}

fn write_json(out: &mut impl Write, problems: Vec<Finding>) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, &Document { schema: JSON_SCHEMA, problems }).map_err(io::Error::from)?;
    writeln!(out)
}
