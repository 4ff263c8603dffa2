//! Hostile files: they give errors, never a panic, a long run or much memory.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use fl_core::{ClientId, Purpose, RoundId, Seed, Stream};
use fl_onnx::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetId,
    StringStringEntry, ValueInfoProto, attribute_type, data_type,
};
use fl_onnx::{
    DType, Interpreter, Limits, ModelError, NodeError, OnnxError, Tensor, TensorError, decode,
    encode,
};

use crate::cases;

/// What the tests here allow; a model that asks for more gets an error.
const TIGHT: Limits = Limits {
    file_bytes: 1 << 20,
    tensor_bytes: 1 << 20,
    live_bytes: 1 << 22,
    nodes: 2_000,
    depth: 8,
};

fn node(op: &str, inputs: &[&str], outputs: &[&str], attributes: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        op_type: op.to_owned(),
        input: inputs.iter().map(|&name| name.to_owned()).collect(),
        output: outputs.iter().map(|&name| name.to_owned()).collect(),
        attribute: attributes,
        ..NodeProto::default()
    }
}

fn graph_attribute(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        r#type: attribute_type::GRAPH,
        g: Some(graph),
        ..AttributeProto::default()
    }
}

fn model(graph: GraphProto) -> ModelProto {
    ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetId {
            domain: String::new(),
            version: 17,
        }],
        graph: Some(graph),
        ..ModelProto::default()
    }
}

fn value(name: &str, elem_type: i32, sizes: &[i64]) -> ValueInfoProto {
    let sizes: Vec<Result<i64, &str>> = sizes.iter().map(|&size| Ok(size)).collect();
    ValueInfoProto::tensor(name, elem_type, &sizes)
}

/// A convolution, a branch, a loop and a function on a 1x1x4x4 image.
fn small_model() -> (ModelProto, BTreeMap<String, Tensor>) {
    let weight = Tensor::new(vec![2, 1, 3, 3], (0..18).map(|i| i as f32 * 0.1).collect()).unwrap();
    let branch = |op: &str| GraphProto {
        name: op.to_owned(),
        node: vec![node(op, &["conv"], &["branch"], vec![])],
        output: vec![value("branch", data_type::FLOAT, &[1, 2, 4, 4])],
        ..GraphProto::default()
    };
    let body = GraphProto {
        name: "body".to_owned(),
        node: vec![
            node("Identity", &["go"], &["again"], vec![]),
            node("Add", &["state", "state"], &["next"], vec![]),
        ],
        input: vec![
            value("trip", data_type::INT64, &[]),
            value("go", data_type::BOOL, &[]),
            value("state", data_type::FLOAT, &[1, 8]),
        ],
        output: vec![
            value("again", data_type::BOOL, &[]),
            value("next", data_type::FLOAT, &[1, 8]),
        ],
        ..GraphProto::default()
    };
    let graph = GraphProto {
        name: "small".to_owned(),
        node: vec![
            node(
                "Conv",
                &["x", "weight"],
                &["conv"],
                vec![AttributeProto::ints("pads", &[1, 1, 1, 1])],
            ),
            node(
                "If",
                &["which"],
                &["chosen"],
                vec![
                    graph_attribute("then_branch", branch("Relu")),
                    graph_attribute("else_branch", branch("Neg")),
                ],
            ),
            node(
                "MaxPool",
                &["chosen"],
                &["pooled"],
                vec![
                    AttributeProto::ints("kernel_shape", &[2, 2]),
                    AttributeProto::ints("strides", &[2, 2]),
                ],
            ),
            node("Reshape", &["pooled", "shape"], &["flat"], vec![]),
            node(
                "Loop",
                &["trips", "", "flat"],
                &["doubled"],
                vec![graph_attribute("body", body)],
            ),
            NodeProto {
                domain: "local".to_owned(),
                ..node("Halve", &["doubled"], &["y"], vec![])
            },
        ],
        initializer: vec![
            weight.to_proto("weight"),
            Tensor::scalar(true).to_proto("which"),
            Tensor::vector(vec![1_i64, -1]).to_proto("shape"),
            Tensor::scalar(3_i64).to_proto("trips"),
        ],
        input: vec![value("x", data_type::FLOAT, &[1, 1, 4, 4])],
        output: vec![value("y", data_type::FLOAT, &[1, 8])],
        ..GraphProto::default()
    };
    let mut model = model(graph);
    model.opset_import.push(OperatorSetId {
        domain: "local".to_owned(),
        version: 1,
    });
    model.functions = vec![FunctionProto {
        name: "Halve".to_owned(),
        domain: "local".to_owned(),
        input: vec!["a".to_owned()],
        output: vec!["b".to_owned()],
        node: vec![
            node(
                "Constant",
                &[],
                &["half"],
                vec![AttributeProto::float("value_float", 0.5)],
            ),
            node("Mul", &["a", "half"], &["b"], vec![]),
        ],
        ..FunctionProto::default()
    }];
    let x = Tensor::new(vec![1, 1, 4, 4], (0..16).map(|i| i as f32 - 5.0).collect()).unwrap();
    (model, BTreeMap::from([("x".to_owned(), x)]))
}

fn run(
    bytes: &[u8],
    inputs: &BTreeMap<String, Tensor>,
) -> Result<BTreeMap<String, Tensor>, OnnxError> {
    let model = decode(bytes, &TIGHT)?;
    Interpreter::new(&model, &TIGHT)?.run(inputs)
}

fn calm<T>(what: &str, f: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|_| panic!("a panic: {what}"))
}

/// The largest memory that the process has used, in bytes, where the system tells.
fn peak_memory() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kilobytes: usize = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes * 1024)
}

#[test]
fn the_small_model_runs() {
    let (model, inputs) = small_model();
    let outputs = run(&encode(&model), &inputs).unwrap();
    // Element (row 2, column 2) of either filter, by hand: the window of x there is 0, 1, 2, 4, 5,
    // 6, 8, 9, 10 (less nothing), and so on; here the last pool of filter 0 is the largest of four.
    let x = |row: i64, column: i64| -> f64 {
        if (0..4).contains(&row) && (0..4).contains(&column) {
            (row * 4 + column) as f64 - 5.0
        } else {
            0.0
        }
    };
    let conv = |filter: i64, row: i64, column: i64| -> f64 {
        (0..9)
            .map(|tap| {
                f64::from((filter * 9 + tap) as f32 * 0.1)
                    * x(row + tap / 3 - 1, column + tap % 3 - 1)
            })
            .sum::<f64>()
            .max(0.0)
    };
    let y = outputs["y"].to_f64();
    assert_eq!(outputs["y"].shape(), [1, 8]);
    for (place, y) in y.iter().enumerate() {
        let (filter, row, column) = (place as i64 / 4, place as i64 / 2 % 2, place as i64 % 2);
        let expected = (0..4)
            .map(|i| conv(filter, 2 * row + i / 2, 2 * column + i % 2))
            .fold(0.0, f64::max)
            * 4.0;
        assert!((y - expected).abs() < 1e-4, "{place}: {y} {expected}");
    }
}

#[test]
fn a_truncated_model_never_panics() {
    let (model, inputs) = small_model();
    let bytes = encode(&model);
    let mut errors = 0;
    for end in 0..bytes.len() {
        let result = calm(&format!("{end} bytes"), || run(&bytes[..end], &inputs));
        errors += usize::from(result.is_err());
    }
    // A prefix that ends between the fields of the model may lack only what is not needed.
    assert!(
        errors + 4 > bytes.len(),
        "{errors} errors of {}",
        bytes.len()
    );
}

#[test]
fn flipped_bits_never_panic() {
    let (model, inputs) = small_model();
    let mut bytes = encode(&model);
    let before = peak_memory();
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        // What still is a model may run; it must only end.
        let _ = calm(&format!("bit {bit}"), || run(&bytes, &inputs));
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    if let (Some(before), Some(after)) = (before, peak_memory()) {
        assert!(after - before < 64 << 20, "{} bytes more", after - before);
    }
}

/// Every operator of the needed node tests under changed bytes and changed inputs.
#[test]
fn mutated_node_tests_never_panic() {
    let cases = cases::read(include_bytes!("../fixtures/nodes.bin")).unwrap();
    let before = peak_memory();
    for (number, case) in cases.iter().enumerate() {
        let at = ClientId(number as u64);
        let mut stream = Stream::at(Purpose::Testing, Seed(3), RoundId(0), at);
        for round in 0..24 {
            let what = format!("{} round {round}", case.name);
            let mut bytes = case.model.clone();
            if round % 2 == 0 {
                for _ in 0..1 + stream.below(3) {
                    let place = stream.below(bytes.len() as u64) as usize;
                    bytes[place] = stream.below(256) as u8;
                }
            }
            let Ok(mut model) = decode(&bytes, &TIGHT) else {
                continue;
            };
            let Ok(mut inputs) = case.inputs(&model) else {
                continue;
            };
            if round % 2 == 1 {
                for tensor in inputs.values_mut() {
                    *tensor = other_tensor(tensor, &mut stream);
                }
            }
            // Without declared types every input reaches the operator.
            for input in model.graph.iter_mut().flat_map(|graph| &mut graph.input) {
                if let Some(tensor) = inputs.get(&input.name) {
                    *input = ValueInfoProto::tensor(&input.name, tensor.dtype().to_onnx(), &[]);
                    if let Some(fl_onnx::proto::TypeValue::Tensor(t)) =
                        input.r#type.as_mut().and_then(|t| t.value.as_mut())
                    {
                        t.shape = None;
                    }
                }
            }
            calm(&what, || {
                let _ = Interpreter::new(&model, &TIGHT)
                    .and_then(|interpreter| interpreter.run(&inputs));
            });
        }
    }
    if let (Some(before), Some(after)) = (before, peak_memory()) {
        assert!(after - before < 64 << 20, "{} bytes more", after - before);
    }
}

/// A tensor of another shape, or with odd numbers, most often of the same type.
fn other_tensor(tensor: &Tensor, stream: &mut Stream) -> Tensor {
    let rank = match stream.below(3) {
        0 => stream.below(5) as usize,
        _ => tensor.rank(),
    };
    let shape: Vec<usize> = (0..rank)
        .map(|at| match stream.below(3) {
            0 => stream.below(4) as usize,
            _ => tensor.shape().get(at).copied().unwrap_or(1),
        })
        .collect();
    let odd = [
        0_i64,
        1,
        -1,
        2,
        3,
        127,
        -128,
        255,
        i64::MAX,
        i64::MIN,
        1 << 40,
    ];
    let len: usize = shape.iter().product();
    let whole: Vec<i64> = (0..len)
        .map(|_| odd[stream.below(odd.len() as u64) as usize])
        .collect();
    let float = |i: &i64| match *i {
        i64::MAX => f32::INFINITY,
        i64::MIN => f32::NAN,
        i => i as f32,
    };
    match (stream.below(8), tensor.dtype()) {
        (0, _) | (_, DType::F32) => Tensor::new(shape, whole.iter().map(float).collect()),
        (1, _) | (_, DType::I64) => Tensor::new(shape, whole),
        (_, DType::Bool) => Tensor::new(shape, whole.iter().map(|&i| i > 0).collect()),
        (_, DType::I32) => Tensor::new(shape, whole.iter().map(|&i| i as i32).collect()),
        (_, DType::I8) => Tensor::new(shape, whole.iter().map(|&i| i as i8).collect()),
        (_, DType::F16) => {
            let values = whole.iter().map(|i| half::f16::from_f32(float(i)));
            Tensor::new(shape, values.collect())
        }
        _ => Tensor::new(shape, whole.iter().map(|&i| i as u8).collect()),
    }
    .unwrap()
}

/// The problem of a model of one node whose inputs are constants.
fn problem(op: &str, constants: &[Tensor], attributes: Vec<AttributeProto>) -> NodeError {
    let names: Vec<String> = (0..constants.len()).map(|i| format!("c{i}")).collect();
    let names: Vec<&str> = names.iter().map(|name| &**name).collect();
    let graph = GraphProto {
        node: vec![node(op, &names, &["y"], attributes)],
        initializer: constants
            .iter()
            .zip(&names)
            .map(|(tensor, name)| tensor.to_proto(name))
            .collect(),
        output: vec![value("y", data_type::FLOAT, &[])],
        ..GraphProto::default()
    };
    match run(&encode(&model(graph)), &BTreeMap::new()) {
        Err(OnnxError::Node { problem, .. }) => problem,
        other => panic!("{op}: {other:?}"),
    }
}

#[test]
fn shapes_that_ask_for_much_are_refused() {
    let whole = |list: &[i64]| Tensor::vector(list.to_vec());
    let x = Tensor::vector(vec![1.0_f32]);
    let big = 1_i64 << 40;
    let tensors: [(&str, Vec<Tensor>); 8] = [
        ("ConstantOfShape", vec![whole(&[big])]),
        ("ConstantOfShape", vec![whole(&[i64::MAX, i64::MAX, 4])]),
        ("Expand", vec![x.clone(), whole(&[big, 1])]),
        ("Tile", vec![x.clone(), whole(&[big])]),
        ("Pad", vec![x.clone(), whole(&[big, big])]),
        (
            "Range",
            vec![
                Tensor::scalar(0_i64),
                Tensor::scalar(big),
                Tensor::scalar(1_i64),
            ],
        ),
        (
            "OneHot",
            vec![whole(&[1]), Tensor::scalar(big), whole(&[0, 1])],
        ),
        (
            "Resize",
            vec![
                x.clone(),
                Tensor::vector(Vec::<f32>::new()),
                Tensor::vector(vec![1e12_f32]),
            ],
        ),
    ];
    for (op, constants) in tensors {
        let problem = problem(op, &constants, vec![]);
        assert!(
            matches!(problem, NodeError::TensorBytes { most, .. } if most == TIGHT.tensor_bytes),
            "{op}: {problem}"
        );
    }
    let image = Tensor::new(vec![1, 1, 2, 2], vec![0.0_f32; 4]).unwrap();
    let wide = [
        AttributeProto::ints("kernel_shape", &[1 << 20, 1 << 20]),
        AttributeProto::ints("pads", &[1 << 20; 4]),
    ];
    let pool = problem("MaxPool", &[image], wide.to_vec());
    assert!(matches!(pool, NodeError::TensorBytes { .. }), "{pool}");
}

#[test]
fn many_tensors_steps_and_calls_are_bounded() {
    // Twenty tensors of a quarter of the limit each, all needed at the end.
    let mut nodes = vec![node(
        "Constant",
        &[],
        &["shape"],
        vec![AttributeProto::ints("value_ints", &[60_000])],
    )];
    let names: Vec<String> = (0..40).map(|i| format!("t{i}")).collect();
    for name in &names {
        nodes.push(node("ConstantOfShape", &["shape"], &[name], vec![]));
    }
    let all: Vec<&str> = names.iter().map(|name| &**name).collect();
    nodes.push(node("Sum", &all, &["y"], vec![]));
    let output = vec![value("y", data_type::FLOAT, &[60_000])];
    let many = model(GraphProto {
        node: nodes,
        output: output.clone(),
        ..GraphProto::default()
    });
    let error = run(&encode(&many), &BTreeMap::new()).unwrap_err();
    assert!(
        matches!(
            error,
            OnnxError::Node {
                problem: NodeError::LiveBytes { .. },
                ..
            }
        ),
        "{error}"
    );

    // A loop without an end.
    let (mut endless, inputs) = small_model();
    let graph = endless.graph.as_mut().unwrap();
    let trips = graph.initializer.iter_mut().find(|t| t.name == "trips");
    *trips.unwrap() = Tensor::scalar(i64::MAX).to_proto("trips");
    let error = run(&encode(&endless), &inputs).unwrap_err();
    let steps = NodeError::Steps(TIGHT.nodes);
    assert!(
        matches!(&error, OnnxError::Node { problem, .. } if *problem == steps),
        "{error}"
    );

    // A function that applies itself, and functions that double.
    let function = |name: &str, inner: &str| FunctionProto {
        name: name.to_owned(),
        domain: "local".to_owned(),
        input: vec!["a".to_owned()],
        output: vec!["c".to_owned()],
        node: vec![
            NodeProto {
                domain: "local".to_owned(),
                ..node(inner, &["a"], &["b"], vec![])
            },
            NodeProto {
                domain: "local".to_owned(),
                ..node(inner, &["b"], &["c"], vec![])
            },
        ],
        ..FunctionProto::default()
    };
    let call = |op: &str| NodeProto {
        domain: "local".to_owned(),
        ..node(op, &["x"], &["y"], vec![])
    };
    let with = |functions: Vec<FunctionProto>, op: &str, limits: &Limits| {
        let mut model = model(GraphProto {
            node: vec![call(op)],
            input: vec![value("x", data_type::FLOAT, &[1])],
            output: output.clone(),
            ..GraphProto::default()
        });
        model.functions = functions;
        Interpreter::new(&model, limits).unwrap_err()
    };
    assert_eq!(
        with(vec![function("F", "F")], "F", &TIGHT),
        OnnxError::Model(ModelError::Depth(TIGHT.depth))
    );
    let deep = Limits { depth: 40, ..TIGHT };
    let mut doubling: Vec<FunctionProto> = (0..30)
        .map(|i| function(&format!("F{i}"), &format!("F{}", i + 1)))
        .collect();
    doubling.push(FunctionProto {
        node: vec![node("Neg", &["a"], &["c"], vec![])],
        ..function("F30", "")
    });
    assert_eq!(
        with(doubling, "F0", &deep),
        OnnxError::Model(ModelError::Nodes(TIGHT.nodes))
    );
}

type Change = fn(&mut ModelProto);

#[test]
fn sizes_beside_a_zero_count_too() {
    let empty = Tensor::new(vec![0, 1 << 30], Vec::<f32>::new()).unwrap();
    let (mut model, inputs) = small_model();
    let graph = model.graph.as_mut().unwrap();
    graph.initializer[0] = empty.to_proto("weight");
    let error = run(&encode(&model), &inputs).unwrap_err();
    assert_eq!(
        error.to_string(),
        "tensor `weight`: its shape [0, 1073741824] holds a negative size or too many elements"
    );
    let overflow = Tensor::new(vec![0, usize::MAX, 3], Vec::<f32>::new());
    assert!(overflow.is_err());
}

#[test]
fn faulty_models_name_what_is_wrong() {
    let limits = Limits::default();
    let compile = |change: Change| {
        let (mut model, _) = small_model();
        change(&mut model);
        Interpreter::new(&model, &limits).unwrap_err().to_string()
    };
    fn graph(model: &mut ModelProto) -> &mut GraphProto {
        model.graph.as_mut().unwrap()
    }
    let cases: [(Change, &str); 8] = [
        (
            |m| graph(m).initializer[0].data_location = 1,
            "tensor `weight`: its data are in another file; save the model with the data inside",
        ),
        (
            |m| {
                graph(m).initializer[0].external_data = vec![StringStringEntry {
                    key: "location".to_owned(),
                    value: "/etc/passwd".to_owned(),
                }];
            },
            "tensor `weight`: its data are in another file; save the model with the data inside",
        ),
        (
            |m| graph(m).initializer[0].dims[0] = 1 << 40,
            "tensor `weight`: it holds 72 bytes where its shape needs 39582418599936",
        ),
        (
            |m| graph(m).node[0].op_type = "Convolve".to_owned(),
            "node `#0`: the operator `Convolve` of domain `ai.onnx`, opset 17, is not supported; \
             export the model with other operators",
        ),
        (
            |m| graph(m).node[0].input[0] = "z".to_owned(),
            "the model uses the value `z` in `#0` before anything assigns it",
        ),
        (
            |m| graph(m).node[3].output[0] = "x".to_owned(),
            "the model assigns the value `x` twice; every value has one source",
        ),
        (
            |m| m.opset_import[0].version = 99,
            "the model asks for opset 99 of domain `ai.onnx` where 1 to 28 are known",
        ),
        (
            |m| graph(m).node[0].attribute[0].r#type = attribute_type::SPARSE_TENSOR,
            "node `#0` (Conv): attribute `pads` is missing or is no number, text, tensor or list \
             of numbers or texts",
        ),
    ];
    for (change, expected) in cases {
        assert_eq!(compile(change), expected);
    }
    let (model, mut inputs) = small_model();
    let interpreter = Interpreter::new(&model, &limits).unwrap();
    let wrong =
        |inputs: &BTreeMap<String, Tensor>| interpreter.run(inputs).unwrap_err().to_string();
    inputs.insert("x".to_owned(), Tensor::vector(vec![1.0_f32]));
    assert_eq!(
        wrong(&inputs),
        "input `x` has shape [1] where the model takes [1, 1, 4, 4]"
    );
    inputs.insert("x".to_owned(), Tensor::vector(vec![1_i64]));
    assert_eq!(
        wrong(&inputs),
        "input `x` has elements of i64 where the model takes f32"
    );
    inputs.clear();
    assert_eq!(
        wrong(&inputs),
        "input `x` is missing; give a tensor of that name"
    );
    inputs.insert("z".to_owned(), Tensor::scalar(1_i64));
    assert_eq!(
        wrong(&inputs),
        "input `z` is no input of the model; its inputs are x"
    );
    assert_eq!(
        Tensor::from_proto(&fl_onnx::proto::TensorProto {
            data_type: data_type::STRING,
            ..Default::default()
        }),
        Err(TensorError::Type(data_type::STRING))
    );
}
