//! Addresses of shares as people copy them: `smb://host/share`, `//host/share`, `\\host\share`.

use core::net::IpAddr;

/// What an address names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// A name or an address, without brackets.
    pub host: String,
    /// `share[/directory]`, if it names one.
    pub source: Option<String>,
}

/// Reads it; `None` if the text is a bare word or a path of this host, or why it cannot be used: a message, and what to do.
pub fn named(text: &str) -> Option<Result<Named, (&'static str, &'static str)>> {
    const SCHEMES: [&str; 2] = ["smb:", "cifs:"];
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
    let is_host = host.contains(':') || host.starts_with('[') || (host.contains('.') && !host.starts_with('.'));
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
    }
}
