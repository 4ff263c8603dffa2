//! A multilayer perceptron: dense layers on the flat input, 784-256-128-10 by default; 235,146
//! parameters for MNIST. Weights start Glorot uniform.

use alloc::vec::Vec;
use alloc::vec;
use alloc::format;

use fl_core::{InputSpec, TargetSpec};

use super::ZooModel;
use crate::error::EdgeError;
use crate::layer::{Activation, DenseDef, FlattenDef, LayerDef};
use crate::reference::options;

options! {
    /// `kind = "mlp"`.
    pub struct Mlp {
        /// Units of each hidden layer; `[256, 128]` when left out.
        pub hidden: Vec<usize>,
        /// The function after each hidden layer; `"relu"` when left out.
        pub activation: Activation,
    }
}

impl Default for Mlp {
    fn default() -> Self {
        Self {
            hidden: vec![256, 128],
            activation: Activation::Relu,
        }
    }
}

impl ZooModel for Mlp {
    const KIND: &'static str = "mlp";
    const SUMMARY: &'static str =
        "dense layers of any number and size: 256 and 128 units (235,146 parameters on MNIST)";

    fn layers(&self, input: &InputSpec) -> Result<Vec<LayerDef>, EdgeError> {
        super::real(Self::KIND, input)?;
        let mut layers = vec![LayerDef::Flatten(FlattenDef::default())];
        for (index, &units) in self.hidden.iter().enumerate() {
            let dense = DenseDef {
                units: Some(units),
                activation: Some(self.activation),
                ..DenseDef::output()
            };
            layers.push(LayerDef::Dense(dense).named(format!("fc{}", index + 1)));
        }
        let last = format!("fc{}", self.hidden.len() + 1);
        layers.push(LayerDef::Dense(DenseDef::output()).named(last));
        Ok(layers)
    }

    fn example() -> (InputSpec, TargetSpec) {
        (
            InputSpec::Real(vec![28, 28, 1]),
            TargetSpec::Class { classes: 10 },
        )
    }
}
