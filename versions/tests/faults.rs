//! A store on a disk that fails: at every single step, whatever is left can be loaded.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use fl_versions::{Disk, DiskFile, Patch, Region, Store, StoreError, Version};

const MOST: u64 = 1 << 20;

/// A disk in memory that knows what was synced. What was not may be lost when the power fails:
/// bytes of a file, from any one on, and entries of a folder, any of them.
#[derive(Clone, Debug, Default)]
struct Flash(Arc<Mutex<Inside>>);

#[derive(Debug, Default)]
struct Inside {
    files: Vec<File>,
    /// What the running system sees.
    names: BTreeMap<PathBuf, usize>,
    /// What is sure to be there after the power failed.
    durable: BTreeMap<PathBuf, usize>,
    steps: u64,
    /// The step at which power fails.
    fails: Option<u64>,
    random: u64,
}

#[derive(Debug, Default, Clone)]
struct File {
    bytes: Vec<u8>,
    synced: Vec<u8>,
}

fn power() -> io::Error {
    io::Error::other("no power")
}

impl Inside {
    fn step(&mut self) -> io::Result<()> {
        self.steps += 1;
        match self.fails {
            Some(fails) if self.steps > fails => Err(power()),
            _ => Ok(()),
        }
    }

    fn draw(&mut self, below: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 33) as usize % below
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        self.names
            .get(path)
            .copied()
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

impl Flash {
    /// The power fails after so many steps.
    fn failing(&self, steps: u64) {
        let mut inside = self.0.lock().unwrap();
        inside.steps = 0;
        inside.fails = Some(steps);
    }

    /// The power is back: what is left of it.
    fn restarted(&self, seed: u64) -> Self {
        let mut inside = self.0.lock().unwrap();
        inside.random = seed | 1;
        let paths: Vec<PathBuf> = (inside.names.keys())
            .chain(inside.durable.keys())
            .cloned()
            .collect();
        let mut names = BTreeMap::new();
        let mut files = Vec::new();
        for path in paths {
            // Each entry for itself is as it was or as it became.
            let became = inside.draw(2) == 0;
            let entries = if became {
                &inside.names
            } else {
                &inside.durable
            };
            let Some(&file) = entries.get(&path) else {
                continue;
            };
            let mut file = inside.files[file].clone();
            if file.bytes != file.synced {
                let more = file.bytes.len() - file.synced.len();
                let kept = file.synced.len() + inside.draw(more + 1);
                file.bytes.truncate(kept);
                // What was not synced may also be there as noise.
                if inside.draw(3) == 0 && file.bytes.len() > file.synced.len() {
                    *file.bytes.last_mut().unwrap() ^= 0x55;
                }
            }
            file.synced = file.bytes.clone();
            names.insert(path, files.len());
            files.push(file);
        }
        Self(Arc::new(Mutex::new(Inside {
            files,
            durable: names.clone(),
            names,
            random: seed | 1,
            ..Inside::default()
        })))
    }

    fn steps(&self) -> u64 {
        self.0.lock().unwrap().steps
    }

    fn change(&self, part: &str, change: impl Fn(&mut Vec<u8>)) {
        let mut inside = self.0.lock().unwrap();
        let names = inside.names.clone();
        let mut changed = 0;
        for (_, file) in names
            .iter()
            .filter(|(path, _)| path.to_str().unwrap().contains(part))
        {
            change(&mut inside.files[*file].bytes);
            changed += 1;
        }
        assert!(changed > 0, "{part}");
    }

    fn paths(&self) -> Vec<String> {
        let inside = self.0.lock().unwrap();
        inside
            .names
            .keys()
            .map(|path| path.to_str().unwrap().to_owned())
            .collect()
    }
}

struct Open {
    flash: Flash,
    file: usize,
}

impl Write for Open {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut inside = self.flash.0.lock().unwrap();
        // In pieces, so that power fails within them too.
        let piece = &bytes[..bytes.len().min(700)];
        let step = inside.step();
        let written = if step.is_ok() {
            piece.len()
        } else {
            piece.len() / 2
        };
        let file = self.file;
        inside.files[file]
            .bytes
            .extend_from_slice(&piece[..written]);
        step.map(|()| written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for Open {
    fn sync(&mut self) -> io::Result<()> {
        let mut inside = self.flash.0.lock().unwrap();
        inside.step()?;
        let file = &mut inside.files[self.file];
        file.synced.clone_from(&file.bytes);
        Ok(())
    }
}

impl Disk for Flash {
    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        self.0.lock().unwrap().step()
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut inside = self.0.lock().unwrap();
        inside.step()?;
        let file = inside.files.len();
        inside.files.push(File::default());
        inside.names.insert(path.to_owned(), file);
        Ok(Box::new(Open {
            flash: self.clone(),
            file,
        }))
    }
    fn append(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut inside = self.0.lock().unwrap();
        inside.step()?;
        let file = inside.find(path)?;
        Ok(Box::new(Open {
            flash: self.clone(),
            file,
        }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inside = self.0.lock().unwrap();
        inside.step()?;
        let file = inside.find(from)?;
        inside.names.remove(from);
        inside.names.insert(to.to_owned(), file);
        Ok(())
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut inside = self.0.lock().unwrap();
        inside.step()?;
        let within = |path: &PathBuf| path.parent() == Some(dir);
        let Inside { names, durable, .. } = &mut *inside;
        durable.retain(|path, _| !within(path));
        durable.extend(
            names
                .iter()
                .filter(|(path, _)| within(path))
                .map(|(p, f)| (p.clone(), *f)),
        );
        Ok(())
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inside = self.0.lock().unwrap();
        inside.step()?;
        inside.find(path)?;
        inside.names.remove(path);
        Ok(())
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut inside = self.0.lock().unwrap();
        inside.step()?;
        let within = inside
            .names
            .keys()
            .filter(|path| path.parent() == Some(dir));
        Ok(within
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect())
    }
    fn open(&self, path: &Path) -> io::Result<(u64, Box<dyn Read>)> {
        let mut inside = self.0.lock().unwrap();
        inside.step()?;
        let file = inside.find(path)?;
        let bytes = inside.files[file].bytes.clone();
        Ok((bytes.len() as u64, Box::new(io::Cursor::new(bytes))))
    }
}

fn model(number: u8) -> Vec<u8> {
    (0..5000u32)
        .map(|i| (i * 31 % 253) as u8 ^ number)
        .collect()
}

fn any_model(_: &[u8]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    Ok(())
}

fn store(flash: &Flash) -> Result<Store<Flash>, StoreError> {
    Store::open(flash.clone(), "store", MOST)
}

/// A store with versions 1 and 2, the second current.
fn two_versions() -> Flash {
    let flash = Flash::default();
    let mut store = store(&flash).unwrap();
    for number in [1, 2] {
        store.install(&model(number), &mut any_model).unwrap();
    }
    flash
}

type Work = fn(&mut Store<Flash>) -> Result<(), StoreError>;

/// What is done, and the versions that may be current afterwards if power fails meanwhile.
const WORKS: &[(&str, Work, [u8; 2])] = &[
    (
        "install",
        |store| store.install(&model(3), &mut any_model).map(drop),
        [2, 3],
    ),
    (
        "patch",
        |store| {
            let patch = Patch::make(&model(2), &model(3), &[Region::ends(5000, 5000)])?;
            store.install_patch(&patch, &mut any_model).map(drop)
        },
        [2, 3],
    ),
    ("roll back", |store| store.roll_back().map(drop), [2, 1]),
];

/// Power fails at every step, in several ways each: more than a thousand interrupted installations.
#[test]
fn power_may_fail_at_any_step() {
    let mut tries = 0;
    for (name, work, may_be) in WORKS {
        let steps = {
            let flash = two_versions();
            let mut store = store(&flash).unwrap();
            flash.failing(u64::MAX);
            work(&mut store).unwrap();
            assert_eq!(store.load().unwrap().bytes, model(may_be[1]), "{name}");
            flash.steps()
        };
        assert!(steps >= 8, "{name}: {steps}");
        for fails in 0..=steps {
            for seed in 0..40 {
                tries += 1;
                let flash = two_versions();
                let mut broken = store(&flash).unwrap();
                flash.failing(fails);
                let done = work(&mut broken);
                assert!(done.is_ok() || fails < steps, "{name} {fails}");
                let flash = flash.restarted(seed * 7919 + fails);
                let mut again = store(&flash).unwrap();
                let loaded = again.load().unwrap();
                assert!(loaded.instead_of.is_none(), "{name} {fails} {seed}");
                let what = format!("{name}, step {fails} of {steps}, seed {seed}");
                assert!(may_be.map(model).contains(&loaded.bytes), "{what}");
                if done.is_ok() {
                    assert_eq!(loaded.bytes, model(may_be[1]), "{what}");
                }
                // And it goes on as if nothing had been.
                again.install(&model(9), &mut any_model).unwrap();
                assert_eq!(again.load().unwrap().bytes, model(9), "{what}");
                let before = again.roll_back().unwrap();
                assert_eq!(before, loaded.version, "{what}");
                assert_eq!(flash.paths().len(), 4, "{what}: {:?}", flash.paths());
            }
        }
    }
    println!("{tries} interrupted works");
    assert!(tries > 1000);
}

/// A disk that is full for a while, or refuses one step, costs the installation and nothing else.
#[test]
fn a_step_that_is_refused_leaves_the_current_version() {
    for fails in 0.. {
        let flash = two_versions();
        let mut store = store(&flash).unwrap();
        flash.failing(fails);
        let done = store.install(&model(3), &mut any_model);
        flash.failing(u64::MAX);
        let expected = store.current().unwrap();
        assert_eq!(store.load().unwrap().version, expected, "{fails}");
        if done.is_ok() {
            assert_eq!(expected, Version::of(&model(3)));
            break;
        }
        let message = done.unwrap_err().to_string();
        assert!(
            message.contains("no power") && message.contains("store/"),
            "{message}"
        );
        store.install(&model(4), &mut any_model).unwrap();
        assert_eq!(store.load().unwrap().bytes, model(4));
    }
}

#[test]
fn a_download_goes_on_where_it_stopped() {
    let flash = two_versions();
    let new = model(3);
    let version = Version::of(&new);
    {
        let mut store = store(&flash).unwrap();
        let mut download = store.begin(version).unwrap();
        download.write(&new[..1234]).unwrap();
        let early = download.finish(&mut any_model).unwrap_err();
        assert!(
            matches!(early, StoreError::Incomplete { received: 1234, .. }),
            "{early}"
        );
    }
    let mut store = store(&flash).unwrap();
    let mut download = store.begin(version).unwrap();
    assert_eq!(download.received(), 1234);
    download.write(&new[1234..]).unwrap();
    assert!(matches!(
        download.write(&[0]),
        Err(StoreError::Trailing { .. })
    ));
    download.finish(&mut any_model).unwrap();
    assert_eq!(store.load().unwrap().bytes, new);
    assert_eq!(store.previous(), Some(Version::of(&model(2))));
}

#[test]
fn a_bad_download_is_refused_and_fetched_again() {
    let flash = two_versions();
    let mut store = store(&flash).unwrap();
    let new = model(3);
    let version = Version::of(&new);
    let mut wrong = new.clone();
    wrong[77] ^= 4;
    let mut download = store.begin(version).unwrap();
    download.write(&wrong).unwrap();
    let error = download.finish(&mut any_model).unwrap_err();
    assert!(matches!(&error, StoreError::Download { expected, .. } if *expected == version));
    assert_eq!(store.load().unwrap().bytes, model(2));
    // From its beginning: which byte was wrong nobody knows.
    let mut download = store.begin(version).unwrap();
    assert_eq!(download.received(), 0);
    download.write(&new).unwrap();
    // A caller who cannot use it refuses it before it is current.
    let refused = download.finish(&mut |bytes| Err(format!("{} bytes", bytes.len()).into()));
    let message = refused.unwrap_err().to_string();
    assert!(message.ends_with("is refused: 5000 bytes"), "{message}");
    assert_eq!(store.load().unwrap().bytes, model(2));
    let long = Version {
        bytes: MOST + 1,
        ..version
    };
    assert!(matches!(store.begin(long), Err(StoreError::TooLong { .. })));
}

#[test]
fn a_damaged_version_is_passed_over_and_named() {
    let flash = two_versions();
    let current = Version::of(&model(2)).digest.to_string();
    flash.change(&current, |bytes| bytes[9] ^= 1);
    let damaged = store(&flash).unwrap();
    let loaded = damaged.load().unwrap();
    assert_eq!(loaded.bytes, model(1));
    let why = loaded.instead_of.unwrap().to_string();
    assert!(
        why.contains(&current) && why.contains("fetch it again"),
        "{why}"
    );
    // A patch of the damaged version cannot be applied, and says why.
    let patch = Patch::make(&model(2), &model(3), &[]).unwrap();
    let mut damaged = damaged;
    let error = damaged.install_patch(&patch, &mut any_model).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    flash.change("versions/", |bytes| bytes.truncate(10));
    assert!(matches!(damaged.load(), Err(StoreError::Damaged { .. })));
    assert!(matches!(
        damaged.roll_back(),
        Err(StoreError::Damaged { .. })
    ));
}

#[test]
fn a_patch_of_a_version_that_is_gone_is_refused() {
    let flash = two_versions();
    let mut store = store(&flash).unwrap();
    let patch = Patch::make(&model(7), &model(8), &[]).unwrap();
    let message = store
        .install_patch(&patch, &mut any_model)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("not kept (the current one is"),
        "{message}"
    );
    // Of the one before the current, it is not.
    let patch = Patch::make(&model(1), &model(8), &[]).unwrap();
    store.install_patch(&patch, &mut any_model).unwrap();
    assert_eq!(store.load().unwrap().bytes, model(8));
}

#[test]
fn a_damaged_slot_leaves_the_other() {
    let flash = two_versions();
    // Version 2 was the second: slot 0. The other says that version 1 is current.
    flash.change("slot-0", |bytes| bytes[30] ^= 1);
    let store = store(&flash).unwrap();
    assert_eq!(store.load().unwrap().bytes, model(1));
    drop(store);
    flash.change("slot-", |bytes| bytes.truncate(40));
    let error = self::store(&flash).unwrap_err().to_string();
    assert!(
        error.contains("slot-1") && error.contains("install a version"),
        "{error}"
    );
}

#[test]
fn an_empty_store_says_so() {
    let flash = Flash::default();
    let mut store = store(&flash).unwrap();
    assert!(matches!(store.load(), Err(StoreError::Empty)));
    assert!(matches!(store.roll_back(), Err(StoreError::NothingBefore)));
    store.install(&model(1), &mut any_model).unwrap();
    assert!(matches!(store.roll_back(), Err(StoreError::NothingBefore)));
    // The same version again changes nothing.
    store.install(&model(1), &mut any_model).unwrap();
    assert_eq!((store.sequence(), store.previous()), (1, None));
}
