//! Tells shares that something was mounted on their mount point, or unmounted from it, by whomever.
//!
//! A host of containers changes its table all the time. So the table is read at most every [`PAUSE`], and a share hears of it
//! only if something on its own mount point became another. What changes during a pause is seen after it, so that the last
//! change of a burst is never missed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, warn};

use super::board::Board;
use crate::sys::mount_watch::MountWatch;
use crate::sys::mountinfo::{self, Entry};

/// Pause between two looks at the table: five a second at most, each of which reads a file of some hundred lines.
const PAUSE: Duration = Duration::from_millis(200);

/// Pause before the table is watched again when watching it failed.
const RETRY: Duration = Duration::from_secs(10);

/// What of a mount makes it another one. Options do not: a remount changes nothing of what lies there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Layer {
    mount: u64,
    device: (u32, u32),
    source: String,
    fstype: String,
}

/// What lay on the mount points when they were last looked at, lowest first.
#[derive(Debug, Default)]
struct Seen(Option<BTreeMap<PathBuf, Vec<Layer>>>);

impl Seen {
    /// The mount points on which something changed. At the first look of all, nothing has: no share has been surveyed before
    /// it. Of a share that was added later that is not known, so it hears of it.
    fn changed<'a>(&mut self, entries: &[Entry], mount_points: impl Iterator<Item = &'a Path>) -> Vec<PathBuf> {
        let layers = |mount_point: &Path| mountinfo::on(entries, mount_point).into_iter().map(layer).collect();
        let now: BTreeMap<PathBuf, Vec<Layer>> =
            mount_points.map(|mount_point| (mount_point.to_owned(), layers(mount_point))).collect();
        let before = self.0.replace(now.clone());
        let Some(before) = before else { return Vec::new() };
        let changed = now.into_iter().filter(|(mount_point, layers)| before.get(mount_point) != Some(layers));
        changed.map(|(mount_point, _)| mount_point).collect()
    }
}

fn layer(entry: &Entry) -> Layer {
    Layer { mount: entry.id, device: entry.device, source: entry.source.clone(), fstype: entry.fstype.clone() }
}

/// Watches until the runtime ends.
pub async fn run(board: Arc<Board>) {
    let mut seen = Seen::default();
    loop {
        if let Err(error) = watch(&board, &mut seen).await {
            warn!(%error, "cannot watch the mount table");
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn watch(board: &Board, seen: &mut Seen) -> std::io::Result<()> {
    let watch = MountWatch::open()?;
    loop {
        let entries = mountinfo::read()?;
        let mount_points = board.mount_points();
        for mount_point in seen.changed(&entries, mount_points.iter().map(PathBuf::as_path)) {
            debug!(mount_point = %mount_point.display(), "something was mounted or unmounted");
            board.mount_table_changed(&mount_point);
        }
        tokio::time::sleep(PAUSE).await;
        watch.changed().await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(seen: &mut Seen, table: &str) -> Vec<PathBuf> {
        let points = [Path::new("/mnt/a"), Path::new("/mnt/b")];
        seen.changed(&mountinfo::parse(table.as_bytes()), points.into_iter())
    }

    const BARRIER: &str = "36 35 0:50 / /mnt/a rw - autofs nasmount:a rw\n";
    const SHARE: &str = "37 36 0:51 / /mnt/a rw - cifs //10.0.0.1/a rw,soft\n";
    const ELSEWHERE: &str = "90 35 0:60 / /run/containers/x rw - overlay overlay rw\n";

    #[test]
    fn only_what_lies_on_the_mount_point_counts() {
        let mut seen = Seen::default();
        assert!(changed(&mut seen, BARRIER).is_empty(), "the first look is no change");
        assert!(changed(&mut seen, &format!("{BARRIER}{ELSEWHERE}")).is_empty());
        assert_eq!(changed(&mut seen, &format!("{BARRIER}{SHARE}")), [Path::new("/mnt/a")]);
        assert!(changed(&mut seen, &format!("{BARRIER}{SHARE}").replace("soft", "hard")).is_empty(), "a remount");
        assert_eq!(changed(&mut seen, &format!("{BARRIER}{}", SHARE.replace("37", "38"))), [Path::new("/mnt/a")]);
        assert_eq!(changed(&mut seen, BARRIER), [Path::new("/mnt/a")]);
        assert_eq!(changed(&mut seen, ""), [Path::new("/mnt/a")]);
        assert!(changed(&mut seen, "").is_empty());
    }

    #[test]
    fn a_share_that_was_added_hears_of_it_once() {
        let mut seen = Seen::default();
        let entries = mountinfo::parse(BARRIER.as_bytes());
        let mut look = |points: &[&Path]| seen.changed(&entries, points.iter().copied());
        assert!(look(&[]).is_empty());
        assert_eq!(look(&[Path::new("/mnt/a")]), [Path::new("/mnt/a")]);
        assert!(look(&[Path::new("/mnt/a")]).is_empty());
    }
}
