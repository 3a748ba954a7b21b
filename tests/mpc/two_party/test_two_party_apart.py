"""The same protocols with both parties in lock step, in two threads, and behind a socket."""

import numpy as np
import pytest

from mpc.core.errors import FrameError, PeerClosedError, ShapeError
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
from mpc.two_party.channel import LockStep, Planned, exchange, send
from mpc.two_party.pair import Pair
from mpc.two_party.silent import SETS

SIZE = 200


def program(pair, z):
    """Use everything once; return all shares, exact whatever they are."""
    low, y = sign.sign(pair, z, 40, 0, (0, 5))
    positive, derivative = relu.relu_with_derivative(pair, z, 40)
    zero = sign.is_zero(pair, z, 40)
    below, _ = thresholds.below(pair, z, (-1, 0, 9), 40)
    return {
        "sign": low,
        "value": y[:, :SIZE],
        "relu": positive,
        "derivative": derivative,
        "gate": select.gate(pair, z * np.uint64(8), derivative, 3)[0],
        "truncated": truncation.truncate(pair, z * np.uint64(2**16), 16),
        "zero": zero,
        "number": convert.to_number(pair, zero, SIZE),
        "below": below,
        "product": product.multiply(pair, z, z),
        "largest": maximum.maximum(pair, z.reshape(len(z), 5, SIZE // 5), 41),
        "which": maximum.argmax(pair, z.reshape(len(z), 5, SIZE // 5), 41),
    }


XOR = ("sign", "derivative", "zero", "which")


def joined(results):
    """Put together what shares say, without what is behind the last element."""
    out = {}
    for name, shares in results.items():
        if name in XOR:
            size = SIZE // 5 if name == "which" else SIZE
            words = np.bitwise_xor.reduce(shares)
            out[name] = np.unpackbits(words.view(np.uint8), axis=-1, bitorder="little")[..., :size]
        else:
            out[name] = shares.sum(axis=0, dtype=np.uint64)
    return out


@pytest.mark.parametrize("kind", ["ends", "sockets"])
@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("k", [4, 8])
def test_apart_as_in_lock_step(request, run_both, shared, kind, ahead, k):
    ends = request.getfixturevalue(kind)
    z = np.random.default_rng(3).integers(-20, 20, SIZE)
    shares = shared(z)
    expected = joined(program(Pair(LockStep()), shares))
    needs, _ = Pair.plan(lambda pair: program(pair, np.empty((0, SIZE), np.uint64)))

    def side(end):
        pair = Pair(end, k)
        taken, take = [], pair.take
        pair.take = lambda one: (taken.append(one), take(one))[1]
        if ahead:
            pair.prepare(needs)
            before = [e.made for e in pair.extensions]
        mine = program(pair, shares[end.parties[0]][None].copy())
        if ahead:
            assert [e.made for e in pair.extensions] == before
        assert taken == needs
        return mine

    alice, bob = run_both([lambda: side(ends[0]), lambda: side(ends[1])])
    got = joined({name: np.concatenate([alice[name], bob[name]]) for name in alice})
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert np.array_equal(got[name], value), name
    assert np.array_equal(expected["relu"].view(np.int64), np.maximum(z, 0))
    assert np.array_equal(expected["gate"].view(np.int64), np.maximum(z, 0))
    assert np.array_equal(expected["truncated"].view(np.int64), z)
    assert np.array_equal(expected["product"].view(np.int64), z * z)
    assert np.array_equal(expected["largest"].view(np.int64), z.reshape(5, -1).max(axis=0))


@pytest.mark.parametrize("silent", [None, "small"])
def test_kernels_on_several_threads(shared, silent, monkeypatch):
    """Whatever the size of the work."""
    monkeypatch.setitem(SETS, "small", (40, 9, 7))
    z = np.random.default_rng(5).integers(-20, 20, SIZE)
    shares = shared(z)
    expected = joined(program(Pair(LockStep()), shares))
    monkeypatch.setattr("ring.threads._threads", 3)
    monkeypatch.setattr("ring.threads.WORTHWHILE", 1)
    got = joined(program(Pair(LockStep(), silent=silent), shares))
    for name, value in expected.items():
        assert np.array_equal(got[name], value), name


def retry(pair, share):
    return relu.relu_with_derivative(pair, share[None].copy(), 8)[0]


@pytest.mark.parametrize("after", [0, 1, 3, 6])
def test_a_party_that_is_lost_is_named(ends, run_both, shared, after):
    """At any moment: an error on both sides, and no hang."""
    shares = shared(np.arange(64))
    pairs = run_both([lambda: Pair(ends[0]), lambda: Pair(ends[1])])
    ends[1].fail_after = ends[1].messages + after
    errors = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(type(ends[0]).swap.__globals__, "TIMEOUT", 2.0)

        def side(k):
            try:
                relu.relu_with_derivative(pairs[k], shares[k][None].copy(), 8)
            except Exception as error:
                errors.append(error)

        run_both([lambda: side(0), lambda: side(1)])
    assert len(errors) == 2
    assert any(isinstance(e, PeerClosedError) and "alice" in str(e) for e in errors)
    assert any("bob is late" in str(e) for e in errors)
    # A retried call, with correlations that are new.
    ends[1].fail_after = None
    for end in ends:
        end.drain()
    run_both([pairs[0].resume, pairs[1].resume])
    results = run_both([lambda: retry(pairs[0], shares[0]), lambda: retry(pairs[1], shares[1])])
    assert (results[0] + results[1])[0].tolist() == list(range(64))


class TestChannel:
    def test_one_way(self):
        channel = LockStep()
        words = np.arange(3, dtype=np.uint64)
        assert send(channel, 0, 3, words) is words
        assert send(channel, 1, 3, words) is words
        assert channel.sent == [24, 24] and channel.rounds == 2

    def test_both_ways(self):
        channel = LockStep()
        words = np.arange(12, dtype=np.uint64).reshape(2, 2, 3)
        assert np.array_equal(exchange(channel, words), words[::-1])
        assert channel.sent == [48, 48] and channel.rounds == 1

    def test_nothing_is_no_round(self):
        channel = LockStep()
        assert exchange(channel, np.empty((2, 0), np.uint64)).shape == (2, 0)
        assert channel.rounds == 0

    def test_a_plan_counts(self):
        channel = Planned()
        assert send(channel, 0, 5, None) is None
        assert exchange(channel, np.empty((0, 7), np.uint64)).shape == (0, 7)
        assert channel.sent == [96, 56] and channel.rounds == 2

    def test_a_message_of_another_length_is_refused(self):
        with pytest.raises(ShapeError, match=r"the parties send \[4, 0\] words, got \[3, 0\]"):
            send(LockStep(), 0, 4, np.zeros(3, np.uint64))

    def test_what_comes_short_is_refused(self):
        class Short(LockStep):
            def swap(self, messages, counts, *, continued=False):
                return [m[:-1] for m in super().swap(messages, counts, continued=continued)]

        with pytest.raises(FrameError, match="bob has sent 3 words in place of 4"):
            exchange(Short(), np.zeros((2, 4), np.uint64))
