"""ReLU in two rounds: the same words as in three, and when it is chosen."""

from dataclasses import replace

import numpy as np
import pytest

import mpc
from mpc.core import correlation
from mpc.protocols import pooling, relu, sign_products
from mpc.protocols.relu import relu_with_derivative
from mpc.protocols.sign_products import SignProducts
from ring.digits import WIDEST, digits_of, split_evenly

NAMES = ("alice", "bob", "carol", "dave", "erin")
# So slow, and with so much bandwidth, that two rounds always pay.
SLOW = mpc.Network(round_trip=10.0, megabits=1e6)
SIZES = (1, 63, 64, 65)


@pytest.fixture(scope="module", params=[2, 3, 5], ids=["two", "three", "five"])
def slow(request):
    with mpc.Session(NAMES[: request.param], network=SLOW) as s:
        yield s


def edges_of(window, shift):
    """Return z for which something could go wrong in a window of L bits from bit `shift` on."""
    top = 2 ** (window - 1) - 1
    ys = {0, 1, 2, 3, top - 1, top, 2 ** (window // 2)}
    ys = {y for y in ys | {-y for y in ys} if abs(y) <= top}
    lows = {0, 1, 2**shift - 1, 2**shift // 2} if shift else {0}
    zs = {(y << shift) + low for y in ys for low in lows}
    return sorted(z for z in zs if abs(z) <= min(top << shift, 2**62 - 1))


def truncated(z, r, shift):
    """Return y of a truncation of z under the mask r."""
    c = (z + 2**62 + r) % 2**64
    kappa = (1 - (c >> 63)) << 64 - shift if shift else 0
    word = (c >> shift) - 2 ** (62 - shift) - (r >> shift) + kappa * (r >> 63)
    return (word + 2**63) % 2**64 - 2**63


def check_words(session, share_integers, integers, tap, window, shift, size):
    """Compare ReLU of edge values with what follows from the masks that were dealt."""
    z = np.resize(np.array(edges_of(window, shift)), size)
    bound = max(1, min((2 ** (window - 1) - 1) << shift, 2**62 - 1))
    x = share_integers(session, z, frac_bits=16 + shift, bound=bound)
    with tap(session) as heard:
        y = relu.relu(x)
    ((_, asked, words),) = heard.dealt
    assert isinstance(asked, SignProducts)
    assert asked.window == window or bound == 2**62 - 1
    r = words[:, :size].sum(axis=0, dtype=np.uint64)
    expected = [max(truncated(int(v), int(mask), shift), 0) for v, mask in zip(z, r, strict=True)]
    assert integers(y).tolist() == expected


@pytest.mark.parametrize("shift", [0, 1, 16, 17, 40])
@pytest.mark.parametrize("window", [2, 5, 8, 20, 24, 33, 47, 63])
def test_the_words_follow_from_the_mask(slow, share_integers, integers, tap, shift, window):
    for size in SIZES:
        check_words(slow, share_integers, integers, tap, min(window, 64 - shift), shift, size)


@pytest.mark.parametrize("digits", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("shift", [0, 16, 40])
def test_any_number_of_digits(slow, share_integers, integers, tap, monkeypatch, digits, shift):
    window = min(1 + WIDEST * digits, 64 - shift, 24)
    chosen = digits_of(split_evenly(window - 1, digits), False)
    monkeypatch.setattr(sign_products, "digits_for", lambda window, shift: chosen)
    monkeypatch.setattr(correlation, "_layouts", {})
    check_words(slow, share_integers, integers, tap, window, shift, 65)


class Fixed:
    """A party's stream of masks, of which the first words are given."""

    def __init__(self, stream, words):
        self.stream, self.words = stream, words

    def at(self, id):
        """Return this: the stream of every block of ids."""
        return self

    def fill(self, out, id, start=0):
        self.stream.fill(out, id, start)
        out[: self.words.size] = self.words


def test_masks_at_the_ends_of_their_range(slow, share_integers, integers, monkeypatch):
    """r, and with it c, at the ends of the ring and of the window."""
    shift, window, random = 16, 32, np.random.default_rng(1)
    ends = [0, 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64 - 2**62, 2**16 - 1, 2**16]
    ends += [2**47 - 1, 2**47, 2**48 - 1, 2**48]
    pairs = [
        (z, r % 2**64)
        for z in edges_of(window, shift)
        for r in (*ends, *(step - z - 2**62 for step in (-1, 0, 1)))
    ]
    z, masks = [z for z, _ in pairs], np.array([r for _, r in pairs], np.uint64)
    shares = random.integers(0, 2**64, (slow.size, masks.size), np.uint64)
    shares[0] = masks - shares[1:].sum(axis=0, dtype=np.uint64)
    x = share_integers(slow, z, frac_bits=32, bound=(2 ** (window - 1) - 1) << shift)
    streams = [Fixed(slow.streams[k].masks, words) for k, words in enumerate(shares)]
    with monkeypatch.context() as patch:
        patch.setattr(slow.source.provider, "mask_streams", streams)
        for party, stream in enumerate(streams):
            patch.setitem(slow.streams, party, replace(slow.streams[party], masks=stream))
        y = relu.relu(x)
    assert integers(y).tolist() == [max(truncated(z, r, shift), 0) for z, r in pairs]


@pytest.mark.parametrize("size", [0, *SIZES, 1000])
def test_cost_of_the_statement(slow, share_integers, spent, size):
    for shift, bound in ((0, 2**31 - 1), (16, 2**47 - 1), (40, 2**62 - 1)):
        x = share_integers(slow, np.zeros(size), frac_bits=16 + shift, bound=bound)
        window = sign_products.window_of(-(-bound >> shift), shift, (1,))
        # So that no party is behind another by what ran before.
        relu.relu(share_integers(slow, np.zeros(size), frac_bits=16 + shift, bound=bound))
        found = spent(slow, lambda x=x: relu.relu(x))
        assert found == sign_products.cost(slow.size, size, shift, window)
        assert found.trips == found.rounds == 2


def test_bytes_of_an_element(slow):
    """What the design states: 536 bytes of correction at L = 32, 7 bits and c are opened."""
    found = sign_products.cost(2, 64, 16, 32)
    assert (found.correction_bytes, found.bytes_sent) == (64 * 536, 64 * 8 + 7 * 8)
    for window, stated in ((20, 240), (24, 288), (27, 368), (36, 648)):
        assert sign_products.cost(2, 64, 16, window).correction_bytes == 64 * stated


def test_products_lend_their_cross_term_to_the_mask(slow):
    a, b = np.linspace(-3, 3, 70), np.linspace(1, 2, 70)
    x, y = slow.share(a, "alice") + 0, slow.share(b, "bob")
    before = slow.cost()
    z = (x * y).relu()
    protocols = (slow.cost() - before).by_protocol
    assert protocols["product"].correction_bytes == 0
    np.testing.assert_allclose(z.reveal(), np.maximum(a * b, 0), atol=2.0**-14)


def test_maxima_take_two_rounds_a_level(slow, spent):
    values = np.random.default_rng(4).integers(-(2**31) + 1, 2**31, (5, 33)) * 2.0**-16
    x = slow.share(values, "bob") + 0
    found = []
    cost = spent(slow, lambda: found.append(pooling.maximum_of_first(x)))
    assert cost.rounds == 3 * 2
    np.testing.assert_array_equal(found[0].reveal(), values.max(axis=0))
    # With the bits for the way back it is three.
    assert spent(slow, lambda: pooling.maximum_with_bits(x)).rounds == 3 * 3


def test_differences_of_any_two_values(slow, wide_edges, share_integers, integers):
    x, y = (share_integers(slow, some) for some in (wide_edges, wide_edges[::-1]))
    found = np.maximum(x, y)
    assert integers(found).tolist() == np.maximum(wide_edges, wide_edges[::-1]).tolist()


def test_a_plan_asks_for_what_the_run_does(slow, tap):
    a = np.linspace(-1, 1, 130)

    def program(s):
        x, w = (s.share(a if s.here else None, n, shape=a.shape) for n in ("alice", "bob"))
        y = (x * w).relu()
        return pooling.maximum_of_first((y + w).relu().reshape(13, 10)).reveal()

    with mpc.Session(slow.parties, network=SLOW) as fresh:
        plan = fresh.plan(program)
        with tap(fresh) as heard:
            program(fresh)
        assert [(id, asked) for id, asked, _ in heard.dealt] == list(plan.correlations)
        assert any(isinstance(asked, SignProducts) for _, asked in plan.correlations)
        assert fresh.cost() == plan.cost and fresh.cost().forms == plan.cost.forms
        assert fresh.cost().trips == plan.cost.trips


def rounds_of(session, size, given=False):
    """Plan a ReLU of a product, and return its rounds and what is said of them."""

    def program(s):
        x, w = (
            s.share(None, name, shape=(size,), dtype=float, bound=bound)
            for name, bound in (("alice", 128), ("alice" if given == "by one" else "bob", 200))
        )
        # Of two that the parties compute neither is masked by one of them.
        return (
            x * w if given else (x - x[::-1]).with_bound(128) * (w - w[::-1]).with_bound(200)
        ).relu()

    cost = session.plan(program).cost
    return cost.by_protocol["relu"].rounds, cost.forms.get("-", "")


@pytest.mark.parametrize(
    ("parties", "given", "size", "expected"),
    # Ten milliseconds a trip, and for two rounds 470 bytes more an element of 0.1 Gbit/s than for three:
    # 295 elements a trip. Three rounds take 18 bytes more than four: 8,000 elements a trip. With an operand
    # from each of two parties two rounds save two trips, and three rounds none.
    [
        (2, False, 250, 2), (2, False, 300, 3), (2, False, 7500, 3), (2, False, 9000, 4),
        (2, True, 500, 2), (2, True, 600, 4), (3, True, 300, 3), (3, True, 9000, 4),
        (2, "by one", 250, 2), (2, "by one", 300, 3),
    ],
)  # fmt: skip
def test_what_saves_time_is_chosen(parties, given, size, expected):
    with mpc.Session(NAMES[:parties], network=mpc.Network(0.02, 100)) as s:
        rounds, said = rounds_of(s, size, given)
        assert rounds == expected and said.startswith(f"{expected} rounds: ")
        behind = given is True and parties == 2
        trips = 20 if expected == 2 else 40 if behind or expected == 4 else 30
        assert f"{expected} rounds: {trips} ms of trips, " in said


def test_three_rounds_where_an_opening_takes_longer_than_the_bytes():
    """A fast network and few elements: a round saves the work of an opening."""
    with mpc.Session(network=mpc.Network(0.0002, 1000)) as s:
        assert [rounds_of(s, size, True)[0] for size in (100, 1000, 3000)] == [3, 3, 4]


def test_the_derivative_takes_three_rounds_or_four():
    with mpc.Session(network=mpc.Network(0.02, 100)) as s:
        found = {}
        for size in (10, 300, 9000):

            def program(p, size=size):
                x = p.share(None, "alice", shape=(size,), dtype=float)
                return relu_with_derivative((x * x).with_bound(2**15 - 1))

            cost = s.plan(program).cost
            found[size] = cost.by_protocol["relu"].rounds
            assert cost.forms["-"].startswith(f"{found[size]} rounds: ")
        assert found == {10: 3, 300: 3, 9000: 4}


@pytest.mark.parametrize("provider", ["crypto", None])
def test_of_very_many_elements_four_rounds_are_taken_where_no_network_is_stated(provider):
    with mpc.Session(provider=provider) as s:
        cost = {size: s.plan(lambda p, n=size: large(p, n)).cost for size in (60_000, 120_000)}
        if provider is None:
            assert all(each.forms == {} for each in cost.values())
            return
        assert [each.by_protocol["relu"].rounds for each in cost.values()] == [3, 4]
        assert cost[60_000].forms == {}
        assert "as no network is stated" in cost[120_000].forms["-"]


def test_where_no_network_is_stated_a_trip_counts_too():
    with mpc.Session() as s:
        assert [rounds_of(s, size, True)[0] for size in (10_000, 30_000)] == [3, 4]
        assert [rounds_of(s, size, False)[0] for size in (10_000, 30_000)] == [3, 3]


def large(session, size):
    """Share so many numbers and take ReLU of a product with a window of 32 bits."""
    x = session.share(None, "alice", shape=(size,), dtype=float)
    return (x * x).with_bound(2**15 - 1).relu()


def test_large_corrections_are_not_held():
    with mpc.Session(network=SLOW) as s:
        assert rounds_of(s, 60_000)[0] == 2
        rounds, said = rounds_of(s, 70_000)
        assert rounds == 3 and "held" in said
    limit = sign_products.cost(2, 100, 16, 32).correction_bytes
    for given, expected in ((limit, 2), (limit - 1, 3)):
        with mpc.Session(network=SLOW, memory_limit=given) as s:
            assert rounds_of(s, 100)[0] == expected


def test_without_a_network_or_a_provider_nothing_is_chosen():
    with mpc.Session() as s:
        assert rounds_of(s, 1) == (3, "")
    with mpc.Session(provider=None, network=SLOW) as s:
        x = s.share(np.array([1.5, -2.0]), "alice")
        assert x.relu().reveal().tolist() == [1.5, 0.0]
        assert s.cost().forms == {}


def test_the_derivative_takes_three_rounds(slow, spent):
    x = slow.share(np.array([1.5, -2.0]), "alice") + 0
    assert spent(slow, lambda: relu_with_derivative(x)).rounds == 3


def test_a_cost_says_which_form_each_layer_took():
    with mpc.Session(network=mpc.Network(0.02, 100)) as s:
        before = s.cost()
        for name, size in (("few", 10), ("many", 1000)):
            with s.layer(name):
                (s.share(np.ones(size), "alice") + 0).relu()
        cost = s.cost()
        assert [said[:9] for said in cost.forms.values()] == ["2 rounds:", "3 rounds:"]
        assert cost.forms == (cost - before).forms
        assert str(cost).endswith(f"  many  {cost.forms['many']}")


@pytest.mark.parametrize("values", [(0, 100), (0.02, -1), (True, 1), ("1", 1), (float("nan"), 1)])
def test_networks_that_are_none(values):
    with pytest.raises(mpc.ArgumentError, match="must be a positive number"):
        mpc.Network(*values)


def test_a_session_takes_a_network_and_nothing_else():
    with pytest.raises(mpc.DtypeError, match=r"network must be an mpc\.Network, got 3"):
        mpc.Session(network=3)
