//! A probe of a server from user space: TCP connect to port 445 and one SMB2 NEGOTIATE exchange.
//!
//! NEGOTIATE needs no login, wakes no disk and is answered by the process that serves SMB: a port that accepts
//! connections proves nothing, because the kernel of a hung NAS still does.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout, timeout_at};

use crate::share::detector::{self, Identity, Probed, Verdict};

/// The only port nasmount mounts from.
pub const SMB_PORT: u16 = 445;

/// Firewall mark (SO_MARK) of nasmount's own probes: neither veil, fence nor socket destruction concerns them. "nas".
pub const PROBE_MARK: u32 = 0x006e_6173;

/// Every dialect that nasmount mounts. A server that speaks none of those that it is offered answers with an error: one that was told
/// `server min protocol = SMB3_11` would never be alive to a client that leaves that one out.
pub const DIALECTS: [u16; 5] = [0x0202, 0x0210, 0x0300, 0x0302, SMB_3_1_1];
/// Length of an SMB2 header.
pub(super) const HEADER: usize = 64;
/// SMB2_PREAUTH_INTEGRITY_CAPABILITIES with one algorithm, SHA-512.
const SALT: usize = 32;
/// The dialect that demands contexts.
pub(super) const SMB_3_1_1: u16 = 0x0311;
/// SMB2_GLOBAL_CAP_ENCRYPTION, by which 3.0 and 3.0.2 agree on encryption.
pub(super) const CAN_ENCRYPT: u32 = 0x40;
/// SMB2_ENCRYPTION_CAPABILITIES, by which 3.1.1 does.
pub(super) const ENCRYPTION_CONTEXT: u16 = 2;

/// Where the contexts begin: behind header, body and dialects, a multiple of eight.
fn contexts_at(dialects: &[u16]) -> usize {
    (HEADER + 36 + 2 * dialects.len()).next_multiple_of(8)
}

/// SMB2 NEGOTIATE over direct TCP. Header, body and contexts as in [MS-SMB2] 2.2.1.2, 2.2.3 and 2.2.3.1; message id 0, no signing,
/// zero client GUID. The salt is to make a hash unique that nobody computes here. With ciphers encryption is offered, too.
pub(super) fn negotiate_request(dialects: &[u16], ciphers: &[u16]) -> Vec<u8> {
    let mut contexts = if dialects.contains(&SMB_3_1_1) { vec![preauthentication_context()] } else { Vec::new() };
    if !contexts.is_empty() && !ciphers.is_empty() {
        contexts.push(encryption_context(ciphers));
    }
    let at = if contexts.is_empty() { 0 } else { contexts_at(dialects) };
    let capabilities = if ciphers.is_empty() { 0 } else { CAN_ENCRYPT };
    let mut smb = Vec::with_capacity(256);
    smb.extend(b"\xfeSMB");
    smb.extend(64_u16.to_le_bytes()); // header length
    smb.extend([0; 2]); // credit charge
    smb.extend([0; 4]); // status
    smb.extend(0_u16.to_le_bytes()); // command: NEGOTIATE
    smb.extend(1_u16.to_le_bytes()); // credits asked for
    smb.extend([0; 48]); // flags, next command, message id, process id, tree id, session id, signature
    debug_assert_eq!(smb.len(), HEADER, "an SMB2 header has 64 bytes");
    smb.extend(36_u16.to_le_bytes()); // body length
    smb.extend((dialects.len() as u16).to_le_bytes());
    smb.extend(1_u16.to_le_bytes()); // signing enabled
    smb.extend([0; 2]); // reserved
    smb.extend(capabilities.to_le_bytes());
    smb.extend([0; 16]); // client GUID
    smb.extend((at as u32).to_le_bytes());
    smb.extend((contexts.len() as u16).to_le_bytes());
    smb.extend([0; 2]); // reserved
    for dialect in dialects {
        smb.extend(dialect.to_le_bytes());
    }
    for context in contexts {
        smb.resize(smb.len().next_multiple_of(8), 0);
        smb.extend(context);
    }
    let mut frame = u32::try_from(smb.len()).unwrap_or(0).to_be_bytes().to_vec();
    frame.extend(smb);
    frame
}

pub(super) fn preauthentication_context() -> Vec<u8> {
    let mut context = Vec::new();
    context.extend(1_u16.to_le_bytes()); // preauthentication integrity
    context.extend((6 + SALT as u16).to_le_bytes());
    context.extend([0; 4]); // reserved
    context.extend(1_u16.to_le_bytes()); // algorithms
    context.extend((SALT as u16).to_le_bytes());
    context.extend(1_u16.to_le_bytes()); // SHA-512
    context.extend([0; SALT]);
    context
}

fn encryption_context(ciphers: &[u16]) -> Vec<u8> {
    let mut context = Vec::new();
    context.extend(ENCRYPTION_CONTEXT.to_le_bytes());
    context.extend((2 + 2 * ciphers.len() as u16).to_le_bytes());
    context.extend([0; 4]); // reserved
    context.extend((ciphers.len() as u16).to_le_bytes());
    ciphers.iter().for_each(|cipher| context.extend(cipher.to_le_bytes()));
    context
}

/// How much longer than the deadline the rest of an answer may take that has begun to come; it is one packet.
const REST_WITHIN: Duration = Duration::from_secs(5);
/// Seconds without a word after which the kernel asks whether the other end still knows the connection, and between two such questions ...
const KEEPALIVE_SECONDS: u32 = 1;
/// ... and how many of them may stay unanswered. A NAS that was switched off and on again meanwhile answers the first with RST.
const KEEPALIVES: u32 = 3;

/// A connection on which a dead server was asked, and has not answered yet.
#[derive(Debug)]
pub struct Unanswered {
    stream: TcpStream,
    since: Instant,
    kept_for: Duration,
}

/// Probes a server that is believed dead; never takes longer than `within`. Returns, too, the connection on which it has not answered
/// yet, for the next probe.
///
/// The kernel of a NAS that hangs takes connections that nobody accepts. With a new one each second, its queue is full after a minute
/// (50 in Samba 4.17, measured) and keeps everybody else out; and when the NAS goes on it forks a process for each of them before it
/// answers anybody: of the 6.6 s that a share needed until it was back after a hang of 60 s, 4.8 were that (emulated NAS, kernel 6.1).
pub async fn probe_dead(
    server: IpAddr,
    within: Duration,
    unanswered: Option<Unanswered>,
) -> (Probed, Option<Unanswered>) {
    ask_dead(SocketAddr::new(server, SMB_PORT), within, unanswered).await
}

async fn ask_dead(
    server: SocketAddr,
    within: Duration,
    unanswered: Option<Unanswered>,
) -> (Probed, Option<Unanswered>) {
    let deadline = Instant::now() + within;
    let silent = Probed::plainly(Verdict::Silent);
    let mut kept_for = detector::kept_for(None);
    if let Some(mut kept) = unanswered {
        let old = kept.since.elapsed() >= kept.kept_for;
        match kept.answer(if old { Instant::now() } else { deadline }).await {
            Ok(Some(probed)) => return (probed, None),
            Ok(None) if !old => return (silent, Some(kept)),
            Ok(None) => kept_for = detector::kept_for(Some(kept.kept_for)),
            Err(_) => {} // the server has forgotten it, and may answer on another
        }
    }
    let mut asked = match timeout_at(deadline, ask(server)).await {
        Err(_) => return (silent, None),
        Ok(Err(error)) => return (Probed::plainly(verdict_of(&error)), None),
        Ok(Ok(stream)) => Unanswered { stream, since: Instant::now(), kept_for },
    };
    match asked.answer(deadline).await {
        Ok(Some(probed)) => (probed, None),
        Ok(None) => (silent, Some(asked)),
        Err(error) => (Probed::plainly(verdict_of(&error)), None),
    }
}

impl Unanswered {
    /// `None` if nothing comes.
    async fn answer(&mut self, deadline: Instant) -> io::Result<Option<Probed>> {
        match timeout_at(deadline, self.stream.readable()).await {
            Err(_) => return Ok(None),
            Ok(readable) => readable?,
        }
        // half an answer cannot be waited for in two goes
        timeout_at(deadline + REST_WITHIN, read_answer(&mut self.stream)).await?.map(Some)
    }
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

/// Bytes of an answer up to the end of the `ServerGuid`: SMB2 header, and 24 bytes of the NEGOTIATE response ([MS-SMB2] 2.2.4). An error
/// has fewer.
const UP_TO_GUID: usize = HEADER + 24;

async fn exchange(server: IpAddr) -> io::Result<Probed> {
    let mut stream = ask(SocketAddr::new(server, SMB_PORT)).await?;
    read_answer(&mut stream).await
}

async fn ask(server: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = connect(server).await?;
    // an orderly end would leave the NAS with a socket in TIME_WAIT for each probe, every second
    stream.set_zero_linger()?;
    setsockopt(&stream, sockopt::TcpKeepIdle, &KEEPALIVE_SECONDS)?;
    setsockopt(&stream, sockopt::TcpKeepInterval, &KEEPALIVE_SECONDS)?;
    setsockopt(&stream, sockopt::TcpKeepCount, &KEEPALIVES)?;
    setsockopt(&stream, sockopt::KeepAlive, &true)?;
    stream.write_all(&negotiate_request(&DIALECTS, &[])).await?;
    Ok(stream)
}

/// A connection of nasmount's own.
pub(super) async fn connect(server: SocketAddr) -> io::Result<TcpStream> {
    let socket = if server.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // needs CAP_NET_ADMIN; without it (the CLI run by a user) there is no fence to pass either
    match setsockopt(&socket, sockopt::Mark, &PROBE_MARK) {
        Ok(()) | Err(nix::errno::Errno::EPERM) => {}
        Err(errno) => return Err(errno.into()),
    }
    socket.connect(server).await
}

/// Whatever an SMB2 server says shows that it lives, an error as well.
async fn read_answer(stream: &mut (impl AsyncReadExt + Unpin)) -> io::Result<Probed> {
    let length = usize::try_from(stream.read_u32().await?).unwrap_or(usize::MAX); // as a NetBIOS session message: type 0, 24 bits
    let mut answer = [0_u8; UP_TO_GUID];
    let said = length.min(UP_TO_GUID);
    let magic = said.min(4);
    stream.read_exact(&mut answer[..magic]).await?;
    if length < HEADER || &answer[..4] != b"\xfeSMB" {
        return Ok(Probed::plainly(Verdict::Garbled));
    }
    stream.read_exact(&mut answer[magic..said]).await?;
    Ok(Probed { verdict: Verdict::Alive, identity: identity(&answer[..said]) })
}

/// Of an answer that is no error.
fn identity(answer: &[u8]) -> Option<Identity> {
    let succeeded = answer.get(8..12)? == [0; 4];
    let guid: [u8; 16] = answer.get(UP_TO_GUID - 16..UP_TO_GUID)?.try_into().ok()?;
    succeeded.then_some(Identity(guid))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_request_has_the_length_it_claims() {
        let length = |dialects: &[u16], ciphers: &[u16]| {
            let frame = negotiate_request(dialects, ciphers);
            let claimed = u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]);
            assert_eq!(usize::try_from(claimed).unwrap(), frame.len() - 4);
            frame.len() - 4
        };
        assert_eq!(length(&DIALECTS, &[]), 112 + 8 + 6 + SALT);
        assert_eq!(contexts_at(&DIALECTS), 112);
        assert_eq!(length(&[0x0302], &[]), HEADER + 36 + 2, "no contexts before 3.1.1");
        // the first context is filled up to a multiple of eight
        assert_eq!(length(&DIALECTS, &[2, 1]), 112 + 48 + 8 + 6);
    }

    async fn heard(length: u32, answer: &[u8]) -> Probed {
        let bytes = [&length.to_be_bytes(), answer].concat();
        read_answer(&mut bytes.as_slice()).await.unwrap()
    }

    #[tokio::test]
    async fn the_identity_is_where_the_server_puts_it_and_an_error_is_an_answer_without_one() {
        let mut answer = [7_u8; 200];
        answer[..4].copy_from_slice(b"\xfeSMB");
        answer[8..12].fill(0);
        answer[72..88].copy_from_slice(&[9; 16]);
        assert_eq!(heard(200, &answer).await, Probed { verdict: Verdict::Alive, identity: Some(Identity([9; 16])) });
        answer[8] = 1;
        assert_eq!(heard(200, &answer).await, Probed::plainly(Verdict::Alive));
        // "no dialect in common": 9 bytes behind the header
        assert_eq!(heard(73, &answer[..73]).await, Probed::plainly(Verdict::Alive));
    }

    const SOON: Duration = Duration::from_millis(50);
    const IN_TIME: Duration = Duration::from_secs(60);

    /// A NAS that hangs: its kernel takes connections.
    async fn hung() -> (tokio::net::TcpListener, SocketAddr) {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    async fn answer(stream: &mut TcpStream) {
        let mut answer = [0_u8; 4 + HEADER];
        answer[3] = HEADER as u8;
        answer[4..8].copy_from_slice(b"\xfeSMB");
        stream.write_all(&answer).await.unwrap();
    }

    #[tokio::test]
    async fn a_server_that_hangs_is_asked_on_one_connection_until_it_answers() {
        let (listener, server) = hung().await;
        let mut unanswered = None;
        for _ in 0..3 {
            let (probed, kept) = ask_dead(server, SOON, unanswered).await;
            assert_eq!((probed.verdict, kept.is_some()), (Verdict::Silent, true));
            unanswered = kept;
        }
        let mut first = listener.accept().await.unwrap().0;
        answer(&mut first).await;
        let (probed, kept) = ask_dead(server, IN_TIME, unanswered).await;
        assert_eq!((probed.verdict, kept.is_none()), (Verdict::Alive, true));
        assert!(timeout(SOON, listener.accept()).await.is_err(), "there was one connection");
    }

    #[tokio::test]
    async fn a_connection_that_is_over_or_too_old_makes_room_for_another() {
        let (listener, server) = hung().await;
        let (_, first) = ask_dead(server, SOON, None).await;
        drop(listener.accept().await.unwrap());
        let (second, kept) = tokio::join!(
            async {
                let mut stream = listener.accept().await.unwrap().0;
                answer(&mut stream).await;
                stream
            },
            ask_dead(server, IN_TIME, first)
        );
        assert_eq!(kept.0.verdict, Verdict::Alive, "the same probe asks on another");
        drop(second);

        let (_, old) = ask_dead(server, SOON, None).await;
        let old = old.map(|old| Unanswered { since: old.since - old.kept_for, ..old });
        let (_, new) = ask_dead(server, SOON, old).await;
        assert_eq!(new.map(|kept| kept.kept_for), Some(detector::kept_for(Some(detector::kept_for(None)))));
        assert!(listener.accept().await.is_ok() && listener.accept().await.is_ok());
        drop(listener);
        let (probed, kept) = ask_dead(server, IN_TIME, None).await;
        assert_eq!((probed.verdict, kept.is_none()), (Verdict::Refused, true));
    }

    #[tokio::test]
    async fn what_is_not_smb2_is_garbled() {
        assert_eq!(heard(3, b"NAS").await, Probed::plainly(Verdict::Garbled));
        assert_eq!(heard(39, b"\xffSMBr").await, Probed::plainly(Verdict::Garbled));
        assert_eq!(heard(5, b"\xfeSMB!").await, Probed::plainly(Verdict::Garbled));
        assert_eq!(heard(0x4854_5450, b"/1.1 400 Bad Request").await, Probed::plainly(Verdict::Garbled));
    }
}
