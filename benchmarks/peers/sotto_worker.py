"""Sotto: alice, bob and the crypto provider in one local session, that is in this process."""

from __future__ import annotations

import json
import time
from importlib import metadata
from typing import Any

import deep_networks as deep
import numpy as np
import parties
import work

import mpc
import nn
from nn.losses import LOSSES
from nn.shared.model import SharedModel
from nn.shared.optimizers import on_shares
from nn.shared.training import SharedTrainer
from nn.training.optimizers import SGD

SETTING = (
    "alice, bob and the provider in one process in lock step: nothing crosses a network; the masked"
    " model is opened in the first call, which is not timed, and serves all others; a training step"
    " opens the weights that it leaves; a deep network's values have limits from 16 other rows, 8 times"
    " what these lead to (the encoder's 4 times), and each call proves on shares that none was left"
)
# How many times larger than of typical rows values may be: eight do not fit the encoder's products.
MARGINS = {"resnet20": 8.0, "encoder": 4.0}


def prepare(session: mpc.Session, item: work.Item) -> parties.Call:
    """Share the model where there is one and return the call to time."""
    if item.kind in work.DEEP:
        return prepare_deep(session, item)
    arrays = work.inputs(item)
    if item.kind == "function":
        return prepare_function(session, item)
    model = nn.MLP.from_parameters([part for layer in work.layers() for part in layer])
    secret = model.share(session, owner="alice") if item.kind in ("network", "train") else None
    if secret is not None and item.kind == "train":
        return Training(secret, item)

    def call() -> np.ndarray:
        if secret is not None:
            # Images, so in [0, 1]: what the model was shared for.
            return secret(session.share(arrays[0], owner="bob", bound=1.0)).reveal()
        first = session.share(arrays[0], owner="bob")
        if item.kind == "matmul":
            return (first @ session.share(arrays[1], owner="alice")).reveal()
        return first.relu().reveal()

    return call


def prepare_function(session: mpc.Session, item: work.Item) -> parties.Call:
    """Return the call of a function."""
    function, arrays, bounds = (
        item.function.of("sotto"),
        work.inputs(item),
        item.function.bounds(item.rows),
    )

    def call() -> np.ndarray:
        owners = ("bob", "alice")
        shared = [
            session.share(array, owner=owner, bound=bound)
            for array, owner, bound in zip(arrays, owners, bounds, strict=False)
        ]
        return np.asarray(function(*shared).reveal(), np.float64)

    return call


def prepare_deep(session: mpc.Session, item: work.Item) -> parties.Call:
    """Share a deep network, with limits from typical rows, and return its evaluation."""
    make = nn.networks.ResNet20 if item.kind == "resnet20" else nn.networks.TransformerEncoder
    model = make(random_state=0).from_parameters(deep.whole_arrays(item.kind))
    scale = {"low": 0.0 if item.kind == "resnet20" else -1.0, "high": 1.0}
    bounds = model.calibrate(deep.typical(item.kind), margin=MARGINS[item.kind], **scale)
    secret = model.share(session, owner="alice", bounds=bounds, **scale)
    (rows,) = work.inputs(item)
    return lambda: secret(secret.share_rows(rows, owner="bob")).reveal()


class Training:
    """Training steps of the model that is shared, each on images and targets shared anew."""

    def __init__(self, secret: SharedModel, item: work.Item) -> None:
        self.session, self.arrays = secret.session, work.inputs(item)
        loss = {"softmax": "cross_entropy", "mse": "squared_error"}[item.loss]
        rule = on_shares(SGD(work.LEARNING_RATE, momentum=0), self.session)
        self.trainer = SharedTrainer(self.session, secret.layers, LOSSES[loss], rule)

    def __call__(self) -> None:
        images, targets = (self.session.share(array, owner="bob") for array in self.arrays)
        self.trainer.step(images, targets, 1.0)

    def parameters(self) -> np.ndarray:
        """Reveal the weights."""
        return self.trainer.weights.reveal()


def measure(session: mpc.Session, item: work.Item, repeats: int) -> dict[str, Any]:
    """Check one call, count in a second (both warm up), then time the others."""
    call = prepare(session, item)
    answer = call()
    if isinstance(call, Training):
        answer = call.parameters()
    error = float(np.abs(answer - work.expected(item)).max())
    before = session.cost()
    call()
    cost = session.cost() - before
    seconds = []
    for _ in range(repeats * item.burst):
        begun = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begun)
    return {
        "item": item.name,
        "seconds": seconds,
        "bytes_by_party": [cost.bytes_sent_per_party] * len(session.parties),
        "bytes_sent": cost.bytes_sent_per_party * len(session.parties) + cost.correction_bytes,
        "bytes_are": "what all parties and the provider would send, from session.cost()",
        "rounds": cost.rounds,
        "max_abs_error": error,
        "setting": SETTING,
        "versions": {name: metadata.version(name) for name in ("numpy", "numba")},
    }


def main() -> None:
    """Run the work and print one line of JSON for each item."""
    args = parties.arguments(__doc__)
    for item in work.choose(args.work):
        try:
            with mpc.Session() as session:
                line = measure(session, item, args.repeats)
        except Exception as error:
            line = {"item": item.name, "error": f"{type(error).__name__}: {error}"}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
