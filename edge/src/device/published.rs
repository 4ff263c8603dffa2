//! Published times beside modelled ones: which were fitted, and how far off the others are.
//!
//! The runs are in `edge/profiles/published.toml`, with their sources. A run lists the times that
//! its device's rates were fitted to ([`fit`]) apart from those that were held out; no
//! figure of a profile was chosen by looking at a held-out time.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::cost::Threads;
use super::fit::{self, Sample};
use super::networks;
use super::profile::{Delegate, DelegateKind, DeviceProfile, Precision};
use super::work::Work;

/// The text of `published.toml`.
const TEXT: &str = include_str!("../../profiles/published.toml");

/// One published run: a device, a delegate, a precision.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// The profile.
    pub device: String,
    /// The delegate, alone.
    pub delegate: DelegateKind,
    /// The precision.
    pub precision: Precision,
    /// Whether one thread worked, or as many as the profile's figures are for.
    #[serde(default)]
    pub one_thread: bool,
    /// Examples at once.
    #[serde(default = "one")]
    pub batch: u32,
    /// Whether a training step was timed.
    #[serde(default)]
    pub training: bool,
    /// How many times slower the publication's software is than the rates, which are another's:
    /// fitted to one device and used for all.
    #[serde(default = "alike")]
    pub software: f64,
    /// A key of the sources.
    pub source: String,
    /// Milliseconds by network, to which the rates were fitted.
    #[serde(default)]
    pub fitted: BTreeMap<String, f64>,
    /// Milliseconds by network, held out.
    #[serde(default)]
    pub held_out: BTreeMap<String, f64>,
}

fn one() -> u32 {
    1
}

fn alike() -> f64 {
    1.0
}

/// Where the fit of a delegate starts.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// The profile.
    pub device: String,
    /// The delegate.
    pub delegate: DelegateKind,
    /// 10^9 bytes a second.
    pub bandwidth: f64,
    /// Microseconds.
    pub launch: f64,
    /// Rates of Winograd's, other and depthwise convolutions beside one another.
    pub shape: [f64; 3],
}

/// All published runs.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// Where runs come from.
    pub sources: BTreeMap<String, String>,
    /// Where fits start.
    pub start: Vec<Start>,
    /// The runs.
    pub run: Vec<Run>,
}

/// A published time beside the modelled one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// The profile.
    pub device: String,
    /// The delegate.
    pub delegate: DelegateKind,
    /// The precision.
    pub precision: Precision,
    /// Whether one thread worked.
    pub one_thread: bool,
    /// Whether a training step was timed.
    pub training: bool,
    /// The network.
    pub network: String,
    /// Whether the profile was fitted to it.
    pub fitted: bool,
    /// Milliseconds, as published.
    pub published_ms: f64,
    /// Milliseconds, as modelled.
    pub modelled_ms: f64,
    /// `modelled / published - 1`
    pub error: f64,
}

/// The embedded runs.
///
/// # Errors
/// What the reader of TOML says; the tests rule it out.
pub fn published() -> Result<Published, toml::de::Error> {
    toml::from_str(TEXT)
}

/// The work of each network that runs name, for serving and for training.
fn works(runs: &[Run]) -> BTreeMap<(String, bool), Work> {
    let mut works = BTreeMap::new();
    for run in runs {
        for network in run.fitted.keys().chain(run.held_out.keys()) {
            let key = (network.clone(), run.training);
            if works.contains_key(&key) {
                continue;
            }
            if let Some(Ok(model)) = networks::network(network) {
                let work = match run.training {
                    true => Work::training(model.graph()),
                    false => Work::inference(model.graph()),
                };
                works.insert(key, work);
            }
        }
    }
    works
}

fn sample<'a>(run: &Run, work: &'a Work, ms: f64) -> Sample<'a> {
    Sample {
        work,
        precision: run.precision,
        batch: run.batch,
        threads: match run.one_thread {
            true => Threads::One,
            false => Threads::All,
        },
        seconds: ms * 1e-3 / run.software,
    }
}

/// Every published time of `profiles` beside the modelled one, in the order of the runs.
///
/// # Errors
/// What the reader of TOML says; the tests rule it out.
pub fn checks(profiles: &[DeviceProfile]) -> Result<Vec<Check>, toml::de::Error> {
    let published = published()?;
    let works = works(&published.run);
    let mut checks = Vec::new();
    for run in &published.run {
        let profile = profiles.iter().find(|profile| profile.name == run.device);
        let Some(delegate) = profile.and_then(|it| it.delegate(run.delegate)) else {
            continue;
        };
        let times = (run.fitted.iter().map(|time| (time, true)))
            .chain(run.held_out.iter().map(|time| (time, false)));
        for ((network, &ms), fitted) in times {
            let Some(work) = works.get(&(network.clone(), run.training)) else {
                continue;
            };
            let Some(seconds) = fit::seconds(delegate, &sample(run, work, ms)) else {
                continue;
            };
            let modelled_ms = seconds * 1e3 * run.software;
            checks.push(Check {
                device: run.device.clone(),
                delegate: run.delegate,
                precision: run.precision,
                one_thread: run.one_thread,
                training: run.training,
                network: network.clone(),
                fitted,
                published_ms: ms,
                modelled_ms,
                error: modelled_ms / ms - 1.0,
            });
        }
    }
    Ok(checks)
}

/// The delegate of a profile fitted anew to the published times that it was fitted to: none where
/// there are none. Runs on one thread are not fitted to; they give the share of one thread.
///
/// # Errors
/// What the reader of TOML says; the tests rule it out.
pub fn refitted(
    profile: &DeviceProfile,
    kind: DelegateKind,
) -> Result<Option<Delegate>, toml::de::Error> {
    let Some(delegate) = profile.delegate(kind) else {
        return Ok(None);
    };
    let published = published()?;
    let mut starts = published.start.iter();
    let start = starts.find(|start| start.device == profile.name && start.delegate == kind);
    let Some(start) = start.cloned() else {
        return Ok(None);
    };
    let runs: Vec<Run> = (published.run.into_iter())
        .filter(|run| run.device == profile.name && run.delegate == kind && !run.training)
        .collect();
    let works = works(&runs);
    let mut samples = Vec::new();
    for run in runs.iter().filter(|run| !run.one_thread) {
        for (network, &ms) in &run.fitted {
            if let Some(work) = works.get(&(network.clone(), false)) {
                samples.push(sample(run, work, ms));
            }
        }
    }
    if samples.is_empty() {
        return Ok(None);
    }
    let mut delegate = delegate.clone();
    delegate.bandwidth.value = start.bandwidth;
    delegate.launch.value = start.launch;
    for precision in Precision::ALL {
        // The sample that does the most gives the scale.
        let mine = samples
            .iter()
            .filter(|sample| sample.precision == precision);
        let largest = mine.max_by_key(|sample| sample.work.macs());
        let (Some(sample), Some(rates)) = (largest, fit::rates_mut(&mut delegate, precision))
        else {
            continue;
        };
        let scale = sample.work.macs() as f64 / sample.seconds * 1e-9;
        if let Some(winograd) = &mut rates.winograd {
            winograd.value = scale * start.shape[0];
        }
        rates.conv.value = scale * start.shape[1];
        rates.depthwise.value = scale * start.shape[2];
        rates.dense.value = rates.conv.value;
    }
    Ok(Some(fit::fit(&delegate, &samples, "fit")))
}

/// The median of the errors' sizes; none of none.
#[must_use]
pub fn median_error<'a>(checks: impl IntoIterator<Item = &'a Check>) -> Option<f64> {
    let mut sizes: Vec<f64> = checks.into_iter().map(|check| check.error.abs()).collect();
    sizes.sort_by(f64::total_cmp);
    let middle = sizes.len() / 2;
    match sizes.len() {
        0 => None,
        n if n % 2 == 1 => Some(sizes[middle]),
        _ => Some(0.5 * (sizes[middle - 1] + sizes[middle])),
    }
}
