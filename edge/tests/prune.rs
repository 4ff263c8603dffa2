//! Pruning: masks against sorting, smaller models against larger ones with zeros, and training
//! under a mask.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fl_core::{InputSpec, Mask, Optimizer, Parameters, TargetSpec};
use fl_edge::kernel::Kernels;
use fl_edge::layer::LayerDef;
use fl_edge::prune::{
    FilterShares, Filters, FiltersPruned, GradualSchedule, KeptBecause, PruneError, Scope,
    magnitude, prunable, prunable_values, prune_filters, random_like, rewound, sparsity,
    two_of_four,
};
use fl_edge::qat::{QatForward, QatOptions};
use fl_edge::{LayersDef, MODELS, Model, ModelDef, Session, Step};
use proptest::prelude::*;

use common::{Case, Synthetic, operators, stream};

#[path = "engine/common.rs"]
#[expect(dead_code, reason = "made for all tests of the engine")]
mod common;
#[path = "engine/stacks.rs"]
mod stacks;

const CLASSES: TargetSpec = TargetSpec::Class { classes: 4 };

fn small(text: &str) -> Case {
    Case::new("small", text, &InputSpec::Real(vec![6, 6, 3]), CLASSES)
}

fn cnn() -> Case {
    small("kind = \"cnn-fedavg\"\nfilters = [6, 7]\nunits = 10")
}

/// Parameters without zeros; statistics that are positive.
fn start(model: &Model) -> Parameters {
    let mut random = stream(3);
    let mut weights = model.init(&mut random);
    for value in weights.values_mut() {
        *value += 0.1 * random.normal() as f32;
    }
    for tensor in model.layout().tensors() {
        if tensor.name.ends_with(".running_var") {
            for value in &mut weights.values_mut()[tensor.range()] {
                *value = value.abs() + 0.3;
            }
        }
    }
    weights
}

/// The indices of all prunable values.
fn places(model: &Model) -> Vec<usize> {
    let tensors = model.layout().tensors();
    let ids = prunable(model.graph());
    ids.into_iter().flat_map(|id| tensors[id].range()).collect()
}

fn pruned(mask: &Mask) -> BTreeSet<usize> {
    (0..mask.parameters())
        .filter(|&at| mask.contains(at))
        .collect()
}

#[test]
fn the_smallest_weights_go_and_exactly_so_many() {
    let case = cnn();
    let mut weights = start(&case.model);
    // Ties: the lower index goes first.
    for value in weights.values_mut() {
        *value = (*value * 20.0).round() / 20.0;
    }
    let values = weights.values();
    let places = places(&case.model);
    assert_eq!(places.len(), prunable_values(&case.model));
    let none = Mask::none(values.len());
    let mut before = none.clone();
    for share in [0.0, 0.1, 0.5, 0.8, 0.999] {
        let count = (share * places.len() as f64).round() as usize;
        let mut sorted = places.clone();
        sorted.sort_by(|&a, &b| values[a].abs().total_cmp(&values[b].abs()).then(a.cmp(&b)));
        let expected: BTreeSet<usize> = sorted[..count].iter().copied().collect();
        let found = magnitude(&case.model, values, share, Scope::Global, &none).expect("good");
        assert_eq!(pruned(&found), expected, "{share}");
        // Growing from the mask before, with its weights at zero, finds the same.
        let mut zeroed = values.to_vec();
        before.apply(&mut zeroed);
        let grown = magnitude(&case.model, &zeroed, share, Scope::Global, &before).expect("good");
        assert_eq!(grown, found, "{share}");
        before = grown;
        let kept = magnitude(&case.model, values, 0.0, Scope::Global, &before).expect("good");
        assert_eq!(kept, before, "nothing comes back");
        let layered = magnitude(&case.model, values, share, Scope::Layer, &none).expect("good");
        for id in prunable(case.model.graph()) {
            let range = case.model.layout().tensors()[id].range();
            let count = (share * range.len() as f64).round() as usize;
            let mut sorted: Vec<usize> = range.clone().collect();
            sorted.sort_by(|&a, &b| values[a].abs().total_cmp(&values[b].abs()).then(a.cmp(&b)));
            assert!(sorted[..count].iter().all(|&at| layered.contains(at)));
            assert_eq!(layered.pruned_in(range), count);
        }
        let mut zeroed = values.to_vec();
        found.apply(&mut zeroed);
        let zeros = values.iter().zip(&places).len();
        assert_eq!(zeros, places.len());
        let measured = sparsity(&case.model, &zeroed).expect("good");
        assert!(measured >= count as f64 / places.len() as f64);
    }
}

/// Exact fractions: from 0 to 1/2 in 4 steps is `1/2 - 1/2 (1 - k/4)³`.
#[test]
fn a_gradual_schedule_follows_the_equation() {
    let schedule = GradualSchedule {
        initial: 0.0,
        sparsity: 0.5,
        start: 10,
        every: 5,
        steps: 4,
    };
    schedule.check().expect("good");
    assert_eq!(schedule.end(), 30);
    for (t, expected) in [
        (0, None),
        (9, None),
        (10, Some(0.0)),
        (11, None),
        (15, Some(0.5 - 0.5 * 27.0 / 64.0)),
        (20, Some(0.5 - 0.5 * 8.0 / 64.0)),
        (25, Some(0.5 - 0.5 / 64.0)),
        (30, Some(0.5)),
        (31, None),
        (35, None),
    ] {
        assert_eq!(schedule.due(t), expected, "{t}");
    }
    for (t, expected) in [
        (0, 0.0),
        (10, 0.0),
        (19, 0.5 - 0.5 * 27.0 / 64.0),
        (99, 0.5),
    ] {
        assert_eq!(Some(schedule.reached(t)), Some(expected), "{t}");
    }
    let once = GradualSchedule::one_shot(0.8, 3);
    assert_eq!([2, 3, 4].map(|t| once.due(t)), [None, Some(0.8), None]);
    assert_eq!(
        [2, 3, 4].map(|t| Some(once.reached(t))),
        [0.0, 0.8, 0.8].map(Some)
    );
}

#[test]
fn schedules_that_make_no_sense_are_refused() {
    let good = GradualSchedule {
        initial: 0.1,
        sparsity: 0.5,
        start: 0,
        every: 1,
        steps: 3,
    };
    let cases = [
        (
            GradualSchedule {
                sparsity: 1.0,
                ..good
            },
            "the sparsity is 1; expected a share of at least 0 and below 1",
        ),
        (
            GradualSchedule {
                initial: f64::NAN,
                ..good
            },
            "the first sparsity is NaN",
        ),
        (
            GradualSchedule {
                initial: 0.6,
                ..good
            },
            "the schedule's initial is 0.6; expected at most the last sparsity",
        ),
        (
            GradualSchedule { every: 0, ..good },
            "the schedule's every is 0",
        ),
        (
            GradualSchedule {
                every: 2,
                steps: u64::MAX,
                ..good
            },
            "the schedule's steps is 18446744073709551615",
        ),
    ];
    for (schedule, expected) in cases {
        let found = schedule.check().expect_err("refused").to_string();
        assert!(found.starts_with(expected), "{found}");
    }
}
#[test]
fn two_of_each_four_inputs_stay() {
    let text = "[[layer]]\nkind = \"conv2d\"\nname = \"a\"\nfilters = 5\nkernel = 3\n\
         [[layer]]\nkind = \"conv2d\"\nname = \"deep\"\nfilters = 5\ngroups = 5\nkernel = 2\n\
         [[layer]]\nkind = \"flatten\"\n[[layer]]\nkind = \"dense\"\nname = \"b\"";
    let case = small(text);
    let weights = start(&case.model);
    let mask = two_of_four(&case.model, weights.values()).expect("good");
    let mut count = 0;
    // 27 inputs: the last three lose one. 45: the last one stays.
    for (layer, inputs, outputs, last) in [("a", 27, 5, 1), ("b", 45, 4, 0)] {
        let tensor = case
            .model
            .layout()
            .tensor(&format!("{layer}.weight"))
            .expect("there");
        assert_eq!(tensor.len(), inputs * outputs);
        for output in 0..outputs {
            for group in 0..inputs / 4 + 1 {
                let rows = (4 * group..4 * group + 4).filter(|&row| row < inputs);
                let at: Vec<usize> = rows
                    .map(|row| tensor.offset + row * outputs + output)
                    .collect();
                let gone: Vec<usize> = at.iter().copied().filter(|&at| mask.contains(at)).collect();
                let full = at.len() == 4;
                assert_eq!(
                    gone.len(),
                    if full { 2 } else { last },
                    "{layer} {group} {output}"
                );
                let size = |at: &usize| weights.values()[*at].abs();
                let largest_gone = gone.iter().map(size).fold(0.0, f32::max);
                let stays = at.iter().filter(|at| !gone.contains(at));
                assert!(stays.map(size).all(|size| size >= largest_gone));
                count += gone.len();
            }
        }
    }
    assert_eq!(
        mask.pruned(),
        count,
        "nothing else, and no depthwise weight"
    );
}

#[test]
fn tickets_and_random_masks_are_of_the_same_weights() {
    let case = cnn();
    let early = start(&case.model);
    let none = Mask::none(early.values().len());
    let mask = magnitude(&case.model, early.values(), 0.6, Scope::Global, &none).expect("good");
    let ticket = rewound(&case.model, early.values(), &mask).expect("good");
    for (index, (found, was)) in ticket.iter().zip(early.values()).enumerate() {
        let expected = if mask.contains(index) { 0.0 } else { *was };
        assert_eq!(found.to_bits(), expected.to_bits());
    }
    let other = random_like(&case.model, &mask, &mut stream(1)).expect("good");
    assert_ne!(other, mask);
    assert_eq!(
        other,
        random_like(&case.model, &mask, &mut stream(1)).expect("good")
    );
    for tensor in case.model.layout().tensors() {
        assert_eq!(
            other.pruned_in(tensor.range()),
            mask.pruned_in(tensor.range())
        );
    }
}

/// The layers whose filters every layer's channels are, found from the definition alone.
fn origins(model: &Model) -> BTreeMap<String, BTreeSet<String>> {
    let layers = model.definition().layers_for(model.input(), model.target());
    let mut origins = BTreeMap::from([("input".to_owned(), BTreeSet::new())]);
    let mut before = "input".to_owned();
    for (layer, summary) in layers.expect("as before").iter().zip(model.summary()) {
        let input = layer.input().map_or(before, str::to_owned);
        let mut own: BTreeSet<String> = origins[&input].clone();
        match layer {
            LayerDef::Conv2d(def) if def.groups == 1 || def.groups != def.filters => {
                own = BTreeSet::from([summary.name.clone()]);
            }
            LayerDef::Dense(_) => own = BTreeSet::from([summary.name.clone()]),
            LayerDef::Add(def) => own.extend(origins[&def.from].iter().cloned()),
            LayerDef::Lstm(_) | LayerDef::Gru(_) | LayerDef::Attention(_) => own.clear(),
            _ => {}
        }
        origins.insert(summary.name.clone(), own);
        before = summary.name.clone();
    }
    origins
}

/// The full model with everything that gives, normalises, filters or moves a removed channel at
/// zero, so that the channel is zero wherever it is read.
fn zeroed(model: &Model, values: &[f32], smaller: &FiltersPruned) -> Vec<f32> {
    let mut values = values.to_vec();
    for (layer, origins) in origins(model) {
        let of = |set: &&fl_edge::prune::ChannelSet| {
            set.layers.iter().any(|layer| origins.contains(layer))
        };
        let Some(set) = smaller.sets.iter().find(of) else {
            continue;
        };
        let own = |name: &str| {
            name.strip_prefix(&layer)
                .is_some_and(|rest| [".weight", ".bias", ".running_mean"].contains(&rest))
        };
        for tensor in model
            .layout()
            .tensors()
            .iter()
            .filter(|tensor| own(&tensor.name))
        {
            // The last dimension has the channels, once or once for each position.
            for (index, value) in values[tensor.range()].iter_mut().enumerate() {
                if set.removed.contains(&(index % set.channels)) {
                    *value = 0.0;
                }
            }
        }
    }
    values
}

fn outputs(model: &Arc<Model>, values: &[f32]) -> Vec<f32> {
    let data = Synthetic::new(model.input(), model.target(), 3, 99);
    let mut session = Session::new(Arc::clone(model), Kernels::best());
    session.start(values, &Optimizer::SGD, 3);
    session.outputs(&data, &[0, 1, 2]).expect("good examples")
}

/// Prunes, and compares the outputs with those of the full model with zeros; none where no layer
/// can be pruned.
fn check_filters(name: &'static str, model: &Arc<Model>, filters: &Filters) -> Option<Case> {
    let weights = start(model);
    let smaller = match prune_filters(model, weights.values(), filters) {
        Ok(smaller) => smaller,
        Err(PruneError::NoFilters { .. }) => return None,
        Err(error) => panic!("{name}: {error}"),
    };
    let zeros = zeroed(model, weights.values(), &smaller);
    for set in &smaller.sets {
        assert!(set.removed.len() < set.channels, "{name}: something stays");
        assert!(set.kept.is_none() || set.removed.is_empty(), "{name}");
        for group in set.removed.chunks(set.together) {
            assert_eq!(group[0] % set.together, 0, "{name}: whole groups");
            assert_eq!(group.len(), set.together, "{name}: whole groups");
        }
    }
    let kept = smaller.sets.iter().all(|set| set.removed.is_empty());
    let (model, pruned) = (model, Arc::new(smaller.model));
    assert_eq!(kept, pruned.parameters() == model.parameters(), "{name}");
    let (full, less) = (outputs(model, &zeros), outputs(&pruned, &smaller.values));
    assert_eq!(full.len(), less.len());
    let scale = full
        .iter()
        .fold(1.0f32, |most, value| most.max(value.abs()));
    for (a, b) in full.iter().zip(&less) {
        assert!((a - b).abs() <= 2e-5 * scale, "{name}: {a} {b}");
    }
    Some(Case {
        name,
        def: pruned.definition().clone(),
        model: pruned,
    })
}

/// The gradient along random directions against central differences, of several widths the best
/// one: kinks of relu and max may lie between.
fn check_gradient(case: &Case) {
    let data = case.data(5);
    let rows = [0, 1, 2, 3, 4];
    let weights = start(&case.model);
    let mut session = Session::new(Arc::clone(&case.model), Kernels::best());
    let mut loss = |weights: &[f32]| {
        session.start(weights, &Optimizer::SGD, 5);
        let loss = session.gradient(&data, &rows, &mut stream(5));
        (
            loss.expect("good examples") / 5.0,
            session.gradients().to_vec(),
        )
    };
    let gradient = loss(weights.values()).1;
    let mut random = stream(17);
    for trial in 0..6 {
        let direction: Vec<f64> = gradient.iter().map(|_| random.normal()).collect();
        let terms = direction
            .iter()
            .zip(&gradient)
            .map(|(d, g)| d * f64::from(*g));
        let expected = terms.sum::<f64>();
        let norm = direction.iter().map(|d| d * d).sum::<f64>().sqrt();
        let mut at = |step: f64| {
            let moved = weights.values().iter().zip(&direction);
            let moved: Vec<f32> = moved
                .map(|(w, d)| (f64::from(*w) + step * d) as f32)
                .collect();
            loss(&moved).0
        };
        let error = [3e-2, 1e-2, 3e-3, 1e-3]
            .map(|width| {
                let step = width / norm;
                let slope = (at(step) - at(-step)) / (2.0 * step);
                (slope - expected).abs() / (0.02 * norm + expected.abs())
            })
            .into_iter()
            .fold(f64::INFINITY, f64::min);
        assert!(
            error < 1e-2,
            "{} trial {trial}: {error:e} at {expected}",
            case.name
        );
    }
}

/// Every operator; where channels went, the gradient of the smaller model is that of finite
/// differences.
#[test]
fn smaller_models_give_what_zeroed_ones_give() {
    let mut went = 0;
    for case in operators() {
        // The sigmoid of zero is not zero; it has a test of its own.
        if toml::to_string(&case.def)
            .expect("serialises")
            .contains("sigmoid")
        {
            continue;
        }
        for shares in [FilterShares::Each(0.4), FilterShares::Global(0.5)] {
            let filters = Filters {
                shares,
                multiple: 1,
            };
            let Some(smaller) = check_filters(case.name, &case.model, &filters) else {
                continue;
            };
            if smaller.model.parameters() < case.model.parameters() {
                went += 1;
                if matches!(filters.shares, FilterShares::Each(_)) {
                    check_gradient(&smaller);
                }
            }
        }
    }
    assert!(went >= 50, "{went}");
}

#[test]
fn the_zoo_is_pruned() {
    let mut went = Vec::new();
    for (kind, _) in MODELS {
        let def = ModelDef::named(kind).expect("of the zoo");
        let (input, target) = def.example().expect("of the zoo");
        let model = Arc::new(Model::new(&def, &input, target).expect("builds"));
        if let Some(smaller) = check_filters(kind, &model, &Filters::each(0.3)) {
            assert!(smaller.model.macs_per_example() < model.macs_per_example());
            went.push(*kind);
        }
    }
    assert_eq!(
        went,
        [
            "mlp-2nn",
            "cnn-fedavg",
            "cnn-pfl",
            "resnet8-gn",
            "mlp",
            "mobilenet-v2",
            "transformer"
        ]
    );
}

/// Counted by hand: 10 of 32 filters, 19 of 64, 154 of 512 units.
#[test]
fn work_and_parameters_fall_as_they_should() {
    let def = ModelDef::named("cnn-fedavg").expect("of the zoo");
    let (input, target) = def.example().expect("of the zoo");
    let model = Model::new(&def, &input, target).expect("builds");
    let weights = start(&model);
    let smaller = prune_filters(&model, weights.values(), &Filters::each(0.3)).expect("good");
    let (one, two, units) = (22, 45, 358);
    let parameters =
        25 * one + one + 25 * one * two + two + 49 * two * units + units + units * 10 + 10;
    assert_eq!(smaller.model.parameters(), parameters);
    assert_eq!(smaller.values.len(), parameters);
    let alone = Filters {
        shares: FilterShares::Layers(BTreeMap::from([("conv2".to_owned(), 0.3)])),
        multiple: 1,
    };
    let smaller = prune_filters(&model, weights.values(), &alone).expect("good");
    let macs = |model: &Model, name: &str| {
        let mut layers = model.summary().iter();
        layers
            .find(|layer| layer.name == name)
            .expect("a layer")
            .macs as f64
    };
    for (layer, share) in [
        ("conv1", 0.0),
        ("conv2", 19.0 / 64.0),
        ("fc1", 19.0 / 64.0),
        ("fc2", 0.0),
    ] {
        let fell = 1.0 - macs(&smaller.model, layer) / macs(&model, layer);
        assert!((fell - share).abs() < 1e-12, "{layer}: {fell}");
    }
    // The filters that went are those of least L1 norm, by a plain sum.
    let tensor = model.layout().tensor("conv2.weight").expect("there");
    let kernel = &weights.values()[tensor.range()];
    let norm = |filter: usize| {
        let weights = kernel.iter().skip(filter).step_by(64);
        weights.map(|weight| f64::from(weight.abs())).sum::<f64>()
    };
    let set = &smaller.sets[1];
    assert_eq!((set.layers[0].as_str(), set.removed.len()), ("conv2", 19));
    let most = set.removed.iter().map(|&at| norm(at)).fold(0.0, f64::max);
    assert!(
        (0..64)
            .filter(|at| !set.removed.contains(at))
            .all(|at| norm(at) >= most)
    );
    // In whole vectors: 48 of 64 stay.
    let vectors = Filters {
        multiple: 16,
        ..alone
    };
    let smaller = prune_filters(&model, weights.values(), &vectors).expect("good");
    assert_eq!(smaller.sets[1].removed.len(), 16);
}

/// A channel of sigmoids is 0.5 where its filter is zero: here what reads it is zeroed by hand.
#[test]
fn any_activation_may_follow() {
    let text = "[[layer]]\nkind = \"conv2d\"\nname = \"a\"\nfilters = 4\nkernel = 3\nactivation = \"sigmoid\"\n\
         [[layer]]\nkind = \"flatten\"\n[[layer]]\nkind = \"dense\"\nname = \"b\"";
    let case = small(text);
    let weights = start(&case.model);
    let smaller = prune_filters(&case.model, weights.values(), &Filters::each(0.5)).expect("good");
    let removed = &smaller.sets[0].removed;
    assert_eq!(removed.len(), 2);
    let mut zeros = weights.values().to_vec();
    let tensor = case.model.layout().tensor("b.weight").expect("there");
    for position in 0..16 {
        for &channel in removed {
            let row = tensor.offset + (position * 4 + channel) * 4;
            zeros[row..row + 4].fill(0.0);
        }
    }
    let less = outputs(&Arc::new(smaller.model), &smaller.values);
    for (a, b) in outputs(&case.model, &zeros).iter().zip(&less) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
}

#[test]
fn what_stays_says_why() {
    let conv = |name: &str, more: &str| {
        format!(
            "[[layer]]\nkind = \"conv2d\"\nname = \"{name}\"\nfilters = 6\nkernel = 3\npadding = \"same\"\n{more}\n"
        )
    };
    let end = "[[layer]]\nkind = \"global-avg-pool\"\n[[layer]]\nkind = \"dense\"\nname = \"out\"";
    let cases = [
        (
            format!("{}{end}", conv("a", "")),
            "out",
            KeptBecause::Output,
        ),
        (
            format!("{}{}{end}", conv("a", ""), conv("b", "groups = 2")),
            "a",
            KeptBecause::Groups("b".to_owned()),
        ),
        (
            format!("{}{}{end}", conv("a", ""), conv("b", "groups = 2")),
            "b",
            KeptBecause::Groups("b".to_owned()),
        ),
        (
            format!(
                "{}[[layer]]\nkind = \"group-norm\"\nname = \"n\"\ngroups = 1\n{end}",
                conv("a", "")
            ),
            "a",
            KeptBecause::Normalised("n".to_owned()),
        ),
        (
            format!(
                "{}[[layer]]\nkind = \"flatten\"\n[[layer]]\nkind = \"layer-norm\"\nname = \"n\"\n[[layer]]\nkind = \"dense\"",
                conv("a", "")
            ),
            "a",
            KeptBecause::Normalised("n".to_owned()),
        ),
        (
            format!(
                "{}[[layer]]\nkind = \"add\"\nfrom = \"input\"\n{end}",
                conv("a", "").replace("filters = 6", "filters = 3")
            ),
            "a",
            KeptBecause::Input,
        ),
    ];
    for (text, layer, reason) in cases {
        let case = small(&text);
        let weights = start(&case.model);
        let filters = Filters {
            shares: FilterShares::Layers(BTreeMap::from([(layer.to_owned(), 0.5)])),
            multiple: 1,
        };
        let error = prune_filters(&case.model, weights.values(), &filters).expect_err("stays");
        let kept = PruneError::Kept {
            layer: layer.to_owned(),
            reason,
        };
        match error {
            PruneError::NoFilters { .. } => {
                assert_ne!(layer, "out", "the first convolution can be pruned");
            }
            error => assert_eq!(error, kept),
        }
    }
    let case = cnn();
    let weights = start(&case.model);
    let ask = |filters: Filters| {
        let error = prune_filters(&case.model, weights.values(), &filters);
        error.expect_err("refused").to_string()
    };
    let layers = |name: &str, share| Filters {
        shares: FilterShares::Layers(BTreeMap::from([(name.to_owned(), share)])),
        multiple: 1,
    };
    assert_eq!(
        ask(layers("conv3", 0.3)),
        "no layer with filters is called `conv3`; expected one of conv1, conv2, fc1"
    );
    assert_eq!(
        ask(layers("fc2", 0.3)),
        "the channels of layer `fc2` cannot be removed: they are the model's outputs; leave it out"
    );
    for share in [-0.1, 1.0, f64::NAN] {
        assert!(ask(layers("conv1", share)).starts_with("the share of filters is"));
        assert!(ask(Filters::each(share)).ends_with("a share of at least 0 and below 1"));
    }
    assert!(
        ask(Filters {
            multiple: 0,
            ..Filters::each(0.1)
        })
        .contains("multiples of 0")
    );
    let short = prune_filters(&case.model, &[1.0], &Filters::each(0.1));
    assert!(matches!(short, Err(PruneError::Length { given: 1, .. })));
    let logreg = small("kind = \"logreg\"");
    let none = prune_filters(
        &logreg.model,
        start(&logreg.model).values(),
        &Filters::each(0.1),
    );
    assert_eq!(
        none.expect_err("refused").to_string(),
        "no layer of the model has channels that can be removed (they are the model's outputs); \
         prune single weights in place of filters"
    );
}

/// Ranges of quantization-aware training go with the model.
#[test]
fn a_model_with_ranges_keeps_them() {
    let case = cnn();
    let model = Model::new(&case.def, case.model.input(), CLASSES).expect("builds");
    let model = model.with_ranges(QatOptions::default()).expect("good");
    let mut weights = start(&model);
    let ranges = case.model.parameters()..;
    for (value, at) in weights.values_mut()[ranges.clone()].iter_mut().zip(0u8..) {
        *value = f32::from(at) - 1.0;
    }
    let smaller = prune_filters(&model, weights.values(), &Filters::each(0.5)).expect("good");
    assert_eq!(smaller.model.qat_options(), model.qat_options());
    let last = smaller.values.len() - weights.values()[ranges.clone()].len();
    assert_eq!(&smaller.values[last..], &weights.values()[ranges]);
    assert!(smaller.model.quantization(&smaller.values).is_some());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn random_stacks_prune(
        layers in stacks::layers(),
        size in [2usize..8, 2usize..8],
        share in 0.0f64..0.95,
        multiple in 1usize..4,
        global in any::<bool>(),
    ) {
        let input = InputSpec::Real(vec![size[0], size[1], 4]);
        let def = ModelDef::Layers(LayersDef { layer: layers, loss: None });
        let text = toml::to_string(&def).expect("serialises").replace("sigmoid", "tanh");
        let def = toml::from_str::<ModelDef>(&text).expect("reads");
        if let Ok(model) = Model::new(&def, &input, CLASSES) {
            let shares = match global {
                true => FilterShares::Global(share),
                false => FilterShares::Each(share),
            };
            check_filters("random", &Arc::new(model), &Filters { shares, multiple });
        }
    }
}

/// Trains seven steps under a mask; the parameters after each.
fn train(
    session: &mut Session,
    case: &Case,
    from: &[f32],
    optimizer: Optimizer,
    clip: Option<f32>,
) -> Vec<Vec<f32>> {
    let data = case.data(24);
    session.start(from, &optimizer, 4);
    (0..7u32)
        .map(|number| {
            let step = Step {
                optimizer,
                rate: 0.05,
                number: number.into(),
                max_norm: clip,
                proximal_mu: 0.01,
                anchor: from,
            };
            let rows = [3 * number, 3 * number + 2, 1, 5];
            let loss = session.step(&data, &rows, &step, &mut stream(5));
            assert!(loss.expect("good examples").is_finite());
            session.weights().to_vec()
        })
        .collect()
}

#[test]
fn held_weights_stay_exactly_zero_under_every_optimizer() {
    let case = cnn();
    let qat = Model::new(&case.def, case.model.input(), CLASSES).expect("builds");
    let qat = Arc::new(qat.with_ranges(QatOptions::default()).expect("good"));
    let momentum = Optimizer::Sgd {
        momentum: 0.9,
        nesterov: true,
        weight_decay: 0.01,
    };
    let adam = |decoupled| Optimizer::Adam {
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.1,
        decoupled,
    };
    let sessions = [
        (
            Arc::clone(&case.model),
            Session::new(Arc::clone(&case.model), Kernels::best()),
        ),
        (
            Arc::clone(&qat),
            Session::quantization_aware(qat, Kernels::best(), QatForward::Integer)
                .expect("with ranges"),
        ),
    ];
    for (model, mut session) in sessions {
        let global = start(&model);
        let none = Mask::none(global.values().len());
        let mask = magnitude(&model, global.values(), 0.7, Scope::Layer, &none).expect("good");
        let mask = Arc::new(mask);
        for optimizer in [Optimizer::SGD, momentum, adam(false), adam(true)] {
            for clip in [None, Some(0.05)] {
                session.hold(Some(Arc::clone(&mask)));
                let held = train(&mut session, &case, global.values(), optimizer, clip);
                for weights in &held {
                    let zeros = weights
                        .iter()
                        .enumerate()
                        .filter(|(at, _)| mask.contains(*at));
                    assert!(
                        zeros
                            .map(|(_, value)| value.to_bits())
                            .all(|bits| bits == 0)
                    );
                }
                assert_ne!(held[0], held[6], "the others move");
                session.hold(None);
                let free = train(&mut session, &case, global.values(), optimizer, clip);
                assert_ne!(free[6], held[6]);
                assert!(sparsity(&model, &free[6]).expect("good") < 0.01);
            }
        }
    }
}

/// Plain SGD under a mask is plain SGD from zeroed weights that are zeroed after each step; with
/// clipping the norm is that of the gradient without what is held.
#[test]
fn a_held_step_is_what_it_should_be() {
    let case = cnn();
    let global = start(&case.model);
    let none = Mask::none(global.values().len());
    let mask = magnitude(&case.model, global.values(), 0.5, Scope::Global, &none).expect("good");
    let data = case.data(8);
    let step = |number, max_norm| Step {
        optimizer: Optimizer::SGD,
        rate: 0.05,
        number,
        max_norm,
        proximal_mu: 0.0,
        anchor: &[],
    };
    let mut held = Session::new(Arc::clone(&case.model), Kernels::best());
    held.hold(Some(Arc::new(mask.clone())));
    held.start(global.values(), &Optimizer::SGD, 4);
    let mut free = Session::new(Arc::clone(&case.model), Kernels::best());
    let mut weights = global.values().to_vec();
    mask.apply(&mut weights);
    for (number, rows) in [[0u32, 3, 5, 1], [2, 4, 6, 7]].iter().enumerate() {
        let plain = step(number as u64, None);
        held.step(&data, rows, &plain, &mut stream(5))
            .expect("good examples");
        free.start(&weights, &Optimizer::SGD, 4);
        free.step(&data, rows, &plain, &mut stream(5))
            .expect("good examples");
        weights.copy_from_slice(free.weights());
        mask.apply(&mut weights);
        assert_eq!(held.weights(), weights, "step {number}");
    }
    let rows = [1u32, 2, 3, 4];
    free.start(&weights, &Optimizer::SGD, 4);
    free.gradient(&data, &rows, &mut stream(5))
        .expect("good examples");
    let mut gradient = free.gradients().to_vec();
    mask.apply(&mut gradient);
    let norm = gradient
        .iter()
        .map(|g| f64::from(*g).powi(2))
        .sum::<f64>()
        .sqrt();
    let most = norm as f32 / 3.0;
    held.step(&data, &rows, &step(2, Some(most)), &mut stream(5))
        .expect("good examples");
    for ((found, was), gradient) in held.weights().iter().zip(&weights).zip(&gradient) {
        let expected = was - 0.05 * gradient / 3.0;
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    }
}
