"""A network on shares with several outputs, by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from mpc import SharedArray
from mpc.core.errors import DtypeError, RevealError
from mpc.protocols import linear
from nn.core.checks import integer
from nn.shared.model import SharedModel
from ring.errors import ArgumentError, ShapeError

__all__ = ["Head", "SharedHeads"]

_ROLES = ("labels", "probabilities", "values")


@dataclass(frozen=True)
class Head:
    """One output of a network: a part of its last layer's output.

    Attributes
    ----------
    name : str
    start, stop : int
        The entries of the network's output that it has.
    shape : tuple of int
        Shape of one row; () for a single number.
    role : {"labels", "probabilities", "values"}
        What the graph gave: the index of the largest score, probabilities made of scores, or the
        values as they are.

    Raises
    ------
    ArgumentError, DtypeError, ShapeError
        If an argument has another type or value, or `shape` another size.
    """

    name: str
    start: int
    stop: int
    shape: tuple[int, ...]
    role: str

    def __post_init__(self) -> None:
        if type(self.name) is not str:
            raise DtypeError(f"name must be a str, got {self.name!r}")
        if self.role not in _ROLES:
            raise ArgumentError(f"role must be one of {', '.join(_ROLES)}, got {self.role!r}")
        size = integer("stop", self.stop, 1) - integer("start", self.start, 0)
        shape = tuple(integer("shape", n, 1) for n in self.shape)
        if prod(shape) != size or (self.ranked and len(shape) != 1):
            raise ShapeError(f"{self.name} must have {size} entries, got shape {shape}")
        object.__setattr__(self, "shape", shape)

    @property
    def ranked(self) -> bool:
        """Whether the entries are scores, of which the largest alone counts."""
        return self.role != "values"

    def of(self, outputs: Any) -> Any:
        """Return the head's part of the network's outputs, of shape (rows, outputs)."""
        return outputs[:, self.start : self.stop].reshape((outputs.shape[0], *self.shape))

    def answered(self, start: int, answers: Any) -> Any:
        """Return the head's part of :meth:`SharedHeads.answers`, from column `start` on."""
        part = answers[:, start : start + self.stop - self.start]
        if self.ranked:
            return part.argmax(axis=1)
        return part.reshape((len(answers), *self.shape))

    def description(self) -> list[Any]:
        """Return what files keep, of which ``Head(*description)`` is made again."""
        return [self.name, self.start, self.stop, list(self.shape), self.role]


class SharedHeads(SharedModel):
    """A shared model with several outputs. Calling it gives a dict of shared arrays.

    Parameters
    ----------
    *args, **kwargs
        As for :class:`nn.shared.model.SharedModel`.
    heads : sequence of Head
    """

    def __init__(self, *args: Any, heads: Sequence[Head], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.heads = tuple(heads)

    def named(self, outputs: SharedArray) -> Any:
        return {head.name: head.of(outputs) for head in self.heads}

    def answers(self, X: Any, *, progress: bool | None = None) -> SharedArray:
        """Return what clients may learn: each output's values, or a one-hot vector of its class.

        Parameters
        ----------
        X : SharedArray, or dict of str to SharedArray
        progress : bool, optional
            As for a call.

        Returns
        -------
        SharedArray of shape (rows, outputs)
            With the format's fractional bits.
        """
        outputs, bits = self.evaluated(X, progress=progress), self.session.format.frac_bits
        parts = []
        for head in self.heads:
            part = outputs[:, head.start : head.stop]
            part = part.argmax(axis=1, one_hot=True) if head.ranked else part.truncate()
            parts.append(linear.at_bits(part, bits))
        return linear.concatenate(parts, axis=1)

    def winners(self, X: Any, **options: Any) -> SharedArray:
        """Refuse: there are several outputs."""
        raise DtypeError("a model with several outputs has no one winner: use predict")

    def predict(self, X: Any, *, to: str | None = None, n_jobs: int | None = None) -> Any:
        """Reveal, by name, each output's values, or for classes the index of the largest score.

        Parameters
        ----------
        X : SharedArray, or dict of str to SharedArray
        to : str, optional
            The party that learns them; default all.
        n_jobs : int, optional
            As for :meth:`SharedModel.predict`.

        Returns
        -------
        dict of str to ndarray, or None in a process whose parties do not learn them
        """
        n_jobs = self.session.worker_count(n_jobs, len(self.check_rows(X)))
        self.prepare(X, SharedHeads.predict, to=to, n_jobs=n_jobs)
        found = self(X, n_jobs=n_jobs)
        revealed = {
            head.name: (
                found[head.name].argmax(axis=1) if head.ranked else found[head.name]
            ).reveal(to)
            for head in self.heads
        }
        return None if any(v is None for v in revealed.values()) else revealed

    def decision_function(self, X: Any, *, to: str | None = None, n_jobs: int | None = None) -> Any:
        """Reveal the scores and values by name, if the model's owner has allowed it."""
        if not self.scores:
            raise RevealError(
                "scores tell more about the model than labels: its owner must allow them by"
                " share(..., scores=True)"
            )
        n_jobs = self.session.worker_count(n_jobs, len(self.check_rows(X)))
        self.prepare(X, SharedHeads.decision_function, to=to, n_jobs=n_jobs)
        revealed = {name: x.reveal(to) for name, x in self(X, n_jobs=n_jobs).items()}
        return None if any(v is None for v in revealed.values()) else revealed

    def predict_proba(self, X: Any, *, to: str | None = None, n_jobs: int | None = None) -> Any:
        """Refuse: probabilities are made of scores, which decision_function gives."""
        raise DtypeError("a model with several outputs gives scores: use decision_function")
