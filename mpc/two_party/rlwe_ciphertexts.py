"""Encryption modulo 2^64 by ring-LWE: c_0 + c_1 s = round(q m / 2^64) + e modulo q.

Of a given message: c_1 follows from a public seed, c_0 travels.

Of a random message, for fewer bytes: a public seed gives both components of a random string, and m is
what it decrypts to. With the phase f = c_0 + c_1 s, m = round(2^64 f / q), and the remainder
g = f - round(q m / 2^64), the keeper draws a fresh error e and sends d = e - g. Then (c_0 + d, c_1)
is a ciphertext of m with error e. As f is uniform, m and g are independent, but for the ends of the range
of g, where one of 2^64 q^-1 values is missing or not: so d, which is e - g, says nothing about m or e,
up to 22 * 2^65 / q. This needs m to be rounded right, which is why fractions are taken to 192 bits: one
that is taken to 128 bits is wrong for a few in a million coefficients, whose remainders lie outside
their range and tell something of m.

What a seed was used for stays used: a second correction of the same string would show e - e'.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpc.two_party.rlwe_keys import SecretKey
from mpc.two_party.rlwe_parameters import LENGTH, Parameters
from mpc.two_party.rlwe_samples import SEED_BYTES, Samples, Seed, bound_seed, uniform_residues
from mpc.two_party.rlwe_wire import (
    correction_bytes,
    pack_corrections,
    pack_residues,
    residue_bytes,
    unpack_corrections,
    unpack_residues,
)
from ring.compile import kernel
from ring.ntt import Residues
from ring.residues import reduce

__all__ = [
    "Ciphertexts",
    "ciphertext_bytes",
    "encrypt",
    "encrypt_random",
    "encrypt_scaled",
    "read_ciphertexts",
]

Words = NDArray[np.uint64]


@dataclass(frozen=True, repr=False)
class Ciphertexts:
    """Components c_0 and c_1 as values at the roots, of shape (primes, rows, N)."""

    parameters: Parameters
    c_0: Residues
    c_1: Residues


@kernel
def add_reduced(x: Residues, p: Residues, inverse: Residues, out: Residues) -> None:
    """Add residues of shape (primes, n)."""
    for i in range(len(p)):
        for e in range(out.shape[1]):
            out[i, e] = reduce(out[i, e] + x[i, e], p[i], inverse[i])


@kernel
def _remainder(scaled: Residues, error: Residues, phase: Residues) -> None:
    """error - (phase - scaled), in place of the phase."""
    for i in range(len(phase)):
        for e in range(phase.shape[1]):
            phase[i, e] = error[e] + scaled[i, e] - phase[i, e]


def encrypt(key: SecretKey, messages: Words, seed: Seed) -> bytes:
    """Encrypt messages of shape (rows, N).

    Raises
    ------
    SessionError
        If the seed has been used.
    """
    return encrypt_scaled(key, key.parameters.numbers.scale(messages), seed)


def encrypt_scaled(key: SecretKey, c_0: Residues, seed: Seed) -> bytes:
    """Encrypt messages that are scaled up to q, of shape (primes, rows, N); they are changed."""
    parameters, public = key.parameters, seed.spend()
    numbers, count = parameters.numbers, c_0.shape[1]
    c_0 += Samples().errors(count, LENGTH)
    parameters.transform.forward(c_0)
    c_1 = uniform_residues(bound_seed(key.label, public), numbers, count, LENGTH)
    key.add_times_secret(c_1, c_0, -1.0)
    return public + pack_residues(parameters, c_0)


def encrypt_random(key: SecretKey, count: int, seed: Seed) -> tuple[Words, bytes]:
    """Make ciphertexts of messages that nobody chooses.

    Returns
    -------
    uint64 array of shape (count, N)
        The messages.
    bytes
        What the other party reads the ciphertexts from.

    Raises
    ------
    SessionError
        If the seed has been used.
    """
    parameters, public = key.parameters, seed.spend()
    numbers = parameters.numbers
    string = bound_seed(key.label, public)
    phase = uniform_residues(string, numbers, count, LENGTH, id=1)
    key.add_times_secret(uniform_residues(string, numbers, count, LENGTH), phase)
    parameters.transform.inverse(phase)
    messages = numbers.unscale(phase)
    flat = phase.reshape(len(numbers), -1)
    errors = Samples().errors(count * LENGTH)
    _remainder(numbers.scale(messages.reshape(-1)), errors, flat)
    digits = numbers.digits(flat, len(parameters.correction_widths))
    return messages, public + pack_corrections(parameters, digits)


def ciphertext_bytes(parameters: Parameters, count: int, *, random: bool) -> int:
    """Return how many bytes ciphertexts take, of random or of given messages."""
    size = correction_bytes if random else residue_bytes
    return SEED_BYTES + size(parameters, count * LENGTH)


def read_ciphertexts(
    parameters: Parameters,
    data: bytes,
    count: int,
    peer: str,
    *,
    random: bool,
    label: bytes = b"",
) -> Ciphertexts:
    """Read `peer`'s ciphertexts, of random or of given messages, under a key of this label.

    Raises
    ------
    FrameError
        If the data is too short or long, or holds what is no residue.
    """
    numbers, what = parameters.numbers, f"{peer}'s ciphertexts"
    data = bytes(data)
    seed, rest = bound_seed(label, data[:SEED_BYTES]), data[SEED_BYTES:]
    if random:
        digits = unpack_corrections(parameters, rest, count * LENGTH, what)
        c_0 = np.zeros((len(numbers), count, LENGTH))
        numbers.add_digits(digits, c_0)
        parameters.transform.forward(c_0)
        string = uniform_residues(seed, numbers, count, LENGTH, id=1)
        shape = (len(numbers), -1)
        add_reduced(string.reshape(shape), numbers.p, numbers.inverse, c_0.reshape(shape))
    else:
        c_0 = unpack_residues(parameters, rest, count * LENGTH, what)
        c_0 = c_0.reshape(len(numbers), count, LENGTH)
    return Ciphertexts(parameters, c_0, uniform_residues(seed, numbers, count, LENGTH))
