//! A session's teacher, where it has one: asked before the forward pass, followed after the loss.

use alloc::boxed::Box;

use fl_core::InputSpec;

use super::Session;
use super::batch::Batch;
use super::run::Update;
use crate::distill::{Pass, Teaching};
use crate::kernel::Kernels;
use crate::model::Model;
use crate::plan::Memory;
use crate::program::Inputs;

/// What a lesson needs beside the batch.
pub(super) struct Lesson<'a> {
    pub(super) memory: &'a Memory,
    pub(super) model: &'a Model,
    pub(super) weights: &'a mut [f32],
    pub(super) gradient: &'a mut [f32],
    pub(super) update: Update<'a>,
    pub(super) rows: usize,
    /// What gradients of the losses' sum are multiplied by.
    pub(super) scale: f32,
}

/// The teacher looks at the examples that the batch was filled with.
pub(super) fn ask(
    teaching: &mut Option<Box<Teaching>>,
    batch: &Batch,
    memory: &Memory,
    model: &Model,
    rows: &[u32],
) {
    if let (Some(teaching), Some(distillation)) = (teaching, model.distillation()) {
        let inputs = match model.input() {
            InputSpec::Real(_) => {
                Inputs::Real(&batch.arena.values()[memory.at(memory.input, rows.len())])
            }
            InputSpec::Tokens { .. } => {
                Inputs::Tokens(&batch.tokens[..rows.len() * model.input().len()])
            }
        };
        teaching.ask(distillation, inputs, rows);
    }
}

/// Turns the labels' losses into those of the lesson.
pub(super) fn teach(
    k: &'static Kernels,
    teaching: &mut Option<Box<Teaching>>,
    batch: &mut Batch,
    lesson: Lesson<'_>,
) {
    if let (Some(teaching), Some(distillation)) = (teaching, lesson.model.distillation()) {
        let pass = Pass {
            k,
            memory: lesson.memory,
            model: lesson.model,
            arena: batch.arena.values_mut(),
            labels: &batch.labels,
            losses: &mut batch.losses,
            weights: lesson.weights,
            gradient: lesson.gradient,
            update: lesson.update,
            rows: lesson.rows,
            scale: lesson.scale,
        };
        teaching.teach(distillation, pass);
    }
}

impl Session {
    /// Room for a teacher to look at so many examples at once.
    pub(super) fn make_room_for_teacher(&mut self, rows: usize) {
        if let Some(distillation) = self.model.distillation() {
            let teaching = self
                .teaching
                .get_or_insert_with(|| Box::new(Teaching::new(distillation)));
            teaching.reserve(distillation, self.kernels, rows);
        }
    }

    /// Tells a session that is [taught](crate::distill) that the next steps are on the examples
    /// `0 .. examples` of one client, some of them more than once: the teacher's answers to them are
    /// kept, where they take no more than 64 MiB and no layers of it are looked at. Changes no bit.
    /// [`Session::start`] forgets them. A step on another example panics.
    pub fn keep_answers(&mut self, examples: usize) {
        if let (Some(teaching), Some(distillation)) =
            (&mut self.teaching, self.model.distillation())
        {
            teaching.keep(distillation, examples);
        }
    }
}
