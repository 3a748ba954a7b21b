"""What is drawn has the distribution that it should have, and nothing is drawn twice."""

import os
from math import comb

import numpy as np
import pytest

from mpc.core.errors import SessionError
from mpc.two_party.rlwe_parameters import PARAMETERS
from mpc.two_party.rlwe_samples import Once, Samples, Seed, uniform_residues
from ring import processes
from ring.errors import ProcessError
from ring.residue_numbers import ResidueNumbers
from ring.residues import largest_primes
from tests.helpers.rlwe import ALARM, chance_of, integers

SIZE = 1 << 20


def test_errors():
    """Against the distribution itself, tails taken together."""
    errors = Samples().errors(SIZE)
    expected = [comb(42, 21 + k) / 2**42 * SIZE for k in range(-21, 22)]
    counts = np.bincount(errors.astype(int) + 21, minlength=43)
    assert counts.size == 43 and (errors == np.rint(errors)).all()
    tail = next(k for k in range(43) if sum(expected[:k]) >= 5)

    def gathered(x):
        return [sum(x[:tail]), *x[tail : 43 - tail], sum(x[43 - tail :])]

    assert chance_of(gathered(list(counts)), gathered(expected)) > ALARM
    assert abs(errors.std() - (42 / 4) ** 0.5) < 0.02


def test_ternary():
    found = Samples().ternary(SIZE)
    assert set(found.tolist()) == {-1, 0, 1}
    counts = np.bincount(found.astype(int) + 1, minlength=3)
    assert chance_of(counts, np.full(3, SIZE / 3)) > ALARM


@pytest.mark.parametrize("parameters", PARAMETERS, ids=lambda p: p.name)
def test_floods(parameters):
    """Uniform over all their bits, the same integer modulo every prime."""
    size, bits = 1 << 15, parameters.flood_bits
    numbers = parameters.numbers
    x = np.zeros((len(numbers), size))
    Samples().add_flood(numbers, bits, x)
    found = integers(numbers, x)
    assert all(-(2 ** (bits - 1)) <= v < 2 ** (bits - 1) for v in found)
    for drop in (*range(0, bits - 6, 6), bits - 6):
        six = np.array([(v >> drop) % 64 for v in found])
        assert chance_of(np.bincount(six, minlength=64), np.full(64, size / 64)) > ALARM


def test_floods_are_added():
    numbers = PARAMETERS[0].numbers
    x = np.full((len(numbers), 1000), 5.0)
    Samples().add_flood(numbers, 97, x)
    assert max(abs(v - 5) for v in integers(numbers, x)) <= 2**96


def test_residues_are_uniform_though_many_words_are_none():
    """Modulo primes far below a power of two."""
    numbers = ResidueNumbers((257, 641, 769))
    seed = os.urandom(16)
    found = uniform_residues(seed, numbers, 200, 200)
    for p, line in zip(numbers.primes, found, strict=True):
        assert np.abs(line).max() == (p - 1) / 2
        counts = np.bincount(line.reshape(-1).astype(int) + (p - 1) // 2, minlength=p)
        assert chance_of(counts, np.full(p, line.size / p)) > ALARM
    assert np.array_equal(found, uniform_residues(seed, numbers, 200, 200))
    assert not np.array_equal(found, uniform_residues(seed, numbers, 1000, 200, id=1))


def test_residues_of_large_primes():
    numbers = ResidueNumbers(largest_primes(45, 2, 8192))
    found = uniform_residues(os.urandom(16), numbers, 1 << 17)
    for p, line in zip(numbers.primes, found, strict=True):
        top = np.floor((line + (p - 1) / 2) / p * 256).astype(int)
        assert chance_of(np.bincount(top, minlength=256), np.full(256, line.size / 256)) > ALARM
        low = (line.astype(np.int64) % 256).astype(int)
        assert chance_of(np.bincount(low, minlength=256), np.full(256, line.size / 256)) > ALARM


def test_nothing_is_drawn_twice():
    samples = Samples()
    drawn = [samples.words(100) for _ in range(3)] + [Samples().words(100)]
    assert len({tuple(words.tolist()) for words in drawn}) == 4
    assert Seed().spend() != Seed().spend()


def test_once_is_once():
    once = Once("a thing")
    once.spend()
    for _ in range(2):
        with pytest.raises(SessionError, match="a thing has been used already"):
            once.spend()


def test_a_forked_child_may_not_use_it_either(monkeypatch):
    seed = Seed()
    monkeypatch.setattr(processes, "generation", processes.generation + 1)
    with pytest.raises(ProcessError, match="made by the process"):
        seed.spend()
