//! Results read back from their folder, every file checked against the manifest.

use std::path::{Path, PathBuf};

use super::atomic;
use super::error::ResultsError;
use super::frozen::Frozen;
use super::manifest::{self, HOST, Host, HostFacts, MANIFEST, Manifest, VariantManifest};
use super::model;
use super::row::{
    ClientRow, EvaluationRow, FaultsRow, FleetRow, GroupsRow, PartitionRow, PatchRow, PrivacyRow,
    PruningRow, RegionsRow, RolloutRow, RoundRow, Row, SecAggRow, TensorRow, TimelineRow,
    TimingRow,
};
use super::table;

/// The results of an experiment.
#[derive(Clone, Debug)]
pub struct Results {
    /// Their folder.
    pub path: PathBuf,
    /// What was run and what came out.
    pub manifest: Manifest,
    /// Where and how, when it is known.
    pub host: Option<HostFacts>,
    /// The variants, in the experiment's order.
    pub variants: Vec<VariantResults>,
}

/// The results of one variant.
#[derive(Clone, Debug)]
pub struct VariantResults {
    /// What was run.
    pub manifest: VariantManifest,
    /// One row per round.
    pub rounds: Vec<RoundRow>,
    /// One row per evaluation.
    pub evaluations: Vec<EvaluationRow>,
    /// The last per-client evaluation.
    pub clients: Vec<ClientRow>,
    /// Classes of a sample of the clients.
    pub partition: Vec<PartitionRow>,
    /// One row per round of a private run.
    pub privacy: Vec<PrivacyRow>,
    /// One per round with secure aggregation, in order; none without it.
    pub secagg: Vec<SecAggRow>,
    /// One per round whose group means were combined, in order; none without a robust mean.
    pub groups: Vec<GroupsRow>,
    /// One per evaluation but the first, where patches were weighed.
    pub patches: Vec<PatchRow>,
    /// One per round, in order; none without pruning.
    pub pruning: Vec<PruningRow>,
    /// One per round, in order; none where the fleet has no devices.
    pub fleet: Vec<FleetRow>,
    /// One per client and round; only where asked for.
    pub timeline: Vec<TimelineRow>,
    /// One per day and version, in order; none without a rollout.
    pub rollout: Vec<RolloutRow>,
    /// One per round, in order; none without regions.
    pub regions: Vec<RegionsRow>,
    /// One per round, in order; none without faults.
    pub faults: Vec<FaultsRow>,
    /// One per round and tensor of the global model, in order; none in results of programs before
    /// there was such a table.
    pub tensors: Vec<TensorRow>,
    /// Wall-clock times.
    pub timing: Vec<TimingRow>,
}

/// The figures that sum up a variant.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Summary {
    /// The variant.
    pub name: String,
    /// Rounds recorded.
    pub rounds: u64,
    /// Median wall-clock seconds of a round, after two warm-up rounds where there are more.
    pub seconds_per_round: Option<f64>,
    /// Examples processed per wall-clock second over the same rounds.
    pub examples_per_second: Option<f64>,
    /// Test loss at the last evaluation; the training loss where there is no test set.
    pub final_loss: Option<f64>,
    /// Test accuracy at the last evaluation; the training accuracy where there is no test set.
    pub final_accuracy: Option<f64>,
    /// Test accuracy at the last evaluation of the model served in int8, where it was measured.
    pub final_accuracy_int8: Option<f64>,
    /// Size of the last patch between int8 models, as a share of the whole file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch_share: Option<f64>,
    /// Upper bound of epsilon, of a private run: for the released models or, where clients add noise
    /// against it, for the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epsilon: Option<f64>,
    /// The same for whoever sees who takes part in each round.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epsilon_unamplified: Option<f64>,
    /// Their delta.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta: Option<f64>,
    /// Whether epsilon is that of a larger deployment than the simulated one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hypothetical: Option<bool>,
    /// Rounds given up because a session of secure aggregation failed, or too few groups of a robust
    /// mean were left, where there is either.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_rounds: Option<u64>,
    /// Pairs of released sums of nearly the same clients, with secure aggregation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub close_pairs: Option<u64>,
    /// What makes the model another one than its neighbours', whoever adds: an arithmetic of training
    /// other than "f32", bits or range of the sum, a robust mean. Empty where all is as ever.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub arithmetic: Vec<String>,
    /// Digest of the final model; when finished.
    pub model_digest: Option<String>,
}

impl Results {
    /// Reads the results in `path`. Every file that is read is checked against the manifest.
    ///
    /// `path` may also be the folder of one variant within the results; then only that variant
    /// is kept.
    ///
    /// # Errors
    /// [`ResultsError`] when there are none, or a file is missing or damaged.
    pub fn load(path: &Path) -> Result<Self, ResultsError> {
        if path.join(MANIFEST).exists() {
            return Self::load_folder(path);
        }
        // RESULTS/VARIANT names one variant.
        match (
            path.parent(),
            path.file_name().and_then(|name| name.to_str()),
        ) {
            (Some(parent), Some(variant)) if parent.join(MANIFEST).exists() => {
                let mut results = Self::load_folder(parent)?;
                let known = results.names();
                results
                    .variants
                    .retain(|found| found.manifest.name == variant);
                if results.variants.is_empty() {
                    return Err(ResultsError::NoVariant {
                        path: parent.to_owned(),
                        variant: variant.to_owned(),
                        known,
                    });
                }
                Ok(results)
            }
            _ => Err(ResultsError::NoResults {
                path: path.to_owned(),
            }),
        }
    }

    fn load_folder(path: &Path) -> Result<Self, ResultsError> {
        let Some(manifest) = manifest::read::<Manifest>(&path.join(MANIFEST))? else {
            return Err(ResultsError::NoResults {
                path: path.to_owned(),
            });
        };
        let host: Option<Host> = manifest::read(&path.join(HOST))?;
        let rounds = read_checked::<RoundRow>(path, &manifest)?;
        let evaluations = read_checked::<EvaluationRow>(path, &manifest)?;
        let clients = read_checked::<ClientRow>(path, &manifest)?;
        let partition = read_checked::<PartitionRow>(path, &manifest)?;
        // Only there when a variant is private.
        let privacy = match manifest.files.contains_key("privacy.parquet") {
            true => read_checked::<PrivacyRow>(path, &manifest)?,
            false => Vec::new(),
        };
        let secagg = match manifest.files.contains_key("secagg.parquet") {
            true => read_checked::<SecAggRow>(path, &manifest)?,
            false => Vec::new(),
        };
        let groups = match manifest.files.contains_key("groups.parquet") {
            true => read_checked::<GroupsRow>(path, &manifest)?,
            false => Vec::new(),
        };
        let patches = match manifest.files.contains_key("patches.parquet") {
            true => read_checked::<PatchRow>(path, &manifest)?,
            false => Vec::new(),
        };
        let pruning = match manifest.files.contains_key("pruning.parquet") {
            true => read_checked::<PruningRow>(path, &manifest)?,
            false => Vec::new(),
        };
        let fleet = match manifest.files.contains_key("fleet.parquet") {
            true => read_checked::<FleetRow>(path, &manifest)?,
            false => Vec::new(),
        };
        let timeline = match manifest.files.contains_key("timeline.parquet") {
            true => read_checked::<TimelineRow>(path, &manifest)?,
            false => Vec::new(),
        };
        let rollout = match manifest.files.contains_key("rollout.parquet") {
            true => read_checked::<RolloutRow>(path, &manifest)?,
            false => Vec::new(),
        };
        let regions = match manifest.files.contains_key("regions.parquet") {
            true => read_checked::<RegionsRow>(path, &manifest)?,
            false => Vec::new(),
        };
        let faults = match manifest.files.contains_key("faults.parquet") {
            true => read_checked::<FaultsRow>(path, &manifest)?,
            false => Vec::new(),
        };
        let tensors = match manifest.files.contains_key("tensors.parquet") {
            true => read_checked::<TensorRow>(path, &manifest)?,
            false => Vec::new(),
        };
        let timing = match &host {
            Some(_) => table::read::<TimingRow>(path)?,
            None => Vec::new(),
        };
        let variants = manifest
            .variants
            .iter()
            .map(|variant| VariantResults {
                rounds: of(&rounds, &variant.name),
                evaluations: of(&evaluations, &variant.name),
                clients: of(&clients, &variant.name),
                partition: of(&partition, &variant.name),
                privacy: of(&privacy, &variant.name),
                secagg: of(&secagg, &variant.name),
                groups: of(&groups, &variant.name),
                patches: of(&patches, &variant.name),
                pruning: of(&pruning, &variant.name),
                fleet: of(&fleet, &variant.name),
                timeline: of(&timeline, &variant.name),
                rollout: of(&rollout, &variant.name),
                regions: of(&regions, &variant.name),
                faults: of(&faults, &variant.name),
                tensors: of(&tensors, &variant.name),
                timing: of(&timing, &variant.name),
                manifest: variant.clone(),
            })
            .collect();
        Ok(Self {
            path: path.to_owned(),
            manifest,
            host: host.map(|host| host.host),
            variants,
        })
    }

    /// Names of the variants, in order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.variants
            .iter()
            .map(|variant| variant.manifest.name.clone())
            .collect()
    }

    /// The variant called `name`.
    #[must_use]
    pub fn variant(&self, name: &str) -> Option<&VariantResults> {
        self.variants
            .iter()
            .find(|variant| variant.manifest.name == name)
    }

    /// Where a variant's model lies.
    #[must_use]
    pub fn model_path(&self, variant: &str) -> PathBuf {
        self.path.join(variant).join(model::FILE)
    }
}

impl VariantResults {
    /// The figures that sum it up.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let last = self.evaluations.last();
        let private = self.privacy.last();
        let (seconds_per_round, examples_per_second) = self.speed().unzip();
        Summary {
            name: self.manifest.name.clone(),
            rounds: self.manifest.rounds_done,
            seconds_per_round,
            examples_per_second,
            final_loss: last.and_then(|row| row.test_loss.or(row.train_loss)),
            final_accuracy: last.and_then(|row| row.test_accuracy.or(row.train_accuracy)),
            final_accuracy_int8: last.and_then(|row| row.test_accuracy_int8),
            patch_share: self.patches.last().map(PatchRow::share),
            epsilon: private.map(PrivacyRow::budgeted),
            epsilon_unamplified: private.map(|row| row.epsilon_unamplified),
            delta: private.map(|row| row.delta),
            hypothetical: private.map(PrivacyRow::is_hypothetical),
            failed_rounds: self.failed_rounds(),
            close_pairs: self.with_secagg(|row| row.close_pairs),
            arithmetic: arithmetic(&self.manifest.config),
            model_digest: self.manifest.model_digest.clone(),
        }
    }

    /// Rounds without a sum, or with too few groups; none without secure aggregation and groups.
    fn failed_rounds(&self) -> Option<u64> {
        if self.secagg.is_empty() && self.groups.is_empty() {
            return None;
        }
        // Every round has its row in the tables that there are.
        let failed = |index: usize| match (self.groups.get(index), self.regions.get(index)) {
            (Some(groups), _) => groups.combined == 0,
            // A session that fails is a region's.
            (None, Some(regions)) => regions.summed == 0,
            (None, None) => self.secagg.get(index).is_some_and(|row| row.failed > 0),
        };
        let rounds = self.secagg.len().max(self.groups.len());
        Some((0..rounds).filter(|&index| failed(index)).count() as u64)
    }

    /// A figure of secure aggregation, added up; none without it.
    fn with_secagg(&self, figure: fn(&SecAggRow) -> u64) -> Option<u64> {
        let sum = self.secagg.iter().map(figure).sum();
        (!self.secagg.is_empty()).then_some(sum)
    }

    /// Median seconds per round and examples per second, without the first two rounds.
    fn speed(&self) -> Option<(f64, f64)> {
        let seconds: Vec<f64> = self
            .timing
            .iter()
            .filter(|row| row.what == "round")
            .map(|row| row.seconds)
            .collect();
        let warm_up = if seconds.len() > 2 { 2 } else { 0 };
        let mut warm = seconds.get(warm_up..)?.to_vec();
        let total: f64 = warm.iter().sum();
        let examples: u64 = self
            .rounds
            .iter()
            .skip(warm_up)
            .map(|row| row.examples_processed)
            .sum();
        warm.sort_by(f64::total_cmp);
        let middle = warm.len() / 2;
        let upper = *warm.get(middle)?;
        let median = if warm.len() % 2 == 0 {
            (warm[middle - 1] + upper) / 2.0
        } else {
            upper
        };
        Some((median, examples as f64 / total))
    }
}

fn of<R: Row + Clone>(rows: &[(String, R)], variant: &str) -> Vec<R> {
    rows.iter()
        .filter(|(name, _)| name == variant)
        .map(|(_, row)| row.clone())
        .collect()
}

fn read_checked<R: Row>(
    path: &Path,
    manifest: &Manifest,
) -> Result<Vec<(String, R)>, ResultsError> {
    let file = table::path_of::<R>(path);
    let name = format!("{}.parquet", R::TABLE);
    let Some(expected) = manifest.files.get(&name) else {
        return Err(ResultsError::damaged(
            &path.join(MANIFEST),
            format!("it has no checksum of `{name}`"),
        ));
    };
    let found = atomic::digest_of(&file)?;
    if found != *expected {
        return Err(mismatch(&file, expected.bytes, found.bytes));
    }
    table::read(path)
}

fn mismatch(path: &Path, expected: u64, found: u64) -> ResultsError {
    ResultsError::damaged(
        path,
        if expected == found {
            "its SHA-256 is not the one in the manifest".to_owned()
        } else {
            format!("it has {found} bytes where the manifest has {expected}")
        },
    )
}

fn missing(path: &Path) -> ResultsError {
    ResultsError::read(path, std::io::ErrorKind::NotFound.into())
}

/// Every file of the results that is missing or is not what was written: manifest, host facts,
/// tables, models and plots. Models that were left out when the results were locked may be missing.
///
/// # Errors
/// [`ResultsError::NoResults`] when there is no manifest at all.
pub fn damage(path: &Path) -> Result<Vec<ResultsError>, ResultsError> {
    let manifest: Manifest = match manifest::read(&path.join(MANIFEST)) {
        Ok(Some(manifest)) => manifest,
        Ok(None) => {
            return Err(ResultsError::NoResults {
                path: path.to_owned(),
            });
        }
        Err(error) => return Ok(vec![error]),
    };
    let mut found = Vec::new();
    let mut check = |file: PathBuf, bytes: u64, sha256: &str| match atomic::digest_of(&file) {
        Ok(digest) if digest.bytes == bytes && digest.sha256 == sha256 => {}
        Ok(digest) => found.push(mismatch(&file, bytes, digest.bytes)),
        Err(error) => found.push(error),
    };
    let lock = match Frozen::over(path) {
        Ok(lock) => lock,
        Err(error) => return Ok(vec![error]),
    };
    for (name, digest) in &manifest.files {
        let file = path.join(name);
        let lacks = |(place, lock): &(PathBuf, Frozen)| lock.lacks(place, &file, digest);
        if !lock.as_ref().is_some_and(lacks) {
            check(file, digest.bytes, &digest.sha256);
        }
    }
    match manifest::read::<Host>(&path.join(HOST)) {
        Ok(Some(host)) => {
            for (name, digest) in &host.files {
                check(path.join(name), digest.bytes, &digest.sha256);
            }
        }
        Ok(None) => found.push(missing(&path.join(HOST))),
        Err(error) => found.push(error),
    }
    let plots = path.join(super::PLOTS);
    if plots.is_dir() {
        match manifest::read::<super::plots::Drawn>(&plots.join(super::plots::LIST)) {
            Ok(Some(drawn)) => {
                for (name, digest) in drawn.files {
                    match atomic::digest_of(&plots.join(&name)) {
                        Ok(there) if there == digest => {}
                        Ok(there) => {
                            found.push(mismatch(&plots.join(&name), digest.bytes, there.bytes));
                        }
                        Err(error) => found.push(error),
                    }
                }
            }
            Ok(None) => found.push(missing(&plots.join(super::plots::LIST))),
            Err(error) => found.push(error),
        }
    }
    // A file that two lists vouch for is told once.
    if let Some((place, lock)) = &lock
        && place == path
        && found.is_empty()
    {
        found.extend(lock.differences(path)?);
    }
    Ok(found)
}

/// See [`Summary::arithmetic`].
fn arithmetic(config: &toml::Table) -> Vec<String> {
    let key = |table: &str, key: &str| config.get(table)?.as_table()?.get(key).cloned();
    let text = |value: toml::Value| value.as_str().map(str::to_owned);
    let mut marks = Vec::new();
    marks.extend(
        key("local", "precision")
            .and_then(text)
            .filter(|name| name != "f32"),
    );
    let bits = key("aggregation", "bits").and_then(|bits| bits.as_integer());
    marks.extend(bits.map(|bits| format!("{bits} bits")));
    let range = key("aggregation", "range").and_then(|range| range.as_float());
    marks.extend(range.map(|range| format!("±{range}")));
    marks.extend(key("secagg", "robust").and_then(text));
    let pruned = key("pruning", "sparsity").and_then(|share| share.as_float());
    marks.extend(pruned.map(|share| format!("{} % pruned", (1000.0 * share).round() / 10.0)));
    marks.extend(
        key("pruning", "kind")
            .and_then(text)
            .filter(|kind| kind != "magnitude"),
    );
    marks
}
