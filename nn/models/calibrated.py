"""Calibration of plain models: bounds of their values from typical rows."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nn.core.checks import real
from nn.fixed_point.audit import Fitted, fit_inputs, holds_intervals, widened
from nn.fixed_point.calibration import Bounds, calibrate, observed
from nn.fixed_point.inputs import Floats, check_inside
from nn.layers import Layer
from nn.layers.normalisation import folded
from ring import FixedPoint
from ring.errors import ArgumentError, DtypeError, RangeError, ShapeError

__all__ = ["CalibratedModel"]

# The margin of limits from rows that came with the model.
_MARGIN = 8.0


class CalibratedModel:
    """A model in the clear, as far as the bounds of its values on shares are concerned.

    Attributes
    ----------
    layers : list of Layer
    room : int
        By how much the range of each feature may be widened when the model is shared, at most.
    bounds_ : Bounds or None
        What :meth:`calibrate` gives for rows that came with the model; ``share`` takes them where
        interval bounds do not fit. Known to the model's owner, and in an ``outline``.
    """

    layers: Sequence[Layer]
    room: int
    bounds_: Bounds | None = None
    # Of an outline, whose weights say nothing: whether the model needs its bounds.
    outlined: bool | None = None

    @property
    def n_features_in_(self) -> int:
        """Number of features."""
        raise NotImplementedError

    def _matrix(self, X: ArrayLike) -> NDArray[Any]:
        raise NotImplementedError

    def range_for(
        self, low: ArrayLike | None, high: ArrayLike | None, X: NDArray[Any] | None = None
    ) -> tuple[Floats, Floats]:
        """Return the range of inputs."""
        raise NotImplementedError

    def calibrate(
        self,
        X: ArrayLike,
        *,
        margin: float = 8,
        low: ArrayLike | None = None,
        high: ArrayLike | None = None,
    ) -> Bounds:
        """Return bounds for ``share`` from typical rows, for networks whose interval bounds are hopeless.

        Parameters
        ----------
        X : array_like of shape (rows, features)
            Rows like those that the model will get.
        margin : float, default=8
            How many times larger values may be than the largest that `X` leads to; above 1.
            Limits are rounded up to powers of two.
        low, high : float or array_like of shape (features,), optional
            Range of the inputs, as for ``share``. Default: `input_range_`, else that of `X`.

        Returns
        -------
        Bounds
            They become public when the model is shared, see :class:`nn.Bounds`.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ShapeError, RangeError, DtypeError
            If `X` is not (rows, features) with at least one row, is not in the range, holds NaN or
            infinities or leads to some, or is no array of reals.
        ArgumentError
            If `margin` is no number above 1.

        Examples
        --------
        >>> import mpc, nn
        >>> model = nn.MLP.from_parameters([[[1e3]], [0.0], [[1e4, 1.0]], [0.0, 0.0]])
        >>> bounds = model.calibrate([[0.01], [0.1]], low=0, high=1)
        >>> with mpc.Session() as s:
        ...     secret_model = model.share(s, owner="alice", low=0, high=1, bounds=bounds)
        ...     row = secret_model.share_rows([[0.125]], owner="bob")
        ...     secret_model(row).reveal()
        array([[1.25e+06, 1.25e+02]])
        """
        margin = real("margin", margin, above=1, below=math.inf)
        layers = folded(self.layers)
        rows = self._matrix(X)
        if not len(rows):
            raise ShapeError(f"X must have at least one row, got shape {rows.shape}")
        lows, highs = self.range_for(low, high, rows)
        room = self.room if low is None and high is None else 1
        fitted = widened(layers, lows, highs, self.n_features_in_, room)
        check_inside(rows, fitted.low, fitted.high)
        return self._calibrated(layers, observed(layers, rows)[0], margin, lows, highs, room)

    def bounds_of_rows(
        self, rows: NDArray[Any], low: Floats, high: Floats
    ) -> tuple[Bounds | None, NDArray[Any]]:
        """Return the bounds that rows give, None if they give none, and the outputs for the rows."""
        layers: Sequence[Layer] = []
        with contextlib.suppress(ArgumentError):  # it cannot be shared as it is
            layers = folded(self.layers)
        seen, outputs = observed(layers or self.layers, rows)
        # Values that are not finite, as of a network that fixed point cannot hold, have no bounds.
        if not layers or not all(value < math.inf for value in seen):
            return None, outputs
        bounds = None
        with contextlib.suppress(RangeError):  # no number bounds a value, as that of 1 / x
            bounds = self._calibrated(layers, seen, _MARGIN, low, high, self.room)
        return bounds, outputs

    def _calibrated(
        self,
        layers: Sequence[Layer],
        seen: list[float],
        margin: float,
        low: Floats,
        high: Floats,
        room: int,
    ) -> Bounds:
        fitted = widened(layers, low, high, self.n_features_in_, room)
        # A model on shares knows one magnitude for all features.
        most = np.full(self.n_features_in_, np.max(np.abs(fitted.scaled)))
        return calibrate(fitted.layers, seen, margin, -most, most, fitted.room)

    def _fitted(
        self,
        layers: Sequence[Layer],
        low: Floats,
        high: Floats,
        form: FixedPoint,
        bounds: Bounds | None,
        *,
        given: bool,
    ) -> tuple[Fitted, Bounds | None]:
        """Return layers and range as they are to be shared, and the bounds if the format needs them.

        `given` says that the range is one that the caller has given, which is not widened.
        """
        if bounds is not None and not isinstance(bounds, Bounds):
            raise DtypeError(f"bounds must be what calibrate returns, got {type(bounds).__name__}")
        features = self.n_features_in_
        fitted = fit_inputs(
            layers, low, high, form, features=features, room=1 if given else self.room
        )
        if bounds is not None:
            needed = bounds.needed(form)
        else:
            bounds = self.bounds_
            needed = bounds is not None and self.needs_bounds(fitted, form)
            if bounds is not None and given:
                # They are for the model's own range, which every party knows.
                own = widened(layers, *self.range_for(None, None), features, bounds.room)
                needed = needed and bool(np.all(low >= own.low) and np.all(high <= own.high))
        if bounds is None or not needed:
            return fitted, None
        return widened(layers, low, high, features, 1 if given else bounds.room), bounds

    def needs_bounds(self, fitted: Fitted, form: FixedPoint) -> bool:
        """Return whether a format does not hold what interval bounds reach; an outline knows already."""
        if self.outlined is not None:
            return self.outlined
        return not holds_intervals(fitted, form)
