//! The library for apps: built small, its size told, used from C.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::process::{self, cargo, output, root, run};

/// What `device_files` writes.
const PROGRAM: &str = "program.safetensors";
const PARAMETERS: &str = "parameters.safetensors";

/// A form of the library.
struct Form {
    name: &'static str,
    features: &'static [&'static str],
    /// The C program that uses all of it.
    program: &'static str,
    /// Bytes that it may add to that program.
    most: u64,
}

/// Packages that the minimal form must do without: what reads and writes descriptions.
const LEFT_OUT: [&str; 3] = ["serde", "serde_core", "serde_json"];

/// The limits are a little above what is seen, so that growth is noticed.
const FORMS: [Form; 3] = [
    Form {
        name: "int8",
        features: &["--no-default-features", "--features", "int8"],
        program: "serve",
        most: 145_000,
    },
    Form {
        name: "minimal",
        features: &["--no-default-features", "--features", "minimal"],
        program: "serve",
        most: 285_000,
    },
    Form {
        name: "full",
        features: &["--no-default-features", "--features", "train"],
        program: "device",
        most: 950_000,
    },
];

/// Sections of a program that a device keeps, in flash memory or in RAM; the rest of its file is
/// for linkers and debuggers.
const KEPT: [&str; 9] = [
    ".rela.dyn",
    ".rela.plt",
    ".text",
    ".rodata",
    ".eh_frame",
    ".eh_frame_hdr",
    ".gcc_except_table",
    ".data.rel.ro",
    ".data",
];

/// Builds every form, holds what they add to a program to its limit, and compares a C program's
/// numbers with Rust's.
pub(crate) fn check() -> Result<()> {
    let folder = root().join("target").join("embed-check");
    fs::create_dir_all(&folder)?;
    let examples = process::build()?.join("examples");
    let expected = output(Command::new(examples.join("device_files")).arg(&folder))?;
    let nothing = folder.join("nothing.c");
    fs::write(&nothing, "int main(void) { return 0; }\n")?;
    let empty = kept(&link(&folder, &nothing, None)?)?;
    for form in FORMS {
        let name = form.name;
        let library = build(&folder, &form)?;
        let source = root().join("embed").join("examples");
        let source = source.join(form.program).with_extension("c");
        let program = link(&folder, &source, Some(&library))?;
        let bytes = kept(&program)?.saturating_sub(empty);
        println!(
            "{name}: {bytes} bytes in a stripped C program, of {}",
            form.most
        );
        ensure!(
            bytes <= form.most,
            "the {name} library adds {bytes} bytes to a program where {} are allowed; see \
             embed/README.md for where they go",
            form.most
        );
        match name {
            "full" => compare(&folder, &program, &expected)?,
            "minimal" => {
                check_packages(&form)?;
                check_served(&folder, &program, &expected)?;
            }
            _ => check_refused(&program, &folder.join(PROGRAM), "was built without")?,
        }
    }
    Ok(())
}

/// That a form depends on none of what it must do without.
fn check_packages(form: &Form) -> Result<()> {
    let tree = output(
        cargo()
            .args(["tree", "--package", "fl-embed", "--edges", "normal"])
            .args(["--prefix", "none", "--no-dedupe"])
            .args(form.features),
    )?;
    let name = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    let names: Vec<String> = tree.lines().map(name).collect();
    ensure!(
        names.iter().any(|name| name == "fl-edge"),
        "no tree: {tree}"
    );
    for package in LEFT_OUT {
        ensure!(
            !names.iter().any(|name| name == package),
            "the {} form depends on {package}",
            form.name
        );
    }
    Ok(())
}

/// Runs `serve.c`: its outputs are the first of those that Rust gives for the same examples; it
/// refuses files without compiled steps, and damaged ones.
fn check_served(folder: &Path, program: &Path, expected: &str) -> Result<()> {
    let file = folder.join(PROGRAM);
    let served = output(Command::new(program).arg(&file))?;
    let numbers = |text: &str| -> Result<Vec<u32>> {
        let each = text.lines().take(10);
        each.map(|line| Ok(line.parse::<f32>()?.to_bits()))
            .collect()
    };
    let found = numbers(&served)?;
    ensure!(
        found.len() == 10 && found == numbers(expected)?,
        "compiled steps gave {served}"
    );
    check_refused(program, &folder.join(PARAMETERS), "holds no compiled steps")?;
    check_refused(program, &damaged(folder)?, "data are damaged")
}

/// That a C program refuses a file with a reason.
fn check_refused(program: &Path, file: &Path, reason: &str) -> Result<()> {
    let refused = Command::new(program).arg(file).output()?;
    let message = String::from_utf8_lossy(&refused.stderr);
    ensure!(
        refused.status.code() == Some(1)
            && message.contains("the model file")
            && message.contains(reason),
        "{} gave {refused:?}",
        file.display()
    );
    Ok(())
}

/// The processor that the library is built for: on x86-64 one with AVX2 and FMA, because the fused
/// multiply-add that every kernel is defined by is a slow function without.
fn processor() -> &'static str {
    match cfg!(target_arch = "x86_64") {
        true => "-C target-cpu=x86-64-v3",
        false => "",
    }
}

/// The checksum as a loop, not as the 64 rounds of it written out: 9 kB less.
const COMPACT: &str = "--cfg sha2_backend_soft=\"compact\"";

fn build(folder: &Path, form: &Form) -> Result<PathBuf> {
    let target = root().join("target").join("embed");
    // The kind of crate is said here: what is also a Rust library is not optimised as a whole.
    run(cargo()
        .args(["rustc", "--profile", "embed", "-p", "fl-embed", "--lib"])
        .args(["--crate-type", "staticlib"])
        .args(form.features)
        .arg("--target-dir")
        .arg(&target)
        .env("RUSTFLAGS", format!("{} {COMPACT}", processor())))?;
    let built = target.join("embed").join("libfledgling_edge.a");
    let library = folder.join(format!("libfledgling_{}.a", form.name));
    // Nothing unwinds, so nobody reads how.
    run(Command::new("objcopy")
        .args([
            "--remove-section=.eh_frame",
            "--remove-section=.rela.eh_frame",
        ])
        .arg(&built)
        .arg(&library))?;
    Ok(library)
}

/// Bytes of the sections that stay on a device.
fn kept(program: &Path) -> Result<u64> {
    let sections = output(Command::new("size").arg("-A").arg(program))?;
    let size = |line: &str| -> Option<u64> {
        let mut words = line.split_whitespace();
        let name = words.next()?;
        KEPT.contains(&name).then(|| words.next()?.parse().ok())?
    };
    Ok(sections.lines().filter_map(size).sum())
}

/// Compiles a C program with the library, without what it does not use.
fn link(folder: &Path, source: &Path, library: Option<&Path>) -> Result<PathBuf> {
    let name = source.file_stem().context("a source has a name")?;
    let program = folder.join(name);
    run(Command::new("cc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1"])
        .args(["-Wl,--gc-sections", "-I"])
        .arg(root().join("embed").join("include"))
        .arg(source)
        .args(library)
        .args(["-lm", "-s", "-o"])
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
    let refused = Command::new(program)
        .args([&damaged(folder)?, &files[1]])
        .output()?;
    ensure!(
        refused.status.code() == Some(1)
            && String::from_utf8_lossy(&refused.stderr).contains("the model file"),
        "a damaged file gave {refused:?}"
    );
    Ok(())
}

/// The program's file with its last bit changed.
fn damaged(folder: &Path) -> Result<PathBuf> {
    let mut bytes = fs::read(folder.join(PROGRAM))?;
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let damaged = folder.join("damaged.safetensors");
    fs::write(&damaged, bytes)?;
    Ok(damaged)
}
