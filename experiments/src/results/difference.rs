//! Where two records of one run part.

use serde::Serialize;

use super::row::{Cell, Row};

/// The first value in which two records differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The table, or `model` or `data`.
    pub table: String,
    /// The round in the table: the round's number in `rounds`, rounds done in the others.
    pub round: Option<u64>,
    /// The client, in `clients`.
    pub client: Option<u64>,
    /// The column; the tensor and index in a model.
    pub column: String,
    /// The value in the first record.
    pub first: String,
    /// The value in the second record.
    pub second: String,
}

impl core::fmt::Display for Difference {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}", self.table)?;
        if let Some(round) = self.round {
            write!(f, ", round {round}")?;
        }
        if let Some(client) = self.client {
            write!(f, ", client {client}")?;
        }
        write!(f, ", {}: {} and {}", self.column, self.first, self.second)
    }
}

/// The first column in which two rows differ in a bit.
pub(crate) fn of_rows<R: Row>(first: &R, second: &R) -> Option<Difference> {
    let (first, second) = (first.cells(), second.cells());
    let count = |name: &str| {
        let index = R::COLUMNS.iter().position(|(column, _)| *column == name)?;
        match first[index] {
            Cell::Count(value) => Some(value),
            _ => None,
        }
    };
    R::COLUMNS
        .iter()
        .zip(first.iter().zip(&second))
        .find(|(_, (a, b))| !a.same_bits(b))
        .map(|((column, _), (a, b))| Difference {
            table: R::TABLE.to_owned(),
            round: count("round"),
            client: count("client"),
            column: (*column).to_owned(),
            first: a.to_string(),
            second: b.to_string(),
        })
}

/// The first difference of two tables, row by row; rows that only one has do not count.
pub(crate) fn of_tables<R: Row>(first: &[R], second: &[R]) -> Option<Difference> {
    first
        .iter()
        .zip(second)
        .find_map(|(first, second)| of_rows(first, second))
}

#[cfg(test)]
mod tests {
    use super::super::row::ClientRow;
    use super::*;

    #[test]
    fn the_first_difference_is_named() {
        let row = |client, loss| ClientRow {
            round: 9,
            client,
            split: "test".to_owned(),
            examples: 4,
            loss,
            accuracy: 0.5,
        };
        let first = [row(1, 0.25), row(2, 0.1 + 0.2), row(3, 1.0)];
        assert_eq!(of_tables(&first, &first), None);
        assert_eq!(of_tables(&first, &first[..1]), None);
        let second = [row(1, 0.25), row(2, 0.3), row(4, 1.0)];
        let difference = of_tables(&first, &second).unwrap();
        assert_eq!(
            difference.to_string(),
            "clients, round 9, client 2, loss: 0.30000000000000004 and 0.3"
        );
    }
}
