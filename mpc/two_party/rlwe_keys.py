"""Keys of ring-LWE encryption.

The keeper has a secret s, uniform ternary, and gives away (b, a) with b = -a s + e; a follows from a seed.
Both are kept as values at the roots.
"""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from mpc.core.errors import FrameError, RevealError
from mpc.two_party.rlwe_parameters import (
    LENGTH,
    Parameters,
    decoding_numbers,
    decoding_transform,
)
from mpc.two_party.rlwe_samples import SEED_BYTES, Samples, Seed, bound_seed, uniform_residues
from mpc.two_party.rlwe_wire import pack_residues, residue_bytes, unpack_residues
from ring.compile import kernel
from ring.ntt import Residues
from ring.residues import multiply, reduce

__all__ = ["PublicKey", "SecretKey", "add_products"]


@kernel
def _add_products(
    x: Residues, y: Residues, sign: float, p: Residues, inverse: Residues, out: Residues
) -> None:
    """Add ``sign * x[i, r, s] * y[i, s]`` to ``out[i, r, s]``, reduced."""
    for i in range(len(p)):
        for r in range(x.shape[1]):
            for s in range(x.shape[2]):
                product = multiply(x[i, r, s], sign * y[i, s], p[i], inverse[i])
                out[i, r, s] = reduce(out[i, r, s] + product, p[i], inverse[i])


def add_products(numbers: Any, x: Residues, y: Residues, out: Residues, sign: float = 1.0) -> None:
    """Add a polynomial y, of shape (primes, N), times each row of x to the rows of out."""
    _add_products(x, y, sign, numbers.p, numbers.inverse, out)


class PublicKey:
    """What the other party needs to hide an answer.

    Attributes
    ----------
    parameters : Parameters
    label : bytes
        What is hashed with all of the keeper's seeds: a session's id and the keeper.
    b, a : float64 arrays of shape (primes, N)
    """

    __slots__ = ("_seed", "a", "b", "label", "parameters")

    def __init__(self, parameters: Parameters, label: bytes, seed: bytes, b: Residues) -> None:
        self.parameters, self.label, self._seed, self.b = parameters, label, seed, b
        self.a = uniform_residues(bound_seed(label, seed), parameters.numbers, LENGTH)

    @staticmethod
    def count_bytes(parameters: Parameters) -> int:
        """Return how many bytes a key takes on the wire."""
        return SEED_BYTES + residue_bytes(parameters, LENGTH)

    def to_bytes(self) -> bytes:
        return self._seed + pack_residues(self.parameters, self.b)

    @classmethod
    def from_bytes(
        cls, parameters: Parameters, data: bytes, peer: str, label: bytes = b""
    ) -> PublicKey:
        """Read a key of `peer`'s.

        Raises
        ------
        FrameError
            If it is too short or long, or holds what is no residue.
        """
        expected = cls.count_bytes(parameters)
        if len(data) != expected:
            raise FrameError(f"{peer}'s public key must have {expected} bytes, got {len(data)}")
        data = bytes(data)
        b = unpack_residues(parameters, data[SEED_BYTES:], LENGTH, f"{peer}'s public key")
        return cls(parameters, label, data[:SEED_BYTES], b)


class SecretKey:
    """The keeper's key; never shown, copied or written.

    Parameters
    ----------
    parameters : Parameters
    label : bytes, optional
        See :class:`PublicKey`.

    Attributes
    ----------
    public : PublicKey
    """

    __slots__ = ("_decoding", "_s", "label", "parameters", "public")

    def __init__(self, parameters: Parameters, label: bytes = b"") -> None:
        self.parameters, self.label = parameters, label
        numbers, samples = parameters.numbers, Samples()
        secret = samples.ternary(LENGTH)
        self._s = np.repeat(secret[None, None], len(numbers), axis=0)
        parameters.transform.forward(self._s)
        self._decoding = np.repeat(secret[None, None], len(decoding_numbers()), axis=0)
        decoding_transform().forward(self._decoding)
        seed = Seed().spend()
        b = np.repeat(samples.errors(1, 1, LENGTH), len(numbers), axis=0)
        parameters.transform.forward(b)
        a = uniform_residues(bound_seed(label, seed), numbers, 1, LENGTH)
        self.add_times_secret(a, b, -1.0)
        self.public = PublicKey(parameters, label, seed, b[:, 0])

    def __repr__(self) -> str:
        return f"SecretKey({self.parameters.name})"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise RevealError("a secret key is neither copied nor pickled: make a new one")

    def add_times_secret(self, x: Residues, out: Residues, sign: float = 1.0) -> None:
        """Add the rows of x, values at the roots modulo q, times the secret."""
        add_products(self.parameters.numbers, x, self._s[:, 0], out, sign)

    def times_secret(self, x: Residues) -> Residues:
        """Return the rows of x, values at the roots modulo the decoding primes, times the secret."""
        out = np.zeros_like(x)
        add_products(decoding_numbers(), x, self._decoding[:, 0], out)
        return out
