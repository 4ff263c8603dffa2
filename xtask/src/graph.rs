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
    ("fl-edge", &["fl-core"]),
    ("fl-onnx", &["fl-core", "fl-edge"]),
    ("fl-datasets", &["fl-core"]),
    (
        "fl-sim",
        &["fl-core", "fl-datasets", "fl-edge", "fl-privacy"],
    ),
    (
        "fledgling",
        &[
            "fl-core",
            "fl-datasets",
            "fl-edge",
            "fl-onnx",
            "fl-privacy",
            "fl-sim",
        ],
    ),
    ("fl-fuzz", &["fl-core", "fl-datasets", "fl-edge", "fl-onnx"]),
    ("xtask", &[]),
];

/// Packages that others embed, with the most third-party packages that each may pull in.
const LIGHT: &[(&str, usize)] = &[
    ("fl-core", 30),
    ("fl-privacy", 32),
    ("fl-secagg", 48),
    ("fl-edge", 32),
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
    faults.extend(graph.heavy());
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
    /// Name of each package id.
    names: BTreeMap<String, String>,
    /// Normal and build dependencies by package id.
    edges: BTreeMap<String, Vec<String>>,
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
            names: BTreeMap::new(),
            edges: BTreeMap::new(),
        };
        for package in array(&metadata["packages"])? {
            let id = text(&package["id"])?;
            let name = text(&package["name"])?;
            graph.names.insert(id.to_owned(), name.to_owned());
            if members.contains(id) {
                let dependencies = array(&package["dependencies"])?
                    .iter()
                    .map(|dependency| text(&dependency["name"]).map(str::to_owned))
                    .collect::<Result<_>>()?;
                graph.named.insert(name.to_owned(), dependencies);
            }
        }
        for node in array(&metadata["resolve"]["nodes"])? {
            let mut targets = Vec::new();
            for dependency in array(&node["deps"])? {
                let used = array(&dependency["dep_kinds"])?
                    .iter()
                    .any(|kind| kind["kind"].as_str() != Some("dev"));
                if used {
                    targets.push(text(&dependency["pkg"])?.to_owned());
                }
            }
            graph.edges.insert(text(&node["id"])?.to_owned(), targets);
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

    fn heavy(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for &(package, most) in LIGHT {
            let reached = self.reach(package);
            for heavy in HEAVY.iter().filter(|heavy| reached.contains(**heavy)) {
                faults.push(format!("`{package}` pulls in `{heavy}`, which is heavy"));
            }
            if reached.len() > most {
                faults.push(format!(
                    "`{package}` pulls in {} packages where at most {most} are allowed: {}",
                    reached.len(),
                    reached.into_iter().collect::<Vec<_>>().join(", ")
                ));
            }
        }
        faults
    }

    /// Names of the third-party packages that `package` pulls in.
    fn reach(&self, package: &str) -> BTreeSet<&str> {
        let start = self
            .names
            .iter()
            .find(|(_, name)| *name == package)
            .map(|(id, _)| id.as_str());
        let mut open: Vec<&str> = start.into_iter().collect();
        let mut seen: BTreeSet<&str> = open.iter().copied().collect();
        while let Some(id) = open.pop() {
            for target in self.edges.get(id).into_iter().flatten() {
                if seen.insert(target) {
                    open.push(target);
                }
            }
        }
        seen.iter()
            .filter_map(|id| self.names.get(*id))
            .map(String::as_str)
            .filter(|name| !self.named.contains_key(*name))
            .collect()
    }
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
                {"id": "x", "name": "x", "dependencies": []},
                {"id": "tokio", "name": "tokio", "dependencies": []}
            ],
            "resolve": {"nodes": [
                {"id": "core", "deps": [{"pkg": "x", "dep_kinds": [{"kind": null}]}]},
                {"id": "x", "deps": [
                    {"pkg": "tokio", "dep_kinds": [{"kind": null}]},
                    {"pkg": "sim", "dep_kinds": [{"kind": "dev"}]}
                ]}
            ]}
        }"#;
        let graph = Graph::parse(metadata).unwrap();
        assert!(
            graph
                .stale_rows()
                .iter()
                .any(|row| row.starts_with("`fl-edge` is no package"))
        );
        assert_eq!(graph.wrong_arrows(), ["`fl-core` must not know `fl-sim`"]);
        assert_eq!(
            graph.heavy(),
            ["`fl-core` pulls in `tokio`, which is heavy"]
        );
    }
}
