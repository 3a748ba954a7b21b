"""The multi-layer perceptron."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from nn.core.checks import layer_widths, parameter_arrays
from nn.core.labels import ordered_classes
from nn.layers import Dense, Layer, ReLU, Sigmoid, Tanh
from nn.layers.initialisation import RandomState, generator, he_normal
from nn.models.trainable import Network
from ring.errors import ArgumentError
from ring.real_arrays import plain_array

__all__ = ["ACTIVATIONS", "MLP", "dense_layers"]


# Activations by scikit-learn's names; "identity" is none.
ACTIVATIONS: dict[str, type[Layer] | None] = {
    "relu": ReLU, "tanh": Tanh, "logistic": Sigmoid, "identity": None,
}  # fmt: skip


def _between(activation: str) -> list[Layer]:
    """Return the layers between two Dense layers."""
    kind = ACTIVATIONS[activation]
    return [] if kind is None else [kind()]


def dense_layers(
    layer_sizes: Sequence[int],
    random: np.random.Generator,
    dtype: DTypeLike = np.float64,
    activation: str = "relu",
) -> list[Layer]:
    """Return Dense layers with an activation between; weights by `he_normal`, biases are 0.

    Parameters
    ----------
    layer_sizes : sequence of int
        Features, hidden widths, classes.
    random : numpy.random.Generator
    dtype : float32 or float64
    activation : {"relu", "tanh", "logistic", "identity"}, default="relu"

    Returns
    -------
    list of Layer

    Examples
    --------
    >>> import numpy as np
    >>> from nn.models.mlp import dense_layers
    >>> dense_layers((4, 3, 2), np.random.default_rng(0))
    [Dense(4, 3), ReLU(), Dense(3, 2)]
    """
    layers: list[Layer] = []
    for inputs, outputs in pairwise(layer_sizes):
        if layers:
            layers += _between(activation)
        weights = he_normal(inputs, outputs, random, dtype)
        layers.append(Dense(weights, np.zeros(outputs, dtype=weights.dtype)))
    return layers


class MLP(Network):
    """Classifier of dense layers with an activation between; with one output also a regressor.

    Parameters
    ----------
    layer_sizes : sequence of int, default=(784, 128, 128, 10)
        Features, widths of the hidden layers, classes. One output is for two classes or for
        numbers, see ``fit``.
    random_state : int, None, numpy.random.Generator or numpy.random.RandomState
        Seeds the initial weights and the order of the rows. An int gives the same model each
        time.
    activation : {"relu", "tanh", "logistic", "identity"}, default="relu"
        What stands between the Dense layers; the names are scikit-learn's.

    Attributes
    ----------
    layers : list of Layer
        Dense and the activation in turn, from the features to the scores. After ``fit``.
    classes_ : ndarray of shape (classes,)
        The labels in ascending order; output i stands for ``classes_[i]``.
    n_features_in_ : int
        Number of features.
    input_range_ : tuple of float
        Least and largest value of the training data; (0, 1) for a model made by `from_parameters`.
    loss_curve_ : list of float
        Mean training loss of each epoch.
    validation_scores_ : list of float
        Accuracy on the validation data after each epoch; empty without validation data.

    Raises
    ------
    DtypeError
        If an argument has the wrong type.
    ArgumentError
        If `layer_sizes` has fewer than two entries or a width below 1, or `random_state` is
        negative.

    Examples
    --------
    >>> import nn
    >>> X_train, X_test, y_train, y_test = nn.load_digits_8x8()
    >>> model = nn.MLP((64, 32, 10), random_state=0).fit(X_train, y_train)
    >>> model.score(X_test, y_test) > 0.95
    True
    >>> [array.shape for array in model.parameters]
    [(64, 32), (32,), (32, 10), (10,)]
    """

    in_files = True

    def __init__(
        self,
        layer_sizes: Sequence[int] = (784, 128, 128, 10),
        *,
        random_state: RandomState = None,
        activation: str = "relu",
    ) -> None:
        if not isinstance(activation, str) or activation not in ACTIVATIONS:
            raise ArgumentError(
                f"activation must be one of {sorted(ACTIVATIONS)}, got {activation!r}"
            )
        self.activation = activation
        self.layer_sizes = layer_widths(layer_sizes)
        if not isinstance(
            random_state, np.random.RandomState
        ):  # the check would advance its stream
            generator(random_state)
        self.random_state = random_state

    def __repr__(self) -> str:
        other = "" if self.activation == "relu" else f", activation={self.activation!r}"
        return f"MLP({self.layer_sizes}, random_state={self.random_state!r}{other})"

    @classmethod
    def from_parameters(
        cls,
        parameters: Sequence[ArrayLike],
        *,
        classes: ArrayLike | None = None,
        activation: str = "relu",
    ) -> Self:
        """Return a model with the given weights, which can predict without ``fit``.

        Parameters
        ----------
        parameters : sequence of array_like
            W1, b1, W2, b2, ... with weights of shape (inputs, outputs). They are copied, to
            float32 if all are float32, else to float64.
        classes : array_like of shape (classes,), optional
            The labels in ascending order; default 0, 1, 2, ...
        activation : {"relu", "tanh", "logistic", "identity"}, default="relu"

        Returns
        -------
        MLP

        Raises
        ------
        ArgumentError
            If there are not two arrays a layer, or the labels repeat or are not ascending.
        ShapeError
            If the shapes do not fit together.
        DtypeError
            If an array is not real.
        RangeError
            If an array holds NaN or infinities.

        Examples
        --------
        >>> import nn
        >>> model = nn.MLP.from_parameters([[[1.0, 0.0], [0.0, 1.0]], [0.0, 0.5]])
        >>> model.predict([[1.0, 0.2], [1.0, 0.7]])
        array([0, 1])
        """
        arrays = parameter_arrays(parameters)
        if not arrays or len(arrays) % 2:
            raise ArgumentError(
                f"parameters must be weights and a bias for each layer, got {len(arrays)} arrays"
            )
        cls((1, 1), activation=activation)  # checks it
        layers: list[Layer] = []
        widths: list[int] = []
        for weights, bias in zip(arrays[::2], arrays[1::2], strict=True):
            dense = Dense(weights, bias)
            if layers:
                layers += _between(activation)
                dense.output_shape((widths[-1],))
            layers.append(dense)
            widths += weights.shape if not widths else weights.shape[1:]
        if widths[-1] < 2:
            raise ArgumentError(
                f"parameters must give scores of two or more classes, got {widths[-1]} output;"
                " nn.models.predictors.Regressor has values"
            )
        model = cls(tuple(widths), activation=activation)
        labels = np.arange(widths[-1]) if classes is None else plain_array(classes, "classes")
        model.classes_ = ordered_classes(labels, widths[-1])
        model.layers = layers
        model.input_range_ = (0.0, 1.0)
        model.loss_curve_, model.validation_scores_ = [], []
        return model

    @property
    def n_features_in_(self) -> int:
        """Number of features that ``fit`` and ``predict`` take."""
        return self.layer_sizes[0]

    @property
    def _classes(self) -> int:
        return self.layer_sizes[-1]

    def _fresh_layers(self, random: np.random.Generator, dtype: np.dtype[Any]) -> list[Layer]:
        return dense_layers(self.layer_sizes, random, dtype, self.activation)

    def contents(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        header, arrays = super().contents()
        return {**header, "activation": self.activation}, arrays
