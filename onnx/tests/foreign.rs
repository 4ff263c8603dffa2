//! Graphs as other tools write them, read as native models.

use std::collections::BTreeMap;
use std::sync::Arc;

use fl_core::{ClientId, InputSpec, Purpose, RoundId, Seed, Stream};
use fl_edge::quant::QParams;
use fl_edge::{Inputs, Numerics, Passes, Program, Runner};
use fl_onnx::import::NATIVE_OPERATORS;
use fl_onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetId, ValueInfoProto, data_type,
};
use fl_onnx::{ImportError, Imported, Interpreter, Limits, Problem, Tensor, import_model};

/// A graph in the making; constants are drawn.
struct Draft {
    opset: i64,
    graph: GraphProto,
    stream: Stream,
}

impl Draft {
    fn new(opset: i64, sizes: &[Result<i64, &str>]) -> Self {
        let graph = GraphProto {
            name: "graph".to_owned(),
            input: vec![ValueInfoProto::tensor("x", data_type::FLOAT, sizes)],
            ..GraphProto::default()
        };
        let stream = Stream::at(Purpose::Testing, Seed(5), RoundId(0), ClientId(0));
        Self {
            opset,
            graph,
            stream,
        }
    }

    fn images(opset: i64) -> Self {
        Self::new(opset, &[Err("batch"), Ok(2), Ok(6), Ok(6)])
    }

    fn node(
        mut self,
        op: &str,
        inputs: &str,
        output: &str,
        attribute: Vec<AttributeProto>,
    ) -> Self {
        self.graph.node.push(NodeProto {
            input: inputs
                .split(' ')
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect(),
            output: vec![output.to_owned()],
            name: format!("/{output}/{op}"),
            op_type: op.to_owned(),
            attribute,
            ..NodeProto::default()
        });
        self
    }

    fn constant(mut self, name: &str, tensor: Tensor) -> Self {
        self.graph.initializer.push(tensor.to_proto(name));
        self
    }

    /// Numbers from 0.5 to 1.5, half of them negative where `signs`.
    fn drawn(mut self, name: &str, shape: &[usize], signs: bool) -> Self {
        let len = shape.iter().product();
        let values = (0..len)
            .map(|_| {
                let size = (0.5 + self.stream.uniform()) as f32;
                if signs && self.stream.below(2) == 0 {
                    -size
                } else {
                    size
                }
            })
            .collect::<Vec<_>>();
        self.constant(
            name,
            Tensor::new(shape.to_vec(), values).expect("as many values as the shape"),
        )
    }

    fn weight(self, name: &str, shape: &[usize]) -> Self {
        self.drawn(name, shape, true)
    }

    fn whole(self, name: &str, values: &[i64]) -> Self {
        self.constant(name, Tensor::vector(values.to_vec()))
    }

    fn number(self, name: &str, value: f32) -> Self {
        self.constant(name, Tensor::scalar(value))
    }

    /// `x` or any other value through a dense layer to the output.
    fn ends(self, input: &str, features: usize) -> Self {
        self.weight("head.weight", &[3, features])
            .weight("head.bias", &[3])
            .node(
                "Gemm",
                &format!("{input} head.weight head.bias"),
                "y",
                vec![int("transB", 1)],
            )
    }

    fn done(mut self) -> ModelProto {
        let sizes = [Err("batch"), Ok(3)];
        self.graph.output = vec![ValueInfoProto::tensor("y", data_type::FLOAT, &sizes)];
        ModelProto {
            ir_version: 8,
            opset_import: vec![OperatorSetId {
                domain: String::new(),
                version: self.opset,
            }],
            graph: Some(self.graph),
            ..ModelProto::default()
        }
    }
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto::int(name, value)
}

fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto::ints(name, values)
}

fn window(kernel: i64, stride: i64, pad: i64) -> Vec<AttributeProto> {
    vec![
        ints("kernel_shape", &[kernel; 2]),
        ints("strides", &[stride; 2]),
        ints("pads", &[pad; 4]),
    ]
}

/// Both runs of a graph on the same three examples agree.
fn agrees(name: &str, model: &ModelProto, images_last: bool) -> Imported {
    let imported =
        import_model(model, &Limits::default()).unwrap_or_else(|error| panic!("{name}: {error}"));
    let InputSpec::Real(shape) = imported.model.input().clone() else {
        panic!("{name}: tokens");
    };
    let mut stream = Stream::at(Purpose::Testing, Seed(6), RoundId(0), ClientId(0));
    let len = shape.iter().product::<usize>();
    let native = (0..3 * len)
        .map(|_| stream.normal() as f32)
        .collect::<Vec<_>>();
    let (sizes, given) = match shape[..] {
        [height, width, channels] if !images_last => {
            let turn = |image: &[f32]| -> Vec<f32> {
                let channel = |c: usize| image.iter().skip(c).step_by(channels).copied();
                (0..channels).flat_map(channel).collect()
            };
            let turned = native.chunks_exact(len).flat_map(turn).collect();
            (vec![3, channels, height, width], turned)
        }
        _ => {
            let sizes = core::iter::once(3).chain(shape.iter().copied()).collect();
            (sizes, native.clone())
        }
    };
    let limits = Limits::default();
    let interpreter = Interpreter::new(model, &limits).expect(name);
    let given = Tensor::new(sizes, given).expect("whole examples");
    let given = BTreeMap::from([("x".to_owned(), given)]);
    let theirs = interpreter.run(&given).expect(name)["y"].to_f32();
    let native_model = Arc::new(imported.model);
    let parameters = &imported.parameters;
    let program = Program::compile(&native_model, parameters, &Numerics::F32, Passes::ALL);
    let mut ours = vec![0.0; theirs.len()];
    Runner::new(Arc::new(program.expect(name)), 3).run(Inputs::Real(&native), &mut ours);
    if imported.notices.is_empty() {
        let scale = ours.iter().fold(1.0f32, |most, x| most.max(x.abs()));
        for (a, b) in ours.iter().zip(&theirs) {
            assert!((a - b).abs() <= 2e-5 * scale, "{name}: {ours:?} {theirs:?}");
        }
    } else {
        for (a, b) in ours.chunks(3).zip(theirs.chunks(3)) {
            let best = |row: &[f32]| (0..3).max_by(|&i, &j| row[i].total_cmp(&row[j]));
            assert_eq!(best(a), best(b), "{name}");
        }
    }
    Imported {
        model: Arc::into_inner(native_model).expect("no other owner"),
        ..imported
    }
}

fn kinds(imported: &Imported) -> String {
    let layers = imported.def.layers(imported.model.input()).expect("layers");
    layers
        .iter()
        .map(|layer| layer.kind())
        .collect::<Vec<_>>()
        .join(" ")
}

fn conv(draft: Draft, input: &str, name: &str, sizes: [usize; 4], bias: bool) -> Draft {
    let weight = format!("{name}.weight");
    let draft = draft.weight(&weight, &sizes);
    let pad = (sizes[2] / 2) as i64;
    let attributes = window(sizes[2] as i64, 1, pad);
    match bias {
        true => {
            let names = format!("{input} {weight} {name}.bias");
            let draft = draft.weight(&format!("{name}.bias"), &sizes[..1]);
            draft.node("Conv", &names, name, attributes)
        }
        false => draft.node("Conv", &format!("{input} {weight}"), name, attributes),
    }
}

fn batch_norm(draft: Draft, input: &str, name: &str, channels: usize) -> Draft {
    ["weight", "bias", "mean", "var"]
        .iter()
        .fold(draft, |draft, part| {
            draft.drawn(&format!("{name}.{part}"), &[channels], false)
        })
        .node(
            "BatchNormalization",
            &format!("{input} {name}.weight {name}.bias {name}.mean {name}.var"),
            name,
            vec![AttributeProto::float("epsilon", 1e-3)],
        )
}

#[test]
fn as_torch_writes_a_classifier() {
    // A free batch is carried through Shape, Gather and Concat to Reshape.
    let draft = conv(Draft::images(13), "x", "features.0", [4, 2, 3, 3], false);
    let model = batch_norm(draft, "features.0", "features.1", 4)
        .node("Relu", "features.1", "relu", vec![])
        .node("MaxPool", "relu", "pool", window(2, 2, 0))
        .whole("zero", &[0])
        .whole("axes", &[0])
        .whole("rest", &[-1])
        .node("Shape", "pool", "shape", vec![])
        .node("Gather", "shape zero", "batch", vec![int("axis", 0)])
        .node("Concat", "batch rest", "sizes", vec![int("axis", 0)])
        .node("Reshape", "pool sizes", "flat", vec![])
        .ends("flat", 36)
        .done();
    let imported = agrees("torch", &model, false);
    assert_eq!(
        kinds(&imported),
        "conv2d batch-norm relu max-pool flatten dense"
    );
    let names = imported
        .model
        .layout()
        .tensors()
        .iter()
        .map(|tensor| tensor.name.as_str());
    assert_eq!(
        names.collect::<Vec<_>>(),
        [
            "features.0.weight",
            "features.1.weight",
            "features.1.bias",
            "features.1.running_mean",
            "features.1.running_var",
            "head.weight",
            "head.bias",
        ]
    );
}

#[test]
fn as_keras_converters_write_a_classifier() {
    // Images come channels last; the window's padding is that of SAME.
    let model = Draft::new(15, &[Err("batch"), Ok(5), Ok(6), Ok(2)])
        .node("Transpose", "x", "nchw", vec![ints("perm", &[0, 3, 1, 2])])
        .weight("conv.weight", &[4, 2, 3, 3])
        .node(
            "Conv",
            "nchw conv.weight",
            "conv",
            vec![
                ints("kernel_shape", &[3, 3]),
                ints("strides", &[2, 2]),
                AttributeProto::string("auto_pad", "SAME_UPPER"),
            ],
        )
        .weight("b", &[1, 4, 1, 1])
        .node("Add", "conv b", "biased", vec![])
        .number("low", 0.0)
        .number("high", 6.0)
        .node("Clip", "biased low high", "relu6", vec![])
        .node(
            "Transpose",
            "relu6",
            "nhwc",
            vec![ints("perm", &[0, 2, 3, 1])],
        )
        .whole("sizes", &[-1, 36])
        .node("Reshape", "nhwc sizes", "flat", vec![])
        .weight("dense", &[36, 3])
        .weight("dense.b", &[3])
        .node("MatMul", "flat dense", "product", vec![])
        .node("Add", "product dense.b", "logits", vec![])
        .node("Softmax", "logits", "y", vec![])
        .done();
    let imported = agrees("keras", &model, true);
    assert_eq!(kinds(&imported), "conv2d relu6 flatten dense");
    assert_eq!(imported.notices.len(), 1, "{:?}", imported.notices);
}

#[test]
fn decomposed_operators_become_one_layer() {
    let root = core::f32::consts::SQRT_2;
    let rows = Draft::new(13, &[Err("batch"), Ok(6)]);
    let model = rows
        .number("root", root)
        .number("one", 1.0)
        .number("half", 0.5)
        .node("Div", "x root", "a", vec![])
        .node("Erf", "a", "b", vec![])
        .node("Add", "b one", "c", vec![])
        .node("Mul", "x c", "d", vec![])
        .node("Mul", "d half", "gelu", vec![])
        .node("ReduceMean", "gelu", "mean", vec![ints("axes", &[-1])])
        .node("Sub", "gelu mean", "centred", vec![])
        .number("two", 2.0)
        .node("Pow", "centred two", "squared", vec![])
        .node("ReduceMean", "squared", "var", vec![ints("axes", &[-1])])
        .number("eps", 1e-5)
        .node("Add", "var eps", "safe", vec![])
        .node("Sqrt", "safe", "deviation", vec![])
        .node("Div", "centred deviation", "normal", vec![])
        .weight("gamma", &[6])
        .weight("beta", &[6])
        .node("Mul", "normal gamma", "scaled", vec![])
        .node("Add", "scaled beta", "norm", vec![])
        .ends("norm", 6)
        .done();
    assert_eq!(
        kinds(&agrees("row", &model, false)),
        "gelu layer-norm dense"
    );

    // The other order of gelu's factors, a group norm, and two ways to the mean of a channel.
    for keep in [0, 1] {
        let draft = conv(Draft::images(13), "x", "c", [4, 2, 1, 1], true)
            .number("inverse", 1.0 / root)
            .number("one", 1.0)
            .number("half", 0.5)
            .node("Mul", "c inverse", "a", vec![])
            .node("Erf", "a", "b", vec![])
            .node("Add", "b one", "sum", vec![])
            .node("Mul", "c half", "h", vec![])
            .node("Mul", "sum h", "gelu", vec![])
            .whole("groups", &[0, 2, -1])
            .whole("back", &[0, 4, 6, 6])
            .constant("ones", Tensor::vector(vec![1.0f32; 2]))
            .constant("zeros", Tensor::vector(vec![0.0f32; 2]))
            .node("Reshape", "gelu groups", "apart", vec![])
            .node("InstanceNormalization", "apart ones zeros", "n", vec![])
            .node("Reshape", "n back", "together", vec![])
            .weight("gamma", &[4, 1, 1])
            .weight("beta", &[4, 1, 1])
            .node("Mul", "together gamma", "scaled", vec![])
            .node("Add", "scaled beta", "norm", vec![])
            .node(
                "ReduceMean",
                "norm",
                "m",
                vec![ints("axes", &[2, 3]), int("keepdims", keep)],
            );
        let draft = match keep {
            0 => draft.ends("m", 4),
            _ => draft
                .whole("axes", &[2, 3])
                .node("Squeeze", "m axes", "s", vec![])
                .ends("s", 4),
        };
        let imported = agrees("image", &draft.done(), false);
        assert_eq!(
            kinds(&imported),
            "conv2d gelu group-norm global-avg-pool dense"
        );
    }
}

#[test]
fn a_residual_block_keeps_its_two_ways() {
    let draft =
        conv(Draft::images(17), "x", "a", [4, 2, 3, 3], true).node("Relu", "a", "r", vec![]);
    let draft = conv(draft, "r", "b", [4, 4, 3, 3], true).node("Add", "r b", "s", vec![]);
    let model = draft
        .node("Relu", "s", "t", vec![])
        .node("GlobalAveragePool", "t", "m", vec![])
        .node("Flatten", "m", "f", vec![int("axis", 1)])
        .ends("f", 4)
        .done();
    let imported = agrees("residual", &model, false);
    assert_eq!(
        kinds(&imported),
        "conv2d relu conv2d add relu global-avg-pool dense"
    );
}

#[test]
fn what_has_no_native_form_is_refused_with_the_node() {
    let no_layer = format!(
        "node `/s/Sin` (Sin): there is no native layer for this operator on such inputs, only for \
         {NATIVE_OPERATORS}; the file still runs in the interpreter"
    );
    let cases: Vec<(&str, ModelProto, &str)> = vec![
        (
            "an operator",
            Draft::images(17)
                .node("Sin", "x", "s", vec![])
                .ends("s", 1)
                .done(),
            &no_layer,
        ),
        (
            "a dilated window",
            Draft::images(17)
                .weight("w", &[1, 2, 3, 3])
                .node("Conv", "x w", "c", vec![ints("dilations", &[2, 2])])
                .ends("c", 1)
                .done(),
            "node `/c/Conv` (Conv): the attribute `dilations` is [2, 2] and a native layer needs \
             1 in both directions; the file still runs in the interpreter",
        ),
        (
            "half a gelu",
            Draft::new(17, &[Err("n"), Ok(4)])
                .number("root", core::f32::consts::SQRT_2)
                .node("Div", "x root", "a", vec![])
                .node("Erf", "a", "b", vec![])
                .ends("b", 4)
                .done(),
            "node `/y/Gemm` (Gemm): it reads a value that is only a part of a gelu, which is not \
             native by itself; the file still runs in the interpreter",
        ),
        (
            "an order that matters",
            Draft::images(17)
                .node("Flatten", "x", "f", vec![])
                .weight("g", &[72])
                .weight("b", &[72])
                .node("LayerNormalization", "f g b", "n", vec![])
                .ends("n", 72)
                .done(),
            "node `/n/LayerNormalization` (LayerNormalization): it reads a value of shape [72] and \
             a native layer needs a row of features; the file still runs in the interpreter",
        ),
        (
            "a computed weight",
            Draft::new(17, &[Err("n"), Ok(4)])
                .node("MatMul", "x x", "y", vec![])
                .done(),
            "node `/y/MatMul` (MatMul): its input 1 is computed and a native layer needs a \
             constant there; the file still runs in the interpreter",
        ),
        (
            "a free size",
            Draft::new(17, &[Err("n"), Ok(2), Err("height"), Ok(6)])
                .ends("x", 4)
                .done(),
            "the input `x` has shape [?, 2, ?, 6]; a batch of rows, sequences or images with \
             known sizes is needed, only the batch may be free",
        ),
        (
            "an image at the end",
            conv(Draft::images(17), "x", "y", [3, 2, 1, 1], true).done(),
            "the output `y` is not computed by a layer that gives one row for each example",
        ),
        (
            "an old opset",
            Draft::new(9, &[Err("n"), Ok(4)]).ends("x", 4).done(),
            "the model asks for opset 9 of domain `ai.onnx` where 13 to 21 are known",
        ),
    ];
    for (name, model, expected) in cases {
        let error = import_model(&model, &Limits::default()).expect_err(name);
        assert_eq!(error.to_string(), expected, "{name}");
    }
    let mut two = Draft::new(17, &[Err("n"), Ok(4)]).ends("x", 4).done();
    if let Some(graph) = &mut two.graph {
        let more = ValueInfoProto::tensor("z", data_type::FLOAT, &[Ok(1)]);
        graph.input.push(more);
    }
    let error = import_model(&two, &Limits::default()).expect_err("two inputs");
    assert_eq!(
        error,
        ImportError::Borders {
            inputs: 2,
            outputs: 1
        }
    );
    let wrong = Draft::new(17, &[Err("n"), Ok(4)]).ends("x", 5).done();
    let error = import_model(&wrong, &Limits::default()).expect_err("a wrong weight");
    assert!(
        matches!(
            &error,
            ImportError::Node {
                problem: Problem::Constant { .. },
                ..
            }
        ),
        "{error}"
    );
}

/// Whoever quantizes may round a value behind a pool or before it is flattened.
#[test]
fn a_scale_behind_a_flattened_image_is_the_images() {
    let scale = |draft: Draft, name: &str, by: f32| {
        let zero = Tensor::scalar(100u8);
        let draft = draft.number(&format!("{name}.s"), by);
        draft.constant(&format!("{name}.z"), zero)
    };
    let rounded = |draft: Draft, from: &str, name: &str, to: &str| {
        let parts = format!("{name}.s {name}.z");
        draft
            .node(
                "QuantizeLinear",
                &format!("{from} {parts}"),
                &format!("{to}.q"),
                vec![],
            )
            .node("DequantizeLinear", &format!("{to}.q {parts}"), to, vec![])
    };
    let draft = Draft::images(17).node("MaxPool", "x", "pool", window(2, 2, 0));
    let draft = scale(draft.node("Flatten", "pool", "flat", vec![]), "x", 0.02);
    let draft = rounded(draft, "flat", "x", "rounded");
    let draft = draft
        .weight("w", &[18, 3])
        .node("MatMul", "rounded w", "product", vec![]);
    let model = rounded(scale(draft, "y", 0.03), "product", "y", "y").done();
    let imported = import_model(&model, &Limits::default()).expect("native operators only");
    let quantization = imported.quantization.expect("the file has scales");
    assert_eq!(
        quantization.points["input"],
        QParams::new(0.02, 100).expect("a positive scale")
    );
    assert!(
        quantization.float_units.is_empty(),
        "everything is rounded: {:?}",
        quantization.float_units
    );
}

/// A short file can ask for much memory: each constant is allowed, all of them together are not.
#[test]
fn constants_stay_within_the_limits_together() {
    let mut draft = Draft::new(17, &[Err("n"), Ok(4)]).whole("size", &[1000, 250]);
    for index in 0..40 {
        draft = draft.node("ConstantOfShape", "size", &format!("c{index}"), vec![]);
    }
    let model = draft.ends("x", 4).done();
    let limits = |tensor_bytes, live_bytes| Limits {
        tensor_bytes,
        live_bytes,
        ..Limits::default()
    };
    let refused = |limits: &Limits| {
        let error = import_model(&model, limits).expect_err("more than is allowed");
        error.to_string()
    };
    assert!(import_model(&model, &limits(1 << 20, 1 << 26)).is_ok());
    let said = refused(&limits(1 << 20, 10 << 20));
    assert!(said.contains("node `/c10/ConstantOfShape`"), "{said}");
    let said = refused(&limits(1 << 19, 1 << 26));
    assert!(
        said.contains("1000000 bytes is asked for where 524288 are allowed"),
        "{said}"
    );
}
