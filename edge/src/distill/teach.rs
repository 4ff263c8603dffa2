//! A lesson: the teacher answers, and the student's loss follows it.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use fl_core::{NO_TARGET, TargetSpec};

use super::fit::Distillation;
use super::plan::{FeatureStep, RelationStep};
use super::relation::Relating;
use crate::arena::{pick, reserve};
use crate::graph::target_width;
use crate::kernel::{Fused, Kernels, Write};
use crate::model::Model;
use crate::plan::{Memory, Slot};
use crate::program::{Inputs, Runner};
use crate::session::{Update, gradient_of};

/// Answers that are kept take no more bytes than this.
const MOST_KEPT: usize = 64 << 20;

/// The teacher at work for one session.
#[derive(Debug)]
pub(crate) struct Teaching {
    runner: Option<Runner>,
    /// Examples that there is room for.
    rows: usize,
    logits: Vec<f32>,
    /// The values that are looked at, and how much of each has come.
    values: Vec<Vec<f32>>,
    filled: Vec<usize>,
    /// The losses of one feature.
    losses: Vec<f32>,
    /// The answers to a client's examples, where they are kept, and which are known.
    kept: Vec<f32>,
    known: Vec<bool>,
    /// The client's examples; 0 where nothing is kept.
    examples: usize,
}

/// What a lesson reads and writes.
pub(crate) struct Pass<'a> {
    pub(crate) k: &'static Kernels,
    pub(crate) memory: &'a Memory,
    pub(crate) model: &'a Model,
    pub(crate) arena: &'a mut [f32],
    pub(crate) labels: &'a [u32],
    pub(crate) losses: &'a mut [f32],
    pub(crate) weights: &'a mut [f32],
    pub(crate) gradient: &'a mut [f32],
    pub(crate) update: Update<'a>,
    /// Examples of the part, and what their gradients are multiplied by.
    pub(crate) rows: usize,
    pub(crate) scale: f32,
}

impl Teaching {
    /// Without any room.
    pub(crate) fn new(distillation: &Distillation) -> Self {
        let shown = distillation.shown.len();
        Self {
            runner: None,
            rows: 0,
            logits: Vec::new(),
            values: vec![Vec::new(); shown],
            filled: vec![0; shown],
            losses: Vec::new(),
            kept: Vec::new(),
            known: Vec::new(),
            examples: 0,
        }
    }

    /// Room for so many examples at once.
    pub(crate) fn reserve(
        &mut self,
        distillation: &Distillation,
        k: &'static Kernels,
        rows: usize,
    ) {
        if self.rows >= rows {
            return;
        }
        self.rows = rows;
        let program = &distillation.teacher.program;
        let at_once = program.rows_for(rows);
        if self.runner.as_ref().is_none_or(|it| it.rows() < at_once) {
            let program = alloc::sync::Arc::clone(program);
            self.runner = Some(Runner::with_kernels(program, at_once, k));
        }
        reserve(&mut self.logits, rows * distillation.width);
        reserve(&mut self.losses, rows);
        for (values, (_, len)) in self.values.iter_mut().zip(&distillation.shown) {
            reserve(values, rows * len);
        }
    }

    /// Bytes that are held to learn from `rows` examples at once, answers that are kept aside.
    pub(crate) fn planned_bytes(distillation: &Distillation, rows: usize) -> usize {
        let program = &distillation.teacher.program;
        let shown = distillation.shown.iter().map(|(_, len)| len);
        let numbers = distillation.width + 1 + shown.sum::<usize>();
        program.memory(program.rows_for(rows)).arena + 4 * rows * numbers
    }

    /// Forgets every answer, and keeps the next ones to so many examples, where that can be. An
    /// answer is all that is kept: where layers are looked at, the teacher runs in any case.
    pub(crate) fn keep(&mut self, distillation: &Distillation, examples: usize) {
        let fits = 4 * examples.saturating_mul(distillation.width) <= MOST_KEPT;
        self.examples = 0;
        if fits && examples > 0 && distillation.shown.is_empty() {
            self.examples = examples;
            reserve(&mut self.kept, examples * distillation.width);
            reserve(&mut self.known, examples);
            self.known[..examples].fill(false);
        }
    }

    /// The teacher looks at the examples at `rows`.
    pub(crate) fn ask(&mut self, distillation: &Distillation, inputs: Inputs<'_>, rows: &[u32]) {
        let width = distillation.width;
        let keeps = self.examples > 0;
        let known = |row: &u32| keeps && self.known[*row as usize];
        let logits = &mut self.logits[..rows.len() * width];
        if rows.iter().all(known) {
            for (to, &row) in logits.chunks_exact_mut(width).zip(rows) {
                to.copy_from_slice(&self.kept[row as usize * width..][..width]);
            }
            return;
        }
        let Some(runner) = &mut self.runner else {
            unreachable!("room was made");
        };
        if distillation.shown.is_empty() {
            runner.run(inputs, logits);
        } else {
            self.filled.fill(0);
            let (filled, into) = (&mut self.filled, &mut self.values);
            runner.run_observed(inputs, logits, &mut |name, values| {
                let mut shown = distillation.shown.iter();
                if let Some(index) = shown.position(|(it, _)| it == name) {
                    into[index][filled[index]..][..values.len()].copy_from_slice(values);
                    filled[index] += values.len();
                }
            });
        }
        if keeps {
            for (from, &row) in logits.chunks_exact(width).zip(rows) {
                self.kept[row as usize * width..][..width].copy_from_slice(from);
                self.known[row as usize] = true;
            }
        }
    }

    /// Turns the losses of the labels, with their gradient, into those of the lesson.
    pub(crate) fn teach(&mut self, distillation: &Distillation, mut pass: Pass<'_>) {
        self.respond(distillation, &mut pass);
        let Some(lesson) = &pass.memory.lesson else {
            return;
        };
        for feature in &lesson.features {
            self.match_feature(feature, &mut pass);
        }
        if let Some(relation) = &lesson.relation {
            self.relate(relation, distillation, &mut pass);
        }
    }

    fn respond(&self, distillation: &Distillation, pass: &mut Pass<'_>) {
        let (k, rows, memory) = (pass.k, pass.rows, pass.memory);
        let (alpha, temperature) = (distillation.options.alpha, distillation.options.temperature);
        if alpha >= 1.0 {
            return;
        }
        let places = [memory.output, memory.output_gradient].map(|slot| memory.at(slot, rows));
        let [outputs, gradient] = pick(pass.arena, places);
        let losses = &mut pass.losses[..rows];
        k.scale(alpha, gradient);
        k.scale(alpha, losses);
        let share = 1.0 - alpha;
        let target = pass.model.target();
        let classes = target_width(target);
        let TargetSpec::Sequence { length, .. } = target else {
            k.softened_divergence(
                rows,
                classes,
                outputs,
                &self.logits,
                temperature,
                share,
                pass.scale,
                losses,
                gradient,
            );
            return;
        };
        for (row, loss) in losses.iter_mut().enumerate() {
            let labels = &pass.labels[row * length..][..length];
            let given = labels.iter().filter(|&&it| it != NO_TARGET).count();
            let each = 1.0 / given.max(1) as f32;
            let mut sum = [0.0f32];
            for (position, _) in (labels.iter().enumerate()).filter(|(_, it)| **it != NO_TARGET) {
                let at: Range<usize> =
                    (row * length + position) * classes..(row * length + position + 1) * classes;
                k.softened_divergence(
                    1,
                    classes,
                    &outputs[at.clone()],
                    &self.logits[at.clone()],
                    temperature,
                    share,
                    pass.scale * each,
                    &mut sum,
                    &mut gradient[at],
                );
            }
            *loss += sum[0] * each;
        }
    }

    fn match_feature(&mut self, feature: &FeatureStep, pass: &mut Pass<'_>) {
        let FeatureStep {
            x,
            dx,
            write,
            y,
            ref projection,
            positions,
            width,
            shown,
            weight,
        } = *feature;
        let (k, rows, memory) = (pass.k, pass.rows, pass.memory);
        let at = |slot: Slot| memory.at(slot, rows);
        let count = rows * positions;
        let [from, to] = pick(pass.arena, [at(x), at(y)]);
        match projection {
            Some(map) => {
                let (weights, bias) = (
                    &pass.weights[map.weight.clone()],
                    &pass.weights[map.bias.clone()],
                );
                k.dense(
                    &map.dense,
                    count,
                    from,
                    weights,
                    Some(bias),
                    Fused::None,
                    to,
                );
            }
            None => to.copy_from_slice(&from[..to.len()]),
        }
        let target = &self.values[shown][..rows * width];
        let losses = &mut self.losses[..rows];
        k.mean_squared_error(rows, width, to, target, 1.0, losses, None);
        for (loss, more) in pass.losses.iter_mut().zip(&*losses) {
            *loss += weight * more;
        }
        let factor = 2.0 * weight * pass.scale / width as f32;
        for (to, target) in to.iter_mut().zip(target) {
            *to = (*to - target) * factor;
        }
        let Some(map) = projection else {
            let [from, to] = pick(pass.arena, [at(y), at(dx)]);
            put(k, from, to, write);
            return;
        };
        let [dy, dx, scratch] = pick(pass.arena, [at(y), at(dx), at(map.scratch)]);
        let weights = &pass.weights[map.weight.clone()];
        k.dense_dx(&map.dense, count, dy, weights, dx, write, scratch);
        let [dy, x] = pick(pass.arena, [at(y), at(x)]);
        let to = gradient_of(pass.update, &map.bias, pass.weights, pass.gradient);
        k.column_sums(count, map.dense.outputs, dy, to);
        let to = gradient_of(pass.update, &map.weight, pass.weights, pass.gradient);
        k.dense_dw(&map.dense, count, x, dy, to);
    }

    fn relate(&self, step: &RelationStep, distillation: &Distillation, pass: &mut Pass<'_>) {
        let (k, rows, memory) = (pass.k, pass.rows, pass.memory);
        let at = |slot: Slot| memory.at(slot, rows);
        let [x, scratch, dx] = pick(pass.arena, [at(step.x), at(step.scratch), at(step.dx)]);
        let teacher = match step.shown {
            Some(shown) => &self.values[shown],
            None => &self.logits,
        };
        debug_assert!(teacher.len() >= rows * step.outputs && distillation.relation.is_some());
        let relating = Relating {
            k,
            rows,
            student: x,
            inputs: step.inputs,
            teacher,
            outputs: step.outputs,
        };
        let (loss, gradient) = relating.lose(step.distance, step.angle, scratch);
        // The batch's loss counts once; the losses of its examples are averaged.
        for one in &mut pass.losses[..rows] {
            *one += loss as f32;
        }
        put(k, &gradient[..rows * step.inputs], dx, step.write);
    }
}

fn put(k: &Kernels, from: &[f32], to: &mut [f32], write: Write) {
    match write {
        Write::Store => to[..from.len()].copy_from_slice(from),
        Write::Add => k.add(from, to),
    }
}
