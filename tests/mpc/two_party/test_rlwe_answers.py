"""Answers: what they carry, over Python integers, and what each party sees of them."""

import os
import re

import numpy as np
import pytest
from scipy.special import chdtrc

from mpc.core.errors import ArgumentError, FrameError, SessionError
from mpc.two_party import rlwe_answers
from mpc.two_party.rlwe_answers import Life, Mixed, answer_bytes, finish, open_answers
from mpc.two_party.rlwe_ciphertexts import Ciphertexts, encrypt, read_ciphertexts
from mpc.two_party.rlwe_layouts import KeptLeft
from mpc.two_party.rlwe_parameters import LARGEST_ERROR, LENGTH, PARAMETERS, noise_bound
from mpc.two_party.rlwe_products import Product, _empty_sums, _mix, _transformed
from mpc.two_party.rlwe_samples import Samples, Seed
from mpc.two_party.rlwe_wire import switched_bytes, unpack_switched
from ring import processes
from ring.errors import ProcessError
from ring.residues import balanced
from tests.helpers.rlwe import (
    ALARM,
    chance_of,
    chance_of_uniform_words,
    exact_product,
    integers,
    key_of,
    phase,
    public_of,
    random_words,
    secret_of,
    some_words,
)

each = pytest.mark.parametrize("parameters", PARAMETERS, ids=lambda p: p.name)
BOUNDS = {"q180": 2**31, "q192": 2**63, "q210": 2**63}


def mixed_of(parameters, m, k, n, rows, columns, kind="random"):
    """Return a product, its operands, and its sums of products."""
    layout = KeptLeft(m, k, n, rows, columns)
    bound = BOUNDS[parameters.name]
    product = Product(layout, parameters, bound, layout.mixed_groups * len(layout.places))
    key = key_of(parameters)
    x, w = some_words((m, k), kind, 1), some_words((k, n), kind, 2)
    if bound < 2**63:
        w = (w % np.uint64(2 * bound)) - np.uint64(bound)
    polynomials = layout.pack_kept(x).reshape(-1, LENGTH)
    data = encrypt(key, polynomials, Seed())
    kept = read_ciphertexts(parameters, data, len(polynomials), "alice", random=False)
    values = _transformed(product, w, 0, layout.mixed_groups)
    sums = _empty_sums(product, layout.mixed_groups)
    _mix(product, kept, 0, values, sums)
    return product, x, w, Mixed(sums)


@each
@pytest.mark.parametrize("kind", ["random", "extreme", "half"])
@pytest.mark.parametrize("columns", [1, 4])
def test_noise_of_a_product_is_within_its_bound(parameters, kind, columns):
    """And the sum over all the mixer's coefficients is what bounds it, not that of one result."""
    product, x, w, mixed = mixed_of(parameters, 64, 40, 8, 64, columns, kind)
    sums, places = mixed.spend(), product.layout.places
    results = exact_product(x, w).T.reshape(len(mixed), -1)
    where = np.arange(0, len(places), 7)
    numbers = parameters.numbers
    residues = phase(key_of(parameters), sums)[:, :, places][:, :, where]
    found = integers(numbers, residues)
    largest = 0
    for value, m in zip(found, results[:, where].reshape(-1).tolist(), strict=True):
        noise = (value - ((numbers.q * m + 2**63) >> 64)) % numbers.q
        largest = max(largest, min(noise, numbers.q - noise))
    signed = np.abs(w.astype(np.int64).astype(object))
    total = sum(signed.reshape(-1).tolist()) if columns > 1 else max(signed.sum(axis=0))
    assert largest <= noise_bound(int(total))
    assert int(total) <= BOUNDS[parameters.name] * product.layout.used * (8 // columns)


@each
@pytest.mark.parametrize("kind", ["random", "extreme", "half", "ones"])
def test_margin_of_the_rounding(parameters, kind):
    """What an answer decrypts to, over Python integers: how far from the share's 2^12."""
    product, x, w, mixed = mixed_of(parameters, 8, 100, 3, 8, 1, kind)
    places, key = product.layout.places, key_of(parameters)
    share = random_words(len(mixed), len(places))
    data = finish(public_of(parameters), mixed, share, places)
    assert len(data) == answer_bytes(3, len(places))
    mine = open_answers(key, data, 3, places, "bob")
    assert np.array_equal(share + mine, exact_product(x, w).T)
    size = switched_bytes(3 * LENGTH)
    second, first = (
        [(int(h) << 12) + int(low) for h, low in zip(*part, strict=True)]
        for part in (
            unpack_switched(data[:size], 3 * LENGTH, "it"),
            unpack_switched(data[size:], 3 * len(places), "it"),
        )
    )
    secret = np.array(secret_of(key), object)
    deviations = []
    for a in range(3):
        c_1 = np.array(second[a * LENGTH : (a + 1) * LENGTH], object)
        for j, place in enumerate(places.tolist()):
            turned = np.concatenate([c_1[place::-1], -c_1[:place:-1]])
            total = first[a * len(places) + j] + int(turned @ secret)
            away = (total - (int(mine[a, j]) << 12)) % 2**76
            deviations.append(away - 2**76 if away >= 2**75 else away)
    # The flood is 2^9 there; a fresh one is as often near its end as anywhere.
    assert max(map(abs, deviations)) <= 2**9 + 10 * 22
    assert max(map(abs, deviations)) > 2**8


def answered(parameters, count):
    """Answer encryptions of zero, multiplied with nothing, at all places."""
    numbers = parameters.numbers
    zeros = np.zeros((len(numbers), count, LENGTH))
    places = np.arange(LENGTH)
    share = random_words(count, LENGTH)
    data = finish(
        public_of(parameters), Mixed(Ciphertexts(parameters, zeros, zeros.copy())), share, places
    )
    return share, data, places


@each
def test_what_the_keeper_sees_is_uniform(parameters):
    """c_1, its share, and the flood: the low bits of the phase that it rounds away."""
    key = key_of(parameters)
    share, data, places = answered(parameters, 8)
    size = switched_bytes(8 * LENGTH)
    high, low = unpack_switched(data[:size], 8 * LENGTH, "it")
    assert chance_of_uniform_words(high) > ALARM
    counts = np.bincount(low.astype(int), minlength=4096)
    assert chance_of(counts, np.full(4096, low.size / 4096)) > ALARM
    mine = open_answers(key, data, 8, places, "bob")
    assert np.array_equal(mine, -share)
    assert chance_of_uniform_words(mine) > ALARM


def low_bits(parameters, kind, monkeypatch):
    """Return what a keeper rounds away of an answer: the lowest twelve bits of the phase."""
    seen = []
    original = rlwe_answers._round

    def watch(x, back, p, inverse, high, low, out):
        first, times = (
            np.array([int(v) for v in line], object)
            for line in (x[0], [balanced(int(b - a) * int(back), int(p[1])) for a, b in x.T])
        )
        seen.append(((first + times * int(p[0]) + low.astype(object)) % 4096).astype(int))
        original(x, back, p, inverse, high, low, out)

    product, _, _, mixed = mixed_of(parameters, 4096, 40, 2, 4096, 1, kind)
    places = product.layout.places
    data = finish(public_of(parameters), mixed, random_words(len(mixed), len(places)), places)
    with monkeypatch.context() as patch:
        patch.setattr(rlwe_answers, "_round", watch)
        open_answers(key_of(parameters), data, len(mixed), places, "bob")
    return seen[0]


@each
def test_what_the_keeper_rounds_away_does_not_depend_on_the_operand(parameters, monkeypatch):
    """The flood and noise: alike for an operand of zeros, and for the largest there are."""
    counts = [
        np.bincount((low_bits(parameters, kind, monkeypatch) + 2048) % 4096 // 64, minlength=64)
        for kind in ("zeros", "half", "extreme")
    ]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        both = counts[a] + counts[b]
        kept = both >= 10
        statistic = ((counts[a] - counts[b])[kept] ** 2 / both[kept]).sum()
        assert chdtrc(kept.sum() - 1, statistic) > ALARM
    # They do round away something: the flood's 2^9 to either side.
    assert 15 <= np.count_nonzero(counts[0]) <= 24


def watch_switches(parameters, monkeypatch):
    """Return a list that gets what answers are before their modulus is switched."""
    seen = []
    switch = type(parameters.numbers).switch

    def watch(self, x):
        seen.append(x.copy())
        return switch(self, x)

    monkeypatch.setattr(type(parameters.numbers), "switch", watch)
    return seen


@each
def test_the_flood_is_fresh_and_uniform_in_every_answer(parameters, monkeypatch):
    """Before it is switched: c_0 + c_1 s at full size, from what `finish` itself adds."""
    seen = watch_switches(parameters, monkeypatch)
    numbers, key = parameters.numbers, key_of(parameters)
    floods = []
    for _ in range(2):
        seen.clear()
        share, _, _ = answered(parameters, 2)
        first, second = (x.reshape(len(numbers), 2, LENGTH) for x in seen)
        parameters.transform.forward(first)
        parameters.transform.forward(second)
        key.add_times_secret(second, first)
        parameters.transform.inverse(first)
        masked = [(numbers.q * int(m) + 2**63) >> 64 for m in (-share).reshape(-1)]
        found = [
            (v - m + numbers.q // 2) % numbers.q - numbers.q // 2
            for v, m in zip(integers(numbers, first), masked, strict=True)
        ]
        half = 2 ** (parameters.flood_bits - 1)
        noise = noise_bound(0)
        assert all(-half - noise <= v < half + noise for v in found)
        for drop in (parameters.flood_bits - 6, parameters.flood_bits // 2, 0):
            six = np.array([(v + half >> drop) % 64 for v in found])
            counts = np.bincount(six, minlength=64)
            assert chance_of(counts, np.full(64, six.size / 64)) > ALARM
        floods.append(found)
        assert found[:LENGTH] != found[LENGTH:]
    assert not set(floods[0]) & set(floods[1])


@each
def test_an_answer_has_an_error_of_its_own(parameters, monkeypatch):
    """c_1 is a u + e_1: were u zero, it would be e_1, which must be there and be fresh."""
    seen = watch_switches(parameters, monkeypatch)
    monkeypatch.setattr(Samples, "ternary", lambda self, *shape: np.zeros(shape))
    answered(parameters, 2)
    errors = np.array(integers(parameters.numbers, seen[1])).reshape(2, LENGTH)
    assert np.abs(errors).max() <= LARGEST_ERROR and (errors[0] != errors[1]).any()
    for line in errors:
        assert abs(line.astype(float).std() - 10.5**0.5) < 0.15


@each
def test_two_answers_share_no_u(parameters):
    """Or else their difference would be free of it: c_1 of the same sums, twice."""
    _, data, _ = answered(parameters, 2)
    size = switched_bytes(2 * LENGTH)
    high, _ = unpack_switched(data[:size], 2 * LENGTH, "it")
    one, other = high[:LENGTH], high[LENGTH:]
    _, again, _ = answered(parameters, 1)
    third, _ = unpack_switched(again[: switched_bytes(LENGTH)], LENGTH, "it")
    for a, b in ((one, other), (one, third), (other, third)):
        difference = a - b
        assert chance_of_uniform_words(difference) > ALARM


def test_only_what_is_read_leaves():
    """The bytes are those of c_1 and of the places, and change at no other place of c_0."""
    parameters = PARAMETERS[0]
    numbers = parameters.numbers
    for places in (np.array([5]), np.array([7, 8191]), np.array([], np.int64)):
        zeros = [np.zeros((len(numbers), 3, LENGTH)) for _ in range(2)]
        mixed = Mixed(Ciphertexts(parameters, *zeros))
        data = finish(public_of(parameters), mixed, random_words(3, len(places)), places)
        assert len(data) == switched_bytes(3 * LENGTH) + switched_bytes(3 * len(places))
    assert answer_bytes(128, 1000) == 128 * 9.5 * (LENGTH + 1000)


def test_a_product_is_answered_once():
    parameters = PARAMETERS[0]
    mixed = mixed_of(parameters, 8, 8, 1, 8, 1)[3]
    places, share = np.array([0]), random_words(1, 1)
    finish(public_of(parameters), mixed, share, places)
    with pytest.raises(SessionError, match="a product of ciphertexts has been used already"):
        finish(public_of(parameters), mixed, share, places)


def test_a_life_is_counted(monkeypatch):
    life = Life(10)
    life.spend(6)
    with pytest.raises(SessionError, match="6 coefficients of an operand's 10 are answered, and 5"):
        life.spend(5)
    life.spend(4)
    with pytest.raises(SessionError):
        life.spend(1)
    with pytest.raises(SessionError):
        Life(10, answered=8).spend(3)
    for answered_before in (-1, 11):
        with pytest.raises(ArgumentError, match=re.escape("answered must be in [0, 10]")):
            Life(10, answered=answered_before)
    fresh = Life(10)
    monkeypatch.setattr(processes, "generation", processes.generation + 1)
    with pytest.raises(ProcessError, match="the life of an operand: made by the process"):
        fresh.spend(1)


def test_malformed_answers_are_refused():
    parameters = PARAMETERS[0]
    _, data, places = answered(parameters, 1)
    key = key_of(parameters)
    for wrong in (b"", data[:-1], data[:-8], data + bytes(8), data[8:]):
        with pytest.raises(FrameError, match=r"bob's answer (ends early|must have)"):
            open_answers(key, wrong, 1, places, "bob")
    short = data[: switched_bytes(LENGTH)] + bytes(8) + b"\xff" * 8
    with pytest.raises(FrameError, match="bob's answer: bits behind the last number must be zero"):
        open_answers(key, short, 1, places[:1], "bob")


def test_whatever_comes_is_rounded():
    """Random answers decrypt to something, and raise nothing."""
    data = os.urandom(answer_bytes(1, 16))
    found = open_answers(key_of(PARAMETERS[1]), data, 1, np.arange(16), "bob")
    assert found.shape == (1, 16)
