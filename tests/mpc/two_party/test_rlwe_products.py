"""Products of two parties by ring-LWE: exact modulo 2^64, in threads, in lock step, in two processes."""

import multiprocessing
import re

import numpy as np
import pytest

from mpc.core.errors import (
    ArgumentError,
    DtypeError,
    FrameError,
    RangeError,
    SessionError,
    ShapeError,
)
from mpc.two_party.channel import LockStep
from mpc.two_party.cost import Cost
from mpc.two_party.rlwe_answers import Life
from mpc.two_party.rlwe_ciphertexts import Ciphertexts
from mpc.two_party.rlwe_images import ImageConvolution
from mpc.two_party.rlwe_keys import PublicKey, SecretKey
from mpc.two_party.rlwe_layouts import (
    KeptLeft,
    KeptRight,
    choose_left,
    choose_mask,
    choose_right,
)
from mpc.two_party.rlwe_parameters import PARAMETERS
from mpc.two_party.rlwe_products import Product
from mpc.two_party.rlwe_protocol import (
    Kept,
    Keys,
    cross_products,
    keep,
    make_keys,
    multiply_kept,
    multiply_mask,
    multiply_private,
    product_cost,
)
from tests.helpers.rlwe import (
    ALARM,
    chance_of_uniform_words,
    exact_product,
    keys_of,
    some_words,
)

KINDS = ("random", "extreme", "ones", "half", "zeros")


def small_words(shape, bound, seed):
    """Signed numbers up to a bound, with both ends."""
    random = np.random.default_rng(seed)
    ends = np.array(
        [bound % 2**64, -bound % 2**64, 0, bound // 3, -(bound // 3) % 2**64], np.uint64
    )
    return random.choice(ends, shape)


def in_lock_step(product, x, w):
    """Both parties in one thread; what is given is kept. Return the operand, C_0 and C_1."""
    channel, keys = LockStep(), keys_of(product.parameters)
    if x is None:
        x, shares = multiply_mask(channel, product, keys, w, product.fresh_life())
    else:
        kept = keep(channel, product, keys, x)
        assert channel.sent == [product.operand_bytes(), 0]
        memory = kept.ciphertexts.c_0.nbytes + kept.ciphertexts.c_1.nbytes
        assert memory == product.memory_bytes()
        shares = multiply_kept(channel, product, kept, w, product.fresh_life())
    assert channel.sent == [product.operand_bytes(), product.answer_bytes()]
    assert Cost(rounds=channel.rounds, sent=tuple(channel.sent)) == product_cost(product, 0)
    return x, shares[1], shares[0]


def as_it_arrives(product, x, w):
    """The same, by a mixer that keeps nothing of the keeper's operand."""
    channel, keys = LockStep(), keys_of(product.parameters)
    shares = multiply_private(channel, product, keys, x, w, product.fresh_life())
    assert Cost(rounds=channel.rounds, sent=tuple(channel.sent)) == product_cost(product, 0)
    return x, shares[1], shares[0]


SHAPES = [
    (1, 1, 1), (1, 30, 1), (1, 9, 40), (40, 9, 1), (17, 1, 5), (13, 50, 7), (100, 90, 33),
    (0, 3, 2), (3, 0, 2), (3, 2, 0),
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_way_g_any_numbers_on_both_sides(shape, kind):
    m, k, n = shape
    product = Product.choose(choose_left(m, k, n))
    x, w = some_words((m, k), kind, 1), some_words((k, n), kind, 2)
    for way in (in_lock_step, as_it_arrives):
        _, c_0, c_1 = way(product, x, w)
        assert np.array_equal(c_0 + c_1, exact_product(x, w))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_way_b_the_keepers_operand_stays(shape, kind):
    m, k, n = shape
    product = Product.choose(choose_right(m, k, n))
    x, w = some_words((m, k), kind, 1), some_words((k, n), kind, 2)
    _, c_0, c_1 = in_lock_step(product, w, x)
    assert np.array_equal(c_0 + c_1, exact_product(x, w))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bound", [0, 1, 2**20, 2**31])
def test_way_a_masks_from_random_strings(shape, bound):
    m, k, n = shape
    layout = choose_left(m, k, n, dense=True)
    product = Product.choose(layout, bound=bound, products=1000, random=True)
    assert product.parameters.name == "q180"
    w = small_words((k, n), bound, 1)
    x, c_0, c_1 = in_lock_step(product, None, w)
    assert x.shape == (m, k)
    assert np.array_equal(c_0 + c_1, exact_product(x, w))


@pytest.mark.parametrize("shape", [*SHAPES, (128, 200, 128)])
def test_masks_by_whatever_takes_least(shape):
    """A mask from random strings, or one that is drawn: uniform, and right."""
    m, k, n = shape
    layout = choose_mask(m, k, n)
    product = Product.choose(layout, bound=2**20, random=layout.dense)
    x, c_0, c_1 = in_lock_step(product, None, small_words((k, n), 2**20, 1))
    assert np.array_equal(c_0 + c_1, exact_product(x, small_words((k, n), 2**20, 1)))
    if m * k > 20_000:
        assert not layout.dense and chance_of_uniform_words(x) > ALARM


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_way_g_with_masks_from_random_strings(shape, kind):
    m, k, n = shape
    product = Product.choose(choose_left(m, k, n, dense=True), random=True)
    w = some_words((k, n), kind, 1)
    x, c_0, c_1 = in_lock_step(product, None, w)
    assert np.array_equal(c_0 + c_1, exact_product(x, w))
    given = Product(product.layout, product.parameters, product.bound, product.life)
    assert product.operand_bytes() < 0.8 * given.operand_bytes() or not m * k


@pytest.mark.parametrize("parameters", PARAMETERS, ids=lambda p: p.name)
@pytest.mark.parametrize("packing", [(8, 1), (8, 1024), (64, 3), (2, 5), (1, 77), (8192, 1)])
@pytest.mark.parametrize("kind", [KeptLeft, KeptRight])
def test_every_packing_with_every_modulus(parameters, packing, kind):
    """Runs of every length, several groups on both sides, more messages than one."""
    layout = kind(70, 37, 80, *packing)
    if layout.kept_groups * layout.terms > 200:
        layout = kind(9, 7, 3, *packing)
    bound = {"q180": 2**20, "q192": 2**49, "q210": 2**63}[parameters.name]
    life = layout.kept_groups * layout.mixed_groups * len(layout.places)
    product = Product(layout, parameters, bound, life)
    x = some_words(layout.kept_shape, "extreme", 1)
    w = small_words(layout.mixed_shape, bound, 2)
    left, right = (x, w) if kind is KeptLeft else (w, x)
    for way in (in_lock_step, as_it_arrives):
        _, c_0, c_1 = way(product, x, w)
        assert np.array_equal(c_0 + c_1, exact_product(left, right))


def test_what_arrives_is_multiplied_in_pieces():
    """Two groups, of more polynomials than one message holds."""
    product = Product.choose(KeptLeft(9, 20 * 1024 + 5, 3, 8, 1), bound=2**20)
    assert product.layout.kept_groups == 2 and product.layout.terms == 21
    x = some_words(product.layout.kept_shape, "random")
    w = small_words(product.layout.mixed_shape, 2**20, 1)
    _, c_0, c_1 = as_it_arrives(product, x, w)
    assert np.array_equal(c_0 + c_1, x @ w)


@pytest.mark.parametrize("kept_images", [False, True])
@pytest.mark.parametrize("kind", ["random", "extreme", "half"])
def test_convolutions(kept_images, kind):
    layout = ImageConvolution(3, 14, 14, 50, 4, (3, 3), (2, 1), kept_images)
    product = Product.choose(layout)
    x, w = some_words(layout.kept_shape, kind, 1), some_words(layout.mixed_shape, kind, 2)
    _, c_0, c_1 = in_lock_step(product, x, w)
    assert np.array_equal(c_0 + c_1, layout.multiply(x, w))
    assert layout.terms > 1 and layout.kept_groups * layout.mixed_groups > 1


def test_one_operand_serves_many_products():
    """Way B: weights encrypted once, every mask its own product."""
    product = Product.choose(KeptRight(2, 50, 20, 1, 20))
    channel = LockStep()
    w = some_words((50, 20), "random")
    kept = keep(channel, product, keys_of(product.parameters), w)
    for seed in range(3):
        x = some_words((2, 50), "extreme", seed)
        shares = multiply_kept(channel, product, kept, x, product.fresh_life())
        assert np.array_equal(shares[0] + shares[1], exact_product(x, w))
    assert channel.sent[0] == product.operand_bytes()


def test_two_threads_with_keys_of_their_own_multiply_what_both_share(ends, run_both):
    product = Product.choose(choose_left(20, 30, 10))
    random = np.random.default_rng(1)
    x, w = (random.integers(0, 2**64, s, np.uint64) for s in ((2, 20, 30), (2, 30, 10)))

    def party(me, channel):
        keys = [make_keys(channel, bytes(32), keeper, product.parameters) for keeper in (0, 1)]
        assert [made.secret is not None for made in keys] == [me == 0, me == 1]
        life = product.fresh_life()
        own = cross_products(channel, product, keys, x[me, None], w[me, None], life)
        return own[0] + product.multiply(x[me], w[me])

    shares = run_both([lambda: party(0, ends[0]), lambda: party(1, ends[1])])
    assert np.array_equal(shares[0] + shares[1], exact_product(x[0] + x[1], w[0] + w[1]))


class Wire:
    """One party's channel over a pipe between processes."""

    def __init__(self, party, connection):
        self.parties, self.names, self._connection = (party,), ("alice", "bob"), connection

    def swap(self, messages, counts, *, continued=False):
        party = self.parties[0]
        assert [m.size for m in messages] == [counts[party]] and 0 in counts
        if counts[party]:
            self._connection.send_bytes(messages[0].tobytes())
        data = self._connection.recv_bytes() if counts[1 - party] else b""
        return [np.frombuffer(data, np.uint64)]


def keep_in_a_process(connection, back):
    product = Product.choose(choose_left(30, 40, 5, dense=True), bound=2**20, random=True)
    channel = Wire(1, connection)
    keys = make_keys(channel, bytes(32), 1, product.parameters)
    mask, shares = multiply_mask(channel, product, keys, None, product.fresh_life())
    back.send((mask, shares[0]))


def test_two_processes():
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    result, back = context.Pipe(duplex=False)
    process = context.Process(target=keep_in_a_process, args=(theirs, back))
    process.start()
    try:
        product = Product.choose(choose_left(30, 40, 5, dense=True), bound=2**20, random=True)
        channel = Wire(0, mine)
        keys = make_keys(channel, bytes(32), 1, product.parameters)
        w = small_words((40, 5), 2**20, 3)
        mask, c_0 = multiply_mask(channel, product, keys, w, product.fresh_life())
        assert mask is None
        assert result.poll(60)
        x, c_1 = result.recv()
        assert np.array_equal(c_0[0] + c_1, exact_product(x, w))
    finally:
        process.join(60)
        process.kill()


@pytest.mark.parametrize("way", ["A", "B", "G"])
@pytest.mark.parametrize("kind", ["zeros", "half", "random"])
def test_shares_are_uniform_whatever_is_multiplied(way, kind):
    m, k, n = 128, 8, 64
    if way == "A":
        bound = 2**31
        layout = KeptLeft(m, k, n, 128, 1)
        product = Product.choose(layout, bound=bound, random=True)
        x, w = None, some_words((k, n), kind) >> np.uint64(33)
    elif way == "B":
        product = Product.choose(KeptRight(m, k, n, 128, n))
        x, w = some_words((k, n), kind, 1), some_words((m, k), kind, 2)
    else:
        product = Product.choose(KeptLeft(m, k, n, 128, 1))
        x, w = some_words((m, k), kind, 1), some_words((k, n), kind, 2)
    _, c_0, c_1 = in_lock_step(product, x, w)
    for share in (c_0, c_1):
        assert chance_of_uniform_words(share) > ALARM


def test_bounds_are_kept():
    """An operand larger than declared is refused before anything is sent or counted."""
    product = Product.choose(KeptLeft(8, 4, 2, 8, 1), bound=1000)
    channel, keys = LockStep(), keys_of(product.parameters)
    x = some_words((8, 4), "random")
    kept, life = keep(channel, product, keys, x), product.fresh_life()
    sent = list(channel.sent)
    for value in (1001, -1001, 2**63, -(2**63)):
        w = np.zeros((4, 2), np.int64)
        w[3, 1] = value if value < 2**63 else value - 2**64
        w = w.view(np.uint64)
        for call in (
            lambda w=w: multiply_kept(channel, product, kept, w, life),
            lambda w=w: multiply_private(channel, product, keys, x, w, life),
            lambda w=w: multiply_mask(channel, product, keys, w, life),
            lambda w=w: cross_products(
                channel,
                product,
                (keys, bobs_keys(product)),
                np.stack([x, x]),
                np.stack([w, w]),
                life,
            ),
        ):
            with pytest.raises(RangeError, match="must be at most 1000 in magnitude"):
                call()
    assert life.answered == 0 and channel.sent == sent
    for value in (1000, -1000):
        w = np.full((4, 2), value, np.int64).view(np.uint64)
        multiply_kept(channel, product, kept, w, product.fresh_life())


def bobs_keys(product):
    keys = keys_of(product.parameters)
    return Keys(1, keys.secret, keys.public)


def test_a_life_ends():
    product = Product.choose(KeptLeft(8, 4, 2, 8, 1), bound=1000, products=2)
    channel, keys = LockStep(), keys_of(product.parameters)
    w, life = some_words((4, 2), "zeros"), product.fresh_life()
    x = some_words((8, 4), "random")
    kept = keep(channel, product, keys, x)
    multiply_kept(channel, product, kept, w, life)
    multiply_private(channel, product, keys, x, w, life)
    sent = list(channel.sent)
    both = keys, bobs_keys(product)
    for call in (
        lambda life: multiply_kept(channel, product, kept, w, life),
        lambda life: multiply_private(channel, product, keys, x, w, life),
        lambda life: multiply_mask(channel, product, keys, w, life),
        lambda life: cross_products(
            channel, product, both, np.stack([x, x]), np.stack([w, w]), life
        ),
    ):
        with pytest.raises(SessionError, match="32 coefficients of an operand's 32 are answered"):
            call(life)
        with pytest.raises(ArgumentError, match="the product allows 32"):
            call(Life(33))
    assert channel.sent == sent


def test_products_that_break_the_rule_are_refused():
    layout = KeptLeft(1000, 784, 128, 1024, 1)
    small, middle, large = PARAMETERS
    assert Product(layout, large, 2**63, 128_000).parameters is large
    with pytest.raises(RangeError, match="parameters q192 flood 126 bits.*above 2\\^-40"):
        Product(layout, middle, 2**63, 128_000)
    with pytest.raises(RangeError, match="parameters q180 flood 114 bits"):
        Product(layout, small, 2**63, 128_000)
    with pytest.raises(RangeError, match="life must be at least 128000"):
        Product(layout, large, 2**63, 127_999)
    with pytest.raises(RangeError, match=re.escape("bound must be in [0, 2^63]")):
        Product(layout, large, 2**63 + 1, 128_000)
    with pytest.raises(RangeError, match="parameters q210 flood 144 bits"):
        Product.choose(layout, products=10**6)
    with pytest.raises(ArgumentError, match="may be random"):
        Product(KeptLeft(8, 8, 8, 8, 2), large, 1, 10**6, random=True)


def test_the_sum_counts_every_coefficient_of_an_answer():
    """With several columns, or rows of the mixer's, in one polynomial, all of them make noise."""
    for layout, used in (
        (KeptLeft(128, 784, 128, 128, 1), 784),
        (KeptLeft(128, 784, 128, 128, 4), 784 * 4),
        (KeptRight(8, 784, 128, 8, 128), 784 * 8),
        (ImageConvolution(1, 14, 14, 16, 16, (3, 3)), 16 * 14 * 14),
    ):
        assert layout.used == used
        product = Product.choose(layout)
        assert product.parameters.distance(2**63 * used, product.life) <= 2**-40


def test_arguments_that_do_not_fit():
    product = Product.choose(KeptLeft(8, 4, 2, 8, 1), bound=1000)
    channel, keys = LockStep(), keys_of(product.parameters)
    with pytest.raises(DtypeError, match="the keeper's operand must be a uint64 array"):
        keep(channel, product, keys, np.zeros((8, 4)))
    with pytest.raises(DtypeError, match="the keeper's operand must be a uint64 array"):
        keep(channel, product, keys, None)
    with pytest.raises(ShapeError, match=re.escape("must have shape (8, 4), got (4, 8)")):
        keep(channel, product, keys, np.zeros((4, 8), np.uint64))
    assert channel.sent == [0, 0]
    kept = keep(channel, product, keys, np.zeros((8, 4), np.uint64))
    life, sent = product.fresh_life(), list(channel.sent)
    x, w = np.zeros((8, 4), np.uint64), np.zeros((4, 2), np.uint64)
    with pytest.raises(DtypeError, match="the mixer's operand must be a uint64 array"):
        multiply_kept(channel, product, kept, np.zeros((4, 2)), life)
    with pytest.raises(ShapeError, match=re.escape("must have shape (4, 2), got (2, 4)")):
        multiply_kept(channel, product, kept, np.zeros((2, 4), np.uint64), life)
    other = keys_of(PARAMETERS[2])
    for call in (
        lambda: keep(channel, product, other, x),
        lambda: multiply_private(channel, product, other, x, w, life),
        lambda: multiply_mask(channel, product, other, w, life),
        lambda: multiply_kept(channel, product, Kept(other, kept.ciphertexts), w, life),
        lambda: multiply_private(channel, product, Keys(0, keys.secret, other.public), x, w, life),
    ):
        with pytest.raises(ArgumentError, match="parameters q210, the product q180"):
            call()
    ciphertexts = kept.ciphertexts
    few = Ciphertexts(ciphertexts.parameters, ciphertexts.c_0[:, :0], ciphertexts.c_1[:, :0])
    with pytest.raises(ShapeError, match="the keeper's operand must have 1 polynomials, got 0"):
        multiply_kept(channel, product, Kept(keys, few), w, life)
    wrong = Ciphertexts(PARAMETERS[1], ciphertexts.c_0, ciphertexts.c_1)
    with pytest.raises(ArgumentError, match="the keeper's operand has parameters q192"):
        multiply_kept(channel, product, Kept(keys, wrong), w, life)
    assert life.answered == 0 and channel.sent == sent


class Garbling(LockStep):
    """A channel on which what arrives is changed."""

    def __init__(self, change):
        super().__init__()
        self._change = change

    def swap(self, messages, counts, *, continued=False):
        return [
            m if not m.size else self._change(m)
            for m in super().swap(messages, counts, continued=continued)
        ]


ALL_ONES = np.uint64(2**64 - 1)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda words: words[:-1], " has sent"),
        (lambda words: np.append(words, np.uint64(0)), " has sent"),
        (lambda words: words[:0], " has sent"),
        (lambda words: np.concatenate([words[:2], np.full(len(words) - 2, ALL_ONES)]), "'s {}"),
    ],
)
def test_garbled_messages_are_refused(change, what):
    product = Product.choose(KeptLeft(8, 4, 2, 8, 1), bound=1000)
    keys = keys_of(product.parameters)
    x, w = np.zeros((8, 4), np.uint64), np.zeros((4, 2), np.uint64)
    channel = Garbling(change)
    with pytest.raises(FrameError, match="alice" + what.format("ciphertexts")):
        keep(channel, product, keys, x)
    with pytest.raises(FrameError, match="alice" + what.format("ciphertexts")):
        multiply_private(channel, product, keys, x, w, product.fresh_life())
    with pytest.raises(FrameError, match="alice" + what.format("public key")):
        make_keys(channel, bytes(32), 0, product.parameters)
    # Of any words some are an answer.
    kept = keep(LockStep(), product, keys, x)
    if "{" not in what:
        with pytest.raises(FrameError, match="bob" + what):
            multiply_kept(channel, product, kept, w, product.fresh_life())


def test_keys_travel():
    keys = make_keys(LockStep(), bytes(range(32)), 1, PARAMETERS[0])
    assert keys.keeper == 1 and keys.secret.label == bytes(range(32)) + b"\1"
    assert isinstance(keys.public, PublicKey) and isinstance(keys.secret, SecretKey)
    assert keys.public.to_bytes() == keys.secret.public.to_bytes()
    assert keys.public is not keys.secret.public and keys.public.label == keys.secret.label
    assert np.array_equal(keys.public.a, keys.secret.public.a)
