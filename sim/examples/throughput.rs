//! Rounds per second of softmax regression (60 features, 10 classes) with large cohorts, and how
//! much of a round is bookkeeping: selection, fates, scheduling, encoding and summing, records.
//!
//! ```text
//! cargo run --release -p fl-sim --example throughput -- [COHORT] [POPULATION] [EXAMPLES] [ROUNDS]
//! ```
//! Once with clients whose examples are views into one block in memory, so that nothing but the
//! simulator and the engine is measured (`bookkeeping` is the same run with an engine that does
//! nothing), and once with Synthetic(1, 1), where every client's examples are generated when it
//! is trained.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "an example prints, and its arguments are its author's"
)]

use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use fl_core::select::{SelectorConfig, UniformConfig};
use fl_core::strategy::{FedAvgConfig, StrategyConfig};
use fl_core::{
    BatchSize, ClientId, Evaluation, ExampleCount, ExampleOrder, Examples, FitTask, InputSpec,
    InputsMut, Layout, LearningRate, LocalPlan, LocalResult, LocalWork, Optimizer, Parameters,
    Precision, Purpose, RoundId, Seed, Stream, TargetSpec, TargetsMut, TrainError, Trainer,
};
use fl_datasets::{DataRoot, DatasetConfig};
use fl_edge::{Model, ModelDef};
use fl_sim::{
    AggregationConfig, Engine, EvaluationConfig, FleetConfig, LocalDisk, Observer, PerClient,
    Population, RoundRecord, Simulation, SimulationConfig,
};

const FEATURES: usize = 60;
const CLASSES: usize = 10;
const BLOCK: usize = 1 << 16;

/// Clients whose examples are consecutive rows of one block.
struct Block {
    clients: u64,
    examples: u64,
    input: InputSpec,
    rows: Vec<f32>,
    classes: Vec<u32>,
}

impl Block {
    fn new(clients: u64, examples: u64) -> Self {
        let mut stream = Stream::at(Purpose::Testing, Seed(1), RoundId(0), ClientId(0));
        let rows = (0..BLOCK * FEATURES).map(|_| stream.normal() as f32);
        Self {
            clients,
            examples,
            input: InputSpec::Real(vec![FEATURES]),
            rows: rows.collect(),
            classes: (0..BLOCK).map(|row| (row % CLASSES) as u32).collect(),
        }
    }
}

#[derive(Clone, Copy)]
struct View<'a> {
    input: &'a InputSpec,
    rows: &'a [f32],
    classes: &'a [u32],
}

impl Examples for View<'_> {
    fn len(&self) -> usize {
        self.classes.len()
    }
    fn input(&self) -> &InputSpec {
        self.input
    }
    fn target(&self) -> TargetSpec {
        TargetSpec::Class { classes: CLASSES }
    }
    fn fill(&self, rows: &[u32], inputs: InputsMut<'_>, targets: TargetsMut<'_>) {
        if let (InputsMut::Real(inputs), TargetsMut::Classes(classes)) = (inputs, targets) {
            for (i, &row) in rows.iter().enumerate() {
                let row = row as usize;
                inputs[i * FEATURES..][..FEATURES]
                    .copy_from_slice(&self.rows[row * FEATURES..][..FEATURES]);
                classes[i] = self.classes[row];
            }
        }
    }
    fn real_rows(&self) -> Option<&[f32]> {
        Some(self.rows)
    }
}

impl Population for Block {
    type Scratch = ();
    type Client<'a> = View<'a>;

    fn clients(&self) -> u64 {
        self.clients
    }
    fn train_len(&self, _: ClientId) -> u64 {
        self.examples
    }
    fn train<'a>(&'a self, client: ClientId, (): &'a mut ()) -> View<'a> {
        let examples = self.examples as usize;
        let start = (client.0 as usize).wrapping_mul(2_654_435_761) % (BLOCK - examples);
        View {
            input: &self.input,
            rows: &self.rows[start * FEATURES..(start + examples) * FEATURES],
            classes: &self.classes[start..start + examples],
        }
    }
    fn client_test<'a>(&'a self, _: ClientId, (): &'a mut ()) -> Option<View<'a>> {
        None
    }
    fn test(&self) -> Option<&dyn Examples> {
        None
    }
    fn digest(&self) -> [u8; 32] {
        [0; 32]
    }
}

/// An engine that does nothing, for the same parameters.
struct Idle(Arc<Model>);
struct IdleTrainer(Arc<Layout>);

impl Engine for Idle {
    type Trainer = IdleTrainer;
    fn trainer(&self) -> IdleTrainer {
        IdleTrainer(Arc::clone(self.0.layout()))
    }
    fn layout(&self) -> &Arc<Layout> {
        self.0.layout()
    }
    fn init(&self, stream: &mut Stream) -> Parameters {
        self.0.init(stream)
    }
    fn kernel(&self) -> String {
        "none".to_owned()
    }
}

impl Trainer for IdleTrainer {
    fn layout(&self) -> &Arc<Layout> {
        &self.0
    }
    fn lanes(&self) -> usize {
        16
    }
    fn fit(
        &mut self,
        _: &Parameters,
        tasks: &mut [FitTask<'_>],
        results: &mut [LocalResult],
    ) -> Result<(), TrainError> {
        for (task, result) in tasks.iter_mut().zip(results) {
            task.update[0] = 1.0;
            result.examples = ExampleCount(task.data.len() as u64);
            result.examples_processed = task.data.len() as u64;
        }
        Ok(())
    }
    fn evaluate(
        &mut self,
        _: &[f32],
        _: &dyn Examples,
        _: Range<usize>,
    ) -> Result<Evaluation, TrainError> {
        Ok(Evaluation::default())
    }
}

/// Seconds of each round.
#[derive(Default)]
struct Seconds(Vec<f64>);

impl Observer for Seconds {
    fn round(&mut self, record: &RoundRecord) {
        self.0.push(record.seconds);
    }
}

/// The median of the rounds' seconds after two to warm up, and the digest.
fn measure<P: Population, E: Engine>(
    config: SimulationConfig,
    population: P,
    engine: E,
) -> (f64, String) {
    let disk = Arc::new(LocalDisk);
    let mut simulation = Simulation::with_parts(config, population, engine, disk).unwrap();
    let mut seconds = Seconds::default();
    simulation
        .run(&mut seconds, &AtomicBool::new(false))
        .unwrap();
    let mut seconds = seconds.0.split_off(2);
    seconds.sort_by(f64::total_cmp);
    let digest = simulation.parameters().digest().to_string();
    (seconds[seconds.len() / 2], digest[..12].to_owned())
}

fn config(cohort: u64, rounds: u64, threads: usize) -> SimulationConfig {
    SimulationConfig {
        seed: Seed(1),
        rounds: rounds + 2,
        selection: SelectorConfig::Uniform(UniformConfig {
            cohort,
            over_select: 1.0,
        }),
        local: LocalPlan {
            work: LocalWork::Epochs(NonZeroU32::MIN),
            batch: BatchSize::Examples(NonZeroU32::new(10).unwrap()),
            order: ExampleOrder::Shuffled,
            optimizer: Optimizer::SGD,
            learning_rate: LearningRate::constant(0.01),
            max_gradient_norm: None,
            proximal_mu: 0.0,
            precision: Precision::F32,
            privacy: None,
        },
        strategy: StrategyConfig::FedAvg(FedAvgConfig::default()),
        fleet: FleetConfig::default(),
        devices: None,
        schedule: fl_sim::ScheduleConfig::default(),
        telemetry: fl_sim::TelemetryConfig::default(),
        evaluation: EvaluationConfig {
            every: u64::MAX,
            initial: false,
            train: false,
            per_client: PerClient::Never,
            max_clients: 1,
            ..EvaluationConfig::default()
        },
        threads,
        checkpoint: None,
        privacy: None,
        aggregation: AggregationConfig::default(),
        secagg: None,
        pruning: None,
        faults: None,
        stop_at_accuracy: None,
    }
}

fn main() {
    let number = |index, default: u64| {
        std::env::args()
            .nth(index)
            .map_or(default, |text| text.parse().unwrap())
    };
    let (cohort, clients) = (number(1, 10_000), number(2, 1_000_000));
    let (examples, rounds) = (number(3, 10), number(4, 30));
    let def = ModelDef::Logreg(fl_edge::zoo::Logreg::default());
    let target = TargetSpec::Class { classes: CLASSES };
    let model = Arc::new(Model::new(&def, &InputSpec::Real(vec![FEATURES]), target).unwrap());
    println!("cohort {cohort} of {clients}, {examples} examples each, batch 10, 1 epoch");
    println!("data       threads  ms/round  rounds/s  Mexamples/s  bookkeeping ms  digest");
    for data in ["block", "synthetic"] {
        let mut single = None;
        for threads in [1, 2] {
            let config = config(cohort, rounds, threads);
            let model = Arc::clone(&model);
            let block = || Block::new(clients, examples);
            let (seconds, digest) = if data == "block" {
                measure(config.clone(), block(), Arc::clone(&model))
            } else {
                let keys = DatasetConfig {
                    alpha: Some(1.0),
                    beta: Some(1.0),
                    clients: Some(clients),
                    examples_per_client: Some(examples),
                    ..DatasetConfig::new("synthetic")
                };
                let root = DataRoot::new("not-needed");
                let population = fl_datasets::load(&keys, &root, Seed(1)).unwrap();
                measure(config.clone(), population, Arc::clone(&model))
            };
            let (idle, _) = measure(config, block(), Idle(model));
            let rate = (cohort * examples) as f64 / seconds / 1e6;
            println!(
                "{data:9}  {threads:7}  {:8.2}  {:8.1}  {rate:11.2}  {:14.2}  {digest}",
                seconds * 1e3,
                1.0 / seconds,
                idle * 1e3,
            );
            let single = *single.get_or_insert(seconds);
            if threads > 1 {
                println!("{threads} threads: {:.2} times one", single / seconds);
            }
        }
    }
}
