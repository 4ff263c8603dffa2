//! The "2NN" of McMahan et al. 2017 (arXiv:1602.05629, §3): two hidden layers of 200 rectified
//! linear units; 199,210 parameters for MNIST.
//!
//! The paper does not say how the weights start; we take TensorFlow's default (Glorot uniform)
//! unless told otherwise.

use alloc::vec::Vec;
use alloc::vec;
use alloc::format;

use fl_core::{InputSpec, TargetSpec};

use super::ZooModel;
use crate::error::EdgeError;
use crate::layer::{Activation, DenseDef, FlattenDef, Init, LayerDef};
use crate::reference::options;

options! {
    /// `kind = "mlp-2nn"`: dense layers with relu.
    pub struct Mlp2nn {
        /// Units of each hidden layer; `[200, 200]` when left out.
        pub hidden: Vec<usize>,
        /// How the weights of all layers start; `"glorot-uniform"` when left out.
        #[serde(skip_serializing_if = "is_default")]
        pub init: Init,
    }
}

fn is_default(init: &Init) -> bool {
    *init == Init::default()
}

impl Default for Mlp2nn {
    fn default() -> Self {
        Self {
            hidden: vec![200, 200],
            init: Init::default(),
        }
    }
}

impl ZooModel for Mlp2nn {
    const KIND: &'static str = "mlp-2nn";
    const SUMMARY: &'static str = "McMahan et al. 2017's 2NN: two hidden layers of 200 relu units (199,210 parameters on MNIST)";

    fn layers(&self, input: &InputSpec) -> Result<Vec<LayerDef>, EdgeError> {
        super::real(Self::KIND, input)?;
        let mut layers = vec![LayerDef::Flatten(FlattenDef::default())];
        for (index, &units) in self.hidden.iter().enumerate() {
            let dense = DenseDef {
                units: Some(units),
                activation: Some(Activation::Relu),
                init: self.init,
                ..DenseDef::output()
            };
            layers.push(LayerDef::Dense(dense).named(format!("fc{}", index + 1)));
        }
        let last = format!("fc{}", self.hidden.len() + 1);
        let output = DenseDef {
            init: self.init,
            ..DenseDef::output()
        };
        layers.push(LayerDef::Dense(output).named(last));
        Ok(layers)
    }

    fn example() -> (InputSpec, TargetSpec) {
        (
            InputSpec::Real(vec![28, 28, 1]),
            TargetSpec::Class { classes: 10 },
        )
    }
}
