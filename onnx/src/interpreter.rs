//! Runs a model, node by node.
//!
//! This is the readable, complete road: every operator on every type that the specification
//! gives it, in the order of the file, without fusion or planning. What is served fast is
//! imported into the edge runtime's own graph.
//!
//! # Numbers
//! Whole numbers are exact and wrap as the specification says. Products of `f32` are the edge
//! runtime's ([`fl_edge::kernel`]); elementary functions, reductions and normalisations are
//! computed in `f64` and rounded once. `f16` is computed in `f32` or wider and rounded. No number
//! depends on the machine or on threads.

mod compile;
mod control;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::{InputError, NodeError, OnnxError};
use crate::model::Limits;
use crate::ops::{self, Ctx};
use crate::proto::ModelProto;
use crate::tensor::Tensor;

pub(crate) use compile::{Attribute, Node};
use compile::{Block, Declared, Kind};

/// A model, checked and ready to run.
///
/// ```
/// use std::collections::BTreeMap;
/// use fl_onnx::proto::{GraphProto, ModelProto, NodeProto, OperatorSetId, ValueInfoProto, data_type};
/// use fl_onnx::{Interpreter, Limits, Tensor};
///
/// let value = |name| ValueInfoProto::tensor(name, data_type::FLOAT, &[Err("n")]);
/// let model = ModelProto {
///     ir_version: 8,
///     opset_import: vec![OperatorSetId { domain: String::new(), version: 17 }],
///     graph: Some(GraphProto {
///         node: vec![NodeProto {
///             op_type: "Relu".into(),
///             input: vec!["x".into()],
///             output: vec!["y".into()],
///             ..NodeProto::default()
///         }],
///         input: vec![value("x")],
///         output: vec![value("y")],
///         ..GraphProto::default()
///     }),
///     ..ModelProto::default()
/// };
/// let interpreter = Interpreter::new(&model, &Limits::default())?;
/// let x = Tensor::vector(vec![-1.0_f32, 2.0]);
/// let outputs = interpreter.run(&BTreeMap::from([("x".to_owned(), x)]))?;
/// assert_eq!(outputs["y"], Tensor::vector(vec![0.0_f32, 2.0]));
/// # Ok::<(), fl_onnx::OnnxError>(())
/// ```
#[derive(Debug)]
pub struct Interpreter {
    block: Block,
    limits: Limits,
}

impl Interpreter {
    /// Checks a model: its opset, operators, constants, and that every value is assigned once and
    /// before it is used. Functions are expanded.
    ///
    /// # Errors
    /// [`OnnxError`], naming the node or tensor; [`OnnxError::UnsupportedOperator`] for the first
    /// operator that is not known.
    pub fn new(model: &ModelProto, limits: &Limits) -> Result<Self, OnnxError> {
        Ok(Self {
            block: compile::compile(model, limits)?,
            limits: *limits,
        })
    }

    /// Names of the inputs that a run needs, in the model's order.
    pub fn inputs(&self) -> impl Iterator<Item = &str> {
        self.block.inputs.iter().map(|input| &*input.name)
    }

    /// Names of the outputs, in the model's order.
    pub fn outputs(&self) -> impl Iterator<Item = &str> {
        self.block.outputs.iter().map(|name| &**name)
    }

    /// Computes the outputs, by name.
    ///
    /// # Errors
    /// [`OnnxError::Input`] where the inputs do not fit the model's, [`OnnxError::Node`] where a
    /// node cannot be computed or would need more than the limits allow.
    pub fn run(
        &self,
        inputs: &BTreeMap<String, Tensor>,
    ) -> Result<BTreeMap<String, Tensor>, OnnxError> {
        if let Some(name) = inputs
            .keys()
            .find(|name| !self.inputs().any(|input| input == **name))
        {
            return Err(OnnxError::Input {
                name: name.clone(),
                problem: InputError::Unknown(self.inputs().collect::<Vec<_>>().join(", ")),
            });
        }
        let mut given = Vec::with_capacity(self.block.inputs.len());
        for declared in &self.block.inputs {
            let tensor = inputs.get(&declared.name);
            let tensor = tensor.ok_or(InputError::Missing).and_then(|tensor| {
                check(declared, tensor)?;
                ops::room(tensor.shape(), tensor.dtype(), &self.limits)
                    .map_err(|_| InputError::TooLarge(self.limits.tensor_bytes))?;
                Ok(Arc::new(tensor.clone()))
            });
            given.push(Some(tensor.map_err(|problem| OnnxError::Input {
                name: declared.name.clone(),
                problem,
            })?));
        }
        let mut run = Run {
            limits: &self.limits,
            steps: 0,
            live: 0,
        };
        let outputs = run.block(&self.block, given, None)?;
        let names = self.block.outputs.iter().cloned();
        let tensors = outputs.into_iter().map(Arc::unwrap_or_clone);
        Ok(names.zip(tensors).collect())
    }
}

fn check(declared: &Declared, tensor: &Tensor) -> Result<(), InputError> {
    if let Some(expected) = declared.dtype
        && expected != tensor.dtype()
    {
        return Err(InputError::Type {
            found: tensor.dtype(),
            expected,
        });
    }
    if let Some(shape) = &declared.shape {
        let fits = shape.len() == tensor.rank()
            && shape
                .iter()
                .zip(tensor.shape())
                .all(|(declared, size)| declared.is_none_or(|declared| declared == *size));
        if !fits {
            let sizes: Vec<String> = shape
                .iter()
                .map(|size| size.map_or("?".to_owned(), |size| size.to_string()))
                .collect();
            return Err(InputError::Shape {
                found: tensor.shape().to_vec(),
                expected: format!("[{}]", sizes.join(", ")),
            });
        }
    }
    Ok(())
}

/// The values of a block and of those around it.
pub(crate) struct Values<'a> {
    own: BTreeMap<String, Arc<Tensor>>,
    outer: Option<&'a Values<'a>>,
}

impl Values<'_> {
    fn find(&self, name: &str) -> Option<&Arc<Tensor>> {
        self.own
            .get(name)
            .or_else(|| self.outer.and_then(|outer| outer.find(name)))
    }
}

/// What a run has used so far.
pub(crate) struct Run<'a> {
    limits: &'a Limits,
    steps: usize,
    /// Bytes of the values that are held; a shared tensor counts for each of its names.
    live: usize,
}

impl Run<'_> {
    /// Computes a block from its inputs (`None` for a function's input that is not given).
    fn block(
        &mut self,
        block: &Block,
        inputs: Vec<Option<Arc<Tensor>>>,
        outer: Option<&Values<'_>>,
    ) -> Result<Vec<Arc<Tensor>>, OnnxError> {
        let mut values = Values {
            own: BTreeMap::new(),
            outer,
        };
        let before = self.live;
        for (name, constant) in &block.constants {
            self.live = self.live.saturating_add(constant.bytes());
            values.own.insert(name.clone(), Arc::clone(constant));
        }
        for (declared, tensor) in block.inputs.iter().zip(inputs) {
            if let Some(tensor) = tensor {
                self.live = self.live.saturating_add(tensor.bytes());
                values.own.insert(declared.name.clone(), tensor);
            }
        }
        for node in &block.nodes {
            self.node(node, &mut values)?;
        }
        self.live = before;
        let outputs = block.outputs.iter().map(|name| {
            values.find(name).map(Arc::clone).ok_or_else(|| {
                OnnxError::Model(crate::ModelError::Unassigned {
                    value: name.clone(),
                    user: "the outputs".to_owned(),
                })
            })
        });
        outputs.collect()
    }

    fn node(&mut self, node: &Node, values: &mut Values<'_>) -> Result<(), OnnxError> {
        self.steps += 1;
        if self.steps > self.limits.nodes {
            return Err(node.error(NodeError::Steps(self.limits.nodes)));
        }
        let inputs: Vec<Option<Arc<Tensor>>> = node
            .inputs
            .iter()
            .map(|name| values.find(name).map(Arc::clone))
            .collect();
        let outputs: Vec<Arc<Tensor>> = match &node.kind {
            Kind::Operator(operator) => {
                let ctx = Ctx::new(node, &inputs, self.limits);
                let outputs = operator(&ctx).map_err(|problem| node.error(problem))?;
                outputs.into_iter().map(Arc::new).collect()
            }
            Kind::Call(body) => self.block(body, inputs, None)?,
            Kind::If { then, otherwise } => {
                let block = if control::condition(node, &inputs)? {
                    then
                } else {
                    otherwise
                };
                self.block(block, Vec::new(), Some(values))?
            }
            Kind::Loop(body) => self.repeat(node, body, inputs, values)?,
            Kind::Scan(body) => self.scan(node, body, inputs, values)?,
        };
        let last = node.outputs.iter().rposition(|name| !name.is_empty());
        if last.is_some_and(|last| last >= outputs.len()) {
            let problem = NodeError::Unsupported("an output that the operator does not give");
            return Err(node.error(problem));
        }
        for (name, tensor) in node.outputs.iter().zip(outputs) {
            ops::room(tensor.shape(), tensor.dtype(), self.limits)
                .map_err(|problem| node.error(problem))?;
            if !name.is_empty() {
                self.live = self.live.saturating_add(tensor.bytes());
                values.own.insert(name.clone(), tensor);
            }
        }
        if self.live > self.limits.live_bytes {
            return Err(node.error(NodeError::LiveBytes {
                bytes: self.live,
                most: self.limits.live_bytes,
            }));
        }
        for name in &node.release {
            if let Some(tensor) = values.own.remove(name) {
                self.live = self.live.saturating_sub(tensor.bytes());
            }
        }
        Ok(())
    }
}
