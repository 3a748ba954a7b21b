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
from mpc.two_party.rlwe_products import (
    Product,
    answer,
    multiply_shared,
    read_public_key,
    receive_and_answer,
    receive_answer,
    receive_operand,
    send_mask,
    send_operand,
)
from tests.helpers.rlwe import (
    ALARM,
    chance_of_uniform_words,
    exact_product,
    key_of,
    pipes,
    public_of,
    some_words,
    together,
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
    """Both parties in one thread, as in a local session. Return the operand, C_0 and C_1."""
    keeper, mixer = pipes()
    key, public = key_of(product.parameters), public_of(product.parameters)
    if x is None:
        x = send_mask(product, key, keeper)
    else:
        send_operand(product, key, x, keeper)
    assert keeper.sent_bytes == product.operand_bytes()
    kept = receive_operand(product, mixer)
    assert kept.c_0.nbytes + kept.c_1.nbytes == product.memory_bytes()
    c_0 = answer(product, kept, public, w, mixer, product.fresh_life())
    assert mixer.sent_bytes == product.answer_bytes()
    return x, c_0, receive_answer(product, key, keeper)


def as_it_arrives(product, x, w):
    """The same, by a mixer that keeps nothing of the keeper's operand."""
    keeper, mixer = pipes()
    key, public = key_of(product.parameters), public_of(product.parameters)
    send_operand(product, key, x, keeper)
    c_0 = receive_and_answer(product, public, w, mixer, product.fresh_life())
    assert mixer.sent_bytes == product.answer_bytes()
    return x, c_0, receive_answer(product, key, keeper)


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
    key, public = key_of(product.parameters), public_of(product.parameters)
    keeper, mixer = pipes()
    w = some_words((50, 20), "random")
    send_operand(product, key, w, keeper)
    kept = receive_operand(product, mixer)
    for seed in range(3):
        x = some_words((2, 50), "extreme", seed)
        c_0 = answer(product, kept, public, x, mixer, product.fresh_life())
        assert np.array_equal(c_0 + receive_answer(product, key, keeper), exact_product(x, w))
    assert keeper.sent_bytes == product.operand_bytes()


def test_two_threads_with_keys_of_their_own_multiply_what_both_share():
    product = Product.choose(choose_left(20, 30, 10))
    random = np.random.default_rng(1)
    x, w = (random.integers(0, 2**64, s, np.uint64) for s in ((2, 20, 30), (2, 30, 10)))

    def party(me, channel):
        key = SecretKey(product.parameters)
        channel.send(key.public.to_bytes())
        public = read_public_key(product.parameters, channel)
        return multiply_shared(product, key, public, x[me], w[me], channel, product.fresh_life())

    one, other = pipes()
    shares = together(lambda: party(0, one), lambda: party(1, other))
    assert np.array_equal(shares[0] + shares[1], exact_product(x[0] + x[1], w[0] + w[1]))


class Wire:
    """A channel over a pipe between processes."""

    def __init__(self, peer, connection):
        self.peer, self._connection = peer, connection

    def send(self, data):
        self._connection.send_bytes(data)

    def receive(self, count):
        data = self._connection.recv_bytes()
        assert len(data) == count
        return data


def keep_in_a_process(connection, back):
    product = Product.choose(choose_left(30, 40, 5, dense=True), bound=2**20, random=True)
    channel = Wire("alice", connection)
    key = SecretKey(product.parameters)
    channel.send(key.public.to_bytes())
    x = send_mask(product, key, channel)
    back.send((x, receive_answer(product, key, channel)))


def test_two_processes():
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    result, back = context.Pipe(duplex=False)
    process = context.Process(target=keep_in_a_process, args=(theirs, back))
    process.start()
    try:
        product = Product.choose(choose_left(30, 40, 5, dense=True), bound=2**20, random=True)
        channel = Wire("bob", mine)
        public = read_public_key(product.parameters, channel)
        w = small_words((40, 5), 2**20, 3)
        kept = receive_operand(product, channel)
        c_0 = answer(product, kept, public, w, channel, product.fresh_life())
        assert result.poll(60)
        x, c_1 = result.recv()
        assert np.array_equal(c_0 + c_1, exact_product(x, w))
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
    key, public = key_of(product.parameters), public_of(product.parameters)
    keeper, mixer = pipes()
    send_operand(product, key, some_words((8, 4), "random"), keeper)
    kept, life = receive_operand(product, mixer), product.fresh_life()
    for value in (1001, -1001, 2**63, -(2**63)):
        w = np.zeros((4, 2), np.int64)
        w[3, 1] = value if value < 2**63 else value - 2**64
        with pytest.raises(RangeError, match="must be at most 1000 in magnitude"):
            answer(product, kept, public, w.view(np.uint64), mixer, life)
    assert life.answered == 0 and not mixer.sent
    for value in (1000, -1000):
        w = np.full((4, 2), value, np.int64).view(np.uint64)
        answer(product, kept, public, w, mixer, product.fresh_life())


def test_a_life_ends():
    product = Product.choose(KeptLeft(8, 4, 2, 8, 1), bound=1000, products=2)
    key, public = key_of(product.parameters), public_of(product.parameters)
    keeper, mixer = pipes()
    w, life = some_words((4, 2), "zeros"), product.fresh_life()
    send_operand(product, key, some_words((8, 4), "random"), keeper)
    kept = receive_operand(product, mixer)
    for _ in range(2):
        answer(product, kept, public, w, mixer, life)
    sent = len(mixer.sent)
    with pytest.raises(SessionError, match="32 coefficients of an operand's 32 are answered"):
        answer(product, kept, public, w, mixer, life)
    assert len(mixer.sent) == sent
    with pytest.raises(ArgumentError, match="the product allows 32"):
        answer(product, kept, public, w, mixer, Life(33))


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
    key, public = key_of(product.parameters), public_of(product.parameters)
    keeper, mixer = pipes()
    with pytest.raises(DtypeError, match="the keeper's operand must be a uint64 array"):
        send_operand(product, key, np.zeros((8, 4)), keeper)
    with pytest.raises(ShapeError, match=re.escape("must have shape (8, 4), got (4, 8)")):
        send_operand(product, key, np.zeros((4, 8), np.uint64), keeper)
    assert not keeper.sent
    send_operand(product, key, np.zeros((8, 4), np.uint64), keeper)
    kept = receive_operand(product, mixer)
    life = product.fresh_life()
    with pytest.raises(DtypeError, match="the mixer's operand must be a uint64 array"):
        answer(product, kept, public, np.zeros((4, 2)), mixer, life)
    with pytest.raises(ShapeError, match=re.escape("must have shape (4, 2), got (2, 4)")):
        answer(product, kept, public, np.zeros((2, 4), np.uint64), mixer, life)
    other = SecretKey(PARAMETERS[2])
    for call in (
        lambda: send_operand(product, other, np.zeros((8, 4), np.uint64), keeper),
        lambda: receive_answer(product, other, keeper),
        lambda: answer(product, kept, other.public, np.zeros((4, 2), np.uint64), mixer, life),
    ):
        with pytest.raises(ArgumentError, match="parameters q210, the product q180"):
            call()
    few = Ciphertexts(kept.parameters, kept.c_0[:, :0], kept.c_1[:, :0])
    with pytest.raises(ShapeError, match="the keeper's operand must have 1 polynomials, got 0"):
        answer(product, few, public, np.zeros((4, 2), np.uint64), mixer, life)
    wrong = Ciphertexts(PARAMETERS[1], kept.c_0, kept.c_1)
    with pytest.raises(ArgumentError, match="the keeper's operand has parameters q192"):
        answer(product, wrong, public, np.zeros((4, 2), np.uint64), mixer, life)
    assert life.answered == 0 and not mixer.sent


class Garbling:
    """A channel on which what arrives is changed."""

    def __init__(self, channel, change):
        self.peer, self._channel, self._change = channel.peer, channel, change

    def receive(self, count):
        return self._change(self._channel.receive(count))


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-8],
        lambda data: data + bytes(8),
        lambda data: b"",
        lambda data: data[:16] + b"\xff" * (len(data) - 16),
    ],
)
def test_garbled_messages_are_refused(change):
    product = Product.choose(KeptLeft(8, 4, 2, 8, 1), bound=1000)
    key = key_of(product.parameters)
    keeper, mixer = pipes()
    send_operand(product, key, np.zeros((8, 4), np.uint64), keeper)
    with pytest.raises(FrameError, match="alice's ciphertexts"):
        receive_operand(product, Garbling(mixer, change))
    keeper.send(key.public.to_bytes())
    with pytest.raises(FrameError, match="alice's public key"):
        read_public_key(product.parameters, Garbling(mixer, change))


def test_keys_travel():
    keeper, mixer = pipes()
    key = key_of(PARAMETERS[0])
    keeper.send(key.public.to_bytes())
    found = read_public_key(PARAMETERS[0], mixer)
    assert isinstance(found, PublicKey) and found.to_bytes() == key.public.to_bytes()
