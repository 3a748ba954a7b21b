"""Deep networks on shares: residual ones, MobileNetV2, transformers, with limits that are proven.

For each network, with initial weights, in a process of its own: seconds from sharing the rows to the
label, rounds, trips and bytes, and the peak memory. Bounds come from rows, `model.calibrate`; where
interval bounds do not fit the format, every evaluation proves on shares that no value has left its
limit, and that is in all figures. Model and rows are secret; what is revealed are the labels, which must
be the plain model's but where rounding decides.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import script
from encrypted_mnist import peak_bytes
from machine import describe, facts, markdown, seconds, spread, table

import mpc
import nn

# Fractional and integer bits. Attention's products of two computed values need integer bits.
FORMATS = {
    "ResNet20": (16, 15),
    "ResNet18": (16, 15),
    "MobileNetV2": (16, 15),
    "TransformerEncoder": (13, 20),
    "ViT": (13, 20),
}
# Rows that bounds come from; others are evaluated.
CALIBRATED = 32


def measure(name: str, rows: int, repeats: int) -> dict[str, Any]:
    """Return the figures of one network, for a fresh process: its peak memory is among them."""
    model = getattr(nn.networks, name)(random_state=0)
    random = np.random.default_rng(0)
    typical = random.uniform(size=(CALIBRATED, model.n_features_in_))
    X = random.uniform(size=(rows, model.n_features_in_))
    bounds = model.calibrate(typical, margin=8)
    frac_bits, int_bits = FORMATS[name]
    with mpc.Session(frac_bits=frac_bits, int_bits=int_bits) as session:
        secret = model.share(session, owner="alice", bounds=bounds)
        before = peak_bytes()

        def once() -> Any:
            return secret.predict(secret.share_rows(X, owner="bob"))

        (first,) = seconds(once, 1)
        labels = once()
        spent = session.cost()
        once()
        cost = session.cost() - spent
        taken = seconds(once, repeats)
        return {
            "network": name,
            "parameters": model.n_parameters,
            "rows": rows,
            "format": [frac_bits, int_bits],
            "proven": secret.bounds is not None,
            "agree": int((labels == model.predict(X)).sum()),
            "first_seconds": first,
            "seconds": statistics.median(taken),
            "seconds_runs": taken,
            "rounds": cost.rounds,
            "trips": cost.total.trips,
            "bytes_sent_per_party": cost.bytes_sent_per_party,
            "correction_bytes": cost.correction_bytes,
            "bytes_before": before,
            "peak_bytes": peak_bytes(),
        }


def apart(name: str, rows: int, repeats: int) -> dict[str, Any]:
    """Return the figures of one network, measured in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, name, rows, repeats).result()


def rows_of(measured: dict[str, Any]) -> list[list[str]]:
    """Return the table."""
    found = [
        ["network", "rows", "seconds", "rounds", "MB sent by a party", "MB of corrections",
         "peak MB, before the rows", "labels as in the clear", "limits proven"],
    ]  # fmt: skip
    for each in measured["networks"]:
        found.append(
            [
                each["network"], f"{each['rows']}", spread(each["seconds_runs"], digits=3),
                f"{each['rounds']:,}", f"{each['bytes_sent_per_party'] / 1e6:,.1f}",
                f"{each['correction_bytes'] / 1e6:,.1f}",
                f"{each['peak_bytes'] / 1e6:,.0f}, {each['bytes_before'] / 1e6:,.0f}",
                f"{each['agree']} of {each['rows']}", "yes" if each["proven"] else "not needed",
            ]
        )  # fmt: skip
    return found


def deep_text(measured: dict[str, Any]) -> list[str]:
    """Return what RESULTS.md says."""
    return [
        "`deep.py`: networks of `nn.networks` with initial weights in a local session with a provider, from"
        " sharing the rows to the labels, correlated randomness included; median [least-most] of"
        f" {measured['repeats']} runs. Peak memory is that of a process with the model in the clear and on"
        " shares, its calibration and all parties. Where limits are proven, the proof is in all figures.",
        "",
        markdown(rows_of(measured)),
        "",
        f"Machine: {describe(measured['machine'])}.",
    ]


def arguments(line: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = script.parser(__doc__)
    parser.add_argument("--networks", default=",".join(FORMATS), help="which (default: all)")
    parser.add_argument("--rows", default="1,8", help="rows at once (default: 1,8)")
    parser.add_argument("--repeats", type=int, default=10, help="timed runs (default: 10)")
    script.add_output(parser)
    return parser.parse_args(line)


def job(options: argparse.Namespace) -> int:
    """Measure and report."""
    script.at_least_one(options, "repeats")
    names, counts = options.networks.split(","), options.rows.split(",")
    unknown = [name for name in names if name not in FORMATS]
    if unknown:
        raise ValueError(f"--networks must be among {', '.join(FORMATS)}, got {unknown[0]!r}")
    if not all(count.isdecimal() and int(count) for count in counts):
        raise ValueError(f"--rows must be whole numbers of at least 1, got {options.rows!r}")
    measured = {
        "machine": facts(),
        "repeats": options.repeats,
        "networks": [apart(name, int(n), options.repeats) for name in names for n in counts],
    }
    if options.json:
        print(json.dumps(measured, indent=1))
    else:
        print(table(rows_of(measured)), describe(measured["machine"]), sep="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(script.main(job, arguments()))
