"""Inference on one thread: the edge runtime beside onnxruntime, interleaved in one run.

`cargo xtask peers` starts this. Each case is one model, trained for a moment on the embedded
images and calibrated on 256 of them, which the edge runtime exports to ONNX: both serve the same
file's numbers. First the outputs for images that training did not see are compared. Then the
whole table is timed, several times over; within a repetition blocks of calls of both sides
alternate, so that both see the same machine. A row gives the median and the minimum of all calls,
and the median, least and greatest over the repetitions of the ratio of the medians (below 1 the
edge runtime is faster).

It fails when a class differs, or an output of int8 in any bit.
"""

import argparse
import contextlib
import json
import pathlib
import statistics
import sys
import tempfile
import time

import numpy as np
import onnxruntime as ort

from edge import Case, Edge, fed, session, theirs

MOBILENET = 'kind = "mobilenet-v2"\nwidth = '

# Each case and the number of images whose outputs are compared.
CASES = [
    (Case("mlp", 'kind = "mlp"', [28, 28, 1]), 2000),
    (Case("cnn-fedavg", 'kind = "cnn-fedavg"', [28, 28, 1]), 2000),
    (
        Case(
            "mobilenet-v2-0.5-96",
            MOBILENET + "0.5",
            [96, 96, 3],
            classes=1000,
            steps=150,
            batch=16,
            examples=1024,
        ),
        512,
    ),
    (
        Case(
            "mobilenet-v2-1.0-224",
            MOBILENET + "1.0",
            [224, 224, 3],
            classes=1000,
            steps=40,
            batch=8,
            examples=256,
        ),
        128,
    ),
]
BATCHES = (1, 32)
NUMBERS = {"f32": "f32", "int8": "int8-channel"}


class Theirs:
    """onnxruntime with inputs and outputs bound beforehand: no copies are timed."""

    def __init__(self, path, inputs):
        self.session = session(path, exact=False)
        self.given = self.session.get_inputs()[0]
        self.inputs = fed(inputs, self.given)
        self.output = self.session.get_outputs()[0].name

    def bind(self, batch):
        self.binding = self.session.io_binding()
        inputs = np.ascontiguousarray(self.inputs[:batch])
        self.binding.bind_cpu_input(self.given.name, inputs)
        self.binding.bind_output(self.output, "cpu")

    def times(self, calls):
        times = []
        for _ in range(calls):
            start = time.perf_counter()
            self.session.run_with_iobinding(self.binding)
            times.append(time.perf_counter() - start)
        return times


class Row:
    """A case in one precision at one batch."""

    def __init__(self, case, edge, peer, precision, batch):
        self.case = case
        self.edge = edge
        self.peer = peer
        self.precision = precision
        self.batch = batch
        self.ours, self.theirs, self.ratios = [], [], []

    def calls(self, calls):
        numbers = NUMBERS[self.precision]
        return self.edge.ask("time", numbers=numbers, batch=self.batch, calls=calls)["seconds"]

    def measure(self, seconds):
        """One repetition."""
        self.peer.bind(self.batch)
        self.calls(2)
        self.peer.times(2)
        call = max(statistics.median(self.calls(3)), statistics.median(self.peer.times(3)))
        # A block of calls lasts a few hundredths of a second, a repetition `seconds` for both.
        calls = max(1, min(200, int(0.04 / call)))
        blocks = max(3, int(seconds / 2 / (calls * call)))
        ours, theirs = [], []
        for _ in range(blocks):
            ours += self.calls(calls)
            theirs += self.peer.times(calls)
        self.ours += ours
        self.theirs += theirs
        self.ratios.append(statistics.median(ours) / statistics.median(theirs))

    def numbers(self):
        return {
            "case": self.case,
            "precision": self.precision,
            "batch": self.batch,
            "ours_median": statistics.median(self.ours),
            "ours_best": min(self.ours),
            "theirs_median": statistics.median(self.theirs),
            "theirs_best": min(self.theirs),
            "calls": len(self.ours),
            "ratio": statistics.median(self.ratios),
            "ratios": self.ratios,
        }

    def line(self):
        row = self.numbers()
        keys = ("ours_median", "ours_best", "theirs_median", "theirs_best")
        return (
            f"{self.case:<22}{self.precision:<6}{self.batch:>5}"
            + "".join(f"{row[key] * 1e6:>12.1f}" for key in keys)
            + f"{row['ratio']:>8.3f}{min(self.ratios):>8.3f}{max(self.ratios):>8.3f}"
            + f"{row['ours_best'] / row['theirs_best']:>9.3f}"
        )


def agreement(case, precision, ours, theirs, labels, f32):
    """Compares outputs for the images; what is wrong, as text."""
    same = int((ours.argmax(1) == theirs.argmax(1)).sum())
    bits = int((ours.view("u4") == theirs.view("u4")).sum())
    largest = float(np.abs(theirs).max())
    difference = float(np.abs(ours - theirs).max())
    right = (ours.argmax(1) == labels).mean()
    print(
        f"{case:<22}{precision:<6}{len(ours):>7}{same:>7}{bits / ours.size:>9.2%}"
        f"{difference / largest:>11.1e}{right:>9.1%}{f32:>9.1%}",
        flush=True,
    )
    if same < len(ours):
        return [f"{case} {precision}: {len(ours) - same} classes differ"]
    if precision == "int8" and bits < ours.size:
        return [f"{case} {precision}: {ours.size - bits} of {ours.size} outputs differ"]
    return []


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", required=True)
    parser.add_argument("--precisions", default="f32")
    parser.add_argument("--only", default="")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    precisions = arguments.precisions.split(",")
    unknown = [precision for precision in precisions if precision not in NUMBERS]
    if unknown:
        sys.exit(f"no precision `{unknown[0]}`; choose from {', '.join(NUMBERS)}")
    rows, faults = [], []
    with contextlib.ExitStack() as stack:
        print("outputs compared; the share of equal outputs is of all bits, the difference of the")
        print("largest output; accuracy of the trained model in the row's numbers and in f32")
        head = f"{'case':<22}{'':<6}{'images':>7}{'class':>7}{'equal':>9}{'difference':>11}"
        print(head + f"{'accuracy':>9}{'in f32':>9}", flush=True)
        for case, count in CASES:
            if arguments.only not in case.name:
                continue
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            edge = stack.enter_context(Edge(arguments.program, folder))
            inputs, labels, right = edge.trained(case, count)
            for precision in precisions:
                numbers = NUMBERS[precision]
                path = edge.file(f"{precision}.onnx")
                edge.ask("export", numbers=numbers, opset=17, fold=True, file=path)
                ours = edge.outputs(numbers, count)
                others = theirs(path, inputs, exact=False)
                faults += agreement(case.name, precision, ours, others, labels, right)
                # Timing takes few images.
                peer = Theirs(path, inputs[: max(BATCHES)])
                rows += [Row(case.name, edge, peer, precision, batch) for batch in BATCHES]
            few = inputs[: max(BATCHES)]
            edge.ask("inputs", inputs=edge.file("test.f32", few))
        print()
        for repetition in range(arguments.repetitions):
            for row in rows:
                row.measure(arguments.seconds)
            print(f"repetition {repetition + 1} of {arguments.repetitions} done", flush=True)
    print(f"\nonnxruntime {ort.__version__}; one thread; times in microseconds")
    head = f"{'case':<22}{'':<6}{'batch':>5}{'ours':>12}{'best':>12}{'theirs':>12}{'best':>12}"
    print(head + f"{'ratio':>8}{'least':>8}{'most':>8}{'of best':>9}")
    for precision in precisions:
        of = [row for row in rows if row.precision == precision]
        for row in of:
            print(row.line())
        ratios = [statistics.median(row.ratios) for row in of]
        if ratios:
            print(
                f"{precision}: median ratio {statistics.median(ratios):.3f}, "
                f"largest {max(ratios):.3f}, over {arguments.repetitions} repetitions"
            )
    if arguments.json:
        table = [row.numbers() for row in rows]
        pathlib.Path(arguments.json).write_text(json.dumps(table, indent=1) + "\n")
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
