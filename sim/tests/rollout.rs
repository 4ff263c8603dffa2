//! Rollouts from end to end: both forms of the fleet, the way back, traffic, and what is told.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use fl_core::{ClientId, Examples as _, Purpose, RoundId, Seed, ServedModel as _, Stream};
use fl_datasets::partition::Iid;
use fl_datasets::{ClientScratch, DataRoot, DatasetConfig, FederatedDataset, PartitionConfig};
use fl_edge::file::ModelFile;
use fl_edge::{Model, ModelDef, Observed, Served};
use fl_sim::checkpoint::ServedFile;
use fl_sim::rollout::fault::scrambled;
use fl_sim::rollout::{
    Day, Form, Guard, Metric, Notice, Plan, Reason, Registry, ServerConfig, VersionId,
    VersionState, play,
};
use fl_sim::{CalibrationConfig, Engine};
use fl_versions::{Digest, Version};

/// Versions of `bytes`; from each of the `depth` before it a patch of `share` of that.
fn registry(versions: u16, bytes: u64, depth: u16, share: f64) -> Registry {
    let mut registry = Registry::new(0, None);
    for n in 0..versions {
        let version = Version {
            digest: Digest([n as u8 + 1; 32]),
            bytes,
        };
        let patches: Vec<_> = (n.saturating_sub(depth)..n)
            .map(|from| (VersionId(from), (bytes as f64 * share) as u64))
            .collect();
        registry
            .publish_sizes(version, u64::from(n), &patches)
            .unwrap();
    }
    registry
}

/// Accuracies of versions on 50 clients, around these means.
fn metric(means: &[f64]) -> Metric {
    let versions: Vec<Vec<u32>> = means
        .iter()
        .map(|mean| {
            let value = |client: u32| mean + (f64::from(client % 11) - 5.0) * 0.02;
            (0..50)
                .map(|client| (value(client).clamp(0.0, 1.0) * 1e6) as u32)
                .collect()
        })
        .collect();
    Metric::known(&versions).unwrap()
}

fn plan(devices: u64, form: Form) -> Plan {
    Plan {
        devices,
        days: 12,
        step_hours: 2,
        check_ins_per_day: 2.0,
        offline: 0.2,
        offline_hours: 30.0,
        interrupted: 0.3,
        failed: 0.1,
        release_hours: 24,
        server: ServerConfig {
            stages: vec![0.1, 0.5, 1.0],
            control: 0.1,
            min_group: 10,
            guard: Guard {
                min_reports: 40,
                look_hours: 12,
                ..Guard::default()
            },
        },
        form,
    }
}

fn notices(days: &[Day]) -> Vec<Notice> {
    let notices = days.iter().flat_map(|day| &day.notices);
    notices.map(|(_, notice)| *notice).collect()
}

/// Everything that the two forms count, of each version on one day.
fn figures(day: &Day) -> Vec<f64> {
    let mut figures = Vec::new();
    for version in &day.versions {
        let told = [
            version.devices,
            version.offline,
            version.check_ins,
            version.installed,
            version.interrupted,
            version.failed,
            version.restored,
            version.reports,
        ];
        figures.extend(told.map(|told| told.0.unwrap_or(0) as f64));
        figures.extend([version.bytes_full as f64, version.bytes_patch as f64]);
    }
    figures
}

/// Runs of one form with different seeds: the figures of each of `days`, and the hour of the second
/// notice, the end of the first stage.
fn sample(form: Form, runs: u64, means: &[f64], days: &[usize]) -> (Vec<Vec<Vec<f64>>>, Vec<u64>) {
    let mut plan = plan(600, form);
    plan.server.min_group = 2;
    let metric = metric(means);
    let mut found = vec![Vec::new(); days.len()];
    let mut hours = Vec::new();
    for seed in 0..runs {
        let registry = registry(means.len() as u16, 1000, 1, 0.3);
        let record = play(&plan, Seed(seed), registry, &metric).unwrap();
        for (found, &day) in found.iter_mut().zip(days) {
            found.push(figures(&record[day]));
        }
        let mut notices = record.iter().flat_map(|day| &day.notices);
        hours.push(notices.nth(1).map_or(u64::MAX, |(hour, _)| *hour));
    }
    (found, hours)
}

/// Mean and variance of a figure, each with the square of its standard error (Cramér 1946,
/// "Mathematical Methods of Statistics", section 27.4).
fn moments(runs: &[Vec<f64>], figure: usize) -> [(f64, f64); 2] {
    let values = || runs.iter().filter_map(|run| run.get(figure));
    let n = runs.len() as f64;
    let mean = values().sum::<f64>() / n;
    let central = |power| {
        values()
            .map(|value| (value - mean).powi(power))
            .sum::<f64>()
            / n
    };
    let (second, fourth) = (central(2), central(4));
    [(mean, second / n), (second, (fourth - second * second) / n)]
}

#[test]
fn both_forms_have_the_same_law() {
    // A good version and then a bad one: stages, regrouping, the cache and the way back.
    let (runs, days) = (600, [0, 3, 6, 9]);
    let means = [0.8, 0.8, 0.3];
    let (played, played_hours) = sample(Form::Devices, runs, &means, &days);
    let (counted, counted_hours) = sample(Form::Counts, runs, &means, &days);
    let mut compared = 0;
    for (day, (played, counted)) in days.iter().zip(played.iter().zip(&counted)) {
        let figures = played.iter().map(Vec::len).max().unwrap();
        for figure in 0..figures {
            let pairs = moments(played, figure)
                .into_iter()
                .zip(moments(counted, figure));
            for (what, (a, b)) in ["means", "variances"].iter().zip(pairs) {
                let error = (a.1 + b.1).sqrt();
                assert!(
                    (a.0 - b.0).abs() <= 4.5 * error + 1e-9,
                    "day {day}, figure {figure}: {what} {} and {}, error {error}",
                    a.0,
                    b.0
                );
                compared += 1;
            }
        }
    }
    assert!(compared >= 150, "{compared}");
    // When the first stage ends, by Pearson's chi-square for two samples of one size.
    let mut counts = std::collections::BTreeMap::<u64, [f64; 2]>::new();
    for (form, hours) in [played_hours, counted_hours].iter().enumerate() {
        for &hour in hours {
            counts.entry(hour).or_default()[form] += 1.0;
        }
    }
    let mut rare = [0.0; 2];
    let mut chi = 0.0f64;
    let mut cells = 0.0f64;
    let mut add = |[a, b]: [f64; 2]| {
        chi += (a - b) * (a - b) / (a + b);
        cells += 1.0;
    };
    for count in counts.into_values() {
        if count[0] + count[1] < 10.0 {
            rare = [rare[0] + count[0], rare[1] + count[1]];
        } else {
            add(count);
        }
    }
    if rare[0] + rare[1] > 0.0 {
        add(rare);
    }
    assert!(
        cells >= 3.0 && chi < cells + 5.0 * (2.0 * cells).sqrt(),
        "{chi} of {cells}"
    );
}

#[test]
fn the_same_plan_gives_the_same_record_and_nobody_is_lost() {
    for form in [Form::Devices, Form::Counts] {
        let run = |seed| {
            let registry = registry(3, 1000, 1, 0.3);
            play(
                &plan(2000, form),
                Seed(seed),
                registry,
                &metric(&[0.8, 0.8, 0.3]),
            )
            .unwrap()
        };
        let days = run(5);
        assert_eq!(days, run(5));
        assert_ne!(days, run(6));
        for day in &days {
            // Whatever was told: groups that are too small hide fewer than ten devices each.
            let told: u64 = day.versions.iter().filter_map(|it| it.devices.0).sum();
            let hidden = day.versions.iter().filter(|it| it.devices.0.is_none());
            assert!(told <= 2000 && told + 9 * hidden.count() as u64 >= 2000);
        }
    }
}

#[test]
fn a_bad_version_stays_in_the_first_stage_and_goes_back_everywhere() {
    for (form, devices) in [(Form::Devices, 4000), (Form::Counts, 50_000_000)] {
        for seed in 0..20 {
            let registry = registry(2, 1000, 1, 0.3);
            let metric = metric(&[0.8, 0.4]);
            let days = play(&plan(devices, form), Seed(seed), registry, &metric).unwrap();
            let bad = VersionId(1);
            let expected = [
                Notice::Began {
                    version: bad,
                    stage: 0,
                },
                Notice::Withdrawn {
                    version: bad,
                    stage: 0,
                    reason: Reason::Worse,
                },
            ];
            assert_eq!(notices(&days), expected, "{form:?}, seed {seed}");
            let most = days.iter().filter_map(|day| day.versions.get(1)?.devices.0);
            let most = most.max().unwrap() as f64;
            let stage = 0.1 * devices as f64;
            assert!(most <= stage + 5.0 * stage.sqrt(), "{most}");
            let last = &days.last().unwrap().versions[1];
            assert_eq!(last.state, VersionState::Withdrawn);
            // Who was offline all the time may still have it.
            let left = last.devices.0.unwrap_or(9) as f64;
            assert!(left <= 0.01 * stage + 9.0, "{left} of {stage}");
            // The way back came from caches alone: nothing of the old version was loaded.
            let restored: u64 = days
                .iter()
                .filter_map(|day| day.versions[0].restored.0)
                .sum();
            let loaded: u64 = days.iter().map(|day| day.versions[0].bytes_full).sum();
            assert!(restored > 0 && loaded == 0, "{restored}, {loaded}");
        }
    }
}

#[test]
fn a_good_version_becomes_everybodys() {
    for (form, devices) in [(Form::Devices, 4000), (Form::Counts, 50_000_000)] {
        let registry = registry(2, 1000, 1, 0.3);
        let days = play(
            &plan(devices, form),
            Seed(2),
            registry,
            &metric(&[0.8, 0.81]),
        )
        .unwrap();
        let completed = Notice::Completed {
            version: VersionId(1),
        };
        assert_eq!(notices(&days).last(), Some(&completed));
        let last = &days.last().unwrap().versions;
        assert!(last[1].devices.0.unwrap() as f64 > 0.98 * devices as f64);
        // Each device loads the patch, whole and once; failed ones load it again, and what is under
        // way is not installed yet.
        let sum = |of: fn(&fl_sim::rollout::VersionDay) -> u64| -> u64 {
            days.iter().map(|day| of(&day.versions[1])).sum()
        };
        let bytes = sum(|it| it.bytes_patch) as f64;
        let whole = sum(|it| it.installed.0.unwrap_or(0) + it.failed.0.unwrap_or(0)) as f64;
        assert_eq!(sum(|it| it.bytes_full), 0);
        assert!(
            bytes >= 300.0 * whole && bytes < 300.0 * 1.02 * whole,
            "{bytes} of {whole}"
        );
    }
}

/// 100 million devices, a tenth of which check in on a day, load 100 MB each: 1 PB a day; with patches
/// the measured share of that.
#[test]
fn a_fleet_of_a_hundred_million_loads_a_petabyte_a_day() {
    let plan = Plan {
        devices: 100_000_000,
        days: 10,
        step_hours: 24,
        check_ins_per_day: 0.1,
        release_hours: 24,
        server: ServerConfig {
            stages: vec![1.0],
            control: 0.0,
            ..ServerConfig::default()
        },
        ..Plan::default()
    };
    let metric = metric(&[0.8; 11]);
    let run = |depth| {
        let registry = registry(11, 100_000_000, depth, 0.07);
        play(&plan, Seed(1), registry, &metric).unwrap()
    };
    let traffic = |day: &Day| -> (u64, u64) {
        let versions = day.versions.iter();
        versions.fold((0, 0), |sum, it| {
            (sum.0 + it.bytes_full, sum.1 + it.bytes_patch)
        })
    };
    for (full, patched) in run(0).iter().zip(run(10)) {
        let (full_bytes, no_patches) = traffic(full);
        assert_eq!(no_patches, 0);
        // Every device that checks in loads: 10 million of them, with a standard deviation of 3000.
        let check_ins: u64 = full.versions.iter().filter_map(|it| it.check_ins.0).sum();
        assert_eq!(full_bytes, check_ins * 100_000_000);
        assert!(
            (full_bytes as f64 / 1e15 - 1.0).abs() < 5.0 * 3e-4,
            "{full_bytes}"
        );
        let (none, patch_bytes) = traffic(&patched);
        assert_eq!(none, 0);
        assert_eq!(
            patch_bytes * 100,
            full_bytes * 7,
            "the same devices, 7 % of the bytes"
        );
    }
}

#[test]
fn a_device_always_has_a_whole_version() {
    // Nothing ever arrives whole, or nothing can be installed: everybody goes on with what there is.
    for (interrupted, failed) in [(0.999_999_999, 0.0), (0.0, 0.999_999_999)] {
        for form in [Form::Devices, Form::Counts] {
            let plan = Plan {
                interrupted,
                failed,
                days: 20,
                ..plan(1000, form)
            };
            let registry = registry(2, 1000, 1, 0.3);
            let days = play(&plan, Seed(1), registry, &metric(&[0.8, 0.8])).unwrap();
            let last = days.last().unwrap();
            assert_eq!(last.versions[0].devices.0, Some(1000));
            // A version that nobody can install is withdrawn, undecided.
            let withdrawn = Notice::Withdrawn {
                version: VersionId(1),
                stage: 0,
                reason: Reason::Undecided,
            };
            assert_eq!(notices(&days).last(), Some(&withdrawn));
        }
    }
}

#[test]
fn groups_that_are_too_small_are_not_told() {
    let mut plan = plan(400, Form::Devices);
    plan.server.min_group = 60;
    plan.days = 3;
    let registry = registry(2, 1000, 1, 0.3);
    let days = play(&plan, Seed(1), registry, &metric(&[0.8, 0.8])).unwrap();
    for day in &days {
        for version in &day.versions {
            for told in [
                version.devices,
                version.check_ins,
                version.installed,
                version.reports,
            ] {
                assert!(told.0.is_none_or(|count| count == 0 || count >= 60));
            }
            let reports = version.reports.0.unwrap_or(0);
            assert_eq!(version.metric.is_some(), reports >= 60);
        }
    }
    // The first stage holds some 40 devices: nothing of them is told, and nothing is concluded.
    assert_eq!(days[2].versions[1].devices.0, None);
    assert_eq!(days[2].stage, Some(0.1));
}

#[test]
fn plans_out_of_range_are_refused() {
    type Case = (&'static str, fn(&mut Plan));
    let cases: [Case; 13] = [
        ("devices", |plan| plan.devices = 0),
        ("devices", |plan| plan.devices = 1_000_000_000_001),
        ("devices", |plan| {
            (plan.devices, plan.form) = (10_000_001, Form::Devices);
        }),
        ("days", |plan| plan.days = 0),
        ("step_hours", |plan| plan.step_hours = 5),
        ("step_hours", |plan| plan.step_hours = 0),
        ("check_ins_per_day", |plan| plan.check_ins_per_day = 12.1),
        ("check_ins_per_day", |plan| {
            plan.check_ins_per_day = f64::NAN
        }),
        ("offline", |plan| plan.offline = 1.0),
        ("offline_hours", |plan| plan.offline_hours = 1.0),
        ("interrupted", |plan| plan.interrupted = -0.1),
        ("failed", |plan| plan.failed = 1.0),
        ("release_hours", |plan| plan.release_hours = 1),
    ];
    for (key, change) in cases {
        let mut plan = plan(10, Form::Auto);
        change(&mut plan);
        let error = plan.check().unwrap_err().to_string();
        assert!(error.starts_with(&format!("rollout.{key} is")), "{error}");
        assert!(play(&plan, Seed(1), registry(1, 1, 0, 0.0), &metric(&[0.5])).is_err());
    }
    let error = play(
        &plan(10, Form::Auto),
        Seed(1),
        registry(2, 1, 0, 0.0),
        &metric(&[0.5]),
    );
    assert!(error.is_err(), "a version without a metric");
    assert!(Metric::known(&[]).is_err());
    assert!(Metric::known(&[vec![1], vec![]]).is_err());
    assert!(Metric::known(&[vec![1_000_001]]).is_err());
}

/// Files of two real models, and the population that they fit.
fn real() -> (Vec<ServedFile>, FederatedDataset) {
    let config =
        DatasetConfig::new("digits").with_partition(PartitionConfig::Iid(Iid { clients: 12 }));
    let config = DatasetConfig {
        holdout: Some(0.25),
        ..config
    };
    let root = DataRoot::from_env().unwrap();
    let data = fl_datasets::load(&config, &root, Seed(1)).unwrap();
    let def = ModelDef::named("logreg").unwrap();
    let model = Arc::new(Model::new(&def, data.input(), data.target()).unwrap());
    let mut scratch = ClientScratch::default();
    let files = [1, 2].map(|seed| {
        let address = |seed| Stream::at(Purpose::ModelInit, Seed(seed), RoundId(0), ClientId(0));
        let parameters = model.init(&mut address(seed));
        let train = data.train(ClientId(0), &mut scratch);
        let samples = Observed::Examples(&train);
        let calibration = CalibrationConfig::default();
        let served = Engine::serve_int8(&model, &parameters, samples, &calibration).unwrap();
        ServedFile {
            round: seed,
            bytes: Arc::new(served.file().unwrap()),
        }
    });
    (files.to_vec(), data)
}

#[test]
fn what_devices_report_is_the_accuracy_of_the_file_they_run() {
    let (files, data) = real();
    let metric = Metric::measure(&files, &data, 100, Seed(1)).unwrap();
    assert_eq!(metric.clients(), 12);
    let mut scratch = ClientScratch::default();
    for (version, file) in files.iter().enumerate() {
        let opened = ModelFile::open(file.bytes.clone()).unwrap();
        let model = Served::new(Arc::new(opened.program().unwrap()));
        for client in 0..12 {
            let test = data.client_test(ClientId(client), &mut scratch).unwrap();
            let score = model.evaluate(&test, 0..test.len()).unwrap();
            let found = metric.value(VersionId(version as u16), client);
            assert_eq!(u64::from(found), (score.accuracy() * 1e6).round() as u64);
        }
    }
    // Fewer clients than there are: a sample of them.
    let few = Metric::measure(&files, &data, 5, Seed(1)).unwrap();
    assert_eq!(few.clients(), 5);
    // Without held-out examples of clients, pieces of the central test set of 20 or more.
    let config =
        DatasetConfig::new("digits").with_partition(PartitionConfig::Iid(Iid { clients: 12 }));
    let central = fl_datasets::load(&config, &DataRoot::from_env().unwrap(), Seed(1)).unwrap();
    if let Some(test) = central.test() {
        let metric = Metric::measure(&files, &central, 1000, Seed(1)).unwrap();
        assert_eq!(metric.clients(), test.len().div_ceil(20) as u64);
    }
}

#[test]
fn a_scrambled_file_is_whole_and_another_one() {
    let (files, _) = real();
    let bad = scrambled(&files[0]).unwrap();
    assert_ne!(bad.bytes, files[0].bytes);
    assert_eq!(bad.bytes.len(), files[0].bytes.len());
    fl_sim::distribution::check_model(&bad.bytes).unwrap();
    // Twice is as it was.
    assert_eq!(scrambled(&bad).unwrap().bytes, files[0].bytes);
    let broken = ServedFile {
        round: 3,
        bytes: Arc::new(vec![1, 2, 3]),
    };
    let error = scrambled(&broken).unwrap_err().to_string();
    assert!(
        error.starts_with("the int8 model after round 3 cannot be rolled out: "),
        "{error}"
    );
    assert!(Metric::measure(&[broken], &real().1, 5, Seed(1)).is_err());
}
