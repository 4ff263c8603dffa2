//! Models of sequences: what their files compute is what they compute.

use std::collections::BTreeMap;
use std::sync::Arc;

use fl_core::{ClientId, InputSpec, Purpose, RoundId, Seed, Stream, TargetSpec};
use fl_edge::{Inputs, Model, ModelDef, Numerics, Passes, Program, Runner};
use fl_onnx::{ExportError, ExportOptions, Interpreter, Limits, Numbers, Tensor, decode, export};

fn stream(number: u64) -> Stream {
    Stream::at(Purpose::Testing, Seed(number), RoundId(0), ClientId(0))
}

const ROWS: usize = 3;

fn models() -> Vec<(&'static str, Model)> {
    let tokens = InputSpec::Tokens {
        length: 7,
        vocabulary: 11,
    };
    let sequence = InputSpec::Real(vec![6, 5]);
    let one = TargetSpec::Class { classes: 11 };
    let each = TargetSpec::Sequence {
        length: 7,
        classes: 11,
    };
    [
        ("kind = \"lstm-shakespeare\"\nunits = [9, 5]", &tokens, one),
        ("kind = \"lstm-shakespeare\"\nunits = [9, 5]", &tokens, each),
        ("kind = \"transformer\"\nwidth = 8\nheads = 2\nunits = 12", &tokens, one),
        ("kind = \"transformer\"\nwidth = 8\nheads = 4\nunits = 12\ncausal = false", &tokens, each),
        (
            "layer = [{ kind = \"gru\", units = 4 }, { kind = \"dense\", units = 6, activation = \"relu\" },\n\
             { kind = \"attention\", heads = 3, bias = false }, { kind = \"gru\", units = 3 },\n\
             { kind = \"global-avg-pool\" }, { kind = \"dense\" }]",
            &sequence,
            one,
        ),
    ]
    .into_iter()
    .map(|(text, input, target)| {
        let def = toml::from_str::<ModelDef>(text).expect(text);
        (text, Model::new(&def, input, target).expect(text))
    })
    .collect()
}

#[test]
fn a_file_computes_what_the_model_computes() {
    for (name, model) in models() {
        let model = Arc::new(model);
        let mut random = stream(3);
        let mut parameters = model.init(&mut random).into_values();
        for value in &mut parameters {
            *value += 0.2 * random.normal() as f32;
        }
        let len = ROWS * model.input().len();
        let tokens: Vec<u32> = (0..len).map(|_| random.below(11) as u32).collect();
        let reals: Vec<f32> = (0..len).map(|_| random.normal() as f32).collect();
        let (inputs, fed) = match model.input() {
            InputSpec::Tokens { length, .. } => {
                let fed = tokens.iter().map(|&token| i64::from(token)).collect();
                let fed = Tensor::new(vec![ROWS, *length], fed).expect("whole rows");
                (Inputs::Tokens(&tokens), fed)
            }
            InputSpec::Real(shape) => {
                let shape = [&[ROWS][..], shape].concat();
                let fed = Tensor::new(shape, reals.clone()).expect("whole rows");
                (Inputs::Real(&reals), fed)
            }
        };
        let program = Program::compile(&model, &parameters, &Numerics::F32, Passes::ALL);
        let program = program.expect("finite parameters of this model");
        let mut ours = vec![0.0; ROWS * program.output_len()];
        Runner::new(Arc::new(program), 4).run(inputs, &mut ours);
        for opset in [13, 17, 18, 21] {
            let options = ExportOptions {
                opset,
                ..ExportOptions::default()
            };
            let bytes = export(&model, &parameters, &options).expect(name);
            let limits = Limits::default();
            let file = decode(&bytes, &limits).expect("a file that was just written");
            let interpreter = Interpreter::new(&file, &limits).expect("known operators");
            let input = interpreter.inputs().next().expect("an input").to_owned();
            let found = interpreter.run(&BTreeMap::from([(input, fed.clone())]));
            let found = found.expect("an input of the model's shape")["output"].to_f32();
            assert_eq!(found.len(), ours.len(), "{name} {opset}");
            let scale = ours.iter().fold(1.0f32, |most, x| most.max(x.abs()));
            for (a, b) in ours.iter().zip(&found) {
                assert!((a - b).abs() <= 1e-5 * scale, "{name} {opset}: {a} {b}");
            }
        }
    }
}

#[test]
fn other_numbers_are_refused() {
    let (_, model) = models().swap_remove(2);
    let parameters = vec![0.5; model.parameters()];
    let options = ExportOptions {
        numbers: Numbers::F16,
        ..ExportOptions::default()
    };
    let error = export(&model, &parameters, &options).expect_err("refused");
    assert!(matches!(error, ExportError::Layer { .. }));
    assert_eq!(
        error.to_string(),
        "the layer `position` (position) is written as ONNX in f32 alone; export in f32, or write \
         a model file"
    );
}
