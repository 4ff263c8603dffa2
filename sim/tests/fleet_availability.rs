//! The day of a phone: shares, rhythm, one path; and who may train, against a replay of the day.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use fl_core::{
    BatchSize, ClientId, ExampleOrder, InputSpec, LearningRate, LocalPlan, LocalWork, Optimizer,
    Precision, Purpose, RoundId, Seed, Stream, TargetSpec, VirtualTime,
};
use fl_edge::{Model, ModelDef};
use fl_sim::fleet::availability::{CHARGING, Diurnal, IDLE, Life, Rhythm, WIFI};
use fl_sim::fleet::{
    Availability, Costs, DeviceConfig, Fleet, FleetState, Ineligible, MixConfig, Reason,
    Requirements, Signal, Signals,
};
use proptest::prelude::*;

const HOUR: u64 = 3_600_000_000;
const DAY: u64 = 24 * HOUR;

fn phones(zones: Option<Vec<(f64, f64)>>) -> Fleet {
    let config = DeviceConfig {
        zones,
        ..DeviceConfig::default()
    };
    Fleet::new(&config, Seed(1)).unwrap()
}

fn one_zone() -> Fleet {
    phones(Some(vec![(0.0, 1.0)]))
}

/// A moment on the third day.
fn third_day(half_hours: u64) -> VirtualTime {
    VirtualTime(3 * DAY + half_hours * HOUR / 2)
}

#[test]
fn eligible_phones_of_one_zone_swing_four_to_one() {
    let fleet = one_zone();
    let shares: Vec<f64> = (0..24)
        .map(|hour| {
            let at = |half: u64| fleet.available_share(40_000, third_day(2 * hour + half));
            0.5 * (at(0) + at(1))
        })
        .collect();
    let (least, most) = shares
        .iter()
        .fold((1.0f64, 0.0f64), |(least, most), &share| {
            (least.min(share), most.max(share))
        });
    let mean = shares.iter().sum::<f64>() / 24.0;
    println!(
        "eligible share by hour, one zone: {shares:.4?}; mean {mean:.4}, {least:.4} to {most:.4}"
    );
    // Bonawitz et al. 2019, section 9.
    assert!((3.5..4.5).contains(&(most / least)), "{shares:?}");
    // FLASH's traces: 8.1 %.
    assert!((mean - 0.081).abs() < 0.008, "{mean}");
    // The most at night, the least by day.
    let most_at = shares
        .iter()
        .position(|share| share.to_bits() == most.to_bits())
        .unwrap();
    let least_at = shares
        .iter()
        .position(|share| share.to_bits() == least.to_bits())
        .unwrap();
    assert!((2..=6).contains(&most_at) && (11..=18).contains(&least_at));
}

#[test]
fn the_default_fleet_has_six_to_twelve_per_cent_at_any_hour() {
    // So 10,000 of a million phones are 12 % of those that are eligible, over the day; 8 to 18 % at an hour.
    let fleet = phones(None);
    let shares: Vec<f64> = (0..24)
        .map(|hour| fleet.available_share(40_000, third_day(2 * hour)))
        .collect();
    println!("eligible share by hour, all zones, UTC: {shares:.4?}");
    assert!(
        shares.iter().all(|share| (0.055..0.12).contains(share)),
        "{shares:?}"
    );
    let mean = shares.iter().sum::<f64>() / 24.0;
    assert!((0.075..0.09).contains(&mean), "{mean}");
}

#[test]
fn signals_follow_their_rhythms() {
    let fleet = one_zone();
    let mut held = [[0u32; 3]; 24];
    let (clients, mut wifi) = (20_000, 0);
    for client in 0..clients {
        let has = fleet.device(ClientId(client)).wifi;
        wifi += u32::from(has);
        for (hour, held) in held.iter_mut().enumerate() {
            let signals = fleet.signals(ClientId(client), third_day(2 * hour as u64 + 1));
            held[0] += u32::from(signals.charging);
            held[1] += u32::from(signals.wifi);
            held[2] += u32::from(signals.idle);
            assert!(has || !signals.wifi);
        }
    }
    for (index, rhythm, all) in [
        (0, &CHARGING, clients as u32),
        (1, &WIFI, wifi),
        (2, &IDLE, clients as u32),
    ] {
        for (hour, held) in held.iter().enumerate() {
            let share = f64::from(held[index]) / f64::from(all);
            // A signal lags behind the share towards which it is drawn.
            let near: Vec<f64> = (0..7)
                .map(|back| rhythm.share[(hour + 25 - back) % 24])
                .collect();
            let least = near.iter().copied().fold(1.0, f64::min);
            let most = near.iter().copied().fold(0.0, f64::max);
            assert!(
                share > least - 0.02 && share < most + 0.02,
                "signal {index} at {hour}: {share}, {least} to {most}"
            );
        }
    }
    let mean = |index: usize| {
        let held = held.iter().map(|held| held[index]).sum::<u32>();
        f64::from(held) / f64::from(clients as u32 * 24)
    };
    println!(
        "mean shares: {:.3} charging, {:.3} WiFi, {:.3} idle",
        mean(0),
        mean(1),
        mean(2)
    );
    // Opensignal: about half of the time.
    assert!((0.44..0.52).contains(&mean(1)));
}

#[test]
fn days_join_at_noon() {
    let fleet = one_zone();
    let clients = 100_000;
    let shares = |at: u64| {
        let mut held = [0u32; 3];
        for client in 0..clients {
            let signals = fleet.signals(ClientId(client), VirtualTime(at));
            held[0] += u32::from(signals.charging);
            held[1] += u32::from(signals.wifi);
            held[2] += u32::from(signals.idle);
        }
        held.map(|held| f64::from(held) / clients as f64)
    };
    let noon = 3 * DAY + 12 * HOUR;
    let (before, after) = (shares(noon - 1), shares(noon));
    for (before, after) in before.into_iter().zip(after) {
        // Five deviations of the difference of two shares.
        assert!(
            (before - after).abs() < 5.0 * (0.5f64 / clients as f64).sqrt(),
            "{before} {after}"
        );
    }
}

/// FLASH's traces: a phone's eligibility correlates with itself by 0.58 after half an hour, 0.42 after
/// an hour.
#[test]
fn eligibility_lasts_about_as_long_as_in_flashs_traces() {
    let fleet = one_zone();
    let (mut half, mut whole, mut count) = (0.0, 0.0, 0.0);
    for client in 0..3000 {
        let series: Vec<f64> = (0..240)
            .map(|step| {
                let at = VirtualTime(DAY + step * HOUR / 2);
                f64::from(u8::from(fleet.holds_until(ClientId(client), at).is_ok()))
            })
            .collect();
        let correlation = |lag: usize| {
            let (a, b) = (&series[..series.len() - lag], &series[lag..]);
            let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
            let (ma, mb) = (mean(a), mean(b));
            let sum = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
                a.iter().zip(b).map(|(&x, &y)| f(x - ma, y - mb)).sum()
            };
            sum(&|x, y| x * y) / (sum(&|x, _| x * x) * sum(&|_, y| y * y)).sqrt()
        };
        if correlation(1).is_finite() && correlation(2).is_finite() {
            half += correlation(1);
            whole += correlation(2);
            count += 1.0;
        }
    }
    let (half, whole) = (half / count, whole / count);
    println!("correlation after 30 and 60 minutes: {half:.3}, {whole:.3}");
    assert!(
        (half - 0.58).abs() < 0.06 && (whole - 0.42).abs() < 0.06,
        "{half} {whole}"
    );
}

/// A constant rhythm is an alternating renewal process in equilibrium: its share is exact, at noon as
/// at any other hour, and what is left of a stretch has the mean m (1 + c^2) / 2 with the squared
/// coefficient of variation c^2 = exp(sigma^2) - 1 (Cox 1962, section 5.2), as long as noon is far.
#[test]
fn a_constant_rhythm_is_in_equilibrium() {
    let rhythm = Rhythm {
        noon: 0.3,
        share: [0.3; 24],
        hours: [0.6; 24],
        sigma: 0.5,
    };
    let days = Diurnal::new(Seed(3), 12.0, [&rhythm, &WIFI, &IDLE]);
    let availability = Availability::Diurnal(Arc::new(days));
    let wanted = Signals {
        charging: true,
        ..Signals::default()
    };
    for hour in [0, 1, 7, 12] {
        let at = VirtualTime(2 * DAY + hour * HOUR);
        let (mut on, mut left) = (0u32, 0.0);
        let clients = 100_000;
        for client in 0..clients {
            let life = Life {
                client: ClientId(client),
                zone: 0,
                wifi: true,
                pick: 0.0,
            };
            if let Ok(until) = availability.until(&life, at, wanted) {
                on += 1;
                left += (until - at).0 as f64 / HOUR as f64;
            }
        }
        let share = f64::from(on) / clients as f64;
        assert!(
            (share - 0.3).abs() < 5.0 * (0.21f64 / clients as f64).sqrt(),
            "{hour}: {share}"
        );
        let expected = 0.6 * 0.25f64.exp() / 2.0;
        let mean = left / f64::from(on);
        assert!(
            (mean - expected).abs() < 0.02 * expected,
            "{hour}: {mean} {expected}"
        );
    }
}

/// The day of a client's signal from noon on, written once more: through the sum of all that passes,
/// hour by hour, which is then inverted.
fn replay(
    rhythm: &Rhythm,
    signal: u64,
    seed: Seed,
    client: ClientId,
    day: u64,
) -> Vec<(bool, u64)> {
    let mut stream = Stream::at(Purpose::DeviceDay, seed, RoundId(4 * day + signal), client);
    // What has passed by each hour, for each state.
    let passed = |on: bool| {
        let mut sums = vec![0.0];
        for hour in 0..24 {
            let clock = (hour + 12) % 24;
            let share = rhythm.share[clock];
            let mean = match on {
                true => rhythm.hours[clock],
                false => rhythm.hours[clock] * (1.0 - share) / share,
            };
            sums.push(sums[hour] + 1.0 / mean);
        }
        sums
    };
    let sums = [passed(false), passed(true)];
    let s = rhythm.sigma;
    let mut on = stream.uniform() < rhythm.noon;
    let part = stream.uniform();
    let mut length = part * (s * stream.normal() + s * s / 2.0).exp();
    let (mut now, mut all) = (0.0f64, Vec::new());
    loop {
        let sums = &sums[usize::from(on)];
        let hour = (now as usize).min(23);
        let target = sums[hour] + (now - hour as f64) * (sums[hour + 1] - sums[hour]) + length;
        let Some(at) = sums.iter().position(|&sum| sum > target) else {
            all.push((on, DAY));
            return all;
        };
        now = (at - 1) as f64 + (target - sums[at - 1]) / (sums[at] - sums[at - 1]);
        all.push((on, (now * HOUR as f64).round() as u64));
        on = !on;
        length = (s * stream.normal() - s * s / 2.0).exp();
    }
}

/// Whether a signal holds at a moment and when that ends, by replays; followed for a day and more.
fn look(rhythm: &Rhythm, signal: u64, seed: Seed, life: &Life, at: u64) -> (bool, u64) {
    // The first noon that counts is that of two days before midnight UTC.
    let local =
        (at + 2 * DAY + 12 * HOUR).wrapping_add_signed(i64::from(life.zone) * 60_000_000) - DAY;
    let (day, since) = (local / DAY, local % DAY);
    let stretches = replay(rhythm, signal, seed, life.client, day);
    let &(on, end) = stretches.iter().find(|&&(_, end)| end > since).unwrap();
    let (mut end, mut until) = (end, at + end - since);
    for ahead in 1..=7 {
        if end < DAY {
            break;
        }
        let next = replay(rhythm, signal, seed, life.client, day + ahead)[0];
        if next.0 != on {
            break;
        }
        end = next.1;
        until += end;
    }
    (on, until)
}

fn costs(fleet: &Fleet) -> Costs {
    let def: ModelDef =
        serde_json::from_str(r#"{"layer":[{"kind":"flatten"},{"kind":"dense"}]}"#).unwrap();
    let input = InputSpec::Real(vec![8, 8, 1]);
    let model = Model::new(&def, &input, TargetSpec::Class { classes: 10 }).unwrap();
    let plan = LocalPlan {
        work: LocalWork::Epochs(core::num::NonZeroU32::MIN),
        batch: BatchSize::Examples(core::num::NonZeroU32::MIN),
        order: ExampleOrder::Shuffled,
        optimizer: Optimizer::SGD,
        learning_rate: LearningRate::constant(0.1),
        max_gradient_norm: None,
        proximal_mu: 0.0,
        precision: Precision::F32,
        privacy: None,
    };
    Costs::new(fleet, &model, &plan, 100).unwrap()
}

/// A million draws of a client of a million and a moment of thirty days: whoever may train has every
/// signal, by the replay, without a break until the end that is said, and no longer; and whoever may
/// not lacks what is said, and nothing that is asked before.
#[test]
fn no_ineligible_client_is_accepted_in_a_million_draws() {
    let fleet = phones(None);
    let (costs, state) = (costs(&fleet), FleetState::default());
    let mut stream = Stream::at(Purpose::Testing, Seed(5), RoundId(0), ClientId(0));
    let mut refused = Ineligible::default();
    let mut accepted = 0u64;
    for _ in 0..1_000_000 {
        let client = ClientId(stream.below(1_000_000));
        let at = stream.below(30 * DAY);
        let examples = stream.below(20);
        let found = fleet.eligible(client, VirtualTime(at), examples, &costs, &state);
        if examples == 0 {
            assert_eq!(found, Err(Reason::Examples));
            refused.count(Reason::Examples);
            continue;
        }
        let life = fleet.device(client).life();
        let mut end = u64::MAX;
        let mut missing = None;
        for (index, rhythm, reason) in [
            (0, &CHARGING, Reason::Charging),
            (1, &WIFI, Reason::Wifi),
            (2, &IDLE, Reason::Idle),
        ] {
            if index == 1 && !life.wifi {
                missing = Some(reason);
                break;
            }
            let (on, until) = look(rhythm, index, Seed(1), &life, at);
            if !on {
                missing = Some(reason);
                break;
            }
            end = end.min(until);
        }
        match (found, missing) {
            (Err(reason), Some(missing)) => {
                assert_eq!(reason, missing, "client {client} at {at}");
                refused.count(reason);
            }
            (Ok(until), None) => {
                // Both round to a microsecond, by different sums.
                assert!(
                    until.0.abs_diff(end) <= 2,
                    "client {client} at {at}: {until} {end}"
                );
                accepted += 1;
            }
            _ => panic!("client {client} at {at}: {found:?} but {missing:?} is missing"),
        }
    }
    println!(
        "accepted {accepted}; {:?}",
        refused.iter().collect::<Vec<_>>()
    );
    assert_eq!(accepted + refused.total(), 1_000_000);
    assert!((60_000..110_000).contains(&accepted));
    assert_eq!(refused.of(Reason::Memory) + refused.of(Reason::Battery), 0);
}

#[test]
fn what_is_not_asked_for_is_not_needed() {
    let config = DeviceConfig {
        requirements: Requirements {
            charging: false,
            idle: false,
            ..Requirements::default()
        },
        ..DeviceConfig::default()
    };
    let fleet = Fleet::new(&config, Seed(1)).unwrap();
    for client in 0..5000 {
        let client = ClientId(client);
        let signals = fleet.signals(client, third_day(5));
        let held = fleet.holds_until(client, third_day(5));
        assert_eq!(held.is_ok(), signals.wifi);
        assert!(held.is_ok() || held == Err(Signal::Wifi));
    }
    let lab = DeviceConfig {
        mix: MixConfig::Named("jetson-lab".to_owned()),
        ..DeviceConfig::default()
    };
    let lab = Fleet::new(&lab, Seed(1)).unwrap();
    let forever = Ok(VirtualTime(u64::MAX));
    assert_eq!(lab.holds_until(ClientId(5), VirtualTime(77)), forever);
    assert_eq!(
        lab.signals(ClientId(5), VirtualTime(u64::MAX)),
        Signals::ALL
    );
}

#[test]
fn zones_shift_the_day_and_the_start_hour_does_too() {
    // Noon in Auckland's summer is 23 o'clock UTC the day before.
    let east = phones(Some(vec![(13.0, 1.0)]));
    let utc = one_zone();
    let shifted = DeviceConfig {
        zones: Some(vec![(0.0, 1.0)]),
        start_hour: 13.0,
        ..DeviceConfig::default()
    };
    let shifted = Fleet::new(&shifted, Seed(1)).unwrap();
    for client in 0..3000 {
        let client = ClientId(client);
        let at = VirtualTime(5 * DAY + client.0 * 20 * 60_000_000);
        let later = VirtualTime(at.0 + 13 * HOUR);
        // The same local moment, so the same path; ends are thirteen hours apart.
        let here = utc
            .holds_until(client, later)
            .map(|until| until.0 - 13 * HOUR);
        assert_eq!(east.holds_until(client, at).map(|until| until.0), here);
        assert_eq!(shifted.holds_until(client, at).map(|until| until.0), here);
    }
}

#[test]
fn the_first_days_are_frozen() {
    // Made by this program, version 0.1.0: clients 0 to 19 at 1, 3 and 13 o'clock of the first day.
    let fleet = phones(None);
    let mut text = String::new();
    for client in 0..20 {
        let client = ClientId(client);
        for hour in [1, 3, 13] {
            let signals = fleet.signals(client, VirtualTime(hour * HOUR));
            let bits = [signals.charging, signals.wifi, signals.idle];
            let number = bits.iter().fold(0, |sum, &bit| 2 * sum + u32::from(bit));
            text.push_str(&number.to_string());
        }
        text.push(' ');
    }
    assert_eq!(text, FROZEN);
    let device = fleet.device(ClientId(42));
    let found = format!(
        "{} {} {:.9} {} {:.3} {:.3}",
        fleet.profile(&device).name,
        device.npu,
        device.speed,
        device.zone,
        device.link.down,
        device.link.up
    );
    assert_eq!(found, FROZEN_DEVICE);
}

const FROZEN: &str =
    "331 733 111 111 373 551 114 133 551 155 037 001 313 733 111 110 114 015 322 115 ";
const FROZEN_DEVICE: &str = "mid-20 false 0.889872659 60 4681548.940 2125211.369";

proptest! {
    /// Whatever the moment, the answers belong to one path: inside a stretch the end is the same from
    /// every moment, and at the end the signal is another one.
    #[test]
    fn moments_belong_to_one_path(client in 0u64..1_000_000, at in 0u64..100 * DAY, part in 0.0f64..1.0) {
        let fleet = phones(None);
        let (life, at) = (fleet.device(ClientId(client)).life(), VirtualTime(at));
        let Availability::Diurnal(_) = fleet.availability() else { unreachable!() };
        for signal in Signal::ALL {
            let wanted = Signals {
                charging: signal == Signal::Charging,
                wifi: signal == Signal::Wifi,
                idle: signal == Signal::Idle,
            };
            let until = |at| fleet.availability().until(&life, at, wanted);
            if let Ok(end) = until(at) {
                prop_assert!(end > at);
                let inside = VirtualTime(at.0 + ((end - at).0 as f64 * part) as u64);
                prop_assert_eq!(until(inside), Ok(end));
                prop_assert_eq!(until(VirtualTime(end.0 - 1)), Ok(end));
                prop_assert_eq!(until(end), Err(signal));
            }
        }
    }

    /// No moment and no zone is too far away.
    #[test]
    fn any_moment_has_an_answer(client in any::<u64>(), at in any::<u64>(), zone in -720i32..=840) {
        let availability = Availability::diurnal(Seed(1), 23.99);
        let life = Life { client: ClientId(client), zone, wifi: true, pick: 0.0 };
        if let Ok(until) = availability.until(&life, VirtualTime(at), Signals::ALL) {
            prop_assert!(until.0 >= at);
        }
    }
}
