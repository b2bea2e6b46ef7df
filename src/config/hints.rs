//! What was meant by something that is no configuration: a key in the wrong table, YAML, a line of fstab.

use super::fragment::{CONSUMER_KEYS, PROBE_KEYS, SERVER_KEYS, SHARE_KEYS};
use crate::plan::catalogue;

/// What to do with a key that its table does not know, if another place does.
pub(super) fn home_of(name: &str) -> Option<String> {
    let homes = [
        (SERVER_KEYS, "[server.NAME]"),
        (PROBE_KEYS, "[server.NAME.probe]"),
        (SHARE_KEYS, "[share.NAME]"),
        (CONSUMER_KEYS, "[[share.NAME.consumer]]"),
    ];
    if let Some((_, home)) = homes.iter().find(|(keys, _)| keys.contains(&name)) {
        return Some(format!("`{name}` belongs into {home}"));
    }
    match catalogue::forbidden(name) {
        Some(forbidden) => Some(forbidden.help.to_owned()),
        None => catalogue::lookup(name).map(|_| format!("`{name}` is a mount option: options = {{ {name} = … }}")),
    }
}

/// What to do with a table at the top that is none of nasmount's.
pub(super) fn table(name: &str) -> String {
    match name {
        "default" | "defaults" | "common" | "global" | "options" => {
            "what several shares have in common is a profile: a file in /etc/nasmount/profiles (`nasmount profiles` lists them) \
             that each of them names, profile = \"NAME\""
                .to_owned()
        }
        _ => "the tables are [server.NAME] and [share.NAME]".to_owned(),
    }
}

/// What to do with a key of a share that stands among its mount options.
pub(super) fn beside_options(name: &str) -> Option<String> {
    SHARE_KEYS
        .contains(&name)
        .then(|| format!("`{name}` is no mount option: give it a line of its own beside `options`"))
}

/// What to do about a syntax error, by the line and what the parser says of it.
pub(super) fn syntax(line: &str, message: &str) -> &'static str {
    let plain = line.trim();
    let value = plain.split_once('=').map_or("", |(_, value)| value.trim());
    if message.contains("duplicate") {
        "every key and every table may appear once in a file; join the two, or use a file in conf.d to override"
    } else if plain.starts_with('[') || plain.ends_with(']') && !plain.contains('=') {
        "a table begins with [share.NAME], one of a list with [[share.NAME.consumer]]: as many brackets behind the name as before it, and \
         nothing after them"
    } else if message.contains("leading zero") {
        "a number does not begin with a zero; a file mode is text: \"0644\""
    } else if plain.contains(['“', '”', '„', '‘', '’']) {
        "these are typographic quotation marks, as word processors and web pages have them: write \"…\""
    } else if ["//", r"\\"].iter().any(|start| plain.starts_with(start)) && plain.split_whitespace().count() >= 3 {
        "this is a line of fstab: `nasmount import-fstab` says what it is here"
    } else if ["//", ";", "/*", "--"].iter().any(|start| plain.starts_with(start)) {
        "a comment begins with #"
    } else if ["True", "False", "TRUE", "FALSE", "yes", "no", "on", "off", "Yes", "No"].contains(&value) {
        "write true or false"
    } else if plain.matches('"').count() % 2 == 1 {
        "a quotation mark is missing on this line"
    } else if message.contains("escape") {
        "a backslash stands for itself in single quotes only: 'C:\\…'; a path has slashes"
    } else if plain.split_once(':').is_some_and(|(key, _)| super::value::is_name(key.trim())) {
        "between a key and its value stands `=`: key = \"value\""
    } else if value.starts_with(|first: char| first.is_alphanumeric() || "/~".contains(first)) {
        "text stands in quotation marks: key = \"value\"; only numbers, true and false do without"
    } else {
        "the form is `key = value`; text in \"quotes\", tables as [share.NAME], lists as [[share.NAME.consumer]]"
    }
}
