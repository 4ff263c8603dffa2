use super::*;
use crate::units::NoiseMultiplier;

const RELATION: NeighboringRelation = NeighboringRelation::AddOrRemoveOne;

fn budget(epsilon: f64, delta: f64) -> PrivacyBudget {
    PrivacyBudget::new(
        Epsilon::new(epsilon).unwrap(),
        Delta::new(delta).unwrap(),
        RELATION,
        PrivacyUnit::Client,
        1000,
    )
    .unwrap()
}

fn gaussian(sigma: f64) -> DpEvent {
    DpEvent::gaussian(NoiseMultiplier::new(sigma).unwrap())
}

fn sampled(rate: f64, sigma: f64) -> DpEvent {
    DpEvent::poisson_sampled(rate, gaussian(sigma)).unwrap()
}

fn schedule(entries: &[(DpEvent, u64)]) -> Ledger {
    let mut ledger = Ledger::default();
    for (event, count) in entries {
        ledger.record(event, *count);
    }
    ledger
}

/// Admits until the first refusal, which is returned with the number of admitted events.
fn exhaust(filter: &mut PrivacyFilter, event: &DpEvent) -> (u64, PrivacyError) {
    loop {
        let ledger = filter.ledger().clone();
        if let Err(error) = filter.admit(event) {
            assert_eq!(*filter.ledger(), ledger, "a refusal changes nothing");
            return (filter.admitted(), error);
        }
        assert!(filter.admitted() < 100_000);
    }
}

#[test]
fn a_delta_that_publishes_someone_is_refused() {
    for (delta, population, fits) in [
        (1e-3, 1000, false),
        (0.99e-3, 1000, true),
        (1.0, 1, false),
        (0.0, 1, true),
        (1e-5, 0, false),
    ] {
        let made = PrivacyBudget::new(
            Epsilon::new(1.0).unwrap(),
            Delta::new(delta).unwrap(),
            RELATION,
            PrivacyUnit::Client,
            population,
        );
        assert_eq!(made.is_ok(), fits, "{delta} {population}");
        if let Ok(made) = made {
            let text = serde_json::to_string(&made).unwrap();
            assert_eq!(serde_json::from_str::<PrivacyBudget>(&text).unwrap(), made);
            let worse = text.replace(&format!("\"population\":{population}"), "\"population\":0");
            assert!(serde_json::from_str::<PrivacyBudget>(&worse).is_err());
        }
    }
    let error = PrivacyBudget::new(
        Epsilon::ZERO,
        Delta::new(0.01).unwrap(),
        RELATION,
        PrivacyUnit::Client,
        1000,
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "delta is 0.01, which is not below one over the 1000 protected clients; choose a delta \
         well below 0.001"
    );
    assert!(budget(1.0, 0.9e-3).delta_is_lax() && !budget(1.0, 1e-6).delta_is_lax());
}

#[test]
fn a_declared_schedule_stops_at_the_last_affordable_event() {
    let event = sampled(0.05, 1.0);
    let budget = budget(4.0, 1e-5);
    for kind in [
        AccountantKind::Rdp,
        AccountantKind::Naive,
        AccountantKind::Zcdp,
    ] {
        let declared = schedule(&[(event.clone(), 10_000)]);
        let mut filter = PrivacyFilter::declared(budget, kind, declared).unwrap();
        let affordable = filter.affordable().unwrap();
        let (admitted, error) = exhaust(&mut filter, &event);
        assert_eq!(admitted, affordable);
        // By hand: that many fit, and not one more.
        let epsilon = |count: u64| {
            let mut sum = accountant(kind, RELATION);
            sum.compose(&event, count).unwrap();
            sum.epsilon(budget.delta()).unwrap().upper
        };
        assert!(epsilon(admitted) <= budget.epsilon() && epsilon(admitted + 1) > budget.epsilon());
        assert_eq!(filter.spent().unwrap(), epsilon(admitted));
        let PrivacyError::OverBudget {
            position,
            spent,
            needed,
            limit,
            ..
        } = error
        else {
            panic!("{error}");
        };
        assert_eq!(position, admitted + 1);
        assert!(spent <= limit && needed > limit);
    }
}

#[test]
fn a_schedule_is_held_to_its_declaration() {
    let (one, two) = (sampled(0.01, 2.0), sampled(0.02, 2.0));
    let declared = schedule(&[(one.clone(), 2), (two.clone(), 1)]);
    let new = || PrivacyFilter::declared(budget(8.0, 1e-5), AccountantKind::Rdp, declared.clone());
    let mut filter = new().unwrap();
    assert_eq!(filter.affordable(), Some(3));
    let error = filter.admit(&two).unwrap_err();
    assert!(
        matches!(error, PrivacyError::OffSchedule { position: 1, .. }),
        "{error}"
    );
    for event in [&one, &one, &two] {
        filter.admit(event).unwrap();
    }
    let error = filter.admit(&two).unwrap_err();
    assert_eq!(
        error.to_string(),
        "event 4 is `poisson-sampled of gaussian` but the declared schedule has `nothing: it has \
         ended` there; declare what is run, or use a filter for parameters that adapt"
    );
    assert_eq!(filter.admitted(), 3);
}

#[test]
fn the_gaussian_filter_is_exact_and_adapts() {
    let budget = budget(2.0, 1e-6);
    let mut filter = PrivacyFilter::gaussian(budget).unwrap();
    let mut sigma = 20.0;
    let mut precision = 0.0;
    // Noise that falls from event to event, as a rule that looks at outputs might choose.
    loop {
        let event = gaussian(sigma);
        let next = precision + 1.0 / (sigma * sigma);
        let fits = crate::accountant::gaussian_epsilon(next.sqrt(), 1e-6).1 <= 2.0;
        assert_eq!(filter.admit(&event).is_ok(), fits, "{sigma}");
        if !fits {
            break;
        }
        precision = next;
        sigma *= 0.97;
    }
    assert!(filter.admitted() > 10);
    assert!(filter.spent().unwrap().get() <= 2.0);
    let error = filter.admit(&sampled(0.5, 100.0)).unwrap_err();
    assert!(matches!(error, PrivacyError::Unsupported { .. }), "{error}");
}

#[test]
fn the_renyi_filter_admits_what_its_order_affords() {
    let budget = budget(4.0, 1e-5);
    let event = sampled(0.05, 1.0);
    let mut filter = PrivacyFilter::renyi(budget, &event).unwrap();
    let FilterRule::Renyi { orders } = filter.rule().clone() else {
        panic!("another rule");
    };
    let (admitted, error) = exhaust(&mut filter, &event);
    assert!(matches!(error, PrivacyError::OverBudget { .. }), "{error}");
    // As many as the Rényi accountant affords: for the anticipated event nothing is lost.
    let declared = schedule(&[(event.clone(), 10_000)]);
    let best = PrivacyFilter::declared(budget, AccountantKind::Rdp, declared).unwrap();
    let most = best.affordable().unwrap();
    assert!(
        admitted <= most && admitted + 1 + most / 200 >= most,
        "{admitted} {most}"
    );
    assert!(filter.spent().unwrap() <= budget.epsilon());
    // More orders share delta: valid, and a little dearer for the same event.
    let mut several = orders.clone();
    several.extend([orders[0] * 2.0, orders[0] * 3.0]);
    let rule = FilterRule::Renyi { orders: several };
    let mut shared = PrivacyFilter::new(budget, rule).unwrap();
    let (fewer, _) = exhaust(&mut shared, &event);
    assert!(
        fewer < admitted && fewer > admitted * 3 / 4,
        "{fewer} {admitted}"
    );
    for orders in [vec![], vec![1.0], vec![f64::NAN], vec![2.0; 65]] {
        assert!(PrivacyFilter::new(budget, FilterRule::Renyi { orders }).is_err());
    }
    let failing = DpEvent::epsilon_delta(Epsilon::new(0.1).unwrap(), Delta::new(1e-9).unwrap());
    assert!(shared.admit(&failing).is_err());
}

#[test]
fn a_state_returns_with_its_ledger_and_only_with_it() {
    let event = sampled(0.05, 1.0);
    let budget = budget(4.0, 1e-5);
    let declared = schedule(&[(event.clone(), 100)]);
    let rules = [
        FilterRule::Declared {
            accountant: AccountantKind::Rdp,
            schedule: declared,
        },
        FilterRule::Renyi { orders: vec![6.0] },
        FilterRule::Gaussian,
    ];
    for rule in rules {
        let event = match rule {
            FilterRule::Gaussian => gaussian(50.0),
            _ => event.clone(),
        };
        let mut filter = PrivacyFilter::new(budget, rule.clone()).unwrap();
        for _ in 0..7 {
            filter.admit(&event).unwrap();
        }
        let text = serde_json::to_string(&filter).unwrap();
        let back = PrivacyFilter::resume(&text, &budget, &rule).unwrap();
        assert_eq!(back.ledger(), filter.ledger());
        assert_eq!((back.admitted(), back.spent()), (7, filter.spent()));
        // Another plan, no ledger, a ledger that overspends.
        let other = self::budget(5.0, 1e-5);
        let error = PrivacyFilter::resume(&text, &other, &rule).unwrap_err();
        assert_eq!(error, PrivacyError::OtherPlan { what: "budget" });
        let start = text.find(",\"ledger\"").unwrap();
        let without = format!("{}}}", &text[..start]);
        let error = PrivacyFilter::resume(&without, &budget, &rule).unwrap_err();
        assert!(
            error.to_string().contains("missing field `ledger`"),
            "{error}"
        );
        let spent = text.replace("\"count\":7", "\"count\":70000000");
        assert!(PrivacyFilter::resume(&spent, &budget, &rule).is_err());
    }
}

#[test]
fn an_odometer_reads_more_than_the_accountant_and_not_much_more() {
    let event = sampled(0.02, 1.0);
    let delta = Delta::new(1e-5).unwrap();
    let step = Epsilon::new(0.05).unwrap();
    let mut odometer = Odometer::new(RELATION, delta, 5.0, step).unwrap();
    assert_eq!(odometer.reading().unwrap(), Epsilon::ZERO);
    let mut sum = RdpAccountant::new(RELATION);
    let mut last = 0.0;
    for round in 1..=400 {
        odometer.record(&event).unwrap();
        sum.compose(&event, 1).unwrap();
        let reading = odometer.reading().unwrap().get();
        let epsilon = sum.epsilon(delta).unwrap().upper.get();
        assert!(
            reading >= epsilon && reading >= last,
            "{round}: {reading} {epsilon}"
        );
        last = reading;
    }
    let epsilon = sum.epsilon(delta).unwrap().upper.get();
    assert!(last < epsilon + 3.0, "{last} {epsilon}");
    for (delta, order) in [(0.0, 8.0), (1.0, 8.0), (1e-5, 1.0)] {
        let delta = Delta::new(delta).unwrap();
        assert!(Odometer::new(RELATION, delta, order, step).is_err());
    }
    assert!(Odometer::new(RELATION, delta, 8.0, Epsilon::ZERO).is_err());
}
