"""Silent transfers: rows, choices, positions, failures."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.special import chdtrc

from mpc.core.errors import ArgumentError, FrameError, PeerClosedError, ProcessError
from mpc.two_party import base_ot, relu
from mpc.two_party import silent as silent_module
from mpc.two_party.channel import LockStep
from mpc.two_party.extension import Extension
from mpc.two_party.pair import Pair
from mpc.two_party.silent import SETS, Silent
from ring import processes, unpack_bits

SMALL = (40, 9, 7)


@pytest.fixture(autouse=True)
def small_set(monkeypatch):
    """A set that is quick, and hides nothing."""
    monkeypatch.setitem(SETS, "small", SMALL)


@pytest.fixture(scope="module")
def session():
    return base_ot.agree(LockStep())


@pytest.fixture(params=[0, 1])
def silent(request, session):
    channel = LockStep()
    return Silent(channel, session, Extension(channel, session, request.param), "small")


def check(silent, transfers):
    choices = unpack_bits(transfers.choices, transfers.count).astype(bool)
    moved = transfers.q ^ silent._extension.secret
    assert np.array_equal(np.where(choices[:, None], moved, transfers.q), transfers.t)
    # The choice is the row's lowest bit; the sender's has none.
    assert np.array_equal(transfers.t[:, 0] & np.uint64(1), choices)
    assert not np.any(transfers.q[:, 0] & np.uint64(1))
    return choices


def test_sets():
    """Those of the source; and what is left over is most of the leaves."""
    del SETS["small"]
    assert SETS == {
        "b10": (850, 16, 10), "b11": (1170, 17, 11), "b12": (1520, 18, 12), "b13": (1900, 19, 13)
    }  # fmt: skip
    assert [t << h for t, _, h in SETS.values()] == [870_400, 2_396_160, 6_225_920, 15_564_800]
    for t, log, h in SETS.values():
        assert (1 << log) + t * h < 0.1 * (t << h)


def test_many_draws_over_rounds(silent):
    total, starts = 0, []
    for words in (1, 5, 0, 60, 100, 200, 3):
        transfers = silent.draw(64 * words)
        check(silent, transfers)
        assert transfers.count == len(transfers.q) == 64 * words
        starts.append((transfers.start, transfers.count))
        total += 64 * words
    assert silent.made == total > 3 * silent.transfers_a_round
    ends = [start + count for start, count in starts]
    assert all(later[0] >= end for later, end in zip(starts[1:], ends, strict=False))


def test_rows_and_choices_are_uniform(session):
    channel = LockStep()
    silent = Silent(channel, session, Extension(channel, session, 0), "b10")
    transfers = silent.draw(silent.transfers_a_round)
    choices = check(silent, transfers)
    n = transfers.count
    statistic = 4 * (choices.sum() - n / 2) ** 2 / n
    for p in range(1, 128):
        ones = float((transfers.q[:, p // 64] >> np.uint64(p % 64) & np.uint64(1)).sum())
        statistic += 4 * (ones - n / 2) ** 2 / n
    assert chdtrc(128, statistic) > 1e-9


def test_bytes(silent):
    silent.draw(64)
    silent._left = None
    channel = silent._channel
    rounds, sent = channel.rounds, list(channel.sent)
    silent.draw(silent.transfers_a_round)
    t, _, h = SMALL
    assert channel.rounds - rounds == 1
    grown = [a - b for a, b in zip(channel.sent, sent, strict=True)]
    assert grown[silent.sender] == 8 + 16 * t * h and grown[1 - silent.sender] == 0


def test_noise_is_one_in_each_tree(silent, monkeypatch):
    """Before the base is added, and the bit is at a place that the base's choices give."""
    seen = []
    monkeypatch.setattr(Silent, "_add", lambda self, number, leaves, base: seen.append(leaves))
    silent.draw(64)
    t, _, h = SMALL
    sender, receiver = seen
    bits = (receiver[:, 0] & np.uint64(1)).reshape(t, 1 << h)
    assert np.array_equal(bits.sum(axis=1), np.ones(t))
    assert len(set(bits.argmax(axis=1).tolist())) > t // 3
    differ = np.flatnonzero(np.any(sender != receiver, axis=1))
    assert np.array_equal(differ, np.flatnonzero(bits.reshape(-1)))
    assert np.all((sender ^ receiver)[differ] == silent._extension.secret)


def test_pads_are_others_than_the_extensions(silent):
    """Places of a hash's keys never meet, and its keys are those of the place."""
    transfers = silent.draw(640)
    other = silent._extension.draw(640)
    assert transfers.start >= 2**63 > other.start
    choices = check(silent, transfers)
    pads = silent.pads(transfers)
    zero, one = pads.sender[:, 0]
    assert np.array_equal(np.where(choices[:, None], one, zero), pads.receiver[0])
    assert not np.any(np.where(choices[:, None], zero, one) == pads.receiver[0])


def test_each_round_session_and_direction_has_its_own_trees_and_positions(session, monkeypatch):
    hashed, filled = [], []
    digest, fill = silent_module.sha256, silent_module.Stream.fill

    def listen(data):
        hashed.append(data)
        return digest(data)

    def listen_to_places(self, out, id, start=0):
        filled.append((id, start, out.size))
        fill(self, out, id, start)

    monkeypatch.setattr(silent_module, "sha256", listen)
    silents = [
        Silent(LockStep(), some, Extension(LockStep(), some, sender), "small")
        for some, sender in ((session, 0), (session, 1), (bytes(32), 0))
    ]
    for silent in silents:
        silent.draw(silent.transfers_a_round + 64)
    assert {data[:16] for data in hashed} == {b"sotto half tree" + session[:1]} | {
        b"sotto half tree\0", b"sotto silent pos"
    }  # fmt: skip
    trees = [data for data in hashed if data.startswith(b"sotto half tree")]
    # Two rounds of three, with two ends each that use the same.
    assert len(trees) == 12 and len(set(trees)) == 6
    assert len({data for data in hashed if data.startswith(b"sotto silent")}) == 3
    monkeypatch.setattr(silent_module.Stream, "fill", listen_to_places)
    monkeypatch.setattr(silent_module, "_ROWS", 1 << 10)
    before = silents[0]._round
    silents[0]._left = None
    silents[0].draw(silents[0].transfers_a_round + 64)
    places = [entry for entry in filled if entry[2] <= 5 << 10]
    # Every row has words of its own in its round's stream, at both ends.
    t, _, h = SMALL
    for number in (before, before + 1):
        found = sorted({(start, size) for id, start, size in places if id == number})
        assert found[0][0] == 0 and sum(size for _, size in found) == 5 * t << h
        assert all(a + n == b for (a, n), (b, _) in pairwise(found))


def test_a_lost_message_costs_its_base(silent):
    silent.draw(64)
    silent._left = None
    channel = silent._channel
    bases = {party: rows.copy() for party, rows in silent._bases.items()}

    def fail(messages, counts, *, continued=False):
        raise PeerClosedError("bob closed the connection")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(channel, "swap", fail, raising=False)
        with pytest.raises(PeerClosedError):
            silent.draw(64)
    assert silent._bases is None
    silent.resume()
    check(silent, silent.draw(silent.transfers_a_round + 64))
    for party, rows in silent._bases.items():
        assert not np.any(np.all(rows == bases[party], axis=1))


def test_no_party_is_in_a_round_that_has_no_place(silent):
    channel, rounds = silent._channel, silent._round
    told = np.array([1 << 43], np.uint64)
    answers = iter([np.zeros(1, np.uint64), told])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(channel, "swap", lambda *_, **__: [next(answers)] * 2, raising=False)
        with pytest.raises(FrameError, match="position 8796093022208, beyond the last"):
            silent.resume()
    assert silent._round == rounds
    silent.resume()
    check(silent, silent.draw(64))


def test_a_forked_child_draws_nothing(silent, monkeypatch):
    silent.draw(64)
    monkeypatch.setattr(processes, "generation", processes.generation + 1)
    with pytest.raises(ProcessError, match="transfers: made by the process"):
        silent.draw(64)


def test_parties_in_different_rounds_say_so(ends, run_both, session):
    def side(end):
        return Silent(end, session, Extension(end, session, 0), "small")

    one, other = run_both([lambda: side(ends[0]), lambda: side(ends[1])])
    run_both([lambda: one.draw(64), lambda: other.draw(64)])
    one._left = other._left = None
    other._round += 1
    with pytest.raises(FrameError, match="alice is in round 1 of silent transfers, bob in round 2"):
        run_both([lambda: one.draw(64), lambda: other.draw(64)])
    run_both([one.resume, other.resume])
    q, t = run_both([lambda: one.draw(640), lambda: other.draw(640)])
    choices = unpack_bits(t.choices, 640).astype(bool)
    assert np.array_equal(np.where(choices[:, None], q.q ^ one._extension.secret, q.q), t.t)
    # The pads too: their keys are those of the round.
    both, chosen = one.pads(q).sender[:, 0], other.pads(t).receiver[0]
    assert np.array_equal(np.where(choices[:, None], both[1], both[0]), chosen)


def test_protocols_on_them(shared, integers):
    pair = Pair(LockStep(), silent="small")
    z = np.random.default_rng(1).integers(-(2**20), 2**20, 500)
    for _ in range(2):
        result, _ = relu.relu_with_derivative(pair, shared(z), 22)
        assert integers(result) == np.maximum(z, 0).tolist()


def test_apart(sockets, run_both, shared):
    z = np.random.default_rng(2).integers(-(2**20), 2**20, 500)
    shares = shared(z)

    def side(end):
        pair = Pair(end, silent="small")
        row = shares[end.parties[0]][None].copy()
        return relu.relu_with_derivative(pair, row, 22)[0]

    alice, bob = run_both([lambda: side(sockets[0]), lambda: side(sockets[1])])
    assert np.array_equal((alice + bob)[0].view(np.int64), np.maximum(z, 0))


def test_arguments(session, silent):
    with pytest.raises(ArgumentError, match="name must be one of b10, b11"):
        Silent(silent._channel, session, silent._extension, "b14")
    with pytest.raises(ArgumentError, match="count must be a multiple of 64"):
        silent.draw(65)
    assert repr(silent) == f"Silent({('alice', 'bob')[silent.sender]} sends)"
