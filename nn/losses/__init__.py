"""The losses of training. ``loss=`` of ``fit`` takes a name in ``LOSSES``, or a `Loss` of your own."""

from nn.losses.binary_cross_entropy import BINARY_CROSS_ENTROPY
from nn.losses.cross_entropy import CROSS_ENTROPY
from nn.losses.huber import HUBER
from nn.losses.loss import Loss
from nn.losses.squared_error import SQUARED_ERROR

__all__ = ["LOSSES", "Loss"]

LOSSES = {loss.name: loss for loss in (BINARY_CROSS_ENTROPY, CROSS_ENTROPY, HUBER, SQUARED_ERROR)}
