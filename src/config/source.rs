//! Where a value was written, and which lines may be shown to anybody.
//!
//! Messages about the configuration end up in terminals, journals and bug reports. A line that holds something like a
//! password is therefore never kept in a message: what is not in an [`Excerpt`] cannot be printed by mistake.

use std::fmt;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One file of the configuration, as text. Its `Debug` hides the text, which may hold a misplaced password.
#[derive(Clone, PartialEq, Eq)]
pub struct SourceText {
    /// The path as it is to be shown.
    pub path: PathBuf,
    /// The whole content.
    pub text: String,
}

impl SourceText {
    /// Pairs a path with its content.
    pub fn new(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        Self { path: path.into(), text: text.into() }
    }
}

impl fmt::Debug for SourceText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceText").field("path", &self.path).field("bytes", &self.text.len()).finish()
    }
}

/// A range of bytes in one of the files that are being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// Index of the file in the list of all files: fragments first, then profiles.
    pub(crate) file: usize,
    /// First byte.
    pub(crate) start: usize,
    /// One past the last byte.
    pub(crate) end: usize,
}

impl Origin {
    pub(crate) fn new(file: usize, span: std::ops::Range<usize>) -> Self {
        Self { file, start: span.start, end: span.end }
    }
}

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sourced<T> {
    /// The value.
    pub value: T,
    /// Where it was written.
    pub origin: Origin,
}

/// A place in a file, ready to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, as given by the caller.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Byte range in the file.
    pub span: std::ops::Range<usize>,
    /// The line itself, unless it may hold a secret.
    pub excerpt: Option<Excerpt>,
}

/// One line of a file and the part of it that is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    /// The line without its line break.
    pub line: String,
    /// Byte range in `line` to be underlined.
    pub marked: std::ops::Range<usize>,
}

/// All files of one load, and the byte ranges in them that must not be shown.
pub(crate) struct Files<'a> {
    texts: Vec<&'a SourceText>,
    secrets: Vec<Vec<std::ops::Range<usize>>>,
    hidden: Vec<bool>,
}

impl<'a> Files<'a> {
    pub(crate) fn new(texts: impl Iterator<Item = &'a SourceText>) -> Self {
        let texts: Vec<_> = texts.collect();
        let secrets = vec![Vec::new(); texts.len()];
        let hidden = vec![false; texts.len()];
        Self { texts, secrets, hidden }
    }

    pub(crate) fn text(&self, file: usize) -> &'a SourceText {
        self.texts[file]
    }

    /// Remembers what must not be shown of a file that could be parsed.
    pub(crate) fn hide_secrets(&mut self, file: usize, table: &DeTable<'_>) {
        collect_secrets(table, &mut self.secrets[file]);
    }

    /// Where the syntax is broken nothing tells a key from a value: a file that speaks of secrets shows no line at all.
    pub(crate) fn hide_if_suspicious(&mut self, file: usize) {
        self.hidden[file] = mentions_secret(&self.texts[file].text);
    }

    pub(crate) fn place(&self, origin: Origin) -> Place {
        let source = self.texts[origin.file];
        let text = source.text.as_str();
        let start = floor_char_boundary(text, origin.start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let line = text[line_start..line_end].trim_end_matches('\r');
        // The mark stays within its line: a span may begin at the line break or end on another line.
        let mark = |at: usize| floor_char_boundary(text, at).clamp(line_start, line_start + line.len()) - line_start;
        let secret = self.hidden[origin.file]
            || line_mentions_secret(line)
            || self.secrets[origin.file].iter().any(|span| span.start <= line_end && line_start <= span.end);
        Place {
            file: source.path.clone(),
            line: text[..line_start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            span: origin.start..origin.end,
            excerpt: (!secret).then(|| Excerpt { line: line.to_owned(), marked: mark(origin.start)..mark(origin.end) }),
        }
    }
}

fn floor_char_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Whether a key of this name is likely to have a secret as its value. `credentials` is judged by its value instead.
pub(crate) fn is_secret_key(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["pass", "pw", "secret", "cred", "user", "login", "token"].iter().any(|word| name.contains(word))
        || ["password", "username"].iter().any(|word| strsim::damerau_levenshtein(&name, word) <= 2)
}

/// Whether a text, be it a value, a key or a whole file, looks as if it held a secret.
pub(crate) fn mentions_secret(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["pass", "pwd", "secret", "user=", "user =", "cred="].iter().any(|word| text.contains(word))
}

/// A narrower test for lines of files that could be parsed, mostly for comments: `pass` alone is also a film's name.
fn line_mentions_secret(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    ["password", "passwd", "pwd=", "pwd =", "secret", "pass=", "pass ="].iter().any(|word| line.contains(word))
}

/// Whether a value of the key `credentials` has a form that names a place and not a secret.
pub(crate) fn names_credentials(value: &str) -> bool {
    let path = value.starts_with('/') && !value.contains(['=', '%', ',', '\n']);
    path || value.strip_prefix("systemd:").is_some_and(is_plain_name)
}

/// Letters, digits and `_ - .`, at most 255 of them: names that need no quoting anywhere.
pub(crate) fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
}

fn collect_secrets(table: &DeTable<'_>, found: &mut Vec<std::ops::Range<usize>>) {
    for (key, value) in table {
        let name: &str = key.get_ref();
        if name.contains('=') || name.contains('%') {
            found.push(key.span());
        }
        if is_secret_entry(name, value) {
            found.push(key.span().start..value.span().end.max(key.span().end));
        } else {
            collect_nested(value, found);
        }
    }
}

fn is_secret_entry(name: &str, value: &Spanned<DeValue<'_>>) -> bool {
    let value = value.get_ref();
    match (name, value.as_str()) {
        ("credentials", Some(text)) => !names_credentials(text),
        // An address with a login in it, `//user:password@nas/share`, or a whole option string of an fstab line.
        ("host" | "source", Some(text)) => text.contains(['@', '%']),
        ("options", Some(_)) => true,
        (_, Some(text)) => is_secret_key(name) || looks_like_login(text),
        // A table may be called `users`; what is in it is looked at one by one.
        (_, None) => is_secret_key(name) && !value.is_table(),
    }
}

/// `user=…`, `pass=…`: what an fstab line or a credentials file holds.
pub(crate) fn looks_like_login(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["pass", "pwd", "user", "secret", "cred"].iter().any(|word| text.contains(word)) && text.contains(['=', ':', '%'])
}

fn collect_nested(value: &Spanned<DeValue<'_>>, found: &mut Vec<std::ops::Range<usize>>) {
    if let Some(table) = value.get_ref().as_table() {
        collect_secrets(table, found);
    }
    if let Some(array) = value.get_ref().as_array() {
        for element in array {
            collect_nested(element, found);
        }
    }
}
