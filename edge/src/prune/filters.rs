//! Removing whole channels, and what their consumers have for them.
//!
//! Values of a graph share *sets* of channels: a convolution or dense layer gives a new one, and
//! activations, pools, normalisations and depthwise convolutions hand theirs on. An addition makes
//! one of two, so channels that are tied by a residual connection go together, or stay together. A
//! flattened image has every channel once for each position, and a dense layer on it loses a block of
//! rows for each.
//!
//! A channel can go where all that it feeds computes the rest as before. Group normalisation couples
//! the channels of a group, so there whole groups go. What cannot go says why ([`KeptBecause`]).

use alloc::borrow::ToOwned as _;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec;
use alloc::vec::Vec;

use super::{PruneError, check_length, check_share, part_of};
use crate::graph::{Graph, Op, TensorId, ValueId};
use crate::layer::LayerDef;
use crate::model::Model;
use crate::zoo::{LayersDef, ModelDef};

/// How many channels go, and of which layers.
#[derive(Clone, Debug, PartialEq)]
pub enum FilterShares {
    /// The same share, in `[0, 1)`, of every set that can be pruned.
    Each(f64),
    /// A share, in `[0, 1)`, of all channels that can go, wherever they are least; every set keeps
    /// some.
    Global(f64),
    /// A share, in `[0, 1)`, for each layer by its name; other layers keep theirs. Of layers that
    /// share a set, the largest share counts.
    Layers(BTreeMap<String, f64>),
}

/// What is asked of [`prune_filters`].
#[derive(Clone, Debug, PartialEq)]
pub struct Filters {
    /// How many, and where.
    pub shares: FilterShares,
    /// Sets keep a multiple of so many channels, at least 1, rounded up; one that has no multiple
    /// keeps all. Kernels compute whole vectors: 8 or 16 wastes none of what is left.
    pub multiple: usize,
}

impl Filters {
    /// The same share of every layer.
    #[must_use]
    pub fn each(share: f64) -> Self {
        Self {
            shares: FilterShares::Each(share),
            multiple: 1,
        }
    }
}

/// Why channels stay.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, serde::Serialize)]
#[serde(rename_all = "kebab-case", tag = "because", content = "layer")]
pub enum KeptBecause {
    /// They are the example's own, or added to it.
    #[error("they are added to the input")]
    Input,
    /// They are what the model predicts.
    #[error("they are the model's outputs")]
    Output,
    /// A convolution in groups has places for all.
    #[error("`{0}` is a convolution in groups")]
    Groups(String),
    /// A normalisation computes with all of them at once.
    #[error("`{0}` normalises over all of them at once")]
    Normalised(String),
    /// They are gates or states of a recurrent layer.
    #[error("`{0}` is a recurrent layer")]
    Recurrent(String),
    /// They are queries, keys, values or the width of an attention.
    #[error("`{0}` is an attention")]
    Attention(String),
    /// They are an embedding's.
    #[error("`{0}` is an embedding")]
    Embedding(String),
    /// They are added to a flattened image.
    #[error("`{0}` adds what was flattened to what was not")]
    Added(String),
}

/// Channels that go or stay together.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct ChannelSet {
    /// The layers whose filters or units they are, in order.
    pub layers: Vec<String>,
    /// How many there were.
    pub channels: usize,
    /// They go by so many neighbours at once: the size of a group of a group normalisation, or 1.
    pub together: usize,
    /// Those that went, ascending.
    pub removed: Vec<usize>,
    /// Why all had to stay, where that is so.
    pub kept: Option<KeptBecause>,
}

/// A smaller model.
#[derive(Debug)]
pub struct FiltersPruned {
    /// The model: its definition is written layer by layer, with the names of the old one.
    pub model: Model,
    /// Its parameters.
    pub values: Vec<f32>,
    /// What became of every set of channels that a layer with filters or units gives.
    pub sets: Vec<ChannelSet>,
}

/// Removes the channels with the smallest mean absolute weight of their filters: in one layer the
/// order of Li et al.'s L1 norm, over layers comparable where windows differ. Of channels that are
/// tied, the filters of all layers count; of equal ones those of the lower index go. A share is
/// rounded to the nearest whole number of channels (or groups); at least one stays.
///
/// # Errors
/// [`PruneError`]: shares out of range, a layer that does not exist or must stay, no layer that can
/// be pruned.
///
/// # Source
/// Li et al. 2017 (arXiv:1608.08710), §3.1.
pub fn prune_filters(
    model: &Model,
    values: &[f32],
    filters: &Filters,
) -> Result<FiltersPruned, PruneError> {
    check_length(model, values.len())?;
    if filters.multiple == 0 {
        return Err(PruneError::Multiple);
    }
    let sets = Sets::of(model);
    let removed = choose(model, values, &sets, filters)?;
    build(model, values, &sets, &removed)
}

/// Where a dimension's channels come from: entry `position * channels + channel`.
#[derive(Clone, Copy)]
struct Axis {
    set: usize,
    positions: usize,
}

struct Set {
    /// Itself, or the set that it was joined with.
    parent: usize,
    channels: usize,
    together: usize,
    /// Weights whose last dimension it is, but for depthwise ones.
    weights: Vec<TensorId>,
    kept: Option<KeptBecause>,
}

/// The sets of channels of a graph.
struct Sets {
    sets: Vec<Set>,
    /// Of every value that is not another shape of one.
    values: Vec<Option<Axis>>,
    /// Of every dimension of every tensor.
    tensors: Vec<Vec<Option<Axis>>>,
}

impl Sets {
    fn of(model: &Model) -> Self {
        let graph = model.graph();
        let tensors = model.layout().tensors();
        let mut found = Self {
            sets: Vec::new(),
            values: vec![None; graph.values.len()],
            tensors: (tensors.iter().map(|tensor| vec![None; tensor.shape.len()])).collect(),
        };
        if let fl_core::InputSpec::Real(shape) = &graph.input {
            let channels = shape.last().copied().unwrap_or(1);
            found.values[0] = Some(found.new_set(channels, None, Some(KeptBecause::Input)));
        }
        for index in 0..graph.nodes.len() {
            found.node(model, index);
        }
        if let Some(axis) = found.axis(graph, graph.output) {
            found.keep(axis.set, KeptBecause::Output);
        }
        // What an attention gives is as wide as what it takes: a definition says no other width.
        let sized = |name: &str| {
            let mut layers = model.summary().iter();
            layers.any(|layer| layer.name == name && ["conv2d", "dense"].contains(&layer.kind))
        };
        for set in found.given().collect::<Vec<_>>() {
            let names = found.sets[set].weights.iter();
            let mut names = names.map(|&weight| layer_of(&tensors[weight].name));
            if let Some(name) = names.find(|name| !sized(name)) {
                found.keep(set, KeptBecause::Attention(name.to_owned()));
            }
        }
        found
    }

    fn new_set(
        &mut self,
        channels: usize,
        weight: Option<TensorId>,
        kept: Option<KeptBecause>,
    ) -> Axis {
        let set = self.sets.len();
        self.sets.push(Set {
            parent: set,
            channels,
            together: 1,
            weights: weight.into_iter().collect(),
            kept,
        });
        Axis { set, positions: 1 }
    }

    /// The set that this one was joined into.
    fn find(&self, mut set: usize) -> usize {
        while self.sets[set].parent != set {
            set = self.sets[set].parent;
        }
        set
    }

    fn keep(&mut self, set: usize, reason: KeptBecause) {
        let set = self.find(set);
        self.sets[set].kept.get_or_insert(reason);
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.find(a), self.find(b));
        let (a, b) = (a.min(b), a.max(b));
        if a == b {
            return;
        }
        let weights = core::mem::take(&mut self.sets[b].weights);
        let (together, kept) = (self.sets[b].together, self.sets[b].kept.take());
        self.sets[b].parent = a;
        let joined = &mut self.sets[a];
        joined.weights.extend(weights);
        joined.together = least_common_multiple(joined.together, together);
        joined.kept = joined.kept.take().or(kept);
    }

    /// The last dimension of a value.
    fn axis(&self, graph: &Graph, value: ValueId) -> Option<Axis> {
        let Axis { set, positions } = self.values[graph.values[value].root]?;
        let flat = graph.values[value].len() / self.sets[set].channels.max(1);
        Some(Axis {
            set,
            positions: match graph.values[value].root == value {
                true => positions,
                false => flat,
            },
        })
    }

    fn tensor(&mut self, tensor: TensorId, dimension: usize, axis: Option<Axis>) {
        self.tensors[tensor][dimension] = axis;
    }

    /// A product with a weight `[.., inputs, outputs]`.
    fn product(
        &mut self,
        input: Option<Axis>,
        weight: TensorId,
        bias: Option<TensorId>,
        n: usize,
    ) -> Axis {
        let last = self.tensors[weight].len() - 1;
        self.tensor(weight, last - 1, input);
        let output = self.new_set(n, Some(weight), None);
        self.tensor(weight, last, Some(output));
        if let Some(bias) = bias {
            self.tensor(bias, 0, Some(output));
        }
        output
    }

    fn node(&mut self, model: &Model, index: usize) {
        let graph = model.graph();
        let node = &graph.nodes[index];
        let input = self.axis(graph, node.input);
        let name = || graph.values[node.output].name.clone();
        let output = match &node.op {
            Op::Dense {
                geometry,
                weight,
                bias,
                ..
            } => Some(self.product(input, *weight, *bias, geometry.outputs)),
            Op::Conv {
                geometry,
                weight,
                bias,
                ..
            } => {
                let shape = geometry.shape();
                let last = self.tensors[*weight].len() - 1;
                if shape.groups == 1 {
                    Some(self.product(input, *weight, *bias, shape.filters))
                } else if shape.groups == shape.channels && shape.filters == shape.channels {
                    self.tensor(*weight, last, input);
                    if let Some(bias) = bias {
                        self.tensor(*bias, 0, input);
                    }
                    input
                } else {
                    if let Some(axis) = input {
                        self.keep(axis.set, KeptBecause::Groups(name()));
                    }
                    let kept = Some(KeptBecause::Groups(name()));
                    Some(self.new_set(shape.filters, Some(*weight), kept))
                }
            }
            Op::MaxPool(_)
            | Op::AvgPool(_)
            | Op::GlobalAvgPool { .. }
            | Op::Function(_)
            | Op::Dropout { .. }
            | Op::Last { .. } => input,
            Op::Norm {
                geometry,
                scale,
                shift,
            } => {
                let groups = geometry.groups();
                if let Some(axis) = input {
                    let set = self.find(axis.set);
                    if groups == 1 || geometry.repeats() > 1 || axis.positions > 1 {
                        self.keep(set, KeptBecause::Normalised(name()));
                    } else {
                        let size = geometry.channels() / groups;
                        let set = &mut self.sets[set];
                        set.together = least_common_multiple(set.together, size);
                    }
                }
                self.tensor(*scale, 0, input);
                self.tensor(*shift, 0, input);
                input
            }
            Op::BatchNorm {
                scale,
                shift,
                mean,
                variance,
                ..
            } => {
                for tensor in [scale, shift, mean, variance] {
                    self.tensor(*tensor, 0, input);
                }
                input
            }
            Op::Embedding { size, .. } => {
                Some(self.new_set(*size, None, Some(KeptBecause::Embedding(name()))))
            }
            Op::Add { other } => {
                if let (Some(a), Some(b)) = (input, self.axis(graph, *other)) {
                    if a.positions == b.positions {
                        self.join(a.set, b.set);
                    } else {
                        self.keep(a.set, KeptBecause::Added(name()));
                        self.keep(b.set, KeptBecause::Added(name()));
                    }
                }
                input
            }
            Op::Recurrent { geometry, .. } => {
                if let Some(axis) = input {
                    self.keep(axis.set, KeptBecause::Recurrent(name()));
                }
                let kept = Some(KeptBecause::Recurrent(name()));
                Some(self.new_set(geometry.units(), None, kept))
            }
            Op::Attention(_) => {
                if let Some(axis) = input {
                    self.keep(axis.set, KeptBecause::Attention(name()));
                }
                let channels = graph.values[node.output].shape.last().copied();
                let kept = Some(KeptBecause::Attention(name()));
                Some(self.new_set(channels.unwrap_or(1), None, kept))
            }
            Op::Position { table } => {
                self.tensor(*table, 1, input);
                input
            }
        };
        self.values[node.output] = output;
    }

    /// The sets that layers with filters or units give.
    fn given(&self) -> impl Iterator<Item = usize> {
        (0..self.sets.len())
            .filter(|&set| self.sets[set].parent == set && !self.sets[set].weights.is_empty())
    }
}

fn least_common_multiple(a: usize, b: usize) -> usize {
    let (mut x, mut y) = (a, b);
    while y > 0 {
        (x, y) = (y, x % y);
    }
    a / x.max(1) * b
}

/// `conv1` of `conv1.weight`.
fn layer_of(tensor: &str) -> &str {
    tensor.strip_suffix(".weight").unwrap_or(tensor)
}

/// The mean absolute weight of every group of channels that go together.
fn scores(model: &Model, values: &[f32], set: &Set) -> Vec<f64> {
    let mut sums = vec![0.0f64; set.channels];
    let mut weights = 0;
    for &weight in &set.weights {
        let values = &values[model.layout().tensors()[weight].range()];
        for row in values.chunks_exact(set.channels) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += f64::from(value.abs());
            }
        }
        weights += values.len() / set.channels;
    }
    (sums.chunks_exact(set.together))
        .map(|group| group.iter().sum::<f64>() / (group.len() * weights.max(1)) as f64)
        .collect()
}

/// The channels that go, of every set.
fn choose(
    model: &Model,
    values: &[f32],
    sets: &Sets,
    filters: &Filters,
) -> Result<Vec<Vec<usize>>, PruneError> {
    let free = |&set: &usize| sets.sets[set].kept.is_none();
    let open: Vec<usize> = sets.given().filter(free).collect();
    if open.is_empty() {
        let reasons = sets.given().filter_map(|set| sets.sets[set].kept.as_ref());
        let reason = reasons
            .last()
            .map_or_else(String::new, KeptBecause::to_string);
        return Err(PruneError::NoFilters { reason });
    }
    let groups = |set: usize| sets.sets[set].channels / sets.sets[set].together;
    // Groups that go, of every open set.
    let mut counts = vec![0usize; sets.sets.len()];
    let ranked: BTreeMap<usize, Vec<(f64, usize)>> = (open.iter())
        .map(|&set| {
            let scores = scores(model, values, &sets.sets[set]);
            let mut ranked: Vec<_> = scores.into_iter().zip(0..).collect();
            ranked.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            (set, ranked)
        })
        .collect();
    match &filters.shares {
        FilterShares::Each(share) => {
            check_share("the share of filters", *share)?;
            for &set in &open {
                counts[set] = part_of(*share, groups(set));
            }
        }
        FilterShares::Layers(shares) => {
            for (layer, &share) in shares {
                check_share("the share of filters", share)?;
                let set = find_layer(model, sets, layer)?;
                counts[set] = counts[set].max(part_of(share, groups(set)));
            }
        }
        FilterShares::Global(share) => {
            check_share("the share of filters", *share)?;
            let whole = open.iter().map(|&set| sets.sets[set].channels).sum();
            let mut left = part_of(*share, whole);
            let mut all: Vec<(f64, usize, usize)> = (ranked.iter())
                .flat_map(|(&set, groups)| groups.iter().map(move |&(score, at)| (score, set, at)))
                .collect();
            all.sort_by(|a, b| a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2))));
            for (_, set, _) in all {
                let size = sets.sets[set].together;
                if size <= left && counts[set] + 1 < groups(set) {
                    counts[set] += 1;
                    left -= size;
                }
            }
        }
    }
    let mut removed = vec![Vec::new(); sets.sets.len()];
    for (set, ranked) in ranked {
        let Set {
            channels, together, ..
        } = sets.sets[set];
        let stay = channels - counts[set].min(groups(set) - 1) * together;
        let unit = least_common_multiple(together, filters.multiple);
        let stay = stay.div_ceil(unit).saturating_mul(unit).min(channels);
        let mut gone: Vec<usize> = ranked[..(channels - stay) / together]
            .iter()
            .flat_map(|&(_, group)| group * together..(group + 1) * together)
            .collect();
        gone.sort_unstable();
        removed[set] = gone;
    }
    Ok(removed)
}

/// The set of a layer that can be pruned.
fn find_layer(model: &Model, sets: &Sets, layer: &str) -> Result<usize, PruneError> {
    let tensors = model.layout().tensors();
    let gives = |set: &usize| {
        let weights = sets.sets[*set].weights.iter();
        weights
            .map(|&weight| layer_of(&tensors[weight].name))
            .any(|name| name == layer)
    };
    let Some(set) = sets.given().find(gives) else {
        let open = sets.given().filter(|&set| sets.sets[set].kept.is_none());
        let known = open.flat_map(|set| sets.sets[set].weights.iter());
        let known: Vec<&str> = known
            .map(|&weight| layer_of(&tensors[weight].name))
            .collect();
        return Err(PruneError::UnknownLayer {
            layer: layer.to_owned(),
            known: known.join(", "),
        });
    };
    match &sets.sets[set].kept {
        None => Ok(set),
        Some(reason) => Err(PruneError::Kept {
            layer: layer.to_owned(),
            reason: reason.clone(),
        }),
    }
}

/// The model without the removed channels.
fn build(
    model: &Model,
    values: &[f32],
    sets: &Sets,
    removed: &[Vec<usize>],
) -> Result<FiltersPruned, PruneError> {
    let tensors = model.layout().tensors();
    // What stays of every dimension of a tensor; none where all does.
    let stays = |axis: &Option<Axis>| -> Option<Vec<usize>> {
        let axis = axis.as_ref()?;
        let set = sets.find(axis.set);
        let gone = &removed[set];
        if gone.is_empty() {
            return None;
        }
        let channels = sets.sets[set].channels;
        let all = 0..axis.positions * channels;
        Some(
            all.filter(|&at| gone.binary_search(&(at % channels)).is_err())
                .collect(),
        )
    };
    let last_of = |name: &str| {
        let id = tensors.iter().position(|tensor| tensor.name == name)?;
        let all = *tensors[id].shape.last()?;
        let left = stays(sets.tensors[id].last()?).map_or(all, |kept| kept.len());
        Some((all, left))
    };
    let definition = model.definition();
    let layers = definition.layers_for(model.input(), model.target())?;
    let layers = (layers.into_iter().zip(model.summary()))
        .map(|(layer, summary)| {
            let input = layer.input().map(str::to_owned);
            let mut layer = layer.with(Some(summary.name.clone()), input);
            if let Some((all, left)) = last_of(&format!("{}.weight", summary.name))
                && left < all
            {
                match &mut layer {
                    LayerDef::Conv2d(def) => {
                        def.filters = left;
                        if def.groups > 1 {
                            def.groups = left;
                        }
                    }
                    LayerDef::Dense(def) => def.units = Some(left),
                    LayerDef::GroupNorm(def) => def.groups = def.groups * left / all,
                    _ => {}
                }
            }
            layer
        })
        .collect();
    let definition = ModelDef::Layers(LayersDef {
        layer: layers,
        loss: definition.loss(),
    });
    let mut smaller = Model::new(&definition, model.input(), model.target())?;
    if let Some(options) = model.qat_options() {
        smaller = smaller.with_ranges(*options)?;
    }
    let mut new = Vec::with_capacity(smaller.parameters());
    // What only training needs, as the projections of a distillation, stays behind.
    let known = |name: &str| smaller.layout().tensor(name).is_some();
    let kept = tensors.iter().zip(&sets.tensors);
    for (tensor, axes) in kept.filter(|(tensor, _)| known(&tensor.name)) {
        let mut part = values[tensor.range()].to_vec();
        let mut shape = tensor.shape.clone();
        for (dimension, axis) in axes.iter().enumerate() {
            if let Some(kept) = stays(axis) {
                part = take(&part, &shape, dimension, &kept);
                shape[dimension] = kept.len();
            }
        }
        new.extend_from_slice(&part);
    }
    check_length(&smaller, new.len())?;
    let sets = sets.given().map(|set| {
        let Set {
            channels,
            together,
            weights,
            kept,
            ..
        } = &sets.sets[set];
        let layers = weights
            .iter()
            .map(|&weight| layer_of(&tensors[weight].name).to_owned());
        ChannelSet {
            layers: layers.collect(),
            channels: *channels,
            together: *together,
            removed: removed[set].clone(),
            kept: kept.clone(),
        }
    });
    Ok(FiltersPruned {
        sets: sets.collect(),
        model: smaller,
        values: new,
    })
}

/// The entries `kept` of one dimension.
fn take(values: &[f32], shape: &[usize], dimension: usize, kept: &[usize]) -> Vec<f32> {
    let inner: usize = shape[dimension + 1..].iter().product();
    let mut taken = Vec::with_capacity(values.len() / shape[dimension].max(1) * kept.len());
    for block in values.chunks_exact(shape[dimension] * inner) {
        for &at in kept {
            taken.extend_from_slice(&block[at * inner..(at + 1) * inner]);
        }
    }
    taken
}
