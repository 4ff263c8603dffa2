use fl_core::testing::assert_fits;
use fl_versions::{Digest, Version};

use super::*;
use crate::rollout::guard::ONE;

const V0: VersionId = VersionId(0);
const V1: VersionId = VersionId(1);
const V2: VersionId = VersionId(2);

/// Versions of 1000 bytes; from each to the next a patch of 300.
fn registry(versions: u16) -> Registry {
    let mut registry = Registry::new(1, None);
    for n in 0..versions {
        let version = Version {
            digest: Digest([n as u8 + 1; 32]),
            bytes: 1000,
        };
        let before: Vec<_> = n
            .checked_sub(1)
            .map(|n| (VersionId(n), 300))
            .into_iter()
            .collect();
        registry
            .publish_sizes(version, u64::from(n) * 10, &before)
            .unwrap();
    }
    registry
}

fn config() -> ServerConfig {
    ServerConfig {
        stages: vec![0.1, 0.5, 1.0],
        control: 0.1,
        min_group: 10,
        guard: Guard {
            min_reports: 50,
            min_hours: 24,
            max_hours: 96,
            look_hours: 12,
            ..Guard::default()
        },
    }
}

fn server(versions: u16) -> Server {
    Server::new(registry(versions), config(), Seed(3)).unwrap()
}

const CONTROL: Group = Group(3);

fn notices(server: &mut Server) -> Vec<Notice> {
    core::iter::from_fn(|| server.poll()).collect()
}

/// Every group that is asked reports `each` times the same shares of right answers.
fn report(server: &mut Server, each: u64, new: f64, old: f64) {
    let stage = server.stage().map(|(stage, _)| stage);
    for group in (0..=3).map(Group) {
        for version in [V0, V1, V2] {
            let Some((release, asked)) = server.asks(group, version) else {
                continue;
            };
            assert_eq!(Some(asked), stage);
            let share = if group == CONTROL { old } else { new };
            let right = (each as f64 * share) as u64;
            let mut reports = Tally::of(ONE, right);
            reports.add(&Tally::of(0, each - right));
            server.handle(Event::Metric {
                release,
                stage: asked,
                group,
                version,
                reports,
            });
        }
    }
}

#[test]
fn stages_nest_and_hold_their_shares() {
    let mut server = server(3);
    server.release(0, V1).unwrap();
    let devices = 40_000;
    let of = |server: &Server| -> Vec<Group> {
        (0..devices).map(|id| server.group(ClientId(id))).collect()
    };
    let first = of(&server);
    // 10 %, up to 50 %, up to all but the control group, and that.
    let shares = server.config().shares();
    for (found, expected) in shares.iter().zip([0.1, 0.4, 0.4, 0.1]) {
        assert!((found - expected).abs() < 1e-12, "{shares:?}");
    }
    let counts: Vec<u64> = (0..4)
        .map(|group| first.iter().filter(|&&found| found == Group(group)).count() as u64)
        .collect();
    let expected: Vec<f64> = shares.iter().map(|share| share * devices as f64).collect();
    assert_fits(&counts, &expected);
    // Who gets the candidate in a stage gets it in all later ones, and the control group never.
    let mut before = 0;
    for stage in 0..3 {
        assert_eq!(server.stage().map(|(stage, _)| stage), Some(stage));
        let admitted: Vec<bool> = (0..devices)
            .map(|id| server.check_in(ClientId(id), Some(V0)) != Offer::Keep)
            .collect();
        for (admitted, group) in admitted.iter().zip(&first) {
            assert_eq!(
                *admitted,
                usize::from(group.0) <= stage && *group != CONTROL
            );
        }
        let count = admitted.iter().filter(|&&one| one).count();
        assert!(count > before);
        before = count;
        report(&mut server, 5000, 0.8, 0.8);
        server.handle_timeout(24 * (stage as u64 + 1));
    }
    assert_eq!(server.current(), V1);
    // The next release shuffles: as many devices stay in their group as by chance.
    server.release(100, V2).unwrap();
    let same = first
        .iter()
        .zip(of(&server))
        .filter(|(a, b)| **a == *b)
        .count() as f64;
    let (expected, deviation) = (0.34 * 40_000.0, libm::sqrt(0.34 * 0.66 * 40_000.0));
    assert!((same - expected).abs() < 5.0 * deviation, "{same}");
}

#[test]
fn a_good_version_goes_through_all_stages() {
    let mut server = server(2);
    assert_eq!(server.poll_timeout(), None);
    server.release(7, V1).unwrap();
    let patch = Offer::Patch {
        from: V0,
        to: V1,
        bytes: 300,
    };
    assert_eq!(server.offer(Group(0), V0), patch);
    assert_eq!(server.offer(Group(1), V0), Offer::Keep);
    assert_eq!(server.offer(CONTROL, V0), Offer::Keep);
    let mut now = 7;
    for stage in 0..3 {
        // Good already at the first look, but a stage lasts 24 hours.
        report(&mut server, 5000, 0.8, 0.8);
        now += 12;
        assert_eq!(server.poll_timeout(), Some(now));
        server.handle_timeout(now - 1);
        server.handle_timeout(now);
        assert_eq!(server.stage().map(|(stage, _)| stage), Some(stage));
        now += 12;
        server.handle_timeout(now);
    }
    let began = |stage| Notice::Began { version: V1, stage };
    let completed = Notice::Completed { version: V1 };
    assert_eq!(
        notices(&mut server),
        [began(0), began(1), began(2), completed]
    );
    assert_eq!(server.registry().state(V0), VersionState::Replaced);
    assert_eq!(server.registry().state(V1), VersionState::Current);
    for group in (0..=3).map(Group) {
        assert_eq!(server.offer(group, V0), patch, "the control group, too");
        assert_eq!(server.offer(group, V1), Offer::Keep);
        assert_eq!(server.asks(group, V1), None);
    }
    assert!(server.release(now, V1).is_err());
    assert!(server.release(now, VersionId(9)).is_err());
}

#[test]
fn a_bad_version_is_withdrawn_at_the_first_look_and_everybody_goes_back() {
    let mut server = server(3);
    server.release(0, V1).unwrap();
    report(&mut server, 200, 0.3, 0.8);
    server.handle_timeout(12);
    let withdrawn = Notice::Withdrawn {
        version: V1,
        stage: 0,
        reason: Reason::Worse,
    };
    assert_eq!(notices(&mut server)[1..], [withdrawn]);
    let back = Offer::Back {
        to: V0,
        bytes: 1000,
    };
    for group in (0..=3).map(Group) {
        assert_eq!(server.offer(group, V1), back);
        assert_eq!(server.offer(group, V0), Offer::Keep);
    }
    // Also while the next release is under way: the way back leads to what is current.
    server.release(13, V2).unwrap();
    assert_eq!(server.offer(Group(0), V1), back);
    let full = Offer::Full {
        version: V2,
        bytes: 1000,
    };
    assert_eq!(server.offer(Group(0), V0), full, "no patch from two before");
    assert_eq!(server.check_in(ClientId(1), None), {
        let group = server.group(ClientId(1));
        let version = if group == Group(0) { V2 } else { V0 };
        server.full(version)
    });
}

#[test]
fn what_cannot_be_decided_is_withdrawn_in_the_end() {
    // Nobody reports; too few report; enough report, but the groups are too small to say anything.
    for (each, quality) in [(0, 0.8), (9, 0.8), (60, 0.5)] {
        let mut server = server(2);
        server.release(0, V1).unwrap();
        report(&mut server, each, quality, quality);
        for now in 0..96 {
            server.handle_timeout(now);
            assert!(server.stage().is_some(), "{each} reports, hour {now}");
        }
        server.handle_timeout(96);
        let withdrawn = Notice::Withdrawn {
            version: V1,
            stage: 0,
            reason: Reason::Undecided,
        };
        assert_eq!(notices(&mut server).last(), Some(&withdrawn));
    }
}

#[test]
fn reports_count_in_the_stage_that_asked() {
    let mut server = server(2);
    server.release(0, V1).unwrap();
    let event = |release, stage, group, version| Event::Metric {
        release,
        stage,
        group,
        version,
        reports: Tally::of(0, 10_000),
    };
    // Of another release or stage, of a group that is not asked, on a version that is not asked about.
    for event in [
        event(0, 0, Group(0), V1),
        event(1, 1, Group(0), V1),
        event(1, 0, Group(1), V1),
        event(1, 0, CONTROL, V1),
        event(1, 0, Group(0), V0),
        event(1, 0, Group(0), VersionId(7)),
    ] {
        server.handle(event);
    }
    report(&mut server, 5000, 0.8, 0.8);
    server.handle_timeout(24);
    assert_eq!(server.stage().map(|(stage, _)| stage), Some(1));
    // The next stage begins with none.
    server.handle_timeout(48);
    assert_eq!(server.stage().map(|(stage, _)| stage), Some(1));
    server.handle(event(1, 0, Group(0), V1));
    report(&mut server, 5000, 0.8, 0.8);
    server.handle_timeout(60);
    assert_eq!(server.stage().map(|(stage, _)| stage), Some(2));
}

/// All orders of what may happen at four looks, against the rules said in words.
#[test]
fn every_course_of_a_release_follows_the_rules() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Reports {
        None,
        Good,
        Bad,
    }
    let all = [Reports::None, Reports::Good, Reports::Bad];
    for course in 0..all.len().pow(5) {
        let mut server = server(2);
        server.release(0, V1).unwrap();
        // (stage, since, good reports, bad reports in the stage); none when it is over.
        let mut expected = Some((0, 0, 0, 0));
        let mut end = None;
        let mut rest = course;
        for look in 1..=5u64 {
            let now = 24 * look;
            let reports = all[rest % all.len()];
            rest /= all.len();
            match reports {
                Reports::None => {}
                Reports::Good => report(&mut server, 5000, 0.8, 0.8),
                Reports::Bad => report(&mut server, 1000, 0.2, 0.8),
            }
            server.handle_timeout(now);
            if let Some((stage, since, mut good, mut bad)) = expected {
                good += u64::from(reports == Reports::Good);
                bad += u64::from(reports == Reports::Bad);
                expected = if bad > 0 {
                    end = Some(Notice::Withdrawn {
                        version: V1,
                        stage,
                        reason: Reason::Worse,
                    });
                    None
                } else if good > 0 && stage == 2 {
                    end = Some(Notice::Completed { version: V1 });
                    None
                } else if good > 0 {
                    Some((stage + 1, now, 0, 0))
                } else if now - since >= 96 {
                    end = Some(Notice::Withdrawn {
                        version: V1,
                        stage,
                        reason: Reason::Undecided,
                    });
                    None
                } else {
                    Some((stage, since, good, bad))
                };
            }
            let stage = expected.map(|(stage, ..)| stage);
            assert_eq!(server.stage().map(|(stage, _)| stage), stage, "{course}");
        }
        if end.is_some() {
            assert_eq!(notices(&mut server).last().copied(), end, "{course}");
        }
    }
}

#[test]
fn releases_wait_for_one_another() {
    let mut server = server(3);
    server.release(0, V1).unwrap();
    server.release(1, V2).unwrap();
    assert!(server.release(2, V2).is_err(), "it waits already");
    assert_eq!(server.newest_release(), 1);
    report(&mut server, 500, 0.2, 0.8);
    server.handle_timeout(12);
    assert_eq!(server.newest_release(), 2);
    assert_eq!(server.registry().state(V2), VersionState::Candidate);
}

#[test]
fn without_a_guard_a_release_is_everybodys_at_once() {
    let config = ServerConfig {
        stages: vec![1.0],
        control: 0.0,
        ..config()
    };
    let mut server = Server::new(registry(3), config, Seed(1)).unwrap();
    for (version, before) in [(V1, V0), (V2, V1)] {
        server.release(5, version).unwrap();
        assert_eq!(server.current(), version);
        assert_eq!(server.stage(), None);
        for device in (0..50).map(ClientId) {
            let patch = Offer::Patch {
                from: before,
                to: version,
                bytes: 300,
            };
            assert_eq!(server.check_in(device, Some(before)), patch);
        }
    }
}

#[test]
fn installations_are_told_of_large_groups_alone() {
    let mut server = server(2);
    let installed = |devices| Event::Installed {
        version: V1,
        devices,
    };
    server.handle(installed(9));
    assert_eq!(server.installations(V1), (None, None));
    server.handle(installed(1));
    server.handle(Event::Failed {
        version: V1,
        devices: 12,
    });
    assert_eq!(server.installations(V1), (Some(10), Some(12)));
    assert_eq!(server.installations(VersionId(5)), (None, None));
}

#[test]
fn values_out_of_range_are_named() {
    assert!(ServerConfig::default().check().is_ok());
    type Case = (&'static str, fn(&mut ServerConfig));
    let cases: [Case; 9] = [
        ("rollout.stages", |it| it.stages.clear()),
        ("rollout.stages", |it| it.stages = vec![0.1, 0.5]),
        ("rollout.stages", |it| it.stages = vec![0.5, 0.1, 1.0]),
        ("rollout.stages", |it| it.stages = vec![0.0, 1.0]),
        ("rollout.stages", |it| it.stages = vec![0.95, 1.0]),
        ("rollout.control", |it| it.control = 0.0),
        ("rollout.control", |it| {
            (it.stages, it.control) = (vec![1.0], 0.5);
        }),
        ("rollout.min_group", |it| it.min_group = 1),
        ("rollout.guard.alpha", |it| it.guard.alpha = 0.7),
    ];
    for (key, change) in cases {
        let mut config = config();
        change(&mut config);
        let error = config.check().unwrap_err().to_string();
        assert!(error.starts_with(&format!("{key} is")), "{error}");
    }
    assert!(Server::new(Registry::new(1, None), config(), Seed(1)).is_err());
}
