//! Runs from folders.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::axes::{self, in_order};
use super::{Analysis, AnalysisError, Axis, AxisValue, Figures, Group, Run};
use crate::results::{Results, VariantResults};
use crate::sweep::{CELLS, Plan};

/// See [`Analysis::load`].
pub(super) fn load(paths: &[PathBuf]) -> Result<Analysis, AnalysisError> {
    if let [path] = paths
        && let Some(plan) = Plan::read(path)?
    {
        return of_sweep(path, &plan);
    }
    let mut runs = Vec::new();
    let mut names = Vec::new();
    for path in paths {
        match Plan::read(path)? {
            Some(plan) => {
                let found = of_sweep(path, &plan)?;
                names.push(found.name);
                runs.extend(found.runs);
            }
            None => {
                let results = Results::load(path)?;
                names.push(results.manifest.name.clone());
                runs.extend(runs_of(results));
            }
        }
    }
    Ok(differing(names, runs))
}

/// Finds what runs differ in.
fn differing(mut names: Vec<String>, mut runs: Vec<Run>) -> Analysis {
    let configs: Vec<&toml::Table> = runs
        .iter()
        .map(|run| &run.results.manifest.config)
        .collect();
    let (axes, values) = axes::of(&configs);
    for (run, values) in runs.iter_mut().zip(values) {
        run.values = values;
    }
    names.dedup();
    let name = match names.as_slice() {
        [one] => one.clone(),
        _ => String::new(),
    };
    Analysis::new(name, axes, runs)
}

/// The runs of one folder's results.
fn runs_of(results: Results) -> impl Iterator<Item = Run> {
    let folder = results.path;
    results.variants.into_iter().map(move |variant| {
        let id = format!("{}/{}", folder.display(), variant.manifest.name);
        run(id, &folder, Vec::new(), variant)
    })
}

/// The cells of a sweep that have been run, with the axes of its plan.
fn of_sweep(path: &Path, plan: &Plan) -> Result<Analysis, AnalysisError> {
    let mut runs = Vec::new();
    for cell in &plan.cells {
        let folder = path.join(CELLS).join(cell.id.as_str());
        if !folder.join(crate::results::MANIFEST).exists() {
            continue;
        }
        let values = plan
            .axes
            .iter()
            .map(|axis| match cell.values.get(&axis.key) {
                Some(value) => AxisValue::of(value),
                None => AxisValue::Absent,
            })
            .collect();
        let variant = Results::load(&folder)?.variants.into_iter().next();
        runs.extend(variant.map(|variant| run(cell.id.to_string(), &folder, values, variant)));
    }
    if runs.is_empty() {
        return Err(AnalysisError::NothingRun {
            path: path.to_owned(),
        });
    }
    let axes = plan
        .axes
        .iter()
        .enumerate()
        .map(|(place, axis)| Axis {
            key: axis.key.clone(),
            values: in_order(runs.iter().filter_map(|run: &Run| run.values.get(place))),
        })
        .collect();
    Ok(Analysis::new(plan.name.clone(), axes, runs))
}

fn run(id: String, folder: &Path, values: Vec<AxisValue>, results: VariantResults) -> Run {
    Run {
        id,
        path: folder.to_owned(),
        values,
        seed: results.manifest.seed,
        figures: Figures::of(&results),
        results,
    }
}

impl Analysis {
    /// Of results that are at hand.
    pub(crate) fn of(results: &Results) -> Self {
        let names = vec![results.manifest.name.clone()];
        differing(names, runs_of(results.clone()).collect())
    }

    /// Groups runs whose values are known.
    pub(crate) fn new(name: String, axes: Vec<Axis>, runs: Vec<Run>) -> Self {
        let mut groups: Vec<Group> = Vec::new();
        let mut places: BTreeMap<&[AxisValue], usize> = BTreeMap::new();
        for (index, run) in runs.iter().enumerate() {
            let place = *places.entry(&run.values).or_insert(groups.len());
            match groups.get_mut(place) {
                Some(group) => group.runs.push(index),
                None => groups.push(Group {
                    values: run.values.clone(),
                    runs: vec![index],
                }),
            }
        }
        drop(places);
        Self {
            name,
            axes,
            runs,
            groups,
        }
    }
}
