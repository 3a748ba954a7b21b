"""What pads give, against Python's integers."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy.special import chdtrc

from mpc.core.errors import ProcessError
from mpc.two_party import extension as extension_module
from mpc.two_party import lookup, pads
from mpc.two_party.channel import LockStep
from mpc.two_party.lookup import Lookups
from mpc.two_party.pads import AndPairs, BitPairs, NumberPads, and_planes, narrow, times_bit, widen
from mpc.two_party.pair import Pair
from mpc.two_party.rlwe_parameters import PARAMETERS
from ring import processes, unpack_bits

RANDOM = np.random.default_rng(7)


def words(*shape):
    return RANDOM.integers(0, 2**64, shape, np.uint64)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(pads, "BLOCK", 3)


@pytest.mark.parametrize("bits", [1, 7, 8, 9, 16, 17, 32, 33, 63, 64])
def test_lanes(bits):
    values = words(128) >> np.uint64(64 - bits)
    packed = narrow(values, bits)
    assert packed.size == 128 * pads.lane_bits(bits) // 64
    assert np.array_equal(widen(packed, bits), values)
    lane = pads.lane_bits(bits)
    assert [int(packed[0]) >> lane * k & (1 << lane) - 1 for k in range(64 // lane)] == (
        values[: 64 // lane].tolist()
    )


@pytest.mark.usefixtures("small_blocks")
class TestMade:
    @pytest.mark.parametrize("count", [1, 3, 7])
    @pytest.mark.parametrize("bits", [1, 5, 16, 31, 64])
    def test_bits_and_their_product(self, pair, count, bits):
        made = pair.take(BitPairs(count, bits))
        a, b = (unpack_bits(row, 64 * count) for row in made.bit)
        total = made.product.sum(axis=0, dtype=np.uint64)
        mask = 2**bits - 1
        assert [int(v) & mask for v in total] == (a & b).tolist()
        for m in (a, b):
            assert 0 < m.sum() < 64 * count

    @pytest.mark.parametrize("count", [1, 7])
    def test_product_of_any_bits(self, pair, count):
        made = pair.take(BitPairs(count, 64))
        m = words(2, count)
        mine = m ^ made.bit
        product = pads.product_of_bits(pair, made, mine, mine[::-1]).sum(axis=0, dtype=np.uint64)
        assert product.tolist() == unpack_bits(m[0] & m[1], 64 * count).tolist()

    @pytest.mark.parametrize("count", [1, 7])
    def test_ands(self, pair, count):
        made = pair.take(AndPairs(count))
        p, g, q, pg, pq = (
            np.bitwise_xor.reduce(x) for x in (made.p, made.g, made.q, made.pg, made.pq)
        )
        assert np.array_equal(p & g, pg) and np.array_equal(p & q, pq)
        bits = [unpack_bits(v, 64 * count).tolist() for v in (p, g, q)]
        if count == 7:
            assert len(set(zip(*bits, strict=True))) == 8

    @pytest.mark.parametrize("sender", [0, 1])
    def test_pads_of_numbers(self, pair, sender):
        made = pair.take(NumberPads(7, sender))
        choices = unpack_bits(made.choices, 448).astype(bool)
        assert np.array_equal(np.where(choices, made.one, made.zero), made.chosen)
        assert not np.any(np.where(choices, made.zero, made.one) == made.chosen)

    def test_times_bit(self, pair):
        numbers, bits = words(2, 448), words(2, 7)
        numbers[:, :4] = [[0, 0, 2**63, 2**64 - 1], [0, 2**64 - 1, 2**63, 2**64 - 1]]
        before = numbers.copy()
        got = times_bit(pair, numbers, bits).sum(axis=0, dtype=np.uint64)
        b = unpack_bits(np.bitwise_xor.reduce(bits), 448)
        assert np.array_equal(got, numbers.sum(axis=0, dtype=np.uint64) * b)
        assert np.array_equal(numbers, before)

    @pytest.mark.parametrize("more", [None, 0, 1, 3])
    def test_and_planes(self, pair, more):
        x, y = words(2, 3, 5), words(2, 3, 5)
        z = None if more is None else words(2, more, 5)
        out = and_planes(pair, x, y, z)
        a, b = np.bitwise_xor.reduce(x), np.bitwise_xor.reduce(y)
        assert np.array_equal(np.bitwise_xor.reduce(out[0]), a & b)
        if z is not None:
            assert np.array_equal(
                np.bitwise_xor.reduce(out[1]), a[3 - more :] & np.bitwise_xor.reduce(z)
            )


def bits_are_right(made, n):
    a, b = (unpack_bits(row, n) for row in made.bit)
    assert made.product.sum(axis=0, dtype=np.uint64).tolist() == (a & b).tolist()


def ands_are_right(made):
    p, g, q, pg, pq = (np.bitwise_xor.reduce(getattr(made, f)) for f in ("p", "g", "q", "pg", "pq"))
    assert np.array_equal(p & g, pg) and np.array_equal(p & q, pq)


def pads_are_right(made, n):
    choices = unpack_bits(made.choices, n).astype(bool)
    assert np.array_equal(np.where(choices, made.one, made.zero), made.chosen)


def lookups_are_right(made, n):
    for j, width in enumerate((4, 3)):
        places = made.places >> np.uint64(4 * j) & np.uint64(2**width - 1)
        for k in range(3):
            there = made.pads[j, k].astype(np.uint64) >> places & np.uint64(1)
            assert np.array_equal(there, unpack_bits(made.seen[0, j, k], n))
    chosen = unpack_bits(made.choices, n)
    assert np.array_equal(
        sum(row.astype(np.uint64) << np.uint64(i) for i, row in enumerate(chosen)), made.places
    )


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(
    "form", [BitPairs(50, 16), AndPairs(50), NumberPads(50, 1), Lookups(50, 31)], ids=str
)
def test_neither_party_waits_for_the_other_in_between(form, monkeypatch):
    """However many blocks: messages of one, then of the other."""
    monkeypatch.setattr(extension_module, "CHUNK", 16)
    monkeypatch.setattr(extension_module, "SMALLEST", 1)
    monkeypatch.setattr(lookup, "BLOCK", 3)
    senders = []

    class Listening(LockStep):
        def swap(self, messages, counts, *, continued=False):
            senders.append(0 if counts[0] else 1)
            return super().swap(messages, counts, continued=continued)

    pair = Pair(Listening())
    senders.clear()
    pair.take(form)
    assert len(senders) >= 4
    assert sum(a != b for a, b in pairwise(senders)) <= 1


class TestOnce:
    def test_nothing_is_taken_twice(self, pair):
        """Neither from the stock nor anew."""
        form = BitPairs(4, 8)
        pair.prepare([form, form])
        taken = [pair.take(form) for _ in range(4)]
        assert len({made.bit.tobytes() for made in taken}) == 4
        assert len({made.product.tobytes() for made in taken}) == 4

    def test_the_stock_goes_first_and_only_for_the_same(self, pair):
        made = [0, 0]
        form = NumberPads(2, 0)
        pair.prepare([form])
        before = [extension.made for extension in pair.extensions]
        pair.take(form)
        assert [extension.made for extension in pair.extensions] == before
        pair.take(NumberPads(2, 1))
        made = [e.made - b for e, b in zip(pair.extensions, before, strict=True)]
        assert made == [0, 128]

    @pytest.mark.parametrize(
        ("form", "check"),
        [
            (BitPairs(1, 64), lambda made, n: bits_are_right(made, n)),
            (AndPairs(1), lambda made, n: ands_are_right(made)),
            (NumberPads(1, 1), lambda made, n: pads_are_right(made, n)),
            (Lookups(1, 7, True, 3), lambda made, n: lookups_are_right(made, n)),
        ],
        ids=["bits", "ands", "numbers", "lookups"],
    )
    def test_the_stock_is_cut_and_joined(self, pair, form, check):
        """In parts of any size, over pieces, and beyond their end."""
        pair.prepare([replace(form, words=words) for words in (5, 3, 0, 2)])
        made = [e.made for e in pair.extensions]
        seen = []
        for words in (1, 2, 0, 4, 3):
            part = pair.take(replace(form, words=words))
            assert part.words == words
            check(part, 64 * words)
            seen.append(part)
        assert [e.made for e in pair.extensions] == made
        assert pair.prepared.holds(replace(form, words=0)) == 0
        pair.prepare([replace(form, words=1)])
        last = pair.take(replace(form, words=3))
        check(last, 192)
        # Nothing is there twice.
        names = [name for name, _ in last.arrays() if name in ("product", "pg", "zero", "pads")]
        for name in names:
            rows = [np.ascontiguousarray(getattr(part, name)).reshape(-1) for part in (*seen, last)]
            both = np.concatenate(rows)
            assert len(np.unique(both)) > 0.99 * both.size

    def test_what_fails_on_its_way_is_not_made_again(self, pair, monkeypatch):
        """A second attempt has other bits."""
        form, seen = BitPairs(4, 8), []
        draw = type(pair.extensions[0]).draw

        def listen(self, count):
            seen.append(draw(self, count))
            return seen[-1]

        monkeypatch.setattr(type(pair.extensions[0]), "draw", listen)
        with monkeypatch.context() as patch:
            patch.setattr(pads, "send", lambda *arguments: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                pair.take(form)
        pair.take(form)
        first, second = seen
        assert second.start >= first.start + 256
        assert not np.any(first.q == second.q)


@pytest.mark.parametrize(
    "form", [BitPairs(3, 16), NumberPads(3, 0), NumberPads(3, 1), AndPairs(3)], ids=str
)
def test_costs(pair, form):
    """Transfers and bytes are those that are declared, with the transfers there already."""
    for extension in pair.extensions:
        extension.expect(64 * 200)
        extension.draw(64)
    made, sent = [e.made for e in pair.extensions], list(pair.channel.sent)
    pair.take(form)
    assert tuple(e.made - b for e, b in zip(pair.extensions, made, strict=True)) == (
        form.cost.transfers
    )
    assert tuple(a - b for a, b in zip(pair.channel.sent, sent, strict=True)) == form.cost.offline


def test_own_random_words_are_uniform_and_never_the_same(pair):
    drawn = pair.random_words(2, 4096)
    ones = unpack_bits(drawn.reshape(-1), 64 * drawn.size).sum()
    n = 64 * drawn.size
    assert chdtrc(1, 4 * (float(ones) - n / 2) ** 2 / n) > 1e-9
    assert not np.any(drawn == pair.random_words(2, 4096))
    assert len(np.unique(drawn)) == drawn.size


def test_it_says_who_lives_here(pair):
    assert isinstance(pair, Pair)
    assert repr(pair) == "Pair(alice and bob)"


def test_a_forked_child_takes_nothing(monkeypatch):
    """What is in stock, and keys that are there, would serve it and its parent."""
    pair = Pair(LockStep())
    pair.prepare([BitPairs(2, 8)])
    pair.keys(PARAMETERS[0], 0)
    with monkeypatch.context() as patch:
        patch.setattr(processes, "generation", processes.generation + 1)
        for use in (
            lambda: pair.take(BitPairs(1, 8)),
            lambda: pair.prepare([BitPairs(1, 8)]),
            lambda: pair.keys(PARAMETERS[0], 0),
            lambda: pair.multiply_kept(None, None, None, None),
        ):
            with pytest.raises(ProcessError, match="for each other: made by the process"):
                use()
    assert pair.take(BitPairs(2, 8)).words == 2
