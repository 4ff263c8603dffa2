//! The optimizers against their formulas in f64, and the fused step against the stored one.

use crate::common::{Case, operators, stream};
use fl_core::Optimizer;
use fl_edge::kernel::Kernels;
use fl_edge::{Session, Step};

const RATE: f32 = 0.05;

struct Plan {
    optimizer: Optimizer,
    max_norm: Option<f32>,
    mu: f32,
}

fn plans() -> Vec<Plan> {
    let sgd = |momentum, nesterov, weight_decay| Optimizer::Sgd {
        momentum,
        nesterov,
        weight_decay,
    };
    let adam = |weight_decay, decoupled| Optimizer::Adam {
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay,
        decoupled,
    };
    [
        (Optimizer::SGD, None, 0.0),
        (sgd(0.0, false, 0.1), None, 0.0),
        (sgd(0.0, false, 0.1), None, 0.5),
        (sgd(0.0, false, 0.0), Some(0.1), 0.0),
        (sgd(0.0, false, 0.1), Some(0.1), 0.5),
        (sgd(0.0, false, 0.0), Some(1e9), 0.0),
        (sgd(0.9, false, 0.0), None, 0.0),
        (sgd(0.9, false, 0.1), None, 0.5),
        (sgd(0.9, true, 0.1), Some(0.2), 0.0),
        (adam(0.0, false), None, 0.0),
        (adam(0.1, false), None, 0.5),
        (adam(0.1, true), Some(0.2), 0.0),
    ]
    .into_iter()
    .map(|(optimizer, max_norm, mu)| Plan {
        optimizer,
        max_norm,
        mu,
    })
    .collect()
}

/// The formulas, in f64, from the session's own gradient.
#[derive(Default)]
struct Formula {
    first: Vec<f64>,
    second: Vec<f64>,
}

impl Formula {
    fn step(&mut self, plan: &Plan, t: i32, w: &mut [f64], anchor: &[f32], gradient: &[f32]) {
        let rate = f64::from(RATE);
        self.first.resize(w.len(), 0.0);
        self.second.resize(w.len(), 0.0);
        let mut g = gradient.iter().map(|g| f64::from(*g)).collect::<Vec<_>>();
        if let Some(most) = plan.max_norm {
            let norm = g.iter().map(|g| g * g).sum::<f64>().sqrt();
            let factor = (f64::from(most) / norm).min(1.0);
            g.iter_mut().for_each(|g| *g *= factor);
        }
        for i in 0..w.len() {
            let proximal = f64::from(plan.mu) * (w[i] - f64::from(anchor[i]));
            match plan.optimizer {
                Optimizer::Sgd {
                    momentum,
                    nesterov,
                    weight_decay,
                } => {
                    let g = g[i] + f64::from(weight_decay) * w[i] + proximal;
                    let v = f64::from(momentum) * self.first[i] + g;
                    self.first[i] = v;
                    w[i] -= rate
                        * if nesterov {
                            g + f64::from(momentum) * v
                        } else {
                            v
                        };
                }
                Optimizer::Adam {
                    beta1,
                    beta2,
                    epsilon,
                    weight_decay,
                    decoupled,
                } => {
                    let (beta1, beta2) = (f64::from(beta1), f64::from(beta2));
                    let decay = f64::from(weight_decay);
                    let mut g = g[i] + proximal;
                    let before = w[i];
                    if decoupled {
                        w[i] -= rate * decay * before;
                    } else {
                        g += decay * before;
                    }
                    self.first[i] = beta1 * self.first[i] + (1.0 - beta1) * g;
                    self.second[i] = beta2 * self.second[i] + (1.0 - beta2) * g * g;
                    let first = self.first[i] / (1.0 - beta1.powi(t));
                    let second = self.second[i] / (1.0 - beta2.powi(t));
                    w[i] -= rate * first / (second.sqrt() + f64::from(epsilon));
                }
            }
        }
    }
}

#[test]
fn follow_their_formulas() {
    let case = operators().swap_remove(0);
    let data = case.data(8);
    let rows = (0..8).collect::<Vec<u32>>();
    for (number, plan) in plans().iter().enumerate() {
        let global = case.model.init(&mut stream(3));
        let mut session = Session::new(case.model.clone(), Kernels::best());
        session.start(global.values(), &plan.optimizer, 8);
        let mut formula = Formula::default();
        for t in 1..=5 {
            let mut random = stream(1);
            session
                .gradient(&data, &rows, &mut random)
                .expect("examples of the model");
            let gradient = session.gradients().to_vec();
            let mut expected = session
                .weights()
                .iter()
                .map(|w| f64::from(*w))
                .collect::<Vec<_>>();
            formula.step(plan, t, &mut expected, global.values(), &gradient);
            let step = step(plan, t as u64 - 1, global.values());
            session
                .step(&data, &rows, &step, &mut random)
                .expect("examples of the model");
            for (index, (w, e)) in session.weights().iter().zip(&expected).enumerate() {
                let error = (f64::from(*w) - e).abs();
                // Adam divides tiny moments by each other.
                let tolerance = match plan.optimizer {
                    Optimizer::Sgd { .. } => 2e-7,
                    Optimizer::Adam { .. } => 2e-6,
                };
                assert!(
                    error < tolerance,
                    "plan {number}, step {t}, {index}: {w} for {e}"
                );
            }
        }
    }
}

fn step<'a>(plan: &Plan, number: u64, anchor: &'a [f32]) -> Step<'a> {
    Step {
        optimizer: plan.optimizer,
        rate: RATE,
        number,
        max_norm: plan.max_norm,
        proximal_mu: plan.mu,
        anchor,
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// A bound on the norm that never binds stores the gradient and must not change a bit.
#[test]
fn the_fused_step_has_the_bits_of_the_stored_one() {
    let check = |case: &Case| {
        for kernels in Kernels::all_available() {
            for mu in [0.0, 0.3] {
                let data = case.data(7);
                let global = case.model.init(&mut stream(3));
                let run = |max_norm| {
                    let plan = Plan {
                        optimizer: Optimizer::Sgd {
                            momentum: 0.0,
                            nesterov: false,
                            weight_decay: 0.01,
                        },
                        max_norm,
                        mu,
                    };
                    let mut session = Session::new(case.model.clone(), kernels);
                    session.start(global.values(), &plan.optimizer, 7);
                    let mut random = stream(1);
                    for (number, rows) in
                        [&[0u32, 3, 5, 1][..], &[2], &[4, 6, 0]].iter().enumerate()
                    {
                        let step = step(&plan, number as u64, global.values());
                        session
                            .step(&data, rows, &step, &mut random)
                            .expect("examples of the model");
                    }
                    bits(session.weights())
                };
                assert!(
                    run(None) == run(Some(f32::MAX)),
                    "{} {}",
                    case.name,
                    kernels.name()
                );
            }
        }
    };
    operators().iter().for_each(check);
}
