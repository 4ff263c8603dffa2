//! Networks that published times are about, as layers of this crate; for counting only.
//!
//! Batch normalisation is left out, since it is folded into the convolution before it when a
//! network is served; local response normalisation (AlexNet) has no layer here and is left out too.

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use fl_core::{InputSpec, TargetSpec};

use crate::layer::{
    Activation, AddDef, AvgPoolDef, Conv2dDef, DenseDef, FlattenDef, GlobalAvgPoolDef, LayerDef,
    MaxPoolDef, Padding, Pair, ReluDef,
};
use crate::{EdgeError, LayersDef, Model, ModelDef};

/// The names that [`network`] knows, with where they come from.
pub const NETWORKS: &[(&str, &str)] = &[
    (
        "mobilenet-v1",
        "Howard et al. 2017, arXiv:1704.04861, table 1; 569 M at 224",
    ),
    (
        "mobilenet-v2",
        "Sandler et al. 2018, arXiv:1801.04381, table 2; 300 M at 224",
    ),
    (
        "resnet-18",
        "He et al. 2016, arXiv:1512.03385, table 1; 1.8 G at 224",
    ),
    (
        "resnet-50",
        "He et al. 2016, arXiv:1512.03385, table 1, stride on the 3x3; 4.1 G at 224",
    ),
    (
        "vgg-16",
        "Simonyan & Zisserman 2015, arXiv:1409.1556, table 1 D; 15.5 G at 224",
    ),
    (
        "alexnet",
        "Krizhevsky et al. 2012, two groups, at 227; 0.72 G",
    ),
    (
        "tiny-ic",
        "MLPerf Tiny image classification: ResNet of 8 layers at 32; 12.5 M",
    ),
    (
        "tiny-vww",
        "MLPerf Tiny visual wake words: MobileNet-v1 0.25 at 96; 7.5 M",
    ),
    (
        "tiny-kws",
        "MLPerf Tiny keyword spotting: DS-CNN small at 49x10; 2.7 M",
    ),
    (
        "tiny-ad",
        "MLPerf Tiny anomaly detection: autoencoder of ten dense layers; 0.26 M",
    ),
    (
        "leaf-femnist",
        "Caldas et al. 2018, arXiv:1812.01097: LEAF's CNN with 2048 units at 28",
    ),
];

struct Net(Vec<LayerDef>);

impl Net {
    fn conv(
        &mut self,
        filters: usize,
        kernel: [usize; 2],
        stride: usize,
        groups: usize,
        relu: bool,
    ) -> &mut Self {
        self.0.push(LayerDef::Conv2d(Conv2dDef {
            kernel: Pair(kernel),
            stride: Pair([stride, stride]),
            padding: Padding::Same,
            groups,
            activation: relu.then_some(Activation::Relu),
            ..Conv2dDef::new(filters, 1)
        }));
        self
    }

    fn square(&mut self, filters: usize, kernel: usize, stride: usize) -> &mut Self {
        self.conv(filters, [kernel, kernel], stride, 1, true)
    }

    fn max_pool(&mut self, size: usize, stride: usize, padding: Padding) -> &mut Self {
        self.0.push(LayerDef::MaxPool(MaxPoolDef {
            stride: Some(Pair([stride, stride])),
            padding,
            ..MaxPoolDef::new(Pair([size, size]))
        }));
        self
    }

    fn dense(&mut self, units: Option<usize>, relu: bool) -> &mut Self {
        self.0.push(LayerDef::Dense(DenseDef {
            units,
            activation: relu.then_some(Activation::Relu),
            ..DenseDef::output()
        }));
        self
    }

    fn flatten(&mut self) -> &mut Self {
        self.0.push(LayerDef::Flatten(FlattenDef::default()));
        self
    }

    fn pool_all(&mut self) -> &mut Self {
        self.0
            .push(LayerDef::GlobalAvgPool(GlobalAvgPoolDef::default()));
        self
    }

    /// A depthwise separable convolution from `channels`.
    fn separable(&mut self, channels: usize, filters: usize, stride: usize) -> &mut Self {
        self.conv(channels, [3, 3], stride, channels, true);
        self.square(filters, 1, 1)
    }

    fn name_last(&mut self, name: &str, input: Option<&str>) -> &mut Self {
        if let Some(last) = self.0.pop() {
            self.0
                .push(last.with(Some(name.to_owned()), input.map(str::to_owned)));
        }
        self
    }

    /// A residual block: `kernels` with their filters, the stride at the place `strided`; a
    /// projection where the shape changes. Returns the name of its output.
    fn block(
        &mut self,
        name: &str,
        from: &str,
        convs: &[(usize, usize)],
        stride: usize,
        strided: usize,
        project: bool,
    ) -> String {
        let mut input = from.to_owned();
        for (at, &(kernel, filters)) in convs.iter().enumerate() {
            let here = format!("{name}-{at}");
            let stride = if at == strided { stride } else { 1 };
            self.conv(filters, [kernel, kernel], stride, 1, at + 1 < convs.len());
            self.name_last(&here, Some(&input));
            input = here;
        }
        let mut side = from.to_owned();
        if project {
            side = format!("{name}-side");
            let filters = convs.last().map_or(1, |&(_, filters)| filters);
            self.conv(filters, [1, 1], stride, 1, false);
            self.name_last(&side, Some(from));
        }
        self.0.push(LayerDef::Add(AddDef::new(side)));
        self.name_last(&format!("{name}-sum"), Some(&input));
        self.0.push(LayerDef::Relu(ReluDef::default()));
        self.name_last(name, None);
        name.to_owned()
    }
}

fn mobilenet_v1(divisor: usize) -> Vec<LayerDef> {
    let mut net = Net(Vec::new());
    net.square(32 / divisor, 3, 2);
    let mut channels = 32 / divisor;
    for (filters, stride) in [
        (64, 1),
        (128, 2),
        (128, 1),
        (256, 2),
        (256, 1),
        (512, 2),
        (512, 1),
        (512, 1),
        (512, 1),
        (512, 1),
        (512, 1),
        (1024, 2),
        (1024, 1),
    ] {
        net.separable(channels, filters / divisor, stride);
        channels = filters / divisor;
    }
    net.pool_all().dense(None, false);
    net.0
}

fn resnet(blocks: [usize; 4], bottleneck: bool) -> Vec<LayerDef> {
    let mut net = Net(Vec::new());
    net.square(64, 7, 2)
        .max_pool(3, 2, Padding::Explicit([1, 1]))
        .name_last("pool", None);
    let mut from = "pool".to_owned();
    for (stage, count) in blocks.into_iter().enumerate() {
        let width = 64 << stage;
        for at in 0..count {
            let stride = if at == 0 && stage > 0 { 2 } else { 1 };
            let name = format!("s{stage}b{at}");
            from = match bottleneck {
                true => {
                    let convs = [(1, width), (3, width), (1, 4 * width)];
                    net.block(&name, &from, &convs, stride, 1, at == 0)
                }
                false => {
                    let convs = [(3, width), (3, width)];
                    net.block(&name, &from, &convs, stride, 0, at == 0 && stage > 0)
                }
            };
        }
    }
    net.pool_all().dense(None, false);
    net.0
}

fn vgg_16() -> Vec<LayerDef> {
    let mut net = Net(Vec::new());
    for (filters, repeats) in [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)] {
        for _ in 0..repeats {
            net.square(filters, 3, 1);
        }
        net.max_pool(2, 2, Padding::Valid);
    }
    net.flatten()
        .dense(Some(4096), true)
        .dense(Some(4096), true)
        .dense(None, false);
    net.0
}

fn alexnet() -> Vec<LayerDef> {
    let mut net = Net(Vec::new());
    net.0.push(LayerDef::Conv2d(Conv2dDef {
        stride: Pair([4, 4]),
        activation: Some(Activation::Relu),
        ..Conv2dDef::new(96, 11)
    }));
    net.max_pool(3, 2, Padding::Valid);
    net.conv(256, [5, 5], 1, 2, true)
        .max_pool(3, 2, Padding::Valid);
    net.square(384, 3, 1);
    net.conv(384, [3, 3], 1, 2, true)
        .conv(256, [3, 3], 1, 2, true);
    net.max_pool(3, 2, Padding::Valid);
    net.flatten()
        .dense(Some(4096), true)
        .dense(Some(4096), true)
        .dense(None, false);
    net.0
}

fn tiny_ic() -> Vec<LayerDef> {
    let mut net = Net(Vec::new());
    net.square(16, 3, 1).name_last("stem", None);
    let mut from = "stem".to_owned();
    for (stage, width) in [16usize, 32, 64].into_iter().enumerate() {
        let stride = if stage > 0 { 2 } else { 1 };
        let convs = [(3, width), (3, width)];
        from = net.block(&format!("s{stage}"), &from, &convs, stride, 0, stage > 0);
    }
    net.pool_all().dense(None, false);
    net.0
}

fn tiny_kws() -> Vec<LayerDef> {
    let mut net = Net(Vec::new());
    net.conv(64, [10, 4], 2, 1, true);
    for _ in 0..4 {
        net.separable(64, 64, 1);
    }
    net.0.push(LayerDef::AvgPool(AvgPoolDef {
        size: Pair([25, 5]),
        stride: None,
        padding: Padding::Valid,
        name: None,
        input: None,
    }));
    net.flatten().dense(None, false);
    net.0
}

fn tiny_ad() -> Vec<LayerDef> {
    let mut net = Net(Vec::new());
    for units in [128, 128, 128, 128, 8, 128, 128, 128, 128] {
        net.dense(Some(units), true);
    }
    net.dense(None, false);
    net.0
}

fn leaf_femnist() -> Vec<LayerDef> {
    let mut net = Net(Vec::new());
    net.square(32, 5, 1).max_pool(2, 2, Padding::Valid);
    net.square(64, 5, 1).max_pool(2, 2, Padding::Valid);
    net.flatten().dense(Some(2048), true).dense(None, false);
    net.0
}

/// The network called `name`; none for an unknown name.
///
/// # Errors
/// [`EdgeError`] should a description not build, which the tests rule out.
pub fn network(name: &str) -> Option<Result<Model, EdgeError>> {
    let layers = |layer| ModelDef::Layers(LayersDef { layer, loss: None });
    let (def, shape, width) = match name {
        "mobilenet-v1" => (layers(mobilenet_v1(1)), vec![224, 224, 3], 1000),
        "mobilenet-v2" => (ModelDef::named("mobilenet-v2")?, vec![224, 224, 3], 1000),
        "resnet-18" => (layers(resnet([2, 2, 2, 2], false)), vec![224, 224, 3], 1000),
        "resnet-50" => (layers(resnet([3, 4, 6, 3], true)), vec![224, 224, 3], 1000),
        "vgg-16" => (layers(vgg_16()), vec![224, 224, 3], 1000),
        "alexnet" => (layers(alexnet()), vec![227, 227, 3], 1000),
        "tiny-ic" => (layers(tiny_ic()), vec![32, 32, 3], 10),
        "tiny-vww" => (layers(mobilenet_v1(4)), vec![96, 96, 3], 2),
        "tiny-kws" => (layers(tiny_kws()), vec![49, 10, 1], 12),
        "tiny-ad" => (layers(tiny_ad()), vec![640], 640),
        "leaf-femnist" => (layers(leaf_femnist()), vec![28, 28, 1], 62),
        _ => return None,
    };
    let target = TargetSpec::Class { classes: width };
    Some(Model::new(&def, &InputSpec::Real(shape), target))
}
