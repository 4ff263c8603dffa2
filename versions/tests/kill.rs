//! `kill -9` at every step of an installation, on a real file system: a child process installs one
//! version after another and is killed, and whatever it has left can be loaded.
#![cfg(unix)]

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fl_versions::{Disk, DiskFile, LocalDisk, Store};

const FOLDER: &str = "FL_VERSIONS_KILL_FOLDER";
const STEPS: &str = "FL_VERSIONS_KILL_STEPS";
const NUMBER: &str = "FL_VERSIONS_KILL_NUMBER";
const LENGTH: usize = 20_000;

/// The local disk, until it is time to die.
#[derive(Clone)]
struct Mortal {
    left: Arc<AtomicU64>,
}

impl Mortal {
    /// Dies when all steps are done, as if somebody had said `kill -9`.
    fn step(&self) {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 0 {
            let killed = Command::new("kill")
                .args(["-9", &std::process::id().to_string()])
                .status();
            panic!("still alive: {killed:?}");
        }
    }
}

struct MortalFile {
    disk: Mortal,
    file: Box<dyn DiskFile>,
}

impl Write for MortalFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // In pieces, and death comes between two or within one.
        let piece = &bytes[..bytes.len().min(LENGTH / 6)];
        let (first, second) = piece.split_at(piece.len() / 2);
        self.disk.step();
        self.file.write_all(first)?;
        self.disk.step();
        self.file.write_all(second)?;
        Ok(piece.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl DiskFile for MortalFile {
    /// What a process has written outlives it, so that it need not wait for the disk.
    fn sync(&mut self) -> io::Result<()> {
        self.disk.step();
        Ok(())
    }
}

impl Disk for Mortal {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.step();
        LocalDisk.create_dir_all(dir)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.step();
        let file = LocalDisk.create(path)?;
        let disk = self.clone();
        Ok(Box::new(MortalFile { disk, file }))
    }
    fn append(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.step();
        let file = LocalDisk.append(path)?;
        let disk = self.clone();
        Ok(Box::new(MortalFile { disk, file }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step();
        LocalDisk.rename(from, to)
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        self.step();
        Ok(())
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step();
        LocalDisk.remove(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        LocalDisk.list(dir)
    }
    fn open(&self, path: &Path) -> io::Result<(u64, Box<dyn Read>)> {
        LocalDisk.open(path)
    }
}

fn model(number: u64) -> Vec<u8> {
    (0..LENGTH as u64)
        .map(|i| (i * 31 % 253 + number * 7) as u8)
        .collect()
}

/// What the child does; only a test when it is one.
#[test]
fn child() {
    let Ok(folder) = std::env::var(FOLDER) else {
        return;
    };
    let number = |name| std::env::var(name).unwrap().parse::<u64>().unwrap();
    let disk = Mortal {
        left: Arc::new(AtomicU64::new(number(STEPS))),
    };
    let mut store = Store::open(disk, folder, 1 << 20).unwrap();
    store
        .install(&model(number(NUMBER)), &mut |_| Ok(()))
        .unwrap();
}

#[test]
fn a_thousand_deaths() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let mut current = 0;
    let mut store = Store::open(LocalDisk, &path, 1 << 20).unwrap();
    store.install(&model(current), &mut |_| Ok(())).unwrap();
    let (mut deaths, mut next) = (0, 1);
    let mut completed = 0;
    while deaths < 1000 {
        for steps in 0.. {
            let child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "child", "--nocapture"])
                .env(FOLDER, &path)
                .env(STEPS, steps.to_string())
                .env(NUMBER, next.to_string())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .unwrap();
            let store = Store::open(LocalDisk, &path, 1 << 20).unwrap();
            let loaded = store.load().unwrap();
            assert!(loaded.instead_of.is_none());
            if loaded.bytes == model(next) {
                (current, next) = (next, next + 1);
            } else {
                assert_eq!(loaded.bytes, model(current), "{steps}");
            }
            if child.success() {
                assert_eq!(current + 1, next);
                completed += 1;
                break;
            }
            use std::os::unix::process::ExitStatusExt as _;
            assert_eq!(child.signal(), Some(9), "{child:?}");
            deaths += 1;
        }
    }
    println!("{deaths} deaths, {completed} whole installations, {next} versions");
    assert!(completed >= 10);
}
