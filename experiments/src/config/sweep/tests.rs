//! Axes, conditions, drawn settings, and what is refused.

use super::*;

const BASE: &str = r#"
name = "x"
rounds = 10
[dataset]
name = "digits"
partition = "iid"
[model]
kind = "logreg"
[local]
epochs = 2
batch = 10
learning_rate = 0.1
[selection]
cohort = 5
"#;

fn read(sweep: &str, sets: &[&str]) -> Result<SweepExperiment, ConfigErrors> {
    let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
    SweepExperiment::from_text("x.toml", &format!("{BASE}{sweep}"), &sets)
}

fn labels(sweep: &str, sets: &[&str]) -> Vec<String> {
    let experiment = read(sweep, sets).unwrap();
    experiment.cells.iter().map(SweepCell::label).collect()
}
