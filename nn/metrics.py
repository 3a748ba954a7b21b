"""Metrics of secret predictions, computed on shares."""

from __future__ import annotations

from mpc import SharedArray
from mpc.core.errors import DtypeError, SessionError, ShapeError

__all__ = ["confusion_matrix"]


def confusion_matrix(targets: SharedArray, predicted: SharedArray) -> SharedArray:
    """Count, on shares, the rows of each true class and each predicted class.

    Parameters
    ----------
    targets, predicted : SharedArray of shape (rows, classes)
        One-hot rows of whole numbers: shared :func:`nn.one_hot` labels, and
        ``argmax(axis=1, one_hot=True)`` of the scores. The values are secret, so they are not
        checked.

    Returns
    -------
    SharedArray of shape (classes, classes)
        Whole numbers. As in scikit-learn, the true class is the row, the predicted class the
        column. Revealing the matrix reveals the counts, and no prediction of a single row.

    Raises
    ------
    DtypeError, ShapeError, SessionError
        If the arguments are not shared whole numbers of one shape, in one session.

    Notes
    -----
    One matrix product: 1 round; of n parties, each sends 8 (n - 1) bytes for each element that is
    not masked yet. The correction has 8 bytes a count. See :mod:`mpc.protocols.product`.

    Examples
    --------
    >>> import mpc, nn
    >>> with mpc.Session() as s:
    ...     scores = s.share([[0.1, 0.9], [0.8, 0.2], [0.7, 0.3]], owner="alice")
    ...     targets = s.share(nn.one_hot([1, 0, 1]), owner="bob", bound=1)
    ...     predicted = scores.argmax(axis=1, one_hot=True)
    ...     nn.metrics.confusion_matrix(targets, predicted).reveal()
    array([[1, 0],
           [1, 1]])
    """
    for name, x in (("targets", targets), ("predicted", predicted)):
        if not isinstance(x, SharedArray):
            raise DtypeError(f"{name} must be a SharedArray, got {type(x).__name__}")
        if x.frac_bits:
            raise DtypeError(
                f"{name} must hold whole numbers, one 1 in each row, got fixed-point values"
            )
    if targets.session is not predicted.session:
        raise SessionError("predicted belongs to another session than targets")
    if targets.ndim != 2 or targets.shape != predicted.shape:
        raise ShapeError(
            "targets and predicted must both have shape (rows, classes), got"
            f" {targets.shape} and {predicted.shape}"
        )
    return targets.T @ predicted
