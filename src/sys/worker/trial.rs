//! Trying a share part by part, through a mount that no path leads to: where does it fail?

use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use rustix::fs::{Advice, AtFlags, Mode, OFlags, fadvise, fstatvfs, fsync, openat, unlinkat};

use super::{Answer, Attempt as _, Failed, MountRequest, Reply, Stage, TrialRequest, clone, mount};
use crate::plan::diagnosis::{Part, Passed};

/// As much as is written and read back: a page.
const WRITTEN: usize = 4096;

pub(super) fn run(request: &TrialRequest) -> Reply {
    let TrialRequest { mount: wanted, share_alone, write } = request;
    let mut parts = Parts(Instant::now());
    let context = mount::set_up(wanted)?;
    parts.passed(Part::Options, format!("the kernel takes all {}", wanted.options.len()))?;
    if let Err(failed) = mount::connect(&context, &wanted.source) {
        let missing = failed.errno == Some(libc::ENOENT); // the login was taken: a second one locks no account
        if let Some(source) = share_alone.as_ref().filter(|_| missing) {
            drop(context);
            let alone = MountRequest { source: source.clone(), ..wanted.clone() };
            if mount::connect(&mount::set_up(&alone)?, source).is_ok() {
                parts.passed(Part::ShareAlone, String::new())?;
            }
        }
        return Err(failed);
    }
    parts.passed(Part::Create, String::new())?;
    let root = mount::detached(&context, wanted)?;
    parts.passed(Part::Mount, format!("{} can be mounted", wanted.source))?;
    mount::verify(&root, &wanted.source)?;
    let said = space(&root, wanted)?;
    parts.passed(Part::Read, said)?;
    if let Some(marker) = &wanted.marker {
        clone::find_marker(&root, marker)?;
        parts.passed(Part::Marker, format!("{marker} is there"))?;
    }
    if let Some(name) = write {
        write_and_read(&root, name)?;
        parts.passed(Part::Write, format!("{name} was written, read back and deleted"))?;
    }
    Ok(Answer::Done)
}

/// Says at once what went well, because what comes next may hang. The time is that since the part before.
struct Parts(Instant);

impl Parts {
    fn passed(&mut self, part: Part, said: String) -> Result<(), Failed> {
        let now = Instant::now();
        let seconds = now.duration_since(self.0).as_secs_f64();
        self.0 = now;
        let reply: Reply = Ok(Answer::Passed(Passed { part, seconds, said }));
        let bytes = serde_json::to_vec(&reply).map_err(io::Error::other);
        let written = bytes.and_then(|bytes| io::stdout().write_all(&bytes)).and_then(|()| io::stdout().flush());
        written.attempt(|| "cannot say what went well".into())
    }
}

fn space(root: &OwnedFd, request: &MountRequest) -> Result<String, Failed> {
    let space = fstatvfs(root).attempt(|| format!("{} does not answer", request.source))?;
    let gib = |blocks: u64| blocks as f64 * space.f_frsize as f64 / f64::from(1 << 30);
    Ok(format!("its root can be read; {:.1} of {:.1} GiB are free", gib(space.f_bavail), gib(space.f_blocks)))
}

/// Leaves nothing behind, also when a part of it fails.
fn write_and_read(root: &OwnedFd, name: &str) -> Result<(), Failed> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = openat(root, name, flags, Mode::RUSR | Mode::WUSR).attempt(|| format!("cannot create {name}"))?;
    let tried = write_to(&file, name);
    drop(file);
    let deleted =
        unlinkat(root, name, AtFlags::empty()).attempt(|| format!("cannot delete {name}, which is left there"));
    tried.and(deleted)
}

fn write_to(file: &OwnedFd, name: &str) -> Result<(), Failed> {
    let pattern: Vec<u8> = (0..=u8::MAX).cycle().take(WRITTEN).collect();
    let written = rustix::io::pwrite(file, &pattern, 0).attempt(|| format!("cannot write to {name}"))?;
    fsync(file).attempt(|| format!("cannot write to {name}"))?;
    let _ = fadvise(file.as_fd(), 0, None, Advice::DontNeed); // what is read back is the server's, not the cache's
    let mut back = vec![0; WRITTEN];
    let read = rustix::io::pread(file, &mut back[..], 0).attempt(|| format!("cannot read {name} back"))?;
    if written == WRITTEN && read == WRITTEN && back == pattern {
        return Ok(());
    }
    let (attempt, cause) = (format!("cannot read {name} back"), "it has another content".to_owned());
    Err(Failed { attempt, cause, errno: Some(libc::EIO), stage: Stage::Other })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::fs;

    use super::*;

    fn directory() -> (tempfile::TempDir, OwnedFd) {
        let directory = tempfile::tempdir().unwrap();
        let root = fs::File::open(directory.path()).unwrap();
        (directory, root.into())
    }

    #[test]
    fn what_is_written_is_read_back_and_gone() {
        let (directory, root) = directory();
        write_and_read(&root, ".nasmount-diagnose-1").unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_is_there_is_left_alone() {
        let (directory, root) = directory();
        let path = directory.path().join("theirs");
        fs::write(&path, "theirs").unwrap();
        let failed = write_and_read(&root, "theirs").unwrap_err();
        assert_eq!(failed.errno, Some(libc::EEXIST));
        assert_eq!(fs::read_to_string(path).unwrap(), "theirs");
    }
}
