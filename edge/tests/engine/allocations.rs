//! A warm trainer allocates nothing: not for a step, not for a client, not for an evaluation.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::num::NonZeroU32;
use std::sync::Arc;

use crate::common::{Case, Synthetic, operators, stream};
use fl_core::{
    BatchSize, ClientId, ExampleOrder, ExamplePrivacy, FitTask, InputSpec, LearningRate, LocalPlan,
    LocalResult, LocalWork, Optimizer, Parameters, Precision, RoundId, TargetSpec, Trainer as _,
    WorkLimit,
};
use fl_edge::kernel::Kernels;
use fl_edge::qat::QatOptions;
use fl_edge::{Clipping, DpSgd, EdgeTrainer, GaussianNoise, Model, Session, Step};

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
    /// Bytes that this thread has allocated and not freed, and their maximum.
    static LIVE: Cell<i64> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
}

fn grow(bytes: i64) {
    let live = LIVE.with(Cell::get) + bytes;
    LIVE.with(|cell| cell.set(live));
    PEAK.with(|cell| cell.set(cell.get().max(live)));
}

/// Allocations while `run` runs, and the most bytes that it held at once.
pub(crate) fn measured(run: impl FnOnce()) -> (u64, i64) {
    let (calls, live) = (CALLS.with(Cell::get), LIVE.with(Cell::get));
    PEAK.with(|cell| cell.set(live));
    run();
    (CALLS.with(Cell::get) - calls, PEAK.with(Cell::get) - live)
}

/// What `make` gives, and the bytes that it still holds.
pub(crate) fn held<T>(make: impl FnOnce() -> T) -> (T, i64) {
    let live = LIVE.with(Cell::get);
    let made = make();
    (made, LIVE.with(Cell::get) - live)
}

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; counting touches only a
// thread-local number without destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.with(|calls| calls.set(calls.get() + 1));
        grow(layout.size() as i64);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        grow(-(layout.size() as i64));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        CALLS.with(|calls| calls.set(calls.get() + 1));
        grow(size as i64 - layout.size() as i64);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn plan(optimizer: Optimizer, batch: BatchSize, max_gradient_norm: Option<f32>) -> LocalPlan {
    LocalPlan {
        work: LocalWork::Epochs(NonZeroU32::new(2).expect("not zero")),
        batch,
        order: ExampleOrder::Shuffled,
        optimizer,
        learning_rate: LearningRate::constant(0.01),
        max_gradient_norm,
        proximal_mu: 0.1,
        precision: Precision::F32,
        privacy: None,
    }
}

/// Clients in a call: more than there are lanes, so that some take a lane over.
const CLIENTS: usize = 18;

/// Trains all clients in one call, in lanes where the model allows it, and evaluates.
fn fit(
    trainer: &mut EdgeTrainer,
    global: &Parameters,
    data: &Synthetic,
    plan: &LocalPlan,
    updates: &mut [Vec<f32>; CLIENTS],
) {
    let mut client = 0;
    let mut tasks = updates.each_mut().map(|update| {
        client += 1;
        FitTask {
            client: ClientId(client),
            round: RoundId(0),
            data,
            plan,
            limit: WorkLimit::Full,
            stream: stream(client),
            update,
        }
    });
    let mut results = [LocalResult::default(); CLIENTS];
    trainer
        .fit(global, &mut tasks, &mut results)
        .expect("trains");
    trainer
        .evaluate(global.values(), data, 0..13)
        .expect("evaluates");
}

#[test]
fn a_warm_client_allocates_nothing() {
    let adam = Optimizer::Adam {
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.0,
        decoupled: false,
    };
    let eight = BatchSize::Examples(NonZeroU32::new(8).expect("not zero"));
    let plans = [
        plan(Optimizer::SGD, eight, None),
        plan(adam, eight, Some(1.0)),
        plan(Optimizer::SGD, BatchSize::Full, None),
    ];
    let mut cases = operators();
    cases.push(Case::new(
        "cnn-fedavg",
        "kind = \"cnn-fedavg\"",
        &InputSpec::Real(vec![8, 8, 1]),
        TargetSpec::Class { classes: 10 },
    ));
    let in_lanes = cases
        .iter()
        .filter(|case| EdgeTrainer::new(case.model.clone()).lanes() > 1);
    assert!(in_lanes.count() > 0, "some models train in lanes");
    for case in &cases {
        let data = case.data(21);
        let global = case.model.init(&mut stream(3));
        let mut updates = [(); CLIENTS].map(|()| vec![0.0; case.model.parameters()]);
        let mut trainer = EdgeTrainer::new(case.model.clone());
        let private = [Optimizer::SGD, adam].map(|optimizer| LocalPlan {
            privacy: Some(ExamplePrivacy::flat(0.1, 1.0)),
            ..plan(optimizer, eight, None)
        });
        let private = match case.has_batch_norm() {
            true => [].iter(),
            false => private.iter(),
        };
        for plan in plans.iter().chain(private) {
            fit(&mut trainer, &global, &data, plan, &mut updates);
            let smaller = case.data(13);
            let before = CALLS.with(Cell::get);
            fit(&mut trainer, &global, &data, plan, &mut updates);
            fit(&mut trainer, &global, &smaller, plan, &mut updates);
            let calls = CALLS.with(Cell::get) - before;
            assert_eq!(calls, 0, "{}", case.name);
        }
        if case.has_batch_norm() {
            continue;
        }
        let mut session = Session::new(case.model.clone(), Kernels::best());
        session.start(global.values(), &Optimizer::SGD, 8);
        let mut random = stream(5);
        let mut noise = GaussianNoise::new(&mut stream(6));
        let dp = DpSgd::new(Clipping::PerLayer, 0.1, 1.0, 8.0).expect("in range");
        let mut clip = |session: &mut Session, rows: &[u32]| {
            let step = Step {
                optimizer: Optimizer::SGD,
                rate: 0.1,
                number: 0,
                max_norm: None,
                proximal_mu: 0.0,
                anchor: global.values(),
            };
            session
                .private_step(
                    &data,
                    rows,
                    &dp,
                    &step,
                    &mut random,
                    &mut |scale, values| {
                        noise.add(scale, values);
                    },
                )
                .expect("good examples");
            session
                .clipped_gradient(&data, rows, 0.1, &mut random)
                .expect("good examples");
            session
                .per_example_norms(&data, rows, &mut random)
                .expect("good examples");
        };
        clip(&mut session, &[3, 1, 4, 1, 5, 9, 2, 6]);
        let before = CALLS.with(Cell::get);
        clip(&mut session, &[2, 7, 1]);
        clip(&mut session, &[1, 8, 2, 8, 1, 8, 2, 8]);
        let calls = CALLS.with(Cell::get) - before;
        assert_eq!(calls, 0, "{} example by example", case.name);
    }
}

/// Nor does quantization-aware training, with the statistics of batches and with running ones.
#[test]
fn a_warm_client_of_quantization_aware_training_allocates_nothing() {
    let eight = BatchSize::Examples(NonZeroU32::new(8).expect("not zero"));
    for case in operators() {
        let model = Model::new(&case.def, case.model.input(), case.model.target());
        let frozen = QatOptions {
            freeze_statistics: Some(0),
            ..QatOptions::default()
        };
        let Ok(model) = model.and_then(|model| model.with_ranges(frozen)) else {
            continue;
        };
        let model = Arc::new(model);
        let data = case.data(21);
        let global = model.init(&mut stream(3));
        let mut updates = [(); CLIENTS].map(|()| vec![0.0; model.parameters()]);
        let mut trainer = EdgeTrainer::new(model);
        let plan = LocalPlan {
            precision: Precision::QatInt8,
            ..plan(Optimizer::SGD, eight, None)
        };
        fit(&mut trainer, &global, &data, &plan, &mut updates);
        let before = CALLS.with(Cell::get);
        fit(&mut trainer, &global, &data, &plan, &mut updates);
        let calls = CALLS.with(Cell::get) - before;
        assert_eq!(calls, 0, "{}", case.name);
    }
}
