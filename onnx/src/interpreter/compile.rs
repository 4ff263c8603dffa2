//! From messages to a checked program: constants read, functions expanded, operators found,
//! values assigned once and before their use.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::error::{ModelError, NodeError, OnnxError, TensorError};
use crate::model::Limits;
use crate::ops::{self, OpFn};
use crate::proto::{
    AttributeProto, DimensionValue, FunctionProto, GraphProto, ModelProto, NodeProto,
    OperatorSetId, TypeValue, ValueInfoProto, attribute_type,
};
use crate::tensor::{DType, Tensor};

/// The versions of the standard operators that are known. Before version 7 broadcasting was an
/// attribute; [`ops::find`] then knows only what never broadcast.
pub(crate) const OPSETS: std::ops::RangeInclusive<i64> = 1..=28;

/// The constant of a node.
#[derive(Clone, Debug)]
pub(crate) enum Attribute {
    Int(i64),
    Ints(Vec<i64>),
    Float(f32),
    Floats(Vec<f32>),
    Text(String),
    Texts(Vec<String>),
    Tensor(Arc<Tensor>),
}

/// What a node does.
#[derive(Debug)]
pub(crate) enum Kind {
    /// An operator on tensors.
    Operator(OpFn),
    /// A function, expanded; its values are its own.
    Call(Block),
    /// One of two graphs.
    If { then: Block, otherwise: Block },
    /// A graph, repeatedly.
    Loop(Block),
    /// A graph over slices.
    Scan(Block),
}

/// A node, ready to be computed.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) op: String,
    pub(crate) opset: i64,
    /// Empty where an optional input is not given.
    pub(crate) inputs: Vec<String>,
    pub(crate) outputs: Vec<String>,
    pub(crate) attributes: BTreeMap<String, Attribute>,
    pub(crate) kind: Kind,
    /// Values of this block that no later node uses.
    pub(crate) release: Vec<String>,
}

impl Node {
    pub(crate) fn error(&self, problem: NodeError) -> OnnxError {
        OnnxError::Node {
            node: self.name.clone(),
            op: self.op.clone(),
            problem,
        }
    }
}

/// A value's declared type.
#[derive(Clone, Debug)]
pub(crate) struct Declared {
    pub(crate) name: String,
    /// `None` inside control flow and functions, where types may be left out.
    pub(crate) dtype: Option<DType>,
    /// `None` where the rank is unknown; a size is `None` where it is free.
    pub(crate) shape: Option<Vec<Option<usize>>>,
}

/// A graph or the body of a function.
#[derive(Debug, Default)]
pub(crate) struct Block {
    pub(crate) inputs: Vec<Declared>,
    pub(crate) constants: Vec<(String, Arc<Tensor>)>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) outputs: Vec<String>,
}

/// Opsets by domain, the standard one under the empty name.
type Opsets = BTreeMap<String, i64>;

/// What a block's body may see.
struct Scope<'a> {
    opsets: &'a Opsets,
    /// Values of enclosing graphs.
    outer: BTreeSet<String>,
    /// Inside a function: the attributes that its nodes may refer to.
    given: Option<&'a BTreeMap<String, AttributeProto>>,
    depth: usize,
}

pub(crate) struct Compiler<'a> {
    functions: BTreeMap<(String, String, String), &'a FunctionProto>,
    limits: &'a Limits,
    nodes: usize,
}

/// The main graph of `model`.
pub(crate) fn compile(model: &ModelProto, limits: &Limits) -> Result<Block, OnnxError> {
    let graph = model.graph.as_ref().ok_or(ModelError::NoGraph)?;
    let opsets = opsets(&model.opset_import)?;
    let mut compiler = Compiler {
        functions: model
            .functions
            .iter()
            .map(|function| {
                let key = (
                    standard(&function.domain),
                    function.name.clone(),
                    function.overload.clone(),
                );
                (key, function)
            })
            .collect(),
        limits,
        nodes: 0,
    };
    let scope = Scope {
        opsets: &opsets,
        outer: BTreeSet::new(),
        given: None,
        depth: 0,
    };
    compiler.graph(graph, &scope, true)
}

fn standard(domain: &str) -> String {
    if domain == "ai.onnx" {
        String::new()
    } else {
        domain.to_owned()
    }
}

fn shown(domain: &str) -> String {
    if domain.is_empty() {
        "ai.onnx".to_owned()
    } else {
        domain.to_owned()
    }
}

fn opsets(imports: &[OperatorSetId]) -> Result<Opsets, OnnxError> {
    let opsets: Opsets = imports
        .iter()
        .map(|import| (standard(&import.domain), import.version))
        .collect();
    if let Some(&found) = opsets.get("")
        && !OPSETS.contains(&found)
    {
        return Err(ModelError::Opset {
            domain: shown(""),
            found,
            least: *OPSETS.start(),
            most: *OPSETS.end(),
        }
        .into());
    }
    Ok(opsets)
}

impl Compiler<'_> {
    fn graph(
        &mut self,
        graph: &GraphProto,
        scope: &Scope<'_>,
        typed: bool,
    ) -> Result<Block, OnnxError> {
        if let Some(sparse) = graph.sparse_initializer.first() {
            let name = sparse.values.as_ref().map(|values| values.name.clone());
            return Err(ModelError::Sparse(name.unwrap_or_default()).into());
        }
        let mut constants = Vec::with_capacity(graph.initializer.len());
        for proto in &graph.initializer {
            let tensor = Tensor::from_proto(proto).map_err(|problem| OnnxError::Tensor {
                name: proto.name.clone(),
                problem,
            })?;
            if ops::room(tensor.shape(), tensor.dtype(), self.limits).is_err() {
                return Err(OnnxError::Tensor {
                    name: proto.name.clone(),
                    problem: TensorError::Shape(proto.dims.clone()),
                });
            }
            constants.push((proto.name.clone(), Arc::new(tensor)));
        }
        let initialised: BTreeSet<&str> = constants.iter().map(|(name, _)| &**name).collect();
        // An input with an initialiser is a constant that a caller may replace; we do not.
        let inputs = graph
            .input
            .iter()
            .filter(|input| !initialised.contains(&*input.name))
            .map(|input| declared(input, typed))
            .collect::<Result<Vec<_>, _>>()?;
        if typed {
            for output in &graph.output {
                declared(output, false)?;
            }
        }
        let outputs = graph
            .output
            .iter()
            .map(|output| output.name.clone())
            .collect();
        self.block(inputs, constants, &graph.node, outputs, scope)
    }

    fn block(
        &mut self,
        inputs: Vec<Declared>,
        constants: Vec<(String, Arc<Tensor>)>,
        protos: &[NodeProto],
        outputs: Vec<String>,
        scope: &Scope<'_>,
    ) -> Result<Block, OnnxError> {
        if scope.depth > self.limits.depth {
            return Err(ModelError::Depth(self.limits.depth).into());
        }
        let mut own = BTreeSet::new();
        let names = inputs.iter().map(|input| &input.name);
        for name in names.chain(constants.iter().map(|(name, _)| name)) {
            assign(&mut own, name)?;
        }
        let mut nodes = Vec::with_capacity(protos.len());
        for (index, proto) in protos.iter().enumerate() {
            self.nodes += 1;
            if self.nodes > self.limits.nodes {
                return Err(ModelError::Nodes(self.limits.nodes).into());
            }
            let name = node_name(proto, index);
            for value in proto.input.iter().filter(|value| !value.is_empty()) {
                if !own.contains(value) && !scope.outer.contains(value) {
                    return Err(ModelError::Unassigned {
                        value: value.clone(),
                        user: name,
                    }
                    .into());
                }
            }
            nodes.push(self.node(proto, name, &own, scope)?);
            for value in proto.output.iter().filter(|value| !value.is_empty()) {
                assign(&mut own, value)?;
            }
        }
        for value in &outputs {
            if !own.contains(value) && !scope.outer.contains(value) {
                return Err(ModelError::Unassigned {
                    value: value.clone(),
                    user: "the outputs".to_owned(),
                }
                .into());
            }
        }
        let mut block = Block {
            inputs,
            constants,
            nodes,
            outputs,
        };
        release(&mut block, &own);
        Ok(block)
    }

    fn node(
        &mut self,
        proto: &NodeProto,
        name: String,
        own: &BTreeSet<String>,
        scope: &Scope<'_>,
    ) -> Result<Node, OnnxError> {
        let domain = standard(&proto.domain);
        let opset = scope.opsets.get(&domain).copied().unwrap_or(0);
        let mut protos = BTreeMap::new();
        for attribute in &proto.attribute {
            let resolved = if attribute.ref_attr_name.is_empty() {
                Some(attribute.clone())
            } else {
                // A reference to an attribute that was not given leaves this one out.
                scope
                    .given
                    .and_then(|given| given.get(&attribute.ref_attr_name))
                    .map(|value| AttributeProto {
                        name: attribute.name.clone(),
                        ..value.clone()
                    })
            };
            if let Some(resolved) = resolved {
                protos.insert(resolved.name.clone(), resolved);
            }
        }
        let unsupported = || OnnxError::UnsupportedOperator {
            op: proto.op_type.clone(),
            domain: shown(&domain),
            opset,
            node: name.clone(),
        };
        let key = (
            domain.clone(),
            proto.op_type.clone(),
            proto.overload.clone(),
        );
        let kind = if let Some(&function) = self.functions.get(&key) {
            self.call(function, &protos, scope)?
        } else if domain.is_empty() {
            let wrong = |attribute: &str| OnnxError::Node {
                node: name.clone(),
                op: proto.op_type.clone(),
                problem: NodeError::Attribute {
                    name: attribute.to_owned(),
                    expected: "graph",
                },
            };
            let mut inner = |attribute: &str| {
                let graph = protos
                    .get(attribute)
                    .and_then(|attribute| attribute.g.as_ref())
                    .ok_or_else(|| wrong(attribute))?;
                let scope = Scope {
                    opsets: scope.opsets,
                    outer: scope.outer.union(own).cloned().collect(),
                    given: scope.given,
                    depth: scope.depth + 1,
                };
                self.graph(graph, &scope, false)
            };
            match &*proto.op_type {
                "If" => Kind::If {
                    then: inner("then_branch")?,
                    otherwise: inner("else_branch")?,
                },
                "Loop" => Kind::Loop(inner("body")?),
                "Scan" if opset >= 9 => Kind::Scan(inner("body")?),
                op => Kind::Operator(ops::find(op, opset).ok_or_else(unsupported)?),
            }
        } else {
            return Err(unsupported());
        };
        let mut attributes = BTreeMap::new();
        if !matches!(kind, Kind::Call(_)) {
            for (attribute, proto_value) in protos {
                if proto_value.r#type == attribute_type::GRAPH {
                    continue;
                }
                let value = parse(&proto_value).map_err(|problem| OnnxError::Node {
                    node: name.clone(),
                    op: proto.op_type.clone(),
                    problem,
                })?;
                attributes.insert(attribute, value);
            }
        }
        Ok(Node {
            name,
            op: proto.op_type.clone(),
            opset,
            inputs: proto.input.clone(),
            outputs: proto.output.clone(),
            attributes,
            kind,
            release: Vec::new(),
        })
    }

    fn call(
        &mut self,
        function: &FunctionProto,
        given: &BTreeMap<String, AttributeProto>,
        scope: &Scope<'_>,
    ) -> Result<Kind, OnnxError> {
        let mut given = given.clone();
        for default in &function.attribute_proto {
            given
                .entry(default.name.clone())
                .or_insert_with(|| default.clone());
        }
        let mut opsets = opsets(&function.opset_import)?;
        for (domain, version) in scope.opsets {
            opsets.entry(domain.clone()).or_insert(*version);
        }
        let scope = Scope {
            opsets: &opsets,
            outer: BTreeSet::new(),
            given: Some(&given),
            depth: scope.depth + 1,
        };
        let inputs = function
            .input
            .iter()
            .map(|name| Declared {
                name: name.clone(),
                dtype: None,
                shape: None,
            })
            .collect();
        self.block(
            inputs,
            Vec::new(),
            &function.node,
            function.output.clone(),
            &scope,
        )
        .map(Kind::Call)
    }
}

fn assign(own: &mut BTreeSet<String>, name: &str) -> Result<(), OnnxError> {
    if own.insert(name.to_owned()) {
        Ok(())
    } else {
        Err(ModelError::AssignedTwice(name.to_owned()).into())
    }
}

fn node_name(proto: &NodeProto, index: usize) -> String {
    if proto.name.is_empty() {
        format!("#{index}")
    } else {
        proto.name.clone()
    }
}

/// Writes down after which node each value of the block is not needed any more.
fn release(block: &mut Block, own: &BTreeSet<String>) {
    let mut needed: BTreeSet<String> = block.outputs.iter().cloned().collect();
    for node in block.nodes.iter_mut().rev() {
        let mut used = BTreeSet::new();
        used_by(node, &mut used);
        used.extend(node.outputs.iter().filter(|name| !name.is_empty()).cloned());
        node.release = used
            .into_iter()
            .filter(|name| own.contains(name) && needed.insert(name.clone()))
            .collect();
    }
}

/// Every name that a node uses, those of its inner graphs included.
fn used_by(node: &Node, used: &mut BTreeSet<String>) {
    used.extend(node.inputs.iter().filter(|name| !name.is_empty()).cloned());
    let mut inner = |block: &Block| {
        for node in &block.nodes {
            used_by(node, used);
        }
        used.extend(block.outputs.iter().cloned());
    };
    match &node.kind {
        // The values of a function are its own.
        Kind::Operator(_) | Kind::Call(_) => {}
        Kind::If { then, otherwise } => {
            inner(then);
            inner(otherwise);
        }
        Kind::Loop(body) | Kind::Scan(body) => inner(body),
    }
}

fn declared(value: &ValueInfoProto, typed: bool) -> Result<Declared, OnnxError> {
    let untyped = Declared {
        name: value.name.clone(),
        dtype: None,
        shape: None,
    };
    let tensor = match value.r#type.as_ref().and_then(|t| t.value.as_ref()) {
        Some(TypeValue::Tensor(tensor)) => tensor,
        None if !typed => return Ok(untyped),
        _ => return Err(ModelError::NotATensor(value.name.clone()).into()),
    };
    let dtype = match DType::from_onnx(tensor.elem_type) {
        None if typed => {
            return Err(OnnxError::Tensor {
                name: value.name.clone(),
                problem: TensorError::Type(tensor.elem_type),
            });
        }
        dtype => dtype,
    };
    let shape = tensor.shape.as_ref().map(|shape| {
        let sizes = shape.dim.iter().map(|size| match &size.value {
            Some(DimensionValue::Value(size)) => usize::try_from(*size).ok(),
            _ => None,
        });
        sizes.collect()
    });
    Ok(Declared {
        name: value.name.clone(),
        dtype,
        shape,
    })
}

fn parse(proto: &AttributeProto) -> Result<Attribute, NodeError> {
    let missing = |expected: &'static str| NodeError::Attribute {
        name: proto.name.clone(),
        expected,
    };
    let text =
        |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).map_err(|_| missing("text in UTF-8"));
    Ok(match proto.r#type {
        attribute_type::FLOAT => Attribute::Float(proto.f.ok_or_else(|| missing("number"))?),
        // Writers of proto3 leave out zeros.
        attribute_type::INT => Attribute::Int(proto.i.unwrap_or(0)),
        attribute_type::STRING => Attribute::Text(text(proto.s.as_ref().unwrap_or(&Vec::new()))?),
        attribute_type::FLOATS => Attribute::Floats(proto.floats.clone()),
        attribute_type::INTS => Attribute::Ints(proto.ints.clone()),
        attribute_type::STRINGS => Attribute::Texts(
            proto
                .strings
                .iter()
                .map(text)
                .collect::<Result<Vec<_>, _>>()?,
        ),
        attribute_type::TENSOR => {
            let tensor = proto.t.as_ref().ok_or_else(|| missing("tensor"))?;
            Attribute::Tensor(Arc::new(Tensor::from_proto(tensor)?))
        }
        _ => return Err(missing("number, text, tensor or list of numbers or texts")),
    })
}
