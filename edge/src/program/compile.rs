//! From a graph to steps, constants and buffers.

mod few;
mod float;
mod integer;

#[cfg(feature = "std")]
pub(crate) use float::served_weight;

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::constants::{Constants, DType, Packing, Section, bytes_of};
use super::{Numerics, Passes, Program, ProgramError};
use crate::graph::{Graph, Op, Unit, ValueId, units};
use crate::kernel::Kernels;
use crate::kernel::int8::Affine;
use crate::model::Model;
use crate::plan::{Buffer, Kept};
use crate::quant::{Float, FourBits, QuantError, Quantization, Scope, Weights4};
use crate::runtime::{Constant, INPUT, SharedBytes, Slot, Step};
use alloc::sync::Arc;
use core::ops::Range;

/// Where a value lies, in each type in which it is at hand.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    /// As `f32`.
    real: Option<Slot>,
    /// As `u8`, and what they stand for.
    codes: Option<(Slot, Affine)>,
}

/// Walks the units and notes who touches which buffer when.
pub(super) struct Compiler<'a> {
    model: &'a Arc<Model>,
    graph: &'a Graph,
    passes: Passes,
    parameters: Option<&'a [f32]>,
    /// What is in integers.
    quantization: Option<&'a Quantization>,
    /// What the unit at hand stores its weights in when it computes in floats.
    float: Float,
    /// How weights of products are stored in four bits, if they are.
    format: Option<&'a FourBits>,
    /// The same for the unit at hand.
    four: Option<&'a FourBits>,
    /// Weights that were brought into four bits before.
    weights: Option<&'a Weights4>,
    steps: Vec<Step>,
    /// Of each step: its layer's name.
    names: Vec<String>,
    /// Of each step: the value that is complete after it, and where.
    complete: Vec<Option<(ValueId, Slot)>>,
    buffers: Vec<Buffer>,
    sections: Vec<Section>,
    parts: Vec<Vec<u8>>,
    /// Of each value: the value whose memory it shares.
    root: Vec<ValueId>,
    /// Of each root: where it lies, and how many units have yet to read it.
    held: Vec<Held>,
    unread: Vec<usize>,
    /// The layer being compiled.
    name: String,
    /// What no program can be made of.
    refused: Option<ProgramError>,
}

impl<'a> Compiler<'a> {
    /// For given parameters, or for constants that were made earlier.
    pub(super) fn new(
        model: &'a Arc<Model>,
        parameters: Option<&'a [f32]>,
        numerics: &'a Numerics,
        passes: Passes,
    ) -> Result<Self, ProgramError> {
        let graph = &model.graph;
        if let Some(parameters) = parameters {
            check(model, parameters)?;
        }
        let format = match numerics {
            Numerics::Int4(format) => Some(format),
            _ => None,
        };
        if let Some(format) = format {
            format.check()?;
        }
        let mut compiler = Self {
            model,
            graph,
            passes,
            parameters,
            quantization: match numerics {
                Numerics::Int8(quantization) => Some(quantization),
                _ => None,
            },
            float: match numerics {
                Numerics::F16 | Numerics::Int4(_) => Float::F16,
                _ => Float::F32,
            },
            format,
            four: format,
            weights: None,
            steps: Vec::new(),
            names: Vec::new(),
            complete: Vec::new(),
            buffers: Vec::new(),
            sections: Vec::new(),
            parts: Vec::new(),
            root: graph.values.iter().map(|value| value.root).collect(),
            held: vec![Held::default(); graph.values.len()],
            unread: vec![0; graph.values.len()],
            name: String::new(),
            refused: None,
        };
        let input = compiler.buffer(0, 0);
        compiler.held[0].real = Some(input);
        Ok(compiler)
    }

    /// With weights in four bits that were made before.
    ///
    /// # Errors
    /// [`QuantError::UnknownTensor`] for one of no product of the model.
    pub(super) fn with_weights(mut self, weights: &'a Weights4) -> Result<Self, ProgramError> {
        let tensors = self.model.layout();
        if let Some(name) = (weights.tensors.keys()).find(|name| tensors.tensor(name).is_none()) {
            return Err(QuantError::UnknownTensor { name: name.clone() }.into());
        }
        self.weights = Some(weights);
        Ok(self)
    }

    /// The program.
    pub(super) fn run(
        self,
        numerics: &Numerics,
        constants: Option<Constants>,
    ) -> Result<Program, ProgramError> {
        self.finish(numerics, |sections, parts| match constants {
            Some(constants) => Ok(constants.arranged(&sections)?.written_out()),
            None => Ok(Constants::joined(sections, &parts)?.written_out()),
        })
    }

    /// The program with constants that lie [one behind the other](crate::runtime::arrange).
    pub(super) fn over(
        self,
        numerics: &Numerics,
        bytes: SharedBytes,
        data: Range<usize>,
    ) -> Result<Program, ProgramError> {
        self.finish(numerics, |sections, _| {
            Ok(Constants::arranged_in(sections, bytes, data)?.written_out())
        })
    }

    /// The program with constants of nothing, which can only be looked at.
    pub(super) fn planned(self, numerics: &Numerics) -> Result<Program, ProgramError> {
        self.finish(numerics, |sections, _| Ok(Constants::planned(sections)))
    }

    fn finish(
        mut self,
        numerics: &Numerics,
        constants: impl FnOnce(Vec<Section>, Vec<Vec<u8>>) -> Result<Constants, ProgramError>,
    ) -> Result<Program, ProgramError> {
        let mut units = units(self.graph);
        self.check_names(&units)?;
        if self.passes.fold_constants {
            self.drop_identities(&mut units);
        }
        for unit in &units {
            for value in reads(self.graph, unit) {
                self.unread[self.root[value]] += 1;
            }
        }
        let output = self.root[self.graph.output];
        self.unread[output] += 1;
        for unit in &units {
            self.name.clone_from(&self.graph.values[unit.output].name);
            self.unit(unit)?;
            for value in reads(self.graph, unit) {
                self.unread[self.root[value]] -= 1;
            }
        }
        let output = self.real(output)?;
        if let Some(error) = self.refused {
            return Err(error);
        }
        self.steps.shrink_to_fit();
        self.names.shrink_to_fit();
        self.complete.shrink_to_fit();
        self.buffers.shrink_to_fit();
        let constants = constants(self.sections, self.parts)?;
        Ok(Program {
            model: Arc::clone(self.model),
            numerics: numerics.clone(),
            passes: self.passes,
            constants,
            steps: self.steps,
            names: self.names,
            complete: self.complete,
            buffers: self.buffers,
            output,
        })
    }

    /// What dropouts give is what they read.
    fn drop_identities(&mut self, units: &mut Vec<Unit>) {
        let graph = self.graph;
        units.retain(|unit| {
            let node = &graph.nodes[unit.node];
            let identity = matches!(node.op, Op::Dropout { .. });
            if identity {
                let from = self.root[node.input];
                let to = self.root[node.output];
                for root in &mut self.root {
                    if *root == to {
                        *root = from;
                    }
                }
            }
            !identity
        });
    }

    /// Every unit kept in floats must be one of the model's.
    fn check_names(&self, units: &[Unit]) -> Result<(), ProgramError> {
        let float_units = match (self.quantization, self.format) {
            (Some(quantization), _) => &quantization.float_units,
            (None, Some(format)) => &format.float_units,
            (None, None) => return Ok(()),
        };
        let name = |unit: &Unit| self.graph.values[unit.output].name.as_str();
        for asked in float_units.keys() {
            if !units.iter().any(|unit| name(unit) == asked) {
                return Err(ProgramError::UnknownUnit {
                    name: asked.clone(),
                    known: units.iter().map(name).collect::<Vec<_>>().join(", "),
                });
            }
        }
        Ok(())
    }

    fn unit(&mut self, unit: &Unit) -> Result<(), ProgramError> {
        let Some(quantization) = self.quantization else {
            if let Some(format) = self.format {
                let float = format.float_units.get(&self.name).copied();
                self.four = self.format.filter(|_| float.is_none());
                self.float = float.unwrap_or(Float::F16);
            }
            return self.real_unit(unit);
        };
        if let Some(&float) = quantization.float_units.get(&self.name) {
            self.float = float;
            return self.real_unit(unit);
        }
        self.float = Float::F32;
        let held = self.held[self.root[self.graph.nodes[unit.node].input]];
        // What has no scale of its own stays what it is.
        let stays = unit.passes_on(self.graph) && held.codes.is_none() && held.real != Some(INPUT);
        match stays {
            true => self.real_unit(unit),
            false => self.integer_unit(unit),
        }
    }

    fn len(&self, value: ValueId) -> usize {
        self.graph.values[value].len()
    }

    fn buffer(&mut self, row: usize, fixed: usize) -> Slot {
        let time = self.steps.len();
        self.buffers.push(Buffer {
            row,
            fixed,
            first: time,
            last: time,
            kept: Kept::No,
        });
        self.buffers.len() - 1
    }

    fn touch(&mut self, slot: Slot) -> Slot {
        self.buffers[slot].last = self.steps.len();
        slot
    }

    fn push(&mut self, step: Step) {
        self.steps.push(step);
        self.names.push(self.name.clone());
        self.complete.push(None);
    }

    /// Notes that the last step completed a value.
    fn completes(&mut self, value: ValueId, slot: Slot) {
        if let Some(complete) = self.complete.last_mut() {
            *complete = Some((value, slot));
        }
    }

    /// Whether the unit at hand is the last to read a value, of which it has `reads`.
    fn is_last_reader(&self, value: ValueId, reads: usize) -> bool {
        self.unread[self.root[value]] == reads
    }

    /// A constant; `bytes` makes it out of the parameters.
    fn constant(
        &mut self,
        name: String,
        dtype: DType,
        shape: Vec<usize>,
        packing: Packing,
        bytes: impl FnOnce(&[f32]) -> Vec<u8>,
    ) -> Constant {
        let section = Section {
            name,
            dtype,
            shape,
            packing,
            range: 0..0,
        };
        if let Some(parameters) = self.parameters {
            self.parts.push(bytes(parameters));
        }
        self.sections.push(section);
        self.sections.len() - 1
    }

    /// A bias, or what a normalisation has, of the unit at hand: in 32 bits, or in 16 that are written
    /// out again where weights are in few bits.
    fn small(
        &mut self,
        name: String,
        shape: Vec<usize>,
        values: impl FnOnce(&[f32]) -> Vec<f32>,
    ) -> Constant {
        if !self.few() {
            return self.constant(name, DType::F32, shape, Packing::Plain, |parameters| {
                bytes_of(&values(parameters))
            });
        }
        let tensor = name.clone();
        let mut beyond = None;
        let made = self.constant(name, DType::F16, shape, Packing::Widened, |parameters| {
            halves(&values(parameters), &mut beyond)
        });
        self.refuse_beyond(tensor, beyond);
        made
    }

    /// The same for a tensor of the layout.
    fn small_tensor(&mut self, tensor: usize) -> Constant {
        let tensor = &self.model.layout().tensors()[tensor];
        let (name, shape, range) = (tensor.name.clone(), tensor.shape.clone(), tensor.range());
        self.small(name, shape, |parameters| parameters[range].to_vec())
    }

    /// Whether the unit at hand has everything in few bits.
    fn few(&self) -> bool {
        self.four.is_some_and(|format| format.scope == Scope::All)
    }

    /// Notes a value that no 16-bit float holds.
    fn refuse_beyond(&mut self, tensor: String, beyond: Option<f32>) {
        if let Some(value) = beyond {
            self.refused = Some(ProgramError::BeyondHalf { tensor, value });
        }
    }

    /// A tensor of the layout as it is.
    fn tensor(&mut self, tensor: usize) -> Constant {
        let tensor = &self.model.layout().tensors()[tensor];
        let (name, shape, range) = (tensor.name.clone(), tensor.shape.clone(), tensor.range());
        self.constant(name, DType::F32, shape, Packing::Plain, |parameters| {
            bytes_of(&parameters[range])
        })
    }
}

/// The bytes of numbers rounded to 16 bits; `beyond` becomes one that is too large for them.
fn halves(values: &[f32], beyond: &mut Option<f32>) -> Vec<u8> {
    let mut halves = vec![0u16; values.len()];
    Kernels::best().narrow(values, &mut halves);
    let infinite = halves.iter().position(|&half| half & 0x7fff == 0x7c00);
    *beyond = infinite.map(|at| values[at]);
    bytes_of(&halves)
}

/// The values that a unit reads.
fn reads(graph: &Graph, unit: &Unit) -> impl Iterator<Item = ValueId> {
    let residual = unit.residual.as_ref().map(|residual| residual.other);
    graph.nodes[unit.node].inputs().chain(residual)
}

fn check(model: &Model, parameters: &[f32]) -> Result<(), ProgramError> {
    if parameters.len() != model.parameters() {
        return Err(ProgramError::Parameters {
            expected: model.parameters(),
            found: parameters.len(),
        });
    }
    for tensor in model.layout().tensors() {
        let bad = parameters[tensor.range()]
            .iter()
            .find(|value| !value.is_finite());
        if let Some(&value) = bad {
            return Err(ProgramError::NotFinite {
                tensor: tensor.name.clone(),
                value,
            });
        }
    }
    Ok(())
}

const _: () = assert!(INPUT == 0);
