//! `fledgling versions` as a person uses it.

use std::error::Error;
use std::fs;
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

/// What a command that must succeed prints as JSON.
fn value(folder: &Path, args: &[&str]) -> Value {
    let output = fledgling(folder, &[args, &["--json"]].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {errors}");
    serde_json::from_slice(&output.stdout).expect("a line of JSON")
}

/// Why a command stops that must.
fn refusal(folder: &Path, args: &[&str]) -> String {
    let output = fledgling(folder, args);
    assert_eq!(output.status.code(), Some(1), "{args:?}");
    assert!(output.stdout.is_empty(), "{args:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Three models of an experiment: after 2, 3 and 4 rounds, in integers.
fn models(folder: &Path) -> Result<(), Box<dyn Error>> {
    let experiment = r#"
name = "small"
[dataset]
name = "digits"
partition = { kind = "iid", clients = 20 }
[model]
kind = "mlp"
hidden = [64]
[local]
epochs = 1
batch = 10
learning_rate = 0.05
precision = "qat-int8"
[selection]
cohort = 10
"#;
    fs::write(folder.join("small.toml"), experiment)?;
    for rounds in ["2", "3", "4"] {
        let (set, out) = (format!("rounds={rounds}"), format!("run-{rounds}"));
        value(folder, &["run", "small.toml", "--set", &set, "--out", &out]);
        let model = fs::read_dir(folder.join(&out))?
            .filter_map(Result::ok)
            .map(|entry| entry.path().join("model.safetensors"))
            .find(|path| path.is_file())
            .or_else(|| {
                let path = folder.join(&out).join("model.safetensors");
                path.is_file().then_some(path)
            })
            .ok_or("a model")?;
        let model = model.to_str().ok_or("a path")?;
        let to = format!("{rounds}.safetensors");
        value(
            folder,
            &["model", "convert", model, "--to", "int8", "-o", &to],
        );
    }
    Ok(())
}

#[test]
fn a_device_follows_the_global_model_by_patches() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let at = folder.path();
    models(at)?;
    let patch = |old, new, out| value(at, &["versions", "patch", old, new, "-o", out]);
    let made = patch("2.safetensors", "3.safetensors", "23.patch");
    let share = made["share"].as_f64().ok_or("a share")?;
    let full = fs::metadata(at.join("3.safetensors"))?.len();
    assert_eq!(made["new"]["bytes"], full);
    assert_eq!(
        made["patch_bytes"],
        fs::metadata(at.join("23.patch"))?.len()
    );
    assert!(share > 0.01 && share < 1.0, "{share}");
    patch("3.safetensors", "4.safetensors", "34.patch");

    // By hand.
    let applied = value(
        at,
        &[
            "versions",
            "apply",
            "2.safetensors",
            "23.patch",
            "-o",
            "3.out",
        ],
    );
    assert_eq!(applied["sha256"], made["new"]["sha256"]);
    assert_eq!(
        fs::read(at.join("3.out"))?,
        fs::read(at.join("3.safetensors"))?
    );
    let wrong = refusal(
        at,
        &["versions", "apply", "3.out", "23.patch", "-o", "4.out"],
    );
    assert!(wrong.contains("23.patch: it leads from version"), "{wrong}");
    assert!(!at.join("4.out").exists());

    // And on a device.
    let installed = value(at, &["versions", "install", "device", "2.safetensors"]);
    assert_eq!(installed["previous"], Value::Null);
    let early = refusal(at, &["versions", "install", "device", "34.patch"]);
    assert!(early.contains("which is not kept"), "{early}");
    value(at, &["versions", "install", "device", "23.patch"]);
    let installed = value(at, &["versions", "install", "device", "34.patch"]);
    assert_eq!(installed["previous"]["sha256"], made["new"]["sha256"]);
    assert_eq!(
        installed["fetched_bytes"],
        fs::metadata(at.join("34.patch"))?.len()
    );
    let listed = fledgling(at, &["versions", "list", "device"]);
    let page = String::from_utf8(listed.stdout)?;
    for part in ["current", "previous", "whole", "kB"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let back = value(at, &["versions", "roll-back", "device"]);
    assert_eq!(back["current"]["sha256"], made["new"]["sha256"]);
    // What is kept can be served where it lies.
    let first = fledgling(at, &["versions", "list", "device", "--json"]);
    let line: Value =
        serde_json::from_slice(first.stdout.split(|&b| b == b'\n').next().ok_or("a line")?)?;
    let path = line["path"].as_str().ok_or("a path")?;
    assert_eq!(line["fault"], Value::Null);
    value(at, &["model", "inspect", path]);
    Ok(())
}

#[test]
fn what_is_no_model_is_not_installed() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let at = folder.path();
    fs::write(at.join("text"), "not a model at all")?;
    let refused = refusal(at, &["versions", "install", "device", "text"]);
    assert!(refused.contains("is refused"), "{refused}");
    fs::write(at.join("cut"), b"FLPATCH\0")?;
    let refused = refusal(at, &["versions", "install", "device", "cut"]);
    assert!(refused.contains("it was cut on its way"), "{refused}");
    let none = refusal(at, &["versions", "list", "nowhere"]);
    assert!(
        none.contains("`fledgling versions install` makes one"),
        "{none}"
    );
    assert!(!at.join("nowhere").exists());
    let empty = refusal(at, &["versions", "roll-back", "device"]);
    assert!(empty.contains("no version was installed before"), "{empty}");
    // Files that are no models can be patched, too.
    fs::write(at.join("other"), "not a model at all, either")?;
    value(at, &["versions", "patch", "text", "other", "-o", "patch"]);
    value(at, &["versions", "apply", "text", "patch", "-o", "out"]);
    assert_eq!(fs::read(at.join("out"))?, fs::read(at.join("other"))?);
    Ok(())
}
