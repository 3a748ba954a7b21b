"""Convolution of secret images with secret kernels, as one matrix product.

1. Mask the images x and the kernels w in their own shapes, opening those that have no mask yet, or x to
   the party that gave w (:mod:`mpc.protocols.product`): a pixel is opened once, not once for every window
   that it lies in.
2. The windows of x are a strided view, and the mask of a view is the same view of the mask: parties take
   it of Delta_x and of their shares of lambda_x, the provider of lambda_x. Padding is zero in each.
3. One matrix product of the windows, as rows of a matrix (places, kernel size * channels), with the
   kernels, see :mod:`mpc.protocols.product`. With groups of channels one product a group: a group's
   windows meet its own kernels alone, so a depthwise convolution takes as many products as it has weights
   and places.
Both gradients are products, too. For the gradient g at the result: the gradient at the kernels is the
product of the same windows with g; the gradient at the images is the product of g with the kernels, each
row then added to the pixels of its window, which is local. The latter is the transposed convolution.
Cost of each: 1 round, 8 (n - 1) bytes for each element not yet masked (none if both are), 8 bytes if it is
opened to one party; correction 8 bytes an element of the product, none if it is truncated. Groups change
neither: they take as many elements as the images, the kernels and the result have.

Signals (rows, length, channels), with kernels (length, channels, outputs), are images of width 1.
Without a provider images are multiplied as they are, see :mod:`mpc.protocols.own_convolution`; groups are
a stack of matrices.

Source: Beaver 1991 for any bilinear map; the view of a mask is a linear map of it.
"""

from __future__ import annotations

from math import prod

from mpc.core.cost import Spent
from mpc.core.errors import ShapeError
from mpc.core.ranges import LARGEST
from mpc.core.secret_value import Secret
from mpc.core.windows import Windows
from mpc.protocols import linear, own_convolution, product, range_check
from mpc.protocols.truncation import to_format

__all__ = ["convolve", "cost", "input_gradient", "kernel_gradient", "transposed", "turned"]

Shape = tuple[int, ...]


def cost(parties: int, masked: int, size: int = 0) -> Spent:
    """Declare the cost, see :func:`mpc.protocols.product.cost`."""
    return product.cost(parties, masked, size)


def _masked(x: Secret, y: Secret) -> tuple[Secret, Secret]:
    """Mask both arrays in their own shapes, before any view of them is taken."""
    x, y = (z if z.mask is not None or z.sided is not None else to_format(z) for z in (x, y))
    product.mask_operands(x, y)
    return x, y


def _as_images(x: Secret) -> Secret:
    """Return images as they are, signals (rows, length, channels) as images of width 1."""
    return x if x.ndim == 4 else x.view(("reshape", (*x.shape[:2], 1, x.shape[2])))


def _as_kernels(w: Secret) -> Secret:
    """Return kernels as they are, those of signals (length, channels, outputs) with a width of 1."""
    return w if w.ndim == 4 else w.view(("reshape", (w.shape[0], 1, *w.shape[1:])))


def _rows(x: Secret, windows: Windows) -> Secret:
    """Return the windows of images as the rows of a matrix."""
    seen = x.view(("windows", windows))
    places, size = prod(seen.shape[:3]), prod(seen.shape[3:])
    return seen.view(("reshape", (places, size)))


def _matrix(w: Secret) -> Secret:
    """Return an array as a matrix of its last axis."""
    return w.view(("reshape", (prod(w.shape[:-1]), w.shape[-1])))


def _grouped_rows(x: Secret, windows: Windows, groups: int) -> Secret:
    """Return the windows of each group of channels as the rows of a matrix, (groups, places, size)."""
    seen = x.view(("windows", windows))
    *sizes, channels = seen.shape
    split = seen.view(("reshape", (*sizes, groups, channels // groups)))
    first = split.view(("transpose", (5, 3, 4, 6, 0, 1, 2)))
    size = prod(windows.kernel) * channels // groups
    return first.view(("reshape", (groups, size, prod(sizes[:3])))).view(("transpose", (0, 2, 1)))


def _grouped_matrix(w: Secret, groups: int) -> Secret:
    """Return an array as a matrix of each group of its last axis, (groups, size, outputs a group)."""
    size = prod(w.shape[:-1])
    split = w.view(("reshape", (size, groups, w.shape[-1] // groups)))
    return split.view(("transpose", (1, 0, 2)))


def _check(x: Secret, w: Secret, windows: Windows, groups: int) -> None:
    """Raise ShapeError unless kernels fit to images, or to signals, and their groups."""
    axes, size = x.ndim, windows.kernel if x.ndim == 4 else windows.kernel[:1]
    fits = axes in (3, 4) and w.ndim == axes and (*size, x.shape[-1] // groups) == w.shape[:-1]
    if not fits or x.shape[-1] % groups or w.shape[-1] % groups:
        raise ShapeError(
            "images (rows, height, width, channels) and kernels (height, width, channels, outputs) "
            f"must fit together, got shapes {x.shape} and {w.shape}"
            + (f" in {groups} groups" if groups > 1 else "")
        )


def convolve(x: Secret, w: Secret, windows: Windows, groups: int = 1) -> Secret:
    """Convolve images with kernels (in fact correlate, as networks do).

    Parameters
    ----------
    x : SharedArray of shape (rows, height, width, channels), or (rows, length, channels)
    w : SharedArray of shape (kernel height, kernel width, channels a group, outputs), or (kernel length,
        channels a group, outputs)
    windows : Windows
    groups : int, default=1
        Groups of channels: the first outputs are made from the first channels alone, and so on.

    Returns
    -------
    SharedArray of shape (rows, down, across, outputs), or (rows, places, outputs)
        With the fractional bits of both operands together.
    """
    _check(x, w, windows, groups)
    with x.session.protocol("product"):
        down, across = windows.places(x.shape[1], x.shape[2] if x.ndim == 4 else 1)
        if down < 1 or across < 1:
            raise ShapeError(f"a kernel of {windows.kernel} does not fit images of {x.shape[1:-1]}")
        x, w = _masked(x, w)
        places = (down, across)[: x.ndim - 2]
        session, images, kernels = x.session, _as_images(x), _as_kernels(w)
        if groups == 1:
            z = product.matmul(
                _rows(images, windows), _matrix(kernels),
                lambda pair: own_convolution.convolve(session, pair, images, kernels, windows),
            )  # fmt: skip
        else:
            z = product.grouped(
                _grouped_rows(images, windows, groups), _grouped_matrix(kernels, groups)
            )
        return z.view(("reshape", (x.shape[0], *places, w.shape[-1])))


def kernel_gradient(x: Secret, g: Secret, windows: Windows, groups: int = 1) -> Secret:
    """Return the gradient at the kernels, for the gradient g of ``convolve(x, w, windows, groups)``."""
    with x.session.protocol("product"):
        x, g = _masked(x, g)
        session, size = x.session, windows.kernel[: x.ndim - 2]
        channels, outputs = x.shape[-1], g.shape[-1]
        images, errors = _as_images(x), _as_images(g)
        if groups == 1:
            z = product.matmul(
                _rows(images, windows).view(("transpose", (1, 0))), _matrix(errors),
                lambda pair: own_convolution.kernel_gradient(session, pair, images, errors, windows),
            )  # fmt: skip
        else:
            rows = _grouped_rows(images, windows, groups).view(("transpose", (0, 2, 1)))
            z = product.matmul(rows, _grouped_matrix(errors, groups)).view(("transpose", (1, 0, 2)))
        return z.view(("reshape", (*size, channels // groups, outputs)))


def input_gradient(g: Secret, w: Secret, windows: Windows, shape: Shape, groups: int = 1) -> Secret:
    """Return the gradient at the images, of shape `shape`, for the gradient g of the convolution."""
    with g.session.protocol("product"):
        g, w = _masked(g, w)
        errors, kernels = _as_images(g), _as_kernels(w)
        wide = shape if len(shape) == 4 else (*shape[:2], 1, shape[2])
        pair, times = g.session.pair, prod(windows.kernel)
        bound = g.bound * w.bound * (g.shape[-1] // groups) * times
        if pair is not None and bound <= LARGEST and groups == 1:
            back = own_convolution.input_gradient(g.session, pair, errors, kernels, windows, wide)
            back = back.reshape(len(back), *shape)
            return g.derive(back, frac_bits=g.frac_bits + w.frac_bits, bound=bound)
        seen = _spread(errors, kernels, windows, wide[-1], groups)
        back = windows.add_back(seen.shares, (len(seen.shares), *wide))
        bound = linear.settled(
            seen, "convolution", seen.bound * times, seen.frac_bits, (seen,),
            lambda v: windows.add_back(v, wide), times,
            lambda: (range_check.magnitude(seen, LARGEST // times),),
        )  # fmt: skip
        return seen.derive(back.reshape(len(back), *shape), frac_bits=seen.frac_bits, bound=bound)


def _spread(g: Secret, w: Secret, windows: Windows, channels: int, groups: int) -> Secret:
    """Return what each place gives to the pixels of its window, (rows, down, across, *kernel, channels)."""
    places = g.shape[:3]
    if groups == 1:
        z = product.matmul(_matrix(g), _matrix(w).view(("transpose", (1, 0))))
        return z.view(("reshape", (*places, *windows.kernel, channels)))
    stacks = _grouped_matrix(w, groups).view(("transpose", (0, 2, 1)))
    z = product.matmul(_grouped_matrix(g, groups), stacks)
    each = z.view(("reshape", (groups, *places, *windows.kernel, channels // groups)))
    moved = each.view(("transpose", (1, 2, 3, 4, 5, 0, 6)))
    return moved.view(("reshape", (*places, *windows.kernel, channels)))


def turned(w: Secret, groups: int = 1) -> Secret:
    """Exchange channels and outputs of kernels (..., channels a group, outputs), group by group."""
    *size, channels, outputs = w.shape
    split = w.view(("reshape", (*size, channels, groups, outputs // groups)))
    axes = len(size)
    moved = split.view(("transpose", (*range(axes), axes + 2, axes + 1, axes)))
    return moved.view(("reshape", (*size, outputs // groups, groups * channels)))


def transposed(x: Secret, w: Secret, windows: Windows, shape: Shape, groups: int = 1) -> Secret:
    """Return the transposed convolution of images with kernels.

    Parameters
    ----------
    x : SharedArray of shape (rows, height, width, channels), or (rows, length, channels)
    w : SharedArray of shape (kernel height, kernel width, channels a group, outputs), or (kernel length,
        channels a group, outputs)
    windows : Windows
        Of the result, one for each pixel of `x`.
    shape : tuple of int
        Of the result, (rows, height, width, outputs), or (rows, length, outputs).
    groups : int, default=1

    Returns
    -------
    SharedArray of shape `shape`
        With the fractional bits of both operands together.
    """
    with x.session.protocol("product"):
        x, w = _masked(x, w)
        return input_gradient(x, turned(w, groups), windows, shape, groups)
