//! What a round costs beside training and summing: `cargo bench -p fl-core --bench rounds`.
//!
//! Prints milliseconds to choose 10,000 of 1,000,000 clients with each selector, and to take a
//! round of 10,000 clients through the state machine (four events per client).
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fl_core::select::{
    Poisson, PoissonConfig, Uniform, UniformConfig, Weighted, WeightedConfig, selection_stream,
};
use fl_core::strategy::{FedAvg, FedAvgConfig};
use fl_core::*;

const POPULATION: u64 = 1_000_000;
const COHORT: u64 = 10_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let examples = |client: ClientId| ExampleCount(1 + client.0 % 100);
    let everyone = Candidates::everyone(POPULATION).with_examples(&examples);
    let (cohort, over_select) = (COHORT, 1.0);
    let rate = COHORT as f64 / POPULATION as f64;
    let uniform = UniformConfig {
        cohort,
        over_select,
    };
    let weighted = WeightedConfig {
        cohort,
        over_select,
    };
    let selectors = [
        AnySelector::from(Uniform::from_config(uniform)?),
        AnySelector::from(Poisson::from_config(PoissonConfig { rate })?),
        AnySelector::from(Weighted::from_config(weighted)?),
    ];
    for selector in selectors {
        let time = best_of(5, || {
            let mut stream = selection_stream(Seed(1), RoundId(1));
            let _ = black_box(selector.select(&everyone, &mut stream));
        });
        println!("{:<28} {:>8.2} ms", selector.kind(), milliseconds(time));
    }

    let layout = Arc::new(Layout::new([("w".to_owned(), vec![610])])?);
    let strategy = FedAvg::from_config(FedAvgConfig::default())?;
    let state = strategy.init(Parameters::zeros(layout));
    let setup = RunSetup {
        selector: Box::new(Uniform::from_config(uniform)?),
        local: LocalPlan {
            work: LocalWork::Epochs(1.try_into()?),
            batch: BatchSize::Full,
            optimizer: Optimizer::SGD,
            learning_rate: LearningRate::constant(0.1),
            max_gradient_norm: None,
            proximal_mu: 0.0,
            precision: Precision::F32,
            privacy: None,
        },
        settings: RoundSettings::default(),
        chain: TransformChain::default(),
        seed: Seed(1),
        population: POPULATION,
    };
    let ring = RingPlan::for_weights(WeightBounds::new(Weight(100), COHORT))?;
    let mut server = RoundServer::new(strategy, state, RoundId(0), setup);
    let mut failed = None;
    let time = best_of(5, || {
        if let Err(error) = round(&mut server, ring) {
            failed = Some(error);
        }
    });
    match failed {
        Some(error) => Err(error.into()),
        None => {
            println!("{:<28} {:>8.2} ms", "round machine", milliseconds(time));
            Ok(())
        }
    }
}

/// A round of zero updates, 610 values each (their sum takes about 3 ms of it).
fn round(server: &mut RoundServer<FedAvg, ExactSum>, ring: RingPlan) -> Result<(), RoundError> {
    let now = VirtualTime(0);
    let round = server.round();
    let mut worker = ExactSum::new(ring, 610);
    let mut clients = Vec::new();
    server.start(
        now,
        &Candidates::everyone(POPULATION),
        ExactSum::new(ring, 610),
    )?;
    while let Some(Transmit { client, message }) = server.poll_transmit() {
        match message {
            Message::Stop => {}
            Message::Invite => {
                server.handle(now, Event::Ready(client))?;
            }
            Message::Train => {
                let report = Report {
                    client,
                    round,
                    examples: ExampleCount(1 + client.0 % 100),
                    steps: 1,
                    work: WorkDone::Full,
                    cost: Cost::default(),
                };
                if let Answer::Accepted { weight } = server.handle(now, Event::Reported(report))? {
                    worker.absorb(&[0.0; 610], weight)?;
                    clients.push(client);
                }
            }
        }
    }
    server.handle(
        now,
        Event::Summed {
            sum: &mut worker,
            clients: &clients,
        },
    )?;
    while let Some(notice) = server.poll() {
        black_box(notice);
    }
    Ok(())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[expect(
    clippy::disallowed_methods,
    reason = "a benchmark measures; no simulated decision sees the clock"
)]
fn best_of(times: u32, mut work: impl FnMut()) -> Duration {
    let runs = (0..times).map(|_| {
        let start = Instant::now();
        work();
        start.elapsed()
    });
    runs.min().unwrap_or_default()
}
