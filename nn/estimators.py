"""Estimators with scikit-learn's interface that predict on shares.

They train in the clear or on shares, and predict in a local session: model and rows are shared, the
model is evaluated as it would be between organisations, and only the predictions are revealed. So a
pipeline, a grid search or a cross-validation measures the encrypted model. To predict between
organisations, convert the fitted estimator, or the pipeline around it, by :func:`nn.from_sklearn`, and
share the result in a session of several processes.

This module imports scikit-learn, which ``import nn`` does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import _fit_context
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.multiclass import check_classification_targets, unique_labels

from nn.core.labels import encode_labels
from nn.estimator_base import SecureMLP
from nn.layers import Dense
from nn.layers.folding import dense
from nn.layers.initialisation import RandomState
from nn.models.predictors import Classifier, Regressor
from nn.secure_estimator import SecureClassifier, SecureRegressor, Weights, standardised
from nn.training.weights import plain_weights
from ring.errors import ArgumentError

__all__ = ["SecureMLPClassifier", "SecureMLPRegressor"]


class SecureMLPClassifier(SecureClassifier, SecureMLP):
    """Classifier of dense layers with ReLU; trains in the clear or on shares, predicts on shares.

    Parameters
    ----------
    hidden_layer_sizes : sequence of int, default=(100,)
        Widths of the hidden layers.
    activation : {"relu", "tanh", "logistic", "identity"}, default="relu"
        What stands between the dense layers.
    solver : {"adam", "sgd"}, default="adam"
        The optimizer.
    alpha : float, default=0
        Weight decay of weights and biases: alpha times a parameter is added to its gradient, for
        "adam" to its step (AdamW). Not divided by the rows of a step, as scikit-learn does.
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
    early_stopping : bool, default=False
        Whether to hold out some rows, and to stop once `n_iter_no_change` epochs in a row have not
        improved accuracy, or for values the loss, on them. The last weights are kept. On shares both
        figures are revealed after each epoch.
    validation_fraction : float, default=0.1
        The share of the rows that are held out.
    n_iter_no_change : int, default=10
    warm_start : bool, default=False
        Whether ``fit`` starts from the weights of the ``fit`` before, which the optimizer's moments
        are not part of.
    class_weight : dict of class to number, "balanced" or None, default=None
        Factors on the loss of rows of each class, 1 for classes that are not named. On shares, the owner
        of the rows turns them into secret weights of rows. ``partial_fit`` takes no "balanced": of one
        part's rows it would count that part's classes.
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
        Mean loss of each epoch, with the weights of rows; missing after training on shares, which
        reveals no loss.
    loss_ : float
        The last entry of `loss_curve_`.
    n_iter_ : int
        Number of epochs.
    validation_scores_ : list of float
        With `early_stopping`: accuracy on the rows held out after each epoch; of a regressor, minus
        the loss.

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

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **SecureMLP._parameter_constraints, "class_weight": [dict, StrOptions({"balanced"}), None]
    }  # fmt: skip

    def __init__(
        self,
        hidden_layer_sizes: Sequence[int] = (100,),
        *,
        activation: str = "relu",
        solver: str = "adam",
        alpha: float = 0.0,
        learning_rate_init: float | None = None,
        learning_rate: str = "cosine",
        momentum: float | None = None,
        batch_size: int = 32,
        max_iter: int = 200,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        warm_start: bool = False,
        class_weight: dict[Any, float] | str | None = None,
        random_state: RandomState = None,
        encrypted_fit: bool = False,
        parties: Sequence[str] = ("alice", "bob"),
        frac_bits: int | None = None,
        int_bits: int | None = None,
        n_jobs: int | None = None,
        verbose: bool | int = False,
    ) -> None:
        super().__init__(
            hidden_layer_sizes, activation=activation, solver=solver, alpha=alpha,
            learning_rate_init=learning_rate_init, learning_rate=learning_rate, momentum=momentum,
            batch_size=batch_size, max_iter=max_iter, early_stopping=early_stopping,
            validation_fraction=validation_fraction, n_iter_no_change=n_iter_no_change,
            warm_start=warm_start, random_state=random_state, encrypted_fit=encrypted_fit,
            parties=parties, frac_bits=frac_bits, int_bits=int_bits, n_jobs=n_jobs, verbose=verbose,
        )  # fmt: skip
        self.class_weight = class_weight

    classes_: NDArray[Any]
    _coming: NDArray[Any]

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Train for one epoch, going on from the weights there are.

        The learning rate stays the same; the optimizer's moments begin anew in each call.

        Parameters
        ----------
        X : array_like of shape (rows, features)
        y : array_like of shape (rows,)
        classes : array_like of shape (classes,), optional
            In the first call: all labels that will come, in any order; default those in `y`.
        sample_weight : array_like of shape (rows,), optional

        Returns
        -------
        self
        """
        going_on = hasattr(self, "model_")
        if self.class_weight == "balanced":
            raise ArgumentError(
                "class_weight must not be 'balanced' for partial_fit, which sees a part of the rows: give"
                " a dict of class to weight"
            )
        if classes is not None:
            given = unique_labels(classes)
            if going_on and not np.array_equal(given, self.classes_):
                raise ArgumentError(
                    f"classes must be those of the first call, {self.classes_.tolist()}, got"
                    f" {given.tolist()}"
                )
            self._coming = given
        try:
            return self._fit_rows(X, y, sample_weight, going_on, 1)
        finally:
            self.__dict__.pop("_coming", None)

    def _fit(
        self, X: NDArray[Any], y: NDArray[Any], weights: Weights, going_on: bool, epochs: int | None
    ) -> None:
        check_classification_targets(y)
        found = np.unique(y)
        if epochs is not None and (going_on or "_coming" in vars(self)):
            # Labels that were named beforehand.
            found = self.classes_ if going_on else self._coming
        if len(found) < 2:
            raise ArgumentError(
                f"{type(self).__name__} needs at least two classes in y, got one class only"
            )
        classes, numbers = encode_labels(y, found, len(found))
        if going_on and not np.array_equal(classes, self.classes_):
            raise ArgumentError(
                f"y must have the labels of the fit before, {self.classes_.tolist()}, for a warm start,"
                f" got {classes.tolist()}"
            )
        targets = np.zeros((len(X), len(classes)), dtype=X.dtype)
        targets[np.arange(len(X)), numbers] = 1
        weights = plain_weights(targets, classes, self.class_weight, weights)
        layers = self._train(X, targets, "cross_entropy", weights, going_on, epochs)
        self.classes_ = classes
        self.model_ = Classifier(layers, classes, X.shape[1])
        self.model_.take_rows(X)


class SecureMLPRegressor(SecureRegressor, SecureMLP):
    """Regressor of dense layers with ReLU; trains in the clear or on shares, predicts on shares.

    The targets' owner standardises them for the training; afterwards the last layer is scaled, so
    that predictions have the targets' units.

    Parameters
    ----------
    hidden_layer_sizes, activation, solver, alpha, learning_rate_init, learning_rate, momentum, \
batch_size, max_iter, early_stopping, validation_fraction, n_iter_no_change, warm_start, random_state, \
encrypted_fit, parties, frac_bits, int_bits, n_jobs, verbose
        As for :class:`SecureMLPClassifier`.

    Attributes
    ----------
    model_ : Regressor
        The plain model, as of :class:`SecureMLPClassifier`.
    n_features_in_, feature_names_in_, coefs_, intercepts_, loss_curve_, loss_, n_iter_, \
validation_scores_
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

    _scale: tuple[NDArray[Any], NDArray[Any]]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Train for one epoch, going on from the weights there are.

        The learning rate stays the same; the optimizer's moments begin anew in each call. Targets are
        standardised by those of the first call.

        Parameters
        ----------
        X : array_like of shape (rows, features)
        y : array_like of shape (rows,) or (rows, outputs)
        sample_weight : array_like of shape (rows,), optional

        Returns
        -------
        self
        """
        return self._fit_rows(X, y, sample_weight, hasattr(self, "model_"), 1)

    def _fit(
        self, X: NDArray[Any], y: NDArray[Any], weights: Weights, going_on: bool, epochs: int | None
    ) -> None:
        targets = np.asarray(y, dtype=np.float64).reshape(len(y), -1)
        if going_on:
            middle, deviation = self._scale
        else:
            middle, deviation = standardised(targets, weights)
        if targets.shape[1:] != middle.shape:
            raise ArgumentError(
                f"y must have {len(middle)} outputs as in the fit before, got {targets.shape[1]}"
            )
        scaled = ((targets - middle) / deviation).astype(X.dtype)
        *layers, last = self._train(X, scaled, "squared_error", weights, going_on, epochs)
        self._scale = middle, deviation
        assert isinstance(last, Dense)
        last = dense(last.weights * deviation, last.bias * deviation + middle)
        self.model_ = Regressor([*layers, last], X.shape[1], flat=y.ndim == 1)
        self.model_.take_rows(X)
        # The spread of the targets, which is better than the spread of the predictions.
        self.model_.output_scale_ = deviation
