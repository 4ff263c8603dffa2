//! The page's text: template, style, script and data in one.

use std::collections::BTreeSet;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Value as Safe};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::columns::{self, Column};
use super::{Data, Run, configuration, listing, privacy, status};
use crate::cli::run::quote;
use crate::results::{FileDigest, Results, ResultsError, VariantManifest};

/// The template.
const TEMPLATE: &str = include_str!("assets/page.html");

/// The style.
pub(super) const STYLE: &str = include_str!("assets/style.css");

/// The script's parts, in order. They share one scope.
const SCRIPT: [&str; 7] = [
    include_str!("assets/dom.js"),
    include_str!("assets/number.js"),
    include_str!("assets/series.js"),
    include_str!("assets/chart.js"),
    include_str!("assets/table.js"),
    include_str!("assets/compare.js"),
    include_str!("assets/page.js"),
];

/// What the template is filled with. Whatever is not [`Safe`] is escaped.
#[derive(Serialize)]
struct Page<'a> {
    title: &'a str,
    policy: String,
    style: Safe,
    script: Safe,
    data: Safe,
    program: &'static str,
    stopped: usize,
    columns: &'a [Column],
    rows: Vec<Row<'a>>,
    figures: &'a [super::Figure],
    differing: &'a [String],
    /// Folders that the runs are from, where a sweep is one.
    homes: usize,
    folders: Vec<Folder<'a>>,
}

/// A line of the overview.
#[derive(Serialize)]
struct Row<'a> {
    label: &'a str,
    status: &'static str,
    cells: Vec<String>,
    digest: Option<&'a str>,
}

/// The results of an experiment.
#[derive(Serialize)]
struct Folder<'a> {
    path: String,
    experiment: &'a str,
    program: &'a str,
    /// The command that runs them again and compares.
    verify: String,
    host: Vec<(&'static str, String)>,
    files: Vec<(&'a str, &'a FileDigest)>,
    runs: Vec<RunPage<'a>>,
}

/// A variant.
#[derive(Serialize)]
struct RunPage<'a> {
    /// Its place among all runs.
    index: usize,
    label: &'a str,
    /// Whether its name is the id of a cell.
    is_cell: bool,
    status: &'static str,
    manifest: &'a VariantManifest,
    costs: Vec<(&'static str, String)>,
    privacy: Vec<String>,
    config: Vec<configuration::Listing>,
}

/// Fills the template.
///
/// # Errors
/// [`ResultsError::Encode`].
pub(super) fn page(
    title: &str,
    results: &[Results],
    runs: &[Run<'_>],
    differing: &[String],
    columns: &columns::Table,
    data: &Data<'_>,
) -> Result<String, ResultsError> {
    let encode = |what: &'static str, error: &dyn fmt::Display| ResultsError::Encode {
        path: "report.html".into(),
        what,
        why: error.to_string(),
    };
    let data_text =
        serde_json::to_string(data).map_err(|error| encode("the page's data", &error))?;
    let script = SCRIPT.concat();
    let rows = runs.iter().zip(&columns.rows).map(|(run, values)| Row {
        label: &run.label,
        status: status(run.variant),
        cells: cells(&columns.columns, values),
        digest: run.variant.manifest.model_digest.as_deref(),
    });
    let page = Page {
        title,
        policy: policy(&script),
        style: Safe::from_safe_string(STYLE.to_owned()),
        script: Safe::from_safe_string(script),
        data: Safe::from_safe_string(inert(&data_text)),
        program: concat!("fledgling ", env!("CARGO_PKG_VERSION")),
        stopped: runs
            .iter()
            .filter(|run| status(run.variant) == "stopped")
            .count(),
        columns: &columns.columns,
        rows: rows.collect(),
        figures: &data.figures,
        differing,
        homes: (runs.iter().map(|run| run.home).collect::<BTreeSet<_>>()).len(),
        folders: folders(results, runs, differing, columns),
    };
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    let filled = environment
        .add_template("page.html", TEMPLATE)
        .and_then(|()| environment.get_template("page.html")?.render(Serde(&page)));
    filled.map_err(|error| encode("the page", &error))
}

fn cells(columns: &[Column], values: &[columns::Value]) -> Vec<String> {
    let cells = columns.iter().zip(values);
    cells.map(|(column, value)| value.text(column)).collect()
}

fn folders<'a>(
    results: &'a [Results],
    runs: &'a [Run<'_>],
    differing: &[String],
    columns: &columns::Table,
) -> Vec<Folder<'a>> {
    let of = |(folder, one): (usize, &'a Results)| Folder {
        path: one.path.display().to_string(),
        experiment: (runs.iter().find(|run| run.folder == folder))
            .map_or(one.manifest.name.as_str(), |run| run.experiment),
        program: &one.manifest.program,
        verify: format!(
            "fledgling verify {}",
            quote(&one.path.display().to_string())
        ),
        host: host(one),
        files: (one.manifest.files.iter())
            .map(|(name, digest)| (name.as_str(), digest))
            .collect(),
        runs: (runs.iter().enumerate())
            .filter(|(_, run)| run.folder == folder)
            .map(|(index, run)| RunPage {
                index,
                label: &run.label,
                is_cell: run.cell.is_some(),
                status: status(run.variant),
                manifest: &run.variant.manifest,
                costs: costs(columns, index),
                privacy: privacy::statement(run.variant),
                config: listing(run, differing),
            })
            .collect(),
    };
    results.iter().enumerate().map(of).collect()
}

/// Where and how results were made.
fn host(results: &Results) -> Vec<(&'static str, String)> {
    let Some(host) = &results.host else {
        return Vec::new();
    };
    let words: Vec<String> = host.command.iter().map(|word| quote(word)).collect();
    let mut facts = vec![
        ("Command", words.join(" ")),
        ("Platform", host.platform.clone()),
        ("Kernel", host.kernel.clone()),
        ("Threads", host.threads.to_string()),
    ];
    let memory = host.peak_rss_mb;
    facts.extend(memory.map(|megabytes| ("Peak memory", format!("{megabytes} MB"))));
    facts
}

/// What a run cost, where it is known.
fn costs(columns: &columns::Table, run: usize) -> Vec<(&'static str, String)> {
    const COSTS: [&str; 6] = ["bytes", "virtual", "joules", "lost", "round-time", "wall"];
    let values = columns.rows.get(run).map_or(&[][..], Vec::as_slice);
    let cells = columns.columns.iter().zip(values);
    cells
        .filter(|(column, value)| {
            COSTS.contains(&column.id) && !matches!(value, columns::Value::Missing(_))
        })
        .map(|(column, value)| {
            let text = format!("{} {}", value.text(column), column.unit);
            (column.title, text.trim_end().to_owned())
        })
        .collect()
}

/// The Content-Security-Policy: this script, this style, and nothing else, from nowhere (W3C Content
/// Security Policy Level 3, section 2.3.1, hash-source).
fn policy(script: &str) -> String {
    let hash = |text: &str| STANDARD.encode(Sha256::digest(text.as_bytes()));
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'",
        hash(script),
        hash(STYLE)
    )
}

/// JSON that may stand within a `script` element: no character of it can end the element, begin a
/// comment, or break a line of JavaScript. In JSON these characters stand in strings alone, where they
/// may be written by number.
fn inert(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                text.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_cannot_leave_their_element() {
        let hostile = "</script><!--<script>&amp;\u{2028}\u{2029}\"\\";
        let text = inert(&serde_json::to_string(hostile).unwrap());
        assert_eq!(
            text,
            r#""\u003c/script\u003e\u003c!--\u003cscript\u003e\u0026amp;\u2028\u2029\"\\""#
        );
        let read: String = serde_json::from_str(&text).unwrap();
        assert_eq!(read, hostile);
    }

    /// The example of W3C CSP Level 3, section 2.3.1, `alert('Hello, world.');`.
    #[test]
    fn the_policy_names_the_script_by_its_hash() {
        let policy = policy("alert('Hello, world.');");
        assert!(
            policy.contains("script-src 'sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng=';"),
            "{policy}"
        );
    }

    /// A script or a style cannot hold what ends its element.
    #[test]
    fn assets_fit_into_their_elements() {
        for part in SCRIPT.iter().chain([&STYLE]) {
            assert!(!part.contains("</") && !part.contains("<!--"));
            assert!(part.ends_with('\n'));
        }
    }
}
