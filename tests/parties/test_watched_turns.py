"""Turns of services of watched parties, where one deviates, alone or with a client."""

import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mpc.core import wire
from mpc.core.errors import AbortError, FrameError, PeerError
from mpc.core.frames import Kind
from mpc.core.limits import Limits
from nn.serving import parcels
from nn.serving.client import Client, _Refusal
from nn.serving.client_calls import Calls
from nn.serving.parcels import Contents, answer_masks, pack
from nn.serving.turns import Turns
from ring.errors import ShapeError
from tests.helpers import watched_serving
from tests.helpers.watched import NAMES, LostError, run
from tests.helpers.watched_serving import ASKED, MODEL, ROWS, Asked, turns_of

SIZES = (3, 4, 5)
# Two requests; and two of one client with one id, as nobody should send them.
PAIR = [Asked("d", ROWS[:1], "class"), Asked("e", ROWS[1:2], "class")]
SAME_ID = [Asked("f", ROWS[:1], "class"), Asked("f", ROWS[1:2], "class")]


def taking(asked, prepare=None, turns_taken=1):
    """Return a program that takes turns with the requests that `asked(party)` gives each party."""

    def program(session):
        folder = vars(session.transport.network).setdefault("folder", tempfile.TemporaryDirectory())
        turns, book = turns_of(session, Path(folder.name))
        party, parties = session.here[0], session.size
        book.open()
        sets, kinds = turns.sets["m"], turns.kinds["m"]
        requests = [each.at(party, sets, kinds, parties) for each in asked(party)]
        for request in requests:
            book.add(request, Limits())
        for other in range(parties - 1):
            book.heard(other, [request.key for request in requests], [])
        if prepare is not None:
            prepare(party, turns, requests)
        for _ in range(turns_taken):
            turns._turn()
        return [request.result for request in requests]

    return program


def stopped(outcome, party, kinds=AbortError):
    return isinstance(outcome.results[party], kinds)


def leads(turns):
    return turns.session.here[0] == turns.session.size - 1


def telling(keys_for):
    """At the leader: tell each of the others a turn with one request, of a key of its own."""

    def prepare(party, turns, requests):
        if not leads(turns):
            return
        transport = turns.session.transport
        deliver, keys = transport._exchange, keys_for(turns, requests)

        def different(kind, sent, wanted):
            if kind is Kind.OPEN and sorted(sent) == list(range(party)) and len(sent[0][0]) > 10:
                plans = {q: np.array(sent[q][0]) for q in sent}
                for q, plan in plans.items():
                    plan[1], plan[2:5] = 1, np.frombuffer(keys[q], np.uint64)
                sent = {q: [plan] for q, plan in plans.items()}
            return deliver(kind, sent, wanted)

        transport._exchange = different

    return prepare


@pytest.mark.parametrize("parties", SIZES)
def test_a_leader_that_tells_the_others_different_turns_is_found_before_they_begin(parties):
    def keys(_, asked):
        return [asked[0].key, *[asked[1].key] * (parties - 2)]

    outcome = run(taking(lambda _: PAIR, telling(keys)), parties=parties)
    assert all(stopped(outcome, party) for party in range(parties - 1))


@pytest.mark.parametrize("parties", SIZES)
def test_a_client_and_the_leader_together_cannot_have_different_rows_computed(parties):
    def keys(turns, requests):
        other = SAME_ID[0].at(parties - 1, turns.sets["m"], turns.kinds["m"], parties)
        return [other.key, *[requests[0].key] * (parties - 2)]

    program = taking(lambda party: SAME_ID[:1] if party == 0 else SAME_ID[1:], telling(keys))
    outcome = run(program, parties=parties)
    assert all(stopped(outcome, party) for party in range(parties - 1))


def test_a_request_that_was_answered_is_computed_no_more():
    def prepare(party, turns, requests):
        if not leads(turns):
            return

        def again(plan):
            plan[1], plan[2:5] = 1, np.frombuffer(requests[0].key, np.uint64)

        turns._plan = again

    outcome = run(taking(lambda _: PAIR[:1], prepare, 2))
    assert all(stopped(outcome, party, (FrameError, LostError)) for party in range(3))


@pytest.mark.parametrize(("parties", "cheater"), [(3, 0), (3, 1), (3, 2), (4, 2), (5, 4)])
@pytest.mark.parametrize("row", [0, 1])
def test_other_rows_and_other_masks_than_a_client_has_sent_are_found(parties, cheater, row):
    def other_rows(party, turns, requests):
        if party == cheater:
            requests[0].shares[row, 1, 2] ^= np.uint64(1 << 63)

    def other_mask(party, turns, requests):
        if party == cheater:
            keys = list(requests[0].contents.keys)
            keys[row] = bytes(16)
            requests[0].contents.keys = tuple(keys)

    for prepare in (other_rows, other_mask):
        outcome = run(taking(lambda _: ASKED[:1], prepare), parties=parties)
        assert all(stopped(outcome, party) for party in range(parties) if party != cheater)


@pytest.mark.parametrize("parties", SIZES)
def test_nothing_is_opened_of_a_request_that_was_refused(parties):
    """A party that works with its client knows the mask, and could read an answer under it."""
    told = {}

    def prepare(party, turns, requests):
        answers = turns._answers
        turns._answers = lambda *args: told.setdefault(party, answers(*args))

    refused = ASKED[1]
    outcome = run(taking(lambda _: [ASKED[0], refused], prepare), parties=parties)
    assert not outcome.errors and all(found[1] is None for found in outcome.results)
    masks = answer_masks(refused.packed(parties)[1], (1,)).sum(axis=0, dtype=np.uint64)
    for words in told.values():
        assert len(words) == 3
        np.testing.assert_array_equal(words[2:], masks)
        answer = ASKED[0].read([words[:2]], parties)
        np.testing.assert_array_equal(answer, MODEL.predict(ROWS[:2]))


def test_the_id_of_a_new_set_is_seen_after_all_else_of_its_model(monkeypatch):
    """Else a client that has pinned the model before could be answered by the new one."""
    seen = []

    class Seen(Turns):
        def __setattr__(self, name, value):
            if name == "sets" and value:
                assert set(self.models) == set(self.kinds) == set(value)
                assert all(self.digests[each][:24] == value[each][8:] for each in value)
                seen.append(value)
            super().__setattr__(name, value)

    monkeypatch.setattr(watched_serving, "Turns", Seen)
    assert not run(taking(lambda _: [], turns_taken=0)).errors
    assert len(seen) == 3


class Door:
    """What answers a client at alice, who has one model; `read_` is what it was asked for, in order."""

    def __init__(self, models, full=""):
        limits = SimpleNamespace()
        self.me, self.largest_rows, self.state, self.sets = "alice", 8, "alice waits", {"m": b""}
        self.digests, self.kinds, self._models, self.read_ = {}, {}, models, []
        self.book = SimpleNamespace(
            refuse_id=lambda client, id: self.read_.append("refuse"), full=lambda *_: full
        )
        self.read = SimpleNamespace(
            names=NAMES, security="malicious", clients={"d": SimpleNamespace(models=None)},
            timeouts=SimpleNamespace(answer=1.0), limits_of=lambda client: limits,
        )  # fmt: skip
        self.files = SimpleNamespace(names=())

    def __getattribute__(self, name):
        if name in ("sets", "models_of", "digests", "kinds"):
            self.read_.append(name)
        return super().__getattribute__(name)

    def models_of(self, client):
        return self._models

    def predict(self, pinned=b""):
        """Return the answer to a call."""
        said = ASKED[0].packed()[0][0].said
        return self.told(
            lambda line: Calls(self).predict(line, bytes(16), "m", pinned, "class", 2, *said)
        )

    def told(self, call):
        """Return what a conversation says first."""
        told = []
        line = SimpleNamespace(peer="d", post_bytes=lambda kind, data: told.append(data))
        list(call(line))
        return wire.decode(told[0])


def test_a_request_reads_the_id_of_the_set_before_all_else_of_the_model():
    door = Door({})
    assert door.predict()[0] == "later"
    assert door.read_[:2] == ["sets", "models_of"]


def test_a_session_that_ends_meanwhile_is_no_other_model():
    """Its digests are gone a moment after its models were looked at: no party has deviated."""
    door = Door({"m": SimpleNamespace(scores=False)})
    for pinned in (b"", bytes(32)):
        assert door.predict(pinned) == ("later", "alice waits")
        assert door.read_[-1] == "refuse"
    assert door.told(lambda line: Calls(door).describe(line, "m")) == ("later", "alice waits")
    door.digests = {"m": bytes(32)}
    assert door.predict(b"1" * 32)[0] == "digest"


def test_rows_of_a_client_that_has_enough_in_progress_are_not_expanded(monkeypatch):
    """A call of some bytes may stand for many rows, and the loop of all clients would expand them."""
    monkeypatch.setattr(parcels, "_expand", None)
    door = Door({"m": SimpleNamespace(scores=False)}, "d has enough")
    door.digests = {"m": bytes(32)}
    assert door.predict() == ("later", "d has enough")
    assert door.read_[-1] == "refuse"
    (keys, committed), shape = ASKED[0].packed()[0][0].said, ASKED[0].rows.shape
    contents = Contents((keys[:16] + bytes(16), committed), 0, 3, watched=True)
    assert contents.shares(shape, None) is None


@pytest.mark.parametrize(
    "lie", [(1, 2), ("models",), (("models", np.arange(2)),), ((np.arange(2), 1),)]
)
def test_a_party_that_answers_no_pairs_or_arrays_is_named(lie):
    """What parties say is compared, and arrays would raise a ValueError there."""
    told = [("ok", ("models", ("m",))), ("ok", *lie), ("ok", ("models", ("m",)))]
    client = Client.__new__(Client)
    client._connections = [SimpleNamespace(peer=name) for name in NAMES]
    client._tried = lambda ask: ask()
    client._ask = lambda call: [
        client._answer(line, wire.encode(each))
        for line, each in zip(client._connections, told, strict=True)
    ]
    client._closed, client._generation = True, -1
    with pytest.raises(PeerError, match="bob sent an answer that is malformed"):
        client.health()


def test_a_refusal_may_be_anything():
    for told in (np.arange(2), (np.arange(2), "x"), ("later", (np.arange(2),)), 7, ()):
        refusal = _Refusal.read("bob", wire.encode(told))
        assert isinstance(refusal.error(), PeerError)
        assert str(refusal.error()) == "bob: an answer that is malformed"


@pytest.mark.parametrize("parties", SIZES)
def test_what_parties_tell_a_client_is_under_a_mask_of_which_each_lacks_a_part(parties):
    asked = ASKED[0]
    outcome = run(taking(lambda _: [asked]), parties=parties)
    answers = [found[0] for found in outcome.results]
    assert all(np.array_equal(each, answers[0]) for each in answers)
    np.testing.assert_array_equal(asked.read(answers, parties), MODEL.predict(ROWS[:2]))
    for party in range(parties):
        said = asked.packed(parties)[0][party].said
        known = Contents(said, party, parties, watched=True).keys
        assert len(known) == 2
        rest = answers[0] - answer_masks(known, answers[0].shape).sum(axis=0, dtype=np.uint64)
        assert not np.any(rest == MODEL.predict(ROWS[:2]).astype(np.uint64))


@pytest.mark.parametrize("parties", SIZES)
def test_commitments_bind_what_each_role_gets(parties):
    rows, total = np.arange(6, dtype=np.uint64).reshape(2, 3), np.zeros((2, 3), np.uint64)
    parcels, _ = pack(rows, parties, watched=True)
    for party, parcel in enumerate(parcels):
        contents = Contents(parcel.said, party, parties, watched=True)
        assert contents.brings_share == (party > parties - 3)
        held = contents.shares(rows.shape, parcel.share)
        assert held.shape == (2, *rows.shape)
        total += held[0]
        if parcel.share is not None:
            assert contents.shares(rows.shape, parcel.share ^ np.uint64(1)) is None
        keys, committed = parcel.said
        for place in range(len(keys)):
            changed = bytes(b ^ (k == place) for k, b in enumerate(keys))
            other = Contents((changed, committed), party, parties, watched=True)
            assert other.shares(rows.shape, parcel.share) is None
        for said in ((keys,), (keys[1:], committed), (keys, committed[1:]), (keys, None), ()):
            with pytest.raises(ShapeError, match="commitments of all"):
                Contents(said, party, parties, watched=True)
    np.testing.assert_array_equal(total, rows)
