//! Sweeps through the program: killed, in shards, in parallel, cached, halved.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use fledgling::analysis::{Analysis, Figure, Quantity};
use fledgling::results::{Results, Status};
use fledgling::sweep::Plan;
use polars_io::SerReader as _;
use polars_io::parquet::read::ParquetReader;

use support::{World, assert_same, files};

#[path = "results/support.rs"]
#[expect(dead_code, reason = "shared with the tests of results")]
mod support;

/// Two levels of privacy and none, two seeds: six cells.
const SWEEP: &str = r#"
name = "small"
seed = 3
rounds = ROUNDS

[dataset]
name = "digits"
partition = { kind = "dirichlet", alpha = 0.5, clients = 60 }

[model]
kind = "logreg"

[local]
epochs = 2
batch = 10
learning_rate = 0.1

[strategy]
kind = "fedavg"
weighting = "uniform"

[selection]
kind = "poisson"
rate = 0.3

[evaluation]
every = 4

[privacy]
kind = "central"
max_norm = 1.0
delta = 1e-3

[sweep]
seeds = 2

[sweep.grid]
privacy.epsilon = [2.0, 8.0, inf]
"#;

const HALVING: &str = r#"
[sweep.halving]
first = 6
factor = 2
"#;

fn world(rounds: u32) -> World {
    World::with("small.toml", &SWEEP.replace("ROUNDS", &rounds.to_string()))
}

/// The files that are a function of the experiment alone.
fn deterministic(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = files(folder);
    found.retain(|name, _| !name.ends_with("host.toml") && !name.ends_with("timing.parquet"));
    found
}

fn cells(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.join("cells")).unwrap();
    let mut cells: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    cells.sort();
    cells
}

#[expect(
    clippy::disallowed_methods,
    reason = "only to spread the kills over the time of a run"
)]
fn now() -> Instant {
    Instant::now()
}

/// Kills the sweep at several moments, lets it end, and compares with `expected`.
fn kill_and_compare(world: &World, expected: &BTreeMap<String, Vec<u8>>, whole: Duration) {
    let mut kills = 0;
    for (attempt, shares) in [[0.15, 0.55], [0.4, 0.7], [0.03, 0.3]].iter().enumerate() {
        let run = format!("sweep small.toml --out killed-{attempt} --checkpoint-every 3 --json");
        for share in shares {
            let mut child = world
                .command(&run)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            sleep(whole.mul_f64(*share));
            child.kill().unwrap();
            if child.wait().unwrap().code().is_none() {
                kills += 1;
            }
        }
        world.succeed(&run);
        let found = deterministic(&world.path(&format!("killed-{attempt}")));
        assert_same(expected, &found);
    }
    assert!(kills >= 3, "{kills}");
}

#[test]
fn killed_twice_and_resumed_it_leaves_the_same_bytes() {
    let world = world(60);
    let start = now();
    world.succeed("sweep small.toml --out whole --threads 1");
    let whole = start.elapsed();
    let expected = deterministic(&world.path("whole"));
    assert_eq!(cells(&world.path("whole")).len(), 6);
    for name in ["sweep.toml", "cells.parquet", "groups.parquet"] {
        assert!(expected.contains_key(name), "{name}");
    }
    assert!(!expected.keys().any(|name| name.contains("checkpoint")));
    kill_and_compare(&world, &expected, whole);
}

#[test]
fn shards_apart_and_merged_are_the_same_bytes() {
    let world = world(12);
    world.succeed("sweep small.toml --out whole");
    let expected = deterministic(&world.path("whole"));
    let mut merge = String::new();
    let mut seen = 0;
    for shard in 1..=16 {
        world.succeed(&format!(
            "sweep small.toml --out shard-{shard} --shard {shard}/16 --json"
        ));
        let folder = world.path(&format!("shard-{shard}"));
        if folder.join("cells").is_dir() {
            seen += cells(&folder).len();
            merge.push_str(&format!(" --merge shard-{shard}"));
        }
    }
    assert_eq!(seen, 6, "every cell is in one shard");
    world.succeed(&format!("sweep small.toml --out merged --json{merge}"));
    assert_same(&expected, &deterministic(&world.path("merged")));
    // Nothing was run there: the clock's tables are the shards'.
    let first = cells(&world.path("merged")).remove(0);
    let id = first.file_name().unwrap().to_str().unwrap();
    let timing = fs::read(first.join("timing.parquet")).unwrap();
    let there = (1..=16).any(|shard| {
        let path = world.path(&format!("shard-{shard}/cells/{id}/timing.parquet"));
        fs::read(path).is_ok_and(|bytes| bytes == timing)
    });
    assert!(there);
}

#[test]
fn processes_and_jobs_share_a_folder() {
    let world = world(12);
    world.succeed("sweep small.toml --out whole");
    let expected = deterministic(&world.path("whole"));
    world.succeed("sweep small.toml --out jobs --jobs 3 --threads 3");
    assert_same(&expected, &deterministic(&world.path("jobs")));
    let together: Vec<_> = (0..3)
        .map(|_| {
            world
                .command("sweep small.toml --out together --jobs 2 --json")
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in together {
        assert!(child.wait().unwrap().success());
    }
    assert_same(&expected, &deterministic(&world.path("together")));
}

#[test]
fn whole_cells_are_not_run_again_and_damaged_ones_are() {
    let world = world(12);
    world.succeed("sweep small.toml --out out");
    let before = files(&world.path("out"));
    // Every file, those of the clock among them, stays as it is.
    let output = world.output("sweep small.toml --out out");
    assert!(output.status.success());
    assert_same(&before, &files(&world.path("out")));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(!told.contains("accuracy"), "{told}");
    // More seeds: only their cells are run.
    let output = world.output("sweep small.toml --out out --set sweep.seeds=3");
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(told.matches("accuracy").count(), 3, "{told}");
    let mut kept = files(&world.path("out"));
    kept.retain(|name, _| before.contains_key(name) && name.starts_with("cells/"));
    let mut old = before.clone();
    old.retain(|name, _| name.starts_with("cells/"));
    assert_same(&old, &kept);
    // A flipped bit: that cell is run again, and is then what it was.
    world.succeed("sweep small.toml --out out");
    let expected = deterministic(&world.path("out"));
    let plan = Plan::read(&world.path("out")).unwrap().unwrap();
    let cell = format!("out/cells/{}", plan.cells[2].id);
    let path = world.path(&cell).join("rounds.parquet");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let output = world.output("sweep small.toml --out out");
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("is run again"), "{told}");
    assert!(told.contains("rounds.parquet"), "{told}");
    assert_eq!(told.matches("accuracy").count(), 1, "{told}");
    assert_same(&expected, &deterministic(&world.path("out")));
}

#[test]
fn halving_is_the_same_however_it_is_run() {
    let text = SWEEP
        .replace("ROUNDS", "24")
        .replace("seed = 3", "seed = 5");
    let grid = "privacy.epsilon = [1.0, 2.0, 8.0, inf]";
    let text = text.replace("privacy.epsilon = [2.0, 8.0, inf]", grid);
    let world = World::with("small.toml", &format!("{text}{HALVING}"));
    let start = now();
    world.succeed("sweep small.toml --out whole");
    let whole = start.elapsed();
    let expected = deterministic(&world.path("whole"));
    let mut rounds: Vec<(u64, Status)> = cells(&world.path("whole"))
        .iter()
        .map(|cell| {
            let variant = &Results::load(cell).unwrap().variants[0].manifest;
            (variant.rounds_done, variant.status)
        })
        .collect();
    rounds.sort_by_key(|&(rounds, _)| rounds);
    // Four settings of two seeds: two are dropped after 6 rounds, one after 12.
    let dropped = |rounds| (rounds, Status::Stopped);
    let ended = (24, Status::Finished);
    let mut wanted = vec![dropped(6); 4];
    wanted.extend([dropped(12), dropped(12), ended, ended]);
    assert_eq!(rounds, wanted);
    // 6 is between two evaluations, 12 is at one.
    world.succeed("sweep small.toml --out jobs --jobs 3");
    assert_same(&expected, &deterministic(&world.path("jobs")));
    kill_and_compare(&world, &expected, whole);
    let text = world.end_with(2, "sweep small.toml --out whole --shard 1/2");
    assert!(text.contains("does not go with [sweep.halving]"), "{text}");
    // A sweep is frozen as a whole, the cells that were dropped with it.
    world.succeed("lock whole");
    let text = world.end_with(1, "sweep small.toml --out whole");
    assert!(text.contains("whole is locked"), "{text}");
    world.succeed("verify whole --rounds 0");
    fs::write(world.path("whole/cells/note"), "x").unwrap();
    let text = world.end_with(1, "verify whole --rounds 0");
    assert!(text.contains("whole/cells/note"), "{text}");
    fs::remove_file(world.path("whole/cells/note")).unwrap();
    // So it is without its models, also by those who look from above or at a cell alone.
    world.succeed("lock whole --without-models");
    let models = deterministic(&world.path("whole"));
    assert!(!models.keys().any(|name| name.ends_with("safetensors")));
    fs::create_dir(world.path("many")).unwrap();
    fs::rename(world.path("whole"), world.path("many/whole")).unwrap();
    world.succeed("verify many --rounds 1");
    let cell = Plan::read(&world.path("many/whole"))
        .unwrap()
        .unwrap()
        .cells[0]
        .id
        .clone();
    world.succeed(&format!("verify many/whole/cells/{cell}"));
    fs::write(world.path("many/whole/note"), "x").unwrap();
    let text = world.end_with(1, "verify many --rounds 0");
    assert!(text.contains("whole/note"), "{text}");
}

/// An axis of named settings is no key of an experiment, and yet what its figure is about.
#[test]
fn figures_know_the_axes_of_the_sweep() {
    let named = r#"
algorithm = [
    { name = "average", set = { strategy.kind = "fedavg" } },
    { name = "proximal", set = { strategy = { kind = "fedprox", mu = 0.1, weighting = "uniform" } } },
]
[[plot]]
kind = "points"
name = "both"
x = "algorithm"
group = "privacy.epsilon"
"#;
    let file = SWEEP.replace("ROUNDS", "4") + named;
    let world = World::with("small.toml", &file);
    world.succeed("check small.toml --set privacy.epsilon=8.0");
    world.succeed("sweep small.toml --out out");
    let picture = fs::read_to_string(world.path("out/plots/both.svg")).unwrap();
    assert!(picture.contains("average") && picture.contains("proximal"));
    world.succeed("plot out --kind bars --group algorithm --out bars");
    let wrong = file.replace("x = \"algorithm\"", "x = \"algorith\"");
    fs::write(world.path("wrong.toml"), wrong).unwrap();
    let text = world.end_with(2, "sweep wrong.toml --dry-run");
    let expected = "`plot.x`: \"algorith\" is not known; did you mean `algorithm`?";
    assert!(text.contains(expected), "{text}");
    let text = world.end_with(2, "plot out --kind bars --group acuracy --out bars");
    assert!(text.contains("did you mean `accuracy`?"), "{text}");
}

#[test]
fn the_analysis_is_that_of_the_cells() {
    let world = world(8);
    world.succeed("sweep small.toml --out out");
    let analysis = Analysis::load(&[world.path("out")]).unwrap();
    assert_eq!(analysis.groups.len(), 3);
    let labels: Vec<String> = analysis
        .groups
        .iter()
        .map(|group| analysis.label(group))
        .collect();
    assert_eq!(
        labels,
        [
            "privacy.epsilon=2",
            "privacy.epsilon=8",
            "privacy.epsilon=inf"
        ]
    );
    let group = &analysis.groups[1];
    let accuracies: Vec<f64> = analysis
        .runs_of(group)
        .map(|run| {
            let last = run.results.evaluations.last().unwrap();
            last.test_accuracy.unwrap()
        })
        .collect();
    let found = analysis.statistics(group, Figure::FinalAccuracy).unwrap();
    let mean = (accuracies[0] + accuracies[1]) / 2.0;
    assert!((found.mean - mean).abs() < 1e-12);
    // Of two values: their distance over the root of two.
    let deviation = (accuracies[0] - accuracies[1]).abs() / 2f64.sqrt();
    assert!((found.deviation.unwrap() - deviation).abs() < 1e-12);
    let spent = analysis.statistics(group, Figure::Epsilon).unwrap();
    assert!(spent.max <= 8.0 && spent.min > 4.0, "{spent:?}");
    let curve = analysis.curve(group, Quantity::Accuracy);
    let rounds: Vec<u64> = curve.iter().map(|point| point.round).collect();
    assert_eq!(rounds, [0, 4, 8]);
    assert!((curve[2].statistics.mean - mean).abs() < 1e-12);
    // Bytes of all rounds, by hand.
    let run = analysis.runs_of(group).next().unwrap();
    let bytes: u64 = run
        .results
        .rounds
        .iter()
        .map(|row| row.bytes_down + row.bytes_up)
        .sum();
    assert_eq!(run.figures.bytes, bytes);
    let never = analysis.to_target(group, 1.0);
    assert_eq!((never.reached, never.of), (0, 2));
    let at_once = analysis.to_target(group, 0.0);
    assert_eq!(at_once.reached, 2);
    assert!(at_once.by.rounds.unwrap().max < 1.0);
    let best = analysis.best(&[], Figure::FinalAccuracy).unwrap();
    assert_eq!((best[0].tried, best[0].runs), (3, 6));
    assert!(
        analysis
            .best(&["privacy.epsilo".to_owned()], Figure::FinalLoss)
            .is_err()
    );

    // The tables say the same.
    let table = |name: &str| {
        let file = fs::File::open(world.path(name)).unwrap();
        ParquetReader::new(file).finish().unwrap()
    };
    let of_cells = table("out/cells.parquet");
    assert_eq!(of_cells.height(), 6);
    let statuses = of_cells.column("status").unwrap().str().unwrap();
    assert!(statuses.iter().all(|status| status == Some("finished")));
    let seeds = of_cells.column("seed").unwrap().u64().unwrap();
    assert_eq!((seeds.get(0), seeds.get(1)), (Some(3), Some(4)));
    let of_groups = table("out/groups.parquet");
    assert_eq!(of_groups.height(), 3);
    let epsilons = of_groups.column("privacy.epsilon").unwrap().f64().unwrap();
    assert_eq!(epsilons.get(2), Some(f64::INFINITY));
    let means = of_groups.column("final_accuracy_mean").unwrap();
    assert_eq!(means.f64().unwrap().get(1), Some(found.mean));

    // The folders of the cells alone: what they differ in is found in their configurations.
    let folders = cells(&world.path("out"));
    let again = Analysis::load(&folders).unwrap();
    assert_eq!(again.axes.len(), 1);
    assert_eq!(again.axes[0].key, "privacy.epsilon");
    assert_eq!(again.groups.len(), 3);
    for group in &analysis.groups {
        let twin = again
            .groups
            .iter()
            .find(|twin| twin.values == group.values)
            .unwrap();
        assert_eq!(
            again.statistics(twin, Figure::FinalLoss),
            analysis.statistics(group, Figure::FinalLoss)
        );
    }
    let text = world.succeed("analyze out --target 0.2 --by privacy.epsilon");
    assert!(text.contains("reached 20.0 %"), "{text}");
    assert!(text.contains("selected on the test set"), "{text}");
    let text = world.succeed("analyze out --json --best");
    assert_eq!(text.lines().count(), 4, "{text}");
    for line in text.lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(value.get("group").is_some());
    }
    let text = world.end_with(2, "analyze out --by privacy.epsilo");
    assert!(text.contains("did you mean `privacy.epsilon`?"), "{text}");
}

#[test]
fn check_reads_every_cell() {
    let world = world(8);
    // Without its axis the file is no experiment: privacy needs an epsilon.
    let text = world.succeed("check small.toml");
    assert!(text.contains("privacy.epsilon=2, seed=3"), "{text}");
    assert!(
        text.contains("a sweep of 6 cells over privacy.epsilon, of which this is the first"),
        "{text}"
    );
    let text = world.succeed("check small.toml --set privacy.epsilon=4.0");
    assert!(text.contains("(4.0000, 1e-3)"), "{text}");
    assert!(
        text.contains("of which this is what does not vary"),
        "{text}"
    );
    let file = fs::read_to_string(world.path("small.toml")).unwrap();
    for (from, to, expected) in [
        (
            "[sweep.grid]",
            "[sweep.grid]\nlocal.bach = [5]",
            "`local.bach`: unknown key; did you mean `batch`?",
        ),
        ("[2.0, 8.0, inf]", "[2.0, -8.0]", "`privacy.epsilon`"),
        (
            "[sweep.grid]",
            "[sweep.grid]\nselection.rate = [0.3, 1.5]",
            "`selection.rate`",
        ),
        // What shows only with the data at hand.
        (
            "[sweep.grid]",
            "[sweep.grid]\ndataset.partition.clients = [60, 100000]",
            "cannot share 1437 examples",
        ),
    ] {
        fs::write(world.path("wrong.toml"), file.replace(from, to)).unwrap();
        for set in ["", " --set privacy.epsilon=4.0"] {
            let text = world.end_with(2, &format!("check wrong.toml{set}"));
            assert!(text.contains(expected), "{text}");
        }
    }
}

#[test]
fn what_a_sweep_would_do_is_told_and_what_it_cannot_is_refused() {
    let world = world(8);
    let text = world.succeed("sweep small.toml --dry-run");
    assert!(text.contains("6 cells, about"), "{text}");
    assert!(!world.path("results").exists());
    let text = world.succeed("sweep small.toml --dry-run --json --shard 2/4");
    for line in text.lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(value["status"], "pending");
        assert!(value["memory"].as_u64().unwrap() > 10_000);
    }
    let text = world.end_with(2, "sweep small.toml --memory 1kB");
    assert!(
        text.contains("more than --memory allows (1.00 kB)"),
        "{text}"
    );
    let text = world.end_with(2, "sweep small.toml --shard 5/4");
    assert!(text.contains("I from 1 to N"), "{text}");
    // A fault that shows only with the data.
    let text = world.end_with(
        2,
        "sweep small.toml --set sweep.grid.dataset.partition.clients=[60,5000]",
    );
    assert_eq!(text.matches("error").count(), 1, "{text}");
    let text = world.end_with(1, "sweep small.toml --merge nowhere");
    assert!(text.contains("nowhere"), "{text}");
    let text = world.end_with(1, "analyze nowhere");
    assert!(text.contains("nowhere"), "{text}");
}
