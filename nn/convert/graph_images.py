"""ONNX operators on images, as functions of :mod:`nn.convert.graph_builder`.

ONNX has channels first, the layers that are made have them last.
"""

from __future__ import annotations

from typing import Any

from nn.convert.from_sklearn import ConversionError
from nn.convert.graph_builder import Builder, Tensor, constant, operator
from nn.convert.onnx_images import NO_PADS, Pool, need, pads_of
from nn.layers.convolution import Convolution
from nn.layers.pooling import AveragePool, MaxPool

__all__: list[str] = []


@operator("Conv", "auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
def _conv(
    builder: Builder, attributes: dict[str, Any], x: Any, weights: Any, bias: Any = None
) -> Tensor:
    kernel = constant(weights)
    if kernel.ndim != 4:
        raise ConversionError(f"needs kernels with two axes, got weights of shape {kernel.shape}")
    need(attributes, group=1, dilations=[1, 1], kernel_shape=list(kernel.shape[2:]))
    channels, sizes = kernel.shape[1], list(kernel.shape[2:])
    value = builder.images(builder.tensor(x))
    shape = builder.sizes[value]
    if shape[-1] != channels:
        raise ConversionError(f"needs images of {channels} channels, got {shape[-1]}")
    strides = list(attributes.get("strides", [1, 1]))
    added = pads_of(attributes, shape[:2], sizes, strides)
    symmetric = added[0][0] == added[0][1] and added[1][0] == added[1][1]
    padding: Any = (added[0][0], added[1][0]) if symmetric else added
    summand = constant(bias) if bias is not None else kernel[:, 0, 0, 0] * 0
    layer = Convolution(
        kernel.transpose(2, 3, 1, 0), summand, stride=tuple(strides),
        padding="valid" if added == NO_PADS else padding,
    )  # fmt: skip
    return builder.from_images(builder.add(layer, value))


def _pool(kind: Pool) -> Any:
    def pool(builder: Builder, attributes: dict[str, Any], x: Any) -> Tensor:
        value = builder.images(builder.tensor(x))
        size = list(attributes["kernel_shape"])
        if len(size) != 2:
            raise ConversionError(f"needs kernels with two axes, got kernel_shape={size}")
        strides = list(attributes.get("strides", [1, 1]))
        if strides != size:
            raise ConversionError(
                f"needs strides like kernel_shape, got strides={strides}, kernel_shape={size}"
            )
        need(attributes, ceil_mode=0, dilations=[1, 1], storage_order=0)
        if pads_of(attributes, builder.sizes[value][:2], size, strides) != NO_PADS:
            raise ConversionError(f"needs pads=[0, 0, 0, 0], got pads={attributes.get('pads')}")
        return builder.from_images(builder.add(kind((size[0], size[1])), value))

    return pool


_WINDOWS = ("auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "strides")
operator("MaxPool", *_WINDOWS, "storage_order")(_pool(MaxPool))
operator("AveragePool", *_WINDOWS, "count_include_pad")(_pool(AveragePool))


def _global_pool(kind: Pool) -> Any:
    def pool(builder: Builder, attributes: dict[str, Any], x: Any) -> Tensor:
        value = builder.images(builder.tensor(x))
        height, width, _ = builder.sizes[value]
        return builder.from_images(builder.add(kind((height, width)), value))

    return pool


operator("GlobalMaxPool")(_global_pool(MaxPool))
operator("GlobalAveragePool")(_global_pool(AveragePool))


@operator("ReduceMean", "axes", "keepdims", "noop_with_empty_axes")
def _reduce_mean(builder: Builder, attributes: dict[str, Any], x: Any, axes: Any = None) -> Tensor:
    named = attributes.get("axes", []) if axes is None else constant(axes)
    if sorted(int(a) % 4 for a in named) != [2, 3]:
        raise ConversionError("needs axes=[2, 3]: the mean over height and width")
    pooled: Tensor = _global_pool(AveragePool)(builder, {}, x)
    if attributes.get("keepdims", 1):
        return pooled
    return Tensor(pooled.value, pooled.sizes, pooled.axes[:2])
