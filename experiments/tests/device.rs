//! `fledgling device` as a person uses it.

use std::error::Error;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn fledgling(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fledgling"))
        .current_dir(folder)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a command that must succeed prints.
fn prints(folder: &Path, args: &[&str]) -> String {
    let output = fledgling(folder, args);
    assert!(
        output.status.success(),
        "{args:?}: {}",
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// The lines of JSON of a command that must succeed.
fn lines(folder: &Path, args: &[&str]) -> Vec<Value> {
    prints(folder, args)
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect()
}

fn number(value: &Value, key: &str) -> f64 {
    value[key]
        .as_f64()
        .unwrap_or_else(|| panic!("{key} is no number in {value}"))
}

#[test]
fn devices_are_listed_and_shown_with_their_sources() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let at = folder.path();
    let listed = lines(at, &["device", "list", "--json"]);
    assert!(listed.len() >= 20, "{}", listed.len());
    let page = prints(at, &["device", "list"]);
    for device in &listed {
        let name = device["name"].as_str().ok_or("a name")?;
        assert!(page.contains(name), "{name}: {page}");
    }
    let shown = &lines(at, &["device", "show", "sbc-pi-4", "--json"])[0];
    let figures = shown["figures"].as_array().ok_or("figures")?;
    for figure in figures {
        let source = figure["source"].as_str().ok_or("a source")?;
        let key = source.split(':').next().unwrap_or_default().trim();
        assert_eq!(shown["sources"][key]["kind"], figure["kind"], "{figure}");
    }
    let page = prints(at, &["device", "show", "sbc-pi-4"]);
    for part in [
        "cpu.f32.winograd",
        "GMAC/s",
        "fitted",
        "Raspberry Pi 4",
        "ncnn",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    Ok(())
}

#[test]
fn costs_are_modelled_and_say_so() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let at = folder.path();
    let estimate = |more: &[&str]| {
        let args = ["device", "estimate", "mobilenet-v2", "--json"];
        lines(at, &[&args[..], more].concat())
    };
    let all = estimate(&[]);
    assert!(all.len() >= 20, "{}", all.len());
    assert!(all.iter().all(|line| line["modelled"] == true));
    let small = all.iter().find(|line| line["device"] == "mcu-m4");
    assert_eq!(small.ok_or("a microcontroller")?["fits"], false);
    let phone = ["--device", "mid-19", "--precision", "int8"];
    let npu = &estimate(&phone)[0];
    assert_eq!(
        (&npu["delegates"], &npu["borders"]),
        (&"npu".into(), &2.into())
    );
    let cpu = &estimate(&[&phone[..], &["--without", "npu"]].concat())[0];
    assert_eq!(cpu["delegates"], "cpu");
    assert!(number(cpu, "seconds") > 2.0 * number(npu, "seconds"));
    let one = &estimate(&[&phone[..], &["--without", "npu,gpu", "--one-thread"]].concat())[0];
    assert!(number(one, "seconds") > number(cpu, "seconds"));
    let args = [
        "--device",
        "flagship-19",
        "--batch",
        "8",
        "--train",
        "--operators",
    ];
    let step = &estimate(&args)[0];
    let operators = step["operators"].as_array().ok_or("operators")?;
    let sum: f64 = operators.iter().map(|op| number(op, "seconds")).sum();
    assert!((sum / number(step, "seconds") - 1.0).abs() < 1e-9);
    assert!(operators.iter().any(|op| op["phase"] == "backward-weight"));
    assert!(number(step, "sustained_seconds") >= number(step, "seconds"));
    let page = prints(
        at,
        &[
            "device",
            "estimate",
            "cnn-fedavg",
            "--device",
            "sbc-pi-4,mid-20",
        ],
    );
    for part in ["modelled, not measured", "sbc-pi-4", "mid-20", "12,273,152"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    Ok(())
}

#[test]
fn faults_are_named() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let at = folder.path();
    let show = prints(at, &["device", "show", "low-15", "--json"]);
    assert!(show.contains("cpu.bandwidth"));
    std::fs::write(at.join("cut.toml"), "name = \"x\"\ntitle = 3\n")?;
    let cases: [(&[&str], &str); 7] = [
        (
            &["device", "show", "flagship-91"],
            "did you mean `flagship-21`?",
        ),
        (
            &["device", "show", "cut.toml"],
            "cut.toml, line 2: invalid type",
        ),
        (
            &["device", "estimate", "resnet50", "--device", "mid-19"],
            "did you mean `resnet-50`?",
        ),
        (
            &["device", "estimate", "tiny-ic", "--precision", "f64"],
            "expected f32, f16, int8 or int4",
        ),
        (
            &["device", "estimate", "tiny-ic", "--without", "cpu"],
            "cannot be left out",
        ),
        (
            &["device", "estimate", "tiny-ic", "--batch", "0"],
            "1..=65536",
        ),
        (
            &["device", "bench", "--out", "host.txt"],
            "must end in .toml",
        ),
    ];
    for (args, expected) in cases {
        let output = fledgling(at, args);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {error}");
        assert!(error.contains(expected), "{args:?}: {error}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
    let missing = fledgling(at, &["device", "show", "none.toml"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("device bench -o"));
    Ok(())
}

#[test]
fn published_times_are_met() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let checks = lines(folder.path(), &["device", "validate", "--json"]);
    let mut errors: Vec<f64> = checks
        .iter()
        .filter(|check| check["fitted"] == false && check["training"] == false)
        .map(|check| number(check, "error").abs())
        .collect();
    errors.sort_by(f64::total_cmp);
    assert!(errors.len() > 150, "{}", errors.len());
    let median = errors[errors.len() / 2];
    assert!(median < 0.15, "{median}");
    let page = prints(folder.path(), &["device", "validate", "--markdown"]);
    let docs = include_str!("../../docs/devices.md");
    for line in page.lines() {
        assert!(
            docs.contains(line),
            "docs/devices.md lacks `{line}`; paste what `fledgling device validate --markdown` prints"
        );
    }
    Ok(())
}

#[test]
fn this_machine_is_measured_into_a_profile() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let at = folder.path();
    let bench = lines(at, &["device", "bench", "-o", "host.toml", "--json"]);
    assert_eq!(bench.len(), 56);
    assert!(
        bench
            .iter()
            .all(|line| number(line, "measured_seconds") > 0.0)
    );
    assert_eq!(
        bench.iter().filter(|line| line["fitted"] == false).count(),
        8
    );
    let args = [
        "device",
        "estimate",
        "mobilenet-v2",
        "--device",
        "host.toml",
        "--json",
    ];
    let modelled = number(&lines(at, &args)[0], "seconds");
    let line = bench
        .iter()
        .find(|line| line["network"] == "mobilenet-v2" && line["precision"] == "f32");
    let expected = number(line.ok_or("mobilenet-v2")?, "modelled_seconds");
    assert!(
        (modelled / expected - 1.0).abs() < 1e-9,
        "{modelled} {expected}"
    );
    Ok(())
}
