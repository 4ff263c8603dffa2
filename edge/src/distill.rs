//! Knowledge distillation: a student trained with what a larger model, its teacher, answers.
//!
//! [`Model::with_teacher`] makes a model that is taught: a [`Session`](crate::Session) or an
//! [`EdgeTrainer`](crate::EdgeTrainer) of it asks the teacher in every step, on the very examples
//! of the step. The teacher is a [`Program`], so it is served as on a device, in `f32`, `f16`,
//! codes of four bits or `int8`; it never learns. With `z` the student's logits and `t` the
//! teacher's, the loss of an example is
//! ```text
//! alpha CE(z, label) + (1 - alpha) T^2 KL(softmax(t / T) || softmax(z / T))
//!     + sum over features of  weight * mean (P s - u)^2
//! ```
//! and a batch adds `distance * L_D + angle * L_A` of its [`Relation`] to the mean of that.
//!
//! - **Response**: Hinton, Vinyals & Dean 2015, arXiv:1503.02531, section 2. With a target at every
//!   position of a sequence, only positions that have one count, as in the cross-entropy.
//! - **Features**: FitNets, Romero et al. 2015, arXiv:1412.6550, equation 3, with the mean in place
//!   of half the sum, so that a weight means the same at every size. `s` is the output of a layer of
//!   the student, `u` of the teacher; where they differ in width, `P` is a linear map at every
//!   position (a 1x1 convolution) with a bias. It is trained with the student: its tensors
//!   `distill.STUDENT.TEACHER.weight` and `.bias` stand in the layout behind the student's own, so
//!   that a server averages them too. [`Model::student`] takes them away again: they are no part of
//!   what is exported.
//! - **Relation**: RKD, Park et al. 2019, arXiv:1904.05068, equations 3 to 8: what is taught is how
//!   the examples of a batch lie to one another. `L_D` compares the distances of pairs, each over
//!   the mean of all that are not zero, `L_A` the cosines of the angles of triples, both by the Huber
//!   loss; the mean is over all ordered pairs and triples, those of an example with itself (which
//!   are zero) included, as in the authors' program.
//!
//! # What composes
//! The losses compose with every optimizer, clipping of the whole gradient, FedProx, and
//! [quantization-aware training](crate::qat): there the student's layers are what their integers
//! stand for. The other order, to distil first and to quantize then, needs nothing here. DP-SGD
//! takes the response alone: a relation has no gradient of a single example, and a projection is
//! refused with it.
//!
//! A teacher is a function of what *it* was trained on. Where that is the private data of the
//! clients, the guarantee of the student's training says nothing about them: protect the teacher's
//! training, too, or train it on public data.
//!
//! # Laws
//! A teacher's answers to an example depend on nothing else of the batch, so keeping them
//! ([`Session::keep_answers`](crate::Session::keep_answers)) changes no bit. A relation ties the
//! examples of a batch together: it is worked through at once. A step allocates nothing.

mod error;
mod fit;
mod plan;
mod relation;
mod teach;
mod teacher;

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

pub use error::DistillError;
pub use teacher::Teacher;

pub(crate) use fit::Distillation;
pub(crate) use plan::{Lesson, plan};
pub(crate) use teach::{Pass, Teaching};

#[cfg(doc)]
use crate::{Model, Program};

/// What is learned from a teacher, and how much of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DistillOptions {
    /// `T`, by which logits are divided: larger ones show more of what the teacher thinks of wrong
    /// classes. Above 0, at most 1000.
    pub temperature: f32,
    /// The share of the labels' loss, in `[0, 1]`: 1 leaves the response out, 0 the labels.
    pub alpha: f32,
    /// Layers that are to give what layers of the teacher give.
    pub features: Vec<Feature>,
    /// How examples are to lie to one another.
    pub relation: Option<Relation>,
}

impl Default for DistillOptions {
    /// The response alone, at a temperature of 4, with a tenth of the labels' loss: what Hinton et
    /// al. found to work well, "a considerably lower weight" on the labels.
    fn default() -> Self {
        Self {
            temperature: 4.0,
            alpha: 0.1,
            features: Vec::new(),
            relation: None,
        }
    }
}

/// A layer of the student that is to give what a layer of the teacher gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Feature {
    /// The student's layer.
    pub student: String,
    /// The teacher's, of as many positions (the same height and width).
    pub teacher: String,
    /// What the mean squared error counts; above 0.
    pub weight: f32,
}

/// How the examples of a batch are to lie to one another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relation {
    /// The student's layer; its logits when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub student: Option<String>,
    /// The teacher's, of any size; its logits when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher: Option<String>,
    /// What the distances of pairs count; at least 0.
    pub distance: f32,
    /// What the angles of triples count; at least 0. Their cost grows with the third power of the
    /// batch.
    pub angle: f32,
}
