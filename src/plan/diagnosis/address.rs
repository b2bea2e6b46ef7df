//! Addresses of shares as people copy them: `smb://host/share`, `//host/share`, `\\host\share`.

use core::net::{IpAddr, Ipv6Addr};

use crate::config::{FOUR_NUMBERS, is_almost_ipv4, unusable_address};

/// A message, and what to do.
type Unusable = (String, &'static str);

/// What an address names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// A name or an address, without brackets; a link-local one has a zone, and no other has.
    pub host: String,
    /// `share[/directory]`, if it names one.
    pub source: Option<String>,
}

/// Reads it; `None` if the text is a bare word or a path of this host, or why it cannot be used: a message, and what to do.
///
/// `localhost` is a host as it is: nobody gives it a dot.
pub fn named(text: &str) -> Option<Result<Named, (String, &'static str)>> {
    named_or(text).map(|named| {
        let Named { host, source } = named.map_err(|(message, hint)| (message.to_owned(), hint))?;
        unless_unusable(&host)?;
        Ok(Named { host, source })
    })
}

fn unless_unusable(host: &str) -> Result<(), Unusable> {
    let wrong = |message: String, hint| Err((message, hint));
    if host.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return wrong("no host has blanks or control characters in its name".to_owned(), "write the host without them");
    }
    match (host.split_once('%'), host.parse::<IpAddr>()) {
        (Some((address, zone)), _) => match address.parse::<Ipv6Addr>() {
            Ok(address) if address.is_unicast_link_local() && !zone.is_empty() => Ok(()),
            Ok(address) if address.is_unicast_link_local() => {
                wrong(format!("{address}% names no interface"), WITH_ZONE)
            }
            Ok(address) => wrong(
                format!("{address} is no link-local address, and only those have a zone"),
                "leave out what follows the %",
            ),
            // maybe a login: not repeated
            Err(_) => wrong(
                "this is not an address or a name".to_owned(),
                "write an address or a name; logins are in credentials files",
            ),
        },
        (None, Ok(IpAddr::V6(address))) if address.is_unicast_link_local() => {
            wrong(format!("{address} is a link-local address, which means nothing without its interface"), WITH_ZONE)
        }
        (None, Ok(address)) => match unusable_address(address) {
            Some(why) => wrong(format!("{address} is {why}"), "write the server's own address, or its name"),
            None => Ok(()),
        },
        (None, Err(_)) if is_almost_ipv4(host) => wrong(
            format!("{host} is no IPv4 address: {FOUR_NUMBERS}"),
            "write it whole, such as 192.168.1.10, or a name",
        ),
        (None, Err(_)) => Ok(()),
    }
}

const WITH_ZONE: &str = "write the interface behind it, such as fe80::1%eth0; `ip -br address` lists what there is";

/// A link-local address and its zone, an interface: `fe80::1%eth0`.
pub fn zoned(host: &str) -> Option<(Ipv6Addr, &str)> {
    let (address, zone) = host.split_once('%')?;
    Some((address.parse().ok()?, zone))
}

fn named_or(text: &str) -> Option<Result<Named, (&'static str, &'static str)>> {
    const SCHEMES: [&str; 2] = ["smb:", "cifs:"];
    if text.trim().is_empty() {
        return Some(Err(("the name is empty", "write a share, its mount point, a host, or //HOST/SHARE")));
    }
    let plain = text.replace('\\', "/");
    let of_scheme =
        SCHEMES.iter().find(|scheme| plain.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)));
    if let Some(rest) = of_scheme.and_then(|scheme| plain[scheme.len()..].strip_prefix("//")) {
        return Some(parts(rest, true));
    }
    if plain.split_once("://").is_some_and(|(scheme, _)| !scheme.contains('/')) {
        return Some(Err(("this is no address of a share", "write //HOST/SHARE, or smb://HOST/SHARE")));
    }
    // a shell takes one half of the backslashes, or a second pair of quotes doubles them
    let quoted_twice = plain.strip_prefix("////").filter(|_| text.starts_with('\\'));
    if let Some(rest) = quoted_twice.or_else(|| plain.strip_prefix("//")) {
        return Some(parts(rest, false));
    }
    if text.starts_with('\\') {
        let rest = plain.trim_start_matches('/');
        let eaten =
            ("the address names no share", r"put it into quotes, or the shell takes the backslashes: '\\HOST\SHARE'");
        return Some(if rest.contains('/') { parts(rest, false) } else { Err(eaten) });
    }
    let host = plain.split('/').next().unwrap_or_default();
    let is_host = host.contains(':')
        || host.starts_with('[')
        || (host.contains('.') && !host.starts_with('.'))
        || host.eq_ignore_ascii_case("localhost");
    is_host.then(|| parts(&plain, false))
}

fn parts(rest: &str, is_url: bool) -> Result<Named, (&'static str, &'static str)> {
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    if host.contains('@') {
        return Err(("a login does not belong in an address", "leave it out; logins are in credentials files"));
    }
    let (host, port) = match host.strip_prefix('[') {
        Some(bracketed) => match bracketed.split_once(']') {
            Some((host, port)) if is_ipv6(host) && (port.is_empty() || port.starts_with(':')) => {
                (host, port.strip_prefix(':'))
            }
            _ => {
                return Err((
                    "the brackets are not round an IPv6 address",
                    "write [ADDRESS], or the host without them",
                ));
            }
        },
        None if is_ipv6(host) => (host, None),
        None => host.split_once(':').map_or((host, None), |(host, port)| (host, Some(port))),
    };
    if port.is_some_and(|port| port != "445") {
        return Err(("CIFS shares are on port 445", "leave the port out"));
    }
    if host.is_empty() {
        return Err(("the address names no host", "write //HOST/SHARE"));
    }
    let path = if is_url {
        decoded(path).ok_or(("a %-code in the address is no text", "write it as //HOST/SHARE"))?
    } else {
        path.to_owned()
    };
    let path: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    Ok(Named { host: host.to_owned(), source: (!path.is_empty()).then(|| path.join("/")) })
}

/// Also one with a zone: `fe80::1%eth0`.
fn is_ipv6(host: &str) -> bool {
    let address = host.split_once('%').map_or(host, |(address, _)| address);
    matches!(address.parse(), Ok(IpAddr::V6(_)))
}

/// `%20` and its kin are bytes; a `%` that is none stands for itself.
fn decoded(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|code| core::str::from_utf8(code).ok());
        match code.filter(|_| first == b'%').and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn every_spelling_names_the_same() {
        let of =
            |text: &str| named(text).map(|named| named.map(|named| (named.host, named.source.unwrap_or_default())));
        let films = |host: &str| Some(Ok((host.to_owned(), "my films/new".to_owned())));
        for text in [
            "smb://tower/my%20films/new",
            "SMB://tower:445/my films/new/",
            "cifs://tower//my films/new",
            "//tower/my films/new",
            r"\\tower\my films\new",
            r"\tower\my films\new",
            r"\\\\tower\\my films\\new",
            r"smb:\\tower\my films\new",
        ] {
            assert_eq!(of(text), films("tower"), "{text}");
        }
        assert_eq!(of("smb://[fd00::35]/my films/new"), films("fd00::35"));
        assert_eq!(of("//fd00::35/my films/new"), films("fd00::35"));
        assert_eq!(of("smb://tower"), Some(Ok(("tower".to_owned(), String::new()))));
        assert_eq!(named("//tower/100%").unwrap().unwrap().source.unwrap(), "100%");
        assert_eq!(named("smb://tower/100%").unwrap().unwrap().source.unwrap(), "100%");
    }

    #[test]
    fn a_host_needs_no_slashes_if_nothing_else_looks_like_it() {
        for (text, host, source) in [
            ("tower.lan", "tower.lan", None),
            ("10.10.0.35", "10.10.0.35", None),
            ("fd00::35", "fd00::35", None),
            ("fe80::35%eth0", "fe80::35%eth0", None),
            ("[::1]", "::1", None),
            ("[::1]:445", "::1", None),
            ("tower:445", "tower", None),
            ("10.10.0.35:445", "10.10.0.35", None),
            ("10.10.0.35/films", "10.10.0.35", Some("films")),
            (r"10.10.0.35\films", "10.10.0.35", Some("films")),
            ("[::1]/films", "::1", Some("films")),
            ("localhost", "localhost", None),
            ("localhost/films", "localhost", Some("films")),
        ] {
            let expected = Named { host: host.to_owned(), source: source.map(str::to_owned) };
            assert_eq!(named(text), Some(Ok(expected)), "{text}");
        }
    }

    #[test]
    fn what_is_none_or_cannot_be_used_is_told_apart() {
        for text in ["films", "/films", "/mnt/films", "films/new", "./films", "../films"] {
            assert_eq!(named(text), None, "{text}");
        }
        let why = |text: &str| named(text).unwrap().unwrap_err().0;
        assert!(why("smb://bob:secret@tower/films").contains("login"));
        for text in ["//tower:139/films", "10.10.0.35:139", "[::1]:139", "tower:"] {
            assert!(why(text).contains("445"), "{text}");
        }
        for text in ["[tower]", "[::1", "[::1]x", "[]"] {
            assert!(why(text).contains("brackets"), "{text}");
        }
        assert!(why("smb:///films").contains("no host"));
        assert!(why("smb://tower/%ff").contains("%-code"));
        assert!(why("http://tower/films").contains("no address of a share"));
        assert!(why(r"\towerfilms").contains("no share"));
        for text in ["", " ", "\t\n"] {
            assert!(why(text).contains("empty"), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_address_of_a_server_is_told_before_anything_is_sent() {
        let why = |text: &str| named(text).unwrap().unwrap_err().0;
        for text in ["1.2.3", "10.0.0.256", "1.2.3.4.5", "010.0.0.1", "0x7f.1", "smb://1", "//1.2.3/films"] {
            assert!(why(text).contains("four numbers"), "{text}: {}", why(text));
        }
        for (text, word) in [
            ("0.0.0.0", "no address of a server"),
            ("::", "no address of a server"),
            ("255.255.255.255", "everybody"),
            ("224.0.0.1", "group"),
            ("//[ff02::1]/films", "group"),
            ("fe80::1", "interface"),
            ("fe80::1%", "interface"),
            ("fd00::1%eth0", "only those have a zone"),
            ("bob%Secret.lan", "not an address or a name"),
            ("tower.l\u{1b}an", "control characters"),
            ("my nas.lan", "blanks"),
        ] {
            assert!(why(text).contains(word) && !why(text).contains("Secret"), "{text}: {}", why(text));
        }
        let zone = "fe80::35%eth0".to_owned();
        assert_eq!(zoned(&named("[fe80::35%eth0]:445").unwrap().unwrap().host), zoned(&zone));
        assert_eq!((zoned("fd00::1"), zoned("tower.lan")), (None, None));
    }
}
