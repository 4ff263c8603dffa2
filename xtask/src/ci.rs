//! What continuous integration checks beside the tests.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Result;

use crate::process::{cargo, root, run};
use crate::{browser, embed_library, end_to_end, graph, notebooks, onnx, published};

type Check = fn() -> Result<()>;

/// Every check, cheapest first, with the time each took.
pub(crate) fn all() -> Result<()> {
    let checks: [(&str, Check); 12] = [
        ("format", format),
        ("dependency graph", graph::check),
        ("end to end", end_to_end::run),
        ("published results", || {
            published::verify(&published::Options::default())
        }),
        ("notebooks", notebooks::execute),
        ("ONNX node tests", onnx::nodes),
        ("ONNX round trip", || {
            onnx::round_trip(&onnx::RoundTrip::default())
        }),
        ("library for apps", embed_library::check),
        ("report in a browser", browser::check),
        ("lints", lints),
        ("documentation", documentation),
        ("licences", licences),
    ];
    let mut times = Vec::new();
    for (name, check) in checks {
        println!("== {name}");
        let took = timed(check)?;
        println!("== {name}: {:.0} s", took.as_secs_f64());
        times.push((name, took));
    }
    println!("== all checks passed");
    for (name, took) in times {
        println!("{:>6.0} s  {name}", took.as_secs_f64());
    }
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the time is printed for people and decides nothing"
)]
fn timed(check: Check) -> Result<Duration> {
    let start = std::time::Instant::now();
    check()?;
    Ok(start.elapsed())
}

fn format() -> Result<()> {
    run(cargo().args(["fmt", "--all", "--check"]))
}

fn lints() -> Result<()> {
    run(cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--release",
        "--",
        "-D",
        "warnings",
    ]))
}

fn documentation() -> Result<()> {
    run(cargo()
        .args(["doc", "--workspace", "--no-deps", "--release"])
        .env("RUSTDOCFLAGS", "-D warnings"))
}

/// Licences, sources and wildcard versions. Advisories need a network and are not checked here.
pub(crate) fn licences() -> Result<()> {
    let installed = Command::new("cargo-deny")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    // Its own target folder would otherwise be built inside ours.
    let home = root().join("target").join("tools");
    let local = home.join("bin").join("cargo-deny");
    if !installed && !local.exists() {
        // A debug build: it runs for a second and its build is what costs.
        run(cargo()
            .args(["install", "--locked", "--debug", "cargo-deny", "--root"])
            .arg(&home))?;
    }
    let mut deny = if installed {
        Command::new("cargo-deny")
    } else {
        Command::new(local)
    };
    run(deny
        .current_dir(root())
        .args(["check", "licenses", "bans", "sources"]))
}
