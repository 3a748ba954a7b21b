"""Vectors of eight 64-bit lanes inside Numba's intrinsics.

LLVM cuts such vectors to the width that the processor has, so they are legal on every target.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

__all__ = ["DOUBLE", "LANES", "WORD", "Doubles", "Vectors"]

LANES = 8
WORD = ir.IntType(64)
DOUBLE = ir.DoubleType()
_NARROW = ir.IntType(32)


class Vectors:
    """Loads, stores and copies of a scalar, for lanes of one type.

    Parameters
    ----------
    builder : llvmlite.ir.IRBuilder
        Where the instructions go.
    element : LLVM type
        ``WORD`` or ``DOUBLE``.
    """

    def __init__(self, builder: Any, element: Any) -> None:
        self.builder = builder
        self.type = ir.VectorType(element, LANES)

    def place(self, pointer: Any, index: Any) -> Any:
        """Return the address of the vector that starts at element `index`."""
        return self.builder.bitcast(self.builder.gep(pointer, [index]), self.type.as_pointer())

    def load(self, pointer: Any, index: Any) -> Any:
        return self.builder.load(self.place(pointer, index), align=8)

    def store(self, value: Any, pointer: Any, index: Any) -> None:
        self.builder.store(value, self.place(pointer, index), align=8)

    def broadcast(self, scalar: Any) -> Any:
        """Return a vector with `scalar` in every lane."""
        undefined = ir.Constant(self.type, ir.Undefined)
        lane = self.builder.insert_element(undefined, scalar, ir.Constant(_NARROW, 0))
        first = ir.Constant(ir.VectorType(_NARROW, LANES), None)
        return self.builder.shuffle_vector(lane, undefined, first)

    def transpose(self, rows: list[Any]) -> list[Any]:
        """Return lane i of vector j as lane j of vector i, for eight vectors."""
        rows = list(rows)
        for step in (1, 2, 4):
            for i in range(LANES):
                if i & step:
                    continue
                low = [k if not k & step else LANES + k - step for k in range(LANES)]
                high = [k + step if not k & step else LANES + k for k in range(LANES)]
                a, b = rows[i], rows[i + step]
                rows[i], rows[i + step] = (
                    self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_NARROW, LANES), x))
                    for x in (low, high)
                )
        return rows


class Doubles(Vectors):
    """Residues modulo p in doubles; see :mod:`ring.residues` for what is exact, and why."""

    def __init__(self, builder: Any, p: Any, inverse: Any) -> None:
        super().__init__(builder, DOUBLE)
        self.p, self.inverse = self.broadcast(p), self.broadcast(inverse)

    def _call(self, name: str, *operands: Any) -> Any:
        module, name = self.builder.module, f"llvm.{name}.v{LANES}f64"
        kind = ir.FunctionType(self.type, [self.type] * len(operands))
        function = module.globals.get(name) or ir.Function(module, kind, name)
        return self.builder.call(function, operands)

    def add(self, a: Any, b: Any) -> Any:
        return self.builder.fadd(a, b)

    def subtract(self, a: Any, b: Any) -> Any:
        return self.builder.fsub(a, b)

    def fused(self, a: Any, b: Any, c: Any) -> Any:
        """Return a b + c, rounded once."""
        return self._call("fma", a, b, c)

    def ratio(self, a: Any) -> Any:
        """Return a / p."""
        return self.builder.fmul(a, self.inverse)

    def _less(self, a: Any, times: Any) -> Any:
        return self._call("fma", self.builder.fneg(times), self.p, a)

    def multiply(self, a: Any, b: Any, ratio: Any) -> Any:
        """Return a b modulo p, with `ratio` = b / p."""
        high = self.builder.fmul(a, b)
        low = self._call("fma", a, b, self.builder.fneg(high))
        times = self._call("nearbyint", self.builder.fmul(a, ratio))
        return self.builder.fadd(self._less(high, times), low)

    def reduce(self, a: Any) -> Any:
        return self._less(a, self._call("nearbyint", self.ratio(a)))
