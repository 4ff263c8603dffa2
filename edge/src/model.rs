//! A model: what it computes and what parameters it has.

use alloc::format;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use fl_core::{InputSpec, Layout, Parameters, ParametersError, Stream, TargetSpec};

use crate::distill::{DistillError, DistillOptions, Distillation, Teacher, Teaching};
use crate::error::EdgeError;
use crate::graph::{self, Graph, LayerSummary, Op, Start};
use crate::plan::{Memory, Mode};
use crate::program::StepMemory;
use crate::qat::{self, QatOptions};
use crate::quant::{self, Quantization};
use crate::session::most_rows;
use crate::zoo::{Loss, ModelDef};

/// A checked model definition with its shapes and its parameters' layout.
#[derive(Debug)]
pub struct Model {
    definition: ModelDef,
    pub(crate) graph: Graph,
    layout: Arc<Layout>,
    starts: Vec<Start>,
    summary: Vec<LayerSummary>,
    /// The parts of the flat vector that an optimizer moves, ascending and apart.
    trained: Vec<Range<usize>>,
    /// How it is trained for quantization, where it is.
    qat: Option<QatOptions>,
    /// Who teaches it, where somebody does.
    distillation: Option<Distillation>,
}

impl Model {
    /// The model of `def` for such examples.
    ///
    /// # Errors
    /// [`EdgeError`] names the layer that does not fit and what to do.
    pub fn new(def: &ModelDef, input: &InputSpec, target: TargetSpec) -> Result<Self, EdgeError> {
        let (graph, tensors, summary) = graph::build(def, input, target)?;
        let starts = tensors.iter().map(|tensor| tensor.start).collect();
        let layout = Layout::new(
            tensors
                .into_iter()
                .map(|tensor| (tensor.name, tensor.shape)),
        )?;
        let mut trained = Vec::<Range<usize>>::new();
        for (id, tensor) in layout.tensors().iter().enumerate() {
            let range = tensor.range();
            match trained.last_mut() {
                _ if graph.is_statistic(id) => {}
                Some(last) if last.end == range.start => last.end = range.end,
                _ => trained.push(range),
            }
        }
        Ok(Self {
            qat: None,
            distillation: None,
            trained,
            definition: def.clone(),
            graph,
            layout: Arc::new(layout),
            starts,
            summary,
        })
    }

    /// The definition that it was made from.
    #[must_use]
    pub fn definition(&self) -> &ModelDef {
        &self.definition
    }

    /// The same model with a tensor `POINT.range` for every [point](crate::quant), to be trained
    /// for [quantization](crate::qat). They come last in the layout and start as `[0, 0]`, not
    /// observed.
    ///
    /// # Errors
    /// [`EdgeError::QatLayer`] or [`EdgeError::QatSequence`] when a layer cannot be trained for
    /// quantization,
    /// [`EdgeError::QatMomentum`] when the options are out of range, [`EdgeError::Parameters`]
    /// when a tensor of the model has the name of a range.
    pub fn with_ranges(mut self, options: QatOptions) -> Result<Self, EdgeError> {
        if let Some((layer, kind)) = qat::sequential(&self.graph) {
            return Err(EdgeError::QatSequence { layer, kind });
        }
        if let Some(layer) = qat::unsupported(&self.graph) {
            return Err(EdgeError::QatLayer { layer });
        }
        if !(options.momentum > 0.0 && options.momentum <= 1.0) {
            return Err(EdgeError::QatMomentum {
                momentum: options.momentum,
            });
        }
        if self.qat.replace(options).is_some() {
            return Ok(self);
        }
        if let Some(distillation) = &self.distillation {
            distillation.check_units(&self.graph)?;
        }
        let points = qat::points(&self.graph);
        let tensors = self.layout.tensors().iter();
        let tensors = tensors.map(|tensor| (tensor.name.clone(), tensor.shape.clone()));
        let ranges = points.iter().map(|&value| {
            let name = &self.graph.values[value].name;
            (format!("{name}.range"), vec![2])
        });
        self.layout = Arc::new(Layout::new(tensors.chain(ranges))?);
        self.starts
            .extend(points.iter().map(|_| Start::Constant(0.0)));
        if options.learn_scales {
            let start = self.range_of(0).start;
            self.trained.push(start..self.layout.len());
        }
        Ok(self)
    }

    /// The same model, [taught](crate::distill) by another: sessions and trainers of it minimise the
    /// distillation's loss. Projections of features, where there are some, are tensors behind its
    /// own; [`Self::student`] takes them away. Evaluation is that of the student alone.
    ///
    /// # Errors
    /// [`DistillError`] when teacher and student do not go together, or options are out of range.
    pub fn with_teacher(
        mut self,
        teacher: Teacher,
        options: DistillOptions,
    ) -> Result<Self, DistillError> {
        if self.qat.is_some() {
            return Err(DistillError::Ranges);
        }
        if self.distillation.is_some() {
            self = self.alone()?;
        }
        let (distillation, projections) =
            Distillation::fit(&self.graph, &self.layout, teacher, options)?;
        let tensors = self.layout.tensors().iter();
        let tensors = tensors.map(|tensor| (tensor.name.clone(), tensor.shape.clone()));
        let start = self.layout.len();
        let added = projections
            .iter()
            .map(|it| (it.name.clone(), it.shape.clone()));
        self.layout = Arc::new(Layout::new(tensors.chain(added))?);
        self.starts.extend(projections.iter().map(|it| it.start));
        if start < self.layout.len() {
            self.trained.push(start..self.layout.len());
        }
        self.distillation = Some(distillation);
        Ok(self)
    }

    /// Who teaches the model, and what; none unless it is [taught](Self::with_teacher).
    #[must_use]
    pub fn teacher(&self) -> Option<(&Teacher, &DistillOptions)> {
        let distillation = self.distillation.as_ref()?;
        Some((&distillation.teacher, &distillation.options))
    }

    /// Numbers of the layout without the projections of a [distillation](crate::distill): those of
    /// the [student](Self::student).
    #[must_use]
    pub fn student_parameters(&self) -> usize {
        let taught = self.distillation.as_ref();
        self.layout.len() - taught.map_or(0, Distillation::projections_len)
    }

    pub(crate) fn distillation(&self) -> Option<&Distillation> {
        self.distillation.as_ref()
    }

    /// The model without its teacher.
    fn alone(&self) -> Result<Self, EdgeError> {
        let model = Self::new(&self.definition, self.input(), self.target())?;
        match self.qat {
            Some(options) => model.with_ranges(options),
            None => Ok(model),
        }
    }

    /// What is left when the lessons are over: the model without its teacher, and its parameters
    /// without projections. Of a model that is not taught, the same again.
    ///
    /// # Errors
    /// [`EdgeError::Parameters`] when the parameters are another model's.
    pub fn student(&self, parameters: &Parameters) -> Result<(Self, Parameters), EdgeError> {
        let student = self.alone()?;
        let mut left = Parameters::zeros(Arc::clone(student.layout()));
        let from = parameters.layout();
        for tensor in student.layout().tensors() {
            let found = from.tensor(&tensor.name);
            let Some(found) = found.filter(|found| found.shape == tensor.shape) else {
                return Err(EdgeError::Parameters(ParametersError::WrongLength {
                    expected: self.parameters(),
                    given: from.len(),
                }));
            };
            left.values_mut()[tensor.range()].copy_from_slice(&parameters.values()[found.range()]);
        }
        Ok((student, left))
    }

    /// How the model is trained for quantization; none unless it is
    /// [with ranges](Self::with_ranges).
    #[must_use]
    pub fn qat_options(&self) -> Option<&QatOptions> {
        self.qat.as_ref()
    }

    /// Where the range of a point lies, by its number.
    pub(crate) fn range_of(&self, point: usize) -> Range<usize> {
        let points = qat::points(&self.graph).len();
        let tensors = self.layout.tensors();
        tensors[tensors.len() - points + point].range()
    }

    /// The scales of all points by the ranges in `parameters`: what serves the model in integers.
    /// None when the model is not [with ranges](Self::with_ranges), or none of them was observed
    /// yet.
    ///
    /// # Panics
    /// When `parameters` is not one value per parameter.
    #[must_use]
    pub fn quantization(&self, parameters: &[f32]) -> Option<Quantization> {
        assert_eq!(
            parameters.len(),
            self.parameters(),
            "one value per parameter"
        );
        let options = self.qat?;
        let points = qat::points(&self.graph);
        let ranges = points.iter().enumerate().map(|(index, &value)| {
            let at = self.range_of(index).start;
            let range = quant::Range {
                min: parameters[at],
                max: parameters[at + 1],
            };
            (self.graph.values[value].name.as_str(), range)
        });
        let ranges = ranges.collect::<Vec<_>>();
        let observed = (ranges.iter()).any(|(_, range)| range.min != 0.0 || range.max != 0.0);
        observed.then(|| Quantization::from_ranges(ranges, options.granularity))
    }

    /// Names and shapes of the parameters.
    #[must_use]
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// Initial parameters, drawn from `stream` tensor by tensor in the layout's order, each in
    /// row-major order; constants draw nothing.
    #[must_use]
    pub fn init(&self, stream: &mut Stream) -> Parameters {
        let mut parameters = Parameters::zeros(Arc::clone(&self.layout));
        let values = parameters.values_mut();
        for (tensor, start) in self.layout.tensors().iter().zip(&self.starts) {
            let values = &mut values[tensor.range()];
            match *start {
                Start::Constant(value) => values.fill(value),
                Start::ForgetGate => {
                    let units = values.len() / 4;
                    values.fill(0.0);
                    values[2 * units..3 * units].fill(1.0);
                }
                Start::Uniform(limit) => {
                    for value in values {
                        *value = ((2.0 * stream.uniform() - 1.0) * limit) as f32;
                    }
                }
                Start::Normal(deviation) => {
                    for value in values {
                        *value = (stream.normal() * deviation) as f32;
                    }
                }
            }
        }
        parameters
    }

    /// Numbers of the layout: the parameters, and the running statistics of batch normalisation,
    /// which travel with them.
    #[must_use]
    pub fn parameters(&self) -> usize {
        self.layout.len()
    }

    /// Parameters that an optimizer moves: all but running statistics.
    #[must_use]
    pub fn trained_parameters(&self) -> usize {
        self.trained.iter().map(Range::len).sum()
    }

    /// The parts of the flat vector that an optimizer moves, ascending.
    pub(crate) fn trained(&self) -> &[Range<usize>] {
        &self.trained
    }

    /// Whether every example has a loss and a gradient of its own. Batch normalisation takes them
    /// away: there they depend on the other examples of the batch.
    #[must_use]
    pub fn has_single_examples(&self) -> bool {
        let mut nodes = self.graph.nodes.iter();
        !nodes.any(|node| matches!(node.op, Op::BatchNorm { .. }))
    }

    /// Multiply-accumulate operations of all products for one example, forward only. A training
    /// step does up to three times as many.
    #[must_use]
    pub fn macs_per_example(&self) -> u64 {
        self.summary.iter().map(|layer| layer.macs).sum()
    }

    /// Bytes that a session holds to evaluate, or to train with plain SGD, at a batch: the working
    /// parameters and the planned arena of activations, their gradients and scratch. A batch too
    /// large for that is worked through in parts (never with batch normalisation, whose memory
    /// grows with the batch), and its gradient is stored, like any of a model with normalisations
    /// or embeddings. Clipping stores the gradient too; momentum and Adam do,
    /// and add one and two times the parameters to it.
    #[must_use]
    pub fn peak_bytes(&self, batch: usize, training: bool) -> usize {
        let mode = match training {
            true => Mode::Training,
            false => Mode::Evaluation,
        };
        self.planned_bytes(batch, mode)
    }

    /// Bytes that a session holds for [`Session::clipped_gradient`](crate::Session) at a batch:
    /// parameters, gradient, norms, factors and the planned arena, in which the output gradients of
    /// operators with parameters, or what they give for each example, live until they are weighted.
    /// A [private step](crate::Session::private_step) holds the same, and the optimizer's state.
    #[must_use]
    pub fn peak_bytes_per_example(&self, batch: usize) -> usize {
        let tensors = self.layout.tensors().len();
        self.planned_bytes(batch, Mode::PerExample) + (8 * (tensors + 1) + 4) * batch
    }

    /// Bytes that a session holds for [quantization-aware training](crate::qat) at a batch, as
    /// [`Self::peak_bytes`] counts them: working parameters, arena, and the integers of every
    /// product, which are made anew in each step. None unless the model is [with
    /// ranges](Self::with_ranges).
    #[must_use]
    pub fn qat_peak_bytes(&self, batch: usize) -> Option<usize> {
        let options = self.qat?;
        let taught = self.distillation.as_ref();
        let taught = taught.map_or(0, |it| Teaching::planned_bytes(it, batch.max(1)));
        Some(qat::planned_bytes(self, options, batch) + taught)
    }

    fn planned_bytes(&self, batch: usize, mode: Mode) -> usize {
        let most = most_rows(&Memory::new(self, 1, mode), mode);
        let memory = Memory::new(self, batch.clamp(1, most), mode);
        let stored = match mode {
            Mode::Training => memory.stores_gradients || batch > most,
            Mode::Evaluation => false,
            Mode::PerExample => true,
        };
        let vectors = if stored { 2 } else { 1 };
        let taught = self
            .distillation
            .as_ref()
            .filter(|_| mode != Mode::Evaluation);
        let taught = taught.map_or(0, |it| Teaching::planned_bytes(it, memory.rows()));
        4 * (vectors * self.parameters() + memory.len()) + memory.bytes() + taught
    }

    /// The memory of a training step at a batch, operator by operator: forward, the loss,
    /// backward. Batches that are worked through in parts count with a part.
    #[must_use]
    pub fn training_memory(&self, batch: usize) -> Vec<StepMemory> {
        let mode = Mode::Training;
        let most = most_rows(&Memory::new(self, 1, mode), mode);
        let memory = Memory::new(self, batch.clamp(1, most), mode);
        let nodes = &self.graph.nodes;
        let step = |index: usize| {
            let (layer, operator) = match index {
                _ if index < nodes.len() => (nodes[index].output, "forward"),
                _ if index == nodes.len() => (self.graph.output, "loss"),
                _ => (nodes[2 * nodes.len() - index].output, "backward"),
            };
            StepMemory {
                layer: self.graph.values[layer].name.clone(),
                operator,
                live: 4 * memory.live(index + 1),
            }
        };
        (0..2 * nodes.len() + 1).map(step).collect()
    }

    /// The operators, to be read.
    #[must_use]
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The layers, for a table.
    #[must_use]
    pub fn summary(&self) -> &[LayerSummary] {
        &self.summary
    }

    /// What an example's input must be.
    #[must_use]
    pub fn input(&self) -> &InputSpec {
        &self.graph.input
    }

    /// What an example's target must be.
    #[must_use]
    pub fn target(&self) -> TargetSpec {
        self.graph.target
    }

    /// What the training minimises.
    #[must_use]
    pub fn loss(&self) -> Loss {
        self.graph.loss
    }
}
