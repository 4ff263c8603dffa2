use fl_core::{ClientId, Examples as _, InputsMut, TargetsMut};

use super::*;
use crate::generator::ClientScratch;
use crate::partition::{Iid, Natural};
use crate::testing::data_root;

fn nowhere() -> DataRoot {
    DataRoot::new("/nowhere")
}

fn iid(name: &str, clients: u64) -> DatasetConfig {
    DatasetConfig::new(name).with_partition(PartitionConfig::Iid(Iid { clients }))
}

fn hex(data: &FederatedDataset) -> String {
    catalogue::hexadecimal(&data.digest())
}

/// Sum of the inputs and of the labels of everything that clients train on.
fn totals(data: &FederatedDataset) -> (f64, u64, u64) {
    let mut scratch = ClientScratch::default();
    let (mut inputs_sum, mut labels_sum, mut count) = (0.0, 0, 0);
    for client in 0..data.clients() {
        let client = ClientId(client);
        let examples = data.train(client, &mut scratch);
        assert_eq!(examples.len() as u64, data.train_len(client));
        let rows: Vec<u32> = (0..examples.len() as u32).collect();
        let mut inputs = vec![0.0; rows.len() * data.input().len()];
        let mut labels = vec![0; rows.len()];
        examples.fill(
            &rows,
            InputsMut::Real(&mut inputs),
            TargetsMut::Classes(&mut labels),
        );
        if let Some(all) = examples.real_rows() {
            assert_eq!(all, inputs);
        }
        inputs_sum += inputs.iter().map(|&value| f64::from(value)).sum::<f64>();
        labels_sum += labels.iter().map(|&label| u64::from(label)).sum::<u64>();
        count += rows.len() as u64;
    }
    (inputs_sum, labels_sum, count)
}

#[test]
fn names_are_unique_and_entries_bear_them() {
    let mut names: Vec<&str> = names().collect();
    for set in SETS {
        if let Some(entry) = &set.entry {
            assert_eq!(entry.name, set.name);
        }
    }
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn every_key_of_a_set_is_a_key_of_the_table() {
    let fields = fl_core::registry::fields_of::<DatasetConfig>();
    for set in SETS {
        for key in set.keys {
            assert!(fields.contains(&key.name), "{} {}", set.name, key.name);
        }
    }
}

#[test]
fn digits_are_embedded() {
    let data = load(&iid("digits", 10), &nowhere(), Seed(1)).unwrap();
    assert_eq!(data.input(), &InputSpec::Real(vec![8, 8, 1]));
    assert_eq!(data.test().unwrap().len(), 360);
    let (pixels, labels, count) = totals(&data);
    assert_eq!(count, 1437);
    let all: u64 = (0..10)
        .flat_map(|c| data.label_counts(ClientId(c)).unwrap())
        .sum();
    assert_eq!(all, 1437);
    let test = data.test().unwrap();
    let rows: Vec<u32> = (0..360).collect();
    let (mut inputs, mut classes) = (vec![0.0; 360 * 64], vec![0; 360]);
    test.fill(
        &rows,
        InputsMut::Real(&mut inputs),
        TargetsMut::Classes(&mut classes),
    );
    let pixels = pixels + inputs.iter().map(|&v| f64::from(v)).sum::<f64>();
    assert!(
        (pixels * 16.0 - DIGIT_PIXELS).abs() < 1e-3,
        "{}",
        pixels * 16.0
    );
    let labels = labels + classes.iter().map(|&c| u64::from(c)).sum::<u64>();
    assert_eq!(labels, DIGIT_LABELS);
}

/// Sums over `digits.csv`, by awk.
const DIGIT_PIXELS: f64 = 561718.0;
const DIGIT_LABELS: u64 = 8070;

#[test]
fn adult_is_embedded() {
    let data = load(&DatasetConfig::new("adult"), &nowhere(), Seed(1)).unwrap();
    assert_eq!(data.input().len(), 108);
    assert_eq!(data.class_names().unwrap(), ["<=50K", ">50K"]);
    assert_eq!(data.clients(), 15);
    assert_eq!(data.client_name(ClientId(1)), Some("Adm-clerical"));
    assert_eq!(data.train_len(ClientId(1)), 3770);
    assert_eq!(data.test().unwrap().len(), 16_281);
    let counts: Vec<u64> = (0..15)
        .map(|c| data.label_counts(ClientId(c)).unwrap()[1])
        .collect();
    // adult.names: 24.78 % without unknowns; 7,841 of 32,561 rows of the file.
    assert_eq!(counts.iter().sum::<u64>(), 7841);
    let mut scratch = ClientScratch::default();
    let examples = data.train(ClientId(9), &mut scratch);
    let rows = examples.real_rows().unwrap();
    assert_eq!(rows.len() % 108, 0);
    // One number of each of the eight text columns is 1.
    for row in rows.chunks_exact(108) {
        assert_eq!(
            row.iter()
                .filter(|&&value| (value - 1.0).abs() < 1e-9)
                .count(),
            8
        );
    }
    // Standardised over the training file.
    let all = load(&iid("adult", 1), &nowhere(), Seed(1)).unwrap();
    let examples = all.train(ClientId(0), &mut scratch);
    let rows = examples.real_rows().unwrap();
    let n = examples.len() as f64;
    let age = || rows.iter().step_by(108).map(|&age| f64::from(age));
    assert!((age().sum::<f64>() / n).abs() < 1e-6);
    assert!((age().map(|age| age * age).sum::<f64>() / n - 1.0).abs() < 1e-6);
    let own: u64 = (0..15).map(|c| data.client_test_len(ClientId(c))).sum();
    assert_eq!(own, 16_281);
}

#[test]
fn fashion_mini_is_embedded() {
    let data = load(&iid("fashion-mini", 500), &nowhere(), Seed(1)).unwrap();
    let (pixels, labels, count) = totals(&data);
    assert_eq!((count, data.test().unwrap().len()), (10_000, 2000));
    assert_eq!(labels, FASHION_LABELS);
    assert!(
        (pixels * 255.0 - FASHION_PIXELS).abs() < 60.0,
        "{}",
        pixels * 255.0
    );
    assert_eq!(data.class_names().unwrap()[9], "Ankle boot");
    let other = load(&iid("fashion-mini", 500), &nowhere(), Seed(2)).unwrap();
    assert_ne!(hex(&data), hex(&other));
    let same = load(&iid("fashion-mini", 500), &nowhere(), Seed(1)).unwrap();
    assert_eq!(hex(&data), hex(&same));
}

/// Sums over the first 10,000 training images and labels of the original files, by Python.
const FASHION_PIXELS: f64 = 572388787.0;
const FASHION_LABELS: u64 = 45157;

#[test]
fn holdout_and_noise() {
    let mut config = iid("digits", 7);
    config.holdout = Some(0.25);
    let plain = load(&config, &nowhere(), Seed(3)).unwrap();
    config.feature_noise = Some(2.0);
    let noisy = load(&config, &nowhere(), Seed(3)).unwrap();
    assert_ne!(hex(&plain), hex(&noisy));
    let (mut first, mut second) = (ClientScratch::default(), ClientScratch::default());
    let mut total = 0;
    for client in (0..7).map(ClientId) {
        let (train, test) = (plain.train_len(client), plain.client_test_len(client));
        assert_eq!(test, (train + test) / 4);
        total += train + test;
        let clean = plain.train(client, &mut first);
        let changed = noisy.train(client, &mut second);
        let pairs = clean
            .real_rows()
            .unwrap()
            .iter()
            .zip(changed.real_rows().unwrap());
        let square: f64 = pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum();
        let level = (square / (train * 64) as f64).sqrt();
        let expected = 2.0 * client.0 as f64 / 7.0;
        assert!(
            (level - expected).abs() <= 0.05 * expected,
            "{level} {expected}"
        );
    }
    assert_eq!(total, 1437);
    assert!(plain.client_test(ClientId(0), &mut first).is_some());
}

#[test]
fn tables_keep_each_client_in_one_place() {
    let mut config = DatasetConfig::new("adult");
    config.holdout = Some(0.5);
    let data = load(&config, &nowhere(), Seed(3)).unwrap();
    let mut scratch = ClientScratch::default();
    let mut seen = 0;
    for client in (0..data.clients()).map(ClientId) {
        let train = data.train(client, &mut scratch).real_rows().unwrap().len();
        let held = data.client_test(client, &mut scratch).unwrap();
        seen += train / 108 + held.real_rows().unwrap().len() / 108;
    }
    assert_eq!(seen, 32_561);
    assert!(scratch.inputs.is_empty(), "tables need no scratch");
}

#[test]
fn impossible_requests_are_named() {
    let fault = |config: DatasetConfig| load(&config, &nowhere(), Seed(1)).unwrap_err().to_string();
    assert_eq!(
        fault(DatasetConfig::new("digts")),
        format!(
            "no data set is called `digts`; did you mean `digits`? known names: {}",
            names().collect::<Vec<_>>().join(", ")
        )
    );
    let with = |name, change: fn(&mut DatasetConfig)| {
        let mut config = DatasetConfig::new(name);
        change(&mut config);
        fault(config)
    };
    assert_eq!(
        with("digits", |c| c.alpha = Some(1.0)),
        "data set `digits` has no key `alpha`; it reads partition, limit, holdout, normalise, feature_noise"
    );
    assert_eq!(
        with("digits", |_| ()),
        "data set `digits` needs `partition`: how the examples fall apart into clients, e.g. { kind = \"iid\", clients = 100 }"
    );
    assert_eq!(
        with("digits", |c| c.partition =
            Some(PartitionConfig::Natural(Natural::default()))),
        "data set `digits` names no natural clients; choose another `partition`, e.g. { kind = \"dirichlet\", alpha = 0.3, clients = 100 }"
    );
    assert_eq!(
        with("digits", |c| c.holdout = Some(1.0)),
        "`holdout` is 1; give a share of at least 0 and below 1, e.g. 0.2"
    );
    assert_eq!(
        with("digits", |c| c.limit = Some(0)),
        "`limit` is 0; give at least 1, or leave it out for all"
    );
    assert_eq!(
        with("csv", |_| ()),
        "data set `csv` needs `path`: the file of the table"
    );
    assert_eq!(
        with("mnist", |_| ()),
        "/nowhere/mnist/train-labels-idx1-ubyte.gz of data set `mnist` is not there; run `fledgling data fetch mnist`, or let FLEDGLING_DATA_DIR name the folder that holds mnist/train-labels-idx1-ubyte.gz"
    );
    let message = with("digits", |c| {
        c.limit = Some(5);
        c.partition = Some(PartitionConfig::Iid(Iid { clients: 6 }));
    });
    assert!(
        message.starts_with("6 clients cannot share 5 examples"),
        "{message}"
    );
    assert!(
        with("adult", |c| c.client_column = Some("age".into()))
            .starts_with("`client_column` is `age`; give one of workclass")
    );
}

#[test]
fn a_wrong_checksum_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("mnist");
    std::fs::create_dir(&place).unwrap();
    std::fs::write(place.join("train-labels-idx1-ubyte.gz"), b"wrong").unwrap();
    let root = DataRoot::new(folder.path());
    let message = load(&iid("mnist", 10), &root, Seed(1))
        .unwrap_err()
        .to_string();
    let message = message.replace(&folder.path().display().to_string(), "R");
    assert_eq!(
        message,
        "R/mnist/train-labels-idx1-ubyte.gz has SHA-256 8810ad581e59f2bc3928b261707a71308f7e139eb04820366dc4d5c18d980225 (5 bytes) where 3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c (28881 bytes) is expected; delete it and fetch or import it again"
    );
}

#[test]
fn synthetic_has_its_populations() {
    let mut config = DatasetConfig::new("synthetic");
    config.clients = Some(30);
    let data = load(&config, &nowhere(), Seed(1)).unwrap();
    let (_, _, count) = totals(&data);
    assert_eq!(data.summary().train_examples, Some(count));
    let held: u64 = (0..30).map(|c| data.client_test_len(ClientId(c))).sum();
    assert_eq!(data.test().unwrap().len() as u64, held);
    config.clients = Some(1_000_000);
    config.examples_per_client = Some(10);
    let data = load(&config, &nowhere(), Seed(1)).unwrap();
    assert_eq!(data.clients(), 1_000_000);
    assert_eq!(data.train_len(ClientId(999_999)), 9);
    assert_eq!(data.test().unwrap().len(), 10_000);
}

#[test]
fn mnist_has_539_writers() {
    let Some(root) = data_root() else { return };
    let data = load(&DatasetConfig::new("mnist"), &root, Seed(1)).unwrap();
    assert_eq!(data.clients(), 539);
    let mut sizes: Vec<u64> = (0..539).map(|c| data.train_len(ClientId(c))).collect();
    sizes.sort_unstable();
    assert_eq!((sizes[0], sizes[269], sizes[538]), (19, 116, 131));
    assert_eq!(sizes.iter().sum::<u64>(), 60_000);
    assert_eq!(data.test().unwrap().len(), 10_000);
    let mut config = DatasetConfig::new("mnist");
    config.client_column = Some("series".into());
    let data = load(&config, &root, Seed(1)).unwrap();
    let sizes: Vec<u64> = (0..2).map(|c| data.train_len(ClientId(c))).collect();
    assert_eq!(sizes, [30_950, 29_050]);
    // Published statistics of the training set: mean 0.1307, deviation 0.3081.
    let mut config = iid("mnist", 100);
    config.normalise = Some(Normalise::Standard);
    let data = load(&config, &root, Seed(1)).unwrap();
    let mut scratch = ClientScratch::default();
    let examples = data.train(ClientId(0), &mut scratch);
    let (mut inputs, mut class) = (vec![0.0; 784], [0]);
    examples.fill(
        &[0],
        InputsMut::Real(&mut inputs),
        TargetsMut::Classes(&mut class),
    );
    assert!(
        (f64::from(inputs[0]) + 0.1307 / 0.3081).abs() < 1e-3,
        "{}",
        inputs[0]
    );
}

#[test]
fn fashion_mini_is_the_beginning_of_fashion_mnist() {
    let Some(root) = data_root() else { return };
    let whole = load(&iid("fashion-mnist", 1), &root, Seed(1)).unwrap();
    assert_eq!(whole.train_len(ClientId(0)), 60_000);
    let mut config = iid("fashion-mnist", 1);
    config.limit = Some(10_000);
    let part = load(&config, &root, Seed(1)).unwrap();
    let mini = load(&iid("fashion-mini", 1), &root, Seed(1)).unwrap();
    assert_eq!(totals(&part), totals(&mini));
}

#[test]
fn pictures_of_cifar_are_its_binary_batches() {
    let Some(root) = data_root() else { return };
    let entry = catalogue::find("cifar10-subset").unwrap();
    let canonical = catalogue::find("cifar10").unwrap();
    for batch in ["data_batch_1", "data_batch_2"] {
        let read = |suffix: &str| entry.read(&root, &format!("{batch}{suffix}")).unwrap();
        let images = crate::read::cifar::sprite("f", &read(".png")).unwrap();
        let labels = Idx::parse("f", &read("-labels-idx1-ubyte.gz")).unwrap();
        let labels = labels.into_labels("f").unwrap();
        let mut binary = Vec::with_capacity(labels.len() * 3073);
        for (image, &label) in images.chunks_exact(3072).zip(&labels) {
            binary.push(label as u8);
            for channel in 0..3 {
                binary.extend(image.iter().skip(channel).step_by(3));
            }
        }
        let file = canonical
            .files
            .iter()
            .find(|f| f.name == format!("{batch}.bin"))
            .unwrap();
        assert_eq!(catalogue::sha256(&binary), file.sha256);
        let (mut back, mut classes) = (Vec::new(), Vec::new());
        crate::read::cifar::binary("f", &binary, &mut back, &mut classes).unwrap();
        assert!(back == images);
    }
    let data = load(&iid("cifar10-subset", 20), &root, Seed(1)).unwrap();
    assert_eq!(data.test().unwrap().len(), 4000);
    assert_eq!(data.train_len(ClientId(3)), 1000);
}

#[test]
fn shakespeare_has_its_roles() {
    let Some(root) = data_root() else { return };
    let data = load(&DatasetConfig::new("shakespeare"), &root, Seed(1)).unwrap();
    let summary = data.summary();
    assert_eq!(
        data.input(),
        &InputSpec::Tokens {
            length: 80,
            vocabulary: 80
        }
    );
    assert!(
        summary.clients > 900 && summary.clients < 1346,
        "{}",
        summary.clients
    );
    let mut scratch = ClientScratch::default();
    let name = data.client_name(ClientId(0)).unwrap();
    assert_eq!(name, "1henryiv / KING HENRY IV");
    let examples = data.train(ClientId(0), &mut scratch);
    let (mut tokens, mut next) = ([0; 80], [0]);
    examples.fill(
        &[0],
        InputsMut::Tokens(&mut tokens),
        TargetsMut::Classes(&mut next),
    );
    let characters: Vec<char> = crate::read::text::LEAF_CHARACTERS.chars().collect();
    let text: String = tokens
        .iter()
        .chain(&next)
        .map(|&t| characters[t as usize])
        .collect();
    assert_eq!(
        text,
        "So shaken as we are, so wan with care, Find we a time for frighted peace to pant,"
    );
    assert!(data.client_test(ClientId(0), &mut scratch).unwrap().len() > 100);
}

#[test]
fn spoken_digits_have_their_speakers() {
    let Some(root) = data_root() else { return };
    let data = load(&DatasetConfig::new("fsdd"), &root, Seed(1)).unwrap();
    assert_eq!((data.clients(), data.test().unwrap().len()), (6, 300));
    for client in (0..6).map(ClientId) {
        assert_eq!(
            (data.train_len(client), data.client_test_len(client)),
            (450, 50)
        );
    }
    assert_eq!(data.client_name(ClientId(5)), Some("yweweler"));
}

#[cfg(feature = "tabular")]
#[test]
fn the_watch_table_has_its_subjects() {
    let Some(root) = data_root() else { return };
    let mut config = DatasetConfig::new("parquet");
    config.path = Some(root.path().join("watch").join("watch.parquet"));
    config.label_column = Some("label".into());
    config.client_column = Some("subject".into());
    config.feature_columns = Some(
        ["ax", "ay", "az", "wx", "wy", "wz"]
            .map(String::from)
            .to_vec(),
    );
    config.normalise = Some(Normalise::Standard);
    let data = load(&config, &root, Seed(1)).unwrap();
    assert_eq!((data.clients(), data.input().len()), (10, 6));
    assert_eq!(data.summary().train_examples, Some(244_102));
    assert_eq!(data.target(), TargetSpec::Class { classes: 7 });
}

#[test]
fn signed_features_are_read() {
    let Some(root) = data_root() else { return };
    let mut config = iid("idx", 10);
    config.path = Some(root.path().join("kws01"));
    config.inputs = Some("features-idx3-byte.gz".into());
    config.labels = Some("labels-idx1-ubyte.gz".into());
    let data = load(&config, &root, Seed(1)).unwrap();
    assert_eq!(data.input(), &InputSpec::Real(vec![49, 10, 1]));
    let mut scratch = ClientScratch::default();
    let examples = data.train(ClientId(0), &mut scratch);
    let rows = examples.real_rows().unwrap();
    assert!(rows.iter().all(|value| (-1.0..=1.0).contains(value)));
    assert!(rows.iter().any(|&value| value < 0.0));
}

#[test]
fn your_own_tables_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, contents: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, contents).unwrap();
        path
    };
    let mut config = DatasetConfig::new("csv");
    config.path = Some(put(
        "train.csv",
        "who,x,kind,y\nann,1,a,no\nbob,2,b,yes\nann,3,b,yes\n",
    ));
    config.test_path = Some(put("test.csv", "who,x,kind,y\nbob,5,a,no\ncid,6,b,yes\n"));
    config.label_column = Some("y".into());
    config.client_column = Some("who".into());
    if !cfg!(feature = "tabular") {
        let message = load(&config, &nowhere(), Seed(1)).unwrap_err().to_string();
        assert!(
            message.contains("without the feature `tabular`"),
            "{message}"
        );
        return;
    }
    let data = load(&config, &nowhere(), Seed(1)).unwrap();
    assert_eq!((data.clients(), data.input().len()), (2, 3));
    assert_eq!(data.client_name(ClientId(1)), Some("bob"));
    let mut scratch = ClientScratch::default();
    let examples = data.train(ClientId(0), &mut scratch);
    assert_eq!(
        examples.real_rows().unwrap(),
        [1.0, 1.0, 0.0, 3.0, 0.0, 1.0]
    );
    assert_eq!(data.client_test_len(ClientId(0)), 0);
    let own = data.client_test(ClientId(1), &mut scratch).unwrap();
    assert_eq!(own.real_rows().unwrap(), [5.0, 1.0, 0.0]);
    assert_eq!(data.test().unwrap().len(), 2);
    // A regression.
    config.label_column = Some("x".into());
    config.target = Some(crate::config::TargetKind::Real);
    let data = load(&config, &nowhere(), Seed(1)).unwrap();
    assert_eq!(data.target(), TargetSpec::Real { width: 1 });
    assert_eq!(data.label_counts(ClientId(0)), None);
    let examples = data.train(ClientId(0), &mut scratch);
    let (mut inputs, mut targets) = ([0.0; 4], [0.0; 1]);
    examples.fill(
        &[1],
        InputsMut::Real(&mut inputs),
        TargetsMut::Real(&mut targets),
    );
    assert_eq!((inputs, targets), ([0.0, 1.0, 0.0, 1.0], [3.0]));
    assert_eq!(data.heterogeneity().clients, 2);
}

#[test]
fn your_own_text_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("play.txt");
    std::fs::write(&path, "KING:\nabcabcabcabc\n\nFOOL:\ncbacbacba\n").unwrap();
    let mut config = DatasetConfig::new("text");
    config.path = Some(path);
    config.window = Some(2);
    let data = load(&config, &nowhere(), Seed(1)).unwrap();
    assert_eq!(
        data.input(),
        &InputSpec::Tokens {
            length: 2,
            vocabulary: 3
        }
    );
    // KING: 12 characters, cut at 9; FOOL: 9, cut at 7.
    let sizes = |c| {
        (
            data.train_len(ClientId(c)),
            data.client_test_len(ClientId(c)),
        )
    };
    assert_eq!((sizes(0), sizes(1)), ((7, 3), (5, 2)));
    assert_eq!(data.class_names().unwrap(), ["a", "b", "c"]);
    config.window = Some(80);
    let message = load(&config, &nowhere(), Seed(1)).unwrap_err().to_string();
    assert!(
        message.contains("no speaker with enough text for one window; choose a smaller `window`")
    );
    // A folder of one file per speaker.
    std::fs::write(folder.path().join("b.txt"), "xyzxyzxyz").unwrap();
    config.path = Some(folder.path().to_owned());
    config.window = Some(3);
    let data = load(&config, &nowhere(), Seed(1)).unwrap();
    assert_eq!(data.client_name(ClientId(0)), Some("b.txt"));
}

#[test]
fn leaf_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, contents: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, contents).unwrap();
    };
    put(
        "train/a.json",
        r#"{"users":["u","v"],"num_samples":[2,1],"user_data":{"u":{"x":[[0,1],[2,3]],"y":[0,2]},"v":{"x":[[4,5]],"y":[1]}}}"#,
    );
    put(
        "test/a.json",
        r#"{"users":["v","w"],"num_samples":[1,1],"user_data":{"v":{"x":[[6,7]],"y":[3]},"w":{"x":[[8,9]],"y":[0]}}}"#,
    );
    let mut config = DatasetConfig::new("leaf");
    config.path = Some(folder.path().to_owned());
    let data = load(&config, &nowhere(), Seed(1)).unwrap();
    assert_eq!(
        (data.clients(), data.target()),
        (2, TargetSpec::Class { classes: 4 })
    );
    let mut scratch = ClientScratch::default();
    let own = data.client_test(ClientId(1), &mut scratch).unwrap();
    assert_eq!(own.real_rows().unwrap(), [6.0, 7.0]);
    assert_eq!(data.test().unwrap().len(), 2);
    assert_eq!(data.client_test_len(ClientId(0)), 0);
    // Text.
    put(
        "text.json",
        r#"{"users":["u"],"num_samples":[2],"user_data":{"u":{"x":["ab","bc"],"y":["c","d"]}}}"#,
    );
    config.path = Some(folder.path().join("text.json"));
    let data = load(&config, &nowhere(), Seed(1)).unwrap();
    let examples = data.train(ClientId(0), &mut scratch);
    let (mut tokens, mut next) = ([0; 2], [0; 1]);
    examples.fill(
        &[1],
        InputsMut::Tokens(&mut tokens),
        TargetsMut::Classes(&mut next),
    );
    assert_eq!((tokens, next), ([54, 55], [56]));
    // A label of a text that is no character, also where its last eight bits are one; texts of
    // another length.
    for (users, expected) in [
        (
            r#""users":["u"],"user_data":{"u":{"x":["ab"],"y":[256]}}"#,
            "user `u`, example 0: found label 256, expected the character after the input",
        ),
        (
            r#""users":["u","v"],"user_data":{"u":{"x":["ab"],"y":["c"]},"v":{"x":["abc"],"y":["d"]}}"#,
            "user `v`: found examples of 3 characters, expected 2 characters, as before",
        ),
    ] {
        put("text.json", &format!("{{{users}}}"));
        let message = load(&config, &nowhere(), Seed(1)).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn your_own_pictures_are_read() {
    let folder = tempfile::tempdir().unwrap();
    for (name, value) in [
        ("ann/cat/1.png", 0),
        ("ann/dog/1.png", 255),
        ("bob/cat/1.png", 51),
    ] {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let bytes = crate::read::image::tests::encode(2, 2, png::ColorType::Rgb, &[value; 12]);
        std::fs::write(path, bytes).unwrap();
    }
    let mut config = DatasetConfig::new("images");
    config.path = Some(folder.path().to_owned());
    config.layout = Some(crate::read::folder::FolderLayout::ClientsClasses);
    let data = load(&config, &nowhere(), Seed(1)).unwrap();
    assert_eq!(data.input(), &InputSpec::Real(vec![2, 2, 3]));
    assert_eq!(data.class_names().unwrap(), ["cat", "dog"]);
    let mut scratch = ClientScratch::default();
    let examples = data.train(ClientId(0), &mut scratch);
    let rows = examples.real_rows().unwrap();
    assert!(rows[..12].iter().all(|v| v.abs() < 1e-6));
    assert!(rows[12..].iter().all(|v| (v - 1.0).abs() < 1e-6));
    assert!(data.test().is_none());
}
