//! `nasmount import-fstab` against lines as people write them: the configuration, and what is said about it.
//!
//! `UPDATE=1 cargo test --test import` writes the expected output anew; read the difference before committing it.

#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::disallowed_methods, reason = "tests read and write files")]

use std::fs;
use std::path::{Path, PathBuf};

use nasmount::cli::check::Output;
use nasmount::cli::import::translate;
use nasmount::cli::report::Exit;
use nasmount::config::{self, Colour, SourceText, shipped_profiles};

/// Every password in the corpus.
const SECRETS: [&str; 2] = ["hunter2", "a,b,c"];

fn corpus() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import");
    let mut files: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "fstab"));
    files.sort();
    files
}

fn translated(fstab: &str, output: Output) -> (Exit, String, String) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let (exit, written) = translate(fstab, "/etc/fstab", output, Colour::Never, &mut stdout, &mut stderr);
    written.unwrap();
    (exit, String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn each_fstab_becomes_what_is_expected() {
    let corpus = corpus();
    assert!(corpus.len() >= 20, "the corpus has lost files");
    for file in corpus {
        let (exit, toml, said) = translated(&fs::read_to_string(&file).unwrap(), Output::Text);
        let got = format!("exit {}\n--- stdout\n{toml}--- stderr\n{said}", exit as u8);
        let expected = file.with_extension("expected");
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&expected, &got).unwrap();
        }
        assert_eq!(got, fs::read_to_string(&expected).unwrap(), "{}", file.display());
    }
}

#[test]
fn what_is_accepted_is_a_configuration_and_no_password_is_in_anything() {
    for file in corpus() {
        let fstab = fs::read_to_string(&file).unwrap();
        let (exit, toml, said) = translated(&fstab, Output::Text);
        let loaded = config::load(&[SourceText::new("nasmount.toml", toml.as_str())], &shipped_profiles());
        assert!(toml.is_empty() || loaded.is_ok() == (exit == Exit::Done), "{}: {loaded:?}", file.display());
        let (_, json, _) = translated(&fstab, Output::Json);
        let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(parsed["import"]["toml"], toml.as_str());
        for secret in SECRETS {
            assert!(![&toml, &said, &json].iter().any(|text| text.contains(secret)), "{}", file.display());
        }
    }
}
