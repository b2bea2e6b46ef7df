//! Who writes down which barriers are laid, on a thread of its own: a disk that keeps its writer waiting keeps no access waiting, and
//! many barriers that are laid one after the other are written at once.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::time::Duration;

use tracing::warn;

use crate::sys::barrier_memory::{Barriers, LaidBarrier};
use crate::sys::mountinfo;
use crate::sys::state_file::StateFiles;

/// The thread that writes; it ends when this is dropped, once it has written what it was told.
#[derive(Debug)]
pub(super) struct Keeper {
    to: Sender<Change>,
}

enum Change {
    Laid { share: String, mount_point: PathBuf },
    Forgotten { share: String, mount_point: PathBuf, done: SyncSender<()> },
}

impl Keeper {
    /// Goes on from what is remembered.
    pub(super) fn start(files: StateFiles, remembered: Barriers) -> io::Result<Self> {
        let (to, changes) = mpsc::channel();
        std::thread::Builder::new().name("keeper".to_owned()).spawn(move || keep(&files, remembered, &changes))?;
        Ok(Self { to })
    }

    /// A barrier lies; it is written soon, unless it was known.
    pub(super) fn laid(&self, share: &str, mount_point: PathBuf) {
        let _ = self.to.send(Change::Laid { share: share.to_owned(), mount_point }); // the thread lasts as long as this
    }

    /// A barrier is not to be laid again: returns when that is written, or could not be, but not later than after the limit.
    pub(super) fn forget(&self, share: String, mount_point: PathBuf, limit: Duration) {
        let (done, written) = mpsc::sync_channel(1);
        let _ = self.to.send(Change::Forgotten { share, mount_point, done });
        let _ = written.recv_timeout(limit);
    }
}

fn keep(files: &StateFiles, remembered: Barriers, changes: &Receiver<Change>) {
    let mut barriers = remembered.clone();
    let mut written = remembered;
    while let Ok(first) = changes.recv() {
        let mut waiting = Vec::new();
        for change in std::iter::once(first).chain(changes.try_iter()) {
            waiting.extend(apply(change, &mut barriers));
        }
        if barriers != written {
            match files.write_barriers(&barriers) {
                Ok(()) => written.clone_from(&barriers),
                Err(error) => warn!(%error, "cannot write which barriers are laid: the next boot may lay others"),
            }
        }
        for done in waiting {
            let _ = done.send(()); // who waited may have gone away
        }
    }
}

/// Returns who waits until it is written.
fn apply(change: Change, barriers: &mut Barriers) -> Option<SyncSender<()>> {
    match change {
        Change::Laid { share, mount_point } => {
            let entries = mountinfo::read().unwrap_or_default();
            if let Some(barrier) = LaidBarrier::of(&share, &mount_point, &entries) {
                barriers.insert(mount_point, barrier);
            }
            None
        }
        Change::Forgotten { share, mount_point, done } => {
            // another share's may lie there now
            if barriers.get(&mount_point).is_some_and(|barrier| barrier.share == share) {
                barriers.remove(&mount_point);
            }
            Some(done)
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::path::Path;

    use super::*;

    /// Longer than any disk that works.
    const LIMIT: Duration = Duration::from_secs(60);

    fn files(directory: &Path) -> StateFiles {
        StateFiles::new(directory.join("run"), directory.join("lib"))
    }

    fn names(files: &StateFiles) -> Vec<(PathBuf, String)> {
        files.read_barriers().unwrap().into_iter().map(|(path, barrier)| (path, barrier.share)).collect()
    }

    #[test]
    fn what_lies_is_remembered_until_it_is_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        let (media, films) = (PathBuf::from("/mnt/media"), PathBuf::from("/mnt/films"));
        let keeper = Keeper::start(files.clone(), Barriers::new()).unwrap();
        keeper.laid("media", media.clone());
        keeper.laid("old", films.clone());
        keeper.laid("films", films.clone()); // the share was renamed
        keeper.forget("old".to_owned(), films.clone(), LIMIT);
        assert_eq!(names(&files), [(films.clone(), "films".to_owned()), (media.clone(), "media".to_owned())]);
        drop(keeper);

        let keeper = Keeper::start(files.clone(), files.read_barriers().unwrap()).unwrap();
        keeper.forget("films".to_owned(), films, LIMIT);
        assert_eq!(names(&files), [(media.clone(), "media".to_owned())], "what an earlier one wrote is kept");
        keeper.forget("media".to_owned(), media, LIMIT);
        assert_eq!(names(&files), []);
    }

    #[test]
    fn a_directory_that_cannot_be_written_stops_nobody_and_is_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        let in_the_way = directory.path().join("lib/barriers.json");
        let keeper = Keeper::start(files.clone(), Barriers::new()).unwrap();
        std::fs::create_dir_all(&in_the_way).unwrap();
        keeper.laid("media", "/mnt/media".into());
        keeper.forget("nobody".to_owned(), "/mnt/nobody".into(), LIMIT);
        assert!(files.read_barriers().is_err(), "a directory is in the way");
        std::fs::remove_dir(&in_the_way).unwrap();
        keeper.forget("nobody".to_owned(), "/mnt/nobody".into(), LIMIT);
        assert_eq!(names(&files), [(PathBuf::from("/mnt/media"), "media".to_owned())]);
    }
}
