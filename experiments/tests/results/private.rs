//! Every kind of privacy through the program: the same bytes on other numbers of threads, and
//! recorded as `check` announced it.

use crate::support::{World, assert_same, deterministic};

/// Every kind and mechanism on real data, with all that a run can record.
const EXPERIMENT: &str = r#"
name = "kinds"
seed = 7
rounds = 4

[dataset]
name = "digits"
partition = { kind = "iid", clients = 60 }

[model]
kind = "logreg"

[local]
epochs = 1
batch = 0.25
learning_rate = 0.1

[strategy]
kind = "fedavg"
weighting = "uniform"

[selection]
kind = "cyclic"
period = 2

[evaluation]
every = 2
per_client = "never"

[[variant]]
name = "open"

[[variant]]
name = "adaptive"
selection = { kind = "poisson", rate = 0.5 }
privacy = { kind = "central", clipping = "adaptive", max_norm = 1.0, noise_multiplier = 0.7, delta = 1e-3 }

[[variant]]
name = "banded"
privacy = { kind = "central", mechanism = "banded-toeplitz", bands = 2, max_norm = 1.0, noise_multiplier = 0.7, delta = 1e-3 }

[[variant]]
name = "blt"
privacy = { kind = "central", mechanism = "blt", max_norm = 1.0, noise_multiplier = 0.7, delta = 1e-3 }

[[variant]]
name = "tree"
privacy = { kind = "central", mechanism = "tree", max_norm = 1.0, noise_multiplier = 0.7, delta = 1e-3 }

[[variant]]
name = "distributed"
privacy = { kind = "distributed", bits = 18, max_norm = 1.0, noise_multiplier = 0.7, delta = 1e-3 }

[[variant]]
name = "local"
privacy = { kind = "local", max_norm = 1.0, noise_multiplier = 0.7, delta = 1e-3 }

[[variant]]
name = "example"
privacy = { kind = "example", max_norm = 1.0, noise_multiplier = 0.7, delta = 1e-5 }
"#;

const VARIANTS: usize = 8;

#[test]
fn every_kind_is_the_same_on_other_threads_and_passes_verify() {
    let world = World::with("kinds.toml", EXPERIMENT);
    world.succeed("run kinds.toml --out one --threads 1 --no-plots");
    world.succeed("run kinds.toml --out three --threads 3 --no-plots");
    assert_same(
        &deterministic(&world.path("one")),
        &deterministic(&world.path("three")),
    );
    let text = world.succeed("verify one --threads 2");
    let same = text.matches("every bit the same").count();
    assert_eq!(same, VARIANTS, "{text}");
}

/// 650 values go out to 30 clients; what comes back is as long, but in a ring of 18 bits, where it
/// is padded to 1024 numbers.
#[test]
fn check_says_what_travels() {
    let world = World::with("kinds.toml", EXPERIMENT);
    let text = world.succeed("check kinds.toml --json");
    let bytes: Vec<(String, u64)> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|line| {
            let name = line["name"].as_str().unwrap().to_owned();
            (name, line["bytes_per_round"].as_u64().unwrap())
        })
        .collect();
    assert_eq!(bytes.len(), VARIANTS);
    for (name, bytes) in bytes {
        let up = if name.contains("distributed") {
            1024 * 18 / 8
        } else {
            4 * 650
        };
        assert_eq!(bytes, 30 * (4 * 650 + up), "{name}");
    }
    // Masks against a tenth of the clients, noise against none of them.
    let secure = world.succeed("check kinds.toml --set secagg.mode=\"ideal\"");
    let caveat = "updates are hidden from a server with 10 % of the clients (secagg.corrupt), and epsilon is against one with 0 % of them (privacy.colluding_share)";
    let distributed = world
        .succeed("check kinds.toml")
        .matches("\ndistributed")
        .count();
    assert!(distributed > 0);
    assert_eq!(secure.matches(caveat).count(), distributed, "{secure}");
    let agreed =
        world.succeed("check kinds.toml --set secagg.mode=\"ideal\" --set secagg.corrupt=0");
    assert!(!agreed.contains("updates are hidden"), "{agreed}");
}
