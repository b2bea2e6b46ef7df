//! The content of a file: copied with its holes, read back and compared.
//!
//! Where the holes are is believed when they are left out of a copy, and not when it is compared: then all of the source is read, and of
//! the copy all but holes, so that nothing is deleted on the word of a file system that is wrong about its holes.

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use rustix::fs::{Advice, SeekFrom, fadvise, fstat, fsync, ftruncate, seek};
use rustix::io::{Errno, pread, pwrite};

use super::{Mover, Trouble, Way, unreadable};
use crate::plan::beside::Said;
use crate::sys::attributes;

/// As much as is copied or compared at once.
pub(super) const CHUNK: usize = 1 << 20;
/// After so many chunks what was copied is written back, and said to go on.
pub(super) const CHUNKS_PER_STEP: usize = 8;

impl Mover<'_> {
    /// The extended attributes that the copy does not take.
    pub(super) fn fill(
        &mut self,
        source: &OwnedFd,
        copy: &OwnedFd,
        length: u64,
        name: &CStr,
    ) -> Result<Vec<String>, Trouble> {
        let mut buffer = vec![0; CHUNK];
        let mut offset = 0;
        for chunk in 1.. {
            let Some((start, end)) = data_from(source, offset).map_err(unreadable)? else { break };
            let most = usize::try_from(end - start).unwrap_or(CHUNK).min(CHUNK);
            let read = pread(source, &mut buffer[..most], start).map_err(unreadable)?;
            if read == 0 {
                break;
            }
            let (mut left, mut at) = (&buffer[..read], start);
            while !left.is_empty() {
                let written = pwrite(copy, left, at).map_err(|error| self.because(name, error))?;
                left = &left[written..];
                at += written as u64;
            }
            offset = at;
            if chunk % CHUNKS_PER_STEP == 0 {
                fsync(copy).map_err(|error| self.because(name, error))?;
                (self.say)(Said::GoingOn)?;
            }
        }
        if offset < length {
            ftruncate(copy, length).map_err(|error| self.because(name, error))?; // it ends with a hole
        }
        let lost = match self.way {
            Way::Merge => attributes::keep_extended(source, copy),
            Way::Rename | Way::Copy => attributes::keep(source, copy),
        };
        let lost = lost.map_err(|error| self.unkept(name, &error))?;
        let _ = attributes::keep_times(source, copy);
        fsync(copy).map_err(|error| self.because(name, error))?;
        if self.same(source, copy, name)? {
            Ok(lost)
        } else {
            Err(Trouble::Leave("what was read back is not what was written".to_owned()))
        }
    }

    /// Compares with what the server has, not with what a cache still knows.
    pub(super) fn same(&mut self, source: &OwnedFd, copy: &OwnedFd, name: &CStr) -> Result<bool, Trouble> {
        let _ = fadvise(copy, 0, None, Advice::DontNeed);
        let there = fstat(copy).map_err(|error| self.because(name, error))?;
        if fstat(source).map_err(unreadable)?.st_size != there.st_size {
            return Ok(false);
        }
        let (mut one, mut other) = (vec![0; CHUNK], vec![0; CHUNK]);
        let mut offset = 0;
        for chunk in 1.. {
            let length = read_full(source, &mut one, offset).map_err(unreadable)?;
            if !(one[..length].iter().all(|byte| *byte == 0) && is_hole(copy, offset, length)) {
                let read = read_full(copy, &mut other, offset).map_err(|error| self.because(name, error))?;
                if one[..length] != other[..read] {
                    return Ok(false);
                }
            }
            if length < CHUNK {
                break;
            }
            offset += length as u64;
            if chunk % CHUNKS_PER_STEP == 0 {
                (self.say)(Said::GoingOn)?;
            }
        }
        Ok(true)
    }
}

/// Where the next data is, from an offset on; `None` if there is none. A file system that does not know holes has data everywhere.
fn data_from(file: &OwnedFd, offset: u64) -> Result<Option<(u64, u64)>, Errno> {
    match seek(file, SeekFrom::Data(offset)) {
        Ok(start) => Ok(Some((start, seek(file, SeekFrom::Hole(start)).unwrap_or(u64::MAX)))),
        Err(Errno::NXIO) => Ok(None),
        Err(Errno::INVAL | Errno::NOTSUP) => Ok(Some((offset, u64::MAX))),
        Err(error) => Err(error),
    }
}

fn is_hole(file: &OwnedFd, offset: u64, length: usize) -> bool {
    match data_from(file, offset) {
        Ok(Some((start, _))) => start >= offset + length as u64,
        Ok(None) => true,
        Err(_) => false,
    }
}

fn read_full(file: &OwnedFd, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let mut filled = 0;
    while filled < buffer.len() {
        match pread(file, &mut buffer[filled..], offset + filled as u64)? {
            0 => break,
            length => filled += length,
        }
    }
    Ok(filled)
}
