//! Configurations as resolved, line by line, with what differs between the runs.

use std::collections::BTreeSet;

use serde::Serialize;

use super::Run;

/// A line of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Listing {
    pub(super) text: String,
    /// Whether its key differs between the runs.
    pub(super) differs: bool,
}

/// Keys whose values are not the same in all runs, in alphabetical order.
pub(super) fn differing(runs: &[Run<'_>]) -> Vec<String> {
    let all: BTreeSet<&String> = runs.iter().flat_map(|run| run.keys.keys()).collect();
    let Some((first, rest)) = runs.split_first() else {
        return Vec::new();
    };
    let differs = |key: &&String| {
        let value = first.keys.get(*key);
        rest.iter().any(|run| run.keys.get(*key) != value)
    };
    all.into_iter().filter(differs).cloned().collect()
}

/// A configuration as TOML, each line with whether it is about one of the keys `differing`.
pub(super) fn listing(config: &toml::Table, differing: &[String]) -> Vec<Listing> {
    let mut writer = Writer {
        differing,
        lines: Vec::new(),
    };
    writer.table(config, "", "");
    writer.lines
}

struct Writer<'a> {
    differing: &'a [String],
    lines: Vec<Listing>,
}

impl Writer<'_> {
    /// The values of a table, then the tables in it. `path` is as in [`crate::compare`], where the
    /// tables of an array are numbered; `header` is the table's own.
    fn table(&mut self, table: &toml::Table, path: &str, header: &str) {
        let below = |path: &str, key: &str| match path {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        };
        for (key, value) in table.iter().filter(|(_, value)| !has_tables(value)) {
            let path = below(path, key);
            let text = format!("{} = {value}", quoted(key));
            for text in text.lines() {
                self.lines.push(Listing {
                    text: text.to_owned(),
                    differs: self.differing.contains(&path),
                });
            }
        }
        for (key, value) in table {
            let (path, header) = (below(path, key), below(header, &quoted(key)));
            match value {
                toml::Value::Table(inner) => {
                    self.header(format!("[{header}]"));
                    self.table(inner, &path, &header);
                }
                toml::Value::Array(items) if has_tables(value) => {
                    for (index, item) in items.iter().enumerate() {
                        let path = format!("{path}.{index}");
                        self.header(format!("[[{header}]]"));
                        match item {
                            toml::Value::Table(inner) => self.table(inner, &path, &header),
                            // No array of ours mixes tables with other values.
                            plain => self.lines.push(Listing {
                                text: plain.to_string(),
                                differs: self.differing.contains(&path),
                            }),
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn header(&mut self, text: String) {
        if !self.lines.is_empty() {
            self.lines.push(Listing {
                text: String::new(),
                differs: false,
            });
        }
        self.lines.push(Listing {
            text,
            differs: false,
        });
    }
}

fn has_tables(value: &toml::Value) -> bool {
    match value {
        toml::Value::Table(_) => true,
        toml::Value::Array(items) => items.iter().any(toml::Value::is_table),
        _ => false,
    }
}

/// A key as TOML has it: bare where that is possible.
fn quoted(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    match !key.is_empty() && key.chars().all(bare) {
        true => key.to_owned(),
        false => toml::Value::String(key.to_owned()).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::flat;

    const CONFIG: &str = r#"
        name = "x"
        seed = 3
        list = [1, 2.5]
        "a key" = "two\nlines"
        [dataset]
        name = "digits"
        partition = { kind = "iid", clients = 10 }
        [[model.layer]]
        kind = "dense"
        units = 10
        [[model.layer]]
        kind = "relu"
    "#;

    #[test]
    fn a_listing_is_the_same_toml() {
        let config: toml::Table = CONFIG.parse().unwrap();
        let lines = listing(&config, &[]);
        let text: Vec<String> = lines.into_iter().map(|line| line.text).collect();
        let read: toml::Table = text.join("\n").parse().unwrap();
        assert_eq!(read, config);
    }

    #[test]
    fn what_differs_is_marked() {
        let config: toml::Table = CONFIG.parse().unwrap();
        let mut keys: Vec<String> = flat(&config).into_keys().collect();
        keys.retain(|key| key == "seed" || key == "model.layer.1.kind" || key == "a key");
        assert_eq!(keys.len(), 3);
        let lines = listing(&config, &keys);
        let marked: Vec<&str> = lines
            .iter()
            .filter(|line| line.differs)
            .map(|line| line.text.as_str())
            .collect();
        assert!(marked.contains(&"seed = 3"), "{marked:?}");
        assert!(marked.contains(&"kind = \"relu\""), "{marked:?}");
        assert!(!marked.contains(&"kind = \"dense\""), "{marked:?}");
        assert!(marked.iter().any(|line| line.contains("two")), "{marked:?}");
    }
}
