"""Convolution of secret images with secret kernels, as one matrix product.

1. Mask the images x and the kernels w in their own shapes, opening those that have no mask yet: a pixel
   is opened once, not once for every window that it lies in.
2. The windows of x are a strided view, and the mask of a view is the same view of the mask: parties take
   it of Delta_x and of their shares of lambda_x, the provider of lambda_x. Padding is zero in each.
3. One matrix product of the windows, as rows of a matrix (places, kernel size * channels), with the
   kernels, see :mod:`mpc.protocols.product`.
Both gradients are products, too. For the gradient g at the result: the gradient at the kernels is the
product of the same windows with g; the gradient at the images is the product of g with the kernels, each
row then added to the pixels of its window, which is local.
Cost of each: 1 round, 8 (n - 1) bytes for each element not yet masked (none if both are); correction
8 bytes an element of the product, none if it is truncated.

Without a provider images are multiplied as they are, see :mod:`mpc.protocols.own_convolution`.

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
from mpc.protocols.masking import mask_ahead
from mpc.protocols.truncation import to_format

__all__ = ["convolve", "cost", "input_gradient", "kernel_gradient"]


def cost(parties: int, masked: int, size: int = 0) -> Spent:
    """Declare the cost, see :func:`mpc.protocols.product.cost`."""
    return product.cost(parties, masked, size)


def _masked(x: Secret, y: Secret) -> tuple[Secret, Secret]:
    """Mask both arrays in their own shapes, before any view of them is taken."""
    x, y = (z if z.mask is not None else to_format(z) for z in (x, y))
    mask_ahead(x, y)
    return x, y


def _rows(x: Secret, windows: Windows) -> Secret:
    """Return the windows of images as the rows of a matrix."""
    seen = x.view(("windows", windows))
    places, size = prod(seen.shape[:3]), prod(seen.shape[3:])
    return seen.view(("reshape", (places, size)))


def _matrix(w: Secret) -> Secret:
    """Return an array as a matrix of its last axis."""
    return w.view(("reshape", (prod(w.shape[:-1]), w.shape[-1])))


def convolve(x: Secret, w: Secret, windows: Windows) -> Secret:
    """Convolve images with kernels (in fact correlate, as networks do).

    Parameters
    ----------
    x : SharedArray of shape (rows, height, width, channels)
    w : SharedArray of shape (kernel height, kernel width, channels, outputs)
    windows : Windows

    Returns
    -------
    SharedArray of shape (rows, down, across, outputs)
        With the fractional bits of both operands together.
    """
    if x.ndim != 4 or w.ndim != 4 or (*windows.kernel, x.shape[-1]) != w.shape[:3]:
        raise ShapeError(
            "images (rows, height, width, channels) and kernels (height, width, channels, outputs) "
            f"must fit together, got shapes {x.shape} and {w.shape}"
        )
    down, across = windows.places(*x.shape[1:3])
    if down < 1 or across < 1:
        raise ShapeError(f"a kernel of {windows.kernel} does not fit images of {x.shape[1:3]}")
    with x.session.protocol("product"):
        x, w = _masked(x, w)
        session = x.session
        z = product.matmul(
            _rows(x, windows), _matrix(w),
            lambda pair: own_convolution.convolve(session, pair, x, w, windows),
        )  # fmt: skip
        return z.view(("reshape", (x.shape[0], down, across, w.shape[3])))


def kernel_gradient(x: Secret, g: Secret, windows: Windows) -> Secret:
    """Return the gradient at the kernels, for the gradient g of ``convolve(x, w, windows)``."""
    with x.session.protocol("product"):
        x, g = _masked(x, g)
        session = x.session
        z = product.matmul(
            _rows(x, windows).view(("transpose", (1, 0))), _matrix(g),
            lambda pair: own_convolution.kernel_gradient(session, pair, x, g, windows),
        )  # fmt: skip
        sizes = (*windows.kernel, x.shape[-1], g.shape[-1])
        return z.view(("reshape", sizes))


def input_gradient(g: Secret, w: Secret, windows: Windows, shape: tuple[int, ...]) -> Secret:
    """Return the gradient at the images, of shape `shape`, for the gradient g of the convolution."""
    with g.session.protocol("product"):
        g, w = _masked(g, w)
        pair, times = g.session.pair, prod(windows.kernel)
        bound = g.bound * w.bound * g.shape[-1] * times
        if pair is not None and bound <= LARGEST:
            back = own_convolution.input_gradient(g.session, pair, g, w, windows, shape)
            return g.derive(back, frac_bits=g.frac_bits + w.frac_bits, bound=bound)
        z = product.matmul(_matrix(g), _matrix(w).view(("transpose", (1, 0))))
        seen = z.view(("reshape", (*g.shape[:3], *windows.kernel, shape[-1])))
        back = windows.add_back(seen.shares, (len(seen.shares), *shape))
        bound = linear.settled(
            z, "convolution", z.bound * times, z.frac_bits, (seen,),
            lambda v: windows.add_back(v, shape), times,
            lambda: (range_check.magnitude(z, LARGEST // times),),
        )  # fmt: skip
        return z.derive(back, frac_bits=z.frac_bits, bound=bound)
