//! `[local.distillation]`: clients that learn from a teacher beside their labels.

use std::path::PathBuf;

use fl_edge::distill::{DistillError, DistillOptions, Feature, Relation};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::Check;
use super::de::{decode, join};
use super::diagnostic::Diagnostics;
use super::node::Node;

/// Knowledge distillation: every client also learns from a teacher, a model that is trained
/// already and does not change.
///
/// A teacher that was trained on the clients' own data carries what it learned of them into the
/// student, whatever protects the student's training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DistillationTable {
    /// Who teaches: the path of a model file (relative to the experiment's), or
    /// `{ variant = "NAME" }` for the final model of an earlier variant of this experiment.
    pub teacher: TeacherSource,
    /// What logits are divided by before the softmax of teacher and student are compared, above 0
    /// and at most 1000.
    #[serde(default = "temperature")]
    pub temperature: f64,
    /// The share of the labels' loss, from 0 to 1; the teacher's response has the rest, times the
    /// square of the temperature.
    #[serde(default = "alpha")]
    pub alpha: f64,
    /// Layers of the student that are to give what layers of the teacher give, of the same height
    /// and width; where the numbers of channels differ, a linear map is trained with the student,
    /// travels with it, and is left out of the model in the end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<FeatureTable>,
    /// The distances and angles between the examples of a batch are to be the teacher's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relation: Option<RelationTable>,
}

/// Who teaches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum TeacherSource {
    /// The path of a model file: parameters, or a compiled program in any precision.
    File(PathBuf),
    /// An earlier variant.
    Variant(TeacherVariant),
}

/// The final model of an earlier variant of the experiment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TeacherVariant {
    /// The variant's name.
    pub variant: String,
    /// SHA-256 of the variant's resolved configuration, written by the program: a student of
    /// another teacher is another run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<String>,
}

/// A layer of the student that is to give what a layer of the teacher gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FeatureTable {
    /// The student's layer.
    pub student: String,
    /// The teacher's.
    pub teacher: String,
    /// What the mean squared error counts in the loss, above 0.
    #[serde(default = "one")]
    pub weight: f64,
}

/// The relations between the examples of a batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RelationTable {
    /// The student's layer; its logits by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub student: Option<String>,
    /// The teacher's; its logits by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher: Option<String>,
    /// What the distances of pairs count, at least 0.
    #[serde(default = "distance")]
    pub distance: f64,
    /// What the angles of triples count, at least 0; their cost grows with the third power of the
    /// batch.
    #[serde(default = "angle")]
    pub angle: f64,
}

fn temperature() -> f64 {
    4.0
}

fn alpha() -> f64 {
    0.1
}

fn one() -> f64 {
    1.0
}

fn distance() -> f64 {
    25.0
}

fn angle() -> f64 {
    50.0
}

impl DistillationTable {
    /// Reads and checks the table.
    pub(crate) fn read(node: &Node, path: &str, errors: &Diagnostics) -> Option<Self> {
        if let Some(teacher) = node.table().and_then(|table| table.get("teacher")) {
            // What is neither reads as no variant of the untagged type, which says too little.
            let path = join(path, "teacher");
            match teacher.table() {
                Some(_) => drop(decode::<TeacherVariant>(teacher, &path, errors)?),
                None => drop(decode::<PathBuf>(teacher, &path, errors)?),
            }
        }
        let table = decode::<Self>(node, path, errors)?;
        if let Err(error) = table.options().check() {
            Check::new(node, path, errors).fault(error.key(), error.to_string());
        }
        Some(table)
    }

    /// For the model.
    #[must_use]
    pub fn options(&self) -> DistillOptions {
        DistillOptions {
            temperature: self.temperature as f32,
            alpha: self.alpha as f32,
            features: (self.features.iter())
                .map(|feature| Feature {
                    student: feature.student.clone(),
                    teacher: feature.teacher.clone(),
                    weight: feature.weight as f32,
                })
                .collect(),
            relation: self.relation.as_ref().map(|relation| Relation {
                student: relation.student.clone(),
                teacher: relation.teacher.clone(),
                distance: relation.distance as f32,
                angle: relation.angle as f32,
            }),
        }
    }
}

/// The key of an experiment that causes an error.
pub(crate) fn key(error: &DistillError) -> String {
    format!("local.distillation.{}", error.key())
}
