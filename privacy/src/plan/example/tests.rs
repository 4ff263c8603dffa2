use fl_core::ExampleClipping;

use super::*;
use crate::accountant::AccountantKind;
use crate::relation::NeighboringRelation;
use crate::units::Delta;

fn schedule(sampling_rate: f64, steps: u64) -> ExampleSchedule {
    ExampleSchedule {
        sampling_rate,
        steps,
    }
}

fn config(schedules: Vec<ExampleSchedule>, rounds: u64) -> ExamplePlanConfig {
    ExamplePlanConfig {
        schedules,
        clients: 4,
        examples: 10_000,
        rounds,
        participations: None,
        clipping: ExampleClipping::Flat,
        max_norm: 1.0,
        noise_multiplier: None,
        epsilon: Some(Epsilon::new(2.0).unwrap()),
        delta: Delta::new(1e-5).unwrap(),
        accountant: AccountantKind::Pld,
    }
}

fn noise(multiplier: f64) -> Option<NoiseMultiplier> {
    Some(NoiseMultiplier::new(multiplier).unwrap())
}

/// What the accountant says of so many steps, by itself.
fn epsilon(rate: f64, noise: f64, steps: u64, delta: f64) -> f64 {
    let noise = NoiseMultiplier::new(noise).unwrap();
    let mut sum = accountant(AccountantKind::Pld, NeighboringRelation::AddOrRemoveOne);
    let event = DpEvent::poisson_sampled(rate, DpEvent::gaussian(noise)).unwrap();
    sum.compose(&event, steps).unwrap();
    sum.epsilon(Delta::new(delta).unwrap()).unwrap().upper.get()
}

/// The known point sigma 1, rate 0.01, 1000 steps, delta 1e-5: 1.8282, as ten rounds of 100 steps.
#[test]
fn a_run_costs_what_all_its_steps_cost() {
    let each = schedule(0.01, 100);
    let mut plan = ExamplePlan::new(ExamplePlanConfig {
        noise_multiplier: noise(1.0),
        epsilon: None,
        ..config(vec![each], 10)
    })
    .unwrap();
    assert_eq!(plan.spent().unwrap().epsilon.upper, Epsilon::ZERO);
    for round in 0..10 {
        // The second client takes part in every other round.
        let clients = [(5, each), (9, each)];
        let clients = &clients[..1 + usize::from(round % 2 == 0)];
        let permit = plan.authorise(round, clients).unwrap();
        plan.record(permit);
        let spent = plan.spent().unwrap();
        let expected = epsilon(0.01, 1.0, 100 * (round + 1), 1e-5);
        assert_eq!(
            spent.epsilon.upper,
            Epsilon::new(expected).unwrap(),
            "after round {round}"
        );
        assert_eq!(spent.unamplified, spent.epsilon.upper);
    }
    let spent = plan.spent().unwrap().epsilon;
    assert!((spent.upper.get() - 1.8282).abs() < 1e-4, "{spent:?}");
    assert!(spent.lower.get() > 1.8);
    assert_eq!(plan.spent_after(10).unwrap().epsilon, spent);
    assert_eq!((plan.participations(5), plan.participations(9)), (10, 5));
}

#[test]
fn noise_is_calibrated_for_the_dearest_client() {
    let schedules = vec![
        schedule(0.01, 100),
        schedule(0.05, 20),
        schedule(0.002, 500),
    ];
    let plan = ExamplePlan::new(config(schedules.clone(), 8)).unwrap();
    let noise = plan.noise_multiplier().get();
    let each = schedules.iter();
    let worst = each
        .map(|s| epsilon(s.sampling_rate, noise, 8 * s.steps, 1e-5))
        .fold(0.0, f64::max);
    assert!(worst <= 2.0 && worst > 2.0 - 1e-3, "{worst}");
    // Half as many participations need less noise.
    let fewer = ExamplePlanConfig {
        participations: Some(4),
        ..config(schedules, 8)
    };
    let fewer = ExamplePlan::new(fewer).unwrap();
    assert!(fewer.noise_multiplier().get() < noise);
    assert!(fewer.spent_after(8).unwrap().epsilon.upper.get() <= 2.0);
    assert_eq!(fewer.spent_after(4).unwrap(), fewer.spent_after(8).unwrap());
}

/// Splitting the worst part finds the client that trying all of them finds.
#[test]
fn the_dearest_client_is_found() {
    let target = config(vec![], 1).target();
    let noise = NoiseMultiplier::new(1.1).unwrap();
    // As clients of 40 to 4,000 examples with batches of 20 in 3 epochs have them.
    let clients: Vec<(ExampleSchedule, u64)> = (1..=100u32)
        .map(|part| {
            let rate = 20.0 / (40.0 * f64::from(part));
            let steps = 3 * (1.0 / rate) as u64 + u64::from(part % 7);
            (schedule(rate, steps), 1 + u64::from(part % 5))
        })
        .collect();
    let (found, dearest) = worst(&target, noise, clients.iter().copied()).unwrap();
    let all = clients.iter().map(|(s, count)| {
        let steps = s.steps * count;
        (epsilon(s.sampling_rate, 1.1, steps, 1e-5), *s)
    });
    let best = all.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
    assert_eq!(found.upper, Epsilon::new(best.0).unwrap());
    assert_eq!(dearest, best.1);
}

#[test]
fn a_client_stops_before_it_overspends() {
    let (small, large) = (schedule(0.1, 10), schedule(0.01, 10));
    let config = ExamplePlanConfig {
        noise_multiplier: noise(2.0),
        clients: 2,
        ..config(vec![small, large], 60)
    };
    let mut plan = ExamplePlan::new(config.clone()).unwrap();
    let most = plan.most_participations(&small).unwrap();
    assert!(epsilon(0.1, 2.0, 10 * most, 1e-5) <= 2.0);
    assert!(epsilon(0.1, 2.0, 10 * (most + 1), 1e-5) > 2.0);
    assert_eq!(plan.most_participations(&large).unwrap(), 60);
    let mut round = 0;
    while plan.affords(0, &small).unwrap() {
        let permit = plan.authorise(round, &[(0, small), (1, large)]).unwrap();
        plan.record(permit);
        round += 1;
    }
    assert_eq!(round, most);
    let spent = plan.spent().unwrap();
    let error = plan
        .authorise(round, &[(1, large), (0, small)])
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with(&format!("event {} (`", most + 1)),
        "{error}"
    );
    assert!(matches!(error, PrivacyError::OverBudget { .. }));
    assert_eq!(plan.spent().unwrap(), spent, "a refusal changes nothing");
    assert!(plan.has_budget() && plan.refusal().unwrap().is_none());
    // The other goes on, and from a saved plan just the same.
    let mut resumed = ExamplePlan::resume(config, round, &plan.save()).unwrap();
    for round in round..60 {
        for plan in [&mut plan, &mut resumed] {
            assert!(!plan.affords(0, &small).unwrap());
            let permit = plan.authorise(round, &[(1, large)]).unwrap();
            plan.record(permit);
        }
    }
    assert_eq!(plan.save(), resumed.save());
    assert!(!plan.has_budget() && !resumed.has_budget());
    assert!(matches!(
        plan.refusal().unwrap(),
        Some(PrivacyError::OverBudget { .. })
    ));
    assert!(plan.spent().unwrap().epsilon.upper.get() <= 2.0);
}

#[test]
fn what_cannot_be_accounted_is_refused() {
    let each = schedule(0.1, 10);
    let base = config(vec![each], 5);
    let cases: [(ExamplePlanConfig, &str); 9] = [
        (
            ExamplePlanConfig {
                delta: Delta::new(1e-4).unwrap(),
                ..base.clone()
            },
            "delta is 0.0001, which is not below one over the 10000 protected examples",
        ),
        (
            ExamplePlanConfig {
                epsilon: None,
                ..base.clone()
            },
            "neither epsilon nor a noise multiplier is given",
        ),
        (
            ExamplePlanConfig {
                noise_multiplier: noise(0.1),
                ..base.clone()
            },
            "would overspend the privacy budget: spent epsilon 0",
        ),
        (
            ExamplePlanConfig {
                accountant: AccountantKind::Gaussian,
                ..base.clone()
            },
            "the gaussian accountant has no proven bound",
        ),
        (
            ExamplePlanConfig {
                schedules: vec![],
                ..base.clone()
            },
            "the number of schedules of clients is 0",
        ),
        (
            ExamplePlanConfig {
                schedules: vec![schedule(1.5, 1)],
                ..base.clone()
            },
            "the sampling rate of examples is 1.5",
        ),
        (
            ExamplePlanConfig {
                schedules: vec![schedule(0.5, 0)],
                ..base.clone()
            },
            "the number of private steps of a round is 0",
        ),
        (
            ExamplePlanConfig {
                max_norm: f64::NAN,
                ..base.clone()
            },
            "max_norm is NaN",
        ),
        (
            ExamplePlanConfig {
                participations: Some(0),
                ..base.clone()
            },
            "the most participations of a client is 0",
        ),
    ];
    for (config, message) in cases {
        let error = ExamplePlan::new(config).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    let mut plan = ExamplePlan::new(base.clone()).unwrap();
    let permit = plan.authorise(0, &[(1, each)]).unwrap();
    plan.record(permit);
    assert!(matches!(
        plan.authorise(0, &[]),
        Err(PrivacyError::WrongRound { given: 0, next: 1 })
    ));
    assert!(matches!(
        plan.authorise(1, &[(1, schedule(0.2, 10))]),
        Err(PrivacyError::OffSchedule { position: 2, .. })
    ));
    let saved = plan.save();
    let other = ExamplePlanConfig {
        max_norm: 2.0,
        ..base.clone()
    };
    for (config, round, text, what) in [
        (other, 1, saved.clone(), "configuration"),
        (base.clone(), 2, saved.clone(), "number of rounds"),
        (
            base.clone(),
            1,
            saved.replace("\"participations\":1}", "\"participations\":2}"),
            "ledger",
        ),
    ] {
        let error = ExamplePlan::resume(config, round, &text).unwrap_err();
        assert_eq!(error, PrivacyError::OtherPlan { what });
    }
    assert!(matches!(
        ExamplePlan::resume(base, 1, ""),
        Err(PrivacyError::Malformed { .. })
    ));
}

#[test]
fn the_statement_says_what_is_promised() {
    let plan = ExamplePlan::new(config(vec![schedule(0.01, 100)], 10)).unwrap();
    let text = plan.statement(10).unwrap().to_string();
    for part in [
        "1e-5)-differential privacy per example (replace-special) after 10 rounds, in which a \
         client takes part at most 10 times; pld accountant",
        "a time is 100 steps of Gaussian noise with multiplier",
        "probability 1.000e-2",
        "the server knows no more than everybody",
        "how many examples a client has",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let mut plan = plan;
    for round in 0..2 {
        let permit = plan.authorise(round, &[(round, schedule(0.01, 100))]);
        plan.record(permit.unwrap());
    }
    let text = plan.statement(2).unwrap().to_string();
    assert!(
        text.contains("after 2 rounds, in which a client takes part at most 1 times"),
        "{text}"
    );
    let clipped = ExamplePlan::new(ExamplePlanConfig {
        noise_multiplier: noise(0.0),
        epsilon: None,
        ..config(vec![schedule(0.01, 100)], 10)
    });
    let text = clipped.unwrap().statement(10).unwrap().to_string();
    assert_eq!(
        text,
        "NO differential privacy: gradients are clipped and no noise is added"
    );
}
