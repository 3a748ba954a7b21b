"""The interface of a layer, the registry of all kinds of layers, and their descriptions in files.

A layer computes with operators and NumPy functions alone, so its parameters and its input may be
NumPy arrays or shared arrays. The first axis of every input, output and gradient counts rows.

A kind of layer is one class. The class has the layer's function, gradient and bounds, its description
in files, and its names in other libraries. :func:`register` makes it known to files and to conversion.
"""

from __future__ import annotations

import copy
import inspect
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mpc import SharedArray
from ring.errors import ArgumentError, DataError, DtypeError, ShapeError, SottoError

__all__ = [
    "LAYERS",
    "Layer",
    "NamedElsewhere",
    "Weighted",
    "check_described",
    "check_trains_on_shares",
    "described",
    "layers_of",
    "parameters",
    "register",
]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class NamedElsewhere:
    """The names of an activation in other libraries.

    Attributes
    ----------
    onnx : str, optional
        The name of the ONNX operator.
    onnx_attributes : mapping of str to (str, float or str)
        For each attribute of the operator: the constructor's argument of the same meaning, and the
        attribute's default in ONNX.
    sklearn : str, optional
        The ``activation`` of scikit-learn's networks.

    Examples
    --------
    >>> from nn.layers import LeakyReLU, NamedElsewhere
    >>> alpha = {"alpha": ("slope", 0.01)}  # ONNX's attribute, our argument, ONNX's default
    >>> LeakyReLU.named_elsewhere == NamedElsewhere(onnx="LeakyRelu", onnx_attributes=alpha)
    True
    """

    onnx: str | None = None
    onnx_attributes: Mapping[str, tuple[str, float | str]] = field(default_factory=dict)
    sklearn: str | None = None


class Layer(ABC):
    """Base class of layers: one step of a network.

    ``layer(x)`` computes the output and keeps nothing. ``layer.forward(x)`` computes the output and
    keeps on the layer what the following ``layer.backward(gradient)`` needs. The two outputs are
    equal, except for batch normalisation and dropout, which differ in training and in prediction.

    Attributes
    ----------
    parameters : list of array
        What training changes.
    gradients : list of array
        Gradients of the parameters, in their order, from the last ``backward``.
    options : tuple of str, of the class
        The constructor's arguments that are no parameters. Each is an attribute of the same name,
        of numbers and strings, which files keep and :meth:`rebuilt` takes.
    later_options : tuple of str, of the class
        More of them, which files keep only if one differs from the constructor's default.
    named_elsewhere : NamedElsewhere, optional, of the class
        Names of an activation that models of other libraries may have.
    may_grow : bool, of the class
        Of a layer without parameters: whether an output can be larger in magnitude than every
        input. Training on shares checks the outputs of such layers.
    only_trains : bool, of the class
        Whether the layer is folded into others, or left out, before a model is shared.
    only_moves : bool, of the class
        Whether the output has the elements of the input in another shape or order.
    keeps_bits : bool, of the class
        Whether the output has as many fractional bits on shares as the input, as a sum does.
    joins : bool, of the class
        Whether the layer takes several inputs, as a tuple: see :mod:`nn.layers.joining`.
    doubles : bool, of the class
        Of a layer without parameters: whether the output has twice the fractional bits on shares.
    trains : bool, of the class
        Whether ``backward`` computes gradients; a network with a layer that does not is refused
        before training.
    commutes_with_relu : bool, of the class
        Whether ``layer(relu(x))`` equals ``relu(layer(x))``.
    trains_on_shares : bool, of the class
        Whether ``forward`` and ``backward`` take shared arrays; otherwise training on shares refuses the
        layer before it starts.
    sums_squares : bool, of the class
        Whether squares are summed on shares, for which a format of many integer bits may have no room.
    rectifies : bool, of the class
        Whether the output is never negative, and the same for all negative inputs.

    Examples
    --------
    An activation of your own needs a function, its gradient and its bounds:

    >>> import numpy as np
    >>> from nn.layers import Layer
    >>> class Square(Layer):
    ...     def __call__(self, x):
    ...         return x * x
    ...
    ...     def forward(self, x):
    ...         self.x = x
    ...         return self(x)
    ...
    ...     def backward(self, gradient, *, input_gradient=True):
    ...         return 2 * self.x * gradient if input_gradient else None
    ...
    ...     def bounds(self, low, high):
    ...         low, high = np.asarray(low), np.asarray(high)
    ...         least = np.where((low < 0) & (high > 0), 0, np.minimum(low * low, high * high))
    ...         return least, np.maximum(low * low, high * high)
    ...
    ...     def output_shape(self, input_shape):
    ...         return input_shape
    >>> layer = Square()
    >>> layer.forward(np.array([[3.0, -2.0]])), layer.backward(np.array([[1.0, 1.0]]))
    (array([[9., 4.]]), array([[ 6., -4.]]))
    """

    options: ClassVar[tuple[str, ...]] = ()
    later_options: ClassVar[tuple[str, ...]] = ()
    named_elsewhere: ClassVar[NamedElsewhere | None] = None
    may_grow: ClassVar[bool] = True
    only_trains: ClassVar[bool] = False
    only_moves: ClassVar[bool] = False
    keeps_bits: ClassVar[bool] = False
    joins: ClassVar[bool] = False
    doubles: ClassVar[bool] = False
    trains: ClassVar[bool] = True
    commutes_with_relu: ClassVar[bool] = False
    rectifies: ClassVar[bool] = False
    sums_squares: ClassVar[bool] = False
    trains_on_shares: ClassVar[bool] = True

    def __init__(self) -> None:
        self.gradients: list[Any] = []
        # What forward keeps for backward.
        self._memory: Any = None

    @property
    def parameters(self) -> list[Any]:
        """The arrays that training changes; none by default."""
        return []

    @parameters.setter
    def parameters(self, values: Sequence[Any]) -> None:
        if len(values):
            raise ArgumentError(f"{self!r} has no parameters, got {len(values)}")

    @abstractmethod
    def __call__(self, x: Any) -> Any:
        """Return the output for the rows `x`, of shape (rows, ...)."""

    def as_on_shares(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return the output for plain rows, computed by the formula that is used on shares."""
        output: NDArray[Any] = self(x)
        return output

    @abstractmethod
    def forward(self, x: Any) -> Any:
        """Return the output for the rows `x`, and keep what ``backward`` needs."""

    @abstractmethod
    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        """Compute the loss's gradients at the parameters and the input, from that at the output.

        Parameters
        ----------
        gradient : array of shape (rows, ...)
            Gradient of the loss with respect to this layer's output.
        input_gradient : bool
            False skips the gradient at the input, which a network's first layer does not need.

        Returns
        -------
        array of the input's shape, or None
            Gradient of the loss with respect to the input of the last ``forward``; None without
            `input_gradient`. The gradients of the parameters are in ``gradients``.

        Raises
        ------
        ArgumentError
            Before any ``forward``.
        """

    @abstractmethod
    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the least and greatest output for inputs between `low` and `high`, elementwise.

        Parameters
        ----------
        low, high : array_like
            Arrays of one row's shape, `low` nowhere above `high`. Scalars stand for a row of shape
            (), not for all elements of another row.

        Returns
        -------
        (ndarray, ndarray)
            Bounds of the output in float64, of one output row's shape, or numbers for all elements.
            They hold in real arithmetic; fixed-point rounding comes on top.
        """

    def on_grid(self, frac_bits: int) -> list[Any]:
        """Return the parameters as they are to be shared, before they are rounded to the format."""
        return self.parameters

    def fixed_point_error(
        self, magnitude: NDArray[Any], error: NDArray[Any], frac_bits: int
    ) -> NDArray[Any]:
        """Return a bound on the error of the output on shares, elementwise.

        Parameters
        ----------
        magnitude : ndarray
            The largest magnitude of each element of an input row.
        error : ndarray
            Bound on the error of each element of an input row: its distance from the value in real
            arithmetic.
        frac_bits : int
            Fractional bits of the format.

        Returns
        -------
        ndarray
            Bound on the error of each element of an output row; NaN, the default, if not known.
        """
        return np.asarray(np.nan)

    def reach(self, magnitude: SharedArray) -> SharedArray | float:
        """Return a bound on the output's magnitude, for a layer without weights.

        Parameters
        ----------
        magnitude : SharedArray
            Bound on the magnitude of each input; secret.

        Returns
        -------
        SharedArray of the output's shape, or float
            A float if the bound does not depend on the input.
        """
        bound: SharedArray = self(magnitude)
        return bound

    @abstractmethod
    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of one output row for input rows of `input_shape`.

        Raises
        ------
        ShapeError
            If the layer takes no rows of that shape.
        """

    def shared_words(self, input_shape: Shape, parties: int) -> int:
        """Return about how many 8-byte words one row needs while it is evaluated on shares."""
        # Shares of input and output, and temporaries of an opening or a sum.
        sizes = math.prod(input_shape) + math.prod(self.output_shape(input_shape))
        return (2 * parties + 2) * sizes

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def with_parameters(self, values: Sequence[Any]) -> Self:
        """Return a copy of the layer with the given parameters, without gradients."""
        other = copy.copy(self)
        other.parameters = list(values)
        other.gradients, other._memory = [], None
        return other

    def description(self) -> list[Any]:
        """Return name and options of the layer, which files keep beside its parameters."""
        names = (*self.options, *self.later_options)
        known = inspect.signature(type(self)).parameters
        values: list[Any] = []
        for name in reversed(names):
            value = getattr(self, name)
            if values or name in self.options or value != known[name].default:
                values.append(value)
        return [type(self).__name__, *reversed(values)]

    @classmethod
    def _named(cls, options: Sequence[Any]) -> dict[str, Any]:
        """Return the options of a description by name."""
        names = (*cls.options, *cls.later_options)
        if not len(cls.options) <= len(options) <= len(names):
            raise ArgumentError(f"{cls.__name__} has the options {names}, got {len(options)}")
        return dict(zip(names, options, strict=False))

    @classmethod
    def rebuilt(cls, options: Sequence[Any], parameters: Iterator[Any]) -> Self:
        """Return the layer of a description; its arrays are the next ones of `parameters`."""
        return cls(**cls._named(options))

    def fresh(self, random: np.random.Generator, dtype: DTypeLike = np.float64) -> Layer:
        """Return the layer as it is before training, with initial weights drawn from `random`."""
        return self.with_parameters([])

    def _remembered(self) -> Any:
        if self._memory is None:
            raise ArgumentError(f"{self!r}.backward needs a forward before it")
        return self._memory


class Weighted(Layer):
    """Base class of layers with weights and a bias.

    Parameters
    ----------
    weights : array of shape (..., outputs)
    bias : array of shape (outputs,)

    Raises
    ------
    ShapeError
        If `bias` does not have one entry for each output.

    Examples
    --------
    >>> from nn.layers import Convolution, Dense, Weighted
    >>> issubclass(Dense, Weighted) and issubclass(Convolution, Weighted)
    True
    >>> [array.shape for array in Dense.untrained(3, 2).parameters]
    [(3, 2), (2,)]
    """

    def __init__(self, weights: Any, bias: Any) -> None:
        super().__init__()
        outputs = weights.shape[-1]
        if tuple(bias.shape) != (outputs,):
            raise ShapeError(
                f"bias must have one entry for each of {outputs} outputs, "
                f"got shape {tuple(bias.shape)}"
            )
        self.weights, self.bias = weights, bias

    @classmethod
    def rebuilt(cls, options: Sequence[Any], parameters: Iterator[Any]) -> Self:
        named = cls._named(options)
        return cls(next(parameters), next(parameters), **named)

    @property
    def parameters(self) -> list[Any]:
        """The weights and the bias."""
        return [self.weights, self.bias]

    @parameters.setter
    def parameters(self, values: Sequence[Any]) -> None:
        shapes = [tuple(value.shape) for value in values]
        expected = [tuple(self.weights.shape), tuple(self.bias.shape)]
        if shapes != expected:
            raise ShapeError(f"{self!r} needs parameters of shapes {expected}, got {shapes}")
        self.weights, self.bias = values


def parameters(layers: Sequence[Layer]) -> list[Any]:
    """Return all parameters in layer order."""
    return [parameter for layer in layers for parameter in layer.parameters]


# By name, every kind of layer that a file can hold.
LAYERS: dict[str, type[Layer]] = {}

Kind = TypeVar("Kind", bound=type[Layer])


def register(kind: Kind) -> Kind:
    """Make a kind of layer known to files of models and shares, and to conversion; a decorator.

    Parameters
    ----------
    kind : subclass of Layer

    Returns
    -------
    subclass of Layer
        `kind` itself.

    Raises
    ------
    ArgumentError
        If another class of the same name is registered, or ``kind.options`` are not the
        constructor's arguments.
    DtypeError
        If `kind` is no subclass of Layer.

    Examples
    --------
    >>> import nn
    >>> nn.layers.register(nn.layers.ReLU) is nn.layers.ReLU
    True
    """
    if not isinstance(kind, type) or not issubclass(kind, Layer):
        raise DtypeError(f"kind must be a subclass of Layer, got {kind!r}")
    name = kind.__name__
    known = LAYERS.get(name, kind)
    if known is not kind:
        raise ArgumentError(f"the name of a layer must be new, got {name}, which is {known!r}")
    own = kind.rebuilt.__func__ not in (Layer.rebuilt.__func__, Weighted.rebuilt.__func__)  # type: ignore[attr-defined]
    arguments = list(inspect.signature(kind).parameters)
    if issubclass(kind, Weighted):
        arguments = arguments[2:]
    if not own and arguments != [*kind.options, *kind.later_options]:
        raise ArgumentError(
            f"options of {name} must be its constructor's arguments {tuple(arguments)}, so that files "
            f"can hold it, got {kind.options}; another way is to override `rebuilt`"
        )
    LAYERS[name] = kind
    return kind


def described(layers: Sequence[Layer]) -> list[list[Any]]:
    """Return the description of each layer: its name and options, without its parameters.

    Raises
    ------
    DtypeError
        If a layer is of a kind that is not registered.

    Examples
    --------
    >>> from nn.layers.layer import described
    >>> from nn.layers import Dense, MaxPool, ReLU
    >>> described([Dense.untrained(3, 2), ReLU(), MaxPool(2)])
    [['Dense'], ['ReLU'], ['MaxPool', (2, 2)]]
    """
    for layer in layers:
        if LAYERS.get(type(layer).__name__) is not type(layer):
            raise DtypeError(
                f"layers of a file must be of {', '.join(sorted(LAYERS))}, got {layer!r}; "
                "nn.layers.register adds a kind"
            )
    return [layer.description() for layer in layers]


def check_described(layers: Sequence[Layer]) -> None:
    """Check, before a training, that layers can be trained, and that files can hold them then.

    Raises
    ------
    ArgumentError
        If a layer has no way back for gradients.
    DtypeError
        If a layer is of a kind that is not registered, or its description makes another layer.
    """
    for number, layer in enumerate(layers, start=1):
        if not layer.trains:
            raise ArgumentError(
                f"layer {number}, {layer!r}, cannot be trained: it has no way back for gradients"
            )
        if layer.only_trains:
            continue
        try:
            (kept,) = json.loads(json.dumps(described([layer])))
            (again,) = layers_of([kept], layer.parameters)
        except (AttributeError, TypeError, ValueError, SottoError) as error:
            raise DtypeError(f"layer {number} could not be saved after training: {error}") from None
        if type(again) is not type(layer) or json.dumps(described([again])) != json.dumps([kept]):
            raise DtypeError(
                f"layer {number}, {layer!r}, could not be saved after training: a file would give "
                f"{again!r}; its `options` must name its constructor's arguments"
            )


def check_trains_on_shares(layers: Sequence[Layer]) -> None:
    """Check, before a training on shares, that every layer has a way back there.

    Raises
    ------
    DtypeError
        If a layer has none.
    """
    for number, layer in enumerate(layers, start=1):
        if not layer.trains_on_shares:
            raise DtypeError(
                f"layer {number}, {layer!r}, is not trained on shares: train in the clear, or leave it out;"
                " of smooth activations Sigmoid and Tanh are"
            )


def layers_of(descriptions: Any, parameters: Sequence[Any]) -> list[Layer]:
    """Return the layers that a file describes, with the given parameters in layer order.

    Raises
    ------
    DataError
        If `descriptions` are malformed, or the layers have other parameters.
    """
    remaining = iter(parameters)
    try:
        layers = [LAYERS[name].rebuilt(options, remaining) for name, *options in descriptions]
    except StopIteration:
        raise DataError("fewer parameters than its layers have") from None
    except (KeyError, TypeError, ValueError, SottoError) as error:
        raise DataError(f"its layers cannot be made: {error}") from None
    if next(remaining, None) is not None:
        raise DataError("more parameters than its layers have")
    return layers
