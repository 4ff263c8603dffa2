//! Training a client: the order of its examples, the steps, and its update.

use alloc::borrow::ToOwned as _;
use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use fl_core::{
    ClientId, Evaluation, ExampleCount, Examples, FitTask, InputSpec, Layout, LocalResult,
    LocalWork, Mask, Parameters, Precision, TrainError, Trainer, WorkLimit,
};

use crate::arena::reserve;
use crate::kernel::{Kernels, LANES};
use crate::lanes::Lanes;
use crate::model::Model;
use crate::qat::QatForward;
use crate::session::{BadExample, Session, Step};

mod private;

/// Trains clients on one [`Session`], one after the other, or sixteen at once in the lanes of one
/// vectorised step where model and plan are simple enough. Which way changes no bit.
///
/// Each epoch takes the examples in the plan's [order](fl_core::ExampleOrder); batches follow that
/// order, and the last of an epoch may be smaller. Losses are added in order in `f64`.
///
/// Plans with [`LocalPlan::privacy`](fl_core::LocalPlan::privacy) are trained client by client with
/// [`Session::private_step`] and [`GaussianNoise`](crate::GaussianNoise), on every model whose
/// examples have gradients of their own: without batch normalisation, in 32-bit floats.
///
/// Under a [mask](Trainer::hold) clients are trained one by one.
#[derive(Debug)]
pub struct EdgeTrainer {
    kernels: &'static Kernels,
    session: Session,
    /// The session of quantization-aware training, once a client asked for it.
    qat: Option<Box<Session>>,
    lanes: Option<Lanes>,
    order: Vec<u32>,
    /// A sampled batch.
    rows: Vec<u32>,
    /// Weights that stay at zero.
    held: Option<Arc<Mask>>,
}

impl EdgeTrainer {
    /// A trainer of `model` with the fastest kernels of this machine.
    #[must_use]
    pub fn new(model: Arc<Model>) -> Self {
        Self::with_kernels(model, Kernels::best())
    }

    /// A trainer with the given kernels. All kernels give the same bits.
    #[must_use]
    pub fn with_kernels(model: Arc<Model>, kernels: &'static Kernels) -> Self {
        Self {
            lanes: Lanes::of(&model, kernels),
            session: Session::new(model, kernels),
            kernels,
            qat: None,
            order: Vec::new(),
            rows: Vec::new(),
            held: None,
        }
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Arc<Model> {
        self.session.model()
    }

    fn check(&self, parameters: usize, data: &dyn Examples) -> Result<(), TrainError> {
        let model = self.session.model();
        if parameters != model.parameters() {
            return Err(TrainError::ParameterMismatch {
                expected: model.parameters(),
                found: parameters,
            });
        }
        if data.input() != model.input() {
            return Err(TrainError::DataMismatch {
                expected: format!("inputs {:?}", model.input()),
                found: format!("inputs {:?}", data.input()),
            });
        }
        if data.target() != model.target() {
            return Err(TrainError::DataMismatch {
                expected: format!("targets {:?}", model.target()),
                found: format!("targets {:?}", data.target()),
            });
        }
        if u32::try_from(data.len()).is_err() {
            return Err(TrainError::Unsupported {
                what: format!("a client of {} examples", data.len()),
                instead: "give a client at most 4,294,967,295 examples".to_owned(),
            });
        }
        Ok(())
    }

    fn bad_example(&self, bad: BadExample, client: ClientId) -> TrainError {
        let model = self.session.model();
        match bad {
            BadExample::Label { row, label } => TrainError::LabelOutOfRange {
                client,
                row: row as usize,
                label,
                classes: crate::graph::target_width(model.target()),
            },
            BadExample::Token { row, token } => {
                let vocabulary = match model.input() {
                    InputSpec::Tokens { vocabulary, .. } => *vocabulary,
                    InputSpec::Real(_) => 0,
                };
                TrainError::DataMismatch {
                    expected: format!("tokens below {vocabulary}"),
                    found: format!("token {token} in example {row} of client {client}"),
                }
            }
        }
    }

    fn check_task(&self, parameters: &[f32], task: &FitTask<'_>) -> Result<(), TrainError> {
        self.check(parameters.len(), task.data)?;
        if task.update.len() != parameters.len() {
            return Err(TrainError::ParameterMismatch {
                expected: parameters.len(),
                found: task.update.len(),
            });
        }
        if task.data.is_empty() {
            return Err(TrainError::NoExamples(task.client));
        }
        let model = self.session.model();
        match task.plan.precision {
            Precision::F32 => Ok(()),
            Precision::QatInt8 if model.qat_options().is_some() => Ok(()),
            Precision::QatInt8 => Err(TrainError::Unsupported {
                what: "quantization-aware training of a model without ranges".to_owned(),
                instead: "make the model with `Model::with_ranges`".to_owned(),
            }),
            other => Err(TrainError::Unsupported {
                what: format!("training in {other:?}"),
                instead: "choose precision = \"f32\" or \"qat-int8\"".to_owned(),
            }),
        }
    }

    /// Trains one client; its update goes into the task.
    fn fit_one(
        &mut self,
        global: &Parameters,
        task: &mut FitTask<'_>,
    ) -> Result<LocalResult, TrainError> {
        let parameters = global.values();
        self.check_task(parameters, task)?;
        if let Some(privacy) = task.plan.privacy {
            return self.fit_privately(global.values(), task, &privacy);
        }
        let examples = task.data.len();
        let plan = task.plan;
        let batch = plan.batch.examples(examples as u64) as usize;
        let (epochs, steps) = work(plan.work, task.limit);
        let options = self.session.model().qat_options();
        let quantized = options.is_some_and(|options| task.round.0 >= options.delay);
        let session = match plan.precision {
            Precision::QatInt8 if quantized => {
                if self.qat.is_none() {
                    let model = Arc::clone(self.session.model());
                    let forward = QatForward::Integer;
                    self.qat =
                        Session::quantization_aware(model, self.kernels, forward).map(Box::new);
                    if let Some(session) = &mut self.qat {
                        session.hold(self.held.clone());
                    }
                }
                self.qat.as_deref_mut().unwrap_or(&mut self.session)
            }
            _ => &mut self.session,
        };
        session.begin_round(task.round.0);
        session.start(parameters, &plan.optimizer, batch);
        let visits = match plan.work {
            LocalWork::Epochs(_) => epochs,
            LocalWork::Steps(_) => (steps * batch as u64).div_ceil(examples as u64),
        };
        if visits > 1 {
            session.keep_answers(examples);
        }
        reserve(&mut self.order, examples);
        let mut result = LocalResult {
            examples: ExampleCount(examples as u64),
            ..LocalResult::default()
        };
        let mut loss = 0.0;
        let mut epoch = 0;
        while epoch < epochs && result.steps < steps {
            epoch += 1;
            let order = &mut self.order[..examples];
            plan.order.pass(order, &mut task.stream);
            for rows in self.order[..examples].chunks(batch) {
                if result.steps == steps {
                    break;
                }
                let step = Step {
                    optimizer: plan.optimizer,
                    rate: plan.learning_rate.rate(task.round, result.steps),
                    number: result.steps,
                    max_norm: plan.max_gradient_norm,
                    proximal_mu: plan.proximal_mu,
                    anchor: parameters,
                };
                loss += match session.step(task.data, rows, &step, &mut task.stream) {
                    Ok(loss) => loss,
                    Err(bad) => return Err(self.bad_example(bad, task.client)),
                };
                result.steps += 1;
                result.examples_processed += rows.len() as u64;
            }
        }
        result.mean_loss = loss / result.examples_processed as f64;
        let local = session.weights();
        for ((update, local), global) in task.update.iter_mut().zip(local).zip(parameters) {
            *update = local - global;
        }
        Ok(result)
    }
}

/// The most epochs and the most steps.
pub(crate) fn work(work: LocalWork, limit: WorkLimit) -> (u64, u64) {
    let limited = |amount: u32| match limit {
        WorkLimit::Full => u64::from(amount),
        WorkLimit::AtMost(most) => u64::from(amount.min(most.get())),
    };
    match work {
        LocalWork::Epochs(epochs) => (limited(epochs.get()), u64::MAX),
        LocalWork::Steps(steps) => (u64::MAX, limited(steps.get())),
    }
}

impl Trainer for EdgeTrainer {
    fn layout(&self) -> &Arc<Layout> {
        self.session.model().layout()
    }

    fn lanes(&self) -> usize {
        match self.lanes {
            Some(_) => LANES,
            None => 1,
        }
    }

    fn fit(
        &mut self,
        global: &Parameters,
        tasks: &mut [FitTask<'_>],
        results: &mut [LocalResult],
    ) -> Result<(), TrainError> {
        let count = tasks.len().min(results.len());
        let (tasks, results) = (&mut tasks[..count], &mut results[..count]);
        let held = self.held.is_some();
        if let Some(mut lanes) = (self.lanes).take_if(|lanes| !held && lanes.suit(tasks)) {
            let checked = tasks
                .iter()
                .try_for_each(|task| self.check_task(global.values(), task));
            let trained = checked.and_then(|()| {
                lanes
                    .fit(global.values(), tasks, results)
                    .map_err(|(task, bad)| self.bad_example(bad, tasks[task].client))
            });
            self.lanes = Some(lanes);
            return trained;
        }
        for (task, result) in tasks.iter_mut().zip(results) {
            *result = self.fit_one(global, task)?;
        }
        Ok(())
    }

    fn hold(&mut self, pruned: Option<&Arc<Mask>>) -> Result<(), TrainError> {
        let expected = self.model().parameters();
        if let Some(mask) = pruned
            && mask.parameters() != expected
        {
            return Err(TrainError::ParameterMismatch {
                expected,
                found: mask.parameters(),
            });
        }
        self.held = pruned.cloned();
        self.session.hold(pruned.cloned());
        if let Some(session) = &mut self.qat {
            session.hold(pruned.cloned());
        }
        Ok(())
    }

    fn evaluate(
        &mut self,
        parameters: &[f32],
        data: &dyn Examples,
        rows: core::ops::Range<usize>,
    ) -> Result<Evaluation, TrainError> {
        self.check(parameters.len(), data)?;
        let rows = rows.start.min(data.len()) as u32..rows.end.min(data.len()) as u32;
        self.session
            .judge(parameters, data, rows)
            .map_err(|bad| self.bad_example(bad, ClientId(0)))
    }
}
