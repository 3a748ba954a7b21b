"""Rows whose public bound exceeds the range that a model was shared for are refused on every path."""

import numpy as np
import pytest

import mpc
import nn
from nn.layers import Convolution, Dense, Flatten, ReLU, Reshape, Transpose
from nn.models.predictors import Regressor
from nn.models.saved_shares import load_shares, save_shares


def small(low=0.0, high=1.0):
    model = nn.MLP.from_parameters([[[2.0, -1.0], [-3.0, 0.5]], [0.5, 0.0]])
    model.input_range_ = (low, high)
    return model


PATHS = {
    "call": lambda m, x: m(x),
    "call, batches": lambda m, x: m(x, batch_size=1),
    "outputs": lambda m, x: list(m.outputs(x)),
    "predict": lambda m, x: m.predict(x),
    "predict, to one": lambda m, x: m.predict(x, to="bob"),
    "winners": lambda m, x: m.winners(x),
    "winners, one-hot": lambda m, x: m.winners(x, one_hot=True),
    "decision_function": lambda m, x: m.decision_function(x),
    "predict_proba": lambda m, x: m.predict_proba(x),
}


@pytest.mark.parametrize("path", PATHS)
def test_rows_beyond_the_range_are_refused(path):
    with mpc.Session() as s:
        secret = small().share(s, owner="alice", scores=True)
        outside = (
            s.share(np.full((3, 2), 1000.0), owner="bob"),
            s.share(np.full((3, 2), 0.5), owner="bob"),  # in range, which nobody else knows
            s.share(np.full((3, 2), 1.0), owner="bob", bound=1.5),
            s.share(np.full((3, 2), 1), owner="bob"),  # whole numbers
            s.share(np.ones((3, 2)), owner="bob", bound=1) * 2,
            s.share(np.ones((3, 2)), owner="bob", bound=1) * s.share(np.ones((3, 2)), "bob"),
        )
        for rows in outside:
            before = s.cost().rounds
            with pytest.raises(
                mpc.RangeError, match=r"X must lie in \[0, 1\].*share_rows.*bound=1"
            ):
                PATHS[path](secret, rows)
            assert s.cost().rounds == before
        inside = np.array([[0.25, 1.0], [1.0, 0.0]])
        for rows in (
            s.share(inside, owner="bob", bound=1),
            s.share(np.array([[0, 1], [1, 1]]), owner="bob", bound=1),
            s.share(inside, owner="bob", bound=0.5 + 0.5),
            secret.share_rows(inside, owner="bob"),
            np.concatenate([secret.share_rows(inside, owner=o) for o in s.parties]),
        ):
            PATHS[path](secret, rows)


def test_whole_numbers_and_bits_are_held_against_the_range_itself():
    model = nn.MLP.from_parameters([[[1.0, -1.0]], [0.0, 0.0]])
    with mpc.Session() as s:
        half = s.share([[1]], owner="bob", bound=1) / 2
        for high, rows in (
            (0.01, s.share([[True]], owner="bob")),
            (0.01, s.share([[1]], owner="bob", bound=1)),
            (0.01, half),
            (1.5, s.share([[2]], owner="bob", bound=2)),
            (1.5, s.share([[2], [-1]], owner="bob", bound=2)),
        ):
            secret = model.share(s, owner="alice", low=0, high=high)
            with pytest.raises(mpc.RangeError, match=rf"X must lie in \[0, {high}\].*bound={high}"):
                secret(rows)
        secret = model.share(s, owner="alice", low=0, high=1.5)
        for values, kind in (([[1.0]], float), ([[1]], int), ([[1]], bool)):
            rows = s.share(np.array(values, kind), owner="bob", bound=1)
            np.testing.assert_allclose(secret(rows).reveal(), [[1, -1]], atol=1e-3)
        # What session.share makes of the bound that the error names, if it is no multiple of a unit.
        secret = model.share(s, owner="alice", low=0, high=0.01)
        rows = s.share([[0.01]], owner="bob", bound=0.01)
        np.testing.assert_allclose(secret(rows).reveal(), [[0.01, -0.01]], atol=1e-3)


def test_the_range_holds_for_every_row_inside_the_bound():
    # Fits for inputs in [0, 1], where it gives at most 190 of 256; at -1 it would give -380.
    model = nn.MLP.from_parameters([[[190.0, 0.0], [-190.0, 0.0]], [0.0, 0.0]])
    with mpc.Session(frac_bits=16, int_bits=8) as s:
        with pytest.raises(mpc.RangeError, match=r"380 for inputs of magnitude up to 1"):
            model.share(s, owner="alice", low=0, high=1)
        found = model.audit(low=0, high=1, int_bits=8)
        assert not found.fits and found.suggestion.int_bits == 9
    with mpc.Session(frac_bits=16, int_bits=9) as s:
        secret = model.share(s, owner="alice", low=0, high=1)
        rows = s.share([[-1.0, 1.0], [1.0, -1.0]], owner="bob", bound=1)
        np.testing.assert_allclose(secret(rows).reveal()[:, 0], [-380, 380], atol=1e-2)


def test_the_range_holds_for_rows_as_they_are_rounded():
    # 0.001 is 65.5 units, so it is shared as 66, for which the second layer would give 32965.
    weights = [[[32700.0]], [0.0], [[1001.0, -1001.0]], [0.0, 0.0], np.eye(2), [0.0, 0.0]]
    model = nn.MLP.from_parameters([np.asarray(w) for w in weights])
    with mpc.Session() as s:
        with pytest.raises(
            mpc.RangeError, match=r"32964.* for inputs of magnitude up to 0.0010070"
        ):
            model.share(s, owner="alice", low=0, high=0.001)
    form = model.audit(low=0, high=0.001).suggestion
    with mpc.Session(frac_bits=form.frac_bits, int_bits=form.int_bits) as s:
        secret = model.share(s, owner="alice", low=0, high=0.001)
        rows = secret.share_rows([[0.001]], owner="bob")
        assert secret.predict(rows).tolist() == [0] == model.predict([[0.001]]).tolist()


def test_of_a_range_of_zeros_zeros_are_taken():
    with mpc.Session() as s:
        secret = small(0.0, 0.0).share(s, owner="alice")
        assert secret.predict(secret.share_rows([[0.0, 0.0]], owner="bob")).tolist() == [0]


def test_regressors_and_saved_shares_refuse_them_too(tmp_path):
    model = Regressor(small().layers, 2, (0.0, 1.0))
    with mpc.Session() as s:
        save_shares(model.share(s, owner="alice"), tmp_path / "regressor")
        save_shares(small().share(s, owner="alice"), tmp_path / "classifier")
        for name in ("regressor", "classifier"):
            secret = load_shares(s, tmp_path / name)
            rows = s.share([[7.0, 1.0]], owner="bob", bound=7)
            for attempt in (secret, secret.predict):
                with pytest.raises(mpc.RangeError, match="public bound is 7"):
                    attempt(rows)
            assert secret.predict(s.share([[1.0, 1.0]], owner="bob", bound=1)).shape[0] == 1


def test_rows_from_outside_have_the_models_bound():
    """Of a request nobody but the client has seen the values; it checks them, see nn.Client."""
    with mpc.Session() as s:
        secret = small().share(s, owner="alice")
        shares = s.share(np.full((2, 2), 0.5), owner="bob").shares
        rows = secret.rows_from_shares(shares)
        assert rows.bound == 2**16
        np.testing.assert_array_equal(secret.predict(rows), [0, 0])


def test_workers_refuse_them_before_they_start():
    # Workers belong to sessions between processes; what they run is this.
    from nn.shared.workers import Evaluation

    with mpc.Session() as s:
        secret = small().share(s, owner="alice")
        program = Evaluation(secret, "classes", None)
        parameters = [p for layer in secret.layers for p in layer.parameters]
        with pytest.raises(mpc.RangeError, match="public bound"):
            program(s, s.share([[7.0, 1.0]], owner="bob"), *parameters)
        program(s, s.share([[1.0, 1.0]], owner="bob", bound=1), *parameters)


def test_rows_of_two_owners_are_joined_in_the_models_scale():
    model = small(np.array([0.0, -300.0]), np.array([1.0, 300.0]))
    X = np.array([[0.5, 20.0], [1.0, -20.0], [0.0, 300.0]])
    with mpc.Session() as s:
        secret = model.share(s, owner="alice", scores=True)
        parts = [secret.share_rows(X[:1], owner="alice"), secret.share_rows(X[1:], owner="bob")]
        rows = np.concatenate(parts)
        assert rows.shape == (3, 2)
        np.testing.assert_allclose(
            secret.decision_function(rows), model.decision_function(X), atol=0.1
        )
        np.testing.assert_array_equal(secret.predict(rows), model.predict(X))
        other = small(np.array([0.0, -1.0]), np.array([1.0, 1.0])).share(s, owner="alice")
        for error, message, attempt in (
            (mpc.ArgumentError, "same model",
             lambda: np.concatenate([rows, other.share_rows(X[:1] * 0, owner="bob")])),
            (mpc.DtypeError, "SharedArray: share all rows",
             lambda: np.concatenate([rows, s.share(X, owner="bob")])),
            (mpc.DtypeError, "ndarray: share all rows", lambda: np.concatenate([rows, X])),
            (mpc.ShapeError, "axis 1", lambda: np.concatenate([rows, rows], axis=1)),
            (mpc.DtypeError, r"np\.stack is not defined", lambda: np.stack([rows, rows])),
            (mpc.DtypeError, r"np\.multiply is not defined", lambda: X * rows),
            (mpc.RevealError, "would reveal", lambda: np.asarray(rows)),
        ):  # fmt: skip
            with pytest.raises(error, match=message):
                attempt()


def test_images_have_one_range_a_channel():
    """A pixel that was dark in all rows may be bright in the next: the other pixels say what it can be."""
    rng = np.random.default_rng(1)
    shape = (4, 6, 2)
    for moves in ([Reshape(*shape)], [Reshape(2, 4, 6), Transpose(1, 2, 0)]):
        layers = [
            *moves, Convolution(rng.normal(size=(3, 3, 2, 3)), np.zeros(3)), ReLU(), Flatten(),
            Dense(rng.normal(size=(24, 2)), np.zeros(2)),
        ]  # fmt: skip
        model = Regressor(layers, 48)
        images = rng.uniform(size=(50, *shape)) * [1.0, 0.25]
        images[:, :2] = 0  # dark at the top
        as_rows = images if len(moves) == 1 else images.transpose(0, 3, 1, 2)
        X = as_rows.reshape(50, 48)
        model.take_rows(X)
        ends = [np.asarray(end)[None] for end in model.input_range_]
        for layer in moves:
            ends = [layer(end) for end in ends]
        assert [end.reshape(-1, 2).min(axis=0).tolist() for end in ends] == [[0, 0], [1, 0.25]]
        assert [end.reshape(-1, 2).max(axis=0).tolist() for end in ends] == [[0, 0], [1, 0.25]]
        with mpc.Session() as s:
            secret = model.share(s, owner="alice")
            unseen = as_rows[:, ::-1] if len(moves) == 1 else as_rows[:, :, ::-1]
            unseen = np.ascontiguousarray(unseen).reshape(50, 48)
            rows = secret.share_rows(unseen, owner="bob")
            np.testing.assert_allclose(secret.predict(rows), model.predict(unseen), atol=1e-3)
            # What one channel never reaches is refused there.
            wrong = np.zeros((1, *shape))
            wrong[0, 3, 3, 1] = 0.5
            wrong = wrong if len(moves) == 1 else wrong.transpose(0, 3, 1, 2)
            with pytest.raises(mpc.RangeError, match="in this feature"):
                secret.share_rows(wrong.reshape(1, 48), owner="bob")
    # Features of a table keep a range each.
    table = Regressor([Dense(rng.normal(size=(3, 1)), np.zeros(1))], 3)
    table.take_rows(np.array([[0.0, 1.0, 100.0], [0.5, 3.0, 900.0]]))
    assert table.input_range_[1].tolist() == [0.5, 3.0, 1024.0]
