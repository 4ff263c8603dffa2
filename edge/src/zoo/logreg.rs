//! Softmax regression, called (multinomial) logistic regression in the literature.
//!
//! The model of the synthetic data sets of Li et al. 2020 (FedProx, arXiv:1812.06127, §5.1).

use alloc::vec::Vec;
use alloc::vec;

use fl_core::{InputSpec, TargetSpec};

use super::ZooModel;
use crate::error::EdgeError;
use crate::layer::{DenseDef, FlattenDef, Init, LayerDef};
use crate::reference::options;

options! {
    /// `kind = "logreg"`: one dense layer.
    #[derive(Default)]
    pub struct Logreg {
        /// How the weight starts; `"glorot-uniform"` when left out.
        pub init: Init,
    }
}

impl ZooModel for Logreg {
    const KIND: &'static str = "logreg";
    const SUMMARY: &'static str = "softmax regression: one dense layer on the flat input";

    fn layers(&self, input: &InputSpec) -> Result<Vec<LayerDef>, EdgeError> {
        super::real(Self::KIND, input)?;
        Ok(vec![
            LayerDef::Flatten(FlattenDef::default()),
            LayerDef::Dense(DenseDef {
                init: self.init,
                ..DenseDef::output()
            })
            .named("fc"),
        ])
    }

    fn example() -> (InputSpec, TargetSpec) {
        (InputSpec::Real(vec![60]), TargetSpec::Class { classes: 10 })
    }
}
