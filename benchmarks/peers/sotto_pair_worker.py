"""Sotto over TLS: alice and bob in processes of their own, and nobody else.

With ``--provider`` the process that starts them is the crypto provider. With ``--malicious`` it is, too,
and there is carol, who owns nothing: one of the three may deviate.
"""

from __future__ import annotations

import tempfile
from contextlib import closing
from functools import partial
from importlib import metadata
from pathlib import Path

import numpy as np
import parties
import sotto_worker
import work

import mpc
from mpc.core.watching import MALICIOUS, SEMI_HONEST
from mpc.parties import configuration
from mpc.parties.configuration import write_example
from mpc.provider.service import ProviderService
from mpc.session_setup import PROVIDER
from ring import set_num_threads

NAMES = ("alice", "bob", "carol")
ALONE = (
    "two parties alone: oblivious transfers and ring-LWE, all made within the call; the model's weights are"
    " encrypted for products of few rows in the first call, which is not timed"
)
DEALT = "a crypto provider in a third process, which deals within the call"
WATCHED = (
    "three parties, of which one may deviate (security = 'malicious'), and a crypto provider in a fourth"
    " process, which deals within the call"
)


class SottoParty:
    """One party: alice (rank 0) owns the model and the right operand, bob (rank 1) the rest."""

    def __init__(
        self, rank: int, addresses: list[str], threads: int, path: Path, provider: bool
    ) -> None:
        if threads:
            set_num_threads(threads)
        self.session = mpc.Session(path, me=NAMES[rank], provider=PROVIDER if provider else None)
        dealt = DEALT if self.session.security == SEMI_HONEST else WATCHED
        self.setting = f"one process a party over loopback, TLS 1.3; {dealt if provider else ALONE}"
        self.dealt = 0
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
        before = self.session.cost()
        call()
        spent = self.session.cost() - before
        self.dealt = spent.correction_bytes
        return spent.rounds

    def barrier(self) -> None:
        """Wait for the other parties: a round."""
        self.session.tell([np.zeros(1, np.uint64)], booked=False)

    def close(self) -> None:
        """End the session."""
        self.session.close()


def main() -> None:
    """Write a configuration, and run both parties."""
    parser = parties.parser(__doc__)
    parser.add_argument("--provider", action="store_true", help="with a crypto provider")
    parser.add_argument(
        "--malicious", action="store_true", help="three parties, of which one may deviate"
    )
    args = parser.parse_args()
    provider = args.provider or args.malicious
    names = NAMES if args.malicious else NAMES[:2]
    with tempfile.TemporaryDirectory(prefix="sotto-") as folder:
        addresses = parties.free_addresses(len(names) + provider)
        ports = [int(address.rpartition(":")[2]) for address in addresses]
        path = write_example(
            Path(folder) / "parties", names, (), ports=ports, provider=provider,
            security=MALICIOUS if args.malicious else SEMI_HONEST,
        )  # fmt: skip
        start = partial(SottoParty, path=path, provider=provider)
        if not provider:
            parties.run(start, args)
            return
        if args.threads:
            set_num_threads(args.threads)
        with closing(ProviderService(configuration.load(path))):
            parties.run(start, args, len(names))


if __name__ == "__main__":
    main()
