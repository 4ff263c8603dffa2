use super::*;

fn images(data: Vec<u8>, labels: Vec<u8>) -> Store {
    Store::new(
        "test",
        InputSpec::Real(vec![1, 2, 2]),
        TargetSpec::Class { classes: 3 },
        Inputs::Bytes(ByteRows {
            data,
            channels: 2,
            zero: 0,
            largest: 255,
        }),
        Targets::Bytes(labels),
    )
    .unwrap()
}

fn read(store: &Store, rows: &[u32]) -> (Vec<f32>, Vec<u32>) {
    let mut inputs = vec![f32::NAN; rows.len() * store.input().len()];
    let mut targets = vec![u32::MAX; rows.len()];
    store.fill(
        rows,
        InputsMut::Real(&mut inputs),
        TargetsMut::Classes(&mut targets),
    );
    (inputs, targets)
}

#[test]
fn bytes_become_the_unit_interval() {
    let store = images(vec![0, 255, 51, 102, 255, 0, 0, 0], vec![2, 1]);
    let (inputs, targets) = read(&store, &[1, 0, 1]);
    assert_eq!(targets, [1, 2, 1]);
    let expected = [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.2, 0.4, 1.0, 0.0, 0.0, 0.0];
    for (found, expected) in inputs.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-6, "{inputs:?}");
    }
}

#[test]
fn centred_bytes_reach_half_either_way() {
    let mut store = images(vec![0, 255, 51, 102, 255, 0, 0, 0], vec![2, 1]);
    store.normalise(Normalise::Centred, None);
    let (inputs, _) = read(&store, &[0]);
    for (found, expected) in inputs.iter().zip([-0.5, 0.5, -0.3, -0.1]) {
        assert!((found - expected).abs() < 1e-6, "{inputs:?}");
    }
}

#[test]
fn standard_means_zero_mean_and_unit_variance_per_channel() {
    let mut store = images(vec![0, 7, 10, 7, 30, 7, 60, 7], vec![0, 1]);
    let mut test = images(vec![25, 7, 25, 9], vec![0]);
    store.normalise(Normalise::Standard, Some(&mut test));
    let (inputs, _) = read(&store, &[0, 1]);
    let first: Vec<f32> = inputs.iter().step_by(2).copied().collect();
    let mean = first.iter().sum::<f32>() / 4.0;
    let variance = first.iter().map(|v| v * v).sum::<f32>() / 4.0;
    assert!(mean.abs() < 1e-6 && (variance - 1.0).abs() < 1e-5);
    assert!(inputs.iter().skip(1).step_by(2).all(|&v| v.abs() < 1e-9));
    assert!(read(&test, &[0]).0.iter().all(|v| v.abs() < 1e-6));
}

#[test]
fn tables_standardise_by_column_and_keep_their_order() {
    let table = |values: Vec<f32>, labels: Vec<u32>| {
        Store::new(
            "test",
            InputSpec::Real(vec![2]),
            TargetSpec::Class { classes: 1000 },
            Inputs::Real(values),
            Targets::classes(labels, 1000),
        )
        .unwrap()
    };
    let mut store = table(vec![1.0, 5.0, 3.0, 5.0, 5.0, 5.0], vec![999, 1, 2]);
    store.reorder(&[2, 0]);
    assert_eq!(
        read(&store, &[0, 1]),
        (vec![5.0, 5.0, 1.0, 5.0], vec![2, 999])
    );
    assert_eq!(store.real_rows(1..2), Some(&[1.0, 5.0][..]));
    store.normalise(Normalise::Standard, None);
    assert_eq!(read(&store, &[0, 1]).0, [1.0, 0.0, -1.0, 0.0]);
}

#[test]
fn text_is_windows_and_the_token_after() {
    let store = Store::new(
        "test",
        InputSpec::Tokens {
            length: 3,
            vocabulary: 6,
        },
        TargetSpec::Class { classes: 6 },
        Inputs::Text(TextRows {
            tokens: vec![0, 1, 2, 3, 4, 5].into(),
            starts: vec![0, 1, 2],
        }),
        Targets::NextToken,
    )
    .unwrap();
    let (mut tokens, mut next) = ([9; 6], [9; 2]);
    store.fill(
        &[2, 0],
        InputsMut::Tokens(&mut tokens),
        TargetsMut::Classes(&mut next),
    );
    assert_eq!((tokens, next), ([2, 3, 4, 0, 1, 2], [5, 3]));
    assert_eq!(store.labels(), Some(vec![3, 4, 5]));
}

#[test]
fn wrong_labels_and_counts_are_refused() {
    let make = |labels: Vec<u8>, values: usize| {
        Store::new(
            "set",
            InputSpec::Real(vec![2]),
            TargetSpec::Class { classes: 3 },
            Inputs::Real(vec![0.0; values]),
            Targets::Bytes(labels),
        )
        .map(|_| ())
        .unwrap_err()
        .to_string()
    };
    assert_eq!(
        make(vec![0, 3], 4),
        "set, example 1: found label 3, expected a label below 3, the number of classes; check that the labels belong to these data"
    );
    assert_eq!(
        make(vec![0], 4),
        "set (inputs) holds 2 examples and set (labels) holds 1; both must hold the same number, so use files of one release"
    );
    assert_eq!(
        make(vec![0], 3),
        "set, inputs: found 3 numbers, expected a multiple of 2, the numbers of one example; check that every example has the same shape"
    );
}

#[test]
fn labels_that_are_no_class_are_refused_whatever_their_size() {
    // 259 is 3 in eight bits.
    for (label, classes) in [(259, 10), (256, 256), (300, 300)] {
        let made = Store::new(
            "set",
            InputSpec::Real(vec![1]),
            TargetSpec::Class { classes },
            Inputs::Real(vec![0.0]),
            Targets::classes(vec![label], classes),
        );
        let message = made.map(|_| ()).unwrap_err().to_string();
        assert!(
            message.starts_with(&format!("set, example 0: found label {label}, expected")),
            "{message}"
        );
    }
}

#[test]
fn kinds_that_disagree_are_refused() {
    let real = || InputSpec::Real(vec![1]);
    let tokens = InputSpec::Tokens {
        length: 1,
        vocabulary: 5,
    };
    let class = |classes| TargetSpec::Class { classes };
    let numbers = || Inputs::Real(vec![0.0; 2]);
    let text = || {
        Inputs::Text(TextRows {
            tokens: vec![0, 1, 4].into(),
            starts: vec![0, 1],
        })
    };
    let bytes = || Targets::Bytes(vec![0; 2]);
    let reals = |count| Targets::Real(vec![0.0; count]);
    let width = |width| TargetSpec::Real { width };
    #[rustfmt::skip]
    let cases = [
        (real(), class(5), text(), Targets::NextToken, "set, inputs: found Real([1]), expected tokens"),
        (tokens.clone(), class(5), numbers(), bytes(), "set, inputs: found Tokens { length: 1, vocabulary: 5 }, expected real numbers"),
        (tokens.clone(), class(4), text(), Targets::NextToken, "set, targets: found Class { classes: 4 }, expected a class for each token"),
        (real(), class(5), numbers(), Targets::NextToken, "set, targets: found Class { classes: 5 }, expected a class for each token"),
        (real(), width(1), numbers(), bytes(), "set, targets: found Real { width: 1 }, expected classes"),
        (real(), class(5), numbers(), reals(2), "set, targets: found Class { classes: 5 } for 2 numbers, expected real numbers"),
        (real(), width(0), numbers(), reals(2), "set, targets: found Real { width: 0 } for 2 numbers, expected real numbers"),
        (real(), width(2), numbers(), reals(5), "set, targets: found Real { width: 2 } for 5 numbers, expected real numbers"),
    ];
    for (input, target, inputs, targets, expected) in cases {
        let made = Store::new("set", input, target, inputs, targets);
        let message = made.map(|_| ()).unwrap_err().to_string();
        assert!(message.starts_with(expected), "{message}");
    }
    assert!(Store::new("set", tokens, class(5), text(), Targets::NextToken).is_ok());
    assert!(Store::new("set", real(), width(2), numbers(), reals(4)).is_ok());
}
