//! `data`: the catalogue of data sets, and what a partition does to one.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use fl_datasets::catalogue::{self, Entry, Presence};
use fl_datasets::fetch::{self, Event};
use fl_datasets::{DataRoot, Heterogeneity};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::transport::Http;
use super::{Exit, output};
use crate::config::Experiment;
use crate::error::Error;
use crate::runner::DataCache;

/// Arguments of `data`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List every data set, its licence, and whether it is here
    List {
        /// Print one line of JSON per data set
        #[arg(long)]
        json: bool,
    },
    /// Download what is missing of a data set, and verify it; goes on where it was broken off
    Fetch {
        /// The data set
        name: String,
    },
    /// Copy files at hand to their place, and verify them
    Import {
        /// The data set
        name: String,
        /// The file, or the folder that holds the files
        path: PathBuf,
    },
    /// Say what a data set holds, or how an experiment divides it
    Inspect {
        /// The data set, or an experiment (a file ending in .toml)
        name: String,
        /// Print JSON, one line per data set or variant
        #[arg(long)]
        json: bool,
    },
}

/// Runs the subcommand.
///
/// # Errors
/// [`Error::Dataset`] and what the subcommands say.
pub fn run(args: &Args) -> Result<Exit, Error> {
    match &args.command {
        Command::List { json } => list(*json)?,
        Command::Fetch { name } => fetch(name)?,
        Command::Import { name, path } => import(name, path)?,
        Command::Inspect { name, json } if name.ends_with(".toml") => {
            inspect_experiment(Path::new(name), *json)?;
        }
        Command::Inspect { name, json } => inspect(name, *json)?,
    }
    Ok(Exit::Done)
}

fn state(presence: Presence) -> &'static str {
    match presence {
        Presence::Embedded => "embedded",
        Presence::Present => "here",
        Presence::Missing(_) => "missing",
    }
}

fn list(json: bool) -> Result<(), Error> {
    #[derive(Serialize)]
    struct Line {
        #[serde(flatten)]
        entry: Entry,
        presence: Presence,
    }
    let root = DataRoot::from_env()?;
    if json {
        for entry in catalogue::all() {
            output::json(&Line {
                entry: *entry,
                presence: entry.presence(&root),
            })?;
        }
        return Ok(());
    }
    let rows: Vec<Vec<String>> = catalogue::all()
        .into_iter()
        .map(|entry| {
            let bytes: u64 = entry.files.iter().map(|file| file.bytes).sum();
            vec![
                entry.name.to_owned(),
                state(entry.presence(&root)).to_owned(),
                match bytes {
                    0 => "-".to_owned(),
                    bytes => output::bytes(bytes),
                },
                entry.licence.to_owned(),
                entry.shape.to_owned(),
            ]
        })
        .collect();
    output::line(&output::words(
        &["name", "files", "size", "licence", "holds"],
        &rows,
    ))?;
    output::line(&format!("data folder  {}", root.path().display()))
}

/// Shows what happens to each file.
struct Show {
    bar: ProgressBar,
}

impl Show {
    fn new() -> Self {
        let bar = ProgressBar::no_length();
        if let Ok(style) = ProgressStyle::with_template(
            "{msg:<40} {bar:28} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left",
        ) {
            bar.set_style(style.progress_chars("━━─"));
        }
        Self { bar }
    }

    fn event(&self, event: Event<'_>) {
        match event {
            Event::Present { file } => self.say(&format!("{file}: already here, verified")),
            Event::Started { url, from, total } => {
                self.bar.set_length(total);
                self.bar.set_position(from);
                self.bar
                    .set_message(url.rsplit('/').next().unwrap_or(url).to_owned());
                if from > 0 {
                    self.say(&format!("{url}: going on from byte {from}"));
                }
            }
            Event::Progress { done, .. } => self.bar.set_position(done),
            Event::Failed { url, reason } => self.say(&format!("{url}: {reason}")),
            Event::Installed { file } => self.say(&format!("{file}: verified and installed")),
        }
    }

    fn say(&self, text: &str) {
        self.bar.suspend(|| output::tell(text));
    }
}

fn fetch(name: &str) -> Result<(), Error> {
    let (root, entry) = (DataRoot::from_env()?, catalogue::get(name)?);
    let show = Show::new();
    let outcome = fetch::fetch(entry, &root, &Http::new(), &mut |event| show.event(event));
    show.bar.finish_and_clear();
    ready(entry, &root, outcome?)
}

fn import(name: &str, path: &Path) -> Result<(), Error> {
    let (root, entry) = (DataRoot::from_env()?, catalogue::get(name)?);
    let show = Show::new();
    let outcome = fetch::import(entry, &root, path, &mut |event| show.event(event));
    show.bar.finish_and_clear();
    ready(entry, &root, outcome?)
}

fn ready(entry: &Entry, root: &DataRoot, installed: usize) -> Result<(), Error> {
    output::line(&match entry.presence(root) {
        Presence::Embedded => format!("{} is part of the program", entry.name),
        Presence::Present => format!(
            "{} is ready in {} ({installed} files new)",
            entry.name,
            root.path().join(entry.name).display()
        ),
        Presence::Missing(missing) => {
            format!(
                "{}: {installed} files new, {missing} still missing",
                entry.name
            )
        }
    })
}

fn inspect(name: &str, json: bool) -> Result<(), Error> {
    let (root, entry) = (DataRoot::from_env()?, catalogue::get(name)?);
    let inspection = fetch::inspect(entry, &root)?;
    if json {
        return output::json(&inspection);
    }
    let mut lines = vec![
        format!("{}: {}", entry.name, entry.title),
        format!("  holds     {}", entry.shape),
        format!("  licence   {}", entry.licence),
        format!("  cite      {}", entry.citation),
        format!("  source    {}", entry.source),
        format!("  files     {}", state(inspection.presence)),
    ];
    if let Some(summary) = &inspection.summary {
        if let Some(examples) = summary.train_examples {
            lines.push(format!("  training  {} examples", output::count(examples)));
        }
        if let Some(examples) = summary.test_examples {
            lines.push(format!("  test      {} examples", output::count(examples)));
        }
        if summary.natural_clients > 0 {
            let clients = output::count(summary.natural_clients);
            lines.push(format!("  natural   {clients} clients"));
        }
        lines.push(format!(
            "  memory    {}",
            output::bytes(summary.memory_bytes)
        ));
        if let Some(counts) = &inspection.label_counts {
            let names = summary.class_names.as_deref().unwrap_or_default();
            let classes: Vec<String> = counts
                .iter()
                .enumerate()
                .map(|(class, count)| match names.get(class) {
                    Some(name) => format!("{name} {}", output::count(*count)),
                    None => format!("{class}: {}", output::count(*count)),
                })
                .collect();
            lines.push(format!("  classes   {}", classes.join(", ")));
        }
    } else {
        lines.push(format!("  get it    fledgling data fetch {}", entry.name));
    }
    output::line(&lines.join("\n"))
}

fn inspect_experiment(path: &Path, json: bool) -> Result<(), Error> {
    #[derive(Serialize)]
    struct Line<'a> {
        variant: &'a str,
        dataset: &'a str,
        heterogeneity: &'a Heterogeneity,
    }
    let experiment = Experiment::from_file(path, &[])?;
    let mut cache = DataCache::default();
    for variant in &experiment.variants {
        let data = cache.load(variant)?;
        let heterogeneity = data.heterogeneity();
        if json {
            output::json(&Line {
                variant: &variant.name,
                dataset: data.name(),
                heterogeneity: &heterogeneity,
            })?;
            continue;
        }
        let sizes = &heterogeneity.sizes;
        let mut lines = vec![
            format!("{}: {}", variant.name, data.name()),
            format!(
                "  clients   {}{}",
                output::count(heterogeneity.clients),
                match heterogeneity.measured < heterogeneity.clients {
                    true => format!(" ({} measured)", output::count(heterogeneity.measured)),
                    false => String::new(),
                }
            ),
            format!(
                "  examples  {} to {} per client, median {}, quartiles {} and {}, Gini {:.3}",
                output::count(sizes.min),
                output::count(sizes.max),
                sizes.median,
                sizes.first_quartile,
                sizes.third_quartile,
                sizes.gini
            ),
        ];
        if let Some(labels) = &heterogeneity.labels {
            lines.push(format!(
                "  labels    {:.1} of {} classes per client, entropy {:.3} nats of {:.3}, earth mover's distance {:.3}",
                labels.mean_classes,
                labels.classes,
                labels.mean_entropy,
                labels.global_entropy,
                labels.mean_earth_mover
            ));
        }
        output::line(&lines.join("\n"))?;
    }
    Ok(())
}
