"""Convolution and its gradients in a session without a provider.

Each is bilinear in two operands, and is made in the way that takes fewer bytes:

- **Images** as they are (:mod:`mpc.two_party.rlwe_images`): a pixel is encrypted or multiplied once. The
  gradient at the kernels is a convolution, too: of images whose channels are the rows of x, with the
  gradient g as kernels, its pixels as far apart as the stride. That at the images is one of g, its pixels
  as far apart, and padded, with the kernels turned round. A dilated kernel has zeros in its gaps.
- **Matrices**, as with a provider: windows as rows. For few images with many pixels.

Kernels that stay take what was made ahead for them: see :mod:`mpc.two_party.mask_products`.

Source: the packing of images, Huang et al. 2022 (Cheetah, ePrint 2022/207); else ours.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np
from numpy.typing import NDArray

from mpc.core.runtime import Runtime
from mpc.core.secret_value import SecretValue
from mpc.core.windows import Windows
from mpc.protocols.own_operands import (
    Operand,
    Way,
    cross_terms,
    crossing,
    from_masks,
    local_factors,
    matrix_ways,
)
from mpc.two_party.joint import fresh_shares
from mpc.two_party.mask_products import ConvolutionMasks, Factor, MaskProducts, Masks
from mpc.two_party.pair import Pair
from mpc.two_party.rlwe_images import ImageConvolution
from mpc.two_party.rlwe_parameters import LENGTH
from ring import matmul

__all__ = ["convolve", "input_gradient", "kernel_gradient"]

Words = NDArray[np.uint64]
Pack = Callable[[Words, Words], tuple[Words, Words]]
Unpack = Callable[[Words], Words]


def _matrix(w: Words) -> Words:
    return w.reshape(prod(w.shape[:-1]), w.shape[-1])


def _rows(windows: Windows, x: Words) -> Words:
    """Return the windows of images as rows."""
    seen = windows.view(x)
    return seen.reshape(prod(seen.shape[:3]), prod(seen.shape[3:]))


def _apart(steps: tuple[int, int], g: Words) -> Words:
    """Return images with their pixels so far apart, and zeros between them."""
    (step_down, step_across), (_, down, across, _) = steps, g.shape
    if (step_down, step_across) == (1, 1):
        return g
    out = np.zeros(
        (len(g), (down - 1) * step_down + 1, (across - 1) * step_across + 1, g.shape[3]), np.uint64
    )
    out[:, ::step_down, ::step_across] = g
    return out


def _kernels(windows: Windows, w: Words) -> Words:
    """Return kernels as images (outputs, *extent, channels)."""
    return _apart(windows.dilation, w.transpose(3, 0, 1, 2))


def _image_ways(
    images: tuple[int, int, int, int], kernels: tuple[int, ...], stride: tuple[int, int],
    pack: Pack, unpack: Unpack, stays: bool,
) -> list[Way]:  # fmt: skip
    """Return both ways to convolve images (images, height, width, channels) with (outputs, *kernel)."""
    count, height, width, channels = images
    outputs, *kernel = kernels
    if height * width > LENGTH:
        return []

    def layout(count: int, outputs: int, kept_images: bool) -> ImageConvolution:
        size = kernel[0], kernel[1]
        return ImageConvolution(count, height, width, channels, outputs, size, stride, kept_images)

    return [
        Way(
            layout(count, outputs, False), lambda: layout(2 * count, outputs, False), False, 0, 0,
            pack, unpack, stays,
        ),
        Way(
            layout(count, outputs, True), lambda: layout(count, 2 * outputs, True), True, 0, 3,
            pack, unpack,
        ),
    ]  # fmt: skip


def _packed(ways: list[Way], pack: Pack, unpack: Unpack) -> list[Way]:
    """Return ways for matrices that are made of other operands."""
    return [
        Way(
            way.layout,
            way.halves,
            way.keeps_left,
            way.axis,
            way.result_axis,
            pack,
            unpack,
            way.stays,
        )
        for way in ways
    ]


def _shares(
    session: Runtime, pair: Pair, left: Operand, right: Operand, shape: tuple[int, ...],
    multiply: Callable[[Words, Words], Words], ways: list[Way],
    ahead: Callable[[list[int]], Words | None] = lambda parties: None,
) -> Words:  # fmt: skip
    """Return shares of a bilinear product, (p, *shape); `ahead` gives what was made ahead, if it was."""
    z = np.zeros((len(session.here), *shape), np.uint64)
    for row, a, b in local_factors(session, left, right):
        z[row] = multiply(a, b)
    parties = crossing(left, right)
    if not parties:
        return fresh_shares(session, z).reshape(z.shape)
    ready = ahead(parties)
    if ready is None:
        ready = cross_terms(pair, ways, left, right, left.words, right.words, parties)
    z += ready.reshape(z.shape)
    return z


def convolve(
    session: Runtime, pair: Pair, x: SecretValue, w: SecretValue, windows: Windows
) -> Words:
    """Return shares of the convolution, (p, rows, down, across, outputs)."""
    left, right, outputs = Operand(x), Operand(w), w.shape[3]
    shape = (x.shape[0], *windows.places(*x.shape[1:3]), outputs)

    def as_matrices(a: Words, b: Words) -> tuple[Words, Words]:
        return _rows(windows, a), _matrix(b)

    def as_images(a: Words, b: Words) -> tuple[Words, Words]:
        return windows.pad(a), _kernels(windows, b)

    height, width = windows.padded(*x.shape[1:3])
    sizes = prod(shape[:3]), prod(w.shape[:3]), outputs
    ways = _packed(matrix_ways(*sizes, right), as_matrices, lambda z: z.reshape(shape)) + _image_ways(
        (x.shape[0], height, width, x.shape[3]), (outputs, *windows.extent), windows.stride,
        as_images, lambda z: z, right.lasting,
    )  # fmt: skip
    return _shares(
        session, pair, left, right, shape,
        lambda a, b: matmul(*as_matrices(a, b)).reshape(shape), ways,
        lambda parties: _from_masks(pair, left, right, windows, parties),
    )  # fmt: skip


def _from_masks(
    pair: Pair, left: Operand, right: Operand, windows: Windows, parties: list[int]
) -> Words | None:
    """Return shares of the cross terms by masks whose products were made ahead, if there are any."""
    images, height, width, channels = left.shape
    shape, outputs = (height, width, channels), right.shape[3]
    matrix = 1, prod(right.shape[:3]), outputs
    if not ConvolutionMasks.fits(shape, windows):
        # Windows are rows as any others.
        count = images * prod(windows.places(height, width))
        return from_masks(
            pair, MaskProducts, count, left, right, matrix, parties,
            lambda x: _rows(windows, x),
        )  # fmt: skip

    def masks(count: int, party: int, factor: Factor) -> Masks:
        return ConvolutionMasks(count, party, factor, shape, windows)

    return from_masks(
        pair, masks, images, left, right, matrix, parties, lambda x: x.reshape(images, -1)
    )


def kernel_gradient(
    session: Runtime, pair: Pair, x: SecretValue, g: SecretValue, windows: Windows
) -> Words:
    """Return shares of the gradient at the kernels, (p, kernel height, kernel width, channels, outputs)."""
    left, right = Operand(x), Operand(g)
    rows, down, across, outputs = g.shape
    shape = (*windows.kernel, x.shape[3], outputs)
    # Of the images only what windows reach.
    far = tuple((n - 1) * step + 1 for n, step in zip((down, across), windows.stride, strict=True))
    height, width = (n + size - 1 for n, size in zip(far, windows.extent, strict=True))
    step_down, step_across = windows.dilation

    def as_matrices(a: Words, b: Words) -> tuple[Words, Words]:
        return _rows(windows, a).T, _matrix(b)

    def as_images(a: Words, b: Words) -> tuple[Words, Words]:
        reached = windows.pad(a)[:, :height, :width]
        return reached.transpose(3, 1, 2, 0), _apart(windows.stride, b).transpose(3, 1, 2, 0)

    def of_elements(z: Words) -> Words:
        return z[:, ::step_down, ::step_across].transpose(1, 2, 0, 3)

    sizes = prod(shape[:3]), prod(g.shape[:3]), outputs
    ways = _packed(matrix_ways(*sizes, right), as_matrices, lambda z: z.reshape(shape)) + _image_ways(
        (x.shape[3], height, width, rows), (outputs, *far), (1, 1),
        as_images, of_elements, False,
    )  # fmt: skip
    return _shares(
        session, pair, left, right, shape,
        lambda a, b: matmul(*as_matrices(a, b)).reshape(shape), ways,
    )  # fmt: skip


def input_gradient(
    session: Runtime, pair: Pair, g: SecretValue, w: SecretValue, windows: Windows,
    shape: tuple[int, ...],
) -> Words:  # fmt: skip
    """Return shares of the gradient at the images, (p, *shape)."""
    left, right = Operand(g), Operand(w)
    rows, down, across, outputs = g.shape
    seen = (rows, down, across, *windows.kernel, shape[3])
    sides = [(size - 1,) * 2 for size in windows.extent]
    (top, _), (before, _) = windows.padding
    height, width = windows.padded(*shape[1:3])

    def as_matrices(a: Words, b: Words) -> tuple[Words, Words]:
        return _matrix(a), _matrix(b).T

    def add_back(z: Words) -> Words:
        return windows.add_back(z.reshape(seen), shape)

    def as_images(a: Words, b: Words) -> tuple[Words, Words]:
        padded = np.pad(_apart(windows.stride, a), ((0, 0), *sides, (0, 0)))
        turned = b[::-1, ::-1].transpose(2, 0, 1, 3)
        return padded, _apart(windows.dilation, turned)

    def cut(z: Words) -> Words:
        # Pixels that no window reaches have none.
        whole = np.zeros((rows, height, width, shape[3]), np.uint64)
        whole[:, : z.shape[1], : z.shape[2]] = z
        return whole[:, top : top + shape[1], before : before + shape[2]]

    apart = ((n - 1) * step + 1 for n, step in zip((down, across), windows.stride, strict=True))
    tall, wide = (n + 2 * (size - 1) for n, size in zip(apart, windows.extent, strict=True))
    sizes = prod(g.shape[:3]), outputs, prod(w.shape[:3])
    ways = _packed(matrix_ways(*sizes, right), as_matrices, add_back) + _image_ways(
        (rows, tall, wide, outputs),
        (shape[3], *windows.extent),
        (1, 1),
        as_images,
        cut,
        right.lasting,
    )
    return _shares(
        session, pair, left, right, shape, lambda a, b: add_back(matmul(*as_matrices(a, b))), ways
    )
