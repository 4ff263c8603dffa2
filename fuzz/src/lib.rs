//! Fuzz targets for the decoders of what comes from outside: model files and the compiled steps in
//! them, patches, ONNX, GGUF, device profiles, recordings of devices, data sets, messages of a
//! round, messages and resting states of secure aggregation.
//!
//! A target is a function of bytes that must return whatever the bytes are: no panic, no endless
//! loop, no memory that the bytes do not justify. `fuzz/corpus/TARGET/` keeps inputs that reach
//! different code. `cargo test -p fl-fuzz` replays them, and changes of them by a fixed seed.
//!
//! # Under libFuzzer
//! Stable Rust suffices on x86-64 Linux (1.95 was tried): coverage comes from a pass that is in every
//! LLVM, and `libfuzzer-sys` compiles libFuzzer itself, for which a C++ compiler must be there. What
//! needs a nightly compiler, and is not used, are the sanitizers; `cargo fuzz` asks for one, so the
//! targets are started without it. Continuous integration replays and mutates only; this is run by
//! hand after a decoder was changed.
//!
//! ```sh
//! RUSTFLAGS="-Ccodegen-units=1 -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
//!   -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
//!   -Cdebug-assertions" \
//! FUZZ_TARGET=model-file cargo run --release -p fl-fuzz --features libfuzzer \
//!   --target x86_64-unknown-linux-gnu --target-dir target/fuzz -- \
//!   -max_total_time=300 -rss_limit_mb=1024 -malloc_limit_mb=256 /tmp/found fuzz/corpus/model-file
//! ```
//! New inputs land in the first folder; `-merge=1 fuzz/corpus/TARGET /tmp/found` keeps those that
//! reach something new.
#![forbid(unsafe_code)]

mod mutate;
pub mod patch;
mod repair;
pub mod secagg;
pub mod steps;
pub mod wire;

use std::sync::Arc;

use fl_datasets::read;
use fl_edge::file::ModelFile;
use fl_edge::gguf::{Gguf, read_model};
use fl_edge::{Inputs, Runner};
use fl_sim::fleet::availability::Life;
use fl_sim::fleet::trace::{Capacities, Traces};
use fl_sim::fleet::{Availability, Signals};

pub use mutate::mutate;
use repair::repaired_gguf;

pub use repair::repaired;

/// A decoder under test.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its folder in the corpus.
    pub name: &'static str,
    /// Decodes the bytes and uses what comes out.
    pub run: fn(&[u8]),
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target {
        name: "model-file",
        run: model_file,
    },
    Target {
        name: "compiled-steps",
        run: steps::run,
    },
    Target {
        name: "onnx",
        run: onnx,
    },
    Target {
        name: "gguf",
        run: gguf,
    },
    Target {
        name: "patch",
        run: patch::run,
    },
    Target {
        name: "device-profile",
        run: device_profile,
    },
    Target {
        name: "idx",
        run: |bytes| drop(read::idx::Idx::parse("fuzz", bytes)),
    },
    Target {
        name: "leaf",
        run: |bytes| drop(read::leaf::LeafData::parse("fuzz", bytes)),
    },
    Target {
        name: "png",
        run: png,
    },
    Target {
        name: "trace-fedscale",
        run: trace_fedscale,
    },
    Target {
        name: "trace-flash",
        run: trace_flash,
    },
    Target {
        name: "wire",
        run: wire::run,
    },
    Target {
        name: "secagg-client",
        run: secagg::client,
    },
    Target {
        name: "secagg-server",
        run: secagg::server,
    },
    Target {
        name: "secagg-state",
        run: secagg::state,
    },
];

impl Target {
    /// The target called `name`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        TARGETS.iter().copied().find(|target| target.name == name)
    }
}

/// Largest arena that a found program is run with.
const MOST_ARENA: usize = 1 << 22;
/// Multiply-adds of the largest found program that is run.
const MOST_MACS: u64 = 1 << 22;

/// Opens a model file as it is, and once more with checksums made right: behind them lies most of
/// the code, and a checksum keeps out no enemy.
fn model_file(bytes: &[u8]) {
    open(bytes.to_vec());
    if let Some(bytes) = repaired(bytes) {
        open(bytes);
    }
}

fn open(bytes: Vec<u8>) {
    let Ok(file) = ModelFile::open(Arc::new(bytes)) else {
        return;
    };
    drop(file.verify());
    drop(file.parameters());
    let Ok(program) = file.program() else {
        return;
    };
    let small = program.memory(1).arena <= MOST_ARENA
        && file.model().macs_per_example() <= MOST_MACS
        && program.input_len() <= MOST_ARENA;
    if small {
        let (reals, tokens) = (vec![0.5; program.input_len()], vec![0; program.input_len()]);
        let inputs = match file.model().input() {
            fl_core::InputSpec::Real(_) => Inputs::Real(&reals),
            fl_core::InputSpec::Tokens { .. } => Inputs::Tokens(&tokens),
        };
        let mut outputs = vec![0.0; program.output_len()];
        Runner::new(Arc::new(program), 1).run(inputs, &mut outputs);
    }
}

/// Reads a GGUF file as a container, every tensor of it, and as a model.
fn gguf(bytes: &[u8]) {
    if let Ok(file) = Gguf::parse(bytes) {
        for tensor in file.tensors() {
            drop(file.values(tensor));
        }
        drop(file.to_writer().and_then(|writer| writer.finish()));
        if let Some(bytes) = repaired_gguf(&file) {
            drop(read_model(&bytes));
        }
    }
    drop(read_model(bytes));
}

/// Reads the profile of a device.
fn device_profile(bytes: &[u8]) {
    if let Ok(text) = core::str::from_utf8(bytes) {
        drop(fl_edge::device::catalogue::parse(text, "fuzz"));
    }
}

/// Reads recordings of when devices were available, and asks one.
fn trace_flash(bytes: &[u8]) {
    if let Ok(traces) = Traces::flash("fuzz", bytes) {
        ask(traces);
    }
}

/// Reads pickled recordings of when devices were available, and of how fast they were.
fn trace_fedscale(bytes: &[u8]) {
    drop(Capacities::fedscale("fuzz", bytes));
    if let Ok(traces) = Traces::fedscale("fuzz", bytes) {
        ask(traces);
    }
}

fn ask(traces: Traces) {
    let availability = Availability::Traces(Arc::new(traces));
    let life = Life {
        client: fl_core::ClientId(0),
        zone: 0,
        wifi: true,
        pick: 0.5,
    };
    for at in [0, 12_345_678_901, u64::MAX] {
        let _ = availability.until(&life, fl_core::VirtualTime(at), Signals::ALL);
    }
}

/// The last chunk of a PNG file.
const PNG_END: &[u8] = b"\0\0\0\0IEND\xaeB`\x82";

/// Reads a picture as it is, and once more with the end of a whole one: what is not whole is
/// refused before anything else is looked at.
fn png(bytes: &[u8]) {
    drop(read::image::Image::png("fuzz", bytes));
    if !bytes.ends_with(PNG_END) {
        drop(read::image::Image::png("fuzz", &[bytes, PNG_END].concat()));
    }
}

/// Decodes a model of ONNX, prepares it to be run, and reads it as a native one.
fn onnx(bytes: &[u8]) {
    let limits = fl_onnx::Limits {
        file_bytes: 1 << 20,
        tensor_bytes: 1 << 20,
        live_bytes: 1 << 24,
        nodes: 1000,
        depth: 8,
    };
    if let Ok(model) = fl_onnx::decode(bytes, &limits) {
        drop(fl_onnx::Interpreter::new(&model, &limits));
        drop(fl_onnx::import_model(&model, &limits));
    }
}
