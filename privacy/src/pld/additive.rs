//! Dominating pairs of additive noise that is not Gaussian: Laplace noise and the discrete kinds,
//! plain and on a Poisson sample.

use core::f64::consts::LN_2;

use super::dominate::{Pair, Step};
use super::law::{Atom, LaplacePair, Law, Smooth, sampled_loss};
use crate::error::PrivacyError;
use crate::event::DpEvent;

/// Most point masses that are listed.
const MOST_ATOMS: u64 = 400_000;
/// Discrete noise is listed up to this many standard deviations; the rest, below 1e-80, is counted
/// as infinite loss.
const REACH: f64 = 20.0;

/// A symmetric pair of additive noise, before any sampling.
pub(super) struct Base {
    /// Point masses of the loss with the member under `P`.
    atoms: Vec<Atom>,
    /// Mass of `P` where `Q` is 0; as much of `Q` where `P` is 0.
    alone: f64,
    /// Width of a Laplace pair.
    laplace: Option<f64>,
    /// See [`Pair::loose`].
    loose: bool,
}

/// With a larger loss than this, Laplace noise counts as any mechanism of that loss.
const WIDEST: f64 = 1000.0;

impl Base {
    /// Nothing is hidden.
    pub(super) fn revealing() -> Self {
        Self {
            atoms: Vec::new(),
            alone: 1.0,
            laplace: None,
            loose: false,
        }
    }

    pub(super) fn of(event: &DpEvent) -> Result<Option<Self>, PrivacyError> {
        let atoms = |atoms, alone| {
            Ok(Some(Self {
                atoms,
                alone,
                laplace: None,
                loose: false,
            }))
        };
        let pure = |epsilon: f64| {
            Ok(Some(Self {
                atoms: response(epsilon, 0.0),
                alone: 0.0,
                laplace: None,
                loose: true,
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
                if width > WIDEST {
                    return if width < f64::INFINITY {
                        pure(width)
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
                    loose: false,
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
                    return pure(epsilon.min(f64::MAX));
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
                l2_sensitivity,
            } => {
                if *l1_sensitivity < 1.0 || *l2_sensitivity < 1.0 {
                    // Integers that change by less than 1 do not change.
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

    pub(super) fn plain(self) -> Step {
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
            loose: self.loose,
            attack: None,
            plain: None,
        })
    }

    pub(super) fn sampled(self, rate: f64) -> Step {
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
            loose: self.loose,
            attack: None,
            plain: None,
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
    // Logarithms are summed with what rounding loses (Kahan), as there are thousands.
    let mut ln_value = vec![0.0; reach + 1];
    let mut lost = 0.0;
    for n in 1..=reach {
        let term = libm::log(ratios[n]) - lost;
        ln_value[n] = ln_value[n - 1] + term;
        lost = (ln_value[n] - ln_value[n - 1]) - term;
    }
    let sum: f64 = 1.0 + 2.0 * ln_value[1..].iter().map(|v| libm::exp(*v)).sum::<f64>();
    let ln_sum = libm::log(sum);
    let reach = reach as i64;
    let atoms = (1 - reach..=reach)
        .map(|x| {
            let loss = if x > 0 {
                libm::log(ratios[x as usize])
            } else {
                -libm::log(ratios[(1 - x) as usize])
            };
            Atom {
                loss,
                ln_mass: ln_value[x.unsigned_abs() as usize] - ln_sum,
            }
        })
        .collect();
    // At the reach the terms fall by at least a factor of two or are below 1e-80 anyway.
    let alone = 4.0 * libm::exp(ln_value[reach as usize] - ln_sum) * libm::sqrt(variance + 1.0);
    Ok(Base {
        atoms,
        alone: alone.min(1.0),
        laplace: None,
        loose: false,
    })
}
