"""Activations of networks, and the error function, by pieces.

The steps: :mod:`mpc.protocols.piecewise`. 7 rounds, 6 for erf, and so many thresholds K:
silu(y) = y / (1 + exp(-y)): 24. gelu(y) = y (1 + erf(y / sqrt 2)) / 2: 17, and by tanh: 16.
mish(y) = y tanh(softplus(y)): 21. softplus(y) = log(1 + exp(y)): 18. erf: 16.
elu(y) = y for y > 0, else alpha (exp(y) - 1): 12. celu(y) = alpha elu(y / alpha): 12. selu: elu times a
public factor, 8 rounds.
Right for every value that an array can hold, where the result fits the format. Whole numbers are brought
to the format, which the range policy settles; not for erf.

Error: the pieces are within 1.1e-5 of each function on the whole line, for elu and celu within 1e-5 alpha;
rounding adds less than 4.8 * 2^-f, by the sum of what each step can lose, and for alpha other than 1
what :func:`mpc.protocols.piecewise.rounding_of` says. At f = 16 less than 8.3e-5 in all, for selu 1.22e-4.
Measured by the
tests over the whole range.

Source: the coefficients are minimax fits, see `docs/write_pieces.py`.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mpc.core.errors import ArgumentError, DtypeError
from mpc.core.secret_value import Secret
from mpc.protocols import piecewise, scaling
from mpc.protocols.piecewise import ONE, Pieces, rounding_of
from mpc.protocols.smooth_tables import TABLES

__all__ = [
    "LARGEST_ALPHA", "NAMES", "SELU", "SMALLEST_ALPHA", "by_pieces", "error_bound", "evaluate", "pieces_of",
]  # fmt: skip

NAMES = ("celu", "elu", "erf", "gelu", "gelu_tanh", "mish", "selu", "silu", "softplus")
_WITH_ALPHA = ("celu", "elu")
# Thresholds in the tables are in units of 1 / 32.
_STEP = ONE // 32
# The smallest and the largest alpha of elu and celu.
SMALLEST_ALPHA, LARGEST_ALPHA = 1 / 16, 16.0
SELU = (1.6732632423543772, 1.0507009873554805)
"""Alpha, and the factor, of selu (Klambauer, Unterthiner, Mayr, Hochreiter 2017)."""


@lru_cache(maxsize=64)
def pieces_of(name: str, alpha: float = 1.0) -> Pieces:
    """Return the pieces of a function.

    Raises
    ------
    ArgumentError
        If there is no such function, or `alpha` is out of range, or not 1 for a function without it.
    """
    if name not in NAMES:
        raise ArgumentError(f"name must be one of {', '.join(NAMES)}, got {name!r}")
    if alpha != 1 and name not in _WITH_ALPHA:
        raise ArgumentError(f"alpha must be 1 for {name}, which has none, got {alpha}")
    if name == "selu":
        name, alpha = "elu", SELU[0]
    table = "elu" if name == "celu" else name
    if not SMALLEST_ALPHA <= alpha <= LARGEST_ALPHA:
        raise ArgumentError(
            f"alpha must be in [{SMALLEST_ALPHA:g}, {LARGEST_ALPHA:g}], got {alpha:g}"
        )
    steps, rows, fit, steepest = TABLES[table]
    thresholds = tuple(step * _STEP for step in steps)
    if alpha != 1:
        # Fraction takes no float32.
        factor = Fraction(float(alpha))
        across = factor if name == "celu" else Fraction(1)
        thresholds = tuple(round(across * t) for t in thresholds)
        rows = tuple(
            (
                round(across * m),
                *(round(factor / across**k * a) for k, a in enumerate(coefficients)),
                slope,
            )
            for m, *coefficients, slope in rows
        )
        fit *= alpha
        steepest = max(1.0, alpha) if name == "elu" else 1.0
    return Pieces(name, thresholds, rows, fit, rounding_of(thresholds, rows, steepest))


def error_bound(name: str, frac_bits: int, alpha: float = 1.0) -> float:
    """Return how far a result may lie from the function at its exact input."""
    bound = pieces_of(name, alpha).error_bound(frac_bits)
    return SELU[1] * bound + 2.0**-frac_bits if name == "selu" else bound


def by_pieces(name: str, x: NDArray[np.float64], alpha: float = 1.0) -> NDArray[np.float64]:
    """Return what the pieces give for numbers in the clear.

    Examples
    --------
    >>> import numpy as np
    >>> from mpc.protocols.smooth import by_pieces
    >>> by_pieces("silu", np.array([-100.0, 100.0])).tolist()
    [0.0, 100.0]
    """
    found = pieces_of(name, alpha)(x)
    return SELU[1] * found if name == "selu" else found


def evaluate(x: Secret, name: str, alpha: float = 1.0) -> Secret:
    """Return a function of x: with the format's fractional bits, erf with twice as many.

    Parameters
    ----------
    x : SharedArray
    name : str
        One of :data:`NAMES`.
    alpha : float
        Of elu and celu.
    """
    if not isinstance(name, str):
        raise DtypeError(f"name must be one of {', '.join(NAMES)}, got {name!r}")
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float, np.integer, np.floating)):
        raise DtypeError(f"alpha must be a number, got {alpha!r}")
    y = piecewise.evaluate(x, pieces_of(name, alpha))
    if name != "selu":
        return y
    with x.session.protocol("selu"):
        return scaling.multiply(y, SELU[1])
