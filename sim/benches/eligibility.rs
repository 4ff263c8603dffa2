//! What asking a client of a million phones costs: its device, its eligibility, its session.
//!
//! `cargo bench -p fl-sim --bench eligibility`: one thread, ten samples, medians and minima.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark measures time and prints it"
)]

use std::hint::black_box;
use std::num::NonZeroU32;
use std::time::Instant;

use fl_core::{
    BatchSize, ClientId, ExampleOrder, InputSpec, LearningRate, LocalPlan, LocalWork, Optimizer,
    Precision, Purpose, RoundId, Seed, Stream, TargetSpec, VirtualTime, WorkLimit,
};
use fl_edge::device::Heat;
use fl_edge::{Model, ModelDef};
use fl_sim::fleet::{Costs, DeviceConfig, Fleet, FleetState};

const CHECKS: u64 = 200_000;
const HOUR: u64 = 3_600_000_000;

/// Prints the time of one of `CHECKS` calls.
fn bench(name: &str, mut call: impl FnMut(u64) -> bool) {
    let mut times = Vec::new();
    let mut held = 0;
    for sample in 0..10 {
        let start = Instant::now();
        held = (0..CHECKS)
            .filter(|&check| call(sample * CHECKS + check))
            .count();
        times.push(start.elapsed().as_secs_f64() * 1e6 / CHECKS as f64);
    }
    times.sort_by(f64::total_cmp);
    let share = held as f64 / CHECKS as f64;
    println!(
        "{name:<28} {:7.3} us, least {:7.3} us, {share:.3} held",
        times[5], times[0]
    );
}

fn main() {
    let fleet = Fleet::new(&DeviceConfig::default(), Seed(1)).expect("the default is a fleet");
    let def: ModelDef = serde_json::from_str(r#"{"layer":[{"kind":"flatten"},{"kind":"dense"}]}"#)
        .expect("a model");
    let input = InputSpec::Real(vec![28, 28, 1]);
    let model = Model::new(&def, &input, TargetSpec::Class { classes: 10 }).expect("a model");
    let plan = LocalPlan {
        work: LocalWork::Epochs(NonZeroU32::MIN),
        batch: BatchSize::Examples(NonZeroU32::MIN),
        order: ExampleOrder::Shuffled,
        optimizer: Optimizer::SGD,
        learning_rate: LearningRate::constant(0.1),
        max_gradient_norm: None,
        proximal_mu: 0.0,
        precision: Precision::F32,
        privacy: None,
    };
    let costs = Costs::new(&fleet, &model, &plan, 600).expect("rates of every phone");
    let state = FleetState::default();
    // Clients all over the population.
    let client = |check: u64| ClientId(check.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 1_000_000);
    for hour in [4, 14] {
        let at = VirtualTime(5 * 24 * HOUR + hour * HOUR);
        bench(&format!("eligible at {hour} o'clock UTC"), |check| {
            fleet
                .eligible(client(check), at, 100, &costs, &state)
                .is_ok()
        });
    }
    bench("device", |check| black_box(fleet.device(client(check))).npu);
    bench("device and session", |check| {
        let device = fleet.device(client(check));
        let heat = Heat::rested(fleet.profile(&device));
        let mut stream = Stream::at(Purpose::DeviceSession, Seed(1), RoundId(0), device.client);
        let session = costs.session(&device, heat, 100, WorkLimit::Full, &mut stream);
        black_box(session).is_ok()
    });
}
