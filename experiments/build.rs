//! Keeps what a result's provenance needs of the build: the lock file with the versions of all
//! packages, and the compiler's version.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo names a folder for the output"));
    let manifest = env::var_os("CARGO_MANIFEST_DIR").expect("cargo names the package's folder");
    // The workspace's lock file, or the package's own where it is built alone.
    let lock = Path::new(&manifest)
        .ancestors()
        .map(|folder| folder.join("Cargo.lock"))
        .find(|path| path.is_file());
    let bytes = match &lock {
        Some(lock) => {
            println!("cargo::rerun-if-changed={}", lock.display());
            fs::read(lock).expect("the lock file is readable")
        }
        None => Vec::new(),
    };
    fs::write(out.join("Cargo.lock"), bytes).expect("the folder for the output is writable");
    let compiler = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(compiler).arg("--version").output();
    let version = version.map_or_else(
        |_| "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    );
    println!("cargo::rustc-env=FLEDGLING_COMPILER={version}");
    println!("cargo::rerun-if-changed=build.rs");
}
