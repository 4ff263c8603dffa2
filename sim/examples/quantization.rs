//! What eight bits cost a MobileNetV2: five seeds of a small one on Fashion-MNIST, trained in
//! `f32` on one machine, then served in `f32` and, after calibration on 256 training examples, in
//! integers with one weight scale per channel and per tensor (post-training quantization, PTQ);
//! then trained on for a third of the steps for quantization (QAT).
//!
//! Its depthwise convolutions, with their batch normalisations folded, have channels of very
//! different weights, which is why one scale per tensor is known to hurt such networks
//! (Krishnamoorthi 2018, arXiv:1806.08342, section 3.1; Nagel et al. 2019, arXiv:1906.04721).
//!
//! ```text
//! fledgling data fetch fashion-mnist
//! cargo run --release -p fl-sim --example quantization -- [SEEDS] [STEPS] [METHOD]
//! ```
//! `METHOD` is one of `min-max`, `moving-average`, `percentile`, `entropy`.
#![expect(
    clippy::print_stdout,
    reason = "an example prints; that is what it is for"
)]

mod common;

use std::error::Error;
use std::sync::Arc;

use fl_core::{ClientId, Examples as _, Purpose, RoundId, Seed, Stream};
use fl_edge::kernel::Kernels;
use fl_edge::qat::{QatForward, QatOptions};
use fl_edge::quant::{CALIBRATION_SAMPLES, Calibration, Granularity, Samples, sensitivities};
use fl_edge::{Model, ModelDef, Numerics, Session};

use common::{BATCH, percent, train_on, trained, whole};

const RATE: f64 = 0.1;
const QAT_RATE: f64 = 0.01;

/// Five of the seven stages, a quarter of the width: 58,938 parameters.
const MODEL: &str = r#"
    {"kind": "mobilenet-v2", "width": 0.25, "stem-stride": 2, "stages": 5, "head": 256}
"#;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let seeds: u64 = args.next().map_or(Ok(5), |text| text.parse())?;
    let steps: u64 = args.next().map_or(Ok(600), |text| text.parse())?;
    let method = args.next().unwrap_or_else(|| "min-max".to_owned());
    let method = Calibration::named(&method).ok_or("METHOD is no calibration")?;

    let data = whole("fashion-mnist")?;
    let mut scratch = Default::default();
    let train = data.train(ClientId(0), &mut scratch);
    let test = data.test().ok_or("the data have no test set")?;
    let def: ModelDef = serde_json::from_str(MODEL)?;
    let model = Arc::new(Model::new(&def, data.input(), data.target())?);
    let judged = Samples::all(&model, test)?;

    println!(
        "{} parameters, {steps} steps of {BATCH}",
        model.parameters()
    );
    println!("              per channel        per tensor");
    println!("seed    f32    PTQ    QAT      PTQ    QAT   most sensitive unit (signal to noise)");
    for seed in 1..=seeds {
        let (parameters, mut start) = trained(&model, &train, seed, RATE, steps)?;
        let mut stream = Stream::at(Purpose::Calibration, Seed(seed), RoundId(0), ClientId(0));
        let rows = (0..CALIBRATION_SAMPLES).map(|_| stream.below(train.len() as u64) as u32);
        let samples = Samples::new(&model, &train, rows.collect())?;
        let percent = |model: &Arc<Model>, parameters: &[f32], numerics: &Numerics| {
            percent(&judged, model, parameters, numerics)
        };
        print!(
            "{seed:4} {:6.2}",
            percent(&model, &parameters, &Numerics::F32)?
        );
        for granularity in [Granularity::Channel, Granularity::Tensor] {
            let quantization = samples.calibrate(&model, &parameters, method, granularity)?;
            let served = Numerics::Int8(quantization.clone());
            print!(" {:6.2}", percent(&model, &parameters, &served)?);

            let options = QatOptions {
                granularity,
                freeze_statistics: Some(1),
                ..QatOptions::default()
            };
            let aware = Model::new(&def, data.input(), data.target())?.with_ranges(options)?;
            let aware = Arc::new(aware);
            let mut session = Session::quantization_aware(
                Arc::clone(&aware),
                Kernels::best(),
                QatForward::Integer,
            )
            .ok_or("the model has no ranges")?;
            // Ranges come last in the layout and start as not observed.
            let mut from = parameters.clone();
            from.resize(aware.parameters(), 0.0);
            for round in 0..2 {
                session.begin_round(round);
                let rate = QAT_RATE / (1 + 9 * round) as f64;
                train_on(&mut session, &from, &train, &mut start, rate, steps / 6)?;
                from = session.weights().to_vec();
            }
            let learned = aware.quantization(&from).ok_or("no range was observed")?;
            print!(
                " {:6.2}  ",
                percent(&aware, &from, &Numerics::Int8(learned))?
            );
            if granularity == Granularity::Tensor {
                let worst = sensitivities(&model, &parameters, &quantization, &samples)?;
                let worst = worst.first().ok_or("the model has no units")?;
                println!(" {} ({:.1} dB)", worst.unit, -10.0 * worst.noise.log10());
            }
        }
    }
    Ok(())
}
