//! A file as memory.

use std::fs::File;
use std::io;
use std::path::Path;

/// A file mapped into memory, read only: its pages are read when they are first touched, and are
/// shared with every process that maps it.
///
/// The file must not be changed while it is mapped, as no mapping can defend itself against that:
/// a program that shortens it stops its readers. Replace a model file by writing the new one
/// beside it and renaming it into place, which leaves the mapping of the old one whole; that is
/// how this project's programs write.
#[derive(Debug)]
pub struct Mapped(memmap2::Mmap);

impl Mapped {
    /// Maps a whole file.
    ///
    /// # Errors
    /// What the system said to opening or mapping it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: the mapping is private to this value and only read. That nobody changes the file
        // meanwhile is the caller's part, documented above; the content is never trusted, and no
        // other type than bytes and numbers of any bits is ever made of it.
        let map = unsafe { memmap2::Mmap::map(&file)? };
        Ok(Self(map))
    }
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
