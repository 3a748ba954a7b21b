"""Support vector machines, kernel machines, neighbours and centroids of scikit-learn."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nn.convert.conversion import Conversion, Scores, Values
from nn.convert.expressions import Affine, joined
from nn.convert.problems import ConversionError
from nn.convert.sklearn_linear import binary, squares
from nn.layers import Abs, Clip, Exp, Largest, Multiply, Reciprocal, Step, Tanh

__all__ = ["CLASSIFIERS", "REGRESSORS", "kernel", "pair_votes", "pair_weights", "pairwise_scores"]

Floats = NDArray[np.float64]
# Below this, e^x is less than a fixed-point unit.
_NOTHING = -24.0


def kernel(
    c: Conversion, x: Affine, name: Any, vectors: Floats, gamma: float, offset: float, degree: float
) -> Affine:
    """Return a kernel of rows and vectors, one column for each vector."""
    vectors = np.asarray(vectors.toarray() if hasattr(vectors, "toarray") else vectors, np.float64)
    if name == "linear":
        return x.map(vectors.T)
    if name == "rbf":
        # In units in which the exponent is the distance: no number is large that matters.
        middle = vectors.mean(axis=0)
        root = float(np.sqrt(gamma))
        z, points = x.map(np.full(x.size, root), -middle * root), (vectors - middle) * root
        return c.build.apply(Exp(), c.build.apply(Clip(_NOTHING, 0.0), -_distances(c, z, points)))
    product = x.map(gamma * vectors.T, offset)
    if name in ("poly", "polynomial") and float(degree).is_integer() and degree >= 1:
        power = product
        for _ in range(int(degree) - 1):
            power = c.build.apply(Multiply(), power, product)
        return power
    if name == "sigmoid":
        return c.build.apply(Tanh(), product)
    raise ConversionError(
        f"a kernel must be linear, rbf, poly or sigmoid to be converted, got {name!r}"
    )


def _distances(c: Conversion, z: Affine, points: Floats) -> Affine:
    """Return squared distances of rows to points."""
    total = squares(c, z).map(np.ones((z.size, len(points))))
    return total + z.map(-2.0 * points.T, (points**2).sum(axis=1))


def pairwise_scores(c: Conversion, z: Affine, classes: int, first_wins: bool) -> Affine:
    """Return votes of all pairs of classes, with ties decided by the sums of `z` as scikit-learn does."""
    votes, sums = pair_votes(c, z, classes, first_wins), np.zeros((z.size, classes))
    for k, (i, j) in enumerate(combinations(range(classes), 2)):
        sums[k, i], sums[k, j] = (1, -1) if first_wins else (-1, 1)
    total = z.map(sums)
    size = c.build.apply(Abs(), total).map(np.full(classes, 3.0), 3.0)
    small = c.build.apply(Multiply(), total, c.build.apply(Reciprocal(), size))
    return votes + small


def pair_votes(c: Conversion, z: Affine, classes: int, first_wins: bool) -> Affine:
    """Return the votes of each class: a positive z is one for the pair's first class, or its second."""
    positive = c.build.apply(Step(), z)
    matrix, bias = np.zeros((z.size, classes)), np.zeros(classes)
    for k, (i, j) in enumerate(combinations(range(classes), 2)):
        winner, loser = (i, j) if first_wins else (j, i)
        matrix[k, winner], matrix[k, loser] = 1, -1
        bias[loser] += 1
    return positive.map(matrix, bias)


def _machine(c: Conversion, step: Any, x: Affine) -> Affine:
    """Return the kernels of a support vector machine's rows and vectors."""
    if callable(step.kernel) or step.kernel == "precomputed":
        raise ConversionError(
            f"{type(step).__name__} is converted with a kernel that scikit-learn knows by name, got "
            f"{step.kernel!r}"
        )
    return kernel(c, x, step.kernel, step.support_vectors_, step._gamma, step.coef0, step.degree)


def _dense(matrix: Any) -> Floats:
    return np.asarray(matrix.toarray() if hasattr(matrix, "toarray") else matrix, np.float64)


def pair_weights(dual: Floats, members: Any) -> Floats:
    """Return the weights of support vectors in the sums of all pairs of classes, (vectors, pairs).

    `dual` has a row less than there are classes; `members` counts the vectors of each.
    """
    stops = np.cumsum([0, *members])
    pairs = list(combinations(range(len(members)), 2))
    weights = np.zeros((dual.shape[1], len(pairs)))
    for k, (i, j) in enumerate(pairs):
        for one, row in ((i, j - 1), (j, i)):
            part = slice(stops[one], stops[one + 1])
            weights[part, k] = dual[row, part]
    return weights


def _svc(c: Conversion, step: Any, x: Affine) -> Scores:
    dual, classes = _dense(step.dual_coef_), np.asarray(step.classes_)
    if len(classes) == 2:
        z = _machine(c, step, x).map(dual.T, np.asarray(step.intercept_))
        return Scores(binary(z), classes, None, z)
    weights = pair_weights(dual, step.n_support_)
    z = _machine(c, step, x).map(weights, np.asarray(step.intercept_))
    if step.break_ties:
        scores = pairwise_scores(c, z, len(classes), True)
    else:
        scores = pair_votes(c, z, len(classes), True)
    decision = z if step.decision_function_shape == "ovo" else None
    return Scores(scores, classes, None, decision)


def _svr(c: Conversion, step: Any, x: Affine) -> Values:
    values = _machine(c, step, x).map(_dense(step.dual_coef_).T, np.asarray(step.intercept_))
    return Values(values)


def _kernel_ridge(c: Conversion, step: Any, x: Affine) -> Values:
    points = _dense(step.X_fit_)
    gamma = 1 / points.shape[1] if step.gamma is None else step.gamma
    found = kernel(c, x, step.kernel, points, gamma, step.coef0, step.degree)
    dual = np.asarray(step.dual_coef_)
    return Values(found.map(dual.reshape(len(points), -1)), dual.ndim == 1)


def _gaussian_process(c: Conversion, step: Any, x: Affine) -> Values:
    from sklearn.gaussian_process import kernels

    factor, inner = 1.0, step.kernel_
    # Noise is in the fit; between its rows and others there is none.
    if isinstance(inner, kernels.Sum) and isinstance(inner.k2, kernels.WhiteKernel):
        inner = inner.k1
    if isinstance(inner, kernels.Product) and isinstance(inner.k1, kernels.ConstantKernel):
        factor, inner = inner.k1.constant_value, inner.k2
    if type(inner) is not kernels.RBF:  # others, such as Matern, are derived from it
        raise ConversionError(
            "GaussianProcessRegressor is converted with a constant times RBF, and WhiteKernel after a "
            f"plus, got {step.kernel_}"
        )
    scale = np.broadcast_to(np.asarray(inner.length_scale, np.float64), (x.size,))
    points = np.asarray(step.X_train_) / scale
    found = kernel(c, x.map(1 / scale), "rbf", points, 0.5, 0.0, 0.0)
    alpha = np.asarray(step.alpha_).reshape(len(points), -1) * factor
    spread = np.atleast_1d(np.asarray(step._y_train_std, np.float64))
    values = found.map(alpha * spread, np.atleast_1d(np.asarray(step._y_train_mean, np.float64)))
    return Values(values, np.ndim(step.alpha_) == 1)


# Neighbours and centroids.


def _nearness(c: Conversion, x: Affine, points: Floats) -> Affine:
    """Return, for each point, a number that is the larger the nearer it is to the row.

    It is the product with the point less half its square, in units in which the format has room for it
    and all digits.
    """
    middle = points.mean(axis=0)
    points = points - middle
    size = float(np.abs(points).max(initial=0.0)) or 1.0
    scale = 32.0 / (size * max(1.0, np.sqrt(points.shape[1]) / 4))
    z, points = x.map(np.full(x.size, scale), -middle * scale), points * scale
    return z.map(points.T, -0.5 * (points**2).sum(axis=1))


def _neighbours(c: Conversion, step: Any, x: Affine) -> Affine:
    metric, power = step.effective_metric_, step.effective_metric_params_.get("p", 2)
    euclidean = metric == "euclidean" or (metric == "minkowski" and power == 2)
    if step.weights != "uniform" or not euclidean:
        raise ConversionError(
            f"{type(step).__name__} is converted with weights='uniform' and the Euclidean distance, "
            f"got weights={step.weights!r} and {metric}"
        )
    points = _dense(step._fit_X)
    return c.build.apply(Largest(step.n_neighbors), _nearness(c, x, points))


def _neighbours_classifier(c: Conversion, step: Any, x: Affine) -> Scores:
    if step.outputs_2d_:
        raise ConversionError("KNeighborsClassifier of several outputs is not converted")
    classes = np.asarray(step.classes_)
    labels = np.eye(len(classes))[np.asarray(step._y)] / step.n_neighbors
    return Scores(_neighbours(c, step, x).map(labels), classes, "normalised", certain=True)


def _neighbours_regressor(c: Conversion, step: Any, x: Affine) -> Values:
    targets = np.asarray(step._y, np.float64)
    values = _neighbours(c, step, x).map(targets.reshape(len(targets), -1) / step.n_neighbors)
    return Values(values, targets.ndim == 1)


def _centroid(c: Conversion, step: Any, x: Affine) -> Scores:
    classes, points = np.asarray(step.classes_), np.asarray(step.centroids_, np.float64)
    prior = np.asarray(step.class_prior_)
    equal = np.isclose(prior, 1 / len(classes)).all()
    if step.metric == "euclidean" and equal:
        return Scores(_nearness(c, x, points), classes, None)
    if step.metric == "manhattan" and equal:
        scale = 32.0 / (float(np.abs(points).max()) or 1.0)
        apart = joined([x.map(np.full(x.size, scale), -point * scale) for point in points])
        sums = np.kron(np.eye(len(points)), -np.ones((x.size, 1)))
        return Scores(c.build.apply(Abs(), apart).map(sums), classes, None)
    if step.metric != "euclidean":
        raise ConversionError(
            "NearestCentroid with priors is converted for Euclidean distance only"
        )
    spread = np.where(step.within_class_std_dev_ != 0, step.within_class_std_dev_, 1.0)
    points, z = points / spread, x.map(1 / spread)
    middle = points.mean(axis=0)
    points = points - middle
    constants = 2.0 * np.log(prior) - (points**2).sum(axis=1)
    return Scores(z.map(np.ones(z.size), -middle).map(2.0 * points.T, constants), classes, None)


def _clusters(c: Conversion, step: Any, x: Affine) -> Scores:
    points = np.asarray(step.cluster_centers_, np.float64)
    return Scores(_nearness(c, x, points), np.arange(len(points)), None)


CLASSIFIERS = {
    "KMeans": _clusters,
    "KNeighborsClassifier": _neighbours_classifier,
    "MiniBatchKMeans": _clusters,
    "NearestCentroid": _centroid,
    "NuSVC": _svc,
    "SVC": _svc,
}
REGRESSORS = {
    "GaussianProcessRegressor": _gaussian_process,
    "KNeighborsRegressor": _neighbours_regressor,
    "KernelRidge": _kernel_ridge,
    "NuSVR": _svr,
    "SVR": _svr,
}
