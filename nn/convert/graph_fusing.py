"""Functions that a graph spells out in several nodes, as the one layer that computes them.

Exporters write ``x * sigmoid(x)`` for SiLU, ``x * (1 + erf(x / sqrt(2))) / 2`` for GELU; softmax and norms
are in :mod:`nn.convert.graph_norms`. On shares one layer takes about half the rounds, and its
bounds and errors are those of the function. What is fused is equal to the last digits of the graph's
constants, which are float32; a norm's least value counts as added in squares, if it is so small that no
format holds such norms.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from mpc.protocols.smooth import LARGEST_ALPHA, SMALLEST_ALPHA
from nn.convert.graph_nodes import Nodes, close
from nn.convert.graph_norms import (
    fuse_log,
    fuse_log_softmax,
    fuse_norm,
    fuse_shifted_norm,
    fuse_softmax,
)
from nn.layers import Layer
from nn.layers.activations import Sigmoid, Tanh
from nn.layers.clipping import Clip, HardSigmoid, HardSwish
from nn.layers.functions import Exp, Log, Pow, Reciprocal
from nn.layers.graph import Graph
from nn.layers.joining import Add, Multiply, Subtract
from nn.layers.leaky_relu import LeakyReLU
from nn.layers.rectifiers import Abs, Step
from nn.layers.relu import ReLU
from nn.layers.scale import Scale
from nn.layers.smooth import ELU, GELU, Erf, Mish, SiLU, Softplus

__all__ = ["Fusing", "fused"]

Cubic = tuple[float, ...]
# A layer, the value it takes, and what that is multiplied by before and behind it, and plus before it.
Found = tuple[Layer, float, float, float, float]


def fused(graph: Graph, n_features: int) -> Graph:
    """Return a graph of the same function in which known functions are one layer each.

    Examples
    --------
    >>> from nn.convert.graph_fusing import fused
    >>> from nn.layers import Graph, Multiply, Sigmoid
    >>> fused(Graph([(Sigmoid(), 0), (Multiply(), (0, 1))]), 3)
    Graph([(SiLU(), (0,))])
    """
    return Fusing(graph, n_features).graph()


class Fusing(Nodes):
    """The nodes of a graph, known functions among them as one layer each."""

    def __init__(self, graph: Graph, n_features: int, ends: Iterable[float] = ()) -> None:
        super().__init__(graph, n_features, ends)
        for number in sorted(self.nodes):
            layer, taken = self.nodes[number]
            kind, count = type(layer), len(taken)
            if kind is Multiply and count == 2:
                found = self._rectified(*taken) or self._ratio(*taken) or self._activation(*taken)
                if found is not None:
                    self._replace(number, *found)
                else:
                    _ = fuse_softmax(self, number) or fuse_norm(self, number)
            elif kind is Subtract and count == 2:
                fuse_log_softmax(self, number)
            elif kind is Add and count == 2:
                _ = (
                    self._softplus_of_both(number)
                    or self._chosen(number)
                    or fuse_shifted_norm(self, number)
                )
            elif kind is Reciprocal:
                self._sigmoid(number)
            elif kind is Log:
                _ = self._softplus(number) or fuse_log(self, number)
            elif kind in (Clip, ReLU):
                self._clip(number)

    def _replace(
        self, number: float, layer: Layer, source: float, inside: float, scale: float,
        shift: float = 0.0, summand: float = 0.0,
    ) -> None:  # fmt: skip
        """Put ``scale * layer(inside * source + shift) + summand`` in the place of a node."""
        layers = [*_scaled(inside, shift), layer, *_scaled(scale, summand)]
        self.put(number, layers, source)

    # Functions of powers.

    def _power(self, k: float) -> tuple[float, float, float, float] | None:
        """Return (x, a, b, h) if a value is ``h * (1 + exp(a * x + b))`` with h above 0."""
        exp, factor, summand = self.affine(k)
        layer, taken = self.kind(exp)
        if not isinstance(layer, Exp) or factor <= 0 or summand <= 0:
            return None
        x, inside, shift = self.affine(taken[0])
        return x, inside, shift + math.log(factor / summand), summand

    def _sigmoid(self, number: float) -> None:
        """Take ``1 / (1 + exp(-x))`` for a sigmoid."""
        found = self._power(self.nodes[number][1][0])
        if found is not None:
            x, a, b, h = found
            self._replace(number, Sigmoid(), x, -a, 1 / h, -b)

    def _softplus(self, number: float) -> bool:
        """Take ``log(1 + exp(x))`` for a softplus; return whether."""
        found = self._power(self.nodes[number][1][0])
        if found is None:
            return False
        x, a, b, h = found
        self._replace(number, Softplus(), x, a, 1.0, b, math.log(h))
        return True

    def _softplus_of_both(self, number: float) -> bool:
        """Take ``max(x, 0) + softplus(-abs(x))`` for a softplus; return whether."""
        for first, second in (self.nodes[number][1], self.nodes[number][1][::-1]):
            (above, x), (soft, inner) = self.kind(first), self.kind(second)
            if not isinstance(above, ReLU) or not isinstance(soft, Softplus):
                continue
            size, factor, rest = self.affine(inner[0])
            layer, taken = self.kind(size)
            if isinstance(layer, Abs) and taken == x and close(factor, -1) and not rest:
                self._replace(number, Softplus(), x[0], 1.0, 1.0)
                return True
        return False

    def _ratio(self, a: float, b: float) -> Found | None:
        """Take ``exp(x) * sigmoid(-x)`` for the sigmoid that it is."""
        for power, other in ((a, b), (b, a)):
            (exp, factor, rest), (sigmoid, scale, summand) = self.affine(power), self.affine(other)
            (one, x), (two, y) = self.kind(exp), self.kind(sigmoid)
            if not isinstance(one, Exp) or not isinstance(two, Sigmoid) or rest or summand:
                continue
            (source, inside, shift), (same, negative, less) = self.affine(x[0]), self.affine(y[0])
            if source == same and close(inside, -negative):
                return Sigmoid(), source, inside, factor * scale * math.exp(shift + less), -less
        return None

    # What is chosen by a comparison with 0.

    def _rectified(self, a: float, b: float) -> Found | None:
        """Take x where it is above 0, and 0 elsewhere, for a ReLU."""
        for step, other in ((a, b), (b, a)):
            layer, taken = self.kind(step)
            x, factor, rest = self.affine(other)
            if isinstance(layer, Step) and not layer.threshold and taken == (x,) and not rest:
                return ReLU(), x, 1.0, factor, 0.0
        return None

    def _chosen(self, number: float) -> bool:
        """Take what is x above 0, and part of x or of a power elsewhere, for its layer."""
        for first, second in (self.nodes[number][1], self.nodes[number][1][::-1]):
            above, factor, rest = self.affine(first)
            layer, taken = self.kind(above)
            if isinstance(layer, ReLU) and taken == (second,) and close(factor, -1) and not rest:
                self.nodes[number] = Clip(None, 0), (second,)
                return True
            product, parts = self.kind(first)
            if type(product) is not Multiply or len(parts) != 2:
                continue
            for step, apart in (parts, parts[::-1]):
                layer, taken = self.kind(step)
                difference, both = self.kind(apart)
                if type(difference) is not Subtract or both != (*taken, second):
                    continue
                found = self._below(second, taken[0])
                if isinstance(layer, Step) and not layer.threshold and found is not None:
                    self.nodes[number] = found, taken
                    return True
        return False

    def _below(self, k: float, x: float) -> Layer | None:
        """Return the layer that is x above 0, and a value elsewhere."""
        source, factor, summand = self.affine(k)
        if source == x and not summand and 0 < factor < 1:
            return LeakyReLU(factor)
        layer, taken = self.kind(source)
        usual = SMALLEST_ALPHA <= factor < LARGEST_ALPHA and close(factor, -summand)
        if not isinstance(layer, Exp) or not usual:
            return None
        limit, inner = self.kind(taken[0])
        least = isinstance(limit, Clip) and (limit.low, limit.high) == (None, 0)
        return ELU(factor) if x == (inner[0] if least else taken[0]) else None

    def _clip(self, number: float) -> None:
        """Take two limits, one after the other, for one clip."""
        layer, taken = self.nodes[number]
        first, source = self.kind(taken[0])
        if isinstance(first, (Clip, ReLU)) and isinstance(layer, (Clip, ReLU)):
            (low, high), (least, most) = _ends(first), _ends(layer)
            # Each is one limit, so that their order matters only if they cross.
            if (low is None) != (least is None) and (high is None) != (most is None):
                low, high = (least if low is None else low), (most if high is None else high)
                if low is not None and high is not None and low < high:
                    self.nodes[number] = Clip(low, high), source

    # Activations: a product of x and a function of x.

    def _activation(self, a: float, b: float) -> Found | None:
        if self.shapes[a] != self.shapes[b]:
            return None
        for x, gate in ((a, b), (b, a)):
            source, factor, rest = self.affine(x)
            inner, outer, summand = self.affine(gate)
            if rest or not inner:
                continue
            found = self._gated(source, inner, outer, summand)
            if found is not None:
                layer, inside, scale = found
                return layer, source, inside, factor * scale, 0.0
        return None

    def _gated(
        self, x: float, inner: float, outer: float, summand: float
    ) -> tuple[Layer, float, float] | None:
        """Return (layer, c, f): x * (outer * inner + summand) is ``f * layer(c * x)``."""
        layer, taken = self.kind(inner)
        source, factor, shift = self.affine(taken[0])
        same = source == x
        if isinstance(layer, Sigmoid) and same and not shift and not summand and factor > 0:
            return SiLU(), factor, outer / factor
        if isinstance(layer, HardSigmoid) and source == x and not summand and not shift:
            usual = close(layer.slope * factor, 1 / 6) and close(layer.offset, 0.5)
            return (HardSwish(), 1.0, outer) if usual else None
        if isinstance(layer, Clip) and same and not summand and factor == 1 and close(shift, 3):
            return (HardSwish(), 1.0, outer * 6) if (layer.low, layer.high) == (0, 6) else None
        if isinstance(layer, Erf) and same and not shift and close(summand, outer) and factor > 0:
            c = factor * math.sqrt(2)
            c = 1.0 if close(c, 1) else c
            return GELU(), c, 2 * outer / c
        if isinstance(layer, Tanh):
            below, within = self.kind(source)
            if (
                isinstance(below, Softplus)
                and within == (x,)
                and factor == 1
                and not (shift or summand)
            ):
                return Mish(), 1.0, outer
            if close(summand, outer) and not shift and self._is_cubic(source, factor, x):
                return GELU("tanh"), 1.0, 2 * outer
        return None

    def _is_cubic(self, k: float, factor: float, x: float) -> bool:
        """Return whether factor * value k is sqrt(2 / pi) * (x + 0.044715 x^3)."""
        found = self._polynomial(k, x)
        root = math.sqrt(2 / math.pi)
        usual = (0.0, root, 0.0, 0.044715 * root)
        return found is not None and all(
            close(factor * a, b) for a, b in zip(found, usual, strict=True)
        )

    def _polynomial(self, k: float, x: float, depth: int = 6) -> Cubic | None:
        """Return the coefficients of x^0 to x^3 if a value is such a polynomial."""
        if k == x:
            return 0.0, 1.0, 0.0, 0.0
        inner, factor, summand = self.affine(k)
        if inner != k:
            found = self._polynomial(inner, x, depth)
            if found is None:
                return None
            first, *more = (factor * a for a in found)
            return first + summand, more[0], more[1], more[2]
        layer, taken = self.kind(k)
        if not depth or not (type(layer) in (Add, Multiply) or isinstance(layer, Pow)):
            return None
        parts = [self._polynomial(one, x, depth - 1) for one in taken]
        if isinstance(layer, Pow):
            parts = parts * int(layer.exponent) if layer.exponent in (2, 3) else [None]
        total = None
        for part in parts:
            if part is None:
                return None
            if total is None:
                total = part
            elif type(layer) is Add:
                total = tuple(a + b for a, b in zip(total, part, strict=True))
            else:
                product = np.convolve(total, part)
                if product[4:].any():
                    return None
                total = tuple(float(a) for a in product[:4])
        return total


def _scaled(factor: float, summand: float) -> list[Layer]:
    if close(factor, 1) and not summand:
        return []
    return [Scale(np.array([factor]), np.array([summand]))]


def _ends(layer: Clip | ReLU) -> tuple[float | None, float | None]:
    return (0.0, None) if isinstance(layer, ReLU) else (layer.low, layer.high)
