//! `secagg`: parameters of secure aggregation, and the real protocol played and timed.

mod bench;
mod machine;

use std::sync::Arc;

use clap::{Subcommand, ValueEnum};
use fl_secagg::{
    Cohort, CostModel, Counts, Params, ParamsError, Ring, StageSeconds, Suite, Threat, Topology,
    Traffic,
};
use serde::Serialize;

use super::{Exit, output};
use crate::error::Error;

/// Arguments of `secagg`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Neighbours and threshold of a session, the ring, bytes and modelled seconds of a client
    Params(ParamsArgs),
    /// Run the real protocol with as many clients, and print time and bytes of every stage
    Bench(bench::BenchArgs),
}

/// A session.
#[derive(Debug, clap::Args)]
struct Session {
    /// Clients
    #[arg(long, value_name = "N")]
    clients: u32,
    /// The share of them that may work for the server, from 0 to below 1
    #[arg(
        long,
        value_name = "G",
        default_value_t = 0.1,
        allow_negative_numbers = true
    )]
    corrupt: f64,
    /// The share of them that may drop out, from 0 to below 1
    #[arg(
        long,
        value_name = "D",
        default_value_t = 0.1,
        allow_negative_numbers = true
    )]
    dropout: f64,
    /// Against whom inputs are protected
    #[arg(long, value_enum, default_value = "semi-honest")]
    threat: ThreatName,
    /// Who shares masks with whom
    #[arg(long, value_enum, default_value = "harary")]
    graph: GraphName,
    /// The ciphers
    #[arg(long, value_enum, default_value = "aes128")]
    suite: SuiteName,
    /// Coordinates of a vector
    #[arg(long, value_name = "L", default_value_t = 100_000)]
    length: usize,
    /// The largest weight of a client
    #[arg(long, value_name = "W", default_value_t = 1)]
    weight: u64,
    /// Bits of a coordinate before it is weighted
    #[arg(long, value_name = "Q", default_value_t = 16)]
    bits: u32,
}

#[derive(Debug, clap::Args)]
struct ParamsArgs {
    #[command(flatten)]
    session: Session,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum ThreatName {
    /// The server follows the protocol and is curious
    SemiHonest,
    /// Moreover it lies about who dropped out
    SemiMalicious,
    /// Moreover it lies about keys; clients sign
    Active,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum GraphName {
    /// Everybody with everybody (Bonawitz et al. 2017)
    Complete,
    /// Each with some, whose number is computed (Bell et al. 2020)
    Harary,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum SuiteName {
    /// AES-128
    Aes128,
    /// ChaCha20
    Chacha20,
}

impl Session {
    fn params(&self) -> Result<Arc<Params>, ParamsError> {
        let cohort = Cohort::new(self.clients, self.corrupt, self.dropout)?;
        let ring = Ring::bounded(self.clients, self.weight, self.bits)?;
        let threat = match self.threat {
            ThreatName::SemiHonest => Threat::SemiHonest,
            ThreatName::SemiMalicious => Threat::SemiMalicious,
            ThreatName::Active => Threat::Active,
        };
        let topology = match self.graph {
            GraphName::Complete => Topology::Complete,
            GraphName::Harary => Topology::Harary,
        };
        let suite = match self.suite {
            SuiteName::Aes128 => Suite::Aes128,
            SuiteName::Chacha20 => Suite::ChaCha20,
        };
        Params::new(cohort, threat, topology, suite, ring, self.length).map(Arc::new)
    }
}

/// What both commands say of a session.
#[derive(Debug, Serialize)]
struct Described {
    clients: u32,
    corrupt: u32,
    dropouts: u32,
    threat: ThreatName,
    graph: GraphName,
    suite: SuiteName,
    length: usize,
    neighbours: u32,
    threshold: u32,
    min_survivors: u32,
    ring_bits: u32,
}

impl Described {
    fn new(session: &Session, params: &Params) -> Self {
        let cohort = params.cohort();
        Self {
            clients: cohort.clients(),
            corrupt: cohort.corrupt(),
            dropouts: cohort.dropouts(),
            threat: session.threat,
            graph: session.graph,
            suite: session.suite,
            length: params.length(),
            neighbours: params.degree(),
            threshold: params.threshold(),
            min_survivors: params.min_survivors(),
            ring_bits: params.ring().bits(),
        }
    }

    fn words(&self) -> String {
        format!(
            "{} clients, up to {} corrupt and {} dropping out: {} neighbours, threshold {}, at least \
             {} survivors; {} coordinates of {} bits",
            output::count(self.clients.into()),
            output::count(self.corrupt.into()),
            output::count(self.dropouts.into()),
            self.neighbours,
            self.threshold,
            output::count(self.min_survivors.into()),
            output::count(self.length as u64),
            self.ring_bits
        )
    }
}

/// Bytes of one client by message.
#[derive(Debug, Default, Serialize)]
struct Bytes {
    advertise_keys: f64,
    share_keys: f64,
    masked_input: f64,
    signed_survivors: f64,
    unmasking_shares: f64,
    up: f64,
    roster: f64,
    forwarded_shares: f64,
    survivors: f64,
    unmask: f64,
    down: f64,
}

impl Bytes {
    /// The mean of some clients.
    fn mean(clients: &[Traffic]) -> Self {
        let mean = |of: fn(&Traffic) -> u64| {
            let sum: u64 = clients.iter().map(of).sum();
            sum as f64 / clients.len().max(1) as f64
        };
        Self {
            advertise_keys: mean(|traffic| traffic.advertise_keys),
            share_keys: mean(|traffic| traffic.share_keys),
            masked_input: mean(|traffic| traffic.masked_input),
            signed_survivors: mean(|traffic| traffic.signed_survivors),
            unmasking_shares: mean(|traffic| traffic.unmasking_shares),
            up: mean(Traffic::up),
            roster: mean(|traffic| traffic.roster),
            forwarded_shares: mean(|traffic| traffic.forwarded_shares),
            survivors: mean(|traffic| traffic.survivors),
            unmask: mean(|traffic| traffic.unmask),
            down: mean(Traffic::down),
        }
    }
}

/// Seconds by stage and in all.
#[derive(Debug, Serialize)]
struct Seconds {
    #[serde(flatten)]
    stages: StageSeconds,
    total: f64,
}

impl From<StageSeconds> for Seconds {
    fn from(stages: StageSeconds) -> Self {
        Self {
            stages,
            total: stages.total(),
        }
    }
}

#[derive(Debug, Serialize)]
struct ParamsLine {
    #[serde(flatten)]
    session: Described,
    /// Of a client that stays, when all share their keys and as many leave as may.
    client_bytes: Bytes,
    /// By the cost model's reference machine.
    client_seconds: Seconds,
    server_seconds: Seconds,
}

/// Runs the subcommand.
///
/// # Errors
/// [`Error::SecAggParams`] for sessions that would be unsafe or impossible; [`Error::Rehearsal`] and
/// [`Error::Session`] when a session stops.
pub fn run(args: &Args) -> Result<Exit, Error> {
    match &args.command {
        Command::Params(args) => params(args)?,
        Command::Bench(args) => return bench::run(args),
    }
    Ok(Exit::Done)
}

fn params(args: &ParamsArgs) -> Result<(), Error> {
    let params = args.session.params()?;
    let counts = Counts::expected(&params);
    let traffic = Traffic::new(
        &params,
        counts.present,
        params.degree(),
        params.degree(),
        counts.signing,
    );
    let model = CostModel::reference();
    let line = ParamsLine {
        session: Described::new(&args.session, &params),
        client_bytes: Bytes::mean(&[traffic]),
        client_seconds: model.client(&params, &counts).into(),
        server_seconds: model.server(&params, &counts).into(),
    };
    if args.json {
        return output::json(&line);
    }
    output::line(&line.session.words())?;
    output::line(&format!(
        "a client sends {} and receives {}",
        output::bytes(traffic.up()),
        output::bytes(traffic.down())
    ))?;
    output::line(&format!(
        "modelled on the reference machine: a client works for {}, the server for {}",
        output::seconds(line.client_seconds.total),
        output::seconds(line.server_seconds.total)
    ))
}
