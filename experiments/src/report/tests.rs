use std::path::PathBuf;

use super::*;
use crate::made_up::{self, results};
use crate::results::{
    Cell as TableCell, ClientRow, ColumnKind, EvaluationRow, FleetRow, HostFacts, PrivacyRow,
    Results, RoundRow, Row, SecAggRow, Status, TimingRow,
};
use crate::sweep::{CellStatus, PlannedAxis};

/// A row in which every number depends on the round, and texts are empty.
fn row<R: Row>(round: u64) -> R {
    let real = (round as f64 * 0.731).sin() * 1e4 + 1e5;
    let cells = R::COLUMNS.iter().map(|(name, kind)| match kind {
        ColumnKind::Count if *name == "round" => TableCell::Count(round),
        ColumnKind::Count => TableCell::Count(1000 + round % 37),
        ColumnKind::Real | ColumnKind::OptionalReal => TableCell::Real(Some(real)),
        ColumnKind::Text => TableCell::Text(String::new()),
    });
    R::from_cells(&cells.collect::<Vec<_>>()).unwrap()
}

fn variant(name: &str, config: &str, rounds: u64) -> VariantResults {
    let mut made = made_up::variant(name, config);
    made.manifest.rounds_done = rounds;
    made.manifest.parameters = 650;
    made.manifest.model_digest = Some("0123456789abcdef".repeat(4));
    made.manifest.dataset.clients = 100;
    made.manifest.dataset.classes = Some(10);
    made.rounds = (0..rounds).map(row::<RoundRow>).collect();
    let evaluation = |round| EvaluationRow {
        test_accuracy: Some(round as f64 / (rounds + 1) as f64),
        test_accuracy_int8: None,
        ..row(round)
    };
    made.evaluations = (0..rounds).map(evaluation).collect();
    made
}

fn private(name: &str, config: &str, epsilon: f64) -> VariantResults {
    let mut made = variant(name, config, 3);
    made.privacy = (0..3)
        .map(|round| PrivacyRow {
            guarantee: "simulated".to_owned(),
            observer: "released".to_owned(),
            epsilon: epsilon * (round + 1) as f64 / 3.0,
            epsilon_lower: 0.5 * epsilon,
            epsilon_unamplified: 5.0 * epsilon,
            delta: 1e-5,
            noise_std: 1.5,
            max_norm: 0.5,
            ..row(round)
        })
        .collect();
    made
}

/// Results of no sweep.
fn collected(results: &[Results]) -> Collected {
    Collected {
        results: results.to_vec(),
        ..Collected::default()
    }
}

fn rendered(results: &[Results]) -> String {
    rendered_of(&collected(results))
}

fn rendered_of(collected: &Collected) -> String {
    page(collected, &PageOptions::default()).unwrap()
}

fn labels(collected: &Collected) -> Vec<String> {
    let runs = Run::all(collected);
    runs.into_iter().map(|run| run.label).collect()
}

/// The data of a page, as its script reads them.
fn data(page: &str) -> serde_json::Value {
    let from = "<script id=\"data\" type=\"application/json\">";
    let start = page.find(from).unwrap() + from.len();
    let end = start + page[start..].find("</script>").unwrap();
    serde_json::from_str(&page[start..end]).unwrap()
}

#[test]
fn hostile_names_stay_text() {
    let hostile = "</script><script>alert(1)</script><img src=x onerror=alert(2)> \"'`&amp;\u{2028}\u{2029}{{ title }}";
    let mut made = variant("a", "seed = 1", 3);
    made.manifest.name = hostile.to_owned();
    made.manifest.dataset.name = hostile.to_owned();
    made.manifest.teacher = Some(hostile.to_owned());
    let value = toml::Value::String(hostile.to_owned());
    made.manifest.config.insert(hostile.to_owned(), value);
    let mut one = results("x", hostile, vec![made, variant("b", "seed = 2", 3)]);
    one.path = PathBuf::from(hostile);
    one.manifest.program = hostile.to_owned();
    one.manifest.files.insert(
        hostile.to_owned(),
        crate::results::FileDigest {
            bytes: 1,
            sha256: hostile.to_owned(),
        },
    );
    one.host = Some(HostFacts {
        command: vec![hostile.to_owned()],
        kernel: hostile.to_owned(),
        ..HostFacts::default()
    });
    let options = PageOptions {
        title: Some(hostile.to_owned()),
    };
    let page = page(&collected(&[one]), &options).unwrap();
    // The data and the script, and no other; no other element either.
    assert_eq!(page.matches("<script").count(), 2);
    assert_eq!(page.matches("</script").count(), 2);
    assert!(!page.contains("<img"));
    let data = data(&page);
    assert_eq!(data["runs"][0]["label"], hostile);
    let keys = data["runs"][0]["config"].as_array().unwrap();
    assert!(keys.iter().any(|pair| pair[0] == hostile), "{keys:?}");
    // In attributes it cannot end the quotes: quotes are written as entities.
    let rest = page.replace("&quot;", "").replace("&#34;", "");
    assert!(!rest.contains("onerror=alert(2)> \""));
    assert!(page.contains("&lt;img src=x onerror=alert(2)&gt;"));
    // A title is no template.
    assert!(page.contains("{{ title }}"));
}

#[test]
fn the_same_results_give_the_same_bytes() {
    let make = || {
        let runs = vec![variant("a", "seed = 1", 400), private("b", "seed = 2", 2.0)];
        rendered(&[results("x", "x", runs)])
    };
    assert_eq!(make(), make());
}

/// Fifty runs of 2,000 rounds in which every table is full.
#[test]
fn fifty_long_runs_are_under_five_megabytes() {
    let config = include_str!("../../tests/browser/runs.toml");
    let all: Vec<Results> = (0..50)
        .map(|seed| {
            let config = config.replace("rounds = 30", &format!("rounds = 2000\nseed = {seed}"));
            let mut made = variant("a", &config, 2000);
            made.fleet = (0..2000).map(row::<FleetRow>).collect();
            made.secagg = (0..2000).map(row::<SecAggRow>).collect();
            made.privacy = (0..2000).map(row::<PrivacyRow>).collect();
            made.clients = (0..10_000).map(row::<ClientRow>).collect();
            made.timing = (0..2000)
                .map(|round| TimingRow {
                    what: "round".to_owned(),
                    ..row(round)
                })
                .collect();
            results(&format!("results/{seed}"), "x", vec![made])
        })
        .collect();
    let page = rendered(&all);
    assert!(page.len() < 5_000_000, "{} bytes", page.len());
    let data = data(&page);
    let table = &data["runs"][49]["tables"]["fleet"];
    let rows = table["round"].as_array().unwrap();
    assert!(rows.len() >= POINTS, "{} rows", rows.len());
    assert_eq!(rows.first().unwrap(), 1);
    assert_eq!(rows.last().unwrap(), 2000);
    for axis in ["time", "bytes", "joules"] {
        let spent = table["spent"][axis].as_array().unwrap();
        assert_eq!(spent.len(), rows.len(), "{axis}");
    }
}

#[test]
fn what_nobody_has_is_not_there() {
    let plain = rendered(&[results("x", "x", vec![variant("a", "seed = 1", 3)])]);
    let ids = |page: &str, what: &str| -> Vec<String> {
        let data = data(page);
        let list = data[what].as_array().unwrap().iter();
        list.map(|one| one["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let columns = ids(&plain, "columns");
    assert!(columns.contains(&"accuracy".to_owned()));
    for absent in ["epsilon", "joules", "virtual", "int8", "patch"] {
        assert!(!columns.contains(&absent.to_owned()), "{absent}");
    }
    let figures = ids(&plain, "figures");
    for absent in ["epsilon", "tradeoff", "clients", "secagg"] {
        assert!(!figures.contains(&absent.to_owned()), "{absent}");
    }
    let both = rendered(&[results(
        "x",
        "x",
        vec![
            variant("a", "seed = 1", 3),
            private("b", "seed = 1\nprivacy.epsilon = 2.0", 2.0),
        ],
    )]);
    assert!(ids(&both, "columns").contains(&"epsilon".to_owned()));
    assert!(ids(&both, "figures").contains(&"tradeoff".to_owned()));
    // The run without privacy has a dash there.
    assert!(both.contains("<td class=\"number\">–</td>"));
}

#[test]
fn a_stopped_run_is_marked() {
    let mut made = variant("a", "seed = 1", 3);
    made.manifest.status = Status::Stopped;
    made.manifest.model_digest = None;
    let page = rendered(&[results("x", "x", vec![made, variant("b", "seed = 1", 3)])]);
    assert!(page.contains("<strong>1 stopped before the end</strong>"));
    assert_eq!(
        page.matches("<strong class=\"stopped\">stopped</strong>")
            .count(),
        2
    );
    assert_eq!(data(&page)["runs"][0]["status"], "stopped");
}

#[test]
fn runs_are_called_what_tells_them_apart() {
    let labels = |results: &[Results]| labels(&collected(results));
    let one = |path: &str, name: &str, variants: &[(&str, &str)]| {
        let variants = variants
            .iter()
            .map(|(name, config)| variant(name, config, 1));
        results(path, name, variants.collect())
    };
    assert_eq!(
        labels(&[one("x", "x", &[("a", "seed = 1"), ("b", "seed = 1")])]),
        ["a", "b"]
    );
    // Variants of several experiments.
    assert_eq!(
        labels(&[
            one("x", "x", &[("a", "seed = 1"), ("x", "seed = 1")]),
            one("y", "y", &[("a", "seed = 1")])
        ]),
        ["x · a", "x", "y · a"]
    );
    // Cells of a sweep: all of one name, told apart by the keys that part them.
    let cell = |path, epsilon, kind, seed| {
        let config = format!(
            "name = \"{path}\"\nseed = {seed}\nstrategy.kind = \"{kind}\"\nprivacy = {{ epsilon = {epsilon}, noise = 1.{epsilon} }}"
        );
        one(path, "sweep", &[("sweep", config.as_str())])
    };
    assert_eq!(
        labels(&[
            cell("c1", 1, "fedavg", 1),
            cell("c2", 1, "fedavg", 2),
            cell("c3", 8, "fedavg", 1),
            cell("c4", 8, "fedprox", 1)
        ]),
        [
            "noise 1.1 · fedavg · seed 1",
            "noise 1.1 · fedavg · seed 2",
            "noise 1.8 · fedavg · seed 1",
            "noise 1.8 · fedprox · seed 1"
        ]
    );
    // The same run in two folders.
    assert_eq!(
        labels(&[
            one("d/p", "x", &[("x", "seed = 1")]),
            one("d/q", "x", &[("x", "seed = 1")])
        ]),
        ["x (p)", "x (q)"]
    );
    assert_eq!(
        labels(&[
            one("d/p", "x", &[("x", "seed = 1")]),
            one("e/p", "x", &[("x", "seed = 1")])
        ]),
        ["x (d/p)", "x (e/p)"]
    );
}

/// A cell: its values on the axes as the plan has them, and its configuration.
struct Planned<'a>(&'a str, &'a str);

/// A sweep's folder: its plan and the results of all its cells.
fn sweep(path: &str, name: &str, axes: &[&str], cells: &[Planned<'_>]) -> Collected {
    let home = PathBuf::from(path);
    let mut found = Collected::default();
    let mut planned = Vec::new();
    for Planned(values, config) in cells {
        let config: toml::Table = config.parse().unwrap();
        let id = crate::sweep::CellId::of(&config);
        let made = variant(id.as_str(), &config.to_string(), 1);
        planned.push(PlannedCell {
            id: id.clone(),
            status: CellStatus::Finished,
            seed: made.manifest.seed,
            values: values.parse().unwrap(),
        });
        let folder = home.join("cells").join(id.as_str());
        let path = folder.to_str().unwrap();
        found.results.push(results(path, id.as_str(), vec![made]));
    }
    let axes = axes.iter().map(|key| PlannedAxis {
        key: (*key).to_owned(),
    });
    let plan = Plan {
        format: 1,
        name: name.to_owned(),
        program: "fledgling 0.1.0".to_owned(),
        axes: axes.collect(),
        cells: planned,
    };
    found.sweeps.insert(home, plan);
    found
}

fn together(all: Vec<Collected>) -> Collected {
    let mut one = Collected::default();
    for mut other in all {
        one.results.append(&mut other.results);
        one.sweeps.append(&mut other.sweeps);
    }
    one
}

#[test]
fn cells_are_called_by_their_sweep_and_its_axes() {
    // Variants and a key that only one of them varies; a seed each.
    let mnist = |path: &str, name: &str, rates: [f64; 2]| {
        let cell = |variant: &str, kind: &str, rate: f64, seed: u64| {
            let values = format!("variant = \"{variant}\"\n\"local.learning_rate\" = {rate:?}");
            let config = format!(
                "seed = {seed}\nlocal.learning_rate = {rate:?}\ndataset.partition.kind = \"{kind}\"\nnote = \"{name}\""
            );
            (values, config)
        };
        let cells: Vec<(String, String)> = vec![
            cell("iid", "iid", rates[0], 1),
            cell("iid", "iid", rates[0], 2),
            cell("iid", "iid", rates[1], 1),
            cell("pathological", "shards", rates[0], 1),
            cell("pathological", "shards", rates[0], 2),
        ];
        let cells: Vec<Planned<'_>> = cells.iter().map(|(a, b)| Planned(a, b)).collect();
        sweep(path, name, &["variant", "local.learning_rate"], &cells)
    };
    let expected = [
        "iid · learning_rate 0.1 · seed 1",
        "iid · learning_rate 0.1 · seed 2",
        "iid · learning_rate 0.215 · seed 1",
        "pathological · seed 1",
        "pathological · seed 2",
    ];
    assert_eq!(labels(&mnist("r/2nn", "2nn", [0.1, 0.215])), expected);
    // Two sweeps: the experiment before.
    let two = [
        mnist("r/2nn", "2nn", [0.1, 0.215]),
        mnist("r/cnn", "cnn", [1.0, 0.5]),
    ];
    let both = together(two.to_vec());
    let of_both = labels(&both);
    let first: Vec<String> = expected.iter().map(|one| format!("2nn · {one}")).collect();
    assert_eq!(of_both[..5], first);
    assert_eq!(
        of_both[5..],
        [
            "cnn · iid · learning_rate 1 · seed 1",
            "cnn · iid · learning_rate 1 · seed 2",
            "cnn · iid · learning_rate 0.5 · seed 1",
            "cnn · pathological · seed 1",
            "cnn · pathological · seed 2",
        ]
    );
    assert!(rendered_of(&both).contains("<title>2nn, cnn</title>"));
    // Beside a plain run.
    let plain = variant("fedavg", "seed = 1", 1);
    let plain = collected(&[results("r/quick", "quick", vec![plain])]);
    let beside = labels(&together(vec![mnist("r/2nn", "2nn", [0.1, 0.215]), plain]));
    assert_eq!(beside[..5], first);
    assert_eq!(beside[5], "quick · fedavg");
    // The same sweep in two folders, of which nothing else is known.
    let copies = together(vec![
        mnist("a/x", "2nn", [0.1, 0.215]),
        mnist("b/y", "2nn", [0.1, 0.215]),
    ]);
    assert_eq!(labels(&copies)[0], "iid · learning_rate 0.1 · seed 1 (x)");
    assert_eq!(labels(&copies)[5], "iid · learning_rate 0.1 · seed 1 (y)");
    // Series over seeds have no seed.
    let data = data(&rendered_of(&both));
    assert_eq!(data["groups"][0], "2nn · iid · learning_rate 0.1");
    assert_eq!(data["groups"][2], "2nn · pathological");
}

#[test]
fn named_settings_and_what_they_leave_out_are_said_shortly() {
    let cell = |strategy: &str, mu: Option<f64>, client: f64| {
        let mut values = format!("strategy = \"{strategy}\"\n\"strategy.rate\" = {client:?}\n");
        let kind = strategy.trim_end_matches("-slow");
        let mut config =
            format!("seed = 1\nstrategy.kind = \"{kind}\"\nstrategy.rate = {client:?}");
        if let Some(mu) = mu {
            values += &format!("\"strategy.mu\" = {mu:?}\n");
            config += &format!("\nstrategy.mu = {mu:?}");
        }
        (values + "clipping = \"adaptive\"", config)
    };
    let cells = [
        cell("fedavg", None, 1.0),
        cell("fedprox", Some(0.1), 1.0),
        cell("fedprox", Some(1.0), 0.5),
        cell("fedprox-slow", Some(1.0), 0.25),
    ];
    let cells: Vec<Planned<'_>> = cells.iter().map(|(a, b)| Planned(a, b)).collect();
    let axes = ["clipping", "strategy", "strategy.mu", "strategy.rate"];
    // `clipping` is everywhere the same; `rate` follows from the others.
    assert_eq!(
        labels(&sweep("s", "s", &axes, &cells)),
        [
            "fedavg",
            "fedprox · mu 0.1",
            "fedprox · mu 1",
            "fedprox-slow · mu 1"
        ]
    );
    // Two keys end alike.
    let cell = |values: &[(&str, i64)]| {
        let of = |quote: &str| {
            let lines = values.iter();
            let lines = lines.map(|(key, value)| format!("{quote}{key}{quote} = {value}"));
            lines.collect::<Vec<_>>().join("\n")
        };
        (of("\""), of(""))
    };
    let cells = [
        cell(&[("a.rate", 1), ("b.rate", 1)]),
        cell(&[("a.rate", 1), ("b.rate", 2)]),
        cell(&[("a.rate", 2), ("b.rate", 2)]),
    ];
    let cells: Vec<Planned<'_>> = cells.iter().map(|(a, b)| Planned(a, b)).collect();
    assert_eq!(
        labels(&sweep("s", "s", &["a.rate", "b.rate"], &cells)),
        [
            "a.rate 1 · b.rate 1",
            "a.rate 1 · b.rate 2",
            "a.rate 2 · b.rate 2"
        ]
    );
}

#[test]
fn lines_of_cells_are_called_by_what_is_not_their_epsilon() {
    let made = |name: &str| {
        let levels = [1.0, 2.0, 1.0, 2.0];
        let kinds = ["flat", "flat", "adaptive", "adaptive"];
        let cells = levels.iter().zip(kinds).map(|(epsilon, kind)| {
            let values = format!("\"privacy.epsilon\" = {epsilon:?}\nclipping = {kind:?}");
            let config = format!(
                "seed = 1\nnote = {name:?}\nprivacy = {{ epsilon = {epsilon:?}, clipping = {kind:?} }}"
            );
            (values, config)
        });
        let cells: Vec<(String, String)> = cells.collect();
        let cells: Vec<Planned<'_>> = cells.iter().map(|(a, b)| Planned(a, b)).collect();
        let mut made = sweep(name, name, &["privacy.epsilon", "clipping"], &cells);
        for (one, epsilon) in made.results.iter_mut().zip(levels) {
            one.variants[0].privacy = private("", "", epsilon).privacy;
        }
        made
    };
    let both = together(vec![made("p"), made("q")]);
    assert_eq!(labels(&both)[0], "p · epsilon 1 · clipping flat");
    let page = rendered_of(&both);
    assert!(page.contains("<dt>Cell</dt>") && !page.contains("<dt>Variant</dt>"));
    let data = data(&page);
    let lines = data["lines"].as_array().unwrap().iter();
    let lines: Vec<&str> = lines.map(|line| line["label"].as_str().unwrap()).collect();
    assert_eq!(
        lines,
        [
            "p · clipping flat",
            "p · clipping adaptive",
            "q · clipping flat",
            "q · clipping adaptive"
        ]
    );
}

#[test]
fn cells_without_a_plan_are_told_apart_by_their_configurations() {
    let configs = ["seed = 1\nrounds = 3", "seed = 2\nrounds = 3"];
    let cells = configs.map(|config| Planned("", config));
    let mut lost = sweep("r/lost", "lost", &[], &cells);
    assert_eq!(labels(&lost), ["seed 1", "seed 2"]);
    lost.sweeps.clear();
    assert_eq!(labels(&lost), ["seed 1", "seed 2"]);
    assert!(rendered_of(&lost).contains("<title>lost</title>"));
    // The id is what remains where nothing else tells cells apart.
    for one in &mut lost.results {
        one.variants[0].manifest.config = toml::Table::new();
    }
    let ids = lost.results.iter().map(|one| one.manifest.name.clone());
    let expected: Vec<String> = ids.map(|id| format!("lost ({id})")).collect();
    assert_eq!(labels(&lost), expected);
}

#[test]
fn seeds_make_groups_and_epsilons_make_lines() {
    let all: Vec<Results> = (1..=2)
        .map(|seed| {
            let runs = vec![
                variant("none", &format!("seed = {seed}"), 3),
                private("one", &format!("seed = {seed}\nprivacy.epsilon = 1.0"), 1.0),
                private("two", &format!("seed = {seed}\nprivacy.epsilon = 2.0"), 2.0),
                private(
                    "clipped",
                    &format!("seed = {seed}\nprivacy.noise_multiplier = 0.0"),
                    f64::INFINITY,
                ),
            ];
            results(&format!("s{seed}"), "x", runs)
        })
        .collect();
    let data = data(&rendered(&all));
    let groups: Vec<u64> = (0..8)
        .map(|run| data["runs"][run]["group"].as_u64().unwrap())
        .collect();
    assert_eq!(groups, [0, 1, 2, 3, 0, 1, 2, 3]);
    assert_eq!(data["groups"][1], "one");
    let point = |run: usize| &data["runs"][run]["tradeoff"];
    for run in [1, 2, 5, 6] {
        assert_eq!(point(run)["line"], point(1)["line"], "{run}");
    }
    assert_eq!(point(1)["asked"], point(5)["asked"]);
    assert_ne!(point(1)["asked"], point(2)["asked"]);
    assert_ne!(point(0)["line"], point(1)["line"]);
    assert!(point(0)["epsilon"].is_null());
    // Without noise it is on no line.
    assert!(point(3).is_null());
    let epsilon = data["columns"].as_array().unwrap();
    let epsilon = epsilon
        .iter()
        .position(|column| column["id"] == "epsilon")
        .unwrap();
    assert_eq!(data["runs"][3]["values"][epsilon], "Infinity");
    let private = &data["lines"][point(1)["line"].as_u64().unwrap() as usize];
    assert_eq!(private["label"], "private");
}

#[test]
fn privacy_is_stated_from_what_was_recorded() {
    let config = "seed = 1\n[privacy]\nkind = \"central\"\nepsilon = 2.5\nrelation = \"replace-one\"\naccountant = \"pld\"";
    let made = private("a", config, 2.0);
    let told = privacy::statement(&made);
    assert_eq!(
        told[0],
        "(2.0000, 1e-5)-differential privacy per client (replace-one) after 3 rounds; pld accountant, provably not below 1.0000"
    );
    assert_eq!(told[1], "for whoever sees who takes part: epsilon 10.0000");
    assert!(told.contains(&"budget: epsilon 2.5".to_owned()), "{told:?}");
    assert!(told[2].contains("standard deviation 1.5000e0 on each value of the sum of updates"));
    assert!(
        told.iter()
            .any(|line| line.starts_with("trust: the server sees the updates"))
    );

    let mut servers = private("a", &config.replace("central", "local"), 2.0);
    for row in &mut servers.privacy {
        row.observer = "server".to_owned();
        row.guarantee = "hypothetical".to_owned();
    }
    servers.privacy[1].released = 0;
    let told = privacy::statement(&servers);
    assert!(
        told[0].starts_with("against the server: (10.0000, 1e-5)"),
        "{told:?}"
    );
    assert!(told.iter().any(|line| line.starts_with("HYPOTHETICAL:")));
    assert!(
        told.iter()
            .any(|line| line.starts_with("1 of the 3 rounds released nothing"))
    );

    // The relation of a run that names none follows from who adds noise, and to what sum.
    for (kind, selection, relation) in [
        ("central", "poisson", "add-or-remove-one"),
        ("central", "uniform", "replace-one"),
        ("local", "poisson", "replace-one"),
        ("example", "uniform", "replace-special"),
    ] {
        let config = format!(
            "privacy.kind = \"{kind}\"\nselection = {{ kind = \"{selection}\", rate = 0.5 }}"
        );
        let told = privacy::statement(&private("a", &config, 1.0));
        assert!(told[0].contains(&format!("({relation})")), "{told:?}");
        let selected = format!("selection: {selection}, rate 0.5, of 100 clients");
        assert!(told.contains(&selected), "{told:?}");
    }

    let clipped = private("a", config, f64::INFINITY);
    assert!(privacy::statement(&clipped)[0].starts_with("NO differential privacy"));
    assert!(privacy::statement(&variant("a", config, 1)).is_empty());
}

/// The page's colours are those of the pictures, in their order.
#[test]
fn series_have_the_colours_of_the_pictures() {
    let runs: Vec<VariantResults> = (0..7)
        .map(|run| variant(&format!("run-{run}"), "seed = 1", 3))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let drawn = crate::plot::draw(&[results("x", "x", runs)], folder.path()).unwrap();
    let picture = drawn.iter().find(|path| path.ends_with("accuracy.svg"));
    let picture = std::fs::read_to_string(picture.unwrap())
        .unwrap()
        .to_lowercase();
    for index in 0..7 {
        let from = format!("--s{index}: rgb(");
        let rgb = html::STYLE
            .split(&from)
            .nth(1)
            .unwrap()
            .split(')')
            .next()
            .unwrap();
        let rgb: Vec<u8> = rgb.split(' ').map(|part| part.parse().unwrap()).collect();
        let hex: String = rgb.iter().map(|part| format!("{part:02x}")).collect();
        assert!(picture.contains(&format!("#{hex}")), "--s{index}: #{hex}");
    }
}
