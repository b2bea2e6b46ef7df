//! This host's way to an address, as its kernel sees it: no packet is sent, nobody else is asked.
//!
//! connect(2) of a UDP socket looks up route and source address. A route through an interface without a carrier is still a
//! route (`ignore_routes_with_linkdown` is off by default), so the interface of the source address is looked at, too.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use crate::share::detector::LocalTrouble;

/// What is wrong with the way, and where.
pub fn look(server: SocketAddr) -> io::Result<Option<(LocalTrouble, String)>> {
    let source = match source_of(server) {
        Ok(source) => source,
        Err(error) => return trouble_of(&error, server.ip()).map(Some).ok_or(error),
    };
    let of_source = getifaddrs()?.filter(|interface| interface.address.as_ref().and_then(address) == Some(source));
    let troubles = of_source.map(|interface| no_link(&interface.interface_name, interface.flags));
    Ok(unless_one_works(troubles).map(|what| (LocalTrouble::NoLink, what)))
}

fn no_link(name: &str, flags: InterfaceFlags) -> Option<String> {
    if !flags.contains(InterfaceFlags::IFF_UP) {
        return Some(format!("interface {name} is down"));
    }
    // also what is up without a carrier, and a Wi-Fi that is not associated
    (!flags.contains(InterfaceFlags::IFF_RUNNING)).then(|| format!("interface {name} has no link"))
}

/// The same address may be on a cable and on a Wi-Fi.
fn unless_one_works(troubles: impl Iterator<Item = Option<String>>) -> Option<String> {
    let troubles: Option<Vec<String>> = troubles.collect();
    troubles?.into_iter().next()
}

/// The address from which this host would speak to the server.
fn source_of(server: SocketAddr) -> io::Result<IpAddr> {
    let any = if server.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.connect(server)?;
    Ok(socket.local_addr()?.ip())
}

fn trouble_of(error: &io::Error, server: IpAddr) -> Option<(LocalTrouble, String)> {
    match error.raw_os_error()? {
        libc::ENETUNREACH | libc::EHOSTUNREACH => {
            Some((LocalTrouble::NoRoute, format!("this host has no route to {server}")))
        }
        libc::EADDRNOTAVAIL => {
            Some((LocalTrouble::NoAddress, format!("this host has no address to reach {server} from")))
        }
        libc::ENETDOWN => Some((LocalTrouble::NoLink, format!("the interface towards {server} is down"))),
        _ => None,
    }
}

pub(super) fn address(storage: &nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    let v4 = storage.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| storage.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_to_oneself_is_fine() {
        assert!(matches!(look(SocketAddr::from(([127, 0, 0, 1], 445))), Ok(None)));
    }

    #[test]
    fn one_interface_with_a_link_is_enough() {
        let up = InterfaceFlags::IFF_UP;
        let running = up | InterfaceFlags::IFF_RUNNING;
        let of = |flags: &[InterfaceFlags]| unless_one_works(flags.iter().map(|flags| no_link("eth0", *flags)));
        assert_eq!(of(&[running]), None);
        assert_eq!(of(&[up, running]), None);
        assert_eq!(of(&[up, InterfaceFlags::empty()]), Some("interface eth0 has no link".to_owned()));
        assert_eq!(of(&[]), None, "an address that has just gone");
    }

    #[test]
    fn errors_of_the_way_are_troubles_and_others_are_errors() {
        let trouble = |errno| trouble_of(&io::Error::from_raw_os_error(errno), IpAddr::from([10, 0, 0, 1]));
        assert!(matches!(trouble(libc::ENETUNREACH), Some((LocalTrouble::NoRoute, _))));
        assert!(matches!(trouble(libc::EADDRNOTAVAIL), Some((LocalTrouble::NoAddress, _))));
        assert!(matches!(trouble(libc::ENETDOWN), Some((LocalTrouble::NoLink, _))));
        assert!(trouble(libc::EMFILE).is_none());
    }
}
