//! `new`: a commented experiment to start from.

use std::io::Write as _;
use std::path::PathBuf;

use super::{Exit, output};
use crate::config::is_name;
use crate::error::Error;

/// Arguments of `new`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the experiment; it is written to NAME.toml
    name: String,
    /// The folder to write to
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

/// The experiment, with `NAME` for its name.
pub(crate) const TEMPLATE: &str = include_str!("new.toml");

/// Writes the file; never over an existing one.
///
/// # Errors
/// [`Error::Name`] or [`Error::Io`].
pub fn run(args: &Args) -> Result<Exit, Error> {
    if !is_name(&args.name) {
        return Err(Error::Name {
            name: args.name.clone(),
        });
    }
    let path = args.dir.join(format!("{}.toml", args.name));
    let refused = |source: std::io::Error| {
        let help = match source.kind() {
            std::io::ErrorKind::AlreadyExists => "choose another name, or move the file away",
            std::io::ErrorKind::NotFound => "create the folder first",
            _ => "choose a folder that you may write to with --dir",
        };
        Error::Io {
            path: path.clone(),
            source,
            help,
        }
    };
    let mut file = std::fs::File::create_new(&path).map_err(refused)?;
    file.write_all(TEMPLATE.replace("NAME", &args.name).as_bytes())
        .map_err(refused)?;
    output::line(&format!(
        "wrote {}; run it with: fledgling run {}",
        path.display(),
        path.display()
    ))?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Experiment;

    #[test]
    fn the_template_is_valid() {
        let text = TEMPLATE.replace("NAME", "mine");
        let experiment = Experiment::from_text("mine.toml", &text, &[]).unwrap();
        assert_eq!(experiment.name, "mine");
        assert_eq!(experiment.variants.len(), 2);
    }
}
