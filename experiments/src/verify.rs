//! Runs results again, from their manifest alone, and compares bit for bit.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use fl_core::Parameters;
use fl_sim::checkpoint::ServedFile;
use fl_sim::{
    ClientEvaluation, ClientPart, EvaluationRecord, Observer, Outcome, RoundRecord, Simulation,
};
use serde::Serialize;

use crate::config::{Experiment, TeacherSource};
use crate::error::Error;
use crate::results::{
    self, ClientRow, Difference, EvaluationRow, FaultsRow, FleetRow, GroupsRow, PatchRow,
    PrivacyRow, PruningRow, RegionsRow, Results, ResultsError, RolloutRow, RoundRow, Row,
    SecAggRow, Status, TensorRow, TimelineRow, VariantResults,
};
use crate::runner::{DataCache, Prepared, RunOptions};

/// How much is run again, and how.
#[derive(Clone, Copy, Debug, Default)]
pub struct VerifyOptions {
    /// Only the first so many rounds of each variant; 0 checks the files alone.
    pub rounds: Option<u64>,
    /// Worker threads; 0 for one per core.
    pub threads: usize,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The results.
    pub results: PathBuf,
    /// Whether nothing differs and no file is damaged.
    pub identical: bool,
    /// Files that are missing or are not what was written; when there are any, nothing is run.
    pub damaged: Vec<String>,
    /// The variants, in order, up to an interruption.
    pub variants: Vec<VariantReport>,
}

/// What came of one variant.
#[derive(Clone, Debug, Serialize)]
pub struct VariantReport {
    /// The variant.
    pub name: String,
    /// Rounds compared.
    pub rounds: u64,
    /// Evaluations compared.
    pub evaluations: u64,
    /// Clients of the last per-client evaluation compared.
    pub clients: u64,
    /// Whether the final model was reached and compared.
    pub model: bool,
    /// The first difference; `first` is the recorded value and `second` that of the repetition.
    pub difference: Option<Difference>,
}

/// Receives the progress: the variant, rounds done, rounds to do.
pub type Watch<'a> = dyn FnMut(&str, u64, u64) + 'a;

/// Verifies results, one after the other; the data of the last are kept for the next.
#[derive(Debug, Default)]
pub struct Verifier {
    options: VerifyOptions,
    cache: DataCache,
}

impl Verifier {
    /// One that has no data yet.
    #[must_use]
    pub fn new(options: VerifyOptions) -> Self {
        Self {
            options,
            cache: DataCache::default(),
        }
    }

    /// Checks the files of the results in `path`, runs every variant again and compares. `None` when
    /// `stop` was raised before the end.
    ///
    /// # Errors
    /// [`Error`] when there are no results, or the experiment can no longer be run.
    pub fn verify(
        &mut self,
        path: &Path,
        stop: &AtomicBool,
        watch: &mut Watch<'_>,
    ) -> Result<Option<Report>, Error> {
        // The folder of one variant stands for that variant of its results.
        let root = if path.join(results::MANIFEST).exists() {
            path
        } else {
            path.parent()
                .filter(|parent| parent.join(results::MANIFEST).exists())
                .unwrap_or(path)
        };
        let damaged: Vec<String> = results::damage(root)?
            .iter()
            .map(ResultsError::to_string)
            .collect();
        let mut report = Report {
            results: path.to_owned(),
            identical: false,
            damaged,
            variants: Vec::new(),
        };
        if !report.damaged.is_empty() {
            return Ok(Some(report));
        }
        let results = Results::load(path)?;
        for variant in &results.variants {
            if self.options.rounds == Some(0) {
                break;
            }
            let (options, cache) = (self.options, &mut self.cache);
            let Some(found) = verify_variant(&results, variant, options, cache, stop, watch)?
            else {
                return Ok(None);
            };
            report.variants.push(found);
        }
        report.identical = report
            .variants
            .iter()
            .all(|variant| variant.difference.is_none());
        Ok(Some(report))
    }
}

fn verify_variant(
    results: &Results,
    recorded: &VariantResults,
    options: VerifyOptions,
    cache: &mut DataCache,
    stop: &AtomicBool,
    watch: &mut Watch<'_>,
) -> Result<Option<VariantReport>, Error> {
    let manifest = &recorded.manifest;
    let source = results.path.join(results::MANIFEST).display().to_string();
    let mut variant = Experiment::from_table(&source, &manifest.config)?;
    variant.name.clone_from(&manifest.name);
    let source = variant.local.distillation.as_ref().map(|it| &it.teacher);
    if let Some(TeacherSource::Variant(teacher)) = source {
        variant.teacher = Some(results.model_path(&teacher.variant));
    }
    let prepared = Prepared::new(&variant, cache)?;
    let mut report = VariantReport {
        name: manifest.name.clone(),
        rounds: 0,
        evaluations: 0,
        clients: 0,
        model: false,
        difference: None,
    };
    let data = prepared.facts().dataset.digest;
    if data != manifest.dataset.digest {
        report.difference = Some(Difference {
            table: "data".to_owned(),
            round: None,
            client: None,
            column: "digest".to_owned(),
            first: manifest.dataset.digest.clone(),
            second: data,
        });
        return Ok(Some(report));
    }
    let teacher = prepared.teacher_digest();
    if teacher != manifest.teacher {
        let named = |digest: Option<String>| digest.unwrap_or_else(|| "none".to_owned());
        report.difference = Some(Difference {
            table: "teacher".to_owned(),
            round: None,
            client: None,
            column: "digest".to_owned(),
            first: named(manifest.teacher.clone()),
            second: named(teacher),
        });
        return Ok(Some(report));
    }
    let wanted = manifest.rounds_done.min(options.rounds.unwrap_or(u64::MAX));
    if wanted == 0 {
        return Ok(Some(report));
    }
    let mut simulation = Simulation::new(
        prepared.simulation(&RunOptions {
            threads: options.threads,
            checkpoint: None,
        }),
        prepared.data.clone(),
        prepared.model.clone(),
    )?;
    let enough = AtomicBool::new(false);
    let mut checker = Checker {
        recorded,
        wanted,
        enough: &enough,
        stop,
        watch,
        rounds: 0,
        evaluations: 0,
        clients: 0,
        parts: 0,
        tensors: 0,
        served: prepared.variant.rollout.as_ref().map(|_| Vec::new()),
        difference: None,
    };
    let outcome = simulation.run(&mut checker, &enough)?;
    if stop.load(Ordering::Relaxed) {
        return Ok(None);
    }
    let ended = !matches!(outcome, Outcome::Stopped { .. });
    checker.nothing_missing(ended);
    if manifest.status == Status::Finished && wanted == manifest.rounds_done {
        checker.rolled_out(&prepared)?;
    }
    report.rounds = checker.rounds;
    report.evaluations = checker.evaluations;
    report.clients = checker.clients;
    report.difference = checker.difference.take();
    if report.difference.is_none()
        && manifest.status == Status::Finished
        && wanted == manifest.rounds_done
    {
        // One that was left out when the results were locked is known by its digest.
        let path = results.model_path(&manifest.name);
        let model = path.exists().then(|| results::read_model(&path));
        let model = model.transpose()?;
        report.model = true;
        let student = prepared.student(simulation.parameters())?;
        let parameters = match &student {
            Some((_, parameters)) => parameters,
            None => simulation.parameters(),
        };
        let difference = model.and_then(|model| model_difference(&model, parameters));
        report.difference = difference.or_else(|| {
            let repeated = parameters.digest().to_string();
            let recorded = manifest.model_digest.clone().unwrap_or_default();
            (recorded != repeated).then(|| Difference {
                table: "model".to_owned(),
                round: None,
                client: None,
                column: "digest".to_owned(),
                first: recorded,
                second: repeated,
            })
        });
    }
    Ok(Some(report))
}

/// Compares what a repetition reports with what is recorded, and stops it at the first difference.
struct Checker<'a, 'w> {
    recorded: &'a VariantResults,
    wanted: u64,
    /// Raised when nothing more is to be compared.
    enough: &'a AtomicBool,
    /// Raised by the person at the terminal.
    stop: &'a AtomicBool,
    watch: &'a mut Watch<'w>,
    rounds: u64,
    evaluations: u64,
    clients: u64,
    parts: usize,
    tensors: usize,
    /// Files of the models that were evaluated, where they are rolled out.
    served: Option<Vec<ServedFile>>,
    difference: Option<Difference>,
}

impl Checker<'_, '_> {
    fn compare<R: Row>(&mut self, recorded: Option<&R>, repeated: &R, round: u64) {
        if self.difference.is_some() {
            return;
        }
        self.difference = match recorded {
            Some(recorded) => results::of_rows(recorded, repeated),
            None => Some(Difference {
                table: R::TABLE.to_owned(),
                round: Some(round),
                client: None,
                column: "the whole row".to_owned(),
                first: "nothing".to_owned(),
                second: "a row".to_owned(),
            }),
        };
        if self.difference.is_some() {
            self.enough.store(true, Ordering::Relaxed);
        }
    }

    /// Repeats the rollout, where there is one and all before it was the same.
    fn rolled_out(&mut self, prepared: &Prepared) -> Result<(), Error> {
        let Some(served) = self.served.take().filter(|_| self.difference.is_none()) else {
            return Ok(());
        };
        let recorded = &self.recorded.rollout;
        let repeated = prepared.rollout(&served)?;
        self.difference = results::of_tables(recorded, &repeated).or_else(|| {
            (recorded.len() != repeated.len()).then(|| Difference {
                table: RolloutRow::TABLE.to_owned(),
                round: None,
                client: None,
                column: "number of rows".to_owned(),
                first: recorded.len().to_string(),
                second: repeated.len().to_string(),
            })
        });
        Ok(())
    }

    /// Everything that is recorded of the rounds that were repeated must have come.
    fn nothing_missing(&mut self, ended: bool) {
        if self.difference.is_some() {
            return;
        }
        let wanted = self.wanted;
        let evaluations = self.recorded.evaluations.iter();
        let evaluations = evaluations.filter(|row| row.round <= wanted).count() as u64;
        let clients = match self.recorded.clients.first() {
            Some(first) if ended && first.round <= wanted => self.recorded.clients.len() as u64,
            _ => self.clients,
        };
        let tables = [
            (RoundRow::TABLE, wanted, self.rounds),
            (EvaluationRow::TABLE, evaluations, self.evaluations),
            (ClientRow::TABLE, clients, self.clients),
        ];
        self.difference = tables
            .into_iter()
            .find(|(_, recorded, repeated)| recorded != repeated)
            .map(|(table, recorded, repeated)| Difference {
                table: table.to_owned(),
                round: None,
                client: None,
                column: "number of rows".to_owned(),
                first: recorded.to_string(),
                second: repeated.to_string(),
            });
    }
}

impl Observer for Checker<'_, '_> {
    fn round(&mut self, record: &RoundRecord) {
        let row = RoundRow::from(record);
        let recorded = self.recorded;
        let index = usize::try_from(row.round).unwrap_or(usize::MAX);
        self.compare(recorded.rounds.get(index), &row, row.round);
        if let Some(private) = PrivacyRow::of(record) {
            self.compare(recorded.privacy.get(index), &private, row.round);
        }
        if let Some(groups) = GroupsRow::of(record) {
            self.compare(recorded.groups.get(index), &groups, row.round);
        }
        if let Some(pruning) = PruningRow::of(record) {
            self.compare(recorded.pruning.get(index), &pruning, row.round);
        }
        if let Some(fleet) = FleetRow::of(record) {
            self.compare(recorded.fleet.get(index), &fleet, row.round);
        }
        if let Some(regions) = RegionsRow::of(record) {
            self.compare(recorded.regions.get(index), &regions, row.round);
        }
        if let Some(faults) = FaultsRow::of(record) {
            self.compare(recorded.faults.get(index), &faults, row.round);
        }
        if let Some(secagg) = SecAggRow::of(record) {
            self.compare(recorded.secagg.get(index), &secagg, row.round);
        }
        self.rounds += 1;
        let done = row.round + 1;
        (self.watch)(&recorded.manifest.name, done, self.wanted);
        // The evaluation after the last round is waited for where there is one.
        let judged = recorded.evaluations.iter().any(|row| row.round == done);
        if (done >= self.wanted && !judged) || self.stop.load(Ordering::Relaxed) {
            self.enough.store(true, Ordering::Relaxed);
        }
    }

    fn moved(&mut self, round: u64, model: &Parameters) {
        let recorded = &self.recorded.tensors;
        if recorded.is_empty() || self.difference.is_some() {
            return;
        }
        for row in TensorRow::all_of(round, model) {
            let found = recorded.get(self.tensors);
            self.tensors += 1;
            let same = |found: &&TensorRow| found.round == round && found.tensor == row.tensor;
            let digest = found.filter(same).map(|found| found.digest.as_str());
            if digest != Some(row.digest.as_str()) {
                self.difference = Some(Difference {
                    table: "the global model".to_owned(),
                    round: Some(round),
                    client: None,
                    column: row.tensor,
                    first: digest.unwrap_or("nothing").to_owned(),
                    second: row.digest,
                });
                self.enough.store(true, Ordering::Relaxed);
                return;
            }
        }
    }

    fn took_part(&mut self, part: &ClientPart) {
        let row = TimelineRow::from(part);
        self.compare(self.recorded.timeline.get(self.parts), &row, row.round);
        self.parts += 1;
    }

    fn evaluated(&mut self, record: &EvaluationRecord) {
        let row = EvaluationRow::from(record);
        let recorded = self.recorded;
        // An interrupted run may have been stopped before its last evaluation.
        if recorded.manifest.status == Status::Stopped
            && recorded
                .evaluations
                .last()
                .is_none_or(|last| last.round < row.round)
        {
            return;
        }
        let index = usize::try_from(self.evaluations).unwrap_or(usize::MAX);
        self.compare(recorded.evaluations.get(index), &row, row.round);
        if let Some(patch) = PatchRow::of(record) {
            let mut patches = recorded.patches.iter();
            let found = patches.find(|found| found.round == patch.round);
            self.compare(found, &patch, patch.round);
        }
        self.evaluations += 1;
        if row.round >= self.wanted {
            self.enough.store(true, Ordering::Relaxed);
        }
    }

    fn served(&mut self, file: &ServedFile) {
        self.served
            .iter_mut()
            .for_each(|served| served.push(file.clone()));
    }

    fn client_evaluated(&mut self, record: &ClientEvaluation) {
        let row = ClientRow::from(record);
        let recorded = self.recorded;
        // Only the last evaluation of the clients is kept.
        if recorded
            .clients
            .first()
            .is_none_or(|first| first.round != row.round)
        {
            return;
        }
        let index = usize::try_from(self.clients).unwrap_or(usize::MAX);
        self.compare(recorded.clients.get(index), &row, row.round);
        self.clients += 1;
    }
}

/// The first value in which two models differ.
fn model_difference(first: &Parameters, second: &Parameters) -> Option<Difference> {
    if first.digest() == second.digest() {
        return None;
    }
    let difference = |column: String, first: String, second: String| {
        Some(Difference {
            table: "model".to_owned(),
            round: None,
            client: None,
            column,
            first,
            second,
        })
    };
    if first.layout() != second.layout() {
        let list = |model: &Parameters| {
            let tensors = model.layout().tensors().iter();
            let tensors = tensors.map(|tensor| format!("{} {:?}", tensor.name, tensor.shape));
            tensors.collect::<Vec<_>>().join(", ")
        };
        return difference("layout".to_owned(), list(first), list(second));
    }
    for tensor in first.layout().tensors() {
        for index in tensor.range() {
            let (a, b) = (first.values()[index], second.values()[index]);
            if a.to_bits() != b.to_bits() {
                return difference(
                    format!("{}[{}]", tensor.name, index - tensor.offset),
                    format!("{a:?}"),
                    format!("{b:?}"),
                );
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fl_core::Layout;

    use super::*;

    #[test]
    fn the_tensor_that_differs_is_named() {
        let layout =
            Arc::new(Layout::new([("a".to_owned(), vec![2]), ("b".to_owned(), vec![2])]).unwrap());
        let model = |values: [f32; 4]| Parameters::new(layout.clone(), values.to_vec()).unwrap();
        let first = model([1.0, 2.0, 3.0, 0.0]);
        assert_eq!(model_difference(&first, &first), None);
        assert_eq!(
            model_difference(&first, &model([1.0, 2.0, 3.0, -0.0]))
                .unwrap()
                .to_string(),
            "model, b[1]: 0.0 and -0.0"
        );
        let other = Layout::new([("a".to_owned(), vec![4])]).unwrap();
        let other = Parameters::new(Arc::new(other), vec![0.0; 4]).unwrap();
        assert_eq!(
            model_difference(&first, &other).unwrap().to_string(),
            "model, layout: a [2], b [2] and a [4]"
        );
    }
}
