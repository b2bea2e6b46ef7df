//! Says when the mount table changes: the kernel raises POLLPRI and POLLERR on /proc/self/mountinfo (proc(5)).

use std::fs::File;
use std::io;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// An open /proc/self/mountinfo. It is never read: only its events count, and `mountinfo::read` opens it anew.
#[derive(Debug)]
pub struct MountWatch(AsyncFd<File>);

impl MountWatch {
    /// Changes count from now.
    pub fn open() -> io::Result<Self> {
        let file = File::open("/proc/self/mountinfo")?;
        #[expect(unsafe_code, reason = "tokio asks for a promise about the descriptor")]
        // SAFETY: a File keeps its descriptor open, and the same, for as long as it lives.
        let watched = unsafe { AsyncFd::register_with_interest(file, Interest::PRIORITY) };
        Ok(Self(watched.map_err(io::Error::from)?))
    }

    /// Waits until the table has changed since this last returned. Changes in between are one; none is lost.
    pub async fn changed(&self) -> io::Result<()> {
        self.0.ready(Interest::PRIORITY).await?.clear_ready();
        Ok(())
    }
}
