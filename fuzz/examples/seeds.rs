//! Writes the first inputs of every corpus into `fuzz/corpus`.

use std::path::Path;
use std::sync::Arc;

use fl_core::{ClientId, InputSpec, Purpose, RoundId, Seed, Stream, TargetSpec};
use fl_edge::file::{write_parameters, write_program};
use fl_edge::gguf::{Array, TensorKind, Value, Writer, write_model};
use fl_edge::quant::{Code4, FourBits, Granularity, Quantization, Range, Scope, Weights4};
use fl_edge::{Model, ModelDef, Numerics, Passes, Program};
use fl_onnx::export::FOUR_BIT_OPSET;
use fl_onnx::{ExportOptions, Numbers};

const MODELS: &[(&str, &str)] = &[
    (
        "dense",
        r#"{"layer":[{"kind":"flatten"},{"kind":"dense"}]}"#,
    ),
    (
        "conv",
        r#"{"layer":[{"kind":"conv2d","name":"c","filters":2,"kernel":2,"padding":"same","activation":"relu"},{"kind":"max-pool","size":2},{"kind":"flatten"},{"kind":"dense"}]}"#,
    ),
    (
        "residual",
        r#"{"layer":[{"kind":"conv2d","name":"a","filters":2,"kernel":1},{"kind":"batch-norm"},{"kind":"relu6","name":"r"},{"kind":"conv2d","name":"b","filters":2,"kernel":3,"padding":"same","groups":2},{"kind":"add","from":"r"},{"kind":"global-avg-pool"},{"kind":"dense"}]}"#,
    ),
    (
        "norms",
        r#"{"layer":[{"kind":"group-norm","groups":1},{"kind":"gelu"},{"kind":"avg-pool","size":2},{"kind":"flatten"},{"kind":"layer-norm"},{"kind":"tanh"},{"kind":"dense"}]}"#,
    ),
];

/// The same of tokens.
const SEQUENCES: &[(&str, &str)] = &[
    (
        "transformer",
        r#"{"kind":"transformer","width":8,"heads":2,"blocks":1,"units":8}"#,
    ),
    (
        "recurrent",
        r#"{"layer":[{"kind":"embedding","size":4},{"kind":"lstm","units":4},{"kind":"gru","units":4},{"kind":"last"},{"kind":"dense"}]}"#,
    ),
];

const FLASH: &[(&str, &str)] = &[
    (
        "text",
        r#"{"a":{"model":"m","messages":"2020-01-29 08:15:00\tscreen_off\n2020-01-29 08:16:00\tbattery_charged_on\n2020-01-30 00:00:01\tWIFI\n2020-02-01 23:59:59\tscreen_on"}}"#,
    ),
    (
        "lines",
        r#"{"b":{"messages":["2020-02-28 08:15:00\t57.0%","2020-02-29 08:15:00\t4G\n2020-03-01 00:00:00\tscreen_lock"]}}"#,
    ),
];

fn write(target: &str, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join(name), bytes)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for (name, def) in MODELS {
        let def: ModelDef = serde_json::from_str(def)?;
        let input = InputSpec::Real(vec![4, 4, 1]);
        let model = Arc::new(Model::new(&def, &input, TargetSpec::Class { classes: 3 })?);
        let mut stream = Stream::at(Purpose::Testing, Seed(1), RoundId(0), ClientId(0));
        let parameters = model.init(&mut stream);
        let mut bytes = Vec::new();
        write_parameters(&model, &parameters, &mut bytes)?;
        write("model-file", name, &bytes)?;
        for kind in TensorKind::ALL {
            let bytes = write_model(&model, &parameters, kind)?;
            write("gguf", &format!("{name}-{}", kind.name()), &bytes)?;
        }
        let range = Range {
            min: -1.0,
            max: 2.0,
        };
        let points = model.graph().values.iter();
        let points = points.map(|value| (value.name.as_str(), range));
        let quantization = Quantization::from_ranges(points, Granularity::Channel);
        let numerics = [
            Numerics::F32,
            Numerics::F16,
            Numerics::Int8(quantization.clone()),
            Numerics::Int4(FourBits::new(Code4::Int4, 64)?),
            Numerics::Int4(FourBits::new(Code4::Uint4, 16)?),
            Numerics::Int4(FourBits::new(Code4::Nf4, 32)?),
        ];
        let products = FourBits {
            scope: Scope::Products,
            ..FourBits::new(Code4::Int4, 32)?
        };
        let products = Numerics::Int4(products);
        let program = Program::compile(&model, parameters.values(), &products, Passes::ALL)?;
        let mut bytes = Vec::new();
        write_program(&program, &mut bytes)?;
        write("model-file", &format!("{name}-int4-products"), &bytes)?;
        for numerics in numerics {
            let program = Program::compile(&model, parameters.values(), &numerics, Passes::ALL)?;
            let mut bytes = Vec::new();
            write_program(&program, &mut bytes)?;
            write("model-file", &format!("{name}-{}", numerics.name()), &bytes)?;
            compiled(name, &model, parameters.values(), &numerics, Passes::ALL)?;
            compiled(name, &model, parameters.values(), &numerics, Passes::NONE)?;
        }
        let [int4, uint4] = [Code4::Int4, Code4::Uint4].map(|code| Weights4 {
            format: FourBits {
                code,
                group: 16,
                ..FourBits::default()
            },
            ..Weights4::default()
        });
        for (numbers, form, opset) in [
            (Numbers::F32, "f32", 17),
            (Numbers::Int8(&quantization), "int8", 17),
            (Numbers::Int4(&int4), "int4", FOUR_BIT_OPSET),
            (Numbers::Int4(&uint4), "uint4", FOUR_BIT_OPSET),
        ] {
            let options = ExportOptions {
                opset,
                numbers,
                ..ExportOptions::default()
            };
            let onnx = fl_onnx::export(&model, parameters.values(), &options)?;
            write("onnx", &format!("{name}-{form}"), &onnx)?;
        }
    }
    for (name, def) in SEQUENCES {
        let def: ModelDef = serde_json::from_str(def)?;
        let input = InputSpec::Tokens {
            length: 4,
            vocabulary: 5,
        };
        let model = Arc::new(Model::new(&def, &input, TargetSpec::Class { classes: 3 })?);
        let mut stream = Stream::at(Purpose::Testing, Seed(1), RoundId(0), ClientId(0));
        let parameters = model.init(&mut stream);
        for numerics in [
            Numerics::F32,
            Numerics::Int4(FourBits::new(Code4::Uint4, 16)?),
            Numerics::int8_plan(&model),
        ] {
            compiled(name, &model, parameters.values(), &numerics, Passes::ALL)?;
            compiled(name, &model, parameters.values(), &numerics, Passes::NONE)?;
        }
    }
    let mut writer = Writer::new();
    writer.value("general.alignment", Value::U32(8))?;
    writer.value(
        "nested",
        Value::Array(Array::Array(vec![Array::U8(vec![1, 2])])),
    )?;
    writer.value("texts", Value::Array(Array::Text(vec!["a".to_owned(); 2])))?;
    writer.value("flag", Value::Bool(true))?;
    writer.tensor("w", &[1, 32], TensorKind::Q4_0, &[0.5; 32])?;
    write("gguf", "container", &writer.finish()?)?;
    for (name, bytes) in fl_fuzz::patch::seeds()? {
        write("patch", name, &bytes)?;
    }
    for name in ["mcu-m4", "sbc-pi-4"] {
        let profiles = fl_edge::device::catalogue::PROFILES;
        let found = profiles.iter().find(|(known, _)| *known == name);
        let (_, text) = found.ok_or("a known device")?;
        write("device-profile", name, text.as_bytes())?;
    }
    write(
        "idx",
        "bytes",
        &[0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6],
    )?;
    write(
        "idx",
        "words",
        &[0, 0, 12, 1, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4],
    )?;
    write(
        "leaf",
        "numbers",
        br#"{"users":["a","b"],"num_samples":[1,2],"user_data":{"a":{"x":[[0.5,1]],"y":[1]},"b":{"x":[[1,2],[3,4]],"y":[0,1]}}}"#,
    )?;
    write(
        "leaf",
        "texts",
        br#"{"users":["a"],"num_samples":[1],"user_data":{"a":{"x":["to be or"],"y":["n"]}}}"#,
    )?;
    let recordings = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sim/tests/fixtures/fleet");
    for name in [
        "behaviour-0",
        "behaviour-2",
        "behaviour-4",
        "capacity-0",
        "capacity-4",
    ] {
        let bytes = std::fs::read(recordings.join(format!("{name}.pkl")))?;
        write("trace-fedscale", name, &bytes)?;
    }
    for (name, message) in fl_fuzz::wire::seeds() {
        write("wire", name, &message)?;
    }
    for (name, text) in FLASH {
        write("trace-flash", name, text.as_bytes())?;
    }
    // Two pixels of gray, and a header without a picture.
    let gray = [
        0x89, b'P', b'N', b'G', 13, 10, 26, 10, 0, 0, 0, 13, b'I', b'H', b'D', b'R', 0, 0, 0, 2, 0,
        0, 0, 1, 8, 0, 0, 0, 0, 0xd1, 0x49, 0xef, 0xda,
    ];
    write("png", "header", &gray)?;
    write("png", "magic", &gray[..8])?;
    write(
        "png",
        "gray",
        &picture(png::ColorType::Grayscale, png::BitDepth::Eight, 2, &[7; 4])?,
    )?;
    write(
        "png",
        "gray-bits",
        &picture(png::ColorType::Grayscale, png::BitDepth::Two, 3, &[0xb0; 3])?,
    )?;
    write(
        "png",
        "rgb",
        &picture(png::ColorType::Rgb, png::BitDepth::Eight, 2, &[9; 12])?,
    )?;
    write(
        "png",
        "rgb-wide",
        &picture(png::ColorType::Rgb, png::BitDepth::Sixteen, 1, &[1; 6])?,
    )?;
    write(
        "png",
        "transparent",
        &picture(png::ColorType::Rgba, png::BitDepth::Eight, 1, &[5; 4])?,
    )?;
    for (target, name, bytes) in fl_fuzz::secagg::seeds() {
        write(target, &name, &bytes)?;
    }
    Ok(())
}

/// The compiled steps of a program.
fn compiled(
    name: &str,
    model: &Arc<Model>,
    parameters: &[f32],
    numerics: &Numerics,
    passes: Passes,
) -> Result<(), Box<dyn std::error::Error>> {
    let program = Program::compile(model, parameters, numerics, passes)?;
    let mut bytes = Vec::new();
    write_program(&program, &mut bytes)?;
    let body = fl_fuzz::steps::body(&bytes).ok_or("a program's file has steps")?;
    let form = match passes == Passes::ALL {
        true => "",
        false => "-apart",
    };
    let name = format!("{name}-{}{form}", numerics.name());
    Ok(write("compiled-steps", &name, &body)?)
}

/// A whole PNG file of `size` by `size` pixels.
fn picture(
    color: png::ColorType,
    depth: png::BitDepth,
    size: u32,
    data: &[u8],
) -> Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, size, size);
    encoder.set_color(color);
    encoder.set_depth(depth);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(data)?;
    writer.finish()?;
    Ok(bytes)
}
