"""The main job: handwritten digits, classified and scored without anybody seeing them.

An MLP is trained in the clear. Then its weights (alice's), the images and the targets (bob's) are
split into shares, the whole test set is evaluated on the shares, predictions stay secret too, and
the number of hits is all that is revealed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import page
import script
from machine import describe, facts, table
from numpy.typing import NDArray

import mpc
import nn
from nn.data.idx_files import has_idx

Data = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]
MEMORY_ROWS = (64, 256, 1024, 4096)
# Rows that are evaluated first, not timed: with a provider the same is done of few as of many.
WARM_UP = 65


def arguments(line: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = script.parser(__doc__)
    script.add_data(parser)
    parser.add_argument(
        "--layers", default="128,128", metavar="N,N", help="hidden layers (default: 128,128)"
    )
    parser.add_argument(
        "--epochs", type=int, help="of plain training (default: 10, for the small digits 30)"
    )
    parser.add_argument(
        "--batch-size", type=int, default=128, help="of plain training (default: 128)"
    )
    parser.add_argument(
        "--rows-at-once",
        type=int,
        help="images evaluated at once on shares (default: what the memory limit allows)",
    )
    script.add_parties(parser, "the model", "the data")
    parser.add_argument(
        "--processes",
        action="store_true",
        help="every party and the provider in a process of its own, over TLS on the loopback",
    )
    script.add_no_provider(parser)
    parser.add_argument("--seed", type=int, default=0, help="of weights and order (default: 0)")
    parser.add_argument(
        "--memory",
        action="store_true",
        help=f"also measure the peak memory for {MEMORY_ROWS} images at once",
    )
    parser.add_argument(
        "--repeats", type=int, default=1, help="evaluations; the median counts (default: 1)"
    )
    script.add_report(parser, "; for it the counts of the confusion matrix are revealed, too")
    script.add_output(parser)
    return parser.parse_args(line)


def load(name: str, say: Any) -> tuple[str, Data]:
    """Return the name of the data and the data."""
    if name == "digits":
        return "digits", nn.load_digits_8x8()
    if name == "mnist":
        return "mnist", nn.load_mnist()
    if name == "auto":
        try:
            return "mnist", nn.load_mnist()
        except mpc.DataError as error:
            say(f"{error}. The 8x8 digits are used instead.")
            return "digits", nn.load_digits_8x8()
    folder = Path(name)
    if not folder.is_dir():
        raise mpc.DataError(f"--data must be digits, mnist, auto or a folder, got {name!r}")
    # idx files may hold anything of that form; a data home holds MNIST itself.
    called = f"the folder {folder.resolve().name}" if has_idx(folder) else "mnist"
    return called, nn.load_mnist(folder)


def peak_bytes() -> int:
    """Return the largest amount of memory this process has held."""
    status = Path("/proc/self/status")
    if status.exists():
        # Unlike getrusage's, this figure does not count what the parent held before a fork.
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def evaluate(
    model: nn.MLP,
    parties: list[str],
    X: NDArray[Any],
    y: NDArray[Any],
    rows: int | None,
    confusion: bool = False,
    provider: str | None = "crypto",
) -> dict[str, Any]:
    """Evaluate the model on shares in this process; only counts are revealed."""
    plain = nn.one_hot(model.predict(X), len(model.classes_))
    with mpc.Session(parties, provider=provider) as session:
        return measure(session, model, X, y, plain, len(y), rows, confusion)


def warm_up(provider: str | None) -> slice:
    """Return which rows are evaluated first, so that everything is compiled or loaded from the cache.

    Two parties alone make products of many rows in other ways than of few, so they evaluate all of them.
    """
    return slice(0, WARM_UP) if provider else slice(None)


def apart(session: mpc.Session, *runs: tuple[Any, ...]) -> list[dict[str, Any]]:
    """Do the same for every tuple of arguments, in one party's process."""
    return [measure(session, *run) for run in runs]


def evaluate_apart(
    model: nn.MLP,
    parties: list[str],
    X: NDArray[Any],
    y: NDArray[Any],
    rows: int | None,
    repeats: int,
    confusion: bool,
    provider: str | None = "crypto",
) -> list[dict[str, Any]]:
    """Evaluate with every party in a process of its own; :func:`warm_up` comes first."""
    plain = nn.one_hot(model.predict(X), len(model.classes_))
    pieces = [warm_up(provider), *[slice(None)] * repeats]
    inputs: dict[str, tuple[Any, ...]] = {}
    for party in parties:
        first, last = party == parties[0], party == parties[-1]
        inputs[party] = tuple(
            (
                model if first else model.outline(),
                X[piece] if last else None,
                y[piece] if last else None,
                plain[piece] if first else None,
                len(y[piece]),
                rows,
                confusion,
            )
            for piece in pieces
        )
    found = mpc.launch(apart, parties, inputs=inputs, provider=provider)
    return [dict(run) for run in found[parties[-1]]]


def measure(
    session: mpc.Session,
    model: nn.MLP,
    X: NDArray[Any] | None,
    y: NDArray[Any] | None,
    plain: NDArray[Any] | None,
    count: int,
    rows: int | None,
    confusion: bool,
) -> dict[str, Any]:
    """Evaluate in a session: the first party's model on the last party's `count` images.

    A process that is another party gives None; `plain` are the plain model's predictions. With
    `confusion` the counts of the confusion matrix are revealed, too.
    """
    classes, parties = len(model.classes_), session.parties
    before, wire = session.cost(), session.bytes_on_the_wire
    start = time.perf_counter()
    secret_model = model.share(session, owner=parties[0])
    images = secret_model.share_rows(X, owner=parties[-1], rows=count)
    shape = (count, classes)
    targets = session.share(
        None if y is None else nn.one_hot(y, classes),
        owner=parties[-1], shape=shape, dtype=np.int64, bound=1,
    )  # fmt: skip
    shared = time.perf_counter()
    predicted = secret_model(images, batch_size=rows).argmax(axis=1, one_hot=True)
    hits = (predicted * targets).sum().reveal()
    done = time.perf_counter()
    cost = session.cost() - before
    sent = session.bytes_on_the_wire[0] - wire[0]
    # How many predictions are those of the plain model, again as one count.
    guess = session.share(plain, owner=parties[0], shape=shape, dtype=np.int64, bound=1)
    agree = (predicted * guess).sum().reveal()
    counts = nn.metrics.confusion_matrix(targets, predicted).reveal() if confusion else None
    return {
        "encrypted_accuracy": float(hits / count),
        "agreement": float(agree / count),
        "seconds_sharing": shared - start,
        "seconds_encrypted": done - shared,
        "images_per_second": count / (done - shared),
        "rounds": cost.rounds,
        "bytes_sent_per_party": cost.bytes_sent_per_party,
        "correction_bytes": cost.correction_bytes,
        "bytes_on_the_wire": sent,
        "confusion_matrix": None if counts is None else counts.tolist(),
        "cost": cost,
    }


def _memory_of(
    parameters: list[NDArray[Any]],
    parties: list[str],
    X: NDArray[Any],
    y: NDArray[Any],
    rows: int,
    provider: str | None,
) -> tuple[int, int, float]:
    """Return the peak before and after an evaluation, and its seconds; for a fresh process."""
    model = nn.MLP.from_parameters(parameters)
    evaluate(model, parties, X[:1], y[:1], rows, provider=provider)
    before = peak_bytes()
    result = evaluate(model, parties, X, y, rows, provider=provider)
    return before, peak_bytes(), result["seconds_encrypted"]


def memory_by_rows(
    model: nn.MLP, parties: list[str], X: NDArray[Any], y: NDArray[Any], provider: str | None
) -> list[dict[str, Any]]:
    """Measure the peak memory for several batch sizes, each in a process of its own."""
    found = []
    for rows in MEMORY_ROWS:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            job = pool.submit(_memory_of, model.parameters, parties, X, y, rows, provider)
            before, peak, taken = job.result()
        found.append(
            {"rows_at_once": rows, "bytes_before": before, "peak_bytes": peak, "seconds": taken}
        )
    return found


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Do the whole job and return what is reported."""

    def say(text: str) -> None:
        print(text, file=sys.stderr)

    name, (X_train, X_test, y_train, y_test) = load(options.data, say)
    usual = 30 if name == "digits" else 10
    epochs = usual if options.epochs is None else options.epochs
    try:
        hidden = [int(n) for n in options.layers.split(",") if n]
    except ValueError:
        raise mpc.ArgumentError(f"--layers must be numbers, got {options.layers!r}") from None
    classes = len(np.unique(y_train))
    layers = [X_train.shape[1], *hidden, classes]
    parties = options.parties.split(",")
    provider = None if options.no_provider else "crypto"

    start = time.perf_counter()
    model = nn.MLP(layers, random_state=options.seed)
    model.fit(
        X_train, y_train, epochs=epochs, batch_size=options.batch_size,
        progress=False if options.json else None,
    )  # fmt: skip
    trained = time.perf_counter()
    plain_accuracy = model.score(X_test, y_test)
    scored = time.perf_counter()
    if options.processes:
        _, *runs = evaluate_apart(
            model, parties, X_test, y_test, options.rows_at_once, options.repeats,
            options.report is not None, provider,
        )  # fmt: skip
        warm = time.perf_counter() - sum(r["seconds_encrypted"] for r in runs)
    else:
        first = warm_up(provider)
        evaluate(
            model, parties, X_test[first], y_test[first], options.rows_at_once, provider=provider
        )
        warm = time.perf_counter()
        runs = [
            evaluate(
                model,
                parties,
                X_test,
                y_test,
                options.rows_at_once,
                options.report is not None,
                provider,
            )
            for _ in range(options.repeats)
        ]
    taken = statistics.median_low(result["seconds_encrypted"] for result in runs)
    result = next(r for r in runs if r["seconds_encrypted"] == taken)
    return {
        "data": name,
        "layers": layers,
        "images": len(y_test),
        "parties": parties,
        "processes": options.processes,
        "provider": provider,
        "plain_accuracy": plain_accuracy,
        **result,
        "seconds_encrypted_runs": [r["seconds_encrypted"] for r in runs],
        "seconds_training": trained - start,
        "seconds_plain": scored - trained,
        "seconds_first_run": warm - scored,
        "peak_bytes": peak_bytes(),
        "memory": memory_by_rows(model, parties, X_test, y_test, provider)
        if options.memory
        else None,
        "machine": facts(),
    }


def summary(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the result as rows; empty ones part what belongs together."""
    images = result["images"]
    agree = round(result["agreement"] * images)
    return [
        ("accuracy, plain", f"{result['plain_accuracy']:.2%}"),
        ("accuracy, encrypted", f"{result['encrypted_accuracy']:.2%}"),
        ("predictions that agree", f"{agree:,} of {images:,}"),
        ("", ""),
        ("plain training", f"{result['seconds_training']:.2f} s"),
        ("plain evaluation", f"{result['seconds_plain']:.3f} s"),
        ("first run: compiling, or loading kernels", f"{result['seconds_first_run']:.2f} s"),
        ("sharing model, images and targets", f"{result['seconds_sharing']:.3f} s"),
        (
            "encrypted evaluation, "
            + ("provider included" if result["provider"] else "all within"),
            f"{result['seconds_encrypted']:.3f} s",
        ),
        ("images a second", f"{result['images_per_second']:,.0f}"),
        ("", ""),
        ("rounds", f"{result['rounds']:,}"),
        ("bytes sent by a party", f"{result['bytes_sent_per_party']:,}"),
        *(
            [("correction bytes from the provider", f"{result['correction_bytes']:,}")]
            if result["provider"]
            else []
        ),
        *(
            [("bytes on the wire from the last party", f"{result['bytes_on_the_wire']:,}")]
            if result["processes"]
            else []
        ),
        ("peak memory", f"{result['peak_bytes'] / 1e6:,.0f} MB"),
    ]


def title(result: dict[str, Any]) -> str:
    """Return what was evaluated, in a line."""
    layers = "-".join(map(str, result["layers"]))
    return f"{result['images']:,} images of {result['data']}, network {layers}"


def owners(result: dict[str, Any]) -> str:
    """Return who owns what, in a line."""
    parties = result["parties"]
    return (
        f"model: {parties[0]}'s; images and targets: {parties[-1]}'s;"
        f" computed by {', '.join(parties)} "
        + ("and a crypto provider" if result["provider"] else "alone")
        + (", each in a process of its own" if result["processes"] else "")
    )


def memory_rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the peak memory by batch size as rows."""
    measured = [("images at once", "before", "peak", "seconds")]
    measured += [
        (
            f"{m['rows_at_once']:,}",
            f"{m['bytes_before'] / 1e6:,.0f} MB",
            f"{m['peak_bytes'] / 1e6:,.0f} MB",
            f"{m['seconds']:.3f}",
        )
        for m in result["memory"]
    ]
    return measured


def report(result: dict[str, Any]) -> str:
    """Return the result as tables."""
    text = [
        title(result),
        owners(result),
        "",
        table(summary(result), header=False),
        "",
        str(result["cost"]),
    ]
    if result["memory"]:
        text += ["", table(memory_rows(result))]
    text += ["", f"Machine: {describe(result['machine'])}"]
    if result["data"] == "digits":
        text += [
            "Next: --data mnist for the 28x28 digits, --report run.html for figures, --help for the rest."
        ]
    return "\n".join(text)


def write_page(result: dict[str, Any], path: Path) -> None:
    """Write the result as a page."""
    counts, cost = result["confusion_matrix"], result["cost"]
    parts = [
        page.text(owners(result)),
        page.table(summary(result), header=False),
        page.heading("Cost by layer"),
        page.figure(cost.plot, "rounds, megabytes and seconds by layer"),
        page.table(page.cost_rows(cost.by_layer)),
        page.heading("Cost by protocol"),
        page.table(page.cost_rows(cost.by_protocol)),
        page.heading("Confusion matrix"),
        page.text(
            "Counted on shares, from secret predictions and secret targets: these counts are all that"
            " was revealed of them."
        ),
        page.figure(lambda: nn.plots.confusion_matrix(counts), "confusion matrix"),
    ]
    if result["memory"]:
        parts += [page.heading("Memory"), page.table(memory_rows(result))]
    page.write(path, f"Encrypted evaluation: {title(result)}", parts, result["machine"])


def job(options: argparse.Namespace) -> int:
    """Run and print."""
    script.at_least_one(options, "repeats")
    result = run(options)
    if options.report is not None:
        write_page(result, options.report)
    if options.json:
        result.pop("cost")
        print(json.dumps(result))
    else:
        print(report(result))
    return 0


if __name__ == "__main__":
    sys.exit(script.main(job, arguments()))
