"""Clip, hard sigmoid and swish, PReLU, thresholded ReLU and Abs: in the clear and on shares."""

import json

import numpy as np
import pytest

import mpc
from nn.layers import Abs, Clip, HardSigmoid, HardSwish, PReLU, ThresholdedReLU
from nn.layers.layer import described, layers_of
from ring.errors import ArgumentError, ShapeError
from tests.helpers.gradients import finite_differences

UNIT = 2.0**-16
CASES = {
    "clip": (Clip(-0.5, 2.0), lambda x: np.clip(x, -0.5, 2.0)),
    "relu6": (Clip(0, 6), lambda x: np.clip(x, 0, 6)),
    "from below": (Clip(low=1.5), lambda x: np.maximum(x, 1.5)),
    "from above": (Clip(high=-1.25), lambda x: np.minimum(x, -1.25)),
    "negative": (Clip(-3, -1), lambda x: np.clip(x, -3, -1)),
    "far": (Clip(-1e30, 1e30), lambda x: x),
    "hard sigmoid": (HardSigmoid(), lambda x: np.clip(0.2 * x + 0.5, 0, 1)),
    "hard swish": (HardSwish(), lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
    "prelu": (
        PReLU(np.array([0.25, -0.5, 2.0])), lambda x: np.where(x > 0, x, x * [0.25, -0.5, 2.0])
    ),
    "thresholded": (ThresholdedReLU(1.25), lambda x: np.where(x > 1.25, x, 0)),
    "thresholded below": (ThresholdedReLU(-1.0), lambda x: np.where(x > -1.0, x, 0)),
    "abs": (Abs(), np.abs),
}  # fmt: skip


def rows(random, *shape):
    return np.round(random.uniform(-8, 8, size=shape) / UNIT) * UNIT


@pytest.mark.parametrize("case", CASES)
def test_in_the_clear(case):
    layer, function = CASES[case]
    random = np.random.default_rng(len(case))
    x = rows(random, 5, 4, 3)
    np.testing.assert_allclose(layer(x), function(x), atol=1e-12)
    weight = random.normal(size=x.shape)

    def loss():
        return float((layer.forward(x) * weight).sum())

    wanted = finite_differences(loss, x), [finite_differences(loss, p) for p in layer.parameters]
    layer.forward(x)
    np.testing.assert_allclose(layer.backward(weight), wanted[0], atol=1e-6)
    for found, expected in zip(layer.gradients, wanted[1], strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    low = rows(random, 4, 3)
    high = low + np.abs(rows(random, 4, 3))
    lows, highs = layer.bounds(low, high)
    seen = layer(np.linspace(low, high, 2001))
    np.testing.assert_array_less(lows - 1e-9, seen.min(axis=0))
    np.testing.assert_array_less(seen.max(axis=0), highs + 1e-9)
    if not case.startswith("thresholded"):  # whose bound is not met, next to the step
        np.testing.assert_allclose(lows, seen.min(axis=0), atol=0.02)
        np.testing.assert_allclose(highs, seen.max(axis=0), atol=0.02)
    (kept,) = json.loads(json.dumps(described([layer])))
    (again,) = layers_of([kept], layer.parameters)
    assert repr(again) == repr(layer) and layer.output_shape((4, 3)) == (4, 3)
    np.testing.assert_array_equal(again(x), layer(x))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", [2, 3, 0], ids=["two", "three", "own"])
@pytest.mark.parametrize("surplus", [False, True], ids=["format", "product"])
def test_on_shares(case, kind, surplus):
    if not kind and surplus:
        pytest.skip("one way without a provider")
    layer, function = CASES[case]
    random = np.random.default_rng(len(case))
    x, gradient = rows(random, 50, 3), rows(random, 50, 3)
    # At the limits and next to them.
    x[:10, 0] = [-0.5, -0.5 - UNIT, 2.0, 2.0 + UNIT, 0, 6, 1.5, 1.25, 1.25 + UNIT, -1.25]
    layer.forward(x)
    at_input = layer.backward(gradient)
    names, provider = ("alice", "bob", "carol")[: kind or 2], "crypto" if kind else None

    def of(s, values):  # as it is, or as it comes from a product
        shared = s.share(values, owner="bob")
        return shared * 0.5 * 2 if surplus else shared

    seen = []

    def program(s):
        twin = layer.with_parameters([s.share(p, owner="alice") for p in layer.parameters])
        output = twin.forward(of(s, x))
        back = twin.backward(s.share(gradient, owner="alice"))
        plain = twin(of(s, x))
        seen[:] = [output.reveal(), plain.reveal(), back.reveal(), output]
        seen.extend(g.reveal() for g in twin.gradients)

    with mpc.Session(names, provider=provider) as s:
        plan = s.plan(program)
        program(s)
        assert not kind or plan.cost == s.cost()
    output, plain, back, shared, *gradients = seen
    assert np.abs(output).max() * 2.0**shared.frac_bits <= shared.bound
    if case in ("hard sigmoid", "hard swish"):
        kinks = np.abs(np.abs(x) - (2.5 if case == "hard sigmoid" else 3)) < 2 * UNIT
    else:
        kinks = np.zeros(x.shape, bool)
    error = layer.fixed_point_error(np.abs(x), np.zeros(x.shape), 16)
    allowed = 1e-12 + (4 * UNIT if np.isnan(error).all() else error + UNIT)
    assert (np.abs(output - function(x)) <= allowed).all()
    assert (np.abs(plain - function(x)) <= allowed).all()
    np.testing.assert_allclose(back[~kinks], at_input[~kinks], atol=40 * UNIT)
    for found, expected in zip(gradients, layer.gradients, strict=True):
        np.testing.assert_allclose(found, expected, atol=2000 * UNIT)


def test_bad_input():
    with pytest.raises(ArgumentError, match="low or high must be given"):
        Clip()
    with pytest.raises(ArgumentError, match="low must be below high, got 2 and 1"):
        Clip(2, 1)
    with pytest.raises(ArgumentError, match="slope must be above 0"):
        HardSigmoid(0)
    with pytest.raises(ShapeError, match="broadcast with its slopes"):
        PReLU(np.ones(3))(np.ones((1, 4)))
