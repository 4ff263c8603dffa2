//! The parameters of a run's sessions, of any number of clients.

use std::collections::BTreeMap;
use std::sync::Arc;

use fl_core::select::{AnySelector, SelectorConfig};
use fl_core::strategy::{AnyStrategy, Stragglers, Strategy as _};
use fl_core::{ClientId, Layout, RingPlan, Weight};
use fl_secagg::{Cohort, Params, ParamsError, Ring, Suite, Threat, Topology, Traffic};

use super::{SecAggConfig, SecAggError, SecAggGraph, SecAggSuite, SecAggThreat};
use crate::aggregation::{asked, plan_ring, sizes};
use crate::config::{SimulationConfig, refused};
use crate::error::SimError;
use crate::privacy::PrivacyPlan;

/// Clients up to which a complete graph is the default.
const COMPLETE_UP_TO: u32 = 100;
/// The least share of drop-outs that is expected when none is given: an update that is not finite
/// leaves its session, too.
const LEAST_DROPOUT: f64 = 0.05;
/// Deviations that are expected to be survived when no share is given: the most that are safe.
const MARGINS: [f64; 7] = [3.0, 2.5, 2.0, 1.5, 1.0, 0.5, 0.0];

/// What is summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vectors {
    /// Integers of updates: values of a unit of weight up to `2^(value_bits - 1)`.
    Bounded { max_weight: u64, value_bits: u32 },
    /// Elements of `Z_2^b`.
    Modular { bits: u32 },
}

/// The sessions of a run: their parameters for any number of clients.
#[derive(Clone, Debug)]
pub struct SecAggPlan {
    config: SecAggConfig,
    vectors: Vectors,
    /// Coordinates.
    length: usize,
    /// Whether the last coordinate counts clipped updates.
    counts_clips: bool,
    /// The fewest reports that clients' noise is made for.
    least: u32,
    /// The share of a session's clients that leave before its end, in the mean.
    leaving: f64,
    /// Clients that are asked, or in the mean where that is not a fixed number.
    asked: u64,
    /// The most clients of a session, or in the mean of a region.
    most: Option<u32>,
    /// By the number of clients.
    made: BTreeMap<u32, Option<Arc<Params>>>,
}

impl SecAggPlan {
    /// The plan of a run; none without secure aggregation.
    pub(crate) fn new(
        config: &SimulationConfig,
        strategy: &AnyStrategy,
        privacy: Option<&PrivacyPlan>,
        ring: &RingPlan,
        parameters: usize,
        clients: u64,
    ) -> Result<Option<Self>, SecAggError> {
        let Some(own) = &config.secagg else {
            return Ok(None);
        };
        let noise = privacy.and_then(PrivacyPlan::clients);
        let distributed = noise.and_then(|plan| Some((plan, plan.ring()?)));
        if distributed.is_some() && own.groups.is_some() {
            return Err(SecAggError::Refused {
                key: "secagg.groups",
                what: "groups with sessions of their own",
                with: "privacy.kind = \"distributed\"",
                reason: "the server sees the sum of each group, with the noise of that group alone, \
                         and the guarantee is about the sum of all",
                instead: "leave groups out, or use privacy.kind = \"local\"",
            });
        }
        if let Some((plan, _)) = &distributed
            && own.corrupt < plan.config().colluding_share
        {
            return Err(SecAggError::Refused {
                key: "secagg.corrupt",
                what: "a share of corrupt clients below privacy.colluding_share",
                with: "privacy.kind = \"distributed\"",
                reason: "both speak of the clients that work for the server, and noise that is made \
                         against more of them than the masks are is no promise",
                instead: "raise secagg.corrupt to it, or leave secagg.corrupt out",
            });
        }
        let counts_clips = privacy
            .and_then(PrivacyPlan::central)
            .is_some_and(|plan| plan.count_noise_std().is_some());
        let (vectors, length) = match distributed {
            Some((_, dp)) => (
                Vectors::Modular {
                    bits: dp.config().bits,
                },
                dp.padded(),
            ),
            None => (
                Vectors::Bounded {
                    max_weight: ring.weights().client.0,
                    value_bits: ring.largest(Weight(1)).trailing_zeros() + 1,
                },
                parameters + usize::from(counts_clips),
            ),
        };
        let mut plan = Self {
            config: own.clone(),
            vectors,
            length,
            counts_clips,
            least: distributed.map_or(0, |(plan, _)| {
                u32::try_from(plan.least_survivors()).unwrap_or(u32::MAX)
            }),
            leaving: leaving(config, strategy, clients),
            asked: asked(&config.selection, clients),
            most: match config.schedule.regions {
                Some(regions) => Some(regions.expected(asked(&config.selection, clients))),
                None => own.groups,
            },
            made: BTreeMap::new(),
        };
        // The largest session of a round and, where there are groups, the smallest; of regions, which
        // are of any size, one of the mean.
        let sizes = plan.sizes(usize::try_from(plan.asked.max(1)).unwrap_or(usize::MAX));
        let smallest = sizes.last().filter(|_| config.schedule.regions.is_none());
        for size in [sizes.first(), smallest].into_iter().flatten() {
            let clients = u32::try_from(*size).unwrap_or(u32::MAX);
            let params = plan.make(clients).map_err(|source| SecAggError::Params {
                clients: clients.into(),
                source,
            })?;
            plan.made.insert(clients, Some(Arc::new(params)));
        }
        Ok(Some(plan))
    }

    /// What was asked for.
    #[must_use]
    pub fn config(&self) -> &SecAggConfig {
        &self.config
    }

    /// Clients of the largest session of a round of the expected size.
    fn typical(&self) -> u32 {
        let sizes = self.sizes(usize::try_from(self.asked).unwrap_or(usize::MAX));
        let first = sizes.first().copied().unwrap_or(0);
        u32::try_from(first).unwrap_or(u32::MAX)
    }

    /// Sessions of a round of the expected size.
    #[must_use]
    pub fn sessions(&self) -> u64 {
        let asked = usize::try_from(self.asked).unwrap_or(usize::MAX);
        self.sizes(asked).len() as u64
    }

    /// The parameters of the largest session of a round of the expected size.
    ///
    /// # Errors
    /// [`SecAggError::Params`].
    pub fn params(&self) -> Result<Params, SecAggError> {
        let clients = self.typical();
        self.make(clients).map_err(|source| SecAggError::Params {
            clients: clients.into(),
            source,
        })
    }

    /// What a client of such a session sends and receives when nobody leaves.
    #[must_use]
    pub fn traffic(params: &Params) -> Traffic {
        let (all, degree) = (params.clients(), params.degree());
        Traffic::new(params, all, degree, degree, all)
    }

    pub(crate) fn counts_clips(&self) -> bool {
        self.counts_clips
    }

    /// Sizes of the sessions of `clients` clients, the largest first.
    fn sizes(&self, clients: usize) -> Vec<usize> {
        sizes(clients, self.most)
    }

    /// The parameters of a session of so many clients; none where there are no safe ones.
    pub(crate) fn params_of(&mut self, clients: usize) -> Option<Arc<Params>> {
        let clients = u32::try_from(clients).unwrap_or(u32::MAX);
        if let Some(made) = self.made.get(&clients) {
            return made.clone();
        }
        let params = self.make(clients).ok().map(Arc::new);
        self.made.insert(clients, params.clone());
        params
    }

    /// The parameters of a sample's session, among whom nobody is lonely.
    pub(crate) fn params_of_sample(&self, clients: usize) -> Option<Arc<Params>> {
        let clients = u32::try_from(clients).unwrap_or(u32::MAX);
        let params = self.shaped(clients, Topology::Complete).ok()?;
        Some(Arc::new(params))
    }

    fn make(&self, clients: u32) -> Result<Params, ParamsError> {
        let params = match self.config.graph {
            Some(SecAggGraph::Complete) => self.shaped(clients, Topology::Complete),
            Some(SecAggGraph::Harary) => self.shaped(clients, Topology::Harary),
            None if clients <= COMPLETE_UP_TO => self.shaped(clients, Topology::Complete),
            None => match self.shaped(clients, Topology::Harary) {
                Err(ParamsError::Infeasible { .. }) => self.shaped(clients, Topology::Complete),
                made => made,
            },
        }?;
        let least = self.config.min_survivors.unwrap_or(0).max(self.least);
        match least > params.min_survivors() || self.config.min_survivors.is_some() {
            true => params.with_min_survivors(least),
            false => Ok(params),
        }
    }

    fn shaped(&self, clients: u32, topology: Topology) -> Result<Params, ParamsError> {
        if let Some(dropout) = self.config.dropout {
            return self.with_dropout(clients, topology, dropout);
        }
        let (share, count) = (self.leaving, f64::from(clients));
        let deviation = libm::sqrt(share * (1.0 - share) / count);
        let mut made = Err(ParamsError::Clients { clients });
        for margin in MARGINS {
            let dropout = (share + margin * (deviation + 1.0 / (MARGINS[0] * count))).min(0.99);
            made = self.with_dropout(clients, topology, dropout.max(LEAST_DROPOUT));
            if !matches!(made, Err(ParamsError::Infeasible { .. })) {
                break;
            }
        }
        made
    }

    fn with_dropout(
        &self,
        clients: u32,
        topology: Topology,
        dropout: f64,
    ) -> Result<Params, ParamsError> {
        let cohort = Cohort::new(clients, self.config.corrupt, dropout)?;
        let threat = match self.config.threat {
            SecAggThreat::SemiHonest => Threat::SemiHonest,
            SecAggThreat::SemiMalicious => Threat::SemiMalicious,
            SecAggThreat::Active => Threat::Active,
        };
        let suite = match self.config.suite {
            SecAggSuite::Aes128 => Suite::Aes128,
            SecAggSuite::ChaCha20 => Suite::ChaCha20,
        };
        let ring = match self.vectors {
            Vectors::Bounded {
                max_weight,
                value_bits,
            } => Ring::bounded(clients, max_weight, value_bits)?,
            Vectors::Modular { bits } => Ring::modular(clients, 1, bits)?,
        };
        Params::new(cohort, threat, topology, suite, ring, self.length)
    }
}

/// The share of the clients of a session that leave before its end, in the mean.
fn leaving(config: &SimulationConfig, strategy: &AnyStrategy, clients: u64) -> f64 {
    let late = match strategy.stragglers() {
        Stragglers::Drop => config.fleet.stragglers,
        _ => 0.0,
    };
    let surplus = match &config.selection {
        SelectorConfig::Uniform(keys) if keys.cohort < clients => 1.0 - 1.0 / keys.over_select,
        SelectorConfig::Weighted(keys) if keys.cohort < clients => 1.0 - 1.0 / keys.over_select,
        SelectorConfig::Oort(keys) if keys.cohort < clients => 1.0 - 1.0 / keys.over_select,
        SelectorConfig::PowerOfChoice(keys) if keys.cohort < clients => {
            1.0 - 1.0 / keys.over_select
        }
        SelectorConfig::Fair(keys) if keys.cohort < clients => 1.0 - 1.0 / keys.over_select,
        _ => 0.0,
    };
    let stay = 1.0 - config.fleet.dropout;
    // Who is not needed is among those who would stay: the rest fill the places of the others.
    let before = (1.0 - stay * (1.0 - late)).max(surplus);
    1.0 - (1.0 - before) * stay
}

/// The secure aggregation that a run of `clients` clients, which have `examples` training examples,
/// and a model of `layout` would begin with; none without it.
///
/// # Errors
/// [`SimError`] when there is none, or no such run.
pub fn forecast(
    config: &SimulationConfig,
    privacy: Option<&PrivacyPlan>,
    clients: u64,
    examples: &dyn Fn(ClientId) -> u64,
    layout: &Layout,
) -> Result<Option<SecAggPlan>, SimError> {
    if config.secagg.is_none() {
        return Ok(None);
    }
    config.validate()?;
    let table = |table| move |source| refused(table, source);
    let strategy = AnyStrategy::from_config(config.strategy.clone()).map_err(table("strategy"))?;
    let selector =
        AnySelector::from_config(config.selection.clone()).map_err(table("selection"))?;
    let largest = (0..clients).map(|client| examples(ClientId(client))).max();
    let ring = plan_ring(config, &strategy, &selector, clients, largest.unwrap_or(0))?;
    let ring = privacy.map_or(Ok(ring), |plan| plan.ring(ring))?;
    let plan = SecAggPlan::new(config, &strategy, privacy, &ring, layout.len(), clients)?;
    Ok(plan)
}
