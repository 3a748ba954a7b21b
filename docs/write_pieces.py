"""Write mpc/protocols/smooth_tables.py: cubic pieces of smooth functions; print their error bounds.

Each function is s y + h(y), with s = 1 for y > 0 where it grows like y, and a bounded h that is constant
outside of a range. From the left, each piece is as long as a cubic within the tolerance allows, up to
a multiple of 1 / 32; the cubics are minimax fits by linear programming. The error bounds are measured on a
grid a hundred times as fine as the thresholds, with the rounded coefficients. Run it from the repository's
folder.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.special import erf, expit

from mpc.protocols.piecewise import ONE, rounding_of

Reals = NDArray[np.float64]

TABLES = Path(__file__).resolve().parent.parent / "mpc" / "protocols" / "smooth_tables.py"
STEPS = 32  # thresholds are multiples of 1 / 32
UNIT = float(ONE)
TOLERANCE = 1e-5
LONGEST = 2 * STEPS  # of a piece, so that rounding a_3 d^3 costs no more than rounding a_1 d
POINTS = 201
FURTHEST = 20

HEADER = '''"""Cubic pieces of smooth functions. Written by ``docs/write_pieces.py``; do not edit.

For each function: thresholds in units of 1 / 32; one row (m, a_0, a_1, a_2, a_3, s) a piece, in units of
2^-32 but for the slope s; the largest distance of the pieces to the function; and the largest slope of
the function. See :mod:`mpc.protocols.piecewise`.

Source: minimax fits by linear programming.
"""

from __future__ import annotations

__all__ = ["TABLES", "Table"]

Table = tuple[tuple[int, ...], tuple[tuple[int, ...], ...], float, float]

TABLES: dict[str, Table] = {
'''


@dataclass(frozen=True)
class Function:
    """A function, its limit on the left, whether it grows like y on the right, and where it has a kink."""

    exact: Callable[[Reals], Reals]
    left: float = 0.0
    right: float = 0.0
    slope: bool = True
    kinks: tuple[int, ...] = ()


def gelu_tanh(y: Reals) -> Reals:
    return y * expit(2 * np.sqrt(2 / np.pi) * (y + 0.044715 * y**3))


def mish(y: Reals) -> Reals:
    return y * np.tanh(np.logaddexp(0, y))


FUNCTIONS = {
    "elu": Function(lambda y: np.where(y > 0, y, np.expm1(np.minimum(y, 0))), -1.0, kinks=(0,)),
    "erf": Function(erf, -1.0, 1.0, False),
    "gelu": Function(lambda y: y / 2 * (1 + erf(y / np.sqrt(2)))),
    "gelu_tanh": Function(gelu_tanh),
    "mish": Function(mish),
    "silu": Function(lambda y: y * expit(y)),
    "softplus": Function(lambda y: np.logaddexp(0, y)),
}


def rest(function: Function, y: Reals, slope: bool) -> Reals:
    """Return h(y)."""
    return function.exact(y) - (y if slope else 0)


def fit(function: Function, low: int, high: int) -> tuple[float, Reals]:
    """Return the error of the best cubic between two thresholds, and its coefficients."""
    middle, half = (low + high) / (2 * STEPS), (high - low) / (2 * STEPS)
    d = np.cos(np.pi * (np.arange(POINTS) + 0.5) / POINTS)
    values = rest(function, middle + half * d, function.slope and low + high > 0)
    powers = np.vander(d, 4, increasing=True)
    ones = np.ones((POINTS, 1))
    found = linprog(
        [0, 0, 0, 0, 1],
        A_ub=np.block([[powers, -ones], [-powers, -ones]]),
        b_ub=np.concatenate([values, -values]),
        bounds=(None, None),
        method="highs",
    )
    return float(found.x[4]), found.x[:4] / half ** np.arange(4)


def outermost(function: Function) -> tuple[int, int]:
    """Return the thresholds beyond which h is constant within the tolerance."""
    y = np.arange(-FURTHEST * STEPS, FURTHEST * STEPS + 1)
    left = np.abs(function.exact(y / STEPS) - function.left) <= TOLERANCE
    right = np.abs(rest(function, y / STEPS, function.slope) - function.right) <= TOLERANCE
    return int(y[np.argmin(left)]) - 1, int(y[len(y) - np.argmin(right[::-1])])


def pieces(function: Function) -> tuple[list[int], list[list[int]]]:
    """Return thresholds and rows."""
    low, last = outermost(function)
    if function.kinks == (0,):
        last = 0  # to the right of it, the function is y
    thresholds = [low]
    rows = [[0, round(function.left * UNIT), 0, 0, 0, 0]]
    while low < last:
        high, step = low + 1, 1
        while step:
            fits = high + step <= min(last, low + LONGEST)
            if fits and fit(function, low, high + step)[0] <= TOLERANCE:
                high, step = high + step, 2 * step
            else:
                step //= 2
        coefficients = [round(float(a) * UNIT) for a in fit(function, low, high)[1]]
        middle = round((low + high) * UNIT) // (2 * STEPS)
        rows.append([middle, *coefficients, int(function.slope and low + high > 0)])
        thresholds.append(high)
        low = high
    rows.append([0, round(function.right * UNIT), 0, 0, 0, int(function.slope)])
    return thresholds, rows


def measure(
    function: Function, thresholds: list[int], rows: list[list[int]]
) -> tuple[float, float]:
    """Return the distance to the function, and its largest slope."""
    y = np.linspace(-FURTHEST, FURTHEST, 2 * FURTHEST * STEPS * 100 + 1)
    places = np.searchsorted(np.array(thresholds) / STEPS, y, side="right")
    m, a0, a1, a2, a3, s = np.array(rows, np.float64).T[:, places]
    d = np.where((places == 0) | (places == len(thresholds)), 0, y - m / UNIT)
    found = a0 / UNIT + d * (a1 / UNIT + d * (a2 / UNIT + d * a3 / UNIT)) + s * y
    distance = float(np.abs(found - function.exact(y)).max())
    return distance, float(np.abs(np.gradient(function.exact(y), y)).max())


def above(value: float, digits: int) -> float:
    """Return value rounded up to so many significant digits."""
    unit = 10.0 ** (int(np.floor(np.log10(value))) - digits + 1)
    return float(f"{np.ceil(value / unit) * unit:.{digits}g}")


def text() -> str:
    """Return the file's text."""
    lines = [HEADER]
    for name, function in FUNCTIONS.items():
        thresholds, rows = pieces(function)
        distance, steepest = measure(function, thresholds, rows)
        distance, steepest = above(distance * 1.001, 2), above(steepest, 3)
        ends = tuple(t * (ONE // STEPS) for t in thresholds)
        rounding = rounding_of(ends, tuple(map(tuple, rows)), steepest)
        print(f"{name}: {len(ends)} thresholds, within {distance:g}, and {rounding:.1f} * 2^-f")
        lines.append(f'    "{name}": (\n        {tuple(thresholds)},\n        (\n')
        lines += [f"            {tuple(row)},\n" for row in rows]
        lines.append(f"        ),\n        {distance!r},\n        {steepest!r},\n    ),\n")
    return "".join([*lines, "}\n"])


def main() -> int:
    """Write it."""
    TABLES.write_text(text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
