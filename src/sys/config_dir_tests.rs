#![expect(clippy::unwrap_used, reason = "tests")]
//! In temporary directories.

use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

fn write(root: &Path, path: &str, text: &str) -> PathBuf {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    path
}

fn names(texts: &[SourceText]) -> Vec<String> {
    texts.iter().map(|text| text.path.file_name().unwrap().to_string_lossy().into_owned()).collect()
}

#[test]
fn files_are_found_in_their_order() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    write(root, "etc/nasmount/nasmount.toml", "main");
    write(root, "etc/nasmount/conf.d/20-b.toml", "b");
    write(root, "etc/nasmount/conf.d/10-a.toml", "a");
    write(root, "etc/nasmount/conf.d/.30-hidden.toml", "");
    write(root, "etc/nasmount/conf.d/readme.txt", "");
    symlink("/dev/null", root.join("etc/nasmount/conf.d/15-masked.toml")).unwrap();
    write(root, "etc/nasmount/profiles/media.toml", "mine");
    write(root, "usr/share/nasmount/profiles/media.toml", "theirs");
    write(root, "extra/media.toml", "extra");
    let roots = ConfigRoots::under(root, None, Some(root.join("extra")));
    let texts = read_config(&roots).unwrap();
    assert_eq!(names(&texts.fragments), ["nasmount.toml", "10-a.toml", "20-b.toml"]);
    let found: Vec<_> = texts.profiles[4..].iter().map(|profile| profile.text.as_str()).collect();
    assert_eq!(found, ["theirs", "extra", "mine"]);
}

#[test]
fn another_main_file_brings_its_own_drop_ins() {
    let root = tempfile::tempdir().unwrap();
    let main = write(root.path(), "here/my.toml", "");
    write(root.path(), "here/conf.d/1.toml", "");
    write(root.path(), "etc/nasmount/conf.d/2.toml", "");
    let texts = read_config(&ConfigRoots::under(root.path(), Some(&main), None)).unwrap();
    assert_eq!(names(&texts.fragments), ["my.toml", "1.toml"]);
}

#[test]
fn what_anybody_may_change_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let roots = ConfigRoots::under(root.path(), None, None);
    write(root.path(), "etc/nasmount/nasmount.toml", "");
    let drop_in = write(root.path(), "etc/nasmount/conf.d/1.toml", "");
    let directory = roots.main.parent().unwrap().to_owned();
    for open in [&roots.main, &drop_in, &roots.drop_ins, &directory] {
        let mode = |mode| fs::set_permissions(open, fs::Permissions::from_mode(mode)).unwrap();
        mode(0o777);
        let error = read_config(&roots).unwrap_err();
        assert!(matches!(&error, ReadError::OpenToAll { path, .. } if path == open), "{error}");
        assert_eq!(error.hint(), format!("run `chmod go-w {}`", open.display()));
        mode(0o757);
        assert_eq!(read_config(&roots).unwrap_err().hint(), format!("run `chmod o-w {}`", open.display()));
        mode(0o775);
        assert!(read_config(&roots).is_ok());
    }
}

#[test]
fn one_profile_that_cannot_be_read_hides_no_other() {
    let root = tempfile::tempdir().unwrap();
    let roots = ConfigRoots::under(root.path(), None, None);
    write(root.path(), "etc/nasmount/profiles/z.toml", "");
    fs::create_dir(root.path().join("etc/nasmount/profiles/d.toml")).unwrap();
    let (profiles, errors) = read_profiles_in_part(&roots);
    assert_eq!(profiles.len(), shipped_profiles().len() + 1);
    assert!(matches!(errors.as_slice(), [ReadError::NotAFile { path }] if path.ends_with("d.toml")), "{errors:?}");
    assert!(read_profiles(&roots).is_err());
}

#[test]
fn what_somebody_else_may_change_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let file = write(root.path(), "nasmount.toml", "");
    let mode = |mode| {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        fs::metadata(&file).unwrap()
    };
    let owner = mode(0o644).uid();
    refuse_others(&file, &mode(0o664), owner).unwrap();
    if owner != 0 {
        let error = refuse_others(&file, &mode(0o644), 0).unwrap_err();
        assert_eq!(error.hint(), format!("run `chown root {}`", file.display()));
        return;
    }
    std::os::unix::fs::chown(&file, None, Some(4)).unwrap();
    refuse_others(&file, &mode(0o644), 0).unwrap();
    let error = refuse_others(&file, &mode(0o664), 0).unwrap_err();
    assert!(matches!(error, ReadError::OpenToGroup { group: 4, .. }), "{error}");
    assert_eq!(error.hint(), format!("run `chmod g-w {}`", file.display()));
    std::os::unix::fs::chown(&file, Some(1), None).unwrap();
    refuse_others(&file, &mode(0o664), 1).unwrap();
    for user in [0, 2] {
        let error = refuse_others(&file, &mode(0o644), user).unwrap_err();
        assert_eq!(error.hint(), format!("run `chown root {}`", file.display()));
    }
}

/// Only root can give files away.
#[test]
fn whatever_is_read_has_to_be_roots() {
    let root = tempfile::tempdir().unwrap();
    let roots = ConfigRoots::under(root.path(), None, None);
    if roots.user != 0 {
        return;
    }
    let main = write(root.path(), "etc/nasmount/nasmount.toml", "");
    let drop_in = write(root.path(), "etc/nasmount/conf.d/1.toml", "");
    let profile = write(root.path(), "etc/nasmount/profiles/x.toml", "");
    let directories = [&main, &drop_in, &profile].map(|file| file.parent().unwrap().to_owned());
    for path in [main, drop_in, profile].iter().chain(&directories) {
        std::os::unix::fs::chown(path, Some(1), None).unwrap();
        let error = read_config(&roots).unwrap_err();
        assert!(matches!(&error, ReadError::NotOwnedByRoot { path: of, owner: 1 } if of == path), "{error}");
        read_config(&ConfigRoots { user: 1, ..roots.clone() }).unwrap();
        std::os::unix::fs::chown(path, Some(0), None).unwrap();
    }
    read_config(&roots).unwrap();
}

#[test]
fn a_name_cannot_write_on_the_terminal() {
    let error = ReadError::NotText { path: "/etc/a\n\u{1b}[31mb.toml".into(), line: 3, column: 1 };
    assert_eq!(error.to_string(), r"cannot read /etc/a\n\u001b[31mb.toml: line 3 is not UTF-8 text");
}

#[test]
fn what_cannot_be_read_is_named() {
    let root = tempfile::tempdir().unwrap();
    let roots = ConfigRoots::under(root.path(), None, None);
    let error = read_config(&roots).unwrap_err();
    assert!(matches!(error, ReadError::NoConfiguration { .. }));
    assert!(error.hint().contains("--config"));
    fs::create_dir_all(&roots.main).unwrap();
    assert!(matches!(read_config(&roots).unwrap_err(), ReadError::NotAFile { .. }));
    fs::remove_dir(&roots.main).unwrap();
    fs::write(&roots.main, [0xff, 0xfe]).unwrap();
    assert!(matches!(read_config(&roots).unwrap_err(), ReadError::NotText { .. }));
    fs::write(&roots.main, vec![b'#'; 2 << 20]).unwrap();
    assert!(matches!(read_config(&roots).unwrap_err(), ReadError::TooLarge { .. }));
    fs::remove_file(&roots.main).unwrap();
    let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU);
    rustix::fs::mknodat(rustix::fs::CWD, &roots.main, kind, mode, 0).unwrap();
    assert!(matches!(read_config(&roots).unwrap_err(), ReadError::NotAFile { .. }));
}

#[test]
fn credentials_are_for_root_only() {
    let root = tempfile::tempdir().unwrap();
    let path = write(root.path(), "tower.cred", "username=bob\npassword=hunter2\n");
    let owner = fs::metadata(&path).unwrap().uid();
    let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o600);
    check_credentials_of(&path, owner).unwrap();
    mode(0o400);
    check_credentials_of(&path, owner).unwrap();
    for open in [0o640, 0o604, 0o620, 0o601] {
        mode(open);
        let error = check_credentials_of(&path, owner).unwrap_err();
        assert!(error.to_string().contains(&format!("{open:04o}")), "{error}");
        assert!(error.help().contains("chmod 600"));
    }
    mode(0o600);
    assert!(check_credentials_of(&path, owner + 1).unwrap_err().help().contains("chown root:root"));
    let link = root.path().join("link");
    symlink(&path, &link).unwrap();
    assert!(matches!(check_credentials_of(&link, owner), Err(CredentialsFileError::NotAFile { .. })));
    assert!(matches!(check_credentials_of(root.path(), owner), Err(CredentialsFileError::NotAFile { .. })));
    let missing = check_credentials_of(&root.path().join("none"), owner).unwrap_err();
    assert!(missing.help().contains("chmod 600"));
}

#[test]
fn a_configuration_beside_the_caller_has_an_absolute_path() {
    let roots = ConfigRoots::under(Path::new("/"), Some(Path::new("none.toml")), None).absolute();
    let here = std::env::current_dir().unwrap();
    assert_eq!((roots.main, roots.drop_ins), (here.join("none.toml"), here.join("conf.d")));
}
