"""The work that is timed: one definition for every library, in plain NumPy.

Each item has inputs, an answer in float64, and a sentence that says what a call includes. Workers
import this module from its folder, so it needs nothing but NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Layers = list[tuple[Array, Array]]

SIZES = (784, 128, 128, 10)
LEARNING_RATE = 2.0**-4
SEED = 20261122


@dataclass(frozen=True)
class Item:
    """One item of work.

    Attributes
    ----------
    name : str
        How the command line and the results call it.
    title : str
        How the table calls it.
    kind : {"network", "matmul", "relu", "train"}
        What is computed.
    rows : int
        Rows of the first operand (elements, for "relu").
    burst : int
        Timed calls for each repeat asked for: short work is called more often.
    loss : {"", "softmax", "mse"}
        The loss of a training step.
    """

    name: str
    title: str
    kind: str
    rows: int
    burst: int = 1
    loss: str = ""

    @property
    def included(self) -> str:
        """What the clock covers."""
        return INCLUDED[self.kind]


INCLUDED = {
    "network": (
        "sharing the images, all correlated randomness, the network, revealing the scores; the"
        " model (784-128-128-10, ReLU) and the images are secret; not: process start,"
        " compilation, sharing the model"
    ),
    "matmul": (
        "sharing both operands (one from each party), all correlated randomness, product,"
        " truncation, revealing the product"
    ),
    "relu": "sharing the elements, all correlated randomness, comparison and choice, revealing",
    "train": (
        "sharing the images and the targets, all correlated randomness, forward and backward"
        " pass and the update of every weight (SGD); nothing is revealed; the model, images and"
        " targets are secret; not: process start, compilation, sharing the model"
    ),
}

ITEMS = {
    item.name: item
    for item in (
        Item("network_a_1", "network A, 1 image", "network", 1, burst=5),
        Item("network_a_128", "network A, 128 images", "network", 128),
        Item("network_a_1000", "network A, 1000 images", "network", 1000),
        Item("matmul_1000x784x128", "product 1000x784 by 784x128", "matmul", 1000),
        Item("relu_1m", "ReLU of 1,000,000", "relu", 1_000_000),
        Item("train_softmax_128", "training step, 128, softmax", "train", 128, loss="softmax"),
        Item("train_mse_128", "training step, 128, squared error", "train", 128, loss="mse"),
    )
}
GROUPS = {
    "inference": [name for name, item in ITEMS.items() if item.kind != "train"],
    "train_step_128": [name for name, item in ITEMS.items() if item.kind == "train"],
    "all": list(ITEMS),
}


def choose(names: Sequence[str]) -> list[Item]:
    """Return the items that `names` ask for; a name may be an item or a group of items."""
    wanted: list[str] = []
    for name in names:
        if name not in ITEMS and name not in GROUPS:
            raise ValueError(f"no work is called {name!r}; there is {', '.join([*ITEMS, *GROUPS])}")
        wanted += GROUPS.get(name, [name])
    return [ITEMS[name] for name in dict.fromkeys(wanted)]


def layers() -> Layers:
    """Return the weights (inputs, outputs) and biases of network A: He initialisation."""
    rng = np.random.default_rng(SEED)
    return [
        (rng.normal(0.0, np.sqrt(2.0 / n), (n, m)), rng.normal(0.0, 0.05, m))
        for n, m in pairwise(SIZES)
    ]


def inputs(item: Item) -> tuple[Array, ...]:
    """Return what is shared in each call: images, operands, elements, or images and targets."""
    rng = np.random.default_rng((SEED, item.rows))
    if item.kind == "relu":
        return (rng.uniform(-8.0, 8.0, item.rows),)
    images = rng.uniform(0.0, 1.0, (item.rows, SIZES[0]))
    if item.kind == "matmul":
        return images, layers()[0][0]
    if item.kind == "train":
        return images, np.eye(SIZES[-1])[rng.integers(0, SIZES[-1], item.rows)]
    return (images,)


def expected(item: Item) -> Array:
    """Return the answer of the first call in float64 (all weights after a step, in one vector)."""
    first, *others = inputs(item)
    if item.kind == "relu":
        return np.maximum(first, 0.0)
    if item.kind == "matmul":
        return first @ others[0]
    if item.kind == "train":
        return flatten(train_step(first, others[0], layers(), item.loss))
    return network(first, layers())


def network(images: Array, model: Layers) -> Array:
    """Return the scores of network A."""
    *hidden, last = model
    for weight, bias in hidden:
        images = np.maximum(images @ weight + bias, 0.0)
    return images @ last[0] + last[1]


def train_step(images: Array, targets: Array, model: Layers, loss: str) -> Layers:
    """Return the model after one step of gradient descent.

    The loss is the mean over the rows of the cross-entropy of softmax, or of half the summed
    squared error: both have the gradient (predicted - targets) / rows at the scores.
    """
    seen, signs = [images], []
    for weight, bias in model:
        scores = seen[-1] @ weight + bias
        signs.append(scores > 0)
        seen.append(np.maximum(scores, 0.0))
    if loss == "softmax":
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        scores = powers / powers.sum(axis=1, keepdims=True)
    gradient = (scores - targets) / len(images)
    updated: Layers = []
    for at in reversed(range(len(model))):
        weight, bias = model[at]
        step = LEARNING_RATE * (seen[at].T @ gradient), LEARNING_RATE * gradient.sum(axis=0)
        updated.insert(0, (weight - step[0], bias - step[1]))
        if at:
            gradient = (gradient @ weight.T) * signs[at - 1]
    return updated


def flatten(model: Layers) -> Array:
    """Return all weights and biases in one vector, in the order of the layers."""
    return np.concatenate([np.ravel(part) for layer in model for part in layer])
