"""Convolutions and stacks of matrices take what was made ahead; workers do not, and are refused."""

from types import SimpleNamespace

import numpy as np
import pytest

import mpc
import nn
from mpc.core.errors import StockError
from mpc.core.windows import Windows
from mpc.parties.configuration import Workers
from mpc.protocols import convolution
from mpc.two_party import mask_products
from mpc.two_party.mask_products import ConvolutionMasks
from nn.layers import Convolution, Dense, Flatten, MaxPool, ReLU, Reshape

RNG = np.random.default_rng(17)


def integers(*shape, largest=2**20):
    out = RNG.integers(-largest, largest + 1, shape)
    out.flat[0], out.flat[-1] = largest, -largest
    return out


def counted(s, program):
    """Run a program; return its result, and whether anything was made meanwhile, and its rounds."""
    before, made = s.cost(), [extension.made for extension in s.pair.extensions]
    products, multiply = [], s.pair._note
    s.pair._note = lambda product: products.append(product) or multiply(product)
    try:
        out = program(s)
    finally:
        del s.pair._note
    spent = s.cost() - before
    drawn = [e.made - m for e, m in zip(s.pair.extensions, made, strict=True)]
    return out, drawn == [0, 0] and not products, spent


def operand(p, x, how):
    """What each owner has of an operand: bob alone, or shares of both."""
    first = p.share(x, owner="bob")
    return first if how == "input" else first + p.share(0 * x, owner="alice")


CONVOLUTIONS = {
    "plain": ((3, 6, 5, 2), (3, 2, 2, 4), (1, 1), ((0, 0), (0, 0))),
    "padded": ((2, 5, 5, 3), (3, 3, 3, 2), (1, 1), ((1, 1), (2, 0))),
    "strides": ((2, 7, 8, 1), (2, 3, 1, 3), (2, 3), ((0, 1), (1, 0))),
    "one image": ((1, 4, 4, 1), (4, 4, 1, 1), (1, 1), ((0, 0), (0, 0))),
    # A channel of an image takes more than a polynomial.
    "large": ((1, 91, 91, 1), (5, 5, 1, 1), (9, 9), ((0, 0), (0, 0))),
}


@pytest.mark.parametrize(
    ("name", "kernels", "images"),
    [
        ("plain", "input", "input"), ("plain", "shares", "shares"), ("padded", "input", "shares"),
        ("strides", "shares", "input"), ("one image", "input", "shares"), ("large", "input", "input"),
    ],
)  # fmt: skip
def test_convolutions_by_masks_are_exact(name, kernels, images):
    shape, kernel, stride, padding = CONVOLUTIONS[name]
    x, w = integers(*shape), integers(*kernel)
    windows = Windows(kernel[:2], stride, padding)
    seen = windows.view(x)
    right = np.tensordot(seen, w, axes=3)
    with mpc.Session(provider=None) as s:
        ws = s.share(w, owner="alice")
        if kernels == "shares":
            ws = ws + s.share(0 * w, owner="bob")

        def program(p, twin=None):
            xs = operand(p, x, images)
            return convolution.convolve(xs, ws if twin is None else twin, windows)

        s.prepare_ahead(lambda p: program(p, p.twin(ws)).reveal(), times=2)
        for _ in range(2):
            assert s.plan(lambda p: program(p, p.twin(ws))).products == 0
            z, ready, spent = counted(s, program)
            assert ready and spent.rounds == 1
            np.testing.assert_array_equal(z.reveal(), right)
            # Pixels are sent, not windows of them, where an image fits.
            if name != "large":
                each = 8 * x.size
                assert spent.total.sent == (each if kernels == images == "shares" else 0, each)
        z, ready, _ = counted(s, program)
        assert not ready
        np.testing.assert_array_equal(z.reveal(), right)


@pytest.mark.parametrize("kept_images", [True, False])
def test_both_ways_to_make_masks_of_images(kept_images, monkeypatch):
    """Whatever the sizes would choose; masks as halves of words where whole ones are too large."""
    x, w = integers(70, 4, 4, 2), integers(3, 3, 2, 5)
    windows, whole = Windows((3, 3)), []
    monkeypatch.setattr(
        mask_products._Way, "weight", lambda way: (way.kept_images != kept_images, not way.halves)
    )
    make = ConvolutionMasks._way

    def noted(*arguments):
        whole.append(make(*arguments))
        return whole[-1]

    monkeypatch.setattr(ConvolutionMasks, "_way", noted)
    with mpc.Session(provider=None) as s:
        ws = s.share(w, owner="alice")
        s.prepare_ahead(
            lambda p: convolution.convolve(p.share(x, owner="bob"), p.twin(ws), windows).reveal()
        )
        assert {(way.kept_images, way.halves) for way in whole} == {(kept_images, not kept_images)}
        run = lambda p: convolution.convolve(p.share(x, owner="bob"), ws, windows)  # noqa: E731
        z, ready, _ = counted(s, run)
        assert ready
        np.testing.assert_array_equal(z.reveal(), np.tensordot(windows.view(x), w, axes=3))


@pytest.mark.parametrize(
    ("left", "right", "weights"),
    [
        ((4, 3, 5), (4, 5, 2), "input"),
        ((3, 5), (4, 5, 2), "shares"),
        ((2, 4, 3, 5), (4, 5, 2), "input"),
        ((4, 1, 5), (1, 5, 2), "input"),
        ((2, 1, 3, 5), (2, 4, 5, 2), "input"),
        ((3, 2, 20, 5), (3, 1, 5, 2), "shares"),
    ],
)
def test_stacks_of_matrices_by_masks_are_exact(left, right, weights):
    x, w = integers(*left), integers(*right)
    with mpc.Session(provider=None) as s:
        ws = s.share(w, owner="alice")
        if weights == "shares":
            ws = ws + s.share(0 * w, owner="bob")
        s.prepare_ahead(lambda p: (operand(p, x, "shares") @ p.twin(ws)).reveal(), times=2)
        for _ in range(2):
            z, ready, spent = counted(s, lambda p: operand(p, x, "shares") @ ws)
            assert ready and spent.rounds == 1
            np.testing.assert_array_equal(z.reveal(), x @ w)
        z, ready, _ = counted(s, lambda p: operand(p, x, "shares") @ ws)
        assert not ready
        np.testing.assert_array_equal(z.reveal(), x @ w)


@pytest.fixture(scope="module")
def cnn():
    layers = [
        Reshape(8, 8, 1), Convolution.untrained(1, 4, 3, padding="same"), ReLU(), MaxPool(2),
        Convolution.untrained(4, 3, 2, stride=2), ReLU(), Flatten(), Dense.untrained(12, 10),
    ]  # fmt: skip
    X = RNG.random((60, 64))
    X[-2], X[-1] = 0, 1
    model = nn.Sequential(layers, 64, random_state=0).fit(X, np.arange(60) % 10, epochs=1)
    return model, X


@pytest.mark.parametrize("known", [True, False])
def test_of_a_cnn_nothing_is_made_online(cnn, known):
    model, X = cnn
    rows = 9
    with mpc.Session(provider=None) as s:
        secret = model.share(s, owner="alice")
        if not known:
            # Nobody knows the weights, as after training or from the parties' files.
            secret.layers = [
                layer.with_parameters(
                    [p + s.share(np.zeros(p.shape), owner="bob") for p in layer.parameters]
                )
                for layer in secret.layers
            ]

        def predict(p):
            x = p.share(None, owner="bob", shape=(rows, 64), bound=1.0)
            return secret.twin(p).predict(x)

        s.prepare_ahead(predict, times=2)
        for start in (0, rows):
            images = s.share(X[start : start + rows], owner="bob", bound=1.0)
            found, ready, spent = counted(s, lambda p, images=images: secret.predict(images))
            assert ready
            assert "prepared" not in spent.by_protocol
            assert spent.by_protocol["product"].rounds == 3
            np.testing.assert_array_equal(found, model.predict(X[start : start + rows]))


def test_workers_take_nothing_from_a_stock():
    workers = Workers(n_jobs=4, rows=1)

    def count(pair, n_jobs):
        # As in a process of one party.
        configuration = SimpleNamespace(workers=workers)
        apart = SimpleNamespace(
            pair=pair, residents=(0,), configuration=configuration, security="semi-honest", size=2
        )
        return mpc.Session.worker_count(apart, n_jobs, 40)

    x = RNG.random((2, 3))
    with mpc.Session(provider=None) as s:
        relu = lambda p: p.share(x, owner="bob").relu().reveal()  # noqa: E731
        relu(s)
        assert [count(s.pair, n) for n in (None, 1, 3, -1)] == [4, 1, 3, -1]
        # A program that is about to run, and for which there is no stock, may have workers.
        counts = []
        s.prepare(lambda p: [counts.append(p.worker_count(3, 40)), relu(p)])
        relu(s)
        assert counts == [3]
        s.prepare_ahead(relu)
        with pytest.raises(StockError, match="got 3: workers take nothing from a stock"):
            s.prepare(lambda p: [relu(p), p.worker_count(3, 40)])
        assert [count(s.pair, n) for n in (None, 1)] == [1, 1]
        for n_jobs in (3, -1):
            with pytest.raises(
                StockError, match=f"n_jobs must be 1 for what.*got {n_jobs}: workers"
            ):
                count(s.pair, n_jobs)
        # What is to be made ahead is for no workers either, and nothing is made.
        made = [extension.made for extension in s.pair.extensions]
        with pytest.raises(StockError, match="got 3: workers take nothing from a stock"):
            s.prepare_ahead(lambda p: [relu(p), p.worker_count(3, 40)])
        assert [extension.made for extension in s.pair.extensions] == made
        lasting = []
        s.plan(lambda p: [lasting.append(p.pair.in_advance), relu(p)])
        assert lasting == [True]
        relu(s)
        relu(s)
        assert [count(s.pair, n) for n in (None, 1, 3, -1)] == [4, 1, 3, -1]
