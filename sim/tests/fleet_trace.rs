//! Recordings of FedScale and FLASH, against what Python reads from the same files.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;

use fl_core::{ClientId, Purpose, RoundId, Seed, Stream, VirtualTime};
use fl_sim::fleet::availability::Life;
use fl_sim::fleet::trace::pickle::{Pickle, PickleFault, Value};
use fl_sim::fleet::trace::{Capacities, Recorded, Traces};
use fl_sim::fleet::{Availability, DeviceConfig, Fleet, Signal, Signals};
use proptest::prelude::*;

fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/fleet");
    std::fs::read(folder.join(name)).unwrap()
}

/// What `make.py` computed.
#[derive(serde::Deserialize)]
struct Expected {
    times: Vec<u64>,
    fedscale: Vec<String>,
    capacity: Vec<(f64, f64)>,
    flash: Vec<String>,
}

fn expected() -> Expected {
    serde_json::from_slice(&fixture("expected.json")).unwrap()
}

/// The device of one recording of `count`.
fn life(index: usize, count: usize) -> Life {
    Life {
        client: ClientId(0),
        zone: 0,
        wifi: false,
        pick: (index as f64 + 0.5) / count as f64,
    }
}

fn seconds(second: u64) -> VirtualTime {
    VirtualTime(second * 1_000_000)
}

#[test]
fn fedscale_says_what_its_own_program_says_in_every_protocol() {
    let expected = expected();
    for protocol in 0..6 {
        let name = format!("behaviour-{protocol}.pkl");
        let traces = Traces::fedscale(&name, &fixture(&name)).unwrap();
        let count = traces.all().len();
        assert_eq!(count, expected.fedscale.len());
        let availability = Availability::Traces(Arc::new(traces));
        for (index, letters) in expected.fedscale.iter().enumerate() {
            for (&second, letter) in expected.times.iter().zip(letters.bytes()) {
                let on = letter == b'1';
                let all = Signals {
                    charging: on,
                    wifi: on,
                    idle: on,
                };
                let found = availability.signals(&life(index, count), seconds(second));
                assert_eq!(found, all, "{name}, client {index} at {second}");
            }
        }
    }
}

#[test]
fn capacities_are_read_in_every_protocol() {
    let expected = expected().capacity;
    for protocol in 0..6 {
        let name = format!("capacity-{protocol}.pkl");
        let capacities = Capacities::fedscale(&name, &fixture(&name)).unwrap();
        let found = capacities
            .all()
            .iter()
            .map(|it| (it.milliseconds, it.kilobits));
        assert_eq!(found.collect::<Vec<_>>(), expected, "{name}");
    }
    // 8 kbit are 1000 bytes.
    let name = "capacity-4.pkl";
    let capacities = Capacities::fedscale(name, &fixture(name)).unwrap();
    let last = capacities.all().last().unwrap();
    assert!((last.bytes_a_second() - 706_000.0).abs() < 1e-6);
    assert!((last.seconds_an_example() - 0.162).abs() < 1e-12);
}

#[test]
fn flash_says_what_its_own_program_says() {
    let expected = expected();
    let traces = Traces::flash("flash.json", &fixture("flash.json")).unwrap();
    let count = traces.all().len();
    assert_eq!(count, expected.flash.len());
    let availability = Availability::Traces(Arc::new(traces));
    for (index, letters) in expected.flash.iter().enumerate() {
        for (&second, letter) in expected.times.iter().zip(letters.bytes()) {
            let bits = letter - b'0';
            let signals = Signals {
                charging: bits & 4 != 0,
                wifi: bits & 2 != 0,
                idle: bits & 1 != 0,
            };
            let found = availability.signals(&life(index, count), seconds(second));
            assert_eq!(found, signals, "client {index} at {second}");
        }
    }
}

/// The end of a stretch is the first moment at which the signal is another one, unless it was followed
/// over several periods.
#[test]
fn a_recorded_stretch_lasts_as_long_as_its_signal() {
    let traces = Traces::flash("flash.json", &fixture("flash.json")).unwrap();
    let count = traces.all().len();
    let periods: Vec<u64> = traces.all().iter().map(|trace| trace.period()).collect();
    let availability = Availability::Traces(Arc::new(traces));
    let mut ended = 0;
    for (index, period) in periods.into_iter().enumerate() {
        let life = life(index, count);
        for &second in &expected().times {
            let at = seconds(second);
            let Ok(until) = availability.until(&life, at, Signals::ALL) else {
                continue;
            };
            let holds = |at| availability.signals(&life, at) == Signals::ALL;
            let last = VirtualTime(until.0 - 1);
            assert!(holds(last) && holds(VirtualTime((at.0 + until.0) / 2)));
            if until.0 - at.0 < 8 * period {
                assert!(!holds(until), "client {index} at {second}");
                ended += 1;
            }
        }
    }
    assert!(ended > 50, "{ended}");
}

#[test]
fn clients_share_recordings_evenly_and_capacities_decide_links() {
    let name = "behaviour-4.pkl";
    let recorded = Recorded::read(name, &fixture(name), Traces::fedscale).unwrap();
    let traces = Arc::clone(recorded.items());
    let count = traces.all().len();
    let name = "capacity-4.pkl";
    let capacities = Recorded::read(name, &fixture(name), Capacities::fedscale).unwrap();
    let config = DeviceConfig {
        traces: Some(recorded),
        capacities: Some(capacities),
        ..DeviceConfig::default()
    };
    let fleet = Fleet::new(&config, Seed(3)).unwrap();
    // A configuration says which recordings it has, by their digest.
    let written = serde_json::to_value(&config).unwrap();
    assert_eq!(
        written["traces"],
        "b9295708749bad82a4ec028b51317b1ee4436cbacc4d667a2dacff04b16c877a"
    );
    let mut counts = vec![0u32; count];
    for client in 0..15_000 {
        let device = fleet.device(ClientId(client));
        let trace = traces.of(device.life().pick);
        let found = traces.all().iter().position(|it| core::ptr::eq(it, trace));
        counts[found.unwrap()] += 1;
        let capacity = device.capacity.unwrap();
        assert!((device.link.up - capacity.bytes_a_second()).abs() < 1e-9);
        assert!((device.link.down - capacity.bytes_a_second()).abs() < 1e-9);
    }
    // 1000 each, standard deviation 31.
    assert!(counts.iter().all(|n| (845..1155).contains(n)), "{counts:?}");
}

/// The value of the test below in protocols 0 to 5, as Python 3.11 writes it.
const VALUES: [&str; 6] = [
    "286470300a56610a70310a286c70320a4e614930310a614930300a61492d310a61493235350a614936353533360a61492d323134373438333634380a614c343631313638363031383432373338373930344c0a614c2d393232333337323033363835343737353830384c0a6146302e310a6146696e660a617356620a70330a28747356630a70340a2849310a7470350a7356640a70360a282849310a49320a7470370a2849310a49320a49330a7470380a2849310a49320a49330a49340a7470390a747031300a73565c75323630330a7031310a565c7530303563205c753030306120270a7031320a732e",
    "7d71002858010000006171015d7102284e4930310a4930300a4affffffff4bff4a000001004a000000804c343631313638363031383432373338373930344c0a4c2d393232333337323033363835343737353830384c0a473fb999999999999a477ff0000000000000655801000000627103295801000000637104284b01747105580100000064710628284b014b02747107284b014b024b03747108284b014b024b034b0474710974710a5803000000e29883710b58050000005c200a2027710c752e",
    "80027d71002858010000006171015d7102284e88894affffffff4bff4a000001004a000000808a0800000000000000408a080000000000000080473fb999999999999a477ff00000000000006558010000006271032958010000006371044b0185710558010000006471064b014b028671074b014b024b03877108284b014b024b034b0474710987710a5803000000e29883710b58050000005c200a2027710c752e",
    "80037d71002858010000006171015d7102284e88894affffffff4bff4a000001004a000000808a0800000000000000408a080000000000000080473fb999999999999a477ff00000000000006558010000006271032958010000006371044b0185710558010000006471064b014b028671074b014b024b03877108284b014b024b034b0474710987710a5803000000e29883710b58050000005c200a2027710c752e",
    "80049581000000000000007d94288c0161945d94284e88894affffffff4bff4a000001004a000000808a0800000000000000408a080000000000000080473fb999999999999a477ff0000000000000658c016294298c0163944b0185948c0164944b014b0286944b014b024b038794284b014b024b034b04749487948c03e29883948c055c200a202794752e",
    "80059581000000000000007d94288c0161945d94284e88894affffffff4bff4a000001004a000000808a0800000000000000408a080000000000000080473fb999999999999a477ff0000000000000658c016294298c0163944b0185948c0164944b014b0286944b014b024b038794284b014b024b034b04749487948c03e29883948c055c200a202794752e",
];

#[test]
fn every_kind_of_value_is_read_in_every_protocol() {
    // Python: pickle.dumps({"a": [None, True, False, -1, 255, 65536, -2**31, 2**62, -2**63, 0.1,
    //   float("inf")], "b": (), "c": (1,), "d": ((1, 2), (1, 2, 3), (1, 2, 3, 4)), "\u2603": "\\ \n '"},
    //   protocol=p)
    for (protocol, text) in VALUES.iter().enumerate() {
        let bytes: Vec<u8> = (0..text.len() / 2)
            .map(|byte| u8::from_str_radix(&text[2 * byte..2 * byte + 2], 16).unwrap())
            .collect();
        let pickle = Pickle::parse(&bytes).unwrap();
        let pairs = pickle.dict(pickle.root()).unwrap();
        let keys: Vec<_> = pairs
            .iter()
            .map(|&(key, _)| pickle.text(key).unwrap())
            .collect();
        assert_eq!(
            keys,
            ["a", "b", "c", "d", "\u{2603}"],
            "protocol {protocol}"
        );
        assert_eq!(
            pickle.list(pairs[0].1).unwrap(),
            [
                Value::None,
                Value::Bool(true),
                Value::Bool(false),
                Value::Int(-1),
                Value::Int(255),
                Value::Int(65536),
                Value::Int(-(1 << 31)),
                Value::Int(1 << 62),
                Value::Int(i64::MIN),
                Value::Float(0.1),
                Value::Float(f64::INFINITY),
            ]
        );
        assert!(pickle.list(pairs[1].1).unwrap().is_empty());
        let ints = |value| {
            let items = pickle.list(value).unwrap().iter();
            items
                .map(|item| item.number().unwrap() as u32)
                .collect::<Vec<_>>()
        };
        assert_eq!(ints(pairs[2].1), [1]);
        let nested = pickle.list(pairs[3].1).unwrap();
        assert_eq!(
            nested.iter().map(|&it| ints(it)).collect::<Vec<_>>(),
            [vec![1, 2], vec![1, 2, 3], vec![1, 2, 3, 4]]
        );
        assert_eq!(pickle.text(pairs[4].1), Some("\\ \n '"));
    }
}

#[test]
fn what_would_run_code_is_refused_by_name() {
    let cases: [(&[u8], &str); 9] = [
        // Python: pickle.dumps(os.system-like call), protocols 0 and 4.
        (b"cos\nsystem\n(S'true'\ntR.", "GLOBAL (an import)"),
        (
            b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
            "STACK_GLOBAL (an import)",
        ),
        (b"(ios\nsystem\n.", "INST (an object)"),
        (b"N)R.", "REDUCE (a call)"),
        (b"N}b.", "BUILD (an object's state)"),
        (b"N)\x81.", "NEWOBJ (an object)"),
        (b"C\x01a.", "SHORT_BINBYTES (bytes)"),
        (b"\x8f.", "EMPTY_SET (a set)"),
        (b"P1\n.", "PERSID (an outside object)"),
    ];
    for (bytes, name) in cases {
        let error = Pickle::parse(bytes).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
        assert!(matches!(error.fault, PickleFault::Refused(_)));
    }
}

#[test]
fn damaged_pickles_are_refused_with_the_place() {
    let deep = [vec![b'('; 300], b"t.".to_vec()].concat();
    let cases: [(&[u8], &str); 16] = [
        (
            b"",
            "the pickle, at byte 0: it ends within an opcode; give the whole file",
        ),
        (b"K", "it ends within BININT1"),
        (b"X\xff\xff\xff\xffa", "it ends within BINUNICODE"),
        (
            b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffa",
            "it ends within BINUNICODE8",
        ),
        (b"\x80\x06N.", "protocol 6 is not known"),
        (b"\xff.", "there is no opcode 0xff"),
        (b".", "STOP does not find what it needs"),
        (b"K\x01K\x02.", "STOP does not find"),
        (b"(K\x01.", "STOP does not find"),
        (b"K\x01a.", "APPEND does not find"),
        (b"}K\x01K\x02K\x03s.", "SETITEM does not find"),
        (b"}(K\x01u.", "SETITEMS does not find"),
        (b"h\x00.", "memo entry 0 is read before it is written"),
        (
            b"\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x01.",
            "more than 64 bits",
        ),
        (b"N.N", "1 bytes follow its end"),
        (&deep, "more than 256 lists are open"),
    ];
    for (bytes, message) in cases {
        let error = Pickle::parse(bytes).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    // A list that holds itself, and one that holds another a thousand times, are harmless.
    assert!(Pickle::parse(b"]\x94h\x00a.").is_ok());
    let many = [b"]\x94].".as_slice()[..2].to_vec(), b"(".to_vec()].concat();
    let many = [many, b"h\x00".repeat(1000), b"t.".to_vec()].concat();
    assert!(Pickle::parse(&many).is_err());
}

#[test]
fn recordings_of_another_form_are_refused_by_client() {
    let cases = [
        (
            "(dI1\n(dS'finish_time'\nI0\nss.",
            "finish_time of client 1 is 0; expected a number above 0",
        ),
        (
            "(dI1\n(dS'x'\nI0\nss.",
            "finish_time of client 1 is not there",
        ),
        (
            "(dS'c'\nNs.",
            "the record of client c is None; expected a dict",
        ),
        (
            "(dI1\n(dS'finish_time'\nI9\nsS'active'\n(lI1\naI2\nasS'inactive'\n(lss.",
            "inactive of client 1 is 0 long; expected as long as `active`",
        ),
        (
            "(dI1\n(dS'finish_time'\nI9\nsS'active'\n(lI-1\nasS'inactive'\n(lss.",
            "active of client 1 is -1; expected a list of times",
        ),
        ("I5\n.", "it holds an integer; expected a dict"),
        ("(d.", "there is no client in it"),
    ];
    for (text, message) in cases {
        let error = Traces::fedscale("file.pkl", text.as_bytes())
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("file.pkl: ") && error.contains(message),
            "{error}"
        );
    }
    let cases = [
        ("[]", "expected an object of clients"),
        (
            r#"{"a":{"messages":"2020-01-01 00:00:00 wifi"}}"#,
            "a message of client a is",
        ),
        (
            r#"{"a":{"messages":"2020-01-32 00:00:00\twifi"}}"#,
            "the time of a message of client a",
        ),
        (
            r#"{"a":{"messages":"2020-01-01 00:00:00\tflying"}}"#,
            r#"a state of client a is "flying""#,
        ),
        (
            r#"{"a":{"messages":"2020-01-01 00:00:00\t101%"}}"#,
            r#"a state of client a is "101%""#,
        ),
        (r#"{"a":{"messages":""}}"#, "at least two messages"),
        (
            r#"{"a":{"messages":"2020-01-01 00:00:00\twifi"}}"#,
            "from the first to the last message",
        ),
        ("{}", "there is no client in it"),
    ];
    for (text, message) in cases {
        let error = Traces::flash("file.json", text.as_bytes())
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("file.json: ") && error.contains(message),
            "{error}"
        );
    }
}

#[test]
fn every_part_of_a_file_is_refused_and_none_does_harm() {
    for protocol in [0, 2, 4] {
        let whole = fixture(&format!("behaviour-{protocol}.pkl"));
        for length in 0..whole.len() {
            assert!(
                Traces::fedscale("part", &whole[..length]).is_err(),
                "{length}"
            );
        }
        // Changed bits may well give another whole file.
        for byte in 0..whole.len() {
            for bit in 0..8 {
                let mut changed = whole.clone();
                changed[byte] ^= 1 << bit;
                drop(Traces::fedscale("changed", &changed));
            }
        }
    }
    let whole = fixture("flash.json");
    for length in (0..whole.len() - 1).step_by(97) {
        assert!(Traces::flash("part", &whole[..length]).is_err(), "{length}");
    }
    let mut stream = Stream::at(Purpose::Testing, Seed(1), RoundId(0), ClientId(0));
    for _ in 0..500 {
        let mut changed = whole.clone();
        let at = stream.below(changed.len() as u64) as usize;
        changed[at] ^= 1 << stream.below(8);
        drop(Traces::flash("changed", &changed));
    }
}

proptest! {
    /// Whatever the pairs are, a moment is available exactly when a pair holds it, and the end of the
    /// stretch is the next change.
    #[test]
    fn any_pairs_are_read_as_they_are(
        pairs in proptest::collection::vec((0u64..500, 0u64..500), 0..12),
        finish in 1u64..600,
        at in 0u64..5000,
    ) {
        let list = |name: &str, items: Vec<u64>| {
            let items: String = items.iter().map(|item| format!("I{item}\na")).collect();
            format!("S'{name}'\n(l{items}s")
        };
        let text = format!(
            "(dI1\n(dS'finish_time'\nI{finish}\ns{}{}s.",
            list("active", pairs.iter().map(|pair| pair.0).collect()),
            list("inactive", pairs.iter().map(|pair| pair.1).collect()),
        );
        let traces = Traces::fedscale("pairs", text.as_bytes()).unwrap();
        let availability = Availability::Traces(Arc::new(traces));
        let holds = |second: u64| {
            let second = second % finish;
            pairs.iter().any(|&(from, to)| from <= second && second < to)
        };
        let wanted = Signals { charging: true, ..Signals::default() };
        let life = life(0, 1);
        match availability.until(&life, seconds(at), wanted) {
            Err(signal) => {
                prop_assert_eq!(signal, Signal::Charging);
                prop_assert!(!holds(at));
            }
            Ok(until) => {
                let last = until.0.div_ceil(1_000_000).min(at + 8 * finish);
                prop_assert!((at..last).all(holds));
                prop_assert!(until == VirtualTime(u64::MAX) || !holds(last) || last >= at + 7 * finish);
            }
        }
    }
}
