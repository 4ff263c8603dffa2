//! `[sweep.random]`: settings drawn at random (Bergstra and Bengio 2012, "Random Search for
//! Hyper-Parameter Optimization", JMLR 13).
//!
//! Each value comes from a stream of its own, addressed by the seed, the sample's number and a hash
//! of the key: more samples leave those before them as they were, and so does another key.

use std::ops::RangeInclusive;

use fl_core::{ClientId, Purpose, RoundId, Seed, Stream};
use sha2::{Digest as _, Sha256};

use crate::config::de::join;
use crate::config::diagnostic::{Diagnostic, Diagnostics, suggest};
use crate::config::node::{Key, Node, Table, Value};

use super::dimension::{Choice, Dimension, ends, refuse_key, whole};
use super::value::{leaves, rounded};

const PATH: &str = "sweep.random";

/// Ways to draw a value.
const LAWS: [&str; 5] = ["uniform", "log", "integer", "log_integer", "choice"];

/// Keys of the table itself.
const OWN: [&str; 3] = ["samples", "seed", "digits"];

/// How a value is drawn.
enum Law {
    Uniform(f64, f64),
    /// Uniform in its logarithm.
    Log(f64, f64),
    /// Both ends included.
    Integer(i64, i64),
    /// Uniform in the logarithm, rounded to the nearest.
    LogInteger(f64, f64),
    Choice(Vec<Node>),
}

/// The drawn settings, as one axis.
pub(super) fn read(node: &Node, errors: &Diagnostics) -> Option<Dimension> {
    let fault = |at: &Node, key: &str, message: String| {
        let key = if key.is_empty() {
            PATH.to_owned()
        } else {
            join(PATH, key)
        };
        errors.add(Diagnostic::new(Some(at.place.clone()), key, message));
    };
    let Some(table) = node.table() else {
        fault(
            node,
            "",
            format!("found {}, expected a table", node.describe()),
        );
        return None;
    };
    let before = errors.len();
    let whole = |key: &str, range: RangeInclusive<i64>, default: Option<i64>| {
        whole((table, node), key, range, default, &fault)
    };
    let samples = whole("samples", 1..=super::MOST as i64, None);
    let seed = whole("seed", 0..=i64::MAX, Some(1));
    let digits = whole("digits", 1..=17, Some(4));
    let mut laws: Vec<(Key, Law)> = Vec::new();
    for (name, key, at) in leaves(node, &is_law) {
        let key = Key {
            name,
            place: key.place.clone(),
        };
        if OWN.contains(&key.name.as_str()) || refuse_key(&key, PATH, errors) {
            continue;
        }
        let Some(law) = at.table() else {
            fault(
                at,
                &key.name,
                format!(
                    "found {}, expected how it is drawn: {{ uniform = [a, b] }}, {{ log = [a, b] }}, {{ integer = [a, b] }}, {{ log_integer = [a, b] }} or {{ choice = [...] }}",
                    at.describe()
                ),
            );
            continue;
        };
        laws.extend(Law::read(&key, law, at, &fault).map(|law| (key, law)));
    }
    if laws.is_empty() && errors.len() == before {
        fault(
            node,
            "",
            "there is no key to draw; add for example \"local.learning_rate\" = { log = [0.001, 1.0] }"
                .to_owned(),
        );
    }
    let (samples, seed, digits) = (samples?, seed?, digits? as usize);
    if errors.len() != before {
        return None;
    }
    let mut choices = Vec::new();
    for sample in 0..samples {
        let mut choice = Choice::nothing();
        for (key, law) in &laws {
            let mut stream = Stream::at(
                Purpose::Sweep,
                Seed(seed.cast_unsigned()),
                RoundId(sample.cast_unsigned() + 1),
                ClientId(address(&key.name)),
            );
            let value = law.draw(&mut stream, key, digits);
            let one = Choice::of(key, value, errors)?;
            choice.values.extend(one.values);
            choice.removes.extend(one.removes);
            choice.sets.extend(one.sets);
        }
        choices.push(choice);
    }
    Some(Dimension {
        keys: laws.into_iter().map(|(key, _)| key).collect(),
        choices,
        is_drawn: true,
    })
}

/// The first eight bytes of the key's SHA-256, little-endian.
fn address(key: &str) -> u64 {
    let hash = Sha256::digest(key.as_bytes());
    hash.iter()
        .take(8)
        .rev()
        .fold(0, |number, &byte| number << 8 | u64::from(byte))
}

pub(super) fn is_law(table: &Table) -> bool {
    LAWS.iter().any(|name| table.get(name).is_some())
}

impl Law {
    fn read(
        key: &Key,
        table: &Table,
        node: &Node,
        fault: &dyn Fn(&Node, &str, String),
    ) -> Option<Self> {
        let [(name, at)] = table.entries.as_slice() else {
            fault(
                node,
                &key.name,
                "a key is drawn in one way: uniform, log, integer, log_integer or choice"
                    .to_owned(),
            );
            return None;
        };
        let law = match name.name.as_str() {
            "choice" => match &at.value {
                Value::Array(items) if !items.is_empty() => Some(Self::Choice(items.clone())),
                _ => None,
            },
            kind if LAWS.contains(&kind) => ends(table, kind).map(|[low, high]| match kind {
                "uniform" => Self::Uniform(low, high),
                "log" => Self::Log(low, high),
                "integer" => Self::Integer(low as i64, high as i64),
                _ => Self::LogInteger(low, high),
            }),
            other => {
                fault(
                    at,
                    &format!("{}.{other}", key.name),
                    format!("unknown key; {}", suggest(other, LAWS)),
                );
                return None;
            }
        };
        if law.is_none() {
            fault(
                at,
                &format!("{}.{}", key.name, name.name),
                match name.name.as_str() {
                    "choice" => "expected a list of at least one value",
                    "uniform" => "expected two numbers, the smaller first, such as [0.0, 0.5]",
                    "log" => {
                        "expected two numbers above 0, the smaller first, such as [0.001, 1.0]"
                    }
                    "integer" => "expected two whole numbers, the smaller first, such as [1, 10]",
                    _ => "expected two whole numbers above 0, the smaller first, such as [1, 64]",
                }
                .to_owned(),
            );
        }
        law
    }

    fn draw(&self, stream: &mut Stream, key: &Key, digits: usize) -> Node {
        let log = |low: f64, high: f64, share: f64| {
            libm::exp(libm::log(low) + share * (libm::log(high) - libm::log(low)))
        };
        let value = match self {
            Self::Uniform(low, high) => Value::Float(
                rounded(low + stream.uniform() * (high - low), digits).clamp(*low, *high),
            ),
            Self::Log(low, high) => {
                Value::Float(rounded(log(*low, *high, stream.uniform()), digits).clamp(*low, *high))
            }
            Self::Integer(low, high) => {
                let width = high.abs_diff(*low) + 1;
                Value::Integer(low.saturating_add_unsigned(stream.below(width)))
            }
            // Half a step beyond each end, so that the ends are as likely as their neighbours.
            Self::LogInteger(low, high) => {
                let value = log(low - 0.5, high + 0.5, stream.uniform());
                Value::Integer(libm::round(value).clamp(*low, *high) as i64)
            }
            Self::Choice(items) => {
                let place = stream.below(items.len() as u64) as usize;
                match items.get(place) {
                    Some(node) => return node.clone(),
                    None => Value::Integer(0),
                }
            }
        };
        Node {
            place: key.place.clone(),
            value,
        }
    }
}
