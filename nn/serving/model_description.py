"""The description of a model that services send to clients: what is public of it, and no weights."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nn.core.checks import integer, named_inputs
from nn.core.labels import ordered_classes, plain_labels
from nn.fixed_point.inputs import Floats, InputScale, input_range
from nn.losses.links import LINKS
from nn.shared.heads import Head, SharedHeads
from nn.shared.model import SharedModel
from nn.shared.regressor import SharedRegressor
from ring.errors import DataError, SottoError

__all__ = ["Description", "answers_of"]

_ANSWERS = ("class", "one-hot", "outputs", "scores", "values")
_DTYPE = re.compile("[<>|]([biuf][1248]|U[0-9]+)")
_LABELS = {"i": int, "u": int, "f": float, "U": str, "b": "True".__eq__}


def answers_of(model: SharedModel) -> tuple[str, ...]:
    """Return the answers that clients may ask a model for."""
    if isinstance(model, SharedRegressor):
        return ("values",)
    if isinstance(model, SharedHeads):
        return ("outputs",)
    return ("class", "one-hot", "scores") if model.scores else ("class", "one-hot")


@dataclass(frozen=True, eq=False)
class Description:
    """What a client needs to know of a model.

    Attributes
    ----------
    name : str
    n_features, largest_rows : int
        Features of a row; rows of a request, at most.
    answers : tuple of str
        Answers that are allowed: "class", "one-hot", "scores"; of a regressor "values"; of a model
        with several outputs "outputs".
    low, high : float64 array of shape () or (features,)
        Range of the inputs.
    inputs : InputScale or None
        The scale in which rows are shared.
    classes : array of shape (outputs,)
        The labels; of a regressor the indices of the outputs.
    link : str or None
        How scores become probabilities, see :mod:`nn.losses.links`.
    flat : bool
        Whether a regressor's single output is predicted as a vector of shape (rows,).
    feature_names : array of str, or None
    heads : tuple of Head
        The outputs of a model with several; else empty.
    named_inputs : dict of str to int, or None
        Of a model with several inputs: their names, and how many features each has, in order.
    """

    name: str
    n_features: int
    largest_rows: int
    answers: tuple[str, ...]
    low: Floats
    high: Floats
    inputs: InputScale | None
    classes: NDArray[Any]
    link: str | None
    flat: bool
    feature_names: NDArray[Any] | None
    heads: tuple[Head, ...] = ()
    named_inputs: dict[str, int] | None = None

    @classmethod
    def of(cls, name: str, model: SharedModel, largest_rows: int) -> Description:
        """Return the description of a shared model."""
        return cls(
            name, model.n_features_in_, largest_rows, answers_of(model), model.low, model.high,
            model.inputs, model.classes_, model.link,
            isinstance(model, SharedRegressor) and model.flat, model.feature_names_in_,
            model.heads if isinstance(model, SharedHeads) else (), model.inputs_,
        )  # fmt: skip

    def values(self) -> tuple[Any, ...]:
        """Return the description as values that :mod:`mpc.core.wire` can encode."""
        labels, are_objects = plain_labels(self.classes)
        scale: tuple[bytes, ...] = ()
        if self.inputs is not None:
            scale = _packed(self.inputs.middle), self.inputs.power.astype("<i8").tobytes()
        return (
            self.name, self.n_features, self.largest_rows, self.answers, self.low.ndim,
            _packed(self.low), _packed(self.high), scale, are_objects, labels.dtype.str,
            tuple(str(label) for label in labels.tolist()), self.link, self.flat,
            () if self.feature_names is None else tuple(str(name) for name in self.feature_names),
            tuple((h.name, h.start, h.stop, h.shape, h.role) for h in self.heads),
            tuple((self.named_inputs or {}).items()),
        )  # fmt: skip

    @classmethod
    def read(cls, values: tuple[Any, ...]) -> Description:
        """Return the description that a peer has sent, after checking it.

        Raises
        ------
        DataError
            If `values` are malformed.
        """
        try:
            return cls._read(*values)
        except (KeyError, OverflowError, TypeError, ValueError, SottoError) as error:
            raise DataError(f"a malformed description of a model: {error}") from None

    @classmethod
    def _read(
        cls, name: Any, n_features: Any, largest_rows: Any, answers: Any, axes: Any, low: Any,
        high: Any, scale: Any, are_objects: Any, dtype: Any, labels: Any, link: Any, flat: Any,
        feature_names: Any, heads: Any, inputs_: Any,
    ) -> Description:  # fmt: skip
        if type(name) is not str or not set(answers) <= set(_ANSWERS) or type(flat) is not bool:
            raise DataError("name, answers or flat are malformed")
        if feature_names and [type(name) for name in feature_names] != [str] * n_features:
            raise DataError("the names of the features are malformed")
        if link is not None and link not in LINKS:
            raise DataError(f"no link is called {str(link)[:40]}")
        shape = (integer("features", n_features, 1),) if axes else ()
        ends = input_range(_unpacked(low, shape), _unpacked(high, shape), n_features)
        inputs = None
        if scale:
            middle, power = scale
            powers = np.frombuffer(power, "<i8").astype(np.int64)
            inputs = InputScale.checked(_unpacked(middle, shape), powers, ends[0])
        if not _DTYPE.fullmatch(dtype):
            raise DataError("the labels have no dtype that is allowed")
        convert: Any = _LABELS[dtype[1]]
        # The length in a dtype of strings is not trusted.
        kind = object if are_objects else None if dtype[1] == "U" else dtype
        classes = np.array([convert(label) for label in labels], kind)
        outputs = tuple(Head(*kept) for kept in heads)
        sizes = sum(head.stop - head.start for head in outputs)
        if bool(outputs) != ("outputs" in answers) or (outputs and sizes != len(labels)):
            raise DataError("the outputs are malformed")
        return cls(
            name, n_features, integer("rows", largest_rows, 1), tuple(answers), *ends, inputs,
            ordered_classes(classes, len(labels)), link, flat,
            np.array(feature_names, object) if feature_names else None, outputs,
            named_inputs(inputs_, n_features) if inputs_ else None,
        )  # fmt: skip


def _packed(array: NDArray[Any]) -> bytes:
    return array.astype("<f8").tobytes()


def _unpacked(data: bytes, shape: tuple[int, ...]) -> Floats:
    return np.frombuffer(data, "<f8").astype(np.float64).reshape(shape)
