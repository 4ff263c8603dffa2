//! Which rows belong to which client, as one flat table.

/// What a partitioner knows of the rows that it divides.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// Number of rows.
    pub len: usize,
    /// Class of each row, each below [`classes`](Self::classes); none for regression and text.
    pub labels: Option<&'a [u32]>,
    /// Number of classes; zero without labels.
    pub classes: usize,
    /// The natural owner of each row, where the data name one.
    pub groups: Option<Groups<'a>>,
}

/// The natural owners of rows: writers, speakers, values of a column.
#[derive(Clone, Copy, Debug)]
pub struct Groups<'a> {
    /// Owner of each row, each below [`count`](Self::count).
    pub of: &'a [u32],
    /// Number of owners.
    pub count: usize,
    /// What an owner is, e.g. `writer`; for messages.
    pub noun: &'a str,
}

/// Client `c` has the rows `rows[offsets[c] .. offsets[c + 1]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientIndex {
    offsets: Vec<u32>,
    rows: Vec<u32>,
}

/// Why a client index was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientIndexError {
    /// The offsets do not begin at zero, decrease, or do not end at the number of rows.
    #[error(
        "offset {at} of the client index is {found}; offsets must start at 0, never decrease and end at {rows}, the number of rows assigned"
    )]
    Offsets {
        /// Place in the offsets.
        at: usize,
        /// The offset there.
        found: u32,
        /// Number of rows assigned.
        rows: usize,
    },
    /// A row that the data do not have.
    #[error("client {client} was given row {row} of {total}; assign only rows that exist")]
    RowOutOfRange {
        /// The client.
        client: u64,
        /// The row.
        row: u32,
        /// Rows of the data.
        total: usize,
    },
    /// One row has two owners, or one owner twice.
    #[error(
        "row {row} was assigned twice, the second time to client {client}; give each row to at most one client"
    )]
    Duplicate {
        /// The second owner.
        client: u64,
        /// The row.
        row: u32,
    },
    /// More rows than an index can address.
    #[error("{0} rows are more than an index holds; keep below 4294967295")]
    TooManyRows(usize),
}

impl ClientIndex {
    /// An index over data of `total` rows; rows may be left out, but none has two owners.
    ///
    /// # Errors
    /// [`ClientIndexError`] when the offsets are not a partition of `rows`, or a row does not
    /// exist or appears twice.
    pub fn new(offsets: Vec<u32>, rows: Vec<u32>, total: usize) -> Result<Self, ClientIndexError> {
        if rows.len() >= u32::MAX as usize || total >= u32::MAX as usize {
            return Err(ClientIndexError::TooManyRows(rows.len().max(total)));
        }
        let wrong = |at: usize| ClientIndexError::Offsets {
            at,
            found: offsets.get(at).copied().unwrap_or(0),
            rows: rows.len(),
        };
        if offsets.first() != Some(&0) {
            return Err(wrong(0));
        }
        if let Some(at) = (1..offsets.len()).find(|&at| offsets[at] < offsets[at - 1]) {
            return Err(wrong(at));
        }
        if offsets.last().map(|&last| last as usize) != Some(rows.len()) {
            return Err(wrong(offsets.len() - 1));
        }
        let mut seen = vec![0u64; total.div_ceil(64)];
        for client in 0..offsets.len() - 1 {
            for &row in &rows[offsets[client] as usize..offsets[client + 1] as usize] {
                if row as usize >= total {
                    return Err(ClientIndexError::RowOutOfRange {
                        client: client as u64,
                        row,
                        total,
                    });
                }
                let (word, bit) = (row as usize / 64, 1u64 << (row % 64));
                if seen[word] & bit != 0 {
                    return Err(ClientIndexError::Duplicate {
                        client: client as u64,
                        row,
                    });
                }
                seen[word] |= bit;
            }
        }
        Ok(Self { offsets, rows })
    }

    /// The index in which row `r` belongs to client `owner[r]`, or to none where that is
    /// `u32::MAX`; within a client rows ascend.
    ///
    /// # Errors
    /// [`ClientIndexError::TooManyRows`].
    ///
    /// # Panics
    /// When another owner is not below `clients`.
    pub fn from_owners(owner: &[u32], clients: usize) -> Result<Self, ClientIndexError> {
        if owner.len() >= u32::MAX as usize {
            return Err(ClientIndexError::TooManyRows(owner.len()));
        }
        let owned = || {
            (0u32..)
                .zip(owner)
                .filter(|&(_, &client)| client != u32::MAX)
        };
        let mut offsets = vec![0u32; clients + 1];
        for (_, &client) in owned() {
            offsets[client as usize + 1] += 1;
        }
        for client in 0..clients {
            offsets[client + 1] += offsets[client];
        }
        let mut next = offsets.clone();
        let mut rows = vec![0u32; offsets[clients] as usize];
        for (row, &client) in owned() {
            let place = &mut next[client as usize];
            rows[*place as usize] = row;
            *place += 1;
        }
        Ok(Self { offsets, rows })
    }

    /// Number of clients.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Number of rows of all clients together.
    #[must_use]
    pub fn assigned(&self) -> usize {
        self.rows.len()
    }

    /// Number of rows of `client`; zero for a client outside the population.
    #[must_use]
    pub fn len_of(&self, client: u64) -> usize {
        self.rows_of(client).len()
    }

    /// Rows of `client`; none for a client outside the population.
    #[must_use]
    pub fn rows_of(&self, client: u64) -> &[u32] {
        let range = usize::try_from(client).ok().and_then(|client| {
            let end = *self.offsets.get(client.checked_add(1)?)?;
            Some(self.offsets[client] as usize..end as usize)
        });
        range.map_or(&[], |range| &self.rows[range])
    }

    /// Where each client's rows begin in [`rows`](Self::rows); one more than there are clients.
    #[must_use]
    pub fn offsets(&self) -> &[u32] {
        &self.offsets
    }

    /// The rows of all clients, client after client.
    #[must_use]
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_make_a_partition() {
        let index = ClientIndex::from_owners(&[2, 0, 2, 1, 0], 4).unwrap();
        assert_eq!(index.clients(), 4);
        assert_eq!(index.rows_of(0), [1, 4]);
        assert_eq!(index.rows_of(1), [3]);
        assert_eq!(index.rows_of(2), [0, 2]);
        assert_eq!(index.rows_of(3), [0u32; 0]);
        assert_eq!(index.rows_of(4), [0u32; 0]);
        assert_eq!(index.rows_of(u64::MAX), [0u32; 0]);
        let part = ClientIndex::from_owners(&[1, u32::MAX, 0], 2).unwrap();
        assert_eq!((part.offsets(), part.rows()), (&[0, 1, 2][..], &[2, 0][..]));
        let again = ClientIndex::new(index.offsets().to_vec(), index.rows().to_vec(), 5);
        assert_eq!(again, Ok(index));
    }

    #[test]
    fn wrong_indices_are_refused() {
        use ClientIndexError as E;
        #[rustfmt::skip]
        let cases: &[(&[u32], &[u32], usize, E)] = &[
            (&[], &[], 0, E::Offsets { at: 0, found: 0, rows: 0 }),
            (&[1], &[0], 1, E::Offsets { at: 0, found: 1, rows: 1 }),
            (&[0, 2, 1], &[0], 1, E::Offsets { at: 2, found: 1, rows: 1 }),
            (&[0, 1], &[0, 1], 2, E::Offsets { at: 1, found: 1, rows: 2 }),
            (&[0, 1, 2], &[0, 2], 2, E::RowOutOfRange { client: 1, row: 2, total: 2 }),
            (&[0, 1, 3], &[1, 0, 1], 2, E::Duplicate { client: 1, row: 1 }),
        ];
        for (offsets, rows, total, expected) in cases {
            let found = ClientIndex::new(offsets.to_vec(), rows.to_vec(), *total);
            assert_eq!(found.as_ref().unwrap_err(), expected);
        }
    }
}
