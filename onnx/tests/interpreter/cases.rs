//! The node tests of the `onnx` package, as `tests/python/export_node_tests.py` writes them.

use std::collections::BTreeMap;

use fl_onnx::proto::{ModelProto, TensorProto};
use fl_onnx::{Interpreter, Limits, OnnxError, Tensor, decode};
use prost::Message as _;

/// A model with inputs and the outputs that it must give.
pub(crate) struct Case {
    pub(crate) name: String,
    /// `needed` or `other`.
    pub(crate) group: String,
    pub(crate) rtol: f64,
    pub(crate) atol: f64,
    pub(crate) model: Vec<u8>,
    pub(crate) inputs: Vec<Vec<u8>>,
    pub(crate) outputs: Vec<Vec<u8>>,
}

/// How a case ended.
pub(crate) enum Verdict {
    Passed,
    /// With an error that says what is not supported.
    Refused(OnnxError),
    /// Another answer, or an error of any other kind.
    Wrong(String),
}

/// Reads a file of cases.
pub(crate) fn read(mut bytes: &[u8]) -> Result<Vec<Case>, String> {
    let mut cases = Vec::new();
    while !bytes.is_empty() {
        let end = bytes.iter().position(|&byte| byte == b'\n');
        let end = end.ok_or("a line without an end")?;
        let line = std::str::from_utf8(&bytes[..end]).map_err(|error| error.to_string())?;
        bytes = &bytes[end + 1..];
        let wrong = || format!("the line `{line}`");
        let words: Vec<&str> = line.split(' ').collect();
        let [name, group, rtol, atol, inputs, lengths @ ..] = &words[..] else {
            return Err(wrong());
        };
        let count: usize = inputs.parse().map_err(|_| wrong())?;
        let mut parts = Vec::new();
        for length in lengths {
            let length = length.parse().map_err(|_| wrong())?;
            let (part, rest) = bytes.split_at_checked(length).ok_or_else(wrong)?;
            parts.push(part.to_vec());
            bytes = rest;
        }
        if parts.len() < 1 + count {
            return Err(wrong());
        }
        let outputs = parts.split_off(1 + count);
        let inputs = parts.split_off(1);
        cases.push(Case {
            name: (*name).to_owned(),
            group: (*group).to_owned(),
            rtol: rtol.parse().map_err(|_| wrong())?,
            atol: atol.parse().map_err(|_| wrong())?,
            model: parts.remove(0),
            inputs,
            outputs,
        });
    }
    Ok(cases)
}

fn tensor(bytes: &[u8]) -> Result<Tensor, String> {
    let proto = TensorProto::decode(bytes).map_err(|error| error.to_string())?;
    Tensor::from_proto(&proto).map_err(|error| error.to_string())
}

impl Case {
    /// The inputs by name, for a model that may have fewer or others.
    pub(crate) fn inputs(&self, model: &ModelProto) -> Result<BTreeMap<String, Tensor>, String> {
        let graph = model.graph.as_ref().ok_or("no graph")?;
        let names = graph.input.iter().map(|input| input.name.clone());
        names
            .zip(&self.inputs)
            .map(|(name, bytes)| Ok((name, tensor(bytes)?)))
            .collect()
    }

    /// Runs the case. `Err` where its own data cannot be read.
    ///
    /// Floats are compared as the package's runner does,
    /// `|found - expected| <= atol + rtol * |expected|`; everything else exactly.
    pub(crate) fn judge(&self) -> Result<Verdict, String> {
        let limits = Limits::default();
        let read = decode(&self.model, &limits)
            .and_then(|model| Ok((Interpreter::new(&model, &limits)?, model)));
        let (interpreter, model) = match read {
            Ok(parts) => parts,
            Err(error) => return Ok(refused(error)),
        };
        let found = match interpreter.run(&self.inputs(&model)?) {
            Ok(found) => found,
            Err(error) => return Ok(refused(error)),
        };
        let graph = model.graph.unwrap_or_default();
        for (output, bytes) in graph.output.iter().zip(&self.outputs) {
            let Some(found) = found.get(&output.name) else {
                return Ok(Verdict::Wrong(format!("no output `{}`", output.name)));
            };
            if let Some(why) = differ(found, &tensor(bytes)?, self.rtol, self.atol) {
                return Ok(Verdict::Wrong(format!("output `{}`: {why}", output.name)));
            }
        }
        Ok(Verdict::Passed)
    }
}

fn refused(error: OnnxError) -> Verdict {
    if error.is_unsupported() {
        Verdict::Refused(error)
    } else {
        Verdict::Wrong(error.to_string())
    }
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
        if x.is_finite() && y.is_finite() {
            (x - y).abs() <= atol + rtol * y.abs()
        } else {
            x.total_cmp(&y).is_eq() || (x.is_nan() && y.is_nan())
        }
    };
    let place = match (found.to_i64(), expected.to_i64()) {
        (Some(x), Some(y)) => x.iter().zip(&y).position(|(x, y)| x != y),
        _ => {
            let (x, y) = (found.to_f64(), expected.to_f64());
            x.iter().zip(&y).position(|(&x, &y)| !close(x, y))
        }
    }?;
    let (x, y) = (found.to_f64()[place], expected.to_f64()[place]);
    Some(format!("element {place} is {x} where {y} is expected"))
}
