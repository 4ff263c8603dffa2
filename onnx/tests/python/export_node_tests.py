"""Writes the node tests of the `onnx` package where the Rust harness can read them.

    python export_node_tests.py FOLDER

Needs the packages pinned in requirements.txt. The folder gets a subfolder for each case with
`model.onnx`, `input_N.pb` and `output_N.pb` (TensorProto, in the order of the graph's inputs and
outputs), and `cases.txt`: one line `name group rtol atol` for each case.

Which cases: those of `onnx.backend.test` of kind "node" whose inputs and outputs are all dense
tensors of the types in TYPES. They fall into two groups:

- `needed`: the case applies one operator, of the list NEEDED: what a classifier or a small
  transformer computes when it is served, also quantized, with the shape arithmetic that exporters
  write around it. This is the group that the project counts.
- `other`: every other case of these types: further operators (losses, resizing, recurrent layers,
  bit shifts, signal processing, ...) and the cases `*_expanded`, which apply an operator's
  defining function node by node. They are run, too, and must not give a wrong answer.
"""

import os
import sys
import warnings

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

# Some cases draw their data when they are collected.
np.random.seed(0)
warnings.filterwarnings("ignore")

from onnx.backend.test.loader import load_model_tests  # noqa: E402

TYPES = {
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.INT8,
    TensorProto.UINT8,
    TensorProto.INT32,
    TensorProto.INT64,
    TensorProto.BOOL,
}

NEEDED = set(
    """
    Abs Neg Sign Exp Log Sqrt Reciprocal Ceil Floor Round Erf Sin Cos IsInf IsNaN
    Relu LeakyRelu PRelu Elu Celu Selu ThresholdedRelu HardSigmoid HardSwish Sigmoid Tanh
    Softplus Softsign Gelu Mish Swish SwiGLU Clip
    Add Sub Mul Div Pow Mod Max Min Sum Mean
    Equal Greater GreaterOrEqual Less LessOrEqual And Or Xor Not Where
    Cast CastLike
    Conv Gemm MatMul Einsum
    ConvInteger MatMulInteger QLinearConv QLinearMatMul
    QuantizeLinear DequantizeLinear DynamicQuantizeLinear
    MaxPool AveragePool LpPool GlobalAveragePool GlobalMaxPool
    BatchNormalization InstanceNormalization LayerNormalization GroupNormalization
    RMSNormalization LRN LpNormalization MeanVarianceNormalization
    Softmax LogSoftmax Hardmax
    ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd
    ReduceSum ReduceSumSquare ArgMax ArgMin CumSum TopK
    Attention RotaryEmbedding TensorScatter
    Reshape Flatten Squeeze Unsqueeze Transpose Concat Split Slice Expand Tile Pad
    Gather GatherElements GatherND Scatter ScatterElements ScatterND
    Identity Constant ConstantOfShape Shape Size Range OneHot NonZero EyeLike Trilu
    DepthToSpace SpaceToDepth Dropout
    """.split()
)


def dense(values):
    """Whether all values are tensors of the chosen types."""
    return all(
        value.type.WhichOneof("value") == "tensor_type"
        and value.type.tensor_type.elem_type in TYPES
        for value in values
    )


def group(model):
    """`needed` for one standard operator of the list, else `other`."""
    nodes = model.graph.node
    one = len(nodes) == 1 and nodes[0].domain in ("", "ai.onnx")
    return "needed" if one and nodes[0].op_type in NEEDED else "other"


def save(path, value, name):
    """Writes one array or tensor."""
    if not isinstance(value, TensorProto):
        value = numpy_helper.from_array(np.asarray(value), name)
    with open(path, "wb") as file:
        file.write(value.SerializeToString())


def main(folder):
    lines = []
    for case in load_model_tests(kind="node"):
        model = case.model
        if model is None or case.data_sets is None:
            sys.exit(f"{case.name} has no data in memory; the pinned onnx version is another")
        graph = model.graph
        if not dense(list(graph.input) + list(graph.output)):
            continue
        where = os.path.join(folder, case.name)
        os.makedirs(where, exist_ok=True)
        onnx.save(model, os.path.join(where, "model.onnx"))
        if len(case.data_sets) != 1:
            sys.exit(f"{case.name} has {len(case.data_sets)} data sets where 1 is expected")
        inputs, outputs = case.data_sets[0]
        for kind, values, infos in (
            ("input", inputs, graph.input),
            ("output", outputs, graph.output),
        ):
            for index, (value, info) in enumerate(zip(values, infos, strict=True)):
                save(os.path.join(where, f"{kind}_{index}.pb"), value, info.name)
        lines.append(f"{case.name} {group(model)} {case.rtol} {case.atol}\n")
    with open(os.path.join(folder, "cases.txt"), "w", encoding="utf-8") as file:
        file.writelines(sorted(lines))
    needed = sum(line.split()[1] == "needed" for line in lines)
    print(f"{needed} needed cases and {len(lines) - needed} others in {folder}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
