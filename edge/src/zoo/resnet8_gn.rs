//! The 8-layer residual network for small images (He et al. 2016, arXiv:1512.03385, §4.2 with
//! n = 1: 6n + 2 layers of 16, 32 and 64 channels), with group normalisation in place of batch
//! normalisation, whose running statistics do not survive non-IID averaging (Hsieh et al. 2020,
//! arXiv:1910.00189, §5; two channels a group there, two groups by default here).
//!
//! Shortcuts that change shape are 1x1 convolutions (option B). Convolutions have no bias and
//! start He normal.

use alloc::string::{String};
use alloc::vec::Vec;
use alloc::borrow::ToOwned as _;
use alloc::vec;
use alloc::format;

use fl_core::{InputSpec, TargetSpec};

use super::ZooModel;
use crate::error::EdgeError;
use crate::layer::{
    AddDef, Conv2dDef, DenseDef, GlobalAvgPoolDef, GroupNormDef, Init, LayerDef, Padding, Pair,
    ReluDef,
};
use crate::reference::options;

options! {
    /// `kind = "resnet8-gn"`.
    pub struct Resnet8Gn {
        /// Channels of the first stage, doubled twice; 16 when left out.
        pub width: usize,
        /// Groups of every normalisation; 2 when left out. Must divide `width`.
        pub groups: usize,
    }
}

impl Default for Resnet8Gn {
    fn default() -> Self {
        Self {
            width: 16,
            groups: 2,
        }
    }
}

impl Resnet8Gn {
    fn conv(
        &self,
        layers: &mut Vec<LayerDef>,
        name: &str,
        filters: usize,
        kernel: usize,
        stride: usize,
    ) {
        layers.push(
            LayerDef::Conv2d(Conv2dDef {
                padding: Padding::Same,
                stride: Pair([stride, stride]),
                bias: false,
                init: Init::HeNormal,
                ..Conv2dDef::new(filters, kernel)
            })
            .named(name),
        );
        layers.push(
            LayerDef::GroupNorm(GroupNormDef::new(self.groups)).named(format!("{name}-norm")),
        );
    }
}

impl ZooModel for Resnet8Gn {
    const KIND: &'static str = "resnet8-gn";
    const SUMMARY: &'static str =
        "an 8-layer residual network with group normalisation, for small images";

    fn layers(&self, input: &InputSpec) -> Result<Vec<LayerDef>, EdgeError> {
        super::image(Self::KIND, input, 4)?;
        let relu = |name: String| LayerDef::Relu(ReluDef::default()).named(name);
        let mut layers = Vec::new();
        self.conv(&mut layers, "stem", self.width, 3, 1);
        layers.push(relu("stage0".to_owned()));
        for stage in 1..=3usize {
            let before = format!("stage{}", stage - 1);
            let filters = self.width << (stage - 1);
            let stride = if stage == 1 { 1 } else { 2 };
            let first = format!("stage{stage}-conv1");
            let second = format!("stage{stage}-conv2");
            self.conv(&mut layers, &first, filters, 3, stride);
            layers.push(relu(format!("{first}-relu")));
            self.conv(&mut layers, &second, filters, 3, 1);
            let from = if stage == 1 {
                before
            } else {
                let shortcut = format!("stage{stage}-shortcut");
                let at = layers.len();
                self.conv(&mut layers, &shortcut, filters, 1, stride);
                layers[at] = layers[at].clone().fed_by(before);
                format!("{second}-norm")
            };
            layers.push(LayerDef::Add(AddDef::new(from)).named(format!("stage{stage}-add")));
            layers.push(relu(format!("stage{stage}")));
        }
        layers.push(LayerDef::GlobalAvgPool(GlobalAvgPoolDef::default()));
        layers.push(LayerDef::Dense(DenseDef::output()).named("fc"));
        Ok(layers)
    }

    fn example() -> (InputSpec, TargetSpec) {
        (
            InputSpec::Real(vec![32, 32, 3]),
            TargetSpec::Class { classes: 10 },
        )
    }
}
