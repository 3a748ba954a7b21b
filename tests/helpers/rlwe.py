"""What the tests of ring-LWE share: a channel that records, keys, and ciphertexts over Python integers."""

import os
from functools import cache

import numpy as np
from scipy.special import chdtrc

from mpc.two_party.channel import LockStep
from mpc.two_party.rlwe_keys import PublicKey, SecretKey
from mpc.two_party.rlwe_parameters import LENGTH
from mpc.two_party.rlwe_protocol import Keys
from ring.residues import balanced

# Some thousand examinations: a false alarm in one test run out of ten million.
ALARM = 1e-10

EDGES = np.array([0, 1, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 1], np.uint64)


class Recorded(LockStep):
    """Both parties in lock step; keeps what each has sent."""

    def __init__(self):
        super().__init__()
        self.messages = [[], []]

    def swap(self, messages, counts, *, continued=False):
        got = super().swap(messages, counts, continued=continued)
        for kept, message in zip(self.messages, messages, strict=True):
            if message.size:
                kept.append(message.copy())
        return got


def random_words(*shape):
    return np.frombuffer(os.urandom(8 * int(np.prod(shape))), np.uint64).reshape(shape)


def some_words(shape, kind, seed=0):
    """Operands: random, extreme, all ones, 2^63, or zeros."""
    random = np.random.default_rng(seed)
    if kind == "extreme":
        return random.choice(EDGES, shape)
    if kind == "random":
        return random.integers(0, 2**64, shape, np.uint64)
    return np.full(shape, {"ones": 2**64 - 1, "half": 2**63, "zeros": 0}[kind], np.uint64)


def exact_product(x, w):
    """Multiply over Python integers."""
    return np.array((x.astype(object) @ w.astype(object)) % 2**64, np.uint64)


@cache
def key_of(parameters):
    return SecretKey(parameters)


def public_of(parameters):
    """Return the other party's copy of the key above."""
    return PublicKey.from_bytes(parameters, key_of(parameters).public.to_bytes(), "alice")


def keys_of(parameters):
    """Return alice's keys, as both hold them."""
    return Keys(0, key_of(parameters), public_of(parameters))


def integers(numbers, residues):
    """Return the integers in (-q / 2, q / 2) of residues of shape (primes, n)."""
    weights = [numbers.q // p * pow(numbers.q // p, -1, p) for p in numbers.primes]
    found = []
    for column in residues.reshape(len(numbers), -1).T:
        x = sum(int(r) * w for r, w in zip(column, weights, strict=True)) % numbers.q
        found.append(x - numbers.q if x > numbers.q // 2 else x)
    return found


def phase(key, ciphertexts):
    """Return the residues of c_0 + c_1 s, as coefficients."""
    out = ciphertexts.c_0.copy()
    key.add_times_secret(ciphertexts.c_1, out)
    key.parameters.transform.inverse(out)
    return out


def noises(key, ciphertexts, messages, where):
    """Return the noise of ciphertexts at flat places, over Python integers."""
    numbers = key.parameters.numbers
    residues = phase(key, ciphertexts).reshape(len(numbers), -1)[:, where]
    found = []
    for x, m in zip(integers(numbers, residues), messages.reshape(-1)[where].tolist(), strict=True):
        noise = (x - ((numbers.q * m + 2**63) >> 64)) % numbers.q
        found.append(noise - numbers.q if noise > numbers.q // 2 else noise)
    return found


def secret_of(key):
    """Return s as Python integers: what no program should ever do."""
    s = key._s.copy()
    key.parameters.transform.inverse(s)
    found = [int(v) for v in s[0, 0]]
    assert all(balanced(v, key.parameters.numbers.primes[0]) == v for v in found)
    assert len(found) == LENGTH
    return found


def chance_of(counts, expected):
    """Return how likely chi-square is to be so large, for counts of a known distribution."""
    counts, expected = np.asarray(counts, float), np.asarray(expected, float)
    assert abs(counts.sum() - expected.sum()) < 1e-6 * counts.sum() and expected.min() >= 5
    return chdtrc(len(counts) - 1, ((counts - expected) ** 2 / expected).sum())


def chance_of_uniform_words(words):
    """Return the least chance that any of a word's bytes is so uneven, were it uniform."""
    octets = np.ascontiguousarray(words, np.uint64).reshape(-1).view(np.uint8).reshape(-1, 8)
    even = np.full(256, len(octets) / 256)
    return min(chance_of(np.bincount(octets[:, k], minlength=256), even) for k in range(8))
