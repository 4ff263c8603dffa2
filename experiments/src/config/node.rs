//! TOML as a tree that remembers where everything was written.
//!
//! Several sources flow together into one tree: the file, the overrides of a variant, `--set`
//! arguments. Each key and value keeps its own place, so that an error points at what was typed.

use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, Diagnostics};

/// A text that values were read from.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// A path, or `--set KEY=VALUE` as it was typed.
    pub(crate) name: String,
    /// The whole text.
    pub(crate) text: Arc<str>,
    /// Whether a place is told by line and column.
    pub(crate) is_file: bool,
}

/// Where something was written.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The text.
    pub(crate) source: Arc<Source>,
    /// Bytes of it.
    pub(crate) span: Range<usize>,
}

/// A value and its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Value,
}

/// A key and its place.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) place: Place,
}

/// What a [`Node`] holds.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    String(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Datetime(String),
    Array(Vec<Node>),
    Table(Table),
}

/// Keys and values, in the order in which they were written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    pub(crate) entries: Vec<(Key, Node)>,
}

impl Table {
    pub(crate) fn get(&self, name: &str) -> Option<&Node> {
        self.entry(name).map(|(_, node)| node)
    }

    pub(crate) fn entry(&self, name: &str) -> Option<&(Key, Node)> {
        self.entries.iter().find(|(key, _)| key.name == name)
    }

    pub(crate) fn remove(&mut self, name: &str) -> Option<(Key, Node)> {
        let index = self.entries.iter().position(|(key, _)| key.name == name)?;
        Some(self.entries.remove(index))
    }

    /// Adds an entry, in place of an older one of the same name.
    pub(crate) fn set(&mut self, key: Key, node: Node) {
        match self
            .entries
            .iter_mut()
            .find(|(old, _)| old.name == key.name)
        {
            Some(entry) => *entry = (key, node),
            None => self.entries.push((key, node)),
        }
    }
}

impl Node {
    pub(crate) fn table(&self) -> Option<&Table> {
        match &self.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    pub(crate) fn table_mut(&mut self) -> Option<&mut Table> {
        match &mut self.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    pub(crate) fn str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The value at a dotted path of keys.
    pub(crate) fn at(&self, path: &str) -> Option<&Self> {
        path.split('.')
            .try_fold(self, |node, name| match &node.value {
                Value::Table(table) => table.get(name),
                Value::Array(items) => items.get(name.parse::<usize>().ok()?),
                _ => None,
            })
    }

    /// What the value is, in words: `the string "fast"`, `a table`.
    pub(crate) fn describe(&self) -> String {
        match &self.value {
            Value::String(text) => format!("the string {text:?}"),
            Value::Integer(value) => value.to_string(),
            Value::Float(value) => format!("{value:?}"),
            Value::Boolean(value) => value.to_string(),
            Value::Datetime(value) => format!("the date {value}"),
            Value::Array(_) => "a list".to_owned(),
            Value::Table(_) => "a table".to_owned(),
        }
    }
}

/// Parses a whole TOML text; every syntax error is added to `errors`.
pub(crate) fn parse(source: &Arc<Source>, errors: &Diagnostics) -> Node {
    let (table, faults) = DeTable::parse_recoverable(&source.text);
    for fault in faults {
        let span = fault.span().unwrap_or(0..0);
        errors.add(Diagnostic::new(
            Some(place(source, &span)),
            "",
            format!("this is not TOML: {}", fault.message()),
        ));
    }
    let whole = table.span();
    Node {
        place: place(source, &whole),
        value: Value::Table(convert_table(source, table.get_ref(), errors)),
    }
}

/// Parses `key.path=value`; the value is TOML, or else a bare string.
pub(crate) fn parse_set(argument: &str, errors: &Diagnostics) -> Option<Node> {
    let source = Arc::new(Source {
        name: format!("--set {argument}"),
        text: argument.into(),
        is_file: false,
    });
    let all = 0..argument.len();
    let Some((path, value)) = argument.split_once('=') else {
        errors.add(Diagnostic::new(
            Some(place(&source, &all)),
            "",
            "there is no `=`; write --set KEY.PATH=VALUE, for example --set local.batch=20"
                .to_owned(),
        ));
        return None;
    };
    let mut node = parse_value(&source, value, path.len() + 1, errors);
    let mut end = path.len();
    for name in path.rsplit('.') {
        let span = end - name.len()..end;
        end = span.start.saturating_sub(1);
        let name = name.trim();
        if name.is_empty() {
            errors.add(Diagnostic::new(
                Some(place(&source, &span)),
                "",
                "a key is empty; write --set KEY.PATH=VALUE, for example --set local.batch=20"
                    .to_owned(),
            ));
            return None;
        }
        let key = Key {
            name: name.to_owned(),
            place: place(&source, &span),
        };
        node = Node {
            place: key.place.clone(),
            value: Value::Table(Table {
                entries: vec![(key, node)],
            }),
        };
    }
    Some(node)
}

/// Parses the value of an option `--OPTION VALUE` as a table that holds only `key`.
pub(crate) fn parse_option(option: &str, key: &str, value: &str, errors: &Diagnostics) -> Node {
    let source = Arc::new(Source {
        name: format!("--{option} {value}"),
        text: value.into(),
        is_file: false,
    });
    let node = parse_value(&source, value, 0, errors);
    let key = Key {
        name: key.to_owned(),
        place: node.place.clone(),
    };
    Node {
        place: node.place.clone(),
        value: Value::Table(Table {
            entries: vec![(key, node)],
        }),
    }
}

/// A value that begins at byte `start` of its source: TOML, or else a bare string.
fn parse_value(source: &Arc<Source>, value: &str, start: usize, errors: &Diagnostics) -> Node {
    match DeValue::parse(value.trim()) {
        Ok(parsed) => convert(source, &parsed, errors, start + leading(value)),
        Err(_) => Node {
            place: place(source, &(start..start + value.len())),
            value: Value::String(value.trim().to_owned()),
        },
    }
}

fn leading(text: &str) -> usize {
    text.len() - text.trim_start().len()
}

fn place(source: &Arc<Source>, span: &Range<usize>) -> Place {
    Place {
        source: Arc::clone(source),
        span: span.clone(),
    }
}

fn convert_table(source: &Arc<Source>, table: &DeTable<'_>, errors: &Diagnostics) -> Table {
    let mut entries: Vec<_> = table
        .iter()
        .map(|(key, value)| {
            let key = Key {
                name: key.get_ref().to_string(),
                place: place(source, &key.span()),
            };
            (key, convert(source, value, errors, 0))
        })
        .collect();
    entries.sort_by_key(|(key, _)| key.place.span.start);
    Table { entries }
}

fn convert(
    source: &Arc<Source>,
    value: &Spanned<DeValue<'_>>,
    errors: &Diagnostics,
    shift: usize,
) -> Node {
    let span = value.span();
    let span = span.start + shift..span.end + shift;
    let converted = match value.get_ref() {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => {
            let digits = number.as_str().replace('_', "");
            Value::Integer(
                i64::from_str_radix(&digits, number.radix()).unwrap_or_else(|_| {
                    errors.add(Diagnostic::new(
                        Some(place(source, &span)),
                        "",
                        format!(
                            "{digits} is too large; whole numbers go from {} to {}",
                            i64::MIN,
                            i64::MAX
                        ),
                    ));
                    0
                }),
            )
        }
        DeValue::Float(number) => {
            Value::Float(number.as_str().replace('_', "").parse().unwrap_or(f64::NAN))
        }
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Datetime(value) => Value::Datetime(value.to_string()),
        DeValue::Array(items) => Value::Array(
            items
                .iter()
                .map(|item| convert(source, item, errors, shift))
                .collect(),
        ),
        DeValue::Table(table) => {
            let mut table = convert_table(source, table, errors);
            if shift > 0 {
                table.shift(shift);
            }
            Value::Table(table)
        }
    };
    Node {
        place: place(source, &span),
        value: converted,
    }
}

impl Table {
    /// Moves all places of a table that was parsed from the middle of its source.
    fn shift(&mut self, by: usize) {
        for (key, node) in &mut self.entries {
            key.place.span = key.place.span.start + by..key.place.span.end + by;
            node.shift(by);
        }
    }
}

impl Node {
    fn shift(&mut self, by: usize) {
        self.place.span = self.place.span.start + by..self.place.span.end + by;
        match &mut self.value {
            Value::Table(table) => table.shift(by),
            Value::Array(items) => items.iter_mut().for_each(|item| item.shift(by)),
            _ => {}
        }
    }
}
