"""How images and kernels lie in polynomials, so that products of polynomials hold convolutions.

Pixel (c, h, w) is at c H W + h W + w, and the kernel at O - c H W - l W - l' for
O = H W (C - 1) + W (kh - 1) + kw - 1; then result (i, j) is at O + i W + j. The kernel for another output
starts C H W further, C being the channels in one polynomial.

Reference: Huang and others 2022 (Cheetah, ePrint 2022/207, section 4).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mpc.core.errors import ArgumentError
from mpc.core.windows import Windows
from mpc.two_party.rlwe_layouts import ceiling, check_shape, whole_polynomials
from mpc.two_party.rlwe_parameters import LENGTH
from ring import matmul

__all__ = ["ImageConvolution"]

Words = NDArray[np.uint64]
Places = NDArray[np.int64]


@dataclass(frozen=True)
class ImageConvolution:
    """Images (images, height, width, channels) with kernels (outputs, *kernel, channels).

    The results, (images, places down, places across, outputs), are those of stride 1 without
    padding: a keeper of padded images encrypts their zeros, and a larger stride reads fewer places.

    Attributes
    ----------
    images, height, width, channels, outputs : int
    kernel : (int, int)
    stride : (int, int)
    kept_images : bool
        Whether the keeper holds the images, and not the kernels.
    """

    images: int
    height: int
    width: int
    channels: int
    outputs: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    kept_images: bool = False

    def __post_init__(self) -> None:
        if min(self.images, self.channels, self.outputs, *self.kernel, *self.stride) < 1:
            raise ArgumentError("images, channels, outputs, kernel and stride must be positive")
        if self.height < self.kernel[0] or self.width < self.kernel[1]:
            raise ArgumentError(
                f"an image of {self.height} x {self.width} pixels is smaller than the kernel"
            )
        if self.height * self.width > LENGTH:
            raise ArgumentError(
                f"an image may have {LENGTH} pixels, got {self.height} x {self.width}:"
                " multiply a matrix of its windows"
            )

    @property
    def _pixels(self) -> int:
        return self.height * self.width

    @property
    def _together(self) -> int:
        """Channels in one polynomial."""
        return min(self.channels, LENGTH // self._pixels)

    @property
    def _kernels(self) -> int:
        """Outputs in one polynomial: what wraps around then ends before the first result."""
        return min(self.outputs, LENGTH // (self._together * self._pixels))

    @property
    def _origin(self) -> int:
        down, across = self.kernel
        return self._pixels * (self._together - 1) + self.width * (down - 1) + across - 1

    @property
    def _image_shape(self) -> tuple[int, ...]:
        return self.images, self.height, self.width, self.channels

    @property
    def _kernel_shape(self) -> tuple[int, ...]:
        return self.outputs, *self.kernel, self.channels

    @property
    def kept_shape(self) -> tuple[int, ...]:
        return self._image_shape if self.kept_images else self._kernel_shape

    @property
    def mixed_shape(self) -> tuple[int, ...]:
        return self._kernel_shape if self.kept_images else self._image_shape

    @property
    def kept_as(self) -> Hashable:
        # However many images there are.
        return self if self.kept_images else replace(self, images=1)

    @property
    def _kernel_groups(self) -> int:
        return ceiling(self.outputs, self._kernels)

    @property
    def kept_groups(self) -> int:
        return self.images if self.kept_images else self._kernel_groups

    @property
    def mixed_groups(self) -> int:
        return self._kernel_groups if self.kept_images else self.images

    @property
    def terms(self) -> int:
        return ceiling(self.channels, self._together)

    @property
    def run(self) -> int:
        return 1

    @property
    def used(self) -> int:
        if self.kept_images:
            return self._kernels * self.channels * self.kernel[0] * self.kernel[1]
        return self.channels * self._pixels

    @property
    def dense(self) -> bool:
        return False

    @property
    def _results(self) -> tuple[int, int]:
        return (
            (self.height - self.kernel[0]) // self.stride[0] + 1,
            (self.width - self.kernel[1]) // self.stride[1] + 1,
        )

    @property
    def result_shape(self) -> tuple[int, ...]:
        return self.images, *self._results, self.outputs

    @property
    def reads(self) -> int:
        return self._kernels * self._results[0] * self._results[1]

    @cached_property
    def places(self) -> Places:
        down, across = (
            np.arange(count) * step for count, step in zip(self._results, self.stride, strict=True)
        )
        output = np.arange(self._kernels) * self._together * self._pixels
        where = output[:, None, None] + down[:, None] * self.width + across
        return self._origin + where.reshape(-1)

    def _pack_images(self, x: Words) -> Words:
        """Polynomials of shape (groups, terms, pixels of the channels), which only zeros follow."""
        count, together = len(x), self._together
        out = np.zeros((count, self.terms * together, self._pixels), np.uint64)
        out[:, : self.channels] = x.reshape(count, self._pixels, -1).swapaxes(1, 2)
        return out.reshape(count, self.terms, together * self._pixels)

    def _pack_kernels(self, w: Words) -> Words:
        groups, together = ceiling(len(w), self._kernels), self._together
        full = np.zeros((groups * self._kernels, *self.kernel, self.terms * together), np.uint64)
        full[: len(w), :, :, : self.channels] = w
        full = full.reshape(groups, self._kernels, *self.kernel, self.terms, together)
        output, down, across, channel = np.ogrid[
            : self._kernels, : self.kernel[0], : self.kernel[1], :together
        ]
        at = (
            output * together * self._pixels + self._origin
            - channel * self._pixels - down * self.width - across
        )  # fmt: skip
        out = np.zeros((groups, self.terms, LENGTH), np.uint64)
        for term in range(self.terms):
            out[:, term, at] = full[:, :, :, :, term]
        return out

    def pack_kept(self, x: Words) -> Words:
        check_shape("keeper's", x, self.kept_shape)
        return (
            whole_polynomials(self._pack_images(x)) if self.kept_images else self._pack_kernels(x)
        )

    def unpack_kept(self, polynomials: Words) -> Words:
        raise ArgumentError("only polynomials that are full of the operand may be random")

    def pack_mixed(self, w: Words, start: int, stop: int) -> Words:
        check_shape("mixer's", w, self.mixed_shape)
        if self.kept_images:
            return self._pack_kernels(w[start * self._kernels : stop * self._kernels])
        return self._pack_images(w[start:stop])

    def unpack(self, results: Words) -> Words:
        if not self.kept_images:
            results = results.swapaxes(0, 1)
        out = results.reshape(self.images, -1, *self._results)[:, : self.outputs]
        return np.ascontiguousarray(out.transpose(0, 2, 3, 1))

    def multiply(self, x: Words, w: Words) -> Words:
        images, kernels = (x, w) if self.kept_images else (w, x)
        rows = Windows(self.kernel, self.stride).view(images)
        rows = rows.reshape(self.images, *self._results, -1)
        return matmul(rows, kernels.reshape(self.outputs, -1).T)
