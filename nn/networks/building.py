"""Graphs built node by node, and models of them with initial weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nn.layers import BatchNorm, Convolution, Graph, Layer
from nn.layers.graph import rewired
from nn.layers.initialisation import RandomState, generator
from nn.models.sequential import Sequential

__all__ = ["Builder", "untrained"]

Initial = Callable[[Layer, np.random.Generator], Layer]


class Builder:
    """Nodes of a graph that is being built."""

    def __init__(self) -> None:
        self.nodes: list[tuple[Layer, tuple[int, ...]]] = []

    def add(self, layer: Layer, *inputs: int) -> int:
        """Add a layer that takes the given values, and return the number of its output."""
        self.nodes.append((layer, inputs))
        return len(self.nodes)

    def chain(self, x: int, *layers: Layer) -> int:
        """Add layers one after the other, the first on `x`, and return the last one's output."""
        for layer in layers:
            x = self.add(layer, x)
        return x

    def convolution(
        self, x: int, channels: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> int:
        """Add a convolution that pads by half its kernel, and batch normalisation."""
        layer = Convolution.untrained(
            channels, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups
        )
        return self.chain(x, layer, BatchNorm.untrained(outputs))


def _fresh(layer: Layer, random: np.random.Generator) -> Layer:
    return layer.fresh(random)


def untrained(
    builder: Builder, n_features: int, random_state: RandomState, initial: Initial = _fresh
) -> Sequential:
    """Return a model of a graph with initial weights, which predicts, and can be trained."""
    random = generator(random_state)
    graph = Graph(builder.nodes, n_features)
    layers = rewired(graph, [initial(layer, random) for layer in graph])
    model = Sequential.from_layers(layers, n_features)
    model.random_state = random_state
    return model
