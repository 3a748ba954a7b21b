"""Tables looked up: every entry, and that no pad bit serves two of them."""

from itertools import product

import numpy as np
import pytest

from mpc.two_party import lookup, private_comparison
from mpc.two_party.lookup import Lookups, look_up, widths_of
from ring import unpack_bits


def padded_to_words(values):
    """A multiple of 64 of them, zeros behind."""
    out = np.zeros(64 * -(-len(values) // 64), np.uint64)
    out[: len(values)] = values
    return out


def nothing(pair):
    return np.empty((len(pair.parties), 0), np.uint64)


@pytest.mark.parametrize(
    ("bits", "widths"), [(1, (1,)), (4, (4,)), (5, (4, 1)), (31, (4,) * 7 + (3,)), (64, (4,) * 16)]
)
def test_widths(bits, widths):
    assert widths_of(bits) == widths


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 8])
def test_every_pair_of_numbers(pair, bits, ordered):
    a, b = (
        padded_to_words(list(v)) for v in zip(*product(range(1 << bits), repeat=2), strict=True)
    )
    form = Lookups(len(a) // 64, bits, ordered)
    shares, _ = look_up(pair, form, a[None], b, nothing(pair))
    found = unpack_bits(np.bitwise_xor.reduce(shares), len(a))
    for j, width in enumerate(form.widths):
        mask = (1 << width) - 1
        mine, theirs = (v >> np.uint64(4 * j) & np.uint64(mask) for v in (a, b))
        if ordered:
            assert np.array_equal(found[0, j, 0], mine > theirs)
        if not ordered or j:
            assert np.array_equal(found[1, j, 0], mine == theirs)


@pytest.mark.parametrize("numbers", [1, 2, 4, 5, 9])
def test_several_numbers(pair, numbers, monkeypatch):
    monkeypatch.setattr(lookup, "BLOCK", 2)
    random = np.random.default_rng(numbers)
    a = random.integers(0, 2**64, (numbers, 320), np.uint64)
    b = random.integers(0, 2**64, 320, np.uint64)
    form = Lookups(5, 11, True, numbers)
    found = np.bitwise_xor.reduce(look_up(pair, form, a, b, nothing(pair))[0])
    for j, width in enumerate(form.widths):
        mask = np.uint64((1 << width) - 1)
        mine, theirs = (v >> np.uint64(4 * j) & mask for v in (a, b))
        for k in range(numbers):
            assert np.array_equal(unpack_bits(found[0, j, k], 320), mine[k] > theirs)
            if j:
                assert np.array_equal(unpack_bits(found[1, j, k], 320), mine[k] == theirs)


def test_words_beside_arrive(pair):
    more = np.arange(6, dtype=np.uint64).reshape(2, 3)
    zeros = np.zeros(64, np.uint64)
    _, got = look_up(pair, Lookups(1, 4), zeros[None], zeros, more)
    assert np.array_equal(got, more[::-1])


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("values", [1, 2])
def test_every_bit_of_a_pad_serves_one_entry(width, values):
    """And of a place that is not the choice, at least one of them is unknown."""
    entries, uses = 1 << width, {}
    for bit in range(values * entries):
        for i in range(width):
            side = lookup._masks(i, width) >> bit & 1
            assert side == (bit % entries) >> i & 1
            uses.setdefault((i, side, bit), []).append(bit % entries)
    assert all(len(places) == 1 for places in uses.values())
    for choice, place in product(range(entries), repeat=2):
        unknown = [i for i in range(width) if (place ^ choice) >> i & 1]
        assert bool(unknown) == (place != choice)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_the_receiver_knows_its_entry_of_the_pads_alone(pair, width):
    """XOR of the pads that it has gives no other entry: they look like coins."""
    n = 64 * 64
    made = pair.take(Lookups(64, 4 + width, True))
    pads, entries = made.pads[1, 0], 1 << width
    places = (made.places >> np.uint64(4)) & np.uint64(entries - 1)
    for value in (0, 1):
        seen = unpack_bits(made.seen[value, 1, 0], n)
        for move in range(entries):
            at = (places ^ np.uint64(move)) + np.uint64(value * entries)
            there = (pads.astype(np.uint64) >> at & np.uint64(1)).astype(np.uint8)
            same = int((there == seen).sum())
            assert same == n if move == 0 else abs(same - n / 2) < 6.5 * n**0.5 / 2


@pytest.mark.parametrize("bits", [1, 4, 5, 13, 31, 63])
@pytest.mark.parametrize("numbers", [1, 3])
def test_greater(pair, bits, numbers):
    random = np.random.default_rng(bits)
    a = random.integers(0, 2**64, (numbers, 192), np.uint64)
    b = random.integers(0, 2**64, 192, np.uint64)
    mask = np.uint64(2**bits - 1)
    # Equal ones, and ones that differ in the lowest bit or in the highest alone.
    a[:, :64] = b[:64]
    a[:, 64:96] = b[64:96] ^ np.uint64(1)
    a[:, 96:128] = b[96:128] ^ np.uint64(1 << bits - 1)
    found, _ = private_comparison.greater(pair, a, b, 3, bits, nothing(pair), numbers)
    found = unpack_bits(np.bitwise_xor.reduce(found), 192)
    assert np.array_equal(found, (a & mask) > (b & mask))


@pytest.mark.parametrize("bits", [1, 4, 5, 13, 32, 64])
def test_equal(pair, bits):
    random = np.random.default_rng(bits)
    a, b = random.integers(0, 2**64, (2, 192), np.uint64)
    a[:64] = b[:64]
    a[64:128] = b[64:128]
    for e in range(64):
        a[64 + e] ^= np.uint64(1 << e)
    mask = np.uint64(2**bits - 1)
    found = private_comparison.equal(pair, a, b, 3, bits)
    assert np.array_equal(unpack_bits(np.bitwise_xor.reduce(found), 192), (a & mask) == (b & mask))


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("bits", [1, 2, 5, 6, 8])
def test_bits_behind_a_table_are_zero(pair, bits, ordered, monkeypatch):
    """They are bits of pads, which serve nothing and are not to be seen."""
    sent, trade = [], lookup.trade

    def listen(channel, messages, counts):
        sent.append(messages)
        return trade(channel, messages, counts)

    monkeypatch.setattr(lookup, "trade", listen)
    form = Lookups(4, bits, ordered)
    random = np.random.default_rng(bits)
    a, b = (random.integers(0, 1 << bits, 256, np.uint64) for _ in range(2))
    look_up(pair, form, a[None], b, nothing(pair))
    message, at = sent[1][0], 0
    for j in range(len(form.widths)):
        lane = lookup.lane_bits(form.entry_bits(j))
        tables = message[at : at + 4 * lane].view(f"u{lane // 8}").astype(np.uint64)
        at += 4 * lane
        seen = int(np.bitwise_or.reduce(tables))
        assert seen == (1 << form.entry_bits(j)) - 1
    assert at == message.size
