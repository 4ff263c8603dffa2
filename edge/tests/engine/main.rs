//! The engine as a whole: definitions, gradients, optimizers, training, memory.

mod allocations;
mod common;
mod conformance;
mod definitions;
mod distilled;
mod examples;
mod fours;
mod gradients;
mod halves;
mod integers;
mod normalised;
mod optimizers;
mod oracle;
mod private;
mod program;
mod protected;
mod random;
mod sequences;
mod stacks;
mod stretches;
mod training;
