"""Labels of any sortable kind, and the outputs that stand for them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ring.errors import ArgumentError, DtypeError, ShapeError

__all__ = ["check_kind", "encode_labels", "ordered_classes"]


def check_kind(name: str, labels: NDArray[Any], classes: NDArray[Any]) -> None:
    """Raise DtypeError unless labels can equal classes."""
    # "7" == 7 is false without a word, which would pass for an accuracy of zero.
    kinds = [
        "number" if array.dtype.kind in "biuf" else array.dtype.kind for array in (labels, classes)
    ]
    if kinds[0] != kinds[1] and "O" not in kinds:
        raise DtypeError(
            f"{name} must hold labels like {classes[0]!r} ({classes.dtype}), got {labels.dtype}"
        )


def ordered_classes(classes: NDArray[Any], outputs: int) -> NDArray[Any]:
    """Return the classes, one an output, if they ascend."""
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
    """Return the classes and each label's position among them."""
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
    names = ordered_classes(np.asarray(classes), outputs)
    check_kind("y", labels, names)
    places = np.minimum(np.searchsorted(names, found), outputs - 1)
    if not np.array_equal(names[places], found):
        strange = found[names[places] != found][0]
        raise ArgumentError(f"y must hold labels from classes only, got {strange!r}")
    return names, places[positions]
