"""More than three watched parties: the same protocols, messages to more receivers, tags of more pairs."""

import functools
import itertools
import operator
from collections import Counter

import numpy as np
import pytest

from mpc.command.self_test import CHECKS
from mpc.core.errors import AbortError
from mpc.core.frames import Kind
from mpc.core.watching import Checks, deliveries, holders
from mpc.provider.watched import Requests, keys_for
from tests.helpers.watched import Keys, run
from tests.mpc.test_watched_parties import (
    EVERY,
    MODEL,
    OTHERS,
    PROGRAMS,
    SEED,
    TOLERANCES,
    X,
    attack,
    flip,
    inference,
    messages_of,
    same,
)  # fmt: skip

pytestmark = pytest.mark.filterwarnings("ignore::mpc.RangeWarning")

SIZES = (4, 5)


@pytest.fixture(scope="module")
def honest():
    """Each program's honest runs: of four parties or of five, by turns, or of both."""
    found = {}
    for k, (name, program) in enumerate(PROGRAMS.items()):
        for parties in SIZES if EVERY or name in OTHERS else (SIZES[(k + SEED) % 2],):
            found[name, parties] = run(program, parties=parties)
    return found


def test_honest_parties_never_abort_and_are_right(honest):
    expected = {f"{k} {check.name}: {check.what}": check for k, check in enumerate(CHECKS)}
    for (name, parties), outcome in honest.items():
        assert not outcome.errors, (name, parties, outcome.errors)
        if name in expected:
            for found in outcome.results:
                error = np.abs(np.asarray(found, float) - expected[name].expected).max()
                assert error <= expected[name].tolerance, (name, parties)
    for parties in SIZES:
        assert all(same(each, MODEL.predict(X)) for each in honest["inference", parties].results)
        for party, found in enumerate(honest["results", parties].results):
            assert same(found[0], X * (X - 0.5))
            assert same(found[1], X * (X - 0.5) if party == 2 else None)
            assert same(found[2], X.argmax(axis=1) if party == 0 else None)


def test_a_tampered_message_is_caught_before_anything_is_revealed(honest):
    generator = np.random.default_rng(SEED)
    counts = Counter()
    for (name, parties), outcome in honest.items():
        found, right = messages_of(outcome), outcome.results
        if not EVERY:
            count = parties if name in OTHERS else int(generator.integers(3) == 0)
            found = [found[k] for k in generator.integers(len(found), size=count)]
        atol = max(1e-2, 2 * TOLERANCES.get(name, 0))
        for sender, number in found:
            change = flip(generator, bool(generator.integers(2)))
            kind = attack(PROGRAMS[name], sender, number, change, right, atol, parties)
            counts[parties, kind.name] += 1
    print(f"SOTTO_SEED={SEED}: {dict(counts)}, all caught")
    assert {parties for parties, _ in counts} == set(SIZES)


def small(session):
    """Every kind of message: inputs, openings, what is told, to one and to all, and checks."""
    x, y = session.share(X[:1, :2], owner="bob"), session.share(X[:1, 2:4], owner="dave")
    product = x * y
    product.reveal(to="carol")
    session.drop_prepared()
    session.open_to(3, product.shares.copy(), "sum")
    return product.relu().reveal()


def test_every_message_of_a_small_program_is_attacked():
    generator, kinds = np.random.default_rng(SEED), Counter()
    for parties in SIZES:
        outcome = run(small, parties=parties)
        assert all(same(each, X[:1, :2] * X[:1, 2:4]) for each in outcome.results)
        for sender, number in messages_of(outcome):
            change = flip(generator, True)
            kinds[attack(small, sender, number, change, outcome.results, parties=parties)] += 1
    assert set(kinds) == {Kind.OPEN, Kind.REVEAL, Kind.CHECK}
    assert sum(kinds.values()) > 100


def test_messages_go_to_all_but_their_sender_s_watcher():
    for parties in SIZES:
        outcome = run(inference, parties=parties)
        pairs = Counter((f[0], f[1]) for f in outcome.network.frames if f[3] is Kind.OPEN)
        for sender in range(parties):
            counts = {q: pairs[sender, q] for q in range(parties) if q != sender}
            watcher = counts.pop((sender - 1) % parties)
            assert len(set(counts.values())) == 1 and watcher < min(counts.values())
            # An owner's inputs: alice's parameters and bob's rows.
            assert watcher == {0: len(MODEL.parameters), 1: 1}.get(sender, 0)


@pytest.mark.parametrize("parties", [3, 4, 5])
def test_who_lacks_what_is_opened_to_a_party_gets_it(parties):
    for party, private in itertools.product(range(parties), (False, True)):
        ways = deliveries(party, private, parties)
        for holder in (party,) if private else (party, (party - 1) % parties):
            came = {sender for sender, receiver in ways if receiver == holder}
            held = {holder, (holder + 1) % parties}
            # But for the role itself, which adds nothing to what its holders know.
            assert came == set(range(parties)) - held - {party}
        receivers = {receiver for _, receiver in ways}
        assert receivers == ({party} if private else {party, (party - 1) % parties})


# The check alone, with what every process has of the messages of each.


class Parties:
    """The checks of n processes, with keys of their pairs."""

    def __init__(self, parties):
        self.everybody = range(parties)
        pairs = {frozenset(p): bytes(p) * 8 for p in itertools.combinations(self.everybody, 2)}
        self.checks = [
            Checks(me, {q: pairs[frozenset((me, q))] for q in self.everybody if q != me})
            for me in self.everybody
        ]

    def say(self, sender, words, changed=None, known=None):
        """Enter words of a role at all others, or who is known: those that `changed` gives, or the same."""
        for me in self.everybody if known is None else known:
            if me != sender:
                said = (changed or {}).get(me, words)
                self.checks[me].add(sender, "sum", np.array([said], np.uint64), known)

    def check(self):
        """Return what each sends, and who accepts."""
        sent = [each.begin() for each in self.checks]
        accepted = set()
        for me in self.everybody:
            try:
                self.checks[me].finish({q: sent[q][me] for q in self.everybody if q != me})
                accepted.add(me)
            except AbortError:
                pass
        return sent, accepted


@pytest.mark.parametrize("parties", [3, 4, 5])
def test_who_tells_any_of_the_others_something_else_has_all_of_them_stop(parties):
    for cheater in range(parties):
        receivers = [(cheater + k) % parties for k in range(1, parties - 1)]
        for count in range(1, len(receivers) + 1):
            for chosen in itertools.combinations(receivers, count):
                # All the same, or each something of its own.
                for lies in (dict.fromkeys(chosen, 8), {q: 8 + q for q in chosen}):
                    ring = Parties(parties)
                    for sender in ring.everybody:
                        ring.say(sender, 7, lies if sender == cheater else None)
                    assert ring.check()[1] <= {cheater}
                    # Whoever has accepted wrongly would do so later, too.
                    assert ring.check()[1] == set(ring.everybody)


def rank(rows):
    """Return the rank of 0/1 rows over F_2, each an int."""
    basis = []
    for row in rows:
        for each in basis:
            row = min(row, row ^ each)
        if row:
            basis.append(row)
    return len(basis)


@pytest.mark.parametrize("parties", [3, 4, 5])
def test_tags_of_spoiled_views_are_hidden_from_who_has_spoiled_them(parties, monkeypatch):
    """Each mask that the cheater lacks is a bit of its own: no sum of what it hears is free of them."""
    cheater, bits = 1, {}

    def digest(key, content, name):
        known = {bytes(sorted((cheater, q))) * 8 for q in range(parties)}
        word = 0
        if content.startswith(b"mask") and key not in known:
            word = 1 << bits.setdefault((key, content), len(bits))
        return word.to_bytes(16, "little") + bytes(16)

    monkeypatch.setattr("mpc.core.watching.hmac.digest", digest)
    monkeypatch.setattr("mpc.core.watching.derive", lambda key, purpose, length=16: key[:16])
    receivers = [(cheater + k) % parties for k in range(1, parties - 1)]
    # To all, or to one whose message the watcher and the receiver alone have.
    alone = [({q: 8}, {q, cheater - 1}) for q in receivers]
    lied = [*({q: 8} for q in receivers), {q: 8 + q for q in receivers}, {}]
    for lies, known in (*((each, None) for each in lied), *alone):
        bits.clear()
        ring = Parties(parties)
        for sender in ring.everybody:
            ring.say(sender, 7)
        ring.say(cheater, 7, lies, known)
        sent = [each.begin() for each in ring.checks]
        heard = [
            int.from_bytes(sent[q][cheater].astype("<u8").tobytes(), "little")
            for q in ring.everybody
            if q != cheater
        ]
        # If it has not deviated, it can compute their sum itself.
        assert rank(heard) == parties - 1 - (not lies)
        assert lies or not functools.reduce(operator.xor, heard)


def later_messages(keys, spoiler, victim, receiver):
    """Return what `victim` opens to `receiver` after `spoiler` has sent it another Delta, and results."""

    def program(session):
        x, w = session.share([0.5], owner="alice"), session.share([0.25], owner="bob")
        return ((x * w + 0) * w).relu().reveal()

    def spoil(message):
        ends, opens = (message.sender, message.receiver), message.kind is Kind.OPEN
        if ends == (spoiler, victim) and opens and not done:
            done.append(message)
            message.arrays[0][...] += np.uint64(1 << 20)
        if ends == (victim, receiver) and opens:
            sent.append(message.arrays[0].copy())

    done, sent = [], []
    outcome = run(program, spoil, keys=keys, parties=5)
    return sent, [type(each) for each in outcome.results]


def test_two_that_work_together_can_learn_more_and_get_no_wrong_result():
    """The limit that the documentation names, and why it is one party alone that may deviate.

    0 and 2 have the keys of roles 0 to 3. What 3 sends 0 is masked with that of role 3 alone, and after
    0 has spoiled the view of 3 it depends on words of role 4, which both of them lack.
    """
    keys, differences = Keys.fresh(5), set()
    for _ in range(2):
        keys.roles[4] = Keys.fresh(5).roles[4]
        right, _ = later_messages(keys, None, 3, 0)
        wrong, ends = later_messages(keys, 0, 3, 0)
        differences.add(tuple(int((a - b).sum()) for a, b in zip(wrong, right, strict=False)))
        assert ends == [AbortError] * 5
    first, second = differences
    assert first[0] == second[0] and first != second
    # The one process whose message's key a party alone has sends it nothing that follows from its view.
    assert later_messages(keys, 2, 3, 2)[0] == []


# The provider.


def test_each_party_is_given_what_it_lacks_of_its_inputs_and_one_key_more():
    for parties in SIZES:
        keys = Keys.fresh(parties).roles
        for party in range(parties):
            given = keys_for(keys, party)
            assert len(given) == 16 * (parties - 1)
            assert given[:16] == keys[(party + 1) % parties]
            assert not [key for key in keys if key in given[16:]]
        assert holders(parties) == (parties - 2, parties - 1)


def test_a_provider_of_more_parties_deals_what_all_ask_for():
    requests = Requests(5)
    assert not any(requests.add(party, b"one") for party in range(4))
    assert requests.add(4, b"one") == [b"one"]
    assert not any(requests.add(party, b"two") for party in range(1, 5))
    with pytest.raises(AbortError):
        requests.add(0, b"tvo")
