//! Training in one place, shared by examples.

use std::error::Error;

use fl_core::{Examples, Optimizer, Seed, Stream};
use fl_datasets::partition::{Iid, PartitionConfig};
use fl_datasets::{DataRoot, DatasetConfig, FederatedDataset};
use fl_edge::{Session, Step};

/// Examples of a step.
pub(crate) const BATCH: usize = 64;

/// A data set whose training examples are all one client's.
pub(crate) fn whole(name: &str) -> Result<FederatedDataset, Box<dyn Error>> {
    let whole = PartitionConfig::Iid(Iid { clients: 1 });
    let config = DatasetConfig::new(name).with_partition(whole);
    Ok(fl_datasets::load(&config, &DataRoot::from_env()?, Seed(1))?)
}

/// So many steps of momentum SGD from `parameters`, the rate falling along a cosine.
pub(crate) fn train_on(
    session: &mut Session,
    parameters: &[f32],
    train: &dyn Examples,
    stream: &mut Stream,
    rate: f64,
    steps: u64,
) -> Result<(), Box<dyn Error>> {
    let optimizer = Optimizer::Sgd {
        momentum: 0.9,
        weight_decay: 0.0,
        nesterov: false,
    };
    session.start(parameters, &optimizer, BATCH);
    let mut rows = [0; BATCH];
    for number in 0..steps {
        for row in &mut rows {
            *row = stream.below(train.len() as u64) as u32;
        }
        let turn = std::f64::consts::PI * number as f64 / steps as f64;
        let step = Step {
            optimizer,
            rate: (rate * 0.5 * (1.0 + libm::cos(turn))) as f32,
            number,
            max_norm: None,
            proximal_mu: 0.0,
            anchor: &[],
        };
        session.step(train, &rows, &step, stream)?;
    }
    Ok(())
}
