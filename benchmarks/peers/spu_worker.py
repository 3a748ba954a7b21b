"""SecretFlow SPU: two parties over brpc.

SEMI2K, with party 0 trusted to make the triples; or, with ``--cheetah``, CHEETAH, by which two parties
make everything with each other.
"""

from __future__ import annotations

import re
import struct
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import deep_networks as deep
import numpy as np
import parties
import work

FRACTION_BITS = 18


class SpuParty:
    """One party. Alice (rank 0) owns the model and the right operand, bob (rank 1) the rest."""

    dealt = 0

    def __init__(self, rank: int, addresses: list[str], threads: int, cheetah: bool) -> None:
        import jax
        import spu

        self.spu, self.rank, self.other, self.threads = spu, rank, 1 - rank, threads
        self.cheetah = cheetah
        protocol = "CHEETAH" if cheetah else "SEMI2K"
        triples = "no third party" if cheetah else "party 0 makes every triple"
        self.setting = (
            f"one process a party over loopback; {protocol}, FM64, {FRACTION_BITS} fractional bits"
            f" ({triples})"
        )
        self.folder = tempfile.TemporaryDirectory()
        self.log = Path(self.folder.name) / "spu.log"
        options = spu.libspu.logging.LogOptions()
        options.enable_console_logger = False
        options.system_log_path = str(self.log)
        spu.libspu.logging.setup_logging(options)
        description = spu.link.Desc()
        for at, address in enumerate(addresses):
            description.add_party(f"party{at}", address)
        self.link = spu.link.create_brpc(description, rank)
        self.messages = self.link.spawn()
        self.sent = 0
        self.io = spu.Io(len(addresses), self.config())
        self.plain_runtime = spu.Runtime(self.link.spawn(), self.config())
        self.counting_runtime = spu.Runtime(self.link.spawn(), self.config(profile=True))
        self.runtime = self.plain_runtime
        self.versions = {"spu": spu.__version__, "jax": jax.__version__}

    def config(self, profile: bool = False) -> Any:
        """Return the settings: the protocol over 64 bits; all else as the library has it."""
        config = self.spu.RuntimeConfig(
            protocol=(
                self.spu.ProtocolKind.CHEETAH if self.cheetah else self.spu.ProtocolKind.SEMI2K
            ),
            field=self.spu.FieldType.FM64,
            fxp_fraction_bits=FRACTION_BITS,
        )
        config.enable_pphlo_profile = profile
        config.max_concurrency = self.threads
        return config

    def share(self, array: np.ndarray, owner: int) -> Any:
        """Share an array: the owner cuts it and sends the other party its share."""
        if self.rank != owner:
            return self.receive()
        secret = self.spu.Visibility.VIS_SECRET
        shares = self.io.make_shares(array.astype(np.float32), secret)
        self.send(shares[self.other])
        return shares[self.rank]

    def send(self, share: Any) -> None:
        """Send a share in one message: the lengths of its parts, then the parts."""
        parts = [share.meta, *share.share_chunks]
        head = struct.pack(f"<{len(parts) + 1}Q", len(parts), *map(len, parts))
        self.messages.send_async(self.other, b"".join((head, *parts)))
        self.sent += 1

    def receive(self) -> Any:
        """Receive what `send` sent."""
        message = self.messages.recv(self.other)
        count = struct.unpack_from("<Q", message)[0]
        at, parts = 8 * (count + 1), []
        for length in struct.unpack_from(f"<{count}Q", message, 8):
            parts.append(message[at : at + length])
            at += length
        share = self.spu.libspu.Share()
        share.meta, share.share_chunks = parts[0], parts[1:]
        return share

    def reveal(self, name: str) -> np.ndarray:
        """Reveal a variable to both parties."""
        mine = self.runtime.get_var(name)
        self.send(mine)
        shares = [mine, self.receive()]
        return self.io.reconstruct(shares if self.rank == 0 else shares[::-1])

    def compiled(
        self, function: Callable[..., Any], arrays: dict[str, np.ndarray], outputs: list[str]
    ) -> Any:
        """Compile a function of JAX whose arguments are the variables named in `arrays`."""
        from spu.utils import frontend

        executable, _ = frontend.compile(
            frontend.Kind.JAX,
            function,
            [array.astype(np.float32) for array in arrays.values()],
            {},
            list(arrays),
            [self.spu.Visibility.VIS_SECRET] * len(arrays),
            lambda _: outputs,
        )
        return executable

    def prepare(self, item: work.Item) -> parties.Call:
        """Share the model where there is one and return the call to time."""
        import jax.numpy as jnp

        function = item.function.of("jax") if item.kind == "function" else None
        arrays = (
            deep.arrays(item.kind)
            if item.kind in work.DEEP
            else [part for layer in work.layers() for part in layer]
        )
        model = {f"p{at}": part for at, part in enumerate(arrays)}
        data = {f"x{at}": array for at, array in enumerate(work.inputs(item))}
        if function:
            program = self.compiled(partial(function, jnp), data, ["y"])
        elif item.kind == "matmul":
            program = self.compiled(jnp.matmul, data, ["y"])
        elif item.kind == "relu":
            program = self.compiled(lambda x: jnp.maximum(x, 0), data, ["y"])
        else:
            self.names = list(model)
            for name, part in model.items():
                share = self.share(part, owner=0)
                for runtime in (self.plain_runtime, self.counting_runtime):
                    runtime.set_var(name, share)
            function, outputs = _EVALUATE.get(item.kind, _network), ["y"]
            if item.kind == "train":
                function, outputs = _train_step(item.loss), self.names
            program = self.compiled(function, model | data, outputs)

        def call() -> np.ndarray | None:
            for at, (name, array) in enumerate(data.items()):
                owner = 0 if item.kind in ("matmul", "function") and at == 1 else 1
                self.runtime.set_var(name, self.share(array, owner))
            self.runtime.run(program)
            return None if item.kind == "train" else self.reveal("y")

        return call

    def parameters(self) -> np.ndarray:
        """Reveal the weights."""
        return np.concatenate([self.reveal(name).ravel() for name in self.names])

    def rounds(self, call: parties.Call) -> int | None:
        """Count messages to the other party: SPU's own count and the worker's."""
        self.runtime, self.sent = self.counting_runtime, 0
        call()
        self.runtime = self.plain_runtime
        found = re.findall(r"Link details:.*?send actions (\d+)", self.log.read_text())
        return int(found[-1]) + self.sent if found else None

    def barrier(self) -> None:
        """Wait for the other party."""
        self.messages.barrier()

    def close(self) -> None:
        """Close the link."""
        self.barrier()
        self.link.stop_link()
        self.folder.cleanup()


def _network(w1: Any, b1: Any, w2: Any, b2: Any, w3: Any, b3: Any, x: Any) -> Any:
    """Return the scores of network A."""
    from jax.nn import relu  # its gradient needs no further comparison, unlike jnp.maximum's

    return relu(relu(x @ w1 + b1) @ w2 + b2) @ w3 + b3


def _train_step(kind: str) -> Callable[..., Any]:
    """Return a step of gradient descent on network A."""
    import jax

    def loss(model: tuple[Any, ...], x: Any, targets: Any) -> Any:
        scores = _network(*model, x)
        if kind == "softmax":
            return -(targets * jax.nn.log_softmax(scores)).sum() / len(x)
        return ((scores - targets) ** 2).sum() / (2 * len(x))

    def step(*arrays: Any) -> tuple[Any, ...]:
        *model, x, targets = arrays
        gradients = jax.grad(loss)(tuple(model), x, targets)
        return tuple(p - work.LEARNING_RATE * g for p, g in zip(model, gradients, strict=True))

    return step


def _resnet20(*arguments: Any) -> Any:
    """Return the scores of ResNet-20."""
    import jax.numpy as jnp
    from jax import lax

    *model, x = arguments
    arrays = iter(model)

    def convolution(x: Any, stride: int) -> Any:
        y = lax.conv_general_dilated(
            x, next(arrays), (stride, stride), [(1, 1), (1, 1)],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip
        return y + next(arrays)

    first, *others = deep.strides()
    x = jnp.maximum(convolution(x.reshape(-1, 32, 32, 3), first), 0)
    for down, across in zip(others[::2], others[1::2], strict=True):
        y = convolution(jnp.maximum(convolution(x, down), 0), across)
        more = (y.shape[3] - x.shape[3]) // 2
        if more:
            x = jnp.pad(x[:, ::2, ::2], ((0, 0),) * 3 + ((more, more),))
        x = jnp.maximum(y + x, 0)
    return x.mean(axis=(1, 2)) @ next(arrays) + next(arrays)


def _encoder(*arguments: Any) -> Any:
    """Return the scores of the encoder."""
    import jax
    import jax.numpy as jnp

    *model, x = arguments
    arrays = iter(model)

    def norm(x: Any) -> Any:
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = (centred**2).mean(axis=-1, keepdims=True)
        scaled = centred * jax.lax.rsqrt(variance + deep.EPSILON)
        return scaled * next(arrays) + next(arrays)

    def dense(x: Any) -> Any:
        return x @ next(arrays) + next(arrays)

    x = x.reshape(-1, deep.LENGTH, deep.WIDTH) + next(arrays)
    for _ in range(deep.DEPTH):
        parts = dense(norm(x)).reshape(-1, deep.LENGTH, 3, deep.HEADS, deep.WIDTH // deep.HEADS)
        queries, keys, values = parts.transpose(2, 0, 3, 1, 4)
        mixed = jax.nn.softmax(queries @ keys.swapaxes(2, 3)) @ values
        x = x + dense(mixed.transpose(0, 2, 1, 3).reshape(x.shape))
        x = x + dense(jnp.maximum(dense(norm(x)), 0))
    return dense(norm(x).mean(axis=1))


_EVALUATE = {"resnet20": _resnet20, "encoder": _encoder}

if __name__ == "__main__":
    parser = parties.parser(__doc__)
    parser.add_argument("--cheetah", action="store_true", help="without a third party")
    args = parser.parse_args()
    parties.run(partial(SpuParty, cheetah=args.cheetah), args)
