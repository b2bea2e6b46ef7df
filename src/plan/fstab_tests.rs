//! Tests of what an fstab is, and of lines that are taken over and given back.
#![expect(clippy::unwrap_used, reason = "tests")]
use super::*;

const FSTAB: &str = "# a comment\nUUID=1 / ext4 errors=remount-ro 0 1\n//nas/films\t/mnt/my\\040films cifs guest,,uid=1000 0 0\r\n\
                     //nas/home /home cifs user=bob,password=hunter2,uid=1\n//nas/x /x cifs username=bob%hunter2 0 0\n\
                     //nas/y /y cifs PASSWORD=\"a,hunter2\",ro 0 0";

impl Taken {
    fn remembered(&self) -> Remembered<'_> {
        Remembered { masked: &self.masked, lines: Some(&self.lines) }
    }
}

#[test]
fn the_difference_has_the_lines_that_change_and_no_password() {
    let fstab = "UUID=1 / ext4\n//nas/a /a cifs pass=hunter2\n";
    let line = "//nas/a /a cifs pass=***nasmount-1***\n";
    let expected = format!("--- /x\n+++ /x\n@@ -2 +2 @@\n-{line}+#nasmount: {line}");
    assert_eq!(difference("/x", fstab, &[2]), expected);
    assert_eq!(difference("/x", fstab, &[]), "");
}

#[test]
fn what_was_taken_is_given_back_byte_for_byte() {
    let taken = take(FSTAB, &[3, 4, 5, 6]);
    assert!(!taken.text.contains("hunter2"), "{}", taken.text);
    assert!(taken.text.contains("\n#nasmount: //nas/films\t/mnt/my\\040films cifs guest,,uid=1000 0 0\r\n"));
    assert!(taken.text.contains("\n#nasmount: //nas/home /home cifs user=bob,password=***nasmount-1***,uid=1\n"));
    assert!(taken.text.contains("\n#nasmount: //nas/x /x cifs username=bob%***nasmount-2*** 0 0\n"));
    assert!(taken.text.ends_with("\n#nasmount: //nas/y /y cifs PASSWORD=***nasmount-3***,ro 0 0"));
    let given = give_back(&taken.text, &[taken.remembered()]).unwrap();
    assert_eq!((given.text.as_str(), given.lines.as_slice()), (FSTAB, [3, 4, 5, 6].as_slice()));
    assert!(given.whole);
    assert!(given.strangers.is_empty() && given.lost.is_empty());
    assert_eq!(give_back(&taken.text, &[]).err(), Some(Stuck::Password(4)), "a password is lost");
    let older = Remembered { lines: None, ..taken.remembered() };
    assert_eq!(give_back(&taken.text, &[older]).unwrap().text, FSTAB);
}

#[test]
fn lines_may_be_edited_moved_and_taken_out_meanwhile() {
    let taken = take(FSTAB, &[3, 4, 5]);
    let text = taken.text.replace("#nasmount: //nas/home /home", "//nas/home  /elsewhere");
    let text: Vec<&str> = text.lines().rev().filter(|line| !line.contains("//nas/x")).collect();
    let given = give_back(&text.join("\n"), &[taken.remembered()]).unwrap();
    assert_eq!(given.lines, [3]);
    assert_eq!(given.lost, ["//nas/x /x cifs username=bob%***nasmount-2*** 0 0"]);
    assert!(given.text.contains("\n//nas/home  /elsewhere cifs user=bob,password=hunter2,uid=1\n"), "{}", given.text);
    assert!(!given.whole, "the password of a line that is gone is in no line");
}

#[test]
fn a_second_import_takes_other_placeholders_and_somebodys_comment_stays_one() {
    let first = take("//nas/a /a cifs pass=one\n", &[1]);
    let both = format!("{}//nas/b /b cifs pass=two\n#nasmount: is a nice tool\n", first.text);
    let second = take(&both, &[2]);
    let given = give_back(&second.text, &[first.remembered(), second.remembered()]).unwrap();
    assert_eq!(given.text, "//nas/a /a cifs pass=one\n//nas/b /b cifs pass=two\n#nasmount: is a nice tool\n");
}

#[test]
fn a_line_that_somebody_wrote_in_again_is_not_doubled() {
    let taken = take("//nas/a /a cifs pass=one\n//nas/b /b cifs guest\n", &[1, 2]);
    let text = taken.text.clone() + "//nas/a\t/a cifs guest,ro\n";
    let given = give_back(&text, &[taken.remembered()]).unwrap();
    assert_eq!(given.text, "//nas/b /b cifs guest\n//nas/a\t/a cifs guest,ro\n");
    assert_eq!((given.lines.as_slice(), given.doubled.as_slice()), ([1, 2].as_slice(), [(1, 3)].as_slice()));
    assert!(given.lost.is_empty() && !given.whole, "its password may be nowhere else");
}

#[test]
fn a_line_that_was_copied_with_its_mark_is_given_back_once() {
    let taken = take("//nas/a /a cifs pass=one\n//nas/b /b cifs guest\n", &[1, 2]);
    let (first, _) = taken.text.split_once('\n').unwrap();
    let edited = first.replace("pass=", "ro,pass=");
    let given = give_back(&format!("{}{first}\n{edited}\n", taken.text), &[taken.remembered()]).unwrap();
    assert_eq!(given.text, "//nas/a /a cifs pass=one\n//nas/b /b cifs guest\n");
    assert_eq!((given.lines.as_slice(), given.doubled.as_slice()), ([1, 2].as_slice(), [(3, 1), (4, 1)].as_slice()));
    assert!(given.lost.is_empty() && given.strangers.is_empty());
    let written = format!("{}{first}\n//nas/a /a cifs ro\n", taken.text);
    let given = give_back(&written, &[taken.remembered()]).unwrap();
    assert_eq!(given.text, "//nas/b /b cifs guest\n//nas/a /a cifs ro\n", "what somebody wrote counts before both");
}

#[test]
fn only_lines_that_were_taken_become_lines_again() {
    let taken = take("//nas/a /a cifs guest\n//nas/b /b cifs guest\n", &[1, 2]);
    let text = taken.text.replace("/a cifs guest", "/a  cifs guest,ro") + "#nasmount: //old/x /mnt/x cifs guest 0 0\n";
    let given = give_back(&text, &[taken.remembered()]).unwrap();
    let expected = "//nas/a /a  cifs guest,ro\n//nas/b /b cifs guest\n#nasmount: //old/x /mnt/x cifs guest 0 0\n";
    assert_eq!((given.text.as_str(), given.lines.as_slice()), (expected, [1, 2].as_slice()));
    assert_eq!((given.strangers.as_slice(), given.lost.len()), ([3].as_slice(), 0));
    assert_eq!(give_back(&text, &[]).unwrap().text, text);
}

#[test]
fn a_line_that_is_another_comment_now_is_lost_or_stuck() {
    let taken = take("//nas/a /a cifs guest\n//nas/b /b cifs pass=hunter2\n", &[1, 2]);
    let text = taken.text.replacen("#nasmount:", "# nasmount:", 1);
    assert_eq!(give_back(&text, &[taken.remembered()]).unwrap().lost, ["//nas/a /a cifs guest"]);
    let uncommented = taken.text.replace(TAKEN, "");
    assert!(give_back(&uncommented, &[taken.remembered()]).unwrap().lost.is_empty());
    let text = taken.text.replace("#nasmount:", "# nasmount:");
    assert_eq!(give_back(&text, &[taken.remembered()]).err(), Some(Stuck::Mark(2)));
}

#[test]
fn fields_are_read_as_libmount_does() {
    let entry = entry("//nas/my\\040films\t/mnt/films  cifs  pass=\"a,b\",uid=bob,,ro 0 0\r\n").unwrap();
    assert_eq!((entry.source.as_str(), entry.mount_point.as_str()), ("//nas/my films", "/mnt/films"));
    assert_eq!((entry.kind.as_str(), entry.options.join(" ").as_str()), ("cifs", "pass=a,b uid=bob ro"));
    assert_eq!(super::entry("//nas/a /a cifs").unwrap().options, ["defaults"]);
    assert!(super::entry("  # //nas/a /a cifs").is_none());
    assert!(super::entry("//nas/a /a").is_none());
    let literally = super::entry("//nas/a /a cifs pass=\"a\",password=p\"x,context=\"c\",pass2=\"a,b\"");
    assert_eq!(literally.unwrap().options, ["pass=\"a\"", "password=p\"x", "context=c", "pass2=\"a", "b"]);
}

#[test]
fn only_three_octal_digits_are_an_escape_and_what_is_not_utf8_is_no_entry() {
    for (source, read) in [
        (r"//nas/a\040b", "//nas/a b"),
        (r"//nas/\303\244", "//nas/ä"),
        (r"//nas/a\+12", r"//nas/a\+12"),
        (r"//nas/a\08", r"//nas/a\08"),
        (r"//nas/a\777", r"//nas/a\777"),
    ] {
        let line = format!("{source} /a cifs guest");
        assert_eq!(entry(&line).unwrap().source, read);
        assert_eq!(why_not_utf8(&line), None);
    }
    for line in [r"//nas/a\344 /a cifs", r"//nas/a /a\344 auto guest 0 0", r"//nas/a /a cifs pass=\344 0 0"] {
        let why = why_not_utf8(line).unwrap_or_default();
        assert!(entry(line).is_none() && why.contains("octal"), "{line}");
    }
    for line in [r"#//nas/a\344 /a cifs", r"/dev/sda /a\344 ext4", "//nas/a /a", ""] {
        assert_eq!(why_not_utf8(line), None, "{line}");
    }
    for line in
        [b"//nas/\xe9 /a cifs guest".as_slice(), b"//nas/a /a cifs guest 0 0 # B\xfcro", b"//nas/a /a auto pass=\xfc"]
    {
        let why = why_not_utf8(&bytes::text_of(line)).unwrap_or_default();
        assert!(why.contains("bytes that are not UTF-8"), "{why}");
    }
    for line in [b"# B\xfcro".as_slice(), b"#//nas/\xe9 /a cifs", b"LABEL=B\xfcro /a ext4"] {
        assert_eq!(why_not_utf8(&bytes::text_of(line)), None);
    }
}

#[test]
fn what_may_be_the_rest_of_a_password_is_masked_where_it_stands() {
    let line = "//cd/cd /cd cifs credentials=/cd,user=bob,password=ab,,cd,e=f,uid=1000 0 0\n";
    let taken = take(line, &[1]);
    let expected = "#nasmount: //cd/cd /cd cifs credentials=/cd,user=bob,password=***nasmount-1***,,***nasmount-2***,\
                    ***nasmount-3***,uid=1000 0 0\n";
    assert_eq!(taken.text, expected);
    assert_eq!(give_back(&taken.text, &[taken.remembered()]).unwrap().text, line);
    assert_eq!(take_remembered(line, taken.remembered(), |_| true), (taken.text.clone(), vec![1]));
    assert_eq!(take_remembered(line, taken.remembered(), |_| false).0, line);
}

#[test]
fn a_line_that_names_a_share_and_is_none_of_cifs_is_not_passed_over() {
    for (line, word) in [
        ("//nas/a /a smbfs guest 0 0", "smbfs"),
        (r"\\nas\a /a smbfs", "smbfs"),
        ("//nas/a /a nfs guest", "another one"),
        ("//nas/a /a user=bob,password=hunter2", "another one"),
        ("//nas/a /a", "is missing"),
        ("//nas/a # films", "is missing"),
    ] {
        let why = why_not_cifs(line).unwrap_or_default();
        assert!(why.contains(word) && !why.contains("hunter2"), "{line}: {why}");
    }
    for line in [
        "//nas/a /a cifs",
        "//nas/a /a auto",
        "# //nas/a /a smbfs",
        "#//nas/a",
        "/dev/sda /a ext4",
        "",
        "nas:/a /a nfs",
    ] {
        assert_eq!(why_not_cifs(line), None, "{line}");
    }
}

#[test]
fn a_blank_within_the_options_is_no_line() {
    for (line, broken) in [
        ("//nas/a /a cifs guest 0 0", false),
        ("//nas/a /a cifs guest 0 0 # films", false),
        ("//nas/a /a cifs user=a, password=x", true),
        ("//nas/a /a cifs guest 0 0 extra", false),
        ("//nas/a /a cifs guest -1 0", false),
        ("//nas/a /a cifs guest # films", true),
    ] {
        assert_eq!(is_broken(line), broken, "{line}");
    }
}
