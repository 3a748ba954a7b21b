"""Checkpoints of a training on shares: each party's own shares, in files of its own.

A file is a NumPy .npz archive without pickle. It holds the party's shares of the weights, of the
optimizer's state and of running statistics, and a JSON header with the format's version, the settings,
the epoch and the states of the generators that shuffle the rows and drop elements, all of which are
public. A file is written whole or not at
all, readable by its owner alone (mode 600). One party's file says nothing about the weights; the
files of all parties together are the weights.

Parties write one after the other, so a crash can leave them at different epochs. Each party keeps
the checkpoints of the last two epochs. To resume, all parties send each other the identities of the
checkpoints that they hold, which are public, and load the latest one that all hold. Every call of
``fit`` has a name of its own in its checkpoints: shares of the same epoch of two runs do not add up
to weights.

Files of watched parties (``security="malicious"``) have two rows of shares, and in the header the digests
of all rows (:mod:`nn.core.commitments`), which belong to a checkpoint's identity. The parties check each
other before they write, and before they go by the identities that others have told them.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from mpc import Session, SharedArray
from mpc.core.errors import ArgumentError, DataError
from mpc.core.watching import roles_of
from nn.core import archives
from nn.core.commitments import DIGEST_BYTES, check_rows, commit, digest_of
from nn.shared.training import SharedTrainer

__all__ = ["Progress", "load", "save"]

Words = NDArray[np.uint64]

_FORMAT = "sotto training checkpoint"
_VERSION = 4
# Checkpoints that a party holds: of the last epoch, and of the one before.
_MOST = 2


@dataclass
class Progress:
    """How far a training has come, and what it has revealed.

    Attributes
    ----------
    run : str
        Name of the call of ``fit``: the same at all parties, different for every call.
    epoch : int
        Epochs that are done.
    scores, losses : list of float
        Accuracy and mean loss on the validation data after each epoch.
    """

    run: str
    epoch: int = 0
    scores: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


def _path(folder: Path, party: str) -> Path:
    return folder / f"checkpoint-{quote(party, safe='')}.npz"


def _previous(path: Path) -> Path:
    """Return the path of the checkpoint of the epoch before the last."""
    return path.with_name(f"previous-{path.name}")


def save(
    folder: Path,
    trainer: SharedTrainer,
    random: np.random.Generator,
    setting: dict[str, Any],
    done: Progress,
) -> None:
    """Write the checkpoint of each party that lives here into `folder`.

    No rounds; among watched parties 2, and AbortError before anything is written if one has deviated.
    """
    session = trainer.session
    form = session.format
    arrays = {"weights": trainer.weights, **trainer.optimizer.state, **trainer.statistics}
    header = {
        "format": _FORMAT,
        "version": _VERSION,
        "parties": list(session.parties),
        "security": session.security,
        "fixed_point": [form.frac_bits, form.int_bits],
        "setting": setting,
        "run": done.run,
        "epoch": done.epoch,
        "steps": trainer.optimizer.steps,
        "scores": done.scores,
        "losses": done.losses,
        "order": random.bit_generator.state,
        "dropout": [each.bit_generator.state for each in trainer.generators],
        "arrays": {name: [x.frac_bits, x.bound] for name, x in arrays.items()},
    }
    shares: dict[str, NDArray[Any]] = {name: x.shares for name, x in arrays.items()}
    if session.watch is not None:
        header = json.loads(json.dumps(header))
        shares["salts"], digests = commit(session, _public_digest(header), shares)
        header["digests"] = [digest.hex() for digest in digests]
    folder.mkdir(parents=True, exist_ok=True)
    for number in session.residents:
        own = {"party": session.parties[number]}
        text = json.dumps({**header, **own}).encode()
        rows = [
            session.here.index(role) for role in roles_of(number, session.security, session.size)
        ]
        words = {name: x[rows] for name, x in shares.items()}
        path = _path(folder, session.parties[number])
        for part in folder.glob(f"{path.name}.*.part"):
            part.unlink()  # of a run that was killed
        keep = _previous(path) if done.epoch > 1 else None
        if keep is None:
            # A file of that name would be of another run.
            _previous(path).unlink(missing_ok=True)
        words["header"] = np.frombuffer(text, np.uint8)
        archives.write(path, words, mode=0o600, replace=True, keep=keep)


def _public_digest(header: dict[str, Any]) -> bytes:
    """Return the digest of all that the files of a checkpoint have in common, but those of shares."""
    common = {name: value for name, value in header.items() if name not in ("party", "digests")}
    return digest_of({}, json.dumps(common, sort_keys=True).encode())


@dataclass
class _Held:
    """A checkpoint in a party's folder, as it was read."""

    path: Path
    header: dict[str, Any]
    arrays: dict[str, Any]

    @property
    def epoch(self) -> int:
        return int(self.header["epoch"])

    def identity(self) -> Words:
        """Return the epoch and a digest of all that the files of one checkpoint have in common.

        Equal at all parties for files of one checkpoint, and for no others.
        """
        rows = json.dumps(self.header.get("digests")).encode()
        digest = digest_of({}, b"sotto checkpoint", _public_digest(self.header), rows)
        return np.concatenate([np.array([self.epoch], np.uint64), np.frombuffer(digest, "<u8")])


def _read(path: Path, session: Session, number: int) -> _Held:
    party, security = session.parties[number], session.security
    arrays = archives.read(path)
    try:
        header = json.loads(arrays.pop("header").tobytes())
    except (ValueError, KeyError) as error:
        raise DataError(f"{path} is damaged, or no checkpoint: {error}") from None
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise DataError(f"{path} is not a {_FORMAT}")
    if header.get("version") != _VERSION:
        raise DataError(
            f"{path} has version {header.get('version')}, this program reads version {_VERSION}"
        )
    if header.get("party") != party:
        raise DataError(f"{path} must be {party}'s, but is {header.get('party')}'s")
    if type(header.get("epoch")) is not int or header["epoch"] < 1:
        raise DataError(f"{path} must have an epoch of 1 or more, got {header.get('epoch')!r}")
    if header.get("security") != security:
        raise DataError(
            f"{path} must be of security {security!r}, as the session, got {header.get('security')!r}"
        )
    roles = roles_of(number, security, session.size)
    if any(words.shape[:1] != (len(roles),) for words in arrays.values()):
        raise DataError(f"{path} must have {len(roles)} rows of shares")
    if session.watch is not None:
        try:
            digests = [bytes.fromhex(each) for each in header["digests"]]
            salts = arrays.pop("salts")
            check_rows(roles, salts, _public_digest(header), arrays, digests)
        except (LookupError, TypeError, ValueError) as error:
            raise DataError(f"{path} is damaged: {error}") from None
    return _Held(path, header, arrays)


def _held(folder: Path, session: Session, number: int) -> list[_Held]:
    """Read the checkpoints of a party, the last one first."""
    path = _path(folder, session.parties[number])
    return [_read(p, session, number) for p in (path, _previous(path)) if p.exists()]


def _exchange_identities(session: Session, held: list[list[_Held]]) -> list[list[bytes]]:
    """Send all parties the identities of the checkpoints here; return each party's: 1 round.

    Watched parties take another one, to check that all were told the same.
    """
    shape = _MOST, 1 + DIGEST_BYTES // 8
    own = [np.zeros(shape, np.uint64) for _ in session.residents]
    for words, some in zip(own, held, strict=True):
        for row, each in zip(words, some, strict=False):
            row[:] = each.identity()
    received = session.tell(own, [shape] * session.size)
    session.check_each_other()
    return [[row.tobytes() for row in words if row[0]] for words in received]


def _common(session: Session, identities: list[list[bytes]]) -> bytes | None:
    """Return the identity of the last checkpoint that all parties hold, None if there is none."""
    if not any(identities):
        return None
    common = set(identities[0]).intersection(*identities[1:])
    if common:
        return max(common, key=_epoch)
    holds = ", ".join(
        f"{party} has {' and '.join(f'epoch {_epoch(e)}' for e in own) or 'none'}"
        for party, own in zip(session.parties, identities, strict=True)
    )
    raise DataError(
        f"the parties have no checkpoint of the same run and epoch: {holds}; without resume the"
        " training begins anew"
    )


def _epoch(identity: bytes) -> int:
    return int.from_bytes(identity[:8], sys.byteorder)


def load(
    folder: Path,
    trainer: SharedTrainer,
    random: np.random.Generator,
    setting: dict[str, Any],
    run: str,
) -> Progress | None:
    """Load the last checkpoint that all parties hold into the trainer and the generator.

    Parameters
    ----------
    folder : Path
    trainer : SharedTrainer
    random : numpy.random.Generator
        Shuffles the rows.
    setting : dict
        What must be as in the run that wrote the checkpoint, by the name of the setting.
    run : str
        Name of this call of ``fit``.

    Returns
    -------
    Progress or None
        None if no party holds a checkpoint.

    Raises
    ------
    DataError
        If a file here is damaged, another party's, or of a session with another security; or, at every
        party, if there are checkpoints but none that all parties hold.
    ArgumentError
        If a setting differs from the run that wrote the checkpoint.
    AbortError
        Among watched parties, if one has deviated.
    """
    session = trainer.session
    held = [_held(folder, session, number) for number in session.residents]
    common = _common(session, _exchange_identities(session, held))
    if common is None:
        return None
    read = [next(each for each in own if each.identity().tobytes() == common) for own in held]
    header, path = read[0].header, read[0].path
    form = session.format
    if header["fixed_point"] != [form.frac_bits, form.int_bits]:
        raise DataError(
            f"{path} has the fixed-point format {header['fixed_point']}, the session"
            f" {[form.frac_bits, form.int_bits]}"
        )
    if header["parties"] != list(session.parties):
        raise DataError(
            f"{path} must be of the parties {list(session.parties)}, got {header['parties']}"
        )
    for name, value in setting.items():
        if header["setting"].get(name) != value:
            raise ArgumentError(
                f"{name} must be as in the run that is resumed, {header['setting'].get(name)!r},"
                f" got {value!r}"
            )

    running = trainer.statistics
    # Of the files here the first rows are the roles of their parties, in order.
    own = 1 if len(read) > 1 else len(session.here)

    def join(name: str) -> SharedArray:
        shares = np.concatenate([each.arrays[name][:own] for each in read])
        frac_bits, bound = header["arrays"][name]
        wanted = running.get(name, trainer.weights).shape
        if shares.dtype != np.uint64 or shares.shape[1:] != wanted:
            raise DataError(f"{path}: {name} does not fit this network")
        return SharedArray(session, shares, frac_bits, bound)

    found = {name: join(name) for name in header["arrays"]}
    weights = found.pop("weights")
    statistics = {name: found.pop(name) for name in running}
    generators = list(zip(trainer.generators, header["dropout"], strict=True))
    for number, each in zip(session.residents, read, strict=True):
        # A later checkpoint that not all parties hold is overwritten.
        each.path.replace(_path(folder, session.parties[number]))
    trainer.weights, trainer.optimizer.state, trainer.statistics = weights, found, statistics
    for generator, state in generators:
        generator.bit_generator.state = state
    trainer.optimizer.steps = header["steps"]
    random.bit_generator.state = header["order"]
    return Progress(run, header["epoch"], header["scores"], header["losses"])
