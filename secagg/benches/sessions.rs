//! A whole session with real cryptography: `cargo bench -p fl-secagg --bench sessions -- CLIENTS
//! LENGTH DROPOUT THREAT GRAPH [SUITE]`, for instance `100 1000000 0.1 semi-malicious complete`.
//!
//! Runs every client and the server on one thread, clients dropping out after they shared keys, and
//! prints processor seconds by stage (client mean and maximum, server), bytes per client, and whether
//! the sum is exact. Corrupt share 0.2.
#![expect(
    clippy::print_stdout,
    reason = "a benchmark reports on its standard output"
)]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures time")]

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use chacha20::ChaCha20Rng;
use fl_secagg::{
    Client, Cohort, Context, Directory, Identity, Input, OneThread, Params, Reply, Ring, Server,
    Suite, Threat, Topology,
};
use rand_core::SeedableRng;

/// Seconds that this thread has run, where Linux says so, and wall-clock seconds elsewhere.
fn now(start: Instant) -> f64 {
    // The scheduler brings its account up to date when it is asked to run somebody else.
    std::thread::yield_now();
    std::fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok())
        .map_or_else(
            || start.elapsed().as_secs_f64(),
            |nanoseconds| 1e-9 * nanoseconds,
        )
}

/// Times and bytes of one kind of step.
#[derive(Default)]
struct Tally {
    times: Vec<f64>,
    bytes: usize,
}

impl Tally {
    fn print(&self, name: &str) {
        let count = self.times.len().max(1) as f64;
        let most = self.times.iter().copied().fold(0.0, f64::max);
        println!(
            "{name:34} mean {:9.3} ms  max {:9.3} ms  sum {:9.3} s  {:11.0} bytes each",
            1e3 * self.times.iter().sum::<f64>() / count,
            1e3 * most,
            self.times.iter().sum::<f64>(),
            self.bytes as f64 / count,
        );
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let text = |place: usize, default: &str| {
        arguments
            .get(place)
            .cloned()
            .unwrap_or_else(|| default.to_owned())
    };
    let clients: u32 = text(0, "40").parse()?;
    let length: usize = text(1, "100000").parse()?;
    let dropout: f64 = text(2, "0.1").parse()?;
    let threat = match &*text(3, "semi-malicious") {
        "semi-honest" => Threat::SemiHonest,
        "semi-malicious" => Threat::SemiMalicious,
        "active" => Threat::Active,
        other => return Err(format!("unknown threat `{other}`").into()),
    };
    let topology = match &*text(4, "complete") {
        "complete" => Topology::Complete,
        "harary" => Topology::Harary,
        other => return Err(format!("unknown graph `{other}`").into()),
    };
    let suite = match &*text(5, "aes") {
        "aes" => Suite::Aes128,
        "chacha" => Suite::ChaCha20,
        other => return Err(format!("unknown suite `{other}`").into()),
    };
    let cohort = Cohort::new(clients, 0.2, dropout)?;
    let ring = Ring::bounded(clients, 1, 16)?;
    let params = Arc::new(Params::new(cohort, threat, topology, suite, ring, length)?);
    println!(
        "{clients} clients, {length} coordinates of {} bits, {} neighbours, threshold {}, {} drop out",
        ring.bits(),
        params.degree(),
        params.threshold(),
        cohort.dropouts(),
    );
    let context = Context {
        task: [0; 32],
        round: 1,
        model: [0; 32],
    };
    let secret = |id: u32| {
        let mut secret = [7; 32];
        secret[..4].copy_from_slice(&id.to_le_bytes());
        secret
    };
    let directory = match threat {
        Threat::Active => {
            let keys: Vec<_> = (0..clients)
                .map(|id| Identity::public(&secret(id)))
                .collect();
            Some(Arc::new(Directory::new(&keys)?))
        }
        Threat::SemiHonest | Threat::SemiMalicious => None,
    };

    let start = Instant::now();
    let mut server = Server::new(Arc::clone(&params), &context, directory.clone())?;
    let mut parties = Vec::new();
    let (mut advertise, mut serving) = (Tally::default(), Tally::default());
    for id in 0..clients {
        let mut rng = ChaCha20Rng::seed_from_u64(id.into());
        let identity = directory
            .clone()
            .map(|directory| Identity::new(&secret(id), directory));
        let before = now(start);
        let (client, message) =
            Client::start(Arc::clone(&params), &context, id, identity, &mut rng)?;
        let between = now(start);
        server.receive(id, &message)?;
        advertise.times.push(between - before);
        advertise.bytes += message.len();
        serving.times.push(now(start) - between);
        parties.push((client, between - before));
    }
    advertise.print("client: advertise keys");
    serving.print("server: check keys");

    // Who drops out, and what is summed.
    let every = clients.div_ceil(cohort.dropouts().max(1));
    let drops = |id: u32| id.is_multiple_of(every) && id / every < cohort.dropouts();
    let value =
        |id: u32, place: usize| i64::from((id as usize * 7 + place * 13) as u16) - (1 << 15);
    let mut expected = vec![0i64; length];
    for stage in ["share keys", "masked input", "survivors", "unmask"] {
        if stage == "unmask" && threat != Threat::Active {
            continue;
        }
        let before = now(start);
        let outgoing = server.close()?;
        println!("server: close {:20} {:9.3} s", stage, now(start) - before);
        let (mut working, mut serving) = (Tally::default(), Tally::default());
        let mut down = 0;
        for outgoing in outgoing {
            for id in outgoing.to {
                let (client, total) = &mut parties[id as usize];
                let mut seconds = 0.0;
                if stage == "masked input" {
                    let values: Vec<i64> = (0..length).map(|place| value(id, place)).collect();
                    let input = Input::weighted(ring, &values, 1, 0)?;
                    let before = now(start);
                    client.provide_input(&input)?;
                    seconds = now(start) - before;
                    if !drops(id) {
                        for (sum, value) in expected.iter_mut().zip(&values) {
                            *sum += value;
                        }
                    }
                }
                let before = now(start);
                let Reply::Send(message) = client.handle(&outgoing.message)? else {
                    return Err("a client has nothing to say".into());
                };
                seconds += now(start) - before;
                *total += seconds;
                down += outgoing.message.len();
                working.times.push(seconds);
                working.bytes += message.len();
                if stage == "share keys" || !drops(id) {
                    let before = now(start);
                    server.receive(id, &message)?;
                    serving.times.push(now(start) - before);
                }
            }
        }
        working.print(&format!("client: {stage}"));
        serving.bytes = down;
        serving.print(&format!("server: {stage}, and bytes down"));
    }
    let before = now(start);
    let aggregate = server.finish(&OneThread)?;
    println!(
        "server: unmask, all of it          {:9.3} s",
        now(start) - before
    );
    let totals = Tally {
        times: parties.iter().map(|(_, total)| *total).collect(),
        bytes: 0,
    };
    totals.print("client: all stages");
    let exact = aggregate.integers().eq(expected.iter().copied());
    println!(
        "the sum of {} survivors is {}",
        aggregate.survivors().len(),
        if exact { "exact" } else { "wrong" }
    );
    if exact {
        Ok(())
    } else {
        Err("the sum is wrong".into())
    }
}
