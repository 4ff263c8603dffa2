//! From an event and a relation to a dominating pair of laws, in both directions.
//!
//! A pair `(P, Q)` dominates a mechanism when no pair of neighbouring data sets is easier to tell
//! apart; then compositions of pairs dominate compositions of mechanisms (Zhu, Dong and Wang 2022,
//! arXiv 2106.08567, Theorem 10). *Remove* has the member under `P`, *add* under `Q`. For a Poisson
//! sample of a mechanism with pair `(P, Q)` it is `((1 - q) Q + q P, Q)` and its reverse (ibid.,
//! Theorem 11).

use super::additive::Base;
use super::law::{Atom, Law};
use super::normal::{STEEPEST, fixed_size, mixture, replaced_normal, sampled_normal, truncated};
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
    /// At most what this Gaussian mechanism adds.
    AtMostGaussian(f64),
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
    /// Whether it is worse than the mechanism's own pair, so that it bounds from above only.
    pub(crate) loose: bool,
    /// Where it is: the losses on one pair of neighbouring data sets, which bound from below, as the
    /// member is there under `P` and under `Q`.
    pub(crate) attack: Option<Box<[Law; 2]>>,
    /// The squared inverse noise multiplier of a Gaussian mechanism that dominates it as well.
    pub(crate) plain: Option<f64>,
}

impl Pair {
    /// The pair of the mechanism itself.
    pub(super) fn tight(remove: Law, add: Option<Law>) -> Self {
        Self {
            remove,
            add,
            loose: false,
            attack: None,
            plain: None,
        }
    }
}

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
                    Step::AtMostGaussian(precision)
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
            // With `replace-special`, in the terms of `pushing_out`, the
            // special member is at most half as far from the others as these may be from each other:
            // `q ((1 - beta) H_alpha(2 mean) + beta H_alpha(mean))` bounds one direction and
            // `q H_alpha(mean)` the other. But the former is not convex in the order, so that no
            // pair of laws has it for its divergences.
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
                Step::AtMostGaussian(precision)
            } else {
                fixed_size(*sample as f64 / *population as f64, mean)
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
            Ok(response(*noise_parameter, *buckets as f64, one_sided))
        }
        DpEvent::ZCdp { .. } => refuse("use the `zcdp` or the `rdp` accountant"),
        DpEvent::RepeatAndSelect { .. } => refuse("use the `rdp` accountant"),
        _ => match Base::of(event)? {
            Some(base) => Ok(base.plain()),
            None => refuse("use the `rdp` accountant"),
        },
    }
}

/// A category among so many, replaced with this probability by a uniform one; the special member's
/// is always uniform.
fn response(replaced: f64, buckets: f64, special: bool) -> Step {
    let other = replaced / buckets;
    let law = |atoms: &[(f64, f64)]| Law {
        atoms: atoms
            .iter()
            .map(|(loss, ln_mass)| Atom {
                loss: *loss,
                ln_mass: *ln_mass,
            })
            .collect(),
        infinite: 0.0,
        smooth: Vec::new(),
    };
    if special {
        // The member's category, and any other: with `1 / buckets` each under the uniform law.
        let own = libm::log1p((buckets - 1.0) * (1.0 - replaced));
        let (ln_own, ln_rest) = (-libm::log(buckets), libm::log1p(-1.0 / buckets));
        let rest = libm::log(replaced);
        return Step::Pair(Pair::tight(
            law(&[(own, ln_own + own), (rest, ln_rest + rest)]),
            Some(law(&[(-own, ln_own), (-rest, ln_rest)])),
        ));
    }
    let loss = libm::log1p((1.0 - replaced) / other);
    let (ln_other, same) = (libm::log(other), other * (buckets - 2.0));
    let mut atoms = vec![(loss, ln_other + loss), (-loss, ln_other)];
    if same > 0.0 {
        atoms.push((0.0, libm::log(same)));
    }
    Step::Pair(Pair::tight(law(&atoms), None))
}
