//! Random networks that label their own examples, so that their accuracy is 1 without training.

use std::sync::Arc;

use fl_core::{
    ClientId, Examples, InputSpec, InputsMut, Purpose, RoundId, Seed, Stream, TargetSpec,
    TargetsMut,
};
use fl_edge::quant::Samples;
use fl_edge::{Model, ModelDef, Numerics, Passes, Program};

/// Examples in memory.
#[derive(Clone)]
pub(crate) struct Rows {
    pub(crate) input: InputSpec,
    pub(crate) values: Vec<f32>,
    pub(crate) classes: Vec<u32>,
}

impl Examples for Rows {
    fn len(&self) -> usize {
        self.classes.len()
    }

    fn input(&self) -> &InputSpec {
        &self.input
    }

    fn target(&self) -> TargetSpec {
        TargetSpec::Class { classes: 10 }
    }

    fn fill(&self, rows: &[u32], inputs: InputsMut<'_>, targets: TargetsMut<'_>) {
        let width = self.input.len();
        let (InputsMut::Real(inputs), TargetsMut::Classes(classes)) = (inputs, targets) else {
            unreachable!("real inputs and classes");
        };
        for ((&row, to), class) in rows.iter().zip(inputs.chunks_mut(width)).zip(classes) {
            to.copy_from_slice(&self.values[row as usize * width..][..width]);
            *class = self.classes[row as usize];
        }
    }
}

pub(crate) struct Teacher {
    pub(crate) model: Arc<Model>,
    pub(crate) parameters: Vec<f32>,
    pub(crate) rows: Rows,
}

impl Teacher {
    /// A network on normal inputs; the last input of each example is 0.
    pub(crate) fn new(layers: &str, shape: &[usize], examples: usize) -> Self {
        let def = toml::from_str::<ModelDef>(layers).expect("reads");
        let input = InputSpec::Real(shape.to_vec());
        let target = TargetSpec::Class { classes: 10 };
        let model = Arc::new(Model::new(&def, &input, target).expect("builds"));
        let mut stream = Stream::at(Purpose::Testing, Seed(5), RoundId(0), ClientId(0));
        let parameters = model.init(&mut stream).values().to_vec();
        let width = input.len();
        let values = (0..examples * width).map(|index| match index % width == width - 1 {
            true => 0.0,
            false => stream.normal() as f32,
        });
        let mut teacher = Self {
            model,
            parameters,
            rows: Rows {
                input: input.clone(),
                values: values.collect(),
                classes: vec![0; examples],
            },
        };
        teacher.label();
        teacher
    }

    /// Labels the examples by the network as it is now.
    pub(crate) fn label(&mut self) {
        let outputs = self.samples().outputs(self.program(&Numerics::F32));
        let outputs = outputs.expect("the model's own inputs");
        for (class, outputs) in self.rows.classes.iter_mut().zip(outputs.chunks(10)) {
            let best = (0..10).max_by(|&a, &b| outputs[a].total_cmp(&outputs[b]));
            *class = best.expect("ten") as u32;
        }
    }

    pub(crate) fn samples(&self) -> Samples<'_> {
        Samples::all(&self.model, &self.rows).expect("of the model")
    }

    /// The share of its own answers that a program gives.
    pub(crate) fn accuracy(&self, program: Program) -> f64 {
        let accuracy = self.samples().accuracy(program);
        accuracy.expect("of the model").expect("classes")
    }

    pub(crate) fn program(&self, numerics: &Numerics) -> Program {
        Program::compile(&self.model, &self.parameters, numerics, Passes::ALL).expect("compiles")
    }

    /// The tensor of a name.
    pub(crate) fn tensor(&mut self, name: &str) -> &mut [f32] {
        let tensors = self.model.layout().tensors();
        let tensor = tensors.iter().find(|tensor| tensor.name == name);
        &mut self.parameters[tensor.expect("a tensor").range()]
    }
}
