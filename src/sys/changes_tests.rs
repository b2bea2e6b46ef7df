//! Tests of changes to files that are all made, or none.
#![expect(clippy::unwrap_used, reason = "tests")]
use super::*;

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn listed(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn bytes(text: &str) -> SecretSlice<u8> {
    text.as_bytes().to_vec().into()
}

fn create(path: PathBuf, text: &str) -> Change {
    Change::Create { path, text: text.into(), mode: 0o600 }
}

#[test]
fn all_are_made_and_undone() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    fs::write(root.join("fstab"), "old").unwrap();
    fs::set_permissions(root.join("fstab"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::write(root.join("a"), "a").unwrap();
    fs::write(root.join("c"), "c").unwrap();
    std::os::unix::fs::symlink("../c", root.join("d")).unwrap();
    let done = make(&[
        Change::Unlink { path: root.join("d"), target: "../c".into() },
        Change::Link { path: root.join("new/e"), target: "/nowhere".into() },
        create(root.join("new/conf.d/x"), "x"),
        Change::Rename { path: root.join("a"), to: root.join("b") },
        Change::Remove { path: root.join("c"), before: "c".into() },
        Change::Replace { path: root.join("fstab"), before: bytes("old"), text: bytes("new") },
    ])
    .unwrap();
    assert_eq!((text(&root.join("fstab")), mode(&root.join("fstab"))), ("new".into(), 0o640));
    assert_eq!((text(&root.join("new/conf.d/x")), mode(&root.join("new/conf.d/x"))), ("x".into(), 0o600));
    assert_eq!(mode(&root.join("new/conf.d")), 0o755);
    assert_eq!(listed(root), ["b", "fstab", "new"]);
    assert_eq!(fs::read_link(root.join("new/e")).unwrap(), Path::new("/nowhere"));
    done.undo().unwrap();
    assert_eq!((text(&root.join("fstab")), mode(&root.join("fstab"))), ("old".into(), 0o640));
    assert_eq!(listed(root), ["a", "c", "d", "fstab"]);
    assert_eq!(fs::read_link(root.join("d")).unwrap(), Path::new("../c"));
    assert_eq!(text(&root.join("c")), "c");
}

#[test]
fn what_is_replaced_keeps_what_it_is_besides_its_text() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("fstab");
    fs::write(&path, "old").unwrap();
    let file = fs::File::open(&path).unwrap();
    let set = rustix::fs::fsetxattr(&file, "user.origin", b"me", rustix::fs::XattrFlags::empty());
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&path, Some(1), Some(4711)).unwrap();
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
    let is = |path: &Path| {
        let metadata = fs::metadata(path).unwrap();
        (metadata.uid(), metadata.gid(), metadata.mode())
    };
    let before = is(&path);
    let done = make(&[Change::Replace { path: path.clone(), before: bytes("old"), text: bytes("new") }]).unwrap();
    let attribute = |path: &Path| {
        let mut value = [0; 2];
        rustix::fs::getxattr(path, "user.origin", &mut value[..]).map(|_| value)
    };
    assert_eq!((text(&path), is(&path)), ("new".into(), before));
    assert_eq!(attribute(&path).is_ok_and(|value| value == *b"me"), set.is_ok());
    done.undo().unwrap();
    assert_eq!((text(&path), is(&path)), ("old".into(), before));
    assert_eq!(attribute(&path).is_ok_and(|value| value == *b"me"), set.is_ok());
}

#[test]
fn nothing_is_left_of_what_fails() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    for name in ["fstab", "taken", "there"] {
        fs::write(root.join(name), "other").unwrap();
    }
    std::os::unix::fs::symlink("fstab", root.join("link")).unwrap();
    let replace =
        |name: &str, before: &str| Change::Replace { path: root.join(name), before: bytes(before), text: bytes("new") };
    for (change, why) in [
        (replace("fstab", "old"), "changed it in this moment"),
        (replace("link", "other"), "it is a link"),
        (replace("none", "old"), "No such file"),
        (create(root.join("there"), "mine"), "File exists"),
        (Change::Rename { path: root.join("fstab"), to: root.join("taken") }, "File exists"),
        (Change::Remove { path: root.join("fstab"), before: "old".into() }, "changed it in this moment"),
        (Change::Unlink { path: root.join("link"), target: "taken".into() }, "changed it in this moment"),
        (Change::Link { path: root.join("link"), target: "taken".into() }, "File exists"),
    ] {
        let error = make(&[create(root.join("first/x"), "x"), change]).unwrap_err();
        assert!(error.source.to_string().contains(why), "{error}: {}", error.source);
        assert_eq!(listed(root), ["fstab", "link", "taken", "there"]);
        assert_eq!(text(&root.join("fstab")), "other");
    }
}

#[test]
fn what_a_killed_run_left_behind_is_replaced_and_a_new_file_is_never_a_part_of_itself() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    fs::write(root.join(".x.cred.nasmount"), "").unwrap();
    fs::write(root.join(".fstab.nasmount"), "half").unwrap();
    fs::write(root.join("fstab"), "old").unwrap();
    let fstab = Change::Replace { path: root.join("fstab"), before: bytes("old"), text: bytes("new") };
    let _ = make(&[create(root.join("x.cred"), "whole"), fstab]).unwrap();
    assert_eq!(listed(root), ["fstab", "x.cred"]);
    assert_eq!((text(&root.join("x.cred")), mode(&root.join("x.cred"))), ("whole".into(), 0o600));
    assert_eq!(fs::metadata(root.join("x.cred")).unwrap().nlink(), 1);
    // a name that is written to would go through the link; one that is given to a whole file does not
    std::os::unix::fs::symlink(root.join("nowhere"), root.join("dangling")).unwrap();
    let dangling = [create(root.join("dangling"), "x")];
    for refused in [are_possible(&dangling).unwrap_err(), make(&dangling).unwrap_err()] {
        assert_eq!(refused.source.kind(), io::ErrorKind::AlreadyExists);
        assert!(refused.hint().is_some_and(|hint| hint.contains("move it away")));
    }
    assert_eq!(listed(root), ["dangling", "fstab", "x.cred"], "no temporary is left by what fails");
}

#[test]
fn what_could_not_be_made_is_seen_before_anything_is() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    fs::write(root.join("fstab"), "old").unwrap();
    std::os::unix::fs::symlink("fstab", root.join("link")).unwrap();
    let replace = |path: PathBuf| Change::Replace { path, before: bytes("old"), text: bytes("new") };
    assert!(are_possible(&[create(root.join("new"), "x"), create(root.join("fstab"), "old")]).is_ok());
    for (change, why, hint) in [
        (replace(root.join("link")), "it is a link", "in the link's place"),
        (create(root.join("fstab"), "x"), "File exists", "move it away"),
        (replace("/proc".into()), "resource busy", "`umount` it"), // what is mounted there is no file, but mounted
    ] {
        let refused = are_possible(&[change]).unwrap_err();
        assert!(refused.source.to_string().contains(why), "{}", refused.source);
        assert!(refused.hint().is_some_and(|it| it.contains(hint)), "{:?}", refused.hint());
        assert_eq!(refused.is_about_a_link(), hint.contains("link"));
    }
    assert_eq!(listed(root), ["fstab", "link"]);
}

#[test]
fn what_has_the_immutable_flag_and_what_lies_in_it_is_kept() {
    let set = |path: &Path, flags: rustix::fs::IFlags| rustix::fs::ioctl_setflags(fs::File::open(path).unwrap(), flags);
    let root = tempfile::tempdir().unwrap();
    let (directory, file) = (root.path().join("etc"), root.path().join("etc/fstab"));
    fs::create_dir(&directory).unwrap();
    fs::write(&file, "old").unwrap();
    let replace = || Change::Replace { path: file.clone(), before: bytes("old"), text: bytes("new") };
    let rename = || Change::Rename { path: file.clone(), to: directory.join("other") };
    for (kept, changes, hint) in [
        (&file, vec![replace(), rename()], "it has the immutable or append-only flag"),
        (
            &directory,
            vec![replace(), rename(), create(directory.join("new/x"), "x")],
            "its directory has the immutable or append-only flag",
        ),
    ] {
        assert!(are_possible(&changes).is_ok());
        let flags = rustix::fs::ioctl_getflags(fs::File::open(kept).unwrap()).unwrap();
        set(kept, flags | rustix::fs::IFlags::IMMUTABLE).unwrap();
        let refused: Vec<_> = changes
            .iter()
            .flat_map(|change| {
                [are_possible(std::slice::from_ref(change)).err(), make(std::slice::from_ref(change)).err()]
            })
            .collect();
        set(kept, flags).unwrap();
        for refused in refused {
            let said = refused.as_ref().and_then(ChangeError::hint);
            assert!(said.is_some_and(|said| said.starts_with(hint)), "{said:?}");
        }
    }
    assert_eq!((text(&file).as_str(), listed(&directory)), ("old", vec!["fstab".to_owned()]));
}

#[test]
fn a_file_becomes_private_and_a_link_does_not() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("tower.cred");
    fs::write(&path, "username=bob\n").unwrap();
    for (before, after) in [(0o644, 0o600), (0o777, 0o600), (0o600, 0o600), (0o400, 0o400)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(before)).unwrap();
        make_private(&path).unwrap();
        assert_eq!(mode(&path), after, "{before:o}");
    }
    let link = root.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(make_private(&link).is_err());
}

#[test]
fn what_is_there_already_is_created_and_not_undone() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("tower.cred");
    fs::write(&path, "username=bob\n").unwrap();
    make(&[create(path.clone(), "username=bob\n")]).unwrap().undo().unwrap();
    assert_eq!(text(&path), "username=bob\n");
}

#[test]
fn two_are_not_at_work_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let held = alone(directory.path()).unwrap();
    assert!(held.is_some());
    assert!(alone(directory.path()).unwrap().is_none());
    drop(held);
    assert!(alone(directory.path()).unwrap().is_some());
    assert!(alone(&directory.path().join("nowhere")).is_err());
}
