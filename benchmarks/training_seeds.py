"""Encrypted against plain training over several random starts, beside plain against plain.

Every seed trains three times, in the same order: in the clear, in the clear from weights that differ
by 2^-16 each, one unit of the fixed-point format, and on shares. What the second differs from the
first is what a start that is rounded otherwise makes of a training; what the third differs is to be
seen beside it. One test image is the smallest difference.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import script
from encrypted_mnist import load
from machine import describe, facts, markdown, table

import mpc
import nn
from nn.layers import Layer

NUDGE = 2.0**-16


class Nudged(nn.MLP):
    """A network whose start differs by `NUDGE` in every weight and bias."""

    def _fresh_layers(self, random: np.random.Generator, dtype: np.dtype[Any]) -> list[Layer]:
        layers = super()._fresh_layers(random, dtype)
        signs = np.random.default_rng(0)
        return [
            layer.with_parameters(
                [
                    p + (NUDGE * signs.choice([-1, 1], p.shape)).astype(p.dtype)
                    for p in layer.parameters
                ]
            )
            for layer in layers
        ]


def arguments(line: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = script.parser(__doc__)
    script.add_data(parser)
    parser.add_argument("--rows", type=int, help="images to train on (default: all)")
    parser.add_argument(
        "--layers", default="128,128", metavar="N,N", help="hidden layers (default: 128,128)"
    )
    parser.add_argument("--epochs", type=int, default=5, help="passes over the rows (default: 5)")
    parser.add_argument("--batch-size", type=int, default=128, help="rows a step (default: 128)")
    parser.add_argument("--seeds", type=int, default=5, help="how many random starts (default: 5)")
    script.add_output(parser)
    return parser.parse_args(line)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Train three times for each seed and return the accuracies after each epoch."""
    name, (X, X_test, y, y_test) = load(options.data, lambda text: print(text, file=sys.stderr))
    X, y = X[: options.rows], y[: options.rows]
    classes = len(np.unique(y))
    hidden = [int(n) for n in options.layers.split(",") if n]
    layers = [X.shape[1], *hidden, classes]
    how = {"epochs": options.epochs, "batch_size": options.batch_size, "progress": False}
    seeds = []
    for seed in range(options.seeds):
        found: dict[str, Any] = {"seed": seed}
        for kind, network in (("plain", nn.MLP), ("nudged", Nudged)):
            model = network(layers, random_state=seed)
            model.fit(X, y, validation=(X_test, y_test), **how)
            found[kind] = model.validation_scores_
        with mpc.Session() as session:
            data, test = (
                (
                    session.share(rows, owner="bob", bound=1),
                    session.share(nn.one_hot(labels, classes), owner="alice", bound=1),
                )
                for rows, labels in ((X, y), (X_test, y_test))
            )
            trained = nn.MLP(layers, random_state=seed).fit(*data, validation=test, **how)
            found["encrypted"] = trained.validation_scores_
            found["seconds"] = [spent.seconds for spent in trained.epoch_costs_]
        seeds.append(found)
        print(f"seed {seed}: {found}", file=sys.stderr)
    return {
        "data": name,
        "layers": layers,
        "images": len(X),
        "test_images": len(X_test),
        "batch_size": options.batch_size,
        "epochs": options.epochs,
        "nudge": NUDGE,
        "seeds": seeds,
        "machine": facts(),
    }


def differences(result: dict[str, Any], kind: str, epoch: int | None = None) -> list[float]:
    """Return by how many points `kind` is above plain, for every seed in an epoch, or in all."""
    return [
        100 * (other - plain)
        for seed in result["seeds"]
        for number, (other, plain) in enumerate(zip(seed[kind], seed["plain"], strict=True))
        if epoch is None or number == epoch
    ]


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):+.3f} [{min(values):+.2f} to {max(values):+.2f}]"


def rows_of(result: dict[str, Any]) -> list[list[str]]:
    """Return mean and spread an epoch."""
    return [
        ["epoch", "plain", "encrypted - plain", "plain, nudged - plain"],
        *(
            [
                str(epoch + 1),
                f"{statistics.mean(seed['plain'][epoch] for seed in result['seeds']):.2%}",
                *(_spread(differences(result, kind, epoch)) for kind in ("encrypted", "nudged")),
            ]
            for epoch in range(result["epochs"])
        ),
    ]


def claim(result: dict[str, Any]) -> str:
    """Return the conclusion from the figures, in a sentence."""
    off, nudged = (
        statistics.mean(map(abs, differences(result, kind))) for kind in ("encrypted", "nudged")
    )
    # Epochs of one seed are not independent; seeds are.
    means = [
        statistics.mean(differences({**result, "seeds": [seed]}, "encrypted"))
        for seed in result["seeds"]
    ]
    mean = statistics.mean(means)
    error = statistics.stdev(means) / len(means) ** 0.5 if len(means) > 1 else 0.0
    sided = (
        "is not told from zero by these runs"
        if abs(mean) <= 2 * error
        else f"is {'below' if mean < 0 else 'above'} zero by more than twice its standard error"
    )
    return (
        f"Encrypted and plain differ by {off:.3f} points on average, whatever the sign; two plain runs"
        f" whose starts differ by 2^-16 by {nudged:.3f}. The mean of encrypted - plain,"
        f" {mean:+.3f} with a standard error of {error:.3f}, {sided}."
    )


def seeds_text(result: dict[str, Any]) -> list[str]:
    """Return the chapter of RESULTS.md on the seeds."""
    count = len(result["seeds"])
    return [
        f"`training_seeds.py`: network {'-'.join(map(str, result['layers']))}, {result['images']:,}"
        f" images, {count} seeds of weights and order, {result['epochs']} epochs; percentage points of"
        f" accuracy on {result['test_images']:,} test images, mean over the seeds [least to most]:",
        "",
        markdown(rows_of(result)),
        "",
        claim(result),
        "",
        f"Machine: {describe(result['machine'])}.",
    ]


def report(result: dict[str, Any]) -> str:
    """Return the result as a table."""
    return "\n".join(
        [table(rows_of(result)), "", claim(result), f"Machine: {describe(result['machine'])}"]
    )


def job(options: argparse.Namespace) -> int:
    """Run and print."""
    script.at_least_one(options, "rows", "epochs", "batch_size", "seeds")
    result = run(options)
    print(json.dumps(result) if options.json else report(result))
    return 0


if __name__ == "__main__":
    sys.exit(script.main(job, arguments()))
