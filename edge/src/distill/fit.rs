//! Whether teacher and student go together, and what that takes.

use alloc::borrow::ToOwned as _;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use fl_core::{Layout, TargetSpec};

use super::error::DistillError;
use super::teacher::Teacher;
use super::{DistillOptions, Relation};
use crate::error::{EdgeError, shape_text};
use crate::graph::{Graph, Start, TensorId, Value, ValueId, units};
use crate::kernel::Dense;
use crate::model::Model;

/// A teacher with what is learned from it, fitted to a student.
#[derive(Clone, Debug)]
pub(crate) struct Distillation {
    pub(crate) teacher: Teacher,
    pub(crate) options: DistillOptions,
    pub(super) features: Vec<Matched>,
    pub(super) relation: Option<Related>,
    /// The teacher's values that are looked at: name, and numbers for an example.
    pub(super) shown: Vec<(String, usize)>,
    /// Numbers of its output.
    pub(super) width: usize,
}

/// Two layers that are compared.
#[derive(Clone, Debug)]
pub(super) struct Matched {
    pub(super) student: ValueId,
    /// Which of the teacher's values.
    pub(super) shown: usize,
    pub(super) positions: usize,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    /// Weight and bias, where the widths differ.
    pub(super) projection: Option<[TensorId; 2]>,
    pub(super) weight: f32,
}

/// Two layers whose examples are compared with one another.
#[derive(Clone, Debug)]
pub(super) struct Related {
    pub(super) student: ValueId,
    pub(super) inputs: usize,
    /// Which of the teacher's values; its logits when none.
    pub(super) shown: Option<usize>,
    pub(super) outputs: usize,
    pub(super) distance: f32,
    pub(super) angle: f32,
}

/// A tensor of a projection.
pub(crate) struct Projection {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) start: Start,
}

fn in_range(key: String, value: f32, fits: bool, range: &'static str) -> Result<(), DistillError> {
    match fits {
        true => Ok(()),
        false => Err(DistillError::Range { key, value, range }),
    }
}

impl DistillOptions {
    /// The ranges of its numbers, whatever student and teacher are.
    ///
    /// # Errors
    /// [`DistillError::Range`], [`DistillError::Nothing`] or [`DistillError::Twice`].
    pub fn check(&self) -> Result<(), DistillError> {
        let Self {
            temperature,
            alpha,
            features,
            relation,
        } = self;
        let (t, a) = (*temperature, *alpha);
        let fits = t > 0.0 && t <= 1000.0;
        in_range(
            "temperature".to_owned(),
            t,
            fits,
            "above 0 and at most 1000",
        )?;
        in_range(
            "alpha".to_owned(),
            a,
            (0.0..=1.0).contains(&a),
            "from 0 to 1",
        )?;
        for (index, feature) in features.iter().enumerate() {
            let weight = feature.weight;
            let fits = weight > 0.0 && weight.is_finite();
            let key = || format!("features.{index}");
            in_range(
                format!("{}.weight", key()),
                weight,
                fits,
                "a number above 0",
            )?;
            let before = features[..index].iter();
            for other in before {
                if (&other.student, &other.teacher) == (&feature.student, &feature.teacher) {
                    return Err(DistillError::Twice {
                        key: key(),
                        student: feature.student.clone(),
                        teacher: feature.teacher.clone(),
                    });
                }
            }
        }
        if let Some(Relation {
            distance, angle, ..
        }) = relation
        {
            for (key, value) in [("distance", *distance), ("angle", *angle)] {
                let fits = value >= 0.0 && value.is_finite();
                in_range(
                    format!("relation.{key}"),
                    value,
                    fits,
                    "a number of at least 0",
                )?;
            }
            let some = *distance > 0.0 || *angle > 0.0;
            let range = "above 0, or relation.angle must be";
            in_range("relation.distance".to_owned(), *distance, some, range)?;
        }
        match a >= 1.0 && features.is_empty() && relation.is_none() {
            true => Err(DistillError::Nothing),
            false => Ok(()),
        }
    }
}

impl Distillation {
    /// With the tensors of the projections.
    pub(crate) fn fit(
        graph: &Graph,
        layout: &Layout,
        teacher: Teacher,
        options: DistillOptions,
    ) -> Result<(Self, Vec<Projection>), DistillError> {
        options.check()?;
        let (input, target) = (teacher.model().input(), teacher.model().target());
        if *input != graph.input {
            return Err(DistillError::Input {
                teacher: format!("{input:?}"),
                student: format!("{:?}", graph.input),
            });
        }
        if matches!(graph.target, TargetSpec::Real { .. }) {
            return Err(DistillError::NotClasses);
        }
        if target != graph.target {
            return Err(DistillError::Target {
                teacher: format!("{target:?}"),
                student: format!("{:?}", graph.target),
            });
        }
        let mut fitted = Self {
            width: teacher.program.output_len(),
            teacher,
            features: Vec::new(),
            relation: None,
            shown: Vec::new(),
            options: DistillOptions::default(),
        };
        let mut projections = Vec::new();
        for (index, feature) in options.features.iter().enumerate() {
            let key = |side: &str| format!("features.{index}.{side}");
            let student = student_value(graph, &feature.student, key("student"))?;
            let shown = fitted.show(&feature.teacher, key("teacher"))?;
            let of = teacher_value(fitted.teacher.model(), &feature.teacher, key("teacher"))?;
            let shape = &of.shape;
            let own = &graph.values[student];
            let [(here, inputs), (there, outputs)] = [&own.shape, shape].map(|it| maps(it));
            if here != there {
                return Err(DistillError::Positions {
                    key: format!("features.{index}"),
                    student: feature.student.clone(),
                    student_shape: shape_text(&own.shape),
                    teacher: feature.teacher.clone(),
                    teacher_shape: shape_text(shape),
                });
            }
            let projection = (inputs != outputs).then(|| {
                let first = layout.tensors().len() + projections.len();
                let name = format!("distill.{}.{}", feature.student, feature.teacher);
                projections.push(Projection {
                    name: format!("{name}.weight"),
                    shape: vec![inputs, outputs],
                    start: Start::Uniform(libm::sqrt(6.0 / (inputs + outputs) as f64)),
                });
                projections.push(Projection {
                    name: format!("{name}.bias"),
                    shape: vec![outputs],
                    start: Start::Constant(0.0),
                });
                [first, first + 1]
            });
            fitted.features.push(Matched {
                student,
                shown,
                positions: here.iter().product(),
                inputs,
                outputs,
                projection,
                weight: feature.weight,
            });
        }
        if let Some(relation) = &options.relation {
            let student = match &relation.student {
                Some(name) => student_value(graph, name, "relation.student".to_owned())?,
                None => graph.output,
            };
            let (shown, outputs) = match &relation.teacher {
                Some(name) => {
                    let shown = fitted.show(name, "relation.teacher".to_owned())?;
                    (Some(shown), fitted.shown[shown].1)
                }
                None => (None, fitted.width),
            };
            fitted.relation = Some(Related {
                student,
                inputs: graph.values[student].len(),
                shown,
                outputs,
                distance: relation.distance,
                angle: relation.angle,
            });
        }
        fitted.options = options;
        Ok((fitted, projections))
    }

    /// The place of a teacher's layer among the values that are looked at.
    fn show(&mut self, name: &str, key: String) -> Result<usize, DistillError> {
        let model = self.teacher.model();
        let value = teacher_value(model, name, key.clone())?;
        let root = &model.graph.values[value.root];
        if let Some(known) = self.shown.iter().position(|(it, _)| *it == root.name) {
            return Ok(known);
        }
        if !self.teacher.program.shows(&root.name) {
            return Err(DistillError::Hidden {
                key,
                name: name.to_owned(),
                numerics: self.teacher.program.numerics().name(),
            });
        }
        self.shown.push((root.name.clone(), root.len()));
        Ok(self.shown.len() - 1)
    }

    /// Numbers of all projections.
    pub(crate) fn projections_len(&self) -> usize {
        let projected = self.features.iter().filter(|it| it.projection.is_some());
        projected.map(|it| (it.inputs + 1) * it.outputs).sum()
    }

    /// The student's values that are looked at, features first.
    pub(crate) fn taps(&self) -> impl Iterator<Item = ValueId> + '_ {
        let features = self.features.iter().map(|it| it.student);
        features.chain(self.relation.iter().map(|it| it.student))
    }

    /// Whether single examples have a loss and gradients of their own, projections aside.
    pub(crate) fn is_response_alone(&self) -> bool {
        self.features.is_empty() && self.relation.is_none()
    }

    /// That every value that is looked at is one in integers, too.
    pub(crate) fn check_units(&self, graph: &Graph) -> Result<(), EdgeError> {
        let root = |value: ValueId| graph.values[value].root;
        let units = units(graph);
        let ends = units.iter().flat_map(|unit| [unit.own, unit.output]);
        let ends: BTreeSet<ValueId> = ends.map(root).collect();
        for tap in self.taps() {
            if !ends.contains(&root(tap)) {
                let known = ends.iter().map(|&end| graph.values[end].name.as_str());
                return Err(EdgeError::QatInside {
                    layer: graph.values[tap].name.clone(),
                    known: known.collect::<Vec<_>>().join(", "),
                });
            }
        }
        Ok(())
    }
}

impl Matched {
    /// The projection's product at one position.
    pub(super) fn dense(&self) -> Dense {
        Dense {
            inputs: self.inputs,
            outputs: self.outputs,
        }
    }
}

/// Positions and channels.
fn maps(shape: &[usize]) -> (&[usize], usize) {
    match shape {
        [positions @ .., channels] => (positions, *channels),
        [] => (&[], 1),
    }
}

fn find<'a>(
    graph: &'a Graph,
    name: &str,
    key: String,
    whose: &'static str,
) -> Result<(ValueId, &'a Value), DistillError> {
    let mut values = graph.values.iter().enumerate().skip(1);
    values.find(|(_, value)| value.name == name).ok_or_else(|| {
        let known = graph.values.iter().skip(1).map(|value| value.name.as_str());
        DistillError::UnknownLayer {
            key,
            name: name.to_owned(),
            whose,
            known: known.collect::<Vec<_>>().join(", "),
        }
    })
}

fn teacher_value<'a>(model: &'a Model, name: &str, key: String) -> Result<&'a Value, DistillError> {
    Ok(find(&model.graph, name, key, "teacher")?.1)
}

/// A layer of the student that something can be learned for.
fn student_value(graph: &Graph, name: &str, key: String) -> Result<ValueId, DistillError> {
    let (value, _) = find(graph, name, key.clone(), "student")?;
    match graph.depends_on_parameters(value) {
        true => Ok(value),
        false => Err(DistillError::NothingLearns {
            key,
            name: name.to_owned(),
        }),
    }
}
