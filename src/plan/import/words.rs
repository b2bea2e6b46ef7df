//! What is odd about the words of a line, and easily not seen.

use super::super::fstab;
use super::{Place, Remark};

/// Carriage returns where lines should end: mount(8) reads it all as one line. `None` if there is none, or no share among it.
pub(super) fn several_lines(at: &Place, line: &str) -> Option<Remark> {
    let line = line.trim_end_matches('\r');
    let mounts = |part: &str| fstab::entry(part).is_some_and(|entry| fstab::is_cifs(&entry.kind, &entry.source));
    let message = "left out: carriage returns stand within it, where lines should end, and mount(8) reads all of it as one line; \
                   `tr '\\r' '\\n'` makes lines of it";
    (line.contains('\r') && line.split('\r').any(mounts)).then(|| Remark::new(at, "", message))
}

/// What mount(8) does not take for a blank, and what it does not read. Neither is repeated: it may belong to a password.
pub(super) fn oddities(at: &Place, line: &str) -> Vec<Remark> {
    if !names_a_share(line.trim_start()) {
        return Vec::new();
    }
    let (read, behind) = line.split_at(fstab::end_of_fields(line, 6));
    let is_odd = |letter: &char| letter.is_whitespace() && !letter.is_ascii_whitespace();
    let blank = read.chars().find(is_odd).map(|letter| {
        let name = if letter == '\u{a0}' { "a no-break space" } else { "a blank of Unicode" };
        let code = u32::from(letter);
        format!(
            "{name} (U+{code:04X}) stands in it, which is a part of a word to mount(8), and parts none: write an ordinary one, if two words \
             are meant"
        )
    });
    let behind = Some(behind.trim()).filter(|behind| !behind.is_empty() && !behind.starts_with('#')).map(|_| {
        "more than six words: mount(8) reads no further, nor does nasmount; if a blank within the options is meant, it is \\040".to_owned()
    });
    blank.into_iter().chain(behind).map(|message| Remark::new(at, "", message)).collect()
}

fn names_a_share(line: &str) -> bool {
    line.starts_with("//") || line.starts_with(r"\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_words_are_told_and_not_repeated() {
        let at = Place { file: None, line: 1 };
        let said =
            |line: &str| oddities(&at, line).into_iter().map(|remark| remark.message).collect::<Vec<_>>().join("|");
        assert_eq!(said("//nas/a /a cifs guest 0 0"), "");
        assert_eq!(said("//nas/a /a cifs guest 0 0 # films\u{a0}"), "");
        assert_eq!(said("nas:/a\u{a0}/a nfs"), "");
        assert!(said("//nas/a /a cifs guest 0 0 hunter2").starts_with("more than six words"));
        assert!(said("//nas/a\u{a0}/a cifs guest 0 0").starts_with("a no-break space (U+00A0) stands in it"));
        assert!(said("\u{2003}//nas/a /a cifs guest").starts_with("a blank of Unicode (U+2003)"));
        let both = said("\u{a0}//nas/a /a cifs guest 0 0 hunter2");
        assert!(both.contains('|') && !both.contains("hunter2"), "{both}");
    }

    #[test]
    fn a_file_of_carriage_returns_is_not_one_line() {
        let at = Place { file: None, line: 1 };
        assert!(several_lines(&at, "# mine\r//nas/a /a cifs guest 0 0\r").is_some());
        assert!(several_lines(&at, "//nas/a /a cifs guest 0 0\r//nas/b /b cifs guest 0 0").is_some());
        assert_eq!(several_lines(&at, "//nas/a /a cifs guest 0 0\r"), None);
        assert_eq!(several_lines(&at, "UUID=1 / ext4\rtmpfs /tmp tmpfs"), None);
    }
}
