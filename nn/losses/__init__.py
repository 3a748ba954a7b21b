"""The losses of training. ``loss=`` of ``fit`` takes a name in ``LOSSES``, or a `Loss` of your own."""

from __future__ import annotations

from typing import Any

from nn.losses.cross_entropy import CROSS_ENTROPY
from nn.losses.huber import HUBER
from nn.losses.loss import Loss
from nn.losses.squared_error import SQUARED_ERROR
from ring.errors import ArgumentError

__all__ = ["LOSSES", "Loss", "chosen_loss"]

LOSSES = {loss.name: loss for loss in (CROSS_ENTROPY, HUBER, SQUARED_ERROR)}


def chosen_loss(loss: Any) -> Loss:
    """Return the loss of a name; a Loss is returned as it is.

    Parameters
    ----------
    loss : str or Loss

    Returns
    -------
    Loss

    Raises
    ------
    ArgumentError
        If no loss has that name.

    Examples
    --------
    >>> import nn
    >>> nn.losses.chosen_loss("huber") is nn.losses.LOSSES["huber"]
    True
    """
    if isinstance(loss, Loss):
        return loss
    if not isinstance(loss, str) or loss not in LOSSES:
        raise ArgumentError(f"loss must be one of {sorted(LOSSES)} or a Loss, got {loss!r}")
    return LOSSES[loss]
