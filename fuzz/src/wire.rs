//! The messages of a round without secure aggregation.

use fl_core::wire::{decode_task, decode_update, encode_task, encode_update};
use fl_core::{
    ClientId, ClientUpdate, Cost, ExampleCount, LocalResult, Payload, Report, RingPlan, RingVector,
    RoundId, Weight, WeightBounds, WorkDone,
};
use sha2::{Digest as _, Sha256};

/// Parameters of the model that is asked for.
const PARAMETERS: usize = 5;

/// Decodes a message as every kind, and once more with a checksum that is right, which keeps out no
/// enemy. What is read is written as it came.
pub fn run(bytes: &[u8]) {
    decode(bytes);
    if let Some(content) = bytes.len().checked_sub(32) {
        let content = &bytes[..content];
        decode(&[content, Sha256::digest(content).as_slice()].concat());
    }
}

fn ring() -> Option<RingPlan> {
    RingPlan::new(WeightBounds::new(Weight(100), 10), 8.0, 1e-6).ok()
}

fn decode(bytes: &[u8]) {
    if let Ok(task) = decode_task(bytes, PARAMETERS) {
        let again = encode_task(task.round, task.client, task.plan, &task.global);
        assert_eq!(again, bytes, "a task is written as it was read");
    }
    for ring in [None, ring().as_ref()] {
        if let Ok(update) = decode_update(bytes, PARAMETERS, ring) {
            let again = decode_update(&encode_update(&update), PARAMETERS, ring);
            let report = again.map(|update| update.report);
            assert_eq!(
                report,
                Ok(update.report),
                "an update is read as it was written"
            );
        }
    }
}

/// First inputs: a name and a message.
#[must_use]
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let values = [0.5, -1.0, 0.0, 3.25, -7.5];
    let examples = ExampleCount(60);
    let update = |payload| {
        encode_update(&ClientUpdate {
            report: Report {
                client: ClientId(7),
                round: RoundId(3),
                examples,
                steps: 30,
                work: WorkDone::Partial,
                cost: Cost::default(),
            },
            payload,
            metrics: LocalResult {
                examples,
                examples_processed: 300,
                steps: 30,
                mean_loss: 0.75,
                examples_clipped: 0,
            },
        })
    };
    let mut seeds = vec![
        (
            "task",
            encode_task(RoundId(3), ClientId(7), b"plan", &values),
        ),
        ("dense", update(Payload::Dense(values.to_vec()))),
    ];
    let vector = ring().and_then(|ring| RingVector::encode(ring, &values, Weight(60)));
    seeds.extend(vector.map(|vector| ("ring", update(Payload::Ring(vector)))));
    seeds
}
