"""What protocols declare is what they take: measured in lock step, apart, and planned."""

import numpy as np
import pytest

from mpc.two_party import (
    convert,
    maximum,
    product,
    relu,
    select,
    sign,
    thresholds,
    truncation,
)
from mpc.two_party.cost import Cost
from mpc.two_party.pair import Pair
from ring.bits import count_words

LIMITS = (-3, 0, 5, 70, 11)


def bits_of(pair, size):
    return np.zeros((len(pair.parties), count_words(size)), np.uint64)


def few_bits(pair, z):
    words = np.zeros((len(z), 64 * count_words(z.shape[1])), np.uint64)
    product.cross_products(pair, words, words & np.uint64(1023), (10, 0))


# What to run on arrays of shape (p, size), and what it says that it costs.
PROTOCOLS = {
    "truncation by 1": (lambda p, z: truncation.truncate(p, z, 1), lambda n: truncation.cost(n, 1)),
    "truncation by 16": (
        lambda p, z: truncation.truncate(p, z, 16),
        lambda n: truncation.cost(n, 16),
    ),
    "truncation by 33": (
        lambda p, z: truncation.truncate(p, z, 33),
        lambda n: truncation.cost(n, 33),
    ),
    **{
        f"sign of {bits} bits, shift {shift}": (
            lambda p, z, bits=bits, shift=shift: sign.sign(p, z, bits, shift),
            lambda n, bits=bits, shift=shift: sign.cost(n, bits, shift),
        )
        for bits, shift in ((2, 0), (3, 1), (4, 5), (5, 0), (9, 16), (32, 16), (36, 0), (64, 0))
    },
    "equality of 32 bits": (
        lambda p, z: sign.is_zero(p, z, 32),
        lambda n: sign.zero_cost(n, 32),
    ),
    "relu": (
        lambda p, z: relu.relu_with_derivative(p, z, 32, 16),
        lambda n: relu.cost(n, 32, 16),
    ),
    "relu without truncation": (
        lambda p, z: relu.relu_with_derivative(p, z, 20),
        lambda n: relu.cost(n, 20, 0),
    ),
    "thresholds": (
        lambda p, z: thresholds.below(p, z, LIMITS, 36),
        lambda n: thresholds.cost(n, 36, 0, len(LIMITS)),
    ),
    "conversion": (
        lambda p, z: convert.to_number(p, bits_of(p, z.shape[1]), z.shape[1]),
        convert.cost,
    ),
    "select": (lambda p, z: select.select(p, z, bits_of(p, z.shape[1])), select.select_cost),
    "gate": (
        lambda p, z: select.gate(p, z, bits_of(p, z.shape[1]), 16),
        lambda n: select.gate_cost(n, 16),
    ),
    "product": (lambda p, z: product.multiply(p, z, z), product.cost),
    "cross product with few bits": (few_bits, lambda n: product.cost(n, (10, 0))),
    **{
        f"maximum in groups of {group}": (
            lambda p, z, group=group: maximum.maximum(p, rows_of(z), 36, group),
            lambda n, group=group: maximum.cost(5, n, 36, group),
        )
        for group in (2, 3, 16)
    },
    **{
        f"argmax in groups of {group}": (
            lambda p, z, group=group: maximum.argmax(p, rows_of(z), 36, group),
            lambda n, group=group: maximum.cost(5, n, 36, group, value=False),
        )
        for group in (2, 3, 16)
    },
}  # fmt: skip


def rows_of(z):
    return np.zeros((len(z), 5, z.shape[1]), np.uint64)


def zeros(pair, size):
    return np.zeros((len(pair.parties), size), np.uint64)


@pytest.mark.parametrize("size", [1, 64, 65, 700])
@pytest.mark.parametrize("name", PROTOCOLS)
def test_declared_is_measured_is_planned(pair, monkeypatch, name, size):
    program, cost = PROTOCOLS[name]
    declared = cost(size)
    needs, planned = Pair.plan(lambda p: program(p, zeros(p, size)))
    assert planned == declared
    channel = pair.channel
    made = [extension.made for extension in pair.extensions]
    pair.prepare(needs)
    transfers = tuple(e.made - b for e, b in zip(pair.extensions, made, strict=True))
    rounds, sent, taken = channel.rounds, list(channel.sent), []
    take = pair.take
    monkeypatch.setattr(pair, "take", lambda one: (taken.append(one), take(one))[1])
    program(pair, zeros(pair, size))
    online = tuple(a - b for a, b in zip(channel.sent, sent, strict=True))
    offline = declared.offline
    assert Cost(transfers, offline, channel.rounds - rounds, online) == declared
    assert taken == needs


def test_the_figures_of_the_docstrings(pair):
    """At L = 32 and s = 16, a million elements."""
    n = 1 << 20
    cost = relu.cost(n, 32, 16)
    assert cost.rounds == 7
    assert [t / n for t in cost.transfers] == [40, 8]
    assert [round(s / n, 1) for s in cost.sent] == [38.5, 14.4]
    assert [s / n for s in cost.offline] == [2, 0]
    cost = sign.cost(n, 32, 16)
    assert cost.rounds == 5 and [t / n for t in cost.transfers] == [39, 7]
    # In three rounds 18 bits each, and with the first two messages one bit.
    assert [8 * s / n for s in cost.sent] == [8 * 28 + 1 + 18, 31 + 1 + 18]
    assert [s / n for s in product.cost(n).sent] == [268, 268]
    assert [product.cost(n).transfers[k] / n for k in (0, 1)] == [64, 64]
    assert [s / n for s in truncation.cost(n, 16).sent] == [1 / 8, 1 / 8]
    assert [s / n for s in convert.cost(n).offline] == [8, 0]
    cost = thresholds.cost(n, 36, 0, 20)
    assert cost.rounds == 7 and [t / n for t in cost.transfers] == [35 + 180, 160]
    assert [s // n for s in cost.sent] == [692, 56]


@pytest.mark.parametrize(("group", "rounds", "sent"), [(2, 33, 465), (4, 18, 806), (16, 10, 1572)])
def test_what_groups_of_the_largest_take(group, rounds, sent):
    cost = maximum.cost(10, 1 << 16, 36, group, value=False)
    assert cost.rounds == rounds and cost.sent[0] // (1 << 16) == sent
