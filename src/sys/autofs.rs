//! The barrier: an autofs *direct* mount on which every access fails at once with "Host is down".
//!
//! The kernel asks the barrier's owner, over a pipe, to mount something each time a path walk crosses it; the owner answers
//! that this failed with EHOSTDOWN, for root, too. Looking at the mount point itself (stat, O_PATH) asks nobody.
//! Only a process of the process group that made the mount may answer (`autofs_oz_mode`, fs/autofs/dev-ioctl.c), and a new
//! owner has to make the mount catatonic first, which gives whoever waits ENOENT. A deletion is what a scanner would take
//! that for, so the owner is a process of its own (`nasmount barrier`) that outlives the daemon, its crashes and upgrades.
//! A catatonic mount is also seen empty, for some milliseconds on a loaded host, so another barrier covers it meanwhile.
//! Numbers and layouts: include/uapi/linux/auto_dev-ioctl.h and auto_fs.h; behaviour measured on 6.1 and 6.12.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};
use rustix::process::getpgrp;
use sys_mount::{Mount, MountFlags};
use tracing::{debug, info, warn};

use super::mount_point::Protection;
use super::mountinfo::{self, Entry};
use super::{clock, mount_point};
use crate::share::BootInstant;

/// Source of a barrier in mountinfo, followed by the share's name.
pub use crate::plan::dependency::SOURCE_PREFIX;

/// Protocol version and kind of mount.
const OPTIONS: &str = "minproto=5,maxproto=5,direct";

/// `struct autofs_dev_ioctl` without its path: version (1.0), size, descriptor, two arguments.
const HEADER_LENGTH: usize = 24;

/// How often a barrier that nobody asks looks whether it is still there.
const LOOK_AROUND: Duration = Duration::from_secs(60);

/// How often it is looked whether PID 1 is among those who wait at a barrier: while it waits the whole host does.
const LOOK_AT_PID_1: Duration = Duration::from_millis(500);

#[derive(Clone, Copy)]
enum Call {
    OpenMount = 0x74,
    Fail = 0x77,
    SetPipe = 0x78,
    Catatonic = 0x79,
}

/// A barrier this process owns.
#[derive(Debug)]
pub struct Barrier {
    mount_point: PathBuf,
    control: fs::File,
    root: OwnedFd,
    requests: OwnedFd,
    /// Only its events count: the mount table has changed.
    mounts: fs::File,
}

impl Barrier {
    /// Lays a new barrier, or takes over the one that an earlier owner left on the mount point. Creates the directory. `kept` is what
    /// that one had kept of this barrier, `keep` has something kept for the next: see `take_over`.
    pub fn lay(
        share: &str,
        mount_point: &Path,
        pipe: Pipe,
        kept: &[&OwnedFd],
        keep: impl Fn(&OwnedFd),
    ) -> io::Result<Self> {
        let source = format!("{SOURCE_PREFIX}{share}");
        let entries = mountinfo::read()?;
        match mountinfo::on(&entries, mount_point).into_iter().find(|entry| entry.fstype == "autofs") {
            Some(entry) if entry.source == source => Self::take_over(entry, pipe, kept, keep),
            Some(entry) => {
                let cause = format!("there is another autofs mount on it ({})", entry.source);
                Err(io::Error::new(io::ErrorKind::ResourceBusy, cause))
            }
            None => Self::mount(&source, mount_point, pipe),
        }
    }

    fn mount(source: &str, mount_point: &Path, Pipe { requests, replies }: Pipe) -> io::Result<Self> {
        mount_point::create(mount_point)?;
        match mount_point::protect(mount_point) {
            Ok(Protection::Whole) => {}
            Ok(Protection::ModeOnly) => {
                info!(path = %mount_point.display(), "without a barrier on it, root can write there: no immutable flag");
            }
            Ok(Protection::HoldsFiles) => {
                warn!(path = %mount_point.display(), "not empty: what is there is hidden, and not protected");
            }
            Err(error) => warn!(path = %mount_point.display(), %error, "cannot be protected"),
        }
        let group = getpgrp().as_raw_nonzero();
        let options = format!("fd={},pgrp={group},{OPTIONS}", replies.as_raw_fd());
        Mount::builder().fstype("autofs").flags(MountFlags::empty()).data(&options).mount(source, mount_point)?;
        let opened = Self::open_new(source, mount_point, requests);
        if opened.is_err() {
            rustix::mount::unmount(mount_point, UnmountFlags::DETACH)?; // nobody would answer for it
        }
        opened
    }

    fn open_new(source: &str, mount_point: &Path, requests: OwnedFd) -> io::Result<Self> {
        let entries = mountinfo::read()?;
        let on_it = mountinfo::on(&entries, mount_point);
        let entry = on_it.into_iter().rfind(|entry| entry.source == source);
        let entry = entry.ok_or_else(|| io::Error::other("the barrier is not where it was mounted"))?;
        let control = open_control()?;
        let root = open_mount(&control, entry)?;
        Self::of(entry, control, root, requests)
    }

    fn of(entry: &Entry, control: fs::File, root: OwnedFd, requests: OwnedFd) -> io::Result<Self> {
        let mounts = fs::File::open("/proc/self/mountinfo")?;
        Ok(Self { mount_point: entry.mount_point.clone(), control, root, requests, mounts })
    }

    /// Who is not the owner walks to a barrier like anybody else: if somebody waits there, he waits with him until the owner answers.
    /// To open it by its path would therefore never end, while the one who could answer is he who opens (seen with a listing in a
    /// loop). So the root that the earlier owner had opened is used, if it was kept.
    fn take_over(
        entry: &Entry,
        Pipe { requests, replies }: Pipe,
        kept: &[&OwnedFd],
        keep: impl Fn(&OwnedFd),
    ) -> io::Result<Self> {
        let control = open_control()?;
        let root = match kept.iter().find(|root| is_on(root, entry.device)) {
            Some(root) => root.try_clone()?,
            None => open_mount(&control, entry)?,
        };
        let mut barrier = Self::of(entry, control, root, requests)?;
        let cover = barrier.cover(entry, keep);
        if let Err(error) = &cover {
            warn!(%error, "for a moment the barrier is seen empty");
        }
        let pipe = replies.as_raw_fd().cast_unsigned();
        let taken = call(&barrier.control, Call::Catatonic, barrier.root.as_raw_fd(), [0, 0], None)
            .and_then(|_| call(&barrier.control, Call::SetPipe, barrier.root.as_raw_fd(), [pipe, 0], None));
        let uncovered = cover.ok().flatten().map_or(Ok(()), Cover::take_off);
        taken?;
        // from here on it is answered for with this pipe, and must not be given up for less
        // covers of owners who died while they took over
        for root in kept.iter().filter(|root| !is_on(root, entry.device)) {
            let _ = call(&barrier.control, Call::Catatonic, root.as_raw_fd(), [0, 0], None); // of a pipe it is none
        }
        if let Err(error) = uncovered.and_then(|()| uncover(entry)) {
            warn!(%error, "a cover is left above the barrier");
        }
        // systemd keeps nothing twice, also not under another name: it would drop this one, and then the one before it
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::openat(&barrier.root, ".", flags, Mode::empty()) {
            Ok(opened_anew) => barrier.root = opened_anew,
            Err(error) => warn!(%error, "the next owner cannot be given the barrier's root"),
        }
        Ok(barrier)
    }

    /// Another barrier above this one, which nobody answers for and which has to be silenced before it is answered for again: a silent
    /// one is seen empty. Nothing, if something lies above it already.
    fn cover(&self, entry: &Entry, keep: impl Fn(&OwnedFd)) -> io::Result<Option<Cover>> {
        let entries = mountinfo::read()?;
        if mountinfo::on(&entries, &self.mount_point).last().is_none_or(|top| top.device != entry.device) {
            return Ok(None);
        }
        let Pipe { requests, replies } = Pipe::new()?;
        let context = fsopen("autofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&context, "source", &entry.source)?;
        fsconfig_set_string(&context, "fd", replies.as_raw_fd().to_string())?;
        fsconfig_set_string(&context, "pgrp", getpgrp().as_raw_nonzero().to_string())?;
        fsconfig_set_string(&context, "minproto", "5")?;
        fsconfig_set_string(&context, "maxproto", "5")?;
        fsconfig_set_flag(&context, "direct")?;
        fsconfig_create(&context)?;
        let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        let root =
            rustix::fs::openat(&mount, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let stat = rustix::fs::fstat(&root)?;
        let device = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
        let access = Arc::new(Access::new(Duration::ZERO)?);
        keep(&requests);
        keep(&root);
        let barrier = Self::of(entry, open_control()?, root, requests)?;
        let (mount_point, serves) = (self.mount_point.clone(), Arc::clone(&access));
        let answers = move || {
            let end = barrier.serve(&serves);
            debug!(reason = %end, "cover gone");
            // who has come as late as this is not left waiting
            let _ = call(&barrier.control, Call::Catatonic, barrier.root.as_raw_fd(), [0, 0], None);
        };
        std::thread::Builder::new().name("cover".to_owned()).spawn(answers)?;
        let cover = Cover { mount_point, device, access };
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&mount, "", &self.root, "", flags).inspect_err(|_| cover.access.end())?;
        Ok(Some(cover))
    }

    /// The barrier's root directory: what a share is attached to.
    pub fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// Answers accesses as `access` says. Returns why it ended: the barrier is gone, or another has taken its place.
    pub fn serve(&self, access: &Access) -> io::Error {
        let mut waiting = Vec::new();
        let end = loop {
            if access.ended.load(Ordering::Relaxed) {
                break io::Error::other("laid anew");
            }
            if let Err(error) = self.serve_once(access, &mut waiting) {
                break error;
            }
        };
        // nobody else would ever answer them
        for (token, _) in waiting {
            let _ = self.fail(token, libc::EHOSTDOWN);
        }
        end
    }

    fn serve_once(&self, access: &Access, waiting: &mut Vec<(u32, BootInstant)>) -> io::Result<()> {
        let next = waiting.iter().map(|(_, until)| until.since(clock::now())).min();
        let limit = next.map_or(LOOK_AROUND, |next| next.min(LOOK_AT_PID_1));
        let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
        let (asked, quiet) = {
            let mut events = [
                PollFd::new(&self.requests, PollFlags::IN),
                PollFd::new(&access.changed, PollFlags::IN),
                PollFd::new(&self.mounts, PollFlags::PRI),
            ];
            let watched = if waiting.is_empty() { 2 } else { 3 };
            let count = rustix::io::retry_on_intr(|| rustix::event::poll(&mut events[..watched], Some(&limit)))?;
            (!events[0].revents().is_empty(), count == 0)
        };
        access.heard();
        if quiet && waiting.is_empty() && self.is_gone() {
            return Err(io::Error::other("taken off"));
        }
        if asked {
            let Request { token, process } = self.next_request()?;
            match access.wait() {
                wait if wait.is_zero() || process == 1 => self.fail(token, libc::EHOSTDOWN)?,
                wait => waiting.push((token, clock::now() + wait)),
            }
        }
        if waiting.is_empty() {
            return Ok(());
        }
        let errno = if self.is_covered() { libc::ESTALE } else { libc::EHOSTDOWN };
        let now = clock::now();
        let nobody_waits = access.wait().is_zero() || pid_1_waits();
        let ends = |(_, until): &mut (u32, BootInstant)| errno == libc::ESTALE || nobody_waits || *until <= now;
        for (token, _) in waiting.extract_if(.., ends) {
            self.fail(token, errno)?;
        }
        Ok(())
    }

    /// A table that cannot be read says nothing: those who wait go on waiting.
    fn is_covered(&self) -> bool {
        let mounts = mountinfo::read().unwrap_or_default();
        mountinfo::on(&mounts, &self.mount_point).last().is_some_and(|top| top.fstype != "autofs")
    }

    fn is_gone(&self) -> bool {
        let is_it = |entry: &&Entry| entry.fstype == "autofs";
        mountinfo::read().is_ok_and(|mounts| !mountinfo::on(&mounts, &self.mount_point).iter().any(is_it))
    }

    /// Reads one request: one read returns one.
    fn next_request(&self) -> io::Result<Request> {
        let mut packet = [0_u8; PACKET_LENGTH];
        let length = rustix::io::retry_on_intr(|| rustix::io::read(&self.requests, &mut packet))?;
        if length == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the barrier was unmounted"));
        }
        Request::read(&packet).map_err(io::Error::other)
    }

    fn fail(&self, token: u32, errno: i32) -> io::Result<()> {
        match call(&self.control, Call::Fail, self.root.as_raw_fd(), [token, (-errno).cast_unsigned()], None) {
            Err(error) if error.raw_os_error() != Some(libc::EINVAL) => Err(error),
            _ => Ok(()), // EINVAL: the kernel has no such request any more (`autofs_wait_release`)
        }
    }
}

/// Length of `struct autofs_v5_packet` on 64-bit machines.
const PACKET_LENGTH: usize = 304;

/// What the kernel asks.
struct Request {
    token: u32,
    /// Who came first; those who come later are not named.
    process: u32,
}

impl Request {
    fn read(packet: &[u8; PACKET_LENGTH]) -> Result<Self, std::array::TryFromSliceError> {
        /// Offset of `wait_queue_token`, after two integers.
        const TOKEN_AT: std::ops::Range<usize> = 8..12;
        /// Offset of `tgid`, after dev, ino, uid, gid and pid.
        const PROCESS_AT: std::ops::Range<usize> = 36..40;
        let token = packet[TOKEN_AT].try_into().map(u32::from_ne_bytes)?;
        Ok(Self { token, process: packet[PROCESS_AT].try_into().map(u32::from_ne_bytes)? })
    }
}

/// Whether PID 1 waits for an autofs mount, this one or another. Who joins others that wait is not named in a request.
fn pid_1_waits() -> bool {
    fs::read_to_string("/proc/1/wchan").is_ok_and(|function| function.starts_with("autofs_wait"))
}

/// What accesses to a barrier meet; others may change it while it is served.
#[derive(Debug)]
pub struct Access {
    wait: Mutex<Duration>,
    ended: AtomicBool,
    /// An eventfd: one of them has changed.
    changed: OwnedFd,
}

impl Access {
    /// Accesses wait this long for the share; zero fails them at once.
    ///
    /// All who come while one waits wait with it, and no longer: the kernel asks once for a mount point and hands the answer to
    /// everybody (`autofs_wait`, fs/autofs/waitq.c).
    pub fn new(wait: Duration) -> io::Result<Self> {
        let changed = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { wait: Mutex::new(wait), ended: AtomicBool::new(false), changed })
    }

    /// The same for the accesses that come; zero fails those who wait, too.
    pub fn set_wait(&self, wait: Duration) {
        *self.wait.lock().unwrap_or_else(PoisonError::into_inner) = wait;
        self.tell();
    }

    fn tell(&self) {
        let _ = rustix::io::write(&self.changed, &1_u64.to_ne_bytes()); // full means told
    }

    fn heard(&self) {
        let _ = rustix::io::read(&self.changed, &mut [0_u8; 8]); // empty means that nothing has changed
    }

    fn wait(&self) -> Duration {
        *self.wait.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The barrier was unmounted by somebody, and is laid anew.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
        self.tell();
    }
}

/// What lies above a barrier while it is taken over; answered by a thread of its own.
struct Cover {
    mount_point: PathBuf,
    device: (u32, u32),
    access: Arc<Access>,
}

impl Cover {
    fn take_off(self) -> io::Result<()> {
        /// Who has just come to it asks within microseconds, on a loaded machine within some time slices.
        const LINGERS_FOR: Duration = Duration::from_secs(1);
        let entries = mountinfo::read()?;
        // whoever else has mounted something above it since hides it for good
        if mountinfo::on(&entries, &self.mount_point).last().is_some_and(|top| top.device == self.device) {
            rustix::mount::unmount(&self.mount_point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
        }
        let ends = move || {
            std::thread::sleep(LINGERS_FOR);
            self.access.end();
        };
        std::thread::Builder::new().name("cover's end".to_owned()).spawn(ends).map(drop)
    }
}

/// The pipe on which the kernel asks the owner of a barrier.
#[derive(Debug)]
pub struct Pipe {
    requests: OwnedFd,
    replies: OwnedFd,
}

impl Pipe {
    /// A pipe for a barrier that is about to be laid.
    pub fn new() -> io::Result<Self> {
        let (requests, replies) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        Ok(Self { requests, replies })
    }

    /// The end from which the owner reads. As long as any process has it open, the barrier is never seen empty.
    pub fn requests(&self) -> &OwnedFd {
        &self.requests
    }
}

/// Does another barrier of the same share lie on top of it?
fn is_covered_by_ours(entry: &Entry) -> io::Result<bool> {
    let entries = mountinfo::read()?;
    let top = mountinfo::on(&entries, &entry.mount_point).pop();
    Ok(top.is_some_and(|top| top.fstype == "autofs" && top.source == entry.source && top.device != entry.device))
}

fn uncover(entry: &Entry) -> io::Result<()> {
    while is_covered_by_ours(entry)? {
        rustix::mount::unmount(&entry.mount_point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
    }
    Ok(())
}

fn open_control() -> io::Result<fs::File> {
    fs::OpenOptions::new().read(true).write(true).open("/dev/autofs")
}

/// Is the descriptor of a file on this device? A look at it touches no path.
fn is_on(fd: &OwnedFd, device: (u32, u32)) -> bool {
    let found = rustix::fs::fstat(fd).map(|stat| (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev)));
    found.is_ok_and(|found| found == device)
}

fn open_mount(control: &fs::File, entry: &Entry) -> io::Result<OwnedFd> {
    let path = entry.mount_point.to_str().ok_or_else(|| io::Error::other("the mount point is not UTF-8"))?;
    let fd = call(control, Call::OpenMount, -1, [encode_device(entry.device), 0], Some(path))?;
    // SAFETY: OPENMOUNT has just made this descriptor for us; nobody else owns it.
    #[expect(unsafe_code, reason = "the kernel hands the descriptor back as an integer")]
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `new_encode_dev` of the kernel.
fn encode_device((major, minor): (u32, u32)) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// One ioctl on /dev/autofs; returns the descriptor field of the answer.
fn call(control: &fs::File, call: Call, fd: i32, arguments: [u32; 2], path: Option<&str>) -> io::Result<i32> {
    let path: Vec<u8> = path.map_or_else(Vec::new, |path| path.bytes().chain([0]).collect());
    let size = u32::try_from(HEADER_LENGTH + path.len()).map_err(io::Error::other)?;
    let mut buffer = Vec::with_capacity(HEADER_LENGTH + path.len());
    for field in [1, 0, size, fd.cast_unsigned(), arguments[0], arguments[1]] {
        buffer.extend_from_slice(&field.to_ne_bytes());
    }
    buffer.extend_from_slice(&path);
    // _IOWR(0x93, nr, struct autofs_dev_ioctl)
    let request = nix::request_code_readwrite!(0x93, call as u8, HEADER_LENGTH);
    // SAFETY: the buffer is a complete `struct autofs_dev_ioctl` whose size field is its length, and outlives the call.
    #[expect(unsafe_code, reason = "no crate wraps /dev/autofs")]
    let result = unsafe { libc::ioctl(control.as_raw_fd(), request, buffer.as_mut_ptr()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let answer: [u8; 4] = buffer[12..16].try_into().map_err(io::Error::other)?;
    Ok(i32::from_ne_bytes(answer))
}

/// The barriers of nasmount on this host: share and mount point.
pub fn laid(entries: &[Entry]) -> Vec<(String, &Path)> {
    let ours = entries.iter().filter(|entry| entry.fstype == "autofs");
    ours.filter_map(|entry| Some((entry.source.strip_prefix(SOURCE_PREFIX)?.to_owned(), entry.mount_point.as_path())))
        .collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_descriptor_is_known_by_its_device() {
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let entries = mountinfo::parse(text.as_bytes());
        let device = |path| mountinfo::way_to(&entries, Path::new(path)).last().unwrap().device;
        let open = |path| OwnedFd::from(fs::File::open(path).unwrap());
        assert_eq!(mountinfo::on(&entries, Path::new("/proc")).len(), 1, "the test needs a plain /proc");
        assert!(is_on(&open("/proc/self/status"), device("/proc")));
        assert!(!is_on(&open("/proc/self/status"), device("/")));
        assert!(!is_on(&open("/"), device("/proc")));
    }

    #[test]
    fn a_request_names_its_token_and_who_asks() {
        let mut packet = [0xff; PACKET_LENGTH];
        packet[8..12].copy_from_slice(&7_u32.to_ne_bytes());
        packet[32..36].copy_from_slice(&1234_u32.to_ne_bytes());
        packet[36..40].copy_from_slice(&1_u32.to_ne_bytes());
        let request = Request::read(&packet).unwrap();
        assert_eq!((request.token, request.process), (7, 1));
    }
}
