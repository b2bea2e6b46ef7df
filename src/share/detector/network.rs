//! Whether this host is on a network in which a server may be asked.
//!
//! A laptop's NAS exists in one network only. In any other its address is somebody else's: whoever is asked there could be sent a login.
//! So a server that is bound to networks (`only_on`) is asked nothing until it is known that this host is on one of them, and while it
//! is on none that is a trouble of this host's, as a missing route is.

use core::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::config::network::{HomeNetwork, listed};

/// An interface of this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// It is up and has a link.
    pub is_up: bool,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

impl Interface {
    /// The address by which it is on a network, if it is up.
    fn address_on(&self, network: &HomeNetwork) -> Option<IpAddr> {
        let mut addresses = self.addresses.iter().copied();
        match network {
            HomeNetwork::Range(range) => addresses.find(|address| range.contains(address)),
            // every interface has a link-local one as soon as it has a link, before it is on any network
            HomeNetwork::Interface(name) if *name == self.name => addresses.find(|address| !is_link_local(*address)),
            HomeNetwork::Interface(_) => None,
        }
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// By what this host is on one of these networks, or that it is on none.
pub fn find(only_on: &[HomeNetwork], interfaces: &[Interface]) -> Result<String, String> {
    let mut without_link = None;
    for network in only_on {
        for interface in interfaces {
            match interface.address_on(network) {
                Some(address) if interface.is_up => return Ok(format!("{} has {address}", interface.name)),
                Some(_) => without_link = without_link.or(Some(&interface.name)),
                None => {}
            }
        }
    }
    let why = without_link.map_or_else(String::new, |name| format!("; {name} has no link"));
    Err(format!("not on its network: only_on = {}{why}", listed(only_on)))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::config::network::parse_network;

    fn interface(name: &str, is_up: bool, addresses: &[&str]) -> Interface {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Interface { name: name.to_owned(), is_up, addresses }
    }

    fn found(only_on: &[&str], interfaces: &[Interface]) -> Result<String, String> {
        let only_on: Vec<HomeNetwork> = only_on.iter().map(|text| parse_network(text).unwrap()).collect();
        find(&only_on, interfaces)
    }

    #[test]
    fn one_address_in_one_range_is_enough() {
        let home = [interface("lo", true, &["127.0.0.1"]), interface("wlan0", true, &["fe80::1", "192.168.1.7"])];
        assert_eq!(found(&["10.0.0.0/8", "192.168.1.0/24"], &home), Ok("wlan0 has 192.168.1.7".to_owned()));
        assert_eq!(found(&["fd00::/8"], &home), Err("not on its network: only_on = fd00::/8".to_owned()));
        let cafe = [interface("wlan0", true, &["192.168.2.7", "fd01::1"])];
        let none = "not on its network: only_on = 192.168.1.0/24, eth0".to_owned();
        assert_eq!(found(&["192.168.1.0/24", "eth0"], &cafe), Err(none));
        assert_eq!(found(&["192.168.1.0/24", "fd00::/8"], &cafe), Ok("wlan0 has fd01::1".to_owned()));
    }

    #[test]
    fn an_interface_needs_a_link_and_an_address() {
        assert_eq!(found(&["wg0"], &[interface("wg0", true, &["10.9.0.2"])]), Ok("wg0 has 10.9.0.2".to_owned()));
        let none = "not on its network: only_on = wg0".to_owned();
        assert_eq!(found(&["wg0"], &[interface("wg01", true, &["10.9.0.2"])]), Err(none.clone()));
        assert_eq!(found(&["wg0"], &[interface("wg0", true, &["fe80::1"])]), Err(none), "no router was heard yet");
        let down = [interface("eth0", false, &["192.168.1.7"])];
        for network in ["eth0", "192.168.1.0/24"] {
            let why = format!("not on its network: only_on = {network}; eth0 has no link");
            assert_eq!(found(&[network], &down), Err(why));
        }
    }
}
