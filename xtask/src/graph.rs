//! The direction of dependencies, as a test: who may know whom (see ARCHITECTURE.md).

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::process::{cargo, output};

/// For each of our packages, our packages that it may use. Development dependencies count too.
const ARROWS: &[(&str, &[&str])] = &[
    ("fl-core", &[]),
    ("fl-privacy", &["fl-core"]),
    ("fl-secagg", &[]),
    ("fl-versions", &[]),
    ("fl-embed", &["fl-core", "fl-edge"]),
    ("fl-edge", &["fl-core"]),
    ("fl-onnx", &["fl-core", "fl-edge"]),
    ("fl-datasets", &["fl-core"]),
    (
        "fl-sim",
        &[
            "fl-core",
            "fl-datasets",
            "fl-edge",
            "fl-privacy",
            "fl-secagg",
            "fl-versions",
        ],
    ),
    (
        "fledgling",
        &[
            "fl-core",
            "fl-datasets",
            "fl-edge",
            "fl-onnx",
            "fl-privacy",
            "fl-secagg",
            "fl-sim",
            "fl-versions",
        ],
    ),
    (
        "fl-fuzz",
        &[
            "fl-core",
            "fl-datasets",
            "fl-edge",
            "fl-onnx",
            "fl-secagg",
            "fl-sim",
            "fl-versions",
        ],
    ),
    ("xtask", &[]),
];

/// Packages that others embed, with the most third-party packages that each may pull in, on any
/// target, when it is built by itself.
const LIGHT: &[(&str, usize)] = &[
    ("fl-core", 30),
    ("fl-privacy", 32),
    ("fl-secagg", 48),
    ("fl-versions", 32),
    ("fl-edge", 32),
    ("fl-embed", 32),
    ("fl-onnx", 42),
];

/// What no light package may pull in, however indirectly.
const HEAVY: &[&str] = &[
    "burn",
    "clap",
    "plotters",
    "polars-core",
    "polars-io",
    "rayon",
    "reqwest",
    "tokio",
    "toml",
    "ureq",
];

/// Reads `cargo metadata` and fails on an arrow that is not in [`ARROWS`].
pub(crate) fn check() -> Result<()> {
    let metadata = output(cargo().args(["metadata", "--format-version", "1", "--locked"]))?;
    let graph = Graph::parse(&metadata)?;
    let mut faults = graph.stale_rows();
    faults.extend(graph.wrong_arrows());
    for &(package, most) in LIGHT {
        faults.extend(heavy(package, most, &graph.reach(package)?));
    }
    if !faults.is_empty() {
        bail!("the dependency graph is broken:\n  {}", faults.join("\n  "));
    }
    println!(
        "dependency graph: {} packages of ours, every arrow allowed",
        ARROWS.len()
    );
    Ok(())
}

/// What we need of `cargo metadata`.
struct Graph {
    /// Our packages and the packages that they name, by name; all kinds of dependencies.
    named: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    fn parse(metadata: &str) -> Result<Self> {
        let metadata: Value = serde_json::from_str(metadata)?;
        let members: BTreeSet<&str> = array(&metadata["workspace_members"])?
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let mut graph = Self {
            named: BTreeMap::new(),
        };
        for package in array(&metadata["packages"])? {
            let id = text(&package["id"])?;
            let name = text(&package["name"])?;
            if members.contains(id) {
                let dependencies = array(&package["dependencies"])?
                    .iter()
                    .map(|dependency| text(&dependency["name"]).map(str::to_owned))
                    .collect::<Result<_>>()?;
                graph.named.insert(name.to_owned(), dependencies);
            }
        }
        Ok(graph)
    }

    /// Rows of the tables above that check nothing, because no package of ours has the name.
    fn stale_rows(&self) -> Vec<String> {
        let arrows = ARROWS.iter().map(|(name, _)| *name);
        let light = LIGHT.iter().map(|(name, _)| *name);
        arrows
            .chain(light)
            .filter(|name| !self.named.contains_key(*name))
            .map(|name| format!("`{name}` is no package of the workspace; mend its row"))
            .collect()
    }

    fn wrong_arrows(&self) -> Vec<String> {
        let ours: BTreeSet<&str> = self.named.keys().map(String::as_str).collect();
        let mut faults = Vec::new();
        for (package, dependencies) in &self.named {
            let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| name == package) else {
                faults.push(format!(
                    "`{package}` has no row in the table of arrows; add one"
                ));
                continue;
            };
            for dependency in dependencies {
                if ours.contains(dependency.as_str())
                    && dependency != package
                    && !allowed.contains(&dependency.as_str())
                {
                    faults.push(format!("`{package}` must not know `{dependency}`"));
                }
            }
        }
        faults
    }

    /// Names of the third-party packages that `package` pulls in. `cargo metadata` would not do: it
    /// joins the features that all members and their tests ask for, and with them optional packages
    /// that nobody who embeds this one builds.
    fn reach(&self, package: &str) -> Result<BTreeSet<String>> {
        let tree = output(cargo().args([
            "tree",
            "--locked",
            "--package",
            package,
            "--edges",
            "normal,build",
            "--target",
            "all",
            "--prefix",
            "none",
            "--format",
            "{p}",
        ]))?;
        Ok(tree
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .filter(|name| !self.named.contains_key(*name))
            .map(str::to_owned)
            .collect())
    }
}

/// What is wrong with what a light package pulls in.
fn heavy(package: &str, most: usize, reached: &BTreeSet<String>) -> Vec<String> {
    let mut faults = Vec::new();
    for heavy in HEAVY.iter().filter(|heavy| reached.contains(**heavy)) {
        faults.push(format!("`{package}` pulls in `{heavy}`, which is heavy"));
    }
    if reached.len() > most {
        faults.push(format!(
            "`{package}` pulls in {} packages where at most {most} are allowed: {}",
            reached.len(),
            reached.iter().cloned().collect::<Vec<_>>().join(", ")
        ));
    }
    faults
}

fn array(value: &Value) -> Result<&Vec<Value>> {
    value
        .as_array()
        .context("cargo metadata: expected an array")
}

fn text(value: &Value) -> Result<&str> {
    value.as_str().context("cargo metadata: expected a text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_obeys() {
        check().unwrap();
    }

    #[test]
    fn a_wrong_arrow_and_a_heavy_package_are_found() {
        let metadata = r#"{
            "workspace_members": ["core", "sim"],
            "packages": [
                {"id": "core", "name": "fl-core", "dependencies": [{"name": "fl-sim"}, {"name": "x"}]},
                {"id": "sim", "name": "fl-sim", "dependencies": []},
                {"id": "x", "name": "x", "dependencies": []}
            ]
        }"#;
        let graph = Graph::parse(metadata).unwrap();
        assert!(
            graph
                .stale_rows()
                .iter()
                .any(|row| row.starts_with("`fl-edge` is no package"))
        );
        assert_eq!(graph.wrong_arrows(), ["`fl-core` must not know `fl-sim`"]);
        let reached = BTreeSet::from(["tokio".to_owned(), "x".to_owned()]);
        assert_eq!(
            heavy("fl-core", 2, &reached),
            ["`fl-core` pulls in `tokio`, which is heavy"]
        );
        assert_eq!(
            heavy("fl-core", 1, &reached)[1],
            "`fl-core` pulls in 2 packages where at most 1 are allowed: tokio, x"
        );
    }
}
