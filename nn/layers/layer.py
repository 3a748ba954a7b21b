"""What a layer is, and the registry of all kinds of layers.

A layer computes with operators and NumPy functions alone, so its parameters and its input may be
NumPy arrays or shared arrays. Rows come first in every input and gradient.

A kind of layer is one class: what it computes, its gradient, its bounds, how files describe it and
what other libraries call it. :func:`register` makes it known to files and imports.
"""

from __future__ import annotations

import copy
import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mpc import SharedArray
from ring.errors import ArgumentError, DtypeError, ShapeError

__all__ = ["LAYERS", "Layer", "NamedElsewhere", "Weighted", "register"]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class NamedElsewhere:
    """What other libraries call an activation.

    Attributes
    ----------
    onnx : str, optional
        The operator of ONNX.
    onnx_attributes : mapping of str to (str, float)
        For each of its attributes the constructor's argument that it is, and its default in ONNX.
    sklearn : str, optional
        The ``activation`` of scikit-learn's networks.
    """

    onnx: str | None = None
    onnx_attributes: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    sklearn: str | None = None


class Layer(ABC):
    """One step of a network.

    ``layer(x)`` computes the output and remembers nothing. ``layer.forward(x)`` computes the same
    and keeps on the layer what the following ``layer.backward(gradient)`` needs. Only batch
    normalisation and dropout, which train otherwise than they predict, make a difference there.

    Attributes
    ----------
    options : tuple of str, of the class
        The constructor's arguments behind the parameters. Each is an attribute too, of plain
        numbers and strings: files keep them, and :meth:`rebuilt` gives them back.
    named_elsewhere : NamedElsewhere, optional, of the class
        For an activation that models of other libraries may have.
    may_grow : bool, of the class
        Whether an output can be larger in magnitude than every input, in a layer without
        parameters. Training on shares checks the outputs of those that do.
    gradients : list of array
        Gradients of the parameters, in their order, from the last ``backward``.
    """

    options: ClassVar[tuple[str, ...]] = ()
    named_elsewhere: ClassVar[NamedElsewhere | None] = None
    may_grow: ClassVar[bool] = True
    # A layer that only trains: `nn.layers.normalisation.folded` takes it out of a trained model.
    only_trains: ClassVar[bool] = False
    # Whether values are only put in other places.
    only_moves: ClassVar[bool] = False
    # Whether the layer of ReLU's output is ReLU of the layer's output.
    commutes_with_relu: ClassVar[bool] = False
    # Whether the output is never negative, and nothing of a negative input is left in it.
    rectifies: ClassVar[bool] = False

    def __init__(self) -> None:
        self.gradients: list[Any] = []
        # What forward keeps for backward.
        self._memory: Any = None

    @property
    def parameters(self) -> list[Any]:
        """The arrays that training changes; none unless a layer says otherwise."""
        return []

    @parameters.setter
    def parameters(self, values: Sequence[Any]) -> None:
        if len(values):
            raise ArgumentError(f"{self!r} has no parameters, got {len(values)}")

    @abstractmethod
    def __call__(self, x: Any) -> Any:
        """Return the output for the rows `x`, of shape (rows, ...)."""

    def as_on_shares(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return the output for plain rows by the formula that is used on shares."""
        output: NDArray[Any] = self(x)
        return output

    @abstractmethod
    def forward(self, x: Any) -> Any:
        """Return the output for the rows `x` and keep what ``backward`` needs."""

    @abstractmethod
    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        """Take the loss's gradient at the output back through the last ``forward``.

        Parameters
        ----------
        gradient : array of shape (rows, ...)
            Gradient of the loss with respect to this layer's output.
        input_gradient : bool
            False skips the gradient at the input, which a network's first layer does not need.

        Returns
        -------
        array of the input's shape, or None
            Gradient of the loss with respect to the input, None if it was not asked for. The
            parameters' gradients are in ``gradients``.

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
            Scalars, or arrays of one row's shape, `low` nowhere above `high`.

        Returns
        -------
        (ndarray, ndarray)
            Bounds of the output in float64, of one output row's shape where the layer knows it.
            They hold in real arithmetic; fixed-point rounding comes on top.
        """

    def fixed_point_error(
        self, magnitude: NDArray[Any], error: NDArray[Any], frac_bits: int
    ) -> NDArray[Any]:
        """Return a bound on what fixed point adds to the output on shares, elementwise.

        Parameters
        ----------
        magnitude : ndarray
            The largest magnitude of each element of an input row.
        error : ndarray
            How far the input may be from its value in real arithmetic.
        frac_bits : int

        Returns
        -------
        ndarray
            NaN if not known, which is what a layer gives that does not say.
        """
        return np.asarray(np.nan)

    def reach(self, magnitude: SharedArray) -> SharedArray | float:
        """Return a bound on the output's magnitude for inputs up to `magnitude`, on shares.

        A number where there is one whatever the input. Of a layer with weights it is not asked.
        """
        bound: SharedArray = self(magnitude)
        return bound

    @abstractmethod
    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of one output row for input rows of `input_shape`.

        Raises
        ------
        ShapeError
            If the layer cannot take such rows.
        """

    def shared_words(self, input_shape: Shape, parties: int) -> int:
        """Return about how many words of memory a row takes while it is evaluated on shares."""
        # Shares of the input and the output, and what an opening or a sum needs.
        sizes = math.prod(input_shape) + math.prod(self.output_shape(input_shape))
        return (2 * parties + 2) * sizes

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def with_parameters(self, values: Sequence[Any]) -> Self:
        """Return a layer like this one, with other parameters and nothing remembered."""
        twin = copy.copy(self)
        twin.parameters = list(values)
        twin.gradients, twin._memory = [], None
        return twin

    def description(self) -> list[Any]:
        """Return what files keep of the layer beside its parameters: name and options."""
        return [type(self).__name__, *(getattr(self, option) for option in self.options)]

    @classmethod
    def rebuilt(cls, options: Sequence[Any], parameters: Iterator[Any]) -> Self:
        """Return a layer with the options of a description; `parameters` gives the next array."""
        return cls(**dict(zip(cls.options, options, strict=True)))

    def fresh(self, random: np.random.Generator, dtype: DTypeLike = np.float64) -> Layer:
        """Return a layer like this one, as it is before training, with weights from `random`."""
        return self.with_parameters([])

    def _remembered(self) -> Any:
        if self._memory is None:
            raise ArgumentError(f"{self!r}.backward needs a forward before it")
        return self._memory


class Weighted(Layer):
    """A layer with weights, whose last axis is the outputs, and a bias for each output."""

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
        named = dict(zip(cls.options, options, strict=True))
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


# Every kind of layer that a file can hold, by name.
LAYERS: dict[str, type[Layer]] = {}

Kind = TypeVar("Kind", bound=type[Layer])


def register(kind: Kind) -> Kind:
    """Make a kind of layer known to files of models and shares, and to imports; a decorator.

    Parameters
    ----------
    kind : subclass of Layer

    Raises
    ------
    ArgumentError
        If another class has its name, or its ``options`` are not the constructor's arguments.
    DtypeError
        If it is no class of layers.

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
    if not own and arguments != list(kind.options):
        raise ArgumentError(
            f"options of {name} must be its constructor's arguments {tuple(arguments)}, so that files "
            f"can hold it, got {kind.options}; or it has a `rebuilt` of its own"
        )
    LAYERS[name] = kind
    return kind
