//! `privacy audit`: the run of an experiment, attacked.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use fl_privacy::{AccountantKind, Delta, Epsilon, NeighboringRelation};
use fl_sim::audit::{AuditConfig, AuditError, AuditReport, Fault, Others, Verdict};
use indicatif::{ProgressBar, ProgressDrawTarget};
use serde::Serialize;

use super::{figure, figure_down, now};
use crate::cli::progress::round_style;
use crate::cli::{Exit, ExperimentArgs, interrupt, output};
use crate::error::Error;
use crate::plot;
use crate::runner::{DataCache, Prepared, RunOptions};

/// Runs when nothing is asked for: with other clients absent, and with other clients that train.
const RUNS: (u64, u64) = (300, 1);

#[derive(Debug, clap::Args)]
pub(super) struct AuditArgs {
    #[command(flatten)]
    experiment: ExperimentArgs,
    /// Canaries of each run, clients of the experiment that the attack watches [default: 500, or as
    /// many as fit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    canaries: Option<u64>,
    /// Runs of the experiment that are attacked; a single one tells little [default: 300; 1 with
    /// --others train]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    runs: Option<u64>,
    /// How sure the bounds are
    #[arg(
        long,
        value_name = "P",
        default_value_t = 0.95,
        allow_negative_numbers = true
    )]
    confidence: f64,
    /// What clients do that are no canaries
    #[arg(long, value_enum, default_value = "absent")]
    others: OthersName,
    /// Worker threads; the result does not depend on it [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    threads: Option<u16>,
    /// The folder for the plot
    #[arg(long, value_name = "DIR", default_value = "plots")]
    out: PathBuf,
    /// Leave the plot out
    #[arg(long)]
    no_plots: bool,
    /// Print one line of JSON per variant
    #[arg(long)]
    json: bool,
    /// Release only this multiple of the noise that was drawn: does the audit find it?
    #[arg(long, hide = true, value_name = "X")]
    fault_noise: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OthersName {
    /// Nothing: the worst case for privacy, and quick
    Absent,
    /// Train, as in the experiment
    Train,
}

/// One line of `privacy audit --json`.
#[derive(Debug, Serialize)]
struct Line<'a> {
    variant: &'a str,
    verdict: &'static str,
    epsilon: Epsilon,
    delta: Delta,
    accountant: AccountantKind,
    relation: NeighboringRelation,
    lower: Epsilon,
    lower_any: Epsilon,
    confidence: f64,
    p_value: f64,
    rounds: u64,
    runs: u64,
    canaries: u64,
    guesses: u64,
    correct: u64,
    assumed: Vec<String>,
    seconds: f64,
    plots: Vec<PathBuf>,
}

/// Audits every private variant.
pub(super) fn run(args: &AuditArgs) -> Result<Exit, Error> {
    let experiment = args.experiment.read()?;
    let (absent, train) = RUNS;
    let how = AuditConfig {
        canaries: args.canaries,
        runs: args.runs.unwrap_or(match args.others {
            OthersName::Absent => absent,
            OthersName::Train => train,
        }),
        confidence: args.confidence,
        others: match args.others {
            OthersName::Absent => Others::Absent,
            OthersName::Train => Others::Train,
        },
        fault: args.fault_noise.map(Fault::NoiseScale),
    };
    let stop = interrupt::catch();
    let mut cache = DataCache::default();
    let (mut audited, mut refuted) = (0, false);
    for variant in &experiment.variants {
        let named = args.experiment.variants.contains(&variant.name);
        let prepared = Prepared::new(variant, &mut cache)?;
        prepared.ready()?;
        let config = prepared.simulation(&RunOptions {
            threads: args.threads.unwrap_or(0).into(),
            checkpoint: None,
        });
        let start = now();
        let bar = bar(&variant.name, args.json);
        let progress = |done: u64, total: u64| {
            bar.set_length(total);
            bar.set_position(done);
        };
        let (data, model) = (&prepared.data, &prepared.model);
        let found = fl_sim::audit::audit(&config, data, model, &how, &progress, &stop);
        bar.finish_and_clear();
        let report = match found {
            // Of all variants, those are audited that promise something.
            Err(fl_sim::SimError::Audit(error)) if !named && passed_over(&error) => {
                output::tell(&format!("{}: passed over: {error}", variant.name));
                continue;
            }
            Err(error) => return Err(error.into()),
            Ok(None) => {
                output::tell("stopped; an audit begins anew");
                return Ok(Exit::Interrupted);
            }
            Ok(Some(report)) => report,
        };
        let seconds = start.elapsed().as_secs_f64();
        let plots = match args.no_plots {
            true => Vec::new(),
            false => draw(&variant.name, &report, args)?,
        };
        audited += 1;
        refuted |= report.verdict() == Verdict::Refuted;
        print(args, &variant.name, &report, seconds, plots)?;
    }
    if audited == 0 {
        return Err(fl_sim::SimError::from(AuditError::NoGuarantee).into());
    }
    Ok(if refuted { Exit::Refuted } else { Exit::Done })
}

fn passed_over(error: &AuditError) -> bool {
    matches!(
        error,
        AuditError::NoGuarantee | AuditError::Hypothetical | AuditError::Kind
    )
}

/// A bar over the rounds of all runs.
fn bar(name: &str, quiet: bool) -> ProgressBar {
    let target = match quiet {
        true => ProgressDrawTarget::hidden(),
        false => ProgressDrawTarget::stderr_with_hz(8),
    };
    let bar = ProgressBar::with_draw_target(Some(0), target).with_prefix(name.to_owned());
    bar.set_style(round_style());
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

fn verdict(report: &AuditReport) -> &'static str {
    match report.verdict() {
        Verdict::Consistent => "consistent",
        Verdict::Refuted => "refuted",
    }
}

/// What the attack was given, and what the bounds rest on.
fn assumed(report: &AuditReport) -> Vec<String> {
    let cohort = match report.sees_cohort {
        true => "it sees who is selected",
        false => "it does not see who takes part",
    };
    let others = match (report.others, report.knows_others) {
        (Others::Absent, _) => "the other clients are absent",
        (Others::Train, true) => {
            "the other clients train, and the attacker knows what they contribute"
        }
        (Others::Train, false) => {
            "the other clients train, and the attacker does not know what they contribute"
        }
    };
    let canary = match report.relation {
        NeighboringRelation::ReplaceOne => "a canary that is out contributes the opposite",
        _ => "a canary that is out is absent",
    };
    vec![
        "white-box: the attacker sees every released mean, and knows all but the canaries' coins"
            .to_owned(),
        cohort.to_owned(),
        others.to_owned(),
        canary.to_owned(),
        "the lower bound takes the schedule as declared, and only the level of its noise as unknown"
            .to_owned(),
    ]
}

fn print(
    args: &AuditArgs,
    name: &str,
    report: &AuditReport,
    seconds: f64,
    plots: Vec<PathBuf>,
) -> Result<(), Error> {
    if args.json {
        return output::json(&Line {
            variant: name,
            verdict: verdict(report),
            epsilon: report.epsilon,
            delta: report.delta,
            accountant: report.accountant,
            relation: report.relation,
            lower: report.lower,
            lower_any: report.lower_any,
            confidence: report.confidence,
            p_value: report.p_value,
            rounds: report.rounds,
            runs: report.runs,
            canaries: report.canaries,
            guesses: report.guesses,
            correct: report.correct,
            assumed: assumed(report),
            seconds,
            plots,
        });
    }
    output::line(&format!(
        "{name}: {} of {} with {}, attacked in {}",
        many(report.runs, "run"),
        many(report.rounds, "round"),
        match report.canaries {
            1 => "1 canary".to_owned(),
            canaries => format!("{} canaries", output::count(canaries)),
        },
        output::seconds(seconds),
    ))?;
    output::line(&format!(
        "guessed   {} right of {}: {:.2} %; the guarantee allows {:.2} % on average",
        output::count(report.correct),
        output::count(report.guesses),
        100.0 * report.correct as f64 / report.guesses as f64,
        100.0 * report.allowed,
    ))?;
    output::line(&format!(
        "reported  epsilon {} at delta {} · {} accountant · {}",
        figure(report.epsilon.get()),
        report.delta,
        report.accountant,
        report.relation
    ))?;
    output::line(&format!(
        "found     epsilon at least {}, with confidence {}; without any assumption {}",
        figure_down(report.lower.get()),
        report.confidence,
        figure_down(report.lower_any.get()),
    ))?;
    for (index, line) in assumed(report).iter().enumerate() {
        let head = if index == 0 { "assumed" } else { "" };
        output::line(&format!("{head:<9} {line}"))?;
    }
    output::line(&match report.verdict() {
        Verdict::Consistent => format!(
            "verdict   consistent: such guesses have probability up to {:.2} under the guarantee",
            report.p_value
        ),
        Verdict::Refuted => format!(
            "verdict   REFUTED: such guesses have probability below {:.1e} under the guarantee; what \
             was released tells more than is reported",
            report.p_value
        ),
    })?;
    for plot in plots {
        output::line(&format!("plot      {}", plot.display()))?;
    }
    Ok(())
}

fn many(count: u64, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        count => format!("{} {what}s", output::count(count)),
    }
}

fn draw(name: &str, report: &AuditReport, args: &AuditArgs) -> Result<Vec<PathBuf>, Error> {
    let of = |included: bool| {
        let canaries = report.scores.iter().filter(|one| one.included == included);
        canaries.map(|one| one.score).collect()
    };
    let scores = plot::Scores {
        included: of(true),
        excluded: of(false),
        found: vec![
            format!(
                "reported \u{3b5} = {} at \u{3b4} = {}",
                figure(report.epsilon.get()),
                report.delta
            ),
            format!(
                "found \u{3b5} \u{2265} {} with confidence {}: {}",
                figure_down(report.lower.get()),
                report.confidence,
                verdict(report)
            ),
        ],
    };
    let subtitle = format!(
        "{name} · {} of {}",
        many(report.runs, "run"),
        many(report.rounds, "round")
    );
    Ok(plot::draw_audit(name, &subtitle, &scores, &args.out)?)
}
