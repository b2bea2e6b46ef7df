//! What the kernel tells by itself over netlink: changes of the network (rtnetlink(7)), what the veil has swallowed (NFLOG), and
//! changes of anybody's nftables. Only listened to: a request to change or list links would wait for the kernel's one lock of
//! all network configuration, and the daemon waits for nothing.
//!
//! News that was lost because it came too fast (ENOBUFS) is news, too: whoever listens looks again.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_netfilter::nflog::{ConfigCmd, ConfigMode, PacketNla, Timeout, ULogMessage, config_request};
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily};
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket};

/// The group of NFLOG in which the veil's rules report; "nm" as a number, which nobody else uses.
pub const VEIL_LOG_GROUP: u16 = 0x6e6d;

/// Lengths of `struct nlmsghdr`, of `struct ndmsg`, and of an attribute's header.
const HEADER: usize = 16;
const NEIGHBOUR_HEADER: usize = 12;
const ATTRIBUTE_HEADER: usize = 4;

fn listen(protocol: isize, groups: &[u32]) -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(protocol)?;
    socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
    for group in groups {
        socket.socket_mut().add_membership(*group)?;
    }
    Ok(socket)
}

/// The next datagram; `None` if some were lost.
async fn next(socket: &TokioSocket) -> io::Result<Option<Vec<u8>>> {
    match socket.recv_from_full().await {
        Ok((datagram, _)) => Ok(Some(datagram)),
        Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A change of this host's network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkNews {
    /// A link, an address or a route.
    Changed,
    /// A neighbour that no longer answers.
    NeighbourLost(IpAddr),
}

/// Listens to changes of links, addresses, routes and neighbours.
pub struct NetworkListener(TokioSocket);

impl NetworkListener {
    /// From now on.
    pub fn open() -> io::Result<Self> {
        let groups = [
            libc::RTNLGRP_LINK,
            libc::RTNLGRP_IPV4_IFADDR,
            libc::RTNLGRP_IPV6_IFADDR,
            libc::RTNLGRP_IPV4_ROUTE,
            libc::RTNLGRP_IPV6_ROUTE,
            libc::RTNLGRP_NEIGH,
        ];
        listen(NETLINK_ROUTE, &groups).map(Self)
    }

    /// Waits for news; the table of neighbours changes all the time, and only a loss is one.
    pub async fn next(&self) -> io::Result<BTreeSet<NetworkNews>> {
        loop {
            let news = match next(&self.0).await? {
                Some(datagram) => messages(&datagram).filter_map(network_news).collect(),
                None => BTreeSet::from([NetworkNews::Changed]),
            };
            if !news.is_empty() {
                return Ok(news);
            }
        }
    }
}

impl PartialOrd for NetworkNews {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for NetworkNews {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let key = |news: &Self| match news {
            Self::Changed => None,
            Self::NeighbourLost(address) => Some(*address),
        };
        key(self).cmp(&key(other))
    }
}

/// The messages of a datagram: type and body of each.
fn messages(datagram: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = usize::try_from(number(rest.get(..4)?)?).ok()?.max(HEADER);
        let kind = u16::from_ne_bytes(rest.get(4..6)?.try_into().ok()?);
        let body = rest.get(HEADER..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, body))
    })
}

fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

fn network_news((kind, body): (u16, &[u8])) -> Option<NetworkNews> {
    match kind {
        libc::RTM_NEWNEIGH => neighbour_lost(body).map(NetworkNews::NeighbourLost),
        libc::RTM_DELNEIGH => None,
        _ => Some(NetworkNews::Changed),
    }
}

/// The address of a neighbour in NUD_FAILED: `struct ndmsg` has the state in bytes 8 and 9, attribute NDA_DST the address.
fn neighbour_lost(body: &[u8]) -> Option<IpAddr> {
    const NDA_DST: u16 = 1;
    let state = u16::from_ne_bytes(body.get(8..10)?.try_into().ok()?);
    if state & libc::NUD_FAILED == 0 {
        return None;
    }
    address(attribute(body.get(NEIGHBOUR_HEADER..)?, NDA_DST)?)
}

/// The value of the first attribute of a kind.
fn attribute(mut rest: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?)).max(ATTRIBUTE_HEADER);
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?);
        let value = rest.get(ATTRIBUTE_HEADER..length)?;
        if kind == wanted {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// Listens to what the veil's rules report.
pub struct VeilListener(TokioSocket);

impl VeilListener {
    /// From now on. Needs CAP_NET_ADMIN and the module nfnetlink_log; one listener a host, the second gets EBUSY.
    pub async fn open() -> io::Result<Self> {
        /// FIN and RST come singly, and each counts at once.
        const AT_ONCE: Duration = Duration::from_millis(10);
        let socket = listen(NETLINK_NETFILTER, &[])?;
        let settings = vec![
            ConfigCmd::Bind.into(),
            ConfigMode::new_packet(HEADERS_OF_A_PACKET).into(),
            Timeout::from(AT_ONCE).into(),
        ];
        let request = config_request(NetfilterProtoFamily::Unspec, VEIL_LOG_GROUP, settings);
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        socket.send(&bytes).await?;
        let (answer, _) = socket.recv_from_full().await?;
        let answer = NetlinkMessage::<NetfilterMessage>::deserialize(&answer).map_err(io::Error::other)?;
        if let NetlinkPayload::Error(refusal) = answer.payload
            && refusal.code.is_some()
        {
            return Err(refusal.to_io());
        }
        Ok(Self(socket))
    }

    /// Waits for a FIN or RST that was swallowed; the addresses that sent one, or `None` if some were lost.
    pub async fn next(&self) -> io::Result<Option<BTreeSet<IpAddr>>> {
        Ok(next(&self.0).await?.map(|datagram| senders(&datagram)))
    }
}

/// What is copied of a packet: an IPv6 and a TCP header.
const HEADERS_OF_A_PACKET: u32 = 60;

fn senders(datagram: &[u8]) -> BTreeSet<IpAddr> {
    let mut rest = datagram;
    let mut senders = BTreeSet::new();
    while let Ok(message) = NetlinkMessage::<NetfilterMessage>::deserialize(rest) {
        let length = usize::try_from(message.header.length).unwrap_or(0);
        if let NetlinkPayload::InnerMessage(NetfilterMessage {
            inner: NetfilterMessageInner::ULog(ULogMessage::Packet(attributes)),
            ..
        }) = message.payload
        {
            #[expect(clippy::wildcard_enum_match_arm, reason = "the enum is non-exhaustive")]
            let packets = attributes.iter().filter_map(|attribute| match attribute {
                PacketNla::Payload(packet) => sender(packet),
                _ => None,
            });
            senders.extend(packets);
        }
        rest = rest.get(length.next_multiple_of(4).max(HEADER)..).unwrap_or(&[]);
    }
    senders
}

/// The source address of an IP packet.
fn sender(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => address(packet.get(12..16)?),
        6 => address(packet.get(8..24)?),
        _ => None,
    }
}

/// What somebody did to nftables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RulesNews {
    /// Took the table away that is asked for.
    Removed,
    /// Anything else, or something that was lost.
    Changed,
}

/// Listens to changes of nftables, by whomever.
pub struct RulesListener {
    socket: TokioSocket,
    table: &'static str,
    /// By what is known so far of the present transaction.
    removed: bool,
}

impl RulesListener {
    /// From now on; `table` is one of the family `inet`.
    pub fn open(table: &'static str) -> io::Result<Self> {
        let socket = listen(NETLINK_NETFILTER, &[libc::NFNLGRP_NFTABLES.cast_unsigned()])?;
        Ok(Self { socket, table, removed: false })
    }

    /// Waits for the end of a transaction.
    pub async fn next(&mut self) -> io::Result<RulesNews> {
        loop {
            let Some(datagram) = next(&self.socket).await? else {
                self.removed = false;
                return Ok(RulesNews::Changed);
            };
            for message in messages(&datagram) {
                match of_a_table(message, self.table) {
                    Some(OfATable::Removed) => self.removed = true,
                    Some(OfATable::Made) => self.removed = false,
                    Some(OfATable::End) if std::mem::take(&mut self.removed) => return Ok(RulesNews::Removed),
                    Some(OfATable::End) => return Ok(RulesNews::Changed),
                    None => {}
                }
            }
        }
    }
}

/// What a message says of a table: whoever replaces it as a whole removes and makes it in one transaction.
#[derive(Debug, PartialEq, Eq)]
enum OfATable {
    Made,
    Removed,
    End,
}

/// `struct nfgenmsg` has the family in its first byte; attribute NFTA_TABLE_NAME the name, and a NUL. NFT_MSG_NEWGEN comes last
/// (nf_tables_commit).
fn of_a_table((kind, body): (u16, &[u8]), table: &str) -> Option<OfATable> {
    const NFGENMSG: usize = 4;
    const NFTA_TABLE_NAME: u16 = 1;
    const INET: u8 = libc::NFPROTO_INET as u8;
    if kind >> 8 != libc::NFNL_SUBSYS_NFTABLES as u16 {
        return None;
    }
    let said = match i32::from(kind & 0xff) {
        libc::NFT_MSG_NEWGEN => return Some(OfATable::End),
        libc::NFT_MSG_NEWTABLE => OfATable::Made,
        libc::NFT_MSG_DELTABLE => OfATable::Removed,
        _ => return None,
    };
    let name = attribute(body.get(NFGENMSG..)?, NFTA_TABLE_NAME)?;
    (body.first() == Some(&INET) && name.strip_suffix(&[0]) == Some(table.as_bytes())).then_some(said)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + body.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn neighbour(state: u16, address: &[u8]) -> Vec<u8> {
        let mut body = vec![2, 0, 0, 0, 3, 0, 0, 0];
        body.extend(state.to_ne_bytes());
        body.extend([0, 0]);
        body.extend([10, 0, 3, 0, 1, 2, 3, 4, 5, 6, 0, 0]); // another attribute before it, padded
        body.extend(u16::try_from(4 + address.len()).unwrap().to_ne_bytes());
        body.extend([1, 0]);
        body.extend(address);
        message(libc::RTM_NEWNEIGH, &body)
    }

    fn of_table(kind: i32, family: u8, name: &[u8]) -> Option<OfATable> {
        let mut body = vec![family, 0, 0, 0, 8, 0, 2, 0, 0, 0, 0, 0]; // flags before the name
        body.extend(u16::try_from(4 + name.len()).unwrap().to_ne_bytes());
        body.extend([1, 0]);
        body.extend(name);
        let bytes = message(u16::try_from(libc::NFNL_SUBSYS_NFTABLES << 8 | kind).unwrap(), &body);
        messages(&bytes).find_map(|message| of_a_table(message, "ours"))
    }

    #[test]
    fn only_our_table_is_ours() {
        assert_eq!(of_table(libc::NFT_MSG_DELTABLE, 1, b"ours\0"), Some(OfATable::Removed));
        assert_eq!(of_table(libc::NFT_MSG_NEWTABLE, 1, b"ours\0"), Some(OfATable::Made));
        assert_eq!(of_table(libc::NFT_MSG_DELTABLE, 1, b"oursmore\0"), None);
        assert_eq!(of_table(libc::NFT_MSG_DELTABLE, 2, b"ours\0"), None, "of IPv4 alone");
        assert_eq!(of_table(libc::NFT_MSG_DELRULE, 1, b"ours\0"), None);
        assert_eq!(of_table(libc::NFT_MSG_NEWGEN, 0, b""), Some(OfATable::End));
    }

    fn news(datagram: &[u8]) -> Vec<NetworkNews> {
        messages(datagram).filter_map(network_news).collect()
    }

    #[test]
    fn only_a_neighbour_that_is_lost_is_news() {
        assert_eq!(news(&neighbour(0x02, &[10, 0, 0, 1])), []);
        let lost = NetworkNews::NeighbourLost(IpAddr::from([10, 0, 0, 1]));
        assert_eq!(news(&neighbour(libc::NUD_FAILED, &[10, 0, 0, 1])), [lost]);
        let v6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        assert_eq!(news(&neighbour(libc::NUD_FAILED, &v6)), [NetworkNews::NeighbourLost(IpAddr::from(v6))]);
        let link = message(libc::RTM_NEWLINK, &[0; 16]);
        let both = [link, neighbour(libc::NUD_FAILED, &[10, 0, 0, 1])].concat();
        assert_eq!(news(&both).len(), 2);
    }

    #[test]
    fn what_is_cut_short_is_not_read_beyond_its_end() {
        let whole = neighbour(libc::NUD_FAILED, &[10, 0, 0, 1]);
        for length in 0..whole.len() {
            assert_eq!(news(&whole[..length]), [], "{length}");
        }
        assert!(senders(&[0; 7]).is_empty());
    }

    #[test]
    fn the_sender_is_in_the_header_of_its_protocol() {
        let mut v4 = [0_u8; 20];
        v4[0] = 0x45;
        v4[12..16].copy_from_slice(&[10, 99, 1, 2]);
        assert_eq!(sender(&v4), Some(IpAddr::from([10, 99, 1, 2])));
        let mut v6 = [0_u8; 40];
        v6[0] = 0x60;
        v6[8] = 0xfd;
        v6[23] = 2;
        assert_eq!(sender(&v6), "fd00::2".parse().ok());
        assert_eq!(sender(&v4[..14]), None);
        assert_eq!(sender(&[]), None);
    }
}
