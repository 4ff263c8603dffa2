//! Files that appear whole or not at all: written beside, synced, renamed.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::error::ResultsError;
use super::manifest::FileDigest;

/// A file written under a temporary name, synced, and not yet in its place.
///
/// Dropped without [`Staged::publish`], it removes the temporary file.
#[derive(Debug)]
pub(crate) struct Staged {
    temporary: PathBuf,
    path: PathBuf,
    digest: FileDigest,
    published: bool,
}

/// Hashes and counts what passes through.
struct Hashing<W> {
    inner: W,
    hash: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.hash.update(&buffer[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Writes `path` beside its place; [`Staged::publish`] moves it there.
///
/// # Errors
/// [`ResultsError::Write`]; nothing is left behind and what stood at `path` is unchanged.
pub(crate) fn stage(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<Staged, ResultsError> {
    stage_on(path, |temporary| File::create(temporary), fill)
}

fn stage_on(
    path: &Path,
    create: impl FnOnce(&Path) -> io::Result<File>,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<Staged, ResultsError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let write = || -> io::Result<FileDigest> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = create(&temporary)?;
        let mut writer = Hashing {
            inner: BufWriter::with_capacity(1 << 18, file),
            hash: Sha256::new(),
            bytes: 0,
        };
        fill(&mut writer)?;
        writer.flush()?;
        let file = writer
            .inner
            .into_inner()
            .map_err(|stopped| stopped.into_error())?;
        file.sync_all()?;
        Ok(FileDigest {
            bytes: writer.bytes,
            sha256: hex(&writer.hash.finalize()),
        })
    };
    match write() {
        Ok(digest) => Ok(Staged {
            temporary,
            path: path.to_owned(),
            digest,
            published: false,
        }),
        Err(error) => {
            // The first error is the one to report; a leftover is overwritten next time.
            let _ = fs::remove_file(&temporary);
            Err(ResultsError::write(path, error))
        }
    }
}

impl Staged {
    /// Size and SHA-256.
    pub(crate) fn digest(&self) -> &FileDigest {
        &self.digest
    }

    /// Moves the file to its place.
    ///
    /// # Errors
    /// [`ResultsError::Write`].
    pub(crate) fn publish(mut self) -> Result<FileDigest, ResultsError> {
        fs::rename(&self.temporary, &self.path)
            .map_err(|error| ResultsError::write(&self.path, error))?;
        self.published = true;
        if let Some(folder) = self.path.parent() {
            sync_folder(folder)?;
        }
        Ok(self.digest.clone())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.published {
            // Nothing can be done about a temporary file that will not go.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Writes bytes to `path`, whole or not at all.
///
/// # Errors
/// [`ResultsError::Write`].
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<FileDigest, ResultsError> {
    stage(path, |writer| writer.write_all(bytes))?.publish()
}

/// Makes renames in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), ResultsError> {
    #[cfg(unix)]
    {
        let folder = if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            folder
        };
        File::open(folder)
            .and_then(|handle| handle.sync_all())
            .map_err(|error| ResultsError::write(folder, error))?;
    }
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

/// SHA-256 and size of a file on disk.
///
/// # Errors
/// [`ResultsError::Read`].
pub(crate) fn digest_of(path: &Path) -> Result<FileDigest, ResultsError> {
    let digest = || -> io::Result<FileDigest> {
        let mut writer = Hashing {
            inner: io::sink(),
            hash: Sha256::new(),
            bytes: 0,
        };
        io::copy(&mut File::open(path)?, &mut writer)?;
        Ok(FileDigest {
            bytes: writer.bytes,
            sha256: hex(&writer.hash.finalize()),
        })
    };
    digest().map_err(|error| ResultsError::read(path, error))
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use core::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_leaves_the_old_file_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rounds.parquet");
        write(&path, b"old").unwrap();
        if !Path::new("/dev/full").exists() {
            return;
        }
        let error = stage_on(
            &path,
            |_| File::options().write(true).open("/dev/full"),
            |writer| writer.write_all(&[7; 1 << 20]),
        )
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "{} could not be written: No space left on device (os error 28); free some space \
                 or choose a folder on another disk with --out; what was there before is unchanged",
                path.display()
            )
        );
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failing_writer_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/file");
        let refused = stage(&path, |writer| {
            writer.write_all(b"half")?;
            Err(io::Error::other("no"))
        });
        assert!(refused.is_err());
        assert_eq!(
            fs::read_dir(path.parent().unwrap()).unwrap().count(),
            0,
            "the temporary file is gone"
        );
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::write(&path, b"").unwrap();
        let error = write(&path.join("inside"), b"x").unwrap_err().to_string();
        assert!(
            error.contains("a file stands where a folder is needed"),
            "{error}"
        );
    }

    #[test]
    fn the_digest_is_sha_256() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        let written = write(&path, b"abc").unwrap();
        // FIPS 180-4, example of SHA-256.
        assert_eq!(
            written.sha256,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(written.bytes, 3);
        assert_eq!(digest_of(&path).unwrap(), written);
    }
}
