//! `nasmount check` against a corpus: every problem that is known, and exactly what is said about it.
//!
//! `UPDATE=1 cargo test --test check` writes the expected messages anew; read the difference before committing it.

#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::disallowed_methods, reason = "tests read and write files")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nasmount::cli::check::{CheckArgs, Output, check};
use nasmount::cli::report::Exit;
use nasmount::config::settings::{HoldFor, OptionValue, Settings};
use nasmount::config::{self, Colour, Invalid, Loaded, SourceText, shipped_profiles};
use nasmount::plan::catalogue;
use nasmount::plan::layers::{self, Layers};
use nasmount::sys::config_dir::ConfigRoots;

/// The password in every file of the corpus that has one.
const SECRET: &str = "hunter2";

/// The example of the design document: what a user is told to write.
const EXAMPLE: &str = r#"
[server.tower]
host = "10.10.0.35"                     # address or name; a name is resolved by nasmount, never by the kernel
credentials = "/etc/nasmount/tower.cred"  # mount.cifs grammar, root-only; or "systemd:NAME"; absent = guest

[server.tower.probe]                    # all optional
interval = "1s"
timeout = "1s"
dead_after = 3
alive_after = 3

[share.media]
server = "tower"
source = "media"                        # //10.10.0.35/media ; "media/sub/dir" mounts a directory of it
mount_point = "/mnt/media"
profile = "media"                       # profiles/media.toml
options = { uid = 1000, gid = 1000 }    # over the profile; numbers or names
hold_for = "15m"                        # how long to hold before releasing; "0s" = at once, "forever" = never

[[share.media.consumer]]
unit = "jellyfin.service"               # any systemd unit
on_outage = "pause"                     # pause (default) | stop (scanners) | none
after_hold = "stop"                     # what follows when the hold is over: stop (default) | kill | none
order = 10                              # lower is paused first and resumed last
"#;

fn load(texts: &[(&str, &str)]) -> Result<Loaded, Vec<Invalid>> {
    let fragments: Vec<_> = texts.iter().map(|(path, text)| SourceText::new(*path, *text)).collect();
    config::load(&fragments, &shipped_profiles())
}

fn settings(text: &str) -> Settings {
    load(&[("nasmount.toml", text)]).unwrap_or_else(|invalid| panic!("{}", render(&invalid))).settings
}

fn render(invalid: &[Invalid]) -> String {
    invalid.iter().map(|problem| problem.render(Colour::Never) + "\n\n").collect()
}

fn run_check(file: &Path, output: Output) -> (Exit, String, String) {
    // No other configuration of the machine plays a part.
    let roots = ConfigRoots::under(Path::new("/nonexistent"), Some(file), None);
    // root may run the tests in a checkout of somebody else's
    let user = fs::metadata(file).map_or(roots.user, |metadata| metadata.uid());
    let roots = ConfigRoots { user, ..roots };
    let args = CheckArgs { config: Some(file.to_owned()), output, colour: Colour::Never };
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let (exit, written) = check(&roots, &args, &mut stdout, &mut stderr);
    written.unwrap();
    (exit, String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn corpus() -> Vec<PathBuf> {
    files_of("tests/check")
}

fn files_of(directory: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    files
}

#[test]
fn every_mistake_is_explained() {
    let files = corpus();
    assert!(files.len() >= 70);
    for file in files {
        let (exit, stdout, stderr) = run_check(&file, Output::Text);
        assert_eq!((exit, stdout.as_str()), (Exit::Usage, ""), "{}", file.display());
        is_as_expected(&file, &stderr);
    }
}

fn is_as_expected(file: &Path, said: &str) {
    let golden = file.with_extension("expected");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&golden, said).unwrap();
    }
    let expected = fs::read_to_string(&golden).unwrap_or_default();
    assert_eq!(said, expected, "{}", golden.display());
}

/// Also one that no share names: it would be found out on the day on which a share does.
#[test]
fn every_mistake_in_a_profile_is_explained() {
    let files = files_of("tests/check/profiles");
    assert!(files.len() >= 3);
    for file in files {
        let mut profiles = shipped_profiles();
        profiles.push(SourceText::new(file.display().to_string(), fs::read_to_string(&file).unwrap()));
        let invalid = config::load(&[SourceText::new("nasmount.toml", EXAMPLE)], &profiles).unwrap_err();
        let said = render(&invalid);
        assert!(!said.contains(SECRET), "{said}");
        is_as_expected(&file, &said);
    }
}

#[test]
fn every_problem_names_file_line_key_and_help() {
    for file in corpus() {
        let name = file.display().to_string();
        let text = fs::read_to_string(&file).unwrap();
        let invalid = load(&[(&name, &text)]).unwrap_err();
        for Invalid(notice) in &invalid {
            assert!(notice.place.line >= 1 && notice.place.column >= 1, "{notice:?}");
            assert!(!notice.key.is_empty(), "{name}: {notice}");
            assert!(!notice.help.is_empty(), "{name}: {notice}");
            assert!(!notice.message.ends_with('.'), "{name}: {notice}");
            let rendered = Invalid(notice.clone()).render(Colour::Never);
            let position = format!("{name}:{}:{}", notice.place.line, notice.place.column);
            for part in [position.as_str(), &notice.key, "help: "] {
                assert!(rendered.contains(part), "{part} in\n{rendered}");
            }
        }
    }
}

#[test]
fn no_secret_is_shown_anywhere() {
    let mut with_secret = 0;
    for file in corpus() {
        let text = fs::read_to_string(&file).unwrap();
        with_secret += usize::from(text.contains(SECRET));
        let name = file.display().to_string();
        let source = SourceText::new(&file, text.as_str());
        let invalid = load(&[(&name, &text)]).unwrap_err();
        let mut shown = format!("{source:?} {invalid:?} {invalid:#?} {}", render(&invalid));
        for problem in &invalid {
            shown += &problem.to_string();
            shown += &problem.render(Colour::Always);
        }
        for output in [Output::Text, Output::Json] {
            let (_, stdout, stderr) = run_check(&file, output);
            shown += &(stdout + &stderr);
        }
        assert!(!shown.contains(SECRET), "{name}: {shown}");
        // Reads on when the line of the secret is not the line of the problem.
        assert!(!shown.contains("bob:") && !shown.contains("bob%"), "{name}: {shown}");
    }
    assert!(with_secret >= 6);
}

#[test]
fn secrets_hide_in_strange_places() {
    for text in [
        "[share.x]\n\"user=bob,password=hunter2\" = true\n",
        "[share.x]\noptions = { \"username=bob,password=hunter2\" = true }\n",
        "[share.x]\noptions = { x = \"pass=hunter2\", rsize = 3 }\n",
        "[share.x]\nprofile = \"password=hunter2\" \n",
        "[server.x]\npassword = \"\"\"\nhunter2\"\"\" \nhost = 3\n",
        "[server.x]\npassword = [\n\"hunter2\"\n]\n",
        "[server.x]\nhost = 3 # the password is hunter2\n",
        "[server.x]\nhost = \"smb://bob:hunter2@tower\"\n",
        "[server.x]\nhost = tower\npassword = \"hunter2\"\n",
        "[server.x]\npassword = \"\"\"\nhunter2\nhost = \"10.0.0.1\"\n",
        "password = hunter2\n",
        "[[share.x.consumer]]\nunit = 3\ntoken = \"hunter2\"\n",
        "[server]\nx = { host = 3, pw = \"hunter2\" }\n",
        "[users.bob]\nx = 1\n[server.x]\nuser = { name = \"bob\", pwd = \"hunter2\" }\n",
    ] {
        let invalid = load(&[("x.toml", text)]).unwrap_err();
        let shown = format!("{invalid:?} {}", render(&invalid));
        assert!(!shown.contains(SECRET), "{text}: {shown}");
    }
}

#[test]
fn the_example_is_right_and_check_is_silent() {
    let loaded = load(&[("nasmount.toml", EXAMPLE)]).unwrap();
    assert_eq!(loaded.warnings, []);
    let share = loaded.settings.shares.values().next().unwrap();
    assert_eq!(share.patience, Duration::from_secs(30));
    assert_eq!(share.hold_for, HoldFor::For(Duration::from_secs(900)));
    assert_eq!(share.dirty_limit, Some(0));
    assert_eq!(share.options.get("uid"), Some(&OptionValue::Value("1000".into())));
    assert_eq!(share.options.get("nohandlecache"), Some(&OptionValue::Flag));
    assert_eq!(share.consumers.len(), 1);

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("nasmount.toml");
    let guest: String =
        EXAMPLE.lines().filter(|line| !line.starts_with("credentials")).map(|l| l.to_owned() + "\n").collect();
    fs::write(&file, &guest).unwrap();
    assert_eq!(run_check(&file, Output::Text), (Exit::Done, String::new(), String::new()));
    let (exit, stdout, _) = run_check(&file, Output::Json);
    assert_eq!(exit, Exit::Done);
    let json: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(json, serde_json::json!({ "schema": 1, "problems": [] }));
}

#[test]
fn json_has_the_same_as_the_text() {
    let (exit, stdout, stderr) = run_check(Path::new("tests/check/27-size-unit.toml"), Output::Json);
    assert_eq!((exit, stderr.as_str()), (Exit::Usage, ""));
    let json: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let expected = serde_json::json!({
        "severity": "error",
        "kind": "bad-value",
        "file": "tests/check/27-size-unit.toml",
        "line": 8,
        "column": 15,
        "key": "share.media.dirty_limit",
        "message": "size \"4MB\" has an unknown unit",
        "help": "write \"4MiB\"",
    });
    assert_eq!(json["problems"][0], expected);
}

#[test]
fn a_missing_credentials_file_is_reported_where_it_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("nasmount.toml");
    let missing = directory.path().join("tower.cred").display().to_string();
    fs::write(&file, EXAMPLE.replace("/etc/nasmount/tower.cred", &missing)).unwrap();
    let (exit, _, stderr) = run_check(&file, Output::Text);
    assert_eq!(exit, Exit::Usage);
    assert!(stderr.contains("server.tower.credentials: cannot use the credentials file"), "{stderr}");
    assert!(stderr.contains("nasmount.toml:4:15"), "{stderr}");
    assert!(stderr.contains("nasmount login tower") && stderr.contains("chmod 600"), "{stderr}");
}

/// A configuration in a directory of its own, with a share on `mount_point` and this credentials file.
fn on_this_host(credentials: &str, mount_point: &Path) -> (tempfile::TempDir, PathBuf) {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let (file, login) = (directory.path().join("nasmount.toml"), directory.path().join("tower.cred"));
    fs::write(&login, credentials).unwrap();
    fs::set_permissions(&login, fs::Permissions::from_mode(0o600)).unwrap();
    let text = format!(
        "[server.tower]\nhost = \"10.0.0.1\"\ncredentials = {login:?}\n\
         [share.media]\nserver = \"tower\"\nsource = \"media\"\nmount_point = {mount_point:?}\n"
    );
    fs::write(&file, text).unwrap();
    (directory, file)
}

#[test]
fn what_is_odd_on_this_host_is_a_warning() {
    use std::os::unix::fs::symlink;
    let host = tempfile::tempdir().unwrap();
    let at = |name: &str| host.path().join(name);
    fs::create_dir(at("real")).unwrap();
    symlink(at("real"), at("link")).unwrap();
    fs::write(at("file"), "").unwrap();
    let good = "username=bob\npassword=x\n";
    for (mount_point, said) in [
        (at("real"), None),
        (at("not yet"), None),
        (at("link"), Some(format!("help: use {} itself", at("real").display()))),
        (at("link/media"), Some(format!("help: use {} itself", at("real/media").display()))),
        (at("file"), Some(format!("{} is not a directory", at("file").display()))),
        (at("file/media"), Some(format!("{} is not a directory", at("file").display()))),
    ] {
        let (_directory, file) = on_this_host(good, &mount_point);
        let (exit, _, stderr) = run_check(&file, Output::Text);
        assert_eq!(exit, Exit::Done, "{stderr}");
        assert_eq!(stderr.is_empty(), said.is_none(), "{stderr}");
        assert!(stderr.contains(&said.clone().unwrap_or_default()), "{said:?}: {stderr}");
    }
}

#[test]
fn credentials_that_were_hardly_meant_so_are_mentioned_and_wrong_ones_explained() {
    let (_directory, file) = on_this_host("username=bob\r\npassword=\"hunter2\"\n", Path::new("/mnt/media"));
    let (exit, _, stderr) = run_check(&file, Output::Text);
    assert_eq!(exit, Exit::Done, "{stderr}");
    assert!(stderr.contains("`username` on line 1") && stderr.contains("line ends of Windows"), "{stderr}");
    assert!(stderr.contains("`password` on line 2") && stderr.contains("quotation marks"), "{stderr}");
    assert!(!stderr.contains(SECRET), "{stderr}");
    let long = format!("username=bob\npassword={}\n", "x".repeat(300));
    for (text, help) in
        [(long.as_str(), "choose a shorter one"), ("username=b\0b\n", "text editor"), ("", "username=NAME")]
    {
        let (_directory, file) = on_this_host(text, Path::new("/mnt/media"));
        let (exit, _, stderr) = run_check(&file, Output::Text);
        assert_eq!(exit, Exit::Usage);
        assert!(stderr.contains(help), "{stderr}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let (file, drop_in) = (directory.path().join("nasmount.toml"), directory.path().join("conf.d/a.toml"));
    fs::write(&file, EXAMPLE).unwrap();
    fs::create_dir_all(&drop_in).unwrap();
    let (exit, stdout, _) = run_check(&file, Output::Json);
    let said: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let problem = &said["problems"][0];
    assert_eq!(exit, Exit::Usage);
    assert_eq!(problem["file"], drop_in.to_str().unwrap());
    assert_eq!(problem["kind"], "unreadable");
    assert!(!problem["help"].as_str().unwrap().is_empty());
}

#[test]
fn what_is_no_utf_8_has_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("nasmount.toml");
    fs::write(&file, b"[server.tower]\n# gr\xfc\xdfe\nhost = \"10.10.0.35\"\n").unwrap();
    let (exit, stdout, _) = run_check(&file, Output::Json);
    let said: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let problem = &said["problems"][0];
    assert_eq!((exit, &problem["line"], &problem["column"]), (Exit::Usage, &2.into(), &5.into()));
    assert!(run_check(&file, Output::Text).2.contains("line 2 is not UTF-8 text"));
}

/// What is printed of arguments that a terminal would obey, and whether stdout has JSON where it was asked for.
#[test]
fn no_argument_reaches_a_terminal_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("nasmount.toml");
    fs::write(&file, EXAMPLE).unwrap();
    for arguments in [
        &["explain", "a\u{1b}[2J\nerror: b"][..],
        &["profiles", "a\u{1b}[2J\nerror: b"],
        &["diagnose", "a\u{1b}[2J\nerror: b"],
        &["diagnose", "//a.b/\u{1b}[2J\nerror: b"],
        &["a\u{1b}[2J\nerror: b"],
        &["--config", "a\u{1b}[2J\nerror: b", "check"],
    ] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_nasmount"));
        let example = ["--config", file.to_str().unwrap()];
        let more = if arguments[0] == "--config" { &[][..] } else { &example[..] };
        let output = command.args(more).args(arguments).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        assert!(!said.contains('\u{1b}') && !said.contains("\nerror: b"), "{arguments:?}: {said}");
    }
}

#[test]
fn the_exit_code_is_the_same_when_nobody_reads() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_nasmount"));
    let status = command.args(["--config", "tests/check/01-syntax.toml", "check"]).stderr(writer).status().unwrap();
    assert_eq!(status.code(), Some(Exit::Usage as i32));
}

#[test]
fn two_names_of_one_host_have_one_patience() {
    let text = two_shares("", "profile = \"backup\"").replace(
        "[share.backup]\nserver = \"tower\"",
        "[server.again]\nhost = \"TOWER.\"\n[share.backup]\nserver = \"again\"",
    );
    for share in settings(&text).shares.values() {
        assert_eq!(share.patience, Duration::from_secs(300));
    }
}

#[test]
fn a_missing_configuration_is_said_plainly() {
    let (exit, _, stderr) = run_check(Path::new("tests/check/none.toml"), Output::Text);
    assert_eq!(exit, Exit::Usage);
    assert!(stderr.starts_with("error: there is no configuration at tests/check/none.toml\n"), "{stderr}");
    assert!(stderr.contains("\nhint: "), "{stderr}");
    let (exit, stdout, _) = run_check(Path::new("tests/check/none.toml"), Output::Json);
    assert_eq!(exit, Exit::Usage);
    assert!(stdout.contains("there is no configuration"), "{stdout}");
}

#[test]
fn the_later_file_wins_key_by_key() {
    let drop_in = r#"
[server.tower.probe]
dead_after = 5

[share.media]
hold_for = "forever"
options = { uid = "jelly", wsize = false, hard = true }

[[share.media.consumer]]
unit = "jellyfin.service"
on_outage = "stop"

[[share.media.consumer]]
unit = "scan.timer"
on_outage = "stop"
order = -5
"#;
    let loaded = load(&[("nasmount.toml", EXAMPLE), ("conf.d/50-x.toml", drop_in)]).unwrap();
    let probe = &loaded.settings.servers.values().next().unwrap().probe;
    assert_eq!((probe.dead_after, probe.alive_after), (5, 3));
    let share = loaded.settings.shares.values().next().unwrap();
    assert_eq!(share.hold_for, HoldFor::Forever);
    assert_eq!(share.options.get("uid"), Some(&OptionValue::Value("jelly".into())));
    assert_eq!(share.options.get("gid"), Some(&OptionValue::Value("1000".into())));
    assert_eq!(share.options.get("wsize"), None);
    assert!(share.options.contains_key("hard") && !share.options.contains_key("soft"));
    let consumers: Vec<_> = share.consumers.iter().map(|consumer| (consumer.unit.as_str(), consumer.order)).collect();
    assert_eq!(consumers, [("scan.timer", -5), ("jellyfin.service", 10)]);
    let [warning] = &loaded.warnings[..] else { panic!("{:?}", loaded.warnings) };
    assert!(warning.to_string().starts_with("conf.d/50-x.toml:7:"), "{warning}");

    let wrong = load(&[("nasmount.toml", EXAMPLE), ("b.toml", "[share.media]\nserver = \"attic\"\n")]).unwrap_err();
    assert!(wrong[0].to_string().starts_with("b.toml:2:10: share.media.server: "), "{}", wrong[0]);
}

#[test]
fn another_name_of_a_consumer_is_a_second_one_in_a_later_file_too() {
    let tdarr = |keys: &str| format!("[[share.media.consumer]]\ncontainer = \"tdarr\"\n{keys}");
    let load = |later: &str| {
        let first = format!("{EXAMPLE}\n{}", tdarr("order = 1"));
        load(&[("nasmount.toml", &first), ("b.toml", &tdarr(later))])
    };
    assert_eq!(load("order = 2").unwrap().settings.shares.values().next().unwrap().consumers.len(), 2, "a change");
    let wrong = load("engine = \"podman\"").unwrap_err();
    assert!(wrong[0].to_string().starts_with("b.toml:2:13: share.media.consumer[0]: this is already"), "{}", wrong[0]);
}

fn two_shares(media: &str, backup: &str) -> String {
    format!(
        "[server.tower]\nhost = \"tower\"\n\
         [share.media]\nserver = \"tower\"\nsource = \"media\"\nmount_point = \"/mnt/media\"\n{media}\n\
         [share.backup]\nserver = \"tower\"\nsource = \"backup\"\nmount_point = \"/mnt/backup\"\n{backup}\n"
    )
}

#[test]
fn a_server_has_one_patience_and_the_kernel_is_slower() {
    let settings = settings(&two_shares("", "profile = \"backup\""));
    for share in settings.shares.values() {
        assert_eq!(share.patience, Duration::from_secs(300));
        assert_eq!(share.options.get("echo_interval"), Some(&OptionValue::Value("107".into())));
    }
}

#[test]
fn holds_shorter_than_the_patience() {
    let at_once = settings(&two_shares("hold_for = \"0s\"", "hold_for = \"0s\""));
    assert!(at_once.shares.values().all(|share| share.patience.is_zero()));
    // The other share keeps its patience, and says so.
    let loaded = load(&[("x.toml", &two_shares("hold_for = \"0s\"", ""))]).unwrap();
    assert!(loaded.settings.shares.values().all(|share| share.patience == Duration::from_secs(30)));
    assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
    let loaded =
        load(&[("x.toml", &two_shares("patience = \"1m\"\nhold_for = \"20s\"", "patience = \"0s\""))]).unwrap();
    assert!(loaded.settings.shares.values().all(|share| share.patience == Duration::from_secs(20)));
    assert!(loaded.warnings[0].to_string().contains("never reached"), "{:?}", loaded.warnings);
}

#[test]
fn limits_and_none() {
    let lifted = settings(&two_shares("dirty_limit = \"none\"", ""));
    assert_eq!(lifted.shares.values().map(|share| share.dirty_limit).collect::<Vec<_>>(), [Some(0), None]);
    let loaded = load(&[("x.toml", &two_shares("dirty_limit = \"8MiB\"", ""))]).unwrap();
    assert!(loaded.warnings[0].to_string().contains("may not survive"), "{:?}", loaded.warnings);
    let nothing = load(&[("x.toml", "")]).unwrap();
    assert!(nothing.warnings[0].to_string().contains("no share is configured"));
}

#[test]
fn profiles_can_be_added_and_replaced() {
    let fragments = [SourceText::new("nasmount.toml", two_shares("profile = \"mine\"", ""))];
    let with = |path: &str, text: &str| {
        let mut profiles = shipped_profiles();
        profiles.push(SourceText::new(path, text));
        config::load(&fragments, &profiles)
    };
    let loaded = with("/etc/nasmount/profiles/mine.toml", "patience = \"10s\"\n[options]\nnobrl = true\n").unwrap();
    let media = loaded.settings.shares.values().last().unwrap();
    assert_eq!(media.options.len(), 2, "nobrl and the computed echo_interval: {:?}", media.options);
    let invalid = with("mine.toml", "inherits = \"media\"\npatience = 3\n[options]\nvers = \"1.0\"\n").unwrap_err();
    assert_eq!(invalid.len(), 3, "{}", render(&invalid));
    assert!(load(&[("x.toml", &two_shares("profile = \"mine\"", ""))]).is_err());
}

#[test]
fn shipped_profiles_are_right_and_give_their_reasons() {
    let known: BTreeSet<&str> = catalogue::KNOWN.iter().map(|option| option.name).collect();
    let probe = settings(EXAMPLE).servers.values().next().unwrap().probe.clone();
    assert_eq!(shipped_profiles().len(), 4);
    for profile in shipped_profiles() {
        let name = profile.path.display().to_string().replace("built-in:", "").replace(".toml", "");
        let mut before = "";
        for line in profile.text.lines() {
            let is_key = line.starts_with(|c: char| c.is_ascii_lowercase());
            assert!(!is_key || before.starts_with("# "), "{name}: no reason for `{line}`");
            assert!(line.len() <= 125, "{name}: {line}");
            before = line;
        }
        let table: toml::Table = profile.text.parse().unwrap();
        let options = table["options"].as_table().unwrap();
        for required in ["soft", "vers", "echo_interval", "retrans", "rsize", "wsize", "closetimeo", "actimeo"] {
            assert!(options.contains_key(required), "{name}: {required}");
        }
        assert!(options.keys().all(|key| known.contains(key.as_str())), "{name}");
        let share = settings(&format!(
            "[server.tower]\nhost = \"tower\"\n[share.x]\nserver = \"tower\"\nsource = \"x\"\n\
             mount_point = \"/mnt/x\"\nprofile = \"{name}\"\n"
        ));
        let share = share.shares.values().next().unwrap();
        let echo = u64::try_from(options["echo_interval"].as_integer().unwrap()).unwrap();
        assert_eq!(
            echo,
            layers::echo_interval_needed(&probe, share.patience, share.probe_interval),
            "{name}: exactly what the patience needs"
        );
        Layers::new(&probe, share.patience, share.probe_interval, echo, share.hold_for).unwrap();
        let wsize = u64::try_from(options["wsize"].as_integer().unwrap()).unwrap();
        assert!(share.dirty_limit.is_some_and(|limit| limit == 0 || 2 * wsize <= limit), "{name}: two writes fit");
        assert!(profile.text.contains(&format!("3 x {echo} = {} s", 3 * echo)), "{name}: the comment has the numbers");
    }
}

#[test]
fn no_text_makes_it_panic() {
    let mut texts = vec![EXAMPLE.to_owned(), EXAMPLE.replace('\n', "\r\n"), EXAMPLE.replace('e', "é")];
    texts.extend(corpus().iter().map(|file| fs::read_to_string(file).unwrap()));
    let mut loads = 0;
    for text in texts {
        // A prime, so that every kind of place is cut somewhere.
        for cut in (0..text.len()).step_by(29).filter(|cut| text.is_char_boundary(*cut)) {
            let (before, after) = text.split_at(cut);
            let rest: String = after.chars().skip(1).collect();
            for changed in [before.to_owned(), format!("{before}{rest}"), format!("{before}\"é\r{rest}")] {
                // Every place must be one that can be rendered.
                if let Err(invalid) = load(&[("x.toml", &changed)]) {
                    drop(render(&invalid));
                }
                loads += 1;
            }
        }
    }
    assert!(loads > 500);
}

#[test]
fn options_that_hurt_or_change_nothing_are_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("nasmount.toml");
    for (options, said) in [
        ("soft = false", "this changes nothing: a mount that is not `hard` is soft"),
        ("hard = true", "a hard mount cannot be given up"),
        ("cache = \"loose\"", "two who write to one file overwrite"),
        ("rsize = 8384512", "one transfer of more than 4 MiB"),
        ("vers = \"2.1\"", "SMB 2 cannot encrypt"),
    ] {
        let text = format!(
            "[server.a]\nhost = \"10.0.0.1\"\n[share.b]\nserver = \"a\"\nsource = \"b\"\nmount_point = \"{}\"\noptions = {{ {options} }}\n",
            directory.path().join("b").display()
        );
        fs::write(&file, text).unwrap();
        let (exit, _, stderr) = run_check(&file, Output::Text);
        assert_eq!(exit, Exit::Done, "{stderr}");
        assert!(stderr.contains(said), "{stderr}");
    }
}
