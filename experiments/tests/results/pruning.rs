//! A run that prunes, through the program: what `check` says, what is recorded, `verify`.

use std::fs;

use super::support::World;

const EXPERIMENT: &str = r#"
name = "sparse"
seed = 3
rounds = 6

[dataset]
name = "digits"
partition = { kind = "iid", clients = 20 }

[model]
kind = "mlp-2nn"
hidden = [16, 16]

[local]
epochs = 1
batch = 10
learning_rate = 0.1

[selection]
cohort = 8

[[variant]]
name = "dense"

[[variant]]
name = "gradual"
pruning = { kind = "magnitude", sparsity = 0.8, start = 1, end = 4 }

[[variant]]
name = "two-of-four"
pruning = { kind = "two-of-four", start = 2 }
"#;

#[test]
fn a_run_that_prunes_is_explained_recorded_and_verified() {
    let world = World::with("sparse.toml", EXPERIMENT);
    // 64 x 16 + 16 x 16 + 16 x 10 weights.
    let text = world.succeed("check sparse.toml");
    for line in [
        "  pruning   1,152 of 1,440 weights (80.0 %) are zero in the end, by 4 prunings before rounds 1 to 4",
        "  pruning   720 of 1,440 weights (50.0 %) are zero in the end, by one pruning before round 2",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let short = world.succeed("check sparse.toml --variant gradual --set rounds=3");
    assert!(
        short.contains("by 2 prunings before rounds 1 to 2; the 80.0 % that are asked for take more rounds than the run has"),
        "{short}"
    );
    let none = world.succeed("check sparse.toml --variant two-of-four --set rounds=2");
    assert!(
        none.contains("  pruning   no weight is pruned; the 50.0 %"),
        "{none}"
    );

    world.succeed("run sparse.toml --out out --no-plots");
    let manifest = fs::read_to_string(world.path("out/manifest.toml")).unwrap();
    assert!(manifest.contains("pruning.parquet"), "{manifest}");
    let results = fledgling::results::Results::load(&world.path("out")).unwrap();
    let pruned = |index: usize| -> Vec<u64> {
        let rows = results.variants[index].pruning.iter();
        rows.map(|row| row.pruned).collect()
    };
    assert!(pruned(0).is_empty());
    assert_eq!(pruned(1), [0, 0, 811, 1109, 1152, 1152]);
    assert_eq!(pruned(2), [0, 0, 720, 720, 720, 720]);
    assert_eq!(
        results.variants[1].pruning[5].sparsity.to_bits(),
        0.8f64.to_bits()
    );
    world.succeed("verify out");
    // The digests in the table say what makes them differ.
    let text = world.succeed("run sparse.toml --out out --no-plots");
    for mark in ["(80 % pruned)", "(two-of-four)"] {
        assert!(text.contains(mark), "{mark}: {text}");
    }
}
