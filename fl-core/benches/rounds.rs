//! What a round costs beside training and summing: `cargo bench -p fl-core --bench rounds`.
//!
//! Prints milliseconds to choose 10,000 of 1,000,000 clients with each selector, among everyone and
//! where one in seven is eligible, after 100,000 clients took part; to take a round of 10,000 clients
//! through the state machine (four events per client); and to take 10,000 reports through the
//! asynchronous machine, 10,000 training at a time, each replaced when it reports, a step every 100.
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fl_core::buffered::{self, BufferedServer, BufferedSettings, BufferedSetup};
use fl_core::select::{
    Fair, FairConfig, Oort, OortConfig, Poisson, PoissonConfig, PowerOfChoice, PowerOfChoiceConfig,
    Uniform, UniformConfig, Weighted, WeightedConfig, selection_stream,
};
use fl_core::strategy::{FedAvg, FedAvgConfig, FedBuff, FedBuffConfig};
use fl_core::*;

const POPULATION: u64 = 1_000_000;
const COHORT: u64 = 10_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let examples = |client: ClientId| ExampleCount(1 + client.0 % 100);
    let history = history();
    let everyone = Candidates::everyone(POPULATION)
        .with_examples(&examples)
        .with_history(&history);
    let seventh = |client: ClientId| client.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) < u64::MAX / 7;
    let eligible = Candidates::eligible(POPULATION, &seventh)
        .with_examples(&examples)
        .with_history(&history);
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
        AnySelector::from(Oort::from_config(OortConfig::new(cohort))?),
        AnySelector::from(PowerOfChoice::from_config(PowerOfChoiceConfig {
            cohort,
            candidates: 2 * cohort,
            over_select,
        })?),
        AnySelector::from(Fair::from_config(FairConfig {
            cohort,
            over_select,
        })?),
    ];
    for selector in selectors {
        for (candidates, of) in [(&everyone, ""), (&eligible, ", 1 in 7")] {
            let time = best_of(5, || {
                let mut stream = selection_stream(Seed(1), RoundId(1));
                let _ = black_box(selector.select(candidates, &mut stream));
            });
            let name = format!("{}{of}", selector.kind());
            println!("{name:<28} {:>8.2} ms", milliseconds(time));
        }
    }

    let layout = Arc::new(Layout::new([("w".to_owned(), vec![610])])?);
    let strategy = FedAvg::from_config(FedAvgConfig::default())?;
    let state = strategy.init(Parameters::zeros(layout));
    let setup = RunSetup {
        selector: Box::new(Uniform::from_config(uniform)?),
        local: local_plan(),
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
    if let Some(error) = failed {
        return Err(error.into());
    }
    println!("{:<28} {:>8.2} ms", "round machine", milliseconds(time));
    let mut failed = None;
    let time = best_of(5, || failed = asynchronous().err());
    if let Some(error) = failed {
        return Err(error);
    }
    println!(
        "{:<28} {:>8.2} ms",
        "asynchronous machine",
        milliseconds(time)
    );
    Ok(())
}

fn local_plan() -> LocalPlan {
    LocalPlan {
        work: LocalWork::Epochs(core::num::NonZeroU32::MIN),
        batch: BatchSize::Full,
        order: ExampleOrder::Shuffled,
        optimizer: Optimizer::SGD,
        learning_rate: LearningRate::constant(0.1),
        max_gradient_norm: None,
        proximal_mu: 0.0,
        precision: Precision::F32,
        privacy: None,
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

/// Of 100,000 clients, in ten rounds.
fn history() -> History {
    let mut history = History::default();
    for client in 0..100_000u64 {
        let part = Participation {
            examples: ExampleCount(1 + client % 100),
            loss: Some((client % 17) as f64),
            loss_square: None,
            time: VirtualDuration(1 + client % 1000),
        };
        history.took_part(ClientId(client * 10), RoundId(client / 10_000), part);
    }
    history
}

/// `COHORT` reports, with as many clients in training.
fn asynchronous() -> Result<(), Box<dyn std::error::Error>> {
    let layout = Arc::new(Layout::new([("w".to_owned(), vec![610])])?);
    let strategy = FedBuff::from_config(FedBuffConfig::default())?;
    let state = strategy.init(Parameters::zeros(layout));
    let buffer = 100;
    let largest = strategy.largest_weight(ExampleCount(1));
    let ring = RingPlan::for_weights(WeightBounds::new(largest, buffer))?;
    let empty = ExactSum::new(ring, 610);
    let setup = BufferedSetup {
        selector: Box::new(Uniform::from_config(UniformConfig {
            cohort: 1,
            over_select: 1.0,
        })?),
        local: local_plan(),
        settings: BufferedSettings::new(COHORT, buffer, None, None)?,
        chain: TransformChain::default(),
        seed: Seed(1),
        population: POPULATION,
    };
    let mut server = BufferedServer::new(strategy, state, RoundId(0), setup, empty.clone())?;
    let mut training = std::collections::VecDeque::new();
    let mut now = VirtualTime(0);
    server.start(now)?;
    for _ in 0..=COHORT {
        server.offer(now, &Candidates::everyone(POPULATION))?;
        while let Some(transmit) = server.poll_transmit() {
            training.push_back((transmit.client, server.version()));
        }
        let Some((client, round)) = training.pop_front() else {
            break;
        };
        now.0 += 1;
        let report = Report {
            client,
            round,
            examples: ExampleCount(1),
            steps: 1,
            work: WorkDone::Full,
            cost: Cost::default(),
        };
        server.handle(now, buffered::Event::Reported(report))?;
        if server.phase() == Phase::Aggregating {
            let mut sum = empty.clone();
            let mut clients = Vec::new();
            for accepted in server.buffer() {
                sum.absorb(&[0.0; 610], accepted.weight)?;
                clients.push(accepted.report.client);
            }
            let (sum, clients) = (&mut sum, clients.as_slice());
            server.handle(now, buffered::Event::Summed { sum, clients })?;
        }
        while let Some(notice) = server.poll() {
            black_box(notice);
        }
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
