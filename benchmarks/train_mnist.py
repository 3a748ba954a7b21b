"""Encrypted training beside plain training, from the same weights and in the same order.

Images and labels are split into shares; the weights are born as shares of a random start and are
never opened. After each epoch the accuracy on the test images, evaluated on shares too, is revealed;
in the end the mean loss and that accuracy are all that anybody has learned.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import page
import script
from encrypted_mnist import load, peak_bytes
from machine import describe, facts, table
from networks_text import training_rows

import mpc
import nn
from nn.training.optimizers import OPTIMIZERS, SCHEDULES

# What others report for network A: system, epochs, accuracy, time, conditions.
PUBLISHED = [
    ("SecureML", "", "", "81.7 h", "their machines"),
    ("SecureNN", "15", "93.4%", "1.03 h", "three servers of 36 cores"),
    ("MP-SPDZ, AMSGrad", "5", "97.8%", "0.23 s a step", "four cores a party (Keller, Sun 2022)"),
    ("MP-SPDZ, SGD", "5", "96.7%", "0.098 s a step", "four cores a party (Keller, Sun 2022)"),
    ("Piranha", "10", "96.6%", "7.5 min", "on GPUs"),
]


def arguments(line: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = script.parser(__doc__)
    script.add_data(parser)
    parser.add_argument("--rows", type=int, help="images to train on (default: all)")
    parser.add_argument(
        "--layers", default="128,128", metavar="N,N", help="hidden layers (default: 128,128)"
    )
    parser.add_argument("--epochs", type=int, default=10, help="passes over the rows (default: 10)")
    parser.add_argument("--batch-size", type=int, default=128, help="rows a step (default: 128)")
    parser.add_argument(
        "--loss", default="cross_entropy", choices=("cross_entropy", "squared_error")
    )
    parser.add_argument("--optimizer", default="sgd", choices=sorted(OPTIMIZERS))
    parser.add_argument("--learning-rate", type=float, help="default: the optimizer's own")
    parser.add_argument("--schedule", default="cosine", choices=sorted(SCHEDULES))
    script.add_parties(parser, "the labels", "the images")
    parser.add_argument("--seed", type=int, default=0, help="of weights and order (default: 0)")
    parser.add_argument(
        "--figure", type=Path, metavar="FILE", help="draw both learning curves (extra: plot)"
    )
    script.add_report(parser)
    script.add_output(parser)
    return parser.parse_args(line)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Train twice and return what is reported."""
    name, (X, X_test, y, y_test) = load(options.data, lambda text: print(text, file=sys.stderr))
    X, y = X[: options.rows], y[: options.rows]
    classes = len(np.unique(y))
    hidden = [int(n) for n in options.layers.split(",") if n]
    layers = [X.shape[1], *hidden, classes]
    parties = options.parties.split(",")
    how: dict[str, Any] = {
        "epochs": options.epochs, "batch_size": options.batch_size, "loss": options.loss,
        "optimizer": options.optimizer, "learning_rate": options.learning_rate,
        "schedule": options.schedule, "progress": False if options.json else None,
    }  # fmt: skip

    begun = time.perf_counter()
    plain = nn.MLP(layers, random_state=options.seed)
    plain.fit(X, y, validation=(X_test, y_test), **how)
    seconds_plain = time.perf_counter() - begun

    with mpc.Session(parties) as session:
        rows = session.share(X, owner=parties[-1], bound=1)
        targets = session.share(nn.one_hot(y, classes), owner=parties[0], bound=1)
        test = (
            session.share(X_test, owner=parties[-1], bound=1),
            session.share(nn.one_hot(y_test, classes), owner=parties[0], bound=1),
        )
        network = nn.MLP(layers, random_state=options.seed)
        # A step first: everything that is compiled or loaded from the cache is done then.
        network.fit(
            rows[: options.batch_size], targets[: options.batch_size],
            **{**how, "epochs": 1, "progress": False},
        )  # fmt: skip
        begun = time.perf_counter()
        trained = network.fit(rows, targets, validation=test, **how)
        seconds = time.perf_counter() - begun
    epochs = [
        {
            "epoch": number,
            "plain_accuracy": plain_score,
            "encrypted_accuracy": score,
            "encrypted_loss": loss,
            "seconds": spent.seconds,
            "rounds": spent.rounds,
            "bytes_sent_per_party": spent.bytes_sent,
            "correction_bytes": spent.correction_bytes,
        }
        for number, (plain_score, score, loss, spent) in enumerate(
            zip(
                plain.validation_scores_, trained.validation_scores_, trained.validation_losses_,
                trained.epoch_costs_, strict=True,
            ),
            start=1,
        )
    ]  # fmt: skip
    return {
        "data": name,
        "layers": layers,
        "images": len(X),
        "test_images": len(X_test),
        "parties": parties,
        "batch_size": options.batch_size,
        "loss": options.loss,
        "optimizer": options.optimizer,
        "learning_rate": options.learning_rate,
        "schedule": options.schedule,
        "epochs": epochs,
        "seconds_plain": seconds_plain,
        "seconds_encrypted": seconds,
        "peak_bytes": peak_bytes(),
        "published": [
            dict(zip(("system", "epochs", "accuracy", "time", "conditions"), row, strict=True))
            for row in PUBLISHED
        ],
        "machine": facts(),
    }


def about(result: dict[str, Any]) -> list[str]:
    """Return what was trained, in lines."""
    parties = result["parties"]
    layers = "-".join(map(str, result["layers"]))
    steps = -(-result["images"] // result["batch_size"])
    return [
        f"{result['images']:,} images of {result['data']}, network {layers},"
        f" {steps:,} steps an epoch, {result['loss'].replace('_', ' ')}, {result['optimizer']}",
        f"images: {parties[-1]}'s; labels: {parties[0]}'s; computed by {', '.join(parties)} and a"
        f" crypto provider, whose work is in the seconds",
        f"accuracy on {result['test_images']:,} test images",
    ]


def timing(result: dict[str, Any]) -> str:
    """Return how long it took, in a sentence."""
    steps = -(-result["images"] // result["batch_size"])
    seconds = min(e["seconds"] for e in result["epochs"])
    return (
        f"plain training {result['seconds_plain']:.1f} s, encrypted {result['seconds_encrypted']:.1f} s"
        f" with validation; the fastest epoch {1e3 * seconds / steps:.1f} ms a step;"
        f" peak memory {result['peak_bytes'] / 1e6:,.0f} MB"
    )


def report(result: dict[str, Any]) -> str:
    """Return the result as a table."""
    text = [
        *about(result),
        "",
        table(training_rows(result)),
        "",
        timing(result),
        f"Machine: {describe(result['machine'])}",
    ]
    if result["data"] == "digits":
        text += [
            "Next: --data mnist for the 28x28 digits, --report run.html for figures, --help for the rest."
        ]
    return "\n".join(text)


def draw(result: dict[str, Any]) -> Any:
    """Draw both learning curves."""
    curves = {
        name: [e[f"{name}_accuracy"] for e in result["epochs"]] for name in ("plain", "encrypted")
    }
    layers = "-".join(map(str, result["layers"]))
    return nn.plots.learning_curves(curves, f"{result['data']}, network {layers}")


def write_page(result: dict[str, Any], path: Path) -> None:
    """Write the result as a page."""
    parts = [
        *(page.text(line) for line in about(result)),
        page.text(timing(result)),
        page.figure(lambda: draw(result), "accuracy by epoch, plain and encrypted"),
        page.table(training_rows(result)),
    ]
    page.write(path, "Encrypted training beside plain training", parts, result["machine"])


def job(options: argparse.Namespace) -> int:
    """Run and print."""
    script.at_least_one(options, "rows", "epochs", "batch_size")
    result = run(options)
    if options.figure is not None:
        draw(result).savefig(options.figure, dpi=150)
    if options.report is not None:
        write_page(result, options.report)
    print(json.dumps(result) if options.json else report(result))
    return 0


if __name__ == "__main__":
    sys.exit(script.main(job, arguments()))
