//! The CNN of the CIFAR-10 benchmarks of pfl-research (Granqvist et al. 2024, arXiv:2404.06430):
//! two 3x3 convolutions of 32 and 64 channels without padding, 2x2 max pooling, dropout 0.25, a
//! dense layer of 128 units, dropout 0.5, and the softmax output. Weights start Glorot uniform.

use alloc::vec::Vec;
use alloc::vec;

use fl_core::{InputSpec, TargetSpec};

use super::ZooModel;
use crate::error::EdgeError;
use crate::layer::{
    Activation, Conv2dDef, DenseDef, DropoutDef, FlattenDef, LayerDef, MaxPoolDef, Pair,
};
use crate::reference::options;

options! {
    /// `kind = "cnn-pfl"`.
    pub struct CnnPfl {
        /// Dropout rates after the pooling and after the dense layer; `[0.25, 0.5]` when left out.
        pub dropout: [f32; 2],
    }
}

impl Default for CnnPfl {
    fn default() -> Self {
        Self {
            dropout: [0.25, 0.5],
        }
    }
}

impl ZooModel for CnnPfl {
    const KIND: &'static str = "cnn-pfl";
    const SUMMARY: &'static str =
        "pfl-research's CIFAR-10 CNN: conv3x3x32, conv3x3x64, pool, dropout, fc128, dropout";

    fn layers(&self, input: &InputSpec) -> Result<Vec<LayerDef>, EdgeError> {
        super::image(Self::KIND, input, 6)?;
        let conv = |filters: usize, name: &str| {
            LayerDef::Conv2d(Conv2dDef {
                activation: Some(Activation::Relu),
                ..Conv2dDef::new(filters, 3)
            })
            .named(name)
        };
        let dense = DenseDef {
            units: Some(128),
            activation: Some(Activation::Relu),
            ..DenseDef::output()
        };
        Ok(vec![
            conv(32, "conv1"),
            conv(64, "conv2"),
            LayerDef::MaxPool(MaxPoolDef::new(Pair([2, 2]))),
            LayerDef::Dropout(DropoutDef::new(self.dropout[0])),
            LayerDef::Flatten(FlattenDef::default()),
            LayerDef::Dense(dense).named("fc1"),
            LayerDef::Dropout(DropoutDef::new(self.dropout[1])),
            LayerDef::Dense(DenseDef::output()).named("fc2"),
        ])
    }

    fn example() -> (InputSpec, TargetSpec) {
        (
            InputSpec::Real(vec![32, 32, 3]),
            TargetSpec::Class { classes: 10 },
        )
    }
}
