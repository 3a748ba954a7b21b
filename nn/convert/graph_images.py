"""ONNX operators on images and signals, as functions of :mod:`nn.convert.graph_table`.

ONNX has channels first, the layers that are made have them last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nn.convert.from_sklearn import ConversionError
from nn.convert.graph_builder import Builder
from nn.convert.graph_sizes import whole_sizes
from nn.convert.graph_table import operator
from nn.convert.graph_values import ROWS, Tensor, constant
from nn.layers import Layer
from nn.layers.convolution import Convolution
from nn.layers.pooling import AveragePool, MaxPool
from nn.layers.resizing import COORDINATES, MODES, ROUNDINGS, CubicResize, Resize
from nn.layers.standardising import GroupNorm, LocalResponseNorm
from nn.layers.transposed import TransposedConvolution

__all__: list[str] = []

Floats = NDArray[np.float64]
Sides = tuple[tuple[int, int], ...]


def _applied(builder: Builder, layer: Layer, value: int) -> Tensor:
    return builder.from_images(builder.add(layer, value))


def _per_axis(attributes: dict[str, Any], name: str, axes: int, usual: int = 1) -> tuple[int, ...]:
    found = tuple(int(n) for n in attributes.get(name, [usual] * axes))
    if len(found) != axes:
        raise ConversionError(f"needs {name} for {axes} axes, got {name}={list(found)}")
    return found


def _automatic(attributes: dict[str, Any]) -> str:
    found: str = attributes.get("auto_pad", b"NOTSET").decode()
    if found not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise ConversionError(
            f"needs auto_pad NOTSET, VALID, SAME_UPPER or SAME_LOWER, got auto_pad={found}"
        )
    return found


def _halves(total: int, upper: bool) -> tuple[int, int]:
    """Return both sides of so many, the odd one behind if `upper`."""
    less, more = total // 2, total - total // 2
    return (less, more) if upper else (more, less)


def _sides(
    attributes: dict[str, Any], size: Sequence[int], extent: Sequence[int], strides: Sequence[int]
) -> Sides:
    """Return what a node adds before and behind each axis, for kernels that cover `extent`."""
    automatic, axes = _automatic(attributes), len(size)
    if automatic == "VALID":
        return ((0, 0),) * axes
    if automatic == "NOTSET":
        pads = _per_axis(attributes, "pads", 2 * axes, 0)
        if min(pads) < 0:
            raise ConversionError(f"needs pads of at least 0, got pads={list(pads)}")
        return tuple(zip(pads[:axes], pads[axes:], strict=True))
    return tuple(
        _halves(max(0, (-(-n // step) - 1) * step + k - n), automatic == "SAME_UPPER")
        for n, k, step in zip(size, extent, strides, strict=True)
    )


def _extent(kernel: Sequence[int], dilations: Sequence[int]) -> list[int]:
    return [(k - 1) * gap + 1 for k, gap in zip(kernel, dilations, strict=True)]


def _padding(sides: Sides) -> Any:
    """Return sides as a layer's padding: "valid" for none, a number an axis if they are alike."""
    if not any(map(any, sides)):
        return "valid"
    return tuple(a for a, _ in sides) if all(a == b for a, b in sides) else sides


def _kernel(attributes: dict[str, Any], weights: Any) -> Floats:
    kernel = constant(weights)
    if kernel.ndim not in (3, 4):
        raise ConversionError(
            f"needs kernels with one or two axes, got weights of shape {kernel.shape}"
        )
    named = list(attributes.get("kernel_shape", kernel.shape[2:]))
    if named != list(kernel.shape[2:]):
        raise ConversionError(f"needs kernel_shape of its weights, got kernel_shape={named}")
    return kernel


def _source(builder: Builder, x: Any, channels: int, axes: int) -> int:
    """Return the number of a value as images of so many channels and axes."""
    value = builder.images(builder.tensor(x))
    shape = builder.sizes[value]
    if len(shape) - 1 != axes:
        raise ConversionError(f"needs rows with {axes} axes behind the channels, got {shape}")
    if shape[-1] != channels:
        raise ConversionError(f"needs images of {channels} channels, got {shape[-1]}")
    return value


@operator("Conv", "auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
def _conv(
    builder: Builder, attributes: dict[str, Any], x: Any, weights: Any, bias: Any = None
) -> Tensor:
    kernel = _kernel(attributes, weights)
    axes, groups = kernel.ndim - 2, int(attributes.get("group", 1))
    strides, dilations = (_per_axis(attributes, name, axes) for name in ("strides", "dilations"))
    value = _source(builder, x, kernel.shape[1] * groups, axes)
    extent = _extent(kernel.shape[2:], dilations)
    sides = _sides(attributes, builder.sizes[value][:-1], extent, strides)
    summand = np.zeros(len(kernel)) if bias is None else constant(bias)
    layer = Convolution(
        np.moveaxis(kernel, (0, 1), (-1, -2)), summand, stride=strides, padding=_padding(sides),
        dilation=dilations, groups=groups,
    )  # fmt: skip
    return _applied(builder, layer, value)


@operator(
    "ConvTranspose", "auto_pad", "dilations", "group", "kernel_shape", "output_padding",
    "output_shape", "pads", "strides",
)  # fmt: skip
def _conv_transpose(
    builder: Builder, attributes: dict[str, Any], x: Any, weights: Any, bias: Any = None
) -> Tensor:
    kernel = _kernel(attributes, weights)
    axes, groups = kernel.ndim - 2, int(attributes.get("group", 1))
    strides, dilations = (_per_axis(attributes, name, axes) for name in ("strides", "dilations"))
    more = _per_axis(attributes, "output_padding", axes, 0)
    channels, outputs = kernel.shape[0], kernel.shape[1] * groups
    value = _source(builder, x, channels, axes)
    size = builder.sizes[value][:-1]
    extent = _extent(kernel.shape[2:], dilations)
    automatic = _automatic(attributes)
    wanted = attributes.get("output_shape")
    if wanted is None and automatic.startswith("SAME"):
        wanted = [n * step for n, step in zip(size, strides, strict=True)]
    if wanted is None:
        sides = _sides(attributes, size, extent, strides)
    else:
        totals = [
            step * (n - 1) + p + k - out
            for n, step, p, k, out in zip(size, strides, more, extent, wanted[-axes:], strict=True)
        ]
        # What the kernels do not reach lies behind them.
        more = tuple(p + max(0, -n) for p, n in zip(more, totals, strict=True))
        totals = [max(0, n) for n in totals]
        sides = tuple(_halves(n, automatic == "SAME_UPPER") for n in totals)
    split = kernel.reshape(groups, channels // groups, kernel.shape[1], *kernel.shape[2:])
    moved = np.moveaxis(split, (1, 0, 2), (-3, -2, -1))
    layer = TransposedConvolution(
        moved.reshape(*kernel.shape[2:], channels // groups, outputs),
        np.zeros(outputs) if bias is None else constant(bias), stride=strides, padding=sides,
        dilation=dilations, groups=groups, output_padding=more,
    )  # fmt: skip
    return _applied(builder, layer, value)


def _pool(kind: type[MaxPool] | type[AveragePool]) -> Any:
    def pool(builder: Builder, attributes: dict[str, Any], x: Any) -> Tensor:
        if attributes["outputs"] > 1:
            raise ConversionError("needs one output: the indices of maxima are not converted")
        x = builder.tensor(x)
        size = x.shape[1:]
        kernel = tuple(int(n) for n in attributes["kernel_shape"])
        if len(kernel) != len(size):
            raise ConversionError(f"needs kernels with {len(size)} axes, got kernel_shape={kernel}")
        strides, dilations = (
            _per_axis(attributes, name, len(size)) for name in ("strides", "dilations")
        )
        sides = _sides(attributes, size, _extent(kernel, dilations), strides)
        options: dict[str, Any] = {"ceil": bool(attributes.get("ceil_mode", 0))}
        if attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b""):
            options = {}  # it says how many places there are
        if kind is AveragePool:
            options["count_padding"] = bool(attributes.get("count_include_pad", 0))
        if len(size) > 2:
            return _along_some(builder, kind, x, kernel, strides, sides, dilations, options)
        layer = kind(kernel, strides, _padding(sides), dilations, **options)
        return _applied(builder, layer, builder.images(x))

    return pool


def _along_some(
    builder: Builder, kind: type[MaxPool] | type[AveragePool], x: Tensor, kernel: Sequence[int],
    strides: Sequence[int], sides: Sides, dilations: Sequence[int], options: dict[str, Any],
) -> Tensor:  # fmt: skip
    """Pool along one or two of several axes: those along which windows have more than one element."""
    whole = zip(kernel, strides, sides, strict=True)
    pooled = [k for k, window in enumerate(whole) if window != (1, 1, (0, 0))]
    if not 1 <= len(pooled) <= 2:
        raise ConversionError(f"needs windows along one or two axes, got kernel_shape={kernel}")
    axes = [k + 2 for k in pooled]
    kept = [k for k in range(1, len(x.axes)) if k not in axes]
    joined = tuple(a for k in kept for a in x.axes[k])
    layer = kind(
        tuple(kernel[k] for k in pooled), tuple(strides[k] for k in pooled),
        _padding(tuple(sides[k] for k in pooled)), tuple(dilations[k] for k in pooled), **options,
    )  # fmt: skip
    value = builder.add(layer, builder.arranged(x, [*(x.axes[k] for k in axes), joined]))
    groups: dict[int, tuple[int, ...]] = {k: (place,) for place, k in enumerate(axes)}
    made = Tensor(value, builder.sizes[value], ((ROWS,), *groups.values(), (len(axes),)))
    split = builder.split(made, {len(axes): [x.size(k) for k in kept]})
    groups |= {k: (place,) for place, k in enumerate(kept, start=len(axes))}
    return replace(split, axes=((ROWS,), *(groups[k] for k in range(1, len(x.axes)))))


def _blocks(builder: Builder, attributes: dict[str, Any], x: Any, *, deep: bool) -> Tensor:
    """Move blocks of places into channels (`deep`), or channels into blocks."""
    x, n = builder.tensor(x), int(attributes["blocksize"])
    if len(x.axes) != 4:
        raise ConversionError(f"needs images, got {len(x.axes)} axes")
    for axis in (1, 2, 3):
        x = builder.one_axis(x, axis)
    (c,), (h,), (w,) = x.axes[1:]
    channels, height, width = x.shape
    if deep:
        if height % n or width % n:
            raise ConversionError(f"needs blocksize to divide {height} and {width}, got {n}")
        x = builder.split(x, {h: [height // n, n], w: [width // n, n]})
        (c, h, a, w, b) = (k for group in x.axes[1:] for k in group)
        return replace(x, axes=((ROWS,), (a, b, c), (h,), (w,)))
    if channels % (n * n):
        raise ConversionError(f"needs blocksize**2 to divide {channels} channels, got {n}")
    ahead = attributes.get("mode", b"DCR") == b"DCR"
    parts = [n, n, channels // n // n] if ahead else [channels // n // n, n, n]
    x = builder.split(x, {c: parts})
    first, second, third = x.axes[1]
    depth, a, b = (third, first, second) if ahead else (first, second, third)
    return replace(x, axes=((ROWS,), (depth,), (*x.axes[2], a), (*x.axes[3], b)))


@operator("DepthToSpace", "blocksize", "mode")
def _to_space(builder: Builder, attributes: dict[str, Any], x: Any) -> Tensor:
    return _blocks(builder, attributes, x, deep=False)


@operator("SpaceToDepth", "blocksize")
def _to_depth(builder: Builder, attributes: dict[str, Any], x: Any) -> Tensor:
    return _blocks(builder, attributes, x, deep=True)


_WINDOWS = ("auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "strides")
operator("MaxPool", *_WINDOWS, "storage_order")(_pool(MaxPool))
operator("AveragePool", *_WINDOWS, "count_include_pad")(_pool(AveragePool))


def _global_pool(kind: type[MaxPool] | type[AveragePool]) -> Any:
    def pool(builder: Builder, attributes: dict[str, Any], x: Any) -> Tensor:
        value = builder.images(builder.tensor(x))
        return _applied(builder, kind(builder.sizes[value][:-1]), value)

    return pool


operator("GlobalMaxPool")(_global_pool(MaxPool))
operator("GlobalAveragePool")(_global_pool(AveragePool))


@operator("LRN", "alpha", "beta", "bias", "size")
def _lrn(builder: Builder, attributes: dict[str, Any], x: Any) -> Tensor:
    options = [attributes.get(n, v) for n, v in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))]
    # Attributes are float32, for numbers such as 0.0001.
    numbers = [float(f"{v:.7g}") for v in options]
    value = builder.images(builder.tensor(x))
    return _applied(builder, LocalResponseNorm(int(attributes["size"]), *numbers), value)


@operator("InstanceNormalization", "epsilon")
def _instance(
    builder: Builder, attributes: dict[str, Any], x: Any, scale: Any, bias: Any
) -> Tensor:
    value = builder.images(builder.tensor(x))
    factor, channels = constant(scale), builder.sizes[value][-1]
    layer = GroupNorm(factor, constant(bias), channels, attributes.get("epsilon", 1e-5))
    return _applied(builder, layer, value)


@operator("GroupNormalization", "epsilon", "num_groups", "stash_type")
def _groups(builder: Builder, attributes: dict[str, Any], x: Any, scale: Any, bias: Any) -> Tensor:
    value = builder.images(builder.tensor(x))
    groups, channels = int(attributes["num_groups"]), builder.sizes[value][-1]
    factor, summand = constant(scale), constant(bias)
    if attributes["opset"] < 21:  # one for each group
        factor, summand = (np.repeat(v, channels // groups) for v in (factor, summand))
    layer = GroupNorm(factor, summand, groups, attributes.get("epsilon", 1e-5))
    return _applied(builder, layer, value)


_RESIZING = (
    "antialias", "axes", "coordinate_transformation_mode", "cubic_coeff_a", "exclude_outside",
    "extrapolation_value", "keep_aspect_ratio_policy", "mode", "nearest_mode",
)  # fmt: skip


@operator("Resize", *_RESIZING)
def _resize(
    builder: Builder, attributes: dict[str, Any], x: Any, roi: Any = None, scales: Any = None,
    sizes: Any = None,
) -> Tensor:  # fmt: skip
    if attributes["opset"] < 11:
        return _resized(builder, attributes, x, roi, None, "asymmetric", "floor")
    place = attributes.get("coordinate_transformation_mode", b"half_pixel").decode()
    rounding = attributes.get("nearest_mode", b"round_prefer_floor").decode()
    return _resized(builder, attributes, x, scales, sizes, place, rounding)


@operator("Upsample", "mode", "scales")
def _upsample(builder: Builder, attributes: dict[str, Any], x: Any, scales: Any = None) -> Tensor:
    named = np.array(attributes["scales"]) if scales is None else scales
    return _resized(builder, attributes, x, named, None, "asymmetric", "floor")


def _resized(
    builder: Builder, attributes: dict[str, Any], x: Any, scales: Any, sizes: Any, place: str,
    rounding: str,
) -> Tensor:  # fmt: skip
    mode = attributes.get("mode", b"nearest").decode()
    for name, value, known in (
        ("mode", mode, (*MODES, "cubic")), ("coordinate_transformation_mode", place, COORDINATES),
        ("nearest_mode", rounding, ROUNDINGS),
    ):  # fmt: skip
        if value not in known:
            raise ConversionError(f"needs {name} {', '.join(known)}, got {name}={value}")
    keys: dict[str, Any] = {"coordinates": place, "mode": mode, "rounding": rounding}
    kind: type[Resize] = Resize
    if mode == "cubic":
        sharpness = float(f"{attributes.get('cubic_coeff_a', -0.75):.7g}")
        beyond = "leave" if attributes.get("exclude_outside", 0) else "repeat"
        kind, keys = CubicResize, {"coordinates": place, "sharpness": sharpness, "beyond": beyond}
    policy = attributes.get("keep_aspect_ratio_policy", b"stretch").decode()
    if attributes.get("antialias", 0):
        raise ConversionError("needs antialias=0")
    value = builder.images(builder.tensor(x))
    old = builder.sizes[value][:-1]
    rank = len(old) + 2
    named = [int(a) % rank for a in attributes.get("axes", range(rank))]
    by_scale = scales is not None and np.size(scales)
    if by_scale:
        wanted = dict(zip(named, constant(scales).reshape(-1).tolist(), strict=True))
        if any(wanted.get(a, 1) != 1 for a in (0, 1)):
            raise ConversionError(f"must keep rows and channels, got scales={wanted}")
        whole: Sequence[float] = [wanted.get(a, 1.0) for a in range(2, rank)]
        layer = kind(whole, **keys)
        return _applied(builder, layer, value)
    if sizes is None:
        raise ConversionError("needs constant scales, or sizes")
    first, second = (dict(zip(named, found, strict=True)) for found in whole_sizes(sizes))
    if any(first[a] != second[a] for a in first if a) or first.get(0, builder.counts[0]) not in (
        builder.counts[0], 1 if builder.counts[0] == 1 else builder.counts[0]
    ):  # fmt: skip
        raise ConversionError("must keep the rows, and sizes must not depend on their number")
    if first.get(1, builder.sizes[value][-1]) != builder.sizes[value][-1]:
        raise ConversionError("must keep the channels")
    new = [first.get(a, n) for a, n in zip(range(2, rank), old, strict=True)]
    if policy != "stretch":  # one scale for the axes that are named
        some = [k for k in range(len(old)) if k + 2 in named]
        asked = list(new)
        scale = (min if policy == "not_larger" else max)(asked[k] / old[k] for k in some)
        for k in some:
            new[k] = round(scale * old[k])
            if not np.isclose(new[k], scale * old[k]):
                raise ConversionError(f"needs sizes that keep the ratio, got {asked} for {old}")
    layer = kind(size=new, **keys)
    return _applied(builder, layer, value)
