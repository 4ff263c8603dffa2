//! The keys of kind = "example": noise that clients add to the gradients of single examples.

use fl_core::ExampleClipping;
use fl_privacy::{AccountantKind, Delta, Epsilon, NoiseMultiplier, PrivacyError};
use fl_sim::{ExampleLevelPrivacy, Privacy};

use super::{ClippingName, PrivacyKind, PrivacyTable, RelationName, UnitName};
use crate::config::check::Check;

impl PrivacyTable {
    /// Checks that no key means clients where examples are protected, nor the other way round.
    pub(super) fn check_example(&self, check: &Check<'_>) {
        if self.kind != PrivacyKind::Example {
            if self.unit == Some(UnitName::Example) {
                check.fault(
                    "unit",
                    "found \"example\", which only kind = \"example\" protects; remove it, or choose that kind",
                );
            }
            return;
        }
        if self.clipping == ClippingName::Adaptive {
            check.fault(
                "clipping",
                "found \"adaptive\", which follows updates and not gradients of examples; choose \"flat\", \"per-layer\" or \"automatic\"",
            );
        }
        if self.unit == Some(UnitName::Client) {
            check.fault(
                "unit",
                "found \"client\", and kind = \"example\" protects single examples; remove it, or choose kind = \"central\"",
            );
        }
        let special = RelationName::ReplaceSpecial;
        if self.relation.is_some_and(|relation| relation != special) {
            check.fault(
                "relation",
                "kind = \"example\" counts the number of a client's examples as public, which is \"replace-special\"; remove it",
            );
        }
    }

    /// For the simulator.
    pub(super) fn example(
        &self,
        accountant: Option<AccountantKind>,
    ) -> Result<Privacy, PrivacyError> {
        Ok(Privacy::Example(ExampleLevelPrivacy {
            clipping: match self.clipping {
                ClippingName::Flat | ClippingName::Adaptive => ExampleClipping::Flat,
                ClippingName::PerLayer => ExampleClipping::PerLayer,
                ClippingName::Automatic => ExampleClipping::Automatic {
                    stability: self.stability.unwrap_or(0.01),
                },
            },
            max_norm: self.max_norm.unwrap_or(1.0),
            noise_multiplier: self
                .noise_multiplier
                .map(NoiseMultiplier::new)
                .transpose()?,
            epsilon: self.epsilon.map(Epsilon::new).transpose()?,
            delta: Delta::new(self.delta.unwrap_or(0.0))?,
            accountant: accountant.unwrap_or(AccountantKind::Pld),
            participations: self.most_participations,
        }))
    }
}
