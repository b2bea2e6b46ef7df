//! This host's interfaces and their addresses.

use std::collections::BTreeMap;
use std::io;

use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::{InterfaceFlags, if_nameindex, if_nametoindex};

use super::route::address;
use crate::share::detector::network::Interface;

/// All of them, by name.
pub fn read() -> io::Result<Vec<Interface>> {
    Ok(gathered(getifaddrs()?))
}

/// The number of the interface that a zone names, as its name or as that number.
pub fn of_zone(zone: &str) -> Option<u32> {
    if let Ok(number) = if_nametoindex(zone) {
        return Some(number);
    }
    let number = zone.parse().ok()?;
    if_nameindex().ok()?.iter().any(|interface| interface.index() == number).then_some(number)
}

/// The kernel lists one entry for each address, and one for the interface itself.
fn gathered(entries: impl Iterator<Item = InterfaceAddress>) -> Vec<Interface> {
    let is_up = |flags: InterfaceFlags| flags.contains(InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING);
    let mut found: BTreeMap<String, Interface> = BTreeMap::new();
    for entry in entries {
        // an address may have a label of its own, `eth0:1`; no interface has a colon in its name
        let name = entry.interface_name.split(':').next().unwrap_or_default();
        let interface = found.entry(name.to_owned()).or_insert_with(|| Interface {
            name: name.to_owned(),
            is_up: is_up(entry.flags),
            addresses: Vec::new(),
        });
        interface.addresses.extend(entry.address.as_ref().and_then(address));
    }
    found.into_values().collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};

    use nix::sys::socket::SockaddrStorage;

    use super::*;

    fn entry(name: &str, flags: InterfaceFlags, address: Option<[u8; 4]>) -> InterfaceAddress {
        let address = address.map(|address| SockaddrStorage::from(SocketAddr::new(address.into(), 0)));
        InterfaceAddress {
            interface_name: name.to_owned(),
            flags,
            address,
            netmask: None,
            broadcast: None,
            destination: None,
        }
    }

    #[test]
    fn a_zone_is_an_interface_that_is_there() {
        let number = of_zone("lo").unwrap();
        assert_eq!(of_zone(&number.to_string()), Some(number));
        assert_eq!((of_zone("0"), of_zone("no-such-interface"), of_zone("4000000000")), (None, None, None));
    }

    #[test]
    fn labels_belong_to_their_interface_and_up_means_with_a_link() {
        let (up, running) = (InterfaceFlags::IFF_UP, InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING);
        let entries = [
            entry("eth0", running, None),
            entry("wlan0", up, Some([10, 0, 0, 1])),
            entry("eth0:nas", running, Some([192, 168, 1, 7])),
        ];
        let found = gathered(entries.into_iter());
        let seen: Vec<_> = found.iter().map(|one| (one.name.as_str(), one.is_up, one.addresses.len())).collect();
        assert_eq!(seen, [("eth0", true, 1), ("wlan0", false, 1)]);
        assert_eq!(found[0].addresses, [IpAddr::from([192, 168, 1, 7])]);
    }

    #[test]
    fn this_host_has_a_loopback() {
        let found = read().unwrap();
        let local = found.iter().find(|one| one.addresses.contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)));
        assert!(local.is_some_and(|one| one.is_up), "{found:?}");
    }
}
