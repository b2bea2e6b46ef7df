//! Where a share appears and what it is on the server.

use std::path::PathBuf;

use super::units::mount_unit;
use super::value::{BadValue, quoted};

/// systemd's limit for a unit name; every mount point has a `.mount` unit.
const UNIT_NAME_MAX: usize = 255;

/// `//` + an IPv6 literal (39) + `/` and the source must fit into fsconfig's 255 bytes.
const SOURCE_MAX: usize = crate::plan::catalogue::VALUE_MAX - 42;

/// What belongs to the kernel, to systemd, to the packages and to nasmount: nothing of anybody's is mounted in them.
const RESERVED: &[&str] = &[
    "/proc",
    "/sys",
    "/dev",
    "/run",
    "/boot",
    "/etc",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/usr/bin",
    "/usr/sbin",
    "/usr/lib",
    "/usr/local/bin",
    "/usr/local/lib",
    "/usr/local/sbin",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/libexec",
    "/var/lib/nasmount",
    "/var/lib/dpkg",
    "/var/lib/systemd",
];

/// Directories without which the host does not work; a directory inside of them is fine.
const NEEDED: &[&str] = &[
    "/home",
    "/opt",
    "/root",
    "/tmp",
    "/usr",
    "/usr/local",
    "/usr/share",
    "/var",
    "/var/cache",
    "/var/lib",
    "/var/log",
    "/var/spool",
    "/var/tmp",
];

fn bad<T>(message: impl Into<String>, help: impl Into<String>) -> Result<T, BadValue> {
    Err(BadValue { message: message.into(), help: help.into() })
}

/// `\040`, with which fstab writes a blank, is none in TOML.
fn refuse_fstab_escape(text: &str) -> Result<(), BadValue> {
    match text.replace("\\040", " ") {
        plain if plain != text => {
            bad("`\\040` is fstab's way of writing a blank", format!("write the blank itself: {}", quoted(&plain)))
        }
        _ => Ok(()),
    }
}

/// Checks and normalises a mount point: repeated and trailing slashes go, `.` and `..` are refused.
pub(crate) fn parse_mount_point(text: &str) -> Result<PathBuf, BadValue> {
    let example = "write an absolute path, such as \"/mnt/media\"";
    if text.is_empty() {
        return bad("the mount point is empty", example);
    }
    if text.starts_with(['~', '$']) {
        return bad(format!("nobody expands `{}` here", &text[..1]), "write the whole path, such as \"/home/bob/nas\"");
    }
    if text.starts_with("//") && text.contains('.') || text.starts_with('\\') || text.contains("://") {
        return bad("this is the share's address, not the path on which it appears", example);
    }
    if !text.starts_with('/') {
        return bad(format!("{} is not an absolute path", quoted(text)), example);
    }
    refuse_fstab_escape(text)?;
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty()).collect();
    if parts.iter().any(|part| matches!(*part, "." | "..")) {
        return bad("a mount point must not contain `.` or `..`", "write the path without them");
    }
    if parts.is_empty() {
        return bad("the root directory cannot be a mount point", example);
    }
    let path = format!("/{}", parts.join("/"));
    if let Some(reserved) = RESERVED.iter().find(|reserved| is_within(&path, reserved)) {
        return bad(format!("{reserved} belongs to the system"), "choose a directory such as \"/mnt/NAME\"");
    }
    if NEEDED.contains(&path.as_str()) {
        return bad(format!("the host needs {path} itself"), format!("choose a directory in it: \"{path}/NAME\""));
    }
    if mount_unit(&path).len() > UNIT_NAME_MAX {
        let message = format!("the path is too long: its systemd unit would need more than {UNIT_NAME_MAX} bytes");
        return bad(message, "choose a shorter path");
    }
    Ok(PathBuf::from(path))
}

/// Whether `path` is `parent` or lies below it; both normalised.
pub(crate) fn is_within(path: &str, parent: &str) -> bool {
    path.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Checks a source: share name, optionally with directories. A trailing slash goes.
pub(crate) fn parse_source(text: &str) -> Result<String, BadValue> {
    let example = "write only the share's name, such as source = \"media\" or source = \"media/films\"";
    if text.contains(['@', '%']) && text.contains("//") {
        return bad("the source looks like an address with a login in it", example);
    }
    let instead = |meant: &str, how: &str| match parse_source(meant) {
        Ok(source) => format!("{how}: source = {}", quoted(&source)),
        Err(_) => example.to_owned(), // what is suggested is no mistake itself
    };
    refuse_fstab_escape(text)?;
    if text.contains('\\') || text.starts_with("//") || text.contains("://") {
        let plain = text.replace('\\', "/");
        let rest = plain.split_once("//").map_or(plain.as_str(), |(_, rest)| rest);
        let help = match rest.trim_matches('/').split_once('/') {
            Some((_, share)) if text.starts_with(['/', '\\']) || text.contains("://") => {
                instead(share, "write only the share's name")
            }
            _ if !rest.is_empty() && !plain.contains("//") => instead(rest, "write it with slashes"),
            _ => example.to_owned(),
        };
        return bad("the source must not name the server or contain backslashes", help);
    }
    if text.starts_with('/') {
        let help = instead(text.trim_matches('/'), "write it without the first slash");
        return bad("the source is a share's name, not a path", help);
    }
    let text = text.strip_suffix('/').unwrap_or(text);
    if text.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return bad("the source has an empty part, `.` or `..`", example);
    }
    if text.eq_ignore_ascii_case("ipc$") || text.eq_ignore_ascii_case("print$") {
        return bad(format!("{text} is the server's own and has no files for a mount"), example);
    }
    if text.trim() != text {
        return bad("the source begins or ends with a blank", instead(text.trim(), "write it without the blank"));
    }
    if let Some(letter) = text.chars().find(|c| matches!(c, '"' | '*' | ':' | '<' | '>' | '?' | '|')) {
        return bad(format!("a share or directory cannot have `{letter}` in its name"), example);
    }
    if text.len() > SOURCE_MAX {
        let message = format!("the source has {} bytes, and the kernel takes {SOURCE_MAX}", text.len());
        return bad(message, "mount a directory nearer to the top");
    }
    Ok(text.to_owned())
}

/// Checks a marker: a path below the share's root.
pub(crate) fn parse_marker(text: &str) -> Result<String, BadValue> {
    let example = "write a path below the share's root, such as marker = \".this-is-media\"";
    if text.starts_with('/') {
        let help = match parse_marker(text.trim_matches('/')) {
            Ok(marker) => format!("write it without the first slash: marker = {}", quoted(&marker)),
            Err(_) => example.to_owned(),
        };
        return bad("a marker is a path below the share's root", help);
    }
    if text.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return bad("the marker has an empty part, `.` or `..`", example);
    }
    Ok(text.to_owned())
}

/// Checks a server's address or name.
pub(crate) fn parse_host(text: &str) -> Result<String, BadValue> {
    let example = "write an address or a name: host = \"10.10.0.35\" or host = \"nas.example.org\"";
    if let Ok(address) = text.parse::<core::net::IpAddr>() {
        if address.to_canonical() != address {
            let help = format!("write it as IPv4: host = \"{}\"", address.to_canonical());
            return bad("this is an IPv4 address in IPv6 form", help);
        }
        return match unusable_address(address) {
            None => Ok(text.to_owned()),
            Some(why) => bad(format!("{text} is {why}"), example),
        };
    }
    if text.contains('@') {
        return bad("this is not an address or a name", example); // maybe a login: not repeated
    }
    if text.contains(['/', '\\']) {
        let plain = text.replace('\\', "/");
        let rest = plain.split_once("//").map_or(plain.as_str(), |(_, rest)| rest);
        let (host, share) = rest.split_once('/').unwrap_or((rest, ""));
        let help = match (parse_host(host), share.trim_matches('/')) {
            (Ok(host), "") => format!("write host = {}", quoted(&host)),
            (Ok(host), "445") => format!("write host = {}", quoted(&host)),
            (Ok(_), share) if share.bytes().all(|byte| byte.is_ascii_digit()) => example.to_owned(), // a network
            (Ok(host), share) => {
                format!("write host = {}, and the rest in [share.NAME]: source = {}", quoted(&host), quoted(share))
            }
            (Err(_), _) => example.to_owned(),
        };
        return bad("this is not an address or a name, but more than that", help);
    }
    if text.trim() != text && parse_host(text.trim()).is_ok() {
        return bad("the host begins or ends with a blank", format!("write host = {}", quoted(text.trim())));
    }
    let unbracketed = text.trim_start_matches('[').trim_end_matches(']');
    if unbracketed != text && unbracketed.parse::<core::net::IpAddr>().is_ok() {
        return bad("an address has no brackets here", format!("write host = {}", quoted(unbracketed)));
    }
    if let Some((address, _)) = text.split_once('%') {
        let message = match address.parse::<core::net::Ipv6Addr>() {
            Ok(_) => "a link-local address with a zone is not supported",
            Err(_) => "this is not an address or a name", // maybe a login: not repeated
        };
        return bad(message, example);
    }
    if let Some((name, port)) = text.rsplit_once(':')
        && port.bytes().all(|byte| byte.is_ascii_digit())
    {
        return bad("a port cannot be chosen: it is always 445", format!("write host = {}", quoted(name)));
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
    };
    if is_almost_ipv4(text) {
        return bad(format!("{} is no IPv4 address: {FOUR_NUMBERS}", quoted(text)), example);
    }
    if !text.is_ascii() && !text.contains(|c: char| c.is_control() || c.is_whitespace()) {
        let message = format!("{} has letters that names of hosts do not have", quoted(text));
        let help = "write the address, or the name as DNS has it: each part with such letters as `xn--…` (`idn2 NAME` prints it)";
        return bad(message, help);
    }
    if text.len() > 253 || !text.strip_suffix('.').unwrap_or(text).split('.').all(label) {
        return bad(format!("{} is neither an address nor a name", quoted(text)), example);
    }
    Ok(text.to_owned())
}

/// What an IPv4 address has.
pub(crate) const FOUR_NUMBERS: &str = "one has four numbers from 0 to 255, with dots between and no zeros before them";

/// Whether a text is none, and a resolver would take it for one all the same: `1.2.3` is 1.2.0.3 to it, `010.0.0.1` is 8.0.0.1, and `0x7f.1`
/// this host itself (inet_aton(3)).
pub(crate) fn is_almost_ipv4(text: &str) -> bool {
    let is_number = |part: &str| match part.strip_prefix("0x").or_else(|| part.strip_prefix("0X")) {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => part.bytes().all(|byte| byte.is_ascii_digit()),
    };
    !text.is_empty() && text.split('.').all(is_number) && text.parse::<core::net::Ipv4Addr>().is_err()
}

/// Why nobody's server can be at an address.
pub(crate) fn unusable_address(address: core::net::IpAddr) -> Option<&'static str> {
    use core::net::IpAddr;
    match address {
        _ if address.is_unspecified() => Some("no address of a server"),
        _ if address.is_multicast() => Some("an address of a group, not of a server"),
        IpAddr::V4(address) if address.is_broadcast() => Some("the address of everybody, not of a server"),
        IpAddr::V6(address) if address.is_unicast_link_local() => {
            Some("a link-local address, which means nothing without its interface")
        }
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::path::Path;

    use super::*;

    #[test]
    fn mount_points_are_normalised_or_refused() {
        assert_eq!(parse_mount_point("//mnt///media/").unwrap(), Path::new("/mnt/media"));
        for text in [
            "",
            "mnt",
            "/",
            "//",
            "/mnt/../x",
            "/mnt/./x",
            "/proc",
            "/run/media/x",
            "/dev/",
            "/etc/nas",
            "/usr/",
            "/home",
        ] {
            assert!(parse_mount_point(text).is_err(), "{text}");
        }
        for text in ["/devices", "/srv", "/home/me/nas", "/etc2/x", "/run2", "/usr/local/nas"] {
            assert!(parse_mount_point(text).is_ok(), "{text}");
        }
        assert!(parse_mount_point(&format!("/{}", "ä".repeat(40))).is_err(), "320 bytes when escaped");
        assert!(parse_mount_point(&format!("/{}", "a".repeat(200))).is_ok());
    }

    #[test]
    fn sources_are_names() {
        assert_eq!(parse_source("media/films/").unwrap(), "media/films");
        assert_eq!(parse_source("home$").unwrap(), "home$");
        for (text, help) in [
            ("//nas/media", "source = \"media\""),
            ("\\\\nas\\media\\films", "source = \"media/films\""),
            ("smb://nas/media", "source = \"media\""),
            ("media\\films", "source = \"media/films\""),
            ("/media", "source = \"media\""),
        ] {
            let help_given = parse_source(text).unwrap_err().help;
            assert!(help_given.ends_with(help), "{text}: {help_given}");
        }
        for text in ["", "a//b", "../x", "a:b", "//bob:pw@nas/media", "//nas"] {
            assert!(parse_source(text).is_err(), "{text}");
        }
        for text in
            ["/", "///", "\\", "/a//b", "/..", "//nas/", "//nas/ipc$", "\\\\nas\\a:b", "a\\..", " ", " /", "/ipc$"]
        {
            let help = parse_source(text).unwrap_err().help;
            assert!(help.ends_with("such as source = \"media\" or source = \"media/films\""), "{text}: {help}");
        }
        for text in ["/", "/a//b", "/../x"] {
            let help = parse_marker(text).unwrap_err().help;
            assert!(help.ends_with("such as marker = \".this-is-media\""), "{text}: {help}");
        }
        assert!(parse_source(&"x".repeat(214)).is_err());
        assert!(!format!("{:?}", parse_source("//bob:pw@nas/media")).contains("pw"));
    }

    #[test]
    fn hosts_are_addresses_or_names() {
        for text in ["10.10.0.35", "fd00::1", "nas", "nas.example.org.", "my_nas"] {
            assert_eq!(parse_host(text).unwrap(), text);
        }
        for text in [
            "",
            "10.10.0.350",
            "[fd00::1]",
            "nas:445",
            "//nas",
            "bob:pw@nas",
            "fe80::1%eth0",
            "na s",
            "-x",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "255.255.255.255",
            "fe80::1",
        ] {
            assert!(parse_host(text).is_err(), "{text}");
        }
    }
}
