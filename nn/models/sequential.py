"""Networks of layers of the user's choice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from nn.core.checks import integer, parameter_arrays
from nn.core.labels import ordered_classes
from nn.layers import Layer
from nn.layers.graph import Graph, output_shapes, rewired
from nn.layers.initialisation import RandomState, generator
from nn.layers.normalisation import BatchNorm
from nn.models.trainable import Network
from ring.errors import ArgumentError, DtypeError, RangeError, ShapeError
from ring.real_arrays import plain_array

__all__ = ["Sequential"]


def _arrays_of(layer: Layer) -> list[Any]:
    """Return all that a trained layer consists of: of batch normalisation its statistics, too."""
    statistics = [layer.mean, layer.variance] if isinstance(layer, BatchNorm) else []
    return [*layer.parameters, *statistics]


class Sequential(Network):
    """Classifier of given layers, one after the other; with one output also a regressor.

    Parameters
    ----------
    layers : sequence of Layer, or Graph
        Their kinds and sizes count; ``fit`` starts from initial weights of the same shapes. The
        last one has an output, the score, for each class; or one for what ``fit`` says.
    n_features : int, default=784
        Features of a row, the input of the first layer.
    random_state : int, None, numpy.random.Generator or numpy.random.RandomState
        Seeds the initial weights, the order of the rows and dropout.

    Attributes
    ----------
    architecture : tuple of Layer, or Graph
        The layers that were given; the trained ones are in `layers`.
    layers, classes_, n_features_in_, input_range_, loss_curve_, validation_scores_
        As of :class:`nn.MLP`.

    Raises
    ------
    ShapeError
        If a layer does not take the output of the layer before it; the message names the layer.
    ArgumentError, DtypeError
        If an argument has the wrong value or type.

    Examples
    --------
    >>> import nn
    >>> from nn.layers import Convolution, Dense, Flatten, MaxPool, ReLU, Reshape
    >>> X_train, X_test, y_train, y_test = nn.load_digits_8x8()
    >>> model = nn.Sequential(
    ...     [
    ...         Reshape(8, 8, 1),
    ...         Convolution.untrained(1, 8, kernel=3),
    ...         MaxPool(2),
    ...         ReLU(),
    ...         Flatten(),
    ...         Dense.untrained(72, 10),
    ...     ],
    ...     n_features=64,
    ...     random_state=0,
    ... )
    >>> model.fit(X_train, y_train, batch_size=32).score(X_test, y_test) > 0.95
    True
    """

    in_files = True

    def __init__(
        self, layers: Sequence[Layer], n_features: int = 784, *, random_state: RandomState = None
    ) -> None:
        if not isinstance(layers, Sequence) or not all(isinstance(x, Layer) for x in layers):
            raise DtypeError(f"layers must be a sequence of layers, got {layers!r}")
        self._n_features = integer("n_features", n_features, 1)
        shape = output_shapes(layers, (self._n_features,))[-1] if len(layers) else (2,)
        if len(shape) != 1:
            raise ShapeError(
                f"layer {len(layers)}, {layers[-1]!r}, must have one axis of scores as its output, "
                f"got shape {shape}"
            )
        if not any(layer.parameters for layer in layers):
            raise ArgumentError("layers must hold at least one with parameters, got none")
        sized = rewired(layers, layers, self._n_features)
        self.architecture = sized if isinstance(sized, Graph) else tuple(sized)
        self._outputs_count = shape[0]
        if not isinstance(
            random_state, np.random.RandomState
        ):  # the check would advance its stream
            generator(random_state)
        self.random_state = random_state

    def __repr__(self) -> str:
        layers = self.architecture
        shown = layers if isinstance(layers, Graph) else list(layers)
        return f"Sequential({shown}, n_features={self._n_features})"

    @classmethod
    def from_layers(
        cls, layers: Sequence[Layer], n_features: int = 784, *, classes: ArrayLike | None = None
    ) -> Self:
        """Return a model of trained layers, ready to predict.

        Parameters
        ----------
        layers : sequence of Layer
            Their parameters are not copied.
        n_features : int, default=784
        classes : array_like of shape (classes,), optional
            The labels in ascending order; default 0, 1, 2, ...

        Returns
        -------
        Sequential

        Raises
        ------
        ShapeError, ArgumentError, DtypeError
            As for the class; also if `classes` are not ascending, or not one for each score.

        Examples
        --------
        >>> import numpy as np
        >>> import nn
        >>> from nn.layers import Dense
        >>> model = nn.Sequential.from_layers([Dense(np.eye(2), np.zeros(2))], n_features=2)
        >>> model.predict([[0.0, 1.0], [1.0, 0.0]])
        array([1, 0])
        """
        model = cls(layers, n_features)
        if model._classes < 2:
            raise ShapeError(f"layers must give two or more scores, got one of {layers[-1]!r}")
        labels = np.arange(model._classes) if classes is None else plain_array(classes, "classes")
        model.classes_ = ordered_classes(labels, model._classes)
        model.layers = rewired(
            model.architecture, [x.with_parameters(x.parameters) for x in layers]
        )
        model.input_range_ = (0.0, 1.0)
        model.loss_curve_, model.validation_scores_ = [], []
        return model

    def from_parameters(
        self, parameters: Sequence[ArrayLike], *, classes: ArrayLike | None = None
    ) -> Self:
        """Return this network with the given weights, which can predict without ``fit``.

        Parameters
        ----------
        parameters : sequence of array_like
            The arrays of each layer in order: weights and bias, or what its `parameters` are; for
            batch normalisation scale, shift, mean and variance. They are copied, to float32 if all
            are float32, else to float64.
        classes : array_like of shape (classes,), optional
            The labels in ascending order; default 0, 1, 2, ...

        Returns
        -------
        Sequential

        Raises
        ------
        ArgumentError
            If there are more or fewer arrays than the layers have, or the labels repeat or are not
            ascending.
        ShapeError
            If an array has another shape than the layer's; the message names both.
        DtypeError
            If an array is not real.
        RangeError
            If an array holds NaN or infinities, or a variance is negative.

        Examples
        --------
        >>> import numpy as np
        >>> import nn
        >>> network = nn.Sequential([nn.layers.Dense.untrained(2, 2)], n_features=2)
        >>> network.from_parameters([np.eye(2), [0.0, 0.5]]).predict([[1.0, 0.2], [1.0, 0.7]])
        array([0, 1])
        """
        arrays = parameter_arrays(parameters)
        wanted = [_arrays_of(layer) for layer in self.architecture]
        if len(arrays) != sum(map(len, wanted)):
            raise ArgumentError(
                f"parameters must be {sum(map(len, wanted))} arrays, those of each layer in order, "
                f"got {len(arrays)}"
            )
        made: list[Layer] = []
        at = 0
        for number, (layer, own) in enumerate(zip(self.architecture, wanted, strict=True), start=1):
            given = arrays[at : at + len(own)]
            for k, (array, old) in enumerate(zip(given, own, strict=True), start=at):
                if array.shape != tuple(old.shape):
                    raise ShapeError(
                        f"parameters[{k}] must have shape {tuple(old.shape)}, for layer {number}, "
                        f"{layer!r}, got {array.shape}"
                    )
            if isinstance(layer, BatchNorm):
                if (given[3] < 0).any():
                    raise RangeError(
                        f"parameters[{at + 3}], a variance, must not be negative, "
                        f"got {given[3].min():g}"
                    )
                made.append(BatchNorm(*given, momentum=layer.momentum, epsilon=layer.epsilon))
            else:
                made.append(layer.with_parameters(given))
            at += len(own)
        layers = rewired(self.architecture, made)
        model = self.from_layers(layers, self._n_features, classes=classes)
        model.random_state = self.random_state
        return model

    @property
    def n_features_in_(self) -> int:
        """Number of features that ``fit`` and ``predict`` take."""
        return self._n_features

    @property
    def n_parameters(self) -> int:
        """Number of trained weights and biases."""
        return sum(math.prod(p.shape) for layer in self.architecture for p in layer.parameters)

    @property
    def _classes(self) -> int:
        return self._outputs_count

    def _fresh_layers(self, random: np.random.Generator, dtype: np.dtype[Any]) -> Sequence[Layer]:
        fresh = [layer.fresh(random, dtype) for layer in self.architecture]
        return rewired(self.architecture, fresh)
