//! Native models written as ONNX and read again: the same layers, parameters and numbers.

use fl_core::{
    ClientId, Examples, InputSpec, InputsMut, Purpose, RoundId, Seed, Stream, TargetSpec,
    TargetsMut, Trainer as _,
};
use fl_edge::quant::{
    Calibration, Calibrator, Code4, FourBits, Granularity, Quantization, Weights4,
};
use fl_edge::{EdgeTrainer, Inputs, Model, ModelDef, Numerics, Passes, Program, Runner};
use fl_onnx::export::FOUR_BIT_OPSET;
use fl_onnx::{
    ExportError, ExportOptions, Interpreter, Limits, Numbers, Tensor, decode, export, import,
};
use std::collections::BTreeMap;
use std::sync::Arc;

fn stream(seed: u64) -> Stream {
    Stream::at(Purpose::Testing, Seed(seed), RoundId(0), ClientId(0))
}

/// Normal inputs or uniform tokens, with labels.
struct Made {
    input: InputSpec,
    classes: usize,
    reals: Vec<f32>,
    tokens: Vec<u32>,
    labels: Vec<u32>,
}

impl Made {
    fn new(input: &InputSpec, classes: usize, len: usize) -> Self {
        let mut stream = stream(7);
        let numbers = len * input.len();
        let (mut reals, mut tokens) = (Vec::new(), Vec::new());
        match input {
            InputSpec::Real(_) => reals = (0..numbers).map(|_| stream.normal() as f32).collect(),
            InputSpec::Tokens { vocabulary, .. } => {
                let most = *vocabulary as u64;
                tokens = (0..numbers).map(|_| stream.below(most) as u32).collect();
            }
        }
        let labels = (0..len)
            .map(|_| stream.below(classes as u64) as u32)
            .collect();
        Self {
            input: input.clone(),
            classes,
            reals,
            tokens,
            labels,
        }
    }
}

fn gather<T: Copy>(rows: &[u32], width: usize, from: &[T], to: &mut [T]) {
    for (to, &row) in to.chunks_exact_mut(width).zip(rows) {
        to.copy_from_slice(&from[row as usize * width..][..width]);
    }
}

impl Examples for Made {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn input(&self) -> &InputSpec {
        &self.input
    }

    fn target(&self) -> TargetSpec {
        TargetSpec::Class {
            classes: self.classes,
        }
    }

    fn fill(&self, rows: &[u32], inputs: InputsMut<'_>, targets: TargetsMut<'_>) {
        match inputs {
            InputsMut::Real(to) => gather(rows, self.input.len(), &self.reals, to),
            InputsMut::Tokens(to) => gather(rows, self.input.len(), &self.tokens, to),
        }
        if let TargetsMut::Classes(to) = targets {
            gather(rows, 1, &self.labels, to);
        }
    }
}

/// The sum of the losses of some examples.
fn loss(model: Model, parameters: &[f32], data: &Made) -> f64 {
    let mut trainer = EdgeTrainer::new(Arc::new(model));
    let found = trainer.evaluate(parameters, data, 0..data.len());
    found.expect("data of the model's shape").loss_sum
}

fn layers(text: &str, input: InputSpec) -> (String, ModelDef, InputSpec) {
    let def = toml::from_str::<ModelDef>(text).expect(text);
    (
        text.lines().nth(1).unwrap_or_default().to_owned(),
        def,
        input,
    )
}

/// Every model of the zoo, and stacks that use every other layer.
fn models() -> Vec<(String, ModelDef, InputSpec)> {
    let image = |size: usize, channels| InputSpec::Real(vec![size, size, channels]);
    let mut all = fl_edge::MODELS
        .iter()
        .filter_map(|(kind, _)| {
            let def = ModelDef::named(kind).expect("of the zoo");
            let (InputSpec::Real(_), _) = def.example()? else {
                return None;
            };
            let size = if *kind == "mobilenet-v2" { 32 } else { 12 };
            Some((String::from(*kind), def, image(size, 3)))
        })
        .collect::<Vec<_>>();
    all.push(layers(
        r#"
layer = [
  { kind = "conv2d", name = "a", filters = 4, kernel = [3, 5], stride = 2, padding = "same", groups = 2, activation = "gelu" },
  { kind = "batch-norm", name = "b" },
  { kind = "max-pool", name = "c", size = 3, stride = 2, padding = 1 },
  { kind = "conv2d", name = "d", filters = 4, kernel = 1, bias = false, activation = "relu6" },
  { kind = "group-norm", name = "e", groups = 2 },
  { kind = "add", name = "f", from = "c" },
  { kind = "leaky-relu", name = "g", slope = 0.2 },
  { kind = "avg-pool", name = "h", size = 2, stride = 1, padding = "same" },
  { kind = "dropout", name = "i", rate = 0.3 },
  { kind = "flatten", name = "j" },
  { kind = "dense", name = "k", units = 9, activation = "tanh" },
  { kind = "layer-norm", name = "l" },
  { kind = "dense", name = "m", units = 8, bias = false, activation = "sigmoid" },
  { kind = "group-norm", name = "n", groups = 4 },
  { kind = "batch-norm", name = "o" },
  { kind = "relu", name = "p" },
  { kind = "dense", name = "q" },
]"#,
        image(9, 2),
    ));
    all.push(layers(
        r#"
layer = [
  { kind = "embedding", name = "table", size = 6 },
  { kind = "group-norm", name = "norm", groups = 3 },
  { kind = "batch-norm", name = "batch" },
  { kind = "global-avg-pool", name = "mean" },
  { kind = "dense", name = "out" },
]"#,
        InputSpec::Tokens {
            length: 5,
            vocabulary: 11,
        },
    ));
    all.push(layers(
        r#"
layer = [
  { kind = "embedding", name = "table", size = 4 },
  { kind = "gelu", name = "gelu" },
  { kind = "global-max-pool", name = "max" },
  { kind = "dense", name = "out" },
]"#,
        InputSpec::Tokens {
            length: 3,
            vocabulary: 7,
        },
    ));
    all.push(layers(
        r#"
layer = [
  { kind = "conv2d", name = "a", filters = 3, kernel = 3 },
  { kind = "flatten", name = "b" },
  { kind = "relu", name = "c" },
  { kind = "dense", name = "d" },
]"#,
        image(5, 2),
    ));
    all.push(layers(
        r#"
layer = [
  { kind = "conv2d", name = "a", filters = 3, kernel = 3, activation = "relu" },
  { kind = "global-max-pool", name = "b" },
  { kind = "dense", name = "c" },
]"#,
        image(6, 1),
    ));
    all
}

/// Parameters away from their starts, so that nothing is 0 or 1.
fn parameters(model: &Model) -> Vec<f32> {
    let mut stream = stream(3);
    let mut parameters = model.init(&mut stream).into_values();
    for tensor in model.layout().tensors() {
        for value in &mut parameters[tensor.range()] {
            *value += (0.2 * stream.uniform()) as f32;
        }
    }
    parameters
}

#[test]
fn written_and_read_again() {
    let target = TargetSpec::Class { classes: 5 };
    for (name, def, input) in models() {
        let model = Model::new(&def, &input, target).expect(&name);
        let parameters = parameters(&model);
        let data = Made::new(&input, 5, 6);
        let mut losses = Vec::new();
        for opset in [13, 16, 17, 18, 20, 21] {
            let at = format!("{name}, opset {opset}");
            let options = ExportOptions {
                opset,
                ..ExportOptions::default()
            };
            let bytes = export(&model, &parameters, &options).expect(&at);
            let again = import(&bytes, &Limits::default()).expect(&at);
            assert_eq!(again.model.input(), &input, "{at}");
            assert_eq!(again.quantization, None, "{at}");
            let theirs = again.model.layout().tensors();
            assert_eq!(theirs.len(), model.layout().tensors().len(), "{at}");
            for (tensor, found) in model.layout().tensors().iter().zip(theirs) {
                assert_eq!(
                    (&tensor.name, &tensor.shape),
                    (&found.name, &found.shape),
                    "{at}"
                );
                let found = &again.parameters[found.range()];
                assert_eq!(&parameters[tensor.range()], found, "{at}: {}", tensor.name);
            }
            losses.push(loss(again.model, &again.parameters, &data));
        }
        let ours = loss(model, &parameters, &data);
        assert!(
            losses.iter().all(|found| found.to_bits() == ours.to_bits()),
            "{name}: {ours} {losses:?}"
        );
    }
}

#[test]
fn a_folded_norm_gives_the_same_numbers() {
    let target = TargetSpec::Class { classes: 5 };
    for (name, def, input) in models() {
        let model = Model::new(&def, &input, target).expect(&name);
        let parameters = parameters(&model);
        let data = Made::new(&input, 5, 6);
        let folded = ExportOptions {
            fold_batch_norm: true,
            ..ExportOptions::default()
        };
        let bytes = export(&model, &parameters, &folded).expect(&name);
        let again = import(&bytes, &Limits::default()).expect(&name);
        let found = loss(again.model, &again.parameters, &data);
        let ours = loss(model, &parameters, &data);
        assert!(
            (found - ours).abs() <= 1e-5 * ours,
            "{name}: {ours} {found}"
        );
    }
}

#[test]
fn halves_are_read_as_the_numbers_that_they_stand_for() {
    let target = TargetSpec::Class { classes: 5 };
    let (name, def, input) = models().swap_remove(2);
    let model = Model::new(&def, &input, target).expect(&name);
    let mut parameters = parameters(&model);
    let options = ExportOptions {
        numbers: Numbers::F16,
        ..ExportOptions::default()
    };
    let bytes = export(&model, &parameters, &options).expect(&name);
    let again = import(&bytes, &Limits::default()).expect(&name);
    for value in &mut parameters {
        *value = half::f16::from_f32(*value).to_f32();
    }
    assert_eq!(again.parameters, parameters);
}

/// Inputs of a batch as the file takes them: images channels first.
fn fed(input: &InputSpec, data: &Made) -> Tensor {
    let rows = data.labels.len();
    match input {
        InputSpec::Tokens { length, .. } => {
            let tokens = data.tokens.iter().map(|&token| i64::from(token)).collect();
            Tensor::new(vec![rows, *length], tokens).expect("whole rows")
        }
        InputSpec::Real(shape) => match shape[..] {
            [height, width, channels] => {
                let mut turned = Vec::<f32>::with_capacity(data.reals.len());
                for image in data.reals.chunks_exact(input.len()) {
                    for channel in 0..channels {
                        turned.extend(image.iter().skip(channel).step_by(channels));
                    }
                }
                Tensor::new(vec![rows, channels, height, width], turned).expect("whole images")
            }
            _ => Tensor::new(vec![rows, input.len()], data.reals.clone()).expect("whole rows"),
        },
    }
}

fn inputs(data: &Made) -> Inputs<'_> {
    match data.input {
        InputSpec::Real(_) => Inputs::Real(&data.reals),
        InputSpec::Tokens { .. } => Inputs::Tokens(&data.tokens),
    }
}

/// What the interpreter makes of a file.
fn interpreted(bytes: &[u8], input: Tensor) -> Vec<f32> {
    let limits = Limits::default();
    let model = decode(bytes, &limits).expect("a file that was just written");
    let interpreter = Interpreter::new(&model, &limits).expect("known operators");
    let name = interpreter.inputs().next().expect("an input").to_owned();
    let outputs = interpreter
        .run(&BTreeMap::from([(name, input)]))
        .expect("an input of the model's shape");
    outputs["output"].to_f32()
}

fn served(program: Program, data: &Made) -> Vec<f32> {
    let mut outputs = vec![0.0; data.labels.len() * program.output_len()];
    Runner::new(Arc::new(program), 4).run(inputs(data), &mut outputs);
    outputs
}

/// Min-max ranges of everything that a model computes on the data.
fn calibrated(model: &Arc<Model>, parameters: &[f32], data: &Made) -> Quantization {
    let program = Program::compile(model, parameters, &Numerics::F32, Passes::OBSERVED);
    let program = program.expect("finite parameters of this model");
    let mut calibrator =
        Calibrator::new(Calibration::MinMax).expect("min-max takes no numbers that could be wrong");
    let mut outputs = vec![0.0; data.labels.len() * program.output_len()];
    let mut see = |name: &str, values: &[f32]| {
        calibrator
            .observe(name, values)
            .expect("activations are finite");
    };
    Runner::new(Arc::new(program), 4).run_observed(inputs(data), &mut outputs, &mut see);
    calibrator.next_pass();
    let ranges = calibrator.ranges().expect("min-max needs one pass");
    let ranges = ranges.iter().map(|(name, range)| (name.as_str(), *range));
    Quantization::from_ranges(ranges, Granularity::Channel)
}

#[test]
fn a_file_computes_what_the_model_computes() {
    let target = TargetSpec::Class { classes: 5 };
    for (name, def, input) in models() {
        let model = Arc::new(Model::new(&def, &input, target).expect(&name));
        let parameters = parameters(&model);
        let data = Made::new(&input, 5, 8);
        let program = Program::compile(&model, &parameters, &Numerics::F32, Passes::ALL);
        let ours = served(program.expect(&name), &data);
        for opset in [13, 17, 20, 21] {
            let options = ExportOptions {
                opset,
                ..ExportOptions::default()
            };
            let bytes = export(&model, &parameters, &options).expect(&name);
            let found = interpreted(&bytes, fed(&input, &data));
            let scale = ours.iter().fold(1.0f32, |most, x| most.max(x.abs()));
            for (a, b) in ours.iter().zip(&found) {
                assert!((a - b).abs() <= 1e-5 * scale, "{name} {opset}: {a} {b}");
            }
        }
    }
}

#[test]
fn integers_in_a_file_are_the_integers_of_the_model() {
    let target = TargetSpec::Class { classes: 5 };
    for (name, def, input) in models() {
        let model = Arc::new(Model::new(&def, &input, target).expect(&name));
        let parameters = parameters(&model);
        let data = Made::new(&input, 5, 8);
        let quantization = calibrated(&model, &parameters, &data);
        let numerics = Numerics::Int8(quantization.clone());
        let program = Program::compile(&model, &parameters, &numerics, Passes::ALL);
        let ours = served(program.expect(&name), &data);
        let numbers = Numbers::Int8(&quantization);
        let options = ExportOptions {
            numbers,
            ..ExportOptions::default()
        };
        let bytes = export(&model, &parameters, &options).expect(&name);
        let found = interpreted(&bytes, fed(&input, &data));
        let norms = (def.layers(&input).expect(&name).iter())
            .any(|layer| layer.kind().ends_with("norm") || layer.kind() == "gelu");
        let last = &model.graph().values[model.graph().output].name;
        let step = quantization.points[last].scale();
        let same = |found: &[f32]| {
            let mut pairs = ours.iter().zip(found);
            // Floats inside a unit may end on the other side of a rounding.
            match norms {
                true => pairs.all(|(a, b)| (a - b).abs() <= 1.01 * step),
                false => pairs.all(|(a, b)| a.to_bits() == b.to_bits()),
            }
        };
        assert!(same(&found), "{name}: {ours:?} {found:?}");
        // And back.
        let again = import(&bytes, &Limits::default()).expect(&name);
        let read = again.quantization.expect("integers");
        let model = Arc::new(again.model);
        let numerics = Numerics::Int8(read);
        let program = Program::compile(&model, &again.parameters, &numerics, Passes::ALL);
        let back = served(program.expect(&name), &data);
        assert!(same(&back), "{name}: {ours:?} {back:?}");
    }
}

/// Weights of four bits stand in the file as codes, and the file computes what is served.
#[test]
fn codes_in_a_file_are_the_codes_of_the_model() {
    let target = TargetSpec::Class { classes: 5 };
    for (name, def, input) in models() {
        let model = Arc::new(Model::new(&def, &input, target).expect(&name));
        let parameters = parameters(&model);
        let data = Made::new(&input, 5, 8);
        let whole = export(&model, &parameters, &ExportOptions::default()).expect(&name);
        for (code, group) in [(Code4::Int4, 32), (Code4::Uint4, 16)] {
            let weights = Weights4 {
                format: FourBits::new(code, group).expect("a group"),
                ..Weights4::default()
            };
            let program = Program::compile_four(&model, &parameters, &weights, Passes::ALL);
            let ours = served(program.expect(&name), &data);
            let options = ExportOptions {
                opset: FOUR_BIT_OPSET,
                numbers: Numbers::Int4(&weights),
                ..ExportOptions::default()
            };
            let bytes = export(&model, &parameters, &options).expect(&name);
            if parameters.len() > 100_000 {
                assert!(5 * bytes.len() < whole.len(), "{name}: {}", bytes.len());
            }
            let found = interpreted(&bytes, fed(&input, &data));
            let scale = ours.iter().fold(1.0f32, |most, x| most.max(x.abs()));
            for (a, b) in ours.iter().zip(&found) {
                assert!(
                    (a - b).abs() <= 1e-5 * scale,
                    "{name} {}: {a} {b}",
                    code.name()
                );
            }
        }
    }
}

#[test]
fn four_bits_that_onnx_does_not_have_are_refused() {
    let (name, def, input) = models().remove(0);
    let target = TargetSpec::Class { classes: 5 };
    let model = Model::new(&def, &input, target).expect(&name);
    let parameters = parameters(&model);
    let mut weights = Weights4::default();
    let export = |weights: &Weights4, opset| {
        let options = ExportOptions {
            opset,
            numbers: Numbers::Int4(weights),
            ..ExportOptions::default()
        };
        export(&model, &parameters, &options).map(|_| ())
    };
    assert_eq!(export(&weights, 20), Err(ExportError::FourBitOpset(20)));
    assert_eq!(export(&weights, 21), Ok(()));
    weights.format.code = Code4::Nf4;
    assert_eq!(export(&weights, 21), Err(ExportError::Code("nf4")));
}
