"""Sotto without a provider: alice and bob in processes of their own over TLS, and nobody else."""

from __future__ import annotations

import tempfile
from functools import partial
from importlib import metadata
from pathlib import Path

import numpy as np
import parties
import sotto_worker
import work

import mpc
from mpc.parties.configuration import write_example
from ring import set_num_threads

NAMES = ("alice", "bob")


class SottoParty:
    """One party: alice (rank 0) owns the model and the right operand, bob (rank 1) the rest."""

    setting = (
        "one process a party over loopback, TLS 1.3; two parties alone: oblivious transfers and"
        " ring-LWE, all made within the call; the model's weights are encrypted for products of few"
        " rows in the first call, which is not timed"
    )

    def __init__(self, rank: int, addresses: list[str], threads: int, path: Path) -> None:
        if threads:
            set_num_threads(threads)
        self.session = mpc.Session(path, me=NAMES[rank], provider=None)
        self.versions = {
            name: metadata.version(name) for name in ("numpy", "numba", "cryptography")
        }

    def prepare(self, item: work.Item) -> parties.Call:
        """Share the model where there is one and return the call to time."""
        self.call = sotto_worker.prepare(self.session, item)
        return self.call

    def parameters(self) -> np.ndarray:
        """Reveal the weights."""
        assert isinstance(self.call, sotto_worker.Training)
        return self.call.parameters()

    def rounds(self, call: parties.Call) -> int:
        """Count rounds by the session's own account."""
        before = self.session.cost().rounds
        call()
        return self.session.cost().rounds - before

    def barrier(self) -> None:
        """Wait for the other party: a round."""
        self.session.tell([np.zeros(1, np.uint64)], booked=False)

    def close(self) -> None:
        """End the session."""
        self.session.close()


def main() -> None:
    """Write a configuration, and run both parties."""
    args = parties.arguments(__doc__)
    with tempfile.TemporaryDirectory(prefix="sotto-") as folder:
        ports = [int(address.rpartition(":")[2]) for address in parties.free_addresses(2)]
        path = write_example(Path(folder) / "parties", NAMES, (), ports=ports, provider=False)
        parties.run(partial(SottoParty, path=path), args)


if __name__ == "__main__":
    main()
