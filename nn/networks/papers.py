"""The networks A, B, C and D of papers on encrypted inference and training, not yet trained.

Their input are rows of 784 pixels, images of 28x28; they have ten classes.
"""

from __future__ import annotations

from nn.layers import Dense, Layer, ReLU
from nn.layers.convolution import Convolution
from nn.layers.initialisation import RandomState
from nn.layers.pooling import MaxPool
from nn.layers.shaping import Flatten, Reshape
from nn.models.sequential import Sequential

__all__ = ["A", "B", "C", "D"]


def A(*, random_state: RandomState = None) -> Sequential:
    """Return network A: dense 784-128-128-10 (SecureML: Mohassel, Zhang 2017). 118,282 parameters.

    Parameters
    ----------
    random_state : int, None, numpy.random.Generator or numpy.random.RandomState
        As for :class:`nn.Sequential`.

    Returns
    -------
    Sequential

    Examples
    --------
    >>> import nn
    >>> nn.networks.A(random_state=0).n_parameters
    118282
    """
    layers: list[Layer] = [
        Dense.untrained(784, 128),
        ReLU(),
        Dense.untrained(128, 128),
        ReLU(),
        Dense.untrained(128, 10),
    ]
    return Sequential(layers, random_state=random_state)


def _two_convolutions(first: int, second: int, hidden: int) -> list[Layer]:
    """Return two convolutions of `first` and `second` channels, and a hidden layer."""
    return [
        Reshape(28, 28, 1),
        Convolution.untrained(1, first, kernel=5),
        MaxPool(2),
        ReLU(),
        Convolution.untrained(first, second, kernel=5),
        MaxPool(2),
        ReLU(),
        Flatten(),
        Dense.untrained(16 * second, hidden),
        ReLU(),
        Dense.untrained(hidden, 10),
    ]


def B(*, random_state: RandomState = None) -> Sequential:
    """Return network B: two convolutions of 16 channels, dense 256-100-10. 33,542 parameters.

    Kernels 5x5, each convolution with a max pooling of 2x2 and ReLU (MiniONN: Liu, Juuti, Lu,
    Asokan 2017).

    Parameters
    ----------
    random_state : int, None, numpy.random.Generator or numpy.random.RandomState
        As for :class:`nn.Sequential`.

    Returns
    -------
    Sequential

    Examples
    --------
    >>> import nn
    >>> nn.networks.B(random_state=0).n_parameters
    33542
    """
    return Sequential(_two_convolutions(16, 16, 100), random_state=random_state)


def C(*, random_state: RandomState = None) -> Sequential:
    """Return network C: LeNet with 20 and 50 channels, dense 800-500-10. 431,080 parameters.

    Kernels 5x5, each convolution with a max pooling of 2x2 and ReLU (LeCun, Bottou, Bengio,
    Haffner 1998, in the form of SecureNN: Wagh, Gupta, Chandran 2019).

    Parameters
    ----------
    random_state : int, None, numpy.random.Generator or numpy.random.RandomState
        As for :class:`nn.Sequential`.

    Returns
    -------
    Sequential

    Examples
    --------
    >>> import nn
    >>> nn.networks.C(random_state=0).n_parameters
    431080
    """
    return Sequential(_two_convolutions(20, 50, 500), random_state=random_state)


def D(*, random_state: RandomState = None) -> Sequential:
    """Return network D: one convolution of 5 channels, dense 980-100-10. 99,240 parameters.

    Kernel 5x5, stride 2, same padding (Chameleon: Riazi, Weinert, Tkachenko, Songhori, Schneider,
    Koushanfar 2018).

    Parameters
    ----------
    random_state : int, None, numpy.random.Generator or numpy.random.RandomState
        As for :class:`nn.Sequential`.

    Returns
    -------
    Sequential

    Examples
    --------
    >>> import nn
    >>> nn.networks.D(random_state=0).n_parameters
    99240
    """
    layers: list[Layer] = [
        Reshape(28, 28, 1),
        Convolution.untrained(1, 5, kernel=5, stride=2, padding="same"),
        ReLU(),
        Flatten(),
        Dense.untrained(980, 100),
        ReLU(),
        Dense.untrained(100, 10),
    ]
    return Sequential(layers, random_state=random_state)
