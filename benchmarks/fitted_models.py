"""Fitted models of scikit-learn beside Concrete ML: accuracy, and seconds a row.

    python benchmarks/fitted_models.py --models logistic,tree

The same models, see peers/fitted.py: on shares by two parties, each in a process of its own over TLS,
with a provider in a third; and by Concrete ML 1.9, one process, which encrypts rows homomorphically,
quantised to a few bits. Its virtual environment (about 6 GB) is made on the first run. What both do is not
the same: there the party that computes knows the model, here the model is secret, and there are two.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import script
from machine import describe, facts, markdown

PEERS = Path(__file__).resolve().parent / "peers"
sys.path.append(str(PEERS))

import fitted  # noqa: E402
import run as peers  # noqa: E402

import mpc  # noqa: E402
import nn  # noqa: E402

CONCRETE = peers.Library("concrete_worker.py", "concrete", peers.CONCRETE)
PARTIES = ("alice", "bob")


def program(session: mpc.Session, name: str, repeats: int) -> dict[str, Any] | None:
    """Share a model of alice's and rows of bob's, and predict; bob learns the answers."""
    # In a process of its own, that fits the model as all do.
    estimator, fit, test, wanted = fitted.fitted(fitted.MODELS[name])
    model = nn.from_sklearn(estimator, fit)
    mine = session.me == PARTIES[0]
    secret = model.share(session, owner=PARTIES[0])

    def predict(rows: Any) -> Any:
        shared = secret.share_rows(None if mine else rows, owner=PARTIES[1], rows=len(rows))
        return secret.predict(shared, to=PARTIES[1])

    answers = predict(test)
    predict(test[:1])
    _, whole = fitted.timed(lambda: predict(test), repeats)
    _, single = fitted.timed(lambda: predict(test[:1]), repeats)
    if mine:
        return None
    plain = estimator.predict(test)
    return {
        "plain": plain.tolist(),
        "plain_quality": fitted.quality(fitted.MODELS[name], plain, wanted),
        "quality": fitted.quality(fitted.MODELS[name], answers, wanted),
        "rows": len(test),
        "seconds_row": single,
        "seconds_row_of_many": [taken / len(test) for taken in whole],
    }


def ours(names: Sequence[str], repeats: int) -> dict[str, dict[str, Any]]:
    """Measure Sotto's answers."""
    found = {}
    for name in names:
        inputs = dict.fromkeys(PARTIES, (name, repeats))
        found[name] = mpc.launch(program, PARTIES, inputs=inputs)[PARTIES[1]]
    return found


def theirs(names: Sequence[str], venvs: Path, timeout: float) -> dict[str, dict[str, Any]]:
    """Measure Concrete ML's, or say why there is none."""
    try:
        interpreter = peers.installed(CONCRETE, venvs, None)
    except peers.PeerError as error:
        return {name: {"error": f"cannot be installed: {error}"} for name in names}
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        line = [interpreter, str(PEERS / CONCRETE.worker), name]
        try:
            done = subprocess.run(
                line, capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            found[name] = {"error": f"did not finish within {timeout:g} s"}
            continue
        lines = [text for text in done.stdout.splitlines() if text.startswith("{")]
        why = peers.reason(done.stderr) or f"ended with code {done.returncode}"
        found[name] = json.loads(lines[-1]) if lines else {"error": why}
    return found


def rows_of(found: dict[str, Any]) -> list[list[str]]:
    """Return the comparison as a table."""
    rows = [
        [
            "model", "in the clear", "Sotto", "Concrete ML", "a row, Sotto", "of many, Sotto",
            "a row, Concrete ML", "keys and compiling, Concrete ML",
        ]
    ]  # fmt: skip
    for item in found["models"]:
        mine, other = item["sotto"], item["concrete"]
        row = [item["title"], f"{mine['plain_quality']:.3f}", f"{mine['quality']:.3f}"]
        one, many = (clock(mine[key]) for key in ("seconds_row", "seconds_row_of_many"))
        if "error" in other:
            rows.append([*row, "-", one, many, "-", "-"])
            continue
        before = other["seconds_compiling"] + other["seconds_keys"]
        rows.append(
            [
                *row,
                f"{other['quality']:.3f}",
                one,
                many,
                clock(other["seconds_row"]),
                f"{before:.1f} s",
            ]
        )
    return rows


def clock(taken: Sequence[float]) -> str:
    """Return a median and its spread."""
    scale, unit = (1.0, "s") if statistics.median(taken) >= 0.1 else (1e3, "ms")
    low, middle, high = min(taken), statistics.median(taken), max(taken)
    return "{:.3g} [{:.3g}-{:.3g}] {}".format(*(t * scale for t in (middle, low, high)), unit)


def notes(found: dict[str, Any]) -> list[str]:
    """Say which models differ, and what failed."""
    text = []
    for item in found["models"]:
        other = item["concrete"]
        if "error" in other:
            text.append(f"Concrete ML, {item['title']}: {other['error']}")
        elif not item["same_model"]:
            text.append(
                f"{item['title']}: the two versions of scikit-learn fit models that differ in some row"
            )
    return text


def fitted_text(found: dict[str, Any]) -> list[str]:
    """Return what RESULTS.md says."""
    versions = found["versions"]
    bits = "; ".join(f"{item['title']}: {item['bits']}" for item in found["models"])
    return [
        "`fitted_models.py`: the part of held-out rows that get their class, or R^2, and seconds a row,"
        " median [least-most]. Sotto: model and rows secret, two parties and a provider in processes of"
        f" their own over TLS. Concrete ML {versions.get('concrete-ml', '1.9.0')}: homomorphic"
        " encryption in one process that knows the model, numbers quantised. Its accuracy is that of the"
        " quantised model in the clear, which the rows that were timed were compared with; compiling and"
        " keys come before."
        f" Bits there: {bits}.",
        "",
        markdown(rows_of(found)),
        "",
        *(f"- {note}." for note in notes(found)),
        *([""] if notes(found) else []),
        f"Machine: {describe(found['machine'])}.",
    ]


def arguments(line: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = script.parser(__doc__)
    parser.add_argument(
        "--models", default=",".join(fitted.MODELS), metavar="NAME,NAME",
        help=f"of {', '.join(fitted.MODELS)} (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--repeats", type=int, default=5, help="timed calls of Sotto's (default: 5)"
    )
    parser.add_argument(
        "--timeout", type=float, default=180, help="seconds for a model of the peer's"
    )
    parser.add_argument("--no-peer", action="store_true", help="Sotto alone")
    parser.add_argument("--venvs", type=Path, default=PEERS / ".venvs", help="where the peer lives")
    script.add_output(parser)
    return parser.parse_args(line)


def job(options: argparse.Namespace) -> int:
    """Measure and report."""
    script.at_least_one(options, "repeats")
    names = options.models.split(",")
    if unknown := [name for name in names if name not in fitted.MODELS]:
        raise ValueError(
            f"--models must be of {', '.join(fitted.MODELS)}, got {', '.join(unknown)}"
        )
    mine = ours(names, options.repeats)
    absent = {name: {"error": "not measured"} for name in names}
    other = absent if options.no_peer else theirs(names, options.venvs, options.timeout)
    found = {
        "models": [
            {
                "model": name,
                "title": fitted.MODELS[name].title,
                "bits": fitted.MODELS[name].bits,
                "same_model": alike(mine[name]["plain"], other[name].get("plain", [])),
                "sotto": without_answers(mine[name]),
                "concrete": without_answers(other[name]),
            }
            for name in names
        ],
        "versions": next((one["versions"] for one in other.values() if "versions" in one), {}),
        "machine": facts(),
    }
    print(json.dumps(found, indent=1) if options.json else "\n".join(fitted_text(found)))
    return 0


def alike(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two models answer alike in the clear."""
    return len(one) == len(other) and bool(np.allclose(one, other, rtol=1e-9))


def without_answers(found: dict[str, Any]) -> dict[str, Any]:
    """Return a measurement without the answers, which are compared and not kept."""
    return {key: value for key, value in found.items() if key not in ("plain", "versions")}


if __name__ == "__main__":
    sys.exit(script.main(job, arguments()))
