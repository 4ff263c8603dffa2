//! Examples of the catalogue, as a model is calibrated and judged on.

use fl_core::{ClientId, Seed};
use fl_datasets::partition::Iid;
use fl_datasets::{
    ClientExamples, ClientScratch, DataRoot, DatasetConfig, FederatedDataset, PartitionConfig,
};
use fl_edge::quant::Samples;
use fl_edge::{Model, Program};

use super::{ModelError, input_text, target_text};
use crate::error::Error;

/// A data set that fits a model.
pub(super) struct Data {
    dataset: FederatedDataset,
}

impl Data {
    /// The data set called `name`, undivided.
    pub(super) fn load(name: &str, model: &Model) -> Result<Self, Error> {
        let root = DataRoot::from_env()?;
        // One client has all training examples; generated populations divide themselves.
        let config = DatasetConfig::new(name);
        let whole = PartitionConfig::Iid(Iid { clients: 1 });
        let one = config.clone().with_partition(whole);
        let dataset = fl_datasets::load(&one, &root, Seed(1))
            .or_else(|error| fl_datasets::load(&config, &root, Seed(1)).map_err(|_| error))?;
        if dataset.input() != model.input() || dataset.target() != model.target() {
            return Err(ModelError::Data {
                data: name.to_owned(),
                found: input_text(dataset.input()),
                found_target: target_text(dataset.target()),
                expected: input_text(model.input()),
                expected_target: target_text(model.target()),
            }
            .into());
        }
        Ok(Self { dataset })
    }

    /// The training examples.
    pub(super) fn train<'a>(&'a self, scratch: &'a mut ClientScratch) -> ClientExamples<'a> {
        self.dataset.train(ClientId(0), scratch)
    }

    /// Share of the test set's examples that a program puts into their class; none without a test
    /// set or without classes.
    pub(super) fn accuracy(&self, program: Program) -> Result<Option<f64>, ModelError> {
        let Some(test) = self.dataset.test().filter(|test| !test.is_empty()) else {
            return Ok(None);
        };
        let samples = Samples::all(program.model(), test)?;
        Ok(samples.accuracy(program)?)
    }
}
