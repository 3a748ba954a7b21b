"""What one party of two sees is distributed the same whatever the secrets are.

A protocol runs on two very different secrets, with fresh shares. Everything that a party receives and
everything that it holds of what was made ahead must be uniform, and stay so when any of what it knows is
taken away: its share, and its part of the pads. Last come controls: masks that are broken on purpose.
"""

import os

import numpy as np
import pytest
from scipy.special import chdtrc

from mpc.two_party import (
    convert,
    lookup,
    maximum,
    pads,
    private_comparison,
    product,
    relu,
    select,
    sign,
    thresholds,
    truncation,
)
from mpc.two_party.channel import LockStep
from mpc.two_party.lookup import LookupsMade
from mpc.two_party.pads import AndPairsMade, BitPairsMade, NumberPadsMade
from mpc.two_party.pair import Pair
from ring.transpose import planes_of_rows

SIZE = 2048
# Two hundred thousand examinations: a false alarm in one run out of a hundred million.
ALARM = 1e-14
# A message is compared with what is known place by place, if it has no more places.
MOST_PARTS = 40
SECRETS = {
    "zeros": np.zeros(SIZE, np.int64),
    "ones": np.ones(SIZE, np.int64),
    "largest": np.full(SIZE, 2**30 - 1),
    "smallest": np.full(SIZE, -(2**30) + 1),
}
PAIRS = [("zeros", "largest"), ("smallest", "ones")]

_PLACES = 256 * np.arange(8)
_BITS = np.arange(256)[:, None] >> np.arange(8) & 1


def counts_of(words):
    """Count the bytes and, at each of the 64 places, the ones."""
    octets = np.ascontiguousarray(words).reshape(-1).view(np.uint8).reshape(-1, 8) + _PLACES
    at_each = np.bincount(octets.reshape(-1), minlength=2048).reshape(8, 256)
    return words.size, at_each.sum(axis=0), (at_each @ _BITS).reshape(-1)


def chance_of_uniform(words):
    """Return how likely words from a uniform source are to look as uneven as these."""
    n, octets, ones = counts_of(words)
    expected = 8 * n / 256
    # Of few bytes the distribution is not known well enough.
    enough = expected >= 8
    of_bytes = chdtrc(255, ((octets - expected) ** 2 / expected).sum()) if enough else 1.0
    of_bits = chdtrc(64, ((ones - n / 2) ** 2 / (n / 4)).sum())
    return min(of_bytes, of_bits)


class Listening(LockStep):
    """Keeps what each party has received."""

    def __init__(self):
        super().__init__()
        self.received = [[], []]

    def swap(self, messages, counts, *, continued=False):
        got = super().swap(messages, counts, continued=continued)
        for party, words in enumerate(got):
            if words.size:
                self.received[party].append(words.copy())
        return got


class Watched(Pair):
    """Keeps what has been made."""

    def take(self, correlation):
        made = super().take(correlation)
        self.__dict__.setdefault("made", []).append((correlation, made))
        return made


def known(party, made):
    """Return what a party holds of a correlation, as arrays of words; all of it is uniform."""
    for number, (correlation, part) in enumerate(made):
        name = f"{type(correlation).__name__} {number}"
        if isinstance(part, BitPairsMade):
            yield f"{name}, bit", part.bit[party]
            yield f"{name}, product", part.product[party]
        elif isinstance(part, AndPairsMade):
            for field in ("p", "g", "q", "pg", "pq"):
                yield f"{name}, {field}", getattr(part, field)[party]
        elif isinstance(part, NumberPadsMade):
            fields = ("zero", "one") if correlation.sender == party else ("chosen", "choices")
            for field in fields:
                yield f"{name}, {field}", getattr(part, field)
        elif isinstance(part, LookupsMade) and party == 0:
            for j in range(1, len(part.pads) - 1):
                for k, row in enumerate(part.pads[j]):
                    yield f"{name}, pads {j}.{k}", row.view(np.uint64)
        elif isinstance(part, LookupsMade):
            yield f"{name}, choices", part.choices.reshape(-1)
            for which, digits in enumerate(part.seen):
                yield f"{name}, seen {which}", digits[1 - which :].reshape(-1)


def views(program, secret):
    """Return everything that must be uniform: {name: words}, of both parties."""
    channel = Listening()
    pair = Watched(channel)
    pair.made = []
    second = np.frombuffer(os.urandom(8 * SIZE), np.uint64)
    z = np.stack([secret.view(np.uint64) - second, second])
    # Only what happens online, and what is made for it.
    channel.received = [[], []]
    leaves = []
    look_up = lookup.look_up

    def listen(*arguments):
        shares, got = look_up(*arguments)
        leaves.append((arguments[1].ordered, shares))
        return shares, got

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(private_comparison, "look_up", listen)
        result = program(pair, z)
    out = {}
    for party in (0, 1):
        name = channel.names[party]
        mine = {"its share": z[party]}
        mine |= {
            f"bits {b} of its share": planes_of_rows(z[party] >> np.uint64(b), 1)[0]
            for b in (0, 15, 16, 46, 47, 62, 63)
        }
        mine |= dict(known(party, pair.made))
        out |= {f"{name}: {what}": words for what, words in mine.items()}
        for number, message in enumerate(channel.received[party]):
            out[f"{name}: message {number}"] = message
            for what, words in mine.items():
                # Every part of a message that is as long.
                size = words.size
                if not 16 <= size <= message.size <= MOST_PARTS * size:
                    continue
                for at in range(0, message.size - size + 1, size):
                    part, where = message[at : at + size], f"{name}: message {number} at {at}"
                    out[f"{where} without {what}"] = part ^ words
                    if size == SIZE:
                        out[f"{where} minus {what}"] = part - words
                        out[f"{where} plus {what}"] = part + words
        for number, (ordered, shares) in enumerate(leaves):
            if ordered:
                out[f"{name}: leaves {number}, order"] = shares[party, 0].reshape(-1)
            equal = shares[party, 1, int(ordered) :]
            out[f"{name}: leaves {number}, equality"] = np.ascontiguousarray(equal).reshape(-1)
        out[f"{name}: result"] = result[party]
    return out


def findings(program, names):
    """Run a program on secrets; return what is not uniform, or not alike."""
    seen = [views(program, SECRETS[name]) for name in names]
    assert seen[0].keys() == seen[1].keys()
    found = []
    for what, words in seen[0].items():
        other = seen[1][what]
        for case, sample in ((names[0], words), (names[1], other), ("both", words - other)):
            chance = chance_of_uniform(sample)
            if chance < ALARM:
                found.append((what, case, chance))
    return found


def planes(numbers):
    return numbers.reshape(len(numbers), -1)


# Windows of which every digit has a whole lane, and shares of a result that are words or planes.
PROGRAMS = {
    "truncation": lambda p, z: truncation.truncate(p, z << np.uint64(16), 16),
    "sign": lambda p, z: planes(sign.sign(p, z, 32)[0]),
    "sign with truncation": lambda p, z: planes(sign.sign(p, z << np.uint64(16), 32, 16)[0]),
    "relu": lambda p, z: relu.relu_with_derivative(p, z << np.uint64(16), 32, 16)[0],
    "derivative": lambda p, z: relu.relu_with_derivative(p, z, 32)[1],
    "equality": lambda p, z: sign.is_zero(p, z, 32),
    "thresholds": lambda p, z: planes(thresholds.below(p, z, (0, 1, 2**29), 32)[0]),
    "conversion": lambda p, z: convert.to_number(p, z[:, : SIZE // 8], 8 * SIZE),
    "select": lambda p, z: select.select(p, z, z[:, : SIZE // 64]),
    "gate": lambda p, z: select.gate(p, z, z[:, : SIZE // 64], 16),
    "product": lambda p, z: product.multiply(p, z[:, : SIZE // 8], z[:, SIZE // 8 : SIZE // 4]),
    "maximum": lambda p, z: maximum.maximum(p, z.reshape(2, 4, SIZE // 4), 32),
    "argmax": lambda p, z: planes(maximum.argmax(p, z.reshape(2, 4, SIZE // 4), 32)),
}


@pytest.mark.parametrize("names", PAIRS, ids="-".join)
@pytest.mark.parametrize("name", PROGRAMS)
def test_views_are_uniform(name, names):
    assert findings(PROGRAMS[name], names) == []


class TestControls:
    """Each mask in turn is broken: the examination must find it."""

    def control(self, program):
        assert findings(PROGRAMS[program], PAIRS[0])

    def test_bits_that_hide_nothing(self, monkeypatch):
        make = pads.BitPairs.make

        def broken(self, pair):
            made = make(self, pair)
            made.bit[:] = 0
            made.product[:] = 0
            return made

        monkeypatch.setattr(pads.BitPairs, "make", broken)
        self.control("truncation")

    def test_shares_of_leaves_that_are_no_shares(self, monkeypatch):
        monkeypatch.setattr(Pair, "random_words", lambda self, *shape: np.zeros(shape, np.uint64))
        self.control("sign")

    def test_pads_that_are_zero(self, monkeypatch):
        make = pads.NumberPads.make

        def broken(self, pair):
            made = make(self, pair)
            for array in (made.zero, made.one, made.chosen):
                array[:] = 0
            return made

        monkeypatch.setattr(pads.NumberPads, "make", broken)
        self.control("select")

    def test_choices_that_are_zero(self, monkeypatch):
        make = pads.NumberPads.make

        def broken(self, pair):
            made = make(self, pair)
            made.choices[:] = 0
            made.chosen[:] = made.zero
            return made

        monkeypatch.setattr(pads.NumberPads, "make", broken)
        self.control("relu")

    def test_ands_without_masks(self, monkeypatch):
        make = pads.AndPairs.make

        def broken(self, pair):
            made = make(self, pair)
            for field in ("p", "g", "q", "pg", "pq"):
                getattr(made, field)[:] = 0
            return made

        monkeypatch.setattr(pads.AndPairs, "make", broken)
        self.control("equality")
