//! `nasmount import-fstab`: what the CIFS lines of fstab are in nasmount's configuration, and, with `--apply`, their move there.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::check::{Output, say_notices};
use super::report::{Exit, finish, write_error};
use super::takeover::{self, Places};
use crate::config::{self, Colour, Settings};
use crate::plan::fstab::TAKEN;
use crate::plan::import::{Import, Remark, import};
use crate::sys::config_dir::{ConfigTexts, read_config_or_none, read_fstab};

/// Version of the form of `--json`.
const SCHEMA: u32 = 1;

/// `import-fstab`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Without --apply nothing is changed. With it, the configuration goes into a file of its own in conf.d, passwords \
                        into credentials files that only root can read, and each line of fstab behind `#nasmount: `; mounts that \
                        nobody uses are taken over, and nasmount is enabled and started. `nasmount export-fstab` is the way back."
)]
pub struct Arguments {
    /// Another fstab
    #[arg(long, value_name = "FILE", default_value = takeover::FSTAB)]
    fstab: PathBuf,
    /// Print configuration, remarks and problems as JSON
    #[arg(long)]
    json: bool,
    /// Do it
    #[arg(long, conflicts_with_all = ["json", "fstab"])]
    apply: bool,
}

/// Prints the configuration on stdout, and what there is to know about it on stderr; or has it done.
pub fn run(config: Option<&Path>, arguments: &Arguments, colour: Colour) -> anyhow::Result<Exit> {
    let places = Places::of_host(config, &arguments.fstab);
    if arguments.apply {
        return takeover::import(&places, colour);
    }
    let read = read_fstab(&arguments.fstab).and_then(|text| Ok((text, read_config_or_none(&places.roots)?)));
    let (text, texts) = match read {
        Ok(read) => read,
        Err(error) => {
            let _ = write_error(&mut io::stderr().lock(), &error, Some(&error.hint()));
            return Ok(Exit::Usage);
        }
    };
    let shown = arguments.fstab.to_string_lossy();
    let fstab = Fstab { text: &text, shown: &shown, directory: places.directory() };
    let output = if arguments.json { Output::Json } else { Output::Text };
    let mut stdout = io::BufWriter::new(io::stdout().lock());
    let (exit, written) = translate(&fstab, &texts, output, colour, &mut stdout, &mut io::stderr().lock());
    Ok(finish(exit, written.and_then(|()| stdout.flush())))
}

/// What an fstab is, besides the configuration that there is already.
pub(super) fn imported(fstab: &str, texts: &ConfigTexts, directory: &Path) -> Import {
    let existing: Option<Settings> = config::load(&texts.fragments, &texts.profiles).ok().map(|loaded| loaded.settings);
    import(fstab, existing.as_ref(), directory)
}

/// An fstab.
#[derive(Clone, Copy)]
pub struct Fstab<'text> {
    /// Its text.
    pub text: &'text str,
    /// What it is called.
    pub shown: &'text str,
    /// Where the configuration is, and credentials files are to be.
    pub directory: &'text Path,
}

/// The same with its surroundings as arguments.
pub fn translate(
    fstab: &Fstab<'_>,
    texts: &ConfigTexts,
    output: Output,
    colour: Colour,
    stdout: &mut impl Write,
    stderr: &mut impl Write,
) -> (Exit, io::Result<()>) {
    let Fstab { text, shown, directory } = *fstab;
    let imported = imported(text, texts, directory);
    let loaded = takeover::with(texts, &imported.toml);
    let (invalid, warnings) = match config::load(&loaded.fragments, &loaded.profiles) {
        _ if imported.lines.is_empty() => (Vec::new(), Vec::new()),
        Ok(loaded) => (Vec::new(), loaded.warnings),
        Err(invalid) => (invalid, Vec::new()),
    };
    let exit = if invalid.is_empty() { Exit::Done } else { Exit::Usage };
    let written = match output {
        Output::Json => {
            let problems: Vec<String> = invalid.iter().map(|problem| problem.render(Colour::Never)).collect();
            let all = serde_json::json!({ "schema": SCHEMA, "import": imported, "problems": problems });
            writeln!(stdout, "{all:#}")
        }
        Output::Text => stdout
            .write_all(imported.toml.as_bytes())
            .and_then(|()| say_remarks(&imported, shown, stderr))
            .and_then(|()| say_notices(stderr, &invalid, &warnings, colour))
            .and_then(|()| say_what_next(&imported, fstab, exit, stderr)),
    };
    (exit, written)
}

/// What becomes of each option that is not simply kept.
pub(super) fn say_remarks(imported: &Import, shown: &str, stderr: &mut impl Write) -> io::Result<()> {
    for Remark { line, option, message } in &imported.remarks {
        match option.as_str() {
            "" => writeln!(stderr, "{shown}:{line}: {message}")?,
            option => writeln!(stderr, "{shown}:{line}: {option}: {message}")?,
        }
    }
    match imported.lines.as_slice() {
        [] => writeln!(stderr, "{shown} has no line of type cifs that can be taken over"),
        _ => Ok(()),
    }
}

fn say_what_next(imported: &Import, fstab: &Fstab<'_>, exit: Exit, stderr: &mut impl Write) -> io::Result<()> {
    let Fstab { shown, directory, .. } = fstab;
    let lines: Vec<String> = imported.lines.iter().map(ToString::to_string).collect();
    if exit != Exit::Done || lines.is_empty() {
        return Ok(());
    }
    writeln!(
        stderr,
        "\nNothing has been changed. With --apply the above goes into {}/conf.d, {} {} of {shown} {} (`{TAKEN}...`), \
         and nasmount is enabled and started.",
        directory.display(),
        if lines.len() == 1 { "line" } else { "lines" },
        lines.join(", "),
        if lines.len() == 1 { "becomes a comment" } else { "become comments" },
    )
}
