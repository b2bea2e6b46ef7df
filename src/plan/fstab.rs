//! The format of fstab(5) as libmount reads it, and lines of it that nasmount has taken over.
//!
//! Fields between blanks and tabs, `\040` and other octal escapes in them, options between commas that do not stand in double quotes.
//!
//! A line that was taken over is a comment that begins with [`TAKEN`] and can be had back byte for byte. fstab can be read by everybody:
//! the passwords in such a line are replaced by asterisks, and the line as it was belongs into a file that only root can read.

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

/// How a line that was taken over begins.
pub const TAKEN: &str = "#nasmount: ";

/// What stands in it instead of a password.
const MASK: &str = "***";

/// The fields of a line that mounts something, without their escapes.
#[derive(Clone)]
pub struct Entry {
    /// What is mounted.
    pub source: String,
    /// Where.
    pub mount_point: String,
    /// Type of the file system.
    pub kind: String,
    /// Options, without their quotes; may be logins, so no `Debug`.
    pub options: Vec<String>,
}

/// A line whose passwords were taken out.
#[derive(Clone, Serialize, Deserialize)]
pub struct Masked {
    /// As it stands in fstab.
    pub taken: String,
    /// As it stood there.
    #[serde(with = "exposed")]
    pub original: SecretString,
}

/// An fstab in which lines were taken over.
pub struct Taken {
    /// Its text.
    pub text: String,
    /// Those of its lines that had passwords.
    pub masked: Vec<Masked>,
}

/// The fields of a line; `None` for comments, and for what has no three fields.
pub fn entry(line: &str) -> Option<Entry> {
    let mut fields = fields(line);
    let source = fields.next().filter(|source| !source.starts_with('#'))?;
    let (mount_point, kind, options) = (fields.next()?, fields.next()?, fields.next().unwrap_or("defaults"));
    Some(Entry {
        source: unescaped(source),
        mount_point: unescaped(mount_point),
        kind: kind.to_owned(),
        options: pieces(&unescaped(options)).map(|option| option.replace('"', "")).collect(),
    })
}

/// Takes lines over, numbered from 1.
pub fn take(fstab: &str, lines: &[usize]) -> Taken {
    let (mut text, mut masked) = (String::new(), Vec::new());
    for (index, line) in fstab.split_inclusive('\n').enumerate() {
        if !lines.contains(&(index + 1)) {
            text.push_str(line);
            continue;
        }
        let shown = format!("{TAKEN}{}", without_passwords(line));
        if shown[TAKEN.len()..] != *line {
            masked.push(Masked { taken: shown.clone(), original: line.into() });
        }
        text.push_str(&shown);
    }
    Taken { text, masked }
}

/// Gives the lines back that were taken over, and says which these are, from 1; `None` if a password of theirs is not known.
pub fn give_back(fstab: &str, masked: &[Masked]) -> Option<(String, Vec<usize>)> {
    let (mut text, mut lines) = (String::new(), Vec::new());
    for (index, line) in fstab.split_inclusive('\n').enumerate() {
        let Some(rest) = line.strip_prefix(TAKEN) else {
            text.push_str(line);
            continue;
        };
        lines.push(index + 1);
        match masked.iter().find(|known| known.taken.trim_end() == line.trim_end()) {
            Some(known) => text.push_str(known.original.expose_secret()),
            None if rest.contains(MASK) => return None,
            None => text.push_str(rest),
        }
    }
    Some((text, lines))
}

fn fields(line: &str) -> impl Iterator<Item = &str> {
    line.split([' ', '\t', '\r', '\n']).filter(|field| !field.is_empty())
}

/// Octal escapes, as fstab has them for blanks (`\040`), tabs and backslashes.
fn unescaped(field: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = field.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).filter(|_| *first == b'\\');
        let code = code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 8).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Options as they stand there: between commas that are not within double quotes.
fn pieces(options: &str) -> impl Iterator<Item = &str> {
    let mut quotes = false;
    let comma = move |letter: char| {
        quotes ^= letter == '"';
        letter == ',' && !quotes
    };
    options.split(comma).filter(|option| !option.is_empty())
}

/// mount.cifs knows them by their beginning; a user's name could be followed by `%` and the password.
fn without_passwords(line: &str) -> String {
    let Some(options) = fields(line).nth(3) else { return line.to_owned() };
    let mask = |option: &str| match option.split_once('=') {
        Some((name, value)) if name.trim_start_matches('"').starts_with("pass") && !value.is_empty() => {
            format!("{name}={MASK}")
        }
        Some((name, value)) if name.trim_start_matches('"').starts_with("user") && value.contains('%') => {
            format!("{name}={}%{MASK}", value.split('%').next().unwrap_or_default())
        }
        _ => option.to_owned(),
    };
    let masked: Vec<String> = pieces(options).map(mask).collect();
    let masked = masked.join(",");
    if pieces(options).eq(masked.split(',')) { line.to_owned() } else { line.replacen(options, &masked, 1) }
}

mod exposed {
    use secrecy::{ExposeSecret as _, SecretString};
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(secret: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(secret.expose_secret())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SecretString, D::Error> {
        String::deserialize(deserializer).map(SecretString::from)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const FSTAB: &str = "# a comment\nUUID=1 / ext4 errors=remount-ro 0 1\n//nas/films\t/mnt/my\\040films cifs guest,,uid=1000 0 0\r\n\
                         //nas/home /home cifs user=bob,password=hunter2,uid=1\n//nas/x /x cifs username=bob%hunter2 0 0\n\
                         //nas/y /y cifs pass=\"a,hunter2\",ro 0 0";

    #[test]
    fn what_was_taken_is_given_back_byte_for_byte() {
        let taken = take(FSTAB, &[3, 4, 5, 6]);
        assert!(!taken.text.contains("hunter2"), "{}", taken.text);
        assert!(taken.text.contains("\n#nasmount: //nas/films\t/mnt/my\\040films cifs guest,,uid=1000 0 0\r\n"));
        assert!(taken.text.contains("\n#nasmount: //nas/home /home cifs user=bob,password=***,uid=1\n"));
        assert!(taken.text.contains("\n#nasmount: //nas/x /x cifs username=bob%*** 0 0\n"));
        assert!(taken.text.ends_with("\n#nasmount: //nas/y /y cifs pass=***,ro 0 0"));
        assert_eq!(taken.masked.len(), 3);
        let (text, lines) = give_back(&taken.text, &taken.masked).unwrap();
        assert_eq!((text.as_str(), lines.as_slice()), (FSTAB, [3, 4, 5, 6].as_slice()));
        assert!(give_back(&taken.text, &taken.masked[1..]).is_none(), "a password is lost");
    }

    #[test]
    fn lines_may_be_added_moved_and_taken_out_meanwhile() {
        let taken = take(FSTAB, &[3, 4]);
        let mut lines: Vec<&str> = taken.text.lines().collect();
        lines.reverse();
        lines.retain(|line| !line.contains("films"));
        let (text, given) = give_back(&(lines.join("\n") + "\n"), &taken.masked).unwrap();
        assert_eq!(given, [3]);
        assert!(text.contains("\n//nas/home /home cifs user=bob,password=hunter2,uid=1\nUUID=1"), "{text}");
    }

    #[test]
    fn fields_are_read_as_libmount_does() {
        let entry = entry("//nas/my\\040films\t/mnt/films  cifs  pass=\"a,b\",uid=bob,,ro 0 0\r\n").unwrap();
        assert_eq!((entry.source.as_str(), entry.mount_point.as_str()), ("//nas/my films", "/mnt/films"));
        assert_eq!((entry.kind.as_str(), entry.options.join(" ").as_str()), ("cifs", "pass=a,b uid=bob ro"));
        assert_eq!(super::entry("//nas/a /a cifs").unwrap().options, ["defaults"]);
        assert!(super::entry("  # //nas/a /a cifs").is_none());
        assert!(super::entry("//nas/a /a").is_none());
    }
}
