"""What a party sees is distributed the same whatever the secrets are.

A program runs on two very different secrets, and everything that n - 1 parties together get to see
is collected: what they expand from their keys, the corrections, the messages of the party left
over, and what is opened. Each must be uniform, must have the same distribution for both secrets,
and must stay uniform when the others' part of a mask is taken away. Last come controls: the same
examination of masks that are broken on purpose.
"""

from contextlib import contextmanager
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy.special import chdtrc

import mpc
from mpc.core.correlation import cut
from mpc.protocols import (
    intervals,
    inverse_root,
    limits,
    masking,
    product,
    range_check,
    reciprocal,
    relu,
    sigmoid,
    truncation,
)

UNIT = 2.0**-16
LIMIT = 32768 - UNIT
SIZE = 4096

# One and a half million examinations: a false alarm in one test run out of ten million.
ALARM = 1e-14
# Of fewer words the distribution of bytes is not known so far out: bits are examined alone.
ENOUGH = 256

SECRETS = {
    "zeros": lambda: np.zeros(SIZE),
    "limit": lambda: np.full(SIZE, LIMIT),
    "minus": lambda: np.full(SIZE, -LIMIT),
    "mixed": lambda: np.random.default_rng(3).integers(-(2**31) + 1, 2**31, SIZE) * UNIT,
}
PAIRS = [("zeros", "limit"), ("minus", "mixed")]


# Statistics.


_PLACES = 256 * np.arange(8)
_BITS = np.arange(256)[:, None] >> np.arange(8) & 1


def counts_of(words):
    """Count the bytes and, at each of the 64 places, the ones."""
    words = np.ascontiguousarray(words, np.uint64).reshape(-1)
    octets = words.view(np.uint8).reshape(-1, 8) + _PLACES
    at_each_place = np.bincount(octets.reshape(-1), minlength=2048).reshape(8, 256)
    return len(words), at_each_place.sum(axis=0), (at_each_place @ _BITS).reshape(-1)


def chance(statistic, degrees):
    """Return how likely chi-square is to be so large."""
    return chdtrc(degrees, statistic)


def chance_of_uniform(counts):
    """Return how likely words from a uniform source are to look as uneven as these."""
    n, octets, ones = counts
    expected = 8 * n / 256
    of_bytes = chance(((octets - expected) ** 2 / expected).sum(), 255) if n >= ENOUGH else 1.0
    of_bits = chance(((ones - n / 2) ** 2 / (n / 4)).sum(), 64)
    return min(of_bytes, of_bits)


def chance_of_same(first, second):
    """Return how likely two samples of one source are to differ as much as these."""
    (n, octets, ones), (m, other_octets, other_ones) = first, second
    assert n == m
    total = octets + other_octets
    seen = total > 0
    of_bytes = chance(
        ((octets - other_octets)[seen] ** 2 / total[seen]).sum(), max(1, seen.sum() - 1)
    )
    share = (ones + other_ones) / (2 * n)
    varying = (share > 0) & (share < 1)
    spread = 2 * n * (share * (1 - share))[varying]
    of_bits = chance(((ones - other_ones)[varying] ** 2 / spread).sum(), max(1, varying.sum()))
    return min(of_bytes, of_bits)


# Views.


def combine(algebra, rows):
    return np.bitwise_xor.reduce(rows) if algebra == "xor" else np.add.reduce(rows)


def pieces_of(heard):
    """Return what was expanded and dealt: (name, algebra, {party: words}), words flat."""
    pieces, ids = [], set()
    for k, (number, correlation, words) in enumerate(heard.dealt):
        ids.add(number)
        parts = (*correlation.masks(), *correlation.corrected())
        for j, (part, piece) in enumerate(
            zip(parts, cut(words, correlation.layout.parts), strict=True)
        ):
            rows = piece.reshape(len(piece), -1)
            name = f"{type(correlation).__name__} {k}.{j}"
            pieces.append((name, part.algebra, dict(enumerate(rows))))
    expanded = {}
    for party, source, number, words in heard.filled:
        if source != "corrections" and number not in ids:
            # The owner and one other party both know that party's share.
            pair = source != "masks" and sorted((party, source))
            kind = f"share of {pair}" if pair else "mask"
            expanded.setdefault((number, kind), {})[party] = words.reshape(-1)
    pieces += [
        (f"{kind}, step {k}", "sum", rows) for k, ((_, kind), rows) in enumerate(expanded.items())
    ]
    return [piece for piece in pieces if all(words.size for words in piece[2].values())]


def messages_of(heard):
    """Return (name, algebra, {party: what it sends}, what is opened, who alone sees it), words flat."""
    for number, (messages, opened) in enumerate(zip(heard.sent, heard.opened, strict=True)):
        for k, ((words, opening), value) in enumerate(zip(messages, opened, strict=True)):
            if isinstance(opening, int):
                rows, algebra = {opening: words[0].reshape(-1)}, "sum"
            else:
                rows, algebra = dict(enumerate(words.reshape(len(words), -1))), opening
            only = heard.only_to.get(number)
            rows.pop(only, None)  # which it keeps to itself
            yield f"message {number}.{k}", algebra, rows, value.reshape(-1), only


def all_but_one(name, algebra, shares):
    """Return combinations of n - 1 parties' shares: their sum, and one with other odd factors."""
    forms = [("", shares)]
    if algebra == "sum":
        factors = 2 * np.arange(len(shares), dtype=np.uint64)[:, None] + 3
        forms.append((", with factors", shares * factors))
    return {
        f"{name}, all but party {honest}{form}": combine(algebra, np.delete(rows, honest, axis=0))
        for form, rows in forms
        for honest in range(len(shares))
    }


def views_of(session, heard, result, revealed):
    """Return everything that must be uniform: {name: words}."""
    views = {}
    pieces, messages = pieces_of(heard), list(messages_of(heard))
    for name, algebra, rows in pieces:
        views |= {f"{name}, party {party}": words for party, words in rows.items()}
        if len(rows) == session.size:
            views |= all_but_one(name, algebra, np.stack(list(rows.values())))
    for name, algebra, rows, opened, _ in messages:
        views |= {f"{name} of party {party}": words for party, words in rows.items()}
        if revealed and name == messages[-1][0]:
            continue
        views[f"{name} opened"] = opened
        for honest in rows:
            # What is left of it when all others take away what they know of a mask.
            for known, kind, words in pieces:
                theirs = [w for party, w in words.items() if party != honest]
                if kind != algebra or any(w.size != opened.size for w in theirs) or not theirs:
                    continue
                part = combine(kind, theirs)
                where = f"{name} without {known}, party {honest} honest"
                if algebra == "xor":
                    views[where] = opened ^ part
                else:
                    views[f"{where}, minus"] = opened - part
                    views[f"{where}, plus"] = opened + part
    kept = messages[:-1] if revealed else messages
    for (a, kind, _, first, _), (b, other, _, second, _) in combinations(kept, 2):
        if first.size == second.size and kind == other:
            views[f"{a} against {b}"] = first ^ second if kind == "xor" else first - second
    if result is not None:
        shares = result.shares.reshape(session.size, -1)
        views |= {f"result, party {party}": words for party, words in enumerate(shares)}
        views |= all_but_one("result", "sum", shares)
    return views


def examine(session, tap, program, first, second, revealed=False):
    """Run a program on two secrets; return what tells them apart or is not uniform."""
    seen = []
    for name in (first, second):
        with tap(session) as heard:
            result = program(session, SECRETS[name]())
            seen.append(views_of(session, heard, result, revealed))
    assert seen[0].keys() == seen[1].keys()
    findings = []
    for name, words in seen[0].items():
        counts, other = counts_of(words), counts_of(seen[1][name])
        chances = {
            first: chance_of_uniform(counts),
            second: chance_of_uniform(other),
            "difference": chance_of_same(counts, other),
            # Whatever served in both runs falls out here.
            "both runs": chance_of_uniform(counts_of(words - seen[1][name])),
        }
        findings += [(name, case, p) for case, p in chances.items() if p < ALARM]
    return findings


def given(s, a):
    return s.share(a, owner="alice")


def computed(s, a):
    return s.share(a, owner="alice") + 0


def masked(x):
    masking.mask_ahead(x)
    return x


def for_one_to_see(s, a, owner):
    """x is opened to the owner of y, once for two products, and then to all for a third."""
    x, y, z = computed(s, a), masked(s.share(a[::-1], owner=owner)), computed(s, a)
    return x * y + x * masked(s.share(a, owner=owner)) + x * z


def rows_of(x, k):
    return x[: SIZE // k * k].reshape(-1, k)


def log_softmax(s, a):
    # Its shares are sums: a value of each place, shifted up, and a product of the row, whose low
    # bits the row's shares have in common. So they are not examined one by one.
    rows_of(given(s, a * 0.25), 8).log_softmax()


def in_range(s, a):
    x = computed(s, 1 + np.abs(a[:1024]) / 2**15)
    return x.derive(x.shares << np.uint64(8), frac_bits=24, bound=2 << 24)


def softmax_cut_off(s, a):
    # With the ring's own bound there is no room: low bits go, or a comparison comes first.
    x = rows_of(computed(s, a[:1024]), 8)
    x.derive(x.shares, frac_bits=32, bound=2**62).softmax()
    x.derive(x.shares, frac_bits=16, bound=2**62).softmax()


def inverse_root_of_few(s, a):
    m, x = computed(s, a[:1024]), computed(s, np.abs(a[:1024]))
    m = m.derive(m.shares, frac_bits=inverse_root.M_BITS, bound=m.bound)
    x = x.derive(x.shares, frac_bits=inverse_root.X_BITS, bound=inverse_root.X_BOUND)
    inverse_root.times_inverse_root(m, x)


PROGRAMS = {
    "share": computed,
    "share of the last": lambda s, a: s.share(a, owner=s.parties[-1]) + 0,
    "square": lambda s, a: given(s, a) * given(s, a),
    "product": lambda s, a: given(s, a) * s.share(a, owner=s.parties[-1]),
    "product of computed": lambda s, a: computed(s, a) * computed(s, a[::-1]),
    "matrix product": lambda s, a: rows_of(given(s, a), 64) @ rows_of(computed(s, a), 64).T,
    "matrix product with the last's": lambda s, a: (
        rows_of(computed(s, a), 64) @ rows_of(s.share(a, owner=s.parties[-1]), 64).T
    ),
    "product for the first to see": lambda s, a: for_one_to_see(s, a, s.parties[0]),
    "product for the last to see": lambda s, a: for_one_to_see(s, a, s.parties[-1]),
    "matrix product for the last to see": lambda s, a: (
        rows_of(computed(s, a), 64) @ masked(rows_of(s.share(a, owner=s.parties[-1]), 64)).T
    ),
    "product, truncated": lambda s, a: (given(s, a) * s.share(a, owner=s.parties[-1])).truncate(),
    "relu of a product of two": lambda s, a: (computed(s, a) * computed(s, a[::-1]) + 0.5).relu(),
    "truncation": lambda s, a: (given(s, a) * 0.5).truncate(),
    "truncation of what is given": lambda s, a: given(s, a) / 3,
    "relu": lambda s, a: computed(s, a).relu(),
    "relu of what is given": lambda s, a: given(s, a).relu(),
    "relu of a product": lambda s, a: (computed(s, a) * 0.5).relu(),
    "relu of a product in two rounds": lambda s, a: relu.relu_in_two_rounds(computed(s, a) * 0.5),
    "relu of a product in four rounds": lambda s, a: relu.relu_in_four_rounds(computed(s, a) * 0.5)[
        0
    ],
    "relu in four rounds": lambda s, a: relu.relu_in_four_rounds(computed(s, a))[0],
    "relu in two rounds": lambda s, a: relu.relu_in_two_rounds(computed(s, a)),
    "order": lambda s, a: computed(s, a) < 0.5,
    "equality": lambda s, a: given(s, a) == 0,
    "select": lambda s, a: (computed(s, a) > 0.5) * given(s, a),
    "maximum": lambda s, a: np.maximum(given(s, a), s.share(-a, owner="bob")),
    "argmax": lambda s, a: rows_of(computed(s, a), 8).argmax(axis=1, one_hot=True),
    "argmax of a product": lambda s, a: (
        rows_of(computed(s, a) * computed(s, a[::-1]), 8).argmax(axis=1) + 0
    ),
    "largest": lambda s, a: rows_of(given(s, a), 8).max(axis=1),
    "gate": lambda s, a: (computed(s, a) * 0.5).gate(given(s, a) > 0),
    "reciprocal": lambda s, a: reciprocal.reciprocal(in_range(s, a), 2),
    "softmax": lambda s, a: rows_of(computed(s, a), 8).softmax(),
    "softmax of a product": lambda s, a: rows_of(
        computed(s, a) * computed(s, a[::-1]), 8
    ).softmax(),
    "softmax, cut off": softmax_cut_off,
    "softmax of many columns": lambda s, a: rows_of(computed(s, a), 64).softmax(),
    "log softmax": log_softmax,
    "sigmoid": lambda s, a: sigmoid.sigmoid(computed(s, a)),
    "silu": lambda s, a: computed(s, a).activation("silu"),
    "silu of a product": lambda s, a: (computed(s, a) * 0.5).activation("silu"),
    "square root": lambda s, a: computed(s, np.abs(a[:1024])).sqrt(),
    "exponential": lambda s, a: computed(s, -np.abs(a[:1024])).exp(),
    "exponential of bounded numbers": lambda s, a: (
        computed(s, a[:1024] / 2**12).with_bound(16).exp()
    ),
    "inverse": lambda s, a: 1 / computed(s, np.maximum(np.abs(a[:1024]), 1)),
    "quotient": lambda s, a: (
        given(s, a[:1024] / 2**15) / computed(s, np.maximum(np.abs(a[:1024]), 1))
    ),
    "truncated product": lambda s, a: mpc.protocols.truncated_product.multiply(
        computed(s, a), 16, given(s, a) + 0, 3, 2**62
    ),
    "floor": lambda s, a: computed(s, a).floor(),
    "nearest": lambda s, a: computed(s, a / 2).rint(),
    "inverse root": inverse_root_of_few,
}


@pytest.mark.dealt
@pytest.mark.parametrize("secrets", PAIRS, ids=" and ".join)
@pytest.mark.parametrize("name", PROGRAMS)
def test_views_tell_nothing(name, secrets, tap, session):
    # Of the largest values matrix products leave the ring, which what is sent does not show.
    with session.range_policy.vouched():
        assert examine(session, tap, PROGRAMS[name], *secrets) == []


@pytest.mark.dealt
def test_what_one_party_sees_would_tell_the_others_the_value(session, tap):
    """The examination would find it, if what is opened to the owner of an operand went to all."""

    class ToAll(dict):
        def get(self, place):
            return None

    @contextmanager
    def told_to_all(session):
        with tap(session) as heard:
            heard.only_to = ToAll()
            yield heard
            assert len(heard.only_to) == 1

    def program(s, a):
        return computed(s, a) * masked(s.share(a, owner=s.parties[0]))

    assert examine(session, tap, program, *PAIRS[0]) == []
    assert examine(session, told_to_all, program, *PAIRS[0]) != []


@pytest.mark.dealt
def test_what_is_revealed_is_the_value_alone(session, tap):
    def program(s, a):
        product = given(s, a) * s.share(np.ones(SIZE), owner="bob")
        product.truncate().reveal()
        return product

    for secrets in PAIRS:
        assert examine(session, tap, program, *secrets, revealed=True) == []


@pytest.mark.dealt
@pytest.mark.parametrize("to", [None, "bob"])
def test_revealing_winners_shows_them_alone(session, tap, to):
    """Of several secrets with the same winners; each party's message is uniform by itself."""

    def program(s, a):
        rows = rows_of(s.share(np.abs(a), owner="alice"), 8) * s.share(np.ones(8), owner="bob")
        falling = np.arange(8, 0, -1) * 2.0**-10
        (rows * 2.0**-10 + falling).argmax(axis=1).reveal(to=to)

    for secrets in PAIRS:
        assert examine(session, tap, program, *secrets, revealed=True) == []


# Whether something is in range. Small parts of it are seen many times, to be examined.

TIMES, SOME = 32, 64


def on_a_product(s, a):
    x, y = given(s, a[:SOME]), computed(s, a[SOME : 2 * SOME]) * 2
    x, y = (z.derive(z.shares, frac_bits=0, bound=range_check.LIMIT) for z in (x, y))
    return [range_check.bilinear(x, y, product.multiply, 1)]


def on_what_is_given(s, a):
    x, y = given(s, a[:SOME]).reshape(2, -1), s.share(a[SOME : 2 * SOME], owner=s.parties[-1])
    return [range_check.bilinear(x, y.reshape(-1, 2), product.matmul, SOME // 2)]


def on_sums(s, a):
    x = computed(s, a[:SOME]) * 2**30
    y = given(s, a[SOME : 2 * SOME]) * given(s, a[:SOME])
    return [
        range_check.linear([(x, 0), (y, 1), (x, 0)]),
        range_check.linear([(x.reshape(-1, 2), 0)], (1,)),
        range_check.multiple(y, 4),
    ]


def seen_of_a_verdict(session, tap, verdict_of, secret):
    """Return everything that must be uniform, and the last message: its shares and what it opens."""
    seen, last = {}, []
    for _ in range(TIMES):
        with tap(session) as heard:
            verdict = verdict_of(session, SECRETS[secret]())
        ((words, opening),), (opened,) = heard.sent.pop(), heard.opened.pop()
        assert (words.shape[1:], opening) == ((1,), "xor")
        assert np.all(words <= 1)
        assert np.bitwise_xor.reduce(words) == opened == verdict
        last.append((words[:-1].reshape(-1), verdict))
        for name, some in views_of(session, heard, None, False).items():
            seen.setdefault(name, []).append(some)
    return {name: np.concatenate(some) for name, some in seen.items()}, last


def on_limits(s, a):
    """Limits that zeros keep, in every way to check them; the words are seen, and the coins' seed."""
    excess = limits.Excess(s)
    z = computed(s, a[:SOME]) * s.share(np.ones(SOME), owner="bob")
    limits.relu_within(z, 100, excess)
    limits.truncate_within(computed(s, a[:SOME]) * s.share(np.ones(SOME), owner="bob"), 100, excess)
    limits.words_within(computed(s, a[:SOME]), 100, excess)
    return range_check.is_none(limits.failures(z, excess))


def verdict_on(claims):
    return lambda s, a: range_check.verdict(*claims(s, a))


VERDICTS = {
    "a product": verdict_on(on_a_product),
    "what is given": verdict_on(on_what_is_given),
    "sums": verdict_on(on_sums),
    "limits": on_limits,
    "intervals": lambda s, a: intervals.groups_inside(
        computed(s, a[:SOME]), np.int64(-100), np.int64(100), [SOME]
    )[0],
}


@pytest.mark.dealt
@pytest.mark.parametrize("name", VERDICTS)
def test_a_verdict_opens_one_bit(session, tap, name):
    seen, verdicts = [], []
    for secret in ("zeros", "limit"):
        views, last = seen_of_a_verdict(session, tap, VERDICTS[name], secret)
        seen.append(views)
        verdicts.append({verdict for _, verdict in last})
        # Shares of the bit: of all parties but one, uniform bits.
        bits = np.concatenate([words for words, _ in last])
        assert chance((2 * bits.sum(dtype=float) - bits.size) ** 2 / bits.size, 1) >= ALARM
    assert verdicts == [{True}, {False}]
    assert seen[0].keys() == seen[1].keys()
    for name, words in seen[0].items():
        counts, other = counts_of(words), counts_of(seen[1][name])
        assert chance_of_uniform(counts) >= ALARM, name
        assert chance_of_uniform(other) >= ALARM, name
        assert chance_of_same(counts, other) >= ALARM, name


def test_revealing_to_one_party_shows_the_others_nothing(session, tap, monkeypatch):
    x = session.share(SECRETS["limit"](), owner="alice")
    with tap(session) as heard:
        deliver, sent = session.transport.open_to, []
        monkeypatch.setattr(
            session.transport,
            "open_to",
            lambda party, words, how: sent.append(words.copy()) or deliver(party, words, how),
        )
        x.reveal(to="bob")
    # Everything goes through one message, each of whose shares is uniform.
    (words,) = sent
    assert [len(messages) for messages in heard.sent] in ([], [1])
    for row in words:
        assert chance_of_uniform(counts_of(row)) >= ALARM


@pytest.mark.parametrize("name", SECRETS)
def test_all_shares_but_one_are_jointly_uniform(session, name):
    places = 8 // (session.size - 1)
    n = 1 << 16
    a = np.resize(SECRETS[name](), n)
    for owner in (session.parties[0], session.parties[-1]):
        shares = session.share(a, owner=owner).shares
        for honest in range(session.size):
            theirs = np.delete(shares, honest, axis=0)
            for shift in (0, 16, 31, 64 - places):
                cell = np.zeros(n, np.int64)
                for words in theirs:
                    bits = words >> np.uint64(shift) & np.uint64(2**places - 1)
                    cell = cell << places | bits.astype(np.int64)
                cells = 1 << places * len(theirs)
                counts = np.bincount(cell, minlength=cells)
                statistic = ((counts - n / cells) ** 2 / (n / cells)).sum()
                assert chance(statistic, cells - 1) >= ALARM


@pytest.mark.dealt
def test_a_mask_that_takes_a_term_in_is_uniform(session, monkeypatch):
    """r = D - C of a product that is truncated, twice over."""
    seen, deal = [], truncation.deal_high

    def listen(r, shift, out):
        seen.append(r.copy())
        deal(r, shift, out)

    monkeypatch.setattr(truncation, "deal_high", listen)
    z = given(session, np.full(SIZE, 100.0)) * computed(session, np.full(SIZE, -3.0))
    for _ in range(2):
        np.testing.assert_array_equal(truncation.truncate(z, 16).reveal(), np.full(SIZE, -300.0))
    first, second = seen
    for r in (first, second, first - second):
        assert chance_of_uniform(counts_of(r)) >= ALARM


def test_split_shares_are_uniform():
    for parties in (2, 3, 5):
        for value in (0, 2**63 - 1, -1):
            shares = mpc.split(np.full(SIZE, value), parties)
            for name, words in all_but_one("split", "sum", shares).items():
                assert chance_of_uniform(counts_of(words)) >= ALARM, name


def test_one_value_over_thousands_of_sessions():
    seen = {}
    for value in (0.0, LIMIT):
        words = []
        for _ in range(2000):
            with mpc.Session() as s:
                x = s.share(value, owner="alice")
                words.append([*x.shares, *(x * x).shares])
        seen[value] = np.array(words).T
    for first, second in zip(seen[0.0], seen[LIMIT], strict=True):
        assert chance_of_uniform(counts_of(first)) >= ALARM
        assert chance_of_uniform(counts_of(second)) >= ALARM
        assert chance_of_same(counts_of(first), counts_of(second)) >= ALARM


# Controls: the examination finds masks that are broken.


class Broken:
    """A stream with something wrong."""

    def __init__(self, stream, change):
        self.stream, self.change = stream, change

    def fill(self, out, id, start=0):
        self.stream.fill(out, id, start)
        self.change(out)

    def at(self, id):
        return Broken(self.stream.at(id), self.change)

    def place(self, name):
        return self.stream.place(name)


class SameId:
    """A stream that does not care for ids."""

    def __init__(self, stream):
        self.stream = stream

    def fill(self, out, id, start=0):
        self.stream.fill(out, 1, start)


def clear(out):
    out[...] = 0


def make_constant(out):
    out[...] = 0x0123456789ABCDEF


def drop_the_top_bit(out):
    out &= np.uint64(2**63 - 1)


def make_even(out):
    out &= ~np.uint64(1)


def keep_half(out):
    out >>= np.uint64(32)


def repeat_a_word(out):
    flat = out.reshape(-1)
    flat[1:] = flat[:1]


def clear_every_other(out):
    out.reshape(-1)[::2] = 0


def break_streams(session, monkeypatch, change, parties):
    for party in parties:
        streams = session.streams[party]
        masks, corrections = Broken(streams.masks, change), Broken(streams.corrections, change)
        broken = replace(streams, masks=masks, corrections=corrections)
        monkeypatch.setitem(session.streams, party, broken)


def seen_without(party, findings):
    """Return what the others can see together."""
    return [
        finding
        for finding in findings
        if finding[0].startswith("message") or f"all but party {party}" in finding[0]
    ]


@pytest.fixture(params=[2, 3], ids=["two", "three"])
def broken_session(request):
    with mpc.Session(("alice", "bob", "carol")[: request.param]) as s:
        yield s


CHANGES = [
    clear, make_constant, drop_the_top_bit, make_even, keep_half, repeat_a_word,
    clear_every_other,
]  # fmt: skip
ON_MASKS = [
    "product", "product of computed", "product, truncated", "relu of a product of two", "truncation",
    "relu", "order", "equality", "argmax",
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("name", ON_MASKS)
def test_broken_masks_are_found(broken_session, tap, monkeypatch, change, name):
    s = broken_session
    break_streams(s, monkeypatch, change, range(s.size))
    assert seen_without(0, examine(s, tap, PROGRAMS[name], "zeros", "limit"))


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("name", ["product of computed", "truncation", "relu", "order"])
def test_one_partys_broken_mask_is_found(broken_session, tap, monkeypatch, change, name):
    s = broken_session
    for party in {0, s.size - 1}:
        with monkeypatch.context() as patch:
            break_streams(s, patch, change, [party])
            assert seen_without(0, examine(s, tap, PROGRAMS[name], "zeros", "limit"))


@pytest.mark.parametrize("change", [clear, keep_half], ids=lambda change: change.__name__)
def test_broken_masks_of_a_verdict_are_found(broken_session, tap, monkeypatch, change):
    s = broken_session
    break_streams(s, monkeypatch, change, range(s.size))
    views, _ = seen_of_a_verdict(s, tap, VERDICTS["a product"], "limit")
    chances = [(name, "", chance_of_uniform(counts_of(some))) for name, some in views.items()]
    assert seen_without(0, [finding for finding in chances if finding[2] < ALARM])


@pytest.mark.parametrize("name", ["square", "product of computed"])
def test_a_mask_that_serves_two_tensors_is_found(broken_session, tap, monkeypatch, name):
    s = broken_session
    for party, streams in tuple(s.streams.items()):
        monkeypatch.setitem(s.streams, party, replace(streams, masks=SameId(streams.masks)))
    # One secret alone, so that it is the two operands' masks that are found.
    findings = examine(s, tap, PROGRAMS[name], "mixed", "mixed")
    assert any("against" in where for where, _, _ in findings)


@pytest.mark.parametrize("name", ["share", "share of the last"])
def test_broken_shares_are_found(broken_session, tap, monkeypatch, name):
    s = broken_session
    for change in CHANGES:
        with monkeypatch.context() as patch:
            for party, some in tuple(s.streams.items()):
                pairs = {j: Broken(stream, change) for j, stream in some.pairs.items()}
                patch.setitem(s.streams, party, replace(some, pairs=pairs))
            assert examine(s, tap, PROGRAMS[name], "zeros", "limit")


def test_a_zero_bit_mask_is_found(broken_session, tap, monkeypatch):
    # beta alone: it follows the mask of the values.
    def clear_beta(out):
        out.reshape(-1)[SIZE : SIZE + SIZE // 64] = 0

    s = broken_session
    break_streams(s, monkeypatch, clear_beta, range(s.size))
    for name in ("relu", "order", "equality"):
        assert examine(s, tap, PROGRAMS[name], "zeros", "limit")


def test_a_missing_share_of_a_correction_is_found(broken_session, tap, monkeypatch):
    # The provider knows no better, so the others' shares add up to what was dealt.
    s = broken_session
    none = Broken(s.streams[0].corrections, clear)
    monkeypatch.setitem(s.streams, 0, replace(s.streams[0], corrections=none))
    provider = s.source.provider
    theirs = Broken(provider.correction_streams[0], clear)
    monkeypatch.setattr(provider, "correction_streams", [theirs, *provider.correction_streams[1:]])
    for name in ("truncation", "relu", "order"):
        assert seen_without(0, examine(s, tap, PROGRAMS[name], "zeros", "limit"))


def test_the_statistics_find_small_differences():
    random = np.random.default_rng(5)
    even = random.integers(0, 2**64, 1 << 14, np.uint64)
    assert chance_of_uniform(counts_of(even)) >= ALARM
    # One bit of 64 set in 60 rather than 50 of a hundred words.
    bit = (random.random(even.size) < 0.6).astype(np.uint64) << np.uint64(17)
    odd = even & ~np.uint64(1 << 17) | bit
    assert chance_of_uniform(counts_of(odd)) < ALARM
    assert chance_of_same(counts_of(even), counts_of(odd)) < ALARM
    assert chance_of_uniform(counts_of(np.zeros(1 << 14, np.uint64))) < ALARM
