"""Convolution of secret images with secret kernels, as one matrix product.

1. Mask the images x and the kernels w as they are, opening those that have no mask yet: an image is
   opened once, not once for every window that a pixel lies in.
2. The windows of x are a strided view, and the mask of a view is the same view of the mask: of
   Delta_x, of every party's lambda_x, and of the provider's. Padding is zero in each.
3. One matrix product of all windows as rows (places, kernel size * channels) with the kernels, see
   :mod:`mpc.protocols.product`.
Cost: 1 round, 8 (n - 1) bytes for each element of x and w not yet masked (none if both are);
correction 8 bytes an element of the result.

Source: Beaver 1991 for any bilinear map; the view of a mask is a linear map of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpc.cost import Spent
from mpc.errors import ShapeError
from mpc.protocols import linear, product
from mpc.protocols.masking import mask_together
from mpc.protocols.truncation import to_format
from mpc.windows import Windows

if TYPE_CHECKING:
    from mpc.shared_array import SharedArray

__all__ = ["convolve", "cost"]


def cost(parties: int, masked: int, size: int) -> Spent:
    """Declare the cost: who sends most opens `masked` elements, the result has `size`."""
    return product.cost(parties, masked, size)


def convolve(x: SharedArray, w: SharedArray, windows: Windows) -> SharedArray:
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
    x, w = to_format(x), to_format(w)
    with x.session.protocol("product"):
        mask_together(x, w)
        size = w.size // w.shape[3]
        seen = linear.view(x, ("windows", windows))
        rows = linear.view(seen, ("reshape", (x.shape[0] * down * across, size)))
        z = product.matmul(rows, linear.view(w, ("reshape", (size, w.shape[3]))))
        return linear.view(z, ("reshape", (x.shape[0], down, across, w.shape[3])))
