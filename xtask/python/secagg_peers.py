"""A whole session of secure aggregation here beside the primitives of Flower's SecAgg+.

`cargo xtask secagg-peers` starts this. Our side plays the real protocol, every client and the server,
complete graph, drop-outs after keys are shared, on one thread (`fledgling secagg bench`). Flower's
side is the sum of its own functions (flwr.common.secure_aggregation), each timed here by processor
time (median), times how often its client and its server call it in such a session. Flower's cost of
messages, of its loop and of adding masked vectors is left out.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

import flwr
import numpy as np
from flwr.common.secure_aggregation.crypto.shamir import combine_shares, create_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import (
    encrypt,
    generate_shared_key,
)
from flwr.common.secure_aggregation.ndarrays_arithmetic import (
    parameters_addition,
    parameters_mod,
)
from flwr.common.secure_aggregation.quantization import quantize
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from flwr.supercore.primitives.asymmetric import generate_key_pairs, private_key_to_bytes

MODULUS = 1 << 32


def median(repeat, work):
    times = []
    for _ in range(repeat):
        before = time.process_time()
        work()
        times.append(time.process_time() - before)
    return statistics.median(times)


def flower(clients, threshold, dropouts, length, repeat):
    secret, public = generate_key_pairs()
    pem = private_key_to_bytes(secret)
    key = generate_shared_key(secret, public)
    seed = bytes(range(32))
    vector = [np.zeros(length, dtype=np.int64)]
    mask = pseudo_rand_gen(seed, MODULUS, [(length,)])
    update = [np.random.default_rng(1).standard_normal(length)]
    of_seed = create_shares(seed, threshold, clients)
    of_key = create_shares(pem, threshold, clients)
    survivors = clients - dropouts
    cost = {
        "keypair": median(repeat, generate_key_pairs),
        "agree": median(repeat, lambda: generate_shared_key(secret, public)),
        "share_seed": median(repeat, lambda: create_shares(seed, threshold, clients)),
        "share_key": median(repeat, lambda: create_shares(pem, threshold, clients)),
        "combine_seed": median(repeat, lambda: combine_shares(of_seed[:survivors])),
        "combine_key": median(repeat, lambda: combine_shares(of_key[:survivors])),
        "encrypt": median(repeat, lambda: encrypt(key, bytes(400))),
        "quantize": median(repeat, lambda: quantize(update, 8.0, 1 << 22)),
        "expand": median(repeat, lambda: pseudo_rand_gen(seed, MODULUS, [(length,)])),
        "add": median(repeat, lambda: parameters_addition(vector, mask)),
        "mod": median(repeat, lambda: parameters_mod(vector, MODULUS)),
    }
    peers = clients - 1
    client = (
        2 * cost["keypair"]
        # Once for the packets, once for the masks.
        + 2 * peers * cost["agree"]
        + cost["share_seed"]
        + cost["share_key"]
        + 2 * peers * cost["encrypt"]
        + cost["quantize"]
        + clients * (cost["expand"] + cost["add"])
        + cost["mod"]
    )
    pairs = dropouts * survivors
    server = (
        survivors * cost["combine_seed"]
        + dropouts * cost["combine_key"]
        + pairs * cost["agree"]
        + (survivors + pairs) * (cost["expand"] + cost["add"])
    )
    return client, server, cost


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", required=True)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--length", type=int, default=1_000_000)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--threat", default="semi-malicious")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json")
    options = parser.parse_args()
    line = subprocess.run(
        [options.program, "secagg", "bench", "--json", "--graph", "complete"]
        + ["--clients", str(options.clients), "--length", str(options.length)]
        + ["--corrupt", "0.2", "--dropout", str(options.dropout), "--threat", options.threat],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    ours = json.loads(line)
    if not ours["exact"]:
        sys.exit("our sum is wrong")
    client, server, cost = flower(
        options.clients, ours["threshold"], ours["dropouts"], options.length, options.repeat
    )
    print(f"flwr {flwr.__version__}, numpy {np.__version__}; processor seconds, one thread")
    print(
        f"{options.clients} clients, threshold {ours['threshold']}, {ours['dropouts']} drop out, "
        f"{options.length} coordinates, complete graph"
    )
    for name, seconds in cost.items():
        print(f"  flower {name:13} {1e3 * seconds:10.3f} ms")
    # Adding what arrives is left out on both sides.
    unmask = ours["server"]["unmask"]
    rows = [("client", client, ours["client_mean"]["total"]), ("server", server, unmask)]
    for name, theirs, us in rows:
        print(f"{name:8} flower {theirs:9.3f} s   here {us:9.4f} s   {theirs / us:7.1f} times")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"client": client, "server": server, "cost": cost, "ours": ours}, file)


if __name__ == "__main__":
    main()
