//! How the daemon's workers talk to the barrier's owner: one line of JSON each way over a Unix socket that only root can
//! reach, and with a good answer a descriptor of the barrier's root directory.
//!
//! The descriptor is what a share is attached to. A path walk would have to cross the barrier, and while anybody's access
//! waits there the kernel makes every other walk wait with it and fail with it (`autofs_mount_wait`, fs/autofs/root.c;
//! seen in the VM: EHOSTDOWN from move_mount while somebody listed the path in a loop).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use super::paths;
use crate::config::settings::OnAccess;

/// Longest message: a path of 4,096 bytes, escaped.
const MESSAGE_MAX: usize = 16 * 1024;

/// Of which barrier is spoken, and what accesses to it meet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Barred {
    /// Name of the share.
    pub share: String,
    /// Its mount point.
    pub mount_point: PathBuf,
    /// How long accesses wait for the share.
    #[serde(default)]
    pub on_access: OnAccess,
}

/// What is wished. The owner may be older or newer than who asks: what it does not know it leaves out.
#[derive(Debug, Serialize, Deserialize)]
pub struct Wish {
    /// Of which.
    #[serde(flatten)]
    pub barred: Barred,
    /// What.
    #[serde(default)]
    pub what: What,
}

/// What may be wished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Lay a barrier, or say that it is there.
    #[default]
    Lay,
    /// If it is there, have accesses meet something else, also those that wait.
    Heed,
    /// It is about to be taken off for good: fail accesses, also those that wait, and do not lay it again after a reboot.
    Forget,
}

/// Why there is no barrier.
#[derive(Debug, Serialize, Deserialize)]
pub struct Refused {
    /// The cause, for people.
    pub why: String,
    /// Its number, if it has one.
    pub errno: Option<i32>,
    /// It does not pass by itself: the mount point is not one.
    pub needs_a_person: bool,
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{AlreadyExists, InvalidInput, NotADirectory, ReadOnlyFilesystem, ResourceBusy};
        let busy = (error.kind() == ResourceBusy).then_some(libc::EBUSY);
        let errno = error.raw_os_error().or(busy);
        // a file has that name, or a parent of it is one, or it is a link, or it cannot be made where it should be
        let needs_a_person = matches!(error.kind(), AlreadyExists | InvalidInput | NotADirectory | ReadOnlyFilesystem);
        Self { why: error.to_string(), errno, needs_a_person }
    }
}

/// The answer: nothing, or why not.
type Laid = Result<(), Refused>;

/// Asks the barrier's owner for the barrier of a share; returns its root directory.
pub fn lay(barred: &Barred) -> Result<OwnedFd, Refused> {
    ask(&Wish { barred: barred.clone(), what: What::Lay })?
        .ok_or_else(|| io::Error::other("the barrier's owner sent no descriptor").into())
}

/// Tells the barrier's owner what accesses meet from now on.
pub fn heed(barred: &Barred) -> Result<(), Refused> {
    ask(&Wish { barred: barred.clone(), what: What::Heed }).map(drop)
}

/// Tells the barrier's owner that the barrier will be taken off. One who remembers no barriers still fails accesses.
pub fn forget(barred: &Barred) -> Result<(), Refused> {
    let barred = Barred { on_access: OnAccess::Fail, ..barred.clone() };
    ask(&Wish { barred: barred.clone(), what: What::Forget }).map(drop).or_else(|_| heed(&barred))
}

fn ask(wish: &Wish) -> Result<Option<OwnedFd>, Refused> {
    let stream = UnixStream::connect(paths::BARRIER_SOCKET)
        .map_err(|error| io::Error::new(error.kind(), format!("nasmount-barrier.service does not run ({error})")))?;
    send(&stream, wish, None)?;
    let (answer, root): (Laid, _) = receive(&stream)?;
    answer.map(|()| root)
}

/// The owner's side: one wish.
pub fn receive_wish(stream: &UnixStream) -> io::Result<Wish> {
    receive(stream).map(|(wish, _)| wish)
}

/// The owner's side: its answer.
pub fn answer(stream: &UnixStream, result: io::Result<Option<OwnedFd>>) -> io::Result<()> {
    let (laid, root): (Laid, _) = match result {
        Ok(root) => (Ok(()), root),
        Err(error) => (Err(error.into()), None),
    };
    send(stream, &laid, root.as_ref().map(|root| root.as_fd()))
}

fn send(stream: &UnixStream, message: &impl Serialize, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut line = serde_json::to_vec(message).map_err(io::Error::other)?;
    line.push(b'\n');
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&fds));
    }
    // a message this small fits into an empty socket's buffer as a whole
    let sent = sendmsg(stream, &[IoSlice::new(&line)], &mut control, SendFlags::NOSIGNAL)?;
    if sent == line.len() { Ok(()) } else { Err(io::Error::other("the message was cut short")) }
}

fn receive<T: for<'de> Deserialize<'de>>(stream: &UnixStream) -> io::Result<(T, Option<OwnedFd>)> {
    let mut line = Vec::new();
    let mut received = None;
    while !line.ends_with(b"\n") {
        let mut bytes = [0_u8; 1024];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let message = recvmsg(stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        for ancillary in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = ancillary {
                received = fds.last().or(received);
            }
        }
        if message.bytes == 0 || line.len() > MESSAGE_MAX {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the message has no end"));
        }
        line.extend_from_slice(&bytes[..message.bytes]);
    }
    Ok((serde_json::from_slice(&line).map_err(io::Error::other)?, received))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn who_knows_less_is_understood() {
        let old: Wish = serde_json::from_str(r#"{"share":"media","mount_point":"/mnt/media"}"#).unwrap();
        assert_eq!((old.what, old.barred.on_access), (What::Lay, OnAccess::Fail));
        let barred = Barred { on_access: OnAccess::Wait(std::time::Duration::from_secs(3)), ..old.barred };
        let new = serde_json::to_value(Wish { barred, what: What::Heed }).unwrap();
        assert_eq!((&new["share"], &new["mount_point"]), (&"media".into(), &"/mnt/media".into()));
    }
}
