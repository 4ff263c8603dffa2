//! The conformance suite of partitioners, and helpers for their tests.

use fl_core::{ClientId, Purpose, RoundId, Seed, Stream};

use super::Partitioner;
use crate::index::{ClientIndex, Groups, Rows};

/// Checks the [law](Partitioner) on data that any partitioner can divide (2,000 rows of 10 classes
/// and 40 owners, as long as it asks for at most 100 clients), and on random small data, which it
/// may refuse but must not divide wrongly.
///
/// # Panics
/// When the law is broken.
pub fn conformance<P: Partitioner>(make: &impl Fn() -> P) {
    let partitioner = make();
    let mut stream = Stream::at(Purpose::Testing, Seed(0), RoundId(0), ClientId(0));
    let ample = Data {
        labels: (0..2000).map(|row| row % 10).collect(),
        classes: 10,
        owners: (0..2000).map(|row| (row * row / 7) % 40).collect(),
        count: 40,
    };
    let first = check(&partitioner, &ample, Seed(1));
    assert!(first.is_some(), "{partitioner:?} refuses the ample data");
    let other = check(&partitioner, &ample, Seed(2));
    assert_eq!(
        first != other,
        partitioner.promise().seeded,
        "{partitioner:?}: another seed must give another partition exactly when it is promised"
    );
    assert_eq!(
        make().assign(&ample.rows(), Seed(1)).ok(),
        first,
        "{partitioner:?}: a second value of the same configuration divides otherwise"
    );
    for case in 0..60 {
        let len = stream.below(120) as usize;
        let classes = 1 + stream.below(12) as usize;
        let count = 1 + stream.below(30) as usize;
        let mut draw = |bound: usize| -> Vec<u32> {
            // The smaller of two draws: unequal classes and owners, some of them empty.
            let bound = bound as u64;
            let mut one = || stream.below(bound).min(stream.below(bound)) as u32;
            (0..len).map(|_| one()).collect()
        };
        let data = Data {
            labels: draw(classes),
            classes,
            owners: draw(count),
            count,
        };
        check(&partitioner, &data, Seed(case));
    }
}

struct Data {
    labels: Vec<u32>,
    classes: usize,
    owners: Vec<u32>,
    count: usize,
}

impl Data {
    fn rows(&self) -> Rows<'_> {
        Rows {
            len: self.labels.len(),
            labels: Some(&self.labels),
            classes: self.classes,
            groups: Some(Groups {
                of: &self.owners,
                count: self.count,
                noun: "owner",
            }),
        }
    }
}

/// Divides and checks what can be checked on one result; none when it is refused.
fn check(partitioner: &impl Partitioner, data: &Data, seed: Seed) -> Option<ClientIndex> {
    let rows = data.rows();
    let promise = partitioner.promise();
    let result = partitioner.assign(&rows, seed);
    assert_eq!(
        result,
        partitioner.assign(&rows, seed),
        "{partitioner:?}: the same seed gives two results"
    );
    let index = match result {
        Ok(index) => index,
        Err(error) => {
            let text = error.to_string();
            assert!(text.len() > 20, "{partitioner:?}: a bare error: {text}");
            return None;
        }
    };
    let checked = ClientIndex::new(index.offsets().to_vec(), index.rows().to_vec(), rows.len);
    assert_eq!(
        checked.as_ref(),
        Ok(&index),
        "{partitioner:?}: rows have two owners or do not exist"
    );
    if let Some(clients) = promise.clients {
        assert_eq!(index.clients() as u64, clients, "{partitioner:?}: clients");
    }
    if promise.covering {
        assert_eq!(index.assigned(), rows.len, "{partitioner:?}: not covering");
    }
    for client in 0..index.clients() as u64 {
        assert!(
            index.len_of(client) as u64 >= promise.min_examples,
            "{partitioner:?}: client {client} has {} of {} examples promised",
            index.len_of(client),
            promise.min_examples
        );
        assert!(
            index
                .rows_of(client)
                .windows(2)
                .all(|pair| pair[0] < pair[1]),
            "{partitioner:?}: the rows of client {client} do not ascend"
        );
    }
    Some(index)
}

/// Labels with `sizes[c]` rows of class `c`, class after class.
#[must_use]
pub fn labelled(sizes: &[usize]) -> Vec<u32> {
    let classes = sizes.iter().enumerate();
    classes
        .flat_map(|(class, &size)| core::iter::repeat_n(class as u32, size))
        .collect()
}

/// Divides `labels` and counts the rows of each class that each client has.
///
/// # Panics
/// When the partitioner refuses the data.
#[must_use]
pub fn counts(
    partitioner: &impl Partitioner,
    labels: &[u32],
    classes: usize,
    seed: u64,
) -> Vec<Vec<u64>> {
    let rows = Rows {
        len: labels.len(),
        labels: Some(labels),
        classes,
        groups: None,
    };
    let index = match partitioner.assign(&rows, Seed(seed)) {
        Ok(index) => index,
        Err(error) => panic!("{partitioner:?} refuses the data: {error}"),
    };
    (0..index.clients() as u64)
        .map(|client| {
            let mut counts = vec![0; classes];
            for &row in index.rows_of(client) {
                counts[labels[row as usize] as usize] += 1;
            }
            counts
        })
        .collect()
}
