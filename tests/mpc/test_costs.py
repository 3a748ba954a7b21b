"""Rounds and bytes: measured as declared, planned as run, and the sums add up."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

import mpc
from mpc.core.cost import Ledger, Spent
from mpc.protocols import (
    argmax,
    b2a,
    bits,
    comparison,
    intervals,
    limits,
    masking,
    product,
    range_check,
    relu,
    scaling,
    select,
    sharing,
    sign,
    truncated_product,
    truncation,
)
from ring.bits import count_words

# What a provider deals; of two parties without one: tests/mpc/two_party/test_two_party_costs.py.
pytestmark = pytest.mark.dealt

SIZES = [1, 7, 63, 64, 65, 100, 128, 1000]
# A product that the shift cuts to 32 bits, the sign included.
NUMBER = 2**31 - 1
PRODUCT = NUMBER << 16


def give(session, array, owner):
    """Share an array as a program does that every party runs: only its owner has it."""
    array = np.asarray(array)
    here = session.parties.index(owner) in session.here
    return session.share(array if here else None, owner, shape=array.shape, dtype=array.dtype)


def give_array(session, array, owner):
    """Share an array that is known where the program is planned, too."""
    return session.share(array, owner)


class Case:
    """A protocol's use: how to make its arguments, what to measure, and what its file declares."""

    def __init__(self, name, make, run, declared):
        self.name, self.make, self.run, self.declared = name, make, run, declared


def numbers(size):
    return np.linspace(-100, 100, size)


def cost_of_mean(parties, count):
    if count & (count - 1) == 0:
        return Spent()
    chosen = scaling.plan_limbs(count * NUMBER, 1, Fraction(1, count))
    return scaling.cost(parties, 1, 1, chosen)


def computed(session, size, give, frac_bits=16, bound=NUMBER):
    """A value that no party has given."""
    x = give(session, numbers(size), "alice") + 0
    return x.derive(x.shares, frac_bits=frac_bits, bound=bound)


def two(session, size, give):
    return give(session, numbers(size), "alice"), give(session, numbers(size), "bob")


def two_computed(session, size, give):
    return computed(session, size, give), computed(session, size, give)


def two_wide(session, size, give):
    return tuple(computed(session, size, give, bound=2**62) for _ in range(2))


def on_a_product(x, y, form=product.multiply, terms=1):
    return range_check.verdict(range_check.bilinear(x, y, form, terms))


def outer(x, y):
    return product.matmul(x.reshape(-1, 1), y.reshape(1, -1))


def masked(session, size, give):
    x, y = two_computed(session, size, give)
    masking.mask_together(x, y)
    return x, y


def excess_of(x):
    excess = limits.Excess(x.session)
    planes = np.zeros((len(x.session.here), count_words(x.size)), np.uint64)
    excess.add(planes, x.size, inside=False)
    return excess


def bit_and_number(session, size, give):
    x = computed(session, size, give)
    return x > 0, x


def bit_and_masked(session, size, give):
    bit, x = bit_and_number(session, size, give)
    masking.mask_together(x)
    return bit, x


def planes(session, size, give):
    return (np.zeros((len(session.here), 5, count_words(size)), np.uint64),)


def scores(k):
    def make(session, size, give):
        return (computed(session, size * k, give).reshape(size, k),)

    return make


def computed_and_given(session, size, give):
    """A value in shares, and a masked one that one party has given."""
    y = give(session, numbers(size), "alice")
    masking.mask_together(y)
    return computed(session, size, give), y


POLYNOMIALS = bits.structure_of((((0, 1, ~2, 3), (4,), (~0,)), ((1, 2), (3, 4, ~1)), ((2,),)))

CASES = [
    Case("masking", two_computed, masking.mask_together, lambda n, e: masking.cost(n, 2 * e)),
    Case("masking of what two have given", two, masking.mask_together, masking.cost),
    Case("product", two_computed, lambda x, y: (x * y).shares, lambda n, e: product.cost(n, 2 * e, e)),
    Case("product before use", two_computed, lambda x, y: x * y, lambda n, e: product.cost(n, 2 * e)),
    Case(
        "product of what two have given",
        two,
        lambda x, y: (x * y).shares,
        lambda n, e: product.cost(n, e, e),
    ),
    Case(
        "product for its owner to see",
        computed_and_given,
        lambda x, y: (x * y).shares,
        lambda n, e: product.cost(n, e, e, to_owner=True),
    ),
    Case(
        "two products for its owner to see",
        computed_and_given,
        lambda x, y: ((x[:, None] * y[:, None]).truncate(), outer(y, x[:3]), outer(x[:3], y)),
        lambda n, e: product.cost(n, e, to_owner=True)
        + truncation.cost(n, e, 16)
        + product.cost(n, min(3, e), to_owner=True)
        + product.cost(n, min(3, e), to_owner=True),
    ),
    Case(
        "products of one value for its owner to see",
        computed_and_given,
        lambda x, y: (y * x, x * y, y[::-1] * x[::-1]),
        lambda n, e: product.cost(n, e, to_owner=True),
    ),
    Case("square", two_computed, lambda x, y: (x * x).shares, lambda n, e: product.cost(n, e, e)),
    Case("masked product", masked, lambda x, y: (x * y).shares, lambda n, e: product.cost(n, 0, e)),
    Case(
        "matrix product",
        two_computed,
        lambda x, y: (x.reshape(-1, 1) @ y.reshape(1, -1)[:, :3]).shares,
        lambda n, e: product.cost(n, e + min(3, e), e * min(3, e)),
    ),
    Case(
        "product, truncated",
        two_computed,
        lambda x, y: ((x * y + x).reshape(-1, 1) + 1.5).truncate(),
        lambda n, e: product.cost(n, 2 * e) + truncation.cost(n, e, 16),
    ),
    Case(
        "relu of a product of two secrets",
        two_computed,
        lambda x, y: (x * y).relu(),
        lambda n, e: product.cost(n, 2 * e) + relu.cost(n, e, 16, 47),
    ),
    Case(
        "sign of a product",
        two_computed,
        lambda x, y: x * y < 0,
        lambda n, e: product.cost(n, 2 * e) + comparison.cost(n, e, 64, True),
    ),
    Case(
        "sums of products, truncated",
        two_computed,
        lambda x, y: (x * y + x * y).truncate(),
        lambda n, e: product.cost(n, 2 * e, e) + truncation.cost(n, e, 16),
    ),
    Case(
        "product of what is truncated",
        two_computed,
        lambda x, y: truncated_product.multiply(x, 16, y, 5, 2**62),
        lambda n, e: truncated_product.cost(n, e),
    ),
    Case(
        "truncation",
        two_computed,
        lambda x, y: truncation.divide_by_power(x, 16, 0),
        lambda n, e: truncation.cost(n, e, 16),
    ),
    Case(
        "truncation of what one has given",
        two,
        lambda x, y: truncation.divide_by_power(x, 16, 0),
        lambda n, e: truncation.cost(n, e, 16),
    ),
    Case(
        "division",
        two_computed,
        lambda x, y: x / 3,
        lambda n, e: scaling.cost(n, e, e, scaling.plan_limbs(NUMBER, 1, Fraction(1, 3))),
    ),
    Case(
        "mean",
        two_computed,
        lambda x, y: x.mean(),
        cost_of_mean,
    ),
    Case("relu", two_computed, lambda x, y: x.relu(), lambda n, e: relu.cost(n, e, 0, 32)),
    Case("relu of what one has given", two, lambda x, y: x.relu(), lambda n, e: relu.cost(n, e, 0, 32)),
    Case(
        "relu of a product",
        lambda s, e, give: (computed(s, e, give, 32, PRODUCT),),
        lambda x: x.relu(),
        lambda n, e: relu.cost(n, e, 16, 32),
    ),
    Case(
        "relu of any product",
        lambda s, e, give: (computed(s, e, give, 32, 2**62 - 1),),
        lambda x: x.relu(),
        lambda n, e: relu.cost(n, e, 16, 48),
    ),
    Case(
        "sign",
        two_computed,
        lambda x, y: sign.open_sign(x, 0, "none"),
        lambda n, e: sign.cost(n, e, 0, 32, True, "none"),
    ),
    Case("x < y", two, lambda x, y: x < y, lambda n, e: comparison.cost(n, e, 33, True)),
    Case("x >= 0", two, lambda x, y: x >= 0, lambda n, e: comparison.cost(n, e, 32, True)),
    Case("x == y", two, lambda x, y: x == y, lambda n, e: comparison.cost(n, e, 33, False)),
    Case("x != 0", two, lambda x, y: x != 0, lambda n, e: comparison.cost(n, e, 32, False)),
    Case("select", bit_and_number, lambda b, x: b * x, lambda n, e: select.cost(n, e, e)),
    Case("select masked", bit_and_masked, lambda b, x: b * x, lambda n, e: select.cost(n, 0, e)),
    Case("maximum", two, np.maximum, lambda n, e: relu.cost(n, e, 0, 33)),
    Case("maximum with zero", two, lambda x, y: np.maximum(x, 0), lambda n, e: relu.cost(n, e, 0, 32)),
    *(
        Case(
            f"argmax of {k}",
            scores(k),
            lambda x: x.argmax(axis=1, one_hot=True).shares,
            lambda n, e, k=k: argmax.cost(n, e, k, 33) + argmax.cost_of_shares(n, e, k),
        )
        for k in (1, 2, 3, 5, 6, 10, 11, 16)
    ),
    Case(
        "argmax, revealed",
        scores(10),
        lambda x: x.argmax(axis=1).reveal(),
        lambda n, e: argmax.cost(n, e, 10, 33) + Spent(1, 8 * (n - 1) * count_words(10 * e), 0),
    ),
    Case(
        "argmax, revealed to one",
        scores(10),
        lambda x: x.argmax(axis=1, one_hot=True).reveal(to="alice"),
        lambda n, e: argmax.cost(n, e, 10, 33) + Spent(1, 8 * count_words(10 * e), 0),
    ),
    Case(
        "argmax of what is masked",
        lambda s, e, give: (masking.mask_together(*(x := scores(10)(s, e, give))), x)[1],
        lambda x: x.argmax(axis=1).reveal(),
        lambda n, e: argmax.cost(n, e, 10, 33, masked=True)
        + Spent(1, 8 * (n - 1) * count_words(10 * e), 0),
    ),
    Case(
        "argmax of a product",
        lambda s, e, give: (outer(computed(s, e, give), computed(s, 10, give)),),
        lambda x: x.argmax(axis=1).reveal(),
        lambda n, e: argmax.cost(n, e, 10, 64) + Spent(1, 8 * (n - 1) * count_words(10 * e), 0),
    ),
    Case(
        "maximum along an axis",
        scores(10),
        lambda x: x.max(axis=1),
        lambda n, e: argmax.cost(n, e, 10, 33)
        + argmax.cost_of_shares(n, e, 10)
        + product.cost(n, 10 * e, 10 * e),
    ),
    Case(
        "range check of values",
        two_computed,
        lambda x, y: range_check.verdict(range_check.magnitude(x, 5)),
        range_check.cost,
    ),
    Case(
        "range check of two sums",
        two_wide,
        lambda x, y: range_check.verdict(
            range_check.linear([(x, 0), (y, 0)]), range_check.linear([(x, 0), (-y, 0)])
        ),
        lambda n, e: range_check.cost(n, 2 * e),
    ),
    Case(
        "range check of a sum of all",
        two_wide,
        lambda x, y: range_check.verdict(range_check.linear([(x, 0)], (0,))),
        lambda n, e: range_check.cost_of_sum(n, e, 2**62, e),
    ),
    Case(
        "range check of a product",
        two_wide,
        on_a_product,
        lambda n, e: range_check.cost_of_product(n, (e, 2**62), (e, 2**62), 1, e),
    ),
    Case(
        "range check of a product with something small",
        two_wide,
        lambda x, y: on_a_product(x, y.with_integer_bound(2**20)),
        lambda n, e: range_check.cost_of_product(n, (e, 2**62), (e, 2**20), 1, e),
    ),
    Case(
        "range check of a product with small ones, which stay whole",
        two_wide,
        lambda x, y: on_a_product(x, y.with_integer_bound(2)),
        lambda n, e: range_check.cost_of_product(n, (e, 2**62), (e, 2), 1, e),
    ),
    Case(
        "range check of a matrix product",
        two_wide,
        lambda x, y: on_a_product(x, y[:3], outer),
        lambda n, e: range_check.cost_of_product(
            n, (e, 2**62), (min(3, e), 2**62), 1, e * min(3, e)
        ),
    ),
    Case(
        "reveal a product",
        two_computed,
        lambda x, y: (x * y).reveal(),
        lambda n, e: product.cost(n, 2 * e) + sharing.cost_of_product(n, e, 16),
    ),
    Case(
        "reveal a product to one",
        two_computed,
        lambda x, y: (x * y).reveal(to="bob"),
        lambda n, e: (
            product.cost(n, 2 * e) + Spent(1, 16 * e, truncation.cost(n, e, 16).correction_bytes)
        ),
    ),
    Case(
        "relu with a limit",
        lambda s, e, g: (computed(s, e, g, 32, PRODUCT),),
        lambda x: limits.relu_within(x, 2**20, limits.Excess(x.session)),
        lambda n, e: relu.cost(n, e, 16, 33, 2),
    ),
    Case(
        "truncation with limits",
        lambda s, e, g: (computed(s, e, g, 32, PRODUCT),),
        lambda x: limits.truncate_within(x, 2**20, limits.Excess(x.session)),
        lambda n, e: sign.cost(n, e, 16, 33, True, "truncation", 2),
    ),
    Case(
        "words within limits",
        two_computed,
        lambda x, y: limits.words_within(x, 2**20, limits.Excess(x.session)),
        lambda n, e: sign.cost(n, e, 0, 64, True, "none", 2),
    ),
    Case(
        "proof of limits",
        two_computed,
        lambda x, y: range_check.is_none(limits.failures(x, excess_of(x))),
        lambda n, e: limits.cost(n),
    ),
    Case(
        "intervals",
        two_computed,
        lambda x, y: intervals.groups_inside(x, np.int64(-9), np.int64(9), [x.size]),
        lambda n, e: intervals.cost(n, e, 1),
    ),
    Case("reveal", two, lambda x, y: x.reveal(), sharing.cost_of_reveal),
    Case("reveal to one", two, lambda x, y: x.reveal(to="bob"), lambda n, e: Spent(1, 8 * e, 0)),
    Case("sums and views", two, lambda x, y: (x + y * 3 - 1)[:1].sum(), lambda n, e: Spent()),
]  # fmt: skip


def trips_of(cost):
    """Return trips in all, and by protocol and layer: they are no part of ==."""
    parts = (
        {name: each.trips for name, each in p.items()} for p in (cost.by_protocol, cost.by_layer)
    )
    return cost.trips, *parts


def case_id(case):
    return case.name


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_measured_as_declared(session, spent, case, size):
    prepared = case.make(session, size, give)
    assert spent(session, lambda: case.run(*prepared)) == case.declared(session.size, size)


@pytest.mark.parametrize("size", SIZES)
def test_bits_as_declared(session, spent, size):
    words = count_words(size)
    (some,) = planes(session, size, give)
    got = spent(session, lambda: bits.evaluate(session, some, POLYNOMIALS))
    assert got == bits.cost(session.size, POLYNOMIALS, words)
    assert got.rounds == 1
    got = spent(session, lambda: b2a.convert(session, some, size))
    assert got == b2a.cost(session.size, 5, size)


@pytest.mark.parametrize("give", [give, give_array], ids=["shapes", "arrays"])
@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_planned_as_run(fresh_session, tap, case, give):
    s = fresh_session
    for size in (65, 10):
        plan = s.plan(lambda p, size=size: case.run(*case.make(p, size, give)))
        with mpc.Session(s.parties) as other:
            with tap(other) as heard:
                case.run(*case.make(other, size, give))
            assert plan.cost == other.cost()
            assert plan.cost.total.sent == other.cost().total.sent
            assert trips_of(plan.cost) == trips_of(other.cost())
            dealt = [(number, correlation) for number, correlation, _ in heard.dealt]
        assert list(plan.correlations) == dealt
    # Planning spends nothing.
    assert s.cost().total == Spent()
    assert s.fresh_id() == 1


# A whole program: network A.

WIDTHS = (784, 128, 128, 10)


def share_parameters(session, give):
    random = np.random.default_rng(0)
    return [
        (
            give(session, random.normal(scale=0.05, size=(i, j)), "alice"),
            give(session, random.normal(scale=0.05, size=j), "alice"),
        )
        for i, j in pairwise(WIDTHS)
    ]


def evaluate(session, parameters, x, to=None):
    for number, (w, b) in enumerate(parameters, start=1):
        with session.layer(f"layer {number}"):
            x = x @ w + b
            if number < len(parameters):
                x = x.with_bound(32767).relu()
    with session.layer("layer 3"):
        return x.reveal(to=to)


def network(session, give, rows=1, times=1):
    parameters = share_parameters(session, give)
    for k in range(times):
        images = np.random.default_rng(k).random((rows, WIDTHS[0]))
        scores = evaluate(session, parameters, give(session, images, "bob"))
    return scores


def test_network_a(fresh_session):
    s = fresh_session
    parameters = share_parameters(s, give)
    costs = []
    for k in range(3):
        x = give(s, np.random.default_rng(k).random((1, 784)), "bob")
        before = s.cost()
        evaluate(s, parameters, x)
        costs.append(s.cost() - before)
    first, second, third = costs
    others = s.size - 1
    # The weights are opened once a session: by their owner, with the first image. From then on what goes
    # into the layers behind the first is opened to it alone, and it sends nothing of it.
    weights, hidden = 8 * (784 * 128 + 128 * 128 + 128 * 10), 8 * 2 * 128
    assert first.total.sent[0] - second.total.sent[0] == others * (weights + hidden)
    assert first.total.sent[1] - second.total.sent[1] == (others - 1) * hidden
    assert first.rounds == second.rounds == third.rounds == 10
    assert second == third
    by_protocol, by_layer = second.by_protocol, second.by_layer
    assert {name: spent.rounds for name, spent in by_layer.items()} == {
        "layer 1": 4, "layer 2": 4, "layer 3": 2,
    }  # fmt: skip
    relu_layer = relu.cost(s.size, 128, 16, 32)
    assert relu_layer.bytes_sent == others * (1024 + 11 * 16)
    assert relu_layer.correction_bytes == 128 * (28 + 28) + 83 * 16
    assert by_layer["layer 1"].bytes_sent == others * 6272 + relu_layer.bytes_sent
    assert by_layer["layer 2"].bytes_sent == 1024 + relu_layer.bytes_sent
    assert by_layer["layer 2"].sent[0] == relu_layer.bytes_sent
    assert by_layer["layer 3"].bytes_sent == 1024 + others * (80 + 80)
    for number, most in (("1", 1024 + 8496), ("2", 1024 + 8496), ("3", 80 + 160)):
        assert by_layer[f"layer {number}"].correction_bytes <= most
    assert by_protocol["product"].rounds == 3
    assert by_protocol["relu"].rounds == 6
    revealed = by_protocol["truncation"] + by_protocol["reveal"]
    assert revealed == sharing.cost_of_product(s.size, 10, 16)
    assert second.bytes_sent_per_party <= others * 11_100
    assert second.correction_bytes <= 18_100


@pytest.mark.parametrize("give", [give, give_array], ids=["shapes", "arrays"])
def test_a_program_is_planned_as_it_runs(fresh_session, give):
    s = fresh_session
    plan = s.plan(lambda p: network(p, give, rows=3, times=2))
    scores = network(s, give, rows=3, times=2)
    assert plan.cost == s.cost()
    assert trips_of(plan.cost) == trips_of(s.cost())
    assert str(plan.cost) == str(s.cost())
    assert scores.shape == (3, 10)
    # Watched parties open their inputs: those of network A, and the rows twice.
    assert plan.cost.rounds == (20 if s.watch is None else 30)


def test_a_plan_of_everything(fresh_session):
    def program(p):
        x = give(p, np.linspace(-5, 5, 60).reshape(6, 10), "alice")
        y = give(p, np.arange(10.0), "bob")
        whole = give(p, np.arange(10), "bob")
        with p.layer("one"):
            z = np.where(x > y, x * y, np.maximum(x, 0.5)) / 3
            z = np.concatenate([z, abs(z), whole * z[::-1]], axis=1)
        with p.layer("two"):
            hot = z.argmax(axis=1, one_hot=True)
            best = z.max() + z.min() + (z**3).mean() + z[[0, 2], :, None].sum()
            hits = ((hot * (z == z.max(axis=1)[:, None])).sum() > 0) & (best >= 0)
        return hits.reveal(to="bob"), best.reveal(), hot.reveal()

    plan = fresh_session.plan(program)
    hits, _, hot = program(fresh_session)
    assert plan.cost == fresh_session.cost()
    assert trips_of(plan.cost) == trips_of(fresh_session.cost())
    planned = []
    fresh_session.plan(lambda p: planned.append(program(p)))
    assert [np.shape(part) for part in planned[0]] == [(), (), (6, 30)]
    # What a plan reveals is zero.
    assert all(not np.any(part) for part in planned[0])
    assert hits == 1
    np.testing.assert_array_equal(hot.sum(axis=1), 1)


# The ledger.


def test_parts_add_up_to_the_total(session):
    network(session, give, times=2)
    x = give(session, np.ones(70), session.parties[-1])
    (x * x).reveal(to="alice")
    (x < 0.5).reveal(to="bob")
    cost = session.cost()
    for part in (cost.by_protocol, cost.by_layer):
        spent = sum(part.values(), Spent())
        assert spent == cost.total
        assert spent.sent == cost.total.sent
        assert spent.trips == cost.total.trips
    assert cost.bytes_sent_per_party == max(cost.total.sent)
    assert cost.rounds == cost.total.rounds
    assert cost.correction_bytes == cost.total.correction_bytes
    assert len(cost.total.sent) == session.size


def test_bytes_are_those_that_cross(fresh_session, tap):
    s = fresh_session
    corrections = []
    correct = s.source.provider.correct

    def listen(id, correlation, out):
        corrections.append(out.nbytes)
        return correct(id, correlation, out)

    s.source.provider.correct = listen
    with tap(s) as heard:
        network(s, give, rows=2)
        x = give(s, np.linspace(-3, 3, 77), "bob")
        ((x > 1) * x).argmax().reveal()
    sent = [0] * s.size
    for messages in heard.sent:
        for words, opening in messages:
            for party in range(s.size):
                if isinstance(opening, str):
                    sent[party] += words[party].nbytes * (s.size - 1)
                elif party == opening:
                    sent[party] += words.nbytes * (s.size - 1)
    cost = s.cost()
    assert cost.total.sent == tuple(sent)
    assert cost.rounds == len(heard.sent)
    assert cost.correction_bytes == sum(corrections)


def test_the_difference_of_costs_is_of_each_party(session):
    x = session.share(np.zeros(1000), owner="alice")
    y = session.share(np.zeros(10), owner="bob")
    x * x
    before = session.cost()
    y * y
    spent = session.cost() - before
    assert spent.bytes_sent_per_party == 80 * (session.size - 1)
    assert spent.by_protocol["product"] == spent.total


def test_revealing_to_one_party_costs_that_party_nothing(fresh_session):
    s = fresh_session
    x = s.share(np.zeros(10), owner="alice")
    x.reveal(to=s.parties[-1])
    assert s.cost().total.sent == (*[80] * (s.size - 1), 0)


# What is revealed is opened with a corrected part. What is masked before needs nothing of its mask.
@pytest.mark.parametrize(
    "case",
    [c for c in CASES if "reveal a" not in c.name and c.name != "argmax of what is masked"],
    ids=case_id,
)
def test_nothing_masked_waits_for_a_correction(fresh_session, case):
    """Corrections are taken as late as can be: where one is dealt with masks, after an opening."""
    s, order = fresh_session, []
    correlated, deliver = s.correlated, s.transport.open

    def listen_to_correlated(correlation):
        shares = correlated(correlation)
        fetch = shares._fetch

        def listen(*arguments):
            order.append(("corrected", shares.id))
            return fetch(*arguments)

        shares._fetch = listen
        if shares.masks:
            order.append(("masks", shares.id))
        return shares

    def listen_to_open(messages):
        order.append(("open", None))
        return deliver(messages)

    s.correlated, s.transport.open = listen_to_correlated, listen_to_open
    case.run(*case.make(s, 65, give))
    for id in [id for what, id in order if what == "masks"]:
        begin, end = order.index(("masks", id)), order.index(("corrected", id))
        assert ("open", None) in order[begin:end]


def test_layers_nest_and_end(fresh_session):
    s = fresh_session
    x = s.share(np.ones(5), owner="alice")

    def fail():
        with s.layer("failing"):
            x.reveal()
            raise KeyError

    with s.layer("outer"):
        x.reveal()
        with s.layer("inner"):
            x.reveal()
        x.reveal()
    with pytest.raises(KeyError):
        fail()
    x.reveal()
    rounds = {name: spent.rounds for name, spent in s.cost().by_layer.items()}
    assert rounds == {"outer": 2, "inner": 1, "failing": 1, "-": 1}
    assert all(spent.seconds >= 0 for spent in s.cost().by_layer.values())


def test_the_outermost_protocol_pays(fresh_session):
    s = fresh_session
    x = s.share(np.ones((2, 10)), owner="alice")
    x.max(axis=1)
    assert set(s.cost().by_protocol) == {"maximum"}
    (x * s.share(np.ones((2, 10)), owner="bob")).reveal()
    assert set(s.cost().by_protocol) == {"maximum", "product", "truncation", "reveal"}


def test_the_table(fresh_session):
    s = fresh_session
    with s.layer("first"):
        s.share(np.ones(1000), owner="alice").relu().reveal()
    table = str(s.cost())
    assert "relu" in table
    assert "first" in table
    total = s.cost().total
    last = table.splitlines()[-1].split()
    counts = (total.rounds, total.trips, total.bytes_sent, total.correction_bytes)
    assert last == ["total", *(f"{count:,}" for count in counts)]


def test_costs_that_the_files_state():
    # Bits that an element opens for a prefix, and those that are dealt for it.
    for count in range(1, 11):
        for signed, rounds in ((True, 1), (True, 2), (False, 1)):
            form = bits.prefix_rounds(count, signed, rounds)
            found = (
                sum(len(each.opened) for each in form),
                sum(len(each.subsets) for each in form),
            )
            assert found == bits.count_planes(count, signed, rounds)
    digits = sign.digits_for(32, True)
    assert (digits.widths, digits.table_bits) == ((6, 5, 5, 5, 5, 5), 8 * 28)
    assert bits.count_planes(6, True) == (10, 83)
    one = relu.cost(2, 6400, 16, 32)
    assert one.rounds == 3
    assert 8 * one.bytes_sent == 75 * 6400
    assert 8 * one.correction_bytes == (8 * 56 + 83) * 6400
    four = relu.cost(2, 6400, 16, 32, ands=2)
    assert (four.rounds, 8 * four.bytes_sent) == (4, 80 * 6400)
    assert 8 * four.correction_bytes == (8 * 44 + 38) * 6400
    assert sign.digits_for(32, True, 1, 2).widths == (4,) * 7 + (3,)
    assert bits.count_planes(8, True, 2) == (15, 38)
    limited = relu.cost(2, 6400, 16, 32, 2) - one
    assert (limited.rounds, 8 * limited.bytes_sent) == (0, 10 * 6400)
    assert 8 * limited.correction_bytes == 83 * 6400
    assert limits.cost(2) == Spent(4, 40, 336)
    rows = intervals.cost(2, 6400, 64)
    assert rows.rounds == 6
    assert 8 * rows.bytes_sent == 132 * 6400 + 8 * (16 * 64 + 24)
    assert 8 * rows.correction_bytes == 462 * 6400 + 8 * 328 * 64
    unshifted = relu.cost(2, 6400, 0, 32)
    assert one.correction_bytes - unshifted.correction_bytes == 12 * 6400
    order = comparison.cost(2, 6400, 33, True)
    assert order.rounds == 3
    assert 8 * order.bytes_sent == (64 + 11) * 6400
    assert 8 * order.correction_bytes == (8 * 40 + 83) * 6400
    assert argmax.cost(2, 64, 10, 33).rounds == 3
    assert argmax.cost(2, 64, 10, 33, masked=True).rounds == 2
    assert [range_check.cost(2, size).rounds for size in (2**18 - 1, 2**18)] == [5, 6]
    claims = range_check.cost(2, 2**13)
    assert claims.bytes_sent / 2**13 < 11.8
    assert claims.correction_bytes / 2**13 < 349
    whole = range_check.cost_of_product(2, (640, 2**62), (640, 2**62), 1, 640)
    before = whole - range_check.cost(2, 4 * 640)
    assert before == Spent(2, 2 * 32 * 640, (2 * 28 + 72) * 640)
    # 16 bits of [r >> 63] are dealt, 32 for a shift of more, then 64.
    assert truncation.cost(2, 10, 16) == Spent(1, 80, 104)
    assert truncation.cost(5, 10, 17) == Spent(1, 320, 120)
    assert truncation.cost(5, 10, 33) == Spent(1, 320, 160)


# Trips.


def clocks_of(parties, *steps):
    """Run steps on a ledger's clocks, and return the clock that is ahead after each."""
    ledger, found = Ledger(parties), []
    for step, *arguments in steps:
        if step == "all":
            ledger.add_round([8] * parties, [20] * parties)
        elif step == "from":
            senders = [20 * (party in arguments) for party in range(parties)]
            ledger.add_round(senders, senders)
        elif step == "to":
            senders = [20 * (party not in arguments) for party in range(parties)]
            ledger.add_round(senders, senders, to=arguments[0])
        elif step == "more":
            senders = [20 * (party in arguments) for party in range(parties)]
            ledger.add_round(senders, senders, continued=True)
        elif step == "ask":
            ledger.ask()
        else:
            ledger.wait_for_correction()
        found.append(ledger.total().trips)
    assert sum(each.trips for each in ledger.cost().by_layer.values()) == found[-1]
    return found


@pytest.mark.parametrize("parties", [2, 3, 5])
def test_trips_are_the_longest_chain_of_messages(parties):
    last = parties - 1
    # All wait for all.
    assert clocks_of(parties, ["all"], ["all"], ["all"]) == [1, 2, 3]
    # What one party sends moves the others alone: it goes on at once, and its messages do not wait.
    assert clocks_of(parties, ["from", 0], ["from", 0], ["from", 0]) == [1, 1, 1]
    assert clocks_of(parties, ["from", 0], ["from", 1], ["from", 0]) == [1, 2, 3]
    # What goes to one party moves it alone.
    assert clocks_of(parties, ["to", 0], ["to", 0], ["from", 0]) == [1, 1, 2]
    # It is free if that party was behind.
    assert clocks_of(parties, ["from", last], ["to", last], ["all"]) == [1, 2, 3]
    if parties == 2:
        assert clocks_of(2, ["from", 1], ["all"], ["all"], ["to", 0]) == [1, 2, 3, 3]
    # Pieces of a message travel one behind the other.
    assert clocks_of(parties, ["all"], ["more", 0], ["more", 0, 1], ["all"]) == [1, 1, 1, 2]
    assert clocks_of(parties, ["from", 0], ["more", 1], ["all"]) == [1, 1, 2]
    # A correction comes two trips after it was asked for, to the last party.
    assert clocks_of(parties, ["correction"], ["correction"], ["all"]) == [2, 2, 3]
    assert clocks_of(parties, *[["all"]] * 2, ["correction"], ["all"]) == [1, 2, 2, 3]
    assert clocks_of(parties, *[["all"]] * 2, ["ask"], ["correction"]) == [1, 2, 2, 4]


def test_a_round_to_one_party_moves_its_clock_alone(fresh_session):
    """Against messages counted by hand, where openings meet."""
    s = fresh_session
    first, last = s.parties[0], s.parties[-1]
    x = give(s, np.ones(3), first)
    x.reveal(to=last)
    x.reveal(to=last)
    assert (s.cost().rounds, s.cost().trips) == (2, 1)
    x.reveal(to=first)
    assert (s.cost().rounds, s.cost().trips) == (3, 2)
    x.reveal()
    assert (s.cost().rounds, s.cost().trips) == (4, 3)


def test_trips_of_network_a(fresh_session):
    """What it takes over a slow network, see benchmarks/slow_networks.py."""
    s = fresh_session
    costs = []
    parameters = share_parameters(s, give)
    for _ in range(3):
        s.prepare(lambda planned: None)
        before = s.cost()
        evaluate(s, parameters, give(s, np.zeros((1, 784)), "bob"), to="bob")
        costs.append((s.cost() - before).trips)
    # All rounds, also where what is multiplied goes to the owner of the weights alone: three openings of
    # both lie between two such, and so the one that is behind waits for one more.
    assert costs == [10, 10, 10]


@pytest.mark.parametrize(("parties", "trips"), [(2, 6), (3, 8)])
def test_trips_of_network_a_on_a_network_that_is_known(parties, trips):
    slow = mpc.Network(round_trip=0.02, megabits=1000)
    with mpc.Session(("alice", "bob", "carol")[:parties], network=slow) as s:
        parameters = share_parameters(s, give)
        evaluate(s, parameters, give(s, np.zeros((1, 784)), "bob"), to="bob")
        s.prepare(lambda planned: None)
        before = s.cost()
        evaluate(s, parameters, give(s, np.zeros((1, 784)), "bob"), to="bob")
        cost = s.cost() - before
        assert (cost.trips, cost.by_protocol["relu"].rounds) == (trips, 4)
        assert cost.correction_bytes > 128 * 2 * 536
        assert [said[:8] for said in cost.forms.values()] == ["2 rounds", "2 rounds"]


def test_a_plan_knows_what_one_party_has_seen(fresh_session):
    s = fresh_session
    x, y = computed_and_given(s, 9, give)

    def program(p, x, y):
        return (x.reshape(3, 3) * y.reshape(3, 3)).reveal()

    found = []
    for _ in range(2):
        plan = s.plan(lambda p: program(p, p.twin(x), p.twin(y)))
        outline = x.outline()
        before = s.cost()
        # The product of what is masked already is a view of it: the mask goes to x by x itself.
        (x * y).reveal()
        assert x.outline() != outline or found
        spent = s.cost() - before
        assert plan.cost.total.rounds == spent.total.rounds == 2 - len(found)
        assert plan.cost.total.sent == spent.total.sent
        found.append(spent)


def test_the_total_is_kept_beside_its_parts():
    """Also where sessions ran in parallel, of which the longest gives the rounds."""

    def booked(rounds):
        ledger = Ledger(2)
        assert (ledger.total(), ledger.cost().total) == (Spent(), Spent())
        for number in range(rounds):
            with ledger.layer(f"layer {number % 2}"), ledger.protocol(f"protocol {number % 3}"):
                ledger.add_round([8 * rounds, number], [20, 20])
                ledger.add_correction(16 + rounds, 30)
                ledger.wait_for_correction()
        return ledger

    whole = booked(4)
    whole.add_at_once([booked(2), booked(5)])
    total, cost = whole.total(), whole.cost()
    assert total == cost.total == Spent(4 + 5, 8 * (16 + 4 + 25), 4 * 20 + 2 * 18 + 5 * 21)
    assert total.sent == (8 * (16 + 4 + 25), 6 + 1 + 10)
    assert total.trips == cost.trips == 5 + 6
    for parts in (cost.by_protocol, cost.by_layer):
        assert sum(parts.values(), Spent()) == total
        assert sum(each.trips for each in parts.values()) == total.trips
    before = whole.total()
    whole.add_round([0, 1000], [0, 0])
    assert whole.total() - before == Spent(1, 1000, 0)
