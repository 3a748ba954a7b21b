"""Fixed point imitated in floating point: it is off by what shares are off by."""

import numpy as np
import pytest

import mpc
import nn
from mpc.protocols.sigmoid import ERROR_BOUNDS, by_pieces, error_bound
from nn.fixed_point import precision
from nn.fixed_point.precision import output_scale, precision_problem
from nn.layers import Dense, ReLU, Reshape, Scale, Softmax, Step
from nn.layers.activations import Sigmoid, Tanh
from nn.models.predictors import Classifier, Regressor
from ring import FixedPoint


@pytest.mark.parametrize(("name", "layer"), [("sigmoid", Sigmoid()), ("tanh", Tanh())])
def test_pieces_in_the_clear(name, layer):
    x = np.concatenate([np.linspace(-30, 30, 100_001), [-1e9, 1e9]])
    off = np.abs(by_pieces(name, x) - layer(x))
    bound = ERROR_BOUNDS[name][0]
    assert bound / 4 < off.max() <= bound
    np.testing.assert_array_equal(layer.as_on_shares(x), by_pieces(name, x))
    some = x[::997]
    some = some[np.abs(some) < 1e4]
    with mpc.Session(frac_bits=20) as s:
        shared = layer(s.share(some, owner="alice")).reveal()
    rounding = error_bound(name, 20) - bound
    np.testing.assert_allclose(shared, by_pieces(name, some), atol=rounding)


@pytest.mark.parametrize("activation", [ReLU, Sigmoid, Tanh])
@pytest.mark.parametrize("frac_bits", [8, 12, 16])
def test_errors_are_those_on_shares(activation, frac_bits, monkeypatch):
    for leave in ("FAINT", "_NEAR_FLOOR"):  # whether there is a better format or not
        monkeypatch.setattr(precision, leave, 0.0)
    random = np.random.default_rng(frac_bits)
    layers = [Dense(random.normal(size=(6, 40)), random.normal(size=40)), activation()]
    layers += [Dense(random.normal(size=(40, 1)), random.normal(size=1))]
    model = Regressor(layers, 6, (0, 1))
    X = random.uniform(size=(200, 6))
    with mpc.Session(frac_bits=frac_bits) as s:
        model.output_scale_ = np.array([1e6])  # or it would be refused
        secret = model.share(s, owner="alice")
        seen = np.abs(secret.predict(secret.share_rows(X, owner="bob")) - model.predict(X)).max()
    # The yardstick is moved until the format is just too coarse.
    ends = np.zeros(6), np.ones(6)
    form = FixedPoint(frac_bits, 15)

    def refused(scale):
        found = precision_problem(
            layers,
            *ends,
            form,
            lambda near: near,
            features=6,
            ranked=False,
            scale=np.array([scale]),
        )
        return found is not None

    assert refused(seen / 4 * 2**11) and not refused(seen * 4 * 2**11)


def test_votes_are_judged_by_what_they_are_decided_by():
    """No row of those tried is near enough to the threshold for its vote to change."""
    votes = Dense(np.array([[-1.0, 1.0]]), np.array([1.0, 0.0]))
    first = Dense(np.array([[2.0**-12]]), np.array([1.2 * 2.0**-12]))
    model = Classifier([first, Step(), votes], ["down", "up"], 1, (-1, 1))
    audit = model.audit()
    assert "what a step decides by would be off" in audit.problem
    assert audit.suggestion.frac_bits > 16


def test_products_lose_what_is_below_a_unit():
    layer = Dense(np.array([[0.5, 1.0]]), np.array([0.0, 0.25]))
    found = precision.simulate([layer], np.array([[2.0**-8], [0.25 * 2.0**-8]]), 8)
    assert found.tolist() == [[0, 0.25 + 2.0**-8], [0, 0.25]]


def test_a_format_that_holds_the_model_is_suggested_only_if_it_is_fine_enough():
    weights = np.array([[5e4, 1e-2], [2e4, 5e-3]])
    model = Regressor([Dense(weights, np.zeros(2))], 2, (0, 1))
    audit = model.audit()
    form = audit.suggestion
    assert "its parameter" in audit.problem and form.frac_bits > 16 and form.int_bits > 15
    assert f"frac_bits={form.frac_bits}, int_bits={form.int_bits}" in audit.problem
    assert model.audit(frac_bits=form.frac_bits, int_bits=form.int_bits).fits
    assert not model.audit(frac_bits=16, int_bits=form.int_bits).fits


def test_scales_by_hand():
    outputs = np.array([[1.0, 5.0, 3.0, 1e9], [3.0, 5.0, 4.0, 1e9 + 1e-6]])
    np.testing.assert_array_equal(output_scale(outputs, ranked=False)[:3], [1, 5, 0.5])
    assert output_scale(outputs, ranked=False)[3] >= 1e9, "a constant but for rounding"
    np.testing.assert_array_equal(output_scale(outputs[:, :3], ranked=True), [1.5] * 3)


def test_zeros_lose_nothing():
    model = Classifier([Dense(np.zeros((3, 2)), np.zeros(2))], [0, 1], 3, (0, 1))
    assert model.audit(frac_bits=8).fits
    with mpc.Session(frac_bits=8) as s:
        secret = model.share(s, owner="alice")
        assert not secret.predict(secret.share_rows(np.ones((4, 3)), owner="bob")).any()


def test_the_suggestion_is_the_first_that_is_fine_enough():
    weights = np.random.default_rng(0).normal(size=(5, 1)) * 1e-3
    model = Regressor([Dense(weights, np.zeros(1))], 5, (-1, 1))
    form = model.audit().suggestion
    assert form.frac_bits > 16 and form.int_bits == 15
    assert model.audit(frac_bits=form.frac_bits).fits
    assert not model.audit(frac_bits=form.frac_bits - 1).fits


def test_an_outline_does_not_tell_the_scale():
    model = Regressor([Dense(np.ones((2, 1)), np.zeros(1))], 2)
    model.take_rows(np.eye(2) * [[1], [3]])
    assert model.output_scale_.tolist() == [1.0]
    assert model.outline().output_scale_ is None


def test_rows_are_needed():
    model = Regressor([Dense(np.ones((2, 1)), np.zeros(1))], 2)
    with pytest.raises(mpc.ShapeError, match="at least one row"):
        model.take_rows(np.zeros((0, 2)))
    assert model.input_range_ is None and nn.MLP((2, 2)).output_scale_ is None


@pytest.mark.parametrize("scale", [1.0, 1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("hidden", [0, 8])
@pytest.mark.parametrize("activation", [Sigmoid, Tanh])
def test_outputs_that_hardly_vary_are_taken_or_a_format_is_named_that_takes_them(
    activation, hidden, scale
):
    """No format makes the error of a smooth activation smaller than its pieces; some come near."""
    random = np.random.default_rng(4)
    layers, inputs = [], 5
    if hidden:
        layers = [Dense(random.normal(size=(inputs, hidden)), np.zeros(hidden)), ReLU()]
    weights = scale * random.normal(size=(hidden or inputs, 3))
    layers += [Dense(weights, np.array([-3.0, 0.75, -6.0])), activation()]
    model = Regressor(layers, inputs)
    X = random.uniform(size=(60, inputs))
    model.take_rows(X)
    form = FixedPoint()
    audit = model.audit(X)
    if not audit.fits:
        form = audit.suggestion
        assert f"mpc.Session(frac_bits={form.frac_bits}, int_bits={form.int_bits})" in audit.problem
    with mpc.Session(frac_bits=form.frac_bits, int_bits=form.int_bits) as s:
        secret = model.share(s, owner="alice")
        off = np.abs(secret.predict(secret.share_rows(X, owner="bob")) - model.predict(X))
    assert off.max() <= error_bound(activation.protocol, form.frac_bits) + 4 * 2.0**-form.frac_bits


@pytest.mark.parametrize("scale", [1e-2, 1e-4, 1e-5, 1e-6])
def test_a_softmax_that_hardly_varies_has_a_format(scale):
    random = np.random.default_rng(12)
    weights = scale * random.normal(size=(4, 16))
    layers = [Dense(random.normal(size=(8, 4)), np.zeros(4)), Tanh()]
    model = Regressor([*layers, Dense(weights, random.normal(size=16)), Softmax()], 8, (-1, 1))
    form = model.audit().suggestion
    assert form is not None
    assert model.audit(frac_bits=form.frac_bits, int_bits=form.int_bits).fits


def test_values_that_no_format_holds_are_refused_still():
    """Errors as large as the outputs are not those of an activation."""
    model = Regressor([Dense(np.full((3, 1), 1e-10), np.zeros(1))], 3)
    model.take_rows(np.random.default_rng(0).uniform(size=(40, 3)))
    with mpc.Session() as s, pytest.raises(mpc.RangeError, match="no format that holds the model"):
        model.share(s, owner="alice")


def test_a_probability_is_judged_beside_one():
    """However small it is for all rows; the same numbers as values are refused."""
    random = np.random.default_rng(3)
    bias = np.array([0.0, -14.0, -14.5, -15.0])
    first = Dense(random.normal(size=(5, 4)), bias)
    X = random.uniform(size=(40, 5))
    for last, fits in (
        ([Softmax(), Reshape(4)], True),
        ([Softmax(), Scale(np.full(4, 0.5), np.zeros(4))], False),
    ):
        model = Regressor([first, *last], 5)
        model.take_rows(X)
        with mpc.Session(frac_bits=14, int_bits=12) as s:
            if fits:
                secret = model.share(s, owner="alice")
                found = secret.predict(secret.share_rows(X, owner="bob"))
                assert np.abs(found - model.predict(X)).max() < precision.VALUES
            else:
                with pytest.raises(mpc.RangeError, match="too few for this model"):
                    model.share(s, owner="alice")
