//! Models from TOML: what they become, and what a wrong one says.

use crate::common::{operators, stream};
use fl_core::{InputSpec, TargetSpec};
use fl_edge::{MODELS, Model, ModelDef};

const TEN: TargetSpec = TargetSpec::Class { classes: 10 };

fn image() -> InputSpec {
    InputSpec::Real(vec![28, 28, 1])
}

fn model(text: &str, input: &InputSpec) -> Model {
    let def = toml::from_str::<ModelDef>(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    Model::new(&def, input, TEN).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn parameter_counts_are_the_papers() {
    let cifar = InputSpec::Real(vec![32, 32, 3]);
    let cases = [
        ("logreg", image(), 7_850, 7_840),
        ("logreg", InputSpec::Real(vec![60]), 610, 600),
        (
            "mlp-2nn",
            image(),
            199_210,
            784 * 200 + 200 * 200 + 200 * 10,
        ),
        ("mlp", image(), 235_146, 784 * 256 + 256 * 128 + 128 * 10),
        (
            "cnn-fedavg",
            image(),
            1_663_370,
            28 * 28 * 25 * 32 + 14 * 14 * 800 * 64 + 3136 * 512 + 5120,
        ),
        (
            "cnn-pfl",
            cifar.clone(),
            896 + 18_496 + (14 * 14 * 64 + 1) * 128 + 1290,
            30 * 30 * 27 * 32 + 28 * 28 * 288 * 64 + 14 * 14 * 64 * 128 + 1280,
        ),
        // Convolutions 3-16, 2 of 16-16, 16-32, 32-32, 32-64, 64-64, shortcuts, 9 norms, fc.
        (
            "resnet8-gn",
            cifar,
            432 + 2 * 2304
                + 4608
                + 9216
                + 18_432
                + 36_864
                + 512
                + 2048
                + 2 * (3 * 16 + 3 * 32 + 3 * 64)
                + 650,
            32 * 32 * (432 + 2 * 2304)
                + 16 * 16 * (4608 + 9216 + 512)
                + 8 * 8 * (18_432 + 36_864 + 2048)
                + 640,
        ),
    ];
    for (kind, input, parameters, macs) in cases {
        let model = model(&format!("kind = \"{kind}\""), &input);
        assert_eq!(model.parameters(), parameters, "{kind}");
        assert_eq!(model.macs_per_example(), macs, "{kind}");
        let summed = model
            .summary()
            .iter()
            .map(|layer| layer.parameters)
            .sum::<usize>();
        assert_eq!(summed, parameters, "{kind}");
    }
}

#[test]
fn tensors_have_their_names_and_shapes() {
    let model = model("kind = \"cnn-fedavg\"", &image());
    let tensors = model.layout().tensors().iter();
    let found = tensors
        .map(|t| (t.name.as_str(), t.shape.clone()))
        .collect::<Vec<_>>();
    let expected = [
        ("conv1.weight", vec![5, 5, 1, 32]),
        ("conv1.bias", vec![32]),
        ("conv2.weight", vec![5, 5, 32, 64]),
        ("conv2.bias", vec![64]),
        ("fc1.weight", vec![3136, 512]),
        ("fc1.bias", vec![512]),
        ("fc2.weight", vec![512, 10]),
        ("fc2.bias", vec![10]),
    ];
    assert_eq!(found, expected);
    let shapes = model.summary().iter();
    let shapes = shapes
        .map(|l| (l.kind, l.output_shape.clone()))
        .collect::<Vec<_>>();
    assert_eq!(shapes[0], ("conv2d", vec![28, 28, 32]));
    assert_eq!(shapes[3], ("max-pool", vec![7, 7, 64]));
    assert_eq!(shapes[4], ("flatten", vec![3136]));
}

#[test]
fn initial_parameters() {
    let model = model("kind = \"mlp-2nn\"", &image());
    let start = model.init(&mut stream(1));
    assert_eq!(start.digest(), model.init(&mut stream(1)).digest());
    assert_ne!(start.digest(), model.init(&mut stream(2)).digest());
    assert!(
        start
            .tensor("fc1.bias")
            .expect("there")
            .iter()
            .all(|b| *b == 0.0)
    );
    let weight = start.tensor("fc1.weight").expect("there");
    let limit = (6.0f64 / 984.0).sqrt();
    let (mut sum, mut squares, mut most) = (0.0, 0.0, 0.0f64);
    for w in weight.iter().map(|w| f64::from(*w)) {
        sum += w;
        squares += w * w;
        most = most.max(w.abs());
    }
    let n = weight.len() as f64;
    assert!(most <= limit * 1.000_001 && most > 0.999 * limit);
    // Five standard errors of a uniform distribution's mean and variance.
    let variance = limit * limit / 3.0;
    assert!((sum / n).abs() < 5.0 * (variance / n).sqrt());
    assert!((squares / n / variance - 1.0).abs() < 5.0 * (0.8 / n).sqrt());
}

#[test]
fn weights_start_with_the_deviation_that_is_asked_for() {
    let model = model("kind = \"mlp-2nn\"\ninit = { normal = 0.1 }", &image());
    let start = model.init(&mut stream(1));
    for layer in ["fc1", "fc2", "fc3"] {
        let weight = start.tensor(&format!("{layer}.weight")).expect("there");
        let n = weight.len() as f64;
        let sum: f64 = weight.iter().map(|w| f64::from(*w)).sum();
        let squares: f64 = weight.iter().map(|w| f64::from(*w).powi(2)).sum();
        // Five standard errors of a normal distribution's mean and variance.
        assert!((sum / n).abs() < 5.0 * 0.1 / n.sqrt(), "{layer}");
        let variance = squares / n / 0.01;
        assert!((variance - 1.0).abs() < 5.0 * (2.0 / n).sqrt(), "{layer}");
        let bias = start.tensor(&format!("{layer}.bias")).expect("there");
        assert!(bias.iter().all(|b| *b == 0.0), "{layer}");
    }
    for wrong in ["0.0", "-0.1", "101.0", "nan", "inf"] {
        let text = format!("kind = \"logreg\"\ninit = {{ normal = {wrong} }}");
        let def = toml::from_str::<ModelDef>(&text).expect("a definition");
        let error = Model::new(&def, &image(), TEN).expect_err(wrong);
        let expected = "it must be above 0 and at most 100";
        assert!(error.to_string().contains(expected), "{error}");
    }
}

/// Bytes of one example's values.
fn training_bytes(model: &Model) -> usize {
    let shapes = model.summary().iter().map(|layer| &layer.output_shape);
    4 * shapes
        .map(|shape| shape.iter().product::<usize>())
        .sum::<usize>()
}

fn takes_images(kind: &str) -> bool {
    let example = ModelDef::named(kind).and_then(|def| def.example());
    matches!(example, Some((InputSpec::Real(_), _)))
}

#[test]
fn memory_is_planned() {
    for (kind, _) in MODELS.iter().filter(|(kind, _)| takes_images(kind)) {
        let model = model(
            &format!("kind = \"{kind}\""),
            &InputSpec::Real(vec![28, 28, 3]),
        );
        let parameters = 4 * model.parameters();
        let one = model.peak_bytes(1, false);
        let ten = model.peak_bytes(10, false);
        let training = model.peak_bytes(10, true);
        assert!(parameters < one && one < ten && ten < training, "{kind}");
        // However large the batch, it is worked through in parts; unless it is normalised.
        for (training, most) in [(false, 8 << 20), (true, 64 << 20)] {
            if training && *kind == "mobilenet-v2" {
                let (few, many) = (model.peak_bytes(64, true), model.peak_bytes(128, true));
                assert!(
                    many - few > 64 * (training_bytes(&model) / 2),
                    "{few} {many}"
                );
                continue;
            }
            let huge = model.peak_bytes(usize::MAX, training);
            assert_eq!(huge, model.peak_bytes(1 << 20, training), "{kind}");
            let arena = huge - parameters * if training { 2 } else { 1 };
            assert!(arena <= most + 4096 * 4, "{kind}: {arena}");
        }
    }
    // Without liveness, the activations alone of ten images would take this much in evaluation.
    let model = model("kind = \"cnn-fedavg\"", &image());
    let sum = model
        .summary()
        .iter()
        .map(|layer| layer.output_shape.iter().product::<usize>())
        .sum::<usize>();
    let arena = model.peak_bytes(10, false) - 4 * model.parameters();
    assert!(arena < 4 * 10 * sum, "{arena} of {}", 4 * 10 * sum);
}

#[test]
fn toml_round_trips() {
    for case in operators() {
        let text = toml::to_string(&case.def).expect("serialises");
        assert_eq!(
            toml::from_str::<ModelDef>(&text).expect(&text),
            case.def,
            "{}",
            case.name
        );
    }
    let late = "hidden = [5]\nkind = \"mlp-2nn\"";
    let early = "kind = \"mlp-2nn\"\nhidden = [5]";
    let read = |text| toml::from_str::<ModelDef>(text).expect(text);
    assert_eq!(read(late), read(early));
    let late = "layer = [{ units = 3, activation = \"relu\", kind = \"dense\" }]";
    let early =
        "kind = \"layers\"\nlayer = [{ kind = \"dense\", units = 3, activation = \"relu\" }]";
    assert_eq!(read(late), read(early));
}

#[test]
fn unreadable_definitions() {
    // (text, part of the message)
    for (text, expected) in [
        ("kind = \"mpl-2nn\"", "unknown variant `mpl-2nn`"),
        ("hidden = [3]", "missing field `kind`"),
        ("kind = \"mlp-2nn\"\nwidth = 3", "line 2"),
        (
            "kind = \"mlp-2nn\"\nwidth = 3",
            "unknown field `width`, expected `hidden`",
        ),
        (
            "[[layer]]\nkind = \"dense\"\nunits = 3\n\n[[layer]]\nkind = \"dense\"\nunit = 4\n",
            "line 7",
        ),
        ("[[layer]]\nkind = \"conv\"\n", "unknown variant `conv`"),
        (
            "[[layer]]\nkind = \"conv2d\"\nfilters = 3\n",
            "missing field `kernel`",
        ),
        (
            "[[layer]]\nkind = \"conv2d\"\nfilters = 3\nkernel = -1\n",
            "a whole number or a pair [height, width]",
        ),
        (
            "[[layer]]\nkind = \"conv2d\"\nfilters = 3\nkernel = [1, 2, 3]\n",
            "a whole number or a pair [height, width]",
        ),
        (
            "[[layer]]\nkind = \"max-pool\"\nsize = 2\npadding = \"full\"\n",
            "\"same\", \"valid\", a whole number",
        ),
        (
            "loss = \"l1\"\n[[layer]]\nkind = \"dense\"\n",
            "unknown variant `l1`",
        ),
        (
            "[[layer]]\nkind = \"dense\"\nactivation = \"swish\"\n",
            "unknown variant `swish`",
        ),
    ] {
        let error = toml::from_str::<ModelDef>(text)
            .expect_err(text)
            .to_string();
        assert!(error.contains(expected), "{text}:\n{error}");
    }
}

#[test]
fn impossible_models() {
    let image = InputSpec::Real(vec![3, 3, 4]);
    let row = InputSpec::Real(vec![9]);
    let tokens = InputSpec::Tokens {
        length: 5,
        vocabulary: 7,
    };
    let conv = "kind = \"conv2d\", filters = 6, kernel = 3";
    // (input, layers, message)
    let cases: &[(&InputSpec, &str, &str)] = &[
        (
            &image,
            "layer = []",
            "the model has no layers; add at least one [[layer]] table or choose a `kind`",
        ),
        (
            &image,
            "layer = [{ kind = \"relu\" }, { kind = \"conv2d\", name = \"conv2\", filters = 6, kernel = 5 }]",
            "layer 2 `conv2`: kernel 5x5 does not fit the 3x3 input; use padding = \"same\" or a \
             smaller kernel",
        ),
        (
            &image,
            "layer = [{ kind = \"dense\" }]",
            "layer 1 `dense1`: it takes a row of numbers or a sequence [length, features] and its input has shape [3, 3, 4]; put a \
             `flatten` or a pooling layer before it",
        ),
        (
            &row,
            &format!("layer = [{{ {conv} }}]"),
            "layer 1 `conv2d1`: it takes an image [height, width, channels] and its input has \
             shape [9]; put it before `flatten` and `dense`, and choose a data set of images",
        ),
        (
            &image,
            &format!("layer = [{{ {conv}, groups = 3 }}]"),
            "layer 1 `conv2d1`: groups = 3 does not divide the 4 input channels; choose a divisor \
             of 4",
        ),
        (
            &image,
            &format!("layer = [{{ {conv}, groups = 4 }}]"),
            "layer 1 `conv2d1`: groups = 4 does not divide the 6 filters; choose a divisor of 6",
        ),
        (
            &image,
            &format!("layer = [{{ {conv}, stride = 0 }}]"),
            "layer 1 `conv2d1`: `stride` is 0; it must be at least 1",
        ),
        (
            &image,
            "layer = [{ kind = \"dropout\", rate = 1.0 }]",
            "layer 1 `dropout1`: `rate` is 1; it must be at least 0 and below 1",
        ),
        (
            &image,
            "layer = [{ kind = \"group-norm\", groups = 3 }]",
            "layer 1 `group-norm1`: groups = 3 does not divide the 4 input channels; choose a \
             divisor of 4",
        ),
        (
            &image,
            "layer = [{ kind = \"group-norm\", groups = 2, epsilon = 0.0 }]",
            "layer 1 `group-norm1`: `epsilon` is 0; it must be above 0",
        ),
        (
            &image,
            "layer = [{ kind = \"add\", from = \"conv1\" }]",
            "layer 1 `add1`: `from` names `conv1`, and no earlier layer is called so; earlier \
             names: input",
        ),
        (
            &image,
            &format!("layer = [{{ {conv} }}, {{ kind = \"add\", from = \"input\" }}]"),
            "layer 2 `add1`: the outputs to be added have shapes [1, 1, 6] and [3, 3, 4]; make \
             them equal, e.g. with a 1x1 convolution of the same stride on the shortcut",
        ),
        (
            &row,
            "layer = [{ kind = \"dense\", name = \"a\", units = 3 }, { kind = \"dense\", name = \"a\" }]",
            "layer 2 `a`: an earlier layer has this name too; give each layer its own `name`",
        ),
        (
            &row,
            "layer = [{ kind = \"dense\", name = \"a\", units = 3 }, { kind = \"dense\", input = \"input\" }]",
            "layer 1 `a`: nothing uses its output; remove it, or name it in the `input` or `from` \
             of a later layer",
        ),
        (
            &tokens,
            "layer = [{ kind = \"dense\" }]",
            "layer 1 `dense1`: it takes real numbers and its input holds tokens; put an \
             `embedding` layer first",
        ),
        (
            &row,
            "layer = [{ kind = \"embedding\", size = 2 }]",
            "layer 1 `embedding1`: it takes tokens and its input holds real numbers; remove the \
             layer",
        ),
        (
            &row,
            "layer = [{ kind = \"dense\", units = 4 }]",
            "the model ends with shape [4] and the loss `softmax-cross-entropy` needs 10 numbers; \
             end with a dense layer without `units`, or with units = 10",
        ),
        (
            &row,
            "loss = \"mse\"\nlayer = [{ kind = \"dense\" }]",
            "the loss `mse` does not fit a target of classes; use loss = \
             \"softmax-cross-entropy\"",
        ),
        (
            &row,
            "layer = [{ kind = \"dense\", units = 9223372036854775807 }]",
            "layer 1 `dense1`: its output or weight is too large: the number of elements \
             overflows; choose smaller sizes",
        ),
        (
            &image,
            "layer = [{ kind = \"max-pool\", size = 2, padding = 2 }]",
            "layer 1 `max-pool1`: padding 2x2 leaves windows of 2x2 without any input; use padding \
             below the size of the window",
        ),
        (
            &InputSpec::Real(vec![10]),
            "layer = [{ kind = \"relu\" }]",
            "no layer of the model has parameters to train; add a dense or conv2d layer",
        ),
        (
            &row,
            "kind = \"cnn-fedavg\"",
            "the model `cnn-fedavg` takes images [height, width, channels] and the data hold \
             examples of shape [9]; choose a data set of larger images, or the model `logreg` or \
             `mlp-2nn`",
        ),
        (
            &InputSpec::Real(vec![0, 3]),
            "kind = \"logreg\"",
            "an example of shape [0, 3] holds no numbers; every size must be at least 1",
        ),
    ];
    for (input, text, expected) in cases {
        let def = toml::from_str::<ModelDef>(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        let error = Model::new(&def, input, TEN).expect_err(text);
        assert_eq!(error.to_string(), *expected, "{text}");
    }
}
