"""A last party that asks the provider for something else than the program does learns nothing.

It knows its own keys, what it is answered, whatever it asks for, and all that is opened. So the test
asks in its place, under the ids of the masks and corrections of a program, for correlations of which
it knows what they come to, and looks whether the answers have anything in common with the words that
the other parties used.
"""

import hashlib
from dataclasses import fields, replace

import numpy as np
import pytest

import mpc
from mpc.core import wire
from mpc.core.correlation import Correlation, MaskRef, Part, apply_views
from mpc.core.keys import fresh_streams
from mpc.core.wire import name_of
from mpc.protocols.b2a import RandomBits
from mpc.protocols.bits import MaskProducts
from mpc.protocols.product import ProductTerm
from mpc.protocols.sign import Window
from mpc.protocols.sign_products import SignProducts
from mpc.protocols.truncation import TruncationPair
from mpc.provider.dealer import Provider
from mpc.provider.requests import Block, read

SIZE = 96
# What the last party does not know of an answer is smaller than that, or nothing.
NEAR = 1 << 10
NOBODYS = 10**6


def program(s):
    x = s.share(np.linspace(-9, 9, SIZE), owner="alice")
    y = s.share(np.linspace(5, -5, SIZE), owner=s.parties[-1])
    z = x * (x + y)
    (z.truncate() * y).relu()
    hot = z.reshape(-1, 6).argmax(axis=1, one_hot=True)
    (x < y) * z
    np.tanh(x)
    s.share(np.eye(8), owner="alice") @ s.share(np.eye(8), owner=s.parties[-1])
    return hot.sum().reveal()


def ask(provider, id, correlation):
    out = np.empty(correlation.corrected_words, np.uint64)
    provider.correct(id, correlation, out)
    return out


def used_by_others(s, heard):
    """Return all words that hide something of the others, as sums over the others."""
    found = {}
    order = dict.fromkeys(range(s.size), 0)
    for party, source, id, words in heard.filled:
        if party == s.size - 1 or isinstance(source, int):
            continue
        # Places differ by party: the first correction's come first at each.
        order[party] += source == "corrections"
        key = (source, id if source == "masks" else order[party])
        found.setdefault(key, {}).setdefault(party, words.reshape(-1))
    return np.concatenate([sum(of.values()) for of in found.values()])


def meets(words, hidden):
    """Return how many of the words are what is hidden, or close to it."""
    hidden = np.sort(hidden)
    above = hidden[np.searchsorted(hidden, words) % hidden.size]
    below = hidden[np.searchsorted(hidden, words) - 1]
    return int(((above - words < NEAR) | (words - below < NEAR)).sum())


def own(stream, ref):
    words = np.empty(ref.part.shape, np.uint64)
    stream.fill(words, ref.id, ref.start)
    return apply_views(words, ref.views, 0)


def product_of_its_own(last, kind, x, w, shape):
    """A product of masks that the last party knows, whether or not they were ever dealt."""
    x = replace(x, owner=last)
    w = replace(w, owner=last)
    return ProductTerm(kind, x, w, shape)


def forgeries(last):
    """Yield (name, correlation, what it comes to for a stream of the last party, or nearly)."""
    flat = MaskRef(NOBODYS, Part((SIZE,)))
    square = MaskRef(NOBODYS + 1, Part((12, 12)))
    rows = square.view(("index", (slice(None, None, 2),)))
    turned = square.view(("transpose", (1, 0)))
    late = replace(flat, start=17)
    bits = replace(flat, part=Part((SIZE,), "xor"))
    for name, kind, x, w, shape in (
        ("another class", "multiply", flat, flat, (SIZE,)),
        ("many more words", "multiply", MaskRef(3, Part((5000,))), MaskRef(9, Part((5000,))), (5000,)),
        ("one word", "multiply", replace(flat, part=Part((1,))), replace(flat, part=Part((1,))), (1,)),
        ("matrices", "matmul", square, square, (12, 12)),
        ("views", "matmul", turned, rows.view(("transpose", (1, 0))), (12, 6)),
        ("a later start", "multiply", late, late, (SIZE,)),
        ("a part of another algebra", "multiply", bits, flat, (SIZE,)),
    ):  # fmt: skip
        asked = product_of_its_own(last, kind, x, w, shape)

        def value(stream, asked=asked):
            left, right = own(stream, asked.x), own(stream, asked.w)
            return left @ right if asked.kind == "matmul" else left * right

        yield name, asked, value
    few = lambda stream: np.uint64(0)  # noqa: E731
    # Numbers so small that what is left tells the others' share.
    yield "bits", RandomBits(1, 64 * 40), few
    yield "many planes of bits", RandomBits(5, 64), few
    yield "the top of one mask", TruncationPair(1, 61), few
    yield "the tops of many", TruncationPair(2000, 60), few


@pytest.fixture(scope="module", params=[2, 3], ids=["two", "three"])
def attacked(request, tap):
    with mpc.Session(("alice", "bob", "carol")[: request.param]) as s:
        with tap(s) as heard:
            program(s)
        yield s, heard, used_by_others(s, heard)


FORGERIES = {name: (asked, value) for name, asked, value in forgeries(1)}


@pytest.mark.parametrize("name", FORGERIES)
def test_nothing_is_told_under_an_id_that_is_used(attacked, name):
    s, _, hidden = attacked
    last = s.size - 1
    asked, value = next((c, v) for other, c, v in forgeries(last) if other == name)
    asked.check(1 << 24)  # as a provider does
    known = value(s.streams[last].masks)
    # The ids of all masks and correlations, and those that come next.
    for id in range(s.last_id + 3):
        answer = ask(s.source.provider, id, asked)
        assert meets(np.ravel(known) - answer[: known.size or None], hidden) == 0


def test_the_attack_reads_what_is_masked_with_one_key(attacked):
    """A control: the same attack, where shares of corrections come from the masks' key."""
    s, _, hidden = attacked
    provider = object.__new__(Provider)
    vars(provider).update(vars(s.source.provider))

    class Masks:
        def __init__(self, stream):
            self.stream = stream

        def at(self, id):
            return self

        def place(self, name):
            return int.from_bytes(name[-24:-16], "little")  # the id, in front of two others

        def fill(self, out, place, start=0):
            self.stream.fill(out, place, start)

    provider.correction_streams = [Masks(stream) for stream in provider.mask_streams[:-1]]
    asked, value = next((c, v) for name, c, v in forgeries(s.size - 1) if name == "another class")
    found = sum(
        meets(value(s.streams[s.size - 1].masks) - ask(provider, id, asked), hidden)
        for id in range(1, s.last_id)
    )
    assert found >= 4 * SIZE


def masks_of(correlation):
    for name in (field.name for field in fields(correlation)):
        value = getattr(correlation, name)
        if isinstance(value, MaskRef):
            yield value
        elif isinstance(value, Correlation):
            yield from masks_of(value)


def changed(correlation):
    """Yield correlations that differ from one in a single place."""
    for field in fields(correlation):
        value = getattr(correlation, field.name)
        if isinstance(value, MaskRef):
            for other in (
                replace(value, id=value.id + 1),
                replace(value, start=value.start + 1),
                replace(value, owner=1 if value.owner == 0 else 0),
                replace(value, without=1 if value.without == 0 else 0),
                replace(value, part=replace(value.part, shape=(*value.part.shape, 1))),
                replace(value, part=replace(value.part, algebra="sum16")),
                value.view(("index", (slice(None, None, 2),))),
                value.view(("index", (np.array([0, 2, 1]),))),
                value.view(("index", (np.array([0, 1, 2]),))),
                value.view(("reshape", (1, *value.part.shape))),
            ):
                yield replace(correlation, **{field.name: other})
        elif isinstance(value, Correlation):
            for other in (*changed(value), None):
                yield replace(correlation, **{field.name: other})
        elif value is None:
            ref = MaskRef(1, Part((7,)))
            other = ProductTerm("multiply", ref, ref, (7,))
            yield replace(correlation, **{field.name: other})
        elif isinstance(value, bool):
            yield replace(correlation, **{field.name: not value})
        elif isinstance(value, int):
            yield replace(correlation, **{field.name: value + 1})
        elif isinstance(value, str):
            others = ("multiply", "matmul", "none", "bit", "truncation", "relu")
            at = others.index(value) // 2 * 2
            yield replace(correlation, **{field.name: others[at + 1 - others.index(value) % 2]})
        else:
            assert isinstance(value, tuple)
            yield replace(correlation, **{field.name: (*value, value[0])})
            yield replace(correlation, **{field.name: value[:-1]})


def test_every_difference_gives_another_name(attacked):
    _, heard, _ = attacked
    seen = {}
    kinds = set()
    for id, correlation, _ in heard.dealt:
        for one in (correlation, *changed(correlation)):
            kinds.add(type(one))
            for number in (id, id + 1):
                name = name_of(number, one)
                # The class, the fields and all ids, as Python shows them.
                assert seen.setdefault(name, repr((number, one))) == repr((number, one))
    assert len(kinds) >= 5
    assert len(seen) > 100


def test_the_name_is_the_same_at_a_provider_that_was_asked_over_a_network(attacked):
    _, heard, _ = attacked
    for id, correlation, _ in heard.dealt:
        if not correlation.corrected_words:
            continue
        for base in {0, id // 2, id - 1}:
            (frame,) = Block.of([(id, correlation)], base, id).frames(base)
            (request,) = read(frame)
            assert request.id == id
            assert name_of(id, request.correlation(1 << 24)) == name_of(id, correlation)
            # As NumPy has numbers.
            numbers = {
                field.name: np.int64(getattr(correlation, field.name))
                for field in fields(correlation)
                if type(getattr(correlation, field.name)) is int
            }
            assert name_of(np.int64(id), replace(correlation, **numbers)) == name_of(
                id, correlation
            )


def test_nobody_can_exchange_what_a_provider_keeps_for_others():
    """What is equal in Python, such as True and 1, differs on the wire and has another name."""
    for axes in (((True, False), (1, 0)), ((1, 0), (True, False))):
        found = []
        for order in axes:
            ref = MaskRef(3, Part((5, 4)), views=(("transpose", order),))
            asked = ProductTerm("multiply", ref, ref, (4, 5))
            (frame,) = Block.of([(9, asked)], 8, 9).frames(8)
            (request,) = read(frame)
            decoded = request.correlation(1 << 20)
            encoded = wire.encode(asked.without_ids())
            assert name_of(9, decoded).startswith(hashlib.sha256(encoded).digest())
            found.append(name_of(9, decoded))
        assert found[0] != found[1]


@pytest.mark.parametrize("id", [-1, 2**64])
def test_ids_out_of_range(id):
    ref = MaskRef(5, Part((3,)))
    provider = Provider(fresh_streams(2)[1])
    for number, other in ((id, ref), (7, replace(ref, id=id))):
        with pytest.raises(mpc.ArgumentError, match=r"in \[0, 2\^64\)"):
            ask(provider, number, ProductTerm("multiply", other, other, (3,)))


# Asking twice.


def test_two_answers_for_one_id_have_nothing_in_common():
    """The same mask, with and without a product's term: their difference would tell of the term."""
    provider = Provider(fresh_streams(2)[1])
    x, w = MaskRef(1, Part((SIZE,)), owner=0), MaskRef(2, Part((SIZE,)), owner=0)
    term = ProductTerm("multiply", x, w, (SIZE,))
    for asked, others in (
        (TruncationPair(SIZE, 40), [TruncationPair(SIZE, 40, term), TruncationPair(SIZE, 41)]),
        (
            TruncationPair(SIZE, 40, term),
            [TruncationPair(SIZE, 40, replace(term, w=replace(w, id=3)))],
        ),
        (RandomBits(1, SIZE), [RandomBits(2, SIZE), RandomBits(1, SIZE + 1)]),
        (
            Window(SIZE, 40, 4, True, "relu"),
            [Window(SIZE, 40, 4, True, "relu", 1, term), Window(SIZE, 40, 5, True, "relu")],
        ),
        (
            SignProducts(SIZE, 40, 4),
            [
                SignProducts(SIZE, 40, 4, term),
                SignProducts(SIZE, 40, 5),
                Window(SIZE, 40, 4, True, "relu"),
            ],
        ),
        (MaskProducts(3, ((0, 1), (1, 2)), 9), [MaskProducts(3, ((0, 1), (0, 2)), 9)]),
    ):
        answer = ask(provider, 7, asked)
        np.testing.assert_array_equal(ask(provider, 7, asked), answer)
        for other in others:
            second = ask(provider, 7, other)
            size = min(answer.size, second.size)
            # XOR of what is shared by XOR, difference of what is summed: both are without pattern.
            for difference in (answer[:size] ^ second[:size], answer[:size] - second[:size]):
                small = difference.view(np.int64)
                assert (np.abs(small >> 1) > 1 << 30).all()


def test_an_answer_does_not_depend_on_what_was_asked_before():
    """Masks are kept by all that they follow from: another owner's must not be taken for them."""
    keys = fresh_streams(3)[1]
    x = MaskRef(1, Part((SIZE,)))
    refs = [
        x, replace(x, owner=0), replace(x, owner=1), replace(x, without=0), replace(x, start=1),
        replace(x, part=Part((SIZE,), "xor")), replace(x, part=Part((SIZE,), "sum32")),
        replace(x, part=Part((8, 12))), x.view(("index", (np.arange(SIZE),))),
    ]  # fmt: skip
    asked = []
    for ref in refs:
        square = ref if len(ref.part.shape) == 1 else ref.view(("reshape", (SIZE,)))
        asked.append(ProductTerm("multiply", square, square, (SIZE,)))
    alone = [ask(Provider(keys), 7, one) for one in asked]
    pairs = list(zip(asked, alone, strict=True))
    for order in (pairs, pairs[::-1]):
        provider = Provider(keys)
        for one, answer in (*order, *order):
            np.testing.assert_array_equal(ask(provider, 7, one), answer)


@pytest.mark.parametrize(("owner", "without"), [(3, None), (None, 3), (1 << 62, None), (1, 1)])
def test_a_mask_of_no_party_is_refused(owner, without):
    ref = MaskRef(1, Part((4,)), owner=owner, without=without)
    with pytest.raises(mpc.ShapeError, match="^a mask must be of some of 3 parties, got owner="):
        ask(Provider(fresh_streams(3)[1]), 7, ProductTerm("multiply", ref, ref, (4,)))
