"""ONNX's recurrent operators, unrolled into nodes, as functions of :mod:`nn.convert.graph_table`.

The products with the inputs of all steps are one layer; each step then has the product with the state
before it, the gates, and the new state. A state of zeros before the first step costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nn.convert.from_sklearn import ConversionError
from nn.convert.graph_builder import Builder
from nn.convert.graph_table import operator
from nn.convert.graph_values import ROWS, Scores, Tensor, constant
from nn.layers import Layer
from nn.layers.activations import Sigmoid, Tanh
from nn.layers.clipping import Clip, HardSigmoid
from nn.layers.dense import Dense
from nn.layers.joining import Add, Concat, Multiply, Subtract
from nn.layers.leaky_relu import LeakyReLU
from nn.layers.relu import ReLU
from nn.layers.scale import Scale
from nn.layers.selecting import Take
from nn.layers.smooth import ELU, Softplus

__all__: list[str] = []

Floats = NDArray[np.float64]
# The activations by ONNX's names: how many of alpha and beta they take, their defaults, and the layer.
_FUNCTIONS: dict[str, tuple[tuple[float, ...], Callable[..., Layer]]] = {
    "Affine": ((1.0, 0.0), lambda a, b: Scale(np.array([a]), np.array([b]))),
    "Elu": ((1.0,), ELU),
    "HardSigmoid": ((0.2, 0.5), HardSigmoid),
    "LeakyRelu": ((0.01,), LeakyReLU),
    "Relu": ((), ReLU),
    "Sigmoid": ((), Sigmoid),
    "Softplus": ((), Softplus),
    "Tanh": ((), Tanh),
}
_COMMON = (
    "activation_alpha", "activation_beta", "activations", "clip", "direction", "hidden_size", "layout",
)  # fmt: skip


@dataclass(frozen=True)
class _Cell:
    """One direction of a recurrent operator.

    Attributes
    ----------
    weights, recurrent : arrays of shape (inputs, gates * hidden) and (hidden, gates * hidden)
    bias, recurrent_bias : arrays of shape (gates * hidden,)
    functions : list of Layer
        The activations.
    clip : float or None
        The limit of what they take.
    peepholes : arrays of shape (3, hidden), or None
        Weights of the cell's state for the input, output and forget gates of an LSTM.
    input_forget : bool
        Whether the forget gate of an LSTM is 1 minus the input gate.
    """

    builder: Builder
    hidden: int
    weights: Floats
    recurrent: Floats
    bias: Floats
    recurrent_bias: Floats
    functions: list[Layer]
    clip: float | None = None
    peepholes: Floats | None = None
    input_forget: bool = False

    def active(self, number: int, value: int) -> int:
        """Return what an activation gives for a value between the limits."""
        if self.clip is not None:
            value = self.builder.add(Clip(-self.clip, self.clip), value)
        return self.builder.add(self.functions[number], value)

    def peeped(self, value: int, c: int | None, numbers: list[int]) -> int:
        """Add the weighted state of an LSTM's cell to some gates, side by side."""
        if self.peepholes is None or c is None:
            return value
        zeros = np.zeros(self.hidden)
        parts = [self.builder.add(Scale(self.peepholes[k].copy(), zeros), c) for k in numbers]
        whole = parts[0] if len(parts) == 1 else self.builder.add(Concat(0), *parts)
        return self.builder.add(Add(), value, whole)

    def gate(self, value: int, number: int, count: int = 1) -> int:
        """Return `count` gates of a value that holds all, from a number on."""
        start = number * self.hidden
        return self.builder.add(Take(0, range(start, start + count * self.hidden)), value)

    def product(self, h: int, first: int = 0, stop: int | None = None) -> int:
        """Return the product of a state with some gates' recurrent weights, and their bias."""
        columns = slice(first * self.hidden, None if stop is None else stop * self.hidden)
        layer = Dense(np.array(self.recurrent[:, columns]), np.array(self.recurrent_bias[columns]))
        return self.builder.add(layer, h)


# Makes the states after a step, given its inputs' products, and the states before it (None for zeros).
Step = Callable[[_Cell, int, list[int | None]], list[int]]


def _lstm_step(cell: _Cell, x: int, states: list[int | None]) -> list[int]:
    h, c = states
    add = cell.builder.add
    gates = x if h is None else add(Add(), x, cell.product(h))
    if cell.peepholes is None and not cell.input_forget:
        opening = cell.active(0, cell.gate(gates, 0, 3))  # input, output, forget
        enter, leave, stay = (cell.gate(opening, k) for k in range(3))
    else:
        enter = cell.active(0, cell.peeped(cell.gate(gates, 0), c, [0]))
        if cell.input_forget:
            stay = add(Scale(np.array([-1.0]), np.ones(1)), enter)
        else:
            stay = cell.active(0, cell.peeped(cell.gate(gates, 2), c, [2]))
    new = add(Multiply(), enter, cell.active(1, cell.gate(gates, 3)))
    if c is not None:
        new = add(Add(), new, add(Multiply(), stay, c))
    if cell.peepholes is not None or cell.input_forget:  # of the new state
        leave = cell.active(0, cell.peeped(cell.gate(gates, 1), new, [1]))
    return [add(Multiply(), leave, add(cell.functions[2], new)), new]


def _gru_step(linear_before_reset: bool) -> Step:
    def step(cell: _Cell, x: int, states: list[int | None]) -> list[int]:
        (h,) = states
        add, size = cell.builder.add, cell.hidden
        gates = cell.gate(x, 0, 2)
        if h is not None:
            gates = add(Add(), gates, cell.product(h, 0, 2))
        gates = cell.active(0, gates)  # update, reset
        update, reset = cell.gate(gates, 0), cell.gate(gates, 1)
        new, bias = cell.gate(x, 2), cell.recurrent_bias[2 * size :]
        if linear_before_reset and h is None:
            new = add(Add(), new, add(Scale(np.array(bias), np.zeros(size)), reset))
        elif linear_before_reset:
            assert h is not None
            new = add(Add(), new, add(Multiply(), reset, cell.product(h, 2)))
        elif h is not None:
            new = add(Add(), new, cell.product(add(Multiply(), reset, h), 2))
        new = cell.active(1, new)
        # (1 - update) * new + update * h
        if h is None:
            return [add(Subtract(), new, add(Multiply(), update, new))]
        return [add(Add(), new, add(Multiply(), update, add(Subtract(), h, new)))]

    return step


def _rnn_step(cell: _Cell, x: int, states: list[int | None]) -> list[int]:
    (h,) = states
    add = cell.builder.add
    gates = x if h is None else add(Add(), x, cell.product(h))
    return [cell.active(0, gates)]


def _functions(attributes: dict[str, Any], count: int, default: list[str]) -> list[list[Layer]]:
    """Return the activations of every direction."""
    given = [n.decode() for n in attributes.get("activations", [])] or default * count
    unknown = [name for name in given if name not in _FUNCTIONS]
    if unknown or len(given) != count * len(default):
        raise ConversionError(f"needs activations among {', '.join(_FUNCTIONS)}, got {given}")
    alphas, betas = (iter(attributes.get(f"activation_{name}", [])) for name in ("alpha", "beta"))
    made = []
    for name in given:
        usual, kind = _FUNCTIONS[name]
        # Numbers are given, in order, for the activations that take any.
        numbers = [float(next(v, d)) for v, d in zip((alphas, betas), usual, strict=False)]
        made.append(kind(*(float(f"{v:.7g}") for v in numbers)))
    each = len(default)
    return [made[k * each : (k + 1) * each] for k in range(count)]


def _initial(builder: Builder, state: Any, direction: int, rows: int) -> int | None:
    """Return the state before the first step as a value, None for zeros."""
    if state is None:
        return None
    if isinstance(state, (Tensor, Scores)):
        x = builder.tensor(state)
        others = [k for k in range(3) if k != rows]
        if x.axes[rows] != (ROWS,):
            raise ConversionError("needs an initial state of every row")
        value = builder.arranged(x, [x.axes[k] for k in others])
        return builder.reshaped(builder.add(Take(0, [direction]), value), builder.sizes[value][1:])
    values = constant(state)
    if not values.any():
        return None
    made = builder.constant(values, rows)
    value = builder.add(Take(0, [direction]), made.value)
    return builder.reshaped(value, made.sizes[1:])


def _recurrent(
    builder: Builder,
    attributes: dict[str, Any],
    inputs: list[Any],
    gates: int,
    default: list[str],
    step: Step,
    states: list[Any],
    peepholes: Any = None,
) -> tuple[Tensor, ...]:
    """Return the outputs of a recurrent operator: all steps' first states, and all last states."""
    x, weights, recurrent, bias, lengths = inputs
    layout = attributes.get("layout", 0)
    x = builder.tensor(x)
    rows, steps = (1, 0) if not layout else (0, 1)
    if len(x.axes) != 3 or x.axes[rows] != (ROWS,):
        raise ConversionError("needs rows along the axis of the batch")
    value = builder.arranged(x, [x.axes[steps], x.axes[2]])
    length, width = builder.sizes[value]
    if lengths is not None and (not isinstance(lengths, np.ndarray) or (lengths != length).any()):
        raise ConversionError(f"needs sequences of {length} steps in every row, got others")
    named = attributes.get("direction", b"forward").decode()
    backwards = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[named]
    w, r = constant(weights), constant(recurrent)
    hidden = r.shape[2]
    if w.shape != (len(backwards), gates * hidden, width) or r.shape[1] != gates * hidden:
        raise ConversionError(
            f"needs weights for {width} features, got shapes {w.shape}, {r.shape}"
        )
    both = np.zeros((len(backwards), 2 * gates * hidden)) if bias is None else constant(bias)
    functions = _functions(attributes, len(backwards), default)
    outputs, last = [], []
    for direction, reverse in enumerate(backwards):
        own, other = np.split(both[direction], 2)
        # Where the second bias is added to the first at once, there is one bias.
        keep = np.zeros(gates * hidden)
        if attributes.get("linear_before_reset", 0):
            keep[2 * hidden :] = other[2 * hidden :]
        own = own + other - keep
        peeps = None if peepholes is None else constant(peepholes)[direction].reshape(3, hidden)
        cell = _Cell(
            builder, hidden, w[direction].T, r[direction].T, own, keep, functions[direction],
            attributes.get("clip"), peeps if peeps is not None and peeps.any() else None,
            bool(attributes.get("input_forget", 0)),
        )  # fmt: skip
        given = builder.add(Dense(np.array(cell.weights), np.array(own)), value)
        state = [_initial(builder, s, direction, rows) for s in states]
        found: dict[int, int] = {}
        for t in range(length)[:: -1 if reverse else 1]:
            taken = builder.add(Take(0, [t]), given)
            made = step(cell, builder.reshaped(taken, (gates * hidden,)), state)
            state = list(made)
            found[t] = made[0]
        lying = [builder.reshaped(found[t], (1, hidden)) for t in range(length)]
        outputs.append(builder.reshaped(builder.add(Concat(0), *lying), (length, 1, hidden)))
        last.append([builder.reshaped(s, (1, hidden)) for s in state if s is not None])
    whole = outputs[0] if len(outputs) == 1 else builder.add(Concat(1), *outputs)
    ends = [
        ends[0] if len(ends) == 1 else builder.add(Concat(0), *ends)
        for ends in zip(*last, strict=True)
    ]
    if layout:
        sequence, ending = ((ROWS,), (0,), (1,), (2,)), ((ROWS,), (0,), (1,))
    else:
        sequence, ending = ((0,), (1,), (ROWS,), (2,)), ((0,), (ROWS,), (1,))
    return (
        Tensor(whole, builder.sizes[whole], sequence),
        *(Tensor(end, builder.sizes[end], ending) for end in ends),
    )


@operator("LSTM", *_COMMON, "input_forget")
def _lstm(
    builder: Builder, attributes: dict[str, Any], x: Any, weights: Any, recurrent: Any,
    bias: Any = None, lengths: Any = None, h: Any = None, c: Any = None, peepholes: Any = None,
) -> tuple[Tensor, ...]:  # fmt: skip
    given = [x, weights, recurrent, bias, lengths]
    return _recurrent(
        builder, attributes, given, 4, ["Sigmoid", "Tanh", "Tanh"], _lstm_step, [h, c], peepholes
    )


@operator("GRU", *_COMMON, "linear_before_reset")
def _gru(
    builder: Builder, attributes: dict[str, Any], x: Any, weights: Any, recurrent: Any,
    bias: Any = None, lengths: Any = None, h: Any = None,
) -> tuple[Tensor, ...]:  # fmt: skip
    step = _gru_step(bool(attributes.get("linear_before_reset", 0)))
    given = [x, weights, recurrent, bias, lengths]
    return _recurrent(builder, attributes, given, 3, ["Sigmoid", "Tanh"], step, [h])


@operator("RNN", *_COMMON)
def _rnn(
    builder: Builder, attributes: dict[str, Any], x: Any, weights: Any, recurrent: Any,
    bias: Any = None, lengths: Any = None, h: Any = None,
) -> tuple[Tensor, ...]:  # fmt: skip
    given = [x, weights, recurrent, bias, lengths]
    return _recurrent(builder, attributes, given, 1, ["Tanh"], _rnn_step, [h])
