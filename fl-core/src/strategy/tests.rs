use std::sync::Arc;

use super::*;
use crate::params::Layout;
use crate::registry::Registered as _;
use crate::ring::{RingPlan, WeightBounds};
use crate::sum::{Aggregator, ExactSum};
use crate::testing;

fn fedavg(config: FedAvgConfig) -> FedAvg {
    FedAvg::from_config(config).unwrap()
}

pub(super) fn model(values: &[f32]) -> Parameters {
    let layout = Layout::new([("w".to_owned(), vec![values.len()])]).unwrap();
    Parameters::new(Arc::new(layout), values.to_vec()).unwrap()
}

pub(super) fn info(round: u64) -> RoundInfo {
    RoundInfo {
        round: RoundId(round),
        population: 10,
    }
}

/// For `clients` of any staleness.
pub(super) fn ring(clients: u64) -> RingPlan {
    RingPlan::for_weights(WeightBounds::new(Weight(staleness::SCALE), clients)).unwrap()
}

fn mean(updates: &[(&[f32], u64)]) -> Aggregate {
    let bounds = WeightBounds::new(Weight(1000), updates.len() as u64);
    let plan = RingPlan::for_weights(bounds).unwrap();
    let mut sum = ExactSum::new(plan, updates[0].0.len());
    for &(update, weight) in updates {
        sum.absorb(update, Weight(weight)).unwrap();
    }
    sum.finish().unwrap()
}

#[test]
fn the_first_step_of_each_is_the_mean() {
    for config in FedAvg::examples() {
        testing::averaging(&|| fedavg(config));
    }
    for config in FedProx::examples() {
        testing::averaging(&|| FedProx::from_config(config).unwrap());
    }
    // With one client that is not stale, at rate 1 (or mixing 1) only.
    for config in FedBuff::examples() {
        let config = FedBuffConfig {
            server_learning_rate: 1.0,
            ..config
        };
        testing::averaging(&|| FedBuff::from_config(config).unwrap());
    }
    let config = FedAsyncConfig {
        mixing: 1.0,
        ..FedAsyncConfig::default()
    };
    testing::averaging(&|| FedAsync::from_config(config).unwrap());
}

#[test]
fn the_enum_is_a_strategy_like_its_entries() {
    let configs = [
        StrategyConfig::FedAvg(FedAvgConfig::default()),
        StrategyConfig::FedProx(FedProxConfig::new(0.1)),
        StrategyConfig::FedBuff(FedBuffConfig::default()),
        StrategyConfig::FedAsync(FedAsyncConfig {
            mixing: 1.0,
            ..FedAsyncConfig::default()
        }),
    ];
    for config in configs {
        let make = || AnyStrategy::from_config(config.clone()).unwrap();
        testing::strategy(&make);
        testing::averaging(&make);
    }
}

#[test]
fn fedavg_is_the_weighted_mean_of_local_models() {
    // (n_k, w_k - w): w + (10*1 + 30*(-1))/40 and w + (10*2 + 30*4)/40.
    let mean = mean(&[(&[1.0, 2.0], 10), (&[-1.0, 4.0], 30)]);
    let strategy = fedavg(FedAvgConfig::default());
    let state = strategy.init(model(&[0.5, -1.0]));
    let state = strategy.apply(state, &mean, &info(0)).unwrap();
    assert_eq!(state.global().values(), [0.0, 2.5]);
}

#[test]
fn server_rate_and_momentum_follow_their_recursion() {
    let strategy = fedavg(FedAvgConfig {
        server_learning_rate: 0.5,
        server_momentum: 0.75,
        ..FedAvgConfig::default()
    });
    let mut state = strategy.init(model(&[1.0]));
    let (mut w, mut v) = (1.0, 0.0);
    for (round, update) in [1.0f32, -2.0, 0.5, 0.25].into_iter().enumerate() {
        v = 0.75 * v + update;
        w += 0.5 * v;
        state = strategy
            .apply(state, &mean(&[(&[update], 3)]), &info(round as u64))
            .unwrap();
        assert_eq!(state.global().values(), [w]);
    }
}

#[test]
fn fedprox_without_mu_is_fedavg_that_keeps_partial_work() {
    let avg = fedavg(FedAvgConfig {
        stragglers: Stragglers::Partial,
        ..FedAvgConfig::default()
    });
    let prox = FedProx::from_config(FedProxConfig::new(0.0)).unwrap();
    assert_eq!(avg.stragglers(), prox.stragglers());
    let start = testing::normals(&mut testing::stream(20, 0), 50, 1.0);
    let mut of_avg = avg.init(model(&start));
    let mut of_prox = prox.init(model(&start));
    let local = testing::local_plan();
    for round in 0..5 {
        assert_eq!(
            avg.plan(&of_avg, &info(round), &local),
            prox.plan(&of_prox, &info(round), &local)
        );
        let updates: Vec<_> = (0..4)
            .map(|client| testing::normals(&mut testing::stream(21 + round, client), 50, 0.1))
            .collect();
        let weighted: Vec<(&[f32], u64)> = updates
            .iter()
            .zip([3, 1, 20, 7])
            .map(|(update, weight)| (update.as_slice(), weight))
            .collect();
        let mean = mean(&weighted);
        of_avg = avg.apply(of_avg, &mean, &info(round)).unwrap();
        of_prox = prox.apply(of_prox, &mean, &info(round)).unwrap();
        assert_eq!(of_avg.global().digest(), of_prox.global().digest());
    }
}

#[test]
fn the_local_plan_carries_mu_for_fedprox_only() {
    let local = LocalPlan {
        proximal_mu: 9.0,
        ..testing::local_plan()
    };
    let prox = FedProx::from_config(FedProxConfig::new(0.25)).unwrap();
    let plan = prox
        .plan(&prox.init(model(&[0.0])), &info(0), &local)
        .unwrap();
    assert_eq!(
        plan,
        LocalPlan {
            proximal_mu: 0.25,
            ..local
        }
    );
    let avg = fedavg(FedAvgConfig::default());
    let plan = avg
        .plan(&avg.init(model(&[0.0])), &info(0), &local)
        .unwrap();
    assert_eq!(
        plan,
        LocalPlan {
            proximal_mu: 0.0,
            ..local
        }
    );
}

#[test]
fn a_model_that_would_not_be_finite_stops_the_run() {
    let strategy = fedavg(FedAvgConfig {
        server_learning_rate: 1e38,
        ..FedAvgConfig::default()
    });
    let state = strategy.init(model(&[0.0, 0.0]));
    let error = strategy
        .apply(state, &mean(&[(&[0.0, 50.0], 1)]), &info(7))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "round 7 would make parameter 1 infinite or not a number; lower `server_learning_rate` or \
         the local learning rate"
    );
}

#[test]
fn a_state_of_another_strategy_is_refused() {
    let avg = AnyStrategy::from(fedavg(FedAvgConfig::default()));
    let prox = AnyStrategy::from(FedProx::from_config(FedProxConfig::new(1.0)).unwrap());
    let state = prox.init(model(&[1.0]));
    let local = testing::local_plan();
    let error = StrategyError::WrongState { strategy: "fedavg" };
    assert_eq!(avg.plan(&state, &info(0), &local), Err(error.clone()));
    assert_eq!(
        avg.apply(state, &mean(&[(&[1.0], 1)]), &info(0)),
        Err(error)
    );
}

#[test]
fn tables_are_read_by_kind_with_exact_messages() {
    let read = |kind: &str, rest: &str| {
        let rest: serde_json::Value = serde_json::from_str(rest).unwrap();
        let config = StrategyConfig::from_kind(kind, rest).map_err(|error| error.to_string())?;
        let text = serde_json::to_string(&config).unwrap();
        assert!(
            text.starts_with(&format!("{{\"kind\":\"{kind}\"")),
            "{text}"
        );
        assert_eq!(
            serde_json::from_str::<StrategyConfig>(&text).unwrap(),
            config
        );
        AnyStrategy::from_config(config).map_err(|error| error.to_string())
    };
    let cases = [
        (
            "fedavgm",
            "{}",
            "unknown strategy `fedavgm`; known are `fedavg`, `fedprox`, `fedbuff`, \
             `fedasync`",
        ),
        ("fedprox", "{}", "missing field `mu`"),
        (
            "fedprox",
            r#"{"mu": -1}"#,
            "`mu` is -1; expected a finite number of at least 0",
        ),
        (
            "fedprox",
            r#"{"mu": 1, "nu": 1}"#,
            "unknown field `nu`, expected one of `mu`, `weighting`, `stragglers`",
        ),
        (
            "fedavg",
            r#"{"server_learning_rate": 0}"#,
            "`server_learning_rate` is 0; expected a finite number above 0",
        ),
        (
            "fedavg",
            r#"{"server_momentum": 1}"#,
            "`server_momentum` is 1; expected a number of at least 0 and below 1",
        ),
        (
            "fedbuff",
            r#"{"staleness": {"kind": "hinge", "slope": -1, "grace": 2}}"#,
            "`staleness.slope` is -1; expected a finite number of at least 0",
        ),
        (
            "fedbuff",
            r#"{"staleness": {"kind": "polynomial"}}"#,
            "missing field `exponent`",
        ),
        (
            "fedbuff",
            r#"{"staleness": {"kind": "constant", "slope": 1}}"#,
            "unknown field `slope`, there are no fields",
        ),
        (
            "fedasync",
            r#"{"mixing": 1.5}"#,
            "`mixing` is 1.5; expected a number above 0 and at most 1",
        ),
        (
            "fedavg",
            r#"{"stragglers": "keep"}"#,
            "unknown variant `keep`, expected `drop` or `partial`",
        ),
    ];
    for (kind, rest, expected) in cases {
        assert_eq!(read(kind, rest).unwrap_err(), expected);
    }
    let strategy = read("fedavg", "{}").unwrap();
    assert_eq!(strategy.stragglers(), Stragglers::Drop);
    let strategy = read("fedprox", r#"{"mu": 0.1, "stragglers": "drop"}"#).unwrap();
    assert_eq!(
        (strategy.kind(), strategy.stragglers()),
        ("fedprox", Stragglers::Drop)
    );
    assert_eq!(
        read("fedprox", r#"{"mu": 0.1}"#).unwrap().stragglers(),
        Stragglers::Partial
    );
}

/// A value of TOML as JSON: an inline table `{ a = 1, b = 2 }` is `{"a": 1, "b": 2}`.
fn as_json(toml: &str) -> String {
    let Some(entries) = toml.strip_prefix('{').and_then(|t| t.strip_suffix('}')) else {
        return toml.to_owned();
    };
    let entries = entries.split(',').map(|entry| {
        let (key, value) = entry.split_once('=').unwrap();
        format!("\"{}\": {value}", key.trim())
    });
    format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
}

#[test]
fn defaults_in_the_table_of_keys_are_the_real_ones() {
    for kind in StrategyConfig::KINDS {
        for key in kind.keys {
            let Some(default) = key.default else { continue };
            let mut required = serde_json::json!({});
            if kind.kind == "fedprox" {
                required["mu"] = 1.0.into();
            }
            let without = StrategyConfig::from_kind(kind.kind, required.clone()).unwrap();
            required[key.key] = serde_json::from_str(&as_json(default)).unwrap();
            let with = StrategyConfig::from_kind(kind.kind, required).unwrap();
            assert_eq!(without, with, "{} of {}", key.key, kind.kind);
        }
    }
}

#[test]
fn the_page_of_the_family_lists_every_key() {
    let page = crate::registry::markdown(StrategyConfig::KINDS);
    assert!(
        page.contains("### `fedprox`\nProximal local objectives"),
        "{page}"
    );
    assert!(
        page.contains("| `mu` | number, at least 0 | required | The proximal coefficient;"),
        "{page}"
    );
    assert!(
        page.contains("| `stragglers` | \"drop\" or \"partial\" | `\"drop\"` |"),
        "{page}"
    );
}
