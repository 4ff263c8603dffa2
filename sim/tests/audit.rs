//! Attacks on private runs: what they find stays below what is reported, comes near it, and
//! exceeds it when something is wrong.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};

use common::{TinyPopulation, config, uniform};
use fl_core::select::{CyclicConfig, PoissonConfig, SelectorConfig, SeparatedConfig};
use fl_core::strategy::{FedAvgConfig, StrategyConfig, Weighting};
use fl_core::{
    Evaluation, Examples, FitTask, Layout, LocalResult, Parameters, Stream, TrainError, Trainer,
};
use fl_privacy::plan::{Clipping, Extrapolation};
use fl_privacy::{Delta, Epsilon, NeighboringRelation, NoiseMultiplier};
use fl_sim::audit::{AuditConfig, AuditReport, Fault, Others, Verdict, audit};
use fl_sim::{CentralPrivacy, Engine, FleetConfig, Privacy, SimError, SimulationConfig};

/// A model with room for many canaries, whose updates are noise of norm about 3.
struct Wide {
    layout: Arc<Layout>,
}

impl Wide {
    fn new() -> Self {
        let layout = Layout::new([
            ("hidden.weight".to_owned(), vec![20, 20]),
            ("hidden.bias".to_owned(), vec![20]),
            ("output.weight".to_owned(), vec![10, 20]),
        ]);
        Self {
            layout: Arc::new(layout.unwrap()),
        }
    }
}

struct WideTrainer(Arc<Layout>);

impl Engine for Wide {
    type Trainer = WideTrainer;

    fn trainer(&self) -> WideTrainer {
        WideTrainer(Arc::clone(&self.layout))
    }

    fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    fn init(&self, _: &mut Stream) -> Parameters {
        Parameters::new(Arc::clone(&self.layout), vec![0.0; self.layout.len()]).unwrap()
    }

    fn kernel(&self) -> String {
        "wide".to_owned()
    }
}

impl Trainer for WideTrainer {
    fn layout(&self) -> &Arc<Layout> {
        &self.0
    }

    fn lanes(&self) -> usize {
        3
    }

    fn fit(
        &mut self,
        _: &Parameters,
        tasks: &mut [FitTask<'_>],
        _: &mut [LocalResult],
    ) -> Result<(), TrainError> {
        for task in tasks {
            for value in task.update.iter_mut() {
                *value = 0.1 * task.stream.normal() as f32 + 0.05;
            }
        }
        Ok(())
    }

    fn evaluate(
        &mut self,
        _: &[f32],
        _: &dyn Examples,
        _: core::ops::Range<usize>,
    ) -> Result<Evaluation, TrainError> {
        Ok(Evaluation::default())
    }
}

const CLIENTS: u64 = 400;
const FLAT: Clipping = Clipping::Flat { max_norm: 0.7 };

fn poisson(rate: f64) -> SelectorConfig {
    SelectorConfig::Poisson(PoissonConfig { rate })
}

fn private(selection: SelectorConfig, clipping: Clipping, epsilon: f64) -> SimulationConfig {
    SimulationConfig {
        rounds: 10,
        selection,
        strategy: StrategyConfig::FedAvg(FedAvgConfig {
            weighting: Weighting::Uniform,
            ..FedAvgConfig::default()
        }),
        privacy: Some(Privacy::Central(CentralPrivacy {
            clipping,
            ..CentralPrivacy::new(
                1.0,
                Epsilon::new(epsilon).unwrap(),
                Delta::new(1e-5).unwrap(),
            )
        })),
        fleet: FleetConfig::default(),
        threads: 2,
        ..config()
    }
}

fn how() -> AuditConfig {
    AuditConfig {
        canaries: Some(200),
        runs: 200,
        ..AuditConfig::default()
    }
}

fn run(config: &SimulationConfig, how: &AuditConfig) -> Result<AuditReport, SimError> {
    let population = TinyPopulation::new(CLIENTS, 5).without_test();
    let (most, all) = (AtomicU64::new(0), AtomicU64::new(0));
    let progress = |done, total| {
        most.fetch_max(done, SeqCst);
        all.store(total, SeqCst);
    };
    let stop = AtomicBool::new(false);
    let report = audit(config, &population, &Wide::new(), how, &progress, &stop)?.unwrap();
    assert_eq!(most.into_inner(), report.rounds * report.runs);
    assert_eq!(all.into_inner(), report.rounds * report.runs);
    Ok(report)
}

/// With confidence 0.95 for the bounds, and 0.999 for the verdict on halved noise.
#[test]
fn bounds_stay_below_what_is_reported_and_find_halved_noise() {
    let rest = SelectorConfig::Separated(SeparatedConfig {
        cohort: 80,
        separation: 5,
    });
    let turns = SelectorConfig::Cyclic(CyclicConfig {
        period: 2,
        rate: 1.0,
    });
    for (selection, least, epsilons) in [
        (poisson(0.2), 0.6, vec![1.0, 4.0, 8.0]),
        (rest, 0.6, vec![1.0, 4.0, 8.0]),
        (uniform(80, 1.0), 0.5, vec![1.0, 4.0, 8.0]),
        (turns, 0.6, vec![4.0]),
    ] {
        for epsilon in epsilons {
            let config = private(selection.clone(), FLAT, epsilon);
            let honest = run(&config, &how()).unwrap();
            let halved = AuditConfig {
                fault: Some(Fault::NoiseScale(0.5)),
                confidence: 0.999,
                ..how()
            };
            let halved = run(&config, &halved).unwrap();
            assert_eq!(honest.verdict(), Verdict::Consistent);
            let (reported, found) = (honest.epsilon.get(), honest.lower.get());
            assert!(reported <= epsilon && reported > 0.99 * epsilon);
            let sampler = honest.sampler.name();
            assert!(
                found < reported && found > least * reported,
                "{sampler}: {found} of {reported}"
            );
            assert!(honest.lower_any <= honest.lower);
            assert_eq!(halved.verdict(), Verdict::Refuted);
            assert!(halved.lower > halved.epsilon);
        }
    }
}

/// Whatever the clipper, the strategy's relation and the fleet do.
#[test]
fn every_clipper_and_relation_is_audited() {
    let adaptive = Clipping::Adaptive {
        initial_norm: 0.3,
        quantile: 0.5,
        learning_rate: 0.3,
        count_noise: None,
    };
    let automatic = Clipping::Automatic {
        max_norm: 2.0,
        stability: 0.01,
    };
    let layers = Clipping::PerLayer { max_norm: 1.0 };
    let special = NeighboringRelation::ReplaceSpecial;
    let replace = NeighboringRelation::ReplaceOne;
    let dropout = FleetConfig {
        stragglers: 0.2,
        dropout: 0.1,
    };
    for (clipping, relation, fleet, least) in [
        (adaptive, None, FleetConfig::default(), 0.6),
        (automatic, None, FleetConfig::default(), 0.6),
        // Two of three tensors have room for canaries.
        (layers, None, FleetConfig::default(), 0.4),
        (FLAT, Some(special), FleetConfig::default(), 0.6),
        (FLAT, Some(replace), FleetConfig::default(), 0.6),
        (FLAT, None, dropout, 0.5),
    ] {
        let mut config = private(poisson(0.3), clipping, 4.0);
        config.fleet = fleet;
        if let Some(Privacy::Central(privacy)) = &mut config.privacy {
            privacy.relation = relation;
        }
        let report = run(&config, &how()).unwrap();
        let (reported, found) = (report.epsilon.get(), report.lower.get());
        assert_eq!(report.verdict(), Verdict::Consistent);
        assert!(
            found < reported && found > least * reported,
            "{clipping:?} {relation:?}: {found} of {reported}"
        );
        // A clipper that lets twice as much through is as bad as half of the noise.
        let loose = AuditConfig {
            fault: Some(Fault::ClipScale(2.0)),
            confidence: 0.999,
            ..how()
        };
        let report = run(&config, &loose).unwrap();
        assert_eq!(report.verdict(), Verdict::Refuted, "{clipping:?}");
    }
}

/// With clients that train, whose updates the attacker knows or, in samples of fixed size, does not.
#[test]
fn other_clients_may_train() {
    let honest = AuditConfig {
        runs: 1,
        others: Others::Train,
        ..how()
    };
    let many = AuditConfig {
        runs: 30,
        ..honest.clone()
    };
    let config = private(poisson(0.2), FLAT, 8.0);
    let (one, several) = (run(&config, &honest).unwrap(), run(&config, &many).unwrap());
    let fixed = run(&private(uniform(80, 1.0), FLAT, 8.0), &many).unwrap();
    for report in [&one, &several, &fixed] {
        assert_eq!(report.verdict(), Verdict::Consistent);
        assert!(report.lower < report.epsilon);
        assert!(!report.sees_cohort);
    }
    assert!(one.knows_others && !fixed.knows_others);
    // Few guesses of a single run are judged, all of several.
    assert_eq!((one.guesses, several.guesses), (100, 30 * 200));
    assert!(one.lower < several.lower && several.lower.get() > 2.0);
    let halved = AuditConfig {
        fault: Some(Fault::NoiseScale(0.5)),
        ..many
    };
    assert_eq!(run(&config, &halved).unwrap().verdict(), Verdict::Refuted);
}

#[test]
fn the_same_on_any_number_of_threads() {
    let config = private(poisson(0.2), FLAT, 4.0);
    for others in [Others::Absent, Others::Train] {
        let how = AuditConfig {
            runs: 5,
            others,
            ..how()
        };
        let one = run(
            &SimulationConfig {
                threads: 1,
                ..config.clone()
            },
            &how,
        )
        .unwrap();
        let three = run(
            &SimulationConfig {
                threads: 3,
                ..config.clone()
            },
            &how,
        )
        .unwrap();
        assert_eq!(one, three);
        let included = one.scores.iter().filter(|score| score.included).count();
        // Binomial(1000, 1/2) is further from 500 less than once in 10,000.
        assert!(included.abs_diff(500) < 62, "{included}");
    }
}

#[test]
fn what_cannot_be_audited_is_refused() {
    let good = private(poisson(0.2), FLAT, 4.0);
    let with = |change: &dyn Fn(&mut CentralPrivacy)| {
        let mut config = good.clone();
        if let Some(Privacy::Central(privacy)) = &mut config.privacy {
            change(privacy);
        }
        config
    };
    let larger = with(&|privacy| {
        privacy.extrapolation = Some(Extrapolation {
            population: 40_000,
            cohort: 8_000,
        });
    });
    let bare = with(&|privacy| {
        privacy.epsilon = None;
        privacy.noise_multiplier = Some(NoiseMultiplier::new(0.0).unwrap());
    });
    let none = SimulationConfig {
        privacy: None,
        ..good.clone()
    };
    let asked = |change: &dyn Fn(&mut AuditConfig)| {
        let mut how = how();
        change(&mut how);
        how
    };
    for (config, how, expected) in [
        (&none, how(), "this run has none"),
        (&bare, how(), "this run has none"),
        (&larger, how(), "leave the extrapolation out"),
        (
            &good,
            asked(&|how| how.canaries = Some(401)),
            "401 canaries were asked for, and there are 400 clients",
        ),
        (
            &good,
            asked(&|how| how.runs = 0),
            "the number of runs of an audit is 0",
        ),
        (
            &good,
            asked(&|how| how.confidence = 1.0),
            "the confidence of an audit is 1; expected a number above 0 and below 1",
        ),
    ] {
        let error = run(config, &how).unwrap_err();
        assert!(matches!(error, SimError::Audit(_)), "{error}");
        let text = error.to_string();
        assert!(
            text.starts_with("audit: ") && text.contains(expected),
            "{text}"
        );
    }
    // A raised flag ends it without a result.
    let population = TinyPopulation::new(CLIENTS, 5).without_test();
    let stop = AtomicBool::new(true);
    let found = audit(&good, &population, &Wide::new(), &how(), &|_, _| (), &stop);
    assert_eq!(found.unwrap(), None);
}
