"""CrypTen: two parties over gloo, its default provider (party 0 makes, and sees, every triple)."""

from __future__ import annotations

import os
import sys
import types
from typing import Any

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
        if item.kind == "network":
            self.model = self.network()
            self.model.eval()

        def call() -> np.ndarray:
            with self.crypten.no_grad():
                shared = [self.share(array, 1 - at) for at, array in enumerate(arrays)]
                if item.kind == "network":
                    result = self.model(shared[0])
                elif item.kind == "matmul":
                    result = shared[0].matmul(shared[1])
                else:
                    result = shared[0].relu()
                return result.get_plain_text().numpy()

        return call

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
