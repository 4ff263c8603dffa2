//! A model that is trained, quantized, written and read again.

use std::num::NonZeroU32;
use std::sync::Arc;

use fl_core::{
    BatchSize, ClientId, ExampleOrder, FitTask, InputSpec, LearningRate, LocalPlan, LocalResult,
    LocalWork, Optimizer, Parameters, Precision, Purpose, RoundId, Schedule, ScheduleUnit, Seed,
    Stream, TargetSpec, Trainer as _, WorkLimit,
};
use fl_edge::quant::{Calibration, Code4, FourBits, Granularity, Quantization, Samples, Weights4};
use fl_edge::{EdgeTrainer, Model, ModelDef, Numerics, Passes, Program};
use fl_onnx::{ExportOptions, Imported, Limits, export, import};
use serde::Deserialize;

use crate::images::Images;
use crate::{Outcome, outputs};

/// The numbers that a model is served or written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Numbers {
    F32,
    F16,
    Int8Tensor,
    Int8Channel,
    Int4,
    Uint4,
}

pub(crate) struct Subject {
    model: Arc<Model>,
    parameters: Parameters,
    quantization: Option<Quantization>,
}

fn stream(round: u64) -> Stream {
    Stream::at(Purpose::Testing, Seed(1), RoundId(round), ClientId(0))
}

impl Subject {
    pub(crate) fn new(definition: &str, shape: Vec<usize>, classes: usize) -> Outcome<Self> {
        let def: ModelDef = toml::from_str(definition)?;
        let target = TargetSpec::Class { classes };
        let model = Arc::new(Model::new(&def, &InputSpec::Real(shape), target)?);
        Ok(Self {
            parameters: model.init(&mut stream(0)),
            model,
            quantization: None,
        })
    }

    pub(crate) fn model(&self) -> &Arc<Model> {
        &self.model
    }

    pub(crate) fn parameters(&self) -> usize {
        self.model.parameters()
    }

    pub(crate) fn input_len(&self) -> usize {
        self.model.input().len()
    }

    pub(crate) fn classes(&self) -> usize {
        match self.model.target() {
            TargetSpec::Class { classes } | TargetSpec::Sequence { classes, .. } => classes,
            TargetSpec::Real { width } => width,
        }
    }

    /// The mean loss over all steps.
    pub(crate) fn train(
        &mut self,
        data: &Images,
        steps: u32,
        batch: u32,
        rate: f32,
    ) -> Outcome<f64> {
        let positive = |number| NonZeroU32::new(number).ok_or("a number of 0 steps or examples");
        let steps = positive(steps)?;
        let plan = LocalPlan {
            work: LocalWork::Steps(steps),
            batch: BatchSize::Examples(positive(batch)?),
            order: ExampleOrder::Shuffled,
            optimizer: Optimizer::Sgd {
                momentum: 0.9,
                nesterov: false,
                weight_decay: 0.0,
            },
            learning_rate: LearningRate {
                base: rate,
                schedule: Schedule::Cosine {
                    minimum: 0.0,
                    length: steps,
                },
                unit: ScheduleUnit::Step,
            },
            max_gradient_norm: Some(5.0),
            proximal_mu: 0.0,
            precision: Precision::F32,
            privacy: None,
        };
        let mut update = vec![0.0; self.parameters()];
        let mut results = [LocalResult::default()];
        let task = FitTask {
            client: ClientId(0),
            round: RoundId(0),
            data,
            plan: &plan,
            limit: WorkLimit::Full,
            stream: stream(1),
            update: &mut update,
        };
        let mut trainer = EdgeTrainer::new(Arc::clone(&self.model));
        trainer.fit(&self.parameters, &mut [task], &mut results)?;
        let local = self.parameters.values().iter().zip(&update);
        let local = local.map(|(global, update)| global + update).collect();
        self.parameters = Parameters::new(Arc::clone(self.model.layout()), local)?;
        let loss = results[0].mean_loss;
        match loss.is_finite() {
            true => Ok(loss),
            false => Err("the training diverged; lower its rate".into()),
        }
    }

    /// Ranges by minimum and maximum; how many values have one.
    pub(crate) fn calibrate(&mut self, data: &Images) -> Outcome<usize> {
        let found = Samples::all(&self.model, data)?.calibrate(
            &self.model,
            self.parameters.values(),
            Calibration::MinMax,
            Granularity::Channel,
        )?;
        Ok(self.quantization.insert(found).points.len())
    }

    fn quantization(&self, granularity: Granularity) -> Outcome<Quantization> {
        let found = self.quantization.clone().ok_or("not calibrated yet")?;
        Ok(Quantization {
            granularity,
            ..found
        })
    }

    fn numerics(&self, numbers: Numbers) -> Outcome<Numerics> {
        Ok(match numbers {
            Numbers::F32 => Numerics::F32,
            Numbers::F16 => Numerics::F16,
            Numbers::Int8Tensor => Numerics::Int8(self.quantization(Granularity::Tensor)?),
            Numbers::Int8Channel => Numerics::Int8(self.quantization(Granularity::Channel)?),
            Numbers::Int4 => Numerics::Int4(FourBits::new(Code4::Int4, 32)?),
            Numbers::Uint4 => Numerics::Int4(FourBits::new(Code4::Uint4, 64)?),
        })
    }

    pub(crate) fn program(&self, numbers: Numbers) -> Outcome<Program> {
        let numerics = self.numerics(numbers)?;
        let parameters = self.parameters.values();
        Ok(Program::compile(
            &self.model,
            parameters,
            &numerics,
            Passes::ALL,
        )?)
    }

    pub(crate) fn export(&self, numbers: Numbers, opset: i64, fold: bool) -> Outcome<Vec<u8>> {
        let numerics = self.numerics(numbers)?;
        let parameters = self.parameters.values();
        written(&self.model, parameters, numbers, &numerics, opset, fold)
    }

    /// Reads `bytes`, which [`export`](Self::export) wrote without folding, and compares: the
    /// parameters by name, shape and bits, the scales, what is computed, and the file that is
    /// written from what was read. Each difference is a line.
    pub(crate) fn round_trip(
        &self,
        numbers: Numbers,
        opset: i64,
        bytes: &[u8],
        inputs: &[f32],
    ) -> Outcome<Vec<String>> {
        let mut faults = Vec::new();
        let Imported {
            model,
            parameters,
            quantization,
            ..
        } = import(bytes, &Limits::default())?;
        let numerics = self.numerics(numbers)?;
        match (&numerics, &quantization) {
            (Numerics::Int8(ours), Some(read)) => faults.extend(points(ours, read)),
            (Numerics::Int8(_), None) => faults.push("no scale was read".to_owned()),
            (_, Some(_)) => faults.push("scales were read from a file without any".to_owned()),
            // Weights of integers are read as multiples of their scales, and without the batch
            // normalisations that are folded into them: what is computed says whether they are
            // the same.
            (_, None) => faults.extend(self.tensors(numbers, &model, &parameters)),
        }
        let model = Arc::new(model);
        // A file in f16 is read as its numbers, in f32.
        let again = match (&numerics, quantization) {
            (Numerics::Int8(_), Some(read)) => Numerics::Int8(read),
            (other, _) => other.clone(),
        };
        let program = Program::compile(&model, &parameters, &again, Passes::ALL)?;
        let stored: Vec<f32> = (self.parameters.values().iter())
            .map(|&x| stored(numbers, x))
            .collect();
        let ours = Program::compile(&self.model, &stored, &numerics, Passes::ALL)?;
        let differ = outputs(ours, inputs)
            .iter()
            .zip(&outputs(program, inputs))
            .filter(|(a, b)| a.to_bits() != b.to_bits())
            .count();
        if differ > 0 {
            faults.push(format!("{differ} outputs differ"));
        }
        let second = written(&model, &parameters, numbers, &again, opset, false)?;
        // In integers layers are folded and dropout is left out; then names change once.
        let same = match again {
            Numerics::Int8(_) => rewritten(&second, numbers, opset)? == second,
            _ => second == bytes,
        };
        if !same {
            faults.push("what was read is written as another file".to_owned());
        }
        Ok(faults)
    }

    /// Whether the read parameters are the written ones, those of an `f16` file rounded.
    fn tensors(&self, numbers: Numbers, model: &Model, read: &[f32]) -> Vec<String> {
        let (ours, theirs) = (self.model.layout().tensors(), model.layout().tensors());
        if ours.len() != theirs.len() {
            return vec![format!(
                "{} tensors were read of {}",
                theirs.len(),
                ours.len()
            )];
        }
        let mut faults = Vec::new();
        for (our, their) in ours.iter().zip(theirs) {
            if (&our.name, &our.shape) != (&their.name, &their.shape) {
                faults.push(format!(
                    "`{}` {:?} was read as `{}` {:?}",
                    our.name, our.shape, their.name, their.shape
                ));
                continue;
            }
            let values = &self.parameters.values()[our.range()];
            let pairs = values.iter().zip(&read[their.range()]);
            let differ = pairs
                .filter(|&(&a, b)| stored(numbers, a).to_bits() != b.to_bits())
                .count();
            if differ > 0 {
                faults.push(format!("{differ} numbers of `{}` differ", our.name));
            }
        }
        faults
    }
}

/// A parameter as a file in these numbers holds it.
fn stored(numbers: Numbers, x: f32) -> f32 {
    match numbers {
        Numbers::F16 => half::f16::from_f32(x).to_f32(),
        _ => x,
    }
}

fn written(
    model: &Model,
    parameters: &[f32],
    numbers: Numbers,
    numerics: &Numerics,
    opset: i64,
    fold: bool,
) -> Outcome<Vec<u8>> {
    let four;
    let options = ExportOptions {
        opset,
        numbers: match (numbers, numerics) {
            (_, Numerics::Int4(format)) => {
                four = Weights4 {
                    format: format.clone(),
                    ..Weights4::default()
                };
                fl_onnx::Numbers::Int4(&four)
            }
            (_, Numerics::Int8(quantization)) => fl_onnx::Numbers::Int8(quantization),
            (Numbers::F16, _) => fl_onnx::Numbers::F16,
            _ => fl_onnx::Numbers::F32,
        },
        fold_batch_norm: fold,
    };
    Ok(export(model, parameters, &options)?)
}

/// The file that is written from what is read of an integer file.
fn rewritten(bytes: &[u8], numbers: Numbers, opset: i64) -> Outcome<Vec<u8>> {
    let read = import(bytes, &Limits::default())?;
    let quantization = read.quantization.ok_or("no scale was read")?;
    let numerics = Numerics::Int8(quantization);
    written(
        &read.model,
        &read.parameters,
        numbers,
        &numerics,
        opset,
        false,
    )
}

/// Scales that were read and are not the written ones.
fn points(ours: &Quantization, read: &Quantization) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, point) in &read.points {
        // A value whose normalisation is folded is read under its product's name.
        let right = match ours.points.get(name) {
            Some(our) => our == point,
            None => ours.points.values().any(|our| our == point),
        };
        if !right {
            let found = ours.points.get(name);
            faults.push(format!("`{name}` was {found:?} and is read as {point:?}"));
        }
    }
    if !read.float_units.is_empty() {
        let names: Vec<_> = read.float_units.keys().collect();
        faults.push(format!("{names:?} are read as floats"));
    }
    faults
}
