//! What a global model is calibrated on before it is judged in int8.
//!
//! **In one place**: training examples, drawn once for the whole run from a
//! [`Purpose::Calibration`] stream: for each a client, uniformly over the population, and one of
//! its examples. They stand for the unlabelled examples that an operator would calibrate on;
//! their targets are never read.
//!
//! **By clients**: each evaluation asks some clients, drawn from the stream of its round. A client
//! runs the model in `f32` on at most so many of its training examples, evenly spread over them,
//! and sends how many values fell into which bin ([`fl_edge::quant::federated`]); counts are added
//! in the same exact ring as updates, so that neither threads nor order change a bit. Every client
//! that is asked answers. One without examples sends zeros; one that computes a value that is not
//! finite is left out whole.

use std::sync::atomic::AtomicBool;

use fl_core::{
    ClientId, Examples, InputSpec, InputsMut, Parameters, Purpose, RoundId, Seed, Stream,
    TargetSpec, TargetsMut,
};
use fl_edge::quant::federated::{Bins, Histograms};

use crate::error::SimError;
use crate::evaluate::some;
use crate::executor::{Asked, Executor, Halt};
use crate::population::{Engine, Population};

/// The clients' part in federated calibration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Federation {
    /// Clients that are asked.
    pub(crate) clients: u64,
    /// Examples of each at most.
    pub(crate) samples: u64,
    pub(crate) bins: Bins,
    pub(crate) seed: Seed,
    /// Rounds that the model has seen.
    pub(crate) round: RoundId,
}

impl Federation {
    /// The sum of the counts that the clients of this evaluation send; empty when no client saw a
    /// finite value.
    pub(crate) fn count<P: Population, E: Engine>(
        self,
        executor: &Executor<P, E>,
        population: &P,
        engine: &E,
        parameters: &Parameters,
        stop: &AtomicBool,
    ) -> Result<Histograms, Halt> {
        let round = self.round;
        let stream = Stream::at(Purpose::Calibration, self.seed, round, ClientId(0));
        let clients = some(self.clients, stream, round, population.clients())?;
        let probe = engine.probe(parameters);
        let mut probe = probe.map_err(|source| SimError::Quantize { round, source })?;
        let asked = Asked {
            clients: &clients,
            samples: usize::try_from(self.samples).unwrap_or(usize::MAX),
            empty: &probe.histograms(self.bins),
            round,
        };
        let counted = executor.count(population, &probe, asked, stop)?;
        Ok(counted.ok_or(SimError::NoCalibration)?)
    }
}

/// Inputs of a few clients' examples, kept in memory.
#[derive(Debug)]
pub(crate) struct Drawn {
    input: InputSpec,
    target: TargetSpec,
    len: usize,
    reals: Vec<f32>,
    tokens: Vec<u32>,
}

impl Drawn {
    /// Draws the examples; none when no client that was drawn has any.
    pub(crate) fn draw<P: Population>(population: &P, seed: Seed, samples: u64) -> Option<Self> {
        let mut stream = Stream::at(Purpose::Calibration, seed, RoundId(0), ClientId(0));
        let mut scratch = P::Scratch::default();
        let mut drawn: Option<Self> = None;
        for _ in 0..samples {
            let client = ClientId(stream.below(population.clients().max(1)));
            let data = population.train(client, &mut scratch);
            if data.is_empty() {
                continue;
            }
            let row = stream.below(data.len() as u64) as u32;
            let drawn = drawn.get_or_insert_with(|| Self {
                input: data.input().clone(),
                target: data.target(),
                len: 0,
                reals: Vec::new(),
                tokens: Vec::new(),
            });
            drawn.push(&data, row);
        }
        drawn
    }

    fn push(&mut self, data: &impl Examples, row: u32) {
        let width = self.input.len();
        let (mut classes, mut real) = (vec![0u32; self.target.labels()], Vec::new());
        let targets = match self.target {
            TargetSpec::Class { .. } | TargetSpec::Sequence { .. } => {
                TargetsMut::Classes(&mut classes)
            }
            TargetSpec::Real { width } => {
                real.resize(width, 0.0);
                TargetsMut::Real(&mut real)
            }
        };
        let inputs = match self.input {
            InputSpec::Real(_) => {
                self.reals.resize((self.len + 1) * width, 0.0);
                InputsMut::Real(&mut self.reals[self.len * width..])
            }
            InputSpec::Tokens { .. } => {
                self.tokens.resize((self.len + 1) * width, 0);
                InputsMut::Tokens(&mut self.tokens[self.len * width..])
            }
        };
        data.fill(&[row], inputs, targets);
        self.len += 1;
    }
}

impl Examples for Drawn {
    fn len(&self) -> usize {
        self.len
    }

    fn input(&self) -> &InputSpec {
        &self.input
    }

    fn target(&self) -> TargetSpec {
        self.target
    }

    fn fill(&self, rows: &[u32], inputs: InputsMut<'_>, targets: TargetsMut<'_>) {
        let width = self.input.len();
        match inputs {
            InputsMut::Real(to) => copy(rows, width, &self.reals, to),
            InputsMut::Tokens(to) => copy(rows, width, &self.tokens, to),
        }
        match targets {
            TargetsMut::Classes(to) => to.fill(0),
            TargetsMut::Real(to) => to.fill(0.0),
        }
    }

    fn real_rows(&self) -> Option<&[f32]> {
        match self.input {
            InputSpec::Real(_) => Some(&self.reals),
            InputSpec::Tokens { .. } => None,
        }
    }
}

fn copy<T: Copy>(rows: &[u32], width: usize, from: &[T], to: &mut [T]) {
    for (&row, to) in rows.iter().zip(to.chunks_exact_mut(width.max(1))) {
        to.copy_from_slice(&from[row as usize * width..][..width]);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fl_core::{RingPlan, Weight, WeightBounds};
    use fl_datasets::partition::{Dirichlet, DirichletSizes, Iid, PartitionConfig};
    use fl_datasets::{DataRoot, DatasetConfig, FederatedDataset};
    use fl_edge::quant::{Calibration, Calibrator, Probe, Samples};
    use fl_edge::{Model, ModelDef};

    use super::*;

    fn digits(partition: PartitionConfig) -> FederatedDataset {
        let config = DatasetConfig::new("digits").with_partition(partition);
        fl_datasets::load(&config, &DataRoot::new("not-needed"), Seed(1)).unwrap()
    }

    fn model(data: &FederatedDataset) -> (Arc<Model>, Parameters) {
        let def = ModelDef::named("mlp-2nn").unwrap();
        let model = Model::new(&def, data.input(), data.target()).unwrap();
        let mut stream = Stream::at(Purpose::Testing, Seed(1), RoundId(0), ClientId(0));
        let parameters = model.init(&mut stream);
        (Arc::new(model), parameters)
    }

    fn counted(
        data: &FederatedDataset,
        (model, parameters): &(Arc<Model>, Parameters),
        threads: usize,
        federation: Federation,
    ) -> Result<Histograms, SimError> {
        let ring = RingPlan::for_weights(WeightBounds::new(Weight(1), 1)).unwrap();
        let executor = Executor::new(threads, model, ring, None).unwrap();
        let stop = AtomicBool::new(false);
        let found = federation.count(&executor, data, model, parameters, &stop);
        found.map_err(|halt| match halt {
            Halt::Failed(error) => error,
            Halt::Stopped => unreachable!("nobody stops it"),
        })
    }

    fn everybody() -> Federation {
        Federation {
            clients: u64::MAX,
            samples: u64::MAX,
            bins: Bins::default(),
            seed: Seed(1),
            round: RoundId(4),
        }
    }

    /// However the examples fall apart and whoever counts, the sum is what one machine counts that
    /// has all of them; and each range is within one bin of what the same calibrator finds in the
    /// values themselves.
    #[test]
    fn clients_count_what_one_machine_counts() {
        let whole = digits(PartitionConfig::Iid(Iid { clients: 1 }));
        let served = model(&whole);
        let mut scratch = Default::default();
        let train = whole.train(ClientId(0), &mut scratch);
        let samples = Samples::all(&served.0, &train).unwrap();
        let mut probe = Probe::new(&served.0, served.1.values()).unwrap();
        let mut pooled = probe.histograms(Bins::default());
        probe.count(&samples, &mut pooled).unwrap();
        let skewed = PartitionConfig::Dirichlet(Dirichlet {
            alpha: 0.1,
            clients: 23,
            sizes: DirichletSizes::Unbalanced,
            min_examples: 0,
        });
        for partition in [PartitionConfig::Iid(Iid { clients: 7 }), skewed] {
            let data = digits(partition);
            for threads in [1, 3] {
                let found = counted(&data, &served, threads, everybody()).unwrap();
                assert_eq!(found, pooled);
            }
        }
        for name in ["min-max", "percentile"] {
            let method = Calibration::named(name).unwrap();
            let mut calibrator = Calibrator::new(method).unwrap();
            loop {
                probe
                    .observe(&samples, |point, values| calibrator.observe(point, values))
                    .unwrap();
                if !calibrator.next_pass() {
                    break;
                }
            }
            let (federated, central) = (pooled.ranges(&method), calibrator.ranges().unwrap());
            let federated = federated.unwrap();
            assert_eq!(federated.len(), central.len());
            for (point, range) in &federated {
                let exact = central[point];
                for (found, exact) in [(range.min, exact.min), (range.max, exact.max)] {
                    // A bin of its own, and for a percentile one of the 2048 of the calibrator.
                    let own = found.abs().max(exact.abs()) / 32.0;
                    let theirs = exact.abs().max(range.max) / 2048.0;
                    let bin = own + if name == "percentile" { theirs } else { 0.0 };
                    assert!(
                        (found - exact).abs() <= bin,
                        "{name} {point}: {found} {exact}"
                    );
                }
            }
        }
    }

    /// Fewer clients than there are: others in each round, the same ones on any number of threads,
    /// and no more examples of each than asked for.
    #[test]
    fn some_clients_show_some_examples() {
        let data = digits(PartitionConfig::Iid(Iid { clients: 20 }));
        let served = model(&data);
        let at = |threads, round| {
            let few = Federation {
                clients: 5,
                samples: 3,
                round: RoundId(round),
                ..everybody()
            };
            counted(&data, &served, threads, few).unwrap()
        };
        let first = at(1, 1);
        assert_eq!(first, at(3, 1));
        assert_ne!(first, at(1, 2));
        // The input is a point: 64 values of each example.
        let input = &first.counts()[..first.bins().count()];
        assert_eq!(first.points()[0], "input");
        assert_eq!(input.iter().sum::<u64>(), 5 * 3 * 64);
    }

    /// Clients on whose values the model is not finite are left out; where there are no others,
    /// nothing is counted, and without examples at all there is nothing to calibrate on.
    #[test]
    fn a_diverged_model_counts_nothing() {
        let data = digits(PartitionConfig::Iid(Iid { clients: 4 }));
        let (model, mut parameters) = model(&data);
        for value in parameters.values_mut() {
            *value = 1e30;
        }
        let diverged = (model, parameters);
        let found = counted(&data, &diverged, 2, everybody()).unwrap();
        assert!(found.is_empty());
    }
}
