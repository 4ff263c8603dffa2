//! The promise of `--resume`, through the program: killed at any moment and resumed, on any number
//! of threads, an experiment leaves the same bytes as one that was never interrupted.

use std::fs;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::{World, assert_same, deterministic, files};
use fledgling::results::ResultsFolder;

#[expect(
    clippy::disallowed_methods,
    reason = "only to spread the kills over the time of a run"
)]
fn now() -> Instant {
    Instant::now()
}

#[test]
fn killed_at_any_moment_and_resumed_it_leaves_the_same_bytes() {
    let world = World::new(200);
    world.succeed("run small.toml --out whole --threads 1");
    let expected = deterministic(&world.path("whole"));
    assert!(expected.contains_key("plots/accuracy.png"));
    assert!(expected.contains_key("fedprox/model.safetensors"));
    assert!(!expected.keys().any(|name| name.starts_with("checkpoint/")));

    let run = "small.toml --threads 2 --resume --checkpoint-every 3";
    let start = now();
    world.succeed(&format!("run {run} --out timed --no-plots"));
    let whole = start.elapsed();

    // The delays come from a fixed seed; where in the run they fall is up to the machine.
    let mut state = 0x1234_5678_9abc_def0u64;
    let mut delay = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let share = (state >> 40) as f64 / f64::from(1u32 << 24);
        // Short ones hit the start and the first rounds; long ones the end and the writing of
        // the results.
        whole.mul_f64(0.02 + 0.6 * share)
    };
    let mut kills = 0;
    for attempt in 0.. {
        let out = format!("--out killed-{attempt}");
        for _ in 0..15 {
            let mut child = world
                .command(&format!("run {run} {out} --no-plots --json"))
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            sleep(delay());
            child.kill().unwrap();
            let status = child.wait().unwrap();
            if status.success() {
                break;
            }
            assert_eq!(status.code(), None, "it did not end by the kill");
            kills += 1;
        }
        world.succeed(&format!("run {run} {out}"));
        let found = deterministic(&world.path(&format!("killed-{attempt}")));
        assert_same(&expected, &found);
        if kills >= 12 {
            break;
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_byte() {
    let world = World::new(15);
    for threads in [1, 2, 3] {
        world.succeed(&format!(
            "run small.toml --out {threads} --threads {threads}"
        ));
    }
    let one = deterministic(&world.path("1"));
    assert_same(&one, &deterministic(&world.path("2")));
    assert_same(&one, &deterministic(&world.path("3")));
    let text = world.succeed("compare 1 3 --json");
    assert!(text.contains("\"same_model\":true"), "{text}");
    assert!(text.contains("\"first_difference\":null"), "{text}");
}

#[test]
fn a_second_run_into_the_same_folder_is_refused() {
    let world = World::new(2);
    let lock = ResultsFolder::open(&world.path("out")).unwrap();
    let text = world.end_with(1, "run small.toml --out out");
    assert!(
        text.contains("out is in use by another run; wait for it to end"),
        "{text}"
    );
    drop(lock);
    world.succeed("run small.toml --out out");
}

#[test]
fn a_damaged_journal_is_refused_and_old_results_stay() {
    let world = World::new(3);
    world.succeed("run small.toml --out out");
    let before = deterministic(&world.path("out"));
    // Another experiment is interrupted in the same folder, and its journal is cut.
    let mut child = world
        .command("run small.toml --out out --set rounds=100000 --checkpoint-every 1")
        .spawn()
        .unwrap();
    let journal = world.path("out/checkpoint/fedavg/journal");
    while !fs::metadata(&journal).is_ok_and(|file| file.len() > 20_000) {
        sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let bytes = fs::read(&journal).unwrap();
    fs::write(&journal, &bytes[..bytes.len() / 2]).unwrap();
    let text = world.end_with(1, "run small.toml --out out --set rounds=100000 --resume");
    assert!(text.contains("journal holds"), "{text}");
    assert!(
        text.contains("run without --resume to start afresh"),
        "{text}"
    );
    let mut after = files(&world.path("out"));
    after.retain(|name, _| before.contains_key(name));
    assert_same(&before, &after);
}

#[test]
fn variants_run_one_at_a_time_leave_the_same_bytes() {
    let world = World::new(5);
    world.succeed("run small.toml --out whole");
    world.succeed("run small.toml --out parts --variant fedprox");
    let text = world.succeed("run small.toml --out parts --variant fedavg --json");
    assert_eq!(text.lines().count(), 2, "{text}");
    assert_same(
        &deterministic(&world.path("whole")),
        &deterministic(&world.path("parts")),
    );
}
