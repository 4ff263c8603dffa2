//! Runs the exported node tests of the `onnx` package (`tests/python/export_node_tests.py`).
//!
//! ```text
//! cargo run --release -p fl-onnx --example node_tests -- FILE [LEAST]
//! ```
//!
//! Each case passes, is refused with an error that says what is not supported, or is wrong: another
//! answer, or an error of any other kind. It fails if a case is wrong, or if fewer than LEAST of
//! the group `needed` pass.

#[path = "../tests/interpreter/cases.rs"]
mod cases;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;

use cases::Verdict;
use fl_onnx::OnnxError;

#[derive(Default)]
struct Counts {
    passed: usize,
    refused: usize,
    wrong: usize,
}

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that reports to people"
)]
fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(file) = arguments.next() else {
        eprintln!("usage: node_tests FILE [LEAST]");
        return ExitCode::FAILURE;
    };
    let least = arguments.next().and_then(|least| least.parse().ok());
    match run(&file, least.unwrap_or(0)) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(report) => {
            eprintln!("{report}");
            ExitCode::FAILURE
        }
    }
}

fn run(file: &str, least: usize) -> Result<String, String> {
    let bytes = std::fs::read(file).map_err(|error| format!("{file}: {error}"))?;
    let list = cases::read(&bytes).map_err(|error| format!("{file}: {error}"))?;
    let mut groups: BTreeMap<&str, Counts> = BTreeMap::new();
    let mut refused: BTreeMap<String, BTreeMap<&str, usize>> = BTreeMap::new();
    let mut report = String::new();
    for case in &list {
        let counts = groups.entry(&case.group).or_default();
        match case.judge()? {
            Verdict::Passed => counts.passed += 1,
            Verdict::Refused(error) => {
                counts.refused += 1;
                let operator = match error {
                    OnnxError::UnsupportedOperator { op, domain, .. } if domain == "ai.onnx" => op,
                    OnnxError::UnsupportedOperator { op, domain, .. } => format!("{domain}.{op}"),
                    OnnxError::Node { op, problem, .. } => format!("{op}: {problem}"),
                    other => other.to_string(),
                };
                let by_group = refused.entry(operator).or_default();
                *by_group.entry(&case.group).or_default() += 1;
            }
            Verdict::Wrong(why) => {
                counts.wrong += 1;
                let _ = writeln!(report, "WRONG {} {}: {why}", case.group, case.name);
            }
        }
    }
    for (operator, by_group) in &refused {
        let counts: Vec<String> = by_group
            .iter()
            .map(|(group, count)| format!("{count} {group}"))
            .collect();
        let _ = writeln!(report, "refused {operator} ({})", counts.join(", "));
    }
    for (group, counts) in &groups {
        let _ = writeln!(
            report,
            "{group}: {} passed, {} refused, {} wrong of {}",
            counts.passed,
            counts.refused,
            counts.wrong,
            counts.passed + counts.refused + counts.wrong
        );
    }
    let wrong: usize = groups.values().map(|counts| counts.wrong).sum();
    let passed = groups.get("needed").map_or(0, |counts| counts.passed);
    if wrong > 0 || passed < least {
        let _ = writeln!(
            report,
            "at least {least} needed cases must pass, none be wrong"
        );
        return Err(report);
    }
    Ok(report)
}
