"""A party's own shares of a model in a file.

``<folder>/<party>.npz`` holds the shares of one party and nobody else's, readable by its owner
alone, and no pickle. A header says which version, party, format and layers it is, and to which set
of files it belongs: shares of two different sharings do not add up to anything, so parties that
load compare their sets first.
"""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import Session, SharedArray
from nn.layers import Dense, Layer, ReLU
from nn.shared_model import SharedModel, SharedRegressor
from ring.errors import DataError

__all__ = ["load_shares", "save_shares"]

VERSION = 1
_LARGEST_HEADER = 1 << 20


def save_shares(model: SharedModel, folder: str | Path) -> list[Path]:
    """Save the shares of every party that lives in this process, a file for each.

    All parties call it, in one round. Files are new, mode 600.

    Parameters
    ----------
    model : SharedModel
    folder : path
        Is made if it does not exist.

    Returns
    -------
    list of Path

    Raises
    ------
    DataError
        If a file exists already, or a layer cannot be saved.
    """
    session = model.session
    kinds = [type(layer).__name__ for layer in model.layers]
    if model.inputs is not None or isinstance(model, SharedRegressor):
        raise DataError(
            "only a classifier with one range for all features can be saved as shares: share it "
            "with low and high as numbers"
        )
    for layer in model.layers:
        if type(layer) not in (Dense, ReLU):
            raise DataError(f"a layer {layer!r} cannot be saved")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{session.parties[party]}.npz" for party in session.here]
    for path in paths:
        if path.exists():
            raise DataError(f"{path} exists already and is not overwritten")
    # A name that is fresh, and the same for all.
    number = session.fresh_id()
    words = np.empty((len(session.here), 2), np.uint64)
    for row, party in zip(words, session.here, strict=True):
        session.streams[party].provider.fill(row, number)
    fingerprint = session.open((words, "sum"))[0][0].tobytes().hex()
    parameters = [p for layer in model.layers for p in layer.parameters]
    for place, (party, path) in enumerate(zip(session.here, paths, strict=True)):
        header = {
            "version": VERSION,
            "set": fingerprint,
            "party": session.parties[party],
            "parties": list(session.parties),
            "frac_bits": session.format.frac_bits,
            "int_bits": session.format.int_bits,
            "layers": kinds,
            "low": float(model.low),
            "high": float(model.high),
            "parameters": [[p.frac_bits, p.bound] for p in parameters],
        }
        arrays: dict[str, Any] = {f"p{k}": p.shares[place] for k, p in enumerate(parameters)}
        arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
        arrays["classes"] = model.classes_
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
    return paths


def load_shares(session: Session, folder: str | Path) -> SharedModel:
    """Load what :func:`save_shares` has written, every party its own file, in one round.

    Raises
    ------
    DataError
        If a file is missing, damaged, of another version, party or format, or if the parties'
        files are not of one set.
    """
    files = [_File(session, party, Path(folder)) for party in session.here]
    if not files:
        raise DataError("shares are loaded by parties, not in a plan")
    first = files[0].header
    # Everybody tells its set's name and compares: sum and own name must fit.
    own = np.array([np.frombuffer(bytes.fromhex(f.header["set"]), np.uint64) for f in files])
    total = session.open((own, "sum"))[0][0]
    if not (total == own[0] * np.uint64(session.size)).all() or not (own == own[0]).all():
        raise DataError(
            f"the parties' files in {folder} are not of one set: they were saved at different times"
        )
    parameters = [
        SharedArray(session, np.stack([f.arrays[k] for f in files]), frac_bits, bound)
        for k, (frac_bits, bound) in enumerate(first["parameters"])
    ]
    layers: list[Layer] = []
    for kind in first["layers"]:
        layers.append(ReLU() if kind == "ReLU" else Dense(*(parameters.pop(0) for _ in range(2))))
    width = int(layers[0].parameters[0].shape[0])
    return SharedModel(session, layers, files[0].classes, width, first["low"], first["high"])


class _File:
    """One party's file, read and checked."""

    def __init__(self, session: Session, party: int, folder: Path) -> None:
        self.path = folder / f"{session.parties[party]}.npz"
        try:
            mode = self.path.stat().st_mode
            if mode & 0o077:
                raise DataError(
                    f"{self.path} must be readable by its owner alone, got mode {mode & 0o777:o}"
                )
            with np.load(self.path, allow_pickle=False) as file:
                contents = {name: file[name] for name in file.files}
        except FileNotFoundError:
            raise DataError(f"{self.path} does not exist") from None
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(f"{self.path} is damaged: {type(error).__name__}") from None
        self.header = self._header(contents.pop("header", None))
        expected = {
            "version": VERSION,
            "party": session.parties[party],
            "parties": list(session.parties),
            "frac_bits": session.format.frac_bits,
            "int_bits": session.format.int_bits,
        }
        for name, value in expected.items():
            if self.header.get(name) != value:
                raise DataError(
                    f"{self.path}: {name} must be {value!r}, got {self.header.get(name)!r}"
                )
        self.classes: NDArray[Any] = contents.pop("classes", np.empty(0))
        self.arrays: list[NDArray[Any]] = [
            contents.get(f"p{k}", np.empty(0)) for k in range(len(self._list("parameters")))
        ]
        layers = self._list("layers")
        if (
            len(contents) != len(self.arrays)
            or any(a.dtype != np.uint64 for a in self.arrays)
            or not set(layers) <= {"Dense", "ReLU"}
            or layers[:1] != ["Dense"]
            or 2 * layers.count("Dense") != len(self.arrays)
            or any(
                not (isinstance(p, list) and len(p) == 2 and all(type(n) is int for n in p))
                for p in self.header["parameters"]
            )
        ):
            raise DataError(f"{self.path} is damaged: its layers and arrays do not fit together")
        for weights, bias in zip(self.arrays[::2], self.arrays[1::2], strict=True):
            if weights.ndim != 2 or bias.shape != weights.shape[1:]:
                raise DataError(f"{self.path} is damaged: shapes {weights.shape}, {bias.shape}")

    def _header(self, data: NDArray[Any] | None) -> dict[str, Any]:
        try:
            header = json.loads(b"" if data is None else data.tobytes()[:_LARGEST_HEADER])
            whole = len(bytes.fromhex(header["set"])) == 16
            whole = whole and all(type(header[name]) is float for name in ("low", "high"))
        except (KeyError, TypeError, ValueError):
            whole = False
        if not whole:
            raise DataError(f"{self.path} is damaged: no header")
        return dict(header)

    def _list(self, name: str) -> list[Any]:
        value = self.header.get(name)
        if not isinstance(value, list):
            raise DataError(f"{self.path} is damaged: no {name}")
        return value
