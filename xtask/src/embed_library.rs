//! The library for apps: built small, its size told, used from C.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::process::{cargo, output, root, run};

/// What `device_files` writes.
const PROGRAM: &str = "program.safetensors";
const PARAMETERS: &str = "parameters.safetensors";

/// Name, features, the C program that uses it, and the bytes that the program should have at most.
const FORMS: [(&str, &[&str], &str, u64); 2] = [
    ("minimal", &["--no-default-features"], "serve", 300_000),
    ("full", &[], "device", 1_500_000),
];

/// Builds both forms, tells how much they add to a program, and compares a C program's numbers with
/// Rust's.
pub(crate) fn check() -> Result<()> {
    let folder = root().join("target").join("embed-check");
    fs::create_dir_all(&folder)?;
    let expected = output(
        cargo()
            .args([
                "run",
                "--quiet",
                "--release",
                "-p",
                "fl-embed",
                "--example",
                "device_files",
            ])
            .arg(&folder),
    )?;
    for (name, features, program, aim) in FORMS {
        let library = build(&folder, name, features)?;
        let program = link(&folder, &library, program)?;
        let bytes = fs::metadata(&program)?.len();
        println!(
            "{name}: a stripped C program of {bytes} bytes, {:.2} of the {aim} that are aimed at",
            bytes as f64 / aim as f64
        );
        match name {
            "full" => compare(&folder, &program, &expected)?,
            _ => {
                let served = output(Command::new(&program).arg(folder.join(PROGRAM)))?;
                ensure!(served.lines().count() == 10, "ten outputs, not {served}");
            }
        }
    }
    Ok(())
}

fn build(folder: &Path, name: &str, features: &[&str]) -> Result<PathBuf> {
    let target = root().join("target").join(format!("embed-{name}"));
    // The kind of crate is said here: what is also a Rust library is not optimised as a whole.
    run(cargo()
        .args(["rustc", "--profile", "embed", "-p", "fl-embed", "--lib"])
        .args(["--crate-type", "staticlib"])
        .args(features)
        .arg("--target-dir")
        .arg(&target))?;
    let built = target.join("embed").join("libfledgling_edge.a");
    let library = folder.join(format!("libfledgling_{name}.a"));
    fs::copy(&built, &library).with_context(|| format!("copying {}", built.display()))?;
    Ok(library)
}

/// Compiles one of the C programs with the library, without what it does not use.
fn link(folder: &Path, library: &Path, name: &str) -> Result<PathBuf> {
    let program = folder.join(name);
    let embed = root().join("embed");
    run(Command::new("cc")
        .args([
            "-std=c11",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-O1",
            "-Wl,--gc-sections",
            "-I",
        ])
        .arg(embed.join("include"))
        .arg(embed.join("examples").join(format!("{name}.c")))
        .arg(library)
        .args(["-lm", "-lpthread", "-ldl", "-s", "-o"])
        .arg(&program))?;
    Ok(program)
}

/// Runs `device.c` and compares every number bit for bit.
fn compare(folder: &Path, program: &Path, expected: &str) -> Result<()> {
    let files = [PROGRAM, PARAMETERS].map(|name| folder.join(name));
    let printed = output(Command::new(program).args(&files))?;
    let (printed, expected): (Vec<&str>, Vec<&str>) =
        (printed.lines().collect(), expected.lines().collect());
    ensure!(
        printed.len() == expected.len() && expected.len() > 1000,
        "numbers are missing"
    );
    for (line, (c, rust)) in printed.iter().zip(&expected).enumerate() {
        // The loss alone has 64 bits; its text is the same number in 32 bits, too.
        let same = c.parse::<f64>()?.to_bits() == rust.parse::<f64>()?.to_bits()
            || c.parse::<f32>()?.to_bits() == rust.parse::<f32>()?.to_bits();
        if !same {
            bail!("line {}: C has {c} and Rust {rust}", line + 1);
        }
    }
    println!(
        "{} numbers from C, bit for bit those of Rust",
        printed.len()
    );
    let damaged = folder.join("damaged.safetensors");
    let mut bytes = fs::read(&files[0])?;
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&damaged, bytes)?;
    let refused = Command::new(program).args([&damaged, &files[1]]).output()?;
    let message = String::from_utf8_lossy(&refused.stderr);
    ensure!(
        refused.status.code() == Some(1) && message.contains("the model file"),
        "a damaged file gave {refused:?}"
    );
    Ok(())
}
