//! A closer look at a server than the probe's, for `nasmount diagnose`: how long the port takes to take a connection, what the answer to
//! NEGOTIATE says, and what it is that answers, if it is not that.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::probe::{CAN_ENCRYPT, ENCRYPTION_CONTEXT, HEADER, SMB_3_1_1, connect, negotiate_request};
use crate::plan::diagnosis::{Encryption, Greeting, Look, NoConnection, NoGreeting, Signing, Unfinished};

/// AES-128-GCM, AES-128-CCM, AES-256-GCM, AES-256-CCM: what the kernel can.
const CIPHERS: [u16; 4] = [2, 1, 4, 3];

/// More than any server answers; the rest is not looked at.
const MOST: usize = 16 * 1024;

/// Looks at a server once, and offers these versions; takes at most twice as long as `within`.
pub async fn examine(server: SocketAddr, dialects: &[u16], within: Duration) -> Look {
    let begun = Instant::now();
    let connected = timeout_at(begun + within, connect(server)).await;
    let mut stream = match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(stream) => stream,
        Err(error) => return Look::NoConnection(no_connection(&error)),
    };
    let connect = begun.elapsed();
    let asked = Instant::now();
    let said = ask(&mut stream, &negotiate_request(dialects, &CIPHERS), asked + within).await;
    let answer = asked.elapsed();
    let why = match said.and_then(|message| greeting(&message)) {
        Ok(greeting) => return Look::Greeted { connect, answer, ahead: ahead(greeting.system_time, answer), greeting },
        Err(why) => why,
    };
    // one that does not know SMB 2 ends the connection, or answers in its own way
    let doubted = [NoGreeting::Closed, NoGreeting::Garbled, NoGreeting::Smb1].contains(&why);
    let why = if doubted && speaks_smb1(server, within).await { NoGreeting::Smb1 } else { why };
    Look::NoGreeting { connect, why }
}

fn no_connection(error: &io::Error) -> NoConnection {
    const REFUSED: [io::ErrorKind; 2] = [io::ErrorKind::ConnectionRefused, io::ErrorKind::ConnectionReset];
    const UNREACHABLE: [io::ErrorKind; 3] =
        [io::ErrorKind::HostUnreachable, io::ErrorKind::NetworkUnreachable, io::ErrorKind::NetworkDown];
    if REFUSED.contains(&error.kind()) {
        NoConnection::Refused
    } else if UNREACHABLE.contains(&error.kind()) {
        NoConnection::Unreachable
    } else if error.kind() == io::ErrorKind::TimedOut {
        NoConnection::Silent
    } else {
        NoConnection::Other(error.to_string())
    }
}

async fn ask(stream: &mut TcpStream, request: &[u8], until: Instant) -> Result<Vec<u8>, NoGreeting> {
    match timeout_at(until, stream.write_all(request)).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) => return Err(NoGreeting::Closed),
        Err(_) => return Err(NoGreeting::Silent),
    }
    let said = read_message(stream, until).await;
    let _ = stream.set_zero_linger(); // as the probe does
    said
}

/// The message behind a length, as a NetBIOS session message has it. What is no SMB is told as soon as that can be seen: it may claim a
/// length that never comes.
async fn read_message(stream: &mut (impl AsyncRead + Unpin), until: Instant) -> Result<Vec<u8>, NoGreeting> {
    let mut heard = Vec::new();
    loop {
        let length = length_of(&heard)?;
        if let Some(length) = length
            && heard.len() >= LENGTH + length
        {
            return Ok(heard.drain(LENGTH..LENGTH + length).collect());
        }
        let ending = match timeout_at(until, stream.read_buf(&mut heard)).await {
            Ok(Ok(1..)) => continue,
            Ok(Ok(0) | Err(_)) => Unfinished::Closed,
            Err(_) => Unfinished::Late,
        };
        return Err(match (ending, heard.len()) {
            (Unfinished::Closed, 0) => NoGreeting::Closed,
            (Unfinished::Late, 0) => NoGreeting::Silent,
            (ending, bytes) => NoGreeting::Incomplete { bytes, of: length.map(|length| LENGTH + length), ending },
        });
    }
}

/// Bytes of the length that a message begins with.
const LENGTH: usize = 4;

/// How long the message is that begins so, once that is known; or what it is instead of SMB.
fn length_of(heard: &[u8]) -> Result<Option<usize>, NoGreeting> {
    match heard {
        [b'H', b'T', b'T', b'P', ..] => return Err(NoGreeting::Http),
        [0x14..=0x17, 3, 0..=4, _, ..] => return Err(NoGreeting::Tls), // type, then the version
        [] | [0 | b'H' | 0x14..=0x17] | [b'H', b'T'] | [b'H', b'T', b'T'] | [0x14..=0x17, 3] => return Ok(None),
        [0x14..=0x17, 3, _] | [0, _] | [0, _, _] => return Ok(None),
        [0, _, _, _, ..] => {}
        _ => return Err(NoGreeting::Garbled),
    }
    let Some((length, message)) = heard.split_first_chunk::<LENGTH>() else { return Ok(None) };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(MOST).min(MOST);
    // the first byte tells 2 and newer from 1; the others are the same
    let is_smb = |(at, byte): (usize, &u8)| if at == 0 { matches!(byte, 0xfc..=0xff) } else { *byte == b"\xffSMB"[at] };
    if length < LENGTH || !message.iter().take(LENGTH).enumerate().all(is_smb) {
        return Err(NoGreeting::Garbled);
    }
    Ok(Some(length))
}

/// Of the response to NEGOTIATE ([MS-SMB2] 2.2.4).
fn greeting(message: &[u8]) -> Result<Greeting, NoGreeting> {
    match message.get(..4) {
        Some(b"\xfeSMB") if message.len() >= HEADER => {}
        Some(b"\xffSMB") => return Err(NoGreeting::Smb1),
        _ => return Err(NoGreeting::Garbled),
    }
    let status = u32_at(message, 8).unwrap_or(u32::MAX);
    if status != 0 {
        return Err(NoGreeting::Status(status));
    }
    let body = message.get(HEADER..).unwrap_or_default();
    let read = || {
        let (dialect, capabilities) = (u16_at(body, 4)?, u32_at(body, 24)?);
        let system_time = u64::from(u32_at(body, 40)?) | u64::from(u32_at(body, 44)?) << 32;
        let signing = if u16_at(body, 2)? & 2 == 0 { Signing::Possible } else { Signing::Required };
        let encrypts = match dialect {
            SMB_3_1_1 => chooses_a_cipher(message),
            _ => capabilities & CAN_ENCRYPT != 0,
        };
        let encryption = if encrypts { Encryption::Possible } else { Encryption::None };
        Some(Greeting { dialect, signing, encryption, system_time })
    };
    read().ok_or(NoGreeting::Garbled)
}

/// Whether there is a context with a cipher that is not 0 (2.2.4.1.2).
fn chooses_a_cipher(message: &[u8]) -> bool {
    let read = || {
        let contexts = u16_at(message, HEADER + 6)?;
        let mut at = usize::try_from(u32_at(message, HEADER + 60)?).ok()?;
        for _ in 0..contexts {
            let (kind, length) = (u16_at(message, at)?, usize::from(u16_at(message, at + 2)?));
            if kind == ENCRYPTION_CONTEXT {
                return Some(u16_at(message, at + 10)? != 0);
            }
            at = (at + 8 + length).next_multiple_of(8);
        }
        None
    };
    read().unwrap_or(false)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

/// By how many seconds the server's clock is ahead: what it told is half an answer's time old.
fn ahead(system_time: u64, answer: Duration) -> Option<f64> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let told = unix_time(system_time)?;
    Some(told - (now.as_secs_f64() - answer.as_secs_f64() / 2.0))
}

/// Seconds since 1970, of units of 100 ns since 1601; `None` of 0, which says that it is not told.
fn unix_time(system_time: u64) -> Option<f64> {
    const FROM_1601_TO_1970: f64 = 11_644_473_600.0;
    (system_time != 0).then(|| Duration::from_micros(system_time / 10).as_secs_f64() - FROM_1601_TO_1970)
}

/// SMB_COM_NEGOTIATE with "NT LM 0.12" alone ([MS-CIFS] 2.2.4.52): a server that does not speak SMB 1 ends the connection or chooses none.
fn smb1_request() -> Vec<u8> {
    let mut smb = b"\xffSMBr".to_vec();
    smb.extend([0; 4]); // status
    smb.push(0x18); // flags: paths are canonical and without case
    smb.extend(0xc801_u16.to_le_bytes()); // flags 2: Unicode, NT status, extended security, long names
    smb.extend([0; 20]); // process id, signature, reserved, tree, process, user and multiplex id
    smb.push(0); // words
    let dialect = b"\x02NT LM 0.12\0";
    smb.extend((dialect.len() as u16).to_le_bytes());
    smb.extend(dialect);
    let mut frame = (smb.len() as u32).to_be_bytes().to_vec();
    frame.extend(smb);
    frame
}

async fn speaks_smb1(server: SocketAddr, within: Duration) -> bool {
    let asking = async {
        let mut stream = connect(server).await.map_err(|_| NoGreeting::Closed)?;
        ask(&mut stream, &smb1_request(), Instant::now() + within).await
    };
    match tokio::time::timeout(within, asking).await {
        // no error, and of the dialects the first was chosen
        Ok(Ok(message)) => {
            message.starts_with(b"\xffSMBr") && u32_at(&message, 5) == Some(0) && u16_at(&message, 33) == Some(0)
        }
        Ok(Err(_)) | Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use tokio::net::TcpListener;

    use super::*;

    const ALL: [u16; 5] = super::super::probe::DIALECTS;
    const PATIENT: Duration = Duration::from_secs(30);

    /// A response of version 3.1.1 with a context of encryption behind one of preauthentication.
    fn response(dialect: u16, cipher: u16) -> Vec<u8> {
        let mut smb = vec![0_u8; HEADER + 64];
        smb[..4].copy_from_slice(b"\xfeSMB");
        let mut put = |at: usize, bytes: &[u8]| smb[HEADER + at..HEADER + at + bytes.len()].copy_from_slice(bytes);
        put(0, &65_u16.to_le_bytes());
        put(2, &3_u16.to_le_bytes());
        put(4, &dialect.to_le_bytes());
        put(6, &2_u16.to_le_bytes());
        put(24, &CAN_ENCRYPT.to_le_bytes());
        put(40, &116_444_736_010_000_000_u64.to_le_bytes()); // a second after 1970 began
        put(60, &128_u32.to_le_bytes());
        smb.extend([1, 0, 3, 0, 0, 0, 0, 0, 7, 7, 7, 0, 0, 0, 0, 0]);
        smb.extend([2, 0, 4, 0, 0, 0, 0, 0, 1, 0]);
        smb.extend(cipher.to_le_bytes());
        smb
    }

    #[test]
    fn what_a_server_says_is_where_it_puts_it() {
        let said = greeting(&response(0x0311, 2)).unwrap();
        assert_eq!((said.dialect, said.signing), (0x0311, Signing::Required));
        assert_eq!(said.encryption, Encryption::Possible);
        assert_eq!(unix_time(said.system_time), Some(1.0));
        assert_eq!(unix_time(0), None);
        assert_eq!(greeting(&response(0x0311, 0)).unwrap().encryption, Encryption::None, "no cipher in common");
        assert_eq!(
            greeting(&response(0x0302, 0)).unwrap().encryption,
            Encryption::Possible,
            "a capability before 3.1.1"
        );
        let mut optional = response(0x0302, 0);
        (optional[HEADER + 2], optional[HEADER + 24]) = (1, 0);
        let said = greeting(&optional).unwrap();
        assert_eq!((said.signing, said.encryption), (Signing::Possible, Encryption::None));
    }

    #[test]
    fn what_is_cut_off_or_wrong_is_said() {
        let mut refused = response(0x0311, 2);
        refused[8..12].copy_from_slice(&0xc000_00bb_u32.to_le_bytes());
        assert_eq!(greeting(&refused), Err(NoGreeting::Status(0xc000_00bb)));
        assert_eq!(greeting(&response(0x0311, 2)[..HEADER + 40]), Err(NoGreeting::Garbled));
        assert_eq!(greeting(b"\xffSMBr"), Err(NoGreeting::Smb1));
        assert_eq!(greeting(b"NAS"), Err(NoGreeting::Garbled));
        let whole = response(0x0311, 2);
        for length in 0..whole.len() {
            let _ = greeting(&whole[..length]); // nothing panics
        }
        assert!(!chooses_a_cipher(&whole[..whole.len() - 1]));
    }

    /// A server that answers each connection with the next of these; an empty one is the end of the connection.
    async fn answering(answers: Vec<Vec<u8>>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let length = stream.read_u32().await.unwrap();
                let mut request = vec![0; usize::try_from(length).unwrap()];
                stream.read_exact(&mut request).await.unwrap();
                stream.write_all(&answer).await.unwrap();
            }
        });
        address
    }

    fn framed(message: &[u8]) -> Vec<u8> {
        [&u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
    }

    async fn why(answers: Vec<Vec<u8>>) -> NoGreeting {
        let look = examine(answering(answers).await, &ALL, PATIENT).await;
        let Look::NoGreeting { why, .. } = look else { panic!("{look:?}") };
        why
    }

    #[tokio::test]
    async fn a_server_that_answers_is_greeted() {
        let server = answering(vec![framed(&response(0x0311, 2))]).await;
        let Look::Greeted { greeting, ahead, .. } = examine(server, &ALL, PATIENT).await else { panic!("no greeting") };
        assert_eq!(greeting.dialect, 0x0311);
        assert!(ahead.unwrap() < -1e9, "its clock stands in 1970: {ahead:?}");
    }

    #[tokio::test]
    async fn who_is_no_server_of_smb_2_is_told_apart() {
        let mut smb1 = b"\xffSMBr".to_vec();
        smb1.resize(32, 0);
        smb1.extend([17, 0, 0]);
        let none_in_common = [&smb1[..33], &[0xff, 0xff]].concat();
        assert_eq!(why(vec![vec![], framed(&smb1)]).await, NoGreeting::Smb1);
        assert_eq!(why(vec![framed(&smb1), framed(&smb1)]).await, NoGreeting::Smb1);
        assert_eq!(why(vec![vec![], framed(&none_in_common)]).await, NoGreeting::Closed);
        assert_eq!(why(vec![vec![], vec![]]).await, NoGreeting::Closed);
        assert_eq!(why(vec![b"HTTP/1.1 400 Bad Request\r\n".to_vec()]).await, NoGreeting::Http);
        assert_eq!(why(vec![vec![0x15, 3, 3, 0, 2, 2, 70]]).await, NoGreeting::Tls);
        assert_eq!(why(vec![b"SSH-2.0-OpenSSH".to_vec(), vec![]]).await, NoGreeting::Garbled);
    }

    /// What a server means that says this much and then goes on saying nothing.
    async fn late(said: &'static [u8]) -> NoGreeting {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap();
        let held = tokio::spawn(async move {
            let mut streams = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                stream.write_all(said).await.unwrap();
                streams.push(stream);
            }
        });
        let look = examine(server, &ALL, Duration::from_millis(100)).await;
        held.abort();
        let Look::NoGreeting { why, .. } = look else { panic!("{look:?}") };
        why
    }

    #[tokio::test]
    async fn a_beginning_is_told_from_nothing_and_from_what_is_no_smb() {
        let part = |bytes, of, ending| NoGreeting::Incomplete { bytes, of, ending };
        assert_eq!(late(b"\0\0").await, part(2, None, Unfinished::Late));
        assert_eq!(late(b"\0\0\0\x80\xfeSM").await, part(7, Some(132), Unfinished::Late));
        assert_eq!(why(vec![b"\0\0\0\x80\xfeSMB".to_vec()]).await, part(8, Some(132), Unfinished::Closed));
        // these claim a length that never comes, or none
        assert_eq!(late(b"\0\0\xff\xffNAS").await, NoGreeting::Garbled);
        assert_eq!(late(b"\0\0\0\0").await, NoGreeting::Garbled);
        assert_eq!(late(b"S").await, NoGreeting::Garbled);
        assert_eq!(late(b"HTTP").await, NoGreeting::Http);
    }

    #[tokio::test]
    async fn nobody_listens_or_nobody_answers() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert_eq!(examine(closed, &ALL, PATIENT).await, Look::NoConnection(NoConnection::Refused));
        // its kernel takes the connection
        let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let look = examine(mute.local_addr().unwrap(), &ALL, Duration::from_millis(50)).await;
        assert!(matches!(look, Look::NoGreeting { why: NoGreeting::Silent, .. }), "{look:?}");
    }
}
