//! Manual pages are written beside their places and renamed there: whoever can make a link in the directory cannot have another file
//! overwritten by it.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

/// Writes one page, in the place of whatever has that name.
pub fn write_page(directory: &Path, name: &str, text: &[u8]) -> io::Result<()> {
    let temporary = directory.join(format!(".{name}.{:08x}", fastrand::u32(..)));
    let written = fs::File::create_new(&temporary).and_then(|mut file| file.write_all(text));
    let placed = written.and_then(|()| fs::rename(&temporary, directory.join(name)));
    if placed.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::AlreadyExists) {
        let _ = fs::remove_file(&temporary);
    }
    placed
}
