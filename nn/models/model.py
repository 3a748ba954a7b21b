"""Plain models: layers, the range of their inputs, and the way from there onto shares."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpc import Session
from nn.core.checks import check_names, feature_matrix
from nn.fixed_point.audit import Audit, Fitted, audit_layers, find_format, fit_inputs
from nn.fixed_point.inputs import MOST_ROOM, Floats, check_inside, input_range, public_range
from nn.fixed_point.precision import output_scale, rows_between
from nn.layers import Layer
from nn.layers.evaluation import evaluate
from nn.layers.normalisation import folded
from nn.models.model_archives import write_model
from nn.shared.comparison import observe
from nn.shared.model import SharedModel, share_layers
from nn.training import steps as training
from ring import FixedPoint
from ring.errors import ArgumentError, DtypeError, RangeError, ShapeError

__all__ = ["Model"]

# Rows that an audit evaluates on shares.
_AUDIT_ROWS = 256


class Model:
    """A network in the clear, with the range of inputs that it is for.

    Attributes
    ----------
    layers : list of Layer
    n_features_in_ : int
        Number of features.
    input_range_ : pair, or None
        Least and greatest input, as scalars or with one value for each feature; None if not
        known. It becomes public when the model is shared.
    feature_names_in_ : ndarray of str, or None
        Names of the features, if those that it was fitted to had names. Tables with other names,
        or in another order, are refused. They are public.
    """

    layers: list[Layer]
    input_range_: tuple[Any, Any] | None
    feature_names_in_: NDArray[Any] | None = None
    # What errors of the outputs are held against, from rows the owner has; see nn.fixed_point.precision.
    output_scale_: Floats | None = None
    # Whether files can hold models of this very class, which `nn.load` has to make again.
    in_files: ClassVar[bool] = False
    # Whether the greatest output alone counts.
    ranked: ClassVar[bool] = False
    # How far beyond a range for each feature rows may reach, at most; see nn.fixed_point.inputs.
    room: int = MOST_ROOM

    def __init__(
        self, layers: Sequence[Layer], n_features: int, input_range_: tuple[Any, Any] | None = None
    ) -> None:
        if not layers:
            raise ArgumentError("layers must hold at least one layer, got none")
        shape: tuple[int, ...] = (n_features,)
        for layer in layers:
            shape = layer.output_shape(shape)
        self.layers = list(layers)
        self._features, self.n_outputs_ = n_features, math.prod(shape)
        self.input_range_ = None
        if input_range_ is not None:
            self.input_range_ = input_range(*input_range_, n_features)

    @property
    def n_features_in_(self) -> int:
        """Number of features."""
        return self._features

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.layers})"

    @property
    def parameters(self) -> list[NDArray[Any]]:
        """The weights and biases in layer order: the arrays themselves."""
        return training.parameters(self.layers)

    def _matrix(self, X: ArrayLike) -> NDArray[Any]:
        check_names(X, self.feature_names_in_)
        parameters = self.parameters
        dtype = parameters[0].dtype if parameters else None
        return feature_matrix("X", X, self.n_features_in_, dtype)

    def _outputs(self, X: ArrayLike) -> NDArray[Any]:
        return evaluate(self.layers, self._matrix(X))

    def take_rows(self, X: ArrayLike) -> None:
        """Take from typical rows the range of the inputs, and what the outputs' errors may be."""
        rows = self._matrix(X)
        if not len(rows):
            raise ShapeError(f"X must have at least one row, got shape {rows.shape}")
        self.input_range_ = public_range(rows)
        self.output_scale_ = output_scale(evaluate(self.layers, rows), self.ranked)

    def range_for(
        self, low: ArrayLike | None, high: ArrayLike | None, X: NDArray[Any] | None = None
    ) -> tuple[Floats, Floats]:
        """Return the range of inputs: what is given, else the model's own, else that of `X`."""
        ends: tuple[Any, Any] | None = self.input_range_
        if ends is None and X is not None and len(X):
            ends = public_range(X)
        if ends is None and (low is None or high is None):
            raise ArgumentError(
                "low and high must be given, one number or one for each feature: "
                "this model does not know the range of its inputs"
            )
        low = ends[0] if low is None and ends is not None else low
        high = ends[1] if high is None and ends is not None else high
        assert low is not None and high is not None
        return input_range(low, high, self.n_features_in_)

    def share(
        self,
        session: Session,
        owner: str,
        *,
        low: ArrayLike | None = None,
        high: ArrayLike | None = None,
        scores: bool = False,
    ) -> SharedModel:
        """Split the weights into shares.

        Parameters
        ----------
        session : mpc.Session
        owner : str
            The party whose model this is.
        low, high : float or array_like of shape (features,), optional
            Range of the inputs that the model will get; it becomes public. With one value for
            each feature, features may be of very different sizes: their owner shares each as
            ``(x - middle) / 2^power``, both following from the range, and the first layer's
            weights take that into account. Default: `input_range_`; if that has one value for
            each feature, as many times as wide as the format has room for, up to 64.
        scores : bool, default=False
            Whether the shared model may reveal scores and probabilities of a classifier, which
            tell more about the weights than labels do.

        Returns
        -------
        SharedModel

        Raises
        ------
        RangeError
            If a layer could leave the session's fixed-point range on inputs in [low, high], or the
            format is too coarse for the model's outputs. The message names the layer, or the
            output, by how much, and a format that would do. Nothing is shared then.
        NotFittedError
            Before ``fit``.
        ArgumentError
            If no range is given and the model has none.
        PartyError
            If `owner` is no party of the session.
        """
        session.number(owner, "owner")
        layers = folded(self.layers)
        lows, highs = self.range_for(low, high)
        if not isinstance(scores, (bool, np.bool_)):
            raise DtypeError(f"scores must be True or False, got {scores!r}")
        room = self.room if low is None and high is None else 1
        fitted = fit_inputs(layers, lows, highs, session.format, room=room)
        problem, _ = find_format(fitted, session.format, **self._outputs_are())
        if problem is not None:
            raise RangeError(problem)
        return self.share_fitted(session, owner, fitted, bool(scores))

    def share_fitted(
        self, session: Session, owner: str, fitted: Fitted, scores: bool = False
    ) -> SharedModel:
        """Share the layers in a scale that is already chosen."""
        shared = share_layers(session, fitted.layers, owner, *fitted.scaled, fitted.inputs)
        made = self._shared(session, shared, fitted, scores)
        made.feature_names_in_ = self.feature_names_in_
        return made

    def _outputs_are(self) -> dict[str, Any]:
        size = None
        if self.output_scale_ is not None and self.input_range_ is not None:
            # Of the rows that the scale is of, whatever range is asked for.
            typical = rows_between(*self.range_for(None, None), self.n_features_in_)
            size = np.abs(evaluate(self.layers, typical)).max(axis=0)
        return {
            "features": self.n_features_in_, "ranked": self.ranked, "scale": self.output_scale_,
            "size": size,
        }  # fmt: skip

    def outline(self, *, frac_bits: int = 16, int_bits: int = 15) -> Self:
        """Return this model with all weights zero: what parties other than the owner pass.

        Sizes, labels and the range of the inputs are public, and how far beyond it rows may reach
        in the format; the weights are not in it.

        Parameters
        ----------
        frac_bits, int_bits : int
            The session's format.

        Examples
        --------
        >>> import nn
        >>> nn.MLP.from_parameters([[[2.0, 1.0]], [0.5, 0.5]]).outline().parameters
        [array([[0., 0.]]), array([0., 0.])]
        """
        layers = folded(self.layers)
        outline = copy.copy(self)
        outline.output_scale_ = None
        outline.layers = [
            layer.with_parameters([np.zeros_like(p) for p in layer.parameters]) for layer in layers
        ]
        if self.input_range_ is not None:
            form = FixedPoint(frac_bits, int_bits)
            outline.room = fit_inputs(
                layers, *self.range_for(None, None), form, room=self.room
            ).room
        return outline

    def _shared(
        self, session: Session, layers: list[Layer], fitted: Fitted, scores: bool
    ) -> SharedModel:
        raise NotImplementedError

    def audit(
        self,
        X: ArrayLike | None = None,
        *,
        low: ArrayLike | None = None,
        high: ArrayLike | None = None,
        frac_bits: int = 16,
        int_bits: int = 15,
    ) -> Audit:
        """Find out whether the model fits a fixed-point format, and how exact it is in it.

        Parameters
        ----------
        X : array_like of shape (rows, features), optional
            Rows to observe the largest values and the error on: the latter in a local session,
            on the first 256 rows, if the model fits.
        low, high : float or array_like of shape (features,), optional
            Range of the inputs, as for ``share``. Default: `input_range_`, else that of `X`.
        frac_bits, int_bits : int
            The format.

        Returns
        -------
        Audit
            ``print`` it for a table, layer by layer.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        RangeError
            If `X` is not in the range.
        ArgumentError
            If there is no range.

        Examples
        --------
        >>> import nn
        >>> model = nn.MLP.from_parameters([[[2.0, -1.0], [-3.0, 0.0]], [0.5, 0.0]])
        >>> print(model.audit(low=0, high=1))
        layer          largest weight  can reach  does reach  bits left  error at most  error seen
        input                       -          1           -       15.0       7.63e-06           -
        1 Dense(2, 2)               3        2.5           -       13.4       5.34e-05           -
        frac_bits=16, int_bits=15: fits
        frac_bits=29, int_bits=3 fits too: error at most 6.52e-09
        """
        layers = folded(self.layers)
        form = FixedPoint(frac_bits, int_bits)
        rows = None if X is None else self._matrix(X)
        lows, highs = self.range_for(low, high, rows)
        room = self.room if low is None and high is None else 1
        fitted = fit_inputs(layers, lows, highs, form, room=room)
        if rows is not None:
            check_inside(rows, fitted.low, fitted.high)
        found = find_format(fitted, form, **self._outputs_are())
        plain = audit_layers(fitted, form, *found)
        if rows is None or not len(rows):
            return plain
        observed, errors = observe(
            self, self.share_fitted, fitted, rows, rows[:_AUDIT_ROWS], form if plain.fits else None
        )
        return audit_layers(fitted, form, *found, observed, errors, len(rows))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to an ``.npz`` file, for :func:`nn.load`.

        Parameters
        ----------
        path : path
            Written as it stands, whatever its ending.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        DtypeError
            If the classes are neither numbers, bools nor strings.
        """
        if not vars(type(self)).get("in_files", False):
            raise DtypeError(
                "models of a file must be of Classifier, Regressor, MLP or Sequential, got"
                f" {type(self).__name__}"
            )
        header, arrays = self.contents()
        write_model(path, {"kind": type(self).__name__, **header}, arrays, folded(self.layers))

    def contents(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return what a file holds beside the layers: entries of its header, and arrays."""
        header: dict[str, Any] = {"n_features": self.n_features_in_}
        arrays: dict[str, NDArray[Any]] = {}
        if self.feature_names_in_ is not None:
            header["feature_names"] = [str(name) for name in self.feature_names_in_]
        if self.output_scale_ is not None:
            arrays["output_scale"] = self.output_scale_
        if self.input_range_ is not None:
            arrays["low"], arrays["high"] = (np.asarray(ends) for ends in self.input_range_)
        return header, arrays
