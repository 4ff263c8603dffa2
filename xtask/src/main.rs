//! The project's chores: `cargo xtask ci` is what continuous integration runs after the tests.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a command-line tool talks to its user")]

mod browser;
mod ci;
mod embed;
mod embed_library;
mod end_to_end;
mod gallery;
mod graph;
mod notebooks;
mod onnx;
mod peers;
mod privacy_peers;
mod process;
mod published;
mod python;
mod secagg_peers;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Chores of the Fledgling workspace.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Format, lints, docs, licences, dependency graph and a reduced run of every experiment.
    Ci,
    /// Check the direction of the dependencies between the crates, and what the light ones pull in.
    Graph,
    /// Check licences, sources and wildcards with cargo-deny, installing it if it is missing.
    Licences,
    /// Execute the notebooks on small results. Makes a Python environment below `target/`.
    Notebooks,
    /// Run every file in `experiments/` at reduced size, then verify one result bit for bit.
    EndToEnd,
    /// Make every picture of `docs/gallery.md` again by its command and compare it bit for bit.
    Gallery(gallery::Options),
    /// Time inference of trained models beside onnxruntime on one thread, and compare the outputs.
    /// Makes a Python environment below `target/`.
    Peers(peers::Options),
    /// Time the privacy accountants beside dp_accounting and Opacus, and compare the answers.
    PrivacyPeers(privacy_peers::Options),
    /// Time a session of secure aggregation beside the primitives of Flower's SecAgg+. Makes a Python
    /// environment below `target/`.
    SecaggPeers(secagg_peers::Options),
    /// Run the node tests of the `onnx` Python package against the ONNX interpreter. Makes a
    /// Python environment below `target/`.
    OnnxNodes,
    /// Write trained models as ONNX in every form, check and run them in onnxruntime, read them
    /// again, and read models that other tools wrote. Makes a Python environment below `target/`.
    OnnxRoundTrip(onnx::RoundTrip),
    /// Verify the results in `results/published/`: their files, and the first rounds or all of them.
    Results(published::Options),
    /// Build the library for apps in both sizes, tell them, and use it from C.
    EmbedLibrary,
    /// Write the HTML report of fifty small runs and click through it in headless Chromium, which is
    /// installed where it is missing and can be.
    Browser,
    /// Pack the embedded data sets from the files of the packages that publish them, and check
    /// them against the recorded SHA-256.
    Embed {
        /// The folder that holds the packages' files.
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().chore {
        Chore::Ci => ci::all(),
        Chore::Graph => graph::check(),
        Chore::Licences => ci::licences(),
        Chore::Notebooks => notebooks::execute(),
        Chore::EndToEnd => end_to_end::run(),
        Chore::Gallery(options) => gallery::make(&options),
        Chore::Peers(options) => peers::compare(&options),
        Chore::PrivacyPeers(options) => privacy_peers::compare(&options),
        Chore::SecaggPeers(options) => secagg_peers::compare(&options),
        Chore::OnnxNodes => onnx::nodes(),
        Chore::OnnxRoundTrip(options) => onnx::round_trip(&options),
        Chore::Results(options) => published::verify(&options),
        Chore::EmbedLibrary => embed_library::check(),
        Chore::Browser => browser::check(),
        Chore::Embed { from } => embed::run(&from, &process::root().join("datasets/embedded")),
    }
}
