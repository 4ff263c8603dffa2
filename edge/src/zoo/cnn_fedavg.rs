//! The CNN of McMahan et al. 2017 (arXiv:1602.05629, §3): two 5x5 convolutions of 32 and 64
//! channels, each with relu and 2x2 max pooling, a dense layer of 512 units with relu, and the
//! softmax output; 1,663,370 parameters for MNIST, which fixes the padding to "same".
//!
//! The paper does not say how the weights start; we take TensorFlow's default (Glorot uniform).

use alloc::vec::Vec;
use alloc::vec;
use alloc::format;

use fl_core::{InputSpec, TargetSpec};

use super::ZooModel;
use crate::error::EdgeError;
use crate::layer::{
    Activation, Conv2dDef, DenseDef, FlattenDef, LayerDef, MaxPoolDef, Padding, Pair,
};
use crate::reference::options;

options! {
    /// `kind = "cnn-fedavg"`.
    pub struct CnnFedavg {
        /// Channels of the two convolutions; `[32, 64]` when left out.
        pub filters: [usize; 2],
        /// Units of the dense layer; 512 when left out.
        pub units: usize,
    }
}

impl Default for CnnFedavg {
    fn default() -> Self {
        Self {
            filters: [32, 64],
            units: 512,
        }
    }
}

impl ZooModel for CnnFedavg {
    const KIND: &'static str = "cnn-fedavg";
    const SUMMARY: &'static str = "McMahan et al. 2017's CNN: conv5x5x32, pool, conv5x5x64, pool, fc512 (1,663,370 parameters on MNIST)";

    fn layers(&self, input: &InputSpec) -> Result<Vec<LayerDef>, EdgeError> {
        super::image(Self::KIND, input, 4)?;
        let mut layers = Vec::new();
        for (index, filters) in self.filters.into_iter().enumerate() {
            let conv = Conv2dDef {
                padding: Padding::Same,
                activation: Some(Activation::Relu),
                ..Conv2dDef::new(filters, 5)
            };
            layers.push(LayerDef::Conv2d(conv).named(format!("conv{}", index + 1)));
            layers.push(LayerDef::MaxPool(MaxPoolDef::new(Pair([2, 2]))));
        }
        layers.push(LayerDef::Flatten(FlattenDef::default()));
        let dense = DenseDef {
            units: Some(self.units),
            activation: Some(Activation::Relu),
            ..DenseDef::output()
        };
        layers.push(LayerDef::Dense(dense).named("fc1"));
        layers.push(LayerDef::Dense(DenseDef::output()).named("fc2"));
        Ok(layers)
    }

    fn example() -> (InputSpec, TargetSpec) {
        (
            InputSpec::Real(vec![28, 28, 1]),
            TargetSpec::Class { classes: 10 },
        )
    }
}
