//! Made-up examples and models that together use every operator.

use fl_core::{
    ClientId, Examples, InputSpec, InputsMut, NO_TARGET, Purpose, RoundId, Seed, Stream,
    TargetSpec, TargetsMut,
};
use fl_edge::{Model, ModelDef};
use std::sync::Arc;

/// A stream for tests.
pub(crate) fn stream(number: u64) -> Stream {
    Stream::at(Purpose::Testing, Seed(number), RoundId(0), ClientId(0))
}

/// Normal inputs (or uniform tokens) with random targets.
pub(crate) struct Synthetic {
    input: InputSpec,
    target: TargetSpec,
    pub(crate) reals: Vec<f32>,
    pub(crate) tokens: Vec<u32>,
    pub(crate) labels: Vec<u32>,
    pub(crate) targets: Vec<f32>,
    len: usize,
}

impl Synthetic {
    pub(crate) fn new(input: &InputSpec, target: TargetSpec, len: usize, seed: u64) -> Self {
        let mut stream = stream(seed);
        let mut data = Self {
            input: input.clone(),
            target,
            reals: Vec::new(),
            tokens: Vec::new(),
            labels: Vec::new(),
            targets: Vec::new(),
            len,
        };
        match input {
            InputSpec::Real(_) => {
                data.reals = (0..len * input.len())
                    .map(|_| stream.normal() as f32)
                    .collect();
            }
            InputSpec::Tokens { vocabulary, .. } => {
                data.tokens = (0..len * input.len())
                    .map(|_| stream.below(*vocabulary as u64) as u32)
                    .collect();
            }
        }
        match target {
            TargetSpec::Class { classes } => {
                data.labels = (0..len)
                    .map(|_| stream.below(classes as u64) as u32)
                    .collect();
            }
            TargetSpec::Sequence { length, classes } => {
                // Every fifth position or so has no target.
                data.labels = (0..len * length)
                    .map(|_| match stream.below(5) {
                        0 => NO_TARGET,
                        _ => stream.below(classes as u64) as u32,
                    })
                    .collect();
            }
            TargetSpec::Real { width } => {
                data.targets = (0..len * width).map(|_| stream.uniform() as f32).collect();
            }
        }
        data
    }
}

fn gather<T: Copy>(rows: &[u32], width: usize, from: &[T], to: &mut [T]) {
    for (to, &row) in to.chunks_exact_mut(width).zip(rows) {
        to.copy_from_slice(&from[row as usize * width..][..width]);
    }
}

impl Examples for Synthetic {
    fn len(&self) -> usize {
        self.len
    }

    fn input(&self) -> &InputSpec {
        &self.input
    }

    fn target(&self) -> TargetSpec {
        self.target
    }

    fn fill(&self, rows: &[u32], inputs: InputsMut<'_>, targets: TargetsMut<'_>) {
        let width = self.input.len();
        match inputs {
            InputsMut::Real(to) => gather(rows, width, &self.reals, to),
            InputsMut::Tokens(to) => gather(rows, width, &self.tokens, to),
        }
        match (targets, self.target) {
            (TargetsMut::Classes(to), target) => gather(rows, target.labels(), &self.labels, to),
            (TargetsMut::Real(to), TargetSpec::Real { width }) => {
                gather(rows, width, &self.targets, to);
            }
            (TargetsMut::Real(_), _) => unreachable!("targets are classes"),
        }
    }

    fn real_rows(&self) -> Option<&[f32]> {
        matches!(self.input, InputSpec::Real(_)).then_some(&self.reals)
    }
}

/// A model and the examples that it takes.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) def: ModelDef,
    pub(crate) model: Arc<Model>,
}

impl Case {
    pub(crate) fn new(
        name: &'static str,
        text: &str,
        input: &InputSpec,
        target: TargetSpec,
    ) -> Self {
        let def =
            toml::from_str::<ModelDef>(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let model =
            Model::new(&def, input, target).unwrap_or_else(|error| panic!("{name}: {error}"));
        Self {
            name,
            def,
            model: Arc::new(model),
        }
    }

    pub(crate) fn data(&self, len: usize) -> Synthetic {
        Synthetic::new(self.model.input(), self.model.target(), len, 99)
    }

    pub(crate) fn has_batch_norm(&self) -> bool {
        let tensors = self.model.layout().tensors();
        tensors.iter().any(|t| t.name.ends_with(".running_var"))
    }

    /// Whether it has layers that quantization-aware training refuses.
    pub(crate) fn has_sequences(&self) -> bool {
        let graph = self.model.graph();
        (graph.nodes.iter()).any(|node| graph.sequence_kind(node).is_some())
    }

    pub(crate) fn has_dropout(&self) -> bool {
        self.model
            .summary()
            .iter()
            .any(|layer| layer.kind == "dropout")
    }
}

const CLASSES: TargetSpec = TargetSpec::Class { classes: 3 };

/// Small models that together use every operator in every way that the plan treats differently.
pub(crate) fn operators() -> Vec<Case> {
    let image = InputSpec::Real(vec![6, 7, 4]);
    let row = InputSpec::Real(vec![9]);
    let tokens = InputSpec::Tokens {
        length: 5,
        vocabulary: 11,
    };
    let sequence = InputSpec::Real(vec![7, 4]);
    // A convolution before, so that the gradient of the layer's input is seen, and a dense layer
    // after.
    let within = |name: &'static str, layers: &str| {
        let text = format!(
            "[[layer]]\nkind = \"conv2d\"\nname = \"first\"\nfilters = 4\nkernel = 3\n\
             padding = \"same\"\n{layers}\n[[layer]]\nkind = \"flatten\"\n\
             [[layer]]\nkind = \"dense\"\nname = \"last\"\n"
        );
        Case::new(name, &text, &image, CLASSES)
    };
    let plain =
        |name: &'static str, kind: &str| within(name, &format!("[[layer]]\nkind = \"{kind}\"\n"));
    vec![
        Case::new(
            "dense",
            "layer = [{ kind = \"dense\", units = 7, activation = \"relu\" },\n\
             { kind = \"dense\", bias = false }]",
            &row,
            CLASSES,
        ),
        Case::new(
            "dense without relu, mse",
            "loss = \"mse\"\nlayer = [{ kind = \"dense\", units = 7, activation = \"tanh\", init = \"torch\" },\n\
             { kind = \"dense\" }]",
            &row,
            TargetSpec::Real { width: 2 },
        ),
        Case::new(
            "bce",
            "loss = \"bce\"\nlayer = [{ kind = \"dense\", units = 5, activation = \"gelu\" },\n\
             { kind = \"dense\" }]",
            &row,
            TargetSpec::Real { width: 2 },
        ),
        within(
            "conv valid with relu",
            "[[layer]]\nkind = \"conv2d\"\nfilters = 5\nkernel = 3\nactivation = \"relu\"\n",
        ),
        within(
            "conv same, stride 2, no bias",
            "[[layer]]\nkind = \"conv2d\"\nfilters = 5\nkernel = 3\nstride = 2\npadding = \"same\"\nbias = false\n",
        ),
        within(
            "conv padded by 1, two groups",
            "[[layer]]\nkind = \"conv2d\"\nfilters = 6\nkernel = 3\npadding = 1\ngroups = 2\n",
        ),
        within(
            "conv two groups, stride 2",
            "[[layer]]\nkind = \"conv2d\"\nfilters = 6\nkernel = 2\nstride = 2\ngroups = 2\n",
        ),
        within(
            "conv depthwise",
            "[[layer]]\nkind = \"conv2d\"\nfilters = 4\nkernel = 3\npadding = \"same\"\ngroups = 4\n",
        ),
        within(
            "conv depthwise, stride 2",
            "[[layer]]\nkind = \"conv2d\"\nfilters = 4\nkernel = 3\nstride = 2\npadding = \"same\"\ngroups = 4\n",
        ),
        within(
            "conv oblong",
            "[[layer]]\nkind = \"conv2d\"\nfilters = 3\nkernel = [1, 4]\nstride = [2, 1]\npadding = [0, 2]\n",
        ),
        within(
            "conv 1x1",
            "[[layer]]\nkind = \"conv2d\"\nfilters = 3\nkernel = 1\n",
        ),
        within("max pool", "[[layer]]\nkind = \"max-pool\"\nsize = 2\n"),
        within(
            "max pool overlapping",
            "[[layer]]\nkind = \"max-pool\"\nsize = 3\nstride = 2\npadding = \"same\"\n",
        ),
        within(
            "relu undone by the pool",
            "[[layer]]\nkind = \"conv2d\"\nfilters = 5\nkernel = 3\nactivation = \"relu\"\n\
             [[layer]]\nkind = \"max-pool\"\nsize = 2\nstride = 1\n\
             [[layer]]\nkind = \"dropout\"\nrate = 0.3\n",
        ),
        within(
            "relu undone by the pool, no dropout",
            "[[layer]]\nkind = \"conv2d\"\nfilters = 5\nkernel = 3\nactivation = \"relu\"\n\
             [[layer]]\nkind = \"max-pool\"\nsize = 2\n",
        ),
        within(
            "avg pool",
            "[[layer]]\nkind = \"avg-pool\"\nsize = 3\nstride = 2\npadding = 1\n",
        ),
        plain("global avg pool", "global-avg-pool"),
        plain("global max pool", "global-max-pool"),
        plain("relu", "relu"),
        plain("leaky relu", "leaky-relu"),
        plain("gelu", "gelu"),
        plain("tanh", "tanh"),
        plain("sigmoid", "sigmoid"),
        within("dropout", "[[layer]]\nkind = \"dropout\"\nrate = 0.4\n"),
        within(
            "group norm",
            "[[layer]]\nkind = \"group-norm\"\ngroups = 2\n",
        ),
        within(
            "layer norm",
            "[[layer]]\nkind = \"flatten\"\n[[layer]]\nkind = \"layer-norm\"\n",
        ),
        within(
            "in place",
            "[[layer]]\nkind = \"conv2d\"\nfilters = 4\nkernel = 2\nactivation = \"relu\"\n\
             [[layer]]\nkind = \"dropout\"\nrate = 0.2\n[[layer]]\nkind = \"tanh\"\n\
             [[layer]]\nkind = \"group-norm\"\ngroups = 4\n[[layer]]\nkind = \"relu\"\n\
             [[layer]]\nkind = \"sigmoid\"\n",
        ),
        within(
            "residual",
            "[[layer]]\nkind = \"conv2d\"\nname = \"inner\"\nfilters = 4\nkernel = 3\npadding = \"same\"\nactivation = \"relu\"\n\
             [[layer]]\nkind = \"add\"\nfrom = \"first\"\n\
             [[layer]]\nkind = \"add\"\nfrom = \"inner\"\n\
             [[layer]]\nkind = \"add\"\nfrom = \"first\"\n",
        ),
        within(
            "residual of itself",
            "[[layer]]\nkind = \"add\"\nfrom = \"first\"\n",
        ),
        within(
            "residual of the input and of another shape",
            "[[layer]]\nkind = \"add\"\nfrom = \"input\"\n\
             [[layer]]\nkind = \"relu\"\nname = \"sum\"\n\
             [[layer]]\nkind = \"conv2d\"\nname = \"left\"\nfilters = 3\nkernel = 3\nstride = 2\n\
             [[layer]]\nkind = \"conv2d\"\ninput = \"sum\"\nfilters = 3\nkernel = 3\nstride = 2\n\
             [[layer]]\nkind = \"add\"\nfrom = \"left\"\n",
        ),
        Case::new(
            "embedding",
            "[[layer]]\nkind = \"embedding\"\nsize = 4\n[[layer]]\nkind = \"flatten\"\n\
             [[layer]]\nkind = \"dense\"\n",
            &tokens,
            CLASSES,
        ),
        Case::new(
            "embedding, mean",
            "[[layer]]\nkind = \"embedding\"\nsize = 4\n[[layer]]\nkind = \"global-avg-pool\"\n\
             [[layer]]\nkind = \"dense\"\nunits = 6\nactivation = \"sigmoid\"\n\
             [[layer]]\nkind = \"dense\"\n",
            &tokens,
            CLASSES,
        ),
        plain("relu6", "relu6"),
        within(
            "conv with relu6",
            "[[layer]]\nkind = \"conv2d\"\nfilters = 5\nkernel = 3\nactivation = \"relu6\"\n",
        ),
        within(
            "relu6 undone by the pool, then dropout",
            "[[layer]]\nkind = \"conv2d\"\nfilters = 5\nkernel = 3\nactivation = \"relu6\"\n\
             [[layer]]\nkind = \"max-pool\"\nsize = 2\n[[layer]]\nkind = \"dropout\"\nrate = 0.3\n",
        ),
        plain("batch norm", "batch-norm"),
        within(
            "batch norm with relu",
            "[[layer]]\nkind = \"batch-norm\"\nepsilon = 0.01\nmomentum = 0.3\n\
             [[layer]]\nkind = \"relu\"\n",
        ),
        within(
            "inverted residual",
            "[[layer]]\nkind = \"conv2d\"\nfilters = 8\nkernel = 1\nbias = false\n\
             [[layer]]\nkind = \"batch-norm\"\n[[layer]]\nkind = \"relu6\"\n\
             [[layer]]\nkind = \"conv2d\"\nfilters = 8\nkernel = 3\npadding = 1\ngroups = 8\nbias = false\n\
             [[layer]]\nkind = \"batch-norm\"\n[[layer]]\nkind = \"relu6\"\n\
             [[layer]]\nkind = \"conv2d\"\nfilters = 4\nkernel = 1\nbias = false\n\
             [[layer]]\nkind = \"batch-norm\"\n[[layer]]\nkind = \"add\"\nfrom = \"first\"\n",
        ),
        Case::new(
            "batch norm of the input and of rows",
            "layer = [{ kind = \"batch-norm\" }, { kind = \"dense\", units = 7 },\n\
             { kind = \"batch-norm\" }, { kind = \"tanh\" }, { kind = \"dense\" }]",
            &row,
            CLASSES,
        ),
        Case::new(
            "lstm",
            "layer = [{ kind = \"embedding\", size = 4 }, { kind = \"lstm\", units = 6 },\n\
             { kind = \"last\" }, { kind = \"dense\" }]",
            &tokens,
            CLASSES,
        ),
        Case::new(
            "two lstms, odd sizes",
            "layer = [{ kind = \"lstm\", units = 19 }, { kind = \"lstm\", units = 3 },\n\
             { kind = \"global-avg-pool\" }, { kind = \"dense\" }]",
            &sequence,
            CLASSES,
        ),
        Case::new(
            "gru",
            "layer = [{ kind = \"gru\", units = 17 }, { kind = \"dropout\", rate = 0.0 },\n\
             { kind = \"gru\", units = 5 }, { kind = \"last\" }, { kind = \"dense\" }]",
            &sequence,
            CLASSES,
        ),
        Case::new(
            "attention",
            "layer = [{ kind = \"attention\", heads = 1, bias = false }, { kind = \"flatten\" },\n\
             { kind = \"dense\" }]",
            &sequence,
            CLASSES,
        ),
        Case::new(
            "transformer block",
            "[[layer]]\nkind = \"embedding\"\nsize = 8\n\
             [[layer]]\nkind = \"position\"\nname = \"start\"\n\
             [[layer]]\nkind = \"layer-norm\"\n\
             [[layer]]\nkind = \"attention\"\nheads = 2\ncausal = true\n\
             [[layer]]\nkind = \"add\"\nname = \"middle\"\nfrom = \"start\"\n\
             [[layer]]\nkind = \"layer-norm\"\n\
             [[layer]]\nkind = \"dense\"\nunits = 16\nactivation = \"gelu\"\n\
             [[layer]]\nkind = \"dense\"\nunits = 8\n\
             [[layer]]\nkind = \"add\"\nfrom = \"middle\"\n\
             [[layer]]\nkind = \"layer-norm\"\n[[layer]]\nkind = \"last\"\n\
             [[layer]]\nkind = \"dense\"\n",
            &tokens,
            CLASSES,
        ),
        Case::new(
            "recurrent layers of what others read too",
            "[[layer]]\nkind = \"dense\"\nname = \"first\"\nunits = 4\nactivation = \"relu\"\n\
             [[layer]]\nkind = \"position\"\n\
             [[layer]]\nkind = \"gru\"\nunits = 4\n\
             [[layer]]\nkind = \"add\"\nfrom = \"first\"\n\
             [[layer]]\nkind = \"lstm\"\nname = \"second\"\nunits = 4\n\
             [[layer]]\nkind = \"attention\"\nheads = 4\n\
             [[layer]]\nkind = \"add\"\nfrom = \"second\"\n\
             [[layer]]\nkind = \"dropout\"\nrate = 0.3\n[[layer]]\nkind = \"flatten\"\n\
             [[layer]]\nkind = \"dense\"\n",
            &sequence,
            CLASSES,
        ),
        Case::new(
            "lstm-shakespeare, every position",
            "kind = \"lstm-shakespeare\"\nembedding = 3\nunits = [5, 6]",
            &tokens,
            TargetSpec::Sequence {
                length: 5,
                classes: 11,
            },
        ),
        Case::new(
            "transformer, every position",
            "kind = \"transformer\"\nwidth = 8\nheads = 2\nblocks = 1\nunits = 12",
            &tokens,
            TargetSpec::Sequence {
                length: 5,
                classes: 11,
            },
        ),
    ]
}

/// How many of [`operators`] the first golden digest is over.
pub(crate) const FIRST_OPERATORS: usize = 32;
