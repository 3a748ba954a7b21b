"""The range audit: its figures by hand, bounds that hold, suggestions that work."""

from itertools import pairwise

import numpy as np
import pytest

import mpc
import nn
from nn.fixed_point.audit import error_bounds
from nn.fixed_point.inputs import InputScale, ScaledRows, input_range, public_range
from nn.layers import Dense, ReLU
from nn.layers.activations import Sigmoid, Tanh
from nn.models.predictors import Classifier, Regressor
from ring import FixedPoint
from ring.errors import ArgumentError, DtypeError, RangeError, ShapeError


@pytest.fixture(scope="module")
def wide():
    """A regressor for features from thousandths to millions, and rows for it."""
    random = np.random.default_rng(0)
    scale = np.array([1e-3, 1.0, 4e3, 1e6])
    X = random.normal(size=(60, 4)) * scale + np.array([0.0, 100.0, 0.0, 5e6])
    hidden = Dense(random.normal(size=(4, 8)) / scale[:, None], random.normal(size=8))
    hidden.bias -= np.array([0.0, 100.0, 0.0, 5e6]) @ hidden.weights
    out = Dense(random.normal(size=(8, 1)), random.normal(size=1))
    return Regressor([hidden, ReLU(), out], 4, public_range(X)), X


def test_table_by_hand():
    model = nn.MLP.from_parameters([[[2.0, -1.0], [-3.0, 0.0]], [0.5, 0.0]])
    audit = model.audit(low=0, high=1)
    row = audit.layers[1]
    assert [layer.name for layer in audit.layers] == ["input", "1 Dense(2, 2)"]
    assert (row.weight, row.bound, row.bits_left) == (3.0, 2.5, np.log2(2**15 / 3))
    # All weights are exact; the inputs are off by half a unit, and revealing truncates.
    assert row.error_bound == (0.5 * (2 + 3) + 1) * 2**-16
    assert audit.error_bound == row.error_bound
    assert audit.fits and audit.problem is None and audit.suggestion == FixedPoint(16, 15)
    assert np.isnan([row.observed, row.error_observed]).all()
    lines = str(audit).splitlines()
    assert len({len(line) for line in lines[:3]}) == 1, "the table is not aligned"
    assert lines[3] == "frac_bits=16, int_bits=15: fits"


@pytest.mark.parametrize("activation", [ReLU, Sigmoid, Tanh])
@pytest.mark.parametrize("frac_bits", [10, 16, 20])
def test_no_error_exceeds_its_bound(activation, frac_bits):
    random = np.random.default_rng(frac_bits)
    sizes = (6, 12, 9, 3)
    layers = []
    for m, n in pairwise(sizes):
        layers += [Dense(random.normal(size=(m, n)), random.normal(size=n)), activation()]
    model = Classifier(layers[:-1], [0, 1, 2], 6)
    X = random.uniform(-2, 2, size=(100, 6))
    audit = model.audit(X, low=-2, high=2, frac_bits=frac_bits)
    assert audit.rows == 100
    for layer in audit.layers:
        assert 0 <= layer.error_observed <= layer.error_bound
        assert 0 < layer.observed <= layer.bound
    assert audit.layers[-1].error_observed > audit.error_bound / 1000, "an idle bound"


def test_errors_of_two_dense_layers_in_a_row():
    # Between them values are truncated, which costs a unit.
    eye = Dense(np.eye(2), np.zeros(2))
    low, high = np.zeros(2), np.ones(2)
    errors = error_bounds([eye, eye], low, high, 16)
    assert [float(np.max(e)) * 2**16 for e in errors] == [0.5, 0.5, 2.5]


def test_observed_values_are_the_largest_that_occur():
    model = nn.MLP.from_parameters([[[2.0, -1.0], [-3.0, 0.0]], [0.5, 0.0]])
    audit = model.audit([[1.0, 0.0], [0.5, 1.0]])
    assert [layer.observed for layer in audit.layers] == [1.0, 2.5]


def test_the_suggested_format_works_and_the_next_smaller_does_not():
    random = np.random.default_rng(3)
    for scale in (1e3, 1e5, 1e7):
        weights = random.normal(size=(5, 2)) * scale
        model = Regressor([Dense(weights, np.zeros(2))], 5, (-1, 1))
        audit = model.audit()
        form = audit.suggestion
        with mpc.Session(frac_bits=form.frac_bits, int_bits=form.int_bits) as s:
            secret = model.share(s, owner="alice")
            X = random.uniform(-1, 1, size=(20, 5))
            error = np.abs(secret.predict(secret.share_rows(X, owner="bob")) - model.predict(X))
            again = model.audit(frac_bits=form.frac_bits, int_bits=form.int_bits)
            assert again.fits and error.max() <= again.error_bound
        if form.int_bits > 15:
            with (
                mpc.Session(frac_bits=form.frac_bits, int_bits=form.int_bits - 1) as s,
                pytest.raises(RangeError, match=f"int_bits={form.int_bits}"),
            ):
                model.share(s, owner="alice")


def test_the_finest_format_is_finer(wide):
    model, X = wide
    audit = model.audit(X)
    finest = audit.finest
    assert finest.frac_bits > 16 and audit.finest_error_bound < audit.error_bound / 4
    seen = model.audit(X, frac_bits=finest.frac_bits, int_bits=finest.int_bits)
    assert seen.layers[-1].error_observed < audit.layers[-1].error_observed


def test_share_says_which_layer_by_how_much_and_what_would_hold():
    model = nn.MLP.from_parameters(
        [np.full((3, 2), 200.0), np.zeros(2), np.eye(2) * 100, np.zeros(2)]
    )
    with mpc.Session() as s:
        with pytest.raises(
            mpc.RangeError,
            match=r"layer 3, Dense\(2, 2\): its output must stay below 32736 in magnitude, but "
            r"element 0 can reach 60000 for inputs in \[0, 1\]: 27264 too much; "
            r"mpc.Session\(frac_bits=16, int_bits=16\) holds it",
        ):
            model.share(s, owner="alice")
        assert s.fresh_id() == 1, "something was shared"
    with mpc.Session(int_bits=16) as s:
        model.share(s, owner="alice")
    audit = model.audit([[1.0, 1.0, 1.0]])
    assert not audit.fits and "layer 3" in str(audit) and audit.suggestion == FixedPoint(16, 16)
    assert np.isnan(audit.layers[-1].error_observed), "it cannot have been observed"
    assert audit.layers[-1].observed == 60000 and audit.layers[-1].bits_left < 0


def test_no_format_at_all():
    model = Regressor([Dense(np.full((1, 1), 1e16), np.zeros(1))], 1, (0, 1))
    audit = model.audit()
    assert audit.suggestion is None and audit.finest is None and not audit.fits
    with mpc.Session() as s, pytest.raises(RangeError, match="no format holds it"):
        model.share(s, owner="alice")


def test_features_of_very_different_sizes(wide):
    model, X = wide
    with mpc.Session() as s:
        secret = model.share(s, owner="alice")
        rows = secret.share_rows(X, owner="bob")
        assert isinstance(rows, ScaledRows) and rows.shape == (60, 4) and len(rows) == 60
        error = np.abs(secret.predict(rows) - model.predict(X))
        assert error.max() < 1e-3 * model.predict(X).std()
        assert error.max() <= model.audit().error_bound
        np.testing.assert_array_equal(
            secret.predict(rows[10:20]).shape, model.predict(X[10:20]).shape
        )
    # One range for all features is refused, not wrong.
    with mpc.Session() as s, pytest.raises(RangeError, match="for each feature, in place"):
        model.share(s, owner="alice", low=-1e8, high=1e8)


def test_scaling_is_exact_and_public(wide):
    model, X = wide
    low, high = model.input_range_
    inputs = InputScale.of(low, high, model.layers)
    scaled = inputs.apply(X)
    assert np.abs(scaled).max() <= 1 and np.abs(scaled).max(axis=0).min() > 0.25
    np.testing.assert_allclose(np.ldexp(scaled, inputs.power) + inputs.middle, X, rtol=1e-15)
    folded = Regressor(inputs.fold(model.layers), 4)
    np.testing.assert_allclose(folded.predict(scaled), model.predict(X), rtol=1e-9, atol=1e-9)
    assert inputs == InputScale.of(low, high, model.layers)
    assert inputs != InputScale.of(low - 1, high, model.layers)
    assert InputScale.of(np.float64(0), np.float64(1), model.layers) is None


def test_rows_of_another_scale_are_refused(wide):
    model, X = wide
    with mpc.Session() as s:
        secret = model.share(s, owner="alice")
        other = model.share(s, owner="alice", high=model.input_range_[1] * 4)
        with pytest.raises(DtypeError, match="share_rows"):
            secret(s.share(np.zeros((3, 4)), owner="bob"))
        with pytest.raises(mpc.SessionError, match="another range"):
            secret(other.share_rows(X, owner="bob"))
        plain = model.share(s, owner="alice", low=0, high=1)
        with pytest.raises(mpc.SessionError, match="another range"):
            plain(secret.share_rows(X, owner="bob"))
        rows = secret.share_rows(X, owner="bob")
        with pytest.raises(DtypeError, match="whole rows"):
            rows[:, 0]
        with pytest.raises(DtypeError, match="whole rows"):
            rows[0]
        with pytest.raises(mpc.RevealError):
            np.asarray(rows)
        outside = X.copy()
        outside[5, 2] = 1e9
        with pytest.raises(
            RangeError, match=r"in this feature, got 1000000000.0 at index \(5, 2\)"
        ):
            secret.share_rows(outside, owner="bob")


def test_plan_equals_run_with_scaled_rows(wide):
    model, X = wide

    def program(s):
        secret = model.share(s, owner="alice")
        secret.predict(secret.share_rows(X, owner="bob"))

    with mpc.Session(("alice", "bob", "carol")) as s:
        plan = s.plan(program)
        program(s)
        assert plan.cost == s.cost()


def test_public_range_holds_the_data_and_is_coarse():
    random = np.random.default_rng(5)
    X = random.normal(size=(50, 200)) * 10.0 ** random.integers(-6, 7, size=200)
    X[:, 7], X[:, 8] = 0.0, -31.25
    low, high = public_range(X)
    assert (low <= X.min(axis=0)).all() and (X.max(axis=0) <= high).all()
    width, room = np.ptp(X, axis=0), high - low
    vary = width > 0
    assert (room[vary] <= 3 * width[vary]).all()
    # Ends are small multiples of a power of two.
    mantissa, _ = np.frexp(room)
    assert np.isin(mantissa, [0.5, 0.625, 0.75, 0.875]).all()
    assert (low[7], high[7]) == (-1, 1) and low[8] <= -62.5 and high[8] >= 0


def test_bad_ranges(wide):
    model, X = wide
    with pytest.raises(ShapeError, match="one entry for each of 4"):
        input_range(np.zeros(3), np.ones(3), 4)
    with pytest.raises(RangeError, match="finite"):
        input_range(0, np.inf, 4)
    with pytest.raises(ArgumentError, match="low must not be above high"):
        model.audit(low=1, high=0)
    nowhere = Regressor(model.layers, 4)
    with mpc.Session() as s, pytest.raises(ArgumentError, match="low and high must be given"):
        nowhere.share(s, owner="alice")
    assert nowhere.audit(X).fits, "the rows give the range"
    with pytest.raises(RangeError, match="at index"):
        model.audit(X * 10)
    with pytest.raises(ShapeError, match="4 features"):
        model.audit(X[:, :3])
    with mpc.Session() as s, pytest.raises(DtypeError, match="scores"):
        model.share(s, owner="alice", scores="yes")


def test_compare_finds_where_models_differ(wide):
    model, X = wide
    with mpc.Session(("alice", "bob", "carol")) as s:
        secret = model.share(s, owner="bob")
        found = nn.compare(model, secret, X)
        assert [d.name for d in found.layers] == ["1 Dense(4, 8)", "2 ReLU()", "3 Dense(8, 1)"]
        assert 0 < found.difference <= model.audit().error_bound
        assert len({len(line) for line in str(found).splitlines()}) == 1
        other = Regressor([layer.with_parameters(layer.parameters) for layer in model.layers], 4)
        other.layers[2].parameters = [model.layers[2].weights, model.layers[2].bias + 5]
        found = nn.compare(other, secret, X)
        assert found.layers[1].difference < 1e-2
        assert found.difference == pytest.approx(5, abs=1e-2)
        last = found.layers[-1]
        assert last.plain - last.secret == pytest.approx(5, abs=1e-2)
        row, element = last.index
        assert last.plain == other.layers[2](other.layers[1](other.layers[0](X)))[row, element]


def test_compare_refuses(wide):
    model, X = wide
    with mpc.Session() as s:
        secret = model.share(s, owner="alice")
        with pytest.raises(ArgumentError, match="same layers"):
            nn.compare(Regressor(model.layers[:1], 4), secret, X)
        with pytest.raises(DtypeError, match="shared model"):
            nn.compare(model, model, X)
        with pytest.raises(ShapeError, match="at least one row"):
            nn.compare(model, secret, X[:0])
        before = s.cost()
        s.here = (0,)  # as where bob lives in another process
        with pytest.raises(mpc.SessionError, match="local session only"):
            nn.compare(model, secret, X)
        assert s.cost() == before


def test_a_plan_is_no_local_session(wide):
    model, X = wide

    def program(s):
        nn.compare(model, model.share(s, owner="alice"), X)

    with mpc.Session() as s, pytest.raises(mpc.SessionError, match="local session only"):
        s.plan(program)


def test_rows_beyond_the_range_that_came_from_data(wide):
    model, X = wide
    low, high = model.input_range_
    middle = (low + high) / 2
    with mpc.Session() as s:
        secret = model.share(s, owner="alice")
        room = ((secret.high - secret.low) / (high - low)).round(6)
        assert (room == room[0]).all() and room[0] in (2, 4, 8, 16, 32, 64)
        far = middle + (X - middle) * room[0] * 0.99
        error = np.abs(secret.predict(secret.share_rows(far, owner="bob")) - model.predict(far))
        assert error.max() <= model.audit(X).error_bound
        # As much as the format leaves, and no more.
        bigger = mpc.Session(int_bits=20)
        assert ((model.share(bigger, owner="alice").high - middle) >= secret.high - middle).all()
        # What is asked for is what there is.
        asked = model.share(s, owner="alice", low=low, high=high)
        np.testing.assert_array_equal(asked.high, high)
        with pytest.raises(RangeError, match="at index"):
            asked.share_rows(far, owner="bob")


def test_revealed_weights_are_for_rows_as_they_are(wide):
    model, X = wide
    W, b, V, c = model.parameters
    network = nn.MLP.from_parameters([W, b, np.hstack([V, -V]), np.concatenate([c, -c])])
    low, high = model.input_range_
    with mpc.Session() as s:
        secret = network.share(s, owner="alice", low=low, high=high)
        again = secret.reveal()
        np.testing.assert_allclose(
            again.decision_function(X), network.decision_function(X), atol=0.05
        )
        np.testing.assert_array_equal(again.input_range_, (low, high))
        revealed = model.share(s, owner="alice").reveal()
        np.testing.assert_allclose(revealed.predict(X), model.predict(X), atol=0.1)


def test_parties_with_an_outline_agree_on_the_range(wide):
    W, b, V, c = wide[0].parameters
    model = Regressor([Dense(W, b), ReLU(), Dense(20 * V, c)], 4, wide[0].input_range_)
    outline = model.outline()
    assert not any(p.any() for p in outline.parameters) and any(p.any() for p in model.parameters)
    with mpc.Session() as s:
        ours, theirs = model.share(s, owner="alice"), outline.share(s, owner="alice")
        np.testing.assert_array_equal(ours.low, theirs.low)
        np.testing.assert_array_equal(ours.high, theirs.high)
        assert ours.inputs == theirs.inputs
    # Without what the outline says, zeros would have room for more.
    outline.room = 64
    with mpc.Session() as s:
        assert (outline.share(s, owner="alice").high > ours.high).all()
