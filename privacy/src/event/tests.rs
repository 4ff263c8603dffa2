//! Events, their text and their checks.

use super::check::MAX_DEPTH;
use super::*;

fn noise(value: f64) -> NoiseMultiplier {
    NoiseMultiplier::new(value).unwrap()
}

fn every_kind() -> Vec<DpEvent> {
    let gaussian = DpEvent::gaussian(noise(1.1));
    let epsilon = Epsilon::new(0.5).unwrap();
    let unbounded = DpEvent::epsilon_delta(Epsilon::INFINITY, Delta::ONE);
    vec![
        DpEvent::NoOp,
        DpEvent::NonPrivate,
        gaussian.clone(),
        DpEvent::laplace(noise(2.0)),
        DpEvent::discrete_gaussian(3.5, 2).unwrap(),
        DpEvent::discrete_laplace(0.25, 1).unwrap(),
        DpEvent::skellam(100.0, 3.0, 2.0).unwrap(),
        DpEvent::randomized_response(0.3, 4).unwrap(),
        DpEvent::epsilon_delta(epsilon, Delta::new(1e-7).unwrap()),
        unbounded,
        DpEvent::zcdp(0.1, 0.0).unwrap(),
        DpEvent::mixture_of_gaussians(noise(1.0), vec![0.0, 1.0], vec![0.9, 0.1]).unwrap(),
        DpEvent::poisson_sampled(0.01, gaussian.clone()).unwrap(),
        DpEvent::truncated_poisson(1000, 0.01, 20, noise(1.0)).unwrap(),
        DpEvent::sampled_without_replacement(1000, 10, gaussian.clone()).unwrap(),
        DpEvent::self_composed(gaussian.clone(), 7).unwrap(),
        DpEvent::composed(vec![gaussian.clone(), DpEvent::NoOp]).unwrap(),
        DpEvent::tree_aggregation(noise(1.0), vec![8, 5]).unwrap(),
        DpEvent::matrix_factorization(noise(1.0), 1.5).unwrap(),
        DpEvent::repeat_and_select(gaussian.clone(), 10.0, -0.5).unwrap(),
        DpEvent::repeat_and_select(gaussian, 10.0, f64::INFINITY).unwrap(),
    ]
}

#[test]
fn every_kind_returns_from_its_text() {
    for event in every_kind() {
        let text = serde_json::to_string(&event).unwrap();
        assert!(
            text.starts_with(&format!("{{\"event\":\"{}\"", event.kind())),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<DpEvent>(&text).unwrap(), event);
    }
}

#[test]
fn numbers_out_of_range_are_refused_at_both_doors() {
    let gaussian = || DpEvent::gaussian(noise(1.0));
    for result in [
        DpEvent::discrete_gaussian(f64::NAN, 1),
        DpEvent::discrete_laplace(0.0, 1),
        DpEvent::skellam(1.0, 1.0, 2.0),
        DpEvent::randomized_response(1.1, 2),
        DpEvent::randomized_response(0.1, 1),
        DpEvent::zcdp(-1.0, 0.0),
        DpEvent::mixture_of_gaussians(noise(1.0), vec![], vec![]),
        DpEvent::mixture_of_gaussians(noise(1.0), vec![1.0], vec![0.9]),
        DpEvent::mixture_of_gaussians(noise(1.0), vec![1.0, 2.0], vec![1.0]),
        DpEvent::poisson_sampled(-0.1, gaussian()),
        DpEvent::poisson_sampled(f64::NAN, gaussian()),
        DpEvent::truncated_poisson(0, 0.1, 1, noise(1.0)),
        DpEvent::sampled_without_replacement(10, 11, gaussian()),
        DpEvent::tree_aggregation(noise(1.0), vec![0]),
        DpEvent::repeat_and_select(gaussian(), 0.5, 1.0),
        DpEvent::repeat_and_select(gaussian(), 2.0, -1.0),
    ] {
        assert!(result.is_err(), "{result:?}");
    }
    for text in [
        r#"{"event":"poisson-sampled","sampling_rate":2,"inner":{"event":"no-op"}}"#,
        r#"{"event":"composed","events":[{"event":"z-cdp","rho":-1,"xi":0}]}"#,
        r#"{"event":"gaussian"}"#,
        r#"{"event":"gaussian","noise_multiplier":1,"extra":1}"#,
        r#"{"noise_multiplier":1}"#,
    ] {
        assert!(serde_json::from_str::<DpEvent>(text).is_err(), "{text}");
    }
    let error = DpEvent::poisson_sampled(2.0, DpEvent::NoOp).unwrap_err();
    assert_eq!(
        error.to_string(),
        "sampling_rate is 2; expected a probability, from 0 to 1"
    );
}

#[test]
fn nesting_is_bounded() {
    let mut event = DpEvent::NoOp;
    for _ in 0..MAX_DEPTH {
        event = DpEvent::self_composed(event, 1).unwrap();
    }
    assert!(DpEvent::self_composed(event, 1).is_err());
}

#[test]
fn gaussian_compositions_are_one_gaussian() {
    let gaussian = || DpEvent::gaussian(noise(2.0));
    let cases = [
        (gaussian(), Some(0.25)),
        (DpEvent::self_composed(gaussian(), 8).unwrap(), Some(2.0)),
        (
            DpEvent::composed(vec![gaussian(), DpEvent::NoOp, gaussian()]).unwrap(),
            Some(0.5),
        ),
        (
            DpEvent::poisson_sampled(1.0, gaussian()).unwrap(),
            Some(0.25),
        ),
        (
            DpEvent::poisson_sampled(0.0, gaussian()).unwrap(),
            Some(0.0),
        ),
        (DpEvent::poisson_sampled(0.5, gaussian()).unwrap(), None),
        // A tree of 8 leaves has 4 levels; one of 9 leaves has 5; one leaf alone has 1.
        (
            DpEvent::tree_aggregation(noise(2.0), vec![8]).unwrap(),
            Some(1.0),
        ),
        (
            DpEvent::tree_aggregation(noise(2.0), vec![1, 9]).unwrap(),
            Some(1.25),
        ),
        (
            DpEvent::tree_aggregation(noise(2.0), vec![1]).unwrap(),
            Some(0.25),
        ),
        (
            DpEvent::matrix_factorization(noise(2.0), 2.0).unwrap(),
            Some(1.0),
        ),
        (DpEvent::gaussian(noise(0.0)), Some(f64::INFINITY)),
        (DpEvent::laplace(noise(1.0)), None),
    ];
    for (event, expected) in cases {
        let found = event.gaussian_precision();
        match (found, expected) {
            (Some(found), Some(expected)) if expected < f64::INFINITY => {
                assert!(
                    found >= expected && found <= expected * (1.0 + 1e-13),
                    "{event:?}"
                );
            }
            _ => assert_eq!(found, expected, "{event:?}"),
        }
    }
}
