//! Small models train in lanes: sixteen clients share one vectorised step, lane = client.
//!
//! Parameters and activations lie as `[index][lane]`. Every lane follows the recipe of
//! [`Session`](crate::Session) step by step: its own order, batches, learning rate and end. A
//! lane whose client is done takes the next one, so clients of different sizes waste little. How
//! clients are grouped changes no bit of any of them.
//!
//! A model is trained so when it is a chain of dense layers and elementwise functions with softmax
//! cross-entropy, small enough for the second cache; a plan, when it is plain SGD (with weight
//! decay and proximal term) without clipping or privacy of single examples. Everything else trains
//! client by client.

use alloc::vec::Vec;

use fl_core::{
    ExampleCount, FitTask, InputSpec, InputsMut, LocalPlan, LocalResult, Optimizer, TargetSpec,
    TargetsMut,
};

use crate::arena::{Aligned, pick, reserve};
use crate::graph::Op;
use crate::kernel::{Activation, Dense, Fused, Kernels, LANES, LaneRows, LaneStep};
use crate::model::Model;
use crate::plan::kernel_function;
use crate::session::BadExample;
use crate::train::work;
use crate::zoo::Loss;

/// Parameters of the largest model that trains in lanes: 1 MiB of all lanes' weights.
const MOST_PARAMETERS: usize = (1 << 20) / (4 * LANES);
/// Most numbers of one lane's batch of activations: 1 MiB in all lanes.
const MOST_ACTIVATIONS: usize = (1 << 20) / (4 * LANES);
/// Fewer tasks than this train faster one by one: a step of all lanes costs about seven single ones.
const FEWEST_TASKS: usize = 8;

/// One layer; `input` and `output` are widths.
#[derive(Clone, Debug)]
enum Layer {
    Dense {
        geometry: Dense,
        weight: core::ops::Range<usize>,
        bias: Option<core::ops::Range<usize>>,
        fused: Fused,
    },
    Activate {
        f: Activation,
        width: usize,
    },
}

impl Layer {
    fn output(&self) -> usize {
        match self {
            Self::Dense { geometry, .. } => geometry.outputs,
            Self::Activate { width, .. } => *width,
        }
    }
}

/// One client in its lane.
#[derive(Debug, Default)]
struct Lane {
    /// The task, while there is one.
    task: Option<usize>,
    /// The examples in this epoch's order.
    order: Vec<u32>,
    /// The next example in `order`, and how many there are.
    next: usize,
    examples: usize,
    batch: usize,
    epochs: u64,
    steps: u64,
    epochs_begun: u64,
    steps_done: u64,
    processed: u64,
    loss: f64,
}

/// Trains groups of clients of one small model.
#[derive(Debug)]
pub(crate) struct Lanes {
    kernels: &'static Kernels,
    layers: Vec<Layer>,
    features: usize,
    classes: usize,
    /// Numbers of one example's activations in one lane, all layers.
    activations: usize,
    widest: usize,
    parameters: usize,
    lanes: Vec<Lane>,
    weights: Aligned,
    /// The weights as `[lane][index]`.
    apart: Aligned,
    /// Batches as they are read, `[lane][row][feature]` with a gap after each lane.
    staging: Aligned,
    staging_stride: usize,
    labels_read: Vec<u32>,
    /// `[row][LANES]`
    labels: Aligned,
    /// Input, then every layer's output.
    values: Aligned,
    gradients: Aligned,
    losses: Aligned,
    rows: LaneRows,
}

impl Lanes {
    /// Lanes for `model`, where it is small and simple enough.
    pub(crate) fn of(model: &Model, kernels: &'static Kernels) -> Option<Self> {
        let graph = &model.graph;
        let (InputSpec::Real(_), TargetSpec::Class { classes }) = (model.input(), model.target())
        else {
            return None;
        };
        if model.qat_options().is_some() || model.distillation().is_some() {
            return None;
        }
        if model.loss() != Loss::SoftmaxCrossEntropy || model.parameters() > MOST_PARAMETERS {
            return None;
        }
        let tensors = model.layout().tensors();
        let mut layers = Vec::new();
        let mut current = 0;
        for node in &graph.nodes {
            if graph.values[node.input].root != current {
                return None;
            }
            current = graph.values[node.output].root;
            layers.push(match &node.op {
                Op::Dense {
                    geometry,
                    weight,
                    bias,
                    fused,
                } => Layer::Dense {
                    geometry: *geometry,
                    weight: tensors[*weight].range(),
                    bias: bias.map(|bias| tensors[bias].range()),
                    fused: *fused,
                },
                Op::Function(function) => Layer::Activate {
                    f: kernel_function(*function),
                    width: graph.values[node.output].len(),
                },
                _ => return None,
            });
        }
        let features = model.input().len();
        let widths = layers.iter().map(Layer::output);
        let activations = features + widths.clone().sum::<usize>();
        if graph.values[graph.output].root != current || activations > MOST_ACTIVATIONS {
            return None;
        }
        Some(Self {
            kernels,
            features,
            classes,
            activations,
            widest: widths.max().unwrap_or(0),
            parameters: model.parameters(),
            layers,
            lanes: (0..LANES).map(|_| Lane::default()).collect(),
            weights: Aligned::default(),
            apart: Aligned::default(),
            staging: Aligned::default(),
            staging_stride: 0,
            labels_read: Vec::new(),
            labels: Aligned::default(),
            values: Aligned::default(),
            gradients: Aligned::default(),
            losses: Aligned::default(),
            rows: LaneRows::default(),
        })
    }

    /// Whether these tasks can train in lanes, and better so.
    pub(crate) fn suit(&self, tasks: &[FitTask<'_>]) -> bool {
        let Some(first) = tasks.first() else {
            return false;
        };
        tasks.len() >= FEWEST_TASKS
            && tasks.iter().all(|task| {
                let plan = task.plan;
                plain(plan).is_some()
                    && plain(plan) == plain(first.plan)
                    && plan.max_gradient_norm.is_none()
                    && plan.privacy.is_none()
                    && batch_of(plan, task.data.len()) * self.activations <= MOST_ACTIVATIONS
            })
    }

    /// Trains every task; the tasks must have been checked, and [suit](Self::suit).
    ///
    /// # Errors
    /// The task and its bad example; no update is then of use.
    pub(crate) fn fit(
        &mut self,
        global: &[f32],
        tasks: &mut [FitTask<'_>],
        results: &mut [LocalResult],
    ) -> Result<(), (usize, BadExample)> {
        let Some((weight_decay, proximal_mu)) = tasks.first().and_then(|task| plain(task.plan))
        else {
            return Ok(());
        };
        let most = tasks
            .iter()
            .map(|task| batch_of(task.plan, task.data.len()))
            .max()
            .unwrap_or(0);
        self.reserve(most);
        let mut waiting = 0..tasks.len();
        self.begin(&[true; LANES], &mut waiting, tasks, global);
        let mut negative_rates = [0.0; LANES];
        let mut scales = [0.0; LANES];
        while self.lanes.iter().any(|lane| lane.task.is_some()) {
            self.read(tasks, &mut negative_rates, &mut scales)?;
            let step = LaneStep {
                negative_rates: &negative_rates,
                weight_decay,
                proximal_mu,
                anchor: global,
            };
            self.step(&step, &scales);
            let done: [bool; LANES] = core::array::from_fn(|lane| self.end_step(lane));
            if done.contains(&true) {
                self.finish(&done, global, tasks, results);
                self.begin(&done, &mut waiting, tasks, global);
            }
        }
        Ok(())
    }

    fn reserve(&mut self, batch: usize) {
        self.weights.reserve(self.parameters * LANES);
        self.apart.reserve(self.parameters * LANES);
        // A gap, so that the lanes' rows do not all fall into the same lines of the first cache.
        let stride = batch * self.features + 16;
        if self.staging_stride < stride {
            self.staging_stride = stride;
            self.staging.reserve(stride * LANES);
        }
        reserve(&mut self.labels_read, batch);
        self.labels.reserve(batch * LANES);
        self.values.reserve(batch * self.activations * LANES);
        self.gradients.reserve(2 * batch * self.widest * LANES);
        self.losses.reserve(batch * LANES);
        reserve(&mut self.rows.active, batch * LANES);
    }

    /// Gives each of these lanes its next task, if there is one.
    fn begin(
        &mut self,
        which: &[bool; LANES],
        waiting: &mut core::ops::Range<usize>,
        tasks: &[FitTask<'_>],
        global: &[f32],
    ) {
        for (state, _) in self
            .lanes
            .iter_mut()
            .zip(which)
            .filter(|(_, which)| **which)
        {
            state.task = waiting.next();
            let Some(task) = state.task else {
                continue;
            };
            let task = &tasks[task];
            let (epochs, steps) = work(task.plan.work, task.limit);
            let examples = task.data.len();
            reserve(&mut state.order, examples);
            *state = Lane {
                task: state.task,
                order: core::mem::take(&mut state.order),
                next: examples,
                examples,
                batch: batch_of(task.plan, examples),
                epochs,
                steps,
                ..Lane::default()
            };
        }
        let weights = self.weights.values_mut().as_chunks_mut::<LANES>().0;
        if which.iter().all(|which| *which) {
            for (weights, global) in weights.iter_mut().zip(global) {
                *weights = [*global; LANES];
            }
            return;
        }
        for lane in (0..LANES).filter(|lane| which[*lane]) {
            for (weights, global) in weights.iter_mut().zip(global) {
                weights[lane] = *global;
            }
        }
    }

    /// Reads every lane's next batch.
    fn read(
        &mut self,
        tasks: &mut [FitTask<'_>],
        negative_rates: &mut [f32; LANES],
        scales: &mut [f32; LANES],
    ) -> Result<(), (usize, BadExample)> {
        let rows = &mut self.rows;
        rows.active.fill(0.0);
        rows.most = 0;
        rows.full = usize::MAX;
        let staging = self.staging.values_mut();
        for (lane, state) in self.lanes.iter_mut().enumerate() {
            let Some(index) = state.task else {
                continue;
            };
            let task = &mut tasks[index];
            if state.next == state.examples {
                let order = &mut state.order[..state.examples];
                task.plan.order.pass(order, &mut task.stream);
                state.next = 0;
                state.epochs_begun += 1;
            }
            let count = state.batch.min(state.examples - state.next);
            let batch = &state.order[state.next..state.next + count];
            state.next += count;
            let labels = &mut self.labels_read[..count];
            let inputs = &mut staging[lane * self.staging_stride..][..count * self.features];
            let inputs = InputsMut::Real(inputs);
            task.data
                .fill(batch, inputs, TargetsMut::Classes(&mut labels[..]));
            if let Some(examples) = task.data.real_rows() {
                // The next batch is on its way while this one is worked on.
                let after = &state.order[state.next..state.examples];
                let after = &after[..after.len().min(state.batch)];
                self.kernels.prefetch_rows(examples, self.features, after);
            }
            for (row, (&label, &example)) in labels.iter().zip(batch).enumerate() {
                if label as usize >= self.classes {
                    let bad = BadExample::Label {
                        row: example,
                        label,
                    };
                    return Err((index, bad));
                }
                self.labels.values_mut()[row * LANES + lane] = label as f32;
                rows.active[row * LANES + lane] = 1.0;
            }
            rows.most = rows.most.max(count);
            rows.full = rows.full.min(count);
            let rate = task.plan.learning_rate.rate(task.round, state.steps_done);
            negative_rates[lane] = -rate;
            scales[lane] = 1.0 / count as f32;
        }
        self.kernels.lanes_interleave(
            self.staging.values(),
            self.staging_stride,
            rows.most * self.features,
            self.values.values_mut(),
        );
        Ok(())
    }

    /// Forward, loss, backward and the parameters' step in every lane.
    fn step(&mut self, step: &LaneStep<'_>, scales: &[f32; LANES]) {
        let k = self.kernels;
        let rows = self.rows.most;
        let values = self.values.values_mut();
        let weights = self.weights.values_mut();
        let in_lanes = |range: &core::ops::Range<usize>| range.start * LANES..range.end * LANES;
        let (mut at, mut width) = (0, self.features * rows * LANES);
        for layer in &self.layers {
            let next = at + width;
            let next_width = layer.output() * rows * LANES;
            let [x, y] = pick(values, [at..next, next..next + next_width]);
            match layer {
                Layer::Dense {
                    geometry,
                    weight,
                    bias,
                    fused,
                } => {
                    let weight = &weights[in_lanes(weight)];
                    let bias = bias.as_ref().map(|bias| &weights[in_lanes(bias)]);
                    k.lanes_dense(geometry, rows, x, weight, bias, *fused, y);
                }
                Layer::Activate { f, .. } => k.activate(*f, x, y),
            }
            (at, width) = (next, next_width);
        }
        let size = self.gradients.values().len() / 2;
        let (mut dy, mut dx) = self.gradients.values_mut().split_at_mut(size);
        k.lanes_softmax_cross_entropy(
            rows,
            self.classes,
            &values[at..at + width],
            self.labels.values(),
            scales,
            self.losses.values_mut(),
            dy,
        );
        for (index, layer) in self.layers.iter().enumerate().rev() {
            let y = at..at + width;
            width = match index {
                0 => self.features,
                _ => self.layers[index - 1].output(),
            } * rows
                * LANES;
            at -= width;
            let x = &values[at..at + width];
            match layer {
                Layer::Dense {
                    geometry,
                    weight,
                    bias,
                    fused,
                } => {
                    if let Some(f) = fused.activation() {
                        let y = &values[y.clone()];
                        k.activate_grad(f, y, &mut dy[..y.len()]);
                    }
                    let matrix = &mut weights[in_lanes(weight)];
                    if index > 0 {
                        k.lanes_dense_dx(geometry, rows, dy, matrix, dx);
                    }
                    let part = |range: &core::ops::Range<usize>| LaneStep {
                        anchor: &step.anchor[range.clone()],
                        ..*step
                    };
                    k.lanes_dense_step(geometry, &self.rows, x, dy, matrix, &part(weight));
                    if let Some(bias) = bias {
                        let to = &mut weights[in_lanes(bias)];
                        k.lanes_bias_step(geometry.outputs, &self.rows, dy, to, &part(bias));
                    }
                    core::mem::swap(&mut dy, &mut dx);
                }
                Layer::Activate { f, .. } => {
                    let kept = match f.keeps_input() {
                        true => x,
                        false => &values[y],
                    };
                    k.activate_grad(*f, kept, &mut dy[..kept.len()]);
                }
            }
        }
    }

    /// Adds the step's losses; whether the lane's client is done.
    fn end_step(&mut self, lane: usize) -> bool {
        let state = &mut self.lanes[lane];
        if state.task.is_none() {
            return false;
        }
        // The rows of this step: what was read since the last one.
        let count = state.next - (state.next - 1) / state.batch * state.batch;
        let losses = self.losses.values().as_chunks::<LANES>().0;
        for losses in &losses[..count] {
            state.loss += f64::from(losses[lane]);
        }
        state.processed += count as u64;
        state.steps_done += 1;
        state.steps_done == state.steps
            || (state.next == state.examples && state.epochs_begun == state.epochs)
    }

    /// Writes the updates and results of these lanes.
    fn finish(
        &mut self,
        which: &[bool; LANES],
        global: &[f32],
        tasks: &mut [FitTask<'_>],
        results: &mut [LocalResult],
    ) {
        let count = self.parameters;
        self.kernels
            .transpose(count, LANES, self.weights.values(), self.apart.values_mut());
        for (lane, state) in self.lanes.iter_mut().enumerate() {
            let Some(index) = state.task.take_if(|_| which[lane]) else {
                continue;
            };
            let local = &self.apart.values()[lane * count..][..count];
            self.kernels.difference(local, global, tasks[index].update);
            results[index] = LocalResult {
                examples: ExampleCount(state.examples as u64),
                examples_processed: state.processed,
                steps: state.steps_done,
                mean_loss: state.loss / state.processed as f64,
                examples_clipped: 0,
            };
        }
    }
}

/// Weight decay and proximal `mu` of a plain SGD plan.
fn plain(plan: &LocalPlan) -> Option<(f32, f32)> {
    match plan.optimizer {
        Optimizer::Sgd {
            momentum: 0.0,
            weight_decay,
            ..
        } => Some((weight_decay, plan.proximal_mu)),
        _ => None,
    }
}

fn batch_of(plan: &LocalPlan, examples: usize) -> usize {
    plan.batch.examples(examples as u64) as usize
}
