//! From curves to one number.

use super::confident;
use crate::accountant::Accountant;
use crate::error::PrivacyError;
use crate::units::{Delta, Epsilon};

/// Noise is looked through from this share of the scheduled noise ..
const LEAST: f64 = 1.0 / 256.0;
/// .. to this multiple.
const MOST: f64 = 1024.0;
/// Steps of the bisection of the logarithm: the noise is found to half a per cent, on the safe side.
const STEPS: u32 = 7;

/// The `epsilon` that is reported at `delta` for the most noise that guesses refute: of the accountants that `family`
/// gives for multiples of the scheduled noise, at least 1/256 and at most 1024 times as much. 0
/// when not even the most noise is refuted.
///
/// `p_value` says how likely the guesses are under an accountant's curve. The bound holds for runs
/// that are members of the family, whose noise alone may be another than the scheduled one.
///
/// # Errors
/// [`PrivacyError::OutOfRange`] for a confidence outside 0 to 1, and those of the accountants.
pub fn refuted_epsilon(
    delta: Delta,
    confidence: f64,
    family: impl Fn(f64) -> Result<Box<dyn Accountant>, PrivacyError>,
    p_value: impl Fn(&dyn Accountant) -> Result<f64, PrivacyError>,
) -> Result<Epsilon, PrivacyError> {
    confident(confidence)?;
    let refuted = |scale: f64| -> Result<bool, PrivacyError> {
        Ok(p_value(family(scale)?.as_ref())? < 1.0 - confidence)
    };
    // Less noise allows more right guesses: `kept` is not refuted, `lost` is.
    let (mut kept, mut lost) = (1.0, 1.0);
    if refuted(1.0)? {
        loop {
            kept *= 0.5;
            if !refuted(kept)? {
                break;
            }
            lost = kept;
            if kept <= LEAST {
                break;
            }
        }
    } else {
        loop {
            lost *= 2.0;
            if refuted(lost)? {
                break;
            }
            kept = lost;
            if lost >= MOST {
                return Ok(Epsilon::ZERO);
            }
        }
    }
    for _ in 0..STEPS {
        let middle = libm::sqrt(kept * lost);
        if refuted(middle)? {
            lost = middle;
        } else {
            kept = middle;
        }
    }
    // Not every accountant has a lower bound; this is what it would report for that noise.
    Ok(family(lost)?.epsilon(delta)?.upper)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accountant::{AccountantKind, accountant};
    use crate::audit::{OneRun, Repeated};
    use crate::event::DpEvent;
    use crate::fdp::TradeOffCurve;
    use crate::relation::NeighboringRelation;
    use crate::units::NoiseMultiplier;

    fn gaussian(sigma: f64) -> Result<Box<dyn Accountant>, PrivacyError> {
        let mut sum = accountant(
            AccountantKind::Gaussian,
            NeighboringRelation::AddOrRemoveOne,
        );
        sum.compose(&DpEvent::gaussian(NoiseMultiplier::new(sigma)?), 1)?;
        Ok(sum)
    }

    /// The share of right guesses of the best test between N(0, 1) and N(mu, 1) is Phi(mu / 2).
    #[test]
    fn the_noise_that_was_used_is_found_from_shares() {
        let delta = Delta::new(1e-5).unwrap();
        for mu in [0.3_f64, 1.0, 2.0] {
            let share = 0.5 * libm::erfc(-0.5 * mu * core::f64::consts::FRAC_1_SQRT_2);
            let runs = Repeated::new(vec![share; 400]).unwrap();
            let truth = gaussian(1.0 / mu).unwrap().epsilon(delta).unwrap().upper;
            // Whatever noise was scheduled, the same is found.
            let mut found = Vec::new();
            for scheduled in [1.0, 0.1, 5.0] {
                let bound = refuted_epsilon(
                    delta,
                    0.95,
                    |scale| gaussian(scheduled * scale),
                    |sum| Ok(runs.curve_p_value(&TradeOffCurve::of(sum, 2)?)),
                );
                found.push(bound.unwrap().get());
            }
            for &bound in &found {
                assert!(
                    bound < truth.get() && bound > 0.8 * truth.get(),
                    "{mu}: {found:?}"
                );
                assert!((bound / found[0] - 1.0).abs() < 0.02, "{mu}: {found:?}");
            }
        }
    }

    #[test]
    fn one_run_of_many_canaries_finds_less() {
        let delta = Delta::new(1e-5).unwrap();
        let mu = 1.0;
        let truth = gaussian(1.0 / mu).unwrap().epsilon(delta).unwrap().upper;
        // Of 100,000 canaries of an optimal attack the 500 largest and the 500 smallest scores:
        // beyond the score t are Phi(mu - t) of those that are in and Phi(-t) of the others.
        let run = OneRun {
            canaries: 100_000,
            guesses: 1000,
            correct: 958,
        };
        let bound = refuted_epsilon(delta, 0.95, gaussian, |sum| {
            run.curve_p_value(&TradeOffCurve::of(sum, 100)?)
        });
        let bound = bound.unwrap().get();
        let plain = run.epsilon(delta, 0.95).unwrap().get();
        assert!(
            bound < truth.get() && bound > 0.3 * truth.get(),
            "{bound} of {truth}"
        );
        assert!(bound > plain, "{bound} {plain}");
    }

    #[test]
    fn the_ends_of_the_family() {
        let delta = Delta::new(1e-5).unwrap();
        let nothing = Repeated::new(vec![0.5; 50]).unwrap();
        let with = |runs: &Repeated| {
            refuted_epsilon(delta, 0.95, gaussian, |sum| {
                Ok(runs.curve_p_value(&TradeOffCurve::of(sum, 2)?))
            })
        };
        assert_eq!(with(&nothing).unwrap(), Epsilon::ZERO);
        let all = Repeated::new(vec![1.0; 5000]).unwrap();
        assert!(with(&all).unwrap().get() > 20.0);
        let wrong = refuted_epsilon(delta, 1.0, gaussian, |_| Ok(1.0));
        assert!(wrong.is_err());
    }
}
