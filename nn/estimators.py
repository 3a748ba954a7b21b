"""Estimators with scikit-learn's interface that predict on shares.

They train in the clear or on shares, and predict in a local session: model and rows are shared, the
model is evaluated as it would be between organisations, and only the predictions are revealed. So a
pipeline, a grid search or a cross-validation measures the encrypted model. To predict between
organisations, convert the fitted estimator, or the pipeline around it, by :func:`nn.from_sklearn`, and
share the result in a session of several processes.

This module imports scikit-learn, which ``import nn`` does not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets

from nn.core.labels import encode_labels
from nn.estimator_base import SecureMLP
from nn.layers import Dense
from nn.layers.folding import dense
from nn.models.predictors import Classifier, Regressor
from ring.errors import ArgumentError

__all__ = ["SecureMLPClassifier", "SecureMLPRegressor"]


class SecureMLPClassifier(ClassifierMixin, SecureMLP):  # type: ignore[misc]
    """Classifier of dense layers with ReLU; trains in the clear or on shares, predicts on shares.

    Parameters
    ----------
    hidden_layer_sizes : sequence of int, default=(100,)
        Widths of the hidden layers.
    solver : {"adam", "sgd"}, default="adam"
        The optimizer.
    learning_rate_init : float, optional
        Learning rate of the first step; default 0.001 for "adam", 0.1 for "sgd".
    learning_rate : {"cosine", "linear", "halving", "constant"}, default="cosine"
        Schedule by which the learning rate falls, as for :meth:`nn.MLP.fit`.
    momentum : float, optional
        For "sgd"; default 0.9.
    batch_size : int, default=32
        Rows of a step.
    max_iter : int, default=200
        Epochs: passes over the rows.
    random_state : int, RandomState, Generator or None, default=None
        Seeds the initial weights and the order of the rows, never a mask.
    encrypted_fit : bool, default=False
        Whether to train on shares too, in a local session; the weights are revealed at the end.
    parties : sequence of str, default=("alice", "bob")
        The computing parties. The first owns the model, the last the rows.
    frac_bits, int_bits : int, optional
        The fixed-point format; default 16 and 15. For predictions the default is the format that
        ``model_.audit()`` suggests.
    n_jobs : int, optional
        Threads of the kernels; default the number set by :func:`ring.set_num_threads`.
    verbose : bool, default=False
        Whether training shows a progress bar.

    Attributes
    ----------
    classes_ : ndarray of shape (classes,)
        The labels in ascending order.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of str, of shape (features,)
        Names of the columns of `X`, if it had names.
    model_ : Classifier
        The plain model: ``model_.audit()``, ``model_.share(...)``, ``model_.save(...)``.
    coefs_, intercepts_ : list of ndarray
        Weights of shape (inputs, outputs) and biases of shape (outputs,) of each Dense layer.
    loss_curve_ : list of float
        Mean loss of each epoch; missing after training on shares, which reveals no loss.
    loss_ : float
        The last entry of `loss_curve_`.
    n_iter_ : int
        Number of epochs.

    Raises
    ------
    ValueError, ArgumentError, RangeError
        By ``fit`` and the predicting methods, see there; the constructor checks nothing, as in
        scikit-learn.

    Examples
    --------
    >>> import nn
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> X, y = load_iris(return_X_y=True)
    >>> secure = make_pipeline(StandardScaler(), nn.SecureMLPClassifier(random_state=0))
    >>> secure.fit(X, y).score(X, y) > 0.95
    True
    """

    def _fit(self, X: NDArray[Any], y: NDArray[Any]) -> None:
        check_classification_targets(y)
        classes, numbers = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise ArgumentError(
                f"{type(self).__name__} needs at least two classes in y, got one class only"
            )
        classes, numbers = encode_labels(y, None, len(classes))
        targets = np.zeros((len(X), len(classes)), dtype=X.dtype)
        targets[np.arange(len(X)), numbers] = 1
        layers = self._train(X, targets, "cross_entropy")
        self.classes_ = classes
        self.model_ = Classifier(layers, classes, X.shape[1])
        self.model_.take_rows(X)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the label of each row. Nothing else is revealed.

        Parameters
        ----------
        X : array_like of shape (rows, features)

        Returns
        -------
        ndarray of shape (rows,)

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If `X` is not (rows, features), or has missing or infinite values.
        RangeError
            If the model, or a row far from those of ``fit``, does not fit the fixed-point format.
        """
        with self._secret(self._rows(X)) as (model, rows):
            labels: NDArray[Any] = model.predict(rows)
        return labels

    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Return the probability of each class. The scores are revealed.

        Parameters
        ----------
        X : array_like of shape (rows, features)

        Returns
        -------
        ndarray of shape (rows, classes)

        Raises
        ------
        NotFittedError, ValueError, RangeError
            As in ``predict``.
        """
        with self._secret(self._rows(X), scores=True) as (model, rows):
            odds: NDArray[Any] = model.predict_proba(rows)
        return odds


class SecureMLPRegressor(RegressorMixin, SecureMLP):  # type: ignore[misc]
    """Regressor of dense layers with ReLU; trains in the clear or on shares, predicts on shares.

    The targets' owner standardises them for the training; afterwards the last layer is scaled, so
    that predictions have the targets' units.

    Parameters
    ----------
    hidden_layer_sizes, solver, learning_rate_init, learning_rate, momentum, batch_size, max_iter, \
random_state, encrypted_fit, parties, frac_bits, int_bits, n_jobs, verbose
        As for :class:`SecureMLPClassifier`.

    Attributes
    ----------
    model_ : Regressor
        The plain model, as of :class:`SecureMLPClassifier`.
    n_features_in_, feature_names_in_, coefs_, intercepts_, loss_curve_, loss_, n_iter_
        As for :class:`SecureMLPClassifier`; the loss is that of the standardised targets.

    Raises
    ------
    ValueError, ArgumentError, RangeError
        As for :class:`SecureMLPClassifier`.

    Examples
    --------
    >>> import nn
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> X, y = load_diabetes(return_X_y=True)
    >>> secure = make_pipeline(StandardScaler(), nn.SecureMLPRegressor((16,), random_state=0))
    >>> secure.fit(X, y).score(X, y) > 0.5
    True
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _fit(self, X: NDArray[Any], y: NDArray[Any]) -> None:
        targets = np.asarray(y, dtype=np.float64).reshape(len(y), -1)
        middle, deviation = targets.mean(axis=0), targets.std(axis=0)
        deviation = np.where(deviation > 0, deviation, 1.0)
        scaled = ((targets - middle) / deviation).astype(X.dtype)
        *layers, last = self._train(X, scaled, "squared_error")
        assert isinstance(last, Dense)
        last = dense(last.weights * deviation, last.bias * deviation + middle)
        self.model_ = Regressor([*layers, last], X.shape[1], flat=y.ndim == 1)
        self.model_.take_rows(X)
        # The spread of the targets, which is better than the spread of the predictions.
        self.model_.output_scale_ = deviation

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the predicted value of each row. Nothing else is revealed.

        Parameters
        ----------
        X : array_like of shape (rows, features)

        Returns
        -------
        ndarray of shape (rows,) or (rows, outputs)

        Raises
        ------
        NotFittedError, ValueError, RangeError
            As in :meth:`SecureMLPClassifier.predict`.
        """
        with self._secret(self._rows(X)) as (model, rows):
            values: NDArray[Any] = model.predict(rows)
        return values
