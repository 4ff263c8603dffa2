//! From what was released to `epsilon` and `delta`: the [`Accountant`]s.
//!
//! An accountant is fixed to one neighbouring relation. Whatever it answers is a proven bound; an
//! event that it has no valid bound for is refused by a typed error, never estimated.

use core::fmt::{self, Debug};
use core::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::PrivacyError;
use crate::event::DpEvent;
use crate::ledger::Ledger;
use crate::relation::NeighboringRelation;
use crate::units::{Delta, Epsilon};

mod gaussian;
mod naive;
mod pld;
mod rdp;
mod walk;
mod zcdp;

pub use gaussian::GaussianAccountant;
pub(crate) use gaussian::{gaussian_delta, gaussian_epsilon};
pub use naive::NaiveAccountant;
pub(crate) use pld::Care;
pub use pld::{Fineness, PldAccountant};
pub use rdp::RdpAccountant;
pub(crate) use rdp::renyi_epsilon;
pub use zcdp::ZcdpAccountant;

/// A value that is known to lie between two others.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bounds<T> {
    /// At most this: the guarantee that may be reported.
    pub upper: T,
    /// At least this: no analysis can promise less. 0 where the accountant has no lower bound.
    pub lower: T,
}

/// Adds up privacy losses.
pub trait Accountant: Debug + Send + Sync {
    /// Which accountant it is.
    fn kind(&self) -> AccountantKind;

    /// The relation between the data sets that it tells apart.
    fn relation(&self) -> NeighboringRelation;

    /// Adds `count` times the event. After an error nothing has changed.
    ///
    /// # Errors
    /// [`PrivacyError::Unsupported`] for an event without a valid bound under the relation.
    fn compose(&mut self, event: &DpEvent, count: u64) -> Result<(), PrivacyError>;

    /// The smallest `epsilon` for which everything composed so far is
    /// `(epsilon, delta)`-differentially private; infinite if there is none.
    ///
    /// # Errors
    /// Those of the accountant's computation.
    fn epsilon(&self, delta: Delta) -> Result<Bounds<Epsilon>, PrivacyError>;

    /// The smallest `delta` for which everything composed so far is
    /// `(epsilon, delta)`-differentially private.
    ///
    /// # Errors
    /// Those of the accountant's computation.
    fn delta(&self, epsilon: Epsilon) -> Result<Bounds<Delta>, PrivacyError>;

    /// What was composed.
    fn ledger(&self) -> &Ledger;

    /// A copy, for instance to ask what one more round would cost.
    fn boxed_clone(&self) -> Box<dyn Accountant>;
}

impl Clone for Box<dyn Accountant> {
    fn clone(&self) -> Self {
        self.boxed_clone()
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $name:literal => $accountant:ty,)+) => {
        /// The accountants by name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum AccountantKind {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)+
        }

        impl AccountantKind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Its name, as serialised.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }

        /// A new accountant that nothing has been given to.
        #[must_use]
        pub fn accountant(
            kind: AccountantKind,
            relation: NeighboringRelation,
        ) -> Box<dyn Accountant> {
            match kind {
                $(AccountantKind::$variant => Box::new(<$accountant>::new(relation)),)+
            }
        }

        const KNOWN: &str = concat!("the accountants" $(, " `", $name, "`")+);
    };
}

// An accountant is one file and one row here.
kinds! {
    /// Privacy loss distributions: the default.
    Pld = "pld" => PldAccountant,
    /// Exact, for compositions of Gaussian mechanisms on all members.
    Gaussian = "gaussian" => GaussianAccountant,
    /// Rényi differential privacy.
    Rdp = "rdp" => RdpAccountant,
    /// Zero-concentrated differential privacy, without amplification by sampling.
    Zcdp = "zcdp" => ZcdpAccountant,
    /// The plain sum of each event's own guarantee.
    Naive = "naive" => NaiveAccountant,
}

impl fmt::Display for AccountantKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for AccountantKind {
    type Err = PrivacyError;

    fn from_str(text: &str) -> Result<Self, PrivacyError> {
        Self::ALL
            .iter()
            .copied()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| PrivacyError::UnknownName {
                what: "accountant",
                given: text.to_owned(),
                known: KNOWN,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_return() {
        for &kind in AccountantKind::ALL {
            assert_eq!(kind.name().parse::<AccountantKind>(), Ok(kind));
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{kind}\""));
            for relation in NeighboringRelation::ALL {
                let accountant = accountant(kind, relation);
                assert_eq!(accountant.kind(), kind);
                assert_eq!(accountant.relation(), relation);
            }
        }
        let error = "clt".parse::<AccountantKind>().unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("unknown accountant `clt`; known are")
        );
    }

    #[test]
    fn nothing_costs_nothing() {
        for &kind in AccountantKind::ALL {
            let mut accountant = accountant(kind, NeighboringRelation::AddOrRemoveOne);
            accountant.compose(&DpEvent::NoOp, 5).unwrap();
            let epsilon = accountant.epsilon(Delta::new(1e-6).unwrap()).unwrap();
            assert_eq!(epsilon.upper, Epsilon::ZERO, "{kind}");
            accountant.compose(&DpEvent::NonPrivate, 1).unwrap();
            let epsilon = accountant.epsilon(Delta::new(1e-6).unwrap()).unwrap();
            assert_eq!(epsilon.upper, Epsilon::INFINITY, "{kind}");
            assert_eq!(
                accountant.delta(Epsilon::ZERO).unwrap().upper,
                Delta::ONE,
                "{kind}"
            );
            assert_eq!(accountant.ledger().entries().len(), 2);
        }
    }
}
