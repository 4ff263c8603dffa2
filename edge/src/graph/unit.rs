//! Units: the graph as it is served, quantized and trained for quantization.
//!
//! A unit is one operator with the operators that can be computed in the same pass: a product
//! (dense or convolution) with the batch normalisation and the clamp after it (relu), the residual addition after that, and
//! the addition's own clamp. Whoever quantizes walks units, so that all agree on which values are
//! rounded to eight bits, whether or not the operators are then really fused:
//!
//! - the graph's input;
//! - a product's own value, after its clamp ([`Unit::own`]);
//! - a unit's output, unless it [passes on](Unit::passes_on) its input's numbers.

use alloc::vec;
use alloc::vec::Vec;

use super::{Function, Graph, Node, Op, ValueId};
use crate::kernel::Fused;

/// A residual addition computed together with the product that gives one of its sides.
#[derive(Clone, Debug, PartialEq)]
pub struct Residual {
    /// The addition.
    pub node: usize,
    /// The other side.
    pub other: ValueId,
    /// A clamp that alone reads the sum.
    pub clamp: Fused,
}

/// The clamp that a function is.
pub(crate) fn clamp_of(function: Function) -> Fused {
    match function {
        Function::Relu => Fused::Relu,
        Function::Relu6 => Fused::Relu6,
        _ => Fused::None,
    }
}

/// One operator and what is computed with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Unit {
    /// The operator: index of its node.
    pub node: usize,
    /// A batch normalisation that alone reads the operator's value: folded into its weight.
    pub norm: Option<usize>,
    /// A clamp that alone reads that.
    pub clamp: Fused,
    /// The operator's value, after its normalisation and its clamp.
    pub own: ValueId,
    /// An addition that alone reads that.
    pub residual: Option<Residual>,
    /// What other units read: the sum's value (after its clamp), else `own`.
    pub output: ValueId,
}

impl Unit {
    /// Whether its operator is a dense layer or a convolution.
    #[must_use]
    pub fn is_product(&self, graph: &Graph) -> bool {
        is_product(&graph.nodes[self.node])
    }

    /// Whether integer kernels can compute it.
    #[must_use]
    pub fn is_integer(&self, graph: &Graph) -> bool {
        match &graph.nodes[self.node].op {
            Op::Dense { .. }
            | Op::Conv { .. }
            | Op::MaxPool(_)
            | Op::AvgPool(_)
            | Op::GlobalAvgPool { .. }
            | Op::Function(_)
            | Op::Dropout { .. }
            | Op::Add { .. } => true,
            Op::Norm { .. }
            | Op::BatchNorm { .. }
            | Op::Embedding { .. }
            | Op::Recurrent { .. }
            | Op::Attention(_)
            | Op::Last { .. }
            | Op::Position { .. } => false,
        }
    }

    /// Whether its output holds numbers of its input, so that it has no scale of its own: a
    /// maximum, a lone clamp, the last position, a dropout when served.
    #[must_use]
    pub fn passes_on(&self, graph: &Graph) -> bool {
        match &graph.nodes[self.node].op {
            Op::MaxPool(_) | Op::Dropout { .. } | Op::Last { .. } => true,
            Op::Function(function) => clamp_of(*function) != Fused::None,
            _ => false,
        }
    }
}

fn is_product(node: &Node) -> bool {
    matches!(node.op, Op::Dense { .. } | Op::Conv { .. })
}

/// The clamp that the node applies itself.
fn own_clamp(node: &Node) -> Fused {
    match node.op {
        Op::Dense { fused, .. } | Op::Conv { fused, .. } | Op::BatchNorm { fused, .. } => fused,
        _ => Fused::None,
    }
}

/// The batch normalisation that alone reads the value of the product `node`, which has no clamp.
fn norm_after(graph: &Graph, node: &Node) -> Option<usize> {
    if !is_product(node)
        || own_clamp(node) != Fused::None
        || graph.readers(graph.values[node.output].root) != 1
    {
        return None;
    }
    (graph.nodes.iter())
        .position(|after| after.input == node.output && matches!(after.op, Op::BatchNorm { .. }))
}

/// The value of a product after its normalisation and its clamp.
fn own_value(graph: &Graph, node: &Node) -> ValueId {
    let last = norm_after(graph, node).map_or(node, |norm| &graph.nodes[norm]);
    match clamp_after(graph, last.output) {
        Some((_, _, value)) if own_clamp(last) == Fused::None => value,
        _ => last.output,
    }
}

/// The clamp that alone reads `value`: its node, itself, its output.
fn clamp_after(graph: &Graph, value: ValueId) -> Option<(usize, Fused, ValueId)> {
    if graph.readers(graph.values[value].root) != 1 {
        return None;
    }
    let (index, node) = (graph.nodes.iter().enumerate()).find(|(_, node)| node.input == value)?;
    match node.op {
        Op::Function(function) if clamp_of(function) != Fused::None => {
            Some((index, clamp_of(function), node.output))
        }
        _ => None,
    }
}

/// The units of a graph, in an order in which each one's inputs are ready.
#[must_use]
pub fn units(graph: &Graph) -> Vec<Unit> {
    let mut taken = vec![false; graph.nodes.len()];
    // With each unit the place of its last node, where all that it reads is ready.
    let mut placed = Vec::<(usize, Unit)>::with_capacity(graph.nodes.len());
    for (index, node) in graph.nodes.iter().enumerate() {
        if taken[index] {
            continue;
        }
        let mut last = index;
        let mut join = |at: usize| {
            taken[at] = true;
            last = last.max(at);
        };
        let mut own = node.output;
        let mut clamp = own_clamp(node);
        let norm = norm_after(graph, node);
        if let Some(at) = norm {
            join(at);
            (clamp, own) = (own_clamp(&graph.nodes[at]), graph.nodes[at].output);
        }
        let fuses = is_product(node)
            || matches!(
                node.op,
                Op::Add { .. } | Op::Norm { .. } | Op::BatchNorm { .. }
            );
        if fuses
            && clamp == Fused::None
            && let Some((at, function, value)) = clamp_after(graph, own)
        {
            join(at);
            (clamp, own) = (function, value);
        }
        let mut unit = Unit {
            node: index,
            norm,
            clamp,
            own,
            residual: None,
            output: own,
        };
        if is_product(node)
            && let Some((add, other)) = residual_after(graph, index, own)
        {
            join(add);
            unit.output = graph.nodes[add].output;
            let mut clamp = Fused::None;
            if let Some((at, function, value)) = clamp_after(graph, unit.output) {
                join(at);
                (clamp, unit.output) = (function, value);
            }
            unit.residual = Some(Residual {
                node: add,
                other,
                clamp,
            });
        }
        placed.push((last, unit));
    }
    placed.sort_by_key(|(last, _)| *last);
    placed.into_iter().map(|(_, unit)| unit).collect()
}

/// The addition that alone reads `own`, the value of the product at `product`, and its other side;
/// unless that is the value of a later product, which then takes the addition.
fn residual_after(graph: &Graph, product: usize, own: ValueId) -> Option<(usize, ValueId)> {
    let alone = |value: ValueId| graph.readers(graph.values[value].root) == 1;
    if !alone(own) {
        return None;
    }
    let (add, node) = (graph.nodes.iter().enumerate())
        .find(|(_, node)| node.inputs().any(|value| value == own))?;
    let Op::Add { other } = node.op else {
        return None;
    };
    let other = match other == own {
        true => node.input,
        false => other,
    };
    let later = (graph.nodes.iter().enumerate().skip(product + 1))
        .any(|(_, node)| is_product(node) && own_value(graph, node) == other);
    (!(later && alone(other))).then_some((add, other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Model, ModelDef};
    use fl_core::{InputSpec, TargetSpec};

    /// `kind[+clamp][+add[+clamp]]` of each unit.
    fn described(text: &str) -> Vec<String> {
        let def = toml::from_str::<ModelDef>(text).expect("reads");
        let input = InputSpec::Real(vec![6, 6, 4]);
        let model = Model::new(&def, &input, TargetSpec::Class { classes: 3 }).expect("builds");
        let graph = &model.graph;
        let describe = |unit: &Unit| {
            let mut text = format!("{:?}", graph.nodes[unit.node].op);
            text.truncate(text.find(['(', ' ']).unwrap_or(text.len()));
            if unit.norm.is_some() {
                text += "+norm";
            }
            if unit.clamp != Fused::None {
                text += "+clamp";
            }
            if let Some(residual) = &unit.residual {
                text += "+add";
                if residual.clamp != Fused::None {
                    text += "+clamp";
                }
            }
            text
        };
        units(graph).iter().map(describe).collect()
    }

    #[test]
    fn the_units_of_a_residual_network() {
        let def = ModelDef::named("resnet8-gn").expect("of the zoo");
        let input = InputSpec::Real(vec![8, 8, 3]);
        let model = Model::new(&def, &input, TargetSpec::Class { classes: 10 }).expect("builds");
        // Norms stand between the products and the additions, so nothing but relus join units.
        let units = units(&model.graph);
        assert!(units.iter().all(|unit| unit.residual.is_none()));
        let adds = units
            .iter()
            .filter(|unit| matches!(model.graph.nodes[unit.node].op, Op::Add { .. }));
        assert_eq!(adds.filter(|unit| unit.clamp != Fused::None).count(), 3);
    }

    #[test]
    fn a_batch_normalisation_joins_its_product() {
        let found = described(
            "[[layer]]\nkind = \"batch-norm\"\n[[layer]]\nkind = \"conv2d\"\nname = \"a\"\nfilters = 4\nkernel = 1\n\
             [[layer]]\nkind = \"batch-norm\"\n[[layer]]\nkind = \"relu6\"\nname = \"b\"\n\
             [[layer]]\nkind = \"conv2d\"\nfilters = 4\nkernel = 1\n[[layer]]\nkind = \"batch-norm\"\n\
             [[layer]]\nkind = \"add\"\nfrom = \"b\"\n[[layer]]\nkind = \"global-avg-pool\"\n\
             [[layer]]\nkind = \"dense\"\nname = \"out\"\n",
        );
        let expected = [
            "BatchNorm",
            "Conv+norm+clamp",
            "Conv+norm+add",
            "GlobalAvgPool",
            "Dense",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn followers_join_the_product_that_alone_feeds_them() {
        let head = "[[layer]]\nkind = \"conv2d\"\nname = \"stem\"\nfilters = 4\nkernel = 3\npadding = \"same\"\nactivation = \"relu\"\n";
        let conv = "[[layer]]\nkind = \"conv2d\"\nname = \"main\"\nfilters = 4\nkernel = 3\npadding = \"same\"\n";
        let tail = "[[layer]]\nkind = \"global-avg-pool\"\nname = \"pool\"\n[[layer]]\nkind = \"dense\"\nname = \"out\"\n";
        let ends = ["GlobalAvgPool", "Dense"];
        let cases: [(&str, &str, &[&str]); 5] = [
            (
                "a sum with its relu",
                "[[layer]]\nkind = \"add\"\nname = \"sum\"\nfrom = \"stem\"\n[[layer]]\nkind = \"relu\"\nname = \"after\"\n",
                &["Conv+clamp", "Conv+add+clamp"],
            ),
            (
                "the later of two products",
                "[[layer]]\nkind = \"conv2d\"\nname = \"side\"\ninput = \"stem\"\nfilters = 4\nkernel = 1\n[[layer]]\nkind = \"add\"\nname = \"sum\"\nfrom = \"main\"\n",
                &["Conv+clamp", "Conv", "Conv+add"],
            ),
            (
                "a clamp before the sum",
                "[[layer]]\nkind = \"relu\"\nname = \"r\"\n[[layer]]\nkind = \"add\"\nname = \"sum\"\nfrom = \"stem\"\n",
                &["Conv+clamp", "Conv+clamp+add"],
            ),
            (
                "read twice",
                "[[layer]]\nkind = \"add\"\nname = \"sum\"\nfrom = \"stem\"\n[[layer]]\nkind = \"add\"\nname = \"again\"\nfrom = \"main\"\n",
                &["Conv+clamp", "Conv", "Add", "Add"],
            ),
            (
                "doubled",
                "[[layer]]\nkind = \"add\"\nname = \"sum\"\nfrom = \"main\"\n",
                &["Conv+clamp", "Conv", "Add"],
            ),
        ];
        for (name, layers, expected) in cases {
            let found = described(&format!("{head}{conv}{layers}{tail}"));
            let expected = [expected, &ends[..]].concat();
            assert_eq!(found, expected, "{name}");
        }
    }
}
