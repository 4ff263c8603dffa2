//! `run`: every variant of an experiment, one after the other; results and plots in one folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use fl_sim::{CheckpointConfig, Outcome, Simulation};
use serde::Serialize;

use super::progress::{Progress, RoundBar, Shown};
use super::{Exit, ExperimentArgs, interrupt, output};
use crate::config::{Experiment, Variant};
use crate::error::Error;
use crate::results::{
    HostFacts, Results, ResultsFolder, RunWriter, Summary, VariantKey, VariantResults,
    rollout_events,
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
    if experiment.swept {
        output::tell(
            "this file has a [sweep], of which `run` does nothing; `fledgling sweep` runs its cells",
        );
    }
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
    let how = How {
        threads: args.threads.map_or(0, usize::from),
        checkpoint_every: args.checkpoint_every,
        resume: args.resume,
    };
    for variant in &experiment.variants {
        let show = |done| RoundBar::new(&variant.name, variant.rounds, done, args.json);
        let Some(mut run) = Played::start(&how, variant, &folder, &mut cache)? else {
            continue;
        };
        let outcome = run.play(show(run.round()), &stop)?;
        tell_privacy(run.simulation(), &variant.name, outcome)?;
        if !run.end(outcome)? {
            interrupted = true;
            break;
        }
    }
    let host = host_facts(how.threads);
    let results = folder.publish(&experiment.name, &keys, &host)?;
    report(args, &experiment, &results, &host, interrupted)?;
    Ok(if interrupted {
        Exit::Interrupted
    } else {
        Exit::Done
    })
}

/// How variants are run. Nothing in it decides a result.
pub(super) struct How {
    /// Worker threads; 0 for one per core.
    pub(super) threads: usize,
    /// Rounds between checkpoints; by default a twentieth of the rounds.
    pub(super) checkpoint_every: Option<u64>,
    /// Whether to go on where an earlier run of the same variant stopped.
    pub(super) resume: bool,
}

/// A variant that is being run.
pub(super) struct Played {
    prepared: Prepared,
    simulation: Simulation,
    /// None while it plays.
    recorder: Option<RunWriter>,
}

impl Played {
    /// Gets a variant ready, or finds that it has been run to its end: then there is nothing to play.
    ///
    /// # Errors
    /// [`Error`] when it cannot be run, or what there is of it cannot be read.
    pub(super) fn start(
        how: &How,
        variant: &Variant,
        folder: &ResultsFolder,
        cache: &mut DataCache,
    ) -> Result<Option<Self>, Error> {
        let mut variant = variant.clone();
        if let Some(by) = &variant.taught_by {
            variant.teacher = folder.finished_model(&by.key())?;
        }
        let variant = &variant;
        let key = variant.key();
        let finished = how.resume && folder.finished(&key)?;
        if finished && variant.local.distillation.is_none() {
            return Ok(None);
        }
        let prepared = Prepared::new(variant, cache)?;
        prepared.ready()?;
        // A file may hold another teacher than it did.
        if finished && folder.taught_by(&key)? == prepared.teacher_digest() {
            return Ok(None);
        }
        let config = prepared.simulation(&RunOptions {
            threads: how.threads,
            checkpoint: Some(CheckpointConfig {
                dir: folder.checkpoint_dir(&variant.name),
                every: how
                    .checkpoint_every
                    .unwrap_or_else(|| (variant.rounds / 20).max(1)),
            }),
        });
        let (data, model) = (prepared.data.clone(), Arc::clone(&prepared.model));
        let resumed = match how.resume {
            true => Simulation::resume(config.clone(), data.clone(), Arc::clone(&model))?,
            false => None,
        };
        let facts = prepared.facts();
        let (simulation, recorder) = match resumed {
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
        Ok(Some(Self {
            prepared,
            simulation,
            recorder: Some(recorder),
        }))
    }

    /// The simulation.
    pub(super) fn simulation(&self) -> &Simulation {
        &self.simulation
    }

    /// Rounds done.
    pub(super) fn round(&self) -> u64 {
        self.simulation.round()
    }

    /// Plays until the run ends or `stop` is raised.
    ///
    /// # Errors
    /// [`Error::Simulation`]; what was recorded can be resumed.
    pub(super) fn play(&mut self, shown: impl Shown, stop: &AtomicBool) -> Result<Outcome, Error> {
        let Some(recorder) = self.recorder.take() else {
            return Ok(Outcome::Stopped {
                round: self.round(),
            });
        };
        let mut progress = Progress::new(recorder, shown);
        let outcome = self.simulation.run(&mut progress, stop);
        self.recorder = Some(progress.finish());
        Ok(outcome?)
    }

    /// Closes the record; false when the run was interrupted.
    ///
    /// # Errors
    /// [`Error`] when the record cannot be written.
    pub(super) fn end(self, outcome: Outcome) -> Result<bool, Error> {
        let Some(mut recorder) = self.recorder else {
            return Ok(false);
        };
        match outcome {
            Outcome::Stopped { .. } => {
                recorder.stop()?;
                Ok(false)
            }
            Outcome::Finished | Outcome::TargetReached { .. } | Outcome::BudgetSpent { .. } => {
                let rows = self.prepared.rollout(&recorder.served_files()?)?;
                recorder.rollout(rows);
                match self.prepared.student(self.simulation.parameters())? {
                    Some((model, parameters)) => recorder.finish(&model, &parameters)?,
                    None => recorder.finish(&self.prepared.model, self.simulation.parameters())?,
                }
                Ok(true)
            }
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

/// Where this is run, on so many threads; 0 for one per core.
pub(super) fn host_facts(threads: usize) -> HostFacts {
    let threads = match threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
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
    let drawing = match args.no_plots {
        true => crate::plot::Drawing::default(),
        false => crate::plot::draw_own(results, &experiment.plots)?,
    };
    let plots = drawing.files;
    for (name, fault) in &drawing.left_out {
        output::tell(&format!("plot `{name}` is left out: {fault}"));
    }
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
pub(super) fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}
