//! Random stacks of layers, that may or may not make a model.

use fl_edge::layer::{
    Activation, AddDef, AvgPoolDef, BatchNormDef, Conv2dDef, DenseDef, DropoutDef, FlattenDef,
    GlobalAvgPoolDef, GlobalMaxPoolDef, GroupNormDef, LayerDef, LayerNormDef, LeakyReluDef,
    MaxPoolDef, Padding, Pair, ReluDef, TanhDef,
};
use proptest::prelude::*;

const ACTIVATIONS: [Option<Activation>; 7] = [
    None,
    Some(Activation::Relu),
    Some(Activation::Relu6),
    Some(Activation::LeakyRelu),
    Some(Activation::Gelu),
    Some(Activation::Tanh),
    Some(Activation::Sigmoid),
];

fn padding() -> impl Strategy<Value = Padding> {
    prop_oneof![
        Just(Padding::Valid),
        Just(Padding::Same),
        [0usize..2, 0usize..2].prop_map(Padding::Explicit),
    ]
}

fn pair(most: usize) -> impl Strategy<Value = Pair> {
    [1..=most, 1..=most].prop_map(Pair)
}

/// `number` is the layer's place; only the layers before it can be named.
fn layer(number: usize) -> impl Strategy<Value = LayerDef> {
    let activation = || proptest::sample::select(ACTIVATIONS.to_vec());
    let name = Some(format!("l{number}"));
    let from = (0..number.max(1)).prop_map(|earlier| format!("l{earlier}"));
    let named = move |layer: LayerDef| {
        let mut layer = layer;
        match &mut layer {
            LayerDef::Dense(def) => def.name = name.clone(),
            LayerDef::Conv2d(def) => def.name = name.clone(),
            LayerDef::MaxPool(def) => def.name = name.clone(),
            LayerDef::AvgPool(def) => def.name = name.clone(),
            LayerDef::Relu(def) => def.name = name.clone(),
            LayerDef::GroupNorm(def) => def.name = name.clone(),
            LayerDef::BatchNorm(def) => def.name = name.clone(),
            LayerDef::Add(def) => def.name = name.clone(),
            LayerDef::Dropout(def) => def.name = name.clone(),
            LayerDef::LeakyRelu(def) => def.name = name.clone(),
            LayerDef::Tanh(def) => def.name = name.clone(),
            _ => {}
        }
        layer
    };
    prop_oneof![
        4 => (1usize..5, pair(3), pair(2), padding(), 1usize..3, activation()).prop_map(
            |(filters, kernel, stride, padding, groups, activation)| {
                LayerDef::Conv2d(Conv2dDef {
                    kernel,
                    stride,
                    padding,
                    groups,
                    activation,
                    bias: filters != 3,
                    ..Conv2dDef::new(2 * filters, 1)
                })
            }
        ),
        1 => (pair(3), proptest::option::of(pair(2)), padding()).prop_map(|(size, stride, padding)| {
            LayerDef::MaxPool(MaxPoolDef { stride, padding, ..MaxPoolDef::new(size) })
        }),
        1 => (pair(3), proptest::option::of(pair(2)), padding()).prop_map(|(size, stride, padding)| {
            LayerDef::AvgPool(AvgPoolDef { name: None, input: None, size, stride, padding })
        }),
        2 => Just(LayerDef::Relu(ReluDef::default())),
        1 => Just(LayerDef::Tanh(TanhDef::default())),
        1 => Just(LayerDef::LeakyRelu(LeakyReluDef { name: None, input: None, slope: 0.2 })),
        1 => (1usize..4).prop_map(|groups| LayerDef::GroupNorm(GroupNormDef::new(groups))),
        1 => Just(LayerDef::BatchNorm(BatchNormDef::default())),
        2 => from.prop_map(|from| LayerDef::Add(AddDef::new(from))),
        1 => Just(LayerDef::Dropout(DropoutDef::new(0.3))),
    ]
    .prop_map(named)
}

pub(crate) fn layers() -> impl Strategy<Value = Vec<LayerDef>> {
    let body = (0usize..6).prop_flat_map(|count| (0..count).map(layer).collect::<Vec<_>>());
    let head = prop_oneof![
        Just(vec![LayerDef::Flatten(FlattenDef::default())]),
        Just(vec![
            LayerDef::Flatten(FlattenDef::default()),
            LayerDef::LayerNorm(LayerNormDef {
                name: None,
                input: None,
                epsilon: 1e-5,
            }),
        ]),
        Just(vec![LayerDef::GlobalAvgPool(GlobalAvgPoolDef::default())]),
        Just(vec![LayerDef::GlobalMaxPool(GlobalMaxPoolDef::default())]),
    ];
    (body, head).prop_map(|(mut layers, head)| {
        layers.extend(head);
        layers.push(LayerDef::Dense(DenseDef::output()));
        layers
    })
}
