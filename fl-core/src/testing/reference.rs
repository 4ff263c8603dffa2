//! A data set and a trainer that can be read at a glance, to test others against.

use std::sync::Arc;

use super::stream;
use crate::examples::{Examples, InputSpec, InputsMut, TargetSpec, TargetsMut};
use crate::params::{Layout, Parameters};
use crate::plan::{ExampleClipping, ExamplePrivacy, LocalPlan, LocalWork, Optimizer, WorkLimit};
use crate::stream::Purpose;
use crate::trainer::{Evaluation, FitTask, LocalResult, TrainError, Trainer};

/// Examples in memory: real vectors around one centre per class, or uniform ones.
#[derive(Clone, Debug)]
pub struct Blobs {
    input: InputSpec,
    classes: usize,
    inputs: Vec<f32>,
    labels: Vec<u32>,
}

impl Blobs {
    /// `examples` examples of `features` features; `client` numbers the data set. The centres
    /// are the same for all clients.
    #[must_use]
    pub fn new(client: u64, examples: usize, features: usize, classes: usize) -> Self {
        let centres = super::normals(&mut stream(7, 0), features * classes, 1.0);
        let mut random = stream(8, client);
        let mut inputs = Vec::with_capacity(examples * features);
        let mut labels = Vec::with_capacity(examples);
        for _ in 0..examples {
            let label = random.below(classes as u64) as usize;
            labels.push(label as u32);
            let centre = &centres[label * features..][..features];
            inputs.extend(centre.iter().map(|c| c + 0.5 * random.normal() as f32));
        }
        Self {
            input: InputSpec::Real(vec![features]),
            classes,
            inputs,
            labels,
        }
    }

    /// Inputs of `shape`, uniform from 0 to 1, and uniform labels: nothing is to be learnt. For
    /// measurements of time.
    #[must_use]
    pub fn uniform(client: u64, examples: usize, shape: &[usize], classes: usize) -> Self {
        let input = InputSpec::Real(shape.to_vec());
        let mut random = stream(9, client);
        let values = examples * input.len();
        Self {
            inputs: (0..values).map(|_| random.uniform() as f32).collect(),
            labels: (0..examples)
                .map(|_| random.below(classes as u64) as u32)
                .collect(),
            input,
            classes,
        }
    }
}

impl Examples for Blobs {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn input(&self) -> &InputSpec {
        &self.input
    }

    fn target(&self) -> TargetSpec {
        TargetSpec::Class {
            classes: self.classes,
        }
    }

    fn fill(&self, rows: &[u32], inputs: InputsMut<'_>, targets: TargetsMut<'_>) {
        let width = self.input.len();
        if let InputsMut::Real(into) = inputs {
            for (into, &row) in into.chunks_mut(width).zip(rows) {
                into.copy_from_slice(&self.inputs[row as usize * width..][..width]);
            }
        }
        if let TargetsMut::Classes(into) = targets {
            for (into, &row) in into.iter_mut().zip(rows) {
                *into = self.labels[row as usize];
            }
        }
    }

    fn real_rows(&self) -> Option<&[f32]> {
        Some(&self.inputs)
    }
}

/// Softmax regression trained by plain SGD, one example after the other, in `f64`; and by
/// differentially private SGD with flat clipping, to the letter of the paper.
#[derive(Debug)]
pub struct SoftmaxTrainer {
    layout: Arc<Layout>,
    features: usize,
    classes: usize,
}

impl SoftmaxTrainer {
    /// A trainer for inputs of `features` numbers and targets of `classes` classes.
    ///
    /// # Panics
    /// When the sizes overflow.
    #[must_use]
    pub fn new(features: usize, classes: usize) -> Self {
        let layout = Layout::new([
            ("dense.weight".to_owned(), vec![features, classes]),
            ("dense.bias".to_owned(), vec![classes]),
        ]);
        Self {
            layout: Arc::new(layout.expect("small sizes")),
            features,
            classes,
        }
    }

    fn fits(&self, data: &dyn Examples) -> Result<(), TrainError> {
        let input = InputSpec::Real(vec![self.features]);
        let target = TargetSpec::Class {
            classes: self.classes,
        };
        if *data.input() == input && data.target() == target {
            return Ok(());
        }
        Err(TrainError::DataMismatch {
            expected: format!("{input:?} and {target:?}"),
            found: format!("{:?} and {:?}", data.input(), data.target()),
        })
    }

    /// Loss, and the gradient by the logits, of one example: `softmax - onehot`.
    fn example(&self, model: &[f64], input: &[f32], label: usize) -> (f64, Vec<f64>) {
        let (weight, bias) = model.split_at(self.features * self.classes);
        let mut logits = bias.to_vec();
        for (row, &x) in weight.chunks(self.classes).zip(input) {
            for (logit, w) in logits.iter_mut().zip(row) {
                *logit += w * f64::from(x);
            }
        }
        let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.iter().map(|z| libm::exp(z - largest)).sum();
        let loss = largest + libm::log(sum) - logits[label];
        let mut gradient: Vec<f64> = logits
            .iter()
            .map(|z| libm::exp(z - largest) / sum)
            .collect();
        gradient[label] -= 1.0;
        (loss, gradient)
    }

    fn train(
        &self,
        global: &Parameters,
        task: &mut FitTask<'_>,
    ) -> Result<LocalResult, TrainError> {
        let LocalPlan { work, batch, .. } = *task.plan;
        let supported = task.plan.optimizer == Optimizer::SGD;
        if !supported || task.plan.max_gradient_norm.is_some() {
            return Err(TrainError::Unsupported {
                what: "anything but plain SGD".into(),
                instead: "use another trainer".into(),
            });
        }
        if global.values().len() != self.layout.len() {
            return Err(TrainError::ParameterMismatch {
                expected: self.layout.len(),
                found: global.values().len(),
            });
        }
        self.fits(task.data)?;
        let examples = task.data.len();
        if examples == 0 {
            return Err(TrainError::NoExamples(task.client));
        }
        let start: Vec<f64> = global.values().iter().map(|&w| f64::from(w)).collect();
        let mut model = start.clone();
        let limit = |planned: u32| match task.limit {
            WorkLimit::Full => u64::from(planned),
            WorkLimit::AtMost(most) => u64::from(planned.min(most.get())),
        };
        let (epochs, most_steps) = match work {
            LocalWork::Epochs(epochs) => (limit(epochs.get()), u64::MAX),
            LocalWork::Steps(steps) => (u64::MAX, limit(steps.get())),
        };
        if let Some(privacy) = task.plan.privacy {
            return self.train_privately(&start, task, privacy);
        }
        let size = batch.examples(examples as u64) as usize;
        let mut result = LocalResult {
            examples: (examples as u64).into(),
            ..LocalResult::default()
        };
        let mut loss_sum = 0.0;
        let mut rows = vec![0; examples];
        'work: for _ in 0..epochs {
            task.plan.order.pass(&mut rows, &mut task.stream);
            for batch in rows.chunks(size) {
                if result.steps == most_steps {
                    break 'work;
                }
                let rate = task.plan.learning_rate.rate(task.round, result.steps);
                let (loss, gradient) = self.gradient(&model, task.data, batch);
                loss_sum += loss;
                let mu = f64::from(task.plan.proximal_mu);
                for ((w, g), w0) in model.iter_mut().zip(gradient).zip(&start) {
                    *w -= f64::from(rate) * (g + mu * (*w - w0));
                }
                result.steps += 1;
                result.examples_processed += batch.len() as u64;
            }
        }
        for ((update, w), w0) in task.update.iter_mut().zip(model).zip(start) {
            *update = (w - w0) as f32;
        }
        result.mean_loss = loss_sum / result.examples_processed as f64;
        Ok(result)
    }

    /// Abadi et al. 2016 (arXiv:1607.00133), algorithm 1.
    fn train_privately(
        &self,
        start: &[f64],
        task: &mut FitTask<'_>,
        privacy: ExamplePrivacy,
    ) -> Result<LocalResult, TrainError> {
        let ExamplePrivacy {
            clipping,
            max_norm,
            noise_multiplier,
        } = privacy;
        if clipping != ExampleClipping::Flat {
            return Err(TrainError::Unsupported {
                what: "clipping other than flat".into(),
                instead: "use another trainer".into(),
            });
        }
        let examples = task.data.len() as u64;
        let rate = task.plan.batch.sampling_rate(examples);
        let expected = rate * examples as f64;
        let mut sampling = task.stream.beside(Purpose::ExampleSampling);
        let mut noise = task.stream.beside(Purpose::LocalNoise);
        let mut model = start.to_vec();
        let mut result = LocalResult {
            examples: examples.into(),
            ..LocalResult::default()
        };
        let mut loss_sum = 0.0;
        for step in 0..task.plan.steps(examples, task.limit) {
            let mut sum = vec![0.0; model.len()];
            let mut rows = Vec::new();
            sampling.sample(examples, rate, |row| rows.push(row as u32));
            for &row in &rows {
                let (loss, gradient) = self.gradient(&model, task.data, &[row]);
                loss_sum += loss;
                let norm = libm::sqrt(gradient.iter().map(|g| g * g).sum());
                result.examples_clipped += u64::from(norm > max_norm);
                let factor = if norm > max_norm {
                    max_norm / norm
                } else {
                    1.0
                };
                for (sum, g) in sum.iter_mut().zip(gradient) {
                    *sum += factor * g;
                }
            }
            let learning_rate = f64::from(task.plan.learning_rate.rate(task.round, step));
            let mu = f64::from(task.plan.proximal_mu);
            for ((w, sum), w0) in model.iter_mut().zip(sum).zip(start) {
                let noised = sum + noise_multiplier * max_norm * noise.normal();
                *w -= learning_rate * (noised / expected + mu * (*w - w0));
            }
            result.steps += 1;
            result.examples_processed += rows.len() as u64;
        }
        for ((update, w), w0) in task.update.iter_mut().zip(model).zip(start) {
            *update = (w - w0) as f32;
        }
        if result.examples_processed > 0 {
            result.mean_loss = loss_sum / result.examples_processed as f64;
        }
        Ok(result)
    }

    /// Summed loss and mean gradient of a batch.
    fn gradient(&self, model: &[f64], data: &dyn Examples, rows: &[u32]) -> (f64, Vec<f64>) {
        let mut inputs = vec![0.0; rows.len() * self.features];
        let mut labels = vec![0; rows.len()];
        data.fill(
            rows,
            InputsMut::Real(&mut inputs),
            TargetsMut::Classes(&mut labels),
        );
        let mut loss_sum = 0.0;
        let mut gradient = vec![0.0; model.len()];
        let (weight, bias) = gradient.split_at_mut(self.features * self.classes);
        let share = 1.0 / rows.len() as f64;
        for (input, &label) in inputs.chunks(self.features).zip(&labels) {
            let (loss, by_logits) = self.example(model, input, label as usize);
            loss_sum += loss;
            for (row, &x) in weight.chunks_mut(self.classes).zip(input) {
                for (g, d) in row.iter_mut().zip(&by_logits) {
                    *g += share * d * f64::from(x);
                }
            }
            for (g, d) in bias.iter_mut().zip(&by_logits) {
                *g += share * d;
            }
        }
        (loss_sum, gradient)
    }
}

impl Trainer for SoftmaxTrainer {
    fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    fn fit(
        &mut self,
        global: &Parameters,
        tasks: &mut [FitTask<'_>],
        results: &mut [LocalResult],
    ) -> Result<(), TrainError> {
        for (task, result) in tasks.iter_mut().zip(results) {
            *result = self.train(global, task)?;
        }
        Ok(())
    }

    fn evaluate(
        &mut self,
        parameters: &[f32],
        data: &dyn Examples,
        rows: core::ops::Range<usize>,
    ) -> Result<Evaluation, TrainError> {
        self.fits(data)?;
        if parameters.len() != self.layout.len() {
            return Err(TrainError::ParameterMismatch {
                expected: self.layout.len(),
                found: parameters.len(),
            });
        }
        let model: Vec<f64> = parameters.iter().map(|&w| f64::from(w)).collect();
        let mut evaluation = Evaluation::default();
        let mut input = vec![0.0; self.features];
        for row in rows {
            let mut label = [0];
            data.fill(
                &[row as u32],
                InputsMut::Real(&mut input),
                TargetsMut::Classes(&mut label),
            );
            let (loss, gradient) = self.example(&model, &input, label[0] as usize);
            let right = 1.0 + gradient[label[0] as usize];
            let others = gradient.iter().enumerate();
            let best = others
                .filter(|(class, _)| *class != label[0] as usize)
                .all(|(_, &share)| share < right);
            evaluation.examples += 1;
            evaluation.loss_sum += loss;
            evaluation.correct += u64::from(best);
        }
        Ok(evaluation)
    }
}
