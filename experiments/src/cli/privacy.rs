//! `privacy`: the accountants at the prompt, and audits of runs.

mod audit;

use std::path::PathBuf;
use std::str::FromStr as _;

use clap::{Subcommand, ValueEnum};
use fl_privacy::calibrate::Target;
use fl_privacy::{
    Accountant, AccountantKind, Bounds, Delta, DpEvent, Epsilon, NeighboringRelation,
    NoiseMultiplier, PrivacyError, accountant,
};
use serde::Serialize;

use super::{Exit, output};
use crate::error::Error;
use crate::plot;

/// Arguments of `privacy`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The epsilon of a training run
    Epsilon(EpsilonArgs),
    /// The smallest noise multiplier that keeps a target epsilon
    Calibrate(CalibrateArgs),
    /// Draw epsilon over the steps of a training run, by several accountants
    Curve(CurveArgs),
    /// Attack the run of an experiment, and compare what the attack finds with the reported epsilon
    Audit(audit::AuditArgs),
}

/// What every step releases, and about whom.
#[derive(Debug, clap::Args)]
struct Release {
    /// The noise
    #[arg(long, value_enum, default_value = "gaussian")]
    mechanism: Mechanism,
    /// Who takes part in a step
    #[arg(long, value_enum, default_value = "none")]
    sampling: Sampling,
    /// The probability to take part [for --sampling poisson]
    #[arg(long, value_name = "Q", allow_negative_numbers = true)]
    sampling_rate: Option<f64>,
    /// Members in all [for --sampling fixed-size and shuffled]
    #[arg(long, value_name = "N")]
    population: Option<u64>,
    /// Members in a step [for --sampling fixed-size and shuffled]
    #[arg(long, value_name = "B")]
    sample: Option<u64>,
    /// Steps (rounds)
    #[arg(long, value_name = "T", default_value_t = 1)]
    steps: u64,
    /// The delta at which epsilon is meant
    #[arg(long, value_name = "D", allow_negative_numbers = true)]
    delta: f64,
    /// Which data sets are neighbours: add-or-remove-one, replace-one, replace-special [default:
    /// add-or-remove-one; replace-one for --sampling fixed-size and shuffled]
    #[arg(long, value_parser = NeighboringRelation::from_str)]
    relation: Option<NeighboringRelation>,
}

#[derive(Debug, clap::Args)]
struct EpsilonArgs {
    /// Standard deviation (Laplace: scale) of the noise over the sensitivity
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    noise_multiplier: f64,
    #[command(flatten)]
    release: Release,
    /// Who adds up: pld, rdp, zcdp, gaussian or naive
    #[arg(long, default_value = "pld", value_parser = AccountantKind::from_str)]
    accountant: AccountantKind,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct CalibrateArgs {
    /// The epsilon to keep
    #[arg(long, value_name = "E", allow_negative_numbers = true)]
    target_epsilon: f64,
    #[command(flatten)]
    release: Release,
    /// Who adds up: pld, rdp, zcdp, gaussian or naive
    #[arg(long, default_value = "pld", value_parser = AccountantKind::from_str)]
    accountant: AccountantKind,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct CurveArgs {
    /// Standard deviation (Laplace: scale) of the noise over the sensitivity
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    noise_multiplier: f64,
    #[command(flatten)]
    release: Release,
    /// Who adds up, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "pld,rdp,zcdp,naive",
          value_parser = AccountantKind::from_str)]
    accountants: Vec<AccountantKind>,
    /// Points of each curve
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u64).range(2..=1000))]
    points: u64,
    /// The folder for the plot
    #[arg(long, value_name = "DIR", default_value = "plots")]
    out: PathBuf,
    /// Print one line of JSON with the points
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mechanism {
    /// Gaussian noise, sensitivity in the Euclidean norm
    Gaussian,
    /// Laplace noise, sensitivity in the 1-norm
    Laplace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Sampling {
    /// Everybody takes part in every step
    None,
    /// Each member independently and secretly, with --sampling-rate
    Poisson,
    /// A secret random subset of --sample out of --population
    FixedSize,
    /// Batches of --sample in a random order of --population; earns no amplification
    Shuffled,
}

/// Options that do not fit together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UsageError {
    /// An option that is needed.
    #[error("--sampling {sampling} needs {option}; give it")]
    Missing {
        /// The sampling.
        sampling: String,
        /// The option.
        option: &'static str,
    },
    /// An option that would have no effect.
    #[error(
        "{option} has no meaning with --sampling {sampling}; leave it out, or choose {instead}"
    )]
    Needless {
        /// The sampling.
        sampling: String,
        /// The option.
        option: &'static str,
        /// Samplings that have it.
        instead: &'static str,
    },
    /// A target that every noise keeps.
    #[error("the target epsilon is {target}; expected a finite number above 0")]
    Target {
        /// As given.
        target: f64,
    },
}

/// Runs the subcommand.
///
/// # Errors
/// [`Error::Privacy`] for numbers out of range and events that an accountant has no bound for,
/// [`Error::PrivacyUsage`] for options that do not fit together; for audits, those of the
/// experiment.
pub fn run(args: &Args) -> Result<Exit, Error> {
    match &args.command {
        Command::Epsilon(args) => epsilon(args)?,
        Command::Calibrate(args) => calibrate(args)?,
        Command::Curve(args) => curve(args)?,
        Command::Audit(args) => return audit::run(args),
    }
    Ok(Exit::Done)
}

impl Sampling {
    fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

impl Release {
    fn relation(&self) -> NeighboringRelation {
        self.relation.unwrap_or(match self.sampling {
            Sampling::None | Sampling::Poisson => NeighboringRelation::AddOrRemoveOne,
            Sampling::FixedSize | Sampling::Shuffled => NeighboringRelation::ReplaceOne,
        })
    }

    /// Refuses options that would be ignored, and returns those of the sampling.
    fn sampler(&self) -> Result<Drawn, UsageError> {
        let sampling = self.sampling.name();
        let needless = |given: bool, option, instead| {
            if given {
                Err(UsageError::Needless {
                    sampling: sampling.clone(),
                    option,
                    instead,
                })
            } else {
                Ok(())
            }
        };
        let missing = |option| UsageError::Missing {
            sampling: sampling.clone(),
            option,
        };
        let sized = "--sampling fixed-size or shuffled";
        let rate = self.sampling_rate;
        match self.sampling {
            Sampling::None | Sampling::Poisson => {
                needless(self.population.is_some(), "--population", sized)?;
                needless(self.sample.is_some(), "--sample", sized)?;
            }
            Sampling::FixedSize | Sampling::Shuffled => {
                needless(rate.is_some(), "--sampling-rate", "--sampling poisson")?;
            }
        }
        let both = || -> Result<(u64, u64), UsageError> {
            Ok((
                self.population.ok_or_else(|| missing("--population"))?,
                self.sample.ok_or_else(|| missing("--sample"))?,
            ))
        };
        Ok(match self.sampling {
            Sampling::None => {
                needless(rate.is_some(), "--sampling-rate", "--sampling poisson")?;
                Drawn::All
            }
            Sampling::Poisson => Drawn::Poisson(rate.ok_or_else(|| missing("--sampling-rate"))?),
            Sampling::FixedSize => {
                let (population, sample) = both()?;
                Drawn::FixedSize(population, sample)
            }
            Sampling::Shuffled => {
                let (population, sample) = both()?;
                Drawn::Shuffled(population, sample)
            }
        })
    }

    /// What one step releases, and how often in the given number of steps.
    fn events(
        &self,
        sampler: &Drawn,
        noise: NoiseMultiplier,
        steps: u64,
    ) -> Result<(DpEvent, u64), PrivacyError> {
        let inner = match self.mechanism {
            Mechanism::Gaussian => DpEvent::gaussian(noise),
            Mechanism::Laplace => DpEvent::laplace(noise),
        };
        Ok(match *sampler {
            Drawn::All => (inner, steps),
            Drawn::Poisson(rate) => (DpEvent::poisson_sampled(rate, inner)?, steps),
            Drawn::FixedSize(population, sample) => {
                let event = DpEvent::sampled_without_replacement(population, sample, inner)?;
                (event, steps)
            }
            Drawn::Shuffled(population, batch) => {
                let sampler = fl_privacy::Sampler::shuffled(population, batch)?;
                let event = sampler.round_event(0, &inner, self.relation())?;
                // Once in each pass over the members.
                (event, steps.div_ceil(population.div_ceil(batch)))
            }
        })
    }

    fn compose(
        &self,
        kind: AccountantKind,
        noise: NoiseMultiplier,
        steps: u64,
    ) -> Result<Box<dyn Accountant>, Error> {
        let mut sum = accountant(kind, self.relation());
        let (event, count) = self.events(&self.sampler()?, noise, steps)?;
        sum.compose(&event, count)?;
        Ok(sum)
    }

    fn spent(
        &self,
        kind: AccountantKind,
        noise: NoiseMultiplier,
        steps: u64,
    ) -> Result<Bounds<Epsilon>, Error> {
        let delta = Delta::new(self.delta)?;
        Ok(self.compose(kind, noise, steps)?.epsilon(delta)?)
    }

    /// For people: the run in words.
    fn words(&self) -> String {
        let steps = match self.steps {
            1 => "1 step".to_owned(),
            steps => format!("{} steps", output::count(steps)),
        };
        let who = match (
            self.sampling,
            self.sampling_rate,
            self.sample,
            self.population,
        ) {
            (Sampling::Poisson, Some(rate), ..) => format!("Poisson sampling at {rate}"),
            (Sampling::FixedSize, _, Some(sample), Some(population)) => {
                format!("a random {sample} of {population}")
            }
            (Sampling::Shuffled, _, Some(sample), Some(population)) => {
                format!("shuffled batches of {sample} of {population}")
            }
            _ => "everybody".to_owned(),
        };
        format!(
            "{steps} · {who} · delta {} · {}",
            self.delta,
            self.relation()
        )
    }
}

/// The options of a sampling, present and apart.
enum Drawn {
    All,
    Poisson(f64),
    FixedSize(u64, u64),
    Shuffled(u64, u64),
}

#[derive(Debug, Serialize)]
struct EpsilonLine {
    epsilon: Epsilon,
    lower: Epsilon,
    accountant: AccountantKind,
    relation: NeighboringRelation,
    seconds: f64,
}

fn epsilon(args: &EpsilonArgs) -> Result<(), Error> {
    let noise = NoiseMultiplier::new(args.noise_multiplier)?;
    let release = &args.release;
    let start = now();
    let bounds = release.spent(args.accountant, noise, release.steps)?;
    let seconds = start.elapsed().as_secs_f64();
    if args.json {
        return output::json(&EpsilonLine {
            epsilon: bounds.upper,
            lower: bounds.lower,
            accountant: args.accountant,
            relation: release.relation(),
            seconds,
        });
    }
    output::line(&format!(
        "epsilon {} · {} · {} accountant · {}",
        figure(bounds.upper.get()),
        release.words(),
        args.accountant,
        output::seconds(seconds)
    ))?;
    if bounds.lower > Epsilon::ZERO {
        output::line(&format!(
            "no analysis of this run can promise less than {}",
            figure_down(bounds.lower.get())
        ))?;
    }
    if release.sampling == Sampling::Poisson || release.sampling == Sampling::FixedSize {
        let open = Release {
            sampling: Sampling::None,
            sampling_rate: None,
            population: None,
            sample: None,
            relation: Some(release.relation()),
            ..*release
        };
        let open = open.spent(args.accountant, noise, release.steps)?;
        output::line(&format!(
            "for the released model only: whoever sees who takes part has epsilon {}",
            figure(open.upper.get())
        ))?;
    }
    Ok(())
}

#[derive(Debug, Serialize)]
struct CalibrateLine {
    noise_multiplier: f64,
    epsilon: Epsilon,
}

fn calibrate(args: &CalibrateArgs) -> Result<(), Error> {
    let target = args.target_epsilon;
    if !(target > 0.0 && target.is_finite()) {
        return Err(UsageError::Target { target }.into());
    }
    let target = Epsilon::new(target)?;
    let start = now();
    let release = &args.release;
    let goal = Target {
        epsilon: target,
        delta: Delta::new(release.delta)?,
        accountant: args.accountant,
        relation: release.relation(),
    };
    let sampler = release.sampler()?;
    let (_, count) = release.events(&sampler, NoiseMultiplier::new(1.0)?, release.steps)?;
    let found = goal.noise_multiplier(count, |noise| {
        Ok(release.events(&sampler, noise, release.steps)?.0)
    })?;
    let (noise, epsilon) = (found.value.get(), found.epsilon.upper);
    let seconds = start.elapsed().as_secs_f64();
    if args.json {
        return output::json(&CalibrateLine {
            noise_multiplier: noise,
            epsilon,
        });
    }
    output::line(&format!(
        "noise multiplier {} keeps epsilon {} of {} · {} · {} accountant · {}",
        noise,
        figure(epsilon.get()),
        target,
        args.release.words(),
        args.accountant,
        output::seconds(seconds)
    ))
}

#[derive(Debug, Serialize)]
struct CurveLine {
    plots: Vec<PathBuf>,
    curves: Vec<CurveJson>,
}

#[derive(Debug, Serialize)]
struct CurveJson {
    accountant: AccountantKind,
    steps: Vec<u64>,
    epsilon: Vec<Epsilon>,
}

fn curve(args: &CurveArgs) -> Result<(), Error> {
    let noise = NoiseMultiplier::new(args.noise_multiplier)?;
    let release = &args.release;
    let mut steps: Vec<u64> = (1..=args.points)
        .map(|point| {
            (u128::from(release.steps) * u128::from(point)).div_ceil(u128::from(args.points))
        })
        .map(|step| u64::try_from(step).unwrap_or(u64::MAX))
        .collect();
    steps.dedup();
    let mut curves = Vec::new();
    for &kind in &args.accountants {
        let epsilon = steps
            .iter()
            .map(|&steps| Ok(release.spent(kind, noise, steps)?.upper))
            .collect::<Result<Vec<_>, Error>>()?;
        curves.push(CurveJson {
            accountant: kind,
            steps: steps.clone(),
            epsilon,
        });
    }
    let drawn: Vec<(String, Vec<(f64, f64)>)> = curves
        .iter()
        .map(|curve| {
            let points = curve.steps.iter().zip(&curve.epsilon);
            let points = points.map(|(step, epsilon)| (*step as f64, epsilon.get()));
            (curve.accountant.to_string(), points.collect())
        })
        .collect();
    let mechanism = match release.mechanism {
        Mechanism::Gaussian => "Gaussian noise",
        Mechanism::Laplace => "Laplace noise",
    };
    let subtitle = format!(
        "{mechanism} {} · {}",
        args.noise_multiplier,
        release.words()
    );
    let plots = plot::draw_epsilon(&subtitle, drawn, &args.out)?;
    if args.json {
        return output::json(&CurveLine { plots, curves });
    }
    for plot in plots {
        output::line(&plot.display().to_string())?;
    }
    Ok(())
}

/// Six significant digits, rounded upwards.
fn figure(value: f64) -> String {
    rounded(value, f64::ceil)
}

/// Six significant digits, rounded downwards.
fn figure_down(value: f64) -> String {
    rounded(value, f64::floor)
}

fn rounded(value: f64, round: fn(f64) -> f64) -> String {
    if !value.is_finite() || value <= 0.0 {
        return format!("{value}");
    }
    let digits = 5 - value.log10().floor() as i32;
    if !(0..=9).contains(&digits) {
        return format!("{value:e}");
    }
    let scale = 10f64.powi(digits);
    format!("{:.*}", digits as usize, round(value * scale) / scale)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the time is printed for the person at the terminal and decides nothing"
)]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

impl From<PrivacyError> for Error {
    fn from(error: PrivacyError) -> Self {
        Self::Privacy(Box::new(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_never_flatter() {
        let cases = [
            (1.828_243_6, "1.82825", "1.82824"),
            (44.600_01, "44.6001", "44.6000"),
            (0.044_548_12, "0.0445482", "0.0445481"),
            (0.0, "0", "0"),
            (f64::INFINITY, "inf", "inf"),
            (1e-9, "1e-9", "1e-9"),
        ];
        for (value, up, down) in cases {
            assert_eq!(figure(value), up);
            assert_eq!(figure_down(value), down);
        }
    }
}
