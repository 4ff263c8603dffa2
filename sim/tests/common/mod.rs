//! Doubles for the simulator's two seams: a tiny population and a tiny linear model.
#![allow(
    dead_code,
    reason = "each integration test is its own crate and uses a part of this"
)]

pub(crate) mod private;

use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use fl_core::select::{SelectorConfig, UniformConfig};
use fl_core::strategy::{FedAvgConfig, StrategyConfig};
use fl_core::{
    BatchSize, ClientId, Evaluation, ExampleCount, ExampleOrder, Examples, FitTask, InputSpec,
    InputsMut, Layout, LearningRate, LocalPlan, LocalResult, LocalWork, ModelDigest, Optimizer,
    Parameters, Precision, Purpose, RoundId, Seed, ServedModel, Stream, TargetSpec, TargetsMut,
    TrainError, Trainer, WorkLimit,
};
use fl_edge::Observed;
use fl_sim::fleet::{Costs, Fleet, FleetError};
use fl_sim::{
    AggregationConfig, CalibrationConfig, ClientEvaluation, ClientPart, Engine, EvaluationConfig,
    EvaluationRecord, FleetConfig, LocalDisk, Observer, ObserverError, Outcome, PerClient,
    Population, RecorderPosition, RoundRecord, SecAggRecord, Simulation, SimulationConfig,
};

pub(crate) type Tiny = Simulation<TinyPopulation, TinyEngine>;

pub(crate) const FEATURES: usize = 5;

/// Linearly separable classes, turned a little for each client.
pub(crate) struct TinyPopulation {
    pub(crate) clients: u64,
    pub(crate) seed: u64,
    pub(crate) with_client_test: bool,
    /// The client whose label leaves the model's range, if any.
    pub(crate) poisoned: Option<ClientId>,
    /// The client whose inputs are so large that training diverges, if any.
    pub(crate) diverging: Option<ClientId>,
    /// The client whose update is huge, but finite, if any.
    pub(crate) loud: Option<ClientId>,
    input: InputSpec,
    test: Option<TinyExamples>,
}

impl TinyPopulation {
    pub(crate) fn new(clients: u64, seed: u64) -> Self {
        let mut population = Self {
            clients,
            seed,
            with_client_test: true,
            poisoned: None,
            diverging: None,
            loud: None,
            input: InputSpec::Real(vec![FEATURES]),
            test: None,
        };
        let mut test = TinyExamples::default();
        population.generate(ClientId(u64::MAX), 1203, &mut test);
        population.test = Some(test);
        population
    }

    pub(crate) fn without_test(mut self) -> Self {
        self.test = None;
        self
    }

    pub(crate) fn with_empty_test(mut self) -> Self {
        self.test = Some(TinyExamples::default());
        self
    }

    fn generate(&self, client: ClientId, len: u64, into: &mut TinyExamples) {
        let mut stream = Stream::at(Purpose::DataClient, Seed(self.seed), RoundId(len), client);
        into.inputs.clear();
        into.labels.clear();
        let turn = (client.0 % 7) as f32 * 0.1;
        for _ in 0..len {
            let from = into.inputs.len();
            into.inputs
                .extend((0..FEATURES).map(|_| stream.uniform() as f32 - 0.5));
            let row = &mut into.inputs[from..];
            let side = row[0] - (0.8 + turn) * row[1] + 0.5 * row[2] + 0.05;
            if self.diverging == Some(client) {
                row.fill(1e30);
            }
            if self.loud == Some(client) {
                row.fill(3.0);
            }
            let label = u32::from(side > 0.0);
            into.labels.push(if self.poisoned == Some(client) {
                9
            } else {
                label
            });
        }
    }
}

/// Examples in memory.
#[derive(Default)]
pub(crate) struct TinyExamples {
    inputs: Vec<f32>,
    labels: Vec<u32>,
}

pub(crate) struct TinyView<'a> {
    examples: &'a TinyExamples,
    input: &'a InputSpec,
}

impl Population for TinyPopulation {
    type Scratch = TinyExamples;
    type Client<'a> = TinyView<'a>;

    fn clients(&self) -> u64 {
        self.clients
    }

    /// Between 0 and 40, the first ones having none.
    fn train_len(&self, client: ClientId) -> u64 {
        (client.0 * 7) % 41
    }

    fn train<'a>(&'a self, client: ClientId, scratch: &'a mut TinyExamples) -> TinyView<'a> {
        self.generate(client, self.train_len(client), scratch);
        TinyView {
            examples: scratch,
            input: &self.input,
        }
    }

    fn client_test<'a>(
        &'a self,
        client: ClientId,
        scratch: &'a mut TinyExamples,
    ) -> Option<TinyView<'a>> {
        if !self.with_client_test {
            return None;
        }
        self.generate(client, 100 + client.0 % 3, scratch);
        Some(TinyView {
            examples: scratch,
            input: &self.input,
        })
    }

    fn test(&self) -> Option<&dyn Examples> {
        self.test.as_ref().map(|test| test as &dyn Examples)
    }

    fn digest(&self) -> [u8; 32] {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&self.clients.to_le_bytes());
        digest[8..16].copy_from_slice(&self.seed.to_le_bytes());
        digest
    }
}

static INPUT: std::sync::LazyLock<InputSpec> =
    std::sync::LazyLock::new(|| InputSpec::Real(vec![FEATURES]));

impl Examples for TinyExamples {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn input(&self) -> &InputSpec {
        &INPUT
    }

    fn target(&self) -> TargetSpec {
        TargetSpec::Class { classes: 2 }
    }

    fn fill(&self, rows: &[u32], inputs: InputsMut<'_>, targets: TargetsMut<'_>) {
        let (InputsMut::Real(inputs), TargetsMut::Classes(targets)) = (inputs, targets) else {
            panic!("the tiny data are real inputs and classes");
        };
        for (i, &row) in rows.iter().enumerate() {
            let row = row as usize;
            inputs[i * FEATURES..][..FEATURES]
                .copy_from_slice(&self.inputs[row * FEATURES..][..FEATURES]);
            targets[i] = self.labels[row];
        }
    }
}

impl Examples for TinyView<'_> {
    fn len(&self) -> usize {
        self.examples.len()
    }

    fn input(&self) -> &InputSpec {
        self.input
    }

    fn target(&self) -> TargetSpec {
        self.examples.target()
    }

    fn fill(&self, rows: &[u32], inputs: InputsMut<'_>, targets: TargetsMut<'_>) {
        self.examples.fill(rows, inputs, targets);
    }
}

/// Least squares on labels ±1: `FEATURES` weights and a bias.
pub(crate) struct TinyEngine {
    pub(crate) layout: Arc<Layout>,
    pub(crate) lanes: usize,
    pub(crate) kernel: String,
    /// Largest group that a trainer saw.
    pub(crate) largest_group: Arc<AtomicUsize>,
    /// Raised once a trainer has trained so many clients: `(clients, flag)`.
    pub(crate) interrupt: Option<(usize, &'static AtomicBool)>,
    pub(crate) trained: Arc<AtomicUsize>,
    /// The same for calls of `evaluate`.
    pub(crate) interrupt_evaluation: Option<(usize, &'static AtomicBool)>,
    pub(crate) evaluated: Arc<AtomicUsize>,
}

impl TinyEngine {
    pub(crate) fn new() -> Self {
        let layout = Layout::new([
            ("line.weight".to_owned(), vec![FEATURES]),
            ("line.bias".to_owned(), vec![1]),
        ])
        .unwrap();
        Self {
            layout: Arc::new(layout),
            lanes: 4,
            kernel: "tiny".to_owned(),
            largest_group: Arc::default(),
            interrupt: None,
            trained: Arc::default(),
            interrupt_evaluation: None,
            evaluated: Arc::default(),
        }
    }
}

impl Engine for TinyEngine {
    type Trainer = TinyTrainer;

    fn trainer(&self) -> TinyTrainer {
        TinyTrainer {
            layout: Arc::clone(&self.layout),
            lanes: self.lanes,
            largest_group: Arc::clone(&self.largest_group),
            interrupt: self.interrupt,
            trained: Arc::clone(&self.trained),
            interrupt_evaluation: self.interrupt_evaluation,
            evaluated: Arc::clone(&self.evaluated),
        }
    }

    fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    fn init(&self, stream: &mut Stream) -> Parameters {
        let values = (0..=FEATURES).map(|_| stream.normal() as f32 * 0.1);
        Parameters::new(Arc::clone(&self.layout), values.collect()).unwrap()
    }

    fn kernel(&self) -> String {
        self.kernel.clone()
    }

    /// As if it were McMahan's network: a line would take no time.
    fn costs(
        &self,
        fleet: &Fleet,
        plan: &LocalPlan,
        most_examples: u64,
    ) -> Result<Option<Costs>, FleetError> {
        let def = fl_edge::ModelDef::named("mlp-2nn").unwrap();
        let input = InputSpec::Real(vec![28, 28, 1]);
        let model = fl_edge::Model::new(&def, &input, TargetSpec::Class { classes: 10 }).unwrap();
        Costs::new(fleet, &model, plan, most_examples).map(Some)
    }

    /// Parameters rounded to quarters of the largest calibration input.
    fn serve_int8(
        &self,
        parameters: &Parameters,
        observed: Observed<'_>,
        _: &CalibrationConfig,
    ) -> Result<Box<dyn ServedModel>, TrainError> {
        let Observed::Examples(samples) = observed else {
            unreachable!("this engine has no probe");
        };
        let rows: Vec<u32> = (0..samples.len() as u32).collect();
        let (mut x, mut y) = (vec![0.0; rows.len() * FEATURES], vec![0; rows.len()]);
        samples.fill(&rows, InputsMut::Real(&mut x), TargetsMut::Classes(&mut y));
        assert!(y.iter().all(|&label| label == 0), "targets are not read");
        let step = x.iter().fold(0.0f32, |largest, x| largest.max(x.abs())) / 4.0;
        let values = parameters.values().iter();
        Ok(Box::new(TinyServed {
            engine: TinyEngine::new(),
            parameters: values.map(|value| (value / step).round() * step).collect(),
        }))
    }
}

pub(crate) struct TinyServed {
    engine: TinyEngine,
    pub(crate) parameters: Vec<f32>,
}

impl ServedModel for TinyServed {
    fn evaluate(&self, data: &dyn Examples, rows: Range<usize>) -> Result<Evaluation, TrainError> {
        self.engine.trainer().evaluate(&self.parameters, data, rows)
    }
}

pub(crate) struct TinyTrainer {
    layout: Arc<Layout>,
    lanes: usize,
    largest_group: Arc<AtomicUsize>,
    interrupt: Option<(usize, &'static AtomicBool)>,
    trained: Arc<AtomicUsize>,
    interrupt_evaluation: Option<(usize, &'static AtomicBool)>,
    evaluated: Arc<AtomicUsize>,
}

fn score(w: &[f32], x: &[f32]) -> f32 {
    w[..FEATURES]
        .iter()
        .zip(x)
        .fold(w[FEATURES], |sum, (&w, &x)| w.mul_add(x, sum))
}

/// The whole of a task, readable: what `TinyTrainer` computes, in any group.
pub(crate) fn fit_one(global: &[f32], task: &mut FitTask<'_>) -> Result<LocalResult, TrainError> {
    let n = task.data.len();
    let all: Vec<u32> = (0..n as u32).collect();
    let (mut x, mut y) = (vec![0.0; n * FEATURES], vec![0; n]);
    task.data
        .fill(&all, InputsMut::Real(&mut x), TargetsMut::Classes(&mut y));
    if let Some(row) = y.iter().position(|&label| label > 1) {
        return Err(TrainError::LabelOutOfRange {
            client: task.client,
            row,
            label: y[row],
            classes: 2,
        });
    }
    let batch = task.plan.batch.examples(n as u64) as usize;
    let LocalWork::Epochs(epochs) = task.plan.work else {
        panic!("the tiny trainer counts epochs");
    };
    let epochs = match task.limit {
        WorkLimit::Full => epochs,
        WorkLimit::AtMost(limit) => epochs.min(limit),
    };
    let mut w = global.to_vec();
    let mut order = all;
    let (mut steps, mut loss) = (0u64, 0.0);
    for _ in 0..epochs.get() {
        task.stream.shuffle(&mut order);
        for rows in order.chunks(batch) {
            let rate = task.plan.learning_rate.rate(task.round, steps);
            let mut gradient = [0.0f32; FEATURES + 1];
            for &row in rows {
                let x = &x[row as usize * FEATURES..][..FEATURES];
                let error = score(&w, x) - (2.0 * y[row as usize] as f32 - 1.0);
                loss += f64::from(error) * f64::from(error);
                for (g, &x) in gradient.iter_mut().zip(x) {
                    *g += error * x;
                }
                gradient[FEATURES] += error;
            }
            for (i, g) in gradient.iter().enumerate() {
                let g = g / rows.len() as f32 + task.plan.proximal_mu * (w[i] - global[i]);
                w[i] -= rate * g;
            }
            steps += 1;
        }
    }
    for (update, (w, global)) in task.update.iter_mut().zip(w.iter().zip(global)) {
        *update = w - global;
    }
    let processed = n as u64 * u64::from(epochs.get());
    Ok(LocalResult {
        examples: ExampleCount(n as u64),
        examples_processed: processed,
        steps,
        mean_loss: loss / processed as f64,
        examples_clipped: 0,
    })
}

impl Trainer for TinyTrainer {
    fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    fn lanes(&self) -> usize {
        self.lanes
    }

    fn fit(
        &mut self,
        global: &Parameters,
        tasks: &mut [FitTask<'_>],
        results: &mut [LocalResult],
    ) -> Result<(), TrainError> {
        use std::sync::atomic::Ordering::SeqCst;
        assert!(tasks.len() <= self.lanes && tasks.len() == results.len());
        self.largest_group.fetch_max(tasks.len(), SeqCst);
        for (task, result) in tasks.iter_mut().zip(results) {
            assert!(
                !task.data.is_empty(),
                "a client without examples never trains"
            );
            *result = fit_one(global.values(), task)?;
        }
        let trained = self.trained.fetch_add(tasks.len(), SeqCst) + tasks.len();
        if let Some((clients, flag)) = self.interrupt
            && trained >= clients
        {
            flag.store(true, SeqCst);
        }
        Ok(())
    }

    fn evaluate(
        &mut self,
        parameters: &[f32],
        data: &dyn Examples,
        rows: Range<usize>,
    ) -> Result<Evaluation, TrainError> {
        let calls = self
            .evaluated
            .fetch_add(1, std::sync::atomic::Ordering::SeqCst)
            + 1;
        if let Some((limit, flag)) = self.interrupt_evaluation
            && calls >= limit
        {
            flag.store(true, std::sync::atomic::Ordering::SeqCst);
        }
        let rows: Vec<u32> = (rows.start as u32..rows.end as u32).collect();
        let (mut x, mut y) = (vec![0.0; rows.len() * FEATURES], vec![0; rows.len()]);
        data.fill(&rows, InputsMut::Real(&mut x), TargetsMut::Classes(&mut y));
        let mut sum = Evaluation::default();
        for (x, &label) in x.chunks_exact(FEATURES).zip(&y) {
            let score = score(parameters, x);
            let error = f64::from(score) - (2.0 * f64::from(label) - 1.0);
            sum.examples += 1;
            sum.loss_sum += error * error;
            sum.correct += u64::from((score > 0.0) == (label == 1));
        }
        Ok(sum)
    }
}

pub(crate) fn plan(epochs: u32, batch: u32) -> LocalPlan {
    LocalPlan {
        work: LocalWork::Epochs(NonZeroU32::new(epochs).unwrap()),
        batch: BatchSize::Examples(NonZeroU32::new(batch).unwrap()),
        order: ExampleOrder::Shuffled,
        optimizer: Optimizer::SGD,
        learning_rate: LearningRate::constant(0.1),
        max_gradient_norm: None,
        proximal_mu: 0.0,
        precision: Precision::F32,
        privacy: None,
    }
}

/// Keeps everything, with wall-clock times set to zero so that runs can be compared.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Journal {
    pub(crate) rounds: Vec<RoundRecord>,
    pub(crate) evaluations: Vec<EvaluationRecord>,
    pub(crate) clients: Vec<ClientEvaluation>,
    pub(crate) checkpoints: Vec<u64>,
    pub(crate) parts: Vec<ClientPart>,
}

impl Journal {
    /// Forgets what came after `position`, as a recorder does on resume.
    pub(crate) fn truncate(&mut self, position: RecorderPosition) {
        let rounds = position.0 & 0xffff_ffff;
        self.rounds.truncate(rounds as usize);
        self.evaluations.retain(|e| e.round <= rounds);
        self.clients.retain(|c| c.round <= rounds);
        self.parts.truncate((position.0 >> 32) as usize);
        self.checkpoints.clear();
    }

    /// Without what depends on when checkpoints were written.
    pub(crate) fn outcome(&self) -> Self {
        Self {
            checkpoints: Vec::new(),
            ..self.clone()
        }
    }
}

impl Observer for Journal {
    fn round(&mut self, record: &RoundRecord) {
        let secagg = record.secagg.clone();
        self.rounds.push(RoundRecord {
            seconds: 0.0,
            training_seconds: 0.0,
            secagg: secagg.map(|secagg| SecAggRecord {
                measured: None,
                ..secagg
            }),
            ..record.clone()
        });
    }

    fn took_part(&mut self, part: &ClientPart) {
        self.parts.push(part.clone());
    }

    fn evaluated(&mut self, record: &EvaluationRecord) {
        self.evaluations.push(EvaluationRecord {
            seconds: 0.0,
            ..record.clone()
        });
    }

    fn client_evaluated(&mut self, record: &ClientEvaluation) {
        self.clients.push(record.clone());
    }

    fn flush(&mut self, _: RoundId) -> Result<RecorderPosition, ObserverError> {
        let parts = (self.parts.len() as u64) << 32;
        Ok(RecorderPosition(parts | self.rounds.len() as u64))
    }

    fn checkpointed(&mut self, round: RoundId) -> Result<(), ObserverError> {
        self.checkpoints.push(round.0);
        Ok(())
    }
}

pub(crate) fn config() -> SimulationConfig {
    SimulationConfig {
        seed: Seed(11),
        rounds: 6,
        selection: uniform(12, 1.0),
        local: plan(3, 8),
        strategy: StrategyConfig::FedAvg(FedAvgConfig::default()),
        fleet: FleetConfig {
            stragglers: 0.25,
            dropout: 0.1,
        },
        devices: None,
        schedule: fl_sim::ScheduleConfig::default(),
        telemetry: fl_sim::TelemetryConfig::default(),
        evaluation: EvaluationConfig {
            every: 2,
            train: true,
            per_client: PerClient::Last,
            ..EvaluationConfig::default()
        },
        threads: 1,
        checkpoint: None,
        privacy: None,
        aggregation: AggregationConfig::default(),
        secagg: None,
        pruning: None,
        faults: None,
        stop_at_accuracy: None,
    }
}

pub(crate) fn uniform(cohort: u64, over_select: f64) -> SelectorConfig {
    SelectorConfig::Uniform(UniformConfig {
        cohort,
        over_select,
    })
}

pub(crate) fn population() -> TinyPopulation {
    TinyPopulation::new(60, 5)
}

pub(crate) fn simulation(config: SimulationConfig) -> Tiny {
    Tiny::with_parts(config, population(), TinyEngine::new(), Arc::new(LocalDisk)).unwrap()
}

pub(crate) fn resume(config: SimulationConfig) -> Option<Tiny> {
    Tiny::resume_with_parts(config, population(), TinyEngine::new(), Arc::new(LocalDisk)).unwrap()
}

pub(crate) fn play(simulation: &mut Tiny) -> Journal {
    let mut journal = Journal::default();
    let outcome = simulation
        .run(&mut journal, &AtomicBool::new(false))
        .unwrap();
    assert_eq!(outcome, Outcome::Finished);
    journal
}

pub(crate) fn play_config(config: SimulationConfig) -> (ModelDigest, Journal) {
    let mut simulation = simulation(config);
    let journal = play(&mut simulation);
    (simulation.parameters().digest(), journal)
}
