//! Training in one place, shared by examples.

use std::error::Error;
use std::sync::Arc;

use fl_core::{ClientId, Examples, Optimizer, Purpose, RoundId, Seed, Stream};
use fl_datasets::partition::{Iid, PartitionConfig};
use fl_datasets::{DataRoot, DatasetConfig, FederatedDataset};
use fl_edge::kernel::Kernels;
use fl_edge::quant::Samples;
use fl_edge::{Model, Numerics, Passes, Program, Session, Step};

/// Examples of a step.
pub(crate) const BATCH: usize = 64;

/// A data set whose training examples are all one client's.
pub(crate) fn whole(name: &str) -> Result<FederatedDataset, Box<dyn Error>> {
    let whole = PartitionConfig::Iid(Iid { clients: 1 });
    let config = DatasetConfig::new(name).with_partition(whole);
    Ok(fl_datasets::load(&config, &DataRoot::from_env()?, Seed(1))?)
}

/// What so many steps make of the model that a seed starts with, and the seed's stream after them.
pub(crate) fn trained(
    model: &Arc<Model>,
    train: &dyn Examples,
    seed: u64,
    rate: f64,
    steps: u64,
) -> Result<(Vec<f32>, Stream), Box<dyn Error>> {
    let mut stream = Stream::at(Purpose::ModelInit, Seed(seed), RoundId(0), ClientId(0));
    let parameters = model.init(&mut stream);
    let mut session = Session::new(Arc::clone(model), Kernels::best());
    train_on(
        &mut session,
        parameters.values(),
        train,
        &mut stream,
        rate,
        steps,
    )?;
    Ok((session.weights().to_vec(), stream))
}

/// Accuracy of a model as it is served, in per cent.
pub(crate) fn percent(
    judged: &Samples<'_>,
    model: &Arc<Model>,
    parameters: &[f32],
    numerics: &Numerics,
) -> Result<f64, Box<dyn Error>> {
    let program = Program::compile(model, parameters, numerics, Passes::ALL)?;
    let share = judged
        .accuracy(program)?
        .ok_or("the data have no classes")?;
    Ok(100.0 * share)
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
