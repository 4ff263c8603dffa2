"""Trained models to ONNX, through onnxruntime, and back; models of other tools, read.

`cargo xtask onnx-round-trip` starts this. Three parts, each a table:

1. Every model of the zoo, trained for a moment on the embedded images and calibrated on 256 of
   them, is written in f32, f16 and int8 (scales per tensor and per channel) at opset 13, 17 and
   21, and with weights of four bits (int4 and uint4) at opset 21. `onnx.checker` checks the file in full; onnxruntime runs it on images that training did not
   see, and its outputs are compared with those of the edge runtime's program; the file is read
   again, and parameters, scales, computed outputs and the file written from what was read must be
   the same in every bit.
2. The models in f32, quantized by onnxruntime's own `quantize_static` (QDQ, both granularities,
   activations of u8 and i8), are read, and their outputs compared with onnxruntime's.
3. Graphs as other exporters write them, made with `onnx.helper`, are read and compared likewise.

It fails when anything differs by more than the bounds below.
"""

import argparse
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime as ort

from onnxruntime.capi.onnxruntime_pybind11_state import (
    Fail,
    InvalidArgument,
    InvalidGraph,
    NotImplemented as NotDone,
    RuntimeException,
)

import foreign
from edge import Case, Edge, EdgeError, theirs

# What onnxruntime and the checker say of a file that they do not take.
REFUSED = (Fail, InvalidArgument, InvalidGraph, NotDone, RuntimeException,
           onnx.checker.ValidationError, onnx.shape_inference.InferenceError)
OPSETS = (13, 17, 21)
# Weights of four bits need blocks, which opset 21 brought.
FOUR_BITS = ("int4", "uint4")
IMAGES = 256
# Largest difference of an output, in parts of the largest output. In f16 onnxruntime rounds every
# value to 11 bits, the edge runtime only the weights.
BOUNDS = {"f32": 1e-5, "f16": 2e-2, "int4": 1e-5, "uint4": 1e-5}
# Share of the images whose class must be the same.
CLASSES = {"f32": 1.0, "f16": 0.98, "int4": 1.0, "uint4": 1.0}
# In int8 every bit must be the same, but behind group normalisation, which onnxruntime computes in
# floats and the edge runtime in integers: the most steps of the output, and the least share of
# outputs and of classes that are the same. How far such differences grow is a matter of depth:
# there are 8 in the one model and 52 in the other.
STEPS = {"resnet8-gn": (2, 0.97, 0.99), "mobilenet-v2-group": (24, 0.6, 0.95)}
# Models with operators that ONNX has only since opset 20 or 21. Before, onnxruntime's quantizer would cut
# through the nodes that stand for them; of these it can quantize no input of a pool.
# There, too, the quantizer rounds values between operators that stay floats; natively those are
# not rounded.
READ_STEPS = {
    "resnet8-gn": (4, 0.5, 0.97),
    "mobilenet-v2-group": (24, 0.6, 0.95),
    "layers": (8, 0.5, 0.95),
}
NEWER = ("resnet8-gn", "mobilenet-v2-group", "layers")

LAYERS = """
layer = [
  { kind = "conv2d", name = "a", filters = 8, kernel = [3, 5], stride = 2, padding = "same", activation = "gelu" },
  { kind = "batch-norm", name = "b" },
  { kind = "max-pool", name = "c", size = 3, stride = 2, padding = 1 },
  { kind = "conv2d", name = "d", filters = 8, kernel = 3, padding = 1, groups = 4, activation = "relu6" },
  { kind = "group-norm", name = "e", groups = 2 },
  { kind = "add", name = "f", from = "c" },
  { kind = "leaky-relu", name = "g", slope = 0.2 },
  { kind = "avg-pool", name = "h", size = 2, stride = 1, padding = "same" },
  { kind = "flatten", name = "i" },
  { kind = "dense", name = "j", units = 24, activation = "tanh" },
  { kind = "layer-norm", name = "k" },
  { kind = "dense", name = "l", units = 16, bias = false, activation = "sigmoid" },
  { kind = "dense", name = "m" },
]"""
POOLS = """
layer = [
  { kind = "conv2d", name = "a", filters = 8, kernel = 3, padding = 1, activation = "relu" },
  { kind = "avg-pool", name = "b", size = 2 },
  { kind = "conv2d", name = "c", filters = 16, kernel = 3, padding = 1, bias = false },
  { kind = "batch-norm", name = "d" },
  { kind = "relu", name = "e" },
  { kind = "global-avg-pool", name = "f" },
  { kind = "dense", name = "g" },
]"""
MOBILENET = 'kind = "mobilenet-v2"\nwidth = 0.5\nstem-stride = 1\n'

CASES = [
    Case("logreg", 'kind = "logreg"', [28, 28, 1], rate=0.01),
    Case("mlp-2nn", 'kind = "mlp-2nn"', [28, 28, 1]),
    Case("mlp", 'kind = "mlp"', [28, 28, 1]),
    Case("cnn-fedavg", 'kind = "cnn-fedavg"', [28, 28, 1], steps=60),
    Case("cnn-pfl", 'kind = "cnn-pfl"', [32, 32, 3], steps=60),
    Case("resnet8-gn", 'kind = "resnet8-gn"', [32, 32, 3], steps=60),
    Case("mobilenet-v2", MOBILENET, [32, 32, 3], steps=100),
    Case("mobilenet-v2-group", MOBILENET + 'norm = "group"', [32, 32, 3], steps=60),
    Case("layers", LAYERS, [28, 28, 2], steps=100),
    Case("pools", POOLS, [28, 28, 3], steps=100),
]


class Table:
    """Rows of a part, and what is wrong."""

    def __init__(self):
        self.faults = []

    def head(self, title):
        print(f"\n{title}")
        print(
            f"{'model':<20}{'numbers':<26}{'opset':>6}{'equal':>9}{'difference':>18}"
            f"{'classes':>10}  verdict"
        )

    def row(self, model, numbers, opset, compared, faults):
        verdict = "ok" if not faults else "; ".join(faults)
        cells = compared or f"{'':>37}"
        print(f"{model:<20}{numbers:<26}{opset:>6}{cells}  {verdict}", flush=True)
        self.faults += [f"{model} {numbers} opset {opset}: {fault}" for fault in faults]


def compare(ours, theirs, numbers, step=None, steps=None):
    """The cells of a row, and what is out of bounds.

    `step` is the distance of two neighbouring outputs of an integer model; `steps` the bounds of
    [`STEPS`], none where every bit must be the same.
    """
    equal = float((ours.view("u4") == theirs.view("u4")).mean())
    difference = float(np.abs(ours - theirs).max())
    classes = float((ours.argmax(1) == theirs.argmax(1)).mean())
    faults = []
    if not np.isfinite(theirs).all():
        faults.append("onnxruntime's outputs are not finite")
    if step is None:
        relative = difference / float(np.abs(theirs).max())
        shown = f"{relative:.1e} of most"
        if relative > BOUNDS[numbers]:
            faults.append(f"outputs differ by {relative:.1e}, more than {BOUNDS[numbers]:.0e}")
        if classes < CLASSES[numbers]:
            faults.append(f"only {classes:.2%} of the classes are the same")
    else:
        apart = round(difference / step)
        shown = f"{apart} steps"
        most, least, same = steps or (0, 1.0, 1.0)
        if apart > most or equal < least:
            faults.append(f"{1 - equal:.3%} of the outputs differ, by up to {apart} steps")
        if classes < same:
            faults.append(f"only {classes:.2%} of the classes are the same")
    return f"{equal:>9.2%}{shown:>18}{classes:>10.2%}", faults


def last_step(model):
    """The scale of the last DequantizeLinear."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    return float(onnx.numpy_helper.to_array(constants[nodes[-1].input[1]]).reshape(-1)[0])


def written(table, edge, case, inputs):
    """Part 1 for one model."""
    for numbers in ("f32", "f16", "int8-tensor", "int8-channel", *FOUR_BITS):
        ours = edge.outputs(numbers, len(inputs))
        for opset in OPSETS[-1:] if numbers in FOUR_BITS else OPSETS:
            path = edge.file("model.onnx")
            compared, faults = None, []
            try:
                edge.ask("export", numbers=numbers, opset=opset, fold=False, file=path)
                model = onnx.load(path)
                onnx.checker.check_model(model, full_check=True)
                others = theirs(path, inputs)
                step = last_step(model) if numbers.startswith("int8") else None
                compared, faults = compare(ours, others, numbers, step, STEPS.get(case.name))
                if numbers not in FOUR_BITS:
                    answer = edge.ask("round-trip", numbers=numbers, opset=opset, file=path)
                    faults += answer["faults"]
            except (EdgeError, *REFUSED) as error:
                faults.append(str(error))
            table.row(case.name, numbers, opset, compared, faults)


def quantized(table, edge, case, inputs):
    """Part 2 for one model."""
    path = edge.file("plain.onnx")
    newer = case.name in NEWER
    opset, operators = (21, ["Conv", "Gemm", "Add"]) if newer else (17, None)
    edge.ask("export", numbers="f32", opset=opset, fold=True, file=path)
    shown = np.fromfile(edge.folder / "calibration.f32", "<f4").reshape([-1] + case.shape)
    given = edge.file("given.f32", inputs)
    for per_channel in (False, True):
        # What onnxruntime gives in u8 is what an i8 file must give, too: the tool makes the same
        # integers, 128 lower. Itself it computes some operators of i8 in floats on x86.
        others = None
        for activations in ("u8", "i8"):
            numbers = f"{activations}, {'channel' if per_channel else 'tensor'}"
            target = edge.file("quantized.onnx")
            compared, faults = None, []
            try:
                foreign.quantize(path, target, shown, activations, per_channel, operators)
                others = theirs(target, inputs) if others is None else others
                answer = edge.ask(
                    "import", file=target, inputs=given, outputs=edge.file("read.f32")
                )
                if answer["numerics"] != "int8":
                    faults.append(f"it was read in {answer['numerics']}")
                ours = edge.numbers("read.f32", len(inputs))
                step = last_step(onnx.load(target))
                compared, more = compare(ours, others, "int8", step, READ_STEPS.get(case.name))
                faults += more
            except (EdgeError, *REFUSED) as error:
                faults.append(str(error))
            table.row(case.name, numbers, opset, compared, faults)


def plain(table, program):
    """Part 3."""
    with tempfile.TemporaryDirectory() as folder, Edge(program, folder) as edge:
        edge.ask("model", definition='kind = "logreg"', shape=[1], classes=2)
        for name, model, inputs in foreign.graphs():
            path = edge.file("graph.onnx")
            onnx.checker.check_model(model, full_check=True)
            onnx.save(model, path)
            opset = model.opset_import[0].version
            compared, faults = None, []
            try:
                others = theirs(path, inputs)
                given = edge.file("given.f32", inputs)
                edge.ask("import", file=path, inputs=given, outputs=edge.file("read.f32"))
                ours = edge.numbers("read.f32", len(inputs))
                compared, faults = compare(ours, others, "f32")
            except (EdgeError, *REFUSED) as error:
                faults.append(str(error))
            table.row(name, "f32", opset, compared, faults)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", required=True)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    print(f"onnx {onnx.__version__}, onnxruntime {ort.__version__}, {IMAGES} images")
    table = Table()
    cases = [case for case in CASES if arguments.only in case.name]
    for part, title in ((written, "written, run, and read again"),
                        (quantized, "quantized by onnxruntime, read")):
        table.head(title)
        for case in cases:
            with tempfile.TemporaryDirectory() as folder, Edge(arguments.program, folder) as edge:
                inputs, _, right = edge.trained(case, IMAGES)
                if part is written:
                    print(f"{case.name}: accuracy {right:.1%} of {IMAGES} images")
                part(table, edge, case, inputs)
    if not arguments.only:
        table.head("graphs of other exporters, read")
        plain(table, arguments.program)
    if table.faults:
        sys.exit(f"{len(table.faults)} faults:\n" + "\n".join(table.faults))
    print("everything within its bounds")


if __name__ == "__main__":
    main()
