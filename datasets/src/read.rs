//! Readers of file formats. Each takes a name for its messages and the bytes of a file, and
//! either understands all of them or says where and why not.
//!
//! No reader allocates more than a small multiple of the bytes that it was given: a length in a
//! file is believed only after it was compared with them.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::DatasetError;

pub mod cifar;
pub mod folder;
pub mod idx;
pub mod image;
pub mod leaf;
#[cfg(feature = "tabular")]
pub mod tabular;
pub mod tar;
pub mod text;

/// The most bytes that one byte of a deflate stream can stand for (RFC 1951: a match of 258
/// bytes in two bits), with room for block headers.
pub(crate) const DEFLATE_RATIO: u64 = 1032;

/// The longest text that is read into memory: 2 GiB.
const MOST_TEXT: u64 = 1 << 31;

/// A format error; the one place where readers build them.
pub(crate) fn malformed(
    file: &str,
    place: impl Into<String>,
    found: impl Into<String>,
    expected: impl Into<String>,
    remedy: &'static str,
) -> DatasetError {
    DatasetError::Malformed {
        file: file.to_owned(),
        place: place.into(),
        found: found.into(),
        expected: expected.into(),
        remedy,
    }
}

/// What to do about a damaged file.
pub(crate) const DAMAGED: &str = "the file is damaged or of another format; get it again";

pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> DatasetError {
    move |source| DatasetError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

/// The bytes of a file.
///
/// # Errors
/// [`DatasetError::Io`].
pub fn file(path: &Path) -> Result<Vec<u8>, DatasetError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .map_err(io("reading", path))?;
    Ok(bytes)
}

/// Whether `bytes` begin as gzip does.
#[must_use]
pub fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x8b])
}

/// The contents of a gzip file of one member.
///
/// # Errors
/// [`DatasetError::Malformed`] when the stream is cut off, fails its checksum, has bytes after
/// its end, or holds more than 2 GiB.
pub fn gunzip(file: &str, bytes: &[u8]) -> Result<Vec<u8>, DatasetError> {
    let mut decoder = flate2::bufread::GzDecoder::new(bytes);
    let mut out = Vec::new();
    let read = decoder.by_ref().take(MOST_TEXT + 1).read_to_end(&mut out);
    if let Err(error) = read {
        return Err(gzip_fault(file, out.len() as u64, &error));
    }
    if out.len() as u64 > MOST_TEXT {
        return Err(malformed(
            file,
            "gzip stream",
            format!("more than {MOST_TEXT} bytes"),
            "at most 2 GiB",
            "split the file",
        ));
    }
    no_trailing_gzip(file, bytes.len(), decoder.into_inner())?;
    Ok(out)
}

/// A gzip stream that ends too early or fails its checksum.
pub(crate) fn gzip_fault(file: &str, at: u64, error: &std::io::Error) -> DatasetError {
    malformed(
        file,
        format!("gzip stream after {at} decoded bytes"),
        error.to_string(),
        "a whole gzip stream",
        DAMAGED,
    )
}

/// Refuses bytes after a gzip stream.
pub(crate) fn no_trailing_gzip(file: &str, total: usize, rest: &[u8]) -> Result<(), DatasetError> {
    if rest.is_empty() {
        return Ok(());
    }
    Err(malformed(
        file,
        format!("byte {}", total - rest.len()),
        format!("{} bytes after the end of the gzip stream", rest.len()),
        "the end of the file",
        DAMAGED,
    ))
}

/// The contents of a text file, unpacked where it is gzip.
///
/// # Errors
/// As [`gunzip`], and when the text is not UTF-8.
pub fn text(file: &str, bytes: Vec<u8>) -> Result<String, DatasetError> {
    let bytes = if is_gzip(&bytes) {
        gunzip(file, &bytes)?
    } else {
        bytes
    };
    String::from_utf8(bytes).map_err(|error| {
        malformed(
            file,
            format!("byte {}", error.utf8_error().valid_up_to()),
            "bytes that are not UTF-8",
            "UTF-8 text",
            "convert the file to UTF-8",
        )
    })
}

/// A name shortened for a message.
pub(crate) fn shown(text: &str) -> String {
    const MOST: usize = 40;
    if text.chars().count() <= MOST {
        return format!("`{}`", text.escape_debug());
    }
    let head: String = text.chars().take(MOST).collect();
    format!("`{}...`", head.escape_debug())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn damaged_gzip_is_refused() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(b"some text that is packed").unwrap();
        let whole = encoder.finish().unwrap();
        assert_eq!(
            text("f", whole.clone()).unwrap(),
            "some text that is packed"
        );
        assert_eq!(text("f", b"plain".to_vec()).unwrap(), "plain");
        for length in 2..whole.len() {
            assert!(
                text("f", whole[..length].to_vec()).is_err(),
                "cut at {length}"
            );
        }
        let last = whole.len() - 6;
        let mut bytes = whole.clone();
        bytes[last] ^= 1;
        assert!(gunzip("f", &bytes).is_err());
        let message = gunzip("f", &[&whole[..], b"??"].concat())
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("2 bytes after the end of the gzip stream"),
            "{message}"
        );
        let message = text("f", vec![b'a', 0xff]).unwrap_err().to_string();
        assert!(
            message.starts_with("f, byte 1: found bytes that are not UTF-8"),
            "{message}"
        );
    }

    #[test]
    fn long_names_are_cut() {
        assert_eq!(shown("a\tb"), "`a\\tb`");
        assert!(shown(&"x".repeat(100)).len() < 50);
    }
}
