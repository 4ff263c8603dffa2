//! Why there is no such fleet.

use fl_edge::device::{EstimateError, ProfileError};

use super::trace::TraceError;

/// Why a fleet cannot be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FleetError {
    /// There is neither a mix nor a device class of this name.
    #[error("there is no mix and no device class called `{name}`; {hint}")]
    UnknownMix {
        /// The name.
        name: String,
        /// The nearest name, or all.
        hint: String,
    },
    /// There is no device class of this name.
    #[error("the mix `{mix}` names the device class `{name}`, which there is not; {hint}")]
    UnknownProfile {
        /// The mix.
        mix: String,
        /// The name.
        name: String,
        /// The nearest name, or all.
        hint: String,
    },
    /// Shares that are no shares of a whole.
    #[error(
        "the shares of {what} in the mix `{mix}` must each be above 0 and at most 1 and add up to 1; \
         they add up to {sum}"
    )]
    Shares {
        /// The mix.
        mix: String,
        /// Of what.
        what: &'static str,
        /// Their sum, or the share that is none.
        sum: f64,
    },
    /// A mix table that cannot be read.
    #[error("the mix `{mix}`: {message}")]
    Form {
        /// The mix.
        mix: String,
        /// What the reader says.
        message: String,
    },
    /// A number of a mix without a listed source.
    #[error(
        "the mix `{mix}`: the source of `{key}` names `{source_key}`, which is not in [sources]"
    )]
    Source {
        /// The mix.
        mix: String,
        /// The key.
        key: String,
        /// What it names.
        source_key: String,
    },
    /// A number outside its range.
    #[error("`{key}` is {value}; it must be {range}")]
    Range {
        /// The key.
        key: String,
        /// The value, printed.
        value: String,
        /// The range in words.
        range: &'static str,
    },
    /// A device class that cannot be read.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// No cost is known of the training.
    #[error("the cost of training: {0}")]
    Estimate(#[from] EstimateError),
    /// The training needs what the model does not have.
    #[error("the cost of training: {0}")]
    Training(&'static str),
    /// A recording that cannot be read.
    #[error(transparent)]
    Trace(#[from] TraceError),
}

impl FleetError {
    pub(crate) fn range(key: &str, value: impl ToString, range: &'static str) -> Self {
        Self::Range {
            key: key.to_owned(),
            value: value.to_string(),
            range,
        }
    }
}

/// `did you mean ...?` for the nearest of `names`, or the list of all.
pub(super) fn hint<'a>(found: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    let wanted = found.to_lowercase().replace('_', "-");
    let nearest = names
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&wanted, name), *name))
        .min()
        .filter(|(distance, name)| *distance <= (name.len().max(found.len()) / 3).max(1));
    match nearest {
        Some((_, name)) => format!("did you mean `{name}`?"),
        None => format!("choose one of {}", names.join(", ")),
    }
}
