//! The law of [`Selector`].

use crate::select::{
    Candidates, History, Participation, SelectError, Selection, Selector, selection_stream,
};
use crate::units::{ClientId, ExampleCount, RoundId, Seed, VirtualDuration};

/// Checks a selector: candidates only, eligible ones only, distinct, ascending, a function of (seed,
/// round, candidates), and different in another round or under another seed. The candidates carry
/// examples and a history.
///
/// # Panics
/// When a law is broken.
pub fn selector<S: Selector>(make: &dyn Fn() -> S) {
    let examples = |client: ClientId| ExampleCount(1 + client.0 * 7 % 13);
    for population in [0u64, 1, 2, 9, 10, 11, 400, 5000] {
        let history = history(population);
        let everyone = Candidates::everyone(population)
            .with_examples(&examples)
            .with_history(&history);
        let select = |seed, round, candidates: &Candidates<'_>| {
            let mut stream = selection_stream(Seed(seed), RoundId(round));
            let selected = make().select(candidates, &mut stream);
            selected.expect("the candidates carry all that there is")
        };
        for round in 0..5 {
            let selection = select(1, round, &everyone);
            let clients = &selection.clients;
            assert!(
                clients.windows(2).all(|pair| pair[0] < pair[1]),
                "distinct and ascending: {clients:?}"
            );
            assert!(
                clients.last().is_none_or(|last| last.0 < population),
                "all are candidates of {population}: {clients:?}"
            );
            assert!(
                selection.goal <= clients.len() as u64,
                "no more reports are wanted than clients asked"
            );
            assert!(
                selection.goal <= make().largest_goal(population),
                "the goal keeps to what was announced"
            );
            assert_eq!(
                select(1, round, &everyone),
                selection,
                "the same seed and round give the same cohort"
            );
        }
        listed(
            population,
            &select(1, 0, &everyone).clients,
            &|candidates| {
                let candidates = candidates.with_examples(&examples).with_history(&history);
                select(1, 0, &candidates).clients
            },
        );
        filtered(population, &history, &|candidates| {
            select(1, 0, &candidates.with_examples(&examples))
        });
        one_by_one(make, &everyone);
        let asked: u64 = select(1, 0, &everyone).clients.len() as u64;
        if population >= 400 && asked < population {
            let cohorts: Vec<_> = (0..8).map(|round| select(1, round, &everyone)).collect();
            assert!(
                cohorts.iter().any(|cohort| *cohort != cohorts[0]),
                "another round gives another cohort"
            );
            let cohorts: Vec<_> = (0..8).map(|seed| select(seed, 0, &everyone)).collect();
            assert!(
                cohorts.iter().any(|cohort| *cohort != cohorts[0]),
                "another seed gives another cohort"
            );
        }
    }
}

/// Every other client took part, in rounds of its own.
fn history(population: u64) -> History {
    let mut history = History::default();
    for client in (0..population).step_by(2) {
        let part = Participation {
            examples: ExampleCount(1 + client * 7 % 13),
            loss: Some(0.5 + (client % 5) as f64),
            loss_square: None,
            time: VirtualDuration(1 + client % 17),
        };
        history.took_part(ClientId(client), RoundId(client % 3), part);
    }
    history
}

/// Whoever a predicate refuses, or the cap of rounds, is not chosen, and the counts say so.
fn filtered(population: u64, history: &History, select: &dyn Fn(Candidates<'_>) -> Selection) {
    let third = |client: ClientId| client.0 % 3 == 1;
    let nobody = |_: ClientId| false;
    let candidates = Candidates::eligible(population, &third).with_history(history);
    let selection = select(candidates);
    assert!(
        selection.clients.windows(2).all(|pair| pair[0] < pair[1]),
        "distinct and ascending: {selection:?}"
    );
    let inside = |client: &ClientId| client.0 < population && third(*client);
    assert!(
        selection.clients.iter().all(inside),
        "all are eligible: {selection:?}"
    );
    assert!(
        selection.goal <= selection.clients.len() as u64,
        "no more reports are wanted than clients asked"
    );
    let screened = selection.screened;
    assert!(
        screened.eligible <= screened.asked && screened.asked <= population,
        "nobody is asked about twice: {screened:?}"
    );
    assert!(
        selection.clients.len() as u64 <= screened.eligible,
        "the chosen were asked about: {screened:?}"
    );
    assert_eq!(
        select(candidates),
        selection,
        "the same candidates give the same cohort"
    );
    let none = select(Candidates::eligible(population, &nobody).with_history(history));
    assert_eq!(
        (none.clients.len(), none.goal),
        (0, 0),
        "nobody is eligible, nobody is chosen"
    );
    let capped = Candidates::everyone(population).with_history(history);
    let capped = select(capped.at_most_rounds(1));
    assert!(
        capped
            .clients
            .iter()
            .all(|&client| history.past(client).is_none()),
        "nobody takes part more often than allowed: {capped:?}"
    );
}

/// Where single clients can be chosen, as many are as are wanted and there are.
fn one_by_one<S: Selector>(make: &dyn Fn() -> S, everyone: &Candidates<'_>) {
    for wanted in [0, 1, 3, 50, 10_000] {
        let choose = || {
            let mut stream = selection_stream(Seed(1), RoundId(2));
            make().choose(wanted, everyone, &mut stream)
        };
        let chosen = match choose() {
            Ok(chosen) => chosen,
            Err(error) => {
                assert_eq!(error, SelectError::WholeCohorts, "the candidates carry all");
                continue;
            }
        };
        assert_eq!(
            chosen.clients.len() as u64,
            wanted.min(everyone.len()),
            "as many are chosen as are wanted"
        );
        assert!(
            chosen.clients.windows(2).all(|pair| pair[0] < pair[1]),
            "distinct and ascending: {chosen:?}"
        );
        assert_eq!(choose(), Ok(chosen), "the same stream chooses the same");
    }
}

/// A list is chosen from by position: the same positions as among everyone.
fn listed(
    population: u64,
    among_everyone: &[ClientId],
    select: &dyn Fn(Candidates<'_>) -> Vec<ClientId>,
) {
    let list: Vec<ClientId> = (0..population)
        .map(|index| ClientId(3 * index + 5))
        .collect();
    let candidates = Candidates::listed(&list).expect("the list ascends");
    let selected = select(candidates);
    assert!(
        selected
            .iter()
            .all(|client| list.binary_search(client).is_ok()),
        "all are from the list: {selected:?}"
    );
    let same: Vec<ClientId> = (0..population).map(ClientId).collect();
    let candidates = Candidates::listed(&same).expect("the list ascends");
    assert_eq!(
        select(candidates),
        among_everyone,
        "a list of everyone is everyone"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Stream;

    #[derive(Debug)]
    struct Faulty(fn(u64, &mut Stream) -> Vec<u64>, bool);

    impl Selector for Faulty {
        fn select(
            &self,
            candidates: &Candidates<'_>,
            stream: &mut Stream,
        ) -> Result<Selection, SelectError> {
            let indices = (self.0)(candidates.len(), stream);
            let mut screen = candidates.screen();
            let clients = indices.into_iter();
            let mut clients: Vec<_> = clients
                .filter_map(|index| candidates.client(index))
                .collect();
            if self.1 {
                clients.retain(|&client| screen.admits(client));
            }
            let goal = clients.len() as u64;
            Ok(Selection {
                clients,
                goal,
                screened: screen.screened(),
            })
        }

        fn largest_goal(&self, population: u64) -> u64 {
            population
        }
    }

    #[test]
    #[should_panic(expected = "distinct and ascending")]
    fn a_repeated_client_is_found() {
        selector(&|| Faulty(|len, stream| vec![stream.below(len); 2], true));
    }

    #[test]
    #[should_panic(expected = "all are eligible")]
    fn a_selector_that_does_not_ask_is_found() {
        selector(&|| {
            Faulty(
                |len, stream| {
                    let start = stream.below(len.max(1));
                    (0..len.min(3))
                        .map(|step| (start + step) % len)
                        .collect::<std::collections::BTreeSet<_>>()
                        .into_iter()
                        .collect()
                },
                false,
            )
        });
    }

    #[test]
    #[should_panic(expected = "another round gives another cohort")]
    fn a_cohort_that_never_changes_is_found() {
        selector(&|| Faulty(|len, _| (0..len.min(3)).collect(), true));
    }
}
