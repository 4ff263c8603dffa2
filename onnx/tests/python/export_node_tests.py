"""Writes the node tests of the `onnx` package into a file that the Rust harness reads.

    python export_node_tests.py FILE [BYTES]

Needs the packages pinned in requirements.txt. For each case the file holds a line
`name group rtol atol INPUTS LENGTH...` and then, without anything between them, the model, the
inputs and the outputs (TensorProto, in the order of the graph's) of these lengths. With BYTES
only the needed cases of at most so many bytes are written, which made `../fixtures/nodes.bin`
(BYTES = 500).

Which cases: those of `onnx.backend.test` of kind "node" whose inputs and outputs are all dense
tensors of the types in TYPES. They fall into two groups:

- `needed`: the case applies one operator, of the list NEEDED: what a classifier or a small
  transformer computes when it is served, also quantized, with the shape arithmetic that exporters
  write around it. This is the group that the project counts.
- `other`: every other case of these types: further operators (losses, resizing, recurrent layers,
  bit shifts, signal processing, ...) and the cases `*_expanded`, which apply an operator's
  defining function node by node. They are run, too, and must not give a wrong answer.
"""

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
    TensorProto.INT4,
    TensorProto.UINT4,
    TensorProto.INT8,
    TensorProto.UINT8,
    TensorProto.INT16,
    TensorProto.UINT16,
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


def tensor(value, name):
    """The bytes of an array or tensor."""
    if not isinstance(value, TensorProto):
        value = numpy_helper.from_array(np.asarray(value), name)
    return value.SerializeToString()


def main(path, most=None):
    cases = []
    for case in load_model_tests(kind="node"):
        model = case.model
        if model is None or case.data_sets is None or len(case.data_sets) != 1:
            sys.exit(f"{case.name} has no single data set; the onnx version is another")
        graph = model.graph
        if not dense(list(graph.input) + list(graph.output)):
            continue
        parts = [model.SerializeToString()]
        for values, infos in zip(case.data_sets[0], (graph.input, graph.output), strict=True):
            for value, info in zip(values, infos, strict=True):
                parts.append(tensor(value, info.name))
        kind = group(model)
        if most is not None and (kind != "needed" or sum(map(len, parts)) > most):
            continue
        lengths = " ".join(str(len(part)) for part in parts)
        head = f"{case.name} {kind} {case.rtol} {case.atol} {len(graph.input)} {lengths}\n"
        cases.append((case.name, kind, head.encode() + b"".join(parts)))
    with open(path, "wb") as file:
        for _, _, data in sorted(cases):
            file.write(data)
    needed = sum(kind == "needed" for _, kind, _ in cases)
    print(f"{needed} needed cases and {len(cases) - needed} others in {path}")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(sys.argv[1], *map(int, sys.argv[2:]))
