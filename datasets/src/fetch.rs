//! Getting the catalogue's files: download, import, and a look at what is there.
//!
//! The crate opens no socket: the program gives a [`Transport`]. A download goes into
//! `FILE.partial`, is resumed from there by a range request, and is moved to its place only when
//! its SHA-256 is the recorded one; so a file in its place is whole.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::catalogue::{CatalogueFile, Entry, Origin, Presence, hexadecimal};
use crate::config::DatasetConfig;
use crate::dataset::DatasetSummary;
use crate::error::DatasetError;
use crate::partition::{Iid, PartitionConfig};
use crate::read::io;
use crate::root::DataRoot;

/// A body that a [`Transport`] opened.
pub struct Body<'a> {
    /// Where in the file the body starts: the offset asked for, or 0 where ranges are ignored.
    pub start: u64,
    /// The bytes from there on.
    pub reader: Box<dyn Read + 'a>,
}

impl core::fmt::Debug for Body<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Body")
            .field("start", &self.start)
            .finish_non_exhaustive()
    }
}

/// Something that downloads, e.g. an HTTP client.
pub trait Transport {
    /// Opens `url`, from byte `offset` on where the server can (`Range: bytes=offset-`).
    ///
    /// # Errors
    /// What went wrong, in words, e.g. `404 Not Found`.
    fn open(&self, url: &str, offset: u64) -> Result<Body<'_>, String>;
}

/// What happens during [`fetch`] and [`import`], for progress bars and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The file is already here, with the recorded checksum.
    Present {
        /// The file.
        file: &'a str,
    },
    /// A download begins, or goes on from `from`.
    Started {
        /// Where from.
        url: &'a str,
        /// Bytes that are here already.
        from: u64,
        /// Size of the whole.
        total: u64,
    },
    /// So many bytes of the whole are here.
    Progress {
        /// Bytes.
        done: u64,
        /// Size of the whole.
        total: u64,
    },
    /// An address did not serve; the next one is tried.
    Failed {
        /// The address.
        url: &'a str,
        /// Why.
        reason: &'a str,
    },
    /// The file was verified and moved to its place.
    Installed {
        /// The file.
        file: &'a str,
    },
}

/// Bytes read at a time.
const CHUNK: usize = 1 << 16;
/// Bytes between two progress events.
const PROGRESS: u64 = 1 << 18;

/// Downloads what is missing of `entry` and returns how many files were installed.
///
/// # Errors
/// [`DatasetError::Transfer`] when no address serves the file (what came stays and the next call
/// goes on from there), [`DatasetError::Checksum`] when what came is another file (it is
/// removed), [`DatasetError::ImportOnly`], [`DatasetError::Io`].
pub fn fetch(
    entry: &Entry,
    root: &DataRoot,
    transport: &dyn Transport,
    events: &mut dyn FnMut(Event<'_>),
) -> Result<usize, DatasetError> {
    let mut installed = 0;
    let folder = root.path().join(entry.name);
    let missing: Vec<&CatalogueFile> = (entry.files.iter())
        .map(|file| Ok((file, is_right(&entry.path(root, file), file)?)))
        .collect::<Result<Vec<_>, DatasetError>>()?
        .into_iter()
        .filter_map(|(file, right)| {
            if right {
                events(Event::Present { file: file.name });
            }
            (!right).then_some(file)
        })
        .collect();
    // Say at once what cannot be fetched.
    for file in &missing {
        if let Origin::ImportOnly(reason) = file.origin {
            return Err(DatasetError::ImportOnly {
                name: entry.name.to_owned(),
                file: file.name.to_owned(),
                reason,
            });
        }
    }
    if !missing.is_empty() {
        std::fs::create_dir_all(&folder).map_err(io("creating", &folder))?;
    }
    for file in missing {
        let place = entry.path(root, file);
        // An archive may have brought it.
        if is_right(&place, file)? {
            continue;
        }
        match file.origin {
            Origin::Urls(urls) => {
                let partial = beside(&place, ".partial");
                download(urls, file.bytes, file.sha256, &partial, transport, events)?;
                install(&partial, &place)?;
                events(Event::Installed { file: file.name });
                installed += 1;
            }
            Origin::Archive {
                url, bytes, sha256, ..
            } => {
                let name = url.rsplit('/').next().unwrap_or("archive");
                let archive = folder.join(format!("{name}.partial"));
                download(&[url], bytes, sha256, &archive, transport, events)?;
                installed += unpack(entry, root, url, &archive, events)?;
                std::fs::remove_file(&archive).map_err(io("removing", &archive))?;
            }
            Origin::ImportOnly(_) => {}
        }
    }
    Ok(installed)
}

/// Copies the files of `entry` from `from`, a file or a folder (looked for there and in its
/// folder of the set's name), and returns how many were installed.
///
/// # Errors
/// [`DatasetError::MissingFile`] when a file that is not yet here is not there either,
/// [`DatasetError::Checksum`] when it is another file, [`DatasetError::Io`].
pub fn import(
    entry: &Entry,
    root: &DataRoot,
    from: &Path,
    events: &mut dyn FnMut(Event<'_>),
) -> Result<usize, DatasetError> {
    let mut installed = 0;
    for file in entry.files {
        let place = entry.path(root, file);
        let candidates = if from.is_dir() {
            vec![from.join(file.name), from.join(entry.name).join(file.name)]
        } else {
            let named = from.file_name().is_some_and(|name| name == file.name);
            if named {
                vec![from.to_owned()]
            } else {
                Vec::new()
            }
        };
        let found = candidates.iter().find(|path| path.exists());
        if is_right(&place, file)? {
            events(Event::Present { file: file.name });
            continue;
        }
        let Some(source) = found else {
            // A single file is imported by itself.
            if !from.is_dir() && entry.files.iter().any(|file| from.ends_with(file.name)) {
                continue;
            }
            return Err(DatasetError::MissingFile {
                name: entry.name.to_owned(),
                path: from.join(file.name),
                remedy: format!(
                    "give the folder that holds {}, or the file itself",
                    file.name
                ),
            });
        };
        let folder = root.path().join(entry.name);
        std::fs::create_dir_all(&folder).map_err(io("creating", &folder))?;
        let partial = beside(&place, ".import");
        let copied = copy_verified(source, &partial, file);
        if copied.is_err() {
            // The copy is of no use; the error that matters is the one at hand.
            let _ = std::fs::remove_file(&partial);
        }
        copied?;
        install(&partial, &place)?;
        events(Event::Installed { file: file.name });
        installed += 1;
    }
    Ok(installed)
}

/// What is known and here of a data set.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inspection {
    /// The catalogue's entry.
    pub entry: Entry,
    /// Whether its files are here.
    pub presence: Presence,
    /// The data with their natural clients, or as one client; none where files are missing.
    pub summary: Option<DatasetSummary>,
    /// Training examples of each class.
    pub label_counts: Option<Vec<u64>>,
}

/// Reads a data set of the catalogue, where it is here, and says what it holds.
///
/// # Errors
/// As [`load`](crate::load), for files that are here but damaged.
pub fn inspect(entry: &'static Entry, root: &DataRoot) -> Result<Inspection, DatasetError> {
    let presence = entry.presence(root);
    let mut inspection = Inspection {
        entry: *entry,
        presence,
        summary: None,
        label_counts: None,
    };
    if matches!(presence, Presence::Missing(_)) {
        return Ok(inspection);
    }
    let config = DatasetConfig::new(entry.name);
    let data = match crate::load(&config, root, fl_core::Seed(0)) {
        // No natural clients: one client has everything.
        Err(DatasetError::MissingKey { .. }) => {
            let whole = PartitionConfig::Iid(Iid { clients: 1 });
            crate::load(&config.with_partition(whole), root, fl_core::Seed(0))?
        }
        natural => natural?,
    };
    let mut counts: Option<Vec<u64>> = None;
    for client in 0..data.clients() {
        let Some(found) = data.label_counts(fl_core::ClientId(client)) else {
            continue;
        };
        match &mut counts {
            None => counts = Some(found),
            Some(counts) => {
                for (sum, found) in counts.iter_mut().zip(found) {
                    *sum += found;
                }
            }
        }
    }
    inspection.label_counts = counts;
    inspection.summary = Some(data.summary());
    Ok(inspection)
}

/// `path` with `suffix` after its name.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}

/// Whether the file at `path` is `file`.
fn is_right(path: &Path, file: &CatalogueFile) -> Result<bool, DatasetError> {
    match std::fs::metadata(path) {
        Ok(data) if data.len() == file.bytes => Ok(hash_file(path)? == file.sha256),
        Ok(_) => Ok(false),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io("reading", path)(error)),
    }
}

fn hash_file(path: &Path) -> Result<String, DatasetError> {
    let mut file = File::open(path).map_err(io("reading", path))?;
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = file.read(&mut chunk).map_err(io("reading", path))?;
        if read == 0 {
            return Ok(hexadecimal(&hash.finalize()));
        }
        hash.update(&chunk[..read]);
    }
}

/// Moves a whole file to its place, safely against a crash.
fn install(partial: &Path, place: &Path) -> Result<(), DatasetError> {
    (File::open(partial).and_then(|file| file.sync_all())).map_err(io("writing", partial))?;
    std::fs::rename(partial, place).map_err(io("installing", place))
}

fn copy_verified(source: &Path, partial: &Path, file: &CatalogueFile) -> Result<(), DatasetError> {
    let mut from = File::open(source).map_err(io("reading", source))?;
    let mut to = File::create(partial).map_err(io("writing", partial))?;
    std::io::copy(&mut from, &mut to).map_err(io("writing", partial))?;
    drop(to);
    let found = hash_file(partial)?;
    let found_bytes = std::fs::metadata(partial)
        .map_err(io("reading", partial))?
        .len();
    if found != file.sha256 || found_bytes != file.bytes {
        return Err(DatasetError::Checksum {
            path: source.to_owned(),
            expected: file.sha256.to_owned(),
            expected_bytes: file.bytes,
            found,
            found_bytes,
        });
    }
    Ok(())
}

/// Downloads one file of known size and checksum into `partial`, going on where it ends.
fn download(
    urls: &[&str],
    total: u64,
    sha256: &str,
    partial: &Path,
    transport: &dyn Transport,
    events: &mut dyn FnMut(Event<'_>),
) -> Result<(), DatasetError> {
    let mut last = None;
    for url in urls {
        // A wrong beginning is found by the checksum; then one fresh start is worth it.
        for fresh in [false, true] {
            if fresh {
                remove(partial)?;
            }
            let resumed = size(partial)?;
            match transfer(url, total, partial, transport, events) {
                Ok(()) => {}
                Err(Stop::Transport(error)) => {
                    if let DatasetError::Transfer { reason, .. } = &error {
                        events(Event::Failed { url, reason });
                    }
                    last = Some(error);
                    break;
                }
                Err(Stop::Here(error)) => return Err(error),
            }
            let found = hash_file(partial)?;
            if found == sha256 {
                return Ok(());
            }
            let error = DatasetError::Checksum {
                path: partial.to_owned(),
                expected: sha256.to_owned(),
                expected_bytes: total,
                found,
                found_bytes: size(partial)?,
            };
            events(Event::Failed {
                url,
                reason: "another file came than the recorded one",
            });
            last = Some(error);
            if fresh || resumed == 0 {
                remove(partial)?;
                break;
            }
        }
    }
    Err(last.unwrap_or_else(|| DatasetError::Transfer {
        url: String::new(),
        at: 0,
        reason: "no address is known".to_owned(),
    }))
}

/// Why a transfer ended early: the other side, or this one.
enum Stop {
    Transport(DatasetError),
    Here(DatasetError),
}

impl From<DatasetError> for Stop {
    fn from(error: DatasetError) -> Self {
        Self::Here(error)
    }
}

fn size(path: &Path) -> Result<u64, DatasetError> {
    match std::fs::metadata(path) {
        Ok(data) => Ok(data.len()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(io("reading", path)(error)),
    }
}

fn remove(path: &Path) -> Result<(), DatasetError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(io("removing", path)(error))
        }
        _ => Ok(()),
    }
}

fn transfer(
    url: &str,
    total: u64,
    partial: &Path,
    transport: &dyn Transport,
    events: &mut dyn FnMut(Event<'_>),
) -> Result<(), Stop> {
    let mut done = size(partial)?;
    if done > total {
        remove(partial)?;
        done = 0;
    }
    if done == total {
        return Ok(());
    }
    let broken = |at: u64, reason: String| {
        Stop::Transport(DatasetError::Transfer {
            url: url.to_owned(),
            at,
            reason,
        })
    };
    let mut body = transport
        .open(url, done)
        .map_err(|reason| broken(done, reason))?;
    if body.start > done {
        return Err(broken(
            done,
            format!("the server skipped to byte {}", body.start),
        ));
    }
    done = body.start;
    events(Event::Started {
        url,
        from: done,
        total,
    });
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(partial)
        .map_err(io("writing", partial))?;
    file.set_len(done).map_err(io("writing", partial))?;
    file.seek(SeekFrom::End(0))
        .map_err(io("writing", partial))?;
    let mut chunk = vec![0; CHUNK];
    let mut told = done;
    loop {
        let read = match body.reader.read(&mut chunk) {
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => {
                file.sync_all().map_err(io("writing", partial))?;
                return Err(broken(done, error.to_string()));
            }
        };
        if read == 0 {
            break;
        }
        if done + read as u64 > total {
            return Err(broken(
                done,
                format!("the server sent more than the {total} bytes of the file"),
            ));
        }
        file.write_all(&chunk[..read])
            .map_err(io("writing", partial))?;
        done += read as u64;
        if done - told >= PROGRESS {
            told = done;
            events(Event::Progress { done, total });
        }
    }
    file.sync_all().map_err(io("writing", partial))?;
    if done < total {
        return Err(broken(
            done,
            format!("the connection ended before the {total} bytes of the file"),
        ));
    }
    events(Event::Progress { done, total });
    Ok(())
}

/// Installs the members of a `.tar.gz` that the entry lists.
fn unpack(
    entry: &Entry,
    root: &DataRoot,
    archive_url: &str,
    archive: &Path,
    events: &mut dyn FnMut(Event<'_>),
) -> Result<usize, DatasetError> {
    let file = File::open(archive).map_err(io("reading", archive))?;
    let name = archive.display().to_string();
    let mut members = crate::read::tar::Members::new(&name, file);
    let mut installed = 0;
    while let Some(member) = members.next_member()? {
        let listed = entry.files.iter().find(|file| {
            matches!(file.origin, Origin::Archive { url, member: path, .. }
                if url == archive_url && path == member.path)
        });
        let Some(file) = listed.filter(|file| file.bytes == member.size) else {
            continue;
        };
        let place = entry.path(root, file);
        if is_right(&place, file)? {
            continue;
        }
        let partial = beside(&place, ".partial");
        let mut out = File::create(&partial).map_err(io("writing", &partial))?;
        members.copy_to(&mut out, &partial)?;
        drop(out);
        let found = hash_file(&partial)?;
        if found != file.sha256 {
            remove(&partial)?;
            return Err(DatasetError::Checksum {
                path: place,
                expected: file.sha256.to_owned(),
                expected_bytes: file.bytes,
                found,
                found_bytes: member.size,
            });
        }
        install(&partial, &place)?;
        events(Event::Installed { file: file.name });
        installed += 1;
    }
    for file in entry.files {
        let from_here = matches!(file.origin, Origin::Archive { url, .. } if url == archive_url);
        if from_here && !is_right(&entry.path(root, file), file)? {
            return Err(crate::read::malformed(
                &name,
                "members",
                format!("no {} of {} bytes", file.name, file.bytes),
                "every file of the data set",
                crate::read::DAMAGED,
            ));
        }
    }
    Ok(installed)
}

#[cfg(test)]
mod tests;
