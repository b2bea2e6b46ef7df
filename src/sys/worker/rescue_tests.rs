#![expect(clippy::unwrap_used, reason = "tests")]
//! In temporary directories: the kernel's side of a share is the VM's to show.

use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;

use super::content::{CHUNK, CHUNKS_PER_STEP};
use super::*;

/// Two directories, and what is said while things go from one to the other.
struct Scene {
    directory: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        ["beside", "share"].iter().for_each(|name| fs::create_dir(directory.path().join(name)).unwrap());
        Self { directory }
    }

    fn directory(&self, path: &str) -> OwnedFd {
        fs::File::open(self.path(path)).unwrap().into()
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.path(path)).ok()
    }

    fn open(&self, path: &str) -> OwnedFd {
        fs::File::open(self.path(path)).unwrap().into()
    }

    fn go(&self, way: Way, doing: Doing) -> (Vec<Said>, Result<(), Failed>) {
        let mut all = Vec::new();
        let mut say = |said| {
            all.push(said);
            Ok(())
        };
        let temporary = temporary("host");
        let mut mover = Mover { way, doing, temporary, at: PathBuf::new(), say: &mut say };
        let ended = mover.directory(&self.open("beside"), Some(&self.open("share")), 0);
        all.retain(|said| *said != Said::GoingOn);
        (all, ended)
    }

    /// Everything in a directory, as paths.
    fn tree(&self, under: &str) -> Vec<String> {
        let mut found = Found::default();
        count(&self.open(under), &mut PathBuf::new(), 0, &mut found).unwrap();
        found.names
    }
}

fn left(said: &Said) -> (&str, &str) {
    let Said::Left(Left { path, why }) = said else { panic!("{said:?}") };
    (path, why)
}

fn moved(bytes: u64) -> Said {
    Said::Moved { files: 1, bytes }
}

#[test]
fn files_are_merged_and_none_is_overwritten() {
    for way in [Way::Merge, Way::Copy, Way::Rename] {
        let scene = Scene::new();
        scene.write("beside/films/new", "new");
        scene.write("beside/films/same", "equal");
        scene.write("beside/films/other", "mine!");
        scene.write("share/films/same", "equal");
        scene.write("share/films/other", "yours");
        scene.write("share/films/theirs", "theirs");
        let (said, ended) = scene.go(way, Doing::Move);
        ended.unwrap();
        assert_eq!(said[0], moved(3), "{way:?}");
        assert_eq!(left(&said[1]), ("films/other", "something else has that name there"));
        assert_eq!(said[2..], [Said::Same]);
        assert_eq!(scene.tree("share"), ["films/new", "films/other", "films/same", "films/theirs"]);
        assert_eq!(scene.read("share/films/other").unwrap(), "yours");
        assert_eq!(scene.tree("beside"), ["films/other"]);
        fs::remove_file(scene.path("share/films/other")).unwrap();
        let (said, _) = scene.go(way, Doing::Move);
        assert_eq!(said, [moved(5)], "again: {way:?}");
        assert_eq!(fs::read_dir(scene.path("beside")).unwrap().count(), 0, "{way:?}");
    }
}

#[test]
fn a_dry_run_says_the_same_and_changes_nothing() {
    for way in [Way::Merge, Way::Rename] {
        let scene = Scene::new();
        scene.write("beside/a/new", "new");
        scene.write("beside/b/same", "equal");
        scene.write("beside/b/other", "mine!");
        scene.write("share/b/same", "equal");
        scene.write("share/b/other", "yours");
        let before = (scene.tree("beside"), scene.tree("share"));
        let (looked, _) = scene.go(way, Doing::Look);
        assert_eq!((scene.tree("beside"), scene.tree("share")), before);
        let (said, _) = scene.go(way, Doing::Move);
        assert_eq!(looked, said, "{way:?}");
    }
}

#[test]
fn a_large_file_is_copied_whole_with_its_time() {
    let scene = Scene::new();
    let content = "0123456789abcdef".repeat((CHUNK * CHUNKS_PER_STEP + 5000) / 16);
    scene.write("beside/film", &content);
    let file = fs::File::options().write(true).open(scene.path("beside/film")).unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    file.set_modified(time).unwrap();
    let (said, _) = scene.go(Way::Merge, Doing::Move);
    assert_eq!(left(&said[0]).1, "a process has it open for writing; stop that first");
    drop(file);
    let (said, _) = scene.go(Way::Merge, Doing::Move);
    assert_eq!(said, [moved(content.len() as u64)]);
    assert_eq!(scene.read("share/film").unwrap(), content);
    assert_eq!(fs::metadata(scene.path("share/film")).unwrap().modified().unwrap(), time);
}

#[test]
fn links_and_what_is_no_file() {
    let scene = Scene::new();
    symlink("../elsewhere", scene.path("beside/link")).unwrap();
    symlink("here", scene.path("beside/same")).unwrap();
    symlink("here", scene.path("share/same")).unwrap();
    symlink("one", scene.path("beside/two")).unwrap();
    symlink("two", scene.path("share/two")).unwrap();
    let _socket = UnixListener::bind(scene.path("beside/socket")).unwrap();
    scene.write("beside/twin", "twin");
    fs::hard_link(scene.path("beside/twin"), scene.path("beside/twin2")).unwrap();
    scene.write("beside/dir/x", "x");
    scene.write("share/dir", "a file");
    scene.write("outside/x", "x");
    scene.write("beside/trap/x", "y");
    symlink("../outside", scene.path("share/trap")).unwrap();
    let (said, ended) = scene.go(Way::Merge, Doing::Move);
    ended.unwrap();
    assert_eq!(left(&said[0]), ("dir", "something else has that name there"));
    assert_eq!(said[1..3], [moved(12), Said::Same]);
    assert_eq!(left(&said[3]), ("socket", "it is a socket, which is not copied"));
    assert_eq!(left(&said[4]), ("trap", "something else has that name there"), "a link is not followed");
    assert!(matches!(&said[5], Said::Without(Left { path, .. }) if path == "twin"), "{:?}", said[5]);
    assert_eq!(said[6..8], [moved(4), moved(4)]);
    assert_eq!(left(&said[8]).0, "two");
    assert_eq!(said.len(), 9);
    assert_eq!(scene.read("share/twin2").unwrap(), "twin");
    assert_eq!(fs::read_link(scene.path("share/link")).unwrap(), Path::new("../elsewhere"));
    assert_eq!(scene.read("outside/x").unwrap(), "x");
}

#[test]
fn what_an_ended_run_left_is_cleared_and_the_name_is_kept_free() {
    let scene = Scene::new();
    let name = temporary("host").into_string().unwrap();
    scene.write("beside/film", "film");
    scene.write(&format!("share/{name}"), "half");
    let (said, _) = scene.go(Way::Merge, Doing::Move);
    assert_eq!(said, [moved(4)]);
    assert_eq!(scene.tree("share"), ["film"]);
    scene.write(&format!("beside/{name}"), "whole");
    let (said, _) = scene.go(Way::Merge, Doing::Move);
    assert_eq!(left(&said[0]).1, "nasmount uses that name itself");
    assert_eq!(scene.read(&format!("beside/{name}")).unwrap(), "whole");
    assert_eq!(temporary("n/a\0s-1\n").to_str().unwrap(), ".nasmount-rescue-nas-1.part");
}

#[test]
fn a_link_in_the_place_of_the_directory_to_move_to_is_called_one() {
    let scene = Scene::new();
    symlink(scene.path("share"), scene.path("link")).unwrap();
    assert!(open_directory(scene.open("."), c"link").is_err());
    assert!(is_link(&scene.open("."), c"link"));
    assert!(!is_link(&scene.open("."), c"share") && !is_link(&scene.open("."), c"none"));
}

#[test]
fn what_is_moved_aside_keeps_its_mode() {
    for way in [Way::Copy, Way::Rename] {
        let scene = Scene::new();
        scene.write("beside/private/key", "key");
        for (path, mode) in [("beside/private/key", 0o640), ("beside/private", 0o710)] {
            fs::set_permissions(scene.path(path), fs::Permissions::from_mode(mode)).unwrap();
        }
        scene.go(way, Doing::Move).1.unwrap();
        let mode = |path| fs::metadata(scene.path(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("share/private/key"), mode("share/private")), (0o640, 0o710), "{way:?}");
    }
}

#[test]
fn holes_stay_holes() {
    const LENGTH: u64 = 40 << 20;
    for way in [Way::Copy, Way::Merge] {
        let scene = Scene::new();
        let file = fs::File::create(scene.path("beside/disk.img")).unwrap();
        file.set_len(LENGTH).unwrap();
        for (at, text) in [(0, "first"), (20 << 20, "middle"), (30 << 20, "more")] {
            file.write_all_at(text.as_bytes(), at).unwrap();
        }
        drop(file);
        let on_disk = |path: &str| fs::metadata(scene.path(path)).unwrap().blocks() * 512;
        let before = on_disk("beside/disk.img");
        let (said, ended) = scene.go(way, Doing::Move);
        ended.unwrap();
        assert_eq!(said, [moved(LENGTH)], "{way:?}");
        let copy = fs::File::open(scene.path("share/disk.img")).unwrap();
        let mut middle = [0; 8];
        copy.read_exact_at(&mut middle, (20 << 20) - 1).unwrap();
        assert_eq!((copy.metadata().unwrap().len(), &middle), (LENGTH, b"\0middle\0"));
        assert!(on_disk("share/disk.img") <= before + (64 << 10), "{way:?}: {before}, {}", on_disk("share/disk.img"));
    }
}

#[test]
fn what_differs_in_a_hole_is_not_the_same() {
    for (one, other, same) in
        [("\0\0", "\0\0", true), ("x\0", "\0\0", false), ("\0\0", "x\0", false), ("\0\0", "\0", false)]
    {
        let scene = Scene::new();
        for (path, text) in [("beside/a", one), ("share/a", other)] {
            let file = fs::File::create(scene.path(path)).unwrap();
            file.write_all_at(text.as_bytes(), 5 << 20).unwrap();
        }
        let (said, _) = scene.go(Way::Merge, Doing::Move);
        assert_eq!(said == [Said::Same], same, "{one:?} {other:?}: {said:?}");
        assert_eq!(scene.path("beside/a").exists(), !same);
    }
}

/// In a mount namespace that ends with the thread; only root may make one. ramfs knows no extended attributes.
#[test]
fn extended_attributes_and_groups_are_kept_or_named() {
    const NAME: &str = "user.comment";
    std::thread::spawn(|| {
        for (way, fstype) in
            [(Way::Copy, None), (Way::Merge, None), (Way::Copy, Some("ramfs")), (Way::Merge, Some("ramfs"))]
        {
            let is_root = rustix::process::geteuid().is_root();
            let scene = Scene::new();
            scene.write("beside/old/film", "film");
            let film = scene.open("beside/old/film");
            let set = rustix::fs::fsetxattr(&film, NAME, b"seen", rustix::fs::XattrFlags::empty());
            if set.is_err() || fstype.is_some() && !is_root {
                return; // not here
            }
            if is_root {
                std::os::unix::fs::chown(scene.path("beside/old/film"), None, Some(4711)).unwrap();
            }
            if let Some(fstype) = fstype {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
                let private = rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
                rustix::mount::mount_change("/", private).unwrap();
                let flags = rustix::mount::MountFlags::empty();
                rustix::mount::mount(fstype, scene.path("share"), fstype, flags, None).unwrap();
            }
            let (said, ended) = scene.go(way, Doing::Move);
            ended.unwrap();
            let copy = scene.open("share/old/film");
            let mut value = [0; 4];
            let kept = rustix::fs::fgetxattr(&copy, NAME, &mut value[..]);
            let group = fstat(&copy).unwrap().st_gid;
            assert!(way == Way::Merge || !is_root || group == 4711, "{way:?}: {group}");
            if fstype.is_some() {
                let without = Left { path: "old/film".to_owned(), why: "user.comment not taken there".to_owned() };
                assert_eq!(said, [Said::Without(without), moved(4)]);
                drop(copy);
                rustix::mount::unmount(scene.path("share"), rustix::mount::UnmountFlags::empty()).unwrap();
            } else {
                assert_eq!((kept, &value, said), (Ok(4), b"seen", vec![moved(4)]), "{way:?}");
            }
        }
    })
    .join()
    .unwrap();
}

/// A file system of two pages, in a mount namespace that ends with the thread; only root may make one.
#[test]
fn a_full_disk_ends_it_and_loses_nothing() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    std::thread::spawn(|| {
        let scene = Scene::new();
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        let private = rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("small", scene.path("share"), "tmpfs", flags, c"size=64k").unwrap();
        scene.write("beside/a", "a");
        scene.write("beside/b", &"b".repeat(100_000));
        scene.write("beside/c", "c");
        let (said, ended) = scene.go(Way::Merge, Doing::Move);
        assert_eq!(said, [moved(1)]);
        let failed = ended.unwrap_err();
        assert_eq!(failed.errno, Some(libc::ENOSPC));
        assert_eq!(failed.attempt, "cannot go on at b");
        assert_eq!((scene.tree("share"), scene.tree("beside")), (vec!["a".into()], vec!["b".into(), "c".into()]));
        rustix::mount::unmount(scene.path("share"), rustix::mount::UnmountFlags::empty()).unwrap();
    })
    .join()
    .unwrap();
}

#[test]
fn an_immutable_directory_is_unlocked_for_the_while() {
    let scene = Scene::new();
    scene.write("beside/a", "a");
    let bare = scene.open("beside");
    let Ok(flags) = ioctl_getflags(&bare) else { return }; // this file system has none
    if ioctl_setflags(&bare, flags | IFlags::IMMUTABLE).is_err() {
        return; // only root may
    }
    let is_locked = || ioctl_getflags(&bare).unwrap().contains(IFlags::IMMUTABLE);
    let unlocked = Unlocked::new(&bare).unwrap();
    let (locked_meanwhile, (said, _)) = (is_locked(), scene.go(Way::Merge, Doing::Move));
    drop(unlocked);
    let locked_after = is_locked();
    ioctl_setflags(&bare, flags).unwrap();
    assert_eq!((locked_meanwhile, locked_after, said), (false, true, vec![moved(1)]));
}

#[test]
fn a_name_that_the_server_refuses_is_explained() {
    let mut say = |_| Ok(());
    let at = PathBuf::from("a:b");
    let mover = Mover { way: Way::Merge, doing: Doing::Move, temporary: temporary("h"), at, say: &mut say };
    let Trouble::Leave(why) = mover.because(c"a:b", Errno::NOENT) else { panic!("the others can be moved") };
    assert!(why.starts_with("its name has a character") && why.contains("No such file"), "{why}");
    assert!(
        matches!(mover.because(c"a", Errno::HOSTDOWN), Trouble::Stop(failed) if failed.errno == Some(libc::EHOSTDOWN))
    );
    assert!(matches!(mover.because(c"a", Errno::ACCESS), Trouble::Leave(_)));
}

#[test]
fn nothing_goes_into_the_directory_that_it_comes_from() {
    let scene = Scene::new();
    fs::create_dir_all(scene.path("beside/a/b")).unwrap();
    for into in ["beside", "beside/a", "beside/a/b"] {
        assert!(refuse_inside(&scene.directory("beside"), &scene.directory(into)).is_err(), "{into}");
    }
    refuse_inside(&scene.directory("beside"), &scene.directory("share")).unwrap();
    refuse_inside(&scene.directory("beside/a"), &scene.directory("beside")).unwrap();
}

#[test]
fn what_was_there_already_keeps_its_mode_and_that_is_said() {
    let mode = |scene: &Scene, path: &str, mode| {
        fs::set_permissions(scene.path(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    for (way, told) in [(Way::Copy, true), (Way::Rename, true), (Way::Merge, false)] {
        let scene = Scene::new();
        scene.write("beside/films/new", "new");
        scene.write("beside/films/same", "equal");
        scene.write("share/films/same", "equal");
        mode(&scene, "beside/films", 0o700);
        mode(&scene, "share/films", 0o755);
        mode(&scene, "beside/films/same", 0o600);
        mode(&scene, "share/films/same", 0o644);
        let (looked, _) = scene.go(way, Doing::Look);
        let (said, ended) = scene.go(way, Doing::Move);
        ended.unwrap();
        assert_eq!(looked, said, "{way:?}");
        let of = |said: &Said| match said {
            Said::Without(Left { path, why }) => Some((path.clone(), why.contains("keeps owner, group and mode"))),
            Said::GoingOn | Said::Moved { .. } | Said::Same | Said::Left(_) => None,
        };
        let without: Vec<(String, bool)> = said.iter().filter_map(of).collect();
        let expected: &[(String, bool)] =
            if told { &[("films".to_owned(), true), ("films/same".to_owned(), true)] } else { &[] };
        assert_eq!(without, expected, "{way:?}");
        assert_eq!(fs::metadata(scene.path("share/films")).unwrap().mode() & 0o7777, 0o755);
        assert!(!scene.path("beside/films").exists());
    }
}

#[test]
fn files_with_several_names_are_told_when_they_part() {
    for (way, told) in [(Way::Copy, true), (Way::Merge, true), (Way::Rename, false)] {
        let scene = Scene::new();
        scene.write("beside/a", "equal");
        fs::hard_link(scene.path("beside/a"), scene.path("beside/b")).unwrap();
        let (said, ended) = scene.go(way, Doing::Move);
        ended.unwrap();
        let is_told =
            said.iter().any(|said| matches!(said, Said::Without(Left { why, .. }) if why.contains("hard links")));
        assert_eq!(is_told, told, "{way:?}: {said:?}");
        let links = fs::metadata(scene.path("share/a")).unwrap().nlink();
        assert_eq!(links, if told { 1 } else { 2 }, "{way:?}");
    }
}
