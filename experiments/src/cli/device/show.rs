//! `device list` and `device show`.

use fl_edge::device::profile::{Class, Source};
use fl_edge::device::{DelegateKind, DeviceProfile, Precision};
use serde::Serialize;

use super::super::output;
use super::{device, devices};
use crate::error::Error;

/// Arguments of `device list`.
#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// Print one line of JSON per device
    #[arg(long)]
    json: bool,
}

/// Arguments of `device show`.
#[derive(Debug, clap::Args)]
pub(super) struct ShowArgs {
    /// A name from `fledgling device list`, or a profile's file
    name: String,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    name: &'a str,
    title: &'a str,
    class: Class,
    year: u32,
    memory_bytes: u64,
    delegates: Vec<&'static str>,
    /// Rate of convolutions on the CPU in 10^9 multiply-accumulates a second, by precision.
    cpu_conv: Vec<(Precision, f64)>,
    /// Of the CPU's convolutions.
    int8_over_f32: Option<f64>,
}

fn line(profile: &DeviceProfile) -> Line<'_> {
    let conv = |precision| {
        let (rates, share) = profile.cpu.rates(precision)?;
        Some((precision, rates.conv.value * share))
    };
    let rate = |precision| conv(precision).map(|(_, rate)| rate);
    let ratio = rate(Precision::Int8).zip(rate(Precision::F32));
    Line {
        name: &profile.name,
        title: &profile.title,
        class: profile.class,
        year: profile.year,
        memory_bytes: (profile.memory.total.value * 1e6) as u64,
        delegates: profile.delegates().map(|(kind, _)| kind.name()).collect(),
        cpu_conv: Precision::ALL.into_iter().filter_map(conv).collect(),
        int8_over_f32: ratio.map(|(int8, float)| int8 / float),
    }
}

pub(super) fn list(args: &ListArgs) -> Result<(), Error> {
    let profiles = devices()?;
    if args.json {
        return profiles
            .iter()
            .try_for_each(|profile| output::json(&line(profile)));
    }
    let rows: Vec<Vec<String>> = profiles
        .iter()
        .map(|profile| {
            let line = line(profile);
            let rate = |wanted| {
                let found = line
                    .cpu_conv
                    .iter()
                    .find(|(precision, _)| *precision == wanted);
                found.map_or_else(|| "-".to_owned(), |(_, rate)| figure(*rate))
            };
            vec![
                line.name.to_owned(),
                line.class.name().to_owned(),
                line.year.to_string(),
                output::bytes(line.memory_bytes),
                line.delegates.join(" "),
                rate(Precision::F32),
                rate(Precision::Int8),
                line.int8_over_f32
                    .map_or_else(|| "-".to_owned(), |it| format!("{it:.2}")),
            ]
        })
        .collect();
    let header = [
        "device",
        "class",
        "year",
        "memory",
        "delegates",
        "f32",
        "int8",
        "int8/f32",
    ];
    output::line(&output::table(&header, &rows))?;
    output::line(
        "\nf32, int8: convolutions on the CPU, 10^9 multiply-accumulates a second; sources: \
         `fledgling device show NAME`",
    )
}

/// Four digits at most.
fn figure(value: f64) -> String {
    match value {
        v if v >= 1000.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.3}"),
    }
}

#[derive(Serialize)]
struct Shown<'a> {
    name: &'a str,
    title: &'a str,
    class: Class,
    year: u32,
    figures: Vec<Fact<'a>>,
    operators: Vec<(DelegateKind, Option<&'a [fl_edge::device::Operator]>)>,
    sources: &'a std::collections::BTreeMap<String, Source>,
}

#[derive(Serialize)]
struct Fact<'a> {
    key: String,
    value: f64,
    kind: &'static str,
    source: &'a str,
}

pub(super) fn show(args: &ShowArgs) -> Result<(), Error> {
    let profile = device(&args.name)?;
    let figures = profile.figures().into_iter().map(|(key, entry)| {
        let named = entry.source.split(':').next().unwrap_or_default().trim();
        let kind = profile
            .sources
            .get(named)
            .map_or("", |source| source.kind.name());
        Fact {
            key,
            value: entry.value,
            kind,
            source: entry.source,
        }
    });
    let figures: Vec<Fact<'_>> = figures.collect();
    let operators = profile
        .delegates()
        .map(|(kind, it)| (kind, it.operators.as_deref()));
    if args.json {
        return output::json(&Shown {
            name: &profile.name,
            title: &profile.title,
            class: profile.class,
            year: profile.year,
            figures,
            operators: operators.collect(),
            sources: &profile.sources,
        });
    }
    output::line(&format!(
        "{}: {} ({})\n",
        profile.name,
        profile.title,
        profile.class.name()
    ))?;
    let rows: Vec<Vec<String>> = figures
        .iter()
        .map(|fact| {
            let value = figure(fact.value);
            let value = match value.contains('.') {
                true => value.trim_end_matches('0').trim_end_matches('.'),
                false => &value,
            };
            let unit = unit(&fact.key);
            let value = format!("{value} {unit}");
            vec![
                fact.key.clone(),
                value.trim().to_owned(),
                fact.kind.to_owned(),
                fact.source.to_owned(),
            ]
        })
        .collect();
    output::line(&output::words(
        &["figure", "value", "kind", "source"],
        &rows,
    ))?;
    output::line("")?;
    let rows: Vec<Vec<String>> = profile
        .sources
        .iter()
        .map(|(key, source)| {
            vec![
                key.clone(),
                source.kind.name().to_owned(),
                source.text.clone(),
            ]
        })
        .collect();
    output::line(&output::words(&["source", "kind", "text"], &rows))
}

/// The unit of a key.
fn unit(key: &str) -> &'static str {
    match key.rsplit('.').next().unwrap_or_default() {
        "total" | "size" => "MB",
        "ambient" | "above" => "°C",
        "resistance" => "K/W",
        "capacity" => "J/K",
        "idle" => "W",
        "power" if !key.starts_with("thermal") => "W",
        "bandwidth" | "transfer" => "GB/s",
        "launch" | "transfer_launch" => "µs",
        "start_up" => "ms",
        "winograd" | "conv" | "depthwise" | "dense" => "GMAC/s",
        "setup" | "gather" => "MAC",
        "elementwise" => "10^9/s",
        _ => "",
    }
}
