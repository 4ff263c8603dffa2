//! The little of tar that an archive of plain files needs (POSIX ustar: 512-byte headers, octal
//! sizes, contents padded to 512 bytes).

use std::io::{BufReader, Read, Write};
use std::path::Path;

use flate2::bufread::GzDecoder;

use crate::error::DatasetError;
use crate::read::{DAMAGED, gzip_fault, io, malformed};

const BLOCK: usize = 512;

/// A member's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its path in the archive.
    pub path: String,
    /// Bytes of its contents.
    pub size: u64,
}

/// The members of a `.tar.gz`, in order.
pub struct Members<R> {
    file: String,
    reader: GzDecoder<BufReader<R>>,
    /// Decoded bytes so far.
    at: u64,
    /// Bytes of the current member that are still unread, and its padding.
    left: u64,
    padding: u64,
}

impl<R> core::fmt::Debug for Members<R> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Members")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

impl<R: Read> Members<R> {
    /// Reads from `source`; `file` is for messages.
    pub fn new(file: &str, source: R) -> Self {
        Self {
            file: file.to_owned(),
            reader: GzDecoder::new(BufReader::new(source)),
            at: 0,
            left: 0,
            padding: 0,
        }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), DatasetError> {
        self.reader
            .read_exact(buffer)
            .map_err(|error| gzip_fault(&self.file, self.at, &error))?;
        self.at += buffer.len() as u64;
        Ok(())
    }

    fn skip(&mut self, mut bytes: u64) -> Result<(), DatasetError> {
        let mut chunk = [0; 8192];
        while bytes > 0 {
            let now = bytes.min(chunk.len() as u64);
            self.fill(&mut chunk[..now as usize])?;
            bytes -= now;
        }
        Ok(())
    }

    /// The next member that is a plain file; what is left of the last one is skipped.
    ///
    /// # Errors
    /// [`DatasetError::Malformed`] for what is no tar header or has a wrong checksum or size, and
    /// for a cut stream.
    pub fn next_member(&mut self) -> Result<Option<Member>, DatasetError> {
        loop {
            let rest = self.left + self.padding;
            self.skip(rest)?;
            (self.left, self.padding) = (0, 0);
            let mut header = [0; BLOCK];
            let place = self.at;
            self.fill(&mut header)?;
            if header.iter().all(|&byte| byte == 0) {
                return Ok(None);
            }
            let bad = |found: String, expected: &str| {
                malformed(
                    &self.file,
                    format!("tar header at byte {place}"),
                    found,
                    expected,
                    DAMAGED,
                )
            };
            let octal = |field: &[u8]| -> Option<u64> {
                let text = core::str::from_utf8(field).ok()?;
                u64::from_str_radix(text.trim_matches(['\0', ' ']), 8).ok()
            };
            let sum: u64 = (header.iter().enumerate())
                .map(|(at, &byte)| u64::from(if (148..156).contains(&at) { b' ' } else { byte }))
                .sum();
            if octal(&header[148..156]) != Some(sum) {
                return Err(bad("a wrong checksum".to_owned(), "a tar header"));
            }
            let Some(size) = octal(&header[124..136]) else {
                return Err(bad("a size that is no octal number".to_owned(), "a size"));
            };
            self.left = size;
            self.padding = size.next_multiple_of(BLOCK as u64) - size;
            let text = |field: &[u8]| {
                let end = field
                    .iter()
                    .position(|&byte| byte == 0)
                    .unwrap_or(field.len());
                String::from_utf8_lossy(&field[..end]).into_owned()
            };
            if matches!(header[156], b'0' | 0) {
                let (name, prefix) = (text(&header[..100]), text(&header[345..500]));
                let ustar = header[257..262] == *b"ustar" && !prefix.is_empty();
                return Ok(Some(Member {
                    path: if ustar {
                        format!("{prefix}/{name}")
                    } else {
                        name
                    },
                    size,
                }));
            }
        }
    }

    /// Copies the current member's contents.
    ///
    /// # Errors
    /// [`DatasetError::Malformed`] for a cut stream, [`DatasetError::Io`] when `path` cannot be
    /// written.
    pub fn copy_to(&mut self, out: &mut impl Write, path: &Path) -> Result<(), DatasetError> {
        let mut chunk = vec![0; 1 << 16];
        while self.left > 0 {
            let now = self.left.min(chunk.len() as u64) as usize;
            self.fill(&mut chunk[..now])?;
            self.left -= now as u64;
            out.write_all(&chunk[..now]).map_err(io("writing", path))?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A `.tar.gz` of the given files.
    pub(crate) fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = Vec::new();
        for (path, contents) in files {
            let mut header = [0u8; BLOCK];
            header[..path.len()].copy_from_slice(path.as_bytes());
            header[124..135].copy_from_slice(format!("{:011o}", contents.len()).as_bytes());
            header[148..156].fill(b' ');
            header[156] = b'0';
            let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
            header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
            tar.extend_from_slice(&header);
            tar.extend_from_slice(contents);
            tar.resize(tar.len().next_multiple_of(BLOCK), 0);
        }
        tar.resize(tar.len() + 2 * BLOCK, 0);
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&tar).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn members_come_in_order() {
        let bytes = archive(&[("a/b.bin", b"hello"), ("c", &[7; 1000]), ("empty", b"")]);
        let mut members = Members::new("f", &bytes[..]);
        let mut out = Vec::new();
        let first = members.next_member().unwrap().unwrap();
        assert_eq!((first.path.as_str(), first.size), ("a/b.bin", 5));
        members.copy_to(&mut out, Path::new("x")).unwrap();
        assert_eq!(out, b"hello");
        assert_eq!(members.next_member().unwrap().unwrap().size, 1000);
        assert_eq!(members.next_member().unwrap().unwrap().path, "empty");
        assert_eq!(members.next_member().unwrap(), None);
    }

    #[test]
    fn every_cut_is_an_error() {
        let bytes = archive(&[("a", b"hello"), ("b", b"world")]);
        for length in 0..bytes.len() - 8 {
            let mut members = Members::new("f", &bytes[..length]);
            let mut read = || -> Result<(), DatasetError> {
                while members.next_member()?.is_some() {}
                Ok(())
            };
            assert!(
                read().is_err() || length > bytes.len() - 40,
                "cut at {length}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn any_header_is_read_or_refused(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..1200),
            size in "[0-7]{0,12}",
        ) {
            let mut tar = bytes;
            tar.resize(1536, 0);
            tar[124..124 + size.len()].copy_from_slice(size.as_bytes());
            tar[148..156].fill(b' ');
            let sum: u32 = tar[..BLOCK].iter().map(|&byte| u32::from(byte)).sum();
            tar[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&tar).unwrap();
            let packed = encoder.finish().unwrap();
            let mut members = Members::new("f", &packed[..]);
            while let Ok(Some(_)) = members.next_member() {}
        }
    }
}
