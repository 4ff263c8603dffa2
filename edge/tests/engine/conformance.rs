//! The public suite of `fl_core` for trainers, on models that are trained in different ways.

use std::sync::Arc;

use crate::common::{Synthetic, stream};
use fl_core::{Examples, InputSpec, TargetSpec};
use fl_edge::{EdgeTrainer, Model, ModelDef};

fn conforms(text: &str, input: &InputSpec, learning_rate: f32) {
    let target = TargetSpec::Class { classes: 3 };
    let def = toml::from_str::<ModelDef>(text).expect(text);
    let model = Arc::new(Model::new(&def, input, target).expect(text));
    let width = input.len();
    let clients = [12, 7, 1, 23, 16, 5, 9, 31]
        .into_iter()
        .zip(0..)
        .map(|(len, seed)| {
            let mut data = Synthetic::new(input, target, len, seed);
            // The class shows in the first three inputs.
            for (label, x) in data.labels.iter().zip(data.reals.chunks_mut(width)) {
                x[*label as usize] += 3.0;
            }
            data
        })
        .collect::<Vec<_>>();
    let clients = clients
        .iter()
        .map(|data| data as &dyn Examples)
        .collect::<Vec<_>>();
    let global = model.init(&mut stream(3));
    fl_core::testing::trainer(
        &|| EdgeTrainer::new(model.clone()),
        &global,
        &clients,
        learning_rate,
    );
}

#[test]
fn softmax_regression() {
    conforms("kind = \"logreg\"", &InputSpec::Real(vec![60]), 0.1);
}

#[test]
fn dense_layers() {
    let text = "kind = \"mlp-2nn\"\nhidden = [20, 11]";
    conforms(text, &InputSpec::Real(vec![9]), 0.1);
}

#[test]
fn dense_layers_with_other_activations() {
    let text = "layer = [{ kind = \"dense\", units = 9, activation = \"gelu\" },\n\
                { kind = \"dense\", units = 8, activation = \"tanh\" }, { kind = \"dense\" }]";
    conforms(text, &InputSpec::Real(vec![9]), 0.1);
}

#[test]
fn dropout() {
    let text = "layer = [{ kind = \"dense\", units = 20, activation = \"relu\" },\n\
                { kind = \"dropout\", rate = 0.2 }, { kind = \"dense\" }]";
    conforms(text, &InputSpec::Real(vec![9]), 0.05);
}

#[test]
fn convolutions_and_norms() {
    let text = "kind = \"resnet8-gn\"\nwidth = 4";
    conforms(text, &InputSpec::Real(vec![6, 6, 2]), 0.05);
}
