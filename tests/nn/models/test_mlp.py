"""The MLP: what it learns, that seeds repeat, and that bad input is refused."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nn
from nn.layers import evaluation
from nn.layers.layer import parameters
from nn.losses import LOSSES
from nn.losses.links import normalised
from nn.models.mlp import dense_layers
from nn.models.trainable import NotFittedError
from nn.training import steps as training
from nn.training.optimizers import SGD, Adam
from ring.errors import ArgumentError, DtypeError, RangeError, ShapeError

REPOSITORY = Path(__file__).resolve().parents[3]
MNIST = REPOSITORY.parent / "shared" / "mnist"


@pytest.fixture(scope="module")
def digits():
    return nn.load_digits_8x8()


@pytest.fixture(scope="module")
def fitted(digits):
    X_train, _, y_train, _ = digits
    return nn.MLP((64, 32, 10), random_state=0).fit(X_train, y_train, epochs=30)


def three_blobs(rows=90, dtype=np.float64):
    """Three groups of points, far apart, and the number of each point's group."""
    random = np.random.default_rng(0)
    y = random.integers(3, size=rows)
    centres = np.array([[0, 1], [1, 0], [-1, -1]])
    return (centres[y] + random.normal(scale=0.2, size=(rows, 2))).astype(dtype), y


def bytes_of(model):
    return [array.tobytes() for array in model.parameters]


class TestFit:
    def test_learns_digits(self, digits, fitted):
        assert fitted.score(digits[1], digits[3]) >= 0.96
        assert fitted.score(digits[0], digits[2]) >= 0.99

    @pytest.mark.skipif(not MNIST.is_dir(), reason="needs the idx files of MNIST in ../shared")
    def test_learns_mnist_in_two_epochs(self):
        X_train, X_test, y_train, y_test = nn.load_idx(MNIST)
        model = nn.MLP(random_state=0).fit(X_train, y_train, epochs=2)
        assert model.score(X_test, y_test) >= 0.965

    @pytest.mark.parametrize("optimizer", ["sgd", "adam", SGD(0.05, 0.8), Adam(0.01)], ids=str)
    # "binary_cross_entropy" is for other targets: tests/nn/training/test_tasks.py.
    @pytest.mark.parametrize("loss", sorted(LOSSES.keys() - {"binary_cross_entropy"}))
    @pytest.mark.parametrize("schedule", ["cosine", "constant"])
    def test_learns_with_every_optimizer_and_loss(self, optimizer, loss, schedule):
        X, y = three_blobs()
        rate = {"learning_rate": 0.02} if isinstance(optimizer, str) else {}
        model = nn.MLP((2, 16, 3), random_state=0).fit(
            X,
            y,
            epochs=30,
            batch_size=16,
            optimizer=optimizer,
            loss=loss,
            schedule=schedule,
            **rate,
        )
        assert model.score(X, y) >= 0.97
        assert model.loss_curve_[-1] < model.loss_curve_[0] / 2

    def test_is_the_steps_of_training(self):
        # Two epochs of one batch each: the whole of fit, written out.
        X, y = three_blobs(20)
        model = nn.MLP((2, 4, 3), random_state=5).fit(X, y, epochs=2, schedule="linear")
        random = np.random.default_rng(5)
        layers, optimizer = dense_layers((2, 4, 3), random), SGD(0.1, 0.9)
        loss, curve = LOSSES["cross_entropy"], []
        for scale in (1.0, 0.5):
            rows = random.permutation(20)
            scores = training.forward(layers, X[rows])
            curve.append(loss.value(scores, np.eye(3)[y[rows]]))
            training.backward(layers, loss.gradient(scores, np.eye(3)[y[rows]]))
            training.update(layers, optimizer, scale)
        for array, wanted in zip(model.parameters, parameters(layers), strict=True):
            np.testing.assert_array_equal(array, wanted)
        assert model.loss_curve_ == pytest.approx(curve, abs=1e-12)

    def test_short_last_batch_counts_by_its_rows(self):
        # A rate too small to move anything: the mean loss must be that of the initial weights.
        X, y = three_blobs(70)
        model = nn.MLP((2, 3), random_state=0).fit(
            X, y, epochs=1, batch_size=64, learning_rate=1e-12
        )
        scores = training.forward(dense_layers((2, 3), np.random.default_rng(0)), X)
        wanted = LOSSES["cross_entropy"].value(scores, np.eye(3)[y])
        assert model.loss_curve_ == pytest.approx([wanted], abs=1e-9)

    def test_returns_itself(self):
        X, y = three_blobs()
        model = nn.MLP((2, 3))
        assert model.fit(X, y, epochs=1) is model

    def test_default_layers_are_those_of_the_main_job(self):
        assert nn.MLP().layer_sizes == (784, 128, 128, 10)

    def test_an_int_seed_gives_the_same_model_each_time(self):
        X, y = three_blobs()
        model = nn.MLP((2, 8, 3), random_state=1)
        first = bytes_of(model.fit(X, y, epochs=2))
        assert bytes_of(model.fit(X, y, epochs=2)) == first
        assert bytes_of(nn.MLP((2, 8, 3), random_state=1).fit(X, y, epochs=2)) == first
        assert bytes_of(nn.MLP((2, 8, 3), random_state=2).fit(X, y, epochs=2)) != first

    @pytest.mark.parametrize("make", [np.random.default_rng, np.random.RandomState])
    def test_generators_seed_and_advance(self, make):
        X, y = three_blobs()
        model = nn.MLP((2, 8, 3), random_state=make(1))
        first = bytes_of(model.fit(X, y, epochs=1))
        assert bytes_of(model.fit(X, y, epochs=1)) != first
        assert bytes_of(nn.MLP((2, 8, 3), random_state=make(1)).fit(X, y, epochs=1)) == first

    def test_an_optimizer_object_starts_afresh(self):
        X, y = three_blobs()
        for optimizer in (SGD(), Adam()):
            runs = [
                bytes_of(nn.MLP((2, 3), random_state=0).fit(X, y, optimizer=optimizer))
                for _ in range(2)
            ]
            assert runs[0] == runs[1]

    def test_names_and_values_reach_the_optimizer(self):
        X, y = three_blobs()

        def weights(**options):
            return bytes_of(nn.MLP((2, 3), random_state=0).fit(X, y, batch_size=16, **options))

        default = weights()
        assert weights(optimizer="sgd", learning_rate=0.1, momentum=0.9) == default
        assert weights(optimizer=SGD(0.1, 0.9)) == default
        assert weights(learning_rate=0.2) == weights(optimizer=SGD(0.2)) != default
        assert weights(momentum=0.5) == weights(optimizer=SGD(momentum=0.5)) != default
        assert weights(optimizer="adam", learning_rate=0.2) == weights(optimizer=Adam(0.2))

    @pytest.mark.parametrize(
        ("given", "computed"),
        [
            (np.float32, np.float32),
            (np.float64, np.float64),
            (np.int64, np.float64),
            (np.uint8, np.float64),
            (bool, np.float64),
            (np.float16, np.float64),
        ],
    )
    def test_dtype(self, given, computed):
        X = np.array([[0, 1], [1, 0]], dtype=given)
        model = nn.MLP((2, 3, 2), random_state=0).fit(X, [0, 1], epochs=2)
        assert {array.dtype for array in model.parameters} == {np.dtype(computed)}
        assert model.decision_function(X.astype(np.float64)).dtype == computed
        assert model.predict_proba(X).dtype == computed

    def test_float32_and_float64_agree(self, digits):
        X_train, X_test, y_train, _ = digits
        scores = [
            nn.MLP((64, 16, 10), random_state=0)
            .fit(X_train.astype(dtype), y_train, epochs=1)
            .decision_function(X_test)
            for dtype in (np.float32, np.float64)
        ]
        np.testing.assert_allclose(scores[0], scores[1], atol=1e-3)

    def test_input_is_not_changed(self):
        X, y = three_blobs()
        before = X.copy(), y.copy()
        nn.MLP((2, 3)).fit(X, y, epochs=1)
        np.testing.assert_array_equal(X, before[0])
        np.testing.assert_array_equal(y, before[1])

    def test_accepts_read_only_and_strided_rows(self):
        X, y = three_blobs()
        wide = np.repeat(X, 2, axis=1)[:, ::2]
        wide.setflags(write=False)
        a, b = (nn.MLP((2, 3), random_state=0).fit(data, y, epochs=1) for data in (X, wide))
        np.testing.assert_allclose(a.parameters[0], b.parameters[0], atol=1e-12)

    def test_without_hidden_layers_and_with_one_row_a_batch(self):
        X, y = three_blobs()
        model = nn.MLP((2, 3), random_state=0).fit(X, y, batch_size=1, learning_rate=0.01)
        assert model.score(X, y) >= 0.97

    def test_validation_scores(self, digits):
        X_train, X_test, y_train, y_test = digits
        model = nn.MLP((64, 10), random_state=0)
        model.fit(X_train, y_train, epochs=3, validation=(X_test, y_test))
        assert len(model.validation_scores_) == len(model.loss_curve_) == 3
        assert model.validation_scores_[-1] == model.score(X_test, y_test)
        plain = nn.MLP((64, 10), random_state=0).fit(X_train, y_train, epochs=3)
        assert plain.validation_scores_ == []
        assert bytes_of(plain) == bytes_of(model)

    def test_nothing_of_the_training_data_stays(self, digits):
        X_train, _, y_train, _ = digits
        model = nn.MLP((64, 10), random_state=0).fit(X_train, y_train, epochs=1)
        model.predict(X_train)
        weights = sum(array.nbytes for array in model.parameters)
        assert len(pickle.dumps(model)) < weights + 2000


class TestLabels:
    @pytest.mark.parametrize(
        "names",
        [
            np.array([10, -3, 7]),
            np.array(["plum", "apple", "fig"]),
            np.array([0.5, 2.5, -1.0]),
            np.array(["plum", "apple", "fig"], dtype=object),
        ],
        ids=["int", "str", "float", "object"],
    )
    def test_any_labels_that_sort(self, names):
        X, y = three_blobs()
        model = nn.MLP((2, 16, 3), random_state=0).fit(X, names[y], batch_size=16)
        assert model.classes_.tolist() == sorted(names.tolist())
        assert model.predict(X).dtype == names.dtype
        assert (model.predict(X) == names[y]).mean() == model.score(X, names[y]) >= 0.97

    def test_other_names_in_the_same_order_change_no_weights(self):
        X, y = three_blobs()
        models = [
            nn.MLP((2, 3), random_state=0).fit(X, labels, epochs=2)
            for labels in (y, 10 * y - 5, np.array(["a", "b", "c"])[y])
        ]
        assert bytes_of(models[0]) == bytes_of(models[1]) == bytes_of(models[2])
        assert models[1].predict(X).tolist() == (10 * models[0].predict(X) - 5).tolist()

    def test_two_classes_have_two_columns(self):
        X = np.array([[0.0], [1.0]])
        model = nn.MLP((1, 2), random_state=0).fit(X, [False, True], epochs=200)
        assert model.decision_function(X).shape == (2, 2)
        assert model.predict(X).tolist() == [False, True]

    def test_classes_names_labels_that_y_lacks(self):
        X, y = three_blobs()
        names = np.array(["a", "b", "c", "d"])
        labels = names[[0, 2, 3]][y]
        model = nn.MLP((2, 16, 4), random_state=0).fit(X, labels, batch_size=16, classes=names)
        assert model.classes_.tolist() == names.tolist()
        assert model.score(X, labels) >= 0.97
        assert model.predict_proba(X)[:, 1].max() < 0.2

    def test_wrong_number_of_classes(self):
        X, y = three_blobs()
        with pytest.raises(
            ArgumentError, match=r"layer_sizes\[-1\] .* is 4, but y has 3 different"
        ):
            nn.MLP((2, 4)).fit(X, y)

    @pytest.mark.parametrize(
        ("classes", "error", "message"),
        [
            ([0, 1], ShapeError, "one label for each of 3 outputs"),
            ([[0, 1, 2]], ShapeError, r"one label for each of 3 outputs, got shape \(1, 3\)"),
            ([0, 2, 1], ArgumentError, r"ascending and different, got \[0, 2, 1\]"),
            ([0, 1, 1], ArgumentError, "ascending and different"),
            ([0, 1, 3], ArgumentError, "y must hold labels from classes only, got .*2"),
            (["0", "1", "2"], DtypeError, "y must hold labels like .*'0'.* got int64"),
        ],
    )
    def test_bad_classes(self, classes, error, message):
        X, y = three_blobs()
        with pytest.raises(error, match=message):
            nn.MLP((2, 3)).fit(X, y, classes=classes)


class TestPrediction:
    def test_scores_by_hand(self):
        model = nn.MLP.from_parameters(
            [[[1.0, -1.0], [0.5, 2.0]], [0.0, 0.5], [[1.0, 0.0], [-1.0, 2.0]], [0.0, 1.0]],
            classes=["no", "yes"],
        )
        X = [[1.0, 2.0], [1.0, -1.0], [6.0, -2.0]]
        assert model.decision_function(X).tolist() == [[-1.5, 8.0], [0.5, 1.0], [5.0, 1.0]]
        assert model.predict(X).tolist() == ["yes", "yes", "no"]
        assert model.score(X, ["yes", "no", "no"]) == 2 / 3
        np.testing.assert_allclose(
            model.predict_proba(X)[:, 1], 1 / (1 + np.exp([-9.5, -0.5, 4.0])), atol=1e-12
        )

    def test_ties_go_to_the_first_class(self):
        model = nn.MLP.from_parameters([np.zeros((1, 3)), [0.0, 1.0, 1.0]])
        assert model.predict([[5.0]]).tolist() == [1]

    def test_probabilities(self, digits, fitted):
        probabilities = fitted.predict_proba(digits[1])
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
        assert probabilities.min() >= 0
        assert (fitted.classes_[probabilities.argmax(axis=1)] == fitted.predict(digits[1])).all()

    def test_probabilities_of_a_model_of_squared_error(self):
        X, y = three_blobs()
        model = nn.MLP((2, 16, 3), random_state=0).fit(
            X, y, epochs=30, batch_size=16, learning_rate=0.02, loss="squared_error"
        )
        probabilities = model.predict_proba(X)
        np.testing.assert_array_equal(probabilities, normalised(model.decision_function(X)))
        # A softmax of scores near 0 and 1 would stay below 0.6.
        assert np.median(probabilities.max(axis=1)) > 0.8

    def test_pieces_give_what_the_whole_gives(self, digits, fitted, monkeypatch):
        whole = fitted.decision_function(digits[0])
        for rows in (1, 7, len(digits[0])):
            monkeypatch.setattr(evaluation, "ROWS_AT_ONCE", rows)
            np.testing.assert_allclose(fitted.decision_function(digits[0]), whole, atol=1e-4)

    def test_no_rows(self, fitted):
        assert fitted.decision_function(np.empty((0, 64))).shape == (0, 10)
        assert fitted.predict(np.empty((0, 64))).shape == (0,)
        assert fitted.predict_proba(np.empty((0, 64))).shape == (0, 10)
        with pytest.raises(ShapeError, match="X must have at least one row"):
            fitted.score(np.empty((0, 64)), [])

    def test_copies_and_pickles_predict_the_same(self, digits, fitted):
        for other in (copy.deepcopy(fitted), pickle.loads(pickle.dumps(fitted))):
            np.testing.assert_array_equal(other.predict(digits[1]), fitted.predict(digits[1]))

    def test_before_fit(self):
        model = nn.MLP((2, 3))
        X, y = three_blobs(3)
        for use in (
            lambda: model.predict(X),
            lambda: model.predict_proba(X),
            lambda: model.decision_function(X),
            lambda: model.score(X, y),
            lambda: model.parameters,
            lambda: model.layers,
            lambda: model.classes_,
        ):
            with pytest.raises(NotFittedError, match=r"the model has no \w+ yet: call fit first"):
                use()
        assert not hasattr(model, "parameters")
        assert copy.copy(model).layer_sizes == (2, 3)
        assert model.n_features_in_ == 2
        with pytest.raises(AttributeError, match="'MLP' object has no attribute 'wieghts'"):
            _ = model.wieghts

    @pytest.mark.parametrize(
        ("X", "error", "message"),
        [
            (np.ones((2, 63)), ShapeError, r"X must have 64 features .* got shape \(2, 63\)"),
            (np.ones(64), ShapeError, r"X must have two axes .* got shape \(64,\)"),
            (np.ones((1, 8, 8)), ShapeError, r"X must have two axes .* got shape \(1, 8, 8\)"),
            (np.full((1, 64), np.nan), RangeError, "finite in float32, got nan in row 0, column 0"),
            (np.full((1, 64), 1e39), RangeError, r"X must be finite in float32, got 1e\+39"),
            (np.full((1, 64), "1"), DtypeError, "X must be a dense array of real numbers, got <U1"),
            (np.ones((1, 64)) * 1j, DtypeError, "real numbers, got complex128"),
        ],
    )
    def test_bad_input(self, fitted, X, error, message):
        for use in (fitted.predict, fitted.predict_proba, fitted.decision_function):
            with pytest.raises(error, match=message):
                use(X)

    def test_bad_labels_for_score(self, digits, fitted):
        with pytest.raises(ShapeError, match="one label for each of 450 rows, got 449"):
            fitted.score(digits[1], digits[3][:-1])
        with pytest.raises(DtypeError, match=r"y must hold labels like .* \(int64\), got <U"):
            fitted.score(digits[1], digits[3].astype(str))
        with pytest.raises(ShapeError, match=r"y must have one axis .* got shape \(450, 10\)"):
            fitted.score(digits[1], nn.one_hot(digits[3]))


class TestBadInput:
    """Each is refused, names what is wrong, and leaves a fitted model as it was."""

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"X": np.ones(90)}, ShapeError, r"X must have two axes .* got shape \(90,\)"),
            ({"X": np.ones((90, 3))}, ShapeError, r"X must have 2 features .* \(90, 3\)"),
            (
                {"X": np.ones((89, 2))},
                ShapeError,
                "y must have one label for each of 89 rows, got 90",
            ),
            ({"X": np.full((90, 2), np.inf)}, RangeError, "finite in float64, got inf in row 0"),
            ({"X": [["a", "b"]] * 90}, DtypeError, "X must be a dense array of real numbers"),
            ({"X": np.empty((0, 2)), "y": []}, ShapeError, "X must have at least one row"),
            ({"y": np.eye(3)[[0] * 90]}, ShapeError, r"y must have one axis .* \(90, 3\)"),
            ({"y": np.full(90, np.nan)}, RangeError, "y must be finite, got nan in row 0"),
            ({"y": np.array([0, "a", None] * 30, dtype=object)}, DtypeError, "labels that sort"),
            ({"y": np.zeros(90)}, ArgumentError, "is 3, but y has 1 different labels"),
            ({"epochs": 0}, ArgumentError, "epochs must be at least 1, got 0"),
            ({"epochs": 1.5}, DtypeError, "epochs must be an integer, got 1.5"),
            ({"epochs": True}, DtypeError, "epochs must be an integer, got True"),
            ({"batch_size": 0}, ArgumentError, "batch_size must be at least 1, got 0"),
            ({"batch_size": "8"}, DtypeError, "batch_size must be an integer, got '8'"),
            ({"optimizer": "adagrad"}, ArgumentError, r"one of \['adam', 'sgd'\] .* 'adagrad'"),
            ({"optimizer": SGD}, ArgumentError, "optimizer must be one of"),
            ({"optimizer": None}, ArgumentError, "optimizer must be one of .* got None"),
            ({"learning_rate": -1}, ArgumentError, "learning_rate must be above 0 .* got -1.0"),
            ({"learning_rate": np.nan}, ArgumentError, "learning_rate must be above 0 .* got nan"),
            ({"learning_rate": "fast"}, DtypeError, "learning_rate must be a number, got 'fast'"),
            ({"momentum": 1}, ArgumentError, "momentum must be at least 0 and below 1, got 1.0"),
            ({"optimizer": "adam", "momentum": 0.5}, ArgumentError, "momentum belongs to 'sgd'"),
            (
                {"optimizer": SGD(), "learning_rate": 0.5},
                ArgumentError,
                "learning_rate must be left to the optimizer object, got 0.5",
            ),
            ({"loss": "hinge"}, ArgumentError, "loss must be one of .* got 'hinge'"),
            ({"schedule": "step"}, ArgumentError, "schedule must be one of .* got 'step'"),
            ({"schedule": []}, ArgumentError, r"schedule must be one of .* got \[\]"),
            ({"progress": "yes"}, ArgumentError, "progress must be True, False or None, got 'yes'"),
            (
                {"validation": np.ones((3, 2))},
                ArgumentError,
                r"must be a pair \(X, y\), got ndarray",
            ),
            (
                {"validation": (np.ones((3, 4)), [0, 1, 2])},
                ShapeError,
                r"validation\[0\] must have 2 features",
            ),
            (
                {"validation": (np.ones((3, 2)), [0, 1])},
                ShapeError,
                r"validation\[1\] must have one label for each of 3 rows, got 2",
            ),
            (
                {"validation": (np.ones((3, 2)), list("abc"))},
                DtypeError,
                r"validation\[1\] must hold labels like",
            ),
            (
                {"validation": (np.empty((0, 2)), [])},
                ShapeError,
                "validation must have at least one row",
            ),
            (
                {"learning_rate": 1e30},
                ArgumentError,
                r"SGD\(.*\) must keep the loss finite, got (nan|inf)",
            ),
        ],
    )
    def test_fit(self, change, error, message):
        X, y = three_blobs()
        model = nn.MLP((2, 8, 3), random_state=0).fit(X, y, epochs=1)
        before = bytes_of(model), model.classes_.tolist(), model.loss_curve_
        arguments = {"X": X, "y": y, "loss": "squared_error"} | change
        with pytest.raises(error, match=message):
            model.fit(arguments.pop("X"), arguments.pop("y"), **arguments)
        assert (bytes_of(model), model.classes_.tolist(), model.loss_curve_) == before
        assert model.predict_proba(X[:1]).sum() == pytest.approx(1)

    @pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
    def test_one_value_that_is_not_finite_is_enough(self, value):
        X, y = three_blobs()
        X[3, 0] = value
        with pytest.raises(RangeError, match=f"got {value} in row 3, column 0"):
            nn.MLP((2, 3)).fit(X, y)

    def test_the_first_value_that_is_not_finite_is_named(self):
        X, y = three_blobs()
        X[7, 1], X[8, 0] = -np.inf, np.nan
        with pytest.raises(RangeError, match="got -inf in row 7, column 1"):
            nn.MLP((2, 3)).fit(X, y)

    @pytest.mark.parametrize(
        ("sizes", "error", "message"),
        [
            ((), ArgumentError, "at least the features and the outputs, got 0 entries"),
            ((5,), ArgumentError, "at least the features and the outputs, got 1 entries"),
            ((5, 0, 2), ArgumentError, r"layer_sizes\[1\] must be at least 1, got 0"),
            ((-5, 2), ArgumentError, r"layer_sizes\[0\] must be at least 1, got -5"),
            ((5, 0), ArgumentError, r"layer_sizes\[1\] must be at least 1, got 0"),
            ((5, 2.0), DtypeError, r"layer_sizes\[1\] must be an integer, got 2.0"),
            (("5", 2), DtypeError, r"layer_sizes\[0\] must be an integer, got '5'"),
            (128, DtypeError, "layer_sizes must be a sequence of integers, got 128"),
            ("64-10", DtypeError, "layer_sizes must be a sequence of integers, got '64-10'"),
        ],
    )
    def test_layer_sizes(self, sizes, error, message):
        with pytest.raises(error, match=message):
            nn.MLP(sizes)

    def test_random_state(self):
        with pytest.raises(ArgumentError, match=r"random_state must be at least 0, got -1"):
            nn.MLP(random_state=-1)
        with pytest.raises(DtypeError, match=r"random_state must be .* got str"):
            nn.MLP(random_state="seed")

    def test_layer_sizes_become_a_tuple_of_ints(self):
        sizes = (4, 3, 2)
        assert nn.MLP(sizes).layer_sizes is sizes
        assert nn.MLP([4, 3, 2]).layer_sizes == nn.MLP(np.array([4, 3, 2])).layer_sizes == sizes


class TestFromParameters:
    def test_gives_back_a_fitted_model(self, digits, fitted):
        model = nn.MLP.from_parameters(fitted.parameters, classes=fitted.classes_)
        assert model.layer_sizes == (64, 32, 10)
        assert bytes_of(model) == bytes_of(fitted)
        np.testing.assert_array_equal(
            model.predict_proba(digits[1]), fitted.predict_proba(digits[1])
        )

    def test_copies(self):
        weights = np.ones((2, 2))
        model = nn.MLP.from_parameters([weights, np.zeros(2)])
        weights[:] = 7
        assert model.parameters[0].tolist() == [[1.0, 1.0], [1.0, 1.0]]

    def test_dtype(self):
        single = np.ones((2, 2), dtype=np.float32)
        assert nn.MLP.from_parameters([single, single[0]]).parameters[0].dtype == np.float32
        assert nn.MLP.from_parameters([single, [0, 1]]).parameters[0].dtype == np.float64

    @pytest.mark.parametrize(
        ("parameters", "error", "message"),
        [
            ([], ArgumentError, "weights and a bias for each layer, got 0 arrays"),
            ([np.ones((2, 2))], ArgumentError, "weights and a bias for each layer, got 1 arrays"),
            ([np.ones(2), np.ones(2)], ShapeError, "weights must have two axes"),
            ([np.ones((2, 2)), np.ones(3)], ShapeError, "one entry for each of 2 outputs"),
            (
                [np.ones((2, 3)), np.ones(3), np.ones((4, 2)), np.ones(2)],
                ShapeError,
                r"Dense\(4, 2\) takes rows of shape \(4,\), got shape \(3,\)",
            ),
            ([np.full((2, 2), np.nan), np.ones(2)], RangeError, r"parameters\[0\] .* got nan"),
            ([np.ones((2, 2)), ["a", "b"]], DtypeError, r"parameters\[1\] must be real numbers"),
        ],
    )
    def test_bad_parameters(self, parameters, error, message):
        with pytest.raises(error, match=message):
            nn.MLP.from_parameters(parameters)

    def test_bad_classes(self):
        with pytest.raises(ShapeError, match="one label for each of 2 outputs"):
            nn.MLP.from_parameters([np.ones((2, 2)), np.ones(2)], classes=[1, 2, 3])


class TestProgress:
    def test_bar_on_request(self, capsys):
        X, y = three_blobs()
        nn.MLP((2, 3)).fit(X, y, epochs=3, batch_size=30, progress=True)
        assert "9/9" in capsys.readouterr().err

    @pytest.mark.parametrize("progress", [None, False])
    def test_silent_when_stderr_is_no_terminal(self, progress, capsys):
        X, y = three_blobs()
        nn.MLP((2, 3)).fit(X, y, epochs=3, progress=progress)
        assert capsys.readouterr() == ("", "")


def test_import_loads_neither_scikit_learn_nor_tqdm():
    program = "import sys, nn; print([m for m in ('sklearn', 'tqdm') if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
