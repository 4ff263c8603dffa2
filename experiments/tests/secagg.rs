//! `fledgling secagg` as a person uses it.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn secagg(words: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fledgling"))
        .arg("secagg")
        .args(words.split_whitespace())
        .stdin(Stdio::null())
        .output()
        .expect("the program starts")
}

fn json(words: &str) -> Value {
    let output = secagg(words);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{words}: {error}");
    serde_json::from_slice(&output.stdout).expect("one line of JSON")
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

/// The rows of Google's parameter finder (`fcp/secagg`), and thresholds of complete graphs.
#[test]
fn params_are_the_published_ones() {
    for (words, neighbours, threshold) in [
        ("--clients 1000 --threat semi-honest --graph harary", 68, 44),
        (
            "--clients 10000 --threat semi-honest --graph harary",
            80,
            51,
        ),
        (
            "--clients 1000 --threat semi-malicious --graph harary",
            140,
            104,
        ),
        (
            "--clients 1000 --threat semi-malicious --graph complete",
            999,
            601,
        ),
        ("--clients 100 --threat active --graph complete", 99, 67),
    ] {
        let line = json(&format!(
            "params {words} --corrupt 0.2 --dropout 0.1 --json"
        ));
        assert_eq!(line["neighbours"], neighbours, "{words}");
        assert_eq!(line["threshold"], threshold, "{words}");
        assert_eq!(line["length"], 100_000);
        // Sixteen bits of each of so many clients.
        let clients = number(&line["clients"]);
        assert_eq!(line["ring_bits"], 16 + clients.log2().ceil() as u64);
        let bytes = &line["client_bytes"];
        let vector = number(&line["ring_bits"]) * 100_003.0 / 8.0;
        let masked = number(&bytes["masked_input"]) as u64;
        assert_eq!(masked, 68 + vector.ceil() as u64);
        assert_eq!(
            number(&bytes["signed_survivors"]) > 0.0,
            words.contains("active")
        );
        assert!(number(&line["client_seconds"]["total"]) > 1e-3);
        let server = &line["server_seconds"];
        assert!(number(&server["unmask"]) < number(&server["total"]));
    }
    let text = secagg("params --clients 1000 --corrupt 0.2 --dropout 0.1");
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(
        text.starts_with(
            "1,000 clients, up to 200 corrupt and 100 dropping out: 68 neighbours, threshold 44, at \
             least 900 survivors; 100,000 coordinates of 26 bits\na client sends "
        ),
        "{text}"
    );
}

#[test]
fn what_is_unsafe_is_refused_with_the_way_out() {
    for (words, message) in [
        (
            "params --clients 1",
            "error: a session of 1 clients is impossible; expected 2 to 1048576",
        ),
        (
            "params --clients 10 --corrupt 1",
            "error: the corrupt share is 1; expected a number from 0 up to but not including 1",
        ),
        (
            "bench --clients 10 --corrupt -0.1",
            "error: the corrupt share is -0.1; expected a number from 0 up to but not including 1",
        ),
        (
            "bench --clients 10 --graph harary --corrupt 0.3 --dropout 0.5",
            "error: no threshold is both safe and reachable for 10 clients with 3 corrupt and 5 \
             dropping out under the semi-honest threat in a Harary graph; lower the shares, take \
             more clients, or use the complete graph",
        ),
        (
            "params --clients 10 --weight 9000000000 --bits 40 --graph complete",
            "error: no ring holds 10 clients of weights up to 9000000000 with 40 bits of value; \
             expected all above 0 and a sum of at most 64 bits: lower the weights or the bits",
        ),
        (
            "params --clients 10 --length 0 --graph complete",
            "error: a vector of 0 coordinates; expected 1 to 1073741821",
        ),
    ] {
        let output = secagg(words);
        assert_eq!(output.status.code(), Some(2), "{words}");
        assert_eq!(String::from_utf8_lossy(&output.stderr).trim_end(), message);
        assert!(output.stdout.is_empty());
    }
    for words in [
        "params",
        "params --clients 10 --threat rude",
        "bench --clients 10 --graph star",
        "bench --clients 10 --threads 0",
        "bench --clients 10 --suite des",
    ] {
        assert_eq!(secagg(words).status.code(), Some(2), "{words}");
    }
}

/// Every threat and graph, both suites and both widths of words, one thread and three.
#[test]
fn bench_plays_real_sessions() {
    for words in [
        "--clients 12 --graph complete --threat semi-malicious --dropout 0.25",
        "--clients 12 --graph complete --threat active --dropout 0.2 --suite chacha20",
        "--clients 60 --graph harary --threat semi-honest --dropout 0.1 --threads 3",
        "--clients 9 --graph complete --weight 1000 --bits 24 --dropout 0",
        "--clients 9 --graph complete --weight 5 --bits 60 --dropout 0.3 --seed 7 --threads 2",
    ] {
        if words.contains("--bits 60") {
            // 9 clients of weight 5 need 66 bits.
            assert_eq!(secagg(&format!("bench {words}")).status.code(), Some(2));
            continue;
        }
        let line = json(&format!("bench {words} --corrupt 0 --length 3000 --json"));
        assert_eq!(line["exact"], true, "{words}");
        let count = |key: &str| line[key].as_u64().expect("a count");
        assert_eq!(count("survivors"), count("clients") - count("dropouts"));
        for who in ["client_mean", "client_max", "server"] {
            let seconds = &line[who];
            let sum: f64 = ["advertise", "share", "mask", "consistency", "unmask"]
                .iter()
                .map(|stage| number(&seconds[stage]))
                .sum();
            let total = number(&seconds["total"]);
            assert!(total > 0.0 && sum >= 0.999 * total, "{words} {who}");
        }
        let (mean, most) = (&line["client_mean"], &line["client_max"]);
        assert!(number(&mean["mask"]) <= number(&most["mask"]));
        let bytes = &line["client_bytes"];
        let up: f64 = [
            "advertise_keys",
            "share_keys",
            "masked_input",
            "signed_survivors",
            "unmasking_shares",
        ]
        .iter()
        .map(|message| number(&bytes[message]))
        .sum();
        assert!((up - number(&bytes["up"])).abs() < 1e-6);
        assert!(line.get("units").is_none());
        assert_eq!(line["model"]["fitted"], false);
    }
}

#[test]
fn bench_fits_the_model_to_this_machine() {
    let line = json("bench --clients 8 --graph complete --length 2000 --fit --json");
    assert_eq!(line["model"]["fitted"], true);
    let units = line["units"].as_object().unwrap();
    assert_eq!(units.len(), 22);
    for (name, seconds) in units {
        let seconds = number(seconds);
        assert!(seconds > 1e-11 && seconds < 1e-2, "{name} {seconds}");
    }
    // The same operations at the prices of one machine; loosely, for a loaded one.
    let ratio = number(&line["model"]["client_over_measured"]);
    assert!(ratio > 0.1 && ratio < 10.0, "{ratio}");
    let text = secagg("bench --clients 8 --graph complete --length 2000");
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("client mean"), "{text}");
    assert!(
        text.ends_with("the sum of 8 survivors is exact\n"),
        "{text}"
    );
}
