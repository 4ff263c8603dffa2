use super::*;
use crate::registry::Registered as _;
use crate::testing::assert_fits;

fn select(selector: &dyn Selector, candidates: &Candidates<'_>, round: u64) -> Vec<u64> {
    let mut stream = selection_stream(Seed(5), RoundId(round));
    let selection = selector.select(candidates, &mut stream).unwrap();
    selection
        .clients
        .into_iter()
        .map(|client| client.0)
        .collect()
}

fn uniform(cohort: u64, over_select: f64) -> Uniform {
    let config = UniformConfig {
        cohort,
        over_select,
    };
    Uniform::from_config(config).unwrap()
}

fn weighted(cohort: u64) -> Weighted {
    let config = WeightedConfig {
        cohort,
        over_select: 1.0,
    };
    Weighted::from_config(config).unwrap()
}

/// All 3-element subsets of 6 clients, by the flat set; pairs of 50, by the tree.
#[test]
fn every_subset_is_equally_likely() {
    let mut counts = std::collections::BTreeMap::new();
    for round in 0..20_000 {
        let clients = select(&uniform(3, 1.0), &Candidates::everyone(6), round);
        *counts.entry(clients).or_insert(0u64) += 1;
    }
    let counts: Vec<u64> = counts.into_values().collect();
    assert_fits(&counts, &[1000.0; 20]);

    let mut counts = std::collections::BTreeMap::new();
    for round in 0..122_500 {
        let clients = select(&uniform(2, 1.0), &Candidates::everyone(50), round);
        *counts.entry(clients).or_insert(0u64) += 1;
    }
    let counts: Vec<u64> = counts.into_values().collect();
    assert_fits(&counts, &[100.0; 1225]);
}

/// `(cohort, over_select, population, asked)`
#[test]
fn so_many_times_the_cohort_are_asked() {
    let cases = [
        (10, 1.0, 1000, 10),
        (10, 1.3, 1000, 13),
        (10, 1.25, 1000, 13),
        (10, 1.3, 12, 12),
        // 100 times the number nearest to 1.1 is 110.00000000000001.
        (100, 1.1, 1000, 110),
        (7, 2.0001, 1000, 15),
        (1 << 40, 1.0, 1 << 41, 1 << 40),
    ];
    for (cohort, over_select, population, asked) in cases {
        let size = size::Size::new(cohort, over_select).unwrap();
        assert_eq!(size.asked(population), asked, "{cohort} * {over_select}");
    }
}

#[test]
fn a_cohort_of_a_huge_population_costs_no_more_than_the_cohort() {
    let clients = select(&uniform(1000, 1.0), &Candidates::everyone(1 << 50), 0);
    assert_eq!(clients.len(), 1000);
    let mut octants = [0u64; 8];
    for client in clients {
        octants[(client >> 47) as usize] += 1;
    }
    assert_fits(&octants, &[125.0; 8]);
}

#[test]
fn poisson_selects_each_client_independently() {
    for rate in [0.002, 0.3, 0.9] {
        let poisson = Poisson::from_config(PoissonConfig { rate }).unwrap();
        let rounds = 4000u64;
        let mut by_client = [0u64; 50];
        let mut pairs = 0u64;
        let mut sizes = (0.0, 0.0);
        for round in 0..rounds {
            let clients = select(&poisson, &Candidates::everyone(50), round);
            for &client in &clients {
                by_client[client as usize] += 1;
            }
            pairs += u64::from(clients.contains(&7) && clients.contains(&8));
            sizes.0 += clients.len() as f64;
            sizes.1 += (clients.len() * clients.len()) as f64;
        }
        let n = rounds as f64;
        // The counts of clients are binomial; dividing by 1 - rate makes them Pearson's.
        let chi: f64 = by_client
            .iter()
            .map(|&c| (c as f64 - n * rate).powi(2) / (n * rate * (1.0 - rate)))
            .sum();
        assert!(chi < 50.0 + 5.0 * 10.0, "rate {rate}: {chi}");
        let expected = n * rate * rate;
        assert!(
            (pairs as f64 - expected).abs() <= 5.0 * expected.sqrt().max(1.0),
            "{pairs}"
        );
        // The size is binomial, too: its variance tells it from any fixed-size scheme.
        let variance = sizes.1 / n - (sizes.0 / n).powi(2);
        let binomial = 50.0 * rate * (1.0 - rate);
        assert!(
            (variance / binomial - 1.0).abs() < 0.15,
            "rate {rate}: {variance}"
        );
    }
    let everyone = Poisson::from_config(PoissonConfig { rate: 1.0 }).unwrap();
    assert_eq!(select(&everyone, &Candidates::everyone(4), 0), [0, 1, 2, 3]);
    let rare = Poisson::from_config(PoissonConfig { rate: 1e-300 }).unwrap();
    assert!(select(&rare, &Candidates::everyone(u64::MAX), 0).is_empty());
    let few = Poisson::from_config(PoissonConfig { rate: 1e-15 }).unwrap();
    let clients = select(&few, &Candidates::everyone(1 << 58), 0);
    assert!((200..400).contains(&clients.len()), "{}", clients.len());
}

/// Against the definition: draw one client after another in proportion to weight.
#[test]
fn weighted_selection_has_the_successive_distribution() {
    let weights = [5u64, 1, 3, 0, 1];
    let examples = |client: ClientId| ExampleCount(weights[client.0 as usize]);
    let candidates = Candidates::everyone(5).with_examples(&examples);
    let total: u64 = weights.iter().sum();
    let mut expected = std::collections::BTreeMap::new();
    for (first, &a) in weights.iter().enumerate() {
        for (second, &b) in weights.iter().enumerate() {
            if first != second && a * b > 0 {
                let share = a as f64 / total as f64 * b as f64 / (total - a) as f64;
                let pair = [first.min(second) as u64, first.max(second) as u64];
                *expected.entry(pair.to_vec()).or_insert(0.0) += share * 20_000.0;
            }
        }
    }
    let mut counts = std::collections::BTreeMap::new();
    for round in 0..20_000 {
        *counts
            .entry(select(&weighted(2), &candidates, round))
            .or_insert(0u64) += 1;
    }
    assert!(counts.keys().eq(expected.keys()), "{counts:?}");
    let counts: Vec<u64> = counts.into_values().collect();
    let expected: Vec<f64> = expected.into_values().collect();
    assert_fits(&counts, &expected);
    // Clients without examples are left out even when there are too few others.
    assert_eq!(select(&weighted(5), &candidates, 0), [0, 1, 2, 4]);
}

#[test]
fn weights_must_be_known() {
    let mut stream = selection_stream(Seed(5), RoundId(0));
    let error = weighted(1).select(&Candidates::everyone(3), &mut stream);
    assert_eq!(error, Err(SelectError::NoExamples));
}

#[test]
fn more_clients_than_the_cohort_are_asked() {
    let asked = |cohort, over, population| {
        let mut stream = selection_stream(Seed(5), RoundId(0));
        let candidates = Candidates::everyone(population);
        let selection = uniform(cohort, over)
            .select(&candidates, &mut stream)
            .unwrap();
        (selection.clients.len(), selection.goal)
    };
    assert_eq!(asked(100, 1.3, 1000), (130, 100));
    assert_eq!(asked(10, 1.25, 1000), (13, 10));
    assert_eq!(asked(100, 1.3, 120), (120, 100));
    assert_eq!(asked(100, 1.3, 80), (80, 80));
    assert_eq!(asked(100, 1.3, 0), (0, 0));
}

#[test]
fn lists_must_ascend() {
    let ids = |ids: &[u64]| ids.iter().map(|&id| ClientId(id)).collect::<Vec<_>>();
    for (bad, index) in [(ids(&[1, 2, 2]), 2), (ids(&[3, 1]), 1)] {
        let error = Candidates::listed(&bad).unwrap_err();
        assert_eq!(error, SelectError::Unsorted { index });
    }
    assert!(Candidates::listed(&[]).unwrap().is_empty());
}

/// From a second implementation, in Python, of the papers' algorithms and of the streams.
#[test]
fn cohorts_are_frozen() {
    let examples = |client: ClientId| ExampleCount(1 + client.0 % 10);
    let candidates = Candidates::everyone(1000).with_examples(&examples);
    let poisson = Poisson::from_config(PoissonConfig { rate: 0.005 }).unwrap();
    let cyclic = CyclicConfig {
        period: 200,
        rate: 1.0,
    };
    let cyclic = Cyclic::from_config(cyclic).unwrap();
    assert_eq!(select(&cyclic, &candidates, 3), [24, 275, 594, 646, 814]);
    let separated = SeparatedConfig {
        cohort: 5,
        separation: 4,
    };
    let separated = Separated::from_config(separated).unwrap();
    assert_eq!(
        select(&separated, &candidates, 3),
        [201, 637, 708, 780, 817]
    );
    assert_eq!(
        select(&uniform(5, 1.0), &candidates, 3),
        [201, 638, 708, 780, 818]
    );
    assert_eq!(
        select(&uniform(100, 1.0), &candidates, 3)[..5],
        [29, 35, 61, 74, 75]
    );
    assert_eq!(select(&poisson, &candidates, 3), [305, 648, 852]);
    assert_eq!(
        select(&weighted(5), &candidates, 3),
        [335, 343, 513, 586, 803]
    );
}

#[test]
fn tables_are_read_by_kind_with_exact_messages() {
    let read = |kind: &str, rest: &str| {
        let rest: serde_json::Value = serde_json::from_str(rest).unwrap();
        match SelectorConfig::from_kind(kind, rest) {
            Ok(config) => match AnySelector::from_config(config) {
                Ok(selector) => format!("{selector:?}"),
                Err(error) => error.to_string(),
            },
            Err(error) => error.to_string(),
        }
    };
    let cases = [
        (
            "unifrom",
            "{}",
            "unknown selection `unifrom`; known are `uniform`, `poisson`, `weighted`, `cyclic`, \
             `separated`, `oort`, `power-of-choice`, `fair`",
        ),
        ("uniform", "{}", "missing field `cohort`"),
        (
            "uniform",
            r#"{"cohort": 1, "over": 2}"#,
            "unknown field `over`, expected `cohort` or `over_select`",
        ),
        (
            "uniform",
            r#"{"cohort": 0}"#,
            "`cohort` is 0; expected a whole number of at least 1 and at most 2^40",
        ),
        (
            "weighted",
            r#"{"cohort": 5, "over_select": 0.5}"#,
            "`over_select` is 0.5; expected a number of at least 1 and at most 100",
        ),
        (
            "poisson",
            r#"{"rate": 0.0}"#,
            "`rate` is 0; expected a number above 0 and at most 1",
        ),
        (
            "poisson",
            r#"{"rate": 1.5}"#,
            "`rate` is 1.5; expected a number above 0 and at most 1",
        ),
        (
            "oort",
            r#"{"cohort": 5, "cut_off": 0}"#,
            "`cut_off` is 0; expected a number above 0 and at most 1",
        ),
        (
            "oort",
            r#"{"cohort": 5, "exploration": 0.1}"#,
            "`exploration_min` is 0.2; expected a number of at least 0 and at most exploration",
        ),
        (
            "oort",
            r#"{"cohort": 5, "penalty": -1}"#,
            "`penalty` is -1; expected a finite number of at least 0",
        ),
        (
            "oort",
            r#"{"cohort": 5, "pacer_window": 0}"#,
            "`pacer_window` is 0; expected a whole number of at least 1",
        ),
        (
            "power-of-choice",
            r#"{"cohort": 5}"#,
            "missing field `candidates`",
        ),
        ("cyclic", r#"{"rate": 0.5}"#, "missing field `period`"),
        (
            "cyclic",
            r#"{"period": 0}"#,
            "`period` is 0; expected a whole number of at least 1 and at most 2^40",
        ),
        (
            "cyclic",
            r#"{"period": 3, "rate": 1.5}"#,
            "`rate` is 1.5; expected a number above 0 and at most 1",
        ),
        (
            "separated",
            r#"{"cohort": 3, "separation": 0}"#,
            "`separation` is 0; expected a whole number of at least 1 and at most 2^20",
        ),
        (
            "separated",
            r#"{"cohort": 0, "separation": 3}"#,
            "`cohort` is 0; expected a whole number of at least 1 and at most 2^40",
        ),
        (
            "uniform",
            r#"{"cohort": 5}"#,
            "Uniform(Uniform { size: Size { cohort: 5, over_select: 1.0 } })",
        ),
    ];
    for (kind, rest, expected) in cases {
        assert_eq!(read(kind, rest), expected);
    }
}
