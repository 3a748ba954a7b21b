"""Methods of shared arrays: functions by pieces, roundings, and signs."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from mpc.core.errors import ArgumentError, DtypeError, SessionError, ShapeError
from mpc.core.secret_value import SecretValue
from mpc.protocols import (
    linear,
    normalised,
    quotient,
    rounding,
    scaling,
    sigmoid,
    smooth,
    trigonometry,
)
from ring.real_arrays import real_array

__all__ = ["SmoothMethods"]

# Far beyond what has few enough pieces; larger ones overflow before that is found.
_LARGEST_EXPONENT = 1024
# 10^19 is beyond twice every encoded value.
_ALL_PLACES = 19


class SmoothMethods(SecretValue):
    """The part of SharedArray with functions of single elements.

    Each states where it is right, how far a result may be off in the default format, where a unit is
    2^-16, and what it costs; results that are more precise than the format are truncated when an operation
    needs that. Outside of its domain a function is refused or warned of: see `ranges` of
    :class:`mpc.Session`.
    """

    __slots__ = ()
    session: Any

    def exp(self) -> Self:
        """Return e^x, for x below 10.39, the logarithm of the format's limit.

        Error at most 2^-19 of the result and 3.5 units; 0 below -11.8. 5 rounds, 101 bytes an element. Of
        x within a bound of at most 170, see :meth:`SharedArray.with_bound`, 1 round and 8 bytes.

        Examples
        --------
        >>> import mpc, numpy as np
        >>> with mpc.Session() as s:
        ...     np.exp(s.share([0.0, 1.0], owner="alice")).reveal().round(3)
        array([1.   , 2.718])
        """
        self.session.check_open()
        return normalised.evaluate(self, normalised.EXP)

    def log(self) -> Self:
        """Return the natural logarithm, for x > 0.

        Error at most 2^-19 of the result and 2 units. 6 rounds, 157 bytes an element.

        Examples
        --------
        >>> import mpc, numpy as np
        >>> with mpc.Session() as s:
        ...     np.log(s.share([2.0, 100.0], owner="alice")).reveal().round(3)
        array([0.693, 4.605])
        """
        self.session.check_open()
        return normalised.evaluate(self, normalised.LOG)

    def sqrt(self) -> Self:
        """Return the square root, for x >= 0.

        Error at most 2^-19 of the result and 2.1 units. 6 rounds, 129 bytes an element. A product is
        rounded to the format before, by up to a unit, which the root of a small one magnifies: near 0 to as
        much as 2^-8.

        Examples
        --------
        >>> import mpc, numpy as np
        >>> with mpc.Session() as s:
        ...     np.sqrt(s.share([3.0, 2.0], owner="alice")).reveal().round(3)
        array([1.732, 1.414])
        """
        self.session.check_open()
        return normalised.evaluate(self, normalised.power(0.5))

    def reciprocal(self, *, positive: bool = False) -> Self:
        """Return 1 / x, for |x| above 2^-15, the reciprocal of the format's limit.

        Error at most 2^-18.5 of the result and 1.3 units. 6 rounds, 102 bytes an element, 75 for
        positive x.

        Parameters
        ----------
        positive : bool
            Whether all x are positive. Others are outside of the domain then.

        Examples
        --------
        >>> import mpc
        >>> with mpc.Session() as s:
        ...     s.share([0.25, -3.0], owner="alice").reciprocal().reveal().round(3)
        array([ 4.   , -0.333])
        """
        self.session.check_open()
        return quotient.inverse(self, positive)

    def power(self, exponent: float) -> Self:
        """Return x^p for a public p that is no whole number above 0, and x > 0.

        x may be 0 for positive p, and negative for p = -1. Whole numbers are computed by products, see
        ``x**3``. Error at most 2^-18 of the result and 2.2 units for p from -2 to 2. 6 rounds.

        Parameters
        ----------
        exponent : float

        Raises
        ------
        DtypeError, ShapeError
            If `exponent` is no number.
        ArgumentError
            If `exponent` is not finite, is 0, or is so large that its pieces are too many.

        Examples
        --------
        >>> import mpc
        >>> with mpc.Session() as s:
        ...     (s.share([4.0, 0.25], owner="alice") ** -0.5).reveal().round(3)
        array([0.5, 2. ])
        """
        self.session.check_open()
        number = real_array(exponent, "exponent")
        if number.ndim:
            raise ShapeError(f"exponent must be one number, got shape {number.shape}")
        value = float(number)
        if not np.isfinite(value) or value == 0:
            raise ArgumentError(f"exponent must be finite and not 0, got {exponent!r}")
        if abs(value) > _LARGEST_EXPONENT:
            raise ArgumentError(
                f"exponent must be at most {_LARGEST_EXPONENT} in magnitude, got {exponent!r}"
            )
        if value == -1:
            return quotient.inverse(self)
        return normalised.evaluate(self, normalised.power(value))

    def divided_by(self, divisor: Self) -> Self:
        """Return x / y for a secret y, not 0, where x / y is below half of the format's limit.

        In formats with at most 38 bits in all; a bound of y near the ring's limit leaves less of the
        results. Error at most 2^-18.5 of the result and 1.1 units. 6 rounds, 112 bytes for each element
        of y.
        Bounds of x and y that are smaller, see :meth:`SharedArray.with_bound`, take less.

        Raises
        ------
        DtypeError
            If `divisor` is public: ``x / 2`` takes that.
        SessionError
            If `divisor` is of another session.
        """
        self.session.check_open()
        if not isinstance(divisor, SecretValue):
            raise DtypeError(f"divisor must be a SharedArray, got {divisor!r}; x / y takes numbers")
        if divisor.session is not self.session:
            raise SessionError("operands belong to different sessions")
        return quotient.divide(self, divisor)

    def divided_into(self, dividend: object) -> Self:
        """Return y / x for a public y."""
        self.session.check_open()
        values = real_array(dividend, "a public operand")
        if values.ndim == 0 and values == 1:
            return self.reciprocal()
        top = linear.add_public(linear.zeros_like(self), values.astype(np.float64))
        return quotient.divide(top, self)

    def sin(self) -> Self:
        """Return the sine, for |x| below 2^19. Error at most 6.4e-5. 7 rounds, 93 bytes an element.

        Examples
        --------
        >>> import mpc, numpy as np
        >>> with mpc.Session() as s:
        ...     np.sin(s.share([0.5, 1.0, 1000.0], owner="alice")).reveal().round(3)
        array([0.479, 0.841, 0.827])
        """
        self.session.check_open()
        return trigonometry.evaluate(self, "sin")

    def cos(self) -> Self:
        """Return the cosine, as exact and at the cost of :meth:`sin`."""
        self.session.check_open()
        return trigonometry.evaluate(self, "cos")

    def erf(self) -> Self:
        """Return the error function, for every x. Error at most 6.1e-5. 6 rounds.

        Examples
        --------
        >>> import mpc
        >>> with mpc.Session() as s:
        ...     s.share([0.25, 1.0], owner="alice").erf().reveal().round(3)
        array([0.276, 0.843])
        """
        return self.activation("erf")

    def sigmoid(self) -> Self:
        """Return 1 / (1 + exp(-x)), for every x. Error at most 7e-5. 6 rounds, 87 bytes an element."""
        self.session.check_open()
        return sigmoid.sigmoid(self)

    def tanh(self) -> Self:
        """Return tanh(x), for every x. Error at most 7.8e-5. 6 rounds, 87 bytes an element."""
        self.session.check_open()
        return sigmoid.tanh(self)

    def activation(self, name: str, alpha: float = 1.0) -> Self:
        """Return a smooth activation, for every x that the format holds.

        Error at most 8.3e-5, for selu 1.22e-4, more for alpha other than 1; 7 rounds, 9 for selu; 94 to
        150 bytes an element. See :mod:`mpc.protocols.smooth`.

        Parameters
        ----------
        name : {"celu", "elu", "erf", "gelu", "gelu_tanh", "mish", "selu", "silu", "softplus"}
        alpha : float, default=1.0
            Of celu and elu; from 1/16 to 16. 1 for all others.

        Raises
        ------
        ArgumentError
            If there is no such function, or `alpha` is not as stated.

        Examples
        --------
        >>> import mpc
        >>> with mpc.Session() as s:
        ...     s.share([-1.0, 1.0], owner="alice").activation("silu").reveal().round(3)
        array([-0.269,  0.731])
        """
        self.session.check_open()
        return smooth.evaluate(self, name, alpha)

    def sign(self) -> Self:
        """Return -1, 0 or 1, exactly, as whole numbers. 3 rounds."""
        self.session.check_open()
        return rounding.sign(self)

    def floor(self) -> Self:
        """Return the largest whole number that is not above x, exactly. 4 rounds.

        Examples
        --------
        >>> import mpc, numpy as np
        >>> with mpc.Session() as s:
        ...     np.floor(s.share([1.75, -1.75, 2.0], owner="alice")).reveal()
        array([ 1, -2,  2])
        """
        self.session.check_open()
        return rounding.floor(self)

    def ceil(self) -> Self:
        """Return the smallest whole number that is not below x, exactly. 4 rounds."""
        self.session.check_open()
        return rounding.ceil(self)

    def rint(self) -> Self:
        """Return the nearest whole number, exactly; of two, the even one, as NumPy does. 4 rounds.

        Examples
        --------
        >>> import mpc, numpy as np
        >>> with mpc.Session() as s:
        ...     np.rint(s.share([0.5, 1.5, -2.25], owner="alice")).reveal()
        array([ 0,  2, -2])
        """
        self.session.check_open()
        return rounding.nearest(self)

    def round(self, decimals: int = 0) -> Self:
        """Return the nearest number with so many decimal places.

        Whole numbers for decimals=0, exactly: :meth:`rint`. Else the nearest multiple of 10^-d, within 1.1
        units; of a number so near to the middle of two that its product with 10^d rounds to it, either.
        5 rounds.

        Parameters
        ----------
        decimals : int
            x 10^d has to be in range; negative ones round to tens, hundreds and so on. Places finer
            than x has, 10^-d of 2^-f or less, keep x as it is: it is the nearest that can be held.
        """
        self.session.check_open()
        if isinstance(decimals, bool) or not isinstance(decimals, (int, np.integer)):
            raise DtypeError(f"decimals must be a whole number, got {decimals!r}")
        decimals = int(decimals)
        if not decimals:
            return self.rint()
        if decimals >= _ALL_PLACES or 10**decimals >= 1 << self.frac_bits:
            return self
        if decimals <= -_ALL_PLACES:
            return linear.zeros_like(self)
        scale = 10 ** abs(decimals)
        if decimals > 0:
            return scaling.divide(
                rounding.nearest(linear.multiply_integers(self, np.array(scale))), scale
            )
        return linear.multiply_integers(
            rounding.nearest(scaling.divide(self, scale)), np.array(scale)
        )
