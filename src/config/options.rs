//! The `options` table of a share or a profile: each option against what the kernel takes and what nasmount reserves.

use std::collections::BTreeMap;

use toml::de::DeValue;

use super::hints;
use super::invalid::{Finding, InvalidKind, Problems};
use super::reader::{Fields, LOGIN_HELP, join, type_message};
use super::settings::OptionValue;
use super::source::{Origin, is_plain_name, is_secret_key};
use super::value::{BadValue, SizeRange, closest, list, parse_duration, parse_size, quoted};
use crate::plan::catalogue::{self, Form, KnownOption, VALUE_MAX};
use crate::plan::hazards::{self, Hazard, Weight};

/// One option as it was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OptionEntry {
    /// Where its name is.
    pub(crate) name_origin: Origin,
    /// `None`: `false`, which takes the profile's option away.
    pub(crate) value: Option<OptionValue>,
}

/// Pairs of options that exclude each other. The later layer (share over profile, drop-in over main file) wins; both in
/// one table are a conflict.
const EXCLUSIVE: &[(&str, &str)] = &[
    ("soft", "hard"),
    ("ro", "rw"),
    ("suid", "nosuid"),
    ("dev", "nodev"),
    ("exec", "noexec"),
    ("noatime", "relatime"),
    ("handlecache", "nohandlecache"),
    ("perm", "noperm"),
    ("serverino", "noserverino"),
    ("brl", "nobrl"),
    ("forceuid", "noforceuid"),
    ("forcegid", "noforcegid"),
    ("persistenthandles", "resilienthandles"),
];

/// What `actimeo` is short for. Beside one of them the kernel takes no notice of it (`Opt_actimeo` in fs_context.c).
pub(crate) const OF_ACTIMEO: [&str; 2] = ["acregmax", "acdirmax"];

/// Reads the table `options`, if there is one.
pub(crate) fn read_options(owner: &mut Fields<'_>, problems: &mut Problems<'_>) -> BTreeMap<String, OptionEntry> {
    let mut options = BTreeMap::new();
    let Some((_, table)) = owner.table("options", "options = { uid = 1000, nobrl = true }", problems) else {
        return options;
    };
    let path = owner.key("options");
    for (key, value) in table {
        let name: &str = key.get_ref();
        let name_origin = Origin::new(owner.file(), key.span());
        let shown = join(&path, name);
        let Some(known) = known_option(name, name_origin, &shown, problems) else { continue };
        match read_value(known, value.get_ref()) {
            Ok(value) => drop(options.insert(name.to_owned(), OptionEntry { name_origin, value })),
            Err((kind, bad)) => {
                let at = Origin::new(owner.file(), value.span());
                problems.refuse(kind, at, shown, bad.message, bad.help);
            }
        }
    }
    refuse_exclusive(&path, &options, problems);
    warn_about_hazards(&path, &options, problems);
    options
}

/// Lays the options of a later layer over earlier ones.
pub(crate) fn lay_over(options: &mut BTreeMap<String, OptionEntry>, later: BTreeMap<String, OptionEntry>) {
    for (name, entry) in later {
        if entry.value.is_some()
            && let Some(opposite) = opposite(&name)
        {
            options.remove(opposite);
        }
        divide_actimeo(options, &name);
        options.insert(name, entry);
    }
}

/// Whichever comes later counts, and the other half of an earlier `actimeo` stays.
fn divide_actimeo(options: &mut BTreeMap<String, OptionEntry>, later: &str) {
    if later == "actimeo" {
        options.retain(|name, _| !OF_ACTIMEO.contains(&name.as_str()));
    } else if OF_ACTIMEO.contains(&later)
        && let Some(both) = options.remove("actimeo")
    {
        for half in OF_ACTIMEO {
            options.entry(half.to_owned()).or_insert_with(|| both.clone());
        }
    }
}

/// The option that cannot be set together with this one.
pub(crate) fn opposite(name: &str) -> Option<&'static str> {
    EXCLUSIVE.iter().find_map(|(one, other)| match name {
        _ if name == *one => Some(*other),
        _ if name == *other => Some(*one),
        _ => None,
    })
}

fn known_option(name: &str, at: Origin, shown: &str, problems: &mut Problems<'_>) -> Option<&'static KnownOption> {
    if let Some(forbidden) = catalogue::forbidden(name) {
        problems.refuse(InvalidKind::NotAllowed, at, shown, forbidden.reason, forbidden.help);
        return None;
    }
    if let Some(known) = catalogue::lookup(name) {
        return Some(known);
    }
    let help = match closest(name, catalogue::KNOWN.iter().map(|option| option.name)) {
        _ if is_secret_key(name) => LOGIN_HELP.to_owned(),
        _ if name.contains(['=', ',']) => {
            "every option is a key of its own: options = { uid = 1000, nobrl = true }".to_owned()
        }
        _ if hints::beside_options(name).is_some() => hints::beside_options(name).unwrap_or_default(),
        Some(meant) => format!("did you mean `{meant}`?"),
        None => "the options are those of mount.cifs(8) that the kernel knows; remove it".to_owned(),
    };
    problems.refuse(InvalidKind::UnknownKey, at, shown, "there is no such option of the CIFS client", help);
    None
}

/// `(uid_t)-1`, which is no user or group for the kernel (`make_kuid()`, `uid_valid()`).
const NOBODY: u32 = u32::MAX;

type Refused = (InvalidKind, BadValue);

fn bad(kind: InvalidKind, message: impl Into<String>, help: impl Into<String>) -> Refused {
    (kind, BadValue { message: message.into(), help: help.into() })
}

/// The value in the kernel's spelling; `None` for `false`.
fn read_value(known: &KnownOption, value: &DeValue<'_>) -> Result<Option<OptionValue>, Refused> {
    if value.as_bool() == Some(false) {
        return Ok(None);
    }
    let name = known.name;
    if known.form == Form::Flag {
        let help = format!("write {name} = true, or {name} = false to take the profile's away");
        return match value.as_bool() {
            Some(true) => Ok(Some(OptionValue::Flag)),
            _ => Err(bad(InvalidKind::WrongType, "this option has no value", help)),
        };
    }
    let example = example(known);
    let text = match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(_) if known.form == Form::Mode => {
            let message = "a mode as a number would be read as a decimal one";
            return Err(bad(InvalidKind::WrongType, message, format!("put the octal digits in quotes: {example}")));
        }
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => number.to_string(),
            Err(_) => return Err(bad(InvalidKind::OutOfRange, "the number is too large", example)),
        },
        DeValue::Float(number) if matches!(known.form, Form::Word(_)) => number.as_str().to_owned(),
        DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            let message = type_message("a string or a number", value);
            return Err(bad(InvalidKind::WrongType, message, format!("write {example}")));
        }
    };
    if text.is_empty() || text.contains(char::is_control) {
        let message = "the value is empty or contains a control character";
        return Err(bad(InvalidKind::BadValue, message, format!("write {example}")));
    }
    if text.contains(',') {
        let message = "the value has a comma in it, which ends an option";
        let help = format!("write {example}, and what comes after the comma as an option of its own");
        return Err(bad(InvalidKind::BadValue, message, help));
    }
    if text.len() > VALUE_MAX {
        let message = format!("the value has {} bytes, and the kernel takes {VALUE_MAX}", text.len());
        return Err(bad(InvalidKind::TooLong, message, "write a shorter one"));
    }
    check_form(known, &text)?;
    Ok(Some(OptionValue::Value(text)))
}

fn check_form(known: &KnownOption, text: &str) -> Result<(), Refused> {
    let name = known.name;
    match known.form {
        Form::Flag | Form::Text => Ok(()),
        Form::Number { min, max, multiple } => {
            let Ok(number) = text.parse::<u64>() else {
                let message = format!("{} is not a whole number", quoted(text));
                let meant = number_with_unit(name, text).filter(|number| (min..=max).contains(number));
                let meant = meant.map_or_else(|| example(known), |number| format!("{name} = {number}"));
                return Err(bad(InvalidKind::BadValue, message, format!("write {meant}")));
            };
            if !(min..=max).contains(&number) {
                let message = format!("{number} is out of range");
                return Err(bad(InvalidKind::OutOfRange, message, format!("use a number from {min} to {max}")));
            }
            if !number.is_multiple_of(multiple) {
                let lower = (number / multiple * multiple).max(min);
                let message = format!("{number} is not a multiple of {multiple}");
                return Err(bad(InvalidKind::OutOfRange, message, format!("use {lower} or {}", lower + multiple)));
            }
            Ok(())
        }
        Form::Mode if text.len() <= 5 && text.bytes().all(|byte| matches!(byte, b'0'..=b'7')) => Ok(()),
        Form::Mode => {
            let message = format!("{} is not a file mode", quoted(text));
            Err(bad(InvalidKind::BadValue, message, format!("write octal digits: {}", example(known))))
        }
        Form::Account if text.parse() == Ok(NOBODY) => {
            let message = format!("{text} is -1 to the kernel, which is nobody's number");
            Err(bad(InvalidKind::OutOfRange, message, format!("write {name} = 1000 or {name} = \"NAME\"")))
        }
        Form::Account if text.parse::<u32>().is_ok() => Ok(()),
        Form::Account if is_plain_name(text) && !text.starts_with(|c: char| c.is_ascii_digit() || c == '-') => Ok(()),
        Form::Account => {
            let message = format!("{} is neither a number nor a name", quoted(text));
            Err(bad(InvalidKind::BadValue, message, format!("write {name} = 1000 or {name} = \"NAME\"")))
        }
        Form::Word(words) if words.contains(&text) => Ok(()),
        Form::Word(words) => {
            let help = match (name, text) {
                ("sec", "none") => "for guest access leave `credentials` out of [server.NAME]".to_owned(),
                ("sec", "ntlm" | "ntlmi" | "lanman") => {
                    "kernels since 5.15 do not have it: leave sec out, and the login is NTLMSSP".to_owned()
                }
                ("vers", "3.1") => "did you mean \"3.1.1\"? There is no 3.1".to_owned(),
                ("vers", "1.0") => "SMB 1 is not supported: enable SMB 2 or 3 on the server".to_owned(),
                _ => match closest(text, words.iter().copied()) {
                    Some(meant) => format!("did you mean \"{meant}\"? Use {}", list(words.iter().copied())),
                    None => format!("use {}", list(words.iter().copied())),
                },
            };
            Err(bad(InvalidKind::BadValue, format!("{name} has no choice {}", quoted(text)), help))
        }
    }
}

/// What `"30s"` or `"1MiB"` is in the unit that the kernel counts in.
fn number_with_unit(name: &str, text: &str) -> Option<u64> {
    match (name, parse_duration(text)) {
        ("actimeo" | "acregmax" | "acdirmax" | "closetimeo" | "echo_interval", Ok(time)) => Some(time.as_secs()),
        ("handletimeout", Ok(time)) => u64::try_from(time.as_millis()).ok(),
        (_, Ok(_)) => text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic()).parse().ok(), // a count
        (_, Err(_)) => parse_size(text, SizeRange::ANY).ok(),
    }
}

fn example(known: &KnownOption) -> String {
    let name = known.name;
    match known.form {
        Form::Flag => format!("{name} = true"),
        // A page is the least that a transfer may have, and nobody's choice.
        Form::Number { multiple, .. } if multiple > 1 => format!("{name} = 1048576"),
        Form::Number { min, .. } => format!("{name} = {}", min.max(1)),
        Form::Mode if name == "dir_mode" => format!("{name} = \"0755\""),
        Form::Mode => format!("{name} = \"0644\""),
        Form::Account => format!("{name} = 1000"),
        Form::Word(words) => format!("{name} = \"{}\"", words.first().copied().unwrap_or_default()),
        Form::Text => format!("{name} = \"…\""),
    }
}

fn refuse_exclusive(path: &str, options: &BTreeMap<String, OptionEntry>, problems: &mut Problems<'_>) {
    let set = |name: &str| options.get(name).filter(|entry| entry.value.is_some());
    let of_actimeo = OF_ACTIMEO.map(|half| (half, "actimeo"));
    for (one, other) in EXCLUSIVE.iter().chain(&of_actimeo) {
        let (Some(first), Some(second)) = (set(one), set(other)) else { continue };
        problems.refuse_finding(Finding {
            kind: InvalidKind::Conflict,
            at: second.name_origin,
            key: join(path, other),
            message: format!("`{one}` and `{other}` exclude each other"),
            help: match *one {
                "soft" => "remove `hard`: a hard mount cannot be given up".to_owned(),
                half if OF_ACTIMEO.contains(&half) => {
                    "write acregmax (of files) and acdirmax (of directories), or actimeo, which is both".to_owned()
                }
                _ => "remove one of them".to_owned(),
            },
            related: Some((first.name_origin, format!("`{one}` is set here"))),
        });
    }
}

fn warn_about_hazards(path: &str, options: &BTreeMap<String, OptionEntry>, problems: &mut Problems<'_>) {
    for (name, entry) in options {
        let hazard = match &entry.value {
            None => None,
            Some(OptionValue::Flag) => hazards::of(name, None),
            Some(OptionValue::Value(value)) => hazards::of(name, Some(value)),
        };
        if let Some(Hazard { weight: Weight::Hurts, why, instead }) = hazard {
            problems.warn(entry.name_origin, join(path, name), why, instead);
        }
    }
    if let Some(entry) = options.get("soft").filter(|entry| entry.value.is_none()) {
        problems.warn(
            entry.name_origin,
            join(path, "soft"),
            "this changes nothing: a mount that is not `hard` is soft",
            "remove it, or write hard = true",
        );
    }
}
