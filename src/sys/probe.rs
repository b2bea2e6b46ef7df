//! A probe of a server from user space: TCP connect to port 445 and one SMB2 NEGOTIATE exchange.
//!
//! NEGOTIATE needs no login, wakes no disk and is answered by the process that serves SMB: a port that accepts
//! connections proves nothing, because the kernel of a hung NAS still does.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::time::timeout;

use crate::share::detector::{Identity, Probed, Verdict};

/// The only port nasmount mounts from.
pub const SMB_PORT: u16 = 445;

/// Firewall mark (SO_MARK) of nasmount's own probes: neither veil, fence nor socket destruction concerns them. "nas".
pub const PROBE_MARK: u32 = 0x006e_6173;

/// SMB2 NEGOTIATE over direct TCP, dialects 2.1 and 3.0.2: the oldest that nasmount mounts and one that needs no negotiate
/// contexts. Header and body as in [MS-SMB2] 2.2.1.2 and 2.2.3; message id 0, no signing, zero client GUID.
fn negotiate_request() -> Vec<u8> {
    const DIALECTS: [u16; 2] = [0x0210, 0x0302];
    let mut smb = Vec::with_capacity(108);
    smb.extend(b"\xfeSMB");
    smb.extend(64_u16.to_le_bytes()); // header length
    smb.extend([0; 2]); // credit charge
    smb.extend([0; 4]); // status
    smb.extend(0_u16.to_le_bytes()); // command: NEGOTIATE
    smb.extend(1_u16.to_le_bytes()); // credits asked for
    smb.extend([0; 48]); // flags, next command, message id, process id, tree id, session id, signature
    debug_assert_eq!(smb.len(), 64, "an SMB2 header has 64 bytes");
    smb.extend(36_u16.to_le_bytes()); // body length
    smb.extend((DIALECTS.len() as u16).to_le_bytes());
    smb.extend(1_u16.to_le_bytes()); // signing enabled
    smb.extend([0; 2]); // reserved
    smb.extend([0; 4]); // capabilities
    smb.extend([0; 16]); // client GUID
    smb.extend([0; 8]); // client start time
    for dialect in DIALECTS {
        smb.extend(dialect.to_le_bytes());
    }
    let mut frame = u32::try_from(smb.len()).unwrap_or(0).to_be_bytes().to_vec();
    frame.extend(smb);
    frame
}

/// Probes a server once; never takes longer than `within`.
pub async fn probe(server: IpAddr, within: Duration) -> Probed {
    match timeout(within, exchange(server)).await {
        Err(_) => Probed::plainly(Verdict::Silent),
        Ok(Ok(probed)) => probed,
        Ok(Err(error)) => Probed::plainly(verdict_of(&error)),
    }
}

fn verdict_of(error: &io::Error) -> Verdict {
    const REFUSED: [io::ErrorKind; 5] = [
        io::ErrorKind::ConnectionRefused,
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::ConnectionAborted,
        io::ErrorKind::BrokenPipe,
        io::ErrorKind::UnexpectedEof,
    ];
    const UNREACHABLE: [io::ErrorKind; 3] =
        [io::ErrorKind::HostUnreachable, io::ErrorKind::NetworkUnreachable, io::ErrorKind::NetworkDown];
    if REFUSED.contains(&error.kind()) {
        Verdict::Refused
    } else if UNREACHABLE.contains(&error.kind()) {
        Verdict::Unreachable
    } else {
        Verdict::Silent
    }
}

/// Bytes of an answer up to the end of the `ServerGuid`: NetBIOS length, SMB2 header, and 24 bytes of the NEGOTIATE response
/// ([MS-SMB2] 2.2.4).
const ANSWER_LENGTH: usize = 4 + 64 + 24;

async fn exchange(server: IpAddr) -> io::Result<Probed> {
    let socket = if server.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // needs CAP_NET_ADMIN; without it (the CLI run by a user) there is no fence to pass either
    match nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::Mark, &PROBE_MARK) {
        Ok(()) | Err(nix::errno::Errno::EPERM) => {}
        Err(errno) => return Err(errno.into()),
    }
    let mut stream = socket.connect(SocketAddr::new(server, SMB_PORT)).await?;
    stream.write_all(&negotiate_request()).await?;
    let mut answer = [0_u8; ANSWER_LENGTH];
    stream.read_exact(&mut answer[..8]).await?;
    if &answer[4..8] != b"\xfeSMB" {
        return Ok(Probed::plainly(Verdict::Garbled));
    }
    stream.read_exact(&mut answer[8..]).await?;
    // an orderly end would leave the NAS with a socket in TIME_WAIT for each probe, every second
    stream.set_zero_linger()?;
    Ok(Probed { verdict: Verdict::Alive, identity: identity(&answer) })
}

/// Of an answer that is no error.
fn identity(answer: &[u8; ANSWER_LENGTH]) -> Option<Identity> {
    const STATUS_AT: std::ops::Range<usize> = 12..16;
    const GUID_AT: std::ops::Range<usize> = ANSWER_LENGTH - 16..ANSWER_LENGTH;
    let succeeded = answer[STATUS_AT] == [0; 4];
    let guid: [u8; 16] = answer[GUID_AT].try_into().ok()?;
    succeeded.then_some(Identity(guid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_has_the_length_it_claims() {
        let frame = negotiate_request();
        let claimed = u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]);
        assert_eq!(usize::try_from(claimed).unwrap_or(0), frame.len() - 4);
        assert_eq!(frame.len(), 4 + 64 + 36 + 4);
    }

    #[test]
    fn the_identity_is_where_the_server_puts_it() {
        let mut answer = [7_u8; ANSWER_LENGTH];
        answer[12..16].fill(0);
        answer[76..92].copy_from_slice(&[9; 16]);
        assert_eq!(identity(&answer), Some(Identity([9; 16])));
        answer[12] = 1;
        assert_eq!(identity(&answer), None, "an error response has no identity");
    }
}
