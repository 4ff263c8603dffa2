"""Models that the edge runtime did not write: onnxruntime's quantization, and graphs as exporters
of other frameworks make them."""

import logging

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from edge import fed, session


class Shown(CalibrationDataReader):
    """Images, a batch of one after the other."""

    def __init__(self, path, images):
        given = session(path).get_inputs()[0]
        self.batches = ({given.name: batch} for batch in fed(images, given)[:, None])

    def get_next(self):
        return next(self.batches, None)


def quantize(source, target, images, activations, per_channel, operators=None):
    """Min-max ranges in the QDQ form, weights of i8; of all operators, or of these."""
    # The tool leaves out what has no known type, as all that follows a GroupNormalization.
    model = onnx.shape_inference.infer_shapes(onnx.load(source))
    known = {value.name for value in model.graph.value_info}
    outputs = {name for node in model.graph.node for name in node.output} - known
    for name in sorted(outputs - {value.name for value in model.graph.output}):
        model.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    # The tool advises to optimise the model first and warns about the root logger.
    logging.disable(logging.WARNING)
    try:
        quantize_static(
            model,
            str(target),
            Shown(source, images),
            quant_format=QuantFormat.QDQ,
            activation_type={"u8": QuantType.QUInt8, "i8": QuantType.QInt8}[activations],
            weight_type=QuantType.QInt8,
            per_channel=per_channel,
            op_types_to_quantize=operators,
        )
    finally:
        logging.disable(logging.NOTSET)


class Draft:
    """A graph in the making."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.nodes, self.constants = [], []

    def constant(self, name, array):
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def weight(self, name, *shape):
        """Numbers for about as much variance out as in."""
        inputs = np.prod(shape[1:]) if len(shape) > 1 else 4
        values = self.random.normal(0, 1.4 / np.sqrt(inputs), shape)
        return self.constant(name, values.astype("f4"))

    def positive(self, name, *shape):
        return self.constant(name, self.random.uniform(0.5, 1.5, shape).astype("f4"))

    def node(self, op, inputs, output, **attributes):
        self.nodes.append(helper.make_node(op, inputs.split(), [output], output, **attributes))
        return output

    def model(self, opset, shape, classes):
        given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *shape])
        output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", classes])
        graph = helper.make_graph(self.nodes, "graph", [given], [output], self.constants)
        opsets = [helper.make_opsetid("", opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def torch_like(opset):
    """Convolutions without bias, batch normalisation, a residual sum, a flattened head."""
    d = Draft(1)
    d.weight("c1.weight", 8, 3, 3, 3)
    d.node("Conv", "x c1.weight", "c1", pads=[1, 1, 1, 1], strides=[2, 2], kernel_shape=[3, 3])
    for part in ("weight", "var"):
        d.positive(f"bn.{part}", 8)
    d.weight("bn.bias", 8)
    d.weight("bn.mean", 8)
    d.node("BatchNormalization", "c1 bn.weight bn.bias bn.mean bn.var", "bn")
    d.node("Relu", "bn", "r1")
    d.weight("dw.weight", 8, 1, 3, 3)
    d.weight("dw.bias", 8)
    d.node("Conv", "r1 dw.weight dw.bias", "dw", pads=[1, 1, 1, 1], group=8, kernel_shape=[3, 3])
    d.node("Add", "dw r1", "sum")
    d.node("Relu", "sum", "r2")
    d.node("MaxPool", "r2", "pool", kernel_shape=[2, 2], strides=[2, 2])
    d.constant("zero", np.array([0], "i8").astype("int64"))
    d.constant("rest", np.array([-1], "int64"))
    d.node("Shape", "pool", "shape")
    d.node("Gather", "shape zero", "rows", axis=0)
    d.node("Concat", "rows rest", "sizes", axis=0)
    d.node("Reshape", "pool sizes", "flat")
    d.weight("fc.weight", 10, 128)
    d.weight("fc.bias", 10)
    d.node("Gemm", "flat fc.weight fc.bias", "y", transB=1)
    return d.model(opset, [3, 16, 16], 10)


def keras_like(opset):
    """Images channels last, paddings by name, a MatMul with a bias behind it."""
    d = Draft(2)
    d.node("Transpose", "x", "nchw", perm=[0, 3, 1, 2])
    d.weight("conv.weight", 6, 3, 3, 3)
    d.node("Conv", "nchw conv.weight", "conv", auto_pad="SAME_UPPER", strides=[2, 2],
           kernel_shape=[3, 3])
    d.weight("conv.bias", 1, 6, 1, 1)
    d.node("Add", "conv conv.bias", "biased")
    d.constant("low", np.float32(0))
    d.constant("high", np.float32(6))
    d.node("Clip", "biased low high", "relu6")
    d.node("AveragePool", "relu6", "pool", kernel_shape=[2, 2], strides=[2, 2])
    d.node("Transpose", "pool", "nhwc", perm=[0, 2, 3, 1])
    d.constant("sizes", np.array([-1, 96], "int64"))
    d.node("Reshape", "nhwc sizes", "flat")
    d.weight("dense", 96, 5)
    d.node("MatMul", "flat dense", "product")
    d.weight("dense.bias", 5)
    d.node("Add", "product dense.bias", "y")
    return d.model(opset, [16, 16, 3], 5)


def mean_head(opset):
    """Mean over the image by a reduction, tanh and leaky relu."""
    d = Draft(3)
    d.weight("c.weight", 12, 3, 5, 5)
    d.weight("c.bias", 12)
    d.node("Conv", "x c.weight c.bias", "c", kernel_shape=[5, 5])
    d.node("LeakyRelu", "c", "leaky", alpha=0.1)
    if opset < 18:
        d.node("ReduceMean", "leaky", "mean", axes=[2, 3], keepdims=0)
    else:
        d.constant("axes", np.array([2, 3], "int64"))
        d.node("ReduceMean", "leaky axes", "mean", keepdims=0)
    d.weight("a.weight", 20, 12)
    d.node("Gemm", "mean a.weight", "a", transB=1)
    d.node("Tanh", "a", "tanh")
    d.weight("b.weight", 7, 20)
    d.weight("b.bias", 7)
    d.node("Gemm", "tanh b.weight b.bias", "y", transB=1)
    return d.model(opset, [3, 16, 16], 7)


def decomposed(opset):
    """Gelu and layer normalisation as their single steps, on rows."""
    d = Draft(4)
    d.weight("a.weight", 24, 16)
    d.weight("a.bias", 24)
    d.node("Gemm", "x a.weight a.bias", "a", transB=1)
    d.constant("root", np.float32(np.sqrt(2)))
    d.constant("one", np.float32(1))
    d.constant("half", np.float32(0.5))
    d.node("Div", "a root", "scaled")
    d.node("Erf", "scaled", "erf")
    d.node("Add", "erf one", "shifted")
    d.node("Mul", "a shifted", "double")
    d.node("Mul", "double half", "gelu")
    if opset >= 17:
        d.positive("gamma", 24)
        d.weight("beta", 24)
        d.node("LayerNormalization", "gelu gamma beta", "norm", axis=-1)
    else:
        d.constant("two", np.float32(2))
        d.constant("eps", np.float32(1e-5))
        d.node("ReduceMean", "gelu", "mean", axes=[-1])
        d.node("Sub", "gelu mean", "centred")
        d.node("Pow", "centred two", "squared")
        d.node("ReduceMean", "squared", "variance", axes=[-1])
        d.node("Add", "variance eps", "safe")
        d.node("Sqrt", "safe", "deviation")
        d.node("Div", "centred deviation", "normal")
        d.positive("gamma", 24)
        d.weight("beta", 24)
        d.node("Mul", "normal gamma", "stretched")
        d.node("Add", "stretched beta", "norm")
    d.weight("b.weight", 24, 6)
    d.node("MatMul", "norm b.weight", "y")
    return d.model(opset, [16], 6)


def graphs():
    """Name, model and inputs (images channels last) of each."""
    random = np.random.default_rng(9)
    image = lambda: random.normal(0, 1, (64, 16, 16, 3)).astype("f4")
    for opset in (13, 17, 21):
        yield "torch-like", torch_like(opset), image()
        # Its own input is channels last, so nothing is to be turned.
        yield "keras-like", keras_like(opset), image()
        yield "mean head", mean_head(opset), image()
        yield "decomposed", decomposed(opset), random.normal(0, 1, (64, 16)).astype("f4")
