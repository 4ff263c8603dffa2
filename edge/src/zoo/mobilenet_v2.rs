//! MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381): inverted residuals with linear
//! bottlenecks, table 2; 3,504,872 parameters and 300,774,272 multiply-accumulates for 1000
//! classes at 224x224.
//!
//! A bottleneck expands its input by a 1x1 convolution, filters each channel by a depthwise 3x3
//! one and projects by a linear 1x1 one; where shapes allow, its input is added. Normalisation
//! follows every convolution and relu6 all but the projection. Widths are multiples of 8 that lie
//! within 10 % below the wanted width (as the published implementation rounds them), and a
//! multiplier below 1 leaves the last convolution as it is (§6.1). Images are padded by one pixel
//! on every side, as torchvision does it, and weights start He normal. There is no dropout.
//!
//! Batch normalisation is what the paper has; read in [`BatchNormDef`] what it means in federated
//! learning. `norm = "group"` is the alternative of Hsieh et al. 2020 (arXiv:1910.00189, §5).

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::vec;
use alloc::format;

use fl_core::{InputSpec, TargetSpec};
use serde::{Deserialize, Serialize};

use super::ZooModel;
use crate::error::EdgeError;
use crate::layer::{
    AddDef, BatchNormDef, Conv2dDef, DenseDef, GlobalAvgPoolDef, GroupNormDef, Init, LayerDef,
    Padding, Pair, Relu6Def,
};
use crate::reference::options;

/// Expansion, channels, repetitions and stride of each stage of bottlenecks: table 2.
const STAGES: [[usize; 4]; 7] = [
    [1, 16, 1, 1],
    [6, 24, 2, 2],
    [6, 32, 3, 2],
    [6, 64, 4, 2],
    [6, 96, 3, 1],
    [6, 160, 3, 2],
    [6, 320, 1, 1],
];

/// Channels of the first convolution.
const STEM: usize = 32;

/// The normalisation after every convolution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MobilenetNorm {
    /// Over the batch, as in the paper.
    #[default]
    Batch,
    /// Over `groups` groups of channels of each example.
    Group,
}

options! {
    /// `kind = "mobilenet-v2"`.
    pub struct MobilenetV2 {
        /// Multiplies all channels, above 0 and at most 16; 1 when left out.
        pub width: f32,
        /// Stride of the first convolution: 2 when left out, 1 for images of 28 to 32 pixels.
        pub stem_stride: usize,
        /// Stages of bottlenecks, from 1 to the paper's 7, which it is when left out.
        pub stages: usize,
        /// Channels of the last convolution before a width above 1; 1280 when left out.
        pub head: usize,
        /// The normalisation; `"batch"` when left out.
        pub norm: MobilenetNorm,
        /// Groups of every group normalisation; 8 when left out.
        pub groups: usize,
    }
}

impl Default for MobilenetV2 {
    fn default() -> Self {
        Self {
            width: 1.0,
            stem_stride: 2,
            stages: STAGES.len(),
            head: 1280,
            norm: MobilenetNorm::Batch,
            groups: 8,
        }
    }
}

/// `channels * width`, rounded to a multiple of 8 of at least 8, and up where rounding down would
/// take more than a tenth.
fn rounded(channels: usize, width: f32) -> usize {
    let wanted = channels as f64 * f64::from(width);
    let nearest = ((wanted + 4.0) as usize / 8 * 8).max(8);
    match (nearest as f64) < 0.9 * wanted {
        true => nearest + 8,
        false => nearest,
    }
}

/// How a convolution is followed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    Relu6,
    Linear,
}

impl MobilenetV2 {
    /// A convolution, its normalisation and its relu6; the last layer's name.
    fn conv(
        &self,
        layers: &mut Vec<LayerDef>,
        name: &str,
        [filters, kernel, stride, groups]: [usize; 4],
        after: After,
    ) -> String {
        let conv = Conv2dDef {
            stride: Pair([stride, stride]),
            padding: Padding::Explicit([kernel / 2, kernel / 2]),
            groups,
            bias: false,
            init: Init::HeNormal,
            ..Conv2dDef::new(filters, kernel)
        };
        layers.push(LayerDef::Conv2d(conv).named(name));
        let norm = match self.norm {
            MobilenetNorm::Batch => LayerDef::BatchNorm(BatchNormDef::default()),
            MobilenetNorm::Group => LayerDef::GroupNorm(GroupNormDef::new(self.groups)),
        };
        let last = format!("{name}-norm");
        layers.push(norm.named(&last));
        match after {
            After::Linear => last,
            After::Relu6 => {
                let last = format!("{name}-relu6");
                layers.push(LayerDef::Relu6(Relu6Def::default()).named(&last));
                last
            }
        }
    }

    fn option(key: &'static str, value: impl ToString, range: &'static str) -> EdgeError {
        EdgeError::Option {
            model: Self::KIND,
            key,
            value: value.to_string(),
            range,
        }
    }
}

impl ZooModel for MobilenetV2 {
    const KIND: &'static str = "mobilenet-v2";
    const SUMMARY: &'static str = "Sandler et al. 2018's MobileNetV2: inverted residuals with depthwise convolutions (3,504,872 parameters for 1000 classes)";

    fn layers(&self, input: &InputSpec) -> Result<Vec<LayerDef>, EdgeError> {
        super::image(Self::KIND, input, 4)?;
        if !(self.width > 0.0 && self.width <= 16.0) {
            return Err(Self::option("width", self.width, "above 0 and at most 16"));
        }
        if !(1..=STAGES.len()).contains(&self.stages) {
            return Err(Self::option("stages", self.stages, "from 1 to 7"));
        }
        if self.head > 1 << 20 {
            return Err(Self::option("head", self.head, "at most 1,048,576"));
        }
        let mut layers = Vec::new();
        let mut channels = rounded(STEM, self.width);
        let stem = [channels, 3, self.stem_stride, 1];
        let mut before = self.conv(&mut layers, "stem", stem, After::Relu6);
        let mut block = 0;
        for [expansion, filters, repetitions, stride] in STAGES.into_iter().take(self.stages) {
            let filters = rounded(filters, self.width);
            for repetition in 0..repetitions {
                block += 1;
                let stride = if repetition == 0 { stride } else { 1 };
                let name = |part: &str| format!("block{block}-{part}");
                let wide = expansion * channels;
                if expansion > 1 {
                    let expand = [wide, 1, 1, 1];
                    self.conv(&mut layers, &name("expand"), expand, After::Relu6);
                }
                let depthwise = [wide, 3, stride, wide];
                self.conv(&mut layers, &name("depthwise"), depthwise, After::Relu6);
                let project = [filters, 1, 1, 1];
                let mut last = self.conv(&mut layers, &name("project"), project, After::Linear);
                if stride == 1 && channels == filters {
                    last = name("add");
                    layers.push(LayerDef::Add(AddDef::new(before)).named(&last));
                }
                (before, channels) = (last, filters);
            }
        }
        let head = [rounded(self.head, self.width.max(1.0)), 1, 1, 1];
        self.conv(&mut layers, "head", head, After::Relu6);
        layers.push(LayerDef::GlobalAvgPool(GlobalAvgPoolDef::default()).named("pool"));
        layers.push(LayerDef::Dense(DenseDef::output()).named("fc"));
        Ok(layers)
    }

    fn example() -> (InputSpec, TargetSpec) {
        (
            InputSpec::Real(vec![96, 96, 3]),
            TargetSpec::Class { classes: 10 },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Model, ModelDef};

    /// The parameters at width 1 are those of torchvision's `mobilenet_v2` (the paper, table 4:
    /// 3.4 million). The authors' checkpoints are listed with 582, 300, 209 and 97 million
    /// multiply-accumulates at these widths; the exact numbers here were summed over table 2 by a
    /// script of its own.
    #[test]
    fn parameters_and_work_are_the_published() {
        for (width, parameters, macs) in [
            (1.0, 3_504_872, 300_774_272),
            (1.4, 6_108_776, 582_195_824),
            (0.75, 2_636_424, 209_069_792),
            (0.5, 1_968_680, 97_131_840),
        ] {
            let def = ModelDef::MobilenetV2(MobilenetV2 {
                width,
                ..MobilenetV2::default()
            });
            let input = InputSpec::Real(vec![224, 224, 3]);
            let target = TargetSpec::Class { classes: 1000 };
            let model = Model::new(&def, &input, target).expect("builds");
            assert_eq!(model.trained_parameters(), parameters, "{width}");
            assert_eq!(model.macs_per_example(), macs, "{width}");
        }
    }

    #[test]
    fn widths_round_as_the_published_implementation_does() {
        for (channels, width, expected) in [
            (32, 1.0, 32),
            (32, 0.5, 16),
            (24, 0.5, 16),
            (16, 0.35, 8),
            (24, 0.75, 24),
            (96, 0.75, 72),
            (320, 1.4, 448),
            (24, 1.4, 32),
        ] {
            assert_eq!(rounded(channels, width), expected, "{channels} x {width}");
        }
    }

    #[test]
    fn small_images_group_norm_and_wrong_options() {
        let build = |text: &str| {
            let def = toml::from_str::<ModelDef>(text).expect("reads");
            let input = InputSpec::Real(vec![28, 28, 1]);
            Model::new(&def, &input, TargetSpec::Class { classes: 10 })
                .map_err(|error| error.to_string())
        };
        let text = "kind = \"mobilenet-v2\"\nwidth = 0.25\nstem-stride = 1\n";
        let batch = build(text).expect("builds");
        let group = build(&format!("{text}norm = \"group\"")).expect("builds");
        assert_eq!(batch.trained_parameters(), group.parameters());
        assert!(batch.parameters() > group.parameters());
        let shape = |name: &str| {
            let layers = batch.summary().iter();
            let mut found = layers.filter(|layer| layer.name == name);
            found.next().expect("a layer").output_shape.clone()
        };
        assert_eq!(shape("stem"), [28, 28, 8]);
        assert_eq!(shape("head"), [2, 2, 1280]);
        for (option, message) in [
            (
                "width = 0.0",
                "the model `mobilenet-v2` has width = 0; it must be above 0 and at most 16",
            ),
            (
                "stages = 8",
                "the model `mobilenet-v2` has stages = 8; it must be from 1 to 7",
            ),
        ] {
            let text = format!("kind = \"mobilenet-v2\"\n{option}");
            assert_eq!(build(&text).expect_err("refused"), message);
        }
    }
}
