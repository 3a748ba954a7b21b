"""Deep convolutional networks for images of 32x32x3, as those of CIFAR-10."""

from __future__ import annotations

from nn.layers import (
    Add,
    AveragePool,
    Clip,
    Dense,
    Flatten,
    Pad,
    ReLU,
    Reshape,
    Take,
)
from nn.layers.initialisation import RandomState
from nn.models.sequential import Sequential
from nn.networks.building import Builder, untrained

__all__ = ["MobileNetV2", "ResNet18", "ResNet20"]

_SIZE = 32

# Of each stage of MobileNetV2: expansion, channels at width 1, blocks, stride of the first block.
# The stride of the second stage is 1 in place of 2, and so is the first convolution's: images are 32x32.
_MOBILE = (
    (1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
    (6, 320, 1, 1),
)  # fmt: skip


def _classifier(builder: Builder, x: int, channels: int) -> None:
    builder.chain(x, AveragePool(None), Flatten(), Dense.untrained(channels, 10))


def _residual(widths: tuple[int, ...], blocks: int, *, projected: bool) -> Builder:
    """Return a residual network; where the size changes, shortcuts are padded or `projected`."""
    b = Builder()
    x = b.chain(b.convolution(b.add(Reshape(_SIZE, _SIZE, 3), 0), 3, widths[0], 3), ReLU())
    channels, size = widths[0], _SIZE
    for outputs in widths:
        for block in range(blocks):
            stride = 2 if block == 0 and outputs != channels else 1
            y = b.chain(b.convolution(x, channels, outputs, 3, stride), ReLU())
            y = b.convolution(y, outputs, outputs, 3)
            if stride > 1:
                if projected:
                    x = b.convolution(x, channels, outputs, 1, stride)
                else:
                    kept, more = range(0, size, stride), (outputs - channels) // 2
                    x = b.chain(
                        x, Take(0, kept), Take(1, kept), Pad([(0, 0), (0, 0), (more, more)])
                    )
                size //= stride
            x = b.chain(b.add(Add(), y, x), ReLU())
            channels = outputs
    _classifier(b, x, channels)
    return b


def ResNet20(*, random_state: RandomState = None) -> Sequential:
    """Return ResNet-20 for 32x32x3 (He, Zhang, Ren, Sun 2016, section 4.2). 270,410 parameters.

    Three stages of three blocks of two convolutions, with 16, 32 and 64 channels. Where the size
    changes, shortcuts take every other pixel and are padded with zeros (option A of the paper).
    688 of the parameters are biases of convolutions, which the paper leaves out.

    Parameters
    ----------
    random_state : int, None, numpy.random.Generator or numpy.random.RandomState
        Draws the initial weights (He et al. 2015), and as for :class:`nn.Sequential`.

    Returns
    -------
    Sequential
        For rows of 3,072 features: pixels row by row, the three colours of each together. Batch
        normalisation has mean 0 and variance 1 until ``fit`` or ``from_parameters``.

    Notes
    -----
    Arrays for :meth:`nn.Sequential.from_parameters`: for each convolution weights (height, width,
    channels, outputs) and bias, then scale, shift, mean and variance of its batch normalisation;
    the first convolution, the two of each block; then the dense layer's weights and bias.

    Examples
    --------
    >>> import numpy as np
    >>> import nn
    >>> model = nn.networks.ResNet20(random_state=0)
    >>> model.n_parameters
    270410
    >>> model.decision_function(np.zeros((2, 3072))).shape
    (2, 10)
    """
    return untrained(_residual((16, 32, 64), 3, projected=False), 3 * _SIZE**2, random_state)


def ResNet18(*, random_state: RandomState = None) -> Sequential:
    """Return ResNet-18 for 32x32x3 (He, Zhang, Ren, Sun 2016). 11,178,762 parameters.

    Four stages of two blocks of two convolutions, with 64, 128, 256 and 512 channels; in its usual
    form for small images, whose first convolution is 3x3 with stride 1 and has no pooling behind it.
    Where the size changes, shortcuts are convolutions 1x1. 4,800 of the parameters are biases of
    convolutions, which the paper leaves out.

    Parameters
    ----------
    random_state : int, None, numpy.random.Generator or numpy.random.RandomState
        As for :func:`ResNet20`.

    Returns
    -------
    Sequential
        As of :func:`ResNet20`.

    Notes
    -----
    Arrays for :meth:`nn.Sequential.from_parameters`: as for :func:`ResNet20`; of a block with a
    convolution in its shortcut, that one comes after the other two.

    Examples
    --------
    >>> import nn
    >>> nn.networks.ResNet18(random_state=0).n_parameters
    11178762
    """
    builder = _residual((64, 128, 256, 512), 2, projected=True)
    return untrained(builder, 3 * _SIZE**2, random_state)


def MobileNetV2(*, random_state: RandomState = None) -> Sequential:
    """Return MobileNetV2 of width 0.5 for 32x32x3 (Sandler et al. 2018). 709,762 parameters.

    Seventeen inverted residual blocks: a convolution 1x1 to six times the channels, a depthwise one
    3x3, and one 1x1 back, with ReLU6 behind the first two. For small images the first convolution
    and the second stage have stride 1, as is usual.

    Parameters
    ----------
    random_state : int, None, numpy.random.Generator or numpy.random.RandomState
        As for :func:`ResNet20`.

    Returns
    -------
    Sequential
        As of :func:`ResNet20`.

    Notes
    -----
    Arrays for :meth:`nn.Sequential.from_parameters`: for every convolution in turn its weights,
    bias, and scale, shift, mean and variance of its batch normalisation; then weights and bias of
    the dense layer. A depthwise convolution has weights of shape (3, 3, 1, channels).

    Examples
    --------
    >>> import nn
    >>> nn.networks.MobileNetV2(random_state=0).n_parameters
    709762
    """
    b = Builder()
    channels = 16
    x = b.chain(b.convolution(b.add(Reshape(_SIZE, _SIZE, 3), 0), 3, channels, 3), Clip(0, 6))
    for expansion, full, blocks, first in _MOBILE:
        # Half the width, in multiples of 8 that are no less than 0.9 of it.
        outputs = max(8, (full // 2 + 4) // 8 * 8)
        for block in range(blocks):
            stride, inner = first if block == 0 else 1, expansion * channels
            y = x
            if expansion > 1:
                y = b.chain(b.convolution(y, channels, inner, 1), Clip(0, 6))
            y = b.chain(b.convolution(y, inner, inner, 3, stride, groups=inner), Clip(0, 6))
            y = b.convolution(y, inner, outputs, 1)
            x = b.add(Add(), y, x) if stride == 1 and channels == outputs else y
            channels = outputs
    x = b.chain(b.convolution(x, channels, 1280, 1), Clip(0, 6))
    _classifier(b, x, 1280)
    return untrained(b, 3 * _SIZE**2, random_state)
