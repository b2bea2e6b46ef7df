//! The format of fstab(5) as libmount reads it, and lines of it that nasmount has taken over.
//!
//! Its text has letters that stand for bytes which are not UTF-8 ([`bytes`]): any line may have them, and is kept as it is.
//!
//! Fields between blanks and tabs, `\040` and other octal escapes in them, options between commas that do not stand in double quotes.
//!
//! A line that was taken over is a comment that begins with [`TAKEN`] and can be had back byte for byte. fstab can be read by everybody:
//! each password in such a line is replaced by a placeholder of its own, and belongs into a file that only root can read. So a line that
//! was moved or edited meanwhile gets its password back, too.

use std::collections::{BTreeMap, BTreeSet};

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use super::bytes;
use super::inline_login::{Rest, password, unknown};

/// How a line that was taken over begins.
pub const TAKEN: &str = "#nasmount: ";

/// What stands for what is not shown.
pub const HIDDEN: &str = "***";

/// What a placeholder begins with; its number and `***` follow.
const MASK: &str = "***nasmount-";

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

/// Passwords by their placeholders.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Masked(#[serde(with = "exposed")] BTreeMap<String, SecretString>);

/// An fstab in which lines were taken over.
pub struct Taken {
    /// Its text.
    pub text: String,
    /// The passwords that are not in it any more.
    pub masked: Masked,
    /// The lines that were taken, as they are behind their marks.
    pub lines: Vec<String>,
}

/// What is remembered of one import.
#[derive(Clone, Copy)]
pub struct Remembered<'a> {
    /// Its passwords.
    pub masked: &'a Masked,
    /// Its [`Taken::lines`]; `None` if that was not remembered yet: then each line with a mark may be one of them.
    pub lines: Option<&'a [String]>,
}

/// An fstab whose lines were given back.
pub struct Given {
    /// Its text.
    pub text: String,
    /// The lines, from 1, that mount again.
    pub lines: Vec<usize>,
    /// Is each line in it again, with its password?
    pub whole: bool,
    /// Lines with a mark that no import took, from 1; they stay comments.
    pub strangers: Vec<usize>,
    /// Lines that an import took, without passwords, and that are not there any more.
    pub lost: Vec<String>,
    /// Lines that were taken out, from 1, as another one mounts the same there, and that one; in what was given. Of lines that were taken
    /// over the first one counts.
    pub doubled: Vec<(usize, usize)>,
}

/// Why lines cannot be given back; the number is that of a line, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// Its password is not known.
    Password(usize),
    /// It was taken over, and is another comment now.
    Mark(usize),
}

/// The fields of a line; `None` for comments, for what has no three fields, and for fields that are not UTF-8, or not without their
/// escapes.
pub fn entry(line: &str) -> Option<Entry> {
    let mut fields = fields(line);
    let source = fields.next().filter(|source| !source.starts_with('#'))?;
    let (mount_point, kind, options) = (fields.next()?, fields.next()?, fields.next().unwrap_or("defaults"));
    Some(Entry {
        source: unescaped(source)?,
        mount_point: unescaped(mount_point)?,
        kind: kind.to_owned(),
        options: self::options(&unescaped(options)?).collect(),
    })
}

/// Why a line that would mount a share cannot be taken over: it is not UTF-8 throughout.
pub fn why_not_utf8(line: &str) -> Option<&'static str> {
    let mut fields = fields(line);
    let (source, kind) = (fields.next().unwrap_or_default(), fields.nth(1).unwrap_or_default());
    if !is_cifs(kind, source) || source.starts_with('#') {
        return None;
    }
    if !fields.next().is_none_or(bytes::is_whole) {
        return Some(
            "left out: among its options are bytes that are not UTF-8, in a password perhaps; if it is Latin-1, `iconv -f latin1 -t utf8` \
             shows the file as UTF-8, to be put in its place; or write `guest` for the login, import the line, and have `nasmount login` \
             ask for the password",
        );
    }
    if !bytes::is_whole(line) {
        return Some(
            "left out: it has bytes that are not UTF-8, as names in the configuration are (a comment at its end counts, too); write the \
             line as UTF-8, and try again",
        );
    }
    entry(line)
        .is_none()
        .then_some("left out: with its octal escapes read it is not UTF-8, which names in the configuration are")
}

/// Options as mount(8) takes them apart, without their quotes.
pub(super) fn options(text: &str) -> impl Iterator<Item = String> {
    pieces(text).map(unquoted)
}

/// Whether mount(8) would not take the line: the two fields after the options are numbers, if they are there. libmount takes a minus, does
/// not read what follows, and takes a `#` for no comment before that (2.38, `findmnt -F`).
pub fn is_broken(line: &str) -> bool {
    fields(line).skip(4).take(2).any(|field| field.parse::<i64>().is_err())
}

/// Whether a line mounts a share, which mount(8) tells from its source if the type is left to it.
pub fn is_cifs(kind: &str, source: &str) -> bool {
    ["cifs", "smb3"].contains(&kind) || kind == "auto" && names_a_share(source)
}

/// Why a line that names a share is none of CIFS to mount(8); `None` if it is one, or names none. It says nothing of what stands there:
/// where a field is missing, it is another's, which may have a password.
pub fn why_not_cifs(line: &str) -> Option<&'static str> {
    let mut fields = fields(line).take_while(|field| !field.starts_with('#'));
    let (source, _mount_point, kind) = (fields.next()?, fields.next(), fields.next());
    if source.strip_prefix('\u{feff}').is_some_and(names_a_share) {
        return Some(
            "left out: a byte order mark stands before its source, as editors of Windows put it there, and mount(8) takes it for a part of \
             that; `sed -i '1s/^\\xef\\xbb\\xbf//'` takes it out of the file",
        );
    }
    match kind {
        Some(kind) => other_type(kind, source),
        None if names_a_share(source) => {
            Some("left alone: mount(8) does not take it, because its mount point or its type (`cifs`) is missing")
        }
        None => None,
    }
}

/// Why what has this type and source is none of CIFS, if it seems to be meant as one.
pub(super) fn other_type(kind: &str, source: &str) -> Option<&'static str> {
    match kind {
        "smbfs" => {
            Some("left alone: Linux has had no smbfs since 2.6.37; write `cifs` instead, and it can be imported")
        }
        kind if is_cifs(kind, source) || !names_a_share(source) => None,
        _ => Some(
            "left alone: its source is that of a share, but its type is another one; write `cifs` if it is a share",
        ),
    }
}

fn names_a_share(source: &str) -> bool {
    source.starts_with("//") || source.starts_with(r"\\")
}

/// Takes lines over, numbered from 1.
pub fn take(fstab: &str, lines: &[usize]) -> Taken {
    let has_some = fstab.contains(MASK);
    let mut numbers =
        (1_u32..).map(|number| format!("{MASK}{number}***")).filter(|name| !has_some || !fstab.contains(name));
    let wanted: BTreeSet<usize> = lines.iter().copied().collect();
    let (mut masked, mut taken) = (Masked::default(), Vec::new());
    let line = |(index, line): (usize, &str)| {
        if !wanted.contains(&(index + 1)) {
            return line.to_owned();
        }
        let mut mask = |password: &str| {
            let placeholder = numbers.next().unwrap_or_default();
            masked.0.insert(placeholder.clone(), password.into());
            placeholder
        };
        let shown = without_passwords(line, &mut mask);
        taken.push(shown.trim_end().to_owned());
        format!("{TAKEN}{shown}")
    };
    let text = fstab.split_inclusive('\n').enumerate().map(line).collect();
    Taken { text, masked, lines: taken }
}

/// Takes the lines over that an import has remembered and not come to, if they are as they were; with their numbers, from 1.
pub fn take_remembered(
    fstab: &str,
    import: Remembered<'_>,
    is_wanted: impl Fn(&Entry) -> bool,
) -> (String, Vec<usize>) {
    let mut taken = Vec::new();
    let line = |(index, line): (usize, &str)| {
        let plain = line.trim_end();
        let mut remembered = import.lines.unwrap_or_default().iter();
        match remembered.find(|shown| import.masked.put_into(shown) == plain) {
            Some(shown) if entry(line).is_some_and(|entry| is_wanted(&entry)) => {
                taken.push(index + 1);
                format!("{TAKEN}{shown}{}", &line[plain.len()..])
            }
            _ => line.to_owned(),
        }
    };
    (fstab.split_inclusive('\n').enumerate().map(line).collect(), taken)
}

impl Masked {
    /// A line with its passwords.
    fn put_into(&self, line: &str) -> String {
        let put =
            |line: String, (mask, password): (&String, &SecretString)| line.replace(mask, password.expose_secret());
        self.0.iter().fold(line.to_owned(), put)
    }
}

/// The lines that [`take`] changes, without their passwords, as a unified diff without context; empty if there are none.
pub fn difference(name: &str, fstab: &str, lines: &[usize]) -> String {
    let mut text = if lines.is_empty() { String::new() } else { format!("--- {name}\n+++ {name}\n") };
    let taken = take(fstab, lines).lines;
    let all: Vec<&str> = fstab.lines().collect();
    let originals = lines.iter().filter_map(|number| all.get(number.checked_sub(1)?).copied());
    for ((number, line), original) in lines.iter().zip(taken).zip(originals) {
        let line = shown(&line, if is_quote_open(original) { 4 } else { 6 });
        text += &format!("@@ -{number} +{number} @@\n-{line}\n+{TAKEN}{line}\n");
    }
    text
}

/// A line, without its passwords, as far as these of its words: what stands behind them is read by nobody, and may be anything.
pub fn shown(line: &str, words: usize) -> String {
    let (read, behind) = line.split_at(end_of_fields(line, words));
    if behind.trim().is_empty() { line.trim_end().to_owned() } else { format!("{read} {HIDDEN}") }
}

/// Whether a quotation mark among the options has no other one: then what stands behind the options may belong to them.
pub(super) fn is_quote_open(line: &str) -> bool {
    fields(line).nth(3).is_some_and(|options| !options.matches('"').count().is_multiple_of(2))
}

/// Gives the lines back that were taken over, and the passwords wherever they belong. A line is known by what it mounts where, or by its
/// placeholder.
///
/// # Errors
///
/// A line whose password is not known, or that is a comment of another kind.
pub fn give_back<'a>(fstab: &'a str, imports: &[Remembered<'_>]) -> Result<Given, Stuck> {
    let (mut text, mut lines, mut strangers, mut there) = (String::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut doubled, mut number) = (Vec::new(), 0);
    let passwords = || imports.iter().flat_map(|import| &import.masked.0);
    let taken: Vec<&String> = imports.iter().filter_map(|import| import.lines).flatten().collect();
    let all_known = imports.iter().all(|import| import.lines.is_some());
    let same = |one: &str, other: &str| {
        place(one) == place(other) || passwords().any(|(mask, _)| one.contains(mask) && other.contains(mask))
    };
    let of_cifs = |line: &str| entry(line).is_some_and(|it| is_cifs(&it.kind, &it.source));
    let is_known = |rest: &str| !all_known || rest.contains(MASK) || taken.iter().any(|line| same(line, rest));
    let mine = |line: &'a str| line.strip_prefix(TAKEN).filter(|rest| of_cifs(rest) && is_known(rest));
    let mounts_same = |line: &str, other: &str| place(line).is_some() && place(line) == place(other);
    let again = |rest: &str| fstab.lines().position(|line| mounts_same(line, rest));
    let is_again = |line: &str| fstab.lines().filter_map(mine).any(|rest| mounts_same(line, rest));
    // a line may have been there twice
    let copied = |index: usize, rest: &str| {
        let is_same = |line: &'a str| mine(line).is_some_and(|earlier| mounts_same(earlier, rest));
        let there = taken.iter().filter(|line| mounts_same(line, rest)).count().max(1);
        let earlier = fstab.lines().take(index).filter(|line| is_same(line)).count();
        if earlier < there { None } else { fstab.lines().position(is_same) }
    };
    for (index, line) in fstab.split_inclusive('\n').enumerate() {
        let (marked, rest) = (line.strip_prefix(TAKEN).filter(|rest| of_cifs(rest)), mine(line));
        if let Some(other) = rest.and_then(|rest| again(rest).or_else(|| copied(index, rest))) {
            doubled.push((index + 1, other + 1));
            continue;
        }
        number += 1;
        let line = rest.unwrap_or(line);
        if rest.is_some() || is_again(line) {
            lines.push(number);
        } else if marked.is_some() {
            strangers.push(index + 1);
        } else if line.trim_start().starts_with('#') && line.contains(MASK) {
            return Err(Stuck::Mark(index + 1));
        }
        if entry(line).is_some() {
            there.push(line);
        }
        let whole = imports.iter().fold(line.to_owned(), |line, import| import.masked.put_into(&line));
        if whole.contains(MASK) {
            return Err(Stuck::Password(index + 1));
        }
        text.push_str(&whole);
    }
    let lost = taken.into_iter().filter(|line| !there.iter().any(|other| same(line, other))).cloned().collect();
    let whole = doubled.is_empty() && passwords().all(|(placeholder, _)| fstab.contains(placeholder));
    Ok(Given { text, lines, whole, strangers, lost, doubled })
}

/// Whether an fstab has all lines of an import as they were before it, and none of them behind its mark.
pub fn is_untouched(fstab: &str, import: Remembered<'_>) -> bool {
    let is_there = |shown: &String| {
        let whole = import.masked.put_into(shown);
        fstab.lines().any(|line| line.trim_end() == whole)
    };
    let is_taken = |line: &str| {
        let taken = |rest: &str| import.lines.into_iter().flatten().any(|shown| place(shown) == place(rest));
        line.strip_prefix(TAKEN).is_some_and(|rest| place(rest).is_some() && taken(rest))
            || import.masked.0.keys().any(|mask| line.contains(mask))
    };
    import.lines.is_some_and(|lines| lines.iter().all(is_there)) && !fstab.lines().any(is_taken)
}

/// What a line mounts, and where.
fn place(line: &str) -> Option<(String, String)> {
    entry(line).map(|entry| (entry.source, entry.mount_point))
}

/// What parts two fields.
const BLANKS: [char; 4] = [' ', '\t', '\r', '\n'];

fn fields(line: &str) -> impl Iterator<Item = &str> {
    line.split(BLANKS).filter(|field| !field.is_empty())
}

/// Where the last of the first so many fields ends.
pub(super) fn end_of_fields(line: &str, count: usize) -> usize {
    let after = |rest: &mut &str| {
        *rest = rest.trim_start_matches(BLANKS);
        *rest = rest.find(BLANKS).map_or("", |end| &rest[end..]);
    };
    let mut rest = line;
    (0..count).for_each(|_| after(&mut rest));
    line.len() - rest.len()
}

/// Octal escapes, as fstab has them for blanks (`\040`), tabs and backslashes; `None` if that is not UTF-8.
fn unescaped(field: &str) -> Option<String> {
    if !bytes::is_whole(field) {
        return None;
    }
    let mut bytes = Vec::new();
    let mut rest = field.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let octal = |code: &&[u8]| *first == b'\\' && code.iter().all(|digit| matches!(digit, b'0'..=b'7'));
        let code = after.get(..3).filter(octal); // by itself, `from_str_radix` takes a sign for a digit
        let code = code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 8).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    String::from_utf8(bytes).ok()
}

/// Options as they stand there: between commas that are not within double quotes, if each of those has its other one.
fn pieces(options: &str) -> impl Iterator<Item = &str> {
    let balanced = options.matches('"').count().is_multiple_of(2);
    let mut quotes = false;
    let comma = move |letter: char| {
        quotes ^= letter == '"' && balanced;
        letter == ',' && !quotes
    };
    options.split(comma).filter(|option| !option.is_empty())
}

/// Quotes around commas go. mount.cifs takes others in a password for a part of it (`parse_options()`).
fn unquoted(option: &str) -> String {
    let literally = option.starts_with("pass") && !option.contains(',');
    if literally { option.to_owned() } else { option.replace('"', "") }
}

/// What is a password, or perhaps one or the rest of one, becomes what `mask` makes of it.
fn without_passwords(line: &str, mask: &mut impl FnMut(&str) -> String) -> String {
    let Some(options) = fields(line).nth(3) else { return line.to_owned() };
    let (mut shown, mut left, mut rest) = (String::new(), options, Rest::default());
    for option in pieces(options) {
        let Some((commas, after)) = left.split_once(option) else { continue };
        let secret = if rest.is(option) { Some(option) } else { password(option).or_else(|| unknown(option)) };
        let plain = &option[..option.len() - secret.map_or(0, str::len)];
        let masked = secret.map(&mut *mask).unwrap_or_default();
        shown.extend([commas, plain, masked.as_str()]);
        left = after;
    }
    line.replacen(options, &(shown + left), 1)
}

mod exposed {
    use std::collections::BTreeMap;

    use secrecy::{ExposeSecret as _, SecretString};
    use serde::{Deserialize as _, Deserializer, Serializer};

    type Secrets = BTreeMap<String, SecretString>;

    pub fn serialize<S: Serializer>(secrets: &Secrets, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(secrets.iter().map(|(name, secret)| (name, secret.expose_secret())))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secrets, D::Error> {
        let plain = BTreeMap::<String, String>::deserialize(deserializer)?;
        Ok(plain.into_iter().map(|(name, secret)| (name, secret.into())).collect())
    }
}

/// A text that may have passwords, in a file that only root can read.
pub mod exposed_text {
    use secrecy::{ExposeSecret as _, SecretString};
    use serde::{Deserialize as _, Deserializer, Serializer};

    /// Writes it.
    pub fn serialize<S: Serializer>(text: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(text.expose_secret())
    }

    /// Reads it.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SecretString, D::Error> {
        Ok(String::deserialize(deserializer)?.into())
    }
}

#[cfg(test)]
#[path = "fstab_tests.rs"]
mod tests;
