//! `secagg bench`: the real protocol, every client in this process.
//!
//! Inputs are made client by client and forgotten when they are masked, and the server keeps their sum
//! only, so that a thousand clients with a million coordinates need no more memory than their keys and
//! shares. Clients that drop out do so after they shared their keys, which costs the server most.

use std::num::NonZeroUsize;
use std::time::Duration;

use fl_secagg::rehearsal::{self, Clock as _, Rehearsed, Script};
use fl_secagg::{
    Context, CostModel, Counts, Input, InputError, Params, Stage, StageSeconds, Traffic, UnitCosts,
};
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use serde::Serialize;

use super::machine::Machine;
use super::{Bytes, Described, Seconds, Session};
use crate::cli::{Exit, output};
use crate::error::Error;

#[derive(Debug, clap::Args)]
pub(super) struct BenchArgs {
    #[command(flatten)]
    session: Session,
    /// Threads, for the clients and for unmasking
    #[arg(long, value_name = "T", default_value = "1")]
    threads: NonZeroUsize,
    /// Measure single operations on this machine first, and model the session with them in place of
    /// the reference machine's
    #[arg(long)]
    fit: bool,
    /// Changes all inputs and secrets
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

/// Inputs and drop-outs that follow from the ids.
struct Made<'a> {
    params: &'a Params,
    seed: u64,
    bar: ProgressBar,
}

/// A mixing of 64 bits (Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
/// OOPSLA 2014): inputs only have to be no regular ones.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

impl Made<'_> {
    fn key(&self, id: u32) -> u64 {
        mix(self.seed ^ mix(u64::from(id) + 1))
    }

    fn weight(&self, id: u32) -> u64 {
        1 + self.key(id) % self.params.ring().max_weight()
    }

    /// A client's values, weighted: the extremes in the first two places, then any.
    fn values(&self, id: u32) -> impl Iterator<Item = i64> {
        let (key, weight) = (self.key(id), self.weight(id).cast_signed());
        let bits = self.params.ring().value_bits();
        let largest = 1i64 << (bits - 1);
        (0..self.params.length() as u64).map(move |place| {
            let value = match place {
                0 => largest,
                1 => -largest,
                _ => (mix(key ^ place) >> (64 - bits)).cast_signed() - largest,
            };
            weight * value
        })
    }

    /// Every so many clients one, up to as many as may.
    fn drops(&self, id: u32) -> bool {
        let cohort = self.params.cohort();
        let every = cohort.clients().div_ceil(cohort.dropouts().max(1));
        id.is_multiple_of(every) && id / every < cohort.dropouts()
    }

    /// The sum that must come out.
    fn sum(&self, survivors: &[u32]) -> Vec<i64> {
        let mut sum = vec![0i64; self.params.length()];
        for &id in survivors {
            for (sum, value) in sum.iter_mut().zip(self.values(id)) {
                *sum = sum.wrapping_add(value);
            }
        }
        sum
    }
}

impl Script for Made<'_> {
    fn input(&self, id: u32) -> Result<Input, InputError> {
        let values: Vec<i64> = self.values(id).collect();
        Input::weighted(self.params.ring(), &values, self.weight(id), id.into())
    }

    fn leaves(&self, id: u32) -> Option<Stage> {
        self.drops(id).then_some(Stage::MaskedInput)
    }

    fn progress(&self, stage: Stage, done: usize, of: usize) {
        if done <= rehearsal::BATCH {
            self.bar.set_prefix(match stage {
                Stage::AdvertiseKeys => "advertise keys",
                Stage::ShareKeys => "share keys",
                Stage::MaskedInput => "masked input",
                Stage::Consistency => "consistency",
                Stage::Unmask => "unmask",
            });
            self.bar.set_length(of as u64);
            self.bar.set_position(done as u64);
            self.bar.reset_eta();
        }
        self.bar.set_position(done as u64);
        if done == of && stage == Stage::Unmask {
            self.bar.set_message("taking the masks off");
        }
    }
}

fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{prefix:<16} {bar:28} {pos}/{len} clients  {rate}  {eta} left  {msg}",
    );
    let rate = |state: &ProgressState, to: &mut dyn std::fmt::Write| {
        // A line that cannot be drawn is left out.
        let _ = write!(to, "{:.1}/s", state.per_sec());
    };
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(0).with_style(style.with_key("rate", rate).progress_chars("━━─"));
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

#[derive(Debug, Serialize)]
struct BenchLine {
    #[serde(flatten)]
    session: Described,
    threads: usize,
    survivors: u32,
    exact: bool,
    /// Of the clients that stay.
    client_mean: Seconds,
    client_max: Seconds,
    server: Seconds,
    unmasking_wall_seconds: f64,
    client_bytes: Bytes,
    model: Modelled,
    #[serde(skip_serializing_if = "Option::is_none")]
    units: Option<UnitCosts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peak_rss_mb: Option<u64>,
}

/// What the cost model says.
#[derive(Debug, Serialize)]
struct Modelled {
    fitted: bool,
    client: Seconds,
    server: Seconds,
    /// Modelled seconds over measured ones.
    client_over_measured: f64,
    server_over_measured: f64,
}

pub(super) fn run(args: &BenchArgs) -> Result<Exit, Error> {
    let params = args.session.params()?;
    let machine = Machine::new(args.threads.get());
    let units = args.fit.then(|| UnitCosts::measure(|| machine.processor()));
    let model = match units {
        Some(units) => CostModel::from_measured(units)?,
        None => CostModel::reference(),
    };
    let made = Made {
        params: &params,
        seed: args.seed,
        bar: bar(),
    };
    let context = Context {
        task: [0; 32],
        round: 1,
        model: [0; 32],
    };
    let played = rehearsal::play(&params, &context, args.seed, &made, &machine, &machine);
    made.bar.finish_and_clear();
    let mut played = played?;
    let aggregate = std::mem::replace(
        &mut played.outcome,
        Err(fl_secagg::SessionError::Stage { stage: "over" }),
    )?;
    let exact = aggregate.integers().eq(made.sum(aggregate.survivors()));
    let line = line(args, &params, &played, exact, &model, units);
    if args.json {
        output::json(&line)?;
    } else {
        print(&line)?;
    }
    Ok(if exact { Exit::Done } else { Exit::Differs })
}

fn line(
    args: &BenchArgs,
    params: &Params,
    played: &Rehearsed,
    exact: bool,
    model: &CostModel,
    units: Option<UnitCosts>,
) -> BenchLine {
    let stayed: Vec<StageSeconds> = played
        .clients
        .iter()
        .filter(|part| part.left.is_none())
        .map(|part| part.seconds)
        .collect();
    let mean = |of: fn(&StageSeconds) -> f64| {
        stayed.iter().map(of).sum::<f64>() / stayed.len().max(1) as f64
    };
    let most = |of: fn(&StageSeconds) -> f64| stayed.iter().map(of).fold(0.0, f64::max);
    let each = |pick: &dyn Fn(fn(&StageSeconds) -> f64) -> f64| Seconds {
        stages: StageSeconds {
            advertise: pick(|seconds| seconds.advertise),
            share: pick(|seconds| seconds.share),
            mask: pick(|seconds| seconds.mask),
            consistency: pick(|seconds| seconds.consistency),
            unmask: pick(|seconds| seconds.unmask),
        },
        total: pick(StageSeconds::total),
    };
    let traffic: Vec<Traffic> = played
        .clients
        .iter()
        .filter(|part| part.left.is_none())
        .map(|part| part.traffic)
        .collect();
    let client_mean = each(&mean);
    let server: Seconds = played.server.into();
    let counts: Counts = played.counts;
    let (client, whole) = (
        Seconds::from(model.client(params, &counts)),
        Seconds::from(model.server(params, &counts)),
    );
    BenchLine {
        session: Described::new(&args.session, params),
        threads: args.threads.get(),
        survivors: counts.survivors,
        exact,
        model: Modelled {
            fitted: units.is_some(),
            client_over_measured: client.total / client_mean.total,
            server_over_measured: whole.total / server.total,
            client,
            server: whole,
        },
        client_mean,
        client_max: each(&most),
        server,
        unmasking_wall_seconds: played.unmasking_wall,
        client_bytes: Bytes::mean(&traffic),
        units,
        peak_rss_mb: output::peak_rss_mb(),
    }
}

fn print(line: &BenchLine) -> Result<(), Error> {
    output::line(&line.session.words())?;
    let bytes = &line.client_bytes;
    let row = |name: &str, of: fn(&StageSeconds) -> f64, up: f64, down: f64| {
        vec![
            name.to_owned(),
            output::seconds(of(&line.client_mean.stages)),
            output::seconds(of(&line.client_max.stages)),
            output::seconds(of(&line.server.stages)),
            output::bytes(up as u64),
            output::bytes(down as u64),
        ]
    };
    let mut rows = vec![
        row("advertise keys", |s| s.advertise, bytes.advertise_keys, 0.0),
        row("share keys", |s| s.share, bytes.share_keys, bytes.roster),
        row(
            "masked input",
            |s| s.mask,
            bytes.masked_input,
            bytes.forwarded_shares,
        ),
    ];
    let mut told = bytes.survivors;
    if bytes.signed_survivors > 0.0 {
        let (up, down) = (bytes.signed_survivors, bytes.survivors);
        rows.push(row("consistency", |s| s.consistency, up, down));
        told = bytes.unmask;
    }
    rows.push(row("unmask", |s| s.unmask, bytes.unmasking_shares, told));
    rows.push(vec![
        "all".to_owned(),
        output::seconds(line.client_mean.total),
        output::seconds(line.client_max.total),
        output::seconds(line.server.total),
        output::bytes(bytes.up as u64),
        output::bytes(bytes.down as u64),
    ]);
    let header = [
        "processor time",
        "client mean",
        "client max",
        "server",
        "up",
        "down",
    ];
    output::line(&output::table(&header, &rows))?;
    output::line(&format!(
        "taking the masks off took {} on {} thread{}; the model says {:.2} of a client's and {:.2} of \
         the server's time",
        output::seconds(line.unmasking_wall_seconds),
        line.threads,
        if line.threads == 1 { "" } else { "s" },
        line.model.client_over_measured,
        line.model.server_over_measured
    ))?;
    output::line(&format!(
        "the sum of {} survivors is {}",
        output::count(line.survivors.into()),
        if line.exact { "exact" } else { "wrong" }
    ))
}
