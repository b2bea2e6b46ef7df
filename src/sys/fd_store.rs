//! What systemd keeps open for a service over its restarts (FileDescriptorStoreMax=), by name.
//!
//! A message to systemd is read some time after it was sent, and only if its sender is still there. So that what is handed over is kept
//! however its sender ends, that systemd has read the message is waited for.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sd_notify::NotifyState;

/// How long systemd may take to read a message; it reads them before anything else. It may be away for longer, but a barrier that is laid
/// late is worse than one that is not kept.
const READ_WITHIN: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// What was kept from an earlier process. Takes the descriptors away from whoever asks a second time: call it once, at the start.
pub fn take() -> io::Result<Vec<(String, OwnedFd)>> {
    let kept = sd_notify::listen_fds_with_names()?;
    // SAFETY: systemd has opened these descriptors for this process, and nothing else in it knows of them.
    #[expect(unsafe_code, reason = "systemd says which they are in the environment")]
    let owned = |fd| unsafe { OwnedFd::from_raw_fd(fd) };
    Ok(kept.map(|(fd, name)| (name, owned(fd))).collect())
}

/// Has a descriptor kept; more than one may have a name. Returns when it is.
pub fn keep(name: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
    sd_notify::notify_with_fds(&[NotifyState::FdStore, NotifyState::FdName(name)], &[fd])?;
    wait_until_read()
}

/// Has all of a name closed.
pub fn forget(name: &str) -> io::Result<()> {
    sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)])
}

/// systemd closes what came with this message when it has read all that were sent before (sd_notify_barrier(3)).
fn wait_until_read() -> io::Result<()> {
    let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    sd_notify::notify_with_fds(&[NotifyState::Custom("BARRIER=1")], &[theirs.as_fd()])?;
    drop(theirs);
    let mut events = [PollFd::new(&ours, PollFlags::empty())];
    match rustix::io::retry_on_intr(|| poll(&mut events, Some(&READ_WITHIN)))? {
        0 => Err(io::Error::new(io::ErrorKind::TimedOut, "systemd does not read what it is told")),
        _ => Ok(()),
    }
}
