"""Answers: ciphertexts of products, masked by the other party's share, flooded and made short.

1. The mixer has summed up products of the keeper's ciphertexts with polynomials of its own. It draws
   for each answer a fresh u, uniform ternary, and a fresh error e_1, and adds (b u, a u + e_1).
2. At the places that are read, and only there, it adds to c_0 the flood and -round(q C_0 / 2^64), C_0
   being its share, uniform.
3. It switches to the modulus 2^76, and sends c_1 whole and c_0 at those places alone: at the others it
   would carry sums that nothing masks.
4. The keeper takes c_0 + c_1 s modulo 2^76, over the integers by two primes, and rounds to 64 bits: its
   share C_1.

To the keeper, c_1 is a sample of ring-LWE whose secret is u, and c_0 + c_1 s is C - C_0, the flood and
noise that the flood covers (:mod:`mpc.two_party.rlwe_parameters`). An answer is given once: twice the
same products under other floods would be their average.
"""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from mpc.core.errors import ArgumentError, SessionError
from mpc.two_party.rlwe_ciphertexts import Ciphertexts, add_reduced
from mpc.two_party.rlwe_keys import PublicKey, SecretKey, add_products
from mpc.two_party.rlwe_parameters import LENGTH, decoding_numbers, decoding_transform
from mpc.two_party.rlwe_samples import Once, Samples
from mpc.two_party.rlwe_wire import pack_switched, switched_bytes, unpack_switched
from ring import processes
from ring.compile import kernel
from ring.ntt import Residues
from ring.residue_numbers import LOW_BITS, signed_residue
from ring.residues import multiply, reduce

__all__ = ["Life", "Mixed", "answer_bytes", "finish", "hide", "open_answers"]

Words = NDArray[np.uint64]
Places = NDArray[np.int64]


class Life:
    """Counts the coefficients that are answered from one operand, up to what was declared.

    Parameters
    ----------
    coefficients : int
        How many may be answered in all.
    answered : int, default=0
        How many were before, by another process.
    """

    __slots__ = ("_generation", "_lock", "answered", "coefficients")

    def __init__(self, coefficients: int, answered: int = 0) -> None:
        if not 0 <= answered <= coefficients:
            raise ArgumentError(
                f"answered must be in [0, {coefficients}], the operand's life, got {answered}"
            )
        self.coefficients, self.answered = coefficients, answered
        self._generation, self._lock = processes.generation, threading.Lock()

    def spend(self, coefficients: int) -> None:
        """Count coefficients before they are answered.

        Raises
        ------
        SessionError
            If the operand's life does not have them. Nothing is counted then.
        ProcessError
            In a process forked from the one that counts.
        """
        processes.check("the life of an operand", self._generation)
        with self._lock:
            if self.answered + coefficients > self.coefficients:
                raise SessionError(
                    f"{self.answered} coefficients of an operand's {self.coefficients} are answered, and"
                    f" {coefficients} more would show it: use fresh masks, or declare a longer life"
                )
            self.answered += coefficients


class Mixed:
    """Sums of products, one row for each answer, to be finished once.

    Parameters
    ----------
    sums : Ciphertexts
        It is changed.
    """

    __slots__ = ("_once", "_sums")

    def __init__(self, sums: Ciphertexts) -> None:
        self._sums, self._once = sums, Once("a product of ciphertexts")

    def __len__(self) -> int:
        return self._sums.c_0.shape[1]

    def spend(self) -> Ciphertexts:
        """Return the sums, the first time."""
        self._once.spend()
        return self._sums


def answer_bytes(answers: int, places: int) -> int:
    """Return how many bytes answers take that are read at so many places."""
    return switched_bytes(answers * LENGTH) + switched_bytes(answers * places)


def finish(public: PublicKey, mixed: Mixed, share: Words, places: Places) -> bytes:
    """Mask products with a share, uniform, of shape (answers, places); return what the keeper gets.

    Raises
    ------
    SessionError
        If the products have been answered.
    """
    numbers = public.parameters.numbers
    masked = numbers.scale(np.negative(share).reshape(-1))
    first, second = hide(public, mixed, masked, places, public.parameters.flood_bits)
    read = pack_switched(*numbers.switch(first))
    return pack_switched(*numbers.switch(second)) + read


def hide(
    public: PublicKey, mixed: Mixed, masked: Residues, places: Places, flood_bits: int
) -> tuple[Residues, Residues]:
    """Steps 1 and 2: return c_0 at the places and c_1, as coefficients, of shape (primes, n).

    `masked` is what masks c_0, scaled up to q.
    """
    parameters = public.parameters
    numbers, transform, samples = parameters.numbers, parameters.transform, Samples()
    sums, count, shape = mixed.spend(), len(mixed), (len(parameters.numbers), -1)
    u = np.repeat(samples.ternary(1, count, LENGTH), len(numbers), axis=0)
    transform.forward(u)
    add_products(numbers, u, public.b, sums.c_0)
    transform.inverse(sums.c_0)
    samples.add_flood(numbers, flood_bits, masked)
    read = np.ascontiguousarray(sums.c_0[:, :, places]).reshape(shape)
    add_reduced(read, numbers.p, numbers.inverse, masked)
    add_products(numbers, u, public.a, sums.c_1)
    transform.inverse(sums.c_1)
    sums.c_1[:] += samples.errors(count, LENGTH)
    return masked, sums.c_1.reshape(shape)


@kernel
def _from_switched(
    high: Words, low: Words, step: float, p: Residues, inverse: Residues, out: Residues
) -> None:
    """Residues of numbers modulo 2^76, as signed integers."""
    for i in range(len(p)):
        for e in range(high.size):
            value = multiply(signed_residue(high[e], p[i], inverse[i]), step, p[i], inverse[i])
            out[i, e] = reduce(value + np.float64(np.int64(low[e])), p[i], inverse[i])


@kernel
def _round(
    x: Residues, back: float, p: Residues, inverse: Residues, high: Words, low: Words, out: Words
) -> None:
    """(c + v + 2^11) / 2^12 modulo 2^64, for c in words and bits, and v by residues of two primes."""
    shift, mask = np.uint64(LOW_BITS), np.uint64((1 << LOW_BITS) - 1)
    step_high, step_low = np.uint64(p[0]) >> shift, np.uint64(p[0]) & mask
    for e in range(out.size):
        first = reduce(x[0, e], p[0], inverse[0])
        times = multiply(x[1, e] - first, back, p[1], inverse[1])
        times = reduce(times, p[1], inverse[1])
        # v = first + times p_0; below, words wrap around and shifts keep the sign.
        small, large = np.int64(first), np.int64(times)
        part = large * np.int64(step_low)
        bits = (
            (np.uint64(small) & mask) + (np.uint64(part) & mask) + low[e]
            + (np.uint64(1) << (shift - np.uint64(1)))
        )  # fmt: skip
        out[e] = (
            high[e] + np.uint64(large) * step_high + np.uint64(part >> np.int64(LOW_BITS))
            + np.uint64(small >> np.int64(LOW_BITS)) + (bits >> shift)
        )  # fmt: skip


def open_answers(key: SecretKey, data: bytes, answers: int, places: Places, peer: str) -> Words:
    """Decrypt `peer`'s answers: the keeper's share, of shape (answers, places).

    Raises
    ------
    FrameError
        If the data is too short or long, or padded with anything but zeros.
    """
    numbers, data, what = decoding_numbers(), bytes(data), f"{peer}'s answer"
    size = switched_bytes(answers * LENGTH)
    second = unpack_switched(data[:size], answers * LENGTH, what)
    high, low = unpack_switched(data[size:], answers * len(places), what)
    x = np.empty((len(numbers), answers, LENGTH))
    _from_switched(
        *second, float(1 << LOW_BITS), numbers.p, numbers.inverse, x.reshape(len(numbers), -1)
    )
    decoding_transform().forward(x)
    x = key.times_secret(x)
    decoding_transform().inverse(x)
    read = np.ascontiguousarray(x[:, :, places]).reshape(len(numbers), -1)
    out = np.empty(high.size, np.uint64)
    back = numbers.digit_factor(1)
    _round(read, back, numbers.p, numbers.inverse, high, low, out)
    return out.reshape(answers, len(places))
