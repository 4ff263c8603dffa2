//! Axes, conditions, drawn settings, and what is refused.

use super::*;

const BASE: &str = r#"
name = "x"
rounds = 10
[dataset]
name = "digits"
partition = { kind = "iid", clients = 20 }
[model]
kind = "logreg"
[local]
epochs = 2
batch = 10
learning_rate = 0.1
[selection]
cohort = 5
"#;

fn read(sweep: &str, sets: &[&str]) -> Result<SweepExperiment, ConfigErrors> {
    let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
    SweepExperiment::from_text("x.toml", &format!("{BASE}{sweep}"), &sets)
}

fn labels(sweep: &str, sets: &[&str]) -> Vec<String> {
    let experiment = read(sweep, sets).unwrap();
    experiment.cells.iter().map(SweepCell::label).collect()
}

fn keys(experiment: &SweepExperiment, path: &str) -> Vec<Option<toml::Value>> {
    let cells = experiment.cells.iter();
    cells
        .map(|cell| {
            let table = toml::Value::Table(cell.variant.config.clone());
            path.split('.')
                .try_fold(&table, |value, name| value.get(name))
                .cloned()
        })
        .collect()
}

#[test]
fn every_combination_is_a_cell_and_seeds_change_fastest() {
    let sweep = "[sweep]\nseeds = 2\n[sweep.grid]\nlocal.batch = [5, 10]\n\"local.learning_rate\" = [0.1, 0.2]\n";
    let labels = labels(sweep, &[]);
    let expected: Vec<String> = [5, 10]
        .into_iter()
        .flat_map(|batch| [0.1, 0.2].map(|rate| (batch, rate)))
        .flat_map(|(batch, rate)| [1, 2].map(|seed| (batch, rate, seed)))
        .map(|(batch, rate, seed)| {
            format!("local.batch={batch}, local.learning_rate={rate}, seed={seed}")
        })
        .collect();
    assert_eq!(labels, expected);
    let experiment = read(sweep, &[]).unwrap();
    assert_eq!(experiment.axes, ["local.batch", "local.learning_rate"]);
    // A cell is what a file with these values would be, but for its name.
    let cell = &experiment.cells[5];
    assert_eq!(
        cell.label(),
        "local.batch=10, local.learning_rate=0.1, seed=2"
    );
    let text = BASE.replace("rounds = 10", "rounds = 10\nseed = 2");
    let plain = super::super::Experiment::from_text("y.toml", &text, &[]).unwrap();
    assert_eq!(cell.id, CellId::of(&plain.variants[0].config));
    assert_eq!(cell.variant.name, cell.id.as_str());
    assert_eq!(cell.variant.config["name"].as_str(), Some(cell.id.as_str()));
    // What the manifest keeps reads back as the same run.
    let again =
        super::super::Experiment::from_table("manifest.toml", &cell.variant.config).unwrap();
    assert_eq!(again.config, cell.variant.config);
}

#[test]
fn ids_outlive_names_places_and_new_values() {
    let ids = |sweep: &str, sets: &[&str]| -> Vec<CellId> {
        let cells = read(sweep, sets).unwrap().cells;
        cells.into_iter().map(|cell| cell.id).collect()
    };
    let few = ids("[sweep.grid]\nlocal.batch = [5, 10]\n", &[]);
    let more = ids("[sweep.grid]\nlocal.batch = [2, 10, 5]\n", &["name=other"]);
    assert_eq!(few, [more[2].clone(), more[1].clone()]);
    // The same settings in another way.
    let named = "[[sweep.zip]]\nlocal = [{ name = 'small', set = { batch = 5 } }]\n";
    let wrong = read(named, &[]).unwrap_err().to_string();
    assert!(wrong.contains("`batch`: unknown key"), "{wrong}");
    let named = "[[sweep.zip]]\nlocal = [{ name = 'small', set = { local.batch = 5 } }]\n";
    assert_eq!(ids(named, &[]), few[..1]);
    let variants = "[[variant]]\nname = 'small'\nlocal.batch = 5\n[sweep]\n";
    assert_eq!(ids(variants, &[]), few[..1]);
    assert_eq!(labels(variants, &[]), ["variant=small, seed=1"]);
}

const PRIVATE: &str = "[privacy]\nkind = 'central'\nmax_norm = 1.0\ndelta = 1e-3\n";

#[test]
fn an_infinite_epsilon_leaves_privacy_out_and_other_keys_of_it_idle() {
    let sweep = format!(
        "{PRIVATE}[sweep.grid]\nprivacy.max_norm = [1.0, 2.0]\nprivacy.epsilon = [1, 8.0, inf]\n"
    );
    let experiment = read(&sweep, &[]).unwrap();
    let labels: Vec<String> = experiment.cells.iter().map(SweepCell::label).collect();
    assert_eq!(
        labels,
        [
            "privacy.max_norm=1, privacy.epsilon=1, seed=1",
            "privacy.max_norm=1, privacy.epsilon=8, seed=1",
            "privacy.epsilon=inf, seed=1",
            "privacy.max_norm=2, privacy.epsilon=1, seed=1",
            "privacy.max_norm=2, privacy.epsilon=8, seed=1",
        ]
    );
    assert_eq!(experiment.merged, 1);
    let open = &experiment.cells[2].variant;
    assert_eq!(open.privacy, None);
    // Without [privacy] it is the same run.
    let plain = super::super::Experiment::from_text("y.toml", BASE, &[]).unwrap();
    assert_eq!(
        experiment.cells[2].id,
        CellId::of(&plain.variants[0].config)
    );
    // In the other order, too.
    let turned =
        format!("{PRIVATE}[sweep.grid]\nprivacy.epsilon = [inf]\nprivacy.max_norm = [1.0, 2.0]\n");
    let turned = read(&turned, &[]).unwrap();
    assert_eq!(turned.cells.len(), 1);
    assert_eq!(turned.cells[0].id, experiment.cells[2].id);
}

#[test]
fn named_settings_set_and_take_away() {
    let sweep = format!(
        "{PRIVATE}[sweep.grid]\nprivacy = [\n\
         {{ name = 'weak', set = {{ privacy.epsilon = 8.0 }} }},\n\
         {{ name = 'none', remove = ['privacy'], set = {{ \"local.batch\" = 3 }} }},\n]\n"
    );
    let experiment = read(&sweep, &[]).unwrap();
    assert_eq!(
        keys(&experiment, "privacy.epsilon"),
        [Some(8.0.into()), None]
    );
    assert_eq!(
        keys(&experiment, "local.batch"),
        [Some(10.into()), Some(3.into())]
    );
    assert_eq!(
        experiment.cells[1].values,
        toml::from_str("privacy = 'none'").unwrap()
    );
}

#[test]
fn conditions_keep_drop_and_leave_out() {
    let grid = "[sweep.grid]\nstrategy.kind = ['fedavg', 'fedprox']\nstrategy.mu = [0.1, 0.5]\n";
    // Without a condition FedAvg has a key that it does not know.
    assert!(read(grid, &[]).is_err());
    let without = format!(
        "{grid}[[sweep.condition]]\nwhen = {{ strategy.kind = 'fedavg' }}\nwithout = ['strategy.mu']\n"
    );
    let fedavg = "strategy.kind=fedavg, seed=1";
    let prox = [0.1, 0.5].map(|mu| format!("strategy.kind=fedprox, strategy.mu={mu}, seed=1"));
    let mut expected = vec![fedavg.to_owned()];
    expected.extend(prox.clone());
    assert_eq!(labels(&without, &[]), expected);
    let only = format!(
        "{without}[[sweep.condition]]\nonly = {{ strategy.kind = ['fedprox'], strategy.mu = 0.5 }}\n"
    );
    assert_eq!(labels(&only, &[]), prox[1..]);
    let except = format!("{without}[[sweep.condition]]\nexcept = {{ strategy.mu = 0.5 }}\n");
    assert_eq!(labels(&except, &[]), expected[..2]);
}

#[test]
fn ranges_have_both_ends() {
    let values = |range: &str| -> Vec<f64> {
        let sweep = format!("[sweep.grid]\nlocal.learning_rate = {range}\n");
        let experiment = read(&sweep, &[]).unwrap();
        keys(&experiment, "local.learning_rate")
            .into_iter()
            .map(|value| value.unwrap().as_float().unwrap())
            .collect()
    };
    assert_eq!(
        values("{ log = [0.001, 1.0], points = 4 }"),
        [0.001, 0.01, 0.1, 1.0]
    );
    // 10^(1/2) to four digits.
    assert_eq!(
        values("{ log = [1.0, 10.0], points = 3 }"),
        [1.0, 3.162, 10.0]
    );
    assert_eq!(
        values("{ linear = [0.1, 0.3], points = 3 }"),
        [0.1, 0.2, 0.3]
    );
    let sweep = "[sweep.grid]\nlocal.epochs = { integer = [1, 8], step = 3 }\n";
    let epochs = keys(&read(sweep, &[]).unwrap(), "local.epochs");
    assert_eq!(epochs, [1, 4, 7].map(|epochs| Some(epochs.into())));
}

#[test]
fn drawn_settings_follow_their_law_and_do_not_depend_on_one_another() {
    let sweep = |samples: usize, more: &str| {
        format!(
            "[sweep.random]\nsamples = {samples}\ndigits = 12\nlocal.learning_rate = {{ log = [0.001, 1.0] }}\n{more}"
        )
    };
    let rates = |text: &str| -> Vec<f64> {
        let experiment = read(text, &[]).unwrap();
        keys(&experiment, "local.learning_rate")
            .into_iter()
            .map(|value| value.unwrap().as_float().unwrap())
            .collect()
    };
    let few = rates(&sweep(3, ""));
    let batches = "local.batch = { log_integer = [1, 64] }\nlocal.epochs = { integer = [1, 3] }\n";
    let all = rates(&sweep(400, batches));
    assert_eq!(few, all[..3]);
    assert_ne!(few, rates(&sweep(3, "seed = 2\n")));
    // Kolmogorov's statistic of the logarithm against the uniform law: 1.95 / sqrt(n) is passed once
    // in a thousand times.
    let mut shares: Vec<f64> = all
        .iter()
        .map(|rate| (rate / 0.001).ln() / 1000f64.ln())
        .collect();
    shares.sort_by(f64::total_cmp);
    let count = shares.len() as f64;
    let distance = shares
        .iter()
        .enumerate()
        .map(|(place, share)| {
            let place = place as f64;
            (share - place / count)
                .abs()
                .max(((place + 1.0) / count - share).abs())
        })
        .fold(0.0, f64::max);
    assert!(distance < 1.95 / count.sqrt(), "{distance}");
    let experiment = read(&sweep(400, batches), &[]).unwrap();
    for (path, least, most) in [("local.batch", 1, 64), ("local.epochs", 1, 3)] {
        let found: std::collections::BTreeSet<i64> = keys(&experiment, path)
            .into_iter()
            .map(|value| value.unwrap().as_integer().unwrap())
            .collect();
        assert_eq!(found.first(), Some(&least), "{path}");
        assert!(found.last().is_some_and(|&last| last <= most), "{path}");
    }
}

#[test]
fn sets_change_the_sweep_and_not_its_axes() {
    let sweep = "[sweep]\nseeds = [1, 2]\n[sweep.grid]\n\"local.batch\" = [5, 10]\n";
    assert_eq!(labels(sweep, &["sweep.seeds=[7]"]).len(), 2);
    assert_eq!(
        labels(
            sweep,
            &["sweep.seeds=1", "sweep.grid.local.batch=[3]", "rounds=4"]
        ),
        ["local.batch=3, seed=1"]
    );
}

/// The first lines of the report of what is wrong.
fn refused(sweep: &str, sets: &[&str]) -> Vec<String> {
    let errors = read(sweep, sets).unwrap_err();
    let faults = errors.faults().iter();
    faults.map(super::super::Diagnostic::headline).collect()
}

#[test]
fn faults_are_named_once_with_their_place() {
    let cases: &[(&str, &[&str], &[&str])] = &[
        (
            "[sweep.grid]\nlocal.learning_rat = [0.1, 0.2]\nlocal.batch = [1, 2]\n",
            &[],
            &["x.toml:16:7: `local.learning_rat`: unknown key; did you mean `learning_rate`?"],
        ),
        (
            "[sweep.grid]\nlocal.batch = [1, -2]\nlocal.epochs = [1, 2]\n",
            &[],
            &[
                "x.toml:16:19: cell `local.batch=-2, local.epochs=1`: `local.batch`: found -2, expected a whole number of at least 1, a share above 0 and below 1, or \"full\"",
            ],
        ),
        (
            "[sweep]\nseed = [1]\n",
            &[],
            &["x.toml:16:1: `sweep.seed`: unknown key; did you mean `seeds`?"],
        ),
        (
            "[sweep]\nseeds = [1, 2, 1]\n",
            &[],
            &["x.toml:16:16: `sweep.seeds`: 1 is given twice; remove one"],
        ),
        (
            "[sweep]\nseeds = 'many'\n",
            &[],
            &[
                "x.toml:16:9: `sweep.seeds`: found the string \"many\", expected a list of whole numbers of at least 0, such as [1, 2, 3], or how many seeds, such as 3",
            ],
        ),
        (
            "[sweep.grid]\nseed = [1, 2]\nname = ['a']\n",
            &[],
            &[
                "x.toml:16:1: `sweep.grid.seed`: seeds have a key of their own: seeds = [1, 2, 3] in [sweep]",
                "x.toml:17:1: `sweep.grid.name`: the name is the experiment's and says nothing of a run; remove it",
            ],
        ),
        (
            "[sweep.grid]\nlocal.batch = [1]\n[[sweep.zip]]\nlocal.batch = [2]\n",
            &[],
            &[
                "x.toml:18:7: `sweep.local.batch`: `local.batch` is an axis already; give it in one place",
            ],
        ),
        (
            "[[sweep.zip]]\nlocal.epochs = [1, 2]\nlocal.batch = [1]\n",
            &[],
            &[
                "x.toml:17:7: `sweep.zip.local.batch`: found 1 values, and `local.epochs` has 2; keys that move together have as many each",
            ],
        ),
        (
            "[sweep.grid]\nlocal.batch = [1, 2]\n[[sweep.condition]]\nonly = { local.bach = 1 }\n[[sweep.condition]]\nexcept = { local.batch = 3 }\n",
            &[],
            &[
                "x.toml:18:16: `sweep.condition.only.local.bach`: no axis has this key; did you mean `local.batch`?",
                "x.toml:20:26: `sweep.condition.except.local.batch`: 3 is no value of that axis, which has 1, 2",
            ],
        ),
        (
            "[sweep.grid]\nlocal.batch = [1, 2]\n[[sweep.condition]]\nexcept = { local.batch = [1, 2] }\n",
            &[],
            &["x.toml:15:2: `sweep`: the conditions leave no cell; loosen one"],
        ),
        (
            "[sweep.random]\nsamples = 2\nlocal.batch = { log = [0, 1] }\n",
            &[],
            &[
                "x.toml:17:23: `sweep.random.local.batch.log`: expected two numbers above 0, the smaller first, such as [0.001, 1.0]",
            ],
        ),
        (
            "[sweep.halving]\nfirst = 0\nfactor = 1\n",
            &[],
            &[
                "x.toml:16:9: `sweep.halving.first`: found 0, expected a whole number of at least 1",
                "x.toml:17:10: `sweep.halving.factor`: found 1, expected a whole number of at least 2",
            ],
        ),
        (
            "[sweep]\nseeds = 2\n",
            &["seed=4"],
            &[
                "--set seed=4: `seed`: `seed` is an axis of the sweep, so that this would change nothing; change the axis in the file or with --set 'sweep.seeds=[...]'",
            ],
        ),
        (
            "",
            &[],
            &[
                "x.toml:1:1: `sweep`: there is no [sweep] in it; add one, for example [sweep] with seeds = [1, 2, 3], or run the file with `fledgling run`",
            ],
        ),
    ];
    for (sweep, sets, expected) in cases {
        assert_eq!(refused(sweep, sets), *expected, "{sweep}");
    }
    let many = "[sweep]\nseeds = 1000\n[sweep.grid]\nrounds = { integer = [1, 101] }\n";
    let text = refused(many, &[]).join("\n");
    assert!(text.contains("more than 100000 combinations"), "{text}");
    // A plain run of such a file is the base alone.
    let text = format!("{BASE}[sweep]\nseeds = 2\n");
    let plain = super::super::Experiment::from_text("x.toml", &text, &[]).unwrap();
    assert!(plain.swept && plain.variants.len() == 1);
}
