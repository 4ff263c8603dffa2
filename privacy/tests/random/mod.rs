//! Random events of every kind, nested, and what every accountant must hold over them. Shared by
//! the test `random` and the example `random_events`.

use fl_core::units::{ClientId, RoundId, Seed};
use fl_core::{Purpose, Stream};
use fl_privacy::accountant::{Fineness, PldAccountant};
use fl_privacy::{
    AccountantKind, Delta, DpEvent, Epsilon, NeighboringRelation, NoiseMultiplier, PrivacyError,
    accountant,
};

/// Events to be composed, and the question.
#[derive(Debug)]
pub(crate) struct Case {
    /// Who are neighbours.
    pub(crate) relation: NeighboringRelation,
    /// What is released, and how often.
    pub(crate) events: Vec<(DpEvent, u64)>,
    /// At which `delta` it is asked for.
    pub(crate) delta: f64,
    /// Whether some event has as good as no noise.
    pub(crate) bare: bool,
    /// Whether it is asked for more values of `epsilon` than the answer.
    pub(crate) closely: bool,
}

/// What an accountant said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// It has no bound for one of the events.
    Refused,
    /// A finite loss.
    Finite {
        /// Its lower bound.
        lower: f64,
        /// Its upper bound.
        upper: f64,
        /// How far `epsilon(delta(epsilon))` is from `epsilon`, over 1 and that.
        error: f64,
    },
    /// An infinite one, where there is a reason for it.
    Infinite,
}

/// The accountants over the case, each with its verdict, and whether they agree: what one of them
/// has as lower bound is no more than the upper bound of any other.
pub(crate) fn play_all(
    case: &Case,
    kinds: &[AccountantKind],
    fineness: Fineness,
    mut watch: impl FnMut(
        AccountantKind,
        &mut dyn FnMut() -> Result<Verdict, String>,
    ) -> Result<Verdict, String>,
) -> Vec<Result<Verdict, String>> {
    let mut verdicts: Vec<Result<Verdict, String>> = kinds
        .iter()
        .map(|&kind| watch(kind, &mut || play(case, kind, fineness)))
        .collect();
    let least = verdicts.iter().flatten().fold(0.0_f64, |least, verdict| {
        if let Verdict::Finite { lower, .. } = verdict {
            least.max(*lower)
        } else {
            least
        }
    });
    for verdict in &mut verdicts {
        if let Ok(Verdict::Finite { upper, .. }) = verdict
            && *upper < least * (1.0 - 1e-12)
        {
            *verdict = Err(format!(
                "the upper bound {upper} is below a lower bound, {least}"
            ));
        }
    }
    verdicts
}

/// What an answer may be off by on its way back, relative to it or, below 1, absolute.
const RETURN: f64 = 1e-6;
/// `delta(epsilon(d)) <= d` but for this, relative.
const ROUNDING: f64 = 1e-12;
/// The same for accountants whose `delta` is itself found by a search.
const SEARCH: f64 = 1e-9;

struct Maker {
    stream: Stream,
    bare: bool,
}

impl Maker {
    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.stream.uniform()
    }

    /// `10` to a power between these.
    fn power(&mut self, low: f64, high: f64) -> f64 {
        libm::pow(10.0, self.between(low, high))
    }

    fn whole(&mut self, low: f64, high: f64) -> u64 {
        self.power(low, high) as u64
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.stream.below(many) == 0
    }

    /// A scale of noise; now and then one that is no noise, or nothing but noise.
    fn noise(&mut self) -> NoiseMultiplier {
        let value = if self.one_in(60) {
            [0.0, 5e-324, 1e-200, 1e-9, 1e-3, 1e9, 1e200, f64::MAX][self.stream.below(8) as usize]
        } else {
            self.power(-0.6, 2.5)
        };
        self.bare |= value < 0.05;
        NoiseMultiplier::new(value).expect("a number that is at least 0")
    }

    fn rate(&mut self) -> f64 {
        match self.stream.below(40) {
            0 => 0.0,
            1 => 1.0,
            2 => 1.0 - 1e-12,
            3 => 1e-12,
            4 => 5e-324,
            _ => self.power(-4.5, 0.0),
        }
    }

    fn event(&mut self, depth: u32) -> Result<DpEvent, PrivacyError> {
        // Kinds that hold others stand first.
        let first = if depth == 0 { 5 } else { 0 };
        match first + self.stream.below(20 - first) {
            0 | 19 => {
                let rate = self.rate();
                DpEvent::poisson_sampled(rate, self.event(depth.saturating_sub(1))?)
            }
            1 => {
                let population = 1 + self.whole(0.0, 6.0);
                let sample = self.stream.below(population + 1);
                let inner = self.event(depth - 1)?;
                DpEvent::sampled_without_replacement(population, sample, inner)
            }
            2 => {
                let count = self.whole(-0.3, 2.0);
                DpEvent::self_composed(self.event(depth - 1)?, count)
            }
            3 => {
                let count = self.stream.below(4);
                let events = (0..count).map(|_| self.event(depth - 1));
                DpEvent::composed(events.collect::<Result<_, _>>()?)
            }
            4 => {
                let (mean, inner) = (self.power(0.0, 3.0), self.event(depth - 1)?);
                let shape = [f64::INFINITY, 1.0, 0.0, -0.5][self.stream.below(4) as usize];
                DpEvent::repeat_and_select(inner, mean, shape)
            }
            5 => Ok(DpEvent::NoOp),
            6 => {
                if self.one_in(4) {
                    self.bare = true;
                    Ok(DpEvent::NonPrivate)
                } else {
                    Ok(DpEvent::gaussian(self.noise()))
                }
            }
            7 | 8 => Ok(DpEvent::gaussian(self.noise())),
            9 => Ok(DpEvent::laplace(self.noise())),
            10 => {
                let (sigma, sensitivity) = (self.power(-0.5, 2.5), self.whole(-0.3, 1.0));
                self.bare |= sigma < 0.05 * sensitivity as f64;
                DpEvent::discrete_gaussian(sigma, sensitivity)
            }
            11 => {
                let (a, sensitivity) = (self.power(-3.0, 0.7), self.whole(-0.3, 1.5));
                DpEvent::discrete_laplace(a, sensitivity)
            }
            12 => {
                let l2 = self.between(0.0, 3.0);
                let l1 = l2 + self.between(0.0, 2.0) * self.stream.below(2) as f64;
                let variance = self.power(-1.0, 5.0);
                self.bare |= variance < 0.3 * l1;
                DpEvent::skellam(variance, l1, l2)
            }
            13 => {
                let (p, buckets) = (self.stream.uniform(), 2 + self.whole(-1.0, 3.0));
                self.bare |= p < 1e-3;
                DpEvent::randomized_response(p, buckets)
            }
            14 => {
                let epsilon = if self.one_in(30) {
                    f64::INFINITY
                } else {
                    self.power(-3.0, 0.7)
                };
                let delta = if self.one_in(2) {
                    0.0
                } else {
                    self.power(-14.0, -2.0)
                };
                self.bare |= epsilon == f64::INFINITY || delta > 0.0;
                Ok(DpEvent::epsilon_delta(
                    Epsilon::new(epsilon)?,
                    Delta::new(delta)?,
                ))
            }
            15 => {
                let xi = if self.one_in(2) {
                    0.0
                } else {
                    self.power(-3.0, 0.5)
                };
                DpEvent::zcdp(self.power(-6.0, 1.0), xi)
            }
            16 => {
                let noise = self.noise();
                let parts = 1 + self.stream.below(4);
                let amounts = (0..parts).map(|_| self.between(0.0, 2.0)).collect();
                let weights: Vec<f64> = (0..parts).map(|_| self.power(-4.0, 0.0)).collect();
                let sum: f64 = weights.iter().sum();
                let weights = weights.into_iter().map(|weight| weight / sum).collect();
                DpEvent::mixture_of_gaussians(noise, amounts, weights)
            }
            17 => {
                let (population, limit) = (self.whole(0.0, 6.0), self.whole(0.0, 4.0));
                DpEvent::truncated_poisson(population, self.rate(), limit, self.noise())
            }
            _ => {
                if self.one_in(2) {
                    let trees = self.stream.below(4);
                    let leaves = (0..trees).map(|_| self.whole(0.0, 4.0)).collect();
                    DpEvent::tree_aggregation(self.noise(), leaves)
                } else {
                    DpEvent::matrix_factorization(self.noise(), self.power(-1.0, 1.0))
                }
            }
        }
    }
}

/// The case of this number.
///
/// # Errors
/// None: every event that is made is a valid one.
pub(crate) fn case(seed: u64, number: u64) -> Result<Case, PrivacyError> {
    let stream = Stream::at(Purpose::Testing, Seed(seed), RoundId(number), ClientId(0));
    let mut maker = Maker {
        stream,
        bare: false,
    };
    let relations = NeighboringRelation::ALL;
    let relation = relations[maker.stream.below(relations.len() as u64) as usize];
    let most = 1 + maker.stream.below(3);
    let mut events = Vec::new();
    for _ in 0..most {
        let depth = maker.stream.below(4) as u32;
        events.push((maker.event(depth)?, maker.whole(0.0, 3.0)));
    }
    let delta = if maker.one_in(10) {
        maker.power(-30.0, -12.0)
    } else {
        maker.power(-12.0, -2.0)
    };
    Ok(Case {
        relation,
        events,
        delta,
        bare: maker.bare,
        closely: number.is_multiple_of(4),
    })
}

/// Whether the accountant holds its word over the case: bounds that are numbers in order, infinite
/// only where something is released without noise, that return through `delta`, whatever the order of
/// the events.
///
/// # Errors
/// What does not hold.
fn play(case: &Case, kind: AccountantKind, fineness: Fineness) -> Result<Verdict, String> {
    let show = |error: PrivacyError| format!("{kind}: {error}");
    let ask = |events: &mut dyn Iterator<Item = &(DpEvent, u64)>| {
        let mut sum = match kind {
            AccountantKind::Pld => {
                Box::new(PldAccountant::new(case.relation).with_fineness(fineness))
            }
            _ => accountant(kind, case.relation),
        };
        for (event, count) in events {
            let before = sum.ledger().clone();
            if let Err(error) = sum.compose(event, *count) {
                if *sum.ledger() != before {
                    return Err(format!("{kind}: {error}, and the ledger has changed"));
                }
                return match error {
                    PrivacyError::Unsupported { .. }
                    | PrivacyError::OutOfRange { .. }
                    | PrivacyError::CountOutOfRange { .. } => Ok(None),
                    other => Err(show(other)),
                };
            }
        }
        Ok(Some(sum))
    };
    let Some(sum) = ask(&mut case.events.iter())? else {
        return Ok(Verdict::Refused);
    };
    let delta = Delta::new(case.delta).map_err(show)?;
    let found = sum.epsilon(delta).map_err(show)?;
    let (lower, upper) = (found.lower.get(), found.upper.get());
    let name = format!("{kind}: epsilon({:e}) in [{lower}, {upper}]", case.delta);
    if !(0.0..=upper).contains(&lower) {
        return Err(format!("{name}: out of order"));
    }
    // In any order.
    let Some(other) = ask(&mut case.events.iter().rev())? else {
        return Err(format!("{name}: refused in another order"));
    };
    let again = other.epsilon(delta).map_err(show)?.upper.get();
    let same = if kind == AccountantKind::Pld {
        again.to_bits() == upper.to_bits()
    } else {
        again.total_cmp(&upper).is_eq() || (again - upper).abs() <= 1e-9 * upper
    };
    if !same {
        return Err(format!("{name}: {again} in another order"));
    }
    if upper == f64::INFINITY {
        return if case.bare {
            Ok(Verdict::Infinite)
        } else {
            Err(format!("{name}: infinite in spite of noise"))
        };
    }
    let ask_delta = |at: Epsilon| -> Result<(f64, f64), String> {
        let found = sum.delta(at).map_err(show)?;
        Ok((found.lower.get(), found.upper.get()))
    };
    let (low, high) = ask_delta(found.upper)?;
    let name = format!("{name}, delta({upper}) in [{low:e}, {high:e}]");
    if !(0.0..=high).contains(&low) {
        return Err(format!("{name}: out of order"));
    }
    let rounding = match kind {
        AccountantKind::Pld | AccountantKind::Gaussian => ROUNDING,
        _ => SEARCH,
    };
    if high > case.delta * (1.0 + rounding) {
        return Err(format!("{name}: more than was asked for"));
    }
    // Nothing is lost only where that is what it costs; and where it costs that, nothing is lost.
    if upper <= 0.0 || case.closely {
        let (_, whole) = ask_delta(Epsilon::ZERO)?;
        let (zero, nearly) = (upper <= 0.0, whole * (1.0 - RETURN) <= case.delta);
        if (zero && !nearly) || (!zero && whole * (1.0 + RETURN) <= case.delta) {
            return Err(format!("{name}, but delta(0) is {whole:e}"));
        }
    }
    // As little as this has the least epsilon that it is enough for.
    let there = sum
        .epsilon(Delta::new(high).map_err(show)?)
        .map_err(show)?
        .upper
        .get();
    let error = (there - upper).abs() / (1.0 + upper);
    if error > RETURN {
        return Err(format!(
            "{name}, epsilon({high:e}) {there:e}: does not return"
        ));
    }
    if !case.closely {
        return Ok(Verdict::Finite {
            lower,
            upper,
            error,
        });
    }
    // The same from an epsilon that no delta was asked for.
    let half = Epsilon::new(0.5 * upper).map_err(show)?;
    let (_, high) = ask_delta(half)?;
    let there = sum
        .epsilon(Delta::new(high).map_err(show)?)
        .map_err(show)?
        .upper
        .get();
    if there > half.get() + RETURN * (1.0 + half.get()) {
        return Err(format!(
            "{name}, delta({half}) {high:e}, epsilon of that {there:e}: not enough"
        ));
    }
    Ok(Verdict::Finite {
        lower,
        upper,
        error,
    })
}
