//! The page of `fledgling report`, clicked through in headless Chromium.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::process::{self, output, root, run};
use crate::python;

/// The test and what it needs, in the repository.
const FOLDER: &str = "experiments/tests/browser";

/// Seeds with which the runs of the test are made; with ten variants each they are fifty.
const SEEDS: [u64; 5] = [1, 2, 3, 4, 5];

/// Most bytes of the report of fifty runs.
const MOST_BYTES: u64 = 5_000_000;

/// Makes fifty small runs, writes their report and tests it in Chromium; screenshots are in
/// `target/browser`. Chromium is installed where that is possible. Where it or Node is not to be had, a
/// message says so and nothing is tested.
pub(crate) fn check() -> Result<()> {
    let Some(chromium) = chromium()? else {
        println!(
            "skipped: there is no Chromium, and no way to install it; set CHROMIUM to a browser"
        );
        return Ok(());
    };
    if !works("node") || !works("npm") {
        println!("skipped: there is no Node with npm");
        return Ok(());
    }
    let tools = tools()?;
    let program = process::build()?.join(format!("fledgling{}", std::env::consts::EXE_SUFFIX));
    let runs = tempfile::tempdir()?;
    let report = write_report(&program, runs.path())?;
    let pictures = python::target().join("browser");
    run(Command::new("node")
        .current_dir(&tools)
        .env("CHROMIUM", chromium)
        .arg("report.mjs")
        .arg(&report)
        .arg(&pictures))?;
    println!("screenshots in {}", pictures.display());
    Ok(())
}

/// Runs `runs.toml` with every seed and writes the report of all, twice: it must be the same.
fn write_report(program: &Path, at: &Path) -> Result<PathBuf> {
    let mut folders = Vec::new();
    for seed in SEEDS {
        // Relative, so that the report does not depend on where it is made.
        let folder = format!("seed-{seed}");
        let mut command = Command::new(program);
        command.current_dir(at).arg("run");
        command.arg(root().join(FOLDER).join("runs.toml"));
        command.args(["--set", &format!("seed={seed}"), "--out", &folder]);
        output(command.args(["--no-plots", "--json"]))?;
        folders.push(folder);
    }
    for name in ["report.html", "again.html"] {
        let mut command = Command::new(program);
        command.current_dir(at).arg("report").args(&folders);
        run(command.args(["--out", name]))?;
    }
    let page = fs::read(at.join("report.html"))?;
    ensure!(
        page == fs::read(at.join("again.html"))?,
        "the same results gave two different reports"
    );
    ensure!(
        page.len() as u64 <= MOST_BYTES,
        "the report has {} bytes, and {MOST_BYTES} are the most",
        page.len()
    );
    Ok(at.join("report.html"))
}

/// The browser; none where there is none and it cannot be installed.
fn chromium() -> Result<Option<PathBuf>> {
    if let Some(given) = std::env::var_os("CHROMIUM") {
        return Ok(Some(given.into()));
    }
    let debian = PathBuf::from("/usr/bin/chromium");
    if debian.exists() {
        return Ok(Some(debian));
    }
    let root = output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    if !root || !works("apt-get") {
        return Ok(None);
    }
    run(Command::new("apt-get").args(["update", "--quiet"]))?;
    run(Command::new("apt-get")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args([
            "install",
            "--yes",
            "--quiet",
            "--no-install-recommends",
            "chromium",
            "fonts-dejavu-core",
        ]))?;
    Ok(debian.exists().then_some(debian))
}

fn works(program: &str) -> bool {
    let mut command = Command::new(program);
    command
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// A folder with the test and the packages that it needs, made on first use and whenever the list of
/// packages changes.
fn tools() -> Result<PathBuf> {
    let (from, home) = (root().join(FOLDER), python::target().join("tools/browser"));
    fs::create_dir_all(&home)?;
    let wanted = fs::read(from.join("package-lock.json"))?;
    // Written when everything is installed, so that a broken installation is made again.
    let done = home.join("installed.json");
    for name in ["package.json", "package-lock.json", ".npmrc", "report.mjs"] {
        let (from, to) = (from.join(name), home.join(name));
        fs::copy(&from, to).with_context(|| format!("copying {}", from.display()))?;
    }
    if !fs::read(&done).is_ok_and(|installed| installed == wanted) {
        run(Command::new("npm").current_dir(&home).arg("ci"))?;
        fs::write(&done, wanted)?;
    }
    Ok(home)
}
