//! ONNX through the program: `fledgling model` reads, writes, inspects and refuses it.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use fl_core::{ClientId, InputSpec, Purpose, RoundId, Seed, Stream, TargetSpec};
use fl_edge::file::{ModelFile, write_parameters};
use fl_edge::{Inputs, Model, ModelDef, Runner};
use fl_onnx::import::NATIVE_OPERATORS;
use fl_onnx::{Limits, decode, encode};
use serde_json::Value;
use tempfile::TempDir;

fn fledgling(folder: &Path, line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fledgling"))
        .current_dir(folder)
        .arg("model")
        .args(line.split_whitespace())
        .stdin(Stdio::null())
        .output()
        .expect("the built program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The line of JSON of a command that must succeed.
fn json(folder: &Path, line: &str) -> Value {
    let output = fledgling(folder, &format!("{line} --json"));
    let said = text(&output.stderr);
    assert!(output.status.success(), "`{line}` fails: {said}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("`{line}` prints no JSON, {error}: {}", text(&output.stdout))
    })
}

fn read(folder: &Path, name: &str) -> Vec<u8> {
    std::fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn write(folder: &Path, name: &str, bytes: &[u8]) {
    std::fs::write(folder.join(name), bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
}

/// Images with two channels after the first layer, so that a wrong order of a flattened image or
/// of a weight is seen.
const DEFINITION: &str = r#"
layer = [
  { kind = "conv2d", name = "first", filters = 6, kernel = 3, padding = 1, activation = "relu" },
  { kind = "batch-norm", name = "norm" },
  { kind = "max-pool", name = "pool", size = 2 },
  { kind = "conv2d", name = "second", filters = 6, kernel = 3, padding = "same", groups = 2 },
  { kind = "add", name = "sum", from = "pool" },
  { kind = "flatten", name = "flat" },
  { kind = "dense", name = "hidden", units = 12, activation = "tanh" },
  { kind = "dense", name = "out" },
]"#;

/// A folder with `m.safetensors`, a model of the digits whose parameters are all away from their
/// starts.
fn folder() -> (TempDir, Vec<f32>) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let def: ModelDef = toml::from_str(DEFINITION).expect("a valid definition");
    let input = InputSpec::Real(vec![8, 8, 1]);
    let model = Model::new(&def, &input, TargetSpec::Class { classes: 10 })
        .expect("a definition for images of 8x8");
    let mut stream = Stream::at(Purpose::Testing, Seed(4), RoundId(0), ClientId(0));
    let mut values = model.init(&mut stream).into_values();
    for value in &mut values {
        *value += (0.2 * stream.uniform()) as f32;
    }
    let parameters = fl_core::Parameters::new(Arc::clone(model.layout()), values.clone())
        .expect("as many values as the layout");
    let mut bytes = Vec::new();
    write_parameters(&model, &parameters, &mut bytes).expect("memory takes every byte");
    write(folder.path(), "m.safetensors", &bytes);
    (folder, values)
}

fn file(folder: &Path, name: &str) -> ModelFile {
    ModelFile::open(Arc::new(read(folder, name))).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn parameters(folder: &Path, name: &str) -> Vec<f32> {
    let found = file(folder, name).parameters();
    found
        .unwrap_or_else(|error| panic!("{name}: {error}"))
        .into_values()
}

/// The outputs' bits of a program in a file on some drawn images.
fn outputs(folder: &Path, name: &str) -> Vec<u32> {
    let program = file(folder, name).program();
    let program = Arc::new(program.unwrap_or_else(|error| panic!("{name}: {error}")));
    let mut stream = Stream::at(Purpose::Testing, Seed(5), RoundId(0), ClientId(0));
    let inputs: Vec<f32> = (0..16 * 64)
        .map(|_| (16.0 * stream.uniform()) as f32)
        .collect();
    let mut outputs = vec![0.0; 160];
    Runner::new(program, 16).run(Inputs::Real(&inputs), &mut outputs);
    outputs.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn a_model_goes_to_onnx_and_back() {
    let (folder, values) = folder();
    let at = folder.path();
    json(at, "convert m.safetensors -o m32.safetensors");
    let source = json(at, "inspect m.safetensors");
    for opset in [13, 17, 21] {
        let report = json(
            at,
            &format!("convert m.safetensors -o x.onnx --opset {opset}"),
        );
        let written = read(at, "x.onnx");
        assert_eq!(report["format"], "ONNX", "opset {opset}");
        assert_eq!(report["bytes"], written.len(), "opset {opset}");
        let found = decode(&written, &Limits::default()).expect("a complete file");
        assert_eq!(found.opset_import[0].version, opset);

        let inspected = json(at, "inspect x.onnx");
        assert_eq!(inspected["kind"], "ONNX", "opset {opset}");
        for key in ["parameters", "input", "target", "macs_per_example"] {
            assert_eq!(inspected[key], source[key], "opset {opset}: {key}");
        }

        json(at, "convert x.onnx -o y.safetensors --to parameters");
        assert_eq!(parameters(at, "y.safetensors"), values, "opset {opset}");
        json(at, "convert x.onnx -o y32.safetensors");
        assert_eq!(
            outputs(at, "y32.safetensors"),
            outputs(at, "m32.safetensors")
        );
        json(
            at,
            &format!("convert y.safetensors -o z.onnx --opset {opset}"),
        );
        assert_eq!(read(at, "z.onnx"), written, "opset {opset}");
    }
    let page = fledgling(at, "inspect x.onnx");
    let page = text(&page.stdout);
    for part in ["x.onnx: ONNX", "second (conv2d)", "step, as served"] {
        assert!(page.contains(part), "no {part:?} in: {page}");
    }
    json(at, "convert m.safetensors -o half.onnx --to f16");
    json(at, "convert half.onnx -o half.safetensors --to parameters");
    for (x, half) in values.iter().zip(parameters(at, "half.safetensors")) {
        // Eleven bits of the number remain; below 2^-14 the last of them stands for 2^-24.
        let nearest = (x - half).abs() <= (x.abs() / 2048.0).max(0.5f32.powi(25));
        assert!(nearest && half.to_bits() & 0x1fff == 0, "{x} became {half}");
    }
}

#[test]
fn integers_go_to_onnx_and_back() {
    let (folder, _) = folder();
    let at = folder.path();
    for granularity in ["tensor", "channel"] {
        let options = format!("--data digits --samples 64 --granularity {granularity}");
        let ours = json(
            at,
            &format!("quantize m.safetensors -o q.safetensors {options}"),
        );
        let report = json(at, &format!("quantize m.safetensors -o q.onnx {options}"));
        assert_eq!(report["points"], ours["points"], "{granularity}");
        assert_eq!(report["bytes"], read(at, "q.onnx").len(), "{granularity}");

        let inspected = json(at, "inspect q.onnx");
        assert_eq!(inspected["kind"], "ONNX in int8", "{granularity}");
        let steps = inspected["steps"].as_array().expect("a list of steps");
        let integer = |step: &&Value| {
            let operator = step["operator"].as_str().unwrap_or_default();
            operator.contains("int8")
        };
        assert!(
            steps.iter().filter(integer).count() >= 4,
            "two convolutions and two dense layers are served in integers: {steps:?}"
        );

        json(at, "convert q.onnx -o back.safetensors --to int8");
        assert_eq!(
            outputs(at, "back.safetensors"),
            outputs(at, "q.safetensors")
        );
        // The first reading folds nothing any more.
        json(at, "convert q.onnx -o again.onnx --to int8");
        json(at, "convert again.onnx -o third.onnx --to int8");
        assert_eq!(
            read(at, "third.onnx"),
            read(at, "again.onnx"),
            "{granularity}"
        );
        let timed = json(at, "bench q.onnx --batch 1");
        assert_eq!(timed["numerics"], "int8", "{granularity}");
    }
}

/// `x.onnx` with a node's operator changed.
fn with_operator(at: &Path, name: &str, from: &str, to: &str) {
    let mut model = decode(&read(at, "x.onnx"), &Limits::default()).expect("a complete file");
    let graph = model.graph.as_mut().expect("a graph");
    let node = graph.node.iter_mut().find(|node| node.op_type == from);
    to.clone_into(&mut node.expect("a node of the operator").op_type);
    write(at, name, &encode(&model));
}

#[test]
fn a_wrong_file_is_refused_with_what_is_wrong() {
    let (folder, _) = folder();
    let at = folder.path();
    json(at, "convert m.safetensors -o x.onnx");
    let whole = read(at, "x.onnx");
    for part in 1..8 {
        write(
            at,
            &format!("cut{part}.onnx"),
            &whole[..whole.len() * part / 8],
        );
    }
    write(at, "empty.onnx", b"");
    write(at, "text.onnx", b"this is no model at all\n");
    with_operator(at, "sin.onnx", "Tanh", "Sin");
    with_operator(at, "made-up.onnx", "Tanh", "Tanhh");
    let mut old = decode(&whole, &Limits::default()).expect("a complete file");
    old.opset_import[0].version = 9;
    write(at, "old.onnx", &encode(&old));

    let native = format!("only for {NATIVE_OPERATORS}");
    let mut cases: Vec<(String, i32, Vec<&str>)> = vec![
        (
            "convert sin.onnx -o out.safetensors".to_owned(),
            1,
            vec!["sin.onnx", "node `hidden` (Sin)", &native, "Conv, "],
        ),
        (
            "inspect made-up.onnx".to_owned(),
            1,
            vec!["made-up.onnx", "node `hidden` (Tanhh)", &native],
        ),
        (
            "inspect old.onnx".to_owned(),
            1,
            vec!["old.onnx", "opset 9", "13 to 21"],
        ),
        (
            "inspect empty.onnx".to_owned(),
            1,
            vec!["empty.onnx", "the model has no graph"],
        ),
        (
            "bench text.onnx".to_owned(),
            1,
            vec!["text.onnx", "give a complete ONNX file"],
        ),
        (
            "convert x.onnx -o out.safetensors --to int8".to_owned(),
            2,
            vec!["x.onnx", "was not trained for quantization"],
        ),
        (
            "quantize x.onnx -o out.onnx --data adult".to_owned(),
            2,
            vec!["adult", "[8, 8, 1]"],
        ),
        (
            "inspect nowhere.onnx".to_owned(),
            2,
            vec!["nowhere.onnx", "neither a file nor a model of the zoo"],
        ),
    ];
    for part in 1..8 {
        // Where it is cut decides whether the file or a tensor in it ends too early.
        let line = format!("convert cut{part}.onnx -o out.safetensors");
        cases.push((line, 1, vec!["cut"]));
    }
    for (line, code, parts) in cases {
        for json in ["", " --json"] {
            let output = fledgling(at, &format!("{line}{json}"));
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(code), "`{line}{json}`: {said}");
            assert_eq!(text(&output.stdout), "", "`{line}{json}`");
            for part in &parts {
                assert!(said.contains(part), "`{line}`: {said:?} has no {part:?}");
            }
            assert!(!said.contains("panicked"), "`{line}`: {said}");
            assert!(
                !at.join("out.safetensors").exists() && !at.join("out.onnx").exists(),
                "`{line}` leaves a file"
            );
        }
    }
}
