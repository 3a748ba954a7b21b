"""Packing of matrices and images, by products of polynomials over Python integers."""

import re

import numpy as np
import pytest

from mpc.core.errors import ArgumentError, ShapeError
from mpc.two_party import rlwe_images, rlwe_layouts
from mpc.two_party.rlwe_images import ImageConvolution
from mpc.two_party.rlwe_layouts import KeptLeft, KeptRight, choose_left, choose_mask, choose_right
from mpc.two_party.rlwe_parameters import LENGTH
from tests.helpers.rlwe import exact_product, some_words

SMALL = 64


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Polynomials of 64 coefficients, which Python multiplies at once."""
    for module in (rlwe_layouts, rlwe_images):
        monkeypatch.setattr(module, "LENGTH", SMALL)


def negacyclic(a, b):
    """Multiply modulo X^N + 1 and 2^64, over Python integers."""
    full = [0] * (2 * SMALL)
    for i, x in enumerate(a):
        if x:
            for j, y in enumerate(b):
                full[i + j] += x * y
    return [(full[i] - full[i + SMALL]) % 2**64 for i in range(SMALL)]


def through_polynomials(layout, x, w):
    """Multiply by a layout's packing: sums of products of polynomials, read at its places."""
    kept, mixed = layout.pack_kept(x), layout.pack_mixed(w, 0, layout.mixed_groups)
    assert kept.shape == (layout.kept_groups, layout.terms, SMALL)
    assert mixed.shape[:2] == (layout.mixed_groups, layout.terms)
    # What the flood is measured by.
    assert all(np.count_nonzero(group) <= layout.used for group in mixed)
    # Zeros that end them may be left away.
    spread = np.zeros((*mixed.shape[:2], SMALL), np.uint64)
    spread[..., : layout.run * mixed.shape[2] : layout.run] = mixed
    results = np.zeros((layout.kept_groups, layout.mixed_groups, len(layout.places)), np.uint64)
    for g in range(layout.kept_groups):
        for h in range(layout.mixed_groups):
            total = np.zeros(SMALL, object)
            for a, b in zip(kept[g].tolist(), spread[h].tolist(), strict=True):
                total += np.array(negacyclic(a, b), object)
            results[g, h] = (total % 2**64)[layout.places].astype(np.uint64)
    halves = [layout.pack_mixed(w, h, h + 1) for h in range(layout.mixed_groups)]
    assert not halves or np.array_equal(np.concatenate(halves), mixed)
    return layout.unpack(results)


SHAPES = [
    (1, 1, 1), (1, 5, 1), (3, 1, 2), (1, 7, 9), (9, 7, 1), (5, 6, 7), (20, 3, 4),
    (0, 3, 2), (3, 0, 2), (3, 2, 0), (0, 0, 0),
]  # fmt: skip
PACKINGS = [(1, 1), (1, 5), (1, 64), (4, 3), (8, 1), (8, 8), (16, 2), (64, 1)]


@pytest.mark.parametrize("kind", [KeptLeft, KeptRight])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("packing", PACKINGS)
def test_matrices(kind, shape, packing):
    layout = kind(*shape, *packing)
    left, right = some_words(shape[:2], "extreme", 1), some_words(shape[1:], "random", 2)
    kept, mixed = (left, right) if kind is KeptLeft else (right, left)
    expected = exact_product(left, right)
    assert np.array_equal(layout.multiply(kept, mixed), expected)
    assert np.array_equal(through_polynomials(layout, kept, mixed), expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rows", [1, 8, 64])
def test_random_polynomials_are_an_operand(shape, rows):
    """Whatever stands in the places that are not used."""
    layout = KeptLeft(*shape, rows, 1)
    assert layout.dense
    polynomials = some_words((layout.kept_groups, layout.terms, SMALL), "random")
    x, w = layout.unpack_kept(polynomials), some_words(shape[1:], "random", 3)
    assert x.shape == shape[:2]
    layout.__dict__["pack_kept"] = lambda _: polynomials
    assert np.array_equal(through_polynomials(layout, x, w), exact_product(x, w))


def convolution(images, kernels, stride):
    """Slide kernels over images, over Python integers."""
    n, height, width, _ = images.shape
    outputs, kh, kw, _ = kernels.shape
    down, across = (height - kh) // stride[0] + 1, (width - kw) // stride[1] + 1
    out = np.zeros((n, down, across, outputs), object)
    x, k = images.astype(object), kernels.astype(object)
    for i in range(down):
        for j in range(across):
            window = x[:, i * stride[0] :, j * stride[1] :][:, :kh, :kw]
            out[:, i, j] = (window[:, None] * k).sum(axis=(2, 3, 4))
    return (out % 2**64).astype(np.uint64)


@pytest.mark.parametrize("kept_images", [False, True])
@pytest.mark.parametrize(
    ("images", "height", "width", "channels", "outputs", "kernel", "stride"),
    [
        (1, 1, 1, 1, 1, (1, 1), (1, 1)),
        (2, 4, 5, 1, 3, (2, 3), (1, 1)),
        (1, 3, 3, 2, 5, (3, 3), (1, 1)),
        (3, 3, 4, 11, 2, (2, 2), (1, 2)),
        (1, 8, 8, 2, 2, (3, 3), (2, 3)),
        (2, 2, 2, 3, 9, (2, 1), (1, 1)),
    ],
)
def test_images(images, height, width, channels, outputs, kernel, stride, kept_images):
    layout = ImageConvolution(images, height, width, channels, outputs, kernel, stride, kept_images)
    x = some_words((images, height, width, channels), "extreme", 1)
    k = some_words((outputs, *kernel, channels), "random", 2)
    kept, mixed = (x, k) if kept_images else (k, x)
    expected = convolution(x, k, stride)
    assert np.array_equal(layout.multiply(kept, mixed), expected)
    assert np.array_equal(through_polynomials(layout, kept, mixed), expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: KeptLeft(-1, 2, 3, 8, 1), "m, k and n must not be negative, got -1, 2, 3"),
        (lambda: KeptLeft(1, 2, 3, 12, 1), "rows must be a power of two, at most 64, got 12"),
        (lambda: KeptRight(1, 2, 3, 128, 1), "rows must be a power of two"),
        (lambda: KeptLeft(1, 2, 3, 8, 9), "columns must be in [1, 8] for 8 rows, got 9"),
        (lambda: KeptLeft(1, 2, 3, 8, 0), "columns must be in [1, 8]"),
        (lambda: ImageConvolution(0, 4, 4, 1, 1, (1, 1)), "must be positive"),
        (lambda: ImageConvolution(1, 4, 4, 1, 1, (5, 1)), "4 x 4 pixels is smaller than the"),
        (lambda: ImageConvolution(1, 9, 9, 1, 1, (1, 1)), "may have 64 pixels, got 9 x 9"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ArgumentError, match=re.escape(message)):
        make()


def test_operands_of_the_wrong_shape():
    for layout in (KeptLeft(2, 3, 4, 8, 1), KeptRight(2, 3, 4, 8, 1)):
        with pytest.raises(ShapeError, match="the keeper's operand must have shape"):
            layout.pack_kept(np.zeros((3, 3), np.uint64))
        with pytest.raises(ShapeError, match="the mixer's operand must have shape"):
            layout.pack_mixed(np.zeros((3, 3), np.uint64), 0, 1)
    for layout in (KeptLeft(2, 3, 4, 8, 2), KeptRight(2, 3, 4, 8, 1)):
        assert not layout.dense
        with pytest.raises(ArgumentError, match="may be random"):
            layout.unpack_kept(np.zeros((1, 1, SMALL), np.uint64))


def test_choices_are_layouts_of_the_shape(monkeypatch):
    monkeypatch.setattr(rlwe_layouts, "LENGTH", LENGTH)
    for shape in (*SHAPES, (1, 784, 128), (128, 784, 128), (20000, 784, 10), (3, 20000, 2)):
        for layout in (
            choose_left(*shape), choose_left(*shape, dense=True), choose_mask(*shape),
            choose_right(*shape),
        ):  # fmt: skip
            assert (layout.m, layout.k, layout.n) == shape
        assert choose_left(*shape, dense=True).dense
    # Many rows fill polynomials; few rows leave room for every column in one answer.
    assert choose_left(8192, 784, 128, dense=True).rows == LENGTH
    assert choose_mask(8192, 784, 128).dense and not choose_mask(128, 784, 128).dense
    assert choose_right(1, 784, 128).column_groups == 1
