//! `nasmount import-fstab` against lines as people write them: the configuration, and what is said about it.
//!
//! `UPDATE=1 cargo test --test import` writes the expected output anew; read the difference before committing it.

#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::disallowed_methods, reason = "tests read and write files")]

#[path = "import/exchange.rs"]
mod exchange;
#[path = "import/host.rs"]
mod host;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use nasmount::cli::check::Output;
use nasmount::cli::export::export_files;
use nasmount::cli::import::{Host as Surroundings, translate};
use nasmount::cli::records::Unfinished;
use nasmount::cli::report::Exit;
use nasmount::cli::takeover::import_files;
use nasmount::config::credentials::parse_credentials;
use nasmount::config::{self, Colour, SourceText, shipped_profiles};
use nasmount::plan::bytes::text_of;
use nasmount::plan::import::{Share, Sources};
use nasmount::plan::mount_unit::UnitFile;
use nasmount::sys::config_dir::{ConfigTexts, MountPoint};
use nasmount::sys::unit_files;

use host::{Host, UNITS};

/// Every password in the corpus.
const SECRETS: [&str; 3] = ["hunter2", "ter2", "a,b,c"];

fn corpus() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import");
    let mut files: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "fstab"));
    files.sort();
    files
}

fn translated(fstab: &str, output: Output) -> (Exit, String, String) {
    translated_with(fstab, &[], output)
}

fn translated_with(fstab: &str, units: &[UnitFile], output: Output) -> (Exit, String, String) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let texts = ConfigTexts { fragments: Vec::new(), profiles: shipped_profiles() };
    let sources = Sources { fstab, name: "/etc/fstab", units };
    let host = Surroundings {
        sources,
        unfinished: &Unfinished::none(fstab),
        fstab: "/etc/fstab",
        directory: Path::new("/etc/nasmount"),
        look_at_credentials: |path| match path.file_name().and_then(|name| name.to_str()) {
            Some("unusable.cred") => Err(("it is readable by others".to_owned(), "chmod 600".to_owned())),
            Some("unseen.cred") => Ok(None),
            Some("odd.cred") => Ok(Some(parse_credentials(ODD).unwrap())),
            Some("work.cred") => Ok(Some(parse_credentials("username=bob\ndomain=WORK\npassword=hunter2\n").unwrap())),
            Some("taken.cred") => Ok(Some(parse_credentials("username=eve\npassword=x\n").unwrap())),
            _ if path.starts_with("/etc/nasmount") => Ok(None),
            _ => Ok(Some(parse_credentials("username=bob\npassword=x\n").unwrap())),
        },
        mount_point: |_| MountPoint::Usable,
        is_missing: |_, name| name.starts_with("nosuch"),
        refusal: &|_| None,
    };
    let (exit, written) = translate(&host, &texts, output, Colour::Never, &mut stdout, &mut stderr);
    written.unwrap();
    (exit, String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn each_fstab_becomes_what_is_expected() {
    let corpus = corpus();
    assert!(corpus.len() >= 40, "the corpus has lost files");
    for file in corpus {
        let (exit, toml, said) = translated(&text_of(&fs::read(&file).unwrap()), Output::Text);
        is_as_expected(&file, exit, &toml, &said);
    }
}

fn is_as_expected(file: &Path, exit: Exit, toml: &str, said: &str) {
    let got = format!("exit {}\n--- stdout\n{toml}--- stderr\n{said}", exit as u8);
    let expected = file.with_extension("expected");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&expected, &got).unwrap();
    }
    assert_eq!(got, fs::read_to_string(&expected).unwrap_or_default(), "{}", file.display());
}

/// A directory of units each, and an `fstab` in some of them.
#[test]
fn each_directory_of_units_becomes_what_is_expected() {
    let directories = unit_directories();
    assert!(directories.len() >= 9, "the corpus has lost directories");
    for directory in directories {
        let units = unit_files::read(&directory).unwrap();
        let fstab = fs::read_to_string(directory.join("fstab")).unwrap_or_default();
        let (exit, toml, said) = translated_with(&fstab, &units, Output::Text);
        is_as_expected(&directory, exit, &toml, &said);
        let (_, json, _) = translated_with(&fstab, &units, Output::Json);
        for secret in SECRETS {
            assert!(![&toml, &said, &json].iter().any(|text| text.contains(secret)), "{}", directory.display());
        }
    }
}

/// Relative paths: they are in what is said.
fn unit_directories() -> Vec<PathBuf> {
    let entries = fs::read_dir("tests/import/units").unwrap().map(|entry| entry.unwrap().path());
    let mut directories: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    directories.sort();
    directories
}

#[test]
fn what_is_accepted_is_a_configuration_and_no_password_is_in_anything() {
    for file in corpus() {
        let fstab = text_of(&fs::read(&file).unwrap());
        let (exit, toml, said) = translated(&fstab, Output::Text);
        let loaded = config::load(&[SourceText::new("nasmount.toml", toml.as_str())], &shipped_profiles());
        // what is valid by itself can name an account that the host does not have, or lose a login
        assert!(toml.is_empty() || loaded.is_ok() || exit != Exit::Done, "{}: {loaded:?}", file.display());
        let (_, json, _) = translated(&fstab, Output::Json);
        let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(parsed["import"]["toml"], toml.as_str());
        for secret in SECRETS {
            assert!(![&toml, &said, &json].iter().any(|text| text.contains(secret)), "{}", file.display());
        }
    }
}

#[test]
fn a_credentials_file_that_cannot_be_used_is_a_problem_before_anything_is_changed() {
    let fstab = "//nas/films /mnt/films cifs credentials=/etc/unusable.cred 0 0\n";
    let (exit, toml, said) = translated(fstab, Output::Text);
    assert_eq!(exit, Exit::Usage);
    assert!(toml.contains("credentials = \"/etc/unusable.cred\""), "the configuration is printed all the same: {toml}");
    assert!(said.contains("error: server.nas.credentials: it is readable by others\n--> /etc/fstab:1:1\n"), "{said}");
    assert!(said.contains("= help: chmod 600\n"), "{said}");
    let (_, json, _) = translated(fstab, Output::Json);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["schema"], 2);
    let problem = serde_json::json!({
        "line": 0, "column": 0, "key": "server.nas.credentials", "what": "it is readable by others", "hint": "chmod 600",
    });
    assert_eq!(json["problems"], serde_json::json!([problem]));
    // to be made by the import, so not there yet
    let (exit, ..) = translated("//nas/films /mnt/films cifs username=bob,password=hunter2 0 0\n", Output::Text);
    assert_eq!(exit, Exit::Done);
}

/// A credentials file of a Windows editor.
const ODD: &str = "username=bob\r\npassword=x\r\n";

#[test]
fn what_check_would_say_of_a_login_is_said_before_anything_is_changed() {
    let long = format!("//nas/a /mnt/a cifs user=bob,password={} 0 0\n", "hunter2".repeat(43));
    let (exit, _, said) = translated(&long, Output::Text);
    assert_eq!(exit, Exit::Usage, "{said}");
    assert!(said.contains("301 bytes, and the kernel takes 255\n--> /etc/fstab:1:1\n"), "{said}");
    assert!(!said.contains("hunter2") && !said.contains("With --apply"), "{said}");
    let (exit, _, said) = translated("//nas/a /mnt/a cifs credentials=/etc/odd.cred 0 0\n", Output::Text);
    assert_eq!(exit, Exit::Done, "{said}");
    assert!(said.contains("`username` on line 1 of /etc/odd.cred: "), "{said}");
    let (_, json, _) = translated("\n//nas/a /mnt/a cifs credentials=/etc/odd.cred 0 0\n", Output::Json);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["warnings"][0]["file"], &json["warnings"][0]["line"]), (&"/etc/fstab".into(), &2.into()));
}

#[test]
fn a_problem_of_a_server_is_one_of_its_line_or_unit() {
    let fstab = "//nas/a /mnt/a cifs guest 0 0\n//nas/b /mnt/b cifs credentials=~/.smb 0 0\n";
    let (exit, _, said) = translated(fstab, Output::Text);
    assert_eq!(exit, Exit::Usage);
    assert!(
        said.contains(
            "error: server.nas-2.credentials: the path of a credentials file is absolute\n--> /etc/fstab:2:1\n"
        ),
        "{said}"
    );
    let (_, json, _) = translated(fstab, Output::Json);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["problems"][0]["line"], 6, "of the configuration that is printed: {json}");
}

#[test]
fn a_problem_says_where_it_is_what_and_what_to_do() {
    let fstab = "//nas/films /mnt/films cifs guest 0 0\n//nas/new /mnt/films/new cifs guest 0 0\n";
    let (exit, json, _) = translated(fstab, Output::Json);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let problem = &json["problems"][0];
    assert_eq!(exit, Exit::Usage, "{json}");
    assert!(problem["line"].as_u64().unwrap() > 0 && problem["column"].as_u64().unwrap() > 0, "{problem}");
    assert!(["key", "what", "hint"].iter().all(|key| !problem[key].as_str().unwrap().is_empty()), "{problem}");
}

const FSTAB: &str = "UUID=1 / ext4 errors=remount-ro 0 1\n\
                     //nas/films\t/mnt/my\\040films cifs  guest,uid=1000,,_netdev 0 0\r\n\
                     # //nas/old /mnt/old cifs guest 0 0\n\
                     //nas/books /mnt/books smb3 guest,ro 0 0";

#[test]
fn what_is_imported_can_be_had_back_byte_for_byte() {
    let host = Host::new(FSTAB);
    let (shares, said) = host.import();
    let names: Vec<_> = shares.unwrap().into_iter().map(|share| share.name).collect();
    assert_eq!(names, ["my-films", "books"], "{said}");
    assert!(said.contains("etc/fstab: lines 2, 4 are comments now\n"), "{said}");
    let expected = FSTAB.replace("\n//nas", "\n#nasmount: //nas");
    assert_eq!(host.read("etc/fstab"), expected);
    let texts = nasmount::sys::config_dir::read_config(&host.places().roots).unwrap();
    let loaded = config::load(&texts.fragments, &texts.profiles).unwrap();
    assert_eq!(loaded.settings.shares.len(), 2);

    // once more, with a line that is new, on the server that is known already
    fs::write(host.path("etc/fstab"), expected.clone() + "\n//nas/music /mnt/music cifs guest 0 0\n").unwrap();
    let (shares, said) = host.import();
    assert_eq!(shares.unwrap(), [Share { name: "music".into(), mount_point: "/mnt/music".into() }], "{said}");
    assert!(!host.read("etc/nasmount/conf.d/fstab-2.toml").contains("[server."));

    assert_eq!(host.export(), "");
    assert_eq!(host.read("etc/fstab"), format!("{FSTAB}\n//nas/music /mnt/music cifs guest 0 0\n"));
    let files: Vec<_> = host.files().into_iter().map(|(path, _)| path).collect();
    assert_eq!(
        files,
        [
            "etc/fstab",
            "etc/nasmount/conf.d/fstab-2.toml.exported",
            "etc/nasmount/conf.d/fstab.toml.exported",
            "etc/nasmount/nasmount.toml"
        ]
    );
    assert!(host.import().0.is_some_and(|shares| shares.len() == 3), "and once more");
}

#[test]
fn a_password_leaves_fstab_for_files_that_only_root_can_read() {
    let fstab = "//nas/films /mnt/films cifs user=WORK\\bob,pass=\"a,b,c\",uid=1000 0 0\n";
    let host = Host::new(fstab);
    let (shares, said) = host.import();
    assert!(shares.is_some() && !said.contains("a,b,c"), "{said}");
    assert_eq!(host.read("etc/nasmount/nas.cred"), "domain=WORK\nusername=bob\npassword=a,b,c\n");
    let taken = "#nasmount: //nas/films /mnt/films cifs user=WORK\\bob,pass=***nasmount-1***,uid=1000 0 0\n";
    assert_eq!(host.read("etc/fstab"), taken);
    for (path, mode) in host.files() {
        assert!(mode & 0o077 == 0 || !host.read(&path).contains("a,b,c"), "{path} can be read by everybody");
    }
    assert_eq!(host.export(), "");
    assert_eq!(host.read("etc/fstab"), fstab);
}

#[test]
fn nothing_is_changed_if_anything_is_wrong() {
    let nested = "//nas/a /mnt/a cifs guest 0 0\n//nas/b /mnt/a/b cifs guest 0 0\n";
    let no_file = "//nas/a /mnt/a cifs credentials=/nowhere/nas.cred 0 0\n";
    for (fstab, why) in [(nested, "/mnt/a/b"), (no_file, "/nowhere/nas.cred")] {
        let host = Host::new(fstab);
        let (shares, said) = host.import();
        assert!(shares.is_none() && said.contains(why), "{said}");
        assert_eq!(host.read("etc/fstab"), fstab);
        assert!(!said.contains("nasmount login"), "there is no such server yet: {said}");
        assert_eq!(fstab == no_file, said.contains("create it with the lines `username=NAME`"), "{said}");
        assert_eq!(host.files(), [("etc/fstab".to_owned(), 0o644)]);
    }
}

#[test]
fn what_others_of_the_configuration_need_is_not_taken_away() {
    let host = Host::new("//nas/films /mnt/films cifs guest 0 0\n");
    assert!(host.import().0.is_some());
    let fstab = host.read("etc/fstab");
    let more = "[share.more]\nserver = \"nas\"\nsource = \"more\"\nmount_point = \"/mnt/more\"\n";
    fs::write(host.path("etc/nasmount/conf.d/more.toml"), more).unwrap();
    let mut err = Vec::new();
    assert!(!export_files(&host.places(), &mut err).unwrap());
    let said = String::from_utf8(err).unwrap();
    assert!(said.contains("nothing was changed") && said.contains("more.toml:2"), "{said}");
    assert_eq!(host.read("etc/fstab"), fstab);
}

#[test]
fn a_login_that_is_there_already_is_not_overwritten() {
    let host = Host::new("//nas/a /mnt/a cifs user=bob,password=hunter2 0 0\n");
    fs::create_dir(host.path("etc/nasmount")).unwrap();
    fs::write(host.path("etc/nasmount/nas.cred"), "username=carol\n").unwrap();
    let error = import_files(&host.places(), Colour::Never, &mut Vec::new()).unwrap_err();
    assert!(error.to_string().starts_with("nothing was changed: cannot write "), "{error}");
    assert_eq!(host.read("etc/nasmount/nas.cred"), "username=carol\n");
    assert!(host.read("etc/fstab").starts_with("//nas/a"));
}

#[test]
fn the_password_of_a_line_that_is_gone_is_kept() {
    let line = |name: &str| format!("//nas-{name}/a /mnt/{name} cifs user=bob,password=hunter2 0 0\n");
    let host = Host::new(&(line("a") + &line("b")));
    assert!(host.import().0.is_some());
    let left: String = host.read("etc/fstab").lines().skip(1).map(|line| line.to_owned() + "\n").collect();
    fs::write(host.path("etc/fstab"), &left).unwrap();
    let files = host.files();
    let refused = host.refused();
    assert!(refused.contains("nobody would mount share a: its line is not in "), "{refused}");
    assert_eq!((host.read("etc/fstab"), host.files()), (left, files));
    let toml = host.read("etc/nasmount/conf.d/fstab.toml");
    let (before, share) = toml.split_once("# line 1\n").unwrap();
    let (_, after) = share.split_once("# line 2\n").unwrap();
    fs::write(host.path("etc/nasmount/conf.d/fstab.toml"), before.to_owned() + after).unwrap();
    assert_eq!(host.export(), "");
    assert_eq!(host.read("etc/fstab"), line("b"));
    assert!(host.read("etc/nasmount/imported/fstab.json.exported").contains("hunter2"));
}

#[test]
fn a_line_whose_mark_was_edited_keeps_the_export_from_anything() {
    let host = Host::new("//nas/a /mnt/a cifs user=bob,password=hunter2 0 0\n//nas/b /mnt/b cifs guest 0 0\n");
    assert!(host.import().0.is_some());
    let taken = host.read("etc/fstab");
    for (mark, why) in [("#nasmount: //nas/a", "line 1 of "), ("#nasmount: //nas/b", "nobody would mount share b")] {
        fs::write(host.path("etc/fstab"), taken.replace(mark, &mark.replace('#', "# "))).unwrap();
        let files = host.files();
        let refused = host.refused();
        assert!(refused.contains(why), "{refused}");
        assert_eq!(host.files(), files);
    }
}

#[test]
fn somebody_s_own_comment_stays_one_and_is_named() {
    let host = Host::new("#nasmount: //old/x /mnt/x cifs guest 0 0\n//nas/b /mnt/b cifs guest 0 0\n");
    let before = host.read("etc/fstab");
    assert!(host.import().0.is_some());
    let said = host.export();
    assert!(said.contains("etc/fstab:1: stays a comment"), "{said}");
    assert_eq!(host.read("etc/fstab"), before);
}

#[test]
fn a_line_that_was_written_in_again_is_not_doubled() {
    let fstab = "//nas/a /mnt/a cifs guest,uid=5 0 0\n//nas/b /mnt/b cifs guest 0 0\n";
    let host = Host::new(fstab);
    assert!(host.import().0.is_some());
    let again = "//nas/a /mnt/a cifs guest,uid=5 0 0\n";
    fs::write(host.path("etc/fstab"), host.read("etc/fstab") + again).unwrap();
    let said = host.export();
    assert!(said.contains("etc/fstab:1: not given back, but taken out: line 3 mounts the same there\n"), "{said}");
    assert_eq!(host.read("etc/fstab"), "//nas/b /mnt/b cifs guest 0 0\n".to_owned() + again);
}

#[test]
fn that_an_outdated_login_comes_back_is_said() {
    let fstab = "//nas/a /mnt/a cifs user=bob,password=hunter2 0 0\n";
    let host = Host::new(fstab);
    assert!(host.import().0.is_some());
    fs::write(host.path("etc/nasmount/nas.cred"), "password=newer\nusername=bob\n").unwrap();
    let said = host.export();
    assert!(said.contains("etc/nasmount/nas.cred has another login now"), "{said}");
    assert!(!said.contains("newer") && !said.contains("hunter2"), "{said}");
    assert_eq!(host.read("etc/fstab"), fstab);
}

/// Units as `systemctl edit` and `enable` leave them: a login, a drop-in, an automount, links.
fn host_with_units() -> Host {
    let host = Host::new("//nas/books /mnt/books cifs guest 0 0\n");
    for directory in ["mnt-films.mount.d", "multi-user.target.wants", "player.service.requires"] {
        fs::create_dir_all(host.path(UNITS).join(directory)).unwrap();
    }
    for (name, text) in [
        (
            "mnt-films.mount",
            "# mine\r\n[Mount]\nWhat=//nas/films\nWhere=/mnt/films\nType=cifs\nOptions=user=bob,\\\n  pass=hunter2",
        ),
        ("mnt-films.mount.d/override.conf", "[Mount]\nTimeoutSec=5\n"),
        ("mnt-films.automount", "[Automount]\nWhere=/mnt/films\n"),
        ("mnt-other.mount", "[Mount]\nWhat=/dev/sdb1\nWhere=/mnt/other\n"),
    ] {
        fs::write(host.path(UNITS).join(name), text).unwrap();
    }
    fs::set_permissions(host.path(UNITS).join("mnt-films.mount"), fs::Permissions::from_mode(0o640)).unwrap();
    for (name, target) in [
        ("multi-user.target.wants/mnt-films.automount", "/etc/systemd/system/mnt-films.automount"),
        ("player.service.requires/mnt-films.mount", "../mnt-films.mount"),
        ("multi-user.target.wants/mnt-other.mount", "../mnt-other.mount"),
    ] {
        std::os::unix::fs::symlink(target, host.path(UNITS).join(name)).unwrap();
    }
    host
}

#[test]
fn units_leave_systemd_and_can_be_had_back_byte_for_byte() {
    let host = host_with_units();
    let contents = |host: &Host| -> Vec<(String, u32, Vec<u8>)> {
        let files = host.files().into_iter().filter(|(path, _)| path.starts_with(UNITS) || path == "etc/fstab");
        files.map(|(path, mode)| (path.clone(), mode, fs::read(host.path(&path)).unwrap_or_default())).collect()
    };
    let before = contents(&host);
    let (shares, said) = host.import();
    let names: Vec<_> = shares.unwrap().into_iter().map(|share| share.name).collect();
    assert_eq!(names, ["books", "films"], "{said}");
    let of_units: Vec<_> =
        host.files().into_iter().map(|(path, _)| path).filter(|path| path.starts_with(UNITS)).collect();
    let others = ["mnt-other.mount", "multi-user.target.wants/mnt-other.mount -> ../mnt-other.mount"];
    assert_eq!(of_units, others.map(|name| format!("{UNITS}/{name}")));
    for (path, mode) in host.files().into_iter().filter(|(path, _)| !path.contains(" -> ")) {
        assert!(mode & 0o077 == 0 || !host.read(&path).contains("hunter2"), "{path} can be read by everybody");
    }
    assert!(!said.contains("hunter2") && said.contains("mnt-films.mount: removed; `nasmount export-fstab`"), "{said}");
    assert_eq!(host.read("etc/nasmount/nas-2.cred"), "username=bob\npassword=hunter2\n");

    assert_eq!(host.export(), "");
    assert_eq!(contents(&host), before);
    assert!(host.import().0.is_some_and(|shares| shares.len() == 2), "and once more");
}

#[test]
fn a_host_may_have_units_and_no_fstab() {
    let host = host_with_units();
    fs::remove_file(host.path("etc/fstab")).unwrap();
    let before: Vec<_> = host.files();
    assert!(host.import().0.is_some_and(|shares| shares.len() == 1));
    assert!(host.read("etc/nasmount/conf.d/fstab.toml").starts_with("# These were units in "));
    assert_eq!(host.export(), "");
    let after = host.files().into_iter().filter(|(path, _)| !path.starts_with("etc/nasmount"));
    assert_eq!(after.collect::<Vec<_>>(), before);
}

#[test]
fn of_units_and_lines_all_are_taken_over_or_none() {
    let host = host_with_units();
    fs::write(host.path("etc/fstab"), "//nas/films /mnt/films cifs guest 0 0\n").unwrap(); // the unit's mount point
    let before = host.files();
    let (shares, said) = host.import();
    assert!(shares.is_none() && said.contains("/mnt/films as well"), "{said}");
    assert_eq!(host.files(), before);
}

#[test]
fn a_unit_of_the_same_name_that_somebody_wrote_meanwhile_is_not_overwritten() {
    let host = host_with_units();
    assert!(host.import().0.is_some());
    fs::write(host.path(UNITS).join("mnt-films.mount"), "[Mount]\n").unwrap();
    let before = host.files();
    let error = export_files(&host.places(), &mut Vec::new()).unwrap_err();
    assert!(format!("{error:#}").contains("mnt-films.mount: File exists"), "{error:#}");
    assert_eq!(host.files(), before);
}

/// As one that is killed leaves it: the configuration is written, and the line and the unit are there as they were.
#[test]
fn an_import_that_was_killed_is_finished_and_nothing_is_written_twice() {
    let host = host_with_units();
    let fstab =
        "# mine\n//nas/books /mnt/books cifs user=bob,pass=hunter2,ro 0 0 \r\n//nas/music /mnt/music cifs guest 0 0\n";
    fs::write(host.path("etc/fstab"), fstab).unwrap();
    let unit = host.path(UNITS).join("mnt-films.mount.d/override.conf");
    let before = fs::read(&unit).unwrap();
    assert!(host.import().0.is_some_and(|shares| shares.len() == 3));
    let (whole, files) = (host.read("etc/fstab"), host.files());

    fs::write(host.path("etc/fstab"), fstab.replacen("//nas/music", "#nasmount: //nas/music", 1)).unwrap();
    fs::write(&unit, before).unwrap();
    let left = host.dry_run();
    let drop_in = unit.to_string_lossy();
    assert_eq!(left["unfinished"], serde_json::json!({ "lines": [2], "files": [drop_in] }));
    assert_eq!((left["import"]["toml"].as_str(), left.to_string().contains("hunter2")), (Some(""), false));
    let (shares, said) = host.import();
    let names: Vec<_> = shares.unwrap().into_iter().map(|share| share.name).collect();
    assert_eq!(names, ["books", "films", "music"], "their mounts were not taken over either");
    assert!(said.contains("etc/fstab: line 2 would mount what is a share"), "{said}");
    assert!(said.contains("etc/fstab: line 2 is a comment now") && !said.contains("hunter2"), "{said}");
    assert_eq!((host.read("etc/fstab"), host.files()), (whole, files));
    assert_eq!(host.import().0.map(|shares| shares.len()), Some(0), "nothing is left");

    assert_eq!(host.export(), "");
    assert_eq!(host.read("etc/fstab"), fstab);
}

#[test]
fn a_line_is_unfinished_only_as_it_was_and_with_its_share() {
    let line = "//nas/a /mnt/a cifs user=bob,password=hunter2 0 0\n";
    let host = Host::new(line);
    assert!(host.import().0.is_some());
    fs::write(host.path("etc/fstab"), line.replace("hunter2", "hunter2!")).unwrap();
    let (shares, said) = host.import();
    assert_eq!(shares, Some(Vec::new()), "{said}");
    assert!(said.contains("line 1 is share a already, take the line out: `sed -i '1s/"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
    fs::write(host.path("etc/fstab"), line).unwrap();
    let toml = host.read("etc/nasmount/conf.d/fstab.toml");
    fs::write(host.path("etc/nasmount/conf.d/fstab.toml"), toml.split("# line").next().unwrap()).unwrap();
    assert_eq!(host.dry_run()["unfinished"]["lines"], serde_json::json!([]));
    assert_eq!(host.import().0.map(|shares| shares.len()), Some(1), "it is imported anew");
    assert!(host.read("etc/nasmount/conf.d/fstab-2.toml").contains("mount_point = \"/mnt/a\""));
}
