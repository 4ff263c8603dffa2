//! The numbers of runs that figures show, their units and what they are called.

use crate::analysis::{Quantity, Run, Target, trajectory};
use crate::config::plot::Measure;
use crate::results::PrivacyRow;

use super::super::axis::number;
use super::super::fleet::{BYTES, ENERGY, TIME, Unit, unit};

/// How a measure is drawn.
#[derive(Clone, Debug)]
pub(super) struct Drawn {
    /// The axis' title, with the unit.
    pub(super) title: String,
    /// Values are multiplied by it.
    pub(super) factor: f64,
    pub(super) unit: &'static str,
    /// Between 0 and 100.
    pub(super) percent: bool,
}

impl Drawn {
    /// A value that is already in the unit, with three digits and the unit.
    pub(super) fn text(&self, value: f64) -> String {
        let unit = match self.unit {
            "" => String::new(),
            unit => format!(" {unit}"),
        };
        format!("{}{unit}", self.digits(value))
    }

    /// The same without the unit.
    pub(super) fn digits(&self, value: f64) -> String {
        match self.percent {
            _ if value.is_infinite() => "∞".to_owned(),
            true => format!("{value:.1}"),
            false => short(value),
        }
    }

    /// A mean and its deviation.
    pub(super) fn spread(&self, mean: f64, deviation: f64) -> String {
        let text = self.digits(mean);
        let written = text.split_once('.').map_or(0, |(_, digits)| digits.len());
        // A deviation of one digit says too little.
        let digits = written.max(usize::from(deviation < 10.0));
        let text = match digits == written {
            true => text,
            false => format!("{mean:.digits$}"),
        };
        let unit = match self.unit {
            "" => String::new(),
            unit => format!(" {unit}"),
        };
        format!("{text} ± {deviation:.digits$}{unit}")
    }
}

/// Three significant digits; whole numbers below ten thousand as they are.
pub(super) fn short(value: f64) -> String {
    let size = value.abs();
    if size >= 1e6 || (size > 0.0 && size < 1e-4) {
        return format!("{value:.2e}").replace('-', "−");
    }
    let whole = (size - size.round()).abs() < 1e-9;
    if whole || size >= 100.0 {
        return number(value.round(), 1.0);
    }
    let places: usize = match size {
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        size if size >= 0.1 => 3,
        size if size >= 0.01 => 4,
        _ => 6,
    };
    format!("{value:.places$}").replace('-', "−")
}

/// What the same quantity is in the analysis; none for what is no number of every evaluation.
fn quantity(measure: Measure) -> Option<Quantity> {
    Some(match measure {
        Measure::Rounds | Measure::RoundsToTarget => Quantity::Rounds,
        Measure::Time | Measure::Seconds | Measure::Hours | Measure::TimeToTarget => {
            Quantity::VirtualSeconds
        }
        Measure::Bytes | Measure::BytesToTarget => Quantity::Bytes,
        Measure::Joules | Measure::JoulesToTarget => Quantity::Joules,
        Measure::Epsilon | Measure::EpsilonToTarget => Quantity::Epsilon,
        Measure::Accuracy => Quantity::Accuracy,
        Measure::AccuracyInt8 => Quantity::AccuracyInt8,
        Measure::Loss => Quantity::Loss,
        Measure::TrainAccuracy => Quantity::TrainAccuracy,
        Measure::TrainLoss => Quantity::TrainLoss,
        Measure::BestAccuracy | Measure::Patch | Measure::Jain | Measure::WorstDecile => {
            return None;
        }
    })
}

/// A measure at every evaluation that has it, by rounds done.
pub(super) fn course(run: &Run, measure: Measure) -> Vec<(u64, f64)> {
    if measure == Measure::Patch {
        let rows = run.results.patches.iter();
        return rows.map(|row| (row.round, row.share())).collect();
    }
    let Some(quantity) = quantity(measure) else {
        return Vec::new();
    };
    trajectory(&run.results)
        .iter()
        .filter_map(|point| Some((point.round, point.get(quantity)?)))
        .filter(|(_, value)| !value.is_nan())
        .collect()
}

/// A measure at the end of a run; none where it was not measured. Without privacy, epsilon is
/// infinite.
pub(super) fn last(run: &Run, measure: Measure, target: Option<f64>) -> Option<f64> {
    let figures = &run.figures;
    let value = match measure {
        Measure::Rounds => Some(figures.rounds as f64),
        Measure::Time | Measure::Seconds | Measure::Hours => figures.virtual_seconds,
        Measure::Bytes => Some(figures.bytes as f64),
        Measure::Joules => figures.joules,
        Measure::Epsilon if run.results.privacy.is_empty() => Some(f64::INFINITY),
        Measure::Epsilon => figures.epsilon,
        Measure::Accuracy => figures.final_accuracy,
        Measure::BestAccuracy => figures.best_accuracy,
        Measure::AccuracyInt8 => figures.final_accuracy_int8,
        Measure::Loss => figures.final_loss,
        Measure::Patch | Measure::TrainAccuracy | Measure::TrainLoss => {
            course(run, measure).last().map(|point| point.1)
        }
        Measure::Jain => jain(&accuracies(run)),
        Measure::WorstDecile => worst_decile(&accuracies(run)),
        Measure::RoundsToTarget
        | Measure::TimeToTarget
        | Measure::BytesToTarget
        | Measure::JoulesToTarget
        | Measure::EpsilonToTarget => {
            let reached = Target::of(&run.results, target.or_else(|| stop_at(run))?)?;
            reached.at.get(quantity(measure)?)
        }
    };
    value.filter(|value| !value.is_nan())
}

/// The accuracy at which a run was to stop.
pub(super) fn stop_at(run: &Run) -> Option<f64> {
    let config = &run.results.manifest.config;
    config.get("stop_at_accuracy")?.as_float()
}

/// Accuracy of every client at the last evaluation on clients, as shares.
pub(super) fn accuracies(run: &Run) -> Vec<f64> {
    let rows = run.results.clients.iter().map(|row| row.accuracy);
    rows.filter(|accuracy| accuracy.is_finite()).collect()
}

/// Jain's index of fairness, `(sum x)^2 / (n sum x^2)` (Jain, Chiu and Hawe 1984, DEC-TR-301,
/// equation 1): 1 where all are alike, `k / n` where `k` have all alike and the others nothing. None of
/// nobody; 1 where nobody has anything.
pub(super) fn jain(values: &[f64]) -> Option<f64> {
    let sum: f64 = values.iter().sum();
    let squares: f64 = values.iter().map(|value| value * value).sum();
    match values.len() {
        0 => None,
        _ if squares <= 0.0 => Some(1.0),
        count => Some(sum * sum / (count as f64 * squares)),
    }
}

/// The mean over the worst tenth of the clients, a part of a client counting as a whole one (the
/// "worst 10 %" of Li et al. 2020, "Fair Resource Allocation in Federated Learning",
/// arXiv:1905.10497, section 4).
pub(super) fn worst_decile(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let worst = sorted.get(..sorted.len().div_ceil(10))?;
    match worst.len() {
        0 => None,
        count => Some(worst.iter().sum::<f64>() / count as f64),
    }
}

/// How a measure is drawn whose largest value is `most`.
pub(super) fn drawn(measure: Measure, most: f64, runs: &[&Run]) -> Drawn {
    let percent = |title: &str| Drawn {
        title: format!("{title} (%)"),
        factor: 100.0,
        unit: "%",
        percent: true,
    };
    let plain = |title: &str| Drawn {
        title: title.to_owned(),
        factor: 1.0,
        unit: "",
        percent: false,
    };
    let scaled = |title: &str, (unit, size): Unit| Drawn {
        title: format!("{title} ({unit})"),
        factor: 1.0 / size,
        unit,
        percent: false,
    };
    let tested = runs.iter().any(|run| {
        let mut rows = run.results.evaluations.iter();
        rows.any(|row| row.test_accuracy.is_some() || row.test_loss.is_some())
    });
    let on = if tested { "Test" } else { "Training" };
    match measure {
        Measure::Rounds => plain("Communication round"),
        Measure::Time => scaled("Virtual time", unit(TIME, most)),
        Measure::Seconds => scaled("Virtual time", ("s", 1.0)),
        Measure::Hours => scaled("Virtual time", ("h", 3600.0)),
        Measure::Bytes => scaled("Models and updates sent", unit(BYTES, most)),
        Measure::Joules => scaled("Energy of training, modelled", unit(ENERGY, most)),
        Measure::Epsilon => plain(&epsilon_title(runs)),
        Measure::Accuracy => percent(&format!("{on} accuracy")),
        Measure::BestAccuracy => percent(&format!("Best {} accuracy", on.to_lowercase())),
        Measure::AccuracyInt8 => percent("Test accuracy in int8"),
        Measure::Patch => percent("Patch, share of the int8 file"),
        Measure::Loss => plain(&format!("{on} loss")),
        Measure::TrainAccuracy => percent("Training accuracy"),
        Measure::TrainLoss => plain("Training loss"),
        Measure::Jain => plain("Jain's index of clients' accuracy"),
        Measure::WorstDecile => percent("Accuracy of the worst tenth"),
        Measure::RoundsToTarget => plain("Rounds to the target"),
        Measure::TimeToTarget => scaled("Virtual time to the target", unit(TIME, most)),
        Measure::BytesToTarget => scaled("Bytes to the target", unit(BYTES, most)),
        Measure::JoulesToTarget => scaled("Energy to the target, modelled", unit(ENERGY, most)),
        Measure::EpsilonToTarget => plain("ε spent until the target"),
    }
}

/// Names delta where all private runs share one, and says what is not what it seems.
fn epsilon_title(runs: &[&Run]) -> String {
    let last: Vec<&PrivacyRow> = runs
        .iter()
        .filter_map(|run| run.results.privacy.last())
        .collect();
    let whose = match last.iter().any(|row| row.is_servers()) {
        true => "ε that the budget is about",
        false => "ε of the released models",
    };
    let hypothetical = match last.iter().any(|row| row.is_hypothetical()) {
        true => ", hypothetical",
        false => "",
    };
    match last.as_slice() {
        [first, rest @ ..]
            if rest
                .iter()
                .all(|row| row.delta.total_cmp(&first.delta).is_eq()) =>
        {
            format!("{whose} at δ = {:e}{hypothetical}", first.delta)
        }
        _ => format!("{whose}{hypothetical}"),
    }
}

/// A title without its unit, as it is read inside a sentence.
pub(super) fn in_words(title: &str) -> String {
    let text = title.split(" (").next().unwrap_or(title);
    let mut letters = text.chars();
    match letters.next() {
        // A name of somebody is not written small.
        Some(first) if !text.starts_with("Jain") && !text.starts_with("Dirichlet") => {
            format!("{}{}", first.to_lowercase(), letters.as_str())
        }
        _ => text.to_owned(),
    }
}

/// What the target of measures `...-to-target` is, for a subtitle.
pub(super) fn target_text(measure: Measure, target: Option<f64>, runs: &[&Run]) -> Option<String> {
    if !measure.needs_target() {
        return None;
    }
    let mut targets: Vec<f64> = match target {
        Some(target) => vec![target],
        None => runs.iter().filter_map(|run| stop_at(run)).collect(),
    };
    targets.sort_by(f64::total_cmp);
    targets.dedup();
    Some(match targets.as_slice() {
        [one] => format!("target {} % accuracy", short(one * 100.0)),
        _ => "target: the accuracy at which each run was to stop".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fairness_is_that_of_the_papers() {
        // Of ten users one has everything: a tenth; all alike: 1; Jain's example of 20 % served: 0.2.
        let one = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        let cases: [(&[f64], Option<f64>); 5] = [
            (&one, Some(0.1)),
            (&[0.5, 0.5, 0.5], Some(1.0)),
            // 6^2 / (3 * 14).
            (&[1.0, 2.0, 3.0], Some(36.0 / 42.0)),
            (&[], None),
            (&[0.0, 0.0], Some(1.0)),
        ];
        for (values, expected) in cases {
            let found = jain(values);
            let close = match (found, expected) {
                (Some(found), Some(expected)) => (found - expected).abs() < 1e-12,
                (found, expected) => found == expected,
            };
            assert!(close, "{values:?} {found:?}");
        }
        let eleven: Vec<f64> = (0..11).map(f64::from).collect();
        // Two of eleven: 0 and 1.
        assert_eq!(worst_decile(&eleven), Some(0.5));
        assert_eq!(worst_decile(&eleven[..10]), Some(0.0));
        assert_eq!(worst_decile(&[0.7]), Some(0.7));
        assert_eq!(worst_decile(&[]), None);
    }

    #[test]
    fn a_deviation_has_two_digits() {
        let drawn = |unit: &'static str, percent: bool| Drawn {
            title: String::new(),
            factor: 1.0,
            unit,
            percent,
        };
        assert_eq!(drawn("", false).spread(31.0, 1.414), "31.0 ± 1.4");
        assert_eq!(drawn("%", true).spread(81.25, 0.449), "81.2 ± 0.4 %");
        assert_eq!(drawn("s", false).spread(131.0, 14.2), "131 ± 14 s");
        assert_eq!(drawn("", false).spread(0.2345, 0.0123), "0.234 ± 0.012");
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (3.0, "3"),
            (12_345.6, "12,346"),
            (1.234, "1.23"),
            (45.67, "45.7"),
            (0.1234, "0.123"),
            (0.012_34, "0.0123"),
            (-0.5, "−0.500"),
            (2e7, "2.00e7"),
        ] {
            assert_eq!(short(value), text);
        }
    }
}
