//! Why data could not be divided as asked.

use fl_core::registry::ConfigError;

use crate::index::ClientIndexError;

/// Why a partition is impossible.
#[derive(Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum PartitionError {
    /// A key's value is outside its range, whatever the data are.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An index that no table can hold.
    #[error(transparent)]
    Index(#[from] ClientIndexError),
    /// The data hold no rows.
    #[error("there are no examples to divide; check the data set's `limit` and files")]
    NoRows,
    /// More rows than an index can address.
    #[error("{0} examples are more than a partition can address; keep below 4294967295")]
    TooManyRows(usize),
    /// More clients than rows.
    #[error("{clients} clients cannot share {rows} examples; ask for at most {rows} clients")]
    TooManyClients {
        /// Clients asked for.
        clients: u64,
        /// Rows of the data.
        rows: u64,
    },
    /// The clients' smallest sizes together exceed the data.
    #[error(
        "{clients} clients of at least {min_examples} examples need {} examples and there are {rows}; lower `min_examples` to at most {}, or ask for fewer clients",
        clients.saturating_mul(*min_examples), rows / clients
    )]
    MinimumImpossible {
        /// Clients asked for.
        clients: u64,
        /// Examples that each must have.
        min_examples: u64,
        /// Rows of the data.
        rows: u64,
    },
    /// More shards than rows.
    #[error(
        "{clients} clients of {shards_per_client} shards need {} shards and there are {rows} examples; lower `clients` or `shards_per_client`",
        clients.saturating_mul(*shards_per_client)
    )]
    TooManyShards {
        /// Clients asked for.
        clients: u64,
        /// Shards of each.
        shards_per_client: u64,
        /// Rows of the data.
        rows: u64,
    },
    /// More labels per client than there are.
    #[error("a client cannot hold {labels} labels: the data have {classes}; lower `labels`")]
    TooManyLabels {
        /// Labels asked for each client.
        labels: u64,
        /// Classes with at least one example.
        classes: usize,
    },
    /// Some class would belong to nobody.
    #[error(
        "{clients} clients of {labels} labels hold at most {} of the {classes} classes; raise `labels` or `clients` until their product is at least {classes}",
        clients.saturating_mul(*labels)
    )]
    ClassesUncovered {
        /// Clients asked for.
        clients: u64,
        /// Labels of each.
        labels: u64,
        /// Classes with at least one example.
        classes: usize,
    },
    /// A class has fewer examples than clients that are to share it.
    #[error(
        "class {class} has {rows} examples for the {clients} clients that are to share it, at least {each} each; lower `clients`, `labels` or `min_examples`"
    )]
    ClassTooSmall {
        /// The class.
        class: usize,
        /// Its examples.
        rows: u64,
        /// Clients that share it.
        clients: u64,
        /// Examples that each is to have of it.
        each: u64,
    },
    /// The partition needs classes and the data have none.
    #[error(
        "partition `{kind}` divides by class and this data set has no classes; use `iid`, `natural` or a `quantity-...` partition"
    )]
    NoLabels {
        /// The partition.
        kind: &'static str,
    },
    /// A label outside the declared classes.
    #[error("example {row} has label {label} where the data declare {classes} classes")]
    LabelOutOfRange {
        /// The row.
        row: usize,
        /// Its label.
        label: u32,
        /// Declared classes.
        classes: usize,
    },
    /// The labels or owners are not one per row.
    #[error("{found} {noun} were given for {rows} examples; give one each")]
    WrongLength {
        /// `labels` or `owners`.
        noun: &'static str,
        /// How many were given.
        found: usize,
        /// Rows of the data.
        rows: usize,
    },
    /// The data name no natural owners.
    #[error(
        "partition `natural` needs data that name an owner of each example (a writer, a speaker, a client column), and this data set names none; choose another partition"
    )]
    NoGroups,
    /// An owner outside the declared ones.
    #[error("example {row} belongs to owner {owner} where the data declare {owners}")]
    OwnerOutOfRange {
        /// The row.
        row: usize,
        /// Its owner.
        owner: u32,
        /// Declared owners.
        owners: usize,
    },
    /// No owner, or not enough of them, has the smallest size.
    #[error(
        "{clients} clients are asked for and {found} {noun}s have at least {min_examples} examples (the largest has {largest}); lower `clients` or `min_examples`"
    )]
    TooFewOwners {
        /// Clients asked for; one when all owners would do.
        clients: u64,
        /// Owners that are large enough.
        found: u64,
        /// What an owner is.
        noun: String,
        /// Examples that each must have.
        min_examples: u64,
        /// Examples of the largest.
        largest: u64,
    },
}
