//! What is written is executed: configuration examples, profiles, unit files and the table of states.

#![expect(clippy::unwrap_used, reason = "a test that cannot read the repository has nothing to test")]
#![expect(clippy::disallowed_methods, reason = "reads the repository's own files")]

use std::collections::BTreeSet;
use std::path::Path;

use nasmount::config::settings::CredentialSource;
use nasmount::config::{self, SourceText, shipped_profiles};
use nasmount::plan::options::{DirtyLimitSupport, KernelOptions, mount_options};
use nasmount::share::State;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The fenced blocks of a language in a Markdown text.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let starts = text.match_indices(&fence).map(|(at, _)| at + fence.len());
    starts.map(|at| text[at..].split("```").next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn every_configuration_in_the_readme_is_valid() {
    let examples = blocks(&read("README.md"), "toml");
    assert!(examples.len() >= 2, "the README has lost its examples");
    for text in examples {
        let source = SourceText { path: "README.md".into(), text: text.clone() };
        let loaded = config::load(&[source], &shipped_profiles());
        assert!(loaded.is_ok(), "{text}\n{loaded:?}");
    }
}

/// The unit loads what the configuration names, and Kerberos is what the kernel is told.
#[test]
fn the_logins_in_the_readme_are_those_of_the_code() {
    let readme = read("README.md");
    let section = readme.split("## Passwords\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let settings: Vec<_> = blocks(section, "toml")
        .into_iter()
        .map(|text| {
            config::load(&[SourceText { path: "README.md".into(), text }], &shipped_profiles()).unwrap().settings
        })
        .collect();
    let of_systemd =
        settings.iter().flat_map(|settings| settings.servers.values()).find_map(|it| match &it.credentials {
            CredentialSource::Systemd(name) => Some(name.clone()),
            CredentialSource::Guest | CredentialSource::File(_) => None,
        });
    let name = of_systemd.unwrap();
    let drop_in = blocks(section, "ini").concat();
    assert_eq!(drop_in, format!("[Service]\nLoadCredentialEncrypted={name}\n"));
    let commands = blocks(section, "sh").concat();
    assert!(
        commands.contains(&format!("--name={name} "))
            && commands.contains(&format!("/etc/credstore.encrypted/{name}\n"))
    );

    let share = settings.iter().flat_map(|settings| settings.shares.values()).next().unwrap();
    let (kernel, limits) = (KernelOptions::unknown(), DirtyLimitSupport::Supported);
    let plan = mount_options(share, "10.10.0.35".parse().unwrap(), &kernel, limits);
    let options: Vec<String> = plan.options.iter().map(ToString::to_string).collect();
    for option in ["sec=krb5i", "cruid=1000"] {
        assert!(options.contains(&option.to_owned()), "{options:?}");
    }
    assert!(plan.source.starts_with("//10.10.0.35/"), "it is mounted by address");
}

#[test]
fn the_defaults_in_the_readme_are_the_defaults() {
    let examples = blocks(&read("README.md"), "toml");
    let full = examples.iter().find(|text| text.contains("[server.tower.probe]")).unwrap();
    let is_kept = |line: &&str| {
        let key = line.split(['=', ' ']).next().unwrap_or_default();
        ["host", "server", "source", "mount_point", "unit", "user", "container", "label", "compose"].contains(&key)
            || line.starts_with('[')
    };
    let bare: String = full.lines().filter(is_kept).map(|line| format!("{line}\n")).collect();
    let bare = bare.replace("[server.tower.probe]\n", "");
    let load =
        |text: String| config::load(&[SourceText { path: "x".into(), text }], &shipped_profiles()).unwrap().settings;
    let (mut said, mut real) = (load(full.clone()), load(bare));
    for settings in [&mut said, &mut real] {
        for share in settings.shares.values_mut() {
            share.consumers.iter_mut().for_each(|consumer| consumer.order = 0); // 10 is an example
            share.consumers.sort_by(|one, other| one.unit.cmp(&other.unit));
        }
    }
    assert_eq!(said, real);
}

/// It says itself why it gives up, so systemd must not end it before.
#[test]
fn systemd_waits_longer_for_a_share_than_the_wait_lasts() {
    let unit = read("systemd/nasmount-wait@.service");
    let limit: u64 = unit.lines().find_map(|line| line.strip_prefix("TimeoutStartSec=")).unwrap().parse().unwrap();
    let waits = nasmount::plan::dependency::START_WAITS.as_secs();
    assert!(limit > waits);
    assert!(unit.contains(&format!("after {waits} s")), "{unit}");
}

/// `/// text` lines before each variant of `State`, joined, as the README's table has them.
#[test]
fn the_table_of_states_is_the_documentation_of_the_states() {
    let source = read("src/share/state.rs");
    let body = source.split("pub enum State {").nth(1).unwrap().split("\n}").next().unwrap();
    let readme = read("README.md");
    let mut doc = Vec::new();
    let mut seen = 0;
    for line in body.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            doc.push(text.trim().to_owned());
        } else if let Some(variant) = line.strip_suffix(',') {
            let row = format!("| `{}` | {} |", variant.to_lowercase(), doc.join(" "));
            assert!(readme.contains(&row), "the README's table lacks:\n{row}");
            let state = State::ALL.into_iter().find(|state| state.name() == variant.to_lowercase()).unwrap();
            let text = doc.join(" ");
            let first = text.split_once(". ").map_or(text.clone(), |(first, _)| format!("{first}."));
            assert_eq!(state.promise(), first, "promise() of `{state}` is not the first sentence of its documentation");
            doc.clear();
            seen += 1;
        }
    }
    assert_eq!(seen, State::ALL.len());
}

/// The README's diagram has every transition, and no other; those to and from `maintenance` and `stuck` are said in words.
#[test]
fn the_diagram_of_states_is_the_table_of_transitions() {
    let diagrams = blocks(&read("README.md"), "mermaid");
    let edge = |line: &str| {
        let (from, to) = line.trim().split(':').next()?.split_once(" --> ")?;
        Some((from.to_owned(), to.trim().to_owned()))
    };
    let drawn: BTreeSet<_> = diagrams
        .iter()
        .flat_map(|diagram| diagram.lines())
        .filter_map(edge)
        .filter(|(from, _)| from != "[*]")
        .collect();
    let is_drawn = |state: &&State| !matches!(state, State::Maintenance | State::Stuck);
    let real: BTreeSet<_> = State::ALL
        .iter()
        .filter(is_drawn)
        .flat_map(|from| from.may_become().iter().filter(is_drawn).map(|to| (from.to_string(), to.to_string())))
        .collect();
    assert_eq!(drawn, real);
}

/// At boot: whatever pulls the daemon in pulls the barriers in, and all ordinary services come after `basic.target`.
#[test]
fn barriers_are_laid_before_any_ordinary_service() {
    let says = |unit: &str, key: &str, word: &str| {
        let text = read(&format!("systemd/{unit}.service"));
        let mut values = text.lines().filter_map(|line| line.strip_prefix(&format!("{key}=")));
        values.any(|value| value.split_whitespace().any(|said| said == word))
    };
    for key in ["Wants", "After"] {
        assert!(says("nasmount", key, "nasmount-barrier.service"), "{key}");
    }
    for (key, word) in [
        ("Before", "basic.target"),
        ("DefaultDependencies", "no"), // else it would come after basic.target itself
        ("After", "local-fs.target"),
        ("RequiresMountsFor", nasmount::sys::paths::STATE_DIRECTORY),
        ("Type", "notify"),
    ] {
        assert!(says("nasmount-barrier", key, word), "{key}={word}");
    }
}

#[test]
fn every_unit_names_files_that_are_installed() {
    let makefile = read("Makefile");
    assert!(makefile.contains("HELPERDIR = /sbin\n"));
    for unit in
        ["nasmount.service", "nasmount-barrier.service", "nasmount-resume-all.service", "nasmount-wait@.service"]
    {
        let text = read(&format!("systemd/{unit}"));
        assert!(makefile.contains(unit), "the Makefile does not install {unit}");
        let start = text.lines().find(|line| line.starts_with("ExecStart=")).unwrap();
        let installed = ["ExecStart=@BINDIR@/nasmount ", "ExecStart=/sbin/mount.nasmount "];
        assert!(installed.iter().any(|program| start.starts_with(program)), "{unit}: {start}");
        let reload = text.lines().find(|line| line.starts_with("ExecReload="));
        assert!(reload.is_none_or(|line| line == "ExecReload=@BINDIR@/nasmount reload"), "{unit}: {reload:?}");
        for hiding in
            ["PrivateTmp=", "ProtectSystem=", "ProtectHome=", "PrivateMounts=", "ReadOnlyPaths=", "IPAddressDeny="]
        {
            assert!(
                !text.contains(hiding),
                "{unit}: {hiding} would hide the mounts from the host, or cut the kernel off"
            );
        }
    }
}
