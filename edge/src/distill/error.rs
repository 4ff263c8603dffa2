//! Why a model cannot be taught so.

use alloc::string::String;

use fl_core::ParametersError;

use crate::error::EdgeError;
use crate::file::FileError;
use crate::program::ProgramError;

/// Why a teacher, or what is to be learned from it, was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DistillError {
    /// The teacher takes other inputs.
    #[error(
        "the teacher takes inputs {teacher} and the student {student}; choose a teacher that was \
         trained on this data set"
    )]
    Input {
        /// The teacher's, printed.
        teacher: String,
        /// The student's, printed.
        student: String,
    },
    /// The teacher answers something else.
    #[error(
        "the teacher gives {teacher} and the student is to give {student}; choose a teacher of the \
         same classes"
    )]
    Target {
        /// The teacher's target, printed.
        teacher: String,
        /// The student's, printed.
        student: String,
    },
    /// There are no classes.
    #[error(
        "the student predicts real numbers, and only the softmax of classes can be softened; \
         distil a classifier, or train without a teacher"
    )]
    NotClasses,
    /// An option outside its range.
    #[error("`{key}` is {value}; it must be {range}")]
    Range {
        /// The option: `temperature`, `features.0.weight`.
        key: String,
        /// Its value.
        value: f32,
        /// The range in words.
        range: &'static str,
    },
    /// Nothing of the teacher is used.
    #[error(
        "alpha = 1 leaves the teacher's response out, and neither `features` nor `relation` is \
         given, so nothing is learned from the teacher; lower alpha, or leave the teacher out"
    )]
    Nothing,
    /// No layer has this name.
    #[error("`{key}` names `{name}`, and the {whose} has no such layer; it has {known}")]
    UnknownLayer {
        /// The option: `features.0.student`.
        key: String,
        /// The name.
        name: String,
        /// `student` or `teacher`.
        whose: &'static str,
        /// Names that exist, printed.
        known: String,
    },
    /// The value does not depend on any parameter.
    #[error(
        "`{key}` names `{name}`, which no parameter of the student comes before, so nothing could \
         learn to match it; name a later layer"
    )]
    NothingLearns {
        /// The option.
        key: String,
        /// The layer.
        name: String,
    },
    /// The teacher's program computes the layer inside another, or in integers.
    #[error(
        "`{key}` names `{name}`, whose outputs the teacher does not show, as it computes them in \
         {numerics} or inside another step; give the teacher's file of parameters, or name another \
         layer"
    )]
    Hidden {
        /// The option.
        key: String,
        /// The layer.
        name: String,
        /// The teacher's numbers.
        numerics: &'static str,
    },
    /// The maps of two layers have another height or width.
    #[error(
        "`{key}`: `{student}` of the student has shape {student_shape} and `{teacher}` of the \
         teacher {teacher_shape}; choose layers of the same height and width (a projection only \
         changes the number of channels)"
    )]
    Positions {
        /// The option.
        key: String,
        /// The student's layer.
        student: String,
        /// Its shape, printed.
        student_shape: String,
        /// The teacher's layer.
        teacher: String,
        /// Its shape, printed.
        teacher_shape: String,
    },
    /// A pair of layers is given twice.
    #[error("`{key}` maps `{student}` to `{teacher}` a second time; give each pair once")]
    Twice {
        /// The option.
        key: String,
        /// The student's layer.
        student: String,
        /// The teacher's.
        teacher: String,
    },
    /// The model has ranges already.
    #[error("give the model its teacher before its ranges: `with_teacher`, then `with_ranges`")]
    Ranges,
    /// The projections cannot be laid out.
    #[error("the projections of features: {0}")]
    Parameters(#[from] ParametersError),
    /// The teacher cannot be served.
    #[error("the teacher: {0}")]
    Program(#[from] ProgramError),
    /// The teacher's file cannot be read.
    #[error("the teacher's file: {0}")]
    File(#[from] FileError),
    /// The student without its teacher is no model.
    #[error("the student: {0}")]
    Student(#[from] EdgeError),
}

impl DistillError {
    /// The option at fault, under the table that holds the teacher: `teacher`, `temperature`,
    /// `features.0.student`.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Range { key, .. }
            | Self::UnknownLayer { key, .. }
            | Self::NothingLearns { key, .. }
            | Self::Hidden { key, .. }
            | Self::Positions { key, .. }
            | Self::Twice { key, .. } => key,
            Self::Nothing => "alpha",
            _ => "teacher",
        }
    }
}
