"""Base transfers: who gets which key, and what the messages tell."""

import os

import numpy as np
import pytest
from scipy.special import chdtrc

from mpc.core.errors import ArgumentError, FrameError
from mpc.two_party import base_ot, curve
from mpc.two_party.channel import LockStep

SESSION = bytes(range(32))


class Recorder(LockStep):
    """Keeps what each party has sent, and may put something else in its place."""

    def __init__(self, replace=None):
        super().__init__()
        self.heard, self.replace = [], replace or (lambda party, words: words)

    def swap(self, messages, counts, *, continued=False):
        self.heard.append([m.copy() for m in messages])
        return super().swap(
            [self.replace(p, m) for p, m in enumerate(messages)], counts, continued=continued
        )


def random_choices(count):
    return [octet & 1 for octet in os.urandom(count)]


@pytest.mark.parametrize("sender", [0, 1])
@pytest.mark.parametrize("count", [0, 1, 20])
def test_the_receiver_gets_the_key_it_has_chosen(lock_step, sender, count):
    choices = random_choices(count)
    pairs, keys = base_ot.transfer(lock_step, SESSION, sender, count, choices)
    assert [pair[b] for pair, b in zip(pairs, choices, strict=True)] == keys
    everything = {key for pair in pairs for key in pair}
    assert len(everything) == 2 * count and all(len(key) == 16 for key in everything)
    assert lock_step.rounds == 1
    assert lock_step.sent[sender] == 64 and lock_step.sent[1 - sender] == 128 * count


def test_two_parties_apart(ends, run_both):
    choices = random_choices(8)
    alice, bob = ends
    (pairs, nothing), (none, keys) = run_both(
        [
            lambda: base_ot.transfer(alice, base_ot.agree(alice), 0, 8, None),
            lambda: base_ot.transfer(bob, base_ot.agree(bob), 0, 8, choices),
        ]
    )
    assert nothing is None and none is None
    assert [pair[b] for pair, b in zip(pairs, choices, strict=True)] == keys


def test_another_session_or_direction_gives_other_keys_for_the_same_messages():
    key = base_ot._Sender(SESSION, 0)
    receiver = base_ot._Receiver(SESSION, 0, [0, 1])
    pairs = key.keys(receiver.message)
    chosen = receiver.keys(key.message)
    assert [pairs[0][0], pairs[1][1]] == chosen
    for session, sender in ((bytes(32), 0), (SESSION, 1)):
        key._session, key._sender = session, sender
        other = key.keys(receiver.message)
        assert not {k for pair in pairs for k in pair} & {k for pair in other for k in pair}
        receiver._session, receiver._sender = session, sender
        assert not set(receiver.keys(key.message)) & set(chosen)


def test_hashes_take_in_all_that_they_should():
    """Session, direction, number, place and content: each change changes both hashes."""
    plain = {"session": SESSION, "sender": 0, "i": 1, "b": 0}
    changed = [{"session": bytes(32)}, {"sender": 1}, {"i": 2}, {"i": 1 << 31}, {"b": 1}]
    variants = [plain, *({**plain, **change} for change in changed)]
    points = [base_ot._hash(**v, point=p) for v in variants for p in (bytes(64), b"p" * 64)]
    assert len(set(points)) == len(points)
    keys = [
        base_ot._key(**v, sent=sent, secret=secret)
        for v in variants
        for sent in (bytes(192), b"s" * 192)
        for secret in (bytes(32), b"s" * 32)
    ]
    assert len(set(keys)) == len(keys)


def test_numbers_of_transfers_count():
    """The same message twice gives different keys."""
    sender = base_ot._Sender(SESSION, 0)
    message = base_ot._Receiver(SESSION, 0, [0]).message
    (first, second) = sender.keys(2 * message)
    assert not set(first) & set(second)


def test_agree_takes_in_both_parties(ends, run_both):
    alice, bob = ends
    ids = [run_both([lambda: base_ot.agree(alice), lambda: base_ot.agree(bob)]) for _ in range(3)]
    assert all(first == second and len(first) == 32 for first, second in ids)
    assert len({first for first, _ in ids}) == 3


@pytest.mark.parametrize("party", [0, 1])
def test_what_is_changed_on_its_way_is_noticed_by_both(ends, run_both, party):
    swap, found = ends[party].swap, []

    def changed(messages, counts, **options):
        (got,) = swap(messages, counts, **options)
        ends[party].swap = swap
        return [got ^ np.uint64(1)]

    ends[party].swap = changed

    def agree(end):
        with pytest.raises(FrameError, match="another id of the session than"):
            base_ot.agree(end)
        found.append(end)

    run_both([lambda: agree(ends[0]), lambda: agree(ends[1])])
    assert len(found) == 2


@pytest.mark.parametrize("changed", [0, 1])
def test_what_either_party_adds_changes_the_id(monkeypatch, changed):
    added = [[bytes(32), bytes(32)], [bytes(32), bytes(32)]]
    added[1][changed] = b"x" * 32
    given = iter([octets for pair in added for octets in pair])
    monkeypatch.setattr(base_ot.os, "urandom", lambda n: next(given))
    assert base_ot.agree(LockStep()) != base_ot.agree(LockStep())


def bits_of_points(messages, choices):
    """Lowest bits of x and y of r_b and of r_(1 - b), as counts of the four combinations."""
    counts = np.zeros((2, 4), np.int64)
    for message, choice in zip(messages, choices, strict=True):
        for which in (0, 1):
            point = message[64 * which : 64 * which + 64]
            x, y = point[31] & 1, point[63] & 1
            counts[int(which != choice), 2 * x + y] += 1
    return counts


def chances(counts):
    expected = counts.sum(axis=1, keepdims=True) / 4
    of_uniform = chdtrc(3, ((counts - expected) ** 2 / expected).sum(axis=1))
    total = counts.sum(axis=0)
    of_same = chdtrc(3, ((counts[0] - counts[1]) ** 2 / total).sum())
    return min(*of_uniform, of_same)


def test_parities_of_both_points_are_distributed_alike():
    """The sender would know the choice from a sign that follows from x."""
    choices = random_choices(2000)
    sent = base_ot._Receiver(SESSION, 0, choices)._sent
    assert chances(bits_of_points(sent, choices)) > 1e-9


def test_the_examination_finds_a_sign_that_follows_from_x():
    """The control: the random point's sign as its x's parity."""
    choices = random_choices(200)
    sent = []
    for message, b in zip(base_ot._Receiver(SESSION, 0, choices)._sent, choices, strict=True):
        points = [message[:64], message[64:]]
        x, y = curve.decode(points[1 - b])
        points[1 - b] = curve.encode((x, y if (x ^ y) & 1 == 0 else curve.P - y))
        sent.append(b"".join(points))
    assert chances(bits_of_points(sent, choices)) < 1e-9


def test_the_other_key_is_not_what_the_receiver_can_compute():
    sender, receiver = base_ot._Sender(SESSION, 0), base_ot._Receiver(SESSION, 0, [1, 0])
    pairs = sender.keys(receiver.message)
    receiver._choices = [0, 1]
    wrong = receiver.keys(sender.message)
    assert all(key not in pair for key, pair in zip(wrong, pairs, strict=True))


@pytest.mark.parametrize("guilty", [0, 1])
def test_points_off_the_curve_are_refused(guilty):
    def spoil(party, words):
        if party == guilty:
            words = words.copy()
            words[4] ^= np.uint64(1)
        return words

    name = ("alice", "bob")[guilty]
    with pytest.raises(FrameError, match=f"{name} has sent a wrong key for oblivious transfers"):
        base_ot.transfer(Recorder(spoil), SESSION, 0, 2, [0, 1])


def test_a_point_opposite_to_its_hash_is_refused():
    """M_b would be the point at infinity."""
    other = curve.hash_to_point(b"", b"any")
    hashed = base_ot._hash(SESSION, 0, 0, 0, curve.encode(other))
    message = curve.encode(curve.negative(hashed)) + curve.encode(other)

    def spoil(party, words):
        return np.frombuffer(message, np.uint64) if party == 1 else words

    with pytest.raises(FrameError, match="bob has sent a wrong key"):
        base_ot.transfer(Recorder(spoil), SESSION, 0, 1, [0])


@pytest.mark.parametrize("choices", [None, [0], [0, 1, 1]])
def test_choices_must_be_as_many(lock_step, choices):
    with pytest.raises(ArgumentError, match="the receiver of 2 transfers must have as many"):
        base_ot.transfer(lock_step, SESSION, 0, 2, choices)


def test_the_id_has_its_length(lock_step):
    with pytest.raises(ArgumentError, match="session must have 32 bytes, got 5"):
        base_ot.transfer(lock_step, b"short", 0, 1, [0])
