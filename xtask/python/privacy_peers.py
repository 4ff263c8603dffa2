"""Epsilon of the Poisson-sampled Gaussian: the accountants here beside dp_accounting, Opacus and
prv_accountant, interleaved in one run on one thread.

`cargo xtask privacy-peers` starts this. Every configuration is asked of each side in turn, each
with a new accountant; a cell of the table is the median over the repetitions of the time of one
answer, and the answer. The peers run at their defaults: dp_accounting's PLD on its grid of 1e-4,
Opacus' Rényi orders; prv_accountant with an epsilon error of 0.01 and a delta error of a
thousandth of delta. A finer grid of dp_accounting is timed beside it with --fine.
"""

import argparse
import importlib.util
import json
import math
import pathlib
import statistics
import subprocess
import sys
import time
import warnings

import dp_accounting
from dp_accounting import pld, rdp
from prv_accountant import PoissonSubsampledGaussianMechanism, PRVAccountant

SIGMAS = [0.5, 0.7, 1, 1.5, 2, 4, 10]
RATES = [1, 0.1, 0.01, 0.001]
STEPS = [1, 10, 100, 1000, 10000]


class Ours:
    def __init__(self, program):
        self.process = subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def line(self, words):
        self.process.stdin.write(f"{words}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().split()
        if len(answer) != 3:
            sys.exit("the accountant gave no answer")
        return [float(word) for word in answer]

    def ask(self, kind, sigma, rate, steps, delta):
        epsilon, lower, seconds = self.line(f"epsilon {kind} {sigma} {rate} {steps} {delta}")
        return epsilon, seconds, lower

    def calibrate(self, parameter, target, delta, sigma, rate, steps):
        return self.line(f"calibrate {parameter} {target} {delta} {sigma} {rate} {steps}")


def opacus():
    """The module alone: the package itself wants PyTorch."""
    spec = importlib.util.find_spec("opacus")
    path = pathlib.Path(spec.submodule_search_locations[0]) / "accountants/analysis/rdp.py"
    spec = importlib.util.spec_from_file_location("opacus_rdp", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


OPACUS = opacus()
OPACUS_ORDERS = [1 + x / 10.0 for x in range(1, 100)] + list(range(12, 64))


def event(sigma, rate, steps):
    one = dp_accounting.GaussianDpEvent(sigma)
    return dp_accounting.SelfComposedDpEvent(dp_accounting.PoissonSampledDpEvent(rate, one), steps)


def dpa_pld(interval):
    def answer(sigma, rate, steps, delta):
        accountant = pld.PLDAccountant(value_discretization_interval=interval)
        accountant.compose(event(sigma, rate, steps))
        return accountant.get_epsilon(delta)

    return answer


def dpa_rdp(sigma, rate, steps, delta):
    accountant = rdp.RdpAccountant()
    accountant.compose(event(sigma, rate, steps))
    return accountant.get_epsilon(delta)


def opacus_rdp(sigma, rate, steps, delta):
    values = OPACUS.compute_rdp(q=rate, noise_multiplier=sigma, steps=steps, orders=OPACUS_ORDERS)
    return OPACUS.get_privacy_spent(orders=OPACUS_ORDERS, rdp=values, delta=delta)[0]


def prv(sigma, rate, steps, delta):
    mechanism = PoissonSubsampledGaussianMechanism(
        sampling_probability=rate, noise_multiplier=sigma
    )
    accountant = PRVAccountant(
        prvs=[mechanism], max_self_compositions=[steps], eps_error=0.01, delta_error=delta / 1000
    )
    return accountant.compute_epsilon(delta, [steps])[2]


def timed(answer, *arguments):
    start = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            epsilon = float(answer(*arguments))
    except Exception:  # A peer that breaks has no figure.
        return None, None
    seconds = time.perf_counter() - start
    return (epsilon, seconds) if math.isfinite(epsilon) else (None, None)


def cell(epsilon, seconds):
    if epsilon is None:
        return "breaks".rjust(22)
    return f"{epsilon:12.7g} {1e3 * seconds:7.1f} ms"


# Values that dp_accounting 0.6 calibrates to, its noise multipliers rounded outwards.
KNOWN = [
    (2, 1e-6, 0.001, 1500, 0.6160, 0.6162),
    (2, 1e-6, 0.001, 3000, 0.6326, 0.6328),
    (2, 1e-6, 0.005, 2000, 0.8638, 0.8639),
]
TARGETS = [0.5, 2, 8]


def calibration(ours, delta):
    """Every parameter to every target over the grid; what it costs may not be above the target."""
    sampled = [rate for rate in RATES if rate < 1]
    cases = {
        "noise": [("noise", 1, rate, steps) for rate in RATES for steps in STEPS],
        "rate": [("rate", sigma, 1, steps) for sigma in SIGMAS for steps in STEPS],
        "steps": [("steps", sigma, rate, 1) for sigma in SIGMAS for rate in sampled],
        "cohort": [("cohort", sigma, 1, steps) for sigma in SIGMAS for steps in STEPS],
    }
    print("calibrated      met  not met  median ms    95 %   worst  at")
    for name, grid in cases.items():
        times, missed = [], 0
        for target in TARGETS:
            for parameter, sigma, rate, steps in grid:
                value, epsilon, seconds = ours.calibrate(
                    parameter, target, delta, sigma, rate, steps
                )
                missed += math.isnan(value)
                if not math.isnan(value) and epsilon > target:
                    sys.exit(f"{parameter} {value} costs {epsilon}, more than {target}")
                times.append((1e3 * seconds, (target, sigma, rate, steps)))
        times.sort()
        worst, (target, sigma, rate, steps) = times[-1]
        print(
            f"{name:12}  {len(times) - missed:5d}  {missed:7d}  {times[len(times) // 2][0]:9.1f}  "
            f"{times[len(times) * 95 // 100][0]:6.1f}  {worst:6.1f}  "
            f"epsilon {target}, sigma {sigma}, rate {rate}, steps {steps}"
        )
    for target, known, rate, steps, low, high in KNOWN:
        value, epsilon, seconds = ours.calibrate("noise", target, known, 1, rate, steps)
        print(
            f"noise for epsilon {target} at {known:g}, rate {rate}, {steps} steps: {value:.6f} "
            f"(known: {low:.4f} to {high:.4f}), costs {epsilon:.8f}, {1e3 * seconds:.1f} ms"
        )
        if not low <= value <= high:
            sys.exit("that is not the known value")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--program", required=True)
    parser.add_argument("--delta", type=float, default=1e-5)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="a peer's time per cell")
    parser.add_argument("--most-steps", type=int, default=10000)
    parser.add_argument("--fine", type=float, default=0.0)
    parser.add_argument("--prv", action="store_true", help="prv_accountant too: much memory")
    parser.add_argument("--calibration", action="store_true", help="that table alone")
    parser.add_argument("--json")
    options = parser.parse_args()
    ours = Ours(options.program)
    if options.calibration:
        calibration(ours, options.delta)
        return
    peers = {"dp_accounting PLD": dpa_pld(1e-4)}
    if options.fine:
        peers[f"PLD at {options.fine:g}"] = dpa_pld(options.fine)
    peers["dp_accounting RDP"] = dpa_rdp
    peers["Opacus RDP"] = opacus_rdp
    if options.prv:
        peers["prv upper"] = prv
    names = ["pld", "rdp", *peers]
    print("sigma  rate   steps " + " ".join(name.rjust(22) for name in names))
    rows = []
    for steps in STEPS:
        if steps > options.most_steps:
            continue
        for rate in RATES:
            for sigma in SIGMAS:
                found = {name: ([], []) for name in names}
                lower = 0.0
                spent = dict.fromkeys(names, 0.0)
                for _ in range(options.repeat):
                    for name in names:
                        epsilons, times = found[name]
                        if name in peers:
                            if spent[name] > options.seconds:
                                continue
                            epsilon, seconds = timed(peers[name], sigma, rate, steps, options.delta)
                        else:
                            epsilon, seconds, low = ours.ask(
                                name, sigma, rate, steps, options.delta
                            )
                            lower = max(lower, low)
                        if epsilon is not None:
                            epsilons.append(epsilon)
                            times.append(seconds)
                            spent[name] += seconds
                row = {"sigma": sigma, "rate": rate, "steps": steps, "lower": lower}
                for name in names:
                    epsilons, times = found[name]
                    row[name] = (
                        (epsilons[0], statistics.median(times)) if times else (None, None)
                    )
                rows.append(row)
                line = " ".join(cell(*row[name]) for name in names)
                print(f"{sigma:5g} {rate:5g} {steps:7d} {line}", flush=True)
    print()
    worst = max(row["pld"][1] for row in rows)
    median = statistics.median(row["pld"][1] for row in rows)
    print(f"pld here: median {1e3 * median:.2f} ms, slowest {1e3 * worst:.1f} ms")
    for name in peers:
        both = [row for row in rows if row[name][0] is not None]
        ratios = [row[name][1] / row["pld"][1] for row in both]
        looser = sum(row["pld"][0] > row[name][0] + 1e-6 for row in both)
        print(
            f"{name}: {len(both)} of {len(rows)} answered; its time over that of pld here: median "
            f"{statistics.median(ratios):.1f}, least {min(ratios):.2f}; pld here is above it by "
            f"more than 1e-6 in {looser}"
        )
    print()
    calibration(ours, options.delta)
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
