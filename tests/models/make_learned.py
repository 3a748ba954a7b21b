"""Export models of scikit-learn by skl2onnx, with what onnxruntime makes of rows.

Needs skl2onnx and onnxruntime, which the tests do not: run it in an environment of its own.

    python tests/models/make_learned.py

NAME.onnx and NAME.npz are written to the folder "learned": rows in float32, and the outputs for them. Where
there are trees, some rows lie on thresholds or next to them, as float32, in front of scalers too.
"""

import os
import warnings

import numpy as np
import onnx
import onnxruntime
import skl2onnx
from onnx import TensorProto, helper
from sklearn import (
    compose,
    datasets,
    decomposition,
    ensemble,
    feature_selection,
    linear_model,
    multiclass,
    preprocessing,
    svm,
    tree,
)
from sklearn.pipeline import make_pipeline, make_union

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "learned")
IRIS, CANCER, DIABETES = (
    getattr(datasets, f"load_{name}")(return_X_y=True)
    for name in ("iris", "breast_cancer", "diabetes")
)
scale, range_of = preprocessing.StandardScaler, preprocessing.MinMaxScaler
MODELS = {
    "logistic": (IRIS, make_pipeline(scale(), linear_model.LogisticRegression())),
    "one_vs_rest": (IRIS, multiclass.OneVsRestClassifier(linear_model.LogisticRegression())),
    "ridge": (DIABETES, make_pipeline(preprocessing.RobustScaler(), linear_model.Ridge())),
    "tree": (IRIS, make_pipeline(scale(), tree.DecisionTreeClassifier(random_state=0))),
    "forest": (
        CANCER,
        make_pipeline(
            feature_selection.SelectKBest(k=8), range_of(),
            ensemble.RandomForestClassifier(8, max_depth=4, random_state=0),
        ),
    ),
    "forest_of_columns": (
        DIABETES,
        make_pipeline(
            compose.ColumnTransformer(
                [("a", scale(), [0, 2, 8]), ("b", preprocessing.MaxAbsScaler(), [3])],
                remainder="passthrough",
            ),
            ensemble.RandomForestRegressor(6, max_depth=4, random_state=0),
        ),
    ),
    "boosting": (IRIS, ensemble.GradientBoostingClassifier(n_estimators=4, random_state=0)),
    "boosting_of_two": (CANCER, ensemble.GradientBoostingClassifier(n_estimators=4, random_state=0)),
    "boosting_of_values": (DIABETES, ensemble.GradientBoostingRegressor(n_estimators=6, random_state=0)),
    "union": (
        IRIS,
        make_pipeline(
            make_union(scale(), decomposition.PCA(2)), linear_model.LogisticRegression()
        ),
    ),
    "normalizer": (IRIS, make_pipeline(preprocessing.Normalizer(), linear_model.LogisticRegression())),
    "binarizer": (
        IRIS, make_pipeline(preprocessing.Binarizer(threshold=1.5), linear_model.LogisticRegression()),
    ),
    "svc_linear": (IRIS, make_pipeline(scale(), svm.SVC(kernel="linear"))),
    "svc_rbf_of_two": (CANCER, make_pipeline(scale(), svm.SVC())),
    "svr_linear": (DIABETES, make_pipeline(scale(), svm.SVR(kernel="linear"))),
    "svr_rbf": (DIABETES, make_pipeline(scale(), svm.SVR(C=10.0))),
}  # fmt: skip


def members(estimator):
    """Return the trees of an estimator."""
    last = estimator[-1] if hasattr(estimator, "steps") else estimator
    return [
        one.tree_ for one in np.ravel(getattr(last, "estimators_", last)) if hasattr(one, "tree_")
    ]


def on_thresholds(estimator, X, random):
    """Return rows with a feature at a threshold or up to three float32 from it."""
    if not members(estimator):
        return np.empty((0, X.shape[1]), np.float32)
    rows, front = [], estimator[:-1] if hasattr(estimator, "steps") else None
    base = X.astype(np.float64)
    low, high = X.min(axis=0), X.max(axis=0)
    if front is None:
        factors, offsets, columns = np.ones(X.shape[1]), np.zeros(X.shape[1]), range(X.shape[1])
    else:  # each column is a feature, scaled
        offsets = front.transform(np.zeros((1, X.shape[1])))[0]
        matrix = front.transform(np.eye(X.shape[1])) - offsets
        columns = np.abs(matrix).argmax(axis=0)
        factors = matrix[columns, np.arange(matrix.shape[1])]
    taken = base.astype(np.float32)
    taken = taken if front is None else np.asarray(front.transform(taken), np.float32)
    for one in members(estimator):
        paths = one.decision_path(taken).toarray()
        for node in np.flatnonzero(one.children_left >= 0):
            k = one.feature[node]
            value = np.float32((one.threshold[node] - offsets[k]) / factors[k])
            for _ in range(random.integers(0, 4)):
                value = np.nextafter(value, np.float32(random.choice([-9e9, 9e9])))
            row = base[random.choice(np.flatnonzero(paths[:, node]))].astype(np.float32)
            row[columns[k]] = np.clip(
                value, np.float32(low[columns[k]]), np.float32(high[columns[k]])
            )
            rows.append(row)
    return np.array(rows, np.float32)[:400]


def every_mode():
    """Return a graph with a node of each mode, and rows on all thresholds."""
    modes = ["LEQ", "LT", "GTE", "GT", "EQ", "NEQ"]
    inner = len(modes)
    # Node k: if true, leaf `inner + k`, else node k + 1; the last one has two leaves.
    nodes = {
        "nodes_treeids": [0] * (2 * inner + 1),
        "nodes_nodeids": list(range(2 * inner + 1)),
        "nodes_featureids": [k % 2 for k in range(inner)] + [0] * (inner + 1),
        "nodes_modes": [f"BRANCH_{mode}" for mode in modes] + ["LEAF"] * (inner + 1),
        "nodes_values": [-2.0, -1.0, 3.0, 2.0, 0.25, 0.5] + [0.0] * (inner + 1),
        "nodes_truenodeids": [inner + k for k in range(inner)] + [0] * (inner + 1),
        "nodes_falsenodeids": [*range(1, inner), 2 * inner] + [0] * (inner + 1),
        "nodes_missing_value_tracks_true": [1, 0] * inner + [0],
    }
    targets = {
        "target_treeids": [0] * (2 * inner + 2),
        "target_nodeids": [inner + k // 2 for k in range(2 * inner + 2)],
        "target_ids": [k % 2 for k in range(2 * inner + 2)],
        "target_weights": [float(k + 1) for k in range(2 * inner + 2)],
        "n_targets": 2, "aggregate_function": "AVERAGE", "base_values": [0.5, -0.5],
    }  # fmt: skip
    node = helper.make_node(
        "TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", **nodes, **targets
    )
    graph = helper.make_graph(
        [node], "modes",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 2])],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    values = np.array([-2.0, -1.0, 0.25, 0.5, 2.0, 3.0], np.float32)
    values = np.concatenate(
        [values, np.nextafter(values, np.float32(-9)), np.nextafter(values, np.float32(9))]
    )
    rows = np.stack(np.meshgrid(values, values), axis=-1).reshape(-1, 2)
    return helper.make_model(graph, opset_imports=opsets, ir_version=8), rows


def write(name, model, rows):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found = session.run(None, {model.graph.input[0].name: rows})
    outputs = {}
    for output, value in zip(model.graph.output, found, strict=True):
        if isinstance(value, list):  # of ZipMap
            value = np.array([list(row.values()) for row in value], np.float32)
        outputs[output.name] = value
    onnx.save(model, os.path.join(FOLDER, f"{name}.onnx"))
    np.savez_compressed(os.path.join(FOLDER, f"{name}.npz"), rows=rows, **outputs)


def main():
    random = np.random.default_rng(0)
    os.makedirs(FOLDER, exist_ok=True)
    write("every_mode", *every_mode())
    for name, ((X, y), estimator) in MODELS.items():
        X = X.astype(np.float32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            estimator.fit(X, y)
            model = skl2onnx.to_onnx(estimator, X[:1])
        some = X[random.permutation(len(X))[:60]]
        write(name, model, np.concatenate([some, on_thresholds(estimator, X, random)]))


if __name__ == "__main__":
    main()
