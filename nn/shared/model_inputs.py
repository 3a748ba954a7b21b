"""Rows of input as a model on shares takes them: how they are shared, scaled and checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpc import Session, SharedArray
from mpc.core.errors import ArgumentError, DtypeError, RangeError, SessionError, ShapeError
from mpc.protocols import linear
from nn.core.checks import check_names, columns_of, elements, in_order
from nn.fixed_point.inputs import Floats, InputScale, ScaledRows, check_inside
from nn.layers import Layer
from nn.layers.graph import flat_rows
from nn.shared.columns import SharedColumns, column_numbers, join
from ring.real_arrays import real_array

__all__ = ["ModelInputs", "Rows"]

Rows = SharedArray | ScaledRows | dict[str, SharedArray]


class ModelInputs:
    """The inputs of a model on shares: number of features, range and scale, all of them public.

    Attributes
    ----------
    session : Session
    n_features_in_ : int
        Features of a row.
    low, high : float64 array of shape () or (features,)
        Range of the inputs.
    inputs : InputScale or None
        The scale in which rows are shared; None if they are shared as they are.
    feature_names_in_ : ndarray of str, or None
        Names of the features, if the plain model has them.
    inputs_ : dict of str to int, or None
        Of a model with several inputs: their names, and how many features each has, in order.
    layers : sequence of Layer
    """

    session: Session
    n_features_in_: int
    low: Floats
    high: Floats
    inputs: InputScale | None
    feature_names_in_: NDArray[Any] | None = None
    inputs_: dict[str, int] | None = None
    layers: Sequence[Layer]

    def share_rows(
        self, X: Any, owner: str, *, rows: int | None = None, columns: Sequence[Any] | None = None
    ) -> Any:
        """Share rows of input, after checking them against the range of the model.

        Rows of several owners are joined by ``np.concatenate``, columns by :meth:`join_columns`.

        Parameters
        ----------
        X : array_like of shape (rows, features), or dict of str to array_like
            Images, or other rows with several axes, where the model begins with a Reshape to these.
            Of a model with several inputs, a dict has those of them that `owner` shares, by name.
            None in processes where `owner` does not live.
        owner : str
            The data owner, a computing party.
        rows : int, optional
            Number of rows; needed where `X` is None.
        columns : sequence of int or str, optional
            Where `owner` has some of the features alone: their numbers, or their names if the model has
            names. `X` has these columns, in this order. All parties give the same.

        Returns
        -------
        SharedArray or ScaledRows, dict of str to SharedArray for a dict, SharedColumns with `columns`
            ScaledRows for a model with a range for each feature: the owner shifts every feature and
            divides it by a power of two, so that it lies in [-1, 1]. Both numbers are public.

        Raises
        ------
        RangeError
            If a value lies outside [low, high]; the message names the value and its index.
        ShapeError
            If the rows do not have the model's features.
        ArgumentError
            If the rows are a table whose columns have other names, or another order; or `columns`
            are not features of the model, each once.
        PartyError
            If `owner` is no party of the session.
        """
        if isinstance(X, dict):
            if columns is not None:
                raise ArgumentError("columns are for rows of one input, not for a dict of several")
            return {n: self._share_input(n, part, owner, rows) for n, part in X.items()}
        if columns is None:
            X = flat_rows(X, self.layers)
        chosen: Any = slice(None)
        features, names = self.n_features_in_, self.feature_names_in_
        if columns is not None:
            chosen = column_numbers(columns, names, features)
            features, names = len(chosen), None if names is None else names[list(chosen)]
            chosen = list(chosen)
        shape = None if rows is None else (rows, features)
        if X is not None:
            check_names(X, names)
            values = real_array(X, "X")
            if values.dtype.kind != "f":
                values = values.astype(np.float64)
            self._check_shape(values.shape, features)
            check_inside(
                values, *(end[chosen] if end.ndim else end for end in (self.low, self.high))
            )
            X = values if self.inputs is None else self.inputs.of_columns(chosen).apply(values)
        shared = self.session.share(X, owner, shape=shape, bound=self.row_bound(), name="X")
        if columns is not None:
            return SharedColumns(shared, tuple(chosen), self.inputs)
        return shared if self.inputs is None else ScaledRows(shared, self.inputs)

    def join_columns(self, parts: Sequence[SharedColumns]) -> SharedArray | ScaledRows:
        """Join the features of several owners to whole rows; nothing is sent.

        Row k of each part belongs to the same row.

        Parameters
        ----------
        parts : sequence of SharedColumns
            From :meth:`share_rows` with `columns`; together they have each feature once.

        Returns
        -------
        SharedArray or ScaledRows
            As :meth:`share_rows` returns whole rows.

        Raises
        ------
        ArgumentError
            If a feature is missing or there twice, or there are no parts.
        DtypeError
            If a part was not made by ``share_rows(..., columns=...)``.
        SessionError
            If a part was shared for a model with another range.
        ShapeError
            If the parts have different numbers of rows.

        Examples
        --------
        >>> import numpy as np
        >>> import mpc, nn
        >>> model = nn.MLP.from_parameters([np.eye(2), np.zeros(2)])
        >>> with mpc.Session(["alice", "bob"]) as session:
        ...     secret_model = model.share(session, owner="alice", low=0, high=1)
        ...     first = secret_model.share_rows([[0.25], [1.0]], owner="alice", columns=[0])
        ...     second = secret_model.share_rows([[0.5], [0.75]], owner="bob", columns=[1])
        ...     rows = secret_model.join_columns([first, second])
        ...     secret_model.predict(rows).tolist()
        [1, 0]
        """
        rows = join(elements("parts", parts), self.feature_names_in_, self.n_features_in_)
        self.check_rows(rows)
        return rows

    def _share_input(
        self, name: str, X: ArrayLike | None, owner: str, rows: int | None
    ) -> SharedArray:
        """Share the rows of one input, by its name."""
        columns = columns_of(self.inputs_, name)
        size = columns.stop - columns.start
        if X is not None:
            values = real_array(flat_rows(X, self.layers, columns), f"X[{name!r}]")
            if values.ndim != 2 or values.shape[1] != size:
                raise ShapeError(
                    f"X[{name!r}] must have the shape (rows, {size}), got {values.shape}"
                )
            low, high = (end[columns] if end.ndim else end for end in (self.low, self.high))
            check_inside(values, low, high)
            X = values
        shape = None if rows is None else (rows, size)
        return self.session.share(
            X, owner, shape=shape, bound=self.row_bound(), name=f"X[{name!r}]"
        )

    def rows_from_shares(self, shares: NDArray[np.uint64]) -> SharedArray | ScaledRows:
        """Return rows whose shares a client has sent, as :meth:`share_rows` returns a party's rows.

        The client has checked and scaled them already.

        Parameters
        ----------
        shares : uint64 array of shape (p, rows, features)
            Shares of the p parties that live here, with the format's fractional bits.

        Raises
        ------
        ShapeError
            If the rows do not have the model's features.
        """
        self._check_shape(shares.shape[1:])
        form = self.session.format
        bound = math.ceil(self.row_bound() * 2**form.frac_bits)
        rows = SharedArray(self.session, shares, form.frac_bits, min(form.bound, bound))
        return rows if self.inputs is None else ScaledRows(rows, self.inputs)

    def row_bound(self) -> float:
        """Return the largest magnitude of a value in shared rows, at least one fixed-point unit."""
        ends = [self.low, self.high]
        if self.inputs is not None:
            ends = [self.inputs.apply(end) for end in ends]
        return float(np.max(np.abs(ends), initial=2.0**-self.session.format.frac_bits))

    @cached_property
    def encoded_range(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The ends of the range of shared rows, as encoded values of shape () or (features,).

        Rows in [low, high] are between them after scaling and encoding, which keep order.
        """
        form = self.session.format
        ends = (self.low, self.high)
        scaled = [end if self.inputs is None else self.inputs.apply(end) for end in ends]
        low, high = (
            np.rint(np.clip(np.ldexp(end, form.frac_bits), -form.bound, form.bound)).astype(
                np.int64
            )
            for end in scaled
        )
        return low, high

    def _check_shape(self, shape: tuple[int, ...], features: int | None = None) -> None:
        wanted = self.n_features_in_ if features is None else features
        if len(shape) != 2 or shape[1] != wanted:
            raise ShapeError(f"X must have the shape (rows, {wanted}), got {shape}")

    def check_rows(self, X: Rows) -> SharedArray:
        """Return the shared array of rows, after checking session, scale, shape and bound."""
        if isinstance(X, dict):
            X = linear.concatenate(
                [self.session.check_own(x, "X") for x in in_order(X, self.inputs_)], 1
            )
        scale = X.inputs if isinstance(X, ScaledRows) else None
        array = self.session.check_own(X.scaled if isinstance(X, ScaledRows) else X, "X")
        if self.inputs is not None and scale is None:
            raise DtypeError(
                "X must be shared by the model's share_rows, which scales each feature by its range"
            )
        if scale != self.inputs:
            raise SessionError("X was shared for a model with another range: use its share_rows")
        self._check_shape(array.shape)
        self._check_bound(array)
        return array

    def _check_bound(self, array: SharedArray) -> None:
        """Raise RangeError if the public bound of rows is beyond the range of the model."""
        form = self.session.format
        if array.bound << form.frac_bits > self._most() << array.frac_bits:
            limit = self.row_bound()
            raise RangeError(
                f"X must lie in [{self.low.min():g}, {self.high.max():g}], the range this model was"
                f" shared for, but its public bound is {array.bound / 2**array.frac_bits:g}; share"
                f" it by the model's share_rows, or by session.share(..., bound={limit:g})"
            )

    def _most(self) -> int:
        """Return the largest magnitude of an encoded value in rows, at the format's unit."""
        return math.ceil(self.row_bound() * 2**self.session.format.frac_bits)

    def largest_row(self, frac_bits: int) -> int:
        """Return the largest magnitude of an encoded value in rows with `frac_bits`."""
        form = self.session.format
        # Rows of whole numbers have a coarser unit.
        return (
            self._most() << max(0, frac_bits - form.frac_bits) >> max(0, form.frac_bits - frac_bits)
        )

    def twin_rows(self, planned: Session, X: Rows) -> Rows:
        """Return rows in a plan's session."""
        if isinstance(X, dict):
            return {name: planned.twin(x) for name, x in X.items()}
        if isinstance(X, ScaledRows):
            return ScaledRows(planned.twin(X.scaled), X.inputs)
        return planned.twin(X)
