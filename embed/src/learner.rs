//! Training on the device.

use alloc::sync::Arc;
use alloc::vec::Vec;

use fl_core::{
    ClientId, Examples, InputSpec, InputsMut, Optimizer, Purpose, RoundId, Seed, Stream,
    TargetSpec, TargetsMut,
};
use fl_edge::file::ModelFile;
use fl_edge::kernel::Kernels;
use fl_edge::qat::QatForward;
use fl_edge::{Inputs, Session, SharedBytes, Step};

use crate::EmbedError;
use crate::server::check_length;

/// How a client trains: SGD, as the server's plan says.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct Plan {
    /// Above 0.
    pub learning_rate: f32,
    /// From 0 to below 1.
    pub momentum: f32,
    /// 0 or more.
    pub weight_decay: f32,
    /// FedProx's `mu`, 0 or more.
    pub proximal_mu: f32,
    /// Largest L2 norm of a step's gradient; 0 for none.
    pub max_gradient_norm: f32,
    /// The round, of which masks of dropout and frozen ranges depend.
    pub round: u64,
    /// The run's seed.
    pub seed: u64,
    /// This client's number.
    pub client: u64,
}

/// A client's training: from the global parameters to an update.
#[derive(Debug)]
pub struct Learner {
    session: Session,
    global: Vec<f32>,
    work: Option<Work>,
    /// Rows of a batch, `0, 1, ...`
    rows: Vec<u32>,
}

#[derive(Debug)]
struct Work {
    plan: Plan,
    optimizer: Optimizer,
    stream: Stream,
    steps: u64,
}

impl Learner {
    /// Opens a file of parameters, verified. A model with ranges trains quantization-aware.
    ///
    /// # Errors
    /// [`EmbedError::File`].
    pub fn open(bytes: SharedBytes) -> Result<Self, EmbedError> {
        let file = ModelFile::open(bytes)?;
        let global = file.parameters()?.values().to_vec();
        let (model, kernels) = (file.model(), Kernels::best());
        let aware = Session::quantization_aware(Arc::clone(model), kernels, QatForward::default());
        Ok(Self {
            session: aware.unwrap_or_else(|| Session::new(Arc::clone(model), kernels)),
            global,
            work: None,
            rows: Vec::new(),
        })
    }

    /// How many parameters the model has: the length of an update.
    #[must_use]
    pub fn parameters(&self) -> usize {
        self.global.len()
    }

    /// Values of one example.
    #[must_use]
    pub fn input_len(&self) -> usize {
        self.session.model().input().len()
    }

    /// Starts at the global parameters, with room for batches of `batch` examples.
    ///
    /// # Errors
    /// [`EmbedError::Plan`].
    pub fn begin(&mut self, plan: &Plan, batch: usize) -> Result<(), EmbedError> {
        let refuse = |key, found, expected| EmbedError::Plan {
            key,
            found,
            expected,
        };
        if !(plan.learning_rate > 0.0 && plan.learning_rate.is_finite()) {
            let expected = "a number above 0";
            return Err(refuse("learning_rate", plan.learning_rate, expected));
        }
        if !(0.0..1.0).contains(&plan.momentum) {
            return Err(refuse("momentum", plan.momentum, "0 or more, below 1"));
        }
        for (key, value) in [
            ("weight_decay", plan.weight_decay),
            ("proximal_mu", plan.proximal_mu),
            ("max_gradient_norm", plan.max_gradient_norm),
        ] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(refuse(key, value, "a number of at least 0"));
            }
        }
        let optimizer = Optimizer::Sgd {
            momentum: plan.momentum,
            nesterov: false,
            weight_decay: plan.weight_decay,
        };
        self.session.begin_round(plan.round);
        self.session.start(&self.global, &optimizer, batch.max(1));
        self.work = Some(Work {
            plan: *plan,
            optimizer,
            stream: Stream::at(
                Purpose::LocalTraining,
                Seed(plan.seed),
                RoundId(plan.round),
                ClientId(plan.client),
            ),
            steps: 0,
        });
        Ok(())
    }

    /// One step on a batch of examples with labels of classes; their mean loss before it.
    ///
    /// # Errors
    /// [`EmbedError::NotBegun`], [`EmbedError::Length`], [`EmbedError::Inputs`],
    /// [`EmbedError::NoClasses`]; [`EmbedError::Example`], after which training must begin again.
    pub fn step(&mut self, inputs: Inputs<'_>, labels: &[u32]) -> Result<f64, EmbedError> {
        let model = Arc::clone(self.session.model());
        let work = self.work.as_mut().ok_or(EmbedError::NotBegun)?;
        let batch = Batch::new(model.input(), model.target(), inputs, labels)?;
        if labels.is_empty() {
            return Ok(0.0);
        }
        self.rows.clear();
        self.rows.extend(0..labels.len() as u32);
        let step = Step {
            optimizer: work.optimizer,
            rate: work.plan.learning_rate,
            number: work.steps,
            max_norm: (work.plan.max_gradient_norm > 0.0).then_some(work.plan.max_gradient_norm),
            proximal_mu: work.plan.proximal_mu,
            anchor: &self.global,
        };
        match (self.session).step(&batch, &self.rows, &step, &mut work.stream) {
            Ok(loss) => {
                work.steps += 1;
                Ok(loss / labels.len() as f64)
            }
            Err(bad) => {
                self.work = None;
                Err(bad.into())
            }
        }
    }

    /// The update: the local parameters less the global ones.
    ///
    /// # Errors
    /// [`EmbedError::NotBegun`], [`EmbedError::Length`].
    pub fn update(&self, update: &mut [f32]) -> Result<(), EmbedError> {
        check_length("update", update.len(), self.parameters())?;
        if self.work.is_none() {
            return Err(EmbedError::NotBegun);
        }
        let pairs = self.session.weights().iter().zip(&self.global);
        for (value, (local, global)) in update.iter_mut().zip(pairs) {
            *value = local - global;
        }
        Ok(())
    }
}

/// A batch as the caller has it in memory.
struct Batch<'a> {
    input: &'a InputSpec,
    target: TargetSpec,
    inputs: Inputs<'a>,
    labels: &'a [u32],
}

impl<'a> Batch<'a> {
    fn new(
        input: &'a InputSpec,
        target: TargetSpec,
        inputs: Inputs<'a>,
        labels: &'a [u32],
    ) -> Result<Self, EmbedError> {
        if !matches!(target, TargetSpec::Class { .. }) {
            return Err(EmbedError::NoClasses);
        }
        match (input, inputs) {
            (InputSpec::Real(_), Inputs::Real(_))
            | (InputSpec::Tokens { .. }, Inputs::Tokens(_)) => {}
            (InputSpec::Real(_), Inputs::Tokens(_)) => {
                return Err(EmbedError::Inputs {
                    takes: "real numbers",
                });
            }
            (InputSpec::Tokens { .. }, Inputs::Real(_)) => {
                return Err(EmbedError::Inputs { takes: "tokens" });
            }
        }
        check_length("inputs", inputs.len(), labels.len() * input.len())?;
        Ok(Self {
            input,
            target,
            inputs,
            labels,
        })
    }
}

impl Examples for Batch<'_> {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn input(&self) -> &InputSpec {
        self.input
    }

    fn target(&self) -> TargetSpec {
        self.target
    }

    fn fill(&self, rows: &[u32], inputs: InputsMut<'_>, targets: TargetsMut<'_>) {
        let width = self.input.len();
        let place = |row: &u32| *row as usize * width..(*row as usize + 1) * width;
        match (self.inputs, inputs) {
            (Inputs::Real(from), InputsMut::Real(to)) => {
                for (to, row) in to.chunks_exact_mut(width).zip(rows) {
                    to.copy_from_slice(&from[place(row)]);
                }
            }
            (Inputs::Tokens(from), InputsMut::Tokens(to)) => {
                for (to, row) in to.chunks_exact_mut(width).zip(rows) {
                    to.copy_from_slice(&from[place(row)]);
                }
            }
            // The session asks for the kind that the model takes, which `new` has compared.
            _ => {}
        }
        if let TargetsMut::Classes(labels) = targets {
            for (label, row) in labels.iter_mut().zip(rows) {
                *label = self.labels[*row as usize];
            }
        }
    }
}
