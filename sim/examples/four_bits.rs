//! What four bits cost beside the weights of products: small models trained in `f32` on one machine,
//! then served in `int4` with products alone in four bits, and with everything in few bits: tables in
//! four, filters of one channel in eight, biases and normalisations in 16 (`fl_edge::quant::Scope`).
//! Then, for comparison, with those filters in four bits too: what files do not have.
//!
//! ```text
//! cargo run --release -p fl-sim --example four_bits -- [SEEDS] [STEPS] [MODEL]
//! ```
//! `MODEL` is `fashion` or `cifar` (a MobileNetV2 on Fashion-MNIST or on a part of CIFAR-10) or
//! `shakespeare` (a transformer that says the next character).
#![expect(
    clippy::print_stdout,
    reason = "an example prints; that is what it is for"
)]

mod common;

use std::error::Error;
use std::sync::Arc;

use fl_core::ClientId;
use fl_edge::quant::{Code4, FourBits, Samples, Scope, Weight4};
use fl_edge::{Model, ModelDef, Numerics};

use common::{BATCH, percent, trained, whole};

const RATE: f64 = 0.1;
/// Rows of the test set at most.
const MOST_ROWS: usize = 20_000;

/// Name, data and definition.
const MODELS: [(&str, &str, &str); 3] = [
    (
        "fashion",
        "fashion-mnist",
        r#"{"kind": "mobilenet-v2", "width": 0.25, "stem-stride": 2, "stages": 5, "head": 256}"#,
    ),
    (
        "cifar",
        "cifar10-subset",
        r#"{"kind": "mobilenet-v2", "width": 0.5, "stem-stride": 1, "stages": 5, "head": 512}"#,
    ),
    ("shakespeare", "shakespeare", r#"{"kind": "transformer"}"#),
];

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let seeds: u64 = args.next().map_or(Ok(5), |text| text.parse())?;
    let steps: u64 = args.next().map_or(Ok(600), |text| text.parse())?;
    let asked = args.next().unwrap_or_else(|| "fashion".to_owned());
    let found = MODELS.iter().find(|(name, ..)| *name == asked);
    let (_, data, def) = found.ok_or("MODEL is fashion, cifar or shakespeare")?;

    let data = whole(data)?;
    let mut scratch = Default::default();
    let train = data.train(ClientId(0), &mut scratch);
    let test = data.test().ok_or("the data have no test set")?;
    let def: ModelDef = serde_json::from_str(def)?;
    let model = Arc::new(Model::new(&def, data.input(), data.target())?);
    let judged = Samples::spread(&model, test, MOST_ROWS)?;
    let filters = depthwise(&model);

    println!(
        "{asked}: {} parameters, {steps} steps of {BATCH}",
        model.parameters()
    );
    println!("             products alone      everything          filters in four bits");
    println!("seed    f32    int4  uint4       int4  uint4         int4  uint4");
    for seed in 1..=seeds {
        let (parameters, _) = trained(&model, &train, seed, RATE, steps)?;
        let percent = |parameters: &[f32], numerics: &Numerics| {
            percent(&judged, &model, parameters, numerics)
        };
        print!("{seed:4} {:6.2} ", percent(&parameters, &Numerics::F32)?);
        for scope in [Scope::Products, Scope::All] {
            for code in [Code4::Int4, Code4::Uint4] {
                let format = FourBits {
                    code,
                    scope,
                    ..FourBits::default()
                };
                print!(" {:6.2}", percent(&parameters, &Numerics::Int4(format))?);
            }
            print!("     ");
        }
        for code in [Code4::Int4, Code4::Uint4] {
            let format = FourBits {
                code,
                ..FourBits::default()
            };
            let mut rounded = parameters.clone();
            for (range, channels) in &filters {
                // A filter is a group: what normalisation is folded in does not matter.
                let weight = &mut rounded[range.clone()];
                let made = Weight4::nearest("filters", &format, *channels, weight)?;
                weight.copy_from_slice(&made.dequantized());
            }
            match filters.is_empty() {
                true => print!("      -"),
                false => print!(" {:6.2}", percent(&rounded, &Numerics::Int4(format))?),
            }
        }
        println!();
    }
    Ok(())
}

/// Where the filters of one channel are among the parameters, and how many there are.
fn depthwise(model: &Model) -> Vec<(std::ops::Range<usize>, usize)> {
    let tensors = model.layout().tensors().iter();
    let filters = tensors.filter_map(|tensor| match tensor.shape[..] {
        [high, wide, 1, channels] if high * wide > 1 => Some((tensor.range(), channels)),
        _ => None,
    });
    filters.collect()
}
