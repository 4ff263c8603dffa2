//! Subcommand `plot`.

use std::path::PathBuf;

use serde::Serialize;

use super::{Exit, output};
use crate::error::Error;
use crate::plot;
use crate::results::Results;

/// Arguments of `plot`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folders of results, or of single variants within them (results/NAME/VARIANT)
    #[arg(required = true)]
    results: Vec<PathBuf>,
    /// The folder for the plots [default: plots in the results; ./plots for several results]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Line {
    plots: Vec<PathBuf>,
}

/// Draws the plots of results again.
///
/// # Errors
/// [`Error::Results`].
pub fn run(args: &Args) -> Result<Exit, Error> {
    let loaded = args
        .results
        .iter()
        .map(|path| Results::load(path))
        .collect::<Result<Vec<_>, _>>()?;
    let plots = match (&args.out, loaded.as_slice()) {
        (Some(folder), loaded) => plot::draw(loaded, folder)?,
        // All variants of one experiment: its own plots.
        (None, [one]) if one.variants.len() == one.manifest.variants.len() => plot::draw_own(one)?,
        (None, loaded) => plot::draw(loaded, "plots".as_ref())?,
    };
    if args.json {
        output::json(&Line { plots })?;
    } else {
        for plot in plots {
            output::line(&plot.display().to_string())?;
        }
    }
    Ok(Exit::Done)
}
