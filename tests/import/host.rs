//! A host whose files change hands.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use nasmount::cli::export::export_files;
use nasmount::cli::takeover::{Places, import_files};
use nasmount::config::Colour;
use nasmount::plan::import::Share;
use nasmount::sys::config_dir::ConfigRoots;

pub const UNITS: &str = "etc/systemd/system";

/// A host with this fstab, below a directory.
pub struct Host(tempfile::TempDir);

impl Host {
    pub fn new(fstab: &str) -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        fs::create_dir(host.path("etc")).unwrap();
        fs::write(host.path("etc/fstab"), fstab).unwrap();
        host
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_else(|error| format!("{path}: {error}"))
    }

    pub fn places(&self) -> Places {
        let roots = ConfigRoots::under(self.0.path(), None, None);
        Places { roots, fstab: self.path("etc/fstab"), units: self.path(UNITS), usual: true }
    }

    /// The shares that were taken over, and what was said; credentials are looked for where the configuration says.
    pub fn import(&self) -> (Option<Vec<Share>>, String) {
        let mut err = Vec::new();
        let shares = import_files(&self.places(), Colour::Never, &mut err).unwrap();
        (shares, String::from_utf8(err).unwrap())
    }

    /// What a dry run prints for programs.
    pub fn dry_run(&self) -> serde_json::Value {
        let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_nasmount"));
        program.arg("--config").arg(self.path("etc/nasmount/nasmount.toml")).args(["import-fstab", "--json"]);
        program.arg("--fstab").arg(self.path("etc/fstab")).arg("--units").arg(self.path(UNITS));
        serde_json::from_slice(&program.output().unwrap().stdout).unwrap()
    }

    pub fn export(&self) -> String {
        let mut err = Vec::new();
        assert!(export_files(&self.places(), &mut err).unwrap(), "{}", String::from_utf8_lossy(&err));
        String::from_utf8(err).unwrap()
    }

    pub fn refused(&self) -> String {
        let error = export_files(&self.places(), &mut Vec::new()).unwrap_err();
        format!("{error:#}")
    }

    /// Every file but the profiles, with its mode.
    pub fn files(&self) -> Vec<(String, u32)> {
        fn walk(directory: &Path, root: &Path, found: &mut Vec<(String, u32)>) {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_symlink() {
                    let target = fs::read_link(&path).unwrap();
                    found.push((format!("{} -> {}", path.strip_prefix(root).unwrap().display(), target.display()), 0));
                } else if path.is_dir() {
                    walk(&path, root, found);
                } else {
                    let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
                    found.push((path.strip_prefix(root).unwrap().to_string_lossy().into_owned(), mode));
                }
            }
        }
        let mut found = Vec::new();
        walk(self.0.path(), self.0.path(), &mut found);
        found.sort();
        found
    }
}
