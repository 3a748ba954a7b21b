"""Plain classifiers, whose outputs are scores of classes, and plain regressors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpc import Session
from nn.core.checks import label_vector
from nn.core.labels import check_kind, ordered_classes, plain_labels
from nn.fixed_point.audit import Fitted
from nn.fixed_point.calibration import Bounds
from nn.layers import Layer
from nn.layers.evaluation import accuracy
from nn.losses.links import LINKS, log_probabilities, probabilities
from nn.models.model import Model
from nn.shared.model import SharedModel
from nn.shared.regressor import SharedRegressor
from ring.errors import ArgumentError, ShapeError
from ring.real_arrays import plain_array

__all__ = ["Classifier", "Regressor"]


class Classifier(Model):
    """A network whose outputs are scores, one for each class.

    Parameters
    ----------
    layers : sequence of Layer
    classes : array_like of shape (classes,)
        Labels in ascending order.
    n_features : int
    input_range_ : (low, high), optional
        Range of the inputs: scalars, or arrays of shape (features,).
    link : {"softmax", "one_vs_rest", "normalised"} or None, default="softmax"
        How scores become probabilities, see :mod:`nn.losses.links`; None if they do not.

    Raises
    ------
    ShapeError, ArgumentError, DtypeError
        If layers, labels, range or `link` do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import Dense
    >>> from nn.models.predictors import Classifier
    >>> layer = Dense(np.array([[1.0, -1.0]]), np.zeros(2))
    >>> Classifier([layer], ["minus", "plus"], 1).predict([[-3.0], [2.0]]).tolist()
    ['plus', 'minus']
    """

    classes_: NDArray[Any]
    link: str | None
    ranked, in_files = True, True

    def __init__(
        self,
        layers: Sequence[Layer],
        classes: ArrayLike,
        n_features: int,
        input_range_: tuple[Any, Any] | None = None,
        *,
        link: str | None = "softmax",
    ) -> None:
        super().__init__(layers, n_features, input_range_)
        self.classes_ = ordered_classes(plain_array(classes, "classes"), self.n_outputs_)
        if link is not None and link not in LINKS:
            raise ArgumentError(f"link must be one of {sorted(LINKS)} or None, got {link!r}")
        self.link = link

    def decision_function(self, X: ArrayLike) -> NDArray[Any]:
        """Return the scores, one column for each class, also for two classes.

        Parameters
        ----------
        X : array_like of shape (rows, features)

        Returns
        -------
        ndarray of shape (rows, classes)
            In the dtype of the weights.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ShapeError, RangeError, DtypeError
            If `X` is not (rows, features), holds NaN or infinities, or is no array of reals.

        Examples
        --------
        >>> import nn
        >>> model = nn.MLP.from_parameters([[[1.0, -1.0]], [0.0, 0.5]])
        >>> model.decision_function([[2.0]])
        array([[ 2. , -1.5]])
        """
        return self._outputs(X)

    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Return the probability of each class; each row sums to 1.

        By the model's `link`: after training with ``loss="cross_entropy"`` the softmax of the
        scores; with "huber" or "squared_error" the scores clipped to [0, 1], over their sum.

        Parameters
        ----------
        X : array_like of shape (rows, features)

        Returns
        -------
        ndarray of shape (rows, classes)

        Raises
        ------
        NotFittedError, ShapeError, RangeError, DtypeError
            As in ``decision_function``.
        ArgumentError
            If the model has scores only, as a support vector machine does.

        Examples
        --------
        >>> import nn
        >>> model = nn.MLP.from_parameters([[[1.0, 1.0]], [0.0, 0.0]])
        >>> model.predict_proba([[2.0]])
        array([[0.5, 0.5]])
        """
        return probabilities(self.link, self.decision_function(X))

    def predict_log_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Return the natural logarithm of each class's probability, -inf for a probability of 0.

        Parameters
        ----------
        X : array_like of shape (rows, features)

        Returns
        -------
        ndarray of shape (rows, classes)

        Raises
        ------
        NotFittedError, ShapeError, RangeError, DtypeError, ArgumentError
            As in ``predict_proba``.

        Examples
        --------
        >>> import nn
        >>> model = nn.MLP.from_parameters([[[1.0, -1.0]], [0.0, 0.0]])
        >>> model.predict_log_proba([[500.0]])
        array([[    0., -1000.]])
        """
        return log_probabilities(self.link, self.decision_function(X))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return each row's label with the largest score; the first of equal ones.

        Parameters
        ----------
        X : array_like of shape (rows, features)

        Returns
        -------
        ndarray of shape (rows,)
            Labels from ``classes_``.

        Raises
        ------
        NotFittedError, ShapeError, RangeError, DtypeError
            As in ``decision_function``.

        Examples
        --------
        >>> import nn
        >>> model = nn.MLP.from_parameters([[[1.0, -1.0]], [0.0, 0.0]], classes=["minus", "plus"])
        >>> model.predict([[-3.0], [2.0]]).tolist()
        ['plus', 'minus']
        """
        winners = self.decision_function(X).argmax(axis=1)
        labels: NDArray[Any] = self.classes_[winners]
        return labels

    def score(self, X: ArrayLike, y: ArrayLike) -> float:
        """Return the accuracy: the fraction of rows whose predicted label is the one in `y`.

        Parameters
        ----------
        X : array_like of shape (rows, features)
        y : array_like of shape (rows,)

        Returns
        -------
        float

        Raises
        ------
        NotFittedError, ShapeError, RangeError, DtypeError
            As in ``decision_function``; also if `y` has another length or kind of label, or there
            are no rows.

        Examples
        --------
        >>> import nn
        >>> model = nn.MLP.from_parameters([[[1.0, -1.0]], [0.0, 0.0]])
        >>> model.score([[1.0], [-1.0], [2.0], [3.0]], [0, 1, 0, 1])
        0.75
        """
        matrix = self._matrix(X)
        labels = label_vector("y", y, len(matrix))
        if not len(matrix):
            raise ShapeError(f"X must have at least one row, got shape {matrix.shape}")
        check_kind("y", labels, self.classes_)
        return accuracy(self.layers, self.classes_, matrix, labels)

    def _shared(
        self,
        session: Session,
        layers: Sequence[Layer],
        fitted: Fitted,
        scores: bool,
        bounds: Bounds | None,
    ) -> SharedModel:
        return SharedModel(
            session, layers, self.classes_, self.n_features_in_, fitted.low, fitted.high,
            inputs=fitted.inputs, link=self.link, scores=scores, bounds=bounds,
        )  # fmt: skip

    def contents(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        header, arrays = super().contents()
        arrays["classes"], header["classes_are_objects"] = plain_labels(self.classes_)
        return {**header, "link": self.link}, arrays


class Regressor(Model):
    """A network whose outputs are the predicted values.

    Parameters
    ----------
    layers : sequence of Layer
    n_features : int
    input_range_ : (low, high), optional
        Range of the inputs: scalars, or arrays of shape (features,).
    flat : bool, default=True
        Whether a single output is predicted as a vector of shape (rows,).

    Raises
    ------
    ShapeError, ArgumentError
        If layers and range do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import Dense
    >>> from nn.models.predictors import Regressor
    >>> Regressor([Dense(np.array([[2.0]]), np.ones(1))], 1).predict([[3.0]])
    array([7.])
    """

    in_files = True

    def __init__(
        self,
        layers: Sequence[Layer],
        n_features: int,
        input_range_: tuple[Any, Any] | None = None,
        *,
        flat: bool = True,
    ) -> None:
        super().__init__(layers, n_features, input_range_)
        self.flat = bool(flat) and self.n_outputs_ == 1

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the predicted values.

        Parameters
        ----------
        X : array_like of shape (rows, features)

        Returns
        -------
        ndarray of shape (rows,) or (rows, outputs)

        Raises
        ------
        ShapeError, RangeError, DtypeError
            If `X` is not (rows, features), holds NaN or infinities, or is no array of reals.
        """
        outputs = self._outputs(X)
        return outputs[:, 0] if self.flat else outputs

    def score(self, X: ArrayLike, y: ArrayLike) -> float:
        """Return the coefficient of determination R^2 of the predictions, as scikit-learn does.

        Parameters
        ----------
        X : array_like of shape (rows, features)
        y : array_like of shape (rows,) or (rows, outputs)

        Returns
        -------
        float
        """
        from sklearn.metrics import r2_score  # here, so that importing nn stays light

        return float(r2_score(y, self.predict(X)))

    def _shared(
        self,
        session: Session,
        layers: Sequence[Layer],
        fitted: Fitted,
        scores: bool,
        bounds: Bounds | None,
    ) -> SharedModel:
        return SharedRegressor(
            session, layers, np.arange(self.n_outputs_), self.n_features_in_, fitted.low, fitted.high,
            inputs=fitted.inputs, flat=self.flat, bounds=bounds,
        )  # fmt: skip

    def contents(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        header, arrays = super().contents()
        return {**header, "flat": self.flat}, arrays
