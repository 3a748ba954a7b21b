"""Keys and ciphertexts: noise, what travels, what is refused, what is used once."""

import copy
import pickle
import re
from collections import Counter
from fractions import Fraction
from math import comb

import numpy as np
import pytest
from scipy.special import chdtrc

from mpc.core.errors import FrameError, RevealError, SessionError
from mpc.two_party import rlwe_ciphertexts
from mpc.two_party.rlwe_ciphertexts import (
    ciphertext_bytes,
    encrypt,
    encrypt_random,
    read_ciphertexts,
)
from mpc.two_party.rlwe_keys import PublicKey, SecretKey
from mpc.two_party.rlwe_parameters import LARGEST_ERROR, LENGTH, PARAMETERS
from mpc.two_party.rlwe_samples import SEED_BYTES, Seed
from mpc.two_party.rlwe_wire import unpack_corrections
from ring.bit_fields import count_field_words
from tests.helpers.rlwe import (
    ALARM,
    chance_of,
    chance_of_uniform_words,
    integers,
    key_of,
    noises,
    phase,
    secret_of,
    some_words,
)

each = pytest.mark.parametrize("parameters", PARAMETERS, ids=lambda p: p.name)
WHERE = np.arange(0, 2 * LENGTH, 5)


def binomial_chance(errors):
    """Return how likely errors are to be so uneven, were they centred binomial."""
    counts = Counter(errors)
    expected = {k: comb(42, 21 + k) / 2**42 * len(errors) for k in range(-21, 22)}
    kept = [k for k in expected if expected[k] >= 5]
    rest = len(errors) - sum(counts[k] for k in kept)
    assert rest < 200
    seen = [counts[k] for k in kept]
    inner = [expected[k] * sum(seen) / sum(expected[j] for j in kept) for k in kept]
    return chance_of(seen, inner)


@each
@pytest.mark.parametrize("kind", ["random", "extreme", "ones", "half", "zeros"])
def test_given_messages(parameters, kind):
    key = key_of(parameters)
    messages = some_words((2, LENGTH), kind)
    data = encrypt(key, messages, Seed())
    assert len(data) == ciphertext_bytes(parameters, 2, random=False)
    wire = 8 * parameters.count * count_field_words(2 * LENGTH, parameters.prime_bits)
    assert len(data) == SEED_BYTES + wire == 16 + 2 * LENGTH * parameters.ciphertext_bits / 8
    found = noises(key, read_ciphertexts(parameters, data, 2, "bob", random=False), messages, WHERE)
    assert max(map(abs, found)) <= LARGEST_ERROR
    assert binomial_chance(found) > ALARM


@each
def test_random_messages(parameters):
    key = key_of(parameters)
    messages, data = encrypt_random(key, 2, Seed())
    assert len(data) == ciphertext_bytes(parameters, 2, random=True)
    assert len(data) == SEED_BYTES + 2 * LENGTH * sum(parameters.correction_widths) / 8
    found = noises(key, read_ciphertexts(parameters, data, 2, "bob", random=True), messages, WHERE)
    assert max(map(abs, found)) <= LARGEST_ERROR
    assert binomial_chance(found) > ALARM
    assert chance_of_uniform_words(messages) > ALARM


def corrections_of(parameters, data, count):
    digits = unpack_corrections(parameters, data[SEED_BYTES:], count * LENGTH, "bob")
    primes, found = parameters.numbers.primes, []
    for column in digits.T.tolist():
        column[-1] -= (column[-1] >> 63) << 64
        x, product = 0, 1
        for digit, p in zip(column, primes, strict=False):
            x, product = x + digit * product, product * p
        found.append(x)
    return found


@each
def test_corrections_say_nothing_of_the_messages(parameters):
    """d is uniform between its bounds, whatever the message's bits, and whatever the error."""
    key, q = key_of(parameters), parameters.numbers.q
    messages, data = encrypt_random(key, 8, Seed())
    corrections = corrections_of(parameters, data, 8)
    half = Fraction(q, 2**65)
    assert max(map(abs, corrections)) <= half + LARGEST_ERROR + 1
    assert max(map(abs, corrections)) <= parameters.largest_correction
    place = np.array([int((d + half) * 64 / (2 * half)) for d in corrections]).clip(0, 63)
    assert chance_of(np.bincount(place, minlength=64), np.full(64, place.size / 64)) > ALARM
    flat = messages.reshape(-1)
    for bit in (0, 1, 31, 62, 63):
        bits = (flat >> np.uint64(bit) & np.uint64(1)).astype(int)
        for parts in (place, np.array(corrections, object) % 64):
            table = np.bincount(bits * 64 + parts.astype(int), minlength=128).reshape(2, 64)
            expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
            statistic = ((table - expected) ** 2 / expected).sum()
            assert chdtrc(63, statistic) > ALARM


@each
def test_remainders_lie_in_their_cell(parameters):
    """Were fractions less exact, some remainders would lie outside, and tell which message."""
    key, numbers = key_of(parameters), parameters.numbers
    seen = []

    def watch(scaled, error, phase):
        seen.append(phase - scaled)
        original(scaled, error, phase)

    original = rlwe_ciphertexts._remainder
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rlwe_ciphertexts, "_remainder", watch)
        encrypt_random(key, 4, Seed())
    limit = Fraction(numbers.q, 2**65) + 1
    assert max(abs(x) for x in integers(numbers, seen[0])) <= limit


@each
def test_keys(parameters):
    key = SecretKey(parameters)
    secret = secret_of(key)
    counts = Counter(secret)
    assert set(counts) == {-1, 0, 1}
    assert chance_of([counts[k] for k in (-1, 0, 1)], [LENGTH / 3] * 3) > ALARM
    public = key.public
    e = public.b[:, None].copy()
    key.add_times_secret(public.a[:, None], e)
    parameters.transform.inverse(e)
    errors = integers(parameters.numbers, e)
    assert max(map(abs, errors)) <= LARGEST_ERROR
    assert binomial_chance(errors) > ALARM
    assert len(public.to_bytes()) == PublicKey.count_bytes(parameters)
    other = PublicKey.from_bytes(parameters, public.to_bytes(), "alice")
    for name in ("a", "b"):
        mine, theirs = getattr(public, name), getattr(other, name)
        for p, x, y in zip(parameters.numbers.primes, mine, theirs, strict=True):
            assert ((x - y) % p == 0).all()


def test_a_secret_key_is_not_shown():
    key = key_of(PARAMETERS[0])
    assert repr(key) == str(key) == "SecretKey(q180)"
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(RevealError, match="neither copied nor pickled"):
            leak(key)
    assert not hasattr(key, "__dict__")


def test_two_keys_and_two_ciphertexts_differ():
    parameters = PARAMETERS[0]
    assert SecretKey(parameters).public.to_bytes() != SecretKey(parameters).public.to_bytes()
    zeros, key = np.zeros((1, LENGTH), np.uint64), key_of(parameters)
    one, other = encrypt(key, zeros, Seed()), encrypt(key, zeros, Seed())
    assert one[:16] != other[:16] and one[16:80] != other[16:80]


def test_a_seed_serves_once():
    key, zeros = key_of(PARAMETERS[0]), np.zeros((1, LENGTH), np.uint64)
    for first in (lambda s: encrypt(key, zeros, s), lambda s: encrypt_random(key, 1, s)):
        for second in (lambda s: encrypt(key, zeros, s), lambda s: encrypt_random(key, 1, s)):
            seed = Seed()
            first(seed)
            with pytest.raises(SessionError, match="a seed of ciphertexts has been used already"):
                second(seed)


def flipped(data, word, change):
    words = np.frombuffer(data[SEED_BYTES:], np.uint64).copy()
    words[word] = change(int(words[word])) % 2**64
    return data[:SEED_BYTES] + words.tobytes()


@each
def test_malformed_ciphertexts_are_refused(parameters):
    key = key_of(parameters)
    given = encrypt(key, np.zeros((1, LENGTH), np.uint64), Seed())
    _, made = encrypt_random(key, 1, Seed())
    for data, random in ((given, False), (made, True)):
        size = len(data)
        for wrong in (data[:-1], data[:-8], data + bytes(8), b"", data[:10], data[: size // 2]):
            with pytest.raises(FrameError, match=r"bob's ciphertexts (ends early|must have)"):
                read_ciphertexts(parameters, wrong, 1, "bob", random=random)
    # The largest number of so many bits is no residue.
    bits = parameters.prime_bits
    for data, random, what in ((given, False, "number"), (made, True, "digit")):
        wrong = flipped(data, 0, lambda w: w | (1 << bits) - 1)
        message = f"bob's ciphertexts holds a {what} that is no residue"
        with pytest.raises(FrameError, match=message):
            read_ciphertexts(parameters, wrong, 1, "bob", random=random)
    public = key.public.to_bytes()
    for wrong in (public[:-1], public + b"\0", b""):
        message = re.escape(f"bob's public key must have {len(public)} bytes")
        with pytest.raises(FrameError, match=message):
            PublicKey.from_bytes(parameters, wrong, "bob")
    with pytest.raises(FrameError, match="bob's public key holds a number that is no residue"):
        PublicKey.from_bytes(parameters, flipped(public, 0, lambda w: w | (1 << bits) - 1), "bob")


def test_every_bit_of_a_ciphertext_that_can_be_read_is_a_residue():
    """Whatever comes, what is computed with stays within the bounds of the transforms."""
    parameters = PARAMETERS[2]
    _, made = encrypt_random(key_of(parameters), 1, Seed())
    draw = np.random.default_rng(1)
    read = 0
    for _ in range(20):
        data = made[:SEED_BYTES] + draw.bytes(len(made) - SEED_BYTES)
        try:
            found = read_ciphertexts(parameters, data, 1, "bob", random=True)
        except FrameError:
            continue
        read += 1
        for p, a, b in zip(parameters.numbers.primes, found.c_0, found.c_1, strict=True):
            assert np.abs(a).max() <= p / 2 + 16 and np.abs(b).max() <= p / 2 + 16
    assert read


def test_phases_of_fresh_ciphertexts_are_uniform_to_whom_has_no_key():
    parameters = PARAMETERS[1]
    data = encrypt(key_of(parameters), np.zeros((8, LENGTH), np.uint64), Seed())
    found = read_ciphertexts(parameters, data, 8, "bob", random=False)
    for p, line in zip(parameters.numbers.primes, found.c_0, strict=True):
        top = np.floor((line.reshape(-1) % p) / p * 256).astype(int)
        assert chance_of(np.bincount(top, minlength=256), np.full(256, top.size / 256)) > ALARM
    # To whom has it, they are not: a check of the check.
    small = phase(key_of(parameters), found)
    assert max(abs(x) for x in integers(parameters.numbers, small[:, 0, :100])) <= LARGEST_ERROR
