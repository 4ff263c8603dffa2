//! Runs the exported node tests of the `onnx` package (`tests/python/export_node_tests.py`).
//!
//! ```text
//! cargo run --release -p fl-onnx --example node_tests -- FOLDER [LEAST]
//! ```
//!
//! Each case passes, is refused with an error that says what is not supported, or is wrong: another
//! answer, or an error of any other kind. It fails if a case is wrong, or if fewer than LEAST
//! of the group `needed` pass. Floats are compared as the package's own runner does,
//! `|found - expected| <= atol + rtol * |expected|` with the case's tolerances; whole numbers and
//! truth values exactly; types and shapes exactly.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use fl_onnx::proto::TensorProto;
use fl_onnx::{Interpreter, Limits, OnnxError, Tensor, decode};
use prost::Message as _;

/// How a case ended.
enum Verdict {
    Passed,
    Refused(OnnxError),
    Wrong(String),
}

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
    let Some(folder) = arguments.next() else {
        eprintln!("usage: node_tests FOLDER [LEAST]");
        return ExitCode::FAILURE;
    };
    let least = arguments.next().and_then(|least| least.parse().ok());
    match run(Path::new(&folder), least.unwrap_or(0)) {
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

fn run(folder: &Path, least: usize) -> Result<String, String> {
    let list = std::fs::read_to_string(folder.join("cases.txt"))
        .map_err(|error| format!("{}: {error}", folder.join("cases.txt").display()))?;
    let mut groups: BTreeMap<&str, Counts> = BTreeMap::new();
    let mut refused: BTreeMap<String, BTreeMap<&str, usize>> = BTreeMap::new();
    let mut report = String::new();
    for line in list.lines() {
        let parts: Vec<&str> = line.split(' ').collect();
        let &[name, group, rtol, atol] = &parts[..] else {
            return Err(format!("cases.txt holds the line `{line}`"));
        };
        let (Ok(rtol), Ok(atol)) = (rtol.parse(), atol.parse()) else {
            return Err(format!("cases.txt holds the line `{line}`"));
        };
        let counts = groups.entry(group).or_default();
        match case(&folder.join(name), rtol, atol)? {
            Verdict::Passed => counts.passed += 1,
            Verdict::Refused(error) => {
                counts.refused += 1;
                let operator = match error {
                    OnnxError::UnsupportedOperator { op, domain, .. } if domain == "ai.onnx" => op,
                    OnnxError::UnsupportedOperator { op, domain, .. } => format!("{domain}.{op}"),
                    OnnxError::Node { op, problem, .. } => format!("{op}: {problem}"),
                    other => other.to_string(),
                };
                *refused
                    .entry(operator)
                    .or_default()
                    .entry(group)
                    .or_default() += 1;
            }
            Verdict::Wrong(why) => {
                counts.wrong += 1;
                let _ = writeln!(report, "WRONG {group} {name}: {why}");
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

fn case(folder: &Path, rtol: f64, atol: f64) -> Result<Verdict, String> {
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let limits = Limits::default();
    let interpreter = decode(&read("model.onnx")?, &limits)
        .and_then(|model| Ok((Interpreter::new(&model, &limits)?, model)));
    let (interpreter, model) = match interpreter {
        Ok(parts) => parts,
        Err(error) if error.is_unsupported() => return Ok(Verdict::Refused(error)),
        Err(error) => return Ok(Verdict::Wrong(error.to_string())),
    };
    let tensor = |name: String| -> Result<Tensor, String> {
        let proto = TensorProto::decode(&read(&name)?[..])
            .map_err(|error| format!("{name} of {}: {error}", folder.display()))?;
        Tensor::from_proto(&proto)
            .map_err(|error| format!("{name} of {}: {error}", folder.display()))
    };
    let graph = model.graph.unwrap_or_default();
    let mut inputs = BTreeMap::new();
    for (index, input) in graph.input.iter().enumerate() {
        inputs.insert(input.name.clone(), tensor(format!("input_{index}.pb"))?);
    }
    // Also a crash must say where it was.
    let outputs = match interpreter.run(&inputs) {
        Ok(outputs) => outputs,
        Err(error) if error.is_unsupported() => return Ok(Verdict::Refused(error)),
        Err(error) => return Ok(Verdict::Wrong(error.to_string())),
    };
    for (index, output) in graph.output.iter().enumerate() {
        let expected = tensor(format!("output_{index}.pb"))?;
        let Some(found) = outputs.get(&output.name) else {
            return Ok(Verdict::Wrong(format!("no output `{}`", output.name)));
        };
        if let Some(why) = differ(found, &expected, rtol, atol) {
            return Ok(Verdict::Wrong(format!("output `{}`: {why}", output.name)));
        }
    }
    Ok(Verdict::Passed)
}

/// Why a tensor is not the expected one, if it is not.
fn differ(found: &Tensor, expected: &Tensor, rtol: f64, atol: f64) -> Option<String> {
    if found.dtype() != expected.dtype() || found.shape() != expected.shape() {
        return Some(format!(
            "{} {:?} where {} {:?} is expected",
            found.dtype(),
            found.shape(),
            expected.dtype(),
            expected.shape()
        ));
    }
    let close = |x: f64, y: f64| {
        // Equal infinities have no difference.
        x == y || (x.is_nan() && y.is_nan()) || (x - y).abs() <= atol + rtol * y.abs()
    };
    let place = match (found.to_i64(), expected.to_i64()) {
        (Some(x), Some(y)) => x.iter().zip(&y).position(|(x, y)| x != y),
        _ => {
            let (x, y) = (found.to_f64(), expected.to_f64());
            x.iter().zip(&y).position(|(&x, &y)| {
                let infinite = x.is_infinite() || y.is_infinite();
                !close(x, y) || (infinite && x != y)
            })
        }
    }?;
    let (x, y) = (found.to_f64()[place], expected.to_f64()[place]);
    Some(format!("element {place} is {x} where {y} is expected"))
}
