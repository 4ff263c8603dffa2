//! Counts and identifiers as types, where a mix-up would hurt.

use core::fmt;

use serde::{Deserialize, Serialize};

macro_rules! whole_number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl From<u64> for $name {
            fn from(value: u64) -> Self {
                Self(value)
            }
        }
    };
}

whole_number! {
    /// One client of the population, `0 .. population`.
    ClientId
}
whole_number! {
    /// One round, counted from zero. Round `r` turns model version `r` into version `r + 1`.
    RoundId
}
whole_number! {
    /// The seed of an experiment; part of every random stream's address.
    Seed
}
whole_number! {
    /// A number of training examples.
    ExampleCount
}
whole_number! {
    /// An integer aggregation weight, so that sums of weights are exact.
    Weight
}
whole_number! {
    /// A size in bytes.
    Bytes
}
whole_number! {
    /// A span of virtual time in microseconds. Never the wall clock.
    VirtualDuration
}

whole_number! {
    /// A moment of virtual time in microseconds since the run began. Never the wall clock.
    VirtualTime
}

impl core::ops::Add<VirtualDuration> for VirtualTime {
    type Output = Self;

    /// Saturates at the end of time (584,000 years).
    fn add(self, span: VirtualDuration) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

impl core::ops::Sub for VirtualTime {
    type Output = VirtualDuration;

    /// The span from `earlier` to `self`; zero when `earlier` is later.
    fn sub(self, earlier: Self) -> VirtualDuration {
        VirtualDuration(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_moments_saturate() {
        let cases = [(5, 7, 12), (0, 0, 0), (u64::MAX, 1, u64::MAX)];
        for (moment, span, later) in cases {
            assert_eq!(
                VirtualTime(moment) + VirtualDuration(span),
                VirtualTime(later)
            );
        }
        assert_eq!(VirtualTime(9) - VirtualTime(4), VirtualDuration(5));
        assert_eq!(VirtualTime(4) - VirtualTime(9), VirtualDuration(0));
    }

    #[test]
    fn numbers_are_written_as_numbers() {
        assert_eq!(serde_json::to_string(&ClientId(7)).unwrap(), "7");
        assert_eq!(serde_json::from_str::<Weight>("7").unwrap(), Weight(7));
        assert_eq!(Bytes(12).to_string(), "12");
    }
}
