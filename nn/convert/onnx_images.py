"""ONNX operators on images. ONNX has channels first, the layers that are made have them last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from nn.convert.from_sklearn import ConversionError
from nn.convert.onnx_values import NO_PADS, Images, Pads, Rows, Value, as_images, as_rows, constant
from nn.layers import ReLU
from nn.layers.convolution import Convolution
from nn.layers.pooling import AveragePool, MaxPool

__all__ = ["IMAGE_OPERATORS", "NO_PADS", "Pool", "need", "pads_of"]

Pool = type[AveragePool] | type[MaxPool]


def need(attributes: dict[str, Any], **wanted: Any) -> None:
    """Raise ConversionError unless the given attributes have the wanted values, or are absent."""
    for name, value in wanted.items():
        found = attributes.get(name, value)
        if isinstance(value, list):
            found = list(found)
        if found != value:
            raise ConversionError(f"needs {name}={value}, got {name}={found}")


def pads_of(
    attributes: dict[str, Any], size: tuple[int, ...], kernel: list[int], strides: list[int]
) -> Pads:
    """Return the numbers of zeros ((above, below), (left, right)) that a node adds around images.

    `size` is height and width of the images.
    """
    automatic = attributes.get("auto_pad", b"NOTSET").decode()
    if automatic == "VALID":
        return NO_PADS
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        sides = []
        for length, k, step in zip(size, kernel, strides, strict=True):
            missing = max(0, (-(-length // step) - 1) * step + k - length)
            less, more = missing // 2, missing - missing // 2
            sides.append((less, more) if automatic == "SAME_UPPER" else (more, less))
        return sides[0], sides[1]
    if automatic != "NOTSET":
        raise ConversionError(
            f"needs auto_pad NOTSET, VALID, SAME_UPPER or SAME_LOWER, got auto_pad={automatic}"
        )
    top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
    if min(top, left, bottom, right) < 0:
        raise ConversionError(f"needs pads of at least 0, got pads={attributes['pads']}")
    return (top, bottom), (left, right)


def _conv(
    attributes: dict[str, Any], x: Value, weights: Value, bias: Value | None = None
) -> Images:
    images, kernel = as_images(x), constant(weights)
    if kernel.ndim != 4:
        raise ConversionError(f"needs kernels with two axes, got weights of shape {kernel.shape}")
    need(attributes, group=1, dilations=[1, 1], kernel_shape=list(kernel.shape[2:]))
    outputs, channels, *sizes = kernel.shape
    if channels != images.shape[0]:
        raise ConversionError(f"needs images of {channels} channels, got {images.shape[0]}")
    strides = list(attributes.get("strides", [1, 1]))
    added = pads_of(attributes, images.shape[1:], sizes, strides)
    if images.pads != NO_PADS:
        if attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
            raise ConversionError("needs auto_pad=NOTSET behind a Pad")
        (a, b), (c, d) = added
        (e, f), (g, h) = images.pads
        added = (a + e, b + f), (c + g, d + h)
        images = replace(images, pads=NO_PADS)
    kernel = kernel.transpose(2, 3, 1, 0)
    summand = np.zeros(outputs) if bias is None else constant(bias)
    if images.factor is not None and images.summand is not None and added == NO_PADS:
        # Fold in the affine map of the channels before the convolution. Not with zeros around the
        # image: they are added behind that map.
        summand = summand + images.summand @ kernel.sum(axis=(0, 1))
        kernel = kernel * images.factor[:, None]
        images = replace(images, factor=None, summand=None)
    symmetric = added[0][0] == added[0][1] and added[1][0] == added[1][1]
    padding: Any = (added[0][0], added[1][0]) if symmetric else added
    layer = Convolution(
        kernel, summand, stride=tuple(strides), padding="valid" if added == NO_PADS else padding
    )
    height, width, _ = layer.output_shape((*images.shape[1:], channels))
    return images.follow(layer, shape=(outputs, height, width))


def _pool_of(kind: Pool, images: Images, size: tuple[int, int]) -> Images:
    """Return images after pooling by tiles of the given height and width."""
    channels, height, width = images.shape
    if height % size[0] or width % size[1]:
        raise ConversionError(
            f"needs kernel_shape to divide the image, got kernel_shape={list(size)} for "
            f"{height} by {width}"
        )
    shape = (channels, height // size[0], width // size[1])
    layer = kind(size)
    core = images.mapped().core
    if kind is MaxPool and core and isinstance(core[-1], ReLU):
        # The same function, with fewer ReLUs, which cost most on shares.
        return replace(images, core=core[:-1]).follow(layer, core[-1], shape=shape)
    return images.follow(layer, shape=shape)


def _pool(kind: Pool) -> Callable[..., Images]:
    def pool(attributes: dict[str, Any], x: Value) -> Images:
        images = as_images(x).unpadded()
        size = list(attributes["kernel_shape"])
        if len(size) != 2:
            raise ConversionError(f"needs kernels with two axes, got kernel_shape={size}")
        strides = list(attributes.get("strides", [1, 1]))
        if strides != size:
            raise ConversionError(
                f"needs strides like kernel_shape, got strides={strides}, kernel_shape={size}"
            )
        need(attributes, ceil_mode=0, dilations=[1, 1], storage_order=0)
        if pads_of(attributes, images.shape[1:], size, strides) != NO_PADS:
            raise ConversionError(f"needs pads=[0, 0, 0, 0], got pads={attributes.get('pads')}")
        return _pool_of(kind, images, (size[0], size[1]))

    return pool


def _global_pool(kind: Pool) -> Callable[..., Images]:
    def pool(attributes: dict[str, Any], x: Value) -> Images:
        images = as_images(x).unpadded()
        return _pool_of(kind, images, (images.shape[1], images.shape[2]))

    return pool


def _reduce_mean(attributes: dict[str, Any], x: Value, axes: Value | None = None) -> Images | Rows:
    images = as_images(x).unpadded()
    named = attributes.get("axes", []) if axes is None else constant(axes)
    if sorted(int(a) % 4 for a in named) != [2, 3]:
        raise ConversionError("needs axes=[2, 3]: the mean over height and width")
    pooled = _pool_of(AveragePool, images, (images.shape[1], images.shape[2]))
    return (
        pooled
        if attributes.get("keepdims", 1)
        else replace(as_rows(pooled), shape=images.shape[:1])
    )


def _pad(
    attributes: dict[str, Any], x: Value, pads: Value | None = None, value: Value | None = None,
    axes: Value | None = None,
) -> Images:  # fmt: skip
    images = as_images(x)
    if attributes.get("mode", b"constant") != b"constant":
        raise ConversionError(f"needs mode=constant, got mode={attributes['mode'].decode()}")
    padding = attributes.get("value", 0.0) if value is None else constant(value)
    if np.any(padding):
        raise ConversionError("needs value=0: zeros around the image")
    widths = [int(n) for n in (attributes["pads"] if pads is None else constant(pads))]
    places = range(4) if axes is None else [int(a) % 4 for a in constant(axes)]
    before = dict(zip(places, widths[: len(widths) // 2], strict=True))
    behind = dict(zip(places, widths[len(widths) // 2 :], strict=True))
    if min(widths, default=0) < 0 or any(before.get(a) or behind.get(a) for a in (0, 1)):
        raise ConversionError(f"needs zeros along height and width only, got pads={widths}")
    (a, b), (c, d) = images.pads
    added = (
        (a + before.get(2, 0), b + behind.get(2, 0)), (c + before.get(3, 0), d + behind.get(3, 0))
    )  # fmt: skip
    return replace(images, pads=added)


IMAGE_OPERATORS: dict[str, Callable[..., Value]] = {
    "AveragePool": _pool(AveragePool),
    "Conv": _conv,
    "GlobalAveragePool": _global_pool(AveragePool),
    "GlobalMaxPool": _global_pool(MaxPool),
    "MaxPool": _pool(MaxPool),
    "Pad": _pad,
    "ReduceMean": _reduce_mean,
}
