//! The law of [`Selector`].

use crate::select::{Candidates, Selector, selection_stream};
use crate::units::{ClientId, ExampleCount, RoundId, Seed};

/// Checks a selector: candidates only, distinct, ascending, a function of (seed, round,
/// candidates), and different in another round or under another seed.
///
/// # Panics
/// When a law is broken.
pub fn selector<S: Selector>(make: &dyn Fn() -> S) {
    let examples = |client: ClientId| ExampleCount(1 + client.0 * 7 % 13);
    for population in [0u64, 1, 2, 9, 10, 11, 400, 5000] {
        let everyone = Candidates::everyone(population).with_examples(&examples);
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
            &|candidates| select(1, 0, &candidates.with_examples(&examples)).clients,
        );
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
    use crate::select::{SelectError, Selection};
    use crate::stream::Stream;

    #[derive(Debug)]
    struct Faulty(fn(u64, &mut Stream) -> Vec<u64>);

    impl Selector for Faulty {
        fn select(
            &self,
            candidates: &Candidates<'_>,
            stream: &mut Stream,
        ) -> Result<Selection, SelectError> {
            let indices = (self.0)(candidates.len(), stream);
            let clients: Vec<_> = indices
                .into_iter()
                .filter_map(|index| candidates.client(index))
                .collect();
            let goal = clients.len() as u64;
            Ok(Selection { clients, goal })
        }

        fn largest_goal(&self, population: u64) -> u64 {
            population
        }
    }

    #[test]
    #[should_panic(expected = "distinct and ascending")]
    fn a_repeated_client_is_found() {
        selector(&|| Faulty(|len, stream| vec![stream.below(len); 2]));
    }

    #[test]
    #[should_panic(expected = "another round gives another cohort")]
    fn a_cohort_that_never_changes_is_found() {
        selector(&|| Faulty(|len, _| (0..len.min(3)).collect()));
    }
}
