//! Subcommand `compare`.

use std::path::PathBuf;

use super::{Exit, output};
use crate::compare::{Comparison, Pair, compare};
use crate::error::Error;
use crate::results::Results;

/// Arguments of `compare`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The first folder of results, or of one variant within them (results/NAME/VARIANT)
    a: PathBuf,
    /// The second
    b: PathBuf,
    /// Count the rounds to this accuracy, in per cent [default: what both reach]
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    target: Option<f64>,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

fn percent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').trim_end().parse::<f64>() {
        Ok(value) if (0.0..=100.0).contains(&value) => Ok(value),
        _ => Err("expected a number of per cent from 0 to 100".to_owned()),
    }
}

/// Sets two results side by side.
///
/// # Errors
/// [`Error::Results`].
pub fn run(args: &Args) -> Result<Exit, Error> {
    let a = Results::load(&args.a)?;
    let b = Results::load(&args.b)?;
    let comparison = compare(&a, &b, args.target.map(|percent| percent / 100.0));
    if args.json {
        output::json(&comparison)?;
    } else {
        explain(&comparison, args)?;
    }
    Ok(Exit::Done)
}

fn explain(comparison: &Comparison, args: &Args) -> Result<(), Error> {
    let (a, b) = (args.a.display().to_string(), args.b.display().to_string());
    for pair in &comparison.pairs {
        output::line(&output::table(&[&title(pair), &a, &b], &rows(pair)))?;
        output::line(&verdict(pair))?;
    }
    if comparison.pairs.is_empty() {
        output::line("no variant is in both")?;
    }
    for (names, place) in [(&comparison.only_a, &a), (&comparison.only_b, &b)] {
        if !names.is_empty() {
            output::line(&format!("only in {place}: {}", names.join(", ")))?;
        }
    }
    Ok(())
}

fn title(pair: &Pair) -> String {
    if pair.a.name == pair.b.name {
        pair.a.name.clone()
    } else {
        format!("{} | {}", pair.a.name, pair.b.name)
    }
}

fn rows(pair: &Pair) -> Vec<Vec<String>> {
    let dash = || "-".to_owned();
    let mut rows: Vec<Vec<String>> = pair
        .config
        .iter()
        .map(|key| {
            vec![
                key.key.clone(),
                key.a.clone().unwrap_or_else(dash),
                key.b.clone().unwrap_or_else(dash),
            ]
        })
        .collect();
    let mut add = |name: &str, values: [Option<String>; 2]| {
        if values.iter().any(Option::is_some) {
            let [a, b] = values.map(|value| value.unwrap_or_else(dash));
            rows.push(vec![name.to_owned(), a, b]);
        }
    };
    let both = [&pair.a, &pair.b];
    add("rounds", both.map(|side| Some(output::count(side.rounds))));
    add(
        "final accuracy",
        both.map(|side| {
            side.final_accuracy
                .map(|accuracy| format!("{:.2} %", accuracy * 100.0))
        }),
    );
    add(
        "final loss",
        both.map(|side| side.final_loss.map(|loss| format!("{loss:.4}"))),
    );
    if let Some(target) = pair.target_accuracy {
        add(
            &format!("rounds to {:.1} %", target * 100.0),
            pair.rounds_to_target
                .map(|rounds| rounds.map(output::count)),
        );
    }
    add(
        "time per round",
        both.map(|side| side.seconds_per_round.map(output::seconds)),
    );
    add(
        "examples per second",
        both.map(|side| {
            side.examples_per_second
                .map(|rate| output::count(rate as u64))
        }),
    );
    add(
        "model",
        both.map(|side| {
            let digest = side.model_digest.as_ref();
            digest.map(|digest| digest.chars().take(12).collect())
        }),
    );
    rows
}

fn verdict(pair: &Pair) -> String {
    let mut text = String::new();
    if !pair.same_data {
        text.push_str("the data differ\n");
    }
    text.push_str(&match (&pair.first_difference, pair.same_model) {
        (Some(difference), _) => format!("the records part at {difference}"),
        (None, Some(true)) => "records and models are the same, bit for bit".to_owned(),
        (None, Some(false)) => {
            "the records are the same as far as both go; the models differ".to_owned()
        }
        (None, None) => "the records are the same as far as both go".to_owned(),
    });
    text
}
