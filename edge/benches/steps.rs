//! Whole steps beside their products, lanes, and two threads beside one.
//!
//! `cargo bench -p fl-edge --bench steps [-- examples | norms]`: all, or only the cost of a
//! gradient clipped example by example, or only models with normalisation. The products of a step are those of `products`: ours,
//! at the same shapes, one after the other. Medians and minima of interleaved samples.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark measures time, prints it and needs threads of its own"
)]

#[path = "shapes/mod.rs"]
mod shapes;

use std::num::NonZeroU32;
use std::sync::{Arc, Barrier};
use std::time::Instant;

use fl_core::{
    BatchSize, ClientId, ExampleOrder, Examples, FitTask, InputSpec, InputsMut, LearningRate,
    LocalPlan, LocalResult, LocalWork, Optimizer, Precision, Purpose, RoundId, Seed, Stream,
    TargetSpec, TargetsMut, Trainer as _, WorkLimit,
};
use fl_edge::kernel::{Activation, Conv, ConvShape, Gradient, Kernels, Padding, Pool, SgdStep};
use fl_edge::{EdgeTrainer, Model, ModelDef, Session, Step};
use shapes::{Use, median, minimum, time};

/// Random examples in memory.
struct Data {
    input: InputSpec,
    rows: Vec<f32>,
    labels: Vec<u32>,
}

impl Data {
    fn new(client: u64, shape: &[usize], examples: usize) -> Self {
        let mut stream = stream(Purpose::Testing, client);
        let len = shape.iter().product::<usize>();
        Self {
            input: InputSpec::Real(shape.to_vec()),
            rows: (0..examples * len)
                .map(|_| stream.uniform() as f32)
                .collect(),
            labels: (0..examples).map(|_| stream.below(10) as u32).collect(),
        }
    }
}

impl Examples for Data {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn input(&self) -> &InputSpec {
        &self.input
    }

    fn target(&self) -> TargetSpec {
        TargetSpec::Class { classes: 10 }
    }

    fn fill(&self, rows: &[u32], inputs: InputsMut<'_>, targets: TargetsMut<'_>) {
        let len = self.rows.len() / self.labels.len();
        if let InputsMut::Real(inputs) = inputs {
            for (to, &row) in inputs.chunks_exact_mut(len).zip(rows) {
                to.copy_from_slice(&self.rows[row as usize * len..][..len]);
            }
        }
        if let TargetsMut::Classes(labels) = targets {
            for (to, &row) in labels.iter_mut().zip(rows) {
                *to = self.labels[row as usize];
            }
        }
    }

    fn real_rows(&self) -> Option<&[f32]> {
        Some(&self.rows)
    }
}

fn stream(purpose: Purpose, client: u64) -> Stream {
    Stream::at(purpose, Seed(1), RoundId(0), ClientId(client))
}

fn model(kind: &str, shape: &[usize]) -> Arc<Model> {
    let def = ModelDef::named(kind).expect("a model of the zoo");
    let input = InputSpec::Real(shape.to_vec());
    let target = TargetSpec::Class { classes: 10 };
    Arc::new(Model::new(&def, &input, target).expect("a model"))
}

/// A session's whole step: reading the batch, forward, loss, backward, parameters.
fn step(kind: &str, shape: &[usize], batch: usize) -> impl FnMut() + use<> {
    step_of(
        &ModelDef::named(kind).expect("a model of the zoo"),
        shape,
        batch,
    )
}

fn step_of(def: &ModelDef, shape: &[usize], batch: usize) -> impl FnMut() + use<> {
    let input = InputSpec::Real(shape.to_vec());
    let target = TargetSpec::Class { classes: 10 };
    let model = Arc::new(Model::new(def, &input, target).expect("a model"));
    let data = Data::new(1, shape, 20 * batch);
    let global = model.init(&mut stream(Purpose::ModelInit, 0));
    let mut session = Session::new(Arc::clone(&model), Kernels::best());
    session.start(global.values(), &Optimizer::SGD, batch);
    let mut order: Vec<u32> = (0..data.len() as u32).collect();
    let mut random = stream(Purpose::LocalTraining, 1);
    random.shuffle(&mut order);
    let mut at = 0;
    move || {
        let rows = &order[at..at + batch];
        at = (at + batch) % order.len();
        let step = Step {
            optimizer: Optimizer::SGD,
            rate: 1e-3,
            number: 0,
            max_norm: None,
            proximal_mu: 0.0,
            anchor: global.values(),
        };
        session
            .step(&data, rows, &step, &mut random)
            .expect("labels are below ten");
    }
}

fn share(name: &str, mut whole: impl FnMut(), mut products: Vec<shapes::Product>) {
    let calls = if name.starts_with("mlp") { 50 } else { 1 };
    let (mut steps, mut sums) = (Vec::new(), Vec::new());
    let (mut steps_on, mut sums_on) = (0.0, 0.0);
    let on_processor = || processor_seconds().unwrap_or(f64::NAN);
    time(&mut whole, calls);
    for _ in 0..61 {
        let before = on_processor();
        steps.push(time(&mut whole, calls));
        let between = on_processor();
        let products = products.iter_mut();
        sums.push(products.map(|product| time(&mut product.ours, calls)).sum());
        steps_on += between - before;
        sums_on += on_processor() - between;
    }
    let (step, sum) = (median(&mut steps), median(&mut sums));
    println!(
        "{name:<26}{:>12.1}{:>14.1}{:>9.1} %{:>9.1} %{:>12.1} %",
        step * 1e6,
        sum * 1e6,
        100.0 * sum / step,
        100.0 * minimum(&sums) / minimum(&steps),
        100.0 * sums_on / steps_on,
    );
}

/// Softmax regression on many small clients, examples a second.
struct Fleet {
    trainer: EdgeTrainer,
    clients: Arc<Vec<Data>>,
    updates: Vec<Vec<f32>>,
    global: fl_core::Parameters,
    plan: LocalPlan,
}

impl Fleet {
    fn new(clients: &Arc<Vec<Data>>) -> Self {
        let model = model("logreg", &[60]);
        let global = model.init(&mut stream(Purpose::ModelInit, 0));
        Self {
            updates: vec![vec![0.0; model.parameters()]; clients.len()],
            trainer: EdgeTrainer::new(model),
            clients: Arc::clone(clients),
            global,
            plan: LocalPlan {
                work: LocalWork::Epochs(NonZeroU32::MIN),
                batch: BatchSize::Examples(NonZeroU32::new(10).expect("ten")),
                order: ExampleOrder::Shuffled,
                optimizer: Optimizer::SGD,
                learning_rate: LearningRate::constant(0.01),
                max_gradient_norm: None,
                proximal_mu: 0.0,
                precision: Precision::F32,
                privacy: None,
            },
        }
    }

    /// Trains every client once, `group` at a time; the examples processed.
    fn train(&mut self, group: usize) -> u64 {
        let mut processed = 0;
        let mut results = [LocalResult::default(); 16];
        for (first, updates) in self.updates.chunks_mut(group).enumerate() {
            let mut tasks: Vec<_> = updates
                .iter_mut()
                .zip(first * group..)
                .map(|(update, client)| FitTask {
                    client: ClientId(client as u64),
                    round: RoundId(0),
                    data: &self.clients[client],
                    plan: &self.plan,
                    limit: WorkLimit::Full,
                    stream: stream(Purpose::LocalTraining, client as u64),
                    update,
                })
                .collect();
            self.trainer
                .fit(&self.global, &mut tasks, &mut results)
                .expect("trains");
            let results = &results[..tasks.len()];
            processed += results.iter().map(|r| r.examples_processed).sum::<u64>();
        }
        processed
    }
}

fn fleet(name: &str, clients: usize, examples: usize) {
    let clients: Vec<_> = (0..clients as u64)
        .map(|client| Data::new(client, &[60], examples))
        .collect();
    let mut fleet = Fleet::new(&Arc::new(clients));
    for group in [1, 16] {
        let mut rates: Vec<f64> = (0..31)
            .map(|_| {
                let start = Instant::now();
                let processed = fleet.train(group);
                processed as f64 / start.elapsed().as_secs_f64() * 1e-6
            })
            .collect();
        let middle = median(&mut rates);
        println!("{name:<44}{group:>8}{middle:>10.1}{:>10.1}", rates[30]);
    }
}

/// Seconds that this thread has run on a processor, where the system says so (Linux). Unlike the
/// clock they mean something on a busy machine.
fn processor_seconds() -> Option<f64> {
    let line = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(nanoseconds * 1e-9)
}

/// Seconds by the clock and on the processor in which `threads` independent threads each do
/// `calls` steps; the longest of each.
fn threads(
    threads: usize,
    calls: usize,
    make: &(dyn Fn() -> Box<dyn FnMut()> + Sync),
) -> (f64, f64) {
    let barrier = Barrier::new(threads);
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut work = make();
                    work();
                    barrier.wait();
                    let start = Instant::now();
                    let on_processor = processor_seconds();
                    for _ in 0..calls {
                        work();
                    }
                    let clock = start.elapsed().as_secs_f64();
                    let on_processor = on_processor
                        .zip(processor_seconds())
                        .map_or(clock, |(before, after)| after - before);
                    (clock, on_processor)
                })
            })
            .collect();
        handles
            .into_iter()
            .map(|handle| handle.join().expect("a thread"))
            .fold((0.0f64, 0.0f64), |longest, one| {
                (longest.0.max(one.0), longest.1.max(one.1))
            })
    })
}

fn scaling(name: &str, calls: usize, make: &(dyn Fn() -> Box<dyn FnMut()> + Sync)) {
    let (mut one, mut two) = (Vec::new(), Vec::new());
    let (mut one_on, mut two_on) = (Vec::new(), Vec::new());
    for _ in 0..9 {
        let (clock, on_processor) = threads(1, calls, make);
        one.push(clock);
        one_on.push(on_processor);
        let (clock, on_processor) = threads(2, calls, make);
        two.push(clock);
        two_on.push(on_processor);
    }
    println!(
        "{name:<44}{:>10.2}{:>10.2}{:>16.2}",
        2.0 * median(&mut one) / median(&mut two),
        2.0 * minimum(&one) / minimum(&two),
        2.0 * median(&mut one_on) / median(&mut two_on),
    );
}

/// What stands between the products of `cnn-fedavg` at batch 20.
fn others() {
    let k = Kernels::best();
    let rows = 20;
    let pool = |side, channels| {
        Pool::new([side, side, channels], [2, 2], [2, 2], Padding::NONE).expect("a pool")
    };
    let (first, second) = (pool(28, 32), pool(14, 64));
    let padded = Conv::new(ConvShape {
        height: 14,
        width: 14,
        channels: 32,
        filters: 64,
        kernel: [5, 5],
        stride: [1, 1],
        padding: Padding::all(2),
        groups: 1,
    })
    .expect("a convolution");
    let len = rows * first.input_len();
    let mut random = stream(Purpose::Testing, 0);
    let x: Vec<f32> = (0..len).map(|_| random.normal() as f32).collect();
    let (mut y, mut z) = (x.clone(), x.clone());
    let mut argmax = vec![0u8; len];
    let step = SgdStep {
        rate: 0.1,
        weight_decay: 0.0,
        proximal_mu: 0.0,
    };
    let mut bias = vec![0.0; 512];
    let report = |name: &str, f: &mut dyn FnMut()| {
        let mut times: Vec<f64> = (0..41).map(|_| time(f, 4)).collect();
        println!("{name:<44}{:>10.1}", median(&mut times) * 1e6);
    };
    println!(
        "\n{:<44}{:>10}",
        "beside the products of cnn-fedavg, batch 20", "us"
    );
    for (name, pool) in [("28 x 28 x 32", first), ("14 x 14 x 64", second)] {
        let len = rows * pool.input_len();
        let columns = if len == x.len() { 32 } else { 64 };
        report(&format!("max pool, {name}"), &mut || {
            k.max_pool(&pool, rows, &x, &mut y, &mut argmax);
        });
        report(&format!("max pool backward, {name}"), &mut || {
            k.max_pool_dx(&pool, rows, &x, &argmax, &mut y);
        });
        report(&format!("relu backward, {name}"), &mut || {
            k.activate_grad(Activation::Relu, &x[..len], &mut z[..len]);
        });
        report(&format!("bias, {name}"), &mut || {
            let to = Gradient::Step {
                weights: &mut bias,
                anchor: &[],
                step,
            };
            k.column_sums(len / columns, columns, &x, to);
        });
    }
    report("zeros around 14 x 14 x 32", &mut || {
        k.pad(&padded, rows, &x, &mut y);
    });
    let labels: Vec<u32> = (0..rows as u32).map(|row| row % 10).collect();
    let mut losses = vec![0.0; rows];
    report("softmax cross-entropy of 20 x 10", &mut || {
        k.softmax_cross_entropy(rows, 10, &x, &labels, 0.05, &mut losses, Some(&mut y));
    });
}

/// Models with how they are benched: `name`, TOML, shape, batch.
const EXAMPLE_BY_EXAMPLE: [(&str, &str, &[usize], usize); 7] = [
    ("logreg", "kind = \"logreg\"", &[28, 28, 1], 32),
    ("mlp-2nn", "kind = \"mlp-2nn\"", &[28, 28, 1], 32),
    ("mlp", "kind = \"mlp\"", &[28, 28, 1], 32),
    ("cnn-fedavg", "kind = \"cnn-fedavg\"", &[28, 28, 1], 32),
    ("cnn-pfl", "kind = \"cnn-pfl\"", &[32, 32, 3], 32),
    ("resnet8-gn", "kind = \"resnet8-gn\"", &[32, 32, 3], 32),
    (
        "mobilenet-v2, width 0.25, gn",
        "kind = \"mobilenet-v2\"\nwidth = 0.25\nstem-stride = 1\nnorm = \"group\"",
        &[28, 28, 1],
        32,
    ),
];

/// A step of plain SGD, of SGD with a stored gradient, the norms alone, and a clipped gradient.
fn example_by_example(name: &str, text: &str, shape: &[usize], batch: usize) {
    let def = toml::from_str::<ModelDef>(text).expect("a model");
    let input = InputSpec::Real(shape.to_vec());
    let target = TargetSpec::Class { classes: 10 };
    let model = Arc::new(Model::new(&def, &input, target).expect("a model"));
    let data = Data::new(1, shape, batch);
    let global = model.init(&mut stream(Purpose::ModelInit, 0));
    let rows: Vec<u32> = (0..batch as u32).collect();
    let session = || {
        let mut session = Session::new(Arc::clone(&model), Kernels::best());
        session.start(global.values(), &Optimizer::SGD, batch);
        session
    };
    let random = || stream(Purpose::LocalTraining, 1);
    let sgd = |max_norm: Option<f32>| {
        let (mut session, mut random) = (session(), random());
        let (data, rows, global) = (&data, &rows, &global);
        move || {
            let step = Step {
                optimizer: Optimizer::SGD,
                rate: 1e-4,
                number: 0,
                max_norm,
                proximal_mu: 0.0,
                anchor: global.values(),
            };
            session
                .step(data, rows, &step, &mut random)
                .expect("examples of the model");
        }
    };
    let (mut plain, mut stored) = (sgd(None), sgd(Some(1e9)));
    let (mut a, mut b) = (session(), session());
    let (mut first, mut second) = (random(), random());
    let mut norms = || {
        let norms = a.per_example_norms(&data, &rows, &mut first);
        assert!(norms.expect("examples of the model").len() == batch);
    };
    let mut clipped = || {
        let clipped = b.clipped_gradient(&data, &rows, 0.5, &mut second);
        assert!(clipped.expect("examples of the model").loss > 0.0);
    };
    let mut works: [&mut dyn FnMut(); 4] = [&mut plain, &mut stored, &mut norms, &mut clipped];
    let mut times = [const { Vec::new() }; 4];
    for _ in 0..22 {
        for (work, times) in works.iter_mut().zip(&mut times) {
            times.push(time(work, 1));
        }
    }
    let mut middles = times.each_mut().map(|times| median(&mut times[1..]));
    let least = times.each_ref().map(|times| minimum(&times[1..]));
    for middle in &mut middles {
        *middle *= 1e6;
    }
    println!(
        "{name:<30}{:>11.1}{:>11.1}{:>11.1}{:>11.1}{:>9.2}{:>9.2}{:>9.1}{:>9.1}",
        middles[0],
        middles[1],
        middles[2],
        middles[3],
        middles[3] / middles[0],
        least[3] / least[0],
        model.peak_bytes(batch, true) as f64 * 1e-6,
        model.peak_bytes_per_example(batch) as f64 * 1e-6,
    );
}

/// A plain SGD step of models with normalisation.
fn normalised() {
    println!(
        "\n{:<44}{:>12}{:>12}",
        "one SGD step, 28 x 28 x 1, batch 32", "step us", "best"
    );
    for norm in ["batch", "group"] {
        for width in [0.25, 0.5] {
            let text = format!(
                "kind = \"mobilenet-v2\"\nwidth = {width}\nstem-stride = 1\nnorm = \"{norm}\""
            );
            let def = toml::from_str::<ModelDef>(&text).expect("a model");
            let mut step = step_of(&def, &[28, 28, 1], 32);
            let mut times: Vec<f64> = (0..12).map(|_| time(&mut step, 1)).collect();
            let middle = median(&mut times[1..]) * 1e6;
            println!(
                "{:<44}{middle:>12.0}{:>12.0}",
                format!("mobilenet-v2, width {width}, {norm} norm"),
                minimum(&times[1..]) * 1e6
            );
        }
    }
}

fn main() {
    println!("kernels: {}", fl_edge::kernel::name());
    let wanted = std::env::args()
        .skip(1)
        .find(|arg| !arg.starts_with('-'))
        .unwrap_or_default();
    if wanted.is_empty() || wanted == "examples" {
        println!(
            "\n{:<30}{:>11}{:>11}{:>11}{:>11}{:>9}{:>9}{:>9}{:>9}",
            "us, batch 32", "SGD", "stored", "norms", "clipped", "ratio", "best", "MB", "MB"
        );
        for (name, text, shape, batch) in EXAMPLE_BY_EXAMPLE {
            example_by_example(name, text, shape, batch);
        }
    }
    if wanted.is_empty() || wanted == "norms" {
        normalised();
    }
    if !wanted.is_empty() {
        return;
    }
    println!(
        "\n{:<26}{:>12}{:>14}{:>11}{:>11}{:>14}",
        "one SGD step", "step us", "products us", "share", "by minima", "by processor"
    );
    share(
        "mlp-2nn, batch 10",
        step("mlp-2nn", &[28, 28, 1], 10),
        shapes::mlp(10, Use::Stepped),
    );
    share(
        "cnn-fedavg, batch 20",
        step("cnn-fedavg", &[28, 28, 1], 20),
        shapes::cnn(20, Use::Stepped),
    );

    others();

    println!(
        "\n{:<44}{:>8}{:>10}{:>10}",
        "softmax regression 60 -> 10, batch 10", "together", "M ex/s", "best"
    );
    fleet("16 clients of 100", 16, 100);
    fleet("160 clients of 10", 160, 10);
    fleet("1,600 clients of 100 (38 MB)", 1600, 100);

    println!(
        "\n{:<44}{:>10}{:>10}{:>16}",
        "two threads beside one", "by clock", "best", "by processor"
    );
    let shape = [28, 28, 1];
    scaling("mlp-2nn, batch 10", 1000, &|| {
        Box::new(step("mlp-2nn", &shape, 10))
    });
    scaling("cnn-fedavg, batch 20", 12, &|| {
        Box::new(step("cnn-fedavg", &shape, 20))
    });
    let clients: Arc<Vec<_>> = Arc::new(
        (0..160)
            .map(|client| Data::new(client, &[60], 100))
            .collect(),
    );
    scaling("softmax regression in lanes", 80, &|| {
        let mut fleet = Fleet::new(&clients);
        Box::new(move || {
            fleet.train(16);
        })
    });
}
