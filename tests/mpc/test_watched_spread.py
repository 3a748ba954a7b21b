"""What three, four and five watched parties tell each other of their workers: every message is attacked.

The workers themselves are processes, see tests/parties/test_watched_workers.py. Here a part is computed
at once.
"""

from types import SimpleNamespace

import numpy as np
import pytest

import mpc
from mpc.core.errors import ABORTED, AbortError, ArgumentError, FrameError, PeerTimeoutError
from mpc.workers import pool
from mpc.workers.spread import joint_state, spread
from tests.helpers.watched import MORE, LostError, run
from tests.mpc.test_watched_parties import EVERY, Tampering, X, flip, messages_of

SIZES = (3, 4, 5)


def doubled(session, x):
    return x + x


class Worker:
    address = ("127.0.0.1", 9)


class Pool:
    """Two workers of a party, which double their rows."""

    ends = pool.DONE
    given = ()
    problem = "a lie"
    wanted = 2

    def __init__(self, session, *_):
        self.session = session
        Pool.given = [*Pool.given, session.me]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def start(self):
        Pool.given = [name for name in Pool.given if name != self.session.me]

    wait_anew = wait_for_workers = wait_for_parts = start_again = lambda *_: None

    def status(self, first):
        return pool.HERE, 2

    def take(self, count):
        return [Worker()] * count

    def give(self, worker, part):
        Pool.given = [*Pool.given, self.session.me]
        part.result, part.state = 2 * part.words[0], self.ends


def program(session):
    x = (session.share(X, owner="alice") * session.share(X, owner="bob")).truncate()
    return spread(session, doubled, x, n_jobs=2).reveal()


@pytest.fixture
def pools(monkeypatch):
    read = SimpleNamespace(timeouts=SimpleNamespace(answer=1.0, connect=1.0))
    monkeypatch.setattr("mpc.workers.spread.WorkerPool", Pool)
    begin = mpc.Session._begin
    monkeypatch.setattr(
        mpc.Session, "_begin", lambda self, setup, _=None, *rest: begin(self, setup, read, *rest)
    )
    return Pool


@pytest.mark.parametrize("parties", SIZES)
def test_honest_parties_are_right_and_pay_what_is_planned(pools, parties):
    outcome = run(program, parties=parties)
    for found in outcome.results:
        np.testing.assert_allclose(found, 2 * X * X, atol=1e-3)
    with mpc.Session(MORE[:parties], security="malicious") as session:
        planned = session.plan(program).cost
    for session in outcome.sessions:
        spent = session.cost()
        assert spent.by_protocol["check"].rounds == planned.by_protocol["check"].rounds == 3
        assert spent.total.rounds == planned.total.rounds


@pytest.mark.parametrize("parties", SIZES)
def test_every_tampered_message_ends_the_session_before_a_result_is_used(pools, parties):
    """Each honest party stops, and where the words are no public ones, with the text of a failed check.

    Of more than three parties a share of the messages is changed, with SOTTO_TAMPERINGS=1 all.
    """
    honest = run(program, parties=parties)
    aborts = 0
    messages = messages_of(honest)[:: 1 if EVERY else {3: 1, 4: 3, 5: 7}[parties]]
    for count, (sender, number) in enumerate(messages):
        change = Tampering(sender, number, flip(np.random.default_rng(count), True))
        outcome = run(program, change, parties=parties)
        assert change.done == 1
        given = set(Pool.given)
        for party in set(range(parties)) - {sender}:
            found = outcome.results[party]
            if not isinstance(found, Exception):  # who was told the truth in the last check
                assert change.kind.name == "CHECK" and party != change.receiver
                continue
            aborts += isinstance(found, AbortError)
            if change.public:
                public = (AbortError, FrameError, LostError, ArgumentError)
                assert isinstance(found, public), (sender, number, found)
                continue
            assert isinstance(found, AbortError) and str(found) == ABORTED
            if change.begun == 0 and change.kind.name != "CHECK":
                assert MORE[party] not in given, "shares that were not checked went to a worker"
    assert aborts > 60


@pytest.mark.parametrize(("parties", "party"), [(3, 0), (3, 1), (3, 2), (5, 1)])
def test_one_party_whose_worker_has_failed_a_check_ends_the_session_of_all(pools, parties, party):
    class Failing(Pool):
        def give(self, worker, part):
            super().give(worker, part)
            if self.session.me == MORE[party]:
                part.state = pool.ABORTED

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mpc.workers.spread.WorkerPool", Failing)
        outcome = run(program, parties=parties)
    assert all(isinstance(found, AbortError) for found in outcome.results)


@pytest.mark.parametrize(("parties", "receiver"), [(3, 0), (3, 1), (4, 1), (5, 3)])
def test_who_says_of_parts_that_they_are_done_here_and_lost_there_is_caught(
    pools, parties, receiver
):
    def lie(message):
        words, last = message.arrays[0], message.sender == parties - 1
        if message.public and last and words.tolist() == [pool.DONE] * 2:
            words[:] = pool.LOSS if message.receiver == receiver else pool.DONE

    outcome = run(program, lie, parties=parties)
    assert all(isinstance(found, AbortError) for found in outcome.results[:-1])


@pytest.mark.parametrize("other", [pool.DONE, pool.LOSS, pool.FAILURE, pool.RUNNING])
def test_a_check_that_failed_at_one_has_failed_for_all(other):
    assert joint_state([other, pool.ABORTED, other]) == pool.ABORTED


# What a party may say of its workers to the others, to both of them alike.
LIES = {
    "state": ((77, 2), None, FrameError, "sent a state of its workers that is none: 77"),
    "no worker": ((pool.HERE, 0), None, FrameError, "sent a state of its workers that is none"),
    "waits": ((pool.WAITING, 0), None, PeerTimeoutError, "had no workers within 0.2 s"),
    "part": (None, 99, FrameError, r"sent states of parts that are none: \[99, 99\]"),
    "computes": (None, pool.RUNNING, PeerTimeoutError, "had not ended at {} 0.2 s after"),
}


@pytest.mark.parametrize("cheater", [0, 2])
@pytest.mark.parametrize("lie", LIES)
def test_what_a_party_says_of_its_workers_cannot_keep_the_others_for_ever(
    pools, monkeypatch, lie, cheater
):
    state, part_state, kind, text = LIES[lie]
    me = MORE[cheater]

    class Lying(Pool):
        def status(self, first):
            return state if state and self.session.me == me else super().status(first)

        def give(self, worker, part):
            super().give(worker, part)
            if part_state is not None and self.session.me == me:
                part.state = part_state

    monkeypatch.setattr("mpc.workers.spread.WorkerPool", Lying)
    monkeypatch.setattr("mpc.workers.pool.most_seconds", lambda connect: 0.2)
    monkeypatch.setattr("mpc.workers.spread._MOST_BEHIND", 0.2)
    # Where it lasted for ever it ends by this, with another error.
    outcome = run(program, Patience(60_000))
    first = [found for found in outcome.results if not isinstance(found, LostError)]
    assert first and all(isinstance(found, kind) for found in first), outcome.results
    for found in outcome.results:
        assert me in str(found)
        with pytest.raises(type(found), match=text.format(me)):
            raise found


class Patience:
    """Stops a run after so many messages."""

    def __init__(self, most):
        self.left = most

    def __call__(self, message):
        self.left -= 1
        assert self.left > 0, "for ever"
