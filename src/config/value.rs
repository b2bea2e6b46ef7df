//! Forms of single values: durations, sizes, names.

use std::time::Duration;

use super::settings::OnAccess;

/// The forms of a duration, for messages.
pub(crate) const DURATION_FORMS: &str =
    "write a number and a unit: \"500ms\", \"30s\", \"15m\", \"2h\", \"1d\", or together \"1h 30m\"";

/// Longest duration that is taken at its word: longer ones are slips of the pen. A year.
pub(crate) const DURATION_MAX: Duration = Duration::from_secs(365 * 86400);

/// Why a value was not understood, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadValue {
    pub(crate) message: String,
    pub(crate) help: String,
}

/// Parses `"15m"`, `"1h 30m"`, `"500ms"`; at most a year.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, BadValue> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) && text != "0" {
        return Err(BadValue {
            message: format!("duration {} has no unit", quoted(text)),
            help: format!("write \"{text}s\" for seconds or \"{text}m\" for minutes"),
        });
    }
    let parsed = humantime::parse_duration(text).map_err(|error| BadValue {
        message: format!("cannot understand the duration {}: {}", quoted(text), duration_problem(&error)),
        help: DURATION_FORMS.to_owned(),
    })?;
    if parsed > DURATION_MAX {
        return Err(BadValue {
            message: format!("duration {} is longer than a year", quoted(text)),
            help: DURATION_FORMS.to_owned(),
        });
    }
    Ok(parsed)
}

fn duration_problem(error: &humantime::DurationError) -> String {
    match error {
        humantime::DurationError::UnknownUnit { unit, .. } if unit.is_empty() => "a unit is missing".to_owned(),
        humantime::DurationError::UnknownUnit { unit, .. } => format!("there is no unit {}", quoted(unit)),
        humantime::DurationError::Empty => "it is empty".to_owned(),
        humantime::DurationError::NumberExpected(_) => "a number is expected before each unit".to_owned(),
        humantime::DurationError::InvalidCharacter(_) => "it has a character that does not belong there".to_owned(),
        humantime::DurationError::NumberOverflow => "the number is too large".to_owned(),
    }
}

/// How long an access may wait for a share: a person in front of a file manager gives up sooner, and what waits cannot be
/// stopped or frozen (facts: D in `autofs_wait`, SIGKILL works).
const ACCESS_WAIT_LIMITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));

/// Parses `"fail"` or `"wait 30s"`.
pub(crate) fn parse_on_access(text: &str) -> Result<OnAccess, BadValue> {
    if text == "fail" {
        return Ok(OnAccess::Fail);
    }
    let forms = || "write \"fail\" or \"wait 30s\"".to_owned();
    let Some(duration) = text.strip_prefix("wait").map(str::trim_start) else {
        return Err(BadValue { message: format!("there is no choice {}", quoted(text)), help: forms() });
    };
    if duration.is_empty() {
        let message = "how long to wait is missing".to_owned();
        return Err(BadValue { message, help: "write \"wait 30s\"; \"fail\" does not wait".to_owned() });
    }
    let wait = parse_duration(duration).map_err(|bad| BadValue { help: forms(), ..bad })?;
    if wait < ACCESS_WAIT_LIMITS.0 || wait > ACCESS_WAIT_LIMITS.1 {
        let (least, most) = (show_duration(ACCESS_WAIT_LIMITS.0), show_duration(ACCESS_WAIT_LIMITS.1));
        let message = format!("to wait {} is out of range", show_duration(wait));
        return Err(BadValue { message, help: format!("use \"wait {least}\" to \"wait {most}\", or \"fail\"") });
    }
    Ok(OnAccess::Wait(wait))
}

/// `2m 30s`: a duration as it would be written in the configuration.
pub(crate) fn show_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// The sizes that a place takes: nothing else is suggested for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SizeRange {
    pub(crate) least: u64,
    pub(crate) most: u64,
}

impl SizeRange {
    /// Any.
    pub(crate) const ANY: Self = Self { least: 0, most: u64::MAX };

    fn has(self, bytes: u64) -> bool {
        (self.least..=self.most).contains(&bytes)
    }

    fn example(self) -> String {
        const USUAL: u64 = 2 << 20;
        show_size(if self.has(USUAL) { USUAL } else { self.least.saturating_mul(4).min(self.most) })
    }

    pub(crate) fn forms(self) -> String {
        format!("write a whole number with KiB, MiB or GiB, such as \"{}\"", self.example())
    }

    /// What somebody who wrote plain bytes meant: `2097152` is `"2MiB"`.
    pub(crate) fn suggest(self, number: &str) -> String {
        let number = number.parse().unwrap_or(0_u64);
        if number == 0 && self.has(0) {
            return format!("write \"{}\"", show_size(0));
        }
        let bytes = Some(number).filter(|bytes| *bytes >= 1 << 10);
        let of_unit = |shift: u32| number.checked_mul(1 << shift);
        let fits = |bytes: &u64| *bytes > 0 && self.has(*bytes);
        match [bytes, of_unit(20), of_unit(30), of_unit(10)].into_iter().flatten().find(fits) {
            Some(bytes) => format!("write \"{}\"", show_size(bytes)),
            None => format!("write how much it is, such as \"{}\"", self.example()),
        }
    }
}

/// Parses `"2MiB"`. Only binary units, because "MB" means two different numbers to different programs.
pub(crate) fn parse_size(text: &str, range: SizeRange) -> Result<u64, BadValue> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let bad = |message: String, help: String| Err(BadValue { message, help });
    let forms = range.forms();
    if number.is_empty() {
        return bad(format!("cannot understand the size {}", quoted(text)), forms);
    }
    let factor = match unit.trim_start() {
        "KiB" => 1_u64 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "" => {
            let help = format!("sizes are written with KiB, MiB or GiB: {}", range.suggest(number));
            return bad(format!("size {} has no unit", quoted(text)), help);
        }
        other => {
            // of a unit that there is, or what is meant would be asked for without an end
            let letter = other.chars().next().map(|c| c.to_ascii_uppercase()).filter(|letter| "KMG".contains(*letter));
            let meant = letter.map(|letter| format!("{number}{letter}iB"));
            let meant = meant.filter(|meant| parse_size(meant, range).is_ok_and(|bytes| range.has(bytes)));
            let help = meant.map_or(forms, |meant| format!("write \"{meant}\""));
            return bad(format!("size {} has an unknown unit", quoted(text)), help);
        }
    };
    match number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)) {
        Some(bytes) => Ok(bytes),
        None => bad(format!("size {} is too large", quoted(text)), forms),
    }
}

/// The shortest exact form in binary units, rounded up to a KiB.
pub(crate) fn show_size(bytes: u64) -> String {
    match bytes {
        0 => "0KiB".to_owned(),
        _ if bytes.is_multiple_of(1 << 30) => format!("{}GiB", bytes >> 30),
        _ if bytes.is_multiple_of(1 << 20) => format!("{}MiB", bytes >> 20),
        _ => format!("{}KiB", bytes.div_ceil(1 << 10)),
    }
}

/// A value in double quotes for a message: short enough for a line, without control characters, and not at all if it looks
/// like a login.
pub(crate) fn quoted(text: &str) -> String {
    const SHOWN_MAX: usize = 64;
    if super::source::looks_like_login(text) {
        return "\"…\"".to_owned();
    }
    match text.char_indices().nth(SHOWN_MAX) {
        Some((cut, _)) => format!("{:?}…", &text[..cut]),
        None => format!("{text:?}"),
    }
}

/// A path for a message: its control characters are escaped, or a file name could write what it likes on a terminal.
pub(crate) fn shown(path: &std::path::Path) -> String {
    escaped(&path.to_string_lossy())
}

/// A text as a terminal may have it, in one line: what the terminal would obey (control characters, and those that turn the direction of
/// writing) is escaped, as in JSON.
pub(crate) fn escaped(text: &str) -> String {
    escaped_but(text, &[])
}

/// The same of a text with lines and tabs of its own.
pub(crate) fn escaped_lines(text: &str) -> String {
    escaped_but(text, &['\n', '\t'])
}

fn escaped_but(text: &str, kept: &[char]) -> String {
    let turns =
        |letter: char| matches!(letter, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            letter if kept.contains(&letter) => escaped.push(letter),
            '\n' | '\t' | '\r' => escaped.extend(letter.escape_default()),
            letter if letter.is_control() || turns(letter) => escaped += &format!("\\u{:04x}", u32::from(letter)),
            letter => escaped.push(letter),
        }
    }
    escaped
}

/// The known word that was probably meant: close in letters, or the same but for case and `-`/`_`.
pub(crate) fn closest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if word.trim().is_empty() {
        return None;
    }
    let plain = word.to_ascii_lowercase().replace('-', "_");
    let starts_otherwise = |candidate: &str| candidate.chars().next() != plain.chars().next();
    known
        .map(|candidate| (strsim::damerau_levenshtein(&plain, candidate), starts_otherwise(candidate), candidate))
        .filter(|(distance, _, candidate)| *distance <= candidate.len().div_ceil(3).min(3))
        .min()
        .map(|(.., candidate)| candidate)
}

/// Whether a text can name a share or a server: letters, digits, `-`, `_`, 1..=64 of them.
pub(crate) fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// Words in a sentence: `a`, `a or b`, `a, b or c`.
pub(crate) fn list<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<&str> = words.into_iter().collect();
    match words.as_slice() {
        [] => "none".to_owned(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("1h 30m").unwrap(), Duration::from_secs(5400));
        assert_eq!(parse_duration("0s").unwrap(), Duration::ZERO);
        assert_eq!(parse_duration("15").unwrap_err().help, "write \"15s\" for seconds or \"15m\" for minutes");
        assert!(parse_duration("15 parsecs").unwrap_err().message.contains("no unit \"parsecs\""));
        assert!(parse_duration("-3s").is_err());
        assert!(parse_duration("20000000h").unwrap_err().message.contains("longer than a year"));
    }

    #[test]
    fn sizes_are_binary() {
        let parse_size = |text| parse_size(text, SizeRange::ANY);
        assert_eq!(parse_size("2MiB").unwrap(), 2 << 20);
        assert_eq!(parse_size("64 KiB").unwrap(), 64 << 10);
        assert_eq!(parse_size("1GiB").unwrap(), 1 << 30);
        assert_eq!(parse_size("4MB").unwrap_err().help, "write \"4MiB\"");
        assert_eq!(parse_size("4m").unwrap_err().help, "write \"4MiB\"");
        assert!(parse_size("0").unwrap_err().help.ends_with("write \"0KiB\""));
        assert_eq!(show_size(0), "0KiB");
        assert!(parse_size("2097152").unwrap_err().help.ends_with("write \"2MiB\""));
        assert!(parse_size("99999999999999999999GiB").is_err());
        assert!(parse_size("lots").is_err());
    }

    #[test]
    fn a_unit_that_nobody_knows_is_said_to_be_that() {
        let odd = "0B 1B 1TiB 2T 1t 1PiB 1.5MiB 1,5MiB 1_000KiB 0x10KiB 1% 1iB 1ß";
        for text in odd.split(' ') {
            let message = parse_size(text, SizeRange::ANY).unwrap_err().message;
            assert!(message.ends_with("has an unknown unit"), "{text}: {message}");
        }
        for text in ["1 byte", "160 bytes", "1kb", "1 gigabyte"] {
            assert!(parse_size(text, SizeRange::ANY).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_suggested_can_be_written() {
        let range = SizeRange { least: 16 << 20, most: 32 << 30 };
        let help = |text| parse_size(text, range).unwrap_err().help;
        for (text, suggested) in [
            ("1", "1GiB"),
            ("0", "64MiB"),
            ("2097152", "2GiB"), // of KiB
            ("33554432", "32MiB"),
            ("64", "64MiB"),
            ("4MB", "64MiB"),
            ("40MB", "40MiB"),
            ("lots", "64MiB"),
        ] {
            assert!(help(text).ends_with(&format!("\"{suggested}\"")), "{text}: {}", help(text));
        }
    }

    #[test]
    fn a_slip_of_the_pen_is_recognised() {
        let known = ["hold_for", "mount_point", "profile"];
        assert_eq!(closest("hold-for", known.into_iter()), Some("hold_for"));
        assert_eq!(closest("mountpoint", known.into_iter()), Some("mount_point"));
        assert_eq!(closest("colour", known.into_iter()), None);
        assert_eq!(closest("uuid", ["gid", "suid", "uid"].into_iter()), Some("uid"), "first letters are seldom wrong");
        assert_eq!(closest("", ["g"].into_iter()), None);
    }
}
