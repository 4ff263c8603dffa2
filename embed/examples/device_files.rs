//! What `device.c` needs and what it should print: a program and a file of parameters in the folder
//! that is named, and on standard output the numbers, computed through [`fl_edge`] itself.

use std::error::Error;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use fl_core::{
    ClientId, Examples, InputSpec, InputsMut, Optimizer, Purpose, RoundId, Seed, Stream,
    TargetSpec, TargetsMut,
};
use fl_edge::file::{write_parameters, write_program};
use fl_edge::kernel::Kernels;
use fl_edge::{Inputs, Model, ModelDef, Numerics, Passes, Program, Runner, Session, Step};

const EXAMPLES: usize = 4;

/// The examples of `device.c`.
struct Made {
    input: InputSpec,
    target: TargetSpec,
    inputs: Vec<f32>,
    labels: Vec<u32>,
}

impl Examples for Made {
    fn len(&self) -> usize {
        EXAMPLES
    }
    fn input(&self) -> &InputSpec {
        &self.input
    }
    fn target(&self) -> TargetSpec {
        self.target
    }
    fn fill(&self, rows: &[u32], inputs: InputsMut<'_>, targets: TargetsMut<'_>) {
        let width = self.input.len();
        if let InputsMut::Real(to) = inputs {
            for (to, &row) in to.chunks_exact_mut(width).zip(rows) {
                to.copy_from_slice(&self.inputs[row as usize * width..][..width]);
            }
        }
        if let TargetsMut::Classes(to) = targets {
            for (to, &row) in to.iter_mut().zip(rows) {
                *to = self.labels[row as usize];
            }
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).map(PathBuf::from);
    let folder = folder.ok_or("usage: device_files FOLDER")?;
    let def = ModelDef::named("cnn-fedavg").ok_or("a model of the zoo")?;
    let (input, target) = (
        InputSpec::Real(vec![28, 28, 1]),
        TargetSpec::Class { classes: 10 },
    );
    let model = Arc::new(Model::new(&def, &input, target)?);
    let global = model.init(&mut Stream::at(
        Purpose::ModelInit,
        Seed(1),
        RoundId(0),
        ClientId(0),
    ));
    let numerics = Numerics::F16;
    let program = Program::compile(&model, global.values(), &numerics, Passes::default())?;
    let mut file = std::fs::File::create(folder.join("parameters.safetensors"))?;
    write_parameters(&model, &global, &mut file)?;
    let mut file = std::fs::File::create(folder.join("program.safetensors"))?;
    write_program(&program, &mut file)?;

    let inputs = (0..EXAMPLES * input.len()).map(|i| (i % 17) as f32 / 16.0);
    let data = Made {
        inputs: inputs.collect(),
        labels: (0..EXAMPLES as u32).map(|i| i % 10).collect(),
        input,
        target,
    };
    let mut out = std::io::stdout().lock();
    let mut outputs = vec![0.0; EXAMPLES * 10];
    Runner::new(Arc::new(program), 1).run(Inputs::Real(&data.inputs), &mut outputs);
    for output in outputs {
        writeln!(out, "{output}")?;
    }
    let mut session = Session::new(model, Kernels::best());
    let optimizer = Optimizer::Sgd {
        momentum: 0.9,
        nesterov: false,
        weight_decay: 0.0,
    };
    session.start(global.values(), &optimizer, EXAMPLES);
    let step = Step {
        optimizer,
        rate: 0.1,
        number: 0,
        max_norm: None,
        proximal_mu: 0.0,
        anchor: global.values(),
    };
    let mut stream = Stream::at(Purpose::LocalTraining, Seed(0), RoundId(1), ClientId(7));
    let loss = session.step(&data, &[0, 1, 2, 3], &step, &mut stream)?;
    writeln!(out, "{}", loss / EXAMPLES as f64)?;
    for (local, global) in session.weights().iter().zip(global.values()) {
        writeln!(out, "{}", local - global)?;
    }
    Ok(())
}
