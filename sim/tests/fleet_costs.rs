//! What training costs on a device, how far it is at any moment, whether it fits, and what lasts.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::num::NonZeroU32;

use fl_core::{
    BatchSize, ClientId, ExampleOrder, InputSpec, LearningRate, LocalPlan, LocalWork, Optimizer,
    Precision, Purpose, RoundId, Seed, Stream, TargetSpec, VirtualTime, WorkLimit,
};
use fl_edge::device::profile::Class;
use fl_edge::device::{Choice, DelegateKind, Heat, Request, Threads, Work, estimate};
use fl_edge::{Model, ModelDef};
use fl_sim::fleet::cost::duration;
use fl_sim::fleet::mix::DefaultRhythm;
use fl_sim::fleet::{
    Costs, DeviceConfig, Fleet, FleetState, MixConfig, Reason, Requirements, Session,
};

fn named(name: &str) -> MixConfig {
    MixConfig::Named(name.to_owned())
}

fn fleet(mix: MixConfig) -> Fleet {
    let config = DeviceConfig {
        mix,
        ..DeviceConfig::default()
    };
    Fleet::new(&config, Seed(1)).unwrap()
}

fn n(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

fn plan(work: LocalWork, batch: BatchSize) -> LocalPlan {
    LocalPlan {
        work,
        batch,
        order: ExampleOrder::Shuffled,
        optimizer: Optimizer::SGD,
        learning_rate: LearningRate::constant(0.1),
        max_gradient_norm: None,
        proximal_mu: 0.0,
        precision: Precision::F32,
        privacy: None,
    }
}

/// A small convolutional network.
fn model() -> Model {
    let def: ModelDef = serde_json::from_str(
        r#"{"layer":[{"kind":"conv2d","name":"c","filters":16,"kernel":5,"padding":"same","activation":"relu"},
        {"kind":"max-pool","size":2},{"kind":"flatten"},{"kind":"dense"}]}"#,
    )
    .unwrap();
    let input = InputSpec::Real(vec![28, 28, 1]);
    Model::new(&def, &input, TargetSpec::Class { classes: 62 }).unwrap()
}

fn stream(client: u64) -> Stream {
    Stream::at(
        Purpose::DeviceSession,
        Seed(1),
        RoundId(0),
        ClientId(client),
    )
}

fn close(found: f64, expected: f64, share: f64) {
    assert!(
        (found - expected).abs() <= share * expected.abs(),
        "{found} is not within {share} of {expected}"
    );
}

#[test]
fn a_step_costs_what_the_device_model_says() {
    let model = model();
    let fleet = fleet(MixConfig::default());
    let plan = plan(LocalWork::Epochs(n(1)), BatchSize::Examples(n(20)));
    let costs = Costs::new(&fleet, &model, &plan, 500).unwrap();
    let work = Work::training(model.graph());
    for client in 0..200 {
        let device = fleet.device(ClientId(client));
        let ask = |batch| {
            let request = Request {
                batch,
                threads: Threads::One,
                lost: device.lost(),
                avoid_slower: true,
                ..Request::default()
            };
            estimate(fleet.profile(&device), &work, &request).unwrap()
        };
        let (one, whole) = (ask(1), ask(20));
        let way = costs.way(&device);
        assert_eq!(way.choice, whole.choice);
        // Nothing but the CPU trains so far.
        assert_eq!(way.choice, Choice::Whole(DelegateKind::Cpu));
        close(way.step(1).seconds, one.seconds, 1e-12);
        close(way.step(20).seconds, whole.seconds, 1e-12);
        close(way.step(20).joules.total(), whole.joules, 1e-9);
        // On the line between the two, and beyond it.
        let line = |batch: f64| one.seconds + (batch - 1.0) / 19.0 * (whole.seconds - one.seconds);
        close(way.step(7).seconds, line(7.0), 1e-9);
        close(way.step(40).seconds, line(40.0), 1e-9);
    }
    // Where batches differ from client to client, those of powers of two are known.
    let shared = LocalPlan {
        batch: BatchSize::Full,
        ..plan
    };
    let costs = Costs::new(&fleet, &model, &shared, 500).unwrap();
    let device = fleet.device(ClientId(0));
    let request = Request {
        batch: 64,
        threads: Threads::One,
        avoid_slower: true,
        ..Request::default()
    };
    let exact = estimate(fleet.profile(&device), &work, &request).unwrap();
    close(costs.way(&device).step(64).seconds, exact.seconds, 1e-12);
}

#[test]
fn a_session_takes_its_steps_at_the_devices_speed() {
    let model = model();
    let fleet = fleet(MixConfig::default());
    let plan = plan(LocalWork::Epochs(n(3)), BatchSize::Examples(n(20)));
    let costs = Costs::new(&fleet, &model, &plan, 500).unwrap();
    for client in [0, 3, 8, 21] {
        let device = fleet.device(ClientId(client));
        let profile = fleet.profile(&device);
        let cold = Heat::rested(profile);
        let way = costs.way(&device);
        // 47 examples: two batches of 20 and one of 7, three times.
        let pass = 2.0 * way.step(20).seconds + way.step(7).seconds;
        let mut sum = 0.0;
        let draws = 3000;
        for draw in 0..draws {
            let done = costs
                .session(&device, cold, 47, WorkLimit::Full, &mut stream(draw))
                .unwrap();
            sum += done.seconds;
            // Cool throughout: power is the sum of both, and idle power is drawn all the time.
            let idle = profile.thermal.idle.value * done.seconds;
            close(done.joules.idle, idle, 1e-9);
            close(
                done.joules.cpu,
                profile.cpu.power.value * done.seconds,
                1e-6,
            );
            assert!(done.after.celsius > cold.celsius);
            close(
                done.after.celsius,
                cold.work(profile, done.seconds, profile.cpu.power.value)
                    .after
                    .celsius,
                1e-9,
            );
        }
        let expected = way.start_up + 3.0 * pass * profile.jitter.mean() / device.speed;
        close(sum / draws as f64, expected, 0.01);
    }
}

#[test]
fn a_long_session_throttles_and_the_next_one_begins_warm() {
    let model = model();
    let fleet = fleet(named("flagship-23"));
    let plan = plan(LocalWork::Epochs(n(40)), BatchSize::Examples(n(20)));
    let costs = Costs::new(&fleet, &model, &plan, 20_000).unwrap();
    let device = fleet.device(ClientId(4));
    let profile = fleet.profile(&device);
    let cold = Heat::rested(profile);
    let run = |heat, examples| {
        costs
            .session(&device, heat, examples, WorkLimit::Full, &mut stream(5))
            .unwrap()
    };
    let long = run(cold, 20_000);
    let cool =
        40.0 * 1000.0 * costs.way(&device).step(20).seconds * profile.jitter.mean() / device.speed;
    let slowdown = long.seconds / cool;
    assert!(slowdown > 1.05 && slowdown < 1.7, "{slowdown}");
    assert!(long.after.celsius >= profile.thermal.steps[0].above - 1e-6);
    let (warm, fresh) = (run(long.after, 200), run(cold, 200));
    assert!(warm.seconds > fresh.seconds);
}

/// Epochs done at a moment and the end of an epoch are each other's inverse.
fn check_progress(session: &Session, amount: u32) {
    let mut last = 0.0;
    for done in 1..=amount {
        let end = session.end_of(done).unwrap();
        assert!(end > last, "{done} of {amount}");
        // A hair before, one less is done.
        assert_eq!(session.done_by(end * (1.0 - 1e-9)), done - 1);
        assert_eq!(session.done_by(end * (1.0 + 1e-9)), done);
        last = end;
    }
    close(last, session.seconds, 1e-12);
    assert_eq!(session.done_by(0.0), 0);
    assert_eq!(session.done_by(f64::INFINITY), amount);
    assert_eq!(session.end_of(amount + 1), None);
}

#[test]
fn progress_is_known_at_any_moment() {
    let model = model();
    let fleet = fleet(MixConfig::default());
    let device = fleet.device(ClientId(1));
    let heat = Heat::rested(fleet.profile(&device));
    for (work, limit, amount) in [
        (LocalWork::Epochs(n(1)), WorkLimit::Full, 1),
        (LocalWork::Epochs(n(5)), WorkLimit::Full, 5),
        (LocalWork::Epochs(n(5)), WorkLimit::AtMost(n(2)), 2),
        (LocalWork::Epochs(n(300)), WorkLimit::Full, 300),
        (LocalWork::Steps(n(7)), WorkLimit::Full, 7),
        (LocalWork::Steps(n(1000)), WorkLimit::AtMost(n(130)), 130),
    ] {
        let costs =
            Costs::new(&fleet, &model, &plan(work, BatchSize::Examples(n(10))), 95).unwrap();
        let session = costs
            .session(&device, heat, 95, limit, &mut stream(1))
            .unwrap();
        check_progress(&session, amount);
    }
    // Ten steps of a client with two passes of five batches are two epochs.
    let batch = BatchSize::Examples(n(10));
    let time = |work| {
        let costs = Costs::new(&fleet, &model, &plan(work, batch), 95).unwrap();
        let mut sum = 0.0;
        for draw in 0..2000 {
            let done = costs.session(&device, heat, 45, WorkLimit::Full, &mut stream(draw));
            sum += done.unwrap().seconds;
        }
        sum / 2000.0
    };
    close(
        time(LocalWork::Steps(n(10))),
        time(LocalWork::Epochs(n(2))),
        0.01,
    );
    // A client without examples has nothing to do.
    let costs = Costs::new(&fleet, &model, &plan(LocalWork::Steps(n(10)), batch), 95).unwrap();
    let none = costs
        .session(&device, heat, 0, WorkLimit::Full, &mut stream(1))
        .unwrap();
    assert_eq!(
        (none.done_by(1e9), none.end_of(1), none.after),
        (0, None, heat)
    );
}

#[test]
fn a_training_that_does_not_fit_says_what_it_needs() {
    let model = model();
    let fleet = fleet(named("iot"));
    let small = plan(LocalWork::Epochs(n(1)), BatchSize::Examples(n(1)));
    let large = plan(LocalWork::Epochs(n(1)), BatchSize::Examples(n(64)));
    let costs = Costs::new(&fleet, &model, &small, 100).unwrap();
    // Runtime, and the global model that the update is taken from.
    let own = model.peak_bytes(1, true) + 4 * model.parameters();
    assert_eq!(costs.needs(), own as u64);
    let adam = LocalPlan {
        optimizer: Optimizer::Adam {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
            decoupled: false,
        },
        ..small
    };
    let with_state = Costs::new(&fleet, &model, &adam, 100).unwrap();
    assert_eq!(
        with_state.needs(),
        costs.needs() + 12 * model.parameters() as u64
    );
    let costs = Costs::new(&fleet, &model, &large, 100).unwrap();
    let (mut refused, mut taken) = (0, 0);
    let at = VirtualTime(0);
    let state = FleetState::default();
    for client in 0..1000 {
        let client = ClientId(client);
        let device = fleet.device(client);
        let heat = Heat::rested(fleet.profile(&device));
        let found = costs.session(&device, heat, 10, WorkLimit::Full, &mut stream(1));
        let eligible = fleet.eligible(client, at, 10, &costs, &state);
        match found {
            Err(unfit) => {
                refused += 1;
                assert_eq!(device.class, Class::Microcontroller);
                assert_eq!((unfit.needs, unfit.has), (costs.needs(), device.memory));
                assert!(
                    unfit
                        .to_string()
                        .contains("choose a smaller model or batch")
                );
                assert_eq!(eligible, Err(Reason::Memory));
            }
            Ok(_) => {
                taken += 1;
                assert_eq!(eligible, Ok(VirtualTime(u64::MAX)));
            }
        }
    }
    // 70 % are microcontrollers.
    assert!(
        (640..760).contains(&refused) && taken == 1000 - refused,
        "{refused}"
    );
}

#[test]
fn a_state_cools_charges_settles_and_comes_back() {
    let model = model();
    let config = DeviceConfig {
        rhythm: Some(DefaultRhythm::AlwaysOn),
        requirements: Requirements {
            min_battery: 0.9999,
            max_participations: Some(2),
            ..Requirements::default()
        },
        ..DeviceConfig::default()
    };
    let fleet = Fleet::new(&config, Seed(1)).unwrap();
    let plan = plan(LocalWork::Epochs(n(200)), BatchSize::Examples(n(20)));
    let costs = Costs::new(&fleet, &model, &plan, 500).unwrap();
    let client = ClientId(3);
    let device = fleet.device(client);
    let profile = fleet.profile(&device);
    let battery = device.battery.unwrap();
    let mut state = FleetState::default();
    let start = VirtualTime(5_000_000);
    let before = state.condition(&fleet, &device, start);
    assert_eq!(before.heat(), Heat::rested(profile));
    assert!((before.level(&device) - 1.0).abs() < 1e-12);
    let mut session = costs
        .session(&device, before.heat(), 500, WorkLimit::Full, &mut stream(9))
        .unwrap();
    // As if it drew more than any charger gives.
    session.joules.cpu += battery.charger * session.seconds + 100.0;
    state.record(&fleet, &device, RoundId(4), start, &session);
    let end = start + duration(session.seconds);
    let after = state.condition(&fleet, &device, end);
    let lacks =
        session.joules.total() - battery.charger * duration(session.seconds).0 as f64 * 1e-6;
    assert!(lacks > 0.0);
    close(after.missing, lacks, 1e-9);
    close(after.celsius, session.after.celsius, 1e-12);
    close(after.level(&device), 1.0 - lacks / battery.joules, 1e-9);
    assert_eq!(
        fleet.eligible(client, end, 500, &costs, &state),
        Err(Reason::Battery)
    );
    // Ten seconds later.
    let later = end + duration(10.0);
    let then = state.condition(&fleet, &device, later);
    close(
        then.missing,
        (lacks - 10.0 * battery.charger).max(0.0),
        1e-9,
    );
    close(
        then.celsius,
        session.after.rest(profile, 10.0).celsius,
        1e-12,
    );
    // It is kept until it is cool and full.
    state.settle(&fleet, later);
    assert!(state.is_kept(client));
    let bytes = postcard::to_allocvec(&state).unwrap();
    assert_eq!(postcard::from_bytes::<FleetState>(&bytes).unwrap(), state);
    let tau = profile.thermal.resistance.value * profile.thermal.capacity.value;
    let rest = Heat::rested(profile).celsius;
    let cooled = tau * ((session.after.celsius - rest) / 0.01).ln();
    let full = lacks / battery.charger;
    let settled = cooled.max(full);
    state.settle(&fleet, end + duration(settled - 1.0));
    assert!(state.is_kept(client));
    assert!(
        fleet
            .eligible(client, end + duration(full + 1.0), 500, &costs, &state)
            .is_ok()
    );
    state.settle(&fleet, end + duration(settled + 1.0));
    assert_eq!(state.kept(), 0);
    // Participations stay.
    let participation = state.participation(client);
    assert_eq!((participation.rounds, participation.last), (1, RoundId(4)));
    let again = end + duration(settled + 2.0);
    assert!(fleet.eligible(client, again, 500, &costs, &state).is_ok());
    state.record(&fleet, &device, RoundId(5), again, &session);
    let much_later = again + duration(1e6);
    assert_eq!(
        fleet.eligible(client, much_later, 500, &costs, &state),
        Err(Reason::Participations)
    );
    assert_eq!(
        fleet.eligible(client, again, 0, &costs, &state),
        Err(Reason::Examples)
    );
    assert_eq!(state.participations().count(), 1);
}
