"""Inference on one thread: the edge runtime beside onnxruntime, interleaved in one run.

`cargo xtask peers` starts this with the two programs' places. Each case is one model with random
parameters, which the edge runtime exports to ONNX: both serve the same file's numbers. Blocks of
calls of both sides alternate, so that both see the same machine; a row gives the median and the
minimum of all calls and the ratio of the medians (below 1 the edge runtime is faster). The
outputs for many inputs are compared before anything is timed.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnxruntime as ort

# Case and the number of inputs whose outputs are compared.
CASES = [
    ("mlp", 512),
    ("cnn-fedavg", 256),
    ("mobilenet-v2-0.5-96", 128),
    ("mobilenet-v2-1.0-224", 32),
]


class Edge:
    """The edge runtime, a process that answers line by line."""

    def __init__(self, program):
        self.process = subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        if not answer:
            sys.exit(f"the edge runtime gave no answer to: {line}")
        return answer

    def times(self, batch, calls):
        return [float(word) for word in self.ask(f"time {batch} {calls}").split()]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def session(path):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class Theirs:
    """onnxruntime with inputs and outputs bound beforehand: no copies are timed."""

    def __init__(self, path, inputs):
        self.session = session(path)
        given = self.session.get_inputs()[0]
        # NHWC to NCHW, or flat rows, as the file wants them.
        if len(given.shape) == 4:
            inputs = inputs.transpose(0, 3, 1, 2)
        else:
            inputs = inputs.reshape(len(inputs), -1)
        self.inputs = np.ascontiguousarray(inputs)
        self.name = given.name
        self.output = self.session.get_outputs()[0].name

    def outputs(self):
        parts = [
            self.session.run([self.output], {self.name: self.inputs[i : i + 8]})[0]
            for i in range(0, len(self.inputs), 8)
        ]
        return np.concatenate(parts)

    def bind(self, batch):
        self.binding = self.session.io_binding()
        self.binding.bind_cpu_input(self.name, np.ascontiguousarray(self.inputs[:batch]))
        self.binding.bind_output(self.output, "cpu")

    def times(self, calls):
        times = []
        for _ in range(calls):
            start = time.perf_counter()
            self.session.run_with_iobinding(self.binding)
            times.append(time.perf_counter() - start)
        return times


def compare(ours, theirs):
    scale = float(np.abs(theirs).max())
    same = int((ours.argmax(1) == theirs.argmax(1)).sum())
    return {
        "inputs": len(ours),
        "same_argmax": same,
        "largest_difference": float(np.abs(ours - theirs).max()),
        "largest_output": scale,
    }


def measure(edge, theirs, batch, seconds):
    theirs.bind(batch)
    edge.times(batch, 2)
    theirs.times(2)
    call = max(statistics.median(edge.times(batch, 3)), statistics.median(theirs.times(3)))
    # A block of calls lasts a few hundredths of a second, a case `seconds` for both.
    calls = max(1, min(200, int(0.04 / call)))
    blocks = max(3, int(seconds / 2 / (calls * call)))
    ours, other = [], []
    for _ in range(blocks):
        ours += edge.times(batch, calls)
        other += theirs.times(calls)
    return ours, other


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", required=True)
    parser.add_argument("--precisions", default="f32")
    parser.add_argument("--only", default="")
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    print(f"onnxruntime {ort.__version__}; one thread; times in microseconds")
    head = f"{'case':<22}{'':<6}{'batch':>5}{'ours':>12}{'best':>12}{'theirs':>12}{'best':>12}"
    print(head + f"{'ratio':>8}{'of best':>9}")
    rows = []
    for precision in arguments.precisions.split(","):
        ratios = []
        for case, inputs in CASES:
            if arguments.only not in case:
                continue
            edge = Edge(arguments.program)
            with tempfile.TemporaryDirectory() as folder:
                folder = pathlib.Path(folder)
                answer = edge.ask(f"open {case} {precision} {inputs} {folder}")
                shape = json.loads(answer.removeprefix("ok "))
                edge.ask(f"run {folder}")
                x = np.fromfile(folder / "inputs.f32", "<f4").reshape([inputs] + shape)
                y = np.fromfile(folder / "outputs.f32", "<f4").reshape(inputs, -1)
                theirs = Theirs(folder / "model.onnx", x)
            agreement = compare(y, theirs.outputs())
            for batch in (1, 32):
                ours, other = measure(edge, theirs, batch, arguments.seconds)
                row = {
                    "case": case,
                    "precision": precision,
                    "batch": batch,
                    "ours_median": statistics.median(ours),
                    "ours_best": min(ours),
                    "theirs_median": statistics.median(other),
                    "theirs_best": min(other),
                    "calls": len(ours),
                    **agreement,
                }
                row["ratio"] = row["ours_median"] / row["theirs_median"]
                rows.append(row)
                ratios.append(row["ratio"])
                numbers = [
                    row[key] * 1e6
                    for key in ("ours_median", "ours_best", "theirs_median", "theirs_best")
                ]
                print(
                    f"{case:<22}{precision:<6}{batch:>5}"
                    + "".join(f"{number:>12.1f}" for number in numbers)
                    + f"{row['ratio']:>8.3f}{row['ours_best'] / row['theirs_best']:>9.3f}",
                    flush=True,
                )
            edge.close()
            print(
                f"    same argmax {agreement['same_argmax']} of {agreement['inputs']}, largest "
                f"difference {agreement['largest_difference']:.2e} at outputs up to "
                f"{agreement['largest_output']:.2e}",
                flush=True,
            )
        if ratios:
            print(
                f"{precision}: median ratio {statistics.median(ratios):.3f}, "
                f"largest {max(ratios):.3f}",
                flush=True,
            )
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
