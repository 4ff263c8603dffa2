use fl_core::{Purpose, RoundId, Seed, Stream};

use super::*;
use crate::accountant::AccountantKind;
use crate::accountant::accountant;
use crate::clip::l2_norm;
use crate::distributed::DistributedNoise;
use crate::relation::NeighboringRelation;
use crate::sampling::Sampler;
use crate::statistics::{kolmogorov_smirnov, normal_cdf};
use crate::units::Delta;

const N: u64 = 100;
const VALUES: usize = 500;

fn delta(value: f64) -> Delta {
    Delta::new(value).unwrap()
}

fn epsilon(value: f64) -> Epsilon {
    Epsilon::new(value).unwrap()
}

fn noise(value: f64) -> NoiseMultiplier {
    NoiseMultiplier::new(value).unwrap()
}

fn ring(bits: u32) -> ClientNoise {
    ClientNoise::Distributed(RingNoise {
        bits: Some(bits),
        ..RingNoise::default()
    })
}

fn config(noise: ClientNoise, cohort: u64, rounds: u64) -> ClientPlanConfig {
    let sampler = Sampler::fixed_size(N, cohort).unwrap();
    ClientPlanConfig {
        epsilon: Some(epsilon(8.0)),
        ..ClientPlanConfig::new(noise, sampler, 0.5, delta(1e-4), rounds)
    }
}

fn plan(config: ClientPlanConfig) -> ClientPlan {
    ClientPlan::new(config, VALUES).unwrap()
}

fn clients(range: core::ops::Range<u64>) -> Vec<ClientId> {
    range.map(ClientId).collect()
}

fn stream(purpose: Purpose, round: u64, client: u64) -> Stream {
    Stream::at(purpose, Seed(5), RoundId(round), ClientId(client))
}

fn update(client: u64) -> Vec<f32> {
    let mut values = vec![0.0; VALUES];
    gaussian::fill(
        &mut stream(Purpose::LocalTraining, 0, client),
        0.05,
        &mut values,
    );
    values
}

/// What the accountant says of an event, so many times.
fn cost(kind: AccountantKind, event: &DpEvent, count: u64, delta: f64) -> f64 {
    let mut sum = accountant(kind, NeighboringRelation::ReplaceOne);
    sum.compose(event, count).unwrap();
    let delta = Delta::new(delta).unwrap();
    sum.epsilon(delta).unwrap().upper.get()
}

/// A client of local noise is in so many rounds as its own law says, and its loss is that of one
/// Gaussian release of as much less noise.
#[test]
fn local_noise_protects_from_the_server_over_the_own_rounds() {
    let plan = plan(config(ClientNoise::Local, 10, 40));
    let most = plan.participations();
    // The tail of the binomial law, added up by itself: 100 clients, 40 rounds, a tenth each.
    let tail = |more_than: u64| -> f64 {
        let choose = |k: u64| (1..=k).fold(1.0, |c, i| c * (40 - k + i) as f64 / i as f64);
        let term = |k: u64| choose(k) * 0.1f64.powi(k as i32) * 0.9f64.powi(40 - k as i32);
        (more_than + 1..=40).map(term).sum()
    };
    assert!(100.0 * tail(most) <= 1e-7 && 100.0 * tail(most - 1) > 1e-7);
    assert!(most > 10 && most < 25, "{most}");
    let all_at_once = noise(plan.noise_multiplier().get() / (most as f64).sqrt());
    let one = DpEvent::gaussian(all_at_once);
    let exact = cost(AccountantKind::Gaussian, &one, 1, 1e-4);
    let declared = plan.declared(40).unwrap();
    assert!((declared.unamplified.get() / exact - 1.0).abs() < 1e-9);
    assert!(exact <= 8.0 && exact > 7.99, "{exact}");
    // Released models: the noise of eight clients at least, and nobody knows who they were.
    let together = DpEvent::gaussian(noise(plan.noise_multiplier().get() * 8f64.sqrt()));
    let sampled = DpEvent::sampled_without_replacement(N, 10, together).unwrap();
    let central = cost(AccountantKind::Pld, &sampled, 40, 1e-4 * (1.0 - 1e-3));
    let released = declared.epsilon.upper.get();
    assert!(
        (released / central - 1.0).abs() < 1e-6,
        "{released} {central}"
    );
    assert!(released < 1.0, "{released}");
    // What a client sends is its clipped update and noise of that size.
    let mut sent = update(3);
    let clipped = plan
        .protect(&mut sent, &mut stream(Purpose::LocalNoise, 0, 3))
        .unwrap();
    assert!(clipped.norm > 0.5);
    let mut clear = update(3);
    plan.clip.clip(&mut clear);
    let scaled: Vec<f64> = sent
        .iter()
        .zip(&clear)
        .map(|(sent, clear)| f64::from(sent - clear) / plan.local_std())
        .collect();
    kolmogorov_smirnov(&scaled, normal_cdf);
    let sensitivity = 2.0 * 0.5;
    let std = plan.noise_multiplier().get() * sensitivity;
    assert!((plan.local_std() / std - 1.0).abs() < 1e-12);
    assert!(plan.ring().is_none() && plan.statement(40).unwrap().trust == TrustModel::Local);
}

/// Rounds through the ring with clients that drop out: the mean is that of the clipped updates of
/// those who reported, and its noise, over eight rounds, is normal of the stated size.
#[test]
fn the_mean_of_a_ring_has_the_noise_of_those_who_reported() {
    for mechanism in [
        DistributedNoise::Skellam,
        DistributedNoise::DiscreteGaussian,
    ] {
        let own = RingNoise {
            mechanism,
            ..RingNoise::default()
        };
        let mut plan = plan(config(ClientNoise::Distributed(own), 30, 8));
        assert_eq!(plan.least_survivors(), 24);
        let mut errors = Vec::new();
        for round in 0..8 {
            let reports = clients(round * 5..round * 5 + 24 + round % 5);
            let dp = plan.ring().unwrap();
            let rotation = Rotation::new(&mut stream(Purpose::Rotation, round, 0), dp.padded());
            let mut sum = ModularSum::new(dp.config().bits, dp.padded()).unwrap();
            let (mut expected, mut vector) = (vec![0.0; VALUES], Vec::new());
            for &ClientId(client) in &reports {
                let mut update = update(client);
                let (mut rounding, mut noise) = (
                    stream(Purpose::UpdateCodec, round, client),
                    stream(Purpose::LocalNoise, round, client),
                );
                plan.encode(
                    &mut update,
                    &rotation,
                    &mut rounding,
                    &mut noise,
                    &mut vector,
                )
                .unwrap();
                assert!(l2_norm(&update) <= 0.5);
                sum.add(&vector).unwrap();
                for (sum, value) in expected.iter_mut().zip(&update) {
                    *sum += f64::from(*value);
                }
            }
            assert_eq!(sum.wrapped(), 0);
            let std = plan.sum_std(reports.len() as u64);
            let permit = plan.authorise(round, &reports).unwrap();
            assert_eq!(
                (permit.round(), permit.reports()),
                (round, reports.len() as u64)
            );
            let mean = plan.decode(permit, &sum, &rotation).unwrap();
            let count = reports.len() as f64;
            errors.extend(
                mean.iter()
                    .zip(&expected)
                    .map(|(mean, expected)| (mean * count - expected) / std),
            );
        }
        // Rounding is the rest: below one percent, of 4000 numbers.
        assert!(plan.ring().unwrap().rounding_share() < 0.01);
        kolmogorov_smirnov(&errors, normal_cdf);
        let square = errors.iter().map(|error| error * error).sum::<f64>() / errors.len() as f64;
        assert!((square - 1.0).abs() < 0.08, "{square}");
        let spent = plan.spent().unwrap();
        assert!(spent.unamplified <= plan.declared(8).unwrap().unamplified);
        assert!(spent.epsilon.upper <= spent.unamplified);
    }
}

/// The server of a ring: as many events as a client has rounds, of the honest clients' noise.
#[test]
fn the_server_of_a_ring_sees_the_honest_noise() {
    let base = config(ring(24), 20, 30);
    let honest = plan(base.clone());
    let colluding = plan(ClientPlanConfig {
        colluding_share: 0.25,
        ..base.clone()
    });
    assert_eq!((honest.colluders(), colluding.colluders()), (0, 5));
    // Sixteen of twenty report; the noise of eleven must do.
    for (plan, counted) in [(&honest, 16), (&colluding, 11)] {
        let event = plan
            .ring()
            .unwrap()
            .event(counted, NeighboringRelation::ReplaceOne)
            .unwrap();
        let most = plan.participations();
        let expected = cost(AccountantKind::Rdp, &event, most, 1e-4 * (1.0 - 1e-3));
        let declared = plan.declared(30).unwrap().unamplified.get();
        assert!(
            (declared / expected - 1.0).abs() < 1e-9,
            "{declared} {expected}"
        );
        assert!(declared <= 8.0 && declared > 7.95, "{declared}");
    }
    let ratio = colluding.local_std() / honest.local_std();
    assert!(
        (ratio / (16.0f64 / 11.0).sqrt() - 1.0).abs() < 0.01,
        "{ratio}"
    );
    // More reports are more noise: less is spent on the same rounds.
    let mut last = f64::INFINITY;
    for reports in [16, 18, 20] {
        let mut plan = plan(base.clone());
        for round in 0..3 {
            let _permit = plan.authorise(round, &clients(0..reports)).unwrap();
        }
        let spent = plan.spent().unwrap();
        assert!(spent.unamplified.get() < last, "{reports}");
        last = spent.unamplified.get();
        assert!(spent.epsilon.upper < spent.unamplified);
        let events = plan.ledger().entries();
        assert_eq!((events.len(), events[0].count), (1, 3));
    }
    // The one round with fewer reports counts for all.
    let mut mixed = plan(base);
    for (round, reports) in [(0, 20), (1, 16), (2, 20)] {
        let _permit = mixed.authorise(round, &clients(0..reports)).unwrap();
    }
    assert!(mixed.spent().unwrap().unamplified.get() > last);
}

/// Sampling is credited for cohorts of fixed size under replace-one alone.
#[test]
fn amplification_is_credited_where_there_is_a_theorem() {
    let base = ClientPlanConfig {
        noise_multiplier: Some(noise(2.0)),
        epsilon: None,
        ..config(ring(24), 10, 10)
    };
    let poisson = Sampler::poisson(N, 0.1).unwrap();
    let rare = |most| ClientPlanConfig {
        most_participations: Some(most),
        ..base.clone()
    };
    let cases = [
        (base.clone(), true),
        (
            ClientPlanConfig {
                sampler: poisson,
                ..base.clone()
            },
            false,
        ),
        (
            ClientPlanConfig {
                relation: NeighboringRelation::ReplaceSpecial,
                ..base.clone()
            },
            false,
        ),
        (
            ClientPlanConfig {
                sampler: Sampler::everyone(N).unwrap(),
                ..base.clone()
            },
            false,
        ),
        (rare(1), false),
        (rare(10), true),
    ];
    for (config, amplified) in cases {
        let plan = plan(config.clone());
        let declared = plan.declared(10).unwrap();
        let statement = plan.statement(10).unwrap();
        let facts = statement.clients.as_ref().unwrap();
        assert_eq!(facts.amplified, amplified, "{config:?}");
        // Without it the models hide no more than the server sees: nobody colludes.
        let gain = declared.unamplified.get() / declared.epsilon.upper.get();
        assert!(
            if amplified {
                gain > 1.5
            } else {
                gain < 1.0 + 1e-9
            },
            "{gain} {config:?}"
        );
        let text = statement.to_string();
        assert!(text.contains("ASSUMES secure aggregation"), "{text}");
        assert_eq!(text.contains("not amplified"), !amplified, "{text}");
    }
}

#[test]
fn a_round_below_the_threshold_is_given_up_and_costs_nothing() {
    for noise in [ring(24), ClientNoise::Local] {
        let mut plan = plan(config(noise, 20, 30));
        let few = clients(0..15);
        let error = plan.authorise(0, &few).unwrap_err();
        assert_eq!(
            error.to_string(),
            "round 0 has 15 reports and needs 16 for the noise that was promised; it is given up \
             and nothing of it is released"
        );
        assert_eq!((plan.rounds_done(), plan.ledger().is_empty()), (0, true));
        plan.give_up(0, &few).unwrap();
        assert_eq!(plan.rounds_done(), 1);
        let spent = plan.spent().unwrap();
        // A server that was sent noised updates has seen them.
        assert_eq!(
            spent.unamplified > Epsilon::ZERO,
            noise == ClientNoise::Local
        );
        assert_eq!(spent.epsilon.upper, Epsilon::ZERO);
        assert_eq!(
            plan.give_up(0, &few).unwrap_err(),
            PrivacyError::WrongRound { given: 0, next: 1 }
        );
        let permit = plan.authorise(1, &clients(0..16)).unwrap();
        let mut sum = vec![32.0];
        plan.mean(permit, &mut sum);
        assert_eq!(sum, [2.0]);
    }
}

#[test]
fn a_client_reports_as_often_as_its_noise_allows() {
    let mut plan = plan(ClientPlanConfig {
        most_participations: Some(2),
        ..config(ClientNoise::Local, 10, 10)
    });
    assert_eq!((plan.participations(), plan.last_round()), (2, 10));
    let reports = clients(0..10);
    for round in 0..2 {
        assert!(plan.may_report(ClientId(9)));
        let _permit = plan.authorise(round, &reports).unwrap();
    }
    assert!(!plan.may_report(ClientId(9)) && plan.may_report(ClientId(10)));
    let error = plan.authorise(2, &reports).unwrap_err();
    assert_eq!(
        error.to_string(),
        "client 0 has reported in 2 rounds, which is all that its noise was made for; leave it out \
         of this one"
    );
    let _permit = plan.authorise(2, &clients(10..20)).unwrap();
    assert_eq!(
        plan.spent().unwrap().unamplified,
        plan.declared(10).unwrap().unamplified
    );
}

#[test]
fn the_budget_ends_the_run_before_its_last_round() {
    for (noise_kind, observer) in [
        (ClientNoise::Local, Observer::Server),
        (ring(24), Observer::Server),
        (ring(24), Observer::Released),
    ] {
        let fitting = ClientPlanConfig {
            observer,
            ..config(noise_kind, 20, 40)
        };
        let enough = plan(fitting.clone());
        assert_eq!((enough.last_round(), enough.refusal()), (40, None));
        let less = ClientPlanConfig {
            noise_multiplier: Some(noise(enough.noise_multiplier().get() * 0.8)),
            ..fitting.clone()
        };
        let mut short = plan(less.clone());
        let last = short.last_round();
        assert!((5..40).contains(&last), "{last}");
        let seen = |spent: Spent| match observer {
            Observer::Server => spent.unamplified.get(),
            Observer::Released => spent.epsilon.upper.get(),
        };
        assert!(seen(short.declared(last).unwrap()) <= 8.0);
        assert!(seen(short.declared(last + 1).unwrap()) > 8.0);
        for round in 0..last {
            let first = round % 5 * 20;
            let _permit = short.authorise(round, &clients(first..first + 20)).unwrap();
        }
        assert!(seen(short.spent().unwrap()) <= 8.0);
        let error = short.authorise(last, &clients(0..20)).unwrap_err();
        assert!(
            matches!(error, PrivacyError::OverBudget { limit, needed, .. } if limit < 8.01 && needed > 8.0),
            "{error}"
        );
        assert_eq!(short.refusal(), Some(error));
        let none = ClientPlanConfig {
            noise_multiplier: Some(noise(0.3)),
            epsilon: Some(epsilon(0.01)),
            ..fitting
        };
        let error = ClientPlan::new(none, VALUES).unwrap_err();
        assert!(
            matches!(error, PrivacyError::OverBudget { position: 1, .. }),
            "{error}"
        );
    }
}

#[test]
fn a_plan_goes_on_with_its_ledger_or_not_at_all() {
    let config = config(ring(24), 20, 30);
    let mut straight = plan(config.clone());
    let _permit = straight.authorise(0, &clients(0..18)).unwrap();
    straight.give_up(1, &clients(0..3)).unwrap();
    let saved = straight.save();
    let mut resumed = ClientPlan::resume(config.clone(), VALUES, 2, &saved).unwrap();
    for plan in [&mut straight, &mut resumed] {
        let _permit = plan.authorise(2, &clients(5..22)).unwrap();
    }
    assert_eq!(straight.save(), resumed.save());
    assert_eq!(straight.spent().unwrap(), resumed.spent().unwrap());
    let other = ClientPlanConfig {
        rounds: 31,
        ..config.clone()
    };
    let cases = [
        (
            ClientPlan::resume(other, VALUES, 2, &saved),
            "configuration",
        ),
        (
            ClientPlan::resume(config.clone(), VALUES - 1, 2, &saved),
            "model",
        ),
        (
            ClientPlan::resume(config.clone(), VALUES, 3, &saved),
            "number of rounds",
        ),
        (
            ClientPlan::resume(
                config.clone(),
                VALUES,
                2,
                &saved.replace("\"released\":1", "\"released\":0"),
            ),
            "ledger",
        ),
    ];
    for (resumed, what) in cases {
        assert_eq!(resumed.unwrap_err(), PrivacyError::OtherPlan { what });
    }
    for broken in ["", "{}", &saved.replace("\"ledger\"", "\"leger\"")] {
        let error = ClientPlan::resume(config.clone(), VALUES, 2, broken).unwrap_err();
        assert!(matches!(error, PrivacyError::Malformed { .. }), "{error}");
    }
}

/// Rings: bits that are not given are few and enough; fewer cost noise, and too few are refused with
/// the number that would do.
#[test]
fn bits_are_chosen_or_judged() {
    let free = plan(config(
        ClientNoise::Distributed(RingNoise::default()),
        50,
        20,
    ));
    let bits = free.ring().unwrap().config().bits;
    assert!((10..24).contains(&bits), "{bits}");
    let wide = plan(config(ring(40), 50, 20));
    let ratio = free.noise_multiplier().get() / wide.noise_multiplier().get();
    assert!(ratio > 1.0 - 1e-4 && ratio < 1.01, "{ratio}");
    let mut last = free.noise_multiplier();
    for fewer in [bits - 2, bits - 3] {
        let plan = plan(config(ring(fewer), 50, 20));
        assert!(plan.noise_multiplier() > last, "{fewer}");
        last = plan.noise_multiplier();
        assert!(plan.declared(20).unwrap().unamplified.get() <= 8.0);
    }
    let error = ClientPlan::new(config(ring(5), 50, 20), VALUES).unwrap_err();
    let PrivacyError::BitsTooFew { enough, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(
        error.to_string(),
        format!(
            "a ring of 5 bits has no room for the sum of 50 clients and the noise that epsilon 8 \
             needs; give it at least {enough} bits"
        )
    );
    assert!(ClientPlan::new(config(ring(enough), 50, 20), VALUES).is_ok());
    assert!(ClientPlan::new(config(ring(enough - 1), 50, 20), VALUES).is_err());
    let given = ClientPlanConfig {
        noise_multiplier: Some(noise(1.0)),
        ..config(ring(5), 50, 20)
    };
    let error = ClientPlan::new(given, VALUES).unwrap_err();
    assert!(
        matches!(error, PrivacyError::BitsTooFew { bits: 5, .. }),
        "{error}"
    );
}

#[test]
fn what_cannot_be_is_refused() {
    let base = config(ring(20), 20, 10);
    let bad = [
        ClientPlanConfig {
            rounds: 0,
            ..base.clone()
        },
        ClientPlanConfig {
            max_norm: 0.0,
            ..base.clone()
        },
        ClientPlanConfig {
            delta: delta(0.01),
            ..base.clone()
        },
        ClientPlanConfig {
            epsilon: None,
            ..base.clone()
        },
        ClientPlanConfig {
            least_survivors: 0.0,
            ..base.clone()
        },
        ClientPlanConfig {
            least_survivors: 1.5,
            ..base.clone()
        },
        ClientPlanConfig {
            colluding_share: 1.0,
            ..base.clone()
        },
        ClientPlanConfig {
            colluding_share: 0.8,
            ..base.clone()
        },
        ClientPlanConfig {
            most_participations: Some(0),
            ..base.clone()
        },
        ClientPlanConfig {
            relation: NeighboringRelation::AddOrRemoveOne,
            ..base.clone()
        },
        ClientPlanConfig {
            sampler: Sampler::shuffled(N, 10).unwrap(),
            ..base.clone()
        },
        ClientPlanConfig {
            accountant: AccountantKind::Gaussian,
            ..base.clone()
        },
        ClientPlanConfig {
            epsilon: Some(epsilon(1e-9)),
            ..base.clone()
        },
    ];
    for config in bad {
        assert!(
            ClientPlan::new(config.clone(), VALUES).is_err(),
            "{config:?}"
        );
    }
    let ring = plan(base);
    let local = plan(config(ClientNoise::Local, 20, 10));
    let mut values = vec![0.0; VALUES];
    let mut rng = stream(Purpose::LocalNoise, 0, 0);
    assert!(ring.protect(&mut values, &mut rng).is_err());
    let rotation = Rotation::new(&mut stream(Purpose::Rotation, 0, 0), VALUES);
    let (mut out, mut other) = (Vec::new(), stream(Purpose::UpdateCodec, 0, 0));
    let error = local.encode(&mut values, &rotation, &mut other, &mut rng, &mut out);
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("local noise is no integer")
    );
}
