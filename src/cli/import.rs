//! `nasmount import-fstab`: what the CIFS lines of fstab would be in nasmount's configuration. Changes nothing.

use std::io::{self, Write};
use std::path::PathBuf;

use super::check::{Output, say_notices};
use super::report::{Exit, finish, write_error};
use crate::config::{self, Colour, SourceText, shipped_profiles};
use crate::plan::import::{Import, Remark, import};
use crate::sys::config_dir::read_fstab;

/// Version of the form of `--json`.
const SCHEMA: u32 = 1;

/// `import-fstab`
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Another fstab
    #[arg(long, value_name = "FILE", default_value = "/etc/fstab")]
    fstab: PathBuf,
    /// Print configuration, remarks and problems as JSON
    #[arg(long)]
    json: bool,
}

/// Prints the configuration on stdout, and what there is to know about it on stderr.
pub fn run(arguments: &Arguments, colour: Colour) -> Exit {
    let text = match read_fstab(&arguments.fstab) {
        Ok(text) => text,
        Err(error) => {
            let _ = write_error(&mut io::stderr().lock(), &error, Some(&error.hint()));
            return Exit::Usage;
        }
    };
    let shown = arguments.fstab.to_string_lossy();
    let output = if arguments.json { Output::Json } else { Output::Text };
    let mut stdout = io::BufWriter::new(io::stdout().lock());
    let (exit, written) = translate(&text, &shown, output, colour, &mut stdout, &mut io::stderr().lock());
    finish(exit, written.and_then(|()| stdout.flush()))
}

/// The same with its surroundings as arguments.
pub fn translate(
    fstab: &str,
    shown: &str,
    output: Output,
    colour: Colour,
    stdout: &mut impl Write,
    stderr: &mut impl Write,
) -> (Exit, io::Result<()>) {
    let imported = import(fstab);
    let loaded = config::load(&[SourceText::new("nasmount.toml", imported.toml.as_str())], &shipped_profiles());
    let (invalid, warnings) = match loaded {
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
            .and_then(|()| say(&imported, shown, stderr))
            .and_then(|()| say_notices(stderr, &invalid, &warnings, colour)),
    };
    (exit, written)
}

fn say(imported: &Import, shown: &str, stderr: &mut impl Write) -> io::Result<()> {
    for Remark { line, option, message } in &imported.remarks {
        match option.as_str() {
            "" => writeln!(stderr, "{shown}:{line}: {message}")?,
            option => writeln!(stderr, "{shown}:{line}: {option}: {message}")?,
        }
    }
    let lines: Vec<String> = imported.lines.iter().map(ToString::to_string).collect();
    match lines.as_slice() {
        [] => writeln!(stderr, "{shown} has no line of type cifs"),
        lines => writeln!(
            stderr,
            "\nNothing has been changed. Write the above into /etc/nasmount/nasmount.toml and run `nasmount check`; then unmount these \
             shares, put a # before {} {} of {shown}, and `systemctl enable --now nasmount`.",
            if lines.len() == 1 { "line" } else { "lines" },
            lines.join(", ")
        ),
    }
}
