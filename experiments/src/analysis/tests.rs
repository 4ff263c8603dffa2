//! Trajectories, targets, curves and choices, on runs written by hand.

use super::*;
use crate::made_up::{self, blank};
use crate::results::{EvaluationRow, FleetRow, PrivacyRow, RoundRow};

/// A run of four rounds that is evaluated after every other.
fn results(seed: u64, rate: f64, accuracies: [f64; 3]) -> VariantResults {
    let config = format!("name = 'x'\nseed = {seed}\nlocal = {{ learning_rate = {rate:?} }}");
    let mut made = made_up::variant("a", &config);
    made.manifest.rounds_done = 4;
    for (round, accuracy) in [0, 2, 4].into_iter().zip(accuracies) {
        made.evaluations.push(EvaluationRow {
            round,
            test_accuracy: Some(accuracy),
            test_loss: Some(1.0 - accuracy),
            ..blank()
        });
    }
    // Nobody is called to the second round; of the fourth too few devices are told of.
    let fleet = [(Some(5.0), 30), (None, 0), (Some(7.0), 30), (None, 3)];
    for (round, (joules, called)) in (0..).zip(fleet) {
        made.rounds.push(RoundRow {
            round,
            bytes_down: 10,
            bytes_up: round,
            ..blank()
        });
        made.fleet.push(FleetRow {
            round,
            ended_seconds: 60.0 * (round + 1) as f64,
            called,
            joules,
            ..blank()
        });
        made.privacy.push(PrivacyRow {
            round,
            epsilon: 0.5 * (round + 1) as f64,
            observer: "released".to_owned(),
            ..blank()
        });
    }
    made
}

fn analysis(runs: Vec<VariantResults>) -> Analysis {
    let configs: Vec<&toml::Table> = runs.iter().map(|run| &run.manifest.config).collect();
    let (axes, values) = axes::of(&configs);
    let runs = runs
        .into_iter()
        .zip(values)
        .map(|(results, values)| Run {
            id: String::new(),
            path: PathBuf::new(),
            values,
            seed: results.manifest.seed,
            figures: Figures::of(&results),
            results,
        })
        .collect();
    Analysis::new("x".to_owned(), axes, runs)
}

fn near(a: Option<f64>, b: f64) -> bool {
    a.is_some_and(|a| (a - b).abs() < 1e-12)
}

#[test]
fn what_was_spent_by_each_evaluation() {
    let run = results(1, 0.1, [0.1, 0.7, 0.6]);
    let points = trajectory(&run);
    let rounds: Vec<u64> = points.iter().map(|point| point.round).collect();
    assert_eq!(rounds, [0, 2, 4]);
    let bytes: Vec<u64> = points.iter().map(|point| point.bytes).collect();
    assert_eq!(bytes, [0, 10 + 11, 10 + 11 + 12 + 13]);
    for (point, (seconds, joules, epsilon)) in points.iter().zip([
        (0.0, Some(0.0), 0.0),
        (120.0, Some(5.0), 1.0),
        (240.0, None, 2.0),
    ]) {
        assert!(near(point.virtual_seconds, seconds));
        assert_eq!(point.joules, joules);
        assert!(near(point.epsilon, epsilon));
    }
    let figures = Figures::of(&run);
    assert!(near(figures.final_accuracy, 0.6) && near(figures.best_accuracy, 0.7));
    assert!(near(figures.final_loss, 0.4) && near(figures.best_loss, 0.3));
    assert_eq!((figures.rounds, figures.bytes), (4, 46));
    assert!(figures.joules.is_none() && near(figures.epsilon, 2.0));
}

#[test]
fn groups_curves_and_targets() {
    let analysis = analysis(vec![
        results(1, 0.1, [0.1, 0.5, 0.6]),
        results(1, 0.2, [0.1, 0.4, 0.9]),
        results(2, 0.1, [0.1, 0.3, 0.8]),
    ]);
    assert_eq!(analysis.groups.len(), 2);
    let group = &analysis.groups[0];
    assert_eq!(group.runs, [0, 2]);
    assert_eq!(analysis.label(group), "local.learning_rate=0.1");
    let curve = analysis.curve(group, Quantity::Accuracy);
    let means: Vec<f64> = curve.iter().map(|point| point.statistics.mean).collect();
    for (mean, expected) in means.iter().zip([0.1, 0.4, 0.7]) {
        assert!((mean - expected).abs() < 1e-12);
    }
    let across = analysis.curve(group, Quantity::VirtualSeconds);
    assert!(near(
        across.last().map(|point| point.statistics.mean),
        240.0
    ));
    // One run is there after two rounds, the other after four; or one never.
    let found = analysis.to_target(group, 0.45);
    assert_eq!((found.reached, found.of), (2, 2));
    let rounds = found.by.rounds.unwrap();
    assert!(near(Some(rounds.min), 2.0) && near(Some(rounds.max), 4.0));
    assert!(near(
        found.by.bytes.map(|it| it.mean),
        f64::midpoint(21.0, 46.0)
    ));
    // Of the two runs one had told of its joules by then.
    assert!(near(found.by.joules.map(|it| it.mean), 5.0));
    assert!(near(found.by.epsilon.map(|it| it.mean), 1.5));
    let found = analysis.to_target(group, 0.7);
    assert_eq!((found.reached, found.of), (1, 2));
    assert_eq!(analysis.to_target(group, 0.95).by.rounds, None);
}

#[test]
fn a_choice_tells_its_budget() {
    let analysis = analysis(vec![
        results(1, 0.1, [0.1, 0.5, 0.6]),
        results(2, 0.1, [0.1, 0.5, 0.8]),
        results(1, 0.2, [0.1, 0.5, 0.9]),
        results(2, 0.2, [0.1, 0.5, 0.3]),
        results(1, 0.3, [0.1, 0.5, 0.7]),
    ]);
    let best = analysis.best(&[], Figure::FinalAccuracy).unwrap();
    // Means of 0.7, 0.6 and 0.7: of equals the first, up to rounding.
    let [best] = best.as_slice() else {
        panic!("{best:?}");
    };
    assert!(best.group == 0 || best.group == 2);
    assert_eq!((best.tried, best.runs), (3, 5));
    assert_eq!(best.selected_on, SelectedOn::TestSet);
    let loss = analysis.best(&[], Figure::FinalLoss).unwrap();
    assert!(near(Some(loss[0].score.mean), 0.3));
    let by = ["local.learning_rate".to_owned()];
    let each = analysis.best(&by, Figure::Bytes).unwrap();
    assert_eq!(each.len(), 3);
    assert!(each.iter().all(|it| it.selected_on == SelectedOn::Cost));
    let error = analysis.best(&["local.learning_rat".to_owned()], Figure::Bytes);
    assert_eq!(
        error.unwrap_err().to_string(),
        "the runs do not differ in `local.learning_rat`; did you mean `local.learning_rate`?"
    );
}
