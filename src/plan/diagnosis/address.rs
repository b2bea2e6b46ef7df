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

/// Reads it; `None` if the text is no such address, or why it cannot be used: a message, and what to do.
pub fn named(text: &str) -> Option<Result<Named, (&'static str, &'static str)>> {
    const SCHEMES: [&str; 2] = ["smb://", "cifs://"];
    let scheme =
        SCHEMES.iter().find(|scheme| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)));
    let (rest, is_url) = match scheme {
        Some(scheme) => (text[scheme.len()..].to_owned(), true),
        None => {
            // the shell has eaten half of the backslashes, if they were not quoted
            let text = text.replace('\\', "/");
            let rest = text.strip_prefix("//").or_else(|| text.strip_prefix('/').filter(|rest| rest.contains('/')))?;
            (rest.to_owned(), false)
        }
    };
    Some(parts(&rest, is_url))
}

fn parts(rest: &str, is_url: bool) -> Result<Named, (&'static str, &'static str)> {
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    if host.contains('@') {
        return Err(("a login does not belong in an address", "leave it out; logins are in credentials files"));
    }
    let bracketed = host.strip_prefix('[').and_then(|host| host.split_once(']'));
    let is_ipv6 = |host: &str| matches!(host.parse(), Ok(IpAddr::V6(_)));
    let (host, port) = match bracketed {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None if is_ipv6(host) => (host, None),
        None => host.split_once(':').map_or((host, None), |(host, port)| (host, Some(port))),
    };
    if port.is_some_and(|port| port != "445") {
        return Err(("only port 445 is supported", "leave the port out"));
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
    fn what_is_none_or_cannot_be_used_is_told_apart() {
        for text in ["films", "tower.lan", "10.10.0.35", "fd00::35", "/films", "http://tower/films"] {
            assert_eq!(named(text), None, "{text}");
        }
        let why = |text: &str| named(text).unwrap().unwrap_err().0;
        assert!(why("smb://bob:secret@tower/films").contains("login"));
        assert!(why("//tower:139/films").contains("445"));
        assert!(why("smb:///films").contains("no host"));
        assert!(why("smb://tower/%ff").contains("%-code"));
    }
}
