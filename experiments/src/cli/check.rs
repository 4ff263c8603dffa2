//! `check`: validates an experiment and explains what it will do and cost.

use fl_core::strategy::{AnyStrategy, Strategy as _};
use fl_core::{ClientId, ExampleCount, GroupMean, RingPlan, Weight};
use fl_edge::prune::{prunable_values, two_of_four};
use fl_privacy::plan::ClientPlan;
use fl_privacy::{PrivacyError, PrivacyStatement};
use fl_secagg::{CostModel, Counts, Topology};
use fl_sim::{
    Observer, PrivacyPlan, PruningConfig, RoundRecord, SecAggError, SecAggMode, SecAggPlan,
    SecAggThreat, Simulation,
};
use serde::Serialize;

use super::sweep::{extent, weigh};
use super::{Exit, ExperimentArgs, output};
use crate::config::{RolloutTable, SweepExperiment, TeacherSource, Variant};
use crate::error::Error;
use crate::runner::{DataCache, Prepared, RunOptions, Workload};

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    experiment: ExperimentArgs,
    /// Play three rounds and estimate the time of the whole run
    #[arg(long)]
    time: bool,
    /// Worker threads for --time [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    threads: Option<u16>,
    /// Print one line of JSON per variant
    #[arg(long)]
    json: bool,
}

/// What a variant will do and cost.
#[derive(Debug, Serialize)]
struct Explanation {
    name: String,
    rounds: u64,
    dataset: String,
    clients: u64,
    examples: u64,
    client_examples_min: u64,
    client_examples_median: u64,
    client_examples_max: u64,
    test_examples: Option<u64>,
    model: String,
    parameters: u64,
    macs_per_example: u64,
    layers: Vec<Layer>,
    /// Clients whose reports complete a round, where that is a fixed number.
    cohort: Option<u64>,
    /// Their number in the mean.
    expected_cohort: f64,
    /// What a client does, and the strategy.
    training: String,
    /// Who teaches, where somebody does.
    #[serde(skip_serializing_if = "Option::is_none")]
    teacher: Option<Teaching>,
    /// Expected examples processed in a round, all epochs together.
    examples_per_round: u64,
    /// Parameters down, and updates or the vectors of a ring up, uncompressed; with secure
    /// aggregation, its messages in place of updates.
    bytes_per_round: u64,
    /// Bytes that each worker thread holds for the model, its training and its partial sum.
    memory_per_thread: u64,
    /// What the run will spend, of a private run.
    privacy: Option<Privacy>,
    /// The integers in which updates are added, where that was asked for or is what secure aggregation
    /// sends.
    #[serde(skip_serializing_if = "Option::is_none")]
    sums: Option<Sums>,
    /// The groups of a robust mean, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    robust: Option<Robust>,
    /// What the two shares of clients that work for the server promise, where they differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    caveat: Option<String>,
    /// The sessions of secure aggregation, where there is some.
    #[serde(skip_serializing_if = "Option::is_none")]
    secagg: Option<SecAgg>,
    /// What is pruned, where anything is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pruning: Option<Pruned>,
    /// What a round would be on the devices, where there are some.
    #[serde(skip_serializing_if = "Option::is_none")]
    devices: Option<OnDevices>,
    /// The rollout of the run's models, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    rollout: Option<String>,
    /// Estimated seconds of the whole run.
    seconds: Option<f64>,
}

/// What a client's part in a round would be on the devices of the fleet, by a sample of the clients.
/// All of it is modelled.
#[derive(Debug, Serialize)]
struct OnDevices {
    mix: String,
    classes: usize,
    task_bytes: u64,
    update_bytes: u64,
    /// Bytes that training takes on a device.
    memory: u64,
    /// Share of the clients on whose devices that fits.
    fits: f64,
    /// Share of the clients that may come, over the hours of the first day.
    eligible_mean: f64,
    eligible_min: f64,
    eligible_max: f64,
    /// From the call to the report: 10 %, 50 % and 90 % quantiles.
    seconds: [f64; 3],
    /// Training alone.
    training_seconds: [f64; 3],
    /// Mean joules of training.
    joules: f64,
}

impl OnDevices {
    fn of(prepared: &Prepared) -> Result<Option<Self>, Error> {
        let config = prepared.simulation(&RunOptions::default());
        let data = &prepared.data;
        let examples = |client| data.train_len(client);
        let model = std::sync::Arc::clone(&prepared.model);
        let found = fl_sim::devices::forecast(&config, &model, data.clients(), &examples)
            .map_err(|error| prepared.variant.fault("fleet.devices", error.to_string()))?;
        Ok(found.map(|found| Self {
            mix: found.mix,
            classes: found.classes,
            task_bytes: found.task_bytes,
            update_bytes: found.update_bytes,
            memory: found.memory,
            fits: found.fits,
            eligible_mean: found.eligible_mean,
            eligible_min: found.eligible_min,
            eligible_max: found.eligible_max,
            seconds: found.seconds,
            training_seconds: found.training_seconds,
            joules: found.joules,
        }))
    }

    fn lines(&self) -> [String; 3] {
        let [low, middle, high] = self.seconds;
        let percent = |share: f64| 100.0 * share;
        [
            format!(
                "  devices   {}: {} classes; training takes {} there, which {:.1} % of the clients have",
                self.mix,
                self.classes,
                output::bytes(self.memory),
                percent(self.fits)
            ),
            format!(
                "            {:.1} % of the clients may come, {:.1} to {:.1} % over the hours of the first day",
                percent(self.eligible_mean),
                percent(self.eligible_min),
                percent(self.eligible_max)
            ),
            format!(
                "            a client takes {low:.1} s, {middle:.1} s, {high:.1} s (10, 50, 90 %), of which {:.1} s training; {:.1} J; modelled",
                self.training_seconds[1], self.joules
            ),
        ]
    }
}

/// The ring of the updates.
#[derive(Debug, Serialize)]
struct Sums {
    /// Larger values are cut off.
    range: f64,
    /// Of a sum over the largest cohort.
    bits: u32,
    /// Most by which rounding moves a value of the mean, in a round of the expected size whose
    /// clients have as many examples as they have in the mean.
    mean_error: f64,
}

impl Sums {
    fn of(ring: &RingPlan, cohort: f64, weight: Weight) -> Self {
        let clients = (cohort.round() as u64).max(1);
        let weight = Weight(weight.0.max(1).saturating_mul(clients));
        Self {
            range: ring.range(),
            bits: ring.bits(),
            mean_error: ring.mean_error(clients, weight),
        }
    }

    fn line(&self) -> String {
        format!(
            "  sums      of {} bits, for values within ±{}; rounding moves the mean by at most {:.1e} (a 32-bit float of 0.1: by 3.7e-9)",
            self.bits, self.range, self.mean_error
        )
    }
}

/// The teacher of a distillation.
#[derive(Debug, Serialize)]
struct Teaching {
    /// The path of its file, or the variant that trains it.
    from: String,
    model: String,
    parameters: u64,
    macs_per_example: u64,
    /// In which it is served.
    precision: &'static str,
    /// Of a teacher that is at hand.
    sha256: Option<String>,
    temperature: f32,
    alpha: f32,
    features: usize,
    relation: bool,
    /// Parameters that are trained and travel beside the student's, and are left out in the end.
    projections: u64,
}

impl Teaching {
    fn of(prepared: &Prepared) -> Option<Self> {
        let (teacher, options) = prepared.model.teacher()?;
        let table = prepared.variant.local.distillation.as_ref()?;
        let model = teacher.model();
        let all = prepared.model.parameters();
        Some(Self {
            from: match &table.teacher {
                TeacherSource::File(path) => path.display().to_string(),
                TeacherSource::Variant(by) => format!("variant {}", by.variant),
            },
            model: model.definition().kind().to_owned(),
            parameters: model.parameters() as u64,
            macs_per_example: model.macs_per_example(),
            precision: teacher.program().numerics().name(),
            sha256: prepared.teacher_digest(),
            temperature: options.temperature,
            alpha: options.alpha,
            features: options.features.len(),
            relation: options.relation.is_some(),
            projections: (all - prepared.model.student_parameters()) as u64,
        })
    }

    fn lines(&self) -> [String; 2] {
        let count = output::count;
        let digest: String = match &self.sha256 {
            Some(digest) => digest.chars().take(12).collect(),
            None => "yet to be trained".to_owned(),
        };
        let relation = if self.relation { ", a relation" } else { "" };
        [
            format!(
                "  teacher   {} ({digest}): {}, {} parameters, {} multiply-adds per example in {}",
                self.from,
                self.model,
                count(self.parameters),
                count(self.macs_per_example),
                self.precision,
            ),
            format!(
                "            temperature {}, alpha {}, {} features{relation}; {} parameters of projections travel and are left out in the end; what the teacher learned of private data is in what it teaches",
                self.temperature,
                self.alpha,
                self.features,
                count(self.projections),
            ),
        ]
    }
}

/// What is pruned in the end.
#[derive(Debug, Serialize)]
struct Pruned {
    /// Weights that may be pruned.
    weights: u64,
    /// Those that are in the end.
    pruned: u64,
    /// Those that should be, had the run as many rounds as that takes.
    wanted: u64,
    /// Prunings in the rounds of the run.
    prunings: u64,
    /// The rounds before which the first and the last of them are.
    first: Option<u64>,
    last: Option<u64>,
}

impl Pruned {
    fn of(prepared: &Prepared) -> Option<Self> {
        let rounds = prepared.variant.rounds;
        let config = prepared.variant.pruning.as_ref()?.config();
        let weights = prunable_values(&prepared.model);
        let two_of_four = || {
            let values = vec![1.0; prepared.model.parameters()];
            let mask = two_of_four(&prepared.model, &values);
            mask.map_or(0, |mask| mask.pruned() as u64)
        };
        // Of each layer by itself, whole weights: off by less than one in each.
        let share = |sparsity: f64| (sparsity * weights as f64).round() as u64;
        let (pruned, wanted, first, last) = match config {
            PruningConfig::TwoOfFour { start } => {
                let wanted = two_of_four();
                let pruned = if start < rounds { wanted } else { 0 };
                (pruned, wanted, start, start)
            }
            PruningConfig::Magnitude { schedule, .. } => (
                share(schedule.reached(rounds.saturating_sub(1))),
                share(schedule.sparsity),
                schedule.start,
                schedule.end(),
            ),
        };
        let every = match config {
            PruningConfig::Magnitude { schedule, .. } => schedule.every.max(1),
            PruningConfig::TwoOfFour { .. } => 1,
        };
        let prunings = match rounds.checked_sub(first + 1) {
            Some(_) => (last.min(rounds - 1) - first) / every + 1,
            None => 0,
        };
        Some(Self {
            weights: weights as u64,
            pruned,
            wanted,
            prunings,
            first: (prunings > 0).then_some(first),
            last: (prunings > 0).then(|| first + (prunings - 1) * every),
        })
    }

    fn line(&self) -> String {
        let percent = |count: u64| 100.0 * count as f64 / self.weights.max(1) as f64;
        let mut line = match (self.first, self.last) {
            (Some(first), Some(last)) => format!(
                "  pruning   {} of {} weights ({:.1} %) are zero in the end, by {} {}",
                output::count(self.pruned),
                output::count(self.weights),
                percent(self.pruned),
                match self.prunings {
                    1 => "one pruning".to_owned(),
                    n => format!("{n} prunings"),
                },
                match first == last {
                    true => format!("before round {first}"),
                    false => format!("before rounds {first} to {last}"),
                }
            ),
            _ => "  pruning   no weight is pruned".to_owned(),
        };
        if self.pruned < self.wanted {
            line.push_str(&format!(
                "; the {:.1} % that are asked for take more rounds than the run has",
                percent(self.wanted)
            ));
        }
        line
    }
}

/// The groups of a round of the expected size.
#[derive(Debug, Serialize)]
struct Robust {
    #[serde(flatten)]
    mean: GroupMean,
    groups: usize,
    /// The most clients of one.
    clients: u32,
    /// Groups that may be spoiled.
    withstands: usize,
    /// Of their sums.
    memory: u64,
}

impl Robust {
    fn of(prepared: &Prepared) -> Option<Self> {
        let config = prepared.simulation(&RunOptions::default());
        let robust = config.aggregation.robust?;
        let groups = fl_sim::aggregation::expected_groups(&config, prepared.data.clients())?;
        Some(Self {
            mean: robust.mean,
            groups,
            clients: robust.groups,
            withstands: robust.mean.trimmed(groups),
            memory: 8 * groups as u64 * prepared.model.parameters() as u64,
        })
    }

    fn line(&self) -> String {
        format!(
            "  robust    {} of the means of {} groups of up to {} clients: up to {} of them may be spoiled; their sums take {}",
            match self.mean {
                GroupMean::Median => "median",
                GroupMean::TrimmedMean { .. } => "trimmed mean",
            },
            output::count(self.groups as u64),
            output::count(self.clients.into()),
            output::count(self.withstands as u64),
            output::bytes(self.memory),
        )
    }
}

/// The sessions of a round of the expected size.
#[derive(Debug, Serialize)]
struct SecAgg {
    mode: SecAggMode,
    threat: SecAggThreat,
    graph: &'static str,
    sessions: u64,
    /// Clients of the largest.
    clients: u32,
    /// Of whom so many may work for the server ...
    corrupt: u32,
    /// ... and so many leave before the end.
    dropouts: u32,
    neighbours: u32,
    threshold: u32,
    min_survivors: u32,
    ring_bits: u32,
    /// Of a client, when nobody leaves.
    bytes_up: u64,
    bytes_down: u64,
    /// Seconds of a client by the cost model, when as many leave as may.
    client_seconds: f64,
    /// Of the server, over all sessions, on one thread.
    server_seconds: f64,
}

impl SecAgg {
    fn of(plan: &SecAggPlan) -> Result<Self, SecAggError> {
        let params = plan.params()?;
        let traffic = SecAggPlan::traffic(&params);
        let counts = Counts::expected(&params);
        let model = CostModel::reference();
        Ok(Self {
            mode: plan.config().mode,
            threat: plan.config().threat,
            graph: match params.topology() {
                Topology::Complete => "complete",
                Topology::Harary => "harary",
            },
            sessions: plan.sessions(),
            clients: params.clients(),
            corrupt: params.cohort().corrupt(),
            dropouts: params.cohort().dropouts(),
            neighbours: params.degree(),
            threshold: params.threshold(),
            min_survivors: params.min_survivors(),
            ring_bits: params.ring().bits(),
            bytes_up: traffic.up(),
            bytes_down: traffic.down(),
            client_seconds: model.client(&params, &counts).total(),
            server_seconds: plan.sessions() as f64 * model.server(&params, &counts).total(),
        })
    }

    fn lines(&self) -> [String; 3] {
        let of_what = match self.mode {
            SecAggMode::Real => "real",
            SecAggMode::Sampled => "sampled",
            SecAggMode::Ideal => "ideal",
        };
        let count = |number: u32| output::count(number.into());
        [
            format!(
                "  secagg    {of_what}: {} of up to {} clients in a {} graph, of whom {} may be corrupt and {} may leave",
                match self.sessions {
                    1 => "a session".to_owned(),
                    sessions => format!("{} sessions", output::count(sessions)),
                },
                count(self.clients),
                self.graph,
                count(self.corrupt),
                count(self.dropouts),
            ),
            format!(
                "            {} neighbours, {} shares reveal a secret, at least {} survivors, a ring of {} bits",
                count(self.neighbours),
                count(self.threshold),
                count(self.min_survivors),
                self.ring_bits,
            ),
            format!(
                "            a client sends {} and receives {} beside the model; about {} of computation for it, {} for the server",
                output::bytes(self.bytes_up),
                output::bytes(self.bytes_down),
                output::seconds(self.client_seconds),
                output::seconds(self.server_seconds),
            ),
        ]
    }
}

/// What a private run will spend.
#[derive(Debug, Serialize)]
struct Privacy {
    #[serde(flatten)]
    statement: PrivacyStatement,
    excluded: &'static [&'static str],
    /// Standard deviation of the noise on each value of the mean update, in the first round, where
    /// it is added to updates.
    noise_on_mean: Option<f64>,
    /// The same on each value of the model at the end, where the server moves it by each mean once.
    noise_on_model: Option<f64>,
    /// Standard deviation of the noise on the share of updates that are within an adaptive clipping
    /// norm.
    #[serde(skip_serializing_if = "Option::is_none")]
    noise_on_share: Option<f64>,
    /// Why the run ends before its last round, if it does.
    ends: Option<String>,
}

impl Privacy {
    fn of(plan: &PrivacyPlan) -> Result<Self, PrivacyError> {
        let statement = plan.statement(plan.last_round())?;
        Ok(Self {
            excluded: statement.excluded(),
            noise_on_mean: plan.noise_on_mean()?,
            noise_on_model: plan.noise_on_model(plan.last_round())?,
            noise_on_share: plan.central().and_then(|plan| {
                let share = |noise| noise / plan.config().sampler.expected_size();
                plan.count_noise_std().map(share)
            }),
            ends: plan.refusal().map(|refusal| refusal.to_string()),
            statement,
        })
    }
}

#[derive(Debug, PartialEq, Serialize)]
struct Layer {
    name: String,
    kind: String,
    output: String,
    parameters: u64,
    macs: u64,
}

/// Validates and explains.
///
/// # Errors
/// [`Error`] with every fault of the experiment.
pub fn run(args: &Args) -> Result<Exit, Error> {
    let file = args.experiment.file.display();
    let swept = SweepExperiment::beside_experiment(&args.experiment.file, &args.experiment.sets)?;
    let mut cache = DataCache::default();
    if let Some(cells) = &swept {
        weigh(cells, &mut cache)?;
    }
    let mut is_first_cell = false;
    let variants = match (args.experiment.read(), &swept) {
        (Ok(experiment), _) => experiment.variants,
        // What does not vary need not be an experiment without what does.
        (Err(Error::Config(_)), Some(cells)) => {
            is_first_cell = true;
            let first = cells.cells.first().map(|cell| {
                let mut variant = cell.variant.clone();
                variant.name = cell.label();
                variant
            });
            first.into_iter().collect()
        }
        (Err(error), _) => return Err(error),
    };
    let mut shown: Option<Explanation> = None;
    for variant in &variants {
        let prepared = Prepared::new(variant, &mut cache)?;
        let mut explanation = explain(&prepared);
        explanation.devices = OnDevices::of(&prepared)?;
        let plan = prepared.privacy_plan()?;
        explanation.robust = Robust::of(&prepared);
        let other_ring = plan.as_ref().is_some_and(|plan| plan.clients().is_some());
        if !other_ring && (variant.secagg.is_some() || !variant.aggregation.is_empty()) {
            let mean = explanation.examples / explanation.clients.max(1);
            let strategy = AnyStrategy::from_config(variant.strategy.clone());
            let weight = strategy.map(|strategy| strategy.largest_weight(ExampleCount(mean)));
            let weight = weight.unwrap_or(Weight(1));
            let ring = prepared.ring_plan()?;
            explanation.sums = Some(Sums::of(&ring, explanation.expected_cohort, weight));
        }
        if let Some(secagg) = prepared.secagg_plan(plan.as_ref())? {
            explanation.caveat = plan.as_ref().and_then(|plan| caveat(&secagg, plan));
            let secagg = SecAgg::of(&secagg).map_err(fl_sim::SimError::from)?;
            explanation.secagg = Some(secagg);
        }
        if let Some(plan) = plan {
            if let Some(ring) = plan.clients().and_then(ClientPlan::ring) {
                let each = 4 * explanation.parameters + ring.bytes();
                explanation.bytes_per_round = traffic(explanation.expected_cohort, each);
            }
            let privacy = Privacy::of(&plan);
            explanation.privacy = Some(privacy.map_err(fl_sim::SimError::from)?);
        }
        if let Some(secagg) = &explanation.secagg {
            let each = 4 * explanation.parameters + secagg.bytes_up + secagg.bytes_down;
            explanation.bytes_per_round = traffic(explanation.expected_cohort, each);
        }
        if args.time {
            explanation.seconds = Some(measure(&prepared, args.threads.unwrap_or(0).into())?);
        }
        if args.json {
            output::json(&explanation)?;
        } else {
            print(&explanation, shown.as_ref())?;
            shown = Some(explanation);
        }
    }
    if !args.json {
        output::line(&match &swept {
            None => format!("{file} is valid; run it with: fledgling run {file}"),
            Some(cells) => format!(
                "{file} is valid, a sweep of {}, of which this is {}; list them with: \
                 fledgling sweep {file} --dry-run; run them with: fledgling sweep {file}",
                extent(cells),
                match is_first_cell {
                    true => "the first",
                    false => "what does not vary",
                }
            ),
        })?;
    }
    Ok(Exit::Done)
}

/// What noise that clients add together and the masks promise where they are made against different
/// shares of clients that work for the server.
pub(super) fn caveat(secagg: &SecAggPlan, privacy: &PrivacyPlan) -> Option<String> {
    let plan = privacy.clients().filter(|plan| plan.ring().is_some())?;
    let (masks, noise) = (secagg.config().corrupt, plan.config().colluding_share);
    (masks > noise).then(|| {
        format!(
            "updates are hidden from a server with {} % of the clients (secagg.corrupt), and epsilon is \
             against one with {} % of them (privacy.colluding_share)",
            100.0 * masks,
            100.0 * noise
        )
    })
}

/// Bytes that travel in a round where a client receives and sends `each`.
fn traffic(expected_cohort: f64, each: u64) -> u64 {
    (expected_cohort * each as f64).round() as u64
}

fn explain(prepared: &Prepared) -> Explanation {
    let variant = &prepared.variant;
    let data = &prepared.data;
    let clients = data.clients();
    let mut sizes: Vec<u64> = (0..clients)
        .map(|id| data.train_len(ClientId(id)))
        .collect();
    sizes.sort_unstable();
    let examples: u64 = sizes.iter().sum();
    let largest = sizes.last().copied().unwrap_or(0);
    let cohort = variant.selection.expected_cohort(clients);
    let workload = Workload::of(prepared);
    let model = &prepared.model;
    let parameters = model.parameters() as u64;
    Explanation {
        name: variant.name.clone(),
        rounds: variant.rounds,
        dataset: data.name().to_owned(),
        clients,
        examples,
        client_examples_min: sizes.first().copied().unwrap_or(0),
        client_examples_median: sizes.get(sizes.len() / 2).copied().unwrap_or(0),
        client_examples_max: largest,
        test_examples: data.test().map(|test| test.len() as u64),
        model: variant.model.kind().to_owned(),
        parameters,
        macs_per_example: model.macs_per_example(),
        layers: model
            .summary()
            .iter()
            .map(|layer| Layer {
                name: layer.name.clone(),
                kind: layer.kind.to_string(),
                output: format!("{:?}", layer.output_shape),
                parameters: layer.parameters as u64,
                macs: layer.macs,
            })
            .collect(),
        cohort: variant.selection.cohort(clients),
        expected_cohort: cohort,
        training: describe_training(variant),
        teacher: Teaching::of(prepared),
        examples_per_round: workload.examples_per_round,
        bytes_per_round: traffic(cohort, 2 * 4 * parameters),
        memory_per_thread: workload.memory_per_thread,
        privacy: None,
        sums: None,
        robust: None,
        caveat: None,
        secagg: None,
        pruning: Pruned::of(prepared),
        devices: None,
        rollout: prepared.variant.rollout.as_ref().map(RolloutTable::summary),
        seconds: None,
    }
}

/// Keys and values in a line; of a table in the table its `kind`, or all of it.
fn describe_table(table: &toml::Table) -> String {
    let parts: Vec<String> = table
        .iter()
        .map(|(key, value)| match value {
            toml::Value::Table(inner) => match inner.get("kind").and_then(toml::Value::as_str) {
                Some(kind) => format!("{key} {kind}"),
                None => format!("{key} ({})", describe_table(inner)),
            },
            toml::Value::String(text) => format!("{key} {text}"),
            value => format!("{key} {value}"),
        })
        .collect();
    parts.join(", ")
}

/// `strategy` and `local` in a line, as they are in the configuration.
fn describe_training(variant: &Variant) -> String {
    let inline = |name: &str| match variant.config.get(name) {
        Some(toml::Value::Table(table)) => {
            let mut table = table.clone();
            // It has a line of its own.
            table.remove("distillation");
            describe_table(&table)
        }
        _ => String::new(),
    };
    format!("{}; {}", inline("strategy"), inline("local"))
}

/// Prints what is not the same as in `shown`, the variant before.
fn print(it: &Explanation, shown: Option<&Explanation>) -> Result<(), Error> {
    let count = output::count;
    let same_model = shown.is_some_and(|shown| shown.layers == it.layers);
    let mut lines = vec![
        it.name.clone(),
        format!(
            "  data      {}: {} clients, {} examples (a client has {} to {}, median {}){}",
            it.dataset,
            count(it.clients),
            count(it.examples),
            count(it.client_examples_min),
            count(it.client_examples_max),
            count(it.client_examples_median),
            it.test_examples
                .map_or(String::new(), |n| format!(", {} test examples", count(n))),
        ),
        format!(
            "  model     {}: {} parameters, {} multiply-adds per example",
            it.model,
            count(it.parameters),
            count(it.macs_per_example)
        ),
    ];
    let rows: Vec<Vec<String>> = it
        .layers
        .iter()
        .map(|layer| {
            vec![
                format!("{} ({})", layer.name, layer.kind),
                layer.output.clone(),
                count(layer.parameters),
                count(layer.macs),
            ]
        })
        .collect();
    let table = output::table(&["layer", "output", "parameters", "multiply-adds"], &rows);
    if !same_model {
        lines.extend(table.lines().map(|line| format!("           {line}")));
    }
    lines.push(format!("  training  {}", it.training));
    lines.extend(it.teacher.iter().flat_map(Teaching::lines));
    lines.push(format!(
        "  a round   {} clients, about {} examples, {} of parameters and updates",
        match it.cohort {
            Some(cohort) => count(cohort),
            None => format!("about {}", count(it.expected_cohort.round() as u64)),
        },
        count(it.examples_per_round),
        output::bytes(it.bytes_per_round)
    ));
    lines.push(format!("  rounds    {}", count(it.rounds)));
    lines.push(format!(
        "  memory    {} per thread, beside the data",
        output::bytes(it.memory_per_thread)
    ));
    if let Some(privacy) = &it.privacy {
        let mut statement: Vec<String> = privacy
            .statement
            .to_string()
            .lines()
            .map(str::to_owned)
            .collect();
        if let (Some(mean), Some(model)) = (privacy.noise_on_mean, privacy.noise_on_model) {
            statement.push(format!(
                "noise of {mean:.3e} on each value of the mean update, and of {model:.3e} on the model at the end"
            ));
        }
        statement.extend(privacy.noise_on_share.map(|share| {
            format!(
                "noise of {share:.3} on the share of updates within the clipping norm, which follows it"
            )
        }));
        statement.extend(privacy.ends.iter().map(|why| {
            format!(
                "the run ends after {} rounds: {why}",
                privacy.statement.rounds
            )
        }));
        let heads = std::iter::once("privacy   ").chain(std::iter::repeat("          "));
        lines.extend(
            heads
                .zip(statement)
                .map(|(head, line)| format!("  {head}{line}")),
        );
    }
    lines.extend(it.sums.iter().map(Sums::line));
    lines.extend(it.robust.iter().map(Robust::line));
    lines.extend(it.secagg.iter().flat_map(SecAgg::lines));
    lines.extend(it.pruning.iter().map(Pruned::line));
    lines.extend(it.devices.iter().flat_map(OnDevices::lines));
    lines.extend(it.rollout.iter().map(|line| format!("  rollout   {line}")));
    lines.extend(it.caveat.iter().map(|text| format!("            {text}")));
    if let Some(seconds) = it.seconds {
        lines.push(format!("  time      about {}", output::seconds(seconds)));
    }
    output::line(&lines.join("\n"))
}

/// Plays three rounds; estimates the seconds of the run from them.
pub(super) fn measure(prepared: &Prepared, threads: usize) -> Result<f64, Error> {
    #[derive(Default)]
    struct Times {
        rounds: Vec<f64>,
        evaluations: Vec<f64>,
    }
    impl Observer for Times {
        fn round(&mut self, record: &RoundRecord) {
            self.rounds.push(record.seconds);
        }
        fn evaluated(&mut self, record: &fl_sim::EvaluationRecord) {
            self.evaluations.push(record.seconds);
        }
    }
    let mut config = prepared.simulation(&RunOptions {
        threads,
        checkpoint: None,
    });
    let (rounds, every) = (config.rounds, config.evaluation.every);
    config.rounds = rounds.min(3);
    config.evaluation.per_client = fl_sim::PerClient::Never;
    let mut simulation = Simulation::new(
        config,
        prepared.data.clone(),
        std::sync::Arc::clone(&prepared.model),
    )?;
    let mut times = Times::default();
    simulation.run(&mut times, &std::sync::atomic::AtomicBool::new(false))?;
    let fastest = |times: &[f64]| times.iter().copied().fold(f64::INFINITY, f64::min);
    let evaluations = rounds.div_ceil(every) as f64;
    Ok(rounds as f64 * fastest(&times.rounds) + evaluations * fastest(&times.evaluations))
}
