//! Experiments whose devices follow recordings: FedScale's and FLASH's files named by a key.

use std::path::Path;
use std::process::{Command, Output, Stdio};

const EXPERIMENT: &str = r#"
name = "recorded"
rounds = 4
[dataset]
name = "digits"
partition = { kind = "iid", clients = 60 }
[model]
kind = "logreg"
[local]
epochs = 1
batch = 10
learning_rate = 0.1
[selection]
cohort = 5
[fleet]
devices = "phones-2025"
[[variant]]
name = "fedscale"
fleet.availability = { kind = "fedscale", path = "behaviour-4.pkl" }
fleet.capacities = { kind = "fedscale", path = "capacity-4.pkl" }
[[variant]]
name = "flash"
fleet.availability = { kind = "flash", path = "flash.json" }
"#;

fn fledgling(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fledgling"));
    command.current_dir(folder).args(args).stdin(Stdio::null());
    command.output().expect("the program starts")
}

fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A folder `sub` with the experiment and the recordings.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a file is written");
    let sub = folder.path().join("sub");
    std::fs::create_dir(&sub).expect("a file is written");
    std::fs::write(sub.join("recorded.toml"), EXPERIMENT).expect("a file is written");
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sim/tests/fixtures/fleet");
    for name in ["behaviour-4.pkl", "capacity-4.pkl", "flash.json"] {
        std::fs::copy(fixtures.join(name), sub.join(name)).expect("a file is written");
    }
    folder
}

#[test]
fn recordings_decide_a_run_and_are_part_of_what_it_is() {
    let folder = folder();
    let at = folder.path();
    let run = ["run", "sub/recorded.toml", "--out", "out", "--no-plots"];
    let ran = fledgling(at, &run);
    assert!(ran.status.success(), "{}", error(&ran));
    let manifest = std::fs::read_to_string(at.join("out/manifest.toml")).unwrap();
    // As `sha256sum` says of the fixtures.
    for digest in [
        "b9295708749bad82a4ec028b51317b1ee4436cbacc4d667a2dacff04b16c877a",
        "c9f96e7da7a6f4ea0eeb46f623da4fc781f370d99a20b2b054023fdc53b8553f",
        "aaefc0f7977a35e1785471c14820ad29e6ddba7df360bb8fabe637f05ad90055",
    ] {
        assert!(manifest.contains(digest), "{digest}");
    }
    let results = fledgling::results::Results::load(&at.join("out")).unwrap();
    let begun = |name: &str| {
        let rows = &results.variant(name).unwrap().fleet;
        let counts = rows.iter().map(|row| row.ended_seconds.to_bits());
        counts.collect::<Vec<_>>()
    };
    // Who can come, and how fast, follows from the files.
    assert_ne!(begun("fedscale"), begun("flash"));

    let again = fledgling(at, &["verify", "out"]);
    assert!(again.status.success(), "{}", error(&again));

    // The same recordings in other bytes are another file.
    let file = at.join("sub/flash.json");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}\n")).unwrap();
    let refused = fledgling(at, &["verify", "out"]);
    assert_eq!(refused.status.code(), Some(2));
    let told = error(&refused);
    assert!(
        told.contains("`fleet.availability`: sub/flash.json: its SHA-256 is ")
            && told.contains(
                "expected aaefc0f7977a35e1785471c14820ad29e6ddba7df360bb8fabe637f05ad90055"
            ),
        "{told}"
    );
    // To the experiment it is another run: nothing is taken over from the one before.
    let resumed = [&run[..], &["--resume", "--variant", "flash"]].concat();
    let resumed = fledgling(at, &resumed);
    assert!(resumed.status.success(), "{}", error(&resumed));
    let manifest = std::fs::read_to_string(at.join("out/manifest.toml")).unwrap();
    assert!(!manifest.contains("aaefc0f7977a35e1785471c14820ad29e6ddba7df360bb8fabe637f05ad90055"));
}

#[test]
fn what_cannot_be_is_named() {
    let folder = folder();
    let cases = [
        (
            "fleet.start_hour=3",
            "`fleet.start_hour`: recordings keep their own times of day; remove it",
        ),
        (
            "fleet.availability={kind=\"flasch\",path=\"x\"}",
            "`fleet.availability.kind`: \"flasch\" is not known; did you mean `flash`?",
        ),
        (
            "fleet.availability={kind=\"flash\",path=\"nowhere\"}",
            "`fleet.availability`: sub/nowhere: No such file",
        ),
        (
            "fleet.availability={kind=\"flash\",path=\"capacity-4.pkl\"}",
            "`fleet.availability`: sub/capacity-4.pkl: ",
        ),
        (
            "fleet.capacities={kind=\"flash\",path=\"flash.json\"}",
            "`fleet.capacities.kind`: found \"flash\", whose files hold no capacities",
        ),
        (
            "fleet.capacities={kind=\"fedscale\",path=\"capacity-4.pkl\",sha256=\"12\"}",
            "`fleet.capacities.sha256`: found \"12\", expected 64 digits",
        ),
    ];
    for (set, expected) in cases {
        let check = [
            "check",
            "sub/recorded.toml",
            "--variant",
            "flash",
            "--set",
            set,
        ];
        let output = fledgling(folder.path(), &check);
        assert_eq!(output.status.code(), Some(2), "{set}");
        let told = error(&output);
        assert!(told.contains(expected), "{set}: {told}");
    }
    // Without devices there is nothing to be recorded.
    let text = EXPERIMENT.replace("devices = \"phones-2025\"", "");
    std::fs::write(folder.path().join("sub/recorded.toml"), text).unwrap();
    let told = error(&fledgling(folder.path(), &["check", "sub/recorded.toml"]));
    assert!(
        told.contains("`fleet.capacities`: is about devices, and there are none"),
        "{told}"
    );
}
