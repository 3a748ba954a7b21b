"""Layers with windows of any size, step, padding and dilation: by loops over places, and on shares."""

import json

import numpy as np
import pytest

import mpc
from mpc.protocols.pooling import cost_of_maximum
from mpc.protocols.sign import count_bits
from nn.layers import AveragePool, Convolution, CubicResize, MaxPool, Resize, TransposedConvolution
from nn.layers.layer import described, layers_of
from tests.helpers.gradients import finite_differences

UNIT = 2.0**-16


def rounded(random, *shape):
    """Numbers that fixed point holds exactly."""
    return np.round(random.normal(size=shape) / UNIT) * UNIT


def conv(*shape, **more):
    return lambda r: Convolution(rounded(r, *shape), rounded(r, shape[-1]), **more)


def deconv(*shape, **more):
    return lambda r: TransposedConvolution(rounded(r, *shape), rounded(r, shape[-1]), **more)


# Layer, shape of the rows, and whether it is also tried without a provider.
CASES = {
    "dilated": (conv(3, 2, 2, 3, dilation=2, padding=(2, 1)), (2, 6, 5, 2), True),
    "dilated with steps": (conv(2, 3, 1, 2, dilation=(3, 1), stride=(1, 2)), (1, 7, 6, 1), False),
    "depthwise": (conv(3, 3, 1, 4, groups=4, padding="same", stride=2), (2, 5, 6, 4), True),
    "groups": (conv(2, 2, 3, 4, groups=2, padding=((1, 0), (0, 2))), (2, 4, 3, 6), False),
    "groups dilated": (conv(2, 2, 2, 2, groups=2, dilation=2), (1, 5, 4, 4), False),
    "signal": (conv(3, 2, 4, stride=(2,), padding=((1, 2),)), (2, 7, 2), True),
    "signal depthwise": (conv(3, 1, 2, groups=2, dilation=(2,)), (2, 9, 2), False),
    "transposed": (deconv(3, 2, 2, 3, stride=2, padding=1, output_padding=1), (2, 3, 4, 2), True),
    "transposed apart": (deconv(2, 2, 2, 1, stride=(3, 2)), (1, 2, 3, 2), False),
    "transposed groups": (
        deconv(2, 3, 2, 4, groups=2, dilation=(2, 1), padding=((1, 0), (0, 1))), (2, 3, 4, 4), True
    ),
    "transposed signal": (deconv(4, 2, 3, stride=2, padding=1), (2, 5, 2), False),
    "max 3x3 by 2": (lambda r: MaxPool(3, 2), (2, 7, 8, 2), False),
    "max padded": (lambda r: MaxPool(3, 2, 1), (2, 6, 7, 2), True),
    "max ceil": (lambda r: MaxPool((2, 3), ceil=True), (1, 5, 7, 2), False),
    "max dilated": (lambda r: MaxPool(2, 1, padding="same", dilation=2), (1, 5, 4, 2), False),
    "max steps apart": (lambda r: MaxPool(2, 3), (1, 8, 7, 1), False),
    "max of ones by 2": (lambda r: MaxPool(1, 2), (1, 5, 6, 2), False),
    "max of a signal": (lambda r: MaxPool((3,), (2,), ((1, 1),)), (2, 8, 2), False),
    "max of all": (lambda r: MaxPool(None), (2, 3, 3, 2), False),
    "max left out": (lambda r: MaxPool(2), (1, 5, 7, 2), False),
    "mean 3x3 by 1": (lambda r: AveragePool(3, 1, padding=1), (2, 4, 5, 2), True),
    "mean with padding": (
        lambda r: AveragePool(3, 2, padding=1, count_padding=True), (2, 5, 5, 2), False
    ),
    "mean of four": (lambda r: AveragePool(2, 1), (2, 4, 5, 2), False),
    "mean ceil": (lambda r: AveragePool(2, 2, ceil=True), (1, 5, 3, 2), False),
    "mean ceil with padding": (
        lambda r: AveragePool(3, 2, 1, ceil=True, count_padding=True), (1, 6, 4, 2), False
    ),
    "mean of a signal": (lambda r: AveragePool((3,), (2,)), (2, 8, 2), False),
    "mean of all": (lambda r: AveragePool(None), (2, 3, 4, 2), False),
    "mean dilated": (lambda r: AveragePool(2, 1, dilation=(2, 1)), (1, 5, 4, 1), False),
    "nearest": (lambda r: Resize(2), (2, 3, 2, 2), True),
    "nearest smaller": (lambda r: Resize((0.6, 2.5), rounding="floor"), (1, 5, 4, 1), False),
    "cubic": (lambda r: CubicResize((1.5, 0.6), sharpness=-0.5), (2, 3, 5, 2), False),
    "cubic size": (lambda r: CubicResize(size=(7,), beyond="leave"), (2, 4, 2), False),
    "linear": (lambda r: Resize(2, mode="linear"), (2, 3, 4, 2), True),
    "linear size": (lambda r: Resize(size=(5, 3), mode="linear"), (1, 3, 7, 2), False),
    "corners": (
        lambda r: Resize(size=(7,), mode="linear", coordinates="align_corners"), (2, 4, 2), False
    ),
}  # fmt: skip
ALONE = [name for name, (_, _, alone) in CASES.items() if alone]


def made(case):
    random = np.random.default_rng(len(case))
    make, shape, _ = CASES[case]
    return make(random), rounded(random, *shape), random


def on_shares(layer, x, gradient, session):
    """Return the output and all gradients on shares, and whether the plan says what they cost."""
    seen = []

    def program(s):
        twin = layer.with_parameters([s.share(p, owner="alice") for p in layer.parameters])
        output = twin.forward(s.share(x, owner="bob"))
        back = twin.backward(s.share(gradient, owner="alice"))
        seen[:] = [output.reveal(), back.reveal(), *(g.reveal() for g in twin.gradients)]

    plan = session.plan(program)
    program(session)
    return seen, plan.cost == session.cost()


@pytest.mark.parametrize("case", CASES)
def test_gradients(case):
    layer, x, random = made(case)
    weight = random.normal(size=layer.forward(x).shape)

    def loss():
        return float((layer.forward(x) * weight).sum())

    wanted = finite_differences(loss, x), [finite_differences(loss, p) for p in layer.parameters]
    layer.forward(x)
    np.testing.assert_allclose(layer.backward(weight), wanted[0], atol=1e-6)
    for gradient, expected in zip(layer.gradients, wanted[1], strict=True):
        np.testing.assert_allclose(gradient, expected, atol=1e-6)
    assert layer.backward(weight, input_gradient=False) is None


@pytest.mark.parametrize(
    ("parties", "case"), [(n, case) for case in CASES for n in (2, 3)] + [(0, c) for c in ALONE]
)
def test_on_shares(case, parties):
    layer, x, random = made(case)
    wanted = layer.forward(x)
    gradient = rounded(random, *wanted.shape)
    at_input = layer.backward(gradient)
    names, provider = ("alice", "bob", "carol")[: parties or 2], "crypto" if parties else None
    with mpc.Session(names, provider=provider) as s:
        seen, planned = on_shares(layer, x, gradient, s)
    assert planned or not parties
    for found, expected in zip(seen, [wanted, at_input, *layer.gradients], strict=True):
        assert found.shape == expected.shape
        # Rounding of operands in [-5, 5] by a unit, in sums of at most 40 products.
        np.testing.assert_allclose(found, expected, atol=200 * UNIT)


@pytest.mark.parametrize("case", CASES)
def test_shape_bounds_and_file(case):
    layer, x, random = made(case)
    shape = layer.output_shape(x.shape[1:])
    assert layer(x).shape == (len(x), *shape)
    low, high = x[0] - np.abs(rounded(random, *x.shape[1:])), x[0]
    lows, highs = layer.bounds(low, high)
    assert lows.shape == highs.shape == shape
    for _ in range(20):
        y = layer(random.uniform(low, high)[None])[0]
        assert (lows - 1e-9 <= y).all() and (y <= highs + 1e-9).all()
    error = layer.fixed_point_error(np.abs(x[0]), np.zeros(x.shape[1:]), 16)
    assert error.shape == shape and (error < 50 * UNIT).all()
    assert layer.shared_words(x.shape[1:], 2) >= x[0].size
    (kept,) = json.loads(json.dumps(described([layer])))
    (again,) = layers_of([kept], layer.parameters)
    assert repr(again) == repr(layer)
    np.testing.assert_array_equal(again(x), layer(x))


def by_loops(x, layer, reduce):
    """Reduce the pixels of every window that are inside an image, one window after the other."""
    down, across, _ = layer.output_shape(x.shape[1:])
    lines = layer._lines(x.shape[1:3])
    out = np.empty((len(x), down, across, x.shape[3]))
    for p in range(down):
        rows = [i for i in lines[0].numbers[:, p] if 0 <= i < x.shape[1]]
        for q in range(across):
            columns = [j for j in lines[1].numbers[:, q] if 0 <= j < x.shape[2]]
            out[:, p, q] = reduce(x[:, rows][:, :, columns], axis=(1, 2))
    return out


@pytest.mark.parametrize("case", [c for c in CASES if c.startswith(("max", "mean"))])
def test_pools_by_loops(case):
    layer, x, _ = made(case)
    if x.ndim == 4 and not getattr(layer, "count_padding", False):
        reduce = np.max if isinstance(layer, MaxPool) else np.mean
        np.testing.assert_allclose(layer(x), by_loops(x, layer, reduce), atol=1e-12)


def test_padding_is_no_maximum():
    x = -np.ones((1, 4, 4, 1))
    layer = MaxPool(3, 2, 1)
    assert (layer(x) == -1).all()
    with mpc.Session() as s:
        assert (layer(s.share(x, owner="bob")).reveal() == -1).all()


def test_of_equal_values_the_first_by_rows_gets_the_gradient():
    x = np.random.default_rng(0).integers(0, 2, size=(20, 5, 5, 2)).astype(float)
    layer = MaxPool(3, 2, 1)
    gradient = np.ones(layer.forward(x).shape)
    wanted = layer.backward(gradient)
    places = np.zeros_like(x)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-1)
    for n, p, q, c in np.ndindex(*gradient.shape):
        window = padded[n, 2 * p : 2 * p + 3, 2 * q : 2 * q + 3, c]
        i, j = divmod(int(window.argmax()), 3)
        places[n, 2 * p + i - 1, 2 * q + j - 1, c] += 1
    np.testing.assert_array_equal(wanted, places)
    with mpc.Session() as s:
        layer.forward(s.share(x, owner="bob"))
        np.testing.assert_array_equal(
            layer.backward(s.share(gradient, owner="alice")).reveal(), wanted
        )


def test_overlapping_windows_compare_each_axis_on_its_own():
    x = np.zeros((1, 9, 9, 8))
    with mpc.Session() as s:
        plan = s.plan(lambda s: MaxPool(3, 1)(s.share(x, owner="bob")))
        window = count_bits(2 * s.share(x, owner="bob").bound)
    wanted = cost_of_maximum(2, 3, 9 * 7 * 8, window) + cost_of_maximum(2, 3, 7 * 7 * 8, window)
    assert plan.cost.total == wanted
    # All at once they would compare eight pairs a window.
    assert wanted.bytes_sent < 0.6 * cost_of_maximum(2, 9, 7 * 7 * 8, window).bytes_sent


def test_a_depthwise_convolution_takes_products_of_its_own_channel_alone():
    """The cross term has an element for each output; the images and kernels are opened once."""
    channels, x = 8, np.ones((1, 6, 6, 8))
    depthwise = Convolution(np.ones((3, 3, 1, channels)), np.zeros(channels), groups=channels)

    def program(s):
        weights = [s.share(p, owner="alice") for p in depthwise.parameters]
        y = depthwise.with_parameters(weights)(s.share(x, owner="bob"))
        return y.shares

    with mpc.Session() as s:
        program(s)
        spent = s.cost().total
        assert spent.sent == (8 * 9 * channels, 8 * x.size)
        assert spent.correction_bytes == 8 * 4 * 4 * channels
    # Its multiplications: those of a stack of matrices, not of channels times outputs.
    matrix = depthwise._window_matrix(x)
    assert matrix.shape == (channels, 16, 9)
    assert depthwise._kernel_matrix(depthwise.weights).shape == (channels, 9, 1)
