//! `device validate`: modelled times beside published ones.

use fl_edge::device::published::{self, Check};

use super::super::output;
use super::{DeviceError, device, devices, percent};
use crate::error::Error;

/// Arguments of `device validate`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Devices; all known ones when left out
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Every time, not only the medians
    #[arg(long)]
    all: bool,
    /// Print one line of JSON per time
    #[arg(long)]
    json: bool,
    /// Print the tables of docs/devices.md
    #[arg(long, conflicts_with_all = ["json", "all"])]
    markdown: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Error> {
    let profiles = match args.names.is_empty() {
        true => devices()?,
        false => args
            .names
            .iter()
            .map(|name| device(name))
            .collect::<Result<_, _>>()?,
    };
    let checks =
        published::checks(&profiles).map_err(|error| DeviceError::Published(error.to_string()))?;
    if args.json {
        return checks.iter().try_for_each(output::json);
    }
    let medians = medians(&checks);
    if args.markdown {
        return output::line(&markdown(&medians));
    }
    if args.all {
        output::line(&output::table(
            &["time", "published", "modelled", "error", "role"],
            &times(&checks),
        ))?;
        output::line("")?;
    }
    output::line(&output::table(&HEADER, &medians))
}

const HEADER: [&str; 6] = [
    "published times of",
    "fitted",
    "median error",
    "held out",
    "median error",
    "worst",
];

fn row(name: &str, checks: &[&Check]) -> Option<Vec<String>> {
    if checks.is_empty() {
        return None;
    }
    let of = |fitted| {
        checks
            .iter()
            .copied()
            .filter(move |check| check.fitted == fitted)
    };
    let median = |fitted| {
        let found = published::median_error(of(fitted));
        found.map_or_else(|| "-".to_owned(), |it| format!("{:.1} %", 100.0 * it))
    };
    let worst = of(false).max_by(|a, b| a.error.abs().total_cmp(&b.error.abs()));
    Some(vec![
        name.to_owned(),
        of(true).count().to_string(),
        median(true),
        of(false).count().to_string(),
        median(false),
        worst.map_or_else(|| "-".to_owned(), |it| percent(it.error)),
    ])
}

/// A row for each device, and rows for all by kind.
fn medians(checks: &[Check]) -> Vec<Vec<String>> {
    let mut names: Vec<&str> = Vec::new();
    for check in checks {
        if !names.contains(&check.device.as_str()) {
            names.push(&check.device);
        }
    }
    let served = |check: &&Check| !check.training;
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut add = |name: &str, keep: &dyn Fn(&Check) -> bool| {
        let some: Vec<&Check> = checks.iter().filter(|check| keep(check)).collect();
        rows.extend(row(name, &some));
    };
    for &name in &names {
        add(name, &|check| served(&check) && check.device == name);
    }
    use fl_edge::device::{DelegateKind, Precision};
    let cpu = |check: &Check| served(&check) && check.delegate == DelegateKind::Cpu;
    add("all: CPU in floats, all threads", &|check| {
        cpu(check) && check.precision < Precision::Int8 && !check.one_thread
    });
    add("all: CPU in floats, one thread", &|check| {
        cpu(check) && check.precision < Precision::Int8 && check.one_thread
    });
    add("all: CPU in int8, all threads", &|check| {
        cpu(check) && check.precision == Precision::Int8 && !check.one_thread
    });
    add("all: CPU in int8, one thread", &|check| {
        cpu(check) && check.precision == Precision::Int8 && check.one_thread
    });
    add("all: GPU", &|check| {
        served(&check) && check.delegate == DelegateKind::Gpu
    });
    add("all inference", &|check| served(&check));
    add("training (FLASH)", &|check| check.training);
    rows
}

fn times(checks: &[Check]) -> Vec<Vec<String>> {
    let row = |check: &Check| {
        vec![
            format!(
                "{} {} {} {}{}",
                check.device,
                check.delegate.name(),
                check.precision.name(),
                check.network,
                if check.one_thread { ", one thread" } else { "" },
            ),
            format!("{:.2} ms", check.published_ms),
            format!("{:.2} ms", check.modelled_ms),
            percent(check.error),
            if check.fitted { "fitted" } else { "held out" }.to_owned(),
        ]
    };
    checks.iter().map(row).collect()
}

fn markdown(rows: &[Vec<String>]) -> String {
    let mut text = format!("| {} |\n|---|---|---|---|---|---|", HEADER.join(" | "));
    for row in rows {
        text.push_str(&format!("\n| {} |", row.join(" | ")));
    }
    text
}
