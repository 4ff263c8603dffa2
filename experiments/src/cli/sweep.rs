//! `sweep`: every cell of a `[sweep]`; results, tables and statistics in one folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use serde::Serialize;

use super::run::{host_facts, quote};
use super::{Exit, analyze, interrupt, output};
use crate::analysis::{Analysis, AxisValue, Figures};
use crate::config::{ConfigErrors, SweepCell, SweepExperiment};
use crate::error::Error;
use crate::results::VariantResults;
use crate::runner::{DataCache, Prepared, Workload};
use crate::sweep::{CellId, CellStatus, Kept, Plan, Shard, SweepFolder, halving};

use pool::{Pool, Task};
use progress::Whole;

mod pool;
mod progress;

/// Arguments of `sweep`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The experiment, a TOML file with a [sweep]
    file: PathBuf,
    /// Set a key of every cell, or of the sweep, e.g. --set sweep.seeds=5; may be repeated
    #[arg(long = "set", value_name = "KEY.PATH=VALUE")]
    sets: Vec<String>,
    /// The folder for the results [default: results/NAME]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Worker threads of all jobs together; the results do not depend on it [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    threads: Option<u16>,
    /// Cells that run at a time, each with its part of the threads
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: u16,
    /// Run no more cells at a time than this memory holds by estimate, e.g. 4GB or 512MB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<u64>,
    /// Only this part of the cells, e.g. 3/16; all parts together are the whole
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,
    /// First take over finished cells from these folders of the same sweep; may be repeated
    #[arg(long, value_name = "DIR", num_args = 1..)]
    merge: Vec<PathBuf>,
    /// Rounds between checkpoints [default: a twentieth of the rounds]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    checkpoint_every: Option<u64>,
    /// List the cells, with their memory and an estimate of the time, and run none
    #[arg(long)]
    dry_run: bool,
    /// Print a line of JSON per cell and per group instead of a table
    #[arg(long)]
    json: bool,
    /// Leave the plots out
    #[arg(long)]
    no_plots: bool,
}

/// Options that do not fit together, or not the machine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SweepError {
    /// Halving compares all cells.
    #[error(
        "--shard {shard} does not go with [sweep.halving], which compares all cells at each rung; run it as one process with --jobs, or remove [sweep.halving]"
    )]
    ShardedHalving {
        /// The shard.
        shard: Shard,
    },
    /// A cell alone is larger than the memory.
    #[error(
        "cell {id} takes about {}, more than --memory allows ({}); raise it, or lower --threads or local.batch",
        output::bytes(*.needs),
        output::bytes(*.allowed)
    )]
    Memory {
        /// The cell.
        id: CellId,
        /// Bytes that it takes.
        needs: u64,
        /// Bytes that there are.
        allowed: u64,
    },
}

/// Bytes from a text such as `4GB`, `512 MB` or `1000000`; decimal units as everywhere, or `GiB`.
fn size(text: &str) -> Result<u64, String> {
    let wrong = || {
        format!(
            "{text:?} is no size; write a number with B, kB, MB, GB, TB, MiB or GiB, such as 4GB"
        )
    };
    let at = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let unit = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "t" | "tb" => 1e12,
        "mib" => 1_048_576.0,
        "gib" => 1_073_741_824.0,
        _ => return Err(wrong()),
    };
    Ok((number * unit) as u64)
}

/// A line of `sweep --json`, and of `--dry-run --json`.
#[derive(Debug, Serialize)]
struct Line<'a> {
    cell: &'a CellId,
    status: CellStatus,
    values: BTreeMap<&'a str, AxisValue>,
    seed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    figures: Option<&'a Figures>,
    #[serde(skip_serializing_if = "Option::is_none")]
    results: Option<String>,
    /// Rounds, bytes of memory and estimated seconds, before it is run.
    #[serde(skip_serializing_if = "Option::is_none")]
    rounds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
}

/// A cell and what it will take.
pub(super) struct Weighed<'a> {
    cell: &'a SweepCell,
    workload: Workload,
}

/// Runs the sweep.
///
/// # Errors
/// [`Error`]; the same command goes on with what was done before it.
pub fn run(args: &Args) -> Result<Exit, Error> {
    let experiment = SweepExperiment::from_file(&args.file, &args.sets)?;
    if let (Some(shard), Some(_)) = (args.shard, &experiment.halving) {
        return Err(SweepError::ShardedHalving { shard }.into());
    }
    let out = args
        .out
        .clone()
        .unwrap_or_else(|| Path::new("results").join(&experiment.name));
    let folder = SweepFolder::new(&out);
    let all = weigh(&experiment, &mut DataCache::default())?;
    let chosen: Vec<&Weighed<'_>> = match args.shard {
        Some(shard) => {
            let costs: Vec<(CellId, u64)> = all
                .iter()
                .map(|it| (it.cell.id.clone(), it.workload.cost()))
                .collect();
            let mine = shard.choose(&costs);
            let mine = all.iter().zip(mine);
            mine.filter_map(|(it, mine)| mine.then_some(it)).collect()
        }
        None => all.iter().collect(),
    };
    if !args.json {
        announce(args, &experiment, chosen.len());
    }
    for other in &args.merge {
        let taken = folder.merge(other, &experiment.cells)?;
        output::tell(&format!(
            "{} cells taken over from {}",
            output::count(taken as u64),
            other.display()
        ));
    }
    let jobs = u64::from(args.jobs).min(chosen.len().max(1) as u64);
    let host = host_facts(args.threads.map_or(0, usize::from));
    let threads = (host.threads / jobs).max(1);
    if args.dry_run {
        return dry_run(args, &folder, &chosen, threads, jobs);
    }
    let memory = |it: &Weighed<'_>| it.workload.memory(threads);
    if let Some(allowed) = args.memory
        && let Some(it) = chosen.iter().find(|it| memory(it) > allowed)
    {
        return Err(SweepError::Memory {
            id: it.cell.id.clone(),
            needs: memory(it),
            allowed,
        }
        .into());
    }
    let stop = interrupt::catch();
    let mut order = chosen.clone();
    // Cells of one data set and seed one after the other: the data are loaded once for them.
    order.sort_by_key(|it| {
        let place = |same: &dyn Fn(&Weighed<'_>) -> bool| chosen.iter().position(|it| same(it));
        let variant = &it.cell.variant;
        place(&|other| {
            let other = &other.cell.variant;
            other.dataset == variant.dataset && other.seed == variant.seed
        })
    });
    let whole = Whole::new(
        order.iter().map(|it| it.workload.cost()).sum(),
        order.len(),
        args.json,
    );
    let pool = Pool {
        folder: &folder,
        threads: threads as usize,
        jobs: jobs as usize,
        memory: args.memory,
        checkpoint_every: args.checkpoint_every,
        host: &host,
        stop: &stop,
        whole: &whole,
    };
    let dropped = play(&experiment, &folder, &pool, &order);
    whole.end();
    let dropped = dropped?;
    let is_dropped = |id: &CellId| dropped.contains(id);
    let (plan, analysis) = folder.publish(&experiment, &is_dropped)?;
    let interrupted = stop.load(Ordering::SeqCst);
    if !interrupted {
        for id in &dropped {
            folder.tidy(id);
        }
    }
    report(args, &folder, &plan, analysis.as_ref())?;
    // A shard is drawn with the others.
    if let Some(analysis) = &analysis
        && !(interrupted || args.no_plots || args.shard.is_some())
    {
        draw(args, analysis, &experiment, &folder)?;
    }
    if interrupted {
        output::tell(&format!("stopped; to go on: {}", command(args)));
        return Ok(Exit::Interrupted);
    }
    Ok(Exit::Done)
}

/// Runs all cells, or with halving those that go on from rung to rung; returns the others.
fn play(
    experiment: &SweepExperiment,
    folder: &SweepFolder,
    pool: &Pool<'_>,
    order: &[&Weighed<'_>],
) -> Result<std::collections::BTreeSet<CellId>, Error> {
    let mut dropped = std::collections::BTreeSet::new();
    let tasks = |dropped: &std::collections::BTreeSet<CellId>, until: Option<u64>| {
        let going = order.iter().filter(|it| !dropped.contains(&it.cell.id));
        going
            .map(|it| Task {
                cell: it.cell,
                workload: it.workload,
                until: until.filter(|&until| until < it.workload.rounds),
            })
            .collect::<Vec<_>>()
    };
    if let Some(table) = &experiment.halving {
        let rounds = order.iter().map(|it| it.workload.rounds).max();
        for rung in halving::rungs(table, rounds.unwrap_or(0)) {
            pool.run(tasks(&dropped, Some(rung)))?;
            if pool.stop.load(Ordering::SeqCst) {
                return Ok(dropped);
            }
            let mut settings: BTreeMap<String, Vec<&CellId>> = BTreeMap::new();
            for it in order.iter().filter(|it| !dropped.contains(&it.cell.id)) {
                settings
                    .entry(it.cell.settings())
                    .or_default()
                    .push(&it.cell.id);
            }
            let mut scored: Vec<(CellId, Option<f64>)> = Vec::new();
            let members: Vec<Vec<&CellId>> = settings.into_values().collect();
            for ids in &members {
                let runs: Vec<VariantResults> = ids
                    .iter()
                    .map(|id| folder.results(id))
                    .collect::<Result<_, _>>()?;
                let smallest = ids.iter().min().map(|&id| id.clone());
                let runs: Vec<&VariantResults> = runs.iter().collect();
                let score = halving::score(table, rung, &runs);
                scored.extend(smallest.map(|id| (id, score)));
            }
            let goes_on = halving::survivors(table, &scored);
            for (ids, goes_on) in members.iter().zip(goes_on) {
                if !goes_on {
                    dropped.extend(ids.iter().map(|&id| id.clone()));
                }
            }
            let kept = order.len() - dropped.len();
            pool.whole.tell(&format!(
                "after {rung} rounds {} of {} cells go on",
                output::count(kept as u64),
                output::count(order.len() as u64)
            ));
        }
    }
    for it in order.iter().filter(|it| dropped.contains(&it.cell.id)) {
        pool.whole.without(&it.cell.id, it.workload.cost());
    }
    pool.run(tasks(&dropped, None))?;
    Ok(dropped)
}

/// Checks every setting with its data and its model, and weighs it; all faults at once.
pub(super) fn weigh<'a>(
    experiment: &'a SweepExperiment,
    cache: &mut DataCache,
) -> Result<Vec<Weighed<'a>>, Error> {
    let mut known: BTreeMap<String, Workload> = BTreeMap::new();
    let mut faults: Vec<(String, ConfigErrors)> = Vec::new();
    let mut settings = 0;
    for cell in &experiment.cells {
        if known.contains_key(&cell.settings()) {
            continue;
        }
        // The same data for all, where they are of the same kind: what a cell takes hardly depends on
        // the seed.
        let workload = match Prepared::new(&cell.variant, cache) {
            Ok(prepared) => Workload::of(&prepared),
            Err(Error::Config(errors)) => {
                faults.push((cell.label(), errors));
                settings += 1;
                continue;
            }
            Err(error) => return Err(error),
        };
        settings += 1;
        known.insert(cell.settings(), workload);
    }
    if let Some(errors) = ConfigErrors::of_cells(faults, settings) {
        return Err(Error::Config(errors));
    }
    let weighed = experiment.cells.iter().filter_map(|cell| {
        let workload = *known.get(&cell.settings())?;
        Some(Weighed { cell, workload })
    });
    Ok(weighed.collect())
}

/// What is about to be done.
fn announce(args: &Args, experiment: &SweepExperiment, chosen: usize) {
    let mut text = format!("{}: {}", experiment.name, extent(experiment));
    if experiment.merged > 0 {
        text.push_str(&format!(
            "; {} combinations are the same run as another, since a key means nothing beside the others, and are done with it",
            output::count(experiment.merged as u64)
        ));
    }
    if let Some(shard) = args.shard {
        let chosen = output::count(chosen as u64);
        text.push_str(&format!("; shard {shard} has {chosen}"));
    }
    output::tell(&text);
}

/// How many cells there are, over what.
pub(super) fn extent(experiment: &SweepExperiment) -> String {
    let cells = output::count(experiment.cells.len() as u64);
    let axes = match experiment.axes.as_slice() {
        [] => "seeds alone".to_owned(),
        axes => axes.join(", "),
    };
    format!("{cells} cells over {axes}")
}

/// Lists the cells.
fn dry_run(
    args: &Args,
    folder: &SweepFolder,
    chosen: &[&Weighed<'_>],
    threads: u64,
    jobs: u64,
) -> Result<Exit, Error> {
    // The costliest cell tells how fast this machine is.
    let probe = chosen
        .iter()
        .max_by_key(|it| (it.workload.cost(), std::cmp::Reverse(&it.cell.id)));
    let per_cost = match probe {
        Some(it) => {
            let prepared = Prepared::new(&it.cell.variant, &mut DataCache::default())?;
            let all = (threads * jobs) as usize;
            super::check::measure(&prepared, all)? / it.workload.cost() as f64
        }
        None => 0.0,
    };
    let mut left = 0.0;
    let mut rows = Vec::new();
    for it in chosen {
        let (status, word) = match folder.kept(it.cell) {
            Kept::Finished => (CellStatus::Finished, "finished"),
            Kept::Stopped { .. } => (CellStatus::Stopped, "stopped"),
            Kept::Nothing => (CellStatus::Pending, "pending"),
            Kept::Damaged(_) => (CellStatus::Pending, "damaged"),
        };
        let seconds = per_cost * it.workload.cost() as f64;
        if status != CellStatus::Finished {
            left += seconds;
        }
        let memory = it.workload.memory(threads);
        if args.json {
            output::json(&Line {
                cell: &it.cell.id,
                status,
                values: values(&it.cell.values),
                seed: it.cell.variant.seed.0,
                figures: None,
                results: None,
                rounds: Some(it.workload.rounds),
                memory: Some(memory),
                seconds: Some(seconds),
            })?;
        }
        rows.push(vec![
            it.cell.id.to_string(),
            it.cell.label(),
            output::count(it.workload.rounds),
            output::bytes(memory),
            output::seconds(seconds),
            word.to_owned(),
        ]);
    }
    if !args.json {
        let heads = ["cell", "settings", "rounds", "memory", "time", "status"];
        output::line(&output::table(&heads, &rows))?;
        output::line(&format!(
            "{} cells, about {} on {} threads, by three rounds of the costliest cell; {} left",
            output::count(chosen.len() as u64),
            output::seconds(
                chosen
                    .iter()
                    .map(|it| per_cost * it.workload.cost() as f64)
                    .sum()
            ),
            threads * jobs,
            output::seconds(left),
        ))?;
    }
    Ok(Exit::Done)
}

fn values(table: &toml::Table) -> BTreeMap<&str, AxisValue> {
    let values = table.iter();
    values
        .map(|(key, value)| (key.as_str(), AxisValue::of(value)))
        .collect()
}

/// Prints what came of it.
fn report(
    args: &Args,
    folder: &SweepFolder,
    plan: &Plan,
    analysis: Option<&Analysis>,
) -> Result<(), Error> {
    if args.json {
        for cell in &plan.cells {
            let run = analysis
                .into_iter()
                .flat_map(|analysis| &analysis.runs)
                .find(|run| run.id == cell.id.as_str());
            output::json(&Line {
                cell: &cell.id,
                status: cell.status,
                values: values(&cell.values),
                seed: cell.seed,
                figures: run.map(|run| &run.figures),
                results: run.map(|run| run.path.display().to_string()),
                rounds: None,
                memory: None,
                seconds: None,
            })?;
        }
        if let Some(analysis) = analysis {
            analyze::print_json(analysis, None)?;
        }
        return Ok(());
    }
    if let Some(analysis) = analysis {
        output::line(&analyze::table(analysis))?;
    }
    let count = |status: CellStatus| {
        let cells = plan.cells.iter().filter(|cell| cell.status == status);
        cells.count() as u64
    };
    let states = [
        (CellStatus::Finished, "finished"),
        (CellStatus::Dropped, "dropped by halving"),
        (CellStatus::Stopped, "stopped"),
        (CellStatus::Pending, "not run"),
    ];
    let told: Vec<String> = states
        .iter()
        .filter(|(status, _)| count(*status) > 0)
        .map(|(status, word)| format!("{} {word}", output::count(count(*status))))
        .collect();
    output::line(&format!("cells    {}", told.join(", ")))?;
    output::line(&format!("results  {}", folder.path().display()))
}

/// Draws what came of it.
fn draw(
    args: &Args,
    analysis: &Analysis,
    experiment: &SweepExperiment,
    folder: &SweepFolder,
) -> Result<(), Error> {
    let drawing = crate::plot::draw_sweep(analysis, &experiment.plots, folder.path())?;
    for (name, fault) in &drawing.left_out {
        output::tell(&format!("plot `{name}` is left out: {fault}"));
    }
    if !args.json {
        for plot in &drawing.files {
            output::line(&format!("plot     {}", plot.display()))?;
        }
    }
    Ok(())
}

/// The command that goes on with this sweep.
fn command(args: &Args) -> String {
    let mut words = vec![
        "fledgling sweep".to_owned(),
        quote(&args.file.display().to_string()),
    ];
    for set in &args.sets {
        words.push(format!("--set {}", quote(set)));
    }
    if let Some(out) = &args.out {
        words.push(format!("--out {}", quote(&out.display().to_string())));
    }
    if let Some(shard) = args.shard {
        words.push(format!("--shard {shard}"));
    }
    if let Some(threads) = args.threads {
        words.push(format!("--threads {threads}"));
    }
    if args.jobs > 1 {
        words.push(format!("--jobs {}", args.jobs));
    }
    if let Some(memory) = args.memory {
        words.push(format!("--memory {memory}"));
    }
    words.join(" ")
}
