//! Model files: read back exactly, by others too; damage is an error and costs no memory.

mod allocator;
mod damage;
mod forge;
mod parameters;
mod programs;
mod steps;

use std::error::Error;
use std::sync::Arc;

use fl_core::{ClientId, InputSpec, Parameters, Purpose, RoundId, Seed, Stream, TargetSpec};
use fl_edge::layer::{Conv2dDef, DenseDef, FlattenDef, GroupNormDef, LayerDef, Padding};
use fl_edge::{LayersDef, Model, ModelDef};

/// What a test returns that fails by an error.
type Tested = Result<(), Box<dyn Error>>;

fn start(model: &Model) -> Parameters {
    let mut stream = Stream::at(Purpose::Testing, Seed(1), RoundId(0), ClientId(0));
    let mut parameters = model.init(&mut stream);
    // Numbers that only their bits describe.
    let odd = [-0.0, f32::NAN, f32::NEG_INFINITY, 1e-45, f32::MAX];
    for (value, odd) in parameters.values_mut().iter_mut().zip(odd) {
        *value = odd;
    }
    parameters
}

/// A model of 42 numbers in six tensors, none of them a multiple of the alignment.
fn small() -> Model {
    let layers = vec![
        LayerDef::Conv2d(Conv2dDef {
            padding: Padding::Same,
            ..Conv2dDef::new(2, 1)
        }),
        LayerDef::GroupNorm(GroupNormDef {
            epsilon: 0.1,
            ..GroupNormDef::new(1)
        }),
        LayerDef::Flatten(FlattenDef::default()),
        LayerDef::Dense(DenseDef::output()),
    ];
    let def = ModelDef::Layers(LayersDef {
        layer: layers,
        loss: None,
    });
    let target = TargetSpec::Class { classes: 2 };
    Model::new(&def, &InputSpec::Real(vec![2, 4, 1]), target).expect("a model of two classes")
}

fn written(model: &Model, parameters: &Parameters) -> Vec<u8> {
    let mut bytes = Vec::new();
    let written = fl_edge::file::write_parameters(model, parameters, &mut bytes);
    written.expect("parameters of this model, written into memory");
    bytes
}

fn shared(bytes: &[u8]) -> fl_edge::SharedBytes {
    Arc::new(bytes.to_vec())
}
