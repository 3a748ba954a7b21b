"""Checkpoints of a training on shares: each party's own shares, in a file of its own.

A file is NumPy's .npz without pickle: the party's shares of the weights and of what the optimizer
remembers, and a header in JSON with the format's version, the setting, the epoch and the state of the
generator that shuffles the rows, all of which are public. It is written whole or not at all, and for
its owner's eyes only (mode 600). One party's file tells nothing about the weights; all together tell
them.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from mpc import Session, SharedArray
from mpc.errors import ArgumentError, DataError
from nn.shared_training import SharedTrainer

__all__ = ["Progress", "load", "save"]

_FORMAT = "sotto training checkpoint"
_VERSION = 1


@dataclass
class Progress:
    """How far a training has come, and what was revealed on the way."""

    epoch: int = 0
    scores: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def stops(self, patience: int | None) -> bool:
        """Whether the last `patience` epochs have not improved on the accuracy before."""
        if patience is None or len(self.scores) <= patience:
            return False
        return max(self.scores[-patience:]) <= max(self.scores[:-patience])


def _path(folder: Path, party: str) -> Path:
    return folder / f"checkpoint-{quote(party, safe='')}.npz"


def save(
    folder: Path,
    trainer: SharedTrainer,
    random: np.random.Generator,
    setting: dict[str, Any],
    done: Progress,
) -> None:
    """Write the checkpoint of each party that lives here."""
    session = trainer.session
    form = session.format
    arrays = {"weights": trainer.weights, **trainer.optimizer.state}
    header = {
        "format": _FORMAT,
        "version": _VERSION,
        "parties": list(session.parties),
        "fixed_point": [form.frac_bits, form.int_bits],
        "setting": setting,
        "epoch": done.epoch,
        "steps": trainer.optimizer.steps,
        "scores": done.scores,
        "losses": done.losses,
        "order": random.bit_generator.state,
        "arrays": {name: [x.frac_bits, x.bound] for name, x in arrays.items()},
    }
    folder.mkdir(parents=True, exist_ok=True)
    for row, number in enumerate(session.here):
        own = {"party": session.parties[number]}
        text = json.dumps({**header, **own}).encode()
        words = {name: x.shares[row] for name, x in arrays.items()}
        target = _path(folder, session.parties[number])
        # mkstemp makes files that their owner alone can read.
        handle, name = tempfile.mkstemp(prefix=target.name, dir=folder)
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, header=np.frombuffer(text, np.uint8), **words)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def _read(path: Path, party: str) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            header = json.loads(file["header"].tobytes())
            arrays = {name: file[name] for name in file.files if name != "header"}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        raise DataError(f"{path} is no checkpoint that can be read: {error}") from None
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise DataError(f"{path} is not a {_FORMAT}")
    if header.get("version") != _VERSION:
        raise DataError(
            f"{path} has version {header.get('version')}, this program reads version {_VERSION}"
        )
    if header["party"] != party:
        raise DataError(f"{path} must be {party}'s, but is {header['party']}'s")
    return header, arrays


def _check_equal(session: Session, header: dict[str, Any]) -> None:
    """Raise unless every party has read the same header: each opens a digest of it, 1 round."""
    common = {name: value for name, value in header.items() if name != "party"}
    # Without a checkpoint, a digest of nothing.
    digest = hashlib.blake2b(json.dumps(common, sort_keys=True).encode(), digest_size=8).digest()
    mine = np.frombuffer(digest, np.uint64)
    for number in range(session.size):
        # One party a time adds its digest, so that a difference cannot cancel out.
        shares = np.zeros((len(session.here), 1), np.uint64)
        if number in session.here:
            shares[session.here.index(number)] = mine
        (opened,) = session.open((shares, "sum"))
        if len(opened) and opened[0, 0] != mine[0]:
            raise DataError(
                f"the checkpoint of {session.parties[number]} is of another run or epoch than the"
                " others'; all parties must go on from the same one"
            )


def load(
    folder: Path, trainer: SharedTrainer, random: np.random.Generator, setting: dict[str, Any]
) -> Progress | None:
    """Put the state of a checkpoint into the trainer and the generator; None if there is none."""
    session = trainer.session
    parties = [session.parties[number] for number in session.here]
    paths = [_path(folder, party) for party in parties]
    missing = [path for path in paths if not path.exists()]
    if len(missing) == len(paths):
        _check_equal(session, {})
        return None
    if missing:
        raise DataError(f"{missing[0]} is missing, while other parties have their checkpoints")
    read = [_read(path, party) for path, party in zip(paths, parties, strict=True)]
    header = read[0][0]
    for path, (other, _) in zip(paths, read, strict=True):
        if {**other, "party": ""} != {**header, "party": ""}:
            raise DataError(f"{path} is of another run or epoch than {paths[0]}")
    _check_equal(session, header)
    form = session.format
    if header["fixed_point"] != [form.frac_bits, form.int_bits]:
        raise DataError(
            f"{paths[0]} has the fixed-point format {header['fixed_point']}, the session"
            f" {[form.frac_bits, form.int_bits]}"
        )
    if header["parties"] != list(session.parties):
        raise DataError(f"{paths[0]} is of the parties {header['parties']}")
    for name, value in setting.items():
        if header["setting"].get(name) != value:
            raise ArgumentError(
                f"{name} must be as in the run that is resumed, {header['setting'].get(name)!r},"
                f" got {value!r}"
            )

    def join(name: str) -> SharedArray:
        shares = np.stack([arrays[name] for _, arrays in read])
        frac_bits, bound = header["arrays"][name]
        if shares.dtype != np.uint64 or shares.shape[1:] != trainer.weights.shape:
            raise DataError(f"{paths[0]}: {name} does not fit this network")
        return SharedArray(session, shares, frac_bits, bound)

    trainer.weights = join("weights")
    trainer.optimizer.state = {name: join(name) for name in header["arrays"] if name != "weights"}
    trainer.optimizer.steps = header["steps"]
    random.bit_generator.state = header["order"]
    return Progress(header["epoch"], header["scores"], header["losses"])
