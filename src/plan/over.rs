//! What is made of a share's files: a mount of its own that outlives the share's.

use std::path::Path;

/// Options that name directories of which a mount is made.
const LAYERS: [&str; 4] = ["lowerdir=", "upperdir=", "workdir=", "branches="];

/// Whether what is mounted lies on a share: a directory that is bound, a branch of mergerfs, a layer of overlayfs, an image, a swap file.
/// A glob of mergerfs (`/mnt/*`) takes in what begins as it does.
pub(super) fn lies_on(source: &str, options: &[String], share: &Path) -> bool {
    let layers = options.iter().filter_map(|option| LAYERS.iter().find_map(|key| option.strip_prefix(key)));
    let is_local = source.starts_with('/') && !source.starts_with("//");
    let paths = layers.chain(is_local.then_some(source)).flat_map(|paths| paths.split(':'));
    // a branch of mergerfs may say how it is used: `/mnt/a=RO`
    let mut paths = paths.map(|path| path.split('=').next().unwrap_or(path)).filter(|path| path.starts_with('/'));
    paths.any(|path| match path.split_once(['*', '?', '[']) {
        Some((before, _)) => share.to_string_lossy().starts_with(before),
        None => Path::new(path).starts_with(share),
    })
}
