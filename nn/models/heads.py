"""Plain models with several outputs, by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpc import Session
from nn.fixed_point.audit import Fitted
from nn.fixed_point.calibration import Bounds
from nn.fixed_point.precision import SCORES, VALUES, output_scale, rows_between
from nn.layers import Layer
from nn.layers.evaluation import evaluate
from nn.losses.links import softmax
from nn.models.model import Model
from nn.shared.heads import Head, SharedHeads
from ring.errors import ArgumentError, ShapeError

__all__ = ["Head", "HeadsModel"]


class HeadsModel(Model):
    """A network with several outputs, which are called by their names.

    Parameters
    ----------
    layers : sequence of Layer, or Graph
        The last output has the entries of all heads.
    n_features : int
    heads : sequence of Head
    input_range_ : (low, high), optional
        Range of the inputs: scalars, or arrays of shape (features,).

    Raises
    ------
    ArgumentError, ShapeError
        If names repeat, or a head lies outside the output.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import Dense
    >>> from nn.models.heads import Head, HeadsModel
    >>> layer = Dense(np.array([[1.0, -1.0, 2.0]]), np.zeros(3))
    >>> heads = [Head("sign", 0, 2, (2,), "labels"), Head("double", 2, 3, (), "values")]
    >>> {name: found.tolist() for name, found in HeadsModel([layer], 1, heads).predict([[3.0]]).items()}
    {'sign': [0], 'double': [6.0]}
    """

    in_files = True

    def __init__(
        self,
        layers: Sequence[Layer],
        n_features: int,
        heads: Sequence[Head],
        input_range_: tuple[Any, Any] | None = None,
    ) -> None:
        super().__init__(layers, n_features, input_range_)
        names = [head.name for head in heads]
        if not names or len(set(names)) < len(names):
            raise ArgumentError(f"heads must have names that differ, got {names}")
        for head in heads:
            if not 0 <= head.start < head.stop <= self.n_outputs_:
                raise ShapeError(f"{head} must lie within {self.n_outputs_} outputs")
        self.heads = tuple(heads)

    def decision_function(self, X: Any) -> dict[str, NDArray[Any]]:
        """Return the scores or values of each output, by name.

        Parameters
        ----------
        X : array_like of shape (rows, features), or dict of str to array_like
            By the names of the inputs, if there are several.

        Returns
        -------
        dict of str to ndarray
        """
        outputs = self._outputs(X)
        return {head.name: head.of(outputs) for head in self.heads}

    def predict(self, X: Any) -> dict[str, NDArray[Any]]:
        """Return, by name, each output's values, or for classes the index of the largest score.

        Parameters
        ----------
        X : array_like of shape (rows, features), or dict of str to array_like

        Returns
        -------
        dict of str to ndarray
        """
        found = self.decision_function(X)
        return {
            head.name: found[head.name].argmax(axis=1) if head.ranked else found[head.name]
            for head in self.heads
        }

    def predict_proba(self, X: Any) -> dict[str, NDArray[Any]]:
        """Return, by name, the softmax of the scores of each output that has probabilities."""
        found = self.decision_function(X)
        return {h.name: softmax(found[h.name]) for h in self.heads if h.role == "probabilities"}

    def _scale(self, outputs: NDArray[Any]) -> NDArray[Any]:
        """Return the scale of each output as for values: larger for scores, of which less is asked."""
        scale = np.empty(self.n_outputs_)
        for head in self.heads:
            part = outputs[:, head.start : head.stop]
            more = SCORES / VALUES if head.ranked else 1.0
            scale[head.start : head.stop] = more * output_scale(part, head.ranked)
        return scale

    def take_rows(self, X: Any) -> None:
        super().take_rows(X)
        self.output_scale_ = self._scale(self._outputs(X))

    def _precision_arguments(self) -> dict[str, Any]:
        found = super()._precision_arguments()
        if found["scale"] is None and self.input_range_ is not None:
            rows = rows_between(*self.range_for(None, None), self.n_features_in_)
            found["scale"] = self._scale(evaluate(self.layers, rows))
        return found

    def _shared(
        self,
        session: Session,
        layers: Sequence[Layer],
        fitted: Fitted,
        scores: bool,
        bounds: Bounds | None,
    ) -> SharedHeads:
        return SharedHeads(
            session, layers, np.arange(self.n_outputs_), self.n_features_in_, fitted.low, fitted.high,
            inputs=fitted.inputs, scores=scores, heads=self.heads, bounds=bounds,
        )  # fmt: skip

    def contents(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        header, arrays = super().contents()
        return {**header, "heads": [head.description() for head in self.heads]}, arrays

    def score(self, X: Any, y: dict[str, ArrayLike]) -> dict[str, float]:
        """Return, by name, the accuracy of classes and R^2 of values; outputs not in `y` are left out."""
        from sklearn.metrics import (  # here, so that importing nn stays light
            accuracy_score,
            r2_score,
        )

        found = self.predict(X)
        return {
            head.name: float(
                (accuracy_score if head.ranked else r2_score)(y[head.name], found[head.name])
            )
            for head in self.heads
            if head.name in y
        }
