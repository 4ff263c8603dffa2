//! Tests of candidates with a predicate.

use core::sync::atomic::{AtomicU64, Ordering};
use std::collections::BTreeMap;

use super::*;
use crate::registry::Registered as _;
use crate::testing::assert_fits;

fn uniform(cohort: u64) -> Uniform {
    Uniform::from_config(UniformConfig {
        cohort,
        over_select: 1.0,
    })
    .unwrap()
}

fn select(selector: &dyn Selector, candidates: &Candidates<'_>, round: u64) -> Selection {
    let mut stream = selection_stream(Seed(5), RoundId(round));
    selector.select(candidates, &mut stream).unwrap()
}

/// Lazily among the eligible, and by the list of them: each subset as often, by both ways through the
/// code (a share of a half that is found by drawing, and so few that the rest is gone through).
#[test]
fn uniform_over_the_eligible_is_uniform_over_their_list() {
    type Eligible = fn(ClientId) -> bool;
    let cases: [(u64, Eligible, u64, u64); 3] = [
        (40, |client| client.0 % 5 == 2, 2, 28_000),
        (12, |client| client.0.is_multiple_of(2), 3, 20_000),
        (9, |client| client.0 > 4, 3, 4_000),
    ];
    for (population, eligible, cohort, rounds) in cases {
        let list: Vec<_> = (0..population)
            .map(ClientId)
            .filter(|&c| eligible(c))
            .collect();
        let lazily = Candidates::eligible(population, &eligible);
        let listed = Candidates::listed(&list).unwrap();
        let count = |candidates: &Candidates<'_>| {
            let mut counts = BTreeMap::new();
            for round in 0..rounds {
                let clients = select(&uniform(cohort), candidates, round).clients;
                *counts.entry(clients).or_insert(0u64) += 1;
            }
            counts
        };
        let (lazy, listed) = (count(&lazily), count(&listed));
        assert!(lazy.keys().eq(listed.keys()), "the same subsets occur");
        let subsets = lazy.len() as f64;
        let counts: Vec<_> = lazy.into_values().collect();
        assert_fits(&counts, &vec![rounds as f64 / subsets; counts.len()]);
    }
}

#[test]
fn a_large_population_is_not_listed_and_its_share_can_be_estimated() {
    let calls = AtomicU64::new(0);
    let eligible = |client: ClientId| {
        calls.fetch_add(1, Ordering::Relaxed);
        client.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 < (1 << 32) / 10
    };
    let candidates = Candidates::eligible(1 << 50, &eligible);
    let selection = select(&uniform(1000), &candidates, 1);
    assert_eq!((selection.clients.len(), selection.goal), (1000, 1000));
    let Screened { asked, eligible } = selection.screened;
    assert_eq!((eligible, asked), (1000, calls.load(Ordering::Relaxed)));
    // Negative binomial: mean 10,000, standard deviation sqrt(1000 * 0.9) / 0.1 = 300.
    assert!((8_500..11_500).contains(&asked), "{asked}");
}

#[test]
fn too_few_eligible_are_all_chosen_and_nobody_is_asked_about_twice() {
    for (population, wanted) in [(1000, 10), (7, 3), (1, 1), (0, 2), (4096, 64)] {
        let eligible = |client: ClientId| client.0 % 500 == 3;
        let list: Vec<_> = (0..population)
            .map(ClientId)
            .filter(|&c| eligible(c))
            .collect();
        let selection = select(
            &uniform(wanted),
            &Candidates::eligible(population, &eligible),
            2,
        );
        assert_eq!(selection.clients, list);
        assert_eq!(selection.goal, list.len() as u64);
        let all = Screened {
            asked: population,
            eligible: list.len() as u64,
        };
        assert_eq!(selection.screened, all);
    }
}

/// More than a million are chosen, and none that is not eligible.
#[test]
fn no_ineligible_client_is_ever_selected() {
    let examples = |client: ClientId| ExampleCount(client.0 % 4);
    let configs = [
        SelectorConfig::Uniform(UniformConfig {
            cohort: 200,
            over_select: 1.3,
        }),
        SelectorConfig::Poisson(PoissonConfig { rate: 0.3 }),
        SelectorConfig::Weighted(WeightedConfig {
            cohort: 200,
            over_select: 1.0,
        }),
        SelectorConfig::Cyclic(CyclicConfig {
            period: 3,
            rate: 0.9,
        }),
        SelectorConfig::Separated(SeparatedConfig {
            cohort: 200,
            separation: 2,
        }),
    ];
    let mut all = 0;
    for config in configs {
        let selector = AnySelector::from_config(config).unwrap();
        let mut drawn = 0;
        for round in 0..2_500 {
            // Another set of clients in each round.
            let eligible =
                |client: ClientId| (client.0 ^ round).wrapping_mul(0x2545_f491) >> 7 & 3 > 1;
            let candidates = Candidates::eligible(2_000, &eligible).with_examples(&examples);
            let selection = select(&selector, &candidates, round);
            assert!(selection.clients.iter().all(|&client| eligible(client)));
            drawn += selection.clients.len();
        }
        assert!(drawn > 100_000, "{selector:?} chose {drawn}");
        all += drawn;
    }
    assert!(all > 1_000_000, "{all}");
}

/// Eligible clients take part with the selector's probability, whoever else is eligible.
#[test]
fn poisson_takes_each_eligible_client_with_its_probability() {
    let poisson = Poisson::from_config(PoissonConfig { rate: 0.3 }).unwrap();
    let eligible = |client: ClientId| !client.0.is_multiple_of(3);
    let mut counts = [0u64; 30];
    for round in 0..10_000 {
        for client in select(&poisson, &Candidates::eligible(30, &eligible), round).clients {
            counts[client.0 as usize] += 1;
        }
    }
    for (client, &count) in counts.iter().enumerate() {
        let expected = if client % 3 == 0 { 0.0 } else { 3_000.0 };
        // Five standard deviations of a binomial count: sqrt(10,000 * 0.3 * 0.7) = 46.
        assert!(
            (count as f64 - expected).abs() < 230.0,
            "client {client}: {count}"
        );
    }
}

#[test]
fn a_weighted_draw_asks_about_those_it_would_keep() {
    let weighted = WeightedConfig {
        cohort: 10,
        over_select: 1.0,
    };
    let weighted = Weighted::from_config(weighted).unwrap();
    let calls = AtomicU64::new(0);
    let eligible = |client: ClientId| {
        calls.fetch_add(1, Ordering::Relaxed);
        client.0.is_multiple_of(2)
    };
    let examples = |_: ClientId| ExampleCount(5);
    let candidates = Candidates::eligible(100_000, &eligible).with_examples(&examples);
    let selection = select(&weighted, &candidates, 0);
    assert_eq!(selection.clients.len(), 10);
    assert_eq!(selection.screened.asked, calls.load(Ordering::Relaxed));
    // About 2 * 10 * (1 + ln(50,000 / 10)) = 190.
    assert!(selection.screened.asked < 400, "{:?}", selection.screened);
}

#[test]
fn those_who_took_part_often_enough_are_left_out() {
    let mut history = History::default();
    for (client, rounds) in [(1, 1), (2, 2), (3, 3)] {
        for round in 0..rounds {
            history.took_part(ClientId(client), RoundId(round), Participation::default());
        }
    }
    let chosen = |most| {
        let candidates = Candidates::everyone(5).with_history(&history);
        let selection = select(&uniform(5), &candidates.at_most_rounds(most), 0);
        selection
            .clients
            .into_iter()
            .map(|client| client.0)
            .collect::<Vec<_>>()
    };
    assert_eq!(chosen(0), [0u64; 0]);
    assert_eq!(chosen(1), [0, 4]);
    assert_eq!(chosen(2), [0, 1, 4]);
    assert_eq!(chosen(9), [0, 1, 2, 3, 4]);
    // Without a history nobody took part.
    let candidates = Candidates::everyone(5).at_most_rounds(1);
    assert_eq!(select(&uniform(5), &candidates, 0).clients.len(), 5);
}
