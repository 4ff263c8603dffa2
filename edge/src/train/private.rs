//! Training a client whose examples are protected: differentially private SGD on batches drawn by
//! Poisson sampling, as [`fl_core::ExamplePrivacy`] describes it.

use alloc::borrow::ToOwned as _;
use alloc::format;

use fl_core::{
    ExampleClipping, ExampleCount, ExamplePrivacy, FitTask, LocalResult, Precision, Purpose,
    TrainError,
};

use super::EdgeTrainer;
use crate::session::{Clipping, DpSgd, GaussianNoise, PerExampleError, Step};

impl EdgeTrainer {
    /// Trains one client, that has been checked; its update goes into the task.
    pub(super) fn fit_privately(
        &mut self,
        parameters: &[f32],
        task: &mut FitTask<'_>,
        privacy: &ExamplePrivacy,
    ) -> Result<LocalResult, TrainError> {
        let plan = task.plan;
        if plan.precision != Precision::F32 {
            return Err(TrainError::Unsupported {
                what: "quantization-aware training that protects single examples".to_owned(),
                instead: "the ranges that it observes would be released without noise; choose \
                          precision = \"f32\", or protect clients"
                    .to_owned(),
            });
        }
        let examples = task.data.len() as u64;
        let rate = plan.batch.sampling_rate(examples);
        let expected = rate * examples as f64;
        let private = DpSgd::new(
            clipping(privacy.clipping),
            privacy.max_norm,
            privacy.noise_multiplier,
            expected,
        )
        .map_err(|error| TrainError::Unsupported {
            what: format!("such a private step: {error}"),
            instead: "change the plan's privacy or batch".to_owned(),
        })?;
        let likely = likely_rows(expected, examples);
        self.rows.clear();
        self.rows.reserve(likely);
        self.session
            .start_privately(parameters, &plan.optimizer, likely)
            .map_err(|error| self.not_private(error, task))?;
        let mut sampling = task.stream.beside(Purpose::ExampleSampling);
        let mut draws = task.stream.beside(Purpose::LocalNoise);
        let mut noise = GaussianNoise::with_kernels(&mut draws, self.kernels);
        let mut result = LocalResult {
            examples: ExampleCount(examples),
            ..LocalResult::default()
        };
        let mut loss = 0.0;
        for number in 0..plan.steps(examples, task.limit) {
            self.rows.clear();
            let rows = &mut self.rows;
            sampling.sample(examples, rate, |row| rows.push(row as u32));
            let step = Step {
                optimizer: plan.optimizer,
                rate: plan.learning_rate.rate(task.round, number),
                number,
                max_norm: plan.max_gradient_norm,
                proximal_mu: plan.proximal_mu,
                anchor: parameters,
            };
            let clipped = self
                .session
                .private_step(
                    task.data,
                    &self.rows,
                    &private,
                    &step,
                    &mut task.stream,
                    &mut |scale, values| noise.add(scale, values),
                )
                .map_err(|error| self.not_private(error, task))?;
            loss += clipped.loss;
            result.steps += 1;
            result.examples_processed += self.rows.len() as u64;
            result.examples_clipped += clipped.clipped as u64;
        }
        if result.examples_processed > 0 {
            result.mean_loss = loss / result.examples_processed as f64;
        }
        let local = self.session.weights();
        self.kernels.difference(local, parameters, task.update);
        Ok(result)
    }

    fn not_private(&self, error: PerExampleError, task: &FitTask<'_>) -> TrainError {
        match error {
            PerExampleError::BadExample(bad) => self.bad_example(bad, task.client),
            other => TrainError::Unsupported {
                what: format!("protecting single examples of this model: {other}"),
                instead: "or protect clients".to_owned(),
            },
        }
    }
}

fn clipping(clipping: ExampleClipping) -> Clipping {
    match clipping {
        ExampleClipping::Flat => Clipping::Flat,
        ExampleClipping::PerLayer => Clipping::PerLayer,
        ExampleClipping::Automatic { stability } => Clipping::Automatic {
            stability: stability as f32,
        },
    }
}

/// More examples than a sampled batch has but once in some 1e14: the mean and eight standard
/// deviations. A larger batch is trained just the same, but makes room first.
fn likely_rows(expected: f64, examples: u64) -> usize {
    let most = expected + 8.0 * libm::sqrt(expected) + 16.0;
    (most as u64).min(examples) as usize
}
