"""A plan of a session without a provider costs what the run that follows does, whatever is left over."""

import numpy as np
import pytest

import mpc
from mpc.protocols import sigmoid
from mpc.two_party import joint


def program_of(use, rows):
    values = np.linspace(-3, 3, 5 * rows).reshape(rows, 5)
    return lambda s: use(s.share(values, owner="alice"), s.share(values[::-1], owner="bob"))


PROGRAMS = {
    "nothing": lambda x, y: x + y,
    "revealed to one": lambda x, y: (x + y).reveal(to="bob"),
    "relu": lambda x, y: (x - y).relu(),
    "order": lambda x, y: (x < y).reveal(),
    "product": lambda x, y: (x * y).reveal(),
    "matrix product": lambda x, y: (x @ y.T).reveal(),
    "matrix product of sums": lambda x, y: ((x + y) @ (x - y).T).relu(),
    "softmax": lambda x, y: x.softmax(),
    "sigmoid": lambda x, y: sigmoid.sigmoid(x),
    "argmax": lambda x, y: x.argmax(axis=1).reveal(to="alice"),
    "where": lambda x, y: np.where((x > 0) & (y < 1), x, y).truncate(),
}


def check(s, program):
    """Plan, run, and compare: rounds, bytes of each party by protocol, transfers."""
    plan, planned_again = s.plan(program), s.plan(program)
    assert plan == planned_again
    before, made = s.cost(), [extension.made for extension in s.pair.extensions]
    program(s)
    spent = s.cost() - before
    used = {name: some for name, some in spent.by_protocol.items() if some.rounds}
    assert plan.cost.total == spent.total
    assert (plan.cost.total.sent or (0, 0)) == (spent.total.sent or (0, 0))
    assert {k: v for k, v in plan.cost.by_protocol.items() if v.rounds} == used
    assert plan.correlations == ()
    drawn = tuple(e.made - m for e, m in zip(s.pair.extensions, made, strict=True))
    assert plan.transfers == drawn
    return plan


@pytest.mark.parametrize("transfers", ["softspoken", "ferret"])
def test_a_plan_costs_what_a_run_does(transfers, monkeypatch):
    # The smallest set takes the least time.
    monkeypatch.setitem(joint.TRANSFERS, "ferret", "b10")
    with mpc.Session(provider=None, transfers=transfers) as s:
        plans = {}
        for rows in (1, 13, 64, 150, 13):
            for name, use in PROGRAMS.items():
                plans.setdefault(name, []).append(check(s, program_of(use, rows)))
    assert plans["nothing"][0].transfers == (0, 0)
    assert plans["nothing"][0].products == plans["relu"][0].products == 0
    assert plans["relu"][0].transfers > (0, 0)
    assert plans["matrix product"][0].products == 1


@pytest.mark.parametrize("name", ["relu", "argmax", "where", "matrix product", "order"])
def test_a_plan_takes_as_many_trips_as_a_run(name):
    with mpc.Session(provider=None) as s:
        program = program_of(PROGRAMS[name], 13)
        plan = s.plan(program)
        program(s)
        assert plan.cost.trips == s.cost().trips > 0
        assert plan.cost.trips <= plan.cost.rounds


def test_keys_and_encrypted_inputs_are_planned_with():
    values = np.ones((3, 4))
    with mpc.Session(provider=None) as s:
        w = s.share(values.T, owner="alice")

        def program(p):
            return (p.share(values, owner="bob") @ p.twin(w)).reveal()

        def run(p):
            return (p.share(values, owner="bob") @ w).reveal()

        rounds = []
        for _ in range(3):
            plan, before = s.plan(program), s.cost()
            run(s)
            assert plan.cost.total == (s.cost() - before).total
            assert plan.products == 1
            rounds.append(plan.cost.rounds)
        # At first keys are made, and the input is encrypted.
        assert rounds[0] > rounds[1] == rounds[2]
        # Another input is not the one that is kept.
        check(s, lambda p: p.share(values, owner="bob") @ p.share(values.T, owner="alice"))


def test_what_is_left_over_is_planned_with():
    """The same program costs less where transfers are left from the one before."""
    program = program_of(PROGRAMS["relu"], 1)
    with mpc.Session(provider=None) as s:
        bytes_sent = {check(s, program).cost.bytes_sent_per_party for _ in range(4)}
    assert len(bytes_sent) > 1


def test_a_plan_takes_nothing_of_the_session():
    program = program_of(PROGRAMS["relu"], 40)
    with mpc.Session(provider=None) as s:
        program(s)
        before, made = s.cost(), [extension.made for extension in s.pair.extensions]
        plan = s.plan(program)
        s.without_parties(ahead=True)
        assert s.cost() == before
        assert [extension.made for extension in s.pair.extensions] == made
        assert s.plan(program) == plan
        # What is kept for plans does not grow with what runs.
        assert s.pair.taken == s.pair.multiplied == []


def test_with_a_provider_no_transfers_are_planned():
    with mpc.Session() as s:
        plan = s.plan(program_of(PROGRAMS["relu"], 3))
        assert (plan.transfers, plan.products) == ((0, 0), 0)
        assert plan.correlations


def test_what_is_in_stock_is_planned_with():
    program = program_of(PROGRAMS["relu"], 40)
    with mpc.Session(provider=None) as s:
        planned = s.without_parties()
        program(planned)
        s.pair.prepare(planned.pair.taken)
        made = [extension.made for extension in s.pair.extensions]
        plan, before = s.plan(program), s.cost()
        program(s)
        assert plan.cost.total == (s.cost() - before).total
        assert [extension.made for extension in s.pair.extensions] == made
        assert s.plan(program).cost.rounds > plan.cost.rounds
