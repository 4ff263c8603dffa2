//! `schema`: what an experiment may hold, for editors and readers.

use super::{Exit, output, reference};
use crate::config::schema;
use crate::error::Error;

/// Arguments of `schema`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print the reference of all keys in Markdown instead of the JSON schema
    #[arg(long)]
    markdown: bool,
    /// Print the reference of all commands in Markdown instead
    #[arg(long, conflicts_with = "markdown")]
    commands: bool,
}

/// Prints the schema.
///
/// # Errors
/// [`Error::Output`].
pub fn run(args: &Args) -> Result<Exit, Error> {
    if args.commands {
        output::line(reference::markdown().trim_end())?;
    } else if args.markdown {
        output::line(schema::markdown().trim_end())?;
    } else {
        let text = serde_json::to_string_pretty(&schema::json_schema())
            .map_err(|error| Error::Output(std::io::Error::other(error)))?;
        output::line(&text)?;
    }
    Ok(Exit::Done)
}
