"""Weights of rows in a training: by class, by row, or both."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import Session, SharedArray
from mpc.core.errors import ArgumentError, DtypeError, RangeError, SessionError, ShapeError
from mpc.protocols import linear, truncation
from mpc.protocols.inverse_power import inverse_power
from nn.core.checks import real
from ring.real_arrays import real_array

__all__ = [
    "LARGEST", "UNWEIGHTED", "by_class", "mean_value", "named_weights", "plain_weights",
    "shared_weights",
]  # fmt: skip

# Above it a weighted gradient on shares has no room beside the usual formats' numbers.
LARGEST = 1024.0
# What :func:`named_weights` returns where there are none.
UNWEIGHTED = {"class_weight": "None", "sample_weight": "none"}


def plain_weights(
    targets: NDArray[Any], names: NDArray[Any], class_weight: Any, sample_weight: Any
) -> NDArray[np.float64] | None:
    """Return the weight of each row, or None if all are 1.

    Parameters
    ----------
    targets : array of shape (rows, classes)
        One-hot rows.
    names : array of shape (classes,)
        The classes.
    class_weight : dict of class to number, "balanced" or None
    sample_weight : array_like of shape (rows,), or None

    Raises
    ------
    ArgumentError
        If a weight is negative or too large, all are 0, or `class_weight` has no such class.
    DtypeError
        If a weight is no number.
    ShapeError
        If there is not one sample weight a row.
    """
    if class_weight is None and sample_weight is None:
        return None
    numbers = targets.argmax(axis=1)
    found = np.ones(len(numbers))
    if isinstance(class_weight, str) and class_weight == "balanced":
        counts = np.bincount(numbers, minlength=len(names))
        # As scikit-learn has it; a class without rows has no rows to weigh.
        found = (len(numbers) / (len(names) * np.maximum(counts, 1)))[numbers]
    elif class_weight is not None:
        found = by_class(class_weight, names)[numbers]
    if sample_weight is not None:
        found = found * _sample_weight(sample_weight, len(numbers))
    if not found.any():
        raise ArgumentError("the weights of all rows are 0: nothing would be learnt")
    return found


def by_class(class_weight: Any, names: NDArray[Any]) -> NDArray[np.float64]:
    """Return the weight of each class; those that a dict does not name have 1."""
    if not isinstance(class_weight, Mapping):
        raise DtypeError(
            f"class_weight must be None, 'balanced' or a dict of class to weight, got {class_weight!r}"
        )
    found = np.ones(len(names))
    known = names.tolist()
    for name, weight in class_weight.items():
        if name not in known:
            raise ArgumentError(f"class_weight must name classes of y, {known}, got {name!r}")
        found[known.index(name)] = real(
            f"class_weight[{name!r}]", weight, least=0, below=math.nextafter(LARGEST, math.inf)
        )
    if not found.any():
        raise ArgumentError("the weights of all rows are 0: nothing would be learnt")
    return found


def named_weights(class_weight: Any, sample_weight: Any, names: NDArray[Any]) -> dict[str, str]:
    """Return what parties must have alike of weights: those of classes, a digest of public ones of rows."""
    of_classes: Any = class_weight
    if class_weight is not None and not isinstance(class_weight, str):
        of_classes = by_class(class_weight, names).tolist()
    of_rows = "none" if sample_weight is None else "secret"
    if sample_weight is not None and not isinstance(sample_weight, SharedArray):
        of_rows = hashlib.sha256(np.asarray(sample_weight, np.float64).tobytes()).hexdigest()
    return {"class_weight": str(of_classes), "sample_weight": of_rows}


def _sample_weight(sample_weight: Any, rows: int) -> NDArray[np.float64]:
    weights = real_array(sample_weight, "sample_weight").astype(np.float64)
    if weights.shape != (rows,):
        raise ShapeError(f"sample_weight must have the shape ({rows},), got {weights.shape}")
    # Written so that NaN is refused.
    inside = (weights >= 0) & (weights <= LARGEST)
    if not inside.all():
        row = int(np.argmin(inside))
        raise ArgumentError(
            f"sample_weight must be from 0 to {LARGEST:g}, got {weights[row]:g} in row {row}"
        )
    return weights


def mean_value(
    value: Callable[[Any, Any], float],
    scores: NDArray[Any],
    targets: NDArray[Any],
    weights: NDArray[np.float64] | None,
) -> float:
    """Return the mean over the rows of weight times loss; `value` is the loss without weights."""
    if weights is None:
        return value(scores, targets)
    total = 0.0
    for weight in np.unique(weights[weights > 0]):
        rows = weights == weight
        total += weight * value(scores[rows], targets[rows]) * int(rows.sum())
    return total / len(weights)


def shared_weights(
    targets: SharedArray, names: NDArray[Any], class_weight: Any, sample_weight: Any
) -> SharedArray | None:
    """Return the secret weight of each row, of shape (rows, 1), or None if all are 1.

    Parameters
    ----------
    targets : SharedArray of shape (rows, classes)
        One-hot rows.
    names, class_weight
        As in :func:`plain_weights`. "balanced" counts rows on shares, and gives at most 1024.
    sample_weight : SharedArray or array_like of shape (rows,), or None
        Shared by whoever knows them; plain weights are public.

    Raises
    ------
    ArgumentError, DtypeError, RangeError, SessionError, ShapeError
        As :func:`plain_weights`; or if the bound of shared weights is too large.
    """
    if class_weight is None and sample_weight is None:
        return None
    session, rows = targets.session, len(targets)
    found = None
    given = None
    if sample_weight is not None:
        given = _shared_sample_weight(session, sample_weight, rows)
    if isinstance(class_weight, str) and class_weight == "balanced":
        found = _balanced(targets)
    elif class_weight is not None:
        found = _of_targets(targets, by_class(class_weight, names))
    if given is not None:
        found = given if found is None else (found * given).truncate()
    assert found is not None
    return found.reshape(rows, 1)


def _of_targets(targets: SharedArray, weights: NDArray[np.float64]) -> SharedArray:
    """Return the weight of each row's class: no round, 1 if the one-hot rows have fractional bits."""
    bits = targets.session.format.frac_bits
    encoded = np.rint(np.ldexp(weights, bits)).astype(np.int64)
    # Sums of integer products, read with more places behind the point.
    total = (targets * encoded).sum(axis=1)
    most = int(encoded.max()) << targets.frac_bits  # one class a row
    found = total.derive(
        total.shares, frac_bits=targets.frac_bits + bits, bound=max(1, most), origins=(total,)
    )
    return found.truncate()


def _balanced(targets: SharedArray) -> SharedArray:
    """Return rows / (classes * rows of the class) of each row's class; nobody learns the counts.

    About 20 rounds, whatever the number of rows.
    """
    form = targets.session.format
    rows, classes = targets.shape
    least = max(1.0, rows / classes / LARGEST)
    counts: Any = np.maximum(targets.sum(axis=0), least)
    units = int(least * 2**counts.frac_bits)
    weights: SharedArray = inverse_power(counts, Fraction(1), Fraction(classes, rows), units)
    if weights.frac_bits > form.frac_bits:
        weights = truncation.truncate(weights, weights.frac_bits - form.frac_bits)
    found = (linear.at_bits(targets, form.frac_bits) * weights).sum(axis=1).truncate()
    # One class a row.
    return found.with_integer_bound(
        math.ceil(rows / classes / least * (1 << form.frac_bits)) + classes + 4
    )


def _shared_sample_weight(session: Session, sample_weight: Any, rows: int) -> SharedArray:
    if not isinstance(sample_weight, SharedArray):
        weights = _sample_weight(sample_weight, rows)
        if not weights.any():
            raise ArgumentError("the weights of all rows are 0: nothing would be learnt")
        form = session.format
        bound = max(1, math.ceil(weights.max() * 2**form.frac_bits))
        return SharedArray.from_public(session, weights, form.frac_bits, bound)
    if sample_weight.session is not session:
        raise SessionError("sample_weight belongs to another session than y")
    if sample_weight.shape != (rows,):
        raise ShapeError(f"sample_weight must have the shape ({rows},), got {sample_weight.shape}")
    limit = sample_weight.bound / 2**sample_weight.frac_bits
    if limit > LARGEST:
        raise RangeError(
            f"sample_weight must have a public bound of at most {LARGEST:g}, got {limit:g}: share it"
            f" by session.share(..., bound={LARGEST:g})"
        )
    return linear.at_bits(sample_weight, session.format.frac_bits)
