//! What a program takes of memory.

use alloc::string::String;
use alloc::vec::Vec;

use serde::Serialize;

use super::Program;
use super::stretch::PART_BYTES;
use crate::arena::Place;
use crate::plan::Buffer;
use crate::runtime::Schedule;

/// The memory of one step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StepMemory {
    /// The layer.
    pub layer: String,
    /// The operator.
    pub operator: &'static str,
    /// Bytes of the arena that are in use while it runs: what it reads, writes and works with,
    /// and what later steps need.
    pub live: usize,
}

/// The memory of a program at a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProgramMemory {
    /// Bytes of the constants, with those that are written out in `f32`.
    pub constants: usize,
    /// Bytes of the arena.
    pub arena: usize,
    /// Bytes of the steps and of the constants' table.
    pub tables: usize,
    /// Of each step, in the order in which they run.
    pub steps: Vec<StepMemory>,
}

impl ProgramMemory {
    /// Bytes held while the program runs: constants, arena and tables. The caller's inputs and
    /// outputs come on top.
    #[must_use]
    pub fn peak(&self) -> usize {
        self.constants + self.arena + self.tables
    }
}

impl Program {
    /// Bytes of the steps, of the buffers' places and of the constants' table.
    fn tables(&self) -> usize {
        let steps = size_of_val(&self.steps[..])
            + size_of_val(&self.names[..])
            + size_of_val(&self.complete[..])
            + self.names.iter().map(String::len).sum::<usize>();
        let place = size_of::<Buffer>() + size_of::<Place>() + size_of::<usize>();
        let places = self.buffers.len() * place;
        let sections = self.constants.sections();
        let names = sections.iter().map(|section| section.name.len());
        let shapes = sections
            .iter()
            .map(|section| size_of_val(&section.shape[..]));
        steps + places + size_of_val(sections) + names.sum::<usize>() + shapes.sum::<usize>()
    }

    /// What a run of `rows` examples at once takes.
    #[must_use]
    pub fn memory(&self, rows: usize) -> ProgramMemory {
        let (Schedule { arena, .. }, buffers) = Schedule::new(self, rows.max(1), PART_BYTES);
        let steps = self.steps.iter().zip(&self.names).enumerate();
        let steps = steps.map(|(time, (step, layer))| {
            let alive = buffers
                .iter()
                .filter(|buffer| (buffer.first..=buffer.last).contains(&time));
            StepMemory {
                layer: layer.clone(),
                operator: step.name(),
                live: alive.map(|buffer| buffer.fixed).sum(),
            }
        });
        ProgramMemory {
            constants: self.constants.len() + self.constants.widened_len(),
            arena,
            tables: self.tables(),
            steps: steps.collect(),
        }
    }
}
