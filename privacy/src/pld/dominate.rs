//! From an event and a relation to a dominating pair of laws, in both directions.
//!
//! A pair `(P, Q)` dominates a mechanism when no pair of neighbouring data sets is easier to tell
//! apart; then compositions of pairs dominate compositions of mechanisms (Zhu, Dong and Wang 2022,
//! arXiv 2106.08567, Theorem 10). *Remove* has the member under `P`, *add* under `Q`. For a Poisson
//! sample of a mechanism with pair `(P, Q)` it is `((1 - q) Q + q P, Q)` and its reverse (ibid.,
//! Theorem 11).

use core::f64::consts::LN_2;

use super::law::{Atom, LaplacePair, Law, NormalPair, Smooth, sampled_loss};
use crate::error::PrivacyError;
use crate::event::DpEvent;
use crate::relation::NeighboringRelation;

/// What one event adds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// Nothing.
    Nothing,
    /// Everything.
    Everything,
    /// A Gaussian mechanism on all members: the squared inverse noise multiplier.
    Gaussian(f64),
    /// Any other.
    Pair(Pair),
}

/// The loss in both directions.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pair {
    /// The member is there under `P`.
    pub(crate) remove: Law,
    /// The member is there under `Q`; `None` where it is the same law.
    pub(crate) add: Option<Law>,
}

/// With less noise than this inverse, sampling is not credited: there is hardly any privacy, and
/// loss as a function of the outcome becomes too steep to integrate quickly.
const STEEPEST: f64 = 2000.0;
/// Most point masses that are listed.
const MOST_ATOMS: u64 = 400_000;
/// Discrete noise is listed up to this many standard deviations; the rest, below 1e-80, is counted
/// as infinite loss.
const REACH: f64 = 20.0;

/// The step of an event that is no composition.
pub(crate) fn step(event: &DpEvent, relation: NeighboringRelation) -> Result<Step, PrivacyError> {
    if let Some(precision) = event.gaussian_precision() {
        return Ok(match precision {
            0.0 => Step::Nothing,
            f64::INFINITY => Step::Everything,
            _ => Step::Gaussian(precision),
        });
    }
    let refuse = |instead| {
        Err(PrivacyError::Unsupported {
            accountant: "pld",
            event: event.path(),
            relation,
            instead,
        })
    };
    let one_sided = relation != NeighboringRelation::ReplaceOne;
    match event {
        DpEvent::NoOp => Ok(Step::Nothing),
        DpEvent::NonPrivate => Ok(Step::Everything),
        DpEvent::PoissonSampled {
            sampling_rate,
            inner,
        } => {
            if *sampling_rate <= 0.0 {
                return Ok(Step::Nothing);
            }
            if *sampling_rate >= 1.0 {
                return step(inner, relation);
            }
            if let DpEvent::PoissonSampled {
                sampling_rate: second,
                inner,
            } = &**inner
            {
                let both = DpEvent::poisson_sampled(sampling_rate * second, (**inner).clone())?;
                return step(&both, relation);
            }
            if let Some(precision) = inner.gaussian_precision() {
                let mean = libm::sqrt(precision);
                return Ok(if mean <= 0.0 {
                    Step::Nothing
                } else if mean > STEEPEST && mean < f64::INFINITY {
                    Step::Gaussian(precision)
                } else if mean == f64::INFINITY {
                    if one_sided {
                        Base::revealing().sampled(*sampling_rate)
                    } else {
                        Step::Everything
                    }
                } else if one_sided {
                    sampled_normal(*sampling_rate, mean)
                } else {
                    replaced_normal(*sampling_rate, 0.5 * mean)
                });
            }
            if !one_sided {
                return refuse(
                    "of samples only those of Gaussian noise have one under `replace-one`; use \
                     `add-or-remove-one`",
                );
            }
            if let DpEvent::MixtureOfGaussians {
                noise_multiplier,
                sensitivities,
                probabilities,
            } = &**inner
            {
                return Ok(mixture(
                    *sampling_rate,
                    noise_multiplier.get(),
                    sensitivities,
                    probabilities,
                ));
            }
            match Base::of(inner)? {
                Some(base) => Ok(base.sampled(*sampling_rate)),
                None => refuse(
                    "sample a single additive mechanism, or account for the composition of \
                     sampled steps",
                ),
            }
        }
        DpEvent::MixtureOfGaussians {
            noise_multiplier,
            sensitivities,
            probabilities,
        } => {
            if !one_sided {
                return refuse("use `add-or-remove-one` or `replace-special`");
            }
            Ok(mixture(
                1.0,
                noise_multiplier.get(),
                sensitivities,
                probabilities,
            ))
        }
        DpEvent::TruncatedPoisson {
            population,
            sampling_rate,
            sample_limit,
            noise_multiplier,
        } => Ok(truncated(
            *population,
            *sampling_rate,
            *sample_limit,
            noise_multiplier.get(),
            relation,
        )),
        DpEvent::SampledWithoutReplacement {
            population,
            sample,
            inner,
        } => {
            if *sample == 0 {
                return Ok(Step::Nothing);
            }
            if relation != NeighboringRelation::ReplaceOne {
                return refuse(
                    "a sample of fixed size needs `replace-one`, or the `rdp` accountant",
                );
            }
            let Some(precision) = inner.gaussian_precision() else {
                return refuse("sample a Gaussian mechanism, or use the `rdp` accountant");
            };
            let mean = libm::sqrt(precision);
            Ok(if mean <= 0.0 {
                Step::Nothing
            } else if mean == f64::INFINITY {
                Step::Everything
            } else if mean > STEEPEST {
                Step::Gaussian(precision)
            } else {
                // A member that joins pushes another out, so that the three means are at most one
                // sensitivity apart from each other; two of them on opposite sides of the third is
                // the most that this allows (Lebeda, Regehr, Kamath and Steinke 2024, arXiv
                // 2405.20769).
                replaced_normal(*sample as f64 / *population as f64, mean)
            })
        }
        DpEvent::RandomizedResponse {
            noise_parameter,
            buckets,
        } => {
            if relation == NeighboringRelation::AddOrRemoveOne {
                return refuse(
                    "a response exists only where there is a member; use `replace-one` or \
                     `replace-special`",
                );
            }
            if *noise_parameter <= 0.0 {
                return Ok(Step::Everything);
            }
            if *noise_parameter >= 1.0 {
                return Ok(Step::Nothing);
            }
            let other = noise_parameter / *buckets as f64;
            let loss = libm::log1p((1.0 - noise_parameter) / other);
            let same = other * (*buckets as f64 - 2.0);
            let mut atoms = vec![
                Atom {
                    loss,
                    ln_mass: libm::log(other) + loss,
                },
                Atom {
                    loss: -loss,
                    ln_mass: libm::log(other),
                },
            ];
            if same > 0.0 {
                atoms.push(Atom {
                    loss: 0.0,
                    ln_mass: libm::log(same),
                });
            }
            Ok(Step::Pair(Pair {
                remove: Law {
                    atoms,
                    infinite: 0.0,
                    smooth: Vec::new(),
                },
                add: None,
            }))
        }
        DpEvent::ZCdp { .. } => refuse("use the `zcdp` or the `rdp` accountant"),
        DpEvent::RepeatAndSelect { .. } => refuse("use the `rdp` accountant"),
        _ => match Base::of(event)? {
            Some(base) => Ok(base.plain()),
            None => refuse("use the `rdp` accountant"),
        },
    }
}

/// A symmetric pair of additive noise, before any sampling.
struct Base {
    /// Point masses of the loss with the member under `P`.
    atoms: Vec<Atom>,
    /// Mass of `P` where `Q` is 0; as much of `Q` where `P` is 0.
    alone: f64,
    /// Width of a Laplace pair.
    laplace: Option<f64>,
}

impl Base {
    /// Nothing is hidden.
    fn revealing() -> Self {
        Self {
            atoms: Vec::new(),
            alone: 1.0,
            laplace: None,
        }
    }

    fn of(event: &DpEvent) -> Result<Option<Self>, PrivacyError> {
        let atoms = |atoms, alone| {
            Ok(Some(Self {
                atoms,
                alone,
                laplace: None,
            }))
        };
        let nothing = || {
            vec![Atom {
                loss: 0.0,
                ln_mass: 0.0,
            }]
        };
        match event {
            DpEvent::NonPrivate => Ok(Some(Self::revealing())),
            DpEvent::Laplace { noise_multiplier } => {
                let width = 1.0 / noise_multiplier.get();
                if width > 1e6 {
                    // Pure differential privacy with a loss of `width`.
                    return if width < f64::INFINITY {
                        atoms(response(width, 0.0), 0.0)
                    } else {
                        Ok(Some(Self::revealing()))
                    };
                }
                Ok(Some(Self {
                    atoms: vec![
                        Atom {
                            loss: width,
                            ln_mass: -LN_2,
                        },
                        Atom {
                            loss: -width,
                            ln_mass: -LN_2 - width,
                        },
                    ],
                    alone: 0.0,
                    laplace: Some(width),
                }))
            }
            DpEvent::EpsilonDelta { epsilon, delta } => {
                let (epsilon, delta) = (epsilon.get(), delta.get());
                if delta >= 1.0 || epsilon == f64::INFINITY {
                    return Ok(Some(Self::revealing()));
                }
                atoms(response(epsilon, delta), delta)
            }
            DpEvent::DiscreteLaplace {
                noise_parameter: a,
                sensitivity,
            } => {
                if *sensitivity == 0 {
                    return atoms(nothing(), 0.0);
                }
                let epsilon = a * *sensitivity as f64;
                if *sensitivity > MOST_ATOMS || epsilon > 1e6 {
                    return atoms(response(epsilon.min(f64::MAX), 0.0), 0.0);
                }
                let all = -libm::log1p(libm::exp(-a));
                let each = all + libm::log(-libm::expm1(-a));
                let mut list = vec![
                    Atom {
                        loss: epsilon,
                        ln_mass: all,
                    },
                    Atom {
                        loss: -epsilon,
                        ln_mass: all - epsilon,
                    },
                ];
                for x in 1..*sensitivity {
                    let x = x as f64;
                    list.push(Atom {
                        loss: epsilon - 2.0 * a * x,
                        ln_mass: each - a * x,
                    });
                }
                atoms(list, 0.0)
            }
            DpEvent::DiscreteGaussian { sigma, sensitivity } => {
                if *sensitivity == 0 {
                    return atoms(nothing(), 0.0);
                }
                if *sigma <= 0.0 {
                    return Ok(Some(Self::revealing()));
                }
                let reach = libm::ceil(REACH * sigma) + 1.0;
                PrivacyError::unless(
                    2.0 * reach <= MOST_ATOMS as f64,
                    "sigma",
                    *sigma,
                    "at most 9000 for the `pld` accountant; use a `z-cdp` event",
                )?;
                let reach = reach as i64;
                let inverse = 0.5 / sigma / sigma;
                if !inverse.is_finite() {
                    return Ok(Some(Self::revealing()));
                }
                let exponent = |x: i64| -((x * x) as f64) * inverse;
                let sum: f64 = (-reach..=reach).map(|x| libm::exp(exponent(x))).sum();
                let ln_sum = libm::log(sum);
                let shift = *sensitivity as f64;
                let list = (-reach..=reach)
                    .map(|x| Atom {
                        loss: shift * (shift - 2.0 * x as f64) * inverse,
                        ln_mass: exponent(x) - ln_sum,
                    })
                    .collect();
                // Beyond the reach terms fall faster than geometrically by half.
                atoms(list, (4.0 * libm::exp(exponent(reach))).min(1.0))
            }
            DpEvent::Skellam {
                variance,
                l1_sensitivity,
                ..
            } => {
                if *l1_sensitivity < 1.0 {
                    // An integer that changes by less than 1 does not change.
                    return atoms(nothing(), 0.0);
                }
                if *variance <= 0.0 {
                    return Ok(Some(Self::revealing()));
                }
                if *l1_sensitivity >= 2.0 {
                    return Ok(None);
                }
                skellam(*variance).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn laplace(&self, rate: f64, swapped: bool) -> Vec<(f64, Smooth)> {
        self.laplace
            .iter()
            .map(|&width| {
                (
                    1.0,
                    Smooth::Laplace(LaplacePair {
                        width,
                        rate,
                        swapped,
                    }),
                )
            })
            .collect()
    }

    fn plain(self) -> Step {
        if self.alone >= 1.0 {
            return Step::Everything;
        }
        let smooth = self.laplace(1.0, false);
        Step::Pair(Pair {
            remove: Law {
                atoms: self.atoms,
                infinite: self.alone,
                smooth,
            },
            add: None,
        })
    }

    fn sampled(self, rate: f64) -> Step {
        let mut remove = Law {
            atoms: Vec::new(),
            infinite: rate * self.alone,
            smooth: self.laplace(rate, false),
        };
        let mut add = Law {
            atoms: Vec::new(),
            infinite: 0.0,
            smooth: self.laplace(rate, true),
        };
        for atom in &self.atoms {
            let loss = sampled_loss(rate, atom.loss);
            let ln_without = atom.ln_mass - atom.loss;
            remove.atoms.push(Atom {
                loss,
                ln_mass: ln_without + loss,
            });
            add.atoms.push(Atom {
                loss: -loss,
                ln_mass: ln_without,
            });
        }
        if self.alone > 0.0 {
            // Seen only without the member, which says that it was not sampled or is not there.
            let loss = libm::log1p(-rate);
            let ln_without = libm::log(self.alone);
            remove.atoms.push(Atom {
                loss,
                ln_mass: ln_without + loss,
            });
            add.atoms.push(Atom {
                loss: -loss,
                ln_mass: ln_without,
            });
        }
        Step::Pair(Pair {
            remove,
            add: Some(add),
        })
    }
}

/// The pair that dominates every `(epsilon, delta)`-private mechanism (Kairouz, Oh and Viswanath
/// 2015), without its infinite part.
fn response(epsilon: f64, delta: f64) -> Vec<Atom> {
    let ln_mass = libm::log1p(-delta) - libm::log1p(libm::exp(-epsilon));
    vec![
        Atom {
            loss: epsilon,
            ln_mass,
        },
        Atom {
            loss: -epsilon,
            ln_mass: ln_mass - epsilon,
        },
    ]
}

fn normal(upper: Vec<(f64, f64)>, lower: Vec<(f64, f64)>, swapped: bool) -> Law {
    Law {
        atoms: Vec::new(),
        infinite: 0.0,
        smooth: vec![(
            1.0,
            Smooth::Normal(NormalPair {
                upper,
                lower,
                swapped,
            }),
        )],
    }
}

/// Both directions of two normal mixtures.
fn directions(upper: Vec<(f64, f64)>, lower: Vec<(f64, f64)>) -> Step {
    Step::Pair(Pair {
        remove: normal(upper.clone(), lower.clone(), false),
        add: Some(normal(upper, lower, true)),
    })
}

fn with_rate(rate: f64, mean: f64) -> Vec<(f64, f64)> {
    if rate >= 1.0 {
        vec![(0.0, mean)]
    } else {
        vec![(libm::log1p(-rate), 0.0), (libm::log(rate), mean)]
    }
}

/// A Poisson sample of Gaussian noise: `((1 - q) N(0, 1) + q N(mean, 1), N(0, 1))`.
fn sampled_normal(rate: f64, mean: f64) -> Step {
    directions(with_rate(rate, mean), vec![(0.0, 0.0)])
}

/// Two members that are replaced by each other push a sampled sum to opposite sides. The two
/// directions mirror each other.
fn replaced_normal(rate: f64, mean: f64) -> Step {
    Step::Pair(Pair {
        remove: normal(with_rate(rate, mean), with_rate(rate, -mean), false),
        add: None,
    })
}

/// A member of random contribution. Choquette-Choo, Ganesh, Steinke and Thakurta 2023, arXiv
/// 2310.15526, Section 4.
fn mixture(rate: f64, noise: f64, sensitivities: &[f64], probabilities: &[f64]) -> Step {
    if sensitivities.iter().all(|amount| *amount <= 0.0) {
        return Step::Nothing;
    }
    if noise <= 0.0 {
        return Step::Everything;
    }
    let most = sensitivities.iter().copied().fold(0.0, f64::max) / noise;
    if !(most * most).is_finite() {
        return Step::Everything;
    }
    if most > STEEPEST {
        return Step::Gaussian(most * most * (1.0 + 4.0 * f64::EPSILON));
    }
    let total: f64 = probabilities.iter().sum();
    let mut parts: Vec<(f64, f64)> = sensitivities
        .iter()
        .zip(probabilities)
        .map(|(amount, probability)| (amount / noise, rate * probability / total))
        .collect();
    if rate < 1.0 {
        parts.push((0.0, 1.0 - rate));
    }
    parts.sort_by(|a, b| a.0.total_cmp(&b.0));
    parts.dedup_by(|next, kept| {
        let same = next.0 <= kept.0;
        if same {
            kept.1 += next.1;
        }
        same
    });
    let upper = parts
        .into_iter()
        .map(|(mean, weight)| (libm::log(weight), mean))
        .collect();
    directions(upper, vec![(0.0, 0.0)])
}

/// A Poisson sample that is cut to a limit. Ganesh 2025, arXiv 2508.15089: with probability `t`
/// (that the limit binds for a member that was drawn) the member pushes out another, else it joins
/// as in a Poisson sample; the bound with replacement covers the first case.
fn truncated(
    population: u64,
    rate: f64,
    limit: u64,
    noise: f64,
    relation: NeighboringRelation,
) -> Step {
    if rate <= 0.0 {
        return Step::Nothing;
    }
    if noise <= 0.0 {
        return Step::Everything;
    }
    let mean = 1.0 / noise;
    if !(mean * mean).is_finite() {
        return Step::Everything;
    }
    if mean > 0.5 * STEEPEST {
        return Step::Gaussian(4.0 * mean * mean * (1.0 + 4.0 * f64::EPSILON));
    }
    // Rounded up: the case with replacement is the worse one.
    let up = 1.0 + 1e-11;
    let binding = (binomial_at_least(population - 1, limit, rate) * up).min(1.0);
    let (plain_remove, plain_add) = match relation {
        NeighboringRelation::ReplaceOne => {
            let law = normal(with_rate(rate, mean), with_rate(rate, -mean), false);
            (law.clone(), law)
        }
        _ => (
            normal(with_rate(rate, mean), vec![(0.0, 0.0)], false),
            normal(with_rate(rate, mean), vec![(0.0, 0.0)], true),
        ),
    };
    let join = |mut plain: Law| {
        if binding > 0.0 {
            // The probability to be kept, given that the limit binds.
            let more = binomial_at_least(population, limit.saturating_add(1), rate);
            let kept = more * limit as f64 / binding / population as f64 * up;
            let kept = kept.clamp(1e-300, 1.0);
            let pushed = normal(
                with_rate(kept, 2.0 * mean),
                with_rate(kept, -2.0 * mean),
                false,
            );
            for (weight, _) in &mut plain.smooth {
                *weight *= 1.0 - binding;
            }
            plain.smooth.retain(|(weight, _)| *weight > 0.0);
            for (weight, smooth) in pushed.smooth {
                plain.smooth.push((weight * binding, smooth));
            }
        }
        plain
    };
    Step::Pair(Pair {
        remove: join(plain_remove),
        add: Some(join(plain_add)),
    })
}

/// `P(X >= at_least)` for a binomial variable, with small relative error: a sum of positive terms.
fn binomial_at_least(trials: u64, at_least: u64, rate: f64) -> f64 {
    if at_least == 0 {
        return 1.0;
    }
    if at_least > trials {
        return 0.0;
    }
    if rate >= 1.0 {
        return 1.0;
    }
    let mean = trials as f64 * rate;
    if (at_least as f64) <= mean {
        // From the other side.
        return 1.0 - binomial_at_least(trials, trials - at_least + 1, 1.0 - rate);
    }
    let mut term = binomial(trials, at_least, rate);
    let odds = rate / (1.0 - rate);
    let mut sum = 0.0;
    let mut k = at_least;
    while term > sum * 1e-18 {
        sum += term;
        if k == trials {
            break;
        }
        term *= (trials - k) as f64 / (k + 1) as f64 * odds;
        k += 1;
    }
    sum.min(1.0)
}

/// `P(X = k)` for a binomial variable by the saddle-point expansion, exact to rounding: Loader
/// 2000, "Fast and accurate computation of binomial probabilities".
fn binomial(trials: u64, k: u64, rate: f64) -> f64 {
    let (n, x) = (trials as f64, k as f64);
    if k == 0 {
        return libm::exp(n * libm::log1p(-rate));
    }
    if k == trials {
        return libm::exp(n * libm::log(rate));
    }
    let rest = n - x;
    let exponent = stirling(n)
        - stirling(x)
        - stirling(rest)
        - deviance(x, n * rate)
        - deviance(rest, n * (1.0 - rate));
    libm::exp(exponent) * libm::sqrt(n / (2.0 * core::f64::consts::PI * x * rest))
}

/// `ln(n!)` less Stirling's formula.
fn stirling(n: f64) -> f64 {
    if n < 16.0 {
        let exact = libm::lgamma(n + 1.0);
        return exact - (n + 0.5) * libm::log(n) + n - 0.918_938_533_204_672_7;
    }
    let square = 1.0 / (n * n);
    (1.0 / 12.0
        - (1.0 / 360.0 - (1.0 / 1260.0 - (1.0 / 1680.0 - square / 1188.0) * square) * square)
            * square)
        / n
}

/// `x ln(x / mean) + mean - x` without cancellation.
fn deviance(x: f64, mean: f64) -> f64 {
    let difference = (x - mean) / (x + mean);
    if difference.abs() < 0.1 {
        // Loader's series in `difference`.
        let mut sum = (x - mean) * difference;
        let mut power = 2.0 * x * difference;
        let square = difference * difference;
        for k in 1..40 {
            power *= square;
            sum += power / f64::from(2 * k + 1);
        }
        sum
    } else {
        x * libm::log(x / mean) + mean - x
    }
}

/// Skellam noise of this variance on an integer that changes by 1: `P(x)` is `exp(-v) I_x(v)`.
fn skellam(variance: f64) -> Result<Base, PrivacyError> {
    // Sub-exponential tails: wider than a normal law's where the variance is small.
    let reach = libm::ceil(REACH * libm::sqrt(variance) + 250.0);
    PrivacyError::unless(
        2.0 * reach <= MOST_ATOMS as f64,
        "variance",
        variance,
        "at most 8e7 for the `pld` accountant; use the `rdp` accountant",
    )?;
    let reach = reach as usize;
    // Ratios of consecutive Bessel functions, downwards, where the recurrence is stable; above the
    // last one their ratio is below `v / (2 n)`.
    let mut ratios = vec![0.0; reach + 1];
    let mut ratio = 0.0;
    for n in (1..=reach + 50).rev() {
        ratio = 1.0 / (2.0 * n as f64 / variance + ratio);
        if n <= reach {
            ratios[n] = ratio;
        }
    }
    let mut ln_value = vec![0.0; reach + 1];
    for n in 1..=reach {
        ln_value[n] = ln_value[n - 1] + libm::log(ratios[n]);
    }
    let sum: f64 = 1.0 + 2.0 * ln_value[1..].iter().map(|v| libm::exp(*v)).sum::<f64>();
    let ln_sum = libm::log(sum);
    let reach = reach as i64;
    let atoms = (1 - reach..=reach)
        .map(|x| {
            let here = ln_value[x.unsigned_abs() as usize];
            let there = ln_value[(x - 1).unsigned_abs() as usize];
            Atom {
                loss: here - there,
                ln_mass: here - ln_sum,
            }
        })
        .collect();
    // At the reach the terms fall by at least a factor of two or are below 1e-80 anyway.
    let alone = 4.0 * libm::exp(ln_value[reach as usize] - ln_sum) * libm::sqrt(variance + 1.0);
    Ok(Base {
        atoms,
        alone: alone.min(1.0),
        laplace: None,
    })
}
