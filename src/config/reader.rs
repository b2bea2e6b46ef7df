//! Reads typed values out of one TOML table and keeps going after a mistake.
//!
//! serde's `deny_unknown_fields` stops at the first problem of a file; a person who repairs a configuration wants all of
//! them at once. So the document is walked here instead: every key is either asked for, or reported as unknown.

use std::collections::BTreeSet;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::hints;
use super::invalid::{InvalidKind, Problems};
use super::source::{Origin, Sourced, is_secret_key, mentions_secret};
use super::value::{BadValue, DURATION_FORMS, SizeRange, closest, is_name, list, parse_duration, parse_size, quoted};

/// Where a login belongs; the help for every key that tries to hold one.
pub(crate) const LOGIN_HELP: &str = "put user name and password into a file of their own (mount.cifs's grammar, mode 0600) \
     and name it in [server.NAME]: credentials = \"/etc/nasmount/NAME.cred\"";

/// One table, the keys it may have, and those that were there but could not be used.
pub(crate) struct Fields<'t> {
    table: &'t DeTable<'t>,
    path: String,
    file: usize,
    broken: BTreeSet<&'static str>,
}

impl<'t> Fields<'t> {
    /// Opens a table and reports every key that is not in `known`.
    pub(crate) fn new(
        table: &'t DeTable<'t>,
        path: String,
        file: usize,
        known: &[&str],
        problems: &mut Problems<'_>,
    ) -> Self {
        for key in table.keys() {
            let name: &str = key.get_ref();
            if known.contains(&name) {
                continue;
            }
            let at = Origin::new(file, key.span());
            let table = table.get(name).is_some_and(|value| value.get_ref().is_table());
            let help = match closest(name, known.iter().copied()) {
                _ if is_secret_key(name) && name != "credential" => LOGIN_HELP.to_owned(),
                Some(meant) => format!("did you mean `{meant}`?"),
                // `[share.my.films]` is the table `films` in the share `my`
                None if table && path.matches('.').count() == 1 && is_name(name) => {
                    format!("if `{name}` is a part of the name: a dot ends it, write [{path}-{name}]")
                }
                None if table && path.is_empty() => hints::table(name),
                None => hints::home_of(name).unwrap_or_else(|| format!("known here: {}", known.join(", "))),
            };
            problems.refuse(InvalidKind::UnknownKey, at, join(&path, name), "unknown key", help);
        }
        Self { table, path, file, broken: BTreeSet::new() }
    }

    /// Keys that are present and wrong: they are not reported as missing as well.
    pub(crate) fn into_broken(self) -> BTreeSet<&'static str> {
        self.broken
    }

    /// Is a key present and wrong?
    pub(crate) fn is_broken(&self, name: &str) -> bool {
        self.broken.contains(name)
    }

    /// The path of a key in this table.
    pub(crate) fn key(&self, name: &str) -> String {
        join(&self.path, name)
    }

    pub(crate) fn file(&self) -> usize {
        self.file
    }

    pub(crate) fn raw(&self, name: &str) -> Option<(Origin, &'t DeValue<'t>)> {
        let value: &'t Spanned<DeValue<'t>> = self.table.get(name)?;
        Some((Origin::new(self.file, value.span()), value.get_ref()))
    }

    pub(crate) fn string(&mut self, name: &'static str, problems: &mut Problems<'_>) -> Option<Sourced<String>> {
        let (origin, value) = self.raw(name)?;
        let Some(text) = value.as_str() else {
            let help = format!("put it in quotes: {name} = \"…\"");
            self.wrong_type(name, origin, "a string", value, help, problems);
            return None;
        };
        self.plain(name, origin, text, problems)
    }

    /// A text without control characters.
    fn plain(
        &mut self,
        name: &'static str,
        origin: Origin,
        text: &str,
        problems: &mut Problems<'_>,
    ) -> Option<Sourced<String>> {
        if text.contains(char::is_control) {
            self.bad(
                name,
                origin,
                BadValue {
                    message: "the value contains a control character".to_owned(),
                    help:
                        "write it on one line, without tabs and line breaks; in double quotes a backslash makes such \
                           characters of letters (\\t, \\n, \\f): a path has slashes"
                            .to_owned(),
                },
                problems,
            );
            return None;
        }
        Some(Sourced { value: text.to_owned(), origin })
    }

    pub(crate) fn duration(&mut self, name: &'static str, problems: &mut Problems<'_>) -> Option<Sourced<Duration>> {
        self.duration_or(name, None, problems)
    }

    /// A duration, or the word that stands for one without an end.
    pub(crate) fn duration_or<T: From<Duration>>(
        &mut self,
        name: &'static str,
        endless: Option<(&str, T)>,
        problems: &mut Problems<'_>,
    ) -> Option<Sourced<T>> {
        let (origin, value) = self.raw(name)?;
        let or_endless = endless.as_ref().map_or(String::new(), |(word, _)| format!("; or \"{word}\""));
        let Some(text) = value.as_str() else {
            let help = match value.as_integer() {
                Some(number) => format!("a number needs its unit: {name} = \"{}s\"", number.as_str()),
                None => format!("{DURATION_FORMS}{or_endless}"),
            };
            self.wrong_type(name, origin, "a duration in quotes", value, help, problems);
            return None;
        };
        if let Some((word, value)) = endless
            && word == text
        {
            return Some(Sourced { value, origin });
        }
        match parse_duration(text) {
            Ok(value) => Some(Sourced { value: T::from(value), origin }),
            Err(bad) => {
                self.bad(name, origin, BadValue { help: bad.help + &or_endless, ..bad }, problems);
                None
            }
        }
    }

    /// A size in bytes, with a range for what is suggested; `"none"` is `None` where `none` allows it.
    pub(crate) fn size(
        &mut self,
        name: &'static str,
        none: NoneWord,
        range: SizeRange,
        problems: &mut Problems<'_>,
    ) -> Option<Sourced<Option<u64>>> {
        let (origin, value) = self.raw(name)?;
        let Some(text) = value.as_str() else {
            let help = match value.as_integer() {
                Some(number) => {
                    format!("sizes are written in quotes, with KiB, MiB or GiB: {}", range.suggest(number.as_str()))
                }
                None => range.forms(),
            };
            self.wrong_type(name, origin, "a size in quotes", value, help, problems);
            return None;
        };
        if none == NoneWord::Allowed && text == "none" {
            return Some(Sourced { value: None, origin });
        }
        match parse_size(text, range) {
            Ok(bytes) => Some(Sourced { value: Some(bytes), origin }),
            Err(bad) => {
                self.bad(name, origin, bad, problems);
                None
            }
        }
    }

    /// A whole number within limits.
    pub(crate) fn integer(
        &mut self,
        name: &'static str,
        limits: std::ops::RangeInclusive<i64>,
        problems: &mut Problems<'_>,
    ) -> Option<Sourced<i64>> {
        let (origin, value) = self.raw(name)?;
        let Some(integer) = value.as_integer() else {
            let help = format!("write a whole number without quotes: {name} = 3");
            self.wrong_type(name, origin, "a whole number", value, help, problems);
            return None;
        };
        match i64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(value) if limits.contains(&value) => Some(Sourced { value, origin }),
            _ => {
                self.broken.insert(name);
                let message = format!("{} is out of range", integer.as_str());
                let help = format!("use a number from {} to {}", limits.start(), limits.end());
                problems.refuse(InvalidKind::OutOfRange, origin, self.key(name), message, help);
                None
            }
        }
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&mut self, name: &'static str, problems: &mut Problems<'_>) -> Option<Sourced<bool>> {
        let (origin, value) = self.raw(name)?;
        let boolean = value.as_bool();
        if boolean.is_none() {
            let help = format!("write it without quotes: {name} = true");
            self.wrong_type(name, origin, "true or false", value, help, problems);
        }
        boolean.map(|value| Sourced { value, origin })
    }

    /// A string in a form of its own.
    pub(crate) fn parsed<T>(
        &mut self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, BadValue>,
        problems: &mut Problems<'_>,
    ) -> Option<Sourced<T>> {
        let Sourced { value, origin } = self.string(name, problems)?;
        match parse(&value) {
            Ok(value) => Some(Sourced { value, origin }),
            Err(bad) => {
                self.bad(name, origin, bad, problems);
                None
            }
        }
    }

    /// A string in a form of its own, or a list of at least one; each that is wrong is pointed at.
    pub(crate) fn parsed_list<T>(
        &mut self,
        name: &'static str,
        example: &str,
        parse: impl Fn(&str) -> Result<T, BadValue>,
        problems: &mut Problems<'_>,
    ) -> Option<Sourced<Vec<T>>> {
        let (origin, value) = self.raw(name)?;
        if value.is_str() {
            let Sourced { value, origin } = self.parsed(name, parse, problems)?;
            return Some(Sourced { value: vec![value], origin });
        }
        let help = format!("write {name} = {example}");
        let Some(list) = value.as_array() else {
            self.wrong_type(name, origin, "a string or a list of strings", value, help, problems);
            return None;
        };
        if list.is_empty() {
            let message = "the list is empty".to_owned();
            self.bad(name, origin, BadValue { message, help: format!("{help}, or leave it out") }, problems);
            return None;
        }
        let mut values = Vec::new();
        for element in list {
            let at = Origin::new(self.file, element.span());
            let Some(text) = element.get_ref().as_str() else {
                self.wrong_type(name, at, "a string", element.get_ref(), help.clone(), problems);
                continue;
            };
            let Some(Sourced { value, origin }) = self.plain(name, at, text, problems) else { continue };
            match parse(&value) {
                Ok(value) => values.push(value),
                Err(bad) => self.bad(name, origin, bad, problems),
            }
        }
        Some(Sourced { value: values, origin })
    }

    /// One of a few words.
    pub(crate) fn word<T: Copy>(
        &mut self,
        name: &'static str,
        words: &[(&'static str, T)],
        problems: &mut Problems<'_>,
    ) -> Option<Sourced<T>> {
        let Sourced { value, origin } = self.string(name, problems)?;
        if let Some((_, meant)) = words.iter().find(|(word, _)| *word == value) {
            return Some(Sourced { value: *meant, origin });
        }
        let choice: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let choice = list(choice.iter().map(String::as_str));
        let bad = BadValue {
            message: format!("there is no choice {}", quoted(&value)),
            help: match closest(&value, words.iter().map(|(word, _)| *word)) {
                Some(meant) => format!("did you mean \"{meant}\"? The choices are {choice}"),
                None => format!("write {choice}"),
            },
        };
        self.bad(name, origin, bad, problems);
        None
    }

    /// A table within this one.
    pub(crate) fn table(
        &mut self,
        name: &'static str,
        example: &str,
        problems: &mut Problems<'_>,
    ) -> Option<(Origin, &'t DeTable<'t>)> {
        let (origin, value) = self.raw(name)?;
        let table = value.as_table();
        if table.is_none() {
            self.wrong_type(name, origin, "a table", value, format!("write {example}"), problems);
        }
        table.map(|table| (origin, table))
    }

    pub(crate) fn wrong_type(
        &mut self,
        name: &'static str,
        origin: Origin,
        expected: &str,
        found: &DeValue<'_>,
        help: String,
        problems: &mut Problems<'_>,
    ) {
        self.broken.insert(name);
        problems.refuse(InvalidKind::WrongType, origin, self.key(name), type_message(expected, found), help);
    }

    fn bad(&mut self, name: &'static str, origin: Origin, bad: BadValue, problems: &mut Problems<'_>) {
        self.broken.insert(name);
        problems.refuse(InvalidKind::BadValue, origin, self.key(name), bad.message, bad.help);
    }
}

/// Whether the word `none` stands for "no limit" in a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoneWord {
    /// It does: a share lifts its profile's limit.
    Allowed,
    /// It does not: a profile without a limit leaves the key out.
    Refused,
}

pub(crate) fn type_message(expected: &str, found: &DeValue<'_>) -> String {
    let found = match found {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a decimal number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    format!("expected {expected}, found {found}")
}

/// Joins a key to its path. A key that holds anything but a name (`"user=bob,password=x" = true`) is not repeated.
pub(crate) fn join(path: &str, name: &str) -> String {
    let shown = name.len() <= 64 && !name.is_empty() && !name.contains(char::is_control);
    let login = name.contains(['=', '%', ':']) && mentions_secret(name) || name.contains(['=', '%']);
    let name = if shown && !login { name } else { "…" };
    let quote = if super::value::is_name(name) || name == "…" { "" } else { "\"" };
    if path.is_empty() { format!("{quote}{name}{quote}") } else { format!("{path}.{quote}{name}{quote}") }
}

/// Parses a file; syntax errors are reported, all of them, and nothing else of such a file is read.
pub(crate) fn parse<'t>(text: &'t str, file: usize, problems: &mut Problems<'_>) -> Option<Spanned<DeTable<'t>>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        problems.files.hide_secrets(file, table.get_ref());
        return Some(table);
    }
    problems.files.hide_if_suspicious(file);
    let is_duplicate = |error: &toml::de::Error| error.message().contains("duplicate");
    let start = |error: &toml::de::Error| error.span().map_or(0, |span| span.start);
    let headers: Vec<usize> = errors
        .iter()
        .filter(|error| !is_duplicate(error))
        .map(start)
        .filter(|at| is_header(line_at(text, *at)))
        .collect();
    for error in &errors {
        // the keys behind a broken header are not those of the table before it
        if is_duplicate(error) && headers.iter().any(|header| is_in_table_of(text, *header, start(error))) {
            continue;
        }
        let span = error.span().unwrap_or(0..0);
        // Only the first line: what follows may be a list of tokens.
        let message = error.message().lines().next().unwrap_or_default().to_owned();
        let help = syntax_help(text, span.start, &message);
        let key = enclosing_table(text, span.start);
        problems.refuse(
            InvalidKind::Syntax,
            Origin::new(file, span),
            key,
            format!("this is not valid TOML: {message}"),
            help,
        );
    }
    None
}

fn syntax_help(text: &str, at: usize, message: &str) -> String {
    hints::syntax(line_at(text, at), message).to_owned()
}

fn line_start(text: &str, at: usize) -> usize {
    text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |start| start + 1)
}

fn line_at(text: &str, at: usize) -> &str {
    text[line_start(text, at)..].lines().next().unwrap_or_default()
}

/// Whether a line was to begin a table: `[share.films`, `share.films]`, `(share.films)`.
pub(super) fn is_header(line: &str) -> bool {
    let line = line.split('#').next().unwrap_or_default().trim();
    line.starts_with('[') || !line.is_empty() && !line.contains(['=', '"'])
}

/// Whether no other table begins between a header and a position behind it.
fn is_in_table_of(text: &str, header: usize, at: usize) -> bool {
    let behind = text.get(header..at).and_then(|between| between.split_once('\n'));
    behind.is_some_and(|(_, lines)| !lines.lines().any(|line| line.trim_start().starts_with('[')))
}

/// The last table header before a position: the best guess of what a broken line belongs to.
fn enclosing_table(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let header = before.lines().rev().map(str::trim).find(|line| line.starts_with('[') && line.contains(']'));
    // a broken header belongs to none before it
    let broken = Some(line_at(text, at)).filter(|line| is_header(line) && line.contains(['[', ']']));
    let names = [broken, header].into_iter().flatten().map(|line| line.trim().trim_matches(['[', ']', ' ']));
    names.into_iter().find(|name| name.split('.').all(super::value::is_name)).unwrap_or_default().to_owned()
}
