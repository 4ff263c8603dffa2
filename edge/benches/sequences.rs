//! Layers of sequences beside their bare matrix products.
//!
//! `cargo bench -p fl-edge --bench sequences`: a training step (plain SGD, every position a target)
//! of one LSTM or GRU layer, of `lstm-shakespeare` and of `transformer`, and the products that it
//! cannot do without, ours, at the same shapes, one after the other: for a recurrent layer the
//! product with the inputs of all positions and its two gradients, one product a position forward
//! and one backward, and one gradient of the recurrent weight. Medians and minima of interleaved
//! samples.
#![expect(
    clippy::print_stdout,
    reason = "a benchmark measures time and prints it"
)]

#[path = "shapes/mod.rs"]
mod shapes;

use std::hint::black_box;
use std::sync::Arc;

use fl_core::{
    ClientId, Examples, InputSpec, InputsMut, Optimizer, Purpose, RoundId, Seed, Stream,
    TargetSpec, TargetsMut,
};
use fl_edge::graph::Op;
use fl_edge::kernel::{Cell, Conv, Dense, Fused, Gradient, Kernels, Recurrent, SgdStep, Write};
use fl_edge::{Model, ModelDef, Session, Step};
use shapes::{median, minimum, time};

const STEP: SgdStep = SgdStep {
    rate: 1e-9,
    weight_decay: 0.0,
    proximal_mu: 0.0,
};

fn numbers(len: usize) -> Vec<f32> {
    (0..len)
        .map(|i| ((i * 7919 + 13) % 1009) as f32 / 1009.0 - 0.5)
        .collect()
}

/// The products of a dense layer at every position: forward, and the gradients.
fn along(rows: usize, c: Conv, dx: bool) -> Box<dyn FnMut()> {
    let k = Kernels::best();
    let (x, dy) = (
        numbers(rows * c.padded_len()),
        numbers(rows * c.output_len()),
    );
    let mut w = numbers(c.weight_len());
    let (mut y, mut to) = (dy.clone(), x.clone());
    let mut scratch = vec![0.0; c.dx_scratch_len(rows).max(c.dw_scratch_len())];
    Box::new(move || {
        k.conv(&c, rows, &x, &w, None, Fused::None, &mut y);
        if dx {
            k.conv_dx(&c, rows, &dy, &w, &mut to, Write::Store, &mut scratch);
        }
        let gradient = Gradient::Step {
            weights: &mut w,
            anchor: &[],
            step: STEP,
        };
        k.conv_dw(&c, rows, &x, &dy, gradient, &mut scratch);
        black_box((&mut y, &mut to));
    })
}

/// The products with the state: one a position forward and one backward, and the gradient.
fn recurrent(rows: usize, r: Recurrent) -> Box<dyn FnMut()> {
    let k = Kernels::best();
    let d = r.product();
    let back = Dense {
        inputs: d.outputs,
        outputs: d.inputs,
    };
    let positions = rows * r.steps();
    let (x, dy) = (
        numbers(positions * d.inputs),
        numbers(positions * d.outputs),
    );
    let mut w = numbers(d.inputs * d.outputs);
    let turned = w.clone();
    let (mut y, mut to) = (vec![0.0; rows * d.outputs], vec![0.0; rows * d.inputs]);
    Box::new(move || {
        for step in 1..r.steps() {
            let x = &x[step * rows * d.inputs..][..rows * d.inputs];
            k.dense(&d, rows, x, &w, None, Fused::None, &mut y);
        }
        for step in 1..r.steps() {
            let dy = &dy[step * rows * d.outputs..][..rows * d.outputs];
            k.dense(&back, rows, dy, &turned, None, Fused::None, &mut to);
        }
        let gradient = Gradient::Step {
            weights: &mut w,
            anchor: &[],
            step: STEP,
        };
        k.dense_dw(&d, positions, &x, &dy, gradient);
        black_box((&mut y, &mut to));
    })
}

/// The attention's products for every example and head, of contiguous operands.
fn attention(rows: usize, positions: usize, heads: usize, width: usize) -> Box<dyn FnMut()> {
    let k = Kernels::best();
    let head = width / heads;
    let (scores, mix) = (
        Dense {
            inputs: head,
            outputs: positions,
        },
        Dense {
            inputs: positions,
            outputs: head,
        },
    );
    let (narrow, square) = (numbers(positions * head), numbers(positions * positions));
    let (mut to_narrow, mut to_square) = (narrow.clone(), square.clone());
    Box::new(move || {
        for _ in 0..rows * heads {
            // Scores and what they mix; their gradients: two of one shape and four of the other.
            for _ in 0..2 {
                k.dense(
                    &scores,
                    positions,
                    &narrow,
                    &narrow,
                    None,
                    Fused::None,
                    &mut to_square,
                );
            }
            for _ in 0..4 {
                k.dense(
                    &mix,
                    positions,
                    &square,
                    &narrow,
                    None,
                    Fused::None,
                    &mut to_narrow,
                );
            }
            black_box((&mut to_square, &mut to_narrow));
        }
    })
}

/// The products of a model's step.
fn products(model: &Model, rows: usize) -> Vec<Box<dyn FnMut()>> {
    let graph = model.graph();
    let mut all: Vec<Box<dyn FnMut()>> = Vec::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        match &node.op {
            Op::Conv { geometry, .. } => {
                // Only what parameters lie before needs the gradient of its input.
                all.push(along(rows, geometry.clone(), index > 0));
            }
            Op::Recurrent { geometry, .. } => all.push(recurrent(rows, *geometry)),
            Op::Attention(geometry) => all.push(attention(
                rows,
                geometry.positions(),
                geometry.heads(),
                geometry.width(),
            )),
            _ => {}
        }
    }
    all
}

/// Random examples.
struct Data {
    input: InputSpec,
    target: TargetSpec,
}

impl Examples for Data {
    fn len(&self) -> usize {
        1 << 16
    }

    fn input(&self) -> &InputSpec {
        &self.input
    }

    fn target(&self) -> TargetSpec {
        self.target
    }

    fn fill(&self, rows: &[u32], inputs: InputsMut<'_>, targets: TargetsMut<'_>) {
        let number = |at: usize| (at * 7919 + rows[0] as usize * 13) % 61;
        match inputs {
            InputsMut::Real(to) => {
                for (at, to) in to.iter_mut().enumerate() {
                    *to = number(at) as f32 / 61.0 - 0.5;
                }
            }
            InputsMut::Tokens(to) => {
                for (at, to) in to.iter_mut().enumerate() {
                    *to = number(at) as u32;
                }
            }
        }
        if let TargetsMut::Classes(to) = targets {
            for (at, to) in to.iter_mut().enumerate() {
                *to = number(at + 5) as u32 % 2;
            }
        }
    }
}

fn measure(name: &str, text: &str, input: InputSpec, classes: usize, rows: usize) {
    let length = match &input {
        InputSpec::Real(shape) => shape[0],
        InputSpec::Tokens { length, .. } => *length,
    };
    let target = TargetSpec::Sequence { length, classes };
    let def = toml::from_str::<ModelDef>(text).expect("a model");
    let model = Arc::new(Model::new(&def, &input, target).expect("builds"));
    let mut stream = Stream::at(Purpose::Testing, Seed(1), RoundId(0), ClientId(0));
    let start = model.init(&mut stream);
    let data = Data { input, target };
    let mut session = Session::new(Arc::clone(&model), Kernels::best());
    session.start(start.values(), &Optimizer::SGD, rows);
    let examples: Vec<u32> = (0..rows as u32).collect();
    let step = Step {
        optimizer: Optimizer::SGD,
        rate: 1e-6,
        number: 0,
        max_norm: None,
        proximal_mu: 0.0,
        anchor: start.values(),
    };
    let mut all = products(&model, rows);
    let mut whole = || {
        let loss = session.step(&data, &examples, &step, &mut stream);
        black_box(loss.expect("good examples"));
    };
    let mut bare = || all.iter_mut().for_each(|product| product());
    let (mut steps, mut products, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let calls = ((0.03 / time(&mut whole, 1)) as usize).max(1);
    for _ in 0..15 {
        let (one, other) = (time(&mut whole, calls), time(&mut bare, calls));
        steps.push(one);
        products.push(other);
        ratios.push(one / other);
    }
    println!(
        "{name:<34}{:>10.0}{:>10.0}{:>10.0}{:>8.2}{:>8.2}",
        1e6 * minimum(&steps),
        1e6 * median(&mut steps),
        1e6 * minimum(&products),
        median(&mut ratios),
        minimum(&steps) / minimum(&products),
    );
}

fn main() {
    println!(
        "kernels: {}\n\n{:<34}{:>10}{:>10}{:>10}{:>8}{:>8}",
        fl_edge::kernel::name(),
        "us a step",
        "best",
        "median",
        "products",
        "median",
        "best",
    );
    let tokens = || InputSpec::Tokens {
        length: 80,
        vocabulary: 80,
    };
    for rows in [4, 10, 32] {
        for kind in ["lstm", "gru"] {
            let cell = match kind {
                "lstm" => Cell::Lstm,
                _ => Cell::Gru,
            };
            let text =
                format!("layer = [{{ kind = \"{kind}\", units = 256 }}, {{ kind = \"dense\" }}]");
            let name = format!("{kind} 256 ({} gates), batch {rows}", cell.gates());
            measure(&name, &text, InputSpec::Real(vec![80, 256]), 2, rows);
        }
        let name = format!("lstm-shakespeare, batch {rows}");
        measure(&name, "kind = \"lstm-shakespeare\"", tokens(), 80, rows);
        let name = format!("transformer, batch {rows}");
        measure(&name, "kind = \"transformer\"", tokens(), 80, rows);
    }
}
