"""The work that is timed: one definition for every library, in plain NumPy.

Each item has inputs, an answer in float64, and a sentence that says what a call includes. Workers
import this module from its folder, so it needs nothing but NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import deep_networks as deep
import numpy as np
import secret_functions
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
    kind : {"network", "matmul", "relu", "train", "resnet20", "encoder", "function"}
        What is computed.
    rows : int
        Rows of the first operand (elements, for "relu" and functions).
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

    @property
    def function(self) -> secret_functions.Function:
        """The function that is computed, of a "function"."""
        return secret_functions.FUNCTIONS[self.name.partition(":")[0]]


INCLUDED = {
    "network": (
        "sharing the images, all correlated randomness, the network, revealing the scores; the"
        " model (784-128-128-10, ReLU) and the images are secret; not: process start,"
        " compilation, sharing the model"
    ),
    "resnet20": (
        "sharing the images, all correlated randomness, the network, revealing the scores; the model"
        " (ResNet-20 of 32x32x3, batch normalisation folded into the convolutions) and the images are"
        " secret; not: process start, compilation, sharing the model"
    ),
    "encoder": (
        "sharing the vectors, all correlated randomness, the network, revealing the scores; the model"
        " (4 layers, 128 wide, 4 heads, inner width 512, sequence of 32; layer normalisation, softmax,"
        " ReLU) and the vectors are secret; not: process start, compilation, sharing the model"
    ),
    "matmul": (
        "sharing both operands (one from each party), all correlated randomness, product,"
        " truncation, revealing the product"
    ),
    "relu": "sharing the elements, all correlated randomness, comparison and choice, revealing",
    "function": (
        "sharing the operands (the first is bob's, a second alice's), all correlated randomness, the"
        " function, revealing the result to both; not: process start, compilation"
    ),
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
        Item("resnet20_1", "ResNet-20, 1 image", "resnet20", 1),
        Item("resnet20_8", "ResNet-20, 8 images", "resnet20", 8),
        Item("encoder_1", "transformer encoder, 1 sequence", "encoder", 1),
        *(
            Item(one.name, f"{one.title}, {one.elements:,}", "function", one.elements)
            for one in secret_functions.FUNCTIONS.values()
        ),
    )
}
DEEP = ("resnet20", "encoder")
GROUPS = {
    "inference": [
        name for name, item in ITEMS.items() if item.kind in ("network", "matmul", "relu")
    ],
    "train_step_128": [name for name, item in ITEMS.items() if item.kind == "train"],
    "deep": [name for name, item in ITEMS.items() if item.kind in DEEP],
    "functions": [name for name, item in ITEMS.items() if item.kind == "function"],
    "all": list(ITEMS),
}


def choose(names: Sequence[str]) -> list[Item]:
    """Return the items that `names` ask for; a name may be an item or a group of items.

    Of functions a name may say how many elements: ``sqrt:1000``, ``functions:1000``.
    """
    wanted: dict[str, Item] = {}
    for given in names:
        name, _, elements = given.partition(":")
        items = [ITEMS[one] for one in GROUPS.get(name, [name]) if one in ITEMS]
        sized = all(item.kind == "function" for item in items) and elements.isdecimal()
        if not items or (given != name and not (sized and int(elements))):
            raise ValueError(
                f"no work is called {given!r}; there is {', '.join([*ITEMS, *GROUPS])}"
            )
        for item in items:
            wanted[item.name] = _sized(item, int(elements)) if elements else item
    return list(wanted.values())


def _sized(item: Item, elements: int) -> Item:
    title = f"{item.function.title}, {elements:,}"
    return replace(item, name=f"{item.name}:{elements}", title=title, rows=elements)


def layers() -> Layers:
    """Return the weights (inputs, outputs) and biases of network A: He initialisation."""
    rng = np.random.default_rng(SEED)
    return [
        (rng.normal(0.0, np.sqrt(2.0 / n), (n, m)), rng.normal(0.0, 0.05, m))
        for n, m in pairwise(SIZES)
    ]


def inputs(item: Item) -> tuple[Array, ...]:
    """Return what is shared in each call: images, vectors, operands, or images and targets."""
    rng = np.random.default_rng((SEED, item.rows))
    if item.kind == "function":
        return item.function.inputs(item.rows)
    if item.kind in DEEP:
        return (deep.rows(item.kind, item.rows, 0),)
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
    if item.kind == "function":
        return np.asarray(item.function.numpy(first, *others), np.float64)
    if item.kind == "relu":
        return np.maximum(first, 0.0)
    if item.kind == "matmul":
        return first @ others[0]
    if item.kind == "train":
        return flatten(train_step(first, others[0], layers(), item.loss))
    if item.kind in DEEP:
        return deep.scores(item.kind, first)
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
