//! Random stacks of layers: a definition is refused or it trains, never anything else, and
//! kernels, parts of batches and burn agree on what it computes.

use std::num::NonZeroUsize;
use std::sync::Arc;

use fl_core::{InputSpec, Optimizer, TargetSpec};
use fl_edge::kernel::Kernels;
use fl_edge::layer::{
    Activation, AddDef, AvgPoolDef, BatchNormDef, Conv2dDef, DenseDef, DropoutDef, FlattenDef,
    GlobalAvgPoolDef, GlobalMaxPoolDef, GroupNormDef, LayerDef, LayerNormDef, LeakyReluDef,
    MaxPoolDef, Padding, Pair, ReluDef, TanhDef,
};
use fl_edge::{LayersDef, Model, ModelDef, Session, Step};
use proptest::prelude::*;

use crate::common::{Case, stream};
use crate::{examples, oracle};

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

/// The bits of losses and parameters after three steps.
fn train(case: &Case, kernels: &'static Kernels, most: usize) -> (Vec<u64>, Vec<u32>) {
    let data = case.data(7);
    let global = case.model.init(&mut stream(3));
    let most = NonZeroUsize::new(most).expect("not zero");
    let mut session = Session::new(case.model.clone(), kernels).with_most_rows(most);
    session.start(global.values(), &Optimizer::SGD, 4);
    let step = Step {
        optimizer: Optimizer::SGD,
        rate: 0.05,
        number: 0,
        max_norm: None,
        proximal_mu: 0.1,
        anchor: global.values(),
    };
    let mut random = stream(8);
    let batches = [&[3u32, 1, 0, 6][..], &[2, 5, 4], &[1]];
    let losses = batches.map(|rows| {
        let loss = session.step(&data, rows, &step, &mut random);
        loss.expect("examples of the model").to_bits()
    });
    let weights = session.weights().iter().map(|w| w.to_bits()).collect();
    (losses.to_vec(), weights)
}

/// The same definition with every dropout at rate 0.
fn idle(def: &ModelDef) -> ModelDef {
    let mut def = def.clone();
    if let ModelDef::Layers(def) = &mut def {
        for layer in &mut def.layer {
            if let LayerDef::Dropout(dropout) = layer {
                dropout.rate = 0.0;
            }
        }
    }
    def
}

/// The bits of the loss of five examples: of the forward pass of training, and of evaluation,
/// whose plan gives memory away sooner.
fn losses(case: &Case) -> [u64; 2] {
    let data = case.data(5);
    let global = case.model.init(&mut stream(3));
    let mut session = Session::new(case.model.clone(), Kernels::best());
    session.start(global.values(), &Optimizer::SGD, 5);
    let trained = session.gradient(&data, &[0, 1, 2, 3, 4], &mut stream(5));
    let evaluated = session.evaluate(global.values(), &data, 0..5);
    [
        trained.expect("examples of the model"),
        evaluated.expect("good").0,
    ]
    .map(f64::to_bits)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn are_refused_or_train(layers in layers(), size in [1usize..8, 1usize..8], channels in 1usize..4) {
        let input = InputSpec::Real(vec![size[0], size[1], 2 * channels]);
        let def = ModelDef::Layers(LayersDef { layer: layers, loss: None });
        let text = toml::to_string(&def).expect("serialises");
        prop_assert_eq!(&toml::from_str::<ModelDef>(&text).expect("reads"), &def);
        let target = TargetSpec::Class { classes: 3 };
        if let Ok(model) = Model::new(&def, &input, target) {
            let case = Case { name: "random", def, model: Arc::new(model) };
            let all = Kernels::all_available();
            let first = train(&case, &all[0], 7);
            for kernels in all {
                prop_assert!(train(&case, kernels, 7) == first, "{}", kernels.name());
            }
            prop_assert!(train(&case, &all[0], 2) == first, "in parts");
            let idle = idle(&case.def);
            let model = Model::new(&idle, &input, target).expect("as before");
            let idle = Case { name: "random", def: idle, model: Arc::new(model) };
            let [trained, evaluated] = losses(&idle);
            if !case.has_batch_norm() {
                prop_assert_eq!(trained, evaluated, "training and evaluation");
            }
            prop_assert_eq!(losses(&case)[1], evaluated, "dropout is not for evaluation");
            oracle::check_random(&idle, 3, 1e-5);
            if !case.has_batch_norm() {
                examples::check(&case, 3, 1e-4);
            }
        }
    }
}
