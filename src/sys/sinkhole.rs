//! A stand-in for a server that is being given up: what the kernel's CIFS client of this host sends there is led to it, and it refuses
//! each login.
//!
//! Why: when its socket is destroyed, whoever is in the middle of a call waits for a new connection, 10 s and often twice that, before
//! the kernel lets the call fail; SIGKILL ends none that waits for written data. A connection that is made and a login that is refused
//! end each call of a soft mount at once with EHOSTDOWN (`smb2_reconnect` in fs/smb/client/smb2pdu.c: "if ((rc == -EACCES) &&
//! !tcon->retry)"). Measured on 6.1, 6.12 and 7.2 with a hung server: read, write, fsync, stat, open, readdir and statfs had all ended
//! 0.2 to 1.1 s after the socket was destroyed, new calls failed at once, and the same mount came back by itself afterwards.
//!
//! A login by Kerberos asks for a ticket before it asks the server, and a hard mount asks again and again: neither ends by a refusal.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::debug;

use super::probe::{HEADER, SMB_3_1_1, preauthentication_context};

/// Ports that only root may take (ip(7), `ip_unprivileged_port_start`): no other user answers the kernel when nasmount has gone. As
/// bindresvport(3) does it, from above.
const PORTS: std::ops::RangeInclusive<u16> = 512..=1023;
/// More than a client sends before it is logged in; a ticket would be larger, and is not asked for.
const MOST_BYTES: usize = 64 * 1024;
/// So many logins of a connection are refused at once: more calls than are in flight. Who goes on then calls in a loop, and each refusal is
/// two lines in the kernel's log.
const AT_ONCE: u32 = 64;
/// The others wait, one after the other.
const PAUSE: Duration = Duration::from_secs(1);

/// STATUS_LOGON_FAILURE, which the client calls EACCES (`map_smb2_to_linux_error`).
const LOGON_FAILURE: u32 = 0xc000_006d;
/// Where the response to NEGOTIATE has its security token, if it had one, and its contexts; a multiple of eight.
const CONTEXTS_AT: usize = HEADER + 64;
/// SMB2_FLAGS_SERVER_TO_REDIR.
const IS_RESPONSE: u32 = 1;
/// A client needs them for whatever it sends; as many as it is likely to ask for.
const CREDITS: u16 = 32;
/// MaxTransactSize, MaxReadSize and MaxWriteSize; nobody gets as far as using them.
const TRANSFER: u32 = 64 * 1024;

/// Answers as long as it lives.
#[derive(Debug)]
pub struct Sinkhole {
    port: u16,
    _listening: JoinSet<()>,
}

impl Sinkhole {
    /// Listens on the loopback interface, with IPv6 if there is any. Needs CAP_NET_BIND_SERVICE.
    pub async fn open() -> io::Result<Self> {
        let mut why = io::Error::from(io::ErrorKind::AddrInUse);
        for port in PORTS.rev() {
            match listen(port).await {
                Ok(listeners) => return Ok(Self::on(port, listeners)),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => why = error,
                Err(error) => return Err(error),
            }
        }
        Err(why)
    }

    fn on(port: u16, listeners: Vec<TcpListener>) -> Self {
        let mut listening = JoinSet::new();
        for listener in listeners {
            listening.spawn(accept(listener));
        }
        Self { port, _listening: listening }
    }

    /// The port on both loopback addresses.
    pub fn port(&self) -> u16 {
        self.port
    }
}

async fn listen(port: u16) -> io::Result<Vec<TcpListener>> {
    let mut listeners = vec![TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?];
    match TcpListener::bind((Ipv6Addr::LOCALHOST, port)).await {
        Ok(listener) => listeners.push(listener),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
        Err(error) => debug!(%error, "no sinkhole for IPv6"),
    }
    Ok(listeners)
}

/// Ends, and its connections with it, when it is dropped.
async fn accept(listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, from)) => drop(connections.spawn(refuse(stream, from))),
            Err(error) => {
                debug!(%error, "a connection to the sinkhole is none");
                sleep(PAUSE).await; // no descriptor is left, perhaps
            }
        }
    }
}

async fn refuse(mut stream: TcpStream, from: SocketAddr) {
    let mut logins = 0;
    loop {
        let answered = async {
            let request = read(&mut stream).await?;
            let answer = answer(&request).ok_or(io::ErrorKind::InvalidData)?;
            if !is_negotiate(&request) {
                logins += 1;
                sleep(pause_before(logins)).await;
            }
            stream.write_all(&answer).await
        };
        if let Err(error) = answered.await {
            debug!(%from, logins, %error, "the sinkhole's client has gone");
            return;
        }
    }
}

fn pause_before(login: u32) -> Duration {
    if login > AT_ONCE { PAUSE } else { Duration::ZERO }
}

/// One message: four bytes of length, and as many bytes ([MS-SMB2] 2.1).
async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u32().await? as usize;
    if length > MOST_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// A request's command is NEGOTIATE.
fn is_negotiate(request: &[u8]) -> bool {
    request.get(12..14) == Some(&[0, 0])
}

/// What is answered, with its length; nothing to what is no SMB2.
fn answer(request: &[u8]) -> Option<Vec<u8>> {
    let header = request.get(..HEADER).filter(|header| header.starts_with(b"\xfeSMB"))?;
    let (status, body) =
        if is_negotiate(request) { (0, negotiated(dialect(request)?)) } else { (LOGON_FAILURE, error_body()) };
    let mut smb = Vec::with_capacity(HEADER + body.len());
    smb.extend(b"\xfeSMB");
    smb.extend(64_u16.to_le_bytes()); // header length
    smb.extend(1_u16.to_le_bytes()); // credit charge
    smb.extend(status.to_le_bytes());
    smb.extend(header.get(12..14)?); // command
    smb.extend(CREDITS.to_le_bytes());
    smb.extend(IS_RESPONSE.to_le_bytes());
    smb.extend([0; 4]); // next command
    smb.extend(header.get(24..32)?); // message id
    smb.extend([0; 32]); // process id, tree id, session id, signature
    smb.extend(body);
    let mut frame = u32::try_from(smb.len()).ok()?.to_be_bytes().to_vec();
    frame.extend(smb);
    Some(frame)
}

/// The highest dialect that is offered ([MS-SMB2] 2.2.3).
fn dialect(request: &[u8]) -> Option<u16> {
    let count = u16::from_le_bytes(request.get(HEADER + 2..HEADER + 4)?.try_into().ok()?);
    let dialects = request.get(HEADER + 36..)?.chunks_exact(2).take(count.into());
    dialects.filter_map(|dialect| Some(u16::from_le_bytes(dialect.try_into().ok()?))).max()
}

/// [MS-SMB2] 2.2.4: without a security token the client logs in by NTLM (`SMB2_negotiate`: "if (blob_length == 0)").
fn negotiated(dialect: u16) -> Vec<u8> {
    let context = if dialect == SMB_3_1_1 { preauthentication_context() } else { Vec::new() };
    let mut body = Vec::with_capacity(CONTEXTS_AT - HEADER + context.len());
    body.extend(65_u16.to_le_bytes()); // body length
    body.extend(1_u16.to_le_bytes()); // signing enabled
    body.extend(dialect.to_le_bytes());
    body.extend(u16::from(!context.is_empty()).to_le_bytes());
    body.extend(b"nasmount:refuses"); // server GUID
    body.extend([0; 4]); // capabilities
    for _ in 0..3 {
        body.extend(TRANSFER.to_le_bytes());
    }
    body.extend([0; 16]); // system time, server start time
    body.extend((CONTEXTS_AT as u16).to_le_bytes()); // security token: where it would be
    body.extend([0; 2]); // and how long it is
    body.extend(if context.is_empty() { [0; 4] } else { (CONTEXTS_AT as u32).to_le_bytes() });
    // behind the token, which has a byte at least in the structure's length
    body.extend(if context.is_empty() { vec![0] } else { context });
    body
}

/// [MS-SMB2] 2.2.2.
fn error_body() -> Vec<u8> {
    vec![9, 0, 0, 0, 0, 0, 0, 0, 0]
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::sys::probe::{DIALECTS, negotiate_request};

    /// SESSION_SETUP with a message id of 7.
    fn login() -> Vec<u8> {
        let mut message = vec![0; 100];
        message[..4].copy_from_slice(b"\xfeSMB");
        message[12] = 1;
        message[24] = 7;
        message
    }

    #[test]
    fn the_highest_dialect_is_spoken() {
        for dialects in [&DIALECTS[..], &[SMB_3_1_1], &[0x0210], &[0x0202, 0x0300]] {
            let answer = answer(&negotiate_request(dialects, &[])[4..]).unwrap();
            let said = u16::from_le_bytes(answer[4 + HEADER + 4..4 + HEADER + 6].try_into().unwrap());
            assert_eq!(Some(&said), dialects.iter().max());
            assert_eq!(answer.len() > 4 + CONTEXTS_AT + 1, said == SMB_3_1_1, "contexts for {said:x}");
        }
    }

    #[test]
    fn each_login_is_refused_by_its_number() {
        let answer = answer(&login()).unwrap();
        assert_eq!(answer[4 + 8..4 + 12], LOGON_FAILURE.to_le_bytes());
        assert_eq!((answer[4 + 12], answer[4 + 24]), (1, 7));
    }

    #[test]
    fn what_is_no_request_is_not_answered() {
        assert_eq!(answer(b"\xfeSMB"), None);
        assert_eq!(answer(&[0; 200]), None);
        let cut_off = &negotiate_request(&DIALECTS, &[])[4..4 + HEADER + 36];
        assert_eq!(answer(cut_off), None, "no dialect");
    }

    #[test]
    fn who_logs_in_again_and_again_waits() {
        assert_eq!(pause_before(AT_ONCE), Duration::ZERO);
        assert_eq!(pause_before(AT_ONCE + 1), PAUSE);
    }

    #[tokio::test]
    async fn it_ends_with_its_connections() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let sinkhole = Sinkhole::on(address.port(), vec![listener]);
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, sinkhole.port())).await.unwrap();
        for message in [&negotiate_request(&DIALECTS, &[])[4..], &login(), &login()] {
            stream.write_u32(u32::try_from(message.len()).unwrap()).await.unwrap();
            stream.write_all(message).await.unwrap();
            let answer = read(&mut stream).await.unwrap();
            assert_eq!(answer[8..12] == LOGON_FAILURE.to_le_bytes(), !is_negotiate(message));
        }
        drop(sinkhole);
        assert!(read(&mut stream).await.is_err());
        assert!(TcpStream::connect(address).await.is_err());
    }
}
