"""Labels of any type that sorts, and the outputs of a network that stand for them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nn.core.checks import integer
from ring.errors import ArgumentError, DtypeError, RangeError, ShapeError
from ring.real_arrays import plain_array

__all__ = ["check_kind", "encode_labels", "one_hot", "ordered_classes", "plain_labels"]


def check_kind(name: str, labels: NDArray[Any], classes: NDArray[Any]) -> None:
    """Raise DtypeError if labels are of a type that never equals that of the classes."""
    # "7" == 7 is False without an error, so that the accuracy would be 0.
    kinds = [
        "number" if array.dtype.kind in "biuf" else array.dtype.kind for array in (labels, classes)
    ]
    if kinds[0] != kinds[1] and "O" not in kinds:
        raise DtypeError(
            f"{name} must hold labels like {classes[0]!r} ({classes.dtype}), got {labels.dtype}"
        )


def ordered_classes(classes: NDArray[Any], outputs: int) -> NDArray[Any]:
    """Return `classes` after checking them: ascending, and one label for each output."""
    if classes.ndim != 1 or len(classes) != outputs:
        raise ShapeError(
            f"classes must have one label for each of {outputs} outputs, got shape {classes.shape}"
        )
    try:
        ascending = bool(np.all(classes[:-1] < classes[1:]))
    except TypeError as error:
        raise DtypeError(f"classes must be labels that sort: {error}") from None
    if not ascending:
        raise ArgumentError(f"classes must be ascending and different, got {classes.tolist()}")
    return classes


def encode_labels(
    labels: NDArray[Any], classes: ArrayLike | None, outputs: int
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the classes in ascending order, and each label's index among them."""
    try:
        found, positions = np.unique(labels, return_inverse=True)
    except TypeError as error:
        raise DtypeError(f"y must hold labels that sort: {error}") from None
    if classes is None:
        if len(found) != outputs:
            raise ArgumentError(
                f"layer_sizes[-1] must be the number of classes: it is {outputs}, but y has "
                f"{len(found)} different labels (classes= names labels that y lacks)"
            )
        return found, positions
    names = ordered_classes(plain_array(classes, "classes"), outputs)
    check_kind("y", labels, names)
    places = np.minimum(np.searchsorted(names, found), outputs - 1)
    if not np.array_equal(names[places], found):
        strange = found[names[places] != found][0]
        raise ArgumentError(f"y must hold labels from classes only, got {strange!r}")
    return names, places[positions]


def one_hot(y: ArrayLike, classes: int | None = None) -> NDArray[np.int64]:
    """Return integer labels as rows that are 1 at the label and 0 elsewhere.

    Parameters
    ----------
    y : array_like of int, of shape (rows,)
        Labels from 0 to `classes` - 1.
    classes : int, optional
        Number of columns; by default the largest label plus 1.

    Returns
    -------
    ndarray of shape (rows, classes), int64

    Raises
    ------
    DtypeError
        If `y` or `classes` is not of integers.
    ShapeError
        If `y` does not have one axis, or is empty while `classes` is not given.
    RangeError
        If a label is negative or not below `classes`.
    ArgumentError
        If `classes` is below 1.

    Examples
    --------
    >>> import nn
    >>> nn.one_hot([2, 0])
    array([[0, 0, 1],
           [1, 0, 0]])
    """
    labels = plain_array(y, "y")
    if labels.ndim != 1:
        raise ShapeError(f"y must have one axis (one label a row), got shape {labels.shape}")
    if not labels.size and classes is None:
        raise ShapeError("y must have at least one label when classes is not given, got none")
    # An empty list becomes an array of floats.
    if labels.size and labels.dtype.kind not in "iu":
        raise DtypeError(f"y must hold integers, got {labels.dtype}")
    columns = int(labels.max()) + 1 if classes is None else integer("classes", classes, 1)
    bad = (labels < 0) | (labels >= columns)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        rule = "be 0 or more" if classes is None else f"be from 0 to {columns - 1}"
        raise RangeError(f"y must {rule}, got {labels[row]} in row {row}")
    result = np.zeros((len(labels), columns), dtype=np.int64)
    result[np.arange(len(labels)), labels.astype(np.int64)] = 1
    return result


def plain_labels(classes: NDArray[Any]) -> tuple[NDArray[Any], bool]:
    """Return labels in a dtype that a file can hold, and whether they were objects."""
    if classes.dtype.kind in "biufU":
        return classes, False
    if classes.dtype.kind == "O" and all(isinstance(label, str) for label in classes):
        return classes.astype(str), True
    raise DtypeError(f"classes of a file must be numbers, bools or strings, got {classes.dtype}")
