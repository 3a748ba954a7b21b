"""A session with a source of its own, which its class alone tells from another."""

from dataclasses import replace

import numpy as np
import pytest

import mpc
from mpc import session_setup
from mpc.session import SessionAt
from tests.helpers.counting_source import Counting

A = np.array([1.5, -2.0, 3.25])
B = np.array([2.0, 4.0, -0.5])


def program(s, x=None, y=None):
    """Three truncated products and a comparison."""
    x = s.share(A, owner="alice") if x is None else x
    y = s.share(B, owner="bob") if y is None else y
    product = x * y
    return [product.relu().reveal(), (product * y).reveal(), (x < y).reveal()]


@pytest.fixture(params=[2, 3], ids=["two", "three"])
def counting(request):
    """Make a session whose source counts."""
    opened = []

    def start(**how):
        names = ("alice", "bob", "carol")[: request.param]
        setup = session_setup.local(names, None, None, 1 << 28, "values")
        session = SessionAt(replace(setup, source=Counting(setup.source, **how)))
        opened.append(session)
        return session

    yield start
    for session in opened:
        session.close()


def results_are_right(found):
    np.testing.assert_allclose(found[0], np.maximum(A * B, 0), atol=2.0**-16)
    np.testing.assert_allclose(found[1], A * B * B, atol=2.0**-13)
    np.testing.assert_array_equal(found[2], A < B)


def test_it_counts_what_is_dealt(counting):
    s = counting()
    results_are_right(program(s))
    # The truncations take the products' terms; what the ReLU has rounded is taken for the next product.
    assert s.source.counts == {"Window": 2, "TruncationPair": 1}


def test_where_no_mask_takes_a_term_each_product_gets_it_dealt(counting):
    s = counting(takes_terms=False)
    results_are_right(program(s))
    assert s.source.counts["ProductTerm"] == 2
    asked = s.plan(program).correlations
    assert [c.cross_term if hasattr(c, "cross_term") else None for _, c in asked] == [None] * len(
        asked
    )


@pytest.mark.parametrize("takes_terms", [True, False])
def test_a_plan_asks_for_the_same_and_costs_the_same(counting, takes_terms):
    s = counting(takes_terms=takes_terms)
    plan = s.plan(program)
    assert not s.source.counts
    program(s)
    assert s.cost().total == plan.cost.total
    planned = [type(correlation).__name__ for _, correlation in plan.correlations]
    assert {name: planned.count(name) for name in planned} == s.source.counts


def test_it_is_told_ahead_what_a_program_asks_for(counting):
    s = counting()
    x, y = s.share(A, owner="alice"), s.share(B, owner="bob")
    s.prepare(lambda planned: program(planned, planned.twin(x), planned.twin(y)))
    assert s.source.announced and not s.source.counts
    program(s, x, y)
    assert s.source.announced == s.source.counts


def test_what_it_does_not_make_is_refused_in_a_plan_too(counting):
    s = counting(refused=("Window",))
    x, y = s.share(A, owner="alice"), s.share(B, owner="bob")
    np.testing.assert_array_equal((x * y).reveal(), A * B)
    text = "a Window must come from a source that makes it, got Counting, which does not"
    used = s.fresh_id()
    with pytest.raises(mpc.SessionError, match=text):
        x.relu()
    assert s.fresh_id() == used + 1
    with pytest.raises(mpc.SessionError, match="a Window must come"):
        s.plan(lambda planned: planned.share(A, owner="alice").relu())
    np.testing.assert_array_equal((x + y).reveal(), A + B)
