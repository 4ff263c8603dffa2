//! The two seams of the simulator: where clients' examples come from, and what trains them.
//!
//! [`fl_datasets::FederatedDataset`] is the population and an [`fl_edge::Model`] the model of
//! every shipped experiment. Another data source or another engine needs only these traits.

use std::sync::Arc;

use fl_core::{
    ClientId, Examples, Layout, LocalPlan, Mask, Parameters, ServedModel, Stream, TrainError,
    Trainer,
};
use fl_edge::Observed;
use fl_edge::quant::Probe;
use sha2::{Digest as _, Sha256};

use crate::config::CalibrationConfig;
use crate::fleet::{Costs, Fleet, FleetError};
use crate::pruning::Pruning;

/// A population of clients and their examples, materialised one client at a time.
pub trait Population: Send + Sync {
    /// Reusable memory into which a client's examples may be written; one per lane of a worker.
    type Scratch: Default + Send;
    /// A view of one client's examples.
    type Client<'a>: Examples
    where
        Self: 'a;

    /// Number of clients; their ids are `0 .. clients()`.
    fn clients(&self) -> u64;

    /// Number of training examples of `client`. Cheap.
    fn train_len(&self, client: ClientId) -> u64;

    /// The training examples of `client`.
    fn train<'a>(&'a self, client: ClientId, scratch: &'a mut Self::Scratch) -> Self::Client<'a>;

    /// The held-out examples of `client`, where the population has them.
    fn client_test<'a>(
        &'a self,
        client: ClientId,
        scratch: &'a mut Self::Scratch,
    ) -> Option<Self::Client<'a>>;

    /// The central test set.
    fn test(&self) -> Option<&dyn Examples>;

    /// A fingerprint of the data and of how they are divided.
    fn digest(&self) -> [u8; 32];
}

/// A model that can be trained: makes one trainer per worker.
pub trait Engine: Send + Sync {
    /// What trains.
    type Trainer: Trainer;

    /// A trainer for one worker thread.
    fn trainer(&self) -> Self::Trainer;

    /// Names and shapes of the parameters.
    fn layout(&self) -> &Arc<Layout>;

    /// The initial global parameters.
    fn init(&self, stream: &mut Stream) -> Parameters;

    /// A fingerprint of what teaches the model, and of what it teaches; none without a teacher. A
    /// run goes on only with the teacher that it began with.
    fn teacher(&self) -> Option<[u8; 32]> {
        None
    }

    /// A name for the arithmetic in use (e.g. `avx2`), for the checkpoint and the manifest.
    fn kernel(&self) -> String;

    /// Whether the model of `parameters` is to be calibrated before it is served in integers: it
    /// is, unless the parameters hold the ranges of its activations.
    fn needs_calibration(&self, parameters: &Parameters) -> bool {
        let _ = parameters;
        true
    }

    /// The model of `parameters`, for clients that calibrate it.
    ///
    /// # Errors
    /// [`TrainError`] when there is no such model; [`TrainError::Unsupported`] by default.
    fn probe(&self, parameters: &Parameters) -> Result<Probe, TrainError> {
        let _ = parameters;
        Err(TrainError::Unsupported {
            what: "federated calibration".to_owned(),
            instead: "choose evaluation.calibration.kind = \"central\"".to_owned(),
        })
    }

    /// The model of `parameters` as a device serves it in 8-bit integers, with ranges as
    /// `calibration` reads them from what was observed, unless the parameters hold them.
    ///
    /// # Errors
    /// [`TrainError`] when there is no such model; [`TrainError::Unsupported`] by default.
    fn serve_int8(
        &self,
        parameters: &Parameters,
        observed: Observed<'_>,
        calibration: &CalibrationConfig,
    ) -> Result<Box<dyn ServedModel>, TrainError> {
        let _ = (parameters, observed, calibration);
        Err(TrainError::Unsupported {
            what: "evaluation in int8".to_owned(),
            instead: "leave \"int8\" out of evaluation.precisions".to_owned(),
        })
    }

    /// What a plan costs on the devices of a fleet, no client of which has more than `most_examples`
    /// examples; none when the engine does not know, as by default.
    ///
    /// # Errors
    /// [`FleetError`] when a device class has no figures for it.
    fn costs(
        &self,
        fleet: &Fleet,
        plan: &LocalPlan,
        most_examples: u64,
    ) -> Result<Option<Costs>, FleetError> {
        let _ = (fleet, plan, most_examples);
        Ok(None)
    }

    /// How many of the parameters may be pruned; none by default.
    fn prunable(&self) -> usize {
        0
    }

    /// What is pruned of `parameters`, with all of `before`.
    ///
    /// # Errors
    /// [`TrainError::Unsupported`] by default.
    fn prune(
        &self,
        parameters: &Parameters,
        pruning: &Pruning,
        before: &Mask,
    ) -> Result<Mask, TrainError> {
        let _ = (parameters, pruning, before);
        Err(TrainError::Unsupported {
            what: "pruning".to_owned(),
            instead: "train without `pruning`".to_owned(),
        })
    }
}

impl Population for fl_datasets::FederatedDataset {
    type Scratch = fl_datasets::ClientScratch;
    type Client<'a> = fl_datasets::ClientExamples<'a>;

    fn clients(&self) -> u64 {
        self.clients()
    }

    fn train_len(&self, client: ClientId) -> u64 {
        self.train_len(client)
    }

    fn train<'a>(&'a self, client: ClientId, scratch: &'a mut Self::Scratch) -> Self::Client<'a> {
        self.train(client, scratch)
    }

    fn client_test<'a>(
        &'a self,
        client: ClientId,
        scratch: &'a mut Self::Scratch,
    ) -> Option<Self::Client<'a>> {
        self.client_test(client, scratch)
    }

    fn test(&self) -> Option<&dyn Examples> {
        self.test()
    }

    fn digest(&self) -> [u8; 32] {
        self.digest()
    }
}

impl Engine for Arc<fl_edge::Model> {
    type Trainer = fl_edge::EdgeTrainer;

    fn trainer(&self) -> Self::Trainer {
        fl_edge::EdgeTrainer::new(Arc::clone(self))
    }

    fn layout(&self) -> &Arc<Layout> {
        fl_edge::Model::layout(self)
    }

    fn init(&self, stream: &mut Stream) -> Parameters {
        fl_edge::Model::init(self, stream)
    }

    fn teacher(&self) -> Option<[u8; 32]> {
        let (teacher, options) = fl_edge::Model::teacher(self)?;
        let mut hash = Sha256::new();
        hash.update(teacher.digest());
        // Every bit of every option, and every name with its end.
        let mut numbers = vec![options.temperature, options.alpha];
        let mut names = Vec::new();
        for feature in &options.features {
            numbers.push(feature.weight);
            names.extend([Some(&feature.student), Some(&feature.teacher)]);
        }
        if let Some(relation) = &options.relation {
            numbers.extend([relation.distance, relation.angle]);
            names.extend([relation.student.as_ref(), relation.teacher.as_ref()]);
        }
        for name in &names {
            hash.update((name.map_or(u64::MAX, |name| name.len() as u64)).to_le_bytes());
            hash.update(name.map_or("", |name| name));
        }
        for number in &numbers {
            hash.update(number.to_bits().to_le_bytes());
        }
        hash.update((names.len() as u64).to_le_bytes());
        Some(hash.finalize().into())
    }

    fn kernel(&self) -> String {
        fl_edge::kernel::name().to_owned()
    }

    fn needs_calibration(&self, parameters: &Parameters) -> bool {
        fl_edge::needs_calibration(self, parameters.values())
    }

    fn probe(&self, parameters: &Parameters) -> Result<Probe, TrainError> {
        Probe::new(self, parameters.values()).map_err(|error| TrainError::Unsupported {
            what: format!("the calibration of this model: {error}"),
            instead: "leave \"int8\" out of evaluation.precisions".to_owned(),
        })
    }

    fn serve_int8(
        &self,
        parameters: &Parameters,
        observed: Observed<'_>,
        calibration: &CalibrationConfig,
    ) -> Result<Box<dyn ServedModel>, TrainError> {
        let CalibrationConfig {
            calibrator,
            granularity,
            ..
        } = *calibration;
        fl_edge::serve_int8(self, parameters.values(), observed, calibrator, granularity)
    }

    fn costs(
        &self,
        fleet: &Fleet,
        plan: &LocalPlan,
        most_examples: u64,
    ) -> Result<Option<Costs>, FleetError> {
        Costs::new(fleet, self, plan, most_examples).map(Some)
    }

    fn prunable(&self) -> usize {
        fl_edge::prune::prunable_values(self)
    }

    fn prune(
        &self,
        parameters: &Parameters,
        pruning: &Pruning,
        before: &Mask,
    ) -> Result<Mask, TrainError> {
        let mask = pruning.mask(self, parameters.values(), before);
        mask.map_err(|error| TrainError::Unsupported {
            what: format!("such a pruning: {error}"),
            instead: "change `pruning`".to_owned(),
        })
    }
}
