"""Products by ring-LWE as a pair makes them: exact, counted, in lock step and apart, with lazy keys."""

import numpy as np
import pytest

from mpc.core.errors import PeerClosedError, RangeError
from mpc.two_party import product as by_transfers
from mpc.two_party.channel import LockStep, Planned, send, stream
from mpc.two_party.cost import Cost
from mpc.two_party.pair import Pair
from mpc.two_party.rlwe_images import ImageConvolution
from mpc.two_party.rlwe_layouts import KeptRight, choose_left, choose_mask, choose_right
from mpc.two_party.rlwe_parameters import PARAMETERS
from mpc.two_party.rlwe_products import Product
from mpc.two_party.rlwe_protocol import cross_cost, product_cost
from mpc.two_party.rlwe_slots import SLOT_PARAMETERS, SlotProduct
from ring.bits import WORD_BITS
from tests.helpers.rlwe import exact_product, some_words

# Several polynomials in a message, several messages, several groups.
MATRICES = [(1, 1, 1), (13, 50, 7), (40, 9, 70), (3, 9000, 2), (0, 3, 2), (3, 0, 2)]
KINDS = ("random", "extreme", "half")


def images(kept_images):
    return ImageConvolution(2, 8, 9, 5, 4, (3, 3), (2, 1), kept_images)


def joined(shares):
    return shares.sum(axis=0, dtype=np.uint64)


def split(values, seed):
    second = some_words(values.shape, "random", seed)
    return np.stack([values - second, second])


def known(pair, owner, values):
    """What this process gives for an operand that one party knows."""
    return values if owner in pair.parties else None


def of_shares(pair, shares):
    return shares[list(pair.parties)]


@pytest.fixture
def counted(pair):
    """Run a program, and return what it gives, and what it has cost once keys are there."""

    def run(program, *keys):
        for parameters, keeper in keys:
            pair.keys(parameters, keeper)
        channel = pair.channel
        rounds, sent = channel.rounds, list(channel.sent)
        result = program(pair)
        online = tuple(a - b for a, b in zip(channel.sent, sent, strict=True))
        measured = Cost(rounds=channel.rounds - rounds, sent=online)
        _, planned = Pair.plan(program)
        assert planned == measured
        return result, measured

    return run


@pytest.mark.parametrize("keeper", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", MATRICES)
def test_any_numbers_that_one_party_each_knows(pair, counted, shape, kind, keeper):
    """Way G."""
    m, k, n = shape
    product = Product.choose(choose_left(m, k, n))
    x, w = some_words((m, k), kind, 1), some_words((k, n), kind, 2)

    def program(pair):
        x_known, w_known = known(pair, keeper, x), known(pair, 1 - keeper, w)
        return pair.multiply_private(product, keeper, x_known, w_known, product.fresh_life())

    shares, measured = counted(program, (product.parameters, keeper))
    assert np.array_equal(joined(shares), exact_product(x, w))
    assert measured == product_cost(product, keeper)


@pytest.mark.parametrize("keeper", [0, 1])
@pytest.mark.parametrize("bound", [1, 2**20, 2**31])
@pytest.mark.parametrize("shape", [*MATRICES, (128, 200, 128)])
def test_masks_times_weights_of_the_other_party(pair, counted, shape, bound, keeper):
    """Way A, and then what the mask is for: x w of the keeper's x, for the bytes of x - mask."""
    m, k, n = shape
    layout = choose_mask(m, k, n)
    product = Product.choose(layout, bound=bound, products=10, random=layout.dense)
    w = np.random.default_rng(1).choice(np.array([bound, -bound, 0, bound // 3]), (k, n))
    w = w.astype(np.int64).view(np.uint64)
    life = product.fresh_life()

    def program(pair):
        return pair.multiply_mask(product, keeper, known(pair, 1 - keeper, w), life)

    (mask, shares), measured = counted(program, (product.parameters, keeper))
    assert np.array_equal(joined(shares), exact_product(mask, w))
    assert measured == product_cost(product, keeper)
    # What a plan does is not answered.
    assert life.answered == product.answered
    x = some_words((m, k), "extreme", 3)
    opened = send(pair.channel, keeper, m * k, (x - mask).reshape(-1)).reshape(m, k)
    shares[1 - keeper] += product.multiply(opened, w)
    assert np.array_equal(joined(shares), exact_product(x, w))


@pytest.mark.parametrize("keeper", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", MATRICES)
def test_weights_that_stay(pair, counted, shape, kind, keeper):
    """Way B: one operand for products of different sizes."""
    m, k, n = shape
    product = Product.choose(choose_right(m, k, n))
    w = some_words((k, n), kind, 1)

    rows = [some_words((m, k), kind, seed) for seed in (2, 3)]

    def program(pair):
        kept = pair.keep(product, keeper, known(pair, keeper, w))
        return [
            pair.multiply_kept(product, kept, known(pair, 1 - keeper, x), product.fresh_life())
            for x in rows
        ]

    shares, measured = counted(program, (product.parameters, keeper))
    for x, some in zip(rows, shares, strict=True):
        assert np.array_equal(joined(some), exact_product(x, w))
    # Asked once, answered twice.
    assert measured == product_cost(product, keeper) + product_cost(product, keeper, kept=True)


def test_kept_weights_serve_another_number_of_rows(pair):
    w = some_words((50, 20), "random")
    few, more = (Product.choose(KeptRight(m, 50, 20, 4, 20)) for m in (2, 9))
    assert few.parameters is more.parameters
    kept = pair.keep(few, 0, w)
    for product in (few, more):
        x = some_words(product.mixed_shape, "extreme", 1)
        shares = pair.multiply_kept(product, kept, x, product.fresh_life())
        assert np.array_equal(joined(shares), exact_product(x, w))


@pytest.mark.parametrize("kept_images", [False, True])
@pytest.mark.parametrize("keeper", [0, 1])
def test_images(pair, counted, kept_images, keeper):
    product = Product.choose(images(kept_images))
    x, w = some_words(product.kept_shape, "extreme", 1), some_words(product.mixed_shape, "half", 2)

    def program(pair):
        x_known, w_known = known(pair, keeper, x), known(pair, 1 - keeper, w)
        return pair.multiply_private(product, keeper, x_known, w_known, product.fresh_life())

    shares, measured = counted(program, (product.parameters, keeper))
    assert np.array_equal(joined(shares), product.multiply(x, w))
    assert measured == product_cost(product, keeper)


PRODUCTS = {
    **{f"matrices {shape}": Product.choose(choose_left(*shape)) for shape in MATRICES},
    "images": Product.choose(images(False)),
    "kept images": Product.choose(images(True)),
    "slots": SlotProduct(1000),
    "many slots": SlotProduct(5 * 8192 - 7),
    "no slots": SlotProduct(0),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PRODUCTS)
def test_what_both_share(pair, counted, name, kind):
    product = PRODUCTS[name]
    x, w = some_words(product.kept_shape, kind, 1), some_words(product.mixed_shape, kind, 2)
    x_shares, w_shares = split(x, 3), split(w, 4)

    def program(pair):
        mine = of_shares(pair, x_shares), of_shares(pair, w_shares)
        return pair.multiply_shared(product, *mine, product.fresh_life())

    keys = [(product.parameters, party) for party in (0, 1)]
    shares, measured = counted(program, *keys)
    assert np.array_equal(joined(shares), product.multiply(x, w))
    assert measured == cross_cost(product)


def test_rounds(pair, counted):
    """However many messages they are made in."""
    product = Product.choose(choose_left(40, 9000, 70))
    assert len(product.operand_words()) > 2 and len(product.answer_words()) > 2
    assert product_cost(product, 0).rounds == cross_cost(product).rounds == 2
    assert product_cost(product, 0, kept=True).rounds == 1
    x, w = some_words((40, 9000), "random", 1), some_words((9000, 70), "random", 2)

    def program(pair):
        x_known, w_known = known(pair, 0, x), known(pair, 1, w)
        return pair.multiply_private(product, 0, x_known, w_known, product.fresh_life())

    shares, measured = counted(program, (product.parameters, 0))
    assert np.array_equal(joined(shares), product.multiply(x, w))
    assert measured == product_cost(product, 0)


def test_matrices_of_both_are_what_python_says(pair):
    product = Product.choose(choose_left(9, 30, 11))
    x, w = some_words((2, 9, 30), "extreme", 1), some_words((2, 30, 11), "random", 2)
    shares = pair.multiply_shared(product, x, w, product.fresh_life())
    assert np.array_equal(joined(shares), exact_product(joined(x), joined(w)))


def test_cross_products_are_the_two_mixed_terms(pair):
    product = Product.choose(choose_left(9, 30, 11))
    x, w = some_words((2, 9, 30), "extreme", 1), some_words((2, 30, 11), "random", 2)
    shares = pair.cross_products(product, x, w, product.fresh_life())
    expected = exact_product(x[0], w[1]) + exact_product(x[1], w[0])
    assert np.array_equal(joined(shares), expected)


def test_slots_and_transfers_multiply_alike(pair):
    x, y = some_words((2, 130), "extreme", 1), some_words((2, 130), "random", 2)
    product = SlotProduct(130)
    slots = pair.multiply_shared(product, x, y, product.fresh_life())
    assert np.array_equal(joined(slots), joined(by_transfers.multiply(pair, x, y)))
    assert np.array_equal(joined(slots), joined(x) * joined(y))


def test_slots_of_numbers_that_one_party_each_knows(pair, counted):
    product = SlotProduct(9000)
    x, w = some_words((9000,), "extreme", 1), some_words((9000,), "random", 2)

    def program(pair):
        x_known, w_known = known(pair, 1, x), known(pair, 0, w)
        return pair.multiply_private(product, 1, x_known, w_known, product.fresh_life())

    shares, measured = counted(program, (SLOT_PARAMETERS, 1))
    assert np.array_equal(joined(shares), x * w)
    assert measured == product_cost(product, 1)


def everything(pair):
    """Each way once; return all shares."""
    given = Product.choose(choose_left(13, 50, 7))
    masked = Product.choose(choose_left(30, 40, 5, dense=True), bound=2**20, random=True)
    stays = Product.choose(choose_right(2, 50, 20))
    slots = SlotProduct(3 * WORD_BITS)
    x, w = some_words((13, 50), "random", 1), some_words((50, 7), "extreme", 2)
    weights = some_words((40, 5), "random", 3) >> np.uint64(44)
    stayed, rows = some_words((50, 20), "half", 4), some_words((2, 50), "random", 5)
    both = split(x, 6), split(w, 7)
    numbers = some_words((2, slots.size), "extreme", 8)
    mask, times_mask = pair.multiply_mask(masked, 1, known(pair, 0, weights), masked.fresh_life())
    kept = pair.keep(stays, 0, known(pair, 0, stayed))
    return mask, weights, {
        "private": (
            pair.multiply_private(
                given, 1, known(pair, 1, x), known(pair, 0, w), given.fresh_life()
            ),
            exact_product(x, w),
        ),
        "masked": (times_mask, None),
        "kept": (
            pair.multiply_kept(stays, kept, known(pair, 1, rows), stays.fresh_life()),
            exact_product(rows, stayed),
        ),
        "shared": (
            pair.multiply_shared(
                given, *(of_shares(pair, part) for part in both), given.fresh_life()
            ),
            exact_product(x, w),
        ),
        "slots": (
            pair.multiply_shared(
                slots, *(of_shares(pair, numbers),) * 2, slots.fresh_life()
            ),
            joined(numbers) ** 2,
        ),
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["ends", "sockets"])
def test_apart(request, run_both, kind):
    ends = request.getfixturevalue(kind)
    alice, bob = run_both([lambda: everything(Pair(ends[0])), lambda: everything(Pair(ends[1]))])
    assert alice[0] is None
    for name, (mine, expected) in alice[2].items():
        total = joined(np.concatenate([mine, bob[2][name][0]]))
        wanted = exact_product(bob[0], bob[1]) if expected is None else expected
        assert np.array_equal(total, wanted), name


def test_apart_sends_what_lock_step_counts(ends, run_both):
    channel = LockStep()
    everything(Pair(channel))
    run_both([lambda: everything(Pair(ends[0])), lambda: everything(Pair(ends[1]))])
    assert [end.sent for end in ends] == channel.sent


def test_keys_are_made_once_when_they_are_needed():
    channel = LockStep()
    pair = Pair(channel)
    product = Product.choose(choose_left(3, 4, 5))
    rounds = channel.rounds
    keys = pair.keys(product.parameters, 0)
    assert channel.rounds == rounds + 1
    assert pair.keys(product.parameters, 0) is keys
    assert channel.rounds == rounds + 1
    other = pair.keys(product.parameters, 1)
    assert other.keeper == 1 and other.secret is not keys.secret
    assert pair.keys(PARAMETERS[0], 0) is not pair.keys(PARAMETERS[2], 0)


def test_a_session_has_random_strings_of_its_own():
    """The same seed, and the same message, in another session or of another keeper: another string."""
    one, other = Pair(LockStep()), Pair(LockStep())
    labels = [pair.keys(PARAMETERS[0], k).secret.label for pair in (one, other) for k in (0, 1)]
    assert len(set(labels)) == 4
    product = Product.choose(choose_left(3, 4, 5))
    x = some_words((3, 4), "random")
    keys = [one.keys(product.parameters, 0), one.keys(product.parameters, 1)]
    data = next(product.encrypt(keys[0].secret, x)).tobytes()
    read = [product.read(key.public, data, 1, "alice").c_1 for key in keys]
    assert not np.array_equal(*read)


def test_a_refused_operand_leaves_no_half_of_a_product(pair):
    product = Product.choose(choose_left(3, 4, 5), bound=7)
    x, w = some_words((3, 4), "random"), some_words((4, 5), "ones")
    life = product.fresh_life()
    pair.keys(product.parameters, 0)
    sent = list(pair.channel.sent)
    with pytest.raises(RangeError, match="must be at most 7"):
        pair.multiply_private(product, 0, x, np.full((4, 5), 8, np.uint64), life)
    assert pair.channel.sent == sent and life.answered == 0
    shares = pair.multiply_private(product, 0, x, w, life)
    assert np.array_equal(joined(shares), exact_product(x, w))


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_after_a_lost_message_a_product_is_made_with_new_keys(ends, run_both, after):
    """Whichever message it was: of a key, of an operand, of an answer."""
    product = Product.choose(choose_left(3, 4, 5))
    x, w = some_words((2, 3, 4), "random", 1), some_words((2, 4, 5), "random", 2)
    pairs = run_both([lambda: Pair(ends[0]), lambda: Pair(ends[1])])
    ends[1].fail_after = ends[1].messages + after

    def side(k):
        return pairs[k].multiply_shared(product, x[k, None], w[k, None], product.fresh_life())

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(type(ends[0]).swap.__globals__, "TIMEOUT", 1.0)
        with pytest.raises(PeerClosedError, match="alice"):
            run_both([lambda: lost(side), lambda: side(1)])
    ends[1].fail_after = None
    for end in ends:
        end.drain()
    run_both([pairs[0].resume, pairs[1].resume])
    shares = run_both([lambda: side(0), lambda: side(1)])
    assert np.array_equal(sum(shares)[0], exact_product(joined(x), joined(w)))


def lost(side):
    """What alice does, whose time is over before bob's."""
    try:
        return side(0)
    except TimeoutError:
        return None


class TestStreams:
    def test_pieces_are_one_round(self):
        channel = LockStep()
        made = []

        def pieces():
            for k in range(3):
                made.append(k)
                yield np.full(k + 1, k, np.uint64)

        for k, got in enumerate(stream(channel, 1, [1, 2, 3], pieces())):
            # Made when its turn comes, not before.
            assert made == list(range(k + 1)) and got.tolist() == [k] * (k + 1)
        assert channel.rounds == 1 and channel.sent == [0, 48]
        send(channel, 1, 1, np.zeros(1, np.uint64))
        assert channel.rounds == 2

    def test_nothing_is_no_round(self):
        channel = Planned()
        assert list(stream(channel, 0, [0, 0], None)) == [None, None]
        assert channel.rounds == 0
        assert list(stream(channel, 0, [0, 2, 0, 3], None)) == [None] * 4
        assert channel.rounds == 1 and channel.sent == [40, 0]
