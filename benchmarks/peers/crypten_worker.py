"""CrypTen: two parties over gloo, its default provider (party 0 makes, and sees, every triple)."""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Iterator
from typing import Any

import deep_networks as deep
import numpy as np
import parties
import work

# CrypTen imports two modules of PyTorch's exporter that are gone; it needs neither here.
for _name in ("torch.onnx.symbolic_registry", "torch.onnx._internal.registration"):
    _stub: Any = types.ModuleType(_name)
    _stub.registry = None
    sys.modules[_name] = _stub


class CrypTenParty:
    """One party. Alice (rank 0) owns the model and the right operand, bob (rank 1) the rest."""

    setting = (
        "one process a party over loopback; default provider (party 0 sees every triple); an error"
        " near 1 is its decoding, which takes 1 too much from some values just above -1, -2, ..."
    )

    dealt = 0

    def __init__(self, rank: int, addresses: list[str], threads: int) -> None:
        os.environ.update(
            WORLD_SIZE=str(len(addresses)),
            RANK=str(rank),
            RENDEZVOUS=f"tcp://{addresses[0]}",
            DISTRIBUTED_BACKEND="gloo",
            GLOO_SOCKET_IFNAME="lo",
        )
        import crypten
        import torch

        if threads:
            torch.set_num_threads(threads)
        self.crypten, self.torch, self.rank = crypten, torch, rank
        crypten.init()
        self.model: Any = None
        self.versions = {"crypten": crypten.__version__, "torch": torch.__version__}

    def share(self, array: np.ndarray, owner: int) -> Any:
        """Share an array; only the owner's values are used."""
        if self.rank != owner:
            array = np.zeros_like(array)
        return self.crypten.cryptensor(self.tensor(array), src=owner)

    def tensor(self, array: np.ndarray) -> Any:
        """Return an array as a tensor of PyTorch's usual type."""
        return self.torch.tensor(array, dtype=self.torch.float32)

    def network(self) -> Any:
        """Share network A: weights set by hand, since its importer needs an older PyTorch."""
        nn = self.crypten.nn
        modules = []
        for weight, bias in work.layers():
            linear = nn.Linear(*weight.shape)
            for name, values in (("weight", weight.T.copy()), ("bias", bias)):
                linear.set_parameter(name, self.tensor(values).requires_grad_())
            modules += [linear, nn.ReLU()]
        return nn.Sequential(*modules[:-1]).encrypt(src=0)

    def prepare(self, item: work.Item) -> parties.Call:
        """Share the model where there is one and return the call to time."""
        arrays = work.inputs(item)
        if item.kind == "train":
            return self.training(item, *arrays)
        if item.kind in work.DEEP:
            return self.deep(item, *arrays)
        function = item.function.of("crypten") if item.kind == "function" else None
        if item.kind == "network":
            self.model = self.network()
            self.model.eval()

        def call() -> np.ndarray:
            with self.crypten.no_grad():
                shared = [self.share(array, 1 - at) for at, array in enumerate(arrays)]
                if item.kind == "network":
                    result = self.model(shared[0])
                elif function:
                    result = function(*shared)
                elif item.kind == "matmul":
                    result = shared[0].matmul(shared[1])
                else:
                    result = shared[0].relu()
                return result.get_plain_text().numpy()

        return call

    def deep(self, item: work.Item, rows: np.ndarray) -> parties.Call:
        """Share a deep network and return its evaluation."""
        shapes = [self.placed(array) for array in deep.arrays(item.kind)]
        arrays = [self.share(array, 0) for array in shapes]
        evaluate = self.resnet20 if item.kind == "resnet20" else self.encoder

        def call() -> np.ndarray:
            with self.crypten.no_grad():
                return evaluate(self.share(rows, 1), iter(arrays)).get_plain_text().numpy()

        return call

    @staticmethod
    def placed(array: np.ndarray) -> np.ndarray:
        """Return a kernel as PyTorch has it, outputs first; any other array as it is."""
        return array.transpose(3, 2, 0, 1).copy() if array.ndim == 4 else array

    def resnet20(self, x: Any, arrays: Iterator[Any]) -> Any:
        """Return the scores of ResNet-20."""

        def convolution(x: Any, stride: int) -> Any:
            y = x.conv2d(next(arrays), stride=stride, padding=1)
            return y + next(arrays).reshape(1, -1, 1, 1)

        first, *others = deep.strides()
        x = convolution(x.reshape(-1, 32, 32, 3).permute(0, 3, 1, 2), first).relu()
        for down, across in zip(others[::2], others[1::2], strict=True):
            y = convolution(convolution(x, down).relu(), across)
            more = (y.shape[1] - x.shape[1]) // 2
            if more:
                x = x[:, :, ::2, ::2].pad((0, 0, 0, 0, more, more))
            x = (y + x).relu()
        return x.mean(dim=(2, 3)).matmul(next(arrays)) + next(arrays)

    def encoder(self, x: Any, arrays: Iterator[Any]) -> Any:
        """Return the scores of the encoder."""

        def norm(x: Any) -> Any:
            centred = x - x.mean(dim=-1, keepdim=True)
            variance = centred.square().mean(dim=-1, keepdim=True)
            return centred * (variance + deep.EPSILON).inv_sqrt() * next(arrays) + next(arrays)

        def dense(x: Any) -> Any:
            return x.matmul(next(arrays)) + next(arrays)

        wide = deep.WIDTH // deep.HEADS
        x = x.reshape(-1, deep.LENGTH, deep.WIDTH) + next(arrays)
        for _ in range(deep.DEPTH):
            parts = dense(norm(x)).reshape(-1, deep.LENGTH, 3, deep.HEADS, wide)
            parts = parts.permute(2, 0, 3, 1, 4)
            weights = parts[0].matmul(parts[1].transpose(2, 3)).softmax(dim=-1)
            mixed = weights.matmul(parts[2]).permute(0, 2, 1, 3)
            x = x + dense(mixed.reshape(-1, deep.LENGTH, deep.WIDTH))
            x = x + dense(dense(norm(x)).relu())
        return dense(norm(x).mean(dim=1))

    def training(self, item: work.Item, images: np.ndarray, targets: np.ndarray) -> parties.Call:
        """Return a training step."""
        self.model = self.network()
        self.model.train()
        loss = self.crypten.nn.CrossEntropyLoss(skip_forward=True)  # gradient only
        if item.loss == "mse":

            def loss(scores: Any, targets: Any) -> Any:
                return (scores - targets).square().sum() / (2 * item.rows)

        optimizer = self.crypten.optim.SGD(self.model.parameters(), lr=work.LEARNING_RATE)

        def call() -> None:
            shared = self.share(images, 1), self.share(targets, 1)
            optimizer.zero_grad()
            loss(self.model(shared[0]), shared[1]).backward()
            optimizer.step()

        return call

    def parameters(self) -> np.ndarray:
        """Reveal the weights."""
        parts = [shared.get_plain_text().numpy() for shared in self.model.parameters()]
        return np.concatenate([part.T.ravel() for part in parts])

    def rounds(self, call: parties.Call) -> int:
        """Count collective operations, as CrypTen does."""
        self.crypten.cfg.communicator.verbose = True
        self.crypten.reset_communication_stats()
        call()
        self.crypten.cfg.communicator.verbose = False
        return self.crypten.communicator.get().get_communication_stats()["rounds"]

    def barrier(self) -> None:
        """Wait for the other party."""
        self.crypten.communicator.get().barrier()

    def close(self) -> None:
        """Leave the group."""
        self.barrier()
        self.crypten.uninit()


if __name__ == "__main__":
    parties.run(CrypTenParty, parties.arguments(__doc__))
