//! Random stacks of layers: a definition is refused or it trains, never anything else, and
//! kernels, parts of batches and burn agree on what it computes.

use std::num::NonZeroUsize;
use std::sync::Arc;

use fl_core::{InputSpec, Optimizer, TargetSpec};
use fl_edge::kernel::Kernels;
use fl_edge::layer::LayerDef;
use fl_edge::{LayersDef, Model, ModelDef, Session, Step};
use proptest::prelude::*;

use crate::common::{Case, stream};
use crate::stacks::layers;
use crate::{examples, oracle};

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
