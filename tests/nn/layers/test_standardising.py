"""Layer, group and root mean square normalisation, and local responses: in the clear and on shares."""

import json
import math

import numpy as np
import pytest

import mpc
from nn.layers import GroupNorm, LayerNorm, LocalResponseNorm, RMSNorm
from nn.layers.layer import described, layers_of
from ring.errors import ArgumentError, ShapeError
from tests.helpers.gradients import finite_differences

UNIT = 2.0**-16


def parameters(random, *shape):
    return (np.round(random.normal(size=shape) / UNIT) * UNIT for _ in range(2))


def plain_norm(x, axes, epsilon=1e-5):
    mean, variance = x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True)
    return (x - mean) / np.sqrt(variance + epsilon)


def by_groups(x, groups):
    rows, *places, channels = x.shape
    split = x.reshape(rows, math.prod(places), groups, channels // groups)
    return plain_norm(split, (1, 3)).reshape(x.shape)


def responses(x, size, alpha, beta, bias):
    square = np.zeros_like(x)
    for c in range(x.shape[-1]):
        first, last = c - (size - 1) // 2, c + math.ceil((size - 1) / 2)
        square[..., c] = (x[..., max(0, first) : last + 1] ** 2).sum(axis=-1)
    return x / (bias + alpha / size * square) ** beta


# Layer from random numbers, shape of the rows, and the function before scale and shift.
CASES = {
    "layer": (lambda r: LayerNorm(*parameters(r, 6)), (5, 6), lambda x: plain_norm(x, -1)),
    "layer by tokens": (
        lambda r: LayerNorm(*parameters(r, 8)), (2, 4, 8), lambda x: plain_norm(x, -1)
    ),
    "layer of two axes": (
        lambda r: LayerNorm(*parameters(r, 3, 4)), (3, 3, 4), lambda x: plain_norm(x, (1, 2))
    ),
    "epsilon": (
        lambda r: LayerNorm(*parameters(r, 5), epsilon=0.5), (4, 5),
        lambda x: plain_norm(x, -1, 0.5),
    ),
    "group": (
        lambda r: GroupNorm(*parameters(r, 6), groups=2), (2, 3, 3, 6), lambda x: by_groups(x, 2)
    ),
    "instance": (
        lambda r: GroupNorm(*parameters(r, 3), groups=3), (2, 4, 3), lambda x: by_groups(x, 3)
    ),
    "root mean square": (
        lambda r: RMSNorm(next(parameters(r, 6))), (4, 6),
        lambda x: x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-5),
    ),
    "responses": (
        lambda r: LocalResponseNorm(3, 0.5, 0.75, 2.0), (2, 2, 2, 6),
        lambda x: responses(x, 3, 0.5, 0.75, 2.0),
    ),
    "responses of an even number": (
        lambda r: LocalResponseNorm(4, 1e-4, 1.0, 1.0), (2, 2, 5),
        lambda x: responses(x, 4, 1e-4, 1.0, 1.0),
    ),
}  # fmt: skip


def made(case, scale=1.0):
    random = np.random.default_rng(len(case))
    make, shape, function = CASES[case]
    x = np.round((random.normal(size=shape) * scale + 0.5) / UNIT) * UNIT
    return make(random), x, function, random


def wanted_of(layer, x, function):
    values = [np.asarray(p) for p in layer.parameters]
    normal = function(x)
    return normal if not values else normal * values[0] + (values[1] if len(values) > 1 else 0)


@pytest.mark.parametrize("case", CASES)
def test_in_the_clear(case):
    layer, x, function, random = made(case)
    np.testing.assert_allclose(layer(x), wanted_of(layer, x, function), atol=1e-10)
    weight = random.normal(size=x.shape)

    def loss():
        return float((layer.forward(x) * weight).sum())

    wanted = finite_differences(loss, x), [finite_differences(loss, p) for p in layer.parameters]
    layer.forward(x)
    np.testing.assert_allclose(layer.backward(weight), wanted[0], atol=1e-5)
    for found, expected in zip(layer.gradients, wanted[1], strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    low, high = x[0] - 2 * np.abs(x[1]), x[0] + 0.001
    lows, highs = layer.bounds(low, high)
    for _ in range(50):
        ends = np.where(random.random(low.shape) < 0.5, low, high)
        y = layer(ends[None])[0]
        assert (lows - 1e-9 <= y).all() and (y <= highs + 1e-9).all()
    (kept,) = json.loads(json.dumps(described([layer])))
    (again,) = layers_of([kept], layer.parameters)
    assert repr(again) == repr(layer)
    np.testing.assert_array_equal(again(x), layer(x))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", [2, 3, 0], ids=["two", "three", "own"])
def test_on_shares(case, kind):
    if not kind and case not in ("layer by tokens", "instance"):
        pytest.skip("two are tried without a provider")
    layer, x, function, _ = made(case)
    wanted = wanted_of(layer, x, function)
    seen = []

    def program(s):
        twin = layer.with_parameters([s.share(p, owner="alice") for p in layer.parameters])
        secret = s.share(x, owner="bob", bound=16)
        seen[:] = [twin(secret).reveal(), twin(secret * 0.5 * 2).reveal()]

    names, provider = ("alice", "bob", "carol")[: kind or 2], "crypto" if kind else None
    with mpc.Session(names, provider=provider) as s:
        plan = s.plan(program)
        program(s)
        assert not kind or plan.cost == s.cost()
        with pytest.raises(ArgumentError, match="trained in the clear only"):
            layer.forward(s.share(x, owner="bob"))
    for found in seen:
        # Three roundings by a unit, of a value next to another of about the same size, and its scale.
        np.testing.assert_allclose(found, wanted, atol=24 * UNIT)


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0, 4000.0])
@pytest.mark.parametrize("bound", [None, 2.0**14])
def test_precision_over_magnitudes(scale, bound):
    """The error is that of the input's rounding, relative to what the rows vary by."""
    random = np.random.default_rng(1)
    x = np.round(random.normal(size=(40, 32)) * scale / UNIT) * UNIT
    layer = LayerNorm(np.ones(32), np.zeros(32))
    with mpc.Session() as s:
        twin = layer.with_parameters([s.share(p, owner="alice") for p in layer.parameters])
        limit = {} if bound is None else {"bound": max(bound, np.abs(x).max() + 1)}
        found = twin(s.share(x, owner="bob", **limit)).reveal()
    allowed = 8 * UNIT + 2.0**-18 * 4 + UNIT * 2 / scale
    assert np.abs(found - layer(x)).max() < allowed


def test_a_constant_row_is_zero():
    layer = LayerNorm(np.ones(8), np.zeros(8))
    with mpc.Session() as s:
        twin = layer.with_parameters([s.share(p, owner="alice") for p in layer.parameters])
        found = twin(s.share(np.full((3, 8), 5.0), owner="bob")).reveal()
    # The mean may be rounded by a unit, which sqrt(epsilon) divides.
    assert np.abs(found).max() <= 2 * UNIT / math.sqrt(1e-5)


def test_bad_input():
    with pytest.raises(ShapeError, match=r"last axes are \(3,\), got shape \(4,\)"):
        LayerNorm(np.ones(3), np.zeros(3))(np.ones((1, 4)))
    with pytest.raises(ArgumentError, match="epsilon must be above 0"):
        LayerNorm(np.ones(3), np.zeros(3), 0)
    with pytest.raises(ArgumentError, match="groups must divide the 3 channels, got 2"):
        GroupNorm(np.ones(3), np.zeros(3), groups=2)
    with pytest.raises(ArgumentError, match="beta must be above 0 and below"):
        LocalResponseNorm(3, beta=1.5)
    with pytest.raises(ShapeError, match="must have one shape"):
        LayerNorm(np.ones(3), np.zeros(4))
