"""The papers' networks A, B, C and D: trained in the clear, then evaluated on shares.

For each network: plain and encrypted accuracy on the test images, seconds for a single image and for
a batch of 128, rounds, bytes, and the cost of every layer, beside what papers report. Model and
images are secret; what is revealed is the number of hits, or the label of the timed images.

With --no-provider two parties make everything themselves, within the calls; from the second call on
the weights that they multiply few rows with lie encrypted at the other party. Predictions other than the
plain model's are counted in either case, and more than one in a thousand are an error.

With --train-encrypted the networks are also trained on shares for one epoch on a few images, from the
same weights and in the same order as in the clear; then the weights are revealed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import script
from encrypted_mnist import load, peak_bytes
from machine import describe, facts, seconds
from networks_report import CONDITIONS, report, write_page
from numpy.typing import NDArray

import mpc
import nn

BATCH = 128
# Passes over the data and learning rate of plain training.
TRAINING = {"A": (10, 0.1), "B": (8, 0.05), "C": (5, 0.05), "D": (10, 0.1)}


# Which share of predictions must be the plain model's: rounding decides where two scores are all but equal.
AGREEMENT = 0.999

# Rows a step and learning rate where both are trained for one epoch on a few images.
FOLLOWED = (32, 0.02)


@dataclass(frozen=True)
class Published:
    """A figure that others report: for one image, on a local network, on their machines."""

    network: str
    system: str
    parties: str
    seconds: float
    megabytes: float
    conditions: str
    source: str


_LAN = "single image, local network"
_ONLINE = "per image of a batch of 128, online phase only"
_SECURENN = "Wagh, Gupta, Chandran 2019 (SecureNN)"
_ARIANN = "Ryffel, Tholoniat, Pointcheval, Bach 2022 (AriaNN), from memory"
_PIRANHA = "Watson, Wagh, Popa 2022 (Piranha), artefacts"
PUBLISHED = [
    Published("A", "ABY3", "3, honest majority", 0.008, 0.5, _LAN, "Mohassel, Rindal 2018"),
    Published("A", "SecureNN", "3, honest majority", 0.043, 2.1, _LAN, _SECURENN),
    Published("A", "AriaNN", "2 and a dealer", 0.004, 0.022, _ONLINE, _ARIANN),
    Published("B", "SecureNN", "3, honest majority", 0.13, 8.9, _LAN, _SECURENN),
    Published("B", "Gazelle", "2", 0.81, 70, _LAN, "Juvekar et al. 2018, as SecureNN reports it"),
    Published("B", "AriaNN", "2 and a dealer", 0.041, 0.28, _ONLINE, _ARIANN),
    Published("C", "SecureNN", "3, honest majority", 0.23, 18.9, _LAN, _SECURENN),
    Published("C", "Falcon", "3, honest majority", 0.038, 2.3, _LAN, "Wagh et al. 2021"),
    Published("C", "Piranha", "3, honest majority", 0.031, 2.5, _LAN + ", on GPUs", _PIRANHA),
    Published("C", "AriaNN", "2 and a dealer", 0.055, 0.43, _ONLINE, _ARIANN),
    Published("D", "ABY3", "3, honest majority", 0.010, 5.2, _LAN, "Mohassel, Rindal 2018"),
    Published("D", "SecureNN", "3, honest majority", 0.076, 4.05, _LAN, _SECURENN),
    Published("D", "Gazelle", "2", 0.20, 8, _LAN, "Juvekar et al. 2018, as SecureNN reports it"),
]


def arguments(line: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = script.parser(__doc__)
    parser.add_argument("--networks", default="A,B,C,D", help="which (default: A,B,C,D)")
    parser.add_argument(
        "--data",
        default="mnist",
        help="mnist (downloaded once from OpenML; the default), or a folder with the four idx .gz"
        " files or scikit-learn's data home",
    )
    parser.add_argument("--epochs", type=int, help="of plain training (default: 10, 8, 5, 10)")
    parser.add_argument("--train", type=int, help="images to train on (default: all)")
    parser.add_argument("--images", type=int, help="test images (default: all)")
    parser.add_argument("--repeats", type=int, default=20, help="timed runs (default: 20)")
    script.add_parties(parser, "the model", "the data")
    script.add_no_provider(parser)
    parser.add_argument("--seed", type=int, default=0, help="of weights and order (default: 0)")
    parser.add_argument(
        "--memory",
        action="store_true",
        help=f"also measure the peak memory of {BATCH} images at once, in a process of its own",
    )
    script.add_report(parser)
    parser.add_argument(
        "--train-encrypted", type=int, metavar="ROWS",
        help="also train B, C and D on shares, for one epoch on so many images",
    )  # fmt: skip
    parser.add_argument(
        "--starts", type=int, default=2, help="random starts of that training (default: 2)"
    )
    script.add_output(parser)
    return parser.parse_args(line)


def layer_rows(cost: mpc.Cost) -> list[dict[str, Any]]:
    """Return the cost by layer as data; what belongs to no layer is the argmax and the reveal."""
    return [
        {
            "layer": "argmax and reveal" if name == "-" else name,
            "rounds": spent.rounds,
            "bytes_sent": sum(spent.sent),
            "correction_bytes": spent.correction_bytes,
            "seconds": spent.seconds,
        }
        for name, spent in cost.by_layer.items()
    ]


def timed(
    model: Any, parties: list[str], X: NDArray[Any], repeats: int, provider: str | None
) -> dict[str, Any]:
    """Time labels of the rows X, and count what one run takes once the weights are opened."""
    with mpc.Session(parties, provider=provider) as session:
        secret_model = model.share(session, owner=parties[0])

        def once() -> None:
            rows = secret_model.share_rows(X, owner=parties[-1])
            secret_model(rows, batch_size=len(X)).argmax(axis=1).reveal()

        once()
        once()
        before = session.cost()
        once()
        cost = session.cost() - before
        taken = seconds(once, repeats)
    return {
        "rows": len(X),
        "seconds": statistics.median(taken),
        "seconds_runs": taken,
        "rounds": cost.rounds,
        "bytes_sent": sum(cost.total.sent),
        "bytes_sent_per_party": cost.bytes_sent_per_party,
        "correction_bytes": cost.correction_bytes,
        "layers": layer_rows(cost),
    }


def accuracy(
    model: Any, parties: list[str], X: NDArray[Any], y: NDArray[Any], provider: str | None
) -> tuple[float, float, float]:
    """Evaluate on shares: return the accuracy, the agreement with the plain model, and seconds."""
    with mpc.Session(parties, provider=provider) as session:
        secret_model = model.share(session, owner=parties[0])
        start = time.perf_counter()
        images = secret_model.share_rows(X, owner=parties[-1])
        targets = session.share(nn.one_hot(y, 10), owner=parties[-1], bound=1)
        predicted = secret_model(images).argmax(axis=1, one_hot=True)
        hits = (predicted * targets).sum().reveal()
        taken = time.perf_counter() - start
        plain = session.share(nn.one_hot(model.predict(X), 10), owner=parties[0], bound=1)
        agree = (predicted * plain).sum().reveal()
    if agree < AGREEMENT * len(y):
        raise mpc.SessionError(
            f"{agree:,} of {len(y):,} predictions are the plain model's, at least {AGREEMENT:.1%} must be"
        )
    return float(hits / len(y)), float(agree / len(y)), taken


def _peak(name: str, parties: list[str], rows: int, provider: str | None) -> tuple[int, int]:
    """Return the peak memory before and after a batch; for a fresh process."""
    # Weights make no difference to memory: one step of training is enough.
    X = np.random.default_rng(0).uniform(size=(rows, 784)).astype(np.float32)
    X[0], X[1] = 0, 1
    model = getattr(nn.networks, name)(random_state=0)
    model.fit(X[:10], np.arange(10), epochs=1, learning_rate=1e-6, progress=False)
    timed(model, parties, X[:1], 1, provider)
    before = peak_bytes()
    timed(model, parties, X, 1, provider)
    return before, peak_bytes()


def memory(name: str, parties: list[str], provider: str | None) -> dict[str, int]:
    """Measure the peak memory of a batch, all of it at once whatever the session's limit."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        before, peak = pool.submit(_peak, name, parties, BATCH, provider).result()
    return {"rows": BATCH, "bytes_before": before, "peak_bytes": peak}


def _provider(options: argparse.Namespace) -> str | None:
    return None if options.no_provider else "crypto"


def follow(name: str, options: argparse.Namespace, data: Any) -> dict[str, Any]:
    """Train one network for one epoch, in the clear and on shares, from several random starts."""
    X_train, X_test, y_train, y_test = data
    parties = options.parties.split(",")
    X = X_train[: options.train_encrypted].astype(np.float64)
    y = y_train[: options.train_encrypted]
    batch_size, rate = FOLLOWED
    how: dict[str, Any] = {
        "epochs": 1, "batch_size": batch_size, "learning_rate": rate, "progress": False
    }  # fmt: skip
    runs = []
    for seed in range(options.seed, options.seed + options.starts):
        network = getattr(nn.networks, name)
        plain = network(random_state=seed).fit(X, y, **how)
        with mpc.Session(parties, provider=_provider(options)) as session:
            rows = session.share(X, owner=parties[-1], bound=1)
            targets = session.share(nn.one_hot(y, 10), owner=parties[0], bound=1)
            secret_model = network(random_state=seed).fit(rows, targets, **how)
            revealed = secret_model.reveal()
        spent = secret_model.epoch_costs_[0]
        runs.append(
            {
                "seed": seed,
                "plain_accuracy": plain.score(X_test, y_test),
                "encrypted_accuracy": revealed.score(X_test, y_test),
                "seconds": spent.seconds,
            }
        )
    return {
        "rows": len(X),
        "batch_size": batch_size,
        "learning_rate": rate,
        "test_images": len(y_test),
        "runs": runs,
        "rounds": spent.rounds,
        "bytes_sent_per_party": spent.bytes_sent,
        "correction_bytes": spent.correction_bytes,
        "full_rows": len(X_train),
        "seconds_full_epoch_extrapolated": (
            statistics.median(run["seconds"] for run in runs) * len(X_train) / len(X)
        ),
    }


def measure(name: str, options: argparse.Namespace, data: Any) -> dict[str, Any]:
    """Train and evaluate one network."""
    X_train, X_test, y_train, y_test = data
    parties, provider = options.parties.split(","), _provider(options)
    epochs, rate = TRAINING[name]
    epochs = epochs if options.epochs is None else options.epochs
    model = getattr(nn.networks, name)(random_state=options.seed)
    start = time.perf_counter()
    model.fit(
        X_train[: options.train], y_train[: options.train], epochs=epochs, learning_rate=rate,
        progress=False if options.json else None,
    )  # fmt: skip
    trained = time.perf_counter() - start
    X, y = X_test[: options.images], y_test[: options.images]
    single = timed(model, parties, X[:1], options.repeats, provider)
    batch = timed(model, parties, X[:BATCH], max(3, options.repeats // 4), provider)
    encrypted, agreement, taken = accuracy(model, parties, X, y, provider)
    return {
        "network": name,
        "provider": provider,
        "parameters": model.n_parameters,
        "epochs": epochs,
        "learning_rate": rate,
        "seconds_training": trained,
        "images": len(y),
        "plain_accuracy": model.score(X, y),
        "encrypted_accuracy": encrypted,
        "agreement": agreement,
        "seconds_all": taken,
        "single": single,
        "batch": batch,
        "memory": memory(name, parties, provider) if options.memory else None,
        "training": follow(name, options, data)
        if options.train_encrypted and name != "A"
        else None,
        "published": [asdict(figure) for figure in PUBLISHED if figure.network == name],
    }


def job(options: argparse.Namespace) -> int:
    """Run and print."""
    names = [name for name in options.networks.upper().split(",") if name]
    script.at_least_one(
        options, "repeats", "epochs", "images", "train", "train_encrypted", "starts"
    )
    if not names or not set(names) <= set(TRAINING):
        raise ValueError(f"--networks must be of A,B,C,D, got {options.networks!r}")
    if options.data in ("digits", "auto"):
        raise mpc.DataError(f"--data must be mnist or a folder, got {options.data!r}")
    X_train, X_test, y_train, y_test = load(options.data, lambda text: None)[1]
    data = (X_train.astype(np.float32), X_test.astype(np.float32), y_train, y_test)
    results = []
    for name in names:
        results.append(measure(name, options, data))
        if not options.json:
            print(report(results[-1]), flush=True)
    machine = facts()
    if options.report is not None:
        write_page(results, machine, options.report)
    if options.json:
        print(json.dumps({"networks": results, "parties": options.parties, "machine": machine}))
    else:
        print(f"{CONDITIONS}\nMachine: {describe(machine)}")
    return 0


if __name__ == "__main__":
    sys.exit(script.main(job, arguments()))
