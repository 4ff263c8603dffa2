//! `fledgling model` as a person uses it.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use fl_core::{ClientId, InputSpec, Purpose, RoundId, Seed, Stream, TargetSpec};
use fl_edge::file::{ModelFile, write_parameters};
use fl_edge::gguf;
use fl_edge::quant::Float;
use fl_edge::{Model, ModelDef, Numerics};
use safetensors::SafeTensors;
use serde_json::Value;

fn fledgling(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fledgling"))
        .current_dir(folder)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn number(report: &Value, key: &str) -> f64 {
    let number = report[key].as_f64();
    number.unwrap_or_else(|| panic!("{key} is no number in {report}"))
}

/// The lines of JSON of a command that must succeed.
fn lines(folder: &Path, args: &[&str]) -> Vec<Value> {
    let output = fledgling(folder, args);
    assert!(
        output.status.success(),
        "{args:?}: {}",
        text(&output.stderr)
    );
    text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect()
}

/// Exit code and standard error.
fn fails(folder: &Path, args: &[&str]) -> (Option<i32>, String) {
    let output = fledgling(folder, args);
    assert!(output.stdout.is_empty(), "{}", text(&output.stdout));
    (output.status.code(), text(&output.stderr))
}

/// A model of the digits, with the parameters that training starts with.
fn digits(path: &Path, kind: &str) -> Model {
    let def = ModelDef::named(kind).expect("a model of the digits");
    let input = InputSpec::Real(vec![8, 8, 1]);
    let model =
        Model::new(&def, &input, TargetSpec::Class { classes: 10 }).expect("a model of the digits");
    let mut stream = Stream::at(Purpose::Testing, Seed(1), RoundId(0), ClientId(0));
    let mut bytes = Vec::new();
    write_parameters(&model, &model.init(&mut stream), &mut bytes).expect("a model of the digits");
    std::fs::write(path, bytes).expect("a model of the digits");
    model
}

#[test]
fn a_model_of_the_zoo_is_inspected() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let found = &lines(
        folder.path(),
        &["model", "inspect", "cnn-fedavg", "--json", "--batch", "1,8"],
    )[0];
    assert_eq!(found["kind"], "zoo");
    assert_eq!(found["parameters"], 1_663_370);
    assert_eq!(
        found["layers"][0]["output_shape"],
        serde_json::json!([28, 28, 32])
    );
    let inference = found["inference"].as_array().ok_or("a list")?;
    let names: Vec<&str> = inference
        .iter()
        .map(|it| it["numerics"].as_str().unwrap_or("no name"))
        .collect();
    assert_eq!(
        names,
        ["f32", "f32", "f16", "f16", "int8", "int8", "int4", "int4"]
    );
    for it in inference {
        let bytes = |key: &str| number(it, key);
        let parts = bytes("constant_bytes") + bytes("arena_bytes") + bytes("table_bytes");
        assert!((bytes("peak_bytes") - parts).abs() < 0.5, "{it}");
        let each = match it["numerics"].as_str() {
            Some("f32") => 4.0,
            Some("f16") => 2.0,
            Some("int4") => 0.5,
            _ => 1.0,
        };
        let share = bytes("peak_bytes") / (each * 1_663_370.0);
        assert!((bytes("peak_of_parameters") - share).abs() < 1e-9, "{it}");
        assert!(share <= 2.0 || it["batch"] != 1, "{it}");
    }
    let constants = |index: usize| number(&inference[index], "constant_bytes");
    assert!(constants(4) / constants(0) <= 0.26);
    assert!(constants(6) / constants(0) <= 0.14);
    assert_eq!(found["training"][1]["batch"], 8);
    assert!(
        found["training"][1]["peak_bytes"].as_u64() > found["training"][0]["peak_bytes"].as_u64()
    );
    let trained = |batch: usize, key: &str| found["training"][batch][key].as_u64();
    assert!(trained(0, "qat_peak_bytes") < trained(1, "qat_peak_bytes"));
    assert!(trained(1, "qat_peak_bytes") > Some(4 * 1_663_370));
    let page = fledgling(folder.path(), &["model", "inspect", "cnn-fedavg"]);
    let page = text(&page.stdout);
    for part in [
        "1,663,370 parameters",
        "inference in int8",
        "training in f32",
        "training in qat-int8",
        "step, as served",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    Ok(())
}

#[test]
fn a_model_is_quantized_converted_and_timed() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let at = folder.path();
    let model = digits(&at.join("m.safetensors"), "mlp-2nn");

    let found = &lines(at, &["model", "inspect", "m.safetensors", "--json"])[0];
    assert_eq!(
        (&found["kind"], &found["file"]["verified"]),
        (&"parameters".into(), &true.into())
    );
    assert_eq!(found["parameters"], model.parameters());

    let int8 = &lines(
        at,
        &[
            "model",
            "quantize",
            "m.safetensors",
            "-o",
            "int8.safetensors",
            "--data",
            "digits",
            "--calibrator",
            "percentile",
            "--samples",
            "64",
            "--json",
        ],
    )[0];
    assert_eq!(
        (&int8["samples"], &int8["calibrator"]),
        (&64.into(), &"percentile".into())
    );
    assert!(
        number(int8, "bytes") / number(int8, "f32_bytes") < 0.3,
        "{int8}"
    );
    let (before, after) = (number(int8, "accuracy_f32"), number(int8, "accuracy"));
    assert!((before - after).abs() < 0.05, "{before} {after}");
    let again = lines(
        at,
        &[
            "model",
            "quantize",
            "m.safetensors",
            "-o",
            "again.safetensors",
            "--data",
            "digits",
            "--calibrator",
            "percentile",
            "--samples",
            "64",
            "--json",
        ],
    );
    assert_eq!(again[0]["bytes"], int8["bytes"]);
    let read = |name: &str| std::fs::read(at.join(name)).expect("a file that was written");
    assert_eq!(read("int8.safetensors"), read("again.safetensors"));
    for (percentile, same) in [("99.999", true), ("90", false)] {
        let args = [
            "model",
            "quantize",
            "m.safetensors",
            "-o",
            "other.safetensors",
        ];
        let options = "--data digits --calibrator percentile --samples 64 --json --percentile";
        let args: Vec<&str> = args.into_iter().chain(options.split(' ')).collect();
        lines(at, &[&args[..], &[percentile]].concat());
        let equal = read("int8.safetensors") == read("other.safetensors");
        assert_eq!(equal, same, "{percentile}");
    }

    let half = &lines(
        at,
        &[
            "model",
            "convert",
            "m.safetensors",
            "-o",
            "half.safetensors",
            "--to",
            "f16",
            "--json",
        ],
    )[0];
    assert_eq!(half["format"], "program in f16");
    lines(
        at,
        &[
            "model",
            "convert",
            "m.safetensors",
            "-o",
            "m.onnx",
            "--opset",
            "13",
            "--json",
        ],
    );
    assert!(fl_onnx::decode(&read("m.onnx"), &fl_onnx::Limits::default()).is_ok());
    lines(
        at,
        &[
            "model",
            "quantize",
            "m.safetensors",
            "-o",
            "int8.onnx",
            "--data",
            "digits",
            "--json",
        ],
    );
    assert!(fl_onnx::decode(&read("int8.onnx"), &fl_onnx::Limits::default()).is_ok());
    lines(
        at,
        &[
            "model",
            "convert",
            "m.safetensors",
            "-o",
            "same.safetensors",
            "--to",
            "parameters",
            "--json",
        ],
    );
    assert_eq!(read("same.safetensors"), read("m.safetensors"));

    for (name, numerics) in [("m", "f32"), ("half", "f16"), ("int8", "int8")] {
        let file = format!("{name}.safetensors");
        // The reference implementation of the format opens each.
        let bytes = read(&file);
        assert!(SafeTensors::deserialize(&bytes).is_ok());
        assert!(ModelFile::open(std::sync::Arc::new(bytes)).is_ok());
        let timed = lines(at, &["model", "bench", &file, "--batch", "1,4", "--json"]);
        assert_eq!(timed.len(), 2);
        for (line, batch) in timed.iter().zip([1.0, 4.0]) {
            assert_eq!(line["numerics"], numerics);
            let seconds = |key: &str| number(line, key);
            assert!(seconds("min_seconds") <= seconds("median_seconds"));
            assert!(seconds("median_seconds") <= seconds("p90_seconds"));
            let rate = batch / seconds("median_seconds");
            assert!((seconds("examples_per_second") / rate - 1.0).abs() < 1e-9);
            let share = number(line, "peak_bytes") / number(line, "parameter_bytes");
            assert!((1.0..2.0).contains(&share), "{line}");
        }
    }
    let kept = &lines(
        at,
        &[
            "model",
            "quantize",
            "m.safetensors",
            "-o",
            "kept.safetensors",
            "--data",
            "digits",
            "--keep-f16",
            "fc3",
            "--granularity",
            "tensor",
            "--json",
        ],
    );
    assert_eq!(kept[0]["f16_units"], serde_json::json!(["fc3"]));
    Ok(())
}

const TRAINED: &str = r#"
name = "trained"
rounds = 12
[dataset]
name = "digits"
partition = { kind = "iid", clients = 10 }
[model]
kind = "mlp-2nn"
[local]
epochs = 2
batch = 10
learning_rate = 0.1
[selection]
cohort = 5
[evaluation]
every = 12
precisions = ["f32", "int8"]
calibration = { kind = "federated", calibrator = "percentile", clients = 6, samples = 20 }
"#;

/// A trained model whose first layer does not bear eight bits: the corner of every digit is black,
/// so weights of any size from there change nothing but the scales of that layer.
#[test]
fn a_budget_keeps_the_fewest_layers_in_f16() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let at = folder.path();
    std::fs::write(at.join("trained.toml"), TRAINED)?;
    let run = &lines(at, &["run", "trained.toml", "--no-plots", "--json"])[0];
    let judged = run["final_accuracy"].as_f64().ok_or("an accuracy")?;
    assert!(judged > 0.85, "{run}");

    let trained = std::fs::read(at.join("results/trained/trained/model.safetensors"))?;
    let file = ModelFile::open(Arc::new(trained))?;
    let mut parameters = file.parameters()?;
    for (index, weight) in parameters.values_mut()[..200].iter_mut().enumerate() {
        *weight = if index % 2 == 0 { 1000.0 } else { -1000.0 };
    }
    let mut bytes = Vec::new();
    write_parameters(file.model(), &parameters, &mut bytes)?;
    std::fs::write(at.join("planted.safetensors"), bytes)?;

    let quantize = |out: &str, more: &[&str]| {
        let args = ["model", "quantize", "planted.safetensors", "-o", out];
        let args = [&args[..], &["--data", "digits", "--json"], more].concat();
        lines(at, &args).remove(0)
    };
    let blind = quantize("blind.safetensors", &[]);
    assert_eq!(blind["budget"], Value::Null);
    assert!(number(&blind, "accuracy") < number(&blind, "accuracy_f32") - 0.3);

    let kept = quantize(
        "kept.safetensors",
        &["--budget", "1", "--budget-samples", "500"],
    );
    assert_eq!(kept["f16_units"], serde_json::json!(["fc1"]), "{kept}");
    assert_eq!(kept["units"], 3);
    let budget = &kept["budget"];
    assert_eq!(
        (&budget["points"], &budget["samples"]),
        (&1.0.into(), &500.into())
    );
    let (exact, first, last) = (
        number(budget, "accuracy_f32"),
        number(budget, "accuracy_int8"),
        number(budget, "accuracy"),
    );
    assert!(first < exact - 0.3 && last >= exact - 0.01, "{budget}");
    let (before, after) = (number(&kept, "accuracy_f32"), number(&kept, "accuracy"));
    assert!((before - after).abs() < 0.02, "{before} {after}");
    let bytes = |report: &Value| number(report, "bytes");
    assert!(bytes(&kept) > bytes(&blind) && bytes(&kept) < 0.9 * number(&kept, "f32_bytes"));

    // What the file says of itself.
    let written = ModelFile::open(Arc::new(std::fs::read(at.join("kept.safetensors"))?))?;
    let Some(Numerics::Int8(quantization)) = written.numerics() else {
        return Err("an integer program".into());
    };
    let units = [("fc1".to_owned(), Float::F16)];
    assert_eq!(quantization.float_units, BTreeMap::from(units));

    // A model that keeps its accuracy anyway keeps no layer; in words, and as ONNX.
    let model = "results/trained/trained";
    let args = [
        "model",
        "quantize",
        model,
        "-o",
        "whole.onnx",
        "--data",
        "digits",
    ];
    let said = fledgling(at, &[&args[..], &["--budget", "2"]].concat());
    assert!(said.status.success(), "{}", text(&said.stderr));
    let page = text(&said.stdout);
    for part in [
        "in f16    none of 3 units",
        "budget    2 points: ",
        "in int8 on the test set",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let onnx = std::fs::read(at.join("whole.onnx"))?;
    assert!(fl_onnx::decode(&onnx, &fl_onnx::Limits::default()).is_ok());
    Ok(())
}

/// Trained on the digits, in four bits by every way there is: real data, so that the claim about
/// layers is about them.
#[test]
fn a_trained_model_in_four_bits() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let at = folder.path();
    std::fs::write(at.join("trained.toml"), TRAINED)?;
    lines(at, &["run", "trained.toml", "--no-plots", "--json"]);
    let model = "results/trained/trained";
    let quantize = |out: &str, more: &str| {
        let args = [
            "model", "quantize", model, "-o", out, "--data", "digits", "--json",
        ];
        let more: Vec<&str> = more.split_whitespace().collect();
        lines(at, &[&args[..], &more].concat()).remove(0)
    };
    for (to, more) in [
        ("int4", ""),
        ("int4", "--method gptq"),
        ("int4", "--method gptq --act-order --group 32"),
        ("uint4", "--method gptq --group 128"),
        ("nf4", "--method gptq"),
        ("int4", "--method awq"),
        ("int4", "--method awq-gptq"),
    ] {
        let out = "four.safetensors";
        let found = quantize(out, &format!("--to {to} {more}"));
        assert_eq!((&found["code"], &found["units"]), (&to.into(), &3.into()));
        let (exact, four) = (number(&found, "accuracy_f32"), number(&found, "accuracy"));
        assert!(
            exact > 0.85 && four > exact - 0.03,
            "{to} {more}: {exact} {four}"
        );
        let share = number(&found, "bytes") / number(&found, "f32_bytes");
        assert!(share < 0.17, "{share}");
        let layers = found["layers"].as_array().ok_or("a list")?;
        assert_eq!(layers.len(), 3);
        for layer in layers {
            let (nearest, ours) = (number(layer, "nearest"), number(layer, "found"));
            match more.contains("gptq") {
                true => assert!(ours < nearest, "{to} {more}: {layer}"),
                false => assert!((ours - nearest).abs() < 1e-15, "{to} {more}: {layer}"),
            }
        }
        let scaled = found["scaled"].as_array().ok_or("a list")?;
        if more.contains("awq") {
            assert_eq!(scaled[0]["refused"], "it reads the model's input");
            assert!(number(&scaled[1], "found") <= number(&scaled[1], "nearest"));
        } else {
            assert_eq!(scaled.len(), 0);
        }
        // The file says of itself what it is, and is served.
        let shown = &lines(at, &["model", "inspect", out, "--json"])[0];
        assert_eq!(shown["file"]["numerics"], to);
        let timed = lines(at, &["model", "bench", out, "--batch", "2", "--json"]);
        assert_eq!(timed[0]["numerics"], to);
    }

    // Without data, rounded to the nearest: what `quantize` writes by default.
    let convert = |out: &str, more: &str| {
        let args = ["model", "convert", model, "-o", out, "--json"];
        let more: Vec<&str> = more.split_whitespace().collect();
        lines(at, &[&args[..], &more].concat()).remove(0)
    };
    let read = |name: &str| std::fs::read(at.join(name)).expect("a file that was written");
    quantize("nearest.safetensors", "--to uint4 --group 32");
    let converted = convert("converted.safetensors", "--to uint4 --group 32");
    assert_eq!(converted["format"], "program in uint4");
    assert!(read("converted.safetensors") == read("nearest.safetensors"));

    // To other programs.
    convert("four.onnx", "--to int4");
    quantize("gptq.onnx", "--to int4 --method gptq");
    for name in ["four.onnx", "gptq.onnx"] {
        let bytes = read(name);
        assert!(fl_onnx::decode(&bytes, &fl_onnx::Limits::default()).is_ok());
        assert!(bytes.len() < read("results/trained/trained/model.safetensors").len() / 5);
    }
    let gptq = quantize("gptq.gguf", "--to int4 --group 32 --method gptq");
    let back = convert("back.safetensors", "--to parameters");
    assert!(number(&back, "bytes") > number(&gptq, "bytes"));
    let args = [
        "model",
        "convert",
        "gptq.gguf",
        "-o",
        "served.safetensors",
        "--json",
    ];
    lines(at, &args);
    let judged = ["model", "quantize", "gptq.gguf", "-o", "again.safetensors"];
    let judged = [&judged[..], &["--data", "digits", "--to", "nf4", "--json"]].concat();
    let judged = &lines(at, &judged)[0];
    // What the GGUF file computes in floats is what its codes stand for.
    let (a, b) = (number(judged, "accuracy_f32"), number(&gptq, "accuracy"));
    assert!((a - b).abs() < 1e-9, "{a} {b}");

    for (words, message) in [
        ("--to int8 --group 64", "--group is not used for int8"),
        (
            "--to int4 --calibrator entropy",
            "--calibrator is not used for int4",
        ),
        ("--to nf4 --budget 1", "--budget is not used for nf4"),
        (
            "--to int4 --act-order",
            "--act-order is not used for this --method",
        ),
        (
            "--to int4 --group 48",
            "expected a power of two from 16 to 1024",
        ),
    ] {
        let args = ["model", "quantize", model, "-o", "x", "--data", "digits"];
        let words: Vec<&str> = words.split_whitespace().collect();
        let (code, error) = fails(at, &[&args[..], &words].concat());
        assert_eq!(code, Some(2), "{error}");
        assert!(error.contains(message), "{error}");
    }
    for (words, code, message) in [
        (
            "quantize -o x.onnx --to nf4 --data digits",
            1,
            "ONNX has no type for weights in `nf4`",
        ),
        (
            "quantize -o x.gguf --to int4 --data digits",
            1,
            "int4 in groups of 32",
        ),
        (
            "convert -o x --to f16 --group 64",
            2,
            "--group is not used for f16",
        ),
        (
            "convert -o x.onnx --to int4 --opset 20",
            1,
            "opset 20 has no weights of four bits",
        ),
        ("convert -o x.gguf --to int4", 2, "GGUF has no form `int4`"),
    ] {
        let mut words: Vec<&str> = words.split_whitespace().collect();
        words.insert(0, "model");
        words.insert(2, model);
        let (found, error) = fails(at, &words);
        assert!(error.contains(message), "{error}");
        assert_eq!(found, Some(code), "{error}");
    }
    Ok(())
}

#[test]
fn models_go_to_gguf_and_back() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let at = folder.path();
    digits(&at.join("m.safetensors"), "mlp-2nn");
    let run = |words: &str| {
        let words: Vec<&str> = words.split_whitespace().collect();
        let output = fledgling(at, &words);
        assert!(output.status.success(), "{}", text(&output.stderr));
        output
    };
    let length = |name: &str| std::fs::metadata(at.join(name)).map(|it| it.len() as f64);
    for (form, least, most) in [
        ("f32", 0.99, 1.01),
        ("f16", 0.49, 0.51),
        ("q4_0", 0.14, 0.18),
    ] {
        run(&format!(
            "model convert m.safetensors -o {form}.gguf --to {form}"
        ));
        let ratio = length(&format!("{form}.gguf"))? / length("m.safetensors")?;
        assert!((least..most).contains(&ratio), "{form}: {ratio}");
    }
    // Without loss it comes back as it was.
    run("model convert f32.gguf -o back.safetensors --to parameters");
    assert!(
        std::fs::read(at.join("back.safetensors"))? == std::fs::read(at.join("m.safetensors"))?
    );
    let report = &lines(at, &["model", "inspect", "q4_0.gguf", "--json"])[0];
    assert_eq!(report["kind"], "GGUF");
    assert_eq!(report["model"], "mlp-2nn");

    // Another program's file.
    let mut writer = gguf::Writer::new();
    writer.value(
        "general.architecture",
        gguf::Value::Text("llama".to_owned()),
    )?;
    writer.tensor("w", &[2, 32], gguf::TensorKind::Q8_0, &[0.5; 64])?;
    std::fs::write(at.join("other.gguf"), writer.finish()?)?;
    let report = &lines(at, &["model", "inspect", "other.gguf", "--json"])[0];
    assert_eq!(report["values"][0]["value"], "\"llama\"");
    assert_eq!(report["tensors"][0]["kind"], "Q8_0");
    assert_eq!(
        (number(report, "parameters"), number(report, "bytes")),
        (64.0, 224.0)
    );
    let shown = text(&run("model inspect other.gguf").stdout);
    assert!(
        shown.contains("general.architecture") && shown.contains("[2, 32]"),
        "{shown}"
    );
    for (words, code, message) in [
        (
            "model convert other.gguf -o x",
            1,
            "other.gguf: it has no `fledgling.model`; it is a GGUF file of another program's model \
             (architecture \"llama\")",
        ),
        (
            "model convert m.safetensors -o x.gguf --to int8",
            2,
            "GGUF has no form `int8`; expected f32, f16, q8_0 or q4_0 with --to",
        ),
        (
            "model convert m.safetensors -o x.onnx --to q8_0",
            2,
            "ONNX has no form `q8_0`; expected parameters, f32, f16, int8, int4, uint4 or nf4, or an \
             output that ends in .gguf, with --to",
        ),
        (
            "model convert m.safetensors -o x --to q4_0",
            2,
            "a model file has no form `q4_0`",
        ),
    ] {
        let words: Vec<&str> = words.split_whitespace().collect();
        let (found, error) = fails(at, &words);
        assert_eq!(found, Some(code), "{error}");
        assert!(error.contains(message), "{error}");
        assert!(!at.join("x").exists() && !at.join("x.gguf").exists());
    }
    Ok(())
}

#[test]
fn what_cannot_be_is_said_with_the_right_exit_code() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let at = folder.path();
    digits(&at.join("m.safetensors"), "logreg");
    let made = fledgling(
        at,
        &["model", "convert", "m.safetensors", "-o", "p.safetensors"],
    );
    assert!(made.status.success());
    std::fs::write(
        at.join("cut.safetensors"),
        &std::fs::read(at.join("m.safetensors"))?[..100],
    )?;
    let mut bytes = std::fs::read(at.join("m.safetensors"))?;
    *bytes.last_mut().ok_or("an empty file")? ^= 1;
    std::fs::write(at.join("wiped.safetensors"), [0; 4096])?;
    std::fs::write(at.join("bad.safetensors"), bytes)?;
    let cases: &[(&[&str], i32, &str)] = &[
        (
            &["convert", "m.safetensors", "-o", "x", "--to", "int8"],
            2,
            "was not trained for quantization",
        ),
        (
            &["inspect", "cnn-fedavgg"],
            2,
            "neither a file nor a model of the zoo; did you mean `cnn-fedavg`?",
        ),
        (
            &["inspect", "cut.safetensors"],
            1,
            "cut.safetensors: it has 100 bytes",
        ),
        (
            &["inspect", "bad.safetensors"],
            1,
            "does not have the SHA-256",
        ),
        (
            &["bench", "bad.safetensors"],
            1,
            "does not have the SHA-256",
        ),
        (
            &["convert", "cnn-fedavg", "-o", "x"],
            2,
            "is a model of the zoo without trained parameters",
        ),
        (
            &["convert", "p.safetensors", "-o", "x"],
            1,
            "it holds a compiled program where parameters are needed",
        ),
        (
            &["convert", "m.safetensors", "-o", "x", "--to", "poem"],
            2,
            "invalid value 'poem'",
        ),
        (
            &["convert", "m.safetensors", "-o", "x.onnx", "--opset", "12"],
            2,
            "12",
        ),
        (
            &["quantize", "m.safetensors", "-o", "x", "--data", "nothing"],
            2,
            "nothing",
        ),
        (
            &[
                "quantize",
                "m.safetensors",
                "-o",
                "x",
                "--data",
                "digits",
                "--keep-f16",
                "conv9",
            ],
            1,
            "conv9",
        ),
        (
            &[
                "quantize",
                "m.safetensors",
                "-o",
                "x",
                "--data",
                "digits",
                "--budget",
                "half",
            ],
            2,
            "expected percentage points from 0 to 100",
        ),
        (
            &[
                "quantize",
                "m.safetensors",
                "-o",
                "x",
                "--data",
                "digits",
                "--budget-samples",
                "9",
            ],
            2,
            "--budget <POINTS>",
        ),
        (
            &[
                "quantize",
                "m.safetensors",
                "-o",
                "x",
                "--data",
                "digits",
                "--percentile",
                "99",
            ],
            2,
            "--percentile is not used by the calibrator min-max",
        ),
        (
            &[
                "quantize",
                "m.safetensors",
                "-o",
                "x",
                "--data",
                "digits",
                "--percentile",
                "0",
            ],
            2,
            "expected a number above 0 and at most 100",
        ),
        (
            &[
                "quantize",
                "m.safetensors",
                "-o",
                "x",
                "--data",
                "digits",
                "--calibrator",
                "entropy",
                "--bins",
                "64",
                "--levels",
                "65",
            ],
            2,
            "a cut of 64 bins cannot be compared at 65 levels",
        ),
        (
            &["inspect", "wiped.safetensors"],
            1,
            "has 0 bytes; expected at least the two of `{}`",
        ),
        (
            &["bench", "m.safetensors", "--batch", "0"],
            2,
            "0 is not in",
        ),
    ];
    for (args, code, message) in cases {
        let args: Vec<&str> = ["model"].iter().chain(*args).copied().collect();
        let (found, said) = fails(at, &args);
        assert_eq!(found, Some(*code), "{args:?}: {said}");
        assert!(
            said.contains(message),
            "{args:?}: {said:?} has no {message:?}"
        );
        assert!(
            !at.join("x").exists() && !at.join("x.onnx").exists(),
            "{args:?}"
        );
    }
    Ok(())
}

#[test]
fn the_model_of_a_run_is_a_model_file() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let at = folder.path();
    assert!(fledgling(at, &["new", "mine"]).status.success());
    let run = fledgling(
        at,
        &[
            "run",
            "mine.toml",
            "--set",
            "rounds=2",
            "--variant",
            "fedavg",
            "--no-plots",
        ],
    );
    assert!(run.status.success(), "{}", text(&run.stderr));
    let found = &lines(at, &["model", "inspect", "results/mine/fedavg", "--json"])[0];
    assert_eq!(found["kind"], "parameters");
    assert_eq!(found["parameters"], 650);
    let file = &lines(
        at,
        &[
            "model",
            "inspect",
            "results/mine/fedavg/model.safetensors",
            "--json",
        ],
    )[0];
    assert_eq!(file["layers"], found["layers"]);
    Ok(())
}

/// Every form of pruning at the prompt, and what comes of the files.
#[test]
fn a_model_is_pruned() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let at = folder.path();
    let model = digits(&at.join("m.safetensors"), "cnn-fedavg");
    let prune = |more: &[&str]| {
        let mut args = vec![
            "model",
            "prune",
            "m.safetensors",
            "--out",
            "p.safetensors",
            "--json",
        ];
        args.extend(more);
        let found = lines(at, &args).remove(0);
        let bytes = std::fs::read(at.join("p.safetensors")).expect("written");
        assert_eq!(found["file_bytes"]["after"], bytes.len());
        let file = ModelFile::open(Arc::new(bytes)).expect("a model file");
        let parameters = file.parameters().expect("whole");
        (found, Arc::clone(file.model()), parameters)
    };

    let (found, same, parameters) = prune(&["--unstructured", "0.8"]);
    let weights = found["weights"].as_u64().ok_or("a count")?;
    let expected = (0.8 * weights as f64).round() as u64;
    // The biases start at zero and do not count.
    assert_eq!(found["zeros"], expected);
    assert_eq!(same.layout(), model.layout());
    let zeros = parameters
        .values()
        .iter()
        .filter(|&&value| value == 0.0)
        .count();
    let biases = model.parameters() as u64 - weights;
    assert_eq!(zeros as u64, expected + biases);
    assert_eq!(found["macs"]["before"], found["macs"]["after"]);
    let packed = |found: &Value| {
        let bytes = &found["zstd_bytes"];
        number(bytes, "after") / number(bytes, "before")
    };
    assert!(packed(&found) < 0.4, "{found}");
    let of_layers: u64 = (found["layers"].as_array().ok_or("a list")?.iter())
        .filter_map(|layer| layer["zeros"].as_u64())
        .sum();
    assert_eq!(of_layers, expected);

    let (each, ..) = prune(&["--unstructured", "0.5", "--scope", "layer"]);
    let conv = &each["layers"][0];
    assert_eq!(conv["zeros"], 400, "half of 25 x 32: {conv}");

    let (four, ..) = prune(&["--two-of-four"]);
    // conv1 has 25 inputs, of which the last is alone: 12 of each filter go.
    assert_eq!(four["layers"][0]["zeros"], 12 * 32);
    assert!(number(&four, "sparsity") > 0.49);

    let (found, smaller, _) = prune(&["--filters", "0.3"]);
    assert_eq!(found["layers"][2]["name"], "conv2");
    assert_eq!(
        found["layers"][2]["output_shape"],
        serde_json::json!([4, 4, 45])
    );
    assert_eq!(smaller.parameters() as u64, found["parameters"]["after"]);
    assert_eq!(found["macs"]["after"], smaller.macs_per_example());
    assert_eq!(found["sets"][3]["kept"]["because"], "output");
    let (found, ..) = prune(&["--filters", "0.3", "--multiple", "16"]);
    assert_eq!(found["layers"][2]["output_shape"][2], 48);
    let (found, ..) = prune(&["--layer", "conv2=0.5", "--layer", "fc1=0.25"]);
    assert_eq!(found["layers"][0]["output_shape"][2], 32);
    assert_eq!(found["layers"][2]["output_shape"][2], 32);
    let (found, ..) = prune(&["--filters", "0.5", "--scope", "global"]);
    assert_eq!(found["sets"].as_array().map(Vec::len), Some(4));

    // A pruned file is a model file like any other.
    let estimate = &lines(
        at,
        &[
            "device",
            "estimate",
            "p.safetensors",
            "--device",
            "sbc-pi-5",
            "--json",
        ],
    )[0];
    assert_eq!(estimate["macs"], found["macs"]["after"]);
    lines(at, &["model", "inspect", "p.safetensors", "--json"]);
    let page = fledgling(
        at,
        &[
            "model",
            "prune",
            "m.safetensors",
            "-o",
            "q.safetensors",
            "--filters",
            "0.3",
        ],
    );
    let page = text(&page.stdout);
    for part in [
        "conv2 (conv2d)",
        "multiply-adds",
        "under zstd",
        "kept           fc2: they are the model's outputs",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }

    for (args, code, part) in [
        (
            &["--unstructured", "1"][..],
            2,
            "expected a share of at least 0 and below 1, such as 0.8",
        ),
        (&["--filters", "x"], 2, "expected a share"),
        (
            &["--layer", "conv2"],
            2,
            "expected a layer's name and a share, such as conv2=0.3",
        ),
        (
            &["--layer", "conv9=0.3"],
            2,
            "no layer with filters is called `conv9`; expected one of conv1, conv2, fc1",
        ),
        (&["--layer", "fc2=0.3"], 2, "they are the model's outputs"),
        (
            &["--two-of-four", "--scope", "layer"],
            2,
            "cannot be used with",
        ),
        (
            &["--unstructured", "0.5", "--filters", "0.5"],
            2,
            "cannot be used with",
        ),
        (
            &["--unstructured", "0.5", "--multiple", "8"],
            2,
            "cannot be used with",
        ),
        (&[], 2, "required"),
    ] {
        let mut all = vec!["model", "prune", "m.safetensors", "--out", "no.safetensors"];
        all.extend(args);
        let (found, told) = fails(at, &all);
        assert_eq!(found, Some(code), "{args:?}: {told}");
        assert!(told.contains(part), "{args:?}: {told}");
    }
    let (code, told) = fails(
        at,
        &["model", "prune", "logreg", "-o", "no", "--filters", "0.3"],
    );
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("without trained parameters"), "{told}");
    assert!(!at.join("no.safetensors").exists());
    Ok(())
}
