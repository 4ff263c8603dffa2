//! `plot` and `compare` through the program.

use std::fs;

use crate::support::{World, assert_same, files};

#[test]
fn plots_are_drawn_again_from_the_tables_alone() {
    let world = World::new(8);
    world.succeed("run small.toml --out out");
    let drawn = files(&world.path("out/plots"));
    for name in ["accuracy", "loss", "train-loss", "clients", "partition"] {
        let svg = core::str::from_utf8(&drawn[&format!("{name}.svg")]).unwrap();
        assert!(svg.starts_with("<svg width=\"") && svg.trim_end().ends_with("</svg>"));
        assert!(drawn[&format!("{name}.png")].starts_with(b"\x89PNG"));
    }
    let accuracy = core::str::from_utf8(&drawn["accuracy.svg"]).unwrap();
    for text in [
        "fedavg ",
        "fedprox ",
        "Test accuracy (%)",
        "Communication round",
    ] {
        assert!(accuracy.contains(text), "{text}");
    }
    fs::remove_dir_all(world.path("out/plots")).unwrap();
    world.succeed("plot out");
    assert_same(&drawn, &files(&world.path("out/plots")));
    world.succeed("verify out --rounds 0");
}

#[test]
fn several_results_are_drawn_together_and_compared() {
    let world = World::new(8);
    world.succeed("run small.toml --out a --no-plots");
    world.succeed(
        "run small.toml --out b --no-plots --set local.learning_rate=0.05 --set name=\"slow\"",
    );
    assert!(!world.path("a/plots").exists());
    let text = world.succeed("plot a b/fedavg --json --out both");
    assert!(text.contains("accuracy.png"), "{text}");
    let svg = fs::read_to_string(world.path("both/accuracy.svg")).unwrap();
    for label in ["small · fedavg", "small · fedprox", "slow · fedavg"] {
        assert!(svg.contains(label), "{label}");
    }

    let text = world.succeed("compare a b --target 50");
    for part in [
        "local.learning_rate",
        "0.05",
        "rounds to 50.0 %",
        "the records part at rounds, round 0, ",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let text = world.succeed("compare a/fedavg b/fedprox --json");
    assert!(text.contains("\"key\":\"strategy.kind\""), "{text}");
    let text = world.succeed("compare a a");
    assert!(
        text.contains("records and models are the same, bit for bit"),
        "{text}"
    );
}
