//! Examples of the catalogue, as a model is calibrated and judged on.

use fl_core::{ClientId, Examples, InputSpec, InputsMut, Seed, TargetSpec, TargetsMut};
use fl_datasets::partition::Iid;
use fl_datasets::{ClientScratch, DataRoot, DatasetConfig, FederatedDataset, PartitionConfig};
use fl_edge::quant::{Calibration, Calibrator, Granularity, Quantization};
use fl_edge::{Inputs, Model, Passes, Program, Runner};
use std::sync::Arc;

use super::{ModelError, input_text, target_text};
use crate::error::Error;

/// Examples that a program works on at once.
const BATCH: usize = 32;

/// A data set that fits a model.
pub(super) struct Data {
    dataset: FederatedDataset,
}

/// Inputs of some examples, and the classes of as many.
struct Batch {
    reals: Vec<f32>,
    tokens: Vec<u32>,
    classes: Vec<u32>,
    numbers: Vec<f32>,
}

impl Batch {
    fn of(examples: &dyn Examples, rows: &[u32]) -> Self {
        let mut batch = Self {
            reals: Vec::new(),
            tokens: Vec::new(),
            classes: Vec::new(),
            numbers: Vec::new(),
        };
        let len = rows.len() * examples.input().len();
        let inputs = match examples.input() {
            InputSpec::Real(_) => {
                batch.reals.resize(len, 0.0);
                InputsMut::Real(&mut batch.reals)
            }
            InputSpec::Tokens { .. } => {
                batch.tokens.resize(len, 0);
                InputsMut::Tokens(&mut batch.tokens)
            }
        };
        let targets = match examples.target() {
            TargetSpec::Class { .. } => {
                batch.classes.resize(rows.len(), 0);
                TargetsMut::Classes(&mut batch.classes)
            }
            TargetSpec::Real { width } => {
                batch.numbers.resize(rows.len() * width, 0.0);
                TargetsMut::Real(&mut batch.numbers)
            }
        };
        examples.fill(rows, inputs, targets);
        batch
    }

    fn inputs(&self) -> Inputs<'_> {
        match self.tokens.is_empty() {
            true => Inputs::Real(&self.reals),
            false => Inputs::Tokens(&self.tokens),
        }
    }
}

impl Data {
    /// The data set called `name`, undivided.
    pub(super) fn load(name: &str, model: &Model) -> Result<Self, Error> {
        let root = DataRoot::from_env()?;
        // One client has all training examples; generated populations divide themselves.
        let config = DatasetConfig::new(name);
        let whole = PartitionConfig::Iid(Iid { clients: 1 });
        let one = config.clone().with_partition(whole);
        let dataset = fl_datasets::load(&one, &root, Seed(1))
            .or_else(|error| fl_datasets::load(&config, &root, Seed(1)).map_err(|_| error))?;
        if dataset.input() != model.input() || dataset.target() != model.target() {
            return Err(ModelError::Data {
                data: name.to_owned(),
                found: input_text(dataset.input()),
                found_target: target_text(dataset.target()),
                expected: input_text(model.input()),
                expected_target: target_text(model.target()),
            }
            .into());
        }
        Ok(Self { dataset })
    }

    /// Ranges of the activations on training examples spread evenly over the set, and how many
    /// examples those were.
    pub(super) fn calibrate(
        &self,
        model: &Arc<Model>,
        parameters: &[f32],
        calibration: Calibration,
        granularity: Granularity,
        samples: usize,
    ) -> Result<(Quantization, usize), ModelError> {
        let mut scratch = ClientScratch::default();
        let examples = self.dataset.train(ClientId(0), &mut scratch);
        let len = examples.len();
        let samples = samples.min(len);
        let rows: Vec<u32> = (0..samples)
            .map(|index| (index * len / samples) as u32)
            .collect();
        let program =
            Program::compile(model, parameters, &fl_edge::Numerics::F32, Passes::OBSERVED)?;
        let width = program.output_len();
        let mut runner = Runner::new(Arc::new(program), BATCH);
        let mut calibrator = Calibrator::new(calibration)?;
        loop {
            for rows in rows.chunks(BATCH) {
                let batch = Batch::of(&examples, rows);
                let mut refused = None;
                let mut outputs = vec![0.0; rows.len() * width];
                runner.run_observed(batch.inputs(), &mut outputs, &mut |point, values| {
                    if let Err(error) = calibrator.observe(point, values) {
                        refused.get_or_insert(error);
                    }
                });
                if let Some(error) = refused {
                    return Err(error.into());
                }
            }
            if !calibrator.next_pass() {
                break;
            }
        }
        let ranges = calibrator.ranges()?;
        let ranges = ranges.iter().map(|(point, range)| (point.as_str(), *range));
        Ok((Quantization::from_ranges(ranges, granularity), samples))
    }

    /// Share of the test set's examples that a program puts into their class; none without a test
    /// set or without classes.
    pub(super) fn accuracy(&self, program: Program) -> Option<f64> {
        let TargetSpec::Class { classes } = self.dataset.target() else {
            return None;
        };
        let test = self.dataset.test().filter(|test| !test.is_empty())?;
        let mut runner = Runner::new(Arc::new(program), BATCH);
        let rows: Vec<u32> = (0..test.len() as u32).collect();
        let mut right = 0usize;
        for rows in rows.chunks(BATCH) {
            let batch = Batch::of(test, rows);
            let mut outputs = vec![0.0; rows.len() * classes];
            runner.run(batch.inputs(), &mut outputs);
            for (logits, class) in outputs.chunks_exact(classes).zip(&batch.classes) {
                // The first of equal ones, as in training's evaluation.
                let mut best = 0;
                for (index, logit) in logits.iter().enumerate() {
                    if *logit > logits[best] {
                        best = index;
                    }
                }
                right += usize::from(best == *class as usize);
            }
        }
        Some(right as f64 / test.len() as f64)
    }
}
