//! The versions that a device keeps: the current one, the one before it, and the one on its way.
//!
//! # On the disk
//! | path | what |
//! |---|---|
//! | `versions/DIGEST` | a whole version, named by its SHA-256 |
//! | `incoming/DIGEST` | the beginning of one that is being fetched |
//! | `slot-0`, `slot-1` | which version is current and which was before, with a number that grows and a checksum |
//!
//! # What holds at any moment
//! A version is written beside, synced, read back and compared with its digest, looked at by the
//! caller, renamed, and its folder synced, before a slot names it. Slots are written in turns, each
//! beside and renamed, so that the other still says what was true before. What neither slot's
//! newest whole state names is removed last. So whenever power fails, [`Store::open`] finds the
//! version that was current before or the one that was to be, and both can be loaded.

mod error;
mod slot;

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

pub use error::StoreError;

use crate::digest::{Digest, Hashing, Version};
use crate::disk::{Disk, DiskFile};
use crate::patch::Patch;
use slot::State;

const VERSIONS: &str = "versions";
const INCOMING: &str = "incoming";
const SLOTS: [&str; 2] = ["slot-0", "slot-1"];
const TEMPORARY: &str = "slot.tmp";
/// Bytes that are read at once.
const PIECE: usize = 1 << 16;

/// What a caller says of a version before it is installed: that it is a model which this program
/// can run, for instance. An error refuses the version.
pub type Check<'a> =
    &'a mut dyn FnMut(&[u8]) -> Result<(), Box<dyn core::error::Error + Send + Sync>>;

/// The versions in one folder; see the [module](self).
#[derive(Debug)]
pub struct Store<D> {
    disk: D,
    dir: PathBuf,
    /// The longest version that is taken, in bytes.
    most: u64,
    state: State,
}

/// A version in memory.
#[derive(Debug)]
pub struct Loaded {
    /// Which it is.
    pub version: Version,
    /// Its bytes, which have its digest.
    pub bytes: Vec<u8>,
    /// Why it is not the current one but the one before it.
    pub instead_of: Option<StoreError>,
}

impl<D: Disk> Store<D> {
    /// Opens the store in `dir`, which is made where it does not exist, and removes what an
    /// interrupted installation has left. Versions longer than `most` bytes are refused.
    ///
    /// # Errors
    /// [`StoreError::Disk`]; [`StoreError::Slots`] when there are slots and none of them is whole.
    pub fn open(disk: D, dir: impl Into<PathBuf>, most: u64) -> Result<Self, StoreError> {
        let mut store = Self {
            disk,
            dir: dir.into(),
            most,
            state: State::default(),
        };
        for folder in ["", VERSIONS, INCOMING] {
            let path = store.dir.join(folder);
            let made = store.disk.create_dir_all(&path);
            made.map_err(StoreError::disk("create", &path))?;
        }
        store.state = store.read_slots()?;
        store.clean()?;
        Ok(store)
    }

    /// The version in use; none before the first.
    #[must_use]
    pub fn current(&self) -> Option<Version> {
        self.state.current
    }

    /// The one before it.
    #[must_use]
    pub fn previous(&self) -> Option<Version> {
        self.state.previous
    }

    /// How often the current version was changed.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.state.sequence
    }

    /// Where a version that is kept lies: to be served from a memory map.
    #[must_use]
    pub fn path(&self, digest: Digest) -> PathBuf {
        self.dir.join(VERSIONS).join(digest.to_string())
    }

    /// The current version's bytes or, where they are damaged, those of the one before it.
    ///
    /// # Errors
    /// [`StoreError::Empty`] before the first version; why the current one cannot be loaded, when the
    /// one before it cannot either.
    pub fn load(&self) -> Result<Loaded, StoreError> {
        let version = self.state.current.ok_or(StoreError::Empty)?;
        let failed = match self.read(version) {
            Ok(bytes) => {
                return Ok(Loaded {
                    version,
                    bytes,
                    instead_of: None,
                });
            }
            Err(failed) => failed,
        };
        match self
            .state
            .previous
            .map(|version| (version, self.read(version)))
        {
            Some((version, Ok(bytes))) => Ok(Loaded {
                version,
                bytes,
                instead_of: Some(failed),
            }),
            _ => Err(failed),
        }
    }

    /// Begins to fetch a version, or goes on where it was interrupted: see [`Download::received`].
    /// What was fetched of any other version is removed.
    ///
    /// # Errors
    /// [`StoreError::TooLong`], [`StoreError::Disk`].
    pub fn begin(&mut self, version: Version) -> Result<Download<'_, D>, StoreError> {
        if version.bytes > self.most {
            return Err(StoreError::TooLong {
                bytes: version.bytes,
                most: self.most,
            });
        }
        self.clean_incoming(Some(version.digest))?;
        let path = self.incoming(version.digest);
        let mut so_far = Hashing::new(());
        let there = match self.disk.open(&path) {
            Ok((length, _)) if length > version.bytes => false,
            Ok((_, mut file)) => {
                each_piece(&mut *file, |piece| so_far.count(piece))
                    .map_err(StoreError::disk("read", &path))?;
                true
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(StoreError::disk("read", &path)(error)),
        };
        let file = if there {
            self.disk.append(&path)
        } else {
            so_far = Hashing::new(());
            self.disk.create(&path)
        };
        let file = file.map_err(StoreError::disk("write", &path))?;
        Ok(Download {
            store: self,
            version,
            path,
            file,
            so_far,
        })
    }

    /// Installs a version of which all bytes are at hand.
    ///
    /// # Errors
    /// As [`Download::finish`].
    pub fn install(&mut self, bytes: &[u8], check: Check<'_>) -> Result<Version, StoreError> {
        let version = Version::of(bytes);
        let mut download = self.begin(version)?;
        let received = usize::try_from(download.received()).unwrap_or(usize::MAX);
        download.write(bytes.get(received..).unwrap_or_default())?;
        download.finish(check)
    }

    /// Installs the version that a patch leads to, from the current one or the one before it.
    ///
    /// # Errors
    /// [`StoreError::NoOld`] when it leads from neither; [`StoreError::Patch`]; as
    /// [`Download::finish`].
    pub fn install_patch(&mut self, patch: &[u8], check: Check<'_>) -> Result<Version, StoreError> {
        let patch = Patch::open(patch)?;
        let kept = [self.state.current, self.state.previous];
        let from = patch.old_version();
        if !kept.contains(&Some(from)) {
            return Err(StoreError::NoOld {
                needed: from,
                current: self.state.current,
            });
        }
        let old = self.read(from)?;
        // Nothing is known of a beginning that another source has sent.
        self.clean_incoming(None)?;
        let mut download = self.begin(patch.new_version())?;
        let applied = patch.apply(&old, &mut download);
        drop(old);
        match applied {
            Ok(()) => download.finish(check),
            Err(error) => {
                download.abandon()?;
                Err(error.into())
            }
        }
    }

    /// Reads all of a version that is kept and compares it with its digest.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], [`StoreError::Disk`].
    pub fn verify(&self, version: Version) -> Result<(), StoreError> {
        self.read(version).map(drop)
    }

    /// Makes the version before the current one current again. The two change places, so a second
    /// call takes it back.
    ///
    /// # Errors
    /// [`StoreError::NothingBefore`]; [`StoreError::Damaged`] and [`StoreError::Disk`] when the version
    /// before cannot be loaded, in which case nothing has changed.
    pub fn roll_back(&mut self) -> Result<Version, StoreError> {
        let previous = self.state.previous.ok_or(StoreError::NothingBefore)?;
        self.read(previous)?;
        self.activate(previous)?;
        Ok(previous)
    }

    /// Makes a version that is in its place current.
    fn activate(&mut self, version: Version) -> Result<(), StoreError> {
        if self.state.current != Some(version) {
            let state = State {
                sequence: self.state.sequence + 1,
                current: Some(version),
                previous: self.state.current,
            };
            let temporary = self.dir.join(TEMPORARY);
            let slot = self.dir.join(SLOTS[(state.sequence % 2) as usize]);
            let write = || {
                let mut file = self.disk.create(&temporary)?;
                file.write_all(state.to_string().as_bytes())?;
                file.sync()?;
                drop(file);
                self.disk.rename(&temporary, &slot)?;
                self.disk.sync_dir(&self.dir)
            };
            write().map_err(StoreError::disk("write", &slot))?;
            self.state = state;
        }
        self.clean()
    }

    /// The newest whole state.
    fn read_slots(&self) -> Result<State, StoreError> {
        let mut newest: Option<State> = None;
        let mut fault = None;
        for slot in SLOTS {
            let path = self.dir.join(slot);
            let mut text = String::new();
            let read = self
                .disk
                .open(&path)
                .and_then(|(_, file)| file.take(slot::LONGEST).read_to_string(&mut text));
            match read {
                Ok(_) => match State::parse(&text) {
                    Some(state) if newest.is_none_or(|newest| newest.sequence < state.sequence) => {
                        newest = Some(state);
                    }
                    Some(_) => {}
                    None => fault = Some(path),
                },
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidData => fault = Some(path),
                Err(error) => return Err(StoreError::disk("read", &path)(error)),
            }
        }
        match (newest, fault) {
            (Some(state), _) => Ok(state),
            (None, None) => Ok(State::default()),
            (None, Some(path)) => Err(StoreError::Slots { path }),
        }
    }

    /// All bytes of a version in its place, compared with its digest.
    fn read(&self, version: Version) -> Result<Vec<u8>, StoreError> {
        self.read_at(&self.path(version.digest), version)
    }

    fn read_at(&self, path: &Path, version: Version) -> Result<Vec<u8>, StoreError> {
        let (length, mut file) = (self.disk.open(path)).map_err(StoreError::disk("read", path))?;
        let mut bytes = Vec::new();
        if length == version.bytes {
            // The length is the disk's, and what is kept was not too long.
            bytes.reserve_exact(usize::try_from(length).unwrap_or_default());
            let read = file.read_to_end(&mut bytes);
            read.map_err(StoreError::disk("read", path))?;
        }
        let found = Version::of(&bytes);
        if found == version {
            return Ok(bytes);
        }
        Err(StoreError::Damaged {
            path: path.to_owned(),
            expected: version,
            found: if length == version.bytes {
                found
            } else {
                Version {
                    bytes: length,
                    ..found
                }
            },
        })
    }

    /// Removes versions that nobody needs any more.
    fn clean(&self) -> Result<(), StoreError> {
        let kept = [self.state.current, self.state.previous];
        let kept = kept.map(|version| version.map(|version| version.digest.to_string()));
        self.remove_all_but(VERSIONS, &kept)
    }

    fn clean_incoming(&self, but: Option<Digest>) -> Result<(), StoreError> {
        self.remove_all_but(INCOMING, &[but.map(|digest| digest.to_string())])
    }

    fn remove_all_but(&self, folder: &str, kept: &[Option<String>]) -> Result<(), StoreError> {
        let folder = self.dir.join(folder);
        let names = self.disk.list(&folder);
        for name in names.map_err(StoreError::disk("list", &folder))? {
            if !kept.contains(&Some(name.clone())) {
                let path = folder.join(name);
                let removed = self.disk.remove(&path);
                removed.map_err(StoreError::disk("remove", &path))?;
            }
        }
        Ok(())
    }

    fn incoming(&self, digest: Digest) -> PathBuf {
        self.dir.join(INCOMING).join(digest.to_string())
    }
}

/// A version being fetched. Dropped before its end, it stays as far as it came and
/// [`Store::begin`] goes on there.
pub struct Download<'s, D> {
    store: &'s mut Store<D>,
    version: Version,
    path: PathBuf,
    file: Box<dyn DiskFile>,
    so_far: Hashing<()>,
}

impl<D> core::fmt::Debug for Download<'_, D> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Download")
            .field("version", &self.version)
            .field("received", &self.so_far.bytes())
            .finish_non_exhaustive()
    }
}

impl<D: Disk> Download<'_, D> {
    /// Bytes that are there already: the next to be written is this one.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.so_far.bytes()
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`StoreError::Trailing`] for more than the version has; [`StoreError::Disk`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let left = self.version.bytes - self.so_far.bytes();
        if bytes.len() as u64 > left {
            return Err(StoreError::Trailing {
                version: self.version,
            });
        }
        let written = self.file.write_all(bytes);
        written.map_err(StoreError::disk("write", &self.path))?;
        self.so_far.count(bytes);
        Ok(())
    }

    /// Makes the version current: it is complete and has its digest, also when it is read back from
    /// the disk, and `check` finds nothing wrong with it. The version that was current becomes the
    /// one before it, and what was before that is removed.
    ///
    /// # Errors
    /// [`StoreError::Incomplete`], after which fetching can go on; [`StoreError::Download`],
    /// [`StoreError::Damaged`] and [`StoreError::Refused`], after which it must begin again;
    /// [`StoreError::Disk`]. The current version is the one that it was.
    pub fn finish(self, check: Check<'_>) -> Result<Version, StoreError> {
        let Self {
            store,
            version,
            path,
            mut file,
            so_far,
        } = self;
        let ((), found) = so_far.finish();
        if found.bytes < version.bytes {
            return Err(StoreError::Incomplete {
                version,
                received: found.bytes,
            });
        }
        let verified = (|| {
            if found != version {
                return Err(StoreError::Download {
                    expected: version,
                    found,
                });
            }
            file.sync().map_err(StoreError::disk("sync", &path))?;
            drop(file);
            let bytes = store.read_at(&path, version)?;
            check(&bytes).map_err(|source| StoreError::Refused { version, source })
        })();
        if let Err(error) = verified {
            // The first error is the one to report; what is left is removed by the next download.
            let _ = store.clean_incoming(None);
            return Err(error);
        }
        let place = store.path(version.digest);
        let folders = [VERSIONS, INCOMING].map(|folder| store.dir.join(folder));
        let renamed = store.disk.rename(&path, &place);
        let synced = renamed.and_then(|()| {
            folders
                .iter()
                .try_for_each(|folder| store.disk.sync_dir(folder))
        });
        synced.map_err(StoreError::disk("rename to", &place))?;
        store.activate(version)?;
        Ok(version)
    }

    /// Removes what was fetched.
    ///
    /// # Errors
    /// [`StoreError::Disk`].
    pub fn abandon(self) -> Result<(), StoreError> {
        drop(self.file);
        self.store.clean_incoming(None)
    }
}

impl<D: Disk> io::Write for Download<'_, D> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Self::write(self, bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn each_piece(file: &mut dyn io::Read, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(length) => take(piece.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
