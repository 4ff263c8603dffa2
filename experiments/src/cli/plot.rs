//! Subcommand `plot`.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Exit, output};
use crate::analysis::Analysis;
use crate::config::Experiment;
use crate::config::plot::{PlotTable, from_options};
use crate::error::Error;
use crate::plot::{self, Drawing, PlotFault};
use crate::results::{self, Results};
use crate::sweep::Plan;

/// Arguments of `plot`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folders of results or of sweeps, or of single variants within them (results/NAME/VARIANT)
    #[arg(required = true)]
    results: Vec<PathBuf>,
    /// The folder for the plots [default: plots in the results; ./plots for several results, or with
    /// --kind]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Draw the [[plot]] tables of this experiment in place of those that the results were drawn by
    #[arg(long, value_name = "FILE", conflicts_with = "kind")]
    from: Option<PathBuf>,
    #[command(flatten)]
    figure: Figure,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

/// One figure; the keys of a `[[plot]]` table as options.
#[derive(Debug, clap::Args)]
struct Figure {
    /// Draw one figure: curves, points, heat-map, pareto, bars, dots, fairness, partition, timeline
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// What is across: rounds, time, hours, bytes, joules, epsilon, or a key such as
    /// privacy.epsilon
    #[arg(long, value_name = "WHAT", requires = "kind")]
    x: Option<String>,
    /// What is upright: accuracy, loss, ..., or the second key of a heat map
    #[arg(long, value_name = "WHAT", requires = "kind")]
    y: Option<String>,
    /// What the cells of a heat map hold
    #[arg(long, value_name = "MEASURE", requires = "kind")]
    value: Option<String>,
    /// A key whose values tell series apart; may be repeated
    #[arg(long, value_name = "KEY", requires = "kind")]
    group: Vec<String>,
    /// What is around means: deviation, interval, range or none
    #[arg(long, value_name = "BAND", requires = "kind")]
    band: Option<String>,
    /// The test accuracy of measures ...-to-target, e.g. 0.8
    #[arg(long, value_name = "SHARE", requires = "kind")]
    target: Option<String>,
    /// The name of the files
    #[arg(long, value_name = "NAME", requires = "kind")]
    name: Option<String>,
    /// The title; empty for none
    #[arg(long, value_name = "TEXT", requires = "kind")]
    title: Option<String>,
    /// Width: column (3.5 inches), page, or pixels
    #[arg(long, value_name = "WIDTH", requires = "kind")]
    width: Option<String>,
    /// Height of the panel in pixels
    #[arg(long, value_name = "PIXELS", requires = "kind")]
    height: Option<String>,
    /// Whether the horizontal axis is logarithmic
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", requires = "kind")]
    log_x: Option<String>,
    /// Whether the vertical axis is logarithmic
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", requires = "kind")]
    log_y: Option<String>,
    /// Ends of the horizontal axis, e.g. 0,100
    #[arg(
        long,
        value_name = "LOW,HIGH",
        allow_hyphen_values = true,
        requires = "kind"
    )]
    x_limits: Option<String>,
    /// Ends of the vertical axis, e.g. 50,90
    #[arg(
        long,
        value_name = "LOW,HIGH",
        allow_hyphen_values = true,
        requires = "kind"
    )]
    y_limits: Option<String>,
    /// Where series are named: right, below or none
    #[arg(long, value_name = "PLACE", requires = "kind")]
    legend: Option<String>,
    /// Each value becomes the mean of itself and so many before and after it
    #[arg(long, value_name = "N", requires = "kind")]
    smoothing: Option<String>,
}

/// Why a figure cannot be drawn.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlotError {
    /// The figure that was asked for cannot be drawn of these results.
    #[error("figure `{name}`: {fault}")]
    Figure {
        /// Its name.
        name: String,
        /// Why.
        fault: PlotFault,
    },
    /// The experiment asks for no figures.
    #[error(
        "{} has no [[plot]] tables; add some, or describe a figure with --kind",
        .path.display()
    )]
    NoTables {
        /// The file.
        path: PathBuf,
    },
}

#[derive(Debug, Serialize)]
struct Line {
    plots: Vec<PathBuf>,
    /// Figures that were asked for and not drawn, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    left_out: Vec<String>,
}

impl Figure {
    /// The options that were given, in the order of the table's keys, as TOML or bare words.
    fn options(&self) -> Vec<(String, String)> {
        let quoted = |text: &String| toml::Value::String(text.clone()).to_string();
        let list = |text: &String| format!("[{text}]");
        let groups = self.group.iter().map(quoted).collect::<Vec<_>>().join(", ");
        let groups = (!self.group.is_empty()).then(|| format!("[{groups}]"));
        let given = [
            ("kind", self.kind.as_ref().map(quoted)),
            ("name", self.name.as_ref().map(quoted)),
            ("x", self.x.as_ref().map(quoted)),
            ("y", self.y.as_ref().map(quoted)),
            ("value", self.value.as_ref().map(quoted)),
            ("group", groups),
            ("band", self.band.as_ref().map(quoted)),
            ("target", self.target.clone()),
            ("title", self.title.as_ref().map(quoted)),
            ("width", self.width.clone()),
            ("height", self.height.clone()),
            ("log-x", self.log_x.clone()),
            ("log-y", self.log_y.clone()),
            ("x-limits", self.x_limits.as_ref().map(list)),
            ("y-limits", self.y_limits.as_ref().map(list)),
            ("legend", self.legend.as_ref().map(quoted)),
            ("smoothing", self.smoothing.clone()),
        ];
        given
            .into_iter()
            .filter_map(|(option, value)| Some((option.to_owned(), value?)))
            .collect()
    }
}

/// Draws the plots of results again, or others.
///
/// # Errors
/// [`Error::Results`], [`Error::Analysis`], [`Error::Config`] or [`Error::Plot`].
pub fn run(args: &Args) -> Result<Exit, Error> {
    let drawing = draw(args)?;
    if args.json {
        let left_out = drawing.left_out.iter();
        output::json(&Line {
            plots: drawing.files,
            left_out: left_out
                .map(|(name, fault)| format!("{name}: {fault}"))
                .collect(),
        })?;
        return Ok(Exit::Done);
    }
    for plot in drawing.files {
        output::line(&plot.display().to_string())?;
    }
    for (name, fault) in &drawing.left_out {
        output::tell(&format!("plot `{name}` is left out: {fault}"));
    }
    Ok(Exit::Done)
}

fn draw(args: &Args) -> Result<Drawing, Error> {
    let options = args.figure.options();
    if !options.is_empty() {
        let table = from_options(&options)?;
        let analysis = Analysis::load(&args.results)?;
        let folder = args.out.as_deref().unwrap_or("plots".as_ref());
        let drawing = plot::draw_one(&analysis, &table, folder)?;
        return match drawing.left_out.into_iter().next() {
            Some((name, fault)) => Err(PlotError::Figure { name, fault }.into()),
            None => Ok(Drawing {
                files: drawing.files,
                left_out: Vec::new(),
            }),
        };
    }
    let mut sweeps = false;
    for path in &args.results {
        sweeps |= Plan::read(path)?.is_some();
    }
    let mut tables = tables(args)?;
    if sweeps || !tables.is_empty() {
        let analysis = Analysis::load(&args.results)?;
        let folder = match (&args.out, args.results.as_slice()) {
            (Some(folder), _) => folder.clone(),
            (None, [one]) if sweeps => return Ok(plot::draw_sweep(&analysis, &tables, one)?),
            (None, [one]) => one.join(results::PLOTS),
            (None, _) => PathBuf::from("plots"),
        };
        if tables.is_empty() {
            tables = plot::tables_of(&analysis);
        }
        return Ok(plot::draw_tables(&analysis, &tables, &folder)?);
    }
    let loaded = args
        .results
        .iter()
        .map(|path| Results::load(path))
        .collect::<Result<Vec<_>, _>>()?;
    let files = match (&args.out, loaded.as_slice()) {
        (Some(folder), loaded) => plot::draw(loaded, folder)?,
        // All variants of one experiment: its own plots.
        (None, [one]) if one.variants.len() == one.manifest.variants.len() => {
            return Ok(plot::draw_own(one, &[])?);
        }
        (None, loaded) => plot::draw(loaded, "plots".as_ref())?,
    };
    Ok(Drawing {
        files,
        left_out: Vec::new(),
    })
}

/// The tables of the file that was named, or those by which a single folder was drawn before.
fn tables(args: &Args) -> Result<Vec<PlotTable>, Error> {
    if let Some(path) = &args.from {
        let tables = Experiment::from_file(path, &[])?.plots;
        return match tables.is_empty() {
            true => Err(PlotError::NoTables { path: path.clone() }.into()),
            false => Ok(tables),
        };
    }
    let kept = |path: &Path| plot::kept_tables(path);
    Ok(match args.results.as_slice() {
        [one] => kept(one),
        _ => Vec::new(),
    })
}
