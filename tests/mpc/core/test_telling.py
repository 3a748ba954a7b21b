"""Telling everybody public words: one way for all who do."""

import numpy as np
import pytest

import mpc
from mpc.core.errors import PeerClosedError


def words(party, shape=(3,)):
    return np.arange(np.prod(shape), dtype=np.uint64).reshape(shape) + np.uint64(100 * party)


def test_everybody_hears_everybody(fresh_session):
    s = fresh_session
    told = s.tell([words(party) for party in s.here])
    assert [each.tolist() for each in told] == [words(party).tolist() for party in s.here]


def test_each_may_say_another_number_of_words(fresh_session):
    s = fresh_session
    shapes = [(party + 1, 2) for party in s.here]
    own = [words(party, shape) for party, shape in enumerate(shapes)]
    told = s.tell(own, shapes)
    for heard, said in zip(told, own, strict=True):
        np.testing.assert_array_equal(heard, said)
    cost = s.cost().total
    assert cost.rounds == 1
    assert cost.sent == tuple(8 * 2 * rows * (s.size - 1) for rows, _ in shapes)


def test_a_plan_hears_nobody_and_costs_the_same(fresh_session):
    s = fresh_session
    shapes, heard = [(party + 1,) for party in s.here], []
    plan = s.plan(lambda planned: heard.append(planned.tell([], shapes)))
    assert heard == [[]]
    s.tell([words(party, shape) for party, shape in enumerate(shapes)], shapes)
    assert plan.cost.total == s.cost().total
    assert plan.cost.trips == s.cost().trips == 1
    assert plan.cost.wire_bytes == s.cost().wire_bytes


def test_what_no_plan_can_foresee_is_no_cost(fresh_session):
    s = fresh_session
    s.tell([words(party) for party in s.here], booked=False)
    assert s.cost().total.rounds == 0


def test_one_who_is_lost_ends_the_session(pair, monkeypatch):
    def lost(messages):
        raise PeerClosedError("bob has closed the connection")

    monkeypatch.setattr(pair.transport, "open", lost)
    with pytest.raises(mpc.PeerError, match="bob has closed"):
        pair.tell([words(0), words(1)])
    with pytest.raises(mpc.SessionError, match="closed"):
        pair.tell([words(0), words(1)])
