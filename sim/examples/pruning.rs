//! What pruning costs in accuracy, over some seeds, on the pictures of Fashion-MNIST that come with
//! the program; trained on one machine.
//!
//! **When.** A small CNN is trained, then a share of its weights is pruned and it is trained on for as
//! long again. `one shot` prunes all at once, when the first half is over; `gradual` little by little
//! over the first three quarters of the second half (Zhu & Gupta 2017, arXiv:1710.01878); `at the end`
//! after all steps, without any training under the mask. All take the same steps on examples drawn
//! the same way, with an optimizer that starts afresh at the same steps.
//!
//! **Which.** The mask that a training to its end finds is laid over the parameters as they were
//! early in it, and these are trained again: `ticket`; the same parameters under a random mask of as
//! many weights in every tensor: `random` (Frankle & Carbin 2019, arXiv:1803.03635; Frankle et al.
//! 2020, arXiv:1912.05671).
//!
//! ```text
//! cargo run --release -p fl-sim --example pruning -- [SEEDS] [STEPS]
//! ```
#![expect(
    clippy::print_stdout,
    reason = "an example prints; that is what it is for"
)]

use std::error::Error;
use std::sync::Arc;

use fl_core::{ClientId, Examples, Mask, Optimizer, Purpose, RoundId, Seed, Stream};
use fl_datasets::partition::{Iid, PartitionConfig};
use fl_datasets::{DataRoot, DatasetConfig};
use fl_edge::kernel::Kernels;
use fl_edge::prune::{GradualSchedule, Scope, magnitude, random_like, rewound};
use fl_edge::{Model, ModelDef, Session, Step};

const BATCH: usize = 64;
const RATE: f64 = 0.05;
/// The optimizer starts afresh so often in a half.
const PIECES: u64 = 20;

const MODEL: &str = r#"{ "kind": "cnn-fedavg", "filters": [8, 16], "units": 32 }"#;

struct World<'a> {
    model: Arc<Model>,
    train: &'a dyn Examples,
    test: &'a dyn Examples,
    steps: u64,
}

/// A training under way.
struct Run<'a> {
    world: &'a World<'a>,
    session: Session,
    values: Vec<f32>,
    mask: Mask,
    stream: Stream,
}

impl<'a> Run<'a> {
    fn new(world: &'a World<'a>, values: &[f32], mask: Mask, stream: Stream) -> Self {
        Self {
            session: Session::new(Arc::clone(&world.model), Kernels::best()),
            world,
            values: values.to_vec(),
            mask,
            stream,
        }
    }

    /// One piece of a half, the rate falling along a cosine over the half.
    fn piece(&mut self, piece: u64) -> Result<(), Box<dyn Error>> {
        let optimizer = Optimizer::Sgd {
            momentum: 0.9,
            weight_decay: 0.0,
            nesterov: false,
        };
        self.session.hold(Some(Arc::new(self.mask.clone())));
        self.session.start(&self.values, &optimizer, BATCH);
        let steps = self.world.steps / PIECES;
        let mut rows = [0; BATCH];
        for number in 0..steps {
            for row in &mut rows {
                *row = self.stream.below(self.world.train.len() as u64) as u32;
            }
            let part = (piece * steps + number) as f64 / (PIECES * steps) as f64;
            let step = Step {
                optimizer,
                rate: (RATE * 0.5 * (1.0 + libm::cos(std::f64::consts::PI * part))) as f32,
                number,
                max_norm: None,
                proximal_mu: 0.0,
                anchor: &[],
            };
            (self.session).step(self.world.train, &rows, &step, &mut self.stream)?;
        }
        self.values.copy_from_slice(self.session.weights());
        Ok(())
    }

    /// Half of the training; before each piece what the schedule says is pruned.
    fn half(&mut self, schedule: Option<GradualSchedule>) -> Result<(), Box<dyn Error>> {
        for piece in 0..PIECES {
            if let Some(share) = schedule.and_then(|schedule| schedule.due(piece)) {
                self.prune(share)?;
            }
            self.piece(piece)?;
        }
        Ok(())
    }

    fn prune(&mut self, share: f64) -> Result<(), Box<dyn Error>> {
        let model = &self.world.model;
        self.mask = magnitude(model, &self.values, share, Scope::Global, &self.mask)?;
        self.mask.apply(&mut self.values);
        Ok(())
    }

    /// In per cent.
    fn accuracy(&mut self) -> Result<f64, Box<dyn Error>> {
        let rows = 0..self.world.test.len() as u32;
        let found = (self.session).judge(&self.values, self.world.test, rows)?;
        Ok(100.0 * found.accuracy())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let seeds: u64 = args.next().map_or(Ok(5), |text| text.parse())?;
    let steps: u64 = args.next().map_or(Ok(600), |text| text.parse())?;
    let whole = PartitionConfig::Iid(Iid { clients: 1 });
    let config = DatasetConfig::new("fashion-mini").with_partition(whole);
    let data = fl_datasets::load(&config, &DataRoot::new("not-needed"), Seed(1))?;
    let mut scratch = Default::default();
    let train = data.train(ClientId(0), &mut scratch);
    let test = data.test().ok_or("the data have no test set")?;
    let def: ModelDef = serde_json::from_str(MODEL)?;
    let world = World {
        model: Arc::new(Model::new(&def, data.input(), data.target())?),
        train: &train,
        test,
        steps,
    };
    let parameters = world.model.parameters();
    println!("{parameters} parameters, two halves of {steps} steps of {BATCH}, {seeds} seeds");
    let none = || Mask::none(parameters);
    let at = |purpose, seed| Stream::at(purpose, Seed(seed), RoundId(0), ClientId(0));

    println!("\nWhen       dense   one shot   gradual   at the end");
    for share in [0.8, 0.9, 0.95, 0.98] {
        let mut columns = vec![Vec::new(); 4];
        for seed in 1..=seeds {
            let start = world.model.init(&mut at(Purpose::ModelInit, seed));
            let stream = at(Purpose::LocalTraining, seed);
            let mut first = Run::new(&world, start.values(), none(), stream);
            first.half(None)?;
            let again = || Run::new(&world, &first.values, none(), at(Purpose::Testing, seed));
            let mut dense = again();
            dense.half(None)?;
            columns[0].push(dense.accuracy()?);
            let mut shot = again();
            shot.half(Some(GradualSchedule::one_shot(share, 0)))?;
            columns[1].push(shot.accuracy()?);
            let mut gradual = again();
            gradual.half(Some(GradualSchedule {
                initial: 0.0,
                sparsity: share,
                start: 0,
                every: 1,
                steps: PIECES * 3 / 4,
            }))?;
            columns[2].push(gradual.accuracy()?);
            dense.prune(share)?;
            columns[3].push(dense.accuracy()?);
        }
        line(share, &columns);
    }

    println!("\nWhich      dense     ticket    random");
    for share in [0.8, 0.9, 0.95, 0.98] {
        let mut columns = vec![Vec::new(); 3];
        for seed in 1..=seeds {
            let start = world.model.init(&mut at(Purpose::ModelInit, seed));
            let stream = at(Purpose::LocalTraining, seed);
            let mut first = Run::new(&world, start.values(), none(), stream);
            // Early: after the first piece of training.
            first.piece(0)?;
            let early = first.values.clone();
            first.half(None)?;
            columns[0].push(first.accuracy()?);
            first.prune(share)?;
            let found = first.mask.clone();
            let random = random_like(&world.model, &found, &mut at(Purpose::Selection, seed))?;
            for (column, mask) in [(1, found), (2, random)] {
                let values = rewound(&world.model, &early, &mask)?;
                let mut run = Run::new(&world, &values, mask, at(Purpose::Testing, seed));
                run.half(None)?;
                columns[column].push(run.accuracy()?);
            }
        }
        line(share, &columns);
    }
    Ok(())
}

/// Mean and standard deviation over the seeds.
fn line(share: f64, columns: &[Vec<f64>]) {
    print!("{:4.0} %", 100.0 * share);
    for column in columns {
        let count = column.len() as f64;
        let mean = column.iter().sum::<f64>() / count;
        let squares = column.iter().map(|value| (value - mean) * (value - mean));
        let deviation = libm::sqrt(squares.sum::<f64>() / (count - 1.0).max(1.0));
        print!("   {mean:5.2}±{deviation:.2}");
    }
    println!();
}
