"""The edge runtime as a process that answers line by line, and the images that models see here.

The process is `onnx/examples/peer`, which lists the requests. The images are the embedded part of
Fashion-MNIST, enlarged to what a model takes.
"""

import gzip
import json
import pathlib
import subprocess

import numpy as np
import onnxruntime as ort

DATA = pathlib.Path(__file__).parents[2] / "datasets" / "embedded"


class EdgeError(Exception):
    """What the edge runtime could not do."""


class Edge:
    """The edge runtime with one model, and the folder of the files that go to and fro."""

    def __init__(self, program, folder):
        self.folder = pathlib.Path(folder)
        self.process = subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()

    def ask(self, request, **values):
        """The answer to a request; paths are given as they are."""
        values = {k: str(v) if isinstance(v, pathlib.Path) else v for k, v in values.items()}
        self.process.stdin.write(json.dumps({"do": request, **values}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise EdgeError(f"no answer to `{request}`; the process has ended")
        answer = json.loads(line)
        if "error" in answer:
            raise EdgeError(answer["error"])
        return answer

    def file(self, name, array=None):
        """The path of a file in the folder, which holds the array if one is given."""
        path = self.folder / name
        if array is not None:
            np.ascontiguousarray(array).tofile(path)
        return path

    def numbers(self, name, rows):
        return np.fromfile(self.folder / name, "<f4").reshape(rows, -1)

    def outputs(self, numbers, rows):
        """The outputs of the inputs that were given last."""
        self.ask("run", numbers=numbers, outputs=self.file("outputs.f32"))
        return self.numbers("outputs.f32", rows)

    def trained(self, case, test_rows):
        """Makes, trains and calibrates the model of a case; images that training did not see,
        their labels, and the share of them that the model puts into their class in f32."""
        self.ask("model", definition=case.definition, shape=case.shape, classes=case.classes)
        train, labels = images("train", case.shape, case.examples)
        path = self.file("train.f32", train)
        self.ask(
            "train",
            inputs=path,
            labels=self.file("train.u32", labels),
            steps=case.steps,
            batch=case.batch,
            rate=case.rate,
        )
        self.ask("calibrate", inputs=self.file("calibration.f32", train[:256]))
        test, labels = images("test", case.shape, test_rows)
        self.ask("inputs", inputs=self.file("test.f32", test))
        right = (self.outputs("f32", len(test)).argmax(1) == labels).mean()
        return test, labels, float(right)


class Case:
    """A model and how it is trained. Of more classes than the images have, ten are used."""

    def __init__(self, name, definition, shape, classes=10, steps=200, batch=32, rate=0.05,
                 examples=4096):
        self.name = name
        self.definition = definition
        self.shape = shape
        self.classes = classes
        self.steps = steps
        self.batch = batch
        self.rate = rate
        self.examples = examples


def _resized(pixels, size, axis):
    """Linear interpolation between the centres of the pixels along an axis."""
    old = pixels.shape[axis]
    at = np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, old - 1)
    low = np.minimum(at.astype(int), old - 2)
    part = (at - low).astype("<f4")
    part = part.reshape([-1 if i == axis else 1 for i in range(pixels.ndim)])
    return pixels.take(low, axis) * (1 - part) + pixels.take(low + 1, axis) * part


def images(part, shape, rows):
    """The first images `[rows, height, width, channels]` of `train` or `test`, and their labels.

    Channel 1 and 2 are the grey image moved by one and two pixels, so that no two are alike.
    """
    read = lambda kind: gzip.decompress((DATA / f"fashion-mini-{part}-{kind}.idx.gz").read_bytes())
    grey = np.frombuffer(read("images"), np.uint8, offset=16).reshape(-1, 28, 28)[:rows]
    labels = np.frombuffer(read("labels"), np.uint8, offset=8)[:rows].astype("<u4")
    height, width, channels = shape
    # Mean and deviation of all Fashion-MNIST training images.
    grey = (grey.astype("<f4") / 255 - np.float32(0.2860)) / np.float32(0.3530)
    if (height, width) != (28, 28):
        grey = _resized(_resized(grey, height, 1), width, 2)
    moved = [np.roll(grey, channel, axis=2) for channel in range(channels)]
    return np.stack(moved, axis=-1).astype("<f4"), labels


def session(model, exact=True):
    """onnxruntime's, on one thread, of a file or a model's bytes.

    On processors without dot products of bytes its fastest integer products saturate. `exact`
    asks for those that do not, so that it has the same integers on every machine; only a
    comparison of speed asks for the fast ones.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Its warnings only; errors are raised.
    options.log_severity_level = 3
    if exact:
        options.add_session_config_entry("session.x64quantprecision", "1")
        # Products over weights of four bits in f32, and not with inputs rounded to eight bits.
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    source = str(model) if isinstance(model, pathlib.Path) else model
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def fed(inputs, given):
    """Images `[rows, height, width, channels]` as a file's input wants them."""
    if list(given.shape[1:]) == list(inputs.shape[1:]):
        return np.ascontiguousarray(inputs)
    if len(given.shape) == 4:
        return np.ascontiguousarray(inputs.transpose(0, 3, 1, 2))
    return np.ascontiguousarray(inputs.reshape(len(inputs), -1))


def theirs(model, inputs, exact=True):
    """onnxruntime's outputs."""
    runs = session(model, exact)
    given, output = runs.get_inputs()[0], runs.get_outputs()[0].name
    inputs = fed(inputs, given)
    parts = [
        runs.run([output], {given.name: inputs[i : i + 8]})[0] for i in range(0, len(inputs), 8)
    ]
    return np.concatenate(parts).reshape(len(inputs), -1)
