"""The base class of plain models: layers, range of the inputs, sharing, audit and files."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpc import Session
from nn.core.checks import (
    check_names,
    check_session,
    columns_of,
    feature_matrix,
    side_by_side,
)
from nn.fixed_point.audit import Audit, Fitted, audit_layers, find_format, fit_inputs
from nn.fixed_point.calibration import Bounds
from nn.fixed_point.inputs import MOST_ROOM, Floats, check_inside, input_range, typical_range
from nn.fixed_point.precision import output_scale, rows_between
from nn.layers import Layer
from nn.layers.evaluation import evaluate
from nn.layers.graph import flat_rows, output_shapes, rewired
from nn.layers.layer import parameters
from nn.layers.normalisation import folded
from nn.models.calibrated import CalibratedModel
from nn.models.model_archives import write_model
from nn.models.preprocessing import PublicPreprocessing
from nn.shared.comparison import observe, room_problem
from nn.shared.model import SharedModel
from nn.shared.sharing import share_layers
from ring import FixedPoint
from ring.errors import ArgumentError, DtypeError, RangeError, ShapeError

__all__ = ["Model"]

# Rows that an audit evaluates on shares, at most.
_AUDIT_ROWS = 256


class Model(CalibratedModel):
    """A network in the clear, with the range of its inputs.

    Attributes
    ----------
    layers : sequence of Layer
        A list, or a :class:`nn.layers.Graph`.
    n_features_in_ : int
        Number of features.
    input_range_ : (low, high) or None
        Range of the inputs: scalars, or arrays of shape (features,); None if not known. It becomes
        public when the model is shared.
    feature_names_in_ : ndarray of str, or None
        Names of the features, if the rows of ``fit`` had names. Tables with other names, or in
        another order, are refused. They become public when the model is shared.
    output_scale_ : ndarray of shape (outputs,), or None
        See :func:`nn.fixed_point.precision.output_scale`; known to the model's owner only.
    bounds_ : Bounds or None
        See :class:`nn.models.calibrated.CalibratedModel`.
    inputs_ : dict of str to int, or None
        Of a model with several inputs: their names, and how many features each has. A row has the
        features of all in this order; `X` may also be a dict with the rows of each by name.
    preprocessing_ : PublicPreprocessing or None
        What the owner of rows does to them before the model takes them, see :meth:`preprocess`; public.
    in_files : bool, of the class
        Whether :func:`nn.load` can read models of this class.
    ranked : bool
        Whether the outputs are scores, of which the largest alone counts.
    room : int
        By how much the range of each feature may be widened when the model is shared, at most; see
        :mod:`nn.fixed_point.inputs`.
    """

    layers: Sequence[Layer]
    input_range_: tuple[Any, Any] | None
    feature_names_in_: NDArray[Any] | None = None
    output_scale_: Floats | None = None
    inputs_: dict[str, int] | None = None
    preprocessing_: PublicPreprocessing | None = None
    in_files: ClassVar[bool] = False
    ranked: bool = False
    room: int = MOST_ROOM

    def __init__(
        self, layers: Sequence[Layer], n_features: int, input_range_: tuple[Any, Any] | None = None
    ) -> None:
        if not layers:
            raise ArgumentError("layers must hold at least one layer, got none")
        shape = output_shapes(layers, (n_features,))[-1]
        self.layers = rewired(layers, layers, n_features)
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
        """The weights and biases in layer order, not copied."""
        return parameters(self.layers)

    def _matrix(self, X: Any) -> NDArray[Any]:
        if isinstance(X, dict):
            X = {n: flat_rows(x, self.layers, columns_of(self.inputs_, n)) for n, x in X.items()}
            X = side_by_side(X, self.inputs_)
        check_names(X, self.feature_names_in_)
        X = flat_rows(X, self.layers)
        parameters = self.parameters
        dtype = parameters[0].dtype if parameters else None
        return feature_matrix("X", X, self.n_features_in_, dtype)

    def _outputs(self, X: ArrayLike) -> NDArray[Any]:
        return evaluate(self.layers, self._matrix(X))

    def preprocess(self, X: Any) -> NDArray[Any]:
        """Return the numbers that the model takes for rows with categories and gaps.

        For the owner of the rows, of a model converted with ``public_preprocessing=True``; others
        take rows as they are.

        Parameters
        ----------
        X : array_like or data frame of shape (rows, columns)

        Returns
        -------
        ndarray of shape (rows, features)
        """
        return self._matrix(X) if self.preprocessing_ is None else self.preprocessing_.transform(X)

    def take_rows(self, X: Any) -> None:
        """Set ``input_range_`` and ``output_scale_`` from typical rows.

        Raises
        ------
        ShapeError, RangeError, DtypeError
            If `X` is not (rows, features) with at least one row, holds NaN or infinities, or is no
            array of reals.
        """
        rows = self._matrix(X)
        if not len(rows):
            raise ShapeError(f"X must have at least one row, got shape {rows.shape}")
        ends = typical_range(rows, self.layers)
        self.bounds_, outputs = self.bounds_of_rows(rows, *ends)
        self.input_range_, self.output_scale_ = ends, output_scale(outputs, self.ranked)

    def range_for(
        self, low: ArrayLike | None, high: ArrayLike | None, X: NDArray[Any] | None = None
    ) -> tuple[Floats, Floats]:
        """Return the range of inputs: `low` and `high` if given, else the model's, else that of `X`."""
        ends: tuple[Any, Any] | None = self.input_range_
        if ends is None and X is not None and len(X):
            ends = typical_range(X, self.layers)
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
        bounds: Bounds | None = None,
    ) -> SharedModel:
        """Split the weights into shares.

        Parameters
        ----------
        session : mpc.Session
        owner : str
            The party whose model this is.
        low, high : float or array_like of shape (features,), optional
            Range of the inputs that the model will get; it becomes public. With one value for
            each feature, features may be of very different sizes: the data owner shares every
            feature as ``(x - middle) / 2^power``, where both numbers follow from its range, and the
            first layer's weights are adapted. Default: `input_range_`; a range for each feature is
            widened by a power of two up to 64, as far as the format has room.
        scores : bool, default=False
            Whether the shared model may reveal a classifier's scores and probabilities, which say
            more about the weights than labels do.
        bounds : Bounds, optional
            From :meth:`calibrate`, the same at all parties: limits for a deep network whose interval
            bounds the format does not hold. Every evaluation proves on shares that no value left
            them, or is a RangeError at all parties; the chance that it misses one is 2^-40.
            Default: `bounds_`, for a model that was given rows. A format that holds the interval
            bounds needs no limits and takes none.

        Returns
        -------
        SharedModel

        Raises
        ------
        DtypeError
            If `session` is none.
        RangeError
            If a layer could leave the session's fixed-point range for inputs in [low, high], or the
            format is too coarse for the model's outputs. The message names the layer or output, the
            excess or error, and a format that suits the model. Nothing is shared then.
        NotFittedError
            Before ``fit``.
        ArgumentError
            If no range is given and the model has none.
        PartyError
            If `owner` is no party of the session.
        """
        check_session(session)
        session.number(owner, "owner")
        layers = folded(self.layers)
        lows, highs = self.range_for(low, high)
        if not isinstance(scores, (bool, np.bool_)):
            raise DtypeError(f"scores must be True or False, got {scores!r}")
        fitted, bounds = self._fitted(
            layers, lows, highs, session.format, bounds, given=low is not None or high is not None
        )
        problem, _ = self._format_for(fitted, session.format, bounds)
        if problem is not None:
            raise RangeError(problem)
        return self.share_fitted(session, owner, fitted, bool(scores), bounds)

    def share_fitted(
        self,
        session: Session,
        owner: str,
        fitted: Fitted,
        scores: bool = False,
        bounds: Bounds | None = None,
    ) -> SharedModel:
        """Share a model whose scale of inputs is chosen already, see `fit_inputs`."""
        shared = share_layers(session, fitted.layers, owner, *fitted.scaled, fitted.inputs, bounds)
        made = self._shared(session, shared, fitted, scores, bounds)
        made.feature_names_in_, made.inputs_ = self.feature_names_in_, self.inputs_
        return made

    def _format_for(
        self, fitted: Fitted, form: FixedPoint, bounds: Bounds | None
    ) -> tuple[str | None, FixedPoint | None]:
        """Return why a format does not suit the model (None if it does), and one that does, if any."""
        found = find_format(fitted, form, bounds=bounds, **self._precision_arguments())
        if found[0] is not None:
            return found
        problem = room_problem(
            lambda session, owner, fitted: self.share_fitted(session, owner, fitted, bounds=bounds),
            fitted, form,
        )  # fmt: skip
        return found if problem is None else (problem, None)

    def _precision_arguments(self) -> dict[str, Any]:
        """Return the arguments of `find_format` about the model's outputs."""
        size = None
        if self.output_scale_ is not None and self.input_range_ is not None:
            # For rows of the model's own range, whatever range is asked for.
            typical = rows_between(*self.range_for(None, None), self.n_features_in_)
            size = np.abs(evaluate(self.layers, typical)).max(axis=0)
        return {
            "features": self.n_features_in_, "ranked": self.ranked, "scale": self.output_scale_,
            "size": size,
        }  # fmt: skip

    def outline(self, *, frac_bits: int = 16, int_bits: int = 15) -> Self:
        """Return this model with all weights zero, for the parties that do not own it.

        They pass it in place of the model. It has all that is public: layers, labels, the range of
        the inputs, and by how much the range is widened in the given format.

        Parameters
        ----------
        frac_bits, int_bits : int, default=16, 15
            The session's format.

        Returns
        -------
        model of the same class

        Raises
        ------
        NotFittedError
            Before ``fit``.

        Examples
        --------
        >>> import nn
        >>> nn.MLP.from_parameters([[[2.0, 1.0]], [0.5, 0.5]]).outline().parameters
        [array([[0., 0.]]), array([0., 0.])]
        """
        layers = folded(self.layers)
        outline = copy.copy(self)
        outline.output_scale_ = None
        zeros = [
            layer.with_parameters([np.zeros_like(p) for p in layer.parameters]) for layer in layers
        ]
        outline.layers = rewired(layers, zeros)
        if self.input_range_ is not None:
            form = FixedPoint(frac_bits, int_bits)
            ends, features = self.range_for(None, None), self.n_features_in_
            fitted = fit_inputs(layers, *ends, form, features=features, room=self.room)
            outline.room, outline.outlined = fitted.room, self.needs_bounds(fitted, form)
        return outline

    def _shared(
        self,
        session: Session,
        layers: Sequence[Layer],
        fitted: Fitted,
        scores: bool,
        bounds: Bounds | None,
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
        """Check whether the model fits a fixed-point format, and how exact it is on shares.

        Parameters
        ----------
        X : array_like of shape (rows, features), optional
            Rows for which the largest values are observed; and the errors, in a local session, for
            the first 256 of them and if the model fits.
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
            If no range is given and the model has none.

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
        fitted, bounds = self._fitted(
            layers, lows, highs, form, None, given=low is not None or high is not None
        )
        if rows is not None:
            check_inside(rows, fitted.low, fitted.high)
        found = self._format_for(fitted, form, bounds)
        plain = audit_layers(fitted, form, *found)
        if rows is None or not len(rows):
            return plain
        observed, errors = observe(
            self,
            lambda s, owner, fitted: self.share_fitted(s, owner, fitted, bounds=bounds),
            fitted,
            rows,
            rows[:_AUDIT_ROWS],
            form if plain.fits else None,
        )
        return audit_layers(fitted, form, *found, observed, errors, len(rows))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to an ``.npz`` file, for :func:`nn.load`.

        Parameters
        ----------
        path : path
            Used as it is: no ending is added.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        DtypeError
            If a layer is of a kind that is not registered, or the classes are neither numbers,
            bools nor strings.
        DataError
            If the file cannot be written.
        """
        if not vars(type(self)).get("in_files", False):
            raise DtypeError(
                "a model must be a Classifier, Regressor, HeadsModel, MLP or Sequential to be saved, got"
                f" {type(self).__name__}"
            )
        header, arrays = self.contents()
        write_model(path, {"kind": type(self).__name__, **header}, arrays, folded(self.layers))

    def contents(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return the entries of a file's header, and its arrays, beside those of the layers."""
        header: dict[str, Any] = {"n_features": self.n_features_in_}
        if self.inputs_ is not None:
            header["inputs"] = list(self.inputs_.items())
        if self.preprocessing_ is not None:
            header["preprocessing"] = self.preprocessing_.described()
        arrays: dict[str, NDArray[Any]] = {}
        if self.feature_names_in_ is not None:
            header["feature_names"] = [str(name) for name in self.feature_names_in_]
        if self.bounds_ is not None:
            header["bounds"] = asdict(self.bounds_)
        if self.output_scale_ is not None:
            arrays["output_scale"] = self.output_scale_
        if self.input_range_ is not None:
            arrays["low"], arrays["high"] = (np.asarray(ends) for ends in self.input_range_)
        return header, arrays
