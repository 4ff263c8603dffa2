//! Budgets that refuse *before* noise is drawn.
//!
//! A [`PrivacyBudget`] is a promise; a [`PrivacyFilter`] keeps it. Every round asks the filter to
//! [admit](PrivacyFilter::admit) its event and draws noise only after that succeeded. Which rule
//! is valid depends on who chooses the events:
//!
//! | events | rule | source |
//! |---|---|---|
//! | declared before the first | [`PrivacyFilter::declared`]: any accountant over the prefix | composition |
//! | chosen from earlier outputs | [`PrivacyFilter::renyi`] | Feldman and Zrnic 2021 (arXiv:2008.11193); Lécuyer 2021 (arXiv:2103.01379) |
//! | the same, all Gaussian | [`PrivacyFilter::gaussian`] | Smith and Thakurta 2022 (arXiv:2210.17520) |
//!
//! Numerical composition of parameters that were chosen after seeing outputs has no proof, so a
//! declared schedule is held to its declaration, event by event. A running reading that is valid
//! whenever the run stops is the [`Odometer`]'s.
//!
//! A filter serialises with its ledger, and only so: a state without its ledger does not parse.

use serde::{Deserialize, Serialize};

use crate::accountant::{Accountant, AccountantKind, RdpAccountant, accountant};
use crate::accountant::{gaussian_delta, gaussian_epsilon, renyi_epsilon};
use crate::error::PrivacyError;
use crate::event::DpEvent;
use crate::ledger::{Ledger, LedgerEntry};
use crate::relation::{NeighboringRelation, PrivacyUnit};
use crate::units::{Delta, Epsilon};

/// What may be spent in all, on whom.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "PlainBudget", into = "PlainBudget")]
pub struct PrivacyBudget {
    epsilon: Epsilon,
    delta: Delta,
    relation: NeighboringRelation,
    unit: PrivacyUnit,
    population: u64,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlainBudget {
    epsilon: Epsilon,
    delta: Delta,
    relation: NeighboringRelation,
    unit: PrivacyUnit,
    population: u64,
}

impl From<PrivacyBudget> for PlainBudget {
    fn from(budget: PrivacyBudget) -> Self {
        Self {
            epsilon: budget.epsilon,
            delta: budget.delta,
            relation: budget.relation,
            unit: budget.unit,
            population: budget.population,
        }
    }
}

impl TryFrom<PlainBudget> for PrivacyBudget {
    type Error = PrivacyError;

    fn try_from(plain: PlainBudget) -> Result<Self, PrivacyError> {
        Self::new(
            plain.epsilon,
            plain.delta,
            plain.relation,
            plain.unit,
            plain.population,
        )
    }
}

impl PrivacyBudget {
    /// `(epsilon, delta)` for each of `population` protected units.
    ///
    /// # Errors
    /// [`PrivacyError::DeltaTooLarge`] unless `delta` is below `1 / population` (publishing one
    /// unit drawn at random is `(0, 1 / population)`-differentially private);
    /// [`PrivacyError::CountOutOfRange`] for an empty population.
    pub fn new(
        epsilon: Epsilon,
        delta: Delta,
        relation: NeighboringRelation,
        unit: PrivacyUnit,
        population: u64,
    ) -> Result<Self, PrivacyError> {
        PrivacyError::unless_count(
            population > 0,
            "population",
            population,
            "at least 1 protected unit",
        )?;
        let limit = 1.0 / population as f64;
        if delta.get() >= limit {
            return Err(PrivacyError::DeltaTooLarge {
                delta: delta.get(),
                population,
                unit,
                limit,
            });
        }
        Ok(Self {
            epsilon,
            delta,
            relation,
            unit,
            population,
        })
    }

    /// Most `epsilon`.
    #[must_use]
    pub fn epsilon(&self) -> Epsilon {
        self.epsilon
    }

    /// The `delta` at which it is meant.
    #[must_use]
    pub fn delta(&self) -> Delta {
        self.delta
    }

    /// Which data sets must be hard to tell apart.
    #[must_use]
    pub fn relation(&self) -> NeighboringRelation {
        self.relation
    }

    /// Who is protected.
    #[must_use]
    pub fn unit(&self) -> PrivacyUnit {
        self.unit
    }

    /// How many there are.
    #[must_use]
    pub fn population(&self) -> u64 {
        self.population
    }

    /// Whether `delta` is above `1 / population^1.1`, which many regard as too large.
    #[must_use]
    pub fn delta_is_lax(&self) -> bool {
        self.delta.get() > libm::pow(self.population as f64, -1.1)
    }
}

/// How a filter decides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "kebab-case", deny_unknown_fields)]
pub enum FilterRule {
    /// The events are known beforehand and composed by this accountant.
    Declared {
        /// Which accountant.
        accountant: AccountantKind,
        /// What will be run at most, in order.
        schedule: Ledger,
    },
    /// Events may depend on earlier outputs; at every moment the sum of the Rényi divergences of
    /// one of these orders is within its limit.
    Renyi {
        /// The orders, above 1, fixed beforehand. `delta` is shared among them.
        orders: Vec<f64>,
    },
    /// Events may depend on earlier outputs; all are Gaussian on all members.
    Gaussian,
}

/// Keeps a budget: admits events until one more would overspend it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "PlainFilter", into = "PlainFilter")]
pub struct PrivacyFilter {
    budget: PrivacyBudget,
    rule: FilterRule,
    ledger: Ledger,
    admitted: u64,
    state: State,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlainFilter {
    budget: PrivacyBudget,
    rule: FilterRule,
    ledger: Ledger,
}

impl From<PrivacyFilter> for PlainFilter {
    fn from(filter: PrivacyFilter) -> Self {
        Self {
            budget: filter.budget,
            rule: filter.rule,
            ledger: filter.ledger,
        }
    }
}

impl TryFrom<PlainFilter> for PrivacyFilter {
    type Error = PrivacyError;

    fn try_from(plain: PlainFilter) -> Result<Self, PrivacyError> {
        let mut filter = Self::new(plain.budget, plain.rule)?;
        for entry in plain.ledger.entries() {
            filter.admit_many(&entry.event, entry.count)?;
        }
        Ok(filter)
    }
}

/// What the rules remember.
#[derive(Clone, Debug)]
enum State {
    /// Events of the schedule's prefix that fit.
    Declared { affordable: u64 },
    Renyi {
        accountant: Box<RdpAccountant>,
        /// Orders and their limits.
        limits: Vec<(f64, f64)>,
    },
    /// Spent and limit of `1 / noise_multiplier^2`.
    Gaussian { sum: PrecisionSum, limit: f64 },
}

/// A sum of `1 / noise_multiplier^2` over a ledger, with the same bits however the ledger was
/// filled: the last entry is kept apart until another follows.
#[derive(Clone, Copy, Debug, Default)]
struct PrecisionSum {
    before: f64,
    each: f64,
    count: u64,
}

impl PrecisionSum {
    fn total(self) -> f64 {
        (self.before + self.each * self.count as f64) * (1.0 + 4.0 * f64::EPSILON)
    }

    fn with(self, each: f64, count: u64, again: bool) -> Self {
        if again {
            let count = self.count.saturating_add(count);
            Self { count, ..self }
        } else {
            let before = self.total();
            Self {
                before,
                each,
                count,
            }
        }
    }
}

impl PrivacyFilter {
    /// A filter with any rule.
    ///
    /// # Errors
    /// [`PrivacyError`] when the accountant refuses an event of the schedule, or for orders that
    /// are not finite and above 1, or too few or too many.
    pub fn new(budget: PrivacyBudget, rule: FilterRule) -> Result<Self, PrivacyError> {
        let state = match &rule {
            FilterRule::Declared {
                accountant,
                schedule,
            } => State::Declared {
                affordable: affordable(&budget, *accountant, schedule)?,
            },
            FilterRule::Renyi { orders } => State::Renyi {
                accountant: Box::new(RdpAccountant::new(budget.relation)),
                limits: limits(&budget, orders)?,
            },
            FilterRule::Gaussian => State::Gaussian {
                sum: PrecisionSum::default(),
                limit: gaussian_limit(&budget),
            },
        };
        Ok(Self {
            budget,
            rule,
            ledger: Ledger::default(),
            admitted: 0,
            state,
        })
    }

    /// For events that are all known beforehand.
    ///
    /// # Errors
    /// As for [`Self::new`].
    pub fn declared(
        budget: PrivacyBudget,
        accountant: AccountantKind,
        schedule: Ledger,
    ) -> Result<Self, PrivacyError> {
        Self::new(
            budget,
            FilterRule::Declared {
                accountant,
                schedule,
            },
        )
    }

    /// For events that may depend on earlier outputs and are expected to be mostly like
    /// `anticipated`: takes the one order at which most of these fit.
    ///
    /// # Errors
    /// [`PrivacyError::Unsupported`] when the Rényi accountant refuses `anticipated`.
    pub fn renyi(budget: PrivacyBudget, anticipated: &DpEvent) -> Result<Self, PrivacyError> {
        let mut one = RdpAccountant::new(budget.relation);
        one.compose(anticipated, 1)?;
        let (mut best, mut most) = (2.0, f64::NEG_INFINITY);
        for step in 0..=240 {
            let order = 1.0 + libm::exp(-5.0 + 0.1 * f64::from(step));
            let count = limit(&budget, order, 1) / one.divergence(order)?;
            if count > most {
                (best, most) = (order, count);
            }
        }
        Self::new(budget, FilterRule::Renyi { orders: vec![best] })
    }

    /// For Gaussian events on all members whose noise may depend on earlier outputs.
    ///
    /// # Errors
    /// None today; as for [`Self::new`].
    pub fn gaussian(budget: PrivacyBudget) -> Result<Self, PrivacyError> {
        Self::new(budget, FilterRule::Gaussian)
    }

    /// Takes up a saved state.
    ///
    /// # Errors
    /// [`PrivacyError::Malformed`] for what is not a state, one without its ledger included, or
    /// one whose ledger overspends its own budget; [`PrivacyError::OtherPlan`] when the budget or
    /// the rule is not this one.
    pub fn resume(
        text: &str,
        budget: &PrivacyBudget,
        rule: &FilterRule,
    ) -> Result<Self, PrivacyError> {
        let filter: Self = serde_json::from_str(text).map_err(|error| PrivacyError::Malformed {
            what: "privacy filter",
            line: error.line(),
            column: error.column(),
            reason: error.to_string(),
        })?;
        if filter.budget != *budget {
            return Err(PrivacyError::OtherPlan { what: "budget" });
        }
        if filter.rule != *rule {
            return Err(PrivacyError::OtherPlan { what: "rule" });
        }
        Ok(filter)
    }

    /// The budget.
    #[must_use]
    pub fn budget(&self) -> &PrivacyBudget {
        &self.budget
    }

    /// The rule.
    #[must_use]
    pub fn rule(&self) -> &FilterRule {
        &self.rule
    }

    /// What was admitted.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Number of admitted events.
    #[must_use]
    pub fn admitted(&self) -> u64 {
        self.admitted
    }

    /// How many more events of the declared schedule fit; `None` for the other rules.
    #[must_use]
    pub fn affordable(&self) -> Option<u64> {
        match self.state {
            State::Declared { affordable } => Some(affordable - self.admitted),
            _ => None,
        }
    }

    /// Admits one event and records it. Only after this may its noise be drawn.
    ///
    /// # Errors
    /// [`PrivacyError::OverBudget`] when it would overspend, [`PrivacyError::OffSchedule`] when it
    /// is not what was declared, [`PrivacyError::Unsupported`] when the rule cannot account for
    /// it. After an error nothing has changed.
    pub fn admit(&mut self, event: &DpEvent) -> Result<(), PrivacyError> {
        self.admit_many(event, 1)
    }

    fn admit_many(&mut self, event: &DpEvent, count: u64) -> Result<(), PrivacyError> {
        if count == 0 {
            return Ok(());
        }
        let position = self.admitted + 1;
        match (&mut self.state, &self.rule) {
            (
                State::Declared { affordable },
                FilterRule::Declared {
                    accountant: kind,
                    schedule,
                },
            ) => {
                on_schedule(schedule, self.admitted, event, count)?;
                if self
                    .admitted
                    .checked_add(count)
                    .is_none_or(|sum| sum > *affordable)
                {
                    let mut sum = accountant(*kind, self.budget.relation);
                    for entry in self.ledger.entries() {
                        sum.compose(&entry.event, entry.count)?;
                    }
                    let spent = sum.epsilon(self.budget.delta)?.upper;
                    sum.compose(event, count)?;
                    let needed = sum.epsilon(self.budget.delta)?.upper;
                    return Err(self.refusal(position, event, spent.get(), needed.get()));
                }
            }
            (State::Renyi { accountant, limits }, _) => {
                let mut next = accountant.clone();
                next.compose(event, count)?;
                if next.may_fail() {
                    return Err(PrivacyError::Unsupported {
                        accountant: "rdp",
                        event: event.path(),
                        relation: self.budget.relation,
                        instead: "a filter for adaptive events takes none that may fail outright",
                    });
                }
                let share = limits.len();
                let epsilon = |accountant: &RdpAccountant| -> Result<f64, PrivacyError> {
                    let mut least = f64::INFINITY;
                    for &(order, _) in limits.iter() {
                        let divergence = accountant.divergence(order)?;
                        let delta = self.budget.delta.get() / share as f64;
                        least = least.min(renyi_epsilon(order, divergence, delta));
                    }
                    Ok(least.max(0.0))
                };
                let mut fits = false;
                for &(order, limit) in limits.iter() {
                    fits |= next.divergence(order)? <= limit;
                }
                if !fits {
                    let (spent, needed) = (epsilon(accountant)?, epsilon(&next)?);
                    return Err(self.refusal(position, event, spent, needed));
                }
                *accountant = next;
            }
            (State::Gaussian { sum, limit }, _) => {
                let each = event
                    .gaussian_precision()
                    .ok_or_else(|| PrivacyError::Unsupported {
                        accountant: "gaussian",
                        event: event.path(),
                        relation: self.budget.relation,
                        instead: "this filter takes only Gaussian noise on all members; use the \
                                  rule `renyi`",
                    })?;
                let last = self.ledger.entries().last();
                let again = last.is_some_and(|entry| entry.event == *event);
                let next = sum.with(each, count, again);
                if next.total() > *limit {
                    let epsilon = |precision: f64| {
                        let delta = self.budget.delta.get();
                        gaussian_epsilon(libm::sqrt(precision), delta).1
                    };
                    let (spent, needed) = (epsilon(sum.total()), epsilon(next.total()));
                    return Err(self.refusal(position, event, spent, needed));
                }
                *sum = next;
            }
            // The state is made from the rule.
            (State::Declared { .. }, _) => return Err(PrivacyError::OtherPlan { what: "rule" }),
        }
        self.ledger.record(event, count);
        self.admitted += count;
        Ok(())
    }

    fn refusal(&self, position: u64, event: &DpEvent, spent: f64, needed: f64) -> PrivacyError {
        PrivacyError::OverBudget {
            position,
            event: event.path(),
            spent,
            needed,
            limit: self.budget.epsilon.get(),
            delta: self.budget.delta.get(),
        }
    }

    /// `epsilon` of what was admitted, at the budget's `delta`, by the rule's own composition.
    ///
    /// # Errors
    /// Those of the accountant.
    pub fn spent(&self) -> Result<Epsilon, PrivacyError> {
        let delta = self.budget.delta;
        match (&self.state, &self.rule) {
            (
                State::Declared { .. },
                FilterRule::Declared {
                    accountant: kind, ..
                },
            ) => {
                let mut sum = accountant(*kind, self.budget.relation);
                for entry in self.ledger.entries() {
                    sum.compose(&entry.event, entry.count)?;
                }
                Ok(sum.epsilon(delta)?.upper)
            }
            (State::Renyi { accountant, limits }, _) => {
                let mut least = f64::INFINITY;
                if self.ledger.is_empty() {
                    least = 0.0;
                }
                for &(order, _) in limits {
                    let share = delta.get() / limits.len() as f64;
                    let divergence = accountant.divergence(order)?;
                    least = least.min(renyi_epsilon(order, divergence, share));
                }
                Epsilon::new(least.max(0.0))
            }
            (State::Gaussian { sum, .. }, _) => {
                Epsilon::new(gaussian_epsilon(libm::sqrt(sum.total()), delta.get()).1)
            }
            (State::Declared { .. }, _) => Err(PrivacyError::OtherPlan { what: "rule" }),
        }
    }
}

/// `Ok` when the schedule has `count` times this event after its first `before` events.
fn on_schedule(
    schedule: &Ledger,
    before: u64,
    event: &DpEvent,
    count: u64,
) -> Result<(), PrivacyError> {
    let (mut from, mut left) = (before, count);
    let mut position = before;
    let off = |position: u64, declared: String| PrivacyError::OffSchedule {
        position: position + 1,
        given: event.path(),
        declared,
    };
    for entry in schedule.entries() {
        if from >= entry.count {
            from -= entry.count;
            continue;
        }
        if entry.event != *event {
            return Err(off(position, entry.event.path()));
        }
        let here = (entry.count - from).min(left);
        left -= here;
        position += here;
        from = 0;
        if left == 0 {
            return Ok(());
        }
    }
    Err(off(position, "nothing: it has ended".to_owned()))
}

/// The first `count` events of a schedule.
fn prefix(schedule: &Ledger, mut count: u64) -> Vec<LedgerEntry> {
    let mut entries = Vec::new();
    for entry in schedule.entries() {
        let here = entry.count.min(count);
        if here == 0 {
            break;
        }
        count -= here;
        entries.push(LedgerEntry {
            event: entry.event.clone(),
            count: here,
        });
    }
    entries
}

/// How many events of the schedule fit, by bisection: `epsilon` grows with every event. The
/// answer itself was composed and found to fit.
fn affordable(
    budget: &PrivacyBudget,
    kind: AccountantKind,
    schedule: &Ledger,
) -> Result<u64, PrivacyError> {
    let fits = |count: u64| -> Result<bool, PrivacyError> {
        let mut sum = accountant(kind, budget.relation);
        for entry in prefix(schedule, count) {
            sum.compose(&entry.event, entry.count)?;
        }
        if budget.epsilon == Epsilon::INFINITY {
            return Ok(true);
        }
        Ok(sum.epsilon(budget.delta)?.upper <= budget.epsilon)
    };
    let entries = schedule.entries().iter();
    let all = entries.fold(0_u64, |sum, entry| sum.saturating_add(entry.count));
    if fits(all)? {
        return Ok(all);
    }
    let (mut low, mut high) = (0, all);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if fits(middle)? {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

/// Largest sum of divergences of this order that keeps the budget when `delta` is shared among
/// `orders` of them.
///
/// With `L` the privacy loss when the run stops, `(1 - e^(epsilon - L))_+` is at most `c_alpha
/// e^((alpha - 1)(L - epsilon))`, and `e^((alpha - 1)(L - sum of divergences))` is a
/// supermartingale, whoever chooses the events. So those runs that stop with order `alpha` within
/// its limit contribute at most their share of `delta`.
fn limit(budget: &PrivacyBudget, order: f64, orders: usize) -> f64 {
    let delta = budget.delta.get() / orders as f64;
    (budget.epsilon.get() - renyi_epsilon(order, 0.0, delta)) * (1.0 - 1e-12)
}

fn limits(budget: &PrivacyBudget, orders: &[f64]) -> Result<Vec<(f64, f64)>, PrivacyError> {
    PrivacyError::unless_count(
        (1..=64).contains(&orders.len()),
        "the number of orders",
        orders.len() as u64,
        "from 1 to 64; few are best, since they share delta",
    )?;
    orders
        .iter()
        .map(|&order| {
            PrivacyError::unless(
                order > 1.0 && order < f64::INFINITY,
                "an order",
                order,
                "a finite number above 1",
            )?;
            Ok((order, limit(budget, order, orders.len())))
        })
        .collect()
}

/// Largest `1 / noise_multiplier^2` of a Gaussian mechanism within the budget.
fn gaussian_limit(budget: &PrivacyBudget) -> f64 {
    let fits = |mu: f64| gaussian_delta(mu, budget.epsilon.get()).1 <= budget.delta.get();
    let (mut low, mut high) = (0.0, 1.0);
    while fits(high) && high < 1e100 {
        (low, high) = (high, 2.0 * high);
    }
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        if fits(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    low * low * (1.0 - 4.0 * f64::EPSILON)
}

/// Reads how much was spent, at any moment, also when events and the moment of stopping depend on
/// earlier outputs.
///
/// A stack of Rényi filters of one order with growing budgets `epsilon_f`, each with its share
/// `delta 6 / (pi^2 (f + 1)^2)`: the reading is the smallest budget that is not overspent (Rogers,
/// Roth, Ullman and Vadhan 2016, arXiv:1605.08294, define odometers; Feldman and Zrnic 2021 build
/// them from filters).
#[derive(Clone, Debug)]
pub struct Odometer {
    accountant: RdpAccountant,
    delta: Delta,
    order: f64,
    step: f64,
}

impl Odometer {
    /// Readings at `delta`, in steps of about `step`, by the divergence of one order.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] unless `delta` is within 0 and 1, `order` finite and above 1,
    /// and `step` finite and above 0.
    pub fn new(
        relation: NeighboringRelation,
        delta: Delta,
        order: f64,
        step: Epsilon,
    ) -> Result<Self, PrivacyError> {
        PrivacyError::unless(
            delta.get() > 0.0 && delta.get() < 1.0,
            "delta",
            delta.get(),
            "above 0 and below 1",
        )?;
        PrivacyError::unless(
            order > 1.0 && order < f64::INFINITY,
            "the order",
            order,
            "a finite number above 1",
        )?;
        PrivacyError::unless(
            step.get() > 0.0 && step.get() < f64::INFINITY,
            "the step",
            step.get(),
            "a finite number above 0",
        )?;
        Ok(Self {
            accountant: RdpAccountant::new(relation),
            delta,
            order,
            step: step.get(),
        })
    }

    /// Adds an event.
    ///
    /// # Errors
    /// [`PrivacyError::Unsupported`] for an event without a Rényi curve.
    pub fn record(&mut self, event: &DpEvent) -> Result<(), PrivacyError> {
        let mut next = self.accountant.clone();
        next.compose(event, 1)?;
        if next.may_fail() {
            return Err(PrivacyError::Unsupported {
                accountant: "rdp",
                event: event.path(),
                relation: next.relation(),
                instead: "an odometer takes no event that may fail outright",
            });
        }
        self.accountant = next;
        Ok(())
    }

    /// What was recorded.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        self.accountant.ledger()
    }

    /// `epsilon` so far; infinite beyond a million steps.
    ///
    /// # Errors
    /// None for events that were recorded.
    pub fn reading(&self) -> Result<Epsilon, PrivacyError> {
        const SHARE: f64 = 0.607_927_101_854_026_6;
        if self.ledger().is_empty() {
            return Ok(Epsilon::ZERO);
        }
        let divergence = self.accountant.divergence(self.order)?;
        // Needed epsilon falls short of the budget from some budget on: the first of those.
        let needed = |index: u64| {
            let place = index as f64 + 1.0;
            let delta = self.delta.get() * SHARE / (place * place);
            renyi_epsilon(self.order, divergence, delta)
        };
        let budget = |index: u64| self.step * (index as f64 + 1.0);
        // Both grow with the index, the budget faster in the end; bisection would need convexity
        // that holds, but a start at the least conceivable index makes a plain walk short.
        let first = (needed(0) / self.step - 1.0).max(0.0) as u64;
        for index in first..first.saturating_add(1_000_000) {
            if needed(index) <= budget(index) {
                return Epsilon::new(budget(index));
            }
        }
        Ok(Epsilon::INFINITY)
    }
}

#[cfg(test)]
mod tests;
