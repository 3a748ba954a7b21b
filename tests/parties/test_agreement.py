"""Which requests parties compute: those that all have got alike, whatever clients send."""

import numpy as np
import pytest

from mpc import WorkerError
from mpc.core.limits import Allowance, Limits
from nn.serving import agreement
from nn.serving.agreement import PER_TURN, Book, Request
from nn.serving.turns import Turns

SHARES, LIMITS = np.zeros((1, 2), np.uint64), Limits()


class Parties:
    """The books of several parties, and what they tell one another and compute."""

    def __init__(self, count=3, patience=60.0):
        self.books = [Book(k, count, patience) for k in range(count)]
        for book in self.books:
            book.open()

    def send(
        self, client, id, *, to=None, rows=1, model="m", version=b"v", limits=LIMITS, trusted=False
    ):
        """Send a request to parties; return what became of it there."""
        sent = []
        for k in range(len(self.books)) if to is None else to:
            request = Request(
                client,
                id.encode().ljust(16),
                model,
                version,
                "class",
                rows,
                SHARES,
                lambda: None,
                model,
                trusted,
            )
            self.books[k].add(request, limits)
            sent.append(request)
        return sent

    def turn(self, most=100, seconds=None, hear=range(9)):
        """Let the others tell their news, and compute; return who was answered, in order.

        Without `seconds` of each kind, a turn has one kind. News of others than `hear` do not arrive.
        """
        leader = self.books[-1]
        for k, book in enumerate(self.books[:-1]):
            if k not in hear:
                continue
            tell(leader, k, book.news())
        chosen, refused = leader.choose(
            lambda model: most, lambda kind: (seconds or {}).get(kind, 9.0)
        )
        answered = []
        for book in self.books:
            book.refuse(refused)
            requests = book.take(chosen)
            for request in requests:
                request.finish(SHARES)
            answered.append([(r.client, r.id.decode().strip(), r.rows) for r in requests])
        assert answered.count(answered[0]) == len(self.books)
        return answered[0]


def tell(leader, k, news):
    has, has_not, turn = news
    leader.heard(k, _cut(has), _cut(has_not))
    if turn:
        leader.passed(k, turn)


def _cut(keys):
    return [keys[k : k + agreement.KEY_BYTES] for k in range(0, len(keys), agreement.KEY_BYTES)]


@pytest.mark.parametrize("count", [2, 3, 5])
def test_what_all_have_is_computed_in_whatever_order_it_comes(count):
    parties = Parties(count)
    for order in (range(count), reversed(range(count))):
        for k in order:
            assert parties.turn() == []
            parties.send("carol", "a", to=[k])
        assert parties.turn() == [("carol", "a", 1)]
    assert parties.turn() == []
    assert all(len(book) == 0 for book in parties.books)


@pytest.mark.parametrize(
    "change", [{"rows": 2}, {"model": "n"}, {"version": b"w"}], ids=["rows", "model", "version"]
)
@pytest.mark.parametrize("odd", [0, 1, 2])
def test_what_parties_got_differently_is_refused_at_once(change, odd):
    parties = Parties()
    sent = parties.send("carol", "a", to=[k for k in range(3) if k != odd])
    sent += parties.send("carol", "a", to=[odd], **change)
    good = parties.send("dora", "a")
    # What comes to the leader beside the other parties' news takes a turn more.
    computed = parties.turn() + parties.turn()
    assert computed == [("dora", "a", 1)]
    assert all(r.done and r.result is None and "alike" in r.problem for r in sent)
    assert all(r.result is not None for r in good)
    # The client may send it again.
    parties.send("carol", "b")
    assert parties.turn() == [("carol", "b", 1)]


@pytest.mark.parametrize("some", [[0], [1], [2], [0, 2], [0, 1]])
def test_what_some_have_waits_beside_and_is_refused_in_the_end(some, monkeypatch):
    parties = Parties(patience=10.0)
    now = [100.0]
    monkeypatch.setattr(agreement.time, "monotonic", lambda: now[0])
    lone = parties.send("carol", "a", to=some)
    for number in range(5):
        parties.send("dora", str(number))
        assert parties.turn() == [("dora", str(number), 1)]
        assert not any(request.done for request in lone)
    now[0] += 11
    assert parties.turn() == []
    assert all(request.done and "alike" in request.problem for request in lone)
    # And where it comes too late.
    late = parties.send("carol", "a", to=[k for k in range(3) if k not in some])
    assert parties.turn() + parties.turn() == []
    assert all(request.done and request.result is None for request in late)
    assert all(len(book) == 0 for book in parties.books)


def test_each_client_has_its_turn_however_many_requests_another_has():
    parties = Parties()
    for number in range(3 * PER_TURN):
        parties.send("mallory", str(number))
    parties.send("carol", "a")
    parties.send("dora", "a", model="n")
    first = parties.turn()
    assert len(first) == PER_TURN
    assert ("carol", "a", 1) in first
    # Of another kind, and next in line.
    assert parties.turn() == [("dora", "a", 1)]


def test_a_client_that_asks_for_every_model_takes_no_more_turns_than_another():
    parties = Parties()
    for number in range(20):
        for model in range(20):
            parties.send("mallory", f"{number} {model}", model=f"m{model}")
    for number in range(3):
        parties.send("carol", str(number), model="c")
        parties.send("dora", str(number), model="m7")
    order = [parties.turn()[0][0] for _ in range(4)]
    # All that carol and dora have of a kind goes at once.
    assert order[:3] == ["mallory", "carol", "dora"]
    assert order[3] == "mallory"


def test_who_goes_along_with_others_keeps_its_place_in_line():
    parties = Parties()
    for number in range(10):
        parties.send("dora", str(number), model="m")
        parties.send("carol", f"m{number}", model="m")
    parties.send("carol", "n", model="n")
    turns = [parties.turn(most=2) for _ in range(4)]
    # Dora's turn, carol's, dora's, and carol's with the other kind that she asks for.
    assert [len(turn) for turn in turns] == [2, 2, 2, 1]
    assert turns[3] == [("carol", "n", 1)]


def test_what_does_not_fit_beside_others_has_a_turn_of_its_own():
    parties = Parties()
    for number in range(3):
        parties.send("carol", str(number), rows=60)
        parties.send("dora", str(number), rows=60)
        parties.send("erin", str(number), rows=10)
    turns = [parties.turn(most=100) for _ in range(6)]
    assert [sorted({client for client, _, _ in turn}) for turn in turns[:2]] == [
        ["carol", "erin"], ["dora"],
    ]  # fmt: skip
    assert sum(len(turn) for turn in turns) == 9
    assert all(sum(rows for _, _, rows in turn) <= 100 for turn in turns)


def test_a_turn_is_no_longer_than_one_evaluation():
    parties = Parties()
    for number in range(6):
        parties.send("carol", str(number), rows=40)
    assert [len(parties.turn(most=100)) for _ in range(4)] == [2, 2, 2, 0]
    parties.send("carol", "large", rows=1000)
    assert parties.turn(most=100) == [("carol", "large", 1000)]


def test_one_client_has_no_more_requests_in_progress_than_it_may():
    parties, limits = Parties(), Limits(requests=5)
    sent = [parties.send("carol", str(k), limits=limits) for k in range(8)]
    for number, requests in enumerate(sent):
        for request in requests:
            assert request.done == (number >= 5)
            if request.done:
                assert request.later and "may have no more" in request.problem
    parties.send("dora", "a", limits=limits)
    assert len(parties.turn()) == 6
    parties.send("carol", "again", limits=limits)
    assert len(parties.turn()) == 1


def used_up(count, an_hour):
    """Return an allowance of which `count` are left."""
    allowance = Allowance()
    allowance.take(an_hour - count)
    return allowance


def test_one_party_alone_that_refuses_has_it_refused_by_all():
    parties, limits = Parties(), Limits(rows_an_hour=10)
    for refusing in range(3):
        for k, book in enumerate(parties.books):
            book._allowances["carol"] = Allowance(), used_up(0 if k == refusing else 10, 10)
        sent = parties.send("carol", f"to {refusing}", limits=limits)
        assert parties.turn() + parties.turn() == []
        assert all(request.done and request.result is None for request in sent)
        assert sent[refusing].status == agreement.LIMIT
        assert "carol may ask for 10 rows an hour: ask again in 3" in sent[refusing].problem
        assert 0 < sent[refusing].wait <= 360
        # Nobody has counted what nobody has computed.
        for k, book in enumerate(parties.books):
            requests, rows = book._allowances["carol"]
            if k != refusing:
                assert requests.wait_for(1, 1) == rows.wait_for(10, 10) == 0
            requests.take(1)
            assert requests.wait_for(1, 1) > 0


def test_requests_are_counted_beside_rows_and_per_client():
    parties, limits = Parties(), Limits(requests_an_hour=2, rows_an_hour=100)
    for number in range(2):
        parties.send("carol", str(number), rows=30, limits=limits)
    assert len(parties.turn()) == 2
    for request in parties.send("carol", "third", limits=limits):
        assert request.status == agreement.LIMIT and "2 requests an hour" in request.problem
        assert 1700 < request.wait <= 1800
    # What would have to wait for both, waits for the later one; what is too large for ever.
    for rows, wait in ((90, 1800), (101, np.inf)):
        for request in parties.send("carol", f"rows {rows}", rows=rows, limits=limits):
            assert request.wait == pytest.approx(wait, abs=60)
    parties.send("dora", "a", limits=limits)
    # The leader tells, with the next, what was refused.
    assert parties.turn() + parties.turn() == [("dora", "a", 1)]


def test_a_thousand_requests_that_are_refused_leave_room_for_an_honest_client():
    parties, limits = Parties(), Limits(requests_an_hour=5)
    refused = 0
    for number in range(1000):
        sent = parties.send("mallory", str(number), limits=limits)
        refused += all(request.status == agreement.LIMIT for request in sent)
        if number % 100 == 0:
            parties.send("carol", str(number))
            assert ("carol", str(number), 1) in parties.turn()
    assert refused == 995
    assert all(len(book) == 0 for book in parties.books)


def test_no_turn_has_what_a_party_has_lost_by_a_refusal_that_waited_long(monkeypatch):
    """A client that has the leader forget a refusal before it is told, and sends the same again."""
    monkeypatch.setattr(agreement, "_KEPT", 4)
    parties = Parties(3)
    leader = parties.books[2]
    parties.send("carol", "a", to=[0])
    leader.heard(0, _cut(parties.books[0].news()[0]), [])
    for k in range(6):
        leader.refuse_id("carol", (b"a" if not k else b"%d" % k).ljust(16))
    # Between the refusal and the turn that tells it, at the others.
    parties.send("carol", "a", to=[1, 2])
    assert parties.turn() == []
    parties.send("carol", "a", to=[0, 2])
    parties.send("dora", "b")
    assert parties.turn() + parties.turn() == [("dora", "b", 1)]
    assert not any(map(len, parties.books))


@pytest.mark.parametrize("kept", [4, 4096])
def test_no_turn_has_what_a_message_in_flight_says_however_many_refusals_pass(monkeypatch, kept):
    """One party's news stay under way while the leader refuses more than it remembers."""
    monkeypatch.setattr(agreement, "_KEPT", kept)
    parties, number = Parties(3), 0
    leader = parties.books[2]
    parties.send("carol", "a", to=[0, 1])
    late = parties.books[1].news()
    tell(leader, 0, parties.books[0].news())
    leader.refuse_id("carol", b"a".ljust(16))
    assert parties.turn(hear=[0]) == [] and not parties.books[1]._waiting
    for _ in range(2 + 2 * kept // PER_TURN):
        for _ in range(PER_TURN):
            number += 1
            leader.refuse_id("mallory", b"%d" % number)
            parties.send("mallory", str(number), to=[0], limits=Limits(requests=10**5))
        parties.turn(hear=[0])
    assert len(leader._in_flight) <= kept >= len(leader._refused)
    parties.send("carol", "a", to=[0, 2])
    tell(leader, 0, parties.books[0].news())
    tell(leader, 1, late)
    # It would be a request that one party has not: the end of the session.
    assert parties.turn(hear=[0]) == []
    # When the messages are there, all is as before.
    for _ in range(4 + 2 * number // PER_TURN):
        parties.turn()
    assert not leader._in_flight and not leader._to_refuse
    parties.send("dora", "b")
    assert parties.turn() == [("dora", "b", 1)]


def test_refusals_leave_room_in_a_turn_for_requests():
    parties = Parties()
    for number in range(3 * PER_TURN):
        parties.send("mallory", str(number), to=[0, 2], limits=Limits(requests=10**4))
        parties.send("mallory", str(number), to=[1], rows=2, limits=Limits(requests=10**4))
    parties.send("carol", "a")
    assert parties.turn() == [("carol", "a", 1)]


def test_what_ends_with_a_session_is_not_counted():
    parties, limits = Parties(), Limits(requests_an_hour=1)
    for name in "abc":
        sent = parties.send("carol", name, limits=limits)
        assert not any(request.done for request in sent)
        for book in parties.books:
            book.close("bob shuts down")
            book.open()
        assert all(request.later for request in sent)
    parties.send("carol", "d", limits=limits)
    assert parties.turn() == [("carol", "d", 1)]
    assert parties.send("carol", "e", limits=limits)[0].status == agreement.LIMIT


def test_what_a_turn_does_not_compute_is_not_counted():
    """As when a model was replaced after the request came: all parties find it in the turn."""
    parties, limits = Parties(), Limits(requests_an_hour=1, rows_an_hour=7)
    for name in "abc":
        sent = parties.send("carol", name, rows=7, limits=limits)
        assert not any(request.done for request in sent)
        for book, request in zip(parties.books, sent, strict=True):
            turns = Turns.__new__(Turns)
            turns._book, turns.sets = book, {"m": b"another"}
            assert turns._usable(book.take([request.key])) == []
        assert all(request.later and "replaced or removed" in request.problem for request in sent)
    assert not parties.send("carol", "d", rows=7, limits=limits)[0].done


def test_a_turn_with_a_request_that_is_not_here_leaves_none_without_an_answer():
    """A leader that deviates can send one. Who waited for the others would wait for ever."""
    parties = Parties()
    sent = parties.send("carol", "a") + parties.send("carol", "b")
    keys = sorted({request.key for request in sent})
    for book in parties.books:
        for turn in ([*keys, bytes(len(keys[0]))], [keys[0], keys[1], keys[0]]):
            with pytest.raises(KeyError):
                book.take(turn)
        assert len(book) == 2
        book.close("the session has ended")
    assert all(request.later for request in sent)


def test_a_request_that_the_others_have_begun_is_not_refused_before_the_leader_takes_it():
    """Its client sends it again to whom has taken it, and that one refuses it."""
    parties = Parties()
    sent = parties.send("carol", "a")
    first, leader = parties.books[0], parties.books[-1]
    for k in range(2):
        tell(leader, k, parties.books[k].news())
    chosen, _ = leader.choose(lambda model: 9, lambda kind: 9.0)
    assert first.take(chosen) == sent[:1]
    again = parties.send("carol", "a", to=[0], limits=Limits(requests=0))
    assert again[0].done
    tell(leader, 0, first.news())
    assert leader.take(chosen) == sent[2:]
    parties.books[1].take(chosen)
    parties.send("dora", "b")
    assert parties.turn() == [("dora", "b", 1)]


def test_workers_that_fail_change_no_refusal_that_was_told():
    first, second = Parties(1).send("carol", "a") + Parties(1).send("dora", "b")
    first.finish(None, "a row is outside", agreement.RANGE)
    turns = Turns.__new__(Turns)
    turns._me = "alice"
    turns._refuse([first, second], WorkerError("workers were lost: 2: secret"))
    assert (first.status, first.problem) == (agreement.RANGE, "a row is outside")
    assert (second.status, second.problem) == (agreement.ERROR, "workers were lost: 2")


def test_parties_that_do_not_say_the_same_of_a_client_refuse_it():
    parties = Parties()
    sent = parties.send("carol", "a", to=[0, 2]) + parties.send("carol", "a", to=[1], trusted=True)
    assert parties.turn() + parties.turn() == []
    assert all(r.done and r.result is None for r in sent)
    assert any(
        "the same in parties.toml of whether its client is trusted" in r.problem for r in sent
    )


def test_rows_come_back_in_an_hour(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("mpc.core.limits.time.monotonic", lambda: now[0])
    allowance = Allowance()
    assert allowance.wait_for(100, 100) == 0
    allowance.take(100)
    assert allowance.wait_for(1, 100) == 36 and allowance.wait_for(101, 100) == np.inf
    now[0] = 1800.0
    assert allowance.wait_for(50, 100) == 0 and allowance.wait_for(51, 100) == pytest.approx(36)
    allowance.take(50)
    wait = allowance.wait_for(7, 100)
    now[0] += wait
    assert allowance.wait_for(7, 100) == 0
    now[0] = 20000.0
    assert allowance.wait_for(101, 100) == np.inf and allowance.wait_for(100, 100) == 0


@pytest.mark.parametrize("late", [0, 2])
def test_what_comes_before_a_party_is_ready_is_refused_by_all_to_be_sent_again(late):
    parties = Parties()
    parties.books[late].close("not ready")
    sent = parties.send("carol", "a")
    assert sent[late].done and sent[late].later
    parties.books[late].open()
    assert parties.turn() + parties.turn() == []
    assert all(request.done and request.later for request in sent)
    parties.send("carol", "b")
    assert parties.turn() == [("carol", "b", 1)]


def test_the_end_of_a_session_answers_all_and_forgets_all():
    parties = Parties()
    sent = parties.send("carol", "a", to=[0, 2]) + parties.send("dora", "b")
    for book in parties.books:
        book.close("bob shuts down")
    assert all(r.later and r.problem == "bob shuts down" for r in sent)
    (refused,) = parties.send("carol", "c", to=[0])
    assert refused.later and refused.problem == "bob shuts down"
    for book in parties.books:
        book.open()
    assert parties.turn() == []
    parties.send("carol", "a")
    assert parties.turn() == [("carol", "a", 1)]


def test_nothing_is_kept_of_what_is_done(monkeypatch):
    monkeypatch.setattr(agreement, "_KEPT", 50)
    parties = Parties()
    for number in range(300):
        parties.send("carol", str(number), to=[0, 1, 2] if number % 3 else [number % 2])
        parties.send("dora", str(number), to=[0, 2])
        parties.send("dora", str(number), to=[1], rows=2)
        parties.turn()
    leader = parties.books[-1]
    assert len(leader._refused) <= 50
    assert len(leader._had) == len(leader._since) == len(leader._tags) == 100
    assert not leader._ready


def test_requests_that_differ_have_keys_that_differ():
    """Also where the same characters are in other fields."""

    def key(*fields):
        return Request(*fields, SHARES, lambda: None, None).key

    id = b"i" * 16
    keys = [
        key("dora", id, "model", b"v1", "class", 1),
        key("dora", id, "model", b"v1", "class", 11),
        key("dora", id, "model", b"v", "1class", 1),
        key("dora", id, "modelv", b"1", "class", 1),
        key("doram", id, "odel", b"v1", "class", 1),
        key("dora", b"j" + id[1:], "model", b"v1", "class", 1),
    ]
    assert len(set(keys)) == len(keys)
    # The tag tells client and id alone.
    assert len({k[:8] for k in keys}) == 3


def test_models_that_are_computed_soon_share_a_turn():
    parties = Parties()
    soon = dict.fromkeys("klmn", 0.05)
    for client in ("carol", "dora"):
        for model in "klmn":
            parties.send(client, model, model=model)
    parties.send("erin", "slow", model="slow")
    # The requests of a kind follow one another; a kind that takes long is not passed over.
    turns = [[id for _, id, _ in parties.turn(seconds=soon)] for _ in range(4)]
    assert turns == [["k", "k", "l", "l"], ["slow"], ["m", "m", "n", "n"], []]


def test_a_turn_of_several_models_ends_in_time():
    """What was never computed, or takes long, has a turn of its own; others wait no longer."""
    parties = Parties()
    models = [f"m{k}" for k in range(12)]

    def turn_of(seconds):
        for model in models:
            parties.send("carol", model, model=model)
        counts = []
        while turn := parties.turn(seconds=seconds):
            counts.append(len(turn))
        assert sum(counts) == len(models)
        return counts

    assert turn_of({}) == [1] * 12
    assert turn_of(dict.fromkeys(models, 1.0)) == [1] * 12
    assert turn_of(dict.fromkeys(models, agreement._SECONDS_OF_A_TURN / 4)) == [4, 4, 4]
    assert turn_of(dict.fromkeys(models, 0.0)) == [12]


def test_a_turn_of_several_models_is_no_longer_than_one_of_one():
    parties = Parties()
    soon = {f"m{k}": 0.0 for k in range(5)}
    for number in range(20):
        for model in soon:
            parties.send("carol", f"{number} {model}", model=model)
    counts = []
    while turn := parties.turn(seconds=soon, most=30):
        counts.append(len(turn))
    assert max(counts) <= PER_TURN and sum(counts) == 100
    # A kind that is full is not begun again in the same turn.
    parties.send("dora", "a", model="m0", rows=30)
    parties.send("dora", "b", model="m0", rows=30)
    assert [len(parties.turn(seconds=soon, most=30)) for _ in range(2)] == [1, 1]


def test_another_party_cannot_fill_the_memory_of_the_leader(monkeypatch):
    monkeypatch.setattr(agreement, "_HEARD", 100)
    parties = Parties()
    leader, drawn = parties.books[-1], np.random.default_rng(0)
    forged = [drawn.bytes(agreement.KEY_BYTES) for _ in range(500)]
    (first,) = parties.send("dora", "before", to=[2])
    leader.heard(0, forged, [])
    assert len(leader._had) == len(leader._since) == len(leader._tags) == 101
    with leader.changed:
        for key in forged[:99]:
            leader._drop(key, "too late")
    leader.heard(0, forged[:10] * 500, [])
    assert len(leader._had) + len(leader._to_refuse) <= 101
    # What the leader has itself it still hears.
    parties.send("dora", "before", to=[0, 1])
    assert parties.turn() == [("dora", "before", 1)] and first.done


def test_another_party_cannot_keep_the_leader_from_hearing_a_third_one(monkeypatch):
    monkeypatch.setattr(agreement, "_HEARD", 100)
    parties = Parties()
    leader, drawn = parties.books[-1], np.random.default_rng(0)
    leader.heard(0, [drawn.bytes(agreement.KEY_BYTES) for _ in range(500)], [])
    alone = parties.send("dora", "not all", to=[1, 2])
    parties.send("dora", "all", to=[1])
    assert parties.turn(hear=[1]) == []
    parties.send("dora", "all", to=[0, 2])
    assert parties.turn() == [("dora", "all", 1)]
    # What the first party has not got is refused everywhere in time.
    leader._patience = -1.0
    for _ in range(8):
        parties.turn(hear=[1])
    assert all(request.done for request in alone) and not any(len(book) for book in parties.books)
    assert not leader._to_refuse and not any(leader._entries.values())
