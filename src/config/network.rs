//! On which networks a server may be asked: ranges of addresses and interfaces of this host.

use core::net::IpAddr;
use std::fmt;

use ipnet::{IpNet, Ipv4Net};

use super::value::{BadValue, quoted};

/// IFNAMSIZ of the kernel, without the byte that ends it.
const INTERFACE_MAX: usize = 15;

/// A network, as this host sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HomeNetwork {
    /// This host is on it if one of its addresses is in this range.
    Range(IpNet),
    /// This host is on it if this interface has an address.
    Interface(String),
}

impl fmt::Display for HomeNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(range) => range.fmt(f),
            Self::Interface(name) => f.write_str(name),
        }
    }
}

/// All of them, as they stand in a sentence.
pub fn listed(networks: &[HomeNetwork]) -> String {
    networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn bad<T>(message: impl Into<String>, help: impl Into<String>) -> Result<T, BadValue> {
    Err(BadValue { message: message.into(), help: help.into() })
}

/// Parses `"192.168.1.0/24"`, `"fd00::/8"` or `"eth0"`.
pub(crate) fn parse_network(text: &str) -> Result<HomeNetwork, BadValue> {
    if let Some((address, prefix)) = text.split_once('/') {
        return parse_range(text, address, prefix);
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        let usual = if address.is_ipv4() { 24 } else { 64 };
        let range = IpNet::new(address, usual).map_or_else(|_| text.to_owned(), |range| range.trunc().to_string());
        return bad(format!("{} is one address, not a range", quoted(text)), format!("did you mean \"{range}\"?"));
    }
    parse_interface(text)
}

fn parse_range(text: &str, address: &str, prefix: &str) -> Result<HomeNetwork, BadValue> {
    let forms = "write a range as \"192.168.1.0/24\" or \"fd00::/8\"";
    let Ok(address) = address.parse::<IpAddr>() else {
        return bad(format!("{} is not a range of addresses", quoted(text)), forms);
    };
    if let (IpAddr::V4(address), Ok(mask)) = (address, prefix.parse()) {
        return match Ipv4Net::with_netmask(address, mask) {
            Ok(range) => {
                let help = format!("did you mean \"{}\"?", range.trunc());
                bad("the length of a range is a number of bits, not a mask", help)
            }
            Err(_) => bad(format!("{} is not a range of addresses", quoted(text)), forms),
        };
    }
    let most = if address.is_ipv4() { 32 } else { 128 };
    let is_plain = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
    let range = prefix.parse().ok().filter(|_| is_plain).and_then(|prefix| IpNet::new(address, prefix).ok());
    let Some(range) = range else {
        return bad(format!("/{prefix} is no length of such a range"), format!("use /1 to /{most}"));
    };
    if range.prefix_len() == 0 {
        return bad("every address is in this range", "leave `only_on` out: the server is asked on every network then");
    }
    if range.trunc() != range {
        let message = format!("{} has bits beyond its length: it names a machine, not a range", quoted(text));
        return bad(message, format!("did you mean \"{}\"?", range.trunc()));
    }
    Ok(HomeNetwork::Range(range))
}

/// As the kernel takes them (`dev_valid_name`), but for those that look like an address that was cut off.
fn parse_interface(text: &str) -> Result<HomeNetwork, BadValue> {
    let forms = "write a range as \"192.168.1.0/24\", or an interface as `ip -br address` lists it: \"eth0\"";
    let is_word = |letter: char| letter.is_ascii_graphic() && !matches!(letter, ':' | '*' | ',' | ';');
    if text.is_empty() || matches!(text, "." | "..") || !text.chars().all(is_word) {
        let help = format!("{forms}; names of NetworkManager's connections are not known here");
        return bad(format!("{} is neither a range of addresses nor an interface", quoted(text)), help);
    }
    if text.contains('.') && text.chars().all(|letter| letter.is_ascii_digit() || letter == '.') {
        return bad(format!("{} is not a whole address", quoted(text)), forms);
    }
    if text.len() > INTERFACE_MAX {
        let message = format!("the name of an interface has {INTERFACE_MAX} bytes at most, this has {}", text.len());
        return bad(message, forms);
    }
    Ok(HomeNetwork::Interface(text.to_owned()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn ranges_and_interfaces_are_told_apart() {
        for range in ["192.168.1.0/24", "10.0.0.7/32", "fd00::/8", "128.0.0.0/1"] {
            let network = parse_network(range).unwrap();
            assert!(matches!(&network, HomeNetwork::Range(_)), "{range}");
            assert_eq!(network.to_string(), range);
        }
        for name in ["eth0", "wg0", "enp0s31f6", "eth0.100", "br-0123456789ab", "wlp2s0@phy"] {
            assert_eq!(parse_network(name).unwrap(), HomeNetwork::Interface(name.to_owned()));
        }
    }

    #[test]
    fn what_was_meant_is_said() {
        for (text, meant) in [
            ("192.168.1.5/24", "did you mean \"192.168.1.0/24\"?"),
            ("fd00::5/64", "did you mean \"fd00::/64\"?"),
            ("192.168.1.5", "did you mean \"192.168.1.0/24\"?"),
            ("fd00::5", "did you mean \"fd00::/64\"?"),
            ("192.168.1.0/255.255.255.0", "did you mean \"192.168.1.0/24\"?"),
            ("192.168.1.0/33", "use /1 to /32"),
            ("192.168.1.0/+8", "use /1 to /32"),
            ("192.168.1.0/", "use /1 to /32"),
            ("fd00::/129", "use /1 to /128"),
        ] {
            assert_eq!(parse_network(text).unwrap_err().help, meant, "{text}");
        }
        let wrong = ["", ".", "Home Wi-Fi", "eth0:1", "eth0/1", "192.168.1", "192.168.1.*", "a123456789012345"];
        for text in wrong.into_iter().chain(["0.0.0.0/0", "192.168.1.0/255.0.255.0"]) {
            assert!(parse_network(text).is_err(), "{text}");
        }
    }
}
