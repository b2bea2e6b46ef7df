//! The kernel's TCP sockets to a server's port 445, and their destruction (sock_diag SOCK_DESTROY, CONFIG_INET_DIAG_DESTROY).

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_packet_sock_diag::{SockDiagDestroy, SockDiagMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};

use super::probe::{PROBE_MARK, SMB_PORT};

/// Destroys this host's CIFS sockets to a server: those that belong to root and that no process has open. Returns how many there
/// were.
pub fn destroy(server: IpAddr) -> io::Result<usize> {
    let mut destroyed = 0;
    let found = dump(server)?;
    let of_programs = if found.is_empty() { BTreeSet::new() } else { open_sockets()? };
    for (id, _) in found.into_iter().filter(|(_, inode)| !of_programs.contains(inode)) {
        if destroy_one(server, id)? {
            destroyed += 1;
        }
    }
    Ok(destroyed)
}

/// Inodes of the sockets that processes have open: links of /proc/PID/fd to `socket:[INODE]`.
fn open_sockets() -> io::Result<BTreeSet<u32>> {
    let mut inodes = BTreeSet::new();
    for process in fs::read_dir("/proc")?.flatten() {
        // no process, or one that has ended
        for descriptor in fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
            let link = fs::read_link(descriptor.path()).unwrap_or_default();
            let name = link.to_str().and_then(|link| link.strip_prefix("socket:[")?.strip_suffix(']'));
            inodes.extend(name.and_then(|inode| inode.parse::<u32>().ok()));
        }
    }
    Ok(inodes)
}

fn family(server: IpAddr) -> u8 {
    if server.is_ipv4() { AF_INET } else { AF_INET6 }
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

/// States in which a connection exists or is being made: not LISTEN, CLOSE or TIME_WAIT.
fn live_states() -> StateFlags {
    StateFlags::ESTABLISHED
        | StateFlags::SYN_SENT
        | StateFlags::FIN_WAIT1
        | StateFlags::FIN_WAIT2
        | StateFlags::CLOSE_WAIT
        | StateFlags::LAST_ACK
        | StateFlags::CLOSING
}

/// Root's sockets to a server, with their inodes.
fn dump(server: IpAddr) -> io::Result<Vec<(SocketId, u32)>> {
    let socket = open()?;
    let request = InetRequest {
        family: family(server),
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: live_states(),
        socket_id: if server.is_ipv4() { SocketId::new_v4() } else { SocketId::new_v6() },
    };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut packet = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut found = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest).map_err(io::Error::other)?;
            #[expect(clippy::wildcard_enum_match_arm, reason = "the enum is non-exhaustive")]
            match &message.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                    let id = &response.header.socket_id;
                    let marked = response.nlas.iter().any(|nla| matches!(nla, Nla::Mark(mark) if *mark == PROBE_MARK));
                    let ours = response.header.uid == 0 && !marked;
                    if id.destination_port == SMB_PORT && id.destination_address.to_canonical() == server && ours {
                        found.push((id.clone(), response.header.inode));
                    }
                }
                NetlinkPayload::Done(_) => return Ok(found),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
            let length = usize::try_from(message.header.length).unwrap_or(0).next_multiple_of(4).max(4);
            rest = rest.get(length..).unwrap_or(&[]);
        }
    }
}

/// False if the socket was gone already.
fn destroy_one(server: IpAddr, socket_id: SocketId) -> io::Result<bool> {
    let socket = open()?;
    let request = InetRequest {
        family: family(server),
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::all(),
        socket_id,
    };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_ACK;
    let mut packet = NetlinkMessage::new(header, SockDiagDestroy::new(SockDiagMessage::InetRequest(request)).into());
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let message = NetlinkMessage::<SockDiagMessage>::deserialize(&answer).map_err(io::Error::other)?;
    let NetlinkPayload::Error(refusal) = message.payload else { return Ok(true) };
    match (refusal.code, refusal.to_io()) {
        (None, _) => Ok(true), // an acknowledgement
        (Some(_), error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        (Some(_), error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::net::TcpListener;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_socket_that_a_process_has_open_is_known() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let inode = fs::metadata(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&socket))).unwrap().ino();
        assert!(open_sockets().unwrap().contains(&u32::try_from(inode).unwrap()));
    }
}
