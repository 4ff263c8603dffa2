//! `run`: every variant of an experiment, one after the other; results and plots in one folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use fl_sim::{CheckpointConfig, Outcome, Simulation};
use serde::Serialize;

use super::progress::Progress;
use super::{Exit, ExperimentArgs, interrupt, output};
use crate::config::{Experiment, Variant};
use crate::error::Error;
use crate::results::{
    HostFacts, Results, ResultsFolder, Summary, VariantKey, VariantResults, rollout_events,
};
use crate::runner::{DataCache, Prepared, RunOptions};

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    experiment: ExperimentArgs,
    /// The folder for the results [default: results/NAME]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Worker threads; the results do not depend on it [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    threads: Option<u16>,
    /// Go on where an interrupted run of the same experiment stopped
    #[arg(long)]
    resume: bool,
    /// Rounds between checkpoints [default: a twentieth of the rounds]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    checkpoint_every: Option<u64>,
    /// Print one line of JSON per variant instead of a table
    #[arg(long)]
    json: bool,
    /// Leave the plots out
    #[arg(long)]
    no_plots: bool,
}

/// One line of `run --json`.
#[derive(Debug, Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    summary: Summary,
    experiment: &'a str,
    status: &'static str,
    peak_rss_mb: Option<u64>,
    threads: usize,
    kernel: &'a str,
    results: String,
}

/// Runs the experiment.
///
/// # Errors
/// [`Error`]; whatever was recorded before it can be resumed.
pub fn run(args: &Args) -> Result<Exit, Error> {
    let experiment = args.experiment.read()?;
    // The results of variants that are not run now are kept.
    let every = Experiment::from_file(&args.experiment.file, &args.experiment.sets)?;
    let keys: Vec<VariantKey> = every.variants.iter().map(Variant::key).collect();
    let out = args
        .out
        .clone()
        .unwrap_or_else(|| Path::new("results").join(&experiment.name));
    let mut cache = DataCache::default();
    // A fault of a later variant shows before the first is run.
    for variant in experiment.variants.iter().rev() {
        Prepared::new(variant, &mut cache)?;
    }
    let folder = ResultsFolder::open(&out)?;
    let stop = interrupt::catch();
    let mut interrupted = false;
    for variant in &experiment.variants {
        if !run_variant(args, variant, &folder, &mut cache, &stop)? {
            interrupted = true;
            break;
        }
    }
    let host = host_facts(args);
    let results = folder.publish(&experiment.name, &keys, &host)?;
    report(args, &experiment, &results, &host, interrupted)?;
    Ok(if interrupted {
        Exit::Interrupted
    } else {
        Exit::Done
    })
}

/// Runs one variant; false when it was interrupted.
fn run_variant(
    args: &Args,
    variant: &Variant,
    folder: &ResultsFolder,
    cache: &mut DataCache,
    stop: &Arc<AtomicBool>,
) -> Result<bool, Error> {
    let mut variant = variant.clone();
    if let Some(by) = &variant.taught_by {
        variant.teacher = folder.finished_model(&by.key())?;
    }
    let variant = &variant;
    let key = variant.key();
    let finished = args.resume && folder.finished(&key)?;
    if finished && variant.local.distillation.is_none() {
        return Ok(true);
    }
    let prepared = Prepared::new(variant, cache)?;
    prepared.ready()?;
    // A file may hold another teacher than it did.
    if finished && folder.taught_by(&key)? == prepared.teacher_digest() {
        return Ok(true);
    }
    let config = prepared.simulation(&RunOptions {
        threads: args.threads.unwrap_or(0).into(),
        checkpoint: Some(CheckpointConfig {
            dir: folder.checkpoint_dir(&variant.name),
            every: args
                .checkpoint_every
                .unwrap_or_else(|| (variant.rounds / 20).max(1)),
        }),
    });
    let (data, model) = (prepared.data.clone(), Arc::clone(&prepared.model));
    let resumed = match args.resume {
        true => Simulation::resume(config.clone(), data.clone(), Arc::clone(&model))?,
        false => None,
    };
    let facts = prepared.facts();
    let (mut simulation, recorder) = match resumed {
        Some(simulation) => {
            let recorder = folder.resume(&facts, simulation.position().0)?;
            (simulation, recorder)
        }
        None => {
            folder.discard(&variant.name)?;
            let simulation = Simulation::new(config, data, model)?;
            (simulation, folder.start(&facts)?)
        }
    };
    let recorder = match &variant.rollout {
        Some(_) => recorder.keeping_served(),
        None => recorder,
    };
    let mut progress = Progress::new(
        recorder,
        &variant.name,
        variant.rounds,
        simulation.round(),
        args.json,
    );
    let outcome = simulation.run(&mut progress, stop);
    let mut recorder = progress.finish();
    let outcome = outcome?;
    tell_privacy(&simulation, &variant.name, outcome)?;
    match outcome {
        Outcome::Stopped { .. } => {
            recorder.stop()?;
            Ok(false)
        }
        Outcome::Finished | Outcome::TargetReached { .. } | Outcome::BudgetSpent { .. } => {
            let rows = prepared.rollout(&recorder.served_files()?)?;
            recorder.rollout(rows);
            match prepared.student(simulation.parameters())? {
                Some((model, parameters)) => recorder.finish(&model, &parameters)?,
                None => recorder.finish(&prepared.model, simulation.parameters())?,
            }
            Ok(true)
        }
    }
}

/// What a private run guarantees, and why it ended when its budget did.
fn tell_privacy(simulation: &Simulation, name: &str, outcome: Outcome) -> Result<(), Error> {
    let Some(plan) = simulation.privacy() else {
        return Ok(());
    };
    let statement = plan
        .statement(plan.rounds_done())
        .map_err(fl_sim::SimError::from)?;
    output::tell(&format!("{name}: {statement}"));
    let caveat = simulation
        .secagg()
        .and_then(|secagg| super::check::caveat(secagg, plan));
    if let Some(caveat) = caveat {
        output::tell(&format!("{name}: {caveat}"));
    }
    if let (Outcome::BudgetSpent { round }, Some(refusal)) = (outcome, plan.refusal()) {
        output::tell(&format!("{name}: ended after {round} rounds: {refusal}"));
    }
    Ok(())
}

fn host_facts(args: &Args) -> HostFacts {
    let threads = match args.threads {
        Some(threads) => usize::from(threads),
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    HostFacts {
        command: std::env::args_os()
            .map(|word| word.to_string_lossy().into_owned())
            .collect(),
        threads: threads as u64,
        kernel: fl_edge::kernel::name().to_owned(),
        platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        peak_rss_mb: output::peak_rss_mb(),
    }
}

fn report(
    args: &Args,
    experiment: &Experiment,
    results: &Results,
    host: &HostFacts,
    interrupted: bool,
) -> Result<(), Error> {
    let plots = match args.no_plots {
        true => Vec::new(),
        false => crate::plot::draw_own(results)?,
    };
    if args.json {
        for variant in &results.variants {
            output::json(&Line {
                summary: variant.summary(),
                experiment: &experiment.name,
                status: match variant.manifest.model_digest {
                    Some(_) => "finished",
                    None => "stopped",
                },
                peak_rss_mb: host.peak_rss_mb,
                threads: host.threads as usize,
                kernel: &host.kernel,
                results: results.path.display().to_string(),
            })?;
        }
    } else {
        let summaries: Vec<Summary> = results.variants.iter().map(|one| one.summary()).collect();
        let int8 = summaries
            .iter()
            .any(|one| one.final_accuracy_int8.is_some());
        let patched = summaries.iter().any(|one| one.patch_share.is_some());
        let private = summaries.iter().any(|one| one.epsilon.is_some());
        let secure = summaries.iter().any(|one| one.failed_rounds.is_some());
        let rows: Vec<Vec<String>> = summaries
            .iter()
            .map(|one| row(one, int8, patched, private, secure))
            .collect();
        let mut heads = vec!["variant", "rounds", "accuracy"];
        heads.extend(int8.then_some("in int8"));
        heads.extend(patched.then_some("patch"));
        heads.extend(private.then_some("epsilon"));
        heads.extend(secure.then_some("failed rounds"));
        heads.extend(["loss", "time/round", "examples/s", "model"]);
        output::line(&output::table(&heads, &rows))?;
        output::line(&format!("results  {}", results.path.display()))?;
        for plot in &plots {
            output::line(&format!("plot     {}", plot.display()))?;
        }
        for variant in &results.variants {
            if let Some(told) = rolled_out(variant) {
                output::line(&told)?;
            }
        }
        if let Some(told) = close_pairs(&summaries) {
            output::tell(&told);
        }
    }
    if interrupted {
        output::tell(&format!("stopped; to go on: {}", resume_command(args)));
    }
    Ok(())
}

/// What came of the releases of a rollout, and what was loaded; nothing without one.
fn rolled_out(variant: &VariantResults) -> Option<String> {
    let rows = &variant.rollout;
    let fleet = rows.first()?.fleet;
    let count = |what: &str| {
        let events = rows.iter().flat_map(|row| rollout_events(&row.events));
        events.filter(|(_, event)| event.starts_with(what)).count() as u64
    };
    let days = rows.iter().map(|row| row.day).max().unwrap_or(1);
    let full: u64 = rows.iter().map(|row| row.bytes_full).sum();
    let patches: u64 = rows.iter().map(|row| row.bytes_patch).sum();
    Some(format!(
        "rollout  {}: {} devices, {} days: {} versions released to all, {} withdrawn; {} loaded, {} of it patches",
        variant.manifest.name,
        output::count(fleet),
        output::count(days),
        output::count(count("completed")),
        output::count(count("withdrawn")),
        output::bytes(full.saturating_add(patches)),
        output::bytes(patches),
    ))
}

/// What is to be said of released sums of nearly the same clients, once for all variants; nothing
/// where there are none.
fn close_pairs(summaries: &[Summary]) -> Option<String> {
    let counts: Vec<String> = summaries
        .iter()
        .filter_map(|one| Some((&one.name, one.close_pairs.filter(|&pairs| pairs > 0)?)))
        .map(|(name, pairs)| format!("{} of {name}", output::count(pairs)))
        .collect();
    if counts.is_empty() {
        return None;
    }
    Some(format!(
        "close sums: pairs of rounds whose cohorts differ by fewer clients than a session must have \
         ({}); the difference of two such sums says much about those few. Select from a larger \
         population, add differential privacy, or let nearly everybody take part in fewer rounds; \
         rounds and counts are close_pairs in secagg.parquet",
        counts.join(", ")
    ))
}

/// A line of the table; with the accuracy in int8, the last patch's share of the file, epsilon, and
/// the rounds that secure aggregation lost, where some variant has such.
fn row(summary: &Summary, int8: bool, patched: bool, private: bool, secure: bool) -> Vec<String> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let percent = |share: f64| format!("{:.2} %", share * 100.0);
    let mut row = vec![
        summary.name.clone(),
        output::count(summary.rounds),
        or_dash(summary.final_accuracy.map(percent)),
    ];
    row.extend(int8.then(|| or_dash(summary.final_accuracy_int8.map(percent))));
    row.extend(patched.then(|| or_dash(summary.patch_share.map(percent))));
    row.extend(private.then(|| or_dash(epsilon(summary))));
    row.extend(secure.then(|| or_dash(summary.failed_rounds.map(output::count))));
    row.extend([
        or_dash(summary.final_loss.map(|loss| format!("{loss:.4}"))),
        or_dash(summary.seconds_per_round.map(output::seconds)),
        or_dash(
            summary
                .examples_per_second
                .map(|rate| output::count(rate as u64)),
        ),
        or_dash(
            summary
                .model_digest
                .as_ref()
                .map(|digest| marked(digest, &summary.arithmetic)),
        ),
    ]);
    row
}

/// The beginning of a digest. Variants that cannot have the same model, whatever else they have in
/// common, say so.
fn marked(digest: &str, arithmetic: &[String]) -> String {
    let short: String = digest.chars().take(12).collect();
    match arithmetic {
        [] => short,
        marks => format!("{short} ({})", marks.join(", ")),
    }
}

/// Epsilon with its delta; named where it is that of a larger deployment.
fn epsilon(summary: &Summary) -> Option<String> {
    let (epsilon, delta) = summary.epsilon.zip(summary.delta)?;
    let hypothetical = match summary.hypothetical {
        Some(true) => " (hypothetical)",
        _ => "",
    };
    Some(format!("{epsilon:.3} at {delta:e}{hypothetical}"))
}

/// The command that goes on with this run.
fn resume_command(args: &Args) -> String {
    let mut words = vec![
        "fledgling run".to_owned(),
        quote(&args.experiment.file.display().to_string()),
    ];
    for set in &args.experiment.sets {
        words.push(format!("--set {}", quote(set)));
    }
    for variant in &args.experiment.variants {
        words.push(format!("--variant {variant}"));
    }
    if let Some(out) = &args.out {
        words.push(format!("--out {}", quote(&out.display().to_string())));
    }
    words.push("--resume".to_owned());
    words.join(" ")
}

/// For a shell.
pub(crate) fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}
