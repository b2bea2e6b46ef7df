//! Lines that leave fstab and come back, and what is in the way of that.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use nasmount::cli::Hinted;
use nasmount::cli::export::export_files;
use nasmount::cli::takeover::import_files;
use nasmount::config::Colour;

use super::host::Host;

#[test]
fn an_fstab_that_is_a_link_is_refused_with_what_to_do_in_each_direction() {
    let host = Host::new("");
    let is_link = |error: anyhow::Error, hint: &str| {
        assert!(error.to_string().contains("etc/fstab: it is a link: something else keeps it"), "{error}");
        let said = error.downcast_ref::<Hinted>().map(Hinted::hint).unwrap();
        assert!(said.contains("replace it by a file first; or do it by hand") && said.contains(hint), "{said}");
    };
    let become_link = || {
        fs::rename(host.path("etc/fstab"), host.path("etc/real")).unwrap();
        std::os::unix::fs::symlink("real", host.path("etc/fstab")).unwrap();
    };
    fs::write(host.path("etc/fstab"), "//nas/a /mnt/a cifs guest 0 0\n").unwrap();
    become_link();
    let import = || import_files(&host.places(), Colour::Never, &mut Vec::new());
    is_link(import().unwrap_err(), "put what `nasmount import-fstab` prints into conf.d");
    fs::rename(host.path("etc/real"), host.path("etc/fstab")).unwrap();
    assert!(import().unwrap().is_some());
    become_link();
    is_link(export_files(&host.places(), &mut Vec::new()).unwrap_err(), "take `#nasmount: ` off each line");
}

#[test]
fn bytes_that_are_not_utf8_stay_as_they_are() {
    let fstab = b"# B\xfcro\nLABEL=B\xfcro /mnt/B\xfcro ext4 noauto 0 0\n//nas/b\xfcro /mnt/b\xfcro cifs guest 0 0\n\
                  //nas/a /mnt/a cifs user=bob,pass=hunter2 0 0\n# \xef\x9f\xbc \xc3\xbc \xc3";
    let host = Host::new("");
    fs::write(host.path("etc/fstab"), fstab).unwrap();
    let (shares, said) = host.import();
    assert_eq!(shares.unwrap().len(), 1, "{said}");
    assert!(said.contains("etc/fstab:3: left out: it has bytes that are not UTF-8"), "{said}");
    let now = fs::read(host.path("etc/fstab")).unwrap();
    let (before, after) = (
        b"//nas/a /mnt/a cifs user=bob,pass=hunter2",
        b"#nasmount: //nas/a /mnt/a cifs user=bob,pass=***nasmount-1***",
    );
    let at = fstab.windows(before.len()).position(|window| window == before).unwrap();
    assert_eq!(now, [&fstab[..at], after, &fstab[at + before.len()..]].concat());
    assert_eq!(host.import().0.map(|shares| shares.len()), Some(0), "nothing is left to be imported");
    let edited = [now.as_slice(), b"\n//nas/c /mnt/c cifs guest 0 0\n"].concat();
    fs::write(host.path("etc/fstab"), &edited).unwrap();
    assert_eq!(host.export(), "");
    assert_eq!(
        fs::read(host.path("etc/fstab")).unwrap(),
        [fstab, b"\n//nas/c /mnt/c cifs guest 0 0\n".as_slice()].concat()
    );
}

#[test]
fn a_line_with_another_comment_behind_it_is_still_the_one_that_was_taken_over() {
    let host = Host::new("//nas/a /mnt/a cifs guest 0 0\n");
    assert!(host.import().0.is_some());
    let mut edited = fs::read(host.path("etc/fstab")).unwrap();
    edited.truncate(edited.len() - 1);
    edited.extend(b" # B\xfcro\n");
    fs::write(host.path("etc/fstab"), edited).unwrap();
    assert_eq!(host.export(), "");
    assert_eq!(fs::read(host.path("etc/fstab")).unwrap(), b"//nas/a /mnt/a cifs guest 0 0 # B\xfcro\n");
}

#[test]
fn what_lies_in_or_around_an_imported_share_is_said_before_and_with_apply() {
    let fstab = "nas:/srv /srv nfs defaults 0 2\n//nas/a /srv/a cifs guest 0 0\nnas:/x /srv/a/x nfs defaults 0 0\n\
                 //nas/a /srv/a cifs guest,port=139 0 0\n";
    let host = Host::new(fstab);
    let warnings = host.dry_run()["warnings"].clone();
    let said: Vec<(u64, &str)> = warnings
        .as_array()
        .unwrap()
        .iter()
        .map(|warning| {
            let file = warning["file"].as_str().unwrap();
            assert!(file.ends_with("etc/fstab") && !warning["hint"].as_str().unwrap().is_empty(), "{warning}");
            assert_eq!(warning["key"], "share.a.mount_point");
            (warning["line"].as_u64().unwrap(), warning["what"].as_str().unwrap())
        })
        .collect();
    let expected = [
        (1, "line 1 stays in fstab and mounts /srv, and the share lies in it, on /srv/a"),
        (3, "line 3 stays in fstab and mounts /srv/a/x, inside the share"),
        (4, "line 4 stays in fstab and mounts /srv/a, too"),
    ];
    assert_eq!(said, expected);
    let (shares, said) = host.import();
    assert_eq!(shares.unwrap().len(), 1, "{said}");
    for (_, message) in expected {
        assert!(said.contains(message), "{said}");
    }
}

/// A credentials file as it is used, and a line that says more.
fn host_with_login(login: &str, options: &str) -> (Host, String) {
    let host = Host::new("");
    let file = host.path("etc/old.cred");
    fs::write(&file, login).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let line = format!("//nas/a /mnt/a cifs {} 0 0\n", options.replace("FILE", file.to_str().unwrap()));
    fs::write(host.path("etc/fstab"), &line).unwrap();
    (host, line)
}

#[test]
fn a_domain_beside_a_file_becomes_a_file_with_both_and_the_line_comes_back() {
    let (host, line) = host_with_login("username=bob\npassword=hunter2\n", "credentials=FILE,domain=WORK");
    let (shares, said) = host.import();
    assert_eq!(shares.unwrap().len(), 1, "{said}");
    assert!(
        said.contains("domain: ") && said.contains("old.cred has none, and nasmount logs in with a file alone"),
        "{said}"
    );
    assert!(!said.contains("hunter2"), "{said}");
    assert_eq!(host.read("etc/nasmount/nas.cred"), "username=bob\ndomain=WORK\npassword=hunter2\n");
    assert!(host.files().contains(&("etc/nasmount/nas.cred".to_owned(), 0o600)));
    assert!(host.read("etc/nasmount/conf.d/fstab.toml").contains("etc/nasmount/nas.cred\""));
    assert_eq!(host.read("etc/old.cred"), "username=bob\npassword=hunter2\n");
    assert_eq!(host.export(), "");
    assert_eq!(host.read("etc/fstab"), line);
}

#[test]
fn of_a_file_and_what_stands_beside_it_the_last_domain_counts() {
    const FILE: &str = "username=bob\ndomain=HOME\npassword=hunter2\n";
    for (options, new) in [
        ("credentials=FILE,domain=HOME", None),
        ("user=bob,dom=HOME,credentials=FILE", None),
        ("domain=WORK,credentials=FILE", None),
        ("credentials=FILE,workgroup=WORK,domain=HOME", None),
        ("credentials=FILE,domain=WORK,user=bob", Some("username=bob\ndomain=WORK\npassword=hunter2\n")),
        ("credentials=FILE,username=WORK\\bob", Some("username=bob\ndomain=WORK\npassword=hunter2\n")),
        ("credentials=FILE,domain=", Some("username=bob\npassword=hunter2\n")),
    ] {
        let (host, _) = host_with_login(FILE, options);
        let (shares, said) = host.import();
        assert_eq!(shares.unwrap().len(), 1, "{options}: {said}");
        let file = fs::read_to_string(host.path("etc/nasmount/nas.cred")).ok();
        assert_eq!(file.as_deref(), new, "{options}: {said}");
    }
    for options in ["credentials=FILE,user=carol,domain=WORK", "credentials=FILE,domain=WORK,password=hunter2"] {
        let (host, line) = host_with_login(FILE, options);
        let (shares, said) = host.import();
        assert!(shares.is_none() && said.contains("domain: it stands beside credentials="), "{options}: {said}");
        assert!(!said.contains("hunter2") && host.read("etc/fstab") == line, "{said}");
    }
}

#[test]
fn a_line_that_was_copied_comes_back_once() {
    let fstab = "//nas/a /mnt/a cifs user=bob,password=hunter2 0 0\n//nas/b /mnt/b cifs guest 0 0\n";
    let host = Host::new(fstab);
    assert!(host.import().0.is_some());
    let taken = host.read("etc/fstab");
    fs::write(host.path("etc/fstab"), taken.clone() + taken.lines().next().unwrap() + "\n").unwrap();
    let said = host.export();
    assert!(said.contains("etc/fstab:3: not given back, but taken out: line 1 mounts the same there\n"), "{said}");
    assert_eq!(host.read("etc/fstab"), fstab);
}

#[test]
fn a_record_that_others_can_read_is_named_with_what_closes_it() {
    let host = Host::new("//nas/a /mnt/a cifs user=bob,password=hunter2 0 0\n");
    let record = host.path("etc/nasmount/imported/fstab.json");
    let open = |mode| fs::set_permissions(&record, fs::Permissions::from_mode(mode)).unwrap();
    assert!(host.import().0.is_some());
    open(0o644);
    let said = host.export();
    assert!(said.contains("imported/fstab.json has mode 0644: others can read it, and the passwords"), "{said}");
    assert!(said.contains("this export removes it"), "{said}");

    assert!(host.import().0.is_some());
    open(0o640);
    let taken = host.read("etc/fstab");
    fs::write(host.path("etc/fstab"), taken.clone() + &taken).unwrap(); // so that the record is kept
    let said = host.export();
    let kept = format!("`chmod 600 {}.exported` closes it", record.display());
    assert!(said.contains("has mode 0640") && said.contains(&kept), "{said}");
}

/// As an import that is killed before it has written a configuration leaves it.
#[test]
fn an_import_that_had_not_begun_is_taken_back() {
    let fstab = "//nas/a /mnt/a cifs user=bob,password=hunter2 0 0\n";
    let host = Host::new(fstab);
    assert!(host.import().0.is_some());
    let begun = host.read("etc/fstab");
    fs::remove_file(host.path("etc/nasmount/conf.d/fstab.toml")).unwrap();
    fs::remove_file(host.path("etc/nasmount/nasmount.toml")).unwrap();
    fs::write(host.path("etc/fstab"), fstab).unwrap();
    let said = host.export();
    assert!(said.contains("imported/fstab.json: its import was ended before it wrote a configuration"), "{said}");
    assert_eq!(host.files(), [("etc/fstab".to_owned(), 0o644)], "the login has gone with it");
    assert_eq!(host.read("etc/fstab"), fstab);
    assert!(host.import().0.is_some(), "and once more");
    assert_eq!(host.read("etc/fstab"), begun);
    // a configuration that somebody took away is another thing: the line is a comment, and comes back
    fs::remove_dir_all(host.path("etc/nasmount/conf.d")).unwrap();
    fs::remove_file(host.path("etc/nasmount/nasmount.toml")).unwrap();
    let said = host.export();
    assert!(said.contains("conf.d/fstab.toml is gone"), "{said}");
    assert_eq!(host.read("etc/fstab"), fstab);
    assert!(host.read("etc/nasmount/nas.cred").contains("hunter2"));
}

#[test]
fn a_login_that_is_used_or_changed_stays_when_its_import_had_not_begun() {
    for change in ["username=carol\n", ""] {
        let fstab = "//nas/a /mnt/a cifs user=bob,password=hunter2 0 0\n";
        let host = Host::new(fstab);
        assert!(host.import().0.is_some());
        fs::remove_file(host.path("etc/nasmount/conf.d/fstab.toml")).unwrap();
        let login = host.path("etc/nasmount/nas.cred");
        if change.is_empty() {
            let used = format!("{fstab}//nas/b /mnt/b cifs credentials={} 0 0\n", login.display());
            fs::write(host.path("etc/fstab"), used).unwrap();
        } else {
            fs::write(host.path("etc/fstab"), fstab).unwrap();
            fs::write(&login, change).unwrap();
        }
        host.export();
        assert!(login.exists() && !host.path("etc/nasmount/imported/fstab.json").exists(), "{change}");
    }
}

#[test]
fn why_an_export_is_refused_is_said_with_its_reason() {
    let host = Host::new("//nas/a /mnt/a cifs guest 0 0\n");
    assert!(host.import().0.is_some());
    fs::write(host.path("etc/nasmount/conf.d/x.toml"), "[share.x]\nserver = 5\n").unwrap();
    let mut err = Vec::new();
    assert!(!export_files(&host.places(), &mut err).unwrap());
    let said = String::from_utf8(err).unwrap();
    assert!(said.starts_with("nothing was changed: the configuration is not valid as it is\n\nerror: "), "{said}");
}

#[test]
fn a_line_that_was_there_twice_is_there_twice_again() {
    let fstab = "//nas/a /mnt/a cifs user=bob,password=hunter2 0 0\n//nas/b /mnt/b cifs guest 0 0\n\
                 //nas/a /mnt/a cifs user=bob,password=hunter2,ro 0 0\n";
    let host = Host::new(fstab);
    let (shares, said) = host.import();
    assert_eq!(shares.unwrap().len(), 2, "{said}");
    assert!(said.contains("etc/fstab:3: mounts the same as line 1 in the same place"), "{said}");
    assert!(host.read("etc/fstab").lines().all(|line| line.starts_with("#nasmount: ")));
    assert!(!host.read("etc/fstab").contains("hunter2"));
    assert_eq!(host.export(), "");
    assert_eq!(host.read("etc/fstab"), fstab);
}

#[test]
fn a_bare_word_leaves_fstab_as_a_password_does_and_comes_back() {
    let fstab = "//nas/a /mnt/a cifs hunter2,fancy=hunter2,ro 0 0 # mine\n";
    let host = Host::new(fstab);
    assert!(host.import().0.is_some());
    let taken = "#nasmount: //nas/a /mnt/a cifs ***nasmount-1***,fancy=***nasmount-2***,ro 0 0 # mine\n";
    assert_eq!(host.read("etc/fstab"), taken);
    assert_eq!(host.export(), "");
    assert_eq!(host.read("etc/fstab"), fstab);
}

#[test]
fn an_fstab_with_another_name_is_refused_before_anything_is_changed() {
    let host = Host::new("//nas/a /mnt/a cifs user=bob,password=hunter2 0 0\n");
    fs::hard_link(host.path("etc/fstab"), host.path("etc/fstab.link")).unwrap();
    let before = host.files();
    let error = import_files(&host.places(), Colour::Never, &mut Vec::new()).unwrap_err();
    assert!(error.to_string().starts_with("nothing was changed: cannot write "), "{error}");
    assert!(error.to_string().ends_with("it has other names (hard links)"), "{error}");
    let said = error.downcast_ref::<Hinted>().map(Hinted::hint).unwrap();
    assert!(said.starts_with("the other names would keep the old text"), "{said}");
    assert_eq!(host.files(), before);
}
