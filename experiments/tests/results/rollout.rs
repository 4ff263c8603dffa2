//! A run whose models reach a fleet, through the program: stages and the way back with real model
//! files, the same bytes on any number of threads and after a kill, `verify`, and faults of the table.

use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use fledgling::results::{Results, RolloutRow};

use super::support::{World, assert_same, deterministic};

const EXPERIMENT: &str = r#"
name = "fleet"
seed = 5
rounds = 24

[dataset]
name = "digits"
partition = { kind = "iid", clients = 20 }
holdout = 0.3

[model]
kind = "mlp-2nn"
hidden = [32, 32]

[local]
epochs = 2
batch = 10
learning_rate = 0.1

[selection]
cohort = 10

[evaluation]
every = 4
precisions = ["f32", "int8"]
patches = true

[rollout]
devices = 20_000
days = 20
interrupted = 0.1
failed = 0.01
offline = 0.1
stages = [0.05, 0.3, 1.0]
control = 0.05

[[variant]]
name = "good"

[[variant]]
name = "scrambled"
rollout.fault = "scrambled"

[[variant]]
name = "stale"
evaluation.initial = true
rollout = { fault = "stale", form = "counts", devices = 5_000_000 }
"#;

fn rows<'a>(results: &'a Results, variant: &str) -> &'a [RolloutRow] {
    &results.variant(variant).unwrap().rollout
}

#[test]
fn bad_models_go_back_from_the_first_stage_and_good_ones_reach_everybody() {
    let world = World::with("fleet.toml", EXPERIMENT);
    let text = world.succeed("check fleet.toml");
    let line = "  rollout   the newest 2 models to 20000 devices in 20 days, 1 check-ins a day: stages of 5, 30, 100 %, a control group of 5 %";
    assert!(text.contains(line), "{text}");
    let text = world.succeed("run fleet.toml --out out --threads 2");
    for line in [
        "rollout  good: 20,000 devices, 20 days: 1 versions released to all, 0 withdrawn; ",
        "rollout  scrambled: 20,000 devices, 20 days: 0 versions released to all, 1 withdrawn; ",
    ] {
        assert!(text.contains(line), "{text}");
    }
    let results = Results::load(&world.path("out")).unwrap();
    let good = rows(&results, "good");
    let last = good.last().unwrap();
    assert_eq!((last.version, last.round, &*last.state), (1, 24, "current"));
    assert!(last.devices.unwrap() > 0.99 * 20_000.0);
    let events: Vec<&str> = good.iter().map(|row| row.events.as_str()).collect();
    let events = events.join(" ");
    for event in [
        "hour 0: 5 % began",
        "30 % began",
        "100 % began",
        "completed",
    ] {
        assert!(events.contains(event), "{events}");
    }
    // What devices report is what the models are worth on the test set, or nearly.
    let reported: Vec<f64> = good.iter().filter_map(|row| row.accuracy).collect();
    assert!(
        reported.len() > 5 && reported.iter().all(|&it| it > 0.85),
        "{reported:?}"
    );

    for (variant, devices) in [("scrambled", 20_000.0), ("stale", 5_000_000.0)] {
        let bad = rows(&results, variant);
        let own = || bad.iter().filter(|row| row.version == 1);
        assert!(
            own().any(|row| row.events.contains("withdrawn at 5 % (worse)")),
            "{variant}"
        );
        let most = own().filter_map(|row| row.devices).fold(0.0, f64::max);
        assert!(most > 0.0 && most < 0.055 * devices, "{variant}: {most}");
        assert!(
            own().filter_map(|row| row.accuracy).all(|it| it < 0.5),
            "{variant}"
        );
        // Everywhere: at most some that were offline all the time are left, or too few to be told.
        let left = own().next_back().unwrap();
        assert_eq!(left.state, "withdrawn");
        assert!(
            left.devices.is_none_or(|left| left < 0.001 * devices),
            "{left:?}"
        );
        assert!(bad.iter().filter_map(|row| row.restored).sum::<f64>() > 0.0);
        let whole: u64 = bad.iter().map(|row| row.bytes_full).sum();
        assert_eq!(whole, 0, "{variant}: the way back came out of caches");
    }
    assert_eq!(own_round(rows(&results, "stale")), 0);

    let expected = deterministic(&world.path("out"));
    assert!(expected.contains_key("rollout.parquet"));
    assert!(expected.contains_key("plots/rollout.png"));
    assert!(expected.contains_key("plots/rollout-traffic.svg"));
    world.succeed("run fleet.toml --out one --threads 1");
    assert_same(&expected, &deterministic(&world.path("one")));
    world.succeed("verify out --threads 1");

    // Killed wherever it happens to be, some times, and taken up.
    let mut kills = 0;
    for (attempt, wait) in [60, 150, 250, 400].into_iter().enumerate() {
        let run = format!("run fleet.toml --out cut-{attempt} --resume --checkpoint-every 3");
        for _ in 0..3 {
            let mut child = world
                .command(&format!("{run} --no-plots --json"))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            sleep(Duration::from_millis(wait));
            child.kill().unwrap();
            kills += u32::from(!child.wait().unwrap().success());
        }
        world.succeed(&run);
        let found = deterministic(&world.path(&format!("cut-{attempt}")));
        assert_same(&expected, &found);
    }
    assert!(kills > 0, "every run ended before its kill");
}

fn own_round(rows: &[RolloutRow]) -> u64 {
    rows.iter().find(|row| row.version == 1).unwrap().round
}

#[test]
fn faults_of_the_table_say_what_to_do() {
    let world = World::with("fleet.toml", EXPERIMENT);
    for (set, message) in [
        (
            "evaluation.patches=false",
            "`rollout`: rolls out the int8 models of the run, and no evaluation keeps them; add evaluation.precisions",
        ),
        (
            "evaluation.every=24 --set evaluation.initial=false",
            "`rollout.versions`: needs at least 2 evaluated models, and the run has 1; lower evaluation.every",
        ),
        (
            "rollout.versions=1",
            "`rollout.versions`: found 1, expected a whole number of at least 2",
        ),
        (
            "rollout.stages=[0.5]",
            "`rollout.stages`: found [0.5], expected growing shares above 0 that end with 1",
        ),
        (
            "rollout.guard.alpha=0.9",
            "`rollout.guard.alpha`: found 0.9, expected above 0 and below 0.5",
        ),
        (
            "rollout.control=0.0",
            "`rollout.control`: found 0, expected a share above 0 and below 0.5; or 0 with stages = [1.0]",
        ),
        ("rollout.clients=0", "`rollout.clients`: found 0"),
        ("rollout.speed=1", "rollout.speed"),
    ] {
        let text = world.end_with(2, &format!("check fleet.toml --variant good --set {set}"));
        assert!(text.contains(message), "{set}: {text}");
    }
    let stale = "check fleet.toml --variant scrambled --set rollout.fault=\"stale\" --set rollout.versions=7";
    let text = world.end_with(2, stale);
    assert!(
        text.contains("`rollout.fault`: \"stale\" ships a model"),
        "{text}"
    );
}
