//! `model prune`: a trained model with fewer weights or fewer channels.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::ValueEnum;
use fl_core::{Mask, Parameters};
use fl_edge::file::write_parameters;
use fl_edge::prune::{
    ChannelSet, FilterShares, Filters, Scope, magnitude, prunable, prune_filters, two_of_four,
};
use fl_edge::{EdgeError, Model};
use serde::Serialize;

use super::super::output;
use super::{ModelError, Subject, write_model};
use crate::error::Error;

/// The level at which files are compressed to be compared: zstd's most without a large window.
const LEVEL: i32 = 19;

/// Arguments of `model prune`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["unstructured", "two_of_four", "filters", "layer"]))]
pub(super) struct Args {
    /// A file of trained parameters, a variant's folder of results, or an ONNX or GGUF file
    model: String,
    /// The file of parameters to write
    #[arg(short, long, alias = "to", value_name = "FILE")]
    out: PathBuf,
    /// Set this share of the weights to zero, the smallest ones
    #[arg(long, value_name = "SHARE", value_parser = share)]
    unstructured: Option<f64>,
    /// Set two of each four weights along the inputs to zero, the smaller ones
    #[arg(long)]
    two_of_four: bool,
    /// Remove this share of the filters and units, those of least L1 norm
    #[arg(long, value_name = "SHARE", value_parser = share)]
    filters: Option<f64>,
    /// Remove this share of one layer's filters or units; may be repeated
    #[arg(long, value_name = "NAME=SHARE", value_parser = of_layer)]
    layer: Vec<(String, f64)>,
    /// Of --unstructured and --filters: the smallest of all, or of each layer [default: global for
    /// weights, layer for filters]
    #[arg(long, value_enum, conflicts_with_all = ["two_of_four", "layer"])]
    scope: Option<ScopeName>,
    /// Of --filters and --layer: keep a multiple of so many filters, rounded up; kernels compute whole
    /// vectors of 8 or 16
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with_all = ["unstructured", "two_of_four"], value_parser = clap::value_parser!(u32).range(1..=4096))]
    multiple: u32,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

/// Where the smallest are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ScopeName {
    /// Among all
    Global,
    /// In each layer by itself
    Layer,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..1.0).contains(&share) => Ok(share),
        _ => Err("expected a share of at least 0 and below 1, such as 0.8".to_owned()),
    }
}

fn of_layer(text: &str) -> Result<(String, f64), String> {
    let (name, part) = text
        .rsplit_once('=')
        .ok_or_else(|| "expected a layer's name and a share, such as conv2=0.3".to_owned())?;
    Ok((name.to_owned(), share(part)?))
}

/// What was pruned.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    out: String,
    what: &'static str,
    /// Parameters, running statistics included.
    parameters: Change,
    /// Multiply-accumulates for an example.
    macs: Change,
    /// Weights that may be pruned, as they are after it.
    weights: u64,
    /// Zeros among them.
    zeros: u64,
    /// Their share.
    sparsity: f64,
    file_bytes: Change,
    /// The same file compressed by zstd.
    zstd_bytes: Change,
    layers: Vec<Layer>,
    /// What became of every set of channels; of --filters and --layer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sets: Vec<ChannelSet>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Change {
    before: u64,
    after: u64,
}

#[derive(Debug, Serialize)]
struct Layer {
    name: String,
    kind: &'static str,
    output_shape: Vec<usize>,
    parameters: Change,
    /// Zeros among the weights of its products, after it.
    zeros: u64,
    macs: Change,
}

pub(super) fn run(args: &Args) -> Result<(), Error> {
    let subject = Subject::read(&args.model)?;
    let before = subject.parameters()?;
    let (what, pruned, sets) = prune(args, &subject.model, &before)?;
    let (model, values) = match &pruned {
        Pruned::Weights(values) => (&*subject.model, values.clone()),
        Pruned::Filters(smaller, values) => (&**smaller, values.clone()),
    };
    let after = Parameters::new(std::sync::Arc::clone(model.layout()), values)
        .map_err(|error| ModelError::from(EdgeError::from(error)))?;
    write_model(&args.out, |writer| write_parameters(model, &after, writer))?;
    let files = [encoded(&subject.model, &before)?, encoded(model, &after)?];
    let packed = [compressed(&files[0])?, compressed(&files[1])?];
    let [weights, zeros] = count(model, &after, None);
    let layers = (subject.model.summary().iter().zip(model.summary())).map(|(old, new)| Layer {
        name: new.name.clone(),
        kind: new.kind,
        output_shape: new.output_shape.clone(),
        parameters: change(old.parameters as u64, new.parameters as u64),
        zeros: count(model, &after, Some(&new.name))[1],
        macs: change(old.macs, new.macs),
    });
    let report = Report {
        model: args.model.clone(),
        out: args.out.display().to_string(),
        what,
        parameters: change(before.values().len() as u64, after.values().len() as u64),
        macs: change(subject.model.macs_per_example(), model.macs_per_example()),
        weights,
        zeros,
        sparsity: zeros as f64 / weights.max(1) as f64,
        file_bytes: change(files[0].len() as u64, files[1].len() as u64),
        zstd_bytes: change(packed[0], packed[1]),
        layers: layers.collect(),
        sets,
    };
    match args.json {
        true => output::json(&report),
        false => print(&report),
    }
}

/// The parameters, of a new model where its channels went.
enum Pruned {
    Weights(Vec<f32>),
    Filters(Box<Model>, Vec<f32>),
}

fn prune(
    args: &Args,
    model: &Model,
    parameters: &Parameters,
) -> Result<(&'static str, Pruned, Vec<ChannelSet>), ModelError> {
    let values = parameters.values();
    let masked = |mask: Mask| {
        let mut values = values.to_vec();
        mask.apply(&mut values);
        Pruned::Weights(values)
    };
    if let Some(share) = args.unstructured {
        let scope = match args.scope {
            Some(ScopeName::Layer) => Scope::Layer,
            Some(ScopeName::Global) | None => Scope::Global,
        };
        let mask = magnitude(model, values, share, scope, &Mask::none(values.len()))?;
        return Ok(("unstructured", masked(mask), Vec::new()));
    }
    if args.two_of_four {
        let mask = two_of_four(model, values)?;
        return Ok(("two-of-four", masked(mask), Vec::new()));
    }
    let shares = match (args.filters, args.scope) {
        (Some(share), Some(ScopeName::Global)) => FilterShares::Global(share),
        (Some(share), _) => FilterShares::Each(share),
        (None, _) => FilterShares::Layers(args.layer.iter().cloned().collect::<BTreeMap<_, _>>()),
    };
    let filters = Filters {
        shares,
        multiple: args.multiple as usize,
    };
    let pruned = prune_filters(model, values, &filters)?;
    let smaller = Pruned::Filters(Box::new(pruned.model), pruned.values);
    Ok(("filters", smaller, pruned.sets))
}

fn change(before: u64, after: u64) -> Change {
    Change { before, after }
}

/// The file's bytes.
fn encoded(model: &Model, parameters: &Parameters) -> Result<Vec<u8>, ModelError> {
    let mut bytes = Vec::new();
    write_parameters(model, parameters, &mut bytes).map_err(|source| ModelError::File {
        path: PathBuf::from("the model in memory"),
        source,
    })?;
    Ok(bytes)
}

fn compressed(bytes: &[u8]) -> Result<u64, Error> {
    let packed = zstd::bulk::compress(bytes, LEVEL).map_err(Error::Output)?;
    Ok(packed.len() as u64)
}

/// Weights that may be pruned, of a layer or of all, and zeros among them.
fn count(model: &Model, parameters: &Parameters, layer: Option<&str>) -> [u64; 2] {
    let (mut weights, mut zeros) = (0, 0);
    for id in prunable(model.graph()) {
        let tensor = &model.layout().tensors()[id];
        let rest = layer.map(|layer| tensor.name.strip_prefix(layer));
        // `conv1.weight`, `lstm1.recurrent.weight`.
        if rest.is_none_or(|rest| rest.is_some_and(|rest| rest.starts_with('.'))) {
            let values = &parameters.values()[tensor.range()];
            weights += values.len() as u64;
            zeros += values.iter().filter(|&&value| value == 0.0).count() as u64;
        }
    }
    [weights, zeros]
}

fn print(it: &Report) -> Result<(), Error> {
    let count = output::count;
    let rows: Vec<Vec<String>> = (it.layers.iter())
        .filter(|layer| layer.parameters.before > 0 || layer.macs.before > 0)
        .map(|layer| {
            vec![
                format!("{} ({})", layer.name, layer.kind),
                format!("{:?}", layer.output_shape),
                count(layer.parameters.before),
                count(layer.parameters.after),
                count(layer.zeros),
                count(layer.macs.before),
                count(layer.macs.after),
            ]
        })
        .collect();
    let header = [
        "layer",
        "output",
        "parameters",
        "after",
        "zeros",
        "multiply-adds",
        "after",
    ];
    output::line(&output::table(&header, &rows))?;
    let fell = |change: &Change, text: fn(u64) -> String| {
        let share = 1.0 - change.after as f64 / change.before.max(1) as f64;
        let (before, after) = (text(change.before), text(change.after));
        match change.before == change.after {
            true => format!("{before}, as before"),
            false => format!("{before} -> {after} ({:+.1} %)", -100.0 * share),
        }
    };
    let mut lines = vec![
        format!("  parameters     {}", fell(&it.parameters, count)),
        format!(
            "  zeros          {} of {} weights ({:.1} %)",
            count(it.zeros),
            count(it.weights),
            100.0 * it.sparsity
        ),
        format!("  multiply-adds  {}", fell(&it.macs, count)),
        format!("  file           {}", fell(&it.file_bytes, output::bytes)),
        format!("  under zstd     {}", fell(&it.zstd_bytes, output::bytes)),
    ];
    if it.what != "filters" {
        lines.push(
            "  zeros save bytes of a compressed file; time only where a device has hardware for them"
                .to_owned(),
        );
    }
    for set in it.sets.iter().filter(|set| set.removed.is_empty()) {
        let layers = set.layers.join(", ");
        lines.push(match &set.kept {
            Some(reason) => format!("  kept           {layers}: {reason}"),
            None => format!(
                "  kept           {layers}: the share is too small, or --multiple too large"
            ),
        });
    }
    lines.push(format!(
        "{} is written; train it on, or see `fledgling model quantize` and `convert`",
        it.out
    ));
    output::line(&lines.join("\n"))
}
