//! Populations of devices: configurations, shares, speeds and links.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use fl_core::{ClientId, Purpose, RoundId, Seed, Stream};
use fl_edge::device::Threads;
use fl_edge::device::profile::Class;
use fl_sim::fleet::mix::{DefaultRhythm, MIXES};
use fl_sim::fleet::{Device, DeviceConfig, Direction, Fleet, Mix, MixConfig};

fn named(name: &str) -> MixConfig {
    MixConfig::Named(name.to_owned())
}

fn shares(shares: &[(&str, f64)]) -> MixConfig {
    let shares = shares.iter();
    MixConfig::Shares(
        shares
            .map(|&(name, share)| (name.to_owned(), share))
            .collect(),
    )
}

fn fleet(mix: MixConfig) -> Fleet {
    let config = DeviceConfig {
        mix,
        ..DeviceConfig::default()
    };
    Fleet::new(&config, Seed(1)).unwrap()
}

fn stream(client: u64) -> Stream {
    Stream::at(
        Purpose::DeviceSession,
        Seed(1),
        RoundId(0),
        ClientId(client),
    )
}

fn quantile(sorted: &[f64], share: f64) -> f64 {
    sorted[(share * sorted.len() as f64) as usize]
}

fn close(found: f64, expected: f64, share: f64) {
    assert!(
        (found - expected).abs() <= share * expected.abs(),
        "{found} is not within {share} of {expected}"
    );
}

#[test]
fn every_embedded_mix_is_read_and_devices_come_in_its_shares() {
    let clients = 100_000;
    for (name, _) in MIXES {
        let fleet = fleet(named(name));
        let members = &fleet.mix().members;
        let mut counts = vec![0u32; members.len()];
        for client in 0..clients {
            counts[fleet.device(ClientId(client)).member] += 1;
        }
        for (member, count) in members.iter().zip(counts) {
            let mean = clients as f64 * member.share;
            let deviation = (mean * (1.0 - member.share)).sqrt();
            assert!(
                (f64::from(count) - mean).abs() < 5.0 * deviation,
                "{name}: {count} of {} at {}",
                member.profile.name,
                member.share
            );
        }
    }
    assert_eq!(
        Mix::new(&named("phones-2025")).unwrap().threads,
        Threads::One
    );
    assert_eq!(Mix::new(&named("iot")).unwrap().threads, Threads::All);
    assert_eq!(
        Mix::new(&named("jetson-lab")).unwrap().rhythm,
        DefaultRhythm::AlwaysOn
    );
}

#[test]
fn a_single_class_and_own_shares_are_mixes() {
    let alone = Mix::new(&named("mid-20")).unwrap();
    assert_eq!(alone.members.len(), 1);
    assert_eq!(alone.rhythm, DefaultRhythm::Diurnal);
    assert!(alone.variance_between() < 1e-12);
    close(alone.spread_within(), 0.93, 1e-9);
    let two = Mix::new(&shares(&[("mid-20", 0.4), ("flagship-21", 0.6)])).unwrap();
    // Two points at distance d with shares p and q: p q d^2, d = log(68.1 / 27.88).
    let d = (68.1f64 / 27.88).ln();
    close(two.variance_between(), 0.24 * d * d, 1e-9);
    close(
        two.spread_within(),
        (0.93 * 0.93 - 0.24 * d * d).sqrt(),
        1e-9,
    );
    let boards = Mix::new(&shares(&[("mid-20", 0.5), ("sbc-pi-4", 0.5)])).unwrap();
    assert_eq!(boards.rhythm, DefaultRhythm::AlwaysOn);
    assert!(boards.spread_within() < 1e-12);
    assert!(boards.battery(Class::Mid).is_none());
}

#[test]
fn what_there_is_not_is_refused_by_name() {
    let cases = [
        (
            named("phone-2025"),
            "there is no mix and no device class called `phone-2025`; did you mean `phones-2025`?",
        ),
        (named("mid-2O"), "called `mid-2O`; did you mean `mid-20`?"),
        (
            named("a toaster oven"),
            "choose one of phones-2025, iot, jetson-lab, mixed-lab, flagship-24",
        ),
        (
            shares(&[("mid-20", 0.5), ("flagship-12", 0.5)]),
            "names the device class `flagship-12`, which there is not; did you mean `flagship-1",
        ),
        (
            shares(&[("mid-20", 0.5), ("mid-19", 0.4)]),
            "the shares of device classes in the mix `inline` must each be above 0 and at most 1 and \
             add up to 1; they add up to 0.9",
        ),
        (
            shares(&[("mid-20", 1.5), ("mid-19", -0.5)]),
            "they add up to -0.5",
        ),
        (
            shares(&[("mid-20", f64::NAN), ("mid-19", 1.0)]),
            "add up to 1",
        ),
        (shares(&[]), "they add up to 0"),
    ];
    for (mix, message) in cases {
        let error = Mix::new(&mix).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    let config = |change: fn(&mut DeviceConfig)| {
        let mut config = DeviceConfig::default();
        change(&mut config);
        Fleet::new(&config, Seed(1)).unwrap_err().to_string()
    };
    for (error, message) in [
        (
            config(|c| c.npu_share = 1.1),
            "`npu_share` is 1.1; it must be a share between 0 and 1",
        ),
        (
            config(|c| c.speed_sigma = Some(-1.0)),
            "`speed_sigma` is -1; it must be from 0 to 3",
        ),
        (
            config(|c| c.start_hour = 24.0),
            "`start_hour` is 24; it must be at least 0 and below 24",
        ),
        (
            config(|c| c.zones = Some(vec![(15.0, 1.0)])),
            "`zone.utc` is 15; it must be from -12 to 14",
        ),
        (
            config(|c| c.zones = Some(vec![(1.0, 0.5)])),
            "the shares of time zones",
        ),
        (
            config(|c| c.requirements.min_battery = 2.0),
            "`requirements.min_battery` is 2; it must be a share between 0 and 1",
        ),
        (
            config(|c| c.requirements.max_participations = Some(0)),
            "`requirements.max_participations` is 0; it must be at least 1, or left out",
        ),
    ] {
        assert!(error.contains(message), "{error}");
    }
    let (_, text) = MIXES[1];
    for (from, to, message) in [
        (
            "source = \"alike\"",
            "source = \"unlike\"",
            "the source of `speed_spread` names `unlike`",
        ),
        ("value = 60.0", "value = -60.0", "`network.latency` is -60"),
        (
            "p50 = { value = 400.0",
            "p50 = { value = 50.0",
            "`network.down.p50` is 50; it must be between",
        ),
        (
            "threads = \"all\"",
            "threads = \"some\"",
            "unknown variant `some`",
        ),
        ("\nwifi =", "\nwire =", "unknown field `wire`"),
        (
            "name = \"iot\"",
            "name = \"lot\"",
            "it is called `lot` inside",
        ),
    ] {
        assert!(text.contains(from), "{from}");
        let changed = text.replacen(from, to, 1);
        let error = Mix::parse("iot", &changed).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn a_configuration_is_read_and_written() {
    let text = r#"
        mix = { "mid-20" = 0.4, "flagship-21" = 0.6 }
        npu_share = 0.25
        rhythm = "always-on"
        zones = [[-5.0, 0.5], [5.5, 0.5]]
        [requirements]
        idle = false
        max_participations = 3
    "#;
    let config: DeviceConfig = toml::from_str(text).unwrap();
    assert_eq!(config.mix, shares(&[("mid-20", 0.4), ("flagship-21", 0.6)]));
    assert_eq!(config.rhythm, Some(DefaultRhythm::AlwaysOn));
    assert_eq!(config.requirements.max_participations, Some(3));
    assert!(config.requirements.charging && !config.requirements.idle);
    let fleet = Fleet::new(&config, Seed(1)).unwrap();
    assert!((0..100).all(|client| [-300, 330].contains(&fleet.device(ClientId(client)).zone)));
    let again = serde_json::to_string(&config).unwrap();
    assert_eq!(
        serde_json::from_str::<DeviceConfig>(&again).unwrap(),
        config
    );
    assert_eq!(
        toml::from_str::<DeviceConfig>("").unwrap(),
        DeviceConfig::default()
    );
    for (text, message) in [
        ("mix = 5", "expected the name of a mix or device class"),
        ("battery = 5", "unknown field `battery`"),
        ("rhythm = \"weekly\"", "unknown variant `weekly`"),
    ] {
        let error = toml::from_str::<DeviceConfig>(text)
            .unwrap_err()
            .to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn speeds_spread_as_ai_benchmarks_phones_do() {
    let fleet = fleet(MixConfig::default());
    let between = fleet.mix().variance_between();
    assert!(between > 0.1 && between < 0.93 * 0.93, "{between}");
    let (mut sum, mut squares) = (0.0, 0.0);
    let clients = 200_000;
    for client in 0..clients {
        let device = fleet.device(ClientId(client));
        let rate = fleet.profile(&device).cpu.f32.as_ref().unwrap().conv.value;
        let log = (rate * device.speed).ln();
        sum += log;
        squares += log * log;
    }
    let mean = sum / clients as f64;
    let sigma = (squares / clients as f64 - mean * mean).sqrt();
    // 0.93 over 333 phones; four deviations are the most, which takes a thousandth.
    assert!((sigma - 0.93).abs() < 0.01, "{sigma}");
    // And the chosen one where it is given.
    let config = DeviceConfig {
        speed_sigma: Some(0.2),
        ..DeviceConfig::default()
    };
    let fleet = Fleet::new(&config, Seed(1)).unwrap();
    let mut speeds: Vec<f64> = (0..20_000)
        .map(|client| fleet.device(ClientId(client)).speed)
        .collect();
    speeds.sort_by(f64::total_cmp);
    close(quantile(&speeds, 0.5), 1.0, 0.01);
    close(quantile(&speeds, 0.841_345), 0.2f64.exp(), 0.01);
}

#[test]
fn npus_wifi_and_zones_come_in_their_shares() {
    let fleet = fleet(MixConfig::default());
    let (mut with, mut able, mut wifi, mut metered) = (0u32, 0u32, 0u32, 0u32);
    let mut zones = BTreeMap::new();
    for client in 0..100_000 {
        let device = fleet.device(ClientId(client));
        if fleet.profile(&device).npu.is_some() {
            able += 1;
            with += u32::from(device.npu);
        } else {
            assert!(!device.npu);
        }
        assert_eq!(device.lost().is_empty(), device.npu);
        wifi += u32::from(device.wifi);
        metered += u32::from(device.metered);
        *zones.entry(device.zone).or_insert(0u32) += 1;
    }
    assert!((f64::from(with) / f64::from(able) - 0.5).abs() < 0.01);
    assert!((f64::from(wifi) / 1e5 - 0.64).abs() < 0.008, "{wifi}");
    assert!((f64::from(metered) / 1e5 - 0.8).abs() < 0.007, "{metered}");
    assert_eq!(zones.len(), 13);
    assert!(
        (f64::from(zones[&330]) / 1e5 - 0.18).abs() < 0.006,
        "{zones:?}"
    );
    let all = DeviceConfig {
        npu_share: 1.0,
        ..DeviceConfig::default()
    };
    let all = Fleet::new(&all, Seed(1)).unwrap();
    for client in 0..1000 {
        let device = all.device(ClientId(client));
        assert_eq!(device.npu, all.profile(&device).npu.is_some());
        // Nothing else changes with the share.
        let mut other = fleet.device(ClientId(client));
        other.npu = device.npu;
        assert_eq!(device, other);
    }
}

#[test]
fn links_meet_the_quantiles_of_flashs_users() {
    let fleet = fleet(MixConfig::default());
    let devices = (0..300_000).map(|client| fleet.device(ClientId(client)).link);
    let (mut down, mut up): (Vec<f64>, Vec<f64>) = devices
        .map(|link| (link.down / 1024.0, link.up / 1024.0))
        .unzip();
    down.sort_by(f64::total_cmp);
    up.sort_by(f64::total_cmp);
    for (sorted, expected, mean) in [
        (&down, [3177.0, 4318.0, 8886.0], 5410.73),
        (&up, [665.0, 3286.0, 5743.0], 3174.70),
    ] {
        for (share, expected) in [0.1, 0.5, 0.9].into_iter().zip(expected) {
            close(quantile(sorted, share), expected, 0.02);
        }
        // Python: p50 (exp(lo^2 / 2) Phi(-lo) + exp(hi^2 / 2) Phi(hi)).
        close(sorted.iter().sum::<f64>() / sorted.len() as f64, mean, 0.01);
    }
}

#[test]
fn transfers_are_truncated_normal() {
    let fleet = fleet(MixConfig::default());
    let link = fleet.device(ClientId(7)).link;
    // Python: mean 1 + s phi / Z and deviation of a normal number truncated at 0.05.
    for (direction, own, mean, deviation) in [
        (Direction::Down, link.down, 1.013_425, 0.405_867),
        (Direction::Up, link.up, 1.002_325, 0.330_466),
    ] {
        let mut stream = stream(1);
        let (mut sum, mut squares) = (0.0, 0.0);
        let draws = 300_000;
        for _ in 0..draws {
            let share = link.rate(direction, &mut stream) / own;
            assert!(share >= 0.05);
            sum += share;
            squares += share * share;
        }
        let found = sum / f64::from(draws);
        close(found, mean, 0.005);
        close(
            (squares / f64::from(draws) - found * found).sqrt(),
            deviation,
            0.01,
        );
    }
    let mut one = stream(2);
    let rate = link.rate(Direction::Up, &mut stream(2));
    close(
        link.transfer_seconds(Direction::Up, 1_000_000, &mut one),
        0.05 + 1e6 / rate,
        1e-12,
    );
    assert_eq!(
        link.transfer_seconds(Direction::Up, 0, &mut one).to_bits(),
        0
    );
}

#[test]
fn a_device_depends_on_seed_and_client_alone() {
    let first = fleet(MixConfig::default());
    let other = Fleet::new(&DeviceConfig::default(), Seed(2)).unwrap();
    let clients = [0, 1, 7, 999_999, u64::MAX - 1];
    let forward: Vec<Device> = clients.iter().map(|&c| first.device(ClientId(c))).collect();
    let backward: Vec<Device> = clients
        .iter()
        .rev()
        .map(|&c| first.device(ClientId(c)))
        .collect();
    assert!(forward.iter().eq(backward.iter().rev()));
    let differ = (0..100).filter(|&c| first.device(ClientId(c)) != other.device(ClientId(c)));
    assert!(differ.count() > 95);
}
