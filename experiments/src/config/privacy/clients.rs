//! The keys of kind = "local" and "distributed": noise that clients add.

use fl_privacy::distributed::{DistributedConfig, DistributedNoise};
use fl_privacy::plan::{ClientNoise, ClientPlanConfig, Observer, RingNoise};
use fl_privacy::{
    AccountantKind, Delta, Epsilon, NeighboringRelation, NoiseMultiplier, PrivacyError,
};
use fl_sim::{ClientPrivacy, Privacy};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ClippingName, MechanismName, PrivacyKind, PrivacyTable};
use crate::config::check::Check;

/// Whose epsilon is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ObserverName {
    /// The server's.
    Server,
    /// That of whoever sees the released models alone.
    Released,
}

impl PrivacyTable {
    /// Checks what noise by clients needs, and that no key of it is given without.
    pub(super) fn check_clients(&self, check: &Check<'_>) {
        let clients = matches!(self.kind, PrivacyKind::Local | PrivacyKind::Distributed);
        let ring = self.kind == PrivacyKind::Distributed;
        let both = "\"local\" or \"distributed\"";
        let keys = [
            ("observer", self.observer.is_some(), clients, both),
            (
                "least_survivors",
                self.least_survivors.is_some(),
                clients,
                both,
            ),
            (
                "most_participations",
                self.most_participations.is_some(),
                clients || self.kind == PrivacyKind::Example,
                "\"local\", \"distributed\" or \"example\"",
            ),
            (
                "colluding_share",
                self.colluding_share.is_some(),
                ring,
                "\"distributed\"",
            ),
            ("bits", self.bits.is_some(), ring, "\"distributed\""),
            (
                "rounding_bias",
                self.rounding_bias.is_some(),
                ring,
                "\"distributed\"",
            ),
            (
                "wrap_limit",
                self.wrap_limit.is_some(),
                ring,
                "\"distributed\"",
            ),
            (
                "extrapolated_population",
                self.extrapolated_population.is_some(),
                self.kind == PrivacyKind::Central,
                "\"central\"",
            ),
            (
                "extrapolated_cohort",
                self.extrapolated_cohort.is_some(),
                self.kind == PrivacyKind::Central,
                "\"central\"",
            ),
        ];
        for (key, given, used, kinds) in keys {
            if given && !used {
                check.fault(
                    key,
                    format!(
                        "is used with kind = {kinds} alone, and kind is {:?}; remove it, or choose that kind",
                        self.kind.name()
                    ),
                );
            }
        }
        if clients && self.clipping != ClippingName::Flat {
            check.fault(
                "clipping",
                format!(
                    "found {:?}, and clients that add noise themselves clip to one norm; choose \"flat\"",
                    self.clipping.name()
                ),
            );
        }
        type Number = (&'static str, Option<f64>, fn(f64) -> bool, &'static str);
        let numbers: [Number; 4] = [
            (
                "least_survivors",
                self.least_survivors,
                |share| share > 0.0 && share <= 1.0,
                "a share above 0 and at most 1",
            ),
            (
                "colluding_share",
                self.colluding_share,
                |share| (0.0..1.0).contains(&share),
                "a share from 0 to below 1",
            ),
            (
                "rounding_bias",
                self.rounding_bias,
                |bias| (0.0..1.0).contains(&bias),
                "a number from 0 to below 1",
            ),
            (
                "wrap_limit",
                self.wrap_limit,
                |limit| limit > 0.0 && limit <= 1e-3,
                "a probability above 0 and at most 1e-3",
            ),
        ];
        for (key, value, fits, expected) in numbers {
            if let Some(value) = value {
                check.demand(key, fits(value), &value, expected);
            }
        }
        if let Some(bits) = self.bits {
            check.demand("bits", (4..=62).contains(&bits), &bits, "4 to 62");
        }
        if let Some(most) = self.most_participations {
            check.demand("most_participations", most > 0, &most, "at least 1");
        }
    }

    /// The share of clients whose noise the server may know, where they add it together.
    pub(crate) fn colluding(&self) -> Option<f64> {
        let shared = self.kind == PrivacyKind::Distributed;
        shared.then(|| self.colluding_share.unwrap_or(0.0))
    }

    /// Writes out the defaults of the keys that are used.
    pub(super) fn fill_clients(&mut self) {
        self.observer.get_or_insert(ObserverName::Server);
        self.least_survivors
            .get_or_insert(ClientPlanConfig::DEFAULT_LEAST_SURVIVORS);
        if self.kind == PrivacyKind::Distributed {
            self.colluding_share.get_or_insert(0.0);
            self.rounding_bias
                .get_or_insert(DistributedConfig::DEFAULT_ROUNDING_BIAS);
            self.wrap_limit
                .get_or_insert(DistributedConfig::DEFAULT_WRAP_LIMIT);
        }
    }

    /// For the simulator.
    pub(super) fn clients(
        &self,
        accountant: Option<AccountantKind>,
        relation: Option<NeighboringRelation>,
    ) -> Result<Privacy, PrivacyError> {
        let natural = RingNoise::default();
        let noise = match self.kind {
            PrivacyKind::Distributed => ClientNoise::Distributed(RingNoise {
                mechanism: match self.mechanism {
                    Some(MechanismName::DiscreteGaussian) => DistributedNoise::DiscreteGaussian,
                    Some(MechanismName::Skellam) => DistributedNoise::Skellam,
                    _ => natural.mechanism,
                },
                bits: self.bits,
                rounding_bias: self.rounding_bias.unwrap_or(natural.rounding_bias),
                wrap_limit: self.wrap_limit.unwrap_or(natural.wrap_limit),
            }),
            _ => ClientNoise::Local,
        };
        let noise_multiplier = self.noise_multiplier.map(NoiseMultiplier::new);
        let least = ClientPlanConfig::DEFAULT_LEAST_SURVIVORS;
        Ok(Privacy::Clients(ClientPrivacy {
            noise,
            max_norm: self.max_norm.unwrap_or(1.0),
            noise_multiplier: noise_multiplier.transpose()?,
            epsilon: self.epsilon.map(Epsilon::new).transpose()?,
            observer: match self.observer {
                Some(ObserverName::Released) => Observer::Released,
                Some(ObserverName::Server) | None => Observer::Server,
            },
            delta: Delta::new(self.delta.unwrap_or(0.0))?,
            accountant,
            relation,
            least_survivors: self.least_survivors.unwrap_or(least),
            colluding_share: self.colluding_share.unwrap_or(0.0),
            most_participations: self.most_participations,
        }))
    }
}
